//! Watching the facts as they come, and checking their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tonic::Streaming;
use tonic::transport::Channel;

use super::client::issuer_registered;
use super::platform::Platform;
use super::proto::query_service_client::QueryServiceClient;
use super::proto::{CloudEvent, WatchFactsRequest, WatchFactsResponse};
use super::words::{in_time, uuid};

/// A fact, or an outcome, as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) data: serde_json::Value,
    pub(crate) event: CloudEvent,
}

impl Seen {
    /// An extension attribute.
    #[track_caller]
    pub(crate) fn extension(&self, name: &str) -> &str {
        self.event.extensions.get(name).unwrap_or_else(|| panic!("{name} in {:?}", self.event))
    }

    /// A field of the data that holds text.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_else(|| panic!("{field} in {}", self.data))
    }

    /// What to present to a query that must have seen this: the same as the event's id.
    pub(crate) fn token(&self) -> &str {
        &self.event.id
    }

    /// When it was recorded, in microseconds since the Unix epoch.
    pub(crate) fn recorded_at(&self) -> u64 {
        let time = self.event.time.expect("a time");
        u64::try_from(time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)).unwrap()
    }

    /// Whose fact it is, and exactly what it says.
    #[track_caller]
    pub(crate) fn says(&self, subject: &str, data: &serde_json::Value) {
        assert_eq!(self.event.subject, subject, "{}", self.name);
        assert_eq!(self.data, *data, "{}", self.name);
    }

    #[track_caller]
    fn is_a_cloud_event(&self) {
        let event = &self.event;
        assert_eq!((event.source.as_str(), event.spec_version.as_str()), ("/financing", "1.0"));
        assert_eq!(event.data_content_type, "application/json");
        assert!(event.time.is_some_and(|time| time.seconds > 1_700_000_000), "{:?}", event.time);
        assert_eq!(event.id, format!("{}-{}", self.extension("partition"), self.extension("sequence")));
        let outcome_only = self.name.starts_with("Command") || self.name == "DeadLetterDiscarded";
        assert_eq!(event.extensions.contains_key("aggregateversion"), !outcome_only, "{event:?}");
        for known in ["recordid", "schemaversion", "commandid", "causationid", "actor", "commandlast"] {
            assert!(!self.extension(known).is_empty(), "{known} in {event:?}");
        }
    }
}

/// The stream of all facts. Checks of every partition that nothing is skipped and nothing comes twice, of every
/// aggregate that its versions are without gaps, and of every fact that its cause came before it.
///
/// That is all the order there is: what one command has brought about and what another has may come in any order, also when the
/// client waited for the one before it sent the other, because they may be in partitions that are read apart. So facts are claimed
/// here by what they are, and those that came early stay until they are.
pub(crate) struct Facts {
    stream: Streaming<WatchFactsResponse>,
    /// What came and was not claimed yet, oldest first.
    early: VecDeque<Seen>,
    records: BTreeSet<String>,
    sequences: BTreeMap<u32, u64>,
    versions: BTreeMap<String, u64>,
}

