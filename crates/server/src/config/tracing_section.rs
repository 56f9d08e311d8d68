//! `[tracing]`: where spans of traced messages are sent, by OTLP over HTTP.

use super::{ConfigError, Secret, contradiction};
use axum::http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// See the module. Nothing is sent unless there is an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Where a collector takes OTLP over HTTP: `/v1/traces` below this. Empty = nowhere.
    pub endpoint: Option<String>,
    /// The whole address instead, if it is another than that.
    pub traces_endpoint: Option<String>,
    /// What this server is called in traces; `None` = `leveret`.
    pub service_name: Option<String>,
    /// Sent with each request, such as `authorization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Secret>>,
    /// A file of authorities that the collector's certificate may be from; `None` = the system's.
    pub ca: Option<PathBuf>,
}

impl Tracing {
    /// Where spans are sent; `None` = nowhere.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let whole = self.traces_endpoint.as_ref().filter(|url| !url.is_empty()).cloned();
        let base = self.endpoint.as_deref().filter(|url| !url.is_empty());
        whole.or_else(|| base.map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))))
    }

    pub(super) fn or(self, other: &Self) -> Self {
        // Who says one of them means it in the place of what somebody else says of either.
        let place = if self.endpoint.is_some() || self.traces_endpoint.is_some() { &self } else { other };
        Self {
            endpoint: place.endpoint.clone(),
            traces_endpoint: place.traces_endpoint.clone(),
            service_name: self.service_name.or_else(|| other.service_name.clone()),
            headers: self.headers.or_else(|| other.headers.clone()),
            ca: self.ca.or_else(|| other.ca.clone()),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let urls = [("tracing.endpoint", &self.endpoint), ("tracing.traces_endpoint", &self.traces_endpoint)];
        for (key, url) in urls {
            let url = url.as_deref().filter(|url| !url.is_empty());
            url.map_or(Ok(()), check_url).map_err(|why| contradiction(key, &why))?;
        }
        for (name, value) in self.headers.iter().flatten() {
            // The value may be a secret, and is not shown.
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value.reveal()).is_err() {
                let why = format!("{name:?} cannot be sent: it, or what it is to be, is no HTTP header");
                return Err(contradiction("tracing.headers", &why));
            }
        }
        Ok(())
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let example = "such as http://127.0.0.1:4318";
    let uri: Uri = url.parse().map_err(|_| format!("this is no URL; {example}"))?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.contains('@') {
        return Err("it must have no password in it; tracing.headers is the place for that".to_owned());
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => Err(format!("it must begin with http:// or https:// and name a host, {example}")),
    }
}
