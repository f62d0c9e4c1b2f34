//! A whole log, brought here.
//!
//! The rule this module protects: all of it is one transaction, so it is there when it is whole and checked, and not before. A table
//! that is made first and goes with that transaction says that an import was begun: where somebody was killed in the middle, no
//! process of the platform starts on the empty log that is left.

use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortError, PortResult};
use eventsourcing::record::Record;
use eventsourcing::transfer::{Carried, Contents, LogTarget, Share};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};

use super::commit::of_records;
use super::connect::{Connect, Session};
use super::error::{OpenError, port_error};
use super::export::refuse_running;
use super::migrate;
use super::sql::{Values, counts, each, indices, signed};

/// It is the transaction of one who reads a file, and what it does may take long: checking millions of records, say.
const PATIENT: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '10s'; \
     SET enable_seqscan = on";

/// What says that an import was begun.
const MARK: &str =
    "CREATE TABLE IF NOT EXISTS import_under_way (begun_at timestamptz NOT NULL DEFAULT clock_timestamp())";

const UNMARK: &str = "DROP TABLE import_under_way";

/// Nobody writes meanwhile, whoever has opened the database before.
const LOCK: &str = "LOCK TABLE deployment, partitions, records, inbox, snapshots, checkpoints, foreign_positions IN EXCLUSIVE MODE";

/// What may not be there, and what it is called.
const EMPTY: [(&str, &str); 5] = [
    ("records", "SELECT EXISTS (SELECT FROM records)"),
    ("outcomes of commands", "SELECT EXISTS (SELECT FROM inbox)"),
    ("checkpoints of policies", "SELECT EXISTS (SELECT FROM checkpoints)"),
    ("a position in another context's stream", "SELECT EXISTS (SELECT FROM foreign_positions)"),
    (
        "a position in a command queue",
        "SELECT EXISTS (SELECT FROM partitions WHERE queue_created_at IS NOT NULL)",
    ),
];

/// The rows of an empty log are replaced. Epochs go on: whoever owned a partition of that log owns none of this one.
const PARTITIONS: &str = "WITH old AS (DELETE FROM partitions RETURNING epoch) \
     SELECT COALESCE(max(epoch), 0) + 1 FROM old";

const HEADS: &str = "INSERT INTO partitions (partition, epoch, head) SELECT v.partition, $3::bigint, v.head \
     FROM unnest($1::int[], $2::bigint[]) AS v(partition, head)";

const REACTED: &str = "INSERT INTO checkpoints (reader, partition, sequence) SELECT $1::text, v.partition, v.sequence \
     FROM unnest($2::int[], $3::bigint[]) AS v(partition, sequence)";

const RECORDS: &str = "INSERT INTO records (partition, sequence, record_id, recorded_at, aggregate_type, aggregate_id, version, \
     event_type, schema, data, command_id, correlation_id, causation_id, actor, traceparent, last_of_command) \
     SELECT * FROM unnest($1::int[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::uuid[], $7::bigint[], \
     $8::text[], $9::int[], $10::text[], $11::uuid[], $12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::bool[])";

const INBOX: &str = "INSERT INTO inbox (command_id, fingerprint, partition, sequence, verdict) \
     SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::int[], $4::bigint[], $5::text[])";

/// What only the whole can show. None of them may find anything.
const WRONG: [(&str, &str); 3] = [
    (
        "the versions of an aggregate have gaps",
        "SELECT EXISTS (SELECT FROM records WHERE version IS NOT NULL GROUP BY aggregate_type, aggregate_id \
         HAVING min(version) <> 1 OR max(version) <> count(*))",
    ),
    ("two records have one id", "SELECT EXISTS (SELECT FROM records GROUP BY record_id HAVING count(*) > 1)"),
    (
        "a partition's row does not name its last record",
        "SELECT EXISTS (SELECT FROM partitions p WHERE p.head <> \
         (SELECT COALESCE(max(r.sequence), 0) FROM records r WHERE r.partition = p.partition))",
    ),
];

/// A log that is being brought into a database.
pub struct PostgresImport {
    connection: PgConnection,
    contents: Contents,
    reader: String,
    epoch: i64,
}

