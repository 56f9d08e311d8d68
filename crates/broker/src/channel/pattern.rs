//! The publish that a channel repeats.
//!
//! Most publishers send the same method with the same properties again and again, and only the body is new. What was
//! found out about the last publish (its names, checks, route and properties) holds for the next one whose frames are
//! the same to the octet, while the topology has not changed; so that one is compared and not parsed. Others send to
//! another routing key each time: such a *sibling* has the same frames but for the key, and nothing is found out about it
//! but where it goes.

use super::publish::Repeated;
use crate::command::{QueueIds, ShardId, VhostId};
use crate::message::{Message, PartLengths};
use crate::route::Reuse;
use crate::topology::{Routes, Topology};
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
    /// Where in `frames` the routing key's length stands, …
    key_at: usize,
    /// … and where the content header's frame begins.
    header_at: usize,
    /// The routing key of the last sibling.
    sibling_key: Vec<u8>,
}

/// A publish like the last one.
#[derive(Debug)]
pub(super) struct Match<'a> {
    body: &'a [u8],
    /// What its frames take of the input.
    pub(super) bytes: usize,
}

/// A publish like the last one, to another routing key.
#[derive(Debug)]
pub(super) struct Sibling<'a> {
    key: &'a [u8],
    body: &'a [u8],
    /// What its frames take of the input.
    pub(super) bytes: usize,
}

impl Pattern {
    /// Of a channel that has published nothing yet.
    pub(super) fn new(message: &Message, repeated: Repeated, topology: &Topology) -> Self {
        let head = message.head().to_vec();
        let (generation, lengths) = (topology.generation(), message.lengths());
        let (frames, sibling_key) = (BytesMut::new(), Vec::new());
        Self { generation, head, lengths, repeated, frames, key_at: 0, header_at: 0, sibling_key }
    }

    /// A publish came that was parsed. The message is as its client sent it.
    pub(super) fn learn(&mut self, number: ChannelId, message: &Message, repeated: Repeated, topology: &Topology) {
        let is_like = self.generation == topology.generation() && self.repeated.mandatory == repeated.mandatory;
        let is_same = is_like && self.head == message.head();
        let is_sibling = is_like && repeated.any_key && message.is_sibling(&self.head, self.lengths);
        self.frames.clear();
        self.sibling_key.clear();
        if !is_same {
            self.generation = topology.generation();
            self.head.clear();
            self.head.extend_from_slice(message.head());
            self.lengths = message.lengths();
            self.repeated = repeated;
        }
        if is_same || is_sibling {
            self.write_frames(number, message);
        }
    }

    fn write_frames(&mut self, number: ChannelId, message: &Message) {
        let (exchange, routing_key) = (message.exchange(), message.routing_key());
        let mandatory = self.repeated.mandatory;
        let publish = basic::Publish { exchange, routing_key, mandatory, immediate: false };
        publish.encode(number, &mut self.frames);
        self.header_at = self.frames.len();
        // Behind the key there are the flags and the frame's end.
        self.key_at = self.header_at - PUBLISH_END_BYTES - routing_key.len() - 1;
        content::encode_header(number, message.properties(), 0, &mut self.frames);
    }

