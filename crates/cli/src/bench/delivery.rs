//! The receiving half of a consumer: tells deliveries apart and writes acks. It looks at no more of a frame than it needs.

use std::fmt;
use std::str::FromStr;

use amqp::method::basic;
use amqp::{ContentHeader, Frame, FrameKind, frame};
use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;

use super::connection::{CHANNEL, method_id, pass_over};

/// Puts the frames of deliveries together.
#[derive(Debug, Default)]
pub(super) enum DeliveryReader {
    /// Between deliveries.
    #[default]
    Idle,
    /// Of the delivery with this tag, the content header is to come.
    Header(u64),
    /// Of the delivery with this tag, the rest of the body is to come.
    Body {
        /// Its delivery tag.
        tag: u64,
        /// Octets to come, more than 0.
        left: u64,
        /// Whether none has come yet.
        is_first: bool,
    },
}

impl DeliveryReader {
    /// Takes one frame from the beginning of `octets`, or a whole delivery if it is all there; how many octets that was,
    /// `None` if there is no whole frame. `begin` is given what there is of each body first, `end` each complete delivery's
    /// tag.
    #[inline]
    pub(super) fn take(
        &mut self,
        octets: &[u8],
        frame_max: usize,
        begin: impl FnOnce(&[u8]),
        end: impl FnOnce(u64),
    ) -> Result<Option<usize>> {
        if let Self::Idle = self
            && let Some((tag, body, taken)) = whole_delivery(octets)
        {
            begin(body);
            end(tag);
            return Ok(Some(taken));
        }
        let Some((frame, taken)) = frame::decode(octets, frame_max)? else { return Ok(None) };
        if self.awaits_body() {
            begin(frame.payload);
        }
        if let Some(tag) = self.read(&frame)? {
            end(tag);
        }
        Ok(Some(taken))
    }

    /// Takes the next frame; the delivery's tag when it is complete with it.
    #[inline]
    pub(super) fn read(&mut self, frame: &Frame<'_>) -> Result<Option<u64>> {
        match (frame.kind, &mut *self) {
            (FrameKind::Method, Self::Idle) if method_id(frame) == Some(basic::Deliver::ID) => {
                *self = Self::Header(delivery_tag(frame.payload).context("a basic.deliver is too short")?);
                Ok(None)
            }
            (FrameKind::Header, &mut Self::Header(tag)) => {
                let left = ContentHeader::decode(frame.payload)?.body_bytes;
                if left == 0 {
                    *self = Self::Idle;
                    return Ok(Some(tag));
                }
                *self = Self::Body { tag, left, is_first: true };
                Ok(None)
            }
            (FrameKind::Body, Self::Body { tag, left, is_first }) => {
                *left =
                    left.checked_sub(frame.payload.len() as u64).context("a body is longer than its header says")?;
                *is_first = false;
                let complete = (*left == 0).then_some(*tag);
                if complete.is_some() {
                    *self = Self::Idle;
                }
                Ok(complete)
            }
            (FrameKind::Method | FrameKind::Heartbeat, _) => pass_over(frame).map(|()| None),
            (kind, _) => bail!("the broker sent a {kind:?} frame out of turn"),
        }
    }

    /// Whether a body frame now would be the first of its body.
    #[inline]
    pub(super) fn awaits_body(&self) -> bool {
        matches!(self, Self::Body { is_first: true, .. })
    }
}

