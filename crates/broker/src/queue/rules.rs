//! What of a queue's spec each of its messages asks: a copy that is in the queue itself, since the spec is elsewhere in
//! memory, and long.

use crate::command::{Overflow, QueueRef, QueueSpec};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) queue: QueueRef,
    pub(crate) message_ttl_ms: Option<u64>,
    pub(crate) priority_max: Option<u8>,
    pub(crate) durable: bool,
    /// Keeps every message, whatever its delivery mode.
    pub(crate) keeps_all: bool,
    pub(crate) is_quorum: bool,
    /// Refuses messages when it is full, and drops none.
    pub(crate) rejects_when_full: bool,
    /// May be full.
    pub(crate) is_limited: bool,
    pub(crate) shows_attempts: bool,
    /// Goes when it is not used for a time.
    pub(crate) expires: bool,
}

impl Rules {
    pub(crate) fn of(spec: &QueueSpec) -> Self {
        let settings = &spec.settings;
        Self {
            queue: spec.queue,
            message_ttl_ms: settings.message_ttl_ms,
            priority_max: settings.priority_max,
            durable: spec.durable,
            keeps_all: settings.keeps_all(),
            is_quorum: settings.is_quorum(),
            rejects_when_full: settings.overflow != Overflow::DropHead,
            is_limited: settings.length_max.is_some() || settings.bytes_max.is_some(),
            shows_attempts: settings.shows_attempts(),
            expires: settings.expires_ms.is_some(),
        }
    }
}
