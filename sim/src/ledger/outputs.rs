//! What comes out of a shard's step, held against what can.
//!
//! Within a step, what goes to one connection is in order; what goes to different ones is not. So what was handed to a
//! channel and went back in the same step is looked at before everything else.

use super::copies::{Place, State};
use super::queues::Existence;
use super::{Ledger, Step, first_death_of, index, number_of};
use crate::trace;
use broker::command::{
    CallId, CatalogTicket, ChannelKey, ConnectionEvent, ConnectionId, Delivery, Outbox, Outcome, Overflow, Publish,
    QueueId, Seq, Settlement, ShardId, ShardInput, ShardReport,
};

impl Ledger {
    /// A shard has done a step with what was put in before.
    pub fn output(&mut self, shard: ShardId, out: &Outbox) {
        for (connection, events) in &out.connections {
            for (at, delivery) in deliveries(events) {
                if self.goes_back(*connection, delivery, &events[at..]) {
                    self.hand_out(*connection, delivery, true);
                    self.settle((delivery.queue.id, delivery.seq), Settlement::Requeue);
                }
            }
        }
        for (connection, events) in &out.connections {
            for (at, event) in events.iter().enumerate() {
                match event {
                    ConnectionEvent::Stored { shard: from, mark, refused } => {
                        assert_eq!(*from, shard, "a shard speaks for another");
                        self.stored(*connection, shard, *mark, refused);
                    }
                    ConnectionEvent::Done { call, outcome: Outcome::QueueDeclared { .. } } => {
                        self.created((*connection, *call));
                    }
                    event => {
                        if let Some(delivery) = delivery_of(event)
                            && !self.goes_back(*connection, delivery, &events[at..])
                        {
                            self.hand_out(*connection, delivery, false);
                        }
                    }
                }
            }
        }
        for (_, input) in &out.shards {
            if let ShardInput::Transfer { from, transfer, publish, .. } = input {
                self.send((*from, *transfer), publish);
            }
        }
        for report in &out.catalog {
            self.report(report);
        }
        if self.step.closes {
            self.release_all(shard);
        }
        self.end_step();
    }

    /// A message goes to another shard.
    fn send(&mut self, transfer: (ShardId, u64), publish: &Publish) {
        let letter = self.copy_of_letter(&publish.message);
        if let Some(place) = letter {
            self.copy(place).may_have_died = true;
        }
        let place = letter
            .or_else(|| self.moving(number_of(&publish.message)))
            .or_else(|| self.replays_in(publish).first().copied());
        if let Some(place) = place {
            self.copy(place).transfers += 1;
            self.in_flight.insert(transfer, place);
        }
    }

    /// Whether a delivery was taken back within the step, as a later event says.
    fn goes_back(&self, connection: ConnectionId, delivery: &Delivery, later: &[ConnectionEvent]) -> bool {
        later.iter().any(|event| match event {
            ConnectionEvent::Done { call, .. } => {
                let released = self.step.releases.get(&(connection, *call));
                released.is_some_and(|channel| channel.is_none_or(|channel| channel == delivery.channel))
            }
            _ => false,
        })
    }

    fn hand_out(&mut self, connection: ConnectionId, delivery: &Delivery, is_transient: bool) {
        if delivery.place.is_some() {
            return self.read(connection, delivery);
        }
        let number = number_of(&delivery.message);
        let location = delivery.queue.id;
        let first_death = first_death_of(&delivery.message);
        let place = match first_death {
            Some(_) => self.copy_of_letter(&delivery.message),
            None => {
                let copies = &self.messages[index(number)].copies;
                let copy = copies.iter().position(|copy| copy.root == location);
                let place = copy.map(|copy| Place { message: index(number), copy });
                place.or_else(|| self.moved_to(number, location))
            }
        };
        let Some(place) = place else {
            panic!("m{number} is delivered from queue {:x}, where it never was", location.0);
        };
        let what = format!("m{number} of queue {:x}, delivered from {:x}", self.copy(place).root.0, location.0);
        trace::note(format_args!("  {what} to {connection:?} ch{} seq {}", delivery.channel, delivery.seq.0));
        self.counts.deliveries += 1;
        let purges = self.step.purged.len();
        self.step.purged.retain(|(purged, _)| *purged != place);
        if is_transient && self.step.purged.len() < purges {
            self.step.perhaps_purged.insert(place);
        }
        let root = self.copy(place).root;
        if first_death.is_some() {
            let copy = &self.messages[place.message].copies[place.copy];
            assert!(self.may_be_letter_in(copy, location), "{what}: no dead letter goes there");
        }
        let copy = self.copy(place);
        copy.was_seen = true;
        match copy.state {
            State::Ready | State::Unsure => {}
            State::Held { .. } | State::Gone | State::Final if copy.may_be_twice() => {
                // One of the two is followed; the failures of the other are not counted.
                copy.attempts_are_exact = false;
                return;
            }
            State::Held { channel } => panic!("{what}: {channel:?} holds it"),
            State::Gone | State::Final => panic!("{what}: it came to its end before ({copy:?})"),
        }
        if first_death.is_some() {
            copy.may_have_died = true;
            let order = copy.order;
            self.queues.get_mut(&root).expect("roots are known").waiting.remove(&order);
        } else {
            self.hand_out_alive(Some(connection).filter(|_| !is_transient), delivery, place, &what);
        }
        let channel = ChannelKey { connection, channel: delivery.channel };
        if delivery.no_ack {
            return self.end(place);
        }
        self.copy(place).state = State::Held { channel };
        let key = (location, delivery.seq);
        let former = self.held.insert(key, place);
        assert!(former.is_none(), "{what}: its place is that of another message");
        self.by_channel.entry(channel).or_default().insert(key);
    }

