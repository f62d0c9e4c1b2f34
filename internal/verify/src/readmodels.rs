//! The read models' rows against the fold.
//!
//! The rule this module protects: a row is what the facts of each partition up to its checkpoint come to, in every column;
//! there is no row too many and none too few.

use uuid::Uuid;

use crate::breach::{About, Breaches, Invariant, Tier};
use crate::commands::{Commands, words};
use crate::fold::invoice::{Invoice, Status};
use crate::fold::{Answer, Bid, Fold};
use crate::hash::digest_of;
use crate::lane::Lane;
use crate::record::{Kind, Position};

/// A row of the read models, column by column; `None` where the column is NULL.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are the columns, under their names")]
pub enum Row<'a> {
    /// Of `issuers`.
    Issuer { key: Uuid, name: Option<&'a str> },
    /// Of `investors`; balances in minor units.
    Investor {
        key: Uuid,
        name: Option<&'a str>,
        currency: Option<&'a str>,
        available: Option<i64>,
        reserved: Option<i64>,
        committed: Option<i64>,
    },
    /// Of `invoices`.
    Invoice {
        key: Uuid,
        issuer_id: Option<Uuid>,
        currency: Option<&'a str>,
        asking_price: Option<i64>,
        status: Option<&'a str>,
        winning_bid: Option<Uuid>,
        winning_investor: Option<Uuid>,
        winning_amount: Option<i64>,
    },
    /// Of `bids`.
    Bid {
        key: Uuid,
        investor_id: Option<Uuid>,
        invoice_id: Option<Uuid>,
        currency: Option<&'a str>,
        amount: Option<i64>,
        settlement: Option<&'a str>,
        verdict: Option<&'a str>,
        reason: Option<&'a str>,
    },
    /// Of `commands`.
    Command {
        key: Uuid,
        state: Option<&'a str>,
        reason: Option<&'a str>,
        message: Option<&'a str>,
        log_partition: Option<i64>,
        log_sequence: Option<i64>,
        invoice_id: Option<Uuid>,
        since: Option<i64>,
        cause_partition: Option<i64>,
        cause_sequence: Option<i64>,
    },
}

/// The columns of a row that differ.
struct Columns {
    differ: Vec<String>,
}

impl Columns {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, shown: Option<T>, due: Option<T>) {
        if shown != due {
            let show =
                |value: Option<T>| value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"));
            self.differ.push(format!("{name} is {}, and {} by the log", show(shown), show(due)));
        }
    }

    /// Of a text of which only the digest is known.
    fn text(&mut self, name: &str, shown: Option<&str>, due: u64) {
        if shown.map(digest_of) != Some(due) {
            self.differ.push(format!("{name} is {shown:?}, and something else by the log"));
        }
    }

    fn balance(&mut self, name: &str, shown: Option<i64>, due: i64) {
        // A balance to which nothing was ever added is absent.
        self.same(name, Some(shown.unwrap_or_default()), Some(due));
    }
}

fn shows(lanes: &[Lane], position: Position) -> bool {
    lanes.get(usize::from(position.partition)).is_some_and(|lane| lane.shows(position.sequence))
}

fn at(kind: Kind, id: Uuid, (partition, sequence): (u16, u64)) -> About {
    if sequence == 0 {
        About::Aggregate(kind, id)
    } else {
        About::Position(Position { partition, sequence }, kind, id)
    }
}

/// Compares a row. What is found is reported under the last record about it.
pub(crate) fn compare(
    fold: &mut Fold,
    commands: &mut Commands,
    lanes: &[Lane],
    row: &Row<'_>,
    breaches: &mut Breaches,
) {
    let mut columns = Columns { differ: Vec::new() };
    let (table, key, found) = match *row {
        Row::Issuer { key, name } => ("issuers", key, issuer(fold, key, name, &mut columns)),
        Row::Investor { key, .. } => ("investors", key, investor(fold, row, &mut columns)),
        Row::Invoice { key, .. } => ("invoices", key, invoice(fold, row, &mut columns)),
        Row::Bid { key, .. } => ("bids", key, bid(fold, row, &mut columns)),
        Row::Command { key, .. } => ("commands", key, command(commands, lanes, row, &mut columns)),
    };
    let Some((about, seen)) = found else {
        let about = About::Aggregate(Kind::Unknown, key);
        breaches.add(
            Tier::Derived,
            Invariant::I6,
            about,
            format!("{table} has a row {key} that no fact brings about"),
        );
        return;
    };
    if seen {
        breaches.add(Tier::Derived, Invariant::I6, about, format!("{table} has row {key} twice"));
    }
    if !columns.differ.is_empty() {
        let what = format!("{table}, row {key}: {}", columns.differ.join("; "));
        breaches.add(Tier::Derived, Invariant::I6, about, what);
    }
}

