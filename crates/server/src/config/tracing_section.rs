//! `[tracing]`: where spans of traced messages are sent, by OTLP over HTTP.

use super::{ConfigError, Secret, contradiction};
use axum::http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// See the module. Nothing is sent unless there is an endpoint.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Where a collector takes OTLP over HTTP: `/v1/traces` below this. Empty = nowhere.
    #[serde(serialize_with = "shown")]
    pub endpoint: Option<String>,
    /// The whole address instead, if it is another than that. What follows a question mark may be a secret.
    #[serde(serialize_with = "shown")]
    pub traces_endpoint: Option<String>,
    /// What this server is called in traces; `None` = `leveret`.
    pub service_name: Option<String>,
    /// Sent with each request, such as `authorization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Secret>>,
    /// A file of authorities that the collector's certificate may be from; `None` = the system's.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing")
            .field("endpoint", &self.endpoint.as_deref().map(without_query))
            .field("traces_endpoint", &self.traces_endpoint.as_deref().map(without_query))
            .field("service_name", &self.service_name)
            .field("headers", &self.headers)
            .field("ca", &self.ca)
            .finish()
    }
}

fn shown<S: Serializer>(url: &Option<String>, target: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(without_query).serialize(target)
}

/// As it may be shown.
fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(rest, _)| format!("{rest}?(hidden)"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    /// What a file of this text says, and how it is shown.
    fn read(text: &str) -> Result<(Config, String), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leveret.toml");
        std::fs::write(&path, text).unwrap();
        let source = Source::from_file(&path).map_err(|why| why.to_string())?;
        let config = Config::from_sources(std::slice::from_ref(&source)).map_err(|why| why.to_string())?;
        let shown = config.explain(&[source]);
        let shown = shown.iter().filter(|(key, ..)| key.starts_with("tracing")).map(|(key, value, place)| {
            let line = place.rsplit(' ').next().unwrap_or_default();
            format!("{key} = {value} # {line}\n")
        });
        Ok((config.clone(), shown.collect()))
    }

    #[test]
    fn spans_go_below_the_endpoint_or_to_an_address_of_their_own() {
        let url = |text: &str| read(text).unwrap().0.tracing.and_then(|tracing| tracing.url());
        assert_eq!(url("shards = 1"), None);
        assert_eq!(url("[tracing]\nservice_name = 'orders'"), None);
        assert_eq!(url("[tracing]\nendpoint = ''"), None);
        assert_eq!(url("[tracing]\nendpoint = 'http://c:4318'").as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(url("[tracing]\nendpoint = 'https://c/otlp/'").as_deref(), Some("https://c/otlp/v1/traces"));
        let both = "[tracing]\nendpoint = 'http://c'\ntraces_endpoint = 'http://d/x'";
        assert_eq!(url(both).as_deref(), Some("http://d/x"));
    }

    #[test]
    fn it_is_shown_key_by_key_without_its_secrets_and_can_be_read_again() {
        let text = "[tracing]\nendpoint = 'http://c:4318'\nca = 'ca.pem'\n[tracing.headers]\nx-api-key = 'sesame'\n";
        let (config, shown) = read(text).unwrap();
        assert_eq!(
            shown,
            "tracing.endpoint = \"http://c:4318\" # 2\ntracing.headers.x-api-key = \"<hidden>\" # 5\ntracing.ca = \"ca.pem\" # 3\n"
        );
        assert_eq!(read(&shown).unwrap().0.tracing.unwrap().url(), config.tracing.as_ref().unwrap().url());
        assert!(!format!("{config:?}").contains("sesame"));
    }

    #[test]
    fn what_an_address_says_behind_a_question_mark_is_hidden() {
        let (config, shown) = read("[tracing]\ntraces_endpoint = 'http://c/otlp?key=sesame'").unwrap();
        assert_eq!(shown, "tracing.traces_endpoint = \"http://c/otlp?(hidden)\" # 2\n");
        assert!(!format!("{config:?}").contains("sesame"));
        assert!(read(&shown).is_ok(), "it can be read again");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_secrets() {
        for (text, why) in [
            ("[tracing]\nendpoint = 'collector:4318'", "line 2: tracing.endpoint: it must begin with http://"),
            ("[tracing]\nendpoint = 'c d'", "line 2: tracing.endpoint: this is no URL"),
            ("[tracing]\ntraces_endpoint = 'ftp://c/x'", "line 2: tracing.traces_endpoint: it must begin with"),
            ("[tracing]\nendpoint = 'http://user:sesame@c'", "tracing.headers is the place for that"),
            ("[tracing.headers]\n'a b' = 'sesame'", "\"a b\" cannot be sent"),
            ("[tracing.headers]\nkey = \"sesame\\n\"", "\"key\" cannot be sent"),
            ("[tracing.headers]\nkey = sesame", "line 2 cannot be read, and is not shown"),
            ("[tracing]\nheaders = {key = sesame}", "line 2 cannot be read, and is not shown"),
            ("[tracing.headers]\nkey = ['sesame']", "line 2 cannot be read, and is not shown"),
            ("[tracing]\nendpoints = 'http://c'", "unknown field `endpoints`"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
            assert!(!refused.contains("sesame"), "{text}: {refused}");
        }
    }

    #[test]
    fn who_says_where_spans_go_says_it_alone_and_the_rest_key_by_key() {
        let text = |text: &str| Some(text.to_owned());
        let environment = Tracing { endpoint: text("http://e"), service_name: text("e"), ..Tracing::default() };
        let named = Tracing { service_name: text("f"), ..Tracing::default() }.or(&environment);
        assert_eq!((named.url(), named.service_name), (text("http://e/v1/traces"), text("f")));
        let elsewhere = Tracing { traces_endpoint: text("http://f"), ..Tracing::default() }.or(&environment);
        assert_eq!((elsewhere.url(), elsewhere.service_name), (text("http://f"), text("e")));
        let off = Tracing { endpoint: text(""), ..Tracing::default() }.or(&environment);
        assert_eq!(off.url(), None);
    }
}
