//! The relayer of the distributed platform.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::distributed::relayer;
use invoice_financing::runtime::process::{self, Threads};
use invoice_financing::runtime::settings::RelayerSettings;

fn main() -> ExitCode {
    match settings::<RelayerSettings>(std::env::args_os()) {
        Ok(settings) => process::run(&settings.common.log.clone(), Threads::One, relayer::run(settings)),
        Err(code) => code,
    }
}
