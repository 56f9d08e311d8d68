//! Slots that feed jobs as lines of JSON to a program that stays: it is started once, and answers each job by a line.
//!
//! A program that ends takes its jobs in flight with it: they are tried again, and so is the program, after a pause that grows
//! while it does not get anywhere.

mod answer;
mod request;

use super::child::{KILL_AFTER, PROGRESS_PAUSE};
use super::ending::{Ending, Verdict};
use super::job::{Job, JobId};
use super::limits::Limits;
use super::said::{Passage, Said, Stream};
use super::slots::{Feed, Report, SlotId};
use super::stopping::{Stopping, Urgency};
use super::template::Template;
use crate::client::Backoff;
use answer::Answer;
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) template: Template,
    pub(super) timeout: Option<Duration>,
    pub(super) limits: Limits,
    /// Its standard error is passed on.
    pub(super) passes: bool,
    pub(super) wants_replies: bool,
}

/// Starts so many programs. They end when nobody feeds them any more.
pub(super) fn start(
    pool: &Arc<Pool>,
    count: usize,
    stopping: &Stopping,
    reports: &UnboundedSender<Report>,
) -> (Vec<Feed>, Vec<JoinHandle<()>>) {
    let slots = (0..count).map(|number| {
        let (feed, jobs) = mpsc::unbounded_channel();
        let slot = Slot {
            pool: Arc::clone(pool),
            id: SlotId(number),
            jobs,
            is_fed: true,
            stopping: stopping.clone(),
            reports: reports.clone(),
        };
        (Feed::Task(feed), tokio::spawn(slot.serve()))
    });
    slots.unzip()
}

struct Slot {
    pool: Arc<Pool>,
    id: SlotId,
    jobs: UnboundedReceiver<Arc<Job>>,
    is_fed: bool,
    stopping: Stopping,
    reports: UnboundedSender<Report>,
}

impl Slot {
    async fn serve(mut self) {
        let mut backoff = Backoff::default();
        while self.is_fed && self.stopping.urgency() == Urgency::None {
            let why = match Program::start(&self.pool) {
                Ok(mut program) => {
                    self.report(Report::Up(self.id));
                    let why = self.feed(&mut program).await;
                    if program.has_answered {
                        backoff = Backoff::default();
                    }
                    let why = program.end(why, &mut self.stopping).await;
                    if self.is_fed {
                        self.report(Report::Down { slot: self.id, why: why.clone() });
                    }
                    for (id, InFlight { began, .. }) in std::mem::take(&mut program.in_flight) {
                        let details = program.said.details();
                        let ending = Ending { details, ..Ending::failed(Verdict::Retry, why.clone(), began.elapsed()) };
                        self.report(Report::Ended { slot: self.id, job: id, ending: Box::new(ending) });
                    }
                    continue_after(&mut self, &mut backoff).await;
                    continue;
                }
                Err(error) => format!("the program cannot be started: {error}"),
            };
            self.report(Report::Down { slot: self.id, why });
            continue_after(&mut self, &mut backoff).await;
        }
        // What came and was not begun.
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            let ending = Ending::failed(Verdict::Return, "the worker was stopped", Duration::ZERO);
            self.report(Report::Ended { slot: self.id, job: job.id, ending: Box::new(ending) });
        }
    }

    /// Feeds a program until it ends or is to be ended; why.
    async fn feed(&mut self, program: &mut Program) -> Cause {
        let mut batch = Vec::with_capacity(BATCH_JOBS);
        loop {
            let late = program.late_at(self.pool.timeout);
            let (is_out_open, is_err_open) = (program.is_out_open, program.is_err_open);
            let Program { child, stdin, stdout, stderr, out, inbox, errors, .. } = &mut *program;
            tokio::select! {
                count = self.jobs.recv_many(&mut batch, BATCH_JOBS), if self.is_fed => {
                    if count == 0 {
                        // The end of its input is how it learns that there is no more.
                        self.is_fed = false;
                    }
                    for job in batch.drain(..) {
                        program.take(&job);
                    }
                    if !self.is_fed && program.out.is_empty() {
                        program.stdin = None;
                    }
                }
                written = write(stdin, out), if !out.is_empty() => {
                    // It reads no more: it ends, or has ended.
                    if written.is_err() {
                        program.out.clear();
                        program.stdin = None;
                    } else if !self.is_fed && program.out.is_empty() {
                        program.stdin = None;
                    }
                }
                read = stdout.read_buf(inbox), if is_out_open => {
                    program.is_out_open = matches!(read, Ok(1..));
                    if let Err(why) = self.answers(program) {
                        return Cause::Broken(why);
                    }
                }
                read = stderr.read_buf(errors), if is_err_open => {
                    program.is_err_open = matches!(read, Ok(1..));
                    let errors = program.errors.split();
                    program.said.push(&errors);
                }
                status = child.wait() => return Cause::Ended(status),
                () = until(late) => return Cause::Late,
                _ = self.stopping.more_than(Urgency::None) => return Cause::Stopped,
            }
        }
    }

    /// Takes the answers that are there.
    fn answers(&mut self, program: &mut Program) -> Result<(), String> {
        while let Some(end) = program.inbox[program.scanned..].iter().position(|octet| *octet == b'\n') {
            let line = program.inbox.split_to(program.scanned + end);
            program.inbox.advance(1);
            program.scanned = 0;
            self.answer(program, &line);
        }
        program.scanned = program.inbox.len();
        if program.inbox.len() > ANSWER_BYTES_MAX {
            return Err(format!("it wrote a line of more than {} MiB", ANSWER_BYTES_MAX >> 20));
        }
        Ok(())
    }

    fn answer(&mut self, program: &mut Program, line: &[u8]) {
        let Some((id, answer)) = answer::read(line) else {
            // Something that it prints for people.
            program.said.push(line);
            program.said.push(b"\n");
            return;
        };
        program.has_answered = true;
        let ending = match answer {
            Answer::Progress(progress) => {
                if program.may_tell(id) {
                    self.report(Report::Progress { job: id, progress });
                }
                return;
            }
            Answer::Ended(verdict, why, reply) => {
                // Answered twice, or never asked.
                let Some(InFlight { began, .. }) = program.in_flight.remove(&id) else { return };
                let reply = reply.filter(|_| self.pool.wants_replies).map(Bytes::from);
                Ending { reply, ..Ending::failed(verdict, why, began.elapsed()) }
            }
        };
        self.report(Report::Ended { slot: self.id, job: id, ending: Box::new(ending) });
    }

    fn report(&self, report: Report) {
        // Without a runner there is nobody to tell.
        let _gone = self.reports.send(report);
    }
}

