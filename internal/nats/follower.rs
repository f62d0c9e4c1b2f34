//! One lane's follower: what is stored is here a moment later.
//!
//! The rule this module protects: a follower brings everything behind its start, in order, or it ends and says so. What it
//! is sent is numbered without a gap, it hears from the server in regular beats, and one connection is all that it lives.

use std::sync::Weak;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortError, PortResult};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connect::Nats;
use super::error::api_error;
use super::streams::created_at;
use super::tails::{InStream, Lanes, Shared};

/// How often the server says that it is there when there is nothing else to say. In a cluster it may be another server than the
/// one that we are connected to, and nothing but its silence says that it died.
const BEAT: Duration = Duration::from_secs(1);
/// So many beats without a word, and the follower is cut off.
const SILENCE: u32 = 3;
/// How long the server keeps a consumer that nobody listens to.
const ORPHANED: Duration = Duration::from_secs(10);
/// Messages that are taken in before the bells are rung.
const AT_ONCE: usize = 256;

/// Where a follower starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) lane: Partition,
    /// What the window has before the first message.
    pub(super) after: u64,
    /// Which of the lane's followers it is.
    pub(super) incarnation: u64,
}

/// Why a follower ends.
enum End {
    /// Nobody wants it any more.
    Unwanted,
    /// It may have missed something.
    OutOfStep(String),
}

/// Follows a lane until it ends.
pub(super) async fn follow<L: Lanes>(shared: Weak<Shared<L>>, nats: Nats, start: Start) {
    let made = nats.made();
    let mut subscriber = match begin(&shared, &nats, &start).await {
        Ok(Some(subscriber)) => subscriber,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, lane = %start.lane, "a lane is not followed");
            if let Some(shared) = shared.upgrade() {
                shared.leave(&start);
            }
            return;
        }
    };
    let end = tokio::select! {
        end = run(&shared, &nats, &start, &mut subscriber) => end,
        () = made => End::Unwanted,
    };
    // The consumer goes when nobody listens to it any more.
    drop(subscriber);
    let Some(shared) = shared.upgrade() else { return };
    match end {
        End::Unwanted => shared.leave(&start),
        End::OutOfStep(reason) => shared.fell_out(&start, &reason),
    }
    // The connection may be another now: whoever waits is woken.
    shared.generation();
}

