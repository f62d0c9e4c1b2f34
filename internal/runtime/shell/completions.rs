//! What a shell wants to know of the commands.
//!
//! The rule this module protects: it is made from the commands themselves, so it knows all of them.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::runtime::config::EmbeddedSettings;

/// The name under which shells find the program.
const NAME: &str = "financing";

/// For which shell.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    source <(financing completions bash)                                          # in this shell\n  \
    financing completions bash > ~/.local/share/bash-completion/completions/financing\n  \
    financing completions zsh > \"${fpath[1]}/_financing\"\n  \
    financing completions fish > ~/.config/fish/completions/financing.fish")]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The script that the shell reads.
pub(super) fn run(arguments: &CompletionsArguments) -> String {
    let mut script = Vec::new();
    generate(arguments.shell, &mut EmbeddedSettings::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_is_told_of_every_command() {
        let command = EmbeddedSettings::command();
        for shell in Shell::value_variants() {
            let script = run(&CompletionsArguments { shell: *shell });
            for subcommand in command.get_subcommands() {
                assert!(script.contains(subcommand.get_name()), "{shell}: {}", subcommand.get_name());
            }
        }
    }
}
