//! Histories in which nothing is wrong, of every kind: nothing is reported.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]

mod history;

use history::stored::{Stored, head};
use history::world::World;
use proptest::prelude::*;
use uuid::Uuid;

/// What a client or the saga does next; the numbers choose among what there is.
#[derive(Debug, Clone)]
enum Action {
    Issuer(u8, bool),
    Investor(u8),
    Sell(u8, u8, u8),
    Bid(u8, u8, u8),
    Approve(u8),
    Reverse(u8),
    Step(usize),
    Kill(usize),
    Nonsense,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => (0_u8..4, any::<bool>()).prop_map(|(id, other)| Action::Issuer(id, other)),
        1 => (0_u8..5).prop_map(Action::Investor),
        3 => (0_u8..6, 0_u8..5, 1_u8..4).prop_map(|(id, issuer, price)| Action::Sell(id, issuer, price)),
        8 => (0_u8..6, 0_u8..7, 1_u8..5).prop_map(|(id, invoice, amount)| Action::Bid(id, invoice, amount)),
        2 => (0_u8..7).prop_map(Action::Approve),
        1 => (0_u8..7).prop_map(Action::Reverse),
        14 => any::<usize>().prop_map(Action::Step),
        1 => any::<usize>().prop_map(Action::Kill),
        1 => Just(Action::Nonsense),
    ]
}

/// The ids of a kind. (Party 0 is registered as both.)
fn party(number: u8) -> Uuid {
    Uuid::from_u128(0x100 + u128::from(number))
}

fn invoice(number: u8) -> Uuid {
    Uuid::from_u128(0x5555_0000 + u128::from(number))
}

fn play(world: &mut World, actions: &[Action], with_dead: bool) {
    for (number, action) in (0..).zip(actions) {
        match *action {
            Action::Issuer(id, other) => world.issuer(party(id), if other { "Other" } else { "Acme" }),
            Action::Investor(id) => {
                let currency = if id == 4 { "USD" } else { "EUR" };
                world.investor(party(id), "Ada", i64::from(id) * 500, currency);
            }
            Action::Sell(id, issuer, price) => world.sell(invoice(id), party(issuer), i64::from(price) * 101),
            Action::Bid(id, on, amount) => {
                let bid = Uuid::from_u128(0x7777_0000 + number);
                world.bid(bid, party(id), invoice(on), i64::from(amount) * 101);
            }
            Action::Approve(id) => world.approve(invoice(id)),
            Action::Reverse(id) => world.reverse(invoice(id)),
            Action::Step(index) if !world.pending.is_empty() => world.step(index % world.pending.len()),
            Action::Kill(index) if with_dead && !world.pending.is_empty() => {
                world.kill(index % world.pending.len());
            }
            Action::Nonsense if with_dead => world.nonsense(),
            Action::Step(_) | Action::Kill(_) | Action::Nonsense => {}
        }
    }
}

/// The policies have seen everything before the first record that something must still follow from.
fn policies(world: &World, stored: &mut Stored) {
    let pending = world.pending_causes();
    for (partition, reacted) in (0..).zip(&mut stored.policies) {
        let first = stored
            .log
            .iter()
            .find(|record| record.partition == partition && pending.contains(&record.record_id));
        if let Some(record) = first {
            *reacted = record.sequence - 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_right_platform_does_nothing_is_reported(
        actions in prop::collection::vec(action(), 0..120),
        partitions in prop_oneof![Just(1_u16), Just(3), Just(16)],
        ends in prop::collection::vec(0_u64..=1000, 16),
        with_dead in any::<bool>(),
    ) {
        let mut world = World::new(partitions);
        play(&mut world, &actions, with_dead);
        let mut stored = Stored::of(partitions, world.log.clone());
        policies(&world, &mut stored);
        // The read models are somewhere on their way.
        let ends: Vec<u64> = (0..partitions).zip(&ends)
            .map(|(partition, end)| head(&stored.log, partition) * end / 1000)
            .collect();
        stored.project(&ends);
        let report = stored.audit();
        prop_assert!(report.is_clean(), "{:#?}", report.breaches);
        prop_assert_eq!(report.open_sagas, world.pending.len() as u64);
        prop_assert_eq!(report.counts.records, stored.log.len() as u64);

        world.settle();
        let mut stored = Stored::of(partitions, world.log.clone());
        stored.settled = true;
        let report = stored.audit();
        prop_assert!(report.is_clean(), "{:#?}", report.breaches);
        prop_assert_eq!(report.open_sagas, 0);
        for totals in report.counts.money.values() {
            prop_assert_eq!(totals.available + totals.reserved + totals.committed, totals.added);
        }
    }

    #[test]
    fn the_partitions_may_be_read_in_any_order(
        actions in prop::collection::vec(action(), 0..120),
        order in any::<u64>(),
    ) {
        let mut world = World::new(4);
        play(&mut world, &actions, true);
        let mut stored = Stored::of(4, world.log.clone());
        policies(&world, &mut stored);
        let shuffled = |partition: u16| (order >> (partition * 16)) & 0xFFFF;
        stored.log.sort_by_key(|record| (shuffled(record.partition), record.partition, record.sequence));
        let report = stored.audit();
        prop_assert!(report.is_clean(), "{:#?}", report.breaches);
    }
}
