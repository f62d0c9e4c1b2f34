//! What is done to the platform and when, from a seed.
//!
//! The rule this module protects: **a seed is a plan.** Nothing here looks at a clock, at a process or at the machine, so whoever has
//! the seed and the settings of a run has its faults, one by one.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::harness::Dice;

/// The processes of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    Listener,
    Queries,
    Worker,
    Policies,
    Relayer,
    Projector,
}

impl Component {
    pub(crate) const ALL: [Self; 6] =
        [Self::Listener, Self::Queries, Self::Worker, Self::Policies, Self::Relayer, Self::Projector];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Queries => "queries",
            Self::Worker => "worker",
            Self::Policies => "policies",
            Self::Relayer => "relayer",
            Self::Projector => "projector",
        }
    }

    /// Whether clients call it.
    pub(crate) const fn is_called(self) -> bool {
        matches!(self, Self::Listener | Self::Queries)
    }

    /// Whether it works with a database.
    pub(crate) const fn has_database(self) -> bool {
        !matches!(self, Self::Listener)
    }
}

/// Whatever runs, and can be harmed. Numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    Component(Component, usize),
    Nats(usize),
    Postgres,
}

/// From whom a connection is made, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// From a component to a server.
    Server(Component, usize, Process),
    /// From the clients to a listener or a query service.
    Clients(Component, usize),
    /// From one nats-server to another.
    Route(usize, usize),
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    Pause,
    Restart,
    Cut,
    Delay,
    HalfOpen,
    BlackHole,
    DiskFull,
    Storm,
    Rolling,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::Cut,
        Self::Delay,
        Self::HalfOpen,
        Self::BlackHole,
        Self::DiskFull,
        Self::Storm,
        Self::Rolling,
    ];

    /// As it is said on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::HalfOpen => "half-open",
            Self::BlackHole => "black-hole",
            Self::DiskFull => "disk-full",
            Self::Storm => "storm",
            Self::Rolling => "rolling",
        }
    }

    /// How often it comes in a round of faults.
    const fn weight(self) -> usize {
        match self {
            Self::Kill => 4,
            Self::Pause | Self::Restart | Self::Cut | Self::HalfOpen | Self::BlackHole => 2,
            Self::Delay | Self::DiskFull | Self::Storm | Self::Rolling => 1,
        }
    }
}

/// Which bytes do not get through a half-open link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// What the one who connected says.
    Up,
    /// What is answered.
    Down,
}

/// What becomes of the connections through which nothing got, when the link works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was held back arrives, late: as what TCP sends again.
    Late,
    /// Both ends are told that the connection is gone.
    Reset,
    /// Nobody is told, and nothing gets through any more: as behind a firewall that has forgotten them.
    Forgotten,
}

/// What many connections are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// They say nothing.
    Silent,
    /// They say what no protocol knows.
    Garbage,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// `kill -9`; it is started again at the end of the fault.
    Kill(Process),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(Process),
    /// SIGTERM, and started again as soon as it has ended.
    Restart(Process),
    /// No connection, neither old nor new.
    Cut(Link),
    /// Every byte takes so much longer.
    Delay(Link, Duration),
    /// One way is silent.
    HalfOpen(Link, Way, Ending),
    /// Both ways are silent.
    BlackHole(Link, Ending),
    /// Not a byte more can be stored.
    DiskFull(Process),
    /// So many connections at once.
    Storm(Component, usize, Crowd, usize),
    /// Every component is stopped and started again, one after the other.
    Rolling,
}

impl Harm {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Kill(_) => Kind::Kill,
            Self::Pause(_) => Kind::Pause,
            Self::Restart(_) => Kind::Restart,
            Self::Cut(_) => Kind::Cut,
            Self::Delay(..) => Kind::Delay,
            Self::HalfOpen(..) => Kind::HalfOpen,
            Self::BlackHole(..) => Kind::BlackHole,
            Self::DiskFull(_) => Kind::DiskFull,
            Self::Storm(..) => Kind::Storm,
            Self::Rolling => Kind::Rolling,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// When it begins, from the beginning of the harm.
    pub(crate) at: Duration,
    /// For how long at least.
    pub(crate) lasts: Duration,
    pub(crate) harm: Harm,
}

/// What there is to harm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage {
    /// Of each component.
    pub(crate) replicas: usize,
    pub(crate) nats_servers: usize,
}

