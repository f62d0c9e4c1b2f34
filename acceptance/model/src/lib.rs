//! The saga and the partition protocol as a model, which a checker explores in every order of everything that can happen.
//!
//! The rule this module protects: the model is the protocol of `internal/eventsourcing`, one action for every step between
//! two points at which a process can be interrupted, lose an answer, or be overtaken by its successor. `docs/model.md` says what
//! is left out.
//!
//! # Layout
//!
//! - `lib.rs`: what is stored, what is remembered, and what can happen
//! - `protocol`: what each step does
//! - `saga`: the business: commands, facts, and what follows from what
//! - `properties`: what must always hold, and what must be seen to happen
//! - `explore`: the scenarios, and what exploring one comes to

mod explore;
mod properties;
mod protocol;
mod saga;

use arrayvec::ArrayVec;

pub use explore::{
    ENDINGS, LARGE, RACE, SMALL, Seen, WON, WON_AND_LOST, counterexample, explore, laws, witnesses,
};
pub use saga::{Command, Kind, Said};

/// What happens in a run: who has what, who bids, and how much goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What each investor has, in cents. Investor n lives in partition n.
    pub funds: [u8; 2],
    /// The asking price of each invoice. Invoice n lives in partition 1 - n (mod 2); there are no others.
    pub asking: [u8; 2],
    /// Investor, invoice (2 is on sale nowhere) and amount of each bid.
    pub bids: &'static [(usize, usize, u8)],
    /// What clients send, in any order.
    pub clients: &'static [Command],
    /// How often something goes wrong: an owner is replaced (because it crashed, or seemed to), an answer is lost, a client
    /// sends again, a policy runner crashes, or one goes on from what it remembers.
    pub trouble: u8,
    /// Whether the queue forgets, and whether there are read models. Neither touches anything else, and each makes the states many
    /// times as many; so they have scenarios of their own.
    pub purges: bool,
    /// See `purges`.
    pub projects: bool,
}

impl Scenario {
    pub(crate) fn bid(&self, bid: u8) -> (usize, usize, u8) {
        self.bids[usize::from(bid)]
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are at most four bids")]
    pub(crate) const fn bids(&self) -> u8 {
        self.bids.len() as u8
    }

    /// A command belongs where its aggregate lives.
    pub(crate) fn partition(&self, command: Command) -> usize {
        match command {
            Command::Bid(bid) | Command::Move(bid, ..) => self.bid(bid).0 % 2,
            Command::Process(bid) => (self.bid(bid).1 + 1) % 2,
            Command::Approve(invoice) | Command::Reverse(invoice) => usize::from(invoice + 1) % 2,
        }
    }
}

/// A defect to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit compares head and queue position, and not the epoch.
    NoEpoch,
    /// A commit compares nothing.
    NoCompareAndSet,
    /// A repeat is decided again.
    NoInbox,
    /// The progress in the queue is a transaction of its own, before that of the facts.
    PositionFirst,
    /// The queue forgets what is decided on, and not what is committed.
    PurgeDecided,
    /// The queue forgets the message at the position, too.
    PurgeSparesNothing,
    /// The policies' checkpoint moves before what follows is queued.
    CheckpointFirst,
    /// What follows from a record has a new id every time.
    RandomIds,
    /// Policies read the log, and not the bus.
    PoliciesReadLog,
    /// The bus takes what a relayer sends, wherever its stream ends.
    NoExpectedSequence,
    /// The read models take what a projector sends, wherever their checkpoint stands.
    BlindProjector,
    /// A lost bid releases all that its investor has reserved.
    ReleaseByTotal,
}

/// A message of the queue: one command. (A real one bundles several; a position has an index for that.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Message {
    id: u8,
    command: Command,
}

/// A record of the log. Its record id is where it stands: (partition, sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Record {
    sequence: u8,
    /// Of its aggregate; 0 where it says no fact.
    version: u8,
    /// The command's.
    id: u8,
    said: Said,
}

/// What an owner remembers. Its cache of aggregates is the fold of the log up to `head`, so it is not stored twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Memory {
    epoch: u8,
    head: u8,
    position: u8,
    /// So many commands behind the position are decided on, and not committed.
    batch: u8,
}

/// A process that may work for a partition. Two of them may think that they own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    /// It owns nothing.
    Idle,
    /// It took over at this epoch, or an answer was lost: it has to read the row.
    Unsettled(u8),
    Settled(Memory),
}

/// All that is stored of a partition, and who works for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Partition {
    // The row; its head is the length of the log. Positions count commands.
    epoch: u8,
    position: u8,
    log: ArrayVec<Record, 20>,
    queue: ArrayVec<Message, 24>,
    /// The queue has forgotten the messages before the one at this position.
    purged: u8,
    /// The records' places in the log, as they were published.
    bus: ArrayVec<u8, 20>,
    /// The policies' checkpoint, and whether all that follows from the next record is queued.
    checkpoint: u8,
    queued: bool,
    /// The read models' checkpoint, and what they show: what the partition's investors have available.
    projected: u8,
    shown: i16,
    workers: [Worker; 2],
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    partitions: [Partition; 2],
    /// The clients' commands that were accepted, as bits.
    sent: u8,
    trouble: u8,
    /// Somebody committed who was replaced before.
    trespassed: bool,
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The worker hears what became of it.
    Heard,
    /// It happened, and nobody hears of it.
    Lost,
    /// It did not happen, and nobody hears of that.
    Failed,
}

/// One step. Numbers: partition, then worker or position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client's command is on disk in the queue.
    Send(u8),
    /// The client did not hear of it and sends it again.
    Repeat(u8),
    /// A worker takes a partition over: the one that owns it, anew, or the other, while the first goes on.
    TakeOver(usize, usize),
    /// It reads the row.
    Settle(usize, usize),
    /// It decides a batch on what it remembers.
    Decide(usize, usize),
    /// It commits: facts, inbox and progress, if the row is what it remembers.
    Commit(usize, usize, Answer),
    /// It lets the queue forget what it worked off.
    Purge(usize, usize),
    /// A relayer that thinks that the stream ends here publishes the record behind it.
    Relay(usize, u8),
    /// A policy runner that stands here queues what follows from the record behind it.
    React(usize, u8),
    /// It moves its checkpoint.
    Advance(usize),
    /// It crashes before it has.
    Forget(usize),
    /// A projector that thinks that the read models stand here folds the record behind it.
    Project(usize, u8),
}

/// How many commands a worker takes at once.
pub(crate) const BATCH: u8 = 2;

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// What happens.
    pub scenario: Scenario,
    /// What is wrong with it.
    pub bug: Option<Bug>,
}

/// The id of the command that follows from a record: everybody derives the same.
pub(crate) fn derived(partition: usize, record: Record) -> u8 {
    record.sequence + if partition == 0 { 20 } else { 60 }
}

#[expect(clippy::cast_possible_truncation, reason = "the longest list has 24 places")]
pub(crate) const fn length<T>(list: &[T]) -> u8 {
    list.len() as u8
}
