//! One PostgreSQL server, started for one test that harms it.
//!
//! The rule this module protects: **a server that comes back is the same server**: same port, same data, and what it committed is
//! there, because it flushes (`fsync=on`). And a signal reaches all of it: a server is a process with many children.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::database::{Database, Server};
use crate::port::{Port, within_patience};
use crate::volume::{self, Volume};
use crate::{kept, run, services};

/// How PostgreSQL runs where we are root, which it refuses to be.
const AS_POSTGRES: [&str; 5] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"];

/// Connections that it takes: a few for each of the replicas of one test, and those of processes that were just killed.
const CONNECTIONS: u32 = 200;

/// What keeps the write-ahead log from filling a small disk by itself.
const SMALL_LOG: &[&str] = &["-c", "max_wal_size=128MB", "-c", "min_wal_size=32MB"];

/// A PostgreSQL server of its own: own processes, own port, own data in a temporary folder. It ends, and its folder goes, when it
/// is dropped.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<Child>,
    /// Its children, while they are frozen.
    frozen: Vec<u32>,
    port: Port,
    /// Where its data are, when that can be full. (It goes before the folder that it is in.)
    volume: Option<Volume>,
    folder: TempDir,
}

impl PostgresServer {
    /// Makes empty data, starts a server on it and returns when it answers. Passwords are those of the shared server.
    ///
    /// # Panics
    ///
    /// When it does not, with its log.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(None)
    }

    /// The same, with data on a disk of so many bytes that can be full, where that is wanted.
    ///
    /// # Panics
    ///
    /// When it does not answer, with its log; or when nothing can be mounted here.
    #[must_use]
    pub fn start_on(bytes: Option<u64>) -> Self {
        let mut server = Self {
            process: None,
            frozen: Vec::new(),
            port: services().port(),
            volume: None,
            folder: new_folder(),
        };
        server.volume = volume::over(&server.data(), bytes);
        server.initialise();
        while !server.try_start() {
            server.port = services().port();
        }
        let owner = &services().postgres.owner;
        let (user, password) = (&owner.user, &owner.password);
        let role = format!("CREATE ROLE {user} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'");
        server.place().psql("postgres", &role);
        server
    }

    /// A second server with all that this one has, which follows what is committed here. Where it is `synchronous`, nothing is
    /// committed here from now on before the second one has it.
    ///
    /// # Panics
    ///
    /// When it does not come to follow, with its log.
    #[must_use]
    pub fn standby(&self, synchronous: bool) -> Self {
        let primary = self.place();
        let password = &services().postgres.owner.password;
        primary.psql("postgres", &format!("CREATE ROLE standby REPLICATION LOGIN PASSWORD '{password}'"));
        let folder = new_folder();
        give(folder.path());
        let mut standby =
            Self { process: None, frozen: Vec::new(), port: services().port(), volume: None, folder };
        run(program("pg_basebackup")
            .arg("--dbname")
            .arg(format!("host=127.0.0.1 port={} user=standby application_name=standby", self.port()))
            .arg("--pgdata")
            .arg(standby.data())
            .args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf"])
            .args(["--create-slot", "--slot=standby"])
            .env("PGPASSWORD", password));
        while !standby.try_start() {
            standby.port = services().port();
        }
        let follows = |sql: &str| within_patience(|| primary.psql("postgres", sql) == "1\n");
        let followed = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        assert!(follows(followed), "the standby does not follow: {}", standby.log());
        if synchronous {
            primary.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby';");
            primary.psql("postgres", "SELECT pg_reload_conf();");
            let awaited = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            assert!(follows(awaited), "the standby is not synchronous: {}", standby.log());
        }
        standby
    }

    /// Ends this server as a crash would, where it still runs, and promotes the standby, which takes its place: from now on it is
    /// this server, under this one's address.
    ///
    /// # Panics
    ///
    /// When the standby does not become a primary; with its log.
    pub fn fail_over_to(&mut self, mut standby: Self) {
        self.kill();
        standby.stop();
        std::mem::swap(&mut self.folder, &mut standby.folder);
        drop(standby);
        self.start_again();
        let promoted = self.place().psql("postgres", "SELECT pg_promote()");
        assert_eq!(promoted, "t\n", "it is promoted: {}", self.log());
    }

    /// An empty database on this server, owned by the role `financing`. It goes with the server.
    ///
    /// # Panics
    ///
    /// When PostgreSQL refuses.
    #[must_use]
    pub fn database(&self) -> Database {
        Database::create(self.place(), false)
    }

    /// The port on which clients connect; it stays the same over [`PostgresServer::start_again`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder that holds its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The disk that its data are on, where it has one of its own.
    #[must_use]
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// Starts the server again where it has ended by itself, as it does when it cannot write; whether it had.
    ///
    /// # Panics
    ///
    /// See [`PostgresServer::start_again`].
    pub fn revive(&mut self) -> bool {
        let ended = self.ended();
        if ended {
            self.process = None;
            self.start_again();
        }
        ended
    }

    /// Ends the server as a crash would (SIGKILL, all of its processes) and waits until they are gone. Nothing happens when it does
    /// not run.
    ///
    /// # Panics
    ///
    /// When a process cannot be ended.
    pub fn kill(&mut self) {
        if self.process.is_none() {
            return;
        }
        // First it is frozen: none of it can see the others die, and clean up.
        self.freeze();
        let children = std::mem::take(&mut self.frozen);
        signal("KILL", &children);
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
        let gone = within_patience(|| children.iter().all(|child| state(*child).is_none()));
        assert!(gone, "PostgreSQL's processes do not end");
    }

    /// Starts the server again, where it was: same port, same data. Returns when it has recovered and answers.
    ///
    /// # Panics
    ///
    /// When it runs already, or does not answer; with its log.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL runs already");
        let started = within_patience(|| self.try_start());
        assert!(started, "port {} is in use by somebody else", self.port());
    }

    /// Stops all of its processes in the middle of what they do (SIGSTOP): nothing is answered, and no connection breaks.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    pub fn freeze(&mut self) {
        let server = self.id();
        signal("STOP", &[server]);
        // Who is stopped makes no more children, and buries none: so these ids are theirs until it goes on.
        let stopped = within_patience(|| state(server) == Some('T'));
        assert!(stopped, "PostgreSQL does not stop");
        self.frozen = children(server);
        signal("STOP", &self.frozen);
    }

    /// Lets a frozen server go on as if no time had passed (SIGCONT).
    ///
    /// # Panics
    ///
    /// When the server does not run.
    pub fn thaw(&mut self) {
        let frozen = std::mem::take(&mut self.frozen);
        signal("CONT", &frozen);
        signal("CONT", &[self.id()]);
    }

    /// Ends all connections but the one that asks for it, as an administrator can; answers with how many there were.
    ///
    /// # Panics
    ///
    /// When PostgreSQL refuses.
    #[expect(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn drop_connections(&self) -> u64 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let dropped = self.place().psql("postgres", sql);
        dropped.trim().parse().expect("a count is a number")
    }

    /// What the server has logged, over all its starts.
    ///
    /// # Panics
    ///
    /// When the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("postgres.log")).expect("the server has a log")
    }

    fn id(&self) -> u32 {
        self.process.as_ref().expect("a signal needs a running server").id()
    }

    fn place(&self) -> Server {
        Server { address: format!("127.0.0.1:{}", self.port()), ..services().postgres.clone() }
    }

    fn initialise(&self) {
        let password = self.folder.path().join("password");
        fs::write(&password, &services().postgres.superuser.password)
            .expect("the server's folder can be written");
        give(self.folder.path());
        if self.volume.is_some() {
            give(&self.data());
        }
        give(&password);
        run(program("initdb")
            .arg("--pgdata")
            .arg(self.data())
            .arg("--pwfile")
            .arg(&password)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg("--data-checksums"));
        fs::remove_file(&password).expect("the server's folder can be written");
    }

    /// Starts the process and waits until it answers; false when somebody else has its port.
    fn try_start(&mut self) -> bool {
        let path = self.folder.path().join("postgres.log");
        let log = File::options().create(true).append(true).open(path).expect("a log can be made");
        let before =
            usize::try_from(log.metadata().expect("a log has a length").len()).expect("a log is short");
        let port = self.port().to_string();
        let process = program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on"])
            .args(["-c", "shared_buffers=64MB", "-c", &format!("max_connections={CONNECTIONS}")])
            .args(if self.volume.is_some() { SMALL_LOG } else { &[] })
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("postgres can be started"));

        let mut taken = false;
        let settled = within_patience(|| {
            if self.ended() {
                taken = self.log()[before..].contains("Address already in use");
                assert!(taken, "postgres ended: {}", self.log());
                self.process = None;
                return true;
            }
            self.answers()
        });
        assert!(settled, "postgres does not answer: {}", self.log());
        !taken
    }

    fn ended(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        process.try_wait().expect("a child can be waited for").is_some()
    }

    /// Whether it takes connections: while it recovers from a crash it says that it does not.
    fn answers(&self) -> bool {
        let asked = Command::new(services().program("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-t", "5", "-p", &self.port().to_string()])
            .status();
        asked.expect("pg_isready can be started").success()
    }

    /// Ends the server without waiting for anybody, and waits until it is gone. What is left of it then: not even its shared memory,
    /// which a crash leaves behind. Nothing happens when it does not run.
    ///
    /// # Panics
    ///
    /// When a process cannot be ended.
    pub fn stop(&mut self) {
        if self.process.is_none() || self.ended() {
            return;
        }
        self.thaw();
        // The immediate shutdown: it waits for nobody.
        signal("QUIT", &[self.id()]);
        if within_patience(|| self.ended()) {
            self.process = None;
        } else {
            self.kill();
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where PostgreSQL's user can reach it, and `scripts/services down` finds a server whose test was killed.
fn new_folder() -> TempDir {
    let servers = PathBuf::from(kept(services().folder(), "postgres.home")).join("servers");
    fs::create_dir_all(&servers).expect("the services' folder can be written");
    give(&servers);
    let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in(&servers);
    folder.expect("the services' folder can be written")
}

/// One of PostgreSQL's programs, as the user that it runs as, and with no setting that it would find in the environment.
fn program(name: &str) -> Command {
    // By its own path, because the links in our folder may be out of its user's reach.
    let path = services().program(name).canonicalize().expect("the script has found PostgreSQL's programs");
    let mut command = if is_root() {
        let [first, arguments @ ..] = AS_POSTGRES;
        let mut command = Command::new(first);
        command.args(arguments).arg(path);
        command
    } else {
        Command::new(path)
    };
    // The user may not be allowed to look into the folder in which we are.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("Linux has /proc").uid() == 0
}

/// Gives a file or folder to PostgreSQL's user.
fn give(path: &std::path::Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres:").arg(path));
    }
}

fn signal(name: &str, processes: &[u32]) {
    if !processes.is_empty() {
        run(Command::new("kill").args(["-s", name]).args(processes.iter().map(ToString::to_string)));
    }
}

/// What a process is doing, as in `/proc/<id>/stat`; `None` when it is gone (or dead, and not buried yet).
fn state(process: u32) -> Option<char> {
    let (state, _) = stat(process)?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

/// State and parent.
fn stat(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before them is in parentheses, and may have some itself.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The ids of a process's children.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux has /proc").filter_map(|entry| {
        let name = entry.expect("/proc can be read").file_name();
        name.to_str()?.parse().ok()
    });
    processes.filter(|process| stat(*process).is_some_and(|(_, its)| its == parent)).collect()
}
