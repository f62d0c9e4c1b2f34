//! The projector of the distributed platform.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::distributed::projector;
use invoice_financing::runtime::process::{self, Threads};
use invoice_financing::runtime::settings::ProjectorSettings;

fn main() -> ExitCode {
    match settings::<ProjectorSettings>(std::env::args_os()) {
        Ok(settings) => process::run(&settings.common.log.clone(), Threads::One, projector::run(settings)),
        Err(code) => code,
    }
}
