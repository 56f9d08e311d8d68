//! Reading one method, or one content header.

use super::Target;
use crate::conversation::method_payload;
use crate::mutation::damage;
use amqp::content::ContentHeader;
use amqp::frame::HEADER_BYTES;
use amqp::{ChannelId, Method};
use bytes::BytesMut;

// Tables are owned: an entry of three bytes becomes a name and a value of tens.
pub(super) const TARGET: Target =
    Target { name: "method", run, generate: method_payload, mutate: damage, memory: (64 << 10, 128) };

fn run(input: &[u8]) {
    match Method::decode(input) {
        Ok(method) => {
            assert!(method.id().name().is_some(), "what can be read has a name");
            let once = written(&method);
            let again = Method::decode(&once).expect("what we write can be read");
            assert_eq!(written(&again), once, "it changes from one reading to the next");
        }
        Err(error) => {
            let reply = error.reply();
            assert!(reply.code.is_hard() && reply.text.len() <= 255, "{reply:?}");
        }
    }
    if let Ok(header) = ContentHeader::decode(input) {
        let mut out = BytesMut::new();
        amqp::content::encode_header(ChannelId(1), header.properties, header.body_bytes, &mut out);
        assert_eq!(out[HEADER_BYTES..][4..out.len() - HEADER_BYTES - 1], input[4..], "it was read as something else");
    }
}

fn written(method: &Method<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    method.encode(ChannelId(1), &mut out);
    out[HEADER_BYTES..out.len() - 1].to_vec()
}
