//! Splits a read buffer into frames, and recognises the protocol header before them.
//!
//! ```text
//! ┌──────┬─────────┬──────┬─────────────┬──────┐
//! │ type │ channel │ size │ payload     │ 0xCE │
//! │  1   │    2    │  4   │ size octets │  1   │
//! └──────┴─────────┴──────┴─────────────┴──────┘
//! ```
//!
//! Nothing is copied: a frame borrows its payload from the buffer. What the payload means, and
//! whether such a frame may come now, is not known here.

use std::fmt;

use crate::ChannelId;
use crate::method::MethodId;
use crate::reply::{Reply, ReplyCode};

/// Octets before a frame's payload.
pub const HEADER_BYTES: usize = 7;

/// Octets of a frame that are not payload: its header and its end octet.
pub const OVERHEAD_BYTES: usize = 8;

/// The octet every frame ends with.
pub const END: u8 = 0xCE;

/// A whole heartbeat frame.
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, END];

/// What a client opens the connection with, and what a server answers to any other header.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The header of clients written for 0-9, which RabbitMQ takes too.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// Octets a frame may be over `frame_max`, since some clients leave the overhead out of the count.
const GRACE_BYTES: usize = 8;

/// How many octets of a bad frame's payload its reply text shows.
const SNIPPET_BYTES: usize = 16;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A method and its arguments.
    Method,
    /// A content header: body size and properties.
    Header,
    /// A piece of a body.
    Body,
    /// Nothing: the peer is alive.
    Heartbeat,
}

impl FrameKind {
    /// Its number on the wire.
    #[must_use]
    pub const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// One frame, borrowed from the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// The channel it is on.
    pub channel: ChannelId,
    /// What lies between header and end octet.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The explanation of a 505 for this frame, such as `type 8, all octets = <<>>`.
    #[must_use]
    pub fn snippet(&self) -> String {
        snippet(self.kind.octet(), self.payload)
    }
}

/// Octets that are not a frame. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is over the agreed size.
    TooLarge {
        /// Its type octet.
        kind: u8,
        /// Its payload's size in octets.
        payload_bytes: usize,
        /// The largest payload agreed on, in octets, without the grace.
        payload_bytes_max: usize,
    },
    /// The octet after the payload is not 0xCE.
    BadEnd {
        /// The octet found.
        end: u8,
        /// The frame's type and the beginning of its payload, as the reply prints them.
        snippet: String,
    },
    /// No frame has this type.
    UnknownKind {
        /// The type octet.
        kind: u8,
    },
}

impl FrameError {
    /// The reply to close the connection with: 501 and RabbitMQ's text.
    #[must_use]
    pub fn reply(&self) -> Reply {
        Reply::new(ReplyCode::FrameError, self, MethodId::NONE)
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { kind, payload_bytes, payload_bytes_max } => {
                let frame = snippet(*kind, &[]);
                write!(f, "{frame}: {{frame_too_large,{payload_bytes},{payload_bytes_max}}}")
            }
            Self::BadEnd { end, snippet } => {
                write!(f, "{snippet}: {{invalid_frame_end_marker,{end}}}")
            }
            Self::UnknownKind { kind } => write!(f, "{}: unknown_frame", snippet(*kind, &[])),
        }
    }
}

impl std::error::Error for FrameError {}

/// The first frame of `input` and how many octets it takes; `None` when it is not all there yet.
///
/// `frame_max` is the largest whole frame in octets, at least [`OVERHEAD_BYTES`]. As in RabbitMQ
/// a frame may be 8 octets over it.
///
/// # Errors
/// [`FrameError`] if the octets are no frame; size and type are refused on the header alone, before
/// the payload is there.
pub fn decode(input: &[u8], frame_max: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let payload_bytes = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let payload_bytes_max = frame_max.saturating_sub(OVERHEAD_BYTES);
    if payload_bytes > payload_bytes_max.saturating_add(GRACE_BYTES) {
        return Err(FrameError::TooLarge { kind, payload_bytes, payload_bytes_max });
    }
    let Some(frame_kind) = FrameKind::from_octet(kind) else {
        return Err(FrameError::UnknownKind { kind });
    };
    let Some((payload, [end, ..])) = rest.split_at_checked(payload_bytes) else {
        return Ok(None);
    };
    if *end != END {
        return Err(FrameError::BadEnd { end: *end, snippet: snippet(kind, payload) });
    }
    let channel = ChannelId(u16::from_be_bytes([c0, c1]));
    let frame = Frame { kind: frame_kind, channel, payload };
    Ok(Some((frame, payload_bytes + OVERHEAD_BYTES)))
}

/// The channel of the method frame that begins here, if one does.
#[must_use]
pub fn channel_of_method(input: &[u8]) -> Option<ChannelId> {
    match *input {
        [1, c0, c1, ..] => Some(ChannelId(u16::from_be_bytes([c0, c1]))),
        _ => None,
    }
}

/// The header of a frame with a payload of `payload_bytes`; payload and [`END`] are to follow.
#[must_use]
pub const fn header(kind: FrameKind, channel: ChannelId, payload_bytes: u32) -> [u8; HEADER_BYTES] {
    let [c0, c1] = channel.0.to_be_bytes();
    let [s0, s1, s2, s3] = payload_bytes.to_be_bytes();
    [kind.octet(), c0, c1, s0, s1, s2, s3]
}

