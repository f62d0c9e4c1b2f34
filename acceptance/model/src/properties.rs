//! What must always hold, and what must be seen to happen.
//!
//! The rule this module protects: the properties look at what is stored, with sums of their own, and never ask the parts that
//! they check.

use stateright::{Model, Property};

use crate::saga::react;
use crate::{Command, Kind, Message, Partition, Protocol, Record, Said, State, Worker, derived, length};

/// What the log says of one bid.
#[derive(Clone, Copy, Default)]
struct Bid {
    placed: u8,
    won: u8,
    lost: u8,
    moved: [u8; 4],
    /// The sum of each kind of move.
    amounts: [i16; 4],
    approved: u8,
    reversed: u8,
}

/// What the whole log says, by an own count.
struct Ledger {
    bids: [Bid; 4],
    /// Nothing that an investor has was ever negative.
    solvent: bool,
}

fn ledger(model: &Protocol, state: &State) -> Ledger {
    let mut ledger = Ledger { bids: [Bid::default(); 4], solvent: true };
    for partition in &state.partitions {
        let mut available = model.scenario.funds.map(i16::from);
        for record in &partition.log {
            match record.said {
                Said::Placed(bid) => {
                    available[model.scenario.bid(bid).0] -= i16::from(model.scenario.bid(bid).2);
                    ledger.bids[usize::from(bid)].placed += 1;
                }
                Said::Financed(bid) => ledger.bids[usize::from(bid)].won += 1,
                Said::Rejected(bid) | Said::Refused(Command::Process(bid)) => {
                    ledger.bids[usize::from(bid)].lost += 1;
                }
                Said::Moved(bid, kind, amount) => {
                    let of = &mut ledger.bids[usize::from(bid)];
                    of.moved[kind as usize] += 1;
                    of.amounts[kind as usize] += i16::from(amount);
                    let reserved = i16::from(of.placed) * i16::from(model.scenario.bid(bid).2);
                    ledger.solvent &= of.amounts.iter().sum::<i16>() <= reserved;
                    if kind != Kind::Commit {
                        available[model.scenario.bid(bid).0] += i16::from(amount);
                    }
                }
                Said::Approved(bid) => ledger.bids[usize::from(bid)].approved += 1,
                Said::Reversed(bid) => ledger.bids[usize::from(bid)].reversed += 1,
                Said::Refused(_) | Said::Unchanged(_) => {}
            }
            ledger.solvent &= available.iter().all(|available| *available >= 0);
        }
    }
    ledger
}

fn records(state: &State) -> impl Iterator<Item = (usize, Record)> {
    let of = |(at, partition): (usize, &'_ Partition)| {
        partition.log.iter().map(|record| (at, *record)).collect::<Vec<_>>()
    };
    state.partitions.iter().enumerate().flat_map(of)
}

fn outcomes(partition: &Partition, id: u8) -> usize {
    partition.log.iter().filter(|record| record.id == id).count()
}

/// Nothing is left to do.
fn is_quiet(model: &Protocol, state: &State) -> bool {
    usize::from(state.sent) == (1 << model.scenario.clients.len()) - 1
        && state.partitions.iter().all(|partition| {
            partition.position == length(&partition.queue)
                && partition.bus.len() == partition.log.len()
                && partition.checkpoint == length(&partition.bus)
                && !partition.queued
                && (!model.scenario.projects || partition.projected == length(&partition.bus))
        })
}

fn money(model: &Protocol, state: &State) -> bool {
    // available + reserved + committed = added is how the ledger counts; that none is negative says the rest.
    ledger(model, state).solvent
}

fn at_most_one_outcome(_: &Protocol, state: &State) -> bool {
    state.partitions.iter().all(|partition| partition.log.iter().all(|one| outcomes(partition, one.id) == 1))
}

