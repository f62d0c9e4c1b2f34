//! What a live query has sent and its client has not taken.
//!
//! The rule this module protects: it is bounded, and whoever fills it waits for room and for nothing else; so a client that does not
//! read costs a few messages, and its end tells it what to do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::Notify;
use tonic::Status;

/// Messages that wait at most.
const ROOM: usize = 4;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was put in, or it has ended.
    put: Notify,
    /// Something was taken out.
    taken: Notify,
    /// The client has gone.
    gone: Notify,
}

struct State<T> {
    waiting: VecDeque<T>,
    end: Option<Status>,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that is filled.
pub(crate) struct Outbox<T>(Arc<Shared<T>>);

/// The client's end.
struct Inbox<T>(Arc<Shared<T>>);

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.0.gone.notify_one();
    }
}

impl<T: Send + 'static> Outbox<T> {
    /// An empty one, and what comes out of it.
    pub(crate) fn new() -> (Self, BoxStream<'static, Result<T, Status>>) {
        let state = Mutex::new(State { waiting: VecDeque::new(), end: None });
        let (put, taken, gone) = (Notify::new(), Notify::new(), Notify::new());
        let shared = Arc::new(Shared { state, put, taken, gone });
        let inbox = Inbox(Arc::clone(&shared));
        let messages = stream::unfold(Some(inbox), |inbox| async {
            let inbox = inbox?;
            let message = inbox.take().await;
            let goes_on = message.is_ok();
            Some((message, goes_on.then_some(inbox)))
        });
        (Self(shared), messages.boxed())
    }

    /// Completes when there is room for a message. There is, until one is put in.
    pub(crate) async fn room(&self) {
        while self.0.state().waiting.len() >= ROOM {
            self.0.taken.notified().await;
        }
    }

    /// Sends a message.
    pub(crate) fn put(&self, message: T) {
        self.0.state().waiting.push_back(message);
        self.0.put.notify_one();
    }

    /// Ends it, behind what is waiting.
    pub(crate) fn end(self, status: Status) {
        self.0.state().end = Some(status);
        self.0.put.notify_one();
    }

    /// Ends it at once: what is waiting is not sent any more.
    pub(crate) fn cut_off(self, status: Status) {
        self.0.state().waiting.clear();
        self.end(status);
    }

    /// Completes when the client has gone.
    pub(crate) async fn gone(&self) {
        self.0.gone.notified().await;
    }
}

impl<T> Inbox<T> {
    async fn take(&self) -> Result<T, Status> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(message) = state.waiting.pop_front() {
                    self.0.taken.notify_one();
                    return Ok(message);
                }
                if let Some(end) = state.end.take() {
                    return Err(end);
                }
            }
            self.0.put.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn filled() -> (Outbox<usize>, BoxStream<'static, Result<usize, Status>>) {
        let (outbox, stream) = Outbox::new();
        for number in 0..ROOM {
            assert_eq!(outbox.room().now_or_never(), Some(()));
            outbox.put(number);
        }
        (outbox, stream)
    }

    #[tokio::test]
    async fn there_is_room_again_when_a_message_was_taken() {
        let (outbox, mut stream) = filled();
        assert_eq!(outbox.room().now_or_never(), None);
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        outbox.room().await;
        outbox.put(ROOM);
        outbox.end(Status::aborted("the end"));
        let rest: Vec<_> =
            stream.map(|message| message.map_err(|end| end.message().to_owned())).collect().await;
        let numbers = (1..=ROOM).map(Ok).chain([Err("the end".to_owned())]);
        assert_eq!(rest, numbers.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_cut_off_says_nothing_but_its_end() {
        let (outbox, mut stream) = filled();
        outbox.cut_off(Status::aborted("the end"));
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "the end");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_the_client_hears_that_it_has_gone() {
        let (outbox, stream) = filled();
        assert_eq!(outbox.gone().now_or_never(), None);
        drop(stream);
        outbox.gone().await;
    }
}
