//! Where jobs come from: arguments, files, or a line each of files or standard input; read by a thread of its own, which is
//! held up while the broker does not follow.

use super::job::{Job, Template};
use super::state::Progress;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What jobs are made of.
#[derive(Debug)]
pub(super) enum Source {
    /// Each of these is a job.
    Bodies(Vec<Vec<u8>>),
    /// Each of these files, as a whole.
    Files(Vec<PathBuf>),
    /// Each line of these files.
    Lines { files: Vec<PathBuf>, kind: Lines },
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// A body.
    Plain,
    /// An object that says everything.
    Json,
}

/// What an earlier run has done.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) progress: Progress,
    pub(super) also: BTreeSet<u64>,
}

/// What the thread sends.
#[derive(Debug)]
pub(super) enum Item {
    /// The next jobs.
    Jobs(Vec<Job>),
    /// There is no more: so much there was.
    End(Progress),
    /// This is wrong, and nothing more comes.
    Wrong(Wrong),
}

/// Why an input cannot be gone on with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A file cannot be read.
    Unreadable(String),
    /// What is in it makes no sense.
    Data(String),
}

impl Source {
    /// How many octets there are, where that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        let Self::Lines { files, .. } = self else { return None };
        let bytes = |file: &PathBuf| {
            let found = if is_stdin(file) {
                File::from(io::stdin().as_fd().try_clone_to_owned().ok()?).metadata().ok()?
            } else {
                std::fs::metadata(file).ok()?
            };
            found.is_file().then_some(found.len())
        };
        files.iter().map(bytes).sum()
    }

    /// Starts to read.
    pub(super) fn read(self, template: Template, before: Before) -> mpsc::Receiver<Item> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reader =
            Reader { template, before, sender, batch: Vec::new(), batch_bytes: 0, at: Progress::default(), end: 0 };
        // It ends with the program, where that does not want more.
        std::thread::spawn(move || reader.run(self));
        receiver
    }
}

struct Reader {
    template: Template,
    before: Before,
    sender: mpsc::Sender<Item>,
    batch: Vec<Job>,
    batch_bytes: usize,
    at: Progress,
    end: u64,
}

/// Nobody wants more.
struct Unwanted;

enum Stop {
    Unwanted,
    Wrong(Wrong),
}

