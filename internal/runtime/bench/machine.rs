//! What a run was made on.
//!
//! The rule this module protects: a number without its machine says nothing, so it is never without; and what is not known is left
//! out.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;

use serde::Serialize;

/// The machine of the load generator, which is the platform's where they are run on one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Machine {
    /// The processor's name.
    pub(super) processor: Option<String>,
    /// How many cores this process may use.
    pub(super) cores: Option<usize>,
    /// In bytes.
    pub(super) memory_bytes: Option<u64>,
    /// The operating system and its version.
    pub(super) system: String,
}

impl Machine {
    /// This one.
    pub(super) fn of(proc: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
        let release = read("sys/kernel/osrelease");
        Self {
            processor: named(&read("cpuinfo"), "model name").map(str::to_owned),
            cores: available_parallelism().ok().map(NonZeroUsize::get),
            memory_bytes: named(&read("meminfo"), "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kibibytes| kibibytes.saturating_mul(1024)),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
        }
    }
}

/// How many wanted to run on average during the last minute, as the kernel says it.
pub(super) fn load(proc: &Path) -> Option<String> {
    let text = fs::read_to_string(proc.join("loadavg")).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

/// The kind of file system that a file is on.
pub(super) fn file_system(proc: &Path, file: &Path) -> Option<String> {
    let mounts = fs::read_to_string(proc.join("mounts")).ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let around = mounts.filter(|(place, _)| file.starts_with(place));
    // Of two mounts in one place the later hides the earlier.
    around.max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind.to_owned())
}

/// What a line `name : value` says.
fn named<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_what_the_kernel_says() {
        let proc = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(proc.path().join("sys/kernel")).unwrap();
        let write = |file: &str, text: &str| fs::write(proc.path().join(file), text).unwrap();
        write("cpuinfo", "processor\t: 0\nmodel name\t: A Fast One\n");
        write("meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n");
        write("sys/kernel/osrelease", "6.1.0\n");
        write("loadavg", "0.25 0.30 0.35 1/2 3\n");
        write("mounts", "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n");
        let machine = Machine::of(proc.path());
        assert_eq!(machine.processor.as_deref(), Some("A Fast One"));
        assert_eq!(machine.memory_bytes, Some(2 * 1024 * 1024));
        assert!(machine.system.ends_with("6.1.0"), "{}", machine.system);
        assert_eq!(load(proc.path()).as_deref(), Some("0.25"));
        let on = |file: &str| file_system(proc.path(), Path::new(file)).unwrap();
        assert_eq!((on("/tmp/data/platform.db"), on("/tmpx")), ("tmpfs".to_owned(), "ext4".to_owned()));
    }

    #[test]
    fn where_nothing_is_told_nothing_is_made_up() {
        let nothing = tempfile::TempDir::new().unwrap();
        let machine = Machine::of(nothing.path());
        assert_eq!((machine.processor, machine.memory_bytes), (None, None));
        assert_eq!(load(nothing.path()), None);
    }
}
