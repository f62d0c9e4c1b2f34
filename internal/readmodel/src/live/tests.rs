//! Watches over a platform in memory, whose projection moves on between any two calls.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use domain::currency::Currency;
use domain::events::Event;
use domain::financing::Financing;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{
    BidOnInvoicePlaced, InvestorCreated, InvestorEvent, InvestorFundsAdded, InvestorFundsCommitted,
    InvestorFundsReleased,
};
use domain::invoice::{BidOnInvoiceRejected, InvoiceApproved, InvoiceCreated, InvoiceEvent, InvoiceFinanced};
use domain::live::{Delivery, LiveError, LiveRows, Resume, UnderWay};
use domain::money::{Amount, Money};
use domain::name::Name;
use domain::refusal::BidRejection;
use domain::reservation::ReleaseKind;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{AggregateRef, Projection as _};
use eventsourcing::partition::{Partition, PartitionCount, Sequence, Version};
use eventsourcing::ports::{
    CheckpointMove, EventBus as _, PortError, PortResult, Projected, ProjectionStep, Publication, ReadModels,
    Row, RowQuery, Test, Value,
};
use eventsourcing::record::Record;
use eventsourcing::testkit::memory::{MemoryBus, MemoryReadModels};
use eventsourcing::testkit::world::Dice;
use proptest::prelude::*;
use uuid::Uuid;

use super::feed::Feed;
use super::{Bounds, Watched};
use crate::projection::FinancingProjection;
use crate::queries::{Fields, Read, bid, investor, invoice};
use crate::tables::{BIDS, INVESTORS, INVOICES, TABLES};

fn partitions() -> PartitionCount {
    PartitionCount::new(4).unwrap()
}

/// What is in memory yields, and waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it waits")
}

/// Bus, read models, and all that any row has ever said.
#[derive(Clone)]
struct Platform {
    bus: MemoryBus,
    models: MemoryReadModels,
    said: Arc<Mutex<BTreeMap<(&'static str, Uuid), Vec<Vec<Option<Value>>>>>>,
    /// In how many of a hundred cases the projection moves on before a call is answered.
    moves: Arc<Mutex<(usize, Dice)>>,
}

impl Platform {
    fn new(seed: u64, percent: usize) -> Self {
        let moves = Arc::new(Mutex::new((percent, Dice::new(seed))));
        let (bus, models) = (MemoryBus::default(), MemoryReadModels::new(TABLES));
        Self { bus, models, said: Arc::default(), moves }
    }

    fn publish(&self, event: &Event) {
        let aggregate = subject(event);
        let partition = partitions().partition_of(aggregate.id);
        let (expected, encoded) = (self.bus.last(partition), event.encode().unwrap());
        let id = Uuid::new_v5(&Uuid::nil(), format!("{partition}-{expected}").as_bytes());
        let record = Record {
            partition,
            sequence: expected.next(),
            record_id: id,
            recorded_at: Timestamp::default(),
            aggregate,
            version: Some(Version::new(1)),
            event_type: Cow::Borrowed(encoded.event_type),
            schema: encoded.schema,
            data: encoded.data,
            command_id: id,
            correlation_id: id,
            causation_id: id,
            actor: "test".to_owned(),
            traceparent: None,
            last_of_command: true,
        };
        let publication = Publication { partition, expected, records: vec![Arc::new(record)] };
        now(self.bus.publish(vec![publication])).remove(0).unwrap();
    }

    /// Projects at most so many records of a partition, in one step.
    fn project(&self, partition: Partition, most: usize) {
        let from = self.models.checkpoint(partition);
        let records = now(self.bus.read(&[(partition, from)], most)).unwrap();
        let Some(last) = records.last() else { return };
        let changes: Vec<_> = records
            .iter()
            .flat_map(|record| FinancingProjection.project(record, &record.entry::<Financing>().unwrap()))
            .collect();
        let rows: Vec<_> = changes.iter().map(|change| (change.table, change.key)).collect();
        let checkpoint = CheckpointMove { partition, from, to: last.sequence };
        let step = ProjectionStep { checkpoint, record_id: last.record_id, changes };
        assert_eq!(now(self.models.apply(vec![step])), Ok(vec![true]));
        let mut said = self.said.lock().unwrap();
        for (table, key) in rows {
            let row = now(self.models.row(table, key)).unwrap().unwrap();
            let states = said.entry((table, key)).or_default();
            if states.last() != Some(&row.values) {
                states.push(row.values);
            }
        }
    }

