//! Publishing with acknowledgements.
//!
//! The rule this module protects: messages go out in the order in which they were handed in, their acknowledgements are
//! awaited in that order, and what is under way is bounded. When the connection is lost, nothing more is sent: what is
//! behind a message whose fate is unknown is not stored in front of it. What was refused has a fate: those behind it, which
//! are under way by then, may be stored. Who may not have that hands them in one after the other.

use std::collections::VecDeque;
use std::pin::{Pin, pin};

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use eventsourcing::ports::{PortError, PortResult};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{Nats, PATIENCE, connection_lost, stuck};
use super::error::publish_error;

/// Messages under way at once, and their bytes.
const UNDER_WAY: (usize, usize) = (1024, 8 * 1024 * 1024);

/// A message to be stored.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl Outgoing {
    /// Its size, as the server counts it, about: headers are counted with all that is written around them.
    pub(super) fn len(&self) -> usize {
        let headers = self.headers.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
        });
        headers.sum::<usize>() + HEADERS + self.payload.len()
    }
}

/// What stands around the headers of a message, in bytes.
const HEADERS: usize = "NATS/1.0\r\n\r\n".len();

struct UnderWay {
    subject: Subject,
    bytes: usize,
    acknowledged: PortResult<PublishAckFuture>,
}

/// Publishes, and answers with the number that each message got.
pub(super) async fn publish(nats: &Nats, messages: Vec<Outgoing>) -> Vec<PortResult<u64>> {
    let mut lost = pin!(nats.lost());
    let mut answers = Vec::with_capacity(messages.len());
    let mut under_way: VecDeque<UnderWay> = VecDeque::new();
    let mut bytes = 0;
    let mut fate: PortResult<()> = nats.connected();
    let expected = messages.len();
    for message in messages {
        if fate.is_err() {
            break;
        }
        let (subject, size) = (Subject::from(message.subject), message.payload.len());
        let outgoing = PublishMessage::build().payload(message.payload).headers(message.headers);
        // A full buffer, on a connection that does not write, is a connection that is lost.
        let sent = tokio::select! {
            sent = timeout(PATIENCE, nats.jetstream().send_publish(subject.clone(), outgoing)) => sent,
            () = &mut lost => {
                fate = Err(connection_lost());
                break;
            }
        };
        let Ok(sent) = sent else {
            fate = Err(stuck());
            break;
        };
        let acknowledged = sent.map_err(|error| publish_error(&subject, &error));
        bytes += size;
        under_way.push_back(UnderWay { subject, bytes: size, acknowledged });
        while under_way.len() >= UNDER_WAY.0 || bytes > UNDER_WAY.1 {
            let Some(oldest) = under_way.pop_front() else { break };
            bytes -= oldest.bytes;
            answers.push(settle(oldest, &mut fate, lost.as_mut()).await);
        }
    }
    for one in under_way {
        answers.push(settle(one, &mut fate, lost.as_mut()).await);
    }
    // Those that were not sent, because of what became of those before them.
    let unsent = fate.err().unwrap_or_else(connection_lost);
    answers.resize_with(expected, || Err(unsent.clone()));
    answers
}

/// Waits for an acknowledgement. What never comes decides the fate of everything behind it.
async fn settle(
    one: UnderWay,
    fate: &mut PortResult<()>,
    lost: Pin<&mut impl Future<Output = ()>>,
) -> PortResult<u64> {
    fate.clone()?;
    let acknowledged = one.acknowledged?.into_future();
    let answer = tokio::select! {
        biased;
        answer = timeout_at(Instant::now() + PATIENCE, acknowledged) => answer,
        () = lost => {
            *fate = Err(connection_lost());
            return Err(connection_lost());
        }
    };
    let Ok(answer) = answer else {
        let late = PortError::Unavailable(format!("{}: no acknowledgement came in time", one.subject));
        *fate = Err(late.clone());
        return Err(late);
    };
    answer.map(|acknowledged| acknowledged.sequence).map_err(|error| publish_error(&one.subject, &error))
}
