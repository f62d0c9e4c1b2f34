//! Registers issuers and investors on a running platform, and prints their ids.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::populate::{PopulateSettings, populate};
use invoice_financing::runtime::{client, process};

fn main() -> ExitCode {
    match settings::<PopulateSettings>(std::env::args_os()) {
        Ok(settings) => process::print(populate(settings), client::ClientError::exit_code),
        Err(code) => code,
    }
}
