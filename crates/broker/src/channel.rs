//! The channel machine: one method after the other, each to the function that bears its name.
//!
//! A channel's state lives here; what it does to its connection (frames out, commands to shards) are methods of
//! [`Connection`] in this file and its folder, since a channel never acts alone.

mod acknowledge;
mod confirms;
mod consume;
mod pattern;
pub(crate) mod publish;
mod request;
pub(crate) mod spans;
mod tally;
pub(crate) mod trace;
mod transaction;
mod unacked;
pub(crate) mod watch;

use crate::access::{Resource, Right};
use crate::command::BindingSpec;
use crate::command::{
    CallId, CatalogAsk, Command, ConsumerNumber, DeclareQueue, Delivery, DestinationKind, Fault, Now, Outcome, QueueRef,
};
use crate::connection::{Connection, Effects, Failure, Notice, NoticeLevel, Then};
use crate::inspect::{ChannelCounters, ChannelView};
use crate::resource;
use crate::topology::Topology;
use amqp::method::{basic, channel, confirm, exchange, queue, tx};
use amqp::{ChannelId, Method, MethodId, Reply, ReplyCode};
use confirms::Confirms;
use pattern::Pattern;
use publish::{Envelope, Publishing, RouteCache};
pub(crate) use request::is_request;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use tally::Tally;
use transaction::Transaction;
use unacked::UnackedList;

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) state: ChannelState,
    /// Tells it from an earlier channel of the same number.
    serial: u32,
    publishing: Publishing,
    /// Room for the next message's names: the last one's.
    spare_envelope: Envelope,
    route_cache: RouteCache,
    /// The exchange that the user may publish to as of this generation of their rights: the last one they did.
    permitted: (u64, String),
    pattern: Option<Box<Pattern>>,
    /// Of one that has published.
    tally: Option<Box<Tally>>,
    confirms: Option<Confirms>,
    transaction: Option<Transaction>,
    unacked: UnackedList,
    last_tag: u64,
    /// Deliveries beyond the channel's limit, where several shards serve it: each has a share, and rounds up.
    held: VecDeque<Delivery>,
    /// Prefetch count for consumers to come; 0 = any number.
    prefetch: u32,
    /// The channel-wide limit; 0 = any number.
    limit: u32,
    /// The name that an empty queue name stands for.
    last_queue: Option<String>,
    /// Its consumers by their tags.
    tags: FxHashMap<Arc<str>, ConsumerNumber>,
    /// The tag of its direct reply-to consumer.
    reply_tag: Option<Arc<str>>,
    counters: ChannelCounters,
    used_unix_ms: u64,
}

/// Whether the channel can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelState {
    Open,
    /// We closed it and wait for channel.close-ok; the answers to this call say that all it held is back.
    Closing {
        call: CallId,
        answers: u32,
    },
}

impl Channel {
    pub(crate) fn new(serial: u32, now: Now) -> Self {
        Self {
            state: ChannelState::Open,
            serial,
            publishing: Publishing::Idle,
            spare_envelope: Envelope::default(),
            route_cache: RouteCache::default(),
            permitted: (u64::MAX, String::new()),
            pattern: None,
            tally: None,
            confirms: None,
            transaction: None,
            unacked: UnackedList::default(),
            last_tag: 0,
            held: VecDeque::new(),
            prefetch: 0,
            limit: 0,
            last_queue: None,
            tags: FxHashMap::default(),
            reply_tag: None,
            counters: ChannelCounters::default(),
            used_unix_ms: now.unix_ms,
        }
    }

    /// What its user may do is to be asked anew.
    pub(crate) fn forget_rights(&mut self) {
        self.permitted = (u64::MAX, String::new());
        self.pattern = None;
    }

    /// What happened on it so far.
    pub(crate) fn counters(&self) -> &ChannelCounters {
        &self.counters
    }

    /// Hands over what it published, by exchange and size.
    pub(crate) fn hand_over_tally(&mut self, fx: &mut Effects) {
        if let Some(tally) = &mut self.tally {
            tally.take(&self.counters, fx.tallied.get_or_insert_default());
        }
    }

