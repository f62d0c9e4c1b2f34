//! What a row repeats of a record, it repeats in the record's words.

use std::borrow::Cow;

use domain::financing::Financing;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{AggregateRef, Projection as _};
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::Value;
use eventsourcing::record::{COMMAND_REFUSED, Record};
use readmodel::{FinancingProjection, tables};
use uuid::Uuid;

const REFUSED: &str = include_str!("../../domain/golden_commands/CommandRefused.v1.json");

#[test]
fn a_refusal_is_shown_in_the_words_that_the_client_was_told() {
    // given a record that an earlier release has written, which had other words
    let mut data: serde_json::Value = serde_json::from_str(REFUSED).unwrap();
    data["message"] = "in the words of another release".into();
    let record = Record {
        partition: Partition::from_index(0),
        sequence: Sequence::new(1),
        record_id: Uuid::nil(),
        recorded_at: Timestamp::default(),
        aggregate: AggregateRef::new("invoice", Uuid::nil()),
        version: None,
        event_type: Cow::Borrowed(COMMAND_REFUSED),
        schema: 1,
        data: data.to_string(),
        command_id: Uuid::nil(),
        correlation_id: Uuid::nil(),
        causation_id: Uuid::nil(),
        actor: "client".to_owned(),
        traceparent: None,
        last_of_command: true,
    };

    // when
    let changes = FinancingProjection.project(&record, &record.entry::<Financing>().unwrap());

    // then
    let row = changes.iter().find(|change| change.table == tables::COMMANDS.name).unwrap();
    let told = Value::Text("in the words of another release".to_owned());
    assert!(row.set.contains(&("message", told)), "{row:?}");
}
