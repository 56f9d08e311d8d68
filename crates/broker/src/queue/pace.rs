//! How the consumers of a queue keep up with it.
//!
//! Consumers that do work settle some hundred messages a second, or some thousand. Faster ones only wait for the broker:
//! for each answer, if their prefetch is small. A publisher that waits for nothing would take the processor from them,
//! and fill the queue although they could empty it. So publishers to such a queue wait, a moment at a time, while its
//! consumers have as many messages as they may have and are about to come for more.

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the count below began.
    since_ms: u64,
    delivered: u64,
    /// In the last full count the consumers were faster than work is.
    is_fast: bool,
    /// When messages were left over because the consumers had as many as they may have; `None` while one may have more.
    sated_ms: Option<u64>,
}

impl Pace {
    /// So many messages were delivered to so many consumers in a step, or dropped, with bodies of so many bytes.
    pub(crate) fn note_delivered(&mut self, count: u64, bytes: u64, consumers: u32, now_ms: u64) {
        self.delivered += count + bytes / BYTES_LIKE_ONE;
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        if elapsed_ms >= COUNT_MS {
            let fast = elapsed_ms.saturating_mul(FAST_PER_MS).saturating_mul(u64::from(consumers));
            self.is_fast = self.delivered >= fast;
            self.delivered = 0;
            self.since_ms = now_ms;
        }
    }

    /// Messages are left over: the consumers have as many as they may have.
    pub(crate) fn note_sated(&mut self, now_ms: u64) {
        self.sated_ms.get_or_insert(now_ms);
    }

    /// A consumer may have more again.
    pub(crate) fn note_hungry(&mut self) {
        self.sated_ms = None;
    }

    /// Whether the consumers are fast, and have not had long enough yet to come for more.
    pub(crate) fn is_about_to_be_asked(&self, now_ms: u64) -> bool {
        self.is_fast && self.sated_ms.is_some_and(|sated_ms| now_ms.saturating_sub(sated_ms) <= PATIENCE_MS)
    }
}

/// How long deliveries are counted.
const COUNT_MS: u64 = 20;
/// Deliveries per millisecond to one consumer that no real work keeps up with.
const FAST_PER_MS: u64 = 10;
/// So much of a body is as much work as a message of its own: 100 MB/s is fast, too.
const BYTES_LIKE_ONE: u64 = 10_000;
/// How long fast consumers are waited for.
const PATIENCE_MS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fast_consumers_are_waited_for_and_not_for_long() {
        let mut pace = Pace::default();
        pace.note_delivered(1000, 0, 1, 1000);
        pace.note_delivered(2 * COUNT_MS * FAST_PER_MS - 1, 0, 2, 1000 + COUNT_MS);
        pace.note_sated(1000 + COUNT_MS);
        assert!(!pace.is_about_to_be_asked(1000 + COUNT_MS), "slow");
        let now_ms = 1000 + 2 * COUNT_MS;
        pace.note_delivered(0, COUNT_MS * FAST_PER_MS * BYTES_LIKE_ONE, 1, now_ms);
        pace.note_hungry();
        assert!(!pace.is_about_to_be_asked(now_ms), "they may have more at once");
        pace.note_sated(now_ms);
        assert!(pace.is_about_to_be_asked(now_ms + PATIENCE_MS));
        pace.note_sated(now_ms + PATIENCE_MS);
        assert!(!pace.is_about_to_be_asked(now_ms + PATIENCE_MS + 1), "from the first time on");
        pace.note_delivered(COUNT_MS, 0, 1, now_ms + 10 * COUNT_MS);
        pace.note_hungry();
        pace.note_sated(now_ms + 10 * COUNT_MS);
        assert!(!pace.is_about_to_be_asked(now_ms + 10 * COUNT_MS), "they have become slow");
    }
}
