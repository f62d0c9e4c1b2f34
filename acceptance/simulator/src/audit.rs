//! What has to be true when everything has settled.
//!
//! The rule this module protects: nothing of the platform judges itself. What the stores hold goes through the audit that
//! an operator runs against a real platform, and what clients were told is compared with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use domain::financing::Command;
use domain::integration::Registering;
use eventsourcing::importer::{Translate as _, Translated};
use eventsourcing::model::{AggregateRef, EncodedSnapshot};
use eventsourcing::outcome::{Fingerprint, Outcome, Reply};
use eventsourcing::partition::Partition;
use eventsourcing::ports::{DeadLetter, InboxEntry, Row, Value};
use eventsourcing::record::Record;
use uuid::Uuid;
use verify::{Audit, Expect, Invariant, PartitionRow};

use crate::plan::{Message, Streamed};
use crate::run::Director;
use crate::stage::POLICIES;
use crate::tally::{Counted, Tally};
use crate::{Breach, Check, operator};

thread_local! {
    /// One audit a thread: it keeps its memory from one run to the next.
    static AUDIT: RefCell<Audit> = RefCell::new(Audit::new(1));
}

/// Checks what a run has left behind, and counts it.
pub(crate) fn check(director: &mut Director<'_>) -> Result<(), Breach> {
    let inbox: BTreeMap<Uuid, InboxEntry> = {
        let entries = director.stage.log.inbox().into_iter();
        entries.map(|entry| (entry.outcome.command_id, entry)).collect()
    };
    let mut tally = Tally::default();
    let checked = AUDIT.with_borrow_mut(|audit| stores(director, &inbox, audit, &mut tally));
    count(director, &inbox, &mut tally);
    director.tally.merge(&tally);
    checked?;
    causes_come_first(director)?;
    answers(director, &inbox)?;
    imported(director, &inbox)?;
    dead_letters(director)?;
    operator::check(director)
}

/// What the stores hold, before I1 to I6.
fn stores(
    director: &Director<'_>,
    inbox: &BTreeMap<Uuid, InboxEntry>,
    audit: &mut Audit,
    tally: &mut Tally,
) -> Result<(), Breach> {
    let stage = &director.stage;
    audit.reset(stage.partitions.get());
    for partition in stage.partitions.all() {
        let projected = stage.models.projected(partition);
        audit.projected(partition.index(), projected.sequence.get(), projected.record_id);
    }
    for snapshot in stage.log.snapshots() {
        tally.count(Counted::Snapshots);
        let AggregateRef { kind, id } = &snapshot.aggregate;
        let EncodedSnapshot { schema, data } = &snapshot.state;
        audit.snapshot(kind, *id, snapshot.version.get(), *schema, data);
    }
    for partition in stage.partitions.all() {
        for message in stage.bus.stream(partition) {
            audit.published(&as_record(&message));
        }
    }
    for partition in stage.partitions.all() {
        for record in stage.log.records(partition) {
            recorded(&record, tally);
            audit.record(&as_record(&record));
        }
    }
    for (id, InboxEntry { fingerprint, outcome }) in inbox {
        let Outcome { position, verdict, .. } = outcome;
        let verdict = serde_json::to_string(verdict).unwrap_or_default();
        audit.inbox(*id, &fingerprint.0, position.partition.index(), position.sequence.get(), &verdict);
    }
    audit.queue(Some(stage.queue.born()));
    for partition in stage.partitions.all() {
        let row = stage.log.row(partition);
        tally.add(Counted::TakenOver, row.epoch.get());
        if let Some(position) = row.position {
            audit.remembers(partition.index(), position.created_at, position.mark);
            let messages = stage.queue.messages(partition);
            let there = messages.iter().find(|message| message.message == position.message);
            let mark = there.and_then(|message| {
                let slots = eventsourcing::command::unpack(partition, message.message, &message.payload);
                slots.first().map(|first| message.mark(first.command_id()))
            });
            audit.stands(partition.index(), mark);
        }
        let position = row.position.map(|position| (position.message, position.index));
        let row = PartitionRow { epoch: row.epoch.get(), head: row.head.get(), position };
        audit.partition(partition.index(), row);
        for message in stage.queue.messages(partition) {
            let slots = eventsourcing::command::unpack(partition, message.message, &message.payload);
            for (index, slot) in (0u32..).zip(slots) {
                audit.queued(slot.command_id(), partition.index(), message.message, index);
            }
        }
        let policies = stage.log.checkpoints().at(POLICIES, partition);
        audit.checkpoint(POLICIES, partition.index(), policies.get());
    }
    for table in readmodel::tables::TABLES {
        for row in stage.models.table(table.name) {
            show(audit, table.name, &row);
        }
    }
    let memory = director.memory.borrow();
    let mut accepted: Vec<Uuid> =
        memory.accepted.iter().copied().filter(|id| !director.lost.contains(id)).collect();
    accepted.sort_unstable();
    accepted.dedup();
    let report = audit.finish(&Expect { settled: true, accepted: &accepted });
    let Some(breach) = report.breaches.first() else { return Ok(()) };
    // It begins with the invariant's name, which the check has, too.
    let said = breach.to_string();
    let what = said.split_once(": ").map_or(said.as_str(), |(_, rest)| rest).to_owned();
    Err(Breach { check: check_of(breach.invariant), what })
}

