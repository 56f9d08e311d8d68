//! One queue with any mix of all features, held against a list of messages.
//!
//! The model knows of each message what was asked for it, and learns from outside where it went: to a consumer, to the
//! queue of dead letters with a reason, nowhere. It says whether that may be so, whether something had to happen that did
//! not, and which messages there must be after each step.

use super::*;
use crate::operation::*;
use amqp::{Properties, Value};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
struct Mix {
    settings: QueueSettings,
    has_room: bool,
    /// How many messages the queue of dead letters takes.
    letters_max: Option<u64>,
}

fn mix() -> impl Strategy<Value = Mix> {
    let overflow =
        prop_oneof![Just(Overflow::DropHead), Just(Overflow::RejectPublish), Just(Overflow::RejectPublishDlx)];
    let retry = (1u64..400, 1u64..400).prop_map(|(min_ms, more)| Retry {
        min_ms,
        max_ms: min_ms + more,
        backoff: Backoff::Linear,
        jitter_percent: 0,
    });
    let span = prop_oneof![Just(Span::Present), (1u32..4).prop_map(|most| Span::Window { most, ttl_ms: None })];
    let shape = (
        prop::option::weighted(0.3, Just("group".to_owned())),
        any::<bool>(),
        prop::option::of(2u32..4),
        prop::option::weighted(0.3, 1u32..5),
        prop::option::weighted(0.2, (1u64..50).prop_map(|rate| Rate::per_second(rate).unwrap())),
    );
    let rest = (
        prop::option::weighted(0.4, 1u8..4),
        prop::option::weighted(0.4, 50u64..1_000),
        prop::option::weighted(0.4, 0u64..6),
        overflow,
        any::<bool>(),
        prop::option::weighted(0.4, 0i64..3),
        prop::option::weighted(0.4, retry),
        prop::option::weighted(0.4, span),
        any::<bool>(),
    );
    let letters_max = prop::option::weighted(0.4, 0u64..4);
    (shape, rest, letters_max).prop_map(|(shape, rest, letters_max)| {
        let (group_key, group_fair, group_in_flight_max, in_flight_max, rate) = shape;
        let (priority_max, message_ttl_ms, length_max, overflow, single_active, delivery_limit, retry, span, has_room) =
            rest;
        let key = KeySource::Header("x-deduplication-header".to_owned());
        let settings = QueueSettings {
            group_fair: group_fair && group_key.is_some(),
            group_in_flight_max: group_in_flight_max.filter(|_| group_key.is_some()),
            group_key,
            in_flight_max,
            rate,
            priority_max,
            message_ttl_ms,
            length_max,
            overflow,
            single_active,
            delivery_limit,
            delayed_retry: retry,
            deduplication: span.map(|span| Deduplication { key, span }),
            dead_letter_exchange: Some(String::new()),
            dead_letter_key: Some("q2".to_owned()),
            ..QueueSettings::default()
        };
        Mix { settings, has_room, letters_max }
    })
}

#[derive(Clone, Debug)]
enum Act {
    Publish {
        group: Option<u8>,
        key: Option<u8>,
        priority: u8,
        ttl_ms: Option<u64>,
        delay_ms: u64,
        persistent: bool,
    },
    Get,
    Consume {
        prefetch: u32,
    },
    Cancel {
        which: usize,
    },
    Close {
        which: usize,
    },
    Settle {
        which: usize,
        how: Settlement,
    },
    /// A worker says why; and what is left of messages that are gone is looked for.
    Fail {
        which: usize,
        sweeps: bool,
    },
    Pass {
        ms: u64,
    },
    Pause(bool),
    Purge,
    /// The queue of dead letters is emptied.
    Drain,
    Operate {
        which: usize,
        act: Wish,
    },
    Change {
        ttl_ms: Option<u64>,
        length_max: Option<u64>,
        in_flight_max: Option<u32>,
    },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Delete,
    Move,
    Requeue,
    Release,
}

