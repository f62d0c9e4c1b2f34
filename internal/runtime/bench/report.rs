//! What is said of a run.
//!
//! The rule this module protects: the numbers come with what they are worth: on what it ran, how durable an answer was, whether
//! everything added up in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::runtime::terminal::{Terminal, Tone};

use super::books::{Books, cents};
use super::machine::Machine;
use super::measured::Percentiles;
use super::processes::ProcessReport;
use super::workload::Workload;

/// How the load was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub(super) enum Load {
    /// Each client asks for the next when it has what it asked for.
    Closed { clients: usize },
    /// So many a second, whatever becomes of them.
    Open { per_second: u32 },
}

/// What the platform says of itself, and what is seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct PlatformReport {
    pub(super) version: String,
    pub(super) build: String,
    pub(super) topology: String,
    pub(super) partitions: u32,
    pub(super) durability: String,
    /// The kind of file system of its data directory, where that can be seen.
    pub(super) file_system: Option<String>,
}

/// How often something happened within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Throughput {
    pub(super) count: u64,
    pub(super) per_second: u64,
}

impl Throughput {
    /// So many, in so many microseconds.
    pub(super) fn of(count: u64, micros: u64) -> Self {
        let per_second = u128::from(count).saturating_mul(1_000_000).checked_div(micros.into()).unwrap_or(0);
        Self { count, per_second: u64::try_from(per_second).unwrap_or(u64::MAX) }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) workload: Workload,
    #[serde(flatten)]
    pub(super) load: Load,
    pub(super) connections: usize,
    pub(super) warm_up_micros: u64,
    pub(super) duration_micros: u64,
    pub(super) generator_build: &'static str,
    pub(super) machine: Machine,
    /// The load average of the minute before the run, and of the minute that ends with it.
    pub(super) load_average: [Option<String>; 2],
    pub(super) platform: PlatformReport,
    /// Commands that were accepted.
    pub(super) accepted: Throughput,
    /// Sales or financings that came to their end. For sales that is: until all were projected, over the whole run.
    pub(super) completed: Throughput,
    /// How long after the last call queries had seen everything, in microseconds.
    pub(super) drained_micros: u64,
    pub(super) latencies: Vec<Percentiles>,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) processes: Vec<ProcessReport>,
    pub(super) books: Books,
    /// What does not add up.
    pub(super) breaches: Vec<String>,
}

/// Behind the names of the lines.
const INDENT: usize = 13;

impl Report {
    /// For programs.
    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// For people.
    pub(super) fn text(&self, terminal: Terminal) -> String {
        let mut page = Page { text: String::new(), terminal };
        self.setting(&mut page);
        self.numbers(&mut page);
        self.machine_use(&mut page);
        self.checks(&mut page);
        page.text
    }

