//! What is on disk: locks the data directory, opens each shard's log, and makes shards, catalog and topology of what
//! they hold.
//!
//! ```text
//! leveret-data/            (--data-dir)
//!   lock                   held for as long as the server runs
//!   leveret.sock           the local operator's way in (crate::http)
//!   shard-0/, shard-1/, …  one log each (docs/storage-format.md)
//! ```
//!
//! A directory never loses shards: a server told to use fewer than it finds uses those it finds.

use crate::clock::Clock;
use crate::disk_times::{SyncTimes, TimedDisk};
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::ShardId;
use broker::fact::CorruptFact;
use broker::shard::{Near, Recovery, RecoveryError, Shard, ShardSettings};
use broker::topology::Topology;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};
use store::{
    BackupSource, Caretaker, DirectoryLock, FileDisk, LockError, OpenError, Options, Progress, SegmentLog, Writer,
};

/// Everything that was on disk.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lock: DirectoryLock,
    pub(crate) shards: Vec<OpenedShard>,
    pub(crate) catalog: Catalog,
    pub(crate) topology: Topology,
    /// What the catalog wants done first, such as facts forgotten that mean nothing any more.
    pub(crate) first: CatalogOutbox,
}

/// One shard and the parts of its log that want threads.
#[derive(Debug)]
pub(crate) struct OpenedShard {
    pub(crate) shard: Shard<SegmentLog>,
    pub(crate) writer: Writer<TimedDisk<FileDisk>>,
    pub(crate) caretaker: Caretaker<TimedDisk<FileDisk>>,
    pub(crate) backup: BackupSource,
}

/// Why the data directory cannot be used. Its text is for the operator and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has it, or it cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A record of a log is whole, but means nothing.
    #[error(
        "the log in {directory} holds a record that this version cannot read: {why}. Restore the data directory from a \
         backup, use the version of Leveret that wrote it, or choose another --data-dir; nothing was deleted"
    )]
    Record {
        /// The shard's directory.
        directory: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The directory cannot be listed.
    #[error("cannot read the data directory {directory}: {why}; check its permissions or choose another --data-dir")]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    NoEntropy(getrandom::Error),
}

/// Opens the data directory, with at least that many shards, which share what may be near. Blocks while the logs are read.
pub(crate) fn open(
    directory: &Path,
    shards_min: u16,
    settings: &ShardSettings,
    clock: Clock,
    times: &Arc<SyncTimes>,
) -> Result<Opened, StorageError> {
    let lock = DirectoryLock::acquire(directory, &httpdate::fmt_http_date(SystemTime::now()))?;
    let shards = shards_min.max(shards_in(directory)?);
    let Near { bytes, idle_bytes, .. } = settings.near;
    let share = |bytes: u64| bytes / u64::from(shards);
    let near = Near { bytes: share(bytes), idle_bytes: share(idle_bytes.min(bytes)), ..settings.near };
    let settings = ShardSettings { shards, near, ..settings.clone() };
    let opened: Vec<Result<_, StorageError>> = thread::scope(|scope| {
        let open = |id| {
            let (path, settings, times) = (shard_directory(directory, id), settings.clone(), Arc::clone(times));
            scope.spawn(move || open_shard(&path, ShardId(id), settings, clock, times))
        };
        let threads: Vec<_> = (0..shards).map(open).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let (mut shards, mut facts, mut epoch) = (Vec::new(), Vec::new(), 0);
    for (id, opened) in (0..).map(ShardId).zip(opened) {
        let (shard, shard_facts, shard_epoch) = opened?;
        if id == ShardId(0) {
            epoch = shard_epoch;
        }
        facts.extend(shard_facts.into_iter().map(|(key, value)| (id, key, value)));
        shards.push(shard);
    }
    let mut first = CatalogOutbox::default();
    let count = u16::try_from(shards.len()).expect("counted by a u16");
    let epoch = u32::try_from(epoch).map_err(|_| damaged(directory, "it was opened too many times"))?;
    let (catalog, topology) = Catalog::recover(count, epoch, facts, &mut first)
        .map_err(|why: CorruptFact| damaged(directory, &why.to_string()))?;
    Ok(Opened { lock, shards, catalog, topology, first })
}

type ShardParts = (OpenedShard, Vec<(Bytes, Bytes)>, u64);

fn open_shard(
    directory: &Path,
    id: ShardId,
    settings: ShardSettings,
    clock: Clock,
    times: Arc<SyncTimes>,
) -> Result<ShardParts, StorageError> {
    let mut salt = [0; 4];
    getrandom::fill(&mut salt).map_err(StorageError::NoEntropy)?;
    let secret = || getrandom::u64().map_err(StorageError::NoEntropy);
    let settings = ShardSettings { hash_secret: [secret()?, secret()?], ..settings };
    let options = Options {
        salt: u32::from_ne_bytes(salt),
        progress: Some(Box::new(progress_of(directory.to_owned()))),
        ..Options::default()
    };
    let disk = TimedDisk::new(FileDisk::open(directory)?, times);
    let mut recovery: Recovery = Shard::<SegmentLog>::recover(id, settings, clock.now());
    let opened = SegmentLog::open(disk, options, &mut |lsn, record| recovery.replay(lsn, record))?;
    if let Some(cut) = &opened.report.cut {
        tracing::warn!(
            "the end of {} was not whole: {} bytes from byte {} on were cut off. After a crash or power cut these are \
             writes that nobody was told are durable; if there was none, the disk damaged the file and messages may be \
             lost",
            cut.file,
            cut.bytes,
            cut.offset
        );
    }
    let (shard, facts) = recovery
        .finish(opened.log, opened.report.clean)
        .map_err(|why: RecoveryError| damaged(directory, &why.to_string()))?;
    shard.store().check_retained()?;
    let shard = OpenedShard { shard, writer: opened.writer, caretaker: opened.caretaker, backup: opened.backup };
    Ok((shard, facts, opened.report.epoch))
}

fn damaged(directory: &Path, why: &str) -> StorageError {
    StorageError::Record { directory: directory.to_owned(), why: why.to_owned() }
}

/// Says once a second how far it is.
fn progress_of(directory: PathBuf) -> impl FnMut(Progress) {
    let mut last = Instant::now();
    move |progress| {
        if last.elapsed() >= PROGRESS_EVERY {
            last = Instant::now();
            let percent = progress.read_bytes.saturating_mul(100) / progress.total_bytes.max(1);
            let total = progress.total_bytes >> 20;
            tracing::info!("reading the log in {}: {percent} % of {total} MiB", directory.display());
        }
    }
}

/// One more than the highest shard that the directory has.
fn shards_in(directory: &Path) -> Result<u16, StorageError> {
    let unreadable = |why| StorageError::Unreadable { directory: directory.to_owned(), why };
    let mut count = 0;
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")).and_then(|id| id.parse::<u16>().ok());
        count = count.max(number.map_or(0, |id| id.saturating_add(1)));
    }
    Ok(count)
}

fn shard_directory(directory: &Path, id: u16) -> PathBuf {
    directory.join(format!("shard-{id}"))
}

const PROGRESS_EVERY: Duration = Duration::from_secs(1);
