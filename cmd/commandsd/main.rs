//! The command side of the distributed platform: listener, worker and policies, or any of them.

use std::process::ExitCode;

use invoice_financing::runtime::config::settings;
use invoice_financing::runtime::distributed::commands;
use invoice_financing::runtime::process;
use invoice_financing::runtime::settings::CommandsSettings;

fn main() -> ExitCode {
    match settings::<CommandsSettings>(std::env::args_os()) {
        Ok(settings) => {
            process::run(&settings.common.log.clone(), settings.parts().threads(), commands::run(settings))
        }
        Err(code) => code,
    }
}
