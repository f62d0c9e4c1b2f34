//! What must add up when a run is over.
//!
//! The rule this module protects: a number is worth something only where the platform did what it was measured at. What was
//! accepted is there, what was settled is paid, and no cent is missing.

use serde::Serialize;

/// What the generator was told, and what queries say afterwards. Amounts are in cents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Books {
    /// Sales that were accepted.
    pub(super) sold: u64,
    /// Sales whose answer was no answer: they may or may not have been accepted.
    pub(super) uncertain: u64,
    /// Invoices of this run's issuers.
    pub(super) invoices: u64,
    /// Those that are approved.
    pub(super) approved: u64,
    /// Financings whose last fact the generator has seen.
    pub(super) settled: u64,
    /// Financings whose every command was accepted, and which have not settled.
    pub(super) unsettled: u64,
    /// Financings that were given up because a call failed: they may be anywhere on their way.
    pub(super) abandoned: u64,
    /// Answers that cannot be: a bid that is paid and not committed, a command that is accepted and has no outcome.
    pub(super) wrong: u64,
    /// What this run's investors brought.
    pub(super) funded: i128,
    /// What they can dispose of.
    pub(super) available: i128,
    /// What is set aside.
    pub(super) reserved: i128,
    /// What they have paid.
    pub(super) committed: i128,
    /// The sum of the asking prices of those invoices that are approved.
    pub(super) owed: i128,
}

impl Books {
    /// Everything that does not hold, in plain words; nothing where all of it does.
    pub(super) fn breaches(&self) -> Vec<String> {
        let mut breaches = Vec::new();
        let mut must = |holds: bool, breach: String| {
            if !holds {
                breaches.push(breach);
            }
        };
        let Self { sold, uncertain, invoices, approved, settled, unsettled, abandoned, wrong, .. } = self;
        must(*sold > 0, "nothing was accepted".to_owned());
        must(*wrong == 0, format!("{wrong} answers cannot be true"));
        let most = sold.saturating_add(*uncertain);
        must(
            (*sold..=most).contains(invoices),
            format!(
                "{sold} sales were accepted (and {uncertain} may have been); queries know {invoices} invoices"
            ),
        );
        must(*unsettled == 0, format!("{unsettled} financings have not settled"));
        must(
            (*settled..=settled.saturating_add(*unsettled).saturating_add(*abandoned)).contains(approved),
            format!("{settled} financings have settled; queries know {approved} approved invoices"),
        );
        let Self { funded, available, reserved, committed, owed, .. } = self;
        must(
            available.saturating_add(*reserved).saturating_add(*committed) == *funded,
            format!(
                "{} available, {} reserved and {} committed are not the {} that the investors brought",
                cents(*available),
                cents(*reserved),
                cents(*committed),
                cents(*funded)
            ),
        );
        must(
            committed == owed,
            format!("{} are committed; the approved invoices come to {}", cents(*committed), cents(*owed)),
        );
        must(
            *reserved == 0 || *unsettled > 0 || *abandoned > 0,
            format!("{} are reserved though everything has settled", cents(*reserved)),
        );
        breaches
    }
}

/// As people write it.
pub(super) fn cents(amount: i128) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let amount = amount.unsigned_abs();
    format!("{sign}{}.{:02} EUR", amount / 100, amount % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Books {
        Books {
            sold: 12,
            invoices: 12,
            approved: 10,
            settled: 10,
            funded: 50_000,
            available: 40_000,
            committed: 10_000,
            owed: 10_000,
            ..Books::default()
        }
    }

    #[test]
    fn books_that_add_up_have_no_breach() {
        assert_eq!(fine().breaches(), Vec::<String>::new());
        assert_eq!(
            Books {
                abandoned: 1,
                approved: 11,
                owed: 11_000,
                committed: 11_000,
                available: 39_000,
                ..fine()
            }
            .breaches(),
            Vec::<String>::new()
        );
        assert_eq!(Books { uncertain: 1, invoices: 13, ..fine() }.breaches(), Vec::<String>::new());
    }

    #[test]
    fn whatever_does_not_add_up_is_said() {
        for (wrong, said) in [
            (Books { sold: 0, invoices: 0, ..fine() }, "nothing was accepted"),
            (Books { wrong: 2, ..fine() }, "2 answers"),
            (Books { invoices: 11, ..fine() }, "queries know 11 invoices"),
            (Books { invoices: 13, ..fine() }, "queries know 13 invoices"),
            (Books { approved: 9, ..fine() }, "9 approved"),
            (Books { approved: 11, ..fine() }, "11 approved"),
            (Books { unsettled: 1, ..fine() }, "1 financings have not settled"),
            (Books { available: 39_999, ..fine() }, "399.99 EUR available"),
            (Books { owed: 9_999, ..fine() }, "come to 99.99 EUR"),
            (Books { reserved: 1, available: 39_999, ..fine() }, "0.01 EUR are reserved"),
        ] {
            let breaches = wrong.breaches();
            assert!(matches!(&*breaches, [breach] if breach.contains(said)), "{said}: {breaches:?}");
        }
    }
}
