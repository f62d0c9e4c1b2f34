//! What a platform keeps, and what it leaves behind when it ends: the files of one directory; or a bus and two databases,
//! of one test alone. And what it logged.

use std::fs::File;
use std::path::{Path, PathBuf};

use services::{Database, NatsServer, services};
use tempfile::TempDir;

use super::program::Program;

/// The topology that the tests are run over, from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topology {
    /// `FINANCING_TEST_TOPOLOGY` is not set, or `embedded`.
    Embedded,
    /// `FINANCING_TEST_TOPOLOGY=distributed`.
    Distributed,
    /// A platform that runs already, at `FINANCING_COMMAND_ADDR` and `FINANCING_QUERY_ADDR`; tests that harm theirs, or count all
    /// there is, have an embedded one of their own. For one test at a time: `--test-threads=1`.
    Running {
        /// Where it takes commands.
        commands: String,
        /// Where it answers queries.
        queries: String,
    },
}

impl Topology {
    pub(crate) fn configured() -> Self {
        let of = |name: &str| std::env::var(name).ok();
        match (of("FINANCING_COMMAND_ADDR"), of("FINANCING_QUERY_ADDR")) {
            (Some(commands), Some(queries)) => return Self::Running { commands, queries },
            (None, None) => {}
            (one, other) => panic!("both addresses or none: {one:?}, {other:?}"),
        }
        match of("FINANCING_TEST_TOPOLOGY").as_deref() {
            None | Some("embedded") => Self::Embedded,
            Some("distributed") => Self::Distributed,
            Some(other) => panic!("FINANCING_TEST_TOPOLOGY: embedded or distributed, not {other}"),
        }
    }
}

/// What a platform keeps.
pub(crate) struct Home {
    logs: TempDir,
    keeps: Keeps,
}

enum Keeps {
    Directory(TempDir),
    Services(Box<Services>),
}

/// A NATS server and two databases, for one platform.
pub(crate) struct Services {
    pub(crate) nats: NatsServer,
    /// The other servers of its cluster, where it has one.
    pub(crate) others: Vec<NatsServer>,
    pub(crate) commands: Database,
    pub(crate) queries: Database,
}

impl Home {
    /// Of the topology that the tests are run over; embedded where that runs already.
    pub(crate) fn new() -> Self {
        match Topology::configured() {
            Topology::Embedded | Topology::Running { .. } => Self::embedded(),
            Topology::Distributed => Self::distributed(),
        }
    }

    /// An empty directory.
    pub(crate) fn embedded() -> Self {
        Self { logs: TempDir::new().unwrap(), keeps: Keeps::Directory(TempDir::new().unwrap()) }
    }

    /// An empty bus and empty databases.
    pub(crate) fn distributed() -> Self {
        Self::over(services().database(), services().database())
    }

    /// An empty bus, and these databases.
    pub(crate) fn over(commands: Database, queries: Database) -> Self {
        Self::on(vec![NatsServer::start()], commands, queries)
    }

    /// An empty bus of three servers that each have all of it, and these databases.
    pub(crate) fn over_a_cluster(commands: Database, queries: Database) -> Self {
        Self::on(NatsServer::cluster(3), commands, queries)
    }

    fn on(mut servers: Vec<NatsServer>, commands: Database, queries: Database) -> Self {
        let others = servers.split_off(1);
        let nats = servers.remove(0);
        let keeps = Keeps::Services(Box::new(Services { nats, others, commands, queries }));
        Self { logs: TempDir::new().unwrap(), keeps }
    }

    /// The data directory of an embedded platform.
    #[track_caller]
    pub(crate) fn data(&self) -> PathBuf {
        match &self.keeps {
            Keeps::Directory(directory) => directory.path().join("data"),
            Keeps::Services(_) => panic!("a test of the embedded platform"),
        }
    }

    /// What a distributed platform runs on; `None` for an embedded one.
    pub(crate) fn services(&self) -> Option<&Services> {
        match &self.keeps {
            Keeps::Directory(_) => None,
            Keeps::Services(services) => Some(services),
        }
    }

    /// As [`Home::services`], to stop and start them.
    #[track_caller]
    pub(crate) fn services_mut(&mut self) -> &mut Services {
        match &mut self.keeps {
            Keeps::Directory(_) => panic!("a test of the distributed platform"),
            Keeps::Services(services) => services,
        }
    }

    /// The checker, of all that is kept here.
    pub(crate) fn verify(&self) -> Program {
        let financing = env!("CARGO_BIN_EXE_financing");
        match &self.keeps {
            Keeps::Directory(_) => Program::new(financing).set("FINANCING_DATA_DIR", self.data().display()),
            Keeps::Services(services) => services.program(financing),
        }
        .flags(&["verify"])
    }

    /// What programs of this name have logged.
    pub(crate) fn logged(&self, name: &str) -> String {
        std::fs::read_to_string(self.logs.path().join(name)).unwrap_or_default()
    }

    /// What all programs have logged, one behind the other.
    pub(crate) fn logs(&self) -> String {
        let files = std::fs::read_dir(self.logs.path()).unwrap();
        files
            .map(|file| String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned())
            .collect()
    }

    /// The file that a program of this name logs to.
    pub(crate) fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.logs.path().join(name)).unwrap()
    }
}

impl Services {
    /// The servers of NATS: one, or all of a cluster.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &NatsServer> {
        std::iter::once(&self.nats).chain(&self.others)
    }

    /// As [`Services::servers`], to stop and start them.
    pub(crate) fn servers_mut(&mut self) -> impl Iterator<Item = &mut NatsServer> {
        std::iter::once(&mut self.nats).chain(&mut self.others)
    }

    /// A program of the platform, with all that it needs to know to reach them.
    pub(crate) fn program(&self, path: &'static str) -> Program {
        let urls: Vec<String> = self.servers().map(NatsServer::url).collect();
        Program::new(path)
            .set("FINANCING_NATS_URL", urls.join(","))
            .set("FINANCING_NATS_REPLICAS", urls.len())
            .set("FINANCING_COMMAND_DATABASE_URL", self.commands.url())
            .set("FINANCING_QUERY_DATABASE_URL", self.queries.url())
    }
}

fn show(logs: &Path) {
    for entry in std::fs::read_dir(logs).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}:\n{}", path.display(), std::fs::read_to_string(&path).unwrap_or_default());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(self.logs.path());
        }
    }
}
