//! What an exchange is told that deduplicates: one of the type that RabbitMQ's plugin has, or any with LavinMQ's argument.

use super::ExchangeKind;
use crate::command::{Deduplication, Fault};
use crate::policy::{Applied, sieve_arguments};
use crate::settings::{
    CACHE_SIZE, CACHE_TTL, DEDUPLICATION, DEDUPLICATION_KEY, DEDUPLICATION_KEYS, key_source, window,
};
use amqp::{ReplyCode, Table, Value};

/// What an exchange of this type, with these arguments, which were checked, and these policies takes for duplicates; `None` =
/// nothing.
pub(crate) fn rule(kind: ExchangeKind, arguments: &Table, policies: &Applied) -> Option<Deduplication> {
    let own = arguments.get(DEDUPLICATION).and_then(Value::as_bool);
    let is_any = kind == ExchangeKind::Deduplication
        || own.unwrap_or_else(|| policies.deduplicates_exchanges() && !is_by_chance(kind));
    let arguments = is_any.then(|| sieve_arguments(arguments, policies))?;
    Some(Deduplication { key: key_source(&arguments), span: window(&arguments) })
}

/// A duplicate would go to another queue, which knows nothing of it.
fn is_by_chance(kind: ExchangeKind) -> bool {
    matches!(kind, ExchangeKind::Random | ExchangeKind::LocalRandom)
}

/// Refuses arguments that make no sense.
///
/// # Errors
/// 406, where there are such in the words of RabbitMQ's plugin.
pub(crate) fn check_arguments(kind: ExchangeKind, arguments: &Table) -> Result<(), Fault> {
    let refused = |text: String| Err(Fault::new(ReplyCode::PreconditionFailed, text));
    if arguments.get(DEDUPLICATION).is_some_and(|value| value.as_bool().is_none()) {
        return refused(format!("Invalid argument, '{DEDUPLICATION}' must be a boolean"));
    }
    if rule(kind, arguments, &Applied::default()).is_none() {
        return Ok(());
    }
    if is_by_chance(kind) {
        return refused(format!("Invalid argument, '{DEDUPLICATION}' can't be used for '{}'", kind.name()));
    }
    let is_positive = |value: &Value| match value {
        Value::Str(text) => std::str::from_utf8(text).is_ok_and(|text| text.parse::<u64>().is_ok_and(|n| n > 0)),
        value => value.as_i64().is_some_and(|n| n > 0),
    };
    let is_missing = kind == ExchangeKind::Deduplication && !arguments.contains_key(CACHE_SIZE);
    if is_missing || arguments.get(CACHE_SIZE).is_some_and(|value| !is_positive(value)) {
        return refused(format!("Missing or invalid argument, '{CACHE_SIZE}' must be an integer greater than 0"));
    }
    if arguments.get(CACHE_TTL).is_some_and(|value| !is_positive(value)) {
        return refused(format!("Invalid argument, '{CACHE_TTL}' must be an integer greater than 0"));
    }
    let one_of = |name: &str, words: [&str; 2]| match arguments.get(name) {
        Some(value) if !value.as_str().is_some_and(|word| words.contains(&word)) => {
            refused(format!("Invalid argument, '{name}' must be either '{}' or '{}'", words[0], words[1]))
        }
        _ => Ok(()),
    };
    one_of("x-cache-persistence", ["disk", "memory"])?;
    one_of(DEDUPLICATION_KEY, DEDUPLICATION_KEYS)
}