fn act() -> impl Strategy<Value = Act> {
    let how = prop_oneof![
        4 => Just(Settlement::Ack),
        2 => Just(Settlement::Discard),
        4 => Just(Settlement::Requeue),
        1 => Just(Settlement::Unsent)
    ];
    let wish = prop_oneof![Just(Wish::Delete), Just(Wish::Move), Just(Wish::Requeue), Just(Wish::Release)];
    let publish = (
        prop::option::weighted(0.8, 0u8..3),
        prop::option::weighted(0.5, 0u8..4),
        0u8..5,
        prop::option::weighted(0.3, 1u64..600),
        prop_oneof![3 => Just(0u64), 1 => 1u64..500],
        prop::bool::weighted(0.8),
    );
    prop_oneof![
        16 => publish.prop_map(|(group, key, priority, ttl_ms, delay_ms, persistent)| {
            // Which keys a restart brings back where transient ones drove others out is not promised.
            let persistent = persistent || key.is_some();
            Act::Publish { group, key, priority, ttl_ms, delay_ms, persistent }
        }),
        3 => Just(Act::Get),
        3 => (0u32..4).prop_map(|prefetch| Act::Consume { prefetch }),
        1 => any::<usize>().prop_map(|which| Act::Cancel { which }),
        1 => any::<usize>().prop_map(|which| Act::Close { which }),
        10 => (any::<usize>(), how).prop_map(|(which, how)| Act::Settle { which, how }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, sweeps)| Act::Fail { which, sweeps }),
        6 => (1u64..400).prop_map(|ms| Act::Pass { ms }),
        1 => any::<bool>().prop_map(Act::Pause),
        1 => Just(Act::Purge),
        2 => Just(Act::Drain),
        4 => (any::<usize>(), wish).prop_map(|(which, act)| Act::Operate { which, act }),
        1 => (prop::option::of(50u64..1_000), prop::option::of(0u64..6), prop::option::of(1u32..5))
            .prop_map(|(ttl_ms, length_max, in_flight_max)| Act::Change { ttl_ms, length_max, in_flight_max }),
        1 => Just(Act::Restart),
    ]
}

/// A connection and a number on it.
type Holder = (u64, u32);

#[derive(Clone, Debug)]
struct Task {
    body: String,
    /// Its place among those of its priority.
    order: usize,
    priority: u8,
    group: Option<u8>,
    key: Option<u8>,
    persistent: bool,
    /// Its own.
    ttl_ms: Option<u64>,
    /// Unix milliseconds.
    expires_at: Option<u64>,
    due_at: u64,
    /// It stands by its time, not by its place.
    is_timed: bool,
    attempts: i64,
    /// Somebody had it.
    came_back: bool,
    holder: Option<(Holder, u64)>,
    /// Why it failed last.
    failure: Option<String>,
}

struct Desk {
    world: World,
    settings: QueueSettings,
    tasks: Vec<Task>,
    /// Keys that a window remembers, the oldest first.
    window: Vec<u8>,
    /// Consumers in the order in which they came, and their prefetch.
    consumers: Vec<(Holder, u32)>,
    is_paused: bool,
    next: usize,
    /// Those that came to the queue of dead letters.
    letters: BTreeSet<String>,
    /// Those that are dead, and have to come there; and what they may have died of.
    owed: Vec<(Task, BTreeSet<&'static str>)>,
    letters_max: Option<u64>,
    /// There may be room that nobody has seen.
    lags: bool,
    delivered: u64,
    counted_from: u64,
}

/// What one act may do beside what follows from the clock.
#[derive(Default)]
struct Expected {
    /// Moved there by an operator.
    moved: BTreeSet<String>,
    rejected: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// The message that is published.
    published: Option<String>,
    may_shrink: bool,
}

impl Desk {
    fn new(mix: Mix) -> Self {
        let mut world = if mix.has_room { World::new() } else { World::without_room() };
        world.durable_queue(1, mix.settings.clone());
        let overflow = Overflow::RejectPublish;
        world.durable_queue(2, QueueSettings { length_max: mix.letters_max, overflow, ..QueueSettings::default() });
        let counted_from = world.now.unix_ms;
        Self {
            world,
            settings: mix.settings,
            tasks: Vec::new(),
            window: Vec::new(),
            consumers: Vec::new(),
            is_paused: false,
            next: 0,
            letters: BTreeSet::new(),
            owed: Vec::new(),
            letters_max: mix.letters_max,
            lags: false,
            delivered: 0,
            counted_from,
        }
    }

    fn now(&self) -> u64 {
        self.world.now.unix_ms
    }

