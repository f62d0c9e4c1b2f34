//! The start and the end of each process: whoever is started first waits, whoever is asked to stop does, and each needs no
//! more than its work does.

use services::{Database, Port, services};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::proto::BidStatus;
use crate::harness::{Load, Platform, eur};
use crate::ledger::{Ledger, until};
use crate::parts::{ALL, Parts, settle};

/// From an issuer and an investor to money that is committed.
pub(crate) async fn one_saga(platform: &Platform) {
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    let sold = platform.sell(&issuer_id, eur(60, 0)).await;
    let bid = platform.bid(&investor_id, &sold.id, eur(70, 0)).await.unwrap();
    let mut facts = platform.all_facts().await;
    facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    platform.approve(&sold.id).await.unwrap();
    let committed = facts.until("InvestorFundsCommitted", "bid_id", &bid.id).await;
    assert_eq!(platform.balances(&investor_id, committed.token()).await, [eur(40, 0), eur(0, 0), eur(60, 0)]);
    let bid = platform.bid_at(&bid.id, committed.token()).await;
    assert_eq!(bid.status(), BidStatus::Committed);
}

/// A way to a server that is closed until somebody opens it.
struct Door {
    port: Port,
    behind: String,
    open: Option<JoinHandle<()>>,
}

impl Door {
    /// In front of a database.
    fn to(database: &Database) -> Self {
        let url = database.url();
        let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
        Self { port: services().port(), behind: address.to_owned(), open: None }
    }

    /// The database's URL through the door.
    fn url(&self, database: &Database) -> String {
        database.url().replace(&self.behind, &format!("127.0.0.1:{}", self.port.number()))
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port.number())).await.unwrap();
        let behind = self.behind.clone();
        self.open = Some(tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&behind).await.unwrap();
                // Either of them may hang up as it likes.
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
        }
    }
}

/// A platform whose processes find nobody yet: all of them were started, and say that they wait.
async fn waiting() -> (Parts, [Door; 2]) {
    let mut parts = Parts::new();
    parts.services_mut().nats.stop();
    let services = parts.services();
    let doors = [Door::to(&services.commands), Door::to(&services.queries)];
    let urls = [doors[0].url(&services.commands), doors[1].url(&services.queries)];
    parts =
        parts.set("FINANCING_COMMAND_DATABASE_URL", &urls[0]).set("FINANCING_QUERY_DATABASE_URL", &urls[1]);
    for name in ALL {
        parts.begin(name, &parts.program(name));
    }
    for name in ALL {
        parts.says(name, "waiting for ").await;
    }
    (parts, doors)
}

