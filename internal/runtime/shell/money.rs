//! Money, as people read it.
//!
//! The rule this module protects: every digit that there is is shown, and as many behind the point as the currency has.

use crate::api::proto::financing::v1::Money;

/// The digits, without the currency.
pub(in crate::runtime) fn decimal(money: &Money) -> String {
    let Money { currency_code, units, nanos } = money;
    if let Ok(money) = domain::money::Money::from_wire(currency_code, *units, *nanos) {
        let text = money.to_string();
        return text.split(' ').next().unwrap_or_default().to_owned();
    }
    // A platform of another release may know more currencies.
    let nanos = format!("{nanos:09}");
    let fraction = nanos.trim_end_matches('0');
    format!("{units}.{fraction:0<2}")
}

/// The digits and the currency.
pub(in crate::runtime) fn shown(money: &Money) -> String {
    format!("{} {}", decimal(money), money.currency_code)
}

/// As [`shown`]; a dash where there is none.
pub(super) fn optional(money: Option<&Money>) -> String {
    money.map_or_else(|| "-".to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_as_people_write_it() {
        let of = |code: &str, units, nanos| shown(&Money { currency_code: code.to_owned(), units, nanos });
        assert_eq!(of("EUR", 50, 0), "50.00 EUR");
        assert_eq!(of("EUR", 0, 80_000_000), "0.08 EUR");
        assert_eq!(of("EUR", 1, 500_000_000), "1.50 EUR");
        assert_eq!(of("JPY", 50, 0), "50 JPY");
        assert_eq!(of("BHD", 1, 5_000_000), "1.005 BHD");
        assert_eq!(of("???", 1, 5_000_000), "1.005 ???");
        assert_eq!(optional(None), "-");
    }
}
