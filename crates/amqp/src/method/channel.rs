//! Class 20, channel: opening, pausing and closing a channel.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::wire::{self, DecodeError, Reader};

/// channel.open: opens the channel the frame names.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Open;

impl Open {
    /// channel.open
    pub const ID: MethodId = MethodId { class: 20, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(0);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.shortstr_octets()?;
        Ok(Self)
    }
}

/// channel.open-ok: the channel is open.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct OpenOk;

impl OpenOk {
    /// channel.open-ok
    pub const ID: MethodId = MethodId { class: 20, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u32(0);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.longstr()?;
        Ok(Self)
    }
}

/// channel.flow: asks the peer to stop or go on sending content.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Flow {
    /// True to go on, false to stop.
    pub active: bool,
}

impl Flow {
    /// channel.flow
    pub const ID: MethodId = MethodId { class: 20, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(u8::from(self.active));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.octet()?;
        let active = bits & 0b1 != 0;
        Ok(Self { active })
    }
}

/// channel.flow-ok: the peer's answer to flow.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct FlowOk {
    /// The state now in force.
    pub active: bool,
}

impl FlowOk {
    /// channel.flow-ok
    pub const ID: MethodId = MethodId { class: 20, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(u8::from(self.active));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.octet()?;
        let active = bits & 0b1 != 0;
        Ok(Self { active })
    }
}

/// channel.close: ends the channel, by either side.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Close<'a> {
    /// Why; a client may send any number.
    pub reply_code: u16,
    /// Why, in words.
    pub reply_text: &'a str,
    /// Class of the method at fault, or 0.
    pub class_id: u16,
    /// Number of the method at fault, or 0.
    pub method_id: u16,
}

impl<'a> Close<'a> {
    /// channel.close
    pub const ID: MethodId = MethodId { class: 20, method: 40 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.reply_code);
            wire::put_shortstr(out, self.reply_text);
            out.put_u16(self.class_id);
            out.put_u16(self.method_id);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let reply_code = reader.short()?;
        let reply_text = reader.shortstr()?;
        let class_id = reader.short()?;
        let method_id = reader.short()?;
        Ok(Self { reply_code, reply_text, class_id, method_id })
    }
}

/// channel.close-ok: the channel's number is free again.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct CloseOk;

impl CloseOk {
    /// channel.close-ok
    pub const ID: MethodId = MethodId { class: 20, method: 41 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}
