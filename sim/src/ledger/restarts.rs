//! What a crash may take and what it may not, and how the sums of a running server have to add up.

use super::copies::{Place, State};
use super::queues::Existence;
use super::{Ledger, Step};
use crate::plan::{MOVABLE, SHELF};
use crate::trace;
use broker::command::{QueueId, ShardId};
use broker::inspect::{QueueCounters, QueueView};
use std::collections::BTreeMap;

/// How many messages a queue can show.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    /// Surely ready, or not due yet.
    ready: u64,
    /// Of these, how many surely are not due yet.
    delayed: u64,
    /// Maybe ready.
    ready_maybe: u64,
    /// Body bytes of the surely ready.
    ready_bytes: u64,
    /// Surely delivered and not settled.
    held: u64,
    /// Shown with those, maybe: dead letters on their way.
    held_maybe: u64,
}

impl Ledger {
    /// The server is no more, without warning. What was on disk and what was not is unknown, but for what was promised.
    pub fn crash(&mut self) {
        self.counts.crashes += 1;
        self.messages.iter_mut().for_each(|message| message.ended.clear());
        self.leave_streams(false);
        self.doubt_keys(false);
        self.forget_histories();
        self.forget_step();
        for place in self.alive.clone() {
            let copy = self.copy(place);
            if !copy.is_logged {
                copy.state = State::Final;
                self.alive.remove(&place);
                continue;
            }
            // What was acknowledged or purged may be so for good.
            copy.was_seen |= copy.state == State::Gone;
            let is_kept = copy.is_stored && (copy.is_logged_in_death || !copy.may_have_died);
            copy.state = match copy.state {
                State::Ready | State::Held { .. } if is_kept => State::Ready,
                State::Final => State::Final,
                _ => State::Unsure,
            };
            copy.is_passed = false;
            copy.attempts_are_exact &= copy.attempts == 0;
            // Not even of those that were answered is it known that the log they came from says so.
            copy.twins += std::mem::take(&mut copy.transfers);
            // That it came back may not have reached the disk.
            copy.due_ms = copy.least_due_ms;
        }
        for queue in self.queues.values_mut() {
            if !queue.spec.durable {
                queue.existence = Existence::Gone;
            }
        }
        self.line_up();
    }

    /// The server was stopped, and everything is on disk.
    pub fn stopped(&mut self) {
        self.counts.stops += 1;
        assert!(self.held.is_empty(), "a stopping server takes all deliveries back");
        self.leave_streams(true);
        self.doubt_keys(true);
        self.forget_histories();
        let in_flight = std::mem::take(&mut self.in_flight);
        self.forget_step();
        // These may be in both places, or, if they had no place at first, in none.
        for place in in_flight.into_values() {
            let copy = self.copy(place);
            if copy.is_logged {
                copy.state = State::Unsure;
                copy.twins += 1;
                copy.is_passed = false;
                self.alive.insert(place);
            }
        }
        for place in self.alive.clone() {
            let copy = self.copy(place);
            copy.transfers = 0;
            if !copy.is_logged || copy.state == State::Gone {
                copy.state = State::Final;
                self.alive.remove(&place);
                continue;
            }
            copy.is_stored = true;
            if copy.may_have_died && !copy.is_logged_in_death {
                copy.state = State::Unsure;
            }
        }
        for queue in self.queues.values_mut() {
            queue.existence = match queue.existence {
                Existence::Created | Existence::Certain if queue.spec.durable => Existence::Certain,
                _ => Existence::Gone,
            };
        }
        self.line_up();
    }

    fn forget_step(&mut self) {
        self.step = Step::default();
        self.since_mark.clear();
        self.marks.clear();
        self.in_flight.clear();
        self.bound.clear();
        self.held.clear();
        self.by_channel.clear();
    }

