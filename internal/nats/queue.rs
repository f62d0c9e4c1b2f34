//! The command queue: the stream COMMANDS.
//!
//! The rule this module protects: what was answered is on disk, and of one partition only one bundle is under way at a
//! time. A connection that breaks takes what is written to it along and keeps what waits behind: with two under way,
//! the second could be stored without the first, or in front of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind};
use eventsourcing::command::Bundle;
use eventsourcing::environment::Doorbells;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{CommandQueue, PortError, PortResult, QueuedMessage};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::connect::{Nats, connection_lost};
use super::error::{api_error, missing};
use super::publish::{Outgoing, publish};
use super::streams::{COMMANDS, command_subject, created_at, replicas};
use super::tails::{InStream, Lanes, Tails};

/// The lanes of COMMANDS.
pub(super) struct Commands;

impl Lanes for Commands {
    type Item = QueuedMessage;
    const GAPLESS: bool = false;

    fn stream(&self, _: Partition) -> String {
        COMMANDS.to_owned()
    }

    fn filter(&self, lane: Partition) -> String {
        command_subject(lane)
    }

    fn item(&self, lane: Partition, message: &InStream<'_>) -> PortResult<QueuedMessage> {
        let InStream { sequence, stored_at, .. } = *message;
        let payload = Arc::from(&**message.payload);
        Ok(QueuedMessage { partition: lane, message: sequence, stored_at, payload })
    }
}

/// The command queue. A clone shares what was read, and is a reader of its own: it is told by itself when what it has
/// proven has to be proven again.
#[derive(Clone)]
pub struct NatsQueue(Tails<Commands>);

impl NatsQueue {
    /// The queue of this connection.
    #[must_use]
    pub fn new(nats: &Nats) -> Self {
        Self(Tails::new(nats.clone(), Commands, true))
    }

    /// What rings when commands arrive, of those partitions that are read.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        self.0.bells()
    }

    /// One bundle of each partition at most.
    async fn wave(&self, bundles: Vec<(usize, Bundle)>) -> Vec<(usize, Partition, PortResult<()>)> {
        let generation = self.0.generation();
        let places: Vec<(usize, Partition)> =
            bundles.iter().map(|(index, bundle)| (*index, bundle.partition)).collect();
        let outgoing = bundles.into_iter().map(|(_, bundle)| Outgoing {
            subject: command_subject(bundle.partition),
            headers: HeaderMap::new(),
            payload: bundle.payload.into(),
        });
        let stored = publish(self.0.nats(), outgoing.collect()).await;
        let answer = |((index, partition), stored): (_, PortResult<u64>)| {
            let stored = stored.map(|sequence| self.0.acknowledged(generation, partition, sequence));
            (index, partition, stored)
        };
        places.into_iter().zip(stored).map(answer).collect()
    }
}

impl CommandQueue for NatsQueue {
    async fn created_at(&self) -> PortResult<u64> {
        let created_at = created_at(self.0.nats(), COMMANDS).await?;
        self.0.created(COMMANDS, created_at);
        Ok(created_at)
    }

    async fn enqueue(&self, bundles: Vec<Bundle>) -> Vec<PortResult<()>> {
        let mut answers: Vec<PortResult<()>> = vec![Err(connection_lost()); bundles.len()];
        let mut refused: BTreeMap<Partition, PortError> = BTreeMap::new();
        let most = self.0.nats().max_payload();
        let mut waiting: Vec<(usize, Bundle)> = bundles.into_iter().enumerate().collect();
        while !waiting.is_empty() {
            let mut wave: Vec<(usize, Bundle)> = Vec::new();
            let mut taken: BTreeSet<Partition> = BTreeSet::new();
            let mut later = Vec::new();
            for (index, bundle) in waiting {
                let (partition, bytes) = (bundle.partition, bundle.payload.len());
                if let Some(error) = refused.get(&partition) {
                    // Those behind it fail too, or they would overtake it.
                    answers[index] = Err(error.clone());
                } else if taken.contains(&partition) {
                    later.push((index, bundle));
                } else if bytes > most {
                    let error = PortError::Content(format!("{bytes} bytes, the server takes {most}"));
                    refused.insert(partition, error.clone());
                    answers[index] = Err(error);
                } else {
                    taken.insert(partition);
                    wave.push((index, bundle));
                }
            }
            for (index, partition, stored) in self.wave(wave).await {
                if let Err(error) = &stored {
                    refused.insert(partition, error.clone());
                }
                answers[index] = stored;
            }
            waiting = later;
        }
        answers
    }

