//! Reading the tables as the views of the domain.
//!
//! The rule this module protects: a row that does not say what it must is an error, never a guess.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::currency::Currency;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::money::{Amount, Money};
use domain::views::{
    BidFilter, BidStatus, BidView, CommandState, CommandView, InvestorFilter, InvestorView, InvoiceFilter,
    InvoiceStatus, InvoiceView, IssuerFilter, IssuerView, Page, Queries, QueryError, WinningBid,
};
use eventsourcing::mutants::{Mutant, planted};
use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{PortError, Projected, ReadModels, Row, RowQuery, Table, Test, Value};
use uuid::Uuid;

use crate::tables::{BIDS, COMMANDS, INVESTORS, INVOICES, ISSUERS, settlement, verdict};
use crate::together::Together;

/// As many rows as a [`RowQuery`] may name.
const MOST_OUTCOMES: usize = 1000;

/// The queries, over a store of read models. Clones share their questions: those who wait for something ask together.
#[derive(Debug, Clone)]
pub struct ReadModelQueries<S> {
    pub(crate) store: Arc<S>,
    outcomes: Arc<Together<Uuid, Option<Row>>>,
    progress: Arc<Together<Vec<Partition>, Progress>>,
}

/// How far the projection has come, as those share it who have asked together.
type Progress = Arc<BTreeMap<Partition, Projected>>;

/// The rows of these commands, in their order.
async fn outcomes<S: ReadModels>(store: Arc<S>, ids: Vec<Uuid>) -> Result<Vec<Option<Row>>, QueryError> {
    let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let (table, conditions, keys) = (COMMANDS.name, Vec::new(), Some(ids.clone()));
    let query = RowQuery { table, conditions, keys, after: None, limit };
    let rows = store.rows(&query).await.map_err(failed)?;
    let rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.key, row)).collect();
    Ok(ids.iter().map(|id| rows.get(id).cloned()).collect())
}

/// How far the projection has come: for each of these who ask, at least in the partitions that he asks for.
async fn progress<S: ReadModels>(
    store: Arc<S>,
    asked: Vec<Vec<Partition>>,
) -> Result<Vec<Progress>, QueryError> {
    let askers = asked.len();
    let mut partitions = asked.concat();
    partitions.sort_unstable();
    partitions.dedup();
    let progress = store.checkpoints(&partitions).await.map_err(failed)?;
    let progress = Arc::new(progress.into_iter().collect());
    Ok(vec![progress; askers])
}

impl<S: ReadModels> ReadModelQueries<S> {
    /// Over this store.
    pub fn new(store: S) -> Self {
        let (outcomes, progress) = (Together::new(MOST_OUTCOMES), Together::new(usize::MAX));
        Self { store: Arc::new(store), outcomes: Arc::new(outcomes), progress: Arc::new(progress) }
    }

    async fn one<T>(&self, table: Table, key: Uuid, read: Read<T>) -> Result<Option<T>, QueryError> {
        let row = self.store.row(table.name, key).await.map_err(failed)?;
        row.map_or(Ok(None), |row| read(&Fields::of(table, &row)))
    }

    async fn many<T>(
        &self,
        table: Table,
        conditions: Vec<(&'static str, Test)>,
        page: Page,
        read: Read<T>,
    ) -> Result<Vec<T>, QueryError> {
        let query =
            RowQuery { table: table.name, conditions, keys: None, after: page.after, limit: page.size };
        let rows = self.store.rows(&query).await.map_err(failed)?;
        rows.iter().filter_map(|row| read(&Fields::of(table, row)).transpose()).collect()
    }
}

/// How a row is read: `None` for one that says nothing yet.
pub(crate) type Read<T> = fn(&Fields<'_>) -> Result<Option<T>, QueryError>;

pub(crate) fn failed(error: PortError) -> QueryError {
    match error {
        PortError::Unavailable(reason) | PortError::Conflict(reason) | PortError::Full(reason) => {
            QueryError::Unavailable(reason)
        }
        PortError::Content(reason) | PortError::Broken(reason) => QueryError::Corrupt(reason),
    }
}

/// A row's values by the names of their columns.
pub(crate) struct Fields<'a> {
    table: &'static str,
    pub(crate) key: Uuid,
    values: BTreeMap<&'static str, &'a Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(table: Table, row: &'a Row) -> Self {
        let names = table.columns.iter().map(|column| column.name);
        let values = names.zip(&row.values).filter_map(|(name, value)| Some((name, value.as_ref()?)));
        Self { table: table.name, key: row.key, values: values.collect() }
    }

    pub(crate) fn wrong(&self, column: &str) -> QueryError {
        QueryError::Corrupt(format!("{} {}: column {column} is missing or wrong", self.table, self.key))
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.values.contains_key(column)
    }

    pub(crate) fn optional_text(&self, column: &str) -> Option<&'a str> {
        self.values.get(column)?.text()
    }

