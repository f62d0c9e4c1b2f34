//! Dead letters: the stream DEAD.
//!
//! The rule this module protects: a dead letter is kept once, under a subject that says which one it is: a second message
//! under that subject is refused. That it is refused does not mean that the first one is kept: in a cluster that may be on
//! its way to a majority yet, and not get there. So it is looked for.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use eventsourcing::outcome::Fingerprint;
use eventsourcing::ports::{DeadLetter, DeadLetters, PortError, PortResult};

use super::connect::Nats;
use super::event::{CONTENT_TYPE, encode};
use super::publish::{Outgoing, publish};
use super::queue::{Which, stored};
use super::streams::DEAD;

/// What is said about a message of another context beside its payload.
pub(super) mod said {
    pub(in super::super) const REASON: &str = "financing-reason";
    pub(in super::super) const SUBJECT: &str = "financing-subject";
    pub(in super::super) const CREATED_AT: &str = "financing-stream-created-at";
    pub(in super::super) const MESSAGE: &str = "financing-message";
    pub(in super::super) const SHA256: &str = "financing-sha256";
    pub(in super::super) const SHORTENED: &str = "financing-shortened-from";
}

/// The longest reason in a header, in bytes.
const REASON: usize = 1024;

/// Where dead letters are kept.
#[derive(Debug, Clone)]
pub struct NatsDeadLetters(pub(super) Nats);

impl NatsDeadLetters {
    /// Those of this connection.
    #[must_use]
    pub fn new(nats: &Nats) -> Self {
        Self(nats.clone())
    }
}

impl DeadLetters for NatsDeadLetters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> PortResult<()> {
        let most = self.0.max_payload();
        let messages = letters.iter().map(|letter| message(letter, most));
        let messages: Vec<Outgoing> = messages.collect::<PortResult<_>>()?;
        let subjects: Vec<String> = messages.iter().map(|message| message.subject.clone()).collect();
        for (subject, kept) in subjects.into_iter().zip(publish(&self.0, messages).await) {
            match kept {
                Ok(_) => {}
                Err(PortError::Conflict(refused)) => {
                    let found = stored(&self.0, DEAD, Which::Last(subject)).await?;
                    found.ok_or(PortError::Unavailable(refused))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn message(letter: &DeadLetter, most: usize) -> PortResult<Outgoing> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let mut message = match letter {
        DeadLetter::Command(record) => {
            headers.insert("content-type", CONTENT_TYPE);
            let subject = format!("financing.dead.commands.{}", record.record_id);
            Outgoing { subject, headers, payload: encode(record)?.into() }
        }
        DeadLetter::Foreign { position, message, reason } => {
            headers.insert(said::REASON, line(reason).as_str());
            headers.insert(said::SUBJECT, line(&message.subject).as_str());
            headers.insert(said::CREATED_AT, position.created_at.to_string().as_str());
            headers.insert(said::MESSAGE, position.message.to_string().as_str());
            headers.insert(said::SHA256, hex(position.fingerprint).as_str());
            let subject = format!("financing.dead.registering.{}-{}", position.created_at, position.message);
            Outgoing { subject, headers, payload: Bytes::copy_from_slice(&message.payload) }
        }
    };
    // It came as large as a message may be, and has grown by what is said about it. The whole of it is where it came from.
    if message.len() > most {
        message.headers.insert(said::SHORTENED, message.payload.len().to_string().as_str());
        let excess = message.len().saturating_sub(most);
        message.payload.truncate(message.payload.len().saturating_sub(excess));
    }
    Ok(message)
}

fn hex(fingerprint: Fingerprint) -> String {
    fingerprint
        .0
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// What fits into a header: one line, not too long.
fn line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.get(..text.floor_char_boundary(REASON)).unwrap_or_default().trim().to_owned()
}
