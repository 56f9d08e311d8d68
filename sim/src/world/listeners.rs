//! Queues that are bound, one after the other, to an exchange that keeps its last messages.

use super::World;
use crate::plan::{CHAT, LISTENERS};
use crate::random::Random;
use broker::command::VhostId;

/// When somebody binds.
#[derive(Debug)]
pub(super) struct Listening {
    /// Drawn from apart, so that runs without such an exchange are what they were.
    random: Random,
    /// Of the topology that was looked at last.
    generation: Option<u64>,
}

impl Listening {
    pub(super) fn new(random: Random) -> Self {
        Self { random, generation: None }
    }

    /// The server is another.
    pub(super) fn forget(&mut self) {
        self.generation = None;
    }
}

impl World {
    /// Whether it is time to bind one more, or one once more.
    pub(super) fn wants_listener(&mut self) -> bool {
        self.plan.listens > 0 && self.listening.random.one_in(self.plan.listens)
    }

    /// Some client binds a queue.
    pub(super) fn bind_listener(&mut self) {
        let random = &mut self.listening.random;
        let queue = *random.pick(&LISTENERS);
        let running: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.is_running()).map(|(id, _)| *id).collect();
        if running.is_empty() {
            return;
        }
        let client = self.clients.get_mut(random.pick(&running)).expect("just listed");
        let channels = client.open_channels();
        if !client.is_hostile() && !channels.is_empty() {
            let on = *random.pick(&channels);
            client.bind_to(on, queue, CHAT, self.now_ms);
        }
    }

    /// Whoever publishes now knows what is bound by now.
    pub(super) fn heed_listeners(&mut self) {
        let topology = self.node.topology();
        let generation = Some(topology.generation());
        if self.plan.listens == 0 || self.listening.generation == generation {
            return;
        }
        let bound = topology.bindings().filter(|binding| binding.source == CHAT);
        let queues = bound.filter_map(|binding| topology.queue(VhostId(0), binding.destination));
        let queues = queues.map(|spec| spec.queue.id).collect();
        self.listening.generation = generation;
        self.ledger.listen(queues);
    }
}
