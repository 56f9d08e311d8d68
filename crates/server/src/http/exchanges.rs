//! `/api/exchanges`

use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::samples::Past;
use super::{Api, Shared, consumers, policies, published, queues, values};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use broker::command::{CatalogAsk, ChannelKey, VhostId};
use broker::inspect::ConnectionView;
use broker::topology::{Exchange, Topology};
use serde_json::{Map, Value, json};

/// `GET /api/exchanges`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, &listing).await
}

/// `GET /api/exchanges/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), &listing).await
}

async fn answer(api: &Api, vhost: Option<VhostId>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let published = match listing.disables_stats() || !listing.shows("message_stats") {
        true => None,
        false => Some((published::look(api).await.1, api.samples.past(api.board.clock().now().ms))),
    };
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.exchanges().filter(|exchange| vhost.is_none_or(|vhost| exchange.vhost == vhost));
        let described = wanted.map(|exchange| {
            let mut described = describe(&topology, exchange);
            if let Some((published, past)) = &published
                && let Some(now) = published.exchanges.get(&exchange.number())
            {
                published::add_to(&mut described, now, &past.exchange(exchange.number()), past);
            }
            Value::Object(described)
        });
        described.collect()
    };
    listing.all(objects, &["vhost", "name"])
}

/// `GET /api/exchanges/VHOST/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let (mut described, number) = {
        let topology = api.board.topology();
        let vhost = topology.vhost(&vhost).ok_or_else(Refusal::no_object)?;
        let exchange = topology.exchange(vhost, real_name(&name)).ok_or_else(Refusal::no_object)?;
        (describe(&topology, exchange), exchange.number())
    };
    if !listing.disables_stats() {
        let (connections, published) = published::look(&api).await;
        let past = api.samples.past(api.board.clock().now().ms);
        if let Some(now) = published.exchanges.get(&number) {
            published::add_to(&mut described, now, &past.exchange(number), &past);
        }
        described.insert("incoming".into(), incoming(&api, &connections, number, &past));
        // To which queues how much went is not counted apart: RabbitMQ tells it with detailed rates only.
        described.insert("outgoing".into(), json!([]));
    }
    Ok(listing.one(described.into()))
}

/// `PUT /api/exchanges/VHOST/NAME`
pub(super) async fn declare(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(&vhost)?;
    let name = real_name(&name).to_owned();
    let existed = api.board.topology().exchange(vhost, &name).is_some();
    let kind = match document.text("type")? {
        // The default of the field in AMQP.
        "" => "direct".to_owned(),
        kind => kind.to_owned(),
    };
    let ask = CatalogAsk::DeclareExchange {
        name,
        kind,
        passive: false,
        durable: document.flag("durable")?,
        auto_delete: document.flag("auto_delete")?,
        internal: document.flag("internal")?,
        arguments: document.table("arguments")?,
    };
    succeeded(api.operator().ask(vhost, ask).await?)?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// `DELETE /api/exchanges/VHOST/NAME`
pub(super) async fn delete(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    Query(conditions): Query<queues::Conditions>,
) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(&vhost)?;
    let name = real_name(&name).to_owned();
    if api.board.topology().exchange(vhost, &name).is_none() {
        return Err(Refusal::no_object());
    }
    let if_unused = conditions.if_unused.as_deref() == Some("true");
    succeeded(api.operator().ask(vhost, CatalogAsk::DeleteExchange { name, if_unused }).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The name of an exchange in a path, where the default exchange has one.
pub(super) fn real_name(name: &str) -> &str {
    if name == "amq.default" { "" } else { name }
}

/// Which channels that there are published to an exchange.
fn incoming(api: &Api, connections: &[ConnectionView], exchange: u64, past: &Past) -> Value {
    let channels =
        connections.iter().flat_map(|connection| connection.channels.iter().map(move |one| (connection, one)));
    let published = channels.filter_map(|(connection, channel)| {
        let (_, now) = channel.exchanges.iter().find(|(known, _)| *known == exchange)?;
        let key = ChannelKey { connection: connection.id, channel: channel.number };
        let stats = published::of_channel(now, &past.channel_exchange(key, exchange), past)?;
        Some(json!({"stats": stats, "channel_details": consumers::details_of_channel(api, connection, channel.number.0)}))
    });
    published.collect()
}

fn describe(topology: &Topology, exchange: &Exchange) -> Map<String, Value> {
    let described = json!({
        "name": &*exchange.name,
        "vhost": &**topology.vhost_name(exchange.vhost),
        "type": exchange.type_name(),
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": values::table_to_json(&exchange.arguments),
    });
    let Value::Object(mut object) = described else { return Map::new() };
    policies::add_to(&mut object, &exchange.policies);
    object
}
