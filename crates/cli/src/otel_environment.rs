//! The environment variables by which programs are told where to send spans (OpenTelemetry's), as settings of ours. What a
//! file says comes first.

use percent_encoding::percent_decode_str;
use server::config::{Secret, Settings, Source, Tracing};
use std::collections::BTreeMap;

/// What they say in this process.
pub(crate) fn source() -> Source {
    Source::new("OpenTelemetry's environment variables", settings(|name| std::env::var(name).ok()))
}

fn settings(read: impl Fn(&str) -> Option<String>) -> Settings {
    let said = |name: &str| read(name).filter(|text| !text.trim().is_empty()).map(|text| text.trim().to_owned());
    let is = |name: &str, word: &str| said(name).is_some_and(|text| text.eq_ignore_ascii_case(word));
    let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
    let of_traces = |name: &str| said(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
    let of_all = |name: &str| said(&format!("OTEL_EXPORTER_OTLP_{name}"));
    let tracing = Tracing {
        endpoint: of_all("ENDPOINT"),
        traces_endpoint: of_traces("ENDPOINT"),
        service_name: said("OTEL_SERVICE_NAME"),
        headers: of_traces("HEADERS").or_else(|| of_all("HEADERS")).map(|text| headers(&text)),
        ca: of_traces("CERTIFICATE").or_else(|| of_all("CERTIFICATE")).map(Into::into),
    };
    let is_said = tracing != Tracing::default() && !is_off;
    Settings { tracing: is_said.then_some(tracing), ..Settings::default() }
}

/// `NAME=VALUE,NAME=VALUE`, with percent signs as in URLs.
fn headers(text: &str) -> BTreeMap<String, Secret> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| Secret::new(&percent_decode_str(text.trim()).decode_utf8_lossy());
    pairs.map(|(name, value)| (name.trim().to_owned(), decoded(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing(variables: &[(&str, &str)]) -> Option<Tracing> {
        let read = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
        settings(read).tracing
    }

    #[test]
    fn they_say_where_spans_go_and_with_which_headers() {
        let said = tracing(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%zz, other = c=d ,rubbish"),
            ("OTEL_SERVICE_NAME", "orders"),
        ]);
        let said = said.unwrap();
        assert_eq!(said.url().as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(said.service_name.as_deref(), Some("orders"));
        let headers = said.headers.unwrap();
        let shown: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        assert_eq!(shown, [("api-key", "a b%zz"), ("other", "c=d")]);
    }

    #[test]
    fn what_they_say_of_traces_comes_first() {
        let said = tracing(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/in"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ]);
        let said = said.unwrap();
        assert_eq!(said.url().as_deref(), Some("https://traces/in"));
        assert_eq!(said.headers.unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(said.ca, Some("/ca.pem".into()));
    }

    #[test]
    fn without_them_or_when_they_say_so_nothing_is_said() {
        assert_eq!(tracing(&[]), None);
        assert_eq!(tracing(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(tracing(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"), off]), None);
        }
    }
}
