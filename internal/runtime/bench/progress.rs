//! How far a run has come.
//!
//! The rule this module protects: progress is for a person who waits, and goes to standard error; what is measured goes to standard
//! output, alone.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::measured::Point;
use super::workload::{Run, Workload};

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// A line for every phase, or a bar on a terminal.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Of what is on standard error.
    pub(super) fn new() -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        let template = "{msg:<12} [{bar:32}] {prefix}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Some(bar))
    }

    /// What is being done now.
    pub(super) fn phase(&self, phase: &'static str) {
        match &self.0 {
            Some(bar) => {
                bar.set_message(phase);
                bar.tick();
            }
            None => {
                // Where nobody can be told, nobody is.
                let _told = writeln!(stderr(), "{phase} ..");
            }
        }
    }

    /// Follows the run until it is dropped.
    pub(super) async fn follow(&self, run: &Arc<Run>) {
        self.phase("warming up");
        let mut measuring = false;
        loop {
            tokio::time::sleep(REDRAW).await;
            let now = run.clock.micros();
            if now >= run.window.from && !measuring {
                measuring = true;
                self.phase("measuring");
            }
            let Some(bar) = &self.0 else { continue };
            let point = match run.workload {
                Workload::Sell => Point::Accepted,
                Workload::Financing => Point::Relayed,
            };
            let (count, passed) = (run.measured().count(point), now.saturating_sub(run.window.from));
            let whole = run.window.until.saturating_sub(run.window.from);
            bar.set_length(run.window.until);
            bar.set_position(now.min(run.window.until));
            let rate = count.saturating_mul(1_000_000).checked_div(passed.min(whole)).unwrap_or(0);
            bar.set_prefix(format!("{rate}/s"));
            if now >= run.window.until {
                bar.set_message("finishing");
            }
        }
    }

    /// Nothing of it is left on the terminal.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