    pub(crate) fn text(&self, column: &str) -> Result<&'a str, QueryError> {
        self.optional_text(column).ok_or_else(|| self.wrong(column))
    }

    pub(crate) fn uuid(&self, column: &str) -> Result<Uuid, QueryError> {
        self.values.get(column).and_then(|value| value.uuid()).ok_or_else(|| self.wrong(column))
    }

    pub(crate) fn integer(&self, column: &str) -> Result<i64, QueryError> {
        self.values.get(column).and_then(|value| value.integer()).ok_or_else(|| self.wrong(column))
    }

    /// A position in the log, in two columns.
    pub(crate) fn position(
        &self,
        partition: &'static str,
        sequence: &'static str,
    ) -> Result<LogPosition, QueryError> {
        let (index, count) = (self.integer(partition)?, self.integer(sequence)?);
        Ok(LogPosition {
            partition: Partition::from_index(u16::try_from(index).map_err(|_| self.wrong(partition))?),
            sequence: Sequence::new(u64::try_from(count).map_err(|_| self.wrong(sequence))?),
        })
    }

    fn currency(&self) -> Result<Currency, QueryError> {
        Currency::parse(self.text("currency")?).ok_or_else(|| self.wrong("currency"))
    }

    fn amount(&self, column: &str) -> Result<Amount, QueryError> {
        Amount::from_minor(self.integer(column)?, self.currency()?).map_err(|_| self.wrong(column))
    }

    /// A balance to which nothing was ever added is absent.
    fn balance(&self, column: &str) -> Result<Money, QueryError> {
        let minor = if self.has(column) { self.integer(column)? } else { 0 };
        Money::from_minor(minor, self.currency()?).map_err(|_| self.wrong(column))
    }
}

fn issuer(row: &Fields<'_>) -> Result<Option<IssuerView>, QueryError> {
    Ok(Some(IssuerView { id: IssuerId::new(row.key), name: row.text("name")?.to_owned() }))
}

pub(crate) fn investor(row: &Fields<'_>) -> Result<Option<InvestorView>, QueryError> {
    Ok(Some(InvestorView {
        id: InvestorId::new(row.key),
        name: row.text("name")?.to_owned(),
        available: row.balance("available")?,
        reserved: row.balance("reserved")?,
        committed: row.balance("committed")?,
    }))
}

pub(crate) fn invoice(row: &Fields<'_>) -> Result<Option<InvoiceView>, QueryError> {
    let winning_bid = if row.has("winning_bid") {
        Some(WinningBid {
            bid_id: BidId::new(row.uuid("winning_bid")?),
            investor_id: InvestorId::new(row.uuid("winning_investor")?),
            amount: row.amount("winning_amount")?,
        })
    } else {
        None
    };
    Ok(Some(InvoiceView {
        id: InvoiceId::new(row.key),
        issuer_id: IssuerId::new(row.uuid("issuer_id")?),
        asking_price: row.amount("asking_price")?,
        status: InvoiceStatus::parse(row.text("status")?).ok_or_else(|| row.wrong("status"))?,
        winning_bid,
    }))
}

/// `None` for a bid of which only the invoice's half is there yet.
pub(crate) fn bid(row: &Fields<'_>) -> Result<Option<BidView>, QueryError> {
    if !row.has("investor_id") {
        return Ok(None);
    }
    let status = match (row.optional_text("settlement"), row.optional_text("verdict")) {
        (Some(settlement::COMMITTED), _) => BidStatus::Committed,
        (Some(settlement::RELEASED), _) => BidStatus::Released,
        (Some(_), _) => return Err(row.wrong("settlement")),
        (None, Some(verdict::WON)) => BidStatus::Won,
        (None, Some(verdict::REJECTED)) => BidStatus::Rejected,
        (None, Some(_)) => return Err(row.wrong("verdict")),
        (None, None) => BidStatus::Placed,
    };
    Ok(Some(BidView {
        id: BidId::new(row.key),
        investor_id: InvestorId::new(row.uuid("investor_id")?),
        invoice_id: InvoiceId::new(row.uuid("invoice_id")?),
        amount: row.amount("amount")?,
        status,
        reason: row.optional_text("reason").map(ToOwned::to_owned),
    }))
}

