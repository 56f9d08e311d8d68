//! The environment variables by which programs are told where to send spans (OpenTelemetry's), as settings of ours. What a
//! file says comes first.
//!
//! Whoever sets them for all that runs on a machine does not think of this server: what it cannot use it says, and starts
//! without it.

use percent_encoding::percent_decode_str;
use server::config::{Config, Secret, Settings, Source, Tracing};
use std::collections::BTreeMap;

/// What they say in this process.
pub(crate) fn source() -> Source {
    let (tracing, warnings) = tracing(|name| std::env::var(name).ok());
    let settings = Settings { tracing, ..Settings::default() };
    let mut source = Source::new("OpenTelemetry's environment variables", settings);
    source.warnings = warnings;
    source
}

/// What they say, and what of it is ignored.
fn tracing(read: impl Fn(&str) -> Option<String>) -> (Option<Tracing>, Vec<String>) {
    let said = |name: &str| read(name).filter(|text| !text.trim().is_empty()).map(|text| text.trim().to_owned());
    let is = |name: &str, word: &str| said(name).is_some_and(|text| text.eq_ignore_ascii_case(word));
    let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
    let all = |name: &str| format!("OTEL_EXPORTER_OTLP_{name}");
    let traces = |name: &str| format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
    if is_off {
        return (None, Vec::new());
    }
    let only = |name: String| said(&name).map(|text| (name, text));
    let first = |name: &str| only(traces(name)).or_else(|| only(all(name)));
    let mut warnings = Vec::new();
    let mut part = |said: Option<(String, String)>, says: fn(String) -> Tracing| {
        let Some((name, text)) = said else { return Tracing::default() };
        let part = says(text);
        let fault = fault(&part);
        warnings.extend(fault.iter().map(|why| format!("the environment variable {name} is ignored: {why}")));
        if fault.is_none() { part } else { Tracing::default() }
    };
    let tracing = Tracing {
        endpoint: part(only(all("ENDPOINT")), |url| Tracing { endpoint: Some(url), ..Tracing::default() }).endpoint,
        traces_endpoint: part(only(traces("ENDPOINT")), |url| Tracing {
            traces_endpoint: Some(url),
            ..Tracing::default()
        })
        .traces_endpoint,
        service_name: said("OTEL_SERVICE_NAME"),
        headers: part(first("HEADERS"), |text| Tracing { headers: Some(headers(&text)), ..Tracing::default() }).headers,
        ca: part(first("CERTIFICATE"), |path| Tracing { ca: Some(path.into()), ..Tracing::default() }).ca,
    };
    let is_placed = only(all("ENDPOINT")).or_else(|| only(traces("ENDPOINT"))).is_some();
    match first("PROTOCOL") {
        Some((name, protocol)) if is_placed && !protocol.to_ascii_lowercase().starts_with("http/") => {
            let why = format!(
                "no spans are sent by OpenTelemetry's environment variables, since {name} is {protocol:?}: spans go by \
                 OTLP over HTTP only; set it to http/json and the endpoint to the collector's port for that, mostly 4318"
            );
            (None, vec![why])
        }
        _ => (Some(tracing).filter(|tracing| *tracing != Tracing::default()), warnings),
    }
}

/// Why a part of what they say cannot be used, if it cannot.
fn fault(part: &Tracing) -> Option<String> {
    // The file of authorities is only read where there is somewhere to send spans.
    let endpoint = part.endpoint.clone().or_else(|| part.ca.is_some().then(|| "http://localhost".to_owned()));
    let tracing = Some(Tracing { endpoint, ..part.clone() });
    let config = match Config::new(&[Settings { tracing, ..Settings::default() }]) {
        Ok(config) => config,
        Err(why) => return Some(why.to_string()),
    };
    part.ca.as_ref().and_then(|_| server::check_certificates(&config).err()).map(|why| why.to_string())
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

    /// What is said by these, and what of it is ignored.
    fn read(variables: &[(&str, &str)]) -> (Option<Tracing>, Vec<String>) {
        super::tracing(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned()))
    }

    fn tracing(variables: &[(&str, &str)]) -> Option<Tracing> {
        let (tracing, warnings) = read(variables);
        assert_eq!(warnings, [""; 0]);
        tracing
    }

    #[test]
    fn what_cannot_be_used_is_ignored_with_a_warning_that_says_why() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, text, why) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317", "it must begin with http://"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=s3cret", "cannot be sent"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/is/not/there.pem", "/is/not/there.pem"),
        ] {
            let (said, warnings) = read(&[collector, (name, text)]);
            assert_eq!(said.unwrap(), tracing(&[collector]).unwrap(), "{name}");
            let [warning] = &warnings[..] else { panic!("{warnings:?}") };
            assert!(warning.contains(name) && warning.contains(why) && !warning.contains("s3cret"), "{warning}");
        }
        let (said, warnings) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c d")]);
        assert_eq!((said, warnings.len()), (None, 1));
    }

    #[test]
    fn who_wants_grpc_gets_nothing_and_is_told() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
            let (said, warnings) = read(&[collector, (name, "grpc")]);
            assert_eq!(said, None);
            assert!(warnings.len() == 1 && warnings[0].contains(name) && warnings[0].contains("4318"), "{warnings:?}");
        }
        assert!(tracing(&[collector, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).is_some());
        let (said, warnings) = read(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!((said, warnings), (None, vec![]), "whoever sends no spans need not hear of it");
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
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        let certificate = rcgen::generate_simple_self_signed(["collector".to_owned()]).unwrap();
        std::fs::write(&ca, certificate.cert.pem()).unwrap();
        let said = tracing(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/in"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.to_str().unwrap()),
        ]);
        let said = said.unwrap();
        assert_eq!(said.url().as_deref(), Some("https://traces/in"));
        assert_eq!(said.headers.unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(said.ca, Some(ca));
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
