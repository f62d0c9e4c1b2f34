//! Every fact that was ever written can be read: one sample of each name and schema, kept for ever.
//!
//! A new fact does not compile here before it has a sample in `golden/`; a new schema of an old fact gets a second line in
//! [`OLDER`], and the old sample stays.

use domain::events::Event;
use domain::investor::InvestorEvent;
use domain::invoice::InvoiceEvent;
use domain::issuer::IssuerEvent;
use eventsourcing::model::DecodeError;

macro_rules! sample {
    ($file:literal) => {
        include_str!(concat!("../../golden/", $file, ".json"))
    };
}

/// The sample of a fact's current schema.
fn sample_of(event: &Event) -> &'static str {
    match event {
        Event::Issuer(event) => match event {
            IssuerEvent::IssuerCreated(_) => sample!("IssuerCreated.v1"),
        },
        Event::Investor(event) => match event {
            InvestorEvent::InvestorCreated(_) => sample!("InvestorCreated.v1"),
            InvestorEvent::InvestorFundsAdded(_) => sample!("InvestorFundsAdded.v1"),
            InvestorEvent::BidOnInvoicePlaced(_) => sample!("BidOnInvoicePlaced.v1"),
            InvestorEvent::InvestorFundsReleased(_) => sample!("InvestorFundsReleased.v1"),
            InvestorEvent::InvestorFundsCommitted(_) => sample!("InvestorFundsCommitted.v1"),
        },
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(_) => sample!("InvoiceCreated.v1"),
            InvoiceEvent::InvoiceFinanced(_) => sample!("InvoiceFinanced.v1"),
            InvoiceEvent::BidOnInvoiceRejected(_) => sample!("BidOnInvoiceRejected.v1"),
            InvoiceEvent::InvoiceApproved(_) => sample!("InvoiceApproved.v1"),
            InvoiceEvent::InvoiceReversed(_) => sample!("InvoiceReversed.v1"),
        },
    }
}

/// Name, schema and sample of everything that is current.
const CURRENT: &[(&str, u16, &str)] = &[
    ("IssuerCreated", 1, sample!("IssuerCreated.v1")),
    ("InvestorCreated", 1, sample!("InvestorCreated.v1")),
    ("InvestorFundsAdded", 1, sample!("InvestorFundsAdded.v1")),
    ("BidOnInvoicePlaced", 1, sample!("BidOnInvoicePlaced.v1")),
    ("InvestorFundsReleased", 1, sample!("InvestorFundsReleased.v1")),
    ("InvestorFundsCommitted", 1, sample!("InvestorFundsCommitted.v1")),
    ("InvoiceCreated", 1, sample!("InvoiceCreated.v1")),
    ("InvoiceFinanced", 1, sample!("InvoiceFinanced.v1")),
    ("BidOnInvoiceRejected", 1, sample!("BidOnInvoiceRejected.v1")),
    ("InvoiceApproved", 1, sample!("InvoiceApproved.v1")),
    ("InvoiceReversed", 1, sample!("InvoiceReversed.v1")),
];

/// What the Registering context sends, as CloudEvents; read in `registering`.
const FOREIGN: &[&str] = &["registering.IssuerRegistered.v1.json", "registering.InvestorRegistered.v1.json"];

/// The same of schemas that are written no more.
const OLDER: &[(&str, u16, &str)] = &[];

#[test]
fn every_sample_of_a_current_schema_reads_and_is_written_again_as_it_was() {
    for (event_type, schema, sample) in CURRENT {
        let event = Event::decode(event_type, *schema, sample).unwrap();
        assert_eq!(event.name_and_schema(), (*event_type, *schema));
        assert_eq!(event.event_type(), *event_type);
        assert_eq!(event.encode().unwrap().data, sample.trim_end());
        assert_eq!(sample_of(&event), *sample);
    }
}

#[test]
fn every_sample_of_an_older_schema_reads_as_the_fact_that_it_is_today() {
    for (event_type, schema, sample) in OLDER {
        let event = Event::decode(event_type, *schema, sample).unwrap();
        assert_eq!(event.event_type(), *event_type);
    }
}

#[test]
fn every_file_in_golden_is_a_sample_of_ours() {
    let known = CURRENT.iter().chain(OLDER).map(|(name, schema, _)| format!("{name}.v{schema}.json"));
    let mut known: Vec<_> = known.chain(FOREIGN.iter().map(|name| (*name).to_owned())).collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let files = std::fs::read_dir(golden).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    known.sort();
    files.sort();
    assert_eq!(files, known);
}

#[test]
fn an_unknown_name_or_schema_is_said_to_be_unknown() {
    let unknown = |event_type: &str, schema| {
        Err(DecodeError::UnknownEvent { event_type: event_type.to_owned(), schema })
    };
    let sample = sample!("InvoiceCreated.v1");
    assert_eq!(Event::decode("InvoiceCreated", 99, sample), unknown("InvoiceCreated", 99));
    assert_eq!(Event::decode("InvoiceCreated", 0, sample), unknown("InvoiceCreated", 0));
    assert_eq!(Event::decode("InvoiceEaten", 1, sample), unknown("InvoiceEaten", 1));
}

#[test]
fn data_without_its_shape_is_malformed() {
    for data in ["", "{}", "null", r#"{"invoice_id":"1"}"#] {
        let answer = Event::decode("InvoiceCreated", 1, data);
        assert!(matches!(answer, Err(DecodeError::Malformed { .. })), "{data:?}: {answer:?}");
    }
}
