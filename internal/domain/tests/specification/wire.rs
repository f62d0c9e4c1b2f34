//! Money, reasons, commands and integration events as others see them.

use std::collections::BTreeSet;

use domain::currency::Currency;
use domain::financing::{Command, Financing};
use domain::integration::{
    INVESTOR_REGISTERED, ISSUER_REGISTERED, IntegrationEvent, InvestorRegistered, IssuerRegistered,
};
use domain::invoice::InvoiceStatus;
use domain::money::{Amount, Money, MoneyError};
use domain::refusal::{BidRejection, CATALOGUE, Refusal};
use domain::reservation::{Move, ReleaseKind};
use domain::views::{BidStatus, CommandState};
use eventsourcing::model::{DecodeError, Model};
use proptest::prelude::*;

use crate::vocabulary::*;

mod money_on_the_wire {
    use super::*;

    #[test]
    fn has_units_and_nanos() {
        let amount = Amount::from_wire("EUR", 100, 500_000_000).unwrap();
        assert_eq!(amount, eur(10_050));
        assert_eq!(amount.to_wire(), ("EUR", 100, 500_000_000));
        assert_eq!(amount.to_string(), "100.50 EUR");
        assert_eq!(amount.minor(), 10_050);
    }

    #[test]
    fn is_as_fine_as_the_currency_and_no_finer() {
        assert_eq!(Money::from_wire("JPY", 1, 0).map(Money::minor), Ok(1));
        assert_eq!(Money::from_wire("JPY", 0, 100_000_000), Err(MoneyError::TooFine));
        for (code, finest) in [("EUR", 10_000_000), ("KWD", 1_000_000), ("CLF", 100_000)] {
            assert_eq!(Money::from_wire(code, 0, finest).map(Money::minor), Ok(1), "{code}");
            assert_eq!(Money::from_wire(code, 0, finest / 10), Err(MoneyError::TooFine), "{code}");
        }
        assert_eq!(Money::from_wire("EUR", 1, 1), Err(MoneyError::TooFine));
    }

    #[test]
    fn is_written_for_people_with_the_currencys_digits() {
        let written = |minor, currency| Money::from_minor(minor, currency).unwrap().to_string();
        assert_eq!(written(1_234, Currency::JPY), "1234 JPY");
        assert_eq!(written(5, Currency::EUR), "0.05 EUR");
        assert_eq!(written(1_005, Currency::KWD), "1.005 KWD");
        assert_eq!(written(10_001, Currency::CLF), "1.0001 CLF");
        assert_eq!(eur(8).to_string(), "0.08 EUR");
    }

    #[test]
    fn is_refused_for_a_reason() {
        let cases = [
            ("", 1, 0, MoneyError::MissingCurrency),
            ("eur", 1, 0, MoneyError::UnknownCurrency),
            ("XXX", 1, 0, MoneyError::UnknownCurrency),
            ("EUR", 1, -10_000_000, MoneyError::SignMismatch),
            ("EUR", -1, 10_000_000, MoneyError::SignMismatch),
            ("EUR", -1, 0, MoneyError::Negative),
            ("EUR", 0, -10_000_000, MoneyError::Negative),
            ("EUR", i64::MIN, i32::MIN, MoneyError::NanosOutOfRange),
            ("EUR", 0, 1_000_000_000, MoneyError::NanosOutOfRange),
            ("EUR", 0, -1_000_000_000, MoneyError::NanosOutOfRange),
            ("EUR", i64::MIN, 0, MoneyError::Negative),
            ("EUR", i64::MAX, 0, MoneyError::TooLarge),
            ("EUR", 10_000_000_000_000, 10_000_000, MoneyError::TooLarge),
        ];
        for (code, units, nanos, error) in cases {
            assert_eq!(Money::from_wire(code, units, nanos), Err(error), "{code} {units} {nanos}");
        }
    }

    #[test]
    fn is_more_than_nothing_where_an_amount_is_needed() {
        for (units, nanos) in [(0, 0), (-1, 0), (0, -10_000_000), (i64::MIN, 0)] {
            assert_eq!(Amount::from_wire("EUR", units, nanos), Err(MoneyError::NotPositive));
        }
        assert_eq!(Amount::from_minor(0, Currency::EUR), Err(MoneyError::NotPositive));
        assert_eq!(Amount::from_minor(-1, Currency::EUR), Err(MoneyError::NotPositive));
    }

