//! Opening: who makes the tables, what is refused, and what nobody gets to see.

use super::*;

#[tokio::test]
async fn of_many_that_start_at_once_one_makes_the_tables_and_all_belong_to_its_deployment() {
    let database = services().database();
    let started = (0..8).map(|number| {
        let connect = owner(&database);
        async move {
            let new = Deployment { id: Uuid::from_u128(number), ..DEPLOYMENT };
            PostgresLog::open(&connect, &new).await.unwrap().deployment()
        }
    });
    let deployments = futures_util::future::join_all(started).await;
    assert!(deployments.iter().all(|one| *one == deployments[0]), "{deployments:?}");
    let late = Deployment { id: Uuid::from_u128(99), created_at: 9, ..DEPLOYMENT };
    assert_eq!(migrate_log(&owner(&database), &late).await, Ok(deployments[0]), "the first one wins");
    assert_eq!(database.psql("SELECT count(*) FROM partitions"), "16\n");
    assert_eq!(database.psql("SELECT count(*) FROM migrations"), "2\n");
}

#[tokio::test]
async fn of_many_projectors_that_start_at_once_one_makes_the_tables() {
    let database = services().database();
    let started = (0..8).map(|_| models(&database));
    let opened = futures_util::future::join_all(started).await;
    for (number, models) in (0..).zip(&opened) {
        let change = add(id("a"), "amount", 1);
        assert_eq!(models.apply(vec![step(1, number, number + 1, vec![change])]).await, Ok(vec![true]));
    }
}

#[tokio::test]
async fn a_database_of_another_shape_is_refused() {
    let (command, query) = (services().database(), services().database());
    log(&command).await.close().await;
    models(&query).await.close().await;

    let fewer = Deployment { partitions: PartitionCount::new(4).unwrap(), ..DEPLOYMENT };
    let refused = PostgresLog::open(&owner(&command), &fewer).await.err().unwrap();
    assert!(matches!(refused, OpenError::Partitions { .. }) && !refused.retryable());
    let text = refused.to_string();
    assert!(text.contains("created with 16 partitions") && text.contains("but 4 are configured"), "{text}");
    let refused = PostgresReadModels::open(&owner(&query), &fewer, MODELS).await.err().unwrap();
    assert!(matches!(refused, OpenError::Partitions { .. }), "{refused}");

    let other = Deployment { id: Uuid::from_u128(8), ..DEPLOYMENT };
    let refused = PostgresReadModels::open(&owner(&query), &other, MODELS).await.err().unwrap();
    assert!(matches!(refused, OpenError::Deployment { .. }) && !refused.retryable());
    let text = refused.to_string();
    assert!(text.contains(&DEPLOYMENT.id.to_string()) && text.contains(&other.id.to_string()), "{text}");
    let refused = PostgresReadModels::open_to_read(&owner(&query), &other, MODELS).await.err().unwrap();
    assert!(matches!(refused, OpenError::Deployment { .. }), "{refused}");

    for schema in
        [ReadModelSchema { version: 2, ..MODELS }, ReadModelSchema { tables: &TABLES[..1], ..MODELS }]
    {
        let refused = PostgresReadModels::open(&owner(&query), &DEPLOYMENT, schema).await.err().unwrap();
        assert!(matches!(refused, OpenError::ReadModels { .. }) && !refused.retryable());
        assert!(refused.to_string().contains("built anew"), "{refused}");
        let refused = migrate_read_models(&owner(&query), schema).await.unwrap_err();
        assert!(matches!(refused, OpenError::ReadModels { .. }), "{refused}");
    }
    assert_eq!(models(&query).await.row(THINGS, id("a")).await, Ok(None), "and what fits is opened");
}

#[tokio::test]
async fn a_database_of_another_release_is_refused() {
    let database = services().database();
    log(&database).await.close().await;
    database.psql("INSERT INTO migrations (name, checksum) VALUES ('9999_later', '')");
    let refused = PostgresLog::open(&owner(&database), &DEPLOYMENT).await.err().unwrap();
    assert!(matches!(refused, OpenError::Schema { .. }) && !refused.retryable());
    let text = refused.to_string();
    assert!(text.contains("9999_later") && text.contains("0002_dead_letters"), "{text}");
    database
        .psql("DELETE FROM migrations WHERE name = '9999_later'; UPDATE migrations SET checksum = 'changed'");
    let refused = PostgresLog::open(&owner(&database), &DEPLOYMENT).await.err().unwrap();
    assert!(matches!(refused, OpenError::Schema { .. }), "{refused}");
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let database = services().database();
    let one = partition(1);
    let first = log(&database).await;
    let written = append(&first, one, 0, 3).await;
    let moved = CheckpointMove { partition: one, from: Sequence::ZERO, to: Sequence::new(2) };
    assert_eq!(Checkpoints::advance(&first, "reader", &[moved]).await, Ok(vec![true]));
    first.close().await;
    assert!(matches!(first.take_over(&[one]).await, Err(PortError::Unavailable(_))), "it is closed");

    let later = Deployment { id: Uuid::from_u128(9), created_at: 2_000, ..DEPLOYMENT };
    let log = PostgresLog::open(&owner(&database), &later).await.unwrap();
    assert_eq!(log.deployment(), DEPLOYMENT, "it is the deployment that it was created as");
    assert_eq!(log.read(&[from(one, 0)], 10).await.unwrap(), written);
    assert_eq!(log.rows(&[one]).await.unwrap()[0].1.head, Sequence::new(3));
    assert_eq!(Checkpoints::load(&log, "reader", &[one]).await, Ok(vec![from(one, 2)]));
}

