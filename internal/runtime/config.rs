//! Configuration: flags over environment over a file.
//!
//! The rule this module protects: every value is checked before a port is bound or a file is touched, and every setting
//! has one name: `--command-addr`, `FINANCING_COMMAND_ADDR`, and the same line in the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, Parser};
use eventsourcing::partition::PartitionCount;

use super::observation::settings::TelemetrySettings;
use super::shell::ShellCommand;
use super::shell::help::template;
use super::telemetry::LogFormat;

/// How every program logs.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// How log lines look
    #[arg(long, env = "FINANCING_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: LogFormat,
    /// Which log lines are written, as in `info` or `warn,eventsourcing=debug`
    #[arg(long, env = "FINANCING_LOG", default_value = "info")]
    pub log: String,
}

/// Where settings may come from beside flags and environment.
#[derive(Debug, Clone, Args)]
pub struct FileSettings {
    /// A file with lines of the form `FINANCING_NAME=value`; environment and flags go before it
    #[arg(long, env = "FINANCING_CONFIG")]
    pub config: Option<PathBuf>,
}

/// The settings of the embedded platform.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "financing",
    version,
    args_conflicts_with_subcommands = true,
    help_template = template(),
    about = "The invoice-financing platform: everything in one process, on files in one directory",
    long_about = "The invoice-financing platform: everything in one process, on files in one directory.\n\n\
                  Takes commands and integration events on the command address and answers queries on the query \
                  address, over gRPC with health and reflection; it is looked after on the admin address, which is loopback unless you say \
                  otherwise, because whoever reaches it may use it. SIGTERM or ctrl-c stops it: what was accepted is on \
                  disk.\n\nSettings come from flags, else from the environment, else from the file named by --config, \
                  else the defaults below."
)]
pub struct EmbeddedSettings {
    /// The directory that holds everything
    #[arg(long, env = "FINANCING_DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Where commands are taken: host:port
    #[arg(long, env = "FINANCING_COMMAND_ADDR", default_value = "127.0.0.1:8080", value_parser = bind_address)]
    pub command_addr: SocketAddr,
    /// Where queries are answered: host:port
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = bind_address)]
    pub query_addr: SocketAddr,
    /// Where the platform is looked after, by whoever reaches it: host:port; without it 127.0.0.1:8082, or a free port where
    /// that is taken
    #[arg(long, env = "FINANCING_ADMIN_ADDR", value_parser = bind_address)]
    pub admin_addr: Option<SocketAddr>,
    /// The number of partitions; fixed when the data directory is created
    #[arg(long, env = "FINANCING_PARTITIONS", default_value = "16", value_parser = partitions)]
    pub partitions: PartitionCount,
    /// How long a stop waits for calls under way, in seconds
    #[arg(long, env = "FINANCING_GRACE_SECONDS", default_value = "10", value_parser = seconds)]
    pub grace_seconds: Duration,
    /// How to log
    #[command(flatten)]
    pub log: LogSettings,
    /// Where else settings come from
    #[command(flatten)]
    pub file: FileSettings,
    /// What is told to whom
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    /// What to do instead of running the platform
    #[command(subcommand)]
    pub command: Option<ShellCommand>,
}

/// The exit code of a program that was called wrongly: `EX_USAGE`. It is not 2, which is a refusal by the business.
const USAGE: u8 = 64;

/// Reads a program's settings, or prints what is wrong (or the help) and says with which code to end.
///
/// # Errors
///
/// The exit code, where the program has nothing more to do.
pub fn settings<S: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<S, std::process::ExitCode> {
    read::<S>(arguments.into_iter().collect()).map_err(|error| {
        // Nothing can be done about a terminal that cannot be written to.
        let _unwritable = error.print();
        std::process::ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
    })
}

