//! What a client might say: frames that are right one by one, in an order that need not be.

use crate::content::{self, EXCHANGES, KEYS, LONG, QUEUES};
use crate::random::Random;
use amqp::method::{access, basic, channel, confirm, connection, exchange, queue, tx};
use amqp::{ChannelId, Method, PropertyList, Table, Value, frame};
use bytes::BytesMut;

/// The bytes with which a client gets to open channels.
pub(crate) fn handshake(frame_max: u32) -> BytesMut {
    let mut out = BytesMut::from(&frame::PROTOCOL_HEADER[..]);
    let names = ["consumer_cancel_notify", "authentication_failure_close"];
    let capabilities: Table = names.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
    let client_properties = [("capabilities".to_owned(), Value::Table(capabilities))].into_iter().collect();
    let start_ok =
        connection::StartOk { client_properties, mechanism: "PLAIN", response: b"\0guest\0guest", locale: "en_US" };
    start_ok.encode(ChannelId::CONNECTION, &mut out);
    connection::TuneOk { channel_max: 2047, frame_max, heartbeat: 0 }.encode(ChannelId::CONNECTION, &mut out);
    connection::Open { vhost: "/" }.encode(ChannelId::CONNECTION, &mut out);
    out
}

/// A conversation of some hundreds of frames: queues and exchanges first, then a few scenes, each on a new channel, so
/// that an error ends a scene and not the play. Mostly without the handshake, which the target then puts before it.
pub(crate) fn conversation(random: &mut Random) -> Vec<u8> {
    let mut out = BytesMut::new();
    if random.one_in(4) {
        out = handshake(if random.one_in(2) { 4096 } else { 131_072 });
    }
    let mut newest = 0;
    set_up(&mut newest, random, &mut out);
    for _ in 0..1 + random.below(8) {
        let number = open(&mut newest, &mut out);
        match random.below(10) {
            0 => confirm::Select { nowait: random.one_in(2) }.encode(number, &mut out),
            1 => tx::Select.encode(number, &mut out),
            2 => basic::Qos { prefetch_size: 0, prefetch_count: random.below(4) as u16, global: random.one_in(2) }
                .encode(number, &mut out),
            3 => consume_replies(number, &mut out),
            4..=7 => {
                let (queue, no_ack) = (random.pick(&QUEUES[..2]), random.one_in(4));
                basic::Consume { queue, no_ack, ..Default::default() }.encode(number, &mut out);
            }
            _ => {}
        }
        for _ in 0..1 + random.below(24) {
            // Now and then a channel of an earlier scene.
            let number = if random.one_in(4) { 1 + random.below(newest.into()) as u16 } else { newest };
            line(ChannelId(number), random, &mut out);
        }
    }
    out.to_vec()
}

/// Declares most of the queues and exchanges that the rest is about, each on a channel of its own.
fn set_up(newest: &mut u16, random: &mut Random, out: &mut BytesMut) {
    for name in &EXCHANGES[1..4] {
        let kind = random.pick(&["direct", "fanout", "topic", "headers"]);
        let declare =
            exchange::Declare { exchange: name, kind, durable: random.one_in(2), nowait: true, ..Default::default() };
        declare.encode(open(newest, out), out);
    }
    for name in &QUEUES[..1 + random.below(4)] {
        let number = open(newest, out);
        queue::Declare {
            queue: name,
            durable: random.one_in(2),
            exclusive: random.one_in(12),
            auto_delete: random.one_in(6),
            arguments: content::queue_arguments(random),
            ..Default::default()
        }
        .encode(number, out);
        for _ in 0..random.below(3) {
            let (exchange, routing_key) = (random.pick(&EXCHANGES[1..]), random.pick(&KEYS));
            let arguments = content::arguments(random);
            queue::Bind { queue: name, exchange, routing_key, nowait: true, arguments }.encode(number, out);
        }
    }
}

fn open(newest: &mut u16, out: &mut BytesMut) -> ChannelId {
    *newest += 1;
    channel::Open.encode(ChannelId(*newest), out);
    ChannelId(*newest)
}

/// Subscribes to direct replies and asks for one.
fn consume_replies(number: ChannelId, out: &mut BytesMut) {
    let queue = "amq.rabbitmq.reply-to";
    basic::Consume { queue, no_ack: true, ..Default::default() }.encode(number, out);
    let properties = PropertyList { reply_to: Some(queue.as_bytes().to_vec()), ..Default::default() };
    message(number, basic::Publish { routing_key: QUEUES[0], ..Default::default() }, &properties, b"?", out);
}

