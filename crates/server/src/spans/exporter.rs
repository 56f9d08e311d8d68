//! The exporter: takes finished spans out of the book and sends them to a collector, OTLP as JSON over HTTP.
//!
//! A collector that cannot be reached, or has no time, is asked again, at longer and longer distances; meanwhile the book
//! keeps the newest spans that it has room for. The log is told when that begins and when it is over.

use super::Spans;
use super::span::{self, Span};
use crate::config::Config;
use crate::footprint;
use crate::outgoing::{Answer, Outgoing};
use crate::tls::TlsError;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use bytes::Bytes;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Who takes spans.
pub(crate) struct Collector {
    uri: Uri,
    /// Without what may be secret.
    name: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    service: String,
    outgoing: Outgoing,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collector").field(&self.name).finish()
    }
}

/// What a collector said to some spans.
enum Said {
    /// Yes, but for so many; why those were not taken.
    Taken(u64, String),
    /// No, and it would say so again.
    Refused(String),
    /// Nothing, or that it has no time before that.
    Later(Option<Duration>, String),
}

impl Collector {
    /// The one that the configuration names.
    pub(crate) fn of(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(tracing) = &config.tracing else { return Ok(None) };
        // The configuration was checked: what it says is an address, and headers.
        let Some(uri) = tracing.url().and_then(|url| url.parse::<Uri>().ok()) else { return Ok(None) };
        let headers = tracing.headers.iter().flatten().filter_map(|(name, value)| {
            let mut value = HeaderValue::try_from(value.reveal()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        Ok(Some(Arc::new(Self {
            name: format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path()),
            headers: headers.collect(),
            service: tracing.service_name.clone().unwrap_or_else(|| "leveret".to_owned()),
            outgoing: Outgoing::new(tracing.ca.as_deref())?,
            uri,
        })))
    }

    async fn take(&self, body: Bytes) -> Said {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = axum::http::Method::POST;
        match path.parse() {
            Ok(path) => *request.uri_mut() = path,
            Err(why) => return Said::Refused(format!("{path:?}: {why}")),
        }
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        match self.outgoing.ask(&self.uri, request, PATIENCE, ANSWER_BYTES_MAX).await {
            Ok(answer) => Self::read(&answer),
            Err(why) => Said::Later(None, why),
        }
    }

    /// What its answer means, by the specification of OTLP over HTTP.
    fn read(answer: &Answer) -> Said {
        let Answer { status, headers, body } = answer;
        let why = format!("it answered {status}");
        match *status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                Said::Later(after.map(Duration::from_secs), why)
            }
            status if status.is_success() => {
                let body: Value = serde_json::from_slice(body).unwrap_or_default();
                let partial = &body["partialSuccess"];
                // A number of 64 bits is text in the JSON of protocol buffers, but not everybody's.
                let rejected = &partial["rejectedSpans"];
                let rejected = rejected.as_str().and_then(|text| text.parse().ok()).or_else(|| rejected.as_u64());
                let why = partial["errorMessage"].as_str().unwrap_or("no reason given");
                Said::Taken(rejected.unwrap_or_default(), shortened(why))
            }
            _ => Said::Refused(why),
        }
    }
}

/// What the log is told of, once each time.
#[derive(Default)]
struct Trouble {
    /// What was lost before it began.
    since_lost: Option<u64>,
    /// When it was last said that there is no room, and how much was dropped by then.
    dropped: Option<(Instant, u64)>,
}

impl Trouble {
    fn begins(&mut self, collector: &Collector, lost: u64, why: &str) {
        if self.since_lost.is_none() {
            self.since_lost = Some(lost);
            let hint = match collector.uri.port_u16() {
                Some(4317) => " (4317 is usually for gRPC, and OTLP over HTTP on 4318)",
                _ => "",
            };
            tracing::warn!(
                "spans cannot be exported to {}: {why}{hint}; this is tried again, and messages are served meanwhile. \
                 Check [tracing], or the variables OTEL_* where it says nothing, and the collector",
                collector.name
            );
        }
    }

    fn ends(&mut self, collector: &Collector, lost: u64) {
        if let Some(before) = self.since_lost.take() {
            let lost = lost - before;
            tracing::info!("spans are exported to {} again; {lost} were lost meanwhile", collector.name);
        }
    }

