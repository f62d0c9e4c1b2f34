//! The platform in one process; or, with a subcommand, a client of one that is running.

use std::process::ExitCode;

use invoice_financing::runtime::config::{EmbeddedSettings, settings};
use invoice_financing::runtime::process::Threads;
use invoice_financing::runtime::{client, embedded, process, shell};

fn main() -> ExitCode {
    let settings = match settings::<EmbeddedSettings>(std::env::args_os()) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match settings.command.clone() {
        None => process::run(&settings.log, Threads::EachCore, embedded::run(settings.clone())),
        Some(command) => process::print(shell::run(command), client::ClientError::exit_code),
    }
}
