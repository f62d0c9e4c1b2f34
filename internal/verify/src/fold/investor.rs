//! Accounts and what they set aside for each bid.
//!
//! The rule this module protects: available + reserved + committed is what was ever added, none is negative, and every
//! reserved unit leaves its bid's reservation once.

use uuid::Uuid;

use crate::breach::Invariant;
use crate::facts::{self, Committed, FundsAdded, InvestorCreated, Move, Released};
use crate::hash::digest_of;
use crate::money::{Currency, Money};
use crate::record::Kind;
use crate::saga::{Links, Policy, Step, Wanted};

use super::{At, Bid, Fold, Part};

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Committed,
    Released,
}

impl Settlement {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Committed => "COMMITTED",
            Self::Released => "RELEASED",
        }
    }
}

/// What an account has, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Balances {
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) committed: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Investor {
    pub(crate) version: u64,
    pub(crate) created: bool,
    /// A digest of the name.
    pub(crate) name: u64,
    pub(crate) currency: Currency,
    pub(crate) added: i64,
    pub(crate) balances: Balances,
    pub(crate) open_bids: u32,
    /// The balances at the read models' checkpoint, once it has got so far.
    pub(crate) shown: Option<Balances>,
    pub(crate) row_seen: bool,
    pub(crate) at: (u16, u64),
}

impl Investor {
    fn missing(currency: Currency) -> Self {
        Self {
            version: 0,
            created: false,
            name: 0,
            currency,
            added: 0,
            balances: Balances::default(),
            open_bids: 0,
            shown: None,
            row_seen: false,
            at: (0, 0),
        }
    }

    /// What every fact of an account has in common: a version, an account that is there, and its currency.
    fn begin(&mut self, at: &mut At<'_>, id: Uuid, money: Money) {
        at.is_about(Kind::Investor, id);
        at.version(&mut self.version);
        if !self.created {
            at.breach(Invariant::I3, format!("investor {id}: something happened before it was created"));
            self.created = true;
        }
        if money.currency != self.currency {
            let (expected, actual) = (self.currency, money.currency);
            at.breach(Invariant::I1, format!("investor {id}: {actual} in an account of {expected}"));
        }
        self.at = at.at();
    }

    /// And what holds after every fact.
    fn end(&mut self, at: &mut At<'_>, id: Uuid, what: &dyn Fn() -> String) {
        let Balances { available, reserved, committed } = self.balances;
        for (name, minor) in [("available", available), ("reserved", reserved), ("committed", committed)] {
            if minor < 0 {
                let shown = self.currency.show(minor.into());
                at.breach(Invariant::I1, format!("investor {id}: {name} would be {shown} after {}", what()));
            }
        }
        let sum = i128::from(available) + i128::from(reserved) + i128::from(committed);
        if sum != i128::from(self.added) {
            let (sum, added) = (self.currency.show(sum), self.currency.show(self.added.into()));
            at.breach(
                Invariant::I1,
                format!("investor {id}: {sum} after {}, and {added} were added", what()),
            );
        }
        if at.shown {
            self.shown = Some(self.balances);
        }
    }
}

/// A move of reserved money, as its fact states it.
struct Moved {
    investor: Uuid,
    bid: Uuid,
    invoice: Uuid,
    kind: Move,
    amount: Money,
    remainder: Money,
}

impl Moved {
    fn what(&self) -> String {
        format!("{} of {} of bid {}", self.kind.code(), self.amount, self.bid)
    }
}

impl Fold {
    pub(super) fn investor_created(&mut self, at: &mut At<'_>, fact: &InvestorCreated<'_>) -> Links {
        let id = fact.investor_id;
        at.is_about(Kind::Investor, id);
        let investor = self.investors.entry(id).or_insert_with(|| Investor::missing(fact.currency_code));
        at.version(&mut investor.version);
        if investor.created {
            at.breach(Invariant::I3, format!("investor {id} is created a second time"));
        }
        if investor.currency != fact.currency_code {
            let (before, now) = (investor.currency, fact.currency_code);
            at.breach(Invariant::I1, format!("investor {id}: the currency changes from {before} to {now}"));
        }
        investor.created = true;
        investor.name = digest_of(&fact.name);
        investor.at = at.at();
        if at.shown {
            investor.shown = Some(investor.balances);
        }
        Links::FIRST
    }

    pub(super) fn funds_added(&mut self, at: &mut At<'_>, fact: &FundsAdded) -> Links {
        let (id, amount) = (fact.investor_id, fact.amount.0);
        let investor = self.investors.entry(id).or_insert_with(|| Investor::missing(amount.currency));
        investor.begin(at, id, amount);
        investor.added = investor.added.saturating_add(amount.minor);
        investor.balances.available = investor.balances.available.saturating_add(amount.minor);
        investor.end(at, id, &|| format!("{amount} were added"));
        Links::FIRST
    }

