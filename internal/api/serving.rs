//! Connections, and the calls that come in on them.
//!
//! The rule this module protects: a call that is refused at the [gate](super::gate) costs no more than it has to. It passes nothing on its
//! way, gets a task of its own only where it comes in pieces, and shares one with those that came with it; so this is hyper with
//! the services right behind it, and not tonic's own server, which puts half a dozen layers and a task between a call and whoever
//! might refuse it.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service as _;

use eventsourcing::environment::Stop;

use super::connections::Connection;
use super::deadline::asked_for;
use super::gate::{Entering, Gate};
use super::server::Limits;
use super::status::Failure;

/// A backstop for calls whose request never arrives; all others end earlier, by themselves.
const LONGEST_CALL: Duration = Duration::from_secs(330);

/// The largest headers of a request, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// How much may come in on a connection, for as long as it lasts, that HTTP/2 resets a call for. Without a bound a client could have
/// resets made without end (RUSTSEC-2024-0003); with hyper's own, 1,024, a proxy's connection would not last for weeks.
const MAX_RESETS: usize = 64 * 1024;

/// Serves these services behind this gate until it is told to stop, and then until every connection has ended.
pub(crate) async fn serve(
    incoming: impl Stream<Item = Result<Connection, Infallible>>,
    routes: Routes,
    gate: Gate,
    limits: Limits,
    stop: Stop,
) {
    let front = Front { gate, routes: routes.prepare(), at_once: AtOnce::default() };
    let mut connections = JoinSet::new();
    {
        // Hung up as soon as it stops: whoever comes then is told so by the system, and does not wait.
        let (mut incoming, mut stopping) = (pin!(incoming), pin!(stop.given()));
        while let Either::Right((Some(Ok(connection)), _)) = select(&mut stopping, incoming.next()).await {
            connections.spawn(converse(connection, front.clone(), limits, stop.clone()));
            while connections.try_join_next().is_some() {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// One connection, until it ends: once it has to stop, with the calls that have begun.
async fn converse(connection: Connection, front: Front, limits: Limits, stop: Stop) {
    // Each connection has its own.
    let calls = Calls::default();
    let front = Front { at_once: calls.at_once.clone(), ..front };
    let mut protocol = Builder::new(calls);
    protocol
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(limits.calls_per_connection)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_local_error_reset_streams(MAX_RESETS)
        // No client of gRPC looks at it.
        .auto_date_header(false);
    let conversation = pin!(protocol.serve_connection(TokioIo::new(connection), front));
    let ended = match select(conversation, pin!(stop.given())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), mut conversation)) => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Whether the call that came in last was answered at once. Within a connection one call comes after the other, and each is
/// handed to [`Calls`] as soon as it has come.
#[derive(Debug, Clone, Default)]
struct AtOnce(Arc<AtomicBool>);

/// What answers the calls of a connection.
#[derive(Clone)]
struct Front {
    gate: Gate,
    routes: Routes,
    at_once: AtOnce,
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let entering = match self.gate.ask(request.uri().path()) {
            Ok(entering) => entering,
            Err(refusal) => {
                let (head, body) = request.into_parts();
                let mut refused = refusal.of(body);
                // What a client says in one go has come in one go.
                if let Some(refusal) = (&mut refused).now_or_never() {
                    self.at_once.0.store(true, Ordering::Relaxed);
                    return Answer::AtOnce(Some(refusal));
                }
                return Answer::in_time(longest(&head.headers), refused.map(Ok));
            }
        };
        let most = longest(request.headers());
        let answer = self.routes.clone().call(request.map(Body::new));
        Answer::in_time(most, Admitted { entering, answer })
    }
}

/// How long a call may take that comes with these headers.
fn longest(headers: &HeaderMap) -> Duration {
    asked_for(headers).map_or(LONGEST_CALL, |asked| asked.min(LONGEST_CALL))
}

/// A call that was let in. Not an `async` block, which would have room for the answer twice: there are thousands of them.
struct Admitted<F> {
    entering: Option<Entering>,
    answer: F,
}

impl<F: Future + Unpin> Future for Admitted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = Pin::new(&mut self.answer).poll(cx);
        // With its first step it takes its place, unless the rest of it has still to come.
        drop(self.entering.take());
        polled
    }
}

