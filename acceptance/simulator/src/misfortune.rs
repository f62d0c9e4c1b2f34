//! Drawing what goes wrong.
//!
//! The rule this module protects: at least five mishaps a run, none of them the last word. What the platform promises
//! to survive is drawn, and what it does not (a log that was restored, two disks that die at once) is not.

use eventsourcing::ports::Role;
use eventsourcing::testkit::memory::Call;
use eventsourcing::testkit::world::Dice;
use uuid::Uuid;

use crate::parts::{Kind, Part};
use crate::plan::{Cast, Harm, Mishap, MishapKind, TERM};

/// Draws the mishaps of a run whose last act is at this time.
pub(crate) fn draw(dice: &mut Dice, partitions: u16, cast: &Cast, last: u64) -> Vec<Mishap> {
    let mut mishaps: Vec<Mishap> = Vec::new();
    // A few more than must be: a call that is to go wrong may never be made.
    for _ in 0..6 + dice.below(6) {
        push(&mut mishaps, dice, last, partitions, kind);
    }
    if dice.percent(30) {
        // What other contexts say they say at first, and then there is little to import.
        push(&mut mishaps, dice, 200_000, partitions, importing);
    }
    if dice.percent(12) {
        push(&mut mishaps, dice, last, partitions, replacement);
    }
    if dice.percent(40) {
        // One at a time: there is one thing that a store refuses.
        let of: Vec<Uuid> = cast.investors.iter().chain(&cast.invoices).copied().collect();
        let of = of[dice.below(of.len())];
        push(&mut mishaps, dice, last, partitions, |dice, _| MishapKind::StoreRefuses {
            of,
            lasts: millis(dice, 300, 2_500),
        });
    }
    mishaps
}

fn push(
    mishaps: &mut Vec<Mishap>,
    dice: &mut Dice,
    last: u64,
    partitions: u16,
    kind: impl FnOnce(&mut Dice, u16) -> MishapKind,
) {
    // On the beat of the acts, so that it meets them.
    let beats = usize::try_from(last / 100_000).unwrap_or(0) + 2;
    let at = u64::try_from(dice.below(beats)).unwrap_or(0) * 100_000;
    let steps = u32::try_from(dice.below(120)).unwrap_or(0);
    let kind = kind(dice, partitions);
    mishaps.push(Mishap { number: mishaps.len() + 1, at, steps, kind });
}

fn millis(dice: &mut Dice, least: u32, most: u32) -> u32 {
    least + u32::try_from(dice.below(usize::try_from(most - least).unwrap_or(0) + 1)).unwrap_or(0)
}

fn some_loop(dice: &mut Dice) -> Part {
    // Workers, relayers and policy runners twice as often: they are what the others rely on.
    const OFTEN: [usize; 20] = [0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9, 10, 11];
    Part::at(OFTEN[dice.below(OFTEN.len())])
}

fn some_loop_or_the_door(dice: &mut Dice) -> Part {
    if dice.percent(4) { Part::DOOR } else { some_loop(dice) }
}

fn some_partition(dice: &mut Dice, partitions: u16) -> u16 {
    u16::try_from(dice.below(usize::from(partitions))).unwrap_or(0)
}

fn kind(dice: &mut Dice, partitions: u16) -> MishapKind {
    match dice.below(100) {
        0..10 => MishapKind::Crash { part: some_loop(dice), down: millis(dice, 0, 2_500) },
        10..13 => MishapKind::Deploy { part: some_loop(dice) },
        13..21 => {
            let pause = if dice.percent(60) {
                millis(dice, TERM + 100, TERM + 1_500)
            } else {
                millis(dice, 50, 2_000)
            };
            MishapKind::Pause { part: some_loop(dice), pause }
        }
        21..74 => call(dice),
        74..83 => {
            let part = if dice.percent(8) { Part::QUERIES } else { some_loop_or_the_door(dice) };
            let stores = part.stores();
            let store = stores[dice.below(stores.len())];
            MishapKind::Cut { part, store, lasts: millis(dice, 100, 4_000) }
        }
        83..89 => MishapKind::BusLosesTail {
            partition: some_partition(dice, partitions),
            records: 1 + u64::try_from(dice.below(6)).unwrap_or(0),
        },
        89..94 => MishapKind::QueueFull {
            partition: some_partition(dice, partitions),
            lasts: millis(dice, 100, 1_500),
        },
        _ => {
            let by = i32::try_from(millis(dice, 1_000, 7_200_000)).unwrap_or(0);
            MishapKind::ClockJumps { part: some_loop(dice), by: if dice.percent(50) { by } else { -by } }
        }
    }
}

fn importing(dice: &mut Dice, _partitions: u16) -> MishapKind {
    call_of(dice, Part::at(10))
}

fn call(dice: &mut Dice) -> MishapKind {
    let part = if dice.percent(4) { Part::QUERIES } else { some_loop_or_the_door(dice) };
    call_of(dice, part)
}

fn call_of(dice: &mut Dice, part: Part) -> MishapKind {
    let calls = part.calls();
    let call = calls[dice.below(calls.len())];
    let down = millis(dice, 0, 2_000);
    let enqueues = call == Call::QueueEnqueue;
    let has_a_loop = !matches!(part.kind(), Kind::Queries | Kind::Door);
    let harm = match dice.below(100) {
        0..20 if enqueues || call == Call::BusPublish => Harm::Half,
        30..45 if enqueues => Harm::Repeated,
        30..75 if call.writes() => Harm::AnswerLost,
        75..88 if has_a_loop => Harm::CallerKilled(down),
        88.. if has_a_loop => {
            let zombie = dice.percent(60) && part.role().is_some_and(|role| role != Role::Importer);
            let late = if zombie { millis(dice, TERM + 100, TERM + 1_500) } else { millis(dice, 50, 1_500) };
            Harm::AnswerLate(late)
        }
        _ => Harm::Fails,
    };
    MishapKind::Call { part, call, harm }
}

fn replacement(dice: &mut Dice, _partitions: u16) -> MishapKind {
    match dice.below(10) {
        0..5 => MishapKind::QueueRestored { back: millis(dice, 100, 2_000) },
        5..8 => MishapKind::QueueLost,
        _ => MishapKind::StreamLost,
    }
}