    /// After a restart everything is in its first order again.
    fn line_up(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.waiting.clear());
        for place in &self.alive {
            let copy = &self.messages[place.message].copies[place.copy];
            if matches!(copy.state, State::Ready | State::Unsure) && !copy.is_passed && !copy.is_timed {
                self.queues.get_mut(&copy.root).expect("roots are known").waiting.insert(copy.order, *place);
            }
        }
    }

    /// A shard has read its log, which says that it was closed, or does not.
    pub fn opened(&mut self, shard: ShardId, is_clean: bool) {
        if is_clean {
            return;
        }
        for place in self.alive.clone() {
            let copy = self.copy(place);
            let root = copy.root;
            if self.queues[&root].spec.queue.shard == shard {
                self.copy(place).is_redelivered = true;
            }
        }
    }

    /// The server is back with these queues.
    pub fn recovered(&mut self, views: &[QueueView]) {
        let found: BTreeMap<QueueId, &QueueView> = views.iter().map(|view| (view.spec.queue.id, view)).collect();
        for id in found.keys() {
            assert!(self.queues.contains_key(id), "queue {:x} comes from nowhere", id.0);
        }
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            let queue = self.queues.get_mut(&id).expect("its own key");
            let (name, was_asked_to_go) = (queue.spec.name.clone(), !std::mem::take(&mut queue.deletions).is_empty());
            queue.creation = None;
            queue.base = None;
            if found.contains_key(&id) {
                assert_ne!(queue.existence, Existence::Gone, "queue {name} ({:x}) was deleted, and is back", id.0);
                queue.existence = Existence::Certain;
                continue;
            }
            let was_certain = queue.existence == Existence::Certain && !was_asked_to_go;
            assert!(!was_certain, "queue {name} ({:x}) is lost", id.0);
            let may_be_gone = was_asked_to_go || matches!(queue.existence, Existence::Deleted | Existence::Gone);
            queue.existence = Existence::Gone;
            self.forget_queue(id, may_be_gone);
        }
        views.iter().for_each(|view| self.recover_stream(view));
        self.inspect(views);
    }

    fn forget_queue(&mut self, id: QueueId, may_be_gone: bool) {
        for place in self.alive.clone() {
            let copy = self.copy(place);
            if copy.root != id {
                if self.may_be_back_in(&self.messages[place.message].copies[place.copy], id) {
                    self.copy(place).state = State::Unsure;
                }
                continue;
            }
            if copy.may_have_died {
                copy.state = State::Unsure;
                continue;
            }
            let is_lost = copy.state == State::Ready && !may_be_gone;
            assert!(!is_lost, "m{} is lost with its queue {:x}", place.message, id.0);
            copy.state = State::Final;
            self.alive.remove(&place);
        }
        self.line_up();
    }

    /// A look at all queues, right after a step in which nothing else was done.
    pub fn inspect(&mut self, views: &[QueueView]) {
        let expected = self.expected();
        for view in views {
            if view.spec.settings.is_stream() {
                self.inspect_stream(view);
                continue;
            }
            let id = view.spec.queue.id;
            let name = &view.spec.name;
            let Expected { ready, delayed, ready_maybe, ready_bytes, held, held_maybe } =
                expected.get(&id).copied().unwrap_or_default();
            trace::note(format_args!(
                "  {name} ({:x}) shows {} ready, {} unacked; expected {ready}+{ready_maybe}, {held}+{held_maybe}",
                id.0, view.ready, view.unacked
            ));
            let shown = format!("queue {name} ({:x}) shows {} ready and {} unacked", id.0, view.ready, view.unacked);
            assert!(
                view.delayed >= delayed,
                "{shown} and {} delayed, and at least {delayed} are not due",
                view.delayed
            );
            let waiting = view.ready + view.delayed;
            assert!(waiting >= ready, "{shown}, and at least {ready} must be ready: {}", self.list(id));
            assert!(waiting <= ready + ready_maybe, "{shown}, and at most {} can be ready", ready + ready_maybe);
            assert!(view.unacked >= held, "{shown}, and at least {held} are unacked");
            assert!(view.unacked <= held + held_maybe, "{shown}, and at most {} can be unacked", held + held_maybe);
            if ready_maybe == 0 {
                assert_eq!(view.ready_bytes + view.delayed_bytes, ready_bytes, "{shown}: body bytes");
            }
            self.check_sums(view);
        }
    }

    fn check_sums(&mut self, view: &QueueView) {
        let name = &view.spec.name;
        if [MOVABLE, SHELF].contains(&&**name) || self.queues[&view.spec.queue.id].is_redriven {
            // What is moved is counted where it comes, and not where it leaves.
            return;
        }
        let signed = |count: u64| i64::try_from(count).expect("counts are small");
        let QueueCounters { publish, deliver_no_ack, get_no_ack, ack, .. } = view.counters;
        let QueueCounters { expired, rejected, maxlen, delivery_limit, purged, .. } = view.counters;
        let gone = deliver_no_ack + get_no_ack + ack + expired + rejected + maxlen + delivery_limit + purged;
        // Whose letter is owed is gone, as far as counters say.
        let there = signed(view.messages() - view.owed);
        let queue = self.queues.get_mut(&view.spec.queue.id).expect("views show known queues");
        let Some(base) = queue.base else {
            queue.base = Some(there + signed(gone) - signed(publish));
            return;
        };
        let (came, accounted) = (base + signed(publish), there + signed(gone));
        // A dead letter on its way counts as gone and as unacked.
        let moving = if view.spec.settings.dead_letter_exchange.is_some() { signed(view.unacked) } else { 0 };
        let adds_up = came <= accounted && accounted <= came + moving;
        assert!(adds_up, "queue {name}: {came} came, and {accounted} are accounted for: {:?}", view.counters);
    }

    fn expected(&self) -> BTreeMap<QueueId, Expected> {
        let mut expected: BTreeMap<QueueId, Expected> = BTreeMap::new();
        for place in &self.alive {
            let message = &self.messages[place.message];
            let copy = &message.copies[place.copy];
            let is_certain = !copy.may_have_died && !copy.can_vanish && !copy.has_moved;
            match copy.state {
                State::Ready if is_certain => {
                    let root = expected.entry(copy.root).or_default();
                    root.ready += 1;
                    root.delayed += u64::from(copy.due_ms > self.unix_ms);
                    root.ready_bytes += message.body().len() as u64;
                    continue;
                }
                State::Ready | State::Unsure => expected.entry(copy.root).or_default().ready_maybe += 1,
                State::Held { .. } | State::Gone | State::Final => {}
            }
            if copy.may_have_died || copy.has_moved {
                let leads = |id: QueueId| {
                    copy.may_have_died && self.may_be_letter_in(copy, id) || self.may_have_moved(copy, id)
                };
                for id in self.queues.keys().filter(|id| **id == copy.root || leads(**id)) {
                    let elsewhere = expected.entry(*id).or_default();
                    let times = 1 + copy.twins;
                    elsewhere.ready_maybe += times;
                    elsewhere.held_maybe += times;
                }
            }
        }
        for (queue, _) in self.held.keys() {
            expected.entry(*queue).or_default().held += 1;
        }
        expected
    }

    fn list(&self, id: QueueId) -> String {
        let there = self.alive.iter().filter(|place| self.may_be_ready(**place, id));
        let describe = |place: &Place| {
            let copy = &self.messages[place.message].copies[place.copy];
            format!("m{} {:?}", place.message, copy.state)
        };
        there.map(describe).collect::<Vec<_>>().join(", ")
    }

    /// Every promise has to be kept by now, and every message settled.
    pub fn check_at_rest(&self, views: &[QueueView]) {
        if let Some(((connection, shard, mark), _)) = self.marks.first_key_value() {
            panic!("mark {mark} of {connection:?} was never answered by {shard:?}");
        }
        for place in &self.alive {
            let copy = &self.messages[place.message].copies[place.copy];
            let is_owed = copy.state == State::Ready && !copy.can_vanish;
            let is_held = matches!(copy.state, State::Held { .. });
            assert!(!is_owed && !is_held, "m{} of queue {:x} was lost: {copy:?}", place.message, copy.root.0);
        }
        let lost = self.replays.first();
        assert!(lost.is_none(), "what was to be recalled did not come: {lost:?}");
        self.check_streams_at_rest();
        for view in views {
            let is_empty = view.messages() == 0 || view.spec.settings.is_stream();
            assert!(
                is_empty,
                "queue {} keeps {} ready, {} unacked, {} delayed",
                view.spec.name, view.ready, view.unacked, view.delayed
            );
        }
    }
}
