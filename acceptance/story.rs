//! The story of one invoice, and what is stuck.

use std::process::Output;

use domain::currency::Currency;
use domain::events::Event;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{BidOnInvoicePlaced, InvestorCreated, InvestorEvent, InvestorFundsAdded};
use domain::invoice::{InvoiceCreated, InvoiceEvent};
use domain::money::Amount;
use domain::name::Name;
use tokio::process::Command;
use tonic::Code;
use uuid::Uuid;

use crate::harness::proto::{
    CommandState, GetCommandRequest, GetStoryRequest, GetStoryResponse, InvoiceStatus, ListStuckRequest,
    NextStep, NextTurn, StoryEnding,
};
use crate::harness::{Platform, QuerySide, eur, in_time, reason, uuid};

/// The story, as soon as every saga in it has settled.
async fn settled(platform: &Platform, invoice_id: &str, token: &str) -> GetStoryResponse {
    let told = async {
        loop {
            let request = GetStoryRequest { invoice_id: invoice_id.to_owned(), token: token.to_owned() };
            let story = platform.queries().get_story(request).await.unwrap().into_inner();
            if story.sagas.iter().all(|saga| saga.settled) {
                return story;
            }
        }
    };
    in_time("every saga settles", told).await
}

/// Each saga as the names of its commands, and of what they brought about.
fn told(story: &GetStoryResponse) -> Vec<Vec<(&str, &str)>> {
    story
        .sagas
        .iter()
        .map(|saga| {
            saga.commands
                .iter()
                .map(|command| {
                    let event = command.records.first().map_or("", |record| record.event.as_str());
                    (command.method.as_str(), event)
                })
                .collect()
        })
        .collect()
}

#[tokio::test]
async fn a_whole_financing_is_told_from_cause_to_effect() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investors = platform.investors(2, eur(100, 0)).await;
    let invoice = platform.sell(&issuer, eur(50, 0)).await;
    let wins = platform.bid(&investors[0], &invoice.id, eur(60, 0)).await.unwrap();
    settled(&platform, &invoice.id, &wins.token).await;
    let loses = platform.bid(&investors[1], &invoice.id, eur(70, 0)).await.unwrap();
    let refused = platform.bid(&investors[1], &invoice.id, eur(600, 0)).await.unwrap_err();
    assert_eq!(reason(&refused), "INSUFFICIENT_FUNDS");
    settled(&platform, &invoice.id, &loses.token).await;

    // when
    let approved = platform.approve(&invoice.id).await.unwrap();

    // then
    let story = settled(&platform, &invoice.id, &approved.token).await;
    let expected = [
        vec![("SellInvoice", "InvoiceCreated")],
        vec![
            ("BidOnInvoice", "BidOnInvoicePlaced"),
            ("ProcessBid", "InvoiceFinanced"),
            ("ReleaseFunds", "InvestorFundsReleased"),
        ],
        vec![
            ("BidOnInvoice", "BidOnInvoicePlaced"),
            ("ProcessBid", "BidOnInvoiceRejected"),
            ("ReleaseFunds", "InvestorFundsReleased"),
        ],
        vec![("BidOnInvoice", "CommandRefused")],
        vec![("ApproveFinancing", "InvoiceApproved"), ("CommitFunds", "InvestorFundsCommitted")],
    ];
    assert_eq!(told(&story), expected);
    assert_eq!((story.status(), story.truncated), (InvoiceStatus::Approved, false));
    assert_eq!(story.next.iter().map(NextStep::turn).collect::<Vec<_>>(), [NextTurn::Nobody]);
    let firsts = [&invoice, &wins, &loses].map(|accepted| accepted.command_id.clone());
    for (saga, first) in story.sagas.iter().zip(firsts) {
        assert_eq!((&saga.correlation_id, &saga.commands[0].id), (&first, &first));
    }
    for saga in &story.sagas {
        let mut cause = &saga.commands[0].id;
        for command in &saga.commands {
            assert_eq!((&command.causation_id, &command.correlation_id), (cause, &saga.correlation_id));
            let record = &command.records[0];
            cause = &record.record_id;
            assert!(record.latency.is_some() && record.time.is_some(), "{command:?}");
        }
        assert!(saga.commands[0].accepted_at.is_some() && saga.commands[0].policy.is_empty());
        assert!(saga.commands[1..].iter().all(|step| step.actor == format!("policy:{}", step.policy)));
    }
    let lost = &story.sagas[2].commands[1].records[0];
    assert_eq!((lost.detail.as_str(), lost.amount.clone()), ("INVOICE_NOT_AVAILABLE", eur(70, 0)));
    let refused_bid = &story.sagas[3].commands[0];
    assert_eq!(refused_bid.ending(), StoryEnding::Refused);
    assert_eq!(
        (refused_bid.reason.as_str(), refused_bid.message.as_str()),
        ("INSUFFICIENT_FUNDS", refused.message())
    );
}

