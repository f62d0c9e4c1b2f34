//! What the death of a part means.
//!
//! The rule this module protects: a part that ends before it was asked to takes the process down with a non-zero exit.
//! Half a platform is worse than none: somebody has to notice.

use std::future::Future;
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Doorbell, Stop};
use eventsourcing::turn::{Halted, Turn, drive};
use tokio::task::JoinSet;

use super::environment::SystemEnvironment;

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
