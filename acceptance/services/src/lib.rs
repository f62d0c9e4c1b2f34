//! PostgreSQL and NATS for tests, started by the project's own script (`scripts/services`).
//!
//! The rule this module protects: **every test has its own.** PostgreSQL is shared and stays up for the next run, but each test makes
//! databases of its own; a NATS server is a process of its own, with its own port and its own store, and so is the PostgreSQL of a
//! test that harms it. So tests run side by side, and one that kills a server harms nobody else.
//!
//! # Layout
//!
//! - `lib.rs`: the services as a whole, and how programs are run
//! - `database.rs`: one database, made for one test
//! - `nats.rs`: one NATS server, started for one test; it can be killed and started again
//! - `postgres.rs`: one PostgreSQL server, likewise
//! - `volume.rs`: a small disk for one of them, which can be full
//! - `port.rs`: where they listen, and how it is waited for
//!
//! This crate is for tests: where something does not work it panics and says what the failed program said.
#![expect(clippy::expect_used, clippy::panic, reason = "a test without its services fails, and says why")]

mod database;
mod nats;
mod port;
mod postgres;
mod volume;

pub use database::Database;
pub use nats::NatsServer;
pub use port::Port;
pub use postgres::PostgresServer;
pub use volume::Volume;

use database::Server;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The running services: one PostgreSQL for all tests, and the programs for what a test starts itself.
#[derive(Debug)]
pub struct Services {
    folder: PathBuf,
    nats_url: String,
    command_database_url: String,
    query_database_url: String,
    postgres: Server,
}

/// A role of PostgreSQL and its password.
#[derive(Debug, Clone)]
struct Login {
    user: String,
    password: String,
}

/// The services, which are started when they are asked for the first time and stay up afterwards: `scripts/services down`
/// ends them. They live in the folder that the environment's `FINANCING_SERVICES_DIR` names (relative to the project), and else in
/// `target/services`.
///
/// # Panics
///
/// With what the script said, when it fails.
pub fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(Services::up)
}

impl Services {
    fn up() -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let project = project.canonicalize().expect("the project's folder exists");
        let folder = env::var_os("FINANCING_SERVICES_DIR").filter(|value| !value.is_empty());
        let folder = project.join(folder.map_or_else(|| PathBuf::from("target/services"), PathBuf::from));
        let printed = run(Command::new(project.join("scripts/services")).arg("up").arg("--dir").arg(&folder));

        let setting = |name: &str| {
            let prefix = format!("export {name}=");
            let found = printed.lines().find_map(|line| line.strip_prefix(&prefix));
            found
                .unwrap_or_else(|| panic!("scripts/services up does not print {name}, but: {printed}"))
                .to_owned()
        };
        let nats_url = setting("FINANCING_NATS_URL");
        let command_database_url = setting("FINANCING_COMMAND_DATABASE_URL");
        let query_database_url = setting("FINANCING_QUERY_DATABASE_URL");
        let (owner, address) = parts(&command_database_url);
        let superuser = Login { user: "postgres".to_owned(), password: kept(&folder, "superuser.password") };
        let postgres = Server { psql: folder.join("bin/psql"), address, owner, superuser };
        Self { folder, nats_url, command_database_url, query_database_url, postgres }
    }

    /// A database of its own for one test: empty, owned by the role `financing`, and gone when the value is dropped.
    ///
    /// # Panics
    ///
    /// When PostgreSQL refuses.
    #[must_use]
    pub fn database(&self) -> Database {
        Database::create(self.postgres.clone(), true)
    }

    /// A port for a server that a test kills and starts again where it was.
    ///
    /// # Panics
    ///
    /// When none is free.
    #[must_use]
    pub fn port(&self) -> Port {
        Port::free(&self.folder)
    }

    /// The folder in which the services live, as `scripts/services --dir` takes it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The shared NATS server: `nats://127.0.0.1:PORT`. A test that wants its own streams starts a [`NatsServer`].
    #[must_use]
    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// The owner's URL of the shared database for the event log. A test makes a [`Database`] of its own instead.
    #[must_use]
    pub fn command_database_url(&self) -> &str {
        &self.command_database_url
    }

    /// The owner's URL of the shared database for the read models. A test makes a [`Database`] of its own instead.
    #[must_use]
    pub fn query_database_url(&self) -> &str {
        &self.query_database_url
    }

    /// A program that the script found or installed.
    fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }
}

/// User, password and address of `postgres://user:password@host:port/name`.
fn parts(url: &str) -> (Login, String) {
    let parts = url.strip_prefix("postgres://").and_then(|rest| {
        let (login, place) = rest.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        let (address, _) = place.split_once('/')?;
        Some((Login { user: user.to_owned(), password: password.to_owned() }, address.to_owned()))
    });
    parts.unwrap_or_else(|| panic!("{url} is not postgres://user:password@host:port/name"))
}

fn kept(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// Runs a program to its end; what it printed.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{} ended with {status}: {stderr}", command.get_program().display());
    String::from_utf8(stdout).expect("a program prints UTF-8")
}
