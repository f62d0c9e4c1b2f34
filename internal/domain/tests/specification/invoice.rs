//! An invoice: on sale, financed by one bid, approved or reversed for good.

use domain::ids::IssuerId;
use domain::invoice::{Invoice, InvoiceEvent, InvoiceStatus};
use domain::refusal::{BidRejection, Refusal};
use eventsourcing::model::Aggregate;
use eventsourcing::testkit::scenario::Scenario;

use crate::vocabulary::*;

fn given(facts: impl IntoIterator<Item = InvoiceEvent>) -> Scenario<Invoice> {
    Scenario::given(facts)
}

/// The invoice in each of the three states in which a bid has won.
fn with_a_winner() -> [Vec<InvoiceEvent>; 3] {
    let won = [on_sale(eur(200)), financed(BID, eur(300), eur(200))];
    let and_then = |fact: InvoiceEvent| won.iter().cloned().chain([fact]).collect();
    [won.to_vec(), and_then(approved(BID, eur(300), eur(200))), and_then(reversed(BID, eur(300), eur(200)))]
}

mod selling {
    use super::*;

    #[test]
    fn an_issuer_puts_an_invoice_on_sale() {
        let invoice =
            given([]).knowing([ISSUER.aggregate()]).when(sell(ISSUER, eur(200))).then([on_sale(eur(200))]);
        assert_eq!(invoice.status(), Some(InvoiceStatus::Available));
        assert_eq!(invoice.winning_bid(), None);
    }

    #[test]
    fn nobody_sells_without_being_an_issuer() {
        given([]).when(sell(ISSUER, eur(200))).then_refused(Refusal::IssuerNotFound { issuer_id: ISSUER });
    }

    #[test]
    fn the_same_sale_again_changes_nothing_whatever_has_happened_since() {
        given([on_sale(eur(200))]).when(sell(ISSUER, eur(200))).then_unchanged();
        for facts in with_a_winner() {
            given(facts).when(sell(ISSUER, eur(200))).then_unchanged();
        }
    }

    #[test]
    fn the_same_invoice_on_other_terms_is_refused() {
        let other_issuer = IssuerId::new(OTHER_INVESTOR.as_uuid());
        for command in [sell(ISSUER, eur(201)), sell(ISSUER, usd(200)), sell(other_issuer, eur(200))] {
            given([on_sale(eur(200))])
                .knowing([ISSUER.aggregate(), other_issuer.aggregate()])
                .when(command)
                .then_refused(Refusal::InvoiceAlreadySold { invoice_id: INVOICE });
        }
    }
}

mod answering_bids {
    use super::*;

    #[test]
    fn the_first_bid_of_at_least_the_asking_price_wins() {
        for amount in [eur(200), eur(201), eur(300)] {
            let invoice = given([on_sale(eur(200))]).when(process(BID, INVESTOR, amount)).then([financed(
                BID,
                amount,
                eur(200),
            )]);
            assert_eq!(invoice.winning_bid().unwrap().bid_id, BID);
        }
    }

    #[test]
    fn a_bid_of_less_than_the_asking_price_is_rejected() {
        let reason = BidRejection::BidBelowAskingPrice;
        given([on_sale(eur(200))]).when(process(BID, INVESTOR, eur(199))).then([rejected(
            BID,
            INVESTOR,
            eur(199),
            reason,
        )]);
    }

    #[test]
    fn a_bid_in_another_currency_than_the_asking_price_is_rejected() {
        let reason = BidRejection::CurrencyMismatch;
        given([on_sale(eur(200))]).when(process(BID, INVESTOR, usd(300))).then([rejected(
            BID,
            INVESTOR,
            usd(300),
            reason,
        )]);
    }

    #[test]
    fn a_bid_of_the_party_that_sells_is_rejected() {
        let reason = BidRejection::SelfFinancing;
        given([on_sale(eur(200))]).when(process(BID, ISSUER_AS_INVESTOR, eur(300))).then([rejected(
            BID,
            ISSUER_AS_INVESTOR,
            eur(300),
            reason,
        )]);
    }

    #[test]
    fn every_bid_after_the_one_that_won_is_rejected() {
        let reason = BidRejection::InvoiceNotAvailable;
        for facts in with_a_winner() {
            let before = facts.iter().fold(Invoice::default(), Invoice::evolve);
            let after = given(facts).when(process(OTHER_BID, OTHER_INVESTOR, eur(999))).then([rejected(
                OTHER_BID,
                OTHER_INVESTOR,
                eur(999),
                reason,
            )]);
            assert_eq!(after, before);
        }
    }

    #[test]
    fn the_bid_that_won_still_wins_when_it_comes_again() {
        for facts in with_a_winner() {
            given(facts).when(process(BID, INVESTOR, eur(300))).then_unchanged();
        }
    }

    #[test]
    fn a_bid_on_no_invoice_is_refused() {
        given([])
            .when(process(BID, INVESTOR, eur(300)))
            .then_refused(Refusal::InvoiceNotFound { invoice_id: INVOICE });
    }
}

mod the_issuers_word {
    use super::*;

    #[test]
    fn a_financed_invoice_is_approved() {
        let invoice = given([on_sale(eur(200)), financed(BID, eur(300), eur(200))])
            .when(approve())
            .then([approved(BID, eur(300), eur(200))]);
        assert_eq!(invoice.status(), Some(InvoiceStatus::Approved));
    }

    #[test]
    fn a_financed_invoice_is_reversed() {
        let invoice = given([on_sale(eur(200)), financed(BID, eur(300), eur(200))])
            .when(reverse())
            .then([reversed(BID, eur(300), eur(200))]);
        assert_eq!(invoice.status(), Some(InvoiceStatus::Reversed));
    }

    #[test]
    fn an_invoice_without_a_winner_is_neither_approved_nor_reversed() {
        for command in [approve(), reverse()] {
            given([on_sale(eur(200))])
                .when(command)
                .then_refused(Refusal::InvoiceNotFinanced { status: InvoiceStatus::Available });
        }
    }

    #[test]
    fn approved_and_reversed_are_final() {
        let [_, approved, reversed] = with_a_winner();
        for (facts, status) in [(approved, InvoiceStatus::Approved), (reversed, InvoiceStatus::Reversed)] {
            for command in [approve(), reverse()] {
                given(facts.clone()).when(command).then_refused(Refusal::InvoiceNotFinanced { status });
            }
        }
    }

    #[test]
    fn no_invoice_is_neither_approved_nor_reversed() {
        for command in [approve(), reverse()] {
            given([]).when(command).then_refused(Refusal::InvoiceNotFound { invoice_id: INVOICE });
        }
    }
}

mod evolving {
    use super::*;

    #[test]
    fn ignores_facts_that_do_not_follow_from_the_state() {
        let won = financed(OTHER_BID, eur(999), eur(200));
        let (approved, reversed) =
            (approved(OTHER_BID, eur(999), eur(200)), reversed(OTHER_BID, eur(999), eur(200)));
        for misfit in [&won, &approved, &reversed] {
            assert_eq!(Invoice::default().evolve(misfit), Invoice::Missing);
        }
        let [financed, settled @ ..] = with_a_winner();
        for facts in settled {
            let invoice = facts.iter().fold(Invoice::default(), Invoice::evolve);
            for misfit in [&on_sale(eur(1)), &won, &approved, &reversed] {
                assert_eq!(invoice.clone().evolve(misfit), invoice, "{misfit:?}");
            }
        }
        let invoice = financed.iter().fold(Invoice::default(), Invoice::evolve);
        assert_eq!(invoice.clone().evolve(&won), invoice);
    }
}
