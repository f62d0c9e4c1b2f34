//! What every store of read models promises whose read models can be built anew: nobody sees a half, nothing is lost that is
//! projected meanwhile, and what is not finished was never there.

use std::future::ready;
use std::pin::pin;

use futures_util::future::{Either, select};
use uuid::Uuid;

use crate::partition::{Partition, Sequence};
use crate::ports::{
    CheckpointMove, PortError, PortResult, Projected, ProjectionStep, ReadModels, Row, RowChange, RowQuery,
    Test, Value,
};
use crate::shadow::{Rebuildable, Shadow};

use super::sample::{OTHERS, THINGS, id, partition};

/// The suite of [`Rebuildable`] and [`Shadow`]. The stores are opened with [`super::sample::TABLES`].
pub async fn rebuilds<R, F>(make: F)
where
    R: ReadModels + Rebuildable + Clone,
    F: AsyncFn() -> R,
{
    nobody_sees_what_is_built_before_the_swap(make().await).await;
    what_is_swapped_in_has_all_that_was_applied(make().await).await;
    there_is_one_shadow_at_a_time(make().await).await;
    an_abandoned_shadow_leaves_nothing(make().await).await;
    who_does_not_wait_for_the_index_can_abandon(make().await).await;
    a_dropped_shadow_leaves_nothing_to_the_next(make().await).await;
    a_shadow_that_stands_elsewhere_is_not_swapped_in(make().await).await;
    a_shadow_is_not_swapped_in_unless_the_live_ones_are_held(make().await).await;
    steps_follow_each_other(make().await).await;
    what_is_held_does_not_move_and_can_be_read(make().await).await;
    a_projector_goes_on_after_the_swap(make().await).await;
    it_can_be_done_again_and_again(make().await).await;
}

/// The suite of a swap while somebody reads the live ones in a long transaction, which is what `read` begins and dropping its
/// answer ends; `wait` says whether the swap waits for that.
pub async fn swaps_beside_readers<R, F, G, L>(make: F, read: G, wait: bool)
where
    R: ReadModels + Rebuildable + Clone,
    F: AsyncFn() -> R,
    G: AsyncFn(&R) -> L,
{
    a_swap_that_has_to_wait_loses_nothing(make().await, &read, wait).await;
    who_gives_up_waiting_leaves_nothing(make().await, &read, wait).await;
}

const ALL: [u16; 3] = [0, 1, 2];

fn all() -> Vec<Partition> {
    ALL.map(partition).to_vec()
}

fn record_id(partition: Partition, sequence: u64) -> Uuid {
    id(&format!("{partition}-{sequence}"))
}

fn step(number: u16, from: u64, to: u64, changes: Vec<RowChange>) -> ProjectionStep {
    let partition = partition(number);
    ProjectionStep {
        checkpoint: CheckpointMove { partition, from: Sequence::new(from), to: Sequence::new(to) },
        record_id: record_id(partition, to),
        changes,
    }
}

/// What the record with this sequence changes, in both tables.
fn changes(sequence: u64) -> Vec<RowChange> {
    let key = id(&format!("row {}", sequence % 7));
    let name = ("name", Value::Text(format!("it's {sequence}")));
    let owner = ("owner", Value::Uuid(id(&format!("owner {}", sequence % 2))));
    vec![
        RowChange {
            table: THINGS,
            key,
            set: vec![name.clone(), owner],
            add: vec![("amount", 1 << (sequence % 40))],
        },
        RowChange { table: OTHERS, key, set: vec![name], add: Vec::new() },
    ]
}

/// All the steps of partition 1 up to a sequence, `size` records each.
fn history(from: u64, to: u64, size: u64) -> Vec<ProjectionStep> {
    let mut steps = Vec::new();
    let mut at = from;
    while at < to {
        let next = (at + size).min(to);
        steps.push(step(1, at, next, (at + 1..=next).flat_map(changes).collect()));
        at = next;
    }
    steps
}

async fn begin<R: Rebuildable>(models: &R) -> R::Shadow {
    models.begin_rebuild().await.expect("a rebuild can begin").expect("none is under way")
}

