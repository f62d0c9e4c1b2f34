//! The platform as a process, on free ports, in a directory of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic::transport::{Channel, Endpoint};

use super::in_time;

/// What a platform leaves behind when it ends: its data, and what it logged.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the platform's log:\n{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// A platform that runs.
pub(crate) struct Platform {
    process: Child,
    home: Home,
    /// Kept open: nobody should die of what it prints.
    _output: Lines<BufReader<ChildStdout>>,
    pub(crate) command_address: String,
    pub(crate) query_address: String,
    command_channel: Channel,
    query_channel: Channel,
}

fn command(data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
    command
        .env_clear()
        // Flags go before the environment, so a test may say something else.
        .env("FINANCING_COMMAND_ADDR", "127.0.0.1:0")
        .env("FINANCING_QUERY_ADDR", "127.0.0.1:0")
        .env("FINANCING_DATA_DIR", data)
        .args(flags)
        .kill_on_drop(true);
    command
}

impl Platform {
    /// Starts one on an empty directory.
    pub(crate) async fn start() -> Self {
        Self::start_in(Home::new(), &[]).await
    }

    /// Starts one on what another has left behind.
    pub(crate) async fn start_in(home: Home, flags: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(home.log()).unwrap();
        Self::start_logging_to(home, flags, log).await
    }

    /// Starts one whose log cannot be written.
    pub(crate) async fn start_with_full_log(home: Home) -> Self {
        let full = File::options().write(true).open("/dev/full").unwrap();
        Self::start_logging_to(home, &[], full).await
    }

    async fn start_logging_to(home: Home, flags: &[&str], log: File) -> Self {
        let mut process = command(&home.data(), flags).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = Vec::new();
        while lines.len() < 3 {
            let line = in_time("the platform says where it listens", output.next_line()).await.unwrap();
            lines.push(line.expect("the platform lives until it listens"));
        }
        let value = |line: usize, prefix: &str| {
            let line: &String = &lines[line];
            line.strip_prefix(prefix).unwrap_or_else(|| panic!("{prefix:?} before {line:?}")).to_owned()
        };
        let command_address = format!("http://{}", value(0, "commands on "));
        let query_address = format!("http://{}", value(1, "queries on "));
        assert_eq!(Path::new(&value(2, "data in ")), home.data());
        let command_channel = connect(&command_address).await;
        let query_channel = connect(&query_address).await;
        Self {
            process,
            home,
            _output: output,
            command_address,
            query_address,
            command_channel,
            query_channel,
        }
    }

    /// Tries to start one where it must not: answers with its exit code and what it says.
    pub(crate) async fn refusal_to_start(data: &Path, flags: &[&str]) -> (Option<i32>, String) {
        let output = in_time("it ends", command(data, flags).output()).await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "it does not say that it listens");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) -> Home {
        self.process.kill().await.unwrap();
        self.home
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it is running").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> (ExitStatus, Home) {
        let status = in_time("the process ends", self.process.wait()).await.unwrap();
        (status, self.home)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.data()
    }

    /// The connection to the command side.
    pub(crate) fn command_channel(&self) -> Channel {
        self.command_channel.clone()
    }

    /// The connection to the query side.
    pub(crate) fn query_channel(&self) -> Channel {
        self.query_channel.clone()
    }
}

/// Connects to a server.
pub(crate) async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}
