//! The world: clients, wires, a server with its disks, one clock and one source of chance that decides what happens
//! next.
//!
//! A run is: start a server, declare the queues, let clients do what they like while things go wrong, then let
//! everything come to rest and look whether every promise was kept.

mod disks;
mod ending;
mod fairness;
mod listeners;
mod operator;
mod policies;
mod redrives;
mod restart;
mod schedules;

use crate::client::{Client, Surroundings};
use crate::ledger::{Counts, Ledger};
use crate::node::{ConnectionNode, Node, Phase, StoreFailed};
use crate::plan::{Act, Plan};
use crate::random::Random;
use crate::trace;
use broker::command::{ConnectionId, Now, Shortage};
use broker::inspect::QueueView;
use std::collections::BTreeMap;
use store::{Fault, MemoryDisk};

/// See the module.
#[derive(Debug)]
pub struct World {
    random: Random,
    plan: Plan,
    ledger: Ledger,
    disks: Vec<MemoryDisk>,
    node: Node,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    next_connection: u64,
    /// The world's clock, in milliseconds.
    now_ms: u64,
    /// The server's clock is ahead of it by this, …
    ahead_ms: u64,
    /// … and its wall clock shows this at the beginning of time.
    wall_ms: u64,
    is_clean: bool,
    /// Nothing of this kind happens before that step.
    frozen: Option<(Choice, u64)>,
    steps: u64,
    choices: Vec<Choice>,
    mood: Mood,
    policies: policies::Policies,
    schedules: schedules::Schedules,
    redrives: redrives::Redrives,
    listening: listeners::Listening,
}

/// What clients do of their own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Whatever comes to their minds; and things go wrong.
    Busy,
    /// Nothing.
    Resting,
    /// They acknowledge what they get.
    Draining,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Shard(usize),
    ShardSend(usize),
    Writer(usize),
    Caretaker(usize),
    Catalog,
    CatalogSend,
    Hop(ConnectionId, Option<usize>),
    Mail(ConnectionId),
    Read(ConnectionId),
    Write(ConnectionId),
    End(ConnectionId),
    Tick(ConnectionId),
    ClientRead(u64),
    Settle(u64),
    Act(u64),
}

impl World {
    /// Runs the world of this seed for so many steps, and to its end.
    ///
    /// # Panics
    /// When something happens that must not.
    pub fn run(seed: u64, steps: u64) -> Counts {
        trace::begin(&format!("cargo run -p leveret-sim --release -- --seed {seed} --steps {steps}"));
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        trace::note(format_args!("{plan:?}"));
        let mut world = Self::started(random, plan);
        world.set_up();
        for _ in 0..steps {
            world.go_on();
        }
        world.come_to_an_end();
        world.ledger.counts()
    }

    fn now(&self) -> Now {
        let ms = self.now_ms + self.ahead_ms;
        Now { ms, unix_ms: self.wall_ms + self.now_ms }
    }

    /// One step of a busy world.
    fn go_on(&mut self) {
        self.steps += 1;
        self.mood = Mood::Busy;
        if self.something_goes_wrong() {
            return;
        }
        if self.ledger.has_just_seen() && self.plan.faults.crash > 0 && self.random.one_in(6) {
            trace::note(format_args!("the power is cut as somebody reads a stream"));
            return self.crash();
        }
        let wants_client = self.clients.len() < self.plan.clients && self.random.one_in(20);
        if wants_client {
            self.connect();
            return;
        }
        if self.random.one_in(900) {
            return self.look();
        }
        if self.plan.operates > 0 && self.random.one_in(self.plan.operates) {
            return match self.random.one_in(6) {
                true => self.change_policy(),
                false => self.operate(),
            };
        }
        if self.plan.fires > 0 && self.random.one_in(self.plan.fires) {
            return self.fire();
        }
        if self.wants_redrive() {
            return self.redrive();
        }
        if self.wants_listener() {
            return self.bind_listener();
        }
        if self.plan.tick_ms > 0 && self.random.one_in(40) {
            self.now_ms += self.random.scaled(self.plan.tick_ms);
        } else if self.random.one_in(700) {
            self.pass_time(self.now_ms + 3_000);
        }
        self.find_choices();
        if self.random.one_in(300) && !self.choices.is_empty() {
            let choice = *self.random.pick(&self.choices);
            self.frozen = Some((choice, self.steps + self.random.scaled(400)));
        }
        let (frozen, steps) = (self.frozen, self.steps);
        let is_free = |choice: &Choice| frozen.is_none_or(|(kept, until)| kept != *choice || until < steps);
        self.choices.retain(is_free);
        match self.choices.is_empty() {
            true => self.pass_time(self.now_ms + 1_000),
            false => {
                let choice = *self.random.pick(&self.choices);
                self.happen(choice);
            }
        }
    }

