//! Delays, retries and expiry: what becomes of messages as time passes.

use super::*;
use amqp::Value;
use proptest::prelude::*;

/// Of one message: how long it is delayed, and how long it lives, in milliseconds; 0 = not at all, and for ever.
fn timed(queue: u64, body: &str, delay_ms: i64, ttl_ms: u64) -> Command {
    with_priority(queue, body, (delay_ms, ttl_ms), None)
}

fn with_priority(queue: u64, body: &str, (delay_ms, ttl_ms): (i64, u64), priority: Option<u8>) -> Command {
    let delay = (delay_ms != 0).then(|| [("x-delay".to_owned(), Value::I64(delay_ms))].into_iter().collect());
    let list = PropertyList {
        headers: delay,
        expiration: (ttl_ms != 0).then(|| ttl_ms.to_string().into_bytes()),
        delivery_mode: Some(2),
        priority,
        ..PropertyList::default()
    };
    Command::Publish(publication(&[queue], body, &list))
}

fn retrying(min_ms: u64, max_ms: u64) -> QueueSettings {
    let retry = Retry { min_ms, max_ms, backoff: Backoff::Linear, jitter_percent: 0 };
    QueueSettings { delayed_retry: Some(retry), ..QueueSettings::default() }
}

fn to_q2() -> QueueSettings {
    QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        ..QueueSettings::default()
    }
}

impl World {
    /// Ready, unacked and delayed.
    fn places(&mut self, queue: u64) -> (u64, u64, u64) {
        let view = self.view(queue);
        (view.ready, view.unacked, view.delayed)
    }

    /// With everything so far on disk, and at this time: others begin at the same moment each time.
    pub(super) fn restart_now(mut self) -> Self {
        self.calls += 1;
        let spec = Arc::new(spec(1_000 + self.calls, QueueSettings::default()));
        self.step(vec![ShardInput::CreateQueue { spec, declarer: Some((ConnectionId(7), CallId(7))) }]);
        let (now, calls) = (self.now, self.calls);
        let mut world = self.restart();
        (world.now, world.calls) = (now, calls);
        world.step(vec![]);
        world
    }
}

#[test]
fn a_delayed_message_is_delivered_at_its_time_and_not_before() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        world.consume(1, 1, 1, 0);
        world.commands(9, vec![timed(1, "later", 5_000, 0), timed(1, "now", 0, 0)]);
        assert_eq!(world.bodies(), ["now"]);
        assert_eq!(world.places(1), (0, 1, 1));
        // Where there is room, it is read half a second before.
        let deadline = world.shard.deadline().map(|at_ms| at_ms - world.now.ms);
        assert!(matches!(deadline, Some(4_500 | 5_000)), "{deadline:?}");
        world.pass(4_500);
        world.settle_down();
        assert_eq!(world.shard.deadline(), Some(world.now.ms + 500));
        world.pass(499);
        assert!(world.bodies().is_empty());
        world.pass(1);
        world.settle_down();
        assert_eq!(world.bodies(), ["later"]);
        assert_eq!(world.places(1), (0, 2, 0));
    }
}

#[test]
fn what_is_due_leaves_in_the_order_of_time_and_among_the_others_by_place() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        world.commands(
            9,
            vec![
                timed(1, "at once", 0, 0),
                timed(1, "third", 300, 0),
                timed(1, "first", 100, 0),
                timed(1, "second", 200, 0),
                timed(1, "behind", 0, 0),
            ],
        );
        world.pass(250);
        assert_eq!(world.places(1), (4, 0, 1));
        world.pass(50);
        let mut world = world.restart_now();
        assert_eq!(world.drain(1), ["at once", "first", "second", "third", "behind"], "over a restart, too");
    }
}

#[test]
fn a_restart_keeps_what_is_delayed_and_its_time() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.commands(9, vec![timed(1, "a", 60_000, 0), timed(1, "b", 30_000, 0)]);
    world.pass(10_000);
    let mut world = world.restart_now();
    assert_eq!(world.places(1), (0, 0, 2));
    world.pass(19_999);
    assert_eq!(world.places(1), (0, 0, 2));
    world.pass(1);
    assert_eq!(world.places(1), (1, 0, 1));
    world.pass(30_000);
    assert_eq!(world.drain(1), ["b", "a"]);
    assert_eq!(world.restart_now().places(1), (0, 0, 0));
}