    fn task(&mut self, body: &str) -> &mut Task {
        self.tasks.iter_mut().find(|task| task.body == body).unwrap_or_else(|| panic!("{body} is not in the queue"))
    }

    fn in_flight(&self, of: impl Fn(&Task, Holder) -> bool) -> u32 {
        let held = self.tasks.iter().filter(|task| task.holder.is_some_and(|(holder, _)| of(task, holder)));
        u32::try_from(held.count()).unwrap()
    }

    fn is_waiting(&self, task: &Task) -> bool {
        task.holder.is_none() && task.due_at <= self.now()
    }

    fn is_duplicate(&self, key: Option<u8>) -> bool {
        let Some(key) = key else { return false };
        match self.settings.deduplication.as_ref().map(|rule| rule.span) {
            None => false,
            Some(Span::Present) => self.tasks.iter().any(|task| task.key == Some(key)),
            Some(Span::Window { .. }) => self.window.contains(&key),
        }
    }

    /// The lines that messages stand in: a group's, and that of those without one.
    fn line(&self, task: &Task) -> Option<u8> {
        self.settings.group_key.as_ref().and(task.group)
    }

    fn act(&mut self, act: Act) {
        let mut expected = Expected::default();
        match act {
            Act::Publish { group, key, priority, ttl_ms, delay_ms, persistent } => {
                self.publish(&mut expected, group, key, priority, ttl_ms, delay_ms, persistent);
            }
            Act::Get => self.get(),
            Act::Consume { prefetch } => {
                self.next += 1;
                let holder = (1 + self.next as u64 % 2, u32::try_from(self.next).unwrap());
                self.consumers.push((holder, prefetch));
                self.world.consume(holder.0, holder.1, 1, prefetch);
            }
            Act::Cancel { which } if !self.consumers.is_empty() => {
                let (holder, _) = self.consumers.remove(which % self.consumers.len());
                let cancel = |call| Command::Cancel { call, queue: QueueId(1), consumer: ConsumerNumber(holder.1) };
                self.world.ask(holder.0, cancel);
            }
            Act::Close { which } => {
                let connection = 1 + which as u64 % 3;
                self.consumers.retain(|(holder, _)| holder.0 != connection);
                let held = |task: &Task| task.holder.is_some_and(|(holder, _)| holder.0 == connection);
                let bodies: Vec<_> =
                    self.tasks.iter().filter(|task| held(task)).map(|task| task.body.clone()).collect();
                bodies.iter().for_each(|body| self.back(&mut expected, body, true));
                self.world.ask(connection, |call| Command::CloseChannel { call, channel: ChannelId(1) });
            }
            Act::Settle { which, how } => self.settle(&mut expected, which, how),
            Act::Fail { which, sweeps } => self.fail(which, sweeps),
            Act::Pass { ms } => self.world.pass(ms),
            Act::Pause(is_paused) => {
                self.is_paused = is_paused;
                self.world.operate(1, if is_paused { Operation::Pause } else { Operation::Resume });
            }
            Act::Purge => {
                self.world.ask(1, |call| Command::Purge { call, queue: QueueId(1) });
                self.tasks.retain(|task| task.holder.is_some());
            }
            Act::Drain => {
                for _ in 0..self.world.view(2).ready {
                    let letter = self.world.get(4, 2).expect("as many as are ready");
                    let body = String::from_utf8(letter.message.body().to_vec()).unwrap();
                    assert!(self.letters.contains(&body), "{body} overtook others");
                    self.world.command(4, settle(2, letter.seq.0, Settlement::Ack));
                }
            }
            Act::Operate { which, act } => self.operate(&mut expected, which, act),
            Act::Change { ttl_ms, length_max, in_flight_max } => {
                let settings =
                    QueueSettings { message_ttl_ms: ttl_ms, length_max, in_flight_max, ..self.settings.clone() };
                self.settings = settings.clone();
                expected.may_shrink = true;
                self.world.step(vec![ShardInput::RedeclareQueue { spec: Arc::new(spec(1, settings)) }]);
            }
            Act::Restart => self.restart(),
            Act::Cancel { .. } => {}
        }
        self.world.settle_down();
        self.see(&expected);
    }