const fn check_of(invariant: Invariant) -> Check {
    match invariant {
        Invariant::I1 => Check::I1,
        Invariant::I2 => Check::I2,
        Invariant::I3 => Check::I3,
        Invariant::I4 => Check::I4,
        Invariant::I5 => Check::I5,
        Invariant::I6 => Check::I6,
        Invariant::Causality => Check::Causality,
        Invariant::Form => Check::Form,
    }
}

fn as_record(record: &Record) -> verify::Record<'_> {
    verify::Record {
        partition: record.partition.index(),
        sequence: record.sequence.get(),
        record_id: record.record_id,
        recorded_at: record.recorded_at.as_micros(),
        aggregate_type: &record.aggregate.kind,
        aggregate_id: record.aggregate.id,
        version: record.version.map(eventsourcing::partition::Version::get),
        event_type: &record.event_type,
        schema: record.schema,
        payload: &record.data,
        command_id: record.command_id,
        correlation_id: record.correlation_id,
        causation_id: record.causation_id,
        actor: &record.actor,
        traceparent: record.traceparent.as_deref(),
        command_last: record.last_of_command,
    }
}

fn show(audit: &mut Audit, table: &str, row: &Row) {
    let text = |index: usize| row.values.get(index).and_then(Option::as_ref).and_then(Value::text);
    let integer = |index: usize| row.values.get(index).and_then(Option::as_ref).and_then(Value::integer);
    let uuid = |index: usize| row.values.get(index).and_then(Option::as_ref).and_then(Value::uuid);
    let key = row.key;
    audit.row(&match table {
        "issuers" => verify::Row::Issuer { key, name: text(0) },
        "investors" => verify::Row::Investor {
            key,
            name: text(0),
            currency: text(1),
            available: integer(2),
            reserved: integer(3),
            committed: integer(4),
        },
        "invoices" => verify::Row::Invoice {
            key,
            issuer_id: uuid(0),
            currency: text(1),
            asking_price: integer(2),
            status: text(3),
            winning_bid: uuid(4),
            winning_investor: uuid(5),
            winning_amount: integer(6),
        },
        "bids" => verify::Row::Bid {
            key,
            investor_id: uuid(0),
            invoice_id: uuid(1),
            currency: text(2),
            amount: integer(3),
            settlement: text(4),
            verdict: text(5),
            reason: text(6),
        },
        _ => verify::Row::Command {
            key,
            state: text(0),
            reason: text(1),
            message: text(2),
            log_partition: integer(3),
            log_sequence: integer(4),
            invoice_id: uuid(5),
            since: integer(6),
            cause_partition: integer(7),
            cause_sequence: integer(8),
        },
    });
}

