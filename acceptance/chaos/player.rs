//! One process of the platform: killed, paused, stopped and started again, and asked whether it lives.
//!
//! The rule this module protects: **who ends, ends because of a fault.** A process that ended by itself is a failure of the platform,
//! and it is told with the last that it logged.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use services::Port;

use crate::harness::{Program, Running};
use crate::plan::Component;

/// The number of the signal that asks a process to stop.
const SIGTERM: i32 = 15;
/// Lines of a log that are shown of a process that ended by itself.
const LAST_LINES: usize = 12;

/// One process, of which there are several of a kind.
pub(crate) struct Player {
    component: Component,
    pub(crate) name: String,
    program: Program,
    /// Where it answers, each time that it is started, where clients call it.
    pub(crate) port: Option<Port>,
    log: PathBuf,
    running: Option<Running>,
    /// How long its log was when it was started.
    begun_at: u64,
    /// Whether it has said that it can be used since it was started.
    ready: bool,
    /// How it ended, each time that it did so by itself.
    deaths: Vec<String>,
}

impl Player {
    pub(crate) fn new(
        component: Component,
        number: usize,
        program: Program,
        port: Option<Port>,
        logs: &std::path::Path,
    ) -> Self {
        let name = format!("{}-{number}", component.name());
        let log = logs.join(format!("{name}.log"));
        Self {
            component,
            name,
            program,
            port,
            log,
            running: None,
            begun_at: 0,
            ready: false,
            deaths: Vec::new(),
        }
    }

    /// Starts it, and does not wait.
    pub(crate) fn begin(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.begun_at = self.log_length();
        self.running = Some(self.program.start(log));
        self.ready = false;
    }

    /// Waits until it says that it can be used, where it has not yet.
    pub(crate) async fn ready(&mut self) {
        let prefix = match self.component {
            Component::Listener => "commands on ",
            Component::Queries => "queries on ",
            Component::Worker | Component::Policies | Component::Relayer | Component::Projector => {
                "health on "
            }
        };
        if !self.ready {
            self.running.as_mut().expect("it was begun").says(prefix).await;
            self.ready = true;
        }
    }

    /// The same, for so long at most.
    pub(crate) async fn ready_within(&mut self, patience: Duration) {
        // (Where it is not, some other fault is in its way, and at the end all have to be.)
        let _late = tokio::time::timeout(patience, self.ready()).await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.look();
        self.running().kill().await;
        self.running = None;
    }

    /// SIGTERM; waits until it has ended, which has to be in good order.
    pub(crate) async fn stop(&mut self) {
        self.look();
        self.signal("-TERM").await;
        let status = self.running().ended().await;
        self.running = None;
        // (Nobody can heed a signal before the program itself has begun.)
        let not_begun = status.signal() == Some(SIGTERM) && self.log_length() == self.begun_at;
        if status.code() != Some(0) && !not_begun {
            self.died(&format!("was asked to stop and ended with {status}"));
        }
    }

    /// Sends it a signal, as in `-STOP`.
    pub(crate) async fn signal(&mut self, signal: &str) {
        self.look();
        self.running().signal(signal).await;
    }

    fn log_length(&self) -> u64 {
        std::fs::metadata(&self.log).unwrap().len()
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }

    /// Finds out whether it has ended by itself; where it has, it is started again, as whoever looks after it would.
    pub(crate) fn look(&mut self) {
        if let Some(status) = self.running.as_mut().and_then(Running::has_ended) {
            self.died(&format!("ended by itself with {status}"));
            self.begin();
        }
    }

    fn died(&mut self, how: &str) {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n      ");
        let death =
            format!("{} {how}; the last that it logged ({}):\n      {last}", self.name, self.log.display());
        println!("    !! {death}");
        self.deaths.push(death);
    }

    /// How it died each time that it did so by itself.
    pub(crate) fn deaths(&self) -> &[String] {
        &self.deaths
    }
}
