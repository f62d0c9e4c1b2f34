//! What a client does, one at a time or when it is due.
//!
//! The rule this module protects: a client of the closed loop asks for the next when it has what it asked for; a call of the open
//! loop is made when it is due, whatever became of those before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::api::proto::financing::v1::{
    ApproveFinancingRequest, BidOnInvoiceRequest, BidStatus, GetBidRequest, SellInvoiceRequest,
    SellInvoiceResponse, WaitCommandRequest,
};
use crate::runtime::client::timed;

use super::clock::Clock;
use super::measured::{Measured, Point, Window};
use super::target::{ASKING, BID, Target, eur};
use super::watch::{Answer, Watch};
use crate::api::observation::code_name;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Workload {
    /// One command: an issuer offers an invoice for sale
    Sell,
    /// A sale, a bid that wins and the approval, until the investor has paid
    Financing,
}

impl Workload {
    /// What is counted, for one and for many.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Sell => "sale",
            Self::Financing => "financing",
        }
    }
}

/// At most one in so many microseconds is followed by a query of its own: more would measure the queries.
const SAMPLE_EVERY: u64 = 10_000;

/// How long the saga's next fact is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client of the closed loop pauses after a call that failed, so that a platform that sheds load is not stormed.
const PAUSE: Duration = Duration::from_millis(20);

/// How much was asked for in all, the warm-up too.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) sold: AtomicU64,
    pub(super) uncertain: AtomicU64,
    pub(super) settled: AtomicU64,
    pub(super) unsettled: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) wrong: AtomicU64,
}

/// A sale or a financing.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// Its own: it says whose turn it is, of issuers, investors and connections.
    number: usize,
    /// When it began, or was to begin, in microseconds of the run's clock.
    began: u64,
    /// Whether it is followed by a query.
    sampled: bool,
}

/// How a financing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The investor has paid.
    Settled,
    /// The saga did not go on.
    Unsettled,
    /// A call failed.
    Abandoned,
}

/// What the clients of a run share.
pub(super) struct Run {
    pub(super) workload: Workload,
    pub(super) target: Target,
    pub(super) clock: Clock,
    pub(super) window: Window,
    pub(super) totals: Totals,
    pub(super) watch: Watch,
    measured: Mutex<Measured>,
    next_sample: AtomicU64,
    numbers: AtomicUsize,
    /// The last command that was accepted in each partition.
    last: Mutex<BTreeMap<u128, String>>,
}

impl Run {
    pub(super) fn new(workload: Workload, target: Target, clock: Clock, window: Window) -> Self {
        Self {
            workload,
            target,
            clock,
            window,
            totals: Totals::default(),
            watch: Watch::default(),
            measured: Mutex::new(Measured::new(window)),
            next_sample: AtomicU64::new(window.from),
            numbers: AtomicUsize::new(0),
            last: Mutex::default(),
        }
    }

    pub(super) fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last command that was accepted in each partition.
    pub(super) fn last_commands(&self) -> Vec<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn reached(&self, point: Point, began: u64) {
        if self.measured().reached(point, began, self.clock.micros()).is_err() {
            self.wrong("HISTOGRAM");
        }
    }

    fn failed(&self, status: &tonic::Status) {
        self.measured().failed(code_name(status.code()));
    }

    /// One that begins now, or was to begin then. Whether a query follows it goes by that moment: by the moment of the answer, those
    /// that had to wait together would be one, and the share would be of the fast.
    fn call(&self, began: u64) -> Call {
        let sampled = began >= self.next_sample.load(Ordering::Relaxed);
        if sampled {
            self.next_sample.store(began.saturating_add(SAMPLE_EVERY), Ordering::Relaxed);
        }
        Call { number: self.numbers.fetch_add(1, Ordering::Relaxed), began, sampled }
    }

    /// One after the other, until the window closes.
    async fn client(self: Arc<Self>) {
        let mut queries = JoinSet::new();
        loop {
            let began = self.clock.micros();
            if began >= self.window.until {
                break;
            }
            if !self.one(self.call(began), &mut queries).await {
                tokio::time::sleep(PAUSE).await;
            }
            while let Some(ended) = queries.try_join_next() {
                self.ended(&ended);
            }
        }
        self.join(queries).await;
    }

    /// Whether it went well.
    async fn one(self: &Arc<Self>, call: Call, queries: &mut JoinSet<()>) -> bool {
        match self.workload {
            Workload::Sell => self.sale(call, queries).await.is_some(),
            Workload::Financing => self.financing(call, queries).await,
        }
    }

    async fn sale(self: &Arc<Self>, call: Call, queries: &mut JoinSet<()>) -> Option<SellInvoiceResponse> {
        let Call { number, began, sampled } = call;
        let issuers = &self.target.issuers;
        let request = SellInvoiceRequest {
            issuer_id: issuers[number % issuers.len()].clone(),
            asking_price: Some(eur(ASKING)),
            ..SellInvoiceRequest::default()
        };
        let sold = match self.target.commands(number).sell_invoice(timed(request)).await {
            Ok(sold) => sold.into_inner(),
            Err(status) => {
                self.failed(&status);
                if status.code() != Code::ResourceExhausted {
                    self.totals.uncertain.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                // It was not accepted, and that is certain: an invoice of it would be one too many.
                self.reached(Point::Refused, began);
                if status.get_details_retry_info().is_none() {
                    self.wrong("NO_RETRY_INFO");
                }
                return None;
            }
        };
        self.reached(Point::Accepted, began);
        self.totals.sold.fetch_add(1, Ordering::Relaxed);
        let partitions = u128::from(self.target.platform.partitions.max(1));
        if let Ok(invoice_id) = Uuid::try_parse(&sold.invoice_id) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.insert(invoice_id.as_u128() % partitions, sold.command_id.clone());
        }
        if self.workload == Workload::Sell && sampled {
            let (run, command_id, answered) =
                (Arc::clone(self), sold.command_id.clone(), self.clock.micros());
            queries.spawn(async move { run.projection(call, command_id, answered).await });
        }
        Some(sold)
    }

