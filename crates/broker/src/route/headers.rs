//! Headers exchanges: a binding's arguments are criteria that the message's headers must meet.
//!
//! Unlike the other types this one asks every binding in turn, as RabbitMQ does.

use super::{BindingId, Destination, Routes};
use crate::command::Fault;
use crate::settings::term;
use amqp::{ReplyCode, Table, Value};
use rustc_hash::FxHashMap;
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
        let mut named = FxHashMap::default();
        for (name, value) in headers {
            named.entry(name).or_insert(value);
        }
        for (criteria, destination) in self.bindings.values() {
            if criteria.are_met(&named) {
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

    fn are_met(&self, headers: &FxHashMap<&str, &Value>) -> bool {
        let is_met = |name: &str, wanted| headers.get(name).is_some_and(|value| meets(value, wanted));
        let mut each = self.wanted.iter().map(|(name, wanted)| is_met(name, wanted));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
        entries.into_iter().collect()
    }

    fn text(text: &str) -> Value {
        text.into()
    }

    fn meets(arguments: &Table, headers: &Table) -> bool {
        let mut router = Headers::default();
        let queue = crate::command::QueueRef { id: store::QueueId(1), shard: crate::command::ShardId(0) };
        router.add(BindingId(1), arguments, Destination::Queue(queue)).unwrap();
        let mut routes = Routes::default();
        router.route(headers, &mut routes);
        router.remove(BindingId(1));
        assert!(router.bindings.is_empty());
        !routes.queues.is_empty()
    }

    #[test]
    fn all_is_the_default_and_asks_for_each_header() {
        let criteria = table([("a", text("1")), ("b", Value::Bool(true))]);
        assert!(meets(&criteria, &table([("b", Value::Bool(true)), ("a", text("1")), ("c", Value::Void)])));
        assert!(!meets(&criteria, &table([("a", text("1"))])));
        assert!(!meets(&criteria, &table([("a", text("1")), ("b", Value::Bool(false))])));
    }

    #[test]
    fn any_asks_for_one_header() {
        let criteria = table([("x-match", text("any")), ("a", text("1")), ("b", text("2"))]);
        assert!(meets(&criteria, &table([("b", text("2"))])));
        assert!(!meets(&criteria, &table([("b", text("1"))])));
    }

    #[test]
    fn no_criteria_are_always_met_by_all_and_never_by_any() {
        let headers = table([("a", text("1")), ("x-match", text("any"))]);
        for (mode, met) in [("all", true), ("any", false), ("all-with-x", true), ("any-with-x", false)] {
            assert_eq!(meets(&table([("x-match", text(mode))]), &headers), met, "{mode}");
        }
        assert!(meets(&Table::new(), &Table::new()));
    }

    #[test]
    fn names_beginning_with_x_count_in_the_modes_that_say_so() {
        for (mode, met) in [("all", true), ("any", false), ("all-with-x", false), ("any-with-x", false)] {
            let criteria = table([("x-match", text(mode)), ("x-kind", text("1"))]);
            assert_eq!(meets(&criteria, &table([("x-kind", text("2"))])), met, "{mode}");
        }
        let criteria = table([("x-match", text("any-with-x")), ("x-kind", text("1"))]);
        assert!(meets(&criteria, &table([("x-kind", text("1"))])));
    }

    #[test]
    fn values_compare_by_what_they_are_and_not_by_their_width() {
        for (wanted, value, same) in [
            (Value::I8(5), Value::I64(5), true),
            (Value::U32(5), Value::I16(5), true),
            (Value::I32(1), text("1"), false),
            (Value::I32(1), Value::F64(1.0), false),
            (Value::F32(1.5), Value::F64(1.5), true),
            (Value::Bool(true), Value::I8(1), false),
            (text("a"), Value::Bytes(b"a".to_vec()), true),
            (text("a"), text("A"), false),
            (Value::Void, text("anything"), true),
            (Value::Void, Value::Void, true),
            (text("a"), Value::Void, false),
            (Value::Array(vec![Value::I8(1)]), Value::Array(vec![Value::I8(1)]), true),
        ] {
            let met = meets(&table([("h", wanted.clone())]), &table([("h", value.clone())]));
            assert_eq!(met, same, "{wanted:?} and {value:?}");
        }
        assert!(!meets(&table([("h", Value::Void)]), &Table::new()));
    }

    #[test]
    fn other_modes_are_refused() {
        for (mode, expected) in [
            (text("some"), "Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x"),
            (Value::I64(1), "Invalid x-match field type long (value 1); expected longstr"),
        ] {
            let fault = Criteria::parse(&table([("x-match", mode)])).unwrap_err();
            assert_eq!(fault, Fault::new(ReplyCode::PreconditionFailed, expected));
        }
    }
}
