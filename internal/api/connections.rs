//! The connections of a server.
//!
//! The rule this module protects: a server holds no more connections than it has files for, and none that does not speak
//! HTTP/2. Those beyond wait in the kernel's backlog, and a server that cannot accept waits too, and says so: it
//! does not try again at once, for ever and in silence.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use eventsourcing::environment::Environment;

/// How long to wait when no connection can be accepted: files become free only when somebody closes one.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the same trouble is told of at most.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What every HTTP/2 client says first, `PRI * HTTP/2.0` and so on, in bytes.
const PREFACE_BYTES: usize = 24;

/// The files of a process that are not connections: stores, their logs, timers, standard streams.
const OTHER_FILES: usize = 128;

/// As many servers share the files of a process.
const SERVERS: usize = 2;

/// The open files that most systems allow, where this one does not say.
const USUAL_FILES: usize = 1024;

/// Even a process with hardly any files has a few connections, and one with any number no more than it can serve.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 16..=10_000;

/// How many connections a server of this process can afford.
pub(crate) fn affordable() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    share(limits.as_deref().and_then(open_files).unwrap_or(USUAL_FILES))
}

/// One server's share of these files.
fn share(files: usize) -> usize {
    (files.saturating_sub(OTHER_FILES) / SERVERS).clamp(*CONNECTIONS.start(), *CONNECTIONS.end())
}

/// The soft limit of open files, out of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<usize> {
    let limits = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match limits.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        soft => soft.parse().ok(),
    }
}

/// Where connections come from.
pub(crate) trait Door: Send {
    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Door for TcpListener {
    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// The connections that come in, never more than so many at a time, and never one that has not spoken HTTP/2 so long
/// after it came. Neither ends nor fails.
pub(crate) fn incoming<D: Door, E: Environment>(
    door: D,
    connections: usize,
    preface: Duration,
    environment: E,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
    let entrance =
        Entrance { door, places, preface, environment, full: Rarely::default(), failing: Rarely::default() };
    stream::unfold(entrance, |mut entrance| async {
        let connection = entrance.next().await?;
        Some((Ok(connection), entrance))
    })
}

/// Lets connections in.
struct Entrance<D, E> {
    door: D,
    places: Arc<Semaphore>,
    preface: Duration,
    environment: E,
    full: Rarely,
    failing: Rarely,
}

impl<D: Door, E: Environment> Entrance<D, E> {
    /// The next connection. It has its place before it is accepted: until then it costs the kernel's memory, not a file.
    async fn next(&mut self) -> Option<Connection> {
        let place = self.place().await?;
        loop {
            match self.door.accept().await {
                Ok(stream) => return Some(Connection::new(stream, place, self.preface)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.failing.is_due() {
                        tracing::warn!(%error, "no connection can be accepted");
                    }
                    self.environment.sleep(PAUSE).await;
                }
            }
        }
    }

    /// A place, as soon as there is one; always one in the end, for nobody closes the semaphore.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        if self.full.is_due() {
            tracing::warn!("there are as many connections as there may be; others wait");
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}

/// Whether the next connection may well be accepted: this one was gone before it was.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Keeps the log readable while something goes on and on.
#[derive(Debug, Default)]
struct Rarely {
    told: Option<Instant>,
}

impl Rarely {
    /// Whether it is time to tell of it; whoever asks does, then.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if due {
            self.told = Some(now);
        }
        due
    }
}

/// A connection. Its file is closed before its place is free, which is the order of the fields.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    silence: Option<Silence>,
    _place: OwnedSemaphorePermit,
}

/// What a connection still owes, and until when. The server's own keepalive begins only behind the preface, so that a
/// client that sends less of it would stay for ever.
#[derive(Debug)]
struct Silence {
    missing: usize,
    ends: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, preface: Duration) -> Self {
        // It fails on a connection that is broken, which the first read finds out too.
        let _nodelay = stream.set_nodelay(true);
        let ends = Box::pin(tokio::time::sleep(preface));
        Self { stream, silence: Some(Silence { missing: PREFACE_BYTES, ends }), _place: place }
    }

    fn heard(&mut self, bytes: usize) {
        self.silence = self.silence.take().and_then(|silence| {
            let missing = silence.missing.saturating_sub(bytes);
            (missing > 0).then_some(Silence { missing, ..silence })
        });
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready() {
            this.heard(buf.filled().len() - before);
        } else if let Some(silence) = &mut this.silence
            && silence.ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_half_of_the_files_that_are_left() {
        let limits = "Limit           Soft Limit  Hard Limit  Units\n\
                      Max locked memory         8388608     8388608     bytes\n\
                      Max open files            4096        1048576     files\n";
        assert_eq!(open_files(limits), Some(4096));
        assert_eq!(open_files("Max open files            unlimited   unlimited   files"), Some(usize::MAX));
        assert_eq!(open_files("Max processes             96365       96365       processes"), None);
        assert_eq!([4096, 64, 0, usize::MAX].map(share), [1984, 16, 16, 10_000]);
    }

    #[test]
    fn the_same_trouble_is_told_of_once() {
        let mut rarely = Rarely::default();
        assert!(rarely.is_due());
        rarely.told = Some(Instant::now() + TOLD_EVERY);
        assert!(!rarely.is_due());
        rarely.told = Instant::now().checked_sub(TOLD_EVERY);
        assert!(rarely.is_due());
    }
}
