use super::super::waiting::WAITS_MAX;
use super::*;
use amqp::{ChannelId, PropertyList, Table};
use broker::message::MessageParts;
use bytes::BytesMut;

const TASKS: QueueId = QueueId(1);

/// All queues are called by their numbers.
struct Numbers;

impl Names for Numbers {
    fn name(&self, queue: QueueId) -> Option<Arc<str>> {
        Some(format!("q{}", queue.0).into())
    }

    fn queue(&self, name: &str) -> Option<QueueId> {
        name.strip_prefix('q')?.parse().ok().map(QueueId)
    }
}

fn context(parent: u64) -> TraceContext {
    TraceContext { trace: 7, parent }
}

fn message(headers: &[(&str, &str)], died_here: bool) -> Message {
    let headers: Table = headers.iter().map(|(name, text)| (*name, *text)).collect();
    let mut properties = BytesMut::new();
    PropertyList { headers: Some(headers), ..PropertyList::default() }.encode(&mut properties);
    Message::new(MessageParts { exchange: "x", routing_key: "key", properties: &properties, died_here }, b"body")
}

fn published(span: u64, parent: u64, queues: &[QueueId], end: Option<SpanEnd>) -> SpanNote {
    SpanNote::Published(Published {
        span: SpanNumber(span),
        channel: ChannelId(1),
        context: context(parent),
        message: message(&[], false),
        queues: queues.to_vec(),
        end,
    })
}

fn delivered(span: u64, parent: u64, queue: QueueId, message: Message, end: Option<SpanEnd>) -> SpanNote {
    SpanNote::Delivered(Delivered {
        span: SpanNumber(span),
        channel: ChannelId(1),
        context: context(parent),
        message,
        queue,
        consumer: Some("ctag".into()),
        redelivered: false,
        end,
    })
}

/// A book, what is told to it by one connection at each nanosecond, and its spans.
fn told(steps: impl IntoIterator<Item = Vec<SpanNote>>) -> (Book, Vec<Span>) {
    let mut book = Book::new();
    let teller = Teller { connection: ConnectionId(1), client: "app", peer: ([127, 0, 0, 1], 9).into(), vhost: "/" };
    for (now_ns, notes) in (1..).zip(steps) {
        book.note(notes, teller, &Numbers, Times { began_ns: now_ns * 10, done_ns: now_ns * 10 + 1 });
    }
    let spans = book.take(usize::MAX);
    (book, spans)
}

fn shown(spans: &[Span]) -> Vec<(&str, u64, u64)> {
    spans.iter().map(|span| (span.name.as_str(), span.begin_ns, span.end_ns)).collect()
}

#[test]
fn a_publish_waits_and_is_delivered_at_its_times() {
    let ended = |span, how| SpanNote::Ended { span: SpanNumber(span), how };
    let (_, spans) = told([
        vec![published(1, 5, &[TASKS], None)],
        vec![delivered(2, 5, TASKS, message(&[], false), None)],
        vec![ended(1, SpanEnd::Confirmed)],
        vec![ended(2, SpanEnd::Requeued), ended(2, SpanEnd::Acknowledged)],
        vec![delivered(3, 5, TASKS, message(&[], false), Some(SpanEnd::Sent))],
    ]);
    let expected = [
        ("queue q1", 11, 21),
        ("publish x:key", 10, 31),
        ("deliver q1", 21, 41),
        ("queue q1", 41, 51),
        ("deliver q1", 51, 51),
    ];
    assert_eq!(shown(&spans), expected);
    let [wait, publish, delivery, again, last] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((publish.parent, wait.parent, again.parent), (5, publish.id, publish.id));
    assert_eq!((delivery.parent, last.parent), (wait.id, again.id));
    assert_eq!((publish.is_parent_remote, wait.is_parent_remote, delivery.error), (true, false, Some("requeued")));
    let has = |span: &Span, key, value: &str| span.attributes.contains(&(key, value.into()));
    assert!(has(last, "messaging.destination.name", "x:key:q1") && has(last, "messaging.client.id", "app"));
}

