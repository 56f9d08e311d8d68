//! Acknowledgements that follow one another.
//!
//! Most consumers acknowledge each delivery, in the order in which they came. Such frames differ in nothing but a tag
//! that is one higher each time, so a run of them is compared and not parsed, and its channel is looked up once. What
//! is not quite so (another order, `multiple`, an unknown tag, a transaction) goes the usual way, frame by frame.

use super::consume::send_settlement;
use crate::command::{Now, Settlement};
use crate::connection::{Connection, Effects};
use amqp::ChannelId;
use amqp::frame::{self, FrameKind};
use amqp::method::basic;

impl Connection {
    /// Takes the acknowledgements at the front of `input` that settle the channel's oldest deliveries one by one; how
    /// many bytes they were. `None` if the first frame is none of those.
    pub(crate) fn acknowledge_run(&mut self, now: Now, input: &[u8], fx: &mut Effects) -> Option<usize> {
        let (first, _) = input.split_first_chunk()?;
        let (number, first_tag) = ack_of_one(first)?;
        let channel = self.channels.get_mut(&number)?;
        if !channel.is_usual() {
            return None;
        }
        let mut count = 0;
        let (frames, _) = input.as_chunks::<ACK_BYTES>();
        for frame in frames {
            let tag = first_tag.wrapping_add(count);
            if frame[..TAG_AT] != first[..TAG_AT] || frame[TAG_AT..] != after_head(tag) {
                break;
            }
            let Some(unacked) = channel.unacked.take_first(tag) else { break };
            send_settlement(unacked, Settlement::Ack, fx);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        channel.counters.ack += count;
        channel.used_unix_ms = now.unix_ms;
        if !channel.held.is_empty() {
            self.send_held(number, fx);
        }
        Some(count as usize * ACK_BYTES)
    }
}

/// The channel and the tag of a basic.ack of one delivery.
fn ack_of_one(frame: &[u8; ACK_BYTES]) -> Option<(ChannelId, u64)> {
    let number = frame::channel_of_method(frame)?;
    let tag = u64::from_be_bytes(frame[TAG_AT..TAG_AT + size_of::<u64>()].try_into().ok()?);
    let is_one = frame[..frame::HEADER_BYTES] == frame::header(FrameKind::Method, number, PAYLOAD_BYTES)
        && frame[frame::HEADER_BYTES..TAG_AT] == METHOD
        && frame[TAG_AT..] == after_head(tag);
    is_one.then_some((number, tag))
}

/// What follows the method's id: the tag, no `multiple`, the frame's end.
fn after_head(tag: u64) -> [u8; 10] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tag.to_be_bytes();
    [t0, t1, t2, t3, t4, t5, t6, t7, 0, frame::END]
}

/// basic.ack, as it begins a payload.
const METHOD: [u8; 4] = [0, basic::Ack::ID.class as u8, 0, basic::Ack::ID.method as u8];
/// The id, the tag and the flags.
const PAYLOAD_BYTES: u32 = 13;
const TAG_AT: usize = frame::HEADER_BYTES + METHOD.len();
const ACK_BYTES: usize = PAYLOAD_BYTES as usize + frame::OVERHEAD_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn encoded(tag: u64, multiple: bool) -> [u8; ACK_BYTES] {
        let mut out = BytesMut::new();
        basic::Ack { delivery_tag: tag, multiple }.encode(ChannelId(7), &mut out);
        out[..].try_into().unwrap()
    }

    #[test]
    fn an_acknowledgement_of_one_is_told_by_its_octets() {
        assert_eq!(ack_of_one(&encoded(300, false)), Some((ChannelId(7), 300)));
        assert_eq!(ack_of_one(&encoded(300, true)), None);
        for at in (0..ACK_BYTES).filter(|at| ![1, 2].contains(at) && !(TAG_AT..TAG_AT + 8).contains(at)) {
            let mut other = encoded(300, false);
            other[at] ^= 2;
            assert_eq!(ack_of_one(&other), None, "octet {at}");
        }
    }
}
