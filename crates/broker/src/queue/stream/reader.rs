//! One consumer of a stream: where it is, what was read ahead for it, and how much it has not settled.

use super::near_bytes;
use crate::message::Message;
use amqp::{Properties, Table, Value};
use std::collections::VecDeque;
use store::Seq;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader {
    id: u32,
    /// What comes next, or a later one if that is gone.
    next: Seq,
    /// Deliveries so far.
    delivered: u64,
    /// How many of them are not settled.
    pub(crate) unsettled: u32,
    ahead: VecDeque<(Seq, Message)>,
    ahead_bytes: u64,
    /// More are being read.
    pub(crate) is_reading: bool,
    filter: Option<Box<Filter>>,
}

impl Reader {
    pub(super) fn new(id: u32, from: Seq, filter: Option<Filter>) -> Self {
        Self {
            id,
            next: from,
            delivered: 0,
            unsettled: 0,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            is_reading: false,
            filter: filter.map(Box::new),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The message that it gets next.
    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// It has got this one, or does not want it.
    pub(super) fn pass(&mut self, seq: Seq) {
        self.next = Seq(seq.0.saturating_add(1));
    }

    pub(super) fn take_ahead(&mut self) -> Option<(Seq, Message)> {
        let (seq, message) = self.ahead.pop_front()?;
        self.ahead_bytes -= near_bytes(&message);
        self.pass(seq);
        Some((seq, message))
    }

    pub(super) fn add_ahead(&mut self, seq: Seq, message: Message) {
        self.ahead_bytes += near_bytes(&message);
        self.ahead.push_back((seq, message));
    }

    /// What was read ahead takes in memory.
    pub(crate) fn ahead_bytes(&self) -> u64 {
        self.ahead_bytes
    }

    /// From where on there is more to be read.
    pub(crate) fn unread_from(&self) -> Seq {
        self.ahead.back().map_or(self.next, |(seq, _)| Seq(seq.0 + 1))
    }

    /// What it would get next is gone, up to this one.
    pub(crate) fn skip(&mut self, seq: Seq) {
        if self.ahead.is_empty() && self.next <= seq {
            self.pass(seq);
        }
    }

    /// Whether it wants the message.
    pub(crate) fn wants(&self, message: &Message) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.passes(message))
    }

    /// One more delivery: tells what stands for it.
    pub(crate) fn deliver(&mut self) -> Seq {
        let number = self.delivered & NUMBER_MASK;
        self.delivered += 1;
        self.unsettled += 1;
        Seq(u64::from(self.id) << NUMBER_BITS | number)
    }

    /// Whose delivery this stands for.
    pub(crate) fn of_delivery(seq: Seq) -> u32 {
        (seq.0 >> NUMBER_BITS) as u32
    }
}

/// `x-stream-filter`: which messages a consumer wants, by their `x-stream-filter-value`.
#[derive(Debug)]
pub(crate) struct Filter {
    values: Vec<Vec<u8>>,
    /// Those without a value, too (`x-stream-match-unfiltered`).
    unfiltered: bool,
}

impl Filter {
    /// The filter that a consumer's arguments ask for, if any.
    pub(crate) fn parse(arguments: &Table) -> Option<Self> {
        let text = |value: &Value| match value {
            Value::Str(octets) => Some(octets.clone()),
            _ => None,
        };
        let values = match arguments.get("x-stream-filter")? {
            Value::Array(values) => values.iter().filter_map(text).collect(),
            value => vec![text(value)?],
        };
        let unfiltered = arguments.get("x-stream-match-unfiltered").and_then(Value::as_bool).unwrap_or(false);
        Some(Self { values, unfiltered })
    }

    fn passes(&self, message: &Message) -> bool {
        let value =
            Properties::parse(message.properties()).ok().and_then(|found| found.header("x-stream-filter-value"));
        match value {
            Some(Value::Str(octets)) => self.values.contains(&octets),
            _ => self.unfiltered,
        }
    }
}

/// Half a million readers of a stream, …
pub(super) const ID_BITS: u32 = 19;
/// … and as many deliveries to each, before their numbers begin anew, as take months at a million a second. What stands
/// for one is below half of what a `Seq` can be, so that one can be added to it.
const NUMBER_BITS: u32 = u64::BITS - 1 - ID_BITS;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
