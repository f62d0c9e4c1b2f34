//! One database of PostgreSQL, made for one test.
//!
//! The rule this module protects: **a test's database is its own, and goes with it**, also when the test fails while
//! connections are open.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Login, run};

/// An empty database, owned by the role `financing`. It is dropped with the value, whoever is still connected; or it goes
/// with its server, where that is the test's own.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: Server,
    /// Whether its server stays up for others.
    outlived: bool,
}

/// What it takes to reach PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) psql: PathBuf,
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) owner: Login,
    pub(crate) superuser: Login,
}

impl Database {
    /// On a server that outlives it, or on one that it goes with.
    pub(crate) fn create(server: Server, outlived: bool) -> Self {
        // (The kernel's random number, because a process id may come again while a killed test's database is still there.)
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("Linux has random numbers");
        let name = format!("test_{}", random.trim().replace('-', ""));
        // Copying through the log is the quicker of the two strategies here (22 ms against 34 with four at a time): the other
        // one takes two checkpoints. It is said because a version of PostgreSQL may choose otherwise.
        server.psql(
            "postgres",
            &format!("CREATE DATABASE {name} OWNER {} STRATEGY wal_log;", server.owner.user),
        );
        Self { name, server, outlived }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL as which the platform's owner connects: it may create tables, and roles too.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.server.owner, &self.name)
    }

    /// The URL for another role. User and password are taken as they are, so they must not need escaping.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.server.url(&Login { user: user.to_owned(), password: password.to_owned() }, &self.name)
    }

    /// The superuser's URL of this database.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.server.url(&self.server.superuser, &self.name)
    }

    /// Runs SQL (or a script for `psql`) as the superuser; the rows, unadorned: a line each, columns separated by `|`.
    ///
    /// # Panics
    ///
    /// At the first error, with PostgreSQL's message.
    #[expect(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.outlived {
            self.server.psql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", self.name));
        }
    }
}

impl Server {
    fn url(&self, login: &Login, database: &str) -> String {
        let Login { user, password } = login;
        format!("postgres://{user}:{password}@{}/{database}", self.address)
    }

    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let mut input: File = tempfile::tempfile().expect("a temporary file can be made");
        input
            .write_all(sql.as_bytes())
            .and_then(|()| input.rewind())
            .expect("a temporary file can be written");
        // The password goes through the environment, where other users of the machine do not see it.
        let login = Login { user: self.superuser.user.clone(), password: String::new() };
        run(Command::new(&self.psql)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(&login, database))
            .env("PGPASSWORD", &self.superuser.password)
            .stdin(Stdio::from(input)))
    }
}
