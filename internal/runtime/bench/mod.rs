//! `financing bench`: measures a running platform from outside.
//!
//! The rule this module protects: a number comes with what it is worth. Latency counts from when a call was to be made; what is
//! counted is checked against what queries say at the end; and it is said on what it ran and how durable an answer was.
//!
//! # Layout
//!
//! - `workload`: what a client does; `metronome`: when, in the open loop; `clock`: the clock of it
//! - `target`: the platform, and who of it belongs to the run; `watch`: the stream of facts that says when a financing is settled
//! - `measured`: counts and percentiles; `processes`, `machine`: what it cost, and where
//! - `books`: what must add up; `report`, `progress`: what is said

mod books;
mod clock;
mod machine;
mod measured;
mod metronome;
mod processes;
mod progress;
mod report;
mod target;
mod watch;
mod workload;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use crate::api::platform::BUILD;
use crate::api::proto::financing::v1::Topology;

use super::client::ClientError;
use super::shell::PlatformAddresses;
use super::terminal::Terminal;
use books::Books;
use clock::{Clock, micros};
use machine::{Machine, file_system, load};
use measured::{Point, Window};
use processes::{PROC, Processes, Usage, between};
use progress::Progress;
use report::{Load, PlatformReport, Report, Throughput};
use target::Target;
use workload::{Run, Workload, closed_loop, open_loop};

/// How the load generator itself is called in the report.
const GENERATOR: &str = "generator";
/// The file of the embedded platform that tells where its data directory is.
const DATA_FILE: &str = "platform.db";
/// How many investors bid where nobody says how many clients there are.
const CLIENTS: usize = 64;
/// How often it is counted at the end, and how long it waits in between: half a minute.
const COUNTS: u32 = 30;
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);

/// What to measure, and how.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Measure a running platform: how much it takes, how long that takes, and what it costs.\n\nIn the closed loop \
                  each of --clients asks for the next when it has what it asked for; with --rate calls are made at that \
                  rate whatever becomes of them, and latency counts from when a call was due. It registers issuers \
                  and investors of its own, leaves what it did in the store, and at the end checks counts and sums.\n\n\
                  Exits with 1 when they do not hold."
)]
pub struct BenchArguments {
    /// What to measure
    workload: Workload,
    /// The closed loop: how many clients [default: 64]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "rate")]
    clients: Option<u16>,
    /// The open loop: how many a second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How many connections to either side
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How long to measure, as in 500ms, 10s or 5m
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long it works before that
    #[arg(long, default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// A process to account for; otherwise those that listen on the two addresses, and those of --services
    #[arg(long, value_name = "NAME=PID", value_parser = named_process)]
    pid: Vec<(String, u32)>,
    /// The folder of scripts/services, whose processes a distributed platform is accounted for with
    #[arg(long, value_name = "DIR", default_value = ".services")]
    services: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// As in 500ms, 10s, 5m; seconds where there is no unit. Anything up to a day.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_no| "expected a number, as in 10s".to_owned())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number.into()),
        "" | "s" => Duration::from_secs(number.into()),
        "m" => Duration::from_secs(u64::from(number) * 60),
        _ => return Err("expected ms, s or m behind the number".to_owned()),
    };
    if duration > Duration::from_hours(24) { Err("at most a day".to_owned()) } else { Ok(duration) }
}

fn named_process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
    let pid = pid.parse().map_err(|_no| "expected a process's number behind the =".to_owned())?;
    Ok((name.to_owned(), pid))
}

/// Measures, and says what was measured.
///
/// # Errors
///
/// When the platform cannot be reached or does not go on, and when what it did does not add up.
pub async fn run(arguments: BenchArguments) -> Result<String, ClientError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // One thread makes all the load: it costs the machine less than several that wake each other up.
    let failed = |error: std::io::Error| ClientError::Failed(format!("cannot start a thread: {error}"));
    let thread = std::thread::Builder::new().name("generator".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed);
        // Who waits for it may have gone.
        let _gone = sender.send(runtime.and_then(|runtime| runtime.block_on(measure(&arguments))));
    });
    thread.map_err(failed)?;
    let measured =
        receiver.await.map_err(|_died| ClientError::Failed("the load generator died".to_owned()))?;
    let (text, breaches) = measured?;
    let Some(first) = breaches.first() else { return Ok(text) };
    let printed = std::io::stdout().write_all(text.as_bytes());
    let unprinted = printed.err().map(|error| format!("; standard output: {error}")).unwrap_or_default();
    Err(ClientError::Ended { message: format!("it does not add up: {first}{unprinted}"), code: 1 })
}

