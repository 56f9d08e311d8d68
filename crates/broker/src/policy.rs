//! Policies: settings for queues and exchanges by their names, kept apart from what was declared.
//!
//! Of all policies whose pattern is found in an object's name, the one of the highest priority applies, and of operator
//! policies one more. They are never merged with others of their kind. What an object is like follows from its own
//! arguments, that policy and that operator policy: see [`effective`].

use crate::command::{DeadLetterStrategy, Fault, QueueKind, QueueSettings, QueueSpec, Rate, TimeoutAction, VhostId};
use crate::queue::deduplication::HEADER;
use crate::queue::stream::age_ms;
use crate::settings::{
    CACHE_SIZE, CACHE_TTL, DEDUPLICATION, DEDUPLICATION_KEY, DEDUPLICATION_KEYS, deduplication, delayed_retry, rate,
    term,
};
use amqp::{ReplyCode, Table, Value};
use fancy_regex::{Regex, RegexBuilder};
use std::fmt;
use std::sync::Arc;

/// Whose policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// A user's.
    User,
    /// An operator's: has fewer keys, and bounds what users say.
    Operator,
}

/// What a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliesTo {
    /// Queues and exchanges.
    All,
    /// All queues.
    Queues,
    /// Queues of type `classic`.
    ClassicQueues,
    /// Queues of type `quorum`.
    QuorumQueues,
    /// Queues of type `stream`.
    Streams,
    /// Exchanges.
    Exchanges,
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    /// Whose it is.
    pub kind: PolicyKind,
    /// Its vhost.
    pub vhost: VhostId,
    /// Its name, unique in its vhost and kind.
    pub name: Arc<str>,
    /// What names it applies to: an unanchored regular expression.
    pub pattern: Pattern,
    /// What else they must be.
    pub applies_to: AppliesTo,
    /// The highest wins.
    pub priority: i64,
    /// Keys and values, checked.
    pub definition: Table,
}

/// An unanchored regular expression over names.
pub struct Pattern {
    source: String,
    /// `None`: it is [`ANYTHING`], the usual one, which needs none and its memory.
    regex: Option<Regex>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Compiles it. Look-around and back references are understood, as RabbitMQ's users have patterns such as
    /// `^(?!amq\.)`.
    ///
    /// # Errors
    /// 406 for what is no regular expression.
    pub fn new(source: &str) -> Result<Self, Fault> {
        if source == ANYTHING {
            return Ok(Self { source: source.to_owned(), regex: None });
        }
        let regex = RegexBuilder::new(source).backtrack_limit(BACKTRACKS_MAX).build();
        let regex =
            regex.map_err(|error| invalid(format!("pattern should be regular expression but is invalid: {error}")))?;
        Ok(Self { source: source.to_owned(), regex: Some(regex) })
    }

    /// As it was given.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is found in the name. One that takes too many steps for that is not.
    #[must_use]
    pub fn is_in(&self, name: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(name).unwrap_or(false))
    }
}

/// What is found in every name.
const ANYTHING: &str = ".*";

impl AppliesTo {
    const ALL: [(&'static str, Self); 6] = [
        ("all", Self::All),
        ("queues", Self::Queues),
        ("classic_queues", Self::ClassicQueues),
        ("quorum_queues", Self::QuorumQueues),
        ("streams", Self::Streams),
        ("exchanges", Self::Exchanges),
    ];

    /// What RabbitMQ calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("all", |(name, _)| name)
    }

    /// The one of this name.
    ///
    /// # Errors
    /// 406 for any other name.
    pub fn named(name: &str) -> Result<Self, Fault> {
        let names = || Self::ALL.map(|(name, _)| format!("'{name}'")).join(", ");
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, it)| *it);
        found.ok_or_else(|| invalid(format!("apply-to '{name}' unrecognised; should be one of: {}", names())))
    }

    fn takes_queue(self, kind: QueueKind) -> bool {
        match self {
            Self::All | Self::Queues => true,
            Self::ClassicQueues => kind == QueueKind::Classic,
            Self::QuorumQueues => kind == QueueKind::Quorum,
            Self::Streams => kind == QueueKind::Stream,
            Self::Exchanges => false,
        }
    }

    fn takes_exchanges(self) -> bool {
        matches!(self, Self::All | Self::Exchanges)
    }
}

