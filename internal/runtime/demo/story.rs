//! The sagas as they happen: one line a fact, in names that a person can remember.
//!
//! The rule this module protects: every fact of the demo is told, in the order of the stream, under what it follows from; and nothing
//! that others do meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eventsourcing::environment::Environment;
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::sync::oneshot;
use tonic::Status;

use crate::api::proto::financing::v1::{CloudEvent, Money, WatchFactsResponse};
use crate::runtime::client::ClientError;
use crate::runtime::shell::watch::seconds;
use crate::runtime::shell::{money, say, text};
use crate::runtime::terminal::{Terminal, Tone};

use super::plan::{Offer, Plan, Step, command_id};

/// How long it is waited for what has to come, where nothing of this demo comes: it was told in an earlier run.
const SILENCE: Duration = Duration::from_secs(1);

/// How long it is waited for what has to come at all.
const LONGEST: Duration = Duration::from_secs(30);

/// What must have been told at the end: of which bid or command, and that its money moved for the excess, or for good; or that it
/// was refused.
pub(super) type Ending = (String, &'static str);

/// The excess of a winning bid is back.
pub(super) const EXCESS: &str = "EXCESS";
/// The bid's money is where it belongs.
pub(super) const SETTLED: &str = "SETTLED";
/// The command was refused.
pub(super) const REFUSED: &str = "REFUSED";

/// Who and what everything is.
#[derive(Debug, Default)]
struct Names {
    issuers: BTreeMap<String, &'static str>,
    investors: BTreeMap<String, &'static str>,
    invoices: BTreeMap<String, String>,
    /// What a command that may be refused asks for: of which invoice, and in words.
    commands: BTreeMap<String, (String, String)>,
}

impl Names {
    fn of(plan: &Plan) -> Self {
        let mut names = Self::default();
        names.issuers.extend(plan.issuers.iter().map(|party| (party.id.to_string(), party.name)));
        names.investors.extend(plan.investors.iter().map(|party| (party.id.to_string(), party.name)));
        let (stray, nowhere) = &plan.stray;
        names.invoices.insert(nowhere.to_string(), "#?".to_owned());
        names.bid(plan, "#?", stray);
        for lot in &plan.lots {
            let label = format!("#{}", lot.number);
            let issuer = plan.issuers.get(lot.issuer).map_or("somebody", |party| party.name);
            names.invoices.insert(lot.invoice_id().to_string(), label.clone());
            let mut means = |request, words: String| {
                names.commands.insert(command_id(request).to_string(), (label.clone(), words));
            };
            means(lot.request, format!("{issuer} sells it"));
            for step in &lot.steps {
                match step {
                    Step::Approve(request) => means(*request, format!("{issuer} approves")),
                    Step::Reverse(request) => means(*request, format!("{issuer} reverses")),
                    Step::ApproveAgain(request) => means(*request, format!("{issuer} approves once more")),
                    Step::ReverseAfterwards(request) => {
                        means(*request, format!("{issuer} reverses after all"));
                    }
                    Step::Win(_) | Step::Lose(..) | Step::Race(_) | Step::Twice(_) | Step::Overdraw(_) => {}
                }
            }
            for step in &lot.steps {
                match step {
                    Step::Win(offer) | Step::Lose(offer, _) | Step::Twice(offer) | Step::Overdraw(offer) => {
                        names.bid(plan, &label, offer);
                    }
                    Step::Race(offers) => offers.iter().for_each(|offer| names.bid(plan, &label, offer)),
                    Step::Approve(_)
                    | Step::Reverse(_)
                    | Step::ApproveAgain(_)
                    | Step::ReverseAfterwards(_) => {}
                }
            }
        }
        names
    }

    fn bid(&mut self, plan: &Plan, label: &str, offer: &Offer) {
        let investor = plan.investors.get(offer.investor).map_or("somebody", |party| party.name);
        let words = format!("{investor} bids {} EUR", super::sheet::shown(offer.cents.into()));
        self.commands.insert(command_id(offer.request).to_string(), (label.to_owned(), words));
    }
}

/// The stream of facts, and what was told of it.
pub(super) struct Story<F> {
    facts: F,
    names: Names,
    /// `None`: nothing is printed.
    terminal: Option<Terminal>,
    /// When the first fact was recorded, in microseconds since the Unix epoch.
    began: Option<u64>,
    /// How far every fact is from the command that it follows from.
    depths: BTreeMap<String, usize>,
    told: BTreeSet<Ending>,
    lines: usize,
}

/// What is told of a fact.
struct Telling {
    label: String,
    words: String,
    tone: Option<Tone>,
}

impl<F: Stream<Item = Result<WatchFactsResponse, Status>> + Unpin> Story<F> {
    /// Of this plan, out of a stream that began before it.
    pub(super) fn of(plan: &Plan, facts: F, terminal: Option<Terminal>) -> Self {
        Self {
            facts,
            names: Names::of(plan),
            terminal,
            began: None,
            depths: BTreeMap::new(),
            told: BTreeSet::new(),
            lines: 0,
        }
    }

    /// Tells what comes until these endings were told; answers with how many facts it has told.
    ///
    /// # Errors
    ///
    /// When the stream ends, or nothing can be printed.
    pub(super) async fn tell(
        mut self,
        environment: &impl Environment,
        ended: oneshot::Receiver<BTreeSet<Ending>>,
    ) -> Result<usize, ClientError> {
        let mut ended = std::pin::pin!(ended);
        let endings = loop {
            tokio::select! {
                biased;
                endings = &mut ended => match endings {
                    Ok(endings) => break endings,
                    // Whoever drives the market has failed, and says so.
                    Err(_) => return Ok(self.lines),
                },
                fact = self.facts.next() => {
                    self.hear(fact)?;
                }
            }
        };
        let mut silence = std::pin::pin!(environment.sleep(SILENCE));
        let mut longest = std::pin::pin!(environment.sleep(LONGEST));
        while !endings.is_subset(&self.told) {
            // However much others do: the clocks are looked at first.
            tokio::select! {
                biased;
                () = &mut silence => break,
                () = &mut longest => break,
                fact = self.facts.next() => if self.hear(fact)? {
                    silence.set(environment.sleep(SILENCE));
                },
            }
        }
        Ok(self.lines)
    }

    /// Answers with whether it is told, because it is of this demo.
    fn hear(&mut self, answer: Option<Result<WatchFactsResponse, Status>>) -> Result<bool, ClientError> {
        let fact = answer.transpose()?.and_then(|answer| answer.fact);
        let fact =
            fact.ok_or_else(|| ClientError::Failed("the platform has ended the stream of facts".to_owned()))?;
        let unreadable = |error| ClientError::Failed(format!("fact {}: {error}", fact.id));
        let data: Value = serde_json::from_str(&fact.data).map_err(unreadable)?;
        let Some(telling) = self.telling(&fact, &data) else { return Ok(false) };
        let extension = |name: &str| fact.extensions.get(name).map(String::as_str).unwrap_or_default();
        let depth = self.depths.get(extension("causationid")).map_or(0, |depth| depth + 1);
        self.depths.insert(extension("recordid").to_owned(), depth);
        self.told.extend(ending(&fact, &data));
        self.lines += 1;
        let recorded = recorded_at(&fact);
        let began = *self.began.get_or_insert(recorded);
        if let Some(terminal) = self.terminal {
            say(&line(terminal, recorded.saturating_sub(began), depth, &telling))?;
        }
        Ok(true)
    }

    /// What is told of a fact; `None` for what others do.
    fn telling(&self, fact: &CloudEvent, data: &Value) -> Option<Telling> {
        let of = |field: &str| data.get(field).and_then(Value::as_str).unwrap_or_default();
        let amount = |field: &str| data.get(field).map(readable).unwrap_or_default();
        let investor = || self.names.investors.get(of("investor_id")).copied().unwrap_or("somebody");
        let issuer = || self.names.issuers.get(of("issuer_id")).copied().unwrap_or("somebody");
        let name = fact.r#type.rsplit('.').next().unwrap_or_default();
        let about = |words: String, tone| {
            let label = self.names.invoices.get(of("invoice_id"))?.clone();
            Some(Telling { label, words, tone })
        };
        let party = |words: String| Some(Telling { label: String::new(), words, tone: None });
        let is_ours = |names: &BTreeMap<String, &str>, field: &str| names.contains_key(of(field));
        match name {
            "IssuerCreated" if is_ours(&self.names.issuers, "issuer_id") => {
                party(format!("{} registers", issuer()))
            }
            "InvestorCreated" if is_ours(&self.names.investors, "investor_id") => {
                party(format!("{} registers", investor()))
            }
            "InvestorFundsAdded" if is_ours(&self.names.investors, "investor_id") => {
                party(format!("{} opens with {}", investor(), amount("amount")))
            }
            "InvoiceCreated" => {
                about(format!("{} asks {}", issuer(), amount("asking_price")), Some(Tone::Strong))
            }
            "BidOnInvoicePlaced" => {
                about(format!("{} bids {}, which are reserved", investor(), amount("amount")), None)
            }
            "InvoiceFinanced" => about(format!("{} wins", investor()), Some(Tone::Pending)),
            "BidOnInvoiceRejected" => {
                about(format!("{} loses: {}", investor(), of("reason")), Some(Tone::Bad))
            }
            "InvestorFundsReleased" => {
                let why = match of("kind") {
                    "EXCESS" => " that were too much",
                    "RETURN" => ", the asking price,",
                    _ => "",
                };
                let go = format!("{}{why} go back to {}", amount("amount"), investor());
                about(go, (of("kind") != EXCESS).then_some(Tone::Bad))
            }
            "InvoiceApproved" => about(format!("{} approves", issuer()), Some(Tone::Good)),
            "InvestorFundsCommitted" => {
                about(format!("{} of {} are committed", amount("amount"), investor()), Some(Tone::Good))
            }
            "InvoiceReversed" => about(format!("{} reverses", issuer()), Some(Tone::Bad)),
            "CommandRefused" | "CommandDead" => self.refused(fact, of("reason")),
            _ => None,
        }
    }

    /// What is told of a command that came to nothing.
    fn refused(&self, fact: &CloudEvent, reason: &str) -> Option<Telling> {
        let saga = fact.extensions.get("correlationid")?;
        let (label, words) = self.names.commands.get(saga)?;
        let is_the_clients = fact.extensions.get("commandid") == Some(saga);
        let words =
            if is_the_clients { format!("{words}: refused, {reason}") } else { format!("refused: {reason}") };
        Some(Telling { label: label.clone(), words, tone: Some(Tone::Bad) })
    }
}

/// What the fact ends.
fn ending(fact: &CloudEvent, data: &Value) -> Option<Ending> {
    let of = |field: &str| data.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    match fact.r#type.rsplit('.').next().unwrap_or_default() {
        "InvestorFundsCommitted" => of("bid_id").map(|bid| (bid, SETTLED)),
        "InvestorFundsReleased" => {
            let is_excess = of("kind").is_some_and(|kind| kind == EXCESS);
            of("bid_id").map(|bid| (bid, if is_excess { EXCESS } else { SETTLED }))
        }
        "CommandRefused" => fact.extensions.get("commandid").map(|command| (command.clone(), REFUSED)),
        _ => None,
    }
}

