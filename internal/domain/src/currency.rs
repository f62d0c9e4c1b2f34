//! The currencies that money can be in.
//!
//! The rule this module protects: how fine an amount may be is the currency's to say (yen have no cents, dinars have
//! thousandths). A code that ISO withdraws stays here: facts in it must be readable for ever.

macro_rules! currencies {
    ($($digits:literal: $($code:ident)+;)+) => {
        /// A currency of ISO 4217, without the codes that have no minor unit (metals, bond units, test codes).
        #[expect(missing_docs, reason = "a variant is its ISO 4217 code")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum Currency { $($($code,)+)+ }

        impl Currency {
            /// Every currency. (`ALL` is the Albanian lek.)
            pub const EVERY: &[Self] = &[$($(Self::$code,)+)+];

            /// The alphabetic code, as in `EUR`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $($(Self::$code => stringify!($code),)+)+ }
            }

            /// How many decimal digits its minor unit has: 2 for cents, 0 where there is none.
            #[must_use]
            pub const fn minor_digits(self) -> u8 {
                match self { $($(Self::$code)|+ => $digits,)+ }
            }

            /// The currency with this code: three upper-case letters, nothing else.
            #[must_use]
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($(stringify!($code) => Some(Self::$code),)+)+ _ => None }
            }
        }
    };
}

// ISO 4217 list one, as amended to January 2026.
currencies! {
    0: BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF;
    2: AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF
       CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL
       HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU
       MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR
       SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED
       VES WST XAD XCD XCG YER ZAR ZMW ZWG;
    3: BHD IQD JOD KWD LYD OMR TND;
    4: CLF UYW;
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_as_its_currency() {
        for currency in Currency::EVERY {
            assert_eq!(Currency::parse(currency.code()), Some(*currency));
            assert_eq!(serde_json::to_string(currency).unwrap(), format!("\"{currency}\""));
        }
    }

    #[test]
    fn what_is_no_code_is_no_currency() {
        for wrong in ["", "eur", "Eur", " EUR", "EURO", "XXX", "XAU", "XTS", "AAA"] {
            assert_eq!(Currency::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_currency_has_its_own_minor_unit() {
        let digits = |currency: Currency| currency.minor_digits();
        assert_eq!([Currency::JPY, Currency::EUR, Currency::KWD, Currency::CLF].map(digits), [0, 2, 3, 4]);
    }
}
