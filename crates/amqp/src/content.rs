//! Content: the header frame that says how long a body is and what properties it has, and the
//! body frames it is split into.
//!
//! Properties pass through as raw octets; see [`crate::properties`] for what is in them.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::frame::{self, FrameKind, OVERHEAD_BYTES};
use crate::method::{MethodId, basic};
use crate::wire::{DecodeError, Reader};

/// The only class whose methods carry content: basic.
pub const CLASS: u16 = 60;

/// Where in a content header's payload the body size stands: after class and weight.
pub const BODY_SIZE_AT: usize = 4;

/// Octets of a content header before the properties: class, weight and body size.
const PREFIX_BYTES: usize = BODY_SIZE_AT + 8;

/// A content header frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method the content belongs to; [`CLASS`] unless the peer errs.
    pub class: u16,
    /// The whole body's length in octets, over all its frames.
    pub body_bytes: u64,
    /// Property flags and property list, not looked at yet.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads a header frame's payload.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when it is too short or its weight is not 0.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let class = reader.short()?;
        if reader.short()? != 0 {
            return Err(DecodeError::malformed("weight is not 0"));
        }
        let body_bytes = reader.longlong()?;
        Ok(Self { class, body_bytes, properties: reader.rest() })
    }
}

/// Appends a message's content: its header frame and as many body frames as it takes.
///
/// `properties` are the raw octets of a content header, flags included. `frame_max` is the largest
/// whole frame in octets, more than [`OVERHEAD_BYTES`]; it bounds body frames only, as a header
/// cannot be split.
pub fn encode_content(channel: ChannelId, properties: &[u8], body: &[u8], frame_max: usize, out: &mut BytesMut) {
    encode_header(channel, properties, body.len() as u64, out);
    for range in body_frames(body.len(), frame_max) {
        let piece = &body[range];
        out.reserve(piece.len() + OVERHEAD_BYTES);
        out.put_slice(&frame::header(FrameKind::Body, channel, piece.len() as u32));
        out.put_slice(piece);
        out.put_u8(frame::END);
    }
}

/// Appends a basic.deliver and the content that follows it, all in one: what most of a broker's output is.
///
/// `names` are the exchange and the routing key as two short strings; the consumer tag has at most 255 octets, and the
/// body fits into one frame or is empty.
pub fn encode_delivery(channel: ChannelId, delivery: &Delivery<'_>, out: &mut BytesMut) {
    let Delivery { consumer_tag, delivery_tag, redelivered, names, properties, body } = *delivery;
    let method_bytes = DELIVER_BYTES + consumer_tag.len() + names.len();
    let header_bytes = PREFIX_BYTES + properties.len();
    out.reserve(method_bytes + header_bytes + body.len() + 3 * OVERHEAD_BYTES);
    let MethodId { class, method } = basic::Deliver::ID;
    out.put_slice(&frame::header(FrameKind::Method, channel, method_bytes as u32));
    out.put_u32(u32::from(class) << 16 | u32::from(method));
    out.put_u8(consumer_tag.len() as u8);
    out.put_slice(consumer_tag);
    out.put_u64(delivery_tag);
    out.put_u8(u8::from(redelivered));
    out.put_slice(names);
    let mut header = [0; 1 + frame::HEADER_BYTES + PREFIX_BYTES];
    header[0] = frame::END;
    header[1..8].copy_from_slice(&frame::header(FrameKind::Header, channel, header_bytes as u32));
    header[8..10].copy_from_slice(&CLASS.to_be_bytes());
    header[8 + BODY_SIZE_AT..].copy_from_slice(&(body.len() as u64).to_be_bytes());
    out.put_slice(&header);
    out.put_slice(properties);
    out.put_u8(frame::END);
    if !body.is_empty() {
        out.put_slice(&frame::header(FrameKind::Body, channel, body.len() as u32));
        out.put_slice(body);
        out.put_u8(frame::END);
    }
}

/// What [`encode_delivery`] appends.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Which consumer it is for.
    pub consumer_tag: &'a [u8],
    /// What the client settles it by.
    pub delivery_tag: u64,
    /// Delivered before, maybe.
    pub redelivered: bool,
    /// Exchange and routing key.
    pub names: &'a [u8],
    /// The raw octets of a content header, flags included.
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// Octets of a basic.deliver beside the names in it: class, method, the tag's length, delivery tag, redelivered.
const DELIVER_BYTES: usize = 14;