/// What becomes of a call.
enum Answer {
    /// It is refused, and that is all.
    AtOnce(Option<Response<Body>>),
    /// It will be answered.
    Later(Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>),
}

impl Answer {
    /// This one, or that it is late.
    fn in_time(
        most: Duration,
        answer: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    ) -> Self {
        let late = |_| Ok(Failure::Late.status("a call").into_http());
        Self::Later(Box::pin(timeout(most, answer).map(move |answer| answer.unwrap_or_else(late))))
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::AtOnce(refusal) => refusal.take().map_or(Poll::Pending, |refusal| Poll::Ready(Ok(refusal))),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// Where calls go on: each in a task of its own, but for those that have their answer. These go out together, because a connection
/// that is asked for the next call first writes whatever there is to write.
#[derive(Clone, Default)]
struct Calls {
    at_once: AtOnce,
    answered: Arc<Mutex<Vec<Sending>>>,
}

/// A call whose answer is to be sent.
type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Calls {
    fn answered(&self) -> MutexGuard<'_, Vec<Sending>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Future<Output = ()> + Send + 'static> Executor<C> for Calls {
    fn execute(&self, call: C) {
        if !self.at_once.0.swap(false, Ordering::Relaxed) {
            tokio::spawn(call);
            return;
        }
        let is_first = {
            let mut answered = self.answered();
            answered.push(Box::pin(call));
            answered.len() == 1
        };
        if is_first {
            let calls = self.clone();
            // It runs when the connection has taken in all that was there.
            tokio::spawn(async move {
                let answered = mem::take(&mut *calls.answered());
                for sending in answered {
                    sending.await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;
    use crate::api::admission::Admission;
    use crate::api::observation::CallWatch;

    #[tokio::test]
    async fn whatever_becomes_of_a_call_it_ends_in_time() {
        let Ok(late) = Answer::in_time(Duration::ZERO, std::future::pending()).await;
        let status = Status::from_header_map(late.headers()).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[test]
    fn a_call_that_was_let_in_is_entering_until_its_first_step() {
        let path = "/financing.v1.CommandService/SellInvoice";
        let gate = Gate::new(Admission::new(1, 1, 1, 1), CallWatch::default(), 1024);
        let entering = gate.ask(path).expect("there is a place");
        let mut call = Admitted { entering, answer: std::future::pending::<()>() };
        assert!(gate.ask(path).is_err());
        assert!((&mut call).now_or_never().is_none());
        assert!(gate.ask(path).is_ok());
    }

    #[tokio::test]
    async fn the_calls_that_have_their_answer_share_a_task() {
        let calls = Calls::default();
        let (sender, mut tasks) = tokio::sync::mpsc::unbounded_channel();
        let call = || {
            let sender = sender.clone();
            async move { sender.send(tokio::task::id()).expect("somebody waits") }
        };
        calls.execute(call());
        for _ in 0..3 {
            calls.at_once.0.store(true, Ordering::Relaxed);
            calls.execute(call());
        }
        calls.execute(call());
        let mut of_calls = Vec::new();
        for _ in 0..5 {
            of_calls.push(tasks.recv().await.expect("each goes on"));
        }
        let own = of_calls.iter().filter(|task| of_calls.iter().filter(|other| other == task).count() == 1);
        assert_eq!(own.count(), 2, "{of_calls:?}");
        of_calls.sort_unstable_by_key(ToString::to_string);
        of_calls.dedup();
        assert_eq!(of_calls.len(), 3);
        assert!(calls.answered().is_empty());
    }
}
