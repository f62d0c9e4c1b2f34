//! Outcomes, for those who wait for them in other processes, over core NATS.
//!
//! The rule this module protects: a reply is a courtesy. Losing one is harmless, because whoever waits asks again; so nothing
//! waits for it, and it is sent nowhere but to a desk.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use eventsourcing::desk::Desk;
use eventsourcing::environment::Stop;
use eventsourcing::outcome::Reply;
use eventsourcing::ports::Replies;
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::connect::Nats;
use super::error::NatsError;

/// What the address of every desk begins with.
const ADDRESSES: &str = "financing.replies.";
/// How long the sender waits for a connection that does not write.
const COURTESY: Duration = Duration::from_secs(1);

/// The address of a new desk.
#[must_use]
pub fn reply_address(id: Uuid) -> String {
    format!("{ADDRESSES}{id}")
}

/// Whether replies may be sent there: addresses come with the commands, from wherever.
fn is_address(address: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let rest = address.strip_prefix(ADDRESSES);
    rest.is_some_and(|rest| rest.split('.').all(|token| !token.is_empty() && token.bytes().all(allowed)))
}

/// Sends replies to desks in other processes.
#[derive(Debug, Clone)]
pub struct NatsReplies(Nats);

impl NatsReplies {
    /// Over this connection.
    #[must_use]
    pub fn new(nats: &Nats) -> Self {
        Self(nats.clone())
    }
}

impl Replies for NatsReplies {
    async fn send(&self, replies: Vec<(String, Reply)>) {
        let (count, mut astray, mut sent) = (replies.len(), 0_usize, 0_usize);
        let lost = self.0.lost();
        let sending = async {
            for (address, reply) in replies {
                if !is_address(&address) {
                    astray += 1;
                    continue;
                }
                // Without a connection it would be sent some time later, when whoever waited has asked again.
                let handed = match serde_json::to_vec(&reply) {
                    Ok(payload) if self.0.is_connected() => {
                        self.0.client().publish(address, Bytes::from(payload)).await.is_ok()
                    }
                    Ok(_) | Err(_) => false,
                };
                sent += usize::from(handed);
            }
        };
        // What waits to be written is bounded, and is not written while the connection is away.
        tokio::select! {
            () = sending => {}
            () = lost => {}
            () = tokio::time::sleep(COURTESY) => {}
        }
        let unsent = count - astray - sent;
        if astray > 0 {
            tracing::debug!(count = astray, "replies to addresses that are no desk's were not sent");
        }
        if unsent > 0 {
            tracing::warn!(count = unsent, "replies were not sent: whoever waits asks again");
        }
    }
}

impl Nats {
    /// Hands replies over the desk, for as long as the future that it answers with runs: until the stop, or until the
    /// connection is closed. Replies that are sent from now on are kept for it.
    ///
    /// # Errors
    ///
    /// When the desk's address is not one that replies are sent to, or the connection is closed.
    pub async fn receive(
        &self,
        desk: Desk,
        stop: Stop,
    ) -> Result<impl Future<Output = ()> + Send + use<>, NatsError> {
        if !is_address(desk.address()) {
            return Err(NatsError::Settings(format!("no reply is ever sent to {}", desk.address())));
        }
        let subscribed = self.client().subscribe(format!("{}.*", desk.address())).await;
        let mut replies = subscribed.map_err(|error| NatsError::Unavailable(error.to_string()))?;
        Ok(async move {
            loop {
                let message = tokio::select! {
                    message = replies.next() => message,
                    () = stop.given() => return,
                };
                let Some(message) = message else { return };
                match serde_json::from_slice(&message.payload) {
                    Ok(reply) => desk.deliver(&message.subject, reply),
                    Err(error) => tracing::warn!(%error, "a reply cannot be read"),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_to_desks_only() {
        let address = reply_address(Uuid::from_u128(7));
        assert!(is_address(&address) && is_address(&format!("{address}.1")));
        for wrong in [
            "",
            "financing.replies.",
            "financing.replies.a b",
            "financing.replies.*",
            "financing.replies.>",
            "financing.replies.a..b",
            "financing.replies.a\r\nPUB x 0",
            "financing.commands.1",
            "$JS.API.STREAM.DELETE.COMMANDS",
        ] {
            assert!(!is_address(wrong), "{wrong:?}");
        }
    }
}
