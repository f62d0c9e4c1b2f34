//! Many replicas of every process of the platform, each by its name, so that one can be killed, paused, asked to stop and
//! started again while the others go on; and who owns what, as the databases have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;
use services::{Database, Port, PostgresServer, services};
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::harness::{Home, Platform, Program, Running, Services, issuer_registered};
use crate::ledger::until;
use crate::market::{Manner, Market};

/// What there are several of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Listener,
    Queries,
    Worker,
    Policies,
    Relayer,
    Projector,
}

/// Says everything that a test counts, and nothing else that there is much of.
const LOG: &str = "info,eventsourcing::relayer=debug";

/// The database's time, in microseconds since the Unix epoch.
const NOW: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Listener, Self::Queries, Self::Worker, Self::Policies, Self::Relayer, Self::Projector];

    /// Those that share the partitions.
    pub(crate) const OWNERS: [Self; 4] = [Self::Worker, Self::Policies, Self::Relayer, Self::Projector];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Queries => "queries",
            Self::Worker => "worker",
            Self::Policies => "policies",
            Self::Relayer => "relayer",
            Self::Projector => "projector",
        }
    }

    /// What one logs that finds out that another has worked its partition meanwhile.
    pub(crate) const fn refusal(self) -> &'static str {
        match self {
            Self::Worker => "another worker owns the partition: dropped it",
            Self::Policies => "another policy runner owns the partition: dropped it",
            Self::Projector => "another projector owns the partition: dropped it",
            Self::Relayer => "the bus refused a publication",
            Self::Listener | Self::Queries => "(they own nothing)",
        }
    }

    /// What one says on standard output when it can be used.
    const fn ready(self) -> &'static str {
        match self {
            Self::Listener => "commands on ",
            Self::Queries => "queries on ",
            Self::Worker | Self::Policies | Self::Relayer | Self::Projector => "health on ",
        }
    }

    fn program(self, services: &Services, address: &str) -> Program {
        let commandsd = env!("CARGO_BIN_EXE_commandsd");
        let program = match self {
            Self::Listener => {
                services.program(commandsd).set("FINANCING_COMMAND_ADDR", address).flags(&["--listener"])
            }
            Self::Worker => services.program(commandsd).flags(&["--worker"]),
            Self::Policies => services.program(commandsd).flags(&["--policies"]),
            Self::Queries => {
                services.program(env!("CARGO_BIN_EXE_queriesd")).set("FINANCING_QUERY_ADDR", address)
            }
            Self::Relayer => services.program(env!("CARGO_BIN_EXE_relayerd")),
            Self::Projector => services.program(env!("CARGO_BIN_EXE_queryprojectord")),
        };
        program
            .set("FINANCING_LOG", LOG)
            // One PostgreSQL serves the replicas of all tests that run.
            .set("FINANCING_COMMAND_DATABASE_CONNECTIONS", 3)
            .set("FINANCING_QUERY_DATABASE_CONNECTIONS", 3)
    }
}

/// One process of many.
pub(crate) struct Replica {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    program: Program,
    /// Where a listener or a query service answers, each time that it is started.
    port: Port,
    log: File,
    running: Option<Running>,
}

impl Replica {
    fn new(home: &Home, kind: Kind, number: usize) -> Self {
        let (name, port) = (format!("{}-{number}", kind.name()), services().port());
        let program = kind.program(home.services().expect("they share services"), &address(&port));
        Self { kind, program, port, log: home.log(&name), name, running: None }
    }

    /// Starts it and does not wait.
    pub(crate) fn begin(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.running = Some(self.program.start(self.log.try_clone().unwrap()));
    }

    /// Waits until it can be used.
    pub(crate) async fn ready(&mut self) {
        let ready = self.kind.ready();
        self.process().says(ready).await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.running.take().expect("it runs").kill().await;
    }

    /// SIGTERM; answers with the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        let mut process = self.running.take().expect("it runs");
        process.signal("-TERM").await;
        process.ended().await.code()
    }

    /// SIGSTOP: from now on it does nothing, and keeps all that it has.
    pub(crate) async fn pause(&mut self) {
        self.process().signal("-STOP").await;
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub(crate) async fn resume(&mut self) {
        self.process().signal("-CONT").await;
    }

    fn process(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }
}

