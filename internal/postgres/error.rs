//! What an error of PostgreSQL means to a port.
//!
//! The rule this module protects: whether an error says retry, refuse or stop is decided in one place.

use std::fmt;

use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::PortError;
use uuid::Uuid;

/// SQLSTATEs, from <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
mod code {
    pub(super) const UNIQUE_VIOLATION: &str = "23505";
    pub(super) const DISK_FULL: &str = "53100";
    pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// There is none that this role may see.
    pub(super) const NO_SCHEMA: &str = "3F000";
    pub(super) const DATA_CORRUPTED: &str = "XX001";
    pub(super) const INDEX_CORRUPTED: &str = "XX002";
}

/// A command id that another transaction stored first is a race that the worker can lose; every other key of ours
/// is numbered under the partition's row, so a duplicate there means that an invariant does not hold.
const RACED: &str = "inbox_pkey";

/// What the error says to whoever called the port.
pub(super) fn port_error(error: &sqlx::Error) -> PortError {
    let text = error.to_string();
    if let sqlx::Error::Database(database) = error {
        return classify(database.code().as_deref().unwrap_or_default(), database.constraint(), &text);
    }
    if matches!(
        error,
        sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
    ) {
        return PortError::Broken(format!("what is stored cannot be read: {text}"));
    }
    if matches!(error, sqlx::Error::Encode(_)) {
        return PortError::Content(text);
    }
    PortError::Unavailable(text)
}

fn classify(code: &str, constraint: Option<&str>, text: &str) -> PortError {
    let text = format!("{text} ({code})");
    match code {
        code::UNIQUE_VIOLATION if constraint == Some(RACED) => PortError::Conflict(text),
        code::UNIQUE_VIOLATION => {
            PortError::Broken(format!("a key that only the partition's owner numbers is taken: {text}"))
        }
        code::DISK_FULL => PortError::Full(text),
        code::DATA_CORRUPTED | code::INDEX_CORRUPTED => PortError::Broken(text),
        _ => match class(code) {
            // Data exceptions (a text with U+0000, a sum that is out of range), a limit of the server's (an index
            // entry that is too long, say), a constraint: no retry makes it fit.
            "22" | "23" | "54" => PortError::Content(text),
            // A statement that does not fit the tables, a right that is not granted, a trigger that refuses.
            "0A" | "21" | "42" | "P0" => PortError::Broken(text),
            // Connections, transactions, locks, resources, shutdowns, timeouts; a server that became a standby
            // (25006); and whatever else there is.
            _ => PortError::Unavailable(text),
        },
    }
}

fn class(code: &str) -> &str {
    code.get(..2).unwrap_or_default()
}

/// Whether the connection is as good as before: the statement failed, and nothing else.
pub(super) fn leaves_connection_alone(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return matches!(error, sqlx::Error::Encode(_));
    };
    let code = database.code();
    let class = class(code.as_deref().unwrap_or_default());
    ["22", "23", "54", "42", "P0", "0A", "21", "40", "55"].contains(&class)
        || code.as_deref() == Some("57014")
}

/// Whether a server that says this when somebody connects means it. It does not where it starts up or shuts down, has no connection or no
/// room left, or fails itself: one whose disk is full cannot write down what it has cached, and calls that an internal error (XX000).
fn is_meant(code: &str) -> bool {
    let corrupted = [code::DATA_CORRUPTED, code::INDEX_CORRUPTED].contains(&code);
    corrupted || !["08", "53", "57", "58", "XX"].contains(&class(code))
}

/// A number that no column can hold.
pub(super) fn too_large(what: impl fmt::Display) -> PortError {
    PortError::Content(format!("{what} is out of range"))
}

