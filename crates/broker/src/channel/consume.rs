//! Deliveries to the client and what it says to them: consume, cancel, get, qos, ack, nack, reject, recover
//! (amqp-0-9-1 §1.8.3, with RabbitMQ's extensions).

use super::Channel;
use super::trace::Traced;
use super::unacked::Unacked;
use crate::access::{Resource, Right};
use crate::command::{
    CatalogAsk, Command, Consume, ConsumerNumber, Delivery, Fault, Now, QueueRef, Settle, Settlement,
};
use crate::connection::{Connection, Consumer, Effects, Failure, OutBuffer, Then};
use crate::message::Message;
use crate::topology::{REPLY_TO, Topology};
use amqp::frame::{self, FrameKind};
use amqp::method::basic;
use amqp::{ChannelId, MethodId, Properties, PropertyList, ReplyCode, Value, content};
use bytes::BytesMut;
use std::sync::Arc;

impl Connection {
    // --- consumers ------------------------------------------------------------------------------------------------

    pub(super) fn basic_consume(
        &mut self,
        number: ChannelId,
        consume: basic::Consume<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let tag: Arc<str> = match consume.consumer_tag {
            "" => self.names.next("amq.ctag-").into(),
            tag => tag.into(),
        };
        if self.has_tag(number, &tag) {
            return Err(Fault::new(ReplyCode::NotAllowed, format!("attempt to reuse consumer tag '{tag}'")));
        }
        if consume.queue == REPLY_TO {
            return self.consume_replies(number, &consume, tag, fx);
        }
        let name = self.queue_name(number, consume.queue)?;
        self.check_right(Right::Read, Resource::Queue(&name), topology)?;
        let queue = self.usable_queue(&name, topology)?;
        let consumer = self.next_consumer();
        let channel = self.open_channel(number);
        let prefetch = channel.prefetch;
        if channel.limit > 0 {
            self.share_limit(number, Some(queue), fx);
        }
        let call = self.next_call();
        fx.shards[usize::from(queue.shard.0)].push(Command::Consume(Box::new(Consume {
            call,
            channel: number,
            consumer,
            queue: queue.id,
            tag: tag.to_string(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch,
            hears_cancel: self.client.consumer_cancel_notify,
            arguments: consume.arguments,
        })));
        let then = Then::Consume { consumer, tag, queue, name, nowait: consume.nowait };
        self.wait(1, number, basic::Consume::ID, then);
        Ok(())
    }

    pub(super) fn consuming(
        &mut self,
        number: ChannelId,
        consumer: ConsumerNumber,
        tag: Arc<str>,
        queue: QueueRef,
        nowait: bool,
        fx: &mut Effects,
    ) {
        if !nowait {
            basic::ConsumeOk { consumer_tag: &tag }.encode(number, fx.out.tail());
        }
        self.open_channel(number).tags.insert(Arc::clone(&tag), consumer);
        self.consumers.insert(consumer, Consumer { channel: number, tag, queue });
    }

    /// Direct reply-to: no queue, the replies come straight to this channel (RabbitMQ's `amq.rabbitmq.reply-to`).
    fn consume_replies(
        &mut self,
        number: ChannelId,
        consume: &basic::Consume<'_>,
        tag: Arc<str>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let refused = |text: &str| Err(Fault::new(ReplyCode::PreconditionFailed, text));
        let channel = self.open_channel(number);
        if channel.reply_tag.is_some() {
            return refused("reply consumer already set");
        }
        if !consume.no_ack {
            return refused("reply consumer cannot acknowledge");
        }
        // Not of its number: a late reply to a channel that is closed must miss the next one of that number.
        let serial = channel.serial;
        self.has_catalog_ties = true;
        let secret = format!("{}.{serial}", self.names.secret());
        let ask = CatalogAsk::AddReplyConsumer { channel: number, secret };
        self.ask(ask, number, basic::Consume::ID, Then::ConsumeReplies { tag, nowait: consume.nowait }, fx);
        Ok(())
    }

    pub(super) fn consuming_replies(&mut self, number: ChannelId, tag: Arc<str>, nowait: bool, fx: &mut Effects) {
        if !nowait {
            basic::ConsumeOk { consumer_tag: &tag }.encode(number, fx.out.tail());
        }
        self.open_channel(number).reply_tag = Some(tag);
    }

    pub(super) fn basic_cancel(
        &mut self,
        number: ChannelId,
        cancel: &basic::Cancel<'_>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let (tag, nowait): (Arc<str>, _) = (cancel.consumer_tag.into(), cancel.nowait);
        if self.open_channel(number).reply_tag.as_ref() == Some(&tag) {
            let then = Then::Cancel { consumer: None, tag, nowait };
            self.ask(CatalogAsk::RemoveReplyConsumer { channel: number }, number, basic::Cancel::ID, then, fx);
            return Ok(());
        }
        let found = self.open_channel(number).tags.get(&tag).copied();
        let found = found.and_then(|consumer| Some((consumer, self.consumers.get(&consumer)?.queue)));
        let Some((consumer, queue)) = found else {
            if !nowait {
                basic::CancelOk { consumer_tag: &tag }.encode(number, fx.out.tail());
            }
            return Ok(());
        };
        let call = self.next_call();
        fx.shards[usize::from(queue.shard.0)].push(Command::Cancel { call, queue: queue.id, consumer });
        self.wait(1, number, basic::Cancel::ID, Then::Cancel { consumer: Some(consumer), tag, nowait });
        Ok(())
    }

    pub(super) fn cancelled(
        &mut self,
        number: ChannelId,
        consumer: Option<ConsumerNumber>,
        tag: &str,
        nowait: bool,
        fx: &mut Effects,
    ) {
        match consumer {
            Some(consumer) => {
                self.unsend_held(number, consumer, fx);
                self.consumers.remove(&consumer);
                self.open_channel(number).tags.remove(tag);
                if self.open_channel(number).limit > 0 {
                    self.share_limit(number, None, fx);
                }
            }
            None => self.open_channel(number).reply_tag = None,
        }
        if !nowait {
            basic::CancelOk { consumer_tag: tag }.encode(number, fx.out.tail());
        }
    }

    /// The consumer's queue is gone, or it was too slow; clients that can be told are.
    pub(crate) fn consumer_gone(&mut self, consumer: ConsumerNumber, fx: &mut Effects) {
        let Some(gone) = self.consumers.remove(&consumer) else { return };
        let held = self.channels.get_mut(&gone.channel).map(|channel| {
            channel.tags.remove(&gone.tag);
            channel.take_held(consumer)
        });
        for delivery in held.into_iter().flatten() {
            // If it is not its queue that is gone, but its consumer that was too slow.
            let settle = Settle { queue: delivery.queue.id, seq: delivery.seq, count: 1, how: Settlement::Unsent };
            fx.shards[usize::from(delivery.queue.shard.0)].push(Command::Settle(settle));
            self.windows.dropped(delivery.queue.shard, delivery.window_bytes(), &mut fx.shards);
        }
        if self.client.consumer_cancel_notify && self.is_open(gone.channel) {
            basic::Cancel { consumer_tag: &gone.tag, nowait: true }.encode(gone.channel, fx.out.tail());
        }
    }

    fn has_tag(&mut self, number: ChannelId, tag: &str) -> bool {
        let channel = self.open_channel(number);
        channel.reply_tag.as_deref() == Some(tag) || channel.tags.contains_key(tag)
    }

    // --- qos ------------------------------------------------------------------------------------------------------

    pub(super) fn basic_qos(&mut self, number: ChannelId, qos: basic::Qos, fx: &mut Effects) -> Result<(), Fault> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Fault::new(ReplyCode::NotImplemented, text));
        }
        let count = u32::from(qos.prefetch_count);
        let channel = self.open_channel(number);
        // A limit for each consumer replaces the channel's (RabbitMQ).
        let limit = if qos.global { count } else { 0 };
        if !qos.global {
            channel.prefetch = count;
        }
        if channel.limit != limit {
            channel.limit = limit;
            self.share_limit(number, None, fx);
            self.send_held(number, fx);
        }
        if !qos.global && self.client.qos_changes_consumers {
            for (consumer, found) in self.consumers.iter().filter(|(_, found)| found.channel == number) {
                let QueueRef { id: queue, shard } = found.queue;
                let command = Command::ConsumerLimit { queue, consumer: *consumer, limit: count };
                fx.shards[usize::from(shard.0)].push(command);
            }
        }
        basic::QosOk.encode(number, fx.out.tail());
        Ok(())
    }

    /// Gives each shard that serves the channel its share of the channel's limit. The shares are rounded up, and what
    /// comes beyond the limit is held here.
    fn share_limit(&mut self, number: ChannelId, joining: Option<QueueRef>, fx: &mut Effects) {
        let own = self.consumers.values().filter(|consumer| consumer.channel == number).map(|consumer| consumer.queue);
        let mut serving = vec![false; fx.shards.len()];
        own.chain(joining).for_each(|queue| serving[usize::from(queue.shard.0)] = true);
        let shares = u32::try_from(serving.iter().filter(|serves| **serves).count()).unwrap_or(u32::MAX).max(1);
        let limit = self.open_channel(number).limit.div_ceil(shares);
        self.tell_shards(fx, || Command::ChannelLimit { channel: number, limit });
        if let Some(QueueRef { shard, .. }) = joining
            && fx.shards[usize::from(shard.0)].is_empty()
        {
            fx.shards[usize::from(shard.0)].push(Command::ChannelLimit { channel: number, limit });
        }
    }

    // --- deliveries -----------------------------------------------------------------------------------------------

    pub(crate) fn deliver(&mut self, now: Now, delivery: Delivery, fx: &mut Effects) {
        let number = delivery.channel;
        let known = self.is_open(number) && self.consumers.contains_key(&delivery.consumer);
        if !known {
            // Its channel is closing: the shard has the message back, or will.
            self.windows.dropped(delivery.queue.shard, delivery.window_bytes(), &mut fx.shards);
            return;
        }
        let channel = self.open_channel(number);
        channel.used_unix_ms = now.unix_ms;
        if channel.is_over_limit() && !delivery.no_ack {
            channel.held.push_back(delivery);
            return;
        }
        self.send_delivery(&delivery, fx);
    }

    fn send_delivery(&mut self, delivery: &Delivery, fx: &mut Effects) {
        let number = delivery.channel;
        let frame_max = self.frame_max as usize;
        if self.traces {
            self.traced.extend(Traced::delivered(number, delivery));
        }
        let Some(consumer) = self.consumers.get(&delivery.consumer) else { return };
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let delivery_tag = channel.delivered(delivery);
        if delivery.no_ack {
            channel.counters.deliver_no_ack += 1;
        } else {
            channel.counters.deliver += 1;
        }
        let message = &delivery.message;
        let is_plain = delivery.attempts == 0 && delivery.place.is_none();
        if is_plain && message.body_bytes() < SHARED_BODY_BYTES.min(self.frame_body_bytes_max() + 1) {
            let plain = content::Delivery {
                consumer_tag: consumer.tag.as_bytes(),
                delivery_tag,
                redelivered: delivery.redelivered,
                names: message.names(),
                properties: message.properties(),
                body: message.body(),
            };
            content::encode_delivery(number, &plain, fx.out.tail());
        } else {
            basic::Deliver {
                consumer_tag: &consumer.tag,
                delivery_tag,
                redelivered: delivery.redelivered,
                exchange: message.exchange(),
                routing_key: message.routing_key(),
            }
            .encode(number, fx.out.tail());
            encode_delivery_content(number, delivery, frame_max, &mut fx.out);
        }
        let end = self.encoded_bytes(fx);
        self.windows.encoded(delivery.queue.shard, delivery.window_bytes(), end);
    }

    /// Sends what the channel's limit held back, as far as it allows now.
    pub(super) fn send_held(&mut self, number: ChannelId, fx: &mut Effects) {
        loop {
            let channel = self.open_channel(number);
            if channel.is_over_limit() {
                return;
            }
            let Some(delivery) = channel.held.pop_front() else { return };
            self.send_delivery(&delivery, fx);
        }
    }

    /// What was held for a consumer that is cancelled goes back, as if it never left its queue.
    fn unsend_held(&mut self, number: ChannelId, consumer: ConsumerNumber, fx: &mut Effects) {
        for delivery in self.open_channel(number).take_held(consumer) {
            let settle = Settle { queue: delivery.queue.id, seq: delivery.seq, count: 1, how: Settlement::Unsent };
            fx.shards[usize::from(delivery.queue.shard.0)].push(Command::Settle(settle));
            self.windows.dropped(delivery.queue.shard, delivery.window_bytes(), &mut fx.shards);
        }
    }

    pub(super) fn basic_get(
        &mut self,
        number: ChannelId,
        get: &basic::Get<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let name = self.queue_name(number, get.queue)?;
        self.check_right(Right::Read, Resource::Queue(&name), topology)?;
        let queue = self.usable_queue(&name, topology)?;
        let call = self.next_call();
        let command = Command::Get { call, channel: number, queue: queue.id, no_ack: get.no_ack };
        fx.shards[usize::from(queue.shard.0)].push(command);
        self.wait(1, number, basic::Get::ID, Then::Get { name, no_ack: get.no_ack });
        Ok(())
    }

    pub(super) fn got(&mut self, number: ChannelId, delivery: &Delivery, left: u64, no_ack: bool, fx: &mut Effects) {
        let frame_max = self.frame_max as usize;
        if self.traces {
            self.traced.extend(Traced::delivered(number, delivery));
        }
        let channel = self.open_channel(number);
        let delivery_tag = channel.delivered(delivery);
        if no_ack {
            channel.counters.get_no_ack += 1;
        } else {
            channel.counters.get += 1;
        }
        let message = &delivery.message;
        basic::GetOk {
            delivery_tag,
            redelivered: delivery.redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            message_count: super::saturated(left),
        }
        .encode(number, fx.out.tail());
        encode_delivery_content(number, delivery, frame_max, &mut fx.out);
    }

    /// A reply to a request of this channel. It is not stored: one that the client is too slow to read is dropped.
    pub(crate) fn deliver_reply(&mut self, number: ChannelId, message: &Message, fx: &mut Effects) {
        let frame_max = self.frame_max as usize;
        if !self.is_open(number) || fx.out.len() > UNREAD_REPLY_BYTES_MAX {
            return;
        }
        let channel = self.open_channel(number);
        let Some(tag) = channel.reply_tag.clone() else { return };
        channel.counters.deliver_no_ack += 1;
        basic::Deliver {
            consumer_tag: &tag,
            delivery_tag: channel.next_tag(),
            redelivered: false,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        }
        .encode(number, fx.out.tail());
        encode_content(number, message.properties(), message, frame_max, &mut fx.out);
    }

    // --- settling -------------------------------------------------------------------------------------------------

    pub(super) fn basic_ack(&mut self, number: ChannelId, ack: basic::Ack, fx: &mut Effects) -> Result<(), Fault> {
        self.settle(number, ack.delivery_tag, ack.multiple, Settlement::Ack, fx)
    }

    pub(super) fn basic_nack(&mut self, number: ChannelId, nack: basic::Nack, fx: &mut Effects) -> Result<(), Fault> {
        self.settle(number, nack.delivery_tag, nack.multiple, requeue_or_discard(nack.requeue), fx)
    }

    pub(super) fn basic_reject(
        &mut self,
        number: ChannelId,
        reject: basic::Reject,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        self.settle(number, reject.delivery_tag, false, requeue_or_discard(reject.requeue), fx)
    }

    fn settle(
        &mut self,
        number: ChannelId,
        tag: u64,
        multiple: bool,
        how: Settlement,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let unknown = || Fault::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}"));
        let channel = self.open_channel(number);
        if multiple {
            let all = if tag == 0 { Some(channel.unacked.take_all()) } else { channel.unacked.take_through(tag) };
            for unacked in all.ok_or_else(unknown)? {
                channel.settled(unacked, how, fx);
            }
        } else {
            let unacked = channel.unacked.take(tag).ok_or_else(unknown)?;
            channel.settled(unacked, how, fx);
        }
        if !channel.held.is_empty() {
            self.send_held(number, fx);
        }
        Ok(())
    }

    /// One delivery, just taken out, is settled at once, whatever a transaction waits for.
    pub(super) fn settle_now(&mut self, number: ChannelId, unacked: Unacked, how: Settlement, fx: &mut Effects) {
        send_settlement(unacked, how, fx);
        if !self.open_channel(number).held.is_empty() {
            self.send_held(number, fx);
        }
    }

    pub(super) fn basic_recover(
        &mut self,
        number: ChannelId,
        requeue: bool,
        method: MethodId,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        // What the client has not been sent yet is not meant, nor what a transaction has settled.
        for unacked in self.open_channel(number).unacked.take_all() {
            send_settlement(unacked, Settlement::Requeue, fx);
        }
        if method == basic::Recover::ID {
            basic::RecoverOk.encode(number, fx.out.tail());
        }
        self.send_held(number, fx);
        Ok(())
    }

    /// RabbitMQ up to 4.2: the channel is closed, with no method at fault.
    pub(crate) fn ack_timeout(&mut self, now: Now, number: ChannelId, timeout_ms: u64, fx: &mut Effects) {
        let text = format!(
            "delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout_ms} ms. This timeout \
             value can be configured, see consumers doc guide to learn more"
        );
        let fault = Fault::new(ReplyCode::PreconditionFailed, text);
        self.fail_channel(now, number, Failure::new(fault, MethodId::NONE), fx);
    }
}