/// Answers with the report, and with what does not add up.
async fn measure(arguments: &BenchArguments) -> Result<(String, Vec<String>), ClientError> {
    let (progress, proc) = (Progress::new(), Path::new(PROC));
    progress.phase("registering");
    let clients = usize::from(arguments.clients.unwrap_or(0));
    let clients = if clients == 0 { CLIENTS } else { clients };
    let investors = if arguments.workload == Workload::Financing { clients } else { 0 };
    let target = Target::prepare(&arguments.platform, arguments.connections.into(), investors).await?;
    let processes = processes(arguments, &target, proc);
    let load_before = load(proc);

    let clock = Clock::start();
    let from = micros(arguments.warm_up);
    let window = Window { from, until: from.saturating_add(micros(arguments.duration)) };
    let run = Arc::new(Run::new(arguments.workload, target, clock, window));
    let loaded = make_load(arguments, &run, clients, &processes, &progress).await?;

    progress.phase("checking");
    let books = settle_books(&run, loaded.undrained).await?;
    progress.end();
    let report = report(
        arguments,
        &run,
        clients,
        Looks {
            load_average: [load_before, load(proc)],
            file_system: processes.file(DATA_FILE).and_then(|file| file_system(proc, &file)),
            loaded,
            books,
        },
    );
    let unsaid = |error: serde_json::Error| ClientError::Failed(error.to_string());
    let text = if arguments.json {
        report.json().map_err(unsaid)?
    } else {
        report.text(Terminal::standard_output())
    };
    Ok((text, report.breaches))
}

type Used = BTreeMap<String, (usize, Usage)>;

/// What was looked at around a run.
struct Looks {
    load_average: [Option<String>; 2],
    file_system: Option<String>,
    loaded: Loaded,
    books: Books,
}

/// What is known once the load was made.
struct Loaded {
    /// What the processes had used when the warm-up was over, and at the end.
    used: [Used; 2],
    /// How long queries took after the last answer, in microseconds.
    drained_micros: u64,
    /// The partitions of whose last command queries have not seen what it did.
    undrained: usize,
}

fn processes(arguments: &BenchArguments, target: &Target, proc: &Path) -> Processes {
    let mut processes = Processes::new(proc);
    processes.add(GENERATOR, std::process::id());
    for (name, pid) in &arguments.pid {
        processes.add(name, *pid);
    }
    if target.platform.topology() == Topology::Distributed {
        processes.add_services(&arguments.services);
    }
    for address in [&arguments.platform.command_addr, &arguments.platform.query_addr] {
        if let Some(port) = local_port(address) {
            processes.add_listeners(port);
        }
    }
    processes
}

/// The port of an address on this machine.
fn local_port(address: &str) -> Option<u16> {
    let (_, authority) = address.split_once("://")?;
    let (host, port) = authority.rsplit_once(':')?;
    ["127.0.0.1", "localhost", "[::1]"].contains(&host).then(|| port.parse().ok())?
}

/// Makes the load, and waits until queries have seen all of it, as long as they see more and more.
async fn make_load(
    arguments: &BenchArguments,
    run: &Arc<Run>,
    clients: usize,
    processes: &Processes,
    progress: &Progress,
) -> Result<Loaded, ClientError> {
    let begun = async {
        tokio::time::sleep(Duration::from_micros(run.window.from.saturating_sub(run.clock.micros()))).await;
        processes.usage()
    };
    let calls = async {
        match arguments.rate {
            None => closed_loop(run, clients).await,
            Some(per_second) => {
                let started = metronome::start(run.clock, per_second, 0, run.window.until);
                let (beats, thread) = started
                    .map_err(|error| ClientError::Failed(format!("cannot start a thread: {error}")))?;
                open_loop(run, beats).await;
                // It has ended, or there would be more beats.
                thread.join().map_err(|_panic| ClientError::Failed("the metronome died".to_owned()))?;
            }
        }
        Ok::<(), ClientError>(())
    };
    let following = async {
        if run.workload == Workload::Sell {
            return std::future::pending().await;
        }
        let facts = watch::open(&run.target).await;
        match facts {
            Ok(facts) => watch::tell(&run.watch, facts).await,
            Err(error) => error,
        }
    };
    let loaded = async {
        let (used_before, called) = tokio::join!(begun, calls);
        called?;
        let last_answer = run.clock.micros();
        let undrained = run.target.drained(run.last_commands()).await?;
        let drained_micros = run.clock.micros().saturating_sub(last_answer);
        Ok(Loaded { used: [used_before, processes.usage()], drained_micros, undrained })
    };
    tokio::select! {
        biased;
        loaded = loaded => loaded,
        error = following => Err(error),
        () = progress.follow(run) => Err(ClientError::Failed("nobody follows the run".to_owned())),
    }
}

