//! What requests carry in their bodies: JSON objects, of bounded size, that must arrive in time.

use super::refusal::Refusal;
use super::values;
use amqp::Table;
use axum::extract::{FromRequest, Request};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A request's body, a JSON object whatever its content type says. No body is an empty object. Keys that nobody asks
/// for are ignored.
#[derive(Debug)]
pub(super) struct Document(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let body = tokio::time::timeout(BODY_TIME_MAX, body).await.map_err(|_| Refusal::too_slow())?;
        let body = body.map_err(|_| Refusal::bad_request("Payload size limit exceeded"))?;
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(&body) {
            // Large ones are imports and messages, of which the record of changes has nothing.
            Ok(Value::Object(object)) if body.len() > NOTED_BYTES_MAX => Ok(Self(object)),
            Ok(Value::Object(object)) => Ok(Self(object).noted()),
            _ => Err(Refusal::bad_request("not_json")),
        }
    }
}

/// The request for the path without the slash at its end, which is the same one to RabbitMQ.
pub(super) async fn without_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let Some(path) = uri.path().strip_suffix('/').filter(|path| path.starts_with("/api/")) else { return request };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    // What is cut off the end of a path leaves one.
    if let Ok(shorter) = format!("{path}{query}").parse() {
        *request.uri_mut() = shorter;
    }
    request
}

impl Document {
    /// The value under this key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A key that is none of these.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|key| !known.contains(key))
    }

    /// Refuses a document without these keys.
    pub(super) fn require(&self, keys: &[&str]) -> Result<(), Refusal> {
        let missing: Vec<_> = keys.iter().filter(|key| self.get(key).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = missing.iter().map(|key| format!("{{key_missing,{key}}}")).collect();
        Err(Refusal::bad_request(format!("[{}]", missing.join(","))))
    }

    /// A truth value, which old tools send as a string; false when absent.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(other) => Err(Refusal::bad_request(json!(["not_boolean", other]))),
        }
    }

    /// A string; empty when absent.
    pub(super) fn text(&self, key: &str) -> Result<&str, Refusal> {
        match self.get(key) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Refusal::bad_request(json!(["not_string", key]))),
        }
    }

    /// A list of strings, or one string of several with commas between them; empty when absent.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Refusal> {
        let wrong = || Refusal::bad_request(json!(["not_a_list_of_strings", key]));
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => {
                Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            Some(Value::Array(list)) => {
                list.iter().map(|part| part.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// The objects in a list; empty when absent.
    pub(super) fn objects(&self, key: &str) -> Result<Vec<Self>, Refusal> {
        let wrong = || Refusal::bad_request(json!(["not_a_list_of_objects", key]));
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                list.iter().map(|item| item.as_object().cloned().map(Self).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// All of it.
    pub(super) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The document of an object.
    pub(super) fn of(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Its keys and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// An integer, which old tools send as a string.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| Refusal::bad_request(json!(["not_int", key])))
    }

    /// A table of arguments or headers; empty when absent.
    pub(super) fn table(&self, key: &str) -> Result<Table, Refusal> {
        match self.get(key) {
            None => Ok(Table::new()),
            Some(Value::Object(object)) => values::table_from_json(object).map_err(Refusal::bad_request),
            // An empty one, as Erlang-minded tools write it.
            Some(Value::Array(list)) if list.is_empty() => Ok(Table::new()),
            Some(_) => Err(Refusal::bad_request(json!(["not_object", key]))),
        }
    }

    /// An object within; empty when absent.
    pub(super) fn object(&self, key: &str) -> Result<Self, Refusal> {
        match self.get(key) {
            None => Ok(Self(Map::new())),
            Some(Value::Object(object)) => Ok(Self(object.clone())),
            Some(Value::Array(list)) if list.is_empty() => Ok(Self(Map::new())),
            Some(_) => Err(Refusal::bad_request(json!(["not_object", key]))),
        }
    }
}

/// The largest body: a message of 10 MiB, which is RabbitMQ's limit, in Base64 and some more.
const BODY_BYTES_MAX: usize = 20 << 20;

/// Larger ones are not told the record of changes.
const NOTED_BYTES_MAX: usize = 4 << 10;

/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