/// Why a database was not opened. None of them says a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL is none, or says something that is not known.
    #[error("the database's URL is wrong: {reason}")]
    Url {
        /// What is wrong.
        reason: String,
    },
    /// The server is not there (yet), or takes no connection now.
    #[error("{database} cannot be reached: {reason}")]
    Unreachable {
        /// Which database.
        database: String,
        /// What was seen.
        reason: String,
    },
    /// The server is there and says no: a wrong password, no such database, a certificate that does not fit.
    #[error("{database} refuses the connection: {reason}")]
    Refused {
        /// Which database.
        database: String,
        /// What it says.
        reason: String,
    },
    /// The server is too old.
    #[error("{database} is PostgreSQL {found}, but {asked} is the oldest that will do")]
    Version {
        /// Which database.
        database: String,
        /// What it is.
        found: u32,
        /// What it must be at least.
        asked: u32,
    },
    /// The server would lose what it has acknowledged.
    #[error("{database} runs with {name} = {found}: it would lose what it has acknowledged; it must be on")]
    Setting {
        /// Which database.
        database: String,
        /// The setting.
        name: &'static str,
        /// What it is.
        found: String,
    },
    /// The tables of this release are not there (yet), and this role may not make them.
    #[error(
        "{database} is not prepared ({reason}): run `financing migrate`, and scripts/roles.sql, as its owner"
    )]
    Unprepared {
        /// Which database.
        database: String,
        /// What is missing.
        reason: String,
    },
    /// There is something in the event log already.
    #[error(
        "{database} has {found} already, and an import never adds to what is there: make an empty database for it"
    )]
    Taken {
        /// Which database.
        database: String,
        /// What was found.
        found: &'static str,
    },
    /// Somebody works with it.
    #[error(
        "{database} is in use: {members} of its workers, policies and relayers run. Stop all processes of the platform first"
    )]
    Running {
        /// Which database.
        database: String,
        /// How many say that they live.
        members: u64,
    },
    /// An import into it was begun, and has not ended.
    #[error(
        "an import into {database} was begun and has not ended, so nobody may work with it: run `financing import` again, or drop the \
         database"
    )]
    Unfinished {
        /// Which database.
        database: String,
    },
    /// This role may not do it.
    #[error("{database}: only the owner of its tables may import into it, as with `financing migrate`")]
    NotTheOwner {
        /// Which database.
        database: String,
    },
    /// No projector has ever written here, so nobody knows whose facts these would be.
    #[error("no projector has begun in {database} yet")]
    NotBegun {
        /// Which database.
        database: String,
    },
    /// The tables were made by a newer release, or by other migrations.
    #[error("{database} has {stored}, this release knows {asked}")]
    Schema {
        /// Which database.
        database: String,
        /// What is there.
        stored: String,
        /// What this release knows.
        asked: String,
    },
    /// The read models were made for other tables.
    #[error(
        "the read models in {database} are {stored}, this release has {asked}: they have to be built anew, in \
         an empty database"
    )]
    ReadModels {
        /// Which database.
        database: String,
        /// What is there.
        stored: String,
        /// What this release has.
        asked: String,
    },
    /// The database was made for another number of partitions.
    #[error(
        "{database} was created with {stored} partitions, but {asked} are configured; the number is fixed when \
         a deployment is created"
    )]
    Partitions {
        /// Which database.
        database: String,
        /// The number in the database.
        stored: i32,
        /// The number configured.
        asked: PartitionCount,
    },
    /// The database belongs to another deployment.
    #[error("{database} belongs to deployment {stored}, not to {asked}")]
    Deployment {
        /// Which database.
        database: String,
        /// The deployment in the database.
        stored: Uuid,
        /// The deployment asked for.
        asked: Uuid,
    },
    /// PostgreSQL failed.
    #[error("{database}: {reason}")]
    Store {
        /// Which database.
        database: String,
        /// What it says.
        reason: PortError,
    },
}

impl OpenError {
    /// Whether it may be otherwise in a moment, with nobody having changed the configuration.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unprepared { .. } | Self::NotBegun { .. } => true,
            Self::Store { reason, .. } => match reason {
                PortError::Unavailable(_) | PortError::Conflict(_) | PortError::Full(_) => true,
                PortError::Content(_) | PortError::Broken(_) => false,
            },
            Self::Url { .. }
            | Self::Refused { .. }
            | Self::Version { .. }
            | Self::Setting { .. }
            | Self::Schema { .. }
            | Self::ReadModels { .. }
            | Self::Taken { .. }
            | Self::Running { .. }
            | Self::Unfinished { .. }
            | Self::NotTheOwner { .. }
            | Self::Partitions { .. }
            | Self::Deployment { .. } => false,
        }
    }

    /// The error of a connection that was not made.
    pub(super) fn connecting(database: &str, error: &sqlx::Error) -> Self {
        let (database, reason) = (database.to_owned(), error.to_string());
        let refused = match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
            Some(code) => is_meant(&code),
            // A certificate that does not fit comes as data that is invalid.
            None => {
                matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Configuration(_))
                    || matches!(error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData)
            }
        };
        if refused { Self::Refused { database, reason } } else { Self::Unreachable { database, reason } }
    }

    /// The error of a statement of ours, on the way to opening the database.
    pub(super) fn preparing(database: &str, error: &sqlx::Error) -> Self {
        let database = database.to_owned();
        if let sqlx::Error::Database(refusal) = error
            && let Some(code::INSUFFICIENT_PRIVILEGE | code::NO_SCHEMA) = refusal.code().as_deref()
        {
            return Self::Unprepared { database, reason: refusal.message().to_owned() };
        }
        Self::Store { database, reason: port_error(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_is_meant_ends_who_connects() {
        // A wrong password, no such database, no right to connect; a page that cannot be read.
        for code in ["28P01", "3D000", "42501", "XX001", "XX002"] {
            assert!(is_meant(code), "{code}");
        }
        // Starting up, no connection left, no room left, a file that cannot be written, and what is said where that was the reason.
        for code in ["57P03", "53300", "53100", "58030", "XX000", "08006"] {
            assert!(!is_meant(code), "{code}");
        }
    }
}
