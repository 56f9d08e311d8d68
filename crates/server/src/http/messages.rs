//! Single messages: `POST /api/exchanges/VHOST/NAME/publish` and `POST /api/queues/VHOST/NAME/get`.

use super::access::Caller;
use super::exchanges::real_name;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::{Api, Shared, queues, rights, values};
use crate::operator::Operator;
use amqp::{ChannelId, Properties, PropertyList, ReplyCode, Value as Amqp};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::command::{
    Command, Delay, Delivery, Fault, Outcome, Publish, QueueRef, QueueSpec, Recent, Settle, Settlement, ShardId,
    Sifted, Sifting, VhostId,
};
use broker::message::{Message, MessageParts, hold_back, parse_expiration};
use broker::resource;
use broker::topology::Routes;
use bytes::BytesMut;
use serde_json::{Map, Value, json};

/// `POST /api/exchanges/VHOST/NAME/publish`
pub(super) async fn publish(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, exchange)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    document.require(&["payload", "payload_encoding", "properties", "routing_key"])?;
    let vhost_id = api.vhost(&vhost)?;
    let routing_key = document.text("routing_key")?;
    if routing_key.len() > usize::from(u8::MAX) {
        return Err(Refusal::bad_request("routing_key is longer than 255 bytes"));
    }
    let body = payload(&document)?;
    let draft = Draft::read(&document.object("properties")?)?;
    let exchange = real_name(&exchange);
    for key in std::iter::once(routing_key).chain(draft.more_keys.iter().map(String::as_str)) {
        rights::check_key(&api, vhost_id, exchange, key)?;
    }
    let place = Place { vhost: vhost_id, vhost_name: &vhost, exchange, routing_key };
    let (message, targets) =
        prepare(&api, &caller, &place, draft, &body).map_err(|fault| Refusal::from_channel(&fault))?;
    let routed = !targets.is_empty();
    api.board.count_published(message.exchange, targets.len(), body.len() as u64);
    send(&mut api.operator(), &message, &targets).await?;
    Ok(Json(json!({"routed": routed})))
}

/// Puts a transient message into a queue.
pub(super) async fn publish_to_queue(operator: &mut Operator, queue: &QueueSpec, body: &[u8]) -> Result<(), Refusal> {
    let mut properties = BytesMut::new();
    PropertyList::default().encode(&mut properties);
    let parts = MessageParts { exchange: "", routing_key: &queue.name, properties: &properties, died_here: false };
    let message = Message::new(parts, body);
    let (expiration_ms, priority, delay_ms) = (None, None, None);
    let exchange = 0;
    let ready = Ready {
        message,
        exchange,
        persistent: false,
        expiration_ms,
        priority,
        delay_ms,
        sifting: None,
        kept: Vec::new(),
    };
    send(operator, &ready, &[queue.queue]).await
}

/// A message and what its properties mean to queues.
#[derive(Debug)]
struct Ready {
    message: Message,
    /// The exchange's number; of no account where none is asked for a route.
    exchange: u64,
    persistent: bool,
    expiration_ms: Option<u64>,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    /// Exchanges deduplicate.
    sifting: Option<Sifting>,
    /// Exchanges keep it for those who bind later.
    kept: Vec<(ShardId, Recent)>,
}

/// Where a message is published.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    vhost: VhostId,
    vhost_name: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
}

/// A message's properties as a client of the API gave them.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) properties: PropertyList,
    pub(super) user_id: Option<String>,
    /// From the `CC` and `BCC` headers.
    pub(super) more_keys: Vec<String>,
    pub(super) expiration: Option<String>,
}