/// Whether a connection's first octets are a protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMatch {
    /// The first 8 octets are a header the server speaks.
    Complete,
    /// The octets so far begin one.
    Partial,
    /// They do not, and no more octets can change that.
    Wrong,
}

/// Compares a connection's first octets with `AMQP 0 0 9 1` and the older `AMQP 1 1 0 9`.
#[must_use]
pub fn match_protocol_header(input: &[u8]) -> HeaderMatch {
    let accepted = [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9];
    if accepted.iter().any(|header| input.starts_with(header)) {
        HeaderMatch::Complete
    } else if accepted.iter().any(|header| header.starts_with(input)) {
        HeaderMatch::Partial
    } else {
        HeaderMatch::Wrong
    }
}

/// A frame as RabbitMQ's texts show it: up to 16 octets printed as Erlang prints a binary.
fn snippet(kind: u8, payload: &[u8]) -> String {
    let (extent, octets) = match payload.get(..SNIPPET_BYTES) {
        Some(first) if payload.len() > SNIPPET_BYTES => ("first 16", first),
        _ => ("all", payload),
    };
    let is_text = !octets.is_empty() && octets.iter().all(|octet| matches!(octet, b' '..=b'~'));
    let printed = match std::str::from_utf8(octets) {
        Ok(text) if is_text => format!("{text:?}"),
        _ => octets.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
    };
    format!("type {kind}, {extent} octets = <<{printed}>>")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME_MAX: usize = 64;

    fn frame(kind: u8, payload: &[u8], end: u8) -> Vec<u8> {
        let mut octets = vec![kind, 0x01, 0x02];
        octets.extend((payload.len() as u32).to_be_bytes());
        octets.extend(payload);
        octets.push(end);
        octets
    }

    #[test]
    fn a_frame_needs_all_its_octets_and_leaves_the_next_alone() {
        let mut input = frame(1, b"hello", END);
        for len in 0..input.len() {
            assert_eq!(decode(&input[..len], FRAME_MAX), Ok(None), "{len}");
        }
        input.extend(HEARTBEAT);
        let (first, taken) = decode(&input, FRAME_MAX).unwrap().unwrap();
        assert_eq!(first, Frame { kind: FrameKind::Method, channel: ChannelId(0x0102), payload: b"hello" });
        let (second, rest) = decode(&input[taken..], FRAME_MAX).unwrap().unwrap();
        assert_eq!(second, Frame { kind: FrameKind::Heartbeat, channel: ChannelId::CONNECTION, payload: b"" });
        assert_eq!(taken + rest, input.len());
    }

    #[test]
    fn eight_octets_too_many_are_tolerated_and_nine_refused_on_the_header_alone() {
        let tolerated = frame(3, &[0; FRAME_MAX], END);
        assert!(decode(&tolerated, FRAME_MAX).unwrap().is_some());
        let refused = frame(3, &[0; FRAME_MAX + 1], END);
        let error = decode(&refused[..HEADER_BYTES], FRAME_MAX).unwrap_err();
        assert_eq!(error.reply().text, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,65,56}");
    }

    #[test]
    fn a_bad_end_is_refused_and_shows_the_payload() {
        let text = |payload: &[u8]| decode(&frame(1, payload, 7), FRAME_MAX).unwrap_err().reply().text;
        assert_eq!(text(b""), "FRAME_ERROR - type 1, all octets = <<>>: {invalid_frame_end_marker,7}");
        assert_eq!(
            text(&[9; 17]),
            "FRAME_ERROR - type 1, first 16 octets = <<9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9>>: \
             {invalid_frame_end_marker,7}"
        );
        assert!(text(b"abc").contains("all octets = <<\"abc\">>"));
    }

    #[test]
    fn an_unknown_type_is_refused_on_the_header_alone() {
        let error = decode(&frame(4, b"", END)[..HEADER_BYTES], FRAME_MAX).unwrap_err();
        assert_eq!(error, FrameError::UnknownKind { kind: 4 });
        assert_eq!(error.reply().code, ReplyCode::FrameError);
    }

    #[test]
    fn both_protocol_headers_match_octet_by_octet() {
        for header in [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9] {
            for len in 0..header.len() {
                assert_eq!(match_protocol_header(&header[..len]), HeaderMatch::Partial, "{len}");
            }
            assert_eq!(match_protocol_header(&header), HeaderMatch::Complete);
            assert_eq!(match_protocol_header(&[&header[..], &[1]].concat()), HeaderMatch::Complete);
        }
        for wrong in [&b"G"[..], b"AMQX", b"AMQP\x00\x00\x09\x00", b"AMQP\x03\x01\x00\x00", b"\x16\x03\x01"] {
            assert_eq!(match_protocol_header(wrong), HeaderMatch::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn a_written_header_reads_back() {
        let mut octets = header(FrameKind::Body, ChannelId(7), 2).to_vec();
        octets.extend([1, 2, END]);
        let (frame, _) = decode(&octets, FRAME_MAX).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: FrameKind::Body, channel: ChannelId(7), payload: &[1, 2] });
        assert_eq!(frame.snippet(), "type 3, all octets = <<1,2>>");
    }

    proptest! {
        #[test]
        fn any_octets_are_a_frame_an_error_or_too_few(
            input in proptest::collection::vec(any::<u8>(), 0..80), frame_max in 0_usize..80,
        ) {
            if let Ok(Some((frame, taken))) = decode(&input, frame_max) {
                prop_assert_eq!(taken, frame.payload.len() + OVERHEAD_BYTES);
                prop_assert!(taken <= input.len());
            }
        }
    }
}
