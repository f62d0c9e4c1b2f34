//! The rebuild: read models built anew from the bus, beside those that are read.
//!
//! The rule this module protects: whoever reads sees all of the old ones or all of the new ones. What is built follows the
//! live ones and never overtakes them; it takes their place only while they are held and stand at the same records, so the
//! projector goes on from where it stood, and notices nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, join, select};
use tokio::sync::{oneshot, watch};

use crate::environment::{Environment, Stop, Stopper, Timestamp};
use crate::model::{Model, Projection};
use crate::partition::{Partition, PartitionCount, Sequence};
use crate::ports::{CheckpointMove, EventBus, PortError, PortResult, Projected, ProjectionStep, ReadModels};
use crate::projector::{Standing, standing};
use crate::record::Record;
use crate::relayer::{by_partition, gap_free};
use crate::rotation::Rotation;
use crate::shadow::{Rebuildable, Shadow};
use crate::turn::Trouble;

/// Records that are projected in one transaction: enough that rows of the same page are written together, and few enough
/// that the projector, which writes in between, does not wait long.
const BATCH: usize = 4096;

/// Records that are read at a time: what a store hands over is larger than what is made of it.
const READ: usize = 1024;

/// Records that are projected before others may run.
const AT_ONCE: usize = 256;

/// With no more records than this to go, the live ones are held and the rest is done.
const NEARLY: u64 = 1024;

/// How often it is tried to come that near and to swap, with a second in between where somebody reads in a long transaction.
const ROUNDS: u32 = 100;

/// How often a bus that does not answer is asked again, and the first and the longest pause before that.
const ATTEMPTS: u32 = 20;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It folds the bus into new tables.
    Building,
    /// It makes the indexes of the new tables.
    Indexing,
    /// It folds what was projected meanwhile.
    CatchingUp,
    /// The new tables are those that are read.
    Swapped,
}

/// How far a rebuild has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// What it is doing.
    pub phase: Phase,
    /// The partitions of the deployment.
    pub partitions: PartitionCount,
    /// Records that are folded.
    pub done: u64,
    /// Records that the live read models have folded, which is what there is to do.
    pub all: u64,
    /// How long it has taken so far, by the wall clock.
    pub elapsed: Duration,
}

impl RebuildProgress {
    /// Before anything is done.
    #[must_use]
    pub const fn begin(partitions: PartitionCount) -> Self {
        Self { phase: Phase::Building, partitions, done: 0, all: 0, elapsed: Duration::ZERO }
    }

    /// Records a second, on the whole way.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let rate = u128::from(self.done) * 1_000_000 / self.elapsed.as_micros().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// How long folding the rest will take, if it goes on like this; `None` where nothing can be said yet.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.all.saturating_sub(self.done);
        let micros = self.elapsed.as_micros().checked_mul(u128::from(left))?.checked_div(self.done.into())?;
        u64::try_from(micros).ok().map(Duration::from_micros)
    }
}

/// Why read models were not built anew. Those that are read stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// One is under way already, perhaps in another process.
    #[error("the read models are being rebuilt already")]
    UnderWay,
    /// Whoever asked for it does not want it any more.
    #[error("the rebuild was cancelled")]
    Cancelled,
    /// The bus is not the one that the live read models are built from.
    #[error("the bus is not the one that the read models were built from: {0}")]
    Astray(String),
    /// A store or the bus failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A rebuild that somebody else runs. Dropping it cancels.
#[derive(Debug)]
pub struct RunningRebuild {
    /// How far it has come. Closed when it has ended.
    pub progress: watch::Receiver<RebuildProgress>,
    /// How it ended.
    pub outcome: oneshot::Receiver<Result<(), RebuildError>>,
    /// Cancels it, unless the swap has begun.
    pub cancel: Stopper,
}

