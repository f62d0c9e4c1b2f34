//! Adding up the money and the outcomes of a whole log, from its facts alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::{Facts, Seen};
use super::platform::Platform;

/// What an investor has, in cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) added: i64,
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) committed: i64,
}

/// What the facts so far come to. Every fact that does not fit those before it fails the test.
pub(crate) struct Audit {
    facts: Facts,
    tokens: BTreeMap<String, String>,
    /// Every command's outcome: the name of its last record.
    pub(crate) outcomes: BTreeMap<String, String>,
    pub(crate) accounts: BTreeMap<String, Account>,
    /// When the last fact of each saga was recorded, in microseconds since the Unix epoch.
    recorded_at: BTreeMap<String, u64>,
    /// What is still reserved for each open bid.
    open: BTreeMap<String, i64>,
    placed: BTreeSet<String>,
    /// The bids that were answered: won or rejected.
    answered: BTreeMap<String, bool>,
    /// The invoices that wait for their issuer's word, with the winning bid.
    pub(crate) financed: BTreeMap<String, String>,
    /// What the winner of each approved invoice has to pay.
    owed: BTreeMap<String, i64>,
}

#[track_caller]
fn cents(money: &Value) -> i64 {
    let (units, nanos) = (money["units"].as_i64().unwrap(), money["nanos"].as_i64().unwrap());
    assert_eq!((money["currency_code"].as_str(), nanos % 10_000_000), (Some("EUR"), 0));
    units * 100 + nanos / 10_000_000
}

impl Audit {
    /// From the first fact on.
    pub(crate) async fn begin(platform: &Platform) -> Self {
        Self {
            facts: platform.all_facts().await,
            tokens: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            recorded_at: BTreeMap::new(),
            accounts: BTreeMap::new(),
            open: BTreeMap::new(),
            placed: BTreeSet::new(),
            answered: BTreeMap::new(),
            financed: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// Reads on until the facts so far are enough.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let seen = self.facts.next().await;
            self.take(&seen);
        }
    }

    /// What to present to a query that must have seen all of this.
    pub(crate) fn token(&self) -> String {
        self.tokens.values().cloned().collect::<Vec<_>>().join(",")
    }

