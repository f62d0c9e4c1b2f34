//! The read models: sums, and steps that follow each other.

use super::*;

#[tokio::test]
async fn a_sum_that_does_not_fit_is_refused_and_never_rounded() {
    let directory = temporary();
    let models = models(directory.path()).await;
    let step = |from: u64, set: Option<i64>, add: Vec<i64>| ProjectionStep {
        checkpoint: CheckpointMove {
            partition: partition(1),
            from: Sequence::new(from),
            to: Sequence::new(from + 1),
        },
        record_id: id("record"),
        changes: vec![RowChange {
            table: THINGS,
            key: id("a"),
            set: set.map(|value| ("amount", Value::Integer(value))).into_iter().collect(),
            add: add.into_iter().map(|amount| ("amount", amount)).collect(),
        }],
    };
    let amount = async || models.row(THINGS, id("a")).await.unwrap().unwrap().values[2].clone();
    assert_eq!(models.apply(vec![step(0, Some(i64::MAX - 1), vec![1])]).await, Ok(vec![true]));
    assert_eq!(amount().await, Some(Value::Integer(i64::MAX)));
    for overflow in
        [step(1, None, vec![1]), step(1, Some(i64::MAX), vec![1]), step(1, None, vec![i64::MAX, 1])]
    {
        assert!(matches!(models.apply(vec![overflow]).await, Err(PortError::Content(_))));
    }
    assert_eq!(amount().await, Some(Value::Integer(i64::MAX)));
}

#[tokio::test]
async fn two_steps_of_one_partition_follow_each_other_in_one_call() {
    let directory = temporary();
    let models = models(directory.path()).await;
    let step = |from, to, name: &str| ProjectionStep {
        checkpoint: CheckpointMove {
            partition: partition(1),
            from: Sequence::new(from),
            to: Sequence::new(to),
        },
        record_id: id("record"),
        changes: vec![RowChange {
            table: THINGS,
            key: id("a"),
            set: vec![("name", Value::Text(name.to_owned()))],
            add: Vec::new(),
        }],
    };
    let steps = vec![step(0, 2, "first"), step(2, 3, "second"), step(9, 10, "never")];
    assert_eq!(models.apply(steps).await, Ok(vec![true, true, false]));
    let row = models.row(THINGS, id("a")).await.unwrap().unwrap();
    assert_eq!(row.values[0], Some(Value::Text("second".to_owned())));
}
