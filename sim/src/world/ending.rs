//! Queues declared, and, when everything is over, the reckoning.

use super::{Mood, World};
use crate::ledger::{Draft, Target};
use crate::plan::{QueuePlan, STREAM};
use crate::trace;
use amqp::ChannelId;
use broker::command::{QueueSettings, Shortage};
use broker::inspect::QueueView;

impl World {
    /// Somebody declares everything that is to be there, and leaves.
    pub(super) fn set_up(&mut self) {
        self.mood = Mood::Resting;
        let number = self.connect();
        self.rest_until(|world| world.clients[&number].is_running());
        let on = self.open(number);
        let now_ms = self.now_ms;
        let client = self.clients.get_mut(&number).expect("it does not leave by itself");
        client.declare_exchange(on, now_ms);
        for queue in self.plan.queues.iter().filter(|queue| !queue.exclusive) {
            client.declare(on, queue, now_ms);
            if queue.in_fanout {
                client.bind(on, &queue.name, now_ms);
            }
        }
        for exchange in &self.plan.exchanges {
            client.declare_planned(on, exchange, now_ms);
        }
        client.expect_no_errors();
        self.come_to_rest();
        self.declare_schedule();
        let client = self.clients.get_mut(&number).expect("it does not leave by itself");
        client.check_at_rest();
        client.close_connection(self.now_ms);
        self.come_to_rest();
        assert!(!self.clients.contains_key(&number), "connection.close is answered");
        self.check_files();
    }

    pub(super) fn open(&mut self, number: u64) -> ChannelId {
        let client = self.clients.get_mut(&number).expect("it is there");
        client.open_channel(self.now_ms)
    }

    /// Everything that can happen happens, and time passes, until it is true.
    pub(super) fn rest_until(&mut self, is_enough: impl Fn(&Self) -> bool) {
        let mut steps = 0;
        while !is_enough(self) {
            if !self.go_on_resting() {
                self.pass_time(self.now_ms + 1_000);
            }
            steps += 1;
            assert!(steps < REST_STEPS_MAX, "the world does not come to rest");
        }
    }

    /// Everything that can happen happens, until nothing is left to do but to wait, and for a while after that.
    pub(super) fn come_to_rest(&mut self) {
        let until_ms = self.now_ms + 1_500;
        self.rest_until(|world| world.now_ms >= until_ms);
        self.finish_what_is_left();
    }

    fn finish_what_is_left(&mut self) {
        let mut steps = 0;
        while self.go_on_resting() {
            steps += 1;
            assert!(steps < REST_STEPS_MAX, "the world does not come to rest");
        }
    }

    /// Nobody begins anything new; every queue is drained; and then everything must be as it was promised.
    pub(super) fn come_to_an_end(&mut self) {
        trace::note(format_args!("the end begins"));
        self.mood = Mood::Resting;
        self.repair_disks();
        for client in self.clients.values_mut() {
            if client.is_hostile() {
                client.wire.cut();
            }
            client.stalled_until_ms = 0;
        }
        self.resume_all();
        if self.plan.faults.clock > 0 {
            // What is due when a clock that was set back comes to it is due now.
            self.wall_ms = super::STARTED_UNIX_MS + 48 * 3_600_000;
        }
        if self.plan.ends_in_alarm {
            self.drain_in_alarm();
        }
        self.node.ring(Shortage::default());
        self.come_to_rest();
        self.check_connections();
        // A shard whose disk failed just then has not heard it before.
        self.resume_all();
        self.finish_firing();
        let drainer = self.drain();
        let views = self.all_views();
        self.ledger.inspect(&views);
        self.ledger.check_at_rest(&views);
        self.check_policies();
        self.check_connections();
        if self.plan.probes {
            self.probe();
        }
        self.delete_stream(drainer);
        trace::note(format_args!("everybody leaves ({drainer} drained)"));
        let now_ms = self.now_ms;
        for client in self.clients.values_mut().filter(|client| client.is_running()) {
            client.close_connection(now_ms);
        }
        self.come_to_rest();
        assert!(self.node.connections.is_empty(), "connections remain: {:?}", self.node.connections.keys());
        let views = self.all_views();
        let leftover = views.iter().find(|view| view.spec.owner.is_some() || !view.consumers.is_empty());
        assert!(leftover.is_none(), "remains of connections: {leftover:?}");
        self.check_room(&views);
        self.check_files();
        self.stop();
        let views = self.all_views();
        self.ledger.check_at_rest(&views);
    }

