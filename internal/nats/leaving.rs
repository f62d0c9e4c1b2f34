//! What is in the streams beside the bus, for somebody who leaves them behind; and streams that a person throws away.
//!
//! The rule this module protects: whoever carries a platform away, or starts it on another log, is told what stays in these
//! streams; and only what can be made again, or what a person has given up by name, is deleted.

use async_nats::jetstream::{self, ErrorCode};
use eventsourcing::ports::{ForeignPosition, PortError, PortResult};
use serde_json::{Value, json};

use super::connect::Nats;
use super::error::api_error;
use super::streams::{COMMANDS, DEAD, REGISTERING, Streams, created_at, events};

/// The subjects of messages of other contexts among the dead letters.
const FOREIGN: &str = "financing.dead.registering.>";

impl Nats {
    /// How many messages the command queue has; `None` where there is no queue.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn queued_messages(&self) -> PortResult<Option<u64>> {
        let info = self.stream_info(COMMANDS).await?;
        Ok(info.map(|info| number(&info, "/state/messages")))
    }

    /// How many messages of other contexts stand behind the importer's position.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn not_imported(&self, position: Option<ForeignPosition>) -> PortResult<u64> {
        let Some(info) = self.stream_info(REGISTERING).await? else { return Ok(0) };
        let (last, all) = (number(&info, "/state/last_seq"), number(&info, "/state/messages"));
        let Some(position) = position else { return Ok(all) };
        if created_at(self, REGISTERING).await? != position.created_at {
            return Ok(all);
        }
        Ok(last.saturating_sub(position.message))
    }

    /// How many messages of other contexts are among the dead letters.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn foreign_letters(&self) -> PortResult<u64> {
        let request = json!({ "subjects_filter": FOREIGN });
        match self.request::<Value>(&format!("STREAM.INFO.{DEAD}"), &request).await? {
            Ok(info) => {
                let subjects = info.pointer("/state/subjects").and_then(Value::as_object);
                let counted = subjects.into_iter().flat_map(|subjects| subjects.values());
                Ok(counted.filter_map(Value::as_u64).fold(0, u64::saturating_add))
            }
            Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(0),
            Err(error) => Err(api_error(DEAD, &error)),
        }
    }

    /// Throws the command queue away, with the commands in it; answers with how many messages it had.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or does not let us.
    pub async fn discard_queue(&self) -> PortResult<u64> {
        self.discard(COMMANDS).await
    }

    /// Throws the bus away, which the relayer makes again from the log; answers with how many messages it had.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or does not let us.
    pub async fn discard_events(&self, streams: &Streams) -> PortResult<u64> {
        let mut messages: u64 = 0;
        // Of partition 0 everybody reads what deployment it is: it goes first, and comes last.
        for partition in streams.partitions.all() {
            messages = messages.saturating_add(self.discard(&events(partition)).await?);
        }
        Ok(messages)
    }

    async fn discard(&self, stream: &str) -> PortResult<u64> {
        let Some(info) = self.stream_info(stream).await? else { return Ok(0) };
        let streams = jetstream::new(self.client().clone());
        let deleting = async {
            let deleted = streams.delete_stream(stream).await;
            deleted.map_err(|error| PortError::Unavailable(format!("{stream} is not deleted: {error}")))
        };
        self.answered(deleting).await?;
        Ok(number(&info, "/state/messages"))
    }
}

fn number(info: &Value, pointer: &str) -> u64 {
    info.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}
