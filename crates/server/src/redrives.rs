//! Redrives that run: walks over the messages of a queue that were there when each began, in pieces that are durable
//! before the next one.
//!
//! How far one is, its queue keeps ([`broker::redrive`]): from before its first piece on, then about once a second, and
//! when it ends. A start of the server goes on with all that have not ended. What was moved is gone from the queue, so
//! that only has to begin anew at the head.

use crate::switchboard::{Switchboard, Unanswered};
use broker::command::{QueueId, QueueRef};
use broker::inspect::QueueView;
use broker::operation::{Answer, Cursor, Next, Operation, Scan, Which};
use broker::redrive::{End, Redrive};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The last redrive of each queue.
#[derive(Debug, Default)]
pub(crate) struct Redrives(Mutex<HashMap<QueueId, Arc<Running>>>);

/// One of them, whether it runs or has ended.
#[derive(Debug)]
pub(crate) struct Running {
    queue: QueueRef,
    /// When this server went on with what an earlier one had begun.
    resumed_unix_ms: Option<u64>,
    progress: Mutex<Progress>,
    stop: Notify,
}

/// How far one is.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) redrive: Redrive,
    pub(crate) resumed_unix_ms: Option<u64>,
    /// Why nothing is moved at the moment.
    pub(crate) waits_for: Option<&'static str>,
    pub(crate) is_stopping: bool,
}

/// Why a redrive does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error("the queue is being redriven already")]
    Runs,
    #[error("there is no such queue any more")]
    Gone,
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl Redrives {
    fn all(&self) -> MutexGuard<'_, HashMap<QueueId, Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the last redrive of a queue is.
    pub(crate) fn look(&self, queue: QueueId) -> Option<Progress> {
        self.all().get(&queue).map(|running| running.progress().clone())
    }

    /// Ends one after the piece at hand. One that has ended by itself is as good.
    pub(crate) fn stop(&self, queue: QueueId) {
        let running = self.all().get(&queue).cloned();
        if let Some(running) = running {
            running.progress().is_stopping = true;
            running.stop.notify_one();
        }
    }
}

/// Begins one. How it stands is durable then, where its queue is.
pub(crate) async fn begin(board: &Arc<Switchboard>, queue: QueueRef, redrive: Redrive) -> Result<Progress, BeginError> {
    // In a task of its own: whoever asks may go meanwhile, and would leave one that says it runs, and never ends.
    let beginning = tokio::spawn(begin_now(Arc::clone(board), queue, redrive));
    beginning.await.unwrap_or(Err(BeginError::Unanswered(Unanswered)))
}

async fn begin_now(board: Arc<Switchboard>, queue: QueueRef, redrive: Redrive) -> Result<Progress, BeginError> {
    let running = Arc::new(Running::new(queue, redrive.clone(), None));
    {
        let mut all = board.redrives().all();
        if all.get(&queue.id).is_some_and(|other| other.progress().redrive.end.is_none()) {
            return Err(BeginError::Runs);
        }
        // Those of queues that are gone go, too.
        let topology = board.topology();
        all.retain(|queue, _| topology.queue_by_id(*queue).is_some());
        all.insert(queue.id, Arc::clone(&running));
    }
    let kept = board.operate(queue, Operation::Redrive(Arc::new(redrive))).await;
    let refused = match kept {
        Ok(Answer::Done) => None,
        Ok(_) => Some(BeginError::Gone),
        Err(unanswered) => Some(unanswered.into()),
    };
    if let Some(refused) = refused {
        let ended = Redrive { end: Some(End::Failed(refused.to_string())), ..running.progress().redrive.clone() };
        if matches!(refused, BeginError::Unanswered(_)) {
            // The queue may still hear of its beginning. It hears of its end behind it, and no start goes on with it.
            let _unheard = board.operate(queue, Operation::Redrive(Arc::new(ended.clone()))).await;
        }
        running.progress().redrive = ended;
        return Err(refused);
    }
    let progress = running.progress().clone();
    tokio::spawn(running.run(board));
    Ok(progress)
}

