//! Many clients at once, who remember what they were promised, and what they were not told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::platform::Platform;
use super::proto::command_service_client::CommandServiceClient;
use super::proto::{
    ApproveFinancingRequest, BidOnInvoiceRequest, CommandState, ReverseFinancingRequest, SellInvoiceRequest,
};
use super::words::{Information, eur, in_time, information, uuid, wait};

/// Calls that are repeated at the same time.
const AT_ONCE: usize = 500;

/// A command as a client sends it, with a request id: it may be sent again.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Sell(SellInvoiceRequest),
    Bid(BidOnInvoiceRequest),
    Approve(ApproveFinancingRequest),
    Reverse(ReverseFinancingRequest),
}

/// What a client was told when its command was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) command_id: String,
    /// The invoice or bid that the command makes; empty for any other.
    pub(crate) made: String,
}

impl Order {
    /// Sends it; what was promised, and what became of the command so far. That a rule of the business said no is a
    /// promise kept, too.
    pub(crate) async fn send(
        &self,
        commands: CommandServiceClient<Channel>,
    ) -> Result<(Promise, CommandState), Status> {
        match self.call(commands).await {
            Err(status) if status.code() == Code::FailedPrecondition => {
                let Information { metadata, .. } = information(&status);
                // A refusal names whatever the command is about; one that says PENDING first may be refused later.
                let made = match self {
                    Self::Sell(_) => metadata.get("invoice_id"),
                    Self::Bid(_) => metadata.get("bid_id"),
                    Self::Approve(_) | Self::Reverse(_) => None,
                };
                let made = made.cloned().unwrap_or_default();
                let promise = Promise { command_id: metadata["command_id"].clone(), made };
                Ok((promise, CommandState::Refused))
            }
            answer => answer,
        }
    }

    async fn call(
        &self,
        mut commands: CommandServiceClient<Channel>,
    ) -> Result<(Promise, CommandState), Status> {
        let (state, command_id, made) = match self.clone() {
            Self::Sell(request) => {
                let answer = commands.sell_invoice(request).await?.into_inner();
                (answer.state(), answer.command_id, answer.invoice_id)
            }
            Self::Bid(request) => {
                let answer = commands.bid_on_invoice(request).await?.into_inner();
                (answer.state(), answer.command_id, answer.bid_id)
            }
            Self::Approve(request) => {
                let answer = commands.approve_financing(request).await?.into_inner();
                (answer.state(), answer.command_id, String::new())
            }
            Self::Reverse(request) => {
                let answer = commands.reverse_financing(request).await?.into_inner();
                (answer.state(), answer.command_id, String::new())
            }
        };
        Ok((Promise { command_id, made }, state))
    }
}

/// A business day: one issuer sells, many investors bid, invoices are approved and reversed, too early as well.
pub(crate) struct Load {
    issuer: String,
    investors: Vec<String>,
    kept: Mutex<Vec<(Order, Promise)>>,
    /// Calls that failed: what became of them nobody knows.
    unsure: Mutex<Vec<Order>>,
    accepted: watch::Sender<usize>,
    repeated: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    /// Registers who takes part; every investor with 100,000 euros.
    pub(crate) async fn prepare(platform: &Platform, investors: usize) -> Self {
        Self {
            issuer: platform.issuer().await,
            investors: platform.investors(investors, eur(100_000, 0)).await,
            kept: Mutex::default(),
            unsure: Mutex::default(),
            accepted: watch::Sender::new(0),
            repeated: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        }
    }

    /// Lets so many clients work until `done` is; each stops at its first failed call.
    pub(crate) async fn until(&self, platform: &Platform, clients: usize, done: impl Future<Output = ()>) {
        let working = futures_util::future::join_all((0..clients).map(|client| self.work(platform, client)));
        tokio::select! {
            biased;
            () = done => {}
            _ = working => panic!("the clients have failed, and nobody harmed the platform"),
        }
    }

    /// Lets so many clients work until their calls fail, which `harm` sees to.
    pub(crate) async fn against<T>(
        &self,
        platform: &Platform,
        clients: usize,
        harm: impl Future<Output = T>,
    ) -> T {
        let working = futures_util::future::join_all((0..clients).map(|client| self.work(platform, client)));
        let (_, output) = in_time("the clients notice", async { tokio::join!(working, harm) }).await;
        output
    }

    /// Completes when so many more commands have been accepted.
    pub(crate) async fn accepted(&self, more: usize) {
        let mut accepted = self.accepted.subscribe();
        let enough = *accepted.borrow() + more;
        in_time("commands are accepted", accepted.wait_for(|count| *count >= enough)).await.unwrap();
    }

    /// The commands that were accepted so far.
    pub(crate) fn promises(&self) -> Vec<String> {
        self.kept.lock().unwrap().iter().map(|(_, promise)| promise.command_id.clone()).collect()
    }