pub(super) fn read<S: Parser>(arguments: Vec<OsString>) -> Result<S, clap::Error> {
    let mut command = without_settings_of_others(S::command(), &arguments);
    if let Some(path) = file_named(&command, &arguments) {
        let file = std::fs::read_to_string(&path).map_err(|error| {
            clap::Error::raw(clap::error::ErrorKind::Io, format!("{}: {error}\n", path.display()))
        })?;
        command = with_file(command, &path, &file)?;
    }
    S::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// A subcommand is a client, and has settings of its own under the same names: what the environment says to it must not
/// be read as the platform's.
fn without_settings_of_others(command: Command, arguments: &[OsString]) -> Command {
    let is_client = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .is_ok_and(|matches| matches.subcommand_name().is_some());
    if !is_client {
        return command;
    }
    command.mut_args(
        |argument| {
            if argument.get_id() == "config" { argument } else { argument.env(Resettable::Reset) }
        },
    )
}

/// The file that the flags or the environment name, looked for without minding anything else: what else is wrong
/// with the arguments is found when all of them are read.
fn file_named(command: &Command, arguments: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    matches.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// Lets the file's lines stand in for the defaults.
pub(super) fn with_file(command: Command, path: &Path, text: &str) -> Result<Command, clap::Error> {
    let wrong = |line: usize, what: &str| {
        let message = format!("{}:{line}: {what}\n", path.display());
        clap::Error::raw(clap::error::ErrorKind::InvalidValue, message)
    };
    let mut values = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong(number, "expected NAME=value"))?;
        if name.trim() == "FINANCING_CONFIG" {
            return Err(wrong(number, "a file cannot name another"));
        }
        // One file may serve several programs, so a name of another program's is no mistake; any other is.
        if !NAMES.contains(&name.trim()) {
            return Err(wrong(number, &format!("there is no setting {}", name.trim())));
        }
        values.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(with_values(command, &values))
}

fn with_values(command: Command, values: &BTreeMap<String, String>) -> Command {
    let command = command.mut_args(|argument| {
        let name = argument.get_env().and_then(std::ffi::OsStr::to_str);
        match name.and_then(|name| values.get(name)) {
            Some(value) => argument.default_value(clap::builder::OsStr::from(value.clone())),
            None => argument,
        }
    });
    command.mut_subcommands(|subcommand| with_values(subcommand, values))
}

/// Every setting of every program.
pub const NAMES: &[&str] = &[
    "FINANCING_DATA_DIR",
    "FINANCING_COMMAND_ADDR",
    "FINANCING_QUERY_ADDR",
    "FINANCING_PARTITIONS",
    "FINANCING_GRACE_SECONDS",
    "FINANCING_LOG_FORMAT",
    "FINANCING_LOG",
    "FINANCING_CONFIG",
    "FINANCING_ADMIN_ADDR",
    "FINANCING_HEALTH_ADDR",
    "FINANCING_COMMAND_DATABASE_URL",
    "FINANCING_COMMAND_DATABASE_CONNECTIONS",
    "FINANCING_QUERY_DATABASE_URL",
    "FINANCING_QUERY_DATABASE_CONNECTIONS",
    "FINANCING_NATS_URL",
    "FINANCING_NATS_USER",
    "FINANCING_NATS_PASSWORD",
    "FINANCING_NATS_TOKEN",
    "FINANCING_NATS_NKEY",
    "FINANCING_NATS_CREDENTIALS",
    "FINANCING_NATS_CA",
    "FINANCING_NATS_CERTIFICATE",
    "FINANCING_NATS_KEY",
    "FINANCING_NATS_TLS",
    "FINANCING_NATS_REPLICAS",
    "FINANCING_NATS_DUPLICATE_WINDOW",
    "FINANCING_QUEUE_BYTES",
    "FINANCING_OTLP_ENDPOINT",
    "FINANCING_TRACE_RATIO",
    "FINANCING_METRICS_ADDR",
];

pub(super) fn bind_address(text: &str) -> Result<SocketAddr, String> {
    text.to_socket_addrs()
        .map_err(|error| format!("expected host:port: {error}"))?
        .next()
        .ok_or_else(|| "the host has no address".to_owned())
}

pub(super) fn partitions(text: &str) -> Result<PartitionCount, String> {
    text.parse()
        .ok()
        .and_then(PartitionCount::new)
        .ok_or_else(|| format!("expected a number from 1 to {}", PartitionCount::MAX))
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds <= 3600)
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a number of seconds from 0 to 3600".to_owned())
}

