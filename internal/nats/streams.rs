//! The streams: created by the platform, read back, and compared.
//!
//! The rule this module protects: nobody reads or writes a stream that may drop, reorder or repeat what is in it. What is
//! missing is created, by however many processes at once; what is there and different is refused, by name and by field.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use eventsourcing::partition::{Deployment, Partition, PartitionCount};
use eventsourcing::ports::{PortError, PortResult};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::compare::{Wanted, compare};
use super::connect::Nats;
use super::error::{NatsError, api_error, create_error};

/// The command queue's stream.
pub(super) const COMMANDS: &str = "COMMANDS";
/// Other contexts' events.
pub(super) const REGISTERING: &str = "REGISTERING";
/// What nobody could do anything with.
pub(super) const DEAD: &str = "DEAD";
/// The subjects of REGISTERING.
pub(super) const REGISTERING_SUBJECTS: &str = "registering.events.>";

/// Metadata of streams.
const PARTITIONS: &str = "partitions";
const DEPLOYMENT: &str = "deployment";
const DEPLOYED_AT: &str = "deployment_created_at";

/// The stream of a partition's facts.
pub(super) fn events(partition: Partition) -> String {
    format!("EVENTS_{partition}")
}

/// Its subjects.
pub(super) fn event_subjects(partition: Partition) -> String {
    format!("financing.events.{partition}.>")
}

/// The subject of a partition's commands.
pub(super) fn command_subject(partition: Partition) -> String {
    format!("financing.commands.{partition}")
}

/// How streams are created, and what they are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// How many partitions the deployment has.
    pub partitions: PartitionCount,
    /// The deployment, where it is known: the relayer has it from the log.
    pub deployment: Option<Deployment>,
    /// Copies of each stream, in a cluster. Only for creating: an operator may change it.
    pub replicas: usize,
    /// For how long `EVENTS_<p>` and REGISTERING know a message id again. Only for creating.
    pub duplicate_window: Duration,
    /// The most bytes of commands without an outcome that COMMANDS holds, before it refuses more. The server sets
    /// them aside, and does not create the stream where it has less. Only for creating.
    pub commands_max_bytes: u64,
}

impl Streams {
    /// For this many partitions, with one copy of everything.
    #[must_use]
    pub const fn of(partitions: PartitionCount) -> Self {
        Self {
            partitions,
            deployment: None,
            replicas: 1,
            duplicate_window: Duration::from_mins(2),
            commands_max_bytes: 1024 * 1024 * 1024,
        }
    }

    /// What all streams have in common: everything is kept, on disk, and what does not fit is refused.
    fn wanted(&self, name: &str, subjects: &str, more: Value) -> Wanted {
        let window = u64::try_from(self.duplicate_window.as_nanos()).unwrap_or(u64::MAX);
        let mut config: Map<String, Value> = Map::new();
        let common = json!({
            "name": name,
            "subjects": [subjects],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "max_age": 0,
            "num_replicas": self.replicas,
            "duplicate_window": window,
            "allow_direct": true,
        });
        for part in [common, more] {
            if let Value::Object(part) = part {
                config.extend(part);
            }
        }
        Wanted { name: name.to_owned(), config }
    }

    /// Acknowledged is on disk: the queue is the only place that has a command.
    fn commands(&self) -> Wanted {
        let more = json!({
            "description": "commands without an outcome; purged behind the committed positions",
            "max_bytes": self.commands_max_bytes,
            "metadata": { PARTITIONS: self.partitions.to_string() },
        });
        self.wanted(COMMANDS, &command_subject_of_all(), more)
    }

    fn registering(&self) -> Wanted {
        self.wanted(REGISTERING, REGISTERING_SUBJECTS, json!({"description": "other contexts' events"}))
    }

    fn dead(&self) -> Wanted {
        self.wanted(DEAD, "financing.dead.>", json!({"description": "dead letters, for people"}))
    }

