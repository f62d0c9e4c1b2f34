//! `financing story` and `financing stuck`: what happened to one invoice, and which sagas do not go on.
//!
//! The rule this module protects: what is printed is what the query service says, in words for people or as JSON for
//! programs; and whoever asks whether something is stuck can tell by the exit code: 0 for no, 3 for yes, 1 where nobody knows.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{
    GetStoryRequest, GetStoryResponse, InvoiceStatus, ListStuckRequest, ListStuckResponse, NextStep,
    NextTurn, StoryCommand, StoryEnding, StoryRecord, StuckStep,
};

use self::draw::money;
use super::client::{ClientError, connect, timed};
use super::config::client_address;
use super::terminal::Terminal;

mod draw;

/// The exit code where something is stuck.
const STUCK: u8 = 3;

/// The largest story that is taken, in bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Where queries are answered.
#[derive(Debug, Clone, Args)]
pub struct QueryAddress {
    /// Where queries are answered: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = client_address)]
    query_addr: String,
}

/// Whose story, and how to tell it.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Tell the story of one invoice: every command that concerned it, what each brought about, what policies made of \
                  that, what was refused and why, and what comes next. Times are the day's, in UTC; beside each fact stands how \
                  long after its cause it was recorded.",
    after_help = "Examples:\n  financing story $INVOICE\n  financing story $INVOICE --json | jq -r '.sagas[].settled'"
)]
pub struct StoryArguments {
    /// The invoice
    invoice: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: QueryAddress,
}

/// What counts as stuck, and how to list it.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "List the steps of sagas that should have been taken and were not: the cause is recorded, and the command that \
                  follows from it has no outcome. The oldest come first.\n\nExits with 0 when nothing is stuck, with 3 when \
                  something is, and with 1 when the platform could not be asked.",
    after_help = "Examples:\n  financing stuck\n  financing stuck --older-than 1m --json || echo 'somebody has to look'"
)]
pub struct StuckArguments {
    /// How long ago the cause has to be recorded, as in 500ms, 10s, 5m or 2h
    #[arg(long, default_value = "10s", value_parser = duration)]
    older_than: Duration,
    /// How many are listed at most, up to 1,000
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: QueryAddress,
}

/// A duration as a person types it.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a whole number and its unit, as in 500ms, 10s, 5m or 2h".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let micros = match text.strip_prefix(digits) {
        Some("ms") => number.checked_mul(1_000),
        Some("s" | "") => number.checked_mul(1_000_000),
        Some("m") => number.checked_mul(60_000_000),
        Some("h") => number.checked_mul(3_600_000_000),
        Some(_) | None => None,
    };
    micros.map(Duration::from_micros).ok_or_else(wrong)
}

/// Tells a story.
///
/// # Errors
///
/// When there is none, or the platform cannot be reached.
pub async fn story(arguments: StoryArguments) -> Result<String, ClientError> {
    let StoryArguments { invoice, json, platform } = arguments;
    let mut client =
        QueryServiceClient::new(connect(&platform.query_addr).await?).max_decoding_message_size(MOST_BYTES);
    let request = GetStoryRequest { invoice_id: invoice, token: String::new() };
    let story = client.get_story(timed(request)).await?.into_inner();
    Ok(if json { pretty(&story_json(&story)) } else { draw::story(&story, Terminal::standard_output()) })
}

/// Lists what is stuck.
///
/// # Errors
///
/// [`ClientError::Ended`] with 3 when something is stuck, after it was printed; any other when the platform cannot be asked.
pub async fn stuck(arguments: StuckArguments) -> Result<String, ClientError> {
    let StuckArguments { older_than, limit, json, platform } = arguments;
    let mut client = QueryServiceClient::new(connect(&platform.query_addr).await?);
    let asked = prost_types::Duration::try_from(older_than)
        .map_err(|error| ClientError::Failed(format!("--older-than: {error}")))?;
    let request = ListStuckRequest { older_than: Some(asked), page_size: limit };
    let stuck = client.list_stuck(timed(request)).await?.into_inner();
    let text = if json {
        pretty(&stuck_json(&stuck))
    } else {
        draw::stuck(&stuck, older_than, Terminal::standard_output())
    };
    if stuck.steps.is_empty() {
        return Ok(text);
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| ClientError::Failed(error.to_string()))?;
    let message = match (stuck.steps.len(), stuck.more) {
        (1, false) => "a step is stuck".to_owned(),
        (steps, false) => format!("{steps} steps are stuck"),
        (steps, true) => format!("more than {steps} steps are stuck"),
    };
    Err(ClientError::Ended { message, code: STUCK })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn time(time: Option<&prost_types::Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}

fn micros(duration: Option<&prost_types::Duration>) -> Option<i64> {
    let duration = duration?;
    Some(duration.seconds.saturating_mul(1_000_000).saturating_add(i64::from(duration.nanos / 1000)))
}

/// A text, or nothing where it is empty.
fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from(text) }
}

