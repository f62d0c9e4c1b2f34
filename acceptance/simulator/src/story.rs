//! A run as a story, for people.
//!
//! The rule this module protects: nothing is written down in words unless somebody wants to read it, and whoever does
//! reads who did what, and when, in the order in which it happened.

use std::cell::RefCell;
use std::rc::Rc;

use domain::financing::{Command, Financing};
use domain::integration::IntegrationEvent;
use domain::investor::InvestorCommand;
use domain::invoice::InvoiceCommand;
use domain::issuer::IssuerCommand;
use eventsourcing::command::{Slot, unpack};
use eventsourcing::environment::Environment as _;
use eventsourcing::model::Model as _;
use eventsourcing::partition::Partition;
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::testkit::world::{BEGINNING, WorldEnvironment};
use uuid::Uuid;

use crate::draw::letter;
use crate::plan::{Act, Cast, Harm, Message, Streamed};
use crate::stage::{IMPORTER, POLICIES, Stage};
use crate::wire::Made;
use crate::{Breach, Check};

/// Milliseconds as microseconds.
pub(crate) fn millis(millis: u32) -> u64 {
    u64::from(millis) * 1_000
}

/// Who tells; to nobody, unless asked to. A clone tells the same story.
#[derive(Clone)]
pub(crate) struct Teller(Option<Rc<Telling>>);

struct Telling {
    cast: Cast,
    environment: RefCell<Option<WorldEnvironment>>,
    lines: RefCell<Vec<(u64, String)>>,
    seen: RefCell<Vec<Seen>>,
    others: RefCell<(u64, u64, u64)>,
}

/// How far everything had come in a partition.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    epoch: u64,
    log: u64,
    bus: u64,
    models: u64,
    policies: u64,
    queue: u64,
}

impl Teller {
    pub(crate) fn new(telling: bool, cast: &Cast) -> Self {
        Self(telling.then(|| {
            Rc::new(Telling {
                cast: cast.clone(),
                environment: RefCell::default(),
                lines: RefCell::default(),
                seen: RefCell::default(),
                others: RefCell::default(),
            })
        }))
    }

    /// The story's time is that of this world.
    pub(crate) fn begin(&self, environment: WorldEnvironment) {
        if let Some(telling) = &self.0 {
            *telling.environment.borrow_mut() = Some(environment);
        }
    }

    pub(crate) fn is_telling(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(telling) = &self.0 {
            telling.line(line());
        }
    }

    pub(crate) fn act(&self, act: &Act) {
        if let Some(telling) = &self.0 {
            telling.line(telling.cast.act(act));
        }
    }

    /// What a step has done to the stores, and who did it.
    pub(crate) fn step(&self, stage: &Stage) {
        let Some(telling) = &self.0 else { return };
        let made = stage.book.take_made();
        let by = made.last().copied();
        let changed = telling.changes(stage);
        let Some(Made { part, call, fault, harm }) = by else { return };
        let how = match (fault, harm) {
            (Fault::Fail, _) => format!("{part}: {call:?} fails"),
            (Fault::Half, _) => format!("{part}: {call:?} breaks off in the middle"),
            (Fault::LoseAnswer, _) => format!("{part}: {call:?} happens, and its answer is lost"),
            (Fault::None, Some(Harm::AnswerLate(late))) => {
                format!("{part}: the answer to {call:?} is {late} ms late")
            }
            (Fault::None, Some(_)) => format!("{part}: {call:?} happens"),
            (Fault::None, None) => String::new(),
        };
        for what in &changed {
            telling.line(format!("{part} {what}"));
        }
        if !how.is_empty() {
            telling.line(how);
        } else if changed.is_empty() && call == Call::LogCommit {
            telling.line(format!("{part} commits nothing new"));
        }
    }

