//! `scripts/roles.sql`: each role can do its work, through the adapters, and nothing else.

use eventsourcing::outcome::Fingerprint;
use eventsourcing::ports::ForeignPosition;
use eventsourcing::shadow::{Rebuildable as _, Shadow as _};

use super::*;

const SCRIPT: &str = include_str!("../../../scripts/roles.sql");

const ROLES: [&str; 4] = ["worker", "relayer", "projector", "query"];

/// Both databases, and roles of their own. The roles are the server's, so they are dropped at the end.
struct Platform {
    command: Database,
    query: Database,
    prefix: String,
}

impl Platform {
    async fn prepared() -> Self {
        let (command, query) = (services().database(), services().database());
        let platform = Self { prefix: command.name().replace("test_", "t"), command, query };
        migrate_log(&owner(&platform.command), &DEPLOYMENT).await.unwrap();
        migrate_read_models(&owner(&platform.query), MODELS).await.unwrap();
        // Twice: it may be run again.
        for _ in 0..2 {
            platform.grant();
        }
        platform
    }

    fn grant(&self) {
        let variables = ROLES.map(|role| format!("\\set {role}_password {role}-secret\n")).concat();
        let script = format!("\\set prefix {}\n{variables}{SCRIPT}", self.prefix);
        self.command.psql(&script);
        self.query.psql(&script);
    }

    fn connect(&self, database: &Database, role: &str) -> Connect {
        let url = database.url_as(&format!("{}_{role}", self.prefix), &format!("{role}-secret"));
        Connect { connections: 2, ..Connect::new(url, role) }
    }

    /// What the role is told when it tries.
    async fn refused(&self, database: &Database, role: &str, sql: &'static str) {
        let mut session = self.connect(database, role).session().await.unwrap();
        let refused = session.execute(sql).await.expect_err(sql);
        assert!(matches!(refused, OpenError::Unprepared { .. }), "{role}: {sql}: {refused}");
        assert!(refused.to_string().contains("permission denied"), "{role}: {sql}: {refused}");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let roles = ROLES.map(|role| format!("{}_{role}", self.prefix)).join(", ");
        self.command.psql(&format!("DROP OWNED BY {roles}"));
        self.query.psql(&format!("DROP OWNED BY {roles}; DROP ROLE {roles}"));
    }
}

#[tokio::test]
async fn the_worker_does_its_work_and_changes_nothing_that_is_written() {
    let platform = Platform::prepared().await;
    let log = PostgresLog::open(&platform.connect(&platform.command, "worker"), &DEPLOYMENT).await.unwrap();
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    for at in [1, 2] {
        let mut part = owner.part(owner.facts(&aggregate(one, 0), at, 1));
        part.snapshots.push(snapshot(&aggregate(one, 0), at));
        owner.commit(&log, part).await;
    }
    let request = LoadRequest { aggregates: vec![aggregate(one, 0)], ..LoadRequest::default() };
    assert!(EventLog::load(&log, &request).await.unwrap().histories[0].snapshot.is_some());
    let moves =
        |from, to| CheckpointMove { partition: one, from: Sequence::new(from), to: Sequence::new(to) };
    for step in [moves(0, 1), moves(1, 2)] {
        assert_eq!(Checkpoints::advance(&log, "policies", &[step]).await, Ok(vec![true]));
    }
    let position = |message| ForeignPosition { created_at: 1, message, fingerprint: Fingerprint::of(b"a") };
    for (from, to) in
        [(None, Some(position(1))), (Some(position(1)), Some(position(2))), (Some(position(2)), None)]
    {
        assert_eq!(ForeignPositions::advance(&log, "importer", from, to).await, Ok(true));
    }
    let held =
        log.renew(Role::Worker, id("a"), PartitionCount::DEFAULT, Duration::from_secs(1)).await.unwrap();
    assert_eq!(held.len(), 16);
    assert_eq!(log.leave(Role::Worker, id("a")).await, Ok(()));
    log.forget_queue(&[one]).await.unwrap();
    for sql in [
        "UPDATE records SET data = ''",
        "DELETE FROM records",
        "TRUNCATE records",
        "UPDATE inbox SET verdict = ''",
        "DELETE FROM inbox",
        "UPDATE deployment SET partitions = 1",
        "DELETE FROM partitions",
        "UPDATE migrations SET name = ''",
        "DROP TABLE records",
        "CREATE TABLE another (a int)",
        "CREATE TEMPORARY TABLE another (a int)",
    ] {
        if sql.starts_with("DROP") {
            let mut session = platform.connect(&platform.command, "worker").session().await.unwrap();
            assert!(session.execute(sql).await.unwrap_err().to_string().contains("must be owner"));
        } else {
            platform.refused(&platform.command, "worker", sql).await;
        }
    }
}

