//! Dead letters as they are printed.
//!
//! The rule this module protects: what somebody else has sent is shown, and never obeyed: no control character of it reaches the
//! terminal.

use crate::api::proto::financing::v1::{
    CommandState, DeadLetter, DeadLetterKind, DeadLetterResolution, DeadLetterState,
};
use crate::runtime::terminal::{Terminal, Tone};

/// The most of a payload that is shown, in characters; `--payload` prints all of it.
const MOST_PAYLOAD: usize = 20_000;

/// The width of a label.
const LABEL: usize = 13;

fn state(letter: &DeadLetter) -> (&'static str, Tone) {
    match letter.state() {
        DeadLetterState::Open => ("OPEN", Tone::Bad),
        DeadLetterState::Retried => ("RETRIED", Tone::Good),
        DeadLetterState::Discarded => ("DISCARDED", Tone::Quiet),
        DeadLetterState::Unspecified => ("?", Tone::Pending),
    }
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// One line, without anything that a terminal would take for more than text.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// As much as fits into so many columns.
fn shortened(text: &str, columns: usize) -> String {
    let text = harmless(text);
    if text.chars().count() <= columns {
        return text;
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Words in lines of so many columns.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in harmless(text).split_whitespace() {
        let longer = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && longer > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// What it was to do, and to whom.
fn about(letter: &DeadLetter) -> String {
    let DeadLetter { method, target, place, .. } = letter;
    match letter.kind() {
        DeadLetterKind::Foreign => format!("{method}, message {place}"),
        DeadLetterKind::Command | DeadLetterKind::Unspecified => {
            match (method.is_empty(), target.starts_with("unknown/")) {
                (true, true) => "not a command".to_owned(),
                (true, false) => format!("an unknown command for {target}"),
                (false, _) => format!("{method} for {target}"),
            }
        }
    }
}

/// A list: of each letter when and why it died, and its id to paste.
pub(super) fn list(terminal: Terminal, letters: &[DeadLetter], all: bool) -> String {
    if letters.is_empty() {
        return if all { "there are no dead letters\n" } else { "there are no such dead letters\n" }
            .to_owned();
    }
    let inside = terminal.width().saturating_sub(2);
    let mut lines = Vec::new();
    for letter in letters {
        let (state, tone) = state(letter);
        let id = terminal.paint(Tone::Strong, &letter.id);
        let state = terminal.paint(tone, &format!("{state:<9}"));
        let when = terminal.paint(Tone::Quiet, &time(letter.time.as_ref()));
        let why = format!("{}: {}", letter.reason, letter.message);
        lines.push(format!("{id}  {state}  {when}"));
        lines.push(format!("  {}", shortened(&about(letter), inside)));
        lines.push(format!("  {}", shortened(&why, inside)));
    }
    let count = letters.len();
    let letters = if count == 1 { "dead letter" } else { "dead letters" };
    lines.push(format!("{count} {letters}\n"));
    lines.join("\n")
}

/// What became of a letter, in words.
fn outcome(resolution: &DeadLetterResolution) -> (String, Tone) {
    let words = |what: &str| {
        let why =
            if resolution.reason.is_empty() { String::new() } else { format!(" ({})", resolution.reason) };
        let message = &resolution.message;
        let message = if message.is_empty() { String::new() } else { format!(": {}", harmless(message)) };
        format!("{what}{message}{why}")
    };
    match resolution.state() {
        CommandState::Applied => (words("applied"), Tone::Good),
        CommandState::Unchanged => (words("nothing changed"), Tone::Good),
        CommandState::Refused => (words("refused"), Tone::Bad),
        CommandState::Dead => {
            (format!("{}, now {}", words("died again"), resolution.dead_letter_id), Tone::Bad)
        }
        CommandState::Pending | CommandState::Unspecified => {
            ("accepted, no outcome yet".to_owned(), Tone::Pending)
        }
    }
}

/// A line about a letter that was retried or discarded.
pub(super) fn resolved(
    terminal: Terminal,
    what: &str,
    id: &str,
    resolution: &DeadLetterResolution,
) -> String {
    if what == "discarded" && resolution.state() == CommandState::Dead {
        return format!("{id}  stays as it is: {}\n", terminal.paint(Tone::Bad, &dead_discard(resolution)));
    }
    let (outcome, tone) = outcome(resolution);
    // That a discard is applied is what discarded means.
    let outcome = if what == "discarded" { outcome.replacen("applied", "for good", 1) } else { outcome };
    format!("{id}  {what}, {}\n", terminal.paint(tone, &outcome))
}

/// A worker of an older release could not read what was to be done.
fn dead_discard(resolution: &DeadLetterResolution) -> String {
    let DeadLetterResolution { actor, message, reason, dead_letter_id, .. } = resolution;
    let (actor, message) = (harmless(actor), harmless(message));
    format!("its discard by {actor} died: {message} ({reason}), now {dead_letter_id}")
}

/// A line about a letter of which nobody knows what became.
pub(super) fn failed(terminal: Terminal, id: &str, message: &str) -> String {
    format!("{id}  failed: {}\n", terminal.paint(Tone::Bad, &harmless(message)))
}

/// A line about a letter that stays as it is.
pub(super) fn refused(terminal: Terminal, id: &str, reason: &str, message: &str) -> String {
    let why = format!("{} ({reason})", harmless(message));
    format!("{id}  stays as it is: {}\n", terminal.paint(Tone::Bad, &why))
}

/// A letter, whole.
pub(super) fn letter(
    terminal: Terminal,
    letter: &DeadLetter,
    history: &[DeadLetter],
    payload: &[u8],
    whole: bool,
) -> String {
    let mut text = Vec::new();
    let columns = terminal.width().saturating_sub(LABEL);
    let mut field = |label: &str, lines: Vec<String>| {
        for (index, line) in lines.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            text.push(format!("{}{line}", terminal.paint(Tone::Quiet, &format!("{label:<LABEL$}"))));
        }
    };
    let (state, tone) = state(letter);
    field("dead letter", vec![terminal.paint(Tone::Strong, &letter.id)]);
    field("state", vec![terminal.paint(tone, state)]);
    field("what", wrapped(&about(letter), columns));
    let why = format!("{}: {}", letter.reason, letter.message);
    field("why", wrapped(&why, columns));
    let place = match letter.kind() {
        DeadLetterKind::Foreign => format!("message {} of another context", letter.place),
        DeadLetterKind::Command | DeadLetterKind::Unspecified => format!("record {}", letter.place),
    };
    field("died", vec![format!("{} ({place})", time(letter.time.as_ref()))]);
    for (label, value) in [
        ("sent by", &letter.actor),
        ("command", &letter.command_id),
        ("saga", &letter.correlation_id),
        ("caused by", &letter.causation_id),
    ] {
        if !value.is_empty() {
            field(label, vec![harmless(value)]);
        }
    }
    field("history", history.iter().flat_map(|one| events(terminal, one, letter)).collect());
    text.push(terminal.paint(Tone::Quiet, "payload"));
    text.extend(lines(payload, whole).into_iter().map(|line| format!("  {line}")));
    text.push(String::new());
    text.join("\n")
}

/// What happened to a letter of the chain.
fn events(terminal: Terminal, one: &DeadLetter, shown: &DeadLetter) -> Vec<String> {
    let which = if one.id == shown.id { String::new() } else { format!(" as {}", one.id) };
    let mut events = vec![format!("{}  died ({}){which}", time(one.time.as_ref()), one.reason)];
    if let Some(resolution) = &one.resolution {
        let when = time(resolution.time.as_ref());
        let (words, tone) = match one.state() {
            DeadLetterState::Discarded if resolution.state() == CommandState::Dead => {
                (dead_discard(resolution), Tone::Bad)
            }
            DeadLetterState::Discarded => {
                let (actor, why) = (harmless(&resolution.actor), harmless(&resolution.message));
                let copy = &resolution.copy_id;
                let copy = if copy.is_empty() { String::new() } else { format!(" with its copy {copy}") };
                (format!("discarded by {actor}{copy}: {why}"), Tone::Quiet)
            }
            DeadLetterState::Open | DeadLetterState::Retried | DeadLetterState::Unspecified => {
                let (words, tone) = outcome(resolution);
                (format!("retried: {words}"), tone)
            }
        };
        events.push(format!("{when}  {}", terminal.paint(tone, &words)));
    }
    events
}

/// JSON as people read it, anything else as the text that it may be.
fn lines(payload: &[u8], whole: bool) -> Vec<String> {
    let pretty = serde_json::from_slice::<serde_json::Value>(payload)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned());
    let shown: String = pretty.chars().take(MOST_PAYLOAD).collect();
    let mut lines: Vec<String> = shown.lines().map(harmless).collect();
    if shown.len() < pretty.len() {
        lines.push(format!("… ({} bytes: --payload prints all of them)", payload.len()));
    }
    if lines.is_empty() {
        lines.push("(nothing)".to_owned());
    }
    if !whole {
        lines.push("… (shortened when it was kept)".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> DeadLetter {
        DeadLetter {
            id: "019b76da-a800-76c4-a26f-cf06fc6f9ca5".to_owned(),
            kind: DeadLetterKind::Command.into(),
            state: DeadLetterState::Open.into(),
            target: "investor/01a1fda0-5a7f-7c64-97dc-0f2b0ccbd3c1".to_owned(),
            method: "CommitFunds".to_owned(),
            reason: "UNDECODABLE".to_owned(),
            message: "expected value at line 1 column 1, and much more that nobody wants to read in a list\u{1b}[31m"
                .to_owned(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_list_fits_its_terminal_and_obeys_nobody() {
        let text = list(Terminal::new(80, false), &[one()], false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(
            text.contains("019b76da-a800-76c4-a26f-cf06fc6f9ca5  OPEN") && text.ends_with("1 dead letter\n")
        );
        let text = list(Terminal::new(160, false), &[one()], false);
        assert!(text.contains("in a list·[31m"), "all of it fits, and is harmless: {text}");
        assert_eq!(list(Terminal::new(80, false), &[], true), "there are no dead letters\n");
    }

    #[test]
    fn a_payload_is_shown_as_json_or_as_the_text_that_it_may_be() {
        assert_eq!(lines(br#"{"b":1}"#, true), ["{", "  \"b\": 1", "}"]);
        assert_eq!(lines(b"\x1b[2J\xff", true), ["·[2J\u{fffd}"]);
        assert_eq!(lines(b"", true), ["(nothing)"]);
        assert_eq!(lines(b"cut", false).len(), 2);
    }

    fn discarded(state: CommandState, copy_id: &str) -> String {
        let resolution = DeadLetterResolution {
            state: state.into(),
            actor: "ada".to_owned(),
            message: "as was said".to_owned(),
            reason: "UNDECODABLE".to_owned(),
            dead_letter_id: "another".to_owned(),
            copy_id: copy_id.to_owned(),
            ..DeadLetterResolution::default()
        };
        let line = resolved(Terminal::new(160, false), "discarded", "one", &resolution);
        let state = DeadLetterState::Discarded.into();
        let letter = DeadLetter { state, resolution: Some(resolution), ..one() };
        line + &letter_history(&letter)
    }

    fn letter_history(letter: &DeadLetter) -> String {
        events(Terminal::new(160, false), letter, letter).join("\n")
    }

    #[test]
    fn a_discard_that_died_is_not_called_one() {
        let text = discarded(CommandState::Dead, "");
        assert!(!text.contains("discarded"), "{text}");
        assert!(text.starts_with("one  stays as it is: its discard by ada died: as was said"), "{text}");
        assert!(text.ends_with("its discard by ada died: as was said (UNDECODABLE), now another"), "{text}");
    }

    #[test]
    fn a_letter_whose_copy_was_discarded_says_which() {
        assert!(discarded(CommandState::Applied, "").ends_with("discarded by ada: as was said"));
        let text = discarded(CommandState::Applied, "two");
        assert!(text.ends_with("discarded by ada with its copy two: as was said"), "{text}");
    }

    #[test]
    fn words_are_wrapped_between_them() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
    }
}
