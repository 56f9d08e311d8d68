//! A job: one delivery, as the broker sent it.
//!
//! Properties stay as they came and are read when somebody asks, since most jobs are asked for little.

use amqp::{Properties, Table, Value};
use bytes::Bytes;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// What a job is called by here, for as long as the runner runs; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobId(pub(super) u64);

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    /// Where it came from.
    pub(super) queue: Arc<str>,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// It was delivered before, maybe.
    pub(super) redelivered: bool,
    /// The raw octets of a content header, flags included.
    pub(super) properties: Bytes,
    pub(super) body: Bytes,
}

/// Tells two jobs apart that differ in what a worker can see.
pub(super) type Fingerprint = u64;

impl Job {
    /// Its properties; none where they cannot be read.
    pub(super) fn properties(&self) -> Option<Properties<'_>> {
        Properties::parse(&self.properties).ok()
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        self.properties()?.message_id()
    }

    /// How often it was tried with this time, as far as the broker says so.
    pub(super) fn attempt(&self) -> u64 {
        let counted = self.properties().and_then(|properties| properties.header(DELIVERY_COUNT)?.as_i64());
        match counted.and_then(|count| u64::try_from(count).ok()) {
            Some(count) => count.saturating_add(1),
            None => 1 + u64::from(self.redelivered),
        }
    }

    /// By what a redelivery of the same message is known: queue, names, properties and body, but not how often it was
    /// delivered.
    pub(super) fn fingerprint(&self, secret: &RandomState) -> Fingerprint {
        let mut hasher = secret.build_hasher();
        for part in [self.queue.as_bytes(), self.exchange.as_bytes(), self.routing_key.as_bytes()] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        let mut list = self.properties().map(|properties| amqp::PropertyList::from(&properties)).unwrap_or_default();
        if let Some(headers) = &mut list.headers {
            for counted in COUNTS {
                headers.remove(counted);
            }
            // A message that had none has a table by now, for its counts.
            if headers.is_empty() {
                list.headers = None;
            }
        }
        let mut properties = bytes::BytesMut::new();
        list.encode(&mut properties);
        hasher.write(&properties);
        hasher.write(&self.body);
        hasher.finish()
    }

    /// What is in it beside its headers, in names that people know; what is missing is not listed.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("queue", self.queue.to_string()),
            ("exchange", self.exchange.clone()),
            ("routing_key", self.routing_key.clone()),
            ("attempt", self.attempt().to_string()),
            ("redelivered", u8::from(self.redelivered).to_string()),
        ];
        let Some(properties) = self.properties() else { return fields };
        let texts = [
            ("message_id", properties.message_id()),
            ("correlation_id", properties.correlation_id()),
            ("reply_to", properties.reply_to()),
            ("type", properties.kind()),
            ("content_type", properties.content_type()),
            ("content_encoding", properties.content_encoding()),
            ("app_id", properties.app_id()),
            ("user_id", properties.user_id()),
            ("expiration", properties.expiration()),
        ];
        fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text?.to_owned()))));
        let numbers = [("timestamp", properties.timestamp()), ("priority", properties.priority().map(u64::from))];
        fields.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))));
        fields
    }

    /// Its headers.
    pub(super) fn headers(&self) -> Table {
        self.properties().and_then(|properties| properties.headers()).unwrap_or_default()
    }
}

/// A header's value as one piece of text: as it is if it is a scalar, else as JSON.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Str(octets) | Value::Bytes(octets) => String::from_utf8_lossy(octets).into_owned(),
        Value::Void => String::new(),
        other => value_json(other).to_string(),
    }
}

/// A header's value as JSON. Octets that are no text are `{"base64": …}`.
pub(super) fn value_json(value: &Value) -> serde_json::Value {
    use base64::Engine as _;
    use serde_json::{Value as Json, json};
    match value {
        Value::Bool(truth) => Json::Bool(*truth),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Decimal { scale, value } => json!(f64::from(*value) / 10_f64.powi(i32::from(*scale))),
        Value::Str(octets) | Value::Bytes(octets) => match std::str::from_utf8(octets) {
            Ok(text) => Json::String(text.to_owned()),
            Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(octets) }),
        },
        Value::Array(values) => Json::Array(values.iter().map(value_json).collect()),
        Value::Timestamp(seconds) => json!(seconds),
        Value::Table(table) => table_json(table),
        Value::Void => Json::Null,
        number => json!(number.as_i64()),
    }
}

/// A table of headers as a JSON object.
pub(super) fn table_json(table: &Table) -> serde_json::Value {
    serde_json::Value::Object(table.iter().map(|(name, value)| (name.to_owned(), value_json(value))).collect())
}

const DELIVERY_COUNT: &str = "x-delivery-count";
const COUNTS: [&str; 2] = [DELIVERY_COUNT, "x-acquired-count"];

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use amqp::PropertyList;
    use bytes::BytesMut;

    /// A job of these headers and this body.
    pub(crate) fn job(headers: Table, body: &[u8]) -> Job {
        let list = PropertyList {
            headers: Some(headers),
            message_id: Some(b"m-1".to_vec()),
            content_type: Some(b"text/plain".to_vec()),
            ..PropertyList::default()
        };
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        Job {
            id: JobId(7),
            queue: "tasks".into(),
            exchange: "x".into(),
            routing_key: "rk".into(),
            redelivered: false,
            properties: properties.freeze(),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn a_redelivery_has_the_same_fingerprint_and_another_body_has_not() {
        let secret = RandomState::new();
        let first = job(Table::from_iter([("tenant", "a")]), b"one");
        let mut again =
            job(Table::from_iter([("tenant", Value::from("a")), ("x-delivery-count", Value::I64(3))]), b"one");
        again.redelivered = true;
        assert_eq!(first.fingerprint(&secret), again.fingerprint(&secret));
        assert_eq!((first.attempt(), again.attempt()), (1, 4));
        assert_ne!(first.fingerprint(&secret), job(first.headers(), b"two").fingerprint(&secret));
        assert_ne!(first.fingerprint(&secret), job(Table::from_iter([("tenant", "b")]), b"one").fingerprint(&secret));
    }

    #[test]
    fn headers_of_every_kind_can_be_read_as_text() {
        let list = Value::Array(vec![Value::I32(1), Value::Str(vec![0xFF]), Value::Void]);
        assert_eq!(value_text(&list), r#"[1,{"base64":"/w=="},null]"#);
        for (value, text) in [
            (Value::from("plain"), "plain"),
            (Value::Bool(true), "true"),
            (Value::F64(1.5), "1.5"),
            (Value::Decimal { scale: 2, value: 150 }, "1.5"),
            (Value::Timestamp(9), "9"),
            (Value::I8(-1), "-1"),
            (Value::Void, ""),
        ] {
            assert_eq!(value_text(&value), text);
        }
    }
}
