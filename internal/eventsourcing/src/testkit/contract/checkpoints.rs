//! What every store of checkpoints promises: a step is taken once, from where it begins.

use crate::partition::{Partition, Sequence};
use crate::ports::{CheckpointMove, Checkpoints};

use super::by_partition;
use super::sample::partition;

/// The suite of [`Checkpoints`].
pub async fn checkpoints<C, F>(make: F)
where
    C: Checkpoints + Clone,
    F: AsyncFn() -> C,
{
    who_has_not_begun_stands_at_zero(make().await).await;
    a_step_moves_only_from_where_the_checkpoint_is(make().await).await;
    one_refused_step_does_not_stop_the_others(make().await).await;
    readers_do_not_know_of_each_other(make().await).await;
    of_two_handles_one_wins(make().await).await;
    a_second_owner_goes_on_and_the_first_is_refused(make().await).await;
}

const READER: &str = "policies";

fn step(partition: Partition, from: u64, to: u64) -> CheckpointMove {
    CheckpointMove { partition, from: Sequence::new(from), to: Sequence::new(to) }
}

async fn at<C: Checkpoints>(checkpoints: &C, reader: &str, partition: Partition) -> u64 {
    let loaded =
        by_partition(checkpoints.load(reader, &[partition]).await.expect("checkpoints can be loaded"));
    loaded.get(&partition).expect("every partition asked for is answered").get()
}

async fn who_has_not_begun_stands_at_zero<C: Checkpoints>(checkpoints: C) {
    let asked = [partition(0), partition(3), partition(15)];
    let loaded = by_partition(checkpoints.load(READER, &asked).await.expect("checkpoints can be loaded"));
    assert_eq!(loaded, asked.into_iter().map(|partition| (partition, Sequence::ZERO)).collect());
    assert_eq!(checkpoints.load(READER, &[]).await, Ok(Vec::new()));
    assert_eq!(checkpoints.advance(READER, &[]).await, Ok(Vec::new()));
}

async fn a_step_moves_only_from_where_the_checkpoint_is<C: Checkpoints>(checkpoints: C) {
    let one = partition(1);
    assert_eq!(checkpoints.advance(READER, &[step(one, 1, 2)]).await, Ok(vec![false]), "it is at 0");
    assert_eq!(at(&checkpoints, READER, one).await, 0);
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 5)]).await, Ok(vec![true]));
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 5)]).await, Ok(vec![false]), "a repeat is refused");
    assert_eq!(at(&checkpoints, READER, one).await, 5);
    assert_eq!(checkpoints.advance(READER, &[step(one, 5, 9)]).await, Ok(vec![true]));
    assert_eq!(
        checkpoints.advance(READER, &[step(one, 9, 0)]).await,
        Ok(vec![true]),
        "a person may set it back"
    );
    assert_eq!(at(&checkpoints, READER, one).await, 0);
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 3)]).await, Ok(vec![true]));
    assert_eq!(at(&checkpoints, READER, one).await, 3);
}

async fn one_refused_step_does_not_stop_the_others<C: Checkpoints>(checkpoints: C) {
    let steps = [step(partition(2), 0, 7), step(partition(1), 4, 8), step(partition(3), 0, 1)];
    assert_eq!(
        checkpoints.advance(READER, &steps).await,
        Ok(vec![true, false, true]),
        "answers keep the order"
    );
    assert_eq!(at(&checkpoints, READER, partition(1)).await, 0);
    assert_eq!(at(&checkpoints, READER, partition(2)).await, 7);
    assert_eq!(at(&checkpoints, READER, partition(3)).await, 1);
}

async fn readers_do_not_know_of_each_other<C: Checkpoints>(checkpoints: C) {
    let one = partition(1);
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 5)]).await, Ok(vec![true]));
    assert_eq!(at(&checkpoints, "it's another", one).await, 0);
    assert_eq!(checkpoints.advance("it's another", &[step(one, 0, 2)]).await, Ok(vec![true]));
    assert_eq!(at(&checkpoints, READER, one).await, 5);
    assert_eq!(at(&checkpoints, "it's another", one).await, 2);
}

async fn of_two_handles_one_wins<C: Checkpoints + Clone>(checkpoints: C) {
    let other = checkpoints.clone();
    let one = partition(1);
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 5)]).await, Ok(vec![true]));
    assert_eq!(other.advance(READER, &[step(one, 0, 6)]).await, Ok(vec![false]));
    assert_eq!(at(&other, READER, one).await, 5);
}

async fn a_second_owner_goes_on_and_the_first_is_refused<C: Checkpoints + Clone>(checkpoints: C) {
    let other = checkpoints.clone();
    let one = partition(1);
    assert_eq!(checkpoints.advance(READER, &[step(one, 0, 5)]).await, Ok(vec![true]));
    let taken = at(&other, READER, one).await;
    assert_eq!(other.advance(READER, &[step(one, taken, 9)]).await, Ok(vec![true]));
    let late = [step(one, 5, 7), step(partition(2), 0, 1)];
    assert_eq!(checkpoints.advance(READER, &late).await, Ok(vec![false, true]), "it owns one of them still");
    assert_eq!(at(&checkpoints, READER, one).await, 9);
    assert_eq!(other.advance(READER, &[step(one, 9, 12)]).await, Ok(vec![true]));
}
