//! Class 90, tx: channel transactions over publishes and acks.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::BytesMut;

use crate::ChannelId;
use crate::method::MethodId;
use crate::wire;

/// tx.select: makes the channel transactional.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Select;

impl Select {
    /// tx.select
    pub const ID: MethodId = MethodId { class: 90, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// tx.select-ok: the channel is transactional.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct SelectOk;

impl SelectOk {
    /// tx.select-ok
    pub const ID: MethodId = MethodId { class: 90, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// tx.commit: applies what the transaction holds and begins the next.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Commit;

impl Commit {
    /// tx.commit
    pub const ID: MethodId = MethodId { class: 90, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// tx.commit-ok: the transaction is applied.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct CommitOk;

impl CommitOk {
    /// tx.commit-ok
    pub const ID: MethodId = MethodId { class: 90, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// tx.rollback: forgets what the transaction holds and begins the next.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Rollback;

impl Rollback {
    /// tx.rollback
    pub const ID: MethodId = MethodId { class: 90, method: 30 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// tx.rollback-ok: the transaction is forgotten.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct RollbackOk;

impl RollbackOk {
    /// tx.rollback-ok
    pub const ID: MethodId = MethodId { class: 90, method: 31 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}
