//! `financing export` and `financing import`: a whole event log, from one platform to another.
//!
//! The rule this module protects: an export is whole or is told from one that is, and an import is whole or is not there. What is
//! in no log, a command that waits, is worked off before, or the export is refused: it is never left behind in silence.
//!
//! # Layout
//!
//! - [`export`]: from a platform that has stopped into a text
//! - `finish`: what an embedded platform has accepted is worked off first
//! - [`import`]: from a text into a place without a platform

pub mod export;
mod finish;
pub mod import;

use std::fmt::Write as _;
use std::time::Duration;

use eventsourcing::transfer::{Contents, Totals};
use indicatif::{ProgressBar, ProgressStyle};

use crate::runtime::client::ClientError;

/// The exit code of a program that was called wrongly: `EX_USAGE`.
const USAGE: u8 = 64;

/// Standard input or output, where a file may be named.
const STANDARD: &str = "-";

/// What shows how far it has come, on a terminal.
fn bar(what: &'static str, contents: &Contents) -> ProgressBar {
    let bar = ProgressBar::new(contents.records());
    let style =
        ProgressStyle::with_template("{msg}  {bar:30}  {percent} %  {human_pos} of {human_len}, {eta} left");
    // (The template is right, or there is a plain bar.)
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What was done, for people, and what more there is to say: each with a word in front.
fn summary(done: &str, contents: &Contents, totals: &Totals, more: &[(&str, String)]) -> String {
    let Totals { records, commands, sha256 } = totals;
    let deployment = &contents.deployment;
    let mut lines = vec![
        (done, format!("{records} records, {commands} commands, {} partitions", deployment.partitions)),
        ("deployment", deployment.id.to_string()),
        ("sha256", sha256.clone()),
    ];
    lines.extend_from_slice(more);
    let mut text = String::new();
    for (word, what) in lines {
        // Writing to a String does not fail.
        let _written = writeln!(text, "{word:<14}{what}");
    }
    text
}

fn wrongly(message: &str) -> ClientError {
    ClientError::Ended { message: message.to_owned(), code: USAGE }
}
