//! Message groups, rates and limits of what is in flight.

use super::*;
use crate::command::Rate;
use amqp::Value;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn grouped() -> QueueSettings {
    QueueSettings { group_key: Some("tenant".to_owned()), ..QueueSettings::default() }
}

fn of_key(key: Option<u64>, body: &str, priority: Option<u8>, persistent: bool) -> Command {
    keyed(key, body, priority, persistent, None)
}

fn of_key_with_ttl(key: Option<u64>, priority: Option<u8>, persistent: bool, ttl_ms: Option<u64>) -> Command {
    keyed(key, "x", priority, persistent, ttl_ms)
}

fn keyed(key: Option<u64>, body: &str, priority: Option<u8>, persistent: bool, ttl_ms: Option<u64>) -> Command {
    let expiration = ttl_ms.map(|ms| ms.to_string().into_bytes());
    let mut headers = Table::new();
    headers.insert("first", "x");
    if let Some(key) = key {
        headers.insert("tenant", Value::I64(key as i64));
    }
    let delivery_mode = persistent.then_some(2);
    let list = PropertyList { headers: Some(headers), priority, delivery_mode, expiration, ..PropertyList::default() };
    Command::Publish(publication(&[1], body, &list))
}

/// Publishes messages with the bodies `a1`, `b1` and so on, the letter being the key; `-` has none.
fn publish_all(world: &mut World, bodies: &str) {
    for body in bodies.split(' ') {
        let key = body.bytes().next().filter(|letter| *letter != b'-').map(u64::from);
        world.command(9, of_key(key, body, None, true));
    }
}

/// What consumer 1 gets, and so on: body and consumer.
fn got(world: &mut World) -> Vec<String> {
    world.settle_down();
    world.deliveries().into_iter().map(|got| format!("{}>{}", got.body, got.consumer)).collect()
}

/// Worlds with room for messages in memory, and without.
fn worlds() -> [World; 2] {
    [World::new(), World::without_room()]
}

#[test]
fn limits_that_are_wider_than_before_hold_nothing_back_that_waited_for_the_former_ones() {
    let slow = crate::settings::rate(&Value::from("1/h"));
    let quick = crate::settings::rate(&Value::from(1_000));
    for (before, after) in [
        (grouped(), QueueSettings { group_in_flight_max: Some(3), ..grouped() }),
        (QueueSettings { rate: slow, ..QueueSettings::default() }, QueueSettings::default()),
        (QueueSettings { rate: slow, ..QueueSettings::default() }, QueueSettings { rate: quick, ..Default::default() }),
        (
            QueueSettings { group_in_flight_max: Some(9), group_rate: slow, ..grouped() },
            QueueSettings { group_in_flight_max: Some(9), group_rate: quick, ..grouped() },
        ),
    ] {
        for mut world in worlds() {
            world.durable_queue(1, before.clone());
            publish_all(&mut world, "a1 a2 a3");
            world.consume(1, 1, 1, 0);
            assert_eq!(got(&mut world), ["a1>1"]);
            let specs = vec![Arc::new(spec(1, after.clone()))];
            world.step(vec![ShardInput::ChangeQueues { specs }]);
            let mut found = got(&mut world);
            world.pass(2);
            found.extend(got(&mut world));
            assert_eq!(found, ["a2>1", "a3>1"], "{before:?} became {after:?}");
        }
    }
}

#[test]
fn one_message_of_a_key_is_in_flight_and_others_pass() {
    for mut world in worlds() {
        world.durable_queue(1, grouped());
        publish_all(&mut world, "a1 a2 a3 b1 -1 a4 b2 c1");
        world.consume(1, 1, 1, 0);
        world.consume(2, 2, 1, 0);
        let mut first = got(&mut world);
        first.iter_mut().for_each(|got| got.truncate(2));
        first.sort_unstable();
        assert_eq!(first, ["-1", "a1", "b1", "c1"]);
        assert_eq!(world.depths(1), (4, 4));
        for (acked, next) in [(1, "a2"), (2, "a3"), (4, "b2"), (3, "a4")] {
            world.settle(1, acked, Settlement::Ack);
            world.settle(2, acked, Settlement::Ack);
            assert_eq!(got(&mut world).iter().map(|got| &got[..2]).collect::<Vec<_>>(), [next]);
        }
    }
}