impl From<Unwanted> for Stop {
    fn from(Unwanted: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl Reader {
    fn run(mut self, source: Source) {
        let read = match source {
            Source::Bodies(bodies) => self.bodies(bodies),
            Source::Files(files) => self.files(files),
            Source::Lines { files, kind } => self.lines(files, kind),
        };
        let last = match read.and_then(|()| self.check_end().map_err(Stop::Wrong)) {
            Ok(()) => Item::End(self.at),
            Err(Stop::Wrong(wrong)) => Item::Wrong(wrong),
            Err(Stop::Unwanted) => return,
        };
        if self.flush().is_ok() {
            let _nobody_wants_it = self.sender.blocking_send(last);
        }
    }

    fn bodies(&mut self, bodies: Vec<Vec<u8>>) -> Result<(), Stop> {
        for body in bodies {
            self.at.lines += 1;
            let job = self.template.plain(self.at.lines, body.into());
            self.push(job)?;
        }
        Ok(())
    }

    fn files(&mut self, files: Vec<PathBuf>) -> Result<(), Stop> {
        for file in files {
            let mut body = Vec::new();
            let read = open(&file).and_then(|reader| reader.take(BODY_BYTES_MAX + 1).read_to_end(&mut body));
            read.map_err(|error| Stop::Wrong(unreadable(&file, &error)))?;
            if body.len() as u64 > BODY_BYTES_MAX {
                return Err(Stop::Wrong(Wrong::Data(format!("{}: it is longer than 512 MiB", file.display()))));
            }
            self.at.lines += 1;
            let job = self.template.plain(self.at.lines, body.into());
            self.push(job)?;
        }
        Ok(())
    }

    fn lines(&mut self, files: Vec<PathBuf>, kind: Lines) -> Result<(), Stop> {
        for file in files {
            let reader = open(&file).map_err(|error| Stop::Wrong(unreadable(&file, &error)))?;
            let mut reader = BufReader::with_capacity(READ_BYTES, reader);
            loop {
                let mut line = Vec::new();
                let read = reader.by_ref().take(BODY_BYTES_MAX + 1).read_until(b'\n', &mut line);
                let read = read.map_err(|error| Stop::Wrong(unreadable(&file, &error)))?;
                if read == 0 {
                    break;
                }
                self.at.lines += 1;
                self.at.check = crc32c::crc32c_append(self.at.check, &line);
                self.end += read as u64;
                let number = self.at.lines;
                let wrong = |why: String| Stop::Wrong(Wrong::Data(format!("line {number}: {why}")));
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if line.len() as u64 > BODY_BYTES_MAX {
                    return Err(wrong("it is longer than 512 MiB".to_owned()));
                }
                if number <= self.before.progress.lines {
                    if number == self.before.progress.lines && self.at.check != self.before.progress.check {
                        return Err(Stop::Wrong(another_input(number)));
                    }
                    continue;
                }
                let is_blank = match kind {
                    Lines::Plain => line.is_empty(),
                    Lines::Json => line.iter().all(u8::is_ascii_whitespace),
                };
                if !is_blank && !self.before.also.contains(&number) {
                    let job = match kind {
                        Lines::Plain => self.template.plain(number, Bytes::from(line)),
                        Lines::Json => self.template.read(number, &line).map_err(wrong)?,
                    };
                    self.push(job)?;
                }
                // Who writes slowly does not have to fill a batch.
                if !reader.buffer().contains(&b'\n') {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), Wrong> {
        let before = self.before.progress.lines;
        if self.at.lines < before { Err(another_input(before)) } else { Ok(()) }
    }

    fn push(&mut self, job: Job) -> Result<(), Unwanted> {
        let job = Job { check: self.at.check, end: self.end, ..job };
        self.batch_bytes += job.bytes();
        self.batch.push(job);
        if self.batch.len() >= BATCH_JOBS || self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let jobs = std::mem::take(&mut self.batch);
        self.sender.blocking_send(Item::Jobs(jobs)).map_err(|_| Unwanted)
    }
}

fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    if is_stdin(file) { Ok(Box::new(io::stdin().lock())) } else { Ok(Box::new(File::open(file)?)) }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn unreadable(file: &Path, error: &io::Error) -> Wrong {
    let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
    Wrong::Unreadable(format!("{name}: {error}"))
}

fn another_input(lines: u64) -> Wrong {
    Wrong::Data(format!(
        "this is not the input that was begun with: its first {lines} lines are not those that were published. Take another \
         state file (--resume) for another input"
    ))
}

/// How many batches are read ahead.
const AHEAD: usize = 4;
/// A batch has at most so many jobs, …
const BATCH_JOBS: usize = 256;
/// … which take about so much.
const BATCH_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 256 << 10;
/// No broker takes more.
const BODY_BYTES_MAX: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::super::job::Target;
    use super::*;
    use amqp::PropertyList;

    /// All jobs of a file with this text, and how it ends.
    fn read(text: &str, kind: Lines, before: Before) -> (Vec<(u64, String)>, Item) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jobs");
        std::fs::write(&file, text).unwrap();
        let template = Template::new(Target::default(), PropertyList::default(), None);
        let mut items = Source::Lines { files: vec![file], kind }.read(template, before);
        let mut jobs = Vec::new();
        loop {
            match items.blocking_recv().unwrap() {
                Item::Jobs(more) => {
                    let told = |job: Job| (job.line, String::from_utf8(job.body.to_vec()).unwrap());
                    jobs.extend(more.into_iter().map(told));
                }
                last => return (jobs, last),
            }
        }
    }

    fn check(text: &str) -> u32 {
        crc32c::crc32c(text.as_bytes())
    }

    #[test]
    fn each_line_is_a_job_but_for_empty_ones() {
        let (jobs, last) = read("one\n\ntwo \r\nthree", Lines::Plain, Before::default());
        let expected = [(1, "one"), (3, "two \r"), (4, "three")].map(|(line, body)| (line, body.to_owned()));
        assert_eq!(jobs, expected);
        let whole = Progress { lines: 4, check: check("one\n\ntwo \r\nthree") };
        assert!(matches!(last, Item::End(progress) if progress == whole), "{last:?}");
    }

    #[test]
    fn what_was_confirmed_before_is_passed_over() {
        let before = || Before { progress: Progress { lines: 2, check: check("a\nb\n") }, also: [4].into() };
        let (jobs, _) = read("a\nb\nc\nd\ne\n", Lines::Plain, before());
        assert_eq!(jobs.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 5]);
        for other in ["a\nB\nc\n", "a\n", ""] {
            let (jobs, last) = read(other, Lines::Plain, before());
            assert!(jobs.is_empty() && matches!(last, Item::Wrong(Wrong::Data(_))), "{other:?}: {last:?}");
        }
    }

    #[test]
    fn a_line_that_is_wrong_ends_the_input_after_those_before_it() {
        let (jobs, last) = read("{\"body\": \"a\"}\n\n{}\n{\"body\": \"b\"}\n", Lines::Json, Before::default());
        assert_eq!(jobs, [(1, "a".to_owned())]);
        let Item::Wrong(Wrong::Data(why)) = last else { panic!("{last:?}") };
        assert_eq!(why, "line 3: it has no body");
    }
}
