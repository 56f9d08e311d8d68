//! AMQP over WebSocket, at any path of the HTTP API's ports: whoever asks for an upgrade to it logs in as AMQP clients do.

use super::serving::Below;
use super::{cors, nearness};
use crate::listener;
use crate::open_files::OpenFiles;
use crate::switchboard::Switchboard;
use crate::websocket::{self, ByteStream};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use broker::inspect::TlsView;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The same routes, and WebSocket before them.
pub(super) fn beside(board: &Arc<Switchboard>, routes: Router) -> Router {
    routes.layer(from_fn_with_state(Arc::clone(board), take))
}

async fn take(State(board): State<Arc<Switchboard>>, mut request: Request, next: Next) -> Response {
    let upgrade = request.headers().get(header::UPGRADE);
    if !upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return next.run(request).await;
    }
    let accept = match judge(&request) {
        Ok(accept) => accept,
        Err((status, why)) => return (status, [(header::SEC_WEBSOCKET_VERSION, VERSION)], why).into_response(),
    };
    let headers = request.headers();
    let is_own_name = nearness::is_asked_by_own_name(headers, &board.config());
    let is_led_from_elsewhere = is_led_from_elsewhere(headers) || !is_own_name;
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|list| list.to_str().ok());
    let is_amqp = protocols.flat_map(|list| list.split(',')).any(|protocol| protocol.trim() == "amqp");
    let Some(Below { mut way, is_other, .. }) = request.extensions_mut().remove() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    way.is_led_from_elsewhere = is_led_from_elsewhere;
    if is_led_from_elsewhere && !cors::is_named(&board.config().cors_allow_origins, request.headers()) {
        // The browser shows it whatever page asks: it says nothing of the page.
        way.tls = way.tls.map(|tls| Arc::new(TlsView { certificate: None, ..TlsView::clone(&tls) }));
    }
    let OpenFiles { clients, strangers, .. } = OpenFiles::of(&board);
    // It has its place among HTTP's clients until it has one here: it is never without, however many there are.
    let mut place = board.strangers().enter(way.ends.peer.ip(), strangers).await;
    if board.connections() >= clients {
        return (StatusCode::SERVICE_UNAVAILABLE, "as many clients are connected as there may be").into_response();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // It fails if the client does not wait for the answer.
        let socket = tokio::select! {
            socket = upgrade => socket,
            () = place.sent_away() => return,
        };
        let Ok(socket) = socket else { return };
        is_other.store(true, Ordering::Relaxed);
        listener::host(&board, ByteStream::new(TokioIo::new(socket)), way, place);
    });
    let switched = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, switched).into_response();
    if is_amqp {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("amqp"));
    }
    response
}

/// What to answer a request for a WebSocket with (RFC 6455, section 4.2.1), or why it is none.
fn judge(request: &Request) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let headers = request.headers();
    let connection = headers.get_all(header::CONNECTION).into_iter().filter_map(|list| list.to_str().ok());
    if *request.method() != Method::GET
        || !connection.flat_map(|list| list.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
    {
        return Err((StatusCode::BAD_REQUEST, "a WebSocket is asked for by GET and with \"Connection: Upgrade\""));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is version 13 of WebSocket"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = key.and_then(|key| HeaderValue::from_str(&websocket::accept(key.as_bytes())).ok());
    accept.ok_or((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"))
}

/// Any page may make a browser connect to any address, its own machine's among them; browsers say which page it was.
pub(super) fn is_led_from_elsewhere(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, page)| page);
    page.is_none() || page != host
}

/// The one there is.
const VERSION: &str = "13";
