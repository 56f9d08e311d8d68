//! One program that runs for one job, from its start to its end.
//!
//! It is waited for in one `poll(2)`: its standard streams, its end (a pidfd), the runner's stop, and the time. The program is
//! the leader of a process group of its own. When it has ended, what is left of the group is killed before the leader is
//! reaped, while the group's number cannot be anyone else's; whoever has left the group and still holds a stream is not
//! waited for.

use super::codes::Codes;
use super::ending::{Ending, Verdict};
use super::job::Job;
use super::limits::Limits;
use super::progress::Progress;
use super::said::{Passage, Said, Stream};
use super::stopping::{Stopping, Urgency};
use super::template::{Template, environment};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) template: Template,
    pub(super) timeout: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) judge: Judge,
    /// So much of a job's output is passed on; `None` = nothing.
    pub(super) pass_bytes_max: Option<u64>,
    /// So much of standard output is the job's reply, if there is to be one.
    pub(super) reply_bytes_max: Option<usize>,
}

/// What becomes of a job by how its program ended.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) retry: Codes,
    pub(super) dead: Codes,
    /// Other codes than these, and signals.
    pub(super) others: Verdict,
}

impl Judge {
    /// The verdict, and why.
    pub(super) fn judge(&self, status: ExitStatus) -> (Verdict, String) {
        match (status.code(), status.signal()) {
            (Some(0), _) => (Verdict::Done, String::new()),
            (Some(code), _) => {
                let number = u16::try_from(code).unwrap_or(u16::MAX);
                let verdict = match (self.retry.contains(number), self.dead.contains(number)) {
                    (true, _) => Verdict::Retry,
                    (_, true) => Verdict::Dead,
                    _ => self.others,
                };
                (verdict, format!("exit {code}"))
            }
            (None, Some(signal)) => {
                let name = Signal::from_named_raw(signal).map_or_else(|| signal.to_string(), signal_name);
                (self.others, format!("killed by {name}"))
            }
            (None, None) => (self.others, status.to_string()),
        }
    }
}

/// Runs it. `say` hears of progress, `room` is to read into.
pub(super) fn run(
    plan: &Plan,
    job: &Job,
    stopping: &Stopping,
    room: &mut [u8],
    say: &mut dyn FnMut(Progress),
) -> Ending {
    let began = Instant::now();
    let Some(arguments) = plan.template.arguments(job) else {
        let why = "the body or a header has an octet 0, which no argument can have";
        return Ending::failed(Verdict::Dead, why, began.elapsed());
    };
    let mut command = Command::new(&plan.template.program);
    command.arg0(&plan.template.name).args(arguments).envs(environment(job)).process_group(0);
    let has_input = !plan.template.has_body && !job.body.is_empty();
    let wants_output = plan.pass_bytes_max.is_some() || plan.reply_bytes_max.is_some();
    command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
    command.stdout(if wants_output { Stdio::piped() } else { Stdio::null() });
    command.stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // It would be no shorter the next time.
            let is_too_long = error.kind() == io::ErrorKind::ArgumentListTooLong;
            let verdict = if is_too_long { Verdict::Dead } else { Verdict::Retry };
            return Ending::failed(verdict, format!("the program cannot be started: {error}"), began.elapsed());
        }
    };
    // Whoever has ended already needs no limits.
    let limited = plan.limits.set(Pid::from_child(&child));
    let mut running = Running::new(plan, job, &mut child, began);
    if let Err(error) = limited
        && error.kind() != io::ErrorKind::NotFound
    {
        running.end(Cause::Limits(error.to_string()), Signal::KILL);
    }
    running.wait(stopping, room, say);
    running.finish(room, say)
}

/// Why the runner ended it.
#[derive(Debug)]
enum Cause {
    Timeout,
    Stopped,
    Limits(String),
}

/// A program that runs.
struct Running<'a> {
    plan: &'a Plan,
    child: &'a mut Child,
    group: Pid,
    /// Tells that it ended, where the system has that.
    end: Option<OwnedFd>,
    began: Instant,
    /// What is still to be written to it.
    input: Option<(ChildStdin, &'a [u8])>,
    output: Output,
    said: Said,
    is_err_open: bool,
    cause: Option<Cause>,
    kill_at: Option<Instant>,
    urgency: Urgency,
    told_at: Option<Instant>,
}

/// What it writes to standard output.
struct Output {
    is_open: bool,
    passage: Option<Passage>,
    reply: Option<(Vec<u8>, usize)>,
}

impl Output {
    fn push(&mut self, octets: &[u8]) {
        if let Some(passage) = &mut self.passage {
            passage.push(octets);
        }
        if let Some((reply, bytes_max)) = &mut self.reply {
            let room = bytes_max.saturating_sub(reply.len());
            reply.extend_from_slice(&octets[..octets.len().min(room)]);
        }
    }
}

