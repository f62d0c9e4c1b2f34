//! Pages straight from the server, for who stands outside the windows.
//!
//! The rule this module protects: a page is what the stream has behind a position, without a gap, and says whether that was
//! all. Of a stream with copies any of them may answer, also one that is behind: so a page is a beginning of what there is, and
//! nobody may conclude from its end that there is no more. Many lanes are asked at once, and what they may bring is bounded. A lane that cannot be read now holds up no other.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortError, PortResult};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::connect::{Nats, PATIENCE, connection_lost, stuck};
use super::error::missing;
use super::queue::{Which, as_stored, stored};
use super::tails::{Lanes, Shared};

/// The most bytes that are asked for at once, over all lanes. One message is sent whatever its size.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Single items that are asked for at once.
const IN_FLIGHT: usize = 64;

/// What a lane has behind a position.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// The last item's position, or the one that was asked for.
    pub(super) last: u64,
    /// Whether there was nothing behind it.
    pub(super) at_end: bool,
    bytes: usize,
}

/// What several lanes have.
pub(super) struct Pages<T> {
    pub(super) lanes: BTreeMap<Partition, Page<T>>,
    /// Why one of them could not be read to where it was asked for. What it has before that is there.
    pub(super) unread: Option<PortError>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), unread: None }
    }
}

