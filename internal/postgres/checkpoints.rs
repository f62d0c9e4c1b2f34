//! The policies' checkpoints, beside the log.
//!
//! The rule this module protects: a checkpoint moves from where its reader remembers it, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{CheckpointMove, Checkpoints, PortResult};

use super::log::PostgresLog;
use super::sql::{Values, count, counts, indices, partition};

const LOAD: &str =
    "SELECT partition, sequence FROM checkpoints WHERE reader = $1::text AND partition = ANY($2::int[])";

/// Who begins has no row yet, or was set back to zero. Of two that begin at the same time the second waits, and finds that
/// the checkpoint is not at zero.
const ADVANCE: &str = "WITH step AS MATERIALIZED (SELECT * FROM unnest($2::int[], $3::bigint[], $4::bigint[]) \
     AS s(partition, origin, target)), \
     begun AS (INSERT INTO checkpoints (reader, partition, sequence) \
     SELECT $1::text, partition, target FROM step WHERE origin = 0 ORDER BY partition \
     ON CONFLICT (reader, partition) DO UPDATE SET sequence = excluded.sequence WHERE checkpoints.sequence = 0 \
     RETURNING partition), \
     moved AS (UPDATE checkpoints c SET sequence = s.target FROM step s WHERE c.reader = $1::text \
     AND c.partition = s.partition AND c.sequence = s.origin AND s.origin > 0 RETURNING c.partition) \
     SELECT partition FROM begun UNION ALL SELECT partition FROM moved";

impl Checkpoints for PostgresLog {
    async fn load(&self, reader: &str, partitions: &[Partition]) -> PortResult<Vec<(Partition, Sequence)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let values = Values::default().and(reader)?.and(indices(partitions, |partition| *partition))?;
        let rows = self.database.rows(LOAD, values).await?;
        let found: BTreeMap<_, _> = rows
            .iter()
            .map(|row| Ok((partition(row, 0)?, Sequence::new(count(row, 1)?))))
            .collect::<PortResult<_>>()?;
        Ok(partitions.iter().map(|one| (*one, found.get(one).copied().unwrap_or_default())).collect())
    }

    async fn advance(&self, reader: &str, moves: &[CheckpointMove]) -> PortResult<Vec<bool>> {
        let mut answers = vec![false; moves.len()];
        // The second of two steps of one partition starts where the first ends: one statement would compare both with
        // the same row.
        for round in rounds(moves) {
            let values = Values::default()
                .and(reader)?
                .and(indices(&round, |(_, step)| step.partition))?
                .and(counts(&round, |(_, step)| step.from.get())?)?
                .and(counts(&round, |(_, step)| step.to.get())?)?;
            let rows = self.database.rows(ADVANCE, values).await?;
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
}

/// The steps with their places, so that no partition comes twice in one round.
fn rounds(moves: &[CheckpointMove]) -> Vec<Vec<(usize, CheckpointMove)>> {
    let mut seen: BTreeMap<Partition, usize> = BTreeMap::new();
    let mut rounds: Vec<Vec<(usize, CheckpointMove)>> = Vec::new();
    for (index, step) in moves.iter().enumerate() {
        let round = seen.entry(step.partition).or_default();
        match rounds.get_mut(*round) {
            Some(steps) => steps.push((index, *step)),
            None => rounds.push(vec![(index, *step)]),
        }
        *round += 1;
    }
    rounds
}
