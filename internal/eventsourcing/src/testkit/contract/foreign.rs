//! What every way to another context's events promises: they come in order, as they were sent, and stay where they are;
//! and what every store of positions in it promises.

use crate::outcome::Fingerprint;
use crate::ports::{ForeignEvents, ForeignMessage, ForeignPosition, ForeignPositions};

use super::sample::CREATED_AT;

/// The suite of [`ForeignEvents`]. `make` answers with an empty stream, and with how somebody publishes to it: a subject,
/// one of the two `subjects`, and a payload.
pub async fn foreign_events<S, P, F>(make: F, subjects: [&'static str; 2])
where
    S: ForeignEvents + Clone,
    P: AsyncFn(String, Vec<u8>),
    F: AsyncFn() -> (S, P),
{
    an_empty_stream_answers_with_nothing(make().await).await;
    messages_come_back_as_they_were_and_in_order(make().await, subjects).await;
    a_read_goes_on_where_the_last_one_ended(make().await, subjects).await;
    a_message_is_found_by_its_number(make().await, subjects).await;
    the_creation_time_stays(make().await, subjects).await;
    two_handles_read_one_stream(make().await, subjects).await;
}

async fn read<S: ForeignEvents>(events: &S, after: u64, limit: usize) -> Vec<ForeignMessage> {
    let messages = events.read(after, limit).await.expect("a stream can be read");
    assert!(messages.len() <= limit, "a read keeps to its limit");
    assert!(messages.iter().all(|message| message.message > after), "only what stands behind");
    assert!(messages.is_sorted_by(|a, b| a.message < b.message), "numbers grow");
    messages
}

fn said(messages: &[ForeignMessage]) -> Vec<(&str, &[u8])> {
    messages.iter().map(|message| (message.subject.as_str(), &*message.payload)).collect()
}

async fn an_empty_stream_answers_with_nothing<S: ForeignEvents, P>((events, _): (S, P)) {
    assert!(read(&events, 0, 10).await.is_empty());
    assert!(read(&events, 5, 10).await.is_empty());
    assert_eq!(events.message(1).await, Ok(None));
}

async fn messages_come_back_as_they_were_and_in_order<S, P>((events, publish): (S, P), subjects: [&str; 2])
where
    S: ForeignEvents,
    P: AsyncFn(String, Vec<u8>),
{
    let payloads: [Vec<u8>; 6] = [
        b"{\"id\":\"it's \xf0\x9f\xa7\xbe\"}".to_vec(),
        b"".to_vec(),
        b"\xff\xfe\x00 no text".to_vec(),
        b"{\"id\":\"1\"}".to_vec(),
        b"{\"id\":\"1\"}".to_vec(),
        vec![b'x'; 60 * 1024],
    ];
    let sent: Vec<(&str, &[u8])> = payloads
        .iter()
        .zip(subjects.iter().cycle())
        .map(|(payload, subject)| (*subject, &payload[..]))
        .collect();
    for (subject, payload) in &sent {
        publish((*subject).to_owned(), payload.to_vec()).await;
    }
    let messages = read(&events, 0, 100).await;
    assert_eq!(said(&messages), sent, "whatever was sent, also twice");
}

async fn a_read_goes_on_where_the_last_one_ended<S, P>((events, publish): (S, P), subjects: [&str; 2])
where
    S: ForeignEvents,
    P: AsyncFn(String, Vec<u8>),
{
    let payloads: Vec<Vec<u8>> = (0..30).map(|number| format!("message {number}").into_bytes()).collect();
    let mut seen = Vec::new();
    let mut after = 0;
    // Some of them come while it is being read.
    for half in payloads.chunks(15) {
        for (payload, subject) in half.iter().zip(subjects.iter().cycle()) {
            publish((*subject).to_owned(), payload.clone()).await;
        }
        loop {
            let messages = read(&events, after, 4).await;
            let Some(last) = messages.last() else { break };
            after = last.message;
            seen.extend(messages.into_iter().map(|message| message.payload.to_vec()));
        }
    }
    assert_eq!(seen, payloads);
    let again: Vec<Vec<u8>> = read(&events, 0, 5).await.iter().map(|one| one.payload.to_vec()).collect();
    assert_eq!(again, payloads[..5], "what was read stays, and may be read again");
}

async fn a_message_is_found_by_its_number<S, P>((events, publish): (S, P), subjects: [&str; 2])
where
    S: ForeignEvents,
    P: AsyncFn(String, Vec<u8>),
{
    for (payload, subject) in ["a", "b", "c"].iter().zip(subjects.iter().cycle()) {
        publish((*subject).to_owned(), payload.as_bytes().to_vec()).await;
    }
    let messages = read(&events, 0, 10).await;
    assert_eq!(messages.len(), 3);
    for message in &messages {
        assert_eq!(events.message(message.message).await, Ok(Some(message.clone())));
    }
    assert_eq!(events.message(messages[2].message + 1000).await, Ok(None));
}

async fn the_creation_time_stays<S, P>((events, publish): (S, P), subjects: [&str; 2])
where
    S: ForeignEvents,
    P: AsyncFn(String, Vec<u8>),
{
    let created_at = events.created_at().await.expect("a creation time");
    assert!(created_at > 0);
    publish(subjects[0].to_owned(), b"a".to_vec()).await;
    assert_eq!(events.created_at().await, Ok(created_at));
}

async fn two_handles_read_one_stream<S, P>((events, publish): (S, P), subjects: [&str; 2])
where
    S: ForeignEvents + Clone,
    P: AsyncFn(String, Vec<u8>),
{
    let other = events.clone();
    for payload in ["a", "b", "c"] {
        publish(subjects[0].to_owned(), payload.as_bytes().to_vec()).await;
    }
    // Neither takes anything away from the other, wherever each of them stands.
    let first = read(&events, 0, 2).await;
    let all = read(&other, 0, 10).await;
    assert_eq!(said(&all), [(subjects[0], &b"a"[..]), (subjects[0], b"b"), (subjects[0], b"c")]);
    assert_eq!(first, all[..2]);
    assert_eq!(read(&events, first[1].message, 10).await, all[2..]);
    assert_eq!(events.created_at().await, other.created_at().await);
}

/// The suite of [`ForeignPositions`].
pub async fn foreign_positions<P, F>(make: F)
where
    P: ForeignPositions + Clone,
    F: AsyncFn() -> P,
{
    who_has_not_begun_has_no_position(make().await).await;
    a_position_moves_only_from_where_it_is(make().await).await;
    readers_do_not_know_of_each_other(make().await).await;
    a_second_owner_goes_on_and_the_first_is_refused(make().await).await;
}

const READER: &str = "importer";

/// A position of which everything is what its number says.
pub(super) fn position(message: u64) -> ForeignPosition {
    ForeignPosition { created_at: CREATED_AT, message, fingerprint: Fingerprint::of(&message.to_be_bytes()) }
}

async fn who_has_not_begun_has_no_position<P: ForeignPositions>(positions: P) {
    assert_eq!(positions.position(READER).await, Ok(None));
    let one = Some(position(1));
    assert_eq!(positions.advance(READER, one, Some(position(2))).await, Ok(false), "it is nowhere");
    assert_eq!(positions.advance(READER, one, None).await, Ok(false), "it is nowhere");
    assert_eq!(positions.position(READER).await, Ok(None));
}

async fn a_position_moves_only_from_where_it_is<P: ForeignPositions>(positions: P) {
    let far = position(u64::from(u32::MAX) + 7);
    assert_eq!(positions.advance(READER, None, Some(position(3))).await, Ok(true));
    assert_eq!(positions.position(READER).await, Ok(Some(position(3))), "a position is kept as it is");
    assert_eq!(positions.advance(READER, None, Some(position(3))).await, Ok(false), "a repeat is refused");
    let others = [
        ForeignPosition { created_at: CREATED_AT + 1, ..position(3) },
        ForeignPosition { message: 4, ..position(3) },
        ForeignPosition { fingerprint: Fingerprint::of(b"another"), ..position(3) },
    ];
    for other in others {
        assert_eq!(positions.advance(READER, Some(other), Some(far)).await, Ok(false), "{other:?}");
        assert_eq!(positions.advance(READER, Some(other), None).await, Ok(false), "{other:?}");
    }
    assert_eq!(positions.position(READER).await, Ok(Some(position(3))));
    assert_eq!(positions.advance(READER, Some(position(3)), Some(far)).await, Ok(true));
    assert_eq!(positions.position(READER).await, Ok(Some(far)));
    assert_eq!(positions.advance(READER, Some(far), None).await, Ok(true), "a person may let it begin anew");
    assert_eq!(positions.position(READER).await, Ok(None));
    let anew = ForeignPosition { created_at: CREATED_AT + 1, ..position(1) };
    assert_eq!(positions.advance(READER, None, Some(anew)).await, Ok(true));
    assert_eq!(positions.position(READER).await, Ok(Some(anew)));
}

async fn readers_do_not_know_of_each_other<P: ForeignPositions>(positions: P) {
    assert_eq!(positions.advance(READER, None, Some(position(3))).await, Ok(true));
    assert_eq!(positions.position("it's another").await, Ok(None));
    assert_eq!(positions.advance("it's another", None, Some(position(9))).await, Ok(true));
    assert_eq!(positions.position(READER).await, Ok(Some(position(3))));
    assert_eq!(positions.position("it's another").await, Ok(Some(position(9))));
}

async fn a_second_owner_goes_on_and_the_first_is_refused<P: ForeignPositions + Clone>(positions: P) {
    let other = positions.clone();
    // Both begin: one of them has begun.
    assert_eq!(positions.advance(READER, None, Some(position(3))).await, Ok(true));
    assert_eq!(other.advance(READER, None, Some(position(5))).await, Ok(false));
    let taken = other.position(READER).await.expect("a position can be read");
    assert_eq!(other.advance(READER, taken, Some(position(8))).await, Ok(true));
    assert_eq!(positions.advance(READER, Some(position(3)), Some(position(4))).await, Ok(false));
    assert_eq!(positions.position(READER).await, Ok(Some(position(8))));
}
