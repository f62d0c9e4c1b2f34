//! Where those sit who wait for an outcome: the receiving end of [`Replies`].
//!
//! The rule this module protects: a reply goes to the one delivery of a command that it answers. Two clients may send
//! different commands under one id, and only one of them is told that its own was done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::outcome::Reply;
use crate::ports::Replies;

/// A desk with an address. A clone is the same desk.
#[derive(Clone)]
pub struct Desk {
    address: Arc<str>,
    seats: Arc<Mutex<Seats>>,
}

#[derive(Default)]
struct Seats {
    last: u64,
    taken: HashMap<u64, oneshot::Sender<Reply>>,
}

/// One who waits at a [`Desk`]. Dropping it gives the seat up.
pub struct Expectation {
    desk: Desk,
    seat: u64,
    reply: oneshot::Receiver<Reply>,
}

impl Desk {
    /// A desk under this address, which is not empty and has no dot at its end.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: Arc::from(address), seats: Arc::default() }
    }

    /// The desk's address. Replies are sent to the addresses of its seats: this, a dot, and a number.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a seat, before the command is sent.
    #[must_use]
    pub fn expect(&self) -> Expectation {
        let (sender, reply) = oneshot::channel();
        let mut seats = self.seats();
        seats.last = seats.last.wrapping_add(1);
        let seat = seats.last;
        seats.taken.insert(seat, sender);
        drop(seats);
        Expectation { desk: self.clone(), seat, reply }
    }

    /// Hands a reply over, where it is addressed to a seat of this desk and somebody still sits there.
    pub fn deliver(&self, address: &str, reply: Reply) {
        let seat = address
            .strip_prefix(self.address.as_ref())
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|seat| seat.parse().ok());
        if let Some(waiting) = seat.and_then(|seat: u64| self.seats().taken.remove(&seat)) {
            // Whoever has left in the meantime does not want it any more.
            let _gone = waiting.send(reply);
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // A panic while holding the lock leaves a plain map behind, which is never half-changed.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expectation {
    /// Where the reply has to be sent.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}.{}", self.desk.address, self.seat)
    }

    /// Completes with the reply; `None` never happens while the seat is taken.
    pub async fn reply(mut self) -> Option<Reply> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        self.desk.seats().taken.remove(&self.seat);
    }
}

/// In one process, sending a reply is handing it over the desk.
impl Replies for Desk {
    async fn send(&self, replies: Vec<(String, Reply)>) {
        for (address, reply) in replies {
            self.deliver(&address, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_to_its_seat_only() {
        let desk = Desk::new("here");
        let reply = Reply::Reused { command_id: uuid::Uuid::from_u128(1) };
        let (mut one, mut other) = (desk.expect(), desk.expect());
        assert_ne!(one.address(), other.address());
        for wrong in ["", "here", "here.", "here.x", "there.1", "here.99"] {
            desk.deliver(wrong, reply.clone());
        }
        desk.deliver(&one.address(), reply.clone());
        assert_eq!(one.reply.try_recv(), Ok(reply));
        assert!(other.reply.try_recv().is_err());
    }

    #[test]
    fn a_seat_is_free_again_when_nobody_waits_any_more() {
        let desk = Desk::new("here");
        drop(desk.expect());
        assert!(desk.seats().taken.is_empty());
    }
}
