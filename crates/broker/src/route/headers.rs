//! Headers exchanges: a binding's arguments are criteria that the message's headers must meet.
//!
//! Unlike the other types this one asks every binding in turn, as RabbitMQ does.

use super::{BindingId, Destination, Routes};
use crate::command::Fault;
use crate::settings::term;
use amqp::{ReplyCode, Table, Value};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Headers {
    bindings: BTreeMap<BindingId, (Criteria, Destination)>,
}

impl Headers {
    pub(crate) fn add(&mut self, id: BindingId, arguments: &Table, destination: Destination) -> Result<(), Fault> {
        self.bindings.insert(id, (Criteria::parse(arguments)?, destination));
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: BindingId) {
        self.bindings.remove(&id);
    }

    pub(crate) fn route(&self, headers: &Table, into: &mut Routes) {
        for (criteria, destination) in self.bindings.values() {
            if criteria.are_met(headers) {
                match *destination {
                    Destination::Queue(queue) => into.queues.push(queue),
                    Destination::Exchange(exchange) => into.pending.push(exchange),
                }
            }
        }
    }
}

/// What a binding asks of headers.
#[derive(Debug)]
struct Criteria {
    mode: Mode,
    /// Names and the values that they must have, [`Value::Void`] for any.
    wanted: Vec<(String, Value)>,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Met by headers that meet each; no criteria are always met.
    All,
    /// Met by headers that meet one; no criteria are never met.
    Any,
}

impl Criteria {
    fn parse(arguments: &Table) -> Result<Self, Fault> {
        let (mode, with_x) = match arguments.get(MATCH) {
            None => (Mode::All, false),
            Some(value @ Value::Str(text)) => match text.as_slice() {
                b"all" => (Mode::All, false),
                b"any" => (Mode::Any, false),
                b"all-with-x" => (Mode::All, true),
                b"any-with-x" => (Mode::Any, true),
                _ => {
                    let expected = "expected all, any, all-with-x, or any-with-x";
                    return Err(invalid(format!("Invalid x-match field value {}; {expected}", term(value))));
                }
            },
            Some(value) => {
                let (word, value) = (value.type_word(), term(value));
                return Err(invalid(format!("Invalid x-match field type {word} (value {value}); expected longstr")));
            }
        };
        let counts = |name: &str| name != MATCH && (with_x || !name.starts_with("x-"));
        let wanted = arguments.iter().filter(|(name, _)| counts(name));
        Ok(Self { mode, wanted: wanted.map(|(name, value)| (name.to_owned(), value.clone())).collect() })
    }

    fn are_met(&self, headers: &Table) -> bool {
        let mut each = self.wanted.iter().map(|(name, wanted)| headers.get(name).is_some_and(|value| meets(value, wanted)));
        match self.mode {
            Mode::All => each.all(|met| met),
            Mode::Any => each.any(|met| met),
        }
    }
}

/// Values compare as RabbitMQ's do after decoding: numbers without their width, but integers are no floats and strings
/// are no numbers.
fn meets(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (_, Value::Void) => true,
        (Value::Str(a) | Value::Bytes(a), Value::Str(b) | Value::Bytes(b)) => a == b,
        _ => match (integer(value), integer(wanted)) {
            (Some(a), Some(b)) => a == b,
            _ => match (float(value), float(wanted)) {
                (Some(a), Some(b)) => a == b,
                _ => value == wanted,
            },
        },
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Timestamp(seconds) => Some((*seconds).into()),
        _ => value.as_i64().map(Into::into),
    }
}

fn float(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(n) => Some(n.into()),
        Value::F64(n) => Some(n),
        _ => None,
    }
}

fn invalid(text: String) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

const MATCH: &str = "x-match";
