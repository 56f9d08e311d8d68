//! A redrive: messages of a queue go back to where they died, or elsewhere, in a walk that may take hours.
//!
//! Whoever walks says now and then how far that is, and the queue keeps it with its own fact: so whoever starts the server
//! again knows what did not end, and goes on with it. What was moved is gone from the queue, so a walk that begins anew at
//! the head, up to the same last message, moves the rest. How many it has moved may be too little after a crash, by what
//! was moved since it was last said.

use crate::operation::{Act, Filter, Origin, Target, Term};
use amqp::{Table, Value};
use bytes::BytesMut;
use store::Seq;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// When it began, in Unix milliseconds.
    pub began_unix_ms: u64,
    /// How many messages there were then.
    pub total: u64,
    /// Messages a second; `None` = as fast as it goes.
    pub rate: Option<u32>,
    /// Where it ends: before this seq.
    pub until: Seq,
    /// Which messages are meant.
    pub filter: Filter,
    /// Where they go.
    pub way: Way,
    /// How many were moved so far.
    pub moved: u64,
    /// How many stay because there is nowhere to go.
    pub unroutable: u64,
    /// How many the filter left out.
    pub passed: u64,
    /// How it ended; `None` = it did not.
    pub end: Option<End>,
}

/// Where messages of a redrive go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Where they died.
    Back(Origin),
    /// All to one target.
    To(Target),
}

/// How a redrive ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It came to the last message.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// It could not go on; a sentence says why.
    Failed(String),
}

impl Redrive {
    /// What is done to each message.
    #[must_use]
    pub fn act(&self) -> Act {
        match &self.way {
            Way::Back(origin) => Act::Redrive(*origin),
            Way::To(target) => Act::Move(target.clone()),
        }
    }

    /// As it lies in the fact of its queue.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut table = Table::new();
        let number = |number: u64| Value::I64(number.cast_signed());
        table.insert("began", number(self.began_unix_ms));
        table.insert("total", number(self.total));
        table.insert("until", number(self.until.0));
        table.insert("moved", number(self.moved));
        table.insert("unroutable", number(self.unroutable));
        table.insert("passed", number(self.passed));
        if let Some(rate) = self.rate {
            table.insert("rate", number(u64::from(rate)));
        }
        if !self.filter.terms.is_empty() {
            table.insert("filter", Value::Array(self.filter.terms.iter().map(term_value).collect()));
        }
        match &self.way {
            Way::Back(Origin::Last) => {}
            Way::Back(Origin::First) => drop(table.insert("first", true)),
            Way::To(Target::Queue(queue)) => drop(table.insert("queue", queue.as_str())),
            Way::To(Target::Exchange { exchange, routing_key }) => {
                table.insert("exchange", exchange.as_str());
                if let Some(key) = routing_key {
                    table.insert("key", key.as_str());
                }
            }
        }
        match &self.end {
            None => {}
            Some(End::Done) => drop(table.insert("end", "done")),
            Some(End::Stopped) => drop(table.insert("end", "stopped")),
            Some(End::Failed(why)) => {
                table.insert("end", "failed");
                table.insert("why", why.as_str());
            }
        }
        let mut bytes = BytesMut::new();
        table.encode(&mut bytes);
        bytes.to_vec()
    }

    /// Reads it; `None` if this version cannot.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (table, _) = Table::decode(bytes).ok()?;
        let number = |name: &str| Some(table.get(name)?.as_i64()?.cast_unsigned());
        let text = |name: &str| table.get(name).and_then(Value::as_str).map(str::to_owned);
        let way = match (text("queue"), text("exchange")) {
            (Some(queue), _) => Way::To(Target::Queue(queue)),
            (None, Some(exchange)) => Way::To(Target::Exchange { exchange, routing_key: text("key") }),
            (None, None) if table.get("first").is_some() => Way::Back(Origin::First),
            (None, None) => Way::Back(Origin::Last),
        };
        let terms = match table.get("filter") {
            None => Vec::new(),
            Some(Value::Array(terms)) => terms.iter().map(read_term).collect::<Option<_>>()?,
            Some(_) => return None,
        };
        let end = match text("end").as_deref() {
            None => None,
            Some("done") => Some(End::Done),
            Some("stopped") => Some(End::Stopped),
            Some(_) => Some(End::Failed(text("why").unwrap_or_default())),
        };
        Some(Self {
            began_unix_ms: number("began")?,
            total: number("total")?,
            rate: number("rate").and_then(|rate| u32::try_from(rate).ok()),
            until: Seq(number("until")?),
            filter: Filter { terms },
            way,
            moved: number("moved")?,
            unroutable: number("unroutable")?,
            passed: number("passed")?,
            end,
        })
    }
}

/// A term as a list: what it is about, which one of those, and its value.
fn term_value(term: &Term) -> Value {
    let list = |kind: &str, name: &str, value: &[u8]| {
        Value::Array(vec![kind.into(), name.into(), Value::Bytes(value.to_vec())])
    };
    match term {
        Term::Exchange(value) => list("exchange", "", value.as_bytes()),
        Term::RoutingKey(value) => list("routing_key", "", value.as_bytes()),
        Term::Property(name, value) => list("property", name, value.as_bytes()),
        Term::Header(name, value) => list("header", name, value.as_bytes()),
        Term::Body(part) => list("body", "", part),
    }
}

fn read_term(value: &Value) -> Option<Term> {
    let Value::Array(list) = value else { return None };
    let [kind, name, Value::Bytes(octets)] = list.as_slice() else { return None };
    let (name, text) = (name.as_str()?.to_owned(), || String::from_utf8(octets.clone()).ok());
    Some(match kind.as_str()? {
        "exchange" => Term::Exchange(text()?),
        "routing_key" => Term::RoutingKey(text()?),
        "property" => Term::Property(name, text()?),
        "header" => Term::Header(name, text()?),
        "body" => Term::Body(octets.clone()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_redrive_is_read_as_it_was() {
        let plain = Redrive {
            began_unix_ms: 1_700_000_000_123,
            total: 1 << 40,
            rate: None,
            until: Seq(u64::MAX),
            filter: Filter::default(),
            way: Way::Back(Origin::Last),
            moved: 7,
            unroutable: 1,
            passed: 2,
            end: None,
        };
        let owned = |text: &str| text.to_owned();
        let terms = vec![
            Term::Exchange(owned("x")),
            Term::RoutingKey(String::new()),
            Term::Property(owned("type"), owned("t")),
            Term::Header(owned("n"), owned("5")),
            Term::Body(vec![0, 255]),
        ];
        let to = |key: Option<&str>| Target::Exchange { exchange: owned("e"), routing_key: key.map(owned) };
        let others = [
            Redrive { rate: Some(50), filter: Filter { terms }, ..plain.clone() },
            Redrive { way: Way::Back(Origin::First), end: Some(End::Done), ..plain.clone() },
            Redrive { way: Way::To(Target::Queue(owned("q"))), end: Some(End::Stopped), ..plain.clone() },
            Redrive { way: Way::To(to(None)), end: Some(End::Failed(owned("why"))), ..plain.clone() },
            Redrive { way: Way::To(to(Some("k"))), ..plain.clone() },
        ];
        for redrive in [plain].into_iter().chain(others) {
            assert_eq!(Redrive::read(&redrive.encoded()).as_ref(), Some(&redrive));
        }
        assert_eq!(Redrive::read(b""), None);
        assert_eq!(Redrive::read(&[0, 0, 0, 0]), None);
    }
}
