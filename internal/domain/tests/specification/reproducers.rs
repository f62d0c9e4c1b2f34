//! What the reference implementation gets wrong, one by one.

use domain::currency::Currency;
use domain::events::Event;
use domain::ids::{InvestorId, IssuerId};
use domain::integration::{INVESTOR_REGISTERED, IntegrationEvent};
use domain::invoice::{InvoiceEvent, InvoiceStatus};
use domain::money::{Amount, Money, MoneyError};
use domain::refusal::{BidRejection, Refusal};
use domain::reservation::ReleaseKind;
use eventsourcing::model::DecodeError;

use crate::vocabulary::*;
use crate::world::{Answer, World, balance};

/// An issuer with an invoice on sale, and two investors with so much.
fn world(asking_price: Amount, opening: Money) -> World {
    let mut world = World::default();
    world.register_issuer(ISSUER);
    world.register_investor(INVESTOR, opening);
    world.register_investor(OTHER_INVESTOR, opening);
    world.sell(INVOICE, ISSUER, asking_price);
    world
}

#[test]
fn a_rejected_bid_and_then_another_bid_on_the_same_invoice() {
    let mut world = world(eur(200), money(1_000));
    world.bid(BID, INVESTOR, INVOICE, eur(199));
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(1_000), money(0), money(0)]);
    assert_eq!(world.invoice(INVOICE).status(), Some(InvoiceStatus::Available));

    world.bid(OTHER_BID, OTHER_INVESTOR, INVOICE, eur(250));
    world.settle();
    assert_eq!(world.invoice(INVOICE).winning_bid().unwrap().bid_id, OTHER_BID);
    assert_eq!(world.balances(OTHER_INVESTOR), [money(800), money(200), money(0)]);
}

#[test]
fn the_winning_bid_delivered_twice() {
    let mut world = world(eur(200), money(1_000));
    world.bid(BID, INVESTOR, INVOICE, eur(300));
    let process_bid = world.pending.first().unwrap().clone();
    world.settle();
    assert_eq!(world.send(process_bid.clone()), Answer::Unchanged);
    world.approve(INVOICE);
    assert_eq!(world.send(process_bid), Answer::Unchanged);
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(800), money(0), money(200)]);
    let rejections = world.log.iter().filter(|(_, event)| event.event_type() == "BidOnInvoiceRejected");
    assert_eq!(rejections.count(), 0);
}

#[test]
fn a_bid_on_an_invoice_that_does_not_exist() {
    let mut world = world(eur(200), money(1_000));
    world.bid(BID, INVESTOR, OTHER_INVOICE, eur(300));
    assert_eq!(world.balances(INVESTOR), [money(700), money(300), money(0)]);
    world.settle();
    assert_eq!(world.refused.last().unwrap().1, Refusal::InvoiceNotFound { invoice_id: OTHER_INVOICE });
    assert_eq!(world.balances(INVESTOR), [money(1_000), money(0), money(0)]);
}

#[test]
fn a_bid_of_0_08_on_an_asking_price_of_0_01_approved_to_the_cent() {
    let mut world = world(eur(1), money(8));
    world.bid(BID, INVESTOR, INVOICE, eur(8));
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(7), money(1), money(0)]);
    world.approve(INVOICE);
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(7), money(0), money(1)]);
}

#[test]
fn a_negative_opening_balance() {
    let data = format!(
        r#"{{"investor_id":"{INVESTOR}","name":"Ada","balance":{{"currency_code":"EUR","units":-1}}}}"#
    );
    let answer = IntegrationEvent::decode(INVESTOR_REGISTERED, &data);
    assert!(
        matches!(&answer, Err(DecodeError::Malformed { reason, .. }) if reason.contains("negative")),
        "{answer:?}"
    );
    assert_eq!(Money::from_wire("EUR", -1, 0), Err(MoneyError::Negative));
    assert_eq!(Money::from_wire("EUR", 0, -10_000_000), Err(MoneyError::Negative));
}

#[test]
fn an_investors_id_used_as_an_issuer() {
    let mut world = world(eur(200), money(1_000));
    let not_an_issuer = IssuerId::new(OTHER_INVESTOR.as_uuid());
    assert_eq!(
        world.sell(OTHER_INVOICE, not_an_issuer, eur(200)),
        Answer::Refused(Refusal::IssuerNotFound { issuer_id: not_an_issuer })
    );

    // The same legal party in both roles is fine, until it finances itself.
    let issuer_as_investor = InvestorId::new(ISSUER.as_uuid());
    world.register_investor(issuer_as_investor, money(1_000));
    world.bid(BID, issuer_as_investor, INVOICE, eur(300));
    world.settle();
    let rejection = world.log.iter().find_map(|(_, event)| match event {
        Event::Invoice(InvoiceEvent::BidOnInvoiceRejected(rejected)) => Some(rejected.reason),
        Event::Issuer(_) | Event::Investor(_) | Event::Invoice(_) => None,
    });
    assert_eq!(rejection, Some(BidRejection::SelfFinancing));
    assert_eq!(world.balances(issuer_as_investor), [money(1_000), money(0), money(0)]);
}

#[test]
fn a_release_repeated_while_another_bid_is_open() {
    let mut world = world(eur(200), money(1_000));
    world.bid(BID, INVESTOR, INVOICE, eur(199));
    world.settle();
    world.bid(OTHER_BID, INVESTOR, INVOICE, eur(200));
    let before = world.balances(INVESTOR);
    let again = world.send(release(BID, ReleaseKind::Release, eur(199)));
    assert_eq!(again, Answer::Refused(Refusal::ReservationNotOpen { bid_id: BID }));
    assert_eq!(world.balances(INVESTOR), before);
    assert_eq!(before, [money(800), money(200), money(0)]);
}

#[test]
fn an_amount_in_another_currency() {
    let mut world = world(eur(200), balance(1_000, Currency::USD));
    let refusal = Refusal::CurrencyMismatch { expected: Currency::USD, actual: Currency::EUR };
    assert_eq!(world.bid(BID, INVESTOR, INVOICE, eur(300)), Answer::Refused(refusal));

    world.bid(BID, INVESTOR, INVOICE, usd(300));
    world.settle();
    assert_eq!(world.invoice(INVOICE).status(), Some(InvoiceStatus::Available));
    let nothing = balance(0, Currency::USD);
    assert_eq!(world.balances(INVESTOR), [balance(1_000, Currency::USD), nothing, nothing]);
}

#[test]
fn amounts_at_the_ceiling() {
    let most = eur(Money::MAX_MINOR);
    let mut world = world(most, most.money());
    world.bid(BID, INVESTOR, INVOICE, most);
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(0), most.money(), money(0)]);
    world.reverse(INVOICE);
    world.settle();
    assert_eq!(world.balances(INVESTOR), [most.money(), money(0), money(0)]);

    world.sell(OTHER_INVOICE, ISSUER, eur(1));
    world.bid(OTHER_BID, INVESTOR, OTHER_INVOICE, most);
    world.settle();
    world.approve(OTHER_INVOICE);
    world.settle();
    assert_eq!(world.balances(INVESTOR), [money(Money::MAX_MINOR - 1), money(0), money(1)]);

    assert_eq!(Money::from_minor(Money::MAX_MINOR + 1, Currency::EUR), Err(MoneyError::TooLarge));
    assert_eq!(Amount::from_wire("EUR", 10_000_000_000_000, 10_000_000), Err(MoneyError::TooLarge));
    assert_eq!(Amount::from_wire("EUR", i64::MAX, 990_000_000), Err(MoneyError::TooLarge));
}
