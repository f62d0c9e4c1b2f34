//! Nobody relays for far longer than the bus remembers what it was sent: nothing depends on that memory.

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;

use crate::harness::Load;
use crate::ledger::{Ledger, count, until};
use crate::parts::{ALL, Parts, settle};

/// For how long the bus knows a message id again.
const WINDOW_SECONDS: u64 = 1;

#[tokio::test]
async fn a_relayer_that_was_away_for_ten_windows_leaves_the_bus_as_the_log_is() {
    // given
    let mut parts = Parts::new().set("FINANCING_NATS_DUPLICATE_WINDOW", WINDOW_SECONDS);
    parts.run(&ALL).await;
    let platform = parts.platform().await;
    let load = Load::prepare(&platform, 8).await;
    parts.trade(&load, 50).await;
    // In the middle of its work.
    parts.kill("relayer").await;
    let ledger = Ledger::open(parts.services()).await;
    let relayed = count(&ledger.bus().await);
    let away_since = SystemEnvironment.now().as_micros();

    // when
    let long_enough = until("facts are recorded for ten windows", async || {
        let log = ledger.log().await;
        let last = log.values().filter_map(|records| records.last()).map(|last| last.recorded_at.as_micros());
        last.max().unwrap_or_default() > away_since + 10 * WINDOW_SECONDS * 1_000_000 + 500_000
    });
    Box::pin(load.until(&platform, 4, long_enough)).await;
    let waiting = count(&ledger.log().await) - relayed;
    assert_eq!(count(&ledger.bus().await), relayed, "nobody relays");
    parts.run(&["relayer"]).await;

    // then
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let records = ledger.agree().await;
    println!("{} commands: {waiting} records waited, the bus has {records}", load.promises().len());
    assert!(waiting > 10, "{waiting} records waited");
}
