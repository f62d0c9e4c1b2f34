//! The help of the program: its commands in groups.
//!
//! The rule this module protects: every command is in the help, also one that nobody has put in a group.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Command, Subcommand as _};

use crate::runtime::terminal::Terminal;

use super::{ShellCommand, text};

/// Examples of `health`.
pub const HEALTH_EXAMPLES: &str = "Examples:\n  financing health 127.0.0.1:8080 && echo well";

/// The groups, with those that belong to each. Whoever is in none is in the last.
const GROUPS: &[(&str, &[&str])] = &[
    ("A first look", &["demo"]),
    ("Doing business", &["sell", "bid", "approve", "reverse"]),
    ("Looking", &["invoices", "investors", "issuers", "bids", "show", "command", "watch", "story", "stuck"]),
    ("The shell", &["completions"]),
    ("Running the platform", &[]),
];

/// What the description of a command stands behind.
const INDENT: usize = 16;

/// The program's help, with its commands in groups.
#[must_use]
pub fn template() -> StyledStr {
    let command = ShellCommand::augment_subcommands(Command::new("financing"));
    let groups = grouped(&command, Terminal::standard_output().width());
    StyledStr::from(format!(
        "{{about-with-newline}}\n\x1b[1m\x1b[4mUsage:\x1b[0m {{usage}}\n{groups}\n\x1b[1m\x1b[4mOptions of the platform:\x1b[0m\n\
         {{options}}{{after-help}}"
    ))
}

/// A list a group.
fn grouped(command: &Command, width: usize) -> String {
    let is_in = |names: &[&str], name: &str| names.contains(&name);
    let is_nowhere = |name: &str| !GROUPS.iter().any(|(_, names)| is_in(names, name));
    let mut text = String::new();
    for (title, names) in GROUPS {
        let of_group: Vec<&Command> = if names.is_empty() {
            command.get_subcommands().filter(|command| is_nowhere(command.get_name())).collect()
        } else {
            names.iter().filter_map(|name| command.find_subcommand(name)).collect()
        };
        // Writing to a string does not fail.
        let _written = writeln!(text, "\n\x1b[1m\x1b[4m{title}:\x1b[0m");
        for command in of_group.into_iter().filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let name = text::left(command.get_name(), INDENT - 4);
            let lines =
                wrapped(&about, width.saturating_sub(INDENT)).join(&format!("\n{}", " ".repeat(INDENT)));
            let _written = writeln!(text, "  \x1b[1m{name}\x1b[0m  {lines}");
        }
    }
    text
}

/// The words in lines of at most this many columns.
fn wrapped(words: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if text::width(line) + 1 + text::width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let command = ShellCommand::augment_subcommands(Command::new("financing"));
        let groups = grouped(&command, 80);
        for subcommand in command.get_subcommands() {
            let entry = format!("  \x1b[1m{}\x1b[0m", text::left(subcommand.get_name(), INDENT - 4));
            assert_eq!(groups.matches(&entry).count(), 1, "{}", subcommand.get_name());
        }
        for (title, names) in GROUPS {
            assert!(names.iter().all(|name| command.find_subcommand(name).is_some()), "{title}");
        }
    }

    #[test]
    fn descriptions_are_wrapped_at_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
    }

    #[test]
    fn every_command_of_a_client_has_examples() {
        let command = ShellCommand::augment_subcommands(Command::new("financing"));
        for names in GROUPS.iter().map(|(_, names)| names) {
            for name in names.iter().filter(|name| **name != "show") {
                let help = command.find_subcommand(name).and_then(Command::get_after_help);
                assert!(help.is_some_and(|help| help.to_string().contains("financing ")), "{name}");
            }
        }
    }
}
