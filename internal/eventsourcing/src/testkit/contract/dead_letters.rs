//! What every place for dead letters promises: what is kept is there for people, whole, and once.

use std::borrow::Cow;
use std::sync::Arc;

use crate::ports::{DeadLetter, DeadLetters, ForeignLetter, ForeignLetters, ForeignMessage};
use crate::record::{COMMAND_DEAD, Record};

use super::foreign::position;
use super::sample::{aggregate, fact, partition};

/// The suite of [`DeadLetters`]. `kept` lists what is there, in whatever order. Foreign letters come with the given
/// subject.
pub async fn dead_letters<D, F, K>(make: F, kept: K, subject: &'static str)
where
    D: DeadLetters + Clone,
    F: AsyncFn() -> D,
    K: AsyncFn(&D) -> Vec<DeadLetter>,
{
    nothing_is_kept_of_nothing(make().await, &kept).await;
    letters_come_back_as_they_were(make().await, &kept, subject).await;
    the_same_letter_again_is_kept_once(make().await, &kept, subject).await;
    of_two_owners_the_second_keeps_what_the_first_did_not(make().await, &kept, subject).await;
}

/// The suite of [`ForeignLetters`]: what was kept of another context is found again. Foreign letters come with the given
/// subject.
pub async fn foreign_letters<D, F>(make: F, subject: &'static str)
where
    D: DeadLetters + ForeignLetters + Clone,
    F: AsyncFn() -> D,
{
    where_nothing_was_kept_there_is_none(make().await).await;
    what_was_kept_of_others_is_found_in_pages(make().await, subject).await;
    a_page_has_what_was_asked_for_however_much_stands_between(make().await, subject).await;
}

async fn a_page_has_what_was_asked_for_however_much_stands_between<D: DeadLetters + ForeignLetters>(
    letters: D,
    subject: &str,
) {
    let pairs =
        (1..=150).flat_map(|number| [command(1, number), foreign(number, subject, b"{", "malformed")]);
    assert_eq!(letters.keep(pairs.collect()).await, Ok(()));
    let page = letters.foreign(0, 100).await.expect("letters can be read");
    let messages = |page: &[ForeignLetter]| page.iter().map(|one| one.position.message).collect::<Vec<_>>();
    assert_eq!(messages(&page), (1..=100).collect::<Vec<_>>());
    let after = page.last().map_or(0, |last| last.number);
    let rest = letters.foreign(after, 100).await.expect("letters can be read");
    assert_eq!(messages(&rest), (101..=150).collect::<Vec<_>>());
}

async fn where_nothing_was_kept_there_is_none<D: DeadLetters + ForeignLetters>(letters: D) {
    assert_eq!(letters.foreign(0, 10).await, Ok(Vec::new()));
    assert_eq!(letters.keep(vec![command(1, 1)]).await, Ok(()));
    assert_eq!(letters.foreign(0, 10).await, Ok(Vec::new()), "a command is found in the log");
}

async fn what_was_kept_of_others_is_found_in_pages<D: DeadLetters + ForeignLetters + Clone>(
    letters: D,
    subject: &str,
) {
    let kept = [
        foreign(3, subject, b"{", "malformed"),
        command(1, 1),
        foreign(4, subject, b"\xff\x00 not even text", "it's no \"event\""),
        command(1, 2),
        foreign(9, subject, b"", "empty"),
    ];
    assert_eq!(letters.keep(kept.to_vec()).await, Ok(()));
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let page = letters.clone().foreign(after, 2).await.expect("letters can be read");
        assert!(page.len() <= 2, "a read keeps to its limit");
        let Some(last) = page.last() else { break };
        assert!(page.iter().all(|letter| letter.number > after) && page.is_sorted_by_key(|one| one.number));
        after = last.number;
        found.extend(page);
    }
    assert!(found.iter().all(|letter| letter.whole), "none is too large");
    let found: Vec<DeadLetter> = found
        .into_iter()
        .map(|letter| {
            let ForeignLetter { position, message, reason, .. } = letter;
            DeadLetter::Foreign { position, message, reason }
        })
        .collect();
    assert_eq!(found, [kept[0].clone(), kept[2].clone(), kept[4].clone()]);
    assert_eq!(letters.foreign(after, 10).await, Ok(Vec::new()), "behind the last there is none");
    assert_eq!(letters.foreign(0, 0).await, Ok(Vec::new()));
}

/// A command that died in this place.
fn command(index: u16, sequence: u64) -> DeadLetter {
    let data = format!(
        r#"{{"reason":"UNDECODABLE","message":"it's no \"command\" 🧾","raw":"\u0000 number {sequence}"}}"#
    );
    let partition = partition(index);
    DeadLetter::Command(Arc::new(Record {
        version: None,
        event_type: Cow::Borrowed(COMMAND_DEAD),
        data,
        traceparent: sequence.is_multiple_of(2).then(|| "00-0af7651916cd43dd-b7ad6b71-01".to_owned()),
        ..fact(partition, sequence, &aggregate(partition, 0), 0)
    }))
}

/// A message that is malformed.
fn foreign(message: u64, subject: &str, payload: &[u8], reason: &str) -> DeadLetter {
    let position = position(message);
    let message = ForeignMessage { message, subject: subject.to_owned(), payload: Arc::from(payload) };
    DeadLetter::Foreign { position, message, reason: reason.to_owned() }
}

async fn are_kept<D>(letters: &D, kept: &impl AsyncFn(&D) -> Vec<DeadLetter>, expected: &[DeadLetter]) {
    let kept = kept(letters).await;
    assert_eq!(kept.len(), expected.len(), "each once: {kept:?}");
    for letter in expected {
        assert!(kept.contains(letter), "{letter:?} is not among {kept:?}");
    }
}

async fn nothing_is_kept_of_nothing<D: DeadLetters>(letters: D, kept: &impl AsyncFn(&D) -> Vec<DeadLetter>) {
    assert_eq!(letters.keep(Vec::new()).await, Ok(()));
    are_kept(&letters, kept, &[]).await;
}

async fn letters_come_back_as_they_were<D: DeadLetters>(
    letters: D,
    kept: &impl AsyncFn(&D) -> Vec<DeadLetter>,
    subject: &str,
) {
    let mut all = vec![
        command(1, 1),
        foreign(3, subject, b"{\"id\":", "EOF while parsing, it's \"malformed\" 🧾"),
        command(1, 2),
        command(2, 1),
        foreign(4, subject, b"\xff\xfe\x00 no text", "not JSON"),
        foreign(9, subject, b"", "nothing"),
    ];
    assert_eq!(letters.keep(all.clone()).await, Ok(()));
    are_kept(&letters, kept, &all).await;
    let more = vec![command(2, 2), foreign(12, subject, &[b'x'; 60 * 1024], "too long")];
    assert_eq!(letters.keep(more.clone()).await, Ok(()));
    all.extend(more);
    are_kept(&letters, kept, &all).await;
}

async fn the_same_letter_again_is_kept_once<D: DeadLetters>(
    letters: D,
    kept: &impl AsyncFn(&D) -> Vec<DeadLetter>,
    subject: &str,
) {
    let (one, other) = (command(1, 1), foreign(3, subject, b"{", "malformed"));
    assert_eq!(letters.keep(vec![one.clone(), other.clone(), one.clone(), other.clone()]).await, Ok(()));
    are_kept(&letters, kept, &[one.clone(), other.clone()]).await;
    let more = command(1, 2);
    assert_eq!(letters.keep(vec![other.clone(), more.clone(), one.clone()]).await, Ok(()));
    are_kept(&letters, kept, &[one.clone(), other.clone(), more.clone()]).await;
    // A later release may say it in other words: it is the same message.
    let again = foreign(3, subject, b"{", "malformed, in other words");
    assert_eq!(letters.keep(vec![again]).await, Ok(()));
    are_kept(&letters, kept, &[one, other, more]).await;
}

async fn of_two_owners_the_second_keeps_what_the_first_did_not<D: DeadLetters + Clone>(
    letters: D,
    kept: &impl AsyncFn(&D) -> Vec<DeadLetter>,
    subject: &str,
) {
    let other = letters.clone();
    let all = [command(1, 1), foreign(3, subject, b"{", "malformed"), command(1, 2), command(1, 3)];
    assert_eq!(letters.keep(all[..2].to_vec()).await, Ok(()));
    assert_eq!(
        other.keep(all.to_vec()).await,
        Ok(()),
        "the successor begins where the first may not have been"
    );
    assert_eq!(letters.keep(all[1..3].to_vec()).await, Ok(()), "and the first does not know of it");
    for handle in [&letters, &other] {
        are_kept(handle, kept, &all).await;
    }
}