/// Waits until the program is to be started again, or nothing is to be started any more.
async fn continue_after(slot: &mut Slot, backoff: &mut Backoff) {
    if slot.is_fed {
        tokio::select! {
            () = tokio::time::sleep(backoff.next(getrandom::u64().unwrap_or_default())) => {}
            _ = slot.stopping.more_than(Urgency::None) => {}
        }
    }
}

async fn write(stdin: &mut Option<ChildStdin>, out: &mut BytesMut) -> io::Result<()> {
    match stdin {
        Some(stdin) => match stdin.write_buf(out).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        },
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Why a program is fed no more.
enum Cause {
    Ended(io::Result<ExitStatus>),
    Late,
    Stopped,
    Broken(String),
}

/// A job that a program has.
struct InFlight {
    began: Instant,
    /// When it last told how far it is.
    told_at: Option<Instant>,
}

/// A program that runs.
struct Program {
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    is_out_open: bool,
    is_err_open: bool,
    /// To be written to it.
    out: BytesMut,
    /// Read, and no whole line.
    inbox: BytesMut,
    /// So much of that has no end of a line.
    scanned: usize,
    errors: BytesMut,
    said: Said,
    in_flight: HashMap<JobId, InFlight>,
    /// The same, in the order in which they came, and more that has ended since.
    order: VecDeque<(JobId, Instant)>,
    has_answered: bool,
}

impl Program {
    fn start(pool: &Pool) -> io::Result<Self> {
        let mut command = Command::new(&pool.template.program);
        command.arg0(&pool.template.name).args(pool.template.plain_arguments()).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it has ended already");
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).ok_or_else(gone)?;
        pool.limits.set(group)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        Ok(Self {
            group,
            stdin: child.stdin.take(),
            stdout,
            stderr,
            child,
            is_out_open: true,
            is_err_open: true,
            out: BytesMut::new(),
            inbox: BytesMut::new(),
            scanned: 0,
            errors: BytesMut::new(),
            said: Said::new(pool.passes.then(|| Passage::new(Stream::Err, u64::MAX))),
            in_flight: HashMap::new(),
            order: VecDeque::new(),
            has_answered: false,
        })
    }

    /// A job for it.
    fn take(&mut self, job: &Job) {
        let now = Instant::now();
        self.in_flight.insert(job.id, InFlight { began: now, told_at: None });
        self.order.push_back((job.id, now));
        request::write(job, &mut self.out);
    }

    /// Whether how far a job is may be passed on: not too often.
    fn may_tell(&mut self, id: JobId) -> bool {
        let Some(job) = self.in_flight.get_mut(&id) else { return false };
        let is_due = job.told_at.is_none_or(|told_at| told_at.elapsed() >= PROGRESS_PAUSE);
        if is_due {
            job.told_at = Some(Instant::now());
        }
        is_due
    }

    /// When the job that it has had for longest has been there for too long.
    fn late_at(&mut self, timeout: Option<Duration>) -> Option<Instant> {
        while let Some((id, _)) = self.order.front()
            && !self.in_flight.contains_key(id)
        {
            self.order.pop_front();
        }
        let (_, began) = self.order.front()?;
        began.checked_add(timeout?)
    }

    /// Ends it, and what is left of its group; in words, why.
    async fn end(&mut self, cause: Cause, stopping: &mut Stopping) -> String {
        self.stdin = None;
        let why = match cause {
            Cause::Ended(Ok(status)) => format!("the program ended before it answered ({status})"),
            Cause::Ended(Err(error)) => format!("the program ended before it answered ({error})"),
            Cause::Late => "timed out".to_owned(),
            Cause::Stopped => "the worker was stopped".to_owned(),
            Cause::Broken(why) => why,
        };
        let _gone = kill_process_group(self.group, Signal::TERM);
        let has_ended = tokio::select! {
            _ = self.child.wait() => true,
            () = tokio::time::sleep(KILL_AFTER) => false,
            _ = stopping.more_than(Urgency::Soon) => false,
        };
        if !has_ended {
            let _gone = kill_process_group(self.group, Signal::KILL);
            let _reaped = self.child.wait().await;
        }
        // What it said last: there already, or somebody else holds the stream.
        while self.is_err_open {
            let reading = tokio::time::timeout(LAST_WORDS, self.stderr.read_buf(&mut self.errors));
            self.is_err_open = matches!(reading.await, Ok(Ok(1..)));
            let errors = self.errors.split();
            self.said.push(&errors);
        }
        self.said.end_line();
        why
    }
}

/// At a time out of the runner's hands into the program's.
const BATCH_JOBS: usize = 256;
const ANSWER_BYTES_MAX: usize = 4 << 20;
const LAST_WORDS: Duration = Duration::from_millis(50);
