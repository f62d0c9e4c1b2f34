//! Rebuilds of the read models: where they run, and `financing rebuild`, which asks for one and watches it.
//!
//! The rule this module protects: a rebuild runs in the process that has the store, and as long as somebody wants it; and the
//! process gives it the time of its grace period to let go of its store.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use domain::financing::Financing;
use eventsourcing::environment::Stop;
use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::{EventBus, ReadModels};
use eventsourcing::rebuild::{Rebuild, RebuildError, RebuildProgress, Rebuilds, RunningRebuild};
use eventsourcing::shadow::Rebuildable;
use readmodel::FinancingProjection;
use serde_json::json;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::timeout;

use crate::api::proto::financing::v1::read_model_admin_service_client::ReadModelAdminServiceClient;
use crate::api::proto::financing::v1::{RebuildPhase, RebuildReadModelsRequest, RebuildReadModelsResponse};

use super::client::{ClientError, connect};
use super::config::client_address;
use super::environment::SystemEnvironment;
use super::terminal::{Terminal, Tone};

/// The rebuilds of a process.
#[derive(Clone)]
pub struct ReadModelRebuilds<B, S> {
    bus: B,
    store: S,
    partitions: PartitionCount,
    turn: Arc<Mutex<()>>,
}

impl<B: EventBus + Clone, S: ReadModels + Rebuildable + Clone> ReadModelRebuilds<B, S> {
    /// Of this store, from this bus: a handle that nobody else reads with.
    pub fn new(bus: B, store: S, partitions: PartitionCount) -> Self {
        Self { bus, store, partitions, turn: Arc::default() }
    }

    /// Completes when none is under way, or the time is up. A server that has ended has cancelled it.
    pub async fn ended(&self, grace: Duration) {
        if timeout(grace, self.turn.lock()).await.is_err() {
            tracing::warn!(
                ?grace,
                "a rebuild was cancelled and has not let go: what it built is dropped at the next start"
            );
        }
    }
}

impl<B: EventBus + Clone, S: ReadModels + Rebuildable + Clone> Rebuilds for ReadModelRebuilds<B, S> {
    fn start(&self) -> Result<RunningRebuild, RebuildError> {
        let turn = Arc::clone(&self.turn).try_lock_owned().map_err(|_| RebuildError::UnderWay)?;
        let (cancel, cancelled) = Stop::new();
        let (told, progress) = watch::channel(RebuildProgress::begin(self.partitions));
        let (ended, outcome) = oneshot::channel();
        let Self { bus, store, partitions, .. } = self.clone();
        tokio::spawn(async move {
            let rebuild: Rebuild<Financing, _, _, _, _> =
                Rebuild::new(FinancingProjection, bus, store, SystemEnvironment, partitions);
            let tell = |progress: RebuildProgress| {
                told.send_replace(progress);
            };
            tracing::info!("rebuilding the read models");
            let result = rebuild.run(tell, &cancelled).await;
            let RebuildProgress { done, elapsed, .. } = *told.borrow();
            match &result {
                Ok(()) => tracing::info!(records = done, ?elapsed, "the read models are rebuilt"),
                Err(error) => {
                    tracing::warn!(%error, records = done, ?elapsed, "the read models are not rebuilt");
                }
            }
            drop(told);
            // Whoever asked may be gone.
            let _gone = ended.send(result);
            drop(turn);
        });
        Ok(RunningRebuild { progress, outcome, cancel })
    }
}

/// How to ask for a rebuild.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Build the read models anew from the event log, beside those that are read, and put them in their place in one \
                  transaction. The platform goes on meanwhile: commands are taken, and every query sees all of the old read \
                  models or all of the new ones.\n\nShows how far it has come on standard error: a bar on a terminal, else a line \
                  now and then; with --json, a line of JSON for every step on standard output. Whoever interrupts it cancels: then \
                  the read models are as they were."
)]
pub struct RebuildArguments {
    /// The admin address of the platform, or of a queryprojectord: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_ADMIN_ADDR", default_value = "127.0.0.1:8082", value_parser = client_address)]
    admin_addr: String,
    /// Print JSON, a line for every step
    #[arg(long)]
    json: bool,
}

