//! Clients: they send, repeat with the same ids what was not answered, remember what they were told, and read what they
//! wrote.
//!
//! The rule this module protects: a client believes only what it was told. What it was told has to be true for ever, and
//! with its token it reads its own writes (I7).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use domain::financing::{Command, Financing};
use domain::integration::{ACTOR, command_id};
use domain::investor::InvestorCommand;
use domain::invoice::{InvoiceCommand, InvoiceStatus};
use domain::issuer::IssuerCommand;
use domain::views::{CommandState, Queries, QueryError};
use eventsourcing::command::Envelope;
use eventsourcing::environment::{Doorbells, Environment as _, within};
use eventsourcing::listener::{Intake, SubmitError};
use eventsourcing::outcome::{Fingerprint, Outcome, Reply, Verdict};
use eventsourcing::testkit::memory::{MemoryLog, MemoryReadModels};
use eventsourcing::testkit::world::WorldEnvironment;
use readmodel::ReadModelQueries;
use uuid::Uuid;

use crate::plan::{Act, Message};
use crate::stage::DeadLetterOffice;
use crate::story::Teller;
use crate::tally::{Counted, Tally};
use crate::wire::Clock;
use crate::{Breach, Check};

/// What all clients of a run remember together.
#[derive(Default)]
pub(crate) struct Memory {
    /// Commands that were accepted.
    pub(crate) accepted: Vec<Uuid>,
    /// What somebody was told of a command, and what it had asked for.
    pub(crate) answers: Vec<(Fingerprint, Reply)>,
    pub(crate) tally: Tally,
    pub(crate) breach: Option<Breach>,
    /// Clients that are not done.
    pub(crate) busy: usize,
}

/// A client, for one act.
pub(crate) struct Client {
    pub(crate) act: Act,
    pub(crate) environment: WorldEnvironment,
    pub(crate) intakes: Rc<RefCell<Vec<Option<Intake<Clock>>>>>,
    pub(crate) queries: Rc<ReadModelQueries<MemoryReadModels>>,
    pub(crate) news: Doorbells,
    pub(crate) log: MemoryLog,
    pub(crate) letters: Rc<DeadLetterOffice>,
    pub(crate) memory: Rc<RefCell<Memory>>,
    pub(crate) teller: Teller,
}

/// The command that an act sends, and whose it is.
fn envelope(message: &Message) -> Option<(Envelope, Command)> {
    let (command, event) = match message {
        Message::Command { id, command } => (command.clone(), Err(*id)),
        Message::Published { id, event } => (event.clone().command(), Ok(*id)),
        Message::Streamed { .. } | Message::Operated { .. } | Message::Stray { .. } => return None,
    };
    let actor = if event.is_ok() { ACTOR } else { "client" };
    let mut envelope = Envelope::first::<Financing>(Uuid::nil(), actor.to_owned(), &command).ok()?;
    let id = match event {
        Ok(event) => command_id(event, envelope.command.get().as_bytes()),
        Err(id) => id,
    };
    (envelope.command_id, envelope.correlation_id, envelope.causation_id) = (id, id, id);
    Some((envelope, command))
}

impl Client {
    /// Does what there is to do.
    pub(crate) async fn live(self) {
        self.environment.sleep(Duration::from_micros(self.act.at)).await;
        if let Some((envelope, command)) = envelope(&self.act.message) {
            self.teller.act(&self.act);
            if let Some(outcome) = self.send(&envelope).await
                && self.act.reads
            {
                self.read(&outcome, &command).await;
            }
            if self.act.again {
                self.send(&envelope).await;
            }
        }
        if let Message::Operated { deed, pick } = self.act.message {
            self.teller.act(&self.act);
            self.operate(deed, pick).await;
        }
        self.memory.borrow_mut().busy -= 1;
    }

    pub(crate) fn breach(&self, check: Check, what: String) {
        let mut memory = self.memory.borrow_mut();
        memory.breach.get_or_insert(Breach { check, what });
    }

    /// Sends until it has an answer that it can do something with, or enough of it.
    pub(crate) async fn send(&self, envelope: &Envelope) -> Option<Outcome> {
        let fingerprint = Fingerprint::of(envelope.command.get().as_bytes());
        let number = self.act.number;
        let mut listener = usize::from(self.act.second_listener);
        for attempt in 1..=self.act.tries {
            let intake = self.intakes.borrow().get(listener % 2).and_then(Clone::clone);
            let Some(intake) = intake else { continue };
            if attempt > 1 {
                self.teller.tell(|| format!("client {number} tries again, with the same ids"));
            }
            listener += 1;
            let answer = match self.act.wait {
                Some(wait) => {
                    let wait = Duration::from_millis(u64::from(wait));
                    intake.submit_and_wait(envelope.clone(), wait).await
                }
                None => intake.submit(envelope).await.map(|()| None),
            };
            match answer {
                Ok(reply) => {
                    self.memory.borrow_mut().accepted.push(envelope.command_id);
                    match reply {
                        Some(reply) => return self.told(fingerprint, reply),
                        None if self.act.wait.is_none() => {
                            self.teller.tell(|| format!("client {number} hears: accepted"));
                            return None;
                        }
                        None => {
                            self.memory.borrow_mut().tally.count(Counted::Pending);
                            self.teller.tell(|| format!("client {number} hears: accepted, outcome pending"));
                        }
                    }
                }
                Err(SubmitError::Unqueueable(reason)) => {
                    let what = format!("client {number} hears that its command cannot be queued: {reason}");
                    self.breach(Check::Answers, what);
                    return None;
                }
                Err(error @ (SubmitError::Overloaded | SubmitError::Unavailable)) => {
                    let overloaded = error == SubmitError::Overloaded;
                    let what = if overloaded { Counted::Overloaded } else { Counted::Unavailable };
                    self.memory.borrow_mut().tally.count(what);
                    self.teller.tell(|| format!("client {number} hears: {error}"));
                    self.environment.sleep(Duration::from_millis(200)).await;
                }
            }
        }
        None
    }

