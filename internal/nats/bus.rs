//! The event bus: one stream a partition.
//!
//! The rule this module protects: the n-th message of a partition's stream is the n-th record of its log. Every message is
//! published with the number that must stand before it, so the stream refuses a second relayer, a repeat and a gap.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use eventsourcing::environment::Doorbells;
use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{BusTail, EventBus, PortError, PortResult, Publication};
use eventsourcing::record::Record;
use futures_util::future::try_join_all;
use serde_json::Value;

use super::connect::Nats;
use super::error::{NatsError, missing};
use super::event::{CONTENT_TYPE, decode, encode, subject};
use super::publish::{Outgoing, publish};
use super::queue::{Which, stored};
use super::streams::{Streams, event_subjects, events};
use super::tails::{InStream, Lanes, Tails};

/// The lanes of the bus: a stream each.
pub(super) struct Facts;

impl Lanes for Facts {
    type Item = Arc<Record>;
    const GAPLESS: bool = true;

    fn stream(&self, lane: Partition) -> String {
        events(lane)
    }

    fn filter(&self, lane: Partition) -> String {
        event_subjects(lane)
    }

    fn item(&self, lane: Partition, message: &InStream<'_>) -> PortResult<Arc<Record>> {
        decode(lane, message.sequence, message.payload)
    }
}

/// The event bus. A clone shares what was read, and is a reader of its own.
#[derive(Clone)]
pub struct NatsBus {
    tails: Tails<Facts>,
    /// With these a stream that was lost is made again.
    made_with: Option<Arc<Streams>>,
}

impl NatsBus {
    /// For a loop that stores where it stands: each handle is told once, by an error of `read`, when the connection was
    /// made anew, and the loop proves its positions again.
    #[must_use]
    pub fn for_loops(nats: &Nats) -> Self {
        Self { tails: Tails::new(nats.clone(), Facts, true), made_with: None }
    }

    /// For readers at any number of positions, which prove nothing.
    #[must_use]
    pub fn for_watchers(nats: &Nats) -> Self {
        Self { tails: Tails::new(nats.clone(), Facts, false), made_with: None }
    }

    /// For the relayer: a stream that was lost is made again where it is asked for its end, and the relayer fills it
    /// from the log.
    #[must_use]
    pub fn for_relayer(nats: &Nats, streams: Streams) -> Self {
        Self { made_with: Some(Arc::new(streams)), ..Self::for_loops(nats) }
    }

    /// What rings when records arrive, of those partitions that are read.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        self.tails.bells()
    }

    /// What is known of the streams' ends holds for as long as this number stays: behind a connection that was made anew,
    /// a server that was killed may have lost what it had acknowledged and not yet flushed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.tails.generation()
    }

    async fn tail(&self, partition: Partition) -> PortResult<BusTail> {
        let (nats, stream) = (self.tails.nats(), events(partition));
        let empty = BusTail { partition, last: Sequence::ZERO, record_id: None };
        let Some(info) = nats.stream_info(&stream).await? else {
            let Some(streams) = &self.made_with else {
                return Err(PortError::Unavailable(missing(&stream)));
            };
            tracing::warn!(stream, "a stream was lost: it is made again, and filled from the log");
            nats.ensure_event_stream(streams, partition).await.map_err(|error| remade(&error))?;
            self.tails.disturb("a stream was made again");
            return Ok(empty);
        };
        let number = |field: &str| info.pointer(&format!("/state/{field}")).and_then(Value::as_u64);
        let (first, count, last) = (number("first_seq"), number("messages"), number("last_seq"));
        if last.unwrap_or_default() > 0 && (first != Some(1) || count != last) {
            return Err(PortError::Broken(format!(
                "messages were removed from {stream}: {count:?} are left, from {first:?} to {last:?}. Delete the stream: \
                 the relayer fills it again from the log."
            )));
        }
        let Some(message) = stored(nats, &stream, Which::Last(event_subjects(partition))).await? else {
            return Ok(empty);
        };
        let record = decode(partition, message.sequence, &message.payload)?;
        Ok(BusTail { partition, last: record.sequence, record_id: Some(record.record_id) })
    }

    /// The publication's messages, or why it cannot be published.
    fn messages(&self, publication: &Publication) -> PortResult<Vec<Outgoing>> {
        let Publication { partition, expected, ref records } = *publication;
        let most = self.tails.nats().max_payload();
        let mut last = expected;
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            let position = record.position();
            if record.partition != partition || record.sequence != last.next() {
                let next = last.next();
                return Err(PortError::Broken(format!("{position} is published as {partition}-{next}")));
            }
            let mut headers = HeaderMap::new();
            headers.insert("content-type", CONTENT_TYPE);
            headers.insert(NATS_EXPECTED_STREAM, events(partition).as_str());
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string().as_str());
            let message = Outgoing { subject: subject(record)?, headers, payload: encode(record)?.into() };
            if message.len() > most {
                let bytes = message.len();
                let reason = format!("record {position} takes {bytes} bytes, the server takes {most}");
                return Err(PortError::Content(reason));
            }
            messages.push(message);
            last = record.sequence;
        }
        Ok(messages)
    }
}

fn remade(error: &NatsError) -> PortError {
    if error.retryable() {
        PortError::Unavailable(error.to_string())
    } else {
        PortError::Broken(error.to_string())
    }
}

impl EventBus for NatsBus {
    async fn tails(&self, partitions: &[Partition]) -> PortResult<Vec<BusTail>> {
        try_join_all(partitions.iter().map(|partition| self.tail(*partition))).await
    }

    /// First of each publication its first record, and the others when that is stored: a record that happens to fit onto
    /// the stream's end must not be stored where those in front of it were refused.
    async fn publish(&self, publications: Vec<Publication>) -> Vec<PortResult<()>> {
        let generation = self.tails.generation();
        let mut answers: Vec<PortResult<()>> = Vec::with_capacity(publications.len());
        let (mut firsts, mut others) = (Vec::new(), Vec::new());
        for (index, publication) in publications.iter().enumerate() {
            let place = (index, publication.partition);
            answers.push(self.messages(publication).map(|messages| {
                let mut messages = messages.into_iter();
                firsts.extend(messages.next().map(|first| (place, first)));
                others.extend(messages.map(|message| (place, message)));
            }));
        }
        for wave in [firsts, others] {
            let refused = |index: &usize| answers.get(*index).is_none_or(Result::is_err);
            let (places, messages): (Vec<_>, Vec<_>) =
                wave.into_iter().filter(|((index, _), _)| !refused(index)).unzip();
            let stored = publish(self.tails.nats(), messages).await;
            for ((index, partition), stored) in places.into_iter().zip(stored) {
                let Some(answer) = answers.get_mut(index) else { continue };
                match stored {
                    Ok(sequence) => self.tails.acknowledged(generation, partition, sequence),
                    // The first that failed says why; those behind it had to fail.
                    Err(error) if answer.is_ok() => *answer = Err(error),
                    Err(_) => {}
                }
            }
        }
        answers
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        let after: Vec<(Partition, u64)> =
            after.iter().map(|(partition, sequence)| (*partition, sequence.get())).collect();
        self.tails.read(&after, limit).await
    }

    async fn records(&self, positions: &[LogPosition]) -> PortResult<Vec<Option<Arc<Record>>>> {
        let positions: Vec<(Partition, u64)> =
            positions.iter().map(|position| (position.partition, position.sequence.get())).collect();
        self.tails.at(&positions).await
    }
}
