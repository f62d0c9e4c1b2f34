//! Where dead letters are found, and what is to be done about them.
//!
//! The rule this module protects: what is known of a dead letter is what the log, the inbox and the dead letters of other
//! contexts say at this moment. Nothing is remembered here, so any process may answer.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use uuid::Uuid;

use crate::command::Envelope;
use crate::importer::{Translate, Translated};
use crate::model::{AggregateRef, Model};
use crate::mutants::{Mutant, chance, planted};
use crate::outcome::{Fingerprint, Outcome};
use crate::partition::{LogPosition, PartitionCount};
use crate::ports::{
    DeadCommands, DeadQuery, EventBus, EventLog, ForeignLetter, ForeignLetters, InboxEntry, LoadRequest,
    PortError, PortResult,
};
use crate::record::{DeadData, Record};

use super::order::Order;
use super::{
    Content, Discard, ForeignPlace, Letter, LetterState, Place, Unresolved, discard_fingerprint, is_discard,
    resolution_id,
};

/// Letters that are read at once.
const BATCH: usize = 256;

/// Which dead letters are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<LetterState>,
    /// Only those of commands for this aggregate.
    pub target: Option<AggregateRef>,
}

/// What is to be done about a letter.
#[derive(Debug, Clone)]
pub enum Resolve {
    /// This command is to be queued.
    Queue(Box<Envelope>),
    /// It was done before: that is what became of it.
    Done(Outcome),
}

/// The dead letters of a platform.
pub struct Letters<M, T, L, F, B> {
    translate: T,
    log: L,
    foreign: F,
    bus: B,
    partitions: PartitionCount,
    model: PhantomData<fn() -> M>,
}

