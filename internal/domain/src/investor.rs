//! An investor: an account out of which invoices are financed.
//!
//! The rule this module protects: available + reserved + committed is what was ever added, to the minor unit, and none
//! of them is negative. Money is reserved per bid (see [`crate::reservation`]), never as a pooled total.

use std::collections::BTreeMap;

use eventsourcing::model::{Aggregate, AggregateRef, Known};
use eventsourcing::mutants::{Mutant, planted};
use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::ids::{BidId, InvestorId, InvoiceId};
use crate::money::{Amount, Money, MoneyError};
use crate::name::Name;
use crate::refusal::Refusal;
use crate::reservation::{Move, ReleaseKind, Reservation, remainder};

/// The most bids that an investor may have open at a time. It bounds the account's state, its snapshot, and what
/// loading it costs.
pub const MAX_OPEN_BIDS: u32 = 10_000;

/// What an investor can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvestorCommand {
    /// See [`CreateInvestor`].
    CreateInvestor(CreateInvestor),
    /// See [`BidOnInvoice`].
    BidOnInvoice(BidOnInvoice),
    /// See [`ReleaseFunds`].
    ReleaseFunds(ReleaseFunds),
    /// See [`CommitFunds`].
    CommitFunds(CommitFunds),
}

/// Takes over an investor that the Registering context registered, with the opening balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateInvestor {
    /// The investor.
    pub investor_id: InvestorId,
    /// The investor's name.
    pub name: Name,
    /// What is there to dispose of at first; its currency is the account's for ever.
    pub balance: Money,
}

/// Bids on an invoice. Whether the bid wins is the invoice's to say; here the money is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidOnInvoice {
    /// Who bids.
    pub investor_id: InvestorId,
    /// The bid.
    pub bid_id: BidId,
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// How much.
    pub amount: Amount,
}

/// Makes reserved money available again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFunds {
    /// Whose.
    pub investor_id: InvestorId,
    /// The bid that it is reserved for.
    pub bid_id: BidId,
    /// The invoice that the bid is on.
    pub invoice_id: InvoiceId,
    /// Why: all of a lost bid, the excess of a winning one, or the asking price of a reversed invoice.
    pub kind: ReleaseKind,
    /// How much.
    pub amount: Amount,
}

/// Pays the asking price of an approved invoice out of what the winning bid reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFunds {
    /// Whose.
    pub investor_id: InvestorId,
    /// The bid that it is reserved for.
    pub bid_id: BidId,
    /// The invoice that the bid is on.
    pub invoice_id: InvoiceId,
    /// How much.
    pub amount: Amount,
}

/// What has happened to an investor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvestorEvent {
    /// See [`InvestorCreated`].
    InvestorCreated(InvestorCreated),
    /// See [`InvestorFundsAdded`].
    InvestorFundsAdded(InvestorFundsAdded),
    /// See [`BidOnInvoicePlaced`].
    BidOnInvoicePlaced(BidOnInvoicePlaced),
    /// See [`InvestorFundsReleased`].
    InvestorFundsReleased(InvestorFundsReleased),
    /// See [`InvestorFundsCommitted`].
    InvestorFundsCommitted(InvestorFundsCommitted),
}

/// There is a new investor, with an empty account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvestorCreated {
    /// The investor.
    pub investor_id: InvestorId,
    /// The investor's name.
    pub name: Name,
    /// The account's currency.
    pub currency_code: Currency,
}

/// The account has more to dispose of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvestorFundsAdded {
    /// The investor.
    pub investor_id: InvestorId,
    /// How much more.
    pub amount: Amount,
}

/// A bid was placed: its amount moved from available to reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidOnInvoicePlaced {
    /// Who bids.
    pub investor_id: InvestorId,
    /// The bid.
    pub bid_id: BidId,
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// How much.
    pub amount: Amount,
}

/// Money moved from reserved to available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvestorFundsReleased {
    /// Whose.
    pub investor_id: InvestorId,
    /// The bid that it was reserved for.
    pub bid_id: BidId,
    /// The invoice that the bid is on.
    pub invoice_id: InvoiceId,
    /// Why.
    pub kind: ReleaseKind,
    /// How much.
    pub amount: Amount,
    /// What is still reserved for the bid.
    pub remainder: Money,
}

