//! What the suites, and tests of the loops, write down and read back.
//!
//! The rule this module protects: a sample is a pure function of its place, so that a test can say what must be
//! there without having kept it.

use std::borrow::Cow;
use std::sync::Arc;

use uuid::Uuid;

use crate::command::{Bundle, Envelope, pack};
use crate::environment::Timestamp;
use crate::model::{AggregateRef, EncodedSnapshot};
use crate::outcome::{Fingerprint, Outcome, Verdict};
use crate::partition::{Partition, Sequence, Version};
use crate::ports::{
    Column, ColumnType, Commit, EventLog, InboxEntry, Index, PartitionCommit, PartitionRow, QueuePosition,
    Snapshot, Table,
};
use crate::record::{COMMAND_REFUSED, Record};

use super::PARTITIONS;

/// The creation time of the queue that sample positions stand in.
pub const CREATED_AT: u64 = 1_767_225_600_000_000;

/// The type of sample aggregates.
pub const KIND: &str = "thing";

/// The table that the read-model suite writes most of its rows to.
pub const THINGS: &str = "things";

/// A second table, whose columns have the same names.
pub const OTHERS: &str = "others";

/// What a store under the read-model suite is opened with.
pub const TABLES: &[Table] = &[
    Table {
        name: THINGS,
        columns: &[
            Column { name: "name", kind: ColumnType::Text, index: Index::All },
            Column { name: "owner", kind: ColumnType::Uuid, index: Index::All },
            Column { name: "amount", kind: ColumnType::Integer, index: Index::WhileAbsent("note") },
            Column { name: "rank", kind: ColumnType::Integer, index: Index::All },
            Column { name: "note", kind: ColumnType::Text, index: Index::None },
        ],
    },
    Table {
        name: OTHERS,
        columns: &[
            Column { name: "name", kind: ColumnType::Text, index: Index::None },
            Column { name: "amount", kind: ColumnType::Integer, index: Index::None },
        ],
    },
];

/// Texts that a store must give back as they were.
pub const TEXTS: &[&str] = &[
    "",
    " ",
    "it's",
    "\"quoted\" and \\escaped\\",
    "'; drop table events; --",
    "%_?$1:name@name",
    "naïve Größe, 漢字, العربية",
    "🦀🧾 a family: 👩‍👩‍👧",
    "line\nbreak\tand tab",
    "NULL",
];

/// The longest string that a client may send, 256 characters of four bytes each.
#[must_use]
pub fn longest_text() -> String {
    "🧾".repeat(256)
}

/// The partition with this index.
#[must_use]
pub const fn partition(index: u16) -> Partition {
    Partition::from_index(index)
}

/// An id made from a name: the same every time.
#[must_use]
pub fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// The partition's aggregate with this number, from 0.
#[must_use]
pub fn aggregate(partition: Partition, number: u32) -> AggregateRef {
    let id = u128::from(number) * u128::from(PARTITIONS.get()) + u128::from(partition.index());
    AggregateRef::new(KIND, Uuid::from_u128(id))
}

