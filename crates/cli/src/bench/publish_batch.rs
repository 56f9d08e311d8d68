//! Messages encoded ahead of a run: the same publish many times over, as octets to write at once.

use amqp::method::basic;
use amqp::{PropertyList, Table, content, frame};
use bytes::BytesMut;

use super::connection::CHANNEL;

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Route {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) headers: Option<Table>,
}

impl Route {
    /// To a queue, by the default exchange.
    pub(super) fn to_queue(queue: &str) -> Self {
        Self { routing_key: queue.to_owned(), ..Self::default() }
    }
}

/// Encoded publishes to each of some routes in turn: as many as [`BATCH_BYTES`] hold, and at least one each.
#[derive(Debug)]
pub(super) struct PublishBatch {
    octets: Vec<u8>,
    message_bytes: usize,
    body_at: usize,
    body_bytes: usize,
}

impl PublishBatch {
    /// Messages with a body of `body_bytes` to one queue; `is_persistent` sets delivery mode 2. No body frame is larger
    /// than `frame_max`.
    pub(super) fn new(queue: &str, body_bytes: usize, is_persistent: bool, frame_max: usize) -> Self {
        let delivery_mode = is_persistent.then_some(2);
        Self::with(queue, body_bytes, &PropertyList { delivery_mode, ..Default::default() }, frame_max)
    }

    /// The same with any properties.
    pub(super) fn with(queue: &str, body_bytes: usize, list: &PropertyList, frame_max: usize) -> Self {
        Self::to_routes(&[Route::to_queue(queue)], body_bytes, list, frame_max, BATCH_BYTES)
    }

    /// The same to several routes, at least one, whose headers replace those of `list`: as many as fit into `batch_bytes`,
    /// and at least one each. Routes are alike: all messages take the same number of octets.
    pub(super) fn to_routes(
        routes: &[Route],
        body_bytes: usize,
        list: &PropertyList,
        frame_max: usize,
        batch_bytes: usize,
    ) -> Self {
        let body: Vec<u8> = (0..body_bytes).map(|at| at as u8).collect();
        let (mut turn, mut body_at) = (BytesMut::new(), 0);
        for route in routes {
            let mut properties = BytesMut::new();
            let headers = route.headers.clone().or_else(|| list.headers.clone());
            PropertyList { headers, ..list.clone() }.encode(&mut properties);
            let (exchange, routing_key, began) = (&route.exchange, &route.routing_key, turn.len());
            basic::Publish { exchange, routing_key, ..Default::default() }.encode(CHANNEL, &mut turn);
            let header_bytes = frame::OVERHEAD_BYTES + HEADER_PREFIX_BYTES + properties.len();
            body_at = turn.len() - began + header_bytes + frame::HEADER_BYTES;
            content::encode_content(CHANNEL, &properties, &body, frame_max, &mut turn);
        }
        let message_bytes = turn.len() / routes.len().max(1);
        Self { octets: turn.repeat((batch_bytes / turn.len().max(1)).max(1)), message_bytes, body_at, body_bytes }
    }

    /// What one message takes, in octets.
    pub(super) fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// What its body takes.
    pub(super) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// All messages, as a ring: after the last comes the first.
    pub(super) fn ring(&self) -> &[u8] {
        &self.octets
    }

    /// How many messages there are.
    pub(super) fn messages(&self) -> u64 {
        (self.octets.len() / self.message_bytes) as u64
    }

    /// The first `messages` of them, which there must be.
    pub(super) fn octets(&self, messages: u64) -> &[u8] {
        &self.octets[..messages as usize * self.message_bytes]
    }

    /// Appends message `number` of the ring to `out`, with `stamp` as the first eight octets of its body, which must have
    /// them.
    pub(super) fn append_stamped(&self, number: u64, stamp: u64, out: &mut Vec<u8>) {
        let at = (number % self.messages()) as usize * self.message_bytes;
        let stamp_at = out.len() + self.body_at;
        out.extend_from_slice(&self.octets[at..at + self.message_bytes]);
        out[stamp_at..stamp_at + STAMP_BYTES].copy_from_slice(&stamp.to_be_bytes());
    }
}

/// What a stamp takes of a body.
pub(super) const STAMP_BYTES: usize = 8;

/// What is written at once: enough to make the call cheap, little enough to stay in the processor's cache.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Class, weight and body size, before the properties.
const HEADER_PREFIX_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use amqp::{ContentHeader, FrameKind, Method, Properties};

    #[test]
    fn a_batch_holds_whole_messages() {
        let batch = PublishBatch::new("work", 16, true, 4096);
        assert_eq!(batch.messages() as usize, BATCH_BYTES / batch.octets(1).len());
        let octets = batch.octets(2);
        let (publish, publish_bytes) = frame::decode(octets, 4096).unwrap().unwrap();
        let expected = basic::Publish { routing_key: "work", ..Default::default() };
        assert_eq!(Method::decode(publish.payload).unwrap(), Method::BasicPublish(expected));
        let (header, header_bytes) = frame::decode(&octets[publish_bytes..], 4096).unwrap().unwrap();
        let header = ContentHeader::decode(header.payload).unwrap();
        assert_eq!(header.body_bytes, 16);
        assert_eq!(Properties::parse(header.properties).unwrap().delivery_mode(), Some(2));
        let (body, body_bytes) = frame::decode(&octets[publish_bytes + header_bytes..], 4096).unwrap().unwrap();
        assert_eq!((body.kind, body.payload.len()), (FrameKind::Body, 16));
        assert_eq!(octets.len(), 2 * (publish_bytes + header_bytes + body_bytes));
    }

    #[test]
    fn a_message_may_be_larger_than_a_batch_and_may_be_empty() {
        assert_eq!(PublishBatch::new("work", 1 << 20, false, 131_072).messages(), 1);
        assert!(PublishBatch::new("work", 0, false, 131_072).messages() > 1000);
    }

    #[test]
    fn routes_take_turns() {
        let routes = ["one", "two"].map(Route::to_queue);
        let batch = PublishBatch::to_routes(&routes, 16, &PropertyList::default(), 4096, BATCH_BYTES);
        let (mut octets, mut keys) = (batch.octets(4), Vec::new());
        while let Some((frame, taken)) = frame::decode(octets, 4096).unwrap() {
            if frame.kind == FrameKind::Method
                && let Method::BasicPublish(publish) = Method::decode(frame.payload).unwrap()
            {
                keys.push(publish.routing_key);
            }
            octets = &octets[taken..];
        }
        assert_eq!(keys, ["one", "two", "one", "two"]);
        assert_eq!(batch.ring().len() % (2 * batch.message_bytes()), 0);
    }

    #[test]
    fn a_stamp_is_where_the_body_begins() {
        let mut out = b"before".to_vec();
        PublishBatch::new("work", 10_000, false, 4096).append_stamped(7, 0x0102_0304_0506_0708, &mut out);
        let mut octets = &out[6..];
        let body = loop {
            let (frame, taken) = frame::decode(octets, 4096).unwrap().unwrap();
            if frame.kind == FrameKind::Body {
                break frame;
            }
            octets = &octets[taken..];
        };
        assert_eq!(body.payload[..9], [1, 2, 3, 4, 5, 6, 7, 8, 8]);
    }
}
