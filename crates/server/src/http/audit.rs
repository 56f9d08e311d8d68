//! What requests leave in the record of changes ([`crate::audit`]), and `/api/audit`, which RabbitMQ does not have.

use super::access::Caller;
use super::refusal::Refusal;
use super::request::Document;
use super::serving::Origin;
use super::{Api, Shared};
use crate::audit::{Entry, Line};
use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;

tokio::task_local! {
    /// What the request's body says that may be kept.
    static DETAILS: RefCell<Option<Value>>;
}

/// A change that somebody asks for.
pub(super) struct Change {
    method: Method,
    path: String,
}

impl Change {
    /// `None` for what only looks, or works with messages as clients do.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let looks = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
        (!looks && !works(&path)).then_some(Self { method, path })
    }

    /// Serves the request and records what came of it.
    pub(super) async fn record<F: Future<Output = axum::response::Response>>(
        self,
        api: &Arc<Api>,
        caller: &Caller,
        origin: Origin,
        serving: F,
    ) -> F::Output {
        let (answer, details) = DETAILS
            .scope(RefCell::new(None), async {
                let answer = serving.await;
                (answer, DETAILS.with(|details| details.borrow_mut().take()))
            })
            .await;
        let status = answer.status();
        let outcome = if status.is_success() { "done".to_owned() } else { format!("refused: {status}") };
        // Of what is not there nothing is changed, and it is often looked for so.
        if status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED {
            let details = details.and_then(|document| shown(&self.path, document));
            let peer = match origin {
                Origin::Local => "local".to_owned(),
                Origin::Tcp(peer) => peer.to_string(),
            };
            let path: Vec<_> = self.path.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy()).collect();
            let what = format!("{} {}", self.method, path.join("/"));
            let entry = Entry { user: caller.user.name.to_string(), peer, what, details, outcome };
            api.board.audit().record(api.board.clock().now().unix_ms, entry).await;
        }
        answer
    }
}

/// Whether what is asked of this path is done by clients, too.
fn works(path: &str) -> bool {
    let segments: Vec<_> = path.split('/').collect();
    matches!(segments[..], ["", "api", "exchanges", _, _, "publish"] | ["", "api", "users", _, "authenticate"])
}

/// Of bodies that have no secrets all, of users their tags, of others nothing.
fn shown(path: &str, document: Value) -> Option<Value> {
    let Value::Object(mut document) = document else { return None };
    match path.split('/').nth(2).unwrap_or_default() {
        "users" => document.retain(|key, _| key == "tags" || key == "users"),
        "permissions" | "topic-permissions" | "policies" | "operator-policies" | "vhost-limits" | "user-limits"
        | "vhosts" | "queues" | "exchanges" | "bindings" | "nodes" | "cluster-name" | "backup" => {}
        _ => return None,
    }
    (!document.is_empty()).then_some(Value::Object(document))
}

/// What of the record is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    page: Option<usize>,
    page_size: Option<usize>,
    user: Option<String>,
}

/// `GET /api/audit`: the newest first. With `page` as RabbitMQ pages its lists.
pub(super) async fn list(State(api): Shared, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Refusal> {
    let size = wanted.page_size.unwrap_or(if wanted.page.is_some() { 100 } else { PAGE_MAX });
    let page = wanted.page.unwrap_or(1);
    if !(1..=PAGE_MAX).contains(&size) || !(1..=1 << 20).contains(&page) {
        return Err(Refusal::bad_request(format!("page counts from 1, and page_size is from 1 to {PAGE_MAX}")));
    }
    let (audit, clients) = (Arc::clone(api.board.audit()), Arc::clone(api.board.client_audit()));
    let user = wanted.user;
    let read = tokio::task::spawn_blocking(move || {
        let (mut lines, mut total) = audit.read(page * size, user.as_deref());
        let (more, more_total) = clients.read(page * size, user.as_deref());
        lines.extend(more);
        total += more_total;
        // Of one moment, what came later stands first.
        lines.sort_by(|one, other| other.time.cmp(&one.time));
        (lines.iter().skip((page - 1) * size).take(size).map(Line::parsed).collect::<Vec<_>>(), total)
    });
    let (items, total) = read.await.map_err(|_| Refusal::bad_request("the server stops"))?;
    if wanted.page.is_none() {
        return Ok(Json(Value::Array(items)));
    }
    Ok(Json(json!({
        "filtered_count": total,
        "item_count": items.len(),
        "items": items,
        "page": page,
        "page_count": total.div_ceil(size),
        "page_size": size,
        "total_count": total,
    })))
}

impl Document {
    /// Tells the record of changes what it says, until it is known what it is for.
    pub(super) fn noted(self) -> Self {
        let _looks = DETAILS.try_with(|details| *details.borrow_mut() = Some(Value::Object(self.as_map().clone())));
        self
    }
}

const PAGE_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_does_not_hang_on_the_names_of_things() {
        let is_recorded = |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
            Change::of(&request).is_some()
        };
        for name in ["publish", "authenticate", "login"] {
            for of in ["users", "queues/%2F", "exchanges/%2F", "parameters/shovel/%2F", "permissions/%2F"] {
                assert!(is_recorded(Method::PUT, &format!("/api/{of}/{name}")), "{of}/{name}");
            }
        }
        assert!(!is_recorded(Method::POST, "/api/exchanges/%2F/amq.default/publish"));
        assert!(!is_recorded(Method::POST, "/api/users/app/authenticate"));
        assert!(!is_recorded(Method::GET, "/api/users"));
    }

    #[test]
    fn nothing_that_may_be_a_secret_is_kept() {
        let kept = |path: &str, document: Value| shown(path, document);
        let user = json!({"password": "s3cret", "password_hash": "x", "hashing_algorithm": "y", "tags": "management"});
        assert_eq!(kept("/api/users/app", user), Some(json!({"tags": "management"})));
        assert_eq!(kept("/api/users/app", json!({"password": "s3cret"})), None);
        assert_eq!(kept("/api/parameters/shovel/%2F/s", json!({"value": {"src-uri": "amqp://u:p@h"}})), None);
        assert_eq!(kept("/api/definitions", json!({"users": []})), None);
        assert_eq!(kept("/api/schedules/%2F/s", json!({"payload": "x"})), None);
        let permission = json!({"configure": "", "write": "", "read": "^q$"});
        assert_eq!(kept("/api/permissions/%2F/app", permission.clone()), Some(permission));
    }
}
