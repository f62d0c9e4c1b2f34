//! Dead letters, as the people see them who look after the platform: a producer has put into the queue what nobody should, and
//! it is found, retried or discarded, once and in order, and stays so.

use async_nats::jetstream;
use eventsourcing::partition::PartitionCount;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::proto::dead_letter_service_client::DeadLetterServiceClient;
use crate::harness::proto::{
    BidStatus, CommandState, DeadLetterResolution, DiscardDeadLetterRequest, GetIssuerRequest,
    RetryDeadLetterRequest,
};
use crate::harness::{Platform, Program, eur, information, json as json_of, reason, uuid, wait};

/// What is no command, and not even text that a terminal should show.
const NOISE: &[u8] = b"\x1b[31mno envelope \xff";

/// A command whose producer has miscounted: it is in the partition behind the one that it belongs to.
struct Stray {
    command_id: String,
    command: String,
    envelope: String,
    partition: u16,
    target: String,
}

impl Stray {
    fn new(aggregate: &str, id: &str, command: &Value) -> Self {
        let command_id = uuid();
        let envelope = json!({
            "command_id": command_id, "correlation_id": command_id, "causation_id": command_id, "actor": "producer",
            "target": { "type": aggregate, "id": id }, "command": { aggregate: command },
        });
        let partitions = PartitionCount::DEFAULT;
        let belongs = partitions.partition_of(id.parse().unwrap()).index();
        Self {
            command_id,
            command: envelope["command"].to_string(),
            envelope: envelope.to_string(),
            partition: (belongs + 1) % partitions.get(),
            target: format!("{aggregate}/{id}"),
        }
    }

    /// That there is an issuer of this name.
    fn issuer(id: &str, name: &str) -> Self {
        Self::new("issuer", id, &json!({ "CreateIssuer": { "issuer_id": id, "name": name } }))
    }

    /// As it is queued: a bundle of one.
    fn queued(&self) -> (u16, Vec<u8>) {
        (self.partition, format!("[{}]", self.envelope).into_bytes())
    }
}

/// Puts messages into the queue past the platform: into its file while it is stopped, or on its stream while it runs.
async fn produce(platform: Platform, messages: &[(u16, Vec<u8>)]) -> Platform {
    if let Some(services) = platform.keeps().services() {
        let nats = jetstream::new(async_nats::connect(services.nats.url()).await.unwrap());
        for (partition, payload) in messages {
            let subject = format!("financing.commands.{partition}");
            nats.publish(subject, payload.clone().into()).await.unwrap().await.unwrap();
        }
        return platform;
    }
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0));
    let path = home.data().join("platform.db");
    let mut queue = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    for (partition, payload) in messages {
        let insert = sqlx::query("INSERT INTO queue (partition, payload) VALUES (?, ?)");
        insert.bind(*partition).bind(&**payload).execute(&mut queue).await.unwrap();
    }
    queue.close().await.unwrap();
    Platform::start_in(home, &[]).await
}

fn door(platform: &Platform) -> &str {
    platform.letters_address.as_deref().expect("a platform of the test's own")
}

/// What `financing dead` says, where it ends with this exit code.
async fn dead(platform: &Platform, code: i32, arguments: &[&str]) -> String {
    let program = Program::new(env!("CARGO_BIN_EXE_financing")).flags(&["dead"]).flags(arguments);
    let program = program.set("FINANCING_ADMIN_ADDR", door(platform)).set("COLUMNS", 160);
    let output = program.output().await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn said(platform: &Platform, arguments: &[&str]) -> String {
    dead(platform, 0, arguments).await
}

/// The business says no to one letter: with the exit code for that, and for this reason.
async fn refused(platform: &Platform, arguments: &[&str], reason: &str) -> String {
    let said = dead(platform, 2, arguments).await;
    assert!(said.contains("stays as it is: ") && said.ends_with(&format!(" ({reason})\n")), "{said}");
    said
}

/// The ids at the beginnings of lines, in order.
fn ids(said: &str) -> Vec<&str> {
    let firsts = said.lines().filter_map(|line| line.split("  ").next());
    firsts.filter(|first| first.len() == 36).collect()
}

#[track_caller]
fn says_all(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "{words:?} in {said}");
    }
}