/// The longest pause between the beginnings of two faults.
const BETWEEN: Duration = millis(2_500);
/// Connections of a storm.
const CROWD: usize = 3_000;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So many faults of these kinds: each kind once before any comes twice.
pub(crate) fn plan(seed: u64, faults: usize, kinds: &BTreeSet<Kind>, stage: Stage) -> Vec<Fault> {
    let mut dice = Dice::new(seed);
    let mut at = Duration::ZERO;
    let mut planned = Vec::new();
    let mut round: Vec<Kind> = Vec::new();
    while planned.len() < faults {
        let kind = match round.pop() {
            Some(kind) => kind,
            None if kinds.is_empty() => break,
            None => {
                let often = |kind: &Kind| if planned.is_empty() { 1 } else { kind.weight() };
                round = kinds.iter().flat_map(|kind| vec![*kind; often(kind)]).collect();
                dice.shuffle(&mut round);
                continue;
            }
        };
        at += dice.between(millis(200), BETWEEN);
        let (harm, least, most) = one(kind, stage, &mut dice);
        planned.push(Fault { at, lasts: dice.between(millis(least), millis(most)), harm });
    }
    planned
}

/// A harm, and between how many milliseconds it lasts.
fn one(kind: Kind, stage: Stage, dice: &mut Dice) -> (Harm, u64, u64) {
    match kind {
        Kind::Kill => (Harm::Kill(stage.process(dice)), 0, 3_000),
        Kind::Pause => (Harm::Pause(stage.process(dice)), 50, 6_000),
        Kind::Restart => (Harm::Restart(stage.process(dice)), 0, 0),
        Kind::Cut => (Harm::Cut(stage.link(dice)), 50, 6_000),
        Kind::Delay => {
            let delay = dice.between(millis(20), millis(600));
            (Harm::Delay(stage.link(dice), delay), 1_000, 6_000)
        }
        Kind::HalfOpen => {
            let way = *dice.one_of(&[Way::Up, Way::Down]);
            (Harm::HalfOpen(stage.link(dice), way, ending(dice)), 500, 8_000)
        }
        Kind::BlackHole => (Harm::BlackHole(stage.link(dice), ending(dice)), 500, 8_000),
        Kind::DiskFull => {
            let server = dice.below(stage.nats_servers + 1);
            let server = if server == 0 { Process::Postgres } else { Process::Nats(server) };
            (Harm::DiskFull(server), 500, 4_000)
        }
        Kind::Storm => {
            let door = *dice.one_of(&[Component::Listener, Component::Queries]);
            let crowd = *dice.one_of(&[Crowd::Silent, Crowd::Garbage]);
            (Harm::Storm(door, 1 + dice.below(stage.replicas), crowd, CROWD), 500, 4_000)
        }
        Kind::Rolling => (Harm::Rolling, 0, 0),
    }
}

fn ending(dice: &mut Dice) -> Ending {
    *dice.one_of(&[Ending::Late, Ending::Reset, Ending::Forgotten])
}

impl Stage {
    /// All that runs.
    pub(crate) fn processes(self) -> Vec<Process> {
        let servers = (1..=self.nats_servers).map(Process::Nats).chain([Process::Postgres]);
        self.components()
            .map(|(component, number)| Process::Component(component, number))
            .chain(servers)
            .collect()
    }

    pub(crate) fn components(self) -> impl Iterator<Item = (Component, usize)> {
        let of = move |component| (1..=self.replicas).map(move |number| (component, number));
        Component::ALL.into_iter().flat_map(of)
    }

    /// All connections that are made.
    pub(crate) fn links(self) -> Vec<Link> {
        let mut links = Vec::new();
        for (component, number) in self.components() {
            links.extend(
                (1..=self.nats_servers).map(|server| Link::Server(component, number, Process::Nats(server))),
            );
            if component.has_database() {
                links.push(Link::Server(component, number, Process::Postgres));
            }
            if component.is_called() {
                links.push(Link::Clients(component, number));
            }
        }
        if self.nats_servers > 1 {
            links
                .extend((1..=self.nats_servers).map(|from| Link::Route(from, next(from, self.nats_servers))));
        }
        links
    }

    /// One of them: every third is one of the servers that all others stand on.
    fn process(self, dice: &mut Dice) -> Process {
        let of_servers = dice.below(3) == 0;
        let is_server = |process: &Process| matches!(process, Process::Nats(_) | Process::Postgres);
        let some: Vec<_> =
            self.processes().into_iter().filter(|process| is_server(process) == of_servers).collect();
        *dice.one_of(&some)
    }

