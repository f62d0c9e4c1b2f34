//! Tables for people.
//!
//! The rule this module protects: nothing is lost for want of columns. Where a row does not fit, the ids that point elsewhere
//! are shortened; where that is not enough, what is not the heart of the row stands on a second line.

use super::text;
use crate::runtime::terminal::{Terminal, Tone};

/// Blanks between two columns.
const GAP: usize = 2;

/// The longest that a name may make its column.
const LONGEST: usize = 40;

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Kind {
    /// At the left.
    Text,
    /// At the right: money, numbers.
    Number,
    /// An id: whole, or shortened where there is no room.
    Id,
    /// An id that is whole wherever it stands.
    Whole,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(in crate::runtime) struct Column {
    title: &'static str,
    kind: Kind,
    /// Whether it always stands on the first line, whole.
    heart: bool,
}

impl Column {
    /// One that always stands on the first line, whole.
    pub(in crate::runtime) const fn heart(title: &'static str, kind: Kind) -> Self {
        Self { title, kind, heart: true }
    }

    /// One that may be shortened, and go to a second line.
    pub(in crate::runtime) const fn rest(title: &'static str, kind: Kind) -> Self {
        Self { title, kind, heart: false }
    }
}

/// What stands in one place of a table.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// Plain text.
    pub(in crate::runtime) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: None }
    }

    /// Text in a tone.
    pub(in crate::runtime) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }

    fn paint(&self, terminal: Terminal, text: &str) -> String {
        self.tone.map_or_else(|| text.to_owned(), |tone| terminal.paint(tone, text))
    }
}

/// Rows under their titles.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// How the rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Whole,
    Shortened,
    TwoLines,
    TwoLinesShortened,
}

/// A layout of one table.
#[derive(Debug)]
struct Laid {
    layout: Layout,
    /// How much of its end each column's ids need in order to differ.
    tails: Vec<usize>,
}

impl Laid {
    const fn shortens(&self) -> bool {
        matches!(self.layout, Layout::Shortened | Layout::TwoLinesShortened)
    }

    const fn has_two_lines(&self) -> bool {
        matches!(self.layout, Layout::TwoLines | Layout::TwoLinesShortened)
    }
}

