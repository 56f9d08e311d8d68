//! basic.publish: a method, a header and bodies become a message, checked and routed (amqp-0-9-1 §4.2.6, §1.8.3.7).

use super::Channel;
use super::confirms::Confirm;
use super::consume::encode_content;
use super::pattern::Pattern;
use super::request::Request;
use super::tally::{Fate, Run as Alike, Tally};
use crate::access::{Resource, Right};
use crate::command::{
    ChannelKey, Command, Delay, Fault, Now, Publish, QueueId, QueueIds, Recent, ShardId, Sifted, Sifting, VhostId,
};
use crate::connection::{Connection, Effects, Failure, Run};
use crate::inspect::ChannelCounters;
use crate::message::{Message, MessageParts, PartLengths, hold_back, parse_expiration};
use crate::resource;
use crate::route::Reuse;
use crate::topology::{ExchangeKind, REPLY_TO, Routes, Topology, is_reply_address};
use amqp::frame;
use amqp::method::basic;
use amqp::{ChannelId, ContentHeader, MethodId, Properties, PropertyList, Reply, ReplyCode, Table, Value, content};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// The message that is being taken in.
#[derive(Debug, Default)]
pub(super) enum Publishing {
    #[default]
    Idle,
    AwaitHeader(Envelope),
    AwaitBody(Assembly),
}

/// What basic.publish says.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    exchange: String,
    routing_key: String,
    mandatory: bool,
    immediate: bool,
}

impl Envelope {
    /// What a worker wants to say of a delivery, and no message.
    fn request(&self) -> Option<Request> {
        if self.exchange.is_empty() { Request::named(&self.routing_key) } else { None }
    }

    fn is_reply(&self) -> bool {
        self.exchange.is_empty() && is_reply_address(&self.routing_key)
    }
}

/// A message of which the body is missing, in whole or in part.
#[derive(Debug)]
pub(super) struct Assembly {
    envelope: Envelope,
    /// The exchange's number.
    exchange: u64,
    lengths: PartLengths,
    /// The message's header parts, and the body so far.
    bytes: BytesMut,
    /// Body bytes still to come.
    missing: u64,
    /// The properties that it is returned with, where we changed them: without BCC, and with the delay that was asked for.
    original: Option<Bytes>,
    /// Further routing keys, from the CC and BCC headers.
    more_keys: Vec<String>,
    has_headers: bool,
    persistent: bool,
    expiration_ms: Option<u64>,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    /// With any other routing key it would be permitted, too.
    any_key: bool,
}

/// A message on its way to its queues.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(super) message: Message,
    pub(super) targets: Targets,
    persistent: bool,
    expiration_ms: Option<u64>,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    pub(super) mandatory: bool,
    original: Option<Bytes>,
    through: Option<Box<Through>>,
}

/// What exchanges do with a message beside routing it.
#[derive(Debug)]
pub(super) struct Through {
    /// Exchanges deduplicate.
    sifting: Option<Sifting>,
    /// Exchanges that keep it for those who bind later, as [`Routes::keepers`] has them.
    keepers: Vec<(ShardId, u64, u32)>,
    /// Of the topology.
    generation: u64,
}

/// Where a message goes.
#[derive(Clone, Debug)]
pub(crate) enum Targets {
    /// Nowhere: it is unroutable.
    Nowhere,
    /// Queues of one shard, as most do.
    Shard((ShardId, QueueIds)),
    /// Queues of several, by shard.
    Shards(Arc<[(ShardId, QueueIds)]>),
    /// A channel that waits for replies.
    Reply(ChannelKey),
}

/// The last route, which most publishers take again.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    generation: u64,
    /// As [`Message::names`] has them.
    names: Vec<u8>,
    targets: Option<Targets>,
}

impl Targets {
    /// The queues that were found.
    pub(super) fn of(routes: &Routes) -> Self {
        Self::by_shard(routes.by_shard())
    }

    fn by_shard(mut by_shard: impl Iterator<Item = (ShardId, QueueIds)>) -> Self {
        match (by_shard.next(), by_shard.next()) {
            (None, _) => Self::Nowhere,
            (Some(only), None) => Self::Shard(only),
            (Some(first), Some(second)) => Self::Shards([first, second].into_iter().chain(by_shard).collect()),
        }
    }