    pub(crate) fn view(&self, number: ChannelId) -> ChannelView {
        let transaction = self.transaction.as_ref();
        let tallied = self.tally.as_ref().map(|tally| tally.view(&self.counters));
        let (exchanges, sizes) = tallied.unwrap_or_default();
        ChannelView {
            number,
            consumers: u32::from(self.reply_tag.is_some()),
            unacked: self.unacked.len() as u64,
            unconfirmed: self.confirms.as_ref().map_or(0, Confirms::unconfirmed) as u64,
            uncommitted: transaction.map_or(0, Transaction::publishes) as u64,
            acks_uncommitted: transaction.map_or(0, Transaction::settlements) as u64,
            prefetch: self.prefetch,
            prefetch_channel: self.limit,
            confirm: self.confirms.is_some(),
            transactional: transaction.is_some(),
            idle_since_unix_ms: self.used_unix_ms,
            counters: self.counters,
            exchanges,
            sizes,
        }
    }

    fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

impl Channel {
    /// Whether a frame that begins a method means what it says: no message is half here, and no transaction is open.
    #[inline]
    fn is_usual(&self) -> bool {
        self.state == ChannelState::Open && matches!(self.publishing, Publishing::Idle) && self.transaction.is_none()
    }

    /// The next publish is parsed.
    pub(crate) fn forget_pattern(&mut self) {
        self.pattern = None;
    }
}

impl Connection {
    /// Carries a method out. An error closes the connection; one that only closes the channel is dealt with here.
    pub(crate) fn channel_method(
        &mut self,
        now: Now,
        number: ChannelId,
        method: Method<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        let id = method.id();
        let channel = self.open_channel(number);
        channel.used_unix_ms = now.unix_ms;
        if let Some(missing) = channel.publishing.missing() {
            return Err(Reply::new(ReplyCode::UnexpectedFrame, missing, basic::Publish::ID));
        }
        let done = self.dispatch(now, number, method, topology, fx);
        self.settle_failure(now, number, done.map_err(|fault| Failure::new(fault, id)), fx)
    }