    /// What is published like the last message at the front of `input`, if that is there as a whole.
    #[inline(always)]
    pub(super) fn find<'a>(&self, input: &'a [u8], number: ChannelId, topology: &Topology) -> Option<Match<'a>> {
        if self.frames.is_empty() || self.generation != topology.generation() {
            return None;
        }
        let (frames, rest) = input.split_at_checked(self.frames.len())?;
        let body = find_body(frames, &self.frames, self.header_at + BODY_SIZE_AT, rest, number)?;
        Some(Match { body, bytes: self.frames.len() + frame::OVERHEAD_BYTES + body.len() })
    }

    /// The same for one to another routing key.
    pub(super) fn find_sibling<'a>(
        &self,
        input: &'a [u8],
        number: ChannelId,
        topology: &Topology,
    ) -> Option<Sibling<'a>> {
        if !self.repeated.any_key || self.frames.is_empty() || self.generation != topology.generation() {
            return None;
        }
        let (front, rest) = input.split_at_checked(self.key_at)?;
        let (length, rest) = rest.split_first()?;
        let (key, rest) = rest.split_at_checked(usize::from(*length))?;
        let (end, rest) = rest.split_at_checked(PUBLISH_END_BYTES)?;
        let payload_bytes =
            u32::try_from(self.key_at + 1 + key.len() + PUBLISH_END_BYTES - frame::OVERHEAD_BYTES).ok()?;
        let is_one = front[..frame::HEADER_BYTES] == frame::header(FrameKind::Method, number, payload_bytes)
            && front[frame::HEADER_BYTES..] == self.frames[frame::HEADER_BYTES..self.key_at]
            && *end == self.frames[self.header_at - PUBLISH_END_BYTES..self.header_at];
        if !is_one {
            return None;
        }
        let expected = &self.frames[self.header_at..];
        let (header, rest) = rest.split_at_checked(expected.len())?;
        let body = find_body(header, expected, BODY_SIZE_AT, rest, number)?;
        let method_bytes = self.key_at + 1 + key.len() + PUBLISH_END_BYTES;
        let bytes = method_bytes + header.len() + frame::OVERHEAD_BYTES + body.len();
        Some(Sibling { key, body, bytes })
    }

    /// The message that was found, and where it goes.
    pub(super) fn message(&self, found: &Match<'_>) -> (Message, &Repeated) {
        // Neither more nor less: bytes without spare room are shared without another allocation.
        let mut bytes = Vec::with_capacity(self.head.len() + found.body.len());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(found.body);
        (Message::assembled(Bytes::from(bytes), self.lengths), &self.repeated)
    }

    /// Where a sibling of this routing key goes, if all that is to be done with it is to put it into queues of one shard.
    pub(super) fn route(
        &self,
        routing_key: &str,
        topology: &Topology,
        vhost: VhostId,
        routes: &mut Routes,
    ) -> Option<(ShardId, QueueIds)> {
        let (exchange, properties) = Message::exchange_and_properties(&self.head, self.lengths);
        // Requests and reply addresses are published to the default exchange, and are no queues.
        if exchange.is_empty() && routing_key.starts_with("amq.") {
            return None;
        }
        topology.route_raw(vhost, exchange, &[routing_key], properties, routes).ok()?;
        let mut by_shard = routes.by_shard();
        let only = by_shard.next()?;
        let is_all = by_shard.next().is_none() && routes.reuse != Reuse::Never;
        is_all.then_some(only)
    }

    /// The message that was found, and what it has in common with the last one.
    pub(super) fn sibling(&self, found: &Sibling<'_>) -> (Message, &Repeated) {
        (Message::readdressed(&self.head, self.lengths, found.key, found.body), &self.repeated)
    }

    /// A sibling went there. The second one in a row of the same key is what is to be compared with from now on.
    pub(super) fn note_sibling(&mut self, number: ChannelId, routing_key: &str, (shard, queues): (ShardId, QueueIds)) {
        if self.sibling_key == routing_key.as_bytes() {
            let message = Message::readdressed(&self.head, self.lengths, routing_key.as_bytes(), &[]);
            self.head.clear();
            self.head.extend_from_slice(message.head());
            self.lengths = message.lengths();
            self.repeated.move_to(shard, queues);
            self.frames.clear();
            self.write_frames(number, &message);
        }
        self.sibling_key.clear();
        self.sibling_key.extend_from_slice(routing_key.as_bytes());
    }
}

/// The body in `rest`, in one frame, if the frames before it are as expected but for the body size that stands in them there.
// Each publish that is repeated comes by here.
#[inline(always)]
fn find_body<'a>(
    frames: &[u8],
    expected: &[u8],
    size_at: usize,
    rest: &'a [u8],
    number: ChannelId,
) -> Option<&'a [u8]> {
    let size_end = size_at + size_of::<u64>();
    if frames[..size_at] != expected[..size_at] || frames[size_end..] != expected[size_end..] {
        return None;
    }
    let body_bytes = frames[size_at..size_end].try_into().map(u64::from_be_bytes).ok()?;
    let body_bytes = u32::try_from(body_bytes).ok().filter(|bytes| *bytes > 0)?;
    let (header, rest) = rest.split_first_chunk::<{ frame::HEADER_BYTES }>()?;
    if *header != frame::header(FrameKind::Body, number, body_bytes) {
        return None;
    }
    let (body, [frame::END, ..]) = rest.split_at_checked(body_bytes as usize)? else { return None };
    Some(body)
}

impl Match<'_> {
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }
}

impl<'a> Sibling<'a> {
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn routing_key(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

/// What a basic.publish ends with behind its routing key: its flags, and the frame's end.
const PUBLISH_END_BYTES: usize = 2;
/// Where in a content header's frame the body size stands.
const BODY_SIZE_AT: usize = frame::HEADER_BYTES + content::BODY_SIZE_AT;
