//! Counters as RabbitMQ shows them: each beside `NAME_details` with its rate.

use super::samples::Past;
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

/// Adds one number and its rate.
pub(super) fn put(object: &mut Map<String, Value>, name: &str, now: u64, then: u64, past: &Past) {
    object.insert(name.to_owned(), now.into());
    object.insert(format!("{name}_details"), json!({"rate": past.rate(now, then)}));
}