/// Appends a content header frame alone, for a body of `body_bytes` that is written apart.
pub fn encode_header(channel: ChannelId, properties: &[u8], body_bytes: u64, out: &mut BytesMut) {
    let payload_bytes = PREFIX_BYTES + properties.len();
    out.reserve(payload_bytes + OVERHEAD_BYTES);
    out.put_slice(&frame::header(FrameKind::Header, channel, payload_bytes as u32));
    out.put_u16(CLASS);
    out.put_u16(0);
    out.put_u64(body_bytes);
    out.put_slice(properties);
    out.put_u8(frame::END);
}

/// The pieces a body is sent in, each no longer than `frame_max` allows; none for an empty body.
///
/// Each is to be written between [`frame::header`] and [`frame::END`].
pub fn body_frames(body_bytes: usize, frame_max: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let piece_bytes = frame_max.saturating_sub(OVERHEAD_BYTES).max(1);
    (0..body_bytes.div_ceil(piece_bytes)).map(move |piece| {
        let start = piece * piece_bytes;
        start..(start + piece_bytes).min(body_bytes)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_body_has_no_body_frame() {
        let mut out = BytesMut::new();
        encode_content(ChannelId(1), &[0, 0], b"", 4096, &mut out);
        let (frame, taken) = frame::decode(&out, 4096).unwrap().unwrap();
        assert_eq!(taken, out.len());
        let header = ContentHeader::decode(frame.payload).unwrap();
        assert_eq!(header, ContentHeader { class: 60, body_bytes: 0, properties: &[0, 0] });
    }

    #[test]
    fn a_body_that_just_fits_is_one_frame() {
        let lengths = |len, max| body_frames(len, max).map(|range| range.len()).collect::<Vec<_>>();
        assert_eq!(lengths(4088, 4096), [4088]);
        assert_eq!(lengths(4089, 4096), [4088, 1]);
        assert_eq!(lengths(0, 4096), [0; 0]);
    }

    #[test]
    fn a_short_header_or_a_weight_is_refused() {
        let good = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(ContentHeader::decode(&good).unwrap().body_bytes, 5);
        for len in 0..good.len() {
            assert!(ContentHeader::decode(&good[..len]).is_err());
        }
        assert!(ContentHeader::decode(&[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]).is_err());
    }

    proptest! {
        #[test]
        fn a_delivery_in_one_is_its_method_and_its_content(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            properties in proptest::collection::vec(any::<u8>(), 0..20),
            names in ("[a-z.]{0,30}", "[a-zü.]{0,30}", "[a-z]{0,255}"),
            delivery_tag in any::<u64>(), redelivered in any::<bool>(),
        ) {
            let (exchange, routing_key, consumer_tag) = (&*names.0, &*names.1, &*names.2);
            let mut parts = BytesMut::new();
            let deliver = basic::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key };
            deliver.encode(ChannelId(7), &mut parts);
            encode_content(ChannelId(7), &properties, &body, 4096, &mut parts);
            let mut names = vec![exchange.len() as u8];
            names.extend(exchange.as_bytes());
            names.push(routing_key.len() as u8);
            names.extend(routing_key.as_bytes());
            let (mut whole, consumer_tag) = (BytesMut::new(), consumer_tag.as_bytes());
            let (names, properties, body) = (&names[..], &properties[..], &body[..]);
            let delivery = Delivery { consumer_tag, delivery_tag, redelivered, names, properties, body };
            encode_delivery(ChannelId(7), &delivery, &mut whole);
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn content_splits_and_joins_again(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            properties in proptest::collection::vec(any::<u8>(), 0..20),
            frame_max in 9_usize..100,
        ) {
            let mut out = BytesMut::new();
            encode_content(ChannelId(3), &properties, &body, frame_max, &mut out);
            let (frame, mut at) = frame::decode(&out, 4096).unwrap().unwrap();
            let header = ContentHeader::decode(frame.payload).unwrap();
            prop_assert_eq!(header.properties, &properties[..]);
            prop_assert_eq!(header.body_bytes, body.len() as u64);
            let mut joined: Vec<u8> = Vec::new();
            while let Some((frame, taken)) = frame::decode(&out[at..], 4096).unwrap() {
                prop_assert_eq!(frame.kind, FrameKind::Body);
                prop_assert!(taken <= frame_max);
                joined.extend(frame.payload);
                at += taken;
            }
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(joined, body);
        }

        #[test]
        fn any_octets_are_a_header_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = ContentHeader::decode(&payload);
        }
    }
}
