//! Callers that give up, and servers that do not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::poll;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const INSERT: &str = "INSERT INTO kept DEFAULT VALUES";

async fn observer(database: &Database) -> Session {
    let mut observer = owner(database).session().await.unwrap();
    observer.execute("CREATE TABLE kept (number serial)").await.unwrap();
    observer
}

/// Begins a transaction on the pool's only connection and gives up once `BEGIN` is on its way: the future is polled once,
/// which writes it, and is dropped before the answer is read.
async fn give_up_beginning(pool: &PgPool, observer: &mut Session) {
    for _ in 0..1000 {
        // Whatever the last attempt has left behind is over, and the connection is back.
        pool.execute("SELECT 1").await.unwrap();
        while pool.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        let given_up = {
            let begin = std::pin::pin!(pool.begin());
            matches!(poll!(begin), Poll::Pending)
        };
        let leaked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND state = 'idle in transaction')";
        if given_up && observer.one::<bool>(leaked).await.unwrap() {
            return;
        }
    }
    panic!("no begin ever reached the server");
}

/// What sqlx 0.9.0 does, its issue 4393: when this fails, sqlx has mended it, and `database.rs` can say so.
#[tokio::test]
async fn sqlx_loses_an_acknowledged_write_after_a_begin_that_was_given_up() {
    let database = services().database();
    let mut observer = observer(&database).await;
    let options: PgConnectOptions = database.url().parse().unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .unwrap();
    give_up_beginning(&pool, &mut observer).await;
    let done = pool.execute(INSERT).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "it is acknowledged");
    pool.close().await;
    assert_eq!(observer.one::<i64>("SELECT count(*) FROM kept").await, Ok(0), "and it is lost");
}

#[tokio::test]
async fn nothing_is_lost_after_a_begin_that_was_given_up() {
    let database = services().database();
    let mut observer = observer(&database).await;
    let ours = Connect { connections: 1, ..owner(&database) }.database().unwrap();
    let mut given_up = 0;
    for _ in 0..25 {
        let mut lent = ours.lend().await.unwrap();
        {
            let begin = std::pin::pin!(lent.begin());
            given_up += u32::from(matches!(poll!(begin), Poll::Pending));
        }
        drop(lent);
        ours.rows(INSERT, Values::default()).await.unwrap();
    }
    ours.close().await;
    assert!(given_up > 0, "each was answered before it could be given up");
    assert_eq!(observer.one::<i64>("SELECT count(*) FROM kept").await, Ok(25));
}

#[tokio::test]
async fn a_caller_that_gives_up_spoils_nothing_for_the_next_one() {
    let database = services().database();
    let mut observer = observer(&database).await;
    let ours = Connect { connections: 2, application_name: "given up".to_owned(), ..owner(&database) };
    let ours = ours.database().unwrap();
    for number in 0..20_i32 {
        // Polled until the statement runs, or is on its way, or is not even that.
        let values = Values::default().and(-1).unwrap();
        let mut abandoned = Box::pin(ours.rows("SELECT $1::int, pg_sleep(0.001)", values));
        for _ in 0..number % 4 {
            let _whatever = poll!(abandoned.as_mut());
            tokio::task::yield_now().await;
        }
        drop(abandoned);
        // A machine that is busy may not answer in time; what is answered is answered to the right one.
        let mut tries = 0;
        let rows = loop {
            let values = Values::default().and(number).unwrap();
            match ours.rows("SELECT $1::int", values).await {
                Err(PortError::Unavailable(_)) if tries < 20 => tries += 1,
                answer => break answer.unwrap(),
            }
        };
        assert_eq!(rows.len(), 1);
        assert_eq!(get::<i32>(&rows[0], 0), Ok(number), "the answer is to this question");
    }
    until(
        &mut observer,
        "SELECT count(*) <= 2 FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'given up'",
    )
    .await;
}

#[tokio::test]
async fn a_commit_that_is_given_up_happens_or_not_and_the_next_owner_knows() {
    let database = services().database();
    let log = log(&database).await;
    let one = partition(1);
    let mut head = 0;
    for round in 0..18 {
        let owner = Owner::take_over(&log, one).await;
        assert!([head, head + 2].contains(&owner.row.head.get()), "all of it or nothing");
        head = owner.row.head.get();
        let part = owner.part(owner.facts(&aggregate(one, 0), head + 1, 2));
        let mut commit = Box::pin(log.commit(vec![part]));
        for _ in 0..round % 6 {
            if poll!(commit.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let head = log.take_over(&[one]).await.unwrap()[0].1.head;
    assert_eq!(log.read(&[from(one, 0)], 1000).await.unwrap().len() as u64, head.get());
}

/// A network between the test and the server, which can stop carrying anything.
async fn network(database: &Database, frozen: Arc<AtomicBool>) -> String {
    let url = database.url();
    let address = url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).unwrap().0.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = listener.local_addr().unwrap().to_string();
    let server = address.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&server).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server, Arc::clone(&frozen)));
            tokio::spawn(carry(from_server, to_client, Arc::clone(&frozen)));
        }
    });
    url.replace(&address, &ours)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    frozen: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if frozen.load(Ordering::SeqCst) {
            // A packet that is dropped is never carried, and the connection stays as it is.
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn a_network_that_carries_nothing_is_noticed_and_its_connections_are_given_up() {
    let database = services().database();
    log(&database).await.close().await;
    let frozen = Arc::new(AtomicBool::new(false));
    let url = network(&database, Arc::clone(&frozen)).await;
    let connect = Connect {
        connections: 1,
        statement_timeout: Duration::from_millis(300),
        ..Connect::new(url, "tests")
    };
    let log = PostgresLog::open(&connect, &DEPLOYMENT).await.unwrap();
    let one = partition(1);
    log.take_over(&[one]).await.unwrap();
    frozen.store(true, Ordering::SeqCst);
    let answer = tokio::time::timeout(Duration::from_secs(5), log.take_over(&[one])).await;
    assert!(matches!(answer, Ok(Err(PortError::Unavailable(_)))), "{answer:?}");
    // It carries again, but what was dropped is gone: only a new connection works.
    frozen.store(false, Ordering::SeqCst);
    let again = async { while log.take_over(&[one]).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(15), again).await.expect("a new connection is made");
}