/// `None` for a policy's command that has no outcome yet.
fn command(row: &Fields<'_>) -> Result<Option<CommandView>, QueryError> {
    if !row.has("state") {
        return Ok(None);
    }
    Ok(Some(CommandView {
        id: row.key,
        state: CommandState::parse(row.text("state")?).ok_or_else(|| row.wrong("state"))?,
        reason: row.optional_text("reason").map(ToOwned::to_owned),
        message: row.optional_text("message").map(ToOwned::to_owned),
        position: row.position("log_partition", "log_sequence")?,
    }))
}

/// What a bid's status means in the columns that it is computed from.
fn has_status(status: BidStatus) -> Vec<(&'static str, Test)> {
    let is = |text: &str| Test::Is(Value::Text(text.to_owned()));
    match status {
        BidStatus::Placed => vec![("settlement", Test::Absent), ("verdict", Test::Absent)],
        BidStatus::Won => vec![("verdict", is(verdict::WON)), ("settlement", Test::Absent)],
        BidStatus::Rejected => vec![("verdict", is(verdict::REJECTED)), ("settlement", Test::Absent)],
        BidStatus::Committed => vec![("settlement", is(settlement::COMMITTED))],
        BidStatus::Released => vec![("settlement", is(settlement::RELEASED))],
    }
}

fn named(name: Option<&String>) -> Vec<(&'static str, Test)> {
    name.map(|name| ("name", Test::Is(Value::Text(name.clone())))).into_iter().collect()
}

pub(crate) fn by_id(column: &'static str, id: Option<Uuid>) -> Option<(&'static str, Test)> {
    Some((column, Test::Is(Value::Uuid(id?))))
}

impl<S: ReadModels> Queries for ReadModelQueries<S> {
    async fn issuer(&self, id: IssuerId) -> Result<Option<IssuerView>, QueryError> {
        self.one(ISSUERS, id.as_uuid(), issuer).await
    }

    async fn issuers(&self, filter: &IssuerFilter, page: Page) -> Result<Vec<IssuerView>, QueryError> {
        self.many(ISSUERS, named(filter.name.as_ref()), page, issuer).await
    }

    async fn investor(&self, id: InvestorId) -> Result<Option<InvestorView>, QueryError> {
        self.one(INVESTORS, id.as_uuid(), investor).await
    }

    async fn investors(&self, filter: &InvestorFilter, page: Page) -> Result<Vec<InvestorView>, QueryError> {
        self.many(INVESTORS, named(filter.name.as_ref()), page, investor).await
    }

    async fn invoice(&self, id: InvoiceId) -> Result<Option<InvoiceView>, QueryError> {
        self.one(INVOICES, id.as_uuid(), invoice).await
    }

    async fn invoices(&self, filter: &InvoiceFilter, page: Page) -> Result<Vec<InvoiceView>, QueryError> {
        let status = filter.status.map(|status| ("status", Test::Is(Value::Text(status.code().to_owned()))));
        let conditions = by_id("issuer_id", filter.issuer_id.map(IssuerId::as_uuid))
            .into_iter()
            .chain(by_id("winning_investor", filter.investor_id.map(InvestorId::as_uuid)))
            .chain(status)
            .collect();
        self.many(INVOICES, conditions, page, invoice).await
    }

    async fn bid(&self, id: BidId) -> Result<Option<BidView>, QueryError> {
        self.one(BIDS, id.as_uuid(), bid).await
    }

    async fn bids(&self, filter: &BidFilter, page: Page) -> Result<Vec<BidView>, QueryError> {
        let conditions = by_id("investor_id", filter.investor_id.map(InvestorId::as_uuid))
            .or(Some(("investor_id", Test::Present)))
            .into_iter()
            .chain(by_id("invoice_id", filter.invoice_id.map(InvoiceId::as_uuid)))
            .chain(filter.status.map(has_status).unwrap_or_default())
            .collect();
        self.many(BIDS, conditions, page, bid).await
    }

