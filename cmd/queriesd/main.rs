//! The query service of the distributed platform.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::distributed::queries;
use invoice_financing::runtime::process::{self, Threads};
use invoice_financing::runtime::settings::QueriesSettings;

fn main() -> ExitCode {
    match settings::<QueriesSettings>(std::env::args_os()) {
        Ok(settings) => process::run(&settings.common.log.clone(), Threads::EachCore, queries::run(settings)),
        Err(code) => code,
    }
}
