//! What is run, as the environment says it: `scripts/chaos` makes it from its flags.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::ground;
use crate::harness::Dice;
use crate::plan::Kind;

/// Faults of a run that says nothing else: each kind comes at least once.
const FAULTS: usize = 12;
/// The servers of a cluster.
const CLUSTER: usize = 3;

/// What is run.
pub(crate) struct Settings {
    /// `FINANCING_TEST_SEED`; by chance unless it is set.
    pub(crate) seed: u64,
    /// `FINANCING_CHAOS_FAULTS`.
    pub(crate) faults: usize,
    /// `FINANCING_CHAOS_KINDS`, by commas; all of them unless it is set.
    pub(crate) kinds: BTreeSet<Kind>,
    /// Three with `FINANCING_CHAOS_HA=1`, else one.
    pub(crate) nats_servers: usize,
    /// The kinds that cannot be done here, and why.
    left_out: Vec<(Kind, String)>,
}

fn of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let faults =
            of("FINANCING_CHAOS_FAULTS").map_or(FAULTS, |faults| faults.parse().expect("a number of faults"));
        let mut kinds = of("FINANCING_CHAOS_KINDS")
            .map_or_else(|| Kind::ALL.into_iter().collect(), |kinds| named(&kinds));
        let mut left_out = Vec::new();
        if kinds.contains(&Kind::DiskFull)
            && let Err(why) = ground::disks()
        {
            kinds.remove(&Kind::DiskFull);
            left_out.push((Kind::DiskFull, why));
        }
        assert!(!kinds.is_empty(), "there is no kind of fault left");
        let nats_servers = match of("FINANCING_CHAOS_HA").as_deref() {
            None | Some("0") => 1,
            Some("1") => CLUSTER,
            Some(other) => panic!("FINANCING_CHAOS_HA: 0 or 1, not {other}"),
        };
        Self { seed: Dice::seed(), faults, kinds, nats_servers, left_out }
    }

    /// An empty folder for the logs of this run, which stays.
    pub(crate) fn logs(&self) -> PathBuf {
        let servers = if self.nats_servers > 1 { "-ha" } else { "" };
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}{servers}", self.seed));
        if logs.exists() {
            std::fs::remove_dir_all(&logs).unwrap();
        }
        std::fs::create_dir_all(&logs).unwrap();
        logs
    }
}

fn named(kinds: &str) -> BTreeSet<Kind> {
    let one = |name: &str| {
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        known.unwrap_or_else(|| panic!("there is no kind of fault {name:?}"))
    };
    kinds.split(',').map(one).collect()
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        write!(
            f,
            "seed {}, {} faults ({}) over two of each component, {} and PostgreSQL",
            self.seed,
            self.faults,
            kinds.join(", "),
            if self.nats_servers == 1 { "a nats-server" } else { "three nats-servers" }
        )?;
        for (kind, why) in &self.left_out {
            write!(f, "\nLEFT OUT: {}, because nothing can be mounted here: {why}", kind.name())?;
        }
        Ok(())
    }
}
