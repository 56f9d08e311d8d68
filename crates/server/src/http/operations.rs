//! What RabbitMQ does not have: a queue is paused, and its messages are looked at, deleted, moved, requeued and released
//! before their time, one or many, while it works.
//!
//! A request goes through the queue in pieces and ends when it has what was asked for, or after [`TIME_MAX`]; then it says
//! where the next one goes on (`next`, to be given as `from`).

use super::access::Caller;
use super::refusal::Refusal;
use super::request::Document;
use super::{Api, Shared, leases, messages, queues, rights};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::access::{Resource, Right};
use broker::command::{Failure, QueueRef, QueueSpec, Seq};
use broker::operation::{
    Act, Answer, Cursor, Death, Filter, Next, Operation, PROPERTIES, Page, Scan, Shown, Target, Term, Time, Which,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// `PUT /api/queues/VHOST/NAME/pause`
pub(super) async fn pause(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    ask(&api, spec.queue, Operation::Pause).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /api/queues/VHOST/NAME/resume`
pub(super) async fn resume(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    ask(&api, spec.queue, Operation::Resume).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/queues/VHOST/NAME/messages`
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let view = View::read(&pairs)?;
    let mut scan = Scan { which: view.which.clone(), filter: view.filter.clone(), count: view.count, act: Act::Show };
    let connections = super::consumers::Connections::look(&api).await;
    let (mut items, mut bytes, mut passed) = (Vec::new(), 0, 0);
    let mut walk = Walk::begin(&scan);
    while let Some(page) = walk.go_on(&api, spec.queue, &mut scan).await? {
        passed += page.passed;
        scan.count -= u32::try_from(page.shown.len()).unwrap_or(u32::MAX).min(scan.count);
        bytes += page.shown.iter().map(|shown| shown.message.body().len()).sum::<usize>();
        items.extend(page.shown.into_iter().map(|shown| describe(&api, &spec, shown, &view, &connections)));
        if scan.count == 0 || bytes >= BYTES_MAX {
            break;
        }
    }
    Ok(Json(json!({"items": items, "passed_over": passed, "next": walk.next()})))
}

/// `GET /api/queues/VHOST/NAME/messages/SEQ`
pub(super) async fn show(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name, seq)): Path<(String, String, u64)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let view = View::read(&pairs)?;
    let page = piece(&api, spec.queue, these(vec![Seq(seq)], Act::Show)).await?;
    let shown = page.shown.into_iter().next().ok_or_else(Refusal::no_object)?;
    let connections = super::consumers::Connections::look(&api).await;
    Ok(Json(describe(&api, &spec, shown, &view, &connections)))
}

