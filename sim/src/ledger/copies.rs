//! One message in one queue, and wherever it goes from there when it dies.

use super::{Ledger, index};
use crate::trace;
use broker::command::{ChannelKey, Delay, Overflow, Publish, QueueId, Retry, Seq, Settlement, ShardId};

/// Names a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) message: usize,
    pub(super) copy: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// The queue that it was published to.
    pub(super) root: QueueId,
    pub(super) state: State,
    /// Its key in the queue's `waiting`.
    pub(super) order: (u8, u64),
    /// Survives a crash once it is stored.
    pub(super) is_logged: bool,
    /// The same for what becomes of it when it dies.
    pub(super) is_logged_in_death: bool,
    /// The shard has said that it is stored.
    pub(super) is_stored: bool,
    /// Its publisher's mark was answered, for good or ill.
    pub(super) is_answered: bool,
    pub(super) was_refused: bool,
    /// It can go without anybody's doing, and without a trace.
    pub(super) can_vanish: bool,
    /// It can be elsewhere than in its root: it died, or may have.
    pub(super) may_have_died: bool,
    /// How often it went to another shard since the server started. Until that one has stored it, it is in both logs,
    /// and may have gone on from there: so each leaves one more, perhaps, when the server ends.
    pub(super) transfers: u64,
    /// How many more than one there may be, for that reason.
    pub(super) twins: u64,
    /// Was never handed out, and later ones were: it must have left its root.
    pub(super) is_passed: bool,
    /// What the flag has to be at the next delivery from its root.
    pub(super) is_redelivered: bool,
    /// Failed deliveries in its root, …
    pub(super) attempts: u32,
    /// … or fewer, after a crash.
    pub(super) attempts_are_exact: bool,
    /// Its root does not deliver it before this time (unix ms), …
    pub(super) due_ms: u64,
    /// … nor, whatever a crash took, before this one, …
    pub(super) least_due_ms: u64,
    /// … nor after this one; 0 = at any.
    pub(super) expires_at_ms: u64,
    /// It had to wait once: its order is not that of its publishing.
    pub(super) is_timed: bool,
    /// It may be in the other one of the queues that an operator moves messages between.
    pub(super) has_moved: bool,
    /// It may have gone back to where it died.
    pub(super) was_redriven: bool,
    /// It may be a place that was made later: what its flags are is unknown.
    pub(super) is_loose: bool,
    /// It was handed out once.
    pub(super) was_seen: bool,
}

impl Copy {
    /// One that has just come there, of which nothing else is known.
    pub(super) fn new(root: QueueId, order: (u8, u64), state: State) -> Self {
        Self {
            root,
            state,
            order,
            is_logged: false,
            is_logged_in_death: false,
            is_stored: false,
            is_answered: false,
            was_refused: false,
            can_vanish: false,
            may_have_died: false,
            transfers: 0,
            twins: 0,
            is_passed: false,
            is_redelivered: false,
            attempts: 0,
            attempts_are_exact: true,
            due_ms: 0,
            least_due_ms: 0,
            expires_at_ms: 0,
            is_timed: false,
            has_moved: false,
            was_redriven: false,
            is_loose: false,
            was_seen: false,
        }
    }

    /// There may be more than one of it.
    pub(super) fn may_be_twice(&self) -> bool {
        self.twins > 0
    }
}

/// Where a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has to be in a queue.
    Ready,
    /// It is delivered and not settled.
    Held {
        /// To this channel.
        channel: ChannelKey,
    },
    /// It may be in a queue, or not.
    Unsure,
    /// It is gone, but a crash may undo that.
    Gone,
    /// It must never be seen again.
    Final,
}

impl Ledger {
    /// A publish reaches its shard.
    pub(super) fn arrive(&mut self, shard: ShardId, number: u64, publish: &Publish) {
        let message = &self.messages[index(number)];
        assert!(!message.is_returned, "m{number} was returned, and comes to a queue");
        assert!(!message.is_rolled_back, "m{number} was rolled back, and comes to a queue");
        assert_eq!(message.persistent, publish.persistent, "the delivery mode of m{number}");
        let (persistent, expiration_ms, channel) = (message.persistent, message.expiration_ms, message.channel);
        assert_eq!(message.delay_ms.map(Delay::For), publish.delay, "the delay of m{number}");
        let (unix_ms, is_timed) = (self.unix_ms, message.delay_ms.is_some());
        let since_ms = unix_ms + message.delay_ms.unwrap_or(0);
        let group = message.group;
        for &root in publish.queues.iter() {
            let Some(queue) = self.queues.get_mut(&root).filter(|queue| queue.is_there()) else { continue };
            assert_eq!(queue.spec.queue.shard, shard, "a publish went to the wrong shard");
            let settings = &queue.spec.settings;
            if settings.is_stream() {
                self.append(root, index(number));
                continue;
            }
            let level = match (settings.priority_max, &settings.group_key) {
                // Each group is in order, and so is what belongs to none.
                (_, Some(_)) => group.map_or(0, |group| group + 1),
                (Some(max), _) => publish.priority.unwrap_or(0).min(max),
                (None, _) if settings.is_quorum() => publish.priority.unwrap_or(4).min(31),
                (None, _) => 0,
            };
            let order = (u8::MAX - level, queue.next_order);
            queue.next_order += 1;
            let is_logged = queue.spec.durable && (persistent || settings.keeps_all());
            let ttl_ms = settings.message_ttl_ms.into_iter().chain(expiration_ms).min();
            let drops = queue.drops() || expiration_ms.is_some();
            let is_doomed = !queue.deletions.is_empty();
            // Who asks for no confirm is not told that it is refused.
            let may_be_refused = settings.overflow == Overflow::RejectPublish && drops;
            let place = Place { message: index(number), copy: self.messages[index(number)].copies.len() };
            let Some(is_doubtful) = self.take_key(place, root) else { continue };
            let is_doomed = is_doomed || is_doubtful;
            if let Some(last) = self.last_of(root, channel).filter(|last| *last >= place.message) {
                panic!("m{number} comes after m{last}, which its channel published later");
            }
            if !is_timed {
                self.queues.get_mut(&root).expect("just seen").waiting.insert(order, place);
            }
            let due_ms = if is_timed { since_ms } else { 0 };
            let copy = Copy {
                is_logged,
                is_logged_in_death: is_logged && self.keeps_letters_of(root, persistent),
                can_vanish: is_doomed || may_be_refused || drops && self.is_lost_by_death_in(root),
                may_have_died: drops,
                due_ms,
                least_due_ms: due_ms,
                expires_at_ms: ttl_ms.map_or(0, |ttl_ms| since_ms + ttl_ms),
                is_timed,
                ..Copy::new(root, order, if is_doomed { State::Unsure } else { State::Ready })
            };
            assert!(
                self.messages[place.message].copies.iter().all(|copy| copy.root != root),
                "m{number} comes twice to one queue"
            );
            self.messages[place.message].copies.push(copy);
            self.alive.insert(place);
            self.counts.copies += 1;
        }
        self.check_route(number);
    }

