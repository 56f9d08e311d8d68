//! Class 60, basic: publishing, delivering and settling messages.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::table::Table;
use crate::wire::{self, DecodeError, Reader};

/// basic.qos: sets the prefetch limit.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Qos {
    /// Limit in octets; only 0, no limit, is implemented.
    pub prefetch_size: u32,
    /// Limit in unacked messages; 0 is no limit.
    pub prefetch_count: u16,
    /// For the whole channel rather than for each consumer.
    pub global: bool,
}

impl Qos {
    /// basic.qos
    pub const ID: MethodId = MethodId { class: 60, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u32(self.prefetch_size);
            out.put_u16(self.prefetch_count);
            out.put_u8(u8::from(self.global));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let prefetch_size = reader.long()?;
        let prefetch_count = reader.short()?;
        let bits = reader.octet()?;
        let global = bits & 0b1 != 0;
        Ok(Self { prefetch_size, prefetch_count, global })
    }
}

/// basic.qos-ok: the prefetch limit is set.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct QosOk;

impl QosOk {
    /// basic.qos-ok
    pub const ID: MethodId = MethodId { class: 60, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// basic.consume: starts a consumer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Consume<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// The consumer's tag; empty asks the server for one.
    pub consumer_tag: &'a str,
    /// Accepted and ignored, as RabbitMQ does.
    pub no_local: bool,
    /// Deliveries count as acked when sent.
    pub no_ack: bool,
    /// No other consumer on the queue.
    pub exclusive: bool,
    /// No reply is wanted.
    pub nowait: bool,
    /// Extra arguments, such as `x-priority`.
    pub arguments: Table,
}

impl<'a> Consume<'a> {
    /// basic.consume
    pub const ID: MethodId = MethodId { class: 60, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            wire::put_shortstr(out, self.consumer_tag);
            out.put_u8(
                u8::from(self.no_local)
                    | (u8::from(self.no_ack) << 1)
                    | (u8::from(self.exclusive) << 2)
                    | (u8::from(self.nowait) << 3),
            );
            self.arguments.encode(out);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let consumer_tag = reader.shortstr()?;
        let bits = reader.octet()?;
        let no_local = bits & 0b1 != 0;
        let no_ack = bits & 0b10 != 0;
        let exclusive = bits & 0b100 != 0;
        let nowait = bits & 0b1000 != 0;
        let arguments = Table::read(reader)?;
        Ok(Self { queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments })
    }
}

/// basic.consume-ok: the consumer is started.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct ConsumeOk<'a> {
    /// The consumer's tag.
    pub consumer_tag: &'a str,
}

impl<'a> ConsumeOk<'a> {
    /// basic.consume-ok
    pub const ID: MethodId = MethodId { class: 60, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.consumer_tag);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let consumer_tag = reader.shortstr()?;
        Ok(Self { consumer_tag })
    }
}

/// basic.cancel: ends a consumer; from the server: its queue is gone.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Cancel<'a> {
    /// The consumer's tag.
    pub consumer_tag: &'a str,
    /// No reply is wanted; always true from the server.
    pub nowait: bool,
}

impl<'a> Cancel<'a> {
    /// basic.cancel
    pub const ID: MethodId = MethodId { class: 60, method: 30 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.consumer_tag);
            out.put_u8(u8::from(self.nowait));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let consumer_tag = reader.shortstr()?;
        let bits = reader.octet()?;
        let nowait = bits & 0b1 != 0;
        Ok(Self { consumer_tag, nowait })
    }
}

/// basic.cancel-ok: the consumer is ended.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct CancelOk<'a> {
    /// The consumer's tag.
    pub consumer_tag: &'a str,
}

impl<'a> CancelOk<'a> {
    /// basic.cancel-ok
    pub const ID: MethodId = MethodId { class: 60, method: 31 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.consumer_tag);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let consumer_tag = reader.shortstr()?;
        Ok(Self { consumer_tag })
    }
}

/// basic.publish: publishes a message; its content follows.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Publish<'a> {
    /// The exchange's name; empty is the default exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// Return the message if it reaches no queue.
    pub mandatory: bool,
    /// Return it if no consumer is free; refused with 540.
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    /// basic.publish
    pub const ID: MethodId = MethodId { class: 60, method: 40 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
            out.put_u8(u8::from(self.mandatory) | (u8::from(self.immediate) << 1));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let bits = reader.octet()?;
        let mandatory = bits & 0b1 != 0;
        let immediate = bits & 0b10 != 0;
        Ok(Self { exchange, routing_key, mandatory, immediate })
    }
}

/// basic.return: gives an unroutable mandatory message back; its content follows.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Return<'a> {
    /// Why: 312.
    pub reply_code: u16,
    /// Why: `NO_ROUTE`.
    pub reply_text: &'a str,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
}

impl<'a> Return<'a> {
    /// basic.return
    pub const ID: MethodId = MethodId { class: 60, method: 50 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.reply_code);
            wire::put_shortstr(out, self.reply_text);
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let reply_code = reader.short()?;
        let reply_text = reader.shortstr()?;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        Ok(Self { reply_code, reply_text, exchange, routing_key })
    }
}

/// basic.deliver: hands a message to a consumer; its content follows.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Deliver<'a> {
    /// The consumer's tag.
    pub consumer_tag: &'a str,
    /// The delivery's number on this channel, from 1.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
}