#[tokio::test]
async fn the_relayer_reads_the_log_and_writes_nothing_of_it() {
    let platform = Platform::prepared().await;
    let written = append(&log(&platform.command).await, partition(1), 0, 3).await;
    let log = PostgresLog::open(&platform.connect(&platform.command, "relayer"), &DEPLOYMENT).await.unwrap();
    assert_eq!(log.deployment(), DEPLOYMENT);
    assert_eq!(log.read(&[from(partition(1), 0)], 10).await.unwrap(), written);
    let held =
        log.renew(Role::Relayer, id("a"), PartitionCount::DEFAULT, Duration::from_secs(1)).await.unwrap();
    assert_eq!(held.len(), 16);
    assert_eq!(log.leave(Role::Relayer, id("a")).await, Ok(()));
    let refused = log.take_over(&[partition(1)]).await;
    assert!(matches!(refused, Err(PortError::Broken(_))), "{refused:?}");
    for sql in [
        "INSERT INTO records SELECT * FROM records",
        "INSERT INTO inbox VALUES ('00000000-0000-0000-0000-000000000000', 1, 1, '', '')",
        "SELECT * FROM inbox",
        "SELECT * FROM snapshots",
        "UPDATE partitions SET head = 0",
        "INSERT INTO checkpoints VALUES ('a', 1, 1)",
    ] {
        platform.refused(&platform.command, "relayer", sql).await;
    }
}

#[tokio::test]
async fn the_projector_writes_the_read_models_and_the_query_service_reads_them() {
    let platform = Platform::prepared().await;
    let connect = platform.connect(&platform.query, "projector");
    let projector = PostgresReadModels::open(&connect, &DEPLOYMENT, MODELS).await.unwrap();
    for number in 0..2 {
        let step = step(1, number, number + 1, vec![add(id("a"), "amount", 1)]);
        assert_eq!(projector.apply(vec![step]).await, Ok(vec![true]));
    }
    let term = Duration::from_secs(1);
    let held = projector.renew(Role::Projector, id("a"), PartitionCount::DEFAULT, term).await.unwrap();
    assert_eq!(held.len(), 16);
    assert_eq!(projector.leave(Role::Projector, id("a")).await, Ok(()));

    let connect = platform.connect(&platform.query, "query");
    let reader = PostgresReadModels::open_to_read(&connect, &DEPLOYMENT, MODELS).await.unwrap();
    assert_eq!(reader.row(THINGS, id("a")).await.unwrap().unwrap().values[2], Some(Value::Integer(2)));
    assert_eq!(reader.checkpoints(&[partition(1)]).await.unwrap()[0].1.sequence, Sequence::new(2));
    let refused = reader.apply(vec![step(1, 2, 3, vec![add(id("a"), "amount", 1)])]).await;
    assert!(matches!(refused, Err(PortError::Broken(_))), "{refused:?}");

    for sql in [
        "UPDATE deployment SET partitions = 1",
        "UPDATE read_models SET description = ''",
        "INSERT INTO migrations VALUES ('9999', '')",
        "DELETE FROM things",
        "CREATE TABLE another (a int)",
        "CREATE TEMPORARY TABLE another (a int)",
    ] {
        platform.refused(&platform.query, "projector", sql).await;
    }
    for sql in
        ["UPDATE things SET amount = 1", "INSERT INTO checkpoints VALUES (99, 1)", "DELETE FROM things"]
    {
        platform.refused(&platform.query, "query", sql).await;
    }
    // A table that the owner makes later is theirs as well, each in its way.
    let mut session = owner(&platform.query).session().await.unwrap();
    session.execute("CREATE TABLE later (a int)").await.unwrap();
    let mut session = platform.connect(&platform.query, "projector").session().await.unwrap();
    session.execute("INSERT INTO later VALUES (1)").await.unwrap();
    let mut session = platform.connect(&platform.query, "query").session().await.unwrap();
    session.execute("SELECT * FROM later").await.unwrap();
}

