//! What becomes of a message that died in a queue: the dead letter, with the history of its deaths.
//!
//! The history is the `x-death` header: one table for each queue and reason, the newest first. It counts only where
//! this broker wrote it ([`Message::died_here`]), as in RabbitMQ 4: a client's own `x-death` is replaced.

use crate::command::{Failure, QueueSpec};
use crate::message::{Message, MessageParts};
use crate::operation::Origin;
use amqp::{Properties, PropertyList, Table, Value};
use bytes::BytesMut;

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A consumer does not want it.
    Rejected,
    /// Its time to live is over.
    Expired,
    /// The queue is full.
    MaxLength,
    /// Too many deliveries failed.
    DeliveryLimit,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rejected => REJECTED,
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// How a message died.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death<'a> {
    pub(crate) reason: Reason,
    /// Why its last delivery failed, if its worker said so.
    pub(crate) failure: Option<&'a Failure>,
    pub(crate) unix_ms: u64,
}

/// A message to be published to a dead letter exchange.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) message: Message,
    /// What it is routed by.
    pub(crate) keys: Vec<String>,
    /// Its delivery mode is 2.
    pub(crate) persistent: bool,
    pub(crate) priority: Option<u8>,
    /// Queue and reason of each death, newest first.
    deaths: Vec<(Vec<u8>, Vec<u8>)>,
}

