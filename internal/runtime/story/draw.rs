//! A story as a tree of characters, and a list of what is stuck.
//!
//! The rule this module protects: whatever the width, every line says what happened and when; ids are shortened where there
//! is no room, and never words.

use std::collections::HashMap;
use std::time::Duration;

use domain::refusal::CATALOGUE;

use crate::api::proto::financing::v1::{
    GetStoryResponse, ListStuckResponse, Money, NextTurn, Saga, StoryCommand, StoryRecord, StuckStep,
};
use crate::runtime::terminal::{Terminal, Tone};

use super::{micros, status};

/// From this width on there is room for whole ids.
const WIDE: usize = 156;
/// The columns of the time at the end of a line, with the space before it.
const TIME: usize = 14;
/// The columns of a whole id and of a position, with the spaces before them.
const IDS: usize = 38 + 10;
/// The most that is shown of an actor's name, in characters.
const MOST_ACTOR: usize = 24;

/// A line: pieces of text, each in its tone.
#[derive(Default)]
struct Line {
    pieces: Vec<(Option<Tone>, String)>,
}

impl Line {
    fn say(mut self, tone: Option<Tone>, text: impl Into<String>) -> Self {
        self.pieces.push((tone, text.into()));
        self
    }

    fn columns(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Fills up with spaces, so that it is as wide; at least one.
    fn fill(self, columns: usize) -> Self {
        let room = columns.saturating_sub(self.columns()).max(1);
        self.say(None, " ".repeat(room))
    }

    fn draw(&self, terminal: Terminal, text: &mut String) {
        let is_blank = |(_, piece): &&(Option<Tone>, String)| piece.trim_end().is_empty();
        let blank = self.pieces.iter().rev().take_while(is_blank).count();
        for (tone, piece) in self.pieces.iter().take(self.pieces.len().saturating_sub(blank)) {
            match tone {
                Some(tone) => text.push_str(&terminal.paint(*tone, piece)),
                None => text.push_str(piece),
            }
        }
        text.push('\n');
    }
}

/// Draws a story.
pub(super) fn story(story: &GetStoryResponse, terminal: Terminal) -> String {
    let mut text = String::new();
    let stands = status(story.status()).unwrap_or("never sold");
    Line::default()
        .say(Some(Tone::Strong), format!("invoice {}", story.invoice_id))
        .say(None, "  ")
        .say(None, stands)
        .draw(terminal, &mut text);
    let mut day = String::new();
    for saga in &story.sagas {
        text.push('\n');
        // The day once, and again when it is another.
        let began = saga.began_at.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some((date, _)) = began.split_once('T')
            && date != day
        {
            Line::default().say(Some(Tone::Quiet), format!("{date} (UTC)")).draw(terminal, &mut text);
            date.clone_into(&mut day);
        }
        Tree::of(saga, terminal).draw(saga, &mut text);
    }
    text.push('\n');
    if story.truncated {
        let more = "there is more: only the first commands are told";
        Line::default().say(Some(Tone::Pending), more).draw(terminal, &mut text);
    }
    for next in &story.next {
        let tone = match next.turn() {
            NextTurn::Operator => Some(Tone::Bad),
            NextTurn::Platform => Some(Tone::Pending),
            NextTurn::Unspecified | NextTurn::Investor | NextTurn::Issuer | NextTurn::Nobody => None,
        };
        let since = next.since.as_ref().map(|since| format!(", since {}", clock(since))).unwrap_or_default();
        wrapped("next: ", "      ", &format!("{}{since}", next.sentence), tone, terminal, &mut text);
    }
    text
}

/// A saga's commands by the record that they follow from.
struct Tree<'a> {
    followers: HashMap<&'a str, Vec<&'a StoryCommand>>,
    terminal: Terminal,
}

impl<'a> Tree<'a> {
    fn of(saga: &'a Saga, terminal: Terminal) -> Self {
        let mut followers: HashMap<&str, Vec<&StoryCommand>> = HashMap::new();
        for command in saga.commands.iter().skip(1) {
            followers.entry(&command.causation_id).or_default().push(command);
        }
        Self { followers, terminal }
    }

