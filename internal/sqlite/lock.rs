//! One process a directory.
//!
//! The rule this module protects: nobody writes a data directory that another process is writing. What is remembered
//! in memory is only right as long as that holds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// The name of the lock file in the directory.
const LOCK_FILE: &str = "lock";

/// A directory that belongs to this process until the value is dropped, or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: PathBuf,
    /// Holds the operating system's lock.
    _file: File,
}

impl DirectoryLock {
    /// Takes the directory, which is made where there is none.
    ///
    /// # Errors
    ///
    /// When another process, or this one, holds it already, or the directory cannot be written.
    pub fn acquire(directory: &Path) -> Result<Self, OpenError> {
        let io =
            |error: std::io::Error| OpenError::Io { path: directory.to_owned(), reason: error.to_string() };
        fs::create_dir_all(directory).map_err(io)?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(directory.join(LOCK_FILE))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The name of the holder is a courtesy: without it the refusal stands.
                let _read = file.read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().ok();
                return Err(OpenError::Locked { directory: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { directory: directory.to_owned(), _file: file })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
