//! `/api/connections`

use super::access::Caller;
use super::consumers::connection_pid;
use super::listing::Listing;
use super::refusal::Refusal;
use super::samples::{Past, octets};
use super::{Api, Shared, message_stats, rights, values};
use amqp::ReplyCode;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use broker::command::Fault;
use broker::inspect::ConnectionView;
use serde_json::{Value, json};

/// `GET /api/connections`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, &listing).await
}

/// `GET /api/vhosts/VHOST/connections`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    api.vhost(&vhost)?;
    answer(&api, Some(&vhost), &listing).await
}

async fn answer(api: &Api, vhost: Option<&str>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let mut connections = api.board.inspect_connections().await;
    connections.retain(|connection| vhost.is_none_or(|vhost| connection.vhost == vhost));
    describe_all(api, &connections, listing)
}

fn describe_all(api: &Api, connections: &[ConnectionView], listing: &Listing) -> Result<Json<Value>, Refusal> {
    let past = api.samples.past(api.board.clock().now().ms);
    // Those that are still being opened are in no vhost yet; RabbitMQ lists none of them either.
    let opened = connections.iter().filter(|connection| !connection.vhost.is_empty());
    let objects = opened.map(|connection| describe(api, connection, &past)).collect();
    listing.all(objects, &["vhost", "name"])
}

/// `GET /api/connections/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path(name): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let connection = find(&api, &name).await?;
    let past = api.samples.past(api.board.clock().now().ms);
    Ok(listing.one(describe(&api, &connection, &past)))
}

/// `DELETE /api/connections/NAME`; the header `X-Reason` is told to the client.
pub(super) async fn close(
    State(api): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let connection = find(&api, &name).await?;
    rights::check_owner(&connection.user, Caller::is_administrator)?;
    tell_to_close(&api, &connection, &headers);
    await_close(&api, &connection).await;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/connections/username/USER`
pub(super) async fn list_of(
    State(api): Shared,
    Path(user): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    rights::check_owner(&user, Caller::is_monitor)?;
    let mut connections = api.board.inspect_connections().await;
    connections.retain(|connection| connection.user == user);
    describe_all(&api, &connections, &listing)
}

/// `DELETE /api/connections/username/USER`; the header `X-Reason` is told to the clients.
pub(super) async fn close_of(
    State(api): Shared,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    rights::check_owner(&user, Caller::is_administrator)?;
    let mut connections = api.board.inspect_connections().await;
    connections.retain(|connection| connection.user == user);
    connections.iter().for_each(|connection| tell_to_close(&api, connection, &headers));
    for connection in &connections {
        await_close(&api, connection).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn tell_to_close(api: &Api, connection: &ConnectionView, headers: &HeaderMap) {
    let reason = headers.get("x-reason").map(|reason| String::from_utf8_lossy(reason.as_bytes()));
    let reason = reason.as_deref().unwrap_or("Closed via management plugin");
    api.board.close_connection(connection.id, Fault::new(ReplyCode::ConnectionForced, reason));
}

async fn await_close(api: &Api, connection: &ConnectionView) {
    // Answered when the client has been told, so that it is gone for whoever looks next; one that reads nothing is
    // not waited for.
    for _look in 0..LOOKS_MAX {
        match find(api, &connection.name).await {
            Ok(still) if still.state != "closing" || still.unsent_bytes > 0 => tokio::task::yield_now().await,
            _ => break,
        }
    }
}

/// How often a connection that is to close is looked at before it is left to itself.
const LOOKS_MAX: usize = 20;

/// The connection of a path.
pub(super) async fn find(api: &Api, name: &str) -> Result<ConnectionView, Refusal> {
    let connections = api.board.inspect_connections().await;
    let found = connections.into_iter().find(|connection| connection.name == name).ok_or_else(Refusal::no_object)?;
    rights::check_owner(&found.user, Caller::is_monitor)?;
    Ok(found)
}

fn describe(api: &Api, connection: &ConnectionView, past: &Past) -> Value {
    let tls = connection.tls.as_deref();
    let certificate = tls.and_then(|tls| tls.certificate.as_ref());
    let description = json!({
        "name": connection.name,
        "pid": connection_pid(connection.id),
        "node": api.node,
        "state": connection.state,
        "type": "network",
        "protocol": "AMQP 0-9-1",
        "user": connection.user,
        "user_who_performed_action": connection.user,
        "vhost": connection.vhost,
        "auth_mechanism": connection.mechanism,
        "ssl": tls.is_some(),
        "ssl_protocol": tls.map(|tls| &tls.protocol),
        "ssl_key_exchange": tls.map(|tls| &tls.key_exchange),
        "ssl_cipher": tls.map(|tls| &tls.cipher),
        "ssl_hash": tls.map(|tls| &tls.hash),
        "peer_cert_subject": certificate.map(|certificate| &certificate.subject),
        "peer_cert_issuer": certificate.map(|certificate| &certificate.issuer),
        "peer_cert_validity": certificate.map(|certificate| &certificate.validity),
        "host": connection.host,
        "port": connection.port,
        "peer_host": connection.peer_host,
        "peer_port": connection.peer_port,
        "channels": connection.channels.len(),
        "channel_max": connection.channel_max,
        "frame_max": connection.frame_max,
        "timeout": connection.heartbeat_s,
        "connected_at": connection.connected_at_unix_ms,
        "client_properties": values::table_to_json(&connection.client_properties),
        "recv_cnt": connection.received_packets,
        "send_cnt": connection.sent_packets,
        "send_pend": connection.unsent_bytes,
    });
    let Value::Object(mut object) = description else { return Value::Null };
    let (now, then) = (octets(connection), past.connection(connection.id));
    message_stats::put(&mut object, "recv_oct", now.received, then.received, past);
    message_stats::put(&mut object, "send_oct", now.sent, then.sent, past);
    object.into()
}
