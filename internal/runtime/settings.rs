//! The settings of the distributed programs.
//!
//! The rule this module protects: a secret that somebody configures is never shown again: not by `--help`, not in a log,
//! not in an error.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser};
use eventsourcing::partition::PartitionCount;

use super::config::{FileSettings, LogSettings, bind_address, partitions, seconds};
use super::observation::settings::TelemetrySettings;
use super::process::Threads;

/// Text that nobody may see again.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever has to send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How to reach NATS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsSettings {
    /// The servers, separated by commas; tls:// asks for TLS [default: nats://127.0.0.1:4222]
    #[arg(
        long,
        env = "FINANCING_NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub nats_url: Secret,
    /// A user, with a password
    #[arg(long, env = "FINANCING_NATS_USER")]
    pub nats_user: Option<String>,
    /// The user's password
    #[arg(long, env = "FINANCING_NATS_PASSWORD", hide_env_values = true, hide_default_value = true)]
    pub nats_password: Option<Secret>,
    /// A token
    #[arg(long, env = "FINANCING_NATS_TOKEN", hide_env_values = true, hide_default_value = true)]
    pub nats_token: Option<Secret>,
    /// The seed of an nkey
    #[arg(long, env = "FINANCING_NATS_NKEY", hide_env_values = true, hide_default_value = true)]
    pub nats_nkey: Option<Secret>,
    /// A credentials file
    #[arg(long, env = "FINANCING_NATS_CREDENTIALS")]
    pub nats_credentials: Option<PathBuf>,
    /// A file of certificates (PEM) that the server's is checked against, beside the system's
    #[arg(long, env = "FINANCING_NATS_CA")]
    pub nats_ca: Option<PathBuf>,
    /// A certificate (PEM) to show to the server
    #[arg(long, env = "FINANCING_NATS_CERTIFICATE")]
    pub nats_certificate: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, env = "FINANCING_NATS_KEY")]
    pub nats_key: Option<PathBuf>,
    /// Whether to refuse a connection without TLS
    #[arg(
        long,
        env = "FINANCING_NATS_TLS",
        default_value_t = false,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub nats_tls: bool,
}

/// How the streams are to be.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Streams")]
pub struct StreamSettings {
    /// On how many servers each stream is kept; applies when a stream is made
    #[arg(long, env = "FINANCING_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
    /// For how many seconds the streams remember message ids; nothing here depends on it
    #[arg(long, env = "FINANCING_NATS_DUPLICATE_WINDOW", default_value = "120", value_parser = seconds)]
    pub nats_duplicate_window: Duration,
    /// How many bytes of commands may wait; more are refused
    #[arg(long, env = "FINANCING_QUEUE_BYTES", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 40))]
    pub queue_bytes: u64,
}

/// Where the command side's database is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct CommandDatabase {
    /// The event log's database: postgres://user:password@host:port/name?sslmode=verify-full&sslrootcert=..
    #[arg(long, env = "FINANCING_COMMAND_DATABASE_URL", hide_env_values = true, hide_default_value = true)]
    pub command_database_url: Option<Secret>,
    /// How many connections to it at most
    #[arg(long, env = "FINANCING_COMMAND_DATABASE_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub command_database_connections: u32,
}

/// Where the query side's database is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct QueryDatabase {
    /// The read models' database: postgres://user:password@host:port/name?sslmode=verify-full&sslrootcert=..
    #[arg(long, env = "FINANCING_QUERY_DATABASE_URL", hide_env_values = true, hide_default_value = true)]
    pub query_database_url: Option<Secret>,
    /// How many connections to it at most
    #[arg(long, env = "FINANCING_QUERY_DATABASE_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub query_database_connections: u32,
}

/// What every distributed program has.
#[derive(Debug, Clone, Args)]
pub struct CommonSettings {
    /// The number of partitions; fixed when the deployment is created
    #[arg(long, env = "FINANCING_PARTITIONS", default_value = "16", value_parser = partitions)]
    pub partitions: PartitionCount,
    /// How long a stop waits for calls under way, in seconds
    #[arg(long, env = "FINANCING_GRACE_SECONDS", default_value = "10", value_parser = seconds)]
    pub grace_seconds: Duration,
    /// How to reach NATS
    #[command(flatten)]
    pub nats: NatsSettings,
    /// How the streams are to be
    #[command(flatten)]
    pub streams: StreamSettings,
    /// How to log
    #[command(flatten)]
    pub log: LogSettings,
    /// Where else settings come from
    #[command(flatten)]
    pub file: FileSettings,
    /// What is told to whom
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Where a process answers that serves nothing but health.
#[derive(Debug, Clone, Args)]
pub struct HealthAddress {
    /// Where health is answered by a process that serves nothing else: host:port; port 0 takes a free one
    #[arg(long, env = "FINANCING_HEALTH_ADDR", default_value = "127.0.0.1:0", value_parser = bind_address)]
    pub health_addr: SocketAddr,
}

/// Where a process is looked after.
#[derive(Debug, Clone, Args)]
pub struct AdminAddress {
    /// Where the process is looked after, by whoever reaches it: host:port; port 0 takes a free one
    #[arg(long, env = "FINANCING_ADMIN_ADDR", default_value = "127.0.0.1:0", value_parser = bind_address)]
    pub admin_addr: SocketAddr,
}

const LONG: &str = "Settings come from flags, else from the environment, else from the file named by --config, else the \
                    defaults below. The process waits for NATS and PostgreSQL to come up, prints where it answers once it is \
                    ready, and stops gracefully at SIGTERM or ctrl-c; a second signal aborts.";

/// The settings of `commandsd`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "commandsd",
    version,
    about = "The command side: listener, worker and policies, or any of them",
    after_long_help = LONG
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct CommandsSettings {
    /// Run the listener: takes commands and integration events over gRPC. Needs no database
    #[arg(long)]
    pub listener: bool,
    /// Run a worker: turns commands into facts
    #[arg(long)]
    pub worker: bool,
    /// Run the policies: the saga's commands follow from facts, and registrations are taken from NATS
    #[arg(long)]
    pub policies: bool,
    /// Run none of these but the admin door: to look after the queue when everybody who reads it has halted
    #[arg(long)]
    pub admin: bool,
    /// Where the listener takes commands: host:port
    #[arg(long, env = "FINANCING_COMMAND_ADDR", default_value = "127.0.0.1:8080", value_parser = bind_address)]
    pub command_addr: SocketAddr,
    /// Where health is answered without a listener
    #[command(flatten)]
    pub health: HealthAddress,
    /// Where a process that has the event log is looked after
    #[command(flatten)]
    pub admin_address: AdminAddress,
    /// Where the event log is
    #[command(flatten)]
    pub database: CommandDatabase,
    /// What every program has
    #[command(flatten)]
    pub common: CommonSettings,
}

/// Which parts of the command side a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandParts {
    /// The listener.
    pub listener: bool,
    /// A worker.
    pub worker: bool,
    /// The policies, and the importer of registrations.
    pub policies: bool,
}

