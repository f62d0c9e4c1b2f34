//! All that there is to harm: the servers, the processes of the platform, and a proxy on every link between them.
//!
//! The rule this module protects: **nobody knows a way around a proxy.** A process is told the addresses of its own proxies and no
//! others, and a server tells nobody where it or its peers are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use services::{Database, NatsServer, Port, PostgresServer, Volume, services};
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use crate::harness::{Platform, Program};
use crate::plan::{Component, Kind, Link, Process, Stage, next};
use crate::player::Player;
use crate::proxy::Proxy;
use crate::settings::Settings;

/// How large the disk of a server is, where it has one of its own: that, and so much more for each fault of the run.
const DISK: u64 = 512 << 20;
const DISK_FOR_A_FAULT: u64 = 4 << 20;

/// Everything that runs.
pub(crate) struct Ground {
    pub(crate) stage: Stage,
    players: BTreeMap<(Component, usize), Mutex<Player>>,
    links: BTreeMap<Link, Proxy>,
    commands: Database,
    queries: Database,
    nats: Vec<Mutex<NatsServer>>,
    /// Where the nats-servers find each other, taken for as long as they are there.
    _routes: Vec<Port>,
    /// (It goes last, and takes the databases with it.)
    postgres: Mutex<PostgresServer>,
    logs: PathBuf,
}

impl Ground {
    /// Starts all of it; the servers with disks of their own where these are to be full.
    pub(crate) async fn start(settings: &Settings, stage: Stage, logs: PathBuf) -> Self {
        let disk = settings.kinds.contains(&Kind::DiskFull);
        let disk = disk.then_some(DISK + DISK_FOR_A_FAULT * u64::try_from(settings.faults).unwrap());
        let postgres = block_in_place(|| PostgresServer::start_on(disk));
        let mut links = BTreeMap::new();
        let (nats, routes) = start_nats(stage.nats_servers, disk, &mut links).await;
        let (commands, queries) = block_in_place(|| (postgres.database(), postgres.database()));
        let mut ports = BTreeMap::new();
        for (component, number) in stage.components().filter(|(component, _)| component.is_called()) {
            ports.insert((component, number), services().port());
        }
        for link in stage.links() {
            let server = match link {
                Link::Server(_, _, Process::Nats(server)) => nats[server - 1].port(),
                Link::Server(_, _, Process::Postgres | Process::Component(..)) => postgres.port(),
                Link::Clients(component, number) => ports[&(component, number)].number(),
                // (Made with the servers, who have to know it.)
                Link::Route(..) => continue,
            };
            links.insert(link, Proxy::to(server, services().port()).await);
        }
        let mut players = BTreeMap::new();
        for (component, number) in stage.components() {
            let port = ports.remove(&(component, number));
            let through = |server| links[&Link::Server(component, number, server)].port();
            let mut program = program(component, port.as_ref()).set(
                "FINANCING_NATS_URL",
                nats_urls((1..=stage.nats_servers).map(|server| through(Process::Nats(server)))),
            );
            program = program.set("FINANCING_NATS_REPLICAS", stage.nats_servers);
            if component.has_database() {
                let through = through(Process::Postgres);
                program = program
                    .set("FINANCING_COMMAND_DATABASE_URL", at_port(&commands.url(), through))
                    .set("FINANCING_QUERY_DATABASE_URL", at_port(&queries.url(), through));
            }
            let mut player = Player::new(component, number, program, port, &logs);
            player.begin();
            players.insert((component, number), Mutex::new(player));
        }
        let nats = nats.into_iter().map(Mutex::new).collect();
        let ground = Self {
            stage,
            players,
            links,
            commands,
            queries,
            nats,
            _routes: routes,
            postgres: Mutex::new(postgres),
            logs,
        };
        ground.all_ready().await;
        ground
    }

    /// Waits until every process says that it can be used.
    pub(crate) async fn all_ready(&self) {
        for player in self.players() {
            let mut player = player.lock().await;
            player.look();
            player.ready().await;
        }
    }

    pub(crate) fn players(&self) -> impl Iterator<Item = &Mutex<Player>> {
        self.players.values()
    }

    pub(crate) fn player(&self, component: Component, number: usize) -> &Mutex<Player> {
        &self.players[&(component, number)]
    }

    pub(crate) fn nats(&self, number: usize) -> &Mutex<NatsServer> {
        &self.nats[number - 1]
    }

    pub(crate) fn postgres(&self) -> &Mutex<PostgresServer> {
        &self.postgres
    }

    pub(crate) fn link(&self, link: Link) -> &Proxy {
        &self.links[&link]
    }

