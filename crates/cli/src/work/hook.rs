//! Slots that post each job to a web hook: a connection each, kept open from one job to the next.

use super::codes::Codes;
use super::ending::{Ending, Verdict};
use super::job::{Job, value_text};
use super::slots::{Feed, Report, SlotId};
use super::stopping::{Stopping, Urgency};
use super::tail::Tail;
use crate::client::Tls;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Where to post, and how to judge what comes back.
pub(super) struct Hook {
    pub(super) address: Address,
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) retry: Codes,
    pub(super) dead: Codes,
    pub(super) reply_bytes_max: Option<usize>,
    /// For `https`.
    pub(super) tls: Tls,
}

impl fmt::Debug for Hook {
    /// Headers may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A web hook's address.
#[derive(Clone, Debug)]
pub(super) struct Address {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{text:?} does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{text:?} names no host"))?;
        if authority.as_str().contains('@') {
            return Err("a login in the URL is not read; give it as --http-header 'Authorization: …'".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { host, port, is_tls, uri })
    }
}

/// `Name: value`.
pub(super) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written as NAME: VALUE")?;
    let name = HeaderName::from_str(name.trim()).map_err(|_| "a header's name is of letters, digits and dashes")?;
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| "a header's value is of visible letters")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Starts so many. They end when nobody feeds them any more.
pub(super) fn start(
    hook: &Arc<Hook>,
    count: usize,
    stopping: &Stopping,
    reports: &UnboundedSender<Report>,
) -> Vec<Feed> {
    let slots = (0..count).map(|number| {
        let (feed, jobs) = mpsc::unbounded_channel();
        let poster = Poster { hook: Arc::clone(hook), connection: None };
        tokio::spawn(serve(poster, SlotId(number), jobs, stopping.clone(), reports.clone()));
        Feed::Task(feed)
    });
    slots.collect()
}

async fn serve(
    mut poster: Poster,
    slot: SlotId,
    mut jobs: UnboundedReceiver<Arc<Job>>,
    mut stopping: Stopping,
    reports: UnboundedSender<Report>,
) {
    while let Some(job) = jobs.recv().await {
        let began = Instant::now();
        let ending = tokio::select! {
            ending = poster.post(&job) => ending,
            _ = stopping.more_than(Urgency::None) => {
                Ending::failed(Verdict::Retry, "the worker was stopped", Duration::ZERO)
            }
        };
        let ending = Box::new(Ending { took: began.elapsed(), ..ending });
        if reports.send(Report::Ended { slot, job: job.id, ending }).is_err() {
            return;
        }
    }
}

