//! What the command line asks for, in the terms of those who do it.

use super::child::Plan;
use super::hook::Hook;
use super::lines::Pool;
use amqp::{Table, Value};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A queue, and its share of the jobs where others have some, too: `mails=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueShare {
    pub(super) name: Arc<str>,
    pub(super) weight: u32,
}

impl FromStr for QueueShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = match text.rsplit_once('=').map(|(name, weight)| (name, weight.parse::<u32>())) {
            Some((name, Ok(weight @ 1..))) => (name, weight),
            Some((_, Ok(0))) => return Err("a weight is 1 or more".to_owned()),
            // A name with a sign of its own.
            _ => (text, 1),
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("a queue's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        Ok(Self { name: name.into(), weight })
    }
}

/// How a queue is declared that need not be there.
#[derive(Clone, Debug)]
pub(super) struct Declaration {
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) delivery_limit: u32,
    /// `None`: the queue's name and `.dead`. Empty: none.
    pub(super) dead_letter_queue: Option<String>,
}

impl Declaration {
    /// Where a queue's dead letters go.
    pub(super) fn dead_letter_queue(&self, queue: &str) -> Option<String> {
        match self.dead_letter_queue.as_deref() {
            None => Some(format!("{queue}.dead")),
            Some("") => None,
            Some(name) => Some(name.to_owned()),
        }
    }

    /// The queue's arguments. Other brokers have these in quorum queues.
    pub(super) fn arguments(&self, dead_letter_queue: Option<&str>, is_leveret: bool) -> Table {
        let ms = |time: Duration| Value::I64(super::link::millis(time));
        let mut arguments = Table::new();
        if !is_leveret {
            arguments.insert("x-queue-type", "quorum");
        }
        arguments.insert("x-delayed-retry-type", "all");
        arguments.insert("x-delayed-retry-min", ms(self.retry_min));
        arguments.insert("x-delayed-retry-max", ms(self.retry_max.max(self.retry_min)));
        if is_leveret {
            arguments.insert("x-delayed-retry-backoff", "exponential");
            arguments.insert("x-delayed-retry-jitter", 20);
        }
        arguments.insert("x-delivery-limit", Value::I64(self.delivery_limit.into()));
        if let Some(dead) = dead_letter_queue {
            arguments.insert("x-dead-letter-exchange", "");
            arguments.insert("x-dead-letter-routing-key", dead);
        }
        arguments
    }
}

/// What runs the jobs.
#[derive(Debug)]
pub(super) enum Mode {
    /// A program for each.
    Process(Arc<Plan>),
    /// Long-lived programs that are fed lines.
    Lines(Arc<Pool>),
    /// A web hook.
    Http(Arc<Hook>),
}

/// How long a reply may be.
pub(super) const REPLY_BYTES_MAX: usize = 1 << 20;

const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_a_weight_after_its_last_sign() {
        let share = |text: &str| text.parse::<QueueShare>().map(|share| (share.name.to_string(), share.weight));
        assert_eq!(share("mails"), Ok(("mails".to_owned(), 1)));
        assert_eq!(share("mails=3"), Ok(("mails".to_owned(), 3)));
        assert_eq!(share("a=b"), Ok(("a=b".to_owned(), 1)));
        assert_eq!(share("a=b=2"), Ok(("a=b".to_owned(), 2)));
        assert!(share("=3").is_err() && share("mails=0").is_err());
    }
}
