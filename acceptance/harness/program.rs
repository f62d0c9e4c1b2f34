//! One process of the platform, driven as an operator would.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::in_time;

/// A program with its settings, before it runs. What the environment of the tests says does not reach it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: &'static str,
    settings: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Program {
    pub(crate) fn new(path: &'static str) -> Self {
        Self { path, settings: Vec::new(), flags: Vec::new() }
    }

    /// A setting, by the environment: flags go before it, so a test may say something else.
    #[expect(clippy::needless_pass_by_value, reason = "a number is handed in as it is")]
    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        command.env_clear().envs(settings).args(&self.flags).kill_on_drop(true);
        command
    }

    /// Starts it; `log` is where it writes what it has to say.
    pub(crate) fn start(&self, log: File) -> Running {
        let mut process = self.command().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Running { process, output, name: self.to_string() }
    }

    /// Runs it to its end.
    pub(crate) async fn output(&self) -> Output {
        in_time(&format!("{self} ends"), self.command().output()).await.unwrap()
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Path::new(self.path).file_name().unwrap().to_string_lossy();
        write!(f, "{name} {}", self.flags.join(" "))
    }
}

/// A process that was started.
pub(crate) struct Running {
    process: Child,
    /// Kept open: nobody should die of what it prints.
    output: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Running {
    /// Waits for its next line and answers with what stands behind the words that it begins with.
    pub(crate) async fn says(&mut self, prefix: &str) -> String {
        let line = in_time(&format!("{} says {prefix:?}", self.name), self.output.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{} lives until it says {prefix:?}", self.name));
        line.strip_prefix(prefix).unwrap_or_else(|| panic!("{prefix:?} before {line:?}")).to_owned()
    }

    /// `kill -9`. It must not have ended by itself before.
    pub(crate) async fn kill(&mut self) {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended by itself: {ended:?}", self.name);
        self.process.kill().await.unwrap();
    }

    /// Sends a signal, as in `-TERM`.
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.process.id().expect("nobody has waited for its end").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    /// SIGTERM, unless it has ended already.
    pub(crate) async fn terminate(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.signal("-TERM").await;
        }
    }

    /// Its exit status, where it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        in_time(&format!("{} ends", self.name), self.process.wait()).await.unwrap()
    }
}
