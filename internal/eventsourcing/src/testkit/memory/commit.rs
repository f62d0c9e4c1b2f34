//! What a commit checks before it writes anything.
//!
//! The rule this module protects: all of a part or nothing of it, and nothing at all where the store is about to
//! break an invariant. Both nets are here: the row, and the uniqueness of what must be unique.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::log::SavedLog;
use crate::model::AggregateRef;
use crate::mutants::{Mutant, planted};
use crate::partition::Version;
use crate::ports::{Commit, PartitionCommit, PartitionRow, PortError, PortResult};
use crate::record::{COMMAND_DEAD, Record};

fn broken<T>(what: String) -> PortResult<T> {
    Err(PortError::Broken(what))
}

impl PartitionCommit {
    /// What a planted bug does: takes whatever row is there for the one that the owner remembers, and numbers anew.
    fn follow(&mut self, row: PartitionRow) {
        self.expected = row;
        let mut sequence = row.head;
        for record in &mut self.records {
            sequence = sequence.next();
            record.sequence = sequence;
            let outcome = self.inbox.iter_mut().find(|entry| entry.outcome.command_id == record.command_id);
            if let Some(entry) = outcome {
                entry.outcome.position.sequence = sequence;
            }
        }
    }
}

impl SavedLog {
    pub(super) fn commit(&mut self, parts: Vec<PartitionCommit>) -> PortResult<Vec<Commit>> {
        let partitions: BTreeSet<_> = parts.iter().map(|part| part.partition).collect();
        if partitions.len() < parts.len() {
            return broken("a partition has two parts in one commit".to_owned());
        }
        let (mut answers, mut owned) = (Vec::with_capacity(parts.len()), Vec::new());
        for mut part in parts {
            let row = self.row(part.partition);
            if planted(Mutant::MaxPlusOne) {
                part.follow(row);
            }
            if row == part.expected || planted(Mutant::NoEpoch) {
                answers.push(Commit::Done);
                owned.push(part);
            } else {
                answers.push(Commit::Fenced);
            }
        }
        self.no_command_is_known(&owned)?;
        self.everything_can_be_stored(&owned)?;
        let mut versions = BTreeMap::new();
        for part in &owned {
            self.sequences_and_versions_have_no_gaps(part, &mut versions)?;
            Self::outcomes_are_where_they_say(part)?;
            self.the_queue_is_worked_off_forwards(part)?;
        }
        for part in owned {
            self.write(part);
        }
        Ok(answers)
    }

    fn no_command_is_known(&self, parts: &[PartitionCommit]) -> PortResult<()> {
        if planted(Mutant::NoInbox) || planted(Mutant::RepeatsInOneBatch) {
            return Ok(());
        }
        let mut new = BTreeSet::new();
        for entry in parts.iter().flat_map(|part| &part.inbox) {
            let command_id = entry.outcome.command_id;
            if self.inbox.contains_key(&command_id) || !new.insert(command_id) {
                return Err(PortError::Conflict(format!("command {command_id} has an outcome")));
            }
        }
        Ok(())
    }

    fn everything_can_be_stored(&self, parts: &[PartitionCommit]) -> PortResult<()> {
        let Some(text) = &self.unstorable else { return Ok(()) };
        let mut records = parts.iter().flat_map(|part| &part.records);
        // What cannot be stored must at least be able to die.
        let holds = |record: &&Record| record.data.contains(text) && record.event_type != COMMAND_DEAD;
        match records.find(holds) {
            Some(record) => Err(PortError::Content(format!("{} holds {text:?}", record.position()))),
            None => Ok(()),
        }
    }

    fn sequences_and_versions_have_no_gaps(
        &self,
        part: &PartitionCommit,
        versions: &mut BTreeMap<AggregateRef, Version>,
    ) -> PortResult<()> {
        let mut sequence = part.expected.head;
        let known = self.records(part.partition).last().map_or(sequence, |record| record.sequence);
        if known != sequence {
            return broken(format!(
                "the row of partition {} says {sequence}, its last record is {known}",
                part.partition
            ));
        }
        for record in &part.records {
            sequence = sequence.next();
            if (record.partition, record.sequence) != (part.partition, sequence) {
                return broken(format!("{} is written as {}-{sequence}", record.position(), part.partition));
            }
            let Some(version) = record.version else { continue };
            let last =
                versions.entry(record.aggregate.clone()).or_insert_with(|| self.version(&record.aggregate));
            if version != last.next() {
                return broken(format!("version {version} of {} follows {last}", record.aggregate));
            }
            *last = version;
        }
        for snapshot in &part.snapshots {
            let last = versions
                .get(&snapshot.aggregate)
                .copied()
                .unwrap_or_else(|| self.version(&snapshot.aggregate));
            if snapshot.version > last || snapshot.version == Version::ZERO {
                return broken(format!(
                    "a snapshot of {} at {}, which is at {last}",
                    snapshot.aggregate, snapshot.version
                ));
            }
        }
        Ok(())
    }

    fn outcomes_are_where_they_say(part: &PartitionCommit) -> PortResult<()> {
        for entry in &part.inbox {
            let (command_id, position) = (entry.outcome.command_id, entry.outcome.position);
            let last = part.records.iter().rfind(|record| record.command_id == command_id);
            if last.map(Record::position) != Some(position) {
                return broken(format!("the outcome of command {command_id} is not at {position}"));
            }
        }
        let known: BTreeSet<_> = part.inbox.iter().map(|entry| entry.outcome.command_id).collect();
        match part.records.iter().find(|record| !known.contains(&record.command_id)) {
            Some(record) => broken(format!("{} belongs to a command without an outcome", record.position())),
            None => Ok(()),
        }
    }

    fn the_queue_is_worked_off_forwards(&self, part: &PartitionCommit) -> PortResult<()> {
        let Some(before) = self.row(part.partition).position else { return Ok(()) };
        let after = part.position;
        let same = before.created_at == after.created_at;
        if same && (after.message, after.index) < (before.message, before.index) {
            return broken(format!("partition {} goes back from {before} to {after}", part.partition));
        }
        Ok(())
    }

    fn write(&mut self, part: PartitionCommit) {
        self.rows.insert(part.partition, part.row_after());
        for record in part.records.into_iter().map(Arc::new) {
            if record.version.is_some() {
                self.facts.entry(record.aggregate.clone()).or_default().push(Arc::clone(&record));
            }
            self.records.entry(part.partition).or_default().push(record);
        }
        self.inbox.extend(part.inbox.into_iter().map(|entry| (entry.outcome.command_id, entry)));
        for snapshot in part.snapshots {
            let known = self.snapshots.get(&snapshot.aggregate).map(|known| known.version);
            if known.is_none_or(|known| known <= snapshot.version) {
                self.snapshots.insert(snapshot.aggregate.clone(), snapshot);
            }
        }
    }
}
