//! An issuer offers an invoice for sale.

use serde_json::json;

use crate::harness::proto::{CommandState, InvoiceStatus, SellInvoiceRequest};
use crate::harness::{Platform, eur, json as json_of, reason, uuid, wait};

#[tokio::test]
async fn an_issuer_puts_an_invoice_on_sale() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    facts.given(["IssuerCreated"]).await;

    // when
    let request = SellInvoiceRequest {
        issuer_id: issuer_id.clone(),
        asking_price: eur(12, 34),
        request_id: String::new(),
        wait: wait(),
    };
    let mut request = tonic::Request::new(request);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request.metadata_mut().insert("actor", "clerk 7".parse().unwrap());
    let sold = platform.commands().sell_invoice(request).await.unwrap().into_inner();

    // then
    assert_eq!(sold.state(), CommandState::Applied);
    let [created] = facts.saga(&sold.command_id, ["InvoiceCreated"]).await;
    let data = json!({ "invoice_id": sold.invoice_id, "issuer_id": issuer_id, "asking_price": json_of(eur(12, 34)) });
    created.says(&format!("invoice/{}", sold.invoice_id), &data);
    assert_eq!(created.token(), sold.token);
    assert_eq!([created.extension("actor"), created.extension("traceparent")], ["clerk 7", traceparent]);

    let invoice = platform.invoice_at(&sold.invoice_id, &sold.token).await;
    assert_eq!((&invoice.id, &invoice.issuer_id), (&sold.invoice_id, &issuer_id));
    assert_eq!((invoice.asking_price.clone(), invoice.status()), (eur(12, 34), InvoiceStatus::Available));
    assert_eq!(invoice.winning_bid, None);
}

#[tokio::test]
async fn the_same_invoice_sold_twice_is_two_invoices_without_a_request_id() {
    // given
    let platform = Platform::start().await;
    let issuer_id = platform.issuer().await;

    // when
    let first = platform.sell(&issuer_id, eur(1, 0)).await;
    let second = platform.sell(&issuer_id, eur(1, 0)).await;

    // then
    assert_ne!(first.id, second.id);
    assert_ne!(first.command_id, second.command_id);
}

#[tokio::test]
async fn nobody_sells_without_being_an_issuer() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    facts.given(["InvestorCreated", "InvestorFundsAdded"]).await;

    for (who, issuer_id) in [("nobody", uuid()), ("an investor", investor_id)] {
        // when
        let request = SellInvoiceRequest {
            issuer_id: issuer_id.clone(),
            asking_price: eur(1, 0),
            request_id: String::new(),
            wait: wait(),
        };
        let refusal = platform.commands().sell_invoice(request).await.expect_err(who);

        // then
        assert_eq!(reason(&refusal), "ISSUER_NOT_FOUND", "{who}");
        let [refused] = facts.given(["CommandRefused"]).await;
        assert_eq!(refused.data["reason"], "ISSUER_NOT_FOUND");
        assert_eq!(refused.data["command"]["invoice"]["SellInvoice"]["issuer_id"], *issuer_id);
        let invoice_id = refused.data["command"]["invoice"]["SellInvoice"]["invoice_id"].as_str().unwrap();
        assert_eq!(refused.event.subject, format!("invoice/{invoice_id}"));
    }
}
