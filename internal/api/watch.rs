//! Live queries over the wire.
//!
//! The rule this module protects: nobody waits for a watcher. Each has a task that fills a small box for it; who does not take
//! what is in there is told to resume and gives its place back, and whatever ends a watch, the client has the token to go on with.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use domain::ids::{InvestorId, InvoiceId, IssuerId};
use domain::live::{
    BidWatch, Delivery, InvestorWatch, InvoiceWatch, LiveError, LiveQueries, LiveRows, Resume,
};
use domain::views::{BidView, InvestorView, InvoiceView, Queries};
use eventsourcing::environment::{Doorbell, Environment, Stop, within};
use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::EventBus;

use super::admission::Place;
use super::call::Call;
use super::deadline::Budget;
use super::lists::named;
use super::outbox::Outbox;
use super::paging::PagedQuery;
use super::parse::Fields;
use super::proto::financing::v1;
use super::query_service::QueryApi;
use super::resume;
use super::status::Failure;

/// How often the read models are looked at where no bell rings.
const POLL: Duration = Duration::from_secs(1);

/// How soon the bus is asked again for what the read models have seen already, and how often: five seconds in all.
const SOON: Duration = Duration::from_millis(10);
const MOST_LOOKS: u32 = 500;

/// How many rows may be named.
const MOST_IDS: usize = 100;

/// What live queries may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchLimits {
    /// How many there may be at a time.
    pub places: usize,
    /// After how much silence a message without rows is sent.
    pub heartbeat: Duration,
    /// How long a client may leave its messages lying.
    pub patience: Duration,
    /// How long one lasts at most.
    pub lasts: Duration,
    /// How long a watch rests after a batch, and after it found none: what changes meanwhile comes in one, and the store is not
    /// asked all the time.
    pub rest: Duration,
}

impl WatchLimits {
    /// What a server takes on where nothing else is said.
    pub const USUAL: Self = Self {
        places: 256,
        heartbeat: Duration::from_secs(5),
        patience: Duration::from_secs(30),
        lasts: Duration::from_hours(1),
        rest: Duration::from_millis(20),
    };
}

/// What a watch answers with.
pub(crate) type WatchStream<W> = BoxStream<'static, Result<W, Status>>;

/// A message of a watch.
pub(crate) trait Told: Send + 'static {
    /// Of what it tells.
    type View;

    /// Tells of these rows.
    fn told(changes: Vec<Self::View>, resume_token: String, snapshot_complete: bool) -> Self;
}

macro_rules! told {
    ($message:ident, $view:ident) => {
        impl Told for v1::$message {
            type View = $view;

            fn told(changes: Vec<$view>, resume_token: String, snapshot_complete: bool) -> Self {
                Self {
                    changes: changes.into_iter().map(Into::into).collect(),
                    resume_token,
                    snapshot_complete,
                }
            }
        }
    };
}

told!(WatchInvoicesResponse, InvoiceView);
told!(WatchInvestorsResponse, InvestorView);
told!(WatchBidsResponse, BidView);

/// Why a watch ends.
enum End {
    /// The client has gone: there is nobody to tell.
    Gone,
    /// The client is told this.
    Told(Failure),
}

/// A watch under way.
struct Watch<E, R, W> {
    method: &'static str,
    rows: R,
    query: PagedQuery,
    outbox: Outbox<W>,
    bell: Doorbell,
    environment: E,
    stop: Stop,
    limits: WatchLimits,
    /// How long it lasts, and what the client is told then.
    lasts: (Duration, Failure),
    place: Place,
}

impl<E: Environment, R: LiveRows, W: Told<View = R::View>> Watch<E, R, W> {
    /// Goes on until something ends it.
    async fn run(self) {
        let Self { method, mut rows, query, outbox, bell, environment, stop, limits, lasts, place } = self;
        let end = {
            // Whatever comes first; what is over is not gone on with.
            let messages =
                Messages { rows: &mut rows, query, outbox: &outbox, bell, environment: &environment, limits };
            let delivering = AssertUnwindSafe(messages.deliver())
                .catch_unwind()
                .map(|ended| End::Told(ended.unwrap_or(Failure::Panicked)));
            let (time, failure) = lasts;
            let over = environment.sleep(time).map(|()| End::Told(failure));
            let stopping = stop.given().map(|()| End::Told(Failure::Stopping));
            let gone = outbox.gone().map(|()| End::Gone);
            let (over, stopping, gone) = (pin!(over), pin!(stopping), pin!(gone));
            let outside = pin!(first(stopping, over));
            let outside = pin!(first(gone, outside));
            first(outside, pin!(delivering)).await
        };
        drop(place);
        match end {
            End::Gone => {}
            End::Told(Failure::TooSlow) => outbox.cut_off(Failure::TooSlow.status(method)),
            End::Told(failure) => outbox.end(failure.status(method)),
        }
    }
}

