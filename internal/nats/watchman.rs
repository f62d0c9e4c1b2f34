//! Leaving a server that has lost the others.
//!
//! The rule this module protects: a connection that stands, to a server that can do nothing, is as good as none. A server that
//! its cluster cannot reach keeps its clients and answers nothing that takes a majority, for as long as the others are away; and
//! whoever stays with it holds partitions that it cannot work.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::response::Response;
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// The pause between two questions, and how long the answer to one may take.
const PAUSE: Duration = Duration::from_secs(2);

/// So many questions without an answer, and another server is tried: longer than a cluster takes to choose who leads it, which no
/// client can hurry.
const UNANSWERED: u32 = 3;

/// Begins to ask whether JetStream answers, and to leave a server over which it does not, where there are others: so many are known
/// from the settings, and servers say of each other where they are.
pub(super) fn watch(client: &Client, jetstream: &Context, known: usize) -> AbortHandle {
    let (client, jetstream) = (client.clone(), jetstream.clone());
    let watching = async move {
        let (mut unanswered, mut most) = (0, known);
        loop {
            sleep(PAUSE).await;
            // (One that has lost the others does not know of them any more.)
            most = most.max(client.server_info().connect_urls.len());
            // Where there is no connection the client looks for one by itself; and one server has nobody to lose.
            if most < 2 || client.connection_state() != State::Connected || answers(&jetstream).await {
                unanswered = 0;
                continue;
            }
            unanswered += 1;
            if unanswered < UNANSWERED {
                continue;
            }
            tracing::warn!("JetStream does not answer over this NATS server: trying another");
            let left = client.server_info().server_id;
            if client.force_reconnect().await.is_err() {
                return;
            }
            sleep(PAUSE).await;
            // The client may have chosen the same one again.
            unanswered = if client.server_info().server_id == left { UNANSWERED - 1 } else { 0 };
        }
    };
    tokio::spawn(watching).abort_handle()
}

/// A majority that has chosen its leader answers; a server that is not part of one says so, or nothing.
async fn answers(jetstream: &Context) -> bool {
    let asked = timeout(PAUSE, jetstream.request("INFO", &())).await;
    matches!(asked, Ok(Ok(Response::<Value>::Ok(_))))
}
