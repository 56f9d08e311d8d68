//! `/api/login`: a name and a password for a cookie, so that a browser need not keep the password.
//!
//! A session is a random token, of which only the digest is kept, in memory: a restart ends all. It is good for
//! [`LIFETIME`], for as long as its user has the password of the login, and only for requests that this server's own page
//! can make: what changes something needs the header [`PAGE_HEADER`], which no form and no foreign page can send, and a
//! browser that says where a request came from must say that it was here.

use super::refusal::Refusal;
use super::serving::{Below, Origin};
use super::{Api, Shared, access, nearness};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use broker::access::{Login, User};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Everybody who is logged in by a cookie.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Key, Session>>);

/// The digest of a token.
type Key = [u8; 32];

struct Session {
    user: Arc<str>,
    /// Of that user and no later one of the name.
    id: u64,
    /// What the password was checked with: another password ends the session.
    hash: Option<String>,
    /// Who logged in by a token: what it says holds, until it is over, and no user of that name here is meant.
    bearer: Option<User>,
    until: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Sessions {
    fn locked(&self) -> MutexGuard<'_, HashMap<Key, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session's token; `None` where the system gives no random bytes.
    fn begin(&self, user: &User, hash: Option<String>, now: Instant) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let mut token = String::with_capacity(64);
        for byte in random {
            let _infallible = write!(token, "{byte:02x}");
        }
        let mut sessions = self.locked();
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| session.until > now);
        }
        if sessions.len() >= SESSIONS_MAX {
            // Who logged in first has had the longest use of it.
            let oldest = sessions.iter().min_by_key(|(_, session)| session.until).map(|(key, _)| *key);
            oldest.map(|key| sessions.remove(&key));
        }
        let bearer = user.grant.is_some().then(|| user.clone());
        let session = Session { user: Arc::clone(&user.name), id: user.id, hash, bearer, until: now + LIFETIME };
        sessions.insert(key(&token), session);
        Some(token)
    }

    /// Whose token it is.
    fn find(&self, api: &Api, token: &str, peer: IpAddr, now: Instant) -> Option<User> {
        let key = key(token);
        let mut sessions = self.locked();
        let session = sessions.get(&key)?;
        let is_near = peer.is_loopback() || !api.board.config().is_loopback_user(&session.user);
        if let Some(grant) = session.bearer.as_ref().and_then(|user| user.grant.as_ref()) {
            let is_over = grant.is_over(api.board.clock().now().unix_ms / 1000) || api.board.issuer().is_none();
            if session.until <= now || is_over {
                sessions.remove(&key);
                return None;
            }
            return session.bearer.clone().filter(|_| is_near);
        }
        let record = api.board.topology().user(&session.user).cloned();
        let record = record.filter(|_| api.board.config().has_internal_users());
        let record = record.filter(|record| {
            session.until > now
                && record.id == session.id
                && record.password.as_ref().map(|hash| &*hash.text) == session.hash.as_deref()
        });
        let Some(record) = record else {
            sessions.remove(&key);
            return None;
        };
        is_near.then(|| User::from(&*record))
    }

    fn end(&self, token: &str) {
        self.locked().remove(&key(token));
    }
}

fn key(token: &str) -> Key {
    Sha256::digest(token.as_bytes()).into()
}

/// `POST /api/login`, a form with `username` and `password`: 204 and a cookie.
pub(super) async fn log_in(State(api): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Else a foreign page could log somebody in as another.
    if is_led_from_elsewhere(&parts.headers) {
        return elsewhere().into_response();
    }
    let Some(Origin::Tcp(peer)) = parts.extensions.get::<Origin>() else {
        return Refusal::login_failed().into_response();
    };
    let body = match timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Refusal::bad_request("Payload size limit exceeded").into_response(),
        Err(_) => return Refusal::too_slow().into_response(),
    };
    let (user, password) = (field(&body, "username"), field(&body, "password"));
    let (Some(Ok(user)), Some(password)) = (user.map(String::from_utf8), password) else {
        return Refusal::bad_request("a form with username and password is needed").into_response();
    };
    let judged = match Login::basic(&user, &password) {
        Ok(login) => {
            let is_local = nearness::is_local(peer.ip(), &parts.headers, &api.board.config());
            api.board.log_in(login, peer.ip(), is_local).await
        }
        Err(refusal) => Err(refusal),
    };
    let user = match judged {
        Ok(user) => user,
        Err(refusal) => {
            tracing::warn!("HTTP access denied to {peer}: {}", refusal.log_text());
            return Refusal::login_failed().into_response();
        }
    };
    if !access::is_let_in(&user) {
        return Refusal::not_authorised("Not management user").into_response();
    }
    let record = api.board.topology().user(&user.name).cloned();
    let hash = record.and_then(|record| record.password.as_ref().map(|hash| hash.text.clone()));
    let Some(token) = api.sessions.begin(&user, hash, Instant::now()) else {
        return Refusal::not_authorised("This system gives no random bytes, which a session needs").into_response();
    };
    let is_tls = parts.extensions.get::<Below>().is_some_and(|below| below.way.tls.is_some());
    let set = cookie(&name(&parts.headers), &token, LIFETIME, is_tls);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set)]).into_response()
}

/// `DELETE /api/login`: the session is over.
pub(super) async fn log_out(State(api): Shared, request: Request) -> Response {
    let headers = request.headers();
    if let Err(refusal) = check_way(request.method(), headers) {
        return refusal.into_response();
    }
    if let Some(token) = token(headers) {
        api.sessions.end(token);
    }
    let is_tls = request.extensions().get::<Below>().is_some_and(|below| below.way.tls.is_some());
    let set = cookie(&name(headers), "", Duration::ZERO, is_tls);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set)]).into_response()
}