    /// One server may flush later: a tail that is lost is published again from the log, with the same numbers.
    fn facts(&self, partition: Partition) -> Wanted {
        let mut metadata = Map::from_iter([(PARTITIONS.to_owned(), json!(self.partitions.to_string()))]);
        if let Some(deployment) = self.deployment {
            metadata.insert(DEPLOYMENT.to_owned(), json!(deployment.id.to_string()));
            metadata.insert(DEPLOYED_AT.to_owned(), json!(deployment.created_at.to_string()));
        }
        let persist_mode = if self.replicas == 1 { "async" } else { "default" };
        let more = json!({
            "description": "the facts of one partition; message n is fact n",
            "deny_delete": true,
            "deny_purge": true,
            "persist_mode": persist_mode,
            "metadata": metadata,
        });
        self.wanted(&events(partition), &event_subjects(partition), more)
    }
}

fn command_subject_of_all() -> String {
    "financing.commands.*".to_owned()
}

impl Nats {
    /// Makes sure of COMMANDS, REGISTERING and DEAD.
    ///
    /// # Errors
    ///
    /// When one is there and is not what it has to be; when it cannot be created.
    pub async fn ensure_queues(&self, streams: &Streams) -> Result<(), NatsError> {
        for wanted in [streams.commands(), streams.registering(), streams.dead()] {
            self.ensure(&wanted).await?;
        }
        Ok(())
    }

    /// Makes sure of REGISTERING alone: for whoever only publishes there.
    ///
    /// # Errors
    ///
    /// As [`Self::ensure_queues`].
    pub async fn ensure_registering(&self, streams: &Streams) -> Result<(), NatsError> {
        self.ensure(&streams.registering()).await
    }

    /// Makes sure of `EVENTS_<p>`, of all partitions. For the relayer, which knows the deployment.
    ///
    /// # Errors
    ///
    /// As [`Self::ensure_queues`].
    pub async fn ensure_events(&self, streams: &Streams) -> Result<(), NatsError> {
        if streams.deployment.is_none() {
            return Err(NatsError::Settings("only who knows the deployment creates EVENTS".to_owned()));
        }
        let mut partitions: Vec<Partition> = streams.partitions.all().collect();
        // The first one comes last: where it is, all are.
        partitions.reverse();
        for partition in partitions {
            self.ensure_event_stream(streams, partition).await?;
        }
        Ok(())
    }

    pub(super) async fn ensure_event_stream(
        &self,
        streams: &Streams,
        partition: Partition,
    ) -> Result<(), NatsError> {
        self.ensure(&streams.facts(partition)).await
    }

    /// Makes sure that COMMANDS is there and has this many partitions, without creating it: for who comes later.
    ///
    /// # Errors
    ///
    /// [`NatsError::Missing`] where it is not there yet; otherwise as [`Self::ensure_queues`].
    pub async fn check_queue(&self, streams: &Streams) -> Result<(), NatsError> {
        self.check(&streams.commands(), "the command side").await
    }

    /// Makes sure that `EVENTS_<p>` are there and what they have to be, without creating them: for readers.
    ///
    /// # Errors
    ///
    /// [`NatsError::Missing`] where one is not there yet; otherwise as [`Self::ensure_queues`].
    pub async fn check_events(&self, streams: &Streams) -> Result<(), NatsError> {
        for partition in streams.partitions.all() {
            self.check(&streams.facts(partition), "the relayer").await?;
        }
        Ok(())
    }

    /// The deployment that `EVENTS_<p>` belong to; `None` where they are not there yet.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or the stream was not created by the platform.
    pub async fn events_deployment(&self) -> Result<Option<Deployment>, NatsError> {
        let stream = events(Partition::from_index(0));
        let Some(info) = self.stream_info(&stream).await? else { return Ok(None) };
        let found = |field: &str| {
            let text = info.pointer(&format!("/config/metadata/{field}")).and_then(Value::as_str);
            text.ok_or_else(|| foreign(&stream, field))
        };
        let id: Uuid = found(DEPLOYMENT)?.parse().map_err(|_| foreign(&stream, DEPLOYMENT))?;
        let created_at = found(DEPLOYED_AT)?.parse().map_err(|_| foreign(&stream, DEPLOYED_AT))?;
        let partitions = found(PARTITIONS)?.parse().ok().and_then(PartitionCount::new);
        let partitions = partitions.ok_or_else(|| foreign(&stream, PARTITIONS))?;
        Ok(Some(Deployment { id, partitions, created_at }))
    }

