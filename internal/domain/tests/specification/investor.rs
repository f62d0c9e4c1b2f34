//! An investor's account: what is available, reserved and committed, bid by bid.

use domain::currency::Currency;
use domain::investor::{
    BidOnInvoicePlaced, CommitFunds, Investor, InvestorCommand, InvestorEvent, MAX_OPEN_BIDS, ReleaseFunds,
};
use domain::money::Amount;
use domain::refusal::Refusal;
use domain::reservation::{Move, ReleaseKind, Reservation};
use eventsourcing::model::Aggregate;
use eventsourcing::testkit::scenario::Scenario;
use uuid::Uuid;

use crate::vocabulary::*;

fn given(facts: impl IntoIterator<Item = InvestorEvent>) -> Scenario<Investor> {
    Scenario::given(investor_with(eur(1_000), facts))
}

/// Available, reserved, committed, in cents.
fn balances(investor: &Investor) -> [i64; 3] {
    let account = investor.account().unwrap();
    [account.available(), account.reserved().unwrap(), account.committed()].map(domain::money::Money::minor)
}

#[track_caller]
fn does_not_fit(kind: Move, reserved: Amount, requested: Amount) -> Refusal {
    Refusal::AmountExceedsReservation { kind, reserved, requested }
}

mod registering {
    use super::*;

    #[test]
    fn an_investor_is_created_with_an_opening_balance() {
        let investor = Scenario::<Investor>::given([])
            .when(create_investor("Ada", money(1_000)))
            .then([investor_created(), funds_added(eur(1_000))]);
        assert_eq!(balances(&investor), [1_000, 0, 0]);
    }

    #[test]
    fn an_investor_without_money_gets_an_empty_account() {
        let investor =
            Scenario::<Investor>::given([]).when(create_investor("Ada", money(0))).then([investor_created()]);
        assert_eq!(balances(&investor), [0, 0, 0]);
    }

    #[test]
    fn the_same_registration_again_changes_nothing_even_after_a_bid() {
        given([placed(BID, eur(300))]).when(create_investor("Ada", money(1_000))).then_unchanged();
        Scenario::<Investor>::given([investor_created()])
            .when(create_investor("Ada", money(0)))
            .then_unchanged();
    }

    #[test]
    fn the_same_investor_with_other_content_is_refused() {
        let refusal = || Refusal::AlreadyRegistered { id: INVESTOR.as_uuid() };
        given([]).when(create_investor("Eve", money(1_000))).then_refused(refusal());
        given([]).when(create_investor("Ada", money(999))).then_refused(refusal());
        given([]).when(create_investor("Ada", usd(1_000).money())).then_refused(refusal());
    }
}

mod bidding {
    use super::*;

    #[test]
    fn a_bid_moves_its_amount_from_available_to_reserved() {
        let investor = given([]).when(bid(BID, eur(300))).then([placed(BID, eur(300))]);
        assert_eq!(balances(&investor), [700, 300, 0]);
    }

    #[test]
    fn everything_available_can_be_bid_and_not_a_cent_more() {
        given([]).when(bid(BID, eur(1_000))).then([placed(BID, eur(1_000))]);
        given([])
            .when(bid(BID, eur(1_001)))
            .then_refused(Refusal::InsufficientFunds { available: money(1_000), requested: eur(1_001) });
    }

    #[test]
    fn what_is_reserved_cannot_be_bid_again() {
        given([placed(BID, eur(600))])
            .when(bid(OTHER_BID, eur(600)))
            .then_refused(Refusal::InsufficientFunds { available: money(400), requested: eur(600) });
    }

    #[test]
    fn a_bid_in_another_currency_is_refused() {
        given([])
            .when(bid(BID, usd(300)))
            .then_refused(Refusal::CurrencyMismatch { expected: Currency::EUR, actual: Currency::USD });
    }

    #[test]
    fn a_bid_is_placed_once() {
        given([placed(BID, eur(300))])
            .when(bid(BID, eur(300)))
            .then_refused(Refusal::BidAlreadyPlaced { bid_id: BID });
    }