    /// It is where it was published to.
    fn hand_out_alive(&mut self, connection: Option<ConnectionId>, delivery: &Delivery, place: Place, what: &str) {
        let copy = &self.messages[place.message].copies[place.copy];
        let unix_ms = self.unix_ms;
        assert!(!copy.is_passed, "{what}: later ones were delivered before it");
        assert!(unix_ms >= copy.due_ms, "{what} at {unix_ms}: it was not due yet ({copy:?})");
        let has_expired = copy.expires_at_ms != 0 && copy.expires_at_ms < unix_ms;
        assert!(!has_expired, "{what} at {unix_ms}: it had expired ({copy:?})");
        assert!(copy.is_loose || delivery.redelivered == copy.is_redelivered, "{what}: redelivered");
        self.check_shares(delivery, place, what);
        let (root, order) = (copy.root, copy.order);
        let queue = self.queues.get_mut(&root).expect("roots are known");
        let shown = if queue.spec.settings.shows_attempts() { copy.attempts } else { 0 };
        if copy.attempts_are_exact {
            assert_eq!(delivery.attempts, shown, "{what}: attempts");
        }
        if queue.waiting.remove(&order).is_some() {
            let passed = self.step.passed.entry((root, order.0)).or_default();
            *passed = (*passed).max(order.1);
            let Some(connection) = connection else { return };
            let received = self.step.received.insert((connection, root, order.0), order.1);
            assert!(received.is_none_or(|before| before < order.1), "{what}: a later one came first");
        }
    }

    /// A group is in flight one by one, and a queue's limit holds.
    fn check_shares(&self, delivery: &Delivery, place: Place, what: &str) {
        let queue = delivery.queue.id;
        let settings = &self.queues[&queue].spec.settings;
        // What needs no acknowledgement may have gone before what another connection got in this step.
        if delivery.no_ack || settings.group_key.is_none() && settings.in_flight_max.is_none() {
            return;
        }
        let held = || self.held.range((queue, Seq(0))..=(queue, Seq(u64::MAX))).map(|(_, other)| *other);
        if let Some(max) = settings.in_flight_max {
            let count = held().count();
            assert!(count < max as usize, "{what}: {count} are in flight");
        }
        let group = self.messages[place.message].group;
        if settings.group_key.is_some() && group.is_some() {
            let other = held().find(|other| self.messages[other.message].group == group);
            assert!(other.is_none(), "{what}: {other:?} of its group is in flight");
        }
    }

    fn stored(&mut self, connection: ConnectionId, shard: ShardId, mark: u64, refused: &[u32]) {
        let Some(covered) = self.marks.remove(&(connection, shard, mark)) else {
            panic!("mark {mark} of {connection:?} is answered twice, or was never sent");
        };
        assert!(refused.is_sorted_by(|one, other| one < other), "refused publishes are listed in order");
        assert!(refused.last().is_none_or(|last| (*last as usize) < covered.len()), "refused what was not published");
        for (position, message) in (0..).zip(covered) {
            self.publish_answered(shard, message, refused.binary_search(&position).is_ok());
        }
    }

    fn publish_answered(&mut self, shard: ShardId, message: usize, is_refused: bool) {
        self.stored_in_stream(shard, message);
        let mut refusing = Vec::new();
        for copy in 0..self.messages[message].copies.len() {
            let place = Place { message, copy };
            let root = self.copy(place).root;
            let Some(queue) = self.queues.get(&root).filter(|queue| queue.spec.queue.shard == shard) else { continue };
            if queue.spec.settings.overflow != Overflow::DropHead {
                refusing.push(place);
            }
            let copy = self.copy(place);
            copy.is_answered = true;
            copy.is_stored = true;
        }
        if !is_refused {
            return;
        }
        assert!(!refusing.is_empty(), "m{message} is refused where no queue does that");
        let is_certain = refusing.len() == 1;
        for place in refusing {
            let copy = self.copy(place);
            copy.was_refused = true;
            copy.is_stored = false;
            copy.can_vanish = true;
            let root = copy.root;
            if !matches!(copy.state, State::Ready | State::Unsure) {
                // The letter was there before the answer.
                continue;
            }
            if !is_certain {
                copy.state = State::Unsure;
                copy.may_have_died = true;
            } else if self.queues[&root].spec.settings.overflow == Overflow::RejectPublishDlx {
                self.die(place, root);
            } else {
                self.end(place);
                self.copy(place).state = State::Final;
                self.alive.remove(&place);
            }
        }
    }

