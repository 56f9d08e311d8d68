//! What was published to which exchange, and how large it was: summed up over all connections that there are and were.

use super::Api;
use super::message_stats::Named;
use super::samples::Past;
use broker::command::VhostId;
use broker::inspect::{ConnectionView, ExchangeCounters, Tallied};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// All client connections, and what they and those before them published.
pub(super) async fn look(api: &Api) -> (Vec<ConnectionView>, Tallied) {
    // In this order what a connection hands over meanwhile is told a moment later, and not twice.
    let mut published = api.board.published();
    let connections = api.board.inspect_connections().await;
    for channel in connections.iter().flat_map(|connection| &connection.channels) {
        channel.exchanges.iter().for_each(|(exchange, counted)| published.add_exchange(*exchange, counted));
        published.sizes.add(&channel.sizes);
    }
    (connections, published)
}

/// An exchange's `message_stats`; `None` when nothing was published to it.
pub(super) fn stats(now: &ExchangeCounters, then: &ExchangeCounters, past: &Past) -> Option<Value> {
    object(&[("publish_in", now.publish), ("publish_out", now.publish_out)], &[then.publish, then.publish_out], past)
}

/// What one channel published to one exchange, as the `stats` of breakdowns have it.
pub(super) fn of_channel(now: &ExchangeCounters, then: &ExchangeCounters, past: &Past) -> Option<Value> {
    let named: [_; 4] = [
        ("publish", now.publish),
        ("confirm", now.confirm),
        ("return_unroutable", now.return_unroutable),
        ("drop_unroutable", now.drop_unroutable),
    ];
    object(&named, &[then.publish, then.confirm, then.return_unroutable, then.drop_unroutable], past)
}

/// Those numbers that are not 0, with their rates.
fn object(now: &[(&'static str, u64)], then: &[u64], past: &Past) -> Option<Value> {
    let (mut named, mut before): (Named, Named) = Default::default();
    for ((name, now), then) in now.iter().zip(then).filter(|((_, now), _)| *now > 0) {
        named.push((name, *now));
        before.push((name, *then));
    }
    (!named.is_empty()).then(|| super::message_stats::object(&named, &before, past))
}

/// Adds them to what describes an exchange.
pub(super) fn add_to(object: &mut Map<String, Value>, now: &ExchangeCounters, then: &ExchangeCounters, past: &Past) {
    if let Some(stats) = stats(now, then, past) {
        object.insert("message_stats".into(), stats);
    }
}

/// What was published to the exchanges of each vhost, now and then; to those that there are.
pub(super) fn by_vhost(
    api: &Api,
    published: &Tallied,
    past: &Past,
) -> HashMap<VhostId, (ExchangeCounters, ExchangeCounters)> {
    let topology = api.board.topology();
    let mut sums: HashMap<VhostId, (ExchangeCounters, ExchangeCounters)> = HashMap::new();
    for (number, counted) in &published.exchanges {
        let Some(exchange) = topology.exchange_of_number(*number) else { continue };
        let (now, then) = sums.entry(exchange.vhost).or_default();
        now.add(counted);
        then.add(&past.exchange(*number));
    }
    sums
}
