//! I5: a bus that lost its tail is refilled from the log; one that never had what follows from it is not.

use verify::Invariant::{I5, I6};
use verify::Report;

use super::{PARTITIONS, Stored, clean, found, id};

/// How many messages a bus has lost.
const LOST: u64 = 3;

fn heads(stored: &Stored) -> Vec<u64> {
    stored.rows.iter().map(|row| row.head).collect()
}

/// Nothing is wrong, and this many messages are missing.
#[track_caller]
fn noted(stored: &Stored, behind: u64) -> Report {
    let report = stored.audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!(report.counts.behind, behind);
    report
}

#[test]
fn a_bus_that_lost_its_tail_is_noted_and_no_breach_until_all_is_settled() {
    // given
    let mut stored = clean();
    stored.settled = false;
    let ends: Vec<u64> = heads(&stored).iter().map(|head| head - LOST).collect();

    // when
    stored.relay(&ends);

    // then
    let report = noted(&stored, LOST * u64::from(PARTITIONS));
    assert_eq!(report.notes.len(), usize::from(PARTITIONS));
    assert_eq!(
        report.notes[0],
        "the bus of partition 0 is behind its readers by 3: it is refilled from the log"
    );
    stored.settled = true;
    found(&stored, I5, |breach| breach.what.contains("and the bus has"));
}

#[test]
fn a_bus_that_was_lost_as_a_whole_is_noted() {
    let mut stored = clean();
    stored.settled = false;
    let all: u64 = heads(&stored).iter().sum();
    stored.relay(&[0; PARTITIONS as usize]);
    noted(&stored, all);
    // The stream is not even there.
    stored.projected.fill((0, None));
    stored.lines.clear();
    noted(&stored, all);
}

#[test]
fn a_tail_that_goes_while_it_is_looked_at_is_noted() {
    let mut stored = clean();
    stored.settled = false;
    let mut ends = heads(&stored);
    stored.carried = Some(ends.iter().map(|end| end - LOST).collect());
    assert!(stored.audit().is_clean(), "{:#?}", stored.audit().breaches);
    // And the other way round: it went, and came back.
    for end in &mut ends {
        *end -= LOST;
    }
    stored.carried = Some(heads(&stored));
    stored.relay(&ends);
    noted(&stored, 0);
}

#[test]
fn a_bus_that_lost_its_tail_says_no_other_than_the_log_in_what_it_kept() {
    let mut stored = clean();
    stored.settled = false;
    let ends: Vec<u64> = heads(&stored).iter().map(|head| head - LOST).collect();
    stored.relay(&ends);
    let kept = stored.bus[0].clone();
    stored.bus[0].record_id = id(0x49, 0);
    found(&stored, I5, |breach| breach.position == Some(kept.position()));
}

#[test]
fn what_was_read_from_a_lost_tail_must_be_in_the_log() {
    let mut stored = clean();
    stored.settled = false;
    let ends: Vec<u64> = heads(&stored).iter().map(|head| head - LOST).collect();
    stored.relay(&ends);
    stored.projected[2].1 = Some(id(0x47, 0));
    found(&stored, I6, |breach| breach.position.unwrap().partition == 2);
    let mut stored = clean();
    stored.settled = false;
    stored.relay(&ends);
    stored.policies[2] += 1;
    found(&stored, I5, |breach| breach.what.contains("the log ends with"));
}

#[test]
fn a_bus_that_is_the_log_up_to_a_position_says_where_and_at_which_record() {
    let mut stored = clean();
    stored.bus.clear();
    stored.embedded = true;
    assert!(stored.audit().is_clean());
    let last = stored.relayed.pop();
    found(&stored, I5, |breach| breach.what.contains("nobody knows how far partition 3"));
    stored.relayed.extend(last);
    stored.relayed[1].1 = None;
    found(&stored, I5, |breach| breach.what.contains("partition 1") && breach.what.contains("which record"));
    // Nothing is relayed of an empty partition, and so no record.
    stored.relayed[1] = (0, None);
    stored.settled = false;
    assert!(stored.audit().is_clean());
}
