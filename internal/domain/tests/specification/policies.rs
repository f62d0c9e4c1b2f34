//! What follows from what, policy by policy.

use domain::events::Event;
use domain::financing::{Command, Financing};
use domain::ids::{InvestorId, InvoiceId};
use domain::invoice::InvoiceStatus;
use domain::issuer::{IssuerCreated, IssuerEvent};
use domain::money::Amount;
use domain::refusal::{BidRejection, Refusal};
use domain::reservation::ReleaseKind;
use domain::saga::Saga;
use eventsourcing::model::{Entry, Policies};

use crate::vocabulary::*;

fn after(fact: impl Into<Event>) -> Option<(&'static str, Command)> {
    Saga.react(&Entry::<Financing>::Fact(fact.into()))
}

fn after_refusal(command: impl Into<Command>, refusal: Refusal) -> Option<(&'static str, Command)> {
    Saga.react(&Entry::<Financing>::Refused { command: command.into(), refusal })
}

fn releasing(kind: ReleaseKind, amount: Amount) -> Command {
    release(BID, kind, amount).into()
}

#[test]
fn a_bid_that_was_placed_is_processed_by_the_invoice() {
    let expected = process(BID, INVESTOR, eur(300)).into();
    assert_eq!(after(placed(BID, eur(300))), Some(("process-placed-bid", expected)));
}

#[test]
fn a_bid_that_lost_is_released_whatever_the_reason() {
    for reason in BidRejection::ALL {
        let expected = releasing(ReleaseKind::Release, eur(300));
        let fact = rejected(BID, INVESTOR, eur(300), *reason);
        assert_eq!(after(fact), Some(("release-rejected-bid", expected)));
    }
}

#[test]
fn a_bid_that_won_gets_back_what_exceeds_the_asking_price() {
    let expected = releasing(ReleaseKind::Excess, eur(100));
    assert_eq!(after(financed(BID, eur(300), eur(200))), Some(("release-excess", expected)));
}

#[test]
fn a_bid_that_won_with_exactly_the_asking_price_gets_nothing_back() {
    assert_eq!(after(financed(BID, eur(200), eur(200))), None);
}

#[test]
fn the_asking_price_of_an_approved_invoice_is_committed() {
    let expected = commit(BID, eur(200)).into();
    assert_eq!(after(approved(BID, eur(300), eur(200))), Some(("commit-approved", expected)));
}

#[test]
fn the_asking_price_of_a_reversed_invoice_is_returned() {
    let expected = releasing(ReleaseKind::Return, eur(200));
    assert_eq!(after(reversed(BID, eur(300), eur(200))), Some(("return-reversed", expected)));
}

#[test]
fn a_bid_that_cannot_be_answered_is_released_whatever_the_reason() {
    let not_found = Refusal::InvoiceNotFound { invoice_id: INVOICE };
    let another = Refusal::InvoiceNotFinanced { status: InvoiceStatus::Available };
    for refusal in [not_found, another] {
        let expected = releasing(ReleaseKind::Release, eur(300));
        let reaction = after_refusal(process(BID, INVESTOR, eur(300)), refusal);
        assert_eq!(reaction, Some(("release-refused-bid", expected)));
    }
}

#[test]
fn nothing_follows_from_any_other_refusal() {
    let refusal = || Refusal::ReservationNotOpen { bid_id: BID };
    let commands: [Command; 6] = [
        bid(BID, eur(1)).into(),
        commit(BID, eur(1)).into(),
        releasing(ReleaseKind::Release, eur(1)),
        sell(ISSUER, eur(1)).into(),
        approve().into(),
        reverse().into(),
    ];
    for command in commands {
        assert_eq!(after_refusal(command, refusal()), None);
    }
}

#[test]
fn nothing_follows_from_the_facts_that_end_a_saga_or_begin_none() {
    let issuer_created = IssuerEvent::IssuerCreated(IssuerCreated { issuer_id: ISSUER, name: name("Acme") });
    assert_eq!(after(issuer_created), None);
    for fact in [
        investor_created(),
        funds_added(eur(1)),
        committed(BID, eur(1), money(0)),
        released(BID, ReleaseKind::Release, eur(1), money(0)),
    ] {
        assert_eq!(after(fact), None);
    }
    assert_eq!(after(on_sale(eur(1))), None);
}

#[test]
fn nothing_follows_from_a_command_that_changed_nothing_or_is_dead() {
    let command = process(BID, INVESTOR, eur(300)).into();
    assert_eq!(Saga.react(&Entry::<Financing>::Unchanged { command }), None);
    assert_eq!(Saga.react(&Entry::<Financing>::Dead), None);
    assert_eq!(Saga.react(&Entry::<Financing>::Discarded), None);
}

#[test]
fn the_policies_names_are_what_they_always_were() {
    use domain::saga::names::{
        COMMIT_APPROVED, PROCESS_PLACED_BID, RELEASE_EXCESS, RELEASE_REFUSED_BID, RELEASE_REJECTED_BID,
        RETURN_REVERSED,
    };
    // A new name would do the work of every saga that is under way a second time.
    assert_eq!(
        [PROCESS_PLACED_BID, RELEASE_REJECTED_BID, RELEASE_EXCESS],
        ["process-placed-bid", "release-rejected-bid", "release-excess"]
    );
    assert_eq!(
        [COMMIT_APPROVED, RETURN_REVERSED, RELEASE_REFUSED_BID],
        ["commit-approved", "return-reversed", "release-refused-bid"]
    );
}

#[test]
fn an_id_of_one_kind_names_an_aggregate_of_that_kind() {
    let id = ISSUER.as_uuid();
    assert_eq!(ISSUER.aggregate().to_string(), format!("issuer/{id}"));
    assert_eq!(InvestorId::from(id).aggregate().to_string(), format!("investor/{id}"));
    assert_eq!(InvoiceId::from(id).aggregate().to_string(), format!("invoice/{id}"));
}
