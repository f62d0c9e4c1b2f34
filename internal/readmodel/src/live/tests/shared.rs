//! What the watches of a process share: how much of it there is, and how often anybody is asked for it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use domain::financing::Financing;
use eventsourcing::model::Projection as _;
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::RowQuery;
use eventsourcing::record::Record;
use eventsourcing::testkit::memory::{Call, Fault, MemoryReadModels};
use uuid::Uuid;

use super::business::{ada, created, funds};
use super::platform::Platform;
use super::{now, partitions};
use crate::live::lookout::{Lookout, Place};
use crate::live::recent::{Recent, Told};
use crate::live::touched;
use crate::projection::FinancingProjection;
use crate::tables::{BIDS, COMMANDS, INVESTORS, INVOICES, ISSUERS, TABLES};

/// Every record of which a sample is kept, by its type.
fn samples() -> Vec<(String, bool, String)> {
    let domain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain");
    let of = |folder: &str, is_fact: bool| {
        let files = std::fs::read_dir(domain.join(folder)).unwrap().map(|file| file.unwrap().path());
        let samples = files.filter_map(move |path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".v1.json")?.to_owned();
            (!name.starts_with("registering"))
                .then(|| (name, is_fact, std::fs::read_to_string(&path).unwrap()))
        });
        samples.collect::<Vec<_>>()
    };
    let samples = [of("golden", true), of("golden_commands", false)].concat();
    assert!(samples.len() >= 15, "{samples:?}");
    samples
}

#[test]
fn of_every_record_exactly_what_the_projection_changes_is_known() {
    let platform = Platform::new(0, 0);
    platform.publish(&created(ada(0)));
    let partition = partitions().partition_of(ada(0).as_uuid());
    let template = Record::clone(&platform.bus.stream(partition)[0]);
    let mut kinds = BTreeSet::new();
    for (event_type, is_fact, data) in samples() {
        let version = template.version.filter(|_| is_fact);
        let record = Record { event_type: Cow::Owned(event_type.clone()), version, data, ..template.clone() };
        let changes = FinancingProjection.project(&record, &record.entry::<Financing>().unwrap());
        let watched = |table: &str| table != COMMANDS.name && table != ISSUERS.name;
        let changed: BTreeSet<_> = changes
            .iter()
            .filter(|change| watched(change.table))
            .map(|change| (change.table, change.key))
            .collect();
        assert_eq!(touched::rows(&record).unwrap(), changed, "{event_type}");
        for table in [INVOICES.name, INVESTORS.name, BIDS.name] {
            let of_table: BTreeSet<_> = changed.iter().copied().filter(|(of, _)| *of == table).collect();
            assert_eq!(touched::rows_of(table, &record).unwrap(), of_table, "{event_type} in {table}");
        }
        kinds.insert((event_type, changed.len()));
    }
    assert!(
        kinds.iter().any(|(_, rows)| *rows == 2) && kinds.iter().any(|(_, rows)| *rows == 0),
        "{kinds:?}"
    );
    let unknown = Record { event_type: Cow::Borrowed("InvoiceBurnt"), ..template };
    assert!(touched::rows(&unknown).is_err() && touched::rows_of(BIDS.name, &unknown).is_err());
}

/// A partition with so many changes of one account, and what is remembered of its last four.
fn with_changes(count: u64) -> (Platform, Recent<eventsourcing::testkit::memory::MemoryBus>, Partition) {
    let platform = Platform::new(0, 0);
    (0..count).for_each(|_| platform.publish(&funds(ada(0), 1)));
    let recent = Recent::new(Arc::new(platform.bus.clone()), usize::from(partitions().get()), 4);
    (platform, recent, partitions().partition_of(ada(0).as_uuid()))
}

fn told(
    recent: &Recent<eventsourcing::testkit::memory::MemoryBus>,
    partition: Partition,
    after: u64,
    to: u64,
) -> (Told, usize) {
    let mut keys = 0;
    let count = |_| {
        keys += 1;
        true
    };
    let between = (Sequence::new(after), Sequence::new(to));
    let told = recent.tell(partition, between, INVESTORS.name, &mut { count });
    (told, keys)
}

#[test]
fn a_ring_knows_its_last_records_and_says_so_of_no_others() {
    let (_platform, recent, partition) = with_changes(9);
    assert!(now(recent.read_on(&[(partition, Sequence::new(2))])).unwrap());
    // Of 3 to 9 the last four are kept.
    assert_eq!(told(&recent, partition, 4, 9).0, Told::Below);
    assert_eq!(told(&recent, partition, 5, 9), (Told::UpTo(Sequence::new(9)), 4));
    assert_eq!(told(&recent, partition, 6, 7), (Told::UpTo(Sequence::new(7)), 1));
    assert_eq!(told(&recent, partition, 9, 12), (Told::UpTo(Sequence::new(9)), 0));
    assert!(!now(recent.read_on(&[(partition, Sequence::new(9))])).unwrap(), "there is no more");
    // Who is far ahead of it takes it along; who is left behind reads by itself.
    let (_platform, recent, partition) = with_changes(9);
    now(recent.read_on(&[(partition, Sequence::ZERO)])).unwrap();
    recent.agree_with(&Place::default());
    let (_platform, other, _) = with_changes(90);
    now(other.read_on(&[(partition, Sequence::new(1))])).unwrap();
    assert_eq!(told(&other, partition, 86, 90), (Told::UpTo(Sequence::new(90)), 4));
    assert_eq!(told(&other, partition, 1, 90).0, Told::Below);
}