#[test]
fn what_comes_back_goes_first_and_to_anybody() {
    for mut world in worlds() {
        world.durable_queue(1, grouped());
        publish_all(&mut world, "a1 a2");
        world.consume(1, 1, 1, 1);
        assert_eq!(got(&mut world), ["a1>1"]);
        world.consume(2, 2, 1, 1);
        assert_eq!(got(&mut world), [""; 0]);
        world.settle(1, 1, Settlement::Requeue);
        let again = got(&mut world);
        assert_eq!(again.len(), 1);
        assert_eq!(&again[0][..2], "a1");
    }
}

#[test]
fn several_of_a_key_go_to_the_consumer_that_has_it() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { group_in_flight_max: Some(3), ..grouped() });
        world.consume(1, 1, 1, 2);
        publish_all(&mut world, "a1");
        assert_eq!(got(&mut world), ["a1>1"]);
        world.consume(2, 2, 1, 10);
        publish_all(&mut world, "a2 a3 b1 a4");
        // The one that has the key is full after the second, and nobody else gets more of it.
        assert_eq!(got(&mut world), ["a2>1", "b1>2"]);
        world.settle(1, 1, Settlement::Ack);
        assert_eq!(got(&mut world), ["a3>1"]);
        // What comes back waits for what is in flight behind it.
        world.settle(1, 2, Settlement::Requeue);
        assert_eq!(got(&mut world), [""; 0]);
        world.settle(1, 3, Settlement::Ack);
        let mut rest = got(&mut world);
        rest.iter_mut().for_each(|got| got.truncate(2));
        assert_eq!(rest, ["a2", "a4"]);
    }
}

#[test]
fn a_higher_priority_goes_first_wherever_its_messages_are() {
    for settings in [grouped(), QueueSettings { group_fair: true, ..grouped() }] {
        let settings = QueueSettings { priority_max: Some(2), ..settings };
        for mut world in worlds() {
            world.durable_queue(1, settings.clone());
            let publish = |world: &mut World, body: &str, priority| {
                let key = body.bytes().next().map(u64::from);
                world.command(9, of_key(key, body, Some(priority), true));
            };
            // One that is parked, of a key that is busy.
            publish(&mut world, "a1", 0);
            world.consume(1, 1, 1, 2);
            publish(&mut world, "a2", 0);
            publish(&mut world, "b1", 0);
            assert_eq!(got(&mut world), ["a1>1", "b1>1"]);
            // What nobody looked at yet, …
            publish(&mut world, "c1", 2);
            publish(&mut world, "c2", 1);
            world.settle(1, 1, Settlement::Ack);
            assert_eq!(got(&mut world), ["c1>1"]);
            // … and what is parked itself.
            world.commands(1, vec![settle(1, 3, Settlement::Ack), settle(1, 4, Settlement::Ack)]);
            assert_eq!(got(&mut world), ["c2>1", "a2>1"]);
        }
    }
}

#[test]
fn a_key_is_held_by_a_cancelled_consumer_until_it_is_done() {
    for mut world in worlds() {
        world.durable_queue(1, grouped());
        publish_all(&mut world, "a1 a2");
        world.consume(1, 1, 1, 0);
        world.consume(2, 2, 1, 0);
        assert_eq!(got(&mut world), ["a1>1"]);
        world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
        assert_eq!(got(&mut world), [""; 0]);
        world.ask(1, |call| Command::CloseChannel { call, channel: ChannelId(1) });
        assert_eq!(got(&mut world), ["a1>2"]);
        world.settle(2, 1, Settlement::Discard);
        assert_eq!(got(&mut world), ["a2>2"]);
    }
}

#[test]
fn gets_keep_to_groups_and_limits() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { in_flight_max: Some(2), ..grouped() });
        publish_all(&mut world, "a1 a2 b1 c1");
        let bodies = |got: Option<Delivery>| got.map(|got| String::from_utf8(got.message.body().to_vec()).unwrap());
        assert_eq!(bodies(world.get(1, 1)).as_deref(), Some("a1"));
        assert_eq!(bodies(world.get(2, 1)).as_deref(), Some("b1"));
        assert_eq!(bodies(world.get(2, 1)), None, "two are in flight");
        world.settle(1, 1, Settlement::Ack);
        // A message that has to be read is passed by one that is here.
        let third = bodies(world.get(1, 1));
        world.settle(2, 3, Settlement::Ack);
        let mut rest = [third, bodies(world.get(1, 1))].map(Option::unwrap);
        if world.shard.settings.near.queue_bytes == 0 {
            rest.sort_unstable();
        }
        assert_eq!(rest, ["a2", "c1"]);
    }
}