impl Draft {
    pub(super) fn read(document: &Document) -> Result<Self, Refusal> {
        let text = |key: &str| -> Result<Option<Vec<u8>>, Refusal> {
            if document.get(key).is_none() {
                return Ok(None);
            }
            let text = document.text(key)?;
            if text.len() > usize::from(u8::MAX) {
                return Err(Refusal::bad_request(format!("{key} is longer than 255 bytes")));
            }
            Ok(Some(text.as_bytes().to_vec()))
        };
        let octet = |key: &str| -> Result<Option<u8>, Refusal> {
            let number = document.integer(key)?;
            number.map(u8::try_from).transpose().map_err(|_| Refusal::bad_request(json!(["not_int", key])))
        };
        let timestamp = document.integer("timestamp")?.map(u64::try_from).transpose();
        let mut properties = PropertyList {
            content_type: text("content_type")?,
            content_encoding: text("content_encoding")?,
            headers: document.get("headers").map(|_| document.table("headers")).transpose()?,
            delivery_mode: octet("delivery_mode")?,
            priority: octet("priority")?,
            correlation_id: text("correlation_id")?,
            reply_to: text("reply_to")?,
            expiration: text("expiration")?,
            message_id: text("message_id")?,
            timestamp: timestamp.map_err(|_| Refusal::bad_request(json!(["not_int", "timestamp"])))?,
            kind: text("type")?,
            user_id: text("user_id")?,
            app_id: text("app_id")?,
            cluster_id: text("cluster_id")?,
        };
        let mut more_keys = Vec::new();
        if let Some(headers) = &mut properties.headers {
            for name in ["CC", "BCC"] {
                match headers.get(name) {
                    None => {}
                    Some(Amqp::Array(keys)) => {
                        more_keys.extend(keys.iter().filter_map(Amqp::as_str).map(str::to_owned))
                    }
                    Some(_) => return Err(Refusal::bad_request(format!("the header {name} must be a list"))),
                }
            }
            // Its receivers are not told of each other.
            headers.remove("BCC");
        }
        let user_id = properties.user_id.clone().and_then(|octets| String::from_utf8(octets).ok());
        let expiration = properties.expiration.clone().and_then(|octets| String::from_utf8(octets).ok());
        Ok(Self { properties, user_id, more_keys, expiration })
    }
}

/// Makes the message and finds its queues, by the rules of basic.publish.
fn prepare(
    api: &Api,
    caller: &Caller,
    place: &Place<'_>,
    mut draft: Draft,
    body: &[u8],
) -> Result<(Ready, Vec<QueueRef>), Fault> {
    let topology = api.board.topology();
    let Place { vhost, vhost_name, exchange: name, routing_key } = *place;
    let exchange = topology.exchange(vhost, name).ok_or_else(|| resource::no_exchange(name, vhost_name))?;
    if exchange.internal {
        let title = resource::exchange_title(name, vhost_name);
        return Err(Fault::new(ReplyCode::AccessRefused, format!("cannot publish to internal {title}")));
    }
    let user = &*caller.user.name;
    if let Some(other) = draft.user_id.filter(|user_id| user_id != user) {
        let text = format!("user_id property set to '{other}' but authenticated user was '{user}'");
        return Err(Fault::new(ReplyCode::PreconditionFailed, text));
    }
    let (size, size_max) = (body.len() as u64, api.board.config().max_message_bytes);
    if size > size_max {
        let text = format!("message size {size} is larger than configured max size {size_max}");
        return Err(Fault::new(ReplyCode::PreconditionFailed, text));
    }
    let expiration_ms = draft.expiration.as_deref().map(parse_expiration).transpose()?;
    let delay_ms = draft.properties.headers.as_mut().and_then(hold_back);
    let mut raw = BytesMut::new();
    draft.properties.encode(&mut raw);
    // A header is one frame, and who gets one that is longer than was agreed on ends the connection, each time anew.
    let (length, length_max) = (raw.len(), api.board.config().frame_max);
    if length_max != 0 && length + HEADER_FRAME_BYTES > usize::try_from(length_max).unwrap_or(usize::MAX) {
        let text = format!("properties of {length} bytes do not fit into a frame of frame_max, {length_max} bytes");
        return Err(Fault::new(ReplyCode::PreconditionFailed, text));
    }
    let unreadable = |_| Fault::new(ReplyCode::InternalError, "the properties cannot be read back");
    let properties = Properties::parse(&raw).map_err(unreadable)?;
    let keys: Vec<&str> = std::iter::once(routing_key).chain(draft.more_keys.iter().map(String::as_str)).collect();
    let mut routes = Routes::seeded(getrandom::u64().unwrap_or_default());
    let routed = topology.route(vhost, name, &keys, &properties, &mut routes);
    routed.map_err(|_| resource::no_exchange(name, vhost_name))?;
    let parts = MessageParts { exchange: name, routing_key, properties: &raw, died_here: false };
    let message = Message::new(parts, body);
    let (persistent, priority) = (properties.delivery_mode() == Some(2), properties.priority());
    let kept = routes.keepers(&topology, api.board.shards());
    let recent = |(shard, exchange, length)| {
        let (message, generation) = (message.clone(), topology.generation());
        (shard, Recent { exchange, length, generation, message, persistent, expiration_ms, priority })
    };
    let kept = kept.into_iter().map(recent).collect();
    let sifting = routes.sifting.take();
    let exchange = exchange.number();
    let ready = Ready { message, exchange, persistent, expiration_ms, priority, delay_ms, sifting, kept };
    Ok((ready, routes.queues))
}

