//! Carrying a distributed platform's log away, and the streams that a person throws away.
//!
//! The rule this module protects: a log is carried away when nothing but the log has anything to say: no command waits in the
//! queue, and no message of another context waits to be imported. What stays behind all the same is said.

use std::collections::BTreeMap;

use clap::Subcommand;
use eventsourcing::command::unpack;
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{EventLog as _, ForeignPositions as _};
use eventsourcing::queue::{Waiting as _, prove};

use crate::nats::{Nats, NatsDepth, NatsQueue, Streams};
use crate::postgres::{PostgresExport, PostgresImport, PostgresLog};
use crate::runtime::client::ClientError;
use crate::runtime::settings::{CommandDatabase, NatsSettings};
use eventsourcing::transfer::Contents;

use super::{IMPORTER, POLICIES, connect, once, text};

/// What servers show of this process.
const NAME: &str = "financing export";

/// A log that is carried away, and what has to stay so meanwhile.
pub(in crate::runtime) struct Leaving {
    pub(in crate::runtime) source: PostgresExport,
    log: PostgresLog,
    nats: Nats,
    partitions: PartitionCount,
}

impl Leaving {
    /// Begins to carry a log away.
    ///
    /// # Errors
    ///
    /// When it cannot be read, processes run, or something waits that is not in the log.
    pub(in crate::runtime) async fn begin(
        database: &CommandDatabase,
        nats: &NatsSettings,
    ) -> Result<Self, String> {
        let connect = connect::log_database(database, NAME)?;
        let partitions = PostgresExport::partitions(&connect).await.map_err(text)?;
        let nats = once(nats, NAME).await?;
        let source = PostgresExport::open(&connect, POLICIES).await.map_err(text)?;
        // (All tables are there, or it had not been opened: nothing is made now.)
        let new = Deployment { partitions, ..source.contents().deployment };
        let log = PostgresLog::open(&connect, &new).await.map_err(text)?;
        let leaving = Self { source, log, nats, partitions };
        leaving.nothing_waits().await?;
        Ok(leaving)
    }

    /// Fails when something waits that only a stream has.
    ///
    /// # Errors
    ///
    /// With what it is, and what to do about it.
    pub(in crate::runtime) async fn nothing_waits(&self) -> Result<(), String> {
        let waiting = self.commands_waiting().await?;
        if waiting > 0 {
            return Err(format!(
                "{waiting} commands or bundles of commands were accepted and have no outcome yet: only the command queue has them, \
                 and it is not exported. Start everything but the listeners, wait until `commandsd` has worked them off, stop it \
                 all, and export then"
            ));
        }
        let position = self.log.position(IMPORTER).await.map_err(text)?;
        let behind = self.nats.not_imported(position).await.map_err(text)?;
        if behind > 0 {
            return Err(format!(
                "{behind} messages of other contexts in REGISTERING are not imported yet, and REGISTERING is not exported. Stop \
                 those who publish there, start `commandsd --policies` and the others, wait, stop it all, and export then"
            ));
        }
        Ok(())
    }

    /// Fails when the log has grown since it was begun to be carried away: what was added is in no file and in no queue.
    ///
    /// # Errors
    ///
    /// With the partition that has grown, and what to do about it.
    pub(in crate::runtime) async fn unchanged(&self) -> Result<(), String> {
        let all: Vec<Partition> = self.partitions.all().collect();
        let heads: BTreeMap<Partition, Sequence> =
            self.source.contents().shares.iter().map(|share| (share.partition, share.head)).collect();
        for (partition, row) in self.log.rows(&all).await.map_err(text)? {
            let exported = heads.get(&partition).copied().unwrap_or_default();
            if row.head != exported {
                return Err(format!(
                    "partition {partition} grew from {exported} to {} records meanwhile: a worker runs. Stop all processes, and \
                     export again",
                    row.head
                ));
            }
        }
        Ok(())
    }