    #[allow(clippy::too_many_arguments, reason = "what a message has")]
    fn publish(
        &mut self,
        expected: &mut Expected,
        group: Option<u8>,
        key: Option<u8>,
        priority: u8,
        ttl_ms: Option<u64>,
        delay_ms: u64,
        persistent: bool,
    ) {
        self.next += 1;
        let body = self.next.to_string();
        let delay_value = i64::try_from(delay_ms).unwrap();
        let headers = [("group", group.map(i64::from)), ("x-deduplication-header", key.map(i64::from))];
        let headers = headers.into_iter().chain([("x-delay", (delay_ms > 0).then_some(delay_value))]);
        let headers = headers.filter_map(|(name, value)| Some((name.to_owned(), Value::I64(value?)))).collect();
        let list = PropertyList {
            headers: Some(headers),
            expiration: ttl_ms.map(|ttl_ms| ttl_ms.to_string().into_bytes()),
            delivery_mode: persistent.then_some(2),
            priority: Some(priority),
            ..PropertyList::default()
        };
        let (now, is_duplicate) = (self.now(), self.is_duplicate(key));
        let ready = self.tasks.iter().filter(|task| self.is_waiting(task)).count() as u64;
        // Letters that nobody takes take room, where there is no other way to have some.
        let owed = if self.settings.overflow == Overflow::DropHead { 0 } else { self.owed.len() as u64 };
        let is_full = self.settings.length_max.is_some_and(|most| ready + owed >= most);
        let before = self.world.view(1).counters;
        self.world.command(9, Command::Publish(publication(&[1], &body, &list)));
        let counters = self.world.view(1).counters;
        let refused = counters.refused - before.refused;
        let duplicates = counters.deduplicated - before.deduplicated;
        assert!(refused + duplicates <= 1);
        if refused == 1 {
            assert!(is_full && self.settings.overflow != Overflow::DropHead, "refused with {ready} ready");
            if self.settings.overflow == Overflow::RejectPublishDlx {
                expected.published = Some(body);
            }
            return;
        }
        assert_eq!(duplicates == 1, is_duplicate, "a duplicate");
        if is_duplicate {
            return;
        }
        if is_full && delay_ms == 0 {
            assert_eq!(self.settings.overflow, Overflow::DropHead, "taken with {ready} ready");
        }
        self.remember(key);
        let least_ms = ttl_ms.into_iter().chain(self.settings.message_ttl_ms).min();
        expected.published = Some(body.clone());
        self.tasks.push(Task {
            body,
            order: self.next,
            priority: priority.min(self.settings.priority_max.unwrap_or(0)),
            group,
            key,
            persistent,
            ttl_ms,
            expires_at: least_ms.map(|ttl_ms| now + delay_ms + ttl_ms),
            due_at: now + delay_ms,
            is_timed: delay_ms > 0,
            attempts: 0,
            came_back: false,
            holder: None,
            failure: None,
        });
    }

    fn remember(&mut self, key: Option<u8>) {
        let span = self.settings.deduplication.as_ref().map(|rule| rule.span);
        if let (Some(key), Some(Span::Window { most, .. })) = (key, span) {
            self.window.retain(|known| *known != key);
            self.window.push(key);
            let excess = self.window.len().saturating_sub(most as usize);
            self.window.drain(..excess);
        }
    }

    fn get(&mut self) {
        if self.settings.single_active {
            return;
        }
        let got = self.world.get(3, 1);
        let held: Vec<_> = got.into_iter().map(|delivery| self.taken(&delivery)).collect();
        if !held.is_empty() {
            self.check_deliveries(held);
        } else if self.settings.rate.is_none() && self.settings.group_key.is_none() && !self.is_paused {
            let has_room = self.settings.in_flight_max.is_none_or(|most| self.in_flight(|_, _| true) < most);
            let waits = self.tasks.iter().any(|task| self.is_waiting(task));
            assert!(!(has_room && waits), "a get found nothing");
        }
    }

    fn taken(&self, delivery: &Delivery) -> Got {
        Got {
            connection: 3,
            consumer: 0,
            seq: delivery.seq.0,
            body: String::from_utf8(delivery.message.body().to_vec()).unwrap(),
            redelivered: delivery.redelivered,
        }
    }