    /// Creates what is not there. Whoever else does the same at the same time asks for the same, and the server makes it
    /// once; whatever is there in the end is read back.
    async fn ensure(&self, wanted: &Wanted) -> Result<(), NatsError> {
        if self.stream_info(&wanted.name).await?.is_none() {
            self.create(wanted).await?;
        }
        let found = self.stream_info(&wanted.name).await?;
        let found = found.ok_or_else(|| NatsError::Unavailable(format!("{} is gone again", wanted.name)))?;
        compare(wanted, &found)?;
        let (kept, asked) = (kept_on(&found), wanted.replicas());
        if kept < asked {
            tracing::warn!(
                stream = wanted.name,
                "it was made with {kept} copies, and {asked} are asked for: a person has to change that"
            );
        }
        Ok(())
    }

    async fn check(&self, wanted: &Wanted, creator: &'static str) -> Result<(), NatsError> {
        let missing = || NatsError::Missing { stream: wanted.name.clone(), creator };
        let found = self.stream_info(&wanted.name).await?.ok_or_else(missing)?;
        compare(wanted, &found)
    }

    async fn create(&self, wanted: &Wanted) -> Result<(), NatsError> {
        let subject = format!("STREAM.CREATE.{}", wanted.name);
        match self.request::<Value>(&subject, &wanted.config).await? {
            Ok(_) => {
                tracing::info!(stream = wanted.name, "created a stream");
                Ok(())
            }
            // Another process was faster; what it created is compared like any other.
            Err(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
            Err(error) if error.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
                Err(NatsError::Mismatch {
                    stream: wanted.name.clone(),
                    field: "subjects".to_owned(),
                    found: "another stream's".to_owned(),
                    asked: wanted.config.get("subjects").map(Value::to_string).unwrap_or_default(),
                })
            }
            Err(error) => Err(create_error(&wanted.name, &error)),
        }
    }

    /// What the server says of a stream; `None` where there is none.
    pub(super) async fn stream_info(&self, stream: &str) -> PortResult<Option<Value>> {
        match self.request::<Value>(&format!("STREAM.INFO.{stream}"), &()).await? {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(api_error(stream, &error)),
        }
    }
}

fn foreign(stream: &str, field: &str) -> NatsError {
    NatsError::Mismatch {
        stream: stream.to_owned(),
        field: format!("metadata.{field}"),
        found: "nothing that can be read".to_owned(),
        asked: "what the relayer writes there".to_owned(),
    }
}

/// On how many servers a stream is kept.
pub(super) async fn replicas(nats: &Nats, stream: &str) -> PortResult<u64> {
    let info = nats.stream_info(stream).await?;
    let info = info.ok_or_else(|| PortError::Unavailable(super::error::missing(stream)))?;
    Ok(kept_on(&info))
}

fn kept_on(info: &Value) -> u64 {
    info.pointer("/config/num_replicas").and_then(Value::as_u64).unwrap_or(1)
}

/// When a stream was created, in microseconds since the Unix epoch.
pub(super) async fn created_at(nats: &Nats, stream: &str) -> PortResult<u64> {
    let info = nats.stream_info(stream).await?;
    let info = info.ok_or_else(|| PortError::Unavailable(super::error::missing(stream)))?;
    let created = info.get("created").and_then(Value::as_str).and_then(super::time::parse);
    created.ok_or_else(|| PortError::Broken(format!("the server does not say when {stream} was created")))
}
