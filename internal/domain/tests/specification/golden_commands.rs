//! Every command that was ever queued, and every outcome that was ever recorded, can be read: the queue outlives a
//! release, and a record repeats the command that it refuses.

use std::borrow::Cow;

use domain::financing::{Command, Financing};
use domain::refusal::Refusal;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{AggregateRef, Entry, Model as _};
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, DEAD_LETTER_DISCARDED, Record,
};
use uuid::Uuid;

macro_rules! sample {
    ($file:literal) => {
        include_str!(concat!("../../golden_commands/", $file, ".json"))
    };
}

/// What earlier releases may have left in a queue or in a record.
const SAMPLES: &[&str] = &[
    sample!("CreateIssuer"),
    sample!("CreateInvestor"),
    sample!("BidOnInvoice"),
    sample!("ReleaseFunds"),
    sample!("CommitFunds"),
    sample!("SellInvoice"),
    sample!("ProcessBid"),
    sample!("ApproveFinancing"),
    sample!("ReverseFinancing"),
];

fn outcome(event_type: &'static str, data: &str) -> Record {
    Record {
        partition: Partition::from_index(0),
        sequence: Sequence::new(1),
        record_id: Uuid::nil(),
        recorded_at: Timestamp::default(),
        aggregate: AggregateRef::new("invoice", Uuid::nil()),
        version: None,
        event_type: Cow::Borrowed(event_type),
        schema: 1,
        data: data.to_owned(),
        command_id: Uuid::nil(),
        correlation_id: Uuid::nil(),
        causation_id: Uuid::nil(),
        actor: "client".to_owned(),
        traceparent: None,
        last_of_command: true,
    }
}

#[test]
fn every_sample_of_a_command_reads_and_is_written_again_as_it_was() {
    for sample in SAMPLES {
        let command: Command = serde_json::from_str(sample).unwrap();
        assert_eq!(serde_json::to_string(&command).unwrap(), sample.trim_end());
        assert!(sample.contains(Financing::method(&command)));
    }
}

#[test]
fn every_sample_of_an_outcome_reads() {
    let refused = outcome(COMMAND_REFUSED, sample!("CommandRefused.v1"));
    let Entry::Refused { command, refusal } = refused.entry::<Financing>().unwrap() else {
        panic!("refused")
    };
    assert_eq!(Financing::method(&command), "ProcessBid");
    assert!(matches!(refusal, Refusal::InvoiceNotFound { .. }));
    assert_eq!(refused.refusal_reason().unwrap().unwrap().reason, "INVOICE_NOT_FOUND");

    let unchanged = outcome(COMMAND_UNCHANGED, sample!("CommandUnchanged.v1"));
    assert!(matches!(unchanged.entry::<Financing>().unwrap(), Entry::Unchanged { .. }));

    let dead = outcome(COMMAND_DEAD, sample!("CommandDead.v1"));
    assert!(matches!(dead.entry::<Financing>().unwrap(), Entry::Dead));
    assert_eq!(dead.dead_letter().unwrap().unwrap().raw.unwrap(), "not JSON");

    let discarded = outcome(DEAD_LETTER_DISCARDED, sample!("DeadLetterDiscarded.v1"));
    assert!(matches!(discarded.entry::<Financing>().unwrap(), Entry::Discarded));
    assert_eq!(discarded.discard().unwrap().unwrap().reason, "paid by hand");
}
