//! Reading the dead letters of other contexts: the stream DEAD again.
//!
//! The rule this module protects: what is shown of a message of another context is what was kept of it. Where it had to be
//! shortened, the whole of it is taken from where it came from, and only where it is that message still.

use async_nats::jetstream::message::StreamMessage;
use eventsourcing::environment::Timestamp;
use eventsourcing::outcome::Fingerprint;
use eventsourcing::ports::{
    ForeignEvents as _, ForeignLetter, ForeignLetters, ForeignMessage, ForeignPosition, PortError, PortResult,
};

use super::dead::{NatsDeadLetters, said};
use super::fetch::{Range, batch};
use super::foreign::NatsForeignEvents;
use super::queue::{Which, nanos, stored};
use super::streams::DEAD;

/// The subjects of messages of other contexts.
const FOREIGN: &str = "financing.dead.registering.>";

/// The most bytes that are read at once, and one message: whoever wants more asks for what is behind it.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

impl ForeignLetters for NatsDeadLetters {
    async fn foreign(&self, after: u64, limit: usize) -> PortResult<Vec<ForeignLetter>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut kept = Vec::new();
        let range = Range { after, most: limit, most_bytes: PAGE_BYTES };
        batch(&self.0, DEAD, FOREIGN, range, |message| {
            kept.push(message);
            Ok(())
        })
        .await?;
        if kept.is_empty() {
            // A copy that is behind may not have the next one yet. That there is none is for the leader to say.
            let next = Which::Next(FOREIGN, after.saturating_add(1));
            kept.extend(stored(&self.0, DEAD, next).await?);
        }
        let (mut letters, mut bytes) = (Vec::with_capacity(kept.len()), 0);
        for message in &kept {
            // (What was shortened is whole again, and larger.)
            if bytes >= PAGE_BYTES {
                break;
            }
            let letter = self.letter(message).await?;
            bytes += letter.message.payload.len();
            letters.push(letter);
        }
        Ok(letters)
    }
}

impl NatsDeadLetters {
    async fn letter(&self, kept: &StreamMessage) -> PortResult<ForeignLetter> {
        match self.described(kept).await {
            Ok(letter) => Ok(letter),
            Err(error @ PortError::Unavailable(_)) => Err(error),
            // It was not kept by this platform, or is damaged: it hides no other.
            Err(error) => Ok(undescribed(kept, &error)),
        }
    }

    async fn described(&self, kept: &StreamMessage) -> PortResult<ForeignLetter> {
        let broken = |what: &str| {
            PortError::Broken(format!("message {} of {DEAD} does not say {what} as it must", kept.sequence))
        };
        let says = |name: &'static str| {
            kept.headers.get(name).map(|value| value.as_str().to_owned()).ok_or_else(|| broken(name))
        };
        let number = |name: &'static str| says(name)?.parse::<u64>().map_err(|_| broken(name));
        let position = ForeignPosition {
            created_at: number(said::CREATED_AT)?,
            message: number(said::MESSAGE)?,
            fingerprint: fingerprint(&says(said::SHA256)?).ok_or_else(|| broken(said::SHA256))?,
        };
        let mut message = ForeignMessage {
            message: position.message,
            subject: says(said::SUBJECT)?,
            payload: kept.payload.as_ref().into(),
        };
        let mut whole = kept.headers.get(said::SHORTENED).is_none();
        if !whole && let Some(found) = self.origin(&position).await? {
            (message, whole) = (found, true);
        }
        Ok(ForeignLetter {
            number: kept.sequence,
            kept_at: Timestamp::from_micros(nanos(kept).ok_or_else(|| broken("when it was stored"))? / 1000),
            position,
            message,
            whole,
            reason: says(said::REASON)?,
        })
    }

    /// The message where it came from, where that still has it.
    async fn origin(&self, position: &ForeignPosition) -> PortResult<Option<ForeignMessage>> {
        let events = NatsForeignEvents::new(&self.0);
        if events.created_at().await? != position.created_at {
            return Ok(None);
        }
        let found = events.message(position.message).await?;
        Ok(found.filter(|found| Fingerprint::of(&found.payload) == position.fingerprint))
    }
}

/// A letter of which is known where it stands, and what was kept of it. Under which subject that is says which message it was; where
/// that says nothing either, it is known by its own number.
fn undescribed(kept: &StreamMessage, error: &PortError) -> ForeignLetter {
    let place = kept.subject.rsplit('.').next().and_then(|last| last.split_once('-'));
    let place =
        place.and_then(|(created_at, message)| Some((created_at.parse().ok()?, message.parse().ok()?)));
    let (created_at, message) = place.unwrap_or((0, kept.sequence));
    let fingerprint = Fingerprint::of(&kept.payload);
    ForeignLetter {
        number: kept.sequence,
        kept_at: Timestamp::from_micros(nanos(kept).unwrap_or_default() / 1000),
        position: ForeignPosition { created_at, message, fingerprint },
        message: ForeignMessage { message, subject: String::new(), payload: kept.payload.as_ref().into() },
        whole: false,
        reason: format!("what was kept of it cannot be read: {error}"),
    }
}

fn fingerprint(hex: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}
