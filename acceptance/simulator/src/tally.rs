//! Counting what happened, so that a reader sees that a run was not vacuous.
//!
//! The rule this module protects: whatever is counted has a name, and the names are one list.

/// Lists what is counted, with its name.
macro_rules! counted {
    ($($(#[doc = $says:literal])+ $variant:ident = $name:literal,)+) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counted {
            $($(#[doc = $says])+ $variant,)+
        }

        impl Counted {
            /// All of it.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        const COUNT: usize = [$($name,)+].len();
    };
}

counted! {
    /// A process was killed between two steps.
    Crash = "fault: crash",
    /// A process was killed in the middle of a call.
    KilledInACall = "fault: killed in a call",
    /// A process was stopped and started again.
    Deploy = "fault: graceful restart",
    /// A commit failed.
    CommitFailed = "fault: commit failed",
    /// A commit happened and its answer was lost.
    CommitAnswerLost = "fault: commit's answer lost",
    /// A publish on the bus failed.
    PublishFailed = "fault: publish failed",
    /// A publish on the bus happened and its answer was lost.
    PublishAnswerLost = "fault: publish's answer lost",
    /// A publish on the bus broke off in the middle.
    PublishBrokeOff = "fault: publish broke off",
    /// An enqueue broke off in the middle.
    EnqueueBrokeOff = "fault: enqueue broke off",
    /// An enqueue failed.
    EnqueueFailed = "fault: enqueue failed",
    /// An enqueue happened and its answer was lost.
    EnqueueAnswerLost = "fault: enqueue's answer lost",
    /// An enqueue happened twice.
    EnqueueRepeated = "fault: enqueue repeated",
    /// Some other call failed.
    OtherCallFailed = "fault: other call failed",
    /// Some other call happened and its answer was lost.
    OtherAnswerLost = "fault: other call's answer lost",
    /// A process was not run for less than its lease.
    Delayed = "fault: delayed",
    /// A process was not run for longer than its lease.
    Zombie = "fault: zombie",
    /// A process did not reach a store for a while.
    CutOff = "fault: cut off from a store",
    /// A stream of the bus lost its last records.
    BusLostTail = "fault: bus lost its tail",
    /// The queue was restored to an earlier state.
    QueueRestored = "fault: queue restored",
    /// The queue was lost.
    QueueLost = "fault: queue lost",
    /// The Registering context's stream was lost and published again.
    StreamLost = "fault: registering stream lost",
    /// The queue had no room.
    QueueFull = "fault: queue full",
    /// The event log refused what was said of a party or an invoice.
    StoreRefused = "fault: store refuses content",
    /// A clock jumped forwards.
    ClockForwards = "fault: clock jumped forwards",
    /// A clock jumped backwards.
    ClockBackwards = "fault: clock jumped backwards",

    /// A fact.
    IssuerCreated = "fact: IssuerCreated",
    /// A fact.
    InvestorCreated = "fact: InvestorCreated",
    /// A fact.
    InvestorFundsAdded = "fact: InvestorFundsAdded",
    /// A fact.
    BidOnInvoicePlaced = "fact: BidOnInvoicePlaced",
    /// A fact: all of a lost bid.
    ReleasedLost = "fact: InvestorFundsReleased RELEASE",
    /// A fact: what a winner had too much.
    ReleasedExcess = "fact: InvestorFundsReleased EXCESS",
    /// A fact: the price of a reversed invoice.
    ReleasedReturn = "fact: InvestorFundsReleased RETURN",
    /// A fact.
    InvestorFundsCommitted = "fact: InvestorFundsCommitted",
    /// A fact.
    InvoiceCreated = "fact: InvoiceCreated",
    /// A fact.
    InvoiceFinanced = "fact: InvoiceFinanced",
    /// A fact.
    InvoiceApproved = "fact: InvoiceApproved",
    /// A fact.
    InvoiceReversed = "fact: InvoiceReversed",
    /// A bid lost: another won before.
    RejectedNotAvailable = "bid rejected: INVOICE_NOT_AVAILABLE",
    /// A bid lost: it was too small.
    RejectedBelow = "bid rejected: BID_BELOW_ASKING_PRICE",
    /// A bid lost: another currency.
    RejectedCurrency = "bid rejected: CURRENCY_MISMATCH",
    /// A bid lost: the same party.
    RejectedSelfFinancing = "bid rejected: SELF_FINANCING",
    /// A command changed nothing.
    Unchanged = "outcome: unchanged",
    /// A command was dead.
    Dead = "outcome: dead",
    /// A refusal.
    IssuerNotFound = "refused: ISSUER_NOT_FOUND",
    /// A refusal.
    InvestorNotFound = "refused: INVESTOR_NOT_FOUND",
    /// A refusal.
    InvoiceNotFound = "refused: INVOICE_NOT_FOUND",
    /// A refusal.
    AlreadyRegistered = "refused: ALREADY_REGISTERED",
    /// A refusal.
    InvoiceAlreadySold = "refused: INVOICE_ALREADY_SOLD",
    /// A refusal.
    InsufficientFunds = "refused: INSUFFICIENT_FUNDS",
    /// A refusal.
    CurrencyMismatch = "refused: CURRENCY_MISMATCH",
    /// A refusal.
    InvoiceNotFinanced = "refused: INVOICE_NOT_FINANCED",
    /// A client was told that its id was used for something else.
    Reused = "answer: REQUEST_ID_REUSED",

    /// Commands that clients know to be accepted.
    Accepted = "commands accepted",
    /// Records in the log.
    Records = "records",
    /// A client had no answer in time, or was told that nothing is known.
    Unavailable = "answer: unavailable",
    /// A client was told that there is no room.
    Overloaded = "answer: overloaded",
    /// A client did not hear of the outcome in time.
    Pending = "answer: pending",
    /// A client got an outcome, and it was compared with the inbox.
    Answered = "answers compared with the inbox",
    /// A client read what it had written.
    ReadOwnWrites = "reads of own writes",
    /// A worker took a partition over.
    TakenOver = "partitions taken over",
    /// A commit was fenced.
    Fenced = "commits fenced",
    /// The bus refused a publication.
    PublicationRefused = "publications refused",
    /// Records that the relayer brought back to a stream that had lost them.
    Refilled = "records refilled",
    /// Commands that policies queued more than once, and that have one outcome.
    PolicyRepeats = "policies' commands de-duplicated",
    /// Commands that were queued more than once, and that have one outcome.
    Repeats = "commands de-duplicated",
    /// A reader halted in front of a queue that was not its own.
    Halted = "readers halted, as they must",
    /// A person accepted another queue.
    Adopted = "queues adopted",
    /// Dead letters that were kept.
    Letters = "dead letters kept",
    /// Dead letters that were retried.
    Retried = "dead letters retried",
    /// Dead letters that were discarded.
    Discarded = "dead letters discarded",
    /// Retries of retries.
    DiedAgain = "dead letters that died again",
    /// A person was told that somebody else was first, and did the other thing.
    Beaten = "operator: somebody else was first",
    /// A person was told what had become of it before.
    Done = "operator: it was done before",
    /// A person was told that an earlier letter is open.
    EarlierIsOpen = "operator: an earlier letter is open",
    /// A person was told that there is nothing to retry.
    NotRetryable = "operator: not retryable",
    /// A person was told that nobody can have seen the letter yet.
    NotRelayed = "operator: not relayed yet",
    /// Aggregates with a snapshot.
    Snapshots = "aggregates with a snapshot",
}

/// How often everything happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally([u64; COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Tally {
    /// Once more.
    pub fn count(&mut self, what: Counted) {
        self.add(what, 1);
    }

    /// So many more.
    pub fn add(&mut self, what: Counted, times: u64) {
        if let Some(count) = self.0.get_mut(what as usize) {
            *count = count.saturating_add(times);
        }
    }

    /// How often.
    #[must_use]
    pub fn of(&self, what: Counted) -> u64 {
        self.0.get(what as usize).copied().unwrap_or(0)
    }

    /// What others have counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// How many mishaps struck.
    #[must_use]
    pub fn faults(&self) -> u64 {
        Counted::ALL
            .iter()
            .take_while(|what| **what <= Counted::ClockBackwards)
            .map(|what| self.of(*what))
            .sum()
    }
}