    fn link(self, dice: &mut Dice) -> Link {
        *dice.one_of(&self.links())
    }
}

/// To whom a nats-server connects: each to the next, which is a connection between any two of three. (Whoever has made it, both use it.)
pub(crate) const fn next(server: usize, servers: usize) -> usize {
    server % servers + 1
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(component, number) => write!(f, "{}-{number}", component.name()),
            Self::Nats(number) => write!(f, "nats-{number}"),
            Self::Postgres => f.write_str("postgres"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(component, number, server) => write!(f, "{}-{number} -> {server}", component.name()),
            Self::Clients(component, number) => write!(f, "clients -> {}-{number}", component.name()),
            Self::Route(from, to) => write!(f, "nats-{from} -> nats-{to}"),
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} ", self.kind().name())?;
        match self {
            Self::Kill(process) | Self::Pause(process) | Self::Restart(process) | Self::DiskFull(process) => {
                write!(f, "{process}")
            }
            Self::Cut(link) => write!(f, "{link}"),
            Self::Delay(link, delay) => write!(f, "{link} by {} ms", delay.as_millis()),
            Self::HalfOpen(link, way, ending) => write!(f, "{link}, {way:?}, then {ending:?}"),
            Self::BlackHole(link, ending) => write!(f, "{link}, then {ending:?}"),
            Self::Storm(door, number, crowd, size) => {
                write!(f, "{size} connections to {}-{number}, {crowd:?}", door.name())
            }
            Self::Rolling => f.write_str("every component, one after the other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: Stage = Stage { replicas: 2, nats_servers: 3 };

    fn all() -> BTreeSet<Kind> {
        Kind::ALL.into_iter().collect()
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_another() {
        let first = plan(7, 100, &all(), STAGE);
        assert_eq!(first, plan(7, 100, &all(), STAGE));
        assert_ne!(first, plan(8, 100, &all(), STAGE));
        assert_eq!(plan(7, 40, &all(), STAGE), first[..40], "a shorter run is the beginning of a longer one");
    }

    #[test]
    fn every_kind_occurs_before_any_comes_twice() {
        for seed in 0..50 {
            let faults = plan(seed, Kind::ALL.len(), &all(), STAGE);
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.harm.kind()).collect();
            assert_eq!(kinds, all(), "seed {seed}");
        }
    }

    #[test]
    fn only_the_kinds_that_are_wanted_occur() {
        let wanted = BTreeSet::from([Kind::Pause, Kind::Storm]);
        let faults = plan(1, 60, &wanted, STAGE);
        assert_eq!(faults.len(), 60);
        assert_eq!(faults.iter().map(|fault| fault.harm.kind()).collect::<BTreeSet<_>>(), wanted);
        assert!(plan(1, 60, &BTreeSet::new(), STAGE).is_empty());
    }

    #[test]
    fn they_begin_one_after_the_other_and_none_lasts_longer_than_eight_seconds() {
        let faults = plan(3, 300, &all(), STAGE);
        assert!(faults.is_sorted_by(|one, next| one.at < next.at && next.at <= one.at + BETWEEN));
        assert!(faults.iter().all(|fault| fault.lasts <= millis(8_000)));
        let overlap = faults.windows(2).filter(|pair| pair[1].at < pair[0].at + pair[0].lasts).count();
        assert!(overlap > 50, "one comes while another lasts: {overlap}");
    }

    #[test]
    fn everything_that_runs_and_every_link_is_harmed_sooner_or_later() {
        let faults = plan(5, 3_000, &all(), STAGE);
        let (mut processes, mut links) = (BTreeSet::new(), BTreeSet::new());
        for fault in faults {
            match fault.harm {
                Harm::Kill(process) | Harm::Pause(process) | Harm::Restart(process) => {
                    processes.insert(process);
                }
                Harm::Cut(link)
                | Harm::HalfOpen(link, ..)
                | Harm::BlackHole(link, _)
                | Harm::Delay(link, _) => {
                    links.insert(link);
                }
                Harm::DiskFull(_) | Harm::Storm(..) | Harm::Rolling => {}
            }
        }
        assert_eq!(processes, STAGE.processes().into_iter().collect());
        assert_eq!(links, STAGE.links().into_iter().collect());
    }
}
