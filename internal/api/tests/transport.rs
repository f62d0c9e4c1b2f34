//! What arrives before any of our code sees it: garbage, too much, and questions about the server itself.

use std::time::Duration;

use futures_util::stream;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha;

use super::{PATIENT, QuerySide, query_side, queueing};
use crate::api::proto::financing::v1;
use crate::api::server::MAX_REQUEST_BYTES;

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn send(channel: Channel, path: &'static str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("connected");
    let mut request = Request::new(body);
    request.set_timeout(Duration::from_millis(500));
    client.unary(request, path.parse().expect("a path"), Raw).await.map(tonic::Response::into_inner)
}

const COMMAND_PATHS: [&str; 5] = [
    "/financing.v1.CommandService/SellInvoice",
    "/financing.v1.CommandService/BidOnInvoice",
    "/financing.v1.CommandService/ApproveFinancing",
    "/financing.v1.CommandService/ReverseFinancing",
    "/registering.v1.IntegrationService/PublishIntegrationEvents",
];

const QUERY_PATHS: [&str; 8] = [
    "/financing.v1.QueryService/GetIssuer",
    "/financing.v1.QueryService/ListIssuers",
    "/financing.v1.QueryService/ListInvoices",
    "/financing.v1.QueryService/GetBid",
    "/financing.v1.QueryService/ListBids",
    "/financing.v1.QueryService/GetCommand",
    "/financing.v1.QueryService/WaitCommand",
    "/financing.v1.QueryService/WatchFacts",
];

/// Sends whatever bytes to whatever method, and asserts that the answer is the client's fault or none.
fn bombard(runtime: &tokio::runtime::Runtime, channel: &Channel, paths: &'static [&'static str]) {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let strategy = (prop::sample::select(paths), bytes);
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let answered = TestRunner::new(config).run(&strategy, |(path, bytes)| {
        let answer = runtime.block_on(send(channel.clone(), path, bytes));
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        let fair = matches!(code, Code::Ok | Code::InvalidArgument | Code::NotFound | Code::DeadlineExceeded);
        prop_assert!(fair, "{path}: {code:?}");
        Ok(())
    });
    answered.expect("a clear status for everything");
}

#[test]
fn garbage_is_the_clients_fault() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let side = runtime.block_on(queueing());
    bombard(&runtime, &side.served.channel, &COMMAND_PATHS);
    let side = runtime.block_on(query_side(PATIENT));
    bombard(&runtime, &side.served.channel, &QUERY_PATHS);
    let status = runtime
        .block_on(send(side.served.channel.clone(), QUERY_PATHS[0], b"\xff\xff\xff\xff".to_vec()))
        .expect_err("no message");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("decode"), "{status:?}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_so() {
    let side = query_side(PATIENT).await;
    let request = |length| v1::GetIssuerRequest { token: "x".repeat(length), ..Default::default() };
    let status = side.client().get_issuer(request(MAX_REQUEST_BYTES)).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("65536 bytes"), "{status:?}");
    // As large as may be is read, and found to be wrong.
    let status = side.client().get_issuer(request(MAX_REQUEST_BYTES - 4)).await.expect_err("no token");
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = send(side.served.channel.clone(), "/financing.v1.QueryService/Nothing", Vec::new()).await;
    assert_eq!(status.expect_err("no such method").code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_connection_that_talks_nonsense_is_closed_and_harms_nobody() {
    let side = query_side(PATIENT).await;
    for nonsense in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00\xff\x00\xff", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]]
    {
        let mut connection = tokio::net::TcpStream::connect(&side.served.address).await.expect("connected");
        connection.write_all(nonsense).await.expect("sent");
        connection.shutdown().await.expect("sent");
        let mut answer = Vec::new();
        // Whether it is closed or reset does not matter: it comes to an end.
        let _ended = connection.read_to_end(&mut answer).await;
    }
    assert!(side.client().list_bids(v1::ListBidsRequest::default()).await.is_ok());
}

#[tokio::test]
async fn health_is_serving_until_the_server_stops_and_does_not_hold_it_up() {
    let side = query_side(PATIENT).await;
    let mut client = HealthClient::new(side.served.channel.clone());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "financing.v1.QueryService"] {
        let status = client.check(of(service)).await.expect("known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    let status = client.check(of("financing.v1.CommandService")).await.expect_err("on the other port");
    assert_eq!(status.code(), Code::NotFound);
    let mut watch = client.watch(of("")).await.expect("a stream").into_inner();
    assert_eq!(watch.message().await.expect("one").expect("one").status(), ServingStatus::Serving);
    let mut unknown = client.watch(of("x")).await.expect("a stream").into_inner();
    let status = unknown.message().await.expect("one").expect("one").status();
    assert_eq!(status, ServingStatus::ServiceUnknown);
    drop(client);
    side.served.end().await;
    assert_eq!(watch.message().await.expect("one").expect("one").status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.expect("the end"), None);
}

async fn reflect(side: &QuerySide, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(side.served.channel.clone());
    let mut answers =
        client.server_reflection_info(stream::iter([request])).await.expect("a stream").into_inner();
    let answer: Option<ServerReflectionResponse> = answers.message().await.expect("an answer");
    answer.and_then(|answer| answer.message_response).expect("an answer")
}

#[tokio::test]
async fn a_client_that_knows_only_reflection_can_learn_everything() {
    let side = query_side(PATIENT).await;
    let MessageResponse::ListServicesResponse(list) =
        reflect(&side, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "financing.v1.QueryService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    );
    for name in names {
        let mut questions = vec![MessageRequest::FileContainingSymbol(name)];
        while let Some(question) = questions.pop() {
            let MessageResponse::FileDescriptorResponse(files) = reflect(&side, question.clone()).await
            else {
                panic!("no answer to {question:?}");
            };
            for file in files.file_descriptor_proto {
                let file = prost_types::FileDescriptorProto::decode(file.as_slice()).expect("a descriptor");
                questions.extend(file.dependency.into_iter().map(MessageRequest::FileByFilename));
            }
        }
    }
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(side.served.channel.clone());
    let mut answers =
        old.server_reflection_info(stream::iter([request])).await.expect("a stream").into_inner();
    assert!(answers.message().await.expect("an answer").is_some());
}
