//! What must be so of each line of a text, whatever its checksum says in the end.
//!
//! The rule this module protects: sequences are 1, 2, 3 in every partition, up to what the first line promised; a fact stands
//! in its aggregate's partition; a command's outcome stands at its last record.

use crate::partition::{Partition, Sequence};

use super::{Carried, Contents};

/// Where the reading stands.
pub(super) struct Check {
    contents: Contents,
    /// Which share is being read, and how far.
    share: usize,
    at: Sequence,
    records: u64,
    commands: u64,
}

impl Check {
    pub(super) fn new(contents: Contents) -> Result<Self, String> {
        let partitions = contents.deployment.partitions;
        let named: Vec<Partition> = contents.shares.iter().map(|share| share.partition).collect();
        if named != partitions.all().collect::<Vec<_>>() {
            return Err(format!("it does not name each of its {partitions} partitions once, in order"));
        }
        if let Some(share) = contents.shares.iter().find(|share| share.reacted > share.head) {
            let (partition, head, reacted) = (share.partition, share.head, share.reacted);
            return Err(format!(
                "in partition {partition} the policies are at {reacted}, behind the end at {head}"
            ));
        }
        Ok(Self { contents, share: 0, at: Sequence::ZERO, records: 0, commands: 0 })
    }

    pub(super) fn record(&mut self, carried: &Carried) -> Result<(), String> {
        self.pass_what_is_done();
        let record = &carried.record;
        let place = record.position();
        let Some(share) = self.contents.shares.get(self.share) else {
            return Err(format!("record {place} is more than the first line promises"));
        };
        let next = self.at.next();
        if (record.partition, record.sequence) != (share.partition, next) {
            return Err(format!("record {place} stands where {}-{next} has to", share.partition));
        }
        let home = self.contents.deployment.partitions.partition_of(record.aggregate.id);
        if record.version.is_some() && home != record.partition {
            return Err(format!("record {place} is a fact of partition {home}"));
        }
        let outcome = carried.outcome.as_ref().map(|entry| &entry.outcome);
        if record.last_of_command != outcome.is_some() {
            return Err(format!("record {place} and the outcome of its command do not go together"));
        }
        if let Some(outcome) = outcome {
            if outcome.command_id != record.command_id || outcome.position != place {
                return Err(format!("the outcome at record {place} is another command's"));
            }
            self.commands = self.commands.saturating_add(1);
        }
        self.at = next;
        self.records = self.records.saturating_add(1);
        Ok(())
    }

    /// Answers with how many records and commands there were.
    pub(super) fn end(&mut self) -> Result<(u64, u64), String> {
        self.pass_what_is_done();
        if let Some(share) = self.contents.shares.get(self.share) {
            let (partition, at, head) = (share.partition, self.at, share.head);
            return Err(format!(
                "partition {partition} ends at {at}, and the first line promises {head} records"
            ));
        }
        if self.commands != self.contents.commands {
            let (found, promised) = (self.commands, self.contents.commands);
            return Err(format!("there are {found} outcomes, and the first line promises {promised}"));
        }
        Ok((self.records, self.commands))
    }

    fn pass_what_is_done(&mut self) {
        while self.contents.shares.get(self.share).is_some_and(|share| self.at >= share.head) {
            self.share = self.share.saturating_add(1);
            self.at = Sequence::ZERO;
        }
    }
}
