//! Frames, methods and content headers, read and thrown away.

use crate::{Rounds, wire};
use amqp::{ContentHeader, FrameKind, Method, frame};
use bytes::BytesMut;
use std::hint::black_box;

struct Decode {
    input: BytesMut,
}

/// Publishes of 16 bytes, a read of the socket at a time.
pub(crate) fn prepare() -> Box<dyn Rounds> {
    let mut input = BytesMut::new();
    for _ in 0..MESSAGES {
        wire::publish("", "queue", wire::TRANSIENT, &[b'x'; 16], &mut input);
    }
    Box::new(Decode { input })
}

impl Rounds for Decode {
    fn round(&mut self) -> u64 {
        let mut rest = &self.input[..];
        let mut bodies = 0;
        while let Some((frame, taken)) = frame::decode(rest, wire::FRAME_MAX).expect("made by our own encoder") {
            match frame.kind {
                FrameKind::Method => {
                    black_box(Method::decode(frame.payload).expect("made by our own encoder"));
                }
                FrameKind::Header => {
                    black_box(ContentHeader::decode(frame.payload).expect("made by our own encoder"));
                }
                FrameKind::Body => bodies += 1,
                FrameKind::Heartbeat => {}
            }
            rest = &rest[taken..];
        }
        assert_eq!(bodies, MESSAGES, "every message has one");
        bodies
    }
}

const MESSAGES: u64 = 1000;
