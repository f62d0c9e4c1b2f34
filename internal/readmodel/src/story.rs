//! The story of one invoice, put together from its records.
//!
//! The rule this module protects: the tree is what the records say. A command follows from the record that its causation id
//! names, a step that is missing is what the saga's policies make of its cause, and nothing is asked of anybody who would
//! have to remember it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::events::Event;
use domain::financing::Financing;
use domain::ids::{InvoiceId, IssuerId};
use domain::investor::InvestorEvent;
use domain::invoice::InvoiceEvent;
use domain::money::Amount;
use domain::saga::Saga;
use domain::story::{
    CommandStory, Ending, Next, RecordStory, SagaView, StoryView, StuckView, Turn, Why, between,
};
use domain::views::{InvoiceStatus, InvoiceView, QueryError};
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{Entry, Model as _, Policies as _};
use eventsourcing::partition::{LogPosition, Sequence};
use eventsourcing::policy::{derived_command_id, policy_of};
use eventsourcing::record::{COMMAND_DEAD, Record};
use uuid::Uuid;

/// What the read models know of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its last record stands there.
    Ended(LogPosition),
    /// A policy's command of which there is only the cause.
    Expected {
        /// The command.
        command_id: Uuid,
        /// Where its cause stands.
        cause: LogPosition,
    },
}

impl Known {
    /// The record that says what is known.
    #[must_use]
    pub const fn position(self) -> LogPosition {
        match self {
            Self::Ended(position) => position,
            Self::Expected { cause, .. } => cause,
        }
    }
}

/// The records that say of commands that they died, and from which none of these follows.
pub(crate) fn unanswered(known: &[Known], records: &Records) -> Vec<Uuid> {
    let ended = known.iter().filter_map(|known| records.get(&known.position()));
    let causes: HashSet<Uuid> = ended.clone().map(|record| record.causation_id).collect();
    let dead = ended.filter(|record| record.event_type == COMMAND_DEAD).map(|record| record.record_id);
    dead.filter(|id| !causes.contains(id)).collect()
}

/// Records by where they stand.
pub type Records = BTreeMap<LogPosition, Arc<Record>>;

/// The position before this one in its partition, where there is one.
pub(crate) fn before(position: LogPosition) -> Option<LogPosition> {
    let sequence = position.sequence.get().checked_sub(1).filter(|sequence| *sequence > 0)?;
    Some(LogPosition { sequence: Sequence::new(sequence), ..position })
}

/// The first record known of the command whose record stands here: what is before it is another's, or not among them.
pub(crate) fn first_of(records: &Records, position: LogPosition) -> LogPosition {
    let mut first = position;
    let Some(command_id) = records.get(&position).map(|record| record.command_id) else { return first };
    while let Some(earlier) = before(first)
        && records.get(&earlier).is_some_and(|record| record.command_id == command_id)
    {
        first = earlier;
    }
    first
}

fn corrupt(record: &Record, what: impl std::fmt::Display) -> QueryError {
    QueryError::Corrupt(format!("record {}: {what}", record.position()))
}

fn read(record: &Record) -> Result<Entry<Financing>, QueryError> {
    record.entry::<Financing>().map_err(|error| corrupt(record, error))
}

fn find(records: &Records, position: LogPosition) -> Result<&Arc<Record>, QueryError> {
    let missing = || QueryError::Unavailable(format!("the bus does not have record {position} (yet)"));
    records.get(&position).ok_or_else(missing)
}

/// A step that was not taken.
///
/// # Errors
///
/// When its cause is not among the records, or nothing like it follows from it.
pub fn stuck(command_id: Uuid, cause: LogPosition, records: &Records) -> Result<StuckView, QueryError> {
    let record = find(records, cause)?;
    let (policy, command) = Saga
        .react(&read(record)?)
        .filter(|(policy, _)| derived_command_id(record.record_id, policy) == command_id)
        .ok_or_else(|| corrupt(record, format!("command {command_id} does not follow from it")))?;
    Ok(StuckView {
        command_id,
        method: Financing::method(&command).to_owned(),
        target: Financing::target(&command),
        policy: policy.to_owned(),
        invoice_id: command.invoice_id(),
        correlation_id: record.correlation_id,
        since: record.recorded_at,
        cause,
        cause_record_id: record.record_id,
        cause_event: record.event_type.to_string(),
    })
}

