//! Wake-ups between processes, over core NATS.
//!
//! The rule this module protects: a wake-up is a hint. Nothing depends on one: it may be lost, and rings that come faster
//! than they can be sent are one.

use std::future::Future;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use eventsourcing::environment::{Doorbell, Doorbells, Stop};
use futures_util::StreamExt as _;
use tokio::task::AbortHandle;

use super::connect::Nats;
use super::error::NatsError;

/// What others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Records were committed to the log.
    Committed,
    /// Facts were projected into the read models.
    Projected,
}

impl Wake {
    const fn subject(self) -> &'static str {
        match self {
            Self::Committed => "financing.wake.committed",
            Self::Projected => "financing.wake.projected",
        }
    }
}

/// The bells that the connection carries outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Rings {
    committed: Doorbell,
    projected: Doorbell,
}

impl Rings {
    fn of(&self, topic: Wake) -> &Doorbell {
        match topic {
            Wake::Committed => &self.committed,
            Wake::Projected => &self.projected,
        }
    }

    /// Begins to carry them.
    pub(super) fn send_by(&self, client: &Client) -> Vec<AbortHandle> {
        let carry = |topic: Wake| {
            let (client, bell) = (client.clone(), self.of(topic).clone());
            let carrying = async move {
                loop {
                    bell.rung().await;
                    // Without a connection it would be sent some time later, when nobody needs it.
                    if client.connection_state() == State::Connected
                        && let Err(error) = client.publish(topic.subject(), Bytes::new()).await
                    {
                        tracing::debug!(%error, ?topic, "a wake-up was not sent");
                    }
                }
            };
            tokio::spawn(carrying).abort_handle()
        };
        vec![carry(Wake::Committed), carry(Wake::Projected)]
    }
}

impl Nats {
    /// Wakes whoever listens, here and elsewhere. Never waits.
    pub fn ring(&self, topic: Wake) {
        self.rings().of(topic).ring();
    }

    /// Rings these bells whenever somebody rings the topic, for as long as the future that it answers with runs:
    /// until the stop, or until the connection is closed.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    pub async fn listen(
        &self,
        topic: Wake,
        bells: Doorbells,
        stop: Stop,
    ) -> Result<impl Future<Output = ()> + Send + use<>, NatsError> {
        let subscribed = self.client().subscribe(topic.subject()).await;
        let mut heard = subscribed.map_err(|error| NatsError::Unavailable(error.to_string()))?;
        Ok(async move {
            loop {
                tokio::select! {
                    ring = heard.next() => match ring {
                        Some(_) => bells.ring(),
                        None => return,
                    },
                    () = stop.given() => return,
                }
            }
        })
    }
}