#[tokio::test]
async fn the_projector_rebuilds_the_read_models_and_both_go_on() {
    // given
    let platform = Platform::prepared().await;
    let connect = platform.connect(&platform.query, "projector");
    let projector = PostgresReadModels::open(&connect, &DEPLOYMENT, MODELS).await.unwrap();
    let first = || vec![step(1, 0, 2, vec![add(id("a"), "amount", 7)])];
    assert_eq!(projector.apply(first()).await, Ok(vec![true]));
    let connect = platform.connect(&platform.query, "query");
    let reader = PostgresReadModels::open_to_read(&connect, &DEPLOYMENT, MODELS).await.unwrap();
    // when
    let mut shadow = projector.begin_rebuild().await.unwrap().unwrap();
    shadow.apply(first()).await.unwrap();
    shadow.index().await.unwrap();
    shadow.hold(&[partition(1)]).await.unwrap();
    assert_eq!(shadow.swap().await, Ok(true));
    drop(shadow);
    // then
    assert_eq!(projector.apply(vec![step(1, 2, 3, vec![add(id("a"), "amount", 1)])]).await, Ok(vec![true]));
    assert_eq!(reader.row(THINGS, id("a")).await.unwrap().unwrap().values[2], Some(Value::Integer(8)));
    platform.refused(&platform.query, "projector", "DELETE FROM things").await;
    platform.refused(&platform.query, "query", "UPDATE things SET amount = 1").await;
    let refused = reader.begin_rebuild().await.err().unwrap();
    assert!(refused.to_string().contains("scripts/roles.sql"), "{refused}");
}

#[tokio::test]
async fn what_is_rebuilt_is_the_owners_whoever_migrates_and_in_this_schema() {
    let platform = Platform::prepared().await;
    let owner_of_tables = format!("{}_worker", platform.prefix);
    platform.query.psql(&format!(
        "DO $$ BEGIN EXECUTE format('GRANT {owner_of_tables} TO %I', (SELECT tableowner FROM pg_tables WHERE \
         tablename = 'read_models')); END $$; GRANT CREATE ON SCHEMA public TO {owner_of_tables}; ALTER TABLE read_models OWNER TO {owner_of_tables}"
    ));
    migrate_read_models(&owner(&platform.query), MODELS).await.unwrap();
    let functions = "SELECT DISTINCT proowner::regrole || ' ' || array_to_string(proconfig, ';') FROM pg_proc \
         WHERE proname LIKE 'rebuild\\_%'";
    let found = platform.query.psql(functions);
    assert_eq!(found.trim(), format!("{owner_of_tables} search_path=public, pg_temp"));
}

#[tokio::test]
async fn nobody_enters_the_database_that_is_not_its_own() {
    let platform = Platform::prepared().await;
    for (database, roles) in
        [(&platform.command, ["projector", "query"]), (&platform.query, ["worker", "relayer"])]
    {
        for role in roles {
            let refused = platform.connect(database, role).session().await.err().unwrap();
            assert!(
                matches!(refused, OpenError::Refused { .. }) && !refused.retryable(),
                "{role}: {refused}"
            );
            assert!(refused.to_string().contains("permission denied for database"), "{role}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_role_that_may_make_nothing_waits_for_the_owner() {
    let platform = Platform::prepared().await;
    let (command, query) = (services().database(), services().database());
    let new = Platform { prefix: format!("{}n", platform.prefix), command, query };
    new.grant();
    // The script grants what is there: nothing, so far. That one may come in at all is for this test.
    let (worker, projector) = (format!("{}_worker", new.prefix), format!("{}_projector", new.prefix));
    new.command.psql(&format!("GRANT CONNECT ON DATABASE {} TO {worker}", new.command.name()));
    new.query.psql(&format!("GRANT CONNECT ON DATABASE {} TO {projector}", new.query.name()));
    let (worker, projector) = (new.connect(&new.command, "worker"), new.connect(&new.query, "projector"));
    let early = PostgresLog::open(&worker, &DEPLOYMENT).await.err().unwrap();
    assert!(matches!(early, OpenError::Unprepared { .. }) && early.retryable(), "{early}");
    assert!(early.to_string().contains("financing migrate"), "{early}");
    let early = PostgresReadModels::open(&projector, &DEPLOYMENT, MODELS).await.err().unwrap();
    assert!(matches!(early, OpenError::Unprepared { .. }) && early.retryable(), "{early}");
    // It does not make the tables either: the owner does, and grants what is in them.
    let refused = migrate_log(&worker, &DEPLOYMENT).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unprepared { .. }), "{refused}");
    migrate_log(&owner(&new.command), &DEPLOYMENT).await.unwrap();
    migrate_read_models(&owner(&new.query), MODELS).await.unwrap();
    let early = PostgresLog::open(&worker, &DEPLOYMENT).await.err().unwrap();
    assert!(matches!(early, OpenError::Unprepared { .. }) && early.retryable(), "{early}");
    new.grant();
    let later = Deployment { id: Uuid::from_u128(8), ..DEPLOYMENT };
    assert_eq!(PostgresLog::open(&worker, &later).await.unwrap().deployment(), DEPLOYMENT);
    PostgresReadModels::open(&projector, &DEPLOYMENT, MODELS).await.unwrap();
}
