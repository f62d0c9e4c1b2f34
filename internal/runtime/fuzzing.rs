//! What must hold for whatever a configuration says.
//!
//! The rule this module protects: a setting is taken as it is or refused by its name, before anything else is done. Run by the
//! fuzzer and by the tests.

use std::path::Path;

use clap::Parser;

use super::config::{EmbeddedSettings, client_address, with_file};
use super::settings::{CommandsSettings, QueriesSettings};

/// A configuration file, read by the programs that have most settings; and the same text as the address of a server.
///
/// # Panics
///
/// When the property does not hold.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = client_address(text) {
        assert_eq!(client_address(&address).as_ref(), Ok(&address), "an address is not its own address");
    }
    file::<EmbeddedSettings>(text);
    file::<CommandsSettings>(text);
    file::<QueriesSettings>(text);
}

fn file<S: Parser>(text: &str) {
    let command = match with_file(S::command(), Path::new("the-file"), text) {
        Ok(command) => command,
        Err(error) => {
            let said = error.to_string();
            return assert!(said.contains("the-file:"), "which line is not said: {said}");
        }
    };
    // Whoever names a host asks the network for it; this asks nobody.
    let is_name = |line: &str| {
        line.contains("_ADDR") && line.split('=').skip(1).any(|value| value.chars().any(char::is_alphabetic))
    };
    if text.lines().any(is_name) {
        return;
    }
    if let Err(error) = command.try_get_matches_from(["program"]) {
        let said = error.to_string();
        assert!(said.contains("--"), "no setting is named: {said}");
    }
}
