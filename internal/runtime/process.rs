//! What every program does around its work.
//!
//! The rule this module protects: results go to standard output, everything else to standard error, and the exit code
//! says how it went.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use super::config::LogSettings;
use super::telemetry;

/// Runs a server until it ends.
pub fn run<E: Display>(log: &LogSettings, body: impl Future<Output = Result<(), E>>) -> ExitCode {
    if let Err(error) = telemetry::start(log.log_format, &log.log) {
        eprintln!("error: {error}");
        return ExitCode::from(64);
    }
    match on_runtime(body) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!("cannot start threads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a client, and prints what it comes back with.
pub fn print<E: Display>(
    body: impl Future<Output = Result<String, E>>,
    exit_code: impl Fn(&E) -> u8,
) -> ExitCode {
    match on_runtime(body) {
        Ok(Ok(text)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Ok(Err(error)) => fail(&error, exit_code(&error)),
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &impl Display, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}

fn on_runtime<T>(body: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(body))
}