/// What is said next on a channel.
fn line(number: ChannelId, random: &mut Random, out: &mut BytesMut) {
    match random.below(80) {
        0..=29 => publish(number, random, out),
        30 if random.one_in(8) => connection_method(random).encode(ChannelId::CONNECTION, out),
        31 if random.one_in(8) => {
            channel::CloseOk.encode(number, out);
            channel::Open.encode(number, out);
        }
        32 => out.extend_from_slice(&frame::HEARTBEAT),
        _ => method(random).encode(number, out),
    }
}

/// One method's frame payload.
pub(crate) fn method_payload(random: &mut Random) -> Vec<u8> {
    let mut out = BytesMut::new();
    let method = if random.one_in(6) { connection_method(random) } else { method(random) };
    method.encode(ChannelId(1), &mut out);
    out[frame::HEADER_BYTES..out.len() - 1].to_vec()
}

fn publish(number: ChannelId, random: &mut Random, out: &mut BytesMut) {
    let publish = basic::Publish {
        exchange: random.pick(&EXCHANGES),
        routing_key: random.pick(&KEYS),
        mandatory: random.one_in(5),
        immediate: random.one_in(500),
    };
    let length = [0, 1, 1, 10, 10, 100, 3000, 9000][random.below(8)];
    let body = vec![random.octet(); length];
    message(number, publish, &content::properties(random), &body, out);
}

fn message(number: ChannelId, publish: basic::Publish<'_>, properties: &PropertyList, body: &[u8], out: &mut BytesMut) {
    let mut encoded = BytesMut::new();
    properties.encode(&mut encoded);
    publish.encode(number, out);
    amqp::content::encode_content(number, &encoded, body, 4096, out);
}

fn method(random: &mut Random) -> Method<'static> {
    let nowait = random.one_in(5);
    match random.below(30) {
        0..=3 => Method::QueueDeclare(queue::Declare {
            queue: queue_name(random),
            passive: random.one_in(8),
            durable: random.one_in(2),
            exclusive: random.one_in(6),
            auto_delete: random.one_in(4),
            nowait,
            arguments: content::queue_arguments(random),
        }),
        4 => Method::ExchangeDeclare(exchange::Declare {
            exchange: random.pick(&["x0", "x1", "x2", "x3", "", "amq.topic"]),
            kind: random.pick(&["direct", "fanout", "topic", "headers", "x-what"]),
            passive: random.one_in(8),
            durable: random.one_in(2),
            auto_delete: random.one_in(4),
            internal: random.one_in(8),
            nowait,
            arguments: content::arguments(random),
        }),
        5 | 6 => Method::QueueBind(queue::Bind {
            queue: queue_name(random),
            exchange: exchange_name(random),
            routing_key: random.pick(&KEYS),
            nowait,
            arguments: content::arguments(random),
        }),
        7 => Method::QueueUnbind(queue::Unbind {
            queue: queue_name(random),
            exchange: exchange_name(random),
            routing_key: random.pick(&KEYS),
            arguments: content::arguments(random),
        }),
        8 => Method::ExchangeBind(exchange::Bind {
            destination: exchange_name(random),
            source: exchange_name(random),
            routing_key: random.pick(&KEYS),
            nowait,
            arguments: content::arguments(random),
        }),
        9 => Method::ExchangeUnbind(exchange::Unbind {
            destination: exchange_name(random),
            source: exchange_name(random),
            routing_key: random.pick(&KEYS),
            nowait,
            arguments: content::arguments(random),
        }),
        10..=13 => Method::BasicConsume(basic::Consume {
            queue: queue_name(random),
            consumer_tag: consumer_tag(random),
            no_local: random.one_in(8),
            no_ack: random.one_in(3),
            exclusive: random.one_in(10),
            nowait,
            arguments: content::arguments(random),
        }),
        14 => Method::BasicCancel(basic::Cancel { consumer_tag: consumer_tag(random), nowait }),
        15 | 16 => Method::BasicGet(basic::Get { queue: queue_name(random), no_ack: random.one_in(2) }),
        17..=19 => Method::BasicAck(if !random.one_in(4) {
            EVERYTHING
        } else {
            basic::Ack { delivery_tag: tag(random), multiple: random.one_in(3) }
        }),
        20 if random.one_in(3) => {
            Method::BasicReject(basic::Reject { delivery_tag: tag(random), requeue: random.one_in(2) })
        }
        20 | 21 => {
            let delivery_tag = if !random.one_in(4) { 0 } else { tag(random) };
            let multiple = delivery_tag == 0 || random.one_in(2);
            Method::BasicNack(basic::Nack { delivery_tag, multiple, requeue: random.one_in(2) })
        }
        22 => Method::BasicQos(basic::Qos {
            prefetch_size: u32::from(random.one_in(50)),
            prefetch_count: random.below(4) as u16,
            global: random.one_in(2),
        }),
        23 => Method::BasicRecover(basic::Recover { requeue: !random.one_in(20) }),
        24 => Method::ConfirmSelect(confirm::Select { nowait }),
        25 => match random.below(8) {
            0 => Method::TxSelect(tx::Select),
            1..=6 => Method::TxCommit(tx::Commit),
            _ => Method::TxRollback(tx::Rollback),
        },
        26 => Method::QueuePurge(queue::Purge { queue: queue_name(random), nowait }),
        27 => Method::QueueDelete(queue::Delete {
            queue: queue_name(random),
            if_unused: random.one_in(3),
            if_empty: random.one_in(3),
            nowait,
        }),
        28 => Method::ExchangeDelete(exchange::Delete {
            exchange: exchange_name(random),
            if_unused: random.one_in(3),
            nowait,
        }),
        _ => rare(random),
    }
}

