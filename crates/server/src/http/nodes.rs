//! `/api/nodes`: the one node, and the limits past which its alarms go on.

use super::access::Caller;
use super::listing::Listing;
use super::refusal::Refusal;
use super::request::Document;
use super::{Api, Shared, overview};
use crate::footprint;
use crate::limits::{MemoryLimit, parse_bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::runtime::Handle;

/// `GET /api/nodes`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    listing.all(vec![describe(&api)], &["name"])
}

/// `GET /api/nodes/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path(name): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    if name != api.node {
        return Err(Refusal::no_object());
    }
    Ok(listing.one(describe(&api)))
}

/// `PUT /api/nodes/NAME/limits`, which RabbitMQ does not have: sets `vm_memory_high_watermark` (`{"relative": 0.4}` or
/// `{"absolute": "512MiB"}`) and `disk_free_limit` (`{"absolute": "2GB"}`, or `{"mem_relative": 1.5}`, a multiple of the
/// memory), whichever is there. They hold until the server stops.
pub(super) async fn limit(
    State(api): Shared,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    if !caller.user.has_tag("administrator") {
        return Err(Refusal::not_authorised("Not administrator user"));
    }
    if name != api.node {
        return Err(Refusal::no_object());
    }
    let memory = document.get("vm_memory_high_watermark").map(memory_limit).transpose()?;
    let disk = document.get("disk_free_limit").map(disk_free_limit).transpose()?;
    if let Some(limit) = memory {
        api.board.set_memory_limit(limit);
    }
    if let Some(bytes) = disk {
        api.board.set_disk_free_limit(bytes);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/nodes/NAME/reload`, which RabbitMQ does not have: reads the configuration anew and answers which keys
/// changed and which take a restart, or 400 with what is wrong; then nothing has changed.
pub(super) async fn reload(
    State(api): Shared,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Refusal> {
    if !caller.user.has_tag("administrator") {
        return Err(Refusal::not_authorised("Not administrator user"));
    }
    if name != api.node {
        return Err(Refusal::no_object());
    }
    let board = Arc::clone(&api.board);
    let reloaded = tokio::task::spawn_blocking(move || board.read_anew()).await;
    let reloaded = reloaded.map_err(|_| Refusal::bad_request("the server stops"))?;
    let reloaded = reloaded.map_err(|why| Refusal::bad_request(why.to_string()))?;
    Ok(Json(json!({"changed": reloaded.changed, "restart": reloaded.restart, "warnings": reloaded.warnings})))
}

fn memory_limit(value: &Value) -> Result<MemoryLimit, Refusal> {
    match (value.get("relative"), value.get("absolute")) {
        (Some(share), None) => share
            .as_f64()
            .and_then(MemoryLimit::share)
            .ok_or_else(|| Refusal::bad_request("vm_memory_high_watermark.relative must be a number from 0 to 1")),
        (None, Some(size)) => absolute(size).map(MemoryLimit::Bytes),
        _ => Err(Refusal::bad_request("vm_memory_high_watermark must have either relative or absolute")),
    }
}

fn disk_free_limit(value: &Value) -> Result<u64, Refusal> {
    match (value.get("mem_relative"), value.get("absolute")) {
        (Some(times), None) => {
            let times = times.as_f64().filter(|times| *times >= 0.0);
            let times = times
                .ok_or_else(|| Refusal::bad_request("disk_free_limit.mem_relative must be a number, at least 0"))?;
            let memory = footprint::memory_bytes();
            let memory =
                memory.ok_or_else(|| Refusal::bad_request("this system does not tell how much memory it has"))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "it is positive, the cast saturates, and a limit need not be exact to the byte"
            )]
            Ok((memory as f64 * times) as u64)
        }
        (None, Some(size)) => absolute(size),
        _ => Err(Refusal::bad_request("disk_free_limit must have either absolute or mem_relative")),
    }
}

fn absolute(size: &Value) -> Result<u64, Refusal> {
    let text = size.as_str().map_or_else(|| size.to_string(), str::to_owned);
    parse_bytes(&text).map_err(Refusal::bad_request)
}

fn describe(api: &Api) -> Value {
    let config = api.board.config();
    let alarms = api.board.alarms().view();
    let tasks = Handle::current().metrics();
    let description = json!({
        "name": api.node,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "uptime": api.board.clock().uptime_ms(),
        "os_pid": std::process::id().to_string(),
        "processors": footprint::processors(),
        "run_queue": tasks.global_queue_depth(),
        // Tasks stand for Erlang's processes. They have no limit, but tools divide by one.
        "proc_used": tasks.num_alive_tasks(),
        "proc_total": i32::MAX,
        "sockets_used": api.board.connections(),
        "mem_alarm": alarms.shortage.memory,
        // As it was set; RabbitMQ says that in its status only.
        "vm_memory_high_watermark": match alarms.memory_limit {
            MemoryLimit::Share { millionths } => json!({"relative": f64::from(millionths) / 1e6}),
            MemoryLimit::Bytes(bytes) => json!({"absolute": bytes}),
        },
        "disk_free_alarm": alarms.shortage.disk,
        "disk_free_limit": alarms.disk_free_limit,
        "rates_mode": "basic",
        "enabled_plugins": PLUGINS,
        "applications": [{
            "name": "leveret",
            "description": overview::PRODUCT,
            "version": overview::VERSION,
        }],
        "auth_mechanisms": config.mechanisms().split(' ').map(mechanism).collect::<Vec<_>>(),
        "exchange_types": overview::exchange_types(),
        "contexts": overview::contexts(api),
        "config_files": [],
        "log_files": ["<stderr>"],
        "db_dir": config.data_dir.to_string_lossy(),
        "partitions": [],
        "cluster_links": [],
        "metrics_gc_queue_length": {},
    });
    let Value::Object(mut object) = description else { return Value::Null };
    put(&mut object, "mem_used", footprint::resident_bytes());
    // Required by tools; where the system does not tell how much memory there is, nothing limits it.
    put(&mut object, "mem_limit", Some(alarms.memory_limit_bytes.unwrap_or(i64::MAX.unsigned_abs())));
    put(&mut object, "fd_used", footprint::open_files());
    let files_max = footprint::files_max().unwrap_or(i64::MAX.unsigned_abs());
    put(&mut object, "fd_total", Some(files_max));
    put(&mut object, "sockets_total", Some(files_max));
    put(&mut object, "disk_free", footprint::disk_free_bytes(&config.data_dir));
    object.into()
}

/// RabbitMQ's plugins whose features are here: tools look for their names.
const PLUGINS: [&str; 9] = [
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_message_deduplication",
    "rabbitmq_prometheus",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",
];

fn mechanism(name: &str) -> Value {
    let description = match name {
        "EXTERNAL" => "SASL EXTERNAL authentication mechanism",
        "PLAIN" => "SASL PLAIN authentication mechanism",
        _ => "AMQPLAIN authentication mechanism",
    };
    json!({"name": name, "description": description, "enabled": true})
}

fn put(object: &mut Map<String, Value>, name: &str, number: Option<u64>) {
    if let Some(number) = number {
        object.insert(name.to_owned(), number.into());
    }
}
