//! An issuer is registered once.

use domain::issuer::{CreateIssuer, Issuer, IssuerCommand, IssuerCreated, IssuerEvent};
use domain::refusal::Refusal;
use eventsourcing::testkit::scenario::Scenario;

use crate::vocabulary::{ISSUER, name};

fn create(text: &str) -> IssuerCommand {
    IssuerCommand::CreateIssuer(CreateIssuer { issuer_id: ISSUER, name: name(text) })
}

fn created(text: &str) -> IssuerEvent {
    IssuerEvent::IssuerCreated(IssuerCreated { issuer_id: ISSUER, name: name(text) })
}

#[test]
fn an_issuer_is_created() {
    Scenario::<Issuer>::given([]).when(create("Acme")).then([created("Acme")]);
}

#[test]
fn the_same_registration_again_changes_nothing() {
    Scenario::<Issuer>::given([created("Acme")]).when(create("Acme")).then_unchanged();
}

#[test]
fn the_same_issuer_with_another_name_is_refused() {
    Scenario::<Issuer>::given([created("Acme")])
        .when(create("Emca"))
        .then_refused(Refusal::AlreadyRegistered { id: ISSUER.as_uuid() });
}
