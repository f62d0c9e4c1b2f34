//! Replies in memory.

use std::sync::{Arc, Mutex};

use super::{Call, Interference, Way, lock};
use crate::desk::Desk;
use crate::outcome::Reply;
use crate::ports::Replies;

/// [`Replies`] in memory: keeps what was sent, and hands it over the desks that are connected.
#[derive(Clone, Default)]
pub struct MemoryReplies {
    state: Arc<Mutex<State>>,
    way: Way,
}

#[derive(Default)]
struct State {
    desks: Vec<Desk>,
    sent: Vec<(String, Reply)>,
}

impl MemoryReplies {
    /// Another handle on the same replies, on whose way somebody stands. A reply that fails is lost.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// Hands what is sent to this desk's address from now on over it; another desk there is gone.
    pub fn connect(&self, desk: Desk) {
        let mut state = lock(&self.state);
        state.desks.retain(|other| other.address() != desk.address());
        state.desks.push(desk);
    }

    /// Everything that arrived, in order, with the address that it was sent to.
    #[must_use]
    pub fn sent(&self) -> Vec<(String, Reply)> {
        lock(&self.state).sent.clone()
    }
}

impl Replies for MemoryReplies {
    async fn send(&self, replies: Vec<(String, Reply)>) {
        let arrive = || {
            let mut state = lock(&self.state);
            for (address, reply) in &replies {
                for desk in &state.desks {
                    desk.deliver(address, reply.clone());
                }
            }
            state.sent.extend(replies);
            Ok(())
        };
        // Losing one is harmless: whoever waits asks again.
        let _lost = self.way.call(Call::RepliesSend, arrive).await;
    }
}
