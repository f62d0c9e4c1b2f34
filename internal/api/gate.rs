//! The gate in front of the command side.
//!
//! The rule this module protects: to refuse costs next to nothing, or a server that is offered three times what it can do
//! spends on refusing what those it serves would need. So where it has as many calls as it may, a command is refused before
//! it is decoded, and before anybody looks for the service that is meant.
//!
//! And it is refused when all of it has come, not sooner: what comes for a call that was answered already is what HTTP/2
//! servers defend themselves against, and h2 closes a connection that has too much of it, with all the calls on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as Asked, Bytes};
use hyper::{HeaderMap, Response};
use tonic::Code;
use tonic::body::Body;

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
    entering: AtomicUsize,
    watch: CallWatch,
    /// The largest request, in bytes.
    most: usize,
    refusal: HeaderMap,
}

impl Gate {
    /// In front of calls that are admitted like this, with requests of at most so many bytes.
    pub(crate) fn new(admission: Admission, watch: CallWatch, most: usize) -> Self {
        let refusal = shed().into_http::<Body>().into_parts().0.headers;
        Self(Some(Arc::new(Keeper { admission, entering: AtomicUsize::new(0), watch, most, refusal })))
    }

    /// Lets the method that is called in; or not, where all places are taken, or will be by those that were let in before. (Until
    /// it is known whether a call waits, it counts as one that does not.)
    pub(crate) fn ask(&self, path: &str) -> Result<Option<Entering>, Refusal> {
        let Some((keeper, method)) = self.0.as_ref().zip(commanding(path)) else { return Ok(None) };
        let keeper = Arc::clone(keeper);
        if keeper.admission.places() <= keeper.entering.load(Ordering::Relaxed) {
            return Err(Refusal { keeper, method });
        }
        keeper.entering.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Entering(keeper)))
    }
}

/// A call that was let in and has not taken its place yet. Calls come in by the hundred before the first of them does.
#[derive(Debug)]
pub(crate) struct Entering(Arc<Keeper>);

impl Drop for Entering {
    fn drop(&mut self) {
        self.0.entering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Keeper {
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

/// That a call is not let in.
#[derive(Debug)]
pub(crate) struct Refusal {
    keeper: Arc<Keeper>,
    method: &'static str,
}

impl Refusal {
    /// The answer to a call that asks this.
    pub(crate) fn of<B>(self, asked: B) -> Refused<B> {
        Refused { refusal: self, asked, bytes: 0 }
    }
}

/// A call that is not let in: its answer, when all that was asked has come, or more than may be asked.
pub(crate) struct Refused<B> {
    refusal: Refusal,
    asked: B,
    bytes: usize,
}

impl<B: Asked<Data = Bytes> + Unpin> Future for Refused<B> {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while self.bytes <= self.refusal.keeper.most {
            match ready!(Pin::new(&mut self.asked).poll_frame(cx)) {
                Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, Bytes::len),
                // Who has hung up asks for nothing more either.
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(self.refusal.keeper.refusal(self.refusal.method))
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

    #[test]
    fn a_crowded_server_answers_a_command_when_all_of_it_has_come_and_tells_of_it_once() {
        let admission = Admission::new(1, 1, 1, 1);
        let onlooker = Arc::new(Onlooker::default());
        let watch = CallWatch::by(Arc::clone(&onlooker) as Arc<dyn CallObserver>);
        let gate = Gate::new(admission.clone(), watch, 1024);
        let path = "/financing.v1.CommandService/SellInvoice";
        let entering = gate.ask(path).expect("there is a place");
        assert!(
            gate.ask(path).is_err(),
            "there is not another for whoever comes before the first has taken it"
        );
        drop(entering);
        assert!(gate.ask(path).is_ok());
        let place = admission.admit(Load::Short);
        let (sender, frames) = tokio::sync::mpsc::unbounded_channel::<Frame<Bytes>>();
        let frames = futures_util::stream::unfold(frames, |mut frames| async {
            Some((Ok::<_, Status>(frames.recv().await?), frames))
        });
        let asked = StreamBody::new(Box::pin(frames));
        let mut answer = gate.ask(path).expect_err("there is no place").of(asked);
        assert!((&mut answer).now_or_never().is_none());
        sender.send(Frame::data(Bytes::from_static(b"half of it"))).expect("somebody reads");
        assert!((&mut answer).now_or_never().is_none());
        assert!(onlooker.0.lock().expect("no panic").is_empty());
        drop(sender);
        let response = answer.now_or_never().expect("all has come");
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(*onlooker.0.lock().expect("no panic"), [("SellInvoice", Code::ResourceExhausted)]);
        // Whatever takes no commands is let in, and commands are as soon as there is a place.
        assert!(gate.ask("/grpc.health.v1.Health/Check").is_ok());
        assert!(Gate::default().ask(path).is_ok());
        drop(place);
        assert!(gate.ask(path).is_ok());
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
