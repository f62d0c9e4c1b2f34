//! What every program does around its work.
//!
//! The rule this module protects: results go to standard output, everything else to standard error, and the exit code
//! says how it went.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use super::config::LogSettings;
use super::telemetry;

/// How many threads a process computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The one that it was born with: for a loop that does one thing after another. Whatever wakes it runs there, so nothing
    /// waits until the system has woken a second one, which at a low rate is most of what a batch takes.
    One,
    /// One for each core: for what serves many clients at a time.
    EachCore,
}

/// Runs a server until it ends.
pub fn run<E: Display>(
    log: &LogSettings,
    threads: Threads,
    body: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    if let Err(error) = telemetry::start(log.log_format, &log.log) {
        eprintln!("error: {error}");
        return ExitCode::from(64);
    }
    #[cfg(feature = "mutants")]
    if let Err(error) = plant() {
        eprintln!("error: {error}");
        return ExitCode::from(64);
    }
    match on_runtime(threads, body) {
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

/// The name of a bug to plant in the whole process: for the tests that have to show that they would find it.
#[cfg(feature = "mutants")]
const MUTANT: &str = "FINANCING_MUTANT";

#[cfg(feature = "mutants")]
fn plant() -> Result<(), String> {
    use eventsourcing::mutants::{Mutant, plant_everywhere};

    let Some(name) = std::env::var_os(MUTANT) else { return Ok(()) };
    let mutant = name.to_str().and_then(Mutant::named);
    let mutant = mutant.ok_or_else(|| format!("{MUTANT}: there is no mutant {}", name.display()))?;
    tracing::warn!(mutant = mutant.name(), "this process is broken on purpose: {}", mutant.says());
    plant_everywhere(mutant).map_err(|other| format!("{MUTANT}: {} is planted already", other.name()))
}

/// The exit code of a client that could not even begin, which may be no answer of its own: `EX_IOERR`.
const NOT_STARTED: u8 = 74;

/// Runs a client, and prints what it comes back with.
pub fn print<E: Display>(
    body: impl Future<Output = Result<String, E>>,
    exit_code: impl Fn(&E) -> u8,
) -> ExitCode {
    match on_runtime(Threads::EachCore, body) {
        Ok(Ok(text)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Ok(Err(error)) => fail(&error, exit_code(&error)),
        Err(error) => fail(&format_args!("cannot start threads: {error}"), NOT_STARTED),
    }
}

fn fail(error: &impl Display, code: u8) -> ExitCode {
    // Where nobody can be told, the exit code still says it.
    let _told = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}

/// How long threads are waited for that somebody blocks when the work is done: looking up a name may take as long as it likes.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// How many steps a lone thread takes before it looks at its sockets and timers again. A rebuild takes long steps, one after
/// the other, and by itself tokio would look after every 61st.
const STEPS_AT_A_TIME: u32 = 8;

fn on_runtime<T>(threads: Threads, body: impl Future<Output = T>) -> std::io::Result<T> {
    let mut builder = match threads {
        Threads::One => Builder::new_current_thread(),
        Threads::EachCore => Builder::new_multi_thread(),
    };
    if threads == Threads::One {
        builder.event_interval(STEPS_AT_A_TIME);
    }
    let runtime = builder.enable_all().build()?;
    let output = runtime.block_on(body);
    runtime.shutdown_timeout(LEFT_BEHIND);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::task::Poll;

    use futures_util::poll;
    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn a_process_that_is_done_does_not_wait_for_a_thread_that_is_blocked() {
        for threads in [Threads::One, Threads::EachCore] {
            let (never, blocked) = channel::<()>();
            let (ended, end) = channel();
            std::thread::spawn(move || {
                let output = on_runtime(threads, async move {
                    tokio::task::spawn_blocking(move || blocked.recv());
                    7
                });
                ended.send(output.unwrap()).unwrap();
            });
            assert_eq!(end.recv_timeout(10 * LEFT_BEHIND), Ok(7));
            drop(never);
        }
    }

    #[test]
    fn a_lone_thread_looks_at_its_sockets_while_there_is_always_something_to_do() {
        let steps = on_runtime(Threads::One, async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let busy = tokio::spawn(async move {
                let mut said = pin!(ours.readable());
                assert!(poll!(said.as_mut()).is_pending());
                theirs.try_write(b"!").unwrap();
                let mut steps = 0;
                while poll!(said.as_mut()).is_pending() {
                    steps += 1;
                    // Like the rebuild's, whose task is never out of turn.
                    let mut again = true;
                    poll_fn(|cx| {
                        cx.waker().wake_by_ref();
                        if std::mem::take(&mut again) { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                }
                steps
            });
            busy.await.unwrap()
        });
        assert!((1..=2 * STEPS_AT_A_TIME).contains(&steps.unwrap()));
    }
}