/// What a record is, for those who want to see that everything happened.
fn recorded(record: &Record, tally: &mut Tally) {
    tally.count(Counted::Records);
    let data = record.data.as_str();
    let says = |word: &str| data.contains(word);
    let what = match record.event_type.as_ref() {
        "IssuerCreated" => Counted::IssuerCreated,
        "InvestorCreated" => Counted::InvestorCreated,
        "InvestorFundsAdded" => Counted::InvestorFundsAdded,
        "BidOnInvoicePlaced" => Counted::BidOnInvoicePlaced,
        "InvestorFundsReleased" if says(r#""EXCESS""#) => Counted::ReleasedExcess,
        "InvestorFundsReleased" if says(r#""RETURN""#) => Counted::ReleasedReturn,
        "InvestorFundsReleased" => Counted::ReleasedLost,
        "InvestorFundsCommitted" => Counted::InvestorFundsCommitted,
        "InvoiceCreated" => Counted::InvoiceCreated,
        "InvoiceFinanced" => Counted::InvoiceFinanced,
        "InvoiceApproved" => Counted::InvoiceApproved,
        "InvoiceReversed" => Counted::InvoiceReversed,
        "BidOnInvoiceRejected" if says("INVOICE_NOT_AVAILABLE") => Counted::RejectedNotAvailable,
        "BidOnInvoiceRejected" if says("BID_BELOW_ASKING_PRICE") => Counted::RejectedBelow,
        "BidOnInvoiceRejected" if says("CURRENCY_MISMATCH") => Counted::RejectedCurrency,
        "BidOnInvoiceRejected" => Counted::RejectedSelfFinancing,
        "CommandUnchanged" => Counted::Unchanged,
        "CommandDead" => Counted::Dead,
        _ => {
            let named = Counted::ALL.iter().find(|one| {
                one.name().strip_prefix("refused: ").is_some_and(|reason| {
                    data.strip_prefix(r#"{"reason":""#).is_some_and(|rest| rest.starts_with(reason))
                })
            });
            let Some(refused) = named else { return };
            *refused
        }
    };
    tally.count(what);
}

fn count(director: &Director<'_>, inbox: &BTreeMap<Uuid, InboxEntry>, tally: &mut Tally) {
    let stage = &director.stage;
    tally.add(Counted::Fenced, stage.log.fenced());
    tally.add(Counted::PublicationRefused, stage.bus.refused());
    tally.add(Counted::Refilled, director.lost_records);
    let (policies_queued, queued) = stage.book.queued();
    let records = stage.log.all_records();
    let of_policies = records.iter().filter(|one| one.last_of_command && one.actor.starts_with("policy:"));
    let of_policies = u64::try_from(of_policies.count()).unwrap_or(0);
    tally.add(Counted::PolicyRepeats, policies_queued.saturating_sub(of_policies));
    tally.add(Counted::Repeats, queued.saturating_sub(u64::try_from(inbox.len()).unwrap_or(0)));
}

/// On the bus, over all streams, nothing comes before what caused it.
fn causes_come_first(director: &Director<'_>) -> Result<(), Breach> {
    let mut published = BTreeSet::new();
    for record in director.stage.bus.order() {
        let is_caused = record.causation_id != record.command_id;
        if is_caused && !published.contains(&record.causation_id) {
            let what =
                format!("{} was published before its cause, {}", record.position(), record.causation_id);
            return Err(Breach { check: Check::I5, what });
        }
        published.insert(record.record_id);
    }
    Ok(())
}

/// What clients were told is what the inbox says, and what it says for ever.
fn answers(director: &mut Director<'_>, inbox: &BTreeMap<Uuid, InboxEntry>) -> Result<(), Breach> {
    let memory = director.memory.borrow();
    let wrong = |what: String| Err(Breach { check: Check::Answers, what });
    for (fingerprint, reply) in &memory.answers {
        let id = reply.command_id();
        let Some(entry) = inbox.get(&id) else {
            return wrong(format!("a client was told of the outcome of command {id}, which has none"));
        };
        match reply {
            Reply::Outcome(outcome) if *outcome != entry.outcome => {
                return wrong(format!(
                    "a client was told {outcome:?}, and the inbox says {:?}",
                    entry.outcome
                ));
            }
            Reply::Outcome(_) if *fingerprint != entry.fingerprint => {
                return wrong(format!(
                    "a client was told of the outcome of command {id}, which asked for something else"
                ));
            }
            Reply::Reused { .. } if *fingerprint == entry.fingerprint => {
                return wrong(format!(
                    "a client was told that command {id} was something else, and it was not"
                ));
            }
            Reply::Outcome(_) | Reply::Reused { .. } => {}
        }
    }
    director.tally.add(Counted::Answered, u64::try_from(memory.answers.len()).unwrap_or(0));
    Ok(())
}

/// What another context has said has an outcome, whatever became of the queue in between.
fn imported(director: &Director<'_>, inbox: &BTreeMap<Uuid, InboxEntry>) -> Result<(), Breach> {
    for payload in &director.streamed {
        let translated: Translated<Command> = Registering.translate("registering", payload);
        if let Translated::Command { id, .. } = translated
            && !inbox.contains_key(&id)
        {
            let what =
                format!("a registration that was published is not imported: command {id} has no outcome");
            return Err(Breach { check: Check::I2, what });
        }
    }
    Ok(())
}

/// What nobody could do anything with is kept, once.
fn dead_letters(director: &mut Director<'_>) -> Result<(), Breach> {
    let (mut commands, mut messages) = (Vec::new(), BTreeSet::new());
    for letter in director.stage.letters.kept() {
        director.tally.count(Counted::Letters);
        match letter {
            DeadLetter::Command(record) => commands.push(record.record_id),
            DeadLetter::Foreign { message, .. } => {
                messages.insert(Fingerprint::of(&message.payload).0);
            }
        }
    }
    let mut dead: Vec<Uuid> = director
        .stage
        .partitions
        .all()
        .flat_map(|partition: Partition| director.stage.log.records(partition))
        .filter(|record| record.event_type == eventsourcing::record::COMMAND_DEAD)
        .map(|record| record.record_id)
        .collect();
    let malformed: BTreeSet<[u8; 32]> = director
        .plan
        .acts
        .iter()
        .filter_map(|act| match &act.message {
            Message::Streamed { what: Streamed::Malformed, payload } => Some(Fingerprint::of(payload).0),
            Message::Streamed { .. }
            | Message::Command { .. }
            | Message::Published { .. }
            | Message::Operated { .. }
            | Message::Stray { .. } => None,
        })
        .collect();
    commands.sort_unstable();
    dead.sort_unstable();
    if commands == dead && messages == malformed {
        return Ok(());
    }
    let what = format!(
        "of {} dead commands {} are kept, of {} malformed messages {}",
        dead.len(),
        commands.len(),
        malformed.len(),
        messages.len()
    );
    Err(Breach { check: Check::DeadLetters, what })
}
