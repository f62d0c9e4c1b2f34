//! I4: versions and sequences are gap-free and append-only.

use verify::Invariant::I4;

use super::{ADA, APPROVED, changed, clean, found, found_at};

#[test]
fn a_record_is_missing_from_the_middle() {
    let mut stored = clean();
    let index = stored.saying("BidOnInvoicePlaced", "120");
    let gone = stored.log.remove(index);
    let next =
        |record: &&super::Owned| record.partition == gone.partition && record.sequence == gone.sequence + 1;
    let next = stored.log.iter().find(next).unwrap().clone();
    found_at(&stored, I4, &next);
}

#[test]
fn the_last_record_of_a_partition_is_missing() {
    let mut stored = clean();
    let head = stored.rows[0].head;
    stored.log.retain(|record| (record.partition, record.sequence) != (0, head));
    let last = stored.log.iter().rfind(|record| record.partition == 0).unwrap().clone();
    found_at(&stored, I4, &last);
}

#[test]
fn two_records_have_changed_places() {
    let mut stored = clean();
    let (one, other) = (stored.find("IssuerCreated", 0), stored.find("CommandUnchanged", 0));
    let (first, second) = (stored.log[one].sequence, stored.log[other].sequence);
    stored.log[one].sequence = second;
    stored.log[other].sequence = first;
    let record = stored.log[one].clone();
    found_at(&stored, I4, &record);
}

#[test]
fn a_version_is_skipped() {
    changed(|stored| stored.find("InvoiceFinanced", 0), |record| record.version = Some(9), I4);
}

#[test]
fn a_version_comes_twice() {
    changed(|stored| stored.find("InvestorFundsAdded", 0), |record| record.version = Some(1), I4);
}

#[test]
fn an_aggregate_begins_with_version_two() {
    changed(|stored| stored.find("IssuerCreated", 1), |record| record.version = Some(2), I4);
}

#[test]
fn two_records_have_one_id() {
    let mut stored = clean();
    let first = stored.log[stored.find("IssuerCreated", 0)].record_id;
    let index = stored.find("InvestorCreated", 3);
    stored.log[index].record_id = first;
    let record = stored.log[index].clone();
    found_at(&stored, I4, &record);
}

#[test]
fn a_record_stands_in_a_partition_that_is_not_its_aggregates() {
    let mut stored = clean();
    let index = stored.find("InvestorCreated", 3);
    let mut record = stored.log.remove(index);
    stored.rows[usize::from(record.partition)].head -= 1;
    record.partition = 0;
    record.sequence = stored.rows[0].head + 1;
    stored.rows[0].head += 1;
    stored.log.push(record.clone());
    let report = stored.audit();
    let breach = report.breaches.iter().find(|breach| breach.position == Some(record.position()));
    assert!(breach.is_some_and(|breach| breach.what.contains("partition 3")), "{:#?}", report.breaches);
}

#[test]
fn a_record_stands_in_a_partition_that_there_is_not() {
    changed(|stored| stored.find("InvestorCreated", 3), |record| record.partition = 77, I4);
}

#[test]
fn a_partitions_row_is_ahead_of_its_log() {
    let mut stored = clean();
    stored.rows[2].head += 1;
    found(&stored, I4, |breach| breach.position.is_some_and(|position| position.partition == 2));
}

#[test]
fn a_partition_was_written_by_nobody() {
    let mut stored = clean();
    stored.rows[1].epoch = 0;
    found(&stored, I4, |breach| breach.position.is_some_and(|position| position.partition == 1));
}

#[test]
fn a_snapshot_is_ahead_of_its_aggregate() {
    let mut stored = clean();
    stored.snapshots.push(("investor".to_owned(), ADA, 99, 1, "\"Missing\"".to_owned()));
    found(&stored, I4, |breach| breach.aggregate.is_some_and(|(_, id)| id == ADA));
    assert_ne!(ADA, APPROVED);
}
