//! Messages come in: into queues and the log, and back to their publisher as confirmed.

use super::Shard;
use super::log::Waiter;
use super::peers::{Peer, SinceMark};
use super::slots::Slot;
use crate::command::{Command, Delay, Overflow, Publish};
use crate::message::Message;
use crate::queue::dead_letter::Reason;
use crate::queue::ready::{Body, Entry, Sums};
use crate::queue::{Queue, Stamp};
use crate::topology::Topology;
use store::{Lsn, QueueId, Seq, Store};

/// A queue that takes a message, and how.
#[derive(Debug)]
pub(super) struct Accepted {
    queue: Slot<Queue>,
    pub(super) stamp: Stamp,
    pub(super) is_kept: bool,
    /// Stays in the log until somebody wants it.
    is_far: bool,
}

/// Why a queue does not take a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Untaken {
    /// It is full, and refuses it.
    Full,
    /// It has taken one of the same key.
    Duplicate,
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Its record; [`Lsn::ZERO`] if it needed none.
    pub(super) logged: Lsn,
    /// One of its queues was full.
    pub(super) is_refused: bool,
    /// One of them has it.
    pub(super) is_taken: bool,
}

impl Stored {
    /// None of its queues is there any more.
    const NOWHERE: Self = Self { logged: Lsn::ZERO, is_refused: false, is_taken: false };
}

/// What a publisher asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// A client publishes it: it may be a duplicate. What is moved, or died elsewhere, is none.
    pub(crate) is_new: bool,
    /// An operator moves it: where it is refused it stays where it was, and is no dead letter.
    pub(crate) stays: bool,
    pub(crate) persistent: bool,
    pub(crate) expiration_ms: Option<u64>,
    pub(crate) priority: Option<u8>,
    pub(crate) delay: Option<Delay>,
}

impl From<&Publish> for Terms {
    fn from(publish: &Publish) -> Self {
        let Publish { persistent, expiration_ms, priority, delay, confirm, .. } = *publish;
        Self { is_new: false, stays: confirm, persistent, expiration_ms, priority, delay }
    }
}

impl Terms {
    /// Of what comes from outside.
    pub(crate) fn of_new(publish: &Publish) -> Self {
        Self { is_new: true, stays: false, ..Self::from(publish) }
    }
}

impl<S: Store> Shard<S> {
    /// A connection publishes.
    pub(super) fn publish_for(&mut self, peer: Slot<Peer>, publish: Publish) {
        let terms = Terms::of_new(&publish);
        let Publish { queues, message, more, confirm, .. } = publish;
        let messages = std::iter::once(message).chain(more);
        if let [queue] = queues[..] {
            // Most go to one queue, and many at a time: it is looked up once.
            let slot = self.queue_slots.get(&queue).copied();
            for message in messages {
                let stored = slot.map(|slot| self.publish_to_one(queue, slot, message, terms));
                self.note_stored(peer, confirm, stored.unwrap_or(Stored::NOWHERE));
            }
            return;
        }
        for message in messages {
            let stored = self.publish(&queues, message, terms, None);
            self.note_stored(peer, confirm, stored);
        }
    }