    #[test]
    fn is_read_from_json_as_proto3_writes_it() {
        let read = |json: &str| serde_json::from_str::<Money>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"currency_code":"EUR","units":"100","nanos":500000000}"#), Ok(money(10_050)));
        assert_eq!(read(r#"{"currency_code":"EUR","units":100}"#), Ok(money(10_000)));
        assert_eq!(read(r#"{"currency_code":"EUR","nanos":10000000}"#), Ok(money(1)));
        assert_eq!(read(r#"{"currency_code":"EUR"}"#), Ok(money(0)));
        for wrong in [
            "{}",
            "100",
            r#"{"units":1}"#,
            r#"{"currency_code":"eur","units":1}"#,
            r#"{"currency_code":"EUR","units":-1}"#,
            r#"{"currency_code":"EUR","units":1.5}"#,
            r#"{"currency_code":"EUR","units":"1.5"}"#,
            r#"{"currency_code":"EUR","nanos":1}"#,
            r#"{"currency_code":"EUR","nanos":5000000000}"#,
            r#"{"currency_code":"EUR","units":18446744073709551615}"#,
            r#"{"currency_code":"EUR","units":10000000000001}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        // What is wrong is said of what was written, and not of something else.
        let nanos = read(r#"{"currency_code":"EUR","nanos":-1000000000}"#).unwrap_err();
        assert!(nanos.contains("nanos must be between"), "{nanos}");
        let units = read(r#"{"currency_code":"EUR","units":true}"#).unwrap_err();
        assert!(units.contains("an integer, or a string holding one"), "{units}");
        let nothing = serde_json::from_str::<Amount>(r#"{"currency_code":"EUR","units":0}"#);
        assert!(nothing.unwrap_err().to_string().contains("more than zero"));
    }

    #[test]
    fn is_written_to_json_with_numbers() {
        let expected = r#"{"currency_code":"EUR","units":100,"nanos":500000000}"#;
        assert_eq!(serde_json::to_string(&eur(10_050)).unwrap(), expected);
        assert_eq!(serde_json::to_string(&money(10_050)).unwrap(), expected);
    }

    #[test]
    fn of_two_currencies_has_no_sum_and_no_order() {
        let (euros, dollars) = (money(100), usd(50).money());
        assert_eq!(euros.checked_add(dollars), Err(MoneyError::CurrencyMismatch));
        assert_eq!(euros.checked_sub(dollars), Err(MoneyError::CurrencyMismatch));
        assert_eq!(euros.compare(dollars), Err(MoneyError::CurrencyMismatch));
        assert_eq!(eur(100).excess_over(usd(50)), None);
    }

    #[test]
    fn never_falls_below_zero_nor_rises_above_the_ceiling() {
        assert_eq!(money(1).checked_sub(money(2)), Err(MoneyError::Negative));
        assert_eq!(money(1).checked_sub(money(1)), Ok(money(0)));
        assert_eq!(money(Money::MAX_MINOR).checked_add(money(1)), Err(MoneyError::TooLarge));
        assert_eq!(money(Money::MAX_MINOR - 1).checked_add(money(1)), Ok(money(Money::MAX_MINOR)));
        // Doubles count exactly to 2^53.
        const { assert!(Money::MAX_MINOR < 1 << 53) };
    }

    proptest! {
        #[test]
        fn reads_back_exactly(minor in 0..=Money::MAX_MINOR, index in 0..Currency::EVERY.len()) {
            let money = Money::from_minor(minor, Currency::EVERY[index]).unwrap();
            let (code, units, nanos) = money.to_wire();
            prop_assert_eq!(Money::from_wire(code, units, nanos), Ok(money));
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
        }

        #[test]
        fn is_refused_or_exact_and_never_anything_else(units in any::<i64>(), nanos in any::<i32>(),
                                                       index in 0..Currency::EVERY.len()) {
            let code = Currency::EVERY[index].code();
            if let Ok(money) = Money::from_wire(code, units, nanos) {
                prop_assert_eq!(money.to_wire(), (code, units, nanos));
            }
        }
    }

    #[test]
    fn no_currency_is_finer_than_ten_thousandths() {
        assert!(Currency::EVERY.iter().all(|currency| currency.minor_digits() <= 4));
    }
}

mod the_catalogue {
    use super::*;

    /// One of each, by an exhaustive match: a new refusal does not compile before it is here.
    fn one_of_each() -> Vec<Refusal> {
        let all = vec![
            Refusal::IssuerNotFound { issuer_id: ISSUER },
            Refusal::InvestorNotFound { investor_id: INVESTOR },
            Refusal::InvoiceNotFound { invoice_id: INVOICE },
            Refusal::AlreadyRegistered { id: ISSUER.as_uuid() },
            Refusal::InvoiceAlreadySold { invoice_id: INVOICE },
            Refusal::InsufficientFunds { available: money(1), requested: eur(2) },
            Refusal::CurrencyMismatch { expected: Currency::EUR, actual: Currency::USD },
            Refusal::InvoiceNotFinanced { status: InvoiceStatus::Approved },
            Refusal::BidAlreadyPlaced { bid_id: BID },
            Refusal::TooManyOpenBids { limit: 3 },
            Refusal::ReservationNotOpen { bid_id: BID },
            Refusal::MoveAlreadyDone { bid_id: BID, kind: Move::Excess },
            Refusal::AmountExceedsReservation { kind: Move::Commit, reserved: eur(1), requested: eur(2) },
        ];
        let places = all.iter().map(|refusal| match refusal {
            Refusal::IssuerNotFound { .. } => 0,
            Refusal::InvestorNotFound { .. } => 1,
            Refusal::InvoiceNotFound { .. } => 2,
            Refusal::AlreadyRegistered { .. } => 3,
            Refusal::InvoiceAlreadySold { .. } => 4,
            Refusal::InsufficientFunds { .. } => 5,
            Refusal::CurrencyMismatch { .. } => 6,
            Refusal::InvoiceNotFinanced { .. } => 7,
            Refusal::BidAlreadyPlaced { .. } => 8,
            Refusal::TooManyOpenBids { .. } => 9,
            Refusal::ReservationNotOpen { .. } => 10,
            Refusal::MoveAlreadyDone { .. } => 11,
            Refusal::AmountExceedsReservation { .. } => 12,
        });
        assert!(places.eq(0..all.len()));
        all
    }

    #[test]
    fn has_every_reason_once_in_order_and_no_other() {
        let codes: Vec<_> = CATALOGUE.iter().map(|reason| reason.code).collect();
        assert!(codes.is_sorted_by(|one, next| one < next));
        let refusals = one_of_each().iter().map(Refusal::code).collect::<Vec<_>>();
        let rejections = BidRejection::ALL.iter().map(|reason| reason.code());
        let used: BTreeSet<_> = refusals.into_iter().chain(rejections).collect();
        assert_eq!(codes.into_iter().collect::<BTreeSet<_>>(), used);
    }

    #[test]
    fn names_the_reasons_as_json_does() {
        for refusal in one_of_each() {
            let json = serde_json::to_value(&refusal).unwrap();
            assert_eq!(json["reason"], refusal.code());
            assert_eq!(serde_json::from_value::<Refusal>(json).unwrap(), refusal);
            assert_eq!(Financing::reason(&refusal), refusal.code());
        }
    }

    #[test]
    fn is_there_for_programs_and_the_message_for_people() {
        let refusal = Refusal::InsufficientFunds { available: money(100), requested: eur(250) };
        assert_eq!(refusal.to_string(), "2.50 EUR were requested and 1.00 EUR are available");
        let refusal = Refusal::InvoiceNotFinanced { status: InvoiceStatus::Reversed };
        assert_eq!(refusal.to_string(), "the invoice is REVERSED, not FINANCED");
    }
}

#[test]
fn a_code_is_read_as_what_it_was_written_for() {
    macro_rules! reads_back {
        ($($coded:ty),+) => {$(
            for value in <$coded>::ALL {
                assert_eq!(<$coded>::parse(value.code()), Some(*value));
                assert_eq!(serde_json::to_value(value).unwrap(), value.code());
                assert_eq!(value.to_string(), value.code());
            }
            assert_eq!(<$coded>::parse("NONSENSE"), None);
        )+};
    }
    reads_back!(InvoiceStatus, BidStatus, CommandState, BidRejection, ReleaseKind, Move);
}

mod commands {
    use super::*;

    #[test]
    fn read_back_from_the_queue_as_they_were_written() {
        let commands: [Command; 8] = [
            create_investor("Ada", money(1)).into(),
            bid(BID, eur(1)).into(),
            release(BID, ReleaseKind::Return, eur(1)).into(),
            commit(BID, eur(1)).into(),
            sell(ISSUER, eur(1)).into(),
            process(BID, INVESTOR, eur(1)).into(),
            approve().into(),
            reverse().into(),
        ];
        for command in commands {
            let json = serde_json::to_value(&command).unwrap();
            let target = Financing::target(&command);
            assert!(json[target.kind.as_ref()][Financing::method(&command)].is_object(), "{json}");
            assert_eq!(serde_json::from_value::<Command>(json).unwrap(), command);
        }
    }

    #[test]
    fn with_an_amount_of_nothing_cannot_be_read() {
        let json = serde_json::to_string(&Command::from(bid(BID, eur(100)))).unwrap();
        let nothing = json.replace(r#""units":1"#, r#""units":0"#);
        assert_ne!(json, nothing);
        assert!(serde_json::from_str::<Command>(&nothing).is_err());
    }

    #[test]
    fn name_the_aggregates_whose_existence_matters() {
        assert_eq!(Financing::references(&sell(ISSUER, eur(1)).into()), [ISSUER.aggregate()]);
        assert_eq!(Financing::references(&bid(BID, eur(1)).into()), []);
    }
}

mod integration_events {
    use super::*;

    #[test]
    fn become_commands() {
        let data = format!(r#"{{"issuer_id":"{ISSUER}","name":"Acme"}}"#);
        let event = IntegrationEvent::decode(ISSUER_REGISTERED, &data).unwrap().unwrap();
        assert_eq!(Financing::method(&event.command()), "CreateIssuer");

        let balance = r#"{"currency_code":"EUR","units":"10"}"#;
        let data = format!(r#"{{"investor_id":"{INVESTOR}","name":"Ada","balance":{balance}}}"#);
        let event = IntegrationEvent::decode(INVESTOR_REGISTERED, &data).unwrap().unwrap();
        assert_eq!(event.command(), create_investor("Ada", money(1_000)).into());
    }

    #[test]
    fn read_back_as_they_were_written() {
        let events = [
            IntegrationEvent::IssuerRegistered(IssuerRegistered { issuer_id: ISSUER, name: name("Acme") }),
            IntegrationEvent::InvestorRegistered(InvestorRegistered {
                investor_id: INVESTOR,
                name: name("Ada"),
                balance: money(7),
            }),
        ];
        for event in events {
            let data = event.encode().unwrap();
            assert_eq!(IntegrationEvent::decode(event.event_type(), &data), Ok(Some(event)));
        }
    }

    #[test]
    fn of_an_unknown_type_are_none_of_ours() {
        for unknown in ["registering.v1.IssuerRenamed", "registering.v2.IssuerRegistered", ""] {
            assert_eq!(IntegrationEvent::decode(unknown, "not even json"), Ok(None));
        }
    }

    #[test]
    fn that_are_malformed_are_said_to_be() {
        for data in [
            "not even json".to_owned(),
            "{}".to_owned(),
            r#"{"issuer_id":"1","name":"Acme"}"#.to_owned(),
            format!(r#"{{"issuer_id":"{ISSUER}","name":""}}"#),
            format!(r#"{{"issuer_id":"{ISSUER}","name":"a\u0000"}}"#),
            format!(r#"{{"issuer_id":"{ISSUER}","name":"{}"}}"#, "a".repeat(257)),
        ] {
            let answer = IntegrationEvent::decode(ISSUER_REGISTERED, &data);
            assert!(matches!(answer, Err(DecodeError::Malformed { .. })), "{data}: {answer:?}");
        }
    }
}