fn no_bid_ends_twice(model: &Protocol, state: &State) -> bool {
    let ledger = ledger(model, state);
    let mut winners = [0; 3];
    (0..model.scenario.bids()).all(|number| {
        let (_, invoice, amount) = model.scenario.bid(number);
        let amount = i16::from(amount);
        let bid = ledger.bids[usize::from(number)];
        winners[invoice] += bid.won;
        let asking = model.scenario.asking.get(invoice).copied().map_or(i16::MAX, i16::from);
        let [release, excess, commit, back] = bid.moved;
        let exact = |kind: Kind, sum: i16| {
            bid.amounts[kind as usize] == if bid.moved[kind as usize] == 0 { 0 } else { sum }
        };
        bid.placed <= 1
            && bid.won + bid.lost <= bid.placed
            && winners[invoice] <= 1
            && (bid.won == 0 || amount >= asking)
            && bid.approved + bid.reversed <= bid.won
            && release <= bid.lost
            && excess <= bid.won
            && commit <= bid.approved
            && back <= bid.reversed
            && exact(Kind::Release, amount)
            && exact(Kind::Excess, amount - asking)
            && exact(Kind::Commit, asking)
            && exact(Kind::Return, asking)
    })
}

fn no_gap(model: &Protocol, state: &State) -> bool {
    state.partitions.iter().all(|partition| {
        let mut versions = [[0_u8; 3]; 2];
        partition.log.iter().zip(1..).all(|(record, sequence)| {
            let next = model.aggregate(record.said).map_or(0, |(is_investor, number)| {
                let version = &mut versions[usize::from(is_investor)][number];
                *version += 1;
                *version
            });
            record.sequence == sequence && record.version == next
        })
    })
}

fn bus_is_a_prefix(_: &Protocol, state: &State) -> bool {
    state
        .partitions
        .iter()
        .all(|partition| partition.bus.iter().zip(0..).all(|(place, index)| *place == index))
}

fn cause_before_effect(_: &Protocol, state: &State) -> bool {
    let published = |partition: &Partition, id: u8| {
        partition.bus.iter().any(|place| partition.log[usize::from(*place)].id == id)
    };
    records(state).all(|(at, cause)| {
        let is_published = published(&state.partitions[at], cause.id);
        is_published || !state.partitions.iter().any(|partition| published(partition, derived(at, cause)))
    })
}

fn read_models_are_a_fold(model: &Protocol, state: &State) -> bool {
    state.partitions.iter().zip(model.scenario.funds).all(|(partition, funds)| {
        let seen = partition.bus.iter().take(partition.projected.into());
        let sum: i16 = seen.map(|place| model.available(partition.log[usize::from(*place)].said)).sum();
        partition.shown == i16::from(funds) + sum
    })
}

fn nobody_trespasses(_: &Protocol, state: &State) -> bool {
    !state.trespassed
}

fn only_what_is_settled_is_purged(_: &Protocol, state: &State) -> bool {
    state.partitions.iter().all(|partition| partition.purged < partition.position.max(1))
}

fn nothing_that_follows_is_forgotten(model: &Protocol, state: &State) -> bool {
    state.partitions.iter().all(|partition| {
        // A checkpoint says: all that follows from the records before it is on disk in the queue.
        let before = model.readable(partition).take(partition.checkpoint.into());
        before.filter_map(|record| react(&model.scenario, record.said)).all(|command| {
            let queue = &state.partitions[model.scenario.partition(command)].queue;
            queue.iter().any(|message| message.command == command)
        })
    })
}

fn whatever_rests_is_quiet(model: &Protocol, state: &State) -> bool {
    let mut steps = Vec::new();
    is_quiet(model, state) || {
        model.actions(state, &mut steps);
        steps.iter().any(|step| model.next_state(state, *step).is_some())
    }
}

fn whatever_is_quiet_is_settled(model: &Protocol, state: &State) -> bool {
    let ledger = || ledger(model, state).bids;
    let settled = |(bid, number): (&Bid, u8)| {
        let (_, invoice, amount) = model.scenario.bid(number);
        let has_excess = model.scenario.asking.get(invoice).is_some_and(|asking| amount > *asking);
        bid.placed == bid.won + bid.lost
            && bid.moved == [bid.lost, if has_excess { bid.won } else { 0 }, bid.approved, bid.reversed]
    };
    let answered = |partition: &Partition| {
        partition.queue.iter().all(|Message { id, .. }| outcomes(partition, *id) == 1)
    };
    !is_quiet(model, state)
        || (state.partitions.iter().all(answered)
            && ledger().iter().zip(0..model.scenario.bids()).all(settled))
}