/// The address of a server as a client writes it: `host:port`, or with `http://` or `https://` before it.
///
/// # Errors
///
/// When it is none of these.
pub fn client_address(text: &str) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some((scheme, _)) => return Err(format!("{scheme}:// is not spoken here; expected host:port")),
        None => ("http", text),
    };
    let authority = rest.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').ok_or("expected host:port")?;
    let port_is_one = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || !port_is_one || authority.contains('/') {
        return Err("expected host:port".to_owned());
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_does_not_read_its_settings_as_the_platforms() {
        let command = without_settings_of_others(
            <EmbeddedSettings as clap::CommandFactory>::command(),
            &["financing", "sell", "x", "1"].map(OsString::from),
        );
        let has_env = |id: &str| {
            command.get_arguments().any(|argument| argument.get_id() == id && argument.get_env().is_some())
        };
        assert!(!has_env("command_addr") && !has_env("partitions") && has_env("config"));
        let sell = command.get_subcommands().find(|command| command.get_name() == "sell").unwrap();
        assert!(sell.get_arguments().any(|argument| argument.get_env().is_some()));
    }

    fn embedded(arguments: &[&str]) -> Result<EmbeddedSettings, String> {
        let arguments = std::iter::once("financing").chain(arguments.iter().copied()).map(OsString::from);
        read(arguments.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = embedded(&[]).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("./data"));
        assert_eq!(settings.command_addr.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.query_addr.to_string(), "127.0.0.1:8081");
        assert_eq!(settings.admin_addr, None);
        assert_eq!(settings.partitions, PartitionCount::DEFAULT);
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_name() {
        for (flag, value) in [
            ("--command-addr", "nonsense"),
            ("--query-addr", "127.0.0.1"),
            ("--admin-addr", "127.0.0.1"),
            ("--partitions", "0"),
            ("--partitions", "1025"),
            ("--grace-seconds", "-1"),
        ] {
            let error = embedded(&[&format!("{flag}={value}")]).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_file_goes_behind_a_flag_and_before_a_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "# a comment\n\nFINANCING_PARTITIONS=4\nFINANCING_QUERY_ADDR = 127.0.0.1:9\n",
        )
        .unwrap();
        let path = file.path().display().to_string();
        let settings = embedded(&["--config", &path, "--query-addr", "127.0.0.1:10"]).unwrap();
        assert_eq!(settings.partitions.get(), 4);
        assert_eq!(settings.query_addr.port(), 10);
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        for (text, expected) in [
            ("FINANCING_PARTITIONS=0", "partitions"),
            ("\nFINANCING_PARTITION=4", ":2: there is no setting FINANCING_PARTITION"),
            ("FINANCING_PARTITIONS", ":1: expected NAME=value"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let error = embedded(&["--config", &path]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = embedded(&["--config", "/there/is/no/such/file"]).unwrap_err();
        assert!(error.contains("/there/is/no/such/file"), "{error}");
    }

    #[test]
    fn a_client_writes_an_address_with_or_without_a_scheme() {
        assert_eq!(client_address("localhost:8080").unwrap(), "http://localhost:8080");
        assert_eq!(client_address("https://a.example:443/").unwrap(), "https://a.example:443");
        for wrong in
            ["", "localhost", "ftp://localhost:1", ":8080", "localhost:0", "localhost:99999", "a:1/b"]
        {
            assert!(client_address(wrong).is_err(), "{wrong:?}");
        }
    }
}
