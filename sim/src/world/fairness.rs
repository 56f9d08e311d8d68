//! Equal consumers with nothing to hold them back take turns, strictly.

use super::World;
use crate::ledger::{Draft, Target};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace;

impl World {
    /// Some consumers of one queue, on some connections, get as many messages each as every other.
    ///
    /// # Panics
    /// When one of them gets more.
    pub fn run_fairly(seed: u64) {
        trace::begin(&format!("World::run_fairly({seed})"));
        let mut random = Random::new(seed);
        let plan = Plan::fair(&mut random);
        let queue = plan.queues[0].name.clone();
        let mut world = Self::started(random, plan);
        world.set_up();
        let publisher = world.running_client();
        let consumers = world.random.between(2, 7);
        let mut numbers = vec![publisher];
        for _ in 0..consumers {
            if world.random.one_in(2) {
                numbers.push(world.running_client());
            }
            let number = *world.random.pick(&numbers);
            let on = world.open(number);
            let client = world.clients.get_mut(&number).expect("it stays");
            client.consume_plainly(on, &queue, world.now_ms);
        }
        world.come_to_rest();
        let each = world.random.between(1, 20);
        let on = world.open(publisher);
        for _ in 0..consumers * each {
            let draft = Draft {
                target: Target::Queue(queue.clone()),
                persistent: world.random.one_in(2),
                expiration_ms: None,
                priority: None,
                delay_ms: None,
                mandatory: false,
                has_headers: false,
                wants_reply: false,
                body_bytes: 10,
                is_named: true,
                once: None,
            };
            let client = world.clients.get_mut(&publisher).expect("it stays");
            client.publish(on, draft, &mut world.ledger, world.now_ms);
            while !world.random.one_in(3) && world.go_on_resting() {}
        }
        world.come_to_rest();
        for (number, client) in &world.clients {
            for (consumer, held) in client.held_by_consumer() {
                assert_eq!(held as u64, each, "c{number} {consumer} of {consumers} consumers");
            }
        }
    }

    fn running_client(&mut self) -> u64 {
        let number = self.connect();
        self.rest_until(|world| world.clients[&number].is_running());
        number
    }
}
