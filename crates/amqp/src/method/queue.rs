//! Class 50, queue: declaring, binding, purging and deleting queues.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::table::Table;
use crate::wire::{self, DecodeError, Reader};

/// queue.declare: creates a queue, or checks the one there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Declare<'a> {
    /// The queue's name; empty asks the server for one.
    pub queue: &'a str,
    /// Only check that it exists.
    pub passive: bool,
    /// It survives a restart.
    pub durable: bool,
    /// Only this connection uses it; it goes with the connection.
    pub exclusive: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// No reply is wanted.
    pub nowait: bool,
    /// Extra arguments, such as `x-message-ttl`.
    pub arguments: Table,
}

impl<'a> Declare<'a> {
    /// queue.declare
    pub const ID: MethodId = MethodId { class: 50, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            out.put_u8(
                u8::from(self.passive)
                    | (u8::from(self.durable) << 1)
                    | (u8::from(self.exclusive) << 2)
                    | (u8::from(self.auto_delete) << 3)
                    | (u8::from(self.nowait) << 4),
            );
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let bits = reader.octet()?;
        let passive = bits & 0b1 != 0;
        let durable = bits & 0b10 != 0;
        let exclusive = bits & 0b100 != 0;
        let auto_delete = bits & 0b1000 != 0;
        let nowait = bits & 0b10000 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { queue, passive, durable, exclusive, auto_delete, nowait, arguments })
    }
}

/// queue.declare-ok: the queue exists.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct DeclareOk<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// How many messages are ready.
    pub message_count: u32,
    /// How many consumers it has.
    pub consumer_count: u32,
}

impl<'a> DeclareOk<'a> {
    /// queue.declare-ok
    pub const ID: MethodId = MethodId { class: 50, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.queue);
            out.put_u32(self.message_count);
            out.put_u32(self.consumer_count);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let queue = reader.shortstr()?;
        let message_count = reader.long()?;
        let consumer_count = reader.long()?;
        Ok(Self { queue, message_count, consumer_count })
    }
}

/// queue.bind: binds a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bind<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// The exchange messages come from.
    pub exchange: &'a str,
    /// The binding key.
    pub routing_key: &'a str,
    /// No reply is wanted.
    pub nowait: bool,
    /// Arguments, for a headers exchange.
    pub arguments: Table,
}

impl<'a> Bind<'a> {
    /// queue.bind
    pub const ID: MethodId = MethodId { class: 50, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
            out.put_u8(u8::from(self.nowait));
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { queue, exchange, routing_key, nowait, arguments })
    }
}

/// queue.bind-ok: the binding exists.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct BindOk;

impl BindOk {
    /// queue.bind-ok
    pub const ID: MethodId = MethodId { class: 50, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// queue.purge: drops a queue's ready messages.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Purge<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// No reply is wanted.
    pub nowait: bool,
}

impl<'a> Purge<'a> {
    /// queue.purge
    pub const ID: MethodId = MethodId { class: 50, method: 30 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            out.put_u8(u8::from(self.nowait));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        Ok(Self { queue, nowait })
    }
}

/// queue.purge-ok: the queue is purged.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct PurgeOk {
    /// How many messages were dropped.
    pub message_count: u32,
}

impl PurgeOk {
    /// queue.purge-ok
    pub const ID: MethodId = MethodId { class: 50, method: 31 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u32(self.message_count);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let message_count = reader.long()?;
        Ok(Self { message_count })
    }
}

/// queue.delete: deletes a queue.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Delete<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// Only if it has no consumers.
    pub if_unused: bool,
    /// Only if it has no ready messages.
    pub if_empty: bool,
    /// No reply is wanted.
    pub nowait: bool,
}

impl<'a> Delete<'a> {
    /// queue.delete
    pub const ID: MethodId = MethodId { class: 50, method: 40 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            out.put_u8(u8::from(self.if_unused) | (u8::from(self.if_empty) << 1) | (u8::from(self.nowait) << 2));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let bits = reader.octet()?;
        let if_unused = bits & 0b1 != 0;
        let if_empty = bits & 0b10 != 0;
        let nowait = bits & 0b100 != 0;
        Ok(Self { queue, if_unused, if_empty, nowait })
    }
}

/// queue.delete-ok: the queue is gone.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct DeleteOk {
    /// How many ready messages went with it.
    pub message_count: u32,
}

impl DeleteOk {
    /// queue.delete-ok
    pub const ID: MethodId = MethodId { class: 50, method: 41 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u32(self.message_count);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let message_count = reader.long()?;
        Ok(Self { message_count })
    }
}

/// queue.unbind: removes a queue's binding; it has no nowait.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unbind<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// The exchange messages came from.
    pub exchange: &'a str,
    /// The binding key.
    pub routing_key: &'a str,
    /// The binding's arguments.
    pub arguments: Table,
}

impl<'a> Unbind<'a> {
    /// queue.unbind
    pub const ID: MethodId = MethodId { class: 50, method: 50 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let arguments = Table::read(reader)?;
        Ok(Self { queue, exchange, routing_key, arguments })
    }
}

/// queue.unbind-ok: the binding is gone.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct UnbindOk;

impl UnbindOk {
    /// queue.unbind-ok
    pub const ID: MethodId = MethodId { class: 50, method: 51 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}
