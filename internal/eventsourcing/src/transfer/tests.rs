//! A text that is whole is read as it was written; one that is not is refused, whatever byte of it is another.

use std::borrow::Cow;

use uuid::Uuid;

use super::text::{Decoder, Encoder, Read, TextError};
use super::{Carried, Contents, Share, Totals};
use crate::environment::Timestamp;
use crate::model::AggregateRef;
use crate::outcome::{Fingerprint, Outcome, Verdict};
use crate::partition::{Deployment, Partition, PartitionCount, Sequence, Version};
use crate::ports::InboxEntry;
use crate::record::Record;

fn contents(heads: &[u64]) -> Contents {
    let share = |(partition, head): (u16, &u64)| Share {
        partition: Partition::from_index(partition),
        head: Sequence::new(*head),
        reacted: Sequence::new(head.saturating_sub(1)),
    };
    let partitions = PartitionCount::new(u16::try_from(heads.len()).unwrap()).unwrap();
    Contents {
        deployment: Deployment { id: Uuid::from_u128(77), partitions, created_at: 1_763_762_285_123_456 },
        shares: (0..).zip(heads).map(share).collect(),
        commands: heads.iter().sum(),
    }
}

fn carried(partition: u16, sequence: u64) -> Carried {
    let number = u128::from(partition) * 1000 + u128::from(sequence);
    let id = |kind: u128| Uuid::from_u128(kind << 64 | number);
    let place = (Partition::from_index(partition), Sequence::new(sequence));
    let record = Record {
        partition: place.0,
        sequence: place.1,
        record_id: id(1),
        recorded_at: Timestamp::from_micros(1_763_762_285_000_000 + sequence),
        aggregate: AggregateRef {
            kind: Cow::Borrowed("thing"),
            id: Uuid::from_u128(number / 3 * 3 + u128::from(partition)),
        },
        version: sequence.is_multiple_of(2).then_some(Version::new(sequence)),
        event_type: Cow::Borrowed("ThingChanged"),
        schema: 1,
        data: r#"{"b":1, "a":"\u00e9 \n \"é\"","n":0.10}"#.to_owned(),
        command_id: id(2),
        correlation_id: id(3),
        causation_id: id(4),
        actor: "client".to_owned(),
        traceparent: sequence.is_multiple_of(3).then(String::new),
        last_of_command: true,
    };
    let verdict =
        Verdict::Refused { reason: "NO".to_owned(), message: "it is \u{1} \"no\"\nindeed".to_owned() };
    let outcome = Outcome { command_id: record.command_id, position: record.position(), verdict };
    Carried { outcome: Some(InboxEntry { fingerprint: Fingerprint([0xa7; 32]), outcome }), record }
}

fn all(heads: &[u64]) -> Vec<Carried> {
    let of = |(partition, head): (u16, &u64)| {
        (1..=*head).map(move |sequence| {
            let mut carried = carried(partition, sequence);
            let home = u128::from(partition);
            let partitions = 3;
            carried.record.aggregate.id =
                Uuid::from_u128(carried.record.aggregate.id.as_u128() / partitions * partitions + home);
            carried
        })
    };
    (0..).zip(heads).flat_map(of).collect()
}

fn written(heads: &[u64]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut encoder = Encoder::begin(&contents(heads), "0.1.0", &mut text);
    for carried in all(heads) {
        encoder.record(&carried, &mut text).unwrap();
    }
    let _totals = encoder.end(&mut text);
    text
}

fn read(text: &[u8]) -> Result<(Contents, Vec<Carried>, Totals), TextError> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let (mut decoder, contents) = Decoder::begin(lines.next().unwrap_or_default())?;
    let mut found = Vec::new();
    loop {
        match decoder.next(lines.next().unwrap_or_default())? {
            Read::Record(carried) => found.push(*carried),
            Read::End(totals) if lines.next().is_none() => return Ok((contents, found, totals)),
            Read::End(_) => return Err(TextError::More),
        }
    }
}

const HEADS: &[u64] = &[4, 0, 3];

#[test]
fn what_is_written_is_read_again_byte_for_byte() {
    let (found, records, totals) = read(&written(HEADS)).unwrap();
    assert_eq!(found, contents(HEADS));
    assert_eq!(records, all(HEADS));
    assert_eq!((totals.records, totals.commands), (7, 7));
}

#[test]
fn the_checksum_is_what_sha256sum_says_of_all_lines_but_the_last() {
    let text = written(HEADS);
    let (_, _, totals) = read(&text).unwrap();
    let end = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let sum = Fingerprint::of(&text[..end]).0.map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(totals.sha256, sum);
}

#[test]
fn an_empty_log_is_a_text_of_two_lines() {
    let text = written(&[0, 0]);
    assert_eq!(text.split_inclusive(|byte| *byte == b'\n').count(), 2);
    assert_eq!(read(&text).unwrap().1, Vec::new());
}

#[test]
fn no_byte_can_be_another() {
    let text = written(HEADS);
    for place in 0..text.len() {
        for bit in [0x01, 0x20] {
            let mut changed = text.clone();
            changed[place] ^= bit;
            assert!(read(&changed).is_err(), "byte {place}: {:?}", String::from_utf8_lossy(&changed));
        }
    }
}

#[test]
fn it_can_be_cut_off_nowhere() {
    let text = written(HEADS);
    for end in 0..text.len() {
        assert!(read(&text[..end]).is_err(), "cut off at {end}");
    }
    let last = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let cut_off = TextError::CutOff { line: 8, found: 7, promised: 7 };
    assert_eq!(read(&text[..last]).unwrap_err(), cut_off);
}

#[test]
fn a_line_that_is_missing_or_comes_twice_is_named() {
    let text = written(HEADS);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let without = [&lines[..2], &lines[3..]].concat().concat();
    let error = read(&without).unwrap_err().to_string();
    assert!(error.contains("line 3 ") && error.contains("record 0-3 stands where 0-2 has to"), "{error}");
    let twice = [&lines[..3], &lines[2..]].concat().concat();
    let error = read(&twice).unwrap_err().to_string();
    assert!(error.contains("line 4 ") && error.contains("record 0-2 stands where 0-3 has to"), "{error}");
    let two = [text.clone(), text.clone()].concat();
    assert_eq!(read(&two).unwrap_err(), TextError::More);
}

#[test]
fn another_format_is_told_from_damage() {
    let other =
        String::from_utf8(written(HEADS)).unwrap().replacen("\"format\":1", "\"format\":2,\"new\":{}", 1);
    assert_eq!(read(other.as_bytes()).unwrap_err(), TextError::Format { found: 2 });
    for text in ["", "\n", "SQLite format 3\0", "{}\n", "{\"record\":{}}\n"] {
        assert!(matches!(read(text.as_bytes()), Err(TextError::NoExport(_))), "{text:?}");
    }
}

#[test]
fn data_that_is_not_one_line_is_not_written() {
    for data in ["{\"a\":\n1}", " {}", "{} ", "{", ""] {
        let mut carried = carried(0, 1);
        carried.record.data = data.to_owned();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(&contents(&[1]), "0.1.0", &mut out);
        assert!(encoder.record(&carried, &mut out).is_err(), "{data:?}");
    }
}