async fn begin<L: Lanes>(
    shared: &Weak<Shared<L>>,
    nats: &Nats,
    start: &Start,
) -> PortResult<Option<Subscriber>> {
    let Some((stream, filter)) =
        shared.upgrade().map(|shared| (shared.lanes.stream(start.lane), shared.lanes.filter(start.lane)))
    else {
        return Ok(None);
    };
    let inbox = nats.client().new_inbox();
    let name = inbox.rsplit('.').next().unwrap_or_default().to_owned();
    let subscriber = nats.client().subscribe(inbox.clone()).await;
    let subscriber = subscriber.map_err(|error| PortError::Unavailable(format!("{stream}: {error}")))?;
    let request = json!({"stream_name": stream, "action": "create", "config": {
        "name": name,
        "description": "a follower",
        "filter_subject": filter,
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": start.after + 1,
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "idle_heartbeat": nanos(BEAT),
        "flow_control": true,
        "inactive_threshold": nanos(ORPHANED),
        "num_replicas": 1,
        "mem_storage": true,
    }});
    let subject = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
    let created = nats.request::<Value>(&subject, &request).await?;
    created.map_err(|error| api_error(&stream, &error))?;
    // It follows this stream from here on: a number past the end of another one would wait for ever.
    let created_at = created_at(nats, &stream).await?;
    let Some(shared) = shared.upgrade() else { return Ok(None) };
    Ok(shared.ready(start, created_at).then_some(subscriber))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn run<L: Lanes>(
    shared: &Weak<Shared<L>>,
    nats: &Nats,
    start: &Start,
    subscriber: &mut Subscriber,
) -> End {
    let mut steps = Steps { delivered: 0, last: start.after };
    let mut beats = interval_at(Instant::now() + BEAT, BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = 0;
    loop {
        let message = tokio::select! {
            message = subscriber.next() => message,
            _ = beats.tick() => {
                silent += 1;
                if silent > SILENCE {
                    return End::OutOfStep(format!("the follower of lane {} hears nothing any more", start.lane));
                }
                match shared.upgrade() {
                    Some(shared) if shared.beat(start) => continue,
                    Some(_) | None => return End::Unwanted,
                }
            }
        };
        silent = 0;
        let Some(shared) = shared.upgrade() else { return End::Unwanted };
        let mut next = message;
        for _ in 0..AT_ONCE {
            let Some(message) = next else { return End::Unwanted };
            if let Err(end) = take(&shared, nats, start, &mut steps, message).await {
                return end;
            }
            match subscriber.next().now_or_never() {
                Some(message) => next = message,
                None => break,
            }
        }
        shared.arrived();
    }
}

/// Where a follower has come to.
struct Steps {
    /// How many messages the server has sent.
    delivered: u64,
    /// The last one's number in the stream.
    last: u64,
}

async fn take<L: Lanes>(
    shared: &Shared<L>,
    nats: &Nats,
    start: &Start,
    steps: &mut Steps,
    message: Message,
) -> Result<(), End> {
    let out = |what: String| End::OutOfStep(format!("the follower of lane {}: {what}", start.lane));
    match message.status {
        None | Some(StatusCode::OK) => {}
        Some(StatusCode::IDLE_HEARTBEAT) => return beat(nats, steps, &message).await.map_err(out),
        Some(status) => return Err(out(format!("the server says {status}"))),
    }
    let place = message.reply.as_deref().and_then(Place::parse);
    let Some(place) = place else { return Err(out("a message without its place".to_owned())) };
    if place.delivered != steps.delivered + 1 || place.sequence <= steps.last {
        return Err(out(format!("{place:?} comes after {}, {}", steps.delivered, steps.last)));
    }
    if L::GAPLESS && place.sequence != steps.last + 1 {
        return Err(out(format!("message {} comes after {}", place.sequence, steps.last)));
    }
    *steps = Steps { delivered: place.delivered, last: place.sequence };
    // Who asks for a message that cannot be read gets a page, and the error with it.
    let Place { sequence, stored_at, .. } = place;
    let stored = InStream { sequence, stored_at, subject: &message.subject, payload: &message.payload };
    let item = shared.lanes.item(start.lane, &stored);
    let item = item.map_err(|_| End::Unwanted)?;
    let bytes = message.payload.len() + message.subject.len() + 64;
    if shared.take_in(start, place.sequence, bytes, item) { Ok(()) } else { Err(End::Unwanted) }
}

/// The server says that it is there, or asks whether we are.
async fn beat(nats: &Nats, steps: &Steps, message: &Message) -> Result<(), String> {
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
    let last = header("Nats-Last-Consumer").and_then(|last| last.parse::<u64>().ok());
    if last.is_some_and(|last| last != steps.delivered) {
        return Err(format!("{} messages have come, {last:?} were sent", steps.delivered));
    }
    let asked = message.reply.as_ref().map(ToString::to_string);
    if let Some(reply) = asked.or_else(|| header("Nats-Consumer-Stalled")) {
        nats.client().publish(reply, Bytes::new()).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Where a delivered message stands, from the subject that it would be acknowledged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: u64,
    delivered: u64,
    /// By the server's clock, in nanoseconds since the Unix epoch.
    stored_at: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<delivered>.<time>.<pending>`; later servers may put a domain
    /// and an account before the stream, and a token behind.
    fn parse(subject: &str) -> Option<Self> {
        let tokens: Vec<&str> = subject.strip_prefix("$JS.ACK.")?.split('.').collect();
        let first = match tokens.len() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let number = |index: usize| tokens.get(index)?.parse().ok();
        let stored_at = number(first + 2)?;
        Some(Self { sequence: number(first)?, delivered: number(first + 1)?, stored_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_both_forms_of_the_subject() {
        let place = Some(Place { sequence: 42, delivered: 7, stored_at: 1_795_265_920_240_552_480 });
        assert_eq!(Place::parse("$JS.ACK.EVENTS_3.abc.1.42.7.1795265920240552480.1"), place);
        assert_eq!(Place::parse("$JS.ACK._.hash.EVENTS_3.abc.1.42.7.1795265920240552480.1"), place);
        assert_eq!(Place::parse("$JS.ACK._.hash.EVENTS_3.abc.1.42.7.1795265920240552480.1.tok"), place);
        for wrong in ["", "_INBOX.x", "$JS.ACK.EVENTS_3", "$JS.ACK.a.b.c.d.e.f.g"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }
}
