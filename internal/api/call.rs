//! What every call has in common.
//!
//! The rule this module protects: a call is admitted or refused at once, ends at its deadline, and is answered whatever
//! happens inside: a panic takes neither the process nor the client's patience.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use eventsourcing::environment::{Environment, Stop, within};

use super::admission::{Admission, Load, Place};
use super::deadline::{Budget, allowance};
use super::gate::Gate;
use super::observation::{CallWatch, Handing};
use super::status::Failure;

/// What the services of one server share.
#[derive(Debug, Clone)]
pub(crate) struct Calls<E> {
    /// Clock and timers.
    pub(crate) environment: E,
    /// When the server stops.
    pub(crate) stop: Stop,
    admission: Admission,
    watch: CallWatch,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    method: &'static str,
    load: Load,
    /// How long it may take.
    pub(crate) budget: Budget,
}

impl Call {
    /// One that is answered as soon as it can be.
    pub(crate) fn short(method: &'static str, metadata: &MetadataMap) -> Self {
        Self { method, load: Load::Short, budget: Budget::of(metadata, allowance(None)) }
    }

    /// One that may wait for something, as long as it was asked to.
    pub(crate) fn long(
        method: &'static str,
        metadata: &MetadataMap,
        wait: Option<&prost_types::Duration>,
    ) -> Self {
        Self { method, load: Load::Long, budget: Budget::of(metadata, allowance(wait)) }
    }
}

impl<E: Environment> Calls<E> {
    /// Calls under these limits.
    pub(crate) const fn new(environment: E, admission: Admission, stop: Stop, watch: CallWatch) -> Self {
        Self { environment, stop, admission, watch }
    }

    /// The gate in front of these calls, for requests of at most so many bytes.
    pub(crate) fn gate(&self, most: usize) -> Gate {
        Gate::new(self.admission.clone(), self.watch.clone(), most)
    }

    /// The call hands a command in, or several: for whoever looks on.
    pub(crate) fn begin(
        &self,
        call: Call,
        command_id: Option<Uuid>,
        traceparent: Option<String>,
    ) -> Handing<E> {
        self.watch.begin(&self.environment, call.method, command_id, traceparent)
    }

    /// Answers a unary call with what its body comes to.
    pub(crate) fn answer<T>(
        &self,
        call: Call,
        body: impl Future<Output = Result<T, Failure>> + Send,
    ) -> impl Future<Output = Result<Response<T>, Status>> + Send {
        // In a box from here on. Else each future around it would have room for it twice, and what a crowd of calls takes
        // is what the machine's caches have to hold.
        let body = Box::pin(AssertUnwindSafe(body).catch_unwind());
        async move {
            let start = self.watch.get().map(|_| self.environment.now());
            let result = match self.admission.admit(call.load) {
                Some(_place) => match within(&self.environment, call.budget.call(), body).await {
                    Some(Ok(result)) => result,
                    Some(Err(_panic)) => Err(Failure::Panicked),
                    None => Err(Failure::Late),
                },
                None => Err(Failure::Shed),
            };
            let result = result.map(Response::new).map_err(|failure| failure.status(call.method));
            if let (Some(observer), Some(start)) = (self.watch.get(), start) {
                let code = result.as_ref().err().map_or(Code::Ok, Status::code);
                observer.answered(call.method, code, start.until(self.environment.now()));
            }
            result
        }
    }

    /// A place for a stream, for as long as it lasts.
    pub(crate) fn admit_stream(&self) -> Result<Place, Failure> {
        self.admission.admit(Load::Stream).ok_or(Failure::Shed)
    }
    /// A place for a live query, for as long as it lasts.
    pub(crate) fn admit_watch(&self) -> Result<Place, Failure> {
        self.admission.admit(Load::Watch).ok_or(Failure::Shed)
    }
}
