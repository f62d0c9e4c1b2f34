//! The rebuild: read models built anew from the bus, beside those that are read.
//!
//! The rule this module protects: whoever reads sees all of the old ones or all of the new ones. What is built follows the
//! live ones and never overtakes them; it takes their place only while they are held and stand at the same records, so the
//! projector goes on from where it stood, and notices nothing.
//!
//! # Layout
//!
//! - `mod.rs`: the way from the first record to the swap
//! - [`told`]: what whoever asked is told of it
//! - [`ahead`]: what comes next: read from the bus, and projected

mod ahead;
mod told;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join, select};

use crate::environment::{Environment, Stop, Timestamp};
use crate::model::{Model, Projection};
use crate::partition::{Partition, PartitionCount};
use crate::ports::{EventBus, PortError, PortResult, Projected, ReadModels};
use crate::rotation::Rotation;
use crate::shadow::{Rebuildable, Shadow};

use ahead::Next;
pub use told::{Phase, RebuildError, RebuildProgress, Rebuilds, RunningRebuild};

/// With no more records than this to go, the live ones are held and the rest is done.
const NEARLY: u64 = 1024;

/// How often it is tried to come that near and to swap, with a second in between where somebody reads in a long transaction.
const ROUNDS: u32 = 100;

/// The first and the longest pause before something is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

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
