//! A client as the specification has it, which believes nothing: every frame that it gets has to be one that it may
//! get now.
//!
//! It knows what it asked and in which order, what it was delivered and has not settled, what it published and was not
//! told about. What happens to messages beyond this connection is the [`Ledger`]'s to judge.

mod acts;
mod channel;

pub use acts::Surroundings;

use crate::ledger::{Confirm, Content, Ledger, Receipt};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace;
use crate::wire::Wire;
use amqp::frame::{self, FrameKind};
use amqp::method::{basic, channel as channel_methods, connection};
use amqp::{ChannelId, ContentHeader, Frame, Method, Table, Value};
use broker::inspect::ConnectionView;
use bytes::{Buf, BytesMut};
use channel::{Channel, Delivered, Expect, Mode};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// Tells it from all others of the run.
    pub number: u64,
    /// Its link to the server.
    pub wire: Wire,
    /// It reads nothing before this time, in milliseconds of the world's clock.
    pub stalled_until_ms: u64,
    stage: Stage,
    partial: BytesMut,
    channels: BTreeMap<u16, Channel>,
    frame_max: usize,
    heartbeat_s: u16,
    wants_cancels: bool,
    /// It wants to be told when it is blocked, …
    wants_blocks: bool,
    /// … and was.
    is_blocked: bool,
    last_sent_ms: u64,
    next_tag: u64,
    next_channel_serial: u64,
    /// It did something that the server may answer with an error of any kind.
    has_misused: bool,
    /// Even errors that others could have caused must not happen to it.
    tolerates_nothing: bool,
    /// It sent what is not AMQP: nothing is certain any more.
    is_hostile: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitStart,
    AwaitTune,
    AwaitOpenOk,
    Running,
    /// It sent connection.close.
    Closing,
    Over,
}

impl Client {
    /// A client that has just connected.
    #[must_use]
    pub fn new(number: u64, plan: &Plan, random: &mut Random) -> Self {
        // Small ones make many steps of large bodies.
        let capacity_min = if plan.body_bytes_max > 100_000 { 1 << 16 } else { 0 };
        let capacity = (*random.pick(&[500, 4_000, 64_000, 1 << 20, 4 << 20])).max(capacity_min);
        let mut wire = Wire::new(capacity);
        wire.to_server.extend_from_slice(&frame::PROTOCOL_HEADER);
        Self {
            number,
            wire,
            stalled_until_ms: 0,
            stage: Stage::AwaitStart,
            partial: BytesMut::new(),
            channels: BTreeMap::new(),
            frame_max: *random.pick(&[4096, 4096, 8192, 131_072]),
            heartbeat_s: if random.one_in(8) { 10 } else { 0 },
            wants_cancels: !random.one_in(4),
            // Nothing is drawn for it, so that seeds from before there were alarms still are the runs that they were.
            wants_blocks: plan.faults.alarm > 0 && !number.is_multiple_of(5),
            is_blocked: false,
            last_sent_ms: 0,
            next_tag: 0,
            next_channel_serial: 0,
            has_misused: false,
            tolerates_nothing: false,
            is_hostile: false,
        }
    }

