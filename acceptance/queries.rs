//! The query side alone: facts go in, answers come out. Nothing of the command side runs.

use domain::currency::Currency;
use domain::events::Event;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{
    BidOnInvoicePlaced, InvestorCreated, InvestorEvent, InvestorFundsAdded, InvestorFundsCommitted,
    InvestorFundsReleased,
};
use domain::invoice::{
    BidOnInvoiceRejected, InvoiceApproved, InvoiceCommand, InvoiceCreated, InvoiceEvent, InvoiceFinanced,
    InvoiceReversed, ProcessBid, SellInvoice,
};
use domain::issuer::{IssuerCreated, IssuerEvent};
use domain::money::{Amount, Money};
use domain::name::Name;
use domain::refusal::{BidRejection, Refusal};
use domain::reservation::ReleaseKind;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::proto::{
    self, Bid, BidStatus, CommandState, GetBidRequest, GetCommandRequest, GetInvestorRequest,
    GetInvoiceRequest, GetIssuerRequest, Invoice, InvoiceStatus, ListBidsRequest, ListInvestorsRequest,
    ListInvoicesRequest, ListIssuersRequest, WatchFactsRequest, WinningBid,
};
use crate::harness::{QuerySide, eur, violated};

const ACME: IssuerId = IssuerId::new(Uuid::from_u128(0x15));
const EMCA: IssuerId = IssuerId::new(Uuid::from_u128(0x16));
const ADA: InvestorId = InvestorId::new(Uuid::from_u128(0x1));
const BOB: InvestorId = InvestorId::new(Uuid::from_u128(0x2));
const INVOICE: InvoiceId = InvoiceId::new(Uuid::from_u128(0xF));
const BID: BidId = BidId::new(Uuid::from_u128(0xB));

fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::EUR).unwrap()
}

fn nothing() -> Money {
    Money::zero(Currency::EUR)
}

fn issuer(issuer_id: IssuerId, name: &str) -> Event {
    IssuerEvent::IssuerCreated(IssuerCreated { issuer_id, name: Name::try_new(name).unwrap() }).into()
}

fn investor(investor_id: InvestorId, name: &str, currency_code: Currency) -> Event {
    let name = Name::try_new(name).unwrap();
    InvestorEvent::InvestorCreated(InvestorCreated { investor_id, name, currency_code }).into()
}

fn funds(investor_id: InvestorId, amount: Amount) -> Event {
    InvestorEvent::InvestorFundsAdded(InvestorFundsAdded { investor_id, amount }).into()
}

fn on_sale(invoice_id: InvoiceId, issuer_id: IssuerId, asking_price: Amount) -> Event {
    InvoiceEvent::InvoiceCreated(InvoiceCreated { invoice_id, issuer_id, asking_price }).into()
}

fn placed(bid_id: BidId, investor_id: InvestorId, invoice_id: InvoiceId, amount: Amount) -> Event {
    InvestorEvent::BidOnInvoicePlaced(BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount }).into()
}

fn rejected(bid_id: BidId, investor_id: InvestorId, amount: Amount, reason: BidRejection) -> Event {
    let invoice_id = INVOICE;
    InvoiceEvent::BidOnInvoiceRejected(BidOnInvoiceRejected {
        invoice_id,
        bid_id,
        investor_id,
        amount,
        reason,
    })
    .into()
}

fn financed(invoice_id: InvoiceId, bid_id: BidId, amount: Amount, asking_price: Amount) -> Event {
    let (issuer_id, investor_id) = (ACME, ADA);
    InvoiceEvent::InvoiceFinanced(InvoiceFinanced {
        invoice_id,
        issuer_id,
        bid_id,
        investor_id,
        amount,
        asking_price,
    })
    .into()
}

fn released(kind: ReleaseKind, amount: Amount, remainder: Money) -> Event {
    let (investor_id, bid_id, invoice_id) = (ADA, BID, INVOICE);
    InvestorEvent::InvestorFundsReleased(InvestorFundsReleased {
        investor_id,
        bid_id,
        invoice_id,
        kind,
        amount,
        remainder,
    })
    .into()
}

