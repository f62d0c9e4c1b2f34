//! The platform in its parts: one process of each component, by its name, so that each can be stopped, killed, started
//! again and asked what it said, and what they stand on can be harmed.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Output};

use crate::harness::{Audit, Home, Load, Platform, Program, Running, Services};

use super::ledger::until;

/// The components, in the order in which they are started.
pub(crate) const ALL: [&str; 6] = ["listener", "queries", "worker", "policies", "relayer", "projector"];

/// One process of each component, of those that run.
pub(crate) struct Parts {
    home: Home,
    settings: Vec<(&'static str, String)>,
    running: BTreeMap<&'static str, Running>,
    /// Where listener and query service answer.
    addresses: BTreeMap<&'static str, String>,
}

impl Parts {
    /// An empty platform, of which nothing runs yet.
    pub(crate) fn new() -> Self {
        Self::on(Home::distributed())
    }

    /// The same, on services of its own.
    pub(crate) fn on(home: Home) -> Self {
        let (running, addresses) = (BTreeMap::new(), BTreeMap::new());
        Self { home, settings: Vec::new(), running, addresses }
    }

    /// The same, with a setting for all of them.
    #[expect(clippy::needless_pass_by_value, reason = "a number is handed in as it is")]
    pub(crate) fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// An empty platform, all of it running.
    pub(crate) async fn start() -> Self {
        let mut parts = Self::new();
        parts.run(&ALL).await;
        parts
    }

    pub(crate) fn services(&self) -> &Services {
        self.home.services().expect("a distributed platform")
    }

    pub(crate) fn services_mut(&mut self) -> &mut Services {
        self.home.services_mut()
    }

    /// A component as a program.
    pub(crate) fn program(&self, name: &str) -> Program {
        let program = |path| self.configured(self.services().program(path));
        let commandsd = env!("CARGO_BIN_EXE_commandsd");
        match name {
            "listener" => {
                program(commandsd).set("FINANCING_COMMAND_ADDR", "127.0.0.1:0").flags(&["--listener"])
            }
            "worker" => program(commandsd).flags(&["--worker"]),
            "policies" => program(commandsd).flags(&["--policies"]),
            "door" => program(commandsd).flags(&["--admin"]),
            "commandsd" => program(commandsd).set("FINANCING_COMMAND_ADDR", "127.0.0.1:0"),
            "queries" => program(env!("CARGO_BIN_EXE_queriesd")).set("FINANCING_QUERY_ADDR", "127.0.0.1:0"),
            "relayer" => program(env!("CARGO_BIN_EXE_relayerd")),
            "projector" => program(env!("CARGO_BIN_EXE_queryprojectord")),
            other => panic!("there is no component {other}"),
        }
    }

    fn configured(&self, program: Program) -> Program {
        self.settings.iter().fold(program, |program, (name, value)| program.set(name, value))
    }

