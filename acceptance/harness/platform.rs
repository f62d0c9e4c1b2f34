//! The platform, in the topology that the tests are run over: on free ports, with a home of its own.

use std::fs::File;
use std::path::{Path, PathBuf};

use tonic::transport::{Channel, Endpoint};

use super::home::{Home, Services, Topology};
use super::program::{Program, Running};

/// A platform that runs.
pub(crate) struct Platform {
    /// None, where it ran already.
    processes: Vec<Running>,
    home: Option<Home>,
    pub(crate) command_address: String,
    pub(crate) query_address: String,
    /// Where it is looked after; that of the projector where it is distributed. `None`, where it ran already.
    pub(crate) admin_address: Option<String>,
    /// Where its dead letters are looked after; that of the worker where it is distributed. `None`, where it ran already.
    pub(crate) letters_address: Option<String>,
    command_channel: Channel,
    query_channel: Channel,
}

/// Processes, and where they answer.
struct Started {
    processes: Vec<Running>,
    commands: String,
    queries: String,
    admin: String,
    letters: String,
}

/// The embedded platform as a program.
fn embedded(data: &Path, flags: &[&str]) -> Program {
    Program::new(env!("CARGO_BIN_EXE_financing"))
        .set("FINANCING_COMMAND_ADDR", "127.0.0.1:0")
        .set("FINANCING_QUERY_ADDR", "127.0.0.1:0")
        .set("FINANCING_ADMIN_ADDR", "127.0.0.1:0")
        .set("FINANCING_DATA_DIR", data.display())
        .flags(flags)
}