fn status(status: InvoiceStatus) -> Option<&'static str> {
    match status {
        InvoiceStatus::Unspecified => None,
        InvoiceStatus::Available
        | InvoiceStatus::Financed
        | InvoiceStatus::Approved
        | InvoiceStatus::Reversed => Some(status.as_str_name().trim_start_matches("INVOICE_STATUS_")),
    }
}

fn ending(ending: StoryEnding) -> &'static str {
    ending.as_str_name().trim_start_matches("STORY_ENDING_")
}

fn turn(turn: NextTurn) -> &'static str {
    turn.as_str_name().trim_start_matches("NEXT_TURN_")
}

fn story_json(story: &GetStoryResponse) -> Value {
    let saga = |saga: &crate::api::proto::financing::v1::Saga| {
        json!({
            "correlation_id": saga.correlation_id,
            "began_at": time(saga.began_at.as_ref()),
            "took_micros": micros(saga.took.as_ref()),
            "settled": saga.settled,
            "commands": saga.commands.iter().map(command_json).collect::<Vec<_>>(),
        })
    };
    let next = |next: &NextStep| {
        json!({
            "turn": turn(next.turn()),
            "sentence": next.sentence,
            "since": time(next.since.as_ref()),
        })
    };
    json!({
        "invoice_id": story.invoice_id,
        "status": status(story.status()),
        "sagas": story.sagas.iter().map(saga).collect::<Vec<_>>(),
        "next": story.next.iter().map(next).collect::<Vec<_>>(),
        "truncated": story.truncated,
    })
}

fn command_json(command: &StoryCommand) -> Value {
    json!({
        "id": command.id,
        "method": text(&command.method),
        "target_type": command.target_type,
        "target_id": command.target_id,
        "actor": command.actor,
        "policy": text(&command.policy),
        "correlation_id": command.correlation_id,
        "causation_id": command.causation_id,
        "accepted_at": time(command.accepted_at.as_ref()),
        "ending": ending(command.ending()),
        "expected_since": time(command.expected_since.as_ref()),
        "reason": text(&command.reason),
        "message": text(&command.message),
        "records": command.records.iter().map(record_json).collect::<Vec<_>>(),
    })
}

fn record_json(record: &StoryRecord) -> Value {
    json!({
        "position": record.position,
        "record_id": record.record_id,
        "event": record.event,
        "time": time(record.time.as_ref()),
        "latency_micros": micros(record.latency.as_ref()),
        "amount": record.amount.as_ref().map(money),
        "detail": text(&record.detail),
        // As it is where it can be read: a program should not have to read JSON inside of JSON.
        "data": serde_json::from_str(&record.data).unwrap_or(Value::Null),
    })
}

fn stuck_json(stuck: &ListStuckResponse) -> Value {
    let step = |step: &StuckStep| {
        json!({
            "command_id": step.command_id,
            "method": step.method,
            "target_type": step.target_type,
            "target_id": step.target_id,
            "policy": step.policy,
            "invoice_id": text(&step.invoice_id),
            "correlation_id": step.correlation_id,
            "since": time(step.since.as_ref()),
            "age_micros": micros(step.age.as_ref()),
            "cause_position": step.cause_position,
            "cause_event": step.cause_event,
            "cause_record_id": step.cause_record_id,
            "unreadable": text(&step.unreadable),
        })
    };
    json!({ "steps": stuck.steps.iter().map(step).collect::<Vec<_>>(), "more": stuck.more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_its_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for wrong in ["", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