#[test]
fn what_was_read_of_a_log_that_is_gone_is_forgotten() {
    let (platform, recent, partition) = with_changes(3);
    now(recent.read_on(&[(partition, Sequence::ZERO)])).unwrap();
    assert_eq!(told(&recent, partition, 0, 3).1, 3);
    // The read models are of another log.
    let index = usize::from(partition.index());
    let mut place = Place { at: vec![Sequence::ZERO; 4], ids: vec![None; 4], log: 0 };
    (place.at[index], place.ids[index]) =
        (Sequence::new(3), Some(platform.bus.stream(partition)[2].record_id));
    recent.agree_with(&place);
    assert_eq!(told(&recent, partition, 0, 3).1, 3, "it is the same");
    place.ids[index] = Some(Uuid::from_u128(7));
    recent.agree_with(&place);
    assert_eq!(told(&recent, partition, 0, 3), (Told::Below, 0));
    // The bus is of another log: it ends earlier, and has gone on from there with other records.
    let (platform, recent, _) = with_changes(3);
    now(recent.read_on(&[(partition, Sequence::ZERO)])).unwrap();
    platform.bus.truncate(partition, Sequence::new(2));
    platform.publish_as(&funds(ada(0), 9), Uuid::from_u128(8));
    platform.publish(&funds(ada(0), 9));
    assert!(now(recent.read_on(&[(partition, Sequence::new(3))])).unwrap());
    assert_eq!(told(&recent, partition, 0, 4), (Told::Below, 0), "what was known is not true any more");
}

#[test]
fn many_who_look_at_the_same_time_are_answered_with_few_looks_and_none_with_an_old_one() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let count = move |call: Call| {
        counted.fetch_add(usize::from(call == Call::ModelsCheckpoints), Ordering::Relaxed);
        Fault::None
    };
    let models = MemoryReadModels::new(TABLES).interfered(Arc::new(count));
    let lookout = Lookout::new(Arc::new(models), partitions(), 1);
    let mut asked: Vec<_> = (0..100).map(|_| Box::pin(lookout.projected())).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut answered = 0;
    // The first is let go of in the middle of its look.
    assert!(asked.iter_mut().all(|one| one.as_mut().poll(&mut context).is_pending()));
    drop(asked.remove(0));
    while !asked.is_empty() {
        asked.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
        answered += 1;
        assert!(answered < 1000);
    }
    assert!(looks.load(Ordering::Relaxed) <= 2, "{looks:?} looks for a hundred");
    let before = looks.load(Ordering::Relaxed);
    now(lookout.projected()).unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), before + 1, "who asks later gets a later answer");
}

#[test]
fn few_pages_are_read_at_a_time() {
    let models = MemoryReadModels::new(TABLES);
    let lookout = Lookout::new(Arc::new(models), partitions(), 2);
    let query = RowQuery { table: BIDS.name, conditions: Vec::new(), keys: None, after: None, limit: 1 };
    let mut context = Context::from_waker(Waker::noop());
    let mut reading: Vec<_> = (0..3).map(|_| Box::pin(lookout.rows(&query))).collect();
    assert!(reading.iter_mut().all(|one| one.as_mut().poll(&mut context).is_pending()));
    // The third has not begun to, however often it tries; when one of the others is gone, it may.
    let (mut third, second) = (reading.pop().unwrap(), reading.pop().unwrap());
    assert!((0..100).all(|_| third.as_mut().poll(&mut context).is_pending()));
    drop(second);
    assert!((0..100).any(|_| matches!(third.as_mut().poll(&mut context), Poll::Ready(Ok(_)))));
}

#[test]
fn a_store_and_a_bus_that_are_down_are_not_asked_by_one_after_the_other() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let fail = move |_: Call| {
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::Fail
    };
    let models = MemoryReadModels::new(TABLES).interfered(Arc::new(fail.clone()));
    let lookout = Lookout::new(Arc::new(models), partitions(), 1);
    let (platform, _, partition) = with_changes(3);
    let recent = Recent::new(Arc::new(platform.bus.interfered(Arc::new(fail))), 4, 4);
    let place = [(partition, Sequence::ZERO)];
    let mut looks: Vec<_> = (0..100).map(|_| Box::pin(lookout.projected())).collect();
    let mut reads: Vec<_> = (0..100).map(|_| Box::pin(recent.read_on(&place))).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut failed = 0;
    for _ in 0..1000 {
        let mut is_waiting = |answer: Poll<bool>| match answer {
            Poll::Pending => true,
            Poll::Ready(is_error) => {
                failed += usize::from(is_error);
                false
            }
        };
        looks.retain_mut(|one| is_waiting(one.as_mut().poll(&mut context).map(|answer| answer.is_err())));
        reads.retain_mut(|one| is_waiting(one.as_mut().poll(&mut context).map(|answer| answer.is_err())));
    }
    assert_eq!(failed, 200, "everybody is told");
    assert!(calls.load(Ordering::Relaxed) <= 4, "{calls:?} calls for two hundred");
}