    fn project_all(&self) {
        for partition in partitions().all() {
            self.project(partition, usize::MAX);
        }
    }

    /// Perhaps the projection moves on.
    fn moves_on(&self) {
        let (partition, most) = {
            let mut moves = self.moves.lock().unwrap();
            let percent = moves.0;
            if !moves.1.percent(percent) {
                return;
            }
            (moves.1.below(usize::from(partitions().get())), 1 + moves.1.below(3))
        };
        self.project(Partition::from_index(u16::try_from(partition).unwrap()), most);
    }

    fn feed<V>(&self, watched: Watched<V>, from: Option<Resume>, bounds: Bounds) -> Feed<Self, MemoryBus, V> {
        Feed::new(Arc::new(self.clone()), Arc::new(self.bus.clone()), partitions(), watched, from, bounds)
    }
}

impl ReadModels for Platform {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        self.moves_on();
        self.models.checkpoints(partitions).await
    }

    async fn apply(&self, _: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        Err(PortError::Broken("a watch writes nothing".to_owned()))
    }

    async fn row(&self, table: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        self.moves_on();
        self.models.row(table, key).await
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        self.moves_on();
        self.models.rows(query).await
    }
}

fn subject(event: &Event) -> AggregateRef {
    match event {
        Event::Issuer(_) => AggregateRef::new("issuer", Uuid::from_u128(1)),
        Event::Investor(event) => match event {
            InvestorEvent::InvestorCreated(event) => event.investor_id,
            InvestorEvent::InvestorFundsAdded(event) => event.investor_id,
            InvestorEvent::BidOnInvoicePlaced(event) => event.investor_id,
            InvestorEvent::InvestorFundsReleased(event) => event.investor_id,
            InvestorEvent::InvestorFundsCommitted(event) => event.investor_id,
        }
        .aggregate(),
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(event) => event.invoice_id,
            InvoiceEvent::InvoiceFinanced(event) => event.invoice_id,
            InvoiceEvent::BidOnInvoiceRejected(event) => event.invoice_id,
            InvoiceEvent::InvoiceApproved(event) => event.invoice_id,
            InvoiceEvent::InvoiceReversed(event) => event.invoice_id,
        }
        .aggregate(),
    }
}

const ACME: IssuerId = IssuerId::new(Uuid::from_u128(1));

fn ada(number: u128) -> InvestorId {
    InvestorId::new(Uuid::from_u128(0x100 + number))
}

fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::EUR).unwrap()
}

fn created(investor_id: InvestorId) -> Event {
    let name = Name::try_new("Ada").unwrap();
    InvestorEvent::InvestorCreated(InvestorCreated { investor_id, name, currency_code: Currency::EUR }).into()
}

fn funds(investor_id: InvestorId, amount: i64) -> Event {
    let amount = cents(amount);
    InvestorEvent::InvestorFundsAdded(InvestorFundsAdded { investor_id, amount }).into()
}

fn on_sale(invoice_id: InvoiceId) -> Event {
    let (issuer_id, asking_price) = (ACME, cents(10));
    InvoiceEvent::InvoiceCreated(InvoiceCreated { invoice_id, issuer_id, asking_price }).into()
}

/// A bid on its way.
#[derive(Debug, Clone, Copy)]
struct OnItsWay {
    bid_id: BidId,
    investor_id: InvestorId,
    invoice_id: InvoiceId,
}