impl Facts {
    pub(crate) async fn watch(mut queries: QueryServiceClient<Channel>) -> Self {
        let stream = queries.watch_facts(WatchFactsRequest::default()).await.unwrap().into_inner();
        Self {
            stream,
            early: VecDeque::new(),
            records: BTreeSet::new(),
            sequences: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    /// The next fact that nobody claimed.
    pub(crate) async fn next(&mut self) -> Seen {
        match self.early.pop_front() {
            Some(seen) => seen,
            None => self.read().await,
        }
    }

    /// The first fact that is the one meant; the others wait until they are.
    async fn claim(&mut self, what: &str, is_meant: impl Fn(&Seen) -> bool) -> Seen {
        if let Some(seen) = self.early.iter().position(&is_meant).and_then(|at| self.early.remove(at)) {
            return seen;
        }
        loop {
            // Far more than any test brings about before it claims: what is missed is told with what came in its place.
            assert!(self.early.len() < 100, "{what}, and there are {:?}", self.early);
            let seen = self.read().await;
            if is_meant(&seen) {
                return seen;
            }
            self.early.push_back(seen);
        }
    }

    async fn read(&mut self) -> Seen {
        let answer = in_time("the next fact", self.stream.message()).await.unwrap();
        let answer = answer.expect("the stream does not end");
        let (event, position) = (answer.fact.unwrap(), answer.position.unwrap());
        let last = self.sequences.insert(position.partition, position.sequence).unwrap_or(0);
        assert_eq!(position.sequence, last + 1, "partition {} in order, without gaps", position.partition);
        assert_eq!(event.id, format!("{}-{}", position.partition, position.sequence));
        let name = event.r#type.strip_prefix("financing.v1.").expect("a fact of ours").to_owned();
        let seen = Seen { name, data: serde_json::from_str(&event.data).unwrap(), event };
        seen.is_a_cloud_event();
        if let Some(version) = seen.event.extensions.get("aggregateversion") {
            let before = self.versions.insert(seen.event.subject.clone(), version.parse().unwrap());
            assert_eq!(version.parse(), Ok(before.unwrap_or(0) + 1), "version of {}", seen.event.subject);
        }
        let cause = seen.extension("causationid");
        assert!(
            cause == seen.extension("commandid") || self.records.contains(cause),
            "before its cause: {seen:?}"
        );
        assert!(
            self.records.insert(seen.extension("recordid").to_owned()),
            "a record id is unique: {seen:?}"
        );
        seen
    }

    /// There are facts of these names: the first of each that nobody claimed.
    pub(crate) async fn given<const N: usize>(&mut self, names: [&str; N]) -> [Seen; N] {
        let mut facts = Vec::with_capacity(N);
        for name in names {
            facts.push(self.claim(name, |seen| seen.name == name).await);
        }
        facts.try_into().expect("as many as there are names")
    }

    /// The facts of the saga that this client's command began have these names, in this order, and follow from each other.
    pub(crate) async fn saga<const N: usize>(&mut self, command_id: &str, names: [&str; N]) -> [Seen; N] {
        let mut facts = Vec::with_capacity(N);
        for name in names {
            let seen = self.claim(name, |seen| seen.extension("correlationid") == command_id).await;
            let before = facts.iter().map(name_of).collect::<Vec<_>>();
            assert_eq!(seen.name, name, "after {before:?}: {seen:?}");
            facts.push(seen);
        }
        let mut causes = BTreeSet::from([command_id]);
        for fact in &facts {
            let cause = fact.extension("causationid");
            assert!(causes.contains(cause), "{} follows from a fact before it", fact.name);
            let is_the_clients = fact.extension("commandid") == command_id;
            assert_eq!(cause == command_id, is_the_clients, "the direct cause of {}", fact.name);
            causes.insert(fact.extension("recordid"));
        }
        facts.try_into().expect("as many as there are names")
    }

    /// The first record that nobody claimed of those that name this one as their direct cause.
    pub(crate) async fn caused_by(&mut self, record_id: &str) -> Seen {
        self.claim("what follows", |seen| seen.extension("causationid") == record_id).await
    }

    /// Reads on until a fact of this name with this text in a field.
    pub(crate) async fn until(&mut self, name: &str, field: &str, text: &str) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.name == name && seen.text(field) == text {
                return seen;
            }
        }
    }

    /// Nothing else has happened: every fact was claimed, and the next one is brought about here.
    pub(crate) async fn nothing_else(&mut self, platform: &Platform) {
        assert!(self.early.is_empty(), "nothing else: {:?}", self.early);
        let marker = uuid();
        platform.register(issuer_registered(&marker, "Marker")).await;
        let seen = self.next().await;
        assert_eq!(seen.event.subject, format!("issuer/{marker}"), "nothing else: {seen:?}");
    }
}

fn name_of(seen: &Seen) -> &str {
    &seen.name
}
