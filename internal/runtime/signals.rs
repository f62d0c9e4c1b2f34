//! Signals from outside.
//!
//! The rule this module protects: the first SIGTERM or SIGINT asks for a graceful stop, the second ends the process at
//! once: nobody has to reach for `kill -9`, and nothing would be lost if somebody did.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes at the next of them, with the exit code of a process that it ends.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => 128 + 15,
            _ = self.interrupt.recv() => 128 + 2,
        }
    }

    /// From now on, the next of them ends the process.
    pub fn abort_at_the_next(mut self) {
        tokio::spawn(async move {
            let code = self.next().await;
            tracing::warn!("a second signal: aborting");
            std::process::exit(code);
        });
    }
}
