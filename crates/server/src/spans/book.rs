//! The book of traced messages: what connections tell becomes spans. Pure but for the ids that it draws.
//!
//! A message's path is a `publish` below its publisher's span, then for each time that it waits a `queue` below that and a
//! `deliver` below the wait. What it holds is bounded; what does not fit is counted and not told.

use super::ids::Ids;
use super::span::{Attribute, Kind, Span};
use super::waiting::{Wait, Waiting};
use amqp::{Properties, Value};
use broker::command::{ConnectionId, QueueId};
use broker::message::Message;
use broker::span::{Delivered, Published, SpanEnd, SpanNote, SpanNumber};
use broker::trace_context::TraceContext;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Book {
    ids: Ids,
    open: HashMap<(ConnectionId, SpanNumber), Open>,
    waiting: Waiting,
    finished: VecDeque<Span>,
    /// Spans that were not told for want of room.
    pub(super) dropped: u64,
}

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    span: Span,
    context: TraceContext,
    /// Of a delivery: where it is from, and the span that waiting there is below.
    from: Option<(QueueId, u64)>,
}

/// Whose notes they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teller<'a> {
    pub(super) connection: ConnectionId,
    /// The client's name for it, or empty.
    pub(super) client: &'a str,
    pub(super) peer: std::net::SocketAddr,
    pub(super) vhost: &'a str,
}

/// Queues of the teller's vhost.
pub(super) trait Names {
    /// The queue's name, if it is still there.
    fn name(&self, queue: QueueId) -> Option<Arc<str>>;
    /// The queue of this name.
    fn queue(&self, name: &str) -> Option<QueueId>;
}

/// When things happened, by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The step began, …
    pub(super) began_ns: u64,
    /// … and all of it was done.
    pub(super) done_ns: u64,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            ids: Ids::new(),
            open: HashMap::new(),
            waiting: Waiting::default(),
            finished: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Takes down what happened in one step of a connection.
    pub(super) fn note(&mut self, notes: Vec<SpanNote>, teller: Teller<'_>, names: &impl Names, times: Times) {
        for note in notes {
            match note {
                SpanNote::Published(published) => self.published(&published, teller, times),
                SpanNote::Delivered(delivered) => self.delivered(&delivered, teller, names, times),
                SpanNote::Ended { span, how } => {
                    if let Some(open) = self.open.remove(&(teller.connection, span)) {
                        self.end(open, how, times.done_ns);
                    }
                }
            }
        }
    }

    /// Forgets all but what it has counted.
    pub(super) fn clear(&mut self) {
        *self = Self { dropped: self.dropped, ..Self::new() };
    }

    /// How many spans are over.
    pub(super) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Takes up to so many of them, the oldest.
    pub(super) fn take(&mut self, most: usize) -> Vec<Span> {
        self.finished.drain(..most.min(self.finished.len())).collect()
    }

    fn published(&mut self, published: &Published, teller: Teller<'_>, Times { began_ns, done_ns }: Times) {
        let Published { context, message, end, .. } = published;
        let destination = destination(message, None);
        let mut attributes = attributes(message, &destination, teller);
        attributes
            .extend([("messaging.operation.name", "publish".into()), ("messaging.operation.type", "send".into())]);
        let span = Span {
            trace: context.trace,
            id: self.ids.next(),
            parent: context.parent,
            is_parent_remote: true,
            state: state(message),
            kind: Kind::Server,
            name: format!("publish {destination}"),
            begin_ns: began_ns,
            end_ns: done_ns,
            attributes,
            error: None,
        };
        for queue in &published.queues {
            self.wait(*context, *queue, Wait { since_ns: done_ns, by: span.id });
        }
        let open = Open { span, context: *context, from: None };
        match end {
            Some(how) => self.end(open, *how, done_ns),
            None if self.open.len() >= OPEN_MAX => self.end(open, SpanEnd::Routed, done_ns),
            None => drop(self.open.insert((teller.connection, published.span), open)),
        }
    }

    fn delivered(&mut self, delivered: &Delivered, teller: Teller<'_>, names: &impl Names, times: Times) {
        let Delivered { context, message, queue, end, .. } = delivered;
        let name = names.name(*queue).unwrap_or_default();
        let destination = destination(message, Some(&name));
        let mut attributes = attributes(message, &destination, teller);
        attributes.push(("leveret.queue", Attribute::Text(Arc::clone(&name))));
        let state = state(message);
        let span = |id, parent, is_parent_remote, kind, name, begin_ns, attributes| Span {
            trace: context.trace,
            id,
            parent,
            is_parent_remote,
            state: state.clone(),
            kind,
            name,
            begin_ns,
            end_ns: times.done_ns,
            attributes,
            error: None,
        };
        let wait = self.waited(*context, *queue, message, names);
        // What it waits below, and what it is delivered below.
        let (by, mut parent, mut is_remote) = match wait {
            Some(wait) => (wait.by, wait.by, wait.by == context.parent),
            None => (context.parent, context.parent, true),
        };
        if let Some(Wait { since_ns, .. }) = wait {
            let mut told = attributes.clone();
            told.push(("messaging.operation.name", "queue".into()));
            let id = self.ids.next();
            self.finish(span(id, parent, is_remote, Kind::Internal, format!("queue {name}"), since_ns, told));
            (parent, is_remote) = (id, false);
        }
        let operation =
            [("messaging.operation.name", "deliver".into()), ("messaging.operation.type", "process".into())];
        attributes.extend(operation);
        attributes.push(("leveret.redelivered", Attribute::Flag(delivered.redelivered)));
        if let Some(consumer) = &delivered.consumer {
            attributes.push(("leveret.consumer_tag", Attribute::Text(Arc::clone(consumer))));
        }
        let id = self.ids.next();
        let span = span(id, parent, is_remote, Kind::Server, format!("deliver {name}"), times.done_ns, attributes);
        let open = Open { span, context: *context, from: Some((*queue, by)) };
        match end {
            Some(SpanEnd::Unfollowed) => self.dropped += 1,
            Some(how) => self.end(open, *how, times.done_ns),
            None if self.open.len() >= OPEN_MAX => self.dropped += 1,
            None => drop(self.open.insert((teller.connection, delivered.span), open)),
        }
    }

    /// Since when a message that leaves this queue has waited, there or in the queue that it died in.
    fn waited(&mut self, context: TraceContext, queue: QueueId, message: &Message, names: &impl Names) -> Option<Wait> {
        let here = self.waiting.take(context, queue);
        if here.is_some() || !message.died_here() {
            return here;
        }
        let properties = Properties::parse(message.properties()).ok()?;
        let died_in = |header| match properties.header(header) {
            Some(Value::Str(name)) => names.queue(std::str::from_utf8(&name).ok()?),
            _ => None,
        };
        let places = [Some(REJECTED), died_in("x-last-death-queue"), died_in("x-first-death-queue")];
        places.into_iter().flatten().find_map(|place| self.waiting.take(context, place))
    }

    fn end(&mut self, Open { mut span, context, from }: Open, how: SpanEnd, end_ns: u64) {
        let (outcome, is_error) = match how {
            SpanEnd::Routed => ("routed", false),
            SpanEnd::Unroutable => ("unroutable", true),
            SpanEnd::Confirmed => ("confirmed", false),
            SpanEnd::Refused => ("refused", true),
            SpanEnd::Unconfirmed => ("unconfirmed", false),
            SpanEnd::Sent => ("sent", false),
            SpanEnd::Acknowledged => ("acknowledged", false),
            SpanEnd::Rejected => ("rejected", true),
            SpanEnd::Requeued => ("requeued", true),
            SpanEnd::Returned => ("returned", false),
            SpanEnd::Abandoned => ("abandoned", true),
            SpanEnd::Unfollowed => return,
        };
        span.end_ns = end_ns;
        span.attributes.push(("leveret.outcome", outcome.into()));
        span.error = is_error.then_some(outcome);
        if let Some((queue, by)) = from {
            let wait = Wait { since_ns: end_ns, by };
            match how {
                SpanEnd::Requeued | SpanEnd::Returned | SpanEnd::Abandoned => self.wait(context, queue, wait),
                SpanEnd::Rejected => self.wait(context, REJECTED, wait),
                _ => {}
            }
        }
        self.finish(span);
    }

    fn wait(&mut self, context: TraceContext, queue: QueueId, wait: Wait) {
        self.dropped += u64::from(self.waiting.add(context, queue, wait));
    }

    fn finish(&mut self, span: Span) {
        if self.finished.len() >= FINISHED_MAX {
            self.finished.pop_front();
            self.dropped += 1;
        }
        self.finished.push_back(span);
    }
}

