//! What exchanges choose: one queue, the same queue each time, or one message of a key.

use super::copies::Place;
use super::{Ledger, Target, index};
use crate::plan::Rule;
use broker::command::QueueId;

/// Who has a deduplication key in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    place: Place,
    /// No other message of that key can be taken there: it came in this life of the server, or was stored.
    is_certain: bool,
}

impl Ledger {
    /// A message comes to a queue; `None` if its key is taken there, and true if that is not known.
    pub(super) fn take_key(&mut self, place: Place, root: QueueId) -> Option<bool> {
        let Some(key) = self.messages[place.message].key else { return Some(false) };
        let holder = self.once.get(&(key, root));
        if holder.is_some_and(|holder| holder.is_certain) {
            return None;
        }
        let is_doubtful = holder.is_some();
        self.once.insert((key, root), Holder { place, is_certain: true });
        Some(is_doubtful)
    }

    /// After the server's end: what was not stored may be forgotten, and stays so whatever ends come later.
    pub(super) fn doubt_keys(&mut self, is_clean: bool) {
        for holder in self.once.values_mut() {
            let Place { message, copy } = holder.place;
            holder.is_certain &= is_clean || self.messages[message].copies[copy].is_stored;
        }
    }

    /// A message has come to some queues.
    pub(super) fn check_route(&mut self, number: u64) {
        let message = &self.messages[index(number)];
        let Target::Via { exchange, key, rule } = &message.target else { return };
        if !matches!(rule, Rule::One | Rule::Sticky) {
            return;
        }
        assert!(message.copies.len() <= 1, "m{number} comes to {} queues by {exchange}", message.copies.len());
        if let (Rule::Sticky, Some(copy)) = (rule, message.copies.first()) {
            let before = *self.sticky.entry((exchange, key.clone())).or_insert(copy.root);
            assert_eq!(before, copy.root, "m{number} of key {key} goes elsewhere than others by {exchange}");
        }
    }
}
