//! Whatever a power cut leaves of a log: what is to take effect together has done so, or has not.
//!
//! A server does one thing, and everything that it wrote then is cut off at every byte in turn; over each of these logs a
//! new server starts, and tells what it has. The runs of the simulator cut the power at any time, and so seldom between
//! two records of one thing.

use amqp::{ChannelId, PropertyList, Table, Value};
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{
    Batch, CallId, CatalogAsk, CatalogInput, CatalogRequest, Command, ConnectionEvent, ConnectionId, DeclareQueue, Now,
    Outbox, Outcome, Publish, QueueId, Settle, Settlement, ShardId, ShardInput, VhostId,
};
use broker::message::{Message, MessageParts};
use broker::operation::{Act, Answer, Cursor, Filter, Operation, Origin, Scan, Target, Which};
use broker::schedule::{Fire, Firing, Missed, Schedule, ScheduleId, Timing};
use broker::shard::{Shard, ShardSettings};
use broker::topology::Topology;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use store::{Caretaker, MemoryDisk, Options, SegmentLog, Writer};

/// One shard with its log, and the catalog.
struct Server {
    shard: Shard<SegmentLog>,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
    catalog: Catalog,
    topology: Topology,
    now: Now,
    out: Outbox,
}

/// Ready messages, each as its queue and body, and those whose dead letter is owed, as their queue; sorted.
type Contents = Vec<String>;

impl Server {
    fn start(disk: &MemoryDisk) -> Self {
        let now = Now { ms: 1_000, unix_ms: 1_700_000_000_000 };
        let settings = ShardSettings { shards: 1, hash_secret: [1, 2], ..ShardSettings::default() };
        let options = Options { segment_bytes: 1 << 20, salt: 1, reserve_bytes: 0, progress: None };
        let mut recovery = Shard::<SegmentLog>::recover(ShardId(0), settings, now);
        let replay = &mut |lsn, record: store::Record<'_>| recovery.replay(lsn, record);
        let opened = SegmentLog::open(disk.clone(), options, replay).expect("a sound log");
        let (shard, facts) = recovery.finish(opened.log, opened.report.clean).expect("records that make sense");
        let facts = facts.into_iter().map(|(key, value)| (ShardId(0), key, value));
        let mut first = CatalogOutbox::default();
        let (catalog, topology) = Catalog::recover(1, 1, facts, &mut first).expect("facts that make sense");
        let (writer, caretaker, out) = (opened.writer, opened.caretaker, Outbox::default());
        let mut server = Self { shard, writer, caretaker, catalog, topology, now, out };
        server.step(first.shards.into_iter().map(|(_, input)| input).collect());
        server.rest();
        server
    }

    fn step(&mut self, mut inbox: Vec<ShardInput>) {
        self.shard.step(self.now, &mut inbox, &self.topology, &mut self.out);
        assert_eq!(self.out.failed, None);
        for report in std::mem::take(&mut self.out.catalog) {
            self.tell_catalog(CatalogInput::Report(report));
        }
    }

    fn tell_catalog(&mut self, input: CatalogInput) {
        let mut out = CatalogOutbox::default();
        self.catalog.step(self.now, input, &mut self.topology, &mut out);
        let inbox: Vec<ShardInput> = out.shards.into_iter().map(|(_, input)| input).collect();
        if !inbox.is_empty() {
            self.step(inbox);
        }
    }

    /// Everything is done and on disk.
    fn rest(&mut self) {
        for _ in 0..8 {
            // The writer syncs what nobody waits for after a while.
            self.now.ms += 300;
            self.now.unix_ms += 300;
            self.writer.step(Duration::from_millis(self.now.ms));
            self.caretaker.step(Duration::from_millis(self.now.ms));
            self.step(vec![]);
        }
    }

    fn declare(&mut self, name: &str, arguments: &[(&str, Value)]) {
        let table: Table = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        self.ask_catalog(CatalogAsk::DeclareQueue(DeclareQueue {
            name: name.to_owned(),
            server_named: false,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: table,
        }));
    }

    fn ask_catalog(&mut self, ask: CatalogAsk) {
        let (connection, call, vhost) = (ConnectionId(1), CallId(1), VhostId(0));
        self.tell_catalog(CatalogInput::Request(CatalogRequest { connection, call, vhost, user: None, ask }));
        self.rest();
    }

    fn queue(&self, name: &str) -> QueueId {
        self.topology.queue(VhostId(0), name).unwrap_or_else(|| panic!("no queue {name}")).queue.id
    }

    /// A persistent message, with its body as its id.
    fn message(&self, queue: &str, body: &str) -> Publish {
        let id = Some(body.as_bytes().to_vec());
        let list = PropertyList { delivery_mode: Some(2), message_id: id, ..PropertyList::default() };
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        let parts = MessageParts { exchange: "", routing_key: queue, properties: &properties, died_here: false };
        Publish {
            queues: self.queue(queue).into(),
            message: Message::new(parts, body.as_bytes()),
            more: Vec::new(),
            persistent: true,
            expiration_ms: None,
            priority: None,
            delay: None,
            confirm: false,
        }
    }

