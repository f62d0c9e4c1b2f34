//! Planted bugs: the ways in which a platform like this goes wrong, so that what looks for bugs can show that it finds them.
//!
//! The rule this module protects: without the feature `mutants` there is none, and [`planted`] is a constant that the
//! compiler drops. With it there is one only where somebody plants it: for a thread, so that a simulator can run
//! several side by side, or for a whole process, so that a crash test can.
//!
//! `docs/mutants.md` has the table of which is found by what, and after how long.

/// Lists the mutants once, with their names and what they do.
macro_rules! mutants {
    ($($(#[doc = $says:literal])+ $variant:ident = $name:literal,)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $says])+ $variant,)+
        }

        impl Mutant {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name on command lines and in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What is wrong with a platform that has it.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($says,)+).trim_ascii_start(),)+
                }
            }

            /// The one with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }
    };
}

mutants! {
    // The worker.
    /// Nobody remembers which commands have an outcome.
    NoInbox = "no-inbox",
    /// Of a command that comes twice in one batch, both are decided.
    RepeatsInOneBatch = "repeats-in-one-batch",
    /// A command id that was used for something else is taken for a repeat.
    AnyContentIsARepeat = "any-content-is-a-repeat",
    /// A refusal is told to the client and written down nowhere.
    RefusalNotRecorded = "refusal-not-recorded",
    /// A snapshot says that it is one version older than it is.
    SnapshotTooOld = "snapshot-too-old",
    /// What was decided and not committed stays in the cache.
    StaleCache = "stale-cache",
    /// The queue position is committed first, the facts after it.
    PositionOutsideTheTransaction = "position-outside-the-transaction",
    /// The client hears of the outcome before it is on disk.
    AnswerBeforeTheCommit = "answer-before-the-commit",
    /// The token that the client gets is of another partition.
    TokenOfTheWrongPartition = "token-of-the-wrong-partition",
    /// The token that the client gets is of the record before.
    TokenOfTheRecordBefore = "token-of-the-record-before",
    /// Every record says that it is its command's last.
    EveryRecordIsTheLast = "every-record-is-the-last",
    /// After a commit that failed, the worker goes on with the next commands.
    WorkerSkipsAfterAnError = "worker-skips-after-an-error",
    /// The purge takes the message at the queue position, too.
    PurgeSparesNothing = "purge-spares-nothing",
    /// Nobody compares the queue with what is remembered of it.
    QueueNotProven = "queue-not-proven",
    /// Whoever is named as an issuer is one.
    AnyIssuerExists = "any-issuer-exists",
    // The store.
    /// A commit does not look whether the partition's row is what its owner remembers.
    NoEpoch = "no-epoch",
    /// The same, and the sequences are given by what is there at the moment.
    MaxPlusOne = "max-plus-one",
    // The relayer and the bus.
    /// The relayer goes on behind what it could not publish, to a bus that takes anything.
    RelayerSkipsAfterAnError = "relayer-skips-after-an-error",
    /// The bus takes a publication wherever it says that it belongs.
    NoExpectedSequence = "no-expected-sequence",
    /// The relayer never looks again where a stream ends.
    RelayerNeverLooksAgain = "relayer-never-looks-again",
    // The policies and the importer.
    /// A policy's commands get ids by chance.
    RandomPolicyIds = "random-policy-ids",
    /// The policies' checkpoint moves before what follows is queued.
    CheckpointFirst = "checkpoint-first",
    /// What could not be queued is left out.
    PolicySkipsAfterAnError = "policy-skips-after-an-error",
    /// A policy's command begins a saga of its own.
    CorrelationOfItsOwn = "correlation-of-its-own",
    /// A policy's command says that it was caused by the command before, and not by its fact.
    CausedByTheCommand = "caused-by-the-command",
    /// The importer's position moves before what follows is queued.
    ImportPositionFirst = "import-position-first",
    /// Adopting another queue leaves the policies where they are.
    AdoptKeepsTheCheckpoints = "adopt-keeps-the-checkpoints",
    // The dead letters.
    /// Every retry of a dead letter is a command of its own.
    RetryIdNotDerived = "retry-id-not-derived",
    /// The discard of a dead letter has another id than its retry.
    DiscardUnderAnotherId = "discard-under-another-id",
    /// A dead letter is retried while an earlier one of its aggregate is open.
    RetryOutOfOrder = "retry-out-of-order",
    /// A dead letter is retried before anybody can have seen it.
    RetryBeforeItsCause = "retry-before-its-cause",
    // The listener.
    /// The client hears that its command is accepted before it is queued.
    AcceptedBeforeQueued = "accepted-before-queued",
    /// Where the queue's answer was lost, the client hears that its command is accepted.
    UncertainIsAccepted = "uncertain-is-accepted",
    // The projector and the queries.
    /// The read models take a step from wherever it comes.
    ProjectionWithoutCompareAndSet = "projection-without-compare-and-set",
    /// The projection's checkpoint is committed first, the rows after it.
    RowsAfterTheCheckpoint = "rows-after-the-checkpoint",
    /// A read does not wait for what its token stands for.
    ReadsDoNotWait = "reads-do-not-wait",
    /// The excess that went back is still shown as reserved.
    ExcessNotShown = "excess-not-shown",
    // The business.
    /// Money is released from whatever the investor has reserved, and not from the bid.
    ReleaseByTotal = "release-by-total",
    /// The excess that goes back is a minor unit too much, or too little.
    ExcessNotExact = "excess-not-exact",
    /// A financed invoice takes another winner.
    TwoWinners = "two-winners",
    /// A party finances its own invoice.
    SelfFinancing = "self-financing",
    /// An approval pays the bid, and not the asking price.
    CommitsTheBid = "commits-the-bid",
    /// A reversal gives the bid back, and not the asking price.
    ReturnsTheBid = "returns-the-bid",
    /// The money of a bid on an invoice that does not exist stays reserved.
    RefusedBidKeepsItsMoney = "refused-bid-keeps-its-money",
    /// A reversed invoice can be approved.
    ReversedCanBeApproved = "reversed-can-be-approved",
    /// An investor may bid one minor unit more than there is, and has it.
    Overdraft = "overdraft",
    /// Money that was released cannot be bid again.
    ReleasedMoneyIsGone = "released-money-is-gone",
}

