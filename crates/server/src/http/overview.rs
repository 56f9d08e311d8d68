//! `/api/overview` and what else describes the whole server.

use super::listing::Listing;
use super::message_stats::Named;
use super::refusal::Refusal;
use super::samples::{Totals, totals};
use super::{Api, Shared, message_stats};
use axum::Json;
use axum::extract::State;
use broker::connection::COMPATIBLE_VERSION;
use broker::topology::{DELAYED_MESSAGE, ExchangeKind};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

/// `GET /api/overview`
pub(super) async fn show(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let queues = api.board.inspect_queues().await?;
    let connections = api.board.inspect_connections().await;
    let moment = api.board.clock().now();
    let past = api.samples.past(moment.ms);
    let (now, then) = (totals(&api, &queues, &connections), past.totals());

    let mut churn = Map::new();
    for ((name, now), (_, then)) in now.churn().into_iter().zip(then.churn()) {
        message_stats::put(&mut churn, name, now, then, &past);
    }
    let mut queue_totals = Map::new();
    message_stats::put(&mut queue_totals, "messages", now.messages(), then.messages(), &past);
    message_stats::put(&mut queue_totals, "messages_ready", now.ready, then.ready, &past);
    message_stats::put(&mut queue_totals, "messages_unacknowledged", now.unacked, then.unacked, &past);
    message_stats::put(&mut queue_totals, "messages_delayed", now.delayed, then.delayed, &past);
    message_stats::put(&mut queue_totals, "messages_dlx", now.owed, then.owed, &past);
    let (counted, counted_then) = (message_stats::of_channel(&now.channels), message_stats::of_channel(&then.channels));
    let mut stats = message_stats::object(&counted, &counted_then, &past);
    let history_of = |(age_ms, step_ms): (u64, u64), named: fn(&Totals) -> Named| -> Vec<_> {
        let history = api.samples.history(moment.ms, age_ms, step_ms);
        history.iter().map(|(at, totals)| (*at, named(totals))).collect()
    };
    if let (Some(asked), Value::Object(stats)) = (listing.message_rates(), &mut stats) {
        message_stats::put_history(stats, &history_of(asked, |totals| message_stats::of_channel(&totals.channels)));
    }
    if let Some(asked) = listing.lengths() {
        message_stats::put_history(&mut queue_totals, &history_of(asked, Totals::lengths));
    }

    let overview = json!({
        "management_version": COMPATIBLE_VERSION,
        "rates_mode": "basic",
        "product_name": PRODUCT,
        "product_version": VERSION,
        "rabbitmq_version": COMPATIBLE_VERSION,
        "cluster_name": api.cluster_name(),
        "cluster_tags": {},
        "node_tags": {},
        // Tools refuse the document without these strings.
        "erlang_version": NO_ERLANG,
        "erlang_full_version": NO_ERLANG,
        "default_queue_type": "classic",
        "disable_stats": listing.disables_stats(),
        "enable_queue_totals": listing.enables_queue_totals(),
        "exchange_types": exchange_types(),
        "message_stats": stats,
        "churn_rates": churn,
        "queue_totals": queue_totals,
        "object_totals": {
            "channels": connections.iter().map(|connection| connection.channels.len()).sum::<usize>(),
            "connections": connections.len(),
            "consumers": queues.iter().map(|queue| queue.consumers.len()).sum::<usize>(),
            "exchanges": api.board.topology().exchanges().count(),
            "queues": queues.len(),
        },
        // Counters are looked at, not sent: none waits.
        "statistics_db_event_queue": 0,
        "node": api.node,
        "listeners": listeners(&api),
        "contexts": contexts(&api),
    });
    Ok(listing.one(overview))
}

/// `GET /api/version`
pub(super) async fn version() -> Json<Value> {
    Json(VERSION.into())
}

pub(super) fn exchange_types() -> Value {
    let describe = |kind: &ExchangeKind| {
        let description = match kind {
            ExchangeKind::ConsistentHash => "Consistent Hashing Exchange".to_owned(),
            ExchangeKind::ModulusHash => "Modulus Hashing Exchange".to_owned(),
            ExchangeKind::Random => "Randomly picks a binding (queue) to route via (to).".to_owned(),
            ExchangeKind::LocalRandom => "Picks one random local binding (queue) to route via (to).".to_owned(),
            ExchangeKind::RecentHistory => "Recent History Exchange.".to_owned(),
            ExchangeKind::Deduplication => "Message Deduplication Exchange.".to_owned(),
            _ => format!("AMQP {} exchange, as per the AMQP specification", kind.name()),
        };
        json!({"name": kind.name(), "description": description, "enabled": true})
    };
    let delayed = json!({"name": DELAYED_MESSAGE, "description": "Delayed Message Exchange.", "enabled": true});
    ExchangeKind::ALL.iter().map(describe).chain([delayed]).collect()
}

/// Every address that is listened on, by RabbitMQ's name of its protocol.
pub(super) fn services(api: &Api) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let addresses = api.board.addresses();
    let all = [
        ("amqp", &addresses.amqp),
        ("amqp/ssl", &addresses.amqps),
        ("http", &addresses.http),
        ("https", &addresses.https),
        ("http/prometheus", &addresses.metrics),
    ];
    all.into_iter().flat_map(|(protocol, list)| list.iter().map(move |address| (protocol, *address)))
}

fn listeners(api: &Api) -> Value {
    let describe = |(protocol, address): (&str, SocketAddr)| {
        json!({
            "node": api.node,
            "protocol": protocol,
            "ip_address": address.ip().to_string(),
            "port": address.port(),
        })
    };
    services(api).map(describe).collect()
}

pub(super) fn contexts(api: &Api) -> Value {
    let describe = |address: &SocketAddr| {
        json!({
            "node": api.node,
            "description": "HTTP API",
            "path": "/",
            "ip": address.ip().to_string(),
            "port": address.port().to_string(),
        })
    };
    api.board.addresses().http.iter().map(describe).collect()
}

pub(super) const PRODUCT: &str = "Leveret";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
pub(super) const NO_ERLANG: &str = "none (Leveret does not use Erlang)";