    pub(super) fn bid_placed(&mut self, at: &mut At<'_>, fact: &facts::Offer) -> Links {
        let facts::Offer { investor_id: id, bid_id, invoice_id, amount } = *fact;
        let amount = amount.0;
        let investor = self.investors.entry(id).or_insert_with(|| Investor::missing(amount.currency));
        investor.begin(at, id, amount);
        let balances = &mut investor.balances;
        balances.available = balances.available.saturating_sub(amount.minor);
        balances.reserved = balances.reserved.saturating_add(amount.minor);
        investor.open_bids = investor.open_bids.saturating_add(1);
        investor.end(at, id, &|| format!("bid {bid_id} of {amount} was placed"));

        let bid = self.bids.entry(bid_id).or_insert_with(|| Bid::new(id, invoice_id, amount));
        if bid.placed {
            at.breach(Invariant::I3, format!("bid {bid_id} is placed a second time"));
        }
        (bid.investor, bid.invoice, bid.amount) = (id, invoice_id, amount);
        (bid.placed, bid.part, bid.left) = (true, Part::Everything, amount.minor);
        bid.shown_placed |= at.shown;
        bid.at = at.at();
        let step =
            Step { wanted: Wanted::Answer, investor: id, bid: bid_id, invoice: invoice_id, money: amount };
        Links { effect: None, reaction: Some((Policy::ProcessPlacedBid, step)) }
    }

    pub(super) fn released(&mut self, at: &mut At<'_>, fact: &Released) -> Links {
        let moved = Moved {
            investor: fact.investor_id,
            bid: fact.bid_id,
            invoice: fact.invoice_id,
            kind: fact.kind,
            amount: fact.amount.0,
            remainder: fact.remainder,
        };
        self.moved(at, &moved)
    }

    pub(super) fn committed(&mut self, at: &mut At<'_>, fact: &Committed) -> Links {
        let moved = Moved {
            investor: fact.investor_id,
            bid: fact.bid_id,
            invoice: fact.invoice_id,
            kind: Move::Commit,
            amount: fact.amount.0,
            remainder: fact.remainder,
        };
        self.moved(at, &moved)
    }

    fn moved(&mut self, at: &mut At<'_>, moved: &Moved) -> Links {
        let Moved { investor: id, bid: bid_id, invoice, kind, amount, .. } = *moved;
        let investor = self.investors.entry(id).or_insert_with(|| Investor::missing(amount.currency));
        investor.begin(at, id, amount);
        let balances = &mut investor.balances;
        balances.reserved = balances.reserved.saturating_sub(amount.minor);
        let to = if kind == Move::Commit { &mut balances.committed } else { &mut balances.available };
        *to = to.saturating_add(amount.minor);

        let bid = self.bids.entry(bid_id).or_insert_with(|| Bid::new(id, invoice, amount));
        bid.at = at.at();
        take(bid, at, moved);
        if bid.part == Part::Closed {
            investor.open_bids = investor.open_bids.saturating_sub(1);
        }
        investor.end(at, id, &|| moved.what());
        let step = Step { wanted: Wanted::Move(kind), investor: id, bid: bid_id, invoice, money: amount };
        Links { effect: Some(step), reaction: None }
    }
}

/// Takes a move out of its bid's reservation.
fn take(bid: &mut Bid, at: &mut At<'_>, moved: &Moved) {
    let Moved { kind, amount, .. } = *moved;
    if !bid.placed || bid.investor != moved.investor || bid.invoice != moved.invoice {
        at.breach(
            Invariant::I3,
            format!("{}: investor {} has not placed that bid", moved.what(), moved.investor),
        );
        return;
    }
    let left = bid.left.saturating_sub(amount.minor);
    let (part, whole) = match (bid.part, kind) {
        (Part::Everything, Move::Release) => (Part::Closed, true),
        (Part::Everything, Move::Excess) => (Part::AskingPrice, false),
        (Part::Everything, Move::Return | Move::Commit) => (Part::Excess, false),
        (Part::AskingPrice, Move::Return | Move::Commit) | (Part::Excess, Move::Excess) => {
            (Part::Closed, true)
        }
        (Part::AskingPrice, Move::Release | Move::Excess)
        | (Part::Excess, Move::Release | Move::Return | Move::Commit)
        | (Part::Nothing | Part::Closed, _) => {
            at.breach(Invariant::I3, format!("{}: that part has moved already", moved.what()));
            return;
        }
    };
    let reserved = Money { minor: bid.left, currency: bid.amount.currency };
    if left < 0 || (whole && left != 0) || (kind == Move::Excess && part == Part::AskingPrice && left == 0) {
        at.breach(Invariant::I1, format!("{}: {reserved} are reserved for it", moved.what()));
    }
    bid.left = left;
    bid.part = if left == 0 { Part::Closed } else { part };
    if moved.remainder != (Money { minor: left, currency: bid.amount.currency }) {
        let rest = bid.amount.currency.show(left.into());
        at.breach(Invariant::I1, format!("{} leaves {}, and {rest} are left", moved.what(), moved.remainder));
    }
    let settlement = match kind {
        Move::Commit => Some(Settlement::Committed),
        Move::Release | Move::Return => Some(Settlement::Released),
        Move::Excess => None,
    };
    if kind == Move::Commit {
        bid.committed = bid.committed.saturating_add(amount.minor);
    }
    if settlement.is_some() {
        bid.settlement = settlement;
        if at.shown {
            bid.shown_settlement = settlement;
        }
    }
}
