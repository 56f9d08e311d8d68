//! One run: jobs go out as far as the window lets them, confirms come in, and a lost connection is made again.

use super::input::{Item, Wrong};
use super::job::Job;
use super::progress::Display;
use super::state::{Progress, StateFile};
use super::window::{State, Window};
use super::{DATA, INTERRUPTED, IO, NO_INPUT, NO_PERMISSION, Plan, TEMPORARY, UNAVAILABLE};
use crate::client::{Backoff, Connection, Event, Gone, Returned};
use amqp::method::{basic, confirm};
use amqp::{ChannelId, Method};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

/// See the module.
struct Run {
    plan: Plan,
    items: mpsc::Receiver<Item>,
    /// Read, and not sent yet.
    waiting: VecDeque<Job>,
    window: Window,
    state: Option<StateFile>,
    display: Display,
    /// How far an earlier run came.
    passed: u64,
    /// How far everything is confirmed, in order; and how many octets of the input that is.
    done: Progress,
    bytes: u64,
    /// There is no more input, and that is how far it went or why.
    end: Option<Result<Progress, Wrong>>,
    /// Something was not taken: nothing more is sent.
    has_failed: bool,
    /// Messages that came back where nobody confirms, and why the first did.
    lost: (u64, String),
    is_interrupted: bool,
    signals: [Signal; 2],
}

/// Why a run ends that has not done all.
enum Broken {
    Gone(Gone),
    State(std::io::Error),
    Killed,
}

impl From<Gone> for Broken {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// Publishes it all; the exit code.
pub(super) async fn run(plan: Plan, items: mpsc::Receiver<Item>, state: Option<StateFile>, mut display: Display) -> u8 {
    let signals = signal(SignalKind::interrupt()).and_then(|one| Ok([one, signal(SignalKind::terminate())?]));
    let signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            display.complain(&format!("cannot start: {error}"));
            return IO;
        }
    };
    let done = state.as_ref().map_or_else(Progress::default, |state| state.progress());
    let mut run = Run {
        plan,
        items,
        waiting: VecDeque::new(),
        window: Window::new(),
        state,
        display,
        passed: done.lines,
        done,
        bytes: 0,
        end: None,
        has_failed: false,
        lost: (0, String::new()),
        is_interrupted: false,
        signals,
    };
    let ended = run.go().await;
    run.conclude(ended)
}

impl Run {
    async fn go(&mut self) -> Result<(), Broken> {
        let mut patience = self.plan.give_up_after.unwrap_or_default();
        let (mut backoff, mut confirmed) = (Backoff::default(), 0);
        loop {
            let mut connection = self.connect(patience, &mut backoff).await?;
            match self.serve(&mut connection).await {
                Ok(()) => return self.part(connection).await,
                Err(Broken::Gone(gone)) if !gone.is_final() && self.plan.is_confirmed => {
                    let open = self.window.open();
                    self.display.say(&format!("{gone}. {open} jobs were not confirmed yet, and are sent again"));
                }
                Err(broken) => return Err(broken),
            }
            patience = self.plan.give_up_after.unwrap_or(PATIENCE);
            if self.window.confirmed == confirmed {
                // It lets in and does nothing.
                self.pause(&mut backoff).await?;
            } else {
                (backoff, confirmed) = (Backoff::default(), self.window.confirmed);
            }
        }
    }

    /// Tries all URLs in turn until one lets it in, or the time is over.
    async fn connect(&mut self, patience: Duration, backoff: &mut Backoff) -> Result<Connection, Broken> {
        let deadline = Instant::now() + patience;
        loop {
            let mut last = None;
            for url in &self.plan.urls {
                match Connection::open(url, NAME).await {
                    Ok(connection) => return Ok(connection),
                    Err(gone) => last = Some(gone),
                }
            }
            let gone = last.unwrap_or_else(|| Gone::Lost("there is no broker to connect to".to_owned()));
            if gone.is_final() || Instant::now() >= deadline {
                return Err(gone.into());
            }
            self.pause(backoff).await?;
        }
    }

