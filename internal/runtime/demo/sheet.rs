//! The balance sheet: what every investor opened with, and where it is now.
//!
//! The rule this module protects: it is added up here, in whole cents, from what the query side shows; and where it does not add up,
//! it says so.

use domain::money::Money;
use serde::Serialize;

use crate::api::proto::financing::v1::{self, Investor, Invoice, InvoiceStatus};
use crate::runtime::client::ClientError;
use crate::runtime::shell::json;
use crate::runtime::shell::table::{Cell, Column, Kind, Table};
use crate::runtime::terminal::{Terminal, Tone};

use super::plan::CURRENCY;

/// One investor, in cents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    id: String,
    name: String,
    opened_with: i64,
    available: i64,
    reserved: i64,
    committed: i64,
    /// The asking prices of the approved invoices that this investor's bids have won.
    owed: i64,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sheet {
    rows: Vec<Row>,
    /// How many invoices were approved.
    approved: usize,
}

/// Cents of money of the demo's currency.
pub(super) fn cents(money: Option<&v1::Money>) -> Result<i64, ClientError> {
    let unreadable =
        |what: String| ClientError::Failed(format!("the platform shows an amount that is none: {what}"));
    let money = money.ok_or_else(|| unreadable("it is missing".to_owned()))?;
    let read = Money::from_wire(&money.currency_code, money.units, money.nanos);
    let read = read.map_err(|error| unreadable(error.to_string()))?;
    if read.currency() != CURRENCY {
        return Err(unreadable(format!("{read} where {CURRENCY} was paid in")));
    }
    Ok(read.minor())
}

/// Cents, as people write them.
pub(super) fn shown(cents: i128) -> String {
    let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.unsigned_abs());
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// Cents, as scripts read them.
fn object(cents: i128) -> json::Money {
    json::Money::from(v1::Money {
        currency_code: CURRENCY.code().to_owned(),
        // Sums of a few amounts of at most 10^15 cents.
        units: i64::try_from(cents / 100).unwrap_or(i64::MAX),
        nanos: i32::try_from(cents % 100 * 10_000_000).unwrap_or_default(),
    })
}

/// The sums of all rows, in cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    opened_with: i128,
    available: i128,
    reserved: i128,
    committed: i128,
    owed: i128,
}

impl Sums {
    fn whole(self) -> i128 {
        self.available + self.reserved + self.committed
    }
}

impl Row {
    fn sums(&self) -> Sums {
        let [opened_with, available, reserved, committed, owed] =
            [self.opened_with, self.available, self.reserved, self.committed, self.owed].map(i128::from);
        Sums { opened_with, available, reserved, committed, owed }
    }
}

/// What has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What is said.
    pub(super) says: String,
    /// Whether it is so.
    pub(super) holds: bool,
}

impl Sheet {
    /// Of these investors with what they opened with, in cents, and these invoices.
    pub(super) fn of(investors: &[(Investor, i64)], invoices: &[Invoice]) -> Result<Self, ClientError> {
        let approved: Vec<&Invoice> =
            invoices.iter().filter(|invoice| invoice.status() == InvoiceStatus::Approved).collect();
        let mut rows = Vec::with_capacity(investors.len());
        for (investor, opened_with) in investors {
            let mut owed = 0_i64;
            for invoice in &approved {
                if invoice.winning_bid.as_ref().is_some_and(|bid| bid.investor_id == investor.id) {
                    owed = owed.saturating_add(cents(invoice.asking_price.as_ref())?);
                }
            }
            rows.push(Row {
                id: investor.id.clone(),
                name: investor.name.clone(),
                opened_with: *opened_with,
                available: cents(investor.available.as_ref())?,
                reserved: cents(investor.reserved.as_ref())?,
                committed: cents(investor.committed.as_ref())?,
                owed,
            });
        }
        Ok(Self { rows, approved: approved.len() })
    }

    fn total(&self) -> Sums {
        self.rows.iter().map(Row::sums).fold(Sums::default(), |sum, row| Sums {
            opened_with: sum.opened_with + row.opened_with,
            available: sum.available + row.available,
            reserved: sum.reserved + row.reserved,
            committed: sum.committed + row.committed,
            owed: sum.owed + row.owed,
        })
    }

