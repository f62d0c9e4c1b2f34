//! What every store of read models promises: rows and checkpoint move together, once, and rows are found again.

use uuid::Uuid;

use crate::partition::{Partition, Sequence};
use crate::ports::{
    CheckpointMove, Projected, ProjectionStep, RankedQuery, ReadModels, Row, RowChange, RowQuery, Test, Value,
};

use super::by_partition;
use super::sample::{OTHERS, TEXTS, THINGS, id, longest_text, partition};

/// The suite of [`ReadModels`]. The stores are opened with [`super::sample::TABLES`].
pub async fn read_models<R, F>(make: F)
where
    R: ReadModels + Clone,
    F: AsyncFn() -> R,
{
    an_empty_store_has_no_rows_and_stands_at_zero(make().await).await;
    a_row_is_made_and_changed_column_by_column(make().await).await;
    changes_of_one_step_apply_in_order(make().await).await;
    what_is_added_adds_up(make().await).await;
    a_step_from_elsewhere_changes_nothing(make().await).await;
    tables_do_not_know_of_each_other(make().await).await;
    values_come_back_as_they_were(make().await).await;
    rows_are_found_by_what_their_columns_are(make().await).await;
    rows_are_paged_by_their_keys(make().await).await;
    rows_are_listed_in_the_order_of_a_column(make().await).await;
    rows_are_found_by_their_keys(make().await).await;
    a_large_step_is_one_step(make().await).await;
    of_two_handles_one_wins(make().await).await;
    a_second_owner_goes_on_and_the_first_is_refused(make().await).await;
}

fn change(key: Uuid) -> RowChange {
    RowChange { table: THINGS, key, set: Vec::new(), add: Vec::new() }
}

