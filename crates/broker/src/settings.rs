//! What arguments mean: queue arguments checked, typed and compared, and values worded as RabbitMQ words them.

use crate::command::{
    Backoff, DeadLetterStrategy, DeclareQueue, Deduplication, Fault, KeySource, Overflow, QueueKind, QueueSettings,
    QueueSpec, Rate, Retry, Span, TimeoutAction,
};
use crate::queue::deduplication::HEADER;
use crate::queue::stream::age_ms;
use amqp::{ReplyCode, Table, Value};
use std::fmt::Write as _;

/// What an argument must be.
enum Rule {
    /// The name of a type, or nothing at all, which is classic.
    QueueType,
    /// An integer from here to there, and how RabbitMQ words the refusal of a greater one, `~` standing for it.
    Within(i64, i64, &'static str),
    /// Any integer.
    Integer,
    /// Any string.
    Text,
    /// The name of an exchange.
    Exchange,
    /// One of these strings, and how RabbitMQ words the refusal of others, `~` standing for the value.
    OneOf(&'static [&'static str], &'static str),
    /// True or false.
    Flag,
    /// A rate: a positive integer, or a string that [`Rate::parse`] takes.
    Rate,
    /// How old messages may become, as in [`age_ms`].
    Age,
    /// An integer from here to there, and what RabbitMQ says of others.
    Between(i64, i64, &'static str),
}

/// Every argument that RabbitMQ gives a meaning. All but those of streams ([`FOR_STREAMS`]) are accepted on classic and
/// quorum queues alike; what is not here is kept and listed, and otherwise ignored. In RabbitMQ's order: of several that
/// are wrong, or differ, the first is told.
const KNOWN: [(&str, Rule); 43] = [
    (QUEUE_TYPE, Rule::QueueType),
    (EXPIRES, Rule::Within(1, TEN_YEARS_MS, TOO_LARGE)),
    (MESSAGE_TTL, Rule::Within(0, TEN_YEARS_MS, TOO_LARGE)),
    (DEAD_LETTER_EXCHANGE, Rule::Exchange),
    (DEAD_LETTER_KEY, Rule::Text),
    (DEAD_LETTER_STRATEGY, Rule::OneOf(&["at-most-once", "at-least-once"], "invalid_dlx_strategy")),
    (LENGTH_MAX, Rule::Within(0, i64::MAX, TOO_LARGE)),
    (BYTES_MAX, Rule::Within(0, i64::MAX, TOO_LARGE)),
    ("x-max-in-memory-length", Rule::Within(0, i64::MAX, TOO_LARGE)),
    ("x-max-in-memory-bytes", Rule::Within(0, i64::MAX, TOO_LARGE)),
    (PRIORITY_MAX, Rule::Within(0, 255, "{max_value_exceeded,~}")),
    (OVERFLOW, Rule::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"], "invalid_overflow")),
    ("x-queue-mode", Rule::OneOf(&["default", "lazy"], "\"unsupported queue mode '~'\"")),
    ("x-queue-version", Rule::Within(1, 2, "\"unsupported queue version '~'\"")),
    (SINGLE_ACTIVE, Rule::Flag),
    (DELIVERY_LIMIT, Rule::Integer),
    (CONSUMER_TIMEOUT, Rule::Within(0, i64::MAX, TOO_LARGE)),
    (TIMEOUT_ACTION, Rule::OneOf(&TimeoutAction::NAMES, INVALID_TIMEOUT_ACTION)),
    ("x-consumer-disconnected-timeout", Rule::Within(0, i64::MAX, TOO_LARGE)),
    (RETRY_TYPE, Rule::OneOf(&["disabled", "all", "failed", "returned"], "invalid_delayed_retry_type")),
    (RETRY_MIN, Rule::Within(0, i64::MAX, TOO_LARGE)),
    (RETRY_MAX, Rule::Within(0, i64::MAX, TOO_LARGE)),
    (RETRY_BACKOFF, Rule::OneOf(&["linear", "exponential"], "invalid_delayed_retry_backoff")),
    (RETRY_JITTER, Rule::Within(0, 100, TOO_LARGE)),
    (
        "x-queue-leader-locator",
        Rule::OneOf(&["client-local", "balanced", "random", "least-leaders"], "invalid_queue_locator_arg"),
    ),
    ("x-queue-master-locator", Rule::Text),
    ("x-quorum-initial-group-size", Rule::Within(1, i64::MAX, TOO_LARGE)),
    (GROUP_KEY, Rule::Text),
    (GROUP_FAIR, Rule::Flag),
    (GROUP_IN_FLIGHT_MAX, Rule::Within(1, u32::MAX as i64, TOO_LARGE)),
    (GROUP_RATE, Rule::Rate),
    (RATE, Rule::Rate),
    (IN_FLIGHT_MAX, Rule::Within(1, u32::MAX as i64, TOO_LARGE)),
    (DEDUPLICATION, Rule::Flag),
    (CACHE_SIZE, Rule::Within(1, CACHE_SIZE_MAX, TOO_LARGE)),
    (CACHE_TTL, Rule::Within(1, TEN_YEARS_MS, TOO_LARGE)),
    ("x-cache-persistence", Rule::OneOf(&["disk", "memory"], "invalid_cache_persistence")),
    (HEADER, Rule::Text),
    (DEDUPLICATION_KEY, Rule::OneOf(&DEDUPLICATION_KEYS, "invalid_deduplication_key")),
    (AGE_MAX, Rule::Age),
    (
        SEGMENT_BYTES,
        Rule::Between(i64::MIN, SEGMENT_BYTES_MAX, "Exceeded max value for x-stream-max-segment-size-bytes"),
    ),
    ("x-stream-filter-size-bytes", Rule::Between(16, 255, "Invalid value for  x-stream-filter-size-bytes")),
    ("x-initial-cluster-size", Rule::Within(1, i64::MAX, TOO_LARGE)),
];

/// The arguments of streams, and whether other queues have them, too.
const FOR_STREAMS: [(&str, bool); 7] = [
    (QUEUE_TYPE, true),
    (BYTES_MAX, true),
    ("x-queue-leader-locator", true),
    (AGE_MAX, false),
    (SEGMENT_BYTES, false),
    ("x-stream-filter-size-bytes", false),
    ("x-initial-cluster-size", false),
];

/// Whether queues of this type have such an argument.
fn has(kind: QueueKind, name: &str) -> bool {
    let for_streams = FOR_STREAMS.iter().find(|(known, _)| *known == name);
    match kind {
        QueueKind::Stream => for_streams.is_some(),
        QueueKind::Classic | QueueKind::Quorum => for_streams.is_none_or(|(_, is_shared)| *is_shared),
    }
}

impl QueueSettings {
    /// Checks and types a queue's arguments. `title` is how error texts call the queue.
    ///
    /// # Errors
    /// 406 for a known argument of a wrong type or value.
    pub fn parse(arguments: &Table, title: &str) -> Result<Self, Fault> {
        let kind = queue_kind(arguments);
        for (name, rule) in &KNOWN {
            if let Some(value) = arguments.get(name) {
                if !has(kind, name) {
                    return Err(refused(format!("invalid arg '{name}' for {title} of queue type {}", kind.module())));
                }
                rule.check(value).map_err(|flaw| match flaw {
                    Flaw::Value(why) => refused(format!("invalid arg '{name}' for {title}: {why}")),
                    Flaw::Name => refused(format!("invalid type '{}' for arg '{name}' in {title}", value.type_word())),
                    Flaw::Said(text) => refused(text.to_owned()),
                })?;
                if *name == DEAD_LETTER_KEY && !arguments.contains_key(DEAD_LETTER_EXCHANGE) {
                    return Err(refused(format!("invalid arg '{name}' for {title}: routing_key_but_no_dlx_defined")));
                }
            }
        }
        let of_groups = [GROUP_FAIR, GROUP_IN_FLIGHT_MAX, GROUP_RATE];
        if !arguments.contains_key(GROUP_KEY)
            && let Some(name) = of_groups.iter().find(|name| arguments.contains_key(name))
        {
            return Err(refused(format!("invalid arg '{name}' for {title}: group_option_but_no_group_key_defined")));
        }
        let natural = |name: &str| arguments.get(name).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok());
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        Ok(Self {
            kind,
            message_ttl_ms: natural(MESSAGE_TTL),
            expires_ms: natural(EXPIRES),
            length_max: natural(LENGTH_MAX),
            bytes_max: natural(BYTES_MAX),
            overflow: text(OVERFLOW).map(Self::overflow_named).unwrap_or_default(),
            dead_letter_exchange: text(DEAD_LETTER_EXCHANGE).map(str::to_owned),
            dead_letter_key: text(DEAD_LETTER_KEY).map(str::to_owned),
            dead_letter_strategy: text(DEAD_LETTER_STRATEGY).map(Self::strategy_named).unwrap_or_default(),
            priority_max: natural(PRIORITY_MAX).and_then(|n| u8::try_from(n).ok()),
            single_active: arguments.get(SINGLE_ACTIVE).and_then(Value::as_bool).unwrap_or(false),
            consumer_timeout_ms: natural(CONSUMER_TIMEOUT),
            timeout_action: text(TIMEOUT_ACTION).and_then(TimeoutAction::named),
            delivery_limit: arguments.get(DELIVERY_LIMIT).and_then(Value::as_i64),
            delayed_retry: delayed_retry(arguments),
            group_key: text(GROUP_KEY).map(str::to_owned),
            group_fair: arguments.get(GROUP_FAIR).and_then(Value::as_bool).unwrap_or(false),
            group_in_flight_max: natural(GROUP_IN_FLIGHT_MAX).and_then(|n| u32::try_from(n).ok()),
            group_rate: arguments.get(GROUP_RATE).and_then(rate),
            rate: arguments.get(RATE).and_then(rate),
            in_flight_max: natural(IN_FLIGHT_MAX).and_then(|n| u32::try_from(n).ok()),
            deduplication: deduplication(arguments),
            max_age_ms: text(AGE_MAX).and_then(age_ms),
            segment_bytes: natural(SEGMENT_BYTES),
        })
    }
}

/// How long messages wait that came back; `None` = not at all.
pub(crate) fn delayed_retry(arguments: &Table) -> Option<Retry> {
    let natural = |name: &str| arguments.get(name).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok());
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    // Every return is a failed delivery here: the types differ only where they do not.
    text(RETRY_TYPE).filter(|kind| *kind != "disabled")?;
    let min_ms = natural(RETRY_MIN).unwrap_or(RETRY_MIN_MS);
    let max_ms = natural(RETRY_MAX).unwrap_or(min_ms).max(min_ms);
    let backoff = match text(RETRY_BACKOFF) {
        Some("exponential") => Backoff::Exponential,
        _ => Backoff::Linear,
    };
    let jitter_percent = natural(RETRY_JITTER).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    Some(Retry { min_ms, max_ms, backoff, jitter_percent })
}

/// Which messages are duplicates; `None` = none. Without a size and a time, a key counts as long as its message is there.
pub(crate) fn deduplication(arguments: &Table) -> Option<Deduplication> {
    arguments.get(DEDUPLICATION).and_then(Value::as_bool).filter(|is_wanted| *is_wanted)?;
    let has_window = arguments.contains_key(CACHE_SIZE) || arguments.contains_key(CACHE_TTL);
    let span = if has_window { window(arguments) } else { Span::Present };
    Some(Deduplication { key: key_source(arguments), span })
}

/// The window that the arguments ask for, or else the usual one.
pub(crate) fn window(arguments: &Table) -> Span {
    // RabbitMQ's plugin takes numbers as text, too.
    let number = |name: &str| match arguments.get(name)? {
        Value::Str(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        value => value.as_i64().and_then(|number| u64::try_from(number).ok()),
    };
    let most = number(CACHE_SIZE).unwrap_or(CACHE_SIZE_USUAL).min(CACHE_SIZE_MAX.unsigned_abs());
    Span::Window { most: u32::try_from(most).unwrap_or(u32::MAX).max(1), ttl_ms: number(CACHE_TTL) }
}

pub(crate) fn key_source(arguments: &Table) -> KeySource {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    match text(DEDUPLICATION_KEY) {
        Some(key) if key == DEDUPLICATION_KEYS[1] => KeySource::MessageId,
        _ => KeySource::Header(text(HEADER).unwrap_or(HEADER).to_owned()),
    }
}

impl QueueSettings {
    pub(crate) fn overflow_named(name: &str) -> Overflow {
        match name {
            "reject-publish" => Overflow::RejectPublish,
            "reject-publish-dlx" => Overflow::RejectPublishDlx,
            _ => Overflow::DropHead,
        }
    }

    pub(crate) fn strategy_named(name: &str) -> DeadLetterStrategy {
        match name {
            "at-most-once" => DeadLetterStrategy::AtMostOnce,
            "at-least-once" => DeadLetterStrategy::AtLeastOnce,
            _ => DeadLetterStrategy::Usual,
        }
    }

    /// Whether deliveries are subject to more than the consumers' limits.
    pub(crate) fn shapes(&self) -> bool {
        self.group_key.is_some() || self.rate.is_some() || self.in_flight_max.is_some()
    }
}

/// A rate, as a number for each second or as text.
pub(crate) fn rate(value: &Value) -> Option<Rate> {
    match value.as_i64() {
        Some(number) => u64::try_from(number).ok().and_then(Rate::per_second),
        None => Rate::parse(value.as_str()?),
    }
}

/// The type that the arguments ask for.
pub(crate) fn queue_kind(arguments: &Table) -> QueueKind {
    match queue_type(arguments) {
        "quorum" => QueueKind::Quorum,
        "stream" => QueueKind::Stream,
        _ => QueueKind::Classic,
    }
}

/// Whether a queue may be declared once more in this way by its owner, or by anyone where it has none.
///
/// # Errors
/// 406 naming the first property or argument that differs. Arguments without a meaning are not compared.
pub(crate) fn check_equivalent(queue: &QueueSpec, wanted: &DeclareQueue) -> Result<(), Fault> {
    check_properties(queue, wanted)?;
    check_arguments(queue, wanted, |_| true)
}

/// The settings of a queue that is declared once more, where its policies let it have other arguments than before;
/// `None` if they say the same.
///
/// # Errors
/// 406 for what is no argument, and for a difference in what is decided when a queue is made.
pub(crate) fn redeclared(queue: &QueueSpec, wanted: &DeclareQueue) -> Result<Option<QueueSettings>, Fault> {
    check_properties(queue, wanted)?;
    let settings = QueueSettings::parse(&wanted.arguments, &queue.title())?;
    check_arguments(queue, wanted, |name| FIXED.contains(&name))?;
    let is_same = check_arguments(queue, wanted, |_| true).is_ok();
    Ok((!is_same).then_some(settings))
}

fn check_properties(queue: &QueueSpec, wanted: &DeclareQueue) -> Result<(), Fault> {
    let title = queue.title();
    // An exclusive queue is never durable, whatever the client says.
    let durable = wanted.durable && !wanted.exclusive;
    check_same("durable", &title, &durable, &queue.durable)?;
    check_same("auto_delete", &title, &wanted.auto_delete, &queue.auto_delete)?;
    let current = queue_type(&queue.arguments);
    match wanted.arguments.get(QUEUE_TYPE) {
        Some(value) if value.as_str().is_none() && *value != Value::Void => {
            Err(inequivalent(QUEUE_TYPE, &title, &quoted(value), &format!("'{current}'")))
        }
        _ => check_same(QUEUE_TYPE, &title, &queue_type(&wanted.arguments), &current),
    }
}

fn check_arguments(queue: &QueueSpec, wanted: &DeclareQueue, matters: impl Fn(&str) -> bool) -> Result<(), Fault> {
    let title = queue.title();
    for (name, rule) in &KNOWN {
        if !matches!(rule, Rule::QueueType) && matters(name) {
            check_same_argument(name, &title, &wanted.arguments, &queue.arguments)?;
        }
    }
    Ok(())
}

/// Refuses a property that differs.
pub(crate) fn check_same<T: PartialEq + ToString>(
    name: &str,
    title: &str,
    wanted: &T,
    current: &T,
) -> Result<(), Fault> {
    if wanted == current {
        return Ok(());
    }
    Err(inequivalent(name, title, &format!("'{}'", wanted.to_string()), &format!("'{}'", current.to_string())))
}

/// Refuses an argument that differs. Integers and timestamps compare by value, and so do floats, and strings and bytes.
pub(crate) fn check_same_argument(name: &str, title: &str, wanted: &Table, current: &Table) -> Result<(), Fault> {
    let described = |value: Option<&Value>| match value {
        None => "none".to_owned(),
        Some(value) => format!("the value '{}' of type '{}'", bare(value), value.type_word()),
    };
    match (wanted.get(name), current.get(name)) {
        (None, None) => Ok(()),
        (Some(wanted), Some(current)) if is_same(wanted, current) => Ok(()),
        (Some(wanted), Some(current)) => Err(inequivalent(name, title, &quoted(wanted), &quoted(current))),
        (wanted, current) => Err(inequivalent(name, title, &described(wanted), &described(current))),
    }
}

/// A value as Erlang prints it, which is what clients see in RabbitMQ's texts.
pub(crate) fn term(value: &Value) -> String {
    match value {
        Value::Str(octets) | Value::Bytes(octets) => format!("<<\"{}\">>", String::from_utf8_lossy(octets)),
        Value::Array(values) => {
            let mut out = String::from("[");
            for (index, value) in values.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{{{},{}}}", value.type_word(), term(value));
            }
            out + "]"
        }
        Value::Table(table) => {
            let mut out = String::from("[");
            for (index, (name, value)) in table.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{{<<\"{name}\">>,{},{}}}", value.type_word(), term(value));
            }
            out + "]"
        }
        Value::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        Value::Void => "undefined".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Timestamp(seconds) => seconds.to_string(),
        // Erlang's floats always show that they are floats, as `{:?}` does.
        Value::F32(n) => format!("{n:?}"),
        Value::F64(n) => format!("{n:?}"),
        Value::I8(_) | Value::U8(_) | Value::I16(_) | Value::U16(_) | Value::I32(_) | Value::U32(_) | Value::I64(_) => {
            value.as_i64().map(|n| n.to_string()).unwrap_or_default()
        }
    }
}

/// The same, but strings without their quotes.
fn bare(value: &Value) -> String {
    match value {
        Value::Str(octets) | Value::Bytes(octets) => String::from_utf8_lossy(octets).into_owned(),
        _ => term(value),
    }
}

/// A value as the texts about differences have it.
fn quoted(value: &Value) -> String {
    match value {
        Value::Void => "none".to_owned(),
        _ => format!("'{}'", bare(value)),
    }
}

fn is_same(wanted: &Value, current: &Value) -> bool {
    let integer = |value: &Value| match *value {
        Value::Timestamp(seconds) => Some(i128::from(seconds)),
        _ => value.as_i64().map(i128::from),
    };
    let float = |value: &Value| match *value {
        Value::F32(n) => Some(f64::from(n)),
        Value::F64(n) => Some(n),
        _ => None,
    };
    if let (Some(wanted), Some(current)) = (integer(wanted), integer(current)) {
        return wanted == current;
    }
    if let (Some(wanted), Some(current)) = (float(wanted), float(current)) {
        return wanted == current;
    }
    match (wanted, current) {
        (Value::Str(wanted) | Value::Bytes(wanted), Value::Str(current) | Value::Bytes(current)) => wanted == current,
        _ => wanted == current,
    }
}

fn inequivalent(name: &str, title: &str, wanted: &str, current: &str) -> Fault {
    refused(format!("inequivalent arg '{name}' for {title}: received {wanted} but current is {current}"))
}

/// What is wrong with an argument.
enum Flaw {
    /// Its type or value.
    Value(String),
    /// Its type, where it has to be a name.
    Name,
    /// In RabbitMQ's words, which name neither queue nor argument.
    Said(&'static str),
}

impl Rule {
    fn check(&self, value: &Value) -> Result<(), Flaw> {
        let unacceptable = || Flaw::Value(format!("{{unacceptable_type,{}}}", value.type_word()));
        let no_integer = || Flaw::Value(format!("\"expected integer, got {}\"", value.type_word()));
        match self {
            Self::QueueType => match value {
                Value::Void => Ok(()),
                Value::Str(octets) if matches!(octets.as_slice(), b"" | b"classic" | b"quorum" | b"stream") => Ok(()),
                Value::Str(_) => Err(Flaw::Value(format!("\"unsupported queue type '{}'\"", bare(value)))),
                _ => Err(unacceptable()),
            },
            Self::Within(least, most, beyond) => match value.as_i64().ok_or_else(no_integer)? {
                number if number < 0 => Err(Flaw::Value(format!("{{value_negative,{number}}}"))),
                0 if *least > 0 => Err(Flaw::Value("{value_zero,0}".to_owned())),
                number if number > *most => Err(Flaw::Value(beyond.replace('~', &number.to_string()))),
                _ => Ok(()),
            },
            Self::Integer => value.as_i64().map(drop).ok_or_else(no_integer),
            Self::Text => value.as_str().map(drop).ok_or_else(unacceptable),
            Self::Exchange => value.as_str().map(drop).ok_or(Flaw::Name),
            Self::OneOf(choices, refusal) => match value.as_str() {
                Some(text) if choices.contains(&text) => Ok(()),
                Some(text) => Err(Flaw::Value(refusal.replace('~', text))),
                None => Err(unacceptable()),
            },
            Self::Flag => value.as_bool().map(drop).ok_or_else(unacceptable),
            Self::Rate if value.as_i64().is_some() => Self::Within(1, Rate::COUNT_MAX.into(), TOO_LARGE).check(value),
            Self::Rate => match value.as_str() {
                Some(_) if rate(value).is_some() => Ok(()),
                Some(text) => Err(Flaw::Value(format!("\"expected N, N/s, N/m or N/h, got {text}\""))),
                None => Err(unacceptable()),
            },
            Self::Age => match value.as_str().map(age_ms) {
                Some(Some(_)) => Ok(()),
                Some(None) => Err(Flaw::Value("invalid_max_age".to_owned())),
                None => Err(unacceptable()),
            },
            Self::Between(least, most, refusal) => match value.as_i64().ok_or_else(no_integer)? {
                number if number < 0 => Err(Flaw::Value(format!("{{value_negative,{number}}}"))),
                number if (*least..=*most).contains(&number) => Ok(()),
                _ => Err(Flaw::Said(refusal)),
            },
        }
    }
}

/// The queue's type in the words of clients.
fn queue_type(arguments: &Table) -> &str {
    match arguments.get(QUEUE_TYPE).and_then(Value::as_str) {
        None | Some("") => "classic",
        Some(kind) => kind,
    }
}

fn refused(text: String) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

pub(crate) const QUEUE_TYPE: &str = "x-queue-type";
const MESSAGE_TTL: &str = "x-message-ttl";
const EXPIRES: &str = "x-expires";
const LENGTH_MAX: &str = "x-max-length";
const BYTES_MAX: &str = "x-max-length-bytes";
const OVERFLOW: &str = "x-overflow";
pub(crate) const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const DEAD_LETTER_KEY: &str = "x-dead-letter-routing-key";
const DEAD_LETTER_STRATEGY: &str = "x-dead-letter-strategy";
const PRIORITY_MAX: &str = "x-max-priority";
const SINGLE_ACTIVE: &str = "x-single-active-consumer";
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const RETRY_TYPE: &str = "x-delayed-retry-type";
const RETRY_MIN: &str = "x-delayed-retry-min";
const RETRY_MAX: &str = "x-delayed-retry-max";
const RETRY_BACKOFF: &str = "x-delayed-retry-backoff";
const RETRY_JITTER: &str = "x-delayed-retry-jitter";
const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";
const AGE_MAX: &str = "x-max-age";
const SEGMENT_BYTES: &str = "x-stream-max-segment-size-bytes";
/// What happens to a delivery that stays unacked for too long.
pub(crate) const TIMEOUT_ACTION: &str = "x-consumer-timeout-action";
/// How a refusal of another one is worded.
pub(crate) const INVALID_TIMEOUT_ACTION: &str = "invalid_consumer_timeout_action";

const GROUP_KEY: &str = "x-group-key";
const GROUP_FAIR: &str = "x-group-fair";
const GROUP_IN_FLIGHT_MAX: &str = "x-group-max-in-flight";
const GROUP_RATE: &str = "x-group-rate-limit";
const RATE: &str = "x-rate-limit";
/// Deduplicates, queues and exchanges: an argument of RabbitMQ's deduplication plugin and of LavinMQ, as the next two.
pub(crate) const DEDUPLICATION: &str = "x-message-deduplication";
pub(crate) const CACHE_SIZE: &str = "x-cache-size";
pub(crate) const CACHE_TTL: &str = "x-cache-ttl";
/// Where the key is: ours.
pub(crate) const DEDUPLICATION_KEY: &str = "x-deduplication-key";
pub(crate) const DEDUPLICATION_KEYS: [&str; 2] = ["header", "message-id"];
/// A window of a million keys takes some 35 MB, when it is full.
const CACHE_SIZE_USUAL: u64 = 1_000_000;
const CACHE_SIZE_MAX: i64 = 100_000_000;
const IN_FLIGHT_MAX: &str = "x-max-in-flight";

/// What a queue is made with, for good: how its messages are kept follows from it.
const FIXED: [&str; 4] = [PRIORITY_MAX, SINGLE_ACTIVE, GROUP_KEY, GROUP_FAIR];

/// What RabbitMQ says of most numbers beyond their bound.
const TOO_LARGE: &str = "{value_too_large,~}";

/// The wait after a failed delivery where nobody says how long.
const RETRY_MIN_MS: u64 = 1000;

/// RabbitMQ's bound for the segments of streams.
const SEGMENT_BYTES_MAX: i64 = 3_000_000_000;

/// RabbitMQ's bound for times to live.
const TEN_YEARS_MS: i64 = 315_360_000_000;

#[cfg(test)]
mod tests;
