//! A market on an embedded platform that is killed at moments which a seed decides: while it starts, while it works off what the
//! last kill left behind, in the middle of a market.
//!
//! What is wrong is an answer here and no panic, so that a test can plant a bug and see that it is found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::time::{Instant, sleep};

use crate::harness::{Audit, Dice, Home, Load, Platform, Program, Running, in_time};

use super::settle;

const CLIENTS: usize = 8;
const INVESTORS: usize = 12;
/// The longest that the market goes on before the platform is killed.
const MARKET: Duration = Duration::from_millis(400);
/// One life in so many ends before the platform says that it can be used, or at that moment.
const STARTING: usize = 5;
/// After one kill in so many the files are looked at as the kill left them.
const VERIFIED: usize = 5;
/// How often it is looked whether the platform is at rest.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// What decides the moments.
    pub(crate) seed: u64,
    /// How often the platform is killed.
    pub(crate) kills: usize,
    /// After so many kills it is left alone until it has nothing to do, and compared with what was promised.
    pub(crate) compared: usize,
    /// A bug to plant.
    pub(crate) bug: Option<&'static str>,
}

/// What must not be.
#[derive(Debug)]
pub(crate) enum Breach {
    /// Commands that were accepted: they have no outcome, and nothing is under way.
    NoOutcome(Vec<String>),
    /// Bids that neither won nor lost, and nothing is under way.
    NoAnswer(Vec<String>),
    /// Bids for which something is still reserved although it is decided what becomes of them, and nothing is under way.
    Reserved(Vec<String>),
    /// What `financing verify` said, with the first breach first.
    Verify(String),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOutcome(ids) => write!(f, "I2: accepted and without an outcome: {ids:?}"),
            Self::NoAnswer(ids) => write!(f, "I3: bids that neither won nor lost: {ids:?}"),
            Self::Reserved(ids) => {
                write!(f, "I3: bids whose money is neither released nor committed: {ids:?}")
            }
            Self::Verify(said) => f.write_str(said),
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) kills: usize,
    /// Kills before the platform said that it could be used, or a moment after.
    pub(crate) while_starting: usize,
    /// Kills with calls open or sagas under way.
    pub(crate) in_the_middle: usize,
    /// Calls that were open when it was killed, over all kills.
    pub(crate) calls_open: usize,
    /// Sagas that were under way when it was killed, over all kills.
    pub(crate) sagas_under_way: usize,
    pub(crate) verified: usize,
    pub(crate) compared: usize,
    pub(crate) accepted: usize,
    pub(crate) repeated: usize,
    pub(crate) records: u64,
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, while_starting, in_the_middle, calls_open, sagas_under_way, .. } = self;
        let Self { verified, compared, accepted, repeated, records, .. } = self;
        write!(
            f,
            "{kills} kills: {while_starting} while it started, {in_the_middle} in the middle of something ({calls_open} calls \
             open, {sagas_under_way} sagas under way); {accepted} commands accepted, {repeated} calls repeated, {records} \
             records; verified {verified} times as it was left, compared {compared} times"
        )
    }
}

/// One process of many on the same files.
struct Life {
    process: Running,
    began: Instant,
    platform: Option<Platform>,
}

impl Life {
    fn begin(home: &Home, bug: Option<&str>) -> Self {
        let program = Program::new(env!("CARGO_BIN_EXE_financing"))
            .set("FINANCING_COMMAND_ADDR", "127.0.0.1:0")
            .set("FINANCING_QUERY_ADDR", "127.0.0.1:0")
            .set("FINANCING_ADMIN_ADDR", "127.0.0.1:0")
            .set("FINANCING_DATA_DIR", home.data().display());
        let program = bug.into_iter().fold(program, |program, bug| program.set("FINANCING_MUTANT", bug));
        Self { process: program.start(home.log("platform")), began: Instant::now(), platform: None }
    }