/// Of a content header's frame, besides properties: its own head and end, class, weight and the body's length.
const HEADER_FRAME_BYTES: usize = 7 + 1 + 2 + 2 + 8;

/// Sends a message to its queues, which are sorted by shard, and waits until it is stored.
async fn send(operator: &mut Operator, ready: &Ready, targets: &[QueueRef]) -> Result<(), Refusal> {
    for (shard, recent) in &ready.kept {
        operator.send(*shard, vec![Command::Keep(Box::new(recent.clone()))]);
    }
    for targets in targets.chunk_by(|one, other| one.shard == other.shard) {
        let publish = Publish {
            queues: targets.iter().map(|queue| queue.id).collect(),
            message: ready.message.clone(),
            more: Vec::new(),
            persistent: ready.persistent,
            expiration_ms: ready.expiration_ms,
            priority: ready.priority,
            delay: ready.delay_ms.map(Delay::For),
            confirm: true,
        };
        let command = match &ready.sifting {
            None => Command::Publish(publish),
            Some(sifting) => Command::Sift(Box::new(Sifted { sifting: sifting.clone(), publish })),
        };
        operator.publish(targets[0].shard, vec![command]).await?;
    }
    Ok(())
}

fn payload(document: &Document) -> Result<Vec<u8>, Refusal> {
    let payload = document.text("payload")?;
    match document.text("payload_encoding")? {
        "string" => Ok(payload.as_bytes().to_vec()),
        "base64" => STANDARD.decode(payload).map_err(|_| Refusal::bad_request("payload is not Base64")),
        other => Err(Refusal::bad_request(format!("unsupported payload_encoding {other:?}: use string or base64"))),
    }
}