/// Puts a story together. The records are those of all that is known, and those before them of the same commands; `invoice`
/// is the invoice as the read models have it, for a story whose end is not told.
///
/// # Errors
///
/// When a record is missing, or does not say what it must.
pub fn assemble(
    invoice_id: InvoiceId,
    known: &[Known],
    records: &Records,
    invoice: Option<&InvoiceView>,
    truncated: bool,
) -> Result<StoryView, QueryError> {
    let times = records.values().map(|record| (record.record_id, record.recorded_at)).collect();
    let commands = known.iter().map(|known| match known {
        Known::Ended(position) => ended(*position, records, &times),
        Known::Expected { command_id, cause } => expected(*command_id, *cause, records),
    });
    let mut tree = Tree::of(commands.collect::<Result<_, _>>()?);
    let mut sagas = Vec::new();
    for first in std::mem::take(&mut tree.roots) {
        let mut commands = Vec::new();
        tree.tell(first, &mut commands);
        sagas.push(saga(commands));
    }
    let standing = Standing::of(known, records, invoice.filter(|_| truncated))?;
    let next = next(&sagas, &standing);
    Ok(StoryView { invoice_id, status: standing.status, sagas, next, truncated })
}

/// Commands that wait for their place in the tree.
struct Tree {
    roots: Vec<CommandStory>,
    /// By the record that they follow from.
    followers: HashMap<Uuid, Vec<CommandStory>>,
}

impl Tree {
    fn of(mut commands: Vec<CommandStory>) -> Self {
        commands.sort_by_key(|command| (begun(command), command.id));
        let told: HashMap<Uuid, Uuid> = commands
            .iter()
            .flat_map(|command| command.records.iter().map(|record| (record.record_id, command.id)))
            .collect();
        let (mut roots, mut followers) = (Vec::new(), HashMap::<Uuid, Vec<CommandStory>>::new());
        for command in commands {
            // A client's command names itself; a cause that is not told leaves its effect at the root.
            if told.get(&command.causation_id).is_some_and(|by| *by != command.id) {
                followers.entry(command.causation_id).or_default().push(command);
            } else {
                roots.push(command);
            }
        }
        Self { roots, followers }
    }

    /// The command, and behind it all that follows from it.
    fn tell(&mut self, first: CommandStory, told: &mut Vec<CommandStory>) {
        let mut waiting = vec![first];
        while let Some(command) = waiting.pop() {
            let followers: Vec<CommandStory> = command
                .records
                .iter()
                .flat_map(|record| self.followers.remove(&record.record_id).unwrap_or_default())
                .collect();
            waiting.extend(followers.into_iter().rev());
            told.push(command);
        }
    }
}

/// When a command came into the story.
fn begun(command: &CommandStory) -> Timestamp {
    match (&command.ending, command.records.first()) {
        (Ending::Expected { since }, _) => *since,
        (_, Some(record)) => record.recorded_at,
        (_, None) => Timestamp::default(),
    }
}

fn saga(commands: Vec<CommandStory>) -> SagaView {
    let first = commands.first();
    let began_at = first.map(|first| first.accepted_at.unwrap_or_else(|| begun(first))).unwrap_or_default();
    let records = commands.iter().flat_map(|command| &command.records);
    SagaView {
        correlation_id: first.map(|first| first.correlation_id).unwrap_or_default(),
        began_at,
        last_at: records.map(|record| record.recorded_at).max().unwrap_or(began_at),
        settled: open_steps(&commands).next().is_none() && lost(&commands).next().is_none(),
        commands,
    }
}

/// When the steps became due that have not been taken.
fn open_steps(commands: &[CommandStory]) -> impl Iterator<Item = Timestamp> {
    commands.iter().filter_map(|command| match &command.ending {
        Ending::Expected { since } => Some(*since),
        Ending::Applied | Ending::Unchanged | Ending::Refused(_) | Ending::Dead(_) => None,
    })
}

/// What a story calls the decision that nothing is to be done about a dead command.
const DISCARD: &str = "DiscardDeadLetter";

