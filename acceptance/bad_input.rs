//! A malformed request is told all that is wrong with it, and changes nothing.

use std::collections::BTreeSet;

use tonic::Code;

use crate::harness::proto::{
    ApproveFinancingRequest, BidOnInvoiceRequest, GetBidRequest, GetCommandRequest, GetInvestorRequest,
    GetInvoiceRequest, GetIssuerRequest, ListBidsRequest, ListInvestorsRequest, ListInvoicesRequest,
    ListIssuersRequest, LogPosition, Money, ReverseFinancingRequest, SellInvoiceRequest, WaitCommandRequest,
    WatchFactsRequest,
};
use crate::harness::registering::{IntegrationEvent, PublishIntegrationEventsRequest};
use crate::harness::{Platform, eur, investor_registered, issuer_registered, money, uuid, violated};

const NOT_IDS: [&str; 6] = [
    "",
    "nonsense",
    "00000000-0000-0000-0000-000000000000",
    "0190163d8694739baea5966c26f8ad90",
    "{0190163d-8694-739b-aea5-966c26f8ad90}",
    "0190163d-8694-739b-aea5-966c26f8ad9g",
];

fn fields(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn not_amounts() -> Vec<(Option<Money>, &'static str)> {
    let of = |currency_code: &str, units, nanos| {
        Some(Money { currency_code: currency_code.to_owned(), units, nanos })
    };
    vec![
        (None, ""),
        (of("", 1, 0), ".currency_code"),
        (of("eur", 1, 0), ".currency_code"),
        (of("XYZ", 1, 0), ".currency_code"),
        (of("EUR\0", 1, 0), ".currency_code"),
        (of("EUR", 0, 0), ""),
        (of("EUR", -1, 0), ""),
        (of("EUR", 0, -10_000_000), ""),
        (of("EUR", i64::MIN, 0), ""),
        (of("EUR", i64::MAX, 0), ""),
        (of("EUR", 10_000_000_000_000, 10_000_000), ""),
        (of("EUR", 1, 1), ".nanos"),
        (of("EUR", 1, 5_000_000), ".nanos"),
        (of("JPY", 1, 500_000_000), ".nanos"),
        (of("EUR", 1, -10_000_000), ".nanos"),
        (of("EUR", 1, 1_000_000_000), ".nanos"),
        (of("EUR", 1, i32::MIN), ".nanos"),
    ]
}

fn sell() -> SellInvoiceRequest {
    SellInvoiceRequest { issuer_id: uuid(), asking_price: eur(1, 0), request_id: String::new(), wait: None }
}

fn bid() -> BidOnInvoiceRequest {
    BidOnInvoiceRequest {
        investor_id: uuid(),
        invoice_id: uuid(),
        amount: eur(1, 0),
        request_id: String::new(),
        wait: None,
    }
}

#[tokio::test]
async fn a_malformed_id_is_refused_with_the_name_of_its_field() {
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let (mut commands, mut queries) = (platform.commands(), platform.queries());
    for wrong in NOT_IDS.map(str::to_owned) {
        let (id, token) = (wrong.clone(), String::new());
        let request = SellInvoiceRequest { issuer_id: id.clone(), ..sell() };
        let status = commands.sell_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["issuer_id"]), "{wrong:?}");
        let request = BidOnInvoiceRequest { investor_id: id.clone(), invoice_id: id.clone(), ..bid() };
        let status = commands.bid_on_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["investor_id", "invoice_id"]), "{wrong:?}");
        let request =
            ApproveFinancingRequest { invoice_id: id.clone(), ..ApproveFinancingRequest::default() };
        let status = commands.approve_financing(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["invoice_id"]), "{wrong:?}");
        let request =
            ReverseFinancingRequest { invoice_id: id.clone(), ..ReverseFinancingRequest::default() };
        let status = commands.reverse_financing(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["invoice_id"]), "{wrong:?}");

        let request = GetIssuerRequest { issuer_id: id.clone(), token: token.clone() };
        let status = queries.get_issuer(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["issuer_id"]), "{wrong:?}");
        let request = GetInvestorRequest { investor_id: id.clone(), token: token.clone() };
        let status = queries.get_investor(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["investor_id"]), "{wrong:?}");
        let request = GetInvoiceRequest { invoice_id: id.clone(), token: token.clone() };
        let status = queries.get_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["invoice_id"]), "{wrong:?}");
        let request = GetBidRequest { bid_id: id.clone(), token: token.clone() };
        let status = queries.get_bid(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["bid_id"]), "{wrong:?}");
        let request = GetCommandRequest { command_id: id.clone(), token };
        let status = queries.get_command(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["command_id"]), "{wrong:?}");
        let request = WaitCommandRequest { command_id: id, wait: None };
        let status = queries.wait_command(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["command_id"]), "{wrong:?}");
    }
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn an_amount_that_is_none_is_refused_with_the_name_of_its_field() {
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    for (wrong, part) in not_amounts() {
        let request = SellInvoiceRequest { asking_price: wrong.clone(), ..sell() };
        let status = platform.commands().sell_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&[&format!("asking_price{part}")]), "{wrong:?}");
        let request = BidOnInvoiceRequest { amount: wrong.clone(), ..bid() };
        let status = platform.commands().bid_on_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&[&format!("amount{part}")]), "{wrong:?}");
        if wrong == eur(0, 0) {
            continue; // A balance may be nothing.
        }
        let event = Some(investor_registered(&uuid(), "Lender", wrong.clone()));
        let events = vec![IntegrationEvent { event, event_id: String::new() }];
        let request = PublishIntegrationEventsRequest { events };
        let status = platform.integration().publish_integration_events(request).await.unwrap_err();
        let field = format!("events[0].investor_registered.balance{part}");
        assert_eq!(violated(&status), fields(&[&field]), "{wrong:?}");
    }
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let platform = Platform::start().await;
    let wait = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let request = BidOnInvoiceRequest {
        investor_id: "x".to_owned(),
        invoice_id: String::new(),
        amount: money("EURO", 1, 0),
        request_id: "y".to_owned(),
        wait,
    };
    let status = platform.commands().bid_on_invoice(request).await.unwrap_err();
    let expected = ["investor_id", "invoice_id", "amount.currency_code", "request_id", "wait"];
    assert_eq!(violated(&status), fields(&expected));
}