async fn project<R: ReadModels>(models: &R, steps: Vec<ProjectionStep>) {
    for step in steps {
        assert_eq!(models.apply(vec![step]).await, Ok(vec![true]));
    }
}

async fn build<S: Shadow>(shadow: &mut S, steps: Vec<ProjectionStep>) {
    for step in steps {
        assert_eq!(shadow.apply(vec![step]).await, Ok(()));
    }
}

type Content = (Vec<(Partition, Projected)>, Vec<Row>, Vec<Row>);

/// All that can be read.
async fn content<R: ReadModels>(models: &R) -> Content {
    let rows = async |table| {
        let query = RowQuery { table, conditions: Vec::new(), keys: None, after: None, limit: 1000 };
        models.rows(&query).await.expect("rows can be read")
    };
    let mut checkpoints = models.checkpoints(&all()).await.expect("checkpoints can be read");
    checkpoints.sort_unstable_by_key(|(partition, _)| *partition);
    (checkpoints, rows(THINGS).await, rows(OTHERS).await)
}

async fn nobody_sees_what_is_built_before_the_swap<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 3, 1)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    assert_eq!(content(&models).await, before);
    // Other rows than those that are live, so that a leak would be seen.
    let other = RowChange { table: THINGS, key: id("other"), set: Vec::new(), add: vec![("rank", 1)] };
    build(&mut shadow, vec![step(1, 0, 3, vec![other])]).await;
    assert_eq!(content(&models).await, before);
    assert_eq!(shadow.index().await, Ok(()));
    assert_eq!(content(&models).await, before);
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(content(&models).await, before);
    assert_eq!(shadow.swap().await, Ok(true));
    let (checkpoints, things, others) = content(&models).await;
    assert_eq!(checkpoints, before.0, "it stands where they stood");
    assert_eq!((things.len(), others.len()), (1, 0), "nothing of the old ones is left");
    assert_eq!(things[0].key, id("other"));
}

async fn what_is_swapped_in_has_all_that_was_applied<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 100, 3)).await;
    project(&models, vec![step(2, 0, 5, changes(500))]).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 60, 60)).await;
    assert_eq!(shadow.index().await, Ok(()));
    build(&mut shadow, history(60, 100, 7)).await;
    let held = shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(held, before.0, "in the order in which it was asked");
    build(&mut shadow, vec![step(2, 0, 5, changes(500))]).await;
    assert_eq!(shadow.swap().await, Ok(true));
    assert_eq!(content(&models).await, before, "the same, however it was cut");
    // And by the columns that are indexed.
    let owned = vec![("owner", Test::Is(Value::Uuid(id("owner 0"))))];
    let query = RowQuery { table: THINGS, conditions: owned, keys: None, after: None, limit: 1000 };
    let found = models.rows(&query).await.expect("rows can be read");
    let expected: Vec<Row> =
        before.1.into_iter().filter(|row| row.values[1] == Some(Value::Uuid(id("owner 0")))).collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

async fn there_is_one_shadow_at_a_time<R: ReadModels + Rebuildable + Clone>(models: R) {
    let other = models.clone();
    let shadow = begin(&models).await;
    assert!(other.begin_rebuild().await.expect("it can be asked").is_none());
    assert!(models.begin_rebuild().await.expect("it can be asked").is_none());
    assert_eq!(shadow.abandon().await, Ok(()));
    let mut shadow = begin(&other).await;
    assert!(models.begin_rebuild().await.expect("it can be asked").is_none());
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(shadow.swap().await, Ok(true), "also of nothing");
    drop(shadow);
    let _free_again = begin(&models).await;
}

async fn an_abandoned_shadow_leaves_nothing<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 10, 2)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 10, 10)).await;
    assert_eq!(shadow.index().await, Ok(()));
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(shadow.abandon().await, Ok(()));
    assert_eq!(content(&models).await, before);
    project(&models, history(10, 12, 1)).await;
}