#[test]
fn a_transient_delayed_message_waits_in_the_log_and_no_restart_brings_it_back() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    let headers = Some([("x-delay".to_owned(), Value::I32(50))].into_iter().collect());
    world.command(9, Command::Publish(publication(&[1], "a", &PropertyList { headers, ..PropertyList::default() })));
    assert_eq!(world.places(1), (0, 0, 1));
    assert_eq!(world.shard.near_bytes, 0);
    world.pass(50);
    assert_eq!(world.drain(1), ["a"]);
}

#[test]
fn limits_count_what_is_ready_only() {
    let mut world = World::new();
    let settings = QueueSettings { length_max: Some(1), overflow: Overflow::RejectPublish, ..QueueSettings::default() };
    world.durable_queue(1, settings);
    world.durable_queue(2, QueueSettings { length_max: Some(1), ..QueueSettings::default() });
    for queue in [1, 2] {
        world.commands(9, vec![timed(queue, "later", 100, 0), timed(queue, "later too", 100, 0)]);
        world.command(9, timed(queue, "now", 0, 0));
        assert_eq!(world.places(queue), (1, 0, 2));
    }
    world.pass(100);
    assert_eq!(world.places(1), (3, 0, 0), "what was accepted is not refused");
    assert_eq!(world.places(2), (1, 0, 0));
}

#[test]
fn a_message_begins_to_live_when_its_delay_is_over() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(50), ..QueueSettings::default() });
    world.command(9, timed(1, "a", 100, 0));
    world.pass(100);
    assert_eq!(world.places(1), (1, 0, 0));
    world.pass(50);
    assert_eq!(world.places(1), (0, 0, 0));
    assert_eq!(world.view(1).counters.expired, 1);
}

#[test]
fn priorities_hold_among_what_is_due() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings { priority_max: Some(2), ..QueueSettings::default() });
    let publish = |body, delay_ms, priority| with_priority(1, body, (delay_ms, 0), Some(priority));
    world.commands(9, vec![publish("low", 10, 0), publish("high", 20, 2), publish("middle", 0, 1)]);
    world.pass(20);
    assert_eq!(world.drain(1), ["high", "middle", "low"]);
}

#[test]
fn a_dead_letter_is_not_delayed_again() {
    let mut world = World::new();
    world.durable_queue(1, to_q2());
    world.durable_queue(2, QueueSettings::default());
    world.command(9, timed(1, "a", 1_000, 0));
    world.pass(1_000);
    let seq = world.get(1, 1).unwrap().seq;
    world.settle(1, seq.0, Settlement::Discard);
    assert_eq!(world.places(2), (1, 0, 0));
}

#[test]
fn a_purge_takes_what_is_delayed_and_leaves_what_is_held() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        world.command(9, timed(1, "held", 0, 0));
        world.get(1, 1).unwrap();
        world.commands(9, vec![timed(1, "a", 10, 0), timed(1, "b", 1_000, 0), timed(1, "c", 0, 0)]);
        world.pass(10);
        let purge = |call| Command::Purge { call, queue: Q };
        assert!(matches!(world.ask(1, purge), Outcome::Purged { messages: 3 }));
        assert_eq!(world.places(1), (0, 1, 0));
        assert_eq!(world.restart_now().drain(1), ["held"]);
    }
}

#[test]
fn a_queue_with_delayed_messages_is_not_empty_and_goes_with_them() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.command(9, timed(1, "a", 1_000, 0));
    let delete = |if_empty| ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty, ticket: CatalogTicket(1) };
    world.step(vec![delete(true)]);
    let refused = world.out.catalog.pop();
    assert!(matches!(refused, Some(ShardReport::Deleted { outcome: Outcome::Fault(_), .. })), "{refused:?}");
    world.step(vec![delete(false)]);
    world.settle_down();
    let deleted = world.out.catalog.pop();
    let is_deleted = |report: &ShardReport| {
        matches!(report, ShardReport::Deleted { outcome: Outcome::QueueDeleted { messages: 1, .. }, .. })
    };
    assert!(deleted.as_ref().is_some_and(is_deleted), "{deleted:?}");
    assert_eq!(world.shard.deadline(), None);
}