    fn setting(&self, page: &mut Page) {
        let workload = match self.workload {
            Workload::Sell => "sell",
            Workload::Financing => "financing",
        };
        let load = match self.load {
            Load::Closed { clients } => format!("closed loop, {clients} clients"),
            Load::Open { per_second } => format!("open loop, {per_second} a second"),
        };
        let (connections, measured) = (self.connections, seconds(self.duration_micros));
        let warm_up = seconds(self.warm_up_micros);
        let how = format!("{load}, {connections} connections; {measured} s, after {warm_up} s of warm-up");
        page.line(workload, Tone::Strong, &how);

        let machine = &self.machine;
        let mut parts = vec![machine.processor.clone().unwrap_or_else(|| "a processor".to_owned())];
        parts.extend(machine.cores.map(|cores| format!("{cores} cores")));
        parts.extend(machine.memory_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000)));
        parts.push(machine.system.clone());
        if let [Some(before), Some(after)] = &self.load_average {
            parts.push(format!("load average {before} before, {after} after"));
        }
        page.line("machine", Tone::Strong, &parts.join(", "));

        let platform = &self.platform;
        let on = platform.file_system.as_ref().map(|kind| format!(", data on {kind}")).unwrap_or_default();
        let said = format!(
            "{} {}, {} build, {} partitions{on}",
            platform.topology, platform.version, platform.build, platform.partitions
        );
        page.line("platform", Tone::Strong, &said);
        page.line("durable", Tone::Strong, &platform.durability);
        for (what, build) in [("platform", &*platform.build), ("load generator", self.generator_build)] {
            if build != "release" {
                page.line(
                    "warning",
                    Tone::Bad,
                    &format!("the {what} is a {build} build: these are not its numbers"),
                );
            }
        }
    }

    fn numbers(&self, page: &mut Page) {
        page.gap();
        let rate = |throughput: Throughput, what: &str| {
            format!("{:>9}/s  {what} ({})", grouped(throughput.per_second), grouped(throughput.count))
        };
        page.line("throughput", Tone::Strong, &rate(self.accepted, "commands accepted"));
        let completed = match self.workload {
            Workload::Sell => "sales projected",
            Workload::Financing => "financings settled",
        };
        page.line("", Tone::Strong, &rate(self.completed, completed));
        page.gap();
        let heading =
            ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>9}")).concat() + "  measured";
        page.line("latency, ms", Tone::Strong, &heading);
        for point in &self.latencies {
            let Percentiles { p50_micros, p90_micros, p99_micros, p999_micros, max_micros, .. } = point;
            let numbers = [p50_micros, p90_micros, p99_micros, p999_micros, max_micros]
                .map(|micros| format!("{:>9}", millis(*micros)))
                .concat();
            page.line(point.point.name(), Tone::Quiet, &format!("{numbers}  {}", grouped(point.measured)));
        }
        for (why, count) in &self.failures {
            page.line("failed", Tone::Bad, &format!("{} {why}", grouped(*count)));
        }
    }

    fn machine_use(&self, page: &mut Page) {
        page.gap();
        let unit = self.workload.unit();
        let heading = format!("{:>14}{:>11}{:>11}{:>11}", format!("CPU/{unit}"), "CPU", "memory", "peak");
        page.line("process", Tone::Strong, &heading);
        for process in &self.processes {
            let peak = process.peak_bytes.map_or_else(|| "-".to_owned(), megabytes);
            let numbers = format!(
                "{:>11} us{:>9} s{:>11}{peak:>11}",
                tenths(process.cpu_nanos_each),
                seconds(process.cpu_micros),
                megabytes(process.resident_bytes)
            );
            let more = if process.processes > 1 {
                format!("  {} processes", process.processes)
            } else {
                String::new()
            };
            page.line(&process.name, Tone::Quiet, &format!("{numbers}{more}"));
        }
        if self.processes.len() < 2 {
            let why = "the platform's processes are not to be seen from here; name them with --pid NAME=PID";
            page.line("", Tone::Quiet, why);
        }
    }

    fn checks(&self, page: &mut Page) {
        page.gap();
        let books = &self.books;
        let late = millis(self.drained_micros);
        page.line(
            "checks",
            Tone::Strong,
            &format!(
                "{} sales accepted in all, {} invoices known to queries, {late} ms after the last answer",
                grouped(books.sold),
                grouped(books.invoices)
            ),
        );
        if self.workload == Workload::Financing {
            let settled = format!(
                "{} financings settled, {} invoices approved for {}",
                grouped(books.settled),
                grouped(books.approved),
                cents(books.owed)
            );
            page.line("", Tone::Strong, &settled);
            let sums = format!(
                "{} available + {} reserved + {} committed of {}",
                cents(books.available),
                cents(books.reserved),
                cents(books.committed),
                cents(books.funded)
            );
            page.line("", Tone::Strong, &sums);
        }
        for breach in &self.breaches {
            page.line("wrong", Tone::Bad, breach);
        }
        if self.breaches.is_empty() {
            page.line("", Tone::Good, "everything adds up");
        }
    }
}

/// Lines with a name in front.
struct Page {
    text: String,
    terminal: Terminal,
}

impl Page {
    fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A name, and what is said, over as many lines as it takes.
    fn line(&mut self, name: &str, tone: Tone, said: &str) {
        let width = self.terminal.width().saturating_sub(INDENT);
        let (mut name, mut first) = (self.terminal.paint(tone, &format!("{name:<INDENT$}")), true);
        for row in rows(said, width) {
            if !first {
                name = " ".repeat(INDENT);
            }
            first = false;
            let said = if tone == Tone::Good || tone == Tone::Bad {
                self.terminal.paint(tone, row)
            } else {
                row.to_owned()
            };
            // Writing to a String does not fail.
            let _written = writeln!(self.text, "{name}{said}");
        }
    }
}

/// A text in rows that are no wider than this, where its words allow that. Spaces in front are kept.
fn rows(text: &str, width: usize) -> Vec<&str> {
    let (mut rows, mut rest) = (Vec::new(), text);
    while rest.chars().count() > width {
        let fits = rest.char_indices().nth(width).map_or(rest.len(), |(at, _)| at);
        let indented = rest.len() - rest.trim_start().len();
        let cut = rest.get(..=fits).and_then(|head| head.rfind(' ')).filter(|cut| *cut > indented);
        let Some(cut) = cut.or_else(|| rest.get(fits..)?.find(' ').map(|more| fits + more)) else { break };
        rows.push(rest.get(..cut).unwrap_or_default().trim_end());
        rest = rest.get(cut..).unwrap_or_default().trim_start();
    }
    rows.push(rest);
    rows
}