/// Asks for a rebuild and waits for its end.
///
/// # Errors
///
/// When it is refused, or does not come to its end.
pub async fn run(arguments: RebuildArguments) -> Result<String, ClientError> {
    let channel = connect(&arguments.admin_addr).await?;
    let mut client = ReadModelAdminServiceClient::new(channel);
    let mut steps = client.rebuild_read_models(RebuildReadModelsRequest {}).await?.into_inner();
    let mut show = Show::new(arguments.json);
    let mut last = None;
    while let Some(step) = steps.message().await.inspect_err(|_| show.clear())? {
        show.step(&step)?;
        last = Some(step);
    }
    show.clear();
    match last {
        Some(step) if step.phase() == RebuildPhase::Swapped => {
            Ok(if arguments.json { String::new() } else { summary(&step) })
        }
        Some(_) | None => Err(ClientError::Failed(
            "the platform ended the rebuild before it was done: it may have been stopped".to_owned(),
        )),
    }
}

fn summary(step: &RebuildReadModelsResponse) -> String {
    format!(
        "the read models are rebuilt: {} records of {} partitions in {}, {} a second\n",
        grouped(step.records_done),
        step.partitions,
        lasted(step.elapsed.as_ref()),
        grouped(step.records_per_second)
    )
}

/// Shows the steps.
struct Show {
    json: bool,
    terminal: Terminal,
    /// Whether a line can be drawn over.
    live: bool,
    drawn: bool,
    /// What was said last where lines stay: the phase, and tenths of the way.
    said: Option<(RebuildPhase, u64)>,
}

impl Show {
    fn new(json: bool) -> Self {
        let terminal = Terminal::standard_output();
        Self { json, terminal, live: stderr().is_terminal(), drawn: false, said: None }
    }

    fn step(&mut self, step: &RebuildReadModelsResponse) -> Result<(), ClientError> {
        let unwritable = |error: std::io::Error| ClientError::Failed(error.to_string());
        if self.json {
            let mut out = std::io::stdout();
            return writeln!(out, "{}", as_json(step)).and_then(|()| out.flush()).map_err(unwritable);
        }
        let tenth = step.records_done.saturating_mul(10).checked_div(step.records_total).unwrap_or(0);
        if self.live {
            self.drawn = true;
            let line = bar(step, self.terminal);
            // What cannot be shown on the way is no reason not to go it.
            let _unshown = write!(stderr(), "\r\u{1b}[2K{line}").and_then(|()| stderr().flush());
        } else if self.said != Some((step.phase(), tenth)) {
            self.said = Some((step.phase(), tenth));
            let _unshown = writeln!(stderr(), "{}", words(step));
        }
        Ok(())
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _unshown = write!(stderr(), "\r\u{1b}[2K").and_then(|()| stderr().flush());
        }
    }
}

const fn phase(step: RebuildPhase) -> &'static str {
    match step {
        RebuildPhase::Unspecified => "waiting",
        RebuildPhase::Building => "building",
        RebuildPhase::Indexing => "indexing",
        RebuildPhase::CatchingUp => "catching up",
        RebuildPhase::Swapped => "swapped",
    }
}

fn percent(step: &RebuildReadModelsResponse) -> u64 {
    step.records_done.saturating_mul(100).checked_div(step.records_total).unwrap_or(100).min(100)
}

fn left(step: &RebuildReadModelsResponse) -> String {
    match (&step.time_left, step.phase()) {
        (Some(left), RebuildPhase::Building) => format!(", {} left", lasted(Some(left))),
        _ => String::new(),
    }
}

