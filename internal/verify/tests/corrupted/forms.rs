//! What is stored can be read, and says of itself what it is.

use verify::Invariant::Form;

use super::{ADA, BOB, changed};

#[test]
fn an_event_has_a_name_that_nobody_knows() {
    changed(
        |stored| stored.find("InvoiceApproved", 0),
        |record| record.event_type = "InvoicePaid".to_owned(),
        Form,
    );
}

#[test]
fn an_event_has_a_schema_that_was_never_written() {
    changed(|stored| stored.find("InvoiceApproved", 0), |record| record.schema = 2, Form);
}

#[test]
fn the_data_of_an_event_is_cut_off() {
    changed(
        |stored| stored.find("InvoiceApproved", 0),
        |record| {
            record.payload.pop();
        },
        Form,
    );
}

#[test]
fn an_event_says_more_than_its_shape() {
    changed(|stored| stored.find("InvoiceApproved", 0), |record| record.say("{", r#"{"more":1,"#), Form);
}

#[test]
fn an_event_says_less_than_its_shape() {
    changed(|stored| stored.find("IssuerCreated", 0), |record| record.say(r#","name":"Acme""#, ""), Form);
}

#[test]
fn an_event_is_about_another_aggregate_than_its_record() {
    changed(
        |stored| stored.saying("BidOnInvoicePlaced", &ADA.to_string()),
        |record| record.say(&ADA.to_string(), &BOB.to_string()),
        Form,
    );
}

#[test]
fn a_refusal_says_another_reason_than_it_has() {
    changed(
        |stored| stored.saying("CommandRefused", "INSUFFICIENT_FUNDS"),
        |record| {
            record.say(r#""refusal":{"reason":"INSUFFICIENT_FUNDS"}"#, r#""refusal":{"reason":"OTHER"}"#);
        },
        Form,
    );
}
