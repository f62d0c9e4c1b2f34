//! Health and reflection, on both ports.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::Platform;

const COMMANDS: [&str; 2] = ["financing.v1.CommandService", "registering.v1.IntegrationService"];
const QUERIES: [&str; 1] = ["financing.v1.QueryService"];
const COMMON: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Each port's connection, with its own services and those of the other.
fn ports(platform: &Platform) -> [(Channel, &'static [&'static str], &'static [&'static str]); 2] {
    [(platform.command_channel(), &COMMANDS, &QUERIES), (platform.query_channel(), &QUERIES, &COMMANDS)]
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn each_port_says_that_its_services_serve() {
    let platform = Platform::start().await;
    for (channel, own, others) in ports(&platform) {
        let mut health = HealthClient::new(channel);
        for service in own.iter().chain(&[""]) {
            let answer = health.check(check(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
            let mut watch = health.watch(check(service)).await.unwrap().into_inner();
            let first = watch.next().await.unwrap().unwrap();
            assert_eq!(first.status(), ServingStatus::Serving, "{service}");
        }
        for service in others.iter().chain(&["nonsense"]) {
            let status = health.check(check(service)).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{service}");
        }
    }
}

#[tokio::test]
async fn each_port_lists_its_services_by_reflection() {
    let platform = Platform::start().await;
    for (channel, own, _) in ports(&platform) {
        let expected: BTreeSet<String> = own.iter().chain(&COMMON).map(|name| (*name).to_owned()).collect();
        assert_eq!(list_v1(channel.clone()).await, expected);
        assert_eq!(list_v1alpha(channel).await, expected);
    }
}

async fn list_v1(channel: Channel) -> BTreeSet<String> {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = v1::ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client
        .server_reflection_info(Request::new(futures_util::stream::iter([request])))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("a list of services was asked for");
    };
    list.service.into_iter().map(|service| service.name).collect()
}

async fn list_v1alpha(channel: Channel) -> BTreeSet<String> {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client
        .server_reflection_info(Request::new(futures_util::stream::iter([request])))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("a list of services was asked for");
    };
    list.service.into_iter().map(|service| service.name).collect()
}

#[tokio::test]
async fn each_port_describes_what_it_serves() {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let platform = Platform::start().await;
    for (channel, own, _) in ports(&platform) {
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
        for symbol in own.iter().chain(&COMMON).chain(&["financing.v1.Money"]) {
            let message_request = Some(MessageRequest::FileContainingSymbol((*symbol).to_owned()));
            let request = v1::ServerReflectionRequest { host: String::new(), message_request };
            let requests = Request::new(futures_util::stream::iter([request]));
            let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
            match answers.next().await.unwrap().unwrap().message_response {
                Some(MessageResponse::FileDescriptorResponse(files)) => {
                    assert!(!files.file_descriptor_proto.is_empty(), "{symbol}");
                }
                other => panic!("{symbol} is not described: {other:?}"),
            }
        }
    }
}
