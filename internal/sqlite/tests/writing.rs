//! The writer: groups, bad jobs, cancelled callers, failed commits; many rows a statement.

use super::super::error::port_error;
use super::super::sql::Values;
use super::*;

/// Inserts a row, and fails in the middle where it is told to.
struct Insert {
    number: i64,
    fails: bool,
    runs: Arc<AtomicUsize>,
    commits: Arc<AtomicUsize>,
}

impl Job for Insert {
    type Answer = i64;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<i64> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let insert = sqlx::query("INSERT INTO t (a) VALUES (?)").bind(self.number);
        connection.execute(insert).await.map_err(|error| port_error(&error))?;
        if self.fails { Err(PortError::Content("a bad job".to_owned())) } else { Ok(self.number) }
    }

    fn committed(&self, _answer: &i64) {
        self.commits.fetch_add(1, Ordering::SeqCst);
    }
}

async fn scratch(directory: &Path) -> (Writer, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let path = directory.join("scratch.db");
    let mut connection = connect::writer(&path).await.unwrap();
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT").await.unwrap();
    (Writer::start(&path, connection, Arc::new(|| {})), Arc::default(), Arc::default())
}

async fn numbers(directory: &Path) -> Vec<u64> {
    let mut connection = connect::writer(&directory.join("scratch.db")).await.unwrap();
    let found = rows(&mut connection, "SELECT a FROM t ORDER BY a", Values::default()).await.unwrap();
    found.iter().map(|row| count(row, 0).unwrap()).collect()
}

#[tokio::test]
async fn a_bad_job_harms_nobody_else_in_its_group() {
    let directory = temporary();
    let (writer, runs, commits) = scratch(directory.path()).await;
    let job = |number| Insert {
        number,
        fails: number == 3,
        runs: Arc::clone(&runs),
        commits: Arc::clone(&commits),
    };
    // Polled together before the writer's task runs: one group.
    let answers = futures_util::future::join_all((0..6).map(|number| writer.submit(job(number)))).await;
    for (number, answer) in (0..).zip(answers) {
        let expected = if number == 3 { Err(PortError::Content("a bad job".to_owned())) } else { Ok(number) };
        assert_eq!(answer, expected);
    }
    assert_eq!(numbers(directory.path()).await, [0, 1, 2, 4, 5]);
    assert_eq!(commits.load(Ordering::SeqCst), 5);
    assert_eq!(runs.load(Ordering::SeqCst), 4 + 6, "four together up to the bad one, then six alone");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_transaction_open() {
    let directory = temporary();
    let (writer, runs, commits) = scratch(directory.path()).await;
    let job =
        |number| Insert { number, fails: false, runs: Arc::clone(&runs), commits: Arc::clone(&commits) };
    {
        let mut abandoned = pin!(writer.submit(job(1)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(abandoned.as_mut().poll(&mut context), Poll::Pending));
    }
    assert_eq!(writer.submit(job(2)).await, Ok(2));
    writer.close().await;
    assert!(matches!(writer.submit(job(3)).await, Err(PortError::Unavailable(_))));
    assert_eq!(numbers(directory.path()).await, [1, 2], "what was submitted has happened, answered or not");
}

/// Ends the writer's transaction under its hands, so that its commit fails.
struct Saboteur;

impl Job for Saboteur {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<()> {
        connection.execute("COMMIT").await.map(|_| ()).map_err(|error| port_error(&error))
    }

    fn committed(&self, (): &()) {}
}

#[tokio::test]
async fn a_commit_that_fails_is_in_doubt_for_everybody_and_the_file_is_opened_again() {
    let directory = temporary();
    let path = directory.path().join("scratch.db");
    let mut connection = connect::writer(&path).await.unwrap();
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT").await.unwrap();
    let doubts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&doubts);
    let doubt = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let writer = Writer::start(&path, connection, doubt);
    let job = |number| Insert { number, fails: false, runs: Arc::default(), commits: Arc::default() };
    let (inserted, sabotaged) =
        futures_util::future::join(writer.submit(job(1)), writer.submit(Saboteur)).await;
    assert!(matches!(inserted, Err(PortError::Unavailable(_))), "{inserted:?}");
    assert!(matches!(sabotaged, Err(PortError::Unavailable(_))), "{sabotaged:?}");
    assert!(doubts.load(Ordering::SeqCst) > 0);
    assert_eq!(writer.submit(job(2)).await, Ok(2), "the next one finds a new connection");
    assert_eq!(numbers(directory.path()).await, [1, 2], "it may or may not have happened: here it had");
}

#[tokio::test]
async fn a_full_disk_says_so() {
    let directory = temporary();
    let mut connection = connect::writer(&directory.path().join("some.db")).await.unwrap();
    connection.execute("CREATE TABLE t (a BLOB)").await.unwrap();
    connection.execute("PRAGMA max_page_count = 3").await.unwrap();
    let error = connection.execute("INSERT INTO t VALUES (zeroblob(100000))").await.unwrap_err();
    assert!(matches!(port_error(&error), PortError::Full(_)), "{error}");
    let error = connection.execute("INSERT INTO t VALUES (zeroblob(2000000000))").await.unwrap_err();
    assert!(matches!(port_error(&error), PortError::Content(_)), "{error}");
}

#[tokio::test]
async fn any_number_of_rows_is_written_and_found() {
    static INSERT: Many =
        Many::new("INSERT INTO t (a) SELECT * FROM (VALUES ", 1, ") WHERE column1 IS NOT NULL");
    static FIND: Many = Many::new("SELECT t.a FROM (VALUES ", 1, ") AS v CROSS JOIN t ON t.a = v.column1");
    let directory = temporary();
    for rows in [0_i64, 1, 7, 129, 256, 257, 1000] {
        let path = directory.path().join(format!("{rows}.db"));
        let mut connection = connect::writer(&path).await.unwrap();
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT").await.unwrap();
        let items: Vec<i64> = (1..=rows).collect();
        INSERT.execute(&mut connection, &items, |values, item| values.int(*item)).await.unwrap();
        let found = FIND.fetch(&mut connection, &items, |values, item| values.int(*item)).await.unwrap();
        let found: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
        assert_eq!(found, items);
    }
}
