//! What streams have to be.

use futures_util::future::join_all;

use super::super::NatsError;
use super::*;

#[tokio::test]
async fn several_processes_create_the_streams_at_once() {
    let server = NatsServer::start();
    let starting = (0..6).map(|_| async {
        let nats = connected(&server).await;
        assert_eq!(nats.ensure_queues(&streams()).await, Ok(()));
        assert_eq!(nats.ensure_events(&streams()).await, Ok(()));
    });
    join_all(starting).await;
    let nats = connected(&server).await;
    assert_eq!(nats.check_queue(&streams()).await, Ok(()));
    assert_eq!(nats.check_events(&streams()).await, Ok(()));
}

#[tokio::test]
async fn who_comes_first_is_told_who_has_to() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    assert_eq!(nats.events_deployment().await, Ok(None));
    for missing in [nats.check_events(&streams()).await, nats.check_queue(&streams()).await] {
        let missing = missing.unwrap_err();
        assert!(matches!(missing, NatsError::Missing { .. }) && missing.retryable(), "{missing}");
    }
    let unknown = Streams::of(DEPLOYMENT.partitions);
    assert!(matches!(nats.ensure_events(&unknown).await, Err(NatsError::Settings(_))));
    nats.ensure_events(&streams()).await.unwrap();
    assert_eq!(nats.events_deployment().await, Ok(Some(DEPLOYMENT)));
    assert_eq!(nats.check_events(&unknown).await, Ok(()), "who does not know the deployment yet may ask");
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let (_server, nats) = ready().await;
    let other = Streams { partitions: PartitionCount::new(4).unwrap(), ..streams() };
    for refused in [nats.ensure_queues(&other).await, nats.ensure_events(&other).await] {
        let refused = refused.unwrap_err();
        assert!(!refused.retryable());
        assert!(
            refused.to_string().contains(r#"metadata.partitions = "16", but it has to be "4""#),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn another_deployment_is_refused() {
    let (_server, nats) = ready().await;
    let id = Uuid::from_u128(8);
    let other = Streams { deployment: Some(Deployment { id, ..DEPLOYMENT }), ..streams() };
    let refused = nats.ensure_events(&other).await.unwrap_err().to_string();
    assert!(refused.contains("metadata.deployment") && refused.contains(&id.to_string()), "{refused}");
}

/// Creates the stream with one setting that is another, and answers with what is said of it.
async fn refused(nats: &Nats, stream: &str, field: &str, value: Value) -> NatsError {
    let info = asked(nats, &format!("STREAM.INFO.{stream}"), &json!({})).await;
    let mut config = info["config"].clone();
    delete(nats, stream).await;
    config[field] = value;
    asked(nats, &format!("STREAM.CREATE.{stream}"), &config).await;
    let queues = nats.ensure_queues(&streams()).await;
    let answer = queues.and(nats.ensure_events(&streams()).await).expect_err(field);
    delete(nats, stream).await;
    nats.ensure_queues(&streams()).await.unwrap();
    nats.ensure_events(&streams()).await.unwrap();
    answer
}

#[tokio::test]
async fn what_loses_messages_is_refused_field_by_field() {
    let (_server, nats) = ready().await;
    let settings = [
        ("COMMANDS", "subjects", json!(["financing.commands.>"])),
        ("COMMANDS", "retention", json!("workqueue")),
        ("COMMANDS", "retention", json!("interest")),
        ("COMMANDS", "storage", json!("memory")),
        ("COMMANDS", "discard", json!("old")),
        ("COMMANDS", "max_msgs", json!(1000)),
        ("COMMANDS", "max_bytes", json!(1000)),
        ("COMMANDS", "max_age", json!(3_600_000_000_000_u64)),
        ("COMMANDS", "max_msgs_per_subject", json!(10)),
        ("COMMANDS", "max_msg_size", json!(1000)),
        ("COMMANDS", "max_consumers", json!(10)),
        ("COMMANDS", "no_ack", json!(true)),
        ("COMMANDS", "persist_mode", json!("async")),
        ("COMMANDS", "allow_direct", json!(false)),
        ("COMMANDS", "allow_msg_ttl", json!(true)),
        ("COMMANDS", "first_seq", json!(100)),
        ("COMMANDS", "deny_purge", json!(true)),
        ("COMMANDS", "metadata", json!({})),
        ("COMMANDS", "republish", json!({"src": ">", "dest": "elsewhere.>"})),
        (
            "COMMANDS",
            "subject_transform",
            json!({"src": "financing.commands.1", "dest": "financing.commands.2"}),
        ),
        ("REGISTERING", "discard", json!("old")),
        ("REGISTERING", "sources", json!([{"name": "DEAD"}])),
        ("DEAD", "max_age", json!(3_600_000_000_000_u64)),
        ("EVENTS_3", "max_bytes", json!(1_000_000_000)),
        ("EVENTS_3", "allow_rollup_hdrs", json!(true)),
        ("EVENTS_3", "discard", json!("old")),
    ];
    for (stream, field, value) in settings {
        // A stream that may be rolled up may be purged, too.
        let answer = if field == "allow_rollup_hdrs" {
            refused_as(&nats, stream, &[("deny_purge", json!(false)), (field, value)]).await
        } else {
            refused(&nats, stream, field, value).await
        };
        let text = answer.to_string();
        assert!(!answer.retryable(), "{text}");
        assert!(
            matches!(&answer, NatsError::Mismatch { stream: of, .. } if of == stream),
            "{stream} {field}: {text}"
        );
        let about = if field == "allow_rollup_hdrs" { "deny_purge" } else { field };
        assert!(text.contains(about) && text.contains("but it has to be"), "{stream} {field}: {text}");
    }
}

async fn refused_as(nats: &Nats, stream: &str, changes: &[(&str, Value)]) -> NatsError {
    let info = asked(nats, &format!("STREAM.INFO.{stream}"), &json!({})).await;
    let mut config = info["config"].clone();
    delete(nats, stream).await;
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    asked(nats, &format!("STREAM.CREATE.{stream}"), &config).await;
    let answer = nats.ensure_events(&streams()).await.unwrap_err();
    delete(nats, stream).await;
    nats.ensure_events(&streams()).await.unwrap();
    answer
}

#[tokio::test]
async fn a_stream_that_takes_others_subjects_is_refused() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    asked(&nats, "STREAM.CREATE.MINE", &json!({"name": "MINE", "subjects": ["financing.>"]})).await;
    let refused = nats.ensure_queues(&streams()).await.unwrap_err();
    assert!(matches!(&refused, NatsError::Mismatch { field, .. } if field == "subjects"), "{refused}");
}

#[tokio::test]
async fn copies_that_one_server_cannot_keep_are_no_reason_to_wait() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let copies = Streams { replicas: 3, ..streams() };
    for refused in [nats.ensure_queues(&copies).await, nats.ensure_events(&copies).await] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, NatsError::NotCreated { .. }) && !refused.retryable(), "{refused}");
        assert!(refused.to_string().contains("replicas"), "{refused}");
    }
}

#[tokio::test]
async fn room_that_is_not_there_may_be_made() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let large = Streams { commands_max_bytes: 1 << 60, ..streams() };
    let refused = nats.ensure_queues(&large).await.unwrap_err();
    assert!(refused.retryable(), "{refused}");
    assert!(refused.to_string().contains("insufficient storage"), "{refused}");
}

#[tokio::test]
async fn what_is_the_operators_is_left_alone() {
    let (_server, nats) = ready().await;
    let info = asked(&nats, "STREAM.INFO.COMMANDS", &json!({})).await;
    let mut config = info["config"].clone();
    config["max_bytes"] = json!(64 * 1024 * 1024);
    config["description"] = json!("ours");
    asked(&nats, "STREAM.UPDATE.COMMANDS", &config).await;
    assert_eq!(nats.ensure_queues(&streams()).await, Ok(()));
    let info = asked(&nats, "STREAM.INFO.COMMANDS", &json!({})).await;
    assert_eq!(
        (&info["config"]["max_bytes"], &info["config"]["description"]),
        (&config["max_bytes"], &json!("ours"))
    );
}