    /// What clients and server know of each other is the same.
    fn check_connections(&self) {
        let is_short = self.node.shortage != Shortage::default();
        for connection in self.node.connections.values() {
            let client = &self.clients[&connection.client];
            if !client.is_hostile() && !client.is_over() {
                let view = connection.view();
                client.check_alarm(&view, is_short);
                // Who is blocked waits, and may have asked anything meanwhile.
                if view.state != "blocked" {
                    client.check_at_rest();
                    client.check_view(&view);
                }
            }
        }
    }

    /// Whoever publishes nothing works on during an alarm: every queue is drained but for what those keep to themselves
    /// that are blocked.
    fn drain_in_alarm(&mut self) {
        self.node.ring(Shortage { memory: true, disk: true });
        self.come_to_rest();
        self.check_connections();
        self.drain();
        self.check_connections();
        let is_anyone_blocked = self.node.connections.values().any(|connection| connection.view().state == "blocked");
        for view in self.all_views() {
            let consumers = view.consumers.iter().map(|consumer| consumer.connection);
            let mut keepers = consumers.chain(view.spec.owner);
            let is_kept = keepers.any(|id| self.node.connections[&id].view().state == "blocked");
            // What somebody got who is blocked, the drainer's being settled, keeps its whole group, or all others when so
            // many are in flight as may be.
            let QueueSettings { group_key, in_flight_max, .. } = &view.spec.settings;
            let is_full = in_flight_max.is_some_and(|max| view.unacked >= u64::from(max));
            let is_held_up = is_anyone_blocked && (group_key.is_some() && view.unacked > 0 || is_full);
            let is_empty = view.ready == 0 || is_kept || is_held_up || view.spec.settings.is_stream();
            let QueueView { ready, unacked, .. } = &view;
            assert!(is_empty, "in an alarm {ready} are left in queue {}, with {unacked} unacked", view.spec.name);
        }
        self.mood = Mood::Resting;
    }

    /// Somebody consumes from every queue until all are empty.
    fn drain(&mut self) -> u64 {
        let drainer = self.connect();
        self.rest_until(|world| world.clients[&drainer].is_running());
        self.consume_from(drainer, |_| true);
        self.mood = Mood::Draining;
        // A dead letter can take as long as messages live, on each station of its way.
        (0..DRAIN_ROUNDS).for_each(|_| self.come_to_rest());
        for _ in 0..KEEPERS_MAX {
            // An exclusive consumer may have kept the drainer out, and be gone by now.
            let is_left = |view: &QueueView| view.ready > 0 && view.consumers.is_empty();
            self.consume_from(drainer, is_left);
            (0..DRAIN_ROUNDS).for_each(|_| self.come_to_rest());
            if !self.all_views().iter().any(is_left) {
                break;
            }
        }
        // What is dealt out at a rate takes its time, as long as it goes on.
        let mut left = self.paced();
        while left > 0 {
            self.come_to_rest();
            let before = std::mem::replace(&mut left, self.paced());
            if left >= before {
                break;
            }
        }
        drainer
    }

    /// How much waits in queues that have a rate.
    fn paced(&mut self) -> u64 {
        let views = self.all_views();
        views.iter().filter(|view| view.spec.settings.rate.is_some()).map(|view| view.ready).sum()
    }

    /// The drainer, or its owner, consumes from each of these queues.
    fn consume_from(&mut self, drainer: u64, is_meant: impl Fn(&QueueView) -> bool) {
        for view in self.all_views().into_iter().filter(|view| is_meant(view)) {
            let owner = view.spec.owner.map(|owner| self.node.connections[&owner].client);
            let number = owner.unwrap_or(drainer);
            if !self.clients[&number].is_running() {
                continue;
            }
            let on = self.open(number);
            let prefetch = *self.random.pick(&[0, 1, 10]);
            let client = self.clients.get_mut(&number).expect("just seen");
            if view.spec.settings.is_stream() {
                client.qos(on, prefetch.max(1), false, self.now_ms);
                client.read_stream(on, "first".into(), self.now_ms);
                continue;
            }
            client.qos(on, prefetch, false, self.now_ms);
            client.consume_plainly(on, &view.spec.name, self.now_ms);
        }
    }