    fn settle(&mut self, expected: &mut Expected, which: usize, how: Settlement) {
        let held: Vec<_> = self.tasks.iter().filter(|task| task.holder.is_some()).cloned().collect();
        if held.is_empty() {
            return;
        }
        let task = &held[which % held.len()];
        let ((connection, _), seq) = task.holder.unwrap();
        match how {
            Settlement::Ack => self.tasks.retain(|other| other.body != task.body),
            Settlement::Discard => drop(expected.rejected.insert(task.body.clone())),
            Settlement::Requeue => self.back(expected, &task.body, true),
            Settlement::Unsent => self.back(expected, &task.body, false),
        }
        self.world.settle(connection, seq, how);
    }

    fn fail(&mut self, which: usize, sweeps: bool) {
        let held: Vec<_> = self.tasks.iter().filter_map(|task| Some((task.body.clone(), task.holder?))).collect();
        if !held.is_empty() {
            self.next += 1;
            let (body, ((connection, _), seq)) = held[which % held.len()].clone();
            let reason = format!("why {}", self.next);
            let report = Box::new(Report::Failure(Failure::new(&reason, b"", 0)));
            let told = |call| Command::Report { call, queue: QueueId(1), seq: Seq(seq), report };
            assert!(matches!(self.world.ask(connection, told), Outcome::Applied));
            self.task(&body).failure = Some(reason);
        }
        if sweeps {
            self.world.shard.sweep_failures();
        }
    }

    /// A message comes back from who had it.
    fn back(&mut self, expected: &mut Expected, body: &str, has_failed: bool) {
        let (now, settings) = (self.now(), self.settings.clone());
        let task = self.task(body);
        (task.holder, task.came_back) = (None, true);
        if !has_failed {
            return;
        }
        task.attempts += 1;
        if settings.delivery_limit.is_some_and(|limit| task.attempts > limit) {
            expected.failed.insert(body.to_owned());
        } else if let Some(retry) = settings.delayed_retry {
            let wait_ms = (retry.min_ms * u64::try_from(task.attempts).unwrap()).min(retry.max_ms);
            (task.due_at, task.is_timed) = (now + wait_ms, true);
        }
    }

    fn operate(&mut self, expected: &mut Expected, which: usize, wish: Wish) {
        let now = self.now();
        let is_meant = |task: &&Task| task.holder.is_none() && !(matches!(wish, Wish::Release) && task.due_at <= now);
        let waiting: Vec<_> = self.tasks.iter().filter(is_meant).map(|task| task.body.clone()).collect();
        if waiting.is_empty() {
            return;
        }
        let body = &waiting[which % waiting.len()];
        let seq = self.listed(1).into_iter().find(|shown| shown.message.body() == body.as_bytes()).unwrap().seq;
        let act = match wish {
            Wish::Delete => Act2::Delete,
            Wish::Move => Act2::Move(Target::Queue("q2".to_owned())),
            Wish::Requeue => Act2::Requeue,
            Wish::Release => Act2::Release,
        };
        let which = Which::These(vec![seq]);
        let page = self.world.scan(1, Scan { which, filter: Filter::default(), count: u32::MAX, act });
        let ready = self.tasks.iter().filter(|task| self.is_waiting(task)).count() as u64;
        let is_full = self.settings.length_max.is_some_and(|most| ready >= most);
        if page.refused == 1 && matches!(wish, Wish::Move) {
            assert!(self.letters_are_full(), "who refuses is full");
            return;
        }
        if page.refused == 1 && is_full && self.settings.overflow != Overflow::DropHead {
            assert!(matches!(wish, Wish::Requeue), "a full queue refuses what is new to it");
            return;
        }
        assert_eq!(page.done, 1, "{wish:?} of {body}");
        self.next += 1;
        let (order, queue_ttl_ms) = (self.next, self.settings.message_ttl_ms);
        match wish {
            Wish::Delete => self.tasks.retain(|task| task.body != *body),
            Wish::Move => drop(expected.moved.insert(body.clone())),
            Wish::Release => self.task(body).due_at = now,
            Wish::Requeue => {
                let task = self.task(body);
                let ttl_ms = task.ttl_ms.into_iter().chain(queue_ttl_ms).min();
                *task = Task {
                    order,
                    due_at: now,
                    is_timed: false,
                    attempts: 0,
                    failure: None,
                    expires_at: ttl_ms.map(|ttl_ms| now + ttl_ms),
                    ..task.clone()
                };
                // What comes back is no duplicate, and is remembered.
                let key = task.key;
                self.remember(key);
            }
        }
    }

