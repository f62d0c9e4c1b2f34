//! What people see, at 80 columns and at 160.

use super::*;
use crate::api::proto::financing::v1::{InvoiceStatus, NextStep, StoryEnding};

const NOON: i64 = 1_800_014_400;

fn at(millis: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(millis % 1000).unwrap() * 1_000_000;
    prost_types::Timestamp { seconds: NOON + millis / 1000, nanos }
}

fn took(micros: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos: micros * 1000 }
}

fn eur(units: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos: 0 }
}

fn id(number: u32) -> String {
    format!("01a1ff93-0018-775f-a970-2f27{number:08}")
}

fn record(number: u32, event: &str, amount: Option<Money>, micros: i32) -> StoryRecord {
    StoryRecord {
        position: format!("7-{number}"),
        record_id: id(1000 + number),
        event: event.to_owned(),
        latency: Some(took(micros)),
        amount,
        ..StoryRecord::default()
    }
}

fn client(number: u32, method: &str, investor: bool, records: Vec<StoryRecord>) -> StoryCommand {
    let target_type = if investor { "investor" } else { "invoice" };
    StoryCommand {
        id: id(number),
        method: method.to_owned(),
        target_type: target_type.to_owned(),
        target_id: id(1),
        actor: "client".to_owned(),
        causation_id: id(number),
        accepted_at: Some(at(i64::from(number))),
        ending: StoryEnding::Applied.into(),
        records,
        ..StoryCommand::default()
    }
}

fn step(number: u32, cause: u32, method: &str, policy: &str, records: Vec<StoryRecord>) -> StoryCommand {
    StoryCommand {
        actor: format!("policy:{policy}"),
        policy: policy.to_owned(),
        causation_id: id(1000 + cause),
        accepted_at: None,
        ..client(number, method, method != "ProcessBid", records)
    }
}

fn saga(commands: Vec<StoryCommand>, settled: bool) -> Saga {
    let began_at = commands.first().and_then(|first| first.accepted_at);
    Saga { correlation_id: id(1), began_at, took: Some(took(6_800)), settled, commands }
}

/// A bid won and its excess is expected back; one lost; one was refused.
fn told() -> GetStoryResponse {
    let expected = StoryCommand {
        ending: StoryEnding::Expected.into(),
        expected_since: Some(at(2)),
        ..step(23, 22, "ReleaseFunds", "release-excess", Vec::new())
    };
    let refused = StoryCommand {
        ending: StoryEnding::Refused.into(),
        reason: "INSUFFICIENT_FUNDS".to_owned(),
        message: "600.00 EUR were requested and 50.00 EUR are available, which is a good deal less"
            .to_owned(),
        ..client(40, "BidOnInvoice", true, vec![record(40, "CommandRefused", None, 900)])
    };
    let lost = StoryRecord {
        detail: "BID_BELOW_ASKING_PRICE".to_owned(),
        ..record(31, "BidOnInvoiceRejected", Some(eur(1)), -300)
    };
    let released = StoryRecord {
        detail: "RELEASE".to_owned(),
        ..record(32, "InvestorFundsReleased", Some(eur(1)), 61_000)
    };
    let next = NextStep {
        turn: NextTurn::Platform.into(),
        sentence: "a step of the saga is expected, which the platform takes by itself".to_owned(),
        since: Some(at(2)),
    };
    GetStoryResponse {
        invoice_id: id(0),
        status: InvoiceStatus::Financed.into(),
        sagas: vec![
            saga(
                vec![client(
                    10,
                    "SellInvoice",
                    false,
                    vec![record(10, "InvoiceCreated", Some(eur(50)), 1_200)],
                )],
                true,
            ),
            saga(
                vec![
                    client(
                        20,
                        "BidOnInvoice",
                        true,
                        vec![record(20, "BidOnInvoicePlaced", Some(eur(60)), 1_250)],
                    ),
                    step(
                        21,
                        20,
                        "ProcessBid",
                        "process-placed-bid",
                        vec![record(22, "InvoiceFinanced", Some(eur(60)), 3_400)],
                    ),
                    expected,
                ],
                false,
            ),
            saga(
                vec![
                    client(
                        30,
                        "BidOnInvoice",
                        true,
                        vec![record(30, "BidOnInvoicePlaced", Some(eur(1)), 1_000)],
                    ),
                    step(31, 30, "ProcessBid", "process-placed-bid", vec![lost]),
                    step(32, 31, "ReleaseFunds", "release-rejected-bid", vec![released]),
                ],
                true,
            ),
            saga(vec![refused], true),
        ],
        next: vec![next],
        truncated: false,
    }
}

fn columns(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn at_80_columns_every_line_fits_and_ids_are_short() {
    let text = story(&told(), Terminal::new(80, false));
    assert_eq!(text, include_str!("story_80.txt"), "{text}");
    assert_eq!(columns(&text), 80);
}

#[test]
fn at_160_columns_ids_are_whole() {
    let text = story(&told(), Terminal::new(160, false));
    assert_eq!(text, include_str!("story_160.txt"), "{text}");
    assert_eq!(columns(&text), 160);
    assert!(!text.contains('…'));
    for saga in &told().sagas {
        for command in &saga.commands {
            assert!(text.contains(&command.id) && text.contains(&command.target_id));
        }
    }
}

#[test]
fn colours_change_no_word() {
    let plain = story(&told(), Terminal::new(80, false));
    let coloured = story(&told(), Terminal::new(80, true));
    assert!(coloured.contains("\u{1b}[31m"), "what was refused is red");
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, behind)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = behind.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn what_is_stuck_is_listed_whole() {
    let one = StuckStep {
        command_id: id(21),
        method: "ProcessBid".to_owned(),
        target_type: "invoice".to_owned(),
        target_id: id(0),
        policy: "process-placed-bid".to_owned(),
        invoice_id: id(0),
        correlation_id: id(20),
        since: Some(at(1)),
        age: Some(prost_types::Duration { seconds: 754, nanos: 0 }),
        cause_position: "7-20".to_owned(),
        cause_event: "BidOnInvoicePlaced".to_owned(),
        cause_record_id: id(1020),
        unreadable: String::new(),
    };
    let torn = StuckStep {
        command_id: id(22),
        since: Some(at(2)),
        age: Some(prost_types::Duration { seconds: 753, nanos: 0 }),
        unreadable: format!("commands {}: column cause_sequence is missing or wrong", id(22)),
        ..StuckStep::default()
    };
    let list = ListStuckResponse { steps: vec![one, torn], more: true };
    let text = stuck(&list, Duration::from_secs(10), Terminal::new(80, false));
    assert_eq!(text, include_str!("stuck_80.txt"), "{text}");
    assert!(columns(&text) <= 80);
    let nothing = stuck(&ListStuckResponse::default(), Duration::from_secs(10), Terminal::new(80, false));
    assert_eq!(nothing, "nothing is stuck: no step has been expected for 10 s or longer\n");
}

#[test]
fn a_time_is_told_in_the_unit_that_fits() {
    let shown = [0, 1_249, -1_249, 999_949, 1_500_000, 90_000_000, 5_400_000_000, 864_000_000_000];
    let shown = shown.map(latency);
    assert_eq!(
        shown,
        ["+0.0 ms", "+1.2 ms", "-1.2 ms", "+999.9 ms", "+1.5 s", "+1.5 min", "+1.5 h", "+10.0 d"]
    );
}