#[test]
fn a_wall_clock_that_was_set_moves_the_time_and_loses_nothing() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.command(9, timed(1, "a", 1_000, 0));
    world.now.unix_ms -= 500_000;
    world.pass(1_000);
    assert_eq!(world.places(1), (0, 0, 1));
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 500_000));
    world.now.unix_ms += 500_000;
    world.publish(1, "b");
    assert_eq!(world.drain(1), ["a", "b"]);
}

#[test]
fn very_many_that_are_due_at_once_become_ready_in_pieces() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.commands(9, (0..20_000).map(|number| timed(1, &number.to_string(), 1_000 - number % 7, 0)).collect());
    world.pass(1_000);
    let mut steps = 0;
    while world.shard.deadline() == Some(world.now.ms) {
        world.step(vec![]);
        steps += 1;
    }
    assert!((2..20).contains(&steps), "{steps}");
    assert_eq!(world.places(1), (20_000, 0, 0));
    let bodies: Vec<i64> = world.drain(1).iter().map(|body| body.parse().unwrap()).collect();
    assert!(bodies.windows(2).all(|pair| (-(pair[0] % 7), pair[0]) < (-(pair[1] % 7), pair[1])));
    assert_eq!(bodies.len(), 20_000);
}

#[test]
fn a_message_that_came_back_waits_longer_each_time() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings { delivery_limit: Some(3), ..retrying(100, 250) });
        world.consume(1, 1, 1, 0);
        world.command(9, timed(1, "a", 0, 0));
        for (attempts, wait_ms) in [(0, 100), (1, 200), (2, 250)] {
            let got = world.deliveries();
            assert_eq!((got.len(), got[0].redelivered), (1, attempts > 0));
            world.settle(1, 1, Settlement::Requeue);
            assert_eq!(world.places(1), (0, 0, 1));
            world.pass(wait_ms - 1);
            assert!(world.bodies().is_empty());
            world.pass(1);
            world.settle_down();
        }
        assert_eq!(world.bodies(), ["a"]);
        world.settle(1, 1, Settlement::Requeue);
        assert_eq!(world.places(1), (0, 0, 0), "the fourth failure is the last");
    }
}

#[test]
fn a_retry_goes_on_over_a_restart() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { kind: QueueKind::Quorum, ..retrying(1_000, 5_000) });
    world.command(9, timed(1, "a", 0, 0));
    for attempts in [0, 1] {
        let delivery = world.get(1, 1).unwrap();
        assert_eq!(delivery.attempts, attempts);
        world.settle(1, 1, Settlement::Requeue);
        assert_eq!(world.places(1), (0, 0, 1));
        world = world.restart_now();
        world.pass(1_000 * u64::from(attempts + 1) - 1);
        assert_eq!(world.places(1), (0, 0, 1));
        world.pass(1);
    }
    assert_eq!(world.get(1, 1).unwrap().attempts, 2);
}

#[test]
fn a_classic_queue_with_a_limit_shows_and_keeps_its_attempts() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { delivery_limit: Some(2), ..to_q2() });
    world.durable_queue(2, QueueSettings::default());
    world.command(9, timed(1, "a", 0, 0));
    for attempts in 0..=2 {
        assert_eq!(world.get(1, 1).unwrap().attempts, attempts);
        world.settle(1, 1, Settlement::Requeue);
        world = world.restart_now();
    }
    assert_eq!((world.places(1), world.places(2)), ((0, 0, 0), (1, 0, 0)));
}

#[test]
fn what_a_lost_consumer_held_waits_too() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, retrying(100, 100));
        world.commands(9, (0..20).map(|number| timed(1, &number.to_string(), 0, 0)).collect());
        world.consume(1, 1, 1, 0);
        world.settle_down();
        assert_eq!(world.bodies().len(), 20);
        world.command(1, Command::CloseChannel { call: CallId(70), channel: ChannelId(1) });
        assert_eq!(world.places(1), (0, 0, 20));
        world.pass(100);
        assert_eq!(world.restart_now().drain(1).len(), 20);
    }
}