    fn note_stored(&mut self, peer: Slot<Peer>, confirm: bool, stored: Stored) {
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
    pub(super) fn publish(
        &mut self,
        queues: &[QueueId],
        message: Message,
        terms: Terms,
        moved_from: Option<(QueueId, Seq)>,
    ) -> Stored {
        let (mut is_refused, mut first) = (false, Lsn::ZERO);
        let mut accepted = std::mem::take(&mut self.accepted);
        for id in queues {
            let Some(&slot) = self.queue_slots.get(id) else { continue };
            let one = match self.accept(slot, &message, terms) {
                Ok(one) => one,
                Err(Untaken::Full) => {
                    is_refused = true;
                    continue;
                }
                Err(Untaken::Duplicate) => {
                    first = self.log.last();
                    continue;
                }
            };
            let place = one.stamp.place(*id);
            if one.is_kept {
                self.places.push(place);
            } else if one.is_far {
                self.spilled_places.push(place);
            }
            accepted.push(one);
        }
        self.log_fresh_keys();
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
        let is_taken = left > 0;
        for one in accepted.drain(..) {
            left -= 1;
            // The last one gets the message itself, and not one more reference to it.
            let copy = if left == 0 { message.take() } else { message.clone() };
            let Some(copy) = copy else { break };
            let lsn = if one.is_kept { logged } else { spilled };
            self.place(&one, copy, lsn);
        }
        self.accepted = accepted;
        Stored { logged: logged.max(first), is_refused, is_taken }
    }

    /// The same for one queue.
    fn publish_to_one(&mut self, id: QueueId, slot: Slot<Queue>, message: Message, terms: Terms) -> Stored {
        let one = match self.accept(slot, &message, terms) {
            Ok(one) => one,
            Err(Untaken::Full) => return Stored { is_refused: true, ..Stored::NOWHERE },
            // Its confirm waits for the first one's record, wherever that is.
            Err(Untaken::Duplicate) => return Stored { logged: self.log.last(), ..Stored::NOWHERE },
        };
        self.log_fresh_keys();
        let lsn = if one.is_kept || one.is_far {
            self.log.append_message(&[one.stamp.place(id)], None, one.is_kept, message.bytes())
        } else {
            Lsn::ZERO
        };
        self.place(&one, message, lsn);
        Stored { logged: if one.is_kept { lsn } else { Lsn::ZERO }, is_refused: false, is_taken: true }
    }

    /// Gives the message a place in a queue, unless that is full and refuses it, or it is a duplicate.
    // Plain queues take messages as if there were no others.
    #[inline(always)]
    fn accept(&mut self, slot: Slot<Queue>, message: &Message, terms: Terms) -> Result<Accepted, Untaken> {
        if self.queues[slot].keys.is_some() {
            return self.accept_once(slot, message, terms);
        }
        self.accept_any(slot, message, terms).ok_or(Untaken::Full)
    }

    /// The same, duplicate or not.
    #[inline(always)]
    pub(super) fn accept_any(&mut self, slot: Slot<Queue>, message: &Message, terms: Terms) -> Option<Accepted> {
        let queue = &mut self.queues[slot];
        if queue.stream.is_some() {
            let stamp = queue.stamp_in_stream(self.now);
            return Some(Accepted { queue: slot, stamp, is_kept: true, is_far: true });
        }
        // What waits for its time counts for no limit yet.
        let is_delayed = terms.delay.is_some();
        if queue.rejects_when_full() && !is_delayed && self.refuses(slot, message, terms) {
            return None;
        }
        let queue = &mut self.queues[slot];
        let stamp = queue.stamp(&terms, self.now);
        let is_kept = queue.keeps(terms.persistent);
        let is_far = is_delayed || queue.is_better_far(stamp.priority, &self.settings.near, self.near_bytes);
        Some(Accepted { queue: slot, stamp, is_kept, is_far })
    }

    /// Puts the message there; `lsn` is its record, if it has one.
    fn place(&mut self, accepted: &Accepted, message: Message, lsn: Lsn) {
        let Accepted { queue: slot, stamp, is_kept, is_far } = *accepted;
        let queue = &mut self.queues[slot];
        if is_far {
            queue.push_far(message, stamp, lsn, is_kept);
        } else {
            queue.push(message, stamp, if is_kept { lsn } else { Lsn::ZERO }, is_kept);
        }
        self.count_near(slot);
        self.touch(slot);
    }

    /// Whether a queue has no room for this message, once those got theirs who wait.
    pub(super) fn is_full_for(&mut self, slot: Slot<Queue>, message: &Message, is_new: bool) -> bool {
        let beside = if is_new { self.taken_beside(slot) } else { Sums::default() };
        if !self.queues[slot].would_overflow(message.body_bytes(), beside) {
            return false;
        }
        if !self.queues[slot].is_touched {
            return true;
        }
        self.dispatch(slot);
        self.queues[slot].would_overflow(message.body_bytes(), beside)
    }

    /// Whether a queue that refuses messages when it is full does so now. Consumers that wait come first.
    fn refuses(&mut self, slot: Slot<Queue>, message: &Message, terms: Terms) -> bool {
        if !self.is_full_for(slot, message, terms.is_new) {
            if let Some(callers) = self.queues[slot].callers.as_mut().filter(|_| terms.is_new) {
                callers.is_publishers_turn = false;
            }
            return false;
        }
        let queue = &mut self.queues[slot];
        queue.counters.refused += 1;
        if queue.spec.settings.overflow == Overflow::RejectPublishDlx && !terms.stays {
            // Never had a place here: there is nothing to be settled.
            let entry = Entry {
                body: Body::Here(message.clone()),
                seq: Seq(0),
                lsn: Lsn::ZERO,
                expires_at_ms: 0,
                due_at_ms: 0,
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