    #[test]
    fn nobody_bids_without_being_an_investor() {
        Scenario::<Investor>::given([])
            .when(bid(BID, eur(300)))
            .then_refused(Refusal::InvestorNotFound { investor_id: INVESTOR });
    }

    #[test]
    fn an_investor_has_a_limited_number_of_open_bids() {
        let many = (0..u128::from(MAX_OPEN_BIDS)).map(|number| {
            let bid_id = Uuid::from_u128(0x1000 + number).into();
            let (investor_id, invoice_id) = (INVESTOR, INVOICE);
            let placed = BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount: eur(1) };
            InvestorEvent::BidOnInvoicePlaced(placed)
        });
        let full: Vec<_> = investor_with(eur(1_000_000), many).into_iter().collect();
        Scenario::<Investor>::given(full.clone())
            .when(bid(BID, eur(1)))
            .then_refused(Refusal::TooManyOpenBids { limit: MAX_OPEN_BIDS });
        let one_less = full.into_iter().take(MAX_OPEN_BIDS as usize + 1);
        Scenario::<Investor>::given(one_less).when(bid(BID, eur(1))).then([placed(BID, eur(1))]);
    }
}

mod releasing_a_lost_bid {
    use super::*;

    #[test]
    fn all_of_it_becomes_available() {
        let investor = given([placed(BID, eur(300))])
            .when(release(BID, ReleaseKind::Release, eur(300)))
            .then([released(BID, ReleaseKind::Release, eur(300), money(0))]);
        assert_eq!(balances(&investor), [1_000, 0, 0]);
        assert_eq!(investor.account().unwrap().reservation(BID), None);
    }

    #[test]
    fn the_other_bids_stay_reserved() {
        let investor = given([placed(BID, eur(300)), placed(OTHER_BID, eur(200))])
            .when(release(BID, ReleaseKind::Release, eur(300)))
            .then([released(BID, ReleaseKind::Release, eur(300), money(0))]);
        let left = investor.account().unwrap().reservation(OTHER_BID).map(Reservation::left);
        assert_eq!(left, Some(eur(200)));
    }

    #[test]
    fn neither_more_nor_less_than_all_of_it_moves() {
        for wrong in [eur(299), eur(301)] {
            given([placed(BID, eur(300))])
                .when(release(BID, ReleaseKind::Release, wrong))
                .then_refused(does_not_fit(Move::Release, eur(300), wrong));
        }
    }

    #[test]
    fn it_happens_once() {
        given([placed(BID, eur(300)), released(BID, ReleaseKind::Release, eur(300), money(0))])
            .when(release(BID, ReleaseKind::Release, eur(300)))
            .then_refused(Refusal::ReservationNotOpen { bid_id: BID });
    }

    #[test]
    fn it_leaves_other_bids_alone() {
        let investor = given([placed(BID, eur(300)), placed(OTHER_BID, eur(200))])
            .when(release(BID, ReleaseKind::Release, eur(300)))
            .then([released(BID, ReleaseKind::Release, eur(300), money(0))]);
        assert_eq!(balances(&investor), [800, 200, 0]);
    }

    #[test]
    fn a_winning_bid_is_not_released_after_its_excess_or_its_asking_price_has_moved() {
        let refusal = || Refusal::MoveAlreadyDone { bid_id: BID, kind: Move::Release };
        given([placed(BID, eur(300)), released(BID, ReleaseKind::Excess, eur(100), money(200))])
            .when(release(BID, ReleaseKind::Release, eur(200)))
            .then_refused(refusal());
        given([placed(BID, eur(300)), committed(BID, eur(200), money(100))])
            .when(release(BID, ReleaseKind::Release, eur(100)))
            .then_refused(refusal());
    }
}

mod settling_a_winning_bid {
    use super::*;

    #[test]
    fn the_excess_becomes_available_and_the_asking_price_stays() {
        let investor = given([placed(BID, eur(300))])
            .when(release(BID, ReleaseKind::Excess, eur(100)))
            .then([released(BID, ReleaseKind::Excess, eur(100), money(200))]);
        assert_eq!(balances(&investor), [800, 200, 0]);
    }