impl RunningRebuild {
    /// Waits until there is something new to tell, and answers with the latest of it; `None` when it has come to its end.
    /// Not to be asked again after that, or after an error.
    ///
    /// # Errors
    ///
    /// Why it did not come to its end.
    pub async fn next(&mut self) -> Result<Option<RebuildProgress>, RebuildError> {
        if self.progress.changed().await.is_ok() {
            return Ok(Some(*self.progress.borrow_and_update()));
        }
        let died = |_| Err(PortError::Unavailable("the rebuild died".to_owned()).into());
        (&mut self.outcome).await.unwrap_or_else(died).map(|()| None)
    }
}

/// Where rebuilds are asked for.
pub trait Rebuilds: Send + Sync + 'static {
    /// Starts one, unless one is under way.
    ///
    /// # Errors
    ///
    /// [`RebuildError::UnderWay`], where that is known here. That another process has one under way may be the outcome.
    fn start(&self) -> Result<RunningRebuild, RebuildError>;
}

/// A rebuild: a projection, folded anew from a bus into the store that has it already.
#[derive(Debug, Clone)]
pub struct Rebuild<M, P, B, S, E> {
    projection: P,
    bus: B,
    store: S,
    environment: E,
    partitions: PartitionCount,
    model: PhantomData<fn() -> M>,
}

/// Where what is built stands.
type Places = BTreeMap<Partition, Projected>;