/// Pages of these lanes, until there are `limit` items in all, or no more, or about as many bytes as may be.
///
/// # Errors
///
/// When something is broken. What is only unavailable is said beside what the other lanes have.
pub(super) async fn fetch<L: Lanes>(
    shared: &Shared<L>,
    after: &[(Partition, u64)],
    limit: usize,
) -> PortResult<Pages<L::Item>> {
    let begin = |(lane, after): &(Partition, u64)| {
        (*lane, Page { items: Vec::new(), last: *after, at_end: false, bytes: 0 })
    };
    let mut pages: BTreeMap<Partition, Page<L::Item>> = after.iter().map(begin).collect();
    let (mut unreadable, mut unread) = (BTreeSet::new(), None);
    loop {
        let items: usize = pages.values().map(|page| page.items.len()).sum();
        let bytes: usize = pages.values().map(|page| page.bytes).sum();
        let is_open =
            |(lane, page): &(&Partition, &Page<L::Item>)| !page.at_end && !unreadable.contains(*lane);
        let open: Vec<(Partition, u64)> =
            pages.iter().filter(is_open).map(|(lane, page)| (*lane, page.last)).collect();
        let left = limit.saturating_sub(items);
        if open.is_empty() || left == 0 || bytes >= PAGE_BYTES {
            return Ok(Pages { lanes: pages, unread });
        }
        let share = left.div_ceil(open.len());
        let most = PAGE_BYTES.div_ceil(open.len());
        let more = open.iter().map(|(lane, last)| page(shared, *lane, *last, share, most));
        for ((lane, _), more) in open.iter().zip(join_all(more).await) {
            let more = match more {
                Ok(more) => more,
                Err(error @ PortError::Unavailable(_)) => {
                    unreadable.insert(*lane);
                    unread.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(page) = pages.get_mut(lane) {
                page.items.extend(more.items);
                page.bytes += more.bytes;
                page.last = more.last;
                page.at_end = more.at_end;
            }
        }
    }
}

/// The items at these positions, one answer a position, in order; `None` where the stream has none (yet).
///
/// # Errors
///
/// When one of them cannot be read.
pub(super) async fn at<L: Lanes>(
    shared: &Shared<L>,
    positions: &[(Partition, u64)],
) -> PortResult<Vec<Option<L::Item>>> {
    let one = async |(lane, position): (Partition, u64)| {
        let Some(before) = position.checked_sub(1) else { return Ok(None) };
        let page = page(shared, lane, before, 1, PAGE_BYTES).await?;
        let found = page.items.into_iter().next().filter(|_| page.last == position);
        if found.is_some() {
            return Ok(found);
        }
        // A page may come from a copy that is behind: whether there is none is for the stream's leader to say.
        let leader = stored(&shared.nats, &shared.lanes.stream(lane), Which::Number(position)).await?;
        leader.map(|message| shared.lanes.item(lane, &as_stored(&message)?)).transpose()
    };
    stream::iter(positions.iter().copied()).map(one).buffered(IN_FLIGHT).try_collect().await
}

async fn page<L: Lanes>(
    shared: &Shared<L>,
    lane: Partition,
    after: u64,
    most: usize,
    most_bytes: usize,
) -> PortResult<Page<L::Item>> {
    let stream = shared.lanes.stream(lane);
    let mut page = Page { items: Vec::new(), last: after, at_end: false, bytes: 0 };
    let range = Range { after, most, most_bytes };
    page.at_end = batch(&shared.nats, &stream, &shared.lanes.filter(lane), range, |found| {
        let broken = |what: &str| PortError::Broken(format!("{stream}: {what}"));
        let message = as_stored(&found)?;
        let sequence = message.sequence;
        if sequence <= page.last || (L::GAPLESS && sequence != page.last + 1) {
            return Err(broken(&format!("message {sequence} comes after {}", page.last)));
        }
        page.items.push(shared.lanes.item(lane, &message)?);
        page.bytes += message.payload.len();
        page.last = sequence;
        Ok(())
    })
    .await?;
    Ok(page)
}

/// What is asked for at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// Messages with greater numbers.
    pub(super) after: u64,
    /// At most so many.
    pub(super) most: usize,
    /// About so many bytes; one message whatever its size.
    pub(super) most_bytes: usize,
}

/// Takes the messages of a stream under these subjects, as any copy of it has them. Answers whether there were no more.
///
/// # Errors
///
/// When they do not come, or one of them is not taken.
pub(super) async fn batch(
    nats: &Nats,
    stream: &str,
    subjects: &str,
    range: Range,
    mut take: impl FnMut(StreamMessage) -> PortResult<()>,
) -> PortResult<bool> {
    nats.connected()?;
    let lost = nats.lost();
    let reading = async {
        let unavailable = |error: String| PortError::Unavailable(format!("{stream}: {error}"));
        let inbox = nats.client().new_inbox();
        let request = json!({
            "seq": range.after + 1,
            "batch": range.most,
            "max_bytes": range.most_bytes,
            "next_by_subj": subjects,
        });
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let asking = async {
            let subscribed = nats.client().subscribe(inbox.clone()).await;
            let answers = subscribed.map_err(|error| unavailable(error.to_string()))?;
            let request = Bytes::from(request.to_string());
            let sent = nats.client().publish_with_reply(subject, inbox, request).await;
            sent.map_err(|error| unavailable(error.to_string())).map(|()| answers)
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        let mut answers = asked.map_err(|_| stuck())??;
        loop {
            let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
            let answer = answer.map_err(|_| unavailable("a page did not come in time".to_owned()))?;
            let answer = answer.ok_or_else(connection_lost)?;
            match read(stream, answer)? {
                Answer::Message(found) => take(*found)?,
                Answer::End { at_end } => return Ok(at_end),
            }
        }
    };
    tokio::select! {
        at_end = reading => at_end,
        () = lost => Err(connection_lost()),
    }
}

/// What the server answers.
enum Answer {
    /// A message.
    Message(Box<StreamMessage>),
    /// That was all of the batch; or, at the end, of the stream.
    End { at_end: bool },
}

fn read(stream: &str, answer: Message) -> PortResult<Answer> {
    match answer.status {
        None | Some(StatusCode::OK) => {}
        Some(status) if status.as_u16() == 204 => {
            let at_end = number(answer.headers.as_ref(), "Nats-Num-Pending") == Some(0);
            return Ok(Answer::End { at_end });
        }
        Some(StatusCode::NOT_FOUND) => return Ok(Answer::End { at_end: true }),
        Some(StatusCode::NO_RESPONDERS) => return Err(PortError::Unavailable(missing(stream))),
        Some(status) => {
            let what = answer.description.unwrap_or_default();
            return Err(PortError::Unavailable(format!("{stream}: the server says {status} {what}")));
        }
    }
    let found = StreamMessage::try_from(answer)
        .map_err(|error| PortError::Broken(format!("{stream}: {error} in a message")))?;
    Ok(Answer::Message(Box::new(found)))
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}
