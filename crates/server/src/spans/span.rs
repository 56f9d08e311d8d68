//! A span that is over, as OpenTelemetry has it, and its form in OTLP's JSON.

use serde_json::{Value, json};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    pub(super) parent: u64,
    /// The parent is another process's.
    pub(super) is_parent_remote: bool,
    /// The message's `tracestate`, which goes with its trace.
    pub(super) state: Option<Arc<str>>,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
    /// What went wrong, as `error.type`.
    pub(super) error: Option<&'static str>,
}

/// Its part in the exchange between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Text(Arc<str>),
    Number(u64),
    Flag(bool),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Span {
    fn to_json(&self) -> Value {
        let mut attributes: Vec<_> = self.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
        if let Some(error) = self.error {
            attributes.push(attribute("error.type", &error.into()));
        }
        let remote = if self.is_parent_remote { PARENT_IS_REMOTE } else { 0 };
        json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "parentSpanId": format!("{:016x}", self.parent),
            "traceState": self.state.as_deref().unwrap_or_default(),
            "flags": SAMPLED | PARENT_IS_KNOWN | remote,
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": self.begin_ns.to_string(),
            "endTimeUnixNano": self.end_ns.max(self.begin_ns).to_string(),
            "attributes": attributes,
            "status": self.error.map_or_else(|| json!({}), |_| json!({"code": STATUS_ERROR})),
        })
    }
}

/// The body of a request that exports these spans, of a service of this name and instance.
pub(super) fn request(spans: &[Span], service: &str, instance: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [("service.name", service), ("service.version", version), ("service.instance.id", instance)];
    let resource: Vec<_> = resource.into_iter().map(|(key, text)| attribute(key, &text.into())).collect();
    let spans: Vec<_> = spans.iter().map(Span::to_json).collect();
    let scope = json!({"name": "leveret", "version": version});
    let body = json!({
        "resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": scope, "spans": spans}],
        }]
    });
    body.to_string().into_bytes()
}

fn attribute(key: &str, value: &Attribute) -> Value {
    let value = match value {
        Attribute::Text(text) => json!({"stringValue": &**text}),
        // A number of 64 bits is text in the JSON of protocol buffers.
        Attribute::Number(number) => json!({"intValue": number.to_string()}),
        Attribute::Flag(flag) => json!({"boolValue": flag}),
    };
    json!({"key": key, "value": value})
}

const SAMPLED: u32 = 1;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
const STATUS_ERROR: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_what_otlp_has_in_json() {
        let span = Span {
            trace: 0xab,
            id: 0xcd,
            parent: 0xef,
            is_parent_remote: true,
            state: Some("vendor=1".into()),
            kind: Kind::Server,
            name: "publish \"tasks\"".to_owned(),
            begin_ns: 1_544_712_660_000_000_000,
            end_ns: 1_544_712_661_000_000_000,
            attributes: vec![("a", "é".into()), ("b", Attribute::Number(u64::MAX)), ("c", Attribute::Flag(true))],
            error: Some("unroutable"),
        };
        let body: Value =
            serde_json::from_slice(&request(std::slice::from_ref(&span), "orders", "leveret@host")).unwrap();
        let resource = &body["resourceSpans"][0]["resource"]["attributes"];
        assert_eq!(resource[0], json!({"key": "service.name", "value": {"stringValue": "orders"}}));
        assert_eq!(resource[2], json!({"key": "service.instance.id", "value": {"stringValue": "leveret@host"}}));
        let told = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let expected = json!({
            "traceId": "000000000000000000000000000000ab",
            "spanId": "00000000000000cd",
            "parentSpanId": "00000000000000ef",
            "traceState": "vendor=1",
            "flags": 0x301,
            "name": "publish \"tasks\"",
            "kind": 2,
            "startTimeUnixNano": "1544712660000000000",
            "endTimeUnixNano": "1544712661000000000",
            "attributes": [
                {"key": "a", "value": {"stringValue": "é"}},
                {"key": "b", "value": {"intValue": "18446744073709551615"}},
                {"key": "c", "value": {"boolValue": true}},
                {"key": "error.type", "value": {"stringValue": "unroutable"}},
            ],
            "status": {"code": 2},
        });
        assert_eq!(*told, expected);
        // A clock that was set back makes no span of negative length.
        let back = Span { end_ns: 0, error: None, ..span }.to_json();
        assert_eq!((&back["endTimeUnixNano"], &back["status"]), (&back["startTimeUnixNano"], &json!({})));
    }
}
