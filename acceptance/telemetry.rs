//! What the platform tells of itself: one trace for a whole saga, metrics, and nothing about anybody.
//!
//! # Layout
//!
//! - [`collector`]: an OpenTelemetry collector in the test; [`scraped`]: metrics as Prometheus gets them

mod collector;
mod scraped;

use std::collections::{BTreeMap, BTreeSet};

use tonic::Request;

use crate::harness::proto::{ApproveFinancingRequest, BidOnInvoiceRequest, SellInvoiceRequest};
use crate::harness::{
    Home, Platform, eur, in_time, investor_registered, issuer_registered, reason, uuid, wait,
};
use collector::{Collector, Told};
use scraped::Scraped;

const METRICS: &[&str] = &["--metrics-addr", "127.0.0.1:0"];

/// A request under a trace of the client's; its span has the number.
fn traced<T>(message: T, trace: &str, span: u64, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let context = format!("00-{trace}-{span:016x}-{flags}");
    request.metadata_mut().insert("traceparent", context.parse().unwrap());
    request
}

/// A trace id that nobody else has.
fn trace() -> String {
    uuid().replace('-', "")
}

/// A platform that tells its spans to the collector.
async fn told_to(endpoint: &str, more: &[&str]) -> Platform {
    let flags = [METRICS, &["--otlp-endpoint", endpoint], more].concat();
    Platform::start_in(Home::new(), &flags).await
}

/// Sells an invoice, bids more than is asked and approves, all under one trace. Comes back when all of it is projected.
async fn saga(platform: &Platform, trace: &str, flags: &str) {
    let mut facts = platform.all_facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    let sell = SellInvoiceRequest { issuer_id, asking_price: eur(50, 0), wait: wait(), ..Default::default() };
    let sold = platform.commands().sell_invoice(traced(sell, trace, 1, flags)).await.unwrap().into_inner();
    let invoice_id = sold.invoice_id;
    let bid = BidOnInvoiceRequest {
        investor_id: investor_id.clone(),
        invoice_id: invoice_id.clone(),
        amount: eur(60, 0),
        wait: wait(),
        ..Default::default()
    };
    platform.commands().bid_on_invoice(traced(bid, trace, 2, flags)).await.unwrap();
    let released = facts.until("InvestorFundsReleased", "investor_id", &investor_id).await;
    let approve = ApproveFinancingRequest { invoice_id, wait: wait(), request_id: String::new() };
    platform.commands().approve_financing(traced(approve, trace, 3, flags)).await.unwrap();
    let committed = facts.until("InvestorFundsCommitted", "investor_id", &investor_id).await;
    for fact in [released, committed] {
        platform.investor_at(&investor_id, fact.token()).await;
    }
}