/// Whose session the request belongs to, if to any.
pub(super) fn caller(api: &Api, request: &Request, peer: IpAddr) -> Result<Option<User>, Refusal> {
    let Some(token) = token(request.headers()) else { return Ok(None) };
    let Some(user) = api.sessions.find(api, token, peer, Instant::now()) else { return Ok(None) };
    check_way(request.method(), request.headers())?;
    Ok(Some(user))
}

/// Whether the page of this server asks, which has a login form and wants no browser's.
pub(super) fn is_from_page(request: &Request) -> bool {
    request.headers().contains_key(PAGE_HEADER)
}

/// Refuses what another site may have made the browser send.
fn check_way(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let site = headers.get(SITE_HEADER).map(|site| site.as_bytes());
    let is_here = match site {
        None | Some(b"same-origin") => true,
        // An address that somebody typed.
        Some(b"none") => reads,
        Some(_) => false,
    };
    let is_meant = reads || headers.contains_key(PAGE_HEADER);
    if is_here && is_meant && !is_led_from_elsewhere(headers) { Ok(()) } else { Err(elsewhere()) }
}

fn elsewhere() -> Refusal {
    Refusal::not_authorised("The request did not come from this server's own page")
}

fn is_led_from_elsewhere(headers: &HeaderMap) -> bool {
    let is_cross = headers.get(SITE_HEADER).is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    is_cross || super::websockets::is_led_from_elsewhere(headers)
}

/// Cookies know no ports: those of two servers on one host must not have the same name.
fn name(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.rsplit_once(':')).map(|(_, port)| port);
    match port.filter(|port| !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit())) {
        Some(port) => format!("{COOKIE}-{port}"),
        None => COOKIE.to_owned(),
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let wanted = name(headers);
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, token)| token)
}

fn cookie(name: &str, token: &str, age: Duration, is_tls: bool) -> String {
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{name}={token}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", age.as_secs())
}

/// A field of a form, decoded.
fn field(form: &[u8], name: &str) -> Option<Vec<u8>> {
    let form = str::from_utf8(form).ok()?;
    let value = form.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    Some(percent_decode_str(&value.replace('+', " ")).collect())
}

/// Sent by the page with all that it asks.
const PAGE_HEADER: &str = "x-leveret-page";
/// Where a browser says that a request came from.
const SITE_HEADER: &str = "sec-fetch-site";
const COOKIE: &str = "leveret-session";
/// As long as RabbitMQ's.
const LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);
const SESSIONS_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 16 << 10;
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn user(name: &str) -> User {
        User { name: name.into(), tags: vec![], id: 1, grant: None }
    }

    #[test]
    fn there_are_no_more_sessions_than_may_be_and_the_oldest_goes_first() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.begin(&user("first"), None, now).unwrap();
        for at in 1..=SESSIONS_MAX as u64 {
            sessions.begin(&user("next"), None, now + Duration::from_millis(at)).unwrap();
        }
        assert_eq!(sessions.locked().len(), SESSIONS_MAX);
        assert!(!sessions.locked().contains_key(&key(&first)));
    }

    #[test]
    fn a_token_is_long_and_none_is_given_twice() {
        let sessions = Sessions::default();
        let begin = || sessions.begin(&user("u"), None, Instant::now()).unwrap();
        let (one, other) = (begin(), begin());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }

    #[test]
    fn a_change_needs_the_pages_header_and_nothing_may_come_from_elsewhere() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let ok = |method: &Method, pairs: &[(&'static str, &'static str)]| check_way(method, &headers(pairs)).is_ok();
        let page = (PAGE_HEADER, "1");
        assert!(ok(&Method::GET, &[]));
        assert!(ok(&Method::GET, &[(SITE_HEADER, "none")]));
        assert!(!ok(&Method::GET, &[(SITE_HEADER, "same-site")]));
        assert!(!ok(&Method::GET, &[(SITE_HEADER, "cross-site"), page]));
        assert!(!ok(&Method::PUT, &[]));
        assert!(!ok(&Method::PUT, &[(SITE_HEADER, "same-origin")]));
        assert!(ok(&Method::PUT, &[page]));
        assert!(ok(&Method::DELETE, &[page, (SITE_HEADER, "same-origin")]));
        assert!(!ok(&Method::POST, &[page, (SITE_HEADER, "none")]));
        assert!(!ok(&Method::POST, &[page, ("origin", "http://evil.example"), ("host", "here:15672")]));
        assert!(ok(&Method::POST, &[page, ("origin", "http://here:15672"), ("host", "here:15672")]));
    }

    #[test]
    fn servers_on_one_host_have_cookies_of_their_own() {
        let host = |host: &'static str| -> HeaderMap {
            [(header::HOST, HeaderValue::from_static(host))].into_iter().collect()
        };
        assert_eq!(name(&host("localhost:15672")), "leveret-session-15672");
        assert_eq!(name(&host("[::1]:15673")), "leveret-session-15673");
        for without in ["broker.example", "[::1]", "x:", "x:y;z"] {
            assert_eq!(name(&host(without)), "leveret-session");
        }
    }

    #[test]
    fn fields_of_a_form_are_decoded() {
        assert_eq!(field(b"username=a%26b+c&password=", "username").unwrap(), b"a&b c");
        assert_eq!(field(b"username=a%26b+c&password=", "password").unwrap(), b"");
        assert_eq!(field(b"username=x", "password"), None);
    }
}
