//! What the clients know of the terminal that they print to.
//!
//! The rule this module protects: whoever reads colours reads the same words as who does not. Colour only where a person looks:
//! on a terminal, and not with `NO_COLOR` (<https://no-color.org>) or `TERM=dumb`.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, stdout};

use anstyle::{AnsiColor, Style};
use terminal_size::terminal_size;

/// The width where nobody says how wide it is, in columns.
const USUAL: usize = 100;

/// The narrowest that anything is laid out for, in columns.
const NARROWEST: usize = 40;

/// What a piece of text means to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went well, and is over.
    Good,
    /// It was refused, lost, or failed.
    Bad,
    /// It is under way.
    Pending,
    /// It is there for who looks for it: an id, a time.
    Quiet,
    /// A heading, or what the eye is to find first.
    Strong,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Pending => AnsiColor::Yellow.on_default(),
            Self::Quiet => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// Where text is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    width: usize,
    colour: bool,
}

impl Terminal {
    /// Of this width in columns, with colours or without.
    #[must_use]
    pub const fn new(width: usize, colour: bool) -> Self {
        Self { width: if width < NARROWEST { NARROWEST } else { width }, colour }
    }

    /// Standard output as it is: as wide as the terminal, or as `COLUMNS` says.
    #[must_use]
    pub fn standard_output() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let told = set("COLUMNS").and_then(|text| text.to_str()?.parse().ok());
        let measured = || terminal_size().map(|(width, _)| usize::from(width.0));
        let dumb = set("TERM").is_some_and(|term| term == OsStr::new("dumb"));
        let colour = stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb;
        Self::new(told.or_else(measured).unwrap_or(USUAL), colour)
    }

    /// How many columns there are.
    #[must_use]
    pub const fn width(self) -> usize {
        self.width
    }

    /// Whether text may be coloured, and lines drawn over again.
    #[must_use]
    pub const fn colour(self) -> bool {
        self.colour
    }

    /// The text in its tone; as it is where there are no colours.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = tone.style();
        format!("{style}{text}{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_text_is_as_it_is() {
        assert_eq!(Terminal::new(80, false).paint(Tone::Bad, "refused"), "refused");
        assert_eq!(Terminal::new(80, true).paint(Tone::Bad, "refused"), "\u{1b}[31mrefused\u{1b}[0m");
    }

    #[test]
    fn nothing_is_laid_out_for_no_columns() {
        assert_eq!(Terminal::new(0, false).width(), NARROWEST);
    }
}
