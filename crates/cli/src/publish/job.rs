//! A job on its way to the broker, and what makes one of a body.

use super::duration::Milliseconds;
use amqp::{PropertyList, Table, Value};
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value as Json};
use server::table_from_json;
use std::sync::Arc;

/// A message to be published.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Which one it is, from 1: of the lines, where there are lines.
    pub(super) line: u64,
    /// Of the input up to its end.
    pub(super) check: u32,
    /// How many octets that is.
    pub(super) end: u64,
    pub(super) target: Arc<Target>,
    /// Encoded.
    pub(super) properties: Bytes,
    pub(super) body: Bytes,
}

/// Where messages are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

impl Job {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.properties.len() + self.body.len() + JOB_BYTES
    }

    #[cfg(test)]
    pub(super) fn of_line(line: u64, body: String) -> Self {
        let (target, properties) = (Arc::default(), Bytes::new());
        Self { line, check: 0, end: 0, target, properties, body: body.into() }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.exchange.is_empty() {
            write!(f, "queue {:?}", self.routing_key)
        } else {
            write!(f, "exchange {:?} with the routing key {:?}", self.exchange, self.routing_key)
        }
    }
}

/// What all jobs have unless they say otherwise.
#[derive(Debug)]
pub(super) struct Template {
    target: Arc<Target>,
    list: PropertyList,
    /// Encoded once, for jobs that say nothing.
    encoded: Bytes,
    /// Jobs have an id of this and their number, which they are deduplicated by, too.
    input: Option<String>,
}

impl Template {
    pub(super) fn new(target: Target, list: PropertyList, input: Option<String>) -> Self {
        let encoded = encoded(&list);
        Self { target: Arc::new(target), list, encoded, input }
    }

    /// A job with this body and all else as usual.
    pub(super) fn plain(&self, line: u64, body: Bytes) -> Job {
        let properties = match &self.input {
            None => self.encoded.clone(),
            Some(input) => {
                let mut list = self.list.clone();
                identify(&mut list, input, line);
                encoded(&list)
            }
        };
        Job { line, check: 0, end: 0, target: Arc::clone(&self.target), properties, body }
    }

    /// A job as a JSON object says it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&self, line: u64, text: &[u8]) -> Result<Job, String> {
        let document: Json = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
        let Json::Object(mut document) = document else { return Err("it is no JSON object".to_owned()) };
        let mut list = self.list.clone();
        let mut target = Target::clone(&self.target);
        let body = match (document.remove("body"), document.remove("body_base64")) {
            (Some(Json::String(text)), None) => Bytes::from(text),
            (Some(value), None) => {
                list.content_type.get_or_insert_with(|| b"application/json".to_vec());
                Bytes::from(value.to_string())
            }
            (None, Some(Json::String(text))) => {
                use base64::Engine as _;
                let octets = base64::engine::general_purpose::STANDARD.decode(text);
                Bytes::from(octets.map_err(|error| format!("body_base64 is no base64: {error}"))?)
            }
            (None, Some(_)) => return Err("body_base64 must be a string".to_owned()),
            (None, None) => return Err("it has no body".to_owned()),
            (Some(_), Some(_)) => return Err("body and body_base64 exclude each other".to_owned()),
        };
        if let Some(queue) = document.remove("queue") {
            if document.contains_key("exchange") || document.contains_key("routing_key") {
                return Err("queue, and exchange with routing_key, exclude each other".to_owned());
            }
            target = Target { exchange: String::new(), routing_key: short("queue", &queue)? };
        }
        let mut headers = match document.remove("headers") {
            None => Table::new(),
            Some(Json::Object(headers)) => table_from_json(&headers)?,
            Some(_) => return Err("headers must be an object".to_owned()),
        };
        let mut dedup_key = None;
        for (key, value) in &document {
            let text = || short(key, value).map(String::into_bytes).map(Some);
            match key.as_str() {
                "exchange" => target.exchange = short(key, value)?,
                "routing_key" => target.routing_key = short(key, value)?,
                "content_type" => list.content_type = text()?,
                "content_encoding" => list.content_encoding = text()?,
                "correlation_id" => list.correlation_id = text()?,
                "reply_to" => list.reply_to = text()?,
                "message_id" => list.message_id = text()?,
                "type" => list.kind = text()?,
                "app_id" => list.app_id = text()?,
                "user_id" => list.user_id = text()?,
                "dedup_key" => dedup_key = Some(short(key, value)?),
                "delay" => drop(headers.insert(DELAY, delay_value(time(key, value)?)?)),
                "expiration" => list.expiration = Some(time(key, value)?.0.to_string().into_bytes()),
                "priority" => {
                    let priority = value.as_u64().and_then(|priority| u8::try_from(priority).ok());
                    list.priority = Some(priority.ok_or("priority must be a number from 0 to 255")?);
                }
                "timestamp" => list.timestamp = Some(value.as_u64().ok_or("timestamp must be Unix seconds")?),
                "persistent" => match value {
                    Json::Bool(is_persistent) => list.delivery_mode = Some(if *is_persistent { 2 } else { 1 }),
                    _ => return Err("persistent must be true or false".to_owned()),
                },
                _ => return Err(format!("it has {key:?}, which means nothing here")),
            }
        }
        if let Some(dedup_key) = dedup_key {
            headers.insert(DEDUPLICATION, dedup_key);
        }
        if !headers.is_empty() {
            let all = list.headers.get_or_insert_default();
            headers.into_iter().for_each(|(key, value)| drop(all.insert(key, value)));
        }
        if let Some(input) = &self.input {
            identify(&mut list, input, line);
        }
        let properties = encoded(&list);
        Ok(Job { line, check: 0, end: 0, target: Arc::new(target), properties, body })
    }
}