#[test]
fn a_message_does_not_outlive_its_time_by_waiting_for_a_retry() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { ..retrying(1_000, 1_000) });
    world.commands(9, vec![timed(1, "a", 0, 100), timed(1, "b", 0, 0)]);
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Requeue);
    assert_eq!(world.places(1), (1, 0, 1));
    world.pass(100);
    assert_eq!(world.places(1), (1, 0, 0));
    assert_eq!(world.view(1).counters.expired, 1);
    assert_eq!(world.drain(1), ["b"]);
}

#[test]
fn what_expires_behind_others_becomes_a_dead_letter() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings { priority_max: Some(1), ..to_q2() });
        world.durable_queue(2, QueueSettings::default());
        world.commands(
            9,
            vec![
                timed(1, "first", 0, 0),
                timed(1, "b", 0, 300),
                timed(1, "a", 0, 200),
                with_priority(1, "c", (0, 400), Some(1)),
                timed(1, "d", 50, 450),
                timed(1, "last", 0, 0),
            ],
        );
        for passed in [200, 100, 100, 100] {
            world.pass(passed);
            world.settle_down();
        }
        assert_eq!((world.depths(1), world.depths(2)), ((2, 0), (4, 0)));
        assert_eq!(world.drain(2), ["a", "b", "c", "d"]);
        assert_eq!(world.restart_now().drain(1), ["first", "last"]);
    }
}

#[test]
fn very_many_that_expire_behind_others_go_in_pieces() {
    for settings in [QueueSettings::default(), to_q2()] {
        let mourned = if settings.dead_letter_exchange.is_some() { 10_000 } else { 0 };
        let mut world = World::without_room();
        world.durable_queue(1, settings);
        world.durable_queue(2, QueueSettings::default());
        world.command(9, timed(1, "first", 0, 0));
        world.commands(9, (0..10_000).map(|number| timed(1, "x", 0, 1_000 + number * 7 % 10_000)).collect());
        world.command(9, timed(1, "last", 0, 0));
        world.pass(20_000);
        for _ in 0..10_000 {
            if world.depths(1) == (2, 0) {
                break;
            }
            world.pass(20);
        }
        assert_eq!((world.depths(1), world.depths(2)), ((2, 0), (mourned, 0)));
        assert_eq!(world.drain(1), ["first", "last"]);
    }
}

#[test]
fn messages_that_expire_in_the_order_of_the_queue_are_not_indexed() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(60_000), ..QueueSettings::default() });
    for number in 0..100 {
        world.publish(1, &number.to_string());
        world.pass(1);
    }
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Requeue);
    assert_eq!(world.shard.queues.iter().map(|(_, queue)| queue.far_heap_bytes()).sum::<u64>(), 0);
}

// --- against a model ----------------------------------------------------------------------------------------------

/// Times are multiples of ten, but for expiries: so nothing expires in the very moment in which it could be delivered.
#[derive(Clone, Debug)]
enum Act {
    Publish { delay: u64, life: Option<u64>, priority: u8 },
    Get,
    Ack(usize),
    Requeue(usize),
    Pass(u64),
    Purge,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let delay = prop_oneof![2 => Just(0u64), 3 => 1..8u64];
    let life = prop_oneof![2 => Just(None), 2 => (0..12u64).prop_map(Some)];
    prop_oneof![
        8 => (delay, life, 0..3u8).prop_map(|(delay, life, priority)| Act::Publish { delay, life, priority }),
        6 => Just(Act::Get),
        2 => any::<usize>().prop_map(Act::Ack),
        4 => any::<usize>().prop_map(Act::Requeue),
        4 => (1..4u64).prop_map(Act::Pass),
        1 => Just(Act::Restart),
    ]
    .prop_flat_map(|act| prop_oneof![40 => Just(act), 1 => Just(Act::Purge)])
}

#[derive(Clone, Debug)]
struct Known {
    seq: u64,
    priority: u8,
    due: u64,
    expires: u64,
    attempts: u32,
    held: bool,
}

#[derive(Default)]
struct Model {
    messages: Vec<Known>,
    expired: u64,
}

impl Model {
    fn expire(&mut self, now: u64) {
        let before = self.messages.len();
        self.messages.retain(|known| known.held || known.due > now || known.expires == 0 || known.expires > now);
        self.expired += (before - self.messages.len()) as u64;
    }