    /// Whether it can be made to act.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.stage == Stage::Running && !self.is_hostile && !self.wire.is_broken
    }

    /// Nothing more will come of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over || self.wire.is_broken
    }

    /// Whether it sent what is not AMQP and waits for the end.
    #[must_use]
    pub fn is_hostile(&self) -> bool {
        self.is_hostile
    }

    /// Reads `bytes` of what the server sent.
    pub fn read(&mut self, bytes: usize, now_ms: u64, ledger: &mut Ledger) {
        self.partial.extend_from_slice(&self.wire.to_client[..bytes]);
        self.wire.to_client.advance(bytes);
        if self.stage == Stage::AwaitStart && self.partial.starts_with(b"AMQP") {
            self.violate("the protocol header was refused");
        }
        let input = std::mem::take(&mut self.partial);
        let mut taken = 0;
        loop {
            let frame_max = if self.stage == Stage::Running { self.frame_max } else { 1 << 17 };
            match frame::decode(&input[taken..], frame_max) {
                Ok(Some((frame, length))) => {
                    if self.stage != Stage::Over {
                        self.frame(&frame, now_ms, ledger);
                    }
                    taken += length;
                }
                Ok(None) => break,
                Err(error) => self.violate(&format!("the server sent no frame: {error}")),
            }
        }
        self.partial.extend_from_slice(&input[taken..]);
        if self.wire.server_ended && self.wire.to_client.is_empty() {
            self.end_of_file();
        }
    }

    /// The server closed its end, and everything that it sent was read.
    fn end_of_file(&mut self) {
        if !matches!(self.stage, Stage::Over) && !self.is_hostile {
            self.violate(&format!("the server closed the socket without a word while {:?}", self.stage));
        }
        self.stage = Stage::Over;
        self.wire.client_ended = true;
    }

    /// The clock moved on: a heartbeat may be due.
    pub fn tick(&mut self, now_ms: u64) {
        let is_due = self.heartbeat_s > 0 && now_ms >= self.last_sent_ms + u64::from(self.heartbeat_s) * 400;
        if is_due && matches!(self.stage, Stage::Running | Stage::Closing) && !self.is_hostile {
            self.wire.to_server.extend_from_slice(&frame::HEARTBEAT);
            self.last_sent_ms = now_ms;
        }
    }

    /// It ends without a word; the first `kept` bytes of what it has sent still arrive.
    pub fn die(&mut self, kept: usize) {
        self.wire.to_server.truncate(kept);
        self.wire.client_ended = true;
        self.stage = Stage::Over;
    }

    /// No answer of the server may be an error from now on.
    pub fn expect_no_errors(&mut self) {
        self.tolerates_nothing = true;
    }

    /// Everything that was asked has to be answered by now.
    pub fn check_at_rest(&self) {
        if self.is_hostile || self.is_over() {
            return;
        }
        if self.stage != Stage::Running {
            self.violate(&format!("stuck in stage {:?}", self.stage));
        }
        for (number, channel) in &self.channels {
            if let Some(expect) = channel.expects.front() {
                self.violate(&format!("channel {number}: no answer to {expect:?}"));
            }
            if let Mode::Confirm { waiting, .. } = &channel.mode
                && let Some((tag, message)) = waiting.first_key_value()
            {
                self.violate(&format!("channel {number}: no confirm for publish {tag} (m{message})"));
            }
            if channel.content.is_some() {
                self.violate(&format!("channel {number}: a message came without its body"));
            }
        }
    }

    /// Whether alarms reach it as they must: who is blocked was told so, and nobody else. Only at rest.
    pub fn check_alarm(&self, view: &ConnectionView, is_short: bool) {
        if !self.is_running() {
            return;
        }
        let is_right = match view.state {
            "running" => !is_short && !self.is_blocked,
            "blocking" => is_short && !self.is_blocked,
            "blocked" => is_short && self.is_blocked == self.wants_blocks,
            _ => false,
        };
        assert!(is_right, "c{} is {} (alarm: {is_short}, told: {})", self.number, view.state, self.is_blocked);
    }

    /// How many deliveries each consumer holds.
    pub fn held_by_consumer(&self) -> impl Iterator<Item = (&str, usize)> {
        let consumers = self.channels.values().flat_map(|channel| &channel.consumers);
        consumers.map(|(tag, consumer)| (&**tag, consumer.unsettled))
    }

    /// Compares what the server shows of its connection with what it knows itself. Only at rest.
    pub fn check_view(&self, view: &ConnectionView) {
        if !self.is_running() {
            return;
        }
        assert_eq!(view.unsent_bytes, 0, "c{}", self.number);
        assert_eq!(view.channels.len(), self.channels.len(), "c{}: open channels", self.number);
        for (shown, (number, channel)) in view.channels.iter().zip(&self.channels) {
            let what = format!("c{} channel {number}, as the server shows it: {shown:?}", self.number);
            assert_eq!(shown.number.0, *number, "{what}");
            let going_on = channel.consumers.values().filter(|consumer| !consumer.is_ending).count();
            // Clients that are not told do not know that a consumer's queue is gone.
            let is_known = shown.consumers as usize == going_on || !self.wants_cancels;
            assert!(is_known, "{going_on} consumers: {what}");
            let settled = match &channel.mode {
                Mode::Transaction { settled, .. } => settled.len(),
                _ => 0,
            };
            assert_eq!(shown.unacked, channel.unsettled.len() as u64, "{what}");
            assert_eq!(shown.acks_uncommitted, settled as u64, "{what}");
            assert_eq!(shown.unconfirmed, 0, "{what}");
        }
    }

    // --- frames ---------------------------------------------------------------------------------------------------

    fn frame(&mut self, frame: &Frame<'_>, now_ms: u64, ledger: &mut Ledger) {
        match frame.kind {
            FrameKind::Heartbeat => {}
            FrameKind::Method => {
                let method = match Method::decode(frame.payload) {
                    Ok(method) => method,
                    Err(error) => self.violate(&format!("the server sent no method: {error}")),
                };
                if frame.channel == ChannelId::CONNECTION {
                    self.connection_method(&method, now_ms);
                } else if !self.is_hostile {
                    self.channel_method(frame.channel, method, now_ms, ledger);
                }
            }
            FrameKind::Header | FrameKind::Body if self.is_hostile => {}
            FrameKind::Header => self.content_header(frame.channel, frame.payload, ledger),
            FrameKind::Body => self.content_body(frame.channel, frame.payload, ledger),
        }
    }

    fn connection_method(&mut self, method: &Method<'_>, now_ms: u64) {
        let none = ChannelId::CONNECTION;
        match (self.stage, method) {
            (Stage::AwaitStart, Method::ConnectionStart(_)) => {
                let mut capabilities: Table =
                    [("consumer_cancel_notify", self.wants_cancels), ("authentication_failure_close", true)]
                        .into_iter()
                        .collect();
                if self.wants_blocks {
                    capabilities.insert("connection.blocked", Value::Bool(true));
                }
                let properties: Table = [("capabilities", Value::Table(capabilities))].into_iter().collect();
                let response = b"\0guest\0guest";
                self.send(now_ms, |out| {
                    connection::StartOk {
                        client_properties: properties,
                        mechanism: "PLAIN",
                        response,
                        locale: "en_US",
                    }
                    .encode(none, out);
                });
                self.stage = Stage::AwaitTune;
            }
            (Stage::AwaitTune, Method::ConnectionTune(tune)) => {
                let (frame_max, heartbeat) = (self.frame_max, self.heartbeat_s);
                let channel_max = tune.channel_max;
                self.send(now_ms, |out| {
                    let frame_max = u32::try_from(frame_max).expect("small");
                    connection::TuneOk { channel_max, frame_max, heartbeat }.encode(none, out);
                    connection::Open { vhost: "/" }.encode(none, out);
                });
                self.stage = Stage::AwaitOpenOk;
            }
            (Stage::AwaitOpenOk, Method::ConnectionOpenOk(_)) => self.stage = Stage::Running,
            (Stage::Closing, Method::ConnectionCloseOk(_)) => {
                self.stage = Stage::Over;
                self.wire.client_ended = true;
            }
            (Stage::Running | Stage::Closing, Method::ConnectionBlocked(blocked)) => {
                trace::note(format_args!("c{} is blocked: {}", self.number, blocked.reason));
                let is_known = ["low on memory", "low on disk", "low on disk & memory"].contains(&blocked.reason);
                if !self.wants_blocks || !is_known || std::mem::replace(&mut self.is_blocked, true) {
                    self.violate(&format!("{blocked:?} is not wanted, the second, or for no reason"));
                }
            }
            (Stage::Running | Stage::Closing, Method::ConnectionUnblocked(_)) => {
                trace::note(format_args!("c{} is unblocked", self.number));
                if !std::mem::take(&mut self.is_blocked) {
                    self.violate("unblocked, and was not blocked");
                }
            }
            (_, Method::ConnectionClose(close)) => {
                trace::note(format_args!(
                    "c{} closed by server: {} {}",
                    self.number, close.reply_code, close.reply_text
                ));
                let expected = close.reply_code == FORCED || self.has_misused || self.is_hostile;
                if !expected {
                    self.violate(&format!("closed for no reason: {} {}", close.reply_code, close.reply_text));
                }
                self.send(now_ms, |out| connection::CloseOk.encode(none, out));
                self.stage = Stage::Over;
                self.wire.client_ended = true;
            }
            (stage, other) if !self.is_hostile => self.violate(&format!("{other:?} while {stage:?}")),
            _ => {}
        }
    }

    fn channel_method(&mut self, number: ChannelId, method: Method<'_>, now_ms: u64, ledger: &mut Ledger) {
        let Some(channel) = self.channels.get_mut(&number.0) else {
            self.violate(&format!("{method:?} on channel {number}, which is not open"));
        };
        if channel.content.is_some() {
            self.violate(&format!("channel {number}: {method:?} within a message"));
        }
        match method {
            Method::ChannelClose(close) => self.channel_closed(number, &close, now_ms),
            Method::BasicDeliver(deliver) => self.deliver(number, &deliver),
            Method::BasicGetOk(got) => {
                let Some(Expect::Get { queue, no_ack }) = channel.expects.pop_front() else {
                    self.violate(&format!("channel {number}: {got:?} was not asked for"));
                };
                channel.content = Some(Content::of_get(&got, queue, no_ack));
                self.next_delivery_tag(number, got.delivery_tag);
            }
            Method::BasicReturn(returned) => channel.content = Some(Content::of_return(&returned)),
            Method::BasicCancel(cancel) => {
                if !self.wants_cancels || channel.consumers.remove(cancel.consumer_tag).is_none() {
                    self.violate(&format!("channel {number}: {cancel:?} of no consumer, or not wanted"));
                }
            }
            Method::BasicAck(basic::Ack { delivery_tag, multiple }) => {
                self.confirmed(number, (delivery_tag, multiple), Confirm::Ack, ledger);
            }
            Method::BasicNack(basic::Nack { delivery_tag, multiple, .. }) => {
                self.confirmed(number, (delivery_tag, multiple), Confirm::Nack, ledger);
            }
            answer => {
                let asked = channel.expects.pop_front();
                let answered = asked.is_some_and(|asked| channel.answered(asked, &answer, self.number, ledger));
                if !answered {
                    self.violate(&format!("channel {number}: {answer:?} answers nothing that was asked"));
                }
                if matches!(answer, Method::ChannelCloseOk(_)) {
                    self.channels.remove(&number.0);
                }
            }
        }
    }

    fn channel_closed(&mut self, number: ChannelId, close: &channel_methods::Close<'_>, now_ms: u64) {
        trace::note(format_args!("c{} ch{number} closed by server: {}", self.number, close.reply_text));
        let can_happen = match close.reply_code {
            403..=405 => true,
            406 => ["in use", "not empty", "timed out", "partial tx"].iter().any(|why| close.reply_text.contains(why)),
            _ => false,
        };
        if (!can_happen || self.tolerates_nothing) && !self.has_misused {
            self.violate(&format!("channel {number} closed for no reason: {} {}", close.reply_code, close.reply_text));
        }
        self.send(now_ms, |out| channel_methods::CloseOk.encode(number, out));
        let Some(channel) = self.channels.get_mut(&number.0) else { return };
        match channel.expects.back() {
            // Both closed at once: ours is answered, too.
            Some(Expect::CloseChannel) => channel.forget_all_but_close(),
            _ => {
                self.channels.remove(&number.0);
            }
        }
    }

    fn deliver(&mut self, number: ChannelId, deliver: &basic::Deliver<'_>) {
        let channel = self.channels.get_mut(&number.0).expect("looked up by the caller");
        let Some(consumer) = channel.consumers.get(deliver.consumer_tag) else {
            self.violate(&format!("channel {number}: {deliver:?} for no consumer"));
        };
        channel.content = Some(Content::of_delivery(deliver, &consumer.queue, consumer.no_ack));
        self.next_delivery_tag(number, deliver.delivery_tag);
    }

    fn next_delivery_tag(&mut self, number: ChannelId, tag: u64) {
        let channel = self.channels.get_mut(&number.0).expect("looked up by the caller");
        channel.last_tag += 1;
        if tag != channel.last_tag {
            let due = channel.last_tag;
            self.violate(&format!("channel {number}: delivery tag {tag} where {due} is due"));
        }
    }

    fn confirmed(&mut self, number: ChannelId, (tag, multiple): (u64, bool), confirm: Confirm, ledger: &mut Ledger) {
        let channel = self.channels.get_mut(&number.0).expect("looked up by the caller");
        let Mode::Confirm { waiting, .. } = &mut channel.mode else {
            self.violate(&format!("channel {number}: a confirm without confirm mode"));
        };
        let told: Vec<(u64, u64)> = if multiple {
            let later = waiting.split_off(&(tag + 1));
            std::mem::replace(waiting, later).into_iter().collect()
        } else {
            waiting.remove_entry(&tag).into_iter().collect()
        };
        if told.last().is_none_or(|(last, _)| *last != tag) {
            self.violate(&format!("channel {number}: publish {tag} is confirmed twice, or was never sent"));
        }
        for (_, message) in told {
            ledger.confirmed(message, confirm);
        }
    }

    fn content_header(&mut self, number: ChannelId, payload: &[u8], ledger: &mut Ledger) {
        let header = ContentHeader::decode(payload).expect("a content header");
        let Some(content) = self.channels.get_mut(&number.0).and_then(|channel| channel.content.as_mut()) else {
            self.violate(&format!("channel {number}: a content header out of place"));
        };
        content.begin(&header);
        self.take_content(number, ledger);
    }

    fn content_body(&mut self, number: ChannelId, payload: &[u8], ledger: &mut Ledger) {
        let content = self.channels.get_mut(&number.0).and_then(|channel| channel.content.as_mut());
        if !content.is_some_and(|content| content.add(payload)) {
            self.violate(&format!("channel {number}: a body frame out of place"));
        }
        self.take_content(number, ledger);
    }

    /// A message that is whole is judged and kept until it is settled.
    fn take_content(&mut self, number: ChannelId, ledger: &mut Ledger) {
        let Some(channel) = self.channels.get_mut(&number.0) else { return };
        let Some(content) = channel.content.take_if(|content| content.is_whole()) else { return };
        let (message, deaths) = ledger.received(self.number, &content);
        channel.requests.extend(content.reply_address());
        match &content.receipt {
            Receipt::Return => {}
            Receipt::Delivery { consumer, queue, no_ack } if !no_ack => {
                let delivered = Delivered { queue: queue.clone(), consumer: consumer.clone(), message, deaths };
                let flaw = channel.hold(content.tag, delivered);
                if let Some(flaw) = flaw {
                    self.violate(&format!("channel {number}: {flaw}"));
                }
            }
            Receipt::Delivery { .. } => {}
        }
    }

    // --- sending --------------------------------------------------------------------------------------------------

    fn send(&mut self, now_ms: u64, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut self.wire.to_server);
        self.last_sent_ms = now_ms;
    }

    fn violate(&self, what: &str) -> ! {
        panic!("c{}: {what}", self.number);
    }
}

/// CONNECTION_FORCED
const FORCED: u16 = 320;
