//! A whole connection's bytes, into a broker that others use at the same time.
//!
//! The bytes come in random pieces, time passes between them, and the client does not always read. Whatever they are:
//! what the server sends is AMQP, another client is served, nothing is left behind when the socket ends, what is told of a
//! traced message has one end, and the server starts again on what it wrote. Input that does not begin with a protocol header is what follows a login.

use super::Target;
use crate::conversation::{conversation, handshake};
use crate::listener::Listener;
use crate::mutation::damage_frames;
use crate::random::Random;
use amqp::frame;
use amqp::method::{basic, channel, confirm, queue};
use amqp::{ChannelId, FrameKind, Method};
use broker::command::ConnectionId;
use broker::inspect::{QueueCounters, QueueView};
use broker::span::{SpanNote, SpanNumber};
use bytes::BytesMut;
use machines::Machines;
use std::collections::{BTreeMap, BTreeSet};

// A channel is opened with 13 bytes and a queue declared with 30; either takes some hundreds.
pub(super) const TARGET: Target =
    Target { name: "connection", run, generate: conversation, mutate: damage_frames, memory: (4 << 20, 256) };

fn run(input: &[u8]) {
    let mut random = Random::of(input);
    let mut machines = Machines::new(1 + random.below(2) as u16);
    let mut friend = Friend::new(&mut machines);
    friend.work(&mut machines);

    let stranger = machines.connect();
    let mut spans = Spans::default();
    if random.one_in(2) {
        machines.trace_messages(stranger);
    }
    let mut listener = Listener::default();
    if !input.starts_with(b"AMQP") {
        machines.send(stranger, &handshake(131_072));
    }
    let mut rest = input;
    while !rest.is_empty() && !machines.is_closed(stranger) {
        let (piece, after) = rest.split_at((1 + random.below(600)).min(rest.len()));
        rest = after;
        machines.send(stranger, piece);
        if random.one_in(20) {
            machines.pass(random.below(3000) as u64);
        }
        if random.one_in(10) {
            machines.set_reading(stranger, random.one_in(2));
        }
        if random.one_in(60) {
            machines.trace_messages(stranger);
        }
        spans.hear(machines.take_span_notes(stranger));
        listen(&mut machines, stranger, &mut listener);
    }
    machines.set_reading(stranger, true);
    listen(&mut machines, stranger, &mut listener);
    listener.finish();
    friend.work(&mut machines);

    spans.hear(machines.disconnect(stranger));
    assert!(spans.open.is_empty(), "traced messages without an end: {:?}", spans.open);
    for queue in machines.queues() {
        assert_ne!(queue.spec.owner, Some(stranger), "an exclusive queue outlives its connection");
        let is_friends = queue.spec.owner.is_some();
        assert!(is_friends || (queue.consumers.is_empty() && queue.unacked == 0), "something is left of it: {queue:?}");
    }
    Friend::new(&mut machines).work(&mut machines);

    let (names, messages) = durable(&mut machines);
    let restarted = machines.restart();
    let mut machines = restarted.unwrap_or_else(|why| panic!("the server cannot read what it wrote: {why}"));
    let (names_now, messages_now) = durable(&mut machines);
    assert_eq!(names_now, names, "something durable is not as it was");
    for (name, Counted { there: before, .. }) in messages {
        let now = messages_now[&name];
        let is_kept = now.there <= before + now.came && before <= now.there + now.gone;
        assert!(is_kept, "queue {name} had {before} persistent messages, now {now:?}");
    }
    Friend::new(&mut machines).work(&mut machines);
}

fn listen(machines: &mut Machines, id: ConnectionId, listener: &mut Listener) {
    let Some(view) = machines.connection(id) else { return };
    listener.hear(&machines.received(id), view.frame_max);
}

/// What was told of traced messages.
#[derive(Default)]
struct Spans {
    open: BTreeSet<SpanNumber>,
    last: u64,
}

impl Spans {
    fn hear(&mut self, notes: Vec<SpanNote>) {
        for note in notes {
            let (span, end) = match note {
                SpanNote::Ended { span, .. } => {
                    assert!(self.open.remove(&span), "{span:?} ends, and has not begun or has ended before");
                    continue;
                }
                SpanNote::Published(published) => (published.span, published.end),
                SpanNote::Delivered(delivered) => (delivered.span, delivered.end),
            };
            assert!(self.last < span.0, "numbers rise");
            self.last = span.0;
            if end.is_none() {
                self.open.insert(span);
            }
        }
    }
}

