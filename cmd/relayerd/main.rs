//! The relayer of the distributed platform.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::distributed::relayer;
use invoice_financing::runtime::process;
use invoice_financing::runtime::settings::RelayerSettings;

fn main() -> ExitCode {
    match settings::<RelayerSettings>(std::env::args_os()) {
        Ok(settings) => process::run(&settings.common.log.clone(), relayer::run(settings)),
        Err(code) => code,
    }
}
