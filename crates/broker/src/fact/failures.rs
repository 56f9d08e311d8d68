//! Why the last delivery of a message failed, as a durable fact of the log that has the message.

use super::{CorruptFact, Fact, encoded, new_fact};
use crate::command::Failure;
use amqp::{Table, Value};
use bytes::Bytes;
use store::{QueueId, Seq};

/// The key of a message's failure.
pub(crate) fn failure_key(queue: QueueId, seq: Seq) -> Bytes {
    format!("{FAILURE}{}/{}", queue.0, seq.0).into()
}

/// A failure as a durable fact: key and value.
pub(crate) fn failure_fact(queue: QueueId, seq: Seq, failure: &Failure) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    fact.insert("reason", failure.reason.as_str());
    fact.insert("details", failure.details.as_str());
    fact.insert("at", failure.at_unix_ms.cast_signed());
    (failure_key(queue, seq), encoded(&fact))
}

/// The value of such a fact.
pub(crate) fn read_failure(value: &[u8]) -> Option<Failure> {
    let (fact, _) = Table::decode(value).ok()?;
    let text = |name: &str| fact.get(name).and_then(Value::as_str);
    let at_unix_ms = fact.get("at").and_then(Value::as_i64)?.cast_unsigned();
    Some(Failure::new(text("reason")?, text("details")?.as_bytes(), at_unix_ms))
}

/// Whose failure it is; `None` if it is another kind of fact.
pub(crate) fn failure_place(key: &[u8], value: &[u8]) -> Result<Option<(QueueId, Seq)>, CorruptFact> {
    let Some(place) = key.strip_prefix(FAILURE.as_bytes()) else { return Ok(None) };
    let fact = Fact::read(key, value)?;
    let numbers = std::str::from_utf8(place).ok().and_then(|place| place.split_once('/'));
    let numbers = numbers.and_then(|(queue, seq)| Some((queue.parse().ok()?, seq.parse().ok()?)));
    let (queue, seq) = numbers.ok_or_else(|| fact.corrupt("its key names no message"))?;
    if read_failure(value).is_none() {
        return Err(fact.corrupt("it does not say what failed"));
    }
    Ok(Some((QueueId(queue), Seq(seq))))
}

const FAILURE: &str = "e/";