/// When those commands died that nobody has sent again since, and whether a person has decided that nobody will.
fn lost(commands: &[CommandStory]) -> impl Iterator<Item = (Timestamp, bool)> {
    commands.iter().filter_map(|command| match &command.ending {
        Ending::Dead(_) => {
            let record = command.records.last()?;
            let is_discard = |other: &CommandStory| other.method.as_deref() == Some(DISCARD);
            let mut followers = commands.iter().filter(|other| other.causation_id == record.record_id);
            followers.clone().all(is_discard).then(|| (record.recorded_at, followers.any(is_discard)))
        }
        Ending::Expected { .. } | Ending::Applied | Ending::Unchanged | Ending::Refused(_) => None,
    })
}

/// When those commands died that wait for a person.
fn buried(commands: &[CommandStory]) -> impl Iterator<Item = Timestamp> {
    lost(commands).filter(|(_, is_discarded)| !is_discarded).map(|(died_at, _)| died_at)
}

fn expected(command_id: Uuid, cause: LogPosition, records: &Records) -> Result<CommandStory, QueryError> {
    let step = stuck(command_id, cause, records)?;
    Ok(CommandStory {
        id: command_id,
        method: Some(step.method),
        target: step.target,
        actor: eventsourcing::policy::actor(&step.policy),
        correlation_id: step.correlation_id,
        causation_id: step.cause_record_id,
        policy: Some(step.policy),
        accepted_at: None,
        ending: Ending::Expected { since: step.since },
        records: Vec::new(),
    })
}

fn ended(
    position: LogPosition,
    records: &Records,
    times: &HashMap<Uuid, Timestamp>,
) -> Result<CommandStory, QueryError> {
    let last = find(records, position)?;
    let first = first_of(records, position);
    let (method, ending) = ending(last)?;
    let policy = policy_of(&last.actor);
    let accepted_at = if last.causation_id == last.command_id { made_at(last.command_id) } else { None };
    let caused_at = times.get(&last.causation_id).copied().or(accepted_at);
    let told = records.range(first..=position).map(|(_, record)| told(record, caused_at));
    Ok(CommandStory {
        id: last.command_id,
        method,
        target: last.aggregate.clone(),
        actor: last.actor.clone(),
        correlation_id: last.correlation_id,
        causation_id: last.causation_id,
        policy: policy.map(ToOwned::to_owned),
        accepted_at,
        ending,
        records: told.collect::<Result<_, _>>()?,
    })
}

/// A UUID of version 7 says when it was made.
fn made_at(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?.checked_add(u64::from(nanos / 1000))?))
}

/// A command's name and its ending, as its last record says them.
fn ending(record: &Record) -> Result<(Option<String>, Ending), QueryError> {
    let named = |method: &str| Some(method.to_owned());
    Ok(match read(record)? {
        Entry::Fact(event) => (named(event.method()), Ending::Applied),
        Entry::Unchanged { command } => (named(Financing::method(&command)), Ending::Unchanged),
        Entry::Refused { command, .. } => {
            let told = record.refusal_reason().map_err(|error| corrupt(record, error))?;
            let told = told.ok_or_else(|| corrupt(record, "it says no reason"))?;
            let why = Why { reason: told.reason, message: told.message };
            (named(Financing::method(&command)), Ending::Refused(why))
        }
        Entry::Dead => {
            let dead = record.dead_letter().map_err(|error| corrupt(record, error))?;
            let dead = dead.ok_or_else(|| corrupt(record, "it says no reason"))?;
            let why = Why { reason: dead.reason.code().to_owned(), message: dead.message };
            let method = record.dead_command::<Financing>();
            let method = method.and_then(|command| named(Financing::method(&command)));
            (method, Ending::Dead(why))
        }
        Entry::Discarded => (named(DISCARD), Ending::Applied),
    })
}

fn told(record: &Record, caused_at: Option<Timestamp>) -> Result<RecordStory, QueryError> {
    let (amount, detail) = match read(record)? {
        Entry::Fact(event) => says(&event),
        Entry::Refused { .. } | Entry::Unchanged { .. } | Entry::Dead | Entry::Discarded => (None, ""),
    };
    Ok(RecordStory {
        position: record.position(),
        record_id: record.record_id,
        event_type: record.event_type.to_string(),
        recorded_at: record.recorded_at,
        latency: caused_at.map(|caused_at| between(caused_at, record.recorded_at)),
        amount,
        detail: detail.to_owned(),
        data: record.data.clone(),
    })
}

