//! Who wants to know of each message that passes a connection: the vhost's firehose, and whoever traces single messages.
//!
//! One question for each message that is parsed, and none for one that is compared with the last.

use super::Channel;
use super::publish::Routed;
use super::spans::Spans;
use super::trace::Traced;
use crate::command::Delivery;
use amqp::ChannelId;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Somebody does.
    pub(crate) is_on: bool,
    firehose: bool,
    /// What the firehose is to have at the next look at the topology.
    pub(crate) copies: Vec<Traced>,
    pub(crate) spans: Option<Box<Spans>>,
}

impl Watch {
    /// What passes is copied for the firehose, or no more; whether that is new.
    pub(crate) fn copy(&mut self, firehose: bool) -> bool {
        let is_new = firehose && !self.firehose;
        self.firehose = firehose;
        self.is_on = self.firehose || self.spans.is_some();
        is_new
    }

    /// Traced messages are told of, or no more; whether that is new.
    pub(crate) fn trace(&mut self, is_on: bool) -> bool {
        let is_new = is_on && self.spans.is_none();
        if !is_on {
            self.spans = None;
        } else if is_new {
            self.spans = Some(Box::default());
        }
        self.is_on = self.firehose || self.spans.is_some();
        is_new
    }

    /// A client has published; whether the next one like it is to be looked at as well.
    #[cold]
    pub(super) fn published(&mut self, number: ChannelId, channel: &Channel, routed: &Routed) -> bool {
        if self.firehose {
            self.copies.extend(Traced::published(number, routed));
        }
        let is_traced = self.spans.as_mut().is_some_and(|spans| spans.published(number, channel, routed));
        self.firehose || is_traced
    }

    /// A client is given this by a consumer, or by basic.get.
    #[cold]
    pub(super) fn delivered(&mut self, number: ChannelId, delivery: &Delivery, consumer: Option<&Arc<str>>) {
        if self.firehose {
            self.copies.extend(Traced::delivered(number, delivery));
        }
        if let Some(spans) = &mut self.spans {
            spans.delivered(number, delivery, consumer);
        }
    }
}
