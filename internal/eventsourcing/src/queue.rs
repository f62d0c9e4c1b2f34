//! How a reader proves that the queue in front of it is the one that it remembers, and how a person accepts another.
//!
//! The rule this module protects: after a restore, a position past the end of the queue is neither refused nor
//! clamped by any broker, and acknowledged commands would be skipped in silence. So the purge spares the message at
//! the position, and whoever starts fetches it and compares. Only a person can say that another queue will do.

use std::fmt;
use std::future::Future;

use crate::command::ids_of_first;
use crate::mutants::{Mutant, planted};
use crate::outcome::Fingerprint;
use crate::partition::{Partition, PartitionCount, Sequence};
use crate::ports::{
    CheckpointMove, Checkpoints, CommandQueue, EventLog, ForeignEvents, ForeignPosition, ForeignPositions,
    PortError, PortResult, QueuePosition, QueuedMessage,
};
use crate::turn::Trouble;

/// What a person does about a queue that is not the one that is remembered.
const ADOPT: &str = "`financing queue adopt` accepts what is there and goes on with it";

/// Fetches the message at the position and compares it with what the position remembers.
///
/// # Errors
///
/// Halts where the stream was created at another time, or the message is missing or another.
pub async fn prove<Q: CommandQueue>(
    queue: &Q,
    partition: Partition,
    position: QueuePosition,
) -> Result<QueuedMessage, Trouble> {
    let halt = |what: &str| {
        Trouble::Halt(format!(
            "the command queue is not the one that partition {partition} was working off ({what}, at {position}). \
             It was lost or restored to an earlier state; commands may be missing from it. {ADOPT}."
        ))
    };
    let created_at = queue.created_at().await.map_err(PortError::trouble)?;
    if created_at != position.created_at {
        return Err(halt("the stream was created anew"));
    }
    let message = queue
        .message(partition, position.message)
        .await
        .map_err(PortError::trouble)?
        .ok_or_else(|| halt("the message is missing"))?;
    let ids = ids_of_first(partition, message.message, &message.payload);
    if !ids.into_iter().any(|id| message.mark(id) == position.mark) {
        return Err(halt("the message is another"));
    }
    Ok(message)
}

/// The same for another context's stream, which was created at the given time.
pub(crate) async fn prove_foreign<S: ForeignEvents>(
    events: &S,
    reader: &str,
    created_at: u64,
    position: ForeignPosition,
) -> Result<(), Trouble> {
    let halt = |what: &str| {
        Trouble::Halt(format!(
            "the stream of another context is not the one that {reader} was importing ({what}, at message {}). It was \
             lost or restored to an earlier state; events may be missing from it. {ADOPT}.",
            position.message
        ))
    };
    if created_at != position.created_at {
        return Err(halt("the stream was created anew"));
    }
    let message = events.message(position.message).await.map_err(PortError::trouble)?;
    let message = message.ok_or_else(|| halt("the message is missing"))?;
    if Fingerprint::of(&message.payload) != position.fingerprint {
        return Err(halt("the message is another"));
    }
    Ok(())
}

/// What waits in a command queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages behind the positions.
    pub messages: u64,
    /// Their bytes; at least nearly.
    pub bytes: u64,
}

/// How much waits in a command queue: for people, and nothing that the platform relies on.
pub trait Waiting: Send + Sync + 'static {
    /// What stands behind these positions; behind none, everything of the partition.
    fn depth(
        &self,
        behind: &[(Partition, Option<QueuePosition>)],
    ) -> impl Future<Output = PortResult<Depth>> + Send;
}

