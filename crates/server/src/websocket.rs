//! AMQP over WebSocket (RFC 6455, the server's side): what a browser, or a client behind an HTTP proxy, sends in binary
//! messages is a connection's bytes, wherever the messages begin and end.
//!
//! So no message is ever gathered: its bytes are passed on as they come, however many it says they will be, and what was
//! read ahead is [`READ_BYTES`] at most. The rest is bounded by back-pressure: the socket is read when the connection
//! reads, and what the connection writes is taken when the socket has taken what was before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, BytesMut};
use ring::digest::{Context as Digest, SHA1_FOR_LEGACY_USE_ONLY};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What `Sec-WebSocket-Accept` says to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &[u8]) -> String {
    // The protocol wants SHA-1 here, and no secret depends on it.
    let mut digest = Digest::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

/// A WebSocket as a stream of bytes.
#[derive(Debug)]
pub(crate) struct ByteStream<S> {
    socket: S,
    /// Read and not passed on. Nothing is held while nothing is in it.
    input: BytesMut,
    reading: Reading,
    /// The last frame with data said that its message goes on.
    is_in_message: bool,
    /// Frames that the socket has not taken yet.
    output: BytesMut,
    is_close_sent: bool,
}

/// What comes next in the input.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Head,
    /// So many bytes of a frame with data, of which the mask begins with its first.
    Data {
        left: u64,
        mask: u32,
    },
    /// A frame that is about the WebSocket itself.
    Control {
        opcode: u8,
        length: usize,
        mask: u32,
    },
    /// The client closes.
    Nothing,
}

