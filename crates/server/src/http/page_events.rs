//! `GET /api/page/events?get=PATH&get=PATH…`: what these paths of the API answer, now and whenever it is something else.
//!
//! The paths are asked by the rights of the stream's caller, each time anew: a stream ends with the login. A view of the
//! page so needs one connection and gets only what changed. It is asked once a second, and less often where answering
//! takes long, so that who looks on costs a tenth of a core at most.

use super::access::LoginNeeded;
use super::refusal::Refusal;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use futures_util::stream;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt as _;

/// Serves streams.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// All of the API but the streams.
    routes: Router,
    places: Arc<Semaphore>,
}

/// One of them.
struct Stream {
    routes: Router,
    /// Of the request: who asks, from where.
    parts: Parts,
    asked: Vec<Asked>,
    next_at: Instant,
    is_over: bool,
    /// `None` until it is known who looks.
    place: Option<OwnedSemaphorePermit>,
}

struct Asked {
    uri: Uri,
    /// The digest of its last answer.
    told: Option<u64>,
}

/// What is told at once.
enum Told {
    /// The paths whose answers changed, and those.
    News(String),
    Nothing,
    /// Nobody is logged in any more.
    Over,
}

/// `GET /api/page/events`
pub(super) async fn open(Extension(streams): Extension<Streams>, request: Request) -> Response {
    streams.open(request).await
}

impl Streams {
    pub(super) fn new(routes: Router) -> Self {
        Self { routes, places: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    async fn open(self, request: Request) -> Response {
        let (parts, _) = request.into_parts();
        let asked = parts.uri.query().unwrap_or_default().split('&');
        let asked: Option<Vec<_>> =
            asked.filter(|pair| !pair.is_empty()).map(|pair| asked_of(pair.strip_prefix("get=")?)).collect();
        let Some(asked) = asked.filter(|asked| (1..=PATHS_MAX).contains(&asked.len())) else {
            return Refusal::bad_request("one path of the API or a few are needed: get=/overview").into_response();
        };
        let mut stream =
            Stream { routes: self.routes, parts, asked, next_at: Instant::now(), is_over: false, place: None };
        // A refusal is told by the status.
        let first = match stream.look().await {
            Told::Over => return Refusal::login_failed().into_response(),
            Told::News(news) => Some(news),
            Told::Nothing => None,
        };
        // Only who is logged in takes a place.
        stream.place = self.places.try_acquire_owned().ok();
        if stream.place.is_none() {
            return (StatusCode::SERVICE_UNAVAILABLE, "as many pages are open as there may be").into_response();
        }
        let events = stream::unfold((stream, first), |(mut stream, first)| async move {
            let event = match first {
                Some(news) => Event::default().data(news),
                None => stream.next().await?,
            };
            Some((Ok::<_, Infallible>(event), (stream, None)))
        });
        let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
        let never = axum::http::HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, never);
        response
    }
}

impl Stream {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        loop {
            sleep_until(self.next_at).await;
            match self.look().await {
                Told::News(news) => return Some(Event::default().data(news)),
                Told::Nothing => {}
                Told::Over => {
                    self.is_over = true;
                    return Some(Event::default().event("over").data("{}"));
                }
            }
        }
    }

    /// Asks all paths.
    async fn look(&mut self) -> Told {
        let begun = Instant::now();
        let mut news = String::new();
        for (index, asked) in self.asked.iter_mut().enumerate() {
            let Ok(response) = self.routes.clone().oneshot(request(&self.parts, &asked.uri)).await;
            if response.extensions().get::<LoginNeeded>().is_some() {
                return Told::Over;
            }
            let mut status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
            let body = body.ok().and_then(|body| String::from_utf8(body.to_vec()).ok());
            let body = body.unwrap_or_else(|| {
                status = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
                "null".to_owned()
            });
            let digest = digest(status, &body);
            if asked.told.replace(digest) == Some(digest) {
                continue;
            }
            let comma = if news.is_empty() { "" } else { "," };
            let body = if body.is_empty() { "null" } else { &body };
            news.push_str(&format!("{comma}[{index},{status},{body}]"));
        }
        self.next_at = begun + PERIOD.max(begun.elapsed() * SHARE);
        if news.is_empty() { Told::Nothing } else { Told::News(format!("[{news}]")) }
    }
}

/// A path of the API, decoded.
fn asked_of(encoded: &str) -> Option<Asked> {
    let path = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    let is_path = path.starts_with('/') && !path.starts_with("/page/events");
    let uri = is_path.then(|| format!("/api{path}").parse().ok())??;
    Some(Asked { uri, told: None })
}

fn request(parts: &Parts, uri: &Uri) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = parts.headers.clone();
    *request.extensions_mut() = parts.extensions.clone();
    request
}

fn digest(status: u16, body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u16(status);
    hasher.write(body.as_bytes());
    hasher.finish()
}

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// A look is followed by so many times as long without one.
const SHARE: u32 = 10;
const STREAMS_MAX: usize = 64;
pub(super) const PATHS_MAX: usize = 8;
const ANSWER_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_never_lead_to_streams_or_elsewhere() {
        let uri = |encoded| asked_of(encoded).map(|asked| asked.uri.to_string());
        assert_eq!(uri("%2Fqueues%2F%252F%2Fq%3Fcolumns%3Dname").unwrap(), "/api/queues/%2F/q?columns=name");
        assert_eq!(uri("/overview").unwrap(), "/api/overview");
        assert_eq!(uri("overview"), None);
        assert_eq!(uri("/page/events?get=/overview"), None);
        assert_eq!(uri("/a b"), None);
    }
}
