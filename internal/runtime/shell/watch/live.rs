//! The live queries behind a watch, which go on where they were cut off.
//!
//! The rule this module protects: a message is taken with its token or not at all, and whoever goes on presents the last token that was
//! taken; so whatever ends a stream, nothing is left out and nothing comes again. What cannot be mended by asking again is an error.

use std::error::Error as _;
use std::io::{IsTerminal as _, stderr};
use std::pin::pin;
use std::time::Duration;

use eventsourcing::environment::{Environment as _, within};
use futures_util::future::{Either, select};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::api::proto::financing::v1::{
    Bid, Invoice, WatchBidsRequest, WatchBidsResponse, WatchInvoicesRequest, WatchInvoicesResponse,
};
use crate::runtime::client::ClientError;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::shell::PlatformAddresses;
use crate::runtime::shell::failure::Failure;
use crate::runtime::terminal::{Terminal, Tone};

/// How long the platform may be silent: it says something every five seconds, also where nothing changes.
const SILENCE: Duration = Duration::from_secs(20);

/// How long it is waited before it is tried again, the first time and at most; jittered.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watched {
    /// The invoice with this id, and the bids on it.
    Invoice(String),
    /// The bid with this id.
    Bid(String),
}

/// Rows as they are now.
#[derive(Debug)]
pub(super) enum Rows {
    /// The invoice.
    Invoices(Vec<Invoice>),
    /// The bid, or bids on the invoice.
    Bids(Vec<Bid>),
}

/// How far a live query was taken.
#[derive(Debug, Default)]
struct Place {
    token: String,
    /// Whether all was taken that there was when it began.
    complete: bool,
}

/// The streams, as long as they last.
struct Streams {
    invoices: Option<Streaming<WatchInvoicesResponse>>,
    bids: Streaming<WatchBidsResponse>,
}

/// A message of one of them.
enum Message {
    Invoices(WatchInvoicesResponse),
    Bids(WatchBidsResponse),
}

/// Why the streams are gone.
#[derive(Debug)]
enum Lost {
    /// The platform, or the connection, said so.
    Told(Box<Status>),
    /// It ended without a word.
    Ended,
    /// Nothing was heard of it.
    Silent,
    /// Nobody is there.
    Unreached,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// Ask again with the token, not before this time has passed.
    GoOn(Duration),
    /// Ask again, from the beginning.
    BeginAnew,
    /// Asking again would not help.
    None,
}

/// Live queries that go on.
pub(super) struct Live {
    platform: PlatformAddresses,
    watched: Watched,
    invoices: Place,
    bids: Place,
    streams: Option<Streams>,
    pause: Duration,
    /// Whether the person who watches knows that they are cut off.
    told: bool,
}

impl Live {
    /// Of this. Nothing is asked before [`Live::next`].
    pub(super) fn of(platform: PlatformAddresses, watched: Watched) -> Self {
        // A bid has no invoice's part to wait for.
        let complete = matches!(watched, Watched::Bid(_));
        let invoices = Place { token: String::new(), complete };
        Self {
            platform,
            watched,
            invoices,
            bids: Place::default(),
            streams: None,
            pause: PAUSE.0,
            told: false,
        }
    }

    /// Whether all was said that there was when it began.
    pub(super) fn has_begun(&self) -> bool {
        self.invoices.complete && self.bids.complete
    }

    /// The next rows; there may be none. Where the platform is gone, it is waited for.
    ///
    /// # Errors
    ///
    /// When the platform says something that asking again would not mend.
    pub(super) async fn next(&mut self) -> Result<Rows, Failure> {
        loop {
            match self.hear().await {
                Ok(message) => {
                    (self.pause, self.told) = (PAUSE.0, false);
                    return Ok(self.take(message));
                }
                Err(lost) => self.mend(lost).await?,
            }
        }
    }

    fn take(&mut self, message: Message) -> Rows {
        match message {
            Message::Invoices(WatchInvoicesResponse { changes, resume_token, snapshot_complete }) => {
                self.invoices = Place { token: resume_token, complete: snapshot_complete };
                Rows::Invoices(changes)
            }
            Message::Bids(WatchBidsResponse { changes, resume_token, snapshot_complete }) => {
                self.bids = Place { token: resume_token, complete: snapshot_complete };
                Rows::Bids(changes)
            }
        }
    }

    async fn hear(&mut self) -> Result<Message, Lost> {
        if self.streams.is_none() {
            let opened = within(&SystemEnvironment, SILENCE, self.open()).await;
            self.streams = Some(opened.ok_or(Lost::Silent)??);
        }
        let Some(streams) = &mut self.streams else { return Err(Lost::Ended) };
        let message = streams.message(self.invoices.complete, self.bids.complete);
        within(&SystemEnvironment, SILENCE, message).await.ok_or(Lost::Silent)?
    }

