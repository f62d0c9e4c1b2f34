//! Rebuilds beside others of the server's: readers in long transactions, vacuums, and statements that nobody waits for.

use std::pin::pin;

use eventsourcing::shadow::{Rebuildable as _, Shadow as _};
use futures_util::future::{Either, select};

use super::*;

/// Holds a lock in a transaction, until it is dropped.
async fn lock(connect: &Connect, sql: &'static str) -> Session {
    let mut session = connect.session().await.unwrap();
    session.execute("SET idle_in_transaction_session_timeout = 0; BEGIN").await.unwrap();
    session.execute(sql).await.unwrap();
    session
}

#[tokio::test]
async fn a_swap_waits_for_whoever_reads_and_loses_nothing() {
    let stores = Stores::new().await;
    // The last is what the checker holds.
    for read in ["SELECT * FROM things", "LOCK TABLE checkpoints IN ACCESS SHARE MODE"] {
        let reading = async |models: &PostgresReadModels| lock(&models.0.connect, read).await;
        contract::swaps_beside_readers(async || stores.models().await, reading, true).await;
    }
}

#[tokio::test]
async fn an_index_that_nobody_waits_for_is_stopped() {
    // given an index that takes for ever
    let database = services().database();
    let models = models(&database).await;
    let mut session = owner(&database).session().await.unwrap();
    let endless =
        "CREATE OR REPLACE FUNCTION rebuild_index() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(3600)'";
    session.execute(endless).await.unwrap();
    let mut shadow = models.begin_rebuild().await.unwrap().unwrap();
    // when
    {
        let indexing = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND query = 'SELECT rebuild_index()' AND state = 'active')";
        let begun = until(&mut session, indexing);
        match select(pin!(shadow.index()), pin!(begun)).await {
            Either::Left((done, _)) => panic!("it has an end: {done:?}"),
            Either::Right(((), _)) => {}
        }
    }
    // then
    let abandoned = tokio::time::timeout(Duration::from_secs(20), shadow.abandon()).await;
    assert_eq!(abandoned, Ok(Ok(())));
    assert!(session.one::<bool>("SELECT to_regclass('rebuilt_checkpoints') IS NULL").await.unwrap());
    assert!(models.begin_rebuild().await.unwrap().is_some(), "the turn is free");
}

#[tokio::test]
async fn a_vacuum_is_waited_for_before_anybody_is_held_up() {
    // given
    let database = services().database();
    let models = models(&database).await;
    let mut session = owner(&database).session().await.unwrap();
    let mut shadow = models.begin_rebuild().await.unwrap().unwrap();
    let off = "SELECT count(*) = 3 AND bool_and('autovacuum_enabled=off' = ANY (reloptions)) \
         FROM pg_class WHERE relkind = 'r' AND relname LIKE 'rebuilt\\_%'";
    assert!(session.one::<bool>(off).await.unwrap(), "none begins by itself while they are filled");
    // As a vacuum locks it.
    let vacuum = lock(&owner(&database), "LOCK TABLE things IN SHARE UPDATE EXCLUSIVE MODE").await;
    // when
    let all = [partition(1)];
    let projects = async {
        let waits =
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'ShareUpdateExclusiveLock')";
        until(&mut session, waits).await;
        assert_eq!(models.apply(vec![step(1, 0, 1, Vec::new())]).await, Ok(vec![true]), "nobody is held up");
        drop(vacuum);
    };
    let (held, ()) = tokio::join!(shadow.hold(&all), projects);
    // then
    assert_eq!(held.unwrap()[0].1.sequence, Sequence::new(1));
    shadow.apply(vec![step(1, 0, 1, Vec::new())]).await.unwrap();
    assert_eq!(shadow.swap().await, Ok(true));
    let as_before = "SELECT reloptions = ARRAY['fillfactor=80'] FROM pg_class WHERE oid = 'things'::regclass";
    assert!(session.one::<bool>(as_before).await.unwrap(), "the live ones are vacuumed");
}

#[tokio::test]
async fn what_is_left_over_keeps_nobody_from_starting() {
    // given
    let database = services().database();
    let mut session = owner(&database).session().await.unwrap();
    drop(models(&database).await.begin_rebuild().await.unwrap().unwrap());
    until(
        &mut session,
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .await;
    let left = "SELECT to_regclass('rebuilt_things') IS NOT NULL";
    assert!(session.one::<bool>(left).await.unwrap());
    // when somebody looks at it
    let looking = lock(&owner(&database), "SELECT * FROM rebuilt_things").await;
    // then
    drop(models(&database).await);
    assert!(session.one::<bool>(left).await.unwrap());
    drop(looking);
    until(
        &mut session,
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'rebuilt_things'::regclass)",
    )
    .await;
    drop(models(&database).await);
    assert!(!session.one::<bool>(left).await.unwrap());
}
