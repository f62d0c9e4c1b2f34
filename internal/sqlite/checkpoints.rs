//! The policies' checkpoints, beside the log.
//!
//! The rule this module protects: a checkpoint moves from where its reader remembers it, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{CheckpointMove, Checkpoints, PortResult};
use sqlx::sqlite::SqliteConnection;

use super::log::{SqliteLog, partition};
use super::sql::{Many, Values, count, rounds};
use super::writer::Job;

static LOAD: Many = Many::new(
    "SELECT c.partition, c.sequence FROM (VALUES ",
    2,
    ") AS v CROSS JOIN checkpoints AS c ON c.reader = v.column1 AND c.partition = v.column2",
);

static BEGIN: Many = Many::new(
    "INSERT INTO checkpoints (reader, partition, sequence) SELECT column1, column2, 0 FROM (VALUES ",
    2,
    ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
);

static ADVANCE: Many = Many::new(
    "UPDATE OR FAIL checkpoints SET sequence = v.column4 FROM (VALUES ",
    4,
    ") AS v WHERE checkpoints.reader = v.column1 AND checkpoints.partition = v.column2 \
     AND checkpoints.sequence = v.column3 RETURNING partition",
);

impl Checkpoints for SqliteLog {
    async fn load(&self, reader: &str, partitions: &[Partition]) -> PortResult<Vec<(Partition, Sequence)>> {
        let mut connection = self.0.reader().await?;
        load(&mut connection, reader, partitions).await
    }

    async fn advance(&self, reader: &str, moves: &[CheckpointMove]) -> PortResult<Vec<bool>> {
        if moves.is_empty() {
            return Ok(Vec::new());
        }
        self.0.writer.submit(Advance { reader: reader.to_owned(), moves: moves.to_vec() }).await
    }
}

/// How far a reader has come; zero where it has not begun.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    reader: &str,
    partitions: &[Partition],
) -> PortResult<Vec<(Partition, Sequence)>> {
    let rows =
        LOAD.fetch(connection, partitions, |values, partition| key(values, reader, *partition)).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert(partition(row, 0)?, Sequence::new(count(row, 1)?));
    }
    Ok(partitions.iter().map(|one| (*one, found.get(one).copied().unwrap_or_default())).collect())
}

/// Moves checkpoints by compare-and-set. One answer a move, in order.
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    reader: &str,
    steps: &[CheckpointMove],
) -> PortResult<Vec<bool>> {
    let first: Vec<Partition> =
        steps.iter().filter(|step| step.from == Sequence::ZERO).map(|step| step.partition).collect();
    BEGIN.execute(connection, &first, |values, partition| key(values, reader, *partition)).await?;
    let mut answers = vec![false; steps.len()];
    for round in rounds(steps, |step| step.partition) {
        let round: Vec<(usize, CheckpointMove)> =
            round.iter().filter_map(|index| Some((*index, *steps.get(*index)?))).collect();
        let rows = ADVANCE
            .fetch(connection, &round, |values, (_, step)| {
                key(values, reader, step.partition)?;
                values.count(step.from.get())?;
                values.count(step.to.get())
            })
            .await?;
        let moved: BTreeSet<Partition> =
            rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
        for (index, step) in round {
            if let Some(answer) = answers.get_mut(index) {
                *answer = moved.contains(&step.partition);
            }
        }
    }
    Ok(answers)
}

fn key(values: &mut Values, reader: &str, partition: Partition) -> PortResult<()> {
    values.text(reader)?;
    values.count(u64::from(partition.index()))
}

struct Advance {
    reader: String,
    moves: Vec<CheckpointMove>,
}

impl Job for Advance {
    type Answer = Vec<bool>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        advance(connection, &self.reader, &self.moves).await
    }

    fn committed(&self, _answer: &Self::Answer) {}
}