    /// The story as numbered lines, to its end.
    pub(crate) fn story(&self, breach: Option<&Breach>) -> Vec<String> {
        let Some(telling) = &self.0 else { return Vec::new() };
        let lines = telling.lines.borrow();
        let numbered = (1..).zip(lines.iter());
        let mut story: Vec<String> = numbered
            .map(|(number, (at, line))| {
                let (seconds, rest) = (at / 1_000_000, at % 1_000_000 / 1_000);
                format!("{number:>4}. {seconds:>2}.{rest:03} s  {line}")
            })
            .collect();
        story.push(match breach {
            None => "Everything has settled, and all is as it must be.".to_owned(),
            Some(Breach { check: Check::Liveness, what }) => format!("It does not come to an end: {what}"),
            Some(breach) => format!("BREACH of {breach}"),
        });
        story
    }
}

impl Telling {
    fn line(&self, line: String) {
        let now = self.environment.borrow().as_ref().map_or(0, |world| world.now().as_micros());
        let at = now.saturating_sub(BEGINNING.as_micros());
        self.lines.borrow_mut().push((at, line));
    }

    /// What is not as it was after the step before, in words.
    fn changes(&self, stage: &Stage) -> Vec<String> {
        let mut seen = self.seen.borrow_mut();
        seen.resize(usize::from(stage.partitions.get()), Seen::default());
        let mut changes = Vec::new();
        for (partition, before) in stage.partitions.all().zip(seen.iter_mut()) {
            let row = stage.log.row(partition);
            let now = Seen {
                epoch: row.epoch.get(),
                log: row.head.get(),
                bus: stage.bus.last(partition).get(),
                models: stage.models.checkpoint(partition).get(),
                policies: stage.log.checkpoints().at(POLICIES, partition).get(),
                queue: stage.queue.last(partition),
            };
            if now != *before {
                Self::change(stage, partition, *before, now, &mut changes);
                *before = now;
            }
        }
        let others = (
            stage.log.fenced(),
            stage.bus.refused(),
            stage.log.checkpoints().imported(IMPORTER).map_or(0, |position| position.message),
        );
        let before = self.others.replace(others);
        if others.0 > before.0 {
            changes.push("is fenced: another has taken the partition over".to_owned());
        }
        if others.1 > before.1 {
            changes.push("is refused by the bus: the stream does not end where it believes".to_owned());
        }
        if others.2 > before.2 {
            changes.push(format!("stands at message {} of the Registering context", others.2));
        }
        changes
    }

    fn change(stage: &Stage, partition: Partition, before: Seen, now: Seen, changes: &mut Vec<String>) {
        if now.epoch > before.epoch {
            changes.push(format!("takes partition {partition} over, epoch {}", now.epoch));
        }
        if now.log > before.log {
            let records = stage.log.records(partition);
            let new = records.iter().filter(|record| record.sequence.get() > before.log);
            let names: Vec<String> =
                new.map(|record| format!("{} {}", record.position(), record.event_type)).collect();
            changes.push(format!("commits {}", names.join(", ")));
        }
        if now.bus > before.bus {
            changes.push(format!("publishes {partition}-{} to {partition}-{}", before.bus + 1, now.bus));
        }
        if now.models > before.models {
            changes.push(format!("projects partition {partition} up to {}", now.models));
        }
        if now.policies > before.policies {
            changes
                .push(format!("moves the policies' checkpoint of partition {partition} to {}", now.policies));
        }
        if now.queue > before.queue {
            let messages = stage.queue.messages(partition);
            let new = messages.iter().filter(|message| message.message > before.queue);
            let names: Vec<String> = new
                .flat_map(|message| unpack(partition, message.message, &message.payload))
                .map(|slot| method(&slot))
                .collect();
            changes.push(format!("queues {} for partition {partition}", names.join(", ")));
        }
    }
}

fn method(slot: &Slot) -> String {
    match slot {
        Slot::Unreadable { .. } => "something unreadable".to_owned(),
        Slot::Envelope(envelope) => serde_json::from_str::<Command>(envelope.command.get()).map_or_else(
            |_| "an unknown command".to_owned(),
            |command| Financing::method(&command).to_owned(),
        ),
    }
}

impl Cast {
    fn issuer(&self, id: Uuid) -> String {
        let known = self.issuers.iter().position(|one| *one == id);
        known.map_or_else(|| "an unknown issuer".to_owned(), |place| format!("issuer {}", letter(place)))
    }