/// `POST /api/queues/VHOST/NAME/get`
pub(super) async fn get(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<Json<Value>, Refusal> {
    let requeue = document.get("requeue").map(|_| document.flag("requeue")).transpose()?;
    if requeue.is_none() {
        document.require(&["ackmode"])?;
    }
    document.require(&["count", "encoding"])?;
    let settlement = match (requeue, document.text("ackmode")?) {
        (Some(true), "") | (_, "ack_requeue_true" | "reject_requeue_true") => Settlement::Requeue,
        (Some(false), "") | (_, "ack_requeue_false") => Settlement::Ack,
        (_, "reject_requeue_false") => Settlement::Discard,
        (_, other) => return Err(Refusal::bad_request(format!("unknown ackmode {other:?}"))),
    };
    let count = document.integer("count")?.unwrap_or(1).clamp(0, GET_MAX);
    let truncate = document.integer("truncate")?.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    let is_base64 = match document.text("encoding")? {
        "auto" => false,
        "base64" => true,
        other => return Err(Refusal::bad_request(format!("unsupported encoding {other:?}: use auto or base64"))),
    };

    let vhost_id = api.vhost(&vhost)?;
    let missing = || Refusal::not_found(format!("NOT_FOUND - no {}", resource::queue_title(&name, &vhost)));
    if api.board.topology().queue(vhost_id, &name).is_none() {
        return Err(missing());
    }
    let spec = queues::find(&api, &vhost, &name)?;
    let mut operator = api.operator();
    spec.check_owner(operator.id())?;
    // What is taken and not settled goes back when the operator is dropped, whatever happens here.
    let mut taken = Vec::new();
    let mut bytes = 0;
    while (taken.len() as i64) < count && bytes < GET_BYTES_MAX {
        let take = |call| Command::Get { call, channel: ChannelId(1), queue: spec.queue.id, no_ack: false };
        match succeeded(operator.command(spec.queue.shard, take).await?)? {
            Outcome::Got { delivery, left } => {
                bytes += delivery.message.body().len();
                taken.push((delivery, left));
            }
            _ => break,
        }
    }
    let settle = |(delivery, _): &(Delivery, u64)| {
        Command::Settle(Settle { queue: delivery.queue.id, seq: delivery.seq, count: 1, how: settlement })
    };
    let settles: Vec<_> = taken.iter().map(settle).collect();
    if !settles.is_empty() {
        operator.send(spec.queue.shard, settles);
    }
    Ok(Json(taken.iter().map(|(delivery, left)| describe(delivery, *left, is_base64, truncate)).collect()))
}

fn describe(delivery: &Delivery, left: u64, is_base64: bool, truncate: usize) -> Value {
    let mut object = describe_message(&delivery.message, delivery.attempts, is_base64, truncate);
    object.insert("redelivered".into(), delivery.redelivered.into());
    object.insert("message_count".into(), left.into());
    object.into()
}

/// A message's names, properties and body, of which so many bytes are shown.
pub(super) fn describe_message(
    message: &Message,
    attempts: u32,
    is_base64: bool,
    truncate: usize,
) -> Map<String, Value> {
    let body = message.body();
    let mut shown = &body[..body.len().min(truncate)];
    // A cut through a character does not make a text binary.
    if let Err(error) = std::str::from_utf8(shown)
        && shown.len() < body.len()
        && error.error_len().is_none()
    {
        shown = &shown[..error.valid_up_to()];
    }
    let text = std::str::from_utf8(shown).ok().filter(|_| !is_base64);
    let (payload, payload_encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (STANDARD.encode(shown), "base64"),
    };
    let parts = [
        ("payload_bytes", body.len().into()),
        ("exchange", message.exchange().into()),
        ("routing_key", message.routing_key().into()),
        ("properties", properties_to_json(message.properties(), attempts)),
        ("payload", payload.into()),
        ("payload_encoding", payload_encoding.into()),
    ];
    parts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub(super) fn properties_to_json(raw: &[u8], attempts: u32) -> Value {
    let Ok(properties) = Properties::parse(raw) else { return json!({}) };
    let list = PropertyList::from(&properties);
    let mut object = Map::new();
    let mut headers = list.headers;
    if attempts > 0 {
        for count in ["x-delivery-count", "x-acquired-count"] {
            headers.get_or_insert_default().insert(count, i64::from(attempts));
        }
    }
    let texts = [
        ("type", list.kind),
        ("message_id", list.message_id),
        ("correlation_id", list.correlation_id),
        ("reply_to", list.reply_to),
        ("expiration", list.expiration),
        ("user_id", list.user_id),
        ("app_id", list.app_id),
        ("cluster_id", list.cluster_id),
        ("content_type", list.content_type),
        ("content_encoding", list.content_encoding),
    ];
    for (name, octets) in texts {
        if let Some(octets) = octets {
            object.insert(name.to_owned(), values::octets_to_json(&octets));
        }
    }
    if let Some(timestamp) = list.timestamp {
        object.insert("timestamp".to_owned(), timestamp.into());
    }
    if let Some(priority) = list.priority {
        object.insert("priority".to_owned(), priority.into());
    }
    if let Some(delivery_mode) = list.delivery_mode {
        object.insert("delivery_mode".to_owned(), delivery_mode.into());
    }
    if let Some(headers) = headers {
        object.insert("headers".to_owned(), values::table_to_json(&headers));
    }
    object.into()
}

/// Messages that one request gets at most.
const GET_MAX: i64 = 10_000;

/// One request gets no further message when those that it has are as large as this.
const GET_BYTES_MAX: usize = 64 << 20;
