//! The ports in memory pass the suites that every adapter passes.
#![expect(clippy::expect_used, reason = "a test: what goes wrong panics")]

use std::time::Duration;

use eventsourcing::environment::Environment as _;
use eventsourcing::testkit::contract::{self, sample};
use eventsourcing::testkit::memory::{
    MemoryBus, MemoryCheckpoints, MemoryDeadLetters, MemoryForeignEvents, MemoryLeases, MemoryLog,
    MemoryQueue, MemoryReadModels,
};
use eventsourcing::testkit::world::World;

fn run(suite: impl Future<Output = ()> + 'static) {
    World::new(1).block_on(suite, 1_000_000).expect("the suite comes to its end");
}

#[test]
fn the_queue_in_memory_keeps_its_contract() {
    run(contract::command_queue(async || MemoryQueue::new(sample::CREATED_AT)));
}

#[test]
fn the_event_log_in_memory_keeps_its_contract() {
    run(contract::event_log(async || MemoryLog::default()));
}

#[test]
fn the_checkpoints_in_memory_keep_their_contract() {
    run(contract::checkpoints(async || MemoryCheckpoints::default()));
}

#[test]
fn the_bus_in_memory_keeps_its_contract() {
    run(contract::event_bus(async || (MemoryLog::default(), MemoryBus::default())));
}

#[test]
fn the_read_models_in_memory_keep_their_contract() {
    run(contract::read_models(async || MemoryReadModels::new(sample::TABLES)));
}

#[test]
fn the_rebuilds_in_memory_keep_their_contract() {
    let make = async || MemoryReadModels::new(sample::TABLES);
    run(async move {
        contract::rebuilds(make).await;
        contract::swaps_beside_readers(make, async |models| models.read_for_long(), true).await;
    });
}

#[test]
fn the_leases_in_memory_keep_their_contract() {
    let world = World::new(1);
    let clock = world.environment();
    let suite = async move {
        let pause = async || clock.sleep(Duration::from_millis(10)).await;
        contract::leases(async || MemoryLeases::new(clock.clone()), pause).await;
    };
    world.block_on(suite, 1_000_000).expect("the suite comes to its end");
}

#[test]
fn the_foreign_events_in_memory_keep_their_contract() {
    let make = async || {
        let events = MemoryForeignEvents::new(sample::CREATED_AT);
        let other = events.clone();
        let publish = async move |subject: String, payload: Vec<u8>| {
            other.publish(&subject, &payload);
        };
        (events, publish)
    };
    run(async move { contract::foreign_events(make, ["other.events.a", "other.events.b"]).await });
}

#[test]
fn the_foreign_positions_in_memory_keep_their_contract() {
    run(contract::foreign_positions(async || MemoryCheckpoints::default()));
}

#[test]
fn the_dead_letters_in_memory_keep_their_contract() {
    let kept = async |letters: &MemoryDeadLetters| letters.kept();
    run(contract::dead_letters(async || MemoryDeadLetters::default(), kept, "other.events.a"));
}

#[test]
fn the_foreign_letters_in_memory_keep_their_contract() {
    run(contract::foreign_letters(async || MemoryDeadLetters::default(), "other.events.a"));
}

#[test]
fn the_dead_commands_in_memory_keep_their_contract() {
    run(contract::dead_commands(async || MemoryLog::default()));
}