fn address(port: &Port) -> String {
    format!("127.0.0.1:{}", port.number())
}

/// What an owner had when it was harmed, and how far that had come.
pub(crate) struct Harmed {
    kind: Kind,
    member: String,
    pub(crate) partitions: BTreeSet<u16>,
    epochs: BTreeMap<u16, u64>,
    /// By the database's clock, in microseconds since the Unix epoch.
    at: u64,
}

/// How long after the harm something was so, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakenOver {
    /// Others own all that the harmed one had.
    pub(crate) owned: Duration,
    /// In each of these partitions they have worked on something that happened after the harm.
    pub(crate) worked: Duration,
}

/// Replicas of every process, and what they stand on.
pub(crate) struct Cluster {
    replicas: Vec<Replica>,
    home: Home,
    /// Where the databases are, when the cluster has a server of its own. (It goes last.)
    postgres: Option<PostgresServer>,
}

/// All that there is to harm.
pub(crate) struct Everything<'a> {
    /// Those of a kind side by side.
    pub(crate) replicas: &'a mut [Replica],
    pub(crate) services: &'a mut Services,
    pub(crate) postgres: &'a mut PostgresServer,
}

impl Cluster {
    /// So many of each, over an empty bus and empty databases.
    pub(crate) async fn start(replicas: impl Fn(Kind) -> usize) -> Self {
        Self::start_in(Home::distributed(), None, replicas).await
    }

    /// The same, over a PostgreSQL that nobody else works with, so that it can be harmed, too.
    pub(crate) async fn start_alone(replicas: impl Fn(Kind) -> usize) -> Self {
        let postgres = PostgresServer::start();
        let home = Home::over(postgres.database(), postgres.database());
        Self::start_in(home, Some(postgres), replicas).await
    }

    /// The same, over a PostgreSQL with a synchronous standby, and a cluster of three servers of NATS.
    pub(crate) async fn start_highly_available(replicas: impl Fn(Kind) -> usize) -> (Self, PostgresServer) {
        let postgres = PostgresServer::start();
        let standby = postgres.standby(true);
        let home = Home::over_a_cluster(postgres.database(), postgres.database());
        (Self::start_in(home, Some(postgres), replicas).await, standby)
    }

    async fn start_in(
        home: Home,
        postgres: Option<PostgresServer>,
        replicas: impl Fn(Kind) -> usize,
    ) -> Self {
        let of = |kind| (1..=replicas(kind)).map(move |number| (kind, number));
        let replicas = Kind::ALL.into_iter().flat_map(of);
        let replicas: Vec<Replica> =
            replicas.map(|(kind, number)| Replica::new(&home, kind, number)).collect();
        let mut cluster = Self { replicas, home, postgres };
        cluster.replicas.iter_mut().for_each(Replica::begin);
        for replica in &mut cluster.replicas {
            replica.ready().await;
        }
        cluster
    }

    /// Starts one more of a kind, which is not waited for; answers with its name.
    pub(crate) fn join(&mut self, kind: Kind) -> String {
        let number = self.names(kind).len() + 1;
        let mut replica = Replica::new(&self.home, kind, number);
        replica.begin();
        let name = replica.name.clone();
        self.replicas.push(replica);
        name
    }

