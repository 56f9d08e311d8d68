//! A message as it waits, is delivered and lies in the log: one contiguous run of bytes, shared and never changed.
//!
//! ```text
//! ┌───────┬────────┬──────────┬────────┬─────┬──────────────┬────────────┬──────┐
//! │ flags │ length │ exchange │ length │ key │ length (u32) │ properties │ body │
//! │ 1     │ 1      │ …        │ 1      │ …   │ 4, LE        │ raw        │ …    │
//! └───────┴────────┴──────────┴────────┴─────┴──────────────┴────────────┴──────┘
//! ```
//!
//! Of the flags, bit 0 says that this broker wrote its `x-death` header, bit 1 that it was routed by its key alone and not by
//! its `CC` header. `properties` are the bytes of the content header from the property flags on, exactly as the publisher sent them, so
//! that they come back bit for bit. The same bytes are the payload of the log's message record.

use crate::command::Fault;
use amqp::{ReplyCode, Table, Value};
use bytes::{BufMut, Bytes, BytesMut};

/// An immutable message. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    properties_at: u32,
    body_at: u32,
}

/// Where a message came from, and the bytes it is made of.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    /// The exchange it was published to; at most 255 bytes.
    pub exchange: &'a str,
    /// Its routing key; at most 255 bytes.
    pub routing_key: &'a str,
    /// Raw property flags and list.
    pub properties: &'a [u8],
    /// Whether its `x-death` header was written by this broker, so that it counts as its history. A client's own
    /// `x-death` does not (RabbitMQ 4.0).
    pub died_here: bool,
}

/// Where the parts of a message lie that is being put together.
#[derive(Clone, Copy, Debug)]
pub struct PartLengths {
    properties_at: usize,
    properties: usize,
}

