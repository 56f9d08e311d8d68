//! `/api/queues/VHOST/NAME/redrive`, which RabbitMQ does not have: dead letters go back to where they died.
//!
//! A redrive is a walk over the messages that were there when it began, in pieces that are durable before the next one.
//! What was moved is gone from the queue: one that ends early, even by the end of the server, is simply begun again.

use super::access::Caller;
use super::operations::{end, filter_of, own, target};
use super::refusal::Refusal;
use super::request::Document;
use super::{Shared, rights, values};
use crate::switchboard::Switchboard;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::access::{Resource, Right};
use broker::command::{QueueId, QueueRef, Seq};
use broker::operation::{Act, Answer, Cursor, Filter, Next, Operation, Origin, Scan, Which};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The last redrive of each queue.
#[derive(Debug, Default)]
pub(super) struct Redrives(Mutex<HashMap<QueueId, Arc<Redrive>>>);

/// One of them.
#[derive(Debug)]
struct Redrive {
    /// How many messages there were when it began.
    total: u64,
    began_unix_ms: u64,
    /// Messages a second; `None` = as fast as it goes.
    rate: Option<u32>,
    progress: Mutex<Progress>,
    stop: Notify,
}

#[derive(Clone, Debug)]
struct Progress {
    moved: u64,
    unroutable: u64,
    passed: u64,
    state: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The queue that messages go to is full.
    Waiting,
    Stopping,
    Stopped,
    Done,
    Failed(String),
}

/// What a redrive does.
struct Work {
    queue: QueueRef,
    until: Seq,
    filter: Filter,
    act: Act,
}

impl Redrives {
    fn all(&self) -> MutexGuard<'_, HashMap<QueueId, Arc<Redrive>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `POST /api/queues/VHOST/NAME/redrive`: begins one.
pub(super) async fn begin(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let origin = match document.text("origin")? {
        "" | "last" => Origin::Last,
        "first" => Origin::First,
        _ => return Err(Refusal::bad_request("origin must be last or first")),
    };
    let act = match target(&api, &spec, &document)? {
        Some(target) => Act::Move(target),
        None => {
            // A message says itself where it died, and so may whoever published it: any queue can be meant.
            rights::check_use(&api, spec.vhost, Right::Write, Resource::Exchange(""))?;
            Act::Redrive(origin)
        }
    };
    let rate = document.integer("rate")?.map(u32::try_from).transpose().ok().filter(|rate| *rate != Some(0));
    let rate = rate.ok_or_else(|| Refusal::bad_request("rate must be a number of messages a second"))?;
    let filter = document.get("filter").map(filter_of).transpose()?.unwrap_or_default();
    let until = end(&api, spec.queue).await?;
    let total = api.board.inspect_queue(spec.queue).await?.ok_or_else(Refusal::no_object)?.ready;
    let progress = Progress { moved: 0, unroutable: 0, passed: 0, state: Phase::Running };
    let redrive = Arc::new(Redrive {
        total,
        began_unix_ms: api.board.clock().now().unix_ms,
        rate,
        progress: Mutex::new(progress),
        stop: Notify::new(),
    });
    {
        let mut all = api.redrives.all();
        if all.get(&spec.queue.id).is_some_and(|redrive| redrive.is_running()) {
            return Err(Refusal::bad_request("the queue is being redriven already"));
        }
        // Those of queues that are gone go, too.
        let topology = api.board.topology();
        all.retain(|queue, _| topology.queue_by_id(*queue).is_some());
        all.insert(spec.queue.id, Arc::clone(&redrive));
    }
    let work = Work { queue: spec.queue, until, filter, act };
    tokio::spawn(Arc::clone(&redrive).run(Arc::clone(&api.board), work));
    Ok((StatusCode::ACCEPTED, Json(redrive.describe())))
}

/// `GET /api/queues/VHOST/NAME/redrive`: how far the last one is.
pub(super) async fn show(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let redrive = api.redrives.all().get(&spec.queue.id).cloned();
    Ok(Json(redrive.ok_or_else(Refusal::no_object)?.describe()))
}

/// `DELETE /api/queues/VHOST/NAME/redrive`: ends it after the piece at hand. One that has ended by itself is as good.
pub(super) async fn stop(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let redrive = api.redrives.all().get(&spec.queue.id).cloned();
    if let Some(redrive) = redrive.filter(|redrive| redrive.is_running()) {
        redrive.progress().state = Phase::Stopping;
        redrive.stop.notify_one();
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Redrive {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        matches!(self.progress().state, Phase::Running | Phase::Waiting | Phase::Stopping)
    }

    fn describe(&self) -> Value {
        let Progress { moved, unroutable, passed, state } = self.progress().clone();
        let (word, reason) = match &state {
            Phase::Running => ("running", None),
            Phase::Waiting => ("waiting", Some("a queue that messages go to is full")),
            Phase::Stopping => ("stopping", None),
            Phase::Stopped => ("stopped", None),
            Phase::Done => ("done", None),
            Phase::Failed(why) => ("failed", Some(why.as_str())),
        };
        json!({
            "state": word,
            "reason": reason,
            "total": self.total,
            "moved": moved,
            "unroutable": unroutable,
            "passed_over": passed,
            "rate": self.rate,
            "began_at": values::moment(self.began_unix_ms),
        })
    }

    async fn run(self: Arc<Self>, board: Arc<Switchboard>, work: Work) {
        let end = self.go_through(&board, work).await;
        self.progress().state = end;
    }

    async fn go_through(&self, board: &Switchboard, work: Work) -> Phase {
        let Work { queue, until, filter, act } = work;
        let mut from = Cursor::HEAD;
        let count = self.rate.map_or(PIECE, |rate| (rate / 10).clamp(1, PIECE));
        loop {
            if self.progress().state == Phase::Stopping {
                return Phase::Stopped;
            }
            let which = Which::Ready { from, until: Some(until) };
            let scan = Scan { which, filter: filter.clone(), count, act: act.clone() };
            let page = match board.operate(queue, Operation::Scan(scan)).await {
                Ok(Answer::Page(page)) => page,
                Ok(_) => return Phase::Failed("the queue is gone".to_owned()),
                Err(unanswered) => return Phase::Failed(unanswered.to_string()),
            };
            {
                let mut progress = self.progress();
                progress.moved += page.done;
                progress.unroutable += page.unroutable;
                progress.passed += page.passed;
                if progress.state != Phase::Stopping {
                    progress.state = if page.refused > 0 { Phase::Waiting } else { Phase::Running };
                }
                if page.refused > 0 {
                    // What was refused is back in its place, which may lie before.
                    (progress.unroutable, progress.passed) = (0, 0);
                }
            }
            match page.next {
                _ if page.refused > 0 => from = Cursor::HEAD,
                Some(Next::Ready(next)) => from = next,
                _ => return Phase::Done,
            }
            let pause = match self.rate {
                _ if page.refused > 0 => FULL_PAUSE,
                Some(rate) => Duration::from_secs_f64(page.done as f64 / f64::from(rate)),
                None => Duration::ZERO,
            };
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
/// How long to wait for room in a queue.
const FULL_PAUSE: Duration = Duration::from_millis(200);
