//! A wall clock that is set, forwards and backwards by hours. Only the moment at which a message expires is told by it,
//! since that has to survive a restart; all that is waited for is measured by the other clock.

use super::*;

const HOUR_MS: u64 = 3_600_000;

impl World {
    fn set_clock(&mut self, unix_ms: u64) {
        self.now.unix_ms = unix_ms;
        self.pass(1);
    }
}

fn lasting(body: &str, ms: u64) -> Command {
    let list = PropertyList {
        delivery_mode: Some(2),
        expiration: Some(ms.to_string().into_bytes()),
        ..PropertyList::default()
    };
    Command::Publish(publication(&[1], body, &list))
}

#[test]
fn nothing_that_is_waited_for_is_over_because_the_clock_was_set() {
    for unix_ms in [1, START.unix_ms - 500, START.unix_ms + 6 * HOUR_MS, u64::MAX / 2] {
        let mut world = World::new();
        world.queue(1, QueueSettings { consumer_timeout_ms: Some(500), ..QueueSettings::default() });
        world.queue(2, QueueSettings { expires_ms: Some(500), ..QueueSettings::default() });
        world.consume(1, 1, 1, 1);
        world.commands(9, vec![publish(&[1], "held"), publish(&[1], "waits")]);
        assert_eq!(world.bodies(), ["held"]);
        world.set_clock(unix_ms);
        assert_eq!(world.depths(1), (1, 1));
        assert!(world.events().is_empty() && world.out.catalog.is_empty());
        let deadline = world.shard.deadline().unwrap();
        assert!((world.now.ms + 1..=world.now.ms + 500).contains(&deadline), "{deadline} at {:?}", world.now);
        // And all of it is over when it would have been.
        world.pass(499);
        assert!(matches!(world.events()[..], [(1, ConnectionEvent::AckTimeout { .. })]));
        assert!(matches!(world.out.catalog[..], [ShardReport::QueueGone { .. }]));
    }
}

#[test]
fn a_message_expires_when_the_clock_says_so_and_never_without_being_counted() {
    for mut world in [World::new(), World::without_room()] {
        world.queue(1, QueueSettings::default());
        world.commands(9, vec![publish(&[1], "a"), lasting("b", HOUR_MS), lasting("c", 6 * HOUR_MS)]);
        let began = world.now.unix_ms;
        assert_eq!(world.get(1, 1).unwrap().seq, Seq(1));
        // Backwards: nothing expires before its hour is over by that clock, and no timer is busy with it.
        world.set_clock(1);
        world.pass(HOUR_MS);
        assert_eq!(world.depths(1), (2, 1));
        let deadline = world.shard.deadline();
        assert!(deadline.is_none_or(|ms| ms > world.now.ms + 1), "{deadline:?} at {:?}", world.now);
        // Forwards: whoever consumes gets nothing that has expired by now, and all the rest.
        world.set_clock(began + 2 * HOUR_MS);
        world.consume(2, 2, 1, 0);
        world.settle_down();
        assert_eq!(world.bodies(), ["c"]);
        let counters = world.view(1).counters;
        assert_eq!((counters.publish, counters.expired), (3, 1));
        world.settle(1, 1, Settlement::Requeue);
        world.settle_down();
        assert_eq!(world.bodies(), ["a"]);
    }
}

#[test]
fn a_restart_at_another_time_loses_nothing_that_has_not_expired_by_then() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        world.pass(10 * HOUR_MS);
        let began = world.now.unix_ms;
        world.commands(9, vec![persistent(&[1], "a"), lasting("b", HOUR_MS), lasting("c", 6 * HOUR_MS)]);
        world.settle_down();
        // By its clock the new process starts ten hours before these were published.
        let mut world = world.restart();
        assert!(world.now.unix_ms < began);
        world.pass(1);
        assert_eq!(world.depths(1), (3, 0));
        let mut world = world.restart();
        world.set_clock(began + 2 * HOUR_MS);
        assert_eq!(world.drain(1), ["a", "c"]);
        assert_eq!(world.view(1).counters.expired, 1);
    }
}
