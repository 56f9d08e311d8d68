//! Leases that somebody extended: until when the holder of an unacked message may keep it, where that is not simply its
//! delivery and the timeout. What is never extended costs nothing here.

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

/// By holder and message: until when (`Now::ms`).
#[derive(Debug, Default)]
pub(crate) struct Extended(BTreeMap<(Slot<Holder>, Seq), u64>);

impl Extended {
    pub(crate) fn until(&self, holder: Slot<Holder>, seq: Seq) -> Option<u64> {
        self.0.get(&(holder, seq)).copied()
    }

    /// False where there are too many.
    pub(crate) fn extend(&mut self, holder: Slot<Holder>, seq: Seq, until_ms: u64) -> bool {
        if self.0.len() >= EXTENDED_MAX && !self.0.contains_key(&(holder, seq)) {
            return false;
        }
        self.0.insert((holder, seq), until_ms);
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
    pub(crate) fn of(&self, holder: Slot<Holder>) -> impl Iterator<Item = (Seq, u64)> + '_ {
        let all = self.0.range((holder, Seq(0))..=(holder, Seq(u64::MAX)));
        all.map(|((_, seq), until_ms)| (*seq, *until_ms))
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

/// How many extended leases a queue may have: they take some 50 bytes each.
const EXTENDED_MAX: usize = 100_000;