/// What a job that has no name of its own is called, and deduplicated by.
fn identify(list: &mut PropertyList, input: &str, line: u64) {
    let id = format!("{input}-{line}");
    let headers = list.headers.get_or_insert_default();
    if headers.get(DEDUPLICATION).is_none() {
        headers.insert(DEDUPLICATION, id.as_str());
    }
    list.message_id.get_or_insert_with(|| id.into_bytes());
}

fn encoded(list: &PropertyList) -> Bytes {
    let mut octets = BytesMut::new();
    list.encode(&mut octets);
    octets.freeze()
}

fn short(key: &str, value: &Json) -> Result<String, String> {
    match value {
        Json::String(text) if text.len() <= usize::from(u8::MAX) => Ok(text.clone()),
        _ => Err(format!("{key} must be a string of at most 255 bytes")),
    }
}

/// A number is milliseconds, as in properties.
fn time(key: &str, value: &Json) -> Result<Milliseconds, String> {
    match value {
        Json::String(text) => text.parse().map_err(|why| format!("{key}: {why}")),
        _ => value
            .as_u64()
            .map(Milliseconds)
            .ok_or_else(|| format!("{key} must be milliseconds, or a text such as \"5m\"")),
    }
}

/// As the header `x-delay` has it.
pub(super) fn delay_value(delay: Milliseconds) -> Result<Value, String> {
    i64::try_from(delay.0).map(Value::I64).map_err(|_| "a delay of more than a million years".to_owned())
}

/// A header as it is given: `NAME=TEXT`, or `NAME:=JSON`.
pub(super) fn header(text: &str) -> Result<(String, Value), String> {
    let wrong = || format!("{text:?} is no header: write NAME=TEXT, or NAME:=JSON for numbers, true, false and lists");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let (name, value) = match name.strip_suffix(':') {
        None => (name, Json::String(value.to_owned())),
        Some(name) => (name, serde_json::from_str(value).map_err(|error| format!("the header {name:?}: {error}"))?),
    };
    if name.is_empty() {
        return Err(wrong());
    }
    let one = Map::from_iter([(name.to_owned(), value)]);
    table_from_json(&one)?.into_iter().next().ok_or_else(wrong)
}