impl<M, P, B, S, E> Rebuild<M, P, B, S, E>
where
    M: Model,
    P: Projection<M>,
    B: EventBus,
    S: ReadModels + Rebuildable,
    E: Environment,
{
    /// Of all the partitions of a deployment. The bus is a handle of its own: it is read from the beginning.
    pub const fn new(projection: P, bus: B, store: S, environment: E, partitions: PartitionCount) -> Self {
        Self { projection, bus, store, environment, partitions, model: PhantomData }
    }

    /// Builds the read models anew and puts them in the place of the live ones; tells how far it has come, after every
    /// transaction and at the beginning of every phase. Where it does not come to its end, what was built is dropped.
    ///
    /// # Errors
    ///
    /// See [`RebuildError`]. Unless the answer to the very last step was lost, the live read models are as they were.
    pub async fn run(
        &self,
        tell: impl Fn(RebuildProgress) + Send + Sync,
        cancel: &Stop,
    ) -> Result<(), RebuildError> {
        let mut shadow = self.store.begin_rebuild().await?.ok_or(RebuildError::UnderWay)?;
        let way = Way { tell, began: self.environment.now(), rebuild: self };
        let built = self.build(&mut shadow, &way, cancel).await;
        if let Err(error) = &built {
            tracing::info!(%error, "the read models are not rebuilt: what was built is dropped");
            if let Err(error) = shadow.abandon().await {
                tracing::warn!(%error, "what was built is left over: it is dropped by the next rebuild");
            }
        }
        built
    }

    async fn build<T: Fn(RebuildProgress) + Send + Sync>(
        &self,
        shadow: &mut S::Shadow,
        way: &Way<'_, Self, T>,
        cancel: &Stop,
    ) -> Result<(), RebuildError> {
        let mut at = Places::new();
        let mut rotation = Rotation::default();
        let all = self.live().await?;
        way.say(Phase::Building, &at, &all);
        self.follow(shadow, &mut at, &mut rotation, way, Phase::Building, cancel).await?;
        way.say(Phase::Indexing, &at, &self.live().await?);
        match select(pin!(cancel.given()), pin!(shadow.index())).await {
            Either::Left(_) => return Err(RebuildError::Cancelled),
            Either::Right((indexed, _)) => indexed?,
        }
        for _ in 0..ROUNDS {
            if cancel.is_given() {
                return Err(RebuildError::Cancelled);
            }
            let live = self.live().await?;
            way.say(Phase::CatchingUp, &at, &live);
            if count(&live).saturating_sub(count(&at)) > NEARLY {
                self.follow(shadow, &mut at, &mut rotation, way, Phase::CatchingUp, cancel).await?;
            } else if self.swap(shadow, &mut at, &mut rotation, cancel).await? {
                way.say(Phase::Swapped, &at, &at);
                return Ok(());
            } else {
                self.environment.sleep(BACKOFF.1).await;
            }
        }
        let reason = "others read or write the read models all the time: try again when there is less to do";
        Err(PortError::Unavailable(reason.to_owned()).into())
    }

    /// Does the rest while nothing moves, and swaps. `false`: somebody reads who cannot be interrupted; the rest is done
    /// all the same.
    async fn swap(
        &self,
        shadow: &mut S::Shadow,
        at: &mut Places,
        rotation: &mut Rotation,
        cancel: &Stop,
    ) -> Result<bool, RebuildError> {
        let partitions: Vec<Partition> = self.partitions.all().collect();
        let live: Places = shadow.hold(&partitions).await?.into_iter().collect();
        while let Some(next) = self.next(at, &live, rotation, cancel).await? {
            shadow.apply(next.steps).await?;
            *at = next.at;
        }
        for (partition, live) in &live {
            let built = at.get(partition).copied().unwrap_or_default();
            if built != *live {
                return Err(RebuildError::Astray(format!(
                    "it has another record at sequence {} of partition {partition}",
                    live.sequence
                )));
            }
        }
        if cancel.is_given() {
            return Err(RebuildError::Cancelled);
        }
        Ok(shadow.swap().await?)
    }

    /// Folds until it has nearly come to where the live ones are. The next records are read and decoded while the last
    /// ones are written.
    async fn follow<T: Fn(RebuildProgress) + Send + Sync>(
        &self,
        shadow: &mut S::Shadow,
        at: &mut Places,
        rotation: &mut Rotation,
        way: &Way<'_, Self, T>,
        phase: Phase,
        cancel: &Stop,
    ) -> Result<(), RebuildError> {
        let mut live = self.live().await?;
        let mut ready = self.next(at, &live, rotation, cancel).await?;
        while let Some(Next { steps, at: reached }) = ready.take() {
            if cancel.is_given() {
                return Err(RebuildError::Cancelled);
            }
            let reading = async {
                live = self.live().await?;
                self.next(&reached, &live, rotation, cancel).await
            };
            let (applied, next) = join(shadow.apply(steps), reading).await;
            applied?;
            ready = next?;
            *at = reached;
            way.say(phase, at, &live);
        }
        Ok(())
    }

    /// Where the live read models stand.
    async fn live(&self) -> PortResult<Places> {
        let all: Vec<Partition> = self.partitions.all().collect();
        Ok(self.store.checkpoints(&all).await?.into_iter().collect())
    }

    /// What comes next, of what the live ones have folded. `None`: nothing does.
    async fn next(
        &self,
        at: &Places,
        live: &Places,
        rotation: &mut Rotation,
        cancel: &Stop,
    ) -> Result<Option<Next>, RebuildError> {
        let mut reached = at.clone();
        let mut found: Vec<Arc<Record>> = Vec::new();
        let mut behind = behind(&reached, live);
        while found.len() < BATCH && !behind.is_empty() {
            let records =
                self.read(&reached, rotation.turn(behind), (BATCH - found.len()).min(READ), cancel).await?;
            let before = found.len();
            found.extend(records.into_iter().filter(|record| {
                let end = live.get(&record.partition).copied().unwrap_or_default();
                record.sequence <= end.sequence
            }));
            for record in found.iter().skip(before) {
                let place = Projected { sequence: record.sequence, record_id: Some(record.record_id) };
                reached.insert(record.partition, place);
            }
            behind = self::behind(&reached, live);
        }
        if found.is_empty() {
            return Ok(None);
        }
        let steps = self.project(at, found).await?;
        Ok(Some(Next { steps, at: reached }))
    }

    /// At least one record, of partitions that have more.
    async fn read(
        &self,
        at: &Places,
        after: Vec<(Partition, Sequence)>,
        limit: usize,
        cancel: &Stop,
    ) -> Result<Vec<Arc<Record>>, RebuildError> {
        let (mut proven, mut pause) = (true, BACKOFF.0);
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            if cancel.is_given() {
                return Err(RebuildError::Cancelled);
            }
            if !proven {
                tracing::debug!(%why, "the rebuild waits for the bus");
                self.environment.sleep(pause).await;
                pause = pause.saturating_mul(2).min(BACKOFF.1);
                proven = self.prove(at).await?;
            }
            if proven {
                match self.bus.read(&after, limit).await {
                    Ok(records) if !records.is_empty() => return Ok(records),
                    Ok(_) => "the bus ends before the read models do".clone_into(&mut why),
                    Err(PortError::Unavailable(reason)) => why = reason,
                    Err(error) => return Err(error.into()),
                }
                // Behind a connection that was made anew may be another bus.
                proven = false;
            }
        }
        Err(PortError::Unavailable(why).into())
    }

    /// Compares what was folded with the bus, as the projector does. `false`: the bus does not answer.
    async fn prove(&self, at: &Places) -> Result<bool, RebuildError> {
        for (partition, place) in at {
            match standing(&self.bus, *partition, *place).await {
                Ok(Standing::Here) => {}
                Ok(Standing::Ahead) | Err(PortError::Unavailable(_)) => return Ok(false),
                Ok(standing @ Standing::Astray) => {
                    return Err(RebuildError::Astray(standing.say(*partition, *place)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn project(
        &self,
        at: &Places,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<ProjectionStep>, RebuildError> {
        let mut steps = Vec::new();
        let broken = |trouble: Trouble| PortError::Broken(trouble.to_string());
        for (partition, records) in by_partition(records) {
            let from = at.get(&partition).copied().unwrap_or_default().sequence;
            gap_free(partition, from, &records).map_err(broken)?;
            let mut changes = Vec::with_capacity(records.len().saturating_mul(2));
            for some in records.chunks(AT_ONCE) {
                for record in some {
                    let entry = record.entry::<M>().map_err(|error| {
                        PortError::Broken(format!("record {} cannot be read: {error}", record.position()))
                    })?;
                    changes.extend(self.projection.project(record, &entry));
                }
                let_others_run().await;
            }
            if let Some(last) = records.last() {
                let checkpoint = CheckpointMove { partition, from, to: last.sequence };
                steps.push(ProjectionStep { checkpoint, record_id: last.record_id, changes });
            }
        }
        Ok(steps)
    }
}

/// What is written next, and where that leads to.
struct Next {
    steps: Vec<ProjectionStep>,
    at: Places,
}

/// The partitions that are behind the live ones, and where they are.
fn behind(at: &Places, live: &Places) -> Vec<(Partition, Sequence)> {
    let place = |partition: &Partition| at.get(partition).copied().unwrap_or_default().sequence;
    live.iter()
        .map(|(partition, live)| (*partition, place(partition), live.sequence))
        .filter(|(_, at, live)| at < live)
        .map(|(partition, at, _)| (partition, at))
        .collect()
}

fn count(places: &Places) -> u64 {
    places.values().map(|place| place.sequence.get()).fold(0, u64::saturating_add)
}

/// Tells how far a rebuild has come.
struct Way<'a, R, T> {
    tell: T,
    began: Timestamp,
    rebuild: &'a R,
}

impl<M, P, B, S, E, T> Way<'_, Rebuild<M, P, B, S, E>, T>
where
    E: Environment,
    T: Fn(RebuildProgress) + Send + Sync,
{
    fn say(&self, phase: Phase, at: &Places, live: &Places) {
        let micros = self.rebuild.environment.now().as_micros().saturating_sub(self.began.as_micros());
        (self.tell)(RebuildProgress {
            phase,
            partitions: self.rebuild.partitions,
            done: count(at),
            all: count(live),
            elapsed: Duration::from_micros(micros),
        });
    }
}

/// Gives way once: whoever else can run may run first.
async fn let_others_run() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Once(false).await;
}
