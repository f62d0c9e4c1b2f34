//! The command queue, and where outcomes go that somebody waits for.
//!
//! The rule this module protects: a reader stores its own position, and a position names its queue, so that another queue is never taken
//! for it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::PortResult;
use crate::command::Bundle;
use crate::outcome::Reply;
use crate::partition::Partition;

/// Where a worker stands in the command queue: the last command whose outcome is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueuePosition {
    /// When the queue's stream was created, in microseconds since the Unix epoch: another stream is another queue.
    pub created_at: u64,
    /// The message.
    pub message: u64,
    /// See [`QueuedMessage::mark`]: the same number with another message is another queue, too.
    pub mark: Uuid,
    /// The command's index in the message.
    pub index: u32,
}

impl fmt::Display for QueuePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} command {} ({})", self.message, self.index, self.mark)
    }
}

/// A message of the queue.
#[derive(Debug, Clone)]
pub struct QueuedMessage {
    /// The partition of its commands.
    pub partition: Partition,
    /// Its number: growing, not gap-free.
    pub message: u64,
    /// When the queue stored it, by the queue's clock: nanoseconds since the Unix epoch. 0 where the queue cannot be
    /// restored without the log, and so never be another one.
    pub stored_at: u64,
    /// The bundle.
    pub payload: Arc<[u8]>,
}

impl QueuedMessage {
    /// What tells the message from any other that may ever stand under its number: its first command, and when it was stored. The
    /// command alone would not do: after a restore a client may send again what was lost, and its message may get the number
    /// that the lost one had, in front of other messages than then.
    #[must_use]
    pub fn mark(&self, first_command: Uuid) -> Uuid {
        match self.stored_at {
            0 => first_command,
            stored_at => Uuid::new_v5(&first_command, &stored_at.to_be_bytes()),
        }
    }
}

/// The command queue: durable, ordered within a partition, read from a position that the reader stores itself.
pub trait CommandQueue: Send + Sync + 'static {
    /// When the stream was created, in microseconds since the Unix epoch.
    fn created_at(&self) -> impl Future<Output = PortResult<u64>> + Send;

    /// Stores bundles durably: each is on disk when its answer is `Ok`. One answer a bundle, in order; bundles of
    /// one partition keep their order, and where one fails, those of its partition behind it fail too.
    fn enqueue(&self, bundles: Vec<Bundle>) -> impl Future<Output = Vec<PortResult<()>>> + Send;

    /// The message with this number, where the queue (still) has it.
    fn message(
        &self,
        partition: Partition,
        message: u64,
    ) -> impl Future<Output = PortResult<Option<QueuedMessage>>> + Send;

    /// Messages after the given numbers (0: from the beginning), at most `limit` in all, in order within each
    /// partition. The partitions are served in the order of the request: a caller with a limit rotates it.
    ///
    /// Behind a connection that was made anew may be another queue: the first read of this handle after it is a
    /// [`PortError::Unavailable`](super::PortError::Unavailable), so that its reader proves where it stands.
    fn read(
        &self,
        after: &[(Partition, u64)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<QueuedMessage>>> + Send;

    /// Forgets the messages before the given numbers, which stay.
    ///
    /// Numbers go by the queue in which they were proven: over a connection that was made anew, and of which no read of this
    /// handle has told yet, this is a [`PortError::Unavailable`](super::PortError::Unavailable).
    fn purge(&self, before: &[(Partition, u64)]) -> impl Future<Output = PortResult<()>> + Send;
}

/// Where outcomes go that somebody waits for. Losing one is harmless: whoever waits asks again.
pub trait Replies: Send + Sync + 'static {
    /// Sends them, to the addresses that the commands came with.
    fn send(&self, replies: Vec<(String, Reply)>) -> impl Future<Output = ()> + Send;
}
