//! `/api/nodes`: the one node.

use super::listing::Listing;
use super::refusal::Refusal;
use super::{Api, Shared, footprint, overview};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
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

fn describe(api: &Api) -> Value {
    let config = api.board.config();
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
        "mem_alarm": false,
        "disk_free_alarm": false,
        // No limit is set: the log's own failure stops the server.
        "disk_free_limit": 0,
        "rates_mode": "basic",
        "enabled_plugins": [],
        "applications": [{
            "name": "leveret",
            "description": overview::PRODUCT,
            "version": overview::VERSION,
        }],
        "auth_mechanisms": [
            {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true},
            {"name": "AMQPLAIN", "description": "AMQPLAIN authentication mechanism", "enabled": true},
        ],
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
    put(&mut object, "mem_limit", Some(footprint::memory_bytes().unwrap_or(i64::MAX.unsigned_abs())));
    put(&mut object, "fd_used", footprint::open_files());
    let files_max = footprint::files_max().unwrap_or(i64::MAX.unsigned_abs());
    put(&mut object, "fd_total", Some(files_max));
    put(&mut object, "sockets_total", Some(files_max));
    put(&mut object, "disk_free", footprint::disk_free_bytes(&config.data_dir));
    object.into()
}

fn put(object: &mut Map<String, Value>, name: &str, number: Option<u64>) {
    if let Some(number) = number {
        object.insert(name.to_owned(), number.into());
    }
}