/// A fact: a command of its own brought it about.
#[must_use]
pub fn fact(partition: Partition, sequence: u64, aggregate: &AggregateRef, version: u64) -> Record {
    let place = format!("{partition}-{sequence}");
    Record {
        partition,
        sequence: Sequence::new(sequence),
        record_id: id(&format!("record {place}")),
        recorded_at: Timestamp::from_micros(CREATED_AT + sequence),
        aggregate: aggregate.clone(),
        version: Some(Version::new(version)),
        event_type: Cow::Borrowed("ThingHappened"),
        schema: 1,
        data: format!(r#"{{"place":"{place}","version":{version}}}"#),
        command_id: id(&format!("command {place}")),
        correlation_id: id(&format!("saga {place}")),
        causation_id: id(&format!("cause {place}")),
        actor: "a client".to_owned(),
        traceparent: None,
        last_of_command: true,
    }
}

/// The record of a refused command: no fact, so the aggregate does not exist by it.
#[must_use]
pub fn refusal(partition: Partition, sequence: u64, aggregate: &AggregateRef) -> Record {
    Record {
        version: None,
        event_type: Cow::Borrowed(COMMAND_REFUSED),
        data: r#"{"reason":"NO","message":"no","refusal":"No","method":"Do","command":{}}"#.to_owned(),
        ..fact(partition, sequence, aggregate, 0)
    }
}

/// What the inbox remembers of a record's command.
#[must_use]
pub fn inbox_entry(record: &Record) -> InboxEntry {
    let verdict = match record.version {
        Some(_) => Verdict::Applied,
        None => Verdict::Refused { reason: "NO".to_owned(), message: "it's \"no\" 🧾".to_owned() },
    };
    InboxEntry {
        fingerprint: Fingerprint::of(record.data.as_bytes()),
        outcome: Outcome { command_id: record.command_id, position: record.position(), verdict },
    }
}

/// A snapshot of an aggregate at a version.
#[must_use]
pub fn snapshot(aggregate: &AggregateRef, version: u64) -> Snapshot {
    Snapshot {
        aggregate: aggregate.clone(),
        version: Version::new(version),
        state: EncodedSnapshot { schema: 3, data: format!(r#"{{"at":{version},"note":"it's 🧾"}}"#) },
    }
}

/// A position in the queue: the first command of a message.
#[must_use]
pub fn position(partition: Partition, message: u64) -> QueuePosition {
    QueuePosition {
        created_at: CREATED_AT,
        message,
        mark: id(&format!("message {partition}/{message}")),
        index: 0,
    }
}

/// A bundle of commands with these ids, in order.
#[must_use]
pub fn bundle(partition: Partition, commands: &[Uuid]) -> Bundle {
    let encoded: Vec<Vec<u8>> = commands
        .iter()
        .map(|command_id| {
            Envelope {
                command_id: *command_id,
                correlation_id: *command_id,
                causation_id: *command_id,
                actor: "a client, it's 🧾".to_owned(),
                traceparent: None,
                reply_to: None,
                target: aggregate(partition, 0),
                discards: None,
                command: serde_json::value::to_raw_value("a command").expect("a string is JSON"),
            }
            .encode()
            .expect("an envelope is JSON")
        })
        .collect();
    let mut bundles = pack(partition, encoded.iter().map(Vec::as_slice));
    assert_eq!(bundles.len(), 1, "the commands fit into one bundle");
    bundles.remove(0)
}

/// One who took a partition over and writes to it: what a worker remembers of it.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its partition.
    pub partition: Partition,
    /// The row as it remembers it.
    pub row: PartitionRow,
}

impl Owner {
    /// Takes a partition over.
    pub async fn take_over<L: EventLog>(log: &L, partition: Partition) -> Self {
        let rows = log.take_over(&[partition]).await.expect("a takeover succeeds");
        assert_eq!(rows.len(), 1, "a takeover answers for each partition");
        assert_eq!(rows[0].0, partition, "a takeover answers for the partition that it was asked for");
        Self { partition, row: rows[0].1 }
    }

    /// The sequence that its next record gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.row.head.next().get()
    }

    /// This many facts, the first of them the aggregate's given version.
    #[must_use]
    pub fn facts(&self, aggregate: &AggregateRef, first_version: u64, count: u64) -> Vec<Record> {
        (0..count)
            .map(|index| fact(self.partition, self.next() + index, aggregate, first_version + index))
            .collect()
    }

    /// The part of a transaction that writes these records and one outcome each, and works off one message more.
    #[must_use]
    pub fn part(&self, records: Vec<Record>) -> PartitionCommit {
        let message = self.row.position.map_or(1, |position| position.message + 1);
        PartitionCommit {
            partition: self.partition,
            expected: self.row,
            position: position(self.partition, message),
            inbox: records.iter().map(inbox_entry).collect(),
            records,
            snapshots: Vec::new(),
        }
    }

    /// Commits a part that must succeed, and remembers the row after it.
    pub async fn commit<L: EventLog>(&mut self, log: &L, part: PartitionCommit) {
        let row = part.row_after();
        assert_eq!(log.commit(vec![part]).await, Ok(vec![Commit::Done]), "an owner's commit succeeds");
        self.row = row;
    }

    /// Writes records, in one transaction.
    pub async fn write<L: EventLog>(&mut self, log: &L, records: Vec<Record>) -> Vec<Arc<Record>> {
        self.commit(log, self.part(records.clone())).await;
        records.into_iter().map(Arc::new).collect()
    }
}

/// Takes a partition over and appends this many facts, of one aggregate that had none. Answers with them.
pub async fn append<L: EventLog>(
    log: &L,
    partition: Partition,
    aggregate: u32,
    count: u64,
) -> Vec<Arc<Record>> {
    let mut owner = Owner::take_over(log, partition).await;
    let facts = owner.facts(&self::aggregate(partition, aggregate), 1, count);
    owner.write(log, facts).await
}