impl Policy {
    /// Checks that its definition has only keys that there are, with values that they can have.
    ///
    /// # Errors
    /// 406 in RabbitMQ's words for the first that is not so.
    pub fn check(&self) -> Result<(), Fault> {
        if self.definition.is_empty() {
            return Err(invalid("no policy provided".to_owned()));
        }
        let is_known = |name: &str| {
            let key = KEYS.iter().find(|key| key.name == name);
            key.is_some_and(|key| key.is_operators || self.kind == PolicyKind::User)
        };
        let unknown: Vec<_> = self.definition.iter().filter(|(name, _)| !is_known(name)).collect();
        if !unknown.is_empty() {
            let listed: Vec<_> =
                unknown.iter().map(|(name, value)| format!("{{<<\"{name}\">>,{}}}", term(value))).collect();
            return Err(invalid(format!("[{}] are not recognised policy settings", listed.join(","))));
        }
        for key in KEYS {
            if let Some(value) = self.definition.get(key.name)
                && !key.value.takes(value)
            {
                return Err(invalid(format!("{} is not a valid {}", term(value), key.title)));
            }
        }
        Ok(())
    }

    /// Whether it could apply to a queue of this name and type.
    #[must_use]
    pub fn matches_queue(&self, name: &str, kind: QueueKind) -> bool {
        self.applies_to.takes_queue(kind) && self.pattern.is_in(name)
    }

    /// Whether it could apply to an exchange of this name.
    #[must_use]
    pub fn matches_exchange(&self, name: &str) -> bool {
        self.applies_to.takes_exchanges() && self.pattern.is_in(name)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.definition.get(key).and_then(Value::as_i64)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.definition.get(key).and_then(Value::as_str)
    }
}

/// The policies that apply to one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The user's.
    pub user: Option<Arc<Policy>>,
    /// The operator's.
    pub operator: Option<Arc<Policy>>,
}

impl PartialEq for Policy {
    /// Two of the same name are the same one only if nothing about it has changed.
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.vhost, &self.name, &self.pattern, self.applies_to, self.priority, &self.definition)
            == (
                other.kind,
                other.vhost,
                &other.name,
                &other.pattern,
                other.applies_to,
                other.priority,
                &other.definition,
            )
    }
}

impl Applied {
    /// The one of this kind.
    pub(crate) fn of(&self, kind: PolicyKind) -> Option<&Arc<Policy>> {
        match kind {
            PolicyKind::User => self.user.as_ref(),
            PolicyKind::Operator => self.operator.as_ref(),
        }
    }

    pub(crate) fn of_mut(&mut self, kind: PolicyKind) -> &mut Option<Arc<Policy>> {
        match kind {
            PolicyKind::User => &mut self.user,
            PolicyKind::Operator => &mut self.operator,
        }
    }

    fn each(&self) -> impl Iterator<Item = &Policy> {
        self.operator.iter().chain(&self.user).map(|policy| &**policy)
    }

    /// The smallest number that any of them has, and the object's own.
    fn least(&self, own: Option<u64>, key: &str) -> Option<u64> {
        let said = self.each().filter_map(|policy| policy.number(key)).filter_map(|number| u64::try_from(number).ok());
        said.chain(own).min()
    }

    fn fewest(&self, own: Option<u32>, key: &str) -> Option<u32> {
        self.least(own.map(u64::from), key).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// The lowest rate that any of them has, and the object's own.
    fn slowest(&self, own: Option<Rate>, key: &str) -> Option<Rate> {
        let said = self.each().filter_map(|policy| policy.definition.get(key)).filter_map(rate);
        said.chain(own).min_by(Rate::compare)
    }

    /// Whether a queue may be declared with other arguments, to have them from then on.
    pub(crate) fn lets_redeclare(&self) -> bool {
        self.first("redeclare") == Some(UPDATE)
    }

    /// Whether exchanges that do not say so themselves deduplicate. That is for policies for exchanges only: those for all,
    /// which is what most are, mean queues by it, as RabbitMQ's plugin does.
    pub(crate) fn deduplicates_exchanges(&self) -> bool {
        let policy = self.each().find(|policy| policy.definition.contains_key(DEDUPLICATION));
        policy.is_some_and(|policy| {
            policy.applies_to == AppliesTo::Exchanges
                && policy.definition.get(DEDUPLICATION).and_then(Value::as_bool) == Some(true)
        })
    }

    /// What the operator's has, or else the user's.
    fn first<'a>(&'a self, key: &str) -> Option<&'a str> {
        self.each().find_map(|policy| policy.text(key))
    }

    /// Both definitions as one, by the same rules.
    #[must_use]
    pub fn definition(&self) -> Table {
        let mut merged = Table::new();
        for key in KEYS {
            let mut said = self.each().filter_map(|policy| policy.definition.get(key.name));
            let Some(first) = said.next() else { continue };
            let value = match (key.merge, said.next()) {
                (Merge::Least, Some(second)) if second.as_i64() < first.as_i64() => second,
                (Merge::LeastLimit, Some(second)) if limit(second) < limit(first) => second,
                _ => first,
            };
            merged.insert(key.name, value.clone());
        }
        merged
    }
}