/// A message from the log whose bytes do not make sense, though their checksum does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Message {
    /// Joins the parts and the body into a message of its own allocation.
    #[must_use]
    pub fn new(parts: MessageParts<'_>, body: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(parts.header_bytes() + body.len());
        parts.write(&mut bytes);
        bytes.put_slice(body);
        Self::assembled(bytes.freeze(), parts.lengths())
    }

    /// The same for a message that was routed by its routing key alone, whatever keys its `CC` header has.
    #[must_use]
    pub(crate) fn to_one_key(parts: MessageParts<'_>, body: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(parts.header_bytes() + body.len());
        parts.write(&mut bytes);
        bytes[0] |= TO_ONE_KEY;
        bytes.put_slice(body);
        Self::assembled(bytes.freeze(), parts.lengths())
    }

    /// Takes over bytes that begin with what [`MessageParts::write`] wrote for `parts` and go on with the body.
    #[must_use]
    pub fn assembled(bytes: Bytes, lengths: PartLengths) -> Self {
        let body_at = lengths.properties_at + lengths.properties;
        assert!(body_at <= bytes.len(), "the bytes begin with the parts");
        Self { bytes, properties_at: offset(lengths.properties_at), body_at: offset(body_at) }
    }

    /// Reads a message back from the log.
    ///
    /// # Errors
    /// [`Malformed`] when a length points outside the bytes or a name is not UTF-8.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let (properties_at, body_at) = Self::measure(&bytes)?;
        Ok(Self { bytes, properties_at, body_at })
    }

    /// Where in a message from the log its properties begin, and its body.
    ///
    /// # Errors
    /// As [`Message::parse`].
    pub fn measure(bytes: &[u8]) -> Result<(u32, u32), Malformed> {
        let mut at = 1;
        for _name in 0..2 {
            let length = usize::from(*bytes.get(at).ok_or(Malformed)?);
            let name = bytes.get(at + 1..at + 1 + length).ok_or(Malformed)?;
            std::str::from_utf8(name).map_err(|_| Malformed)?;
            at += 1 + length;
        }
        let length = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        let properties_at = at + 4;
        let body_at = properties_at.checked_add(length.ok_or(Malformed)? as usize).ok_or(Malformed)?;
        if body_at > bytes.len() {
            return Err(Malformed);
        }
        let offset = |at: usize| u32::try_from(at).map_err(|_| Malformed);
        Ok((offset(properties_at)?, offset(body_at)?))
    }

    /// All bytes: the payload of the log record.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The exchange that it was published to, or dead-lettered through.
    #[must_use]
    pub fn exchange(&self) -> &str {
        self.name_at(1).0
    }

    /// The routing key that it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        self.name_at(self.name_at(1).1).0
    }

    /// Raw property flags and list, as published.
    #[inline]
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        &self.bytes[self.properties_at as usize..self.body_at as usize]
    }

    /// The body.
    #[inline]
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at as usize..]
    }

    /// Everything before the body.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.body_at as usize]
    }

    /// Whether what is before its body is the same as in such a message, but for the routing key.
    #[must_use]
    pub(crate) fn is_sibling(&self, head: &[u8], lengths: PartLengths) -> bool {
        let before_key = 2 + usize::from(self.bytes[1]);
        let properties_at = lengths.properties_at;
        self.bytes[..before_key] == head[..before_key.min(head.len())] && *self.properties() == head[properties_at..]
    }

    /// The exchange and the raw properties in what is before a message's body.
    pub(crate) fn exchange_and_properties(head: &[u8], lengths: PartLengths) -> (&str, &[u8]) {
        let exchange = std::str::from_utf8(&head[2..2 + usize::from(head[1])]);
        (exchange.expect("checked when the message was made"), &head[lengths.properties_at..])
    }

    /// A message with this before its body, but for the routing key, which has at most 255 bytes of UTF-8.
    pub(crate) fn readdressed(head: &[u8], lengths: PartLengths, routing_key: &[u8], body: &[u8]) -> Self {
        let (before_key, _) = head.split_at(2 + usize::from(head[1]));
        let (_, after_key) = head.split_at(lengths.properties_at - PROPERTIES_LENGTH_BYTES);
        let head_bytes = before_key.len() + 1 + routing_key.len() + after_key.len();
        let mut bytes = Vec::with_capacity(head_bytes + body.len());
        bytes.extend_from_slice(before_key);
        bytes.push(u8::try_from(routing_key.len()).expect("it is a short string"));
        bytes.extend_from_slice(routing_key);
        bytes.extend_from_slice(after_key);
        bytes.extend_from_slice(body);
        let (properties_at, body_at) = (offset(head_bytes - lengths.properties), offset(head_bytes));
        Self { bytes: Bytes::from(bytes), properties_at, body_at }
    }

    /// Where its parts lie.
    #[must_use]
    pub fn lengths(&self) -> PartLengths {
        let properties_at = self.properties_at as usize;
        PartLengths { properties_at, properties: self.body_at as usize - properties_at }
    }

    /// The exchange and the routing key as they stand in methods: two short strings.
    #[inline]
    #[must_use]
    pub fn names(&self) -> &[u8] {
        &self.bytes[1..self.properties_at as usize - PROPERTIES_LENGTH_BYTES]
    }

    /// The body, sharing the message's bytes.
    #[must_use]
    pub fn body_shared(&self) -> Bytes {
        self.bytes.slice(self.body_at as usize..)
    }

    /// Length of the body in bytes: what length limits and `message_bytes` count.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        (self.bytes.len() - self.body_at as usize) as u64
    }

    /// How many bytes it has in all.
    #[must_use]
    pub fn payload_bytes(&self) -> u32 {
        offset(self.bytes.len())
    }

    /// How many of them come before the body.
    #[must_use]
    pub fn header_bytes(&self) -> u32 {
        self.body_at
    }

    /// Whether this broker wrote its `x-death` header.
    #[must_use]
    pub fn died_here(&self) -> bool {
        self.bytes[0] & DIED_HERE != 0
    }

    /// Whether its `CC` header had no part in how it was routed.
    pub(crate) fn is_to_one_key(&self) -> bool {
        self.bytes[0] & TO_ONE_KEY != 0
    }

    fn name_at(&self, at: usize) -> (&str, usize) {
        let end = at + 1 + usize::from(self.bytes[at]);
        let name = std::str::from_utf8(&self.bytes[at + 1..end]);
        (name.expect("checked when the message was made"), end)
    }
}

impl MessageParts<'_> {
    /// Bytes that [`Self::write`] writes.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        let names = short(self.exchange).len() + short(self.routing_key).len();
        1 + 1 + 1 + names + PROPERTIES_LENGTH_BYTES + self.properties.len()
    }

    /// What [`Message::assembled`] needs to know of them.
    #[must_use]
    pub fn lengths(&self) -> PartLengths {
        let properties_at = self.header_bytes() - self.properties.len();
        PartLengths { properties_at, properties: self.properties.len() }
    }

    /// Writes everything but the body.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u8(if self.died_here { DIED_HERE } else { 0 });
        for name in [self.exchange, self.routing_key] {
            let name = short(name);
            out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.put_slice(name.as_bytes());
        }
        out.put_u32_le(offset(self.properties.len()));
        out.put_slice(self.properties);
    }
}

/// What is longer comes from where names are not AMQP's, and must not end the server.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(usize::from(u8::MAX))]
}

fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("headers are bounded by frame_max")
}

const DIED_HERE: u8 = 1;
const TO_ONE_KEY: u8 = 2;
const PROPERTIES_LENGTH_BYTES: usize = 4;