/// `DELETE /api/queues/VHOST/NAME/messages/SEQ`
pub(super) async fn delete_one(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name, seq)): Path<(String, String, u64)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    match piece(&api, spec.queue, these(vec![Seq(seq)], Act::Delete)).await?.done {
        0 => Err(Refusal::no_object()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// `POST /api/queues/VHOST/NAME/messages/delete`
pub(super) async fn delete(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    act(&api, &spec, &document, Act::Delete, "deleted").await
}

/// `POST /api/queues/VHOST/NAME/messages/move`
pub(super) async fn relocate(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let to = target(&api, &spec, &document)?;
    let to = to.ok_or_else(|| Refusal::bad_request("say where to: to_queue, or to_exchange and routing_key"))?;
    act(&api, &spec, &document, Act::Move(to), "moved").await
}

/// `POST /api/queues/VHOST/NAME/messages/requeue`
pub(super) async fn requeue(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    act(&api, &spec, &document, Act::Requeue, "requeued").await
}

/// `POST /api/queues/VHOST/NAME/messages/release`
pub(super) async fn release(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    act(&api, &spec, &document, Act::Release, "released").await
}

/// Does it to the messages that the document selects.
async fn act(api: &Api, spec: &QueueSpec, document: &Document, act: Act, word: &str) -> Result<Json<Value>, Refusal> {
    let count = document.integer("count")?.map_or(Ok(u32::MAX), u32::try_from);
    let count = count.map_err(|_| Refusal::bad_request("count must be a number of messages"))?;
    let filter = document.get("filter").map(filter_of).transpose()?;
    let from = document.text("from")?;
    let which = match (document.get("seqs"), &filter, document.flag("all")?) {
        (Some(seqs), None, false) => Which::These(seqs_of(seqs)?),
        (None, Some(_), false) | (None, None, true) if !from.is_empty() => place(from)?,
        // What this adds to the queue is not meant.
        (None, Some(_), false) | (None, None, true) => match document.text("state")? {
            "" if act == Act::Release => delayed(Some(end(api, spec.queue).await?)),
            "" | "ready" => Which::Ready { from: Cursor::HEAD, until: Some(end(api, spec.queue).await?) },
            "unacked" => Which::Unacked { from: Seq(0) },
            "delayed" => delayed(Some(end(api, spec.queue).await?)),
            "dlx" => Which::Owed { from: Seq(0) },
            _ => return Err(Refusal::bad_request(STATES)),
        },
        _ => return Err(Refusal::bad_request("say which messages: one of seqs, filter, and all: true")),
    };
    if matches!(which, Which::Owed { .. }) {
        return Err(Refusal::bad_request("dead letters that nobody has taken yet can be looked at only"));
    }
    if matches!(which, Which::Unacked { .. }) && act != Act::Requeue {
        return Err(Refusal::bad_request("unacked messages can be requeued only"));
    }
    if matches!(which, Which::Ready { .. }) && act == Act::Release {
        return Err(Refusal::bad_request("only delayed messages can be released"));
    }
    let mut scan = Scan { which, filter: filter.unwrap_or_default(), count, act };
    let mut walk = Walk::begin(&scan);
    let mut sum = Page::new(Seq(0), None);
    while let Some(page) = walk.go_on(api, spec.queue, &mut scan).await? {
        scan.count -= u32::try_from(page.done).unwrap_or(u32::MAX).min(scan.count);
        sum.done += page.done;
        sum.passed += page.passed;
        sum.unroutable += page.unroutable;
        sum.refused += page.refused;
        if scan.count == 0 || page.refused > 0 {
            break;
        }
    }
    Ok(Json(json!({
        word: sum.done,
        "passed_over": sum.passed,
        "unroutable": sum.unroutable,
        "refused": sum.refused,
        "next": walk.next(),
    })))
}

/// Where the document wants messages to go, if it says so.
pub(super) fn target(api: &Api, spec: &QueueSpec, document: &Document) -> Result<Option<Target>, Refusal> {
    let text = |key: &str| document.get(key).map(|_| document.text(key).map(str::to_owned)).transpose();
    let routing_key = text("routing_key")?;
    if routing_key.as_ref().is_some_and(|key| key.len() > usize::from(u8::MAX)) {
        return Err(Refusal::bad_request("routing_key is longer than 255 bytes"));
    }
    let to = (text("to_queue")?, text("to_exchange")?);
    let exchange = to.1.as_deref().map(super::exchanges::real_name);
    if to != (None, None) {
        rights::check_use(api, spec.vhost, Right::Write, Resource::Exchange(exchange.unwrap_or_default()))?;
    }
    let topology = api.board.topology();
    match to {
        (None, None) => Ok(None),
        (Some(queue), None) if topology.queue(spec.vhost, &queue).is_some() => Ok(Some(Target::Queue(queue))),
        (Some(queue), None) => Err(Refusal::not_found(format!("there is no queue {queue:?} to move to"))),
        (None, Some(exchange)) => {
            let exchange = super::exchanges::real_name(&exchange).to_owned();
            if topology.exchange(spec.vhost, &exchange).is_none() {
                return Err(Refusal::not_found(format!("there is no exchange {exchange:?} to move to")));
            }
            Ok(Some(Target::Exchange { exchange, routing_key }))
        }
        (Some(_), Some(_)) => Err(Refusal::bad_request("to_queue and to_exchange exclude each other")),
    }
}

/// The queue of a path, if the caller may do such things to it.
pub(super) fn own(api: &Api, caller: &Caller, vhost: &str, name: &str) -> Result<Arc<QueueSpec>, Refusal> {
    let spec = queues::find(api, vhost, name)?;
    if !caller.is_local {
        spec.check_owner(api.operator().id())?;
    }
    Ok(spec)
}

/// Asks for something that is done or misses.
pub(super) async fn ask(api: &Api, queue: QueueRef, operation: Operation) -> Result<Answer, Refusal> {
    match api.board.operate(queue, operation).await? {
        Answer::Missing | Answer::NotHeld => Err(Refusal::no_object()),
        answer => Ok(answer),
    }
}

/// Does one piece of a walk.
pub(super) async fn piece(api: &Api, queue: QueueRef, scan: Scan) -> Result<Page, Refusal> {
    match ask(api, queue, Operation::Scan(scan)).await? {
        Answer::Page(page) => Ok(page),
        _ => Err(Refusal::no_object()),
    }
}

/// A seq that no message has yet.
pub(super) async fn end(api: &Api, queue: QueueRef) -> Result<Seq, Refusal> {
    let which = Which::Ready { from: Cursor::HEAD, until: None };
    let nothing = Scan { which, filter: Filter::default(), count: 0, act: Act::Show };
    Ok(piece(api, queue, nothing).await?.end)
}

/// Those messages.
pub(super) fn these(seqs: Vec<Seq>, act: Act) -> Scan {
    Scan { which: Which::These(seqs), filter: Filter::default(), count: u32::MAX, act }
}

/// A walk in pieces, for as long as a request may take.
struct Walk {
    seqs: Vec<Seq>,
    until: Option<Seq>,
    next: Option<Next>,
    deadline: Instant,
    is_begun: bool,
}

impl Walk {
    fn begin(scan: &Scan) -> Self {
        let (seqs, until) = match &scan.which {
            Which::These(seqs) => (seqs.clone(), None),
            Which::Ready { until, .. } | Which::Delayed { until, .. } => (Vec::new(), *until),
            Which::Unacked { .. } | Which::Owed { .. } => (Vec::new(), None),
        };
        Self { seqs, until, next: None, deadline: Instant::now() + TIME_MAX, is_begun: false }
    }

    /// The next piece; `None` when there is no more, or the time is over.
    async fn go_on(&mut self, api: &Api, queue: QueueRef, scan: &mut Scan) -> Result<Option<Page>, Refusal> {
        if self.is_begun {
            // Those that a request names are few enough to be finished with.
            let is_in_time = |next: &Next| matches!(next, Next::These(_)) || Instant::now() < self.deadline;
            let Some(next) = self.next.filter(is_in_time) else { return Ok(None) };
            scan.which = match next {
                Next::Ready(from) => Which::Ready { from, until: self.until },
                Next::Unacked(from) => Which::Unacked { from },
                Next::Delayed(from) => Which::Delayed { from, until: self.until },
                Next::Owed(from) => Which::Owed { from },
                Next::These(at) => {
                    self.seqs.drain(..at.min(self.seqs.len()));
                    Which::These(self.seqs.clone())
                }
            };
        }
        self.is_begun = true;
        let page = piece(api, queue, scan.clone()).await?;
        self.next = page.next;
        Ok(Some(page))
    }

    /// Where the next request goes on.
    fn next(&self) -> Option<String> {
        match self.next? {
            Next::Ready(Cursor { priority, seq, skip }) => {
                let until = self.until.map_or(0, |until| until.0);
                Some(format!("ready.{priority}.{}.{skip}.{until}", seq.0))
            }
            Next::Unacked(seq) => Some(format!("unacked.{}", seq.0)),
            Next::Delayed(Time { due_at_ms, seq }) => {
                let until = self.until.map_or(0, |until| until.0);
                Some(format!("delayed.{due_at_ms}.{}.{until}", seq.0))
            }
            Next::Owed(seq) => Some(format!("dlx.{}", seq.0)),
            Next::These(_) => None,
        }
    }
}

/// What [`Walk::next`] wrote.
fn place(text: &str) -> Result<Which, Refusal> {
    let mut parts = text.split('.');
    let kind = parts.next();
    let numbers: Option<Vec<u64>> = parts.map(|part| part.parse().ok()).collect();
    match (kind, numbers.as_deref()) {
        (Some("ready"), Some([priority, seq, skip, until])) if *priority <= u64::from(u8::MAX) => {
            let priority = u8::try_from(*priority).unwrap_or(u8::MAX);
            let from = Cursor { priority, seq: Seq(*seq), skip: *skip };
            Ok(Which::Ready { from, until: (*until != 0).then_some(Seq(*until)) })
        }
        (Some("unacked"), Some([seq])) => Ok(Which::Unacked { from: Seq(*seq) }),
        (Some("dlx"), Some([seq])) => Ok(Which::Owed { from: Seq(*seq) }),
        (Some("delayed"), Some([due_at_ms, seq, until])) => {
            let from = Time { due_at_ms: *due_at_ms, seq: Seq(*seq) };
            Ok(Which::Delayed { from, until: (*until != 0).then_some(Seq(*until)) })
        }
        _ => Err(Refusal::bad_request("from must be what an earlier answer gave as next")),
    }
}

/// All that wait for a time.
fn delayed(until: Option<Seq>) -> Which {
    Which::Delayed { from: Time::FIRST, until }
}

/// What a look at messages asks for.
struct View {
    which: Which,
    filter: Filter,
    count: u32,
    is_base64: bool,
    truncate: usize,
}

impl View {
    fn read(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let mut view = Self {
            which: Which::Ready { from: Cursor::HEAD, until: None },
            filter: Filter::default(),
            count: COUNT,
            is_base64: false,
            truncate: usize::MAX,
        };
        let mut offset = 0;
        for (key, value) in pairs {
            let number = || value.parse::<u64>().map_err(|_| Refusal::bad_request(json!(["not_int", key])));
            match key.as_str() {
                "offset" => offset = number()?,
                "count" => view.count = u32::try_from(number()?).unwrap_or(u32::MAX).min(COUNT_MAX),
                "truncate" => view.truncate = usize::try_from(number()?).unwrap_or(usize::MAX),
                "from" => view.which = place(value)?,
                "state" => match value.as_str() {
                    "ready" => {}
                    "unacked" => view.which = Which::Unacked { from: Seq(0) },
                    "delayed" => view.which = delayed(None),
                    "dlx" => view.which = Which::Owed { from: Seq(0) },
                    _ => return Err(Refusal::bad_request(STATES)),
                },
                "encoding" => match value.as_str() {
                    "auto" => {}
                    "base64" => view.is_base64 = true,
                    other => {
                        return Err(Refusal::bad_request(format!(
                            "unsupported encoding {other:?}: use auto or base64"
                        )));
                    }
                },
                _ => view.filter.terms.push(term(key, value)?),
            }
        }
        if let Which::Ready { from, .. } = &mut view.which {
            from.skip += offset;
        } else if offset > 0 {
            return Err(Refusal::bad_request("offset counts ready messages only"));
        }
        Ok(view)
    }
}

/// One thing that messages must be like.
fn term(key: &str, value: &str) -> Result<Term, Refusal> {
    let value = value.to_owned();
    match key.split_once('.') {
        None if key == "exchange" => Ok(Term::Exchange(super::exchanges::real_name(&value).to_owned())),
        None if key == "routing_key" => Ok(Term::RoutingKey(value)),
        None if key == "body" && value.len() <= BODY_MAX => Ok(Term::Body(value.into_bytes())),
        Some(("header", name)) => Ok(Term::Header(name.to_owned(), value)),
        Some(("property", name)) if PROPERTIES.contains(&name) => Ok(Term::Property(name.to_owned(), value)),
        _ => Err(Refusal::bad_request(format!(
            "{key:?} is no filter: use exchange, routing_key, body, header.NAME or property.NAME"
        ))),
    }
}

/// The same from an object whose values are strings, numbers or truths.
pub(super) fn filter_of(value: &Value) -> Result<Filter, Refusal> {
    let Value::Object(object) = value else { return Err(Refusal::bad_request(json!(["not_object", "filter"]))) };
    let terms = object.iter().map(|(key, value)| match value {
        Value::String(text) => term(key, text),
        Value::Number(_) | Value::Bool(_) => term(key, &value.to_string()),
        _ => Err(Refusal::bad_request(json!(["not_string", key]))),
    });
    Ok(Filter { terms: terms.collect::<Result<_, _>>()? })
}

fn seqs_of(value: &Value) -> Result<Vec<Seq>, Refusal> {
    let seqs = value.as_array().filter(|seqs| seqs.len() <= SEQS_MAX);
    let seqs: Option<Vec<Seq>> = seqs.and_then(|seqs| seqs.iter().map(|seq| seq.as_u64().map(Seq)).collect());
    seqs.ok_or_else(|| Refusal::bad_request(format!("seqs must be a list of at most {SEQS_MAX} numbers")))
}

fn describe(
    api: &Api,
    spec: &QueueSpec,
    shown: Shown,
    view: &View,
    connections: &super::consumers::Connections,
) -> Value {
    let attempts = if spec.settings.is_quorum() { shown.attempts } else { 0 };
    let mut object: Map<String, Value> =
        messages::describe_message(&shown.message, attempts, view.is_base64, view.truncate);
    object.insert("seq".into(), shown.seq.0.into());
    let state = match &shown {
        Shown { death: Some(_), .. } => "dlx",
        Shown { lease: Some(_), .. } => "unacked",
        Shown { due_at_ms: Some(_), .. } => "delayed",
        _ => "ready",
    };
    object.insert("state".into(), state.into());
    object.insert("due_at".into(), shown.due_at_ms.into());
    object.insert("redelivered".into(), shown.redelivered.into());
    object.insert("delivery_count".into(), shown.attempts.into());
    object.insert("queue_priority".into(), shown.priority.into());
    let expires_at = (shown.expires_at_ms != 0).then_some(shown.expires_at_ms);
    object.insert("expires_at".into(), expires_at.into());
    let failure = shown.failure.as_ref().map(
        |Failure { reason, details, at_unix_ms }| json!({"reason": reason, "details": details, "time": at_unix_ms}),
    );
    object.insert("failure".into(), failure.into());
    if let Some(Death { reason, unix_s }) = shown.death {
        let key = spec.settings.dead_letter_key.as_deref().unwrap_or(shown.message.routing_key());
        let letter = json!({
            "reason": reason,
            "time": unix_s * 1000,
            "exchange": spec.settings.dead_letter_exchange,
            "routing_key": key,
        });
        object.insert("dead_letter".into(), letter);
    }
    if let Some(lease) = &shown.lease {
        object.insert("lease".into(), leases::describe(api, spec, lease, connections));
    }
    object.into()
}

/// What may be asked for.
const STATES: &str = "state must be ready, delayed, unacked or dlx";
/// How many messages a look shows unless it says otherwise, …
const COUNT: u32 = 50;
/// … and how many at most, …
const COUNT_MAX: u32 = 10_000;
/// … until they are as large as this together.
const BYTES_MAX: usize = 32 << 20;
/// How many messages a request may name.
const SEQS_MAX: usize = 10_000;
/// How long a part of a body may be that is looked for.
const BODY_MAX: usize = 1024;
/// After so long a request answers with what it has.
const TIME_MAX: Duration = Duration::from_secs(5);