#[test]
fn keys_take_turns_where_that_is_asked_for() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { group_fair: true, group_in_flight_max: Some(100), ..grouped() });
        publish_all(&mut world, "a1 a2 a3 a4 a5 b1 b2 -1 -2 c1");
        let mut order = Vec::new();
        world.consume(1, 1, 1, 1);
        for _ in 0..10 {
            world.settle_down();
            let delivered = world.deliveries();
            assert_eq!(delivered.len(), 1);
            order.push(delivered[0].body.clone());
            world.settle(1, delivered[0].seq, Settlement::Ack);
        }
        // What is not read yet cannot have its turn.
        if world.shard.settings.near.queue_bytes > 0 {
            assert_eq!(order, ["a1", "b1", "-1", "c1", "a2", "b2", "-2", "a3", "a4", "a5"]);
        }
        let of_a: Vec<_> = order.iter().filter(|body| body.starts_with('a')).collect();
        assert_eq!(of_a, ["a1", "a2", "a3", "a4", "a5"]);
        assert!(order.iter().position(|body| body == "c1").unwrap() < 8, "{order:?}");
    }
}

#[test]
fn parked_messages_are_purged_dropped_and_expire_as_others_do() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { length_max: Some(3), ..grouped() });
        world.consume(1, 1, 1, 0);
        publish_all(&mut world, "a1 a2 a3 a4 a5");
        assert_eq!(got(&mut world), ["a1>1"]);
        assert_eq!(world.depths(1), (3, 1));
        world.settle(1, 1, Settlement::Ack);
        assert_eq!(got(&mut world), ["a3>1"], "the oldest was dropped");
        let purged = world.ask(1, |call| Command::Purge { call, queue: Q });
        assert!(matches!(purged, Outcome::Purged { messages: 2 }), "{purged:?}");
        publish_all(&mut world, "a6");
        world.settle(1, 3, Settlement::Ack);
        assert_eq!(got(&mut world), ["a6>1"]);

        let mut world = World::new();
        world.durable_queue(1, QueueSettings { message_ttl_ms: Some(100), ..grouped() });
        world.consume(1, 1, 1, 0);
        publish_all(&mut world, "a1 a2 b1");
        assert_eq!(got(&mut world), ["a1>1", "b1>1"]);
        world.pass(101);
        world.pass(30);
        assert_eq!(world.depths(1), (0, 2));
        publish_all(&mut world, "a3");
        world.settle(1, 1, Settlement::Ack);
        assert_eq!(got(&mut world), ["a3>1"]);
    }
}

#[test]
fn a_rate_holds_back_and_catches_up() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { rate: Rate::per_second(100), ..QueueSettings::default() });
    world.consume(1, 1, 1, 0);
    for _ in 0..2000 {
        world.publish(1, "x");
    }
    let mut counts = Vec::new();
    for _ in 0..5 {
        let mut count = 0;
        let end_ms = world.now.ms + 1000;
        while world.now.ms < end_ms {
            // Sleeps as the host does.
            let wake_ms = world.shard.deadline().unwrap().clamp(world.now.ms + 1, end_ms);
            world.pass(wake_ms - world.now.ms);
            count += world.deliveries().len();
        }
        counts.push(count);
    }
    assert!(counts[1..].iter().all(|count| (98..=102).contains(count)), "{counts:?}");
    // Nobody polls: with nothing to deliver there is nothing to wake up for.
    world.ask(1, |call| Command::Purge { call, queue: Q });
    world.pass(1_000);
    world.settle_down();
    assert!(world.shard.deadline().is_none_or(|at_ms| at_ms > world.now.ms), "{:?}", world.shard.deadline());
}

