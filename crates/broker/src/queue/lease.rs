//! What is known of some leases only: until when the holder of an unacked message may keep it, where somebody extended
//! that, and how far its job is, where its worker says so. Of all others nothing is kept here.

use super::Holder;
use super::run::Run;
use crate::shard::slots::Slot;
use std::collections::BTreeMap;
use store::Seq;

/// What happens to a delivery that stays unacked for longer than its timeout (`x-consumer-timeout-action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Its channel is closed with 406, as RabbitMQ up to 4.2 does.
    #[default]
    CloseChannel,
    /// It goes back, and its consumer is cancelled; the channel is closed where the client cannot be told.
    CancelConsumer,
    /// It goes back, and its consumer goes on.
    Return,
}

impl TimeoutAction {
    /// Their names in arguments.
    pub(crate) const NAMES: [&'static str; 3] = ["close-channel", "cancel-consumer", "return"];

    /// The action of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "close-channel" => Some(Self::CloseChannel),
            "cancel-consumer" => Some(Self::CancelConsumer),
            "return" => Some(Self::Return),
            _ => None,
        }
    }
}

/// Until when (`Now::ms`).
pub(crate) type Extended = ByLease<u64>;

/// How far jobs are that are being done.
pub(crate) type Progresses = ByLease<Progress>;

/// How far a job is, in its worker's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What the worker says.
    pub said: Said,
    /// When it was said, in Unix milliseconds.
    pub at_unix_ms: u64,
}

/// What a worker says of its progress.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// So many of a hundred.
    Percent(f64),
    /// Anything, of at most [`Progress::TEXT_BYTES`].
    Text(String),
}

impl Progress {
    /// How long a text may be.
    pub const TEXT_BYTES: usize = 256;
}

/// Something that is known of some leases only, by holder and message.
#[derive(Debug)]
pub(crate) struct ByLease<T>(BTreeMap<(Slot<Holder>, Seq), T>);

impl<T> Default for ByLease<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl ByLease<u64> {
    pub(crate) fn until(&self, holder: Slot<Holder>, seq: Seq) -> Option<u64> {
        self.get(holder, seq).copied()
    }
}

impl<T> ByLease<T> {
    pub(crate) fn get(&self, holder: Slot<Holder>, seq: Seq) -> Option<&T> {
        self.0.get(&(holder, seq))
    }

    /// False where there are too many.
    pub(crate) fn put(&mut self, holder: Slot<Holder>, seq: Seq, known: T) -> bool {
        if self.0.len() >= BY_LEASE_MAX && !self.0.contains_key(&(holder, seq)) {
            return false;
        }
        self.0.insert((holder, seq), known);
        true
    }

    /// The message is settled, or back.
    pub(crate) fn forget(&mut self, holder: Slot<Holder>, seq: Seq) {
        self.0.remove(&(holder, seq));
    }

    /// So are these.
    pub(crate) fn forget_run(&mut self, holder: Slot<Holder>, run: &Run) {
        let range = run.range();
        while let Some((key, _)) = self.0.range((holder, range.first)..=(holder, range.last)).next() {
            let key = *key;
            self.0.remove(&key);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one holder.
    pub(crate) fn of(&self, holder: Slot<Holder>) -> impl Iterator<Item = (Seq, &T)> + '_ {
        let all = self.0.range((holder, Seq(0))..=(holder, Seq(u64::MAX)));
        all.map(|((_, seq), known)| (*seq, known))
    }
}

/// What is overdue of one holder, and when there will be more.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    pub(crate) seqs: Vec<Seq>,
    /// `Now::ms`; 0 = never.
    pub(crate) next_ms: u64,
}

impl Overdue {
    /// Notes when one more will be.
    pub(crate) fn note_next(&mut self, at_ms: u64) {
        if self.next_ms == 0 || at_ms < self.next_ms {
            self.next_ms = at_ms.max(1);
        }
    }
}

/// Of how many leases of a queue something may be known: they take some 50 bytes each, and with a text 300.
const BY_LEASE_MAX: usize = 100_000;