    fn commands(&mut self, commands: Vec<Command>) {
        self.step(vec![ShardInput::Batch(Batch { connection: ConnectionId(1), commands })]);
    }

    fn publish(&mut self, queue: &str, body: &str) {
        let publish = self.message(queue, body);
        self.commands(vec![Command::Publish(publish)]);
    }

    /// Takes the first message, and tells how it is to be settled.
    fn get(&mut self, queue: &str, how: Settlement) -> Command {
        let queue = self.queue(queue);
        self.commands(vec![Command::Get { call: CallId(9), channel: ChannelId(1), queue, no_ack: false }]);
        self.rest();
        let events = std::mem::take(&mut self.out.connections).into_iter().flat_map(|(_, events)| events);
        let got = events.filter_map(|event| match event {
            ConnectionEvent::Done { outcome: Outcome::Got { delivery, .. }, .. } => Some(delivery.seq),
            _ => None,
        });
        let seq = got.last().expect("a message");
        Command::Settle(Settle { queue, seq, count: 1, how })
    }

    /// Does that to the ready messages of a queue, up to so many.
    fn scan(&mut self, queue: &str, count: u32, act: Act) -> Answer {
        let which = Which::Ready { from: Cursor::HEAD, until: None };
        let operation = Operation::Scan(Scan { which, filter: Filter::default(), count, act });
        self.step(vec![ShardInput::Operate { ticket: 5, queue: self.queue(queue), operation }]);
        self.rest();
        self.out.answers.pop().expect("an answer").1
    }

    fn declare_schedule(&mut self) {
        let schedule = Schedule {
            id: ScheduleId::default(),
            vhost: VhostId(0),
            name: "schedule".into(),
            timing: Timing::Every { ms: 1 },
            exchange: String::new(),
            routing_key: String::new(),
            properties: Bytes::from_static(&[0, 0]),
            body: Bytes::new(),
            missed: Missed::All,
            is_enabled: true,
            start_ms: None,
            end_ms: None,
            since_ms: 0,
        };
        self.ask_catalog(CatalogAsk::SetSchedule(Box::new(schedule)));
    }

    /// An occurrence of that schedule.
    fn fire(&mut self, queue: &str, at_ms: u64) {
        let publish = Some(self.message(queue, &at_ms.to_string()));
        let schedule = self.topology.schedule(VhostId(0), "schedule").expect("it was declared").id;
        let firing = Firing { schedule, at_ms, shards: vec![ShardId(0)], ..Firing::default() };
        self.step(vec![ShardInput::Fire(Box::new(Fire { ticket: 6, firing, publish }))]);
        self.rest();
    }

    fn contents(&mut self) -> Contents {
        self.step(vec![ShardInput::Inspect { ticket: 1, queue: None }]);
        let views = self.out.views.pop().expect("views").1;
        let mut contents = Vec::new();
        for view in views {
            let name = view.spec.name.clone();
            assert_eq!((view.unacked, view.delayed), (0, 0), "{name} rests");
            contents.extend((0..view.owed).map(|_| format!("{name} owes one")));
            let Answer::Page(page) = self.scan(&name, 100, Act::Show) else { panic!("no page of {name}") };
            let bodies = page.shown.iter().map(|shown| String::from_utf8_lossy(shown.message.body()).into_owned());
            contents.extend(bodies.map(|body| format!("{name}: {body}")));
        }
        contents.sort();
        contents
    }
}

/// What there is after each cut of what `act` wrote, once that is done which is to be done `then`: each only once, in the
/// order in which it first appears.
fn after_each_cut(
    set_up: impl Fn(&mut Server),
    act: impl Fn(&mut Server),
    then: impl Fn(&mut Server),
) -> Vec<Contents> {
    let disk = MemoryDisk::new();
    let mut server = Server::start(&disk);
    set_up(&mut server);
    server.rest();
    let names = disk.names();
    let name = names.iter().rfind(|name| name.ends_with(".log")).expect("a log").clone();
    let before = disk.written(&name).expect("it is there").len();
    act(&mut server);
    server.rest();
    let log = disk.written(&name).expect("it is there");
    assert!(log.len() > before, "something was written");
    let room = &disk.file(&name).expect("it is there")[log.len()..];
    let mut found: Vec<Contents> = Vec::new();
    for (length, room) in (before..=log.len()).flat_map(|length| [(length, &[][..]), (length, room)]) {
        let cut = MemoryDisk::new();
        for other in &names {
            cut.put(other, disk.file(other).expect("nothing is removed"));
        }
        cut.put(&name, [&log[..length], room].concat());
        let mut server = Server::start(&cut);
        then(&mut server);
        server.rest();
        let contents = server.contents();
        if !found.contains(&contents) {
            found.push(contents);
        }
    }
    found
}

fn nothing(_: &mut Server) {}

