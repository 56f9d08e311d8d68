//! What RabbitMQ's API has for clusters, plugins and versions, as one node without plugins answers: the cluster's name,
//! feature flags, deprecated features, logins that were tried, and the memory of the node by purpose.

use super::access::Caller;
use super::refusal::Refusal;
use super::request::Document;
use super::{Api, CLUSTER_NAME, Shared, footprint, users};
use crate::logins::Attempts;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::identity::{IdentityAsk, Parameter};
use serde_json::{Value, json};

/// `GET /api/cluster-name`
pub(super) async fn name(State(api): Shared) -> Json<Value> {
    Json(json!({"name": api.cluster_name()}))
}

/// `PUT /api/cluster-name`, `{"name": …}`: a global parameter, as in RabbitMQ.
pub(super) async fn rename(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    must_be_administrator(&caller)?;
    document.require(&["name"])?;
    let name = document.text("name")?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Refusal::bad_request("name must have from 1 to 255 bytes"));
    }
    let (key, value) = (CLUSTER_NAME.into(), Value::from(name).to_string());
    users::change(&api, IdentityAsk::SetParameter(Parameter { scope: None, name: key, value })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/config/effective`: what the server runs by. Nothing in it is a secret.
pub(super) async fn config(State(api): Shared) -> Json<Value> {
    let (config, alarms) = (api.board.config(), api.board.alarms().view());
    let addresses = api.board.addresses();
    let shown = |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    Json(json!({
        "data_dir": config.data_dir.to_string_lossy(),
        "amqp": shown(&addresses.amqp),
        "http": shown(&addresses.http),
        "metrics": shown(&addresses.metrics),
        "log": format!("{:?}", config.log).to_lowercase(),
        "consumer_timeout_ms": config.consumer_timeout_ms,
        "max_message_bytes": config.max_message_bytes,
        "heartbeat_s": config.heartbeat_s,
        "frame_max": config.frame_max,
        "channel_max": config.channel_max,
        "shards": api.board.shards(),
        "handshake_timeout_ms": config.handshake_timeout_ms,
        "memory_limit": alarms.memory_limit.to_string(),
        "disk_free_limit": alarms.disk_free_limit,
    }))
}

/// `GET /api/extensions`: those of the user interface, of which there are none.
pub(super) async fn extensions() -> Json<Value> {
    Json(json!([]))
}

/// `POST /api/rebalance/queues`: there is one node for all of them.
pub(super) async fn rebalance(Extension(caller): Extension<Caller>) -> Result<StatusCode, Refusal> {
    must_be_administrator(&caller)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/reset`: forgets the samples that rates are measured against.
pub(super) async fn reset(State(api): Shared, Extension(caller): Extension<Caller>) -> Result<StatusCode, Refusal> {
    must_be_administrator(&caller)?;
    api.samples.forget();
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/reset/NODE`
pub(super) async fn reset_node(
    State(api): Shared,
    Path(node): Path<String>,
    caller: Extension<Caller>,
) -> Result<StatusCode, Refusal> {
    must_be_ours(&api, &node)?;
    reset(State(api), caller).await
}

// --- logins -------------------------------------------------------------------------------------------------------

/// `GET /api/auth`: how the user interface logs in.
pub(super) async fn auth() -> Json<Value> {
    Json(json!({"oauth_enabled": false}))
}

/// `GET /api/auth/attempts/NODE`, by protocol.
pub(super) async fn attempts(State(api): Shared, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    must_be_ours(&api, &node)?;
    let counted = api.board.logins().attempts().into_iter().filter(|(_, attempts)| *attempts != Attempts::default());
    let shown = counted.map(|(protocol, Attempts { succeeded, failed })| {
        json!({
            "protocol": protocol,
            "auth_attempts": succeeded + failed,
            "auth_attempts_failed": failed,
            "auth_attempts_succeeded": succeeded,
        })
    });
    Ok(Json(shown.collect()))
}

/// `GET /api/auth/attempts/NODE/source`: nobody's address is remembered, as RabbitMQ does not by default either.
pub(super) async fn attempts_by_source(State(api): Shared, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    must_be_ours(&api, &node)?;
    Ok(Json(json!([])))
}

/// `DELETE /api/auth/attempts/NODE` and `DELETE /api/auth/attempts/NODE/source`
pub(super) async fn forget_attempts(
    State(api): Shared,
    Path(node): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, Refusal> {
    must_be_administrator(&caller)?;
    must_be_ours(&api, &node)?;
    api.board.logins().forget_attempts();
    Ok(StatusCode::NO_CONTENT)
}

// --- versions -----------------------------------------------------------------------------------------------------

/// What RabbitMQ had to switch on once and Leveret always does.
const FEATURE_FLAGS: [(&str, &str); 8] = [
    (
        "detailed_queues_endpoint",
        "Add a detailed queues HTTP API endpoint. Reduce number of metrics in the default endpoint.",
    ),
    ("direct_exchange_routing_v2", "v2 direct exchange routing implementation"),
    ("drop_unroutable_metric", "Count unroutable publishes to be dropped in stats"),
    ("empty_basic_get_metric", "Count AMQP `basic.get` on empty queues in stats"),
    ("implicit_default_bindings", "Default bindings are now implicit, instead of being stored in the database"),
    ("quorum_queue", "Support queues of type `quorum`"),
    ("stream_queue", "Support queues of type `stream`"),
    ("virtual_host_metadata", "Virtual host metadata (description, tags, etc)"),
];

/// `GET /api/feature-flags`
pub(super) async fn feature_flags() -> Json<Value> {
    let describe = |(name, desc): &(&str, &str)| {
        json!({
            "name": name,
            "desc": desc,
            "doc_url": "",
            "state": "enabled",
            "stability": "required",
            "provided_by": "leveret",
        })
    };
    Json(FEATURE_FLAGS.iter().map(describe).collect())
}

/// `PUT /api/feature-flags/NAME/enable`
pub(super) async fn enable_feature_flag(
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, Refusal> {
    must_be_administrator(&caller)?;
    if name == "all" || FEATURE_FLAGS.iter().any(|(known, _)| *known == name) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::bad_request("unsupported"))
}

/// What RabbitMQ deprecates and Leveret has.
const DEPRECATED: [(&str, &str); 2] = [
    ("global_qos", "Feature `global_qos` is deprecated. By default, this feature can still be used for now."),
    (
        "transient_nonexcl_queues",
        "Feature `transient_nonexcl_queues` is deprecated. By default, this feature can still be used for now.",
    ),
];

/// `GET /api/deprecated-features`
pub(super) async fn deprecated() -> Json<Value> {
    Json(DEPRECATED.iter().map(|(name, desc)| describe_deprecated(name, desc)).collect())
}

/// `GET /api/deprecated-features/used`
pub(super) async fn deprecated_used(State(api): Shared) -> Json<Value> {
    let connections = api.board.inspect_connections().await;
    let mut channels = connections.iter().flat_map(|connection| &connection.channels);
    let has_global_qos = channels.any(|channel| channel.prefetch_channel > 0);
    let has_transient = api.board.topology().queues().any(|queue| !queue.durable && queue.owner.is_none());
    let used = DEPRECATED.iter().zip([has_global_qos, has_transient]).filter(|(_, is_used)| *is_used);
    Json(used.map(|((name, desc), _)| describe_deprecated(name, desc)).collect())
}

fn describe_deprecated(name: &str, desc: &str) -> Value {
    json!({
        "name": name,
        "desc": desc,
        "deprecation_phase": "permitted_by_default",
        "doc_url": "",
        "provided_by": "leveret",
        "state": "permitted",
    })
}

// --- memory -------------------------------------------------------------------------------------------------------

/// `GET /api/nodes/NODE/memory`: by the names of RabbitMQ's parts, of which most are Erlang's and take nothing here.
pub(super) async fn memory(State(api): Shared, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    must_be_ours(&api, &node)?;
    Ok(Json(json!({"memory": breakdown(&api).await?})))
}

/// `GET /api/nodes/NODE/memory/ets`: Erlang's tables, which there are none of.
pub(super) async fn memory_ets(State(api): Shared, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    must_be_ours(&api, &node)?;
    Ok(Json(json!({"ets": "not_available"})))
}

/// Memory by purpose. What queues hold is estimated; the rest of what is resident is the program, buffers, and what the
/// allocator keeps.
pub(super) async fn breakdown(api: &Api) -> Result<Value, Refusal> {
    let queues = api.board.inspect_queues().await?;
    let of = |kind: &str| -> u64 {
        queues.iter().filter(|queue| queue.spec.settings.kind.name() == kind).map(|queue| queue.memory).sum()
    };
    let [classic, quorum, stream] = ["classic", "quorum", "stream"].map(of);
    let unsent: u64 = api.board.inspect_connections().await.iter().map(|connection| connection.unsent_bytes).sum();
    let resident = footprint::resident_bytes().unwrap_or(classic + quorum + stream + unsent);
    let rest = resident.saturating_sub(classic + quorum + stream + unsent);
    Ok(json!({
        "connection_readers": 0,
        "connection_writers": unsent,
        "connection_channels": 0,
        "connection_other": 0,
        "queue_procs": classic,
        "quorum_queue_procs": quorum,
        "quorum_queue_dlx_procs": 0,
        "stream_queue_procs": stream,
        "stream_queue_replica_reader_procs": 0,
        "stream_queue_coordinator_procs": 0,
        "plugins": 0,
        "metadata_store": 0,
        "other_proc": 0,
        "metrics": 0,
        "mgmt_db": 0,
        "mnesia": 0,
        "quorum_ets": 0,
        "metadata_store_ets": 0,
        "other_ets": 0,
        "binary": 0,
        "msg_index": 0,
        "code": 0,
        "atom": 0,
        "other_system": rest,
        "allocated_unused": 0,
        "reserved_unallocated": 0,
        "strategy": "rss",
        "total": {"erlang": resident, "rss": resident, "allocated": resident},
    }))
}

pub(super) fn must_be_ours(api: &Api, node: &str) -> Result<(), Refusal> {
    if node == api.node { Ok(()) } else { Err(Refusal::no_object()) }
}

fn must_be_administrator(caller: &Caller) -> Result<(), Refusal> {
    let is_administrator = caller.user.has_tag("administrator");
    if is_administrator { Ok(()) } else { Err(Refusal::not_authorised("Not administrator user")) }
}

const NAME_BYTES_MAX: usize = 255;
