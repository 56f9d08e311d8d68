//! The runner: takes jobs from the broker, gives them to slots, and settles what has ended.
//!
//! One task owns all of this. It waits for the broker, for slots, for signals and for the clock, deals with whatever there is,
//! and then writes once: acknowledgements gather meanwhile.

use super::ending::{Ending, Verdict};
use super::job::{Job, JobId};
use super::ledger::Ledger;
use super::link::{CHANNEL, Link, Wanted, millis};
use super::log::Log;
use super::metrics::Metrics;
use super::orphans::{Orphan, Orphans};
use super::progress::Progress;
use super::slots::{Report, Slots};
use super::stopping::{Stop, Urgency};
use super::waiting::Waiting;
use crate::client::{Backoff, Delivery, Event, Gone, Url};
use crate::notify;
use amqp::{PropertyList, Table, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// What the runner is made of.
pub(super) struct Parts {
    pub(super) urls: Vec<Url>,
    pub(super) wanted: Wanted,
    pub(super) slots: Slots,
    pub(super) reports: UnboundedReceiver<Report>,
    /// Programs that stay, which end when nobody feeds them any more.
    pub(super) programs: Vec<JoinHandle<()>>,
    pub(super) stop: Stop,
    pub(super) log: Log,
    pub(super) metrics: Arc<Mutex<Metrics>>,
    pub(super) grace: Duration,
    /// It ends by itself after so long without a job.
    pub(super) idle: Option<Duration>,
    /// Replies are sent to who wants them.
    pub(super) replies: bool,
}

/// See the module.
pub(super) struct Runner {
    parts: Parts,
    link: Option<Link>,
    connecting: Option<JoinHandle<(Result<Link, Gone>, Backoff)>>,
    backoff: Backoff,
    connected_at: Instant,
    /// There was a connection before.
    has_begun: bool,
    waiting: Waiting,
    jobs: HashMap<JobId, Held>,
    next_id: u64,
    ledger: Ledger,
    orphans: Orphans,
    /// A web hook wants no jobs until then.
    paused_until: Option<Instant>,
    /// Since when there is nothing to do.
    idle_since: Instant,
    leases_at: Instant,
    drain: Option<Drain>,
    /// Jobs that were ended before they had ended themselves.
    cut_short: u64,
    failure: Option<(u8, String)>,
}

/// A job that is here.
struct Held {
    job: Arc<Job>,
    /// What it is settled by; `None` if its connection is lost.
    tag: Option<u64>,
    is_running: bool,
    since: Instant,
}

/// No new job is begun any more.
struct Drain {
    /// When those that run are ended.
    until: Option<Instant>,
    urgency: Urgency,
    /// What asked for it.
    signal: Option<i32>,
}

impl Runner {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            waiting: Waiting::new(parts.wanted.queues.iter().map(|share| share.weight)),
            leases_at: now + parts.wanted.lease / 3,
            parts,
            link: None,
            connecting: None,
            backoff: Backoff::default(),
            connected_at: now,
            has_begun: false,
            jobs: HashMap::new(),
            next_id: 0,
            ledger: Ledger::default(),
            orphans: Orphans::default(),
            paused_until: None,
            idle_since: now,
            drain: None,
            cut_short: 0,
            failure: None,
        }
    }

    /// Runs jobs until it is told to end; its exit code.
    ///
    /// # Errors
    /// It cannot go on: an exit code, and why.
    pub(super) async fn run(mut self) -> Result<u8, (u8, String)> {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            return Err((OS_ERROR, "the system takes no handlers of signals".to_owned()));
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reports = Vec::with_capacity(BATCH_REPORTS);
        self.connect(Duration::ZERO);
        while !self.is_over() {
            tokio::select! {
                moved = turn(&mut self.link) => {
                    let read = self.read();
                    if let Err(gone) = moved.and(read) {
                        self.lose(&gone);
                    }
                }
                opened = finished(&mut self.connecting) => self.opened(opened),
                _ = self.parts.reports.recv_many(&mut reports, BATCH_REPORTS) => {
                    for report in reports.drain(..) {
                        self.take(report);
                    }
                }
                _ = ticks.tick() => self.tick(),
                number = either(&mut terminate, &mut interrupt) => self.signalled(number),
            }
            self.dispatch();
            self.write();
        }
        self.end().await
    }

    /// Hands out what there is room for.
    fn dispatch(&mut self) {
        if self.drain.is_some() || self.paused_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        while self.parts.slots.free() > 0 {
            let Some(job) = self.waiting.pop() else { return };
            if let Some(held) = self.jobs.get_mut(&job.id) {
                (held.is_running, held.since) = (true, Instant::now());
            }
            self.parts.slots.give(job);
        }
    }

    /// What is to be told is put into the connection's hands, and what is to be logged is.
    fn write(&mut self) {
        if let Some(link) = &mut self.link {
            self.ledger.flush(CHANNEL, link.out());
        }
        self.parts.log.flush();
    }

    fn is_over(&self) -> bool {
        self.failure.is_some() || (self.drain.is_some() && self.jobs.is_empty())
    }

    fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.parts.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The connection.

    /// Begins to connect, after a while.
    fn connect(&mut self, pause: Duration) {
        let (urls, wanted) = (self.parts.urls.clone(), self.parts.wanted.clone());
        let backoff = std::mem::take(&mut self.backoff);
        self.connecting = Some(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut last = Gone::Lost("there is no broker to connect to".to_owned());
            for url in &urls {
                match Link::open(url, &wanted).await {
                    Ok(link) => return (Ok(link), backoff),
                    Err(gone) => last = gone,
                }
            }
            (Err(last), backoff)
        }));
    }

    fn opened(&mut self, opened: (Result<Link, Gone>, Backoff)) {
        let (opened, backoff) = opened;
        self.backoff = backoff;
        self.connecting = None;
        match opened {
            Ok(link) => {
                self.link = Some(link);
                self.ledger = Ledger::default();
                self.metrics().is_connected = true;
                let queues: Vec<_> = self.parts.wanted.queues.iter().map(|share| &*share.name).collect();
                let text = format!("taking jobs from {}", queues.join(", "));
                self.parts.log.note("connected", &text);
                if !std::mem::replace(&mut self.has_begun, true) {
                    notify::tell(notify::READY);
                }
                (self.idle_since, self.connected_at) = (Instant::now(), Instant::now());
            }
            // It would be the same another time, and whoever started this may as well know.
            Err(gone) if gone.is_final() && !self.has_begun => {
                let code = match gone {
                    Gone::Refused { code: 403 | 530, .. } | Gone::Tls(_) => NO_PERMISSION,
                    _ => UNAVAILABLE,
                };
                let hint = match gone {
                    Gone::Refused { code: 404, .. } => "; --declare makes the queue",
                    _ => "",
                };
                self.failure = Some((code, format!("{gone}{hint}")));
            }
            Err(gone) => self.connect_later(&gone),
        }
        // What came with the answers is read at once.
        if self.link.is_some()
            && let Err(gone) = self.read()
        {
            self.lose(&gone);
        }
    }

    fn connect_later(&mut self, gone: &Gone) {
        let pause = self.backoff.next(getrandom::u64().unwrap_or_default());
        self.parts.log.note("disconnected", &format!("{gone}; next try in {:.1} s", pause.as_secs_f64()));
        self.connect(pause);
    }

    /// The connection is lost. What has not begun is forgotten: the broker has it. What runs goes on.
    fn lose(&mut self, gone: &Gone) {
        if self.link.take().is_none() {
            return;
        }
        for job in self.waiting.take_all() {
            self.jobs.remove(&job.id);
        }
        let mut count = 0;
        for held in self.jobs.values_mut() {
            if held.tag.take().is_some() {
                self.orphans.lost(&held.job);
                count += 1;
            }
        }
        let mut metrics = self.metrics();
        metrics.is_connected = false;
        metrics.connections_lost += 1;
        drop(metrics);
        if count > 0 {
            let text = format!("{count} jobs run on; the broker gives them out again");
            self.parts.log.note("orphaned", &text);
        }
        if self.drain.is_none() {
            self.connect_later(gone);
        } else {
            self.parts.log.note("disconnected", &gone.to_string());
        }
    }

    /// Takes what has come.
    fn read(&mut self) -> Result<(), Gone> {
        while let Some(link) = &mut self.link {
            match link.next()? {
                None => break,
                Some(Event::Delivery(delivery)) => self.delivered(delivery)?,
                Some(Event::Cancelled { consumer_tag, .. }) => {
                    let number: Option<usize> = consumer_tag.parse().ok();
                    let share = number.and_then(|number| self.parts.wanted.queues.get(number));
                    let name = share.map_or("?", |share| &*share.name);
                    return Err(Gone::Lost(format!("the broker has ended the consumer of {name}: is the queue gone?")));
                }
                Some(Event::ChannelClosed { code, text, .. }) => return Err(Gone::Refused { code, text }),
                Some(Event::Blocked(why)) => {
                    let text = format!("the broker takes no publishes for now ({why}), so what jobs say waits");
                    self.parts.log.note("blocked", &text);
                }
                Some(Event::Unblocked) => self.parts.log.note("unblocked", "the broker takes publishes again"),
                Some(Event::Returned(_) | Event::Confirmed { .. } | Event::Answer { .. }) => {}
            }
        }
        Ok(())
    }

    // Jobs.

    fn delivered(&mut self, delivery: Delivery) -> Result<(), Gone> {
        let number: Option<usize> = delivery.consumer_tag.parse().ok();
        let share = number.and_then(|number| Some((number, self.parts.wanted.queues.get(number)?)));
        let Some((number, share)) = share else {
            return Err(Gone::Lost("the broker delivers to a consumer that was never begun".to_owned()));
        };
        let id = JobId(self.next_id);
        self.next_id += 1;
        let Delivery { tag, redelivered, exchange, routing_key, properties, body, .. } = delivery;
        let queue = Arc::clone(&share.name);
        let job = Arc::new(Job { id, queue, exchange, routing_key, redelivered, properties, body });
        self.ledger.delivered(tag);
        match self.orphans.adopt(&job) {
            Some(Orphan::Running(running)) => {
                self.metrics().joined += 1;
                if let Some(held) = self.jobs.get_mut(&running) {
                    held.tag = Some(tag);
                    return Ok(());
                }
            }
            Some(Orphan::Ended(ending, _)) => {
                self.metrics().joined += 1;
                self.settle(&job, tag, &ending);
                return Ok(());
            }
            None => {}
        }
        if self.drain.is_some() {
            self.give_back(&job, tag);
            return Ok(());
        }
        self.jobs.insert(id, Held { job: Arc::clone(&job), tag: Some(tag), is_running: false, since: Instant::now() });
        self.waiting.push(number, job);
        Ok(())
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Up(slot) => self.parts.slots.set_up(slot, true),
            Report::Down { slot, why } => {
                self.parts.slots.set_up(slot, false);
                self.metrics().programs_ended += 1;
                self.parts.log.note("program", &why);
            }
            Report::Progress { job, progress } => self.tell_progress(job, &progress),
            Report::Ended { slot, job, ending } => {
                self.parts.slots.ended(slot);
                self.ended(job, ending);
            }
        }
    }

    fn ended(&mut self, id: JobId, ending: Box<Ending>) {
        let Some(Held { job, tag, .. }) = self.jobs.remove(&id) else { return };
        if self.drain.as_ref().is_some_and(|drain| drain.urgency > Urgency::None) && ending.verdict != Verdict::Done {
            self.cut_short += 1;
        }
        if let Some(pause) = ending.pause {
            self.paused_until = Some(Instant::now() + pause);
            let text = format!("the web hook wants no jobs for {:.1} s", pause.as_secs_f64());
            self.parts.log.note("paused", &text);
        }
        self.parts.log.job(&job, &ending);
        if ending.verdict != Verdict::Return {
            self.metrics().ended(&job.queue, ending.verdict, ending.took);
        }
        match tag.filter(|_| self.link.is_some()) {
            Some(tag) => self.settle(&job, tag, &ending),
            None => {
                self.metrics().unsettled += 1;
                let text = format!("a job of {} ended as {} without a connection", job.queue, ending.verdict.name());
                self.parts.log.note("unsettled", &text);
                self.orphans.ended(&job, ending, Instant::now());
            }
        }
        if self.jobs.is_empty() {
            self.idle_since = Instant::now();
        }
    }

    /// Tells the broker how a job ended.
    fn settle(&mut self, job: &Job, tag: u64, ending: &Ending) {
        self.reply(job, ending);
        let Some(link) = &mut self.link else { return };
        match ending.verdict {
            Verdict::Done => self.ledger.ack(tag),
            Verdict::Return => self.give_back(job, tag),
            verdict @ (Verdict::Retry | Verdict::Dead) => {
                self.ledger.settled(tag);
                if link.is_leveret {
                    let how = if verdict == Verdict::Retry { "retry" } else { "dead-letter" };
                    let why = &ending.why[..ending.why.floor_char_boundary(REASON_BYTES_MAX)];
                    let said = [("x-failure-reason", Value::from(why)), ("x-settle", Value::from(how))];
                    link.say("amq.leveret.failure", tag, &said, &ending.details);
                } else {
                    link.reject(tag, verdict == Verdict::Retry);
                }
            }
        }
    }

    /// Gives back a job that was not begun.
    fn give_back(&mut self, job: &Job, tag: u64) {
        let Some(link) = &mut self.link else { return };
        self.ledger.settled(tag);
        if link.is_leveret {
            link.say("amq.leveret.return", tag, &[], &[]);
        } else {
            link.reject(tag, true);
        }
        self.metrics().ended(&job.queue, Verdict::Return, Duration::ZERO);
    }

    /// Sends what a job gave as its result to whoever wants it.
    fn reply(&mut self, job: &Job, ending: &Ending) {
        let is_final = matches!(ending.verdict, Verdict::Done | Verdict::Dead);
        let Some(link) = self.link.as_mut().filter(|_| self.parts.replies && is_final) else { return };
        let Some(properties) = job.properties() else { return };
        let Some(reply_to) = properties.reply_to().filter(|queue| !queue.is_empty()) else { return };
        let mut headers = Table::from_iter([("x-job-result", ending.verdict.name())]);
        if !ending.why.is_empty() {
            headers.insert("x-failure-reason", ending.why.as_str());
        }
        let reply = PropertyList {
            headers: Some(headers),
            correlation_id: properties.correlation_id().map(|id| id.as_bytes().to_vec()),
            delivery_mode: properties.delivery_mode(),
            ..PropertyList::default()
        };
        link.publish(reply_to, &reply, ending.reply.as_deref().unwrap_or_default());
    }

    fn tell_progress(&mut self, id: JobId, progress: &Progress) {
        let tag = self.jobs.get(&id).and_then(|held| held.tag);
        let Some((link, tag)) = self.link.as_mut().filter(|link| link.is_leveret).zip(tag) else { return };
        let told = match progress.percent {
            Some(percent) if progress.text.is_empty() => Value::F64(percent),
            _ => Value::from(progress.told()),
        };
        link.say("amq.leveret.progress", tag, &[("x-progress", told)], &[]);
    }

    // Time.

    fn tick(&mut self) {
        let now = Instant::now();
        let running = self.jobs.values().filter(|held| held.is_running).count();
        let waiting = self.waiting.len();
        let mut metrics = self.metrics();
        (metrics.running, metrics.waiting) = (running, waiting);
        drop(metrics);
        if now >= self.leases_at {
            self.leases_at = now + self.parts.wanted.lease / 3;
            self.extend_leases(now);
        }
        self.orphans.forget(now);
        // A broker that lets somebody in and then throws him out is not asked ten times a second.
        if self.link.is_some() && now.saturating_duration_since(self.connected_at) >= SETTLED {
            self.backoff = Backoff::default();
        }
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
        }
        let is_idle = self.link.is_some() && self.jobs.is_empty() && self.drain.is_none();
        if is_idle && self.parts.idle.is_some_and(|idle| now.saturating_duration_since(self.idle_since) >= idle) {
            self.parts.log.note("idle", "there is nothing to do, and this is the end");
            self.begin_drain(None);
        }
        let is_late = |drain: &Drain| drain.urgency == Urgency::None && drain.until.is_some_and(|until| now >= until);
        if let Some(drain) = self.drain.as_mut().filter(|drain| is_late(drain)) {
            drain.urgency = Urgency::Soon;
            self.parts.stop.tell(Urgency::Soon);
            self.parts.log.note("grace", "jobs that still run are ended, and go back to their queues");
        }
    }

    /// Asks for more time for what has been here for a while.
    fn extend_leases(&mut self, now: Instant) {
        let lease = self.parts.wanted.lease;
        let Some(link) = self.link.as_mut().filter(|link| link.is_leveret) else { return };
        for held in self.jobs.values().filter(|held| now.saturating_duration_since(held.since) >= lease / 4) {
            if let Some(tag) = held.tag {
                link.say("amq.leveret.lease", tag, &[("x-lease-ms", Value::I64(millis(lease)))], &[]);
            }
        }
    }

    // The end.

    fn signalled(&mut self, number: i32) {
        match &mut self.drain {
            None => {
                let running = self.jobs.values().filter(|held| held.is_running).count();
                let grace = self.parts.grace.as_secs_f64();
                let text = format!("no new jobs; {running} that run have {grace} s (once more: end at once)");
                self.parts.log.note("stopping", &text);
                self.begin_drain(Some(number));
            }
            Some(drain) => {
                drain.urgency = Urgency::Now;
                drain.signal = Some(number);
                self.parts.stop.tell(Urgency::Now);
                self.parts.log.note("stopping", "at once; jobs go back to their queues");
            }
        }
    }

    fn begin_drain(&mut self, signal: Option<i32>) {
        notify::tell(notify::STOPPING);
        let until = Instant::now() + self.parts.grace;
        self.drain = Some(Drain { until: Some(until), urgency: Urgency::None, signal });
        if let Some(connecting) = self.connecting.take() {
            connecting.abort();
        }
        if let Some(link) = &mut self.link {
            link.cancel_consumers(&self.parts.wanted);
        }
        for job in self.waiting.take_all() {
            if let Some(tag) = self.jobs.remove(&job.id).and_then(|held| held.tag) {
                self.give_back(&job, tag);
            }
        }
    }

    async fn end(mut self) -> Result<u8, (u8, String)> {
        let hurry = self.drain.as_ref().map_or(Urgency::Now, |drain| drain.urgency);
        // What has come since is given back, and all that was said is heard.
        if let Some(link) = self.link.take()
            && let Err(gone) = link.close().await
        {
            self.parts.log.note("disconnected", &format!("{gone}; the last results may not have been heard"));
        }
        // Programs that stay see the end of their input, and then the end.
        let Parts { slots, programs, mut stop, mut log, metrics, .. } = self.parts;
        drop(slots);
        let ending = async {
            for program in programs {
                let _ended = program.await;
            }
        };
        tokio::pin!(ending);
        let patience = if hurry == Urgency::Now { Duration::from_millis(500) } else { PROGRAMS_PATIENCE };
        if tokio::time::timeout(patience, &mut ending).await.is_err() {
            stop.tell(Urgency::Now);
            let _late = tokio::time::timeout(PROGRAMS_PATIENCE, ending).await;
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let total = |verdict| metrics.lock().unwrap_or_else(PoisonError::into_inner).total(verdict);
        let [done, retried, dead, returned] = Verdict::ALL.map(total);
        log.note("stopped", &format!("{done} done, {retried} to be tried again, {dead} dead, {returned} not begun"));
        log.flush();
        Ok(match self.drain {
            Some(Drain { urgency: Urgency::Now, signal: Some(signal), .. }) => {
                u8::try_from(128 + signal).unwrap_or(u8::MAX)
            }
            _ if self.cut_short > 0 => TEMPORARY,
            _ => 0,
        })
    }
}

async fn turn(link: &mut Option<Link>) -> Result<(), Gone> {
    match link {
        Some(link) => link.turn().await,
        None => std::future::pending().await,
    }
}

async fn finished(connecting: &mut Option<JoinHandle<(Result<Link, Gone>, Backoff)>>) -> (Result<Link, Gone>, Backoff) {
    match connecting {
        Some(task) => match task.await {
            Ok(opened) => opened,
            Err(error) => (Err(Gone::Lost(error.to_string())), Backoff::default()),
        },
        None => std::future::pending().await,
    }
}

/// The number of the signal that came.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

/// Some jobs went back to their queues before they had ended.
const TEMPORARY: u8 = 75;
/// A queue is not there, or the broker refuses.
const UNAVAILABLE: u8 = 69;
const OS_ERROR: u8 = 71;
/// The broker does not let this user in.
const NO_PERMISSION: u8 = 77;
const BATCH_REPORTS: usize = 1024;
const TICK: Duration = Duration::from_millis(200);
/// A connection that is as old as this is one.
const SETTLED: Duration = Duration::from_secs(10);
const PROGRAMS_PATIENCE: Duration = Duration::from_secs(6);
const REASON_BYTES_MAX: usize = 256;