    fn told(&self, fingerprint: Fingerprint, reply: Reply) -> Option<Outcome> {
        let number = self.act.number;
        self.teller.tell(|| format!("client {number} hears: {}", told(&reply)));
        let id = reply.command_id();
        if !self.log.has_outcome(id) {
            let what = format!("client {number} is told of an outcome of command {id} that is not on disk");
            self.breach(Check::Answers, what);
        }
        self.memory.borrow_mut().answers.push((fingerprint, reply.clone()));
        match reply {
            Reply::Outcome(outcome) => Some(outcome),
            Reply::Reused { .. } => {
                self.memory.borrow_mut().tally.count(Counted::Reused);
                None
            }
        }
    }

    /// Presents its token, waits until the read models have seen it, and looks for what it wrote.
    async fn read(&self, outcome: &Outcome, command: &Command) {
        let bell = self.news.hang();
        loop {
            match self.queries.seen(&[outcome.position]).await {
                Ok(true) => match self.look(outcome, command).await {
                    Ok(()) => break,
                    Err(QueryError::Unavailable(_)) => {}
                    Err(error @ QueryError::Corrupt(_)) => {
                        return self.breach(Check::I7, format!("client {}: {error}", self.act.number));
                    }
                },
                Ok(false) | Err(QueryError::Unavailable(_)) => {}
                Err(error @ QueryError::Corrupt(_)) => {
                    return self.breach(Check::I7, format!("client {}: {error}", self.act.number));
                }
            }
            within(&self.environment, Duration::from_secs(1), bell.rung()).await;
        }
        self.memory.borrow_mut().tally.count(Counted::ReadOwnWrites);
    }

    async fn look(&self, outcome: &Outcome, command: &Command) -> Result<(), QueryError> {
        let position = outcome.position;
        let missing = |what: &str| {
            let number = self.act.number;
            let what = format!("client {number} presents its token {position} and does not read {what}");
            self.breach(Check::I7, what);
            Ok(())
        };
        let Some(view) = self.queries.command(outcome.command_id).await? else {
            return missing("the outcome of its own command");
        };
        if view.position != position || view.state != state(&outcome.verdict) {
            return missing("the outcome that it was told of");
        }
        if outcome.verdict != Verdict::Applied {
            return Ok(());
        }
        match command {
            Command::Issuer(IssuerCommand::CreateIssuer(create)) => {
                let issuer = self.queries.issuer(create.issuer_id).await?;
                if issuer.is_none_or(|view| view.name != create.name.as_str()) {
                    return missing("the issuer that it registered");
                }
            }
            Command::Investor(InvestorCommand::CreateInvestor(create)) => {
                let investor = self.queries.investor(create.investor_id).await?;
                // Bids may have moved it, but it is all there.
                let whole = investor.is_some_and(|view| {
                    let all = view.available.checked_add(view.reserved);
                    all.and_then(|all| all.checked_add(view.committed)) == Ok(create.balance)
                });
                if !whole {
                    return missing("the money that it registered");
                }
            }
            Command::Investor(InvestorCommand::BidOnInvoice(bid)) => {
                let view = self.queries.bid(bid.bid_id).await?;
                if view.is_none_or(|view| (view.amount, view.invoice_id) != (bid.amount, bid.invoice_id)) {
                    return missing("the bid that it placed");
                }
            }
            Command::Invoice(InvoiceCommand::SellInvoice(sell)) => {
                let view = self.queries.invoice(sell.invoice_id).await?;
                if view.is_none_or(|view| view.asking_price != sell.asking_price) {
                    return missing("the invoice that it sold");
                }
            }
            Command::Invoice(InvoiceCommand::ApproveFinancing(approve)) => {
                let view = self.queries.invoice(approve.invoice_id).await?;
                if view.is_none_or(|view| view.status != InvoiceStatus::Approved) {
                    return missing("its approval");
                }
            }
            Command::Invoice(InvoiceCommand::ReverseFinancing(reverse)) => {
                let view = self.queries.invoice(reverse.invoice_id).await?;
                if view.is_none_or(|view| view.status != InvoiceStatus::Reversed) {
                    return missing("its reversal");
                }
            }
            // Only policies send these.
            Command::Investor(InvestorCommand::ReleaseFunds(_) | InvestorCommand::CommitFunds(_))
            | Command::Invoice(InvoiceCommand::ProcessBid(_)) => {}
        }
        Ok(())
    }
}

const fn state(verdict: &Verdict) -> CommandState {
    match verdict {
        Verdict::Applied => CommandState::Applied,
        Verdict::Unchanged => CommandState::Unchanged,
        Verdict::Refused { .. } => CommandState::Refused,
        Verdict::Dead { .. } => CommandState::Dead,
    }
}

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Reused { .. } => "this id was used for something else".to_owned(),
        Reply::Outcome(outcome) => match &outcome.verdict {
            Verdict::Applied => format!("applied, at {}", outcome.position),
            Verdict::Unchanged => format!("unchanged, at {}", outcome.position),
            Verdict::Refused { reason, .. } => format!("refused, {reason}, at {}", outcome.position),
            Verdict::Dead { reason, .. } => format!("dead, {reason}, at {}", outcome.position),
        },
    }
}
