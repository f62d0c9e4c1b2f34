//! Where those sit who wait for an outcome: the receiving end of [`Replies`].
//!
//! The rule this module protects: a reply goes to the one delivery of a command that it answers. Two clients may send
//! different commands under one id, and only one of them is told that its own was done. And an address outlives whoever
//! sat there, in the queue: what an earlier process was asked for is never handed to a client of this one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

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
    taken: HashMap<u64, Seat>,
}

struct Seat {
    command_id: Uuid,
    waiting: oneshot::Sender<Reply>,
}

/// One who waits at a [`Desk`]. Dropping it gives the seat up.
pub struct Expectation {
    desk: Desk,
    seat: u64,
    reply: oneshot::Receiver<Reply>,
}

impl Desk {
    /// A desk under this address, which no other desk may ever have had: addresses are stored with the commands.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: Arc::from(address), seats: Arc::default() }
    }

    /// The desk's address. Replies are sent to the addresses of its seats: this, a dot, and a number.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a seat for a command's outcome, before the command is sent.
    #[must_use]
    pub fn expect(&self, command_id: Uuid) -> Expectation {
        let (waiting, reply) = oneshot::channel();
        let mut seats = self.seats();
        seats.last = seats.last.wrapping_add(1);
        let seat = seats.last;
        seats.taken.insert(seat, Seat { command_id, waiting });
        drop(seats);
        Expectation { desk: self.clone(), seat, reply }
    }

    /// Hands a reply over, where it is addressed to a seat of this desk and whoever sits there waits for this command.
    pub fn deliver(&self, address: &str, reply: Reply) {
        let seat = address
            .strip_prefix(self.address.as_ref())
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|seat| seat.parse().ok());
        let Some(seat): Option<u64> = seat else { return };
        let mut seats = self.seats();
        if seats.taken.get(&seat).is_none_or(|taken| taken.command_id != reply.command_id()) {
            return;
        }
        if let Some(Seat { waiting, .. }) = seats.taken.remove(&seat) {
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
        let command_id = Uuid::from_u128(1);
        let reply = Reply::Reused { command_id };
        let (mut one, mut other) = (desk.expect(command_id), desk.expect(command_id));
        assert_ne!(one.address(), other.address());
        for wrong in ["", "here", "here.", "here.x", "there.1", "here.99"] {
            desk.deliver(wrong, reply.clone());
        }
        desk.deliver(&one.address(), reply.clone());
        assert_eq!(one.reply.try_recv(), Ok(reply));
        assert!(other.reply.try_recv().is_err());
    }

    #[test]
    fn a_reply_to_another_command_leaves_the_seat_taken() {
        let desk = Desk::new("here");
        let (command_id, stranger) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut one = desk.expect(command_id);
        desk.deliver(&one.address(), Reply::Reused { command_id: stranger });
        assert!(one.reply.try_recv().is_err());
        desk.deliver(&one.address(), Reply::Reused { command_id });
        assert_eq!(one.reply.try_recv(), Ok(Reply::Reused { command_id }));
    }

    #[test]
    fn a_seat_is_free_again_when_nobody_waits_any_more() {
        let desk = Desk::new("here");
        drop(desk.expect(Uuid::from_u128(1)));
        assert!(desk.seats().taken.is_empty());
    }
}