fn committed(amount: Amount) -> Event {
    let (investor_id, bid_id, invoice_id, remainder) = (ADA, BID, INVOICE, nothing());
    InvestorEvent::InvestorFundsCommitted(InvestorFundsCommitted {
        investor_id,
        bid_id,
        invoice_id,
        amount,
        remainder,
    })
    .into()
}

/// An invoice of 60 euros on sale, and Ada with a hundred, of which she bids 75 on it.
fn a_bid() -> [Event; 5] {
    [
        issuer(ACME, "Acme"),
        investor(ADA, "Ada", Currency::EUR),
        funds(ADA, cents(10_000)),
        on_sale(INVOICE, ACME, cents(6000)),
        placed(BID, ADA, INVOICE, cents(7500)),
    ]
}

impl QuerySide {
    async fn balances(&self, investor_id: InvestorId, token: &str) -> [Option<proto::Money>; 3] {
        let request = GetInvestorRequest { investor_id: investor_id.to_string(), token: token.to_owned() };
        let investor = self.queries().get_investor(request).await.unwrap().into_inner().investor.unwrap();
        [investor.available, investor.reserved, investor.committed]
    }

    async fn bid(&self, bid_id: BidId, token: &str) -> Result<Bid, Status> {
        let request = GetBidRequest { bid_id: bid_id.to_string(), token: token.to_owned() };
        Ok(self.queries().get_bid(request).await?.into_inner().bid.unwrap())
    }

    async fn invoice(&self, invoice_id: InvoiceId, token: &str) -> Invoice {
        let request = GetInvoiceRequest { invoice_id: invoice_id.to_string(), token: token.to_owned() };
        self.queries().get_invoice(request).await.unwrap().into_inner().invoice.unwrap()
    }

    async fn command(&self, command_id: Uuid, token: &str) -> proto::Command {
        let request = GetCommandRequest { command_id: command_id.to_string(), token: token.to_owned() };
        self.queries().get_command(request).await.unwrap().into_inner().command.unwrap()
    }

    async fn invoices(&self, request: ListInvoicesRequest) -> Vec<String> {
        let answer = self.queries().list_invoices(request).await.unwrap().into_inner();
        assert_eq!(answer.next_page_token, "");
        answer.invoices.into_iter().map(|invoice| invoice.id).collect()
    }

    async fn bids(&self, request: ListBidsRequest) -> Vec<String> {
        let answer = self.queries().list_bids(request).await.unwrap().into_inner();
        assert_eq!(answer.next_page_token, "");
        answer.bids.into_iter().map(|bid| bid.id).collect()
    }
}

#[tokio::test]
async fn where_nothing_has_happened_nothing_is_found() {
    let side = QuerySide::start().await;
    let (mut queries, id, token) = (side.queries(), ACME.to_string(), String::new());

    let request = GetIssuerRequest { issuer_id: id.clone(), token: token.clone() };
    assert_eq!(queries.get_issuer(request).await.unwrap_err().code(), Code::NotFound);
    let request = GetInvestorRequest { investor_id: id.clone(), token: token.clone() };
    assert_eq!(queries.get_investor(request).await.unwrap_err().code(), Code::NotFound);
    let request = GetInvoiceRequest { invoice_id: id.clone(), token: token.clone() };
    assert_eq!(queries.get_invoice(request).await.unwrap_err().code(), Code::NotFound);
    let request = GetBidRequest { bid_id: id.clone(), token: token.clone() };
    assert_eq!(queries.get_bid(request).await.unwrap_err().code(), Code::NotFound);
    let request = GetCommandRequest { command_id: id.clone(), token };
    let command = queries.get_command(request).await.unwrap().into_inner().command.unwrap();
    assert_eq!((command.state(), command.id), (CommandState::Pending, id));

    let issuers = queries.list_issuers(ListIssuersRequest::default()).await.unwrap().into_inner();
    assert_eq!((issuers.issuers.len(), issuers.next_page_token.as_str()), (0, ""));
    let investors = queries.list_investors(ListInvestorsRequest::default()).await.unwrap().into_inner();
    assert_eq!((investors.investors.len(), investors.next_page_token.as_str()), (0, ""));
    assert!(side.invoices(ListInvoicesRequest::default()).await.is_empty());
    assert!(side.bids(ListBidsRequest::default()).await.is_empty());
}