    #[test]
    fn the_excess_is_never_all_of_it() {
        for wrong in [eur(300), eur(301)] {
            given([placed(BID, eur(300))])
                .when(release(BID, ReleaseKind::Excess, wrong))
                .then_refused(does_not_fit(Move::Excess, eur(300), wrong));
        }
    }

    #[test]
    fn the_asking_price_is_committed_after_the_excess() {
        let investor =
            given([placed(BID, eur(300)), released(BID, ReleaseKind::Excess, eur(100), money(200))])
                .when(commit(BID, eur(200)))
                .then([committed(BID, eur(200), money(0))]);
        assert_eq!(balances(&investor), [800, 0, 200]);
    }

    #[test]
    fn the_asking_price_is_committed_before_the_excess() {
        let investor = given([placed(BID, eur(300))]).when(commit(BID, eur(200))).then([committed(
            BID,
            eur(200),
            money(100),
        )]);
        assert_eq!(balances(&investor), [700, 100, 200]);
        let investor = given([placed(BID, eur(300)), committed(BID, eur(200), money(100))])
            .when(release(BID, ReleaseKind::Excess, eur(100)))
            .then([released(BID, ReleaseKind::Excess, eur(100), money(0))]);
        assert_eq!(balances(&investor), [800, 0, 200]);
    }

    #[test]
    fn a_bid_of_exactly_the_asking_price_is_committed_or_returned_as_a_whole() {
        let investor = given([placed(BID, eur(300))]).when(commit(BID, eur(300))).then([committed(
            BID,
            eur(300),
            money(0),
        )]);
        assert_eq!(balances(&investor), [700, 0, 300]);
        let investor = given([placed(BID, eur(300))])
            .when(release(BID, ReleaseKind::Return, eur(300)))
            .then([released(BID, ReleaseKind::Return, eur(300), money(0))]);
        assert_eq!(balances(&investor), [1_000, 0, 0]);
    }

    #[test]
    fn the_asking_price_is_returned_before_and_after_the_excess() {
        let investor =
            given([placed(BID, eur(300)), released(BID, ReleaseKind::Excess, eur(100), money(200))])
                .when(release(BID, ReleaseKind::Return, eur(200)))
                .then([released(BID, ReleaseKind::Return, eur(200), money(0))]);
        assert_eq!(balances(&investor), [1_000, 0, 0]);
        let investor =
            given([placed(BID, eur(300)), released(BID, ReleaseKind::Return, eur(200), money(100))])
                .when(release(BID, ReleaseKind::Excess, eur(100)))
                .then([released(BID, ReleaseKind::Excess, eur(100), money(0))]);
        assert_eq!(balances(&investor), [1_000, 0, 0]);
    }

    #[test]
    fn the_second_part_is_exactly_what_is_left() {
        for wrong in [eur(199), eur(201)] {
            let after_the_excess =
                || given([placed(BID, eur(300)), released(BID, ReleaseKind::Excess, eur(100), money(200))]);
            after_the_excess().when(commit(BID, wrong)).then_refused(does_not_fit(
                Move::Commit,
                eur(200),
                wrong,
            ));
            after_the_excess().when(release(BID, ReleaseKind::Return, wrong)).then_refused(does_not_fit(
                Move::Return,
                eur(200),
                wrong,
            ));
        }
        for wrong in [eur(99), eur(101)] {
            given([placed(BID, eur(300)), committed(BID, eur(200), money(100))])
                .when(release(BID, ReleaseKind::Excess, wrong))
                .then_refused(does_not_fit(Move::Excess, eur(100), wrong));
        }
    }

    #[test]
    fn more_than_the_bid_is_never_committed_or_returned() {
        given([placed(BID, eur(300))]).when(commit(BID, eur(301))).then_refused(does_not_fit(
            Move::Commit,
            eur(300),
            eur(301),
        ));
        given([placed(BID, eur(300))])
            .when(release(BID, ReleaseKind::Return, eur(301)))
            .then_refused(does_not_fit(Move::Return, eur(300), eur(301)));
    }

