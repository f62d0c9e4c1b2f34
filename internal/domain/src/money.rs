//! Exact money.
//!
//! The rule this module protects: no cent appears or disappears. Money is a whole number of minor units in one
//! currency, its arithmetic is checked, and whatever cannot be represented exactly is refused at the edge. There is no
//! float anywhere, on the wire neither: there it has the shape of google.type.Money.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::currency::Currency;

/// No money, or some: never less than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

/// Some money: more than nothing. What is bid, asked, reserved and moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount(Money);

/// Why something is no [`Money`], or no [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// No currency was named.
    #[error("a currency code is missing")]
    MissingCurrency,
    /// The code is not one of [`Currency::EVERY`].
    #[error("not an active ISO 4217 currency code")]
    UnknownCurrency,
    /// Less than zero.
    #[error("money must not be negative")]
    Negative,
    /// Zero or less, where an amount is needed.
    #[error("an amount must be more than zero")]
    NotPositive,
    /// More than [`Money::MAX_MINOR`].
    #[error("money is limited to {} minor units", Money::MAX_MINOR)]
    TooLarge,
    /// Finer than the currency's minor unit.
    #[error("finer than the currency's minor unit")]
    TooFine,
    /// Nanos with another sign than units.
    #[error("units and nanos must have the same sign")]
    SignMismatch,
    /// Nanos that make a unit or more.
    #[error("nanos must be between -999,999,999 and 999,999,999")]
    NanosOutOfRange,
    /// Two currencies in one sum.
    #[error("two different currencies")]
    CurrencyMismatch,
}

/// Nanos in a unit.
const NANOS_PER_UNIT: i64 = 1_000_000_000;
/// The most nanos next to whole units.
const MAX_NANOS: i32 = 999_999_999;

/// Minor units in a unit, and nanos in a minor unit. Their product is always [`NANOS_PER_UNIT`].
const fn scale(currency: Currency) -> (i64, i64) {
    match currency.minor_digits() {
        0 => (1, NANOS_PER_UNIT),
        1 => (10, 100_000_000),
        2 => (100, 10_000_000),
        3 => (1_000, 1_000_000),
        // Four is the most that ISO 4217 has; a test asserts that the table has no more.
        _ => (10_000, 100_000),
    }
}

impl Money {
    /// The most that may be held in one place, in minor units: 10^15, ten trillion euros. It is below 2^53, so
    /// that JSON readers that know only doubles read it exactly, and 9,000 times below what an `i64` holds.
    pub const MAX_MINOR: i64 = 1_000_000_000_000_000;

    /// Nothing, in a currency.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// So many minor units.
    ///
    /// # Errors
    ///
    /// `Negative`, or `TooLarge` above [`Self::MAX_MINOR`].
    pub const fn from_minor(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor < 0 {
            Err(MoneyError::Negative)
        } else if minor > Self::MAX_MINOR {
            Err(MoneyError::TooLarge)
        } else {
            Ok(Self { minor, currency })
        }
    }

    /// Reads the parts of a google.type.Money.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being an exact, non-negative number of minor units below the ceiling.
    pub fn from_wire(currency_code: &str, units: i64, nanos: i32) -> Result<Self, MoneyError> {
        if currency_code.is_empty() {
            return Err(MoneyError::MissingCurrency);
        }
        let currency = Currency::parse(currency_code).ok_or(MoneyError::UnknownCurrency)?;
        Self::from_parts(currency, units, nanos)
    }

    fn from_parts(currency: Currency, units: i64, nanos: i32) -> Result<Self, MoneyError> {
        if !(-MAX_NANOS..=MAX_NANOS).contains(&nanos) {
            return Err(MoneyError::NanosOutOfRange);
        }
        if (units > 0 && nanos < 0) || (units < 0 && nanos > 0) {
            return Err(MoneyError::SignMismatch);
        }
        if units < 0 || nanos < 0 {
            return Err(MoneyError::Negative);
        }
        let (minor_per_unit, nanos_per_minor) = scale(currency);
        let nanos = i64::from(nanos);
        if nanos.checked_rem(nanos_per_minor) != Some(0) {
            return Err(MoneyError::TooFine);
        }
        let fraction = nanos.checked_div(nanos_per_minor);
        let minor = units
            .checked_mul(minor_per_unit)
            .zip(fraction)
            .and_then(|(whole, fraction)| whole.checked_add(fraction))
            .ok_or(MoneyError::TooLarge)?;
        Self::from_minor(minor, currency)
    }

    /// The parts of a google.type.Money: currency code, units, nanos.
    #[must_use]
    pub fn to_wire(self) -> (&'static str, i64, i32) {
        let (minor_per_unit, nanos_per_minor) = scale(self.currency);
        let (units, fraction) = self.split(minor_per_unit);
        // At most 9,999 ten-thousandths of 100,000 nanos each: neither step can overflow.
        let nanos = fraction.saturating_mul(nanos_per_minor);
        (self.currency.code(), units, i32::try_from(nanos).unwrap_or(MAX_NANOS))
    }

