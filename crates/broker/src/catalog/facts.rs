//! Changes to durable facts, and answers that wait until they are fsynced.

use super::{Answer, Pending, Step};
use crate::command::{CatalogTicket, Outcome, ShardId, ShardInput};
use bytes::Bytes;

/// A change to the facts of exchanges and bindings.
#[derive(Debug)]
pub(super) enum Change {
    Put(Bytes, Bytes),
    Forget(Bytes),
}

impl Step<'_> {
    /// Logs the changes; gives the answer when they are durable, or at once where there are none.
    pub(super) fn answer_after(&mut self, changes: Vec<Change>, mut answer: Option<Answer>) {
        if changes.is_empty() {
            answer.into_iter().for_each(|answer| self.answer(answer));
            return;
        }
        // Nobody else is to be told anything: the shard can do it without us.
        let direct = answer.take_if(|answer| matches!(answer.outcome, Outcome::Applied));
        let keys: Vec<Bytes> = changes.iter().map(|change| change.key().clone()).collect();
        let last = changes.len() - 1;
        let ticket = self.expect(Pending::Durable { keys: keys.clone(), answers: answer.into_iter().collect() });
        self.catalog.unsynced.extend(keys.into_iter().map(|key| (key, ticket)));
        for (index, change) in changes.into_iter().enumerate() {
            // One log, in order: when the last is fsynced, all are.
            let ticket = (index == last).then_some(ticket);
            let input = match change {
                Change::Put(key, value) => ShardInput::PutFact { key, value, ticket },
                Change::Forget(key) => ShardInput::ForgetFact { key, ticket },
            };
            self.send(FACTS, input);
        }
        if let Some(Answer { connection, call, outcome }) = direct {
            self.send(FACTS, ShardInput::Answer { connection, call, outcome });
        }
    }

    /// Gives the answer when the latest change of this fact is durable: at once if it is.
    pub(super) fn answer_with(&mut self, key: &Bytes, answer: Answer) {
        let ticket = self.catalog.unsynced.get(key);
        match ticket.and_then(|ticket| self.catalog.pending.get_mut(ticket)) {
            Some(Pending::Durable { answers, .. }) => answers.push(answer),
            _ => self.answer(answer),
        }
    }

    pub(super) fn durable(&mut self, ticket: CatalogTicket) {
        let Some(Pending::Durable { keys, answers }) = self.catalog.pending.remove(&ticket) else { return };
        for key in keys {
            if self.catalog.unsynced.get(&key) == Some(&ticket) {
                self.catalog.unsynced.remove(&key);
            }
        }
        answers.into_iter().for_each(|answer| self.answer(answer));
    }

    pub(super) fn deleted(&mut self, ticket: CatalogTicket, outcome: Outcome) {
        match self.catalog.pending.remove(&ticket) {
            Some(Pending::Deletion { queue, connection, call, user }) => {
                self.user = user;
                self.deletion_decided(queue, Answer { connection, call, outcome });
            }
            Some(Pending::Closing(connection)) => self.exclusive_queue_gone(connection),
            // A queue that recovery found superseded: nobody asked.
            Some(Pending::Durable { .. }) | None => {}
        }
    }
}

impl Change {
    const fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Forget(key) => key,
        }
    }
}

/// Where the facts of exchanges and bindings are.
pub(super) const FACTS: ShardId = ShardId(0);