impl<'a> Running<'a> {
    fn new(plan: &'a Plan, job: &'a Job, child: &'a mut Child, began: Instant) -> Self {
        let group = Pid::from_child(child);
        let input = child.stdin.take().map(|stdin| (stdin, &job.body[..]));
        let passage = |stream| plan.pass_bytes_max.map(|bytes_max| Passage::new(stream, bytes_max));
        let output = Output {
            is_open: child.stdout.is_some(),
            passage: passage(Stream::Out),
            reply: plan.reply_bytes_max.map(|bytes_max| (Vec::new(), bytes_max)),
        };
        let mut running = Self {
            plan,
            child,
            group,
            end: open_end(group),
            began,
            input,
            output,
            said: Said::new(passage(Stream::Err)),
            is_err_open: true,
            cause: None,
            kill_at: None,
            urgency: Urgency::None,
            told_at: None,
        };
        // The pipe is empty, and so takes a small body whole.
        running.feed();
        running
    }

    /// Writes more of the body: never more than a pipe that is ready takes without blocking.
    fn feed(&mut self) {
        let Some((mut stdin, body)) = self.input.take() else { return };
        let piece = &body[..body.len().min(PIPE_BUF)];
        match stdin.write(piece) {
            // Dropping the pipe is the end of the body.
            Ok(written) if written < body.len() => self.input = Some((stdin, &body[written..])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.input = Some((stdin, body)),
            // It does not want to read on.
            Ok(_) | Err(_) => {}
        }
    }

    /// Until the program has ended.
    fn wait(&mut self, stopping: &Stopping, room: &mut [u8], say: &mut dyn FnMut(Progress)) {
        loop {
            let ready = self.poll(stopping);
            if ready.input {
                self.feed();
            }
            if ready.output {
                self.read_output(room);
            }
            if ready.error {
                self.read_error(room);
            }
            self.tell(say, false);
            if ready.end {
                return;
            }
            self.urge(stopping);
        }
    }

    /// Waits until something is to be done.
    fn poll(&self, stopping: &Stopping) -> Ready {
        let (mut fds, mut names) = (Vec::with_capacity(5), Vec::with_capacity(5));
        let mut watch = |name, fd, flags| {
            names.push(name);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(end) = &self.end {
            watch(Which::End, end.as_fd(), PollFlags::IN);
        }
        if let Some((stdin, _)) = &self.input {
            watch(Which::Input, stdin.as_fd(), PollFlags::OUT);
        }
        if let (true, Some(stdout)) = (self.output.is_open, &self.child.stdout) {
            watch(Which::Output, stdout.as_fd(), PollFlags::IN);
        }
        if let (true, Some(stderr)) = (self.is_err_open, &self.child.stderr) {
            watch(Which::Error, stderr.as_fd(), PollFlags::IN);
        }
        if self.urgency < Urgency::Now {
            watch(Which::Stop, stopping.pipe(self.urgency), PollFlags::IN);
        }
        let timeout = self.time_left().and_then(|left| Timespec::try_from(left).ok());
        let mut ready = Ready::default();
        // Interrupted, say: the loop comes back.
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return ready;
        }
        for (fd, name) in fds.iter().zip(names) {
            let is_ready = !fd.revents().is_empty();
            match name {
                Which::End => ready.end = is_ready,
                Which::Input => ready.input = is_ready,
                Which::Output => ready.output = is_ready,
                Which::Error => ready.error = is_ready,
                // What it is told is asked in each turn.
                Which::Stop => {}
            }
        }
        if self.end.is_none() {
            ready.end = has_ended(self.group);
        }
        ready
    }

    /// Until when nothing is to be done of its own accord.
    fn time_left(&self) -> Option<Duration> {
        let timeout = self.plan.timeout.filter(|_| self.cause.is_none()).map(|timeout| self.began + timeout);
        let telling = self.said.progress.as_ref().and(self.told_at).map(|told_at| told_at + PROGRESS_PAUSE);
        let asking = self.end.is_none().then(|| Instant::now() + ASK_PAUSE);
        let earliest = [timeout, self.kill_at, telling, asking].into_iter().flatten().min()?;
        Some(earliest.saturating_duration_since(Instant::now()))
    }

    fn read_output(&mut self, room: &mut [u8]) -> usize {
        let read = self.child.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read(room));
        match read {
            Ok(read @ 1..) => {
                self.output.push(&room[..read]);
                read
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            _ => {
                self.output.is_open = false;
                0
            }
        }
    }

    fn read_error(&mut self, room: &mut [u8]) -> usize {
        let read = self.child.stderr.as_mut().map_or(Ok(0), |stderr| stderr.read(room));
        match read {
            Ok(read @ 1..) => {
                self.said.push(&room[..read]);
                read
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            _ => {
                self.is_err_open = false;
                0
            }
        }
    }

    /// Passes progress on, not too often: the last word counts.
    fn tell(&mut self, say: &mut dyn FnMut(Progress), is_last: bool) {
        let is_due = is_last || self.told_at.is_none_or(|told_at| told_at.elapsed() >= PROGRESS_PAUSE);
        if is_due && let Some(progress) = self.said.progress.take() {
            self.told_at = Some(Instant::now());
            say(progress);
        }
    }

    /// Ends it if its time is over or the runner stops.
    fn urge(&mut self, stopping: &Stopping) {
        let now = Instant::now();
        let urgency = stopping.urgency();
        if urgency > self.urgency {
            self.urgency = urgency;
            let signal = if urgency == Urgency::Now { Signal::KILL } else { Signal::TERM };
            self.end(Cause::Stopped, signal);
        }
        if self.cause.is_none() && self.plan.timeout.is_some_and(|timeout| now - self.began >= timeout) {
            self.end(Cause::Timeout, Signal::TERM);
        }
        if self.kill_at.is_some_and(|kill_at| now >= kill_at) {
            self.kill_at = None;
            let _gone = kill_process_group(self.group, Signal::KILL);
        }
    }

    fn end(&mut self, cause: Cause, signal: Signal) {
        self.cause.get_or_insert(cause);
        // Who is gone already is found so in the next turn.
        let _gone = kill_process_group(self.group, signal);
        self.kill_at = (signal == Signal::TERM).then(|| Instant::now() + KILL_AFTER);
    }

    /// What is left of the group goes with its leader, what it wrote is read, and it is reaped.
    fn finish(mut self, room: &mut [u8], say: &mut dyn FnMut(Progress)) -> Ending {
        let _nobody_left = kill_process_group(self.group, Signal::KILL);
        // As much as a pipe holds, and not what somebody goes on writing.
        let mut left = REST_BYTES_MAX;
        while left > 0 {
            let (output, error) = self.readable();
            if !output && !error {
                break;
            }
            let read = if output { self.read_output(room) } else { 0 } + if error { self.read_error(room) } else { 0 };
            left = left.saturating_sub(read.max(1));
        }
        self.said.end_line();
        self.tell(say, true);
        let took = self.began.elapsed();
        let (verdict, why) = match (self.child.wait(), self.cause) {
            // Who is told to end and ends with 0 has ended well, which does not mean that the job is done.
            (_, Some(Cause::Timeout)) => {
                let after = self.plan.timeout.unwrap_or_default();
                (Verdict::Retry, format!("timed out after {} s", after.as_secs_f64()))
            }
            (_, Some(Cause::Stopped)) => (Verdict::Retry, "the worker was stopped".to_owned()),
            (_, Some(Cause::Limits(error))) => (Verdict::Retry, format!("its limits cannot be set: {error}")),
            (Ok(status), None) => self.plan.judge.judge(status),
            (Err(error), None) => (Verdict::Retry, format!("how it ended is unknown: {error}")),
        };
        let reply = self.output.reply.map(|(reply, _)| Bytes::from(reply));
        let details = if verdict == Verdict::Done { Vec::new() } else { self.said.details() };
        Ending { details, reply, ..Ending::failed(verdict, why, took) }
    }

    /// Which of its streams have something, or their end, right now.
    fn readable(&self) -> (bool, bool) {
        let (stdout, stderr) = (self.child.stdout.as_ref(), self.child.stderr.as_ref());
        let is_ready = |fd: BorrowedFd<'_>| {
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        };
        let output = self.output.is_open && stdout.is_some_and(|stdout| is_ready(stdout.as_fd()));
        let error = self.is_err_open && stderr.is_some_and(|stderr| is_ready(stderr.as_fd()));
        (output, error)
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Which {
    End,
    Input,
    Output,
    Error,
    Stop,
}

/// What has come of it.
#[derive(Default)]
struct Ready {
    end: bool,
    input: bool,
    output: bool,
    error: bool,
}

/// What is readable when it has ended.
#[cfg(target_os = "linux")]
fn open_end(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_end(_pid: Pid) -> Option<OwnedFd> {
    None
}

/// Whether it has ended; it is not reaped by this.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
}

fn signal_name(signal: Signal) -> String {
    // What stands there is `Signal::KILL` in one form or another.
    let debug = format!("{signal:?}");
    let name = debug.rsplit(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty()).unwrap_or_default();
    format!("SIG{}", name.trim_start_matches("SIG"))
}

/// What a pipe that is ready takes without blocking.
const PIPE_BUF: usize = 4096;
/// What is read of a program that has ended: twice what its pipes hold.
const REST_BYTES_MAX: usize = 256 << 10;
/// From SIGTERM to SIGKILL.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);
/// Between two words of progress.
pub(super) const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// Where the system does not tell that a program has ended, it is asked so often.
const ASK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(Signal::KILL), "SIGKILL");
        assert_eq!(signal_name(Signal::SEGV), "SIGSEGV");
    }
}
