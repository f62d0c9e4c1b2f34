//! A client that presents its token reads its own writes; a client that does not wait is still in order.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tonic::{Code, Request};

use crate::harness::proto::{
    BidOnInvoiceRequest, GetInvestorRequest, ListInvoicesRequest, SellInvoiceRequest,
};
use crate::harness::{Platform, eur};

#[tokio::test]
async fn a_client_that_presents_its_token_reads_what_it_wrote() {
    // given
    let platform = Platform::start().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1000, 0)).await;

    for number in 1..=30 {
        // when
        let sold = platform.sell(&issuer_id, eur(1, 0)).await;
        let bid = platform.bid(&investor_id, &sold.id, eur(1, 0)).await.unwrap();

        // then
        let request = ListInvoicesRequest {
            issuer_id: issuer_id.clone(),
            token: sold.token.clone(),
            ..ListInvoicesRequest::default()
        };
        let invoices = platform.queries().list_invoices(request).await.unwrap().into_inner().invoices;
        assert_eq!(invoices.len(), number);
        assert_eq!(platform.invoice_at(&sold.id, &sold.token).await.id, sold.id);
        assert_eq!(platform.bid_at(&bid.id, &bid.token).await.id, bid.id);
        let spent = i64::try_from(number).unwrap();
        let balances = platform.balances(&investor_id, &format!("{},{}", sold.token, bid.token)).await;
        assert_eq!(balances, [eur(1000 - spent, 0), eur(spent, 0), eur(0, 0)]);
    }
}

#[tokio::test]
async fn a_token_from_the_future_is_waited_for_until_the_clients_deadline() {
    // given
    let platform = Platform::start().await;
    let investor_id = platform.investor(eur(1, 0)).await;
    let sold = platform.sell(&platform.issuer().await, eur(1, 0)).await;
    let (partition, _) = sold.token.split_once('-').unwrap();

    // when
    let token = format!("{},{partition}-1000000", sold.token);
    let mut request = Request::new(GetInvestorRequest { investor_id: investor_id.clone(), token });
    request.set_timeout(Duration::from_secs(1));
    let status = platform.queries().get_investor(request).await.unwrap_err();

    // then
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(platform.balances(&investor_id, &sold.token).await[0], eur(1, 0));
}

#[tokio::test]
async fn a_bid_sent_right_after_the_sale_always_finds_the_invoice() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(50, 0)).await;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded"]).await;

    // when
    let sales: FuturesUnordered<_> = (0..50)
        .map(|_| {
            let sell = SellInvoiceRequest {
                issuer_id: issuer_id.clone(),
                asking_price: eur(1, 0),
                request_id: String::new(),
                wait: None,
            };
            let (mut commands, investor_id) = (platform.commands(), investor_id.clone());
            async move {
                let invoice_id = commands.sell_invoice(sell).await.unwrap().into_inner().invoice_id;
                let amount = eur(1, 0);
                let (request_id, wait) = (String::new(), None);
                let bid = BidOnInvoiceRequest { investor_id, invoice_id, amount, request_id, wait };
                commands.bid_on_invoice(bid).await.unwrap();
            }
        })
        .collect();
    sales.collect::<()>().await;

    // then
    let mut financed = 0;
    while financed < 50 {
        let seen = facts.next().await;
        match seen.name.as_str() {
            "InvoiceCreated" | "BidOnInvoicePlaced" => {}
            "InvoiceFinanced" => financed += 1,
            _ => panic!("nothing else: {seen:?}"),
        }
    }
    facts.nothing_else(&platform).await;
}