#[tokio::test]
async fn one_trace_holds_a_saga_from_the_clients_calls_to_the_last_projection() {
    // given
    let collector = Collector::start().await;
    let platform = told_to(&collector.endpoint, &[]).await;
    let trace = trace();

    // when
    saga(&platform, &trace, "01").await;

    // then
    let commands =
        ["SellInvoice", "BidOnInvoice", "ProcessBid", "ReleaseFunds", "ApproveFinancing", "CommitFunds"];
    let events = [
        "InvoiceCreated",
        "BidOnInvoicePlaced",
        "InvoiceFinanced",
        "InvestorFundsReleased",
        "InvoiceApproved",
        "InvestorFundsCommitted",
    ];
    let mut expected: BTreeSet<String> =
        ["SellInvoice", "BidOnInvoice", "ApproveFinancing"].map(ToOwned::to_owned).into();
    expected.extend(commands.map(|command| format!("decide {command}")));
    expected.extend(events.iter().flat_map(|event| [format!("relay {event}"), format!("project {event}")]));
    let told = collector.trace(&trace, |told| {
        let names: BTreeSet<&str> = told.values().map(|span| span.name.as_str()).collect();
        let reactions = names.iter().filter(|name| name.starts_with("react ")).count();
        reactions == 3 && expected.iter().all(|name| names.contains(name.as_str()))
    });
    let told: BTreeMap<u64, Told> = told.await;
    assert_eq!(told.len(), 3 + 6 + 6 + 6 + 3, "each once: {told:#?}");
    let parents_of_calls = [1, 2, 3];
    for span in told.values() {
        assert!(span.start <= span.end, "{span:?}");
        let is_call = parents_of_calls.contains(&span.parent);
        assert_eq!(is_call, !span.name.contains(' '), "only calls begin at the client: {span:?}");
        assert!(is_call || told.contains_key(&span.parent), "its parent is in the trace: {span:?}");
    }
    let path = |name: &str| {
        let mut at = told.values().find(|span| span.name == name);
        let mut path = Vec::new();
        while let Some(span) = at {
            path.push(span.name.split_whitespace().next().unwrap().to_owned());
            at = told.get(&span.parent);
        }
        path
    };
    assert_eq!(
        path("project InvestorFundsCommitted"),
        ["project", "decide", "react", "decide", "ApproveFinancing"]
    );
    assert_eq!(
        path("project InvestorFundsReleased"),
        ["project", "decide", "react", "decide", "react", "decide", "BidOnInvoice"]
    );
    let decided = told.values().find(|span| span.name == "decide BidOnInvoice").unwrap();
    assert_eq!(decided.attributes["financing.outcome"], "APPLIED");
    assert_eq!(decided.attributes["financing.command_id"], decided.attributes["financing.correlation_id"]);
    let expected: BTreeSet<&str> = if platform_is_distributed() {
        ["commandsd", "relayerd", "queryprojectord"].into()
    } else {
        ["financing"].into()
    };
    assert_eq!(told.values().map(|span| span.service.as_str()).collect::<BTreeSet<_>>(), expected);
}

fn platform_is_distributed() -> bool {
    std::env::var("FINANCING_TEST_TOPOLOGY").is_ok_and(|topology| topology == "distributed")
}

#[tokio::test]
async fn a_client_may_keep_its_trace_to_itself_and_one_that_has_none_gets_one() {
    // given
    let collector = Collector::start().await;
    let platform = told_to(&collector.endpoint, &[]).await;
    let (kept, not_kept) = (trace(), trace());

    // when
    saga(&platform, &not_kept, "00").await;
    saga(&platform, &kept, "01").await;
    platform.signal("-TERM").await;
    let (code, _) = platform.ended().await;

    // then what was told last is told, too, before a process ends
    assert_eq!(code, Some(0));
    let all = collector.all();
    let traces: BTreeSet<&str> = all.iter().map(|span| span.trace.as_str()).collect();
    assert!(traces.contains(kept.as_str()) && !traces.contains(not_kept.as_str()));
    assert!(all.iter().any(|span| span.trace == kept && span.name == "project InvestorFundsCommitted"));
    // Two issuers and two investors came without a trace, in a call each.
    let calls = all.iter().filter(|span| span.name == "PublishIntegrationEvents");
    let begun: BTreeSet<&str> = calls.map(|span| span.trace.as_str()).collect();
    assert_eq!(begun.len(), 4);
    for trace in begun {
        let of_it = |name: &str| all.iter().any(|span| span.trace == trace && span.name.starts_with(name));
        assert!(of_it("decide Create") && of_it("project "), "{trace}: {all:#?}");
    }
}

#[tokio::test]
async fn a_trace_that_begins_here_is_kept_as_often_as_was_asked() {
    // given
    let collector = Collector::start().await;
    let platform = told_to(&collector.endpoint, &["--trace-ratio", "0"]).await;
    let kept = trace();

    // when
    saga(&platform, &kept, "01").await;
    platform.signal("-TERM").await;
    platform.ended().await;

    // then the registrations told nothing, and the client's trace all the same
    let traces: BTreeSet<String> = collector.all().into_iter().map(|span| span.trace).collect();
    assert_eq!(traces, BTreeSet::from([kept]));
}

