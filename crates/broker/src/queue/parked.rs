//! Ready messages of one priority that were looked at and have to wait for others of their group.
//!
//! They stand beside the rest of their level, so that what cannot go holds up nothing. Each knows its group, which knows
//! it by its rank (`groups.rs`). Most are *far*, packed as runs; a few of each group stay in memory.

use super::backlog::Backlog;
use super::groups::{Group, Rank};
use super::ready::{Body, Entry};
use super::run::Run;
use crate::message::Message;
use crate::shard::slots::Slot;
use std::collections::BTreeMap;
use store::{Lsn, Seq};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    near: BTreeMap<Seq, (Entry, Slot<Group>)>,
    /// `holder` is the group.
    far: Backlog,
    near_bytes: u64,
    /// What left in another way than by its turn, and whose group does not know it yet.
    gone: Vec<(Rank, Slot<Group>)>,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }

    pub(super) fn near_bytes(&self) -> u64 {
        self.near_bytes
    }

    pub(super) fn far_len(&self) -> usize {
        self.far.len()
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.far.heap_bytes()
    }

    pub(super) fn insert(&mut self, entry: Entry, group: Slot<Group>) {
        if entry.message().is_some() {
            self.near_bytes += entry.near_bytes();
            self.near.insert(entry.seq, (entry, group));
        } else {
            self.far.insert(Run { holder: group.index(), ..entry.run() });
        }
    }

    /// What is known of a message.
    pub(super) fn find(&self, seq: Seq) -> Option<Run> {
        let near = self.near.get(&seq).map(|(entry, _)| entry.run());
        near.or_else(|| self.far.get(seq).map(plain))
    }

    /// Whether a message is here, and in memory.
    pub(super) fn is_near(&self, seq: Seq) -> bool {
        self.near.contains_key(&seq)
    }

    /// A message that is in memory.
    pub(super) fn near(&self, seq: Seq) -> Option<&Entry> {
        self.near.get(&seq).map(|(entry, _)| entry)
    }

    /// Takes a message for its turn.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Entry> {
        self.remove(seq).map(|(entry, _)| entry)
    }

    /// The message of the lowest seq.
    pub(super) fn first(&self) -> Option<Run> {
        let near = self.near.first_key_value().map(|(_, (entry, _))| entry.run());
        let far = self.far.first().map(|run| plain(Run { count: 1, ..run }));
        match (near, far) {
            (Some(near), Some(far)) => Some(if near.seq < far.seq { near } else { far }),
            (near, far) => near.or(far),
        }
    }

    /// Takes a message away from its group, which is to be told.
    pub(super) fn withdraw(&mut self, seq: Seq) -> Option<Entry> {
        let (entry, group) = self.remove(seq)?;
        self.gone.push((Rank::of(entry.priority, seq), group));
        Some(entry)
    }

    fn remove(&mut self, seq: Seq) -> Option<(Entry, Slot<Group>)> {
        if let Some((entry, group)) = self.near.remove(&seq) {
            self.near_bytes -= entry.near_bytes();
            return Some((entry, group));
        }
        let run = self.far.remove(seq)?;
        let group = Slot::from_index(run.holder);
        Some((plain(run).into(), group))
    }

    /// What left and is not told yet.
    pub(super) fn take_gone(&mut self) -> Vec<(Rank, Slot<Group>)> {
        std::mem::take(&mut self.gone)
    }

    /// A far message was read; how much more is in memory now, or `None` if it has gone, or has been written elsewhere.
    pub(super) fn bring_near(&mut self, seq: Seq, lsn: Lsn, message: Message) -> Option<u64> {
        self.far.get(seq).filter(|found| found.lsn == lsn)?;
        let run = self.far.remove(seq)?;
        let group = Slot::from_index(run.holder);
        let entry = Entry { body: Body::Here(message), ..Entry::from(plain(run)) };
        let bytes = entry.near_bytes();
        self.near_bytes += bytes;
        self.near.insert(seq, (entry, group));
        Some(bytes)
    }

    /// The message's record is elsewhere now; false if it is not here.
    pub(super) fn relocate(&mut self, seq: Seq, lsn: Lsn) -> bool {
        if let Some((entry, _)) = self.near.get_mut(&seq) {
            entry.lsn = lsn;
            return true;
        }
        self.far.move_to(seq, lsn)
    }

    /// Takes all that is in memory. Their groups are not told.
    pub(super) fn take_near(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.near_bytes = 0;
        std::mem::take(&mut self.near).into_values().map(|(entry, _)| entry)
    }

    /// The rest.
    pub(super) fn into_far(self) -> Backlog {
        self.far
    }

    /// The lowest and the highest seqs.
    pub(super) fn ends(&self) -> impl Iterator<Item = Seq> {
        let near = self.near.first_key_value().into_iter().chain(self.near.last_key_value()).map(|(seq, _)| *seq);
        near.chain(self.far.first_seq()).chain(self.far.last_seq())
    }

    /// Every message from this seq on, as runs, from sources that are each in order.
    pub(super) fn sources(&self, from: Seq) -> [Box<dyn Iterator<Item = Run> + '_>; 2] {
        let near = self.near.range(from..).map(|(_, (entry, _))| entry.run());
        [Box::new(near), Box::new(self.far.range(from).map(plain))]
    }
}

/// As everybody else knows it.
fn plain(run: Run) -> Run {
    Run { holder: 0, ..run }
}