impl CommandsSettings {
    /// Those that are named, or all where none is. The admin door is no part.
    #[must_use]
    pub fn parts(&self) -> CommandParts {
        let none = !(self.listener || self.worker || self.policies || self.admin);
        CommandParts {
            listener: none || self.listener,
            worker: none || self.worker,
            policies: none || self.policies,
        }
    }
}

impl CommandParts {
    /// A listener has many clients, and two parts may each have something to do; one part alone does one thing after another.
    #[must_use]
    pub const fn threads(self) -> Threads {
        match (self.listener, self.worker, self.policies) {
            (false, true, false) | (false, false, _) => Threads::One,
            (true, _, _) | (false, true, true) => Threads::EachCore,
        }
    }
}

/// The settings of `relayerd`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "relayerd",
    version,
    about = "The relayer: carries the event log to the bus, in order, every 100 ms or when woken",
    after_long_help = LONG
)]
pub struct RelayerSettings {
    /// Where health is answered
    #[command(flatten)]
    pub health: HealthAddress,
    /// Where the event log is
    #[command(flatten)]
    pub database: CommandDatabase,
    /// What every program has
    #[command(flatten)]
    pub common: CommonSettings,
}

/// The settings of `queryprojectord`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "queryprojectord",
    version,
    about = "The projector: folds the bus into the read models",
    after_long_help = LONG
)]
pub struct ProjectorSettings {
    /// Where health is answered
    #[command(flatten)]
    pub health: HealthAddress,
    /// Where it is looked after
    #[command(flatten)]
    pub admin_address: AdminAddress,
    /// Where the read models are
    #[command(flatten)]
    pub database: QueryDatabase,
    /// What every program has
    #[command(flatten)]
    pub common: CommonSettings,
}

/// The settings of `queriesd`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "queriesd",
    version,
    about = "The query service: answers queries from the read models, and streams the bus",
    after_long_help = LONG
)]
pub struct QueriesSettings {
    /// Where queries are answered: host:port
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = bind_address)]
    pub query_addr: SocketAddr,
    /// Where the read models are
    #[command(flatten)]
    pub database: QueryDatabase,
    /// What every program has
    #[command(flatten)]
    pub common: CommonSettings,
}

#[cfg(test)]
mod tests {
    use super::super::config::read;
    use super::*;

    fn commandsd(arguments: &[&str]) -> Result<CommandsSettings, String> {
        let arguments = ["commandsd"].iter().chain(arguments).map(std::ffi::OsString::from).collect();
        read(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn who_names_no_part_runs_all_of_them() {
        let parts = commandsd(&[]).unwrap().parts();
        assert_eq!(parts, CommandParts { listener: true, worker: true, policies: true });
        let parts = commandsd(&["--worker", "--policies"]).unwrap().parts();
        assert_eq!(parts, CommandParts { listener: false, worker: true, policies: true });
        let parts = commandsd(&["--admin"]).unwrap().parts();
        assert_eq!(parts, CommandParts { listener: false, worker: false, policies: false });
    }

    #[test]
    fn who_does_one_thing_after_another_computes_with_one_thread() {
        for (arguments, threads) in [
            (["--worker"].as_slice(), Threads::One),
            (&["--policies"], Threads::One),
            (&["--admin"], Threads::One),
            (&["--worker", "--policies"], Threads::EachCore),
            (&["--listener"], Threads::EachCore),
            (&[], Threads::EachCore),
        ] {
            assert_eq!(commandsd(arguments).unwrap().parts().threads(), threads, "{arguments:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let settings = commandsd(&[
            "--nats-token=hidden1",
            "--nats-url=nats://user:hidden2@host:4222",
            "--command-database-url=postgres://user:hidden3@host/log",
        ])
        .unwrap();
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hidden"), "{shown}");
        assert_eq!(settings.common.nats.nats_token.unwrap().reveal(), "hidden1");
    }

    #[test]
    fn tls_is_a_switch_or_a_value() {
        assert!(!commandsd(&[]).unwrap().common.nats.nats_tls);
        assert!(commandsd(&["--nats-tls"]).unwrap().common.nats.nats_tls);
        assert!(!commandsd(&["--nats-tls=false"]).unwrap().common.nats.nats_tls);
    }
}