    fn report(&mut self, report: &ShardReport) {
        match report {
            ShardReport::Durable { .. } => {}
            ShardReport::Deleted { ticket, outcome } => self.deleted(*ticket, outcome),
            ShardReport::QueueGone { queue, .. } => self.queue_gone(*queue, Existence::Deleted),
        }
    }

    /// The queue that was declared so, if one was, is durable.
    fn created(&mut self, by: (ConnectionId, CallId)) {
        if let Some(queue) = self.queues.values_mut().find(|queue| queue.creation == Some(by)) {
            queue.creation = None;
            if queue.is_there() {
                queue.existence = Existence::Certain;
            }
        }
    }

    fn deleted(&mut self, ticket: CatalogTicket, outcome: &Outcome) {
        let asked = self.queues.values_mut().find(|queue| queue.deletions.contains(&ticket));
        let Some(queue) = asked else { return };
        queue.deletions.retain(|asked| *asked != ticket);
        let id = queue.spec.queue.id;
        if matches!(outcome, Outcome::QueueDeleted { .. }) {
            self.queue_gone(id, Existence::Gone);
        }
    }

    /// All that is in it goes with it.
    fn queue_gone(&mut self, id: QueueId, existence: Existence) {
        trace::note(format_args!("  queue {:x} is gone", id.0));
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.existence = if queue.spec.durable { existence } else { Existence::Gone };
        if existence == Existence::Gone {
            self.streams.remove(&id);
        }
        let alive: Vec<Place> = self.alive.iter().copied().collect();
        for place in alive {
            let is_back = self.may_be_back_in(&self.messages[place.message].copies[place.copy], id);
            let copy = self.copy(place);
            match copy.state {
                State::Ready | State::Unsure if is_back => copy.state = State::Unsure,
                State::Ready | State::Unsure if copy.root == id && (copy.may_have_died || copy.has_moved) => {
                    copy.state = State::Unsure
                }
                State::Ready | State::Unsure if copy.root == id => self.end(place),
                _ => {}
            }
        }
        let held: Vec<_> = self.held.range((id, Seq(0))..=(id, Seq(u64::MAX))).map(|(key, _)| *key).collect();
        held.into_iter().for_each(|key| self.settle(key, Settlement::Ack));
    }

    fn end_step(&mut self) {
        let Step { purged, perhaps_purged, passed, .. } = std::mem::take(&mut self.step);
        for place in perhaps_purged {
            let copy = self.copy(place);
            if copy.state == State::Ready {
                copy.state = State::Unsure;
            }
        }
        for (place, queue) in purged {
            let copy = self.copy(place);
            if !matches!(copy.state, State::Ready | State::Unsure) {
                continue;
            }
            if copy.root == queue && !copy.may_have_died && !copy.has_moved {
                self.end(place);
            } else {
                copy.state = State::Unsure;
            }
        }
        for ((root, level), order) in passed {
            let waiting = &self.queues[&root].waiting;
            let behind: Vec<Place> = waiting.range((level, 0)..(level, order)).map(|(_, place)| *place).collect();
            behind.into_iter().for_each(|place| self.pass(place));
        }
    }

    /// Later messages were delivered, and this one was not: it cannot be there any more.
    fn pass(&mut self, place: Place) {
        let copy = self.copy(place);
        let (root, order) = (copy.root, copy.order);
        match copy.state {
            State::Unsure if !copy.may_have_died => self.end(place),
            _ if copy.may_have_died || copy.can_vanish => copy.is_passed = true,
            _ => panic!("m{} of queue {:x} was overtaken, or lost: {copy:?}", place.message, root.0),
        }
        self.queues.get_mut(&root).expect("roots are known").waiting.remove(&order);
    }
}

fn deliveries(events: &[ConnectionEvent]) -> impl Iterator<Item = (usize, &Delivery)> {
    events.iter().enumerate().filter_map(|(at, event)| Some((at, delivery_of(event)?)))
}

fn delivery_of(event: &ConnectionEvent) -> Option<&Delivery> {
    match event {
        ConnectionEvent::Deliver(delivery) | ConnectionEvent::Done { outcome: Outcome::Got { delivery, .. }, .. } => {
            Some(delivery)
        }
        _ => None,
    }
}
