//! The listener: gathers commands while the last publish is in flight, and answers when they are durable.
//!
//! The rule this module protects: a client is told "accepted" only after the queue has stored its command; a
//! publish whose answer is uncertain is repeated with the same ids; and what waits in memory is bounded.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use crate::command::{Bundle, Envelope, pack};
use crate::desk::Desk;
use crate::environment::{Doorbell, Environment, within};
use crate::mutants::{Mutant, planted};
use crate::observer::{Observer, Queued, Watch};
use crate::outcome::Reply;
use crate::partition::{Partition, PartitionCount};
use crate::ports::{CommandQueue, PortError};
use crate::turn::{Progress, Trouble, Turn};

/// What may wait in a listener's memory, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Commands.
    pub commands: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long a client waits for the queue to answer.
    pub patience: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self { commands: 20_000, bytes: 64 * 1024 * 1024, patience: Duration::from_secs(10) }
    }
}

/// Why a command was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is too much to do already. The command was not accepted.
    #[error("too many commands are waiting to be queued")]
    Overloaded,
    /// The queue did not answer in time. The command may or may not be accepted: a retry with the same ids is safe.
    #[error("the command queue does not answer")]
    Unavailable,
    /// The command cannot be queued at all.
    #[error("the command cannot be queued: {0}")]
    Unqueueable(String),
}

type Answer = oneshot::Sender<Result<(), SubmitError>>;

struct Waiting {
    payload: Vec<u8>,
    answer: Answer,
}

#[derive(Default)]
struct Gathered {
    by_partition: BTreeMap<Partition, Vec<Waiting>>,
    commands: usize,
    bytes: usize,
}

/// Where commands come in; cloned into every request's handler.
#[derive(Clone)]
pub struct Intake<E> {
    gathered: Arc<Mutex<Gathered>>,
    bell: Doorbell,
    partitions: PartitionCount,
    limits: ListenerLimits,
    desk: Desk,
    environment: E,
}

impl<E: Environment> Intake<E> {
    /// The number of partitions that it sorts commands into.
    #[must_use]
    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// Hands a command in; completes when the queue has stored it.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub async fn submit(&self, envelope: &Envelope) -> Result<(), SubmitError> {
        let payload = envelope.encode().map_err(|error| SubmitError::Unqueueable(error.to_string()))?;
        let partition = envelope.partition(self.partitions);
        let (answer, answered) = oneshot::channel();
        {
            let mut gathered = lock(&self.gathered);
            if gathered.commands >= self.limits.commands
                || gathered.bytes.saturating_add(payload.len()) > self.limits.bytes
            {
                return Err(SubmitError::Overloaded);
            }
            gathered.commands += 1;
            gathered.bytes += payload.len();
            gathered.by_partition.entry(partition).or_default().push(Waiting { payload, answer });
        }
        self.bell.ring();
        match within(&self.environment, self.limits.patience, answered).await {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(SubmitError::Unavailable),
        }
    }

    /// Hands a command in and waits for its outcome. `None`: the time was up first; the command is accepted. Until it
    /// is known to be, this waits longer than it was asked to.
    ///
    /// An answer may be lost with the process that sent it. So the same command is handed in once more after
    /// half of the time, and at least a second: the worker answers a repeat from its inbox.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub async fn submit_and_wait(
        &self,
        mut envelope: Envelope,
        wait: Duration,
    ) -> Result<Option<Reply>, SubmitError> {
        let expectation = self.desk.expect(envelope.command_id);
        envelope.reply_to = Some(expectation.address());
        // The time runs from here, also while the command is not accepted yet.
        let times_up = self.environment.sleep(wait);
        let reminder = self.environment.sleep((wait / 2).max(Duration::from_secs(1)));
        let (times_up, reminder) = (pin!(times_up), pin!(reminder));
        self.submit(&envelope).await?;
        let mut reply = pin!(expectation.reply());
        let reply_or_reminded = async {
            match select(&mut reply, reminder).await {
                Either::Left((reply, _)) => return reply,
                Either::Right(((), _)) => {}
            }
            // The first one was accepted: whatever becomes of the reminder, the outcome may still arrive.
            if let Err(error) = self.submit(&envelope).await {
                tracing::debug!(%error, command_id = %envelope.command_id, "a reminder was not queued");
            }
            reply.await
        };
        match select(pin!(reply_or_reminded), times_up).await {
            Either::Left((reply, _)) => Ok(reply),
            Either::Right(((), _)) => Ok(None),
        }
    }
}