    async fn commands_waiting(&self) -> Result<u64, String> {
        let all: Vec<Partition> = self.partitions.all().collect();
        let rows = self.log.rows(&all).await.map_err(text)?;
        let behind: Vec<_> = rows.iter().map(|(partition, row)| (*partition, row.position)).collect();
        let begun = behind.iter().any(|(_, position)| position.is_some());
        if !begun && self.nats.queued_messages().await.map_err(text)?.is_none() {
            // Nobody has ever sent a command here.
            return Ok(0);
        }
        let queue = NatsQueue::new(&self.nats);
        let mut waiting: u64 = 0;
        for (partition, position) in &behind {
            let Some(position) = position else { continue };
            // What is counted behind a position counts only in the queue that the position is of.
            let message = prove(&queue, *partition, *position).await.map_err(text)?;
            let all = unpack(*partition, message.message, &message.payload).len() as u64;
            waiting = waiting.saturating_add(all.saturating_sub(u64::from(position.index).saturating_add(1)));
        }
        let depth = NatsDepth::new(&self.nats).depth(&behind).await.map_err(text)?;
        Ok(waiting.saturating_add(depth.messages))
    }

    /// What stays behind, for whoever has to know.
    ///
    /// # Errors
    ///
    /// When NATS does not answer.
    pub(in crate::runtime) async fn stays_behind(&self) -> Result<Vec<String>, String> {
        let letters = self.nats.foreign_letters().await.map_err(text)?;
        Ok(match letters {
            0 => Vec::new(),
            letters => vec![format!(
                "{letters} malformed messages of other contexts stay in DEAD: see `financing dead list` before this NATS goes"
            )],
        })
    }
}

/// Begins to bring a log into a database, in front of a NATS that has nothing of another platform.
///
/// # Errors
///
/// When one of them has something already, or cannot be reached.
pub(in crate::runtime) async fn arrive(
    database: &CommandDatabase,
    nats: &NatsSettings,
    contents: &Contents,
) -> Result<PostgresImport, String> {
    const NAME: &str = "financing import";
    let connect = connect::log_database(database, NAME)?;
    let nats = once(nats, NAME).await?;
    let bus = nats.events_deployment().await.map_err(text)?;
    let queued = nats.queued_messages().await.map_err(text)?;
    match bus {
        // Policies and workers would go on from what it has, which may be of after the export, or of another way that this log went.
        Some(bus) if bus.id == contents.deployment.id => {
            return Err("this NATS has streams of this platform from before, and nobody knows whether they fit what is imported: name a \
                        NATS without them, or remove COMMANDS and all EVENTS_<p> there (`nats stream rm`) and import again"
                .to_owned());
        }
        Some(bus) => {
            return Err(format!(
                "the bus on this NATS belongs to deployment {}, and what is imported to {}: name a NATS without streams of another \
                 platform",
                bus.id, contents.deployment.id
            ));
        }
        None if queued.unwrap_or_default() == 0 => {}
        None => {
            return Err("COMMANDS on this NATS has commands, and nobody knows whose: name a NATS without streams of another \
                        platform"
                .to_owned());
        }
    }
    PostgresImport::begin(&connect, contents, POLICIES).await.map_err(text)
}

/// What can be done about the event bus.
#[derive(Debug, Clone, Subcommand)]
pub enum BusCommand {
    /// Throw the bus away, after the event log was restored to an earlier state: the relayer makes it anew
    #[command(
        long_about = "Throw the bus away, after the event log was restored to an earlier state: the streams EVENTS_<p> with all that \
                      is in them. The relayer makes them anew from the log, with the same sequences.\n\nA relayer that finds on the bus \
                      what the log does not have halts, because somebody has to decide which of the two is right. This decides for \
                      the log: the facts that only the bus has are given up. Stop all processes first, and build the read models \
                      anew afterwards: they have seen these facts."
    )]
    Discard {
        /// Where the event log is
        #[command(flatten)]
        database: CommandDatabase,
        /// How to reach NATS
        #[command(flatten)]
        nats: Box<NatsSettings>,
    },
}

/// Does what there is to do about the bus.
///
/// # Errors
///
/// When NATS or the event log cannot be reached.
pub async fn bus(command: BusCommand) -> Result<String, ClientError> {
    const NAME: &str = "financing bus";
    let BusCommand::Discard { database, nats } = command;
    let discard = async {
        let connect = connect::log_database(&database, NAME)?;
        let partitions = PostgresExport::partitions(&connect).await.map_err(text)?;
        let nats = once(&nats, NAME).await?;
        let messages = nats.discard_events(&Streams::of(partitions)).await.map_err(text)?;
        Ok(format!(
            "{messages} messages of {partitions} partitions are gone: the relayer makes the bus anew\n"
        ))
    };
    discard.await.map_err(ClientError::Failed)
}