    #[test]
    fn the_excess_moves_once() {
        given([placed(BID, eur(300)), released(BID, ReleaseKind::Excess, eur(100), money(200))])
            .when(release(BID, ReleaseKind::Excess, eur(100)))
            .then_refused(Refusal::MoveAlreadyDone { bid_id: BID, kind: Move::Excess });
    }

    #[test]
    fn the_asking_price_is_committed_or_returned_once_and_never_both() {
        for first in
            [committed(BID, eur(200), money(100)), released(BID, ReleaseKind::Return, eur(200), money(100))]
        {
            let settled = || given([placed(BID, eur(300)), first.clone()]);
            settled()
                .when(commit(BID, eur(100)))
                .then_refused(Refusal::MoveAlreadyDone { bid_id: BID, kind: Move::Commit });
            settled()
                .when(release(BID, ReleaseKind::Return, eur(100)))
                .then_refused(Refusal::MoveAlreadyDone { bid_id: BID, kind: Move::Return });
        }
    }

    #[test]
    fn a_closed_reservation_takes_no_move_at_all() {
        let closed = || given([placed(BID, eur(300)), committed(BID, eur(300), money(0))]);
        let refusal = || Refusal::ReservationNotOpen { bid_id: BID };
        closed().when(commit(BID, eur(300))).then_refused(refusal());
        for kind in ReleaseKind::ALL {
            closed().when(release(BID, *kind, eur(300))).then_refused(refusal());
        }
    }
}

mod every_move {
    use super::*;

    fn moves(amount: Amount) -> Vec<InvestorCommand> {
        let releases = ReleaseKind::ALL.iter().map(|kind| release(BID, *kind, amount));
        releases.chain([commit(BID, amount)]).collect()
    }

    #[test]
    fn needs_an_investor() {
        for command in moves(eur(1)) {
            Scenario::<Investor>::given([])
                .when(command)
                .then_refused(Refusal::InvestorNotFound { investor_id: INVESTOR });
        }
    }

    #[test]
    fn needs_a_bid_that_was_placed() {
        for command in moves(eur(1)) {
            given([placed(OTHER_BID, eur(300))])
                .when(command)
                .then_refused(Refusal::ReservationNotOpen { bid_id: BID });
        }
    }

    #[test]
    fn needs_the_currency_of_the_bid() {
        for command in moves(usd(1)) {
            given([placed(BID, eur(300))])
                .when(command)
                .then_refused(Refusal::CurrencyMismatch { expected: Currency::EUR, actual: Currency::USD });
        }
    }

    #[test]
    fn needs_the_invoice_of_the_bid() {
        let (investor_id, bid_id, invoice_id, amount) = (INVESTOR, BID, OTHER_INVOICE, eur(300));
        let kind = ReleaseKind::Release;
        let commands = [
            InvestorCommand::ReleaseFunds(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount }),
            InvestorCommand::CommitFunds(CommitFunds { investor_id, bid_id, invoice_id, amount }),
        ];
        for command in commands {
            given([placed(BID, eur(300))])
                .when(command)
                .then_refused(Refusal::ReservationNotOpen { bid_id: BID });
        }
    }
}

mod evolving {
    use super::*;

    #[test]
    fn ignores_facts_that_do_not_fit_and_keeps_every_cent() {
        let facts: Vec<_> = investor_with(eur(1_000), [placed(BID, eur(300))]).into_iter().collect();
        let investor = facts.iter().fold(Investor::default(), Investor::evolve);
        let misfits = [
            investor_created(),
            funds_added(usd(1)),
            funds_added(eur(domain::money::Money::MAX_MINOR)),
            placed(BID, eur(100)),
            placed(OTHER_BID, eur(701)),
            placed(OTHER_BID, usd(1)),
            released(OTHER_BID, ReleaseKind::Release, eur(1), money(0)),
            released(BID, ReleaseKind::Excess, eur(300), money(0)),
            committed(BID, eur(301), money(0)),
        ];
        for misfit in misfits {
            assert_eq!(investor.clone().evolve(&misfit), investor, "{misfit:?}");
            let nobody = Investor::default().evolve(&misfit);
            assert!(nobody.account().is_none_or(|account| account.added().is_zero()), "{misfit:?}");
        }
    }
}
