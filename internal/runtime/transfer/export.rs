//! `financing export`: the event log as lines of JSON.
//!
//! The rule this module protects: a file under the name that was asked for is a whole export. Until then it has another name; and
//! what goes to standard output ends without its last line where it is not whole.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use eventsourcing::partition::Sequence;
use eventsourcing::transfer::text::Encoder;
use eventsourcing::transfer::{Contents, LogSource, Totals};
use indicatif::ProgressBar;

use super::{STANDARD, bar, finish, summary, wrongly};
use crate::runtime::client::ClientError;
use crate::runtime::distributed::Leaving;
use crate::runtime::settings::{CommandDatabase, NatsSettings};
use crate::runtime::stores::POLICIES;
use crate::sqlite::SqliteExport;

/// The embedded platform's directory, where nothing is named.
const DATA_DIR: &str = "./data";

/// Records read at once.
const PAGE: usize = 512;

/// Examples of it.
const EXAMPLES: &str = "Examples:\n  financing export --data-dir data --finish --output log.jsonl\n  financing export --command-database-url \
                        postgres://… --output log.jsonl\n  financing export | gzip > log.jsonl.gz";

/// What to export, and where to.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Write the whole event log of a platform that has stopped as lines of JSON: records, outcomes of commands, and a \
                  checksum. `financing import` makes a platform of it, in either topology. Read models, bus and snapshots are not in \
                  it, because they are made from it again.\n\nWithout a database it is the embedded platform in --data-dir; with the \
                  event log's database it is the distributed one, of which NATS says whether anything waits.\n\nRefused while \
                  processes run, and while the queue has commands without an outcome: see --finish."
)]
pub struct ExportArguments {
    /// The directory of the embedded platform [default: ./data]
    #[arg(long, env = "FINANCING_DATA_DIR", conflicts_with = "command_database_url")]
    data_dir: Option<PathBuf>,
    /// Where the event log is
    #[command(flatten)]
    command: CommandDatabase,
    /// How to reach NATS
    #[command(flatten)]
    nats: Box<NatsSettings>,
    /// The file to write, which must not be there yet; - is standard output
    #[arg(long, default_value = STANDARD)]
    output: String,
    /// Work off first what the embedded platform has accepted, taking nothing new
    #[arg(long, conflicts_with = "command_database_url")]
    finish: bool,
}

fn failed(reason: impl Display) -> ClientError {
    ClientError::Failed(reason.to_string())
}

/// Exports a log.
///
/// # Errors
///
/// When something runs or waits, or cannot be read or written.
pub async fn run(arguments: ExportArguments) -> Result<String, ClientError> {
    let ExportArguments { data_dir, command, nats, output, finish } = arguments;
    let mut output = Output::open(&output)?;
    let (contents, totals, notes) = if command.command_database_url.is_some() {
        let mut leaving = Leaving::begin(&command, &nats).await.map_err(failed)?;
        let contents = leaving.source.contents().clone();
        let encoder = write(&mut leaving.source, &contents, &mut output).await?;
        // Whoever sends meanwhile sends to a platform that is left: in this order, because what is not in the queue any more is in the log.
        leaving.nothing_waits().await.map_err(failed)?;
        leaving.unchanged().await.map_err(failed)?;
        let totals = end(encoder, &contents, &mut output)?;
        let stays = leaving.stays_behind().await.map_err(failed)?;
        (contents, totals, stays.into_iter().map(|what| ("stays", what)).collect())
    } else {
        let directory = data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR));
        if finish {
            finish::finish(&directory).await.map_err(failed)?;
        }
        let mut source = SqliteExport::open(&directory, POLICIES).await.map_err(failed)?;
        let waiting = source.waiting().await.map_err(failed)?;
        if waiting > 0 {
            return Err(failed(format!(
                "{waiting} commands were accepted and have no outcome yet: only the command queue has them, and it is not exported. \
                 Say --finish, and they are worked off first"
            )));
        }
        let contents = source.contents().clone();
        let encoder = write(&mut source, &contents, &mut output).await?;
        let totals = end(encoder, &contents, &mut output)?;
        source.close().await.map_err(failed)?;
        (contents, totals, Vec::new())
    };
    output.close(&summary("exported", &contents, &totals, &notes))
}

