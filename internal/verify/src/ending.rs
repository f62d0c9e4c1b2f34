//! What must be so when everything was taken in.
//!
//! The rule this module protects: what has not met its counterpart by now is either on its way, and can be, or it is a
//! breach.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::audit::{Audit, Expect, SHOWN};
use crate::breach::{About, Invariant, Tier};
use crate::fold::investor::Settlement;
use crate::fold::invoice::Status;
use crate::fold::{Answer, Bid, Part};
use crate::hash::{Map, Set};
use crate::readmodels;
use crate::record::{Kind, Position};
use crate::report::{Bids, DeadLetter, Invoices, LetterState, OpenSaga, Report, Totals};
use crate::saga::{Cause, Effect, Half, Policy, Step};

impl Audit {
    /// That was everything.
    #[must_use]
    pub fn finish(&mut self, expect: &Expect<'_>) -> Report {
        for lane in &mut self.lanes {
            lane.end(&mut self.breaches);
        }
        self.partition_rows();
        let mut report = Report::default();
        self.bus(expect, &mut report);
        self.commands.proof(&self.lanes, &mut self.breaches);
        let on_their_way = self.sagas(expect, &mut report);
        self.bids(&on_their_way);
        self.issuers();
        self.commands.end(expect, &self.lanes, &mut self.breaches);
        self.leftover_snapshots();
        if self.lanes.iter().any(|lane| lane.projected.is_some()) {
            readmodels::missing(&self.fold, &self.commands, &self.lanes, &mut self.breaches);
        }
        self.sum_up(&mut report);
        report.breached = self.breaches.count;
        report.breaches = self.breaches.take();
        report
    }

    fn partition_rows(&mut self) {
        for (partition, lane) in self.lanes.iter().enumerate() {
            let about = lane.last.map_or(About::Nothing, About::Record);
            let what = match lane.row {
                None => format!("partition {partition} has no row"),
                Some(row) if row.head != lane.head => {
                    format!(
                        "partition {partition}'s row has {} as its head, and the log ends with {}",
                        row.head, lane.head
                    )
                }
                Some(row) if row.head > 0 && row.epoch == 0 => {
                    format!("partition {partition} has records, and nobody ever took it over")
                }
                Some(_) => continue,
            };
            self.breaches.add(Tier::Log, Invariant::I4, about, what);
        }
    }

    /// Sagas that are not at their end; answers with their bids.
    fn sagas(&mut self, expect: &Expect<'_>, report: &mut Report) -> Set<Uuid> {
        let mut on_their_way = Set::default();
        let mut open = Vec::new();
        for (command_id, half) in std::mem::take(&mut self.saga.waiting) {
            match half {
                Half::Effect(effect) => self.without_cause(command_id, &effect),
                Half::Cause(cause) => {
                    on_their_way.insert(cause.step.bid);
                    self.without_effect(command_id, &cause, expect);
                    open.push(OpenSaga {
                        position: cause.place.position,
                        correlation_id: cause.correlation,
                        bid_id: cause.step.bid,
                        command_id,
                        what: cause.step.to_string(),
                    });
                }
            }
        }
        let dead = self.dead_letters(&mut on_their_way, report);
        open.sort_by_key(|saga| saga.position);
        (report.open_sagas, report.dead_letters) = (open.len() as u64, dead.len() as u64);
        open.truncate(SHOWN);
        report.open = open;
        report.dead = dead.into_values().take(SHOWN).collect();
        on_their_way
    }

    /// The letters that nobody has retried; the bids whose sagas wait for them are on their way.
    fn dead_letters(
        &mut self,
        on_their_way: &mut Set<Uuid>,
        report: &mut Report,
    ) -> BTreeMap<Position, DeadLetter> {
        let mut steps: Map<Uuid, Step> = Map::default();
        for (place, _, step) in self.saga.dead.drain(..) {
            if !self.letters.is_done(place.record_id) {
                on_their_way.insert(step.bid);
            }
            steps.insert(place.record_id, step);
        }
        self.letters.end(&steps, &mut self.breaches);
        let mut dead = BTreeMap::new();
        for (id, mut letter) in self.dead.drain(..) {
            letter.state = self.letters.state(id);
            match letter.state {
                LetterState::Retried => report.retried_letters += 1,
                LetterState::Open | LetterState::Discarded => {
                    if let Some(step) = steps.get(&self.letters.first_of(id)) {
                        letter.bid_id = Some(step.bid);
                        letter.what = format!("{} ({step})", letter.what);
                    }
                    dead.insert(letter.position, letter);
                }
            }
        }
        dead
    }

    fn without_cause(&mut self, command_id: Uuid, effect: &Effect) {
        let Effect { causation, .. } = *effect;
        let derives = Policy::ALL.into_iter().find(|policy| policy.command_id(causation) == command_id);
        let what = match (self.records.contains(&causation), derives) {
            (false, _) => format!("its cause {causation} is not in the log"),
            (true, Some(policy)) => {
                format!("policy {} does not react to its cause {causation}", policy.name())
            }
            (true, None) => format!("command {command_id} does not derive from its cause {causation}"),
        };
        self.breaches.rule(Invariant::Causality, effect.place, what);
    }