    fn draw(&self, saga: &'a Saga, text: &mut String) {
        let Some(first) = saga.commands.first() else { return };
        // What is still to be drawn, the next one last: a line and what is in front of it and of what is below it.
        let mut waiting = vec![(Node::Command(first), String::new(), String::new())];
        while let Some((node, before, below)) = waiting.pop() {
            node.draw(&before, &below, self.terminal, text);
            let children: Vec<Node<'a>> = match node {
                Node::Command(command) => {
                    command.records.iter().map(|record| Node::Record(record, command)).collect()
                }
                Node::Record(record, _) => {
                    let followers = self.followers.get(record.record_id.as_str());
                    followers.into_iter().flatten().copied().map(Node::Command).collect()
                }
            };
            let last = children.len().saturating_sub(1);
            for (index, child) in children.into_iter().enumerate().rev() {
                let (branch, trunk) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                waiting.push((child, format!("{below}{branch}"), format!("{below}{trunk}")));
            }
        }
        let took = micros(saga.took.as_ref()).map(latency).unwrap_or_default();
        let (tone, says) = if saga.settled {
            (Tone::Good, format!("settled after {}", took.trim_start_matches('+')))
        } else {
            (Tone::Pending, format!("not settled; the last record after {}", took.trim_start_matches('+')))
        };
        Line::default().say(Some(tone), says).draw(self.terminal, text);
    }
}

/// A line of the tree.
#[derive(Clone, Copy)]
enum Node<'a> {
    Command(&'a StoryCommand),
    /// A record, of this command.
    Record(&'a StoryRecord, &'a StoryCommand),
}

impl Node<'_> {
    fn draw(self, before: &str, below: &str, terminal: Terminal, text: &mut String) {
        let line = Line::default().say(Some(Tone::Quiet), before);
        match self {
            Self::Command(command) => {
                let line = said(line, command, terminal);
                let (id, at) = (command.id.as_str(), command_time(command));
                aligned(line, id, "", &at, terminal).draw(terminal, text);
                if let Some(since) = &command.expected_since {
                    let since = format!("expected since {}", clock(since));
                    wrapped(below, below, &since, Some(Tone::Pending), terminal, text);
                }
            }
            Self::Record(record, command) => {
                let tone = record_tone(record);
                let mut line = line.say(tone, &record.event);
                if let Some(amount) = &record.amount {
                    line = line.say(None, format!(" {}", money(amount)));
                }
                if record.event == "InvestorFundsReleased" && !record.detail.is_empty() {
                    line = line.say(None, format!(" ({})", record.detail));
                }
                let at = micros(record.latency.as_ref()).map(latency).unwrap_or_default();
                aligned(line, &record.record_id, &record.position, &at, terminal).draw(terminal, text);
                if let Some(why) = why(record, command) {
                    wrapped(below, below, &why, Some(Tone::Bad), terminal, text);
                }
            }
        }
    }
}

/// Why a bid lost, or a command came to nothing, in words and as a code.
fn why(record: &StoryRecord, command: &StoryCommand) -> Option<String> {
    if !command.reason.is_empty() {
        return Some(format!("{} ({})", command.message, command.reason));
    }
    let reason = CATALOGUE.iter().find(|reason| reason.code == record.detail)?;
    Some(format!("{} ({})", reason.meaning, reason.code))
}

/// A command in words: its name, whom it is for where that is not the invoice, and who sends it.
fn said(line: Line, command: &StoryCommand, terminal: Terminal) -> Line {
    let method = if command.method.is_empty() { "an unreadable command" } else { &command.method };
    let mut line = line.say(Some(Tone::Strong), method);
    if command.target_type == "investor" {
        line = line
            .say(None, " of ")
            .say(Some(Tone::Quiet), format!("investor {}", short(&command.target_id, terminal)));
    }
    if command.policy.is_empty() {
        let actor: String = command.actor.chars().take(MOST_ACTOR).collect();
        line.say(None, format!(" by {actor}"))
    } else {
        line.say(Some(Tone::Quiet), format!(" ({})", command.policy))
    }
}

/// When a client's command came. (A policy's comes when its cause does: the time of its record says more.)
fn command_time(command: &StoryCommand) -> String {
    if !command.policy.is_empty() {
        return String::new();
    }
    let first = command.records.first().and_then(|record| record.time.as_ref());
    command.accepted_at.as_ref().or(first).map(clock).unwrap_or_default()
}

fn record_tone(record: &StoryRecord) -> Option<Tone> {
    match record.event.as_str() {
        "InvoiceFinanced" | "InvoiceApproved" | "InvestorFundsCommitted" => Some(Tone::Good),
        "BidOnInvoiceRejected" | "InvoiceReversed" | "CommandRefused" | "CommandDead" => Some(Tone::Bad),
        _ => None,
    }
}

/// The line, the ids where there is room, and the time at the end.
fn aligned(line: Line, id: &str, position: &str, time: &str, terminal: Terminal) -> Line {
    let width = terminal.width();
    let is_wide = width >= WIDE;
    let mut line = line.fill(width.saturating_sub(TIME + if is_wide { IDS } else { 0 }));
    if is_wide {
        line = line.say(Some(Tone::Quiet), format!("  {id:36}{position:>10}"));
    }
    line.say(Some(Tone::Quiet), format!("{time:>TIME$}"))
}

