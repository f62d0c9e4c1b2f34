//! Runs the simulator from a command line.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;
use simulator::Breach;
use simulator::campaign::{Campaign, campaign};
use simulator::plan::Plan;
use simulator::run::run;
use simulator::shrink::shrink;
use simulator::tally::Counted;

/// The whole platform on one thread under one seed, with everything failing that can fail.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// One seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print the run of that seed as a story.
    #[arg(long, requires = "seed")]
    story: bool,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// On so many threads; without it, on as many as there are cores.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Plant this bug.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Plant every bug, one at a time, and print which check finds it, and after how many seeds.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    {
        if arguments.table {
            print!("{}", simulator::mutants::table(arguments.seeds));
            return ExitCode::SUCCESS;
        }
        if let Some(name) = &arguments.bug
            && eventsourcing::mutants::Mutant::named(name).is_none()
        {
            eprintln!("there is no bug {name}");
            return ExitCode::from(64);
        }
    }
    plant(&arguments);
    match arguments.seed {
        Some(seed) => one(seed, arguments.story),
        None => many(&arguments),
    }
}

/// On each thread that runs seeds.
#[cfg(feature = "mutants")]
fn plant(arguments: &Arguments) {
    let mutant = arguments.bug.as_deref().and_then(eventsourcing::mutants::Mutant::named);
    eventsourcing::mutants::plant(mutant);
}

#[cfg(not(feature = "mutants"))]
fn plant(_arguments: &Arguments) {}

fn one(seed: u64, story: bool) -> ExitCode {
    let run = run(&Plan::draw(seed), story);
    run.story.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} steps, trace {:016x}", run.steps, run.trace);
    match run.breach {
        None => ExitCode::SUCCESS,
        Some(breach) => failed(seed, &breach),
    }
}

fn failed(seed: u64, breach: &Breach) -> ExitCode {
    println!("seed {seed} FAILS: {breach}");
    if let Some((plan, _)) = shrink(&Plan::draw(seed)) {
        println!("with {} acts and {} mishaps of it left:", plan.acts.len(), plan.mishaps.len());
        plan.mishaps.iter().for_each(|mishap| println!("      mishap {}: {:?}", mishap.number, mishap.kind));
        run(&plan, true).story.iter().for_each(|line| println!("{line}"));
    }
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "how long the simulator takes is no part of any run")]
fn many(arguments: &Arguments) -> ExitCode {
    let threads = arguments.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let began = std::time::Instant::now();
    let found = campaign(arguments.from, arguments.seeds, threads, || plant(arguments));
    report(&found, began.elapsed(), threads);
    match found.failure {
        None => ExitCode::SUCCESS,
        Some((seed, breach)) => failed(seed, &breach),
    }
}

fn report(found: &Campaign, took: std::time::Duration, threads: usize) {
    let per_run = |count: u64| {
        let tenths = count * 10 / found.runs.max(1);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    for what in Counted::ALL {
        let count = found.tally.of(*what);
        println!("{count:>12}  {:>7} a run  {}", per_run(count), what.name());
    }
    println!("{:>12}  {:>7} a run  steps", found.steps, per_run(found.steps));
    println!("{:>12}  {:>7} a run  faults in all", found.tally.faults(), per_run(found.tally.faults()));
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let per_thread = found.runs * 60_000 / millis / u64::try_from(threads).unwrap_or(1);
    println!(
        "{} seeds in {}.{:03} s on {threads} threads: {per_thread} seeds a minute and thread; trace {:016x}",
        found.runs,
        millis / 1_000,
        millis % 1_000,
        found.trace
    );
}
