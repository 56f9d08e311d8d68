//! Who changed what: a line of JSON for each change that came over the HTTP API (which `leveret ctl` uses), each reload and each
//! failed login, in `audit.log` in the data directory.
//!
//! A change is answered when its line is on disk. There are two files at most, the current one and the one before
//! (`audit.log.1`), so that their size is bounded. What AMQP clients declare and delete has a record of its own
//! ([`crate::client_audit`]): there may be thousands a second, and they must not push this out.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    /// What both files may take together; 0 = nothing is written.
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<(File, u64)>,
    logins: Allowance,
    /// The last write failed, which was said.
    is_failing: bool,
}

/// How many failed logins are still told in this minute: whoever guesses must not push everything else out.
#[derive(Debug, Default)]
struct Allowance {
    minute: u64,
    told: u32,
    left_out: u64,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whose login it was; of a failed one, what was said.
    pub(crate) user: String,
    /// From where: an address, `local` for the socket in the data directory, `signal`.
    pub(crate) peer: String,
    /// `PUT /api/users/app`, `login PLAIN`, `reload`.
    pub(crate) what: String,
    /// What it was to be, where that is no secret.
    pub(crate) details: Option<Value>,
    /// `done`, or why not.
    pub(crate) outcome: String,
}

/// An entry as it was written: most are read to be counted only.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Times are written alike, so that their letters are in their order.
    pub(crate) time: String,
    text: Vec<u8>,
}

impl Line {
    /// All that it says.
    pub(crate) fn parsed(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_default()
    }
}

/// What of an entry says whether it is wanted, and where it stands.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
}

impl Audit {
    pub(crate) fn new(data_dir: &Path, bytes_max: u64) -> Self {
        Self::at(data_dir.join(NAME), bytes_max)
    }

    /// One in a file of another name, which ends in `.log`.
    pub(crate) fn at(path: PathBuf, bytes_max: u64) -> Self {
        Self { path, bytes_max, state: Mutex::default() }
    }

    /// Whether anything is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// Writes an entry and waits for the disk.
    pub(crate) async fn record(self: &Arc<Self>, unix_ms: u64, entry: Entry) {
        if self.bytes_max == 0 {
            return;
        }
        let audit = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || audit.write(unix_ms, &entry, 0));
        let _ended = written.await;
    }

    /// The same from a thread that may wait.
    pub(crate) fn record_here(&self, unix_ms: u64, entry: &Entry) {
        if self.bytes_max > 0 {
            self.write(unix_ms, entry, 0);
        }
    }

    /// Writes a failed login, which nobody waits for; no more than [`LOGINS_A_MINUTE`] of them, and then how many there were.
    pub(crate) fn record_login(self: &Arc<Self>, unix_ms: u64, entry: Entry) {
        if self.bytes_max == 0 {
            return;
        }
        let left_out = {
            let mut state = self.state();
            let allowance = &mut state.logins;
            if allowance.minute != unix_ms / 60_000 {
                (allowance.minute, allowance.told) = (unix_ms / 60_000, 0);
            }
            if allowance.told >= LOGINS_A_MINUTE {
                allowance.left_out += 1;
                return;
            }
            allowance.told += 1;
            std::mem::take(&mut allowance.left_out)
        };
        let audit = Arc::clone(self);
        tokio::task::spawn_blocking(move || audit.write(unix_ms, &entry, left_out));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, unix_ms: u64, entry: &Entry, left_out: u64) {
        self.write_all([line(unix_ms, entry, ("failed_logins_left_out", left_out))], true);
    }

    /// Writes lines, and waits for the disk once if they are to be synced.
    pub(crate) fn write_all(&self, lines: impl IntoIterator<Item = String>, is_synced: bool) {
        let mut state = self.state();
        match self.append(&mut state, lines, is_synced) {
            Ok(()) => state.is_failing = false,
            Err(why) => {
                state.current = None;
                if !std::mem::replace(&mut state.is_failing, true) {
                    tracing::error!("{}: {why}; changes are made and not recorded there", self.path.display());
                }
            }
        }
    }

    fn append(&self, state: &mut State, lines: impl IntoIterator<Item = String>, is_synced: bool) -> io::Result<()> {
        let (mut file, mut bytes) = match state.current.take() {
            Some(current) => current,
            None => open(&self.path)?,
        };
        for line in lines {
            if bytes + line.len() as u64 > self.bytes_max / 2 && bytes > 0 {
                if is_synced {
                    file.sync_data()?;
                }
                fs::rename(&self.path, self.path.with_extension("log.1"))?;
                (file, bytes) = open(&self.path)?;
            }
            file.write_all(line.as_bytes())?;
            bytes += line.len() as u64;
        }
        if is_synced {
            file.sync_data()?;
        }
        state.current = Some((file, bytes));
        Ok(())
    }

    /// Lines from the newest on: so many at the most, and how many there are. Those that are whose entries are wanted:
    /// of this user, or of all.
    pub(crate) fn read(&self, count: usize, user: Option<&str>) -> (Vec<Line>, usize) {
        // At one moment: a file is not renamed between the two.
        let files = {
            let _unchanged = self.state();
            [self.path.with_extension("log.1"), self.path.clone()].map(File::open)
        };
        // The newest are at the end, and few of them are wanted. One file that is not there has no entries.
        let (mut kept, mut total) = (VecDeque::new(), 0);
        for file in files.into_iter().flatten() {
            let mut text = Vec::new();
            let _partly = file.take(self.bytes_max).read_to_end(&mut text);
            for line in text.split(|octet| *octet == b'\n') {
                let Ok(head) = serde_json::from_slice::<Head<'_>>(line) else { continue };
                if user.is_none_or(|user| head.user == user) {
                    total += 1;
                    if count > 0 {
                        if kept.len() == count {
                            kept.pop_front();
                        }
                        kept.push_back(Line { time: head.time.into_owned(), text: line.to_vec() });
                    }
                }
            }
        }
        (kept.into_iter().rev().collect(), total)
    }
}

