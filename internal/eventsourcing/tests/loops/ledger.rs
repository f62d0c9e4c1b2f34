//! The smallest context that needs every part of the kernel: accounts, and transfers between them as a saga of two
//! aggregates with a compensation.

use eventsourcing::importer::{Translate, Translated};
use eventsourcing::model::{
    Aggregate, AggregateRef, DecodeError, EncodedEvent, EncodedSnapshot, Entry, Known, Model, Policies,
    Projection,
};
use eventsourcing::ports::{Column, ColumnType, Index, RowChange, Table, Value};
use eventsourcing::record::Record;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Open { account: Uuid, balance: i64 },
    Send { account: Uuid, to: Uuid, amount: i64 },
    Receive { account: Uuid, from: Uuid, amount: i64 },
    Refund { account: Uuid, amount: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Opened { balance: i64 },
    Sent { from: Uuid, to: Uuid, amount: i64 },
    Received { amount: i64 },
    Refunded { amount: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such account")]
    NoAccount,
    #[error("the balance is too small")]
    Insufficient,
    #[error("the account is open with another balance")]
    AlreadyOpen,
    #[error("the sender is unknown")]
    NoSender,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    opened: Option<i64>,
    pub balance: i64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, known: &Known) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Open { balance, .. } => match self.opened {
                None => Ok(vec![Event::Opened { balance: *balance }]),
                Some(opened) if opened == *balance => Ok(vec![]),
                Some(_) => Err(Refusal::AlreadyOpen),
            },
            _ if self.opened.is_none() => Err(Refusal::NoAccount),
            Command::Send { amount, .. } if self.balance < *amount => Err(Refusal::Insufficient),
            Command::Send { account, to, amount } => {
                Ok(vec![Event::Sent { from: *account, to: *to, amount: *amount }])
            }
            Command::Receive { from, .. } if !known.exists(&account(*from)) => Err(Refusal::NoSender),
            Command::Receive { amount, .. } => Ok(vec![Event::Received { amount: *amount }]),
            Command::Refund { amount, .. } => Ok(vec![Event::Refunded { amount: *amount }]),
        }
    }

    fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::Opened { balance } => {
                self.opened = Some(*balance);
                self.balance = *balance;
            }
            Event::Sent { amount, .. } => self.balance -= amount,
            Event::Received { amount } | Event::Refunded { amount } => self.balance += amount,
        }
        self
    }
}

pub fn account(id: Uuid) -> AggregateRef {
    AggregateRef::new(Account::TYPE, id)
}

pub struct Ledger;

impl Model for Ledger {
    type State = Account;
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;
    const CONTEXT: &'static str = "ledger";

    fn target(command: &Command) -> AggregateRef {
        let (Command::Open { account: id, .. }
        | Command::Send { account: id, .. }
        | Command::Receive { account: id, .. }
        | Command::Refund { account: id, .. }) = command;
        account(*id)
    }

    fn method(command: &Command) -> &'static str {
        match command {
            Command::Open { .. } => "Open",
            Command::Send { .. } => "Send",
            Command::Receive { .. } => "Receive",
            Command::Refund { .. } => "Refund",
        }
    }

    fn references(command: &Command) -> Vec<AggregateRef> {
        match command {
            Command::Receive { from, .. } => vec![account(*from)],
            Command::Open { .. } | Command::Send { .. } | Command::Refund { .. } => vec![],
        }
    }

    fn initial(target: &AggregateRef) -> Option<Account> {
        (target.kind == Account::TYPE).then(Account::default)
    }

    fn decide(state: &Account, command: &Command, known: &Known) -> Result<Vec<Event>, Refusal> {
        Aggregate::decide(state, command, known)
    }

    fn evolve(state: Account, event: &Event) -> Account {
        Aggregate::evolve(state, event)
    }

    fn reason(refusal: &Refusal) -> &'static str {
        match refusal {
            Refusal::NoAccount => "NO_ACCOUNT",
            Refusal::Insufficient => "INSUFFICIENT",
            Refusal::AlreadyOpen => "ALREADY_OPEN",
            Refusal::NoSender => "NO_SENDER",
        }
    }

    fn encode_event(event: &Event) -> Result<EncodedEvent, DecodeError> {
        let event_type = match event {
            Event::Opened { .. } => "Opened",
            Event::Sent { .. } => "Sent",
            Event::Received { .. } => "Received",
            Event::Refunded { .. } => "Refunded",
        };
        let data = serde_json::to_string(event).map_err(|error| DecodeError::malformed("event", error))?;
        Ok(EncodedEvent { event_type, schema: 1, data })
    }

    fn decode_event(_: &str, _: u16, data: &str) -> Result<Event, DecodeError> {
        serde_json::from_str(data).map_err(|error| DecodeError::malformed("event", error))
    }

    fn encode_snapshot(state: &Account) -> Result<EncodedSnapshot, DecodeError> {
        let data = serde_json::to_string(state).map_err(|error| DecodeError::malformed("snapshot", error))?;
        Ok(EncodedSnapshot { schema: 1, data })
    }

    fn decode_snapshot(_: &AggregateRef, snapshot: &EncodedSnapshot) -> Option<Account> {
        (snapshot.schema == 1).then(|| serde_json::from_str(&snapshot.data).ok()).flatten()
    }
}

pub struct Transfers;

impl Policies<Ledger> for Transfers {
    fn react(&self, entry: &Entry<Ledger>) -> Option<(&'static str, Command)> {
        match entry {
            Entry::Fact(Event::Sent { from, to, amount }) => {
                Some(("receive-sent", Command::Receive { account: *to, from: *from, amount: *amount }))
            }
            Entry::Refused { command: Command::Receive { from, amount, .. }, .. } => {
                Some(("refund-refused", Command::Refund { account: *from, amount: *amount }))
            }
            Entry::Fact(_)
            | Entry::Refused { .. }
            | Entry::Unchanged { .. }
            | Entry::Dead
            | Entry::Discarded => None,
        }
    }
}

pub const TABLES: &[Table] = &[Table {
    name: "accounts",
    columns: &[
        Column { name: "balance", kind: ColumnType::Integer, index: Index::None },
        Column { name: "last", kind: ColumnType::Text, index: Index::None },
    ],
}];

pub struct Balances;

impl Projection<Ledger> for Balances {
    fn project(&self, record: &Record, entry: &Entry<Ledger>) -> Vec<RowChange> {
        let Entry::Fact(event) = entry else { return vec![] };
        let change = match event {
            Event::Opened { balance } => *balance,
            Event::Sent { amount, .. } => -amount,
            Event::Received { amount } | Event::Refunded { amount } => *amount,
        };
        vec![RowChange {
            table: "accounts",
            key: record.aggregate.id,
            set: vec![("last", Value::Text(record.event_type.to_string()))],
            add: vec![("balance", change)],
        }]
    }
}

/// Another context says who has an account: `open <account> <balance>`. That it also says `hello` is not for us.
pub struct Openings;

impl Translate<Ledger> for Openings {
    fn translate(&self, subject: &str, payload: &[u8]) -> Translated<Command> {
        let text = String::from_utf8_lossy(payload);
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            ["open", account, balance] => match (account.parse(), balance.parse()) {
                (Ok(account), Ok(balance)) => Translated::Command {
                    id: Uuid::new_v5(&account, payload),
                    actor: subject.to_owned(),
                    traceparent: None,
                    command: Command::Open { account, balance },
                },
                _ => Translated::Malformed("not an account and a balance".to_owned()),
            },
            ["hello", ..] => Translated::Ignored,
            _ => Translated::Malformed(format!("not understood: {text}")),
        }
    }
}