/// Goes on with those that had not ended when the server did.
pub(crate) fn go_on(board: &Arc<Switchboard>, views: &[QueueView]) {
    let now_unix_ms = board.clock().now().unix_ms;
    for view in views {
        let Some(redrive) = &view.redrive else { continue };
        let resumed = redrive.end.is_none().then_some(now_unix_ms);
        let running = Arc::new(Running::new(view.spec.queue, Redrive::clone(redrive), resumed));
        board.redrives().all().insert(view.spec.queue.id, Arc::clone(&running));
        if resumed.is_some() {
            let (queue, vhost) = (&view.spec.name, &view.spec.vhost_name);
            let Redrive { moved, total, .. } = **redrive;
            tracing::info!(
                "the redrive of queue '{queue}' in vhost '{vhost}' goes on: at least {moved} of {total} messages were \
                 moved before the server ended"
            );
            tokio::spawn(running.run(Arc::clone(board)));
        }
    }
}

impl Running {
    fn new(queue: QueueRef, redrive: Redrive, resumed_unix_ms: Option<u64>) -> Self {
        let progress = Progress { redrive, resumed_unix_ms, waits_for: None, is_stopping: false };
        Self { queue, resumed_unix_ms, progress: Mutex::new(progress), stop: Notify::new() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, board: Arc<Switchboard>) {
        let end = self.go_through(&board).await;
        let ended = Redrive { end: Some(end), ..self.progress().redrive.clone() };
        // Whoever hears of the end may end the server: it is durable first. If it cannot be, the next start goes on.
        let _kept = board.operate(self.queue, Operation::Redrive(Arc::new(ended.clone()))).await;
        *self.progress() =
            Progress { redrive: ended, resumed_unix_ms: self.resumed_unix_ms, waits_for: None, is_stopping: false };
    }

    async fn go_through(&self, board: &Switchboard) -> End {
        let (rate, until, filter, act) = {
            let redrive = &mut self.progress().redrive;
            // What stays is met again.
            (redrive.unroutable, redrive.passed) = (0, 0);
            (redrive.rate, redrive.until, redrive.filter.clone(), redrive.act())
        };
        let count = rate.map_or(PIECE, |rate| (rate / 10).clamp(1, PIECE));
        let (mut from, mut unanswered) = (Cursor::HEAD, 0);
        let mut said = Instant::now();
        loop {
            if self.progress().is_stopping {
                return End::Stopped;
            }
            let which = Which::Ready { from, until: Some(until) };
            let scan = Scan { which, filter: filter.clone(), count, act: act.clone() };
            let pause = match board.operate(self.queue, Operation::Scan(scan)).await {
                Ok(Answer::Page(page)) => {
                    unanswered = 0;
                    let mut progress = self.progress();
                    let redrive = &mut progress.redrive;
                    redrive.moved += page.done;
                    redrive.unroutable += page.unroutable;
                    redrive.passed += page.passed;
                    match page.next {
                        _ if page.refused > 0 => {
                            // What was refused is back in its place, which may lie before.
                            (redrive.unroutable, redrive.passed) = (0, 0);
                            progress.waits_for = Some("a queue that messages go to is full");
                            from = Cursor::HEAD;
                            WAIT
                        }
                        Some(Next::Ready(next)) => {
                            progress.waits_for = None;
                            from = next;
                            rate.map_or(Duration::ZERO, |rate| {
                                Duration::from_secs_f64(page.done as f64 / f64::from(rate))
                            })
                        }
                        _ => return End::Done,
                    }
                }
                Ok(_) => return End::Failed("the queue is gone".to_owned()),
                // It may be done or not; asked for again, it is.
                Err(_) if unanswered < UNANSWERED_MAX => {
                    unanswered += 1;
                    self.progress().waits_for = Some("the server does not answer in time");
                    WAIT
                }
                Err(unanswered) => return End::Failed(unanswered.to_string()),
            };
            if said.elapsed() >= SAY {
                said = Instant::now();
                let redrive = self.progress().redrive.clone();
                let _kept = board.operate(self.queue, Operation::Redrive(Arc::new(redrive))).await;
            }
            if !pause.is_zero() {
                tokio::select! {
                    () = self.stop.notified() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

/// How many messages are moved at once.
const PIECE: u32 = 1024;
/// How long to wait for room in a queue, or for a shard that does not answer.
const WAIT: Duration = Duration::from_millis(200);
/// So many times in a row.
const UNANSWERED_MAX: u32 = 20;
/// The queue hears how far it is at least so often.
const SAY: Duration = Duration::from_secs(1);