#[tokio::test]
async fn metrics_count_what_has_happened() {
    // given
    let mut platform = Platform::start_in(Home::new(), METRICS).await;
    let addresses = platform.says("metrics on ").await;

    // when
    saga(&platform, &trace(), "01").await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(10, 0)).await;
    let sold = platform.sell(&issuer_id, eur(5, 0)).await;
    let refused = platform.bid(&investor_id, &sold.id, eur(11, 0)).await.unwrap_err();
    assert_eq!(reason(&refused), "INSUFFICIENT_FUNDS");
    platform.outcome(&sold.command_id).await;

    // then
    // Two investors brought money along, which is a fact of its own.
    let records = Some(14.0);
    let relayed = async {
        loop {
            let scraped = Scraped::all(&addresses).await;
            // An answer does not wait for the relayer.
            if scraped.sum("financing_records_relayed_total", &[]) >= records {
                return scraped;
            }
        }
    };
    let scraped = in_time("all is relayed", relayed).await;
    for (method, state, reason, count) in [
        ("CreateIssuer", "APPLIED", "", 2),
        ("CreateInvestor", "APPLIED", "", 2),
        ("SellInvoice", "APPLIED", "", 2),
        ("BidOnInvoice", "APPLIED", "", 1),
        ("BidOnInvoice", "REFUSED", "INSUFFICIENT_FUNDS", 1),
        ("ProcessBid", "APPLIED", "", 1),
        ("ReleaseFunds", "APPLIED", "", 1),
        ("ApproveFinancing", "APPLIED", "", 1),
        ("CommitFunds", "APPLIED", "", 1),
    ] {
        let labels = [("method", method), ("state", state), ("reason", reason)];
        assert_eq!(scraped.sum("financing_outcomes_total", &labels), Some(f64::from(count)), "{labels:?}");
    }
    assert_eq!(scraped.sum("financing_outcomes_total", &[]), Some(12.0));
    assert_eq!(scraped.sum("financing_records_relayed_total", &[]), records);
    assert_eq!(scraped.sum("financing_batch_size_sum", &[("part", "relayer")]), records);
    let queued = |part| scraped.sum("financing_commands_queued_total", &[("part", part)]);
    assert_eq!((queued("listener"), queued("policies")), (Some(9.0), Some(3.0)));
    let calls = |method, code| scraped.sum("financing_calls_total", &[("method", method), ("code", code)]);
    assert_eq!(calls("BidOnInvoice", "OK"), Some(1.0));
    assert_eq!(calls("BidOnInvoice", "FAILED_PRECONDITION"), Some(1.0));
    assert!(scraped.sum("financing_call_duration_seconds_count", &[("method", "GetInvestor")]) >= Some(1.0));
    assert!(scraped.sum("financing_commit_duration_seconds_count", &[]) >= Some(1.0));
    for role in ["worker", "relayer", "policies", "projector"] {
        let owned = scraped.sum("financing_partitions_owned", &[("role", role)]);
        assert_eq!(owned, Some(16.0), "{role}");
    }
    assert!(scraped.sum("process_resident_memory_bytes", &[]) > Some(1_000_000.0));
    assert!(scraped.sum("process_cpu_seconds_total", &[]) > Some(0.0));
    assert_eq!(scraped.sum("financing_halts_total", &[]), None);
}

#[tokio::test]
async fn nothing_lags_once_all_is_settled() {
    // given
    let mut platform = Platform::start_in(Home::new(), METRICS).await;
    let addresses = platform.says("metrics on ").await;

    // when
    saga(&platform, &trace(), "01").await;

    // then
    let gauges = [
        "financing_queue_messages",
        "financing_queue_size_bytes",
        "financing_relay_lag_records",
        "financing_projection_lag_records",
        "financing_projection_lag_seconds",
        "financing_oldest_unsettled_seconds",
    ];
    let settled = async {
        loop {
            let scraped = Scraped::all(&addresses).await;
            if gauges.iter().all(|gauge| scraped.sum(gauge, &[]) == Some(0.0)) {
                return scraped;
            }
        }
    };
    let scraped = in_time("every gauge is there, and 0", settled).await;
    assert_eq!(scraped.sum("financing_failed_lookups_total", &[]), None);
}