async fn who_does_not_wait_for_the_index_can_abandon<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 10, 2)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 10, 10)).await;
    let _begun_at_most = select(pin!(shadow.index()), ready(())).await;
    assert_eq!(shadow.abandon().await, Ok(()));
    assert_eq!(content(&models).await, before);
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 10, 5)).await;
    assert_eq!(shadow.index().await, Ok(()));
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(shadow.swap().await, Ok(true));
    assert_eq!(content(&models).await, before);
}

async fn a_dropped_shadow_leaves_nothing_to_the_next<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 4, 4)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    let other = RowChange { table: OTHERS, key: id("other"), set: Vec::new(), add: Vec::new() };
    build(&mut shadow, vec![step(0, 0, 9, vec![other])]).await;
    shadow.hold(&all()).await.expect("it can be held");
    drop(shadow);
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 4, 1)).await;
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(shadow.swap().await, Ok(true));
    assert_eq!(content(&models).await, before);
}

async fn a_shadow_that_stands_elsewhere_is_not_swapped_in<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 10, 5)).await;
    let before = content(&models).await;
    for wrong in [
        history(0, 9, 9),
        history(0, 11, 11),
        vec![ProjectionStep { record_id: id("of another log"), ..history(0, 10, 10).remove(0) }],
        [history(0, 10, 10), vec![step(2, 0, 1, Vec::new())]].concat(),
        Vec::new(),
    ] {
        let mut shadow = begin(&models).await;
        build(&mut shadow, wrong).await;
        shadow.hold(&all()).await.expect("it can be held");
        let refused = shadow.swap().await;
        assert!(matches!(refused, Err(PortError::Conflict(_))), "{refused:?}");
        assert_eq!(shadow.abandon().await, Ok(()));
        assert_eq!(content(&models).await, before);
    }
    project(&models, history(10, 11, 1)).await;
}

async fn a_shadow_is_not_swapped_in_unless_the_live_ones_are_held<R>(models: R)
where
    R: ReadModels + Rebuildable + Clone,
{
    project(&models, history(0, 2, 2)).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 2, 2)).await;
    let refused = shadow.swap().await;
    assert!(matches!(refused, Err(PortError::Conflict(_))), "{refused:?}");
    assert_eq!(shadow.abandon().await, Ok(()));
}

async fn steps_follow_each_other<R: ReadModels + Rebuildable + Clone>(models: R) {
    for wrong in [step(1, 1, 3, Vec::new()), step(1, 3, 4, Vec::new()), step(2, 1, 2, Vec::new())] {
        let mut shadow = begin(&models).await;
        build(&mut shadow, vec![step(1, 0, 2, Vec::new())]).await;
        let refused = shadow.apply(vec![wrong]).await;
        assert!(matches!(refused, Err(PortError::Conflict(_))), "{refused:?}");
        assert_eq!(shadow.abandon().await, Ok(()));
    }
}

/// Applies as a projector does: again, as long as it is told that the store is unavailable.
async fn insist<R: ReadModels>(models: &R, step: ProjectionStep) -> PortResult<Vec<bool>> {
    loop {
        match models.apply(vec![step.clone()]).await {
            Err(PortError::Unavailable(_)) => {}
            answer => return answer,
        }
    }
}

async fn what_is_held_does_not_move_and_can_be_read<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 2, 2)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    shadow.hold(&all()).await.expect("it can be held");
    {
        let applied = pin!(insist(&models, history(2, 3, 1).remove(0)));
        let looked = pin!(async {
            for _ in 0..20 {
                assert_eq!(content(&models).await, before);
            }
        });
        match select(applied, looked).await {
            Either::Left(_) => panic!("what is held moved"),
            Either::Right(((), _)) => {}
        }
    }
    assert_eq!(shadow.abandon().await, Ok(()));
    // What was begun while they were held may have happened by now, once.
    let answer = insist(&models, history(2, 3, 1).remove(0)).await.expect("a step can be applied");
    assert_eq!(answer.len(), 1);
    assert_eq!(content(&models).await.0[1].1.sequence, Sequence::new(3));
}

