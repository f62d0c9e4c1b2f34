//! The words of live queries, and the port through which they are asked.
//!
//! The rule this module protects: what a watcher was told is told by its [`Resume`] alone. Nobody keeps anything for a
//! watcher, so whoever has the read models and the bus can go on where another has stopped.

use std::future::Future;

use eventsourcing::partition::Sequence;
use eventsourcing::ports::PortError;
use uuid::Uuid;

use crate::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use crate::views::{BidView, InvestorView, InvoiceView, QueryError};

/// Which invoices are watched. What is not named does not matter; and only what never changes of one can be named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvoiceWatch {
    /// Only these; all, where none is named.
    pub ids: Vec<InvoiceId>,
    /// Those that this issuer sells.
    pub issuer_id: Option<IssuerId>,
}

/// Which investors are watched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvestorWatch {
    /// Only these; all, where none is named.
    pub ids: Vec<InvestorId>,
}

/// Which bids are watched. What is not named does not matter; and only what never changes of one can be named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BidWatch {
    /// Only these; all, where none is named.
    pub ids: Vec<BidId>,
    /// Those of this investor.
    pub investor_id: Option<InvestorId>,
    /// Those on this invoice.
    pub invoice_id: Option<InvoiceId>,
}

/// What a watcher has been told: where it goes on.
///
/// Rows are delivered in batches. A batch is every row that was changed between two places in the log, in the state that
/// it has at the second, in the order of the keys; the next batch begins where it ends. The first has no beginning: it is
/// every row there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Where the batch ends, or has ended: a sequence for each partition, in their order.
    pub at: Vec<Sequence>,
    /// A fingerprint of the records that stand there: a log that was restored and went another way has others.
    pub log: u64,
    /// What is delivered of that batch; `None`: all of it.
    pub under_way: Option<UnderWay>,
    /// Whether the snapshot is whole: every row that there was when the watch began was delivered.
    pub complete: bool,
}

/// A batch that is not delivered to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    /// Where it begins; `None`: it is the first.
    pub since: Option<Vec<Sequence>>,
    /// Delivered are the rows with this key and smaller ones.
    pub after: Uuid,
    /// Whether one of them was left to the next batch, because it has changed again.
    pub left: bool,
}

/// Some rows, and where to go on behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<V> {
    /// The rows, in the order of their keys; there may be none.
    pub rows: Vec<V>,
    /// What is told with them.
    pub resume: Resume,
    /// Whether there is nothing more until the read models change.
    pub caught_up: bool,
}

/// Why a watch does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The read models gave no answer.
    #[error(transparent)]
    Unread(#[from] QueryError),
    /// The bus gave no answer.
    #[error("{0}")]
    Unheard(PortError),
    /// The bus has not brought yet what the read models have seen already. Nothing has happened: ask again in a moment.
    #[error("the bus is behind the read models")]
    NotYet,
    /// More has changed than is worth following. Begin again with a snapshot.
    #[error("more has changed than can be followed")]
    TooFarBehind,
    /// What it goes on from is not in the read models, or in another log: one of them was restored. Begin again with a snapshot.
    #[error("the resume token is not of what is stored here now")]
    Astray,
}

/// Rows as they are, and then as they change.
pub trait LiveRows: Send + 'static {
    /// What a row says.
    type View: Send;

    /// Comes to stand. To be called before anything else.
    ///
    /// # Errors
    ///
    /// See [`LiveError`].
    fn begin(&mut self) -> impl Future<Output = Result<(), LiveError>> + Send;

    /// The next rows, if there are any by now.
    ///
    /// # Errors
    ///
    /// See [`LiveError`]. After any but [`LiveError::NotYet`] it is over: go on with another one, from the last [`Resume`].
    fn next(&mut self) -> impl Future<Output = Result<Delivery<Self::View>, LiveError>> + Send;
}

/// The read side's live answers. Without a [`Resume`] a watch begins with a snapshot.
///
/// Of a row that changes often, states in between may be left out; but every state that is delivered is delivered once, in their
/// order, and the last one is.
pub trait LiveQueries: Send + Sync + 'static {
    /// Invoices.
    fn watch_invoices(&self, which: InvoiceWatch, from: Option<Resume>) -> impl LiveRows<View = InvoiceView>;

    /// Investors.
    fn watch_investors(
        &self,
        which: InvestorWatch,
        from: Option<Resume>,
    ) -> impl LiveRows<View = InvestorView>;

    /// Bids.
    fn watch_bids(&self, which: BidWatch, from: Option<Resume>) -> impl LiveRows<View = BidView>;
}