    /// Waits until it can be used. How long it took to be.
    async fn ready(&mut self) -> Duration {
        if self.platform.is_none() {
            let commands = self.process.says("commands on ").await;
            let queries = self.process.says("queries on ").await;
            self.platform = Some(Platform::running(&commands, &queries).await);
        }
        self.began.elapsed()
    }

    fn platform(&self) -> &Platform {
        self.platform.as_ref().expect("it was ready")
    }
}

struct Kill {
    at: u64,
    /// How many commands had been accepted.
    accepted: usize,
    calls_open: usize,
}

/// A market, and the files that are all that a kill leaves of the platform.
struct Market {
    plan: Plan,
    dice: Dice,
    home: Home,
    load: Load,
    kills: Vec<Kill>,
    course: Course,
    /// Commands that were compared with what was promised, and sent again.
    compared: usize,
}

/// A breach, and after how many kills it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) breach: Breach,
    pub(crate) kills: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (found after {} kills)", self.breach, self.kills)
    }
}

/// Kills the platform again and again, and looks at what it makes of what is left.
pub(crate) async fn killed_again_and_again(plan: Plan) -> Result<Course, Found> {
    let home = Home::embedded();
    let mut life = Life::begin(&home, plan.bug);
    let start = life.ready().await;
    let load = Load::prepare(life.platform(), INVESTORS).await;
    let (dice, course) = (Dice::new(plan.seed), Course::default());
    let mut market = Market { plan, dice, home, load, kills: Vec::new(), course, compared: 0 };
    match market.go_on(life, start).await {
        Ok(()) => Ok(market.course),
        Err(breach) => Err(Found { breach, kills: market.course.kills }),
    }
}

impl Market {
    async fn go_on(&mut self, mut life: Life, start: Duration) -> Result<(), Breach> {
        for kill in 1..=self.plan.kills {
            self.end(&mut life, start).await;
            if self.dice.below(VERIFIED) == 0 {
                self.verify(&[]).await?;
                self.course.verified += 1;
            }
            life = Life::begin(&self.home, self.plan.bug);
            if kill % self.plan.compared == 0 {
                life.ready().await;
                self.compare(life.platform()).await?;
            }
        }
        self.close(life).await
    }

    /// Lets a platform live for a while, and kills it.
    async fn end(&mut self, life: &mut Life, start: Duration) {
        self.course.kills += 1;
        let starts = self.dice.below(STARTING) == 0;
        let failed = self.load.failed();
        if starts && life.platform.is_none() {
            self.course.while_starting += 1;
            sleep(self.dice.between(Duration::ZERO, start * 5 / 4)).await;
            life.process.kill().await;
        } else {
            life.ready().await;
            let after = self.dice.between(Duration::ZERO, MARKET);
            let Life { process, platform, .. } = life;
            let killed = async {
                sleep(after).await;
                process.kill().await;
            };
            self.load.against(platform.as_ref().expect("it was ready"), CLIENTS, killed).await;
        }
        let calls_open = self.load.failed() - failed;
        let (at, accepted) = (SystemEnvironment.now().as_micros(), self.load.promises().len());
        self.kills.push(Kill { at, accepted, calls_open });
    }

    /// Leaves the platform alone until it has nothing to do, and compares what there is with what was promised. Nothing is sent
    /// before that: a repeat would hide that something was lost. Then all is sent again that was promised since the last time.
    async fn compare(&mut self, platform: &Platform) -> Result<Audit, Breach> {
        let heads = until_at_rest(&self.home).await;
        let mut audit = Audit::begin(platform).await;
        audit.until(|audit| audit.has_seen(&heads)).await;
        let promised = self.load.promises();
        let lost = promised.iter().filter(|command_id| !audit.outcomes.contains_key(*command_id));
        found(lost, Breach::NoOutcome)?;
        found(audit.unanswered().into_iter(), Breach::NoAnswer)?;
        found(audit.unsettled().into_iter(), Breach::Reserved)?;
        self.load.repeat_from(platform, self.compared).await;
        self.compared = promised.len();
        self.course.compared += 1;
        Ok(audit)
    }