    fn next(&self, now: u64) -> Option<u64> {
        let ready = || self.messages.iter().filter(|known| !known.held && known.due <= now);
        let top = ready().map(|known| known.priority).max()?;
        let untimed = ready().filter(|known| known.priority == top && known.due == 0).map(|known| known.seq).min();
        let timed = ready().filter(|known| known.priority == top && known.due != 0);
        let timed = timed.min_by_key(|known| (known.due, known.seq)).map(|known| known.seq);
        untimed.into_iter().chain(timed).min()
    }

    fn held(&mut self, nth: usize) -> Option<&mut Known> {
        let count = self.messages.iter().filter(|known| known.held).count();
        let nth = nth.checked_rem(count)?;
        self.messages.iter_mut().filter(|known| known.held).nth(nth)
    }

    fn places(&self, now: u64) -> (u64, u64, u64) {
        let count = |is: &dyn Fn(&Known) -> bool| self.messages.iter().filter(|known| is(known)).count() as u64;
        (
            count(&|known| !known.held && known.due <= now),
            count(&|known| known.held),
            count(&|known| !known.held && known.due > now),
        )
    }
}

fn follows_the_model(mut world: World, retry: Option<Retry>, acts: Vec<Act>) {
    let settings = QueueSettings {
        priority_max: Some(2),
        delayed_retry: retry,
        kind: QueueKind::Quorum,
        ..QueueSettings::default()
    };
    world.durable_queue(1, settings);
    let (mut model, mut next_seq) = (Model::default(), 1);
    for act in acts {
        let now = world.now.unix_ms;
        match act {
            Act::Publish { delay, life, priority } => {
                let (delay, life) = (delay * 10, life.map_or(0, |life| life * 10 + 5));
                world.command(9, with_priority(1, &next_seq.to_string(), (delay as i64, life), Some(priority)));
                let due = if delay == 0 { 0 } else { now + delay };
                let expires = if life == 0 { 0 } else { now + delay + life };
                model.messages.push(Known { seq: next_seq, priority, due, expires, attempts: 0, held: false });
                next_seq += 1;
            }
            Act::Get => {
                let got = world.get(1, 1);
                let expected = model.next(now);
                assert_eq!(got.as_ref().map(|delivery| delivery.seq.0), expected);
                let known = model.messages.iter_mut().find(|known| Some(known.seq) == expected);
                if let (Some(known), Some(delivery)) = (known, got) {
                    assert_eq!(delivery.attempts, known.attempts);
                    known.held = true;
                }
            }
            Act::Ack(nth) => {
                if let Some(seq) = model.held(nth).map(|known| known.seq) {
                    world.settle(1, seq, Settlement::Ack);
                    model.messages.retain(|known| known.seq != seq);
                }
            }
            Act::Requeue(nth) => {
                if let Some(known) = model.held(nth).filter(|known| known.attempts < 20) {
                    known.held = false;
                    known.attempts += 1;
                    if let Some(retry) = retry {
                        known.due = now + retry.wait_ms(known.attempts, Q, Seq(known.seq));
                        if known.expires != 0 {
                            known.due = known.due.min(known.expires);
                        }
                    }
                    let seq = known.seq;
                    world.settle(1, seq, Settlement::Requeue);
                }
            }
            Act::Pass(tens) => world.pass(tens * 10),
            Act::Purge => {
                world.ask(1, |call| Command::Purge { call, queue: Q });
                model.messages.retain(|known| known.held);
            }
            Act::Restart => {
                world = world.restart_now();
                model.messages.iter_mut().for_each(|known| known.held = false);
            }
        }
        world.settle_down();
        let now = world.now.unix_ms;
        model.expire(now);
        assert_eq!(world.places(1), model.places(now), "at {now}: {:?}", model.messages);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_at_their_time_go_at_their_time_and_keep_their_order(
        has_room in any::<bool>(),
        retry in prop_oneof![Just(None), (1..4u64, 1..10u64).prop_map(|(min, max)| {
            Some(Retry { min_ms: min * 10, max_ms: (min + max) * 10, backoff: Backoff::Exponential, jitter_percent: 0 })
        })],
        acts in prop::collection::vec(act(), 1..80),
    ) {
        follows_the_model(if has_room { World::new() } else { World::without_room() }, retry, acts);
    }
}
