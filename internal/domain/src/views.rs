//! The words of the read side, and the port through which it is asked.
//!
//! The rule this module protects: the projections and the API agree on what a read model says without knowing each
//! other. Who answers and out of which store is behind [`Queries`].

use std::future::Future;

use eventsourcing::partition::LogPosition;
use uuid::Uuid;

use crate::coded::coded;
use crate::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use crate::money::{Amount, Money};

pub use crate::invoice::{InvoiceStatus, WinningBid};

/// An issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerView {
    /// The issuer.
    pub id: IssuerId,
    /// The issuer's name.
    pub name: String,
}

/// An investor's account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvestorView {
    /// The investor.
    pub id: InvestorId,
    /// The investor's name.
    pub name: String,
    /// What can be disposed of.
    pub available: Money,
    /// What open bids have set aside.
    pub reserved: Money,
    /// What was paid for approved invoices.
    pub committed: Money,
}

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvoiceView {
    /// The invoice.
    pub id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// What a bid must reach.
    pub asking_price: Amount,
    /// Where it stands.
    pub status: InvoiceStatus,
    /// The bid that won, once one has.
    pub winning_bid: Option<WinningBid>,
}

/// A bid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BidView {
    /// The bid.
    pub id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// On which invoice.
    pub invoice_id: InvoiceId,
    /// How much.
    pub amount: Amount,
    /// Where it stands.
    pub status: BidStatus,
    /// Why it lost, if it did: a code of [`crate::refusal::CATALOGUE`]. Kept when the money is released.
    pub reason: Option<String>,
}

/// What became of a command. One without an outcome has no view: it is pending, or was never sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandView {
    /// The command.
    pub id: Uuid,
    /// Its outcome.
    pub state: CommandState,
    /// Why it was refused or is dead: a code.
    pub reason: Option<String>,
    /// The same in plain words.
    pub message: Option<String>,
    /// Its last record.
    pub position: LogPosition,
}

coded! {
    /// Where a bid stands.
    pub enum BidStatus {
        /// The money is reserved; the invoice has not answered yet.
        Placed = "PLACED",
        /// It won.
        Won = "WON",
        /// It lost; the money is still reserved.
        Rejected = "REJECTED",
        /// It won, and the asking price is paid.
        Committed = "COMMITTED",
        /// All of the money is available again.
        Released = "RELEASED",
    }
}

coded! {
    /// A command's outcome.
    pub enum CommandState {
        /// It brought facts about.
        Applied = "APPLIED",
        /// What it asked for was already so.
        Unchanged = "UNCHANGED",
        /// A rule of the business said no.
        Refused = "REFUSED",
        /// It can never succeed.
        Dead = "DEAD",
    }
}

/// Which issuers. What is not named does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssuerFilter {
    /// Those with exactly this name.
    pub name: Option<String>,
}

/// Which investors. What is not named does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvestorFilter {
    /// Those with exactly this name.
    pub name: Option<String>,
}

/// Which invoices. What is not named does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvoiceFilter {
    /// Those that this issuer sells.
    pub issuer_id: Option<IssuerId>,
    /// Those that stand here.
    pub status: Option<InvoiceStatus>,
    /// Those that this investor's bid won.
    pub investor_id: Option<InvestorId>,
}

/// Which bids. What is not named does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BidFilter {
    /// Those of this investor.
    pub investor_id: Option<InvestorId>,
    /// Those on this invoice.
    pub invoice_id: Option<InvoiceId>,
    /// Those that stand here.
    pub status: Option<BidStatus>,
}

/// A part of a list. Lists are in the order of the bytes of the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The last id of the page before; `None` for the first page.
    pub after: Option<Uuid>,
    /// At most so many.
    pub size: u32,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The store cannot be reached, or not now. Asking again may help.
    #[error("the read models are not available: {0}")]
    Unavailable(String),
    /// A row does not say what it should. Asking again does not help.
    #[error("the read models are corrupt: {0}")]
    Corrupt(String),
}

/// The read side's answers. `None` where there is no such thing, or not yet.
pub trait Queries: Send + Sync + 'static {
    /// One issuer.
    fn issuer(&self, id: IssuerId) -> impl Future<Output = Result<Option<IssuerView>, QueryError>> + Send;

    /// A page of issuers.
    fn issuers(
        &self,
        filter: &IssuerFilter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<IssuerView>, QueryError>> + Send;

    /// One investor.
    fn investor(
        &self,
        id: InvestorId,
    ) -> impl Future<Output = Result<Option<InvestorView>, QueryError>> + Send;

    /// A page of investors.
    fn investors(
        &self,
        filter: &InvestorFilter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<InvestorView>, QueryError>> + Send;

    /// One invoice.
    fn invoice(&self, id: InvoiceId) -> impl Future<Output = Result<Option<InvoiceView>, QueryError>> + Send;

    /// A page of invoices.
    fn invoices(
        &self,
        filter: &InvoiceFilter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<InvoiceView>, QueryError>> + Send;

    /// One bid.
    fn bid(&self, id: BidId) -> impl Future<Output = Result<Option<BidView>, QueryError>> + Send;

    /// A page of bids.
    fn bids(
        &self,
        filter: &BidFilter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<BidView>, QueryError>> + Send;

    /// The outcome of a command.
    fn command(&self, id: Uuid) -> impl Future<Output = Result<Option<CommandView>, QueryError>> + Send;

    /// Whether the projection has seen all of these positions.
    fn seen(&self, positions: &[LogPosition]) -> impl Future<Output = Result<bool, QueryError>> + Send;
}