    /// How many calls have failed so far: what became of them nobody knew.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Sends again what failed, and then everything that was promised: the same ids are promised again.
    pub(crate) async fn repeat(&self, platform: &Platform) {
        self.insist(platform).await;
        self.repeat_from(platform, 0).await;
    }

    /// Sends again what failed, until it is promised.
    pub(crate) async fn insist(&self, platform: &Platform) {
        while let Some(order) = self.next_unsure() {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            let (promise, _) = order.send(platform.commands()).await.expect("it is accepted now");
            self.keep(order, promise);
        }
    }

    /// Sends again what was promised, but for the first so many: the same ids are promised again.
    pub(crate) async fn repeat_from(&self, platform: &Platform, first: usize) {
        let kept = self.kept.lock().unwrap()[first..].to_vec();
        for some in kept.chunks(AT_ONCE) {
            let repeats = some.iter().map(|(order, _)| order.send(platform.commands()));
            for ((order, promise), repeated) in some.iter().zip(futures_util::future::join_all(repeats).await)
            {
                let (repeated, _) = repeated.expect("it is accepted again");
                assert_eq!(repeated, *promise, "{order:?}");
            }
        }
        self.repeated.fetch_add(kept.len(), Ordering::Relaxed);
    }

    /// Sends everything again to a platform that has lost some of its past: the same ids are promised again, and what becomes of the
    /// commands may be something else.
    pub(crate) async fn begin_again(&self, platform: &Platform) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        for some in kept.chunks(AT_ONCE) {
            let repeats = some.iter().map(|(order, _)| order.send(platform.commands()));
            for ((order, promise), repeated) in some.iter().zip(futures_util::future::join_all(repeats).await)
            {
                let (repeated, _) = repeated.expect("it is accepted again");
                assert_eq!(repeated.command_id, promise.command_id, "{order:?}");
                self.kept.lock().unwrap().push((order.clone(), repeated));
            }
        }
        self.repeated.fetch_add(kept.len(), Ordering::Relaxed);
    }

    /// How many calls were sent again.
    pub(crate) fn repeated(&self) -> usize {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Ends with the first call that fails.
    async fn work(&self, platform: &Platform, client: usize) {
        // As a client does whose request id makes that safe: what failed when the platform was killed is sent again.
        while let Some(order) = self.next_unsure() {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            if self.call(platform, order).await.is_none() {
                return;
            }
        }
        let mut round = client;
        while self.trade(platform, round).await.is_some() {
            round += 7;
        }
    }

    async fn trade(&self, platform: &Platform, round: usize) -> Option<()> {
        let price = i64::try_from(round % 5).unwrap() + 1;
        let wait = if round.is_multiple_of(3) { wait() } else { None };
        let sell = SellInvoiceRequest {
            issuer_id: self.issuer.clone(),
            asking_price: eur(price, 50),
            request_id: uuid(),
            wait,
        };
        let invoice_id = self.call(platform, Order::Sell(sell)).await?;
        for (bid, amount) in [eur(price, 49), eur(price, 51), eur(price + 1, 0)].into_iter().enumerate() {
            let bid = BidOnInvoiceRequest {
                investor_id: self.investors[(round + bid) % self.investors.len()].clone(),
                invoice_id: invoice_id.clone(),
                amount,
                request_id: uuid(),
                wait,
            };
            self.call(platform, Order::Bid(bid)).await?;
        }
        let request_id = uuid();
        let last = if round.is_multiple_of(2) {
            Order::Approve(ApproveFinancingRequest { invoice_id, request_id, wait })
        } else {
            Order::Reverse(ReverseFinancingRequest { invoice_id, request_id, wait })
        };
        self.call(platform, last).await?;
        Some(())
    }

    async fn call(&self, platform: &Platform, order: Order) -> Option<String> {
        // Before the call: whoever drops it in the middle is not told either.
        let guard = Unsure { load: self, order: Some(order.clone()) };
        let (promise, _) = order.send(platform.commands()).await.ok()?;
        let made = promise.made.clone();
        guard.told();
        self.keep(order, promise);
        Some(made)
    }

    fn next_unsure(&self) -> Option<Order> {
        self.unsure.lock().unwrap().pop()
    }

    fn keep(&self, order: Order, promise: Promise) {
        self.kept.lock().unwrap().push((order, promise));
        self.accepted.send_modify(|count| *count += 1);
    }
}

/// Remembers a call that did not come to an answer.
struct Unsure<'a> {
    load: &'a Load,
    order: Option<Order>,
}

impl Unsure<'_> {
    fn told(mut self) {
        self.order = None;
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            self.load.failed.fetch_add(1, Ordering::Relaxed);
            self.load.unsure.lock().unwrap().push(order);
        }
    }
}
