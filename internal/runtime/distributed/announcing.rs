//! Waking those in other processes who wait for a commit.
//!
//! The rule this module protects: who waits for something is told at once; but nothing depends on being told, because
//! everybody looks by itself as well. So these are told after the commit, and nobody waits until they were.

use std::sync::Arc;

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{
    Beyond, Commit, EventLog, Follows, LoadRequest, Loaded, PartitionCommit, PartitionRow, PortResult,
    Projected, ProjectionStep, RankedQuery, ReadModels, Row, RowQuery,
};
use eventsourcing::record::Record;
use uuid::Uuid;

use crate::nats::{Nats, Wake};

/// A store whose commits are announced.
#[derive(Clone)]
pub(super) struct Announcing<S> {
    store: S,
    nats: Nats,
}

impl<S> Announcing<S> {
    pub(super) const fn new(store: S, nats: Nats) -> Self {
        Self { store, nats }
    }
}

impl<L: EventLog> EventLog for Announcing<L> {
    async fn take_over(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        self.store.take_over(partitions).await
    }

    async fn rows(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        self.store.rows(partitions).await
    }

    async fn load(&self, request: &LoadRequest) -> PortResult<Loaded> {
        self.store.load(request).await
    }

    async fn commit(&self, parts: Vec<PartitionCommit>) -> PortResult<Vec<Commit>> {
        let answers = self.store.commit(parts).await;
        // Also where the answer was lost: then it may have happened.
        self.nats.ring(Wake::Committed);
        answers
    }

    async fn forget_queue(&self, partitions: &[Partition]) -> PortResult<()> {
        self.store.forget_queue(partitions).await
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        self.store.read(after, limit).await
    }

    async fn beyond(&self, ends: &[Follows], limit: usize) -> PortResult<Beyond> {
        self.store.beyond(ends, limit).await
    }
}

impl<S: ReadModels> ReadModels for Announcing<S> {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        self.store.checkpoints(partitions).await
    }

    async fn apply(&self, steps: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        let answers = self.store.apply(steps).await;
        self.nats.ring(Wake::Projected);
        answers
    }

    async fn row(&self, table: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        self.store.row(table, key).await
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        self.store.rows(query).await
    }

    async fn ranked(&self, query: &RankedQuery) -> PortResult<Vec<Row>> {
        self.store.ranked(query).await
    }
}