    /// Over a connection of its own: the last one may be dead without knowing it.
    async fn open(&self) -> Result<Streams, Lost> {
        let mut queries = self.platform.queries().await.map_err(|_| Lost::Unreached)?;
        let (invoices, bids) = (self.invoices.token.clone(), self.bids.token.clone());
        match &self.watched {
            Watched::Invoice(id) => {
                let request = WatchInvoicesRequest {
                    ids: vec![id.clone()],
                    resume_token: invoices,
                    ..WatchInvoicesRequest::default()
                };
                let invoices = Some(queries.watch_invoices(request).await?.into_inner());
                let request = WatchBidsRequest {
                    invoice_id: id.clone(),
                    resume_token: bids,
                    ..WatchBidsRequest::default()
                };
                Ok(Streams { invoices, bids: queries.watch_bids(request).await?.into_inner() })
            }
            Watched::Bid(id) => {
                let request = WatchBidsRequest {
                    ids: vec![id.clone()],
                    resume_token: bids,
                    ..WatchBidsRequest::default()
                };
                Ok(Streams { invoices: None, bids: queries.watch_bids(request).await?.into_inner() })
            }
        }
    }

    /// Waits a moment, and says so once.
    async fn mend(&mut self, lost: Lost) -> Result<(), Failure> {
        self.streams = None;
        let at_least = match lost.remedy() {
            Remedy::GoOn(at_least) => at_least,
            Remedy::BeginAnew => {
                (self.invoices.token, self.bids.token) = (String::new(), String::new());
                Duration::ZERO
            }
            Remedy::None => return Err(lost.into()),
        };
        if !self.told {
            say(&format!("{lost}: the watch goes on as soon as the platform answers"));
            self.told = true;
        }
        let pause = jittered(self.pause, SystemEnvironment.random());
        self.pause = self.pause.saturating_mul(2).min(PAUSE.1);
        SystemEnvironment.sleep(pause.max(at_least.min(PAUSE.1))).await;
        Ok(())
    }
}

/// On standard error: standard output has nothing but what is watched.
fn say(line: &str) {
    let quiet = stderr().is_terminal();
    eprintln!(
        "{}",
        if quiet { Terminal::standard_output().paint(Tone::Quiet, line) } else { line.to_owned() }
    );
}

/// Between half of it and all of it.
fn jittered(pause: Duration, random: u64) -> Duration {
    let half = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX);
    Duration::from_micros(half.saturating_add(random % half.max(1)))
}

impl Streams {
    /// The next message: until all of it was said, of the invoice, and then of the bids; then of whichever changes.
    async fn message(&mut self, invoice_known: bool, bids_known: bool) -> Result<Message, Lost> {
        let Self { invoices, bids } = self;
        let bids = async { Ok(Message::Bids(bids.message().await?.ok_or(Lost::Ended)?)) };
        let Some(invoices) = invoices else { return bids.await };
        let invoices = async { Ok(Message::Invoices(invoices.message().await?.ok_or(Lost::Ended)?)) };
        match (invoice_known, bids_known) {
            (false, _) => invoices.await,
            (true, false) => bids.await,
            (true, true) => match select(pin!(invoices), pin!(bids)).await {
                Either::Left((message, _)) | Either::Right((message, _)) => message,
            },
        }
    }
}

impl Lost {
    fn remedy(&self) -> Remedy {
        let Self::Told(status) = self else { return Remedy::GoOn(Duration::ZERO) };
        let at_least =
            || status.get_details_retry_info().and_then(|told| told.retry_delay).unwrap_or_default();
        match status.code() {
            Code::Aborted
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Cancelled => Remedy::GoOn(at_least()),
            // The platform has changed too much since, or is not the one that the token is of.
            Code::OutOfRange | Code::FailedPrecondition => Remedy::BeginAnew,
            // What the connection says has a source; what the platform says has none.
            Code::Unknown | Code::Internal if status.source().is_some() => Remedy::GoOn(Duration::ZERO),
            Code::Ok
            | Code::Unknown
            | Code::Internal
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => Remedy::None,
        }
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told(status) if status.source().is_none() && !status.message().is_empty() => {
                f.write_str(status.message())
            }
            Self::Told(_) | Self::Ended => f.write_str("the connection was lost"),
            Self::Silent => write!(f, "nothing was heard for {} seconds", SILENCE.as_secs()),
            Self::Unreached => f.write_str("nobody answers"),
        }
    }
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        Self::Told(Box::new(status))
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Told(status) => Self::from(*status),
            Lost::Ended | Lost::Silent | Lost::Unreached => Self::from(ClientError::Failed(lost.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn what_asking_again_mends_is_asked_again_and_nothing_else() {
        let told = |code| Lost::from(Status::new(code, "so it is")).remedy();
        for code in [Code::Aborted, Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled] {
            assert_eq!(told(code), Remedy::GoOn(Duration::ZERO), "{code:?}");
        }
        for code in [Code::OutOfRange, Code::FailedPrecondition] {
            assert_eq!(told(code), Remedy::BeginAnew, "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::Internal, Code::Unknown] {
            assert_eq!(told(code), Remedy::None, "{code:?}");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("reset by peer")));
        assert_eq!(Lost::from(broken).remedy(), Remedy::GoOn(Duration::ZERO), "the connection");
        assert_eq!(Lost::Ended.remedy(), Remedy::GoOn(Duration::ZERO));
    }

    #[test]
    fn a_platform_that_is_full_says_when_to_come_back() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let full = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(Lost::from(full).remedy(), Remedy::GoOn(Duration::from_secs(2)));
    }

    #[test]
    fn a_pause_is_never_nothing_and_never_longer_than_it_is() {
        for random in [0, 1, u64::MAX] {
            let pause = jittered(PAUSE.1, random);
            assert!(pause >= PAUSE.1 / 2 && pause <= PAUSE.1, "{pause:?}");
        }
    }
}
