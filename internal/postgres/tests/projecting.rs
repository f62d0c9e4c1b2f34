//! The read models: sums, steps that follow each other, projectors at the same time.

use super::*;

async fn amount(models: &PostgresReadModels, key: Uuid) -> Option<Value> {
    models.row(THINGS, key).await.unwrap().unwrap().values[2].clone()
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_refused_and_never_rounded() {
    let database = services().database();
    let models = models(&database).await;
    let key = id("a");
    let changes = |set: Option<i64>, adds: &[i64]| {
        let set = set.map(|value| self::set(key, "amount", Value::Integer(value)));
        set.into_iter().chain(adds.iter().map(|amount| add(key, "amount", *amount))).collect::<Vec<_>>()
    };
    let first = step(1, 0, 1, changes(Some(i64::MAX - 1), &[1]));
    assert_eq!(models.apply(vec![first]).await, Ok(vec![true]));
    assert_eq!(amount(&models, key).await, Some(Value::Integer(i64::MAX)));
    for overflow in [changes(None, &[1]), changes(Some(i64::MAX), &[1]), changes(None, &[i64::MAX, 1])] {
        let refused = models.apply(vec![step(1, 1, 2, overflow)]).await;
        assert!(matches!(refused, Err(PortError::Content(_))), "{refused:?}");
    }
    assert_eq!(amount(&models, key).await, Some(Value::Integer(i64::MAX)));
    let unstorable =
        models.apply(vec![step(1, 1, 2, vec![set(key, "name", Value::Text("a\0b".to_owned()))])]).await;
    assert!(matches!(unstorable, Err(PortError::Content(_))), "{unstorable:?}");
    assert_eq!(models.checkpoints(&[partition(1)]).await.unwrap()[0].1.sequence, Sequence::new(1));
}

#[tokio::test]
async fn two_steps_of_one_partition_follow_each_other_in_one_call() {
    let database = services().database();
    let models = models(&database).await;
    let named = |number, from, to, name: &str| {
        step(number, from, to, vec![set(id("a"), "name", Value::Text(name.to_owned()))])
    };
    let name = async || models.row(THINGS, id("a")).await.unwrap().unwrap().values[0].clone();
    let steps = vec![named(1, 0, 2, "first"), named(1, 2, 3, "second"), named(1, 9, 10, "never")];
    assert_eq!(models.apply(steps).await, Ok(vec![true, true, false]));
    assert_eq!(name().await, Some(Value::Text("second".to_owned())));
    // The first does not begin where the checkpoint is, the one behind it does; and beside them another partition moves.
    let steps = vec![
        named(1, 2, 4, "never"),
        named(2, 0, 1, "other"),
        named(1, 3, 5, "third"),
        named(1, 5, 6, "fourth"),
    ];
    assert_eq!(models.apply(steps).await, Ok(vec![false, true, true, true]));
    assert_eq!(
        name().await,
        Some(Value::Text("fourth".to_owned())),
        "in the order in which they were handed over"
    );
    assert_eq!(
        models.apply(vec![named(1, 0, 1, "never"), named(40, 0, 1, "never")]).await,
        Ok(vec![false, false])
    );
}

#[tokio::test]
async fn of_two_projectors_with_the_same_step_one_applies_it() {
    let database = services().database();
    let (left, right) = (models(&database).await, models(&database).await);
    for number in 0..30 {
        let step = || vec![step(1, number, number + 1, vec![add(id("a"), "amount", 1)])];
        let (one, other) = tokio::join!(left.apply(step()), right.apply(step()));
        let mut answers = [one.unwrap()[0], other.unwrap()[0]];
        answers.sort_unstable();
        assert_eq!(answers, [false, true]);
    }
    assert_eq!(amount(&left, id("a")).await, Some(Value::Integer(30)));
}

#[tokio::test]
async fn projectors_of_different_partitions_write_their_columns_of_the_same_rows() {
    let database = services().database();
    let (left, right) = (models(&database).await, models(&database).await);
    // In opposite orders: who locks rows as they come waits for the other.
    let names = |round: u64| -> Vec<RowChange> {
        let text = |key| set(id(&format!("{key}")), "name", Value::Text(format!("{round}")));
        (0..50).map(text).collect()
    };
    let notes = |round: u64| -> Vec<RowChange> {
        let text = |key| set(id(&format!("{key}")), "note", Value::Text(format!("{round}")));
        (0..50).rev().map(text).collect()
    };
    for round in 0..20 {
        let (one, other) = tokio::join!(
            left.apply(vec![step(1, round, round + 1, names(round))]),
            right.apply(vec![step(2, round, round + 1, notes(round))])
        );
        assert_eq!((one, other), (Ok(vec![true]), Ok(vec![true])));
    }
    let query = RowQuery { table: THINGS, conditions: Vec::new(), keys: None, after: None, limit: 100 };
    let rows = left.rows(&query).await.unwrap();
    assert_eq!(rows.len(), 50);
    let last = Some(Value::Text("19".to_owned()));
    assert!(rows.iter().all(|row| row.values[0] == last && row.values[4] == last));
}

#[tokio::test]
async fn members_share_the_projection_without_the_log() {
    let database = services().database();
    let models = models(&database).await;
    let term = Duration::from_mins(1);
    let renew = async |name: &str| {
        models.renew(Role::Projector, id(name), PartitionCount::DEFAULT, term).await.unwrap().len()
    };
    assert_eq!((renew("a").await, renew("b").await, renew("a").await), (16, 8, 8));
    models.leave(Role::Projector, id("b")).await.unwrap();
    assert_eq!(renew("a").await, 16);
}
