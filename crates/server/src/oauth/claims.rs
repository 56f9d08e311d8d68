//! What a token that is to be believed says: of whom, for whom, how long, and what they may do. Pure.

use crate::config::OAuth2;
use broker::access::User;
use broker::grant::{Grant, LEEWAY_S};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The user that these claims are of.
///
/// # Errors
/// Why they are nobody's here, for the log.
pub(crate) fn user(claims: &Map<String, Value>, config: &OAuth2, now_s: u64) -> Result<User, String> {
    let expires_s = time(claims, "exp")?.ok_or("Provided JWT token has no exp claim")?;
    if expires_s + LEEWAY_S <= now_s {
        return Err(format!("Provided JWT token has expired at timestamp {expires_s} (validated at {now_s})"));
    }
    if let Some(begins_s) = time(claims, "nbf")?.filter(|begins_s| *begins_s > now_s + LEEWAY_S) {
        return Err(format!("it is good from timestamp {begins_s} on, and now is {now_s}"));
    }
    let server = &config.resource_server_id;
    if config.verify_aud && !audience(claims).contains(&server.as_str()) {
        return Err(format!("its audience (aud) does not have {server:?}, which oauth2.resource_server_id says"));
    }
    let mut scopes = BTreeSet::new();
    let mut tags = Vec::new();
    let prefix = config.scope_prefix.clone().unwrap_or_else(|| format!("{server}."));
    for scope in all_scopes(claims, config) {
        let Some(scope) = scope.strip_prefix(&prefix) else { continue };
        match scope.strip_prefix("tag:") {
            Some(tag) => tags.push(tag.to_owned()),
            None => drop(scopes.insert(with_claims(scope, claims))),
        }
        if scopes.len() + tags.len() > SCOPES_MAX {
            return Err(format!("it has more than {SCOPES_MAX} scopes"));
        }
    }
    let named = config.preferred_username_claims.iter().map(String::as_str).chain(["sub", "client_id"]);
    let name = named.filter_map(|claim| claims.get(claim)?.as_str()).find(|name| !name.is_empty());
    let name = name.unwrap_or("unknown");
    if name.len() > 255 || name.chars().any(char::is_control) {
        return Err("its user's name is longer than 255 bytes, or has control characters".to_owned());
    }
    tags.sort();
    tags.dedup();
    let grant = Grant::new(scopes.into_iter().collect(), expires_s);
    // No user of the server itself has this id, whatever the name.
    Ok(User { name: name.into(), tags, id: u64::MAX, grant: Some(Arc::new(grant)) })
}

/// A point in time, in seconds. One that is none refuses the token: to take it for absent would make it good for ever.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "parts of a second do not count")]
    let whole = |seconds: f64| (0.0..1e15).contains(&seconds).then_some(seconds as u64);
    let seconds = value.as_u64().filter(|seconds| *seconds < 1 << 50).or_else(|| value.as_f64().and_then(whole));
    seconds.map(Some).ok_or_else(|| format!("Provided JWT token has an invalid {name} claim: value is not a number"))
}

