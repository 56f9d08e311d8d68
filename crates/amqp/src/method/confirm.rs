//! Class 85, confirm: publisher confirms.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::wire::{self, DecodeError, Reader};

/// confirm.select: turns publisher confirms on for the channel.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Select {
    /// No reply is wanted.
    pub nowait: bool,
}

impl Select {
    /// confirm.select
    pub const ID: MethodId = MethodId { class: 85, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(u8::from(self.nowait));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        Ok(Self { nowait })
    }
}

/// confirm.select-ok: publishes are confirmed from now on.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct SelectOk;

impl SelectOk {
    /// confirm.select-ok
    pub const ID: MethodId = MethodId { class: 85, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}
