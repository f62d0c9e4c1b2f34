//! Money, read and added up without the platform's own arithmetic.
//!
//! The rule this module protects: what is stored is a whole number of minor units between nothing and the ceiling, or it
//! is an error. Sums here are signed and wide, so that a balance that went below zero can be shown as what it is.

use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// The most that any amount may be, in minor units.
const CEILING: i64 = 1_000_000_000_000_000;
const NANOS: i64 = 1_000_000_000;

/// A currency: three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Currencies whose minor unit is not a hundredth, by the number of digits (ISO 4217).
const OTHER_DIGITS: &[(&str, u32)] = &[
    ("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF", 0),
    ("BHD IQD JOD KWD LYD OMR TND", 3),
    ("CLF UYW", 4),
];

impl Currency {
    /// `None`: not a currency code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let letters: [u8; 3] = code.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn digits(self) -> u32 {
        if self.0 == *b"EUR" {
            return 2;
        }
        let listed = |codes: &str| codes.split(' ').any(|code| code.as_bytes() == self.0);
        OTHER_DIGITS.iter().find(|(codes, _)| listed(codes)).map_or(2, |(_, digits)| *digits)
    }

    /// So many minor units of it, as a person reads them.
    #[must_use]
    pub fn show(self, minor: i128) -> String {
        let digits = self.digits();
        let (sign, size, unit) =
            (if minor < 0 { "-" } else { "" }, minor.unsigned_abs(), 10_u128.pow(digits));
        let width = digits as usize;
        match width {
            0 => format!("{sign}{size} {self}"),
            _ => format!("{sign}{}.{:0width$} {self}", size / unit, size % unit),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = <&str>::deserialize(deserializer)?;
        Self::parse(code).ok_or_else(|| D::Error::custom(format_args!("{code:?} is no currency code")))
    }
}

/// Nothing, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Money {
    pub(crate) minor: i64,
    pub(crate) currency: Currency,
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.currency.show(self.minor.into()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    currency_code: Currency,
    units: i64,
    nanos: i64,
}

impl Wire {
    fn money(&self) -> Result<Money, &'static str> {
        let minor_per_unit = 10_i64.pow(self.currency_code.digits());
        let nanos_per_minor = NANOS / minor_per_unit;
        if self.units < 0 || self.nanos < 0 {
            return Err("money below nothing");
        }
        if self.nanos >= NANOS {
            return Err("nanos that make a unit");
        }
        if self.nanos % nanos_per_minor != 0 {
            return Err("money finer than its minor unit");
        }
        let minor = self.units.checked_mul(minor_per_unit);
        let minor = minor.and_then(|whole| whole.checked_add(self.nanos / nanos_per_minor));
        let minor = minor.filter(|minor| *minor <= CEILING).ok_or("money above the ceiling")?;
        Ok(Money { minor, currency: self.currency_code })
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.money().map_err(D::Error::custom)
    }
}

/// More than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) Money);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let money = Money::deserialize(deserializer)?;
        if money.minor > 0 { Ok(Self(money)) } else { Err(D::Error::custom("an amount of nothing")) }
    }
}