#[tokio::test]
async fn a_wait_that_is_none_is_refused() {
    let platform = Platform::start().await;
    for (seconds, nanos, field) in [
        (-1, 0, "wait"),
        (0, -1, "wait"),
        (301, 0, "wait"),
        (i64::MAX, 0, "wait"),
        (1, i32::MAX, "wait.nanos"),
    ] {
        let wait = Some(prost_types::Duration { seconds, nanos });
        let request = SellInvoiceRequest { wait, ..sell() };
        let status = platform.commands().sell_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&[field]), "{wait:?}");
        let request = WaitCommandRequest { command_id: uuid(), wait };
        let status = platform.queries().wait_command(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&[field]), "{wait:?}");
    }
}

#[tokio::test]
async fn one_malformed_event_refuses_the_call_before_any_is_stored() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let registered = |name: &str| Some(issuer_registered(&uuid(), name));
    let events = [
        registered("Acme"),
        None,
        registered(""),
        registered(" "),
        registered("line\nbreak"),
        registered("nul\0"),
        registered(&"ü".repeat(256)),
        registered(&"ü".repeat(257)),
        Some(issuer_registered("x", "")),
    ];
    let event_id = |index| if index == 0 { "not an id".to_owned() } else { String::new() };
    let events =
        (0..).zip(events).map(|(index, event)| IntegrationEvent { event, event_id: event_id(index) });
    let request = PublishIntegrationEventsRequest { events: events.collect() };

    // when
    let status = platform.integration().publish_integration_events(request).await.unwrap_err();
    let none = PublishIntegrationEventsRequest { events: Vec::new() };
    let empty = platform.integration().publish_integration_events(none).await.unwrap_err();

    // then
    let expected = [
        "events[0].event_id",
        "events[1].event",
        "events[2].issuer_registered.name",
        "events[3].issuer_registered.name",
        "events[4].issuer_registered.name",
        "events[5].issuer_registered.name",
        "events[7].issuer_registered.name",
        "events[8].issuer_registered.issuer_id",
        "events[8].issuer_registered.name",
    ];
    assert_eq!(violated(&status), fields(&expected));
    assert_eq!(violated(&empty), fields(&["events"]));
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_with_the_name_of_its_field() {
    let platform = Platform::start().await;
    let mut queries = platform.queries();
    for token in ["x", "1", "1-", "-1", "16-1", "0-99999999999999999999", "0-1,", "0-1;1-1"] {
        let request = GetIssuerRequest { issuer_id: uuid(), token: token.to_owned() };
        let status = queries.get_issuer(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["token"]), "{token:?}");
    }
    let status = queries
        .list_issuers(ListIssuersRequest {
            page_size: -1,
            page_token: "x".to_owned(),
            name: "a\0b".to_owned(),
            token: "x".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(violated(&status), fields(&["page_size", "page_token", "name", "token"]));
    let request = ListInvestorsRequest { page_size: i32::MIN, ..ListInvestorsRequest::default() };
    let status = queries.list_investors(request).await.unwrap_err();
    assert_eq!(violated(&status), fields(&["page_size"]));
    let status = queries
        .list_invoices(ListInvoicesRequest {
            issuer_id: "x".to_owned(),
            investor_id: "x".to_owned(),
            status: 5,
            ..ListInvoicesRequest::default()
        })
        .await
        .unwrap_err();
    assert_eq!(violated(&status), fields(&["issuer_id", "investor_id", "status"]));
    let status = queries
        .list_bids(ListBidsRequest {
            investor_id: "x".to_owned(),
            invoice_id: "x".to_owned(),
            status: -1,
            ..ListBidsRequest::default()
        })
        .await
        .unwrap_err();
    assert_eq!(violated(&status), fields(&["investor_id", "invoice_id", "status"]));

    let after = [(16, 0), (0, u64::MAX), (1, 0), (1, 0), (u32::MAX, 1)]
        .map(|(partition, sequence)| LogPosition { partition, sequence });
    let request = WatchFactsRequest { after: after.to_vec(), ..WatchFactsRequest::default() };
    let status = queries.watch_facts(request).await.unwrap_err();
    let expected = ["after[0].partition", "after[1].sequence", "after[3].partition", "after[4].partition"];
    assert_eq!(violated(&status), fields(&expected));
}

#[tokio::test]
async fn a_request_that_is_too_large_costs_the_client_nothing_but_the_request() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let huge = "x".repeat(70_000);

    // when
    let request = SellInvoiceRequest { issuer_id: huge.clone(), ..sell() };
    let command = platform.commands().sell_invoice(request).await.unwrap_err();
    let event = Some(issuer_registered(&uuid(), &huge));
    let events = vec![IntegrationEvent { event, event_id: String::new() }];
    let request = PublishIntegrationEventsRequest { events };
    let event = platform.integration().publish_integration_events(request).await.unwrap_err();
    let request = ListIssuersRequest { name: huge, ..ListIssuersRequest::default() };
    let query = platform.queries().list_issuers(request).await.unwrap_err();

    // then
    assert_eq!([command, event, query].map(|status| status.code()), [Code::OutOfRange; 3]);
    // The same connections go on.
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_clients_mistake() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let wrong_wire_type = LogPosition { partition: 7, sequence: 7 };

    for path in ["SellInvoice", "BidOnInvoice", "ApproveFinancing", "ReverseFinancing"] {
        // when
        let mut client = tonic::client::Grpc::new(platform.command_channel());
        client.ready().await.unwrap();
        let path = format!("/financing.v1.CommandService/{path}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<LogPosition, SellInvoiceRequest>::default();
        let status = client.unary(tonic::Request::new(wrong_wire_type), path, codec).await.unwrap_err();

        // then
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn an_actor_that_is_none_is_refused() {
    let platform = Platform::start().await;
    for wrong in [String::new(), "x".repeat(257), "tab\there".to_owned()] {
        let mut request = tonic::Request::new(sell());
        request.metadata_mut().insert("actor", wrong.parse().unwrap());
        let status = platform.commands().sell_invoice(request).await.unwrap_err();
        assert_eq!(violated(&status), fields(&["metadata.actor"]), "{wrong:?}");
    }
}
