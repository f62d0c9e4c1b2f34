//! Clients that keep going: each call has a request id, and is repeated, at whichever listener answers, until it is
//! accepted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::harness::load::{Order, Promise};
use crate::harness::proto::command_service_client::CommandServiceClient;
use crate::harness::proto::{
    ApproveFinancingRequest, BidOnInvoiceRequest, CommandState, ReverseFinancingRequest, SellInvoiceRequest,
};
use crate::harness::{Dice, Platform, eur, in_time, uuid};

/// What the clients put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Whatever happens, they try again.
    Patient,
    /// No call may fail, and whoever waits for an outcome gets it.
    Demanding,
}

/// How long a client waits for an outcome, where it does.
const WAIT: Duration = Duration::from_secs(10);
/// How long a client waits for an answer beyond that, before it asks somebody else.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause of a client between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Every invoice costs so many euros and a half.
const ASKED: i64 = 3;
/// Each investor has so many euros.
const BALANCE: i64 = 100_000;

/// A market: its clients, and what they were promised.
pub(crate) struct Market {
    floor: Arc<Floor>,
    clients: Vec<JoinHandle<()>>,
}

/// Connects when it is needed, and again when the connection turns out to be dead: one that is silent is asked whether it lives.
pub(crate) fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .connect_lazy()
}

/// What the clients share.
struct Floor {
    listeners: Vec<CommandServiceClient<Channel>>,
    manner: Manner,
    issuer: String,
    investors: Vec<String>,
    kept: Mutex<Vec<Promise>>,
    accepted: watch::Sender<usize>,
    repeats: AtomicUsize,
    longest: Mutex<Duration>,
    closing: AtomicBool,
}

/// What a market came to.
pub(crate) struct Closed {
    /// The commands that were accepted.
    pub(crate) promised: Vec<String>,
    /// Calls that had to be repeated.
    pub(crate) repeats: usize,
    /// The longest that somebody waited who asked for the outcome.
    pub(crate) longest: Duration,
}