/// An entry as it is written, with how many others there were beside it, if any.
pub(crate) fn line(unix_ms: u64, entry: &Entry, (others, count): (&str, u64)) -> String {
    let mut line = Map::new();
    line.insert("time".into(), time(unix_ms).into());
    let texts = [("user", &entry.user), ("peer", &entry.peer), ("what", &entry.what), ("outcome", &entry.outcome)];
    line.extend(texts.map(|(key, text)| (key.to_owned(), cut(text).into())));
    if let Some(details) = entry.details.clone() {
        let is_short = details.to_string().len() <= DETAILS_BYTES_MAX;
        line.insert("details".into(), if is_short { details } else { json!("(too long to be kept)") });
    }
    if count > 0 {
        line.insert(others.into(), count.into());
    }
    format!("{}\n", Value::Object(line))
}

/// The file and its length. What a crash left of a line is ended, so that the next is one of its own.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let mut bytes = file.seek(SeekFrom::End(0))?;
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok((file, bytes))
}

fn time(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(String::new, |moment| format!("{moment:.3}"))
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

const NAME: &str = "audit.log";
const LOGINS_A_MINUTE: u32 = 60;
const TEXT_MAX: usize = 1024;
const DETAILS_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: &str) -> Entry {
        let text = |text: &str| text.to_owned();
        Entry { user: text("app"), peer: text("local"), what: text(what), details: None, outcome: text("done") }
    }

    fn whats(audit: &Audit, skip: usize, count: usize) -> Vec<String> {
        let (lines, _) = audit.read(skip + count, None);
        lines.iter().skip(skip).map(|line| line.parsed()["what"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn entries_outlive_the_server_and_a_line_that_a_crash_cut() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::new(directory.path(), 1 << 20);
        audit.record_here(1_700_000_000_123, &entry("one"));
        let line = fs::read_to_string(directory.path().join(NAME)).unwrap();
        assert_eq!(
            line,
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"user\":\"app\",\"peer\":\"local\",\"what\":\"one\",\"outcome\":\"done\"}\n"
        );
        fs::write(directory.path().join(NAME), format!("{line}{{\"time\":\"20")).unwrap();
        let audit = Audit::new(directory.path(), 1 << 20);
        audit.record_here(0, &entry("two"));
        audit.record_here(0, &entry("three"));
        assert_eq!(whats(&audit, 0, 10), ["three", "two", "one"]);
        assert_eq!(whats(&audit, 1, 1), ["two"]);
        assert_eq!((audit.read(0, Some("app")).1, audit.read(9, Some("else")).1), (3, 0));
    }

    #[test]
    fn the_files_are_bounded_and_the_newest_entries_stay() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::new(directory.path(), 4000);
        for number in 0..200 {
            audit.record_here(0, &entry(&number.to_string()));
            let bytes: u64 =
                fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert!(bytes <= 4000, "{bytes}");
        }
        let kept = whats(&audit, 0, 1000);
        assert!(kept.len() >= 15 && kept[0] == "199" && kept[10] == "189", "{kept:?}");
    }

    #[tokio::test]
    async fn whoever_guesses_passwords_does_not_fill_it() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Arc::new(Audit::new(directory.path(), 1 << 20));
        for _ in 0..1000 {
            audit.record_login(0, entry("login PLAIN"));
        }
        audit.record_login(60_000, entry("login PLAIN"));
        let told = LOGINS_A_MINUTE as usize + 1;
        let all_are_written = async {
            while whats(&audit, 0, 1000).len() < told {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), all_are_written).await.unwrap();
        let (lines, total) = audit.read(1000, None);
        let entries: Vec<_> = lines.iter().map(Line::parsed).collect();
        let left_out: u64 = entries.iter().filter_map(|entry| entry["failed_logins_left_out"].as_u64()).sum();
        assert_eq!((total, left_out), (told, 1000 - u64::from(LOGINS_A_MINUTE)));
    }

    #[test]
    fn none_is_kept_where_that_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::new(directory.path(), 0);
        audit.record_here(0, &entry("one"));
        assert!(!directory.path().join(NAME).exists() && whats(&audit, 0, 10).is_empty());
    }
}
