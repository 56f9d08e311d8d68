//! `/api/users`, and what goes with them: passwords.

use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::routes::{Routes, get, post};
use super::{Api, Shared, permissions};
use crate::passwords;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::access::Login;
use broker::command::{CatalogAsk, Outcome, VhostId};
use broker::identity::{HashAlgorithm, IdentityAsk, PasswordHash, UserLimits, UserRecord};
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/users", get(list))
        .route("/users/bulk-delete", post(delete_many))
        .route("/users/without-permissions", get(list_without_permissions))
        .route("/users/{user}", get(show).put(set).delete(delete))
        .route("/users/{user}/authenticate", post(authenticate))
        .route("/users/{user}/permissions", get(permissions::list_of_user))
        .route("/users/{user}/topic-permissions", get(permissions::list_topics_of_user))
        .route("/auth/hash_password/{password}", get(hash_password))
}

/// `GET /api/users`
async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let objects = api.board.topology().users().map(|user| describe(user)).collect();
    listing.all(objects, &["name"])
}

/// `GET /api/users/without-permissions`
async fn list_without_permissions(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let has_any = |user: &UserRecord| topology.permissions().any(|permission| permission.user == user.name);
        topology.users().filter(|user| !has_any(user)).map(|user| describe(user)).collect()
    };
    listing.all(objects, &["name"])
}

/// `GET /api/users/NAME`
async fn show(State(api): Shared, Path(name): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    let user = api.board.topology().user(&name).map(|user| describe(user)).ok_or_else(Refusal::no_object)?;
    Ok(listing.one(user))
}

/// `PUT /api/users/NAME`
async fn set(State(api): Shared, Path(name): Path<String>, document: Document) -> Result<StatusCode, Refusal> {
    let existed = api.board.topology().user(&name).is_some();
    let ask = read(&name, &document, existed).await?;
    change(&api, ask).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Reads a user's JSON form, as the API and definitions have it.
pub(super) async fn read(name: &str, document: &Document, existed: bool) -> Result<IdentityAsk, Refusal> {
    let keeps = existed && document.get("keep_password").is_some();
    if document.get("tags").is_none() && !keeps {
        return Err(Refusal::bad_request("tags_not_present"));
    }
    let tags = document.get("tags").map(|_| document.texts("tags")).transpose()?;
    let password = match (document.get("password"), document.get("password_hash")) {
        (Some(_), Some(_)) => return Err(Refusal::bad_request("both_password_and_password_hash_are_provided")),
        (Some(_), None) => match document.text("password")? {
            "" => None,
            password => Some(hashed(password).await?),
        },
        (None, Some(_)) => match document.text("password_hash")? {
            "" => None,
            text => Some(hash(text, document.text("hashing_algorithm")?)?),
        },
        (None, None) if keeps => {
            return Ok(IdentityAsk::PutUser { name: name.to_owned(), password: None, tags, limits: None });
        }
        (None, None) => None,
    };
    Ok(IdentityAsk::PutUser { name: name.to_owned(), password: Some(password), tags, limits: None })
}

/// Hashes a password where it keeps nobody waiting.
async fn hashed(password: &str) -> Result<PasswordHash, Refusal> {
    let password = password.to_owned();
    let hashed = tokio::task::spawn_blocking(move || passwords::hashed(password.as_bytes())).await;
    match hashed {
        Ok(Ok(hash)) => Ok(hash),
        _ => Err(Refusal::bad_request("the server cannot hash passwords: the system gives no random bytes")),
    }
}

fn hash(text: &str, algorithm: &str) -> Result<PasswordHash, Refusal> {
    let algorithm = match algorithm {
        "" => HashAlgorithm::Sha256,
        name => HashAlgorithm::named(name)
            .ok_or_else(|| Refusal::bad_request(format!("unknown hashing_algorithm '{name}'")))?,
    };
    let hash = PasswordHash { algorithm, text: passwords::read(algorithm, text) };
    if !passwords::is_sound(&hash) {
        return Err(Refusal::bad_request(format!("password_hash is no hash of {}", algorithm.name())));
    }
    Ok(hash)
}

/// `DELETE /api/users/NAME`
async fn delete(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    change(&api, IdentityAsk::DeleteUser { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/users/bulk-delete`
async fn delete_many(State(api): Shared, document: Document) -> Result<StatusCode, Refusal> {
    document.require(&["users"])?;
    for name in document.texts("users")? {
        ask(&api, IdentityAsk::DeleteUser { name }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/users/NAME/authenticate`: whether this is the password.
async fn authenticate(State(api): Shared, Path(name): Path<String>, document: Document) -> Result<StatusCode, Refusal> {
    let judged = match Login::basic(&name, document.text("password")?.as_bytes()) {
        Ok(login) => api.board.log_in(login, Ipv4Addr::LOCALHOST.into(), true).await,
        Err(refusal) => Err(refusal),
    };
    judged.map(|_| StatusCode::NO_CONTENT).map_err(|_| Refusal::bad_request("failed to authenticate"))
}

/// `GET /api/auth/hash_password/PASSWORD`
async fn hash_password(Path(password): Path<String>) -> Result<Json<Value>, Refusal> {
    let hash = passwords::hashed_for_rabbitmq(password.as_bytes());
    let hash = hash.map_err(|_| Refusal::bad_request("the system gives no random bytes"))?;
    Ok(Json(json!({"ok": hash})))
}

pub(super) fn describe(user: &UserRecord) -> Value {
    let (hash, algorithm) = match &user.password {
        Some(password) => (passwords::shown(password), password.algorithm.name()),
        None => (String::new(), HashAlgorithm::Sha256.name()),
    };
    json!({
        "name": &*user.name,
        "password_hash": hash,
        "hashing_algorithm": algorithm,
        "tags": user.tags,
        "limits": limits(user.limits),
    })
}

/// A user's limits that are set.
pub(super) fn limits(limits: UserLimits) -> Map<String, Value> {
    let all = [("max-connections", limits.max_connections), ("max-channels", limits.max_channels)];
    all.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect()
}

/// Asks for a change of vhosts, users or permissions.
pub(super) async fn ask(api: &Arc<Api>, ask: IdentityAsk) -> Result<Outcome, Refusal> {
    Ok(api.operator().ask(VhostId(0), CatalogAsk::Identity(Box::new(ask))).await?)
}

/// The same, of something that is there.
pub(super) async fn change(api: &Arc<Api>, wanted: IdentityAsk) -> Result<(), Refusal> {
    succeeded(ask(api, wanted).await?).map(drop)
}