    async fn command(&self, id: Uuid) -> Result<Option<CommandView>, QueryError> {
        let row = match self.outcomes.ask(id, |ids| outcomes(Arc::clone(&self.store), ids)).await {
            // One of those that were asked for cannot be read: whose it is, each finds out for himself.
            Err(QueryError::Corrupt(_)) => return self.one(COMMANDS, id, command).await,
            row => row?,
        };
        row.map_or(Ok(None), |row| command(&Fields::of(COMMANDS, &row)))
    }

    async fn seen(&self, positions: &[LogPosition]) -> Result<bool, QueryError> {
        let partitions: Vec<Partition> = positions.iter().map(|position| position.partition).collect();
        let ask = |asked| progress(Arc::clone(&self.store), asked);
        let checkpoints = match self.progress.ask(partitions.clone(), ask).await {
            // As above.
            Err(QueryError::Corrupt(_)) => ask(vec![partitions]).await?.pop().unwrap_or_default(),
            checkpoints => checkpoints?,
        };
        Ok(positions.iter().all(|position| {
            checkpoints
                .get(&position.partition)
                .is_some_and(|projected| projected.sequence >= position.sequence)
                || planted(Mutant::ReadsDoNotWait)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use eventsourcing::ports::{CheckpointMove, ProjectionStep, RowChange};
    use eventsourcing::testkit::memory::{Call, Fault, MemoryReadModels};

    use super::*;
    use crate::tables::TABLES;

    /// What each is told in the end; they take their steps in turn.
    fn all<F: Future>(mut asked: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
        let mut answers: Vec<Option<F::Output>> = asked.iter().map(|_| None).collect();
        for _ in 0..1000 {
            for (one, answer) in asked.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
                if let Poll::Ready(told) = one.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    *answer = Some(told);
                }
            }
        }
        answers.into_iter().map(|answer| answer.expect("an answer")).collect()
    }

    #[test]
    fn of_those_who_ask_together_each_is_told_of_his_own() {
        let [good, unreadable, missing] = [1, 2, 3].map(Uuid::from_u128);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let count = move |call: Call| {
            let is_look = matches!(call, Call::ModelsRow | Call::ModelsRows | Call::ModelsCheckpoints);
            counted.fetch_add(usize::from(is_look), Ordering::Relaxed);
            Fault::None
        };
        let models = MemoryReadModels::new(TABLES).interfered(Arc::new(count));
        let row = |key, state: &str| RowChange {
            table: COMMANDS.name,
            key,
            set: vec![
                ("state", Value::Text(state.to_owned())),
                ("log_partition", Value::Integer(1)),
                ("log_sequence", Value::Integer(5)),
            ],
            add: Vec::new(),
        };
        let partition = Partition::from_index(1);
        let step = ProjectionStep {
            checkpoint: CheckpointMove { partition, from: Sequence::ZERO, to: Sequence::new(5) },
            record_id: good,
            changes: vec![row(good, "APPLIED"), row(unreadable, "BAKED")],
        };
        assert_eq!(all(vec![Box::pin(models.apply(vec![step]))]), [Ok(vec![true])]);

        let queries = ReadModelQueries::new(models);
        let ids = [missing, good, unreadable, good, missing];
        let told = all(ids.map(|id| Box::pin(queries.command(id))).into());
        let told: Vec<_> =
            told.into_iter().map(|told| told.map(|command| command.map(|command| command.id))).collect();
        let corrupt =
            QueryError::Corrupt(format!("{} {unreadable}: column state is missing or wrong", COMMANDS.name));
        assert_eq!(told, [Ok(None), Ok(Some(good)), Err(corrupt), Ok(Some(good)), Ok(None)]);
        assert_eq!(calls.swap(0, Ordering::Relaxed), 2, "the first, and then all the others");

        let at = |index, sequence| {
            [LogPosition { partition: Partition::from_index(index), sequence: Sequence::new(sequence) }]
        };
        let positions = [at(0, 1), at(1, 5), at(1, 6), at(0, 1)];
        let told = all(positions.iter().map(|positions| Box::pin(queries.seen(positions))).collect());
        assert_eq!(told, [Ok(false), Ok(true), Ok(false), Ok(false)]);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