impl<M, T, L, F, B> Letters<M, T, L, F, B>
where
    M: Model,
    T: Translate<M>,
    L: EventLog + DeadCommands,
    F: ForeignLetters,
    B: EventBus,
{
    /// The dead letters in this log, and those of other contexts. The bus is where others read what became of them.
    pub fn new(translate: T, log: L, foreign: F, bus: B, partitions: PartitionCount) -> Self {
        Self { translate, log, foreign, bus, partitions, model: PhantomData }
    }

    /// The letters behind a place, at most so many, and whether there are more behind them. What another context sent comes
    /// without its payload, which may be large: [`get`](Self::get) has it.
    ///
    /// # Errors
    ///
    /// When a store gives no answer.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<Place>,
        limit: usize,
    ) -> PortResult<(Vec<Letter>, bool)> {
        let (mut after, mut found) = (after, Vec::new());
        while found.len() <= limit {
            let letters = self.read(filter.target.as_ref(), after).await?;
            let Some(last) = letters.last() else { break };
            after = Some(last.place());
            let asked = |letter: &Letter| filter.state.is_none_or(|state| state == letter.state);
            found.extend(letters.into_iter().filter(asked).map(without_payload));
        }
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// The next letters behind a place, whatever their state; none: there are no more.
    async fn read(&self, target: Option<&AggregateRef>, after: Option<Place>) -> PortResult<Vec<Letter>> {
        let (in_log, foreign) = match after {
            None => (Some(None), 0),
            Some(Place::Command(position)) => (Some(Some(position)), 0),
            Some(Place::Foreign(number)) => (None, number),
        };
        if let Some(after) = in_log {
            let query = DeadQuery { after, aggregate: target.cloned(), limit: BATCH, ..DeadQuery::default() };
            let records = self.log.dead(&query).await?;
            if !records.is_empty() {
                return self.settle(records.into_iter().map(command).collect()).await;
            }
        }
        if target.is_some() {
            return Ok(Vec::new());
        }
        let letters = self.foreign.foreign(foreign, BATCH).await?;
        self.settle(letters.into_iter().map(Content::Foreign).collect()).await
    }

    /// The letter with this id.
    ///
    /// # Errors
    ///
    /// When a store gives no answer.
    pub async fn get(&self, id: Uuid) -> PortResult<Option<Letter>> {
        let query = DeadQuery { record_id: Some(id), limit: 1, ..DeadQuery::default() };
        if let Some(record) = self.log.dead(&query).await?.pop() {
            return Ok(self.settle(vec![command(record)]).await?.pop());
        }
        let mut after = 0;
        loop {
            let letters = self.foreign.foreign(after, BATCH).await?;
            let Some(last) = letters.last() else { return Ok(None) };
            after = last.number;
            if let Some(letter) = letters.into_iter().find(|letter| foreign_id(letter) == id) {
                return Ok(self.settle(vec![Content::Foreign(letter)]).await?.pop());
            }
        }
    }

    /// The last record of what became of a letter: who did it, and when.
    ///
    /// # Errors
    ///
    /// When the log gives no answer.
    pub async fn resolution(&self, letter: &Letter) -> PortResult<Option<Arc<Record>>> {
        let Some(outcome) = &letter.outcome else { return Ok(None) };
        let LogPosition { partition, sequence } = outcome.position;
        Ok(self.log.read(&[(partition, sequence.before())], 1).await?.pop())
    }

    /// Finds out what became of the letters.
    async fn settle(&self, contents: Vec<Content>) -> PortResult<Vec<Letter>> {
        let named: Vec<(Uuid, Option<Imported>, Content)> = contents
            .into_iter()
            .map(|content| match &content {
                Content::Command(record, _) | Content::Unreadable(record, _) => {
                    Ok((record.record_id, None, content))
                }
                Content::Foreign(letter) => Ok((foreign_id(letter), self.import(letter)?, content)),
            })
            .collect::<PortResult<_>>()?;
        let resolutions = |(id, imported, _): &(Uuid, Option<Imported>, Content)| {
            std::iter::once(resolution_id(*id)).chain(imported.map(|imported| imported.command_id))
        };
        let commands = named.iter().flat_map(resolutions).collect();
        let loaded = self.log.load(&LoadRequest { commands, ..LoadRequest::default() }).await?;
        let inbox: HashMap<Uuid, InboxEntry> =
            loaded.inbox.into_iter().map(|entry| (entry.outcome.command_id, entry)).collect();
        let letter = |(id, imported, content)| {
            let (state, outcome) = became(id, &content, imported, &inbox);
            Letter { id, content, state, outcome: outcome.cloned() }
        };
        Ok(named.into_iter().map(letter).collect())
    }

    /// The command that a message of another context is by now, whoever imports it.
    fn import(&self, letter: &ForeignLetter) -> PortResult<Option<Imported>> {
        let Translated::Command { id, command, .. } = self.translated(letter) else { return Ok(None) };
        let bytes = serde_json::to_vec(&command).map_err(|error| PortError::Broken(error.to_string()))?;
        Ok(Some(Imported { command_id: id, fingerprint: Fingerprint::of(&bytes) }))
    }

    fn translated(&self, letter: &ForeignLetter) -> Translated<M::Command> {
        if letter.whole {
            return self.translate.translate(&letter.message.subject, &letter.message.payload);
        }
        Translated::Malformed("not all of it was kept, and the whole of it is gone".to_owned())
    }

    /// What is to be done to retry a letter.
    ///
    /// # Errors
    ///
    /// See [`Unresolved`].
    pub async fn retry(&self, id: Uuid) -> Result<Resolve, Unresolved> {
        let letter = self.get(id).await?.ok_or(Unresolved::Unknown)?;
        match (letter.state, &letter.outcome) {
            (LetterState::Discarded, _) => return Err(Unresolved::AlreadyDiscarded),
            (LetterState::Retried, Some(outcome)) => return Ok(Resolve::Done(outcome.clone())),
            (LetterState::Retried | LetterState::Open, _) => {}
        }
        let envelope = match &letter.content {
            Content::Command(record, data) => self.again(record, data).await?,
            Content::Unreadable(_, what) => {
                return Err(Unresolved::NotRetryable(format!("it cannot be read: {what}")));
            }
            Content::Foreign(letter) => self.imported(letter)?,
        };
        Ok(Resolve::Queue(Box::new(envelope)))
    }

    /// The dead command, once more. What was no command when it died stays none, whatever this release could read in it: who
    /// sent it, under which id and to which saga, was lost with it.
    async fn again(&self, record: &Record, data: &DeadData) -> Result<Envelope, Unresolved> {
        if is_discard(data) {
            let reason = "it was to discard another dead letter: discard this one, too".to_owned();
            return Err(Unresolved::NotRetryable(reason));
        }
        let Some(command) = data.command.clone() else {
            return Err(Unresolved::NotRetryable(
                "it is no command: whoever sent it sends it again".to_owned(),
            ));
        };
        // Whom it is for it says itself, where this release understands it.
        let typed = serde_json::from_str::<M::Command>(command.get()).ok();
        let mut command_id = resolution_id(record.record_id);
        if planted(Mutant::RetryIdNotDerived) {
            command_id = Uuid::new_v5(&command_id, &chance().to_be_bytes());
        }
        let envelope = Envelope {
            command_id,
            correlation_id: record.correlation_id,
            causation_id: record.record_id,
            actor: record.actor.clone(),
            traceparent: record.traceparent.clone(),
            reply_to: None,
            target: typed.as_ref().map_or_else(|| record.aggregate.clone(), M::target),
            discards: None,
            command,
        };
        if let Some(earlier) = self.earlier(record).await?
            && !planted(Mutant::RetryOutOfOrder)
        {
            return Err(Unresolved::Earlier(earlier));
        }
        if envelope.partition(self.partitions) != record.partition && !self.is_relayed(record).await? {
            return Err(Unresolved::NotRelayed);
        }
        Ok(envelope)
    }

    /// The message of another context, imported once more.
    fn imported(&self, letter: &ForeignLetter) -> Result<Envelope, Unresolved> {
        match self.translated(letter) {
            Translated::Command { id, actor, traceparent, command } => {
                let mut envelope = Envelope::first::<M>(id, actor, &command)?;
                envelope.traceparent = traceparent;
                Ok(envelope)
            }
            Translated::Ignored => Err(Unresolved::NotRetryable("it is not for us".to_owned())),
            Translated::Malformed(reason) => Err(Unresolved::NotRetryable(reason)),
        }
    }

    /// What is to be done to discard a letter.
    ///
    /// # Errors
    ///
    /// See [`Unresolved`].
    pub async fn discard(&self, id: Uuid, actor: String, reason: String) -> Result<Resolve, Unresolved> {
        let letter = self.get(id).await?.ok_or(Unresolved::Unknown)?;
        match (letter.state, &letter.outcome) {
            (LetterState::Retried, _) => return Err(Unresolved::AlreadyRetried),
            (LetterState::Discarded, Some(outcome)) => return Ok(Resolve::Done(outcome.clone())),
            (LetterState::Discarded | LetterState::Open, _) => {}
        }
        let envelope = |discard: Discard, command_id, target, cause: Option<(Uuid, Uuid)>| {
            let (correlation_id, causation_id) = cause.unwrap_or((command_id, command_id));
            Ok(Resolve::Queue(Box::new(Envelope {
                command_id,
                correlation_id,
                causation_id,
                actor,
                traceparent: None,
                reply_to: None,
                target,
                command: discard.command()?,
                discards: Some(discard),
            })))
        };
        match &letter.content {
            Content::Command(record, _) | Content::Unreadable(record, _) => {
                let discard = Discard { letter_id: id, partition: record.partition, reason, foreign: None };
                let cause = Some((record.correlation_id, record.record_id));
                let other = || Uuid::new_v5(&id, b"discard");
                let command_id =
                    if planted(Mutant::DiscardUnderAnotherId) { other() } else { resolution_id(id) };
                envelope(discard, command_id, record.aggregate.clone(), cause)
            }
            Content::Foreign(letter) => {
                // Under the id that importing it would have: whichever comes first keeps the other from happening.
                let command_id = match self.translated(letter) {
                    Translated::Command { id, .. } => id,
                    Translated::Ignored | Translated::Malformed(_) => resolution_id(id),
                };
                let foreign = Some(ForeignPlace::from(letter.position));
                let partition = self.partitions.partition_of(id);
                let discard = Discard { letter_id: id, partition, reason, foreign };
                envelope(discard, command_id, AggregateRef::new("foreign", id), None)
            }
        }
    }

    /// Whether others can have seen the record.
    async fn is_relayed(&self, record: &Record) -> PortResult<bool> {
        if planted(Mutant::RetryBeforeItsCause) {
            return Ok(true);
        }
        let tails = self.bus.tails(&[record.partition]).await?;
        Ok(tails.iter().any(|tail| tail.partition == record.partition && tail.last >= record.sequence))
    }

    /// An open letter of the same aggregate whose command came before.
    async fn earlier(&self, record: &Record) -> PortResult<Option<Uuid>> {
        let mut missing = Vec::new();
        loop {
            let order = self.order(&record.aggregate).await?;
            // Letters are found first, and what became of them later: one may have died again in between.
            let now = order.missing();
            if now.is_empty() || now == missing {
                return Ok(order.before(record));
            }
            missing = now;
        }
    }

    async fn order(&self, aggregate: &AggregateRef) -> PortResult<Order> {
        let (mut order, mut after) = (Order::default(), None);
        loop {
            let read = self.read(Some(aggregate), after).await?;
            let Some(last) = read.last() else { return Ok(order) };
            after = Some(last.place());
            for letter in &read {
                order.take_in(letter);
            }
        }
    }
}

