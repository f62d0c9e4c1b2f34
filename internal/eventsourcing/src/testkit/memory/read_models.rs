//! The read models in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::{Call, Interference, Way, lock};
use crate::environment::Doorbells;
use crate::mutants::{Mutant, planted};
use crate::partition::{Partition, Sequence};
use crate::ports::{
    ColumnType, PortError, PortResult, Projected, ProjectionStep, RankedQuery, ReadModels, Row, RowChange,
    RowQuery, Table, Test, Value,
};
use crate::shadow::{Rebuildable, Shadow};

/// [`ReadModels`] in memory.
#[derive(Clone)]
pub struct MemoryReadModels {
    tables: &'static [Table],
    state: Arc<Mutex<SavedReadModels>>,
    rebuild: Arc<Mutex<UnderWay>>,
    long_reads: Arc<AtomicUsize>,
    bells: Doorbells,
    way: Way,
}

/// What a rebuild keeps from happening: the next one, and steps while the live ones are held.
#[derive(Debug, Default)]
struct UnderWay {
    begun: bool,
    held: bool,
}

/// What the read models held at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedReadModels {
    checkpoints: BTreeMap<Partition, Projected>,
    rows: BTreeMap<&'static str, BTreeMap<Uuid, Values>>,
}

type Values = Vec<Option<Value>>;

/// The rows that a transaction has touched, as they were before it.
type Undo = BTreeMap<(&'static str, Uuid), Option<Values>>;

fn broken(what: String) -> PortError {
    PortError::Broken(what)
}

/// A table's columns, looked up by name.
#[derive(Clone, Copy)]
struct Shape(&'static Table);

impl Shape {
    fn of(tables: &'static [Table], name: &str) -> PortResult<Self> {
        let table = tables.iter().find(|table| table.name == name);
        table.map(Self).ok_or_else(|| broken(format!("there is no table {name}")))
    }

    fn column(self, name: &str) -> PortResult<(usize, ColumnType)> {
        let found = self.0.columns.iter().enumerate().find(|(_, column)| column.name == name);
        let (index, column) = found.ok_or_else(|| broken(format!("{} has no column {name}", self.0.name)))?;
        Ok((index, column.kind))
    }

    fn typed(self, name: &str, value: &Value) -> PortResult<usize> {
        let (index, kind) = self.column(name)?;
        let is = match value {
            Value::Integer(_) => ColumnType::Integer,
            Value::Text(_) => ColumnType::Text,
            Value::Uuid(_) => ColumnType::Uuid,
        };
        if is == kind { Ok(index) } else { Err(broken(format!("{}.{name} is no {is:?}", self.0.name))) }
    }
}

impl SavedReadModels {
    fn change(&mut self, tables: &'static [Table], change: &RowChange, undo: &mut Undo) -> PortResult<()> {
        let shape = Shape::of(tables, change.table)?;
        let rows = self.rows.entry(shape.0.name).or_default();
        undo.entry((shape.0.name, change.key)).or_insert_with(|| rows.get(&change.key).cloned());
        let values = rows.entry(change.key).or_insert_with(|| vec![None; shape.0.columns.len()]);
        for (column, value) in &change.set {
            let index = shape.typed(column, value)?;
            if let Some(cell) = values.get_mut(index) {
                *cell = Some(value.clone());
            }
        }
        for (column, amount) in &change.add {
            let index = shape.typed(column, &Value::Integer(*amount))?;
            let Some(cell) = values.get_mut(index) else { continue };
            let sum = cell.as_ref().and_then(Value::integer).unwrap_or(0).checked_add(*amount);
            let sum =
                sum.ok_or_else(|| PortError::Content(format!("{}.{column} is too large", change.table)))?;
            *cell = Some(Value::Integer(sum));
        }
        Ok(())
    }

    /// Applies the steps; an error leaves nothing behind.
    fn apply(&mut self, tables: &'static [Table], steps: &[ProjectionStep]) -> PortResult<Vec<bool>> {
        let (before, mut undo) = (self.checkpoints.clone(), Undo::new());
        let answers = self.try_apply(tables, steps, &mut undo);
        if answers.is_err() {
            self.checkpoints = before;
            for ((table, key), values) in undo {
                let rows = self.rows.entry(table).or_default();
                match values {
                    Some(values) => rows.insert(key, values),
                    None => rows.remove(&key),
                };
            }
        }
        answers
    }

    fn try_apply(
        &mut self,
        tables: &'static [Table],
        steps: &[ProjectionStep],
        undo: &mut Undo,
    ) -> PortResult<Vec<bool>> {
        let mut answers = Vec::with_capacity(steps.len());
        for ProjectionStep { checkpoint, record_id, changes } in steps {
            let here = self.checkpoint(checkpoint.partition).sequence == checkpoint.from
                || planted(Mutant::ProjectionWithoutCompareAndSet);
            answers.push(here);
            if !here {
                continue;
            }
            let projected = Projected { sequence: checkpoint.to, record_id: Some(*record_id) };
            self.checkpoints.insert(checkpoint.partition, projected);
            for change in changes {
                self.change(tables, change, undo)?;
            }
        }
        Ok(answers)
    }

    fn checkpoint(&self, partition: Partition) -> Projected {
        self.checkpoints.get(&partition).copied().unwrap_or_default()
    }

    fn find(&self, shape: Shape, query: &RowQuery) -> PortResult<Vec<Row>> {
        let rows = self.holding(shape, &query.conditions)?;
        Ok(rows
            .filter(|row| query.after.is_none_or(|after| row.key > after))
            .filter(|row| query.keys.as_ref().is_none_or(|keys| keys.contains(&row.key)))
            .take(usize::try_from(query.limit).unwrap_or(usize::MAX))
            .collect())
    }

    fn rank(&self, shape: Shape, query: &RankedQuery) -> PortResult<Vec<Row>> {
        let by = shape.typed(query.by, &Value::Integer(query.up_to))?;
        let rank = |row: Row| {
            let rank = row.values.get(by)?.as_ref()?.integer()?;
            Some(((rank, row.key), row))
        };
        let rows = self.holding(shape, &query.conditions)?.filter_map(rank);
        let ranked: BTreeMap<_, _> = rows.filter(|((rank, _), _)| *rank <= query.up_to).collect();
        Ok(ranked.into_values().take(usize::try_from(query.limit).unwrap_or(usize::MAX)).collect())
    }

    /// The rows of which all conditions hold, in the order of their keys.
    fn holding<'a>(
        &'a self,
        shape: Shape,
        conditions: &'a [(&'static str, Test)],
    ) -> PortResult<impl Iterator<Item = Row> + 'a> {
        let mut tests = Vec::with_capacity(conditions.len());
        for (column, test) in conditions {
            let index = match test {
                Test::Is(value) => shape.typed(column, value)?,
                Test::Present | Test::Absent => shape.column(column)?.0,
            };
            tests.push((index, test));
        }
        let holds = move |values: &[Option<Value>]| {
            tests.iter().all(|(index, test)| {
                let cell = values.get(*index).and_then(Option::as_ref);
                match test {
                    Test::Is(value) => cell == Some(value),
                    Test::Present => cell.is_some(),
                    Test::Absent => cell.is_none(),
                }
            })
        };
        let rows = self.rows.get(shape.0.name).into_iter().flatten();
        let rows = rows.filter(move |(_, values)| holds(values));
        Ok(rows.map(|(key, values)| Row { key: *key, values: values.clone() }))
    }
}

