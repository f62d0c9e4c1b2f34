//! Two relayers and two workers on every partition at once, without leases, and all of them put back whenever they lose
//! one: whatever they do to each other, log and bus stay exact.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::currency::Currency;
use domain::financing::{Command, Financing};
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{BidOnInvoice, CreateInvestor, InvestorCommand};
use domain::invoice::{InvoiceCommand, SellInvoice};
use domain::issuer::{CreateIssuer, IssuerCommand};
use domain::money::{Amount, Money};
use domain::name::Name;
use eventsourcing::assignment::Assignment;
use eventsourcing::command::{Envelope, pack};
use eventsourcing::environment::{Doorbell, Environment as _, Stop};
use eventsourcing::partition::{LogPosition, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{BusTail, CommandQueue as _, EventBus, PortError, PortResult, Publication};
use eventsourcing::record::Record;
use eventsourcing::relayer::Relayer;
use eventsourcing::turn::{Turn, drive};
use eventsourcing::worker::{Worker, WorkerLimits};
use invoice_financing::nats::{Nats, NatsBus, NatsQueue, NatsReplies, Streams};
use invoice_financing::runtime::environment::SystemEnvironment;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::{Home, Services};
use crate::ledger::{Ledger, connect, count, open_log, outcomes, until};

const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;
/// Rounds of commands; each is a bundle for every partition that it has commands of.
const ROUNDS: usize = 60;
const SALES: usize = 8;
const POLL: Duration = Duration::from_millis(100);

/// A bus that counts the publications which it refuses.
struct Counting {
    bus: NatsBus,
    refused: Arc<AtomicUsize>,
}

impl EventBus for Counting {
    async fn tails(&self, partitions: &[Partition]) -> PortResult<Vec<BusTail>> {
        self.bus.tails(partitions).await
    }

    async fn publish(&self, publications: Vec<Publication>) -> Vec<PortResult<()>> {
        let answers = self.bus.publish(publications).await;
        let refused = answers.iter().filter(|answer| matches!(answer, Err(PortError::Conflict(_)))).count();
        self.refused.fetch_add(refused, Ordering::Relaxed);
        answers
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        self.bus.read(after, limit).await
    }

    async fn records(&self, positions: &[LogPosition]) -> PortResult<Vec<Option<Arc<Record>>>> {
        self.bus.records(positions).await
    }
}

/// Loops that run until they are told to stop.
struct Loops {
    tasks: JoinSet<()>,
    stop: Stop,
    /// How often a loop found out that another had worked its partition.
    lost: Arc<AtomicUsize>,
}

impl Loops {
    fn start<T: Turn + Send + 'static>(&mut self, mut body: T, bell: Doorbell) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            drive(&mut body, &SystemEnvironment, &bell, POLL, &stop).await.expect("nothing halts here");
        });
    }

    /// Every partition, whatever is lost.
    fn insist(&mut self, loop_bell: &Doorbell) -> Assignment {
        let assignment = Assignment::of(PARTITIONS.all());
        assignment.bells().add(loop_bell);
        let (stop, lost, insisting) = (self.stop.clone(), Arc::clone(&self.lost), assignment.clone());
        let bell = assignment.bells().hang();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = bell.rung() => {}
                    () = stop.given() => return,
                }
                let found = insisting.take_lost().len();
                if found > 0 {
                    lost.fetch_add(found, Ordering::Relaxed);
                    insisting.assign(PARTITIONS.all());
                }
            }
        });
        assignment
    }

    async fn worker(&mut self, services: &Services) {
        let nats = connect(services).await;
        let queue = NatsQueue::new(&nats);
        let bell = queue.bells().hang();
        let assignment = self.insist(&bell);
        // What is behind the position goes at once: whoever stands there has to notice that it was overtaken.
        let limits = WorkerLimits { purge_every: 1, ..WorkerLimits::default() };
        let (log, replies) = (open_log(services).await, NatsReplies::new(&nats));
        let worker: Worker<Financing, _, _, _, _> =
            Worker::new(log, queue, replies, SystemEnvironment, PARTITIONS, assignment, limits);
        self.start(worker, bell);
    }

    async fn relayer(&mut self, services: &Services, streams: Streams, refused: &Arc<AtomicUsize>) {
        let bus = NatsBus::for_relayer(&connect(services).await, streams);
        let bell = Doorbell::default();
        let assignment = self.insist(&bell);
        let bus = Counting { bus, refused: Arc::clone(refused) };
        self.start(Relayer::new(open_log(services).await, bus, SystemEnvironment, assignment), bell);
    }
}

fn euros(cents: i64) -> Money {
    Money::from_minor(cents, Currency::parse("EUR").unwrap()).unwrap()
}