async fn a_projector_goes_on_after_the_swap<R: ReadModels + Rebuildable + Clone>(models: R) {
    project(&models, history(0, 20, 4)).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 20, 20)).await;
    project(&models, history(20, 25, 1)).await;
    shadow.hold(&all()).await.expect("it can be held");
    build(&mut shadow, history(20, 25, 5)).await;
    let swap = async {
        let swapped = shadow.swap().await;
        drop(shadow);
        swapped
    };
    let (swapped, applied) =
        futures_util::future::join(swap, insist(&models, history(25, 26, 1).remove(0))).await;
    assert_eq!((swapped, applied), (Ok(true), Ok(vec![true])), "it stands where it stood");
    project(&models, history(26, 30, 2)).await;
    let rebuilt = content(&models).await;
    let late = models.apply(history(25, 26, 1)).await;
    assert_eq!(late, Ok(vec![false]), "by compare-and-set, as before");
    assert_eq!(content(&models).await, rebuilt);
}

async fn it_can_be_done_again_and_again<R: ReadModels + Rebuildable + Clone>(models: R) {
    for round in 0..4 {
        project(&models, history(round * 10, round * 10 + 10, 3)).await;
        let before = content(&models).await;
        let mut shadow = begin(&models).await;
        build(&mut shadow, history(0, round * 10 + 10, 10)).await;
        assert_eq!(shadow.index().await, Ok(()));
        shadow.hold(&all()).await.expect("it can be held");
        assert_eq!(shadow.swap().await, Ok(true));
        drop(shadow);
        assert_eq!(content(&models).await, before, "round {round}");
    }
}

async fn a_swap_that_has_to_wait_loses_nothing<R, G, L>(models: R, read: &G, wait: bool)
where
    R: ReadModels + Rebuildable + Clone,
    G: AsyncFn(&R) -> L,
{
    project(&models, history(0, 30, 5)).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 20, 20)).await;
    assert_eq!(shadow.index().await, Ok(()));
    let reading = read(&models).await;
    let mut at = 20;
    let mut swapped = false;
    for round in 0..3 {
        let end = 30 + round * 4;
        shadow.hold(&all()).await.expect("it can be held");
        build(&mut shadow, history(at, end, 3)).await;
        at = end;
        swapped = shadow.swap().await.expect("it can be tried");
        assert_eq!(swapped, !wait, "round {round}");
        // They are not held any more, and are as they were: the projector goes on.
        project(&models, history(end, end + 4, 2)).await;
        if swapped {
            break;
        }
    }
    drop(reading);
    while !swapped {
        shadow.hold(&all()).await.expect("it can be held");
        build(&mut shadow, history(at, 42, 3)).await;
        at = 42;
        swapped = shadow.swap().await.expect("it can be tried");
    }
    drop(shadow);
    let reached = content(&models).await.0[1].1.sequence;
    project(&models, history(reached.get(), 50, 1)).await;
    // The same as what is built without anybody in the way.
    let after = content(&models).await;
    let mut shadow = begin(&models).await;
    build(&mut shadow, history(0, 50, 50)).await;
    shadow.hold(&all()).await.expect("it can be held");
    assert_eq!(shadow.swap().await, Ok(true));
    assert_eq!(content(&models).await, after);
}

async fn who_gives_up_waiting_leaves_nothing<R, G, L>(models: R, read: &G, wait: bool)
where
    R: ReadModels + Rebuildable + Clone,
    G: AsyncFn(&R) -> L,
{
    project(&models, history(0, 6, 2)).await;
    let before = content(&models).await;
    let mut shadow = begin(&models).await;
    let reading = read(&models).await;
    shadow.hold(&all()).await.expect("it can be held");
    build(&mut shadow, history(0, 6, 6)).await;
    assert_eq!(shadow.swap().await, Ok(!wait));
    if wait {
        let refused = shadow.swap().await;
        assert!(matches!(refused, Err(PortError::Conflict(_))), "they are not held: {refused:?}");
        assert_eq!(shadow.abandon().await, Ok(()));
    }
    drop(reading);
    assert_eq!(content(&models).await, before);
}
