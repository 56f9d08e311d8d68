//! How a server starts, ends, and starts again.

use super::{Choice, Mood, World};
use crate::ledger::{Bound, Ledger};
use crate::node::{Node, Start};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace;
use amqp::ReplyCode;
use broker::command::{ConnectionEvent, ConnectionId, Fault as Refusal, Now, ShardId, ShardInput};
use broker::shard::ShardSettings;
use std::collections::BTreeMap;
use store::{Fault, MemoryDisk};

impl World {
    pub(super) fn started(mut random: Random, plan: Plan) -> Self {
        let disks: Vec<MemoryDisk> = (0..plan.shards).map(|_| MemoryDisk::new()).collect();
        let ahead_ms = random.scaled(1_000_000);
        let now = Now { ms: ahead_ms, unix_ms: super::STARTED_UNIX_MS };
        let apart = random.clone();
        let node = Node::start(&disks, &start_of(&plan, plan.shards, &mut random, false), now);
        let node = node.unwrap_or_else(|error| panic!("a new server does not start: {error}"));
        Self {
            random,
            plan,
            ledger: Ledger::default(),
            disks,
            node,
            clients: BTreeMap::new(),
            next_client: 0,
            next_connection: 0,
            now_ms: 0,
            ahead_ms,
            wall_ms: super::STARTED_UNIX_MS,
            is_clean: false,
            frozen: None,
            steps: 0,
            choices: Vec::new(),
            mood: Mood::Resting,
            policies: super::policies::Policies::default(),
            schedules: super::schedules::Schedules::default(),
            redrives: super::redrives::Redrives::new(apart.clone()),
            listening: super::listeners::Listening::new(apart),
        }
    }

    /// The store failed: the process ends itself, and the disk keeps what it was given, or not even that.
    pub(super) fn fail(&mut self, sentence: &str) {
        trace::note(format_args!("the server stops: {sentence}"));
        self.crash();
    }

    /// Whether the power is to be cut as this log is written.
    pub(super) fn wants_tear(&mut self, at: usize) -> bool {
        let shard = ShardId(u16::try_from(at).expect("few"));
        let Some(bound) = self.ledger.has_just_bound(shard) else { return false };
        let often = if bound == Bound::Often { 20 } else { 1 };
        self.mood == Mood::Busy && self.plan.tears > 0 && self.random.one_in(self.plan.tears * often)
    }

    /// A log is written, and the power cut before that is synced: its last write ends somewhere, mostly soon before its
    /// end, where there is what was appended last.
    pub(super) fn tear(&mut self, at: usize) {
        let disk = self.disks[at].clone();
        disk.inject(disk.operations() + 2, Fault::Error);
        self.node.step_writer(at, self.now());
        trace::note(format_args!("the power is cut as s{at} writes"));
        let random = &mut self.random;
        // A kept write, or one of which there is what comes before some byte.
        let mut left = 0;
        disk.crash(&mut |bound| {
            left = match left {
                0 if random.one_in(4) => return 0,
                0 => 2,
                left => left - 1,
            };
            match left {
                2 => 2,
                1 => bound - 1,
                _ if random.one_in(3) => random.below(bound - 1),
                _ => bound - 2 - random.below(bound.min(TORN_BYTES) - 1),
            }
        });
        self.crash();
    }

    /// The server is gone at once. Starts a new one.
    pub(super) fn crash(&mut self) {
        self.break_disks();
        self.ledger.crash();
        self.is_clean = false;
        self.restart();
    }

    /// What was not synced is kept, lost or torn.
    fn break_disks(&mut self) {
        for disk in &self.disks {
            let how = self.random.below(3);
            let random = &mut self.random;
            disk.crash(&mut |bound| match how {
                0 => 0,
                1 => 1.min(bound - 1),
                _ => random.below(bound),
            });
        }
    }

    /// A stop in good order, and a new start.
    pub(super) fn stop(&mut self) {
        trace::note(format_args!("the server is told to stop"));
        self.mood = Mood::Resting;
        let crashes = self.ledger.counts().crashes;
        let text = "broker forced connection closure with reason 'shutdown'";
        let ids: Vec<ConnectionId> = self.node.connections.keys().copied().collect();
        for id in ids {
            let fault = Refusal::new(ReplyCode::ConnectionForced, text);
            self.node.post(id, vec![ConnectionEvent::Close(fault)]);
        }
        // Some clients take longer than the server waits.
        let patience = self.random.scaled(2_000);
        for _ in 0..patience {
            if !self.is_anyone_leaving() || !self.go_on_resting() {
                break;
            }
        }
        if self.ledger.counts().crashes > crashes {
            // A disk failed meanwhile, and the server is back already.
            return;
        }
        for shard in &mut self.node.shards {
            shard.mailbox.push_back(ShardInput::Close);
        }
        let told_ms = self.now_ms;
        let is_closed = |world: &Self| {
            world.node.shards.iter().all(|shard| shard.is_closed && shard.is_written && shard.is_cared_for)
        };
        for _ in 0..STOP_STEPS_MAX {
            if is_closed(self) || self.ledger.counts().crashes > crashes {
                break;
            }
            if !self.go_on_resting() {
                if self.now_ms > told_ms + STOP_MS_MAX {
                    break;
                }
                self.pass_time(self.now_ms + 1_000);
            }
        }
        if self.ledger.counts().crashes > crashes {
            // A disk failed meanwhile, and the server is back already.
            return;
        }
        let gave_up = |world: &Self| world.node.shards.iter().any(|shard| shard.is_written && !shard.is_closed);
        if gave_up(self) && self.disks.iter().any(MemoryDisk::is_limited) {
            return self.fail("the disk was full at the stop");
        }
        assert!(is_closed(self), "the server does not come to its stop");
        self.ledger.stopped();
        // On a full disk there may be no room for the note that says so.
        self.is_clean = !self.disks.iter().any(MemoryDisk::is_limited);
        self.restart();
    }