/// Writes everything but the last line.
async fn write(
    source: &mut impl LogSource,
    contents: &Contents,
    output: &mut Output,
) -> Result<Encoder, ClientError> {
    let bar = bar("exporting", contents);
    let written = records(source, contents, output, &bar).await;
    bar.finish_and_clear();
    written
}

async fn records(
    source: &mut impl LogSource,
    contents: &Contents,
    output: &mut Output,
    bar: &ProgressBar,
) -> Result<Encoder, ClientError> {
    let mut page = Vec::new();
    let mut encoder = Encoder::begin(contents, env!("CARGO_PKG_VERSION"), &mut page);
    for share in &contents.shares {
        let mut at = Sequence::ZERO;
        while at < share.head {
            let carried = source.read(share.partition, at, PAGE).await.map_err(failed)?;
            let before = at;
            for carried in &carried {
                if carried.record.sequence != at.next() {
                    break;
                }
                at = carried.record.sequence;
                encoder.record(carried, &mut page).map_err(failed)?;
            }
            if carried.last().is_none_or(|last| last.record.sequence != at) {
                let partition = share.partition;
                return Err(failed(format!(
                    "the log has a gap: nothing follows {partition}-{at}, and it ends at {partition}-{}; see `financing verify`",
                    share.head
                )));
            }
            output.write(&page)?;
            page.clear();
            bar.inc(at.get().saturating_sub(before.get()));
        }
    }
    output.write(&page)?;
    Ok(encoder)
}

fn end(encoder: Encoder, contents: &Contents, output: &mut Output) -> Result<Totals, ClientError> {
    let mut line = Vec::new();
    let totals = encoder.end(&mut line);
    if totals.commands != contents.commands {
        return Err(failed(format!(
            "the inbox has {} outcomes, and the log {}: see `financing verify`",
            contents.commands, totals.commands
        )));
    }
    output.write(&line)?;
    Ok(totals)
}

/// Where the lines go.
enum Output {
    Standard(BufWriter<std::io::Stdout>),
    File { file: BufWriter<File>, part: PathBuf, whole: PathBuf, kept: bool },
}

impl Output {
    fn open(name: &str) -> Result<Self, ClientError> {
        if name == STANDARD {
            return Ok(Self::Standard(BufWriter::new(std::io::stdout())));
        }
        // (Two that were told the same name must not write one file.)
        let (whole, part) =
            (PathBuf::from(name), PathBuf::from(format!("{name}.{}.part", std::process::id())));
        if whole.exists() {
            return Err(wrongly(&format!("{name} is there already: name another file")));
        }
        let file = File::create_new(&part).map_err(|error| failed(format!("{}: {error}", part.display())))?;
        Ok(Self::File { file: BufWriter::new(file), part, whole, kept: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let written = match self {
            Self::Standard(out) => out.write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
        };
        written.map_err(|error| failed(format!("the export cannot be written: {error}")))
    }

    /// All is written: it is on disk, and has its name. Answers with what is left to print.
    fn close(mut self, summary: &str) -> Result<String, ClientError> {
        let unwritten = |error: std::io::Error| failed(format!("the export cannot be written: {error}"));
        match &mut self {
            Self::Standard(out) => {
                out.flush().map_err(unwritten)?;
                // Standard output is the export; and whether anybody reads this is nothing to fail for.
                let _told = std::io::stderr().write_all(summary.as_bytes());
                Ok(String::new())
            }
            Self::File { file, part, whole, kept } => {
                file.flush().and_then(|()| file.get_ref().sync_all()).map_err(unwritten)?;
                // Who was faster keeps what is theirs.
                fs::hard_link(&*part, &*whole).map_err(unwritten)?;
                fs::remove_file(&*part).map_err(unwritten)?;
                *kept = true;
                let folder = whole.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or_else(|| Path::new("."));
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritten)?;
                Ok(summary.to_owned())
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File { part, kept: false, .. } = self {
            // It is no export, and its name says so, too.
            let _left = fs::remove_file(part);
        }
    }
}