    /// Its queues, by shard.
    pub(super) fn queues(&self) -> &[(ShardId, QueueIds)] {
        match self {
            Self::Nowhere | Self::Reply(_) => &[],
            Self::Shard(queues) => std::slice::from_ref(queues),
            Self::Shards(queues) => queues,
        }
    }
}

impl Publishing {
    /// What is taken in is something that a worker says of a delivery.
    pub(super) fn is_request(&self) -> bool {
        let envelope = match self {
            Self::Idle => return false,
            Self::AwaitHeader(envelope) => envelope,
            Self::AwaitBody(assembly) => &assembly.envelope,
        };
        envelope.request().is_some()
    }

    /// The text of the error for a frame that is neither header nor body, where one of those is due.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match self {
            Self::Idle => None,
            Self::AwaitHeader(_) => Some(NO_HEADER),
            Self::AwaitBody(_) => Some(NO_BODY),
        }
    }
}

/// What does not change from one publish to the next like it, where all its queues are in one shard.
#[derive(Debug)]
pub(super) struct Repeated {
    shard: ShardId,
    /// The exchange's number.
    exchange: u64,
    queues: QueueIds,
    persistent: bool,
    expiration_ms: Option<u64>,
    priority: Option<u8>,
    pub(super) mandatory: bool,
    /// Whether one like it in all but its routing key differs in nothing but where it goes.
    pub(super) any_key: bool,
}

impl Repeated {
    /// As what it is counted where it goes to so many queues.
    fn alike(&self, queues: &QueueIds, confirm: bool) -> Alike {
        let queues = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        Alike { exchange: self.exchange, queues, fate: Fate::Routed, confirm }
    }

    /// What is repeated goes there from now on.
    pub(super) fn move_to(&mut self, shard: ShardId, queues: QueueIds) {
        (self.shard, self.queues) = (shard, queues);
    }

    /// Sends one more message: with the last one of the batch, if that was like it.
    #[inline(always)]
    fn send(&self, message: Message, confirm: bool, batch: &mut Vec<Command>) {
        self.send_to(&self.queues, message, confirm, batch);
    }

    /// The same, to other queues.
    #[inline(always)]
    fn send_to(&self, queues: &QueueIds, message: Message, confirm: bool, batch: &mut Vec<Command>) {
        let Self { persistent, expiration_ms, priority, .. } = *self;
        if let Some(Command::Publish(last)) = batch.last_mut()
            && last.queues.is_same(queues)
            && (last.persistent, last.expiration_ms, last.priority, last.confirm)
                == (persistent, expiration_ms, priority, confirm)
            && last.delay.is_none()
            && last.more.len() < ALIKE_MAX
        {
            last.more.push(message);
            return;
        }
        let queues = queues.clone();
        let (more, delay) = (Vec::new(), None);
        let publish = Publish { queues, message, more, persistent, expiration_ms, priority, delay, confirm };
        batch.push(Command::Publish(publish));
    }
}

impl Routed {
    /// A message whose targets are known, and that asks for nothing else.
    pub(super) fn to(message: Message, targets: Targets, mandatory: bool, original: Option<Bytes>) -> Self {
        let (expiration_ms, priority, delay_ms) = (None, None, None);
        Self {
            message,
            targets,
            persistent: false,
            expiration_ms,
            priority,
            delay_ms,
            mandatory,
            original,
            through: None,
        }
    }

    /// A message that is none, and is told what became of it as if it were.
    fn nowhere(message: Message, mandatory: bool, original: Option<Bytes>) -> Self {
        Self::to(message, Targets::Nowhere, mandatory, original)
    }

