//! One NATS server with JetStream, started for one test.
//!
//! The rule this module protects: **a server that comes back is the same server**: same port, same store, and what it
//! acknowledged is there, because every write is flushed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::port::{Port, listens, within_patience};
use crate::volume::{self, Volume};
use crate::{run, services};

/// A NATS server of its own: own process, own port, own store in a temporary folder. It ends, and its folder goes, when it is
/// dropped.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Child>,
    port: Port,
    /// Where it stores, when that can be full. (It goes before the folder that it is in.)
    volume: Option<Volume>,
    folder: TempDir,
    program: PathBuf,
    extra: String,
    /// Where the others of its cluster reach it, when it has one.
    _route: Option<Port>,
}

impl NatsServer {
    /// Starts a server and returns when it answers.
    ///
    /// # Panics
    ///
    /// When it does not, with its log.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with more lines of configuration, such as `authorization` or `tls`, and returns when it answers.
    ///
    /// # Panics
    ///
    /// When it does not, with its log.
    #[must_use]
    pub fn start_with(config: &str) -> Self {
        Self::start_on(config, None)
    }

    /// The same, with a store of so many bytes that can be full, where that is wanted.
    ///
    /// # Panics
    ///
    /// When it does not answer, with its log; or when nothing can be mounted here.
    #[must_use]
    pub fn start_on(config: &str, bytes: Option<u64>) -> Self {
        Self::start_as(config.to_owned(), None, bytes)
    }

    fn start_as(extra: String, route: Option<Port>, bytes: Option<u64>) -> Self {
        let services = services();
        // Inside the services' folder, so that `scripts/services down` finds a server whose test was killed.
        let servers = services.folder().join("servers");
        fs::create_dir_all(&servers).expect("the services' folder can be written");
        let folder = tempfile::Builder::new().prefix("nats-").tempdir_in(&servers);
        let mut server = Self {
            process: None,
            port: Port::free(services.folder()),
            volume: None,
            folder: folder.expect("the services' folder can be written"),
            program: services.program("nats-server"),
            extra,
            _route: route,
        };
        server.volume = volume::over(&server.store(), bytes);
        while !server.try_start() {
            server.port = Port::free(services.folder());
        }
        server
    }

    /// Starts so many servers that are one cluster; they are called `test-1`, `test-2` and so on.
    ///
    /// # Panics
    ///
    /// When one of them does not answer, with its log.
    #[must_use]
    pub fn cluster(servers: usize) -> Vec<Self> {
        let routes: Vec<Port> = (0..servers).map(|_| services().port()).collect();
        let urls: Vec<String> =
            routes.iter().map(|route| format!("\"nats://127.0.0.1:{}\"", route.number())).collect();
        let urls = urls.join(", ");
        let start = |(number, route): (usize, Port)| {
            let config = format!(
                "server_name: test-{number}\ncluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{urls}] }}",
                route.number()
            );
            Self::start_as(config, Some(route), None)
        };
        (1..).zip(routes).map(start).collect()
    }

    /// `nats://127.0.0.1:PORT`, where clients connect; it stays the same over [`NatsServer::start_again`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number())
    }

    /// The port on which clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder in which JetStream stores.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The disk that it stores on, where it has one of its own.
    #[must_use]
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// Starts the server again where it has ended by itself; whether it had.
    ///
    /// # Panics
    ///
    /// See [`NatsServer::start_again`].
    pub fn revive(&mut self) -> bool {
        let ended = self.ended();
        if ended {
            self.start_again();
        }
        ended
    }

    /// Ends the server as a crash would (SIGKILL) and waits until it is gone. Nothing happens when it does not run.
    ///
    /// # Panics
    ///
    /// When the process cannot be ended.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Asks the server to end (SIGTERM) and waits until it is gone. Nothing happens when it does not run.
    ///
    /// # Panics
    ///
    /// When it does not end within half a minute, with its log.
    pub fn stop(&mut self) {
        assert!(!self.end(), "nats-server does not stop: {}", self.log());
    }

    /// Ends the server as whoever looks after it would: asks it to (SIGTERM), and kills it where it has not ended within half a
    /// minute. Says whether it had to be killed: 2.15 may hang once its disk was full.
    ///
    /// # Panics
    ///
    /// When the process cannot be ended.
    pub fn end(&mut self) -> bool {
        if self.process.is_none() {
            return false;
        }
        self.signal("TERM");
        let hangs = !within_patience(|| self.ended());
        if hangs {
            self.kill();
        }
        self.process = None;
        hangs
    }

    /// Starts the server again, where it was: same port, same store. Returns when it answers.
    ///
    /// # Panics
    ///
    /// When it runs already, or does not answer; with its log.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none() || self.ended(), "nats-server runs already");
        let started = within_patience(|| self.try_start());
        assert!(started, "port {} is in use by somebody else", self.port.number());
    }

    /// Other lines of configuration, from its next start on.
    pub fn configure(&mut self, config: &str) {
        config.clone_into(&mut self.extra);
    }

    /// Sends the server a signal by its name: `STOP` and `CONT` to freeze it and let it go on, `HUP` to make it read its
    /// configuration again.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("a signal needs a running server");
        run(Command::new("kill").args(["-s", name, &process.id().to_string()]));
    }

    /// What the server has logged, over all its starts.
    ///
    /// # Panics
    ///
    /// When the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("nats.log")).expect("the server has a log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ended(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        process.try_wait().expect("a child can be waited for").is_some()
    }

    /// Starts the process and waits until it answers; false when somebody else has its port.
    fn try_start(&mut self) -> bool {
        let config = format!(
            "host: 127.0.0.1\nport: {}\npid_file: \"{}\"\njetstream {{ store_dir: \"{}\", sync_interval: always{} }}\n{}\n",
            self.port.number(),
            self.path("nats.pid").display(),
            self.store().display(),
            // What it may store does not depend on how full the disk was when it was started.
            if self.volume.is_some() { ", max_file_store: 1TB" } else { "" },
            self.extra
        );
        fs::write(self.path("nats.conf"), config).expect("the server's folder can be written");
        let log =
            File::options().create(true).append(true).open(self.path("nats.log")).expect("a log can be made");
        let before =
            usize::try_from(log.metadata().expect("a log has a length").len()).expect("a log is short");
        let process = Command::new(&self.program)
            .arg("--config")
            .arg(self.path("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("nats-server can be started"));

        let mut taken = false;
        let settled = within_patience(|| {
            if self.ended() {
                taken = self.log()[before..].contains("address already in use");
                assert!(taken, "nats-server ended: {}", self.log());
                self.process = None;
                return true;
            }
            self.log()[before..].contains("Server is ready") && listens(self.port.number())
        });
        assert!(settled, "nats-server does not answer: {}", self.log());
        !taken
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
