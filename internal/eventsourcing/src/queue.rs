//! How a reader proves that the queue in front of it is the one that it remembers.
//!
//! The rule this module protects: after a restore, a position past the end of the queue is neither refused nor
//! clamped by any broker, and acknowledged commands would be skipped in silence. So the purge spares the message at
//! the position, and whoever starts fetches it and compares.

use crate::command::unpack;
use crate::partition::Partition;
use crate::ports::{CommandQueue, QueuePosition, QueuedMessage};
use crate::turn::Trouble;

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
             It was lost or restored to an earlier state; commands may be missing from it."
        ))
    };
    let created_at = queue.created_at().await.map_err(crate::ports::PortError::trouble)?;
    if created_at != position.created_at {
        return Err(halt("the stream was created anew"));
    }
    let message = queue
        .message(partition, position.message)
        .await
        .map_err(crate::ports::PortError::trouble)?
        .ok_or_else(|| halt("the message is missing"))?;
    let first =
        unpack(partition, message.message, &message.payload).first().map(crate::command::Slot::command_id);
    if first != Some(position.first_command) {
        return Err(halt("the message is another"));
    }
    Ok(message)
}
