//! The way to the server: HTTP over the socket in its data directory, or over TCP with a login.
//!
//! A command is one or two small requests, so each has its own connection and speaks HTTP/1.0: the answer ends where
//! the connection does, and no runtime has to be started.

use super::arguments::Options;
use super::failure::{self, Failure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A server, and how long it may take.
#[derive(Debug)]
pub(super) struct Api {
    place: Place,
    command: String,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
}

/// Where the server is.
#[derive(Debug)]
enum Place {
    Local { data_dir: PathBuf },
    Remote { address: String, prefix: String, login: Option<String> },
}

/// What the server says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// The document; `null` where there is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(other, value)| (other == name).then_some(value.as_str()))
    }

    /// Why the server refused.
    pub(super) fn reason(&self) -> String {
        match &self.json()["reason"] {
            Value::String(reason) => reason.clone(),
            Value::Null => format!("the server answered with status {}", self.status),
            other => other.to_string(),
        }
    }
}

/// A connection, of either kind.
trait Line: Read + Write {
    fn limit(&self, time: Option<Duration>) -> io::Result<()>;
}

impl Line for UnixStream {
    fn limit(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }
}

impl Line for TcpStream {
    fn limit(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }
}

impl Api {
    /// The server that the options name, else the environment, else the one in `./leveret-data`. It may take `timeout`
    /// unless the options say otherwise.
    pub(super) fn new(command: &str, options: &Options, timeout: Option<Duration>) -> Result<Self, Failure> {
        let environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let local = |data_dir: PathBuf| Place::Local { data_dir };
        let place = match (&options.url, &options.data_dir) {
            (Some(url), _) => Place::parse(url)?,
            (None, Some(data_dir)) => local(data_dir.clone()),
            // Other commands take a broker's URL from the same variable.
            (None, None) => {
                match (environment(URL_VARIABLE).filter(|url| !url.starts_with("amqp")), environment(DATA_DIR_VARIABLE))
                {
                    (Some(url), _) => Place::parse(&url)?,
                    (None, Some(data_dir)) => local(data_dir.into()),
                    (None, None) => local(DEFAULT_DATA_DIR.into()),
                }
            }
        };
        let timeout = options.timeout.or(timeout);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self { place, command: command.to_owned(), timeout, deadline })
    }

    /// Makes sure that the server is there, before anything is said about what it will be asked.
    pub(super) fn reach(&self) -> Result<(), Failure> {
        self.connect().map(drop)
    }

    /// The host that the server is on, where that is told by a URL.
    pub(super) fn host(&self) -> Option<String> {
        match &self.place {
            Place::Local { .. } => None,
            Place::Remote { address, .. } => {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            }
        }
    }

    /// Whether the server lets itself be connected to.
    pub(super) fn is_there(&self) -> bool {
        self.connect().is_ok()
    }

    /// Asks for a document. `None` = 404.
    pub(super) fn get(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.send("GET", path, &[])?;
        match answer.status {
            200 => Ok(Some(answer.json())),
            404 => Ok(None),
            _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
        }
    }

    /// Sends a request without a body; `path` begins after `/api`.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.ask(self.head(method, path, headers))
    }

    /// Puts a document.
    pub(super) fn put(&self, path: &str, document: &Value) -> Result<Answer, Failure> {
        self.submit("PUT", path, document)
    }

    /// Posts a document.
    pub(super) fn post(&self, path: &str, document: &Value) -> Result<Answer, Failure> {
        self.submit("POST", path, document)
    }

    fn submit(&self, method: &str, path: &str, document: &Value) -> Result<Answer, Failure> {
        let body = document.to_string();
        let headers = [("Content-Type", "application/json"), ("Content-Length", &body.len().to_string())];
        self.ask(self.head(method, path, &headers) + &body)
    }

    fn ask(&self, request: String) -> Result<Answer, Failure> {
        let mut line = self.connect()?;
        let answer = self.exchange(line.as_mut(), &request).map_err(|error| self.failure(&error))?;
        if answer.status == 401 && answer.header("www-authenticate").is_some() {
            let text = format!("Error: {} refused the login; check user and password in --url", self.place.shown());
            return Err(Failure { code: failure::UNAVAILABLE, text });
        }
        Ok(answer)
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let (prefix, login) = match &self.place {
            Place::Local { .. } => ("", None),
            Place::Remote { prefix, login, .. } => (prefix.as_str(), login.as_deref()),
        };
        let host = match &self.place {
            Place::Local { .. } => "localhost",
            Place::Remote { address, .. } => address,
        };
        let mut head = format!("{method} {prefix}/api{path} HTTP/1.0\r\nHost: {host}\r\n");
        if let Some(login) = login {
            head.push_str(&format!("Authorization: Basic {}\r\n", STANDARD.encode(login)));
        }
        for (name, value) in headers {
            // A line break would end the header.
            head.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n'], " ")));
        }
        head.push_str("\r\n");
        head
    }

    fn exchange(&self, line: &mut dyn Line, request: &str) -> io::Result<Answer> {
        line.limit(self.time_left()?)?;
        line.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            line.limit(self.time_left()?)?;
            match line.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answered is no HTTP server"))
    }

    /// What a single wait may take; an error when the time is over.
    fn time_left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }

    fn connect(&self) -> Result<Box<dyn Line>, Failure> {
        let connected = match &self.place {
            Place::Local { data_dir } => self.time_left().and_then(|_| open_socket(data_dir)),
            Place::Remote { address, .. } => self.dial(address),
        };
        connected.map_err(|error| self.failure(&error))
    }

    fn dial(&self, address: &str) -> io::Result<Box<dyn Line>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in address.to_socket_addrs()? {
            let patience = self.time_left()?.unwrap_or(DIAL_TIME).min(DIAL_TIME);
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let is_late = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        if let (true, Some(timeout)) = (is_late, self.timeout) {
            let (command, ms) = (&self.command, timeout.as_millis());
            let text =
                format!("Error: operation {command} on {} timed out. Timeout value used: {ms}", self.place.shown());
            return Failure { code: failure::TIMEOUT, text };
        }
        let advice = match &self.place {
            Place::Local { .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "Only the user that runs the server may use its socket: become that user, or name its HTTP API with \
                 --url http://USER:PASSWORD@HOST:15672"
            }
            Place::Local { .. } => {
                "Is the server running, and is this its data directory? Start it with `leveret serve`, name its \
                 directory with --data-dir DIR (or LEVERET_DATA_DIR), or name its HTTP API with \
                 --url http://USER:PASSWORD@HOST:15672 (or LEVERET_URL)"
            }
            Place::Remote { .. } => {
                "Is the server running there, and does it listen on that address (its flag --http)?"
            }
        };
        let text = format!("Error: unable to reach the server at {}: {error}. {advice}", self.place.shown());
        Failure { code: failure::UNAVAILABLE, text }
    }
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Local { data_dir } => data_dir.join(server::SOCKET_NAME).display().to_string(),
            Self::Remote { address, .. } => format!("http://{address}"),
        }
    }

    /// `http://USER:PASSWORD@HOST:PORT/PREFIX`, of which all but the host may be missing.
    fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure {
            code: failure::USAGE,
            text: format!("Error: --url {why}; it looks like http://USER:PASSWORD@HOST:15672"),
        };
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(wrong("cannot be https: this version speaks plain HTTP only")),
            _ => return Err(wrong("must begin with http://")),
        };
        let (authority, prefix) = match rest.split_once('/') {
            Some((authority, prefix)) => (authority, prefix.trim_end_matches('/')),
            None => (rest, ""),
        };
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let login = login.map(|login| percent_decode_str(login).decode_utf8_lossy().into_owned());
        Ok(Self::Remote { address, prefix, login })
    }
}