impl DeadLetter {
    /// What a message becomes that died in this queue; `None` where nobody asked for it.
    pub(crate) fn new(message: &Message, queue: &QueueSpec, death: Death<'_>) -> Option<Self> {
        let Death { reason, failure, unix_ms } = death;
        let exchange = queue.settings.dead_letter_exchange.as_deref()?;
        let properties = Properties::parse(message.properties()).ok();
        let mut properties = properties.map_or_else(PropertyList::default, |found| PropertyList::from(&found));
        let mut headers = properties.headers.take().unwrap_or_default();
        let original_expiration = properties.expiration.take();

        let mut routing_keys = vec![message.routing_key().to_owned()];
        if let Some(Value::Array(copies)) = headers.get("CC")
            && !message.is_to_one_key()
        {
            routing_keys.extend(copies.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        let history = headers.remove("x-death").filter(|_| message.died_here());
        let mut history: Vec<Table> = match history {
            Some(Value::Array(deaths)) => deaths.into_iter().filter_map(into_table).collect(),
            _ => Vec::new(),
        };
        let is_known = |death: &Table| is(death, "queue", &queue.name) && is(death, "reason", reason.name());
        let newest = match history.iter().position(is_known) {
            Some(at) => died_again(history.remove(at)),
            None => {
                let expiration = original_expiration.map(|text| ("original-expiration", Value::Str(text)));
                let keys = routing_keys.iter().map(|key| Value::from(key.as_str())).collect();
                let told = [
                    ("count", Value::I64(1)),
                    ("reason", reason.name().into()),
                    ("queue", (*queue.name).into()),
                    ("time", Value::Timestamp(unix_ms / 1000)),
                    ("exchange", message.exchange().into()),
                    ("routing-keys", Value::Array(keys)),
                ];
                expiration.into_iter().chain(told).collect()
            }
        };
        history.insert(0, newest);

        for (part, value) in [("reason", reason.name()), ("queue", &queue.name), ("exchange", message.exchange())] {
            let first = format!("x-first-death-{part}");
            if !message.died_here() || !headers.contains_key(&first) {
                headers.insert(first, value);
            }
            headers.insert(format!("x-last-death-{part}"), value);
        }
        let deaths = history.iter().map(|death| (text(death, "queue"), text(death, "reason"))).collect();
        headers.insert("x-death", history.into_iter().map(Value::Table).collect::<Vec<_>>());
        if let Some(failure) = failure {
            headers.insert(FAILURE_REASON, failure.reason.as_str());
            headers.insert(FAILURE_TIME, Value::Timestamp(failure.at_unix_ms / 1000));
            headers.remove(FAILURE_DETAILS);
            // A header must fit into one frame.
            if !failure.details.is_empty() && message.properties().len() < DETAILED_MAX {
                headers.insert(FAILURE_DETAILS, failure.details.as_str());
            }
        }
        properties.headers = Some(headers);

        let own_key = queue.settings.dead_letter_key.as_ref();
        let is_to_one_key = own_key.is_some() || message.is_to_one_key();
        let keys = own_key.map_or(routing_keys, |key| vec![key.clone()]);
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let parts = MessageParts {
            exchange: short(exchange),
            routing_key: short(&keys[0]),
            properties: &encoded,
            died_here: true,
        };
        let make = if is_to_one_key { Message::to_one_key } else { Message::new };
        Some(Self {
            message: make(parts, message.body()),
            keys,
            persistent: properties.delivery_mode == Some(2),
            priority: properties.priority,
            deaths,
        })
    }

    /// Whether this message was in that queue before and came back without a consumer's doing, which could go on for
    /// ever.
    pub(crate) fn cycles_to(&self, queue: &str) -> bool {
        let Some(last_visit) = self.deaths.iter().position(|(name, _)| name == queue.as_bytes()) else { return false };
        self.deaths[..=last_visit].iter().all(|(_, reason)| reason != REJECTED.as_bytes())
    }
}

/// Where a dead letter was when it died.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whence {
    pub(crate) queue: String,
    /// What it was published with there.
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

/// Where this message, which waits in the queue `here`, died before it came here; `None` where this broker knows of no
/// death elsewhere.
pub(crate) fn origin(message: &Message, here: &str, which: Origin) -> Option<Whence> {
    if !message.died_here() {
        return None;
    }
    let properties = Properties::parse(message.properties()).ok()?;
    let headers = properties.headers()?;
    let Some(Value::Array(deaths)) = headers.get("x-death") else { return None };
    let deaths = deaths.iter().filter_map(|death| match death {
        Value::Table(death) => Some(death),
        _ => None,
    });
    let mut elsewhere = deaths.filter(|death| !is(death, "queue", here));
    let death = match which {
        Origin::Last => elsewhere.next(),
        Origin::First => {
            let first = headers.get("x-first-death-queue").and_then(Value::as_str);
            elsewhere.rfind(|death| first.is_some_and(|first| is(death, "queue", first)))
        }
    }?;
    let name = |key: &str| death.get(key).and_then(Value::as_str);
    let keys = match death.get("routing-keys") {
        Some(Value::Array(keys)) => keys.first().and_then(Value::as_str),
        _ => None,
    };
    Some(Whence {
        queue: name("queue")?.to_owned(),
        exchange: short(name("exchange").unwrap_or_default()).to_owned(),
        routing_key: short(keys.unwrap_or_default()).to_owned(),
    })
}

/// Why a dead letter failed last, by its headers: what the broker wrote there when it died, unless a client had them and no
/// worker said anything.
pub(crate) fn told_failure(message: &Message) -> Option<Failure> {
    if !message.died_here() {
        return None;
    }
    let headers = Properties::parse(message.properties()).ok()?.headers()?;
    let reason = headers.get(FAILURE_REASON).and_then(Value::as_str)?;
    let details = headers.get(FAILURE_DETAILS).and_then(Value::as_str).unwrap_or_default();
    let seconds = match headers.get(FAILURE_TIME) {
        Some(Value::Timestamp(seconds)) => *seconds,
        _ => 0,
    };
    Some(Failure::new(reason, details.as_bytes(), seconds.saturating_mul(1000)))
}

fn died_again(mut death: Table) -> Table {
    let count = death.get("count").and_then(Value::as_i64).unwrap_or(0);
    death.insert("count", Value::I64(count.saturating_add(1)));
    death
}

fn text(death: &Table, key: &str) -> Vec<u8> {
    match death.get(key) {
        Some(Value::Str(text)) => text.clone(),
        _ => Vec::new(),
    }
}

fn into_table(value: Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn is(death: &Table, key: &str, value: &str) -> bool {
    death.get(key).and_then(Value::as_str) == Some(value)
}

/// An argument may be longer than any name that exists or a client can bind with: such a letter finds no queue.
fn short(name: &str) -> &str {
    let end = (0..=name.len().min(255)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

const FAILURE_REASON: &str = "x-failure-reason";
const FAILURE_DETAILS: &str = "x-failure-details";
const FAILURE_TIME: &str = "x-failure-time";
/// With properties of more bytes there may be no room for details in the 128 KiB of a frame.
const DETAILED_MAX: usize = 100 << 10;
const REJECTED: &str = "rejected";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::QueueSettings;
    use crate::queue::tests::spec;

    fn published(list: &PropertyList) -> Message {
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        let parts = MessageParts { exchange: "jobs", routing_key: "new", properties: &properties, died_here: false };
        Message::new(parts, b"body")
    }

    fn dead_lettering(key: Option<&str>) -> QueueSettings {
        QueueSettings {
            dead_letter_exchange: Some("dlx".to_owned()),
            dead_letter_key: key.map(str::to_owned),
            ..QueueSettings::default()
        }
    }

    fn headers(message: &Message) -> Table {
        Properties::parse(message.properties()).unwrap().headers().unwrap()
    }

    fn deaths(message: &Message) -> Vec<Table> {
        match headers(message).remove("x-death") {
            Some(Value::Array(deaths)) => deaths.into_iter().filter_map(into_table).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn how(reason: Reason, unix_ms: u64) -> Death<'static> {
        Death { reason, failure: None, unix_ms }
    }

    #[test]
    fn a_death_is_told_in_rabbitmqs_words_and_order() {
        let mut sent = Table::new();
        sent.insert("CC", vec![Value::from("copy")]);
        sent.insert("x-death", vec![Value::Table(Table::new())]);
        let message = published(&PropertyList {
            headers: Some(sent),
            expiration: Some(b"50".to_vec()),
            delivery_mode: Some(2),
            ..PropertyList::default()
        });
        let letter = DeadLetter::new(&message, &spec(1, dead_lettering(None)), how(Reason::Expired, 7_999)).unwrap();
        assert_eq!(letter.keys, ["new", "copy"]);
        assert!(letter.persistent);
        assert_eq!((letter.message.exchange(), letter.message.routing_key()), ("dlx", "new"));
        assert_eq!(letter.message.body(), b"body");
        let history = deaths(&letter.message);
        let death: Vec<_> = history[0].iter().collect();
        let keys = Value::Array(vec!["new".into(), "copy".into()]);
        assert_eq!(history.len(), 1);
        assert_eq!(
            death,
            [
                ("original-expiration", &Value::from("50")),
                ("count", &Value::I64(1)),
                ("reason", &Value::from("expired")),
                ("queue", &Value::from("q1")),
                ("time", &Value::Timestamp(7)),
                ("exchange", &Value::from("jobs")),
                ("routing-keys", &keys),
            ]
        );
        assert_eq!(Properties::parse(letter.message.properties()).unwrap().expiration(), None);
        for (key, value) in [("reason", "expired"), ("queue", "q1"), ("exchange", "jobs")] {
            let headers = headers(&letter.message);
            assert_eq!(headers.get(&format!("x-first-death-{key}")), Some(&Value::from(value)));
            assert_eq!(headers.get(&format!("x-last-death-{key}")), Some(&Value::from(value)));
        }
    }

    #[test]
    fn what_a_queues_own_key_addressed_goes_to_no_copies_later() {
        let sent: Table = [("CC", Value::Array(vec!["copy".into()]))].into_iter().collect();
        let message = published(&PropertyList { headers: Some(sent), ..PropertyList::default() });
        let letter = |message: &Message, queue, key| {
            DeadLetter::new(message, &spec(queue, dead_lettering(key)), how(Reason::Rejected, 0)).unwrap()
        };
        let once = letter(&message, 1, Some("k"));
        assert_eq!(once.keys, ["k"]);
        let twice = letter(&once.message, 2, None);
        assert_eq!(twice.keys, ["k"]);
        assert_eq!(deaths(&twice.message)[0].get("routing-keys"), Some(&Value::Array(vec!["k".into()])));
        assert_eq!(letter(&twice.message, 3, None).keys, ["k"]);
        assert!(headers(&twice.message).contains_key("CC"), "it stays, as in RabbitMQ 3.13 and later");
        assert_eq!(letter(&letter(&message, 1, None).message, 2, None).keys, ["new", "copy"]);
    }

    #[test]
    fn a_repeated_death_counts_on_and_moves_to_the_front() {
        let (first, second) = (spec(1, dead_lettering(Some("k"))), spec(2, dead_lettering(None)));
        let once = DeadLetter::new(&published(&PropertyList::default()), &first, how(Reason::Rejected, 1_000)).unwrap();
        let twice = DeadLetter::new(&once.message, &second, how(Reason::Expired, 2_000)).unwrap();
        let thrice = DeadLetter::new(&twice.message, &first, how(Reason::Rejected, 3_000)).unwrap();
        let history = deaths(&thrice.message);
        let told =
            |death: &Table| (death.get("queue").cloned(), death.get("count").cloned(), death.get("time").cloned());
        assert_eq!(history.len(), 2);
        assert_eq!(told(&history[0]), (Some("q1".into()), Some(Value::I64(2)), Some(Value::Timestamp(1))));
        assert_eq!(told(&history[1]), (Some("q2".into()), Some(Value::I64(1)), Some(Value::Timestamp(2))));
        assert_eq!(headers(&thrice.message).get("x-first-death-queue"), Some(&Value::from("q1")));
        assert_eq!(thrice.keys, ["k"]);
    }

    #[test]
    fn only_a_cycle_without_a_rejection_is_one() {
        let (work, wait) = (spec(1, dead_lettering(None)), spec(2, dead_lettering(None)));
        let rejected = DeadLetter::new(&published(&PropertyList::default()), &work, how(Reason::Rejected, 0)).unwrap();
        assert!(!rejected.cycles_to("q2"));
        let expired = DeadLetter::new(&rejected.message, &wait, how(Reason::Expired, 0)).unwrap();
        assert!(!expired.cycles_to("q1"), "the retry ladder");
        assert!(expired.cycles_to("q2"));
        let again = DeadLetter::new(&expired.message, &work, how(Reason::Expired, 0)).unwrap();
        assert!(again.cycles_to("q2"), "no rejection since it was there");
    }

    #[test]
    fn a_dead_letter_knows_its_last_queue_and_its_first_but_not_by_a_clients_word() {
        let settings = || QueueSettings { dead_letter_exchange: Some("dlx".into()), ..QueueSettings::default() };
        let died = |message: &Message, queue: u64, reason| {
            DeadLetter::new(message, &spec(queue, settings()), how(reason, 0)).unwrap().message
        };
        let born = published(&PropertyList::default());
        assert_eq!(origin(&born, "here", Origin::Last), None);
        let letter = died(&died(&died(&born, 1, Reason::Rejected), 2, Reason::Expired), 3, Reason::Rejected);
        let found = |here: &str, which| origin(&letter, here, which).map(|whence| (whence.queue, whence.exchange));
        let some = |queue: &str, exchange: &str| Some((queue.to_owned(), exchange.to_owned()));
        assert_eq!(found("here", Origin::Last), some("q3", "dlx"));
        assert_eq!(found("q3", Origin::Last), some("q2", "dlx"), "not to where it is");
        assert_eq!(found("here", Origin::First), some("q1", born.exchange()));
        assert_eq!(found("q1", Origin::First), None);
        assert_eq!(origin(&letter, "here", Origin::First).unwrap().routing_key, born.routing_key());
        let properties = letter.properties();
        let parts = MessageParts { exchange: "", routing_key: "", properties, died_here: false };
        assert_eq!(origin(&Message::new(parts, b""), "here", Origin::Last), None);
    }
    #[test]
    fn a_dead_letter_tells_the_last_failure_and_what_a_client_wrote_only_where_nobody_said_anything() {
        let failure = Failure::new("exit 65", b"no such user", 8_500);
        let headers_before: Table =
            [("x-failure-reason", Value::from("mine")), ("x-failure-details", "mine".into())].into_iter().collect();
        let message = published(&PropertyList { headers: Some(headers_before), ..PropertyList::default() });
        assert_eq!(told_failure(&message), None);
        let spec = spec(1, dead_lettering(None));
        let told = DeadLetter::new(&message, &spec, Death { failure: Some(&failure), ..how(Reason::Rejected, 9_000) });
        let told = told.unwrap().message;
        assert_eq!(told_failure(&told), Some(Failure { at_unix_ms: 8_000, ..failure.clone() }));
        assert_eq!(headers(&told).get("x-failure-time"), Some(&Value::Timestamp(8)));
        let again = DeadLetter::new(&told, &spec, how(Reason::Expired, 10_000)).unwrap().message;
        assert_eq!(told_failure(&again).unwrap().reason, "exit 65", "the last one that is known");
        let brief = Failure::new("exit 1", b"", 0);
        let brief = DeadLetter::new(&told, &spec, Death { failure: Some(&brief), ..how(Reason::Rejected, 0) });
        assert_eq!(told_failure(&brief.unwrap().message), Some(Failure::new("exit 1", b"", 0)));
        let quiet = DeadLetter::new(&message, &spec, how(Reason::Expired, 0)).unwrap().message;
        assert_eq!(headers(&quiet).get("x-failure-reason"), Some(&Value::from("mine")), "as it was");
    }
}
