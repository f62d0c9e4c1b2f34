//! The importer: what other contexts say, as commands of this one.
//!
//! The rule this module protects: a message is passed only after what follows from it is durable: its command in the queue,
//! or the message among the dead letters. A command's id derives from what was said, so importing it again, from
//! wherever, does nothing twice; and what people have discarded stays discarded. And where the importer stands is proven before it goes on: a stream that was replaced is
//! not read from the middle.

use std::collections::HashSet;
use std::marker::PhantomData;

use uuid::Uuid;

use crate::assignment::Assignment;
use crate::command::Envelope;
use crate::consequences::{Consequences, Gathering};
use crate::letters::{ForeignPlace, resolution_id};
use crate::model::Model;
use crate::mutants::{Mutant, planted};
use crate::observer::{Observer, Queued, Reacted, Watch};
use crate::outcome::Fingerprint;
use crate::partition::{Partition, PartitionCount};
use crate::ports::{
    CommandQueue, DeadLetter, DeadLetters, EventLog, ForeignEvents, ForeignMessage, ForeignPosition,
    ForeignPositions, LoadRequest, PortError,
};
use crate::queue::prove_foreign;
use crate::turn::{Progress, Trouble, Turn};

/// Messages read at once.
const BATCH: usize = 512;

/// The most of a reason that is kept, in bytes: a reason may repeat what somebody has sent.
const MAX_REASON: usize = 1024;

/// The one partition that there is of another context's stream: whoever owns it imports.
const ONLY: Partition = Partition::from_index(0);

/// What a message of another context means here. Pure: a function of the message.
pub trait Translate<M: Model>: Send + Sync + 'static {
    /// Translates a message: what it was published under, and what it says.
    fn translate(&self, subject: &str, payload: &[u8]) -> Translated<M::Command>;
}

/// A message, translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translated<C> {
    /// A command of ours follows.
    Command {
        /// The command's id: the same message has the same one, for ever.
        id: Uuid,
        /// Who sends it.
        actor: String,
        /// The W3C trace context the message came with.
        traceparent: Option<String>,
        /// The command.
        command: C,
    },
    /// It is not for us.
    Ignored,
    /// It is for us, and cannot be understood: why.
    Malformed(String),
}

/// The loop that imports another context's events, while the first partition is assigned to it.
pub struct Importer<M, T, S, Q, L, P, D> {
    translate: T,
    reader: &'static str,
    events: S,
    queue: Q,
    log: L,
    positions: P,
    dead_letters: D,
    partitions: PartitionCount,
    assignment: Assignment,
    standing: Option<Standing>,
    /// What follows from messages that were read, and is not durable yet.
    step: Option<Step>,
    ignored: u64,
    watch: Watch,
    model: PhantomData<fn() -> M>,
}

/// The command that discards the message, where it is one that nobody understands.
fn resolved_by(position: ForeignPosition) -> Uuid {
    resolution_id(ForeignPlace::from(position).letter_id())
}

/// A place in the stream that was proven.
#[derive(Clone, Copy)]
struct Standing {
    created_at: u64,
    position: Option<ForeignPosition>,
}

struct Step {
    consequences: Consequences,
    from: Standing,
    to: ForeignPosition,
    /// How many commands and dead letters follow.
    commands: usize,
    letters: usize,
}