/// What the first of them comes to.
async fn first<T>(one: impl Future<Output = T> + Unpin, other: impl Future<Output = T> + Unpin) -> T {
    select(one, other).await.factor_first().0
}

/// What fills the box.
struct Messages<'a, E, R, W> {
    rows: &'a mut R,
    query: PagedQuery,
    outbox: &'a Outbox<W>,
    bell: Doorbell,
    environment: &'a E,
    limits: WatchLimits,
}

impl<E: Environment, R: LiveRows, W: Told<View = R::View>> Messages<'_, E, R, W> {
    /// Delivers until it cannot go on, and says why.
    async fn deliver(mut self) -> Failure {
        match self.try_deliver().await {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    async fn try_deliver(&mut self) -> Result<Infallible, Failure> {
        let (mut silence, mut is_due) = (self.silence(), false);
        let mut has_caught_up = false;
        loop {
            let Delivery { rows, resume, caught_up } = self.next().await?;
            // The first time as well: then the client knows that there is nothing more.
            let is_first = caught_up && !has_caught_up;
            if !rows.is_empty() || is_first || is_due || silence.as_mut().now_or_never().is_some() {
                self.send(rows, &resume).await?;
                (silence, is_due) = (self.silence(), false);
                has_caught_up |= caught_up;
            }
            if resume.under_way.is_none() {
                // A bell that rings meanwhile is heard afterwards.
                self.environment.sleep(self.limits.rest).await;
            }
            if caught_up {
                let rung = pin!(self.bell.rung());
                let woken = within(self.environment, POLL, select(rung, silence.as_mut())).await;
                is_due = matches!(woken, Some(Either::Right(_)));
            }
        }
    }

    /// The next rows. Where the bus is a moment behind, it is waited for.
    async fn next(&mut self) -> Result<Delivery<R::View>, Failure> {
        let mut looks = 0;
        loop {
            match self.rows.next().await {
                Err(LiveError::NotYet) if looks < MOST_LOOKS => {
                    looks = looks.saturating_add(1);
                    self.environment.sleep(SOON).await;
                }
                answer => return answer.map_err(Failure::Unwatched),
            }
        }
    }

    fn silence(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (environment, heartbeat) = (self.environment.clone(), self.limits.heartbeat);
        Box::pin(async move { environment.sleep(heartbeat).await })
    }

    async fn send(&mut self, rows: Vec<R::View>, resume: &Resume) -> Result<(), Failure> {
        let room = self.outbox.room();
        within(self.environment, self.limits.patience, room).await.ok_or(Failure::TooSlow)?;
        self.outbox.put(W::told(rows, resume::token(&self.query, resume), resume.complete));
        Ok(())
    }
}

/// Reads which rows are named, and what they come to as a filter.
fn ids<T: From<Uuid> + Copy + Into<Uuid>>(fields: &mut Fields, texts: &[String]) -> (Vec<T>, String) {
    if texts.len() > MOST_IDS {
        fields.violation("ids", format!("must be at most {MOST_IDS}"));
        return (Vec::new(), String::new());
    }
    let read = |(index, text): (usize, &String)| fields.id::<T>(&format!("ids[{index}]"), text);
    let ids: Vec<T> = texts.iter().enumerate().filter_map(read).collect();
    let mut sorted: Vec<Uuid> = ids.iter().copied().map(Into::into).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let filter: Vec<String> = sorted.iter().map(Uuid::to_string).collect();
    (ids, filter.join(","))
}

/// Where a watch goes on; `None` where it begins.
fn from(fields: &mut Fields, token: &str, query: &PagedQuery, partitions: PartitionCount) -> Option<Resume> {
    if token.is_empty() {
        return None;
    }
    let from = resume::read(query, partitions, token);
    if from.is_none() {
        fields.violation("resume_token", "must be the resume_token of the same method with the same filters");
    }
    from
}

/// What a request comes to: the filters, where to go on, and what its tokens belong to.
type Asked<T> = (T, Option<Resume>, PagedQuery);

/// Reads a WatchInvoices.
pub(crate) fn invoices(
    request: &v1::WatchInvoicesRequest,
    partitions: PartitionCount,
) -> Result<Asked<InvoiceWatch>, Failure> {
    let mut fields = Fields::default();
    let (ids, filter) = ids(&mut fields, &request.ids);
    let issuer_id: Option<IssuerId> = fields.optional_id("issuer_id", &request.issuer_id);
    let query = PagedQuery::of("WatchInvoices").filtered(&filter).filtered(&named(issuer_id));
    let from = from(&mut fields, &request.resume_token, &query, partitions);
    fields.finish(Some((InvoiceWatch { ids, issuer_id }, from, query)))
}

/// Reads a WatchInvestors.
pub(crate) fn investors(
    request: &v1::WatchInvestorsRequest,
    partitions: PartitionCount,
) -> Result<Asked<InvestorWatch>, Failure> {
    let mut fields = Fields::default();
    let (ids, filter) = ids(&mut fields, &request.ids);
    let query = PagedQuery::of("WatchInvestors").filtered(&filter);
    let from = from(&mut fields, &request.resume_token, &query, partitions);
    fields.finish(Some((InvestorWatch { ids }, from, query)))
}

/// Reads a WatchBids.
pub(crate) fn bids(
    request: &v1::WatchBidsRequest,
    partitions: PartitionCount,
) -> Result<Asked<BidWatch>, Failure> {
    let mut fields = Fields::default();
    let (ids, filter) = ids(&mut fields, &request.ids);
    let investor_id: Option<InvestorId> = fields.optional_id("investor_id", &request.investor_id);
    let invoice_id: Option<InvoiceId> = fields.optional_id("invoice_id", &request.invoice_id);
    let query = PagedQuery::of("WatchBids")
        .filtered(&filter)
        .filtered(&named(investor_id))
        .filtered(&named(invoice_id));
    let from = from(&mut fields, &request.resume_token, &query, partitions);
    fields.finish(Some((BidWatch { ids, investor_id, invoice_id }, from, query)))
}

impl<E: Environment, Q: Queries, L: LiveQueries, B: EventBus> QueryApi<E, Q, L, B> {
    /// WatchInvoices.
    pub(crate) async fn invoices_watched(
        &self,
        request: Request<v1::WatchInvoicesRequest>,
    ) -> Result<Response<WatchStream<v1::WatchInvoicesResponse>>, Status> {
        let begin = |(which, from, query)| (self.live.watch_invoices(which, from), query);
        let asked = invoices(request.get_ref(), self.partitions).map(begin);
        self.watched("WatchInvoices", request.metadata(), asked).await
    }

    /// WatchInvestors.
    pub(crate) async fn investors_watched(
        &self,
        request: Request<v1::WatchInvestorsRequest>,
    ) -> Result<Response<WatchStream<v1::WatchInvestorsResponse>>, Status> {
        let begin = |(which, from, query)| (self.live.watch_investors(which, from), query);
        let asked = investors(request.get_ref(), self.partitions).map(begin);
        self.watched("WatchInvestors", request.metadata(), asked).await
    }

    /// WatchBids.
    pub(crate) async fn bids_watched(
        &self,
        request: Request<v1::WatchBidsRequest>,
    ) -> Result<Response<WatchStream<v1::WatchBidsResponse>>, Status> {
        let begin = |(which, from, query)| (self.live.watch_bids(which, from), query);
        let asked = bids(request.get_ref(), self.partitions).map(begin);
        self.watched("WatchBids", request.metadata(), asked).await
    }

    /// Begins a watch. The call is answered when it stands; then a task goes on with it, in a place of its own.
    async fn watched<R: LiveRows, W: Told<View = R::View>>(
        &self,
        method: &'static str,
        metadata: &MetadataMap,
        asked: Result<(R, PagedQuery), Failure>,
    ) -> Result<Response<WatchStream<W>>, Status> {
        let call = Call::short(method, metadata);
        let deadline = Budget::of(metadata, Duration::MAX).call();
        let lasts = match self.watching.lasts {
            lasts if lasts < deadline => (lasts, Failure::Expired),
            _ => (deadline, Failure::Late),
        };
        let body = async {
            let (mut rows, query) = asked?;
            let place = self.calls.admit_watch()?;
            // Hung up before it stands: what is projected from now on rings.
            let bell = self.projected.hang();
            // The call's deadline bounds it.
            while let Err(error) = rows.begin().await {
                match error {
                    LiveError::NotYet => self.calls.environment.sleep(SOON).await,
                    LiveError::Unread(_)
                    | LiveError::Unheard(_)
                    | LiveError::TooFarBehind
                    | LiveError::Astray => return Err(Failure::Unwatched(error)),
                }
            }
            let (outbox, messages) = Outbox::new();
            let (environment, stop) = (self.calls.environment.clone(), self.calls.stop.clone());
            let limits = self.watching;
            let watch = Watch { method, rows, query, outbox, bell, environment, stop, limits, lasts, place };
            tokio::spawn(watch.run());
            Ok(messages)
        };
        self.calls.answer(call, body).await
    }
}
