//! Values, tables and properties of every kind, likely and unlikely.

use crate::random::Random;
use amqp::{PropertyList, Table, Value};

/// Any value, nested no deeper than `depth`.
pub(crate) fn value(random: &mut Random, depth: usize) -> Value {
    let edge = random.edge();
    match random.below(if depth == 0 { 15 } else { 17 }) {
        0 => Value::Bool(edge & 1 == 1),
        1 => Value::I8(edge as i8),
        2 => Value::U8(edge as u8),
        3 => Value::I16(edge as i16),
        4 => Value::U16(edge as u16),
        5 => Value::I32(edge as i32),
        6 => Value::U32(edge as u32),
        7 => Value::I64(edge as i64),
        8 => Value::F32(f32::from_bits(edge as u32)),
        9 => Value::F64(f64::from_bits(edge)),
        10 => Value::Decimal { scale: random.octet(), value: edge as u32 },
        11 => Value::Str(text(random).as_bytes().to_vec()),
        12 => {
            let count = random.below(20);
            Value::Bytes(random.octets(count))
        }
        13 => Value::Timestamp(edge),
        14 => Value::Void,
        15 => Value::Array((0..random.below(4)).map(|_| value(random, depth - 1)).collect()),
        _ => Value::Table(table(random, depth - 1)),
    }
}

/// A table of any entries.
pub(crate) fn table(random: &mut Random, depth: usize) -> Table {
    (0..random.below(4)).map(|_| (text(random).to_owned(), value(random, depth))).collect()
}

/// Arguments of a queue, mostly ones that mean something, mostly with values that are allowed.
pub(crate) fn queue_arguments(random: &mut Random) -> Table {
    let mut arguments = Table::new();
    for _ in 0..random.below(4) {
        let small = Value::I32(random.below(20) as i32);
        let text = |text: &str| Value::Str(text.as_bytes().to_vec());
        let (name, likely) = match random.below(16) {
            0 => ("x-message-ttl", Value::I32(random.below(2000) as i32)),
            1 => ("x-expires", Value::I32(1 + random.below(5000) as i32)),
            2 => ("x-max-length", small),
            3 => ("x-max-length-bytes", Value::I64(random.below(500) as i64)),
            4 => ("x-overflow", text(random.pick(&["drop-head", "reject-publish", "reject-publish-dlx"]))),
            5 => ("x-dead-letter-exchange", text(random.pick(&EXCHANGES))),
            6 => {
                arguments.insert("x-dead-letter-exchange", text(random.pick(&EXCHANGES)));
                ("x-dead-letter-routing-key", text(random.pick(&QUEUES)))
            }
            7 | 8 => ("x-max-priority", Value::U8(random.below(12) as u8)),
            9 => ("x-single-active-consumer", Value::Bool(random.one_in(2))),
            10 => ("x-delivery-limit", small),
            11 => ("x-consumer-timeout", Value::I32(random.below(3000) as i32)),
            12 | 13 => ("x-queue-type", text(random.pick(&["classic", "quorum", "stream"]))),
            14 => ("x-anything", value(random, 2)),
            _ => ("x-queue-mode", text("lazy")),
        };
        let unlikely = random.one_in(30);
        arguments.insert(name, if unlikely { value(random, 1) } else { likely });
    }
    arguments
}

/// Arguments of a binding or a consumer.
pub(crate) fn arguments(random: &mut Random) -> Table {
    let text = |text: &str| Value::Str(text.as_bytes().to_vec());
    match random.below(6) {
        0 => table(random, 3),
        1 => [("x-match", text(random.pick(&["all", "any", "any-with-x", "all-with-x"]))), ("k", text("v"))]
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
        2 => [("x-priority".to_owned(), Value::I32(random.below(5) as i32 - 2))].into_iter().collect(),
        3 => [("alternate-exchange".to_owned(), text(random.pick(&EXCHANGES)))].into_iter().collect(),
        _ => Table::new(),
    }
}

/// Properties, mostly the few that mean something.
pub(crate) fn properties(random: &mut Random) -> PropertyList {
    let mut list = PropertyList::default();
    let octets = |text: &str| Some(text.as_bytes().to_vec());
    if random.one_in(2) {
        list.delivery_mode = Some(if random.one_in(8) { random.octet() } else { 1 + random.below(2) as u8 });
    }
    if random.one_in(4) {
        list.priority = Some(random.below(12) as u8);
    }
    if random.one_in(4) {
        list.expiration = octets(random.pick(&["0", "1", "1000", "60000", "315360000000"]));
    }
    if random.one_in(80) {
        list.expiration = octets(random.pick(&["", "-1", "315360000001", "soon"]));
        list.user_id = octets("root");
    }
    if random.one_in(4) {
        list.headers = Some(headers(random));
    }
    if random.one_in(12) {
        list.reply_to = octets(random.pick(&["amq.rabbitmq.reply-to", "q0", "q1", ""]));
        list.user_id = octets("guest");
    }
    if random.one_in(8) {
        list.content_type = octets(text(random));
        list.correlation_id = octets(text(random));
        list.timestamp = Some(random.edge());
        list.cluster_id = octets(text(random));
    }
    list
}

fn headers(random: &mut Random) -> Table {
    let name = |name: &str| Value::Str(name.as_bytes().to_vec());
    let mut headers = table(random, 3);
    if random.one_in(2) {
        let flags = random.pick(&["01", "01", "01", "00", "0x"]);
        let context = format!("00-{:032x}-{:016x}-{flags}", 1 + random.below(3), random.below(4));
        headers.insert("traceparent", context.as_str());
    }
    if random.one_in(3) {
        let keys = (0..random.below(4)).map(|_| name(random.pick(&KEYS))).collect();
        headers.insert(random.pick(&["CC", "BCC"]), Value::Array(keys));
    }
    if random.one_in(6) {
        let death = [
            ("queue".to_owned(), name(random.pick(&QUEUES))),
            ("reason".to_owned(), name("rejected")),
            ("count".to_owned(), value(random, 0)),
        ];
        let deaths = Value::Array(vec![Value::Table(death.into_iter().collect()), value(random, 1)]);
        headers.insert("x-death", if random.one_in(4) { value(random, 1) } else { deaths });
    }
    headers
}

/// Some text, for where any text will do.
pub(crate) fn text(random: &mut Random) -> &'static str {
    random.pick(&["", "a", "k", "x-match", "text", "p\u{e4}ckchen", LONG, "\r\n", "\0", "x-first-death-queue"])
}

/// Names of queues that are likely to be there.
pub(crate) const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];
/// Names of exchanges that are likely to be there.
pub(crate) const EXCHANGES: [&str; 8] = ["", "x0", "x1", "x2", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"];
/// Routing and binding keys.
pub(crate) const KEYS: [&str; 10] = ["q0", "q1", "q2", "q3", "a.b", "a.*", "#", "*.#.b", "", "a"];
/// As long as a short string gets.
pub(crate) const LONG: &str = match std::str::from_utf8(&[b'l'; 255]) {
    Ok(text) => text,
    Err(_) => "",
};