    /// Moves the clock to the next time at which something is due, but not beyond `limit_ms`.
    fn pass_time(&mut self, limit_ms: u64) {
        let due_ms = self.next_due_ms().map_or(limit_ms, |ms| ms.min(limit_ms));
        self.now_ms = self.now_ms.max(due_ms);
        let now_ms = self.now_ms;
        self.clients.values_mut().for_each(|client| client.tick(now_ms));
    }

    fn next_due_ms(&self) -> Option<u64> {
        let shards = self.node.shards.iter().filter_map(crate::node::ShardNode::deadline);
        let connections = self.node.connections.values().filter_map(ConnectionNode::deadline);
        let server = shards.chain(connections).map(|ms| ms.saturating_sub(self.ahead_ms));
        let clients = self.clients.values().map(|client| client.stalled_until_ms);
        server.chain(clients).filter(|ms| *ms > self.now_ms).min()
    }

    fn find_choices(&mut self) {
        let now = self.now();
        let Self { node, clients, choices, .. } = self;
        choices.clear();
        for (at, shard) in node.shards.iter().enumerate() {
            if shard.is_due(now) {
                choices.push(Choice::Shard(at));
            }
            if !shard.outgoing.is_empty() {
                choices.push(Choice::ShardSend(at));
            }
            if !shard.is_written {
                choices.push(Choice::Writer(at));
            }
            if !shard.is_cared_for {
                choices.push(Choice::Caretaker(at));
            }
        }
        if !node.catalog_outgoing.is_empty() {
            choices.push(Choice::CatalogSend);
        } else if !node.catalog_mailbox.is_empty() {
            choices.push(Choice::Catalog);
        }
        for (&id, connection) in &node.connections {
            let wire = clients.get(&connection.client).map(|client| &client.wire).expect("as long as its connection");
            let room = |at: &usize| node.shards[*at].mailbox.len() < self.plan.mailbox_room;
            choices.extend(connection.shards_to_tell().filter(room).map(|at| Choice::Hop(id, Some(at))));
            if connection.has_requests() {
                choices.push(Choice::Hop(id, None));
            }
            if !connection.mailbox.is_empty() {
                choices.push(Choice::Mail(id));
            }
            if connection.can_read(wire) {
                choices.push(Choice::Read(id));
            }
            if connection.can_write(wire) {
                choices.push(Choice::Write(id));
            }
            if connection.can_end() {
                choices.push(Choice::End(id));
            }
            if connection.is_due(now) {
                choices.push(Choice::Tick(id));
            }
        }
        for (&number, client) in clients.iter() {
            let wire = &client.wire;
            let can_read = !wire.to_client.is_empty() || wire.server_ended && !client.is_over();
            if can_read && !wire.is_broken && client.stalled_until_ms <= self.now_ms {
                choices.push(Choice::ClientRead(number));
            }
            if self.mood == Mood::Draining && client.is_running() && client.can_settle() {
                choices.push(Choice::Settle(number));
            }
            if self.mood == Mood::Busy && client.is_running() && wire.to_server.len() < BACKLOG_BYTES {
                choices.push(Choice::Act(number));
            }
        }
    }

