//! What will happen: who registers, sells, bids and decides when, and what goes wrong.
//!
//! The rule this module protects: a plan is explicit data. A run is a function of its plan alone, so a plan that fails
//! can be made smaller, one piece at a time, until only what matters is left.

use domain::financing::Command;
use domain::integration::IntegrationEvent;
use eventsourcing::testkit::memory::Call;
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::parts::{Part, Store};

/// A run, before it runs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the schedule: which of those that can run does.
    pub seed: u64,
    /// The number of partitions.
    pub partitions: u16,
    /// What a worker takes on at once: little, so that a short run meets every limit.
    pub limits: WorkerLimits,
    /// The parties and invoices, in the order of their names in stories.
    pub cast: Cast,
    /// What clients and other contexts do.
    pub acts: Vec<Act>,
    /// What goes wrong.
    pub mishaps: Vec<Mishap>,
}

/// Ids that have names in stories: issuer A, investor 1, invoice A.
#[derive(Debug, Clone, Default)]
pub struct Cast {
    /// The issuers.
    pub issuers: Vec<Uuid>,
    /// The investors. One may be an issuer, too.
    pub investors: Vec<Uuid>,
    /// The invoices.
    pub invoices: Vec<Uuid>,
}

/// Something that a client, or another context, does.
#[derive(Debug, Clone)]
pub struct Act {
    /// Its number in the plan as it was drawn: it stays when others are taken away.
    pub number: usize,
    /// When: microseconds after the beginning.
    pub at: u64,
    /// What.
    pub message: Message,
    /// Through the second listener first, and not the first.
    pub second_listener: bool,
    /// How long the client waits for the outcome, in milliseconds; `None`: it does not ask for it.
    pub wait: Option<u32>,
    /// Whether it then reads what it wrote.
    pub reads: bool,
    /// How often it tries, with the same ids.
    pub tries: u8,
    /// It tries once more although it has its answer: a retry of a request whose answer it did not wait for.
    pub again: bool,
}

/// What is said.
#[derive(Debug, Clone)]
pub enum Message {
    /// A command, through a listener.
    Command {
        /// Its id.
        id: Uuid,
        /// What it asks for.
        command: Command,
    },
    /// An integration event, through the listener, as PublishIntegrationEvents does it.
    Published {
        /// The event's id.
        id: Uuid,
        /// The event.
        event: IntegrationEvent,
    },
    /// A message on the Registering context's stream.
    Streamed {
        /// What it is for a reader.
        what: Streamed,
        /// A CloudEvent, or nonsense.
        payload: Vec<u8>,
    },
    /// Somebody looks after the dead letters, through the admin door.
    Operated {
        /// What is done.
        deed: Deed,
        /// To which letter: this one, counted round those that are open, or, where there are none, round all.
        pick: usize,
    },
    /// Something that nobody here wrote, directly in the queue.
    Stray {
        /// Whose queue.
        partition: u16,
        /// Whatever it is.
        payload: Vec<u8>,
    },
}

/// What is done about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is tried again.
    Retry,
    /// It is recorded that nothing is to be done about it.
    Discard,
    /// All that are open are tried again, one after the other.
    RetryAll,
}

/// What a message on the Registering context's stream is.
#[derive(Debug, Clone)]
pub enum Streamed {
    /// An event for us.
    Event(IntegrationEvent),
    /// Not for us.
    Ignored,
    /// For us, and not to be understood.
    Malformed,
}

/// Something goes wrong.
#[derive(Debug, Clone)]
pub struct Mishap {
    /// Its number in the plan as it was drawn.
    pub number: usize,
    /// Not before: microseconds after the beginning.
    pub at: u64,
    /// And then after so many steps, so that it can strike in the middle of anything.
    pub steps: u32,
    /// What.
    pub kind: MishapKind,
}

/// What goes wrong. Durations are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MishapKind {
    /// A process is killed; a new one comes after a while, and knows nothing.
    Crash {
        /// Which process.
        part: Part,
        /// For how long there is none.
        down: u32,
    },
    /// A process is told to stop, and a new one comes when it has.
    Deploy {
        /// Which process.
        part: Part,
    },
    /// A process is not run for a while; longer than its lease, it is a zombie.
    Pause {
        /// Which process.
        part: Part,
        /// How long.
        pause: u32,
    },
    /// The next call of this kind that a process makes goes wrong.
    Call {
        /// Which process.
        part: Part,
        /// Which call.
        call: Call,
        /// How.
        harm: Harm,
    },
    /// A process reaches a store not at all for a while.
    Cut {
        /// Which process.
        part: Part,
        /// From what.
        store: Store,
        /// How long.
        lasts: u32,
    },
    /// The bus loses the last records of a partition's stream.
    BusLosesTail {
        /// Which partition.
        partition: u16,
        /// How many.
        records: u64,
    },
    /// The command queue goes back to what it was.
    QueueRestored {
        /// How long ago.
        back: u32,
    },
    /// The command queue is lost: a new one takes its place.
    QueueLost,
    /// The Registering context's stream is lost, and that context publishes everything again.
    StreamLost,
    /// The command queue has no room for a partition's commands.
    QueueFull {
        /// Which partition.
        partition: u16,
        /// For how long.
        lasts: u32,
    },
    /// The store refuses what is said of a party or an invoice, but for that a command about it is dead.
    StoreRefuses {
        /// Of whom.
        of: Uuid,
        /// For how long.
        lasts: u32,
    },
    /// A process's clock jumps.
    ClockJumps {
        /// Which process.
        part: Part,
        /// How far: forwards, or backwards where it is negative.
        by: i32,
    },
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It does not happen, and the caller hears that the store is unavailable.
    Fails,
    /// It happens, and the caller hears the same.
    AnswerLost,
    /// It happens, and the caller is killed before it hears of it; a new one comes after so many milliseconds.
    CallerKilled(u32),
    /// It happens, and the caller hears of it so many milliseconds later.
    AnswerLate(u32),
    /// It happens twice: what a network does to a publish.
    Repeated,
    /// Half of it happens: what a connection that breaks does to messages on their way.
    Half,
}

/// How long a lease is, in milliseconds: whoever sleeps longer is a zombie.
pub const TERM: u32 = 3_000;

impl Plan {
    /// Whether the plan has the queue replaced: then commands that only a client knew may be lost with it.
    #[must_use]
    pub fn replaces_the_queue(&self) -> bool {
        self.mishaps
            .iter()
            .any(|mishap| matches!(mishap.kind, MishapKind::QueueRestored { .. } | MishapKind::QueueLost))
    }
}