#[tokio::test]
async fn whoever_is_started_first_waits_for_the_others() {
    // given
    let (mut parts, mut doors) = waiting().await;

    // when
    parts.services_mut().nats.start_again();
    parts.says("worker", "waiting for the event log").await;
    for door in &mut doors {
        door.open().await;
    }

    // then
    for name in ALL {
        parts.ready(name).await;
    }
    one_saga(&parts.platform().await).await;
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn whoever_is_started_while_nats_stores_nothing_waits_until_it_does() {
    // given
    let mut parts = Parts::new();
    let nats = &mut parts.services_mut().nats;
    nats.stop();
    // As a server is that has given up because its disk was full.
    nats.configure("jetstream: false");
    nats.start_again();
    for name in ALL {
        parts.begin(name, &parts.program(name));
    }
    for name in ALL {
        parts.says(name, "JetStream is not enabled").await;
    }

    // when
    let nats = &mut parts.services_mut().nats;
    nats.stop();
    nats.configure("");
    nats.start_again();

    // then
    for name in ALL {
        parts.ready(name).await;
    }
    one_saga(&parts.platform().await).await;
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn whoever_waits_can_be_stopped() {
    let (mut parts, _doors) = waiting().await;
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn each_process_says_whether_it_is_well() {
    // given
    let mut parts = Parts::start().await;

    for name in ALL {
        // when
        let address = parts.address(name).to_owned();
        let well = parts.operate(&["health", &address]).await;
        parts.stop(&[name]).await;
        let ill = parts.operate(&["health", &address]).await;

        // then
        assert_eq!(well.status.code(), Some(0), "{name}: {well:?}");
        assert_eq!(String::from_utf8_lossy(&well.stdout), "SERVING\n", "{name}");
        assert_eq!(ill.status.code(), Some(1), "{name}: {ill:?}");
        assert!(String::from_utf8_lossy(&ill.stderr).contains(&address), "{name}: {ill:?}");
    }
}

#[tokio::test]
async fn a_listener_takes_commands_without_knowing_a_database() {
    // given
    let mut parts = Parts::new();
    let nats = parts.services().nats.url();
    let program = crate::harness::Program::new(env!("CARGO_BIN_EXE_commandsd"))
        .set("FINANCING_NATS_URL", nats)
        .set("FINANCING_COMMAND_ADDR", "127.0.0.1:0")
        .flags(&["--listener"]);
    parts.begin("listener", &program);
    parts.ready("listener").await;

    // when
    parts.run(&["worker", "policies", "relayer", "projector", "queries"]).await;

    // then
    one_saga(&parts.platform().await).await;
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn one_process_may_be_the_whole_command_side() {
    // given
    let mut parts = Parts::new();
    parts.run(&["commandsd", "relayer", "projector", "queries"]).await;
    let platform = parts.platform().await;
    let load = Load::prepare(&platform, 8).await;

    // when
    parts.trade(&load, 40).await;

    // then
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    parts.stop(&["commandsd", "relayer", "projector", "queries"]).await;
}

#[tokio::test]
async fn every_process_may_be_stopped_under_load() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 12).await;

    // when
    for name in ALL {
        let platform = parts.platform().await;
        let enough = load.promises().len();
        if name == "listener" {
            let harm = async {
                load.accepted(20).await;
                parts.stop(&[name]).await;
            };
            load.against(&platform, 6, harm).await;
            parts.run(&[name]).await;
        } else {
            let harm = async {
                load.accepted(20).await;
                parts.stop(&[name]).await;
                parts.run(&[name]).await;
                load.accepted(20).await;
            };
            load.until(&platform, 6, harm).await;
        }
        println!("{name} was stopped and started again under {} commands", load.promises().len() - enough);
    }

    // then: before anything is sent again, because a repeat would hide that something was lost
    let promised = load.promises();
    let ledger = Ledger::open(parts.services()).await;
    let has_outcomes = async || {
        let outcomes = crate::ledger::outcomes(&ledger.log().await);
        promised.iter().all(|command_id| outcomes.contains_key(&command_id.parse().unwrap()))
    };
    until("every accepted command has an outcome", has_outcomes).await;
    let platform = parts.platform().await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    ledger.agree().await;
    parts.stop(&ALL).await;
}

/// Both databases, and roles of their own. The roles are the server's, so they go with the test.
pub(crate) struct Roles {
    pub(crate) commands: Database,
    pub(crate) queries: Database,
    prefix: String,
}

impl Roles {
    const NAMES: [&'static str; 4] = ["worker", "relayer", "projector", "query"];

    pub(crate) fn prepare() -> Self {
        let (commands, queries) = (services().database(), services().database());
        let prefix = commands.name().replace("test_", "r");
        Self { commands, queries, prefix }
    }

    pub(crate) fn grant(&self) {
        let passwords = Self::NAMES.map(|role| format!("\\set {role}_password secret-of-{role}\n")).concat();
        let script = include_str!("../../scripts/roles.sql");
        for database in [&self.commands, &self.queries] {
            database.psql(&format!("\\set prefix {}\n{passwords}{script}", self.prefix));
        }
    }

    pub(crate) fn url(&self, database: &Database, role: &str) -> String {
        database.url_as(&format!("{}_{role}", self.prefix), &format!("secret-of-{role}"))
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let roles = Self::NAMES.map(|role| format!("{}_{role}", self.prefix)).join(", ");
        self.commands.psql(&format!("DROP OWNED BY {roles};"));
        self.queries.psql(&format!("DROP OWNED BY {roles};\nDROP ROLE {roles};"));
    }
}

#[tokio::test]
async fn each_process_does_its_work_with_the_rights_of_its_role() {
    // given
    let roles = Roles::prepare();
    let mut parts = Parts::new()
        .set("FINANCING_COMMAND_DATABASE_URL", roles.commands.url())
        .set("FINANCING_QUERY_DATABASE_URL", roles.queries.url());
    let migrated = parts.operate(&["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    roles.grant();

    // when
    for (name, role) in [
        ("listener", None),
        ("worker", Some("worker")),
        ("policies", Some("worker")),
        ("relayer", Some("relayer")),
        ("projector", Some("projector")),
        ("queries", Some("query")),
    ] {
        let program = parts.program(name);
        let program = role.into_iter().fold(program, |program, role| {
            program
                .set("FINANCING_COMMAND_DATABASE_URL", roles.url(&roles.commands, role))
                .set("FINANCING_QUERY_DATABASE_URL", roles.url(&roles.queries, role))
        });
        parts.begin(name, &program);
    }
    for name in ALL {
        parts.ready(name).await;
    }

    // then
    one_saga(&parts.platform().await).await;
    let connected = "SELECT string_agg(DISTINCT usename, ' ' ORDER BY usename) FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name <> 'psql'";
    let worker_and_relayer = format!("{0}_relayer {0}_worker", roles.prefix);
    assert_eq!(roles.commands.psql(connected).trim(), worker_and_relayer, "and nobody as the owner");
    parts.stop(&ALL).await;
}