fn rare(random: &mut Random) -> Method<'static> {
    match random.below(6) {
        0 => Method::ChannelClose(channel::Close { reply_code: 200, ..Default::default() }),
        1 => Method::ChannelFlow(channel::Flow { active: !random.one_in(4) }),
        2 => Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }),
        3 => Method::AccessRequest(access::Request::default()),
        4 if random.one_in(8) => Method::ChannelOpen(channel::Open),
        4 if random.one_in(8) => Method::BasicGetEmpty(basic::GetEmpty),
        _ => Method::ChannelFlowOk(channel::FlowOk { active: true }),
    }
}

fn connection_method(random: &mut Random) -> Method<'static> {
    match random.below(7) {
        0 => Method::ConnectionClose(connection::Close { reply_code: 200, ..Default::default() }),
        1 => Method::ConnectionCloseOk(connection::CloseOk),
        2 => Method::ConnectionUpdateSecret(connection::UpdateSecret { new_secret: b"s", reason: "r" }),
        3 => Method::ConnectionStartOk(connection::StartOk {
            client_properties: content::table(random, 3),
            mechanism: random.pick(&["PLAIN", "AMQPLAIN", "EXTERNAL"]),
            response: random.pick(&[&b"\0guest\0guest"[..], b"\0\0", b"guest", b"\x05LOGINS\0\0\0\x05guest"]),
            locale: content::text(random),
        }),
        4 => {
            let (channel_max, frame_max) = (random.edge() as u16, random.edge() as u32);
            Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat: random.edge() as u16 })
        }
        5 => Method::ConnectionOpen(connection::Open { vhost: random.pick(&["/", "", "nowhere", LONG]) }),
        _ => Method::ConnectionBlocked(connection::Blocked { reason: content::text(random) }),
    }
}

fn queue_name(random: &mut Random) -> &'static str {
    match random.below(30) {
        0 => "",
        1 => random.pick(&["amq.rabbitmq.reply-to", "amq.gen-none", "amq.none", LONG, "a\rb\n", "\u{1f407}"]),
        _ => random.pick(&QUEUES),
    }
}

fn exchange_name(random: &mut Random) -> &'static str {
    match random.below(40) {
        0 => random.pick(&["amq.none", LONG, "none", "amq.match", ""]),
        _ => random.pick(&EXCHANGES[1..]),
    }
}

fn consumer_tag(random: &mut Random) -> &'static str {
    if random.one_in(2) { "" } else { random.pick(&["c0", "c1", "c2", "c3", "c4", "c5", LONG]) }
}

fn tag(random: &mut Random) -> u64 {
    if random.one_in(30) { random.edge() } else { 1 + random.below(4) as u64 }
}

const EVERYTHING: basic::Ack = basic::Ack { delivery_tag: 0, multiple: true };