impl MemoryReadModels {
    /// Empty read models with these tables.
    #[must_use]
    pub fn new(tables: &'static [Table]) -> Self {
        let rows = tables.iter().map(|table| (table.name, BTreeMap::new())).collect();
        let state = Arc::new(Mutex::new(SavedReadModels { checkpoints: BTreeMap::new(), rows }));
        Self {
            tables,
            state,
            rebuild: Arc::default(),
            long_reads: Arc::default(),
            bells: Doorbells::default(),
            way: Way::default(),
        }
    }

    /// Another handle on the same read models, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// What rings when rows have changed.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.bells
    }

    /// Where the projection is.
    #[must_use]
    pub fn checkpoint(&self, partition: Partition) -> Sequence {
        lock(&self.state).checkpoint(partition).sequence
    }

    /// Where the projection is, and at which record.
    #[must_use]
    pub fn projected(&self, partition: Partition) -> Projected {
        lock(&self.state).checkpoint(partition)
    }

    /// Every row of a table, in the order of the keys.
    #[must_use]
    pub fn table(&self, name: &str) -> Vec<Row> {
        let state = lock(&self.state);
        let rows = state.rows.get(name).into_iter().flatten();
        rows.map(|(key, values)| Row { key: *key, values: values.clone() }).collect()
    }

    /// The read models as they are, to compare or to restore later.
    #[must_use]
    pub fn save(&self) -> SavedReadModels {
        lock(&self.state).clone()
    }

    /// Loses every row, and keeps the checkpoints: what no adapter does, and somebody might do by hand.
    pub fn spoil(&self) {
        lock(&self.state).rows.values_mut().for_each(BTreeMap::clear);
    }

    /// Reads in a long transaction, which no rebuild interrupts.
    #[must_use]
    pub fn read_for_long(&self) -> LongRead {
        self.long_reads.fetch_add(1, Ordering::Relaxed);
        LongRead(Arc::clone(&self.long_reads))
    }

    /// Goes back to an earlier state.
    pub fn restore(&self, saved: SavedReadModels) {
        *lock(&self.state) = saved;
    }
}

