//! Messages come in: into queues and the log, and back to their publisher as confirmed.

use super::Shard;
use super::log::Waiter;
use super::peers::{Peer, SinceMark};
use super::slots::Slot;
use crate::command::{Command, Overflow, Publish};
use crate::message::Message;
use crate::queue::dead_letter::Reason;
use crate::queue::ready::{Body, Entry};
use crate::queue::{Queue, Stamp};
use crate::topology::Topology;
use store::{Lsn, Place, QueueId, Seq, Store};

/// A queue that takes a message, and how.
#[derive(Debug)]
pub(super) struct Accepted {
    queue: Slot<Queue>,
    stamp: Stamp,
    is_kept: bool,
    /// Stays in the log until somebody wants it.
    is_far: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Its record; [`Lsn::ZERO`] if it needed none.
    pub(super) logged: Lsn,
    /// One of its queues was full.
    pub(super) is_refused: bool,
}

impl<S: Store> Shard<S> {
    /// A connection publishes.
    pub(super) fn publish_for(&mut self, peer: Slot<Peer>, publish: Publish) {
        let confirm = publish.confirm;
        let stored = self.publish(publish, None);
        if confirm {
            let since_mark = &mut self.peers[peer].since_mark;
            if stored.is_refused {
                since_mark.refused.push(since_mark.confirms);
            }
            since_mark.confirms += 1;
            since_mark.logged = since_mark.logged.max(stored.logged);
        }
    }

    /// The connection wants to know when all that is stored.
    pub(super) fn mark(&mut self, peer: Slot<Peer>, mark: u64) {
        let peer = &mut self.peers[peer];
        let SinceMark { refused, logged, .. } = std::mem::take(&mut peer.since_mark);
        let connection = peer.id;
        self.when_durable(logged, Waiter::Mark { connection, mark, refused });
    }

    /// Does all of it in one chain of records.
    pub(super) fn transact(&mut self, peer: Slot<Peer>, commands: Vec<Command>, topology: &Topology) {
        self.write_settled();
        let (published_before, last_before) = (self.peers[peer].since_mark.logged, self.log.last());
        self.log.begin_chain();
        for command in commands {
            self.obey(peer, command, topology);
        }
        self.write_settled();
        let end = self.log.end_chain_after(last_before);
        let published = &mut self.peers[peer].since_mark.logged;
        if *published > published_before {
            *published = end;
        }
    }

    /// Puts a message into all its queues here. `moved_from` names the place that the same record empties; if there is
    /// no record, it is for the caller to say that the place is empty.
    pub(super) fn publish(&mut self, publish: Publish, moved_from: Option<(QueueId, Seq)>) -> Stored {
        let Publish { queues, message, persistent, expiration_ms, priority, .. } = publish;
        let mut is_refused = false;
        let mut accepted = std::mem::take(&mut self.accepted);
        for id in queues.iter() {
            let Some(&slot) = self.queue_slots.get(id) else { continue };
            if self.queues[slot].rejects_when_full() && self.refuses(slot, &message) {
                is_refused = true;
                continue;
            }
            let queue = &mut self.queues[slot];
            let stamp = queue.stamp(expiration_ms, priority, self.now);
            let is_kept = queue.keeps(persistent);
            let is_far = queue.is_better_far(stamp.priority, &self.settings.near, self.near_bytes);
            let Stamp { seq, expires_at_ms, priority } = stamp;
            let place = Place { queue: *id, seq, expires_at_ms, priority };
            if is_kept {
                self.places.push(place);
            } else if is_far {
                self.spilled_places.push(place);
            }
            accepted.push(Accepted { queue: slot, stamp, is_kept, is_far });
        }
        let logged = match &self.places[..] {
            [] => Lsn::ZERO,
            places => self.log.append_message(places, moved_from, true, message.bytes()),
        };
        let spilled = match &self.spilled_places[..] {
            [] => Lsn::ZERO,
            places => self.log.append_message(places, None, false, message.bytes()),
        };
        self.places.clear();
        self.spilled_places.clear();
        let mut message = Some(message);
        let mut left = accepted.len();
        for Accepted { queue: slot, stamp, is_kept, is_far } in accepted.drain(..) {
            left -= 1;
            // The last one gets the message itself, and not one more reference to it.
            let copy = if left == 0 { message.take() } else { message.clone() };
            let Some(copy) = copy else { break };
            let queue = &mut self.queues[slot];
            let lsn = if is_kept { logged } else { spilled };
            if is_far {
                queue.push_far(copy, stamp, lsn, is_kept);
            } else {
                queue.push(copy, stamp, if is_kept { lsn } else { Lsn::ZERO }, is_kept);
            }
            self.count_near(slot);
            self.touch(slot);
        }
        self.accepted = accepted;
        Stored { logged, is_refused }
    }

    /// Whether a queue that refuses messages when it is full does so now. Consumers that wait come first.
    fn refuses(&mut self, slot: Slot<Queue>, message: &Message) -> bool {
        if !self.queues[slot].would_overflow(message.body_bytes()) {
            return false;
        }
        if self.queues[slot].is_touched {
            self.dispatch(slot);
            if !self.queues[slot].would_overflow(message.body_bytes()) {
                return false;
            }
        }
        let queue = &mut self.queues[slot];
        queue.counters.refused += 1;
        if queue.spec.settings.overflow == Overflow::RejectPublishDlx {
            // Never had a place here: there is nothing to be settled.
            let entry = Entry {
                body: Body::Here(message.clone()),
                seq: Seq(0),
                lsn: Lsn::ZERO,
                expires_at_ms: 0,
                attempts: 0,
                priority: 0,
                redelivered: false,
                is_kept: false,
            };
            self.mourn(slot, entry, Reason::MaxLength);
        }
        true
    }
}
