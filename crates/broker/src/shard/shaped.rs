//! Deliveries of queues that hold back more than their consumers' limits do: groups of messages, rates, and limits of
//! what is in flight.
//!
//! What may go is decided message by message here, and not for a whole turn at once. A message whose group is busy is
//! parked, and those behind it are looked at; how many in one step is limited, and the next step goes on.

use super::Shard;
use super::consume::refuses_get;
use super::peers::Peer;
use super::read::Reading;
use super::slots::Slot;
use super::timers::Due;
use crate::message::Message;
use crate::queue::dead_letter::Reason;
use crate::queue::groups::{Group, Groups, Rank, Terms, Verdict};
use crate::queue::ready::{Entry, Head, NEAR_BYTES};
use crate::queue::run::Run;
use crate::queue::{Getter, Holder, Queue, Turn};
use bytes::Bytes;
use store::{Lsn, LsnRange, Store};

impl<S: Store> Shard<S> {
    /// Delivers what may go.
    pub(super) fn dispatch_shaped(&mut self, slot: Slot<Queue>) {
        self.catch_up(slot);
        let mut looks = LOOKS_AT_ONCE;
        while !self.queues[slot].ready.is_empty() && self.queues[slot].may_deliver(self.now.ms) {
            let Some(consumer) = self.queues[slot].rotation.next() else { break };
            if !self.can_receive(slot, consumer) {
                continue;
            }
            let Some(entry) = self.pick(slot, Some(consumer), &mut looks) else {
                let queue = &mut self.queues[slot];
                let priority = queue.holders[consumer].priority;
                queue.rotation.give_back(priority, consumer);
                break;
            };
            self.deliver(slot, consumer, entry);
            self.queues[slot].join_rotation(consumer);
        }
        self.serve_owners(slot, &mut looks);
        self.read_parked(slot);
    }

    /// Gives those who have a group what may go only to them.
    fn serve_owners(&mut self, slot: Slot<Queue>, looks: &mut usize) {
        let mut from = None;
        while self.queues[slot].may_deliver(self.now.ms)
            && let Some(owner) = self.queues[slot].groups().and_then(|groups| groups.next_owner(from))
        {
            let queue = &mut self.queues[slot];
            let holder = &queue.holders[owner];
            if holder.turn == Turn::Ready {
                queue.rotation.leave(holder.priority, owner);
                if self.can_receive(slot, owner) {
                    let entry = self.pick(slot, Some(owner), looks);
                    let is_served = entry.is_some();
                    if let Some(entry) = entry {
                        self.deliver(slot, owner, entry);
                    }
                    self.queues[slot].join_rotation(owner);
                    if is_served {
                        continue;
                    }
                }
            }
            from = Some(Slot::from_index(owner.index() + 1));
        }
    }

    /// Groups hear what happened to their messages otherwise, and what time it is.
    pub(super) fn catch_up(&mut self, slot: Slot<Queue>) {
        self.forget_gone(slot);
        if let Some((groups, terms)) = self.queues[slot].groups_now(self.now.ms) {
            groups.catch_up(terms);
        }
    }

    fn forget_gone(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let gone = if queue.groups().is_some() { queue.ready.take_gone() } else { return };
        if let Some((groups, terms)) = queue.groups_now(self.now.ms) {
            gone.into_iter().for_each(|(rank, group)| groups.forget(group, rank, terms));
        }
    }

    /// Drops what expired and would be next.
    fn expire_ahead(&mut self, slot: Slot<Queue>) {
        if self.queues[slot].ready.can_expire() {
            self.expire(slot, self.now.unix_ms);
            self.forget_gone(slot);
        }
    }

    /// Takes the next message that may go to this holder, or to one that has nothing yet.
    pub(super) fn pick(&mut self, slot: Slot<Queue>, to: Option<Slot<Holder>>, looks: &mut usize) -> Option<Entry> {
        if self.queues[slot].groups().is_none() {
            return self.pick_first(slot);
        }
        let is_fair = self.queues[slot].spec.settings.group_fair;
        loop {
            self.expire_ahead(slot);
            if is_fair {
                self.line_up(slot, looks);
            }
            let unix_ms = self.now.unix_ms;
            let queue = &mut self.queues[slot];
            let groups = queue.groups()?;
            let (parked, awaited) = (groups.next_for(to), groups.awaited_priority());
            let first = queue.ready.first();
            let is_far = matches!(first, Some(Head::Far(_)));
            let is_here = !is_far && first.as_ref().is_some_and(|first| !first.has_expired(unix_ms));
            let unseen = first.map(|first| first.rank());
            if is_far {
                self.read_ahead(slot, None);
            }
            // Where keys take turns, their turns come before the order of what has one priority.
            let goes_first = |parked: Rank| match unseen {
                Some(unseen) if is_fair => parked.priority() >= unseen.priority(),
                unseen => unseen.is_none_or(|unseen| parked < unseen),
            };
            let parked = parked.filter(|(_, rank)| goes_first(*rank));
            let next = parked.map(|(_, rank)| rank).or(unseen)?;
            if awaited.is_some_and(|awaited| awaited > next.priority()) {
                return None;
            }
            match parked {
                Some((group, rank)) => {
                    if let Some(entry) = self.pick_parked(slot, group, rank) {
                        return Some(entry);
                    }
                }
                // It is about to be read, dropped, or put with those of its key.
                None if is_fair || !is_here => return None,
                None if *looks == 0 => {
                    self.drop_more_later(slot);
                    return None;
                }
                None => {
                    *looks -= 1;
                    if let Some(entry) = self.look(slot, to) {
                        return Some(entry);
                    }
                }
            }
        }
    }

