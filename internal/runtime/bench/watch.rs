//! Who waits for what the saga does, and the one stream of facts that tells them.
//!
//! The rule this module protects: every financing is followed to its last fact, for the price of one stream: to ask for each of
//! them would cost more than the financing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tokio::sync::oneshot;
use tonic::Streaming;

use crate::api::proto::financing::v1::{CloudEvent, LogPosition, WatchFactsRequest, WatchFactsResponse};
use crate::runtime::client::ClientError;

use super::target::{Target, position};

/// How a bid ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has won.
    Won,
    /// It was rejected.
    Lost,
}

/// A financing that somebody waits for.
struct Waiting {
    answered: Option<oneshot::Sender<Answer>>,
    settled: Option<oneshot::Sender<String>>,
    released: Option<String>,
    committed: Option<String>,
}

/// What is to be received of a financing.
pub(super) struct Expected {
    /// How its bid ended.
    pub(super) answered: oneshot::Receiver<Answer>,
    /// The excess is released and the asking price committed: the token of both facts.
    pub(super) settled: oneshot::Receiver<String>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<String, Waiting>,
    /// The last fact of each partition.
    seen: BTreeMap<u32, u64>,
}

/// All who wait, by invoice.
#[derive(Default)]
pub(super) struct Watch(Mutex<State>);

/// Of the data of the two facts of an investor that settle a financing.
#[derive(Deserialize)]
struct Moved {
    invoice_id: String,
    kind: Option<String>,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody waits for this invoice. To be said before its bid is placed.
    pub(super) fn expect(&self, invoice_id: &str) -> Expected {
        let (answered, when_answered) = oneshot::channel();
        let (settled, when_settled) = oneshot::channel();
        let waiting =
            Waiting { answered: Some(answered), settled: Some(settled), released: None, committed: None };
        self.state().waiting.insert(invoice_id.to_owned(), waiting);
        Expected { answered: when_answered, settled: when_settled }
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, invoice_id: &str) {
        self.state().waiting.remove(invoice_id);
    }

    /// The token of all that was seen.
    pub(super) fn token(&self) -> String {
        let state = self.state();
        let tokens = state.seen.iter().map(|(partition, sequence)| format!("{partition}-{sequence}"));
        tokens.collect::<Vec<_>>().join(",")
    }

    /// A fact has come.
    fn learn(&self, fact: &CloudEvent) -> Result<(), ClientError> {
        let mut state = self.state();
        if let Some(LogPosition { partition, sequence }) = position(&fact.id) {
            state.seen.insert(partition, sequence);
        }
        let subject = || fact.subject.strip_prefix("invoice/").unwrap_or_default();
        match fact.r#type.as_str() {
            "financing.v1.InvoiceFinanced" => state.answered(subject(), Answer::Won),
            "financing.v1.BidOnInvoiceRejected" => state.answered(subject(), Answer::Lost),
            "financing.v1.InvestorFundsReleased" => {
                let moved = moved(fact)?;
                if moved.kind.as_deref() == Some("EXCESS") {
                    state.settled(&moved.invoice_id, |waiting| waiting.released = Some(fact.id.clone()));
                }
            }
            "financing.v1.InvestorFundsCommitted" => {
                let moved = moved(fact)?;
                state.settled(&moved.invoice_id, |waiting| waiting.committed = Some(fact.id.clone()));
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn answered(&mut self, invoice_id: &str, answer: Answer) {
        let sender = self.waiting.get_mut(invoice_id).and_then(|waiting| waiting.answered.take());
        if let Some(sender) = sender {
            // Who gave up waiting does not hear it.
            let _gone = sender.send(answer);
        }
    }

    fn settled(&mut self, invoice_id: &str, note: impl FnOnce(&mut Waiting)) {
        let Some(waiting) = self.waiting.get_mut(invoice_id) else { return };
        note(waiting);
        if let (Some(released), Some(committed)) = (&waiting.released, &waiting.committed) {
            let token = format!("{released},{committed}");
            if let Some(sender) = waiting.settled.take() {
                let _gone = sender.send(token);
            }
            self.waiting.remove(invoice_id);
        }
    }
}

fn moved(fact: &CloudEvent) -> Result<Moved, ClientError> {
    serde_json::from_str(&fact.data)
        .map_err(|error| ClientError::Failed(format!("the fact {} cannot be read: {error}", fact.id)))
}

/// Begins to watch what happens from now on.
pub(super) async fn open(target: &Target) -> Result<Streaming<WatchFactsResponse>, ClientError> {
    let request = WatchFactsRequest { after: target.begin.clone(), from_end: false };
    Ok(target.queries(0).watch_facts(request).await?.into_inner())
}

/// Tells who waits, for as long as the stream lasts: it has no end of its own.
pub(super) async fn tell(watch: &Watch, mut facts: Streaming<WatchFactsResponse>) -> ClientError {
    loop {
        match facts.message().await {
            Ok(Some(WatchFactsResponse { fact: Some(fact), .. })) => {
                if let Err(error) = watch.learn(&fact) {
                    return error;
                }
            }
            Ok(Some(WatchFactsResponse { fact: None, .. })) => {}
            Ok(None) => return ClientError::Failed("the stream of facts has ended".to_owned()),
            Err(status) => return status.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(id: &str, event: &str, subject: &str, data: &str) -> CloudEvent {
        CloudEvent {
            id: id.to_owned(),
            r#type: format!("financing.v1.{event}"),
            subject: subject.to_owned(),
            data: data.to_owned(),
            ..CloudEvent::default()
        }
    }

    #[test]
    fn a_financing_is_settled_by_two_facts_in_either_order() {
        let released =
            || fact("3-7", "InvestorFundsReleased", "investor/a", r#"{"invoice_id":"i","kind":"EXCESS"}"#);
        let committed = || fact("3-9", "InvestorFundsCommitted", "investor/a", r#"{"invoice_id":"i"}"#);
        for facts in [[released(), committed()], [committed(), released()]] {
            let watch = Watch::default();
            let mut expected = watch.expect("i");
            watch.learn(&fact("1-4", "InvoiceFinanced", "invoice/i", "{}")).unwrap();
            assert_eq!(expected.answered.try_recv(), Ok(Answer::Won));
            watch.learn(&facts[0]).unwrap();
            assert!(expected.settled.try_recv().is_err(), "one of the two is not enough");
            watch.learn(&facts[1]).unwrap();
            assert_eq!(expected.settled.try_recv().as_deref(), Ok("3-7,3-9"));
        }
    }

    #[test]
    fn a_return_settles_nothing_and_a_rejection_is_an_answer() {
        let watch = Watch::default();
        let mut expected = watch.expect("i");
        let data = r#"{"invoice_id":"i","kind":"RETURN"}"#;
        watch.learn(&fact("3-7", "InvestorFundsReleased", "investor/a", data)).unwrap();
        watch.learn(&fact("3-8", "InvestorFundsCommitted", "investor/a", r#"{"invoice_id":"i"}"#)).unwrap();
        assert!(expected.settled.try_recv().is_err());
        watch.learn(&fact("1-4", "BidOnInvoiceRejected", "invoice/i", "{}")).unwrap();
        assert_eq!(expected.answered.try_recv(), Ok(Answer::Lost));
        assert_eq!(watch.token(), "1-4,3-8", "the last of every partition");
    }
}