/// What a fact says beside its name: an amount, and a code.
fn says(event: &Event) -> (Option<Amount>, &'static str) {
    match event {
        Event::Issuer(_) => (None, ""),
        Event::Investor(event) => match event {
            InvestorEvent::InvestorCreated(_) => (None, ""),
            InvestorEvent::InvestorFundsAdded(fact) => (Some(fact.amount), ""),
            InvestorEvent::BidOnInvoicePlaced(fact) => (Some(fact.amount), ""),
            InvestorEvent::InvestorFundsReleased(fact) => (Some(fact.amount), fact.kind.code()),
            InvestorEvent::InvestorFundsCommitted(fact) => (Some(fact.amount), ""),
        },
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(fact) => (Some(fact.asking_price), ""),
            InvoiceEvent::InvoiceFinanced(fact) => (Some(fact.amount), ""),
            InvoiceEvent::BidOnInvoiceRejected(fact) => (Some(fact.amount), fact.reason.code()),
            InvoiceEvent::InvoiceApproved(fact) => (Some(fact.asking_price), ""),
            InvoiceEvent::InvoiceReversed(fact) => (Some(fact.asking_price), ""),
        },
    }
}

/// Where an invoice stands, and since when.
#[derive(Debug, Default)]
struct Standing {
    terms: Option<(IssuerId, Amount)>,
    status: Option<InvoiceStatus>,
    since: Option<Timestamp>,
}

impl Standing {
    /// As the facts that are told say it; `invoice` knows more of a story whose end is not told.
    fn of(known: &[Known], records: &Records, invoice: Option<&InvoiceView>) -> Result<Self, QueryError> {
        let mut standing = Self::default();
        let mut facts = Vec::new();
        for record in known.iter().filter_map(|known| records.get(&known.position())) {
            if let Entry::Fact(Event::Invoice(event)) = read(record)? {
                facts.push((record.version, record.recorded_at, event));
            }
        }
        facts.sort_by_key(|(version, ..)| *version);
        for (_, at, event) in facts {
            standing.take(&event, at);
        }
        if let Some(invoice) = invoice.filter(|invoice| Some(invoice.status) != standing.status) {
            let terms = Some((invoice.issuer_id, invoice.asking_price));
            standing = Self { terms, status: Some(invoice.status), since: None };
        }
        Ok(standing)
    }

    fn take(&mut self, event: &InvoiceEvent, at: Timestamp) {
        let status = match event {
            InvoiceEvent::InvoiceCreated(created) => {
                self.terms = Some((created.issuer_id, created.asking_price));
                InvoiceStatus::Available
            }
            InvoiceEvent::InvoiceFinanced(_) => InvoiceStatus::Financed,
            InvoiceEvent::InvoiceApproved(_) => InvoiceStatus::Approved,
            InvoiceEvent::InvoiceReversed(_) => InvoiceStatus::Reversed,
            InvoiceEvent::BidOnInvoiceRejected(_) => return,
        };
        (self.status, self.since) = (Some(status), Some(at));
    }
}

fn next(sagas: &[SagaView], standing: &Standing) -> Vec<Next> {
    let count = |times: &[Timestamp]| u32::try_from(times.len()).unwrap_or(u32::MAX);
    let mut next = Vec::new();
    let open: Vec<Timestamp> = sagas.iter().flat_map(|saga| open_steps(&saga.commands)).collect();
    if let Some(since) = open.iter().min() {
        next.push(Next { turn: Turn::Platform { steps: count(&open) }, since: Some(*since) });
    }
    let dead: Vec<Timestamp> = sagas.iter().flat_map(|saga| buried(&saga.commands)).collect();
    if let Some(since) = dead.iter().min() {
        next.push(Next { turn: Turn::Operator { dead: count(&dead) }, since: Some(*since) });
    }
    let turn = match (standing.status, standing.terms) {
        (Some(InvoiceStatus::Available), Some((_, asking_price))) => Turn::Investor { asking_price },
        (Some(InvoiceStatus::Financed), Some((issuer_id, _))) => Turn::Issuer { issuer_id },
        (Some(_), _) => Turn::Nobody,
        (None, _) => Turn::NoInvoice,
    };
    next.push(Next { turn, since: standing.since });
    next
}