#[tokio::test]
async fn issuers_and_investors_are_found_by_id_and_by_name() {
    // given
    let mut side = QuerySide::start().await;
    let token = side
        .given([
            issuer(ACME, "Acme"),
            issuer(EMCA, "Emca"),
            investor(ADA, "Ada", Currency::EUR),
            investor(BOB, "Bob", Currency::KWD),
            funds(ADA, cents(1)),
        ])
        .await;

    // then
    let request = GetIssuerRequest { issuer_id: EMCA.to_string(), token: token.clone() };
    let found = side.queries().get_issuer(request).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!((found.id, found.name.as_str()), (EMCA.to_string(), "Emca"));
    for (name, expected) in [("", vec![ACME, EMCA]), ("Acme", vec![ACME]), ("acme", vec![]), ("Ada", vec![])]
    {
        let request = ListIssuersRequest { name: name.to_owned(), ..ListIssuersRequest::default() };
        let found = side.queries().list_issuers(request).await.unwrap().into_inner().issuers;
        let found: Vec<String> = found.into_iter().map(|issuer| issuer.id).collect();
        assert_eq!(found, expected.iter().map(ToString::to_string).collect::<Vec<_>>(), "{name:?}");
    }
    for (name, expected) in [("", vec![ADA, BOB]), ("Bob", vec![BOB]), ("Acme", vec![])] {
        let request = ListInvestorsRequest { name: name.to_owned(), ..ListInvestorsRequest::default() };
        let found = side.queries().list_investors(request).await.unwrap().into_inner().investors;
        let found: Vec<String> = found.into_iter().map(|investor| investor.id).collect();
        assert_eq!(found, expected.iter().map(ToString::to_string).collect::<Vec<_>>(), "{name:?}");
    }
    assert_eq!(side.balances(ADA, &token).await, [eur(0, 1), eur(0, 0), eur(0, 0)]);
    let none = Some(proto::Money { currency_code: "KWD".to_owned(), units: 0, nanos: 0 });
    assert_eq!(side.balances(BOB, &token).await, [none.clone(), none.clone(), none]);
}

#[tokio::test]
async fn a_bid_goes_from_placed_to_won_to_committed() {
    let mut side = QuerySide::start().await;

    let token = side.given(a_bid()).await;
    assert_eq!(side.balances(ADA, &token).await, [eur(25, 0), eur(75, 0), eur(0, 0)]);
    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.amount.clone()), (BidStatus::Placed, eur(75, 0)));
    assert_eq!((bid.investor_id, bid.invoice_id), (ADA.to_string(), INVOICE.to_string()));
    let invoice = side.invoice(INVOICE, &token).await;
    assert_eq!((invoice.status(), invoice.winning_bid.clone()), (InvoiceStatus::Available, None));
    assert_eq!((invoice.issuer_id, invoice.asking_price), (ACME.to_string(), eur(60, 0)));

    let token = side.given([financed(INVOICE, BID, cents(7500), cents(6000))]).await;
    assert_eq!(side.bid(BID, &token).await.unwrap().status(), BidStatus::Won);
    let invoice = side.invoice(INVOICE, &token).await;
    let winner = WinningBid { bid_id: BID.to_string(), investor_id: ADA.to_string(), amount: eur(75, 0) };
    assert_eq!((invoice.status(), invoice.winning_bid), (InvoiceStatus::Financed, Some(winner)));

    let token = side.given([released(ReleaseKind::Excess, cents(1500), cents(6000).money())]).await;
    assert_eq!(side.balances(ADA, &token).await, [eur(40, 0), eur(60, 0), eur(0, 0)]);
    assert_eq!(side.bid(BID, &token).await.unwrap().status(), BidStatus::Won);

    let approved = InvoiceEvent::InvoiceApproved(InvoiceApproved {
        invoice_id: INVOICE,
        issuer_id: ACME,
        bid_id: BID,
        investor_id: ADA,
        amount: cents(7500),
        asking_price: cents(6000),
    });
    let token = side.given([approved.into(), committed(cents(6000))]).await;
    assert_eq!(side.balances(ADA, &token).await, [eur(40, 0), eur(0, 0), eur(60, 0)]);
    assert_eq!(side.bid(BID, &token).await.unwrap().status(), BidStatus::Committed);
    assert_eq!(side.invoice(INVOICE, &token).await.status(), InvoiceStatus::Approved);
}