impl Market {
    /// Registers who takes part, and lets so many clients work, until the market is closed.
    pub(crate) async fn open_at(
        platform: &Platform,
        listeners: &[String],
        clients: usize,
        manner: Manner,
        seed: u64,
    ) -> Self {
        let listeners = listeners.iter().map(|address| CommandServiceClient::new(connect(address)));
        let floor = Arc::new(Floor {
            listeners: listeners.collect(),
            manner,
            issuer: platform.issuer().await,
            investors: platform.investors(12, eur(BALANCE, 0)).await,
            kept: Mutex::default(),
            accepted: watch::Sender::new(0),
            repeats: AtomicUsize::new(0),
            longest: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let mut dice = Dice::new(seed);
        let clients = (0..clients).map(|_| {
            let (floor, dice) = (Arc::clone(&floor), Dice::new(dice.roll()));
            tokio::spawn(async move { floor.work(dice).await })
        });
        Self { clients: clients.collect(), floor }
    }

    /// Completes when so many more commands have been accepted.
    pub(crate) async fn accepts(&self, more: usize) {
        let mut accepted = self.floor.accepted.subscribe();
        let enough = *accepted.borrow() + more;
        in_time("commands are accepted", accepted.wait_for(|count| *count >= enough)).await.unwrap();
    }

    /// Sells so many invoices at once, and completes when each has its outcome. How long the last of them took.
    pub(crate) async fn sells(&self, invoices: usize) -> Duration {
        let sales = (0..invoices).map(|invoice| {
            let mut dice = Dice::new(u64::try_from(invoice).unwrap());
            let floor = Arc::clone(&self.floor);
            let began = Instant::now();
            // (A task each: whoever looks for something else at the same time does not hold them up.)
            tokio::spawn(async move {
                let sale = floor.sale(Some(WAIT));
                let (promise, state) = floor.until_accepted(sale, Some(WAIT), &mut dice).await;
                assert_eq!(state, CommandState::Applied, "{promise:?}");
                began.elapsed()
            })
        });
        let sold = in_time("invoices are sold", join_all(sales)).await;
        sold.into_iter().map(|took| took.expect("the client is content")).max().unwrap_or_default()
    }

    /// Lets every client finish what it is at. Fails where one has met what it does not put up with.
    pub(crate) async fn close(self) -> Closed {
        self.floor.closing.store(true, Ordering::Relaxed);
        for client in self.clients {
            in_time("a client comes to an end", client).await.expect("every client is content");
        }
        let kept = self.floor.kept.lock().unwrap();
        Closed {
            promised: kept.iter().map(|promise| promise.command_id.clone()).collect(),
            repeats: self.floor.repeats.load(Ordering::Relaxed),
            longest: *self.floor.longest.lock().unwrap(),
        }
    }
}

impl Floor {
    /// Sells, lets others bid, and decides about what it sold a while ago, over and over.
    async fn work(&self, mut dice: Dice) {
        let mut sold: VecDeque<String> = VecDeque::new();
        while !self.closing.load(Ordering::Relaxed) {
            // Every third time the client wants to know what becomes of its commands.
            let wait = (dice.below(3) == 0).then_some(WAIT);
            let sale = self.sale(wait);
            let (Promise { made: invoice_id, .. }, _) = self.until_accepted(sale, wait, &mut dice).await;
            // One bids too little, one enough, one more than that; and now and then one has not got it.
            for (euros, cents) in
                [(0, 49), (0, 51), (1, 0), (if dice.below(8) == 0 { BALANCE } else { 2 }, 0)]
            {
                let order = Order::Bid(BidOnInvoiceRequest {
                    investor_id: dice.one_of(&self.investors).clone(),
                    invoice_id: invoice_id.clone(),
                    amount: eur(ASKED + euros, cents),
                    request_id: uuid(),
                    wait: wait.map(seconds),
                });
                self.until_accepted(order, wait, &mut dice).await;
            }
            sold.push_back(invoice_id);
            if sold.len() > 3 {
                let invoice_id = sold.pop_front().expect("there are more than three");
                let order = decision(&mut dice, invoice_id, wait);
                self.until_accepted(order, wait, &mut dice).await;
            }
        }
    }

    fn sale(&self, wait: Option<Duration>) -> Order {
        Order::Sell(SellInvoiceRequest {
            issuer_id: self.issuer.clone(),
            asking_price: eur(ASKED, 50),
            request_id: uuid(),
            wait: wait.map(seconds),
        })
    }

    /// Asks one listener after the other until one accepts, as a client does whose request id makes that safe.
    async fn until_accepted(
        &self,
        order: Order,
        wait: Option<Duration>,
        dice: &mut Dice,
    ) -> (Promise, CommandState) {
        let began = Instant::now();
        loop {
            let listener = dice.one_of(&self.listeners).clone();
            let call = tokio::time::timeout(wait.unwrap_or_default() + PATIENCE, order.send(listener));
            let why = match call.await {
                Ok(Ok((promise, state))) => {
                    self.keep(&promise, state, wait.map(|_| began.elapsed()));
                    return (promise, state);
                }
                Ok(Err(status)) => {
                    assert!(is_worth_a_repeat(&status), "{order:?}: {status:?}");
                    status.to_string()
                }
                Err(_) => "no answer in time".to_owned(),
            };
            assert_eq!(self.manner, Manner::Patient, "{order:?}: {why}");
            self.repeats.fetch_add(1, Ordering::Relaxed);
            // As a client does, so that it does not add to the harm.
            tokio::time::sleep(dice.between(PAUSE / 4, PAUSE)).await;
        }
    }

    fn keep(&self, promise: &Promise, state: CommandState, waited: Option<Duration>) {
        if let Some(waited) = waited {
            let answered = !matches!(state, CommandState::Unspecified | CommandState::Pending);
            assert!(
                answered || self.manner == Manner::Patient,
                "{promise:?} has no outcome after {waited:?}"
            );
            let mut longest = self.longest.lock().unwrap();
            *longest = waited.max(*longest);
        }
        self.kept.lock().unwrap().push(promise.clone());
        self.accepted.send_modify(|count| *count += 1);
    }
}

/// What the issuer decides about an invoice; too early, where no bid has won yet.
fn decision(dice: &mut Dice, invoice_id: String, wait: Option<Duration>) -> Order {
    let (request_id, wait) = (uuid(), wait.map(seconds));
    if dice.below(2) == 0 {
        Order::Approve(ApproveFinancingRequest { invoice_id, request_id, wait })
    } else {
        Order::Reverse(ReverseFinancingRequest { invoice_id, request_id, wait })
    }
}

fn seconds(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap(), nanos: 0 }
}

/// What a platform may answer whose processes and connections break.
pub(crate) fn is_worth_a_repeat(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
    )
}