    async fn pause(&mut self, backoff: &mut Backoff) -> Result<(), Broken> {
        let wait = backoff.next(getrandom::u64().unwrap_or_default());
        let [interrupted, terminated] = &mut self.signals;
        tokio::select! {
            () = sleep(wait) => Ok(()),
            _ = interrupted.recv() => Err(Broken::Killed),
            _ = terminated.recv() => Err(Broken::Killed),
        }
    }

    /// Publishes until all is done, or the connection is.
    async fn serve(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        connection.open_channel(CHANNEL).await?;
        if self.plan.is_confirmed {
            let select = Method::ConfirmSelect(confirm::Select { nowait: false });
            connection.ask(CHANNEL, &select, confirm::SelectOk::ID).await?;
        }
        self.window.begin_again().for_each(|job| send(connection, job));
        let mut ticks = interval(self.display.period());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let far = Instant::now();
        let mut hurry: Option<Instant> = None;
        loop {
            while let Some(event) = connection.next()? {
                self.hear(event)?;
            }
            self.settle()?;
            self.fill(connection);
            if self.is_finished(connection) {
                return Ok(());
            }
            let wants_more = self.waiting.is_empty() && self.end.is_none() && self.has_room(connection);
            let [interrupted, terminated] = &mut self.signals;
            tokio::select! {
                moved = connection.turn() => {
                    if let Err(gone) = moved {
                        // What came before it counts, and may say why.
                        while let Some(event) = connection.next()? {
                            self.hear(event)?;
                        }
                        self.settle()?;
                        return Err(gone.into());
                    }
                }
                item = self.items.recv(), if wants_more => self.take(item),
                _ = ticks.tick() => {
                    if self.plan.is_many {
                        self.display.show(self.window.confirmed, self.bytes, self.window.open());
                    }
                    // Whatever waits to be on disk is written by and by.
                    self.settle()?;
                }
                _ = interrupted.recv() => hurry = Some(self.interrupt(hurry)?),
                _ = terminated.recv() => hurry = Some(self.interrupt(hurry)?),
                () = sleep_until(hurry.unwrap_or(far)), if hurry.is_some() => return Err(Broken::Killed),
            }
        }
    }

    /// The first signal asks for an orderly end; the second one does not.
    fn interrupt(&mut self, hurry: Option<Instant>) -> Result<Instant, Broken> {
        self.is_interrupted = true;
        if hurry.is_some() { Err(Broken::Killed) } else { Ok(Instant::now() + LAST_CONFIRMS) }
    }

