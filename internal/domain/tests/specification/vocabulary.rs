//! Short words for the parties, the money and the facts that the specifications are about.

use domain::currency::Currency;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{
    BidOnInvoice, BidOnInvoicePlaced, CommitFunds, CreateInvestor, InvestorCommand, InvestorCreated,
    InvestorEvent, InvestorFundsAdded, InvestorFundsCommitted, InvestorFundsReleased, ReleaseFunds,
};
use domain::invoice::{
    ApproveFinancing, BidOnInvoiceRejected, InvoiceApproved, InvoiceCommand, InvoiceCreated, InvoiceEvent,
    InvoiceFinanced, InvoiceReversed, ProcessBid, ReverseFinancing, SellInvoice,
};
use domain::money::{Amount, Money};
use domain::name::Name;
use domain::refusal::BidRejection;
use domain::reservation::ReleaseKind;
use uuid::Uuid;

pub(crate) const ISSUER: IssuerId = IssuerId::new(Uuid::from_u128(0x15));
pub(crate) const INVESTOR: InvestorId = InvestorId::new(Uuid::from_u128(0x1));
pub(crate) const OTHER_INVESTOR: InvestorId = InvestorId::new(Uuid::from_u128(0x2));
/// The same legal party as [`ISSUER`].
pub(crate) const ISSUER_AS_INVESTOR: InvestorId = InvestorId::new(Uuid::from_u128(0x15));
pub(crate) const INVOICE: InvoiceId = InvoiceId::new(Uuid::from_u128(0xF));
pub(crate) const OTHER_INVOICE: InvoiceId = InvoiceId::new(Uuid::from_u128(0xE));
pub(crate) const BID: BidId = BidId::new(Uuid::from_u128(0xB));
pub(crate) const OTHER_BID: BidId = BidId::new(Uuid::from_u128(0xC));

pub(crate) fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

/// Euro cents.
pub(crate) fn eur(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::EUR).unwrap()
}

/// US cents.
pub(crate) fn usd(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::USD).unwrap()
}

/// Euro cents, possibly none.
pub(crate) fn money(cents: i64) -> Money {
    Money::from_minor(cents, Currency::EUR).unwrap()
}

pub(crate) fn create_investor(text: &str, balance: Money) -> InvestorCommand {
    InvestorCommand::CreateInvestor(CreateInvestor { investor_id: INVESTOR, name: name(text), balance })
}

pub(crate) fn bid(bid_id: BidId, amount: Amount) -> InvestorCommand {
    InvestorCommand::BidOnInvoice(BidOnInvoice { investor_id: INVESTOR, bid_id, invoice_id: INVOICE, amount })
}

pub(crate) fn release(bid_id: BidId, kind: ReleaseKind, amount: Amount) -> InvestorCommand {
    let (investor_id, invoice_id) = (INVESTOR, INVOICE);
    InvestorCommand::ReleaseFunds(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount })
}

pub(crate) fn commit(bid_id: BidId, amount: Amount) -> InvestorCommand {
    InvestorCommand::CommitFunds(CommitFunds { investor_id: INVESTOR, bid_id, invoice_id: INVOICE, amount })
}

/// The investor is there, with an empty euro account.
pub(crate) fn investor_created() -> InvestorEvent {
    let (investor_id, currency_code) = (INVESTOR, Currency::EUR);
    InvestorEvent::InvestorCreated(InvestorCreated { investor_id, name: name("Ada"), currency_code })
}

pub(crate) fn funds_added(amount: Amount) -> InvestorEvent {
    InvestorEvent::InvestorFundsAdded(InvestorFundsAdded { investor_id: INVESTOR, amount })
}

pub(crate) fn placed(bid_id: BidId, amount: Amount) -> InvestorEvent {
    let (investor_id, invoice_id) = (INVESTOR, INVOICE);
    InvestorEvent::BidOnInvoicePlaced(BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount })
}

pub(crate) fn released(bid_id: BidId, kind: ReleaseKind, amount: Amount, remainder: Money) -> InvestorEvent {
    let (investor_id, invoice_id) = (INVESTOR, INVOICE);
    let released = InvestorFundsReleased { investor_id, bid_id, invoice_id, kind, amount, remainder };
    InvestorEvent::InvestorFundsReleased(released)
}

pub(crate) fn committed(bid_id: BidId, amount: Amount, remainder: Money) -> InvestorEvent {
    let (investor_id, invoice_id) = (INVESTOR, INVOICE);
    let committed = InvestorFundsCommitted { investor_id, bid_id, invoice_id, amount, remainder };
    InvestorEvent::InvestorFundsCommitted(committed)
}

/// The investor with so much money and these bids placed.
pub(crate) fn investor_with(
    balance: Amount,
    facts: impl IntoIterator<Item = InvestorEvent>,
) -> impl IntoIterator<Item = InvestorEvent> {
    [investor_created(), funds_added(balance)].into_iter().chain(facts)
}

pub(crate) fn sell(issuer_id: IssuerId, asking_price: Amount) -> InvoiceCommand {
    InvoiceCommand::SellInvoice(SellInvoice { invoice_id: INVOICE, issuer_id, asking_price })
}

pub(crate) fn process(bid_id: BidId, investor_id: InvestorId, amount: Amount) -> InvoiceCommand {
    InvoiceCommand::ProcessBid(ProcessBid { invoice_id: INVOICE, bid_id, investor_id, amount })
}

pub(crate) fn approve() -> InvoiceCommand {
    InvoiceCommand::ApproveFinancing(ApproveFinancing { invoice_id: INVOICE })
}

pub(crate) fn reverse() -> InvoiceCommand {
    InvoiceCommand::ReverseFinancing(ReverseFinancing { invoice_id: INVOICE })
}

pub(crate) fn on_sale(asking_price: Amount) -> InvoiceEvent {
    InvoiceEvent::InvoiceCreated(InvoiceCreated { invoice_id: INVOICE, issuer_id: ISSUER, asking_price })
}

pub(crate) fn financed(bid_id: BidId, amount: Amount, asking_price: Amount) -> InvoiceEvent {
    let (invoice_id, issuer_id, investor_id) = (INVOICE, ISSUER, INVESTOR);
    let financed = InvoiceFinanced { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
    InvoiceEvent::InvoiceFinanced(financed)
}

pub(crate) fn rejected(
    bid_id: BidId,
    investor_id: InvestorId,
    amount: Amount,
    reason: BidRejection,
) -> InvoiceEvent {
    let invoice_id = INVOICE;
    let rejected = BidOnInvoiceRejected { invoice_id, bid_id, investor_id, amount, reason };
    InvoiceEvent::BidOnInvoiceRejected(rejected)
}

pub(crate) fn approved(bid_id: BidId, amount: Amount, asking_price: Amount) -> InvoiceEvent {
    let (invoice_id, issuer_id, investor_id) = (INVOICE, ISSUER, INVESTOR);
    let approved = InvoiceApproved { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
    InvoiceEvent::InvoiceApproved(approved)
}

pub(crate) fn reversed(bid_id: BidId, amount: Amount, asking_price: Amount) -> InvoiceEvent {
    let (invoice_id, issuer_id, investor_id) = (INVOICE, ISSUER, INVESTOR);
    let reversed = InvoiceReversed { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
    InvoiceEvent::InvoiceReversed(reversed)
}
