//! The resume tokens of live queries.
//!
//! The rule this module protects: a resume token is good for the watch and the filters that it came from, and for nothing else; one
//! that is not exactly as we wrote it is refused. It holds all that a watch needs to go on, because nobody keeps anything else.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use uuid::Uuid;

use domain::live::{Resume, UnderWay};
use eventsourcing::outcome::Fingerprint;
use eventsourcing::partition::{PartitionCount, Sequence};

use super::paging::PagedQuery;

/// The version of the tokens' shape.
const VERSION: u8 = 1;

/// A digest of the token and of what it belongs to, in bytes.
const SEAL_BYTES: usize = 8;

/// A batch is under way; it has a beginning; it has left a row to the next one; the snapshot is whole.
const UNDER_WAY: u8 = 1;
const SINCE: u8 = 2;
const LEFT: u8 = 4;
const COMPLETE: u8 = 8;

/// The token of this place, for this query.
pub(crate) fn token(query: &PagedQuery, resume: &Resume) -> String {
    let mut bytes = vec![VERSION];
    let under_way = resume.under_way.as_ref();
    let flags = [
        (UNDER_WAY, under_way.is_some()),
        (SINCE, under_way.is_some_and(|under_way| under_way.since.is_some())),
        (LEFT, under_way.is_some_and(|under_way| under_way.left)),
        (COMPLETE, resume.complete),
    ];
    bytes.push(flags.iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (flag, _)| flags | flag));
    for at in &resume.at {
        put(&mut bytes, at.get());
    }
    bytes.extend_from_slice(&resume.log.to_be_bytes());
    if let Some(UnderWay { since, after, .. }) = under_way {
        // How far back a batch begins is a smaller number than where.
        for (since, at) in since.iter().flatten().zip(&resume.at) {
            put(&mut bytes, at.get().saturating_sub(since.get()));
        }
        bytes.extend_from_slice(after.as_bytes());
    }
    let seal = seal(query, &bytes);
    bytes.extend_from_slice(&seal);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a token stands for; `None` for anything but a token of this query and of so many partitions.
pub(crate) fn read(query: &PagedQuery, partitions: PartitionCount, text: &str) -> Option<Resume> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let mut rest = bytes.as_slice();
    let [version, flags] = take(&mut rest)?;
    let is_set = |flag: u8| flags & flag != 0;
    if version != VERSION {
        return None;
    }
    let at = partitions.all().map(|_| number(&mut rest).map(Sequence::new)).collect::<Option<Vec<_>>>()?;
    let log = u64::from_be_bytes(take(&mut rest)?);
    let mut under_way = None;
    if is_set(UNDER_WAY) {
        let begin = |at: &Sequence| Some(Sequence::new(at.get().checked_sub(number(&mut rest)?)?));
        let since = if is_set(SINCE) { Some(at.iter().map(begin).collect::<Option<_>>()?) } else { None };
        let after = Uuid::from_bytes(take(&mut rest)?);
        under_way = Some(UnderWay { since, after, left: is_set(LEFT) });
    }
    let resume = Resume { at, log, under_way, complete: is_set(COMPLETE) };
    // Writing it again settles the seal, the query, and every other way to spell the same.
    (token(query, &resume) == text).then_some(resume)
}

fn seal(query: &PagedQuery, bytes: &[u8]) -> [u8; SEAL_BYTES] {
    let Fingerprint(digest) = Fingerprint::of(&[query.bytes(), bytes].concat());
    let mut seal = [0; SEAL_BYTES];
    for (to, from) in seal.iter_mut().zip(digest) {
        *to = from;
    }
    seal
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// A number that [`put`] has written. Stores count with signed numbers, so nine bytes are enough.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partitions(count: u16) -> PartitionCount {
        PartitionCount::new(count).unwrap()
    }

    fn query(filter: &str) -> PagedQuery {
        PagedQuery::of("WatchBids").filtered(filter)
    }

    prop_compose! {
        fn resumes()(
            places in prop::collection::vec((0..1_u64 << 40, 0..1_u64 << 63), 1..40),
            (log, is_under_way, has_begun, left, complete) in any::<(u64, bool, bool, bool, bool)>(),
            after in any::<u128>(),
        ) -> Resume {
            let at: Vec<Sequence> = places.iter().map(|(_, at)| Sequence::new(*at)).collect();
            let since = places.iter().map(|(back, at)| Sequence::new(at.saturating_sub(*back))).collect();
            let since = has_begun.then_some(since);
            let under_way = is_under_way.then_some(UnderWay { since, after: Uuid::from_u128(after), left });
            Resume { at, log, under_way, complete }
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back_for_its_own_query_and_partitions_only(resume in resumes(), other in ".{0,9}") {
            let count = u16::try_from(resume.at.len()).unwrap();
            let token = token(&query(""), &resume);
            prop_assert_eq!(read(&query(""), partitions(count), &token), Some(resume));
            prop_assert_eq!(read(&query(&other), partitions(count), &token).is_some(), other.is_empty());
            prop_assert_eq!(read(&PagedQuery::of("WatchInvoices").filtered(""), partitions(count), &token), None);
            prop_assert_eq!(read(&query(""), partitions(count + 1), &token), None);
        }

        #[test]
        fn a_changed_token_is_refused(resume in resumes(), at: prop::sample::Index, with in "[0-9a-zA-Z_=é-]") {
            let count = partitions(u16::try_from(resume.at.len()).unwrap());
            let token = token(&query(""), &resume);
            let at = at.index(token.len());
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(read(&query(""), count, &changed).is_some(), changed == token);
            prop_assert_eq!(read(&query(""), count, &token[..at]), None);
            prop_assert_eq!(read(&query(""), count, &format!("{token}{with}")), None);
        }

        #[test]
        fn anything_may_be_presented(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(&query(""), partitions(3), &text), None);
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(read(&query(""), partitions(3), &text), None);
        }
    }

    #[test]
    fn a_token_of_a_usual_platform_is_short() {
        let at = vec![Sequence::new(1_000_000); 16];
        let under_way = Some(UnderWay { since: Some(at.clone()), after: Uuid::max(), left: true });
        let text = token(&query(""), &Resume { at, log: u64::MAX, under_way, complete: true });
        assert!(text.len() <= 140, "{} characters: {text}", text.len());
    }

    #[test]
    fn the_shape_stays() {
        // Clients keep tokens over releases: another shape is another version.
        let resume = Resume {
            at: vec![Sequence::new(1), Sequence::new(300)],
            log: 7,
            under_way: None,
            complete: true,
        };
        assert_eq!(token(&query(""), &resume), "AQgBrAIAAAAAAAAABwZCsNnmDmO-");
    }
}
