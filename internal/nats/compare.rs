//! What a stream is, beside what it has to be.
//!
//! The rule this module protects: every setting is compared that decides whether a message is kept, and under which number.
//! What only decides how fast, how large or how often copied is the operator's, and only has to make sense.

use serde_json::{Map, Value, json};

use super::error::NatsError;

/// A stream as it is created.
pub(super) struct Wanted {
    pub(super) name: String,
    /// As JetStream's API has it.
    pub(super) config: Map<String, Value>,
}

impl Wanted {
    /// On how many servers it is to be kept.
    pub(super) fn replicas(&self) -> u64 {
        self.config.get("num_replicas").and_then(Value::as_u64).unwrap_or(1)
    }
}

/// The settings that are compared, and what the server means where it does not mention one.
fn compared() -> [(&'static str, Value); 27] {
    [
        ("subjects", json!([])),
        ("retention", json!("limits")),
        ("storage", json!("file")),
        ("discard", json!("old")),
        ("discard_new_per_subject", json!(false)),
        ("max_msgs", json!(-1)),
        ("max_bytes", json!(-1)),
        ("max_age", json!(0)),
        ("max_msgs_per_subject", json!(-1)),
        ("max_msg_size", json!(-1)),
        ("max_consumers", json!(-1)),
        ("no_ack", json!(false)),
        ("sealed", json!(false)),
        ("deny_delete", json!(false)),
        ("deny_purge", json!(false)),
        ("allow_rollup_hdrs", json!(false)),
        ("allow_direct", json!(false)),
        ("mirror", Value::Null),
        ("sources", Value::Null),
        ("subject_transform", Value::Null),
        ("republish", Value::Null),
        ("allow_msg_ttl", json!(false)),
        ("subject_delete_marker_ttl", json!(0)),
        ("allow_msg_counter", json!(false)),
        ("allow_msg_schedules", json!(false)),
        ("first_seq", json!(0)),
        ("persist_mode", json!("default")),
    ]
}

/// Room that COMMANDS needs at least, in bytes: some bundles of the largest size.
const LEAST_ROOM: i64 = 1024 * 1024;

/// Compares what the server says of a stream with what it has to be.
///
/// # Errors
///
/// [`NatsError::Mismatch`], naming the first difference.
pub(super) fn compare(wanted: &Wanted, info: &Value) -> Result<(), NatsError> {
    let mismatch = |field: &str, found: &Value, asked: String| {
        Err(NatsError::Mismatch {
            stream: wanted.name.clone(),
            field: field.to_owned(),
            found: found.to_string(),
            asked,
        })
    };
    let empty = Map::new();
    let config = info.get("config").and_then(Value::as_object).unwrap_or(&empty);
    for (field, unmentioned) in compared() {
        let found = config.get(field).unwrap_or(&unmentioned);
        let asked = wanted.config.get(field).unwrap_or(&unmentioned);
        if !fits(field, found, asked) {
            return mismatch(field, found, asked.to_string());
        }
    }
    if let Some(Value::Object(metadata)) = wanted.config.get("metadata") {
        for (key, asked) in metadata {
            let found = config.get("metadata").and_then(|metadata| metadata.get(key)).unwrap_or(&Value::Null);
            if found != asked {
                return mismatch(&format!("metadata.{key}"), found, asked.to_string());
            }
        }
    }
    Ok(())
}

fn fits(field: &str, found: &Value, asked: &Value) -> bool {
    match field {
        // Where there is a limit, it is the operator's, but for no limit and too small a one.
        "max_bytes" if asked != &json!(-1) => {
            found.as_i64().is_some_and(|bytes| bytes == -1 || bytes >= LEAST_ROOM)
        }
        // The default flushes before it acknowledges, which is more than is asked.
        "persist_mode" => found == asked || found == "default",
        "first_seq" => found.as_u64().is_some_and(|first| first <= 1),
        _ => found == asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(config: Value) -> Wanted {
        let Value::Object(config) = config else { panic!("{config} is no object") };
        Wanted { name: "S".to_owned(), config }
    }

    #[test]
    fn what_is_not_mentioned_is_the_default() {
        let asked = wanted(json!({"subjects": ["a"], "discard": "new"}));
        assert_eq!(compare(&asked, &json!({"config": {"subjects": ["a"], "discard": "new"}})), Ok(()));
        let refused = compare(&asked, &json!({"config": {"subjects": ["a"]}})).unwrap_err().to_string();
        assert_eq!(refused, r#"the stream S has discard = "old", but it has to be "new""#);
    }

    #[test]
    fn a_limit_is_the_operators_and_flushing_more_is_no_fault() {
        let asked = wanted(json!({"max_bytes": 1 << 30, "persist_mode": "async"}));
        for bytes in [-1_i64, 1 << 20, 1 << 40] {
            assert_eq!(compare(&asked, &json!({"config": {"max_bytes": bytes}})), Ok(()));
        }
        assert!(compare(&asked, &json!({"config": {"max_bytes": 1000}})).is_err());
        let asked = wanted(json!({}));
        assert!(compare(&asked, &json!({"config": {"persist_mode": "async"}})).is_err());
        assert!(compare(&asked, &json!({"config": {"max_bytes": 1 << 30}})).is_err());
    }

    #[test]
    fn metadata_is_compared_where_it_is_asked_for() {
        let asked = wanted(json!({"metadata": {"partitions": "16"}}));
        let found = json!({"config": {"metadata": {"partitions": "16", "_nats.ver": "2.15.1"}}});
        assert_eq!(compare(&asked, &found), Ok(()));
        let refused = compare(&asked, &json!({"config": {}})).unwrap_err();
        assert!(!refused.retryable());
        assert!(refused.to_string().contains("metadata.partitions = null"), "{refused}");
    }
}