/// What [`adopt`] made the readers forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// How far each partition had worked the queue off.
    pub positions: Vec<(Partition, Option<QueuePosition>)>,
    /// How far the policies had come.
    pub checkpoints: Vec<(Partition, Sequence)>,
    /// How far the other context's stream had been imported.
    pub foreign: Option<ForeignPosition>,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (partition, position) in &self.positions {
            let policies = self.checkpoints.iter().find(|(of, _)| of == partition);
            let policies = policies.map_or(Sequence::ZERO, |(_, sequence)| *sequence);
            match position {
                Some(position) => write!(f, "partition {partition}: forgot {position}")?,
                None => write!(f, "partition {partition}: had no position")?,
            }
            writeln!(f, ", policies back from {policies} to 0")?;
        }
        match self.foreign {
            Some(position) => {
                write!(f, "other context's stream: from the beginning, after {} messages", position.message)
            }
            None => f.write_str("other context's stream: had no position"),
        }
    }
}

/// How often a checkpoint is set back that moves at the same time.
const ATTEMPTS: u32 = 10;

/// Accepts the command queue, and the other context's stream, that are there now: everybody begins them with their first
/// message, and the policies begin the log anew. That acts twice on nothing, because the inbox knows every command that has
/// an outcome; what was queued and lost with the old queue is queued again where a policy or another context asks
/// for it, and lost where a client did.
///
/// To be called while neither policies nor importers run: one that is about to move from the very beginning cannot tell
/// that it was set back. It may be repeated. The queue's positions go last, so that the workers halt until
/// all of it is done.
///
/// # Errors
///
/// When a store fails, or somebody moves a checkpoint every time that it is set back.
pub async fn adopt<L: EventLog, C: Checkpoints, P: ForeignPositions>(
    log: &L,
    checkpoints: &C,
    positions: &P,
    partitions: PartitionCount,
    policies_reader: &str,
    importer_reader: &str,
) -> PortResult<Adopted> {
    let all: Vec<Partition> = partitions.all().collect();
    let set_back = set_back(checkpoints, policies_reader, &all).await?;
    let foreign = begin_anew(positions, importer_reader).await?;
    let rows = log.rows(&all).await?;
    log.forget_queue(&all).await?;
    Ok(Adopted {
        positions: rows.into_iter().map(|(partition, row)| (partition, row.position)).collect(),
        checkpoints: set_back,
        foreign,
    })
}

/// Sets a reader's checkpoints back to zero; answers with where they were.
async fn set_back<C: Checkpoints>(
    checkpoints: &C,
    reader: &str,
    partitions: &[Partition],
) -> PortResult<Vec<(Partition, Sequence)>> {
    let mut before = Vec::new();
    let mut left = if planted(Mutant::AdoptKeepsTheCheckpoints) { Vec::new() } else { partitions.to_vec() };
    for _ in 0..ATTEMPTS {
        let loaded = checkpoints.load(reader, &left).await?;
        let (zero, ahead): (Vec<_>, Vec<_>) =
            loaded.into_iter().partition(|(_, sequence)| *sequence == Sequence::ZERO);
        before.extend(zero);
        let moves: Vec<CheckpointMove> = ahead
            .iter()
            .map(|(partition, from)| CheckpointMove {
                partition: *partition,
                from: *from,
                to: Sequence::ZERO,
            })
            .collect();
        let moved = checkpoints.advance(reader, &moves).await?;
        left.clear();
        for (checkpoint, moved) in ahead.into_iter().zip(moved) {
            if moved {
                before.push(checkpoint);
            } else {
                left.push(checkpoint.0);
            }
        }
        if left.is_empty() {
            before.sort_unstable();
            return Ok(before);
        }
    }
    Err(PortError::Conflict(format!("{reader} moves its checkpoints at the same time: stop it first")))
}

/// Lets a reader of another context's stream begin anew; answers with where it was.
async fn begin_anew<P: ForeignPositions>(positions: &P, reader: &str) -> PortResult<Option<ForeignPosition>> {
    for _ in 0..ATTEMPTS {
        let Some(position) = positions.position(reader).await? else { return Ok(None) };
        if positions.advance(reader, Some(position), None).await? {
            return Ok(Some(position));
        }
    }
    Err(PortError::Conflict(format!("{reader} moves its position at the same time: stop it first")))
}