async fn letters(platform: &Platform) -> DeadLetterServiceClient<Channel> {
    DeadLetterServiceClient::connect(format!("http://{}", door(platform))).await.unwrap()
}

/// A retry, by any gRPC client.
async fn retry(platform: &Platform, id: &str) -> Result<DeadLetterResolution, Status> {
    let request = RetryDeadLetterRequest { dead_letter_id: id.to_owned(), wait: wait() };
    let answer = letters(platform).await.retry_dead_letter(request).await?;
    Ok(answer.into_inner().resolution.expect("what became of it"))
}

/// A discard, by any gRPC client.
async fn discard(platform: &Platform, id: &str) -> Result<(), Status> {
    let (dead_letter_id, reason) = (id.to_owned(), "void".to_owned());
    let request = DiscardDeadLetterRequest { dead_letter_id, reason, wait: wait() };
    letters(platform).await.discard_dead_letter(request).await.map(|_| ())
}

/// Nothing is wrong with what is stored, says the checker; and it says this.
async fn verified(platform: &Platform, words: &[&str]) {
    let output = platform.verify().output().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    says_all(&String::from_utf8(output.stdout).unwrap(), words);
}

#[tokio::test]
async fn a_stray_command_is_found_and_its_retry_acts_once() {
    // given
    let issuer_id = uuid();
    let stray = Stray::issuer(&issuer_id, "Acme");
    let platform = produce(Platform::alone().await, &[stray.queued()]).await;
    let mut facts = platform.facts().await;
    let [died] = facts.given(["CommandDead"]).await;
    let id = died.extension("recordid");

    // then
    let listed = said(&platform, &["list"]).await;
    assert_eq!(ids(&listed), [id], "{listed}");
    let why = format!("WRONG_PARTITION: {} does not belong to partition {}", stray.target, stray.partition);
    let what = format!("CreateIssuer for {}", stray.target);
    says_all(&listed, &["  OPEN  ", &what, &why, "1 dead letter\n"]);
    assert_eq!(said(&platform, &["list", "--target", &stray.target]).await, listed);
    let shown = said(&platform, &["show", id]).await;
    says_all(&shown, &["OPEN", &what, &why, "died (WRONG_PARTITION)", "producer", &stray.command_id]);
    says_all(&shown, &[r#""name": "Acme""#, &format!("(record {})", died.event.id)]);
    assert_eq!(said(&platform, &["show", id, "--payload"]).await, stray.command, "byte for byte");

    // when
    let (one, other) = join(retry(&platform, id), retry(&platform, id)).await;

    // then
    let one = one.unwrap();
    assert_eq!((one.state(), &one), (CommandState::Applied, &other.unwrap()), "two retries are one");
    assert_eq!(said(&platform, &["retry", id]).await, format!("{id}  retried, applied\n"));
    let [created] = facts.given(["IssuerCreated"]).await;
    created.says(&stray.target, &json!({ "issuer_id": issuer_id, "name": "Acme" }));
    assert_eq!((created.token(), created.extension("commandid")), (&*one.token, &*one.command_id));
    assert_eq!((created.extension("causationid"), created.extension("actor")), (id, "producer"));
    assert_eq!(created.extension("correlationid"), stray.command_id);
    let request = GetIssuerRequest { issuer_id, token: one.token.clone() };
    let issuer = platform.queries().get_issuer(request).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!(issuer.name, "Acme");
    facts.nothing_else(&platform).await;
    refused(&platform, &["discard", id, "--reason", "late"], "DEAD_LETTER_RETRIED").await;
    let shown = said(&platform, &["show", id]).await;
    says_all(&shown, &["RETRIED", "died (WRONG_PARTITION)", "retried: applied"]);

    // and when
    let platform = Platform::start_in(platform.kill().await, &[]).await;

    // then
    assert_eq!(said(&platform, &["show", id]).await, shown);
    assert_eq!(said(&platform, &["list"]).await, "there are no such dead letters\n");
    assert_eq!(ids(&said(&platform, &["list", "--state", "retried"]).await), [id]);
    assert_eq!(retry(&platform, id).await.unwrap(), one);
    let mut facts = platform.facts().await;
    // The second one is the marker of before.
    facts.given(["CommandDead", "IssuerCreated", "IssuerCreated"]).await;
    facts.nothing_else(&platform).await;
    verified(&platform, &["0 open or discarded, 1 retried"]).await;
}

#[tokio::test]
async fn what_is_discarded_stays_undone_and_says_who_and_why() {
    // given
    let stray = Stray::issuer(&uuid(), "Acme");
    let noise = (stray.partition, NOISE.to_vec());
    let platform = produce(Platform::alone().await, &[noise, stray.queued()]).await;
    let mut facts = platform.facts().await;
    let died = facts.given(["CommandDead", "CommandDead"]).await;
    let [noise, command] = died.each_ref().map(|seen| seen.extension("recordid"));

    // then
    let listed = said(&platform, &["list"]).await;
    assert_eq!(ids(&listed), [noise, command], "in the order of the log: {listed}");
    says_all(&listed, &["not a command", "UNDECODABLE: ", "WRONG_PARTITION: ", "2 dead letters\n"]);
    let shown = said(&platform, &["show", noise]).await;
    says_all(&shown, &["UNDECODABLE: ", "died (UNDECODABLE)", "·[31mno envelope"]);
    assert!(!shown.contains('\u{1b}'), "it is shown, and not obeyed: {shown:?}");
    let kept = String::from_utf8_lossy(NOISE);
    assert_eq!(said(&platform, &["show", noise, "--payload"]).await, kept, "as far as it is text");
    refused(&platform, &["retry", noise], "NOT_RETRYABLE").await;

    // when
    let reasons = [(noise, "noise on the line"), (command, "paid by hand")];
    for (id, reason) in reasons {
        let discarded = said(&platform, &["discard", id, "--reason", reason, "--actor", "ada"]).await;
        assert_eq!(discarded, format!("{id}  discarded, for good: {reason}\n"));
    }

    // then
    let discards = facts.given(["DeadLetterDiscarded", "DeadLetterDiscarded"]).await;
    for (seen, (id, reason)) in discards.iter().zip(reasons) {
        let data = json!({ "letter_id": id, "partition": stray.partition, "reason": reason });
        assert_eq!((&seen.data, seen.extension("actor"), seen.extension("causationid")), (&data, "ada", id));
    }
    facts.nothing_else(&platform).await;
    let again = said(&platform, &["discard", noise, "--reason", "rubbish", "--actor", "bob"]).await;
    assert_eq!(again, format!("{noise}  discarded, for good: noise on the line\n"), "for the first reason");
    let stays = async |platform: &Platform| {
        for id in [noise, command] {
            refused(platform, &["retry", id], "DEAD_LETTER_DISCARDED").await;
        }
        assert_eq!(said(platform, &["retry", "--all"]).await, "there are no open dead letters\n");
        let marked = died.each_ref().map(|seen| format!("{} (discarded): ", seen.event.id));
        verified(platform, &["2 open or discarded, 0 retried", &marked[0], &marked[1]]).await;
        let mut told = said(platform, &["list", "--state", "discarded"]).await;
        assert_eq!(ids(&told), [noise, command], "{told}");
        for id in [noise, command] {
            told += &said(platform, &["show", id]).await;
        }
        told
    };
    let told = stays(&platform).await;
    says_all(&told, &["discarded by ada: noise on the line", "discarded by ada: paid by hand"]);

    // and when
    let platform = Platform::start_in(platform.kill().await, &[]).await;

    // then
    assert_eq!(stays(&platform).await, told);
}

#[tokio::test]
async fn of_a_retry_and_a_discard_at_once_one_wins_and_the_other_is_told_so() {
    // given
    let strays = (0..8).map(|_| Stray::issuer(&uuid(), "Acme").queued()).collect::<Vec<_>>();
    let platform = produce(Platform::alone().await, &strays).await;
    let mut facts = platform.facts().await;
    let died = facts.given(["CommandDead"; 8]).await;

    // when
    let both = died.each_ref().map(|seen| {
        let id = seen.extension("recordid");
        join(retry(&platform, id), discard(&platform, id))
    });

    // then
    for (seen, both) in died.iter().zip(join_all(both).await) {
        let (name, lost, why) = match both {
            (Ok(_), Err(lost)) => ("IssuerCreated", lost, "DEAD_LETTER_RETRIED"),
            (Err(lost), Ok(())) => ("DeadLetterDiscarded", lost, "DEAD_LETTER_DISCARDED"),
            (Ok(_), Ok(())) | (Err(_), Err(_)) => panic!("one of them wins: {both:?}"),
        };
        assert_eq!(reason(&lost), why);
        assert_eq!(facts.caused_by(seen.extension("recordid")).await.name, name);
    }
    facts.nothing_else(&platform).await;
    verified(&platform, &["breaches      0"]).await;
}

#[tokio::test]
async fn the_letters_of_one_aggregate_are_retried_in_their_order() {
    // given
    let platform = Platform::alone().await;
    let issuer_id = platform.issuer().await;
    let invoice_id = platform.sell(&issuer_id, eur(60, 0)).await.id;
    let (investor_id, bid_id) = (uuid(), uuid());
    let create = json!({ "investor_id": investor_id, "name": "Lender", "balance": json_of(eur(100, 0)) });
    let create = Stray::new("investor", &investor_id, &json!({ "CreateInvestor": create }));
    let bid = json!({
        "investor_id": investor_id, "bid_id": bid_id, "invoice_id": invoice_id, "amount": json_of(eur(60, 0)),
    });
    let bid = Stray::new("investor", &investor_id, &json!({ "BidOnInvoice": bid }));
    let bundle = format!(r#"[{{"nonsense":1}},{},{}]"#, create.envelope, bid.envelope);
    let platform = produce(platform, &[(create.partition, bundle.into_bytes())]).await;
    let mut facts = platform.facts().await;
    facts.given(["IssuerCreated", "InvoiceCreated"]).await;
    let died = facts.given(["CommandDead", "CommandDead", "CommandDead"]).await;
    let [nonsense, first, second] = died.each_ref().map(|seen| seen.extension("recordid"));

    // then
    let listed = said(&platform, &["list"]).await;
    assert_eq!(ids(&listed), [nonsense, first, second], "{listed}");
    assert!(refused(&platform, &["retry", second], "EARLIER_DEAD_LETTER").await.contains(first));
    let waits = information(&retry(&platform, second).await.unwrap_err());
    assert_eq!((&*waits.reason, &*waits.metadata["dead_letter_id"]), ("EARLIER_DEAD_LETTER", first));
    verified(&platform, &["3 open or discarded, 0 retried"]).await;

    // when
    let platform = Platform::start_in(platform.kill().await, &[]).await;

    // then
    assert_eq!(said(&platform, &["list"]).await, listed);
    refused(&platform, &["retry", second], "EARLIER_DEAD_LETTER").await;

    // and when
    let all = dead(&platform, 2, &["retry", "--all"]).await;

    // then
    assert_eq!(ids(&all), [nonsense, first, second], "{all}");
    says_all(&all, &[&format!("{first}  retried, applied\n"), &format!("{second}  retried, applied\n")]);
    assert!(all.lines().next().is_some_and(|line| line.ends_with("(NOT_RETRYABLE)")), "{all}");
    let mut facts = platform.facts().await;
    facts.given(["IssuerCreated", "InvoiceCreated", "CommandDead", "CommandDead", "CommandDead"]).await;
    facts.given(["InvestorCreated", "InvestorFundsAdded"]).await;
    let [placed, financed] = facts.given(["BidOnInvoicePlaced", "InvoiceFinanced"]).await;
    assert_eq!(
        (placed.extension("causationid"), placed.extension("correlationid")),
        (second, &*bid.command_id)
    );
    let both = format!("{},{}", placed.token(), financed.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(40, 0), eur(60, 0), eur(0, 0)]);
    assert_eq!(platform.bid_at(&bid_id, &both).await.status(), BidStatus::Won);
    facts.nothing_else(&platform).await;
    said(&platform, &["discard", "--all", "--reason", "nonsense"]).await;
    assert_eq!(said(&platform, &["retry", "--all"]).await, "there are no open dead letters\n");
    verified(&platform, &["1 open or discarded, 2 retried", " (discarded): "]).await;
}
