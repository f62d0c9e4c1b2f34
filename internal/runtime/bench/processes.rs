//! What the processes of the platform use of the machine.
//!
//! The rule this module protects: what is measured are the processes that were found, and no others; where they cannot be seen
//! (another machine, another system than Linux), nothing is made up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The microseconds of a tick of a process's CPU time: Linux tells programs in hundredths of a second, whatever it counts in.
const TICK_MICROS: u64 = 10_000;
const KIB: u64 = 1024;
/// The state of a socket that listens, in the kernel's tables.
const LISTENS: &str = "0A";

/// Where the kernel tells of processes.
pub(super) const PROC: &str = "/proc";

/// What a process, or all of the same name, used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time, in microseconds.
    pub(super) cpu_micros: u64,
    /// Resident memory, in bytes; what processes share is shared out among them.
    pub(super) resident: u64,
    /// The most that it was, in bytes.
    pub(super) peak: u64,
}

/// What one of the platform's programs used during a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProcessReport {
    pub(super) name: String,
    pub(super) processes: usize,
    /// CPU time during the run, in microseconds.
    pub(super) cpu_micros: u64,
    /// CPU time for each sale or financing, in nanoseconds.
    pub(super) cpu_nanos_each: u64,
    /// Resident memory at the end, in bytes.
    pub(super) resident_bytes: u64,
    /// The most since it started, in bytes; of one process only.
    pub(super) peak_bytes: Option<u64>,
}

/// The processes that are measured, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Processes {
    proc: PathBuf,
    by_name: BTreeMap<String, BTreeSet<u32>>,
}

impl Processes {
    /// None yet.
    pub(super) fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), by_name: BTreeMap::new() }
    }

    /// This one, unless it is known already.
    pub(super) fn add(&mut self, name: &str, pid: u32) {
        if !self.by_name.values().any(|pids| pids.contains(&pid)) {
            self.by_name.entry(name.to_owned()).or_default().insert(pid);
        }
    }

    /// Whoever listens on this port of this machine.
    pub(super) fn add_listeners(&mut self, port: u16) {
        let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(self.proc.join(table)));
        let sockets: BTreeSet<String> = tables
            .iter()
            .flatten()
            .flat_map(|table| table.lines().filter_map(|line| listener(line, port)))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        if sockets.is_empty() {
            return;
        }
        for pid in pids(&self.proc) {
            if open_files(&self.proc, pid).iter().any(|file| sockets.contains(&*file.to_string_lossy()))
                && let Ok(name) = fs::read_to_string(self.proc.join(format!("{pid}/comm")))
            {
                self.add(name.trim(), pid);
            }
        }
    }

    /// What `scripts/platform` and `scripts/services` have started in this folder.
    pub(super) fn add_services(&mut self, folder: &Path) {
        // One server of NATS, or three.
        let servers = ["nats.pid", "nats-1.pid", "nats-2.pid", "nats-3.pid"];
        let mut files: Vec<(String, PathBuf)> =
            servers.map(|file| ("nats-server".to_owned(), folder.join(file))).into();
        // PostgreSQL's data may have had to be put elsewhere.
        if let Ok(home) = fs::read_to_string(folder.join("postgres.home")) {
            for data in ["data", "standby"] {
                let file = Path::new(home.trim()).join(data).join("postmaster.pid");
                files.push(("postgres".to_owned(), file));
            }
        }
        for entry in fs::read_dir(folder.join("platform")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "pid")
                && let Some(name) = path.file_stem()
            {
                // Of `worker-2` the name is `worker`: all of a kind are counted together.
                let name = name.to_string_lossy();
                let kind = name.rsplit_once('-').map_or(&*name, |(kind, _)| kind);
                files.push((kind.to_owned(), path));
            }
        }
        for (name, file) in files {
            let pid = fs::read_to_string(file).ok();
            let pid = pid.as_deref().and_then(|text| text.split_whitespace().next()?.parse::<u32>().ok());
            if let Some(pid) = pid.filter(|pid| self.proc.join(pid.to_string()).exists()) {
                self.add(&name, pid);
            }
        }
    }

    /// The file of this name that one of them has open.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        let mut files = self.by_name.values().flatten().flat_map(|pid| open_files(&self.proc, *pid));
        files.find(|file| file.file_name().is_some_and(|found| found == name))
    }

    /// What they have used so far, with what their children have: PostgreSQL makes one for each connection.
    pub(super) fn usage(&self) -> BTreeMap<String, (usize, Usage)> {
        let parents: Vec<(u32, u32)> = pids(&self.proc)
            .into_iter()
            .filter_map(|pid| Some((pid, stat(&self.proc, pid)?.parent)))
            .collect();
        let mut usage = BTreeMap::new();
        for (name, pids) in &self.by_name {
            let children = parents.iter().filter(|(_, parent)| pids.contains(parent)).map(|(pid, _)| *pid);
            let family: BTreeSet<u32> = pids.iter().copied().chain(children).collect();
            let members: Vec<Usage> =
                family.iter().filter_map(|pid| used(&self.proc, *pid, family.len() > 1)).collect();
            let sum = members.iter().fold(Usage::default(), |sum, one| Usage {
                cpu_micros: sum.cpu_micros.saturating_add(one.cpu_micros),
                resident: sum.resident.saturating_add(one.resident),
                peak: sum.peak.saturating_add(one.peak),
            });
            usage.insert(name.clone(), (members.len(), sum));
        }
        usage
    }
}