    async fn projection(&self, Call { number, began, .. }: Call, command_id: String, answered: u64) {
        let request = WaitCommandRequest { command_id, wait: None };
        match self.target.queries(number).wait_command(timed(request)).await {
            Ok(answer) if answer.get_ref().command.as_ref().is_some_and(|one| !one.token.is_empty()) => {
                self.reached(Point::Projected, began);
                self.reached(Point::Behind, answered);
            }
            Ok(_pending) => self.wrong("PENDING"),
            Err(status) => self.failed(&status),
        }
    }

    async fn financing(self: &Arc<Self>, call: Call, queries: &mut JoinSet<()>) -> bool {
        let Some(sold) = self.sale(call, queries).await else { return false };
        let ended = self.settle(call, &sold.invoice_id).await;
        self.watch.forget(&sold.invoice_id);
        let count = match ended {
            Ended::Settled => &self.totals.settled,
            Ended::Unsettled => &self.totals.unsettled,
            Ended::Abandoned => &self.totals.abandoned,
        };
        count.fetch_add(1, Ordering::Relaxed);
        ended == Ended::Settled
    }

    /// From the bid to the last fact.
    async fn settle(self: &Arc<Self>, call: Call, invoice_id: &str) -> Ended {
        let Call { number, began, sampled } = call;
        let (investors, mut commands) = (&self.target.investors, self.target.commands(number));
        let expected = self.watch.expect(invoice_id);
        let bid = BidOnInvoiceRequest {
            investor_id: investors[number % investors.len()].clone(),
            invoice_id: invoice_id.to_owned(),
            amount: Some(eur(BID)),
            ..BidOnInvoiceRequest::default()
        };
        let sent = self.clock.micros();
        let bid_id = match commands.bid_on_invoice(timed(bid)).await {
            Ok(placed) => placed.into_inner().bid_id,
            Err(status) => return self.gave_up(&status),
        };
        self.reached(Point::Accepted, sent);
        match tokio::time::timeout(PATIENCE, expected.answered).await {
            Ok(Ok(Answer::Won)) => {}
            Ok(Ok(Answer::Lost)) => return self.missed("LOST"),
            Ok(Err(_)) | Err(_) => return self.missed("UNANSWERED"),
        }
        let approval = ApproveFinancingRequest {
            invoice_id: invoice_id.to_owned(),
            ..ApproveFinancingRequest::default()
        };
        let sent = self.clock.micros();
        if let Err(status) = commands.approve_financing(timed(approval)).await {
            return self.gave_up(&status);
        }
        self.reached(Point::Accepted, sent);
        let Ok(Ok(token)) = tokio::time::timeout(PATIENCE, expected.settled).await else {
            return self.missed("UNSETTLED");
        };
        self.reached(Point::Relayed, began);
        if sampled {
            let request = GetBidRequest { bid_id, token };
            match self.target.queries(number).get_bid(timed(request)).await {
                Ok(answer) => {
                    let bid = answer.into_inner().bid.unwrap_or_default();
                    if bid.status() == BidStatus::Committed {
                        self.reached(Point::Settled, began);
                    } else {
                        self.wrong("NOT_COMMITTED");
                    }
                }
                Err(status) => self.failed(&status),
            }
        }
        Ended::Settled
    }

    fn gave_up(&self, status: &tonic::Status) -> Ended {
        self.failed(status);
        Ended::Abandoned
    }

    fn missed(&self, what: &'static str) -> Ended {
        self.measured().failed(what);
        Ended::Unsettled
    }

    /// Something is so that cannot be.
    fn wrong(&self, what: &'static str) {
        self.totals.wrong.fetch_add(1, Ordering::Relaxed);
        self.measured().failed(what);
    }

    /// Waits until all of them have ended. One that panicked is not passed over.
    async fn join(&self, mut tasks: JoinSet<()>) {
        while let Some(ended) = tasks.join_next().await {
            self.ended(&ended);
        }
    }

    fn ended(&self, ended: &Result<(), JoinError>) {
        if ended.is_err() {
            self.wrong("PANICKED");
        }
    }
}

/// So many clients, until the window closes and each has what it asked for.
pub(super) async fn closed_loop(run: &Arc<Run>, clients: usize) {
    let mut all = JoinSet::new();
    for _ in 0..clients {
        all.spawn(Arc::clone(run).client());
    }
    run.join(all).await;
}

/// Every call when it is due, until the schedule ends and each has what it asked for.
pub(super) async fn open_loop(run: &Arc<Run>, mut beats: UnboundedReceiver<u64>) {
    let mut all = JoinSet::new();
    while let Some(due) = beats.recv().await {
        let (caller, call) = (Arc::clone(run), run.call(due));
        all.spawn(async move {
            let mut queries = JoinSet::new();
            caller.one(call, &mut queries).await;
            caller.join(queries).await;
        });
        while let Some(ended) = all.try_join_next() {
            run.ended(&ended);
        }
    }
    run.join(all).await;
}