    /// The same where there are no groups.
    fn pick_first(&mut self, slot: Slot<Queue>) -> Option<Entry> {
        self.expire_ahead(slot);
        let queue = &mut self.queues[slot];
        match queue.ready.first()? {
            head if head.has_expired(self.now.unix_ms) => None,
            Head::Near(_) => queue.ready.pop_near(),
            Head::Far(_) => {
                self.read_ahead(slot, None);
                None
            }
        }
    }

    /// Takes the first message of a group, whose turn it is.
    fn pick_parked(&mut self, slot: Slot<Queue>, group: Slot<Group>, rank: Rank) -> Option<Entry> {
        let unix_ms = self.now.unix_ms;
        let queue = &mut self.queues[slot];
        if queue.ready.parked_has_expired(rank, unix_ms) {
            let entry = queue.ready.take_parked(rank)?;
            queue.counters.expired += 1;
            if let Some((groups, terms)) = queue.groups_now(self.now.ms) {
                groups.forget(group, rank, terms);
            }
            self.lose(slot, entry, Reason::Expired);
            return None;
        }
        if !queue.ready.is_parked_near(rank) {
            queue.groups_mut()?.await_read(group);
            return None;
        }
        queue.groups_mut()?.pick(group);
        queue.ready.take_parked(rank)
    }

    /// Looks at the next message, which is near; takes it if it may go.
    fn look(&mut self, slot: Slot<Queue>, to: Option<Slot<Holder>>) -> Option<Entry> {
        let queue = &mut self.queues[slot];
        let entry = queue.ready.pop_near()?;
        let key = key_of(queue, &entry);
        let (groups, terms) = queue.groups_now(self.now.ms)?;
        match groups.judge(key, to, terms) {
            Verdict::Go => Some(entry),
            Verdict::Park(group, before) => {
                groups.park(group, Rank::of(entry.priority, entry.seq), terms);
                self.park(slot, entry, group, before);
                None
            }
        }
    }

    /// Where keys take turns: has every message stand with those of its key, as far as they are in memory.
    fn line_up(&mut self, slot: Slot<Queue>, looks: &mut usize) {
        loop {
            let queue = &mut self.queues[slot];
            match queue.ready.first() {
                None => return,
                Some(Head::Far(_)) => return self.read_ahead(slot, None),
                Some(_) if *looks == 0 => return self.drop_more_later(slot),
                Some(_) => {}
            }
            *looks -= 1;
            let Some(entry) = queue.ready.pop_near() else { return };
            let key = key_of(queue, &entry);
            let Some((groups, terms)) = queue.groups_now(self.now.ms) else { return };
            let (group, before) = groups.line_up(key);
            groups.park(group, Rank::of(entry.priority, entry.seq), terms);
            self.park(slot, entry, group, before);
        }
    }

    /// Parks a message. It stays in memory if it is one of the first of its group, and not too many are.
    fn park(&mut self, slot: Slot<Queue>, mut entry: Entry, group: Slot<Group>, before: u32) {
        let queue = &mut self.queues[slot];
        let is_soon = before < NEAR_OF_GROUP;
        if !is_soon || queue.ready.parked_near_bytes() >= self.settings.near.queue_bytes / 2 {
            self.log.spill(queue.spec.queue.id, &mut entry);
            entry.send_away();
        }
        queue.ready.park(entry, group);
    }

