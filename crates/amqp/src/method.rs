//! Methods: the commands of the protocol, one module a class, one struct a method.
//!
//! Everything below this file is generated from `spec/methods.toml` by `cargo xtask codegen` and
//! checked in. A struct borrows its strings from the frame it was read from; only tables are owned.
//! Deprecated fields are read and ignored, written as zero or empty, and have no place in structs.

pub mod access;
mod all;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
pub mod queue;
#[cfg(test)]
mod round_trips;
pub mod tx;

pub use all::Method;

pub use crate::wire::DecodeError;

/// A method's class and its number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MethodId {
    /// The class, such as 60 for basic.
    pub class: u16,
    /// The number, such as 40 for publish.
    pub method: u16,
}

impl MethodId {
    /// 0 and 0: no method is at fault.
    pub const NONE: Self = Self { class: 0, method: 0 };
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::ChannelId;
    use crate::frame::{self, FrameKind};

    fn publish_arguments() -> Vec<u8> {
        b"\x00\x3c\x00\x28\x00\x07\x02ex\x03key\x01".to_vec()
    }

    #[test]
    fn a_publish_is_read_as_clients_write_it() {
        let payload = publish_arguments();
        let expected = basic::Publish { exchange: "ex", routing_key: "key", mandatory: true, immediate: false };
        let method = Method::decode(&payload).unwrap();
        assert_eq!(method, Method::BasicPublish(expected));
        assert_eq!(method.id(), basic::Publish::ID);
        assert_eq!(method.id().name(), Some("basic.publish"));
    }

    #[test]
    fn missing_and_extra_octets_are_refused_in_the_methods_name() {
        let mut payload = publish_arguments();
        for len in 4..payload.len() {
            let reply = Method::decode(&payload[..len]).unwrap_err().reply();
            assert_eq!(reply.method, basic::Publish::ID, "{len}");
            assert!(reply.text.starts_with("FRAME_ERROR - cannot decode basic.publish"));
        }
        payload.push(0);
        assert!(Method::decode(&payload).is_err());
        assert!(Method::decode(&[0, 60, 0]).is_err());
    }

    #[test]
    fn an_unknown_method_is_told_apart() {
        for payload in [[0, 60, 0, 41], [0, 61, 0, 40], [0, 40, 0, 41]] {
            let error = Method::decode(&payload).unwrap_err();
            assert!(matches!(error, DecodeError::UnknownMethod(id) if id.name().is_none()));
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_refused() {
        let payload = b"\x00\x3c\x00\x28\x00\x00\x01\xff\x00\x00";
        assert_eq!(Method::decode(payload), Err(DecodeError::MalformedUtf8));
    }

    #[test]
    fn neighbouring_bits_share_an_octet_first_in_the_lowest() {
        let declare = queue::Declare { queue: "q", durable: true, nowait: true, ..Default::default() };
        let mut out = BytesMut::new();
        declare.encode(ChannelId(1), &mut out);
        assert_eq!(&out[..], b"\x01\x00\x01\x00\x00\x00\x0d\x00\x32\x00\x0a\x00\x00\x01q\x12\x00\x00\x00\x00\xce");
    }

    #[test]
    fn reserved_fields_are_written_as_zero_and_empty() {
        let mut out = BytesMut::new();
        connection::Open { vhost: "/" }.encode(ChannelId::CONNECTION, &mut out);
        assert_eq!(&out[7..], b"\x00\x0a\x00\x28\x01/\x00\x00\xce");
        out.clear();
        channel::OpenOk.encode(ChannelId(1), &mut out);
        assert_eq!(&out[7..], b"\x00\x14\x00\x0b\x00\x00\x00\x00\xce");
    }

    proptest! {
        #[test]
        fn any_arguments_of_a_known_method_are_read_or_refused(
            id in prop::sample::select(MethodId::ALL),
            arguments in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut payload = [id.class.to_be_bytes(), id.method.to_be_bytes()].concat();
            payload.extend(arguments);
            match Method::decode(&payload) {
                Ok(method) => prop_assert_eq!(method.id(), id),
                Err(error) => prop_assert!(!matches!(error, DecodeError::UnknownMethod(_))),
            }
        }

        #[test]
        fn any_octets_are_a_method_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Method::decode(&payload);
        }
    }

    /// What the generated tests of every method assert.
    pub(super) fn assert_round_trip(method: &Method<'_>) {
        let mut out = BytesMut::from(&b"before"[..]);
        method.encode(ChannelId(9), &mut out);
        let written = &out[b"before".len()..];
        let (frame, taken) = frame::decode(written, 1 << 20).unwrap().unwrap();
        assert_eq!(taken, written.len());
        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, ChannelId(9)));
        assert_eq!(Method::decode(frame.payload).as_ref(), Ok(method));
    }
}