    /// An error of a channel closes it, or is handed on if it closes the connection.
    fn settle_failure(
        &mut self,
        now: Now,
        number: ChannelId,
        done: Result<(), Failure>,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        match done {
            Err(Failure { fault, method }) if fault.code.is_hard() => Err(Reply::new(fault.code, fault.text, method)),
            Err(failure) => {
                self.fail_channel(now, number, failure, fx);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn dispatch(
        &mut self,
        now: Now,
        number: ChannelId,
        method: Method<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        match method {
            Method::BasicPublish(publish) => self.basic_publish(number, &publish),
            Method::BasicAck(ack) => self.basic_ack(number, ack, fx),
            Method::BasicNack(nack) => self.basic_nack(number, nack, fx),
            Method::BasicReject(reject) => self.basic_reject(number, reject, fx),
            Method::BasicGet(get) => self.basic_get(number, &get, topology, fx),
            Method::BasicConsume(consume) => self.basic_consume(number, consume, topology, fx),
            Method::BasicCancel(cancel) => self.basic_cancel(number, &cancel, fx),
            // The answer to a basic.cancel of ours.
            Method::BasicCancelOk(_) => Ok(()),
            Method::BasicQos(qos) => self.basic_qos(number, qos, fx),
            Method::BasicRecover(recover) => self.basic_recover(number, recover.requeue, basic::Recover::ID, fx),
            Method::BasicRecoverAsync(recover) => {
                self.basic_recover(number, recover.requeue, basic::RecoverAsync::ID, fx)
            }
            Method::QueueDeclare(declare) => self.queue_declare(number, declare, fx),
            Method::QueueBind(bind) => self.queue_bind(number, bind, fx),
            Method::QueueUnbind(unbind) => self.queue_unbind(number, unbind, fx),
            Method::QueuePurge(purge) => self.queue_purge(number, &purge, topology, fx),
            Method::QueueDelete(delete) => self.queue_delete(number, &delete, fx),
            Method::ExchangeDeclare(declare) => self.exchange_declare(number, declare, fx),
            Method::ExchangeDelete(delete) => self.exchange_delete(number, &delete, fx),
            Method::ExchangeBind(bind) => self.exchange_bind(number, bind, fx),
            Method::ExchangeUnbind(unbind) => self.exchange_unbind(number, unbind, fx),
            Method::ConfirmSelect(select) => self.confirm_select(number, select, fx),
            Method::TxSelect(_) => self.tx_select(number, fx),
            Method::TxCommit(_) => self.tx_commit(now, number, topology, fx),
            Method::TxRollback(_) => self.tx_rollback(number, fx),
            Method::ChannelFlow(flow) => channel_flow(number, flow, fx),
            Method::ChannelClose(_) => {
                self.channel_close(now, number, fx);
                Ok(())
            }
            // Both sides closed at once: ours was answered already.
            Method::ChannelCloseOk(_) => Ok(()),
            Method::ChannelOpen(_) => Err(Fault::new(ReplyCode::ChannelError, "second 'channel.open' seen")),
            Method::AccessRequest(_) => {
                amqp::method::access::RequestOk { ticket: 1 }.encode(number, fx.out.tail());
                Ok(())
            }
            _ => Err(Fault::new(ReplyCode::CommandInvalid, "unimplemented method")),
        }
    }

    /// The channel that a frame is for, known to be open.
    fn open_channel(&mut self, number: ChannelId) -> &mut Channel {
        self.channels.get_mut(&number).expect("frames of channels that are not open do not come this far")
    }

    // --- the end of a channel -------------------------------------------------------------------------------------

    fn channel_close(&mut self, now: Now, number: ChannelId, fx: &mut Effects) {
        let answers = self.release_channel(number, fx);
        self.channels.remove(&number);
        self.wait(answers, number, channel::Close::ID, Then::CloseChannel);
        self.go_on_if_answered(now, fx);
    }

    /// Closes a channel with an error, or the connection if the error is one of those.
    pub(crate) fn fail_channel(&mut self, now: Now, number: ChannelId, failure: Failure, fx: &mut Effects) {
        let reply = Reply::new(failure.fault.code, failure.fault.text, failure.method);
        if reply.code.is_hard() {
            self.fail(now, &reply, fx);
            return;
        }
        if !self.is_open(number) {
            return;
        }
        fx.notices.push(Notice { level: NoticeLevel::Info, text: format!("closing channel {number}: {}", reply.text) });
        let answers = self.release_channel(number, fx);
        let call = self.upcoming_call();
        let serial = self.open_channel(number).serial;
        let mut closing = Channel::new(serial, now);
        closing.state = ChannelState::Closing { call, answers };
        self.channels.insert(number, Box::new(closing));
        channel::Close {
            reply_code: reply.code.code(),
            reply_text: &reply.text,
            class_id: reply.method.class,
            method_id: reply.method.method,
        }
        .encode(number, fx.out.tail());
    }

    /// Whether what is being taken in on this channel is something that a worker says of a delivery, and no message.
    pub(crate) fn takes_request(&self, number: ChannelId) -> bool {
        self.channels.get(&number).is_some_and(|channel| channel.publishing.is_request())
    }

    pub(crate) fn is_open(&self, number: ChannelId) -> bool {
        self.channels.get(&number).is_some_and(|channel| channel.state == ChannelState::Open)
    }

    /// Gives everything back that the channel held, under [`Self::upcoming_call`]; how many answers come.
    fn release_channel(&mut self, number: ChannelId, fx: &mut Effects) -> u32 {
        if let Some(spans) = &mut self.watch.spans {
            spans.channels_end(|channel| channel == number, &fx.shards);
        }
        let call = self.next_call();
        let answers = self.tell_shards(fx, || Command::CloseChannel { call, channel: number });
        for consumer in std::mem::take(&mut self.open_channel(number).tags).values() {
            self.consumers.remove(consumer);
        }
        let channel = self.open_channel(number);
        let has_replies = channel.reply_tag.take().is_some();
        let counters = channel.counters;
        channel.hand_over_tally(fx);
        for delivery in std::mem::take(&mut channel.held) {
            self.windows.dropped(delivery.queue.shard, delivery.window_bytes(), &mut fx.shards);
        }
        self.closed_channels.add(&counters);
        if has_replies {
            self.ask_without_waiting(call, CatalogAsk::RemoveReplyConsumer { channel: number }, fx);
        }
        answers + u32::from(has_replies)
    }

    /// The client has answered our channel.close: its number is free when all that it held is back.
    pub(crate) fn channel_closed_by_server(&mut self, number: ChannelId) {
        let closed = self.channels.remove(&number).map(|channel| channel.state);
        if let Some(ChannelState::Closing { call, answers }) = closed
            && answers > 0
        {
            self.wait_for(call, answers, number);
        }
    }

    /// An answer that nobody waits for: one of a channel that we closed.
    pub(crate) fn answered_late(&mut self, answered: CallId) {
        for channel in self.channels.values_mut() {
            if let ChannelState::Closing { call, answers } = &mut channel.state
                && *call == answered
            {
                *answers -= 1;
            }
        }
    }

    // --- answers --------------------------------------------------------------------------------------------------

    /// The last answer to a question has come, and it is no fault.
    pub(crate) fn finish_call(
        &mut self,
        now: Now,
        waiting: crate::connection::Waiting,
        outcome: Outcome,
        fx: &mut Effects,
    ) {
        let number = waiting.channel;
        if matches!(waiting.then, Then::CloseConnection | Then::CloseChannel | Then::Commit { .. }) {
            self.all_answered(now, waiting, fx);
            return;
        }
        if !self.is_open(number) {
            return;
        }
        let out = fx.out.tail();
        match (waiting.then, outcome) {
            (Then::Reply(encode), _) => encode(number, out),
            (Then::DeclareQueue { declare, nowait }, Outcome::QueueDeclared { messages, consumers }) => {
                let name = declare.name;
                if !nowait {
                    let message_count = saturated(messages);
                    queue::DeclareOk { queue: &name, message_count, consumer_count: consumers }.encode(number, out);
                }
                self.open_channel(number).last_queue = Some(name);
            }
            // It went (auto-delete, expiry) while its counts were asked for.
            (Then::DeclareQueue { declare, nowait }, Outcome::Missed) if !declare.passive => {
                self.ask_to_declare(number, declare, nowait, fx);
            }
            (Then::DeclareQueue { declare, .. }, Outcome::Missed) => {
                self.fail_missing(now, number, &declare.name, waiting.method, fx);
            }
            (Then::Purge { name, .. } | Then::Get { name, .. }, Outcome::Missed) => {
                self.fail_missing(now, number, &name, waiting.method, fx);
            }
            (Then::Consume { name, .. }, Outcome::Missed) => self.fail_missing(now, number, &name, waiting.method, fx),
            (Then::DeleteQueue { nowait: false }, outcome) => {
                let messages = if let Outcome::QueueDeleted { messages, .. } = outcome { messages } else { 0 };
                queue::DeleteOk { message_count: saturated(messages) }.encode(number, out);
            }
            (Then::Purge { nowait: false, .. }, Outcome::Purged { messages }) => {
                queue::PurgeOk { message_count: saturated(messages) }.encode(number, out);
            }
            (Then::Consume { consumer, tag, queue, nowait, .. }, _) => {
                self.consuming(number, consumer, tag, queue, nowait, fx)
            }
            (Then::ConsumeReplies { tag, nowait }, _) => self.consuming_replies(number, tag, nowait, fx),
            (Then::Cancel { consumer, tag, nowait }, _) => self.cancelled(number, consumer, &tag, nowait, fx),
            (Then::Get { no_ack, .. }, Outcome::Got { delivery, left }) => {
                self.got(number, &delivery, left, no_ack, fx)
            }
            (Then::Request(request), outcome) => self.request_answered(number, &request, &outcome, fx),
            (Then::Get { .. }, _) => {
                basic::GetEmpty.encode(number, out);
                self.open_channel(number).counters.get_empty += 1;
            }
            _ => {}
        }
    }

    fn fail_missing(&mut self, now: Now, number: ChannelId, name: &str, method: MethodId, fx: &mut Effects) {
        let fault = self.no_queue(name);
        self.fail_channel(now, number, Failure::new(fault, method), fx);
    }

    fn no_queue(&self, name: &str) -> Fault {
        resource::no_queue(name, &self.vhost_name)
    }

    // --- names ----------------------------------------------------------------------------------------------------

    /// An empty queue name stands for the last one that the channel declared.
    fn queue_name(&mut self, number: ChannelId, name: &str) -> Result<String, Fault> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        let last = self.open_channel(number).last_queue.clone();
        last.ok_or_else(|| Fault::new(ReplyCode::NotFound, "no previously declared queue"))
    }

    /// The queue of this name, if this connection may use it.
    fn usable_queue(&self, name: &str, topology: &Topology) -> Result<QueueRef, Fault> {
        let queue = topology.queue(self.vhost, name).ok_or_else(|| self.no_queue(name))?;
        queue.check_owner(self.id())?;
        Ok(queue.queue)
    }

    // --- queue ----------------------------------------------------------------------------------------------------

    fn queue_declare(&mut self, number: ChannelId, declare: queue::Declare<'_>, fx: &mut Effects) -> Result<(), Fault> {
        let mut name = without_line_ends(declare.queue);
        let server_named = name.is_empty() && !declare.passive;
        if server_named {
            name = self.names.next("amq.gen-");
        }
        if declare.exclusive && !declare.passive {
            self.has_catalog_ties = true;
        }
        let asked = DeclareQueue {
            name,
            server_named,
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments,
        };
        self.ask_to_declare(number, Box::new(asked), declare.nowait, fx);
        Ok(())
    }

    fn ask_to_declare(&mut self, number: ChannelId, declare: Box<DeclareQueue>, nowait: bool, fx: &mut Effects) {
        let ask = CatalogAsk::DeclareQueue(DeclareQueue::clone(&declare));
        self.ask(ask, number, queue::Declare::ID, Then::DeclareQueue { declare, nowait }, fx);
    }

    fn queue_bind(&mut self, number: ChannelId, bind: queue::Bind<'_>, fx: &mut Effects) -> Result<(), Fault> {
        let destination = without_line_ends(&self.queue_name(number, bind.queue)?);
        // amqp-0-9-1 queue.bind: both empty stand for the last declared queue's name.
        let both_empty = bind.queue.is_empty() && bind.routing_key.is_empty();
        let key = if both_empty { destination.clone() } else { bind.routing_key.to_owned() };
        let binding = BindingSpec {
            source: without_line_ends(bind.exchange),
            destination,
            kind: DestinationKind::Queue,
            key,
            arguments: bind.arguments,
        };
        let then = reply_unless(bind.nowait, |number, out| queue::BindOk.encode(number, out));
        self.ask(CatalogAsk::Bind(binding), number, queue::Bind::ID, then, fx);
        Ok(())
    }

    fn queue_unbind(&mut self, number: ChannelId, unbind: queue::Unbind<'_>, fx: &mut Effects) -> Result<(), Fault> {
        let destination = without_line_ends(&self.queue_name(number, unbind.queue)?);
        let both_empty = unbind.queue.is_empty() && unbind.routing_key.is_empty();
        let key = if both_empty { destination.clone() } else { unbind.routing_key.to_owned() };
        let binding = BindingSpec {
            source: without_line_ends(unbind.exchange),
            destination,
            kind: DestinationKind::Queue,
            key,
            arguments: unbind.arguments,
        };
        let then = Then::Reply(|number, out| queue::UnbindOk.encode(number, out));
        self.ask(CatalogAsk::Unbind(binding), number, queue::Unbind::ID, then, fx);
        Ok(())
    }

    fn queue_purge(
        &mut self,
        number: ChannelId,
        purge: &queue::Purge<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let name = self.queue_name(number, purge.queue)?;
        self.check_right(Right::Read, Resource::Queue(&name), topology)?;
        let queue = self.usable_queue(&name, topology)?;
        let call = self.next_call();
        fx.shards[usize::from(queue.shard.0)].push(Command::Purge { call, queue: queue.id });
        self.wait(1, number, queue::Purge::ID, Then::Purge { nowait: purge.nowait, name });
        Ok(())
    }

    fn queue_delete(&mut self, number: ChannelId, delete: &queue::Delete<'_>, fx: &mut Effects) -> Result<(), Fault> {
        let ask = CatalogAsk::DeleteQueue {
            name: without_line_ends(&self.queue_name(number, delete.queue)?),
            if_unused: delete.if_unused,
            if_empty: delete.if_empty,
        };
        self.ask(ask, number, queue::Delete::ID, Then::DeleteQueue { nowait: delete.nowait }, fx);
        Ok(())
    }

    // --- exchange -------------------------------------------------------------------------------------------------

    fn exchange_declare(
        &mut self,
        number: ChannelId,
        declare: exchange::Declare<'_>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let ask = CatalogAsk::DeclareExchange {
            name: without_line_ends(declare.exchange),
            kind: declare.kind.to_owned(),
            passive: declare.passive,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments,
        };
        let then = reply_unless(declare.nowait, |number, out| exchange::DeclareOk.encode(number, out));
        self.ask(ask, number, exchange::Declare::ID, then, fx);
        Ok(())
    }

    fn exchange_delete(
        &mut self,
        number: ChannelId,
        delete: &exchange::Delete<'_>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let ask = CatalogAsk::DeleteExchange { name: without_line_ends(delete.exchange), if_unused: delete.if_unused };
        let then = reply_unless(delete.nowait, |number, out| exchange::DeleteOk.encode(number, out));
        self.ask(ask, number, exchange::Delete::ID, then, fx);
        Ok(())
    }

    fn exchange_bind(&mut self, number: ChannelId, bind: exchange::Bind<'_>, fx: &mut Effects) -> Result<(), Fault> {
        let binding = BindingSpec {
            source: without_line_ends(bind.source),
            destination: without_line_ends(bind.destination),
            kind: DestinationKind::Exchange,
            key: bind.routing_key.to_owned(),
            arguments: bind.arguments,
        };
        let then = reply_unless(bind.nowait, |number, out| exchange::BindOk.encode(number, out));
        self.ask(CatalogAsk::Bind(binding), number, exchange::Bind::ID, then, fx);
        Ok(())
    }

    fn exchange_unbind(
        &mut self,
        number: ChannelId,
        unbind: exchange::Unbind<'_>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let binding = BindingSpec {
            source: without_line_ends(unbind.source),
            destination: without_line_ends(unbind.destination),
            kind: DestinationKind::Exchange,
            key: unbind.routing_key.to_owned(),
            arguments: unbind.arguments,
        };
        let then = reply_unless(unbind.nowait, |number, out| exchange::UnbindOk.encode(number, out));
        self.ask(CatalogAsk::Unbind(binding), number, exchange::Unbind::ID, then, fx);
        Ok(())
    }