fn set(key: Uuid, set: &[(&'static str, Value)]) -> RowChange {
    RowChange { set: set.to_vec(), ..change(key) }
}

fn add(key: Uuid, add: &[(&'static str, i64)]) -> RowChange {
    RowChange { add: add.to_vec(), ..change(key) }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The id of the record with this sequence.
fn record_id(partition: Partition, sequence: u64) -> Uuid {
    id(&format!("{partition}-{sequence}"))
}

fn step(partition: Partition, from: u64, to: u64, changes: Vec<RowChange>) -> ProjectionStep {
    ProjectionStep {
        checkpoint: CheckpointMove { partition, from: Sequence::new(from), to: Sequence::new(to) },
        record_id: record_id(partition, to),
        changes,
    }
}

/// Applies changes as the partition's first step.
async fn first<R: ReadModels>(models: &R, changes: Vec<RowChange>) {
    assert_eq!(models.apply(vec![step(partition(1), 0, 1, changes)]).await, Ok(vec![true]));
}

async fn checkpoint<R: ReadModels>(models: &R, partition: Partition) -> u64 {
    let all = by_partition(models.checkpoints(&[partition]).await.expect("checkpoints can be read"));
    let projected = all.get(&partition).expect("every partition asked for is answered");
    let sequence = projected.sequence.get();
    assert_eq!(projected.record_id, (sequence > 0).then(|| record_id(partition, sequence)));
    sequence
}

async fn row<R: ReadModels>(models: &R, key: Uuid) -> Option<Vec<Option<Value>>> {
    let row = models.row(THINGS, key).await.expect("a row can be read")?;
    assert_eq!(row.key, key);
    Some(row.values)
}

async fn amount<R: ReadModels>(models: &R, key: Uuid) -> Option<i64> {
    row(models, key).await.and_then(|values| values[2].as_ref().and_then(Value::integer))
}

async fn an_empty_store_has_no_rows_and_stands_at_zero<R: ReadModels>(models: R) {
    let asked = [partition(0), partition(9)];
    let checkpoints = by_partition(models.checkpoints(&asked).await.expect("checkpoints can be read"));
    assert_eq!(checkpoints, asked.into_iter().map(|partition| (partition, Projected::default())).collect());
    assert_eq!(models.row(THINGS, id("a")).await, Ok(None));
    let query = RowQuery { table: THINGS, conditions: Vec::new(), keys: None, after: None, limit: 10 };
    assert_eq!(models.rows(&query).await, Ok(Vec::new()));
    assert_eq!(models.apply(Vec::new()).await, Ok(Vec::new()));
}

async fn a_row_is_made_and_changed_column_by_column<R: ReadModels>(models: R) {
    let (key, owner) = (id("a"), Value::Uuid(id("owner")));
    first(&models, vec![set(key, &[("name", text("one")), ("amount", Value::Integer(7))])]).await;
    assert_eq!(
        row(&models, key).await,
        Some(vec![Some(text("one")), None, Some(Value::Integer(7)), None, None])
    );
    let changes = vec![set(key, &[("owner", owner.clone()), ("name", text("two"))])];
    assert_eq!(models.apply(vec![step(partition(1), 1, 5, changes)]).await, Ok(vec![true]));
    let expected = vec![Some(text("two")), Some(owner), Some(Value::Integer(7)), None, None];
    assert_eq!(row(&models, key).await, Some(expected), "what is not named stays");
    // Another partition writes other columns of the same row; a change of nothing still makes the row.
    let changes = vec![set(key, &[("note", text("n"))]), change(id("b"))];
    assert_eq!(models.apply(vec![step(partition(2), 0, 3, changes)]).await, Ok(vec![true]));
    assert_eq!(row(&models, key).await.expect("it is there")[4], Some(text("n")));
    assert_eq!(row(&models, id("b")).await, Some(vec![None; 5]));
    assert_eq!(row(&models, id("c")).await, None);
    assert_eq!((checkpoint(&models, partition(1)).await, checkpoint(&models, partition(2)).await), (5, 3));
}

async fn changes_of_one_step_apply_in_order<R: ReadModels>(models: R) {
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let changes = vec![
        set(a, &[("name", text("first")), ("amount", Value::Integer(10))]),
        add(b, &[("amount", 4)]),
        set(a, &[("name", text("second")), ("rank", Value::Integer(1))]),
        add(a, &[("amount", 5)]),
        set(b, &[("amount", Value::Integer(100))]),
        set(c, &[("amount", Value::Integer(1))]),
        add(b, &[("amount", 1)]),
        set(c, &[("amount", Value::Integer(2))]),
    ];
    first(&models, changes).await;
    let expected = vec![Some(text("second")), None, Some(Value::Integer(15)), Some(Value::Integer(1)), None];
    assert_eq!(row(&models, a).await, Some(expected));
    assert_eq!(amount(&models, b).await, Some(101));
    assert_eq!(amount(&models, c).await, Some(2));
}

async fn what_is_added_adds_up<R: ReadModels>(models: R) {
    let key = id("a");
    let changes = vec![
        add(key, &[("amount", 5), ("rank", -1)]),
        add(key, &[("amount", 7)]),
        add(key, &[("amount", -2)]),
    ];
    first(&models, changes).await;
    assert_eq!(amount(&models, key).await, Some(10), "an absent column counts as zero");
    let steps = vec![
        step(partition(1), 1, 2, vec![add(key, &[("amount", -30)])]),
        step(partition(2), 0, 1, vec![add(key, &[("rank", 3)])]),
    ];
    assert_eq!(models.apply(steps).await, Ok(vec![true, true]));
    assert_eq!(
        models.apply(vec![step(partition(1), 2, 3, vec![add(key, &[("amount", 0)])])]).await,
        Ok(vec![true])
    );
    assert_eq!(amount(&models, key).await, Some(-20));
    assert_eq!(row(&models, key).await.expect("it is there")[3], Some(Value::Integer(2)));
}

async fn a_step_from_elsewhere_changes_nothing<R: ReadModels>(models: R) {
    let (a, b, c) = (id("a"), id("b"), id("c"));
    first(&models, vec![set(a, &[("amount", Value::Integer(1))])]).await;
    let steps = vec![
        step(partition(2), 0, 4, vec![set(b, &[("amount", Value::Integer(2))])]),
        step(partition(1), 0, 9, vec![add(a, &[("amount", 50)]), set(c, &[("name", text("never"))])]),
        step(partition(3), 0, 5, vec![add(b, &[("rank", 3)])]),
    ];
    assert_eq!(models.apply(steps.clone()).await, Ok(vec![true, false, true]), "answers keep the order");
    assert_eq!((amount(&models, a).await, amount(&models, b).await), (Some(1), Some(2)));
    assert_eq!(row(&models, c).await, None);
    assert_eq!(models.apply(steps).await, Ok(vec![false, false, false]), "a repeat is refused");
    assert_eq!(row(&models, b).await.expect("it is there")[3], Some(Value::Integer(3)));
    assert_eq!(models.apply(vec![step(partition(1), 2, 3, Vec::new())]).await, Ok(vec![false]), "it is at 1");
    assert_eq!(
        models.apply(vec![step(partition(1), 1, 3, Vec::new())]).await,
        Ok(vec![true]),
        "a step may be empty"
    );
    let asked = [partition(3), partition(1), partition(2), partition(4)];
    let checkpoints = by_partition(models.checkpoints(&asked).await.expect("checkpoints can be read"));
    assert_eq!(
        checkpoints.values().map(|projected| projected.sequence.get()).collect::<Vec<_>>(),
        [3, 4, 5, 0]
    );
}

async fn tables_do_not_know_of_each_other<R: ReadModels>(models: R) {
    let key = id("a");
    let other =
        RowChange { table: OTHERS, ..set(key, &[("amount", Value::Integer(2)), ("name", text("other"))]) };
    first(&models, vec![set(key, &[("amount", Value::Integer(1))]), other]).await;
    assert_eq!(amount(&models, key).await, Some(1));
    let row = models.row(OTHERS, key).await.expect("a row can be read");
    assert_eq!(row, Some(Row { key, values: vec![Some(text("other")), Some(Value::Integer(2))] }));
}

async fn values_come_back_as_they_were<R: ReadModels>(models: R) {
    let longest = longest_text();
    let texts: Vec<&str> = TEXTS.iter().copied().chain([longest.as_str()]).collect();
    let numbers = [0, -1, i64::MAX, i64::MIN];
    let ids = [Uuid::nil(), Uuid::max(), id("any")];
    let mut rows = Vec::new();
    rows.extend(texts.iter().map(|value| (0, "name", text(value))));
    rows.extend(numbers.iter().map(|value| (2, "amount", Value::Integer(*value))));
    rows.extend(ids.iter().map(|value| (1, "owner", Value::Uuid(*value))));
    let keyed: Vec<_> = (1..).zip(rows).map(|(number, row)| (Uuid::from_u128(number), row)).collect();
    first(
        &models,
        keyed.iter().map(|(key, (_, column, value))| set(*key, &[(column, value.clone())])).collect(),
    )
    .await;
    for (key, (index, column, value)) in keyed {
        assert_eq!(row(&models, key).await.expect("it is there")[index], Some(value.clone()));
        let found = find(&models, &[(column, Test::Is(value))]).await;
        assert_eq!(found, [key], "it is found by its value");
    }
}

async fn find<R: ReadModels>(models: &R, conditions: &[(&'static str, Test)]) -> Vec<Uuid> {
    let query =
        RowQuery { table: THINGS, conditions: conditions.to_vec(), keys: None, after: None, limit: 100 };
    models.rows(&query).await.expect("rows can be read").iter().map(|row| row.key).collect()
}

async fn rows_are_found_by_what_their_columns_are<R: ReadModels>(models: R) {
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    let (me, you) = (Value::Uuid(id("me")), Value::Uuid(id("you")));
    let changes = vec![
        set(a, &[("owner", me.clone()), ("name", text("x")), ("rank", Value::Integer(1))]),
        set(b, &[("owner", me.clone()), ("rank", Value::Integer(2))]),
        set(c, &[("owner", you.clone()), ("name", text("x"))]),
    ];
    first(&models, changes).await;
    assert_eq!(find(&models, &[]).await, [a, b, c]);
    assert_eq!(find(&models, &[("owner", Test::Is(me.clone()))]).await, [a, b]);
    assert_eq!(find(&models, &[("rank", Test::Is(Value::Integer(2)))]).await, [b]);
    assert_eq!(find(&models, &[("name", Test::Is(text("x")))]).await, [a, c]);
    assert!(find(&models, &[("name", Test::Is(text("X")))]).await.is_empty(), "texts are compared exactly");
    assert_eq!(find(&models, &[("name", Test::Absent)]).await, [b]);
    assert_eq!(find(&models, &[("rank", Test::Present)]).await, [a, b]);
    assert_eq!(
        find(&models, &[("owner", Test::Is(me)), ("name", Test::Present)]).await,
        [a],
        "all of them hold"
    );
    assert!(find(&models, &[("owner", Test::Is(you)), ("rank", Test::Present)]).await.is_empty());
}

async fn rows_are_paged_by_their_keys<R: ReadModels>(models: R) {
    // In the order of their bytes: the highest bit is no sign.
    let mut keys: Vec<Uuid> = (0..25).map(|number| id(&format!("row {number}"))).collect();
    keys.extend([Uuid::nil(), Uuid::max(), Uuid::from_u128(1 << 127), Uuid::from_u128((1 << 127) - 1)]);
    first(&models, keys.iter().map(|key| set(*key, &[("rank", Value::Integer(1))])).collect()).await;
    keys.sort_by_key(|key| *key.as_bytes());
    for limit in [1, 7, 29, 100] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let conditions = vec![("rank", Test::Is(Value::Integer(1)))];
            let rows = models.rows(&RowQuery { table: THINGS, conditions, keys: None, after, limit }).await;
            let rows = rows.expect("rows can be read");
            assert!(rows.len() <= limit as usize, "a page keeps to its limit");
            let Some(last) = rows.last() else { break };
            after = Some(last.key);
            seen.extend(rows.iter().map(|row| row.key));
        }
        assert_eq!(seen, keys);
    }
}

async fn rows_are_listed_in_the_order_of_a_column<R: ReadModels>(models: R) {
    let keys: [Uuid; 6] = [1, 2, 3, 4, 5, 6].map(Uuid::from_u128);
    let amounts = [Some(30), Some(-7), Some(20), Some(20), None, Some(i64::MAX)];
    let row = |(key, amount): (Uuid, Option<i64>)| {
        let amount = amount.map(|amount| ("amount", Value::Integer(amount)));
        RowChange { set: amount.into_iter().collect(), ..change(key) }
    };
    first(&models, keys.into_iter().zip(amounts).map(row).collect()).await;
    let ranked = async |conditions: &[(&'static str, Test)], up_to, limit| -> Vec<Uuid> {
        let conditions = conditions.to_vec();
        let query = RankedQuery { table: THINGS, conditions, by: "amount", up_to, limit };
        models.ranked(&query).await.expect("rows can be read").iter().map(|row| row.key).collect()
    };
    let [thirty, least, done, twenty, _, most] = keys;
    let open = [("note", Test::Absent)];
    assert_eq!(
        ranked(&open, i64::MAX, 10).await,
        [least, done, twenty, thirty, most],
        "without a value it is not listed"
    );
    assert_eq!(ranked(&open, 20, 10).await, [least, done, twenty]);
    assert_eq!(ranked(&open, i64::MAX, 2).await, [least, done], "a list keeps to its limit");
    assert!(ranked(&open, -8, 10).await.is_empty());
    // One gets its value in the other column, one moves, and one is filtered by something else.
    let changes = vec![
        set(done, &[("note", text("done"))]),
        set(least, &[("amount", Value::Integer(25))]),
        set(twenty, &[("name", text("x"))]),
    ];
    assert_eq!(models.apply(vec![step(partition(1), 1, 2, changes)]).await, Ok(vec![true]));
    assert_eq!(ranked(&open, 100, 10).await, [twenty, least, thirty]);
    assert_eq!(ranked(&[("name", Test::Is(text("x")))], 100, 10).await, [twenty]);
    assert_eq!(ranked(&[], 100, 10).await, [done, twenty, least, thirty]);
}

async fn rows_are_found_by_their_keys<R: ReadModels>(models: R) {
    let key = |number: u128| Uuid::from_u128(number);
    let owner = |number: u128| Value::Uuid(id(if number.is_multiple_of(2) { "even" } else { "odd" }));
    let changes = (0..40).map(|number| set(key(number), &[("owner", owner(number))])).collect();
    first(&models, changes).await;
    let asked = |keys: Vec<Uuid>| RowQuery {
        table: THINGS,
        conditions: Vec::new(),
        keys: Some(keys),
        after: None,
        limit: 1000,
    };
    let found = async |query: RowQuery| -> Vec<u128> {
        let rows = models.rows(&query).await.expect("rows can be read");
        rows.iter().map(|row| row.key.as_u128()).collect()
    };
    // In the order of the keys, however they are asked for, and each once; those that are not there do not matter.
    let some = vec![key(30), key(3), key(99), key(7), key(3), key(0)];
    assert_eq!(found(asked(some.clone())).await, [0, 3, 7, 30]);
    assert!(found(asked(Vec::new())).await.is_empty(), "no key is no row");
    assert!(found(asked(vec![key(40), Uuid::max()])).await.is_empty());
    // Together with all else that a query says.
    let even = vec![("owner", Test::Is(Value::Uuid(id("even"))))];
    assert_eq!(found(RowQuery { conditions: even, ..asked(some.clone()) }).await, [0, 30]);
    assert_eq!(found(RowQuery { after: Some(key(3)), ..asked(some.clone()) }).await, [7, 30]);
    assert_eq!(found(RowQuery { limit: 2, ..asked(some) }).await, [0, 3]);
    for count in [1, 2, 3, 256, 257, 1000] {
        let expected: Vec<u128> = (0..count.min(40)).collect();
        assert_eq!(found(asked((0..count).map(key).collect())).await, expected);
    }
}

async fn a_large_step_is_one_step<R: ReadModels>(models: R) {
    for (from, size) in (0..).zip([1, 129, 1000, 7]) {
        let changes = (0..size)
            .map(|number| {
                let key = id(&format!("{}", number % 300));
                if number % 2 == 0 { add(key, &[("amount", 1)]) } else { set(key, &[("note", text("it's"))]) }
            })
            .collect();
        assert_eq!(models.apply(vec![step(partition(1), from, from + 1, changes)]).await, Ok(vec![true]));
    }
    let mut sum = 0;
    for number in 0..300 {
        sum += amount(&models, id(&format!("{number}"))).await.unwrap_or(0);
    }
    assert_eq!(sum, 1 + 65 + 500 + 4);
}

async fn of_two_handles_one_wins<R: ReadModels + Clone>(models: R) {
    let other = models.clone();
    first(&models, vec![add(id("a"), &[("amount", 1)])]).await;
    let late = step(partition(1), 0, 1, vec![add(id("a"), &[("amount", 1)])]);
    assert_eq!(other.apply(vec![late]).await, Ok(vec![false]));
    assert_eq!(amount(&other, id("a")).await, Some(1));
}

async fn a_second_owner_goes_on_and_the_first_is_refused<R: ReadModels + Clone>(models: R) {
    let other = models.clone();
    let paid = |from, to, amount| step(partition(1), from, to, vec![add(id("a"), &[("amount", amount)])]);
    assert_eq!(models.apply(vec![paid(0, 5, 1)]).await, Ok(vec![true]));
    let taken = checkpoint(&other, partition(1)).await;
    assert_eq!(other.apply(vec![paid(taken, 8, 10)]).await, Ok(vec![true]));
    // The first one's step begins where it stood, and ends where it may: it would count twice what the second counted.
    let elsewhere = step(partition(2), 0, 1, vec![add(id("b"), &[("amount", 7)])]);
    let late = models.apply(vec![paid(5, 9, 100), elsewhere]).await;
    assert_eq!(late, Ok(vec![false, true]), "it owns one of them still");
    assert_eq!(other.apply(vec![paid(8, 9, 1000)]).await, Ok(vec![true]));
    assert_eq!(amount(&models, id("a")).await, Some(1011));
    assert_eq!((checkpoint(&models, partition(1)).await, amount(&models, id("b")).await), (9, Some(7)));
}