impl ReadModels for MemoryReadModels {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        let checkpoints = || {
            let state = lock(&self.state);
            Ok(partitions.iter().map(|partition| (*partition, state.checkpoint(*partition))).collect())
        };
        self.way.call(Call::ModelsCheckpoints, checkpoints).await
    }

    async fn apply(&self, steps: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        let apply = || {
            if lock(&self.rebuild).held {
                return Err(PortError::Unavailable("a rebuild holds the read models".to_owned()));
            }
            let answers = lock(&self.state).apply(self.tables, &steps)?;
            self.bells.ring();
            Ok(answers)
        };
        self.way.call(Call::ModelsApply, apply).await
    }

    async fn row(&self, table: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        let find = || {
            let shape = Shape::of(self.tables, table)?;
            let state = lock(&self.state);
            let values = state.rows.get(shape.0.name).and_then(|rows| rows.get(&key));
            Ok(values.map(|values| Row { key, values: values.clone() }))
        };
        self.way.call(Call::ModelsRow, find).await
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        let find = || lock(&self.state).find(Shape::of(self.tables, query.table)?, query);
        self.way.call(Call::ModelsRows, find).await
    }

    async fn ranked(&self, query: &RankedQuery) -> PortResult<Vec<Row>> {
        let find = || lock(&self.state).rank(Shape::of(self.tables, query.table)?, query);
        self.way.call(Call::ModelsRows, find).await
    }
}

/// Somebody who reads in a long transaction. Dropping it ends that.
#[derive(Debug)]
pub struct LongRead(Arc<AtomicUsize>);

impl Drop for LongRead {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A [`Shadow`] in memory.
pub struct MemoryShadow {
    live: MemoryReadModels,
    state: SavedReadModels,
}

impl Drop for MemoryShadow {
    fn drop(&mut self) {
        *lock(&self.live.rebuild) = UnderWay::default();
    }
}

impl Rebuildable for MemoryReadModels {
    type Shadow = MemoryShadow;

    async fn begin_rebuild(&self) -> PortResult<Option<MemoryShadow>> {
        let begin = || {
            if std::mem::replace(&mut lock(&self.rebuild).begun, true) {
                return Ok(None);
            }
            let state = Self::new(self.tables).save();
            Ok(Some(MemoryShadow { live: self.clone(), state }))
        };
        self.way.call(Call::ShadowBegin, begin).await
    }
}

impl Shadow for MemoryShadow {
    async fn apply(&mut self, steps: Vec<ProjectionStep>) -> PortResult<()> {
        let Self { live, state } = self;
        let apply = || {
            if state.apply(live.tables, &steps)?.contains(&false) {
                return Err(PortError::Conflict("a step does not follow those before it".to_owned()));
            }
            Ok(())
        };
        live.way.call(Call::ShadowApply, apply).await
    }

    async fn index(&mut self) -> PortResult<()> {
        self.live.way.call(Call::ShadowIndex, || Ok(())).await
    }

    async fn hold(&mut self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        let hold = || {
            lock(&self.live.rebuild).held = true;
            let state = lock(&self.live.state);
            Ok(partitions.iter().map(|partition| (*partition, state.checkpoint(*partition))).collect())
        };
        self.live.way.call(Call::ShadowHold, hold).await
    }

    async fn swap(&mut self) -> PortResult<bool> {
        let Self { live, state } = self;
        let swap = || {
            let mut under_way = lock(&live.rebuild);
            let mut shown = lock(&live.state);
            if !under_way.held || shown.checkpoints != state.checkpoints {
                return Err(PortError::Conflict("the shadow is not where the read models are".to_owned()));
            }
            under_way.held = false;
            if live.long_reads.load(Ordering::Relaxed) > 0 {
                return Ok(false);
            }
            *shown = std::mem::take(state);
            live.bells.ring();
            Ok(true)
        };
        live.way.call(Call::ShadowSwap, swap).await
    }

    async fn abandon(self) -> PortResult<()> {
        self.live.way.call(Call::ShadowAbandon, || Ok(())).await
    }
}