/// As in 12,345.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as milliseconds, to the microsecond below ten.
fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{:03}", micros / 1000, micros % 1000),
        10_000..100_000 => format!("{}.{:02}", micros / 1000, micros % 1000 / 10),
        _ => format!("{}.{}", micros / 1000, micros % 1000 / 100),
    }
}

/// Nanoseconds as microseconds with one digit behind the point.
fn tenths(nanos: u64) -> String {
    format!("{}.{}", nanos / 1000, nanos % 1000 / 100)
}

/// Microseconds as seconds with one digit behind the point.
fn seconds(micros: u64) -> String {
    format!("{}.{}", micros / 1_000_000, micros % 1_000_000 / 100_000)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bench::measured::Point;

    fn report() -> Report {
        let point = |point, p50_micros| Percentiles {
            point,
            measured: 1234,
            p50_micros,
            p90_micros: 20_500,
            p99_micros: 123_456,
            p999_micros: 200_000,
            max_micros: 1_234_567,
        };
        Report {
            workload: Workload::Financing,
            load: Load::Closed { clients: 64 },
            connections: 4,
            warm_up_micros: 2_000_000,
            duration_micros: 10_000_000,
            generator_build: "release",
            machine: Machine {
                processor: Some("A Fast One".to_owned()),
                cores: Some(2),
                memory_bytes: Some(8_000_000_000),
                system: "linux 6.1".to_owned(),
            },
            load_average: [Some("0.10".to_owned()), Some("1.90".to_owned())],
            platform: PlatformReport {
                version: "0.1.0".to_owned(),
                build: "release".to_owned(),
                topology: "embedded".to_owned(),
                partitions: 16,
                durability:
                    "flushed to disk in the queue's file (WAL, synchronous=FULL) before it is answered"
                        .to_owned(),
                file_system: Some("ext4".to_owned()),
            },
            accepted: Throughput::of(45_000, 10_000_000),
            completed: Throughput::of(15_000, 10_000_000),
            drained_micros: 12_345,
            latencies: vec![point(Point::Accepted, 5_120), point(Point::Settled, 25_600)],
            failures: BTreeMap::from([("UNAVAILABLE", 3)]),
            processes: vec![ProcessReport {
                name: "financing".to_owned(),
                processes: 1,
                cpu_micros: 9_100_000,
                cpu_nanos_each: 606_660,
                resident_bytes: 120_000_000,
                peak_bytes: Some(130_000_000),
            }],
            books: Books { sold: 17_000, invoices: 17_000, ..Books::default() },
            breaches: Vec::new(),
        }
    }

    #[test]
    fn people_read_numbers_and_what_they_are_worth() {
        let text = report().text(Terminal::new(80, false));
        for said in [
            "closed loop, 64 clients, 4 connections",
            "A Fast One, 2 cores, 8000 MB",
            "synchronous=FULL",
            "4,500/s  commands accepted",
            "1,500/s  financings settled",
            "5.120    20.50    123.4    200.0   1234.5  1,234",
            "606.6 us      9.1 s     120 MB     130 MB",
            "3 UNAVAILABLE",
            "17,000 invoices",
            "everything adds up",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains("warning"), "{text}");
    }

    #[test]
    fn a_debug_build_and_what_is_wrong_are_said() {
        let mut report = report();
        report.platform.build = "debug".to_owned();
        report.breaches = vec!["a cent is missing".to_owned()];
        let text = report.text(Terminal::new(80, false));
        assert!(text.contains("the platform is a debug build"), "{text}");
        assert!(text.contains("wrong        a cent is missing") && !text.contains("adds up"), "{text}");
    }

    #[test]
    fn programs_read_one_object_with_all_of_it() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(json["workload"], "financing");
        assert_eq!((&json["loop"], &json["clients"]), (&"closed".into(), &64.into()));
        assert_eq!(json["completed"]["per_second"], 1500);
        assert_eq!(json["latencies"][1]["point"], "settled");
        assert_eq!(json["latencies"][1]["p99_micros"], 123_456);
        assert_eq!(json["processes"][0]["peak_bytes"], 130_000_000);
        assert_eq!(json["books"]["invoices"], 17_000);
        assert_eq!(json["breaches"], serde_json::json!([]));
    }

    #[test]
    fn numbers_are_written_without_a_float() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1, 9_999, 10_009, 100_100].map(millis), ["0.001", "9.999", "10.00", "100.1"]);
        assert_eq!(Throughput::of(3, 0).per_second, 0);
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(rows("one two three", 7), ["one two", "three"]);
        assert_eq!(rows("  one two", 6), ["  one", "two"]);
        assert_eq!(rows("abcdefgh i", 4), ["abcdefgh", "i"]);
    }
}
