//! Class 30, access: access tickets: gone since 0-9, yet old clients still ask for one.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::wire::{self, DecodeError, Reader};

/// access.request: asks for a ticket; always granted.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Request<'a> {
    /// The realm asked for.
    pub realm: &'a str,
    /// Exclusive access is asked for.
    pub exclusive: bool,
    /// Passive access is asked for.
    pub passive: bool,
    /// Active access is asked for.
    pub active: bool,
    /// Write access is asked for.
    pub write: bool,
    /// Read access is asked for.
    pub read: bool,
}

impl<'a> Request<'a> {
    /// access.request
    pub const ID: MethodId = MethodId { class: 30, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.realm);
            out.put_u8(
                u8::from(self.exclusive)
                    | (u8::from(self.passive) << 1)
                    | (u8::from(self.active) << 2)
                    | (u8::from(self.write) << 3)
                    | (u8::from(self.read) << 4),
            );
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let realm = reader.shortstr()?;
        let bits = reader.octet()?;
        let exclusive = bits & 0b1 != 0;
        let passive = bits & 0b10 != 0;
        let active = bits & 0b100 != 0;
        let write = bits & 0b1000 != 0;
        let read = bits & 0b10000 != 0;
        Ok(Self { realm, exclusive, passive, active, write, read })
    }
}

/// access.request-ok: grants a ticket.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct RequestOk {
    /// The ticket; RabbitMQ always answers 1.
    pub ticket: u16,
}

impl RequestOk {
    /// access.request-ok
    pub const ID: MethodId = MethodId { class: 30, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.ticket);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ticket = reader.short()?;
        Ok(Self { ticket })
    }
}
