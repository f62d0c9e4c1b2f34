//! What an error of `SQLite` means to a port.
//!
//! The rule this module protects: whether an error says retry, refuse or stop is decided in one place.

use std::fmt;
use std::path::PathBuf;

use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::PortError;
use uuid::Uuid;

/// Primary result codes, from <https://www.sqlite.org/rescode.html>.
mod code {
    /// A statement that does not fit the tables: no retry makes it fit.
    pub(super) const ERROR: u32 = 1;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const TOO_BIG: u32 = 18;
    pub(super) const CONSTRAINT: u32 = 19;
    pub(super) const MISMATCH: u32 = 20;
    pub(super) const RANGE: u32 = 25;
    pub(super) const NOT_A_DATABASE: u32 = 26;
    /// Extended: a unique key, a primary key, a row id that is there already, a trigger that refuses.
    pub(super) const UNIQUE: [u32; 3] = [2067, 1555, 2579];
    pub(super) const TRIGGER: u32 = 1811;
}

/// A command id that another transaction stored first is a race that the worker can lose; every other key of ours
/// is numbered under the partition's row, so a duplicate there means that an invariant does not hold.
const RACED: &str = "inbox.command_id";

/// What the error says to whoever called the port.
pub(super) fn port_error(error: &sqlx::Error) -> PortError {
    let text = error.to_string();
    if let sqlx::Error::Database(database) = error {
        let extended = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        return classify(extended, database.message(), text);
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

fn classify(extended: u32, message: &str, text: String) -> PortError {
    match extended & 0xff {
        code::FULL => PortError::Full(text),
        code::ERROR | code::CORRUPT | code::NOT_A_DATABASE => PortError::Broken(text),
        code::CONSTRAINT if code::UNIQUE.contains(&extended) => {
            if message.contains(RACED) {
                PortError::Conflict(text)
            } else {
                PortError::Broken(format!("a key that only the partition's owner numbers is taken: {text}"))
            }
        }
        code::CONSTRAINT if extended == code::TRIGGER => PortError::Broken(text),
        code::CONSTRAINT | code::TOO_BIG | code::MISMATCH | code::RANGE => PortError::Content(text),
        _ => PortError::Unavailable(text),
    }
}

/// A number that no column can hold.
pub(super) fn too_large(what: impl fmt::Display) -> PortError {
    PortError::Content(format!("{what} is out of range"))
}

/// Why a store was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The directory cannot be written.
    Io {
        /// Which directory.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// Another process has the directory.
    Locked {
        /// Which directory.
        directory: PathBuf,
        /// The process that has it, where it is known.
        holder: Option<u32>,
    },
    /// `SQLite` does not run as it was asked to.
    Setting {
        /// The setting.
        name: &'static str,
        /// What was asked.
        asked: String,
        /// What it is.
        found: String,
    },
    /// The file was made for another number of partitions.
    Partitions {
        /// Which file.
        path: PathBuf,
        /// The number in the file.
        stored: String,
        /// The number configured.
        asked: PartitionCount,
    },
    /// The file was made by another release, or for other tables.
    Schema {
        /// Which file.
        path: PathBuf,
        /// What is in the file.
        stored: String,
        /// What this release knows.
        asked: String,
    },
    /// The file belongs to another deployment.
    Deployment {
        /// Which file.
        path: PathBuf,
        /// The deployment in the file.
        stored: String,
        /// The deployment asked for.
        asked: Uuid,
    },
    /// There is no platform in the directory.
    Missing {
        /// The file that is not there.
        path: PathBuf,
    },
    /// There is a platform in the directory already.
    Taken {
        /// The file that is there.
        path: PathBuf,
    },
    /// An import into the directory was begun, and has not ended.
    Unfinished {
        /// What it has written so far.
        path: PathBuf,
    },
    /// `SQLite` failed.
    Store {
        /// Which file.
        path: PathBuf,
        /// What it says.
        reason: PortError,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Locked { directory, holder: Some(holder) } => {
                write!(f, "the data directory {} is in use by process {holder}", directory.display())
            }
            Self::Locked { directory, holder: None } => {
                write!(f, "the data directory {} is in use by another process", directory.display())
            }
            Self::Setting { name, asked, found } => {
                write!(f, "SQLite was asked for {name} = {asked}, but it is {found}")
            }
            Self::Partitions { path, stored, asked } => write!(
                f,
                "{} was created with {stored} partitions, but {asked} are configured; the number is fixed when a \
                 deployment is created",
                path.display()
            ),
            Self::Schema { path, stored, asked } => {
                write!(f, "{} has schema {stored}, this release knows {asked}", path.display())
            }
            Self::Deployment { path, stored, asked } => {
                write!(f, "{} belongs to deployment {stored}, not to {asked}", path.display())
            }
            Self::Missing { path } => write!(f, "{}: there is no such file", path.display()),
            Self::Taken { path } => write!(
                f,
                "{} is there already, and an import never adds to what is there: name a directory without a platform in it",
                path.display()
            ),
            Self::Unfinished { path } => write!(
                f,
                "an import into this directory was begun and has not ended: run `financing import` again, or delete {}*",
                path.display()
            ),
            Self::Store { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}