fn amount(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::parse("EUR").unwrap()).unwrap()
}

/// Those who sell and bid.
struct Market {
    issuer: IssuerId,
    investors: Vec<InvestorId>,
    sent: BTreeSet<Uuid>,
    queue: NatsQueue,
}

impl Market {
    async fn open(nats: &Nats) -> Self {
        let queue = NatsQueue::new(nats);
        let issuer = IssuerId::new(SystemEnvironment.uuid());
        let investors: Vec<InvestorId> =
            (0..SALES).map(|_| InvestorId::new(SystemEnvironment.uuid())).collect();
        let mut market = Self { issuer, investors, sent: BTreeSet::new(), queue };
        let mut commands: Vec<Command> = Vec::new();
        let name = || Name::try_new("Somebody").unwrap();
        commands.push(IssuerCommand::CreateIssuer(CreateIssuer { issuer_id: issuer, name: name() }).into());
        for investor_id in market.investors.clone() {
            let balance = euros(100_000);
            let create = CreateInvestor { investor_id, name: name(), balance };
            commands.push(InvestorCommand::CreateInvestor(create).into());
        }
        market.send(&commands).await;
        market
    }

    /// Invoices, and bids, some of them more than an investor has.
    async fn round(&mut self, round: usize) {
        let mut commands: Vec<Command> = Vec::new();
        for (number, investor_id) in self.investors.clone().into_iter().enumerate() {
            let invoice_id = InvoiceId::new(SystemEnvironment.uuid());
            let price = i64::try_from(round * SALES + number).unwrap() + 1;
            let sell = SellInvoice { invoice_id, issuer_id: self.issuer, asking_price: amount(price) };
            commands.push(InvoiceCommand::SellInvoice(sell).into());
            let bid_id = BidId::new(SystemEnvironment.uuid());
            let bid = BidOnInvoice { investor_id, bid_id, invoice_id, amount: amount(price * 20) };
            commands.push(InvestorCommand::BidOnInvoice(bid).into());
        }
        self.send(&commands).await;
    }

    async fn send(&mut self, commands: &[Command]) {
        let mut bundles = Vec::new();
        for command in commands {
            let command_id = SystemEnvironment.uuid();
            let envelope = Envelope::first::<Financing>(command_id, "test".to_owned(), command).unwrap();
            let bytes = envelope.encode().unwrap();
            bundles.extend(pack(envelope.partition(PARTITIONS), [bytes.as_slice()]));
            self.sent.insert(command_id);
        }
        for stored in self.queue.enqueue(bundles).await {
            stored.expect("it is queued");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_of_everything_leave_an_exact_log_and_an_exact_bus() {
    // given
    let home = Home::distributed();
    let services = home.services().unwrap();
    let nats = connect(services).await;
    let deployment = open_log(services).await.deployment();
    let streams = Streams { deployment: Some(deployment), ..Streams::of(PARTITIONS) };
    nats.ensure_queues(&streams).await.unwrap();
    nats.ensure_events(&streams).await.unwrap();
    let (stopper, stop) = Stop::new();
    let mut loops = Loops { tasks: JoinSet::new(), stop, lost: Arc::default() };
    let refused: Arc<AtomicUsize> = Arc::default();

    // when
    for _ in 0..2 {
        loops.worker(services).await;
        loops.relayer(services, streams, &refused).await;
    }
    let ledger = Ledger::open(services).await;
    let mut market = Market::open(&nats).await;
    for round in 0..ROUNDS {
        market.round(round).await;
    }
    let working = async || {
        // A loop that halts says why.
        if let Some(ended) = loops.tasks.try_join_next() {
            panic!("a loop has ended: {ended:?}");
        }
        outcomes(&ledger.log().await).len() == market.sent.len()
    };
    until("every command has an outcome", working).await;
    let records = ledger.agree().await;
    stopper.stop();
    while let Some(ended) = loops.tasks.join_next().await {
        ended.unwrap();
    }

    // then
    let log = ledger.log().await;
    assert_eq!(outcomes(&log).keys().copied().collect::<BTreeSet<_>>(), market.sent);
    assert_eq!(count(&log), records, "nothing came later");
    assert_eq!(ledger.agree().await, records);
    let epochs: usize = services.commands.psql("SELECT sum(epoch) FROM partitions").trim().parse().unwrap();
    let takeovers = epochs - usize::from(PARTITIONS.get());
    let (lost, refused) = (loops.lost.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!(
        "{} commands, {records} records: {takeovers} takeovers, {lost} times fenced, {refused} publications refused",
        market.sent.len()
    );
    assert!(takeovers > 0 && lost > 0, "the workers were in each other's way");
    assert!(refused > 0, "the relayers were in each other's way");
}