#[test]
fn a_dead_letter_has_waited_in_the_queue_that_it_died_in() {
    let dead = |queue| message(&[("x-last-death-queue", "q8"), ("x-first-death-queue", queue)], true);
    let deliver = |span, parent, message| delivered(span, parent, QueueId(2), message, Some(SpanEnd::Sent));
    let (_, spans) = told([
        vec![published(1, 5, &[TASKS], Some(SpanEnd::Routed)), published(2, 6, &[TASKS], Some(SpanEnd::Routed))],
        vec![deliver(3, 5, dead("q1"))],
        // A client's own words are not believed.
        vec![deliver(4, 6, message(&[("x-first-death-queue", "q1")], false))],
        vec![deliver(5, 6, dead("unknown"))],
        vec![deliver(6, 6, dead("q1"))],
    ]);
    let [first, second, queue, delivery, stranger, unknown, other_queue, _] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(shown(&[queue.clone(), other_queue.clone()]), [("queue q2", 11, 21), ("queue q2", 11, 51)]);
    assert_eq!((queue.parent, delivery.parent, other_queue.parent), (first.id, queue.id, second.id));
    assert_eq!((stranger.parent, stranger.is_parent_remote, unknown.parent), (6, true, 6));
}

#[test]
fn a_hundred_thousand_messages_that_nobody_takes_have_a_bounded_book() {
    let publish = |at: u64| published(at, at, &[TASKS], Some(SpanEnd::Routed));
    let (mut book, spans) = told((1..=100_000).map(|at| vec![publish(at)]));
    assert_eq!((spans.len(), book.waiting.len()), (FINISHED_MAX, WAITS_MAX));
    assert_eq!(spans.last().map(|span| span.parent), Some(100_000), "the newest are kept");
    assert_eq!(book.dropped as usize, (100_000 - FINISHED_MAX) + (100_000 - WAITS_MAX));
    let before = book.dropped;
    book.clear();
    assert_eq!((book.waiting.len(), book.dropped), (0, before));
}

#[test]
fn as_many_deliveries_are_followed_as_there_is_room_for() {
    let deliver = |at| delivered(at, at, TASKS, message(&[], false), None);
    let most = OPEN_MAX as u64;
    let (book, spans) = told((1..=most + 10).map(|at| vec![deliver(at)]));
    assert_eq!((spans.len(), book.open.len(), book.dropped), (0, OPEN_MAX, 10));
    // A publish is not lost for that: nobody waits for its confirm, that is all.
    let full = (1..=most).map(|at| vec![deliver(at)]).chain([vec![published(0, 5, &[], None)]]);
    let (book, spans) = told(full);
    assert_eq!((shown(&spans).len(), spans[0].name.as_str(), book.dropped), (1, "publish x:key", 0));
    let (book, spans) = told([vec![delivered(1, 5, TASKS, message(&[], false), Some(SpanEnd::Unfollowed))]]);
    assert_eq!((spans.len(), book.dropped), (0, 1));
}

#[test]
fn only_a_sound_state_goes_with_the_trace() {
    let of = |text: &str| state(&message(&[("tracestate", text)], false));
    assert_eq!(of("vendor=1, other=2").as_deref(), Some("vendor=1, other=2"));
    for text in ["", "a\nb", "é", &"x".repeat(513)] {
        assert_eq!(of(text), None, "{text:.10}");
    }
}

#[test]
fn a_destination_is_what_there_is_of_exchange_key_and_queue() {
    let of = |exchange, routing_key, queue| {
        let parts = MessageParts { exchange, routing_key, properties: &[0, 0], died_here: false };
        destination(&Message::new(parts, b""), queue)
    };
    assert_eq!(of("", "tasks", None), "tasks");
    assert_eq!(of("", "tasks", Some("tasks")), "tasks");
    assert_eq!(of("logs", "", None), "logs");
    assert_eq!(of("logs", "info", Some("q")), "logs:info:q");
    assert_eq!(of("", "", Some("q")), "q");
}
