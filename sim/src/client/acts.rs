//! What a client does of its own accord, at random.

use super::channel::{Channel, Consumer, Expect, Mode};
use super::{Client, Stage};
use crate::ledger::{Draft, Ledger, REPLY_TO, Target};
use crate::plan::{Act, ExchangePlan, FANOUT, Plan, QueuePlan, Rule, SIDE, STREAM};
use crate::random::Random;
use crate::trace;
use amqp::frame::{self, FrameKind};
use amqp::method::{basic, channel as channel_methods, confirm, connection, exchange, queue, tx};
use amqp::{ChannelId, Table, Value, content};
use bytes::{BufMut, BytesMut};

/// What an act draws from.
pub struct Surroundings<'a> {
    /// Chance.
    pub random: &'a mut Random,
    /// The plan.
    pub plan: &'a Plan,
    /// What is published is noted here.
    pub ledger: &'a mut Ledger,
    /// The world's clock.
    pub now_ms: u64,
}

impl Client {
    /// Does something, if there is occasion to do it.
    pub fn act(&mut self, act: Act, around: &mut Surroundings<'_>) {
        let open: Vec<u16> =
            self.channels.iter().filter(|(_, channel)| !channel.is_closing()).map(|(number, _)| *number).collect();
        let number = match act {
            Act::OpenChannel | Act::CloseConnection | Act::Stall | Act::Mischief => 0,
            _ if open.is_empty() => return,
            _ => *around.random.pick(&open),
        };
        let on = ChannelId(number);
        match act {
            Act::OpenChannel => {
                if self.channels.len() < CHANNELS_MAX {
                    self.open_channel(around.now_ms);
                }
            }
            Act::CloseChannel => self.close_channel(on, around.now_ms),
            Act::SelectConfirms => self.select_confirms(on, around.now_ms),
            Act::SelectTransactions => self.select_transactions(on, around.now_ms),
            Act::Commit => self.commit(on, around.now_ms),
            Act::Rollback => self.rollback(on, around.now_ms),
            Act::Publish => self.publish_some(on, around),
            Act::Consume => self.consume_something(on, around),
            Act::Cancel => self.cancel_something(on, around),
            Act::Get => {
                let queue = around.random.pick(&around.plan.queues).name.clone();
                let no_ack = around.random.one_in(4);
                if queue != STREAM {
                    self.get(on, &queue, no_ack, around.now_ms);
                }
            }
            Act::Ack => self.settle_some(on, Settling::Ack, around),
            Act::Nack => self.settle_some(on, Settling::Nack, around),
            Act::Reject => self.settle_some(on, Settling::Reject, around),
            Act::Recover => self.ask(on, around.now_ms, Expect::Recover, |out| {
                basic::Recover { requeue: true }.encode(on, out);
            }),
            Act::Qos => {
                let count = *around.random.pick(&[0, 1, 1, 2, 3, 10]);
                self.qos(on, count, around.random.one_in(3), around.now_ms);
            }
            Act::Declare => {
                let queue = around.random.pick(&around.plan.queues);
                self.declare(on, queue, around.now_ms);
            }
            Act::DeclareSide => self.declare_side(on, around),
            Act::DeleteSide => {
                let delete = exchange::Delete {
                    exchange: SIDE,
                    if_unused: around.random.one_in(2),
                    nowait: around.random.one_in(4),
                };
                self.ask_unless(delete.nowait, on, around.now_ms, Expect::DeleteExchange, |out| delete.encode(on, out));
            }
            Act::ConsumeReplies => self.consume_replies(on, around.now_ms),
            Act::Request => self.request(on, around),
            Act::DeclareTemporary => self.declare_temporary(on, around),
            Act::DeclarePassive => {
                let queue = around.random.pick(&around.plan.queues).name.clone();
                let expect = Expect::Declare { queue: queue.clone() };
                self.ask(on, around.now_ms, expect, |out| {
                    let queue = &queue;
                    queue::Declare { passive: true, ..named(queue) }.encode(on, out);
                });
            }
            Act::Delete => self.delete_something(on, around),
            Act::Purge => {
                let queue = around.random.pick(&around.plan.queues).name.clone();
                let nowait = around.random.one_in(4);
                if queue == STREAM {
                    return;
                }
                self.ask_unless(nowait, on, around.now_ms, Expect::Purge, |out| {
                    queue::Purge { queue: &queue, nowait }.encode(on, out);
                });
            }
            Act::Unbind => self.bind_something(on, false, around),
            Act::Bind => self.bind_something(on, true, around),
            Act::CloseConnection => self.close_connection(around.now_ms),
            Act::Stall => self.stalled_until_ms = around.now_ms + around.random.scaled(3_000),
            Act::Mischief => self.make_mischief(around),
            Act::Misuse => self.misuse(on, around),
        }
    }

