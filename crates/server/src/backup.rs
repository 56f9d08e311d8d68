//! A copy of the data directory while the server runs: a directory that starts as a server.
//!
//! It is made under another name and gets its own when all of it is on disk, so that a copy that was not finished can
//! not be taken for one. One is made at a time, by a thread that nobody waits for.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use store::{BackupSource, Disk, FileDisk, Hold};

/// Makes copies of one data directory.
#[derive(Debug)]
pub(crate) struct Backup {
    data_dir: PathBuf,
    /// Of each shard's log, in order.
    sources: Vec<BackupSource>,
    latest: Mutex<Option<State>>,
}

/// A copy, made or being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Where it will be.
    pub(crate) directory: PathBuf,
    /// How many bytes it has so far, …
    pub(crate) copied_bytes: u64,
    /// … and will have.
    pub(crate) total_bytes: u64,
    /// Whether it is done, or why it never will be.
    pub(crate) end: Option<Result<(), String>>,
}

impl Backup {
    pub(crate) fn new(data_dir: PathBuf, sources: Vec<BackupSource>) -> Self {
        Self { data_dir, sources, latest: Mutex::new(None) }
    }

    /// The copy that was begun last.
    pub(crate) fn latest(&self) -> Option<State> {
        self.state().clone()
    }

    /// Begins a copy at that path, which must be absolute and lead to nothing or to an empty directory.
    ///
    /// # Errors
    /// A sentence that says why it cannot be begun.
    pub(crate) fn begin(self: &Arc<Self>, directory: &Path) -> Result<(), String> {
        let mut latest = self.state();
        if let Some(State { directory, end: None, .. }) = &*latest {
            return Err(format!("another backup is under way, to {}", directory.display()));
        }
        let unfinished = prepare(directory)?;
        let state = State { directory: directory.to_owned(), copied_bytes: 0, total_bytes: 0, end: None };
        *latest = Some(state);
        drop(latest);
        let (backup, to) = (Arc::clone(self), directory.to_owned());
        let work = move || {
            let made = backup.make(&unfinished, &to);
            if made.is_err() {
                // What stays is named in the next refusal.
                let _stays = fs::remove_dir_all(&unfinished);
            }
            match &made {
                Ok(()) => tracing::info!("made a backup in {}", to.display()),
                Err(why) => tracing::warn!("no backup was made: {why}"),
            }
            backup.note(|state| state.end = Some(made));
        };
        thread::Builder::new().name("backup".to_owned()).spawn(work).map(drop).map_err(|error| {
            let why = format!("cannot start a thread: {error}");
            self.note(|state| state.end = Some(Err(why.clone())));
            why
        })
    }

    fn make(&self, unfinished: &Path, directory: &Path) -> Result<(), String> {
        let holds: Option<Vec<Hold>> = self.sources.iter().map(BackupSource::hold).collect();
        let holds = holds.ok_or("the server stops")?;
        let cuts = store::cut(&holds);
        let mut shards = Vec::new();
        for (shard, cut) in cuts.into_iter().enumerate() {
            let name = format!("shard-{shard}");
            let mut from = FileDisk::at(&self.data_dir.join(&name));
            let bytes = cut.bytes(&mut from).map_err(|error| failed("list", &from.path(""), &error))?;
            self.note(|state| state.total_bytes += bytes);
            shards.push((name, from, cut));
        }
        for ((name, mut from, cut), hold) in shards.into_iter().zip(holds) {
            let mut to = FileDisk::open(&unfinished.join(name)).map_err(|error| error.to_string())?;
            let mut each = |bytes| {
                self.note(|state| state.copied_bytes += bytes);
                Ok(())
            };
            let copied = store::copy(&hold, cut, &mut from, &mut to, &mut each);
            copied.map_err(|(file, error)| failed("copy", &file, &error))?;
        }
        let parent = unfinished.parent().unwrap_or(Path::new("/"));
        sync(unfinished)
            .and_then(|()| fs::rename(unfinished, directory))
            .and_then(|()| sync(parent))
            .map_err(|error| failed("put in place", &directory.display().to_string(), &error))
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = &mut *self.state() {
            change(state);
        }
    }

    /// A value that is only ever replaced or counted up stays sound whoever panics.
    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the directory beside the wanted one in which the copy grows.
fn prepare(directory: &Path) -> Result<PathBuf, String> {
    let shown = directory.display();
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(format!("{shown} cannot be a backup's directory"));
    };
    if !directory.is_absolute() {
        return Err(format!("{shown} is not an absolute path"));
    }
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(format!("{shown} is not empty; name a directory that does not exist yet")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("use", &shown.to_string(), &error)),
    }
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = parent.join(unfinished);
    match DirBuilder::new().mode(0o700).create(&unfinished) {
        Ok(()) => Ok(unfinished),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(format!("{} exists, left by a backup that did not finish; remove it first", unfinished.display()))
        }
        Err(error) => Err(failed("make", &unfinished.display().to_string(), &error)),
    }
}

fn failed(doing: &str, file: &str, error: &io::Error) -> String {
    format!("the server cannot {doing} {file}: {error}")
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_or_empty_directory_will_do() {
        let temporary = tempfile::tempdir().unwrap();
        let wanted = temporary.path().join("copy");
        let unfinished = prepare(&wanted).unwrap();
        assert_eq!(unfinished, temporary.path().join("copy.unfinished"));
        assert!(prepare(&wanted).unwrap_err().contains("remove it first"));
        fs::remove_dir(&unfinished).unwrap();
        fs::create_dir(&wanted).unwrap();
        prepare(&wanted).unwrap();
        fs::remove_dir(&unfinished).unwrap();
        fs::write(wanted.join("file"), "x").unwrap();
        assert!(prepare(&wanted).unwrap_err().contains("is not empty"));
        assert!(prepare(Path::new("relative")).unwrap_err().contains("absolute"));
        assert!(prepare(Path::new("/")).is_err());
    }
}
