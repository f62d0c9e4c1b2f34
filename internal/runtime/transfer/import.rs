//! `financing import`: a platform's event log from lines of JSON.
//!
//! The rule this module protects: nothing of it is anybody's log before the last line was read and every byte, every sequence and
//! every version was as it has to be.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::PathBuf;

use clap::Args;
use eventsourcing::transfer::text::{Decoder, MAX_LINE, Read, TextError};
use eventsourcing::transfer::{Contents, LogTarget, Totals};
use indicatif::ProgressBar;

use super::{STANDARD, bar, summary, wrongly};
use crate::runtime::client::ClientError;
use crate::runtime::distributed::arrive;
use crate::runtime::settings::{CommandDatabase, NatsSettings};
use crate::runtime::stores::POLICIES;
use crate::sqlite::SqliteImport;

/// Records written at once, and bytes of lines.
const RECORDS: usize = 1024;
const BYTES: usize = 4 * 1024 * 1024;

/// Examples of it.
const EXAMPLES: &str = "Examples:\n  financing import --data-dir data --input log.jsonl\n  financing import --command-database-url postgres://… \
                        --nats-url nats://… --input log.jsonl\n  gunzip < log.jsonl.gz | financing import --data-dir data";

/// What is to be done when it is there.
const NEXT: &str = "next";
const THEN: &str = "then";

/// What to import, and where to.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Make the event log of a platform from what `financing export` has written: into a directory, for an embedded \
                  platform; or into a database, for a distributed one. There must be no platform yet. All of it is written or nothing: \
                  an import that was killed is begun anew, and no platform starts on what it has left behind.\n\nThe database is \
                  written by the owner of its tables, which are made where there are none. NATS has to have no streams of a \
                  platform: the relayer makes the bus from the log, and the projector the read models."
)]
pub struct ImportArguments {
    /// The directory of an embedded platform; it is made where there is none
    #[arg(long, env = "FINANCING_DATA_DIR", conflicts_with = "command_database_url")]
    data_dir: Option<PathBuf>,
    /// Where the event log will be
    #[command(flatten)]
    command: CommandDatabase,
    /// How to reach NATS
    #[command(flatten)]
    nats: Box<NatsSettings>,
    /// The file to read; - is standard input
    #[arg(long, default_value = STANDARD)]
    input: String,
}

fn failed(reason: impl Display) -> ClientError {
    ClientError::Failed(reason.to_string())
}

/// Imports a log.
///
/// # Errors
///
/// When what is read is not a whole export, or there is a platform already, or it cannot be written.
pub async fn run(arguments: ImportArguments) -> Result<String, ClientError> {
    let ImportArguments { data_dir, command, nats, input } = arguments;
    if data_dir.is_none() && command.command_database_url.is_none() {
        return Err(wrongly("say where to: --data-dir, or --command-database-url"));
    }
    let mut lines = Lines::open(&input)?;
    let (decoder, contents) = Decoder::begin(lines.next()?).map_err(failed)?;
    let reading = Reading { lines, decoder, contents: contents.clone() };
    let partitions = contents.deployment.partitions;
    let (totals, next) = if let Some(directory) = data_dir {
        let target = SqliteImport::begin(&directory, &contents, POLICIES).await.map_err(failed)?;
        let directory = directory.display();
        let start = format!("financing --data-dir {directory} --partitions {partitions}");
        let verify = format!("financing verify --data-dir {directory}");
        (reading.into_target(target).await?, [(NEXT, start), (THEN, verify)])
    } else {
        let target = arrive(&command, &nats, &contents).await.map_err(failed)?;
        let start = format!("run scripts/roles.sql, and start every process with --partitions {partitions}");
        (reading.into_target(target).await?, [(NEXT, start), (THEN, "financing verify".to_owned())])
    };
    Ok(summary("imported", &contents, &totals, &next))
}

/// A text that is being read.
struct Reading {
    lines: Lines,
    decoder: Decoder,
    contents: Contents,
}

impl Reading {
    async fn into_target(mut self, mut target: impl LogTarget) -> Result<Totals, ClientError> {
        let bar = bar("importing", &self.contents);
        let copied = self.copy(&mut target, &bar).await;
        let done = match copied {
            Ok(totals) => {
                bar.set_message("checking");
                let finished = target.finish().await.map(|()| totals);
                finished.map_err(|error| failed(format!("the import did not come to its end: {error}")))
            }
            Err(error) => match target.abandon().await {
                Ok(()) => Err(failed(format!("nothing was imported: {error}"))),
                Err(left) => Err(failed(format!("{error}; and what was written is still there: {left}"))),
            },
        };
        bar.finish_and_clear();
        done
    }

    async fn copy(&mut self, target: &mut impl LogTarget, bar: &ProgressBar) -> Result<Totals, ClientError> {
        loop {
            let (mut batch, mut bytes, mut end) = (Vec::new(), 0, None);
            while end.is_none() && batch.len() < RECORDS && bytes < BYTES {
                let line = self.lines.next()?;
                bytes += line.len();
                match self.decoder.next(line).map_err(failed)? {
                    Read::Record(carried) => batch.push(*carried),
                    Read::End(totals) => end = Some(totals),
                }
            }
            let records = batch.len() as u64;
            if !batch.is_empty() {
                target.append(batch).await.map_err(failed)?;
            }
            bar.inc(records);
            if let Some(totals) = end {
                if !self.lines.next()?.is_empty() {
                    return Err(failed(TextError::More));
                }
                return Ok(totals);
            }
        }
    }
}

/// The lines of a text.
struct Lines {
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
}

impl Lines {
    fn open(name: &str) -> Result<Self, ClientError> {
        let input: Box<dyn BufRead + Send> = if name == STANDARD {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(name).map_err(|error| failed(format!("{name}: {error}")))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Ok(Self { input, line: Vec::new() })
    }

    /// The next line, with its line feed; empty at the end.
    fn next(&mut self) -> Result<&[u8], ClientError> {
        self.line.clear();
        let read = self.input.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut self.line);
        read.map_err(|error| failed(format!("the export cannot be read: {error}")))?;
        Ok(&self.line)
    }
}