    fn restart(&mut self) {
        let empty = World::new();
        let world = std::mem::replace(&mut self.world, empty);
        self.world = world.restart_now();
        self.consumers.clear();
        self.tasks.retain(|task| task.persistent);
        self.owed.retain(|(task, _)| task.persistent);
        // Nobody knows any more who asked for room: it is seen after a pause.
        self.lags = !self.owed.is_empty();
        self.tasks.iter_mut().for_each(|task| task.holder = None);
        (self.delivered, self.counted_from) = (0, self.now());
    }

    /// All ready and delayed messages of a queue.
    fn listed(&mut self, queue: u64) -> Vec<Shown> {
        let ready = Which::Ready { from: Cursor::HEAD, until: None };
        let delayed = Which::Delayed { from: Time::FIRST, until: None };
        let all = [ready, delayed].map(|which| {
            let scan = Scan { which, filter: Filter::default(), count: u32::MAX, act: Act2::Show };
            self.world.scan_all(queue, scan).shown
        });
        all.concat()
    }

    fn see(&mut self, expected: &Expected) {
        let deliveries = self.world.deliveries();
        self.see_letters(expected, &deliveries);
        self.check_deliveries(deliveries);
        let is_full = self.letters_are_full();
        let now = self.now();
        let waiting = self.tasks.iter().filter(|task| task.holder.is_none());
        let (ready, delayed): (Vec<_>, Vec<_>) = waiting.partition(|task| task.due_at <= now);
        for task in &self.tasks {
            let is_over = task.holder.is_none() && task.expires_at.is_some_and(|expires_at| expires_at < now);
            assert!(!is_over, "{} had to expire", task.body);
        }
        let view = self.world.view(1);
        assert_eq!(view.owed, self.owed.len() as u64, "owed: {:?}", self.owed);
        assert!(is_full || self.owed.is_empty() || self.lags, "there is room for {:?}", self.owed);
        self.lags &= !self.owed.is_empty();
        let held = self.tasks.len() - ready.len() - delayed.len();
        assert_eq!(
            (view.ready, view.delayed, view.unacked),
            (ready.len() as u64, delayed.len() as u64, held as u64),
            "ready, delayed, unacked"
        );
        let bodies = |tasks: &[&Task]| tasks.iter().map(|task| task.body.clone()).collect::<Vec<_>>();
        let mut wanted = [bodies(&ready), bodies(&delayed)].concat();
        wanted.sort();
        let shown = self.listed(1);
        let mut found: Vec<_> =
            shown.iter().map(|shown| String::from_utf8(shown.message.body().to_vec()).unwrap()).collect();
        found.sort();
        assert_eq!(found, wanted);
        for shown in &shown {
            let task = self.tasks.iter().find(|task| task.body.as_bytes() == shown.message.body()).unwrap();
            assert_eq!(shown.failure.as_ref().map(|failure| &failure.reason), task.failure.as_ref(), "{}", task.body);
        }
        if self.settings.overflow == Overflow::DropHead {
            assert!(self.settings.length_max.is_none_or(|most| view.ready <= most), "{} are ready", view.ready);
        }
        self.check_nobody_waits_in_vain();
    }

    fn letters_are_full(&mut self) -> bool {
        // What was delayed when it was moved there finds room.
        let ready = self.world.view(2).ready;
        self.letters_max.is_some_and(|most| ready >= most)
    }

