//! The schedule of an open loop.
//!
//! The rule this module protects: when a call was to be made does not depend on how the platform fares; a platform that stalls
//! meets all the calls that came meanwhile, and their latency counts from then.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::clock::Clock;

/// When the n-th call of a schedule is due, in microseconds after the schedule's begin.
pub(super) fn due(number: u64, per_second: u32) -> u64 {
    number.saturating_mul(1_000_000) / u64::from(per_second.max(1))
}

/// Hands over when each call was due, as soon as it is, from when the schedule begins until it ends. On a thread of its own, because the timers of
/// the runtime are a millisecond coarse and wait for whoever is being polled. The times are the clock's, in microseconds.
pub(super) fn start(
    clock: Clock,
    per_second: u32,
    from: u64,
    until: u64,
) -> std::io::Result<(UnboundedReceiver<u64>, JoinHandle<()>)> {
    let (beat, beats) = unbounded_channel();
    let thread = thread::Builder::new().name("metronome".to_owned()).spawn(move || {
        for number in 0_u64.. {
            let due = from.saturating_add(due(number, per_second));
            if due >= until {
                return;
            }
            let early = due.saturating_sub(clock.micros());
            if early > 0 {
                thread::sleep(Duration::from_micros(early));
            }
            if beat.send(due).is_err() {
                return;
            }
        }
    })?;
    Ok((beats, thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_neither_drifts_nor_loses_a_call() {
        assert_eq!([due(0, 3), due(1, 3), due(2, 3), due(3, 3)], [0, 333_333, 666_666, 1_000_000]);
        assert_eq!(due(7 * 3600, 7), 3_600_000_000, "an hour of seven a second ends on the second");
    }

    #[test]
    fn every_call_is_handed_over_in_order_and_none_before_it_is_due() {
        let clock = Clock::start();
        let from = clock.micros();
        let (mut beats, thread) = start(clock, 1000, from, from + 20_000).unwrap();
        let mut handed = Vec::new();
        while let Some(due) = beats.blocking_recv() {
            assert!(clock.micros() >= due);
            handed.push(due);
        }
        thread.join().unwrap();
        assert_eq!(handed, (0..20).map(|number| from + number * 1000).collect::<Vec<_>>());
    }
}
