//! Queues that take one message of a key only.
//!
//! The key is remembered in one step with the message: its record is chained with the message's, so that both are there
//! after a crash, or neither. A duplicate is dropped and counted, and its publisher told that it is stored when everything
//! logged so far is, which the first one is part of.

use super::Shard;
use super::peers::Peer;
use super::publish::{Accepted, Terms, Untaken};
use super::slots::Slot;
use crate::command::Sifted;
use crate::fact::hash_secret_fact;
use crate::message::Message;
use crate::queue::Queue;
use store::Store;

impl<S: Store> Shard<S> {
    /// A connection publishes to an exchange that deduplicates.
    pub(super) fn sift(&mut self, peer: Slot<Peer>, sifted: Sifted) {
        let Sifted { sifting, publish } = sifted;
        for id in publish.queues.iter() {
            if let Some(slot) = self.queue_slots.get(id).filter(|_| sifting.to(*id).is_some()) {
                self.queues[*slot].keys.get_or_insert_default();
            }
        }
        self.sifting = Some(sifting);
        self.publish_for(peer, publish);
        self.sifting = None;
    }

    /// Gives the message a place in a queue that remembers keys.
    #[cold]
    #[inline(never)]
    pub(super) fn accept_once(
        &mut self,
        slot: Slot<Queue>,
        message: &Message,
        terms: Terms,
    ) -> Result<Accepted, Untaken> {
        let id = self.queues[slot].spec.queue.id;
        let sieves = self.sifting.as_ref().filter(|_| terms.is_new).and_then(|sifting| sifting.to(id)).cloned();
        let (secret, unix_ms) = (self.hash_secret.0, self.now.unix_ms);
        let queue = &mut self.queues[slot];
        let lookup = queue.lookup(message, sieves.as_deref(), secret);
        if terms.is_new && queue.is_duplicate(&lookup, sieves.as_deref(), unix_ms) {
            queue.counters.deduplicated += 1;
            return Err(Untaken::Duplicate);
        }
        let one = self.accept_any(slot, message, terms).ok_or(Untaken::Full)?;
        let place = (one.stamp.priority, one.stamp.seq, one.is_kept);
        self.queues[slot].remember(&lookup, sieves.as_deref(), place, unix_ms, &mut self.fresh_keys);
        Ok(one)
    }

    /// Logs the keys of the message whose record comes next.
    #[inline(always)]
    pub(super) fn log_fresh_keys(&mut self) {
        if !self.fresh_keys.is_empty() {
            self.log_keys();
        }
    }

    #[cold]
    #[inline(never)]
    fn log_keys(&mut self) {
        let (secret, is_logged) = self.hash_secret;
        if !is_logged {
            let (key, value) = hash_secret_fact(secret);
            self.log.put_fact(key, value);
            self.hash_secret = (secret, true);
        }
        for fresh in self.fresh_keys.drain(..) {
            self.log.append_key(fresh);
        }
    }

    /// Of the exchanges that deduplicate only these are left.
    pub(super) fn keep_sources(&mut self, sources: &[u64]) {
        for (_, queue) in self.queues.iter_mut() {
            if let Some(keys) = &mut queue.keys {
                keys.keep_sources(sources);
            }
        }
    }
}