    // --- confirm --------------------------------------------------------------------------------------------------

    fn confirm_select(&mut self, number: ChannelId, select: confirm::Select, fx: &mut Effects) -> Result<(), Fault> {
        let channel = self.open_channel(number);
        if channel.transaction.is_some() {
            return Err(Fault::new(ReplyCode::PreconditionFailed, "cannot switch from tx to confirm mode"));
        }
        channel.confirms.get_or_insert_with(Confirms::new);
        if let Some(tally) = &mut channel.tally {
            tally.confirm(&channel.counters);
        }
        if !select.nowait {
            confirm::SelectOk.encode(number, fx.out.tail());
        }
        Ok(())
    }

    fn tx_select(&mut self, number: ChannelId, fx: &mut Effects) -> Result<(), Fault> {
        let channel = self.open_channel(number);
        if channel.confirms.is_some() {
            return Err(Fault::new(ReplyCode::PreconditionFailed, "cannot switch from confirm to tx mode"));
        }
        channel.transaction.get_or_insert_with(Transaction::default);
        tx::SelectOk.encode(number, fx.out.tail());
        Ok(())
    }
}

fn channel_flow(number: ChannelId, flow: channel::Flow, fx: &mut Effects) -> Result<(), Fault> {
    if !flow.active {
        return Err(Fault::new(ReplyCode::NotImplemented, "active=false"));
    }
    channel::FlowOk { active: true }.encode(number, fx.out.tail());
    Ok(())
}

fn reply_unless(nowait: bool, encode: fn(ChannelId, &mut bytes::BytesMut)) -> Then {
    if nowait { Then::GoOn } else { Then::Reply(encode) }
}

/// RabbitMQ takes CR and LF out of the names of what is declared, bound or deleted.
fn without_line_ends(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// The protocol's counts have 32 bits.
fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