    /// What is new in the queue of dead letters.
    fn see_letters(&mut self, expected: &Expected, deliveries: &[Got]) {
        let mut dropped = Vec::new();
        let mut letters = self.listed(2);
        letters.sort_by_key(|letter| letter.seq);
        for letter in letters {
            let body = String::from_utf8(letter.message.body().to_vec()).unwrap();
            if !self.letters.insert(body.clone()) {
                continue;
            }
            let properties = Properties::parse(letter.message.properties()).unwrap();
            let headers = properties.headers().unwrap_or_default();
            let reason = headers.get("x-first-death-reason").and_then(Value::as_str).unwrap_or("moved").to_owned();
            let now = self.now();
            let told = letter.failure.map(|failure| failure.reason);
            if let Some(at) = self.owed.iter().position(|(task, _)| task.body == body) {
                let (task, reasons) = self.owed.remove(at);
                assert!(reasons.contains(&*reason), "{body} died of {reason}, and not of {reasons:?}");
                assert_eq!(told, task.failure, "{body}");
                continue;
            }
            if reason == "maxlen" && !self.tasks.iter().any(|task| task.body == body) {
                assert_eq!(expected.published, Some(body), "refused and dead-lettered");
                continue;
            }
            let task = self.task(&body).clone();
            assert_eq!(told, task.failure.clone().filter(|_| reason != "moved"), "{body}");
            match &*reason {
                "expired" => assert!(task.expires_at.is_some_and(|expires_at| expires_at <= now), "{body} lives"),
                "rejected" => assert!(expected.rejected.contains(&body)),
                "delivery_limit" => assert!(expected.failed.contains(&body)),
                "moved" => assert!(expected.moved.contains(&body)),
                "maxlen" => {
                    assert!(self.is_waiting(&task) && self.settings.length_max.is_some());
                    dropped.push(task);
                }
                other => panic!("{body} died of {other}"),
            }
            self.tasks.retain(|task| task.body != body);
        }
        for task in dropped {
            let left = |other: &Task| deliveries.iter().any(|got| got.body == other.body);
            let stays = |other: &&Task| self.is_waiting(other) && !other.is_timed && !left(other);
            let before = |other: &&Task| other.priority == task.priority && other.order < task.order;
            let first = self.tasks.iter().filter(stays).find(before);
            assert!(task.is_timed || first.is_none(), "{} went before {first:?}", task.body);
        }
        self.see_owed(expected, deliveries);
        let went = expected.rejected.iter().chain(&expected.moved).chain(&expected.failed);
        for body in went {
            assert!(!self.tasks.iter().any(|task| task.body == *body), "{body} had to go");
        }
    }

    /// What died, and is in neither queue: its letter is owed.
    fn see_owed(&mut self, expected: &Expected, deliveries: &[Got]) {
        let there: BTreeSet<Vec<u8>> = self.listed(1).into_iter().map(|shown| shown.message.body().to_vec()).collect();
        let now = self.now();
        let (settings, mut owed) = (&self.settings, Vec::new());
        self.tasks.retain(|task| {
            let (is_rejected, has_failed) =
                (expected.rejected.contains(&task.body), expected.failed.contains(&task.body));
            let is_left = deliveries.iter().any(|got| got.body == task.body) || there.contains(task.body.as_bytes());
            if !(is_rejected || has_failed) && (task.holder.is_some() || is_left) {
                return true;
            }
            let has_expired = task.expires_at.is_some_and(|expires_at| expires_at <= now + 1);
            let may_be_dropped = settings.length_max.is_some() && settings.overflow == Overflow::DropHead;
            let reasons = [
                ("rejected", is_rejected),
                ("delivery_limit", has_failed),
                ("expired", has_expired && !is_rejected && !has_failed),
                ("maxlen", may_be_dropped && !is_rejected && !has_failed),
            ];
            let reasons: BTreeSet<_> =
                reasons.into_iter().filter(|(_, may_be)| *may_be).map(|(name, _)| name).collect();
            assert!(!reasons.is_empty(), "{} is lost", task.body);
            owed.push((task.clone(), reasons));
            false
        });
        self.owed.extend(owed);
    }

