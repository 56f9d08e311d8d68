//! `/api/parameters` and `/api/global-parameters`: kept and told for tools. Only RabbitMQ's plugins give them a meaning; but
//! the limits of vhosts are parameters, too.

use super::listing::Listing;
use super::refusal::Refusal;
use super::request::Document;
use super::routes::{Routes, get};
use super::users::change;
use super::{Api, Shared, limits};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::identity::{IdentityAsk, Parameter, VhostLimits};
use broker::topology::Topology;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/parameters", get(list))
        .route("/parameters/{component}", get(list_of))
        .route("/parameters/{component}/{vhost}", get(list_in))
        .route("/parameters/{component}/{vhost}/{name}", get(show).put(set).delete(clear))
        .route("/global-parameters", get(list_global))
        .route("/global-parameters/{name}", get(show_global).put(set_global).delete(clear_global))
}

fn answer(api: &Api, listing: &Listing, is_meant: impl Fn(&Value) -> bool) -> Result<Json<Value>, Refusal> {
    listing.all(scoped(&api.board.topology()).filter(is_meant).collect(), &["component", "vhost", "name"])
}

/// All that are of a component and in a vhost.
fn scoped(topology: &Topology) -> impl Iterator<Item = Value> {
    let kept = topology.parameters().filter(|parameter| parameter.scope.is_some());
    let kept = kept.map(|parameter| describe(topology, parameter));
    kept.chain(limits::as_parameters(topology).map(|(_, parameter)| parameter))
}

/// `GET /api/parameters`
async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, &listing, |_| true)
}

/// `GET /api/parameters/COMPONENT`
async fn list_of(State(api): Shared, Path(component): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, &listing, |parameter| parameter["component"] == component)
}

/// `GET /api/parameters/COMPONENT/VHOST`
async fn list_in(
    State(api): Shared,
    Path((component, vhost)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    api.vhost(&vhost)?;
    answer(&api, &listing, |parameter| parameter["component"] == component && parameter["vhost"] == vhost)
}

/// `GET /api/global-parameters`
async fn list_global(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let global = topology.parameters().filter(|parameter| parameter.scope.is_none());
        global.map(|parameter| describe(&topology, parameter)).collect()
    };
    listing.all(objects, &["component", "vhost", "name"])
}

/// `GET /api/parameters/COMPONENT/VHOST/NAME`
async fn show(
    State(api): Shared,
    Path((component, vhost, name)): Path<(String, String, String)>,
) -> Result<Json<Value>, Refusal> {
    api.vhost(&vhost)?;
    let topology = api.board.topology();
    let is_it = |parameter: &Value| {
        parameter["component"] == component && parameter["vhost"] == vhost && parameter["name"] == name
    };
    let found = scoped(&topology).find(is_it).ok_or_else(Refusal::no_object)?;
    Ok(Json(found))
}

/// `GET /api/global-parameters/NAME`
async fn show_global(State(api): Shared, Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    let topology = api.board.topology();
    let mut global = topology.parameters().filter(|parameter| parameter.scope.is_none());
    let found = global.find(|parameter| *parameter.name == *name).ok_or_else(Refusal::no_object)?;
    Ok(Json(describe(&topology, found)))
}

/// `PUT /api/parameters/COMPONENT/VHOST/NAME`
async fn set(
    State(api): Shared,
    Path((component, vhost, name)): Path<(String, String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    check_component(&component, &name)?;
    let id = api.vhost(&vhost)?;
    if component == limits::COMPONENT {
        let had_some = limits::as_parameters(&api.board.topology()).any(|(other, _)| other == id);
        limits::replace_of_vhost(&api, &vhost, &document.object("value")?).await?;
        return Ok(if had_some { StatusCode::NO_CONTENT } else { StatusCode::CREATED });
    }
    let scope = Some((id, component.into()));
    put(&api, Parameter { scope, name: name.into(), value: value(&document)? }).await
}

/// `PUT /api/global-parameters/NAME`
async fn set_global(State(api): Shared, Path(name): Path<String>, document: Document) -> Result<StatusCode, Refusal> {
    put(&api, Parameter { scope: None, name: name.into(), value: value(&document)? }).await
}

/// Refuses what only looks like a parameter: kept as one it would do nothing, until definitions that have it are imported
/// by somebody who may do more.
fn check_component(component: &str, name: &str) -> Result<(), Refusal> {
    match component {
        "policy" | "operator_policy" => Err(Refusal::bad_request("policies may not be set using this method")),
        limits::COMPONENT if name != limits::PARAMETER => {
            Err(Refusal::bad_request(format!("the limits of a vhost are called '{}'", limits::PARAMETER)))
        }
        _ => Ok(()),
    }
}

async fn put(api: &Arc<Api>, parameter: Parameter) -> Result<StatusCode, Refusal> {
    let is_it = |other: &Arc<Parameter>| (&other.scope, &other.name) == (&parameter.scope, &parameter.name);
    let existed = api.board.topology().parameters().any(is_it);
    change(api, IdentityAsk::SetParameter(parameter)).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// `DELETE /api/parameters/COMPONENT/VHOST/NAME`
async fn clear(
    State(api): Shared,
    Path((component, vhost, name)): Path<(String, String, String)>,
) -> Result<StatusCode, Refusal> {
    let id = api.vhost(&vhost)?;
    if component == limits::COMPONENT && name == limits::PARAMETER {
        let had_some = limits::as_parameters(&api.board.topology()).any(|(other, _)| other == id);
        let none = IdentityAsk::LimitVhost { name: vhost, limits: VhostLimits::default() };
        return if had_some {
            change(&api, none).await.map(|()| StatusCode::NO_CONTENT)
        } else {
            Err(Refusal::no_object())
        };
    }
    let scope = Some((id, component.into()));
    change(&api, IdentityAsk::ClearParameter { scope, name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/global-parameters/NAME`
async fn clear_global(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    change(&api, IdentityAsk::ClearParameter { scope: None, name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn value(document: &Document) -> Result<String, Refusal> {
    document.require(&["value"])?;
    Ok(document.get("value").map(Value::to_string).unwrap_or_default())
}

pub(super) fn describe(topology: &Topology, parameter: &Parameter) -> Value {
    let value: Value = serde_json::from_str(&parameter.value).unwrap_or_default();
    match &parameter.scope {
        Some((vhost, component)) => json!({
            "component": &**component,
            "vhost": &**topology.vhost_name(*vhost),
            "name": &*parameter.name,
            "value": value,
        }),
        None => json!({"name": &*parameter.name, "value": value}),
    }
}