    /// Where clients find those of a kind: at their proxies.
    pub(crate) fn doors(&self, component: Component) -> Vec<String> {
        let all = (1..=self.stage.replicas).map(|number| self.link(Link::Clients(component, number)));
        all.map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect()
    }

    /// Where one of a kind itself answers.
    pub(crate) async fn address(&self, component: Component, number: usize) -> String {
        let player = self.player(component, number).lock().await;
        format!("127.0.0.1:{}", player.port.as_ref().expect("clients call it").number())
    }

    /// As a client sees it whom no proxy is in the way of.
    pub(crate) async fn platform(&self) -> Platform {
        let listener = self.address(Component::Listener, 1).await;
        Platform::running(&listener, &self.address(Component::Queries, 1).await).await
    }

    /// `financing`, with all that it takes to reach what is stored.
    pub(crate) async fn financing(&self) -> Program {
        let mut ports = Vec::new();
        for nats in &self.nats {
            ports.push(nats.lock().await.port());
        }
        Program::new(env!("CARGO_BIN_EXE_financing"))
            .set("FINANCING_NATS_URL", nats_urls(ports.into_iter()))
            .set("FINANCING_COMMAND_DATABASE_URL", self.commands.url())
            .set("FINANCING_QUERY_DATABASE_URL", self.queries.url())
    }

    /// Leaves what the servers logged beside what the processes did.
    pub(crate) async fn keep_logs(&self) {
        for (number, nats) in self.nats.iter().enumerate() {
            keep(&self.logs, &format!("nats-{}", number + 1), &nats.lock().await.log());
        }
        keep(&self.logs, "postgres", &self.postgres.lock().await.log());
    }
}

fn keep(logs: &Path, name: &str, log: &str) {
    std::fs::write(logs.join(format!("{name}.log")), log).expect("there is room for logs");
}

/// Whether disks can be full here.
///
/// # Errors
///
/// Why not.
pub(crate) fn disks() -> Result<(), String> {
    Volume::possible()
}

/// So many nats-servers; several are a cluster whose routes go through proxies, too. And the ports of these routes.
async fn start_nats(
    servers: usize,
    disk: Option<u64>,
    links: &mut BTreeMap<Link, Proxy>,
) -> (Vec<NatsServer>, Vec<Port>) {
    if servers == 1 {
        return (vec![block_in_place(|| NatsServer::start_on("", disk))], Vec::new());
    }
    let routes: Vec<Port> = (0..servers).map(|_| services().port()).collect();
    let mut nats = Vec::new();
    for from in 1..=servers {
        let to = next(from, servers);
        let proxy = Proxy::to(routes[to - 1].number(), services().port()).await;
        let peer = proxy.port();
        links.insert(Link::Route(from, to), proxy);
        // A server tells its peers where the others are. What it tells of itself leads nowhere, so that all of them keep to the proxies.
        let config = format!(
            "server_name: nats-{from}\ncluster {{ name: chaos, host: 127.0.0.1, port: {}, no_advertise: true, \
             cluster_advertise: \"127.0.0.1:1\", routes: [\"nats-route://127.0.0.1:{peer}\"] }}\n",
            routes[from - 1].number(),
        );
        nats.push(block_in_place(|| NatsServer::start_on(&config, disk)));
    }
    (nats, routes)
}

fn nats_urls(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("nats://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// A database's URL, at another port.
fn at_port(url: &str, port: u16) -> String {
    let (before, database) = url.rsplit_once('/').expect("a URL names its database");
    let (before, _) = before.rsplit_once(':').expect("a URL names its port");
    format!("{before}:{port}/{database}")
}

fn program(component: Component, port: Option<&Port>) -> Program {
    let commandsd = env!("CARGO_BIN_EXE_commandsd");
    let program = match component {
        Component::Listener => Program::new(commandsd).flags(&["--listener"]),
        Component::Worker => Program::new(commandsd).flags(&["--worker"]),
        Component::Policies => Program::new(commandsd).flags(&["--policies"]),
        Component::Queries => Program::new(env!("CARGO_BIN_EXE_queriesd")),
        Component::Relayer => Program::new(env!("CARGO_BIN_EXE_relayerd")),
        Component::Projector => Program::new(env!("CARGO_BIN_EXE_queryprojectord")),
    };
    let address = port.map(|port| format!("127.0.0.1:{}", port.number()));
    let program = match (component, address) {
        (Component::Listener, Some(address)) => program.set("FINANCING_COMMAND_ADDR", address),
        (Component::Queries, Some(address)) => program.set("FINANCING_QUERY_ADDR", address),
        (_, _) => program,
    };
    program.set("FINANCING_COMMAND_DATABASE_CONNECTIONS", 3).set("FINANCING_QUERY_DATABASE_CONNECTIONS", 3)
}