#[tokio::test]
async fn a_bid_goes_from_won_to_released_when_its_invoice_is_reversed() {
    let mut side = QuerySide::start().await;
    side.given(a_bid()).await;
    let reversed = InvoiceEvent::InvoiceReversed(InvoiceReversed {
        invoice_id: INVOICE,
        issuer_id: ACME,
        bid_id: BID,
        investor_id: ADA,
        amount: cents(7500),
        asking_price: cents(7500),
    });
    let back = released(ReleaseKind::Return, cents(7500), nothing());
    let token = side.given([financed(INVOICE, BID, cents(7500), cents(7500)), reversed.into(), back]).await;

    assert_eq!(side.invoice(INVOICE, &token).await.status(), InvoiceStatus::Reversed);
    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.reason.as_str()), (BidStatus::Released, ""));
    assert_eq!(side.balances(ADA, &token).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
}

#[tokio::test]
async fn a_bid_goes_from_rejected_to_released_and_keeps_the_reason() {
    let mut side = QuerySide::start().await;
    side.given(a_bid()).await;

    let token = side.given([rejected(BID, ADA, cents(7500), BidRejection::InvoiceNotAvailable)]).await;
    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.reason.as_str()), (BidStatus::Rejected, "INVOICE_NOT_AVAILABLE"));

    let token = side.given([released(ReleaseKind::Release, cents(7500), nothing())]).await;
    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.reason.as_str()), (BidStatus::Released, "INVOICE_NOT_AVAILABLE"));
}

#[tokio::test]
async fn a_bid_that_could_not_be_answered_counts_as_rejected() {
    let mut side = QuerySide::start().await;
    side.given(a_bid()).await;
    let (invoice_id, bid_id, investor_id) = (INVOICE, BID, ADA);
    let process =
        InvoiceCommand::ProcessBid(ProcessBid { invoice_id, bid_id, investor_id, amount: cents(7500) });

    let command_id = Uuid::from_u128(0xC);
    let token = side.refused(command_id, process.into(), Refusal::InvoiceNotFound { invoice_id }).await;

    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.reason.as_str()), (BidStatus::Rejected, "INVOICE_NOT_FOUND"));
}

#[tokio::test]
async fn the_invoices_half_of_a_bid_alone_is_no_bid() {
    let mut side = QuerySide::start().await;

    let token = side.given([rejected(BID, ADA, cents(7500), BidRejection::BidBelowAskingPrice)]).await;

    assert_eq!(side.bid(BID, &token).await.unwrap_err().code(), Code::NotFound);
    assert!(side.bids(ListBidsRequest { token, ..ListBidsRequest::default() }).await.is_empty());
    let status = BidStatus::Rejected.into();
    assert!(side.bids(ListBidsRequest { status, ..ListBidsRequest::default() }).await.is_empty());
    let token = side.given([placed(BID, ADA, INVOICE, cents(7500))]).await;
    let bid = side.bid(BID, &token).await.unwrap();
    assert_eq!((bid.status(), bid.reason.as_str()), (BidStatus::Rejected, "BID_BELOW_ASKING_PRICE"));
}

