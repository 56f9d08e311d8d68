//! Pages from elsewhere that may use the API (`cors_allow_origins`, RabbitMQ's `management.cors`).

use super::{Api, Shared};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// Tells browsers of allowed pages that they may read the answer. What they ask beforehand carries no login and gets none.
pub(super) async fn allow(State(api): Shared, request: Request, next: Next) -> Response {
    let config = api.board.config();
    let Some(origin) = allowed(&config.cors_allow_origins, request.headers()) else { return next.run(request).await };
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_question =
        *request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut answer = if is_question { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = answer.headers_mut();
    // Whoever lets in all pages does not let them use what a browser remembers of a login.
    if origin != "*" {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if is_question {
        let methods = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(config.cors_max_age_s));
        if let Some(wanted) = wanted {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
    answer
}

/// Whether a page from elsewhere may ask for a change: a named one may. Where all may, only by what a browser asks about
/// beforehand, for then it sends no login that it remembers.
pub(super) fn may_change(api: &Api, request: &Request) -> bool {
    let is_asked_about = *request.method() != Method::POST
        || request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
    match allowed(&api.board.config().cors_allow_origins, request.headers()) {
        Some(origin) => origin != "*" || is_asked_about,
        None => false,
    }
}

/// Whether the page that asks is from an origin that is named, and not merely one of all.
pub(super) fn is_named(origins: &[String], headers: &HeaderMap) -> bool {
    allowed(origins, headers).is_some_and(|origin| origin != "*")
}

/// What to name as the allowed origin.
fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    if origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        return Some(origin.clone());
    }
    origins.iter().any(|allowed| allowed == "*").then(|| HeaderValue::from_static("*"))
}
