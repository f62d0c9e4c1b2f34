//! What the death of a part means.
//!
//! The rule this module protects: a part that ends before it was asked to takes the process down with a non-zero exit.
//! Half a platform is worse than none: somebody has to notice.

use std::future::Future;
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Doorbell, Stop, Stopper};
use eventsourcing::turn::{Halted, Turn, drive};
use tokio::task::JoinSet;

use super::environment::SystemEnvironment;
use super::signals::Signals;

/// A process: loops, and servers in front of them.
pub struct Process {
    /// The loops.
    pub loops: Parts,
    /// The servers.
    pub servers: Parts,
    stoppers: (Stopper, Stopper),
    stops: (Stop, Stop),
}

impl Default for Process {
    fn default() -> Self {
        let (loops_stopper, loops_stop) = Stop::new();
        let (intake_stopper, intake_stop) = Stop::new();
        Self {
            loops: Parts::default(),
            servers: Parts::default(),
            stoppers: (loops_stopper, intake_stopper),
            stops: (loops_stop, intake_stop),
        }
    }
}

impl Process {
    /// Given to the loops, after the servers have ended.
    #[must_use]
    pub fn loops_stop(&self) -> Stop {
        self.stops.0.clone()
    }

    /// Given to the servers, first of all.
    #[must_use]
    pub fn intake_stop(&self) -> Stop {
        self.stops.1.clone()
    }

    /// Runs until a signal asks for a stop, or something dies: a part, or what `store_death` waits for. Intake stops first and
    /// the loops last, so that whatever a client was told is accepted is worked on until the end.
    ///
    /// # Errors
    ///
    /// What died.
    pub async fn run(
        self,
        mut signals: Signals,
        store_death: impl Future<Output = String>,
    ) -> Result<(), String> {
        let Self { mut loops, mut servers, stoppers: (loops_stopper, intake_stopper), stops: _ } = self;
        let death = tokio::select! {
            biased;
            reason = loops.death() => Some(reason),
            reason = servers.death() => Some(reason),
            reason = store_death => Some(reason),
            _ = signals.next() => None,
        };
        signals.abort_at_the_next();
        tracing::info!("stopping");
        intake_stopper.stop();
        let served = match &death {
            None => servers.ended().await,
            // Half a platform finishes nothing: what was accepted is on disk, and goes on with the next start.
            Some(_) => Ok(()),
        };
        loops_stopper.stop();
        let looped = loops.ended().await;
        death.map_or(Ok(()), Err).and(served).and(looped)
    }
}

/// The parts of a process.
#[derive(Default)]
pub struct Parts {
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    watches: JoinSet<String>,
}

impl Parts {
    /// Starts a part. It may only end after a stop was asked for.
    pub fn start(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, part.await) });
    }

    /// Starts a kernel loop.
    pub fn start_loop<T: Turn + Send + 'static>(
        &mut self,
        mut body: T,
        bell: Doorbell,
        poll: Duration,
        stop: Stop,
    ) {
        self.start(T::PART, async move {
            drive(&mut body, &SystemEnvironment, &bell, poll, &stop)
                .await
                .map_err(|halted: Halted| halted.to_string())
        });
    }

    /// Watches the partitions that a loop owns, where nobody else should ever own one: losing one is death.
    pub fn guard(&mut self, name: &'static str, assignment: Assignment) {
        let bell = assignment.bells().hang();
        self.watches.spawn(async move {
            loop {
                if let Some(partition) = assignment.take_lost().first() {
                    return format!("{name}: another process owns partition {partition} of this deployment");
                }
                bell.rung().await;
            }
        });
    }

    /// Completes when a part ends that nobody asked to, with what it died of.
    pub async fn death(&mut self) -> String {
        tokio::select! {
            biased;
            Some(ended) = self.tasks.join_next() => match ended {
                Ok((_, Err(reason))) => reason,
                Ok((name, Ok(()))) => format!("{name} ended though nobody asked it to"),
                Err(error) => format!("a part of the platform died: {error}"),
            },
            Some(lost) = self.watches.join_next() => lost.unwrap_or_else(|error| error.to_string()),
            else => std::future::pending().await,
        }
    }

    /// Waits until every part has ended.
    ///
    /// # Errors
    ///
    /// What the first of them died of, where one did.
    pub async fn ended(mut self) -> Result<(), String> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.map_err(|error| error.to_string()).and_then(|(_, result)| result);
            result = result.and(ended);
        }
        result
    }
}