    fn drops(&mut self, dropped: u64) {
        let (told_at, before) = self.dropped.unzip();
        let is_news = dropped > before.unwrap_or_default();
        if is_news && told_at.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            self.dropped = Some((Instant::now(), dropped));
            tracing::warn!(
                "{dropped} spans were dropped so far: more traced messages are under way, or wait to be exported, than there \
                 is room for. Let publishers sample fewer; leveret_trace_spans_dropped_total counts on"
            );
        }
    }
}

impl Spans {
    /// Sends spans for as long as the server runs, and what is left at its end.
    pub(crate) async fn export(self: Arc<Self>) {
        let mut trouble = Trouble::default();
        loop {
            while self.book().finished() == 0 {
                if self.is_ending() {
                    return;
                }
                self.news.notified().await;
            }
            if !self.is_ending() && self.book().finished() < SPANS_AT_ONCE {
                // What belongs to one message likely comes soon.
                let _soon = timeout(GATHERED_FOR, self.full.notified()).await;
            }
            let spans = self.book().take(SPANS_AT_ONCE);
            trouble.drops(self.book().dropped);
            self.send(spans, &mut trouble).await;
        }
    }

    /// Nothing more comes: what there is is sent, and no longer kept for later.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.news.notify_one();
        self.full.notify_one();
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    async fn send(&self, spans: Vec<Span>, trouble: &mut Trouble) {
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        let spans = Arc::new(spans);
        let mut pause = PAUSE_MIN;
        let mut encoded: Option<(Arc<Collector>, Bytes)> = None;
        loop {
            let Some(collector) = self.collector() else { return };
            let body = match &encoded {
                Some((earlier, body)) if Arc::ptr_eq(earlier, &collector) => body.clone(),
                _ => encode(&spans, &collector).await,
            };
            encoded = Some((Arc::clone(&collector), body.clone()));
            let after = match collector.take(body).await {
                Said::Taken(rejected, why) => {
                    let rejected = rejected.min(count);
                    self.exported.fetch_add(count - rejected, Ordering::Relaxed);
                    self.lost.fetch_add(rejected, Ordering::Relaxed);
                    if rejected > 0 {
                        trouble.begins(&collector, self.counts().1, &format!("it took {rejected} not: {why}"));
                    } else {
                        trouble.ends(&collector, self.counts().1);
                    }
                    return;
                }
                Said::Refused(why) => {
                    trouble.begins(&collector, self.counts().1, &why);
                    self.lost.fetch_add(count, Ordering::Relaxed);
                    return;
                }
                Said::Later(after, why) => {
                    trouble.begins(&collector, self.counts().1, &why);
                    after
                }
            };
            if self.is_ending() {
                self.lost.fetch_add(count, Ordering::Relaxed);
                return;
            }
            let until = Instant::now() + after.unwrap_or(pause).min(PAUSE_MAX);
            pause = (pause * 2).min(PAUSE_MAX);
            self.pause(until, &collector).await;
        }
    }

    /// Waits until then, or until there is another collector or the end.
    async fn pause(&self, until: Instant, collector: &Arc<Collector>) {
        while Instant::now() < until && !self.is_ending() {
            if self.collector().is_none_or(|now| !Arc::ptr_eq(&now, collector)) {
                return;
            }
            let _in_time = tokio::time::timeout_at(until, self.news.notified()).await;
        }
    }
}

/// The body of a request, made where nobody waits for it: it takes some milliseconds.
async fn encode(spans: &Arc<Vec<Span>>, collector: &Arc<Collector>) -> Bytes {
    let (spans, collector) = (Arc::clone(spans), Arc::clone(collector));
    let encode = move || span::request(&spans, &collector.service, &footprint::node_name());
    // It fails when the runtime ends, and then nobody sends it.
    tokio::task::spawn_blocking(encode).await.unwrap_or_default().into()
}

/// What a stranger says, in the length of a line.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// How many spans a request has at the most: some hundreds of kilobytes.
pub(super) const SPANS_AT_ONCE: usize = 512;
/// How long spans wait for others.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// How often the log is told of spans that are dropped.
const TOLD_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const TEXT_BYTES_MAX: usize = 200;