    /// Whether it adds up, of each investor and in total.
    pub(super) fn checks(&self) -> Vec<Check> {
        let all = |holds: fn(Sums) -> bool| self.rows.iter().map(Row::sums).chain([self.total()]).all(holds);
        let total = self.total();
        let [opened_with, available, reserved, committed, owed] =
            [total.opened_with, total.available, total.reserved, total.committed, total.owed].map(shown);
        vec![
            Check {
                says: format!("{available} + {reserved} + {committed} = {opened_with} opened with"),
                holds: all(|sums| sums.opened_with == sums.whole()),
            },
            Check {
                says: format!(
                    "{committed} committed = {owed} asked for the {} approved invoices",
                    self.approved
                ),
                holds: all(|sums| sums.committed == sums.owed),
            },
            Check { says: "nothing is reserved any more".to_owned(), holds: all(|sums| sums.reserved == 0) },
        ]
    }

    /// The sheet for people.
    pub(super) fn render(&self, terminal: Terminal) -> String {
        let numbers = ["OPENED WITH", "AVAILABLE", "RESERVED", "COMMITTED", "SUM"];
        let mut columns = vec![Column::heart("IN EUR", Kind::Text)];
        columns.extend(numbers.map(|title| Column::heart(title, Kind::Number)));
        let mut table = Table::new(&columns);
        let row = |name: &str, sums: Sums, tone: Option<Tone>| {
            let cell = |text: String| tone.map_or_else(|| Cell::new(&text), |tone| Cell::toned(&text, tone));
            let mut cells = vec![cell(name.to_owned())];
            let sums = [sums.opened_with, sums.available, sums.reserved, sums.committed, sums.whole()];
            cells.extend(sums.map(|cents| cell(shown(cents))));
            cells
        };
        for investor in &self.rows {
            table.push(row(&investor.name, investor.sums(), None));
        }
        table.push(row("in total", self.total(), Some(Tone::Strong)));
        table.render(terminal)
    }

    /// The sheet for scripts.
    pub(super) fn json(&self) -> serde_json::Value {
        let line = |sums: Sums| {
            serde_json::json!({
                "opened_with": object(sums.opened_with),
                "available": object(sums.available),
                "reserved": object(sums.reserved),
                "committed": object(sums.committed),
                "sum": object(sums.whole()),
            })
        };
        let investors: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|row| serde_json::json!({ "id": row.id, "name": row.name, "balances": line(row.sums()) }))
            .collect();
        serde_json::json!({
            "currency_code": CURRENCY.code(),
            "approved_invoices": self.approved,
            "investors": investors,
            "total": line(self.total()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(opened_with: i64, available: i64, reserved: i64, committed: i64, owed: i64) -> Row {
        let (id, name) = ("i".to_owned(), "Investor 1".to_owned());
        Row { id, name, opened_with, available, reserved, committed, owed }
    }

    fn holding(rows: Vec<Row>) -> Vec<bool> {
        Sheet { rows, approved: 1 }.checks().into_iter().map(|check| check.holds).collect()
    }

    #[test]
    fn a_sheet_adds_up_to_the_cent_or_says_that_it_does_not() {
        assert_eq!(holding(vec![row(10_000, 4_999, 0, 5_001, 5_001)]), [true, true, true]);
        assert_eq!(holding(vec![row(10_000, 4_999, 0, 5_000, 5_000)]), [false, true, true]);
        assert_eq!(holding(vec![row(10_000, 5_000, 0, 5_000, 5_001)]), [true, false, true]);
        assert_eq!(holding(vec![row(10_000, 4_000, 1_000, 5_000, 5_000)]), [true, true, false]);
        // What one has too much and another too little is no balance.
        let (more, less) = (row(10_000, 10_001, 0, 0, 0), row(10_000, 9_999, 0, 0, 0));
        assert_eq!(holding(vec![more, less]), [false, true, true]);
    }

    #[test]
    fn sums_are_larger_than_any_amount() {
        let rows = vec![row(i64::MAX, i64::MAX, 0, 0, 0); 3];
        assert_eq!(Sheet { rows, approved: 0 }.total().whole(), 3 * i128::from(i64::MAX));
    }

    #[test]
    fn cents_are_shown_as_people_write_them() {
        assert_eq!([0, 5, 100, 123_456].map(shown), ["0.00", "0.05", "1.00", "1234.56"]);
        assert_eq!(shown(-5), "-0.05");
    }

    #[test]
    fn the_sheet_fits_eighty_columns() {
        let big = 9_999_999_999;
        let sheet = Sheet { rows: vec![row(big, big, big, big, 0); 2], approved: 0 };
        let text = sheet.render(Terminal::new(80, false));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
