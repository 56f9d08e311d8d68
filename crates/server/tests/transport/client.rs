//! An AMQP client over any stream of bytes.

use amqp::method::{channel, connection, queue};
use amqp::{ChannelId, Method, Table};
use bytes::{Buf as _, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

pub(crate) struct Client<S> {
    socket: S,
    input: BytesMut,
    /// What the server said it takes.
    pub(crate) mechanisms: String,
}

/// What a login came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Accepted,
    Refused(u16, String),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Says AMQP and waits for connection.start.
    pub(crate) async fn greet(mut socket: S) -> io::Result<Self> {
        socket.write_all(&amqp::frame::PROTOCOL_HEADER).await?;
        socket.flush().await?;
        let mut client = Self { socket, input: BytesMut::new(), mechanisms: String::new() };
        client.mechanisms = client
            .expect(|method| match method {
                Method::ConnectionStart(start) => Some(String::from_utf8_lossy(start.mechanisms).into_owned()),
                _ => None,
            })
            .await?;
        Ok(client)
    }

    pub(crate) async fn log_in(&mut self, mechanism: &str, response: &[u8]) -> Login {
        let capabilities: Table =
            [("authentication_failure_close".to_owned(), amqp::Value::Bool(true))].into_iter().collect();
        let client_properties = [("capabilities".to_owned(), amqp::Value::Table(capabilities))].into_iter().collect();
        let start_ok = connection::StartOk { client_properties, mechanism, response, locale: "en_US" };
        self.send(ChannelId::CONNECTION, &Method::ConnectionStartOk(start_ok)).await;
        let answer = self.expect(|method| match method {
            Method::ConnectionTune(_) => Some(Login::Accepted),
            Method::ConnectionClose(close) => Some(Login::Refused(close.reply_code, close.reply_text.to_owned())),
            _ => None,
        });
        answer.await.unwrap()
    }

    /// Goes on from an accepted login to a declared queue.
    pub(crate) async fn work(&mut self) {
        let tune_ok = connection::TuneOk { channel_max: 10, frame_max: 131_072, heartbeat: 0 };
        self.send(ChannelId::CONNECTION, &Method::ConnectionTuneOk(tune_ok)).await;
        self.send(ChannelId::CONNECTION, &Method::ConnectionOpen(connection::Open { vhost: "/" })).await;
        self.expect(|method| matches!(method, Method::ConnectionOpenOk(_)).then_some(())).await.unwrap();
        self.send(ChannelId(1), &Method::ChannelOpen(channel::Open)).await;
        self.expect(|method| matches!(method, Method::ChannelOpenOk(_)).then_some(())).await.unwrap();
        let declare = queue::Declare {
            queue: "work",
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: Table::default(),
        };
        self.send(ChannelId(1), &Method::QueueDeclare(declare)).await;
        self.expect(|method| matches!(method, Method::QueueDeclareOk(_)).then_some(())).await.unwrap();
    }

    /// Logs in as guest and declares a queue.
    pub(crate) async fn connect(socket: S) -> Self {
        let mut client = Self::greet(socket).await.unwrap();
        assert_eq!(client.log_in("PLAIN", b"\0guest\0guest").await, Login::Accepted);
        client.work().await;
        client
    }

    pub(crate) async fn consume(&mut self) {
        let consume = amqp::method::basic::Consume {
            queue: "work",
            consumer_tag: "",
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Table::default(),
        };
        self.send(ChannelId(1), &Method::BasicConsume(consume)).await;
        self.expect(|method| matches!(method, Method::BasicConsumeOk(_)).then_some(())).await.unwrap();
    }

    /// Publishes a body to the queue and gets it back.
    pub(crate) async fn round_trip(&mut self, body: &[u8]) -> Vec<u8> {
        let mut frames = BytesMut::new();
        let publish =
            amqp::method::basic::Publish { exchange: "", routing_key: "work", mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(ChannelId(1), &mut frames);
        amqp::content::encode_content(ChannelId(1), &[0, 0], body, 131_072, &mut frames);
        self.socket.write_all(&frames).await.unwrap();
        self.socket.flush().await.unwrap();
        let get = amqp::method::basic::Get { queue: "work", no_ack: true };
        self.send(ChannelId(1), &Method::BasicGet(get)).await;
        self.expect(|method| matches!(method, Method::BasicGetOk(_)).then_some(())).await.unwrap();
        let left = amqp::ContentHeader::decode(&self.frame().await.unwrap().1).unwrap().body_bytes;
        let mut got = Vec::new();
        while (got.len() as u64) < left {
            got.extend(self.frame().await.unwrap().1);
        }
        got
    }

    /// Publishes a message of this trace to no queue.
    pub(crate) async fn publish_traced(&mut self, traceparent: &str) {
        let mut frames = BytesMut::new();
        let publish =
            amqp::method::basic::Publish { exchange: "", routing_key: "unknown", mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(ChannelId(1), &mut frames);
        let headers = [("traceparent", amqp::Value::from(traceparent))].into_iter().collect();
        let mut properties = BytesMut::new();
        amqp::PropertyList { headers: Some(headers), ..Default::default() }.encode(&mut properties);
        amqp::content::encode_content(ChannelId(1), &properties, b"", 131_072, &mut frames);
        self.socket.write_all(&frames).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    async fn send(&mut self, channel: ChannelId, method: &Method<'_>) {
        let mut frame = BytesMut::new();
        method.encode(channel, &mut frame);
        self.socket.write_all(&frame).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    async fn expect<T>(&mut self, pick: impl Fn(Method<'_>) -> Option<T>) -> io::Result<T> {
        loop {
            let (is_method, payload) = self.frame().await?;
            if is_method && let Some(found) = pick(Method::decode(&payload).unwrap()) {
                return Ok(found);
            }
        }
    }

    async fn frame(&mut self) -> io::Result<(bool, Vec<u8>)> {
        loop {
            if let Some((frame, bytes)) = amqp::frame::decode(&self.input, 131_072).unwrap() {
                let found = (frame.kind == amqp::FrameKind::Method, frame.payload.to_vec());
                self.input.advance(bytes);
                return Ok(found);
            }
            if timeout(PATIENCE, self.socket.read_buf(&mut self.input)).await.expect("an answer")? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A document of the HTTP API, as guest.
pub(crate) async fn get(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> serde_json::Value {
    let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // TLS is not always closed in order, which costs nothing here.
    let _end = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("an answer");
    let text = String::from_utf8(answer).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(10);
