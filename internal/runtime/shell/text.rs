//! Text in columns: how wide it is, and how it is brought to a width.
//!
//! The rule this module protects: what is shortened says so by an ellipsis, and an id that was shortened still differs from
//! every other that stands with it.

use std::collections::BTreeSet;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How many columns a text takes.
#[must_use]
pub(in crate::runtime) fn width(text: &str) -> usize {
    text.width()
}

/// The text with blanks behind it, so that it takes this many columns at least.
#[must_use]
pub(in crate::runtime) fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text with blanks before it, so that it takes this many columns at least.
#[must_use]
pub(in crate::runtime) fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text, or as much of its beginning as takes no more than this many columns, with an ellipsis.
#[must_use]
pub(in crate::runtime) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut taken, mut used) = (String::new(), 1);
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > columns {
            break;
        }
        taken.push(letter);
    }
    format!("{taken}…")
}

/// Letters that are kept of the beginning of an id that is shortened. The ids of one moment begin alike.
const HEAD: usize = 4;

/// Letters that are kept of its end, at least.
const TAIL: usize = 8;

/// How many letters of their ends these ids need in order to differ when they are shortened.
#[must_use]
pub(in crate::runtime) fn tail(ids: &[&str]) -> usize {
    let distinct = ids.iter().collect::<BTreeSet<_>>().len();
    let longest = ids.iter().map(|id| id.len()).max().unwrap_or(TAIL);
    let differ =
        |tail: &usize| ids.iter().map(|id| shortened(id, *tail)).collect::<BTreeSet<_>>().len() == distinct;
    (TAIL..longest).find(differ).unwrap_or(longest)
}

/// An id with an ellipsis in its middle, where that makes it shorter.
#[must_use]
pub(in crate::runtime) fn shortened(id: &str, tail: usize) -> String {
    let ends = id.get(..HEAD).zip(id.len().checked_sub(tail).and_then(|at| id.get(at..)));
    match ends {
        Some((head, end)) if HEAD + tail + 1 < id.len() => format!("{head}…{end}"),
        Some(_) | None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_takes_the_columns_that_it_may_and_says_so() {
        assert_eq!(cut("Acme", 4), "Acme");
        assert_eq!(cut("Acme Limited", 8), "Acme Li…");
        assert_eq!(width(&cut("株式会社アクメ", 8)), 7, "a letter of two columns is not halved");
        assert_eq!(left("é", 3), "é  ");
        assert_eq!(right("1.50", 6), "  1.50");
    }

    #[test]
    fn shortened_ids_differ_as_the_ids_do() {
        let one = "01a1fda0-7b2c-7000-8000-aa0012345678";
        let other = "01a1fda0-7b2c-7000-8000-bb0012345678";
        assert_eq!(tail(&[one, one]), 8);
        assert_eq!(shortened(one, 8), "01a1…12345678");
        let tail = tail(&[one, other]);
        assert_ne!(shortened(one, tail), shortened(other, tail));
        assert_eq!(shortened("short", 8), "short");
    }
}
