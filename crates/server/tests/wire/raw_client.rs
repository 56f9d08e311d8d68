//! A client that is nothing but a socket and a buffer, so that a test says when what is sent and read.

use super::*;
use amqp::PropertyList;
use bytes::{Buf, BytesMut};

pub(crate) struct RawClient {
    socket: TcpStream,
    input: BytesMut,
    /// Writes each byte by itself.
    pub(crate) byte_by_byte: bool,
    /// What it says of itself.
    pub(crate) properties: Table,
    /// The highest delivery tag confirmed so far.
    confirmed: u64,
}

pub(crate) const CHANNEL: ChannelId = ChannelId(1);

impl RawClient {
    pub(crate) async fn open_socket(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, input: BytesMut::new(), byte_by_byte: false, properties: Table::default(), confirmed: 0 }
    }

    /// Connects, logs in and opens [`CHANNEL`].
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open_socket(address).await;
        client.shake_hands().await;
        client
    }

    pub(crate) async fn shake_hands(&mut self) {
        self.write(&amqp::frame::PROTOCOL_HEADER).await;
        self.expect(|method| matches!(method, Method::ConnectionStart(_)).then_some(())).await;
        let start_ok = connection::StartOk {
            client_properties: std::mem::take(&mut self.properties),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        self.send(ChannelId::CONNECTION, &Method::ConnectionStartOk(start_ok)).await;
        self.expect(|method| matches!(method, Method::ConnectionTune(_)).then_some(())).await;
        let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 0 };
        self.send(ChannelId::CONNECTION, &Method::ConnectionTuneOk(tune_ok)).await;
        self.send(ChannelId::CONNECTION, &Method::ConnectionOpen(connection::Open { vhost: "/" })).await;
        self.expect(|method| matches!(method, Method::ConnectionOpenOk(_)).then_some(())).await;
        self.send(CHANNEL, &Method::ChannelOpen(channel::Open)).await;
        self.expect(|method| matches!(method, Method::ChannelOpenOk(_)).then_some(())).await;
    }

    /// Declares a queue; how many messages it has.
    pub(crate) async fn declare(&mut self, queue: &str, durable: bool) -> u32 {
        let declare = queue::Declare {
            queue,
            passive: false,
            durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: Table::default(),
        };
        self.send(CHANNEL, &Method::QueueDeclare(declare)).await;
        self.expect(|method| match method {
            Method::QueueDeclareOk(ok) => Some(ok.message_count),
            _ => None,
        })
        .await
    }

    pub(crate) async fn consume(&mut self, queue: &str) {
        let consume = basic::Consume {
            queue,
            consumer_tag: "",
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Table::default(),
        };
        self.send(CHANNEL, &Method::BasicConsume(consume)).await;
        self.expect(|method| matches!(method, Method::BasicConsumeOk(_)).then_some(())).await;
    }

    pub(crate) async fn confirm_select(&mut self) {
        self.send(CHANNEL, &Method::ConfirmSelect(confirm::Select { nowait: false })).await;
        self.expect(|method| matches!(method, Method::ConfirmSelectOk(_)).then_some(())).await;
    }

    pub(crate) async fn expect_confirms_up_to(&mut self, last: u64) {
        while self.confirmed < last {
            self.confirmed = self
                .expect(|method| match method {
                    Method::BasicAck(ack) => Some(ack.delivery_tag),
                    _ => None,
                })
                .await;
        }
    }

    pub(crate) async fn publish(&mut self, queue: &str, body: &[u8], persistent: bool) {
        let delivery_mode = Some(if persistent { 2 } else { 1 });
        self.publish_with(queue, &PropertyList { delivery_mode, ..PropertyList::default() }, body).await;
    }

    pub(crate) async fn publish_with(&mut self, key: &str, list: &PropertyList, body: &[u8]) {
        let mut frames = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: key, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        amqp::content::encode_content(CHANNEL, &properties, body, FRAME_MAX as usize, &mut frames);
        self.write(&frames).await;
    }

    /// The body of the next delivery.
    pub(crate) async fn expect_delivery(&mut self) -> Vec<u8> {
        self.expect(|method| matches!(method, Method::BasicDeliver(_)).then_some(())).await;
        let header = self.frame().await;
        let left = amqp::ContentHeader::decode(&header).unwrap().body_bytes;
        let mut body = Vec::new();
        while (body.len() as u64) < left {
            body.extend(self.frame().await);
        }
        body
    }

    pub(crate) async fn send(&mut self, channel: ChannelId, method: &Method<'_>) {
        let mut frame = BytesMut::new();
        method.encode(channel, &mut frame);
        self.write(&frame).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let pieces = if self.byte_by_byte { 1 } else { bytes.len() };
        for piece in bytes.chunks(pieces) {
            self.socket.write_all(piece).await.unwrap();
        }
    }

    /// Skips frames until a method that `pick` accepts.
    pub(crate) async fn expect<T>(&mut self, pick: impl Fn(Method<'_>) -> Option<T>) -> T {
        loop {
            let (is_method, payload) = self.any_frame().await;
            if is_method && let Some(found) = pick(Method::decode(&payload).unwrap()) {
                return found;
            }
        }
    }

    /// Waits for connection.close, answers it and sees the socket closed; the close's code and text.
    pub(crate) async fn answer_close(mut self) -> (u16, String) {
        let told = self
            .expect(|method| match method {
                Method::ConnectionClose(close) => Some((close.reply_code, close.reply_text.to_owned())),
                _ => None,
            })
            .await;
        self.send(ChannelId::CONNECTION, &Method::ConnectionCloseOk(connection::CloseOk)).await;
        assert_eq!(self.rest().await, b"");
        told
    }

    /// Goes without a word, not even TCP's.
    pub(crate) fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// Everything until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.input.split().to_vec();
        timeout(PATIENCE, self.socket.read_to_end(&mut rest)).await.expect("the server closes").unwrap();
        rest
    }

    async fn frame(&mut self) -> Vec<u8> {
        self.any_frame().await.1
    }

    async fn any_frame(&mut self) -> (bool, Vec<u8>) {
        loop {
            if let Some((frame, bytes)) = amqp::frame::decode(&self.input, FRAME_MAX as usize).unwrap() {
                let found = (frame.kind == amqp::FrameKind::Method, frame.payload.to_vec());
                self.input.advance(bytes);
                return found;
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.input)).await.expect("an answer").unwrap();
            assert_ne!(read, 0, "the server closed the connection");
        }
    }
}

const FRAME_MAX: u32 = 131_072;

const PATIENCE: Duration = Duration::from_secs(10);