impl OnItsWay {
    fn placed(self) -> Event {
        let Self { bid_id, investor_id, invoice_id } = self;
        let amount = cents(10);
        InvestorEvent::BidOnInvoicePlaced(BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount })
            .into()
    }

    fn verdict(self, wins: bool) -> Event {
        let Self { bid_id, investor_id, invoice_id } = self;
        let amount = cents(10);
        if wins {
            let (issuer_id, asking_price) = (ACME, amount);
            let financed =
                InvoiceFinanced { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
            return InvoiceEvent::InvoiceFinanced(financed).into();
        }
        let reason = BidRejection::InvoiceNotAvailable;
        InvoiceEvent::BidOnInvoiceRejected(BidOnInvoiceRejected {
            invoice_id,
            bid_id,
            investor_id,
            amount,
            reason,
        })
        .into()
    }

    /// With money around a release, so that no account ever stands as it stood before.
    fn settled(self, won: bool) -> Vec<Event> {
        let Self { bid_id, investor_id, invoice_id } = self;
        let (amount, remainder) = (cents(10), Money::zero(Currency::EUR));
        if won {
            let (issuer_id, asking_price) = (ACME, amount);
            let approved =
                InvoiceApproved { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
            let committed = InvestorFundsCommitted { investor_id, bid_id, invoice_id, amount, remainder };
            return vec![
                InvoiceEvent::InvoiceApproved(approved).into(),
                InvestorEvent::InvestorFundsCommitted(committed).into(),
            ];
        }
        let kind = ReleaseKind::Release;
        let released = InvestorFundsReleased { investor_id, bid_id, invoice_id, kind, amount, remainder };
        vec![
            funds(investor_id, 1),
            InvestorEvent::InvestorFundsReleased(released).into(),
            funds(investor_id, 1),
        ]
    }
}

/// What happens, by chance, in an order in which it can.
struct Business {
    dice: Dice,
    next: VecDeque<Event>,
    bids: u128,
    sold: BTreeMap<InvoiceId, bool>,
    placed: Vec<OnItsWay>,
    judged: Vec<(OnItsWay, bool)>,
}

impl Business {
    const INVESTORS: u128 = 3;

    fn begin(seed: u64) -> Self {
        let next = (0..Self::INVESTORS).flat_map(|number| [created(ada(number)), funds(ada(number), 10_000)]);
        let (placed, judged) = (Vec::new(), Vec::new());
        Self { dice: Dice::new(seed), next: next.collect(), bids: 0, sold: BTreeMap::new(), placed, judged }
    }

    /// The next thing that happens. What `platform` has to have shown before is shown.
    fn happens(&mut self, platform: &Platform) -> Event {
        if let Some(event) = self.next.pop_front() {
            return event;
        }
        let investor_id = ada(self.dice.below(Self::INVESTORS as usize) as u128);
        match self.dice.below(5) {
            0 => {
                let invoice_id = InvoiceId::new(Uuid::from_u128(0x200 + self.sold.len() as u128));
                self.sold.insert(invoice_id, false);
                on_sale(invoice_id)
            }
            1 if !self.placed.is_empty() => {
                let bid = self.placed.swap_remove(self.dice.below(self.placed.len()));
                let financed = self.sold.entry(bid.invoice_id).or_default();
                let wins = !std::mem::replace(financed, true);
                self.judged.push((bid, wins));
                bid.verdict(wins)
            }
            2 if !self.judged.is_empty() => {
                let (bid, won) = self.judged.swap_remove(self.dice.below(self.judged.len()));
                if won {
                    // Committed before it was won would look the same after it was won.
                    platform.project(partitions().partition_of(bid.invoice_id.as_uuid()), usize::MAX);
                }
                self.next.extend(bid.settled(won));
                self.next.pop_front().unwrap()
            }
            3 if !self.sold.is_empty() => {
                let invoice = self.dice.below(self.sold.len());
                let invoice_id = *self.sold.keys().nth(invoice).unwrap();
                self.bids += 1;
                // Their order is not the one in which they are placed.
                let bid_id = BidId::new(Uuid::new_v5(&Uuid::nil(), &self.bids.to_be_bytes()));
                let bid = OnItsWay { bid_id, investor_id, invoice_id };
                self.placed.push(bid);
                bid.placed()
            }
            _ => funds(investor_id, 1),
        }
    }
}

/// A watcher that loses its connection now and then, and sometimes what it had written down of late.
struct Watcher<V> {
    watched: fn() -> Watched<V>,
    feed: Feed<Platform, MemoryBus, V>,
    /// What was delivered.
    seen: Vec<V>,
    /// Each with how much had been delivered by then.
    resumes: Vec<(Resume, usize)>,
}

const SMALL: Bounds = Bounds { page: 2, ..Bounds::USUAL };

impl<V: Hash + Send + Debug + PartialEq + Clone + 'static> Watcher<V> {
    fn begin(platform: &Platform, watched: fn() -> Watched<V>, from: Option<Resume>) -> Self {
        let mut feed = platform.feed(watched(), from, SMALL);
        now(feed.begin()).unwrap();
        Self { watched, feed, seen: Vec::new(), resumes: Vec::new() }
    }

    fn step(&mut self) -> Delivery<V> {
        let delivery = now(self.feed.next()).unwrap();
        self.seen.extend(delivery.rows.iter().cloned());
        self.resumes.push((delivery.resume.clone(), self.seen.len()));
        delivery
    }

    /// Goes on from somewhere it has been.
    fn reconnects(&mut self, platform: &Platform, dice: &mut Dice) {
        let back = dice.below(4).min(self.resumes.len());
        self.resumes.truncate(self.resumes.len() - back);
        let (from, length) = match self.resumes.last() {
            Some((resume, length)) => (Some(resume.clone()), *length),
            None => (None, 0),
        };
        self.seen.truncate(length);
        let (seen, resumes) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.resumes));
        *self = Self { seen, resumes, ..Self::begin(platform, self.watched, from) };
    }

    fn drain(&mut self) {
        while !self.step().caught_up {}
    }

    /// Of every row what it said is delivered in order, nothing twice, and at last what it says now.
    fn is_exact(&self, platform: &Platform) {
        let watched = (self.watched)();
        let said = platform.said.lock().unwrap();
        let mut delivered = self.seen.clone();
        for ((table, key), states) in said.iter() {
            if *table != watched.table.name || !is_watched(&watched, *key, states.last().unwrap()) {
                continue;
            }
            let states = states.iter().map(|values| Row { key: *key, values: values.clone() });
            let views = states.filter_map(|row| (watched.read)(&Fields::of(watched.table, &row)).unwrap());
            let mut views: VecDeque<V> = views.collect();
            let (of_row, others): (Vec<V>, Vec<V>) =
                delivered.into_iter().partition(|view| views.contains(view));
            delivered = others;
            assert_eq!(of_row.last(), views.back(), "{table} {key}: the last one is missing");
            for view in of_row {
                let at = views.iter().position(|state| *state == view);
                let at = at.unwrap_or_else(|| panic!("{table} {key}: {view:?} comes twice, or too late"));
                views.drain(..=at);
            }
        }
        assert!(delivered.is_empty(), "nobody ever said, or asked for, {delivered:?}");
    }
}

