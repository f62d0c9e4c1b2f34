//! The ends of the bus, and of whoever reads it.
//!
//! The rule this module protects: the bus holds a prefix of the log. A bus that lost its tail still does, and the relayer
//! fills it up again from the log; so that somebody has read more of it than there is now is worth a note, and no breach,
//! as long as the log has what was read.

use crate::audit::{Audit, Expect};
use crate::breach::{About, Breaches, Invariant, Tier};
use crate::lane::Lane;
use crate::report::Report;

/// Somebody has come further than the bus.
struct Ahead {
    by: u64,
    about: About,
    what: String,
}

impl Audit {
    /// What must be so of the bus when everything was taken in.
    pub(crate) fn bus(&mut self, expect: &Expect<'_>, report: &mut Report) {
        for (partition, lane) in self.lanes.iter().enumerate() {
            ends(partition, lane, &mut self.breaches);
            if self.bus_in_the_log {
                position(partition, lane, &mut self.breaches);
            }
            let ahead = self.ahead(partition, lane);
            let Some(most) = ahead.iter().map(|ahead| ahead.by).max() else { continue };
            if expect.settled {
                for Ahead { about, what, .. } in ahead {
                    self.breaches.add(Tier::Derived, Invariant::I5, about, what);
                }
            } else {
                self.counts.behind = self.counts.behind.saturating_add(most);
                report.notes.push(format!(
                    "the bus of partition {partition} is behind its readers by {most}: it is refilled from the log"
                ));
            }
        }
        for (reader, partition, sequence) in &self.checkpoints {
            let Some(lane) = self.lanes.get(usize::from(*partition)) else { continue };
            if *sequence > lane.head {
                let about = lane.last.map_or(About::Nothing, About::Record);
                let what = format!(
                    "{reader} have read {sequence} messages of partition {partition}, and the log ends with {}",
                    lane.head
                );
                self.breaches.add(Tier::Derived, Invariant::I5, about, what);
            }
        }
    }

    /// Who has read, of what the log has, more than the bus has.
    fn ahead(&self, partition: usize, lane: &Lane) -> Vec<Ahead> {
        let mut ahead = Vec::new();
        let about = lane.last.map_or(About::Nothing, About::Record);
        let messages = lane.messages.len() as u64;
        let looked_at = lane.carried.is_some() || lane.relayed.is_some() || messages > 0;
        let end = lane.relayed.map_or(messages, |(sequence, _)| sequence);
        let latest = lane.carried.unwrap_or(end).max(end);
        let readers = self.checkpoints.iter().filter(|(_, of, _)| usize::from(*of) == partition);
        let readers = readers.map(|(reader, _, sequence)| (reader.as_str(), *sequence));
        let models = lane.projected.map(|(sequence, _)| ("the read models", sequence));
        for (reader, sequence) in models.into_iter().chain(readers) {
            if looked_at && sequence > latest && sequence <= lane.head {
                let what = format!(
                    "{reader} have seen {sequence} records of partition {partition}, and the bus has {latest}"
                );
                ahead.push(Ahead { by: sequence.saturating_sub(latest), about, what });
            }
        }
        let followed = self.saga.followed.get(partition).copied().flatten();
        if let (Some(carried), Some((sequence, effect))) = (lane.carried, followed)
            && sequence > carried
        {
            let what = format!(
                "it follows from {partition}-{sequence}, and the bus has only {carried} of that partition"
            );
            ahead.push(Ahead { by: sequence.saturating_sub(carried), about: effect.into(), what });
        }
        ahead
    }
}

fn ends(partition: usize, lane: &Lane, breaches: &mut Breaches) {
    let about = lane.last.map_or(About::Nothing, About::Record);
    let messages = lane.messages.len() as u64;
    let end = lane.relayed.map_or(messages, |(sequence, _)| sequence);
    for (name, end) in [("ends with", end), ("has", messages)] {
        if end > lane.head {
            let what =
                format!("the bus of partition {partition} {name} {end}, and the log ends with {}", lane.head);
            breaches.add(Tier::Derived, Invariant::I5, about, what);
            break;
        }
    }
    if messages > 0 && messages != end {
        let what = format!("the bus of partition {partition} has {messages} messages and ends with {end}");
        breaches.add(Tier::Derived, Invariant::I5, about, what);
    }
    if let Some((projected, _)) = lane.projected
        && projected > lane.head
    {
        let what = format!(
            "the read models have seen {projected} records of partition {partition}, and it has {}",
            lane.head
        );
        breaches.add(Tier::Derived, Invariant::I6, about, what);
    }
}

/// Where the bus is the log up to a position, that has to say where, and at which record.
fn position(partition: usize, lane: &Lane, breaches: &mut Breaches) {
    let what = match lane.relayed {
        None => format!("nobody knows how far partition {partition} is on the bus"),
        Some((sequence, None)) if sequence > 0 => {
            format!(
                "the bus of partition {partition} ends with {sequence}, and does not say with which record"
            )
        }
        Some(_) => return,
    };
    let about = lane.last.map_or(About::Nothing, About::Record);
    breaches.add(Tier::Derived, Invariant::I5, about, what);
}
