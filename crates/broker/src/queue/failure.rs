//! Why deliveries failed, in their workers' words: of each message the last failure, for as long as it is in the queue.
//!
//! A message without one costs nothing here, and nothing is done when a message leaves: which ones are still there is
//! asked when about as much has come as there is (`shard/report.rs`).

use super::Queue;
use bytes::Bytes;
use std::collections::BTreeMap;
use store::{Seq, SeqRange};

/// Why a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In short; at most [`Failure::REASON_BYTES`].
    pub reason: String,
    /// At length, the end of what a program wrote for instance; at most [`Failure::DETAILS_BYTES`].
    pub details: String,
    /// When it was said, in Unix milliseconds.
    pub at_unix_ms: u64,
}

impl Failure {
    /// How long a reason may be.
    pub const REASON_BYTES: usize = 256;
    /// How long details may be.
    pub const DETAILS_BYTES: usize = 8 << 10;

    /// A failure in these words, which are cut to what may be kept: a reason at its end, details at their front. What is no
    /// UTF-8 in details is replaced.
    #[must_use]
    pub fn new(reason: &str, details: &[u8], at_unix_ms: u64) -> Self {
        let reason = reason[..reason.floor_char_boundary(Self::REASON_BYTES)].to_owned();
        let mut tail = &details[details.len().saturating_sub(Self::DETAILS_BYTES)..];
        if tail.len() < details.len() {
            // The rest of a character whose beginning is cut off.
            let rest = tail.iter().take(3).take_while(|octet| **octet & 0xC0 == 0x80).count();
            tail = &tail[rest..];
        }
        let mut details = String::from_utf8_lossy(tail).into_owned();
        // Replacements are longer than what they stand for.
        let excess = details.len().saturating_sub(Self::DETAILS_BYTES);
        details.drain(..details.ceil_char_boundary(excess));
        Self { reason, details, at_unix_ms }
    }
}

/// The last failures of a queue's messages.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    by_seq: BTreeMap<Seq, Kept>,
    bytes: u64,
}

/// A failure as it lies in the log, which shares its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) value: Bytes,
    /// Of the message.
    pub(crate) priority: u8,
    /// The log has it.
    pub(crate) is_logged: bool,
}

impl Kept {
    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.value.len() as u64 + KEPT_BYTES
    }
}

impl Failures {
    pub(crate) fn get(&self, seq: Seq) -> Option<&Kept> {
        self.by_seq.get(&seq)
    }

    pub(crate) fn put(&mut self, seq: Seq, kept: Kept) {
        self.bytes += kept.bytes();
        if let Some(before) = self.by_seq.insert(seq, kept) {
            self.bytes -= before.bytes();
        }
    }

    pub(crate) fn remove(&mut self, seq: Seq) {
        if let Some(kept) = self.by_seq.remove(&seq) {
            self.bytes -= kept.bytes();
        }
    }

    /// What they take in memory, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them, and whether the log has them.
    pub(crate) fn seqs(&self) -> impl Iterator<Item = (Seq, bool)> + '_ {
        self.by_seq.iter().map(|(seq, kept)| (*seq, kept.is_logged))
    }
}

impl Queue {
    /// Failures of messages that are not in it any more, nor on their way elsewhere as these are; and whether the log has
    /// them.
    pub(crate) fn outlived_failures(&self, moving: &[SeqRange]) -> Vec<(Seq, bool)> {
        let Some(failures) = &self.failures else { return Vec::new() };
        let is_moving = |seq: Seq| moving.iter().any(|range| range.first <= seq && seq <= range.last);
        let is_gone = |seq, kept: &Kept| self.find(kept.priority, seq).is_none() && !is_moving(seq);
        let gone = failures.by_seq.iter().filter(|(seq, kept)| is_gone(**seq, kept));
        gone.map(|(seq, kept)| (*seq, kept.is_logged)).collect()
    }
}

/// What a failure takes beside its words: its key in the log, and two entries that lead to it.
const KEPT_BYTES: u64 = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_where_characters_end_and_details_keep_their_end() {
        let reason = "é".repeat(200);
        let mut details = "ü".repeat(10_000).into_bytes();
        details.extend(b"the end");
        let failure = Failure::new(&reason, &details, 7);
        assert_eq!(failure.reason, "é".repeat(128));
        assert!(failure.details.len() <= Failure::DETAILS_BYTES && failure.details.len() > 8_180);
        assert!(failure.details.starts_with('ü') && failure.details.ends_with("the end"), "{}", failure.details);
    }

    #[test]
    fn what_is_no_text_is_made_text_and_no_longer_than_it_may_be() {
        let failure = Failure::new("r", &[0xFF; 10_000], 0);
        assert!(failure.details.chars().all(|c| c == '\u{FFFD}'));
        assert!(failure.details.len() <= Failure::DETAILS_BYTES);
        assert_eq!(Failure::new("r", b"\x80\xBFab", 0).details, "\u{FFFD}\u{FFFD}ab");
        assert_eq!(Failure::new("", b"", 0).details, "");
    }
}