#[tokio::test]
async fn every_outcome_of_a_command_is_told() {
    // given
    let mut side = QuerySide::start().await;
    let sell = SellInvoice { invoice_id: INVOICE, issuer_id: ACME, asking_price: cents(1) };
    let sell = InvoiceCommand::SellInvoice(sell);
    let [applied, unchanged, refused, dead] = [1, 2, 3, 4].map(Uuid::from_u128);

    // when
    let token = side.applied(applied, &on_sale(INVOICE, ACME, cents(1))).await;
    assert_eq!(side.command(applied, &token).await.token, token);
    let token = side.unchanged(unchanged, sell.clone().into()).await;
    assert_eq!(side.command(unchanged, &token).await.token, token);
    let refusal = Refusal::IssuerNotFound { issuer_id: ACME };
    let message = refusal.to_string();
    side.refused(refused, sell.clone().into(), refusal).await;
    let token = side.dead(dead, sell.into(), "it cannot be stored").await;

    // then
    let told = async |id| {
        let command = side.command(id, &token).await;
        assert_eq!(command.id, id.to_string());
        (command.state(), command.reason, command.message)
    };
    assert_eq!(told(applied).await, (CommandState::Applied, String::new(), String::new()));
    assert_eq!(told(unchanged).await, (CommandState::Unchanged, String::new(), String::new()));
    assert_eq!(told(refused).await, (CommandState::Refused, "ISSUER_NOT_FOUND".to_owned(), message));
    let expected = (CommandState::Dead, "UNSTORABLE".to_owned(), "it cannot be stored".to_owned());
    assert_eq!(told(dead).await, expected);
}

/// Invoices 1 to 6, of two issuers in turn; Ada has won 5 and 6, and bids 11 to 16 are hers on them, in turn with Bob.
async fn a_market(side: &mut QuerySide) -> String {
    let mut events = vec![issuer(ACME, "Acme"), issuer(EMCA, "Emca")];
    for (investor_id, name) in [(ADA, "Ada"), (BOB, "Bob")] {
        events.extend([investor(investor_id, name, Currency::EUR), funds(investor_id, cents(10_000))]);
    }
    for number in 1..=6 {
        let invoice_id = InvoiceId::new(Uuid::from_u128(number));
        let (issuer_id, investor_id) = if number % 2 == 0 { (ACME, ADA) } else { (EMCA, BOB) };
        let bid_id = BidId::new(Uuid::from_u128(number + 10));
        events.push(on_sale(invoice_id, issuer_id, cents(100)));
        events.push(placed(bid_id, investor_id, invoice_id, cents(100)));
        if number == 6 {
            events.push(financed(invoice_id, bid_id, cents(100), cents(100)));
        }
    }
    side.given(events).await
}

fn numbers(ids: &[u128]) -> Vec<String> {
    ids.iter().map(|id| Uuid::from_u128(*id).to_string()).collect()
}

#[tokio::test]
async fn lists_are_filtered_by_what_is_named() {
    let mut side = QuerySide::start().await;
    let token = a_market(&mut side).await;
    let all = ListInvoicesRequest { token, ..ListInvoicesRequest::default() };
    assert_eq!(side.invoices(all.clone()).await, numbers(&[1, 2, 3, 4, 5, 6]));
    let of_acme = ListInvoicesRequest { issuer_id: ACME.to_string(), ..all.clone() };
    assert_eq!(side.invoices(of_acme.clone()).await, numbers(&[2, 4, 6]));
    let available = ListInvoicesRequest { status: InvoiceStatus::Available.into(), ..of_acme };
    assert_eq!(side.invoices(available).await, numbers(&[2, 4]));
    let of_ada = ListInvoicesRequest { investor_id: ADA.to_string(), ..all.clone() };
    assert_eq!(side.invoices(of_ada).await, numbers(&[6]));
    let of_bob = ListInvoicesRequest { investor_id: BOB.to_string(), ..all };
    assert!(side.invoices(of_bob).await.is_empty());

    let all = ListBidsRequest::default();
    assert_eq!(side.bids(all.clone()).await, numbers(&[11, 12, 13, 14, 15, 16]));
    let of_ada = ListBidsRequest { investor_id: ADA.to_string(), ..all.clone() };
    assert_eq!(side.bids(of_ada.clone()).await, numbers(&[12, 14, 16]));
    let placed = ListBidsRequest { status: BidStatus::Placed.into(), ..of_ada.clone() };
    assert_eq!(side.bids(placed).await, numbers(&[12, 14]));
    let won = ListBidsRequest { status: BidStatus::Won.into(), ..all.clone() };
    assert_eq!(side.bids(won).await, numbers(&[16]));
    let on_three = ListBidsRequest { invoice_id: Uuid::from_u128(3).to_string(), ..all };
    assert_eq!(side.bids(on_three.clone()).await, numbers(&[13]));
    let of_ada_on_three = ListBidsRequest { investor_id: ADA.to_string(), ..on_three };
    assert!(side.bids(of_ada_on_three).await.is_empty());
}

