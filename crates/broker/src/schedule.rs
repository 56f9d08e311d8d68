//! Recurring messages: a schedule as declared, and what is durable of its firings.
//!
//! When a schedule is due is not known here: the host works that out, and asks the shards of the queues that get the
//! message to [fire](Fire) it. An occurrence is fired once: each of these shards writes down the time of the occurrence
//! ([`Firing`]) in one chain with the message, and ignores what is no later than that. So whoever does not know whether
//! a firing took place asks for it again.

use crate::command::{Publish, ShardId, VhostId};
use bytes::Bytes;
use std::sync::Arc;

/// Names a schedule for ever. An id is never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(pub u64);

/// A schedule as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its id. The catalog gives it one.
    pub id: ScheduleId,
    /// Its vhost.
    pub vhost: VhostId,
    /// Its name there.
    pub name: Arc<str>,
    /// When it is due.
    pub timing: Timing,
    /// The exchange that its messages are published to.
    pub exchange: String,
    /// Their routing key.
    pub routing_key: String,
    /// Their properties, encoded.
    pub properties: Bytes,
    /// Their body; at most [`BODY_MAX`] bytes.
    pub body: Bytes,
    /// What becomes of occurrences that were missed.
    pub missed: Missed,
    /// It is not paused.
    pub is_enabled: bool,
    /// No occurrence is before this (Unix ms); an interval counts from here.
    pub start_ms: Option<u64>,
    /// None is after this.
    pub end_ms: Option<u64>,
    /// None up to here counts: when its timing was set, or it was resumed.
    pub since_ms: u64,
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// When clocks show this.
    Cron {
        /// A cron expression.
        expression: String,
        /// The IANA name of the clocks' time zone.
        zone: String,
    },
    /// Again and again.
    Every {
        /// Milliseconds; at least 1.
        ms: u64,
    },
}

/// What becomes of occurrences whose time passed while nothing could be fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// One message for all of them.
    One,
    /// One message for each.
    All,
}

impl Missed {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::One => "one",
            Self::All => "all",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Skip, Self::One, Self::All].into_iter().find(|missed| missed.name() == name)
    }
}

/// What a shard's log says of a schedule: that an occurrence was fired into this shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firing {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The time of the occurrence (Unix ms). All before are fired, too, or missed.
    pub at_ms: u64,
    /// When it was fired.
    pub fired_ms: u64,
    /// How many have been fired.
    pub fired: u64,
    /// How many were missed.
    pub missed: u64,
    /// How many messages no queue took.
    pub failed: u64,
    /// Why no queue took this one; empty if one did.
    pub error: String,
    /// All shards that this occurrence was fired into. One that does not know of it lacks the message.
    pub shards: Vec<ShardId>,
}

/// An occurrence that a shard is to fire.
#[derive(Debug)]
pub struct Fire {
    /// Repeated in the answer.
    pub ticket: u64,
    /// What is to be written down. Whether the message was taken is counted by the shard.
    pub firing: Firing,
    /// The message; `None` if it has nowhere to go.
    pub publish: Option<Publish>,
}

/// The longest body of a schedule's messages, in bytes: all of them are in memory and in each checkpoint.
pub const BODY_MAX: usize = 256 << 10;
/// Why a message is refused that had somewhere to go.
pub const FULL: &str = "the queues that it is routed to are full, and refuse it";