/// Negative limits are none.
fn limit(value: &Value) -> Option<u64> {
    Some(value.as_i64().and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX))
}

/// What a queue is like: its arguments, and what policies add. Of numbers the smallest holds; a dead-letter exchange and
/// key of its own come first, and so does its own overflow, but not on a quorum queue.
#[must_use]
pub fn effective(arguments: &Table, own: QueueSettings, applied: &Applied) -> QueueSettings {
    if applied.user.is_none() && applied.operator.is_none() {
        return own;
    }
    if own.is_stream() {
        return effective_stream(own, applied);
    }
    let overflow = applied.first("overflow").map(QueueSettings::overflow_named);
    let has_own_overflow = arguments.contains_key("x-overflow");
    let said = applied.each().filter_map(|policy| policy.number("delivery-limit"));
    let delivery_limit = said.chain(own.delivery_limit).min_by_key(|limit| u64::try_from(*limit).unwrap_or(u64::MAX));
    let consumer_timeout_ms = {
        let said = applied.each().filter_map(|policy| policy.number("consumer-timeout"));
        let said = said.filter_map(|timeout| u64::try_from(timeout).ok()).chain(own.consumer_timeout_ms);
        said.filter(|timeout_ms| *timeout_ms != 0).min()
    };
    QueueSettings {
        message_ttl_ms: applied.least(own.message_ttl_ms, "message-ttl"),
        expires_ms: applied.least(own.expires_ms, "expires"),
        length_max: applied.least(own.length_max, "max-length"),
        bytes_max: applied.least(own.bytes_max, "max-length-bytes"),
        overflow: overflow.filter(|_| own.is_quorum() || !has_own_overflow).unwrap_or(own.overflow),
        dead_letter_key: own.dead_letter_key.or_else(|| applied.first("dead-letter-routing-key").map(str::to_owned)),
        dead_letter_exchange: own
            .dead_letter_exchange
            .or_else(|| applied.first("dead-letter-exchange").map(str::to_owned)),
        dead_letter_strategy: match own.dead_letter_strategy {
            DeadLetterStrategy::Usual => {
                applied.first("dead-letter-strategy").map(QueueSettings::strategy_named).unwrap_or_default()
            }
            said => said,
        },
        delivery_limit,
        consumer_timeout_ms,
        timeout_action: own
            .timeout_action
            .or_else(|| applied.first("consumer-timeout-action").and_then(TimeoutAction::named)),
        delayed_retry: delayed_retry(&retry_arguments(arguments, applied)),
        rate: applied.slowest(own.rate, "rate-limit"),
        group_rate: applied.slowest(own.group_rate, "group-rate-limit"),
        in_flight_max: applied.fewest(own.in_flight_max, "max-in-flight"),
        group_in_flight_max: applied.fewest(own.group_in_flight_max, "group-max-in-flight"),
        deduplication: own.deduplication.or_else(|| applied.each().find_map(|said| deduplication(&said.definition))),
        ..own
    }
}

/// The same for a stream: it has three settings, and what policies say comes before its own (RabbitMQ).
fn effective_stream(own: QueueSettings, applied: &Applied) -> QueueSettings {
    QueueSettings {
        bytes_max: applied.least(None, "max-length-bytes").or(own.bytes_max),
        max_age_ms: applied.first("max-age").and_then(age_ms).or(own.max_age_ms),
        segment_bytes: applied.least(None, "stream-max-segment-size-bytes").or(own.segment_bytes),
        ..own
    }
}

/// The arguments about retries that hold: words of its own come first, of numbers the smallest holds.
fn retry_arguments(arguments: &Table, applied: &Applied) -> Table {
    let mut merged = Table::new();
    for key in KEYS.iter().filter(|key| key.name.starts_with("delayed-retry-")) {
        let argument = format!("x-{}", key.name);
        let own = arguments.get(&argument);
        let said = applied.each().filter_map(|policy| policy.definition.get(key.name));
        let value = match key.merge {
            Merge::Operators => own.or_else(|| said.into_iter().next()),
            Merge::Least | Merge::LeastLimit => own.into_iter().chain(said).min_by_key(|value| value.as_i64()),
        };
        if let Some(value) = value {
            merged.insert(argument, value.clone());
        }
    }
    merged
}