#[cfg(not(feature = "mutants"))]
mod ground {
    use super::Mutant;

    /// Whether this bug is planted: never.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::inline_always, reason = "a constant, in the middle of the hottest paths")]
    pub const fn planted(_: Mutant) -> bool {
        false
    }

    /// What a mutant takes for chance: nothing, where there is no mutant.
    #[must_use]
    pub(crate) const fn chance() -> u64 {
        0
    }
}

#[cfg(feature = "mutants")]
mod ground {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Mutant;

    thread_local! {
        static HERE: Cell<Option<Mutant>> = const { Cell::new(None) };
        static CHANCE: Cell<u64> = const { Cell::new(0) };
    }

    static EVERYWHERE: OnceLock<Mutant> = OnceLock::new();

    /// Whether this bug is planted, here or everywhere.
    #[must_use]
    pub fn planted(mutant: Mutant) -> bool {
        HERE.get() == Some(mutant) || EVERYWHERE.get() == Some(&mutant)
    }

    /// Plants a bug for whatever runs on this thread; `None` takes it out.
    pub fn plant(mutant: Option<Mutant>) {
        HERE.set(mutant);
        CHANCE.set(0);
    }

    /// Plants a bug for the whole process, for good.
    ///
    /// # Errors
    ///
    /// The one that is planted already, where it is another.
    pub fn plant_everywhere(mutant: Mutant) -> Result<(), Mutant> {
        let planted = *EVERYWHERE.get_or_init(|| mutant);
        if planted == mutant { Ok(()) } else { Err(planted) }
    }

    /// What a mutant takes for chance: another number every time, and the same ones after every planting.
    #[must_use]
    pub(crate) fn chance() -> u64 {
        let next = CHANCE.get().wrapping_add(1);
        CHANCE.set(next);
        next
    }
}

pub(crate) use ground::chance;
pub use ground::planted;
#[cfg(feature = "mutants")]
pub use ground::{plant, plant_everywhere};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutant_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
            assert!(mutant.says().ends_with('.'), "{mutant:?}");
        }
        assert_eq!(Mutant::named("no-bug"), None);
    }

    #[test]
    fn none_is_planted_unless_somebody_plants_it() {
        assert!(Mutant::ALL.iter().all(|mutant| !planted(*mutant)));
    }
}