/// A delivery of three frames that are all there at the beginning of `octets`: its tag, its body, and how many octets it
/// takes. What is not quite that is left to the reader of frames, errors too.
#[inline]
fn whole_delivery(octets: &[u8]) -> Option<(u64, &[u8], usize)> {
    let payload = |at: usize, kind: FrameKind| {
        let header = octets.get(at..at + frame::HEADER_BYTES)?;
        let bytes = u32::from_be_bytes(*header[3..].first_chunk()?) as usize;
        let payload = octets.get(at + frame::HEADER_BYTES..)?.get(..=bytes)?;
        (header[0] == kind.octet() && payload[bytes] == frame::END).then(|| &payload[..bytes])
    };
    let method = payload(0, FrameKind::Method)?;
    if !method.starts_with(&DELIVER) {
        return None;
    }
    let header_at = method.len() + frame::OVERHEAD_BYTES;
    let header = payload(header_at, FrameKind::Header)?;
    let body_bytes = u64::from_be_bytes(*header.get(4..)?.first_chunk()?);
    let body_at = header_at + header.len() + frame::OVERHEAD_BYTES;
    let body = payload(body_at, FrameKind::Body)?;
    let tag = delivery_tag(method)?;
    (body.len() as u64 == body_bytes).then_some((tag, body, body_at + body.len() + frame::OVERHEAD_BYTES))
}

/// The numbers of basic.deliver.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// The tag that follows a basic.deliver's consumer tag.
fn delivery_tag(payload: &[u8]) -> Option<u64> {
    let arguments = payload.get(4..)?;
    let consumer_tag_bytes = usize::from(*arguments.first()?);
    arguments.get(1 + consumer_tag_bytes..)?.first_chunk().copied().map(u64::from_be_bytes)
}

/// How a consumer settles what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckMode {
    /// Not at all: the broker forgets what it has delivered.
    Auto,
    /// An ack for each delivery.
    Each,
    /// One ack for this many.
    Every(u32),
}

impl AckMode {
    /// Whether a consumer can go on with this `prefetch` (0 is no limit).
    pub(super) fn check(self, prefetch: u16) -> Result<()> {
        let Self::Every(count) = self else { return Ok(()) };
        ensure!(prefetch == 0 || count <= u32::from(prefetch), "--ack {count} never comes with --prefetch {prefetch}");
        Ok(())
    }
}

impl FromStr for AckMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "each" => Ok(Self::Each),
            number => match number.parse() {
                Ok(count @ 1..) => Ok(Self::Every(count)),
                _ => Err("auto, each, or how many to acknowledge at once".to_owned()),
            },
        }
    }
}

impl fmt::Display for AckMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Each => f.write_str("each"),
            Self::Every(count) => count.fmt(f),
        }
    }
}

/// The acks of one read, to be written at once.
#[derive(Debug)]
pub(super) struct Acks {
    mode: AckMode,
    /// An encoded ack whose tag is to be filled in.
    ack: BytesMut,
    octets: Vec<u8>,
    unsettled: u32,
}

impl Acks {
    pub(super) fn new(mode: AckMode) -> Self {
        let mut ack = BytesMut::new();
        basic::Ack { delivery_tag: 0, multiple: matches!(mode, AckMode::Every(_)) }.encode(CHANNEL, &mut ack);
        Self { mode, ack, octets: Vec::new(), unsettled: 0 }
    }

    /// Adds what there is to say when the delivery `tag` has come.
    #[inline]
    pub(super) fn settle(&mut self, tag: u64) {
        match self.mode {
            AckMode::Auto => return,
            AckMode::Each => {}
            AckMode::Every(count) => {
                self.unsettled += 1;
                if self.unsettled < count {
                    return;
                }
                self.unsettled = 0;
            }
        }
        let tag_at = self.octets.len() + ACK_TAG_AT;
        self.octets.extend_from_slice(&self.ack);
        self.octets[tag_at..tag_at + 8].copy_from_slice(&tag.to_be_bytes());
    }

    /// What there is to write.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Notes that it was written.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
    }
}

