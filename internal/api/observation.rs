//! Whoever looks on at the calls.
//!
//! The rule this module protects: what is told of a call is its method, how it was answered, how long that took and the
//! command's id: nothing of what the request said, and nobody who sent it. And a span that other spans name as their parent is
//! told, whatever becomes of its call.

use std::sync::Arc;
use std::time::Duration;

use eventsourcing::environment::{Environment, Timestamp};
use tonic::Code;
use uuid::Uuid;

/// One who looks on. Every method returns at once, and none may fail.
pub trait CallObserver: Send + Sync + 'static {
    /// A unary call was answered.
    fn answered(&self, method: &'static str, code: Code, took: Duration);

    /// A call is about to hand commands in: the W3C trace context to hand on with them, of which the call itself is the parent.
    /// `None`: no other than it came with. `chance` are ids that nobody else has.
    fn begin(&self, came_with: Option<&str>, chance: [Uuid; 2]) -> Option<String>;

    /// Such a call has come to its end, or was given up.
    fn ended(&self, span: &CallSpan<'_>);
}

/// A call that has handed commands in under a trace context of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSpan<'a> {
    /// The method.
    pub method: &'static str,
    /// The command, where it is one.
    pub command_id: Option<Uuid>,
    /// The trace context that the client sent, where there was a valid one.
    pub came_with: Option<&'a str>,
    /// The one that was handed on.
    pub handed_on: &'a str,
    /// Whether the platform failed, or was too slow. A refusal by the business is no failure.
    pub failed: bool,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
}

/// Who looks on at the calls of a server: nobody, unless somebody is named.
#[derive(Clone, Default)]
pub struct CallWatch(Option<Arc<dyn CallObserver>>);

impl CallWatch {
    /// This one looks on.
    #[must_use]
    pub fn by(observer: Arc<dyn CallObserver>) -> Self {
        Self(Some(observer))
    }

    /// The observer, where there is one.
    pub(crate) fn get(&self) -> Option<&dyn CallObserver> {
        self.0.as_deref()
    }

    /// A call hands commands in.
    pub(crate) fn begin<E: Environment>(
        &self,
        environment: &E,
        method: &'static str,
        command_id: Option<Uuid>,
        came_with: Option<String>,
    ) -> Handing<E> {
        let handed_on = self.get().and_then(|observer| {
            observer.begin(came_with.as_deref(), [environment.uuid(), environment.uuid()])
        });
        let start = if handed_on.is_some() { environment.now() } else { Timestamp::default() };
        let (watch, environment) = (self.clone(), environment.clone());
        Handing { watch, environment, method, command_id, came_with, handed_on, failed: true, start }
    }
}

impl std::fmt::Debug for CallWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "CallWatch(somebody)" } else { "CallWatch(nobody)" })
    }
}

/// A call that hands commands in. Dropped, it has failed, unless it said otherwise: so is a call that its client gives up.
pub(crate) struct Handing<E: Environment> {
    watch: CallWatch,
    environment: E,
    method: &'static str,
    command_id: Option<Uuid>,
    came_with: Option<String>,
    handed_on: Option<String>,
    failed: bool,
    start: Timestamp,
}

impl<E: Environment> Handing<E> {
    /// The trace context to hand on.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.handed_on.clone().or_else(|| self.came_with.clone())
    }

    /// The platform did what it was asked to, and be it to refuse.
    pub(crate) fn succeeded(&mut self) {
        self.failed = false;
    }
}

impl<E: Environment> Drop for Handing<E> {
    fn drop(&mut self) {
        if let (Some(observer), Some(handed_on)) = (self.watch.get(), &self.handed_on) {
            observer.ended(&CallSpan {
                method: self.method,
                command_id: self.command_id,
                came_with: self.came_with.as_deref(),
                handed_on,
                failed: self.failed,
                start: self.start,
                end: self.environment.now(),
            });
        }
    }
}

/// How gRPC writes a status.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
