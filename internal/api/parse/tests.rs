//! The parsers, with everything that should not be sent.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::api::integration_service::parse_all;
use crate::api::proto::registering::v1 as registering;

const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;
const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";

/// The fields that are wrong.
fn wrong<T: std::fmt::Debug>(result: Result<T, Failure>) -> Vec<String> {
    match result {
        Err(Failure::Invalid(violations)) => {
            violations.into_iter().map(|violation| violation.field).collect()
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// What one parser says is wrong.
fn complaints<T>(read: impl FnOnce(&mut Fields) -> T) -> Vec<String> {
    let mut fields = Fields::default();
    read(&mut fields);
    match fields.finish(Some(())) {
        Ok(()) => Vec::new(),
        refused => wrong(refused),
    }
}

fn eur(units: i64, nanos: i32) -> v1::Money {
    v1::Money { currency_code: "EUR".to_owned(), units, nanos }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let mut fields = Fields::default();
    let _: Option<Uuid> = fields.id("issuer_id", "");
    fields.amount("asking_price", None);
    let _: Option<Uuid> = fields.optional_id("request_id", "x");
    fields.wait("wait", Some(&prost_types::Duration { seconds: -1, nanos: 0 }));
    assert_eq!(wrong(fields.finish(Some(()))), ["issuer_id", "asking_price", "request_id", "wait"]);
}

#[test]
fn an_id_is_a_uuid_with_hyphens() {
    let simple = ID.replace('-', "");
    let nil = Uuid::nil().to_string();
    let wrong =
        ["x", "0", &ID[1..], &simple, &format!("{{{ID}}}"), &format!("urn:uuid:{ID}"), &nil, "é", " "];
    for text in wrong {
        assert_eq!(complaints(|fields| fields.id::<Uuid>("id", text)), ["id"], "{text:?}");
        assert_eq!(complaints(|fields| fields.optional_id::<Uuid>("id", text)), ["id"], "{text:?}");
    }
    assert_eq!(complaints(|fields| fields.id::<Uuid>("id", "")), ["id"]);
    assert_eq!(complaints(|fields| fields.optional_id::<Uuid>("id", "")), [""; 0]);
    let mut fields = Fields::default();
    assert_eq!(fields.id::<Uuid>("id", &ID.to_uppercase()), Some(ID.parse().expect("a UUID")));
}

#[test]
fn money_is_exact_positive_and_bounded() {
    let of = |code: &str, units, nanos| v1::Money { currency_code: code.to_owned(), units, nanos };
    for (money, field) in [
        (of("", 1, 0), "amount.currency_code"),
        (of("eur", 1, 0), "amount.currency_code"),
        (of("XXX", 1, 0), "amount.currency_code"),
        (of("EURO", 1, 0), "amount.currency_code"),
        (of("EUR\0", 1, 0), "amount.currency_code"),
        (eur(1, -10_000_000), "amount.nanos"),
        (eur(-1, 10_000_000), "amount.nanos"),
        (eur(1, 1_000_000_000), "amount.nanos"),
        (eur(1, i32::MIN), "amount.nanos"),
        (eur(1, 1), "amount.nanos"),
        (of("JPY", 1, 500_000_000), "amount.nanos"),
        (eur(0, 0), "amount"),
        (eur(-1, 0), "amount"),
        (eur(0, -10_000_000), "amount"),
        (eur(i64::MIN, 0), "amount"),
        (eur(i64::MAX, 990_000_000), "amount"),
        (eur(10_000_000_000_000, 10_000_000), "amount"),
    ] {
        assert_eq!(complaints(|fields| fields.amount("amount", Some(&money))), [field], "{money:?}");
    }
    assert_eq!(complaints(|fields| fields.amount("amount", None)), ["amount"]);
    assert_eq!(complaints(|fields| fields.money("balance", Some(&eur(0, 0)))), [""; 0]);
    assert_eq!(complaints(|fields| fields.money("balance", Some(&eur(-1, 0)))), ["balance"]);
    let mut fields = Fields::default();
    let most = fields.amount("amount", Some(&eur(10_000_000_000_000, 0))).expect("the ceiling itself");
    assert_eq!(most.minor(), Money::MAX_MINOR);
}

#[test]
fn a_name_fits_every_store() {
    for name in ["", " ", "a\0b", "a\nb", "\u{85}"] {
        assert_eq!(complaints(|fields| fields.name("name", name.to_owned())), ["name"], "{name:?}");
    }
    assert_eq!(complaints(|fields| fields.name("name", "ü".repeat(257))), ["name"]);
    assert_eq!(complaints(|fields| fields.name("name", "ü".repeat(256))), [""; 0]);
    assert_eq!(complaints(|fields| fields.optional_name("name", String::new())), [""; 0]);
}

#[test]
fn a_status_that_nobody_knows_is_no_filter() {
    for status in [-1, 5, i32::MIN, i32::MAX] {
        assert_eq!(complaints(|fields| fields.invoice_status(status)), ["status"], "{status}");
    }
    for status in [-1, 6, i32::MIN, i32::MAX] {
        assert_eq!(complaints(|fields| fields.bid_status(status)), ["status"], "{status}");
    }
    let mut fields = Fields::default();
    let statuses: Vec<_> = (0..5).map(|status| fields.invoice_status(status)).collect();
    assert_eq!(statuses[0], None);
    assert_eq!(statuses.into_iter().flatten().collect::<Vec<_>>(), InvoiceStatus::ALL);
    assert_eq!((1..6).filter_map(|status| fields.bid_status(status)).count(), BidStatus::ALL.len());
}

#[test]
fn a_wait_is_a_short_time_that_exists() {
    let of = |seconds, nanos| prost_types::Duration { seconds, nanos };
    for (wait, field) in [
        (of(-1, 0), "wait"),
        (of(0, -1), "wait"),
        (of(i64::MIN, i32::MIN), "wait"),
        (of(1, -1), "wait"),
        (of(1, 1_000_000_000), "wait.nanos"),
        (of(300, 1), "wait"),
        (of(i64::MAX, 0), "wait"),
    ] {
        assert_eq!(complaints(|fields| fields.wait("wait", Some(&wait))), [field], "{wait:?}");
    }
    let mut fields = Fields::default();
    assert_eq!(fields.wait("wait", None), None);
    assert_eq!(fields.wait("wait", Some(&of(0, 0))), Some(Duration::ZERO));
    assert_eq!(fields.wait("wait", Some(&of(300, 0))), Some(LONGEST_WAIT));
    assert_eq!(fields.wait("wait", Some(&of(1, 5))), Some(Duration::new(1, 5)));
}

#[test]
fn a_token_names_partitions_that_exist() {
    for token in [
        "16-1",
        "x",
        "3",
        "3-",
        "-3",
        "3-1,",
        ",3-1",
        ",",
        "3-1 ",
        "3-1;4-1",
        "3--1",
        "3-9223372036854775808",
        "3-99999999999999999999",
        "70000-1",
    ] {
        assert_eq!(complaints(|fields| fields.token(token, PARTITIONS)), ["token"], "{token:?}");
    }
    let many = |count| vec!["3-1"; count].join(",");
    assert_eq!(complaints(|fields| fields.token(&many(65), PARTITIONS)), ["token"]);
    let mut fields = Fields::default();
    assert_eq!(fields.token(&many(64), PARTITIONS).len(), 64);
    assert!(fields.token("", PARTITIONS).is_empty());
    let positions = fields.token("3-118,15-9223372036854775807", PARTITIONS);
    assert_eq!(
        positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "3-118,15-9223372036854775807"
    );
}

#[test]
fn a_page_is_of_this_query_and_bounded() {
    let query = PagedQuery::of("ListBids").filtered("PLACED");
    let other = PagedQuery::of("ListBids").filtered("WON").token(Uuid::from_u128(1));
    for token in [other.as_str(), "x", &"0".repeat(66)] {
        assert_eq!(complaints(|fields| fields.page(0, token, &query)), ["page_token"], "{token:?}");
    }
    for size in [-1, i32::MIN] {
        assert_eq!(complaints(|fields| fields.page(size, "", &query)), ["page_size"]);
    }
    let mut fields = Fields::default();
    let mut size = |size| fields.page(size, "", &query).size;
    assert_eq!([size(0), size(1), size(1000), size(1001), size(i32::MAX)], [100, 1, 1000, 1000, 1000]);
    let page = fields.page(5, &query.token(Uuid::from_u128(7)), &query);
    assert_eq!(page, Page { after: Some(Uuid::from_u128(7)), size: 5 });
}

#[test]
fn a_stream_begins_in_partitions_that_exist_once_each() {
    let at = |partition, sequence| v1::LogPosition { partition, sequence };
    for (after, field) in [
        (vec![at(16, 0)], "after[0].partition"),
        (vec![at(0, 1), at(u32::MAX, 0)], "after[1].partition"),
        (vec![at(3, 1), at(3, 1)], "after[1].partition"),
        (vec![at(3, u64::MAX)], "after[0].sequence"),
    ] {
        assert_eq!(complaints(|fields| fields.positions(&after, PARTITIONS)), [field], "{after:?}");
    }
    let all = Fields::default().positions(&[at(3, 118)], PARTITIONS);
    assert_eq!(all.len(), 16);
    assert_eq!(all[&Partition::from_index(3)], Sequence::new(118));
    assert_eq!(all[&Partition::from_index(4)], Sequence::ZERO);
}

#[test]
fn an_actor_is_printable_and_has_a_default() {
    let actor = |bytes: &[u8]| {
        let mut metadata = MetadataMap::new();
        metadata.insert("actor", tonic::metadata::MetadataValue::try_from(bytes).expect("a header"));
        metadata
    };
    assert_eq!(Fields::default().actor(&MetadataMap::new()), "client");
    assert_eq!(Fields::default().actor(&actor(b"clerk 7")), "clerk 7");
    for bytes in [&b""[..], b"a\tb", b"\xff", &[b'a'; 257]] {
        assert_eq!(complaints(|fields| fields.actor(&actor(bytes))), ["metadata.actor"]);
    }
}

#[test]
fn a_trace_context_has_the_form_of_the_w3c_or_is_ignored() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let of = |text: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", text.parse().expect("a header"));
        traceparent(&metadata)
    };
    assert_eq!(of(good).as_deref(), Some(good));
    assert_eq!(traceparent(&MetadataMap::new()), None);
    for text in [
        &good.to_uppercase(),
        &good.replacen("00", "01", 1),
        &good[..54],
        &format!("{good}-00"),
        &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
        "",
    ] {
        assert_eq!(of(text), None, "{text:?}");
    }
}

#[test]
fn violations_are_bounded_and_do_not_repeat_what_was_sent() {
    let event = registering::IntegrationEvent { event: None, event_id: "secret".to_owned() };
    let Err(Failure::Invalid(violations)) = parse_all(vec![event; 1000]) else {
        panic!("not refused");
    };
    assert_eq!(violations.len(), MOST_VIOLATIONS + 1);
    assert!(violations.last().is_some_and(|last| last.description.contains("1968 more")));
    assert!(violations.iter().all(|violation| !violation.description.contains("secret")));
}

#[test]
fn events_are_parsed_all_or_none() {
    let issuer = |issuer_id: &str, name: &str| registering::IntegrationEvent {
        event: Some(registering::integration_event::Event::IssuerRegistered(registering::IssuerRegistered {
            issuer_id: issuer_id.to_owned(),
            name: name.to_owned(),
        })),
        event_id: String::new(),
    };
    let investor = registering::IntegrationEvent {
        event: Some(registering::integration_event::Event::InvestorRegistered(
            registering::InvestorRegistered::default(),
        )),
        event_id: "x".to_owned(),
    };
    let events = vec![issuer(ID, "Ada"), issuer("", ""), investor, registering::IntegrationEvent::default()];
    assert_eq!(
        wrong(parse_all(events)),
        [
            "events[1].issuer_registered.issuer_id",
            "events[1].issuer_registered.name",
            "events[2].event_id",
            "events[2].investor_registered.investor_id",
            "events[2].investor_registered.name",
            "events[2].investor_registered.balance",
            "events[3].event",
        ]
    );
    assert_eq!(wrong(parse_all(Vec::new())), ["events"]);
    assert_eq!(wrong(parse_all(vec![issuer(ID, "Ada"); 1001])), ["events"]);
    assert_eq!(parse_all(vec![issuer(ID, "Ada"); 1000]).expect("as many as may be").len(), 1000);
}

proptest! {
    #[test]
    fn whatever_is_sent_is_answered(
        text in ".{0,300}", code in "[A-Z]{0,4}", wide: i64, other: u64, narrow: i32, index: u32,
    ) {
        let mut fields = Fields::default();
        let _: Option<Uuid> = fields.id("a", &text);
        let _: Option<Uuid> = fields.optional_id("a", &text);
        fields.name("a", text.clone());
        fields.token(&text, PARTITIONS);
        fields.wait("a", Some(&prost_types::Duration { seconds: wide, nanos: narrow }));
        fields.page(narrow, &text, &PagedQuery::of("a"));
        fields.invoice_status(narrow);
        fields.bid_status(narrow);
        fields.positions(&[v1::LogPosition { partition: index, sequence: other }], PARTITIONS);
        fields.amount("a", Some(&v1::Money { currency_code: code, units: wide, nanos: narrow }));
        let _ = fields.finish(Some(()));
    }

    #[test]
    fn whatever_decodes_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = registering::PublishIntegrationEventsRequest::decode(bytes.as_slice()) {
            let _ = parse_all(request.events);
        }
    }

    #[test]
    fn money_that_is_taken_is_given_back_as_it_was(cents in 1..=Money::MAX_MINOR) {
        let sent = eur(cents / 100, i32::try_from(cents % 100).expect("cents") * 10_000_000);
        let taken = Fields::default().amount("amount", Some(&sent)).expect("an amount");
        prop_assert_eq!(taken.minor(), cents);
        prop_assert_eq!(v1::Money::from(taken), sent);
    }

    #[test]
    fn nearly_a_token_is_none(token in "[0-9]{1,3}-[0-9,-]{0,8}") {
        let mut fields = Fields::default();
        let positions = fields.token(&token, PARTITIONS);
        let written: Vec<String> = positions.iter().map(ToString::to_string).collect();
        // Either nothing was taken, or everything that is there (but for leading zeros).
        prop_assert!(written.is_empty() || written.len() == token.split(',').count());
    }
}
