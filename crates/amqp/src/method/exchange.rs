//! Class 40, exchange: declaring, deleting and binding exchanges.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::table::Table;
use crate::wire::{self, DecodeError, Reader};

/// exchange.declare: creates an exchange, or checks the one there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Declare<'a> {
    /// The exchange's name.
    pub exchange: &'a str,
    /// Its type: direct, fanout, topic, headers.
    pub kind: &'a str,
    /// Only check that it exists.
    pub passive: bool,
    /// It survives a restart.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// No reply is wanted.
    pub nowait: bool,
    /// Extra arguments, such as `alternate-exchange`.
    pub arguments: Table,
}

impl<'a> Declare<'a> {
    /// exchange.declare
    pub const ID: MethodId = MethodId { class: 40, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.kind);
            out.put_u8(
                u8::from(self.passive)
                    | (u8::from(self.durable) << 1)
                    | (u8::from(self.auto_delete) << 2)
                    | (u8::from(self.internal) << 3)
                    | (u8::from(self.nowait) << 4),
            );
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let exchange = reader.shortstr()?;
        let kind = reader.shortstr()?;
        let bits = reader.octet()?;
        let passive = bits & 0b1 != 0;
        let durable = bits & 0b10 != 0;
        let auto_delete = bits & 0b100 != 0;
        let internal = bits & 0b1000 != 0;
        let nowait = bits & 0b10000 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { exchange, kind, passive, durable, auto_delete, internal, nowait, arguments })
    }
}

/// exchange.declare-ok: the exchange exists.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct DeclareOk;

impl DeclareOk {
    /// exchange.declare-ok
    pub const ID: MethodId = MethodId { class: 40, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// exchange.delete: deletes an exchange.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Delete<'a> {
    /// The exchange's name.
    pub exchange: &'a str,
    /// Only if nothing is bound to it.
    pub if_unused: bool,
    /// No reply is wanted.
    pub nowait: bool,
}

impl<'a> Delete<'a> {
    /// exchange.delete
    pub const ID: MethodId = MethodId { class: 40, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.exchange);
            out.put_u8(u8::from(self.if_unused) | (u8::from(self.nowait) << 1));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let exchange = reader.shortstr()?;
        let bits = reader.octet()?;
        let if_unused = bits & 0b1 != 0;
        let nowait = bits & 0b10 != 0;
        Ok(Self { exchange, if_unused, nowait })
    }
}

/// exchange.delete-ok: the exchange is gone.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct DeleteOk;

impl DeleteOk {
    /// exchange.delete-ok
    pub const ID: MethodId = MethodId { class: 40, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// exchange.bind: binds an exchange to an exchange.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bind<'a> {
    /// The exchange messages go to.
    pub destination: &'a str,
    /// The exchange messages come from.
    pub source: &'a str,
    /// The binding key.
    pub routing_key: &'a str,
    /// No reply is wanted.
    pub nowait: bool,
    /// Arguments, for a headers exchange.
    pub arguments: Table,
}

impl<'a> Bind<'a> {
    /// exchange.bind
    pub const ID: MethodId = MethodId { class: 40, method: 30 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.destination);
            wire::put_shortstr(out, self.source);
            wire::put_shortstr(out, self.routing_key);
            out.put_u8(u8::from(self.nowait));
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let destination = reader.shortstr()?;
        let source = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { destination, source, routing_key, nowait, arguments })
    }
}

/// exchange.bind-ok: the binding exists.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct BindOk;

impl BindOk {
    /// exchange.bind-ok
    pub const ID: MethodId = MethodId { class: 40, method: 31 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// exchange.unbind: removes a binding between exchanges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unbind<'a> {
    /// The exchange messages went to.
    pub destination: &'a str,
    /// The exchange messages came from.
    pub source: &'a str,
    /// The binding key.
    pub routing_key: &'a str,
    /// No reply is wanted.
    pub nowait: bool,
    /// The binding's arguments.
    pub arguments: Table,
}

impl<'a> Unbind<'a> {
    /// exchange.unbind
    pub const ID: MethodId = MethodId { class: 40, method: 40 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.destination);
            wire::put_shortstr(out, self.source);
            wire::put_shortstr(out, self.routing_key);
            out.put_u8(u8::from(self.nowait));
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let destination = reader.shortstr()?;
        let source = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { destination, source, routing_key, nowait, arguments })
    }
}

/// exchange.unbind-ok: the binding is gone. (Its number is 51, not 41.)
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct UnbindOk;

impl UnbindOk {
    /// exchange.unbind-ok
    pub const ID: MethodId = MethodId { class: 40, method: 51 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}