/// Microseconds since the Unix epoch.
fn recorded_at(fact: &CloudEvent) -> u64 {
    let Some(time) = &fact.time else { return 0 };
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.nanos / 1000).unwrap_or_default())
}

/// An amount in a fact's data.
fn readable(amount: &Value) -> String {
    let number = |field: &str| amount.get(field).and_then(Value::as_i64).unwrap_or_default();
    let currency_code = amount.get("currency_code").and_then(Value::as_str).unwrap_or_default().to_owned();
    let nanos = i32::try_from(number("nanos")).unwrap_or_default();
    money::shown(&Money { currency_code, units: number("units"), nanos })
}

fn line(terminal: Terminal, since: u64, depth: usize, telling: &Telling) -> String {
    let time = text::right(&format!("+{}", seconds(since)), 9);
    let Telling { label, words, tone } = telling;
    let branch = if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) };
    let words = tone.map_or_else(|| words.clone(), |tone| terminal.paint(tone, words));
    format!(
        "{}  {}  {}{words}\n",
        terminal.paint(Tone::Quiet, &time),
        text::left(label, 4),
        terminal.paint(Tone::Quiet, &branch)
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Poll;

    use eventsourcing::environment::Timestamp;
    use futures_util::stream;
    use uuid::Uuid;

    use super::*;

    /// A clock that goes on with every fact that is heard, and with nothing else.
    #[derive(Debug, Clone, Default)]
    struct Clock(Arc<AtomicU64>);

    impl Clock {
        fn millis(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Environment for Clock {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.millis() * 1000)
        }

        fn uuid(&self) -> Uuid {
            Uuid::nil()
        }

        fn random(&self) -> u64 {
            0
        }

        fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
            let clock = self.clone();
            let due = self.millis() + u64::try_from(duration.as_millis()).unwrap();
            poll_fn(move |context| {
                context.waker().wake_by_ref();
                if clock.millis() < due { Poll::Pending } else { Poll::Ready(()) }
            })
        }
    }

    fn fact(event: &str, data: &Value) -> CloudEvent {
        CloudEvent { r#type: format!("financing.{event}"), data: data.to_string(), ..CloudEvent::default() }
    }

    fn somebodys() -> CloudEvent {
        fact("IssuerCreated", &serde_json::json!({ "issuer_id": Uuid::nil() }))
    }

    fn ours(plan: &Plan) -> CloudEvent {
        fact("IssuerCreated", &serde_json::json!({ "issuer_id": plan.issuers[0].id }))
    }

    /// What is told of facts that come so many milliseconds after each other, and when it was all told: after them the stream
    /// is broken.
    async fn told(plan: &Plan, facts: Vec<(u64, CloudEvent)>) -> (Result<usize, ClientError>, u64) {
        let (clock, (ended, ending)) = (Clock::default(), oneshot::channel());
        ended.send(BTreeSet::from([("bid".to_owned(), SETTLED)])).unwrap();
        let comes = clock.clone();
        let facts = stream::iter(facts).map(move |(after, fact)| {
            comes.0.fetch_add(after, Ordering::Relaxed);
            Ok(WatchFactsResponse { fact: Some(fact), ..WatchFactsResponse::default() })
        });
        (Story::of(plan, facts, None).tell(&clock, ending).await, clock.millis())
    }

    #[tokio::test]
    async fn what_others_do_is_silence() {
        let plan = Plan::of("spring", 12);
        let (told, millis) = told(&plan, vec![(100, somebodys()); 50]).await;
        assert_eq!((told.unwrap(), millis), (0, 1_000));
    }

    #[tokio::test]
    async fn what_is_ours_is_waited_for_after_every_fact_of_ours() {
        let plan = Plan::of("spring", 12);
        let settled = serde_json::json!({ "bid_id": "bid", "invoice_id": plan.lots[0].invoice_id() });
        let mut facts = vec![[(450, somebodys()), (450, ours(&plan))]; 5].concat();
        facts.push((900, fact("InvestorFundsCommitted", &settled)));
        facts.push((900, somebodys()));
        let (told, millis) = told(&plan, facts).await;
        assert_eq!((told.unwrap(), millis), (6, 5_400), "and no longer");
    }

    #[tokio::test]
    async fn nothing_is_waited_for_without_an_end() {
        let plan = Plan::of("spring", 12);
        let (told, millis) = told(&plan, vec![(500, ours(&plan)); 100]).await;
        assert_eq!((told.unwrap(), millis), (60, 30_000));
    }

    #[test]
    fn a_line_stands_under_what_it_follows_from() {
        let telling = Telling {
            label: "#3".to_owned(),
            words: "Investor 2 wins".to_owned(),
            tone: Some(Tone::Pending),
        };
        assert_eq!(
            line(Terminal::new(80, false), 12_345, 1, &telling),
            "  +0.012s  #3    └ Investor 2 wins\n"
        );
        let telling = Telling { label: String::new(), words: "Issuer A registers".to_owned(), tone: None };
        assert_eq!(line(Terminal::new(80, true), 0, 0, &telling).matches("Issuer A registers").count(), 1);
    }

    #[test]
    fn amounts_of_facts_are_exact() {
        let amount = serde_json::json!({ "currency_code": "EUR", "units": 300, "nanos": 500_000_000 });
        assert_eq!(readable(&amount), "300.50 EUR");
    }

    #[test]
    fn every_bid_and_every_decision_of_a_plan_has_a_name() {
        let plan = Plan::of("spring", 12);
        let names = Names::of(&plan);
        for offer in plan.offers() {
            let (_, words) = &names.commands[&command_id(offer.request).to_string()];
            assert!(words.contains(plan.investors[offer.investor].name), "{words}");
        }
        assert_eq!(names.invoices.len(), 13);
        assert!(
            names
                .commands
                .values()
                .any(|(_, words)| words == "Issuer A approves" || words == "Issuer B approves")
        );
    }
}