#[test]
fn a_key_that_waits_for_its_rate_holds_up_no_other() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { group_rate: Rate::parse("60/m"), ..grouped() });
        world.consume_as(1, Consume { no_ack: true, ..consumer_of(1, 1) });
        publish_all(&mut world, "a1 a2 a3 b1 -1");
        assert_eq!(got(&mut world), ["a1>1", "b1>1", "-1>1"]);
        world.pass(900);
        assert_eq!(got(&mut world), [""; 0]);
        world.pass(100);
        assert_eq!(got(&mut world), ["a2>1"]);
        world.pass(1000);
        assert_eq!(got(&mut world), ["a3>1"]);
        world.pass(2000);
        world.settle_down();
        let slot = world.shard.queue_slots[&Q];
        assert_eq!(world.shard.queues[slot].groups().unwrap().len(), 0, "keys with nothing are forgotten");
    }
}

#[test]
fn keys_are_learnt_again_after_a_restart() {
    let mut world = World::new();
    world.durable_queue(1, grouped());
    world.consume(1, 1, 1, 0);
    publish_all(&mut world, "a1 a2 b1 b2");
    assert_eq!(got(&mut world), ["a1>1", "b1>1"]);
    let mut world = world.restart();
    world.consume(1, 1, 1, 0);
    world.consume(1, 2, 1, 0);
    let mut first = got(&mut world);
    first.iter_mut().for_each(|got| got.truncate(2));
    first.sort_unstable();
    assert_eq!(first, ["a1", "b1"]);
}

#[test]
fn a_stuck_key_holds_up_no_other_and_costs_no_bodies() {
    let mut world = World::new();
    world.durable_queue(1, grouped());
    let body = "x".repeat(100_000);
    for _ in 0..200 {
        world.command(9, of_key(Some(1), &body, None, true));
    }
    world.command(9, of_key(Some(2), "free", None, true));
    world.consume(1, 1, 1, 0);
    for _ in 0..200 {
        world.step(vec![]);
    }
    let bodies = world.bodies();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[1], "free");
    assert!(world.view(1).memory < 3 << 20, "{} of 20 MB", world.view(1).memory);
}

#[test]
fn a_newcomer_of_higher_priority_takes_over_a_quorum_queue() {
    let consumer = |number: u32, priority: i64| {
        let arguments = [("x-priority", Value::I64(priority))].into_iter().collect();
        Consume { channel: ChannelId(number as u16), arguments, prefetch: 2, ..consumer_of(number, 1) }
    };
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        let mut world = World::new();
        world.durable_queue(1, QueueSettings { kind, single_active: true, ..QueueSettings::default() });
        for body in ["1", "2", "3", "4", "5", "6"] {
            world.publish(1, body);
        }
        world.consume_as(1, consumer(1, 0));
        assert_eq!(got(&mut world), ["1>1", "2>1"]);
        world.consume_as(1, consumer(2, 5));
        world.consume_as(1, consumer(3, 3));
        world.settle(1, 1, Settlement::Ack);
        if kind == QueueKind::Classic {
            assert_eq!(got(&mut world), ["3>1"], "classic queues keep the one they have");
            continue;
        }
        assert_eq!(got(&mut world), [""; 0], "the active one settles what it has");
        world.settle(1, 2, Settlement::Ack);
        assert_eq!(got(&mut world), ["3>2", "4>2"]);
        world.settle(1, 3, Settlement::Ack);
        assert_eq!(got(&mut world), ["5>2"], "a lower priority that came later does not take over");
        // A successor that leaves before its time changes nothing.
        world.consume_as(1, consumer(4, 9));
        world.settle(1, 4, Settlement::Ack);
        assert_eq!(got(&mut world), [""; 0]);
        world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(4) });
        assert_eq!(got(&mut world), ["6>2"]);
    }
}

#[test]
fn a_quorum_queue_has_32_priorities_and_4_for_those_that_say_nothing() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { kind: QueueKind::Quorum, ..QueueSettings::default() });
    for (body, priority) in [("none", None), ("3", Some(3)), ("4", Some(4)), ("255", Some(255)), ("31", Some(31))] {
        world.command(9, of_key(None, body, priority, true));
    }
    world.consume_as(1, Consume { no_ack: true, ..consumer_of(1, 1) });
    assert_eq!(world.bodies(), ["255", "31", "none", "4", "3"]);
}

