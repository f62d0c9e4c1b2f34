//! All that a platform has stored, and an audit of it.

use uuid::Uuid;
use verify::{Audit, Bus, Expect, PartitionRow, Position, Record, Report};

use super::projection::{self, Line};

/// A record that owns what it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) partition: u16,
    pub(crate) sequence: u64,
    pub(crate) record_id: Uuid,
    pub(crate) recorded_at: u64,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: Uuid,
    pub(crate) version: Option<u64>,
    pub(crate) event_type: String,
    pub(crate) schema: u16,
    pub(crate) payload: String,
    pub(crate) command_id: Uuid,
    pub(crate) correlation_id: Uuid,
    pub(crate) causation_id: Uuid,
    pub(crate) actor: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) command_last: bool,
}

impl Owned {
    pub(crate) fn borrow(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            sequence: self.sequence,
            record_id: self.record_id,
            recorded_at: self.recorded_at,
            aggregate_type: &self.aggregate_type,
            aggregate_id: self.aggregate_id,
            version: self.version,
            event_type: &self.event_type,
            schema: self.schema,
            payload: &self.payload,
            command_id: self.command_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            actor: &self.actor,
            traceparent: self.traceparent.as_deref(),
            command_last: self.command_last,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position { partition: self.partition, sequence: self.sequence }
    }

    /// Replaces the one place where the data says this.
    pub(crate) fn say(&mut self, before: &str, now: &str) {
        assert!(self.payload.contains(before), "{} does not say {before}", self.payload);
        self.payload = self.payload.replacen(before, now, 1);
    }
}

/// An entry of the inbox.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) command_id: Uuid,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) position: Position,
    pub(crate) verdict: String,
}

/// A snapshot: type, id, version, schema, state.
pub(crate) type Snapshot = (String, Uuid, u64, u16, String);

/// A queue that somebody looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Queue {
    NotLookedAt,
    Missing,
    CreatedAt(u64),
}

/// All that a platform has stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) partitions: u16,
    pub(crate) log: Vec<Owned>,
    pub(crate) bus: Vec<Owned>,
    pub(crate) relayed: Vec<(u64, Option<Uuid>)>,
    pub(crate) inbox: Vec<Entry>,
    pub(crate) rows: Vec<PartitionRow>,
    pub(crate) queued: Vec<(Uuid, u16, u64, u32)>,
    /// Where the bus ended when it was looked at again, where that is not where it ended before.
    pub(crate) carried: Option<Vec<u64>>,
    /// Whether the bus is the log up to a position.
    pub(crate) embedded: bool,
    /// When the queue was created, where somebody looked.
    pub(crate) queue: Queue,
    /// What each partition's row remembers of the queue.
    pub(crate) remembered: Vec<Option<(u64, Uuid)>>,
    /// What somebody who looked at the queue again found at a partition's position.
    pub(crate) stands: Vec<(u16, Option<Uuid>)>,
    pub(crate) policies: Vec<u64>,
    pub(crate) projected: Vec<(u64, Option<Uuid>)>,
    pub(crate) lines: Vec<Line>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) settled: bool,
    pub(crate) accepted: Vec<Uuid>,
}

impl Stored {
    /// What follows from a log: inbox, rows, bus, checkpoints and read models, all of them up to its end.
    pub(crate) fn of(partitions: u16, log: Vec<Owned>) -> Self {
        let heads: Vec<u64> = (0..partitions).map(|partition| head(&log, partition)).collect();
        let inbox: Vec<Entry> = log.iter().filter(|record| record.command_last).map(entry).collect();
        let mut stored = Self {
            partitions,
            bus: Vec::new(),
            relayed: Vec::new(),
            rows: heads.iter().map(|head| row(*head)).collect(),
            queued: Vec::new(),
            carried: None,
            embedded: false,
            queue: Queue::NotLookedAt,
            remembered: vec![None; usize::from(partitions)],
            stands: Vec::new(),
            policies: heads.clone(),
            projected: Vec::new(),
            lines: Vec::new(),
            snapshots: Vec::new(),
            settled: false,
            accepted: inbox.iter().map(|entry| entry.command_id).collect(),
            inbox,
            log,
        };
        stored.relay(&heads);
        stored.project(&heads);
        stored
    }

    /// The bus has so many records of each partition.
    pub(crate) fn relay(&mut self, ends: &[u64]) {
        let reaches = |record: &&Owned| record.sequence <= ends[usize::from(record.partition)];
        self.bus = self.log.iter().filter(reaches).cloned().collect();
        self.relayed = self.ids(ends);
    }

    /// The read models have seen so many records of each partition.
    pub(crate) fn project(&mut self, ends: &[u64]) {
        self.projected = self.ids(ends);
        self.lines = projection::lines(&self.log, ends);
    }

