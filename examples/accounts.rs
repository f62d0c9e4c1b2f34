//! Another domain on the same kernel: accounts, and money transfers between them as a saga with compensation.
//!
//! `cargo run --example accounts` opens two accounts, moves money between them, and sends some to an account that does not
//! exist, from where it comes back. `docs/your-own-domain.md` walks through this file.

use std::time::Duration;

use eventsourcing::environment::Environment as _;
use eventsourcing::model::{
    Aggregate, AggregateRef, DecodeError, EncodedEvent, EncodedSnapshot, Entry, Known, Model, Policies,
    Projection,
};
use eventsourcing::outcome::Verdict;
use eventsourcing::ports::{
    Column, ColumnType, Index, ReadModelSchema, ReadModels as _, RowChange, Table, Value,
};
use eventsourcing::record::Record;
use invoice_financing::runtime::environment::SystemEnvironment;
use invoice_financing::runtime::stores::Running;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an account can be asked to do, in cents. A transfer takes money from its sender and is followed by the credit of
/// its receiver, or, where there is none, by the sender's refund: the compensation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Ask {
    Open,
    Deposit { cents: u32 },
    Withdraw { cents: u32 },
    Transfer { to: Uuid, cents: u32 },
    Credit { from: Uuid, cents: u32 },
    Refund { cents: u32 },
}

/// Whom it is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Command {
    account: Uuid,
    ask: Ask,
}

/// What has happened to an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Opened,
    Deposited { cents: u32 },
    Withdrawn { cents: u32 },
    Sent { from: Uuid, to: Uuid, cents: u32 },
    Credited { cents: u32 },
    Refunded { cents: u32 },
}

impl Event {
    /// What it adds to the balance.
    fn change(&self) -> i64 {
        match self {
            Self::Opened => 0,
            Self::Deposited { cents } | Self::Credited { cents } | Self::Refunded { cents } => {
                (*cents).into()
            }
            Self::Withdrawn { cents } | Self::Sent { cents, .. } => -i64::from(*cents),
        }
    }
}

/// Why an account says no.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
enum Refusal {
    #[error("there is no such account")]
    NoSuchAccount,
    #[error("there are only {balance} cents")]
    Insufficient { balance: i64 },
}

/// An account: `None` before it is opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Account(Option<i64>);

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, &Command { account, ask }: &Command, _: &Known) -> Result<Vec<Event>, Refusal> {
        let balance = match (self.0, ask) {
            (None, Ask::Open) => return Ok(vec![Event::Opened]),
            (None, _) => return Err(Refusal::NoSuchAccount),
            (Some(balance), _) => balance,
        };
        let has = |cents: u32| {
            (i64::from(cents) <= balance).then_some(cents).ok_or(Refusal::Insufficient { balance })
        };
        Ok(vec![match ask {
            Ask::Open => return Ok(Vec::new()),
            Ask::Deposit { cents } => Event::Deposited { cents },
            Ask::Withdraw { cents } => Event::Withdrawn { cents: has(cents)? },
            Ask::Transfer { to, cents } => Event::Sent { from: account, to, cents: has(cents)? },
            Ask::Credit { cents, .. } => Event::Credited { cents },
            Ask::Refund { cents } => Event::Refunded { cents },
        }])
    }

    fn evolve(self, event: &Event) -> Self {
        // A hundred years of the largest deposits, one every second, are far from the limit of the type.
        Self(Some(self.0.unwrap_or_default().saturating_add(event.change())))
    }
}

/// The bounded context: what the kernel's loops are generic over.
struct Bank;

impl Model for Bank {
    type State = Account;
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;
    const CONTEXT: &'static str = "bank";

    fn target(command: &Command) -> AggregateRef {
        AggregateRef::new(Account::TYPE, command.account)
    }

    fn method(command: &Command) -> &'static str {
        match command.ask {
            Ask::Open => "Open",
            Ask::Deposit { .. } => "Deposit",
            Ask::Withdraw { .. } => "Withdraw",
            Ask::Transfer { .. } => "Transfer",
            Ask::Credit { .. } => "Credit",
            Ask::Refund { .. } => "Refund",
        }
    }

    fn references(_: &Command) -> Vec<AggregateRef> {
        Vec::new()
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
            Refusal::NoSuchAccount => "NO_SUCH_ACCOUNT",
            Refusal::Insufficient { .. } => "INSUFFICIENT",
        }
    }

    fn encode_event(event: &Event) -> Result<EncodedEvent, DecodeError> {
        let event_type = match event {
            Event::Opened => "Opened",
            Event::Deposited { .. } => "Deposited",
            Event::Withdrawn { .. } => "Withdrawn",
            Event::Sent { .. } => "Sent",
            Event::Credited { .. } => "Credited",
            Event::Refunded { .. } => "Refunded",
        };
        let data = serde_json::to_string(event).map_err(|error| DecodeError::malformed(event_type, error))?;
        Ok(EncodedEvent { event_type, schema: 1, data })
    }

    fn decode_event(event_type: &str, _schema: u16, data: &str) -> Result<Event, DecodeError> {
        serde_json::from_str(data).map_err(|error| DecodeError::malformed(event_type, error))
    }

    fn encode_snapshot(state: &Account) -> Result<EncodedSnapshot, DecodeError> {
        let data = serde_json::to_string(state).map_err(|error| DecodeError::malformed("snapshot", error))?;
        Ok(EncodedSnapshot { schema: 1, data })
    }

    fn decode_snapshot(_: &AggregateRef, snapshot: &EncodedSnapshot) -> Option<Account> {
        (snapshot.schema == 1).then(|| serde_json::from_str(&snapshot.data).ok()).flatten()
    }
}

