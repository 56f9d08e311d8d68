//! A collector of spans: takes OTLP over HTTP as the specification has it, or answers as a test wants.
#![allow(dead_code, reason = "each test needs some of it")]

use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
    requests: UnboundedReceiver<Request>,
    spans: Vec<Value>,
    _listener: JoinSet<()>,
}

/// What was asked of it.
pub(crate) struct Request {
    /// The first line and the headers, as they came but for capitals.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What a connection is to be made of a socket.
pub(crate) trait Wrap: Clone + Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    fn wrap(&self, socket: tokio::net::TcpStream) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

#[derive(Clone)]
pub(crate) struct Plain;

impl Wrap for Plain {
    type Stream = tokio::net::TcpStream;

    async fn wrap(&self, socket: tokio::net::TcpStream) -> std::io::Result<Self::Stream> {
        Ok(socket)
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), Plain)
    }

    pub(crate) fn listen(listener: TcpListener, wrap: impl Wrap) -> Self {
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, requests) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let next = Arc::clone(&answers);
        tasks.spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (sender, next, wrap) = (sender.clone(), Arc::clone(&next), wrap.clone());
                conversations.spawn(async move {
                    match wrap.wrap(socket).await {
                        Ok(stream) => converse(stream, &sender, &next).await,
                        Err(why) => {
                            let failed = Request { head: format!("no connection: {why}"), body: Vec::new() };
                            let _test_is_over = sender.send(failed);
                        }
                    }
                });
            }
        });
        Self { address, answers, requests, spans: Vec::new(), _listener: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request that nobody has said an answer for gets this one, octet for octet; an empty one stands for none at all.
    pub(crate) fn answer(&self, answer: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().push_back(answer.into());
    }

    pub(crate) async fn request(&mut self) -> Request {
        timeout(Duration::from_secs(30), self.requests.recv()).await.expect("a request in time").unwrap()
    }

    /// The next `count` spans that are told, in the order of their beginnings.
    pub(crate) async fn spans(&mut self, count: usize) -> Vec<Value> {
        while self.spans.len() < count {
            let body = self.request().await.body;
            self.spans.extend(spans_of(&body));
        }
        let mut spans: Vec<_> = self.spans.drain(..count).collect();
        spans.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap());
        spans
    }
}

/// The spans in the body of a request.
pub(crate) fn spans_of(body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &UnboundedSender<Request>,
    answers: &Mutex<VecDeque<Vec<u8>>>,
) {
    let mut input = Vec::new();
    let head = loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8(input.drain(..end + 4).collect()).unwrap().to_lowercase();
        }
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    while input.len() < length {
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = answers.lock().unwrap().pop_front();
    let answer = answer.unwrap_or_else(|| answered("200 OK", "{}"));
    let _test_is_over = requests.send(Request { head, body: input });
    if answer.is_empty() {
        // Until the other end has had enough.
        let _end = stream.read(&mut [0]).await;
        return;
    }
    let _gone = stream.write_all(&answer).await;
    let _gone = stream.shutdown().await;
}

/// An answer in HTTP.
pub(crate) fn answered(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let kind = "Content-Type: application/json";
    format!("HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// An attribute of a span.
pub(crate) fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    found.map_or(&Value::Null, |found| found["value"].as_object().unwrap().values().next().unwrap())
}