impl<S> ByteStream<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            reading: Reading::Head,
            is_in_message: false,
            output: BytesMut::new(),
            is_close_sent: false,
        }
    }

    /// Takes a frame's head off the input, once it is there.
    fn take_head(&mut self) -> io::Result<Option<Reading>> {
        let &[first, second, ref rest @ ..] = &self.input[..] else { return Ok(None) };
        let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
        if first & 0x70 != 0 {
            return Err(wrong("a frame uses an extension that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(wrong("a client's frame is not masked"));
        }
        let (length, length_bytes) = match (second & 0x7f, rest) {
            (126, &[a, b, ..]) => (u64::from(u16::from_be_bytes([a, b])), 2),
            (127, &[a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 8),
            (126 | 127, _) => return Ok(None),
            (short, _) => (u64::from(short), 0),
        };
        let Some(&[a, b, c, d]) = rest[length_bytes..].first_chunk() else { return Ok(None) };
        let mask = u32::from_be_bytes([a, b, c, d]);
        self.input.advance(2 + length_bytes + 4);
        let reading = match opcode {
            CONTINUATION if self.is_in_message => Reading::Data { left: length, mask },
            BINARY if !self.is_in_message => Reading::Data { left: length, mask },
            TEXT => return Err(wrong("AMQP comes in binary messages")),
            CLOSE | PING | PONG if is_last && length <= CONTROL_BYTES_MAX => {
                return Ok(Some(Reading::Control { opcode, length: usize::try_from(length).unwrap_or(0), mask }));
            }
            _ => return Err(wrong("a frame makes no sense where it is")),
        };
        self.is_in_message = !is_last;
        Ok(Some(reading))
    }

    /// Takes a frame about the WebSocket itself.
    fn take_control(&mut self, opcode: u8, length: usize, mask: u32) -> Reading {
        let mut payload = self.input.split_to(length);
        unmask(&mut payload, mask);
        match opcode {
            // Who does not read the answers gets no more of them.
            PING if self.output.len() < WRITE_BYTES_MAX => {
                self.queue(PONG, &[IoSlice::new(&payload)]);
            }
            CLOSE if !self.is_close_sent => {
                self.is_close_sent = true;
                // Its code is given back.
                let code = &payload[..payload.len().min(2)];
                self.queue(CLOSE, &[IoSlice::new(code)]);
            }
            _ => {}
        }
        if opcode == CLOSE { Reading::Nothing } else { Reading::Head }
    }

    /// Makes a frame of as much of this as one takes; returns how much that is.
    fn queue(&mut self, opcode: u8, slices: &[IoSlice<'_>]) -> usize {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(MESSAGE_BYTES);
        self.output.reserve(length + 10);
        self.output.put_u8(0x80 | opcode);
        match u8::try_from(length) {
            Ok(length @ ..=125) => self.output.put_u8(length),
            _ => match u16::try_from(length) {
                Ok(length) => {
                    self.output.put_u8(126);
                    self.output.put_u16(length);
                }
                Err(_) => {
                    self.output.put_u8(127);
                    self.output.put_u64(length as u64);
                }
            },
        }
        let mut left = length;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            self.output.put_slice(part);
            left -= part.len();
        }
        length
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// Reads more; whether there was any.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.reserve(READ_BYTES);
        let filled = pin!(self.socket.read_buf(&mut self.input)).poll(cx);
        if filled.is_pending() && self.input.is_empty() {
            self.input = BytesMut::new();
        }
        filled.map_ok(|count| count > 0)
    }

    /// Hands the socket what waits for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.output.advance(count),
            }
        }
        self.output = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // An answer to a ping may wait for the socket, while nothing else is to be written.
        if !this.output.is_empty()
            && let Poll::Ready(Err(why)) = this.poll_drain(cx)
        {
            return Poll::Ready(Err(why));
        }
        loop {
            let wanted = match this.reading {
                Reading::Nothing => return Poll::Ready(Ok(())),
                Reading::Data { left: 0, .. } => {
                    this.reading = Reading::Head;
                    continue;
                }
                Reading::Head => match this.take_head()? {
                    Some(reading) => {
                        this.reading = reading;
                        continue;
                    }
                    None => usize::MAX,
                },
                Reading::Control { opcode, length, mask } if this.input.len() >= length => {
                    this.reading = this.take_control(opcode, length, mask);
                    // What the socket does not take now it is asked again when there is something to be written or read.
                    if let Poll::Ready(Err(why)) = this.poll_drain(cx) {
                        return Poll::Ready(Err(why));
                    }
                    continue;
                }
                Reading::Control { length, .. } => length,
                Reading::Data { left, mask } => {
                    let most = this.input.len().min(buffer.remaining());
                    let count = usize::try_from(left).map_or(most, |left| left.min(most));
                    if count > 0 {
                        let part = &mut this.input[..count];
                        unmask(part, mask);
                        buffer.put_slice(part);
                        this.input.advance(count);
                        let mask = mask.rotate_left(8 * (count as u32 % 4));
                        this.reading = Reading::Data { left: left - count as u64, mask };
                        return Poll::Ready(Ok(()));
                    }
                    1
                }
            };
            debug_assert!(this.input.len() < wanted, "what is there is taken before more is read");
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let count = self.queue(BINARY, slices);
        match self.poll_drain(cx) {
            Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_close_sent {
            self.is_close_sent = true;
            self.queue(CLOSE, &[IoSlice::new(&NORMAL_CLOSURE.to_be_bytes())]);
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

fn unmask(bytes: &mut [u8], mask: u32) {
    let mask = mask.to_be_bytes();
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const NORMAL_CLOSURE: u16 = 1000;

/// What a frame about the WebSocket itself may hold.
const CONTROL_BYTES_MAX: u64 = 125;

/// What is read at once: clients send a frame or a few.
const READ_BYTES: usize = 16 << 10;

/// What one message that we send holds at most.
const MESSAGE_BYTES: usize = 64 << 10;

/// What may wait for the socket before pings go without an answer.
const WRITE_BYTES_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    /// A client's frame whose head says `length`, with this of its payload.
    fn frame(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn whole(first: u8, payload: &[u8]) -> Vec<u8> {
        frame(first, payload.len() as u64, payload)
    }

    fn open() -> (ByteStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        (ByteStream::new(ours), theirs)
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_it_says() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_are_one_stream_whatever_is_between_them_and_however_they_come() {
        let body: Vec<u8> = (0..70_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let frames = [
            whole(0x82, b"AM"),
            whole(0x02, b"Q"),
            whole(0x89, b"still there?"),
            whole(0x00, b""),
            whole(0x80, b"P"),
            whole(0x8a, b"yes"),
            whole(0x82, &body[..300]),
            whole(0x82, &body[300..]),
            whole(0x88, &[0x03, 0xe8, b'!']),
        ]
        .concat();
        for piece in [1, 7, 4096, frames.len()] {
            let (mut stream, mut client) = open();
            let send = async {
                for part in frames.chunks(piece) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let mut got = Vec::new();
            let ((), read) = tokio::join!(send, stream.read_to_end(&mut got));
            read.unwrap();
            assert!(got == [b"AMQP", &body[..]].concat(), "{piece}");
            drop(stream);
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
            assert_eq!(answers, [b"\x8a\x0cstill there?", &b"\x88\x02\x03\xe8"[..]].concat());
        }
    }

    #[tokio::test]
    async fn of_a_message_however_long_no_more_is_held_than_was_read_at_once() {
        let (mut stream, mut client) = open();
        client.write_all(&frame(0x82, 1 << 40, b"")).await.unwrap();
        for _ in 0..100 {
            client.write_all(&vec![0; 100_000]).await.unwrap();
            let mut got = vec![0; 100_000];
            stream.read_exact(&mut got).await.unwrap();
            assert!(stream.input.capacity() <= 2 * READ_BYTES, "{}", stream.input.capacity());
        }
        let mut byte = [0];
        let mut read = Box::pin(stream.read(&mut byte));
        let is_pending = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await;
        drop(read);
        assert!(is_pending && stream.input.capacity() == 0, "nothing is held while nothing comes");
    }

    #[tokio::test]
    async fn what_is_written_is_masked_by_nobody_and_cut_into_messages() {
        let (mut stream, mut client) = open();
        stream.write_all(b"x").await.unwrap();
        stream.write_all(&[1; 200]).await.unwrap();
        stream.write_all(&vec![2; MESSAGE_BYTES + 1]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        let expected = [
            b"\x82\x01x",
            &[&b"\x82\x7e\x00\xc8"[..], &[1; 200]].concat()[..],
            &[&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &vec![2; MESSAGE_BYTES]].concat(),
            b"\x82\x01\x02\x88\x02\x03\xe8",
        ];
        assert!(got == expected.concat());
    }

    #[tokio::test]
    async fn frames_that_make_no_sense_end_the_stream() {
        for bytes in [
            whole(0x81, b"AMQP"),
            whole(0xc2, b"compressed"),
            whole(0x80, b"goes on with nothing"),
            [whole(0x02, b"one"), whole(0x82, b"another within")].concat(),
            whole(0x83, b""),
            whole(0x09, b"in pieces"),
            frame(0x89, 126, &[0; 126]),
            vec![0x82, 0x04, b'A', b'M', b'Q', b'P'],
        ] {
            let (mut stream, mut client) = open();
            client.write_all(&bytes).await.unwrap();
            drop(client);
            let mut got = Vec::new();
            assert!(stream.read_to_end(&mut got).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn who_asks_and_says_nothing_more_is_answered_once_it_takes_the_answer() {
        let (ours, mut client) = duplex(64);
        let mut stream = ByteStream::new(ours);
        let talk = async {
            for _ in 0..3 {
                client.write_all(&whole(0x89, &[7; 100])).await.unwrap();
            }
            let mut answers = vec![0; 3 * 102];
            client.read_exact(&mut answers).await.unwrap();
        };
        let mut byte = [0];
        tokio::select! {
            read = stream.read(&mut byte) => panic!("{read:?}"),
            done = tokio::time::timeout(std::time::Duration::from_secs(20), talk) => done.unwrap(),
        }
    }

    #[tokio::test]
    async fn who_asks_and_never_listens_costs_no_memory() {
        let (ours, mut client) = duplex(64);
        let mut stream = ByteStream::new(ours);
        let ask = async {
            for _ in 0..10_000 {
                client.write_all(&whole(0x89, &[7; 125])).await.unwrap();
            }
            client.write_all(&whole(0x82, b"x")).await.unwrap();
        };
        let mut byte = [0];
        let ((), read) = tokio::join!(ask, stream.read_exact(&mut byte));
        read.unwrap();
        assert!(stream.output.len() <= WRITE_BYTES_MAX + 127);
    }
}
