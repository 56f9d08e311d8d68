//! Splitting bytes into frames.

use super::Target;
use crate::conversation::conversation;
use crate::mutation::damage_frames;
use amqp::frame::{self, END, HeaderMatch, OVERHEAD_BYTES};

pub(super) const TARGET: Target =
    Target { name: "frame", run, generate: conversation, mutate: damage_frames, memory: (64 << 10, 16) };

fn run(input: &[u8]) {
    for frame_max in [OVERHEAD_BYTES, 4096, 131_072] {
        let mut rest = input;
        loop {
            match frame::decode(rest, frame_max) {
                Ok(Some((frame, taken))) => {
                    let (whole, after) = rest.split_at(taken);
                    assert_eq!(frame::decode(&whole[..taken - 1], frame_max), Ok(None), "it was whole too early");
                    let mut written = frame::header(frame.kind, frame.channel, frame.payload.len() as u32).to_vec();
                    written.extend_from_slice(frame.payload);
                    written.push(END);
                    assert_eq!(written, whole, "it was read as something else");
                    let _ = frame.snippet();
                    rest = after;
                }
                Ok(None) => break,
                Err(error) => {
                    let reply = error.reply();
                    assert!(reply.code.is_hard() && reply.text.len() <= 255, "{reply:?}");
                    break;
                }
            }
        }
    }
    let length = frame::PROTOCOL_HEADER.len();
    match frame::match_protocol_header(input) {
        HeaderMatch::Complete => assert!(input.len() >= length, "eight bytes"),
        HeaderMatch::Partial => assert!(input.len() < length, "not yet eight bytes"),
        HeaderMatch::Wrong => assert!(!input.is_empty(), "nothing is never wrong"),
    }
}