/// One process of each component. Each has a name of its own.
fn components(services: &Services, flags: &[&str]) -> [(&'static str, Program); 6] {
    let commandsd = env!("CARGO_BIN_EXE_commandsd");
    [
        (
            "listener",
            services.program(commandsd).set("FINANCING_COMMAND_ADDR", "127.0.0.1:0").flags(&["--listener"]),
        ),
        (
            "queries",
            services.program(env!("CARGO_BIN_EXE_queriesd")).set("FINANCING_QUERY_ADDR", "127.0.0.1:0"),
        ),
        ("worker", services.program(commandsd).flags(&["--worker"])),
        ("policies", services.program(commandsd).flags(&["--policies"])),
        ("relayer", services.program(env!("CARGO_BIN_EXE_relayerd"))),
        ("projector", services.program(env!("CARGO_BIN_EXE_queryprojectord"))),
    ]
    .map(|(name, program)| (name, program.flags(flags)))
}

impl Platform {
    /// A platform to work with: an empty one, or the one that runs already.
    pub(crate) async fn start() -> Self {
        match Topology::configured() {
            Topology::Embedded | Topology::Distributed => Self::alone().await,
            Topology::Running { commands, queries } => {
                let address = |text: &str| format!("http://{}", text.trim_start_matches("http://"));
                Self::at(Vec::new(), None, address(&commands), address(&queries)).await
            }
        }
    }

    /// An empty platform that nobody else works with.
    pub(crate) async fn alone() -> Self {
        Self::start_in(Home::new(), &[]).await
    }

    /// Starts one on what another has left behind.
    pub(crate) async fn start_in(home: Home, flags: &[&str]) -> Self {
        let logs = |name: &str| home.log(name);
        let started = Self::start_logging_to(&home, flags, logs).await;
        Self::with(started, home).await
    }

    /// Starts one whose log cannot be written.
    pub(crate) async fn start_with_full_log(home: Home) -> Self {
        let full = |_: &str| File::options().write(true).open("/dev/full").unwrap();
        let started = Self::start_logging_to(&home, &[], full).await;
        Self::with(started, home).await
    }

    async fn start_logging_to(home: &Home, flags: &[&str], log: impl Fn(&str) -> File) -> Started {
        let Some(services) = home.services() else {
            let mut process = embedded(&home.data(), flags).start(log("platform"));
            let commands = process.says("commands on ").await;
            let queries = process.says("queries on ").await;
            assert_eq!(Path::new(&process.says("data in ").await), home.data());
            let admin = process.says("admin on ").await;
            let letters = admin.clone();
            return Started { processes: vec![process], commands, queries, admin, letters };
        };
        let mut started = components(services, flags).map(|(name, program)| program.start(log(name)));
        let [listener, query_service, worker, policies, relayer, projector] = &mut started;
        let commands = listener.says("commands on ").await;
        let queries = query_service.says("queries on ").await;
        relayer.says("health on ").await;
        let mut doors = Vec::new();
        for process in [worker, policies, projector] {
            process.says("health on ").await;
            doors.push(process.says("admin on ").await);
        }
        let [letters, _, admin] = doors.try_into().expect("a door of each");
        Started { processes: started.into(), commands, queries, admin, letters }
    }

    async fn with(Started { processes, commands, queries, admin, letters }: Started, home: Home) -> Self {
        let platform =
            Self::at(processes, Some(home), format!("http://{commands}"), format!("http://{queries}")).await;
        Self { admin_address: Some(admin), letters_address: Some(letters), ..platform }
    }

    /// One whose processes somebody else has: at these addresses.
    pub(crate) async fn running(commands: &str, queries: &str) -> Self {
        Self::at(Vec::new(), None, format!("http://{commands}"), format!("http://{queries}")).await
    }

    async fn at(
        processes: Vec<Running>,
        home: Option<Home>,
        command_address: String,
        query_address: String,
    ) -> Self {
        let command_channel = connect(&command_address).await;
        let query_channel = connect(&query_address).await;
        let (admin_address, letters_address) = (None, None);
        Self {
            processes,
            home,
            command_address,
            query_address,
            admin_address,
            letters_address,
            command_channel,
            query_channel,
        }
    }

    /// Tries to start an embedded one where it must not: answers with its exit code and what it says.
    pub(crate) async fn refusal_to_start(data: &Path, flags: &[&str]) -> (Option<i32>, String) {
        refusal(&embedded(data, flags)).await
    }

    /// `kill -9`, of every process.
    pub(crate) async fn kill(mut self) -> Home {
        for process in &mut self.processes {
            process.kill().await;
        }
        self.home()
    }

    /// `kill -9`, of every process that is not dead already.
    pub(crate) async fn into_home(mut self) -> Home {
        let last = self.processes.pop();
        drop(last);
        self.kill().await
    }

    /// Waits for the next line of every process; answers with what stands behind the words that they begin with.
    pub(crate) async fn says(&mut self, prefix: &str) -> Vec<String> {
        let mut said = Vec::new();
        for process in &mut self.processes {
            said.push(process.says(prefix).await);
        }
        said
    }

    /// What its processes have logged, one behind the other.
    #[track_caller]
    pub(crate) fn logs(&self) -> String {
        self.home.as_ref().expect("a platform of the test's own").logs()
    }

    /// Sends a signal to every process.
    pub(crate) async fn signal(&self, signal: &str) {
        for process in &self.processes {
            process.signal(signal).await;
        }
    }

    /// Waits until every process has ended by itself; answers with the first exit code that is not 0, if there is one.
    pub(crate) async fn ended(mut self) -> (Option<i32>, Home) {
        let mut code = Some(0);
        for process in &mut self.processes {
            let ended = process.ended().await.code();
            code = if code == Some(0) { ended } else { code };
        }
        (code, self.home())
    }

    #[track_caller]
    fn home(self) -> Home {
        self.home.expect("a platform of the test's own")
    }

    #[track_caller]
    pub(crate) fn data(&self) -> PathBuf {
        self.home.as_ref().expect("a platform of the test's own").data()
    }

    /// The checker, of all that it has stored.
    #[track_caller]
    pub(crate) fn verify(&self) -> Program {
        self.home.as_ref().expect("a platform of the test's own").verify()
    }

    /// The last process that was started: that of an embedded platform, the projector of a distributed one.
    pub(crate) fn last_process(&mut self) -> &mut Running {
        self.processes.last_mut().expect("a platform of the test's own")
    }

    /// What it keeps.
    #[track_caller]
    pub(crate) fn keeps(&self) -> &Home {
        self.home.as_ref().expect("a platform of the test's own")
    }

    /// Whether it is not the test's own.
    pub(crate) fn ran_already(&self) -> bool {
        self.home.is_none()
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

/// Runs a program that must not start: answers with its exit code and what it says.
pub(crate) async fn refusal(program: &Program) -> (Option<i32>, String) {
    let output = program.output().await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "it does not say that it answers");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Connects to a server.
pub(crate) async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}
