//! Direct reply-to: which channel consumes replies at which address.

use crate::command::{ChannelKey, ConnectionId};
use amqp::ChannelId;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client consumes, and writes into `reply_to`, for direct replies.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether a queue name means direct replies: [`REPLY_TO`] itself, or the address of a reply consumer.
#[must_use]
pub fn is_reply_address(name: &str) -> bool {
    name.strip_prefix(REPLY_TO).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[derive(Debug, Default)]
pub(crate) struct ReplyConsumers {
    channels: FxHashMap<Arc<str>, ChannelKey>,
    addresses: BTreeMap<ChannelKey, Arc<str>>,
}

impl ReplyConsumers {
    pub(super) fn at(&self, address: &str) -> Option<ChannelKey> {
        self.channels.get(address).copied()
    }

    pub(super) fn address(&self, channel: ChannelKey) -> Option<&str> {
        self.addresses.get(&channel).map(AsRef::as_ref)
    }

    /// Gives the channel an address made of this secret. False if it has one, or another channel has this one.
    pub(crate) fn add(&mut self, channel: ChannelKey, secret: &str) -> bool {
        let address: Arc<str> = format!("{REPLY_TO}.{secret}").into();
        if self.addresses.contains_key(&channel) || self.channels.contains_key(&address) {
            return false;
        }
        self.channels.insert(Arc::clone(&address), channel);
        self.addresses.insert(channel, address);
        true
    }

    pub(crate) fn remove(&mut self, channel: ChannelKey) {
        if let Some(address) = self.addresses.remove(&channel) {
            self.channels.remove(&address);
        }
    }

    /// Removes all of a connection.
    pub(crate) fn remove_all(&mut self, connection: ConnectionId) {
        let key = |channel| ChannelKey { connection, channel: ChannelId(channel) };
        let channels: Vec<_> = self.addresses.range(key(0)..=key(u16::MAX)).map(|(channel, _)| *channel).collect();
        for channel in channels {
            self.remove(channel);
        }
    }
}