    fn investor(&self, id: Uuid) -> String {
        let known = self.investors.iter().position(|one| *one == id);
        known.map_or_else(|| "an unknown investor".to_owned(), |place| format!("investor {}", place + 1))
    }

    /// A party or an invoice.
    pub(crate) fn name(&self, id: Uuid) -> String {
        if self.investors.contains(&id) { self.investor(id) } else { self.invoice(id) }
    }

    fn invoice(&self, id: Uuid) -> String {
        let known = self.invoices.iter().position(|one| *one == id);
        known.map_or_else(|| "an unknown invoice".to_owned(), |place| format!("invoice {}", letter(place)))
    }

    fn event(&self, event: &IntegrationEvent) -> String {
        match event {
            IntegrationEvent::IssuerRegistered(event) => {
                format!("{} is registered as {}", self.issuer(event.issuer_id.as_uuid()), event.name)
            }
            IntegrationEvent::InvestorRegistered(event) => {
                let investor = self.investor(event.investor_id.as_uuid());
                format!("{investor} is registered as {} with {}", event.name, event.balance)
            }
        }
    }

    /// What somebody does, in words.
    fn act(&self, act: &Act) -> String {
        let client = format!("client {}", act.number);
        match &act.message {
            Message::Published { event, .. } => format!("{client} publishes: {}", self.event(event)),
            Message::Streamed { what: Streamed::Event(event), .. } => {
                format!("the Registering context says: {}", self.event(event))
            }
            Message::Streamed { what: Streamed::Ignored, .. } => {
                "the Registering context says something that is not for us".to_owned()
            }
            Message::Streamed { what: Streamed::Malformed, .. } => {
                "the Registering context says something malformed".to_owned()
            }
            Message::Stray { partition, payload } => {
                let said = unpack(Partition::from_index(*partition), 0, payload);
                let said: Vec<String> = said.iter().map(method).collect();
                format!("somebody puts {} into the queue of partition {partition}", said.join(", "))
            }
            Message::Operated { deed, .. } => format!("operator {}: {}", act.number, deed.says()),
            Message::Command { command, .. } => format!("{client}: {}", self.command(command)),
        }
    }

    fn command(&self, command: &Command) -> String {
        match command {
            Command::Issuer(IssuerCommand::CreateIssuer(create)) => {
                format!("{} is created", self.issuer(create.issuer_id.as_uuid()))
            }
            Command::Investor(InvestorCommand::CreateInvestor(create)) => {
                format!("{} is created", self.investor(create.investor_id.as_uuid()))
            }
            Command::Investor(InvestorCommand::BidOnInvoice(bid)) => format!(
                "{} bids {} on {}",
                self.investor(bid.investor_id.as_uuid()),
                bid.amount,
                self.invoice(bid.invoice_id.as_uuid())
            ),
            Command::Investor(InvestorCommand::ReleaseFunds(release)) => {
                format!("{} is to release {}", self.investor(release.investor_id.as_uuid()), release.amount)
            }
            Command::Investor(InvestorCommand::CommitFunds(commit)) => {
                format!("{} is to pay {}", self.investor(commit.investor_id.as_uuid()), commit.amount)
            }
            Command::Invoice(InvoiceCommand::SellInvoice(sell)) => format!(
                "{} sells {} for {}",
                self.issuer(sell.issuer_id.as_uuid()),
                self.invoice(sell.invoice_id.as_uuid()),
                sell.asking_price
            ),
            Command::Invoice(InvoiceCommand::ProcessBid(bid)) => {
                format!("{} is to answer a bid", self.invoice(bid.invoice_id.as_uuid()))
            }
            Command::Invoice(InvoiceCommand::ApproveFinancing(approve)) => {
                format!("the financing of {} is approved", self.invoice(approve.invoice_id.as_uuid()))
            }
            Command::Invoice(InvoiceCommand::ReverseFinancing(reverse)) => {
                format!("the financing of {} is reversed", self.invoice(reverse.invoice_id.as_uuid()))
            }
        }
    }
}
