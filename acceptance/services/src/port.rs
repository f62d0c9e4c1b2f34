//! Where servers listen, and how long they are waited for.
//!
//! The rule this module protects: **a server that comes back finds its port free**, however many tests run.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Ports for these servers lie below those that the kernel gives to outgoing connections (32768 and up), where one could sit
/// on the port of a server that is just restarting, and beside those of `scripts/services`.
const PORTS: Range<u16> = 10_000..20_000;

/// A server may take half a minute to answer or to end: that many looks, with such a pause between them.
const LOOKS: u32 = 15_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// A port that no other test takes as long as this lives, not even while the server is down.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn free(folder: &Path) -> Self {
        let ports = folder.join("ports");
        fs::create_dir_all(&ports).expect("the services' folder can be written");
        // From a random place on, so that a client that outlived its test does not find another test's server where its own was.
        let random =
            usize::try_from(RandomState::new().build_hasher().finish() % 10_000).expect("it is below 10,000");
        for number in PORTS.cycle().skip(random).take(PORTS.len()) {
            let lock =
                File::create(ports.join(number.to_string())).expect("the services' folder can be written");
            if lock.try_lock().is_ok() && !listens(number) {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port of {PORTS:?} is free");
    }
}

pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Looks until it is so, for half a minute at most; whether it came to be so.
pub(crate) fn within_patience(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if is_so() {
            return true;
        }
        sleep(BETWEEN_LOOKS);
    }
    false
}