/// Money moved from reserved to committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvestorFundsCommitted {
    /// Whose.
    pub investor_id: InvestorId,
    /// The bid that it was reserved for.
    pub bid_id: BidId,
    /// The invoice that the bid is on.
    pub invoice_id: InvoiceId,
    /// How much.
    pub amount: Amount,
    /// What is still reserved for the bid.
    pub remainder: Money,
}

/// An investor's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Investor {
    /// There is none yet.
    #[default]
    Missing,
    /// There is one.
    Registered(Account),
}

/// An investor's account. What is reserved is the sum of the open reservations, and written down nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    name: Name,
    added: Money,
    available: Money,
    committed: Money,
    reservations: BTreeMap<BidId, Reservation>,
}

impl Investor {
    /// The version of the state's shape in snapshots.
    pub const SNAPSHOT_SCHEMA: u16 = 1;

    /// The account, where there is one.
    #[must_use]
    pub const fn account(&self) -> Option<&Account> {
        match self {
            Self::Missing => None,
            Self::Registered(account) => Some(account),
        }
    }

    fn registered(&self, investor_id: InvestorId) -> Result<&Account, Refusal> {
        self.account().ok_or(Refusal::InvestorNotFound { investor_id })
    }
}

impl Account {
    fn open(event: &InvestorCreated) -> Self {
        let nothing = Money::zero(event.currency_code);
        Self {
            name: event.name.clone(),
            added: nothing,
            available: nothing,
            committed: nothing,
            reservations: BTreeMap::new(),
        }
    }

    /// What can be disposed of.
    #[must_use]
    pub const fn available(&self) -> Money {
        self.available
    }

    /// What open bids have set aside.
    ///
    /// # Errors
    ///
    /// Never, for an account that only its own facts have changed.
    pub fn reserved(&self) -> Result<Money, MoneyError> {
        self.reservations
            .values()
            .try_fold(Money::zero(self.added.currency()), |sum, open| sum.checked_add(open.left().money()))
    }

    /// What was paid for approved invoices.
    #[must_use]
    pub const fn committed(&self) -> Money {
        self.committed
    }

    /// What was ever added.
    #[must_use]
    pub const fn added(&self) -> Money {
        self.added
    }

    /// What is set aside for a bid, while it is open.
    #[must_use]
    pub fn reservation(&self, bid_id: BidId) -> Option<&Reservation> {
        self.reservations.get(&bid_id)
    }

    /// The bid's reservation after a move; deciding and evolving ask the same question.
    fn after(
        &self,
        (bid_id, invoice_id): (BidId, InvoiceId),
        kind: Move,
        amount: Amount,
    ) -> Result<Option<Reservation>, Refusal> {
        let of_the_bid = self.reservations.get(&bid_id);
        let reservation =
            if planted(Mutant::ReleaseByTotal) { self.reservations.values().next() } else { of_the_bid };
        reservation
            .filter(|reservation| reservation.invoice_id() == invoice_id || planted(Mutant::ReleaseByTotal))
            .ok_or(Refusal::ReservationNotOpen { bid_id })?
            .after(bid_id, kind, amount)
    }

    fn set(&mut self, bid_id: BidId, reservation: Option<Reservation>) {
        match reservation {
            Some(rest) => self.reservations.insert(bid_id, rest),
            None => self.reservations.remove(&bid_id),
        };
    }

    // Each of the next four changes the account as a whole or not at all. A fact that does not fit the account (two
    // currencies, more than there is) cannot have been decided here; evolving is total, and an account that ignores such a
    // fact still has every cent that it ever had.

    fn add(&mut self, event: &InvestorFundsAdded) {
        let amount = event.amount.money();
        if let (Ok(added), Ok(available)) =
            (self.added.checked_add(amount), self.available.checked_add(amount))
        {
            (self.added, self.available) = (added, available);
        }
    }

    fn reserve(&mut self, event: &BidOnInvoicePlaced) {
        if self.reservations.contains_key(&event.bid_id) {
            return;
        }
        if let Ok(available) = self.available.checked_sub(event.amount.money()) {
            self.available = available;
            self.set(event.bid_id, Some(Reservation::new(event.invoice_id, event.amount)));
        }
    }

