//! The policies do not run, and the platform says what is missing without anybody who directs it.

use prost_types::Duration;

use crate::harness::proto::{GetStoryRequest, ListStuckRequest, StoryEnding, StuckStep};
use crate::harness::{Platform, eur};
use crate::ledger::until;
use crate::parts::Parts;

async fn stuck(platform: &Platform) -> Vec<StuckStep> {
    let request = ListStuckRequest { older_than: Some(Duration::default()), page_size: 10 };
    platform.queries().list_stuck(request).await.unwrap().into_inner().steps
}

#[tokio::test]
async fn while_no_policies_run_their_steps_are_listed_as_stuck() {
    // given
    let mut parts = Parts::new();
    parts.run(&["listener", "queries", "worker", "relayer", "projector"]).await;
    let platform = parts.platform().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let invoice = platform.sell(&issuer, eur(50, 0)).await;

    // when
    let bid = platform.bid(&investor, &invoice.id, eur(60, 0)).await.unwrap();

    // then
    let request = GetStoryRequest { invoice_id: invoice.id.clone(), token: bid.token.clone() };
    let story = platform.queries().get_story(request.clone()).await.unwrap().into_inner();
    let step = story.sagas[1].commands[1].clone();
    assert_eq!((step.method.as_str(), step.ending()), ("ProcessBid", StoryEnding::Expected));
    let listed = stuck(&platform).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0].command_id, &listed[0].invoice_id), (&step.id, &invoice.id));
    let told =
        parts.operate(&["stuck", "--older-than", "0s", "--query-addr", parts.address("queries")]).await;
    assert_eq!(told.status.code(), Some(3), "{told:?}");

    // when they run again
    parts.run(&["policies"]).await;

    // then
    until("nothing is stuck", async || stuck(&platform).await.is_empty()).await;
    let story = platform.queries().get_story(request).await.unwrap().into_inner();
    let methods: Vec<&str> = story.sagas[1].commands.iter().map(|step| step.method.as_str()).collect();
    assert_eq!(methods, ["BidOnInvoice", "ProcessBid", "ReleaseFunds"]);
    assert_eq!(story.sagas[1].commands[1].id, step.id, "the step is the one that was expected");
    parts.stop(&["policies"]).await;
}