/// The saga: money that was sent is credited; money that cannot be credited goes back.
struct Transfers;

impl Policies<Bank> for Transfers {
    fn react(&self, entry: &Entry<Bank>) -> Option<(&'static str, Command)> {
        match *entry {
            Entry::Fact(Event::Sent { from, to, cents }) => {
                Some(("credit-sent", Command { account: to, ask: Ask::Credit { from, cents } }))
            }
            Entry::Refused { command: Command { ask: Ask::Credit { from, cents }, .. }, .. } => {
                Some(("refund-refused", Command { account: from, ask: Ask::Refund { cents } }))
            }
            Entry::Fact(_)
            | Entry::Refused { .. }
            | Entry::Unchanged { .. }
            | Entry::Dead
            | Entry::Discarded => None,
        }
    }
}

/// The read model: what is in each account.
struct Balances;

const ACCOUNTS: Table = Table {
    name: "accounts",
    columns: &[Column { name: "cents", kind: ColumnType::Integer, index: Index::None }],
};

impl Projection<Bank> for Balances {
    fn project(&self, record: &Record, entry: &Entry<Bank>) -> Vec<RowChange> {
        let Entry::Fact(event) = entry else { return Vec::new() };
        let key = record.aggregate.id;
        vec![RowChange { table: ACCOUNTS.name, key, set: Vec::new(), add: vec![("cents", event.change())] }]
    }
}

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(30);

/// A bank that is open: every loop of the kernel, on the files of one directory.
struct OpenBank(Running);

impl OpenBank {
    async fn open(directory: &std::path::Path) -> Result<Self, String> {
        let schema = ReadModelSchema { version: 1, tables: &[ACCOUNTS] };
        Ok(Self(Running::start::<Bank>(directory, schema, Transfers, Balances).await?))
    }

    async fn ask(&self, account: Uuid, ask: Ask) -> Result<Verdict, String> {
        let (id, command) = (SystemEnvironment.uuid(), Command { account, ask });
        let outcome = self.0.front().ask::<Bank>(id, "teller", &command, WAIT).await;
        outcome.map(|outcome| outcome.verdict).map_err(|error| error.to_string())
    }

    /// Waits until the read model shows this balance.
    async fn shows(&self, account: Uuid, cents: i64) -> Result<(), String> {
        let front = self.0.front();
        let look = || async move {
            let row = front.read_models().row(ACCOUNTS.name, account).await?;
            Ok(row.filter(|row| row.values == [Some(Value::Integer(cents))]))
        };
        let shown = front.until(WAIT, look).await.map_err(|error| error.to_string())?;
        shown.map(|_| ()).ok_or_else(|| format!("no {cents} cents on {account} in {WAIT:?}"))
    }
}

/// Two accounts, a transfer that arrives, one that comes back, and a refusal; until the balances are what they must be.
async fn business(bank: &OpenBank) -> Result<(), String> {
    let (ada, bob, nobody) = (SystemEnvironment.uuid(), SystemEnvironment.uuid(), SystemEnvironment.uuid());
    for (name, account, ask) in [
        ("Ada", ada, Ask::Open),
        ("Bob", bob, Ask::Open),
        ("Ada", ada, Ask::Deposit { cents: 10_000 }),
        ("Ada", ada, Ask::Transfer { to: bob, cents: 3_000 }),
        ("Ada", ada, Ask::Withdraw { cents: 500 }),
        ("Ada", ada, Ask::Transfer { to: nobody, cents: 5_000 }),
        ("Bob", bob, Ask::Withdraw { cents: 9_900 }),
    ] {
        println!("{name}: {ask:?}\n    {:?}", bank.ask(account, ask).await?);
    }
    bank.shows(ada, 6_500).await?;
    bank.shows(bob, 3_000).await
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("accounts-{}", SystemEnvironment.uuid()));
    let bank = OpenBank::open(&directory).await?;
    business(&bank).await?;
    println!("Ada has 65.00 and Bob has 30.00: what nobody could take came back.");
    bank.0.stop().await?;
    std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn money_that_cannot_be_credited_comes_back_also_when_the_bank_closes_in_between() {
        let directory = tempfile::tempdir().unwrap();
        let (ada, nobody) = (SystemEnvironment.uuid(), SystemEnvironment.uuid());
        let bank = OpenBank::open(directory.path()).await.unwrap();
        bank.ask(ada, Ask::Open).await.unwrap();
        bank.ask(ada, Ask::Deposit { cents: 7 }).await.unwrap();
        assert_eq!(bank.ask(ada, Ask::Transfer { to: nobody, cents: 7 }).await, Ok(Verdict::Applied));
        bank.0.stop().await.unwrap();
        let bank = OpenBank::open(directory.path()).await.unwrap();
        bank.shows(ada, 7).await.unwrap();
        let refused = bank.ask(ada, Ask::Withdraw { cents: 8 }).await.unwrap();
        assert!(matches!(refused, Verdict::Refused { reason, .. } if reason == "INSUFFICIENT"));
        bank.0.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_day_of_business_loses_no_cent() {
        let directory = tempfile::tempdir().unwrap();
        let bank = OpenBank::open(directory.path()).await.unwrap();
        assert_eq!(business(&bank).await, Ok(()));
        bank.0.stop().await.unwrap();
    }
}
