//! The publish that a channel repeats.
//!
//! Most publishers send the same method with the same properties again and again, and only the body is new. What was
//! found out about the last publish (its names, checks, route and properties) holds for the next one whose frames are
//! the same to the octet, while the topology has not changed; so that one is compared and not parsed.

use super::publish::Repeated;
use crate::message::{Message, PartLengths};
use crate::topology::Topology;
use amqp::frame::{self, FrameKind};
use amqp::method::basic;
use amqp::{ChannelId, content};
use bytes::{Bytes, BytesMut};

/// See the module.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Of the topology that it was found out of.
    generation: u64,
    /// The message's bytes before its body.
    head: Vec<u8>,
    lengths: PartLengths,
    /// The publish's flags and where it goes.
    repeated: Repeated,
    /// What the next publish has to begin with. Empty until one like the last has come: what never comes again is not
    /// worth writing down.
    frames: BytesMut,
    /// Where in `frames` the content header's body size stands.
    body_size_at: usize,
}

/// A publish like the last one.
#[derive(Debug)]
pub(super) struct Match<'a> {
    body: &'a [u8],
    /// What its frames take of the input.
    pub(super) bytes: usize,
}

impl Pattern {
    /// Of a channel that has published nothing yet.
    pub(super) fn new(message: &Message, repeated: Repeated, topology: &Topology) -> Self {
        let head = message.head().to_vec();
        let (generation, lengths) = (topology.generation(), message.lengths());
        Self { generation, head, lengths, repeated, frames: BytesMut::new(), body_size_at: 0 }
    }

    /// A publish came that was parsed. The message is as its client sent it.
    pub(super) fn learn(&mut self, number: ChannelId, message: &Message, repeated: Repeated, topology: &Topology) {
        let same = self.generation == topology.generation()
            && self.head == message.head()
            && self.repeated.mandatory == repeated.mandatory;
        self.frames.clear();
        if !same {
            self.generation = topology.generation();
            self.head.clear();
            self.head.extend_from_slice(message.head());
            self.lengths = message.lengths();
            self.repeated = repeated;
            return;
        }
        let (exchange, routing_key) = (message.exchange(), message.routing_key());
        let publish = basic::Publish { exchange, routing_key, mandatory: repeated.mandatory, immediate: false };
        publish.encode(number, &mut self.frames);
        self.body_size_at = self.frames.len() + frame::HEADER_BYTES + content::BODY_SIZE_AT;
        content::encode_header(number, message.properties(), 0, &mut self.frames);
    }

    /// What is published like the last message at the front of `input`, if that is there as a whole.
    pub(super) fn find<'a>(&self, input: &'a [u8], number: ChannelId, topology: &Topology) -> Option<Match<'a>> {
        if self.frames.is_empty() || self.generation != topology.generation() {
            return None;
        }
        let (frames, rest) = input.split_at_checked(self.frames.len())?;
        let (size_at, size_end) = (self.body_size_at, self.body_size_at + size_of::<u64>());
        let same = frames[..size_at] == self.frames[..size_at] && frames[size_end..] == self.frames[size_end..];
        if !same {
            return None;
        }
        let body_bytes = frames[size_at..size_end].try_into().map(u64::from_be_bytes).ok()?;
        let body_bytes = u32::try_from(body_bytes).ok().filter(|bytes| *bytes > 0)?;
        let (header, rest) = rest.split_first_chunk::<{ frame::HEADER_BYTES }>()?;
        if *header != frame::header(FrameKind::Body, number, body_bytes) {
            return None;
        }
        let (body, [frame::END, ..]) = rest.split_at_checked(body_bytes as usize)? else { return None };
        Some(Match { body, bytes: self.frames.len() + frame::OVERHEAD_BYTES + body.len() })
    }

    /// The message that was found, and where it goes.
    pub(super) fn message(&self, found: &Match<'_>) -> (Message, &Repeated) {
        // Neither more nor less: bytes without spare room are shared without another allocation.
        let mut bytes = Vec::with_capacity(self.head.len() + found.body.len());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(found.body);
        (Message::assembled(Bytes::from(bytes), self.lengths), &self.repeated)
    }
}

impl Match<'_> {
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }
}