/// The arguments about deduplication of an exchange that hold. How large its window is a policy says before itself, or it
/// could not be changed: the type needs a size of its own. Where messages have their keys it says before a policy.
pub(crate) fn sieve_arguments(arguments: &Table, applied: &Applied) -> Table {
    let mut merged = Table::new();
    for (key, is_policys) in [(CACHE_SIZE, true), (CACHE_TTL, true), (DEDUPLICATION_KEY, false), (HEADER, false)] {
        let said = applied.each().find_map(|policy| policy.definition.get(key));
        let own = arguments.get(key);
        if let Some(value) = if is_policys { said.or(own) } else { own.or(said) } {
            merged.insert(key, value.clone());
        }
    }
    merged
}

/// The alternate exchange that a policy gives to exchanges that have none of their own.
pub(crate) fn alternate(applied: &Applied) -> Option<String> {
    applied.first("alternate-exchange").map(str::to_owned)
}

/// Puts the policies that apply to a queue in place, and what follows from them.
pub(crate) fn apply(spec: &mut QueueSpec, applied: Applied) {
    if spec.policies == applied {
        return;
    }
    let own = QueueSettings::parse(&spec.arguments, "").unwrap_or_default();
    spec.settings = effective(&spec.arguments, own, &applied);
    spec.policies = applied;
}

/// What a key's value can be.
enum Values {
    /// An integer from here on, up to RabbitMQ's ten years where it is a time.
    From(i64, i64),
    /// Any integer.
    Integer,
    /// Any text.
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// As `x-rate-limit`.
    Rate,
    /// True or false.
    Flag,
    /// As `x-max-age`.
    Age,
    /// Anything: it means nothing here.
    Anything,
}

impl Values {
    fn takes(&self, value: &Value) -> bool {
        match self {
            Self::From(least, most) => value.as_i64().is_some_and(|number| (*least..=*most).contains(&number)),
            Self::Integer => value.as_i64().is_some(),
            Self::Text => value.as_str().is_some(),
            Self::OneOf(names) => value.as_str().is_some_and(|name| names.contains(&name)),
            Self::Rate => rate(value).is_some(),
            Self::Flag => value.as_bool().is_some(),
            Self::Age => value.as_str().and_then(age_ms).is_some(),
            Self::Anything => true,
        }
    }
}

/// How the values of two policies become one.
#[derive(Clone, Copy)]
enum Merge {
    /// The smaller.
    Least,
    /// The smaller, negative ones being none.
    LeastLimit,
    /// The operator's.
    Operators,
}

struct Key {
    name: &'static str,
    /// What RabbitMQ says of a wrong value: `V is not a valid TITLE`.
    title: &'static str,
    value: Values,
    merge: Merge,
    /// Operator policies can have it, too.
    is_operators: bool,
}

const fn key(name: &'static str, title: &'static str, value: Values, merge: Merge, is_operators: bool) -> Key {
    Key { name, title, value, merge, is_operators }
}

