//! Snapshots of aggregates.
//!
//! The rule this module protects: a snapshot is what its facts come to; it is never ahead of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use crate::fold::invoice::Status;
use crate::fold::{Fold, Part};
use crate::hash::digest_of;
use crate::money::{Amount, Money};
use crate::record::Kind;

#[derive(Debug, Deserialize)]
struct Reservation {
    invoice_id: Uuid,
    left: Amount,
    part: Part,
}

#[derive(Debug, Deserialize)]
struct Account<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    added: Money,
    available: Money,
    committed: Money,
    reservations: BTreeMap<Uuid, Reservation>,
}

#[derive(Debug, Deserialize)]
enum InvestorState<'a> {
    Missing,
    Registered(#[serde(borrow)] Account<'a>),
}

#[derive(Debug, Deserialize)]
enum IssuerState<'a> {
    Missing,
    Registered {
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
}

#[derive(Debug, Deserialize)]
struct Terms {
    issuer_id: Uuid,
    asking_price: Amount,
}

#[derive(Debug, Deserialize)]
struct WinningBid {
    bid_id: Uuid,
    investor_id: Uuid,
    amount: Amount,
}

#[derive(Debug, Deserialize)]
enum InvoiceState {
    Missing,
    Available(Terms),
    Financed(Terms, WinningBid),
    Approved(Terms, WinningBid),
    Reversed(Terms, WinningBid),
}

/// A snapshot that waits for its aggregate to get so far.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    state: Option<String>,
}

impl Snapshot {
    /// One of a schema that is not known is ignored, as the platform does.
    pub(crate) fn new(version: u64, schema: u16, data: &str) -> Self {
        Self { version, state: (schema == 1).then(|| data.to_owned()) }
    }

    /// What is wrong with it, now that the aggregate has its version.
    pub(crate) fn differs(&self, fold: &Fold, kind: Kind, id: Uuid) -> Option<String> {
        let data = self.state.as_deref()?;
        let same = match kind {
            Kind::Issuer => issuer(fold, id, data),
            Kind::Investor => investor(fold, id, data),
            Kind::Invoice => invoice(fold, id, data),
            Kind::Unknown => Ok(false),
        };
        match same {
            Ok(true) => None,
            Ok(false) => {
                Some(format!("the snapshot of version {} is not what the facts come to", self.version))
            }
            Err(error) => Some(format!("the snapshot of version {} cannot be read: {error}", self.version)),
        }
    }
}

fn issuer(fold: &Fold, id: Uuid, data: &str) -> serde_json::Result<bool> {
    Ok(match serde_json::from_str(data)? {
        IssuerState::Missing => false,
        IssuerState::Registered { name } => {
            fold.issuers.get(&id).is_some_and(|issuer| issuer.name == digest_of(&name))
        }
    })
}

fn investor(fold: &Fold, id: Uuid, data: &str) -> serde_json::Result<bool> {
    let account = match serde_json::from_str(data)? {
        InvestorState::Missing => return Ok(false),
        InvestorState::Registered(account) => account,
    };
    let Some(investor) = fold.investors.get(&id) else { return Ok(false) };
    let money = |minor| Money { minor, currency: investor.currency };
    let reserved: i64 = account.reservations.values().map(|reservation| reservation.left.0.minor).sum();
    let each = account.reservations.iter().all(|(bid, reservation)| {
        fold.bids.get(bid).is_some_and(|bid| {
            bid.investor == id
                && bid.invoice == reservation.invoice_id
                && bid.left == reservation.left.0.minor
                && bid.part == reservation.part
        })
    });
    Ok(each
        && investor.name == digest_of(&account.name)
        && account.added == money(investor.added)
        && account.available == money(investor.balances.available)
        && account.committed == money(investor.balances.committed)
        && reserved == investor.balances.reserved)
}

fn invoice(fold: &Fold, id: Uuid, data: &str) -> serde_json::Result<bool> {
    let (status, terms, winner) = match serde_json::from_str(data)? {
        InvoiceState::Missing => return Ok(false),
        InvoiceState::Available(terms) => (Status::Available, terms, None),
        InvoiceState::Financed(terms, winner) => (Status::Financed, terms, Some(winner)),
        InvoiceState::Approved(terms, winner) => (Status::Approved, terms, Some(winner)),
        InvoiceState::Reversed(terms, winner) => (Status::Reversed, terms, Some(winner)),
    };
    let Some(invoice) = fold.invoices.get(&id) else { return Ok(false) };
    let winner = winner.map(|bid| (bid.bid_id, bid.investor_id, bid.amount.0));
    Ok(invoice.status == Some(status)
        && invoice.issuer == terms.issuer_id
        && invoice.asking == terms.asking_price.0
        && invoice.winner.map(|bid| (bid.bid, bid.investor, bid.amount)) == winner)
}