/// What of a client's name is kept.
const CLIENT_BYTES_MAX: usize = 256;

/// What all spans of a message say.
fn attributes(message: &Message, destination: &str, teller: Teller<'_>) -> Vec<(&'static str, Attribute)> {
    let mut attributes = vec![
        ("messaging.system", "rabbitmq".into()),
        ("messaging.destination.name", destination.into()),
        ("messaging.rabbitmq.destination.routing_key", message.routing_key().into()),
        ("messaging.message.body.size", Attribute::Number(message.body_bytes())),
        ("client.address", teller.peer.ip().to_string().as_str().into()),
        ("client.port", Attribute::Number(teller.peer.port().into())),
        ("leveret.vhost", teller.vhost.into()),
    ];
    if !teller.client.is_empty() {
        // A client may call itself anything; its name is said with each of its spans.
        let client = &teller.client[..teller.client.floor_char_boundary(CLIENT_BYTES_MAX)];
        attributes.push(("messaging.client.id", client.into()));
    }
    if let Ok(properties) = Properties::parse(message.properties()) {
        let ids = [
            ("messaging.message.id", properties.message_id()),
            ("messaging.message.conversation_id", properties.correlation_id()),
        ];
        attributes.extend(ids.into_iter().filter_map(|(key, id)| Some((key, id?.into()))));
    }
    attributes
}

/// A destination in the words of OpenTelemetry's conventions: what there is of exchange, routing key and queue.
fn destination(message: &Message, queue: Option<&str>) -> String {
    let mut parts = vec![message.exchange(), message.routing_key()];
    if let Some(queue) = queue.filter(|queue| *queue != message.routing_key()) {
        parts.push(queue);
    }
    parts.retain(|part| !part.is_empty());
    parts.join(":")
}

/// The message's `tracestate`, if it is one that may be passed on.
fn state(message: &Message) -> Option<Arc<str>> {
    let properties = Properties::parse(message.properties()).ok()?;
    let Value::Str(text) = properties.header("tracestate")? else { return None };
    let is_sound = text.len() <= STATE_BYTES_MAX && text.iter().all(|octet| matches!(octet, b' '..=b'~'));
    std::str::from_utf8(&text).ok().filter(|text| is_sound && !text.is_empty()).map(Into::into)
}

/// Where a message waits that was rejected: its dead letter may be in any queue.
const REJECTED: QueueId = QueueId(u64::MAX);
/// W3C Trace Context 3.3.1.1
const STATE_BYTES_MAX: usize = 512;
/// About 16 MB each.
const OPEN_MAX: usize = 16_384;
const FINISHED_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