#[tokio::test]
async fn a_bid_on_an_invoice_that_never_was_is_told() {
    // given
    let platform = Platform::start().await;
    let investor = platform.investor(eur(100, 0)).await;
    let nowhere = uuid();
    let request = GetStoryRequest { invoice_id: nowhere.clone(), token: String::new() };
    assert_eq!(platform.queries().get_story(request).await.unwrap_err().code(), Code::NotFound);

    // when
    let bid = platform.bid(&investor, &nowhere, eur(10, 0)).await.unwrap();

    // then
    let story = settled(&platform, &nowhere, &bid.token).await;
    let expected = [
        ("BidOnInvoice", "BidOnInvoicePlaced"),
        ("ProcessBid", "CommandRefused"),
        ("ReleaseFunds", "InvestorFundsReleased"),
    ];
    assert_eq!(told(&story), [expected]);
    assert_eq!(story.status(), InvoiceStatus::Unspecified);
    assert_eq!(story.sagas[0].commands[1].reason, "INVOICE_NOT_FOUND");
}

const INVOICE: InvoiceId = InvoiceId::new(Uuid::from_u128(0xF));

/// A query side that has seen a bid; nobody runs the saga's policies.
async fn waiting() -> (QuerySide, String) {
    let mut side = QuerySide::start().await;
    let cents = |cents| Amount::from_minor(cents, Currency::EUR).unwrap();
    let (issuer_id, investor_id) =
        (IssuerId::new(Uuid::from_u128(0x15)), InvestorId::new(Uuid::from_u128(0x1)));
    let (bid_id, name) = (BidId::new(Uuid::from_u128(0xB)), Name::try_new("Ada").unwrap());
    let created = InvoiceCreated { invoice_id: INVOICE, issuer_id, asking_price: cents(5_000) };
    let placed = BidOnInvoicePlaced { investor_id, bid_id, invoice_id: INVOICE, amount: cents(6_000) };
    let events: [Event; 4] = [
        InvoiceEvent::InvoiceCreated(created).into(),
        InvestorEvent::InvestorCreated(InvestorCreated { investor_id, name, currency_code: Currency::EUR })
            .into(),
        InvestorEvent::InvestorFundsAdded(InvestorFundsAdded { investor_id, amount: cents(10_000) }).into(),
        InvestorEvent::BidOnInvoicePlaced(placed).into(),
    ];
    let token = side.given(events).await;
    (side, token)
}

#[tokio::test]
async fn a_step_that_nobody_takes_is_expected_and_listed_as_stuck() {
    // given
    let (side, token) = waiting().await;

    // when
    let request = GetStoryRequest { invoice_id: INVOICE.to_string(), token };
    let story = side.queries().get_story(request).await.unwrap().into_inner();

    // then
    let bid = story.sagas.last().unwrap();
    let step = bid.commands.last().unwrap();
    assert_eq!((step.method.as_str(), step.ending()), ("ProcessBid", StoryEnding::Expected));
    let cause = &bid.commands[0].records[0];
    assert_eq!((&step.causation_id, step.expected_since), (&cause.record_id, cause.time));
    let turns: Vec<NextTurn> = story.next.iter().map(NextStep::turn).collect();
    assert_eq!(turns, [NextTurn::Platform, NextTurn::Investor]);

    let list = async |seconds| {
        let older_than = Some(prost_types::Duration { seconds, nanos: 0 });
        side.queries().list_stuck(ListStuckRequest { older_than, page_size: 10 }).await.unwrap().into_inner()
    };
    let stuck = list(0).await;
    assert_eq!((stuck.steps.len(), stuck.more), (1, false));
    assert_eq!((&stuck.steps[0].command_id, &stuck.steps[0].cause_position), (&step.id, &cause.position));
    assert_eq!(stuck.steps[0].policy, "process-placed-bid");
    assert!(list(3600).await.steps.is_empty(), "it has not waited for an hour");
    let request = GetCommandRequest { command_id: step.id.clone(), token: String::new() };
    let command = side.queries().get_command(request).await.unwrap().into_inner().command.unwrap();
    assert_eq!(command.state(), CommandState::Pending, "a row without an outcome is no outcome");
}

async fn financing(query_address: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
    command.env_clear().env("FINANCING_QUERY_ADDR", query_address).env("COLUMNS", "80").args(arguments);
    in_time("the client ends", command.output()).await.unwrap()
}

#[tokio::test]
async fn the_shell_tells_stories_and_says_by_its_exit_code_what_is_stuck() {
    // given
    let (side, token) = waiting().await;
    let request = GetStoryRequest { invoice_id: INVOICE.to_string(), token };
    side.queries().get_story(request).await.unwrap();

    // then
    let output = financing(side.address(), &["story", &INVOICE.to_string()]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("AVAILABLE") && said.contains("└─ ProcessBid (process-placed-bid)"), "{said}");
    assert!(said.contains("expected since ") && said.contains("a bid of at least 50.00 EUR"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");

    let output = financing(side.address(), &["story", &INVOICE.to_string(), "--json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["status"], "AVAILABLE");
    let commands = json["sagas"].as_array().unwrap().last().unwrap()["commands"].as_array().unwrap();
    assert_eq!(commands[1]["ending"], "EXPECTED");
    assert_eq!(commands[0]["records"][0]["amount"], "60.00 EUR");

    let output = financing(side.address(), &["stuck", "--older-than", "0s"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.starts_with("ProcessBid of invoice ") && said.contains(&INVOICE.to_string()), "{said}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: a step is stuck\n");
    let output = financing(side.address(), &["stuck", "--older-than", "1h"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("nothing is stuck"));
    let output = financing(side.address(), &["story", &uuid()]).await;
    assert_eq!(output.status.code(), Some(1));
}
