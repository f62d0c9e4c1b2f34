//! The aggregates and the policies on one thread, without a platform between them: commands that follow wait until
//! they are delivered, in any order that a test likes.

use std::collections::BTreeMap;

use domain::currency::Currency;
use domain::events::Event;
use domain::financing::{Command, Financing, State};
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::integration::{IntegrationEvent, InvestorRegistered, IssuerRegistered};
use domain::investor::{Account, BidOnInvoice, InvestorCommand};
use domain::invoice::{ApproveFinancing, Invoice, InvoiceCommand, ReverseFinancing, SellInvoice};
use domain::money::{Amount, Money};
use domain::refusal::Refusal;
use domain::saga::Saga;
use eventsourcing::model::{AggregateRef, Entry, Known, Model, Policies};

use crate::vocabulary::name;

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Applied(Vec<Event>),
    Unchanged,
    Refused(Refusal),
}

#[derive(Default)]
pub(crate) struct World {
    states: BTreeMap<AggregateRef, State>,
    /// Every fact, in the order in which they happened.
    pub(crate) log: Vec<(AggregateRef, Event)>,
    /// Every refused command.
    pub(crate) refused: Vec<(Command, Refusal)>,
    /// Commands that follow and were not delivered yet.
    pub(crate) pending: Vec<Command>,
    /// Commands that followed and were delivered.
    pub(crate) delivered: Vec<(Command, Answer)>,
}

impl World {
    pub(crate) fn send(&mut self, command: impl Into<Command>) -> Answer {
        let command = command.into();
        let target = Financing::target(&command);
        let state = self.states.get(&target).cloned().unwrap_or_else(|| Financing::initial(&target).unwrap());
        let known = Known::new(
            Financing::references(&command)
                .into_iter()
                .filter(|aggregate| self.states.contains_key(aggregate)),
        );
        match Financing::decide(&state, &command, &known) {
            Err(refusal) => {
                self.refused.push((command.clone(), refusal.clone()));
                self.react(&Entry::Refused { command, refusal: refusal.clone() });
                Answer::Refused(refusal)
            }
            Ok(events) if events.is_empty() => {
                self.react(&Entry::Unchanged { command });
                Answer::Unchanged
            }
            Ok(events) => {
                let after = events.iter().fold(state, Financing::evolve);
                self.states.insert(target.clone(), after);
                for event in &events {
                    self.log.push((target.clone(), event.clone()));
                    self.react(&Entry::Fact(event.clone()));
                }
                Answer::Applied(events)
            }
        }
    }

    fn react(&mut self, entry: &Entry<Financing>) {
        self.pending.extend(Saga.react(entry).map(|(_, command)| command));
    }

    /// Delivers one of the commands that follow, if there is one.
    pub(crate) fn deliver(&mut self, choice: usize) {
        if !self.pending.is_empty() {
            let command = self.pending.remove(choice % self.pending.len());
            let answer = self.send(command.clone());
            self.delivered.push((command, answer));
        }
    }

    /// Delivers whatever follows, in order, until nothing does.
    pub(crate) fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.deliver(0);
        }
    }

    pub(crate) fn states(&self) -> &BTreeMap<AggregateRef, State> {
        &self.states
    }

    pub(crate) fn register_issuer(&mut self, issuer_id: IssuerId) {
        let event = IssuerRegistered { issuer_id, name: name("Acme") };
        self.send(IntegrationEvent::IssuerRegistered(event).command());
    }

    pub(crate) fn register_investor(&mut self, investor_id: InvestorId, balance: Money) {
        let event = InvestorRegistered { investor_id, name: name("Ada"), balance };
        self.send(IntegrationEvent::InvestorRegistered(event).command());
    }

    pub(crate) fn sell(
        &mut self,
        invoice_id: InvoiceId,
        issuer_id: IssuerId,
        asking_price: Amount,
    ) -> Answer {
        self.send(InvoiceCommand::SellInvoice(SellInvoice { invoice_id, issuer_id, asking_price }))
    }

    pub(crate) fn bid(
        &mut self,
        bid_id: BidId,
        investor_id: InvestorId,
        invoice_id: InvoiceId,
        amount: Amount,
    ) -> Answer {
        self.send(InvestorCommand::BidOnInvoice(BidOnInvoice { investor_id, bid_id, invoice_id, amount }))
    }

    pub(crate) fn approve(&mut self, invoice_id: InvoiceId) -> Answer {
        self.send(InvoiceCommand::ApproveFinancing(ApproveFinancing { invoice_id }))
    }

    pub(crate) fn reverse(&mut self, invoice_id: InvoiceId) -> Answer {
        self.send(InvoiceCommand::ReverseFinancing(ReverseFinancing { invoice_id }))
    }

    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.states.values().filter_map(|state| match state {
            State::Investor(investor) => investor.account(),
            State::Issuer(_) | State::Invoice(_) => None,
        })
    }

    /// Available, reserved, committed.
    #[track_caller]
    pub(crate) fn balances(&self, investor_id: InvestorId) -> [Money; 3] {
        match self.states.get(&investor_id.aggregate()) {
            Some(State::Investor(investor)) => {
                let account = investor.account().unwrap();
                [account.available(), account.reserved().unwrap(), account.committed()]
            }
            other => unreachable!("not an investor: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn invoice(&self, invoice_id: InvoiceId) -> &Invoice {
        match self.states.get(&invoice_id.aggregate()) {
            Some(State::Invoice(invoice)) => invoice,
            other => unreachable!("not an invoice: {other:?}"),
        }
    }
}

/// So many minor units of nothing, something or a lot.
pub(crate) fn balance(minor: i64, currency: Currency) -> Money {
    Money::from_minor(minor, currency).unwrap()
}
