//! Who is asking: Basic authentication, a token or a session's cookie on TCP, none on the local socket, whose file system
//! rights are the login.

use super::audit::Change;
use super::refusal::Refusal;
use super::serving::{Below, Origin};
use super::{Api, Shared, cors, nearness, rights, sessions};
use crate::switchboard::Unanswered;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::{Login, User};
use serde_json::{Value, json};
use std::sync::Arc;

/// The one who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) user: User,
    /// Came through the local socket: may do what RabbitMQ's command line may.
    pub(super) is_local: bool,
}

/// In an answer: nobody is logged in.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoginNeeded;

/// Whether the user may use the API at all.
pub(super) fn is_let_in(user: &User) -> bool {
    TAGS.iter().any(|tag| user.has_tag(tag))
}

/// Lets a request pass with its [`Caller`], or answers 401.
pub(super) async fn admit(State(api): Shared, request: Request, next: Next) -> Response {
    if is_from_another_page(&request) && !cors::may_change(&api, &request) {
        let reason = "a page of another origin asks for a change in the name of its reader";
        return Refusal::not_authorised(reason).into_response();
    }
    let Some(origin) = request.extensions().get::<Origin>().copied() else {
        return Refusal::login_failed().into_response();
    };
    let caller = match origin {
        Origin::Local => {
            let user =
                User { name: "local-operator".into(), tags: vec!["administrator".to_owned()], id: 0, grant: None };
            Caller { user, is_local: true }
        }
        Origin::Tcp(peer) if !request.headers().contains_key(header::AUTHORIZATION) => {
            match sessions::caller(&api, &request, peer.ip()) {
                Ok(Some(user)) => Caller { user, is_local: false },
                Ok(None) if sessions::is_from_page(&request) => {
                    return (Extension(LoginNeeded), Refusal::login_failed()).into_response();
                }
                Ok(None) => return challenge(().into_response()),
                Err(refusal) => return refusal.into_response(),
            }
        }
        Origin::Tcp(peer) => {
            let header = request.headers().get(header::AUTHORIZATION);
            let Some(header) = header else { return challenge(().into_response()) };
            let login = match (bearer(header), credentials(header)) {
                (Some(token), _) => Ok(Login::bearer(token.as_bytes())),
                (None, Some((user, password))) => Login::basic(&user, &password),
                (None, None) => return challenge(Refusal::login_failed().into_response()),
            };
            let judged = match login {
                Ok(login) => {
                    let is_local = nearness::is_local(peer.ip(), request.headers(), &api.board.config());
                    api.board.log_in(login, peer.ip(), is_local).await
                }
                Err(refusal) => Err(refusal),
            };
            match judged {
                Ok(user) => Caller { user, is_local: false },
                Err(refusal) => {
                    tracing::warn!("HTTP access denied to {peer}: {}", refusal.log_text());
                    return challenge(Refusal::login_failed().into_response());
                }
            }
        }
    };
    // Whoever may do nothing here is a stranger still.
    if let Some(below) = request.extensions().get::<Below>().filter(|_| is_let_in(&caller.user)) {
        below.standing.is_known();
    }
    let Some(change) = Change::of(&request) else { return serve(&api, &caller, request, next).await };
    // Whoever asks may hang up: what is begun is done all the same, and recorded.
    let changing = tokio::spawn(async move {
        let serving = serve(&api, &caller, request, next);
        change.record(&api, &caller, origin, serving).await
    });
    changing.await.unwrap_or_else(|_| Refusal::from(Unanswered).into_response())
}

/// Lets it do what it may.
async fn serve(api: &Arc<Api>, caller: &Caller, mut request: Request, next: Next) -> Response {
    if !is_let_in(&caller.user) {
        return Refusal::not_authorised("Not management user").into_response();
    }
    if let Err(refusal) = rights::check(api, caller, request.method(), request.uri().path()) {
        return refusal.into_response();
    }
    request.extensions_mut().insert(caller.view(api));
    request.extensions_mut().insert(caller.clone());
    rights::on_behalf_of(caller.clone(), next.run(request)).await
}

/// `GET /api/whoami`
pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({"name": &*caller.user.name, "tags": caller.user.tags}))
}

/// Browsers send along the login that their user once gave, or that a link names, whoever's page it is that asks. They say
/// when it is another's; what is merely read they do not show to such a page.
fn is_from_another_page(request: &Request) -> bool {
    let site = request.headers().get("sec-fetch-site");
    !request.method().is_safe() && site.is_some_and(|site| !["same-origin", "none"].iter().any(|own| site == own))
}

fn challenge(mut response: Response) -> Response {
    *response.status_mut() = axum::http::StatusCode::UNAUTHORIZED;
    // The realm is RabbitMQ's, since browsers and scripts remember logins by it.
    let realm = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    response.extensions_mut().insert(LoginNeeded);
    response
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|octet| *octet == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

/// Any of these lets a user in.
const TAGS: [&str; 4] = ["administrator", "monitoring", "policymaker", "management"];