impl Channel {
    /// Gives the delivery its tag, and keeps it until it is settled.
    fn delivered(&mut self, delivery: &Delivery) -> u64 {
        let tag = self.next_tag();
        self.counters.redeliver += u64::from(delivery.redelivered);
        if !delivery.no_ack {
            let by_get = delivery.consumer == ConsumerNumber::GET;
            self.unacked.push(Unacked { tag, queue: delivery.queue, seq: delivery.seq, by_get });
        }
        tag
    }

    fn settled(&mut self, unacked: Unacked, how: Settlement, fx: &mut Effects) {
        self.counters.ack += u64::from(how == Settlement::Ack);
        match &mut self.transaction {
            Some(transaction) => transaction.settle(unacked, how),
            None => send_settlement(unacked, how, fx),
        }
    }

    /// Takes out what is held for one consumer.
    fn take_held(&mut self, consumer: ConsumerNumber) -> Vec<Delivery> {
        let held = std::mem::take(&mut self.held);
        let (taken, left): (Vec<_>, Vec<_>) = held.into_iter().partition(|delivery| delivery.consumer == consumer);
        self.held = left.into();
        taken
    }

    fn is_over_limit(&self) -> bool {
        self.limit > 0 && self.unacked.consumed() >= self.limit as usize
    }
}