    /// One step of a world in which nobody begins anything; false if there is nothing left to do.
    pub(super) fn go_on_resting(&mut self) -> bool {
        self.find_choices();
        // Writers and caretakers can always be asked; that they have nothing to do is no news.
        let is_always_there = |choice: &Choice| matches!(choice, Choice::Writer(_) | Choice::Caretaker(_));
        if self.choices.iter().all(is_always_there) {
            // A closed shard hears no more news; what its log still has to do goes on.
            self.node.shards.iter_mut().filter(|shard| shard.is_closed).for_each(|shard| shard.has_news = false);
            let choices = self.choices.clone();
            choices.into_iter().for_each(|choice| self.happen(choice));
            return self.node.shards.iter().any(|shard| shard.has_news);
        }
        let choice = *self.random.pick(&self.choices);
        self.happen(choice);
        true
    }

    /// A start says that a disk fails or is full, and the operator sees to it.
    pub(super) fn repair_disks(&self) {
        self.disks.iter().for_each(|disk| {
            disk.heal();
            disk.set_capacity(None);
        });
    }

    fn restart(&mut self) {
        self.hear_of_policies();
        self.hear_of_firings();
        self.listening.forget();
        self.clients.clear();
        self.frozen = None;
        self.disks.iter().for_each(MemoryDisk::heal);
        self.now_ms += self.random.scaled(5_000);
        self.ahead_ms = self.random.scaled(1_000_000);
        if self.plan.faults.clock > 0 && self.random.one_in(3) {
            self.set_wall_clock();
        }
        if self.random.one_in(20) && self.disks.len() < 3 {
            self.disks.push(MemoryDisk::new());
            self.is_clean = false;
        }
        let shards = u16::try_from(self.disks.len()).expect("few");
        let mut start = start_of(&self.plan, shards, &mut self.random, self.is_clean);
        let mut trials = if self.plan.faults.disk > 0 { self.random.below(3) } else { 0 };
        self.node = loop {
            if trials == 0 {
                self.repair_disks();
            } else {
                let disk = self.random.pick(&self.disks).clone();
                let fault = *self.random.pick(&[Fault::Error, Fault::ErrorAfter, Fault::Short]);
                disk.inject(disk.operations() + 1 + self.random.scaled(12), fault);
            }
            match Node::start(&self.disks, &start, self.now()) {
                Ok(node) => break node,
                Err(error) if trials > 0 => {
                    trace::note(format_args!("the server does not start: {error}"));
                    trials -= 1;
                    start.is_clean = false;
                    self.break_disks();
                }
                Err(error) => panic!("the server does not start: {error}"),
            }
        };
        self.repair_disks();
        self.check_policies_after_restart();
        for (at, is_clean) in (0..).zip(&self.node.clean) {
            self.ledger.opened(ShardId(at), *is_clean);
        }
        let mut views = Vec::new();
        for at in 0..self.node.shards.len() {
            let Some(found) = self.views_of(at) else { return };
            views.extend(found);
        }
        self.ledger.recovered(&views);
        self.check_redrive_after_restart(&views);
        self.set_up();
    }
}

fn start_of(plan: &Plan, shards: u16, random: &mut Random, is_clean: bool) -> Start {
    let settings = ShardSettings {
        shards,
        consumer_timeout_ms: plan.consumer_timeout_ms,
        near: plan.near,
        // Nothing drawn: seeds from before there were keys are the runs that they were.
        hash_secret: [1, 2],
        ..ShardSettings::default()
    };
    let salt = u32::try_from(random.below(1 << 32)).expect("below 2^32");
    Start { settings, segment_bytes: plan.segment_bytes, reserve_bytes: plan.reserve_bytes, salt, is_clean }
}

/// About as long as what empties a few places.
const TORN_BYTES: u64 = 60;
/// How long a server waits for a disk that is full.
const STOP_MS_MAX: u64 = 30_000;
/// More than any stop takes.
const STOP_STEPS_MAX: u64 = 200_000;
