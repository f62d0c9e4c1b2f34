//! Thousands of connections at once that want nothing, or nothing that can be understood.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long one who connects waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// What no protocol knows.
const GARBAGE: [u8; 512] = {
    let mut garbage = [0; 512];
    let mut at = 0;
    let mut byte: u8 = 0xa5;
    while at < garbage.len() {
        garbage[at] = byte;
        byte = byte.wrapping_mul(37).wrapping_add(113);
        at += 1;
    }
    garbage
};

/// Files that the clients, the proxies and the log leave to a storm: their number is limited in a process.
const OTHERS: usize = 600;

/// How many connections this process can make at once besides all that it has.
fn affordable() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux has /proc");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|limits| limits.split_whitespace().next()).expect("files are limited");
    soft.parse().map_or(usize::MAX, |files: usize| files.saturating_sub(OTHERS))
}

/// Makes so many connections at once, or as many as this process may, says garbage where that is wanted, and lets go of them after this time. Answers with how many
/// were made.
pub(crate) async fn blow(address: &str, connections: usize, garbage: bool, lasts: Duration) -> usize {
    let connect = async || {
        let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()?;
        if garbage {
            // (Who is hung up on has said enough.)
            let _heard = timeout(PATIENCE, stream.write_all(&GARBAGE)).await;
        }
        Some(stream)
    };
    let made: Vec<TcpStream> =
        join_all((0..connections.min(affordable())).map(|_| connect())).await.into_iter().flatten().collect();
    sleep(lasts).await;
    made.len()
}
