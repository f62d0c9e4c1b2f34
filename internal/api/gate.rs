//! The gate in front of the command side.
//!
//! The rule this module protects: to refuse costs next to nothing, or a server that is offered three times what it can do
//! spends on refusing what those it serves would need. So where it has as many calls as it may, a command is refused before
//! it is decoded, and before anybody looks for the service that is meant.
//!
//! And it is refused when all of it has come, not sooner: what comes for a call that was answered already is what HTTP/2
//! servers defend themselves against, and h2 closes a connection that has too much of it, with all the calls on it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use hyper::body::Body as _;
use hyper::{HeaderMap, Request, Response};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use super::admission::Admission;
use super::observation::CallWatch;
use super::status::shed;

/// The method that is called, where it is one that takes commands.
fn commanding(path: &str) -> Option<&'static str> {
    match path {
        "/financing.v1.CommandService/SellInvoice" => Some("SellInvoice"),
        "/financing.v1.CommandService/BidOnInvoice" => Some("BidOnInvoice"),
        "/financing.v1.CommandService/ApproveFinancing" => Some("ApproveFinancing"),
        "/financing.v1.CommandService/ReverseFinancing" => Some("ReverseFinancing"),
        "/registering.v1.IntegrationService/PublishIntegrationEvents" => Some("PublishIntegrationEvents"),
        _ => None,
    }
}

/// A gate, to be put in front of a server: open, unless it knows when to be shut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Option<Arc<Keeper>>);

/// Who looks after a gate.
#[derive(Debug)]
struct Keeper {
    admission: Admission,
    watch: CallWatch,
    /// The largest request, in bytes.
    most: usize,
    refusal: HeaderMap,
}

impl Gate {
    /// In front of calls that are admitted like this, with requests of at most so many bytes.
    pub(crate) fn new(admission: Admission, watch: CallWatch, most: usize) -> Self {
        let refusal = shed().into_http::<Body>().into_parts().0.headers;
        Self(Some(Arc::new(Keeper { admission, watch, most, refusal })))
    }
}

impl Keeper {
    /// The method that is called, where the call is not let in.
    fn refuses(&self, path: &str) -> Option<&'static str> {
        if self.admission.is_crowded() { commanding(path) } else { None }
    }

    fn refusal(&self, method: &'static str) -> Response<Body> {
        // Not louder: under load a line for every call would be more load.
        tracing::debug!(method, "shed");
        if let Some(observer) = self.watch.get() {
            observer.answered(method, Code::ResourceExhausted, Duration::ZERO);
        }
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.refusal.clone();
        response
    }
}

/// A call that is not let in: its answer, when all that was asked has come, or more than may be asked.
pub(crate) struct Refused {
    keeper: Arc<Keeper>,
    method: &'static str,
    asked: Body,
    bytes: usize,
}

impl Future for Refused {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while self.bytes <= self.keeper.most {
            match ready!(Pin::new(&mut self.asked).poll_frame(cx)) {
                Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, bytes::Bytes::len),
                // Who has hung up asks for nothing more either.
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(Ok(self.keeper.refusal(self.method)))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// What is behind a gate.
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>> Service<Request<Body>>
    for Gated<S>
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Refused, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let refused = self.gate.0.as_ref().and_then(|keeper| Some((keeper, keeper.refuses(path)?)));
        match refused {
            Some((keeper, method)) => {
                let keeper = Arc::clone(keeper);
                Either::Left(Refused { keeper, method, asked: request.into_body(), bytes: 0 })
            }
            None => Either::Right(self.inner.call(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use prost::Message as _;
    use tonic::Status;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::api::admission::Load;
    use crate::api::observation::{CallObserver, CallSpan};
    use crate::api::proto::DESCRIPTORS;
    use crate::api::server::COMMAND_SERVICES;

    /// Behind the gate: nothing that would ever answer.
    #[derive(Clone)]
    struct Silent;

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[derive(Default)]
    struct Onlooker(std::sync::Mutex<Vec<(&'static str, Code)>>);

    impl CallObserver for Onlooker {
        fn answered(&self, method: &'static str, code: Code, _: Duration) {
            self.0.lock().expect("no panic").push((method, code));
        }

        fn begin(&self, _: Option<&str>, _: [uuid::Uuid; 2]) -> Option<String> {
            None
        }

        fn ended(&self, _: &CallSpan<'_>) {}
    }

    fn request(path: &str, body: Body) -> Request<Body> {
        Request::builder().uri(format!("http://financing{path}")).body(body).expect("a request")
    }

    #[test]
    fn a_crowded_server_answers_a_command_when_all_of_it_has_come_and_tells_of_it_once() {
        let admission = Admission::new(1, 1, 1, 1);
        let onlooker = Arc::new(Onlooker::default());
        let watch = CallWatch::by(Arc::clone(&onlooker) as Arc<dyn CallObserver>);
        let mut gated = Gate::new(admission.clone(), watch, 1024).layer(Silent);
        let path = "/financing.v1.CommandService/SellInvoice";
        let (sender, frames) = tokio::sync::mpsc::unbounded_channel::<Frame<bytes::Bytes>>();
        let frames = futures_util::stream::unfold(frames, |mut frames| async {
            Some((Ok::<_, Status>(frames.recv().await?), frames))
        });
        let place = admission.admit(Load::Short);
        let mut answer = std::pin::pin!(gated.call(request(path, Body::new(StreamBody::new(frames)))));
        assert!(answer.as_mut().now_or_never().is_none());
        sender.send(Frame::data(bytes::Bytes::from_static(b"half of it"))).expect("somebody reads");
        assert!(answer.as_mut().now_or_never().is_none());
        assert!(onlooker.0.lock().expect("no panic").is_empty());
        drop(sender);
        let Some(Ok(response)) = answer.now_or_never() else { unreachable!("all has come") };
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(*onlooker.0.lock().expect("no panic"), [("SellInvoice", Code::ResourceExhausted)]);
        // Whatever takes no commands is let in, and commands are as soon as there is a place.
        let health = request("/grpc.health.v1.Health/Check", Body::empty());
        assert!(gated.call(health).now_or_never().is_none());
        drop(place);
        assert!(gated.call(request(path, Body::empty())).now_or_never().is_none());
    }

    #[test]
    fn every_method_of_the_command_side_is_behind_the_gate_and_nothing_else() {
        let descriptors = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let mut seen = 0;
        for file in &descriptors.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                let is_behind = COMMAND_SERVICES.contains(&service_name.as_str());
                for method in &service.method {
                    let path = format!("/{service_name}/{}", method.name());
                    assert_eq!(commanding(&path), is_behind.then(|| method.name()), "{path}");
                    seen += usize::from(is_behind);
                }
            }
        }
        assert_eq!(seen, 5);
        assert_eq!(commanding("/grpc.health.v1.Health/Check"), None);
    }
}
