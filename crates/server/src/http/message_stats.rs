//! Counters as RabbitMQ shows them: each beside `NAME_details` with its rate.

use super::rows::{Cell, Row};
use super::samples::{Instant, Past};
use broker::inspect::{ChannelCounters, QueueCounters};
use serde_json::{Map, Value, json};

/// Counters of the same kind, by their names in the API.
pub(super) type Named = Vec<(&'static str, u64)>;

/// What happened in a queue.
pub(super) fn of_queue(counters: &QueueCounters) -> Named {
    let QueueCounters { publish, deliver, deliver_no_ack, get, get_no_ack, get_empty, redeliver, ack, .. } = *counters;
    vec![
        ("publish", publish),
        ("deliver", deliver),
        ("deliver_no_ack", deliver_no_ack),
        ("deliver_get", deliver + deliver_no_ack + get + get_no_ack),
        ("get", get),
        ("get_no_ack", get_no_ack),
        ("get_empty", get_empty),
        ("redeliver", redeliver),
        ("ack", ack),
    ]
}

/// What happened on a channel, or on several.
pub(super) fn of_channel(counters: &ChannelCounters) -> Named {
    let ChannelCounters { publish, confirm, return_unroutable, drop_unroutable, deliver, deliver_no_ack, .. } =
        *counters;
    let ChannelCounters { get, get_no_ack, get_empty, redeliver, ack, .. } = *counters;
    vec![
        ("publish", publish),
        ("confirm", confirm),
        ("return_unroutable", return_unroutable),
        ("drop_unroutable", drop_unroutable),
        ("deliver", deliver),
        ("deliver_no_ack", deliver_no_ack),
        ("deliver_get", deliver + deliver_no_ack + get + get_no_ack),
        ("get", get),
        ("get_no_ack", get_no_ack),
        ("get_empty", get_empty),
        ("redeliver", redeliver),
        ("ack", ack),
    ]
}

/// The counters with their rates. `now` and `then` name the same ones in the same order.
pub(super) fn object(now: &Named, then: &Named, past: &Past) -> Value {
    let mut object = Map::new();
    for ((name, now), (_, then)) in now.iter().zip(then) {
        put(&mut object, name, *now, *then, past);
    }
    object.into()
}

/// The same for a row of a long list.
pub(super) fn row(now: &Named, then: &Named, past: &Past) -> Row {
    let mut row = Row::default();
    for ((name, now), (_, then)) in now.iter().zip(then) {
        put_in_row(&mut row, name, *now, *then, past);
    }
    row
}

/// Adds one number and its rate to a row.
pub(super) fn put_in_row(row: &mut Row, name: &'static str, now: u64, then: u64, past: &Past) {
    row.put(name, now);
    if let Some((_, details)) = DETAILS.iter().find(|(known, _)| *known == name) {
        row.put(details, Cell::Rate(past.rate(now, then)));
    }
}

/// The numbers of queues, and what their rates are called.
const DETAILS: [(&str, &str); 14] = [
    ("messages", "messages_details"),
    ("messages_ready", "messages_ready_details"),
    ("messages_unacknowledged", "messages_unacknowledged_details"),
    ("messages_delayed", "messages_delayed_details"),
    ("messages_dlx", "messages_dlx_details"),
    ("publish", "publish_details"),
    ("deliver", "deliver_details"),
    ("deliver_no_ack", "deliver_no_ack_details"),
    ("deliver_get", "deliver_get_details"),
    ("get", "get_details"),
    ("get_no_ack", "get_no_ack_details"),
    ("get_empty", "get_empty_details"),
    ("redeliver", "redeliver_details"),
    ("ack", "ack_details"),
];

/// Adds one number and its rate.
pub(super) fn put(object: &mut Map<String, Value>, name: &str, now: u64, then: u64, past: &Past) {
    object.insert(name.to_owned(), now.into());
    object.insert(format!("{name}_details"), json!({"rate": past.rate(now, then)}));
}

/// Adds to the details of these numbers how they stood before, the latest first, as RabbitMQ does where a query string
/// asks for ages. All lists name the same numbers in the same order.
pub(super) fn put_history(object: &mut Map<String, Value>, history: &[(Instant, Named)]) {
    let Some(((newest, last), (oldest, first))) = history.first().zip(history.last()) else { return };
    let seconds = newest.ms.saturating_sub(oldest.ms) as f64 / 1000.0;
    for (at, (name, _)) in first.iter().enumerate() {
        let Some(Value::Object(details)) = object.get_mut(&format!("{name}_details")) else { continue };
        let samples = history.iter().map(|(then, named)| json!({"sample": named[at].1, "timestamp": then.unix_ms}));
        details.insert("samples".into(), samples.collect());
        let sum: u64 = history.iter().map(|(_, named)| named[at].1).sum();
        details.insert("avg".into(), (sum as f64 / history.len() as f64).into());
        let change = last[at].1 as f64 - first[at].1 as f64;
        details.insert("avg_rate".into(), (if seconds > 0.0 { change / seconds } else { 0.0 }).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::samples::Samples;

    #[test]
    fn rows_have_a_rate_beside_each_number_as_objects_have() {
        let past = Samples::default().past(1);
        let named = of_queue(&QueueCounters { publish: 3, ..QueueCounters::default() });
        assert_eq!(row(&named, &named, &past).into_value(), object(&named, &named, &past));
    }
}
