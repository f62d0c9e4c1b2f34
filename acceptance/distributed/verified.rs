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

async fn is_clean(platform: &Platform, flags: &[&str]) -> String {
    let output = platform.verify().flags(flags).output().await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}{said}", String::from_utf8_lossy(&output.stderr));
    said
}
