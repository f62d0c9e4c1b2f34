//! The bounded context as the kernel sees it: it decides on the state that it is given, whoever's it is.

use domain::ids::IssuerId;
use domain::issuer::{CreateIssuer, IssuerCommand};
use domain::refusal::Refusal;

use crate::vocabulary::*;
use crate::world::{Answer, World};

fn create(issuer_id: IssuerId, text: &str) -> IssuerCommand {
    IssuerCommand::CreateIssuer(CreateIssuer { issuer_id, name: name(text) })
}

#[test]
fn an_issuer_that_comes_again_is_the_one_that_is_there() {
    let mut world = World::default();
    assert!(matches!(world.send(create(ISSUER, "Ada")), Answer::Applied(_)));
    assert_eq!(world.send(create(ISSUER, "Ada")), Answer::Unchanged);
    let refusal = Refusal::AlreadyRegistered { id: ISSUER.as_uuid() };
    assert_eq!(world.send(create(ISSUER, "Grace")), Answer::Refused(refusal));
}
