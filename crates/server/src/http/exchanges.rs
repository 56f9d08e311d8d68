//! `/api/exchanges`

use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::{Api, Shared, policies, queues, values};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use broker::command::{CatalogAsk, VhostId};
use broker::topology::{Exchange, Topology};
use serde_json::{Value, json};

/// `GET /api/exchanges`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, &listing)
}

/// `GET /api/exchanges/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), &listing)
}

fn answer(api: &Api, vhost: Option<VhostId>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.exchanges().filter(|exchange| vhost.is_none_or(|vhost| exchange.vhost == vhost));
        wanted.map(|exchange| describe(&topology, exchange)).collect()
    };
    listing.all(objects, &["vhost", "name"])
}

/// `GET /api/exchanges/VHOST/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let topology = api.board.topology();
    let vhost = topology.vhost(&vhost).ok_or_else(Refusal::no_object)?;
    let exchange = topology.exchange(vhost, real_name(&name)).ok_or_else(Refusal::no_object)?;
    Ok(listing.one(describe(&topology, exchange)))
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

fn describe(topology: &Topology, exchange: &Exchange) -> Value {
    let mut described = json!({
        "name": &*exchange.name,
        "vhost": &**topology.vhost_name(exchange.vhost),
        "type": exchange.type_name(),
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": values::table_to_json(&exchange.arguments),
    });
    if let Value::Object(object) = &mut described {
        policies::add_to(object, &exchange.policies);
    }
    described
}