    fn release(&mut self, event: &InvestorFundsReleased) {
        let rest = self.after((event.bid_id, event.invoice_id), event.kind.into(), event.amount);
        if let (Ok(rest), Ok(available)) = (rest, self.available.checked_add(event.amount.money())) {
            if !planted(Mutant::ReleasedMoneyIsGone) {
                self.available = available;
            }
            self.set(event.bid_id, rest);
        }
    }

    fn commit(&mut self, event: &InvestorFundsCommitted) {
        let rest = self.after((event.bid_id, event.invoice_id), Move::Commit, event.amount);
        if let (Ok(rest), Ok(committed)) = (rest, self.committed.checked_add(event.amount.money())) {
            self.committed = committed;
            self.set(event.bid_id, rest);
        }
    }
}

impl InvestorEvent {
    /// The name of the command that brings it about.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::InvestorCreated(_) | Self::InvestorFundsAdded(_) => "CreateInvestor",
            Self::BidOnInvoicePlaced(_) => "BidOnInvoice",
            Self::InvestorFundsReleased(_) => "ReleaseFunds",
            Self::InvestorFundsCommitted(_) => "CommitFunds",
        }
    }

    /// The invoice that it is about, where it is about one.
    #[must_use]
    pub const fn invoice_id(&self) -> Option<InvoiceId> {
        match self {
            Self::InvestorCreated(_) | Self::InvestorFundsAdded(_) => None,
            Self::BidOnInvoicePlaced(event) => Some(event.invoice_id),
            Self::InvestorFundsReleased(event) => Some(event.invoice_id),
            Self::InvestorFundsCommitted(event) => Some(event.invoice_id),
        }
    }
}

impl InvestorCommand {
    /// The command's name.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::CreateInvestor(_) => "CreateInvestor",
            Self::BidOnInvoice(_) => "BidOnInvoice",
            Self::ReleaseFunds(_) => "ReleaseFunds",
            Self::CommitFunds(_) => "CommitFunds",
        }
    }

    /// The investor that it changes.
    #[must_use]
    pub const fn target(&self) -> AggregateRef {
        let investor_id = match self {
            Self::CreateInvestor(command) => command.investor_id,
            Self::BidOnInvoice(command) => command.investor_id,
            Self::ReleaseFunds(command) => command.investor_id,
            Self::CommitFunds(command) => command.investor_id,
        };
        investor_id.aggregate()
    }

    /// The invoice that it is about, where it is about one.
    #[must_use]
    pub const fn invoice_id(&self) -> Option<InvoiceId> {
        match self {
            Self::CreateInvestor(_) => None,
            Self::BidOnInvoice(command) => Some(command.invoice_id),
            Self::ReleaseFunds(command) => Some(command.invoice_id),
            Self::CommitFunds(command) => Some(command.invoice_id),
        }
    }

    /// The other aggregates whose existence matters to it: none. Whether there is the invoice that a bid is on is
    /// the invoice's to say; a bid on one that does not exist is placed, refused there, and released.
    #[must_use]
    pub const fn references(&self) -> Vec<AggregateRef> {
        match self {
            Self::CreateInvestor(_)
            | Self::BidOnInvoice(_)
            | Self::ReleaseFunds(_)
            | Self::CommitFunds(_) => Vec::new(),
        }
    }
}

impl Aggregate for Investor {
    const TYPE: &'static str = "investor";
    type Command = InvestorCommand;
    type Event = InvestorEvent;
    type Refusal = Refusal;

    fn decide(&self, command: &InvestorCommand, _known: &Known) -> Result<Vec<InvestorEvent>, Refusal> {
        match command {
            InvestorCommand::CreateInvestor(command) => command.decide(self),
            InvestorCommand::BidOnInvoice(command) => command.decide(self),
            InvestorCommand::ReleaseFunds(command) => command.decide(self),
            InvestorCommand::CommitFunds(command) => command.decide(self),
        }
    }

