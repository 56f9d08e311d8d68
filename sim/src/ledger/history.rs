//! Exchanges that keep their last messages: whoever is bound to one gets those, once each, and then all that follow.

use super::copies::{Copy, Place, State};
use super::{Ledger, Target, index, number_of};
use crate::plan::CHAT;
use broker::command::{Publish, QueueId, Recent, Recipient, ShardId};
use std::collections::VecDeque;

/// What is known of one such exchange, in one life of the server.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Its last messages, each with what of the topology it was routed by.
    kept: VecDeque<(u64, u64)>,
    /// Who was bound, and by which topology first.
    bound: Vec<(QueueId, u64)>,
}

impl Ledger {
    /// These queues are bound to [`CHAT`], as everybody sees who publishes from now on.
    pub fn listen(&mut self, queues: Vec<QueueId>) {
        self.listening = queues;
    }

    /// A message is kept.
    pub(super) fn keep(&mut self, shard: ShardId, recent: &Recent) {
        let number = number_of(&recent.message);
        let history = self.histories.entry(recent.exchange).or_default();
        history.kept.push_back((number, recent.generation));
        while history.kept.len() > recent.length as usize {
            history.kept.pop_front();
        }
        let late = history.bound.iter().filter(|(_, since)| recent.generation < *since);
        for queue in late.map(|(queue, _)| *queue).collect::<Vec<_>>() {
            self.replay(shard, number, queue);
        }
    }

    /// A queue was bound.
    pub(super) fn recall(&mut self, shard: ShardId, exchange: u64, generation: u64, to: &Recipient) {
        let Recipient::Queue(to) = to else { panic!("no exchange is bound to one that keeps messages") };
        let history = self.histories.entry(exchange).or_default();
        history.bound.push((to.id, generation));
        let before = history.kept.iter().filter(|(_, routed_by)| *routed_by < generation);
        for number in before.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.replay(shard, number, to.id);
        }
    }

    /// A message that is kept goes to a queue.
    fn replay(&mut self, shard: ShardId, number: u64, root: QueueId) {
        let message = &self.messages[index(number)];
        assert!(message.copies.iter().all(|copy| copy.root != root), "m{number} is recalled for a queue that has it");
        let (persistent, can_vanish) = (message.persistent, message.expiration_ms.is_some());
        let place = Place { message: index(number), copy: message.copies.len() };
        let queue = self.queues.get_mut(&root).expect("queues that are bound are known");
        let order = (u8::MAX, queue.next_order);
        queue.next_order += 1;
        let is_logged = queue.spec.durable && persistent;
        let is_here = queue.spec.queue.shard == shard;
        if !is_here {
            self.replays.insert(place);
        }
        let copy = Copy {
            is_logged,
            // Nobody waits for it.
            is_answered: true,
            can_vanish,
            // It came later than what was published later.
            is_timed: true,
            ..Copy::new(root, order, if is_here { State::Ready } else { State::Unsure })
        };
        self.message(number).copies.push(copy);
        self.alive.insert(place);
        self.counts.copies += 1;
    }

    /// The copies of a message that is on its way between shards which go to these queues because it was kept.
    pub(super) fn replays_in(&self, publish: &Publish) -> Vec<Place> {
        let message = index(number_of(&publish.message));
        let is_meant = |place: &Place| {
            place.message == message && publish.queues.contains(&self.messages[message].copies[place.copy].root)
        };
        self.replays.iter().copied().filter(is_meant).collect()
    }

    /// A message comes from another shard.
    pub(super) fn take_replays(&mut self, publish: &Publish) {
        for place in self.replays_in(publish) {
            self.replays.remove(&place);
            let copy = self.copy(place);
            if copy.state == State::Unsure {
                copy.state = State::Ready;
            }
        }
    }

    /// The server has ended, and with it all that was kept.
    pub(super) fn forget_histories(&mut self) {
        self.histories.clear();
        self.replays.clear();
        self.listening.clear();
    }

    /// Who has to get what is published now.
    pub(super) fn owed(&self, target: &Target) -> Vec<QueueId> {
        match target {
            Target::Via { exchange, .. } if *exchange == CHAT => self.listening.clone(),
            _ => Vec::new(),
        }
    }
}