/// The command that a message of another context is.
#[derive(Clone, Copy)]
struct Imported {
    command_id: Uuid,
    fingerprint: Fingerprint,
}

/// What became of a letter.
///
/// A message of another context may have been discarded under the letter's own id, by a release that did not understand it, and
/// under its command's, by one that did: either way it is discarded for every release. And what stands under its command's id and
/// is not that command is the discard of a copy of it.
fn became<'a>(
    id: Uuid,
    content: &Content,
    imported: Option<Imported>,
    inbox: &'a HashMap<Uuid, InboxEntry>,
) -> (LetterState, Option<&'a Outcome>) {
    let own = inbox.get(&resolution_id(id)).map(|entry| match content {
        Content::Command(..) | Content::Unreadable(..) if entry.fingerprint != discard_fingerprint(id) => {
            (LetterState::Retried, entry)
        }
        Content::Command(..) | Content::Unreadable(..) | Content::Foreign(_) => {
            (LetterState::Discarded, entry)
        }
    });
    let found = own.or_else(|| {
        let Imported { command_id, fingerprint } = imported?;
        let entry = inbox.get(&command_id)?;
        let is_command = entry.fingerprint == fingerprint;
        Some((if is_command { LetterState::Retried } else { LetterState::Discarded }, entry))
    });
    found.map_or((LetterState::Open, None), |(state, entry)| (state, Some(&entry.outcome)))
}

fn without_payload(mut letter: Letter) -> Letter {
    if let Content::Foreign(foreign) = &mut letter.content {
        foreign.message.payload = Arc::from([]);
    }
    letter
}

fn foreign_id(letter: &ForeignLetter) -> Uuid {
    ForeignPlace::from(letter.position).letter_id()
}

/// What a record says. One that cannot be read is a letter all the same, and hides no other.
fn command(record: Arc<Record>) -> Content {
    match record.dead_letter() {
        Ok(Some(data)) => Content::Command(record, data),
        Ok(None) => Content::Unreadable(record, "it is no dead letter".to_owned()),
        Err(error) => Content::Unreadable(record, error.to_string()),
    }
}