    /// Whole units, and the minor units that are left. The divisor is a power of ten, never zero.
    fn split(self, minor_per_unit: i64) -> (i64, i64) {
        (
            self.minor.checked_div(minor_per_unit).unwrap_or_default(),
            self.minor.checked_rem(minor_per_unit).unwrap_or_default(),
        )
    }

    /// In minor units: cents of euros, yen.
    #[must_use]
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// Its currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.minor == 0
    }

    /// The sum.
    ///
    /// # Errors
    ///
    /// `CurrencyMismatch`, or `TooLarge`.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::from_minor(self.minor.checked_add(other.minor).ok_or(MoneyError::TooLarge)?, self.currency)
    }

    /// The difference.
    ///
    /// # Errors
    ///
    /// `CurrencyMismatch`, or `Negative` when the other is more.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::from_minor(self.minor.checked_sub(other.minor).ok_or(MoneyError::Negative)?, self.currency)
    }

    /// Which is more.
    ///
    /// # Errors
    ///
    /// `CurrencyMismatch`: two currencies have no order.
    pub fn compare(self, other: Self) -> Result<Ordering, MoneyError> {
        self.same_currency(other)?;
        Ok(self.minor.cmp(&other.minor))
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency { Ok(()) } else { Err(MoneyError::CurrencyMismatch) }
    }
}

impl Amount {
    /// So many minor units.
    ///
    /// # Errors
    ///
    /// `NotPositive`, or `TooLarge` above [`Money::MAX_MINOR`].
    pub const fn from_minor(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        match Money::from_minor(minor, currency) {
            Ok(money) if !money.is_zero() => Ok(Self(money)),
            Ok(_) | Err(MoneyError::Negative) => Err(MoneyError::NotPositive),
            Err(other) => Err(other),
        }
    }

    /// Reads the parts of a google.type.Money.
    ///
    /// # Errors
    ///
    /// As [`Money::from_wire`], and `NotPositive` for zero and less.
    pub fn from_wire(currency_code: &str, units: i64, nanos: i32) -> Result<Self, MoneyError> {
        Money::from_wire(currency_code, units, nanos).map_err(not_positive).and_then(Self::try_from)
    }

    /// The parts of a google.type.Money: currency code, units, nanos.
    #[must_use]
    pub fn to_wire(self) -> (&'static str, i64, i32) {
        self.0.to_wire()
    }

    /// The same as plain money.
    #[must_use]
    pub const fn money(self) -> Money {
        self.0
    }

    /// In minor units.
    #[must_use]
    pub const fn minor(self) -> i64 {
        self.0.minor
    }

    /// Its currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.0.currency
    }

    /// What this has more than the other. `None`: nothing, or another currency.
    #[must_use]
    pub fn excess_over(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).ok().and_then(|rest| Self::try_from(rest).ok())
    }
}

/// For an amount, below zero is only one way of not being positive.
const fn not_positive(error: MoneyError) -> MoneyError {
    if matches!(error, MoneyError::Negative) { MoneyError::NotPositive } else { error }
}

impl TryFrom<Money> for Amount {
    type Error = MoneyError;

    fn try_from(money: Money) -> Result<Self, Self::Error> {
        if money.is_zero() { Err(MoneyError::NotPositive) } else { Ok(Self(money)) }
    }
}

impl From<Amount> for Money {
    fn from(amount: Amount) -> Self {
        amount.0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.currency.minor_digits());
        let (units, fraction) = self.split(scale(self.currency).0);
        if digits == 0 {
            write!(f, "{units} {}", self.currency)
        } else {
            write!(f, "{units}.{fraction:0digits$} {}", self.currency)
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The JSON form: `{"currency_code":"EUR","units":100,"nanos":500000000}`.
#[derive(Serialize, Deserialize)]
struct Wire {
    currency_code: Currency,
    #[serde(default, deserialize_with = "integer")]
    units: i64,
    #[serde(default, deserialize_with = "integer")]
    nanos: i32,
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (_, units, nanos) = self.to_wire();
        Wire { currency_code: self.currency, units, nanos }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Self::from_parts(wire.currency_code, wire.units, wire.nanos).map_err(D::Error::custom)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Money::from_parts(wire.currency_code, wire.units, wire.nanos)
            .map_err(not_positive)
            .and_then(Self::try_from)
            .map_err(D::Error::custom)
    }
}

/// An integer as proto3 JSON may write it: a number, or a number in a string (its form for 64 bits).
fn integer<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<T, D::Error> {
    struct Integer;

    impl Visitor<'_> for Integer {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer, or a string holding one")
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<i64, E> {
            Ok(value)
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<i64, E> {
            i64::try_from(value).map_err(E::custom)
        }

        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<i64, E> {
            value.parse().map_err(E::custom)
        }
    }

    let value = deserializer.deserialize_any(Integer)?;
    T::try_from(value).map_err(|_| D::Error::custom("the integer is out of range"))
}
