//! The name of a party.
//!
//! The rule this module protects: a name fits every store. PostgreSQL refuses U+0000, SQLite does not, so what one
//! of them took the other could not follow; and text without a limit is a limit found in production.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A party's name: 1 to [`Name::MAX_CHARS`] characters, not only white space, no control characters. It is kept
/// as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing but white space.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`Name::MAX_CHARS`] characters.
    #[error("a name has at most {} characters", Name::MAX_CHARS)]
    TooLong,
    /// A line break, a tab, a NUL and the like.
    #[error("a name must not contain control characters")]
    ControlCharacter,
}

impl Name {
    /// The most characters (Unicode scalar values) that a name may have.
    pub const MAX_CHARS: usize = 256;

    /// The name, where the text is one.
    ///
    /// # Errors
    ///
    /// When the text is empty, too long, or contains control characters.
    pub fn try_new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(NameError::Empty);
        }
        if text.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(NameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_it_was_written() {
        let name = Name::try_new(" Ada & Söhne ").unwrap();
        assert_eq!(name.as_str(), " Ada & Söhne ");
        assert_eq!(name.to_string(), " Ada & Söhne ");
    }

    #[test]
    fn a_name_must_say_something() {
        assert_eq!(Name::try_new(""), Err(NameError::Empty));
        assert_eq!(Name::try_new(" \t "), Err(NameError::Empty));
    }

    #[test]
    fn the_limit_counts_characters_and_not_bytes() {
        assert!(Name::try_new("ü".repeat(256)).is_ok());
        assert_eq!(Name::try_new("ü".repeat(257)), Err(NameError::TooLong));
    }

    #[test]
    fn a_name_contains_no_control_characters() {
        for wrong in ["a\0b", "a\nb", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(Name::try_new(wrong), Err(NameError::ControlCharacter), "{wrong:?}");
        }
    }

    #[test]
    fn json_is_checked_as_well() {
        assert!(serde_json::from_str::<Name>(r#""Ada""#).is_ok());
        assert!(serde_json::from_str::<Name>(r#""a\u0000b""#).is_err());
    }
}
