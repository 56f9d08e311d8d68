//! `leveret store verify`: reads everything, and says what is wrong, where, what it means and what to do.
//!
//! First the log is judged as a start of the server would, which also tells what lives. Then every file is read from
//! front to back, and each message that lives is ticked off. What is left has lost its record.

use super::progress::bar;
use super::{DEFAULT_DATA_DIR, Failure, Log, PROBLEMS, logs, server_on};
use crate::serve::thousands;
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{Now, ShardId};
use broker::shard::{Recovery, Roll, Shard, ShardSettings};
use bytes::Bytes;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use store::{OpenError, Problem, Record, SegmentLog, Verdict, Walked, What};

/// What to check.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// A data directory, or one log in it
    #[arg(value_name = "DIR", env = "LEVERET_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    directory: PathBuf,
}

/// What was found in all logs.
#[derive(Debug, Default)]
struct Sum {
    problems: u64,
    queues: u64,
    messages: u64,
    live_bytes: u64,
    bytes: u64,
    segments: u64,
    facts: Vec<(ShardId, Bytes, Bytes)>,
    /// The facts of all logs are known.
    is_complete: bool,
}

pub(super) fn run(flags: &Flags, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let directory = &flags.directory;
    let logs = logs(directory)?;
    refuse_if_running(directory, "is running on")?;
    let mut sum = Sum { is_complete: true, ..Sum::default() };
    let mut shards = 0;
    for log in &logs {
        for missing in shards..log.shard {
            if logs.len() > 1 || directory != &log.directory {
                sum.problem(
                    out,
                    &format!(
                        "{}: there is no shard-{missing}, and there are later ones. Its queues are lost. Restore the \
                     directory from a backup",
                        directory.display()
                    ),
                )?;
            }
        }
        shards = log.shard.saturating_add(1);
        sum.log(log, out)?;
    }
    if sum.is_complete && logs[0].directory != *directory {
        let facts = std::mem::take(&mut sum.facts);
        if let Err(corrupt) = Catalog::recover(shards, 1, facts, &mut CatalogOutbox::default()) {
            sum.problem(out, &format!(
                "{}: {corrupt}. No server starts with it. Restore the directory from a backup, or use the version of \
                 Leveret that wrote it",
                directory.display()
            ))?;
        }
    }
    refuse_if_running(directory, "was started meanwhile on")?;
    sum.print(logs.len(), out)?;
    Ok(if sum.problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS) })
}

/// What a running server's files hold changes while they are read.
fn refuse_if_running(directory: &std::path::Path, running: &str) -> Result<(), Failure> {
    let Some(holder) = server_on(directory)? else { return Ok(()) };
    Err(Failure::Sentence(format!(
        "a server {running} {} ({holder}), and its files change while they are read. Stop it first; or make a copy with \
         `leveret ctl backup COPY` and verify that",
        directory.display()
    )))
}

