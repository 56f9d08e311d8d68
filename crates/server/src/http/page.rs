//! The page at `/`, and the files below `/static` that it is made of: they are in the binary, and anybody may have them.
//! What they show they ask the API for, as whoever is logged in.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The page's files by their paths.
macro_rules! files {
    ($($path:literal)*) => {
        &[$(($path, include_bytes!(concat!("../../page/", $path)))),*]
    };
}

/// Everything in `page/`: a test compares.
const FILES: &[(&str, &[u8])] = files! {
    "NOTICE"
    "api.js"
    "app.js"
    "chart.js"
    "dialog.js"
    "format.js"
    "graph.js"
    "icon.svg"
    "index.html"
    "live.js"
    "message.js"
    "style.css"
    "table.js"
    "vendor/htm-preact.js"
    "views/access.js"
    "views/audit.js"
    "views/clients.js"
    "views/exchanges.js"
    "views/jobs.js"
    "views/login.js"
    "views/overview.js"
    "views/policies.js"
    "views/queue.js"
    "views/queues.js"
    "views/schedules.js"
    "views/server.js"
};

pub(super) fn routes() -> Router {
    Router::new()
        .route("/", get(async |headers: HeaderMap| file("index.html", &headers)))
        .route("/static/{*path}", get(async |Path(path): Path<String>, headers: HeaderMap| file(&path, &headers)))
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(bytes) = find(path) else { return StatusCode::NOT_FOUND.into_response() };
    let tag = tag(&bytes);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, content_type(path))], bytes).into_response(),
    };
    let all = response.headers_mut();
    for (name, value) in HEADERS {
        all.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        all.insert(header::ETAG, tag);
    }
    response
}

/// Builds that are debugged read the file anew, so that the page can be worked on while the server runs.
fn find(path: &str) -> Option<Cow<'static, [u8]>> {
    let (_, bytes) = FILES.iter().find(|(other, _)| *other == path)?;
    if cfg!(debug_assertions)
        && let Ok(bytes) = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/page/").to_owned() + path)
    {
        return Some(bytes.into());
    }
    Some(Cow::Borrowed(bytes))
}

fn tag(bytes: &[u8]) -> String {
    let mut tag = "\"".to_owned();
    for byte in &Sha256::digest(bytes)[..12] {
        let _infallible = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// Of every answer. The page loads nothing from elsewhere, and nobody may frame it; a browser asks each time whether a
/// file is still the same, so that a new server never runs with an old page.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn walk(folder: &Path, below: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            match entry.path().is_dir() {
                true => walk(&entry.path(), &format!("{path}/"), found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_served_and_no_other() {
        let mut found = Vec::new();
        walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/page")), "", &mut found);
        found.sort();
        assert_eq!(FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>(), found);
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let first = file("index.html", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let headers = [(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())].into_iter().collect();
        assert_eq!(file("index.html", &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file("../Cargo.toml", &headers).status(), StatusCode::NOT_FOUND);
    }
}