    /// Starts components, and waits until each says where it answers.
    pub(crate) async fn run(&mut self, names: &[&'static str]) {
        for name in names {
            self.begin(name, &self.program(name));
        }
        for name in names {
            self.ready(name).await;
        }
    }

    /// Starts a component, as this program, and does not wait for it.
    pub(crate) fn begin(&mut self, name: &'static str, program: &Program) {
        let before = self.running.insert(name, program.start(self.home.log(name)));
        assert!(before.is_none(), "{name} runs already");
    }

    /// Waits until a component that was begun says where it answers.
    pub(crate) async fn ready(&mut self, name: &'static str) {
        let prefix = match name {
            "listener" | "commandsd" => "commands on ",
            "queries" => "queries on ",
            _ => "health on ",
        };
        let address = self.process(name).says(prefix).await;
        self.addresses.insert(name, address);
    }

    #[track_caller]
    pub(crate) fn process(&mut self, name: &str) -> &mut Running {
        self.running.get_mut(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Where a component answers.
    pub(crate) fn address(&self, name: &str) -> &str {
        &self.addresses[name]
    }

    /// Asks components to stop, and waits until they have: without a word of complaint.
    pub(crate) async fn stop(&mut self, names: &[&'static str]) {
        for name in names {
            self.process(name).signal("-TERM").await;
        }
        for name in names {
            assert_eq!(self.ended(name).await.code(), Some(0), "{name} stops in good order");
        }
    }

    /// Sees to it that a component has ended, whether or not it runs any more; answers with its exit code.
    pub(crate) async fn halt(&mut self, name: &'static str) -> Option<i32> {
        self.process(name).terminate().await;
        self.ended(name).await.code()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, name: &'static str) {
        self.process(name).kill().await;
        self.running.remove(name);
    }

    /// `kill -9`, of one that may have ended by itself.
    pub(crate) async fn kill_if_it_lives(&mut self, name: &'static str) {
        let process = self.process(name);
        process.signal("-KILL").await;
        process.ended().await;
        self.running.remove(name);
    }

    /// Waits until a component has ended by itself.
    pub(crate) async fn ended(&mut self, name: &'static str) -> ExitStatus {
        let status = self.process(name).ended().await;
        self.running.remove(name);
        status
    }

    /// Waits until a component has given up, with a message that says all of this.
    pub(crate) async fn gives_up(&mut self, name: &'static str, says: &[&str]) {
        let status = self.ended(name).await;
        assert!(status.code().is_some_and(|code| code != 0), "{name} ended with {status}");
        let log = self.logged(name);
        let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default();
        for words in says {
            assert!(last.contains(words), "{name} says {words:?}: {last}");
        }
    }

    /// What a component has logged, over all its starts.
    pub(crate) fn logged(&self, name: &str) -> String {
        self.home.logged(name)
    }

    /// Waits until a component has logged this.
    pub(crate) async fn says(&self, name: &str, words: &str) {
        until(&format!("{name} says {words:?}"), async || self.logged(name).contains(words)).await;
    }

    /// Connects to what runs now.
    pub(crate) async fn platform(&self) -> Platform {
        let commands = self.addresses.get("listener").or(self.addresses.get("commandsd"));
        Platform::running(commands.expect("a listener"), self.address("queries")).await
    }

    /// What an operator does, with all that it takes to reach the services.
    pub(crate) async fn operate(&self, arguments: &[&str]) -> Output {
        let program = self.services().program(env!("CARGO_BIN_EXE_financing"));
        self.configured(program).flags(arguments).output().await
    }

    /// `financing queue adopt`, as an operator does it: while neither worker nor policies run. Answers with what it says.
    pub(crate) async fn adopt(&mut self) -> String {
        let output = self.operate(&["queue", "adopt"]).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, through the door of a process that runs for nothing else.
    pub(crate) async fn adopt_through_the_door(&mut self) -> String {
        self.run(&["door"]).await;
        let admin = self.process("door").says("admin on ").await;
        let output = self.operate(&["queue", "adopt", "--admin-addr", &admin]).await;
        assert!(output.status.success(), "{output:?}");
        self.stop(&["door"]).await;
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lets so many more commands be accepted.
    pub(crate) async fn trade(&self, load: &Load, commands: usize) -> Platform {
        let platform = self.platform().await;
        load.until(&platform, 8, load.accepted(commands)).await;
        platform
    }
}

/// Every command has its outcome, every saga comes to its end, the money adds up, and the read models say the same.
pub(crate) async fn settle(platform: &Platform, promised: &[String]) -> Audit {
    let mut audit = Audit::begin(platform).await;
    audit.until(|audit| audit.has_outcomes(promised) && audit.every_bid_is_answered()).await;
    let mut last = Vec::new();
    for (number, invoice_id) in audit.financed.keys().enumerate() {
        let decided = match number % 2 {
            0 => platform.approve(invoice_id).await,
            _ => platform.reverse(invoice_id).await,
        };
        last.push(decided.expect("a financed invoice can be approved or reversed").command_id);
    }
    audit.until(|audit| audit.has_outcomes(&last) && audit.no_bid_is_open()).await;
    assert!(audit.winners() > 0 && audit.winners() < audit.bids(), "some bids won, some lost");
    audit.adds_up(platform).await;
    audit
}
