//! The read models of a history.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;
use verify::Row;

use super::stored::Owned;

/// A row: its table, its key, and its columns by name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) table: &'static str,
    pub(crate) key: Uuid,
    pub(crate) columns: BTreeMap<&'static str, Value>,
}

impl Line {
    fn text(&self, column: &str) -> Option<&str> {
        self.columns.get(column).and_then(Value::as_str)
    }

    fn integer(&self, column: &str) -> Option<i64> {
        self.columns.get(column).and_then(Value::as_i64)
    }

    fn uuid(&self, column: &str) -> Option<Uuid> {
        self.text(column).map(|text| text.parse().unwrap())
    }

    pub(crate) fn row(&self) -> Row<'_> {
        let key = self.key;
        match self.table {
            "issuers" => Row::Issuer { key, name: self.text("name") },
            "investors" => Row::Investor {
                key,
                name: self.text("name"),
                currency: self.text("currency"),
                available: self.integer("available"),
                reserved: self.integer("reserved"),
                committed: self.integer("committed"),
            },
            "invoices" => Row::Invoice {
                key,
                issuer_id: self.uuid("issuer_id"),
                currency: self.text("currency"),
                asking_price: self.integer("asking_price"),
                status: self.text("status"),
                winning_bid: self.uuid("winning_bid"),
                winning_investor: self.uuid("winning_investor"),
                winning_amount: self.integer("winning_amount"),
            },
            "bids" => Row::Bid {
                key,
                investor_id: self.uuid("investor_id"),
                invoice_id: self.uuid("invoice_id"),
                currency: self.text("currency"),
                amount: self.integer("amount"),
                settlement: self.text("settlement"),
                verdict: self.text("verdict"),
                reason: self.text("reason"),
            },
            "commands" => Row::Command {
                key,
                state: self.text("state"),
                reason: self.text("reason"),
                message: self.text("message"),
                log_partition: self.integer("log_partition"),
                log_sequence: self.integer("log_sequence"),
                invoice_id: self.uuid("invoice_id"),
                since: self.integer("since"),
                cause_partition: self.integer("cause_partition"),
                cause_sequence: self.integer("cause_sequence"),
            },
            other => panic!("there is no table {other}"),
        }
    }
}

/// Cents, of money in a currency with cents.
fn cents(money: &Value) -> i64 {
    money["units"].as_i64().unwrap() * 100 + money["nanos"].as_i64().unwrap() / 10_000_000
}

/// The invoice that a record names: itself, or in the command that it is the outcome of.
fn invoice(record: &Owned, data: &Value) -> Value {
    if !record.event_type.starts_with("Command") {
        return data["invoice_id"].clone();
    }
    if data["reason"] == "UNDECODABLE" {
        return Value::Null;
    }
    let aggregates = data["command"].as_object().into_iter().flatten();
    let commands = aggregates.flat_map(|(_, command)| command.as_object().into_iter().flatten());
    commands.map(|(_, command)| command["invoice_id"].clone()).next().unwrap_or_default()
}