/// What a restart must keep: the names of exchanges and queues, and the queues' persistent messages.
fn durable(machines: &mut Machines) -> (BTreeSet<String>, BTreeMap<String, Counted>) {
    let queues = machines.queues();
    let counted = |queue: &QueueView| {
        let QueueCounters { publish, expired, maxlen, .. } = queue.counters;
        (queue.spec.name.to_string(), Counted { there: queue.persistent, came: publish, gone: expired + maxlen })
    };
    let messages: BTreeMap<_, _> = queues.iter().filter(|queue| queue.spec.durable).map(counted).collect();
    let exchanges = machines.topology().exchanges().filter(|exchange| exchange.durable);
    let exchanges = exchanges.map(|exchange| format!("exchange {}", exchange.name));
    let names = exchanges.chain(messages.keys().map(|name| format!("queue {name}"))).collect();
    (names, messages)
}

/// Persistent messages of a queue. Some go, and dead letters come, when those expire at the start that waited behind
/// others which did not survive.
#[derive(Clone, Copy, Debug)]
struct Counted {
    there: u64,
    came: u64,
    gone: u64,
}

/// A client that does nothing wrong: it publishes to a queue of its own and is served from it.
struct Friend {
    id: ConnectionId,
    listener: Listener,
    queue: String,
    published: u64,
}

impl Friend {
    fn new(machines: &mut Machines) -> Self {
        let id = machines.connect();
        let mut friend = Self { id, listener: Listener::default(), queue: String::new(), published: 0 };
        let mut bytes = handshake(131_072);
        channel::Open.encode(CHANNEL, &mut bytes);
        confirm::Select { nowait: true }.encode(CHANNEL, &mut bytes);
        queue::Declare { exclusive: true, ..Default::default() }.encode(CHANNEL, &mut bytes);
        basic::Consume::default().encode(CHANNEL, &mut bytes);
        machines.send(id, &bytes);
        let heard = friend.hear(machines);
        for (_, payload) in heard {
            if let Ok(Method::QueueDeclareOk(declared)) = Method::decode(&payload) {
                friend.queue = declared.queue.to_owned();
            }
        }
        assert!(friend.queue.starts_with("amq.gen-"), "a friend gets its queue");
        friend
    }

    /// One message goes round: published, confirmed, delivered, acknowledged.
    fn work(&mut self, machines: &mut Machines) {
        self.published += 1;
        let tag = self.published;
        let body = format!("message {tag}");
        let mut bytes = BytesMut::new();
        basic::Publish { routing_key: &self.queue, mandatory: true, ..Default::default() }.encode(CHANNEL, &mut bytes);
        amqp::content::encode_content(CHANNEL, &[0x10, 0, 2], body.as_bytes(), 4096, &mut bytes);
        machines.send(self.id, &bytes);
        let (mut confirmed, mut delivered, mut bodies) = (false, false, Vec::new());
        for (kind, payload) in self.hear(machines) {
            match kind {
                FrameKind::Body => bodies.push(payload),
                FrameKind::Method => match Method::decode(&payload) {
                    Ok(Method::BasicAck(ack)) => confirmed = ack.delivery_tag == tag,
                    Ok(Method::BasicDeliver(deliver)) => delivered = deliver.delivery_tag == tag,
                    other => panic!("a friend is told {other:?}"),
                },
                FrameKind::Header | FrameKind::Heartbeat => {}
            }
        }
        assert!(confirmed && delivered && bodies == [body.as_bytes()], "a friend is not served: {bodies:?}");
        bytes.clear();
        basic::Ack { delivery_tag: tag, multiple: false }.encode(CHANNEL, &mut bytes);
        machines.send(self.id, &bytes);
        assert!(self.hear(machines).is_empty(), "an acknowledgement has no answer");
    }

    fn hear(&mut self, machines: &mut Machines) -> Vec<(FrameKind, Vec<u8>)> {
        let bytes = machines.received(self.id);
        self.listener.hear(&bytes, FRAME_MAX);
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Ok(Some((frame, taken))) = frame::decode(rest, FRAME_MAX as usize) {
            frames.push((frame.kind, frame.payload.to_vec()));
            rest = &rest[taken..];
        }
        frames
    }
}

const CHANNEL: ChannelId = ChannelId(1);
const FRAME_MAX: u32 = 131_072;
