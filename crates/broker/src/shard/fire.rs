//! Occurrences of schedules: the message, and that it was fired, in one chain of records.

use super::Shard;
use super::log::Waiter;
use super::publish::Terms;
use crate::fact::firing_key;
use crate::operation::Answer;
use crate::schedule::{FULL, Fire, Firing};
use crate::topology::Topology;
use store::{Lsn, Store};

impl<S: Store> Shard<S> {
    /// Fires an occurrence that is later than the last one, and answers when that is durable.
    pub(super) fn fire(&mut self, fire: Fire, topology: &Topology) {
        let Fire { ticket, mut firing, publish } = fire;
        let key = firing_key(firing.schedule);
        let known = self.log.fact(&key).and_then(|value| Firing::from_fact(self.id, &key, value).ok().flatten());
        if let Some(known) = known.filter(|known| known.at_ms >= firing.at_ms) {
            let last = self.log.last();
            return self.answer_firing(ticket, last, known);
        }
        self.write_settled();
        let before = self.log.last();
        self.log.begin_chain();
        let stored = publish.map(|publish| {
            let terms = Terms::of_new(&publish);
            self.publish(&publish.queues, publish.message, terms, None)
        });
        // A duplicate is as good as taken: its queue has what the occurrence stands for.
        let is_done =
            stored.is_some_and(|stored| stored.is_taken || (!stored.is_refused && stored.logged != Lsn::ZERO));
        *(if is_done { &mut firing.fired } else { &mut firing.failed }) += 1;
        if stored.is_some_and(|stored| stored.is_refused && !stored.is_taken) {
            firing.error = FULL.to_owned();
        }
        let (key, value) = firing.fact();
        self.log.put_fact(key, value);
        self.write_settled();
        let end = self.log.end_chain_after(before);
        self.bury(topology);
        self.answer_firing(ticket, end, firing);
    }

    fn answer_firing(&mut self, ticket: u64, lsn: Lsn, firing: Firing) {
        self.when_durable(lsn, Waiter::Operation { ticket, answer: Box::new(Answer::Fired(firing)) });
    }
}