    fn take(&mut self, item: Option<Item>) {
        match item {
            Some(Item::Jobs(jobs)) => self.waiting.extend(jobs),
            Some(Item::End(progress)) => self.end = Some(Ok(progress)),
            Some(Item::Wrong(wrong)) => self.end = Some(Err(wrong)),
            None => self.end = Some(Err(Wrong::Unreadable("the input broke off".to_owned()))),
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Gone> {
        match event {
            Event::Confirmed { tag, multiple, is_taken, .. } => {
                self.has_failed |= !is_taken;
                if !self.window.confirm(tag, multiple, is_taken) {
                    return Err(Gone::Lost(format!("the broker confirmed message {tag}, which was not sent")));
                }
            }
            Event::Returned(back) => self.came_back(&back),
            Event::Blocked(reason) => {
                self.display.say(&format!("the broker takes nothing for now ({reason}); this waits until it does"));
            }
            Event::Unblocked => self.display.say("the broker takes jobs again"),
            Event::ChannelClosed { code, text, .. } => return Err(Gone::Refused { code, text }),
            Event::Delivery(_) | Event::Cancelled { .. } | Event::Answer { .. } => {}
        }
        Ok(())
    }

    fn came_back(&mut self, back: &Returned) {
        self.has_failed = true;
        let reason = match (back.code, back.exchange.is_empty()) {
            (312, true) => format!("there is no queue {:?} (312 NO_ROUTE)", back.routing_key),
            (312, false) => format!(
                "the exchange {:?} leads to no queue with the routing key {:?} (312 NO_ROUTE)",
                back.exchange, back.routing_key
            ),
            (code, _) => format!("it came back: {code} {}", back.text),
        };
        if self.plan.is_confirmed {
            self.window.came_back(&reason, |job| {
                (job.target.exchange.as_str(), job.target.routing_key.as_str())
                    == (back.exchange.as_str(), back.routing_key.as_str())
                    && job.body == back.body
            });
        } else {
            self.lost = (self.lost.0 + 1, reason);
        }
    }

    /// What is confirmed in order is noted.
    fn settle(&mut self) -> Result<(), Broken> {
        while let Some(job) = self.window.pop_taken() {
            self.done = Progress { lines: job.line, check: job.check };
            self.bytes = job.end;
        }
        if let Some(Ok(whole)) = &self.end
            && self.window.len() == 0
            && self.waiting.is_empty()
        {
            // Lines without jobs may have come after the last job.
            self.done = *whole;
        }
        if let Some(state) = &mut self.state {
            state.write(self.done, std::time::Instant::now()).map_err(Broken::State)?;
        }
        Ok(())
    }

    fn has_room(&self, connection: &Connection) -> bool {
        let is_stopped = self.has_failed || self.is_interrupted;
        // Jobs that are done but stand behind one that is not count: nothing beyond a window is ever in doubt.
        let has_place = self.window.len() < self.plan.window;
        let has_memory = self.window.open_bytes() < OPEN_BYTES_MAX || self.window.open() == 0;
        !is_stopped && has_place && has_memory && connection.out.len() < OUT_BYTES_MAX
    }

    fn fill(&mut self, connection: &mut Connection) {
        while !self.waiting.is_empty() && self.has_room(connection) {
            let Some(job) = self.waiting.pop_front() else { return };
            send(connection, self.window.push(job));
            if !self.plan.is_confirmed {
                self.window.believe();
                while let Some(job) = self.window.pop_taken() {
                    self.bytes = job.end;
                }
            }
        }
    }

    fn is_finished(&self, connection: &Connection) -> bool {
        let is_read = self.end.is_some() && self.waiting.is_empty();
        let is_sent = self.plan.is_confirmed || connection.out.is_empty();
        self.window.open() == 0 && is_sent && (is_read || self.has_failed || self.is_interrupted)
    }

    /// Leaves in an orderly way. Where nobody confirms, the broker's goodbye says that it has taken all.
    async fn part(&mut self, connection: Connection) -> Result<(), Broken> {
        match connection.close().await {
            Ok(events) => events.into_iter().try_for_each(|event| self.hear(event)).map_err(Broken::Gone),
            Err(_) if self.plan.is_confirmed => Ok(()),
            Err(gone) => Err(gone.into()),
        }
    }

    /// Tells what came of it; the exit code.
    fn conclude(mut self, ended: Result<(), Broken>) -> u8 {
        let ended = ended.and_then(|()| self.settle());
        let also = self.window.left().filter(|(_, state)| **state == State::Taken).map(|(job, _)| job.line);
        let also = also.collect();
        let kept = self.state.as_mut().map_or(Ok(()), |state| state.finish(also));
        let word = if self.plan.is_confirmed { "confirmed" } else { "sent" };
        let nothing_was_left = self.window.confirmed == 0 && self.passed > 0 && ended.is_ok();
        if nothing_was_left && self.end.as_ref().is_some_and(Result::is_ok) && self.window.len() == 0 {
            self.display.say(&format!("nothing to do: all {} lines were confirmed before", self.done.lines));
        } else if self.plan.is_many {
            self.display.finish(self.window.confirmed, word);
        }
        let code = match ended {
            Ok(()) => self.judge(),
            Err(Broken::Gone(gone)) => {
                self.display.complain(&self.with_doubt(&gone.to_string()));
                match gone {
                    Gone::Refused { code: 403 | 530, .. } => NO_PERMISSION,
                    Gone::Refused { code: 404 | 406 | 311, .. } => DATA,
                    _ => UNAVAILABLE,
                }
            }
            Err(Broken::State(error)) => {
                self.display.complain(&self.with_doubt(&format!("the state file cannot be written: {error}")));
                IO
            }
            Err(Broken::Killed) => {
                self.display.complain(&self.with_doubt("interrupted"));
                INTERRUPTED
            }
        };
        if let Err(error) = kept {
            self.display.complain(&format!("the state file cannot be written: {error}"));
            return if code == 0 { IO } else { code };
        }
        code
    }

    /// Everything that was sent is decided about.
    fn judge(&mut self) -> u8 {
        let mut code = 0;
        let failed: Vec<_> = self
            .window
            .left()
            .filter_map(|(job, state)| match state {
                State::Returned(reason) => Some((DATA, format!("{}{reason}", self.name(job)))),
                State::Refused => Some((TEMPORARY, format!("{}{}", self.name(job), refusal(job)))),
                State::Open | State::Taken => None,
            })
            .collect();
        for (_, text) in failed.iter().take(TOLD_MAX) {
            self.display.complain(text);
        }
        if failed.len() > TOLD_MAX {
            self.display.complain(&format!("and {} more", failed.len() - TOLD_MAX));
        }
        if let Some((first, _)) = failed.first() {
            code = *first;
            if self.plan.is_many {
                let (confirmed, count) = (self.window.confirmed, failed.len());
                let rest = if self.state.is_some() { "; another run with the same --resume goes on" } else { "" };
                self.display
                    .complain(&format!("{confirmed} confirmed, {count} not taken, nothing sent after that{rest}"));
            }
        }
        if self.lost.0 > 0 {
            let (count, reason) = &self.lost;
            self.display.complain(&format!("{count} came back: {reason}"));
            code = DATA;
        }
        if let Some(Err(wrong)) = &self.end {
            let (why, its_code) = match wrong {
                Wrong::Unreadable(why) => (why, NO_INPUT),
                Wrong::Data(why) => (why, DATA),
            };
            self.display.complain(why);
            code = if code == 0 { its_code } else { code };
        }
        if code == 0 && self.is_interrupted {
            self.display.complain(&format!("interrupted; {} confirmed, and all that were sent", self.window.confirmed));
            code = INTERRUPTED;
        }
        code
    }

    /// How a job is called in messages.
    fn name(&self, job: &Job) -> String {
        match (self.plan.has_lines, self.plan.is_many) {
            (true, _) => format!("line {}: ", job.line),
            (false, true) => format!("job {}: ", job.line),
            (false, false) => String::new(),
        }
    }

    /// Why a run broke off, with what is known of the jobs.
    fn with_doubt(&self, why: &str) -> String {
        let (confirmed, open) = (self.window.confirmed, self.window.open());
        let mut text = why.trim_end_matches('.').to_owned();
        if self.plan.is_many {
            text.push_str(&format!(". {confirmed} confirmed, {open} sent and not confirmed"));
        }
        if self.state.is_some() {
            text.push_str("; another run with the same --resume goes on");
        } else if open > 0 {
            text.push_str("; the broker may have what was not confirmed, or not");
        }
        text
    }
}

fn refusal(job: &Job) -> String {
    let target = &job.target;
    if target.exchange.is_empty() {
        format!("the queue {:?} is full and refuses more", target.routing_key)
    } else {
        format!("a queue that the {target} leads to is full and refuses more")
    }
}

fn send(connection: &mut Connection, job: &Job) {
    let publish = basic::Publish {
        exchange: &job.target.exchange,
        routing_key: &job.target.routing_key,
        mandatory: true,
        immediate: false,
    };
    connection.publish(CHANNEL, &publish, &job.properties, &job.body);
}

const CHANNEL: ChannelId = ChannelId(1);
/// What the broker calls the connection.
const NAME: &str = "leveret publish";
/// For how long a lost connection is tried to be made again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an interrupted run waits for what it has sent.
const LAST_CONFIRMS: Duration = Duration::from_secs(5);
/// What may be unconfirmed, beside the number.
const OPEN_BYTES_MAX: usize = 32 << 20;
/// What is encoded ahead of the socket.
const OUT_BYTES_MAX: usize = 256 << 10;
/// How many jobs that were not taken are named.
const TOLD_MAX: usize = 10;
