//! `/api/vhost-limits` and `/api/user-limits`

use super::listing::Listing;
use super::refusal::Refusal;
use super::request::Document;
use super::routes::{Routes, get, put};
use super::users::{self, change};
use super::{Api, Shared};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::command::VhostId;
use broker::identity::{IdentityAsk, UserLimits, UserRecord, VhostLimits, VhostRecord};
use broker::topology::Topology;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/vhost-limits", get(list_vhosts))
        .route("/vhost-limits/{vhost}", get(list_vhost))
        .route("/vhost-limits/{vhost}/{limit}", put(limit_vhost).delete(free_vhost))
        .route("/user-limits", get(list_users))
        .route("/user-limits/{user}", get(list_user))
        .route("/user-limits/{user}/{limit}", put(limit_user).delete(free_user))
}

fn answer_vhosts(
    api: &Api,
    listing: &Listing,
    is_meant: impl Fn(&VhostRecord) -> bool,
) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let records = topology.vhosts().filter_map(|(id, _)| topology.vhost_record(id));
        let limited = records.filter(|record| is_meant(record) && !of_vhost(record.limits).is_empty());
        limited.map(|record| json!({"vhost": &*record.name, "value": of_vhost(record.limits)})).collect()
    };
    listing.all(objects, &["vhost"])
}

fn answer_users(api: &Api, listing: &Listing, is_meant: impl Fn(&UserRecord) -> bool) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let limited = topology.users().filter(|user| is_meant(user) && !users::limits(user.limits).is_empty());
        limited.map(|user| json!({"user": &*user.name, "value": users::limits(user.limits)})).collect()
    };
    listing.all(objects, &["user"])
}

/// `GET /api/vhost-limits`
async fn list_vhosts(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer_vhosts(&api, &listing, |_| true)
}

/// `GET /api/vhost-limits/VHOST`
async fn list_vhost(State(api): Shared, Path(vhost): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer_vhosts(&api, &listing, |record| record.id == vhost)
}

/// `PUT /api/vhost-limits/VHOST/LIMIT`
async fn limit_vhost(
    State(api): Shared,
    Path((vhost, limit)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    document.require(&["value"])?;
    set_vhost(&api, vhost, &limit, document.integer("value")?).await
}

/// `DELETE /api/vhost-limits/VHOST/LIMIT`
async fn free_vhost(State(api): Shared, Path((vhost, limit)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    set_vhost(&api, vhost, &limit, None).await
}

async fn set_vhost(api: &Arc<Api>, name: String, limit: &str, value: Option<i64>) -> Result<StatusCode, Refusal> {
    let id = api.vhost(&name)?;
    let mut limits = api.board.topology().vhost_record(id).map(|record| record.limits).unwrap_or_default();
    put_vhost_limit(&mut limits, limit, value)?;
    change(api, IdentityAsk::LimitVhost { name, limits }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a vhost these limits and no others.
pub(super) async fn replace_of_vhost(api: &Arc<Api>, name: &str, document: &Document) -> Result<(), Refusal> {
    let mut limits = VhostLimits::default();
    for (limit, _) in document.entries() {
        put_vhost_limit(&mut limits, limit, document.integer(limit)?)?;
    }
    change(api, IdentityAsk::LimitVhost { name: name.to_owned(), limits }).await
}

/// The limits of vhosts that have some, as the parameters that they are in RabbitMQ.
pub(super) fn as_parameters(topology: &Topology) -> impl Iterator<Item = (VhostId, Value)> {
    topology.vhosts().filter_map(|(id, name)| {
        let limits = of_vhost(topology.vhost_record(id)?.limits);
        let parameter = json!({"component": COMPONENT, "vhost": &**name, "name": PARAMETER, "value": limits});
        (!limits.is_empty()).then_some((id, parameter))
    })
}

/// The component of these parameters, …
pub(super) const COMPONENT: &str = "vhost-limits";
/// … and the name of each.
pub(super) const PARAMETER: &str = "limits";

/// Sets one of a vhost's limits by its name.
pub(super) fn put_vhost_limit(limits: &mut VhostLimits, name: &str, value: Option<i64>) -> Result<(), Refusal> {
    match name {
        "max-connections" => limits.max_connections = value,
        "max-queues" => limits.max_queues = value,
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// Sets one of a user's limits by its name.
pub(super) fn put_user_limit(limits: &mut UserLimits, name: &str, value: Option<i64>) -> Result<(), Refusal> {
    match name {
        "max-connections" => limits.max_connections = value,
        "max-channels" => limits.max_channels = value,
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn unknown(name: &str) -> Refusal {
    Refusal::bad_request(format!("Unrecognised limit '{name}'"))
}

/// `GET /api/user-limits`
async fn list_users(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer_users(&api, &listing, |_| true)
}

/// `GET /api/user-limits/USER`
async fn list_user(State(api): Shared, Path(name): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    api.board.topology().user(&name).ok_or_else(Refusal::no_object)?;
    answer_users(&api, &listing, |user| *user.name == *name)
}

/// `PUT /api/user-limits/USER/LIMIT`
async fn limit_user(
    State(api): Shared,
    Path((user, limit)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    document.require(&["value"])?;
    set_user(&api, user, &limit, document.integer("value")?).await
}

/// `DELETE /api/user-limits/USER/LIMIT`
async fn free_user(State(api): Shared, Path((user, limit)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    set_user(&api, user, &limit, None).await
}

async fn set_user(api: &Arc<Api>, name: String, limit: &str, value: Option<i64>) -> Result<StatusCode, Refusal> {
    let user = api.board.topology().user(&name).cloned().ok_or_else(Refusal::no_object)?;
    let mut limits = user.limits;
    put_user_limit(&mut limits, limit, value)?;
    change(api, IdentityAsk::PutUser { name, password: None, tags: None, limits: Some(limits) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A vhost's limits that are set.
pub(super) fn of_vhost(limits: VhostLimits) -> Map<String, Value> {
    let all = [("max-connections", limits.max_connections), ("max-queues", limits.max_queues)];
    all.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect()
}
