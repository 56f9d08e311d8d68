//! The AMQP 0-9-1 wire codec, in RabbitMQ's dialect.
//!
//! Bytes in, values out, and back: frames, methods, content headers, properties, field tables and
//! reply codes. It decodes what it is given and says what is wrong with it, as the reply to close
//! with; which frame may come when is the broker's to judge.
//!
//! It reads no clock, owns no socket and knows nothing of the broker. No input can make it panic,
//! recurse without bound or allocate more than a small multiple of that input. Splitting frames,
//! reading `basic.publish` and `basic.ack`, checking properties and writing deliveries allocate
//! nothing but room in the output buffer.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod content;
pub mod frame;
pub mod method;
pub mod properties;
pub mod reply;
pub mod table;
mod wire;

use std::fmt;

pub use content::ContentHeader;
pub use frame::{Frame, FrameError, FrameKind};
pub use method::{Method, MethodId};
pub use properties::{Properties, PropertyList};
pub use reply::{Reply, ReplyCode};
pub use table::{Table, Value};
pub use wire::DecodeError;

/// A channel's number on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Channel 0, which carries the connection's own methods and heartbeats.
    pub const CONNECTION: Self = Self(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
