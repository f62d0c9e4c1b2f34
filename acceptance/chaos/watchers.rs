//! Clients that watch, over connections that break: every fact, and what every investor has.
//!
//! The rule this module protects: **whoever goes on where he was misses nothing and sees nothing twice**, at whichever query service
//! he goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::proto::query_service_client::QueryServiceClient;
use crate::harness::proto::{LogPosition, WatchFactsRequest, WatchInvestorsRequest};
use crate::harness::{Audit, Dice, cents};
use crate::market::{connect, is_worth_a_repeat};

/// How long a watch may take to begin before somebody else is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long they may take to see all that there is when the harm is over.
const CATCHING_UP: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The watchers, as long as they watch.
pub(crate) struct Watchers {
    seen: Arc<Seen>,
    watching: JoinSet<()>,
}

/// What they have seen.
#[derive(Default)]
struct Seen {
    /// The last record of each partition.
    heads: Mutex<BTreeMap<u32, u64>>,
    /// What each investor has available, reserved and committed, in cents.
    balances: Mutex<BTreeMap<String, [i64; 3]>>,
    /// How often a watch had to be begun again.
    repeats: AtomicUsize,
}

impl Watchers {
    /// Watch through these query services.
    pub(crate) fn open(doors: &[String], seed: u64) -> Self {
        let (seen, mut dice) = (Arc::new(Seen::default()), Dice::new(seed));
        let doors: Vec<_> = doors.iter().map(|address| QueryServiceClient::new(connect(address))).collect();
        let mut watching = JoinSet::new();
        let (one, other) = (Dice::new(dice.roll()), Dice::new(dice.roll()));
        watching.spawn(watch_facts(Arc::clone(&seen), doors.clone(), one));
        watching.spawn(watch_balances(Arc::clone(&seen), doors, other));
        Self { seen, watching }
    }

    /// Waits until they have seen all that the audit has, and nothing else. How often a watch had to be begun again.
    pub(crate) async fn close(mut self, audit: &Audit) -> usize {
        let heads: BTreeMap<u32, u64> = audit.token().split(',').map(position).collect();
        let balances: BTreeMap<String, [i64; 3]> = audit
            .accounts
            .iter()
            .map(|(id, account)| (id.clone(), [account.available, account.reserved, account.committed]))
            .collect();
        let all_seen = async {
            let mut looks = interval(BETWEEN_LOOKS);
            while *self.seen.heads.lock().unwrap() != heads || *self.seen.balances.lock().unwrap() != balances
            {
                looks.tick().await;
                if let Some(ended) = self.watching.try_join_next() {
                    ended.expect("a watcher is content");
                }
            }
        };
        if timeout(CATCHING_UP, all_seen).await.is_err() {
            let (saw, knew) = (self.seen.heads.lock().unwrap(), self.seen.balances.lock().unwrap());
            let wrong: Vec<_> = balances.iter().filter(|(id, has)| knew.get(*id) != Some(has)).collect();
            panic!(
                "whoever watched saw {saw:?} instead of {heads:?}, and has not seen of investors: {wrong:?}"
            );
        }
        self.seen.repeats.load(Ordering::Relaxed)
    }
}

/// Partition and sequence of a token.
fn position(token: &str) -> (u32, u64) {
    let (partition, sequence) = token.split_once('-').expect("a position");
    (partition.parse().unwrap(), sequence.parse().unwrap())
}

type Door = QueryServiceClient<Channel>;

async fn watch_facts(seen: Arc<Seen>, doors: Vec<Door>, mut dice: Dice) {
    loop {
        let broken = seen.facts(dice.one_of(&doors).clone()).await;
        seen.pause(&broken, &mut dice).await;
    }
}

async fn watch_balances(seen: Arc<Seen>, doors: Vec<Door>, mut dice: Dice) {
    let mut token = String::new();
    loop {
        let broken = seen.balances(dice.one_of(&doors).clone(), &mut token).await;
        seen.pause(&broken, &mut dice).await;
    }
}

impl Seen {
    /// Before a watch that broke is begun again.
    async fn pause(&self, broken: &Status, dice: &mut Dice) {
        assert!(is_worth_a_repeat(broken), "{broken:?}");
        self.repeats.fetch_add(1, Ordering::Relaxed);
        sleep(dice.between(PAUSE / 10, PAUSE)).await;
    }

    async fn facts(&self, mut door: Door) -> Status {
        let seen = self.heads.lock().unwrap().clone();
        let after =
            seen.into_iter().map(|(partition, sequence)| LogPosition { partition, sequence }).collect();
        let request = WatchFactsRequest { after, ..WatchFactsRequest::default() };
        let mut stream = match timeout(PATIENCE, door.watch_facts(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("no watch in time"),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    let Some(LogPosition { partition, sequence }) = message.position else { continue };
                    let mut heads = self.heads.lock().unwrap();
                    let last = heads.insert(partition, sequence).unwrap_or(0);
                    assert_eq!(
                        sequence,
                        last + 1,
                        "of partition {partition} nothing is skipped, and nothing comes twice"
                    );
                }
                Ok(None) => return Status::unavailable("the watch has ended"),
                Err(status) => return status,
            }
        }
    }

    async fn balances(&self, mut door: Door, token: &mut String) -> Status {
        let request =
            WatchInvestorsRequest { resume_token: token.clone(), ..WatchInvestorsRequest::default() };
        let mut stream = match timeout(PATIENCE, door.watch_investors(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("no watch in time"),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    let mut balances = self.balances.lock().unwrap();
                    for investor in message.changes {
                        let has = [investor.available, investor.reserved, investor.committed];
                        balances.insert(investor.id, has.map(|money| cents(money.as_ref())));
                    }
                    *token = message.resume_token;
                }
                Ok(None) => return Status::unavailable("the watch has ended"),
                Err(status) => return status,
            }
        }
    }
}