// --- a queue against a list ---------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Act {
    Publish { key: Option<u64>, priority: u8, persistent: bool, ttl_ms: Option<u64> },
    Consume { prefetch: u32, no_ack: bool },
    Cancel(usize),
    CloseChannel(usize),
    Get { no_ack: bool },
    Settle(usize, Settlement),
    Purge,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let key = prop_oneof![5 => (0..4u64).prop_map(Some), 1 => Just(None)];
    let how = prop_oneof![
        6 => Just(Settlement::Ack),
        3 => Just(Settlement::Requeue),
        1 => Just(Settlement::Discard),
        1 => Just(Settlement::Unsent),
    ];
    prop_oneof![
        20 => (key, prop_oneof![4 => Just(0u8), 1 => 0..3u8], any::<bool>(), prop_oneof![4 => Just(None), 1 => even(450).prop_map(Some)])
            .prop_map(|(key, priority, persistent, ttl_ms)| Act::Publish { key, priority, persistent, ttl_ms }),
        4 => (0..4u32, prop::bool::weighted(0.1)).prop_map(|(prefetch, no_ack)| Act::Consume { prefetch, no_ack }),
        1 => any::<usize>().prop_map(Act::Cancel),
        1 => any::<usize>().prop_map(Act::CloseChannel),
        2 => any::<bool>().prop_map(|no_ack| Act::Get { no_ack }),
        16 => (any::<usize>(), how).prop_map(|(which, how)| Act::Settle(which, how)),
        1 => prop_oneof![1 => Just(Act::Purge), 3 => Just(Act::Pass(0))],
        4 => prop_oneof![even(10), even(1_000)].prop_map(Act::Pass),
    ]
}