/// Counts until it adds up, or for long enough that it never will: once, where queries do not get on.
async fn settle_books(run: &Arc<Run>, undrained: usize) -> Result<Books, ClientError> {
    let totals = &run.totals;
    let mut books = Books {
        sold: totals.sold.load(Ordering::Relaxed),
        uncertain: totals.uncertain.load(Ordering::Relaxed),
        settled: totals.settled.load(Ordering::Relaxed),
        unsettled: totals.unsettled.load(Ordering::Relaxed),
        abandoned: totals.abandoned.load(Ordering::Relaxed),
        wrong: totals.wrong.load(Ordering::Relaxed),
        ..Books::default()
    };
    if undrained > 0 {
        run.target.read("", &mut books).await?;
        return Ok(books);
    }
    let token = run.watch.token();
    for _ in 0..COUNTS {
        run.target.read(&token, &mut books).await?;
        if books.breaches().is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN_COUNTS).await;
    }
    Ok(books)
}

fn report(arguments: &BenchArguments, run: &Run, clients: usize, looks: Looks) -> Report {
    let Looks { load_average, file_system, loaded, books } = looks;
    let Loaded { used: [before, after], drained_micros, undrained } = loaded;
    let (measured, platform) = (run.measured(), &run.target.platform);
    let duration_micros = micros(arguments.duration);
    let accepted = Throughput::of(measured.count(Point::Accepted), duration_micros);
    let completed = match run.workload {
        // All that was accepted was projected: the check counts it.
        Workload::Sell => Throughput::of(accepted.count, duration_micros.saturating_add(drained_micros)),
        Workload::Financing => Throughput::of(measured.count(Point::Relayed), duration_micros),
    };
    Report {
        workload: run.workload,
        load: arguments.rate.map_or(Load::Closed { clients }, |per_second| Load::Open { per_second }),
        connections: arguments.connections.into(),
        warm_up_micros: run.window.from,
        duration_micros,
        generator_build: BUILD,
        machine: Machine::of(Path::new(PROC)),
        load_average,
        platform: PlatformReport {
            version: platform.version.clone(),
            build: platform.build.clone(),
            topology: topology(platform.topology()).to_owned(),
            partitions: platform.partitions,
            durability: platform.durability.clone(),
            file_system,
        },
        accepted,
        completed,
        drained_micros,
        latencies: measured.percentiles(),
        failures: measured.failures(),
        processes: between(&before, &after, completed.count),
        breaches: breaches(undrained, &books),
        books,
    }
}

/// What is wrong: the least expected first.
fn breaches(undrained: usize, books: &Books) -> Vec<String> {
    let behind = (undrained > 0).then(|| {
        format!(
            "queries do not get on: of {undrained} partitions they have not seen the last command of the run"
        )
    });
    behind.into_iter().chain(books.breaches()).collect()
}

const fn topology(topology: Topology) -> &'static str {
    match topology {
        Topology::Embedded => "embedded",
        Topology::Distributed => "distributed",
        Topology::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        for wrong in ["", "s", "1h", "-1s", "1.5s", "99999m"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_platform_whose_queries_do_not_get_on_has_a_report_that_says_so() {
        let books = Books { sold: 1, invoices: 1, ..Books::default() };
        assert_eq!(breaches(0, &books), books.breaches());
        let breaches = breaches(2, &books);
        assert!(breaches[0].contains("of 2 partitions") && breaches[1..] == books.breaches(), "{breaches:?}");
    }

    #[test]
    fn processes_are_looked_for_on_this_machine_only() {
        assert_eq!(local_port("http://127.0.0.1:8080"), Some(8080));
        assert_eq!(local_port("http://[::1]:8080"), Some(8080));
        assert_eq!(local_port("https://financing.example:8080"), None);
        assert_eq!(named_process("worker=12"), Ok(("worker".to_owned(), 12)));
        assert!(named_process("worker").is_err() && named_process("worker=x").is_err());
    }
}