type Found = Option<(About, bool)>;

fn issuer(fold: &mut Fold, key: Uuid, name: Option<&str>, columns: &mut Columns) -> Found {
    let issuer = fold.issuers.get_mut(&key).filter(|issuer| issuer.shown)?;
    columns.text("name", name, issuer.name);
    Some((at(Kind::Issuer, key, issuer.at), std::mem::replace(&mut issuer.row_seen, true)))
}

fn investor(fold: &mut Fold, row: &Row<'_>, columns: &mut Columns) -> Found {
    let Row::Investor { key, name, currency, available, reserved, committed } = *row else { return None };
    let investor = fold.investors.get_mut(&key)?;
    let balances = investor.shown?;
    columns.text("name", name, investor.name);
    columns.same("currency", currency, Some(investor.currency.code()));
    columns.balance("available", available, balances.available);
    columns.balance("reserved", reserved, balances.reserved);
    columns.balance("committed", committed, balances.committed);
    Some((at(Kind::Investor, key, investor.at), std::mem::replace(&mut investor.row_seen, true)))
}

fn invoice(fold: &mut Fold, row: &Row<'_>, columns: &mut Columns) -> Found {
    let Row::Invoice {
        key,
        issuer_id,
        currency,
        asking_price,
        status,
        winning_bid,
        winning_investor,
        winning_amount,
    } = *row
    else {
        return None;
    };
    let invoice: &mut Invoice = fold.invoices.get_mut(&key)?;
    let shown = invoice.shown?;
    columns.same("issuer_id", issuer_id, Some(invoice.issuer));
    columns.same("currency", currency, Some(invoice.asking.currency.code()));
    columns.same("asking_price", asking_price, Some(invoice.asking.minor));
    columns.same("status", status, Some(shown.code()));
    let winner = invoice.winner.filter(|_| shown > Status::Available);
    columns.same("winning_bid", winning_bid, winner.map(|winner| winner.bid));
    columns.same("winning_investor", winning_investor, winner.map(|winner| winner.investor));
    columns.same("winning_amount", winning_amount, winner.map(|winner| winner.amount.minor));
    Some((at(Kind::Invoice, key, invoice.at), std::mem::replace(&mut invoice.row_seen, true)))
}

fn bid(fold: &mut Fold, row: &Row<'_>, columns: &mut Columns) -> Found {
    let Row::Bid { key, investor_id, invoice_id, currency, amount, settlement, verdict, reason } = *row
    else {
        return None;
    };
    let bid: &mut Bid = fold.bids.get_mut(&key).filter(|bid| bid.is_shown())?;
    let placed = |shown: bool| shown.then_some(());
    let half = placed(bid.shown_placed);
    columns.same("investor_id", investor_id, half.map(|()| bid.investor));
    columns.same("invoice_id", invoice_id, half.map(|()| bid.invoice));
    columns.same("currency", currency, half.map(|()| bid.amount.currency.code()));
    columns.same("amount", amount, half.map(|()| bid.amount.minor));
    columns.same("settlement", settlement, bid.shown_settlement.map(super::fold::investor::Settlement::code));
    let (due, why) = match bid.shown_answer {
        Answer::None => (None, None),
        Answer::Won => (Some("WON"), None),
        Answer::Rejected(reason) => (Some("REJECTED"), Some(reason.code())),
    };
    columns.same("verdict", verdict, due);
    columns.same("reason", reason, why);
    Some((at(Kind::Investor, bid.investor, bid.at), std::mem::replace(&mut bid.row_seen, true)))
}

