//! Who may come in, and stay.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

use super::{Counting, Limits, PATIENT, bound, query_side};
use crate::api::connections::{Door, incoming};
use crate::api::proto::financing::v1::ListBidsRequest;
use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;

/// What a client says first: the preface, and that its settings are the usual ones.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0whatever";
const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0whatever";

#[tokio::test]
async fn a_connection_too_many_waits_until_another_closes() {
    let side = query_side(Limits { connections: 1, ..PATIENT }).await;
    let endpoint = Channel::from_shared(format!("http://{}", side.served.address)).expect("an address");
    let mut first = QueryServiceClient::new(endpoint.connect().await.expect("connected"));
    first.list_bids(ListBidsRequest::default()).await.expect("served");
    let mut second = side.client();
    let waiting = tokio::spawn(async move { second.list_bids(ListBidsRequest::default()).await });
    for _ in 0..50 {
        first.list_bids(ListBidsRequest::default()).await.expect("served");
    }
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.expect("no panic").expect("served");
    side.served.end().await;
}

#[tokio::test]
async fn a_connection_that_does_not_speak_http2_is_closed_and_gives_its_place_back() {
    let side = query_side(Limits { connections: 1, preface: Duration::from_millis(50), ..PATIENT }).await;
    for beginning in [&b""[..], &GREETING[..1], &GREETING[..23]] {
        let mut connection = TcpStream::connect(&side.served.address).await.expect("connected");
        connection.write_all(beginning).await.expect("sent");
        connection.read_to_end(&mut Vec::new()).await.expect("its end");
    }
    side.client().list_bids(ListBidsRequest::default()).await.expect("served");
}

#[tokio::test]
async fn a_connection_that_has_greeted_may_be_quiet() {
    let side = query_side(Limits { connections: 2, preface: Duration::from_millis(250), ..PATIENT }).await;
    let mut quiet = TcpStream::connect(&side.served.address).await.expect("connected");
    quiet.write_all(GREETING).await.expect("sent");
    // It was accepted later, and has come to its time.
    let mut silent = TcpStream::connect(&side.served.address).await.expect("connected");
    silent.read_to_end(&mut Vec::new()).await.expect("its end");
    quiet.write_all(PING).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.windows(PONG.len()).any(|frame| frame == PONG) {
        assert_ne!(quiet.read_buf(&mut answer).await.expect("still open"), 0, "{answer:?}");
    }
}

/// Fails with these first.
struct Jammed {
    errors: Mutex<VecDeque<io::Error>>,
    listener: TcpListener,
}

impl Door for Jammed {
    async fn accept(&self) -> io::Result<TcpStream> {
        let error = self.errors.lock().unwrap().pop_front();
        match error {
            Some(error) => Err(error),
            None => Door::accept(&self.listener).await,
        }
    }
}

#[tokio::test]
async fn a_server_without_files_pauses_and_goes_on() {
    let (listener, address, _) = bound().await;
    let no_files = || io::Error::from_raw_os_error(24);
    let errors = [no_files(), io::ErrorKind::ConnectionAborted.into(), no_files()];
    let door = Jammed { errors: Mutex::new(errors.into()), listener };
    let environment = Counting::default();
    let mut connections = pin!(incoming(door, 1, PATIENT.preface, environment.clone()));
    let _client = TcpStream::connect(&address).await.expect("connected");
    let accepted = connections.next().await;
    assert!(matches!(accepted, Some(Ok(_))));
    // One pause for each time that there were no files; none for the client that had gone.
    assert_eq!(environment.slept(), [Duration::from_millis(100); 2]);
}
