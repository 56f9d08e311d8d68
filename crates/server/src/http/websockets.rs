//! AMQP over WebSocket, at any path of the HTTP API's ports: whoever asks for an upgrade to it logs in as AMQP clients do.

use super::serving::Below;
use crate::listener;
use crate::open_files::OpenFiles;
use crate::switchboard::Switchboard;
use crate::websocket::ByteStream;
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The same routes, and WebSocket before them.
pub(super) fn beside(board: &Arc<Switchboard>, routes: Router) -> Router {
    routes.layer(from_fn_with_state(Arc::clone(board), take))
}

async fn take(State(board): State<Arc<Switchboard>>, request: Request, next: Next) -> Response {
    let upgrade = request.headers().get(header::UPGRADE);
    if !upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return next.run(request).await;
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(Below { mut way, is_other }) = parts.extensions.remove() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    way.is_led_from_elsewhere = is_led_from_elsewhere(&parts.headers);
    if board.connections() >= OpenFiles::of(&board).clients {
        return (StatusCode::SERVICE_UNAVAILABLE, "as many clients are connected as there may be").into_response();
    }
    let frame_max = usize::try_from(board.config().frame_max).unwrap_or(usize::MAX);
    let message_max = frame_max.max(MESSAGE_BYTES_MAX);
    upgrade
        .protocols(["amqp"])
        .read_buffer_size(READ_BYTES)
        .max_frame_size(message_max)
        .max_message_size(message_max)
        // What AMQP has to say comes in batches and goes out at once; what the socket does not take is not taken from AMQP.
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            is_other.store(true, Ordering::Relaxed);
            listener::host(&board, ByteStream::new(socket), way);
        })
}

/// Any page may make a browser connect to any address, its own machine's among them; browsers say which page it was.
pub(super) fn is_led_from_elsewhere(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, page)| page);
    page.is_none() || page != host
}

/// What is read at once: clients send a frame or a few.
const READ_BYTES: usize = 16 << 10;

/// What a client may put into one message, unless its frames may be larger: more than any gathers.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Two of our messages: one is sent while the next is made.
const WRITE_BYTES_MAX: usize = 160 << 10;
