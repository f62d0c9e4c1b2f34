//! `financing watch` over a platform that goes away and comes back: every state once, and the right exit code.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::harness::{Home, Platform, eur, in_time};

/// An address that stays, as a load balancer's does, whatever port the platform behind it has.
struct Door {
    address: String,
    behind: Arc<Mutex<String>>,
}

impl Door {
    async fn to(platform: &Platform) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind = Arc::new(Mutex::new(String::new()));
        let leads_to = Arc::clone(&behind);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let address = leads_to.lock().unwrap().clone();
                tokio::spawn(async move {
                    // Where nobody answers, the client is hung up on.
                    if let Ok(mut platform) = TcpStream::connect(address).await {
                        let _either_has_gone =
                            tokio::io::copy_bidirectional(&mut client, &mut platform).await;
                    }
                });
            }
        });
        let door = Self { address, behind };
        door.leads_to(platform);
        door
    }

    fn leads_to(&self, platform: &Platform) {
        platform.query_address.trim_start_matches("http://").clone_into(&mut self.behind.lock().unwrap());
    }
}

/// A watch that runs.
struct Watch {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    errors: BufReader<ChildStderr>,
    /// What it was told of each, in that order.
    invoice: Vec<String>,
    bid: Vec<String>,
}

impl Watch {
    fn begin(door: &Door, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
        command
            .env_clear()
            .env("FINANCING_QUERY_ADDR", &door.address)
            .arg("watch")
            .args(arguments)
            .arg("--json");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let errors = BufReader::new(process.stderr.take().unwrap());
        Self { process, output, errors, invoice: Vec::new(), bid: Vec::new() }
    }

    /// The next object; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let line = in_time("the watch says something", self.output.next_line()).await.unwrap()?;
        let object: Value = serde_json::from_str(&line).unwrap();
        let status = |what: &str| object[what]["status"].as_str().map(ToOwned::to_owned);
        self.invoice.extend(status("invoice"));
        self.bid.extend(status("bid"));
        Some(object)
    }

    /// Reads until both stand there.
    async fn until(&mut self, invoice: &str, bid: &str) {
        let stands = |states: &[String], state: &str| states.last().is_some_and(|last| last == state);
        while !(stands(&self.invoice, invoice) && (bid.is_empty() || stands(&self.bid, bid))) {
            assert!(self.next().await.is_some(), "it goes on: {:?} {:?}", self.invoice, self.bid);
        }
    }

    /// The next line that is for people.
    async fn is_told(&mut self) -> String {
        let mut line = String::new();
        in_time("people are told", self.errors.read_line(&mut line)).await.unwrap();
        line
    }

    /// Its exit code, and what else it had to say to people.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        in_time("it says all", self.errors.read_to_string(&mut told)).await.unwrap();
        (in_time("it ends", self.process.wait()).await.unwrap().code(), told)
    }
}

#[tokio::test]
async fn a_watch_sees_every_state_once_whatever_becomes_of_the_platform() {
    // given
    let platform = Platform::start_in(Home::new(), &[]).await;
    let door = Door::to(&platform).await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;
    let mut watch = Watch::begin(&door, &[&invoice]);
    watch.until("AVAILABLE", "").await;

    // when it is killed, and the invoice is financed before the watch finds it again
    let platform = Platform::start_in(platform.kill().await, &[]).await;
    let first = watch.is_told().await;
    platform.bid(&investor, &invoice, eur(60, 0)).await.unwrap();
    door.leads_to(&platform);
    watch.until("FINANCED", "WON").await;

    // and asked to stop
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0), "a watch holds up nobody's end");
    let second = watch.is_told().await;
    let platform = Platform::start_in(home, &[]).await;
    door.leads_to(&platform);
    platform.approve(&invoice).await.unwrap();
    watch.until("APPROVED", "COMMITTED").await;

    // then
    assert!(watch.next().await.is_none(), "it has settled");
    assert_eq!(watch.ended().await, (Some(0), String::new()), "one line each time, and no more");
    for line in [first, second] {
        assert!(line.ends_with(": the watch goes on as soon as the platform answers\n"), "{line}");
    }
    assert_eq!(watch.invoice, ["AVAILABLE", "FINANCED", "APPROVED"]);
    // That it was placed may have been over before it was seen.
    let way = ["PLACED", "WON", "COMMITTED"];
    let seen: Vec<&str> = watch.bid.iter().map(String::as_str).collect();
    assert!(seen == way || seen == way[1..], "{seen:?}");
}

#[tokio::test]
async fn a_watch_waits_for_a_platform_as_long_as_it_was_told_to() {
    // given
    let platform = Platform::start_in(Home::new(), &[]).await;
    let door = Door::to(&platform).await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;
    let bid = platform.bid(&investor, &invoice, eur(60, 0)).await.unwrap();
    let bid = platform.bid_at(&bid.id, &bid.token).await.id;
    let mut watch = Watch::begin(&door, &[&bid, "--timeout", "3s"]);
    watch.next().await.unwrap();

    // when
    let _home = platform.kill().await;

    // then
    let told = watch.is_told().await;
    assert!(told.contains("the watch goes on as soon as"), "{told}");
    let mut said = Vec::new();
    while let Some(object) = watch.next().await {
        said.push(object);
    }
    let (code, told) = watch.ended().await;
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("within 3s"), "{told}");
    assert_eq!(said.last().unwrap()["error"]["kind"], "FAILED", "{said:?}");
    assert_eq!(watch.bid.iter().collect::<BTreeSet<_>>().len(), watch.bid.len(), "{:?}", watch.bid);
}
