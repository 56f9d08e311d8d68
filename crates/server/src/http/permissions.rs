//! `/api/permissions` and `/api/topic-permissions`

use super::listing::Listing;
use super::refusal::Refusal;
use super::request::Document;
use super::routes::{self as table, Routes, get};
use super::users::change;
use super::{Api, Shared};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::command::VhostId;
use broker::identity::{IdentityAsk, Permission, TopicPermission};
use broker::policy::Pattern;
use broker::topology::Topology;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/permissions", get(list))
        .route("/permissions/{vhost}/{user}", get(show).put(set).delete(clear))
        .route("/vhosts/{vhost}/permissions", get(list_in))
        .route("/topic-permissions", get(list_topics))
        .route("/topic-permissions/{vhost}/{user}", get(show_topics).put(set_topic).delete(clear_topics))
        .route("/topic-permissions/{vhost}/{user}/{exchange}", table::delete(clear_topic))
        .route("/vhosts/{vhost}/topic-permissions", get(list_topics_in))
}

fn answer(api: &Api, listing: &Listing, is_meant: impl Fn(&Permission) -> bool) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.permissions().filter(|permission| is_meant(permission));
        wanted.map(|permission| describe(&topology, permission)).collect()
    };
    listing.all(objects, &["vhost", "user"])
}

fn answer_topics(
    api: &Api,
    listing: &Listing,
    is_meant: impl Fn(&TopicPermission) -> bool,
) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.topic_permissions().filter(|topic| is_meant(topic));
        wanted.map(|topic| describe_topic(&topology, topic)).collect()
    };
    listing.all(objects, &["vhost", "user", "exchange"])
}

/// `GET /api/permissions`
async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, &listing, |_| true)
}

/// `GET /api/vhosts/VHOST/permissions`
async fn list_in(State(api): Shared, Path(vhost): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, &listing, |permission| permission.vhost == vhost)
}

/// `GET /api/users/USER/permissions`
pub(super) async fn list_of_user(
    State(api): Shared,
    Path(user): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    check_user(&api, &user)?;
    answer(&api, &listing, |permission| *permission.user == *user)
}

/// `GET /api/topic-permissions`
async fn list_topics(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer_topics(&api, &listing, |_| true)
}

/// `GET /api/vhosts/VHOST/topic-permissions`
async fn list_topics_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer_topics(&api, &listing, |topic| topic.vhost == vhost)
}

/// `GET /api/users/USER/topic-permissions`
pub(super) async fn list_topics_of_user(
    State(api): Shared,
    Path(user): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    check_user(&api, &user)?;
    answer_topics(&api, &listing, |topic| *topic.user == *user)
}

/// `GET /api/permissions/VHOST/USER`
async fn show(
    State(api): Shared,
    Path((vhost, user)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    let topology = api.board.topology();
    let permission = topology.permission(vhost, &user).ok_or_else(Refusal::no_object)?;
    Ok(listing.one(describe(&topology, permission)))
}

/// `PUT /api/permissions/VHOST/USER`
async fn set(
    State(api): Shared,
    Path((vhost, user)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    let existed = api.board.topology().permission(vhost, &user).is_some();
    change(&api, IdentityAsk::SetPermission(Box::new(read(vhost, &user, &document)?))).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Reads a permission's JSON form.
pub(super) fn read(vhost: VhostId, user: &str, document: &Document) -> Result<Permission, Refusal> {
    document.require(&["configure", "read", "write"])?;
    let pattern = |key: &str| pattern(document.text(key)?);
    Ok(Permission {
        vhost,
        user: user.into(),
        configure: pattern("configure")?,
        write: pattern("write")?,
        read: pattern("read")?,
    })
}

/// `DELETE /api/permissions/VHOST/USER`
async fn clear(State(api): Shared, Path((vhost, user)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    change(&api, IdentityAsk::ClearPermission { vhost, user }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/topic-permissions/VHOST/USER`
async fn show_topics(
    State(api): Shared,
    Path((vhost, user)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    if !api.board.topology().topic_permissions().any(|topic| topic.vhost == vhost && *topic.user == *user) {
        return Err(Refusal::no_object());
    }
    answer_topics(&api, &listing, |topic| topic.vhost == vhost && *topic.user == *user)
}

/// `PUT /api/topic-permissions/VHOST/USER`
async fn set_topic(
    State(api): Shared,
    Path((vhost, user)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    let topic = read_topic(vhost, &user, &document)?;
    let is_it = |other: &Arc<TopicPermission>| {
        (other.vhost, &other.user, &other.exchange) == (vhost, &topic.user, &topic.exchange)
    };
    let existed = api.board.topology().topic_permissions().any(is_it);
    change(&api, IdentityAsk::SetTopicPermission(topic)).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Reads a topic permission's JSON form.
pub(super) fn read_topic(vhost: VhostId, user: &str, document: &Document) -> Result<TopicPermission, Refusal> {
    document.require(&["exchange", "read", "write"])?;
    let exchange = match document.text("exchange")? {
        "" => "amq.default",
        exchange => exchange,
    };
    let text = |key: &str| {
        let text = document.text(key)?;
        pattern(&text.replace("{username}", "u").replace("{vhost}", "v").replace("{client_id}", "c"))?;
        Ok::<_, Refusal>(text.to_owned())
    };
    let (write, read) = (text("write")?, text("read")?);
    Ok(TopicPermission { vhost, user: user.into(), exchange: exchange.into(), write, read })
}

/// `DELETE /api/topic-permissions/VHOST/USER`
async fn clear_topics(State(api): Shared, Path((vhost, user)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    change(&api, IdentityAsk::ClearTopicPermission { vhost, user, exchange: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/topic-permissions/VHOST/USER/EXCHANGE`
async fn clear_topic(
    State(api): Shared,
    Path((vhost, user, exchange)): Path<(String, String, String)>,
) -> Result<StatusCode, Refusal> {
    let vhost = ends(&api, &vhost, &user)?;
    change(&api, IdentityAsk::ClearTopicPermission { vhost, user, exchange: Some(exchange) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Both must be there.
fn ends(api: &Api, vhost: &str, user: &str) -> Result<VhostId, Refusal> {
    check_user(api, user)?;
    api.vhost(vhost)
}

fn check_user(api: &Api, user: &str) -> Result<(), Refusal> {
    api.board.topology().user(user).map(drop).ok_or_else(Refusal::no_object)
}

fn pattern(source: &str) -> Result<Pattern, Refusal> {
    Pattern::new(source).map_err(|fault| Refusal::bad_request(fault.text))
}

pub(super) fn describe(topology: &Topology, permission: &Permission) -> Value {
    json!({
        "user": &*permission.user,
        "vhost": &**topology.vhost_name(permission.vhost),
        "configure": permission.configure.source(),
        "write": permission.write.source(),
        "read": permission.read.source(),
    })
}

pub(super) fn describe_topic(topology: &Topology, topic: &TopicPermission) -> Value {
    json!({
        "user": &*topic.user,
        "vhost": &**topology.vhost_name(topic.vhost),
        "exchange": &*topic.exchange,
        "write": topic.write,
        "read": topic.read,
    })
}