/// Where an ack frame's tag lies: after the frame's header and the method's numbers.
const ACK_TAG_AT: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;
    use amqp::{Method, content, frame};

    fn delivery(tag: u64, body: &[u8], out: &mut BytesMut) {
        let deliver = basic::Deliver {
            consumer_tag: "ctag",
            delivery_tag: tag,
            redelivered: false,
            exchange: "",
            routing_key: "work",
        };
        deliver.encode(CHANNEL, out);
        content::encode_content(CHANNEL, &[0, 0], body, 12, out);
    }

    #[test]
    fn deliveries_are_told_apart_whatever_their_bodies() {
        let mut octets = BytesMut::new();
        for (tag, body) in [(7, &b"a body in pieces"[..]), (8, b""), (u64::MAX, b"abcd")] {
            delivery(tag, body, &mut octets);
        }
        let (mut reader, mut tags, mut bodies, mut at) = (DeliveryReader::default(), Vec::new(), 0, 0);
        while let Some((frame, taken)) = frame::decode(&octets[at..], 4096).unwrap() {
            bodies += usize::from(reader.awaits_body());
            tags.extend(reader.read(&frame).unwrap());
            at += taken;
        }
        assert_eq!((tags, bodies), (vec![7, 8, u64::MAX], 2));
    }

    #[test]
    fn deliveries_are_the_same_whole_and_in_pieces() {
        let mut octets = BytesMut::new();
        for (tag, body) in [(7, &b"a body in pieces"[..]), (8, b""), (9, b"abcd"), (u64::MAX, b"dcba")] {
            delivery(tag, body, &mut octets);
        }
        for piece in 1..=octets.len() {
            let (mut reader, mut tags, mut begun, mut at) = (DeliveryReader::default(), Vec::new(), Vec::new(), 0);
            for end in (piece..octets.len() + piece).step_by(piece) {
                let end = end.min(octets.len());
                let (begin, finish) = (&mut begun, &mut tags);
                while let Some(taken) = reader
                    .take(&octets[at..end], 4096, |body| begin.push(body.first().copied()), |tag| finish.push(tag))
                    .unwrap()
                {
                    at += taken;
                }
            }
            assert_eq!(tags, [7, 8, 9, u64::MAX], "{piece}");
            assert_eq!(begun, [Some(b'a'), Some(b'a'), Some(b'd')], "{piece}");
        }
    }

    #[test]
    fn frames_out_of_turn_are_refused() {
        let body = Frame { kind: FrameKind::Body, channel: CHANNEL, payload: b"abc" };
        assert!(DeliveryReader::default().read(&body).is_err());
        assert!(DeliveryReader::Body { tag: 1, left: 2, is_first: true }.read(&body).is_err());
        let deliver = Frame { kind: FrameKind::Method, channel: CHANNEL, payload: &[0, 60, 0, 60, 9, 1] };
        assert!(DeliveryReader::default().read(&deliver).is_err());
    }

    #[test]
    fn acks_are_parsed() {
        let parsed: Vec<AckMode> = ["auto", "each", "1", "50"].map(|text| text.parse().unwrap()).into();
        assert_eq!(parsed, [AckMode::Auto, AckMode::Each, AckMode::Every(1), AckMode::Every(50)]);
        for text in ["", "0", "-1", "none", "4294967296"] {
            assert!(text.parse::<AckMode>().is_err(), "{text}");
        }
        assert!(AckMode::Every(51).check(50).is_err());
        assert!(AckMode::Every(51).check(0).is_ok() && AckMode::Every(50).check(50).is_ok());
    }

    fn acks_of_seven(mode: AckMode) -> Vec<(u64, bool)> {
        let mut acks = Acks::new(mode);
        (1..=7).for_each(|tag| acks.settle(tag));
        let (mut found, mut octets) = (Vec::new(), acks.octets());
        while let Some((frame, taken)) = frame::decode(octets, 4096).unwrap() {
            let Method::BasicAck(ack) = Method::decode(frame.payload).unwrap() else { panic!("an ack was expected") };
            found.push((ack.delivery_tag, ack.multiple));
            octets = &octets[taken..];
        }
        found
    }

    #[test]
    fn each_delivery_or_every_nth_is_acknowledged() {
        assert_eq!(acks_of_seven(AckMode::Auto), []);
        assert_eq!(acks_of_seven(AckMode::Each), (1..=7).map(|tag| (tag, false)).collect::<Vec<_>>());
        assert_eq!(acks_of_seven(AckMode::Every(3)), [(3, true), (6, true)]);
    }
}
