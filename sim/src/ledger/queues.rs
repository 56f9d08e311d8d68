//! Queues as far as the ledger has to know them.

use super::Ledger;
use super::copies::Place;
use broker::command::{CallId, CatalogTicket, ConnectionId, Overflow, QueueId, QueueSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A queue that a shard was told to create.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) spec: Arc<QueueSpec>,
    /// Copies that were never handed out, in the order in which they leave: highest level, oldest first.
    pub(super) waiting: BTreeMap<(u8, u64), Place>,
    pub(super) next_order: u64,
    pub(super) existence: Existence,
    /// Names its creation until that is durable.
    pub(super) creation: Option<(ConnectionId, CallId)>,
    /// Deletions that are under way: more than one may have asked.
    pub(super) deletions: Vec<CatalogTicket>,
    /// Dead letters may have left it to go back.
    pub(super) is_redriven: bool,
    /// Messages that it had when the server started, for the sums of its counters.
    pub(super) base: Option<i64>,
}

/// Whether a queue is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    /// It is there; a crash may undo that.
    Created,
    /// A crash does not undo it.
    Certain,
    /// It is gone; a crash may undo that.
    Deleted,
    /// It can never come back.
    Gone,
}

impl Queue {
    pub(super) fn new(spec: Arc<QueueSpec>, creation: Option<(ConnectionId, CallId)>) -> Self {
        Self {
            spec,
            waiting: BTreeMap::new(),
            next_order: 0,
            existence: Existence::Created,
            creation,
            deletions: Vec::new(),
            is_redriven: false,
            base: Some(0),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(self.existence, Existence::Created | Existence::Certain)
    }

    /// A durable queue that nobody deletes, and that was there before any client published.
    pub(super) fn is_always_there(&self, name: &str) -> bool {
        *self.spec.name == *name && self.existence == Existence::Certain && !VOLATILE.contains(&name)
    }

    /// Messages can leave it by themselves.
    pub(super) fn drops(&self) -> bool {
        let settings = &self.spec.settings;
        settings.message_ttl_ms.is_some() || settings.length_max.is_some() || settings.bytes_max.is_some()
    }

    /// The same for dead letters: where it refuses what is too much, they stay where they died until they are taken.
    pub(super) fn drops_letters(&self) -> bool {
        let settings = &self.spec.settings;
        let has_limit = settings.length_max.is_some() || settings.bytes_max.is_some();
        settings.message_ttl_ms.is_some() || has_limit && settings.overflow == Overflow::DropHead
    }

    /// A failed delivery beyond this many is the last one.
    pub(super) fn delivery_limit(&self) -> Option<u32> {
        let settings = &self.spec.settings;
        let limit = settings.delivery_limit.or(settings.is_quorum().then_some(20))?;
        u32::try_from(limit).ok()
    }
}

impl Ledger {
    /// The queue that dead letters of this one go to.
    pub(super) fn target_of(&self, queue: QueueId) -> Option<QueueId> {
        let settings = &self.queues.get(&queue)?.spec.settings;
        settings.dead_letter_exchange.as_ref()?;
        let name = settings.dead_letter_key.as_deref()?;
        let found = self.queues.iter().filter(|(_, other)| *other.spec.name == *name && other.is_there());
        found.map(|(id, _)| *id).next_back()
    }

    /// A message that dies in this queue may be gone: nobody wants it, or it can die again until nobody does.
    pub(super) fn is_lost_by_death_in(&self, mut queue: QueueId) -> bool {
        let mut visited = BTreeSet::new();
        loop {
            visited.insert(queue);
            // What comes back to where it died, and nobody rejected it, is dropped.
            match self.target_of(queue).filter(|next| !visited.contains(next)) {
                None => return true,
                Some(next) if !self.queues[&next].drops_letters() => return false,
                Some(next) => queue = next,
            }
        }
    }

    /// Whether dead letters of messages that were published to `root` can be in `queue`.
    pub(super) fn leads_to(&self, root: QueueId, queue: QueueId) -> bool {
        let mut visited = BTreeSet::new();
        let mut at = Some(root);
        while let Some(id) = at.filter(|id| visited.insert(*id)) {
            at = self.target_of(id);
            if at == Some(queue) {
                return true;
            }
        }
        false
    }

    /// Whether every queue that dead letters from `root` can be in keeps them on disk.
    pub(super) fn keeps_letters_of(&self, root: QueueId, persistent: bool) -> bool {
        let mut visited = BTreeSet::new();
        let mut at = Some(root);
        while let Some(id) = at.filter(|id| visited.insert(*id)) {
            let spec = &self.queues[&id].spec;
            if !(spec.durable && (persistent || spec.settings.keeps_all())) {
                return false;
            }
            at = self.target_of(id);
        }
        true
    }
}

/// Queues of the plan that clients delete, or that go by themselves.
const VOLATILE: [&str; 6] = ["come", "go", "auto", "auto-memory", "idle", "mine"];