    fn evolve(mut self, event: &InvestorEvent) -> Self {
        match &mut self {
            Self::Missing => match event {
                InvestorEvent::InvestorCreated(event) => return Self::Registered(Account::open(event)),
                // Nothing can have happened to an account before it was opened.
                InvestorEvent::InvestorFundsAdded(_)
                | InvestorEvent::BidOnInvoicePlaced(_)
                | InvestorEvent::InvestorFundsReleased(_)
                | InvestorEvent::InvestorFundsCommitted(_) => {}
            },
            Self::Registered(account) => match event {
                // Opening it a second time would lose what is in it.
                InvestorEvent::InvestorCreated(_) => {}
                InvestorEvent::InvestorFundsAdded(event) => account.add(event),
                InvestorEvent::BidOnInvoicePlaced(event) => account.reserve(event),
                InvestorEvent::InvestorFundsReleased(event) => account.release(event),
                InvestorEvent::InvestorFundsCommitted(event) => account.commit(event),
            },
        }
        self
    }
}

impl CreateInvestor {
    fn decide(&self, investor: &Investor) -> Result<Vec<InvestorEvent>, Refusal> {
        if let Some(account) = investor.account() {
            // Funds are added at the opening and never again, so what was added is the opening balance.
            let same = account.name == self.name && account.added == self.balance;
            let refusal = Refusal::AlreadyRegistered { id: self.investor_id.as_uuid() };
            return if same { Ok(Vec::new()) } else { Err(refusal) };
        }
        let mut events = vec![InvestorEvent::InvestorCreated(InvestorCreated {
            investor_id: self.investor_id,
            name: self.name.clone(),
            currency_code: self.balance.currency(),
        })];
        if let Ok(amount) = Amount::try_from(self.balance) {
            let added = InvestorFundsAdded { investor_id: self.investor_id, amount };
            events.push(InvestorEvent::InvestorFundsAdded(added));
        }
        Ok(events)
    }
}

impl BidOnInvoice {
    fn decide(&self, investor: &Investor) -> Result<Vec<InvestorEvent>, Refusal> {
        let account = investor.registered(self.investor_id)?;
        let (expected, actual) = (account.available.currency(), self.amount.currency());
        if expected != actual {
            return Err(Refusal::CurrencyMismatch { expected, actual });
        }
        if account.reservations.contains_key(&self.bid_id) {
            return Err(Refusal::BidAlreadyPlaced { bid_id: self.bid_id });
        }
        if u32::try_from(account.reservations.len()).unwrap_or(u32::MAX) >= MAX_OPEN_BIDS {
            return Err(Refusal::TooManyOpenBids { limit: MAX_OPEN_BIDS });
        }
        if account.available.checked_sub(self.amount.money()).is_err() && !planted(Mutant::Overdraft) {
            return Err(Refusal::InsufficientFunds { available: account.available, requested: self.amount });
        }
        Ok(vec![InvestorEvent::BidOnInvoicePlaced(BidOnInvoicePlaced {
            investor_id: self.investor_id,
            bid_id: self.bid_id,
            invoice_id: self.invoice_id,
            amount: self.amount,
        })])
    }
}

impl ReleaseFunds {
    fn decide(&self, investor: &Investor) -> Result<Vec<InvestorEvent>, Refusal> {
        let account = investor.registered(self.investor_id)?;
        let rest = account.after((self.bid_id, self.invoice_id), self.kind.into(), self.amount)?;
        Ok(vec![InvestorEvent::InvestorFundsReleased(InvestorFundsReleased {
            investor_id: self.investor_id,
            bid_id: self.bid_id,
            invoice_id: self.invoice_id,
            kind: self.kind,
            amount: self.amount,
            remainder: remainder(rest.as_ref(), self.amount),
        })])
    }
}

impl CommitFunds {
    fn decide(&self, investor: &Investor) -> Result<Vec<InvestorEvent>, Refusal> {
        let account = investor.registered(self.investor_id)?;
        let rest = account.after((self.bid_id, self.invoice_id), Move::Commit, self.amount)?;
        Ok(vec![InvestorEvent::InvestorFundsCommitted(InvestorFundsCommitted {
            investor_id: self.investor_id,
            bid_id: self.bid_id,
            invoice_id: self.invoice_id,
            amount: self.amount,
            remainder: remainder(rest.as_ref(), self.amount),
        })])
    }
}
