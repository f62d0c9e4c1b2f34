//! What happens, by chance, in an order in which it can.

use std::collections::{BTreeMap, VecDeque};

use domain::currency::Currency;
use domain::events::Event;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{
    BidOnInvoicePlaced, InvestorCreated, InvestorEvent, InvestorFundsAdded, InvestorFundsCommitted,
    InvestorFundsReleased,
};
use domain::invoice::{BidOnInvoiceRejected, InvoiceApproved, InvoiceCreated, InvoiceEvent, InvoiceFinanced};
use domain::money::{Amount, Money};
use domain::name::Name;
use domain::refusal::BidRejection;
use domain::reservation::ReleaseKind;
use eventsourcing::testkit::world::Dice;
use uuid::Uuid;

use super::partitions;
use super::platform::Platform;

pub(super) const ACME: IssuerId = IssuerId::new(Uuid::from_u128(1));

pub(super) fn ada(number: u128) -> InvestorId {
    InvestorId::new(Uuid::from_u128(0x100 + number))
}

pub(super) fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::EUR).unwrap()
}

pub(super) fn created(investor_id: InvestorId) -> Event {
    let name = Name::try_new("Ada").unwrap();
    InvestorEvent::InvestorCreated(InvestorCreated { investor_id, name, currency_code: Currency::EUR }).into()
}

pub(super) fn funds(investor_id: InvestorId, amount: i64) -> Event {
    let amount = cents(amount);
    InvestorEvent::InvestorFundsAdded(InvestorFundsAdded { investor_id, amount }).into()
}

pub(super) fn on_sale(invoice_id: InvoiceId) -> Event {
    let (issuer_id, asking_price) = (ACME, cents(10));
    InvoiceEvent::InvoiceCreated(InvoiceCreated { invoice_id, issuer_id, asking_price }).into()
}

/// A bid on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnItsWay {
    bid: BidId,
    by: InvestorId,
    on: InvoiceId,
}

impl OnItsWay {
    pub(super) fn placed(self) -> Event {
        let Self { bid: bid_id, by: investor_id, on: invoice_id } = self;
        let amount = cents(10);
        InvestorEvent::BidOnInvoicePlaced(BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount })
            .into()
    }

    pub(super) fn verdict(self, wins: bool) -> Event {
        let Self { bid: bid_id, by: investor_id, on: invoice_id } = self;
        let amount = cents(10);
        if wins {
            let (issuer_id, asking_price) = (ACME, amount);
            let financed =
                InvoiceFinanced { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
            return InvoiceEvent::InvoiceFinanced(financed).into();
        }
        let reason = BidRejection::InvoiceNotAvailable;
        InvoiceEvent::BidOnInvoiceRejected(BidOnInvoiceRejected {
            invoice_id,
            bid_id,
            investor_id,
            amount,
            reason,
        })
        .into()
    }

    /// With money around a release, so that no account ever stands as it stood before.
    pub(super) fn settled(self, won: bool) -> Vec<Event> {
        let Self { bid: bid_id, by: investor_id, on: invoice_id } = self;
        let (amount, remainder) = (cents(10), Money::zero(Currency::EUR));
        if won {
            let (issuer_id, asking_price) = (ACME, amount);
            let approved =
                InvoiceApproved { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
            let committed = InvestorFundsCommitted { investor_id, bid_id, invoice_id, amount, remainder };
            return vec![
                InvoiceEvent::InvoiceApproved(approved).into(),
                InvestorEvent::InvestorFundsCommitted(committed).into(),
            ];
        }
        let kind = ReleaseKind::Release;
        let released = InvestorFundsReleased { investor_id, bid_id, invoice_id, kind, amount, remainder };
        vec![
            funds(investor_id, 1),
            InvestorEvent::InvestorFundsReleased(released).into(),
            funds(investor_id, 1),
        ]
    }
}

/// What happens, by chance, in an order in which it can.
pub(super) struct Business {
    dice: Dice,
    next: VecDeque<Event>,
    bids: u128,
    sold: BTreeMap<InvoiceId, bool>,
    placed: Vec<OnItsWay>,
    judged: Vec<(OnItsWay, bool)>,
}

impl Business {
    const INVESTORS: u128 = 3;

    pub(super) fn begin(seed: u64) -> Self {
        let next = (0..Self::INVESTORS).flat_map(|number| [created(ada(number)), funds(ada(number), 10_000)]);
        let (placed, judged) = (Vec::new(), Vec::new());
        Self { dice: Dice::new(seed), next: next.collect(), bids: 0, sold: BTreeMap::new(), placed, judged }
    }

    /// The next thing that happens. What `platform` has to have shown before is shown.
    pub(super) fn happens(&mut self, platform: &Platform) -> Event {
        if let Some(event) = self.next.pop_front() {
            return event;
        }
        let investor_id = ada(self.dice.below(Self::INVESTORS as usize) as u128);
        match self.dice.below(5) {
            0 => {
                let invoice_id = InvoiceId::new(Uuid::from_u128(0x200 + self.sold.len() as u128));
                self.sold.insert(invoice_id, false);
                on_sale(invoice_id)
            }
            1 if !self.placed.is_empty() => {
                let bid = self.placed.swap_remove(self.dice.below(self.placed.len()));
                let financed = self.sold.entry(bid.on).or_default();
                let wins = !std::mem::replace(financed, true);
                self.judged.push((bid, wins));
                bid.verdict(wins)
            }
            2 if !self.judged.is_empty() => {
                let (bid, won) = self.judged.swap_remove(self.dice.below(self.judged.len()));
                if won {
                    // Committed before it was won would look the same after it was won.
                    platform.project(partitions().partition_of(bid.on.as_uuid()), usize::MAX);
                }
                self.next.extend(bid.settled(won));
                self.next.pop_front().unwrap()
            }
            3 if !self.sold.is_empty() => {
                let invoice = self.dice.below(self.sold.len());
                let invoice_id = *self.sold.keys().nth(invoice).unwrap();
                self.bids += 1;
                // Their order is not the one in which they are placed.
                let bid_id = BidId::new(Uuid::new_v5(&Uuid::nil(), &self.bids.to_be_bytes()));
                let bid = OnItsWay { bid: bid_id, by: investor_id, on: invoice_id };
                self.placed.push(bid);
                bid.placed()
            }
            _ => funds(investor_id, 1),
        }
    }
}