    /// What may be repeated of it: nothing if the next message like it may go elsewhere.
    fn repeated(&self, exchange: u64, any_key: bool) -> Option<Repeated> {
        let Targets::Shard((shard, queues)) = &self.targets else { return None };
        let (shard, queues) = (*shard, queues.clone());
        let Self { persistent, expiration_ms, priority, mandatory, .. } = *self;
        // One that is delayed is not as it was sent either.
        let is_as_sent = self.original.is_none();
        is_as_sent.then_some(Repeated {
            shard,
            exchange,
            queues,
            persistent,
            expiration_ms,
            priority,
            mandatory,
            any_key,
        })
    }

    /// Sends it to its shards.
    pub(super) fn send(self, confirm: bool, mut push: impl FnMut(ShardId, Command)) {
        let Self { targets, message, persistent, expiration_ms, priority, delay_ms, through, .. } = self;
        let sifting = through.and_then(|through| through.sifting);
        let publish = |queues: QueueIds, message| {
            let (more, delay) = (Vec::new(), delay_ms.map(Delay::For));
            let publish = Publish { queues, message, more, persistent, expiration_ms, priority, delay, confirm };
            match &sifting {
                None => Command::Publish(publish),
                Some(sifting) => Command::Sift(Box::new(Sifted { sifting: sifting.clone(), publish })),
            }
        };
        match targets {
            Targets::Nowhere => {}
            Targets::Shard((shard, queues)) => push(shard, publish(queues, message)),
            Targets::Shards(targets) => {
                let (last, others) = targets.split_last().expect("they are several");
                others.iter().for_each(|(shard, queues)| push(*shard, publish(queues.clone(), message.clone())));
                push(last.0, publish(last.1.clone(), message));
            }
            Targets::Reply(to) => push(ShardId(0), Command::Reply { to, message }),
        }
    }

    /// For exchanges that keep recent messages.
    pub(super) fn keep(&self, mut push: impl FnMut(ShardId, Command)) {
        let Some(through) = &self.through else { return };
        for (keeper, exchange, length) in through.keepers.iter().copied() {
            let Self { persistent, expiration_ms, priority, .. } = *self;
            let (message, generation) = (self.message.clone(), through.generation);
            let recent = Recent { exchange, length, generation, message, persistent, expiration_ms, priority };
            push(keeper, Command::Keep(Box::new(recent)));
        }
    }

    /// To how many shards it goes to be stored.
    pub(super) fn shards(&self) -> u16 {
        u16::try_from(self.targets.queues().len()).expect("there are at most so many shards")
    }

