//! `/api/openapi.json`: the table of routes as an OpenAPI document.
//!
//! It says what the table knows: paths, methods, names in paths, query strings, whether a document is taken, and how
//! refusals look. The fields of objects are in `docs/http-api.md`.

use super::overview::VERSION;
use super::routes::{Entry, Operation, Routes};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The document, made once.
#[derive(Clone, Debug)]
pub(super) struct Document(Arc<Value>);

impl Document {
    /// Of what needs a login, and of what is open or asks for one itself.
    pub(super) fn of(routes: &Routes, open: &Routes) -> Self {
        Self(Arc::new(document(routes.entries().iter().chain(open.entries()))))
    }
}

/// `GET /api/openapi.json`
pub(super) async fn show(Extension(document): Extension<Document>) -> Json<Value> {
    Json(Value::clone(&document.0))
}

/// The document of these routes.
fn document<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Value {
    let mut paths = Map::new();
    for Entry { path, operation } in entries {
        let methods = paths.entry(format!("/api{path}")).or_insert_with(|| json!({}));
        methods[operation.method] = describe(path, operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leveret",
            "version": VERSION,
            "description": "RabbitMQ's management API as Leveret serves it, and what Leveret adds.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"session": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "leveret-session-15672",
                    "description": "What POST /api/login gives, named after the port. What changes something needs the \
                                    header X-Leveret-Page as well, with any value.",
                },
            },
            "schemas": {
                "Refusal": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "reason": {}},
                    "required": ["error", "reason"],
                },
            },
            "responses": {
                "Refusal": {
                    "description": "A refusal",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
                },
            },
        },
    })
}

fn describe(path: &str, operation: &Operation) -> Value {
    let Operation { method, handler, takes } = *operation;
    let resource = path.split('/').nth(1).unwrap_or_default();
    let mut parameters: Vec<_> = names(path).map(|name| parameter(name, "path", "string")).collect();
    if takes.contains("::listing::Listing") {
        parameters.extend(LISTING.iter().map(|(name, kind)| parameter(name, "query", kind)));
    }
    for (kind, names) in QUERIES {
        if takes.contains(kind) {
            parameters.extend(names.iter().map(|(name, kind)| parameter(name, "query", kind)));
        }
    }
    let mut described = json!({
        "operationId": operation_id(method, path),
        "summary": summary(handler),
        "tags": [resource],
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "It is so, or done"},
            "400": {"$ref": "#/components/responses/Refusal"},
            "401": {"$ref": "#/components/responses/Refusal"},
            "404": {"$ref": "#/components/responses/Refusal"},
        },
    });
    if takes.contains("::request::Document") {
        let content = json!({"application/json": {"schema": {"type": "object"}}});
        described["requestBody"] = json!({"required": false, "content": content});
    }
    if handler.ends_with("::sessions::log_in") {
        let fields = json!({"username": {"type": "string"}, "password": {"type": "string", "format": "password"}});
        let form = json!({"type": "object", "properties": fields, "required": ["username", "password"]});
        described["requestBody"] =
            json!({"required": true, "content": {"application/x-www-form-urlencoded": {"schema": form}}});
        described["security"] = json!([{}]);
    }
    if handler.ends_with("::page_events::open") {
        described["parameters"] = json!([{
            "name": "get",
            "in": "query",
            "description": "A path below /api whose answers are told, now and whenever it is another",
            "required": true,
            "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": super::page_events::PATHS_MAX},
        }]);
        let events = json!({"text/event-stream": {"schema": {"type": "string"}}});
        described["responses"]["2XX"] =
            json!({"description": "Events for as long as the login holds", "content": events});
        described["responses"]["503"] = json!({"description": "As many streams are open as there may be"});
    }
    described
}

/// The names in a path's braces.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn parameter(name: &str, place: &str, kind: &str) -> Value {
    json!({"name": name, "in": place, "required": place == "path", "schema": {"type": kind}})
}

/// `get_queues_vhost_name`: different for each method of each path.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// `queues: list in`, from the name of the function.
fn summary(handler: &str) -> String {
    let mut parts = handler.split("::").filter(|part| !part.starts_with('{') && *part != "routes").collect::<Vec<_>>();
    let function = parts.pop().unwrap_or_default().replace('_', " ");
    match parts.last() {
        Some(module) => format!("{module}: {function}"),
        None => function,
    }
}

/// What the query strings of other operations have, by the type that takes them.
const QUERIES: [(&str, &[(&str, &str)]); 4] = [
    ("::queues::Conditions", &[("if-empty", "boolean"), ("if-unused", "boolean")]),
    ("::leases::Part", &[("from", "integer"), ("count", "integer")]),
    ("::audit::Wanted", &[("page", "integer"), ("page_size", "integer"), ("user", "string")]),
    ("::page_vitals::After", &[("after", "integer")]),
];

/// The query string of lists.
const LISTING: [(&str, &str); 11] = [
    ("columns", "string"),
    ("sort", "string"),
    ("sort_reverse", "boolean"),
    ("page", "integer"),
    ("page_size", "integer"),
    ("name", "string"),
    ("use_regex", "boolean"),
    ("disable_stats", "boolean"),
    ("enable_queue_totals", "boolean"),
    ("msg_rates_age", "integer"),
    ("msg_rates_incr", "integer"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{open_routes, routes};
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let (routes, open) = (routes(), open_routes());
        let entries = || routes.entries().iter().chain(open.entries());
        let served: BTreeSet<_> =
            entries().map(|entry| (format!("/api{}", entry.path), entry.operation.method.to_owned())).collect();
        let document = document(entries());
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(served, described);
        assert!(served.len() > 100, "{}", served.len());
        let ids: BTreeSet<_> = paths
            .values()
            .flat_map(|methods| methods.as_object().unwrap().values())
            .map(|one| one["operationId"].to_string())
            .collect();
        assert_eq!(ids.len(), served.len(), "operations are told apart by their ids");
    }

    #[test]
    fn what_a_handler_takes_is_described() {
        let document = document(routes().entries());
        let declare = &document["paths"]["/api/queues/{vhost}/{name}"]["put"];
        assert!(declare["requestBody"].is_object());
        assert_eq!(declare["parameters"][1], parameter("name", "path", "string"));
        let list = &document["paths"]["/api/queues"]["get"];
        assert_eq!(list["parameters"][0]["name"], "columns");
        assert_eq!((&list["summary"], &list["tags"]), (&json!("queues: list"), &json!(["queues"])));
        assert!(list.get("requestBody").is_none());
    }

    #[test]
    fn logins_and_streams_are_described() {
        let document = document(open_routes().entries());
        let log_in = &document["paths"]["/api/login"]["post"];
        assert!(log_in["requestBody"]["content"]["application/x-www-form-urlencoded"].is_object());
        assert_eq!((&log_in["security"], &log_in["summary"]), (&json!([{}]), &json!("sessions: log in")));
        let events = &document["paths"]["/api/page/events"]["get"];
        assert_eq!(events["parameters"][0]["schema"]["maxItems"], 8);
        assert!(events["responses"]["2XX"]["content"]["text/event-stream"].is_object());
    }
}