    fn happen(&mut self, choice: Choice) {
        let now = self.now();
        match choice {
            Choice::Shard(at) => {
                let readable = self.node.shards[at].readable();
                let count = if readable == 0 { 0 } else { self.random.index(readable + 1) };
                let count = if self.random.one_in(3) { readable } else { count };
                match self.node.step_shard(at, count, now, &mut self.ledger) {
                    Ok(_) => {}
                    Err(StoreFailed(sentence)) => self.fail(&sentence),
                }
            }
            Choice::ShardSend(at) => self.node.send_one(at),
            Choice::Writer(at) if self.wants_tear(at) => self.tear(at),
            Choice::Writer(at) => self.node.step_writer(at, now),
            Choice::Caretaker(at) => self.node.step_caretaker(at, now),
            Choice::Catalog => {
                let count = self.random.index(self.node.catalog_mailbox.len().min(4)) + 1;
                self.node.step_catalog(count, now);
            }
            Choice::CatalogSend => self.node.send_catalog(),
            Choice::Hop(id, shard) => self.node.hop(id, shard),
            Choice::Mail(id) => self.node.connection(id).0.take_mail(now),
            Choice::ClientRead(number) => {
                let client = self.clients.get_mut(&number).expect("chosen from those that are there");
                let length = client.wire.to_client.len();
                let bytes = if self.mood == Mood::Busy { cut(&mut self.random, length) } else { length };
                client.read(bytes, self.now_ms, &mut self.ledger);
            }
            Choice::Settle(number) => {
                self.clients.get_mut(&number).expect("chosen from those that are there").settle_all(self.now_ms);
            }
            Choice::Act(number) => self.act(number),
            Choice::Read(id) | Choice::Write(id) | Choice::End(id) | Choice::Tick(id) => self.serve(choice, id, now),
        }
        self.bury_connections();
    }

    /// A connection's socket.
    fn serve(&mut self, choice: Choice, id: ConnectionId, now: Now) {
        let (connection, topology) = self.node.connection(id);
        let wire = &mut self.clients.get_mut(&connection.client).expect("as long as its connection").wire;
        match choice {
            Choice::Read(_) => {
                let length = wire.to_server.len();
                let bytes = if self.mood == Mood::Busy { cut(&mut self.random, length) } else { length };
                connection.read(bytes, now, wire, topology);
            }
            Choice::Write(_) => {
                let bytes = if self.mood == Mood::Busy { self.random.scaled(1 << 20) + 1 } else { 1 << 20 };
                connection.write(usize::try_from(bytes).expect("a million"), wire);
            }
            Choice::End(_) => connection.end(now, wire),
            _ => connection.tick(now, wire),
        }
    }

    fn act(&mut self, number: u64) {
        let act = Act::ALL[self.random.weighted(&self.plan.acts)];
        self.heed_listeners();
        let Self { random, plan, ledger, now_ms, .. } = self;
        let client = self.clients.get_mut(&number).expect("chosen from those that are there");
        client.act(act, &mut Surroundings { random, plan, ledger, now_ms: *now_ms });
    }

    /// Connections and clients that are through with each other.
    fn bury_connections(&mut self) {
        let over: Vec<ConnectionId> =
            self.node.connections.iter().filter(|(_, node)| node.is_over()).map(|(id, _)| *id).collect();
        for id in over {
            let Some(connection) = self.node.connections.remove(&id) else { continue };
            trace::note(format_args!("{id:?} is over"));
            let client = self.clients.get(&connection.client).expect("as long as its connection");
            if client.is_over() || client.is_hostile() {
                self.clients.remove(&connection.client);
            }
        }
        let served: Vec<u64> = self.node.connections.values().map(|connection| connection.client).collect();
        let is_left = |number: &u64, client: &mut Client| served.contains(number) || !client.is_over();
        self.clients.retain(is_left);
    }

    /// A client connects.
    fn connect(&mut self) -> u64 {
        self.next_client += 1;
        self.next_connection += 1;
        let (number, id) = (self.next_client, ConnectionId(self.next_connection));
        trace::note(format_args!("c{number} connects as {id:?}"));
        self.clients.insert(number, Client::new(number, &self.plan, &mut self.random));
        let shards = u16::try_from(self.disks.len()).expect("few");
        let now = self.now();
        let connection = ConnectionNode::new(id, number, shards, self.node.shortage, &mut self.random, now);
        self.node.connections.insert(id, connection);
        number
    }

    /// Looks at all queues of a shard, and whether they are as they must be.
    fn look(&mut self) {
        let at = self.random.index(self.node.shards.len());
        if let Some(views) = self.views_of(at) {
            self.ledger.inspect(&views);
        }
    }

    fn views_of(&mut self, at: usize) -> Option<Vec<QueueView>> {
        self.node.send_all(at);
        match self.node.inspect(at, self.now(), &mut self.ledger) {
            Ok(views) => Some(views),
            Err(StoreFailed(sentence)) => {
                self.fail(&sentence);
                None
            }
        }
    }

    // --- faults ---------------------------------------------------------------------------------------------------