#[derive(Default)]
struct Lines(BTreeMap<(&'static str, Uuid), Line>);

impl Lines {
    fn set(&mut self, table: &'static str, key: &Value, columns: &[(&'static str, Value)]) {
        let key: Uuid = key.as_str().unwrap().parse().unwrap();
        let line = self.0.entry((table, key));
        let line = line.or_insert_with(|| Line { table, key, columns: BTreeMap::new() });
        line.columns.extend(columns.iter().cloned());
    }

    fn add(&mut self, key: &Value, columns: &[(&'static str, i64)]) {
        self.set("investors", key, &[]);
        let key: Uuid = key.as_str().unwrap().parse().unwrap();
        let line = self.0.get_mut(&("investors", key)).unwrap();
        for (column, more) in columns {
            let before = line.columns.get(column).and_then(Value::as_i64).unwrap_or(0);
            line.columns.insert(column, Value::from(before + more));
        }
    }

    fn fact(&mut self, record: &Owned, data: &Value) {
        let text = |text: &str| Value::from(text);
        let currency = |money: &Value| money["currency_code"].clone();
        let amount = if data["amount"].is_object() { cents(&data["amount"]) } else { 0 };
        match record.event_type.as_str() {
            "IssuerCreated" => {
                self.set("issuers", &data["issuer_id"], &[("name", data["name"].clone())]);
            }
            "InvestorCreated" => {
                let columns = [("name", data["name"].clone()), ("currency", data["currency_code"].clone())];
                self.set("investors", &data["investor_id"], &columns);
            }
            "InvestorFundsAdded" => self.add(&data["investor_id"], &[("available", amount)]),
            "BidOnInvoicePlaced" => {
                self.add(&data["investor_id"], &[("available", -amount), ("reserved", amount)]);
                let columns = [
                    ("investor_id", data["investor_id"].clone()),
                    ("invoice_id", data["invoice_id"].clone()),
                    ("currency", currency(&data["amount"])),
                    ("amount", Value::from(amount)),
                ];
                self.set("bids", &data["bid_id"], &columns);
            }
            "InvestorFundsReleased" => {
                self.add(&data["investor_id"], &[("available", amount), ("reserved", -amount)]);
                if data["kind"] != "EXCESS" {
                    self.set("bids", &data["bid_id"], &[("settlement", text("RELEASED"))]);
                }
            }
            "InvestorFundsCommitted" => {
                self.add(&data["investor_id"], &[("committed", amount), ("reserved", -amount)]);
                self.set("bids", &data["bid_id"], &[("settlement", text("COMMITTED"))]);
            }
            "InvoiceCreated" => {
                let columns = [
                    ("issuer_id", data["issuer_id"].clone()),
                    ("currency", currency(&data["asking_price"])),
                    ("asking_price", Value::from(cents(&data["asking_price"]))),
                    ("status", text("AVAILABLE")),
                ];
                self.set("invoices", &data["invoice_id"], &columns);
            }
            "InvoiceFinanced" => {
                let columns = [
                    ("status", text("FINANCED")),
                    ("winning_bid", data["bid_id"].clone()),
                    ("winning_investor", data["investor_id"].clone()),
                    ("winning_amount", Value::from(amount)),
                ];
                self.set("invoices", &data["invoice_id"], &columns);
                self.set("bids", &data["bid_id"], &[("verdict", text("WON"))]);
            }
            "BidOnInvoiceRejected" => self.rejected(&data["bid_id"], &data["reason"]),
            "InvoiceApproved" => {
                self.set("invoices", &data["invoice_id"], &[("status", text("APPROVED"))]);
            }
            "InvoiceReversed" => {
                self.set("invoices", &data["invoice_id"], &[("status", text("REVERSED"))]);
            }
            "CommandRefused" => {
                let bid = &data["command"]["invoice"]["ProcessBid"];
                if bid.is_object() {
                    self.rejected(&bid["bid_id"], &data["reason"]);
                }
            }
            "CommandUnchanged" | "CommandDead" | "DeadLetterDiscarded" => {}
            other => panic!("there is no event {other}"),
        }
    }

    fn rejected(&mut self, bid: &Value, reason: &Value) {
        self.set("bids", bid, &[("verdict", Value::from("REJECTED")), ("reason", reason.clone())]);
    }

    fn outcome(&mut self, record: &Owned, data: &Value) {
        let state = match record.event_type.as_str() {
            "CommandRefused" => "REFUSED",
            "CommandUnchanged" => "UNCHANGED",
            "CommandDead" => "DEAD",
            _ => "APPLIED",
        };
        let mut columns = vec![
            ("state", Value::from(state)),
            ("log_partition", Value::from(record.partition)),
            ("log_sequence", Value::from(record.sequence)),
        ];
        if ["REFUSED", "DEAD"].contains(&state) {
            columns.extend([("reason", data["reason"].clone()), ("message", data["message"].clone())]);
        }
        let invoice = invoice(record, data);
        // A policy's command is described where its cause is; a retry of one is not the policy's any more.
        let policy = record.actor.strip_prefix("policy:");
        let derived = policy
            .is_some_and(|policy| Uuid::new_v5(&record.causation_id, policy.as_bytes()) == record.command_id);
        if !derived && invoice.is_string() {
            columns.extend([("invoice_id", invoice), ("since", Value::from(record.recorded_at))]);
        }
        self.set("commands", &Value::from(record.command_id.to_string()), &columns);
    }

    /// What follows, by the table of the saga.
    fn cause(&mut self, record: &Owned, data: &Value) {
        let policy = match record.event_type.as_str() {
            "BidOnInvoicePlaced" => "process-placed-bid",
            "BidOnInvoiceRejected" => "release-rejected-bid",
            "InvoiceFinanced" if cents(&data["amount"]) > cents(&data["asking_price"]) => "release-excess",
            "InvoiceApproved" => "commit-approved",
            "InvoiceReversed" => "return-reversed",
            "CommandRefused" if data["command"]["invoice"]["ProcessBid"].is_object() => "release-refused-bid",
            _ => return,
        };
        let command = Uuid::new_v5(&record.record_id, policy.as_bytes());
        let columns = [
            ("invoice_id", invoice(record, data)),
            ("since", Value::from(record.recorded_at)),
            ("cause_partition", Value::from(record.partition)),
            ("cause_sequence", Value::from(record.sequence)),
        ];
        self.set("commands", &Value::from(command.to_string()), &columns);
    }
}

/// The rows that follow from so many records of each partition.
pub(crate) fn lines(log: &[Owned], ends: &[u64]) -> Vec<Line> {
    let mut lines = Lines::default();
    for record in log.iter().filter(|record| record.sequence <= ends[usize::from(record.partition)]) {
        let data: Value = serde_json::from_str(&record.payload).unwrap();
        lines.fact(record, &data);
        lines.cause(record, &data);
        if record.command_last {
            lines.outcome(record, &data);
        }
    }
    lines.0.into_values().collect()
}
