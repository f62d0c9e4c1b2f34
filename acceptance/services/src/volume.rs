//! A small disk for one server of one test, so that it can be full.
//!
//! The rule this module protects: **a full disk is that server's alone.** Nothing else on the machine runs out of room, and what was
//! stored is there when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// A file system of its own, in memory. It is unmounted when it is dropped.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    bytes: u64,
}

/// What may still be written to a volume that was filled, at most: the size of a file system counts in pages.
const PAGE: u64 = 4096;

impl Volume {
    /// Mounts one of this size over an empty folder.
    ///
    /// # Errors
    ///
    /// What `mount` said: it takes an administrator, and a system that lets him.
    ///
    /// # Panics
    ///
    /// When `mount` cannot be started.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "financing-test"])
            .arg(path)
            .output()
            .expect("mount can be started");
        if mounted.status.success() {
            return Ok(Self { path: path.to_owned(), bytes });
        }
        Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
    }

    /// Whether a volume can be mounted here at all.
    ///
    /// # Errors
    ///
    /// Why not.
    ///
    /// # Panics
    ///
    /// When there is no room for a temporary folder.
    pub fn possible() -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::mount(folder.path(), 16 * PAGE).map(drop)
    }

    /// From now on not a byte more has room.
    ///
    /// # Panics
    ///
    /// When it cannot be asked or told.
    pub fn fill(&self) {
        let used = run(Command::new("df").args(["-B1", "--output=used"]).arg(&self.path));
        let used: u64 =
            used.lines().last().and_then(|line| line.trim().parse().ok()).expect("df says a number");
        // What is written meanwhile would make it too small for its content, which is refused.
        for more in [PAGE, 64 * PAGE, 1024 * PAGE] {
            if self.resize(used.max(PAGE) + more) {
                return;
            }
        }
        panic!("{} cannot be filled", self.path.display());
    }

    /// It is as large again as it was.
    ///
    /// # Panics
    ///
    /// When it cannot be told.
    pub fn free(&self) {
        assert!(self.resize(self.bytes), "{} cannot be freed", self.path.display());
    }

    fn resize(&self, bytes: u64) -> bool {
        let resized = Command::new("mount")
            .args(["-o", &format!("remount,size={bytes}")])
            .arg(&self.path)
            .output()
            .expect("mount can be started");
        resized.status.success()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // (Lazily: whoever still has a file open there is about to go.)
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        let gone = unmounted.is_ok_and(|status| status.success());
        if !gone {
            eprintln!("{} stays mounted", self.path.display());
        }
    }
}

/// Mounts a volume of this size over a new folder, where one is wanted.
pub(crate) fn over(folder: &Path, bytes: Option<u64>) -> Option<Volume> {
    let bytes = bytes?;
    fs::create_dir(folder).expect("the services' folder can be written");
    Some(Volume::mount(folder, bytes).unwrap_or_else(|why| panic!("{}: {why}", folder.display())))
}
