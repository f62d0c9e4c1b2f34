//! What a mishap does.
//!
//! The rule this module protects: a mishap does to a process or a store what the real world does, and tells nobody.

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::Role;
use eventsourcing::turn::Halted;

use crate::parts::{Kind, Part, Store};
use crate::plan::{Message, MishapKind, TERM};
use crate::run::{Director, Job};
use crate::story::millis;
use crate::tally::Counted;
use crate::wire::Order;
use crate::{Breach, Check};

/// After how many microseconds a mishap is tried again that cannot happen now.
const LATER: u64 = 300_000;

impl Director<'_> {
    /// What a step may have asked for.
    pub(crate) fn after_a_step(&mut self) {
        self.steps += 1;
        self.look_for_the_lost();
        if self.teller.is_telling() {
            self.teller.step(&self.stage);
        }
        for order in self.stage.book.take_orders() {
            match order {
                Order::Pause(part, pause) => self.pause(part, pause),
                Order::Kill(part, down) => self.kill(part, down),
            }
        }
        if self.pending.is_empty() {
            return;
        }
        let mut due = Vec::new();
        self.pending.retain_mut(|(steps, place)| {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                due.push(*place);
            }
            *steps > 0
        });
        for place in due {
            self.strike(place);
        }
    }

    /// When nothing can run: what is due, and who has come to an end.
    pub(crate) fn between(&mut self) -> Result<(), Breach> {
        let now = self.stage.now();
        while let Some(job) = self.agenda.first_entry().filter(|job| job.key().0 <= now) {
            let job = job.remove();
            self.attend(job);
        }
        self.look_for_places();
        self.ends()?;
        self.replace()
    }

    fn attend(&mut self, job: Job) {
        match job {
            Job::Mishap(place) => match self.plan.mishaps.get(place).map_or(0, |mishap| mishap.steps) {
                0 => self.strike(place),
                steps => self.pending.push((steps, place)),
            },
            Job::Say(place) => self.say(place),
            Job::Start(part) => {
                if !self.waits_for_a_person(part) {
                    self.teller.tell(|| format!("another {part} starts"));
                    self.start(part);
                }
            }
            Job::Resume(part) => {
                let now = self.stage.now();
                if let Some(process) = self.process(part).filter(|process| process.paused_until <= now) {
                    process.resume();
                    self.teller.tell(|| format!("{part} goes on, and believes what it believed"));
                }
            }
            Job::Mend(part, store) => {
                if let Some(wire) = self.stage.wire(part) {
                    wire.mend(store);
                }
                self.teller.tell(|| format!("{part} reaches {store} again"));
            }
            Job::Room => {
                self.stage.queue.refuse(None);
                self.teller.tell(|| "the command queue has room again".to_owned());
            }
            Job::Mended => {
                self.stage.log.refuse_content(None);
                self.teller.tell(|| "the event log takes everything again".to_owned());
            }
            Job::Backup(place) => {
                let saved = self.stage.queue.save();
                self.backups.push((place, saved));
                self.teller.tell(|| "a copy of the command queue is taken".to_owned());
            }
        }
    }

    fn say(&mut self, place: usize) {
        let Some(act) = self.plan.acts.get(place) else { return };
        self.teller.act(act);
        match &act.message {
            Message::Streamed { payload, .. } => {
                self.stage.foreign.publish("registering", payload);
                self.streamed.push(payload.clone());
            }
            Message::Stray { partition, payload } => {
                self.stage.queue.push(Partition::from_index(*partition), payload);
            }
            Message::Command { .. } | Message::Published { .. } | Message::Operated { .. } => {}
        }
    }

    /// A mishap happens, if it can.
    fn strike(&mut self, place: usize) {
        let Some(mishap) = self.plan.mishaps.get(place) else { return };
        if self.replacement.is_some() {
            let later = self.stage.now() + LATER;
            return self.at(later, Job::Mishap(place));
        }
        match mishap.kind {
            MishapKind::Crash { part, down } => {
                if self.process(part).is_some() {
                    self.tally.count(Counted::Crash);
                    self.kill(part, down);
                }
            }
            MishapKind::Deploy { part } => {
                if let Some(process) = self.process(part).filter(|process| !process.stopping) {
                    process.stopper.stop();
                    process.stopping = true;
                    self.tally.count(Counted::Deploy);
                    self.teller.tell(|| format!("{part} is told to stop"));
                }
            }
            MishapKind::Pause { part, pause } => {
                if self.process(part).is_some() {
                    self.tally.count(if pause > TERM { Counted::Zombie } else { Counted::Delayed });
                    self.pause(part, pause);
                }
            }
            MishapKind::Call { part, call, harm } => {
                if let Some(wire) = self.stage.wire(part) {
                    wire.arm(call, harm);
                }
            }
            MishapKind::Cut { part, store, lasts } => self.cut(part, store, lasts),
            MishapKind::BusLosesTail { partition, records } => self.lose_tail(partition, records),
            MishapKind::QueueFull { partition, lasts } => {
                self.stage.queue.refuse(Some(Partition::from_index(partition)));
                self.tally.count(Counted::QueueFull);
                self.teller.tell(|| format!("the command queue has no room for partition {partition}"));
                self.at(self.stage.now() + millis(lasts), Job::Room);
            }
            MishapKind::StoreRefuses { of, lasts } => {
                self.stage.log.refuse_content(Some(&of.to_string()));
                self.tally.count(Counted::StoreRefused);
                self.teller
                    .tell(|| format!("the event log refuses what is said of {}", self.plan.cast.name(of)));
                self.at(self.stage.now() + millis(lasts), Job::Mended);
            }
            MishapKind::ClockJumps { part, by } => {
                if let Some(clock) = self.stage.clocks.get(part.index()) {
                    clock.jump(by);
                }
                self.tally.count(if by > 0 { Counted::ClockForwards } else { Counted::ClockBackwards });
                self.teller.tell(|| format!("the clock of {part} jumps by {by} ms"));
            }
            MishapKind::QueueRestored { .. } | MishapKind::QueueLost | MishapKind::StreamLost => {
                self.begin_replacement(place, mishap.kind);
            }
        }
    }

    fn cut(&mut self, part: Part, store: Store, lasts: u32) {
        let Some(wire) = self.stage.wire(part) else { return };
        wire.cut(store);
        self.tally.count(Counted::CutOff);
        self.teller.tell(|| format!("{part} is cut off from {store} for {lasts} ms"));
        self.at(self.stage.now() + millis(lasts), Job::Mend(part, store));
    }

    fn lose_tail(&mut self, partition: u16, records: u64) {
        let partition = Partition::from_index(partition);
        let last = self.stage.bus.last(partition).get();
        let left = last.saturating_sub(records);
        if left == last {
            return;
        }
        self.stage.bus.truncate(partition, Sequence::new(left));
        self.lost_records += last - left;
        self.tally.count(Counted::BusLostTail);
        self.teller
            .tell(|| format!("the bus loses the records {} to {last} of partition {partition}", left + 1));
        for wire in &self.stage.wires {
            wire.sever(Store::Bus);
        }
    }

    pub(crate) fn kill(&mut self, part: Part, down: u32) {
        let Some(process) = self.processes.get_mut(part.index()).and_then(Option::take) else { return };
        process.kill();
        self.teller.tell(|| format!("{part} is killed"));
        let at = self.stage.now() + millis(down);
        self.at(at, Job::Start(part));
    }

    fn pause(&mut self, part: Part, pause: u32) {
        let until = self.stage.now() + millis(pause);
        let Some(process) = self.process(part) else { return };
        process.paused_until = process.paused_until.max(until);
        process.pause();
        self.teller.tell(|| format!("{part} is not run for {pause} ms"));
        self.at(until, Job::Resume(part));
    }

    /// The trouble is over: everybody is back, and nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.teller.tell(|| "from here on nothing goes wrong any more".to_owned());
        self.stage.queue.refuse(None);
        self.stage.log.refuse_content(None);
        for wire in &self.stage.wires {
            wire.heal();
        }
        for part in Part::loops() {
            self.start(part);
            if let Some(process) = self.process(part) {
                process.paused_until = 0;
                process.resume();
            }
        }
    }

    /// Whoever was told to stop and has is followed by another. Whoever comes to an end without that has halted: a breach,
    /// but in front of a queue that was replaced.
    fn ends(&mut self) -> Result<(), Breach> {
        for part in Part::loops() {
            let Some(process) = self.process(part) else { continue };
            let (stopping, over) = (process.stopping, process.is_over());
            match process.end() {
                Some(Err(halted)) => self.halts(part, &halted)?,
                Some(Ok(())) if !stopping => {
                    let what = format!("{part} came to an end without being told to stop");
                    return Err(Breach { check: Check::Halts, what });
                }
                Some(Ok(())) | None if stopping && over => {
                    self.forget(part);
                    self.teller.tell(|| format!("{part} has stopped, and another starts"));
                    self.start(part);
                }
                Some(Ok(())) | None => {}
            }
        }
        Ok(())
    }

    fn halts(&mut self, part: Part, halted: &Halted) -> Result<(), Breach> {
        self.teller.tell(|| format!("{part}: {halted}"));
        if !self.must_halt(part, halted) {
            return Err(Breach { check: Check::Halts, what: format!("{part}: {halted}") });
        }
        self.tally.count(Counted::Halted);
        // The process ends with its loop.
        self.forget(part);
        Ok(())
    }

    fn forget(&mut self, part: Part) {
        if let Some(process) = self.processes.get_mut(part.index()).and_then(Option::take) {
            process.kill();
        }
    }

    /// Whether a process is not started again by itself.
    fn waits_for_a_person(&self, part: Part) -> bool {
        let reads_queues =
            matches!(part.kind(), Kind::Member(Role::Worker | Role::Policies | Role::Importer));
        self.replacement.is_some() && reads_queues
    }
}
