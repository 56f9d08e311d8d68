//! How far an input was published, in a file, so that another run goes on where one ended.
//!
//! ```text
//! leveret publish 1
//! input 5f0c6a1e8d3b4f27          what ids of jobs begin with
//! confirmed 00000000000000012345 1c291ca3
//! also 12347 12350
//! ```
//!
//! All lines up to the number are confirmed; the check says that they are the same as the next time. That line has a fixed
//! length and is written over in place: a few octets, which a killed process leaves old or new. Whoever publishes writes it
//! before it sends more than its window beyond. `also` has lines that were confirmed out of order when a run ended.

use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A state file, which nobody else has open.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    file: File,
    input: String,
    at: u64,
    written: Progress,
    also: BTreeSet<u64>,
    /// The file has some.
    had_also: bool,
    is_synced: bool,
    synced_at: Instant,
}

/// How far the input is confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// So many lines …
    pub(super) lines: u64,
    /// … which come to this.
    pub(super) check: u32,
}

impl StateFile {
    /// Opens it, or makes one for an input that is called `fresh`.
    ///
    /// # Errors
    /// A sentence: it cannot be read or written, somebody else has it, or it is something else.
    pub(super) fn open(path: &Path, fresh: &str) -> Result<Self, String> {
        let wrong = |error: io::Error| format!("{}: {error}", path.display());
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(wrong)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("{}: another leveret publish works with it", path.display()))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(wrong)?;
        if text.is_empty() {
            text = render(fresh, Progress::default(), &BTreeSet::new());
            file.write_all_at(text.as_bytes(), 0).map_err(wrong)?;
            file.sync_all().map_err(wrong)?;
        }
        let read = parse(&text).ok_or_else(|| format!("{}: it is no state of leveret publish", path.display()))?;
        let (input, written, also) = read;
        let at = (HEAD.len() + INPUT.len() + input.len() + 1) as u64;
        let (path, had_also) = (path.to_owned(), !also.is_empty());
        Ok(Self { path, file, input, at, written, also, had_also, is_synced: true, synced_at: Instant::now() })
    }

    /// What the input's jobs are called by.
    pub(super) fn input(&self) -> &str {
        &self.input
    }

    /// How far it was confirmed.
    pub(super) fn progress(&self) -> Progress {
        self.written
    }

    /// Lines beyond that, which were confirmed.
    pub(super) fn also(&self) -> &BTreeSet<u64> {
        &self.also
    }

    /// It is confirmed that far.
    pub(super) fn write(&mut self, progress: Progress, now: Instant) -> io::Result<()> {
        if progress != self.written {
            self.file.write_all_at(confirmed(progress).as_bytes(), self.at)?;
            self.written = progress;
            self.is_synced = false;
        }
        if !self.is_synced && now - self.synced_at >= SYNCED_EVERY {
            self.file.sync_data()?;
            self.is_synced = true;
            self.synced_at = now;
        }
        Ok(())
    }

    /// The run ends here, with these lines confirmed beyond what is in order.
    pub(super) fn finish(&mut self, also: BTreeSet<u64>) -> io::Result<()> {
        self.also.extend(also);
        let lines = self.written.lines;
        self.also.retain(|line| *line > lines);
        if self.also.is_empty() && !self.had_also {
            return self.file.sync_data();
        }
        let text = render(&self.input, self.written, &self.also);
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let whole = File::create(&beside)?;
        whole.write_all_at(text.as_bytes(), 0)?;
        whole.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }
}

fn render(input: &str, progress: Progress, also: &BTreeSet<u64>) -> String {
    let mut text = format!("{HEAD}{INPUT}{input}\n{}", confirmed(progress));
    if !also.is_empty() {
        text.push_str("also");
        also.iter().for_each(|line| text.push_str(&format!(" {line}")));
        text.push('\n');
    }
    text
}

fn confirmed(Progress { lines, check }: Progress) -> String {
    format!("confirmed {lines:020} {check:08x}\n")
}

fn parse(text: &str) -> Option<(String, Progress, BTreeSet<u64>)> {
    let mut lines = text.strip_prefix(HEAD)?.lines();
    let input = lines.next()?.strip_prefix(INPUT)?;
    let (count, check) = lines.next()?.strip_prefix("confirmed ")?.split_once(' ')?;
    let progress = Progress { lines: count.parse().ok()?, check: u32::from_str_radix(check, 16).ok()? };
    let also = match lines.next() {
        None => BTreeSet::new(),
        Some(line) => line.strip_prefix("also ")?.split(' ').map(|line| line.parse().ok()).collect::<Option<_>>()?,
    };
    Some((input.to_owned(), progress, also))
}

const HEAD: &str = "leveret publish 1\n";
const INPUT: &str = "input ";
/// After a power cut more than a window may be published twice: what was confirmed since this long ago.
const SYNCED_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut state = StateFile::open(&path, "in").unwrap();
        assert_eq!((state.input(), state.progress()), ("in", Progress::default()));
        let progress = Progress { lines: 12, check: 0xABCD };
        state.write(Progress { lines: 7, check: 1 }, Instant::now()).unwrap();
        state.write(progress, Instant::now()).unwrap();
        assert!(StateFile::open(&path, "other").unwrap_err().contains("another leveret publish"));
        drop(state);
        let mut state = StateFile::open(&path, "other").unwrap();
        assert_eq!((state.input(), state.progress()), ("in", progress));
        state.finish([5, 14, 17].into()).unwrap();
        drop(state);
        let state = StateFile::open(&path, "other").unwrap();
        assert_eq!((state.progress(), state.also()), (progress, &[14, 17].into()));
    }

    #[test]
    fn another_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "milk\n").unwrap();
        assert!(StateFile::open(&path, "in").unwrap_err().ends_with("it is no state of leveret publish"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "milk\n");
    }
}
