//! `financing verify` over PostgreSQL and NATS: while everything works and dies, and when it is over.

use crate::harness::{Home, Load, Platform};

const CLIENTS: usize = 4;
/// Commands that are accepted between two looks.
const COMMANDS: usize = 40;
const LOOKS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_with_a_platform_that_works() {
    // given
    let platform = Platform::start_in(Home::distributed(), &[]).await;
    let load = Load::prepare(&platform, 6).await;

    // when
    let looks = async {
        for _ in 0..LOOKS {
            load.accepted(COMMANDS).await;
            is_clean(&platform, &[]).await;
        }
    };
    load.until(&platform, CLIENTS, looks).await;

    // then
    load.insist(&platform).await;
    let promised = load.promises();
    let mut audit = crate::harness::Audit::begin(&platform).await;
    audit.until(|audit| audit.has_outcomes(&promised) && audit.every_bid_is_answered()).await;
    let said = is_clean(&platform, &[]).await;
    assert!(said.contains("records       ") && !said.contains("records       0 "), "{said}");
    assert!(!said.contains("bus           0 "), "{said}");
    let home = platform.kill().await;
    let stopped = home.verify().output().await;
    assert_eq!(stopped.status.code(), Some(0), "{}", String::from_utf8_lossy(&stopped.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_that_somebody_changed_by_hand_is_found_and_its_record_named() {
    // given
    let platform = Platform::start_in(Home::distributed(), &[]).await;
    let load = Load::prepare(&platform, 2).await;
    load.until(&platform, CLIENTS, load.accepted(COMMANDS)).await;
    let mut audit = crate::harness::Audit::begin(&platform).await;
    audit.until(|audit| audit.bids() > 0 && audit.every_bid_is_answered()).await;
    let home = platform.kill().await;
    let services = home.services().unwrap();

    // when
    let position = services.commands.psql(
        "ALTER TABLE records DISABLE TRIGGER records_are_append_only;
         UPDATE records SET data = replace(data, '\"nanos\":', '\"nanos\":1') WHERE (partition, sequence) =
             (SELECT partition, sequence FROM records WHERE event_type = 'BidOnInvoicePlaced' ORDER BY recorded_at LIMIT 1)
         RETURNING partition || '-' || sequence;",
    );

    // then
    let output = home.verify().output().await;
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(complained.contains(&format!("record {}", position.trim())), "{complained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_lost_a_stream_is_only_noted_and_a_queue_that_lost_what_it_had_is_a_breach() {
    // given
    let platform = Platform::start_in(Home::distributed(), &[]).await;
    let load = Load::prepare(&platform, 2).await;
    load.until(&platform, CLIENTS, load.accepted(COMMANDS)).await;
    load.insist(&platform).await;
    let mut audit = crate::harness::Audit::begin(&platform).await;
    audit.until(|audit| audit.bids() > 0 && audit.every_bid_is_answered()).await;
    let home = platform.kill().await;
    let nats = async_nats::connect(home.services().unwrap().nats.url()).await.unwrap();
    let streams = async_nats::jetstream::new(nats);
    let verify = async |code| {
        let output = home.verify().output().await;
        let [said, complained] =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert_eq!(output.status.code(), Some(code), "{complained}{said}");
        said + &complained
    };
    verify(0).await;

    // when
    let mut partitions = Vec::new();
    for partition in 0..16 {
        let stream = streams.get_stream(format!("EVENTS_{partition}")).await.unwrap();
        if stream.cached_info().state.last_sequence > 0 {
            partitions.push((partition, stream));
        }
    }
    let ((lost, _), (_, holed)) = (partitions.pop().unwrap(), partitions.pop().unwrap());
    streams.delete_stream(format!("EVENTS_{lost}")).await.unwrap();

    // then
    let said = verify(0).await;
    assert!(said.contains(&format!("the bus of partition {lost} is behind its readers by")), "{said}");

    // when
    let last = holed.cached_info().state.last_sequence;
    let mut behind = holed.cached_info().config.clone();
    behind.first_sequence = Some(last + 1);
    streams.delete_stream(&behind.name).await.unwrap();
    streams.create_stream(&behind).await.unwrap();

    // then: that is no tail that was lost, for the stream counts on behind what it does not have
    let said = verify(1).await;
    assert!(
        said.contains("the first is I5") && said.contains(&format!("message 1 of {} is", behind.name)),
        "{said}"
    );

    // when
    let commands = streams.get_stream("COMMANDS").await.unwrap();
    let config = commands.cached_info().config.clone();
    commands.purge().await.unwrap();

    // then
    let said = verify(1).await;
    assert!(said.contains("is missing") && said.contains("`financing queue adopt`"), "{said}");

    // when
    streams.delete_stream("COMMANDS").await.unwrap();

    // then
    let said = verify(1).await;
    assert!(said.contains("; the first is I2: the queue is not the one"), "{said}");
    assert!(said.contains("it is missing"), "{said}");

    // when
    streams.create_stream(config).await.unwrap();

    // then
    let said = verify(1).await;
    assert!(said.contains("; the first is I2: the queue is not the one"), "{said}");
    assert_eq!(
        said.matches("it is created anew").count(),
        2,
        "once in the report, once as its first: {said}"
    );
}

async fn is_clean(platform: &Platform, flags: &[&str]) -> String {
    let output = platform.verify().flags(flags).output().await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}{said}", String::from_utf8_lossy(&output.stderr));
    said
}