    fn ids(&self, ends: &[u64]) -> Vec<(u64, Option<Uuid>)> {
        let id = |partition: usize, end: u64| {
            let at = |record: &&Owned| usize::from(record.partition) == partition && record.sequence == end;
            self.log.iter().find(at).map(|record| record.record_id)
        };
        ends.iter().enumerate().map(|(partition, end)| (*end, id(partition, *end))).collect()
    }

    /// Every position is proven: the queue, created at this time, holds the message of each partition's last command.
    pub(crate) fn prove(&mut self, created_at: u64) {
        self.queue = Queue::CreatedAt(created_at);
        for (partition, row) in (0..).zip(&self.rows) {
            let last = self.log.iter().rfind(|record| record.partition == partition);
            let (Some((message, index)), Some(last)) = (row.position, last) else { continue };
            self.remembered[usize::from(partition)] = Some((created_at, last.command_id));
            self.queued.push((last.command_id, partition, message, index));
        }
    }

    /// The index of the n-th record (from 0) of this name.
    pub(crate) fn find(&self, event_type: &str, nth: usize) -> usize {
        let mut found = (0..self.log.len()).filter(|index| self.log[*index].event_type == event_type);
        found.nth(nth).unwrap_or_else(|| panic!("there is no {event_type} number {nth}"))
    }

    /// The index of the first record of this name that says this.
    pub(crate) fn saying(&self, event_type: &str, what: &str) -> usize {
        let says = |record: &Owned| record.event_type == event_type && record.payload.contains(what);
        self.log.iter().position(says).unwrap_or_else(|| panic!("no {event_type} says {what}"))
    }

    /// The indices of what follows directly from a record.
    pub(crate) fn following(&self, index: usize) -> Vec<usize> {
        let cause = self.log[index].record_id;
        let follows = |record: &Owned| record.causation_id == cause;
        (0..self.log.len()).filter(|index| follows(&self.log[*index])).collect()
    }

    pub(crate) fn audit(&self) -> Report {
        let mut audit = Audit::new(self.partitions);
        for (partition, (sequence, record_id)) in (0..).zip(&self.projected) {
            audit.projected(partition, *sequence, *record_id);
        }
        for (kind, id, version, schema, data) in &self.snapshots {
            audit.snapshot(kind, *id, *version, *schema, data);
        }
        for message in &self.bus {
            audit.published(&message.borrow());
        }
        if self.embedded {
            audit.bus_is_in_the_log();
        }
        for (partition, (sequence, record_id)) in (0..).zip(&self.relayed) {
            audit.relayed(Bus::BeforeTheLog, partition, *sequence, *record_id);
            let carried = self.carried.as_ref().map_or(*sequence, |ends| ends[usize::from(partition)]);
            audit.relayed(Bus::AfterTheLog, partition, carried, None);
        }
        for record in &self.log {
            audit.record(&record.borrow());
        }
        for Entry { command_id, fingerprint, position, verdict } in &self.inbox {
            audit.inbox(*command_id, fingerprint, position.partition, position.sequence, verdict);
        }
        for (partition, row) in (0..).zip(&self.rows) {
            audit.partition(partition, *row);
        }
        for (partition, remembered) in (0..).zip(&self.remembered) {
            if let Some((created_at, first)) = remembered {
                audit.remembers(partition, *created_at, *first);
            }
        }
        match self.queue {
            Queue::NotLookedAt => {}
            Queue::Missing => audit.queue(None),
            Queue::CreatedAt(created_at) => audit.queue(Some(created_at)),
        }
        for (partition, first) in &self.stands {
            audit.stands(*partition, *first);
        }
        for (command_id, partition, message, index) in &self.queued {
            audit.queued(*command_id, *partition, *message, *index);
        }
        for (partition, sequence) in (0..).zip(&self.policies) {
            audit.checkpoint("policies", partition, *sequence);
        }
        for line in &self.lines {
            audit.row(&line.row());
        }
        audit.finish(&Expect { settled: self.settled, accepted: &self.accepted })
    }
}

pub(crate) fn head(log: &[Owned], partition: u16) -> u64 {
    log.iter().filter(|record| record.partition == partition).map(|record| record.sequence).max().unwrap_or(0)
}

fn row(head: u64) -> PartitionRow {
    PartitionRow { epoch: 1, head, position: (head > 0).then_some((head, 0)) }
}

fn entry(record: &Owned) -> Entry {
    let data: serde_json::Value = serde_json::from_str(&record.payload).unwrap();
    let words = || format!(r#""reason":{},"message":{}"#, data["reason"], data["message"]);
    let verdict = match record.event_type.as_str() {
        "CommandRefused" => format!(r#"{{"state":"REFUSED",{}}}"#, words()),
        "CommandUnchanged" => r#"{"state":"UNCHANGED"}"#.to_owned(),
        "CommandDead" => format!(r#"{{"state":"DEAD",{}}}"#, words()),
        _ => r#"{"state":"APPLIED"}"#.to_owned(),
    };
    Entry { command_id: record.command_id, fingerprint: vec![7; 32], position: record.position(), verdict }
}