impl PostgresImport {
    /// Begins in a database without a log, or with an empty one, as its owner; makes the tables where there are none. What an
    /// import has left behind that did not end is begun anew. `reader` names the policies' checkpoints.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, has a log with something in it, processes run that work with it, or the role is not
    /// the owner.
    pub async fn begin(connect: &Connect, contents: &Contents, reader: &str) -> Result<Self, OpenError> {
        let mut session = connect.session().await?;
        session.execute(PATIENT).await?;
        if !migrate::allowed(&mut session).await? {
            return Err(OpenError::NotTheOwner { database: session.database });
        }
        migrate::begin(&mut session).await?;
        migrate::apply(&mut session, migrate::LOG).await?;
        is_empty(&mut session).await?;
        session.execute(MARK).await?;
        migrate::commit(&mut session).await?;

        // The second transaction is all of the rest. Whoever opens the database meanwhile sees the mark.
        session.execute("BEGIN").await?;
        session.execute(LOCK).await?;
        is_empty(&mut session).await?;
        session.execute("DELETE FROM deployment").await?;
        let deployment = &contents.deployment;
        super::deployment::write(&mut session, deployment).await?;
        let epoch: i64 = session.one(PARTITIONS).await?;
        let (contents, reader) = (contents.clone(), reader.to_owned());
        Ok(Self { connection: session.into_connection(), contents, reader, epoch })
    }

    async fn run(&mut self, sql: &'static str, values: Values) -> PortResult<()> {
        let done = self.connection.execute(sqlx::query_with(sql, values.0)).await;
        done.map(|_| ()).map_err(|error| port_error(&error))
    }

    async fn check(&mut self) -> PortResult<()> {
        for (what, sql) in WRONG {
            let found = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await;
            let found: bool = found.map_err(|error| port_error(&error))?;
            if found {
                return Err(PortError::Broken(format!("what was exported is no log: {what}")));
            }
        }
        Ok(())
    }
}

/// Refuses a database with anything in it that an import would add to, or that somebody works with.
async fn is_empty(session: &mut Session) -> Result<(), OpenError> {
    for (found, sql) in EMPTY {
        if session.one::<bool>(sql).await? {
            return Err(OpenError::Taken { database: session.database.clone(), found });
        }
    }
    refuse_running(session).await
}

fn partitions(shares: &[Share]) -> Vec<i32> {
    let of = |share: &Share| -> Partition { share.partition };
    indices(shares, of)
}

impl LogTarget for PostgresImport {
    async fn append(&mut self, carried: Vec<Carried>) -> PortResult<()> {
        let records: Vec<&Record> = carried.iter().map(|carried| &carried.record).collect();
        let values = of_records(Values::default(), &records)?;
        self.run(RECORDS, values).await?;
        let entries: Vec<_> = carried.iter().filter_map(|carried| carried.outcome.as_ref()).collect();
        let verdicts = entries.iter().map(|entry| {
            serde_json::to_string(&entry.outcome.verdict)
                .map_err(|error| PortError::Content(error.to_string()))
        });
        let values = Values::default()
            .and(each(&entries, |entry| entry.outcome.command_id))?
            .and(each(&entries, |entry| entry.fingerprint.0.as_slice()))?
            .and(indices(&entries, |entry| entry.outcome.position.partition))?
            .and(counts(&entries, |entry| entry.outcome.position.sequence.get())?)?
            .and(verdicts.collect::<PortResult<Vec<_>>>()?)?;
        self.run(INBOX, values).await
    }

    async fn finish(mut self) -> PortResult<()> {
        let shares = self.contents.shares.clone();
        let heads = Values::default()
            .and(partitions(&shares))?
            .and(counts(&shares, |share| share.head.get())?)?
            .and(signed(u64::try_from(self.epoch).unwrap_or_default())?)?;
        self.run(HEADS, heads).await?;
        let reacted = Values::default()
            .and(self.reader.clone())?
            .and(partitions(&shares))?
            .and(counts(&shares, |share| share.reacted.get())?)?;
        self.run(REACTED, reacted).await?;
        self.check().await?;
        self.run(UNMARK, Values::default()).await?;
        self.run("COMMIT", Values::default()).await?;
        // It is all there: saying goodbye is a courtesy to the server's log.
        let _courtesy = self.connection.close().await;
        Ok(())
    }

    async fn abandon(mut self) -> PortResult<()> {
        self.run("ROLLBACK", Values::default()).await?;
        self.run(UNMARK, Values::default()).await
    }
}