/// Somebody has said this.
fn said(state: &State, what: impl Fn(Said) -> bool) -> bool {
    records(state).any(|(_, record)| what(record.said))
}

fn somebody(state: &State, is: impl Fn(&Partition, Worker) -> bool) -> bool {
    state.partitions.iter().any(|partition| partition.workers.iter().any(|worker| is(partition, *worker)))
}

fn a_zombie_commits(_: &Protocol, state: &State) -> bool {
    let stale = |partition: &Partition, worker: Worker| matches!(worker, Worker::Settled(memory) if memory.batch > 0 && memory.epoch < partition.epoch);
    somebody(state, stale)
}

fn a_repeat_acts_once(_: &Protocol, state: &State) -> bool {
    state.partitions.iter().any(|partition| {
        let done = &partition.queue[..usize::from(partition.position).min(partition.queue.len())];
        let twice = |one: &Message| done.iter().filter(|other| other.id == one.id).count() > 1;
        done.iter().any(|one| twice(one) && outcomes(partition, one.id) == 1)
    })
}

/// All of them.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("I1 no money is lost or made", money),
        Property::always("I2 no command has two outcomes", at_most_one_outcome),
        Property::always("I3 a bid ends once, and each of its moves is exact", no_bid_ends_twice),
        Property::always("I4 sequences and versions have no gap", no_gap),
        Property::always("I5 the bus is a prefix of the log", bus_is_a_prefix),
        Property::always("I5 cause before effect", cause_before_effect),
        Property::always("I6 a read model is the fold of a prefix", read_models_are_a_fold),
        Property::always("whoever was replaced writes nothing", nobody_trespasses),
        Property::always(
            "what is not done, and what proves the queue, is not purged",
            only_what_is_settled_is_purged,
        ),
        Property::always("a checkpoint stands behind what is queued", nothing_that_follows_is_forgotten),
        Property::always("I2, I3 what is at rest is settled", whatever_is_quiet_is_settled),
        Property::always("nothing stops before it is at rest", whatever_rests_is_quiet),
        Property::sometimes("it comes to rest", is_quiet),
        Property::sometimes("a zombie commits in vain", a_zombie_commits),
        Property::sometimes("a repeat acts once", a_repeat_acts_once),
        Property::sometimes("an answer is lost", |_, state: &State| {
            // The first epoch is nobody's who took over, so this one was settled before.
            somebody(state, |partition, worker| worker == Worker::Unsettled(1) && partition.log.len() == 1)
        }),
        Property::sometimes("a commit fails", |_, state: &State| {
            somebody(state, |partition, worker| worker == Worker::Unsettled(1) && partition.log.is_empty())
        }),
        Property::sometimes("the queue forgets", |_, state: &State| {
            state.partitions.iter().any(|one| one.purged > 0)
        }),
        Property::sometimes("a bid is refused", |_, state: &State| {
            said(state, |said| matches!(said, Said::Refused(Command::Bid(_))))
        }),
        Property::sometimes("a bid wins", |_, state: &State| {
            said(state, |said| matches!(said, Said::Financed(_)))
        }),
        Property::sometimes("a bid loses", |_, state: &State| {
            said(state, |said| matches!(said, Said::Rejected(_)))
        }),
        Property::sometimes("a bid is on a missing invoice", |_, state: &State| {
            said(state, |said| matches!(said, Said::Refused(Command::Process(_))))
        }),
        Property::sometimes("a lost bid is released", |_, state: &State| {
            said(state, |said| matches!(said, Said::Moved(_, Kind::Release, _)))
        }),
        Property::sometimes("an excess is released", |_, state: &State| {
            said(state, |said| matches!(said, Said::Moved(_, Kind::Excess, _)))
        }),
        Property::sometimes("an asking price is committed", |_, state: &State| {
            said(state, |said| matches!(said, Said::Moved(_, Kind::Commit, _)))
        }),
        Property::sometimes("an asking price is returned", |_, state: &State| {
            said(state, |said| matches!(said, Said::Moved(_, Kind::Return, _)))
        }),
    ]
}