    /// To how many queues it goes.
    pub(super) fn queues(&self) -> u32 {
        let queues = self.targets.queues().iter().map(|(_, queues)| queues.len());
        u32::try_from(queues.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// A transaction's message goes to those of its queues that still exist at the commit.
    pub(super) fn forget_deleted_queues(&mut self, topology: &Topology) {
        let targets = self.targets.queues();
        let exists = |queue: &QueueId| topology.queue_by_id(*queue).is_some();
        if targets.iter().all(|(_, queues)| queues.iter().all(exists)) {
            return;
        }
        let left = targets.iter().filter_map(|(shard, queues)| {
            let queues: QueueIds = queues.iter().copied().filter(exists).collect();
            (!queues.is_empty()).then_some((*shard, queues))
        });
        self.targets = Targets::by_shard(left);
    }

    pub(super) fn is_unroutable(&self) -> bool {
        matches!(&self.targets, Targets::Nowhere)
    }
}

impl Connection {
    pub(super) fn basic_publish(&mut self, number: ChannelId, publish: &basic::Publish<'_>) -> Result<(), Fault> {
        let channel = self.open_channel(number);
        let mut envelope = std::mem::take(&mut channel.spare_envelope);
        envelope.exchange.clear();
        envelope.exchange.push_str(publish.exchange);
        envelope.routing_key.clear();
        envelope.routing_key.push_str(publish.routing_key);
        envelope.mandatory = publish.mandatory;
        envelope.immediate = publish.immediate;
        channel.publishing = Publishing::AwaitHeader(envelope);
        Ok(())
    }

    /// A content header frame.
    pub(crate) fn content_header(
        &mut self,
        now: Now,
        number: ChannelId,
        payload: &[u8],
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        let envelope = match std::mem::take(&mut self.open_channel(number).publishing) {
            Publishing::AwaitHeader(envelope) => envelope,
            Publishing::Idle => return Err(unexpected(NO_METHOD, MethodId::NONE)),
            Publishing::AwaitBody(_) => return Err(unexpected(NO_BODY, basic::Publish::ID)),
        };
        let header = ContentHeader::decode(payload).map_err(|error| error.reply())?;
        if header.class != content::CLASS {
            let text = format!("expected content header for class 60, got one for class {} instead", header.class);
            return Err(unexpected(&text, basic::Publish::ID));
        }
        if header.body_bytes > BODY_BYTES_MAX {
            let text = format!("content body size {} exceeds maximum allowed size {BODY_BYTES_MAX}", header.body_bytes);
            return Err(Reply::new(ReplyCode::FrameError, text, basic::Publish::ID));
        }
        let properties = Properties::parse(header.properties).map_err(|error| error.reply())?;
        let checked = self.check_publish(number, envelope, &header, &properties, topology);
        let done = match checked {
            Ok(assembly) if assembly.missing == 0 => self.publish(now, number, assembly, topology, fx),
            Ok(assembly) => {
                self.open_channel(number).publishing = Publishing::AwaitBody(assembly);
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        self.settle_failure(now, number, done.map_err(|fault| Failure::new(fault, basic::Publish::ID)), fx)
    }

    /// A content body frame.
    pub(crate) fn content_body(
        &mut self,
        now: Now,
        number: ChannelId,
        payload: &[u8],
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        let channel = self.open_channel(number);
        let assembly = match &mut channel.publishing {
            Publishing::AwaitBody(assembly) => assembly,
            Publishing::Idle => return Err(unexpected(NO_METHOD, MethodId::NONE)),
            Publishing::AwaitHeader(_) => return Err(unexpected(NO_HEADER, basic::Publish::ID)),
        };
        let text = "content body frame exceeds remaining content size";
        let missing = assembly.missing.checked_sub(payload.len() as u64);
        assembly.missing = missing.ok_or_else(|| Reply::new(ReplyCode::FrameError, text, basic::Publish::ID))?;
        if assembly.bytes.capacity() - assembly.bytes.len() < payload.len() {
            // What was promised is believed in steps: memory is taken for what has come, and as much again.
            let step = assembly.bytes.len().max(payload.len()) as u64;
            assembly.bytes.reserve(payload.len() + usize::try_from(assembly.missing.min(step)).unwrap_or(0));
        }
        assembly.bytes.extend_from_slice(payload);
        if assembly.missing > 0 {
            return Ok(());
        }
        let Publishing::AwaitBody(assembly) = std::mem::take(&mut channel.publishing) else { return Ok(()) };
        let done = self.publish(now, number, assembly, topology, fx);
        self.settle_failure(now, number, done.map_err(|fault| Failure::new(fault, basic::Publish::ID)), fx)
    }

    /// Refuses a publish to an exchange that the user may not write to.
    fn check_write(&mut self, number: ChannelId, envelope: &Envelope, topology: &Topology) -> Result<(), Fault> {
        let generation = topology.access_generation();
        if self.open_channel(number).permitted.0 == generation
            && self.open_channel(number).permitted.1 == envelope.exchange
            || envelope.request().is_some()
        {
            return Ok(());
        }
        self.check_right(Right::Write, Resource::Exchange(&envelope.exchange), topology)?;
        let permitted = &mut self.open_channel(number).permitted;
        permitted.0 = generation;
        permitted.1.clone_from(&envelope.exchange);
        Ok(())
    }

    /// Everything that can be wrong with a message, in RabbitMQ's order of checks. They need no body, so a bad message
    /// is refused before it is sent.
    fn check_publish(
        &mut self,
        number: ChannelId,
        envelope: Envelope,
        header: &ContentHeader<'_>,
        properties: &Properties<'_>,
        topology: &Topology,
    ) -> Result<Assembly, Fault> {
        if envelope.immediate {
            return Err(Fault::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let (size, size_max) = (header.body_bytes, self.settings.message_bytes_max);
        if size > size_max {
            let text = format!("message size {size} is larger than configured max size {size_max}");
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        }
        self.check_write(number, &envelope, topology)?;
        let exchange = topology.exchange(self.vhost, &envelope.exchange);
        let exchange = exchange.ok_or_else(|| resource::no_exchange(&envelope.exchange, &self.vhost_name))?;
        if exchange.internal {
            let title = resource::exchange_title(&envelope.exchange, &self.vhost_name);
            return Err(Fault::new(ReplyCode::AccessRefused, format!("cannot publish to internal {title}")));
        }
        let mut edited = None;
        if properties.reply_to() == Some(REPLY_TO) {
            let address = topology.reply_address(self.key(number));
            let address = address.ok_or_else(|| precondition("fast reply consumer does not exist"))?;
            edited_list(&mut edited, properties).reply_to = Some(address.as_bytes().to_vec());
        }
        let expiration_ms = properties.expiration().map(parse_expiration).transpose()?;
        let mut more_keys = Vec::new();
        let mut delay_ms = None;
        if properties.has_headers() {
            let mut headers = properties.headers().unwrap_or_default();
            more_keys = keys_in_headers(&headers)?;
            delay_ms = hold_back(&mut headers);
            if delay_ms.is_some() {
                edited_list(&mut edited, properties).headers = Some(headers.clone());
            }
            if headers.get("BCC").is_some() {
                let list = edited_list(&mut edited, properties);
                list.headers.get_or_insert_default().remove("BCC");
            }
        }
        let any_key = exchange.kind != ExchangeKind::Topic || !self.rights_now(topology).has_topics();
        if !any_key {
            let rights = self.rights_now(topology);
            let keys = std::iter::once(&envelope.routing_key).chain(&more_keys);
            keys.into_iter().try_for_each(|key| rights.check_topic(Right::Write, &envelope.exchange, key))?;
        }
        if let Some(user_id) = properties.user_id().filter(|user_id| *user_id != &*self.user && !self.impersonates) {
            let user = &self.user;
            let text = format!("user_id property set to '{user_id}' but authenticated user was '{user}'");
            return Err(precondition(text));
        }
        let edited = edited.map(|list| {
            let mut raw = BytesMut::new();
            list.encode(&mut raw);
            raw
        });
        let parts = MessageParts {
            exchange: &envelope.exchange,
            routing_key: &envelope.routing_key,
            properties: edited.as_deref().unwrap_or(header.properties),
            died_here: false,
        };
        let body_bytes = usize::try_from(size).unwrap_or(usize::MAX).min(BODY_BYTES_BELIEVED);
        let mut bytes = BytesMut::with_capacity(parts.header_bytes() + body_bytes);
        parts.write(&mut bytes);
        Ok(Assembly {
            lengths: parts.lengths(),
            bytes,
            exchange: exchange.number(),
            missing: size,
            original: edited
                .as_deref()
                .map(|edited| Bytes::copy_from_slice(if delay_ms.is_some() { header.properties } else { edited })),
            more_keys,
            has_headers: properties.has_headers(),
            persistent: properties.delivery_mode() == Some(2),
            expiration_ms,
            priority: properties.priority(),
            delay_ms,
            any_key,
            envelope,
        })
    }

    /// The message is whole: it is routed, and sent or kept for the transaction's commit.
    fn publish(
        &mut self,
        now: Now,
        number: ChannelId,
        assembly: Assembly,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let message = Message::assembled(assembly.bytes.freeze(), assembly.lengths);
        let (vhost, frame_max) = (self.vhost, self.frame_max as usize);
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        let envelope = &assembly.envelope;
        let cached = channel.route_cache.get(&message, topology).filter(|_| !assembly.has_headers);
        // What has a route that is known is no request.
        if cached.is_none()
            && let Some(request) = envelope.request()
        {
            let routed = Routed::nowhere(message, envelope.mandatory, assembly.original);
            return self.take_request(now, number, request, routed, fx);
        }
        let mut holds = true;
        let targets = match cached {
            Some(targets) => targets,
            None => {
                let found = find_targets(envelope, &assembly.more_keys, &message, topology, vhost, &mut self.routes);
                let found = found.map_err(|()| resource::no_exchange(&envelope.exchange, &self.vhost_name))?;
                holds = self.routes.reuse != Reuse::Never;
                if !assembly.has_headers && self.routes.reuse == Reuse::SameNames {
                    channel.route_cache.put(&message, found.clone(), topology);
                }
                found
            }
        };
        let through = if holds { None } else { through(envelope, topology, &self.routes, fx.shards.len()) };
        let routed = Routed {
            message,
            targets,
            through,
            persistent: assembly.persistent,
            expiration_ms: assembly.expiration_ms,
            priority: assembly.priority,
            delay_ms: assembly.delay_ms,
            mandatory: envelope.mandatory,
            original: assembly.original,
        };
        channel.spare_envelope = assembly.envelope;
        let alike = Alike {
            exchange: assembly.exchange,
            queues: routed.queues(),
            fate: match channel.transaction {
                Some(_) => Fate::Uncommitted,
                None => Fate::of(routed.is_unroutable(), routed.mandatory),
            },
            confirm: channel.confirms.is_some(),
        };
        let body_bytes = routed.message.body_bytes();
        if !channel.tally.as_deref_mut().is_some_and(|tally| tally.is_alike(alike, body_bytes)) {
            tally_other(channel, alike, body_bytes, fx);
        }
        channel.counters.publish += 1;
        if self.watch.is_on {
            holds &= !self.watch.published(number, channel, &routed);
        }
        if let Some(transaction) = &mut channel.transaction {
            transaction.publish(routed);
            return Ok(());
        }
        if routed.is_unroutable() {
            return_unroutable(&routed, number, channel, frame_max, fx);
        }
        if routed.message.head().len() > PATTERN_HEAD_BYTES_MAX {
            channel.pattern = None;
        } else if holds
            && let any_key = assembly.any_key
            && assembly.more_keys.is_empty()
            && let Some(repeated) = routed.repeated(assembly.exchange, any_key)
        {
            match &mut channel.pattern {
                Some(pattern) => pattern.learn(number, &routed.message, repeated, topology),
                None => channel.pattern = Some(Box::new(Pattern::new(&routed.message, repeated, topology))),
            }
        }
        routed.keep(|shard, command| fx.shards[usize::from(shard.0)].push(command));
        let published = channel.confirms.as_mut().map(|confirms| confirms.published(routed.shards()));
        let is_stored = routed.shards() > 0;
        if published.is_some() && !is_stored {
            self.confirmed.push(number);
        }
        let (serial, ledgers) = (channel.serial, &mut self.ledgers);
        routed.send(published.is_some(), |shard, command| {
            fx.shards[usize::from(shard.0)].push(command);
            // A direct reply is stored nowhere.
            if let Some(published) = published.filter(|_| is_stored) {
                ledgers[usize::from(shard.0)].publish(number, serial, published);
            }
        });
        Ok(())
    }

    /// Takes a publish like its channel's last one, if there is one at the front of `input` as a whole; how many bytes.
    pub(crate) fn publish_again(
        &mut self,
        now: Now,
        input: &[u8],
        topology: &Topology,
        fx: &mut Effects,
    ) -> Option<usize> {
        let number = frame::channel_of_method(input)?;
        let body_bytes_max = self.settings.message_bytes_max.min(self.frame_body_bytes_max());
        let channel = self.channels.get_mut(&number)?;
        if !channel.is_usual() {
            return None;
        }
        let pattern = channel.pattern.as_deref_mut()?;
        let confirm = channel.confirms.is_some();
        let (shard, bytes) = match pattern.find(input, number, topology) {
            Some(found) if found.body_bytes() <= body_bytes_max => {
                let (message, repeated) = pattern.message(&found);
                if !channel.tally.as_deref_mut().is_some_and(|tally| tally.goes_on(found.body_bytes())) {
                    tally_repeated(&mut channel.tally, repeated, confirm, found.body_bytes(), &channel.counters);
                }
                let shard = usize::from(repeated.shard.0);
                repeated.send(message, confirm, &mut fx.shards[shard]);
                (shard, found.bytes)
            }
            Some(_) => return None,
            None => {
                let found = pattern.find_sibling(input, number, topology)?;
                if found.body_bytes() > body_bytes_max {
                    return None;
                }
                let routing_key = found.routing_key()?;
                let (shard, queues) = pattern.route(routing_key, topology, self.vhost, &mut self.routes)?;
                let (message, repeated) = pattern.sibling(&found);
                let (alike, body_bytes) = (repeated.alike(&queues, confirm), found.body_bytes());
                if !channel.tally.as_deref_mut().is_some_and(|tally| tally.is_alike(alike, body_bytes)) {
                    channel.tally.get_or_insert_default().publish(alike, body_bytes, &channel.counters);
                }
                repeated.send_to(&queues, message, confirm, &mut fx.shards[usize::from(shard.0)]);
                let bytes = found.bytes;
                pattern.note_sibling(number, routing_key, (shard, queues));
                (usize::from(shard.0), bytes)
            }
        };
        if let Some(confirms) = &mut channel.confirms {
            let published = confirms.published(1);
            self.ledgers[shard].publish(number, channel.serial, published);
        }
        channel.counters.publish += 1;
        channel.used_unix_ms = now.unix_ms;
        Some(bytes)
    }

    /// A shard has stored these publishes, but for those that a queue refused.
    pub(crate) fn publishes_stored(&mut self, runs: &[Run], refused: &[u32]) {
        if let Some(spans) = &mut self.watch.spans {
            spans.stored(runs, refused);
        }
        let mut refused = refused.iter().copied().peekable();
        let mut position = 0;
        for run in runs {
            let channel = self.channels.get_mut(&run.channel).filter(|channel| channel.serial == run.serial);
            let mut confirms = channel.and_then(|channel| channel.confirms.as_mut());
            for number in run.first..run.first + u64::from(run.count) {
                let is_refused = refused.next_if_eq(&position).is_some();
                position += 1;
                if let Some(confirms) = &mut confirms {
                    confirms.stored(number, is_refused);
                }
            }
            self.confirmed.push(run.channel);
        }
    }

    /// Tells the client what is confirmed.
    pub(crate) fn tell_confirms(&mut self, fx: &mut Effects) {
        self.confirmed.dedup();
        for number in self.confirmed.drain(..) {
            let Some(channel) = self.channels.get_mut(&number) else { continue };
            let out = fx.out.tail();
            let told = channel.confirms.as_mut().map(|confirms| {
                confirms.drain(|confirm| match confirm {
                    Confirm::Ack { tag: delivery_tag, multiple } => {
                        basic::Ack { delivery_tag, multiple }.encode(number, out);
                    }
                    Confirm::Nack { tag: delivery_tag } => {
                        basic::Nack { delivery_tag, multiple: false, requeue: false }.encode(number, out);
                    }
                })
            });
            channel.counters.confirm += told.unwrap_or(0);
        }
    }
}

impl RouteCache {
    fn get(&self, message: &Message, topology: &Topology) -> Option<Targets> {
        let same = self.generation == topology.generation() && self.names == message.names();
        if same { self.targets.clone() } else { None }
    }

    fn put(&mut self, message: &Message, targets: Targets, topology: &Topology) {
        self.generation = topology.generation();
        self.names.clear();
        self.names.extend_from_slice(message.names());
        self.targets = Some(targets);
    }
}

fn find_targets(
    envelope: &Envelope,
    more_keys: &[String],
    message: &Message,
    topology: &Topology,
    vhost: VhostId,
    routes: &mut Routes,
) -> Result<Targets, ()> {
    if envelope.is_reply() {
        // Reply addresses come and go without a change of the topology's generation.
        routes.reuse = Reuse::Never;
        let to = topology.reply_consumer(&envelope.routing_key);
        return Ok(to.map_or(Targets::Nowhere, Targets::Reply));
    }
    let mut route = |keys: &[&str]| topology.route_raw(vhost, &envelope.exchange, keys, message.properties(), routes);
    let key = envelope.routing_key.as_str();
    if more_keys.is_empty() {
        route(&[key])
    } else {
        route(&std::iter::once(key).chain(more_keys.iter().map(String::as_str)).collect::<Vec<_>>())
    }
    .map_err(|_| ())?;
    Ok(Targets::of(routes))
}

/// A publish that was parsed, and is counted otherwise than the last one.
#[cold]
#[inline(never)]
fn tally_other(channel: &mut Channel, alike: Alike, body_bytes: u64, fx: &mut Effects) {
    let tally = channel.tally.get_or_insert_default();
    tally.publish(alike, body_bytes, &channel.counters);
    if tally.is_full() {
        tally.take(&channel.counters, fx.tallied.get_or_insert_default());
    }
}

/// The same of one that was compared.
#[cold]
#[inline(never)]
fn tally_repeated(
    tally: &mut Option<Box<Tally>>,
    repeated: &Repeated,
    confirm: bool,
    body_bytes: u64,
    counters: &ChannelCounters,
) {
    tally.get_or_insert_default().repeat(repeated.alike(&repeated.queues, confirm), body_bytes, counters);
}

/// What is to be done beside routing, by the exchanges that a message has come through.
#[cold]
fn through(envelope: &Envelope, topology: &Topology, routes: &Routes, shards: usize) -> Option<Box<Through>> {
    if envelope.is_reply() {
        return None;
    }
    let keepers = routes.keepers(topology, u16::try_from(shards).expect("there are at most so many shards"));
    let is_any = routes.sifting.is_some() || !keepers.is_empty();
    is_any.then(|| Box::new(Through { sifting: routes.sifting.clone(), keepers, generation: topology.generation() }))
}

/// Nothing takes this message: it goes back to its publisher if that asked for it.
pub(super) fn return_unroutable(
    routed: &Routed,
    number: ChannelId,
    channel: &mut Channel,
    frame_max: usize,
    fx: &mut Effects,
) {
    if !routed.mandatory {
        channel.counters.drop_unroutable += 1;
        return;
    }
    channel.counters.return_unroutable += 1;
    let message = &routed.message;
    let returned = basic::Return {
        reply_code: ReplyCode::NoRoute.code(),
        reply_text: ReplyCode::NoRoute.name(),
        exchange: message.exchange(),
        routing_key: message.routing_key(),
    };
    returned.encode(number, fx.out.tail());
    let properties = routed.original.as_deref().unwrap_or(message.properties());
    encode_content(number, properties, message, frame_max, &mut fx.out);
}

/// Further routing keys: RabbitMQ's CC and BCC headers. Elements that are not strings are passed over.
fn keys_in_headers(headers: &Table) -> Result<Vec<String>, Fault> {
    let mut more_keys = Vec::new();
    for name in ["CC", "BCC"] {
        match headers.get(name) {
            None => {}
            Some(Value::Array(keys)) => more_keys.extend(keys.iter().filter_map(Value::as_str).map(str::to_owned)),
            Some(other) => {
                let word = other.type_word();
                let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{word}}}");
                return Err(precondition(text));
            }
        }
    }
    Ok(more_keys)
}

fn edited_list<'a>(edited: &'a mut Option<PropertyList>, properties: &Properties<'_>) -> &'a mut PropertyList {
    edited.get_or_insert_with(|| PropertyList::from(properties))
}

fn precondition(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

fn unexpected(text: &str, method: MethodId) -> Reply {
    Reply::new(ReplyCode::UnexpectedFrame, text, method)
}

const NO_METHOD: &str = "expected method frame, got non method frame instead";
const NO_HEADER: &str = "expected content header for class 60, got non content header frame instead";
const NO_BODY: &str = "expected content body, got non content body frame instead";
/// RabbitMQ's hard limit, whatever is configured.
const BODY_BYTES_MAX: u64 = 512 << 20;
/// With names and properties longer than this together, publishes are parsed: a channel keeps what it compares with.
const PATTERN_HEAD_BYTES_MAX: usize = 2048;
/// How many messages follow another in one command at the most: a shard does a command in one go.
const ALIKE_MAX: usize = 255;
/// For a body up to this size memory is taken at once.
const BODY_BYTES_BELIEVED: usize = 1 << 20;