    async fn message(&self, partition: Partition, message: u64) -> PortResult<Option<QueuedMessage>> {
        let found = certain(self.0.nats(), COMMANDS, message).await?;
        let found = found.filter(|found| found.subject.as_str() == command_subject(partition));
        found.map(|found| Commands.item(partition, &as_stored(&found)?)).transpose()
    }

    async fn read(&self, after: &[(Partition, u64)], limit: usize) -> PortResult<Vec<QueuedMessage>> {
        self.0.read(after, limit).await
    }

    /// A number goes by the queue in which it was proven. So nothing is purged over a connection of which this reader has not
    /// been told, and no purge is handed over late. A rest stays: a purge that was handed over just before its connection
    /// broke, and not yet written, is written to the next one.
    async fn purge(&self, before: &[(Partition, u64)]) -> PortResult<()> {
        let purges = before.iter().filter(|(_, before)| *before > 1).map(async |(partition, before)| {
            let request = json!({"filter": command_subject(*partition), "seq": before});
            let subject = format!("STREAM.PURGE.{COMMANDS}");
            let purging = self.0.nats().request::<Value>(&subject, &request);
            let purged = self.0.while_proven(purging).await?;
            purged.map_err(|error| api_error(COMMANDS, &error))?;
            self.0.purged(*partition, *before);
            Ok(())
        });
        join_all(purges).await.into_iter().collect()
    }
}

/// Which message of a stream.
pub(super) enum Which {
    /// The one with this number.
    Number(u64),
    /// The last one under these subjects.
    Last(String),
    /// The first one under these subjects with this number or a greater one.
    Next(&'static str, u64),
}

/// How often it is asked again for a message that has to be there, and the pause between: longer than a server may believe
/// that it leads a stream while the others have chosen another, which is ten seconds.
const DOUBTS: (u32, Duration) = (24, Duration::from_millis(500));

/// The message with this number, which somebody has seen. That it is not there makes people look, so where a stream has
/// copies that is not taken from one answer: a server that comes back from a pause answers for a moment as if it led the
/// stream still, and has not heard of what came since.
pub(super) async fn certain(nats: &Nats, stream: &str, number: u64) -> PortResult<Option<StreamMessage>> {
    let mut doubts = None;
    loop {
        if let Some(found) = stored(nats, stream, Which::Number(number)).await? {
            return Ok(Some(found));
        }
        let left = match doubts {
            Some(left) => left,
            None if replicas(nats, stream).await? > 1 => DOUBTS.0,
            None => 0,
        };
        let Some(left) = left.checked_sub(1) else { return Ok(None) };
        doubts = Some(left);
        tokio::time::sleep(DOUBTS.1).await;
    }
}

/// A stored message, as the stream's leader has it, and nobody else: another copy may be behind.
pub(super) async fn stored(nats: &Nats, stream: &str, which: Which) -> PortResult<Option<StreamMessage>> {
    let asking = async {
        let unavailable =
            |error: &dyn std::fmt::Display| PortError::Unavailable(format!("{stream}: {error}"));
        let handle =
            nats.jetstream().get_stream_no_info(stream).await.map_err(|error| unavailable(&error))?;
        let asked = handle.raw_message_builder();
        let asked = match which {
            // Numbers begin with 1; 0 would ask for nothing in particular.
            Which::Number(0) => return Ok(None),
            Which::Number(number) => asked.sequence(number),
            Which::Last(subjects) => asked.last_by_subject(subjects),
            Which::Next(subjects, number) => asked.next_by_subject(subjects).sequence(number.max(1)),
        };
        match asked.send().await {
            Ok(message) => Ok(Some(message)),
            Err(error) => unstored(stream, &error),
        }
    };
    nats.answered(asking).await
}

/// A message that was asked for by number, as the lanes read it.
///
/// # Errors
///
/// When it was stored at a time that is none.
pub(super) fn as_stored(message: &StreamMessage) -> PortResult<InStream<'_>> {
    let StreamMessage { subject, sequence, payload, .. } = message;
    let stored_at = nanos(message).ok_or_else(|| {
        PortError::Broken(format!("{subject}: message {sequence} was stored before all time"))
    })?;
    Ok(InStream { sequence: *sequence, stored_at, subject, payload })
}

/// When a message was stored, in nanoseconds since the Unix epoch.
pub(super) fn nanos(message: &StreamMessage) -> Option<u64> {
    u64::try_from(message.time.unix_timestamp_nanos()).ok()
}

fn unstored(stream: &str, error: &RawMessageError) -> PortResult<Option<StreamMessage>> {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => Ok(None),
        RawMessageErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Err(PortError::Unavailable(missing(stream)))
        }
        RawMessageErrorKind::JetStream(refusal) => Err(api_error(stream, &refusal)),
        RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => {
            Err(PortError::Unavailable(format!("{stream}: {error}")))
        }
    }
}