    /// Has the first messages of groups read whose turn it was, and some that follow.
    fn read_parked(&mut self, slot: Slot<Queue>) {
        let near_bytes = self.settings.near.queue_bytes;
        let mut bytes_left = near_bytes / 4;
        let queue = &mut self.queues[slot];
        // Of very many groups there is room for the first of each that is wanted, and no more.
        let is_short = queue.ready.parked_near_bytes() >= near_bytes / 2;
        let most = if is_short { 1 } else { READ_OF_GROUP };
        let id = queue.spec.queue.id;
        let ready = &queue.ready;
        let terms = Terms::new(&queue.spec.settings, self.now.ms);
        let Some(groups) = queue.shaping.as_mut().and_then(|shaping| shaping.groups.as_mut()) else { return };
        if groups.is_reading {
            return;
        }
        let (mut runs, mut read): (Vec<Run>, Vec<Slot<Group>>) = (Vec::new(), Vec::new());
        while (bytes_left > 0 || runs.is_empty())
            && runs.len() < RUNS_MAX
            && let Some((group, ranks)) = groups.next_unread(most)
        {
            let first = runs.len();
            for run in ranks.into_iter().filter_map(|rank| ready.parked_far(rank)) {
                let bytes = u64::from(run.payload_bytes) + NEAR_BYTES;
                if bytes > bytes_left && runs.len() > first {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                runs.push(run);
            }
            if runs.len() == first {
                // It went, or is here, by now.
                groups.note_read(group, terms);
            } else {
                read.push(group);
            }
        }
        if runs.is_empty() {
            return;
        }
        groups.is_reading = true;
        // The log reads in its own order best.
        runs.sort_unstable_by_key(|run| run.lsn);
        let ranges: Vec<LsnRange> = runs.iter().map(|run| LsnRange { first: run.lsn, count: 1 }).collect();
        self.last_read += 1;
        self.log.read(self.last_read, &ranges);
        let bytes = runs.iter().map(Run::near_bytes).sum();
        self.reading_bytes += bytes;
        self.readings.insert(self.last_read, Reading::Parked { queue: id, runs, bytes, groups: read });
    }

    /// They were read.
    pub(super) fn hear_parked(
        &mut self,
        slot: Slot<Queue>,
        runs: &[Run],
        read: &[Slot<Group>],
        messages: Vec<(Lsn, Bytes)>,
    ) {
        self.bring_near(slot, runs, messages);
        if let Some((groups, terms)) = self.queues[slot].groups_now(self.now.ms) {
            groups.is_reading = false;
            read.iter().for_each(|group| groups.note_read(*group, terms));
        }
        self.count_near(slot);
        self.serve_getters(slot);
        self.touch(slot);
    }

    /// What there is for a `basic.get`.
    pub(super) fn pick_for_get(&mut self, peer: Slot<Peer>, slot: Slot<Queue>, getter: &Getter) -> Found {
        self.catch_up(slot);
        let queue = &self.queues[slot];
        if refuses_get(queue) || queue.is_paused || !queue.may_deliver(self.now.ms) {
            return Found::Nothing;
        }
        let channel = self.peers[peer].channels.get(&getter.channel);
        let holder = channel.and_then(|channel| self.channels[*channel].gets.get(&slot).copied());
        let mut looks = LOOKS_AT_ONCE;
        match self.pick(slot, holder, &mut looks) {
            Some(entry) => Found::Entry(entry),
            None if self.is_looking(slot, looks) => Found::Unknown,
            None => Found::Nothing,
        }
    }

    /// Whether it is still unknown what there is, because something has to be read or looked at first.
    fn is_looking(&mut self, slot: Slot<Queue>, looks: usize) -> bool {
        self.read_parked(slot);
        let unix_ms = self.now.unix_ms;
        let queue = &mut self.queues[slot];
        let is_unread = queue.groups().is_some_and(Groups::wants_read);
        is_unread
            || queue
                .ready
                .first()
                .is_some_and(|head| looks == 0 || head.has_expired(unix_ms) || matches!(head, Head::Far(_)))
    }

    /// Sets the timer of a shaped queue.
    pub(super) fn arm_turn_timer(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let id = queue.spec.queue.id;
        let at_ms = match queue.next_turn_ms() {
            // Rates let what is late catch up: to look more often would deliver no more.
            Some(at_ms) => at_ms.max(self.now.ms + TURN_MS),
            None => 0,
        };
        if let Some(shaping) = &mut queue.shaping {
            self.timers.set(&mut shaping.timer_ms, at_ms, id, Due::Turn);
        }
    }
}

fn key_of(queue: &Queue, entry: &Entry) -> Option<u64> {
    let header = queue.spec.settings.group_key.as_deref()?;
    entry.message().and_then(|message: &Message| Groups::key(header, message))
}

/// What there is for somebody who asks for one message.
#[derive(Debug)]
pub(super) enum Found {
    Entry(Entry),
    /// Nothing that may go now.
    Nothing,
    /// Something has to be read or looked at first.
    Unknown,
}

/// How many messages are looked at in a step: that takes a few milliseconds.
pub(super) const LOOKS_AT_ONCE: usize = 8 << 10;
/// So many messages of a group stay in memory while they are parked.
const NEAR_OF_GROUP: u32 = 64;
/// So many are read at once.
const READ_OF_GROUP: usize = 64;
/// How many messages one read asks for at most.
const RUNS_MAX: usize = 4096;
/// No queue is served for its rates more often.
const TURN_MS: u64 = 4;