fn is_watched<V>(watched: &Watched<V>, key: Uuid, values: &[Option<Value>]) -> bool {
    let columns = watched.table.columns;
    let holds = |(name, test): &(&'static str, Test)| {
        let value = columns.iter().position(|column| column.name == *name).and_then(|at| values[at].clone());
        match test {
            Test::Is(expected) => value.as_ref() == Some(expected),
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
        }
    };
    (watched.ids.is_empty() || watched.ids.contains(&key)) && watched.conditions.iter().all(holds)
}

fn all<V>(table: eventsourcing::ports::Table, read: Read<V>) -> Watched<V> {
    Watched { table, conditions: Vec::new(), ids: Vec::new(), read }
}

fn every_bid() -> Watched<domain::views::BidView> {
    Watched { conditions: vec![("investor_id", Test::Present)], ..all(BIDS, bid) }
}

fn bids_of_one() -> Watched<domain::views::BidView> {
    Watched { conditions: vec![("investor_id", Test::Is(Value::Uuid(ada(1).as_uuid())))], ..all(BIDS, bid) }
}

fn every_investor() -> Watched<domain::views::InvestorView> {
    all(INVESTORS, investor)
}

fn two_investors() -> Watched<domain::views::InvestorView> {
    Watched { ids: vec![ada(2).as_uuid(), ada(0).as_uuid()], ..all(INVESTORS, investor) }
}

fn every_invoice() -> Watched<domain::views::InvoiceView> {
    all(INVOICES, invoice)
}