impl Sum {
    fn log(&mut self, log: &Log, out: &mut impl Write) -> Result<(), Failure> {
        let shown = log.directory.display().to_string();
        let id = ShardId(log.shard);
        let mut recovery: Recovery =
            Shard::<SegmentLog>::recover(id, ShardSettings::default(), Now { ms: 0, unix_ms: 0 });
        let mut inspection = log.inspection();
        if !inspection.has_log()? {
            return Ok(());
        }
        let mut replay = |lsn, record: Record<'_>| recovery.replay(lsn, record);
        let mut roll = match inspection.judge(&mut replay, bar(format!("replaying {shown}"))) {
            Ok(verdict) => {
                notes(&verdict, out)?;
                match recovery.roll() {
                    Ok(roll) => Some(roll),
                    Err(error) => {
                        self.problem(out, &format!(
                            "{shown}: {error}. No server starts with it. Restore the directory from a backup, or use \
                             the version of Leveret that wrote it"
                        ))?;
                        None
                    }
                }
            }
            // The walk tells it, and what else is wrong.
            Err(OpenError::Corrupt { .. } | OpenError::NotALog { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let mut live_bytes = 0;
        let mut see = |seen: store::Seen<'_>| {
            if let (Some(roll), What::Record(Record::Message { places, payload, .. }, _)) = (&mut roll, seen.what)
                && roll.tick(seen.lsn, places, payload) > 0
            {
                live_bytes += seen.bytes;
            }
        };
        let walked = inspection.walk(&mut see, bar(format!("verifying {shown}")))?;
        self.bytes += walked.bytes;
        self.segments += walked.segments;
        self.live_bytes += live_bytes;
        for problem in &walked.problems {
            self.problem(out, &sentence(problem))?;
        }
        match roll {
            Some(roll) => self.roll(id, &shown, roll, &walked, out),
            None => {
                self.is_complete = false;
                writeln!(out, "note: {shown}: which messages live cannot be told, so references were not checked")?;
                Ok(())
            }
        }
    }

    fn roll(
        &mut self,
        id: ShardId,
        shown: &str,
        mut roll: Roll,
        walked: &Walked,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        self.queues += roll.queues() as u64;
        self.messages += roll.messages;
        self.facts.extend(std::mem::take(&mut roll.facts).into_iter().map(|(key, value)| (id, key, value)));
        let hint = if walked.problems.is_empty() { "" } else { " (see the damage above)" };
        let mut lines = Vec::new();
        let mut left_out = 0_u64;
        roll.missing(&mut |missing| {
            let count = missing.seqs.last.0 - missing.seqs.first.0 + 1;
            if lines.len() < MISSING_SHOWN {
                lines.push(format!(
                    "{shown}: of queue '{}' in vhost '{}', {} from seq {} on {} alive, but no whole record with position {} says so\
                     {hint}. They are lost here. Restore the directory from a backup",
                    missing.queue.name,
                    missing.queue.vhost_name,
                    if count == 1 { "the message".to_owned() } else { format!("{} messages", thousands(count)) },
                    missing.seqs.first.0,
                    if count == 1 { "is" } else { "are" },
                    missing.lsn,
                ));
            } else {
                left_out += count;
            }
        });
        for line in lines {
            self.problem(out, &line)?;
        }
        if left_out > 0 {
            self.problem(out, &format!("{shown}: so it is with {} more messages", thousands(left_out)))?;
        }
        Ok(())
    }

    fn problem(&mut self, out: &mut impl Write, line: &str) -> Result<(), Failure> {
        self.problems += 1;
        Ok(writeln!(out, "{line}")?)
    }

    fn print(&self, logs: usize, out: &mut impl Write) -> Result<(), Failure> {
        let count =
            |number: u64, noun: &str| format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" });
        let verdict = match self.problems {
            0 => "sound".to_owned(),
            problems => count(problems, "problem"),
        };
        let (logs, segments) = (count(logs as u64, "log"), count(self.segments, "segment"));
        let (queues, messages) = (count(self.queues, "queue"), count(self.messages, "message"));
        writeln!(
            out,
            "{verdict}: {logs}, {segments}, {queues}, {messages}; {} bytes read, of which live messages take {}",
            thousands(self.bytes),
            thousands(self.live_bytes)
        )?;
        Ok(())
    }
}

/// What is no problem, and still worth knowing.
fn notes(verdict: &Verdict, out: &mut impl Write) -> Result<(), Failure> {
    if let Some(cut) = &verdict.cut {
        writeln!(
            out,
            "note: {}: {} bytes from byte {} on are the end of a write that did not finish, as a crash or power cut \
             leaves it. Nobody was told that they are durable; the next start cuts them off",
            cut.file,
            thousands(cut.bytes),
            cut.offset
        )?;
    }
    for file in &verdict.garbage {
        writeln!(out, "note: {file} is not needed any more, or was never finished; the next start removes it")?;
    }
    Ok(())
}

fn sentence(problem: &Problem) -> String {
    let Problem { file, offset, why, loses } = problem;
    let meaning = if *loses {
        "Messages that were durable may be lost there. Restore the directory from a backup"
    } else {
        "Nothing is lost: it only makes reading faster, and a server does without it. Check the disk"
    };
    format!("{file}, at byte {offset}: {why}. {meaning}")
}

/// Each further one would only repeat it.
const MISSING_SHOWN: usize = 100;
