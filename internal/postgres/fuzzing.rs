//! What must hold for whatever somebody gives as a database's URL.
//!
//! The rule this module protects: a URL is understood or refused, and no refusal says the password. Run by the fuzzer and by the
//! tests.

use super::connect::Connect;

/// What nothing may say.
const PASSWORD: &str = "correct-horse-battery";

/// What follows `postgres://user:password@`.
///
/// # Panics
///
/// When the property does not hold.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for url in [text.to_owned(), format!("postgres://somebody:{PASSWORD}@{text}")] {
        let connect = Connect::new(url, "fuzzing");
        let said = match connect.parse() {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(PASSWORD) || !said.contains(PASSWORD), "the password is said: {said}");
        let shown = format!("{connect:?}");
        assert!(text.contains(PASSWORD) || !shown.contains(PASSWORD), "the password is shown: {shown}");
        assert!(said.len() <= text.len().saturating_mul(4) + 1024, "too much is said: {said}");
    }
}
