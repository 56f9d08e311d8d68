//! `/api/health/checks` and `/api/aliveness-test`

use super::messages::publish_to_queue;
use super::overview::services;
use super::refusal::{Refusal, succeeded};
use super::routes::{Routes, get};
use super::{Api, Shared};
use crate::open_files::OpenFiles;
use crate::tls;
use amqp::ChannelId;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::command::{CatalogAsk, Command, DeclareQueue, Outcome, Shortage};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// What each check is about, where it can fail at all.
pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/alarms", get(alarms))
        .route("/local-alarms", get(local_alarms))
        .route("/virtual-hosts", get(fine))
        .route("/is-in-service", get(fine))
        .route("/ready-to-serve-clients", get(fine))
        .route("/node-is-quorum-critical", get(quorum_critical))
        .route("/metadata-store/initialized", get(fine))
        .route("/metadata-store/initialized/with-data", get(fine))
        .route("/below-node-connection-limit", get(below_connection_limit))
        .route("/reached-target-cluster-size/{size}", get(reached_cluster_size))
        .route("/certificate-expiration/{within}/{unit}", get(certificate_expiration))
        .route("/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}", get(has_leaders))
        .route("/quorum-queues-without-elected-leaders/vhost/{vhost}/pattern/{pattern}", get(has_leaders_in))
        .route("/port-listener/{port}", get(port_listener))
        .route("/protocol-listener/{protocol}", get(protocol_listener))
}

/// A check's status code and its document.
type Verdict = (StatusCode, Json<Value>);