    // --- what is asked --------------------------------------------------------------------------------------------

    /// Opens a channel under the lowest number that is free.
    pub fn open_channel(&mut self, now_ms: u64) -> ChannelId {
        let number = (1..).find(|number| !self.channels.contains_key(number)).expect("there are more than we use");
        self.next_channel_serial += 1;
        self.channels.insert(number, Channel::new((self.number << 32) + self.next_channel_serial));
        self.send(now_ms, |out| channel_methods::Open.encode(ChannelId(number), out));
        ChannelId(number)
    }

    /// The channels that can be used.
    #[must_use]
    pub fn open_channels(&self) -> Vec<ChannelId> {
        let usable = self.channels.iter().filter(|(_, channel)| !channel.is_closing());
        usable.map(|(number, _)| ChannelId(*number)).collect()
    }

    fn close_channel(&mut self, on: ChannelId, now_ms: u64) {
        let close = channel_methods::Close { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
        self.ask(on, now_ms, Expect::CloseChannel, |out| close.encode(on, out));
    }

    /// connection.close
    pub fn close_connection(&mut self, now_ms: u64) {
        let close = connection::Close { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
        self.send(now_ms, |out| close.encode(ChannelId::CONNECTION, out));
        self.stage = Stage::Closing;
    }

    fn ask(&mut self, on: ChannelId, now_ms: u64, expect: Expect, encode: impl FnOnce(&mut BytesMut)) {
        trace::note(format_args!("c{} ch{on} asks {expect:?}", self.number));
        self.channel(on).expects.push_back(expect);
        self.send(now_ms, encode);
    }

    /// The same, but with `nowait` there is nothing to expect.
    fn ask_unless(
        &mut self,
        nowait: bool,
        on: ChannelId,
        now_ms: u64,
        expect: Expect,
        encode: impl FnOnce(&mut BytesMut),
    ) {
        if nowait {
            trace::note(format_args!("c{} ch{on} orders {expect:?}", self.number));
            self.send(now_ms, encode);
        } else {
            self.ask(on, now_ms, expect, encode);
        }
    }

    fn channel(&mut self, on: ChannelId) -> &mut Channel {
        self.channels.get_mut(&on.0).expect("acts are done on channels that are there")
    }

    /// Declares the fanout exchange.
    pub fn declare_exchange(&mut self, on: ChannelId, now_ms: u64) {
        self.ask(on, now_ms, Expect::DeclareExchange, |out| {
            exchange::Declare {
                exchange: FANOUT,
                kind: "fanout",
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: Table::new(),
            }
            .encode(on, out);
        });
    }

    /// Declares an exchange of another type, with its bindings.
    pub fn declare_planned(&mut self, on: ChannelId, plan: &ExchangePlan, now_ms: u64) {
        let ExchangePlan { name, kind, arguments, bindings, .. } = plan;
        self.ask(on, now_ms, Expect::DeclareExchange, |out| {
            exchange::Declare {
                exchange: name,
                kind,
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: arguments.clone(),
            }
            .encode(on, out);
        });
        for (queue, routing_key) in bindings {
            self.ask(on, now_ms, Expect::Bind, |out| {
                let arguments = Table::new();
                queue::Bind { queue, exchange: name, routing_key, nowait: false, arguments }.encode(on, out);
            });
        }
    }

    /// queue.declare
    pub fn declare(&mut self, on: ChannelId, plan: &QueuePlan, now_ms: u64) {
        self.ask(on, now_ms, Expect::Declare { queue: plan.name.clone() }, |out| {
            queue::Declare {
                durable: plan.durable,
                exclusive: plan.exclusive,
                auto_delete: plan.auto_delete,
                arguments: plan.arguments.clone(),
                ..named(&plan.name)
            }
            .encode(on, out);
        });
    }

    /// The exchange that comes and goes, with a binding at each end.
    fn declare_side(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let now_ms = around.now_ms;
        let queue = around.random.pick(&around.plan.open_queues()).name.clone();
        self.ask(on, now_ms, Expect::DeclareExchange, |out| {
            exchange::Declare {
                exchange: SIDE,
                kind: "topic",
                passive: false,
                durable: true,
                auto_delete: true,
                internal: false,
                nowait: false,
                arguments: Table::new(),
            }
            .encode(on, out);
        });
        self.ask(on, now_ms, Expect::Bind, |out| {
            let arguments = Table::new();
            queue::Bind { queue: &queue, exchange: SIDE, routing_key: "any.*", nowait: false, arguments }
                .encode(on, out);
        });
        if around.random.one_in(2) {
            self.ask(on, now_ms, Expect::BindExchange, |out| {
                let arguments = Table::new();
                exchange::Bind { destination: SIDE, source: FANOUT, routing_key: "", nowait: false, arguments }
                    .encode(on, out);
            });
        }
    }

    /// Replies come to this channel from now on.
    fn consume_replies(&mut self, on: ChannelId, now_ms: u64) {
        if !self.channel(on).has_replies() {
            let wish = Wish {
                tag: "replies".to_owned(),
                no_ack: true,
                exclusive: false,
                nowait: false,
                arguments: Table::new(),
            };
            self.consume(on, REPLY_TO, wish, now_ms);
        }
    }

    /// Publishes a request to some queue.
    fn request(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let channel = self.channel(on);
        let is_leaving = channel.expects.iter().any(|expect| matches!(expect, Expect::Cancel { .. }));
        if channel.consumers.get("replies").is_some_and(|consumer| !consumer.is_ending && !is_leaving) {
            let draft = Draft {
                target: Target::Queue(around.random.pick(&around.plan.open_queues()).name.clone()),
                wants_reply: true,
                ..plain(around.random)
            };
            self.publish(on, draft, around.ledger, around.now_ms);
        }
    }

    /// Replies to a request that it has got.
    fn reply_to_somebody(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        if let Some(address) = self.channel(on).requests.pop() {
            let draft = Draft { target: Target::Reply(address), ..plain(around.random) };
            self.publish(on, draft, around.ledger, around.now_ms);
        }
    }

    /// A queue that the server names, for this connection alone. The empty name stands for it from then on.
    fn declare_temporary(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let now_ms = around.now_ms;
        self.ask(on, now_ms, Expect::Declare { queue: String::new() }, |out| {
            queue::Declare { exclusive: true, auto_delete: true, ..named("") }.encode(on, out);
        });
        if around.random.one_in(2) {
            // An empty key beside the empty name would stand for the queue's name, too.
            self.ask(on, now_ms, Expect::Bind, |out| {
                let bind = queue::Bind {
                    queue: "",
                    exchange: FANOUT,
                    routing_key: "any",
                    nowait: false,
                    arguments: Table::new(),
                };
                bind.encode(on, out);
            });
        }
        self.consume_plainly(on, "", now_ms);
    }

    /// queue.bind to the fanout exchange.
    pub fn bind(&mut self, on: ChannelId, queue: &str, now_ms: u64) {
        self.bind_to(on, queue, FANOUT, now_ms);
    }

    /// queue.bind to another exchange.
    pub fn bind_to(&mut self, on: ChannelId, queue: &str, exchange: &str, now_ms: u64) {
        self.ask(on, now_ms, Expect::Bind, |out| {
            queue::Bind { queue, exchange, routing_key: "", nowait: false, arguments: Table::new() }.encode(on, out);
        });
    }

    fn bind_something(&mut self, on: ChannelId, is_bind: bool, around: &mut Surroundings<'_>) {
        let queue = around.random.pick(&around.plan.open_queues()).name.clone();
        if is_bind {
            return self.bind(on, &queue, around.now_ms);
        }
        self.ask(on, around.now_ms, Expect::Unbind, |out| {
            queue::Unbind { queue: &queue, exchange: FANOUT, routing_key: "", arguments: Table::new() }.encode(on, out);
        });
    }

    /// queue.delete
    pub fn delete(&mut self, on: ChannelId, queue: &str, now_ms: u64) {
        let delete = queue::Delete { queue, if_unused: false, if_empty: false, nowait: false };
        self.ask(on, now_ms, Expect::Delete, |out| delete.encode(on, out));
    }

    fn delete_something(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let volatile: Vec<_> = around.plan.queues.iter().filter(|queue| queue.is_volatile).collect();
        if volatile.is_empty() {
            return;
        }
        let plan = *around.random.pick(&volatile);
        let delete = queue::Delete {
            queue: &plan.name,
            if_unused: around.random.one_in(6),
            if_empty: around.random.one_in(6),
            nowait: around.random.one_in(4),
        };
        self.ask_unless(delete.nowait, on, around.now_ms, Expect::Delete, |out| delete.encode(on, out));
        if !around.random.one_in(3) {
            self.declare(on, plan, around.now_ms);
            if plan.in_fanout {
                self.bind(on, &plan.name, around.now_ms);
            }
        }
    }

    fn select_confirms(&mut self, on: ChannelId, now_ms: u64) {
        let channel = self.channel(on);
        if matches!(channel.mode, Mode::Plain) {
            channel.mode = Mode::Confirm { next: 1, waiting: Default::default() };
            self.ask(on, now_ms, Expect::SelectConfirms, |out| confirm::Select { nowait: false }.encode(on, out));
        }
    }

    fn select_transactions(&mut self, on: ChannelId, now_ms: u64) {
        let channel = self.channel(on);
        // What is delivered before the server has read this counts for limits that transactions do not count for.
        if matches!(channel.mode, Mode::Plain) && channel.consumers.is_empty() && channel.unsettled.is_empty() {
            channel.mode = Mode::Transaction { published: Vec::new(), settled: Vec::new() };
            self.ask(on, now_ms, Expect::SelectTransactions, |out| tx::Select.encode(on, out));
        }
    }

    /// Commits what was begun, if anything was.
    pub fn commit(&mut self, on: ChannelId, now_ms: u64) {
        if let Mode::Transaction { published, settled } = &mut self.channel(on).mode {
            let (published, settled) = (std::mem::take(published), std::mem::take(settled));
            let acked =
                settled.into_iter().filter(|settled| settled.is_acked).map(|settled| settled.delivered).collect();
            self.ask(on, now_ms, Expect::Commit { published, acked }, |out| tx::Commit.encode(on, out));
        }
    }

    fn rollback(&mut self, on: ChannelId, now_ms: u64) {
        if let Mode::Transaction { published, settled } = &mut self.channel(on).mode {
            let (published, settled) = (std::mem::take(published), std::mem::take(settled));
            self.ask(on, now_ms, Expect::Rollback { published, settled }, |out| tx::Rollback.encode(on, out));
        }
    }

    // --- publishing -----------------------------------------------------------------------------------------------

    fn publish_some(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        self.reply_to_somebody(on, around);
        let count = around.random.scaled(12) + 1;
        let favourite = around.random.pick(&around.plan.open_queues()).name.clone();
        let is_alike = around.random.one_in(3);
        let mut last: Option<Draft> = None;
        for _ in 0..count {
            if let Some(last) = last.as_ref().filter(|_| is_alike) {
                let body_bytes = usize::try_from(around.random.scaled(40)).expect("small");
                self.publish(on, Draft { body_bytes, ..last.clone() }, around.ledger, around.now_ms);
                continue;
            }
            let target = match around.random.below(8) {
                0 if around.random.one_in(3) => Target::Side,
                0 => Target::Fanout,
                1 => Target::Queue(around.random.pick(&around.plan.open_queues()).name.clone()),
                _ => Target::Queue(favourite.clone()),
            };
            // Drawn aside, so that what came before there were delays still is what it was.
            let mut aside = Random::new(around.random.clone().draw());
            let body_bytes = if around.random.one_in(400) { 150_000 } else { around.plan.body_bytes_max };
            let mut draft = Draft {
                target,
                persistent: !around.random.one_in(4),
                expiration_ms: around.random.one_in(12).then(|| around.random.scaled(4_000)),
                priority: around.random.one_in(3).then(|| u8::try_from(around.random.below(7)).expect("small")),
                delay_ms: aside.one_in(10).then(|| aside.scaled(3_000) + 1),
                mandatory: around.random.one_in(6),
                has_headers: around.random.one_in(3),
                wants_reply: false,
                body_bytes: usize::try_from(around.random.scaled(body_bytes)).expect("small"),
                is_named: !is_alike,
                once: None,
            };
            if !around.plan.exchanges.is_empty() && aside.one_in(4) {
                let &ExchangePlan { name, rule, .. } = aside.pick(&around.plan.exchanges);
                draft.target = Target::Via { exchange: name, key: format!("k{}", aside.below(6)), rule };
                if rule == Rule::Once {
                    // What it stands for is to be told for certain: the key is kept as long as the message is.
                    (draft.persistent, draft.mandatory, draft.once) = (true, false, Some(!aside.one_in(3)));
                }
            }
            last = Some(draft.clone());
            self.publish(on, draft, around.ledger, around.now_ms);
        }
    }

    /// basic.publish
    pub fn publish(&mut self, on: ChannelId, draft: Draft, ledger: &mut Ledger, now_ms: u64) {
        let (number, frame_max) = (self.number, self.frame_max);
        let channel = self.channel(on);
        let message = ledger.publish(draft, number, channel.serial);
        match &mut channel.mode {
            Mode::Plain => {}
            Mode::Confirm { next, waiting } => {
                waiting.insert(*next, message.number);
                *next += 1;
            }
            Mode::Transaction { published, .. } => published.push(message.number),
        }
        let (exchange, routing_key) = message.target.address();
        let publish = basic::Publish { exchange, routing_key, mandatory: message.mandatory, immediate: false };
        trace::note(format_args!("c{} ch{on} publishes m{} to {exchange}/{routing_key}", self.number, message.number));
        self.last_sent_ms = now_ms;
        let out = &mut self.wire.to_server;
        publish.encode(on, out);
        content::encode_content(on, &message.properties, &message.body(), frame_max, out);
    }

    // --- consuming ------------------------------------------------------------------------------------------------

    fn consume_something(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let going_on = self.channel(on).consumers.values().filter(|consumer| !consumer.is_ending);
        if going_on.count() > CONSUMERS_MAX {
            return;
        }
        let queue = around.random.pick(&around.plan.queues).name.clone();
        // Drawn aside. Few channels can read a stream as they are.
        let mut aside = Random::new(around.random.clone().draw());
        if around.plan.queues.iter().any(|queue| queue.name == STREAM) && aside.one_in(3) {
            let channel = self.channel(on);
            let is_ready = channel.may_read_streams();
            if !is_ready && !channel.may_get_a_prefetch() {
                return;
            }
            if !is_ready {
                self.qos(on, 10, false, around.now_ms);
            }
            return self.read_stream(on, "first".into(), around.now_ms);
        }
        if queue == STREAM {
            let last = i64::try_from(around.random.below(100)).expect("small");
            let offsets = ["first".into(), "last".into(), "next".into(), "1h".into(), Value::I64(last)];
            let offset = around.random.pick(&offsets).clone();
            if self.channel(on).may_read_streams() {
                self.read_stream(on, offset, around.now_ms);
            }
            return;
        }
        let no_ack = around.random.one_in(5);
        let exclusive = around.random.one_in(25);
        let mut arguments = Table::new();
        if around.random.one_in(6) {
            arguments.insert("x-priority", Value::I64(i64::try_from(around.random.below(3)).expect("small")));
        }
        self.next_tag += 1;
        let tag = if around.random.one_in(5) { String::new() } else { format!("t{}", self.next_tag) };
        let nowait = around.random.one_in(4);
        self.consume(on, &queue, Wish { tag, no_ack, exclusive, nowait, arguments }, around.now_ms);
    }

    /// Consumes, with acknowledgements.
    pub fn consume_plainly(&mut self, on: ChannelId, queue: &str, now_ms: u64) {
        self.next_tag += 1;
        let tag = format!("t{}", self.next_tag);
        self.consume(
            on,
            queue,
            Wish { tag, no_ack: false, exclusive: false, nowait: false, arguments: Table::new() },
            now_ms,
        );
    }

    /// Reads the stream from there on; its channel has a prefetch and no other limit.
    pub fn read_stream(&mut self, on: ChannelId, offset: Value, now_ms: u64) {
        self.next_tag += 1;
        let tag = format!("t{}", self.next_tag);
        let arguments =
            [("x-stream-offset", offset)].map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        self.consume(on, STREAM, Wish { tag, no_ack: false, exclusive: false, nowait: false, arguments }, now_ms);
    }

    fn consume(&mut self, on: ChannelId, queue: &str, wish: Wish, now_ms: u64) {
        let Wish { tag, no_ack, exclusive, nowait, arguments } = wish;
        let prefetch = self.channel(on).prefetch;
        let known_as = if queue.is_empty() { format!("what {tag} consumes") } else { queue.to_owned() };
        let consumer = Consumer { queue: known_as, no_ack, prefetch, unsettled: 0, is_ending: false };
        let expect = Expect::Consume { tag: tag.clone(), consumer: consumer.clone() };
        // Without an answer, only a name of its own tells it what is delivered to it.
        let nowait = nowait && !tag.is_empty();
        if nowait {
            self.channel(on).consumers.insert(tag.clone(), consumer);
        }
        self.ask_unless(nowait, on, now_ms, expect, |out| {
            basic::Consume { queue, consumer_tag: &tag, no_local: false, no_ack, exclusive, nowait, arguments }
                .encode(on, out);
        });
    }

    fn cancel_something(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        let going_on = self.channel(on).consumers.iter().filter(|(_, consumer)| !consumer.is_ending);
        let tags: Vec<String> = going_on.map(|(tag, _)| tag.clone()).collect();
        if !tags.is_empty() {
            let tag = around.random.pick(&tags).clone();
            let nowait = around.random.one_in(4);
            if let Some(consumer) = self.channel(on).consumers.get_mut(&tag).filter(|_| nowait) {
                consumer.is_ending = true;
            }
            self.ask_unless(nowait, on, around.now_ms, Expect::Cancel { tag: tag.clone() }, |out| {
                basic::Cancel { consumer_tag: &tag, nowait }.encode(on, out);
            });
        }
    }

    /// Cancels all consumers of a channel.
    pub fn cancel_all(&mut self, on: ChannelId, now_ms: u64) {
        let going_on = self.channel(on).consumers.iter().filter(|(_, consumer)| !consumer.is_ending);
        for tag in going_on.map(|(tag, _)| tag.clone()).collect::<Vec<_>>() {
            self.ask(on, now_ms, Expect::Cancel { tag: tag.clone() }, |out| {
                basic::Cancel { consumer_tag: &tag, nowait: false }.encode(on, out);
            });
        }
    }

    /// basic.get
    pub fn get(&mut self, on: ChannelId, queue: &str, no_ack: bool, now_ms: u64) {
        let expect = Expect::Get { queue: queue.to_owned(), no_ack };
        self.ask(on, now_ms, expect, |out| basic::Get { queue, no_ack }.encode(on, out));
    }

    /// basic.qos
    pub fn qos(&mut self, on: ChannelId, count: u16, global: bool, now_ms: u64) {
        if !global {
            self.channel(on).prefetch = count;
        }
        self.ask(on, now_ms, Expect::Qos { count, global }, |out| {
            basic::Qos { prefetch_size: 0, prefetch_count: count, global }.encode(on, out);
        });
    }

    fn settle_some(&mut self, on: ChannelId, how: Settling, around: &mut Surroundings<'_>) {
        let channel = self.channel(on);
        if channel.unsettled.is_empty() || channel.is_recovering() {
            return;
        }
        let tags: Vec<u64> = channel.unsettled.keys().copied().collect();
        let multiple = how != Settling::Reject && around.random.one_in(3);
        let count = if multiple { 1 } else { around.random.scaled(6) + 1 };
        for _ in 0..count {
            let tag = if multiple && around.random.one_in(4) { 0 } else { *around.random.pick(&tags) };
            if tag != 0 && !self.channel(on).unsettled.contains_key(&tag) {
                continue;
            }
            let requeue = around.random.one_in(2);
            self.settle(on, tag, multiple, (how, requeue), around.now_ms);
        }
    }

    fn settle(&mut self, on: ChannelId, tag: u64, multiple: bool, (how, requeue): (Settling, bool), now_ms: u64) {
        let channel = self.channel(on);
        let last = if tag == 0 { u64::MAX } else { tag };
        // The server may have delivered more by then: to settle "all" is to settle what is not known here yet.
        let is_quiet = channel.expects.is_empty() && channel.consumers.is_empty() && channel.content.is_none();
        if tag == 0 && !is_quiet {
            return;
        }
        let first = if multiple { 0 } else { tag };
        let settled: Vec<u64> = channel.unsettled.range(first..=last).map(|(tag, _)| *tag).collect();
        trace::note(format_args!("c{} ch{on} settles {settled:?} ({how:?}, requeue {requeue})", self.number));
        let channel = self.channel(on);
        settled.into_iter().for_each(|tag| channel.settle(tag, how == Settling::Ack));
        self.send(now_ms, |out| match how {
            Settling::Ack => basic::Ack { delivery_tag: tag, multiple }.encode(on, out),
            Settling::Nack => basic::Nack { delivery_tag: tag, multiple, requeue }.encode(on, out),
            Settling::Reject => basic::Reject { delivery_tag: tag, requeue }.encode(on, out),
        });
    }

    /// Whether there is something to settle or to commit.
    #[must_use]
    pub fn can_settle(&self) -> bool {
        self.channels.values().any(|channel| {
            let is_begun = match &channel.mode {
                Mode::Transaction { published, settled } => !published.is_empty() || !settled.is_empty(),
                _ => false,
            };
            !channel.is_closing() && !channel.is_recovering() && (is_begun || !channel.unsettled.is_empty())
        })
    }

    /// Acknowledges everything that it holds and commits what it began.
    pub fn settle_all(&mut self, now_ms: u64) {
        for on in self.open_channels() {
            let channel = self.channel(on);
            if channel.is_recovering() {
                continue;
            }
            let last = channel.unsettled.last_key_value().map(|(tag, _)| *tag);
            if let Some(tag) = last {
                self.settle(on, tag, true, (Settling::Ack, false), now_ms);
            }
            let is_begun = match &self.channel(on).mode {
                Mode::Transaction { published, settled } => !published.is_empty() || !settled.is_empty(),
                _ => false,
            };
            if is_begun {
                self.commit(on, now_ms);
            }
        }
    }

    // --- what is forbidden ----------------------------------------------------------------------------------------

    /// Uses the protocol as it is not meant to be used.
    fn misuse(&mut self, on: ChannelId, around: &mut Surroundings<'_>) {
        self.has_misused = true;
        let now_ms = around.now_ms;
        let what = around.random.below(9);
        trace::note(format_args!("c{} ch{on} misuses ({what})", self.number));
        match what {
            0 => self.send(now_ms, |out| basic::Ack { delivery_tag: 1 << 40, multiple: false }.encode(on, out)),
            1 => self.get(on, "no such queue", false, now_ms),
            2 => self.consume_plainly(on, "no such queue", now_ms),
            3 => self.send(now_ms, |out| {
                let publish = basic::Publish { exchange: "none", routing_key: "", mandatory: false, immediate: false };
                publish.encode(on, out);
                content::encode_content(on, &[0, 0], b"lost", 4096, out);
            }),
            4 => self.send(now_ms, |out| channel_methods::Open.encode(on, out)),
            5 => self.send(now_ms, |out| {
                basic::Qos { prefetch_size: 1, prefetch_count: 1, global: false }.encode(on, out);
            }),
            6 => self.send(now_ms, |out| {
                let publish = basic::Publish { exchange: "", routing_key: "", mandatory: false, immediate: true };
                publish.encode(on, out);
                content::encode_content(on, &[0, 0], b"now", 4096, out);
            }),
            7 => self.send(now_ms, |out| tx::Commit.encode(on, out)),
            _ => {
                let queue = &around.random.pick(&around.plan.queues).name;
                let declare = queue::Declare { durable: true, auto_delete: true, exclusive: true, ..named(queue) };
                self.send(now_ms, |out| declare.encode(on, out));
            }
        }
        if matches!(what, 7 | 8) {
            // It may have been granted; what this means for the channel is not tracked.
            self.is_hostile = true;
        }
    }

    /// Sends what is not AMQP.
    fn make_mischief(&mut self, around: &mut Surroundings<'_>) {
        self.is_hostile = true;
        let random = &mut *around.random;
        let channel = u16::try_from(random.below(4)).expect("small");
        let noise = |random: &mut Random| -> Vec<u8> {
            let length = random.scaled(300);
            (0..length).map(|_| u8::try_from(random.below(256)).expect("a byte")).collect()
        };
        let what = random.below(6);
        trace::note(format_args!("c{} sends noise ({what})", self.number));
        let payload = noise(random);
        let kind = *random.pick(&[FrameKind::Method, FrameKind::Header, FrameKind::Body, FrameKind::Heartbeat]);
        let classes = [10_u16, 20, 30, 40, 50, 60, 85, 90, 7];
        let (class, method) = (*random.pick(&classes), u16::try_from(random.below(125)).expect("small"));
        let out = &mut self.wire.to_server;
        match what {
            0 => out.put_slice(&payload),
            1 => {
                out.put_slice(&frame::header(kind, ChannelId(channel), u32::try_from(payload.len()).expect("small")));
                out.put_slice(&payload);
                out.put_u8(frame::END);
            }
            2 => {
                out.put_slice(&frame::header(kind, ChannelId(channel), u32::MAX));
                out.put_slice(&payload);
            }
            3 | 4 => {
                let length = u32::try_from(payload.len() + 4).expect("small");
                out.put_slice(&frame::header(FrameKind::Method, ChannelId(channel), length));
                out.put_u16(class);
                out.put_u16(method);
                out.put_slice(&payload);
                out.put_u8(frame::END);
            }
            _ => {
                let publish =
                    basic::Publish { exchange: "", routing_key: "no one", mandatory: false, immediate: false };
                publish.encode(ChannelId(channel), out);
                content::encode_header(ChannelId(channel), &payload, 1 << 20, out);
                out.put_slice(&payload);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    Ack,
    Nack,
    Reject,
}

/// What a consumer is to be.
struct Wish {
    tag: String,
    no_ack: bool,
    exclusive: bool,
    nowait: bool,
    arguments: Table,
}

fn plain(random: &mut Random) -> Draft {
    Draft {
        target: Target::Fanout,
        persistent: random.one_in(2),
        expiration_ms: None,
        priority: None,
        delay_ms: None,
        mandatory: random.one_in(4),
        has_headers: false,
        wants_reply: false,
        body_bytes: random.index(30),
        is_named: true,
        once: None,
    }
}

fn named(queue: &str) -> queue::Declare<'_> {
    queue::Declare {
        queue,
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Table::new(),
    }
}

/// Channels that a client has open at a time.
const CHANNELS_MAX: usize = 4;
/// Consumers that a channel has at a time.
const CONSUMERS_MAX: usize = 4;