    fn check_deliveries(&mut self, deliveries: Vec<Got>) {
        let now = self.now();
        for got in &deliveries {
            assert!(!self.is_paused, "{} left a paused queue", got.body);
            let holder = (got.connection, got.consumer);
            let task = self.task(&got.body);
            assert!(task.holder.is_none(), "{} is at two", got.body);
            assert!(task.due_at <= now, "{} came early", got.body);
            assert!(task.expires_at.is_none_or(|expires_at| expires_at >= now), "{} came too late", got.body);
            task.holder = Some((holder, got.seq));
        }
        self.delivered += deliveries.len() as u64;
        if let Some(rate) = self.settings.rate {
            let spent = (1..=self.delivered).find(|count| !may_have_left(rate, *count, now - self.counted_from));
            assert_eq!(spent, None, "{} left at {rate:?}", self.delivered);
        }
        for got in &deliveries {
            let holder = (got.connection, got.consumer);
            let task = self.tasks.iter().find(|task| task.body == got.body).unwrap();
            if let Some(most) = self.settings.in_flight_max {
                assert!(self.in_flight(|_, _| true) <= most, "too many in flight");
            }
            if got.connection != 3 {
                let at = self.consumers.iter().position(|(known, _)| *known == holder).expect("a consumer");
                let prefetch = self.consumers[at].1;
                assert!(prefetch == 0 || self.in_flight(|_, of| of == holder) <= prefetch, "more than its prefetch");
                assert!(!self.settings.single_active || at == 0, "not the active one");
            }
            if let Some(group) = self.line(task) {
                let mine = |task: &Task| task.group == Some(group);
                let most = self.settings.group_in_flight_max.unwrap_or(1);
                assert!(self.in_flight(|task, _| mine(task)) <= most, "more of a group than there may be");
                assert_eq!(self.in_flight(|task, of| mine(task) && of != holder), 0, "a group is at two consumers");
            }
            // Groups go on with what has been read of them: a higher priority may not have been.
            let is_grouped = self.settings.group_fair || self.line(task).is_some();
            // Who takes turns and came back to a place on disk is read again before its turn comes.
            let is_fair = self.settings.group_fair;
            let is_passed_over = |other: &&Task| {
                let is_behind = other.priority < task.priority
                    || (is_fair && other.came_back)
                    || (is_grouped && other.priority > task.priority)
                    || (other.priority == task.priority
                        && (other.is_timed || task.is_timed || other.order > task.order));
                self.is_waiting(other) && self.line(other) == self.line(task) && !is_behind
            };
            let first = self.tasks.iter().find(is_passed_over);
            assert!(first.is_none(), "{} left before {first:?}", task.body);
        }
    }

    fn check_nobody_waits_in_vain(&self) {
        let is_full = self.settings.in_flight_max.is_some_and(|most| self.in_flight(|_, _| true) >= most);
        if self.is_paused || is_full || self.settings.rate.is_some() {
            return;
        }
        let active = if self.settings.single_active { 1 } else { usize::MAX };
        let can_take =
            |(holder, prefetch): &&(Holder, u32)| *prefetch == 0 || self.in_flight(|_, of| of == *holder) < *prefetch;
        if self.consumers.iter().take(active).find(can_take).is_none() {
            return;
        }
        for task in self.tasks.iter().filter(|task| self.is_waiting(task)) {
            let group = self.line(task);
            let is_busy = group.is_some() && self.in_flight(|other, _| other.group == group) > 0;
            assert!(is_busy, "{} waits, and somebody could take it", task.body);
        }
    }
}

/// Whether so many can have left in this time: an even pace, with what 50 ms are worth made up for, and the first one.
fn may_have_left(rate: Rate, count: u64, elapsed_ms: u64) -> bool {
    (1..=50)
        .find(|each| Rate::per_second(*each) == Some(rate))
        .is_none_or(|each| (count - 1) * 1_000 <= (elapsed_ms + 51) * each)
}

use crate::operation::Act as Act2;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_with_any_mix_of_features_is_what_a_list_of_messages_says(
        mix in mix(),
        acts in prop::collection::vec(act(), 1..100),
    ) {
        let mut desk = Desk::new(mix);
        acts.into_iter().for_each(|act| desk.act(act));
    }
}

#[test]
fn a_message_that_was_delayed_is_dropped_from_a_queue_in_which_others_are_parked() {
    let settings = QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        group_key: Some("group".to_owned()),
        ..QueueSettings::default()
    };
    let mut desk = Desk::new(Mix { settings, has_room: true, letters_max: None });
    let publish =
        |group, delay_ms| Act::Publish { group, key: None, priority: 0, ttl_ms: None, delay_ms, persistent: false };
    desk.act(publish(Some(0), 0));
    desk.act(Act::Consume { prefetch: 0 });
    desk.act(publish(None, 1));
    desk.act(publish(Some(0), 0));
    desk.act(publish(Some(0), 0));
    desk.act(Act::Change { ttl_ms: None, length_max: Some(1), in_flight_max: Some(1) });
    desk.act(Act::Pass { ms: 1 });
}