/// Lets a watcher watch a business for so long.
fn watches<V: Hash + Send + Debug + PartialEq + Clone + 'static>(
    seed: u64,
    watched: fn() -> Watched<V>,
    turns: usize,
) {
    let mut dice = Dice::new(seed);
    let platform = Platform::new(seed ^ 1, dice.below(60));
    let mut business = Business::begin(seed ^ 2);
    for _ in 0..dice.below(60) {
        platform.publish(&business.happens(&platform));
    }
    let mut watcher = Watcher::begin(&platform, watched, None);
    for _ in 0..turns {
        match dice.below(8) {
            0..3 => platform.publish(&business.happens(&platform)),
            3 => {
                let partition = u16::try_from(dice.below(4)).unwrap();
                platform.project(Partition::from_index(partition), 1 + dice.below(4));
            }
            4 if dice.percent(50) => watcher.reconnects(&platform, &mut dice),
            _ => drop(watcher.step()),
        }
    }
    platform.project_all();
    watcher.drain();
    assert!(watcher.resumes.last().unwrap().0.complete, "the snapshot is whole");
    watcher.is_exact(&platform);
    // And whoever goes on from there has nothing to be told.
    let last = watcher.resumes.pop().unwrap().0;
    let mut other = Watcher::begin(&platform, watched, Some(last.clone()));
    other.drain();
    assert_eq!((other.seen.len(), &other.resumes[0].0), (0, &last));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_bid_is_followed_without_a_gap_or_a_repeat(seed: u64, turns in 0..400_usize) {
        watches(seed, every_bid, turns);
    }

    #[test]
    fn the_bids_of_one_investor_are_too(seed: u64, turns in 0..400_usize) {
        watches(seed, bids_of_one, turns);
    }

    #[test]
    fn every_investor_is_too(seed: u64, turns in 0..400_usize) {
        watches(seed, every_investor, turns);
    }

    #[test]
    fn and_two_that_are_named(seed: u64, turns in 0..400_usize) {
        watches(seed, two_investors, turns);
    }

    #[test]
    fn every_invoice_is_too(seed: u64, turns in 0..400_usize) {
        watches(seed, every_invoice, turns);
    }
}

fn places(platform: &Platform) -> Vec<Sequence> {
    partitions().all().map(|partition| platform.models.checkpoint(partition)).collect()
}

/// A platform with so many investors, all projected, and what a watcher of them has been told.
fn with_investors(count: u128) -> (Platform, Resume) {
    let platform = Platform::new(1, 0);
    (0..count).for_each(|number| platform.publish(&created(ada(number))));
    platform.project_all();
    let mut watcher = Watcher::begin(&platform, every_investor, None);
    watcher.drain();
    assert_eq!(watcher.seen.len() as u128, count);
    (platform, watcher.resumes.pop().unwrap().0)
}

fn refusal(platform: &Platform, from: Resume, bounds: Bounds) -> LiveError {
    let mut feed = platform.feed(every_investor(), Some(from), bounds);
    match now(feed.begin()) {
        Ok(()) => now(feed.next()).expect_err("refused"),
        Err(error) => error,
    }
}

#[test]
fn a_snapshot_comes_in_pages_and_each_says_where_to_go_on() {
    let (platform, _) = with_investors(5);
    let mut watcher = Watcher::begin(&platform, every_investor, None);
    let first = watcher.step();
    assert_eq!(first.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [ada(0), ada(1)]);
    let under_way = first.resume.under_way.clone().unwrap();
    assert_eq!((under_way.since, under_way.after, under_way.left), (None, ada(1).as_uuid(), false));
    assert!(!first.resume.complete);
    let mut other = Watcher::begin(&platform, every_investor, Some(first.resume));
    other.drain();
    assert_eq!(other.seen.iter().map(|row| row.id).collect::<Vec<_>>(), [ada(2), ada(3), ada(4)]);
    let last = other.resumes.pop().unwrap().0;
    assert!(last.complete);
    assert_eq!((last.under_way, last.at), (None, places(&platform)));
}