    /// The last message that this channel published to this queue.
    fn last_of(&mut self, root: QueueId, channel: u64) -> Option<usize> {
        let waiting = &self.queues.get(&root)?.waiting;
        let last = waiting.values().rev().take(LOOK_BACK).map(|place| place.message);
        last.filter(|message| self.messages[*message].channel == channel).max()
    }

    /// A delivery is settled.
    pub(super) fn settle(&mut self, key: (QueueId, Seq), how: Settlement) {
        let Some(place) = self.held.remove(&key) else { return };
        let State::Held { channel } = self.copy(place).state else { return };
        if let Some(held) = self.by_channel.get_mut(&channel) {
            held.remove(&key);
            if held.is_empty() {
                self.by_channel.remove(&channel);
            }
        }
        let queue = key.0;
        trace::note(format_args!("  m{} of {:x} is settled: {how:?}", place.message, queue.0));
        match how {
            Settlement::Ack => self.end(place),
            Settlement::Discard => {
                // Should it come back after all: it was delivered.
                self.copy(place).is_redelivered = true;
                self.die(place, queue);
            }
            Settlement::Unsent => self.copy(place).state = State::Ready,
            Settlement::Requeue => self.requeue(place, queue),
        }
    }

    pub(super) fn requeue(&mut self, place: Place, queue: QueueId) {
        let limit = self.queues.get(&queue).and_then(super::queues::Queue::delivery_limit);
        let may_be_lost = self.is_lost_by_death_in(queue);
        let retry = self.queues.get(&queue).and_then(|queue| queue.spec.settings.delayed_retry);
        let unix_ms = self.unix_ms;
        let copy = self.copy(place);
        copy.state = State::Ready;
        if copy.root != queue {
            return;
        }
        copy.is_redelivered = true;
        copy.attempts += 1;
        if let Some(retry) = retry {
            let attempts = if copy.attempts_are_exact { copy.attempts } else { 1 };
            let longest_ms = Retry { jitter_percent: 0, ..retry }.wait_ms(attempts, queue, Seq(0));
            copy.due_ms = unix_ms + longest_ms - longest_ms * u64::from(retry.jitter_percent) / 100;
            copy.least_due_ms = copy.least_due_ms.min(copy.due_ms);
            copy.is_timed = true;
        }
        if limit.is_none_or(|limit| copy.attempts <= limit) {
            return;
        }
        if copy.attempts_are_exact && !copy.may_have_died {
            self.die(place, queue);
        } else {
            // How often it failed is not known for sure.
            copy.may_have_died = true;
            copy.can_vanish |= may_be_lost;
        }
    }

    /// It died in this queue.
    pub(super) fn die(&mut self, place: Place, queue: QueueId) {
        let Some(target) = self.target_of(queue) else { return self.end(place) };
        let drops = self.queues[&target].drops_letters();
        let may_be_lost = drops && self.is_lost_by_death_in(target);
        let copy = self.copy(place);
        copy.state = State::Ready;
        copy.may_have_died = true;
        copy.can_vanish |= may_be_lost;
        let (root, order) = (copy.root, copy.order);
        if let Some(queue) = self.queues.get_mut(&root) {
            queue.waiting.remove(&order);
        }
    }

    /// It is gone, until a crash.
    pub(super) fn end(&mut self, place: Place) {
        let copy = self.copy(place);
        copy.state = match copy.is_logged {
            // One of the two may still be on its way.
            true if copy.may_be_twice() => State::Unsure,
            true => State::Gone,
            false => State::Final,
        };
        let (root, order, is_final) = (copy.root, copy.order, !copy.is_logged);
        if let Some(queue) = self.queues.get_mut(&root) {
            queue.waiting.remove(&order);
        }
        if is_final {
            self.alive.remove(&place);
        }
    }

    /// Whether the copy may be among the ready messages of that queue.
    pub(super) fn may_be_ready(&self, place: Place, queue: QueueId) -> bool {
        let copy = &self.messages[place.message].copies[place.copy];
        // What is on its way to its first place is in none yet.
        let is_waiting = matches!(copy.state, State::Ready | State::Unsure) && !self.replays.contains(&place);
        let is_elsewhere =
            || copy.may_have_died && self.may_be_letter_in(copy, queue) || self.may_have_moved(copy, queue);
        is_waiting && (copy.root == queue || is_elsewhere())
    }
}

/// How far back it is worth to look for a message of the same channel.
const LOOK_BACK: usize = 8;