    #[track_caller]
    pub(crate) fn replica(&mut self, name: &str) -> &mut Replica {
        let named = self.replicas.iter_mut().find(|replica| replica.name == name);
        named.unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// All that there is, of a cluster with a PostgreSQL of its own: to harm it at the same time.
    pub(crate) fn everything(&mut self) -> Everything<'_> {
        self.replicas.sort_by_key(|replica| replica.kind);
        Everything {
            replicas: &mut self.replicas,
            services: self.home.services_mut(),
            postgres: self.postgres.as_mut().expect("a PostgreSQL of its own"),
        }
    }

    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let of_kind = self.replicas.iter().filter(|replica| replica.kind == kind);
        of_kind.map(|replica| replica.name.clone()).collect()
    }

    /// Where those of a kind answer.
    pub(crate) fn addresses(&self, kind: Kind) -> Vec<String> {
        let of_kind = self.replicas.iter().filter(|replica| replica.kind == kind);
        of_kind.map(|replica| address(&replica.port)).collect()
    }

    /// As a client sees it: through its first listener and its first query service.
    pub(crate) async fn platform(&self) -> Platform {
        Platform::running(&self.addresses(Kind::Listener)[0], &self.addresses(Kind::Queries)[0]).await
    }

    pub(crate) fn services(&self) -> &Services {
        self.home.services().expect("they share services")
    }

    /// How often those of a kind have logged a line with these words.
    pub(crate) fn logged(&self, kind: Kind, words: &str) -> usize {
        self.names(kind).iter().map(|name| self.logged_by(name, words)).sum()
    }

    /// How often one has logged a line with these words.
    pub(crate) fn logged_by(&self, name: &str, words: &str) -> usize {
        self.home.logged(name).lines().filter(|line| line.contains(words)).count()
    }

    // ------------------------------------------------------------------------------------ who owns what

    /// The partitions that each replica of a kind holds.
    pub(crate) fn held(&self, kind: Kind) -> BTreeMap<String, BTreeSet<u16>> {
        let sql = format!("SELECT member, partition FROM leases WHERE role = '{}'", kind.name());
        let rows = psql(self.database(kind), &sql);
        let mut held: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
        for name in self.names(kind) {
            let member = self.member(&name);
            let its = rows.iter().filter(|row| Some(&row[0]) == member.as_ref());
            held.insert(name, its.map(|row| row[1].parse().unwrap()).collect());
        }
        held
    }

    /// As which member of its role it takes part, since it was started last.
    fn member(&self, name: &str) -> Option<String> {
        let log = self.home.logged(name);
        let role = name.rsplit_once('-').map(|(kind, _)| format!("role=\"{kind}\""))?;
        let line = log.lines().rfind(|line| line.contains("takes part") && line.contains(&role))?;
        line.split_once("member=").map(|(_, member)| member.trim().to_owned())
    }

    /// Waits until the replicas of a kind hold all partitions, none of them two more than another.
    pub(crate) async fn until_even(&self, kind: Kind) {
        let all: BTreeSet<u16> = (0..16).collect();
        let even = async || {
            let held = self.held(kind);
            let shares = held.values().map(BTreeSet::len);
            let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
            held.values().flatten().copied().collect::<BTreeSet<u16>>() == all && most - least <= 1
        };
        until(&format!("the shares of the {} are even", kind.name()), even).await;
    }

    // ------------------------------------------------------------------------------- who takes it over

    /// What an owner has, just before it is harmed.
    pub(crate) fn about_to_harm(&self, kind: Kind, name: &str) -> Harmed {
        let partitions = self.held(kind).remove(name).expect("it takes part");
        let member = self.member(name).expect("it takes part");
        Harmed { kind, member, partitions, epochs: self.epochs(), at: self.now() }
    }

    /// Waits until others own all that the harmed one had, and have worked on something in each of these partitions that
    /// happened after the harm.
    pub(crate) async fn until_taken_over(&self, harmed: &Harmed) -> TakenOver {
        let heads = self.heads();
        self.happens_everywhere().await;
        let partitions: Vec<String> = harmed.partitions.iter().map(ToString::to_string).collect();
        let owned = format!(
            "(SELECT count(*) FROM leases WHERE role = '{}' AND member <> '{}' AND partition IN ({})) = {}",
            harmed.kind.name(),
            harmed.member,
            partitions.join(", "),
            partitions.len()
        );
        let goals = harmed.partitions.iter().map(|partition| {
            // (What a paused worker had under way may still be committed after the harm: it is not of a later epoch.)
            format!("({partition}, {}, {})", heads[partition] + 1, harmed.epochs[partition] + 1)
        });
        let reached = match harmed.kind {
            Kind::Worker => "partitions at ON at.head >= goal.sequence AND at.epoch >= goal.epoch",
            // What the relayer publishes is what the policies react to.
            Kind::Relayer | Kind::Policies => {
                "checkpoints at ON at.sequence >= goal.sequence AND at.reader = 'policies'"
            }
            Kind::Projector => "checkpoints at ON at.sequence >= goal.sequence",
            Kind::Listener | Kind::Queries => panic!("they own nothing"),
        };
        let worked = format!(
            "(SELECT count(*) FROM (VALUES {}) AS goal (partition, sequence, epoch) JOIN {reached} \
             AND at.partition = goal.partition) = {}",
            goals.collect::<Vec<_>>().join(", "),
            partitions.len()
        );
        let [owned, worked] = until_in(self.database(harmed.kind), [&owned, &worked])
            .map(|at| Duration::from_micros(at.saturating_sub(harmed.at)));
        TakenOver { owned, worked }
    }

    /// How long ago the harm was.
    pub(crate) fn since(&self, harmed: &Harmed) -> Duration {
        Duration::from_micros(self.now() - harmed.at)
    }

    /// The database's time.
    fn now(&self) -> u64 {
        psql(&self.services().commands, &format!("SELECT {NOW}"))[0][0].parse().unwrap()
    }

    /// Registers an issuer in every partition.
    async fn happens_everywhere(&self) {
        let number = |partition: u128| SystemEnvironment.uuid().as_u128() / 16 * 16 + partition;
        let ids = (0..16).map(|partition| Uuid::from_u128(number(partition)).to_string());
        let events = ids.map(|issuer_id| issuer_registered(&issuer_id, "Acme")).collect();
        self.platform().await.publish(events).await;
    }

    /// The last sequence of each partition of the log.
    fn heads(&self) -> BTreeMap<u16, u64> {
        numbers(&self.services().commands, "SELECT partition, head FROM partitions")
    }

    /// How often each partition was taken over by a worker.
    pub(crate) fn epochs(&self) -> BTreeMap<u16, u64> {
        numbers(&self.services().commands, "SELECT partition, epoch FROM partitions")
    }

    /// How often something has changed hands in a role.
    pub(crate) fn rounds(&self, kind: Kind) -> u64 {
        let sql = format!("SELECT round FROM lease_rounds WHERE role = '{}'", kind.name());
        psql(self.database(kind), &sql)[0][0].parse().unwrap()
    }

    /// Where the leases of a kind are.
    fn database(&self, kind: Kind) -> &Database {
        let Services { commands, queries, .. } = self.services();
        if kind == Kind::Projector { queries } else { commands }
    }
}

