//! Logs.
//!
//! The rule this module protects: logs go to standard error, so that what a program prints for people or scripts on
//! standard output is only that. And nothing that a client said is in them, however much is logged: a library that logs whole
//! messages is not asked to.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging. The filter is in the syntax of `tracing`'s `EnvFilter`, as in `info` or `warn,eventsourcing=debug`.
///
/// # Errors
///
/// When the filter is malformed.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    // A log that cannot be written (a full disk, a closed pipe) is lost, and nothing else is.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Forgiving)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let subscriber = builder.with_ansi(colours).with_target(false).finish();
            subscriber.with(FilterFn::new(holds_no_message)).try_init()
        }
        LogFormat::Json => builder.json().finish().with(FilterFn::new(holds_no_message)).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// Whether a line can hold none of the messages that pass: at this level, the client of NATS logs each of them whole, with
/// the names that stand in it.
fn holds_no_message(line: &Metadata<'_>) -> bool {
    !(*line.level() == Level::TRACE && line.target().starts_with("async_nats"))
}

/// Standard error, for those who have something more important to do than to be heard.
struct Forgiving;

impl std::io::Write for Forgiving {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _unheard = std::io::stderr().write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _unheard = std::io::stderr().flush();
        Ok(())
    }
}