fn words(step: &RebuildReadModelsResponse) -> String {
    format!(
        "{:<11} {:>3} %  {} of {} records, {} a second{}",
        phase(step.phase()),
        percent(step),
        grouped(step.records_done),
        grouped(step.records_total),
        grouped(step.records_per_second),
        left(step)
    )
}

/// `building    ━━━━━━━━━╌╌╌╌  62 %  620,000 of 1,000,000, 81,000/s, 5 s left`
fn bar(step: &RebuildReadModelsResponse, terminal: Terminal) -> String {
    let name = format!("{:<11}", phase(step.phase()));
    let rest = format!(
        "{:>3} %  {} of {}, {}/s{}",
        percent(step),
        grouped(step.records_done),
        grouped(step.records_total),
        grouped(step.records_per_second),
        left(step)
    );
    // A space on either side, and the last column stays free: some terminals begin another line there.
    let room = terminal.width().saturating_sub(name.len() + rest.len() + 3).min(40);
    if room < 8 {
        return format!("{name} {rest}").chars().take(terminal.width().saturating_sub(1)).collect();
    }
    let full = room * usize::try_from(percent(step)).unwrap_or(0) / 100;
    let (full, empty) = ("━".repeat(full), "╌".repeat(room - full));
    format!("{name} {}{} {rest}", terminal.paint(Tone::Good, &full), terminal.paint(Tone::Quiet, &empty))
}

fn as_json(step: &RebuildReadModelsResponse) -> serde_json::Value {
    json!({
        "phase": step.phase().as_str_name().trim_start_matches("REBUILD_PHASE_"),
        "partitions": step.partitions,
        "records_done": step.records_done,
        "records_total": step.records_total,
        "records_per_second": step.records_per_second,
        "milliseconds_left": step.time_left.as_ref().map(milliseconds),
        "milliseconds": step.elapsed.as_ref().map(milliseconds),
    })
}

fn milliseconds(duration: &prost_types::Duration) -> u128 {
    Duration::try_from(*duration).unwrap_or_default().as_millis()
}

/// `0.4 s`, `12 s`, `3 min 5 s`.
fn lasted(duration: Option<&prost_types::Duration>) -> String {
    let milliseconds = duration.map(milliseconds).unwrap_or_default();
    let (seconds, tenths) = (milliseconds / 1000, milliseconds % 1000 / 100);
    match seconds {
        0..10 => format!("{seconds}.{tenths} s"),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(done: u64, total: u64) -> RebuildReadModelsResponse {
        RebuildReadModelsResponse {
            phase: RebuildPhase::Building.into(),
            partitions: 16,
            records_done: done,
            records_total: total,
            records_per_second: 81_000,
            time_left: Some(prost_types::Duration { seconds: 4, nanos: 700_000_000 }),
            elapsed: Some(prost_types::Duration { seconds: 65, nanos: 0 }),
        }
    }

    #[test]
    fn numbers_are_grouped_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_line_says_how_far_it_is_how_fast_and_how_long_it_takes() {
        let said = words(&step(620_000, 1_000_000));
        assert_eq!(said, "building     62 %  620,000 of 1,000,000 records, 81,000 a second, 4.7 s left");
        assert_eq!(lasted(step(1, 1).elapsed.as_ref()), "1 min 5 s");
    }

    #[test]
    fn a_bar_fits_its_terminal() {
        for width in [40, 80, 100, 160] {
            let terminal = Terminal::new(width, false);
            for done in [0, 1, 500_000, 1_000_000] {
                let line = bar(&step(done, 1_000_000), terminal);
                assert!(line.chars().count() < width, "{width}: {line}");
            }
        }
        assert!(bar(&step(1, 2), Terminal::new(160, false)).contains("━━━╌╌╌"));
        assert!(bar(&step(1, 2), Terminal::new(80, false)).contains("━━━╌╌╌"), "and on a narrow one");
        assert!(bar(&step(0, 0), Terminal::new(160, false)).contains("100 %"), "there is nothing to do");
    }
}