/// Words, on as many lines as they need.
fn wrapped(
    first: &str,
    others: &str,
    words: &str,
    tone: Option<Tone>,
    terminal: Terminal,
    text: &mut String,
) {
    let room = terminal.width().saturating_sub(first.chars().count()).max(20);
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    for (index, words) in lines.into_iter().enumerate() {
        let before = if index == 0 { first } else { others };
        Line::default().say(Some(Tone::Quiet), before).say(tone, words).draw(terminal, text);
    }
}

/// Draws what is stuck.
pub(super) fn stuck(stuck: &ListStuckResponse, older_than: Duration, terminal: Terminal) -> String {
    if stuck.steps.is_empty() {
        let age = latency(i64::try_from(older_than.as_micros()).unwrap_or(i64::MAX));
        let age = age.trim_start_matches('+').replacen(".0 ", " ", 1);
        return format!("nothing is stuck: no step has been expected for {age} or longer\n");
    }
    let mut text = String::new();
    for step in &stuck.steps {
        one_stuck(step, terminal, &mut text);
    }
    if stuck.more {
        let more = "there are more: these are the oldest";
        Line::default().say(Some(Tone::Pending), more).draw(terminal, &mut text);
    }
    text
}

fn one_stuck(step: &StuckStep, terminal: Terminal, text: &mut String) {
    let is_readable = step.unreadable.is_empty();
    let line = if is_readable {
        Line::default()
            .say(Some(Tone::Strong), &step.method)
            .say(None, format!(" of {} ", step.target_type))
            .say(Some(Tone::Quiet), short(&step.target_id, terminal))
            .say(Some(Tone::Quiet), format!(" ({})", step.policy))
    } else {
        Line::default().say(Some(Tone::Bad), "a step that cannot be read")
    };
    let line = line.fill(terminal.width().saturating_sub(TIME + 8));
    let age = micros(step.age.as_ref()).map(latency);
    let waits = age.map(|age| format!("for {}", age.trim_start_matches('+'))).unwrap_or_default();
    line.say(Some(Tone::Pending), format!("{waits:>width$}", width = TIME + 8)).draw(terminal, text);
    let since = step.since.as_ref().map(ToString::to_string).unwrap_or_default();
    let cause =
        if is_readable { format!("{} at {}", step.cause_event, step.cause_position) } else { String::new() };
    for (name, value) in [
        ("invoice", step.invoice_id.as_str()),
        ("command", &step.command_id),
        ("saga", &step.correlation_id),
        ("cause", &cause),
        ("since", &since),
    ] {
        if !is_readable && value.is_empty() {
            continue;
        }
        Line::default().say(Some(Tone::Quiet), format!("  {name:8} ")).say(None, value).draw(terminal, text);
    }
    if !is_readable {
        wrapped("  wrong    ", "           ", &step.unreadable, None, terminal, text);
    }
}

/// An id, or its end where there is no room for all of it: what was made at one time has one beginning.
fn short(id: &str, terminal: Terminal) -> String {
    let cut = id.len().saturating_sub(8);
    match id.get(cut..) {
        Some(end) if terminal.width() < WIDE && cut > 0 => format!("…{end}"),
        Some(_) | None => id.to_owned(),
    }
}

/// The time of the day, in UTC, to the millisecond.
fn clock(time: &prost_types::Timestamp) -> String {
    let (seconds, millis) = (time.seconds.rem_euclid(86_400), time.nanos / 1_000_000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// How much later that was, in the unit that fits: one digit behind the point.
fn latency(micros: i64) -> String {
    let sign = if micros < 0 { '-' } else { '+' };
    let micros = micros.unsigned_abs();
    let tenths = |unit: u64| format!("{}.{}", micros / unit, micros % unit * 10 / unit);
    let size = match micros {
        0..1_000_000 => format!("{} ms", tenths(1_000)),
        1_000_000..60_000_000 => format!("{} s", tenths(1_000_000)),
        60_000_000..3_600_000_000 => format!("{} min", tenths(60_000_000)),
        3_600_000_000..172_800_000_000 => format!("{} h", tenths(3_600_000_000)),
        _ => format!("{} d", tenths(86_400_000_000)),
    };
    format!("{sign}{size}")
}

/// At least two digits behind the point, as many as it takes.
pub(super) fn money(money: &Money) -> String {
    let nanos = format!("{:09}", money.nanos);
    let fraction = nanos.trim_end_matches('0');
    format!("{}.{fraction:0<2} {}", money.units, money.currency_code)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