#[tokio::test]
async fn nobody_reads_what_nobody_has_begun_to_project() {
    let database = services().database();
    let connect = owner(&database);
    let early = PostgresReadModels::open_to_read(&connect, &DEPLOYMENT, MODELS).await.err().unwrap();
    assert!(matches!(early, OpenError::Unprepared { .. }) && early.retryable(), "{early}");
    assert!(early.to_string().contains("financing migrate"), "{early}");
    // It may be prepared before anybody knows whose facts will be there.
    assert_eq!(migrate_read_models(&connect, MODELS).await, Ok(()));
    assert_eq!(migrate_read_models(&connect, MODELS).await, Ok(()));
    let early = PostgresReadModels::open_to_read(&connect, &DEPLOYMENT, MODELS).await.err().unwrap();
    assert!(matches!(early, OpenError::NotBegun { .. }) && early.retryable(), "{early}");
    let projector = models(&database).await;
    assert_eq!(projector.apply(vec![step(1, 0, 1, vec![add(id("a"), "amount", 1)])]).await, Ok(vec![true]));
    let reader = PostgresReadModels::open_to_read(&connect, &DEPLOYMENT, MODELS).await.unwrap();
    assert!(reader.row(THINGS, id("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn whether_it_may_be_otherwise_in_a_moment_is_said() {
    let database = services().database();
    let open = async |url: String| {
        let connect = Connect::new(url, "tests");
        let refused = PostgresLog::open(&connect, &DEPLOYMENT).await.err().unwrap();
        let shown = format!("{connect} {connect:?} {refused} {refused:?}");
        assert!(!shown.contains("hidden"), "a password is never shown: {shown}");
        refused
    };
    let wrong = open(database.url_as("postgres", "hidden")).await;
    assert!(matches!(wrong, OpenError::Refused { .. }) && !wrong.retryable(), "{wrong}");
    let nobody = open(database.url_as("nobody", "hidden")).await;
    assert!(matches!(nobody, OpenError::Refused { .. }), "{nobody}");
    let elsewhere = open(database.url().replace(database.name(), "no_such_database")).await;
    assert!(matches!(elsewhere, OpenError::Refused { .. }), "{elsewhere}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = open(format!("postgres://financing:hidden@{port}/log")).await;
    assert!(matches!(down, OpenError::Unreachable { .. }) && down.retryable(), "{down}");
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent =
        open(format!("postgres://u:hidden@{}/log?sslmode=disable", deaf.local_addr().unwrap())).await;
    assert!(matches!(silent, OpenError::Unreachable { .. }) && silent.retryable(), "{silent}");
    for url in
        ["hidden", "mysql://u:hidden@host/log", "postgres://u:hidden@host:port/log", "postgres://hidden@[/"]
    {
        let malformed = open(url.to_owned()).await;
        assert!(matches!(malformed, OpenError::Url { .. }) && !malformed.retryable(), "{malformed}");
    }
    let certificate = open(format!("{}?sslmode=verify-full&sslrootcert=/no/such/file", database.url())).await;
    assert!(
        certificate.to_string().contains("TLS") || certificate.to_string().contains("file"),
        "{certificate}"
    );
}

#[tokio::test]
async fn every_connection_flushes_and_gives_up_as_it_was_asked_to() {
    let database = services().database();
    // What somebody has set for the role or the database does not count.
    database.psql(&format!(
        "ALTER DATABASE {} SET synchronous_commit = off; ALTER DATABASE {0} SET statement_timeout = 0",
        database.name()
    ));
    let log = log(&database).await;
    let setting = async |name: &'static str| {
        let values = Values::default().and(name).unwrap();
        let rows = log.database.rows("SELECT current_setting($1::text)", values).await.unwrap();
        get::<String>(&rows[0], 0).unwrap()
    };
    for (name, value) in [
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("statement_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "2s"),
        ("lock_timeout", "1s"),
        ("timezone", "UTC"),
        ("transaction_isolation", "read committed"),
        ("tcp_keepalives_idle", "10"),
        ("application_name", "tests"),
    ] {
        assert_eq!(setting(name).await, value, "{name}");
    }
    let endless = log.database.rows("SELECT pg_sleep(60)", Values::default()).await.err().unwrap();
    assert!(
        matches!(&endless, PortError::Unavailable(text) if text.contains("statement timeout")),
        "{endless}"
    );
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_named_and_its_value_is_not() {
    let database = services().database();
    let connect = Connect::new(format!("{}?sslpassword=hunter2", database.url()), "test");
    let refused = PostgresLog::open(&connect, &DEPLOYMENT).await.err().unwrap();
    assert!(!refused.retryable(), "{refused}");
    let shown = format!("{refused} {refused:?} {connect} {connect:?}");
    assert!(shown.contains("sslpassword") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_certificate_that_is_not_there_is_named_and_not_waited_for() {
    let database = services().database();
    let url = format!("{}?sslmode=verify-full&sslrootcert=/there/is/none.pem", database.url());
    let refused = PostgresLog::open(&Connect::new(url, "test"), &DEPLOYMENT).await.err().unwrap();
    assert!(!refused.retryable(), "{refused}");
    assert!(refused.to_string().contains("/there/is/none.pem"), "{refused}");
}

#[tokio::test]
async fn who_spoke_before_the_clock_was_set_back_holds_nothing_up() {
    let database = services().database();
    let log = log(&database).await;
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let term = std::time::Duration::from_secs(3);
    let held = log.renew(Role::Worker, one, PartitionCount::DEFAULT, term).await.unwrap();
    assert_eq!(held.len(), 16);
    database.psql("UPDATE members SET lives_until = lives_until + 3600000000");
    let held = log.renew(Role::Worker, other, PartitionCount::DEFAULT, term).await.unwrap();
    assert_eq!(held.len(), 16, "the first one is believed to be dead until it speaks again");
}