/// What was used between two looks, for so many sales or financings.
pub(super) fn between(
    before: &BTreeMap<String, (usize, Usage)>,
    after: &BTreeMap<String, (usize, Usage)>,
    count: u64,
) -> Vec<ProcessReport> {
    let reports = after.iter().map(|(name, (processes, usage))| {
        let begun = before.get(name).map_or(0, |(_, usage)| usage.cpu_micros);
        let cpu_micros = usage.cpu_micros.saturating_sub(begun);
        ProcessReport {
            name: name.clone(),
            processes: *processes,
            cpu_micros,
            cpu_nanos_each: cpu_micros.saturating_mul(1000).checked_div(count).unwrap_or(0),
            resident_bytes: usage.resident,
            peak_bytes: (*processes == 1).then_some(usage.peak),
        }
    });
    reports.collect()
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// CPU time is its own, and that of those children that have ended.
fn stat(proc: &Path, pid: u32) -> Option<Stat> {
    parsed(&fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?)
}

fn parsed(stat: &str) -> Option<Stat> {
    // The program's name, in parentheses, may have spaces and parentheses. The state comes next.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn used(proc: &Path, pid: u32, shares: bool) -> Option<Usage> {
    let ticks = stat(proc, pid)?.ticks;
    let status = fs::read_to_string(proc.join(format!("{pid}/status"))).ok()?;
    let rollup = || fs::read_to_string(proc.join(format!("{pid}/smaps_rollup"))).ok();
    let share = if shares { rollup().and_then(|rollup| kibibytes(&rollup, "Pss:")) } else { None };
    Some(Usage {
        cpu_micros: ticks.saturating_mul(TICK_MICROS),
        resident: share.or_else(|| kibibytes(&status, "VmRSS:")).unwrap_or(0).saturating_mul(KIB),
        peak: kibibytes(&status, "VmHWM:").unwrap_or(0).saturating_mul(KIB),
    })
}

/// The number behind a name, in lines such as `VmRSS:     4 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn pids(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What a process has open; nothing of a process that we may not look into.
fn open_files(proc: &Path, pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(proc.join(format!("{pid}/fd"))).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// The inode of the socket, where this line of the kernel's table is one that listens on this port.
fn listener(line: &str, port: u16) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let listens = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTENS;
    if listens { fields.get(9).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_a_listener_or_not() {
        let line = |state: &str| {
            format!(
                "   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 21342 1 0000 100 0"
            )
        };
        assert_eq!(listener(&line("0A"), 8080), Some("21342"));
        assert_eq!(listener(&line("0A"), 8081), None);
        assert_eq!(listener(&line("01"), 8080), None, "a connection of it is not it");
        assert_eq!(listener("  sl  local_address rem_address   st", 8080), None);
    }

    #[test]
    fn cpu_time_is_read_behind_whatever_a_program_is_called() {
        let stat = parsed("42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 150 50 20 10 20 0 9 0 100").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 230));
        assert!(parsed("42 (a) S 7").is_none());
    }

    #[test]
    fn a_process_and_its_children_are_looked_up_in_a_tree_of_files() {
        let proc = tempfile::TempDir::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = proc.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let stat = |pid: u32, parent: u32, ticks: u32| {
            format!("{pid} (x) S {parent} 1 1 0 -1 0 1 2 3 4 {ticks} 0 0 0 20 0 9 0 100")
        };
        for (pid, parent, ticks) in [(10, 1, 5), (11, 10, 7), (12, 1, 1000)] {
            write(&format!("{pid}/stat"), &stat(pid, parent, ticks));
            write(&format!("{pid}/status"), "Name:\tx\nVmHWM:\t     300 kB\nVmRSS:\t     200 kB\n");
            write(&format!("{pid}/smaps_rollup"), "Rss: 200 kB\nPss:     50 kB\n");
        }
        let mut processes = Processes::new(proc.path());
        processes.add("store", 10);
        processes.add("other name", 10);
        processes.add("alone", 12);
        let usage = processes.usage();
        let store = Usage { cpu_micros: 120_000, resident: 100 * KIB, peak: 600 * KIB };
        assert_eq!(usage["store"], (2, store), "what they share is counted once");
        let alone = Usage { cpu_micros: 10_000_000, resident: 200 * KIB, peak: 300 * KIB };
        assert_eq!(usage["alone"], (1, alone));
        assert!(!usage.contains_key("other name"));

        write("11/stat", &stat(11, 10, 107));
        let reports = between(&usage, &processes.usage(), 1000);
        let store = reports.iter().find(|report| report.name == "store").unwrap();
        assert_eq!((store.cpu_micros, store.cpu_nanos_each), (1_000_000, 1_000_000));
        assert_eq!(store.peak_bytes, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_by_its_socket() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut processes = Processes::new(Path::new(PROC));
        processes.add_listeners(socket.local_addr().unwrap().port());
        let found: Vec<u32> = processes.by_name.values().flatten().copied().collect();
        assert_eq!(found, [std::process::id()]);
        assert!(
            processes.usage().values().all(|(_, usage)| usage.resident > 0 && usage.peak >= usage.resident)
        );
    }
}