fn audience(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Those of `scope`, of a requesting party token (Keycloak), of the claims that are configured, and what they stand for.
fn all_scopes(claims: &Map<String, Value>, config: &OAuth2) -> Vec<String> {
    let mut found = Vec::new();
    let paths = config.additional_scopes_key.as_deref().unwrap_or_default().split(' ');
    for path in ["scope", "authorization.permissions.scopes"].into_iter().chain(paths).filter(|path| !path.is_empty()) {
        let keys: Vec<_> = path.split('.').filter(|key| !key.is_empty()).collect();
        if let Some((first, rest)) = keys.split_first()
            && let Some(value) = claims.get(*first)
        {
            scopes_at(value, rest, &config.resource_server_id, &mut found);
        }
    }
    let aliases: Vec<_> = found.iter().filter_map(|scope| config.scope_aliases.get(scope)).collect();
    let more: Vec<_> = aliases.into_iter().flat_map(|alias| alias.scopes()).map(str::to_owned).collect();
    found.extend(more);
    found
}

/// A list or a string, or an object that has either for each server; each element of a list on the way counts.
fn scopes_at(value: &Value, path: &[&str], server: &str, found: &mut Vec<String>) {
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match (value, path) {
        (Value::Object(object), [first, rest @ ..]) => {
            if let Some(value) = object.get(*first) {
                scopes_at(value, rest, server, found);
            }
        }
        (Value::Array(list), [_, ..]) => list.iter().for_each(|value| scopes_at(value, path, server, found)),
        (Value::String(text), []) => found.extend(words(text)),
        (Value::Array(list), []) => found.extend(list.iter().filter_map(Value::as_str).map(str::to_owned)),
        (Value::Object(object), []) => {
            let of_server = match object.get(server) {
                Some(Value::String(text)) => words(text),
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            found.extend(of_server.iter().map(|scope| format!("{server}.{scope}")));
        }
        _ => {}
    }
}

/// `{sub}` is what that claim says, literally: a user who may choose their name chooses no rights with it.
fn with_claims(scope: &str, claims: &Map<String, Value>) -> String {
    let mut out = String::new();
    let mut rest = scope;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, behind)) => {
                match claims.get(name).and_then(Value::as_str).filter(|_| name != "vhost") {
                    Some(value) => {
                        let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                        out.extend(encoded);
                    }
                    None => out.push_str(&format!("{{{name}}}")),
                }
                rest = behind;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

/// RabbitMQ's bound.
const SCOPES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(text: &str) -> OAuth2 {
        toml::from_str(&format!("resource_server_id = 'rabbitmq'\n{text}")).unwrap()
    }

    fn judged(claims: Value, settings: &str) -> Result<User, String> {
        user(claims.as_object().unwrap(), &config(settings), 1000)
    }

    fn grant(scopes: &[&str]) -> Option<Arc<Grant>> {
        Some(Arc::new(Grant::new(scopes.iter().map(|scope| (*scope).to_owned()).collect(), 2000)))
    }

    #[test]
    fn scopes_are_a_string_or_a_list_and_only_those_of_this_server_count() {
        for scope in [
            json!("rabbitmq.read:*/* other.write:*/*  rabbitmq.tag:administrator"),
            json!(["rabbitmq.read:*/*", "other.write:*/*", "rabbitmq.tag:administrator", 7]),
        ] {
            let user = judged(json!({"exp": 2000, "aud": "rabbitmq", "sub": "app", "scope": scope}), "").unwrap();
            assert_eq!((&*user.name, user.tags), ("app", vec!["administrator".to_owned()]));
            assert_eq!(user.grant, grant(&["read:*/*"]));
        }
        let without =
            judged(json!({"exp": 2000, "aud": "rabbitmq", "scope": "read:*/*"}), "scope_prefix = ''").unwrap();
        assert_eq!((&*without.name, without.grant), ("unknown", grant(&["read:*/*"])));
    }

    #[test]
    fn scopes_are_looked_for_where_issuers_put_them() {
        let base = |more: Value| {
            let mut claims = json!({"exp": 2000, "aud": ["x", "rabbitmq"]});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        let scopes = |more: Value, settings: &str| judged(base(more), settings).unwrap().grant;
        let read = grant(&["read:*/*"]);
        let rpt = json!({"authorization": {"permissions": [{"scopes": ["rabbitmq.read:*/*"]}, {"rsid": 1}]}});
        assert_eq!(scopes(rpt, ""), read);
        let roles = json!({"realm_access": {"roles": ["rabbitmq.read:*/*"]}, "extra": "x"});
        assert_eq!(scopes(roles, "additional_scopes_key = 'extra realm_access.roles missing.one'"), read);
        let by_server = json!({"roles": {"rabbitmq": "read:*/*", "other": "write:*/*"}});
        assert_eq!(scopes(by_server, "additional_scopes_key = 'roles'"), read);
        let aliases =
            "[scope_aliases]\nreader = 'rabbitmq.read:*/*'\nboth = ['rabbitmq.read:*/*', 'rabbitmq.write:*/*']";
        assert_eq!(scopes(json!({"scope": "reader"}), aliases), read);
        assert_eq!(scopes(json!({"scope": "both"}), aliases), grant(&["read:*/*", "write:*/*"]));
        assert_eq!(
            scopes(json!({"scope": "rabbitmq.reader"}), aliases),
            grant(&["reader"]),
            "an alias is a whole scope"
        );
    }

    #[test]
    fn who_somebody_is_is_told_by_the_first_claim_that_there_is() {
        let name = |settings| {
            let claims = json!({"exp": 2000, "aud": "rabbitmq", "client_id": "c", "sub": "s", "email": "e@x", "n": 1});
            judged(claims, settings).unwrap().name.to_string()
        };
        assert_eq!(name(""), "s");
        assert_eq!(name("preferred_username_claims = ['n', 'email']"), "e@x");
    }

    #[test]
    fn a_claim_in_a_scope_stands_for_itself() {
        let claims =
            json!({"exp": 2000, "aud": "rabbitmq", "sub": "a*/b", "scope": "rabbitmq.read:{vhost}/{sub}.{no}"});
        assert_eq!(judged(claims, "").unwrap().grant, grant(&["read:{vhost}/a%2A%2Fb.{no}"]));
    }

    #[test]
    fn a_token_that_is_not_for_here_or_now_is_refused() {
        for (claims, why) in [
            (json!({"aud": "rabbitmq"}), "has no exp claim"),
            (json!({"exp": "2000", "aud": "rabbitmq"}), "invalid exp claim"),
            (json!({"exp": null, "aud": "rabbitmq"}), "invalid exp claim"),
            (json!({"exp": -1, "aud": "rabbitmq"}), "invalid exp claim"),
            (json!({"exp": 1e300, "aud": "rabbitmq"}), "invalid exp claim"),
            (json!({"exp": 995, "aud": "rabbitmq"}), "expired at timestamp 995 (validated at 1000)"),
            (json!({"exp": 2000, "nbf": 1006, "aud": "rabbitmq"}), "good from timestamp 1006"),
            (json!({"exp": 2000, "nbf": [], "aud": "rabbitmq"}), "invalid nbf claim"),
            (json!({"exp": 2000}), "audience"),
            (json!({"exp": 2000, "aud": "rabbitmq2"}), "audience"),
            (json!({"exp": 2000, "aud": ["other", 1]}), "audience"),
            (json!({"exp": 2000, "aud": {"rabbitmq": 1}}), "audience"),
            (json!({"exp": 2000, "aud": "rabbitmq", "sub": "a\nb"}), "control characters"),
            (json!({"exp": 2000, "aud": "rabbitmq", "sub": "x".repeat(256)}), "longer than 255"),
        ] {
            let refused = judged(claims.clone(), "").unwrap_err();
            assert!(refused.contains(why), "{claims}: {refused}");
        }
        for claims in [
            json!({"exp": 996, "nbf": 1005, "aud": "other rabbitmq"}),
            json!({"exp": 996.5, "aud": ["other", "rabbitmq"]}),
        ] {
            assert!(judged(claims, "").is_ok(), "clocks may be a little apart");
        }
        assert!(judged(json!({"exp": 2000}), "verify_aud = false").is_ok());
        let many: Vec<_> = (0..=SCOPES_MAX).map(|number| format!("rabbitmq.read:*/{number}")).collect();
        assert!(judged(json!({"exp": 2000, "aud": "rabbitmq", "scope": many}), "").unwrap_err().contains("2048"));
    }
}