impl<M, T, S, Q, L, P, D> Importer<M, T, S, Q, L, P, D>
where
    M: Model,
    T: Translate<M>,
    S: ForeignEvents,
    Q: CommandQueue,
    L: EventLog,
    P: ForeignPositions,
    D: DeadLetters,
{
    /// An importer of these events. `reader` names its position; `partitions` are those of the command queue; what people have
    /// discarded is looked up in the log.
    #[expect(clippy::too_many_arguments, reason = "each is a port, or says what to do with it")]
    pub fn new(
        translate: T,
        reader: &'static str,
        events: S,
        queue: Q,
        log: L,
        positions: P,
        dead_letters: D,
        partitions: PartitionCount,
        assignment: Assignment,
    ) -> Self {
        Self {
            translate,
            reader,
            events,
            queue,
            log,
            positions,
            dead_letters,
            partitions,
            assignment,
            standing: None,
            step: None,
            ignored: 0,
            watch: Watch::default(),
            model: PhantomData,
        }
    }

    /// The same importer, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Where it goes on: the stored position, proven once, and again after whatever may have been a new connection.
    async fn settle(&mut self) -> Result<Standing, Trouble> {
        if let Some(standing) = self.standing {
            return Ok(standing);
        }
        let created_at = self.events.created_at().await.map_err(PortError::trouble)?;
        let position = self.positions.position(self.reader).await.map_err(PortError::trouble)?;
        if let Some(position) = position {
            prove_foreign(&self.events, self.reader, created_at, position).await?;
        }
        let standing = Standing { created_at, position };
        self.standing = Some(standing);
        Ok(standing)
    }

    /// Reads on, and works out what follows. `None`: there is nothing to read.
    async fn read_on(&mut self) -> Result<Option<Step>, Trouble> {
        let from = self.settle().await?;
        let after = from.position.map_or(0, |position| position.message);
        let messages = match self.events.read(after, BATCH).await {
            Ok(messages) => messages,
            Err(error) => {
                // Perhaps the connection is another one now, and behind it another stream.
                self.standing = None;
                return Err(error.trouble());
            }
        };
        let mut gathering = Gathering::default();
        let mut last = None;
        let discarded = self.discarded(from.created_at, &messages).await?;
        for message in messages {
            let fingerprint = Fingerprint::of(&message.payload);
            let position =
                ForeignPosition { created_at: from.created_at, message: message.message, fingerprint };
            if discarded.contains(&resolved_by(position)) {
                let number = message.message;
                tracing::info!(
                    reader = self.reader,
                    message = number,
                    "not imported: somebody has discarded it"
                );
            } else {
                self.take_in(message, position, &mut gathering)?;
            }
            last = Some(position);
        }
        let (commands, letters) = gathering.count();
        Ok(last.map(|to| Step { consequences: gathering.finish(), from, to, commands, letters }))
    }

    /// The discards of those among these messages that people have discarded when nobody understood them. One look into the inbox
    /// for all of them: a stream is read again from its beginning where somebody has adopted another queue, perhaps by a release
    /// that understands more.
    async fn discarded(
        &self,
        created_at: u64,
        messages: &[ForeignMessage],
    ) -> Result<HashSet<Uuid>, Trouble> {
        if messages.is_empty() {
            return Ok(HashSet::new());
        }
        let place = |message: &ForeignMessage| ForeignPlace { created_at, message: message.message };
        let commands = messages.iter().map(|message| resolution_id(place(message).letter_id())).collect();
        let request = LoadRequest { commands, ..LoadRequest::default() };
        let found = self.log.load(&request).await.map_err(PortError::trouble)?;
        Ok(found.inbox.into_iter().map(|entry| entry.outcome.command_id).collect())
    }

    fn take_in(
        &mut self,
        message: ForeignMessage,
        position: ForeignPosition,
        gathering: &mut Gathering,
    ) -> Result<(), Trouble> {
        match self.translate.translate(&message.subject, &message.payload) {
            Translated::Command { id, actor, traceparent, command } => {
                let mut envelope = Envelope::first::<M>(id, actor, &command)
                    .map_err(|error| Trouble::Halt(error.to_string()))?;
                envelope.traceparent = traceparent;
                gathering.command(&envelope, self.partitions)
            }
            Translated::Ignored => {
                self.ignored = self.ignored.saturating_add(1);
                let (subject, ignored) = (&message.subject, self.ignored);
                tracing::debug!(reader = self.reader, subject, ignored, "a message that is not for us");
                Ok(())
            }
            Translated::Malformed(mut reason) => {
                reason.truncate(reason.floor_char_boundary(MAX_REASON));
                let number = message.message;
                tracing::warn!(
                    reader = self.reader,
                    message = number,
                    "malformed: kept among the dead letters"
                );
                gathering.letter(DeadLetter::Foreign { position, message, reason });
                Ok(())
            }
        }
    }

    /// Moves the position, when all that follows is durable.
    async fn finish(&mut self, mut step: Step) -> Result<(), Trouble> {
        if planted(Mutant::ImportPositionFirst) {
            let moved = self.positions.advance(self.reader, step.from.position, Some(step.to)).await;
            moved.map_err(PortError::trouble)?;
            step.from.position = Some(step.to);
        }
        if let Err(trouble) = step.consequences.settle(&self.queue, &self.dead_letters).await {
            self.step = Some(step);
            return Err(trouble);
        }
        if let Some(observer) = self.watch.get() {
            observer.queued(&Queued { part: Self::PART, commands: step.commands });
            observer.reacted(&Reacted { dead_letters: step.letters, ..Reacted::default() });
        }
        let moved = self.positions.advance(self.reader, step.from.position, Some(step.to)).await;
        // Where the answer is lost, or no, the position is read again before anything else.
        self.standing = None;
        if moved.map_err(PortError::trouble)? {
            self.standing = Some(Standing { position: Some(step.to), ..step.from });
        } else {
            tracing::warn!(reader = self.reader, "another importer goes on from here: dropped it");
            self.watch.fenced(Self::PART, ONLY);
            self.assignment.lose(ONLY);
        }
        Ok(())
    }
}

impl<M, T, S, Q, L, P, D> Turn for Importer<M, T, S, Q, L, P, D>
where
    M: Model,
    T: Translate<M>,
    S: ForeignEvents,
    Q: CommandQueue,
    L: EventLog,
    P: ForeignPositions,
    D: DeadLetters,
{
    const PART: &'static str = "importer";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        if !self.assignment.current().contains(&ONLY) {
            (self.standing, self.step) = (None, None);
            return Ok(Progress::Idle);
        }
        let step = match self.step.take() {
            Some(step) => Some(step),
            None => self.read_on().await?,
        };
        match step {
            Some(step) => self.finish(step).await.map(|()| Progress::Worked),
            None => Ok(Progress::Idle),
        }
    }
}