    /// Whether this step is a fault.
    fn something_goes_wrong(&mut self) -> bool {
        let faults = self.plan.faults.clone();
        let mut strikes = |once_in: u64| once_in > 0 && self.random.one_in(once_in);
        // Most alarms are short.
        let is_short = self.node.shortage != Shortage::default();
        let alarm = if is_short { faults.alarm.min(ALARM_STEPS) } else { faults.alarm };
        let (crash, stop, cut, full, disk, alarm, clock, rot) = (
            strikes(faults.crash),
            strikes(faults.stop),
            strikes(faults.cut),
            strikes(faults.full),
            strikes(faults.disk),
            strikes(alarm),
            strikes(faults.clock),
            strikes(faults.rot),
        );
        if crash {
            trace::note(format_args!("the power is cut"));
            self.crash();
        } else if stop {
            self.stop();
        } else if cut {
            self.cut_somebody();
        } else if disk {
            self.break_a_disk();
        } else if full {
            self.fill_a_disk();
        } else if rot {
            self.turn_a_bit();
        } else if clock {
            self.set_wall_clock();
        } else if alarm {
            let now_on = if is_short { self.random.below(6) } else { 3 - self.random.below(3) };
            self.node.ring(Shortage { memory: now_on == 1 || now_on == 3, disk: now_on == 2 || now_on == 3 });
        }
        crash || stop || cut
    }

    /// To what it was at first, or anything else up to hours from that.
    fn set_wall_clock(&mut self) {
        let by_ms = self.random.scaled(12 * 3_600_000);
        self.wall_ms = *self.random.pick(&[STARTED_UNIX_MS, STARTED_UNIX_MS + by_ms, STARTED_UNIX_MS - by_ms]);
        trace::note(format_args!("the wall clock is set to {}", self.now().unix_ms));
    }

    fn cut_somebody(&mut self) {
        let numbers: Vec<u64> = self.clients.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = *self.random.pick(&numbers);
        let client = self.clients.get_mut(&number).expect("just listed");
        if self.random.one_in(2) {
            trace::note(format_args!("c{number} is cut off"));
            client.wire.cut();
        } else {
            // A client that ends without a word: what it sent still arrives, up to some byte.
            trace::note(format_args!("c{number} dies"));
            let kept = self.random.index(client.wire.to_server.len() + 1);
            client.die(kept);
        }
    }

    fn break_a_disk(&mut self) {
        let disk = self.random.pick(&self.disks).clone();
        let fault = *self.random.pick(&[Fault::Error, Fault::ErrorAfter, Fault::Short, Fault::Short]);
        let at = disk.operations() + 1 + self.random.scaled(30);
        trace::note(format_args!("a disk will have {fault:?} at operation {at}"));
        disk.inject(at, fault);
    }

    /// Until the next start, for which the operator puts the file back. Whoever reads it meanwhile has to notice.
    fn turn_a_bit(&mut self) {
        let disk = self.random.pick(&self.disks);
        let name = self.random.pick(&disk.names()).clone();
        let bytes = disk.file(&name).unwrap_or_default().len();
        let (at, bit) = (self.random.below(bytes as u64 + 1), self.random.below(8));
        trace::note(format_args!("bit {bit} of byte {at} of {name} turns over"));
        disk.rot(&name, at, u8::try_from(bit).expect("below 8"));
    }

    fn fill_a_disk(&mut self) {
        let disk = self.random.pick(&self.disks);
        let used: usize = disk.names().iter().filter_map(|name| disk.file(name)).map(|bytes| bytes.len()).sum();
        trace::note(format_args!("a disk runs full"));
        disk.set_capacity(Some(used as u64 + self.random.scaled(3_000)));
    }

    /// Whether anybody waits for the end of a connection.
    fn is_anyone_leaving(&self) -> bool {
        self.node.connections.values().any(|connection| connection.phase != Phase::Gone)
    }
}

/// How much of what is there is read at once: all, a few bytes, or anything.
fn cut(random: &mut Random, length: usize) -> usize {
    match random.below(4) {
        0 | 1 => length,
        2 => random.index(length + 1).max(length.min(1)),
        _ => length.min(random.index(12) + 1),
    }
}

/// Some time in 2023.
const STARTED_UNIX_MS: u64 = 1_700_000_000_000;
/// An alarm ends or changes once in so many steps.
const ALARM_STEPS: u64 = 500;
/// A client that has sent this much that was not read waits.
const BACKLOG_BYTES: usize = 64 << 10;