    /// Brings everything to its end.
    async fn close(&mut self, mut life: Life) -> Result<(), Breach> {
        life.ready().await;
        let platform = life.platform();
        self.compare(platform).await?;
        self.load.insist(platform).await;
        self.compare(platform).await?;
        let audit = settle(platform, &self.load.promises()).await;
        let heads = until_at_rest(&self.home).await;
        life.process.signal("-TERM").await;
        assert_eq!(life.process.ended().await.code(), Some(0), "it stops in good order");
        self.verify(&["--settled"]).await?;

        let promised = self.load.promises();
        self.course.accepted = promised.len();
        self.course.repeated = self.load.repeated();
        self.course.records = heads.values().sum();
        for kill in &self.kills {
            let accepted = promised[..kill.accepted].iter();
            let under_way = accepted.filter(|command_id| audit.last_fact_at(command_id) > kill.at).count();
            self.course.sagas_under_way += under_way;
            self.course.calls_open += kill.calls_open;
            self.course.in_the_middle += usize::from(under_way + kill.calls_open > 0);
        }
        Ok(())
    }

    /// What `financing verify` says of the files while no platform has them.
    async fn verify(&self, flags: &[&str]) -> Result<(), Breach> {
        let data = self.home.data().display().to_string();
        let program = Program::new(env!("CARGO_BIN_EXE_financing"));
        let output = program.flags(&["verify", "--data-dir", &data]).flags(flags).output().await;
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => {
                let first = said.lines().find_map(|line| line.split_once("the first is "));
                let (_, first) = first.unwrap_or_else(|| panic!("it says what is wrong first: {said}"));
                Err(Breach::Verify(format!("{first}\n{said}")))
            }
            code => panic!("{code:?}: {said}"),
        }
    }
}

fn found<'a>(ids: impl Iterator<Item = &'a String>, breach: fn(Vec<String>) -> Breach) -> Result<(), Breach> {
    let ids: Vec<String> = ids.cloned().collect();
    if ids.is_empty() { Ok(()) } else { Err(breach(ids)) }
}

/// Of each partition: its head, and whether all that is queued has an outcome, all outcomes are on the bus, and all that follows
/// from what is on the bus is queued. One statement sees one moment.
const AT_REST: &str = "
SELECT own.partition, own.head, own.head = relayed.sequence
    AND own.head = COALESCE(policies.sequence, 0)
    AND NOT EXISTS (
        SELECT 1 FROM queue
        WHERE queue.partition = own.partition AND queue.message > COALESCE(own.queue_message, 0)
    )
    AND NOT EXISTS (
        SELECT 1 FROM queue
        WHERE queue.partition = own.partition AND queue.message = own.queue_message
            AND json_array_length(CAST(queue.payload AS TEXT)) > own.queue_index + 1
    )
FROM partitions AS own
    JOIN relayed ON relayed.partition = own.partition
    LEFT JOIN checkpoints AS policies ON policies.reader = 'policies' AND policies.partition = own.partition";

/// Waits until nothing is under way, while nobody sends anything. (So nothing more will happen by itself, and what is not there
/// by now is lost; no time has to pass to know it.) Answers with each partition's last sequence.
async fn until_at_rest(home: &Home) -> BTreeMap<u16, u64> {
    let options = SqliteConnectOptions::new().filename(home.data().join("platform.db")).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    let resting = async {
        loop {
            looks.tick().await;
            if let Some(heads) = at_rest(&mut connection).await {
                return heads;
            }
        }
    };
    in_time("the platform comes to rest", resting).await
}

async fn at_rest(connection: &mut SqliteConnection) -> Option<BTreeMap<u16, u64>> {
    let rows = sqlx::query(AT_REST).fetch_all(connection).await.unwrap();
    assert_eq!(rows.len(), 16, "every partition has a row");
    let rests = rows.iter().all(|row| row.get::<bool, _>(2));
    rests.then(|| rows.iter().map(|row| (row.get(0), row.get::<i64, _>(1).unsigned_abs())).collect())
}