/// Every key that RabbitMQ has; those after `stream-max-segment-size-bytes` are taken and mean nothing on one node.
const KEYS: &[Key] = &[
    key("alternate-exchange", "alternate exchange name", Values::Text, Merge::Operators, false),
    key("dead-letter-exchange", "dead letter exchange name", Values::Text, Merge::Operators, false),
    key("dead-letter-routing-key", "dead letter routing key", Values::Text, Merge::Operators, false),
    key(
        "dead-letter-strategy",
        "dead letter strategy",
        Values::OneOf(&["at-most-once", "at-least-once"]),
        Merge::Operators,
        false,
    ),
    key("message-ttl", "message TTL", Values::From(0, TEN_YEARS_MS), Merge::Least, true),
    key("expires", "queue expiry", Values::From(1, TEN_YEARS_MS), Merge::Least, true),
    key("max-length", "maximum length", Values::From(0, i64::MAX), Merge::Least, true),
    key("max-length-bytes", "maximum length in bytes", Values::From(0, i64::MAX), Merge::Least, true),
    key(
        "overflow",
        "overflow",
        Values::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"]),
        Merge::Operators,
        true,
    ),
    key("redeclare", "redeclare", Values::OneOf(&[REFUSE, UPDATE]), Merge::Operators, true),
    key("delivery-limit", "delivery limit", Values::Integer, Merge::LeastLimit, true),
    key("consumer-timeout", "consumer timeout", Values::From(0, i64::MAX), Merge::Least, false),
    key(
        "delayed-retry-type",
        "delayed retry type",
        Values::OneOf(&["disabled", "all", "failed", "returned"]),
        Merge::Operators,
        true,
    ),
    key("delayed-retry-min", "delayed retry minimum", Values::From(0, TEN_YEARS_MS), Merge::Least, true),
    key("delayed-retry-max", "delayed retry maximum", Values::From(0, TEN_YEARS_MS), Merge::Least, true),
    key(
        "delayed-retry-backoff",
        "delayed retry backoff",
        Values::OneOf(&["linear", "exponential"]),
        Merge::Operators,
        false,
    ),
    key("delayed-retry-jitter", "delayed retry jitter", Values::From(0, 100), Merge::Least, false),
    key("rate-limit", "rate limit", Values::Rate, Merge::Operators, false),
    key("group-rate-limit", "group rate limit", Values::Rate, Merge::Operators, false),
    key("max-in-flight", "maximum in flight", Values::From(1, u32::MAX as i64), Merge::Least, false),
    key("group-max-in-flight", "maximum in flight of a group", Values::From(1, u32::MAX as i64), Merge::Least, false),
    key(
        "consumer-timeout-action",
        "consumer timeout action",
        Values::OneOf(&["close-channel", "cancel-consumer", "return"]),
        Merge::Operators,
        false,
    ),
    // Under the names that RabbitMQ's deduplication plugin gives them; the last two are ours.
    key("x-message-deduplication", "message deduplication flag", Values::Flag, Merge::Operators, false),
    key("x-cache-size", "cache size", Values::From(1, 100_000_000), Merge::Operators, false),
    key("x-cache-ttl", "cache TTL", Values::From(1, TEN_YEARS_MS), Merge::Operators, false),
    key("x-cache-persistence", "cache persistence", Values::OneOf(&["disk", "memory"]), Merge::Operators, false),
    key("x-deduplication-header", "deduplication header", Values::Text, Merge::Operators, false),
    key("x-deduplication-key", "deduplication key", Values::OneOf(&DEDUPLICATION_KEYS), Merge::Operators, false),
    key("max-age", "max age", Values::Age, Merge::Operators, false),
    key("stream-max-segment-size-bytes", "segment size", Values::From(1, i64::MAX), Merge::Least, false),
    key("consumer-disconnected-timeout", "disconnected timeout", Values::From(0, i64::MAX), Merge::Least, false),
    key("max-in-memory-length", "maximum memory in bytes", Values::From(0, i64::MAX), Merge::Least, true),
    key("max-in-memory-bytes", "maximum memory in bytes", Values::From(0, i64::MAX), Merge::Least, true),
    key("target-group-size", "target group size", Values::From(1, i64::MAX), Merge::Least, true),
    key("queue-leader-locator", "queue leader locator value", Values::Text, Merge::Operators, false),
    key("queue-master-locator", "queue master locator value", Values::Text, Merge::Operators, false),
    key("queue-mode", "queue-mode value", Values::OneOf(&["default", "lazy"]), Merge::Operators, false),
    key("queue-version", "queue-version value", Values::From(1, 2), Merge::Operators, true),
    key("stream-filter-size-bytes", "filter size", Values::From(16, 255), Merge::Operators, false),
    key("initial-cluster-size", "cluster size", Values::From(1, i64::MAX), Merge::Operators, false),
    key("federation-upstream", "upstream", Values::Anything, Merge::Operators, false),
    key("federation-upstream-set", "upstream set", Values::Anything, Merge::Operators, false),
    key("federation-upstream-pattern", "upstream pattern", Values::Anything, Merge::Operators, false),
];

fn invalid(text: String) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

/// What `redeclare` may say.
const REFUSE: &str = "refuse";
const UPDATE: &str = "update";

/// RabbitMQ's bound for times.
const TEN_YEARS_MS: i64 = 315_360_000_000;

/// A pattern that takes more steps than this on a name of at most 255 bytes is made to hold others up: ten thousand queues
/// are matched while nobody can route.
const BACKTRACKS_MAX: usize = 500;

#[cfg(test)]
mod tests;