/// The loop behind an [`Intake`].
pub struct Listener<Q> {
    gathered: Arc<Mutex<Gathered>>,
    queue: Q,
    /// Bundles whose publish failed: they go first, as they are.
    unsettled: Vec<InFlight>,
    watch: Watch,
}

struct InFlight {
    bundle: Bundle,
    answers: Vec<Answer>,
    /// Whether an earlier attempt may have stored it: then nothing can be told for certain but success.
    tried: bool,
}

impl<Q: CommandQueue> Listener<Q> {
    /// A listener in front of a queue, and the intake to hand to request handlers. The bell is the one that the
    /// loop is driven with.
    pub fn new<E: Environment>(
        queue: Q,
        partitions: PartitionCount,
        limits: ListenerLimits,
        desk: Desk,
        bell: Doorbell,
        environment: E,
    ) -> (Self, Intake<E>) {
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        let intake = Intake { gathered: Arc::clone(&gathered), bell, partitions, limits, desk, environment };
        (Self { gathered, queue, unsettled: Vec::new(), watch: Watch::default() }, intake)
    }

    /// The same listener, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    fn take(&self) -> Vec<InFlight> {
        let taken = std::mem::take(&mut *lock(&self.gathered));
        let mut flights = Vec::new();
        for (partition, waiting) in taken.by_partition {
            // Whoever has given up before the first attempt is told "unavailable", and this makes it true.
            let waiting: Vec<Waiting> =
                waiting.into_iter().filter(|waiting| !waiting.answer.is_closed()).collect();
            let bundles = pack(partition, waiting.iter().map(|waiting| waiting.payload.as_slice()));
            let mut answers = waiting.into_iter().map(|waiting| waiting.answer);
            flights.extend(bundles.into_iter().map(|bundle| {
                let answers = answers.by_ref().take(bundle.commands).collect();
                InFlight { bundle, answers, tried: false }
            }));
        }
        flights
    }
}

impl<Q: CommandQueue> Turn for Listener<Q> {
    const PART: &'static str = "listener";

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        let mut flights = std::mem::take(&mut self.unsettled);
        if flights.is_empty() {
            flights = self.take();
        }
        // Between attempts nobody may be waiting any more. What was tried once may be stored, so repeating it is
        // no loss, and dropping it is none either: its sender was told that nothing is known.
        flights.retain(|flight| flight.answers.iter().any(|answer| !answer.is_closed()));
        if flights.is_empty() {
            return Ok(Progress::Idle);
        }
        if planted(Mutant::AcceptedBeforeQueued) {
            for answer in flights.iter_mut().flat_map(|flight| flight.answers.drain(..)) {
                let _gone = answer.send(Ok(()));
            }
        }
        let results = self.queue.enqueue(flights.iter().map(|flight| flight.bundle.clone()).collect()).await;
        let mut trouble = None;
        for (mut flight, result) in flights.into_iter().zip(results) {
            let answer = match result {
                Ok(()) => Ok(()),
                Err(PortError::Unavailable(_)) if planted(Mutant::UncertainIsAccepted) => Ok(()),
                Err(PortError::Full(_) | PortError::Content(_)) if flight.tried => {
                    Err(SubmitError::Unavailable)
                }
                Err(PortError::Full(_)) => Err(SubmitError::Overloaded),
                Err(PortError::Content(reason)) => Err(SubmitError::Unqueueable(reason)),
                Err(error @ (PortError::Unavailable(_) | PortError::Conflict(_))) => {
                    trouble = Some(Trouble::Retry(error.to_string()));
                    flight.tried = true;
                    self.unsettled.push(flight);
                    continue;
                }
                Err(PortError::Broken(reason)) => return Err(Trouble::Halt(reason)),
            };
            if let (Ok(()), Some(observer)) = (&answer, self.watch.get()) {
                observer.queued(&Queued { part: Self::PART, commands: flight.bundle.commands });
            }
            for waiting in flight.answers {
                // Nobody listens where the client is gone; the command is accepted all the same.
                let _gone = waiting.send(answer.clone());
            }
        }
        trouble.map_or(Ok(Progress::Worked), Err)
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    fn drains(&self) -> bool {
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding the lock leaves plain collections behind, which are never half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
