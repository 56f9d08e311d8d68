//! What a queue holds deliveries back for, beside the limits of its consumers: groups, rates, and messages in flight.
//!
//! The settings are read anew each time, so that a change of them holds from the next delivery on.

use super::Queue;
use super::groups::{Groups, Terms};
use super::rate::Bucket;
use super::ready::Entry;
use super::run::Run;
use crate::command::QueueSettings;
use crate::queue::Holder;
use crate::shard::slots::Slot;
use store::Seq;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shaping {
    /// Where messages have keys.
    pub(crate) groups: Option<Box<Groups>>,
    /// What was used of the queue's rate.
    pub(crate) bucket: Bucket,
    /// When the queue is to be served again; 0 = when something happens.
    pub(crate) timer_ms: u64,
}

impl Queue {
    /// Does what the settings say from now on. Groups are there from the beginning, or never.
    pub(crate) fn reshape(&mut self) {
        let settings = &self.spec.settings;
        if settings.shapes() && self.shaping.is_none() {
            let groups = settings.group_key.as_ref().map(|_| Box::default());
            self.shaping = Some(Box::new(Shaping { groups, ..Shaping::default() }));
        }
    }

    /// The settings are others than before: what waits for a rate or for room in a group that it had waits for what there is
    /// now. A rate that is another one counts anew.
    pub(crate) fn relimit(&mut self, before: &QueueSettings, now_ms: u64) {
        let settings = &self.spec.settings;
        let is_paced_anew = settings.group_rate != before.group_rate;
        let is_other = is_paced_anew || settings.group_in_flight_max != before.group_in_flight_max;
        if settings.rate != before.rate
            && let Some(shaping) = &mut self.shaping
        {
            shaping.bucket = Bucket::default();
        }
        if is_other && let Some((groups, terms)) = self.groups_now(now_ms) {
            groups.relimit(terms, is_paced_anew);
        }
    }

    pub(crate) fn groups(&self) -> Option<&Groups> {
        self.shaping.as_ref()?.groups.as_deref()
    }

    pub(crate) fn groups_mut(&mut self) -> Option<&mut Groups> {
        self.shaping.as_mut()?.groups.as_deref_mut()
    }

    /// Its groups, and what is to be known of the settings for them.
    pub(crate) fn groups_now(&mut self, now_ms: u64) -> Option<(&mut Groups, Terms)> {
        let terms = Terms::new(&self.spec.settings, now_ms);
        Some((self.shaping.as_mut()?.groups.as_deref_mut()?, terms))
    }

    /// Whether the limits of the queue let one more message go.
    pub(crate) fn may_deliver(&self, now_ms: u64) -> bool {
        let Some(shaping) = &self.shaping else { return true };
        let settings = &self.spec.settings;
        let has_room = settings.in_flight_max.is_none_or(|max| self.unacked.len() < max as usize);
        has_room && (settings.rate.is_none() || shaping.bucket.is_open(now_ms))
    }

    /// When a shaped queue has to be looked at although nothing happens (ms).
    pub(crate) fn next_turn_ms(&self) -> Option<u64> {
        let shaping = self.shaping.as_ref()?;
        let can_deliver = !self.ready.is_empty() && !self.rotation.is_empty();
        let opens_ms = self.spec.settings.rate.filter(|_| can_deliver).map(|_| shaping.bucket.opens_at_ms());
        let groups_ms = shaping.groups.as_ref().and_then(|groups| groups.next_ms());
        opens_ms.into_iter().chain(groups_ms).min()
    }

    /// A message goes to this holder; to be settled, or for good.
    pub(crate) fn note_handed_over(&mut self, seq: Seq, to: Slot<Holder>, is_for_good: bool, now_ms: u64) {
        let rate = self.spec.settings.rate;
        if let Some(shaping) = &mut self.shaping
            && let Some(rate) = rate
        {
            shaping.bucket.take(rate, now_ms);
        }
        if let Some((groups, terms)) = self.groups_now(now_ms) {
            groups.note_handed_over(seq, to, is_for_good, terms);
        }
    }

    /// These messages left their holder.
    pub(super) fn note_settled(&mut self, seqs: impl Iterator<Item = Seq>, now_ms: u64) {
        if let Some((groups, terms)) = self.groups_now(now_ms) {
            seqs.for_each(|seq| groups.note_settled(seq, terms));
        }
    }

    /// A message that left its holder is ready again.
    pub(crate) fn put_back(&mut self, entry: Entry, now_ms: u64) {
        if self.shaping.is_some()
            && let Some((groups, terms)) = self.groups_now(now_ms)
            && let Some(group) = groups.note_returned(entry.seq)
        {
            groups.park(group, super::groups::Rank::of(entry.priority, entry.seq), terms);
            return self.ready.park(entry, group);
        }
        self.ready.put_back(entry);
    }

    /// The same for messages that are in the log only.
    pub(crate) fn put_back_far(&mut self, run: Run, now_ms: u64) {
        if self.groups().is_none() {
            return self.ready.return_far(run);
        }
        for message in run.messages() {
            self.put_back(message.into(), now_ms);
        }
    }
}
