//! What a connection tells of traced messages, and what of that has not ended.
//!
//! Deliveries end with the settlements that a step sends to shards: those are looked through once a step, by those who have
//! something open, so that settling asks nothing.

use super::Channel;
use super::publish::Routed;
use crate::command::{Command, Delivery, QueueId, Seq, Settle, Settlement};
use crate::connection::Run;
use crate::span::{Delivered, Published, SpanEnd, SpanNote, SpanNumber};
use crate::trace_context::TraceContext;
use amqp::ChannelId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    last: u64,
    /// Deliveries that are not settled.
    unsettled: BTreeMap<(QueueId, Seq), (SpanNumber, ChannelId)>,
    /// Publishes that are not confirmed, by their channel, its serial and their number.
    unconfirmed: BTreeMap<(ChannelId, u32, u64), Unconfirmed>,
    notes: Vec<SpanNote>,
}

#[derive(Debug)]
struct Unconfirmed {
    span: SpanNumber,
    /// Shards that have not answered.
    shards: u16,
    refused: bool,
}

impl Spans {
    /// What happened since this was last asked.
    pub(crate) fn take_notes(&mut self) -> Vec<SpanNote> {
        std::mem::take(&mut self.notes)
    }

    /// A message was routed and is about to be sent; whether it is traced.
    pub(super) fn published(&mut self, number: ChannelId, channel: &Channel, routed: &Routed) -> bool {
        let Some(context) = TraceContext::of(routed.message.properties()) else { return false };
        let span = self.next();
        let shards = routed.shards();
        let end = match &channel.confirms {
            _ if routed.is_unroutable() => Some(SpanEnd::Unroutable),
            Some(confirms) if shards > 0 && self.unconfirmed.len() < OPEN_MAX => {
                let key = (number, channel.serial, confirms.upcoming());
                self.unconfirmed.insert(key, Unconfirmed { span, shards, refused: false });
                None
            }
            _ => Some(SpanEnd::Routed),
        };
        let queues = routed.targets.queues().iter().flat_map(|(_, queues)| queues.iter().copied()).collect();
        let message = routed.message.clone();
        self.notes.push(SpanNote::Published(Published { span, channel: number, context, message, queues, end }));
        true
    }

    /// A shard has stored these publishes, but for those that a queue refused.
    pub(super) fn stored(&mut self, runs: &[Run], refused: &[u32]) {
        let mut position = 0;
        for run in runs {
            let key = |number| (run.channel, run.serial, number);
            let stored = key(run.first)..key(run.first + u64::from(run.count));
            let mut ended = Vec::new();
            for (key, publish) in self.unconfirmed.range_mut(stored) {
                publish.shards -= 1;
                let at = position + u32::try_from(key.2 - run.first).unwrap_or(u32::MAX);
                publish.refused |= refused.binary_search(&at).is_ok();
                if publish.shards == 0 {
                    ended.push(*key);
                }
            }
            for publish in ended.iter().filter_map(|key| self.unconfirmed.remove(key)) {
                let how = if publish.refused { SpanEnd::Refused } else { SpanEnd::Confirmed };
                self.notes.push(SpanNote::Ended { span: publish.span, how });
            }
            position += run.count;
        }
    }

    /// A client is given this.
    pub(super) fn delivered(&mut self, number: ChannelId, delivery: &Delivery, consumer: Option<&Arc<str>>) {
        let Some(context) = TraceContext::of(delivery.message.properties()) else { return };
        let span = self.next();
        let end = if delivery.no_ack {
            Some(SpanEnd::Sent)
        } else if self.unsettled.len() < OPEN_MAX {
            let earlier = self.unsettled.insert((delivery.queue.id, delivery.seq), (span, number));
            if let Some((span, _)) = earlier {
                // Its time was over, and it came back here.
                self.notes.push(SpanNote::Ended { span, how: SpanEnd::Abandoned });
            }
            None
        } else {
            Some(SpanEnd::Unfollowed)
        };
        self.notes.push(SpanNote::Delivered(Delivered {
            span,
            channel: number,
            context,
            message: delivery.message.clone(),
            queue: delivery.queue.id,
            consumer: consumer.cloned(),
            redelivered: delivery.redelivered,
            end,
        }));
    }

    /// These are about to be sent to shards.
    pub(crate) fn sending(&mut self, shards: &[Vec<Command>]) {
        if !self.unsettled.is_empty() {
            shards.iter().for_each(|commands| self.settled_by(commands));
        }
    }

    fn settled_by(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Settle(settle) => self.settled(settle),
                Command::Transaction(commands) => self.settled_by(commands),
                _ => {}
            }
        }
    }

    fn settled(&mut self, settle: &Settle) {
        let how = match settle.how {
            Settlement::Ack => SpanEnd::Acknowledged,
            Settlement::Discard => SpanEnd::Rejected,
            Settlement::Requeue => SpanEnd::Requeued,
            Settlement::Unsent => SpanEnd::Returned,
        };
        let key = |seq| (settle.queue, Seq(seq));
        let settled = key(settle.seq.0)..key(settle.seq.0.saturating_add(settle.count.into()));
        for (_, (span, _)) in self.unsettled.extract_if(settled, |_, _| true) {
            self.notes.push(SpanNote::Ended { span, how });
        }
    }

    /// A channel ends, or all do. What it sent to shards before is among these.
    pub(crate) fn channels_end(&mut self, which: impl Fn(ChannelId) -> bool, shards: &[Vec<Command>]) {
        self.sending(shards);
        for (_, (span, _)) in self.unsettled.extract_if(.., |_, (_, channel)| which(*channel)) {
            self.notes.push(SpanNote::Ended { span, how: SpanEnd::Abandoned });
        }
        for (_, Unconfirmed { span, .. }) in self.unconfirmed.extract_if(.., |(channel, ..), _| which(*channel)) {
            self.notes.push(SpanNote::Ended { span, how: SpanEnd::Unconfirmed });
        }
    }

    fn next(&mut self) -> SpanNumber {
        self.last += 1;
        SpanNumber(self.last)
    }
}

/// Of so many deliveries a connection tells the end, and of as many publishes.
const OPEN_MAX: usize = 4096;