pub(super) fn send_settlement(Unacked { queue, seq, .. }: Unacked, how: Settlement, fx: &mut Effects) {
    let batch = &mut fx.shards[usize::from(queue.shard.0)];
    if let Some(Command::Settle(last)) = batch.last_mut()
        && (last.queue, last.how) == (queue.id, how)
        && last.seq.0 + u64::from(last.count) == seq.0
        && last.count < SETTLED_TOGETHER_MAX
    {
        last.count += 1;
        return;
    }
    batch.push(Command::Settle(Settle { queue: queue.id, seq, count: 1, how }));
}

fn requeue_or_discard(requeue: bool) -> Settlement {
    if requeue { Settlement::Requeue } else { Settlement::Discard }
}

fn encode_delivery_content(number: ChannelId, delivery: &Delivery, frame_max: usize, out: &mut OutBuffer) {
    let message = &delivery.message;
    if let Some(offset) = delivery.offset() {
        let mut properties = BytesMut::new();
        if let Ok(parsed) = Properties::parse(message.properties()) {
            parsed.put_with_header("x-stream-offset", i64::try_from(offset).unwrap_or(i64::MAX), &mut properties);
        }
        return encode_content(number, &properties, message, frame_max, out);
    }
    if delivery.attempts == 0 {
        encode_content(number, message.properties(), message, frame_max, out);
        return;
    }
    let mut properties = BytesMut::new();
    if let Ok(parsed) = Properties::parse(message.properties()) {
        let mut list = PropertyList::from(&parsed);
        let headers = list.headers.get_or_insert_default();
        // Each time that it was given to somebody it came back, and that is a failed delivery.
        for count in ["x-delivery-count", "x-acquired-count"] {
            headers.insert(count, Value::I64(i64::from(delivery.attempts)));
        }
        list.encode(&mut properties);
    }
    encode_content(number, &properties, message, frame_max, out);
}

/// Header and body frames of a message. A small body is copied behind its header, a large one shared.
pub(super) fn encode_content(
    number: ChannelId,
    properties: &[u8],
    message: &Message,
    frame_max: usize,
    out: &mut OutBuffer,
) {
    if message.body_bytes() < SHARED_BODY_BYTES {
        content::encode_content(number, properties, message.body(), frame_max, out.tail());
        return;
    }
    let body = message.body_shared();
    content::encode_header(number, properties, body.len() as u64, out.tail());
    for range in content::body_frames(body.len(), frame_max) {
        let length = u32::try_from(range.len()).expect("no longer than frame_max");
        out.tail().extend_from_slice(&frame::header(FrameKind::Body, number, length));
        out.push_shared(body.slice(range));
        out.tail().extend_from_slice(&[frame::END]);
    }
}

/// How many deliveries one command settles at the most: a shard does a command in one go.
const SETTLED_TOGETHER_MAX: u32 = 256;
/// From this size on, another piece in the socket's write costs less than a copy.
const SHARED_BODY_BYTES: u64 = 4096;
/// Direct replies wait in the out-buffer up to this many bytes, deliveries included.
const UNREAD_REPLY_BYTES_MAX: usize = 4 << 20;
