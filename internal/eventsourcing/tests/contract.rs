//! The ports in memory pass the suites that every adapter passes.
#![expect(clippy::expect_used, reason = "a test: what goes wrong panics")]

use eventsourcing::testkit::contract::{self, sample};
use eventsourcing::testkit::memory::{
    MemoryBus, MemoryCheckpoints, MemoryLog, MemoryQueue, MemoryReadModels,
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