/// A name as part of a path.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Socket addresses hold about 100 bytes: the directory is named through its file descriptor where that is possible.
fn open_socket(data_dir: &Path) -> io::Result<Box<dyn Line>> {
    let directory = File::open(data_dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let directory_path = if short.exists() { short.as_path() } else { data_dir };
    Ok(Box::new(UnixStream::connect(directory_path.join(server::SOCKET_NAME))?))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body_at = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        _ => return None,
    };
    let header = |header: &httparse::Header<'_>| {
        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
    };
    let headers = response.headers.iter().map(header).collect();
    Some(Answer { status: response.code?, headers, body: bytes[body_at..].to_vec() })
}

const URL_VARIABLE: &str = "LEVERET_URL";
const DATA_DIR_VARIABLE: &str = "LEVERET_DATA_DIR";
const DEFAULT_DATA_DIR: &str = "leveret-data";
const DEFAULT_PORT: u16 = 15672;
const DIAL_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> (String, String, Option<String>) {
        match Place::parse(url).unwrap() {
            Place::Remote { address, prefix, login } => (address, prefix, login),
            Place::Local { .. } => unreachable!("urls are remote"),
        }
    }

    #[test]
    fn urls_may_leave_out_all_but_the_host() {
        assert_eq!(remote("http://h"), ("h:15672".into(), String::new(), None));
        assert_eq!(remote("http://h:80/"), ("h:80".into(), String::new(), None));
        assert_eq!(remote("http://u:p%40ss@[::1]:80/mq"), ("[::1]:80".into(), "/mq".into(), Some("u:p@ss".into())));
        assert_eq!(remote("http://[::1]").0, "[::1]:15672");
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["h:15672", "https://h", "http://", "http://u:p@"] {
            assert_eq!(Place::parse(url).unwrap_err().code, failure::USAGE, "{url}");
        }
    }

    #[test]
    fn an_answer_has_a_status_headers_and_a_body() {
        let answer = parse(b"HTTP/1.0 400 Bad Request\r\nX-Messages: 3\r\n\r\n{\"reason\":\"no\"}").unwrap();
        assert_eq!((answer.status, answer.header("x-messages"), answer.reason().as_str()), (400, Some("3"), "no"));
        assert!(parse(b"220 mail.example").is_none());
        assert!(parse(b"").is_none());
    }
}
