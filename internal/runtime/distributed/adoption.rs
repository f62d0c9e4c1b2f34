//! Going on with a command queue that is not the one that was lost.
//!
//! The rule this module protects: what only a person may decide is done in one way, whether it is asked for through the door of a
//! process or done without one.

use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::{PortError, PortResult};
use eventsourcing::queue::adopt;

use crate::api::admin::QueueAdmin;
use crate::api::proto::financing::v1::AdoptQueueRequest;
use crate::api::proto::financing::v1::queue_admin_service_client::QueueAdminServiceClient;
use crate::nats::{Nats, Streams};
use crate::postgres::PostgresLog;
use crate::runtime::client::{ClientError, connect, timed};

use super::{IMPORTER, POLICIES};

/// Makes the streams that are missing, and accepts what is there; answers with where everybody stood.
pub(super) async fn adopt_queue(
    log: &PostgresLog,
    nats: &Nats,
    streams: &Streams,
    partitions: PartitionCount,
) -> PortResult<String> {
    let made = nats.ensure_queues(streams).await;
    made.map_err(|error| {
        let reason = error.to_string();
        if error.retryable() { PortError::Unavailable(reason) } else { PortError::Broken(reason) }
    })?;
    Ok(adopt(log, log, log, partitions, POLICIES, IMPORTER).await?.to_string())
}

/// The queue, through the door of a process that has the event log.
pub(super) struct QueueDoor {
    pub(super) log: PostgresLog,
    pub(super) nats: Nats,
    pub(super) streams: Streams,
    pub(super) partitions: PartitionCount,
    pub(super) policies_run: bool,
}

impl QueueAdmin for QueueDoor {
    fn policies_run(&self) -> bool {
        self.policies_run
    }

    async fn adopt(&self) -> PortResult<String> {
        adopt_queue(&self.log, &self.nats, &self.streams, self.partitions).await
    }
}

/// Asks a process to adopt the queue.
pub(super) async fn ask(address: &str) -> Result<String, ClientError> {
    let mut door = QueueAdminServiceClient::new(connect(address).await?);
    let answer = door.adopt_queue(timed(AdoptQueueRequest {})).await?.into_inner();
    Ok(format!("{}\n", answer.summary))
}