impl Market {
    /// Registers who takes part, and lets so many clients work over all listeners, until the market is closed.
    pub(crate) async fn open(cluster: &Cluster, clients: usize, manner: Manner, seed: u64) -> Self {
        let platform = cluster.platform().await;
        Self::open_at(&platform, &cluster.addresses(Kind::Listener), clients, manner, seed).await
    }
}

/// Waits in the database, which is quicker than to ask it again and again, until the one is so, and then the other. When that
/// was.
fn until_in(database: &Database, conditions: [&str; 2]) -> [u64; 2] {
    let wait = |number: usize, condition: &str| {
        format!(
            "FOR look IN 1..6000 LOOP EXIT WHEN {condition}; PERFORM pg_sleep(0.01); END LOOP; \
             IF NOT {condition} THEN RAISE EXCEPTION 'not within a minute: %', $wanted${condition}$wanted$; END IF; \
             PERFORM set_config('seen.at_{number}', {NOW}::text, false);"
        )
    };
    let [first, second] = conditions;
    let sql = format!(
        "DO $wait$ BEGIN {} {} END $wait$; SELECT current_setting('seen.at_1'), current_setting('seen.at_2')",
        wait(1, first),
        wait(2, second)
    );
    let row = psql(database, &sql).remove(0);
    [&row[0], &row[1]].map(|at| at.parse().unwrap())
}

/// A number of each partition.
fn numbers(database: &Database, sql: &str) -> BTreeMap<u16, u64> {
    psql(database, sql).iter().map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap())).collect()
}

/// Rows, while the clients go on. (So these tests run on several threads.)
fn psql(database: &Database, sql: &str) -> Vec<Vec<String>> {
    let rows = block_in_place(|| database.psql(sql));
    rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
}