/// Two queues, and a message in the first.
fn two_queues(server: &mut Server) {
    server.declare("q", &[]);
    server.declare("other", &[]);
    server.publish("q", "a");
}

/// A queue with a message whose dead letter goes to another one.
fn dying(server: &mut Server, strategy: &str, graves: &[(&str, Value)]) {
    server.declare("graves", graves);
    let to = [("x-dead-letter-exchange", "".into()), ("x-dead-letter-routing-key", "graves".into())];
    server.declare("q", &[&to[..], &[("x-dead-letter-strategy", strategy.into())]].concat());
    server.publish("q", "a");
}

#[test]
fn a_message_that_an_operator_moves_is_in_one_place() {
    let to_other = || Act::Move(Target::Queue("other".to_owned()));
    let found = after_each_cut(two_queues, |server| drop(server.scan("q", 1, to_other())), nothing);
    assert_eq!(found, [["q: a"], ["other: a"]]);
}

#[test]
fn a_message_that_an_operator_puts_at_the_end_is_there_once() {
    let set_up = |server: &mut Server| {
        two_queues(server);
        server.publish("q", "b");
    };
    let found = after_each_cut(set_up, |server| drop(server.scan("q", 1, Act::Requeue)), nothing);
    assert_eq!(found, [["q: a", "q: b"]]);
}

#[test]
fn a_message_that_is_rejected_is_in_its_queue_or_a_dead_letter() {
    for strategy in ["at-most-once", "at-least-once"] {
        let act = |server: &mut Server| {
            let reject = server.get("q", Settlement::Discard);
            server.commands(vec![reject]);
        };
        let found = after_each_cut(|server| dying(server, strategy, &[]), act, nothing);
        assert_eq!(found, [["q: a"], ["graves: a"]], "{strategy}");
    }
}

#[test]
fn a_letter_that_is_owed_is_owed_until_it_is_taken() {
    let few = [("x-max-length", Value::I64(1)), ("x-overflow", "reject-publish".into())];
    let set_up = |server: &mut Server| {
        dying(server, "at-least-once", &few);
        server.publish("graves", "first");
    };
    let reject = |server: &mut Server| {
        let reject = server.get("q", Settlement::Discard);
        server.commands(vec![reject]);
    };
    let found = after_each_cut(set_up, reject, nothing);
    assert_eq!(found, [["graves: first", "q: a"], ["graves: first", "q owes one"]]);
    let make_room = |server: &mut Server| {
        let acknowledge = server.get("graves", Settlement::Ack);
        server.commands(vec![acknowledge]);
    };
    let owing = |server: &mut Server| {
        set_up(server);
        reject(server);
    };
    let found = after_each_cut(owing, make_room, nothing);
    // What was acknowledged is noted at the end of a step, and may come again; the letter is there once all the same.
    let [owed, taken, both] = ["q owes one", "graves: a", "graves: first"];
    assert_eq!(found, [&[both, owed][..], &[taken, both], &[taken]]);
}

#[test]
fn a_dead_letter_that_goes_back_is_in_one_place() {
    let set_up = |server: &mut Server| {
        dying(server, "at-least-once", &[]);
        let reject = server.get("q", Settlement::Discard);
        server.commands(vec![reject]);
    };
    let redrive = |server: &mut Server| drop(server.scan("graves", 1, Act::Redrive(Origin::Last)));
    let found = after_each_cut(set_up, redrive, nothing);
    assert_eq!(found, [["graves: a"], ["q: a"]]);
}

#[test]
fn a_transaction_is_there_as_a_whole() {
    let commit = |server: &mut Server| {
        let acknowledge = server.get("q", Settlement::Ack);
        let publishes = ["b", "c"].map(|body| Command::Publish(server.message("other", body)));
        server.commands(vec![Command::Transaction([acknowledge].into_iter().chain(publishes).collect())]);
    };
    let found = after_each_cut(two_queues, commit, nothing);
    assert_eq!(found, [&["q: a"][..], &["other: b", "other: c"]]);
}

#[test]
fn a_key_is_remembered_with_its_message() {
    let set_up = |server: &mut Server| {
        let window = [("x-message-deduplication", Value::Bool(true)), ("x-cache-size", Value::I64(10))];
        server.declare("q", &[&window[..], &[("x-deduplication-key", "message-id".into())]].concat());
    };
    let publish = |server: &mut Server| server.publish("q", "a");
    let found = after_each_cut(set_up, publish, publish);
    assert_eq!(found, [["q: a"]], "who publishes it again adds what is not there, and nothing else");
}

#[test]
fn an_occurrence_is_noted_with_its_message() {
    let set_up = |server: &mut Server| {
        server.declare("q", &[]);
        server.declare_schedule();
    };
    let fire = |server: &mut Server| server.fire("q", 100);
    assert_eq!(after_each_cut(set_up, fire, nothing), [&[][..], &["q: 100"]]);
    assert_eq!(after_each_cut(set_up, fire, fire), [["q: 100"]], "whoever asks again gets it once");
}