/// The `expiration` property: milliseconds in decimal, ten years at most.
///
/// # Errors
/// 406 with RabbitMQ's text.
pub fn parse_expiration(text: &str) -> Result<u64, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse::<u64>().ok().filter(|ms| digits && *ms <= EXPIRATION_MS_MAX);
    parsed.ok_or_else(|| {
        let why = if digits { "value_too_large" } else { "no_integer" };
        Fault::new(ReplyCode::PreconditionFailed, format!("invalid expiration '{text}': {why}"))
    })
}

/// What an `x-delay` header asks for, in milliseconds: any kind of number, or one in decimal. Whatever else it is, it is no
/// delay. The header is negative afterwards, as the delayed message exchange plugin leaves it: so who passes the message
/// on does not delay it once more, and who gets it can tell that it was delayed.
#[must_use]
pub fn hold_back(headers: &mut Table) -> Option<u64> {
    let ms = match headers.get(DELAY)? {
        Value::Str(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        Value::F32(number) => *number as i64,
        Value::F64(number) => *number as i64,
        number => number.as_i64()?,
    };
    let delay_ms = u64::try_from(ms).ok().filter(|ms| (1..=DELAY_MS_MAX).contains(ms))?;
    headers.insert(DELAY, i32::try_from(-ms).map_or(Value::I64(-ms), Value::I32));
    Some(delay_ms)
}

const DELAY: &str = "x-delay";
/// A hundred years: who asks for more means something else.
const DELAY_MS_MAX: u64 = 3_155_760_000_000;
/// Ten years, as RabbitMQ has it.
const EXPIRATION_MS_MAX: u64 = 315_360_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(exchange: &'a str, routing_key: &'a str) -> MessageParts<'a> {
        MessageParts { exchange, routing_key, properties: &[0x10, 0, 2], died_here: true }
    }

    #[test]
    fn parts_come_back_from_the_bytes() {
        let long = "k".repeat(255);
        for (exchange, key, body) in
            [("", "hello", &b"body"[..]), ("logs", "", b""), (long.as_str(), long.as_str(), b"\0\xff")]
        {
            let made = Message::new(parts(exchange, key), body);
            let read = Message::parse(made.bytes().clone()).unwrap();
            assert_eq!(made, read);
            assert_eq!((read.exchange(), read.routing_key(), read.body()), (exchange, key, body));
            assert_eq!(read.properties(), [0x10, 0, 2]);
            assert!(read.died_here());
            assert_eq!(read.body_bytes(), body.len() as u64);
        }
    }

    #[test]
    fn longer_names_than_amqp_has_are_cut() {
        let long = "é".repeat(200);
        let made = Message::new(parts(&long, &long), b"body");
        assert_eq!(made.exchange(), "é".repeat(127));
        assert_eq!((made.exchange(), made.body()), (made.routing_key(), &b"body"[..]));
        assert_eq!(parts(&long, &long).lengths().properties_at, made.bytes().len() - 3 - 4);
    }

    #[test]
    fn a_delay_is_any_number_that_makes_sense() {
        let held = |value: Value| {
            let mut headers: Table = [("x-delay".to_owned(), value)].into_iter().collect();
            (hold_back(&mut headers), headers.remove("x-delay"))
        };
        for value in [Value::I8(5), Value::U8(5), Value::I16(5), Value::U16(5), Value::I32(5), Value::U32(5)] {
            assert_eq!(held(value), (Some(5), Some(Value::I32(-5))));
        }
        for value in [Value::I64(5), Value::F32(5.9), Value::F64(5.9), Value::from("5")] {
            assert_eq!(held(value), (Some(5), Some(Value::I32(-5))));
        }
        let year_ms = 31_557_600_000;
        assert_eq!(held(Value::I64(year_ms)), (Some(year_ms as u64), Some(Value::I64(-year_ms))));
        for value in [
            Value::I32(0),
            Value::I32(-5),
            Value::I64(i64::MIN),
            Value::I64(i64::MAX),
            Value::F64(f64::NAN),
            Value::from("soon"),
            Value::from("5s"),
            Value::Bool(true),
            Value::Void,
        ] {
            assert_eq!(held(value.clone()).0, None);
            assert!(
                held(value.clone()).1.is_some_and(|left| matches!(left, Value::F64(_)) || left == value),
                "untouched"
            );
        }
        assert_eq!(hold_back(&mut Table::new()), None);
    }

    #[test]
    fn a_cut_message_is_refused() {
        let whole = Message::new(parts("x", "key"), b"").bytes().clone();
        for end in 0..whole.len() {
            assert_eq!(Message::parse(whole.slice(..end)), Err(Malformed), "cut at {end}");
        }
    }
}