pub(super) const DELAY: &str = "x-delay";
pub(super) const DEDUPLICATION: &str = "x-deduplication-header";
/// What a job takes beside what it says.
const JOB_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use amqp::Properties;

    fn template(input: Option<&str>) -> Template {
        let target = Target { exchange: String::new(), routing_key: "q".to_owned() };
        let headers: Table = [("source", "cron")].into_iter().collect();
        let list = PropertyList { delivery_mode: Some(2), headers: Some(headers), ..PropertyList::default() };
        Template::new(target, list, input.map(str::to_owned))
    }

    fn list(job: &Job) -> PropertyList {
        PropertyList::from(&Properties::parse(&job.properties).unwrap())
    }

    #[test]
    fn a_line_of_json_says_what_differs() {
        let text =
            br#"{"body": "b", "routing_key": "k", "exchange": "e", "headers": {"n": 5}, "priority": 7, "delay": "5m",
            "expiration": 60000, "message_id": "m", "type": "t", "persistent": false, "dedup_key": "d"}"#;
        let job = template(None).read(1, text).unwrap();
        assert_eq!(*job.target, Target { exchange: "e".to_owned(), routing_key: "k".to_owned() });
        let list = list(&job);
        assert_eq!((list.priority, list.delivery_mode), (Some(7), Some(1)));
        assert_eq!(list.expiration, Some(b"60000".to_vec()));
        let headers = list.headers.unwrap();
        assert_eq!(headers.get("source").and_then(Value::as_str), Some("cron"));
        assert_eq!(headers.get("n").and_then(Value::as_i64), Some(5));
        assert_eq!(headers.get(DELAY).and_then(Value::as_i64), Some(300_000));
        assert_eq!(headers.get(DEDUPLICATION).and_then(Value::as_str), Some("d"));
    }

    #[test]
    fn a_body_that_is_no_text_is_json_or_base64() {
        let json = template(None).read(1, br#"{"body": {"id": 1}}"#).unwrap();
        assert_eq!(
            (&json.body[..], list(&json).content_type),
            (&br#"{"id":1}"#[..], Some(b"application/json".to_vec()))
        );
        assert_eq!(template(None).read(1, br#"{"body_base64": "AAE="}"#).unwrap().body[..], [0, 1]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, why) in [
            ("[]", "it is no JSON object"),
            ("{}", "it has no body"),
            (r#"{"body": "", "prioriti": 1}"#, "it has \"prioriti\", which means nothing here"),
            (r#"{"body": "", "priority": 256}"#, "priority must be a number from 0 to 255"),
            (
                r#"{"body": "", "queue": "q", "exchange": "e"}"#,
                "queue, and exchange with routing_key, exclude each other",
            ),
            (
                r#"{"body": "", "delay": "soon"}"#,
                "delay: \"soon\" is no length of time: write 250ms, 30s, 5m, 2h, 1d or 1h30m",
            ),
        ] {
            assert_eq!(template(None).read(1, text.as_bytes()).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn jobs_of_an_input_have_ids_that_are_the_same_the_next_time_unless_they_have_their_own() {
        let template = template(Some("in"));
        let plain = list(&template.plain(7, Bytes::new()));
        assert_eq!(plain.message_id, Some(b"in-7".to_vec()));
        assert_eq!(plain.headers.unwrap().get(DEDUPLICATION).and_then(Value::as_str), Some("in-7"));
        let own = list(&template.read(7, br#"{"body": "", "message_id": "m", "dedup_key": "d"}"#).unwrap());
        assert_eq!(own.message_id, Some(b"m".to_vec()));
        assert_eq!(own.headers.unwrap().get(DEDUPLICATION).and_then(Value::as_str), Some("d"));
    }

    #[test]
    fn headers_are_text_or_json() {
        assert_eq!(header("k=v=w"), Ok(("k".to_owned(), "v=w".into())));
        assert_eq!(header("k:=3"), Ok(("k".to_owned(), Value::I64(3))));
        assert_eq!(header("k:=true"), Ok(("k".to_owned(), Value::Bool(true))));
        for text in ["k", "=v", ":=3", "k:=nope"] {
            assert!(header(text).is_err(), "{text}");
        }
    }
}
