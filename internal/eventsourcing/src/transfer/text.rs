//! The lines of the text: JSON, one object a line.
//!
//! The rule this module protects: a byte that is changed, a line that is missing and an end that was cut off are seen by
//! whoever reads, and what is stored as JSON comes back byte for byte.
//!
//! The first line is `{"export":{..}}`, each of the others but one a `{"record":{..}}`, and the last one is `{"end":{..}}`. Every line
//! ends with a line feed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::environment::Timestamp;
use crate::model::AggregateRef;
use crate::outcome::{Fingerprint, Outcome, Verdict};
use crate::partition::{Deployment, Partition, PartitionCount, Sequence, Version};
use crate::ports::InboxEntry;
use crate::record::Record;

use super::check::Check;
use super::{Carried, Contents, FORMAT, Share, Totals};

/// The longest line that is read, in bytes. A record fits into a message of the bus, which is smaller.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// Why a text is not taken. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It does not begin as an export does.
    #[error(
        "this is no export: its first line is not one ({0}). Name a file that `financing export` has written, unpacked"
    )]
    NoExport(String),
    /// Another release wrote it.
    #[error(
        "the export has format {found}, and this release reads format {FORMAT}: import it with the release that wrote it, or export it \
         again with this one"
    )]
    Format {
        /// What it says.
        found: u32,
    },
    /// A line is not what it has to be.
    #[error("line {line} of the export is damaged: {reason}. Copy the file again, or export it again")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The last line is missing.
    #[error(
        "the export ends behind line {line} without its last line, so it was cut off: {found} of {promised} records are there. Copy the \
         file again, or export it again"
    )]
    CutOff {
        /// How many lines there are.
        line: u64,
        /// How many records were read.
        found: u64,
        /// How many there have to be.
        promised: u64,
    },
    /// The bytes are not those that were written.
    #[error(
        "the export was changed: its bytes have the SHA-256 {found}, and its last line says {written}. Copy the file again, or export it \
         again"
    )]
    Checksum {
        /// Of what was read.
        found: String,
        /// In the last line.
        written: String,
    },
    /// There is something behind the last line.
    #[error("there is more behind the last line of the export: it is not one export alone")]
    More,
    /// The log has what cannot be written as a line.
    #[error("record {0} cannot be exported: its data is not one line of JSON")]
    Unwritable(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Export(Header),
    Record(#[serde(borrow)] Box<RecordLine<'a>>),
    End(End),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    release: String,
    deployment: Uuid,
    created_at: u64,
    commands: u64,
    partitions: Vec<ShareLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareLine {
    partition: Partition,
    head: Sequence,
    policies: Sequence,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine<'a> {
    partition: Partition,
    sequence: Sequence,
    record_id: Uuid,
    recorded_at: Timestamp,
    aggregate_type: Cow<'a, str>,
    aggregate_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    event_type: Cow<'a, str>,
    schema: u16,
    #[serde(borrow)]
    data: Cow<'a, RawValue>,
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    actor: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeLine<'a>>,
}

/// Of the command whose last record this is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeLine<'a> {
    fingerprint: String,
    verdict: Cow<'a, Verdict>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    records: u64,
    commands: u64,
    sha256: String,
}

/// Writes a text.
pub struct Encoder {
    digest: Sha256,
    records: u64,
    commands: u64,
}

impl Encoder {
    /// Begins one, and writes its first line behind what is in `out`. `release` is who writes.
    #[must_use]
    pub fn begin(contents: &Contents, release: &str, out: &mut Vec<u8>) -> Self {
        let share = |share: &Share| ShareLine {
            partition: share.partition,
            head: share.head,
            policies: share.reacted,
        };
        let header = Header {
            format: FORMAT,
            release: release.to_owned(),
            deployment: contents.deployment.id,
            created_at: contents.deployment.created_at,
            commands: contents.commands,
            partitions: contents.shares.iter().map(share).collect(),
        };
        let mut encoder = Self { digest: Sha256::new(), records: 0, commands: 0 };
        encoder.line(&Line::Export(header), out);
        encoder
    }

    /// Writes a record's line behind what is in `out`.
    ///
    /// # Errors
    ///
    /// When its data is no JSON, or more than a line of it.
    pub fn record(&mut self, carried: &Carried, out: &mut Vec<u8>) -> Result<(), TextError> {
        let Carried { record, outcome } = carried;
        let unwritable = || TextError::Unwritable(record.position().to_string());
        let data: &RawValue = serde_json::from_str(&record.data).map_err(|_| unwritable())?;
        // What is around the value would be lost, and a line feed in it would end the line.
        if data.get() != record.data || record.data.contains('\n') {
            return Err(unwritable());
        }
        let outcome = outcome.as_ref().map(|entry| OutcomeLine {
            fingerprint: hex(&entry.fingerprint.0),
            verdict: Cow::Borrowed(&entry.outcome.verdict),
        });
        self.records = self.records.saturating_add(1);
        self.commands = self.commands.saturating_add(u64::from(outcome.is_some()));
        let line = RecordLine {
            partition: record.partition,
            sequence: record.sequence,
            record_id: record.record_id,
            recorded_at: record.recorded_at,
            aggregate_type: Cow::Borrowed(&record.aggregate.kind),
            aggregate_id: record.aggregate.id,
            version: record.version,
            event_type: Cow::Borrowed(&record.event_type),
            schema: record.schema,
            data: Cow::Borrowed(data),
            command_id: record.command_id,
            correlation_id: record.correlation_id,
            causation_id: record.causation_id,
            actor: Cow::Borrowed(&record.actor),
            traceparent: record.traceparent.as_deref().map(Cow::Borrowed),
            outcome,
        };
        self.line(&Line::Record(Box::new(line)), out);
        Ok(())
    }

    /// Writes the last line behind what is in `out`.
    #[must_use]
    pub fn end(mut self, out: &mut Vec<u8>) -> Totals {
        let sha256 = hex(&std::mem::take(&mut self.digest).finalize());
        let Self { records, commands, .. } = self;
        self.line(&Line::End(End { records, commands, sha256: sha256.clone() }), out);
        Totals { records, commands, sha256 }
    }

    fn line(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let begin = out.len();
        // Neither a map with keys that are no text nor a writer that fails: it cannot fail.
        let _written = serde_json::to_writer(&mut *out, line);
        out.push(b'\n');
        self.digest.update(out.get(begin..).unwrap_or_default());
    }
}

/// What a line was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Record(Box<Carried>),
    /// The last line: everything that was promised has come, and no byte of it was changed.
    End(Totals),
}

