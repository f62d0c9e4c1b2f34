//! Waiting until the money of a bid is where it belongs.
//!
//! The rule this module protects: who waits is told where the bid stands, also when the time is up.

use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use tonic::transport::Channel;

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{Bid, BidStatus, GetBidRequest};
use crate::runtime::client::{ClientError, timed};
use crate::runtime::environment::SystemEnvironment;

/// How long the client waits between two looks at a bid.
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// When this much time has passed.
pub(in crate::runtime) fn deadline(span: Duration) -> Timestamp {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(SystemEnvironment.now().as_micros().saturating_add(micros))
}

/// Whether that moment has come.
pub(in crate::runtime) fn is_past(deadline: Timestamp) -> bool {
    SystemEnvironment.now() >= deadline
}

/// Waits a moment before the next look.
pub(in crate::runtime) async fn pause() {
    SystemEnvironment.sleep(BETWEEN_LOOKS).await;
}

/// Whether nothing more happens to the bid by itself: it stands, or its money is back.
pub(in crate::runtime) fn stands(status: BidStatus) -> bool {
    match status {
        BidStatus::Won | BidStatus::Committed | BidStatus::Released => true,
        BidStatus::Placed | BidStatus::Rejected | BidStatus::Unspecified => false,
    }
}

/// Whether nothing happens to the bid any more.
pub(in crate::runtime) fn is_settled(status: BidStatus) -> bool {
    match status {
        BidStatus::Committed | BidStatus::Released => true,
        BidStatus::Won | BidStatus::Placed | BidStatus::Rejected | BidStatus::Unspecified => false,
    }
}

/// The bid as soon as it is so, or as it is when the time is up.
///
/// # Errors
///
/// When the platform does not answer.
pub(in crate::runtime) async fn until(
    queries: &mut QueryServiceClient<Channel>,
    bid_id: &str,
    token: &str,
    deadline: Timestamp,
    is_so: impl Fn(BidStatus) -> bool,
) -> Result<Bid, ClientError> {
    loop {
        let request = GetBidRequest { bid_id: bid_id.to_owned(), token: token.to_owned() };
        let bid = queries.get_bid(timed(request)).await?.into_inner().bid.unwrap_or_default();
        if is_so(bid.status()) || is_past(deadline) {
            return Ok(bid);
        }
        pause().await;
    }
}
