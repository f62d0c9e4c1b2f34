//! What the client says to scripts.
//!
//! The rule this module protects: names are the contract's, and money is exact: as on the wire, and as decimal digits, never as
//! a float.

use serde::Serialize;

use crate::api::proto::financing::v1;

use super::money::decimal;

/// Money, as on the wire and as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::runtime) struct Money {
    currency_code: String,
    units: i64,
    nanos: i32,
    decimal: String,
}

impl From<v1::Money> for Money {
    fn from(money: v1::Money) -> Self {
        let decimal = decimal(&money);
        let v1::Money { currency_code, units, nanos } = money;
        Self { currency_code, units, nanos, decimal }
    }
}

/// An issuer.
#[derive(Debug, Serialize)]
pub(super) struct Issuer {
    id: String,
    name: String,
}

impl From<v1::Issuer> for Issuer {
    fn from(issuer: v1::Issuer) -> Self {
        let v1::Issuer { id, name } = issuer;
        Self { id, name }
    }
}

/// An investor.
#[derive(Debug, Serialize)]
pub(super) struct Investor {
    id: String,
    name: String,
    available: Option<Money>,
    reserved: Option<Money>,
    committed: Option<Money>,
}

impl From<v1::Investor> for Investor {
    fn from(investor: v1::Investor) -> Self {
        let v1::Investor { id, name, available, reserved, committed } = investor;
        let [available, reserved, committed] =
            [available, reserved, committed].map(|money| money.map(Money::from));
        Self { id, name, available, reserved, committed }
    }
}

/// The bid that won an invoice.
#[derive(Debug, Serialize)]
struct WinningBid {
    bid_id: String,
    investor_id: String,
    amount: Option<Money>,
}

/// An invoice.
#[derive(Debug, Serialize)]
pub(super) struct Invoice {
    id: String,
    issuer_id: String,
    asking_price: Option<Money>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    winning_bid: Option<WinningBid>,
}

impl From<v1::Invoice> for Invoice {
    fn from(invoice: v1::Invoice) -> Self {
        let status = super::status::of_invoice(&invoice).name;
        let v1::Invoice { id, issuer_id, asking_price, winning_bid, .. } = invoice;
        let winning_bid = winning_bid.map(|bid| WinningBid {
            bid_id: bid.bid_id,
            investor_id: bid.investor_id,
            amount: bid.amount.map(Money::from),
        });
        Self { id, issuer_id, asking_price: asking_price.map(Money::from), status, winning_bid }
    }
}

/// A bid.
#[derive(Debug, Serialize)]
pub(super) struct Bid {
    id: String,
    investor_id: String,
    invoice_id: String,
    amount: Option<Money>,
    status: &'static str,
    reason: String,
}

impl From<v1::Bid> for Bid {
    fn from(bid: v1::Bid) -> Self {
        let status = super::status::of_bid(&bid).name;
        let v1::Bid { id, investor_id, invoice_id, amount, reason, .. } = bid;
        Self { id, investor_id, invoice_id, amount: amount.map(Money::from), status, reason }
    }
}

/// A command's outcome.
#[derive(Debug, Serialize)]
pub(super) struct Command {
    id: String,
    state: &'static str,
    reason: String,
    message: String,
    token: String,
}

impl From<v1::Command> for Command {
    fn from(command: v1::Command) -> Self {
        let state = super::status::of_command(command.state()).name;
        let v1::Command { id, reason, message, token, .. } = command;
        Self { id, state, reason, message, token }
    }
}

/// The line of an object.
pub(in crate::runtime) fn line(object: &impl Serialize) -> String {
    // A struct of text and numbers has a JSON form, always; where a defect says otherwise, the defect is shown.
    serde_json::to_string(object).unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()))
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(units: i64, nanos: i32) -> v1::Money {
        v1::Money { currency_code: "EUR".to_owned(), units, nanos }
    }

    #[test]
    fn an_object_has_the_names_of_the_contract_in_its_order() {
        let bid = v1::Bid {
            id: "b".to_owned(),
            investor_id: "i".to_owned(),
            invoice_id: "v".to_owned(),
            amount: Some(eur(60, 500_000_000)),
            status: v1::BidStatus::Released.into(),
            reason: "INVOICE_NOT_AVAILABLE".to_owned(),
        };
        assert_eq!(
            line(&Bid::from(bid)),
            "{\"id\":\"b\",\"investor_id\":\"i\",\"invoice_id\":\"v\",\"amount\":{\"currency_code\":\"EUR\",\"units\":60,\
             \"nanos\":500000000,\"decimal\":\"60.50\"},\"status\":\"RELEASED\",\"reason\":\"INVOICE_NOT_AVAILABLE\"}\n"
        );
    }

    #[test]
    fn an_invoice_without_a_winner_has_no_winning_bid() {
        let mut invoice = v1::Invoice { asking_price: Some(eur(50, 0)), ..v1::Invoice::default() };
        invoice.set_status(v1::InvoiceStatus::Available);
        let object: serde_json::Value = serde_json::from_str(&line(&Invoice::from(invoice.clone()))).unwrap();
        assert_eq!((object["status"].as_str(), object.get("winning_bid")), (Some("AVAILABLE"), None));
        let amount = Some(eur(9_999_999_999_999, 990_000_000));
        invoice.winning_bid = Some(v1::WinningBid { amount, ..v1::WinningBid::default() });
        let object: serde_json::Value = serde_json::from_str(&line(&Invoice::from(invoice))).unwrap();
        assert_eq!(object["winning_bid"]["amount"]["units"].as_i64(), Some(9_999_999_999_999));
        assert_eq!(object["winning_bid"]["amount"]["decimal"], "9999999999999.99");
    }
}