/// Times lie an even number of milliseconds apart: what came back may expire in the millisecond before its time.
fn even(below: u64) -> impl Strategy<Value = u64> {
    (1..below).prop_map(|half| half * 2)
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    let rate = || prop_oneof![3 => Just(None), 1 => Just(Rate::per_second(20)), 1 => Just(Rate::parse("90/m"))];
    let flags = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    let max = || prop_oneof![3 => Just(None), 2 => (1..5u32).prop_map(Some)];
    (flags, max(), rate(), rate(), max()).prop_map(|(flags, group_in_flight_max, group_rate, rate, in_flight_max)| {
        let (is_grouped, group_fair, has_priorities) = flags;
        let of_all = QueueSettings {
            rate,
            in_flight_max,
            priority_max: has_priorities.then_some(2),
            ..QueueSettings::default()
        };
        let group_key = Some("tenant".to_owned());
        let of_groups = QueueSettings { group_key, group_fair, group_in_flight_max, group_rate, ..of_all.clone() };
        if is_grouped { of_groups } else { of_all }
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    /// By a holder: a consumer's number, or 0 for gets.
    Held(u32),
    Gone,
}

#[derive(Clone, Debug)]
struct Job {
    key: Option<u64>,
    priority: u8,
    state: State,
    /// Unix milliseconds.
    expires_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    prefetch: u32,
    no_ack: bool,
    is_cancelled: bool,
}

/// The list, and what is allowed.
struct Model {
    settings: QueueSettings,
    jobs: Vec<Job>,
    workers: BTreeMap<u32, Worker>,
    /// Times of deliveries, by key; all of them are under `None`.
    times: BTreeMap<Option<u64>, Vec<u64>>,
    /// Keys of which something came back while others were in flight.
    held_keys: Vec<u64>,
}

impl Model {
    fn in_flight(&self, key: u64) -> Vec<u32> {
        let of_key = self.jobs.iter().filter(|job| job.key == Some(key));
        of_key.filter_map(|job| if let State::Held(by) = job.state { Some(by) } else { None }).collect()
    }

    fn key_of(&self, at: usize) -> Option<u64> {
        self.jobs[at].key.filter(|_| self.settings.group_key.is_some())
    }

    /// Whether the limits of the queue, and of the key, let this message go to this holder.
    fn may_go(&self, at: usize, to: u32) -> Result<(), String> {
        let held = self.jobs.iter().filter(|job| matches!(job.state, State::Held(_))).count();
        if self.settings.in_flight_max.is_some_and(|max| held >= max as usize) {
            return Err(format!("{held} are in flight"));
        }
        let Some(key) = self.key_of(at) else { return Ok(()) };
        let in_flight = self.in_flight(key);
        if in_flight.iter().any(|by| *by != to) {
            return Err(format!("key {key} is in flight at {in_flight:?}"));
        }
        if in_flight.len() >= self.settings.group_in_flight_max.unwrap_or(1) as usize {
            return Err(format!("{} of key {key} are in flight", in_flight.len()));
        }
        if self.held_keys.contains(&key) {
            return Err(format!("something of key {key} came back and waits for others"));
        }
        let before = self.jobs[..at].iter().position(|job| {
            job.state == State::Ready && job.key == Some(key) && job.priority == self.jobs[at].priority
        });
        match before {
            Some(before) => Err(format!("{before} of key {key} comes before")),
            None => Ok(()),
        }
    }

    fn rates(&self, at: usize) -> Vec<(Rate, Option<u64>)> {
        let of_key = self.key_of(at).and_then(|key| Some((self.settings.group_rate?, Some(key))));
        self.settings.rate.map(|rate| (rate, None)).into_iter().chain(of_key).collect()
    }

    fn deliver(&mut self, seq: u64, to: u32, now_ms: u64) {
        let at = seq as usize - 1;
        assert_eq!(self.jobs[at].state, State::Ready, "{seq} is delivered");
        if let Err(why) = self.may_go(at, to) {
            panic!("{seq} goes to {to}, and {why}: {:#?}", self.jobs);
        }
        let better = (0..self.jobs.len()).find(|other| {
            let job = &self.jobs[*other];
            job.state == State::Ready
                && job.priority > self.jobs[at].priority
                && job.expires_at_ms.is_none()
                && self.rates(*other).is_empty()
                && self.may_go(*other, to).is_ok()
        });
        if let Some(better) = better {
            panic!("{seq} goes to {to}, and {} is of a higher priority: {:#?}", better + 1, self.jobs);
        }
        for (rate, whose) in self.rates(at) {
            let times = self.times.entry(whose).or_default();
            times.push(now_ms);
            let per_ms = if rate == Rate::per_second(20).unwrap() { 0.02 } else { 0.0015 };
            for (before, since_ms) in times.iter().rev().enumerate() {
                let most = 2.0 + (now_ms - since_ms + 50) as f64 * per_ms;
                assert!((before as f64) < most, "{} in {} ms", before + 1, now_ms - since_ms);
            }
        }
        let worker = self.workers.get(&to);
        let held = self.jobs.iter().filter(|job| job.state == State::Held(to)).count();
        if let Some(worker) = worker.filter(|worker| !worker.no_ack && worker.prefetch > 0) {
            assert!(held < worker.prefetch as usize);
        }
        self.jobs[at].state = State::Held(to);
        if worker.is_some_and(|worker| worker.no_ack) {
            self.jobs[at].state = State::Gone;
        }
    }

    fn settle(&mut self, at: usize, how: Settlement) {
        let is_back = matches!(how, Settlement::Requeue | Settlement::Unsent);
        self.jobs[at].state = if is_back { State::Ready } else { State::Gone };
        if let Some(key) = self.key_of(at) {
            if is_back {
                self.held_keys.push(key);
            }
            if self.in_flight(key).is_empty() {
                self.held_keys.retain(|held| *held != key);
            }
        }
    }

    /// What is ready and over goes; what came back at its last moment, too.
    fn expire(&mut self, unix_ms: u64) {
        for job in self.jobs.iter_mut().filter(|job| job.state == State::Ready) {
            if job.expires_at_ms.is_some_and(|at_ms| at_ms <= unix_ms) {
                job.state = State::Gone;
            }
        }
    }

    fn release(&mut self, by: u32) {
        for at in 0..self.jobs.len() {
            if self.jobs[at].state == State::Held(by) {
                self.settle(at, Settlement::Requeue);
            }
        }
    }

    /// Whatever could go has gone, if no rate holds it back.
    fn check_nothing_waits(&self) {
        for (number, worker) in self.workers.iter().filter(|(_, worker)| !worker.is_cancelled) {
            let held = self.jobs.iter().filter(|job| job.state == State::Held(*number)).count();
            if !worker.no_ack && worker.prefetch > 0 && held >= worker.prefetch as usize {
                continue;
            }
            for at in 0..self.jobs.len() {
                let is_stuck = self.jobs[at].state == State::Ready && self.rates(at).is_empty();
                assert!(
                    !(is_stuck && self.may_go(at, *number).is_ok()),
                    "{} could go to {number}: {:#?}",
                    at + 1,
                    self.jobs
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_of_groups_does_what_a_list_allows(
        settings in settings(),
        room in 0..3u8,
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut world = match room {
            0 => World::without_room(),
            1 => World::new(),
            _ => {
                let near = Near { queue_bytes: 1_200, busy_queue_bytes: 2_400, queue_unacked: 2, bytes: 3_000, idle_bytes: 2_000 };
                World::over(MemoryStore::new(), ShardSettings { shards: 2, near, ..ShardSettings::default() })
            }
        };
        world.durable_queue(1, settings.clone());
        let mut model = Model { settings, jobs: vec![], workers: BTreeMap::new(), times: BTreeMap::new(), held_keys: vec![] };
        let mut next_worker = 1;
        for act in acts {
            let pick = |model: &Model, which: usize| {
                let live: Vec<u32> = model.workers.keys().copied().collect();
                (!live.is_empty()).then(|| live[which % live.len()])
            };
            match act {
                Act::Publish { key, priority, persistent, ttl_ms } => {
                    let level = if model.settings.priority_max.is_some() { priority } else { 0 };
                    let expires_at_ms = ttl_ms.map(|ttl_ms| world.now.unix_ms + ttl_ms);
                    model.jobs.push(Job { key, priority: level, state: State::Ready, expires_at_ms });
                    world.command(1, of_key_with_ttl(key, Some(priority), persistent, ttl_ms));
                }
                Act::Consume { prefetch, no_ack } => {
                    let number = next_worker;
                    next_worker += 1;
                    model.workers.insert(number, Worker { prefetch, no_ack, is_cancelled: false });
                    let channel = ChannelId(number as u16 + 1);
                    world.consume_as(1, Consume { prefetch, no_ack, channel, ..consumer_of(number, 1) });
                }
                Act::Cancel(which) => {
                    if let Some(number) = pick(&model, which) {
                        world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(number) });
                        model.workers.get_mut(&number).unwrap().is_cancelled = true;
                    }
                }
                Act::CloseChannel(which) => {
                    if let Some(number) = pick(&model, which) {
                        model.release(number);
                        model.workers.remove(&number);
                        world.ask(1, |call| Command::CloseChannel { call, channel: ChannelId(number as u16 + 1) });
                    }
                }
                Act::Get { no_ack } => {
                    let get = |call| Command::Get { call, channel: ChannelId(1), queue: Q, no_ack };
                    match world.ask(1, get) {
                        Outcome::Got { delivery, .. } => {
                            model.deliver(delivery.seq.0, 0, world.now.ms);
                            if no_ack {
                                model.jobs[delivery.seq.0 as usize - 1].state = State::Gone;
                            }
                        }
                        Outcome::Empty => {
                            let could = (0..model.jobs.len()).find(|at| {
                                model.jobs[*at].state == State::Ready
                                    && model.rates(*at).is_empty()
                                    && model.may_go(*at, 0).is_ok()
                            });
                            prop_assert!(could.is_none(), "{could:?} could be got");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Act::Settle(which, how) => {
                    let held: Vec<usize> = (0..model.jobs.len())
                        .filter(|at| matches!(model.jobs[*at].state, State::Held(_)))
                        .collect();
                    if !held.is_empty() {
                        let at = held[which % held.len()];
                        model.settle(at, how);
                        world.settle(1, at as u64 + 1, how);
                    }
                }
                Act::Purge => {
                    model.jobs.iter_mut().filter(|job| job.state == State::Ready).for_each(|job| job.state = State::Gone);
                    world.ask(1, |call| Command::Purge { call, queue: Q });
                }
                Act::Pass(ms) => {
                    // So that nothing that is due by then can have been delivered before.
                    model.expire(world.now.unix_ms + ms);
                    world.pass(ms);
                }
            }
            // Expired heads may be looked at again, by a timer.
            world.settle_down();
            model.expire(world.now.unix_ms);
            for got in world.deliveries() {
                model.deliver(got.seq, got.consumer, world.now.ms);
            }
            model.check_nothing_waits();
            let count = |is: fn(State) -> bool| model.jobs.iter().filter(|job| is(job.state)).count() as u64;
            let depths = (count(|state| state == State::Ready), count(|state| matches!(state, State::Held(_))));
            prop_assert_eq!(world.depths(1), depths);
        }
    }
}