impl Table {
    /// Without rows.
    pub(in crate::runtime) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell a column.
    pub(in crate::runtime) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "one cell a column");
        self.rows.push(row);
    }

    /// The table for this terminal, a line a row, or two.
    pub(in crate::runtime) fn render(&self, terminal: Terminal) -> String {
        let layouts = [Layout::Whole, Layout::Shortened, Layout::TwoLines, Layout::TwoLinesShortened];
        let mut laid = Laid { layout: Layout::TwoLinesShortened, tails: self.tails() };
        for layout in layouts {
            laid.layout = layout;
            if self.width(&laid) <= terminal.width() {
                break;
            }
        }
        self.laid_out(&laid, terminal)
    }

    /// How much of its end each column's ids need in order to differ.
    fn tails(&self) -> Vec<usize> {
        let ids = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.as_str()).collect::<Vec<_>>()
        };
        (0..self.columns.len()).map(|column| text::tail(&ids(column))).collect()
    }

    /// What is shown of a cell.
    fn shown(&self, column: usize, cell: &Cell, layout: &Laid) -> String {
        let Some(Column { kind, heart, .. }) = self.columns.get(column) else { return cell.text.clone() };
        match kind {
            Kind::Id if layout.shortens() && !heart => {
                let tail = layout.tails.get(column).copied().unwrap_or(usize::MAX);
                text::shortened(&cell.text, tail)
            }
            Kind::Id | Kind::Whole | Kind::Number => cell.text.clone(),
            Kind::Text => text::cut(&cell.text, LONGEST),
        }
    }

    /// How wide each column of the first line is; `None` for one that stands on the second.
    fn widths(&self, layout: &Laid) -> Vec<Option<usize>> {
        let of = |(index, column): (usize, &Column)| {
            if layout.has_two_lines() && !column.heart {
                return None;
            }
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| text::width(&self.shown(index, cell, layout))).max().unwrap_or(0);
            Some(widest.max(text::width(column.title)))
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    /// How wide the table is.
    fn width(&self, layout: &Laid) -> usize {
        let widths: Vec<usize> = self.widths(layout).into_iter().flatten().collect();
        let first = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let seconds = self.rows.iter().filter_map(|row| self.second(row, layout));
        seconds.map(|line| text::width(&line)).max().unwrap_or(0).max(first)
    }

    /// The second line of a row: what is there of what has no column, with its title.
    fn second(&self, row: &[Cell], layout: &Laid) -> Option<String> {
        let others = || self.columns.iter().enumerate().filter(|(_, column)| !column.heart);
        if !layout.has_two_lines() {
            return None;
        }
        let said: Vec<String> = others()
            .filter_map(|(index, column)| Some((index, column, row.get(index)?)))
            .filter(|(_, _, cell)| !cell.text.is_empty())
            .map(|(index, column, cell)| {
                format!("{} {}", column.title.to_lowercase(), self.shown(index, cell, layout))
            })
            .collect();
        (!said.is_empty()).then(|| format!("  {}", said.join("  ")))
    }

    fn laid_out(&self, layout: &Laid, terminal: Terminal) -> String {
        let widths = self.widths(layout);
        let titles: Vec<Cell> =
            self.columns.iter().map(|column| Cell::toned(column.title, Tone::Strong)).collect();
        let mut lines = vec![self.first(&titles, &widths, layout, terminal)];
        for row in &self.rows {
            lines.push(self.first(row, &widths, layout, terminal));
            lines.extend(self.second(row, layout).map(|line| terminal.paint(Tone::Quiet, &line)));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// The first line of a row. (Nothing follows the last column, so it has no blanks behind it.)
    fn first(&self, row: &[Cell], widths: &[Option<usize>], layout: &Laid, terminal: Terminal) -> String {
        let mut line = String::new();
        let mut owed = 0;
        for ((index, cell), width) in row.iter().enumerate().zip(widths) {
            let Some(width) = *width else { continue };
            let shown = self.shown(index, cell, layout);
            let blanks = width.saturating_sub(text::width(&shown));
            let is_number = self.columns.get(index).is_some_and(|column| column.kind == Kind::Number);
            let (before, behind) = if is_number { (blanks, 0) } else { (0, blanks) };
            if shown.is_empty() {
                owed += width + GAP;
                continue;
            }
            line.push_str(&" ".repeat(owed + before));
            line.push_str(&cell.paint(terminal, &shown));
            owed = behind + GAP;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BID: &str = "01a1fda0-7b2c-7000-8000-000000000001";
    const INVESTOR: &str = "01a1fda0-7b2c-7000-8000-000000000002";
    const INVOICE: &str = "01a1fda0-7b2c-7000-8000-000000000003";

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::heart("BID", Kind::Id),
            Column::heart("AMOUNT", Kind::Number),
            Column::heart("STATUS", Kind::Text),
            Column::rest("INVESTOR", Kind::Id),
            Column::rest("INVOICE", Kind::Id),
            Column::rest("REASON", Kind::Text),
        ]);
        let row = |amount: &str, status: &str, reason: &str| {
            let status = Cell::toned(status, Tone::Bad);
            let [bid, investor, invoice] = [BID, INVESTOR, INVOICE].map(Cell::new);
            vec![bid, Cell::new(amount), status, investor, invoice, Cell::new(reason)]
        };
        table.push(row("60.00 EUR", "WON", ""));
        table.push(row("1000.00 EUR", "RELEASED", "INVOICE_NOT_AVAILABLE"));
        table
    }

    fn lines(width: usize) -> Vec<String> {
        table().render(Terminal::new(width, false)).lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn where_there_is_room_everything_is_whole() {
        let lines = lines(170);
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[2],
            format!("{BID}  1000.00 EUR  RELEASED  {INVESTOR}  {INVOICE}  INVOICE_NOT_AVAILABLE")
        );
        assert_eq!(lines[1], format!("{BID}    60.00 EUR  WON       {INVESTOR}  {INVOICE}"));
    }

    #[test]
    fn where_there_is_less_the_ids_that_point_elsewhere_are_shortened() {
        let lines = lines(120);
        assert!(lines.iter().all(|line| text::width(line) <= 120), "{lines:#?}");
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with(BID) && lines[2].contains("01a1…00000003"), "{lines:#?}");
    }

    #[test]
    fn in_eighty_columns_a_row_has_two_lines_and_loses_nothing() {
        let lines = lines(80);
        assert!(lines.iter().all(|line| text::width(line) <= 80), "{lines:#?}");
        assert_eq!(
            lines[3..],
            [
                format!("{BID}  1000.00 EUR  RELEASED"),
                "  investor 01a1…00000002  invoice 01a1…00000003  reason INVOICE_NOT_AVAILABLE".to_owned(),
            ]
        );
    }

    #[test]
    fn colours_change_no_column() {
        let plain = table().render(Terminal::new(170, false));
        let painted = table().render(Terminal::new(170, true));
        assert_ne!(painted, plain);
        let without: String =
            painted.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, rest)| rest)).collect();
        assert_eq!(without.lines().count(), plain.lines().count());
        assert!(without.contains("1000.00 EUR  RELEASED"), "{without}");
    }
}