    fn without_effect(&mut self, command_id: Uuid, cause: &Cause, expect: &Expect<'_>) {
        let position = cause.place.position;
        let lane = self.lanes.get(usize::from(position.partition));
        // (What another queue had is lost or not: whoever adopts the new one sets the policies back.)
        let another = self.lanes.iter().any(|lane| self.commands.is_another(lane));
        let reacted = !another && lane.is_some_and(|lane| position.sequence <= lane.reacted);
        let what = if reacted && !self.commands.queued.contains_key(&command_id) {
            format!(
                "the policies have seen it, and command {command_id} is neither queued nor done: {}",
                cause.step
            )
        } else if expect.settled {
            format!("nothing follows from it, and due is {}", cause.step)
        } else {
            return;
        };
        let invariant = if expect.settled { Invariant::I3 } else { Invariant::I2 };
        self.breaches.add(Tier::End, invariant, cause.place, what);
    }

    /// A bid of which nothing is on its way any more is at its end.
    fn bids(&mut self, on_their_way: &Set<Uuid>) {
        for (id, bid) in self.fold.bids.iter().filter(|(id, _)| !on_their_way.contains(*id)) {
            let invoice = self.fold.invoices.get(&bid.invoice);
            let asking = invoice.map_or(0, |invoice| invoice.asking.minor);
            let status = invoice.and_then(|invoice| invoice.status);
            let due = match (bid.answer, status) {
                (Answer::None, _) | (Answer::Won, None | Some(Status::Available)) => None,
                (Answer::Rejected(_), _) | (Answer::Won, Some(Status::Reversed)) => {
                    Some((0, 0, Some(Settlement::Released)))
                }
                (Answer::Won, Some(Status::Financed)) => Some((asking, 0, None)),
                (Answer::Won, Some(Status::Approved)) => Some((0, asking, Some(Settlement::Committed))),
            };
            let is = (bid.left, bid.committed, bid.settlement);
            if !bid.placed || due != Some(is) {
                let what = state_of(id, bid);
                let (partition, sequence) = bid.at;
                let about = About::Position(Position { partition, sequence }, Kind::Investor, bid.investor);
                self.breaches.add(Tier::End, Invariant::I3, about, what);
            }
        }
    }

    fn issuers(&mut self) {
        for (id, invoice) in &self.fold.invoices {
            if invoice.status.is_some() && !self.fold.issuers.contains_key(&invoice.issuer) {
                let what = format!("invoice {id} is sold by {}, and there is no such issuer", invoice.issuer);
                let (partition, sequence) = invoice.at;
                let about = About::Position(Position { partition, sequence }, Kind::Invoice, *id);
                self.breaches.add(Tier::End, Invariant::I3, about, what);
            }
        }
    }

    fn leftover_snapshots(&mut self) {
        for ((kind, id), snapshot) in self.snapshots.drain() {
            let what = format!("there is a snapshot of version {}, which the log has not", snapshot.version);
            self.breaches.add(Tier::Derived, Invariant::I4, About::Aggregate(kind, id), what);
        }
    }

    fn sum_up(&mut self, report: &mut Report) {
        let counts = &mut self.counts;
        counts.outcomes = self.outcomes;
        counts.commands = self.commands.done.len() as u64;
        counts.inbox = self.commands.inbox;
        counts.queued = self.commands.in_queue;
        counts.issuers = self.fold.issuers.len() as u64;
        counts.investors = self.fold.investors.len() as u64;
        for investor in self.fold.investors.values() {
            let totals: &mut Totals = counts.money.entry(investor.currency).or_default();
            totals.added += i128::from(investor.added);
            totals.available += i128::from(investor.balances.available);
            totals.reserved += i128::from(investor.balances.reserved);
            totals.committed += i128::from(investor.balances.committed);
        }
        counts.invoices = self.fold.invoices.values().filter_map(|invoice| invoice.status).fold(
            Invoices::default(),
            |mut sum, status| {
                let count = match status {
                    Status::Available => &mut sum.available,
                    Status::Financed => &mut sum.financed,
                    Status::Approved => &mut sum.approved,
                    Status::Reversed => &mut sum.reversed,
                };
                *count += 1;
                sum
            },
        );
        counts.bids = self.fold.bids.values().fold(Bids::default(), |mut sum, bid| {
            let count = match (bid.settlement, bid.answer) {
                (Some(Settlement::Committed), _) => &mut sum.committed,
                (Some(Settlement::Released), _) => &mut sum.released,
                (None, Answer::Won) => &mut sum.won,
                (None, Answer::Rejected(_)) => &mut sum.rejected,
                (None, Answer::None) => &mut sum.placed,
            };
            *count += 1;
            sum
        });
        report.counts = std::mem::take(counts);
        // In total, too.
        for (currency, sum) in &report.counts.money {
            if sum.available + sum.reserved + sum.committed != sum.added {
                let what = format!("all {currency} together do not add up to what was added");
                self.breaches.add(Tier::End, Invariant::I1, About::Nothing, what);
            }
        }
    }
}

fn state_of(id: &Uuid, bid: &Bid) -> String {
    let show = |minor: i64| bid.amount.currency.show(minor.into());
    let answer = match bid.answer {
        Answer::None => "not answered".to_owned(),
        Answer::Won => "won".to_owned(),
        Answer::Rejected(reason) => format!("rejected ({})", reason.code()),
    };
    let placed = if bid.placed { "" } else { " was never placed," };
    let closed = if bid.part == Part::Closed { ", closed" } else { "" };
    format!(
        "bid {id}{placed} of {} is {answer}; {} are reserved and {} committed{closed}, and nothing is on its way",
        bid.amount,
        show(bid.left),
        show(bid.committed)
    )
}