/// Reads a text.
pub struct Decoder {
    digest: Sha256,
    check: Check,
    promised: u64,
    lines: u64,
}

/// The first line, whatever else the format is.
#[derive(Deserialize)]
struct AnyExport {
    export: AnyFormat,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Decoder {
    /// Reads the first line, with its line feed.
    ///
    /// # Errors
    ///
    /// When it is none, or of another format.
    pub fn begin(line: &[u8]) -> Result<(Self, Contents), TextError> {
        let no_export = |reason: String| TextError::NoExport(reason);
        let any: AnyExport = serde_json::from_slice(line).map_err(|error| no_export(error.to_string()))?;
        if any.export.format != FORMAT {
            return Err(TextError::Format { found: any.export.format });
        }
        let damaged = |reason: String| TextError::Line { line: 1, reason };
        let header = match serde_json::from_slice(whole(line).map_err(damaged)?) {
            Ok(Line::Export(header)) => header,
            Ok(Line::Record(_) | Line::End(_)) => return Err(damaged("it is no first line".to_owned())),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let partitions = u16::try_from(header.partitions.len()).ok().and_then(PartitionCount::new);
        let partitions = partitions.ok_or_else(|| damaged("it has no number of partitions".to_owned()))?;
        let share =
            |line: ShareLine| Share { partition: line.partition, head: line.head, reacted: line.policies };
        let contents = Contents {
            deployment: Deployment { id: header.deployment, partitions, created_at: header.created_at },
            shares: header.partitions.into_iter().map(share).collect(),
            commands: header.commands,
        };
        let check = Check::new(contents.clone()).map_err(damaged)?;
        let mut digest = Sha256::new();
        digest.update(line);
        Ok((Self { digest, check, promised: contents.records(), lines: 1 }, contents))
    }

    /// Reads the next line, with its line feed; an empty one where there is none.
    ///
    /// # Errors
    ///
    /// When it is damaged, missing, or not what has to come next; at the last line, when anything before it is not what was
    /// written.
    pub fn next(&mut self, line: &[u8]) -> Result<Read, TextError> {
        if line.is_empty() {
            let (line, promised) = (self.lines, self.promised);
            return Err(TextError::CutOff { line, found: line.saturating_sub(1), promised });
        }
        self.lines = self.lines.saturating_add(1);
        let number = self.lines;
        let damaged = |reason: String| TextError::Line { line: number, reason };
        match serde_json::from_slice(whole(line).map_err(damaged)?) {
            Ok(Line::Record(record)) => {
                self.digest.update(line);
                let carried = carried(*record).map_err(damaged)?;
                self.check.record(&carried).map_err(damaged)?;
                Ok(Read::Record(Box::new(carried)))
            }
            Ok(Line::End(End { records, commands, sha256 })) => {
                let found = hex(&std::mem::take(&mut self.digest).finalize());
                if found != sha256 {
                    return Err(TextError::Checksum { found, written: sha256 });
                }
                let counted = self.check.end().map_err(damaged)?;
                if counted != (records, commands) {
                    let (found, outcomes) = counted;
                    return Err(damaged(format!(
                        "it counts {records} records and {commands} commands, and there are {found} and {outcomes}"
                    )));
                }
                Ok(Read::End(Totals { records, commands, sha256 }))
            }
            Ok(Line::Export(_)) => Err(damaged("a second export begins".to_owned())),
            Err(error) => Err(damaged(error.to_string())),
        }
    }
}

/// A line without its line feed: the last thing that is written of it.
fn whole(line: &[u8]) -> Result<&[u8], String> {
    line.strip_suffix(b"\n").ok_or_else(|| "it was cut off in the middle".to_owned())
}

fn carried(line: RecordLine<'_>) -> Result<Carried, String> {
    let record = Record {
        partition: line.partition,
        sequence: line.sequence,
        record_id: line.record_id,
        recorded_at: line.recorded_at,
        aggregate: AggregateRef { kind: Cow::Owned(line.aggregate_type.into_owned()), id: line.aggregate_id },
        version: line.version,
        event_type: Cow::Owned(line.event_type.into_owned()),
        schema: line.schema,
        data: line.data.get().to_owned(),
        command_id: line.command_id,
        correlation_id: line.correlation_id,
        causation_id: line.causation_id,
        actor: line.actor.into_owned(),
        traceparent: line.traceparent.map(Cow::into_owned),
        last_of_command: line.outcome.is_some(),
    };
    let outcome = line.outcome.map(|outcome| {
        let fingerprint = unhex(&outcome.fingerprint).ok_or("a fingerprint has 64 hexadecimal digits")?;
        let (command_id, position) = (record.command_id, record.position());
        let verdict = outcome.verdict.into_owned();
        Ok::<_, String>(InboxEntry { fingerprint, outcome: Outcome { command_id, position, verdict } })
    });
    Ok(Carried { outcome: outcome.transpose()?, record })
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

fn unhex(digits: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}