    pub(crate) fn has_outcomes<'a>(&self, command_ids: impl IntoIterator<Item = &'a String>) -> bool {
        command_ids.into_iter().all(|id| self.outcomes.contains_key(id))
    }

    /// Whether it has got so far, in every partition.
    pub(crate) fn has_seen(&self, heads: &BTreeMap<u16, u64>) -> bool {
        heads.iter().all(|(partition, head)| {
            let token = self.tokens.get(&partition.to_string());
            let seen = token.and_then(|token| token.rsplit_once('-')).map_or("0", |(_, sequence)| sequence);
            seen.parse::<u64>().unwrap() >= *head
        })
    }

    /// The bids that have neither won nor lost so far.
    pub(crate) fn unanswered(&self) -> Vec<&String> {
        self.placed.iter().filter(|bid_id| !self.answered.contains_key(*bid_id)).collect()
    }

    /// The bids for which something is reserved although it is decided what becomes of it.
    pub(crate) fn unsettled(&self) -> Vec<&String> {
        let undecided: BTreeSet<&String> = self.financed.values().collect();
        self.open.keys().filter(|bid_id| !undecided.contains(*bid_id)).collect()
    }

    /// Whether every bid so far has won or lost.
    pub(crate) fn every_bid_is_answered(&self) -> bool {
        self.placed.len() == self.answered.len()
    }

    /// Whether nothing is reserved for any bid.
    pub(crate) fn no_bid_is_open(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn bids(&self) -> usize {
        self.placed.len()
    }

    pub(crate) fn winners(&self) -> usize {
        self.answered.values().filter(|won| **won).count()
    }

    /// When the last fact of the saga that this command began was recorded.
    pub(crate) fn last_fact_at(&self, command_id: &str) -> u64 {
        self.recorded_at[command_id]
    }

    fn take(&mut self, seen: &Seen) {
        self.tokens.insert(seen.extension("partition").to_owned(), seen.token().to_owned());
        self.recorded_at.insert(seen.extension("correlationid").to_owned(), seen.recorded_at());
        if seen.extension("commandlast") == "true" {
            let before = self.outcomes.insert(seen.extension("commandid").to_owned(), seen.name.clone());
            assert_eq!(before, None, "a command has one outcome: {seen:?}");
        }
        match seen.name.as_str() {
            "InvestorFundsAdded" => {
                let account = self.accounts.entry(seen.text("investor_id").to_owned()).or_default();
                account.added += cents(&seen.data["amount"]);
                account.available += cents(&seen.data["amount"]);
            }
            "BidOnInvoicePlaced" => self.place(seen),
            "InvestorFundsReleased" | "InvestorFundsCommitted" => self.settle(seen),
            "InvoiceFinanced" => {
                self.answer(seen.text("bid_id"), true);
                let bid_id = seen.text("bid_id").to_owned();
                let before = self.financed.insert(seen.text("invoice_id").to_owned(), bid_id);
                assert_eq!(before, None, "one bid wins: {seen:?}");
            }
            "BidOnInvoiceRejected" => self.answer(seen.text("bid_id"), false),
            "InvoiceApproved" | "InvoiceReversed" => {
                let winner = self.financed.remove(seen.text("invoice_id"));
                assert_eq!(winner.as_deref(), Some(seen.text("bid_id")), "{seen:?}");
                if seen.name == "InvoiceApproved" {
                    self.owed.insert(seen.text("bid_id").to_owned(), cents(&seen.data["asking_price"]));
                }
            }
            "CommandRefused" if seen.data["method"] == "ProcessBid" => {
                let bid_id = seen.data["command"]["invoice"]["ProcessBid"]["bid_id"].as_str();
                self.answer(bid_id.expect("a refused command is in its record"), false);
            }
            "CommandDead" => panic!("nothing dies here: {seen:?}"),
            _ => {}
        }
    }

    fn place(&mut self, seen: &Seen) {
        let (bid_id, amount) = (seen.text("bid_id").to_owned(), cents(&seen.data["amount"]));
        let account = self.accounts.entry(seen.text("investor_id").to_owned()).or_default();
        account.available -= amount;
        account.reserved += amount;
        assert!(account.available >= 0, "more was bid than there was: {seen:?}");
        assert!(self.placed.insert(bid_id.clone()), "a bid is placed once: {seen:?}");
        self.open.insert(bid_id, amount);
    }

    fn settle(&mut self, seen: &Seen) {
        let (bid_id, amount) = (seen.text("bid_id"), cents(&seen.data["amount"]));
        let account = self.accounts.entry(seen.text("investor_id").to_owned()).or_default();
        account.reserved -= amount;
        if seen.name == "InvestorFundsCommitted" {
            assert_eq!(self.owed.remove(bid_id), Some(amount), "exactly the asking price: {seen:?}");
            account.committed += amount;
        } else {
            account.available += amount;
        }
        let left = self.open.get_mut(bid_id).unwrap_or_else(|| panic!("nothing is reserved: {seen:?}"));
        *left -= amount;
        assert_eq!(*left, cents(&seen.data["remainder"]), "what is left: {seen:?}");
        if *left == 0 {
            self.open.remove(bid_id);
        }
    }

    fn answer(&mut self, bid_id: &str, won: bool) {
        let before = self.answered.insert(bid_id.to_owned(), won);
        assert_eq!(before, None, "bid {bid_id} is answered once");
    }

    /// Nothing is reserved, nothing is owed, and what there is is what there was; the read model says the same.
    pub(crate) async fn adds_up(&self, platform: &Platform) {
        assert!(self.owed.is_empty(), "every approved invoice was paid: {:?}", self.owed);
        for (investor_id, account) in &self.accounts {
            assert_eq!(account.reserved, 0, "{investor_id}");
            assert_eq!(account.available + account.committed, account.added, "{investor_id}");
            let investor = platform.investor_at(investor_id, &self.token()).await;
            let balances = [investor.available, investor.reserved, investor.committed];
            let shown = balances.map(|money| super::cents(money.as_ref()));
            assert_eq!(shown, [account.available, account.reserved, account.committed], "{investor_id}");
        }
    }
}