    /// Every connection has to get more than any window holds, and every channel as much as its limit allows, again and
    /// again: whatever was taken from them before has to be back.
    fn probe(&mut self) {
        let numbers: Vec<u64> = self.clients.keys().copied().collect();
        for number in numbers {
            if !self.clients[&number].is_running() {
                continue;
            }
            trace::note(format_args!("c{number} is probed"));
            for round in 0..self.disks.len() {
                // Queues are dealt out to the shards in turn.
                self.probe_window(number, &format!("probe-{number}-{round}"));
            }
        }
    }

    fn probe_window(&mut self, number: u64, queue: &str) {
        let (durable, auto_delete, is_volatile) = (false, true, true);
        let lasting = QueuePlan::lasting(queue, amqp::Table::new());
        let plan = QueuePlan { durable, auto_delete, is_volatile, ..lasting };
        let on = self.open(number);
        let now_ms = self.now_ms;
        let client = self.clients.get_mut(&number).expect("it is there");
        client.declare(on, &plan, now_ms);
        for body_bytes in [400_000; 6].into_iter().chain([10; 6]) {
            let draft = Draft {
                target: Target::Queue(queue.to_owned()),
                persistent: false,
                expiration_ms: None,
                priority: None,
                delay_ms: None,
                mandatory: false,
                has_headers: false,
                wants_reply: false,
                body_bytes,
                is_named: true,
                once: None,
            };
            client.publish(on, draft, &mut self.ledger, now_ms);
        }
        self.come_to_rest();
        // The older channels of the connection consume, too: one at a time, with a limit of their own.
        let client = self.clients.get_mut(&number).expect("it is there");
        let consuming = *self.random.pick(&client.open_channels());
        client.qos(consuming, 1, self.random.one_in(2), now_ms);
        client.consume_plainly(consuming, queue, now_ms);
        self.come_to_rest();
        let views = self.all_views();
        let left = views.iter().find(|view| *view.spec.name == *queue).map_or(0, |view| view.ready + view.unacked);
        assert_eq!(left, 0, "c{number} does not get what waits in {queue}");
        let client = self.clients.get_mut(&number).expect("it is there");
        client.cancel_all(consuming, self.now_ms);
        self.come_to_rest();
    }

    /// A stream keeps what it has, and the logs' lengths are to be looked at.
    fn delete_stream(&mut self, by: u64) {
        if self.plan.queues.iter().any(|queue| queue.name == STREAM) {
            let on = self.open(by);
            let now_ms = self.now_ms;
            self.clients.get_mut(&by).expect("it drained").delete(on, STREAM, now_ms);
            self.come_to_rest();
        }
    }

    /// Nothing is left but facts: the logs must not be much longer than those.
    fn check_room(&mut self, views: &[QueueView]) {
        for _ in 0..10 {
            self.come_to_rest();
        }
        let segment_bytes = self.plan.segment_bytes;
        for (at, disk) in self.disks.iter().enumerate() {
            let used: usize = disk.names().iter().filter_map(|name| disk.file(name)).map(|bytes| bytes.len()).sum();
            let facts = (views.len() + self.plan.queues.len() + 2) as u64 * FACT_BYTES;
            // A segment is as long as its longest record at least.
            let allowed = 2 * facts + 4 * segment_bytes.max(160_000);
            assert!(used as u64 <= allowed, "the log of s{at} keeps {used} bytes where {allowed} are plenty");
        }
    }

    pub(super) fn all_views(&mut self) -> Vec<QueueView> {
        let mut views = Vec::new();
        for at in 0..self.node.shards.len() {
            views.extend(self.views_of(at).expect("the disks are sound"));
        }
        views
    }
}

/// More than rest ever takes.
const REST_STEPS_MAX: u64 = 400_000;
/// Rounds of consuming and waiting.
const DRAIN_ROUNDS: usize = 8;
/// One after the other, so many consumers may keep the drainer out of a queue: those of a blocked client go when their
/// acknowledgements are late.
const KEEPERS_MAX: usize = 4;
/// More than any fact of ours takes.
const FACT_BYTES: u64 = 1_000;
