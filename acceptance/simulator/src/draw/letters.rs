//! Drawing what becomes a dead letter, and what people do about dead letters.
//!
//! The rule this module protects: some can be retried and some cannot, several are of one aggregate, and those who look after them
//! meet each other.

use domain::financing::{Command, Financing};
use domain::ids::BidId;
use domain::investor::InvestorCommand;
use eventsourcing::command::{Envelope, pack};
use eventsourcing::model::Model as _;
use eventsourcing::partition::{Partition, PartitionCount};

use super::{BEAT, Market, of_request, uuid};
use crate::plan::{Deed, Message};

impl Market {
    /// A producer has miscounted: what others say, too, is in the partition behind the one where it belongs, several for one aggregate.
    pub(super) fn strays(&mut self) {
        if self.partitions == 1 || !self.dice.percent(45) {
            return;
        }
        let partitions = PartitionCount::new(self.partitions).unwrap_or(PartitionCount::ONE);
        let said: Vec<Command> =
            self.acts.iter().filter_map(|act| commanded(&act.message)).cloned().collect();
        let first = self.dice.below(said.len());
        let target = Financing::target(&said[first]);
        let alike = said.iter().filter(|command| Financing::target(command) == target);
        for mut command in alike.take(1 + self.dice.below(4)).cloned().collect::<Vec<_>>() {
            let id = uuid(&mut self.dice);
            if let Command::Investor(InvestorCommand::BidOnInvoice(bid)) = &mut command {
                // Another bid: whoever makes commands makes the ids of bids.
                bid.bid_id = BidId::new(of_request(id, b"bid"));
            }
            let Ok(envelope) = Envelope::first::<Financing>(id, "producer".to_owned(), &command) else {
                continue;
            };
            let Ok(envelope) = envelope.encode() else { continue };
            let partition = (partitions.partition_of(target.id).index() + 1) % self.partitions;
            for bundle in pack(Partition::from_index(partition), [envelope.as_slice()]) {
                let at = self.after(4 * BEAT, 16);
                self.act(at, Message::Stray { partition, payload: bundle.payload });
            }
        }
    }

    /// People look after what died: one alone, or several at once who do not know of each other.
    pub(super) fn operations(&mut self) {
        for _ in 0..3 + self.dice.below(5) {
            let (at, pick) = (self.after(5 * BEAT, 34), self.dice.below(6));
            let people = [1, 1, 2, 2, 3][self.dice.below(5)];
            for _ in 0..people {
                let deed = match self.dice.below(100) {
                    0..50 => Deed::Retry,
                    50..82 => Deed::Discard,
                    _ => Deed::RetryAll,
                };
                self.act(at, Message::Operated { deed, pick });
            }
        }
    }
}

fn commanded(message: &Message) -> Option<&Command> {
    match message {
        Message::Command { command, .. } => Some(command),
        Message::Published { .. }
        | Message::Streamed { .. }
        | Message::Operated { .. }
        | Message::Stray { .. } => None,
    }
}