#[tokio::test]
async fn a_list_is_read_page_by_page_without_gaps_or_repeats() {
    let mut side = QuerySide::start().await;
    let token = a_market(&mut side).await;
    for size in [1, 2, 3, 5, 6, 7, 1000, i32::MAX] {
        let (mut found, mut pages, mut page_token) = (Vec::new(), 0, String::new());
        loop {
            let request = ListBidsRequest {
                page_size: size,
                page_token,
                token: token.clone(),
                ..ListBidsRequest::default()
            };
            let page = side.queries().list_bids(request).await.unwrap().into_inner();
            assert!(page.bids.len() <= usize::try_from(size).unwrap());
            found.extend(page.bids.into_iter().map(|bid| bid.id));
            pages += 1;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, numbers(&[11, 12, 13, 14, 15, 16]), "{size} a page");
        assert_eq!(pages, 6_usize.div_ceil(usize::try_from(size).unwrap()), "{size} a page");
    }
}

#[tokio::test]
async fn every_list_has_pages() {
    let mut side = QuerySide::start().await;
    let token = a_market(&mut side).await;
    let mut queries = side.queries();

    let request = ListIssuersRequest { page_size: 1, token, ..ListIssuersRequest::default() };
    let first = queries.list_issuers(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.issuers[0].id, ACME.to_string());
    let request = ListIssuersRequest { page_token: first.next_page_token, ..request };
    let second = queries.list_issuers(request).await.unwrap().into_inner();
    assert_eq!((second.issuers[0].id.clone(), second.next_page_token.as_str()), (EMCA.to_string(), ""));

    let request = ListInvestorsRequest { page_size: 1, ..ListInvestorsRequest::default() };
    let first = queries.list_investors(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.investors[0].id, ADA.to_string());
    let request = ListInvestorsRequest { page_token: first.next_page_token, ..request };
    let second = queries.list_investors(request).await.unwrap().into_inner();
    assert_eq!((second.investors[0].id.clone(), second.next_page_token.as_str()), (BOB.to_string(), ""));

    let request =
        ListInvoicesRequest { page_size: 2, issuer_id: ACME.to_string(), ..ListInvoicesRequest::default() };
    let first = queries.list_invoices(request.clone()).await.unwrap().into_inner();
    let request = ListInvoicesRequest { page_token: first.next_page_token, ..request };
    let second = queries.list_invoices(request).await.unwrap().into_inner();
    let ids: Vec<String> = [first.invoices, second.invoices].concat().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, numbers(&[2, 4, 6]));
    assert_eq!(second.next_page_token, "");
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_query_only() {
    // given
    let mut side = QuerySide::start().await;
    let token = a_market(&mut side).await;
    let mut queries = side.queries();
    let request =
        ListBidsRequest { page_size: 1, investor_id: ADA.to_string(), token, ..ListBidsRequest::default() };
    let page_token = queries.list_bids(request.clone()).await.unwrap().into_inner().next_page_token;
    assert_ne!(page_token, "");
    let request = ListBidsRequest { page_token: page_token.clone(), ..request };

    // when
    let other_filter = ListBidsRequest { investor_id: BOB.to_string(), ..request.clone() };
    let other_filter = queries.list_bids(other_filter).await.unwrap_err();
    let more_filters = ListBidsRequest { status: BidStatus::Placed.into(), ..request.clone() };
    let more_filters = queries.list_bids(more_filters).await.unwrap_err();
    let no_filter = ListBidsRequest { investor_id: String::new(), ..request.clone() };
    let no_filter = queries.list_bids(no_filter).await.unwrap_err();
    let other_list = ListIssuersRequest { page_token, ..ListIssuersRequest::default() };
    let other_list = queries.list_issuers(other_list).await.unwrap_err();

    // then
    for refusal in [other_filter, more_filters, no_filter, other_list] {
        assert_eq!(violated(&refusal).into_iter().collect::<Vec<_>>(), ["page_token"]);
    }
    let larger_page = ListBidsRequest { page_size: 50, ..request };
    let rest = queries.list_bids(larger_page).await.unwrap().into_inner().bids;
    assert_eq!(rest.into_iter().map(|bid| bid.id).collect::<Vec<_>>(), numbers(&[14, 16]));
}

