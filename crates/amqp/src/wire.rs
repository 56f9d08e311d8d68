//! The primitive fields everything else is made of: fixed-width numbers in network order, short
//! and long strings, and the frame around a method.
//!
//! Reading is bounds-checked and borrows; writing appends and cannot fail.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::frame::{self, FrameKind};
use crate::method::MethodId;
use crate::reply::{Reply, ReplyCode};

/// Longest short string in octets: its length is one octet.
pub(crate) const SHORTSTR_MAX: usize = 255;

/// Octets that are not what the protocol says they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// No method has this class and number.
    UnknownMethod(MethodId),
    /// A name that must be UTF-8 is not.
    MalformedUtf8,
    /// Octets are missing, left over or of no known form.
    Malformed {
        /// The method being read, or [`MethodId::NONE`] in content and tables.
        method: MethodId,
        /// What is wrong, in words.
        what: &'static str,
    },
}

impl DecodeError {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Malformed { method: MethodId::NONE, what }
    }

    /// The same error, blamed on `method`.
    pub(crate) fn within(self, method: MethodId) -> Self {
        match self {
            Self::Malformed { what, .. } => Self::Malformed { method, what },
            other => other,
        }
    }

    /// The reply to close the connection with.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let (code, method) = match *self {
            Self::UnknownMethod(id) => (ReplyCode::CommandInvalid, id),
            Self::MalformedUtf8 => (ReplyCode::FrameError, MethodId::NONE),
            Self::Malformed { method, .. } => (ReplyCode::FrameError, method),
        };
        Reply::new(code, self, method)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMethod(_) => f.write_str("unimplemented method"),
            Self::MalformedUtf8 => f.write_str("Malformed UTF-8 in shortstr"),
            Self::Malformed { method, what } => {
                write!(f, "cannot decode {}: {what}", method.name().unwrap_or("content"))
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// What is left of the octets being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses octets left over.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::malformed("octets left over")) }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(MISSING)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(MISSING)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn octet(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn short(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn longlong(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A short string's octets, whatever they are.
    pub(crate) fn shortstr_octets(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.octet()?;
        self.take(usize::from(len))
    }

    pub(crate) fn shortstr(&mut self) -> Result<&'a str, DecodeError> {
        let octets = self.shortstr_octets()?;
        std::str::from_utf8(octets).map_err(|_| DecodeError::MalformedUtf8)
    }

    pub(crate) fn longstr(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.long()?;
        self.take(len as usize)
    }
}

const MISSING: DecodeError = DecodeError::malformed("octets missing");

/// The longest prefix of `text` that has at most `max` bytes and ends between characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a short string, clipped to 255 bytes at a character boundary.
pub(crate) fn put_shortstr(out: &mut BytesMut, text: &str) {
    put_shortstr_octets(out, clip(text, SHORTSTR_MAX).as_bytes());
}

/// Appends the first 255 of any octets as a short string.
pub(crate) fn put_shortstr_octets(out: &mut BytesMut, octets: &[u8]) {
    let octets = &octets[..octets.len().min(SHORTSTR_MAX)];
    out.put_u8(octets.len() as u8);
    out.put_slice(octets);
}

pub(crate) fn put_longstr(out: &mut BytesMut, octets: &[u8]) {
    out.put_u32(octets.len() as u32);
    out.put_slice(octets);
}

/// Appends what `write` writes, after its length as four octets.
pub(crate) fn put_measured(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    out.put_u32(0);
    let start = out.len();
    write(out);
    let len = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&len.to_be_bytes());
}

/// Appends a method frame whose arguments `write` writes.
pub(crate) fn put_method(out: &mut BytesMut, channel: ChannelId, id: MethodId, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    let mut head = [0; frame::HEADER_BYTES + 4];
    head[0] = FrameKind::Method.octet();
    head[1..3].copy_from_slice(&channel.0.to_be_bytes());
    head[7..9].copy_from_slice(&id.class.to_be_bytes());
    head[9..11].copy_from_slice(&id.method.to_be_bytes());
    out.put_slice(&head);
    write(out);
    let len = (out.len() - start - frame::HEADER_BYTES) as u32;
    out[start + 3..start + 7].copy_from_slice(&len.to_be_bytes());
    out.put_u8(frame::END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_clipped_between_characters() {
        assert_eq!(clip("abc", 5), "abc");
        assert_eq!(clip("aü", 2), "a");
        assert_eq!(clip("€", 2), "");
        let mut out = BytesMut::new();
        put_shortstr(&mut out, &"ü".repeat(200));
        assert_eq!(out[0], 254);
        assert_eq!(out.len(), 255);
    }

    #[test]
    fn reading_past_the_end_is_refused_and_takes_nothing() {
        let mut reader = Reader::new(&[3, b'a', b'b']);
        assert_eq!(reader.longlong(), Err(MISSING));
        assert_eq!(reader.rest().len(), 3);
        assert_eq!(reader.shortstr(), Err(MISSING));
        assert_eq!(Reader::new(&[255; 8]).longstr(), Err(MISSING));
    }

    #[test]
    fn errors_name_the_method_and_close_with_rabbitmqs_codes() {
        let id = MethodId { class: 60, method: 40 };
        let reply = MISSING.within(id).reply();
        assert_eq!(reply.text, "FRAME_ERROR - cannot decode basic.publish: octets missing");
        assert_eq!((reply.code, reply.method), (ReplyCode::FrameError, id));

        let unknown = MethodId { class: 60, method: 41 };
        let reply = DecodeError::UnknownMethod(unknown).reply();
        assert_eq!(reply.text, "COMMAND_INVALID - unimplemented method");
        assert_eq!(reply.method, unknown);

        let reply = DecodeError::MalformedUtf8.within(id).reply();
        assert_eq!(reply.text, "FRAME_ERROR - Malformed UTF-8 in shortstr");
    }
}