async fn fine() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /api/healthchecks/node`, RabbitMQ's older check, which probes still ask. A failure's status code is 200, too.
pub(super) async fn node(State(api): Shared) -> Json<Value> {
    let alarms: Vec<_> =
        resources_in_alarm(&api).map(|(atom, _)| format!("{{resource_limit,{atom},{}}}", api.node)).collect();
    if alarms.is_empty() {
        return fine().await;
    }
    let reason = format!("resource alarm(s) in effect:[{}]", alarms.join(","));
    Json(json!({"status": "failed", "reason": reason}))
}

async fn alarms(State(api): Shared) -> Verdict {
    no_alarms(&api, "There are alarms in effect in the cluster")
}

async fn local_alarms(State(api): Shared) -> Verdict {
    no_alarms(&api, "There are alarms in effect on the node")
}

fn no_alarms(api: &Api, reason: &str) -> Verdict {
    let alarms: Vec<_> =
        resources_in_alarm(api).map(|(_, resource)| json!({"node": api.node, "resource": resource})).collect();
    if alarms.is_empty() {
        return (StatusCode::OK, Json(json!({"status": "ok"})));
    }
    let failed = json!({"status": "failed", "reason": reason, "alarms": alarms});
    (StatusCode::SERVICE_UNAVAILABLE, Json(failed))
}

/// What is short, as RabbitMQ's older check names it and as the newer ones do.
fn resources_in_alarm(api: &Api) -> impl Iterator<Item = (&'static str, &'static str)> {
    let Shortage { memory, disk } = api.board.alarms().shortage();
    let all = [(disk, ("disk", "disk space")), (memory, ("memory", "memory"))];
    all.into_iter().filter_map(|(is_short, names)| is_short.then_some(names))
}

async fn quorum_critical() -> Json<Value> {
    Json(json!({"status": "ok", "reason": "single node cluster"}))
}

async fn below_connection_limit(State(api): Shared) -> Verdict {
    let (current, limit) = (api.board.connections(), OpenFiles::of(&api.board).clients);
    if current < limit {
        return (StatusCode::OK, Json(json!({"status": "ok", "current": current, "limit": limit})));
    }
    let reason = "node connection limit is reached";
    let failed = json!({"status": "failed", "reason": reason, "current": current, "limit": limit});
    (StatusCode::SERVICE_UNAVAILABLE, Json(failed))
}

async fn reached_cluster_size(Path(size): Path<String>) -> Result<Verdict, Refusal> {
    let size: u64 = size.parse().map_err(|_| Refusal::bad_request("Invalid cluster size"))?;
    if size <= 1 {
        return Ok((StatusCode::OK, Json(json!({"status": "ok"}))));
    }
    let reason = format!("the cluster has 1 node, and {size} are wanted");
    let failed = json!({"status": "failed", "reason": reason, "cluster_size": 1, "target_cluster_size": size});
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(failed)))
}

/// Looks into the files of the certificates that listeners show.
async fn certificate_expiration(
    State(api): Shared,
    Path((within, unit)): Path<(String, String)>,
) -> Result<Verdict, Refusal> {
    let within: u32 = within.parse().map_err(|_| Refusal::bad_request("Invalid expiration value."))?;
    let days = match unit.as_str() {
        "days" => 1,
        "weeks" => 7,
        "months" => 30,
        "years" => 365,
        _ => return Err(Refusal::bad_request("Time unit not recognised. Use: days, weeks, months, years.")),
    };
    let (config, addresses) = (api.board.config(), api.board.addresses());
    let services = [("amqp/ssl", &config.tls, &addresses.amqps), ("https", &config.https_tls, &addresses.https)];
    let until = SystemTime::now().checked_add(Duration::from_secs(u64::from(within) * days * DAY_S));
    let mut expiring = Vec::new();
    for (protocol, tls, addresses) in services {
        // Small files, and a probe that comes a few times a minute.
        for (file, at, shown) in tls::expiries(&tls.certificates) {
            if until.is_none_or(|until| at <= until) {
                expiring.extend(addresses.iter().map(|address| {
                    json!({
                        "node": api.node,
                        "protocol": protocol,
                        "interface": address.ip().to_string(),
                        "port": address.port(),
                        "certfile": file.to_string_lossy(),
                        "certfile_expires_on": shown,
                    })
                }));
            }
        }
    }
    if expiring.is_empty() {
        return Ok((StatusCode::OK, Json(json!({"status": "ok"}))));
    }
    let failed = json!({"status": "failed", "reason": "Certificates expiring", "expired": expiring});
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(failed)))
}

const DAY_S: u64 = 24 * 3600;

/// A queue that there is has its leader: the one node.
async fn has_leaders(Path(_pattern): Path<String>) -> Json<Value> {
    fine().await
}

async fn has_leaders_in(
    State(api): Shared,
    Path((vhost, _pattern)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    api.vhost(&vhost)?;
    Ok(fine().await)
}

async fn port_listener(State(api): Shared, Path(port): Path<String>) -> Result<Verdict, Refusal> {
    let port: u16 = port.parse().map_err(|_| Refusal::bad_request("Invalid port"))?;
    let mut ports: Vec<_> = services(&api).map(|(_, address)| address.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.contains(&port) {
        return Ok((StatusCode::OK, Json(json!({"status": "ok", "port": port}))));
    }
    let failed = json!({"status": "failed", "reason": NO_LISTENER, "missing": port, "ports": ports});
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(failed)))
}

async fn protocol_listener(State(api): Shared, Path(asked): Path<String>) -> Verdict {
    let protocol = match asked.to_ascii_lowercase().as_str() {
        "amqp" | "amqp091" | "amqp-0-9-1" | "amqp0.9.1" => "amqp".to_owned(),
        other => other.to_owned(),
    };
    let mut protocols: Vec<_> = services(&api).map(|(protocol, _)| protocol).collect();
    protocols.dedup();
    if protocols.contains(&protocol.as_str()) {
        return (StatusCode::OK, Json(json!({"status": "ok", "protocol": protocol})));
    }
    let failed = json!({"status": "failed", "reason": NO_LISTENER, "missing": asked, "protocols": protocols});
    (StatusCode::SERVICE_UNAVAILABLE, Json(failed))
}

/// `GET /api/aliveness-test/VHOST`: a message goes through the queue `aliveness-test`, which stays for the next time.
pub(super) async fn aliveness_test(State(api): Shared, Path(vhost): Path<String>) -> Result<Verdict, Refusal> {
    let vhost = api.vhost(&vhost)?;
    let mut operator = api.operator();
    if api.board.topology().queue(vhost, ALIVENESS_QUEUE).is_none() {
        let declare = DeclareQueue {
            name: ALIVENESS_QUEUE.to_owned(),
            server_named: false,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: amqp::Table::new(),
        };
        succeeded(operator.ask(vhost, CatalogAsk::DeclareQueue(declare)).await?)?;
    }
    let queue = api.board.topology().queue(vhost, ALIVENESS_QUEUE).cloned().ok_or_else(Refusal::no_object)?;
    publish_to_queue(&mut operator, &queue, b"test_message").await?;
    let take = |call| Command::Get { call, channel: ChannelId(1), queue: queue.queue.id, no_ack: true };
    match succeeded(operator.command(queue.queue.shard, take).await?)? {
        Outcome::Got { .. } => Ok((StatusCode::OK, Json(json!({"status": "ok"})))),
        // Two tests at once may take each other's message, but not leave a test without one.
        _ => {
            let failed = json!({"status": "failed", "reason": "the test message did not arrive"});
            Ok((StatusCode::SERVICE_UNAVAILABLE, Json(failed)))
        }
    }
}

const NO_LISTENER: &str = "No active listener";
const ALIVENESS_QUEUE: &str = "aliveness-test";
