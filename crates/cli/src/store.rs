//! `leveret store`: looks into a data directory while no server runs on it. Nothing is changed.
//!
//! This and what is below it is the one part of the program that sees logs without a server.

mod dump;
mod progress;
mod verify;

use clap::{Args, Subcommand};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use store::{FileDisk, Inspection, LockError, OpenError};

/// What to do.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Check every checksum and every reference. Exit code 0: sound; 1: there are problems; 2: it cannot be read
    Verify(verify::Flags),
    /// Print every record as a line: file, offset, position and what it says
    Dump(dump::Flags),
}

/// Runs one of the commands.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let ran = match &flags.what {
        What::Verify(flags) => verify::run(flags, &mut out),
        What::Dump(flags) => dump::run(flags, &mut out),
    };
    let ran = ran.and_then(|code| out.flush().map(|()| code).map_err(Failure::from));
    match ran {
        Ok(code) => code,
        // Whoever closed the pipe has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _shown_so_far = out.flush();
            // Nobody is left to tell when this fails.
            let _unseen = writeln!(io::stderr(), "leveret: {failure}");
            ExitCode::from(UNREADABLE)
        }
    }
}

/// Why nothing can be said about a directory.
#[derive(Debug)]
enum Failure {
    Log(OpenError),
    Lock(LockError),
    Sentence(String),
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Sentence(sentence) => f.write_str(sentence),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// One log in a data directory.
#[derive(Debug)]
struct Log {
    /// The number of its shard.
    shard: u16,
    directory: PathBuf,
}

impl Log {
    fn inspection(&self) -> Inspection<FileDisk> {
        Inspection::new(FileDisk::at(&self.directory))
    }
}

/// The logs in a data directory, by number; or the one that is the directory.
fn logs(directory: &Path) -> Result<Vec<Log>, Failure> {
    let unreadable = |error| Failure::Sentence(format!("cannot read {}: {error}", directory.display()));
    let mut logs = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if let Some(shard) = entry.file_name().to_str().and_then(shard_of) {
            logs.push(Log { shard, directory: entry.path() });
        }
    }
    logs.sort_unstable_by_key(|log| log.shard);
    if logs.is_empty() && Inspection::new(FileDisk::at(directory)).has_log()? {
        let name = directory.canonicalize().map_err(unreadable)?;
        let shard = name.file_name().and_then(|name| name.to_str()).and_then(shard_of).unwrap_or(0);
        logs.push(Log { shard, directory: directory.to_owned() });
    }
    if logs.is_empty() {
        let sentence = format!(
            "{} holds no data of Leveret: neither directories named shard-0, shard-1 and so on, nor the files of a log",
            directory.display()
        );
        return Err(Failure::Sentence(sentence));
    }
    Ok(logs)
}

fn shard_of(name: &str) -> Option<u16> {
    name.strip_prefix("shard-")?.parse().ok()
}

/// Who works in the directory, or in the one that it is a part of.
fn server_on(directory: &Path) -> Result<Option<String>, Failure> {
    if let Some(holder) = store::lock_holder(directory)? {
        return Ok(Some(holder));
    }
    match directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) if directory.file_name().and_then(|name| name.to_str()).and_then(shard_of).is_some() => {
            Ok(store::lock_holder(parent)?)
        }
        _ => Ok(None),
    }
}

const DEFAULT_DATA_DIR: &str = "leveret-data";
const PROBLEMS: u8 = 1;
const UNREADABLE: u8 = 2;
