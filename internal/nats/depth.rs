//! How much waits in the command queue.
//!
//! The rule this module protects: whoever counts reads, and no more. The stream keeps what is worked off until it is purged, so its
//! own numbers are not the answer; where a partition has more than the message that a purge spares, the server is asked how many of
//! them stand behind the position, by a consumer that nobody reads from.

use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortError, PortResult, QueuePosition};
use eventsourcing::queue::{Depth, Waiting};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::connect::Nats;
use super::error::{api_error, missing};
use super::streams::{COMMANDS, command_subject};

/// How much waits in COMMANDS.
#[derive(Clone)]
pub struct NatsDepth(Nats);

/// For how long the server keeps a consumer that could not be deleted, in nanoseconds.
const FORGOTTEN_AFTER: u64 = 5_000_000_000;

impl NatsDepth {
    /// Of the queue of this connection.
    #[must_use]
    pub fn new(nats: &Nats) -> Self {
        Self(nats.clone())
    }

    /// How many messages of the partition stand behind the position.
    async fn behind(&self, partition: Partition, position: QueuePosition) -> PortResult<u64> {
        let filter = command_subject(partition);
        let inbox = self.0.client().new_inbox();
        let name = inbox.rsplit('.').next().unwrap_or_default();
        let config = json!({
            "name": name,
            "description": "a count",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": position.message.saturating_add(1),
            "ack_policy": "none",
            "filter_subject": filter,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN_AFTER,
        });
        let request = json!({ "stream_name": COMMANDS, "config": config, "action": "create" });
        let subject = format!("CONSUMER.CREATE.{COMMANDS}.{name}.{filter}");
        let made = self.0.request::<Value>(&subject, &request).await?;
        let made = made.map_err(|error| api_error(COMMANDS, &error))?;
        let subject = format!("CONSUMER.DELETE.{COMMANDS}.{name}");
        // Where that fails, the server forgets it by itself.
        let _deleted = self.0.request::<Value>(&subject, &()).await?;
        let pending = made.get("num_pending").and_then(Value::as_u64);
        pending.ok_or_else(|| PortError::Unavailable(format!("{COMMANDS}: a consumer without a number")))
    }
}

impl Waiting for NatsDepth {
    /// The bytes are the messages' share of the whole stream.
    async fn depth(&self, behind: &[(Partition, Option<QueuePosition>)]) -> PortResult<Depth> {
        let request = json!({ "subjects_filter": "financing.commands.*" });
        let info = self.0.request::<Value>(&format!("STREAM.INFO.{COMMANDS}"), &request).await?;
        let info = info.map_err(|error| api_error(COMMANDS, &error))?;
        let state = info.get("state").ok_or_else(|| PortError::Unavailable(missing(COMMANDS)))?;
        let number = |field: &str| state.get(field).and_then(Value::as_u64).unwrap_or_default();
        let stored = |partition| {
            let subject = command_subject(partition);
            state.pointer(&format!("/subjects/{subject}")).and_then(Value::as_u64).unwrap_or_default()
        };
        let counting =
            behind.iter().map(async |(partition, position)| match (stored(*partition), position) {
                (0, _) | (1, Some(_)) => Ok(0),
                (all, None) => Ok(all),
                (_, Some(position)) => self.behind(*partition, *position).await,
            });
        let messages: u64 = try_join_all(counting).await?.into_iter().sum();
        let bytes = number("bytes").saturating_mul(messages).checked_div(number("messages"));
        Ok(Depth { messages, bytes: bytes.unwrap_or_default() })
    }
}