#[test]
fn a_row_that_changes_while_it_is_read_comes_with_the_next_batch_and_the_snapshot_is_whole_then() {
    let (platform, _) = with_investors(1);
    let mut feed = platform.feed(every_investor(), None, SMALL);
    now(feed.begin()).unwrap();
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let first = now(feed.next()).unwrap();
    assert_eq!((first.rows.len(), first.resume.complete), (0, false));
    let second = now(feed.next()).unwrap();
    assert_eq!((second.rows.len(), second.resume.complete, second.caught_up), (1, true, false));
    assert!(now(feed.next()).unwrap().caught_up);
}

#[test]
fn what_changes_elsewhere_is_no_news_but_moves_the_place_on() {
    let (platform, before) = with_investors(1);
    platform.publish(&on_sale(InvoiceId::new(Uuid::from_u128(7))));
    platform.project_all();
    let mut watcher = Watcher::begin(&platform, every_investor, Some(before.clone()));
    let delivery = watcher.step();
    assert!(delivery.rows.is_empty() && delivery.caught_up);
    assert_eq!(delivery.resume.at, places(&platform));
    assert_ne!(delivery.resume, before);
}

#[test]
fn who_comes_from_a_later_state_or_from_another_log_is_astray() {
    let (platform, resume) = with_investors(3);
    let (younger, _) = with_investors(2);
    assert_eq!(refusal(&younger, resume.clone(), SMALL), LiveError::Astray);
    let another_log = Resume { log: resume.log ^ 1, ..resume.clone() };
    assert_eq!(refusal(&platform, another_log, SMALL), LiveError::Astray);
    let other_partitions = Resume { at: resume.at[1..].to_vec(), ..resume.clone() };
    assert_eq!(refusal(&platform, other_partitions, SMALL), LiveError::Astray);
    let since = Some(resume.at.iter().map(|at| at.next()).collect());
    let backwards = UnderWay { since, after: Uuid::nil(), left: false };
    assert_eq!(refusal(&platform, Resume { under_way: Some(backwards), ..resume }, SMALL), LiveError::Astray);
}

#[test]
fn read_models_that_go_back_end_a_watch() {
    let (platform, _) = with_investors(1);
    let before = platform.models.save();
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let mut feed = platform.feed(every_investor(), None, SMALL);
    now(feed.begin()).unwrap();
    platform.models.restore(before);
    assert_eq!(now(feed.next()), Err(LiveError::Astray));
    assert!(matches!(now(feed.next()), Err(LiveError::Unheard(PortError::Broken(_)))), "then it is over");
}

#[test]
fn a_bus_that_has_lost_its_end_is_waited_for_elsewhere() {
    let (platform, resume) = with_investors(1);
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let partition = partitions().partition_of(ada(0).as_uuid());
    let last = platform.bus.last(partition);
    platform.bus.truncate(partition, Sequence::new(last.get() - 1));
    let is_unavailable = |error| matches!(error, LiveError::Unheard(PortError::Unavailable(_)));
    assert!(is_unavailable(refusal(&platform, resume.clone(), SMALL)));
    platform.bus.truncate(partition, Sequence::ZERO);
    assert!(is_unavailable(refusal(&platform, resume, SMALL)));
}

#[test]
fn who_is_too_far_behind_begins_again() {
    let (platform, resume) = with_investors(4);
    (0..4).for_each(|number| platform.publish(&funds(ada(number), 5)));
    platform.project_all();
    let few = Bounds { keys: 3, ..SMALL };
    assert_eq!(refusal(&platform, resume.clone(), few), LiveError::TooFarBehind);
    let enough = Bounds { keys: 4, ..SMALL };
    let mut feed = platform.feed(every_investor(), Some(resume.clone()), enough);
    now(feed.begin()).unwrap();
    let delivery = now(feed.next()).unwrap();
    assert_eq!(delivery.rows.len(), 2);
    // In the middle of a batch as well: what it holds has to be found again.
    assert_eq!(refusal(&platform, delivery.resume, few), LiveError::TooFarBehind);
    // And many records of few rows, beyond what is read ahead in one go.
    (0..1500).for_each(|number| platform.publish(&funds(ada(number % 4), 5)));
    platform.project_all();
    let quick = Bounds { records: 400, ..SMALL };
    assert_eq!(refusal(&platform, resume, quick), LiveError::TooFarBehind);
}