/// A row has two halves: what came with the command's outcome, and what came with its cause.
fn command(commands: &mut Commands, lanes: &[Lane], row: &Row<'_>, columns: &mut Columns) -> Found {
    let Row::Command {
        key,
        state,
        reason,
        message,
        log_partition,
        log_sequence,
        invoice_id,
        since,
        cause_partition,
        cause_sequence,
    } = *row
    else {
        return None;
    };
    let done = commands.done.get_mut(&key).filter(|done| shows(lanes, done.position));
    let asked = commands.asked.get_mut(&key);
    let outcome = done.as_deref();
    columns.same("state", state, outcome.map(|done| done.ending.code()));
    columns.same("log_partition", log_partition, outcome.map(|done| i64::from(done.position.partition)));
    let sequence = outcome.and_then(|done| i64::try_from(done.position.sequence).ok());
    columns.same("log_sequence", log_sequence, sequence);
    let said = match (reason, message) {
        (Some(reason), Some(message)) => words(reason, message),
        (None, None) => 0,
        (Some(_), None) | (None, Some(_)) => 1,
    };
    if said != outcome.map_or(0, |done| done.words) {
        columns.differ.push("reason or message are others by the log".to_owned());
    }
    let cause = asked.as_deref().map(|asked| asked.cause.position);
    columns.same("cause_partition", cause_partition, cause.map(|cause| i64::from(cause.partition)));
    let sequence = cause.and_then(|cause| i64::try_from(cause.sequence).ok());
    columns.same("cause_sequence", cause_sequence, sequence);
    let about = asked.as_deref().map(|asked| asked.about).or(outcome.and_then(|done| done.about));
    columns.same("invoice_id", invoice_id, about.map(|about| about.invoice));
    columns.same("since", since, about.and_then(|about| i64::try_from(about.since).ok()));
    let at = outcome.map(|done| done.position).or(cause)?;
    let seen = [done.map(|done| &mut done.row_seen), asked.map(|asked| &mut asked.row_seen)];
    let mut twice = false;
    for seen in seen.into_iter().flatten() {
        twice |= std::mem::replace(seen, true);
    }
    Some((About::Position(at, Kind::Unknown, key), twice))
}

/// Rows that are missing, of what the read models have seen.
pub(crate) fn missing(fold: &Fold, commands: &Commands, lanes: &[Lane], breaches: &mut Breaches) {
    let mut miss = |about: About, table: &str, key: Uuid| {
        breaches.add(Tier::Derived, Invariant::I6, about, format!("{table} has no row {key}"));
    };
    for (key, issuer) in fold.issuers.iter().filter(|(_, issuer)| issuer.shown && !issuer.row_seen) {
        miss(at(Kind::Issuer, *key, issuer.at), "issuers", *key);
    }
    for (key, investor) in fold.investors.iter().filter(|(_, row)| row.shown.is_some() && !row.row_seen) {
        miss(at(Kind::Investor, *key, investor.at), "investors", *key);
    }
    for (key, invoice) in fold.invoices.iter().filter(|(_, row)| row.shown.is_some() && !row.row_seen) {
        miss(at(Kind::Invoice, *key, invoice.at), "invoices", *key);
    }
    for (key, bid) in fold.bids.iter().filter(|(_, bid)| bid.is_shown() && !bid.row_seen) {
        miss(at(Kind::Investor, bid.investor, bid.at), "bids", *key);
    }
    for (key, done) in commands.done.iter().filter(|(_, done)| !done.row_seen) {
        if shows(lanes, done.position) {
            miss(About::Position(done.position, Kind::Unknown, *key), "commands", *key);
        }
    }
    for (key, asked) in commands.asked.iter().filter(|(_, asked)| !asked.row_seen) {
        // (One that has an outcome as well is missing already.)
        if commands.done.get(key).is_none_or(|done| !shows(lanes, done.position)) {
            miss(About::Position(asked.cause.position, Kind::Unknown, *key), "commands", *key);
        }
    }
}