#[tokio::test]
async fn who_asks_for_something_else_than_metrics_is_told_so() {
    let mut platform = Platform::start_in(Home::embedded(), METRICS).await;
    let address = platform.says("metrics on ").await.remove(0);
    for (request, status) in [("GET / ", "404"), ("POST /metrics ", "405"), ("HEAD /metrics ", "200")] {
        let answer = scraped::ask(&address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    let answer = scraped::ask(&address, "GET /metrics ").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn an_address_of_metrics_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = Home::embedded();
    let (code, message) = Platform::refusal_to_start(&home.data(), &["--metrics-addr", &address]).await;
    assert_eq!(code, Some(1));
    assert!(message.contains("--metrics-addr") && message.contains(&address), "{message}");
}

#[tokio::test]
async fn a_collector_that_is_down_stops_nobody() {
    // given an address at which nobody answers
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut platform = told_to(&nobody.to_string(), &[]).await;
    let addresses = platform.says("metrics on ").await;

    // when
    saga(&platform, &trace(), "01").await;
    saga(&platform, &trace(), "01").await;

    // then what is dropped is counted, and logged once by each process that has something to tell
    let dropped = async {
        loop {
            let scraped = Scraped::all(&addresses).await;
            if scraped.sum("financing_spans_dropped_total", &[("because", "not_taken")]) > Some(0.0) {
                return scraped;
            }
        }
    };
    let scraped = in_time("spans are dropped", dropped).await;
    assert_eq!(scraped.sum("financing_spans_exported_total", &[]), Some(0.0));
    saga(&platform, &trace(), "01").await;
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0));
    let told = home.logs().matches("the collector takes no spans").count();
    assert!((1..=addresses.len()).contains(&told), "{told} times");
}

#[tokio::test]
async fn nothing_about_anybody_is_told() {
    // given names and amounts that are nowhere else
    const NAMES: [&str; 2] = ["Zebulon Quillfeather", "Wilhelmina Oxbridge-Tarn"];
    const AMOUNTS: [&str; 4] = ["7319", "8461", "731900", "846100"];
    let collector = Collector::start().await;
    let mut platform = told_to(&collector.endpoint, &["--log", "trace"]).await;
    let addresses = platform.says("metrics on ").await;
    let (issuer_id, investor_id) = (uuid(), uuid());

    // when
    platform.register(issuer_registered(&issuer_id, NAMES[0])).await;
    platform.register(investor_registered(&investor_id, NAMES[1], eur(8461, 0))).await;
    let sold = platform.sell(&issuer_id, eur(7319, 0)).await;
    let bid = platform.bid(&investor_id, &sold.id, eur(7319, 0)).await.unwrap();
    platform.bid(&investor_id, &sold.id, eur(8461, 0)).await.unwrap_err();
    platform.register(issuer_registered(&issuer_id, NAMES[1])).await;
    platform.investor_at(&investor_id, &bid.token).await;
    let scraped = Scraped::all(&addresses).await;
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0));

    // then
    let (logs, spans) = (home.logs(), format!("{:?}", collector.all()));
    assert!(logs.contains("TRACE") && spans.contains("decide BidOnInvoice"), "much is told");
    for (what, told) in [("a log", &logs), ("a span", &spans), ("the metrics", scraped.text())] {
        for name in NAMES {
            let line = told.lines().find(|line| line.contains(name));
            assert_eq!(line, None, "{name} in {what}");
        }
    }
    // Ids, times and numbers of frames may hold the digits of an amount by chance: an amount is what stands alone.
    let values = collector.all().into_iter().flat_map(|span| span.attributes.into_values());
    let told: Vec<String> = values.filter(|value| AMOUNTS.contains(&value.as_str())).collect();
    assert_eq!(told, [""; 0], "amounts in spans");
}