#[tokio::test]
async fn a_watch_goes_on_after_the_positions_that_it_is_given() {
    // given
    let mut side = QuerySide::start().await;
    side.given(a_bid()).await;
    let watch = async |after| {
        let request = WatchFactsRequest { after, ..WatchFactsRequest::default() };
        side.queries().watch_facts(request).await.unwrap().into_inner()
    };
    let mut all = watch(Vec::new()).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(all.message().await.unwrap().unwrap());
    }

    // when
    // Ada is in partition 1, with three records; of the others nothing is known.
    let known: Vec<_> =
        seen.iter().filter_map(|answer| answer.position).filter(|at| at.partition == 1).collect();
    let mut rest = watch(vec![known[1]]).await;

    // then
    assert_eq!(known.iter().map(|at| at.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let mut ids = Vec::new();
    while ids.len() < 3 {
        ids.push(rest.message().await.unwrap().unwrap().fact.unwrap().id);
    }
    ids.sort();
    assert_eq!(ids, ["1-3", "15-1", "5-1"]);
}

#[tokio::test]
async fn a_watch_from_the_end_sees_only_what_comes_and_what_a_position_asks_for() {
    // given
    let mut side = QuerySide::start().await;
    side.given(a_bid()).await;
    let request = |after| WatchFactsRequest { after, from_end: true };
    let mut new = side.queries().watch_facts(request(Vec::new())).await.unwrap().into_inner();
    let ada = proto::LogPosition { partition: 1, sequence: 2 };
    let mut rest = side.queries().watch_facts(request(vec![ada])).await.unwrap().into_inner();

    // when
    let newcomer = issuer(IssuerId::new(Uuid::from_u128(16 + 9)), "Newcomer");
    side.given([newcomer]).await;

    // then
    assert_eq!(new.message().await.unwrap().unwrap().fact.unwrap().id, "9-1");
    let ids = [rest.message().await.unwrap().unwrap(), rest.message().await.unwrap().unwrap()];
    assert_eq!(ids.map(|answer| answer.fact.unwrap().id), ["1-3", "9-1"]);
}

/// Reproduces: a watch that had read a partition to its end did not look again before it sent what another partition,
/// read later, had since got, and so an effect came before its cause.
#[tokio::test]
async fn between_partitions_the_order_is_by_time_also_while_a_watch_catches_up() {
    // given
    let mut side = QuerySide::start().await;
    let name = "\u{1D11E}".repeat(Name::MAX_CHARS);
    let mut number = 0;
    let mut recorded_in = |partition: u128| {
        number += 1;
        issuer(IssuerId::new(Uuid::from_u128(number * 16 + partition)), &name)
    };
    let mut order = vec![3; 64];
    order.extend([9; 116]);
    order.extend([3; 6]);
    let events: Vec<Event> = order.iter().map(|partition| recorded_in(*partition)).collect();
    side.given(events).await;
    let mut queries = side.slow_queries().await;
    let mut facts = queries.watch_facts(WatchFactsRequest::default()).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 66 {
        seen.push(u128::from(facts.message().await.unwrap().unwrap().position.unwrap().partition));
    }

    // when
    side.given([recorded_in(3), recorded_in(9)]).await;
    order.extend([3, 9]);

    // then
    while seen.len() < order.len() {
        seen.push(u128::from(facts.message().await.unwrap().unwrap().position.unwrap().partition));
    }
    assert_eq!(seen[order.len() - 2..], [3, 9]);
    assert!(seen == order, "{seen:?}");
}