struct Poster {
    hook: Arc<Hook>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Poster {
    async fn post(&mut self, job: &Job) -> Ending {
        let timeout = self.hook.timeout;
        match tokio::time::timeout(timeout, self.post_unhurried(job)).await {
            Ok(Ok(ending)) => ending,
            Ok(Err(error)) => {
                self.connection = None;
                Ending::failed(Verdict::Retry, format!("{error:#}"), Duration::ZERO)
            }
            Err(_) => {
                self.connection = None;
                let why = format!("timed out after {} s", timeout.as_secs_f64());
                Ending::failed(Verdict::Retry, why, Duration::ZERO)
            }
        }
    }

    async fn post_unhurried(&mut self, job: &Job) -> Result<Ending> {
        let request = self.request(job)?;
        let kept = self.connection.take().filter(|connection| !connection.is_closed());
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = match connection.send_request(request.clone()).await {
            Ok(response) => response,
            // The other side has closed what was kept open, while nothing was said.
            Err(error) if is_kept && (error.is_canceled() || error.is_incomplete_message() || error.is_closed()) => {
                connection = self.connect().await?;
                connection.send_request(request).await.context("the request failed")?
            }
            Err(error) => return Err(error).context("the request failed"),
        };
        let ending = self.judge(response).await?;
        // It was read to its end, or is not used again.
        if connection.ready().await.is_ok() {
            self.connection = Some(connection);
        }
        Ok(ending)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let Address { host, port, .. } = &self.hook.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.with_context(|| format!("no connection to {host}:{port}"))?;
        stream.set_nodelay(true)?;
        if self.hook.address.is_tls {
            let stream = self.hook.tls.shake_hands(host, stream).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move { connection.await.ok() });
            return Ok(sender);
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    fn request(&self, job: &Job) -> Result<Request<Full<Bytes>>> {
        let Address { uri, .. } = &self.hook.address;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path).body(Full::new(job.body.clone()))?;
        let headers = request.headers_mut();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        headers.insert(header::HOST, HeaderValue::from_str(authority)?);
        headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("leveret-work/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in job.fields() {
            let name = match name {
                "content_type" => header::CONTENT_TYPE,
                "content_encoding" => header::CONTENT_ENCODING,
                other => HeaderName::from_str(&format!("x-leveret-{}", other.replace('_', "-")))?,
            };
            put(headers, name, &value);
        }
        for (name, value) in &job.headers() {
            let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
            let name: String = "x-leveret-header-".chars().chain(letters).collect();
            put(headers, HeaderName::from_str(&name)?, &value_text(value));
        }
        headers.extend(self.hook.headers.clone());
        Ok(request)
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<Ending> {
        let status = response.status();
        let pause = response.headers().get(header::RETRY_AFTER).and_then(|value| pause(value.to_str().ok()?));
        let is_done = status.is_success();
        let bytes_max = if is_done { self.hook.reply_bytes_max.unwrap_or(0) } else { Tail::BYTES };
        let body = read(response.into_body(), bytes_max).await?;
        if is_done {
            let reply = self.hook.reply_bytes_max.map(|_| Bytes::from(body));
            return Ok(Ending { reply, ..Ending::done(Duration::ZERO) });
        }
        let code = status.as_u16();
        let verdict = match (self.hook.retry.contains(code), self.hook.dead.contains(code)) {
            (false, true) => Verdict::Dead,
            _ => Verdict::Retry,
        };
        let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let pause = pause.filter(|_| is_busy);
        Ok(Ending { details: body, pause, ..Ending::failed(verdict, format!("status {status}"), Duration::ZERO) })
    }
}

/// The beginning of a body. One that goes on for long is not read to its end.
async fn read(mut body: Incoming, bytes_max: usize) -> Result<Vec<u8>> {
    let (mut kept, mut read) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the answer broke off")?;
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        kept.extend_from_slice(&data[..data.len().min(bytes_max - kept.len())]);
        if read > bytes_max + DRAIN_BYTES_MAX {
            bail!("the answer is longer than {} bytes", bytes_max + DRAIN_BYTES_MAX);
        }
    }
    Ok(kept)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What cannot be in a header (a line break) or would be too long is not there.
    if value.len() <= HEADER_BYTES_MAX
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

/// What `Retry-After` says, in seconds or as a date.
fn pause(text: &str) -> Option<Duration> {
    let pause = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).ok()?,
    };
    Some(pause.min(PAUSE_MAX))
}

/// The longest that a web hook can make the runner wait.
const PAUSE_MAX: Duration = Duration::from_secs(600);
const HEADER_BYTES_MAX: usize = 4096;
const DRAIN_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_http_and_has_no_login() {
        let address: Address = "https://example.org/hook?x=1".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_tls), ("example.org", 443, true));
        let address: Address = "http://[::1]:8080".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_tls), ("::1", 8080, false));
        for text in ["", "example.org", "ftp://example.org", "http://me:secret@example.org", "http:///"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pause_is_in_seconds_or_until_a_date_and_has_a_limit() {
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("99999999"), Some(PAUSE_MAX));
        let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(60));
        assert!(pause(&date).is_some_and(|pause| pause > Duration::from_secs(50)));
        assert_eq!(pause("soon"), None);
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), None);
    }

    #[test]
    fn a_header_has_a_name_and_a_value_that_is_not_shown() {
        let (name, value) = header("Authorization: Bearer x").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer x"));
        assert!(!format!("{value:?}").contains("Bearer"));
        assert!(header("none").is_err() && header("a b: c").is_err());
    }
}