impl<'a> Deliver<'a> {
    /// basic.deliver
    pub const ID: MethodId = MethodId { class: 60, method: 60 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.consumer_tag);
            out.put_u64(self.delivery_tag);
            out.put_u8(u8::from(self.redelivered));
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let consumer_tag = reader.shortstr()?;
        let delivery_tag = reader.longlong()?;
        let bits = reader.octet()?;
        let redelivered = bits & 0b1 != 0;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        Ok(Self { consumer_tag, delivery_tag, redelivered, exchange, routing_key })
    }
}

/// basic.get: asks for one message.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Get<'a> {
    /// The queue's name; empty is the last one declared.
    pub queue: &'a str,
    /// The message counts as acked when sent.
    pub no_ack: bool,
}

impl<'a> Get<'a> {
    /// basic.get
    pub const ID: MethodId = MethodId { class: 60, method: 70 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(0);
            wire::put_shortstr(out, self.queue);
            out.put_u8(u8::from(self.no_ack));
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.short()?;
        let queue = reader.shortstr()?;
        let bits = reader.octet()?;
        let no_ack = bits & 0b1 != 0;
        Ok(Self { queue, no_ack })
    }
}

/// basic.get-ok: answers get with a message; its content follows.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct GetOk<'a> {
    /// The delivery's number on this channel, from 1.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// How many ready messages remain.
    pub message_count: u32,
}

impl<'a> GetOk<'a> {
    /// basic.get-ok
    pub const ID: MethodId = MethodId { class: 60, method: 71 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u64(self.delivery_tag);
            out.put_u8(u8::from(self.redelivered));
            wire::put_shortstr(out, self.exchange);
            wire::put_shortstr(out, self.routing_key);
            out.put_u32(self.message_count);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let delivery_tag = reader.longlong()?;
        let bits = reader.octet()?;
        let redelivered = bits & 0b1 != 0;
        let exchange = reader.shortstr()?;
        let routing_key = reader.shortstr()?;
        let message_count = reader.long()?;
        Ok(Self { delivery_tag, redelivered, exchange, routing_key, message_count })
    }
}

/// basic.get-empty: answers get: the queue has no ready message.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct GetEmpty;

impl GetEmpty {
    /// basic.get-empty
    pub const ID: MethodId = MethodId { class: 60, method: 72 };

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

/// basic.ack: settles deliveries; from the server: confirms publishes.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Ack {
    /// The delivery, or publish; 0 with multiple is all.
    pub delivery_tag: u64,
    /// All up to and including the tag.
    pub multiple: bool,
}

impl Ack {
    /// basic.ack
    pub const ID: MethodId = MethodId { class: 60, method: 80 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u64(self.delivery_tag);
            out.put_u8(u8::from(self.multiple));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let delivery_tag = reader.longlong()?;
        let bits = reader.octet()?;
        let multiple = bits & 0b1 != 0;
        Ok(Self { delivery_tag, multiple })
    }
}

/// basic.reject: refuses one delivery.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Reject {
    /// The delivery.
    pub delivery_tag: u64,
    /// Put it back rather than drop or dead-letter it.
    pub requeue: bool,
}

impl Reject {
    /// basic.reject
    pub const ID: MethodId = MethodId { class: 60, method: 90 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u64(self.delivery_tag);
            out.put_u8(u8::from(self.requeue));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let delivery_tag = reader.longlong()?;
        let bits = reader.octet()?;
        let requeue = bits & 0b1 != 0;
        Ok(Self { delivery_tag, requeue })
    }
}

/// basic.recover-async: recover without a reply; deprecated.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct RecoverAsync {
    /// Only true is implemented.
    pub requeue: bool,
}

impl RecoverAsync {
    /// basic.recover-async
    pub const ID: MethodId = MethodId { class: 60, method: 100 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(u8::from(self.requeue));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.octet()?;
        let requeue = bits & 0b1 != 0;
        Ok(Self { requeue })
    }
}

/// basic.recover: requeues every unacked message of the channel.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Recover {
    /// Only true is implemented.
    pub requeue: bool,
}

impl Recover {
    /// basic.recover
    pub const ID: MethodId = MethodId { class: 60, method: 110 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(u8::from(self.requeue));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.octet()?;
        let requeue = bits & 0b1 != 0;
        Ok(Self { requeue })
    }
}

/// basic.recover-ok: the unacked messages are requeued.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct RecoverOk;

impl RecoverOk {
    /// basic.recover-ok
    pub const ID: MethodId = MethodId { class: 60, method: 111 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// basic.nack: refuses deliveries; from the server: refuses publishes.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Nack {
    /// The delivery, or publish; 0 with multiple is all.
    pub delivery_tag: u64,
    /// All up to and including the tag.
    pub multiple: bool,
    /// Put them back rather than drop or dead-letter them.
    pub requeue: bool,
}

impl Nack {
    /// basic.nack
    pub const ID: MethodId = MethodId { class: 60, method: 120 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u64(self.delivery_tag);
            out.put_u8(u8::from(self.multiple) | (u8::from(self.requeue) << 1));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let delivery_tag = reader.longlong()?;
        let bits = reader.octet()?;
        let multiple = bits & 0b1 != 0;
        let requeue = bits & 0b10 != 0;
        Ok(Self { delivery_tag, multiple, requeue })
    }
}
