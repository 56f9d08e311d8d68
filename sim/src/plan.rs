//! What a run is made of: how many of everything, which queues, what clients like to do, what goes wrong how often.
//! All of it follows from the seed.

use crate::ledger::GROUP_KEY;
use crate::random::Random;
use amqp::{Table, Value};
use broker::shard::Near;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shards, 1 to 3.
    pub shards: u16,
    /// Clients at a time.
    pub clients: usize,
    /// Queues that exist from the beginning, or again as soon as the server is back.
    pub queues: Vec<QueuePlan>,
    /// How likely each [`Act`] is, by its position in [`Act::ALL`].
    pub acts: [u32; Act::ALL.len()],
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Size of a log's segments, in bytes.
    pub segment_bytes: u64,
    /// What each log keeps for the time when its disk is full, in bytes.
    pub reserve_bytes: u64,
    /// What stays in memory.
    pub near: Near,
    /// The largest usual body, in bytes.
    pub body_bytes_max: u64,
    /// How many batches a shard's mailbox holds.
    pub mailbox_room: usize,
    /// How far the clock moves at most between two steps, in milliseconds.
    pub tick_ms: u64,
    /// The server's acknowledgement timeout, in milliseconds; 0 = none.
    pub consumer_timeout_ms: u64,
    /// An operator does something once in so many steps; 0 = never.
    pub operates: u64,
    /// After the run, every connection has to prove that its windows and limits are whole.
    pub probes: bool,
    /// Before the run comes to rest, everything that can be is drained while alarms are on.
    pub ends_in_alarm: bool,
    /// Exchanges of other types than the usual ones.
    pub exchanges: Vec<ExchangePlan>,
    /// A schedule fires once in so many steps; 0 = never.
    pub fires: u64,
    /// Dead letters are redriven once in so many steps; 0 = never.
    pub redrives: u64,
    /// A queue is bound to an exchange that keeps its last messages once in so many steps; 0 = there is none.
    pub listens: u64,
    /// The power is cut as a log is written that has something which counts only as a whole, once in so many times; 0 =
    /// never.
    pub tears: u64,
}

/// An exchange, and whom it leads to.
#[derive(Clone, Debug)]
pub struct ExchangePlan {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its x-arguments.
    pub arguments: Table,
    /// Queues and binding keys.
    pub bindings: Vec<(String, &'static str)>,
    /// What becomes of a message.
    pub rule: Rule,
}

/// What an exchange does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One queue gets it.
    One,
    /// One queue gets all that have its key.
    Sticky,
    /// So many queues get it.
    All(usize),
    /// Each of so many queues gets one that has its deduplication key.
    Once,
    /// All queues get it that are bound, or will be soon.
    Listeners,
    /// As the exchange does that follows.
    Other,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueuePlan {
    /// Its name.
    pub name: String,
    /// Survives the server.
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Belongs to whoever declares it.
    pub exclusive: bool,
    /// Clients delete it and declare it again; others are there all the time.
    pub is_volatile: bool,
    /// Bound to the fanout exchange.
    pub in_fanout: bool,
    /// Its x-arguments.
    pub arguments: Table,
}

impl QueuePlan {
    /// A durable queue that is there all the time, bound to nothing.
    #[must_use]
    pub fn lasting(name: &str, arguments: Table) -> Self {
        Self {
            name: name.to_owned(),
            durable: true,
            auto_delete: false,
            exclusive: false,
            is_volatile: false,
            in_fanout: false,
            arguments,
        }
    }
}

/// How often what goes wrong: once in so many steps, 0 = never.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Power cut.
    pub crash: u64,
    /// An operation on a disk fails, or is cut short.
    pub disk: u64,
    /// Clean stop and start.
    pub stop: u64,
    /// A connection breaks.
    pub cut: u64,
    /// A disk runs full.
    pub full: u64,
    /// An alarm for memory or disk space goes on.
    pub alarm: u64,
    /// A bit of what is on a disk turns over.
    pub rot: u64,
    /// Somebody sets the server's wall clock, by up to hours in either direction.
    pub clock: u64,
}

/// What a client can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a method of the protocol, or says what it is")]
pub enum Act {
    OpenChannel,
    CloseChannel,
    SelectConfirms,
    SelectTransactions,
    Commit,
    Rollback,
    Publish,
    Consume,
    Cancel,
    Get,
    Ack,
    Nack,
    Reject,
    Recover,
    Qos,
    Declare,
    DeclarePassive,
    DeclareTemporary,
    DeclareSide,
    DeleteSide,
    ConsumeReplies,
    Request,
    Delete,
    Purge,
    Unbind,
    Bind,
    CloseConnection,
    Stall,
    Mischief,
    Misuse,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 30] = [
        Self::OpenChannel,
        Self::CloseChannel,
        Self::SelectConfirms,
        Self::SelectTransactions,
        Self::Commit,
        Self::Rollback,
        Self::Publish,
        Self::Consume,
        Self::Cancel,
        Self::Get,
        Self::Ack,
        Self::Nack,
        Self::Reject,
        Self::Recover,
        Self::Qos,
        Self::Declare,
        Self::DeclarePassive,
        Self::DeclareTemporary,
        Self::DeclareSide,
        Self::DeleteSide,
        Self::ConsumeReplies,
        Self::Request,
        Self::Delete,
        Self::Purge,
        Self::Unbind,
        Self::Bind,
        Self::CloseConnection,
        Self::Stall,
        Self::Mischief,
        Self::Misuse,
    ];

    fn usual_weight(self) -> u32 {
        match self {
            Self::Publish => 300,
            Self::Ack => 250,
            Self::Consume => 60,
            Self::Get => 60,
            Self::Nack | Self::Reject => 40,
            Self::OpenChannel | Self::SelectConfirms => 25,
            Self::Commit | Self::Qos | Self::Cancel | Self::Declare => 20,
            Self::Stall | Self::Recover => 8,
            Self::CloseChannel | Self::DeclarePassive | Self::SelectTransactions | Self::Rollback => 6,
            Self::Request => 10,
            Self::ConsumeReplies | Self::DeclareSide => 5,
            Self::DeleteSide => 3,
            Self::DeclareTemporary | Self::Delete | Self::Purge | Self::Unbind | Self::Bind => 4,
            Self::CloseConnection => 2,
            Self::Mischief | Self::Misuse => 1,
        }
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let shards = u16::try_from(random.between(1, 3)).expect("three at most");
        let mut acts = Act::ALL.map(Act::usual_weight);
        // Each run has likes and dislikes of its own.
        for weight in &mut acts {
            match random.below(8) {
                0 => *weight = 0,
                1 => *weight *= 5,
                _ => {}
            }
        }
        let always = |act| Act::ALL.iter().position(|other| *other == act).expect("all acts are listed");
        for act in [Act::OpenChannel, Act::Publish, Act::Consume, Act::Ack] {
            acts[always(act)] = acts[always(act)].max(act.usual_weight() / 2);
        }
        // Drawn aside, so that seeds from before there were alarms still are the runs that they were.
        let mut aside = random.clone();
        let often =
            |random: &mut Random, steps: u64| if random.one_in(3) { 0 } else { random.between(steps / 4, steps * 4) };
        let faults = FaultPlan {
            crash: often(random, 6_000),
            disk: often(random, 12_000),
            stop: often(random, 12_000),
            cut: often(random, 3_000),
            full: often(random, 40_000),
            alarm: often(&mut aside, 2_000),
            clock: often(&mut aside, 4_000),
            rot: often(&mut aside, 12_000),
        };
        let ends_in_alarm = faults.alarm > 0 && aside.one_in(2);
        let operates = often(&mut aside, 300);
        let clients = random.index(5) + 1;
        let mut queues = queues(random, &mut aside);
        let mut exchanges = exchanges(&queues, &mut aside);
        let fires = if queues.iter().any(|queue| queue.name == SCHEDULED[0]) { aside.between(40, 400) } else { 0 };
        let has_graves = queues.iter().any(|queue| queue.name == GRAVES);
        let redrives = if has_graves && aside.one_in(2) { aside.between(20, 300) } else { 0 };
        let listens = if aside.one_in(4) { aside.between(100, 1_500) } else { 0 };
        let tears = if faults.crash > 0 && aside.one_in(2) { aside.between(2, 12) } else { 0 };
        if listens > 0 {
            queues.extend(LISTENERS.map(|name| QueuePlan::lasting(name, Table::new())));
            exchanges.push(chat());
        }
        Self {
            shards,
            operates,
            clients,
            exchanges,
            fires,
            redrives,
            listens,
            tears,
            queues,
            acts,
            faults,
            segment_bytes: *random.pick(&[600, 2_000, 8_000, 64_000, 1 << 20]),
            reserve_bytes: *random.pick(&[0, 500, 4_000]),
            near: *random.pick(&[Near::default(), ROOMY, TIGHT, NONE]),
            body_bytes_max: *random.pick(&[8, 64, 64, 2_000, 20_000, 300_000]),
            mailbox_room: random.index(12) + 1,
            tick_ms: *random.pick(&[0, 1, 1, 5, 50]),
            consumer_timeout_ms: *random.pick(&[0, 1_800_000, 1_800_000, 20_000]),
            probes: random.one_in(3),
            ends_in_alarm,
        }
    }
}

impl Plan {
    /// One queue, and nothing goes wrong.
    #[must_use]
    pub fn fair(random: &mut Random) -> Self {
        let mut plan = Self::new(random);
        plan.queues = vec![QueuePlan { durable: random.one_in(2), ..QueuePlan::lasting("plain", Table::new()) }];
        plan.exchanges.clear();
        plan.fires = 0;
        (plan.redrives, plan.listens, plan.tears) = (0, 0, 0);
        plan.faults = FaultPlan::default();
        plan
    }
}

impl Plan {
    /// The queues that clients publish to and bind.
    #[must_use]
    pub fn open_queues(&self) -> Vec<&QueuePlan> {
        self.queues.iter().filter(|queue| queue.name != SHELF).collect()
    }
}

fn exchanges(queues: &[QueuePlan], aside: &mut Random) -> Vec<ExchangePlan> {
    let is_limited = |queue: &QueuePlan| {
        let limits = ["x-max-length", "x-max-length-bytes", "x-message-ttl"];
        limits.into_iter().any(|limit| queue.arguments.get(limit).is_some())
    };
    let stays = |queue: &&QueuePlan| {
        let is_ours = [STREAM, SHELF].contains(&&*queue.name) || SCHEDULED.contains(&&*queue.name);
        queue.durable && !queue.is_volatile && !is_limited(queue) && !is_ours
    };
    let targets: Vec<&QueuePlan> = queues.iter().filter(stays).collect();
    let mut exchanges = Vec::new();
    if targets.is_empty() {
        return exchanges;
    }
    let argument = |name: &str, value: Value| -> Table { [(name.to_owned(), value)].into_iter().collect() };
    let keeps = argument("x-recent-history-length", Value::I64(3));
    let once = argument("x-message-deduplication", Value::Bool(true));
    let later = argument("x-delayed-type", "fanout".into());
    let other = argument("alternate-exchange", FANOUT.into());
    for (name, kind, arguments, key, rule) in [
        ("hash", "x-consistent-hash", Table::new(), "2", Rule::Sticky),
        ("modulus", "x-modulus-hash", Table::new(), "any", Rule::Sticky),
        ("chance", "x-random", Table::new(), "any", Rule::One),
        ("local", "x-local-random", Table::new(), "", Rule::One),
        ("recent", "x-recent-history", keeps, "", Rule::All(targets.len())),
        ("later", "x-delayed-message", later, "", Rule::All(targets.len())),
        ("once", "fanout", once, "", Rule::Once),
        ("other", "direct", other, "", Rule::Other),
    ] {
        if aside.one_in(4) {
            let to = if rule == Rule::Other { &[][..] } else { &targets[..] };
            let bindings = to.iter().map(|queue| (queue.name.clone(), key)).collect();
            exchanges.push(ExchangePlan { name, kind, arguments, bindings, rule });
        }
    }
    exchanges
}

/// The exchange that [`LISTENERS`] are bound to.
fn chat() -> ExchangePlan {
    let arguments = [("x-recent-history-length".to_owned(), Value::I64(3))].into_iter().collect();
    ExchangePlan { name: CHAT, kind: "x-recent-history", arguments, bindings: Vec::new(), rule: Rule::Listeners }
}

fn queues(random: &mut Random, aside: &mut Random) -> Vec<QueuePlan> {
    let mut queues = Vec::new();
    let mut add = |name: &str, durable, arguments: Table| {
        queues.push(QueuePlan { durable, ..QueuePlan::lasting(name, arguments) });
    };
    let table =
        |entries: &[(&str, Value)]| entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let number = Value::I64;
    let dead_to =
        |name: &str| [("x-dead-letter-exchange", Value::from("")), ("x-dead-letter-routing-key", Value::from(name))];
    let with = |entries: &[(&str, Value)], name: &str| -> Table { table(&[entries, &dead_to(name)[..]].concat()) };
    let length = i64::try_from(random.between(1, 6)).expect("small");
    let ttl = i64::try_from(random.scaled(3_000)).expect("small");

    add("plain", true, Table::new());
    add("plain2", true, Table::new());
    add("memory", false, Table::new());
    add("quorum", true, table(&[("x-queue-type", "quorum".into()), ("x-delivery-limit", number(3))]));
    add("quorum2", true, table(&[("x-queue-type", "quorum".into())]));
    add("priority", true, table(&[("x-max-priority", number(4))]));
    add("single", true, table(&[("x-single-active-consumer", Value::Bool(true))]));
    add("ttl", true, table(&[("x-message-ttl", number(ttl))]));
    add("short", true, table(&[("x-max-length", number(length))]));
    add("short-bytes", true, table(&[("x-max-length-bytes", number(length * 40))]));
    add("refusing", true, table(&[("x-max-length", number(length)), ("x-overflow", "reject-publish".into())]));
    // Dead letters: by rejection, by time, by length, by attempts, and in a ladder that comes back.
    add("graves", true, Table::new());
    add("rejected", true, with(&[], "graves"));
    add("rejected2", true, with(&[], "graves"));
    add("late", true, with(&[("x-message-ttl", number(ttl))], "graves"));
    add("crowded", true, with(&[("x-max-length", number(length))], "graves"));
    add("tried", true, with(&[("x-queue-type", "quorum".into()), ("x-delivery-limit", number(2))], "graves"));
    add(
        "refusing-dlx",
        true,
        with(&[("x-max-length", number(length)), ("x-overflow", "reject-publish-dlx".into())], "graves"),
    );
    add("work", true, with(&[], "retry"));
    add("retry", true, with(&[("x-message-ttl", number(ttl))], "work"));
    add("lost-graves", false, with(&[], "nowhere"));
    add("patient", true, table(&[("x-consumer-timeout", number(60_000))]));
    // Those that come and go.
    add("come", true, Table::new());
    add("go", true, with(&[], "graves"));
    add("auto", true, Table::new());
    add("auto-memory", false, Table::new());
    add("idle", true, table(&[("x-expires", number(ttl + 1))]));
    add("mine", false, Table::new());
    for queue in &mut queues {
        queue.in_fanout = ["plain", "memory", "quorum", "rejected", "graves", "come"].contains(&&*queue.name);
        queue.is_volatile = ["come", "go", "auto", "auto-memory", "idle", "mine"].contains(&&*queue.name);
        queue.auto_delete = queue.name.starts_with("auto");
        queue.exclusive = queue.name == "mine";
    }
    // Each run looks at a few of them closely.
    let kept = random.between(2, 10);
    while queues.len() as u64 > kept {
        let at = random.index(queues.len());
        queues.remove(at);
    }
    // Drawn aside, so that seeds from before there were groups have the other queues that they had.
    if aside.one_in(3) {
        let key = ("x-group-key", Value::from(GROUP_KEY));
        let arguments = match aside.below(4) {
            0 => table(&[key]),
            1 => table(&[key, ("x-group-fair", Value::Bool(true))]),
            2 => table(&[key, ("x-max-in-flight", number(3))]),
            _ => table(&[("x-max-in-flight", number(2)), ("x-rate-limit", number(100))]),
        };
        let (durable, in_fanout) = (aside.one_in(2), aside.one_in(2));
        queues.push(QueuePlan { durable, in_fanout, ..QueuePlan::lasting("shaped", arguments) });
    }
    let missing: Vec<QueuePlan> = ["graves", "work", "retry"]
        .into_iter()
        .filter(|name| leads_to(&queues, name) && !queues.iter().any(|queue| queue.name == *name))
        .map(|name| {
            let arguments = match name {
                "work" => with(&[], "retry"),
                "retry" => with(&[("x-message-ttl", number(ttl))], "work"),
                _ => Table::new(),
            };
            QueuePlan { in_fanout: name == "graves", ..QueuePlan::lasting(name, arguments) }
        })
        .collect();
    queues.extend(missing);
    // Those that have messages wait which came back; drawn aside, too.
    let wait = i64::try_from(aside.scaled(500) + 1).expect("small");
    let retrying = [
        ("x-delayed-retry-type", "all".into()),
        ("x-delayed-retry-min", number(wait)),
        ("x-delayed-retry-max", number(wait * 4)),
    ];
    let ours = [("x-delayed-retry-backoff", "exponential".into()), ("x-delayed-retry-jitter", number(50))];
    let limit = [("x-delivery-limit", number(3)), ("x-message-ttl", number(ttl + 500))];
    for (name, arguments) in [
        ("retrying", table(&retrying)),
        ("retrying-priority", table(&[&retrying[..], &ours, &[("x-max-priority", number(4))]].concat())),
        ("retrying-limit", table(&[&retrying[..], &ours, &limit].concat())),
    ] {
        if aside.one_in(4) {
            queues.push(QueuePlan { in_fanout: aside.one_in(2), ..QueuePlan::lasting(name, arguments) });
        }
    }
    // Those that take one message of an id: no two messages have the same one, so that they must take all.
    let ids = [("x-message-deduplication", Value::Bool(true)), ("x-deduplication-key", "message-id".into())];
    let window = [("x-cache-size", number(i64::try_from(aside.between(1, 50)).expect("small")))];
    for (name, arguments) in [("unique", table(&ids)), ("unique-window", table(&[&ids[..], &window].concat()))] {
        if aside.one_in(3) {
            queues.push(QueuePlan { in_fanout: aside.one_in(2), ..QueuePlan::lasting(name, arguments) });
        }
    }
    // One that keeps everything; drawn aside as well.
    if aside.one_in(4) {
        let arguments = table(&[("x-queue-type", "stream".into())]);
        queues.push(QueuePlan { in_fanout: aside.one_in(2), ..QueuePlan::lasting(STREAM, arguments) });
    }
    // Those that an operator moves messages between, and those that a schedule fires into.
    let in_fanout = aside.one_in(2);
    for (names, is_there) in [([MOVABLE, SHELF], aside.one_in(3)), (SCHEDULED, aside.one_in(3))] {
        for name in names.into_iter().filter(|_| is_there) {
            let in_fanout = in_fanout && name == MOVABLE;
            queues.push(QueuePlan { in_fanout, ..QueuePlan::lasting(name, Table::new()) });
        }
    }
    // Dead letters that have to wait for room; drawn aside as well.
    let room = number(i64::try_from(aside.between(1, 4)).expect("small"));
    let few = [("x-max-length", room), ("x-overflow", "reject-publish".into())];
    let owing = [
        ("few-graves", table(&few)),
        ("owing", with(&[], "few-graves")),
        ("owing-late", with(&[("x-message-ttl", number(ttl))], "few-graves")),
        ("owing-few", with(&few, "few-graves")),
    ];
    if aside.one_in(3) {
        let in_fanout = aside.one_in(2);
        for (name, arguments) in owing {
            let in_fanout = in_fanout && name == "owing";
            queues.push(QueuePlan { in_fanout, ..QueuePlan::lasting(name, arguments) });
        }
    }
    queues
}

fn leads_to(queues: &[QueuePlan], name: &str) -> bool {
    let leads =
        |queue: &QueuePlan| queue.arguments.get("x-dead-letter-routing-key").and_then(Value::as_str) == Some(name);
    queues.iter().any(leads)
}

/// A topic exchange that comes and goes, and gets what the fanout exchange gets.
pub const SIDE: &str = "side";
/// The stream, where there is one.
pub const STREAM: &str = "stream";
/// The queue that an operator moves messages from, …
pub const MOVABLE: &str = "movable";
/// … and the one that they go to, and come back from. Nothing else comes there.
pub const SHELF: &str = "shelf";
/// The queue of dead letters.
pub const GRAVES: &str = "graves";
/// An exchange that keeps its last messages, …
pub const CHAT: &str = "chat";
/// … and the queues that are bound to it, one after the other.
pub const LISTENERS: [&str; 5] = ["listener0", "listener1", "listener2", "listener3", "listener4"];
/// The queues that a schedule fires into.
pub const SCHEDULED: [&str; 2] = ["scheduled", "scheduled2"];
/// The fanout exchange that some queues are bound to.
pub const FANOUT: &str = "everyone";

/// Some messages of each queue stay in memory.
const ROOMY: Near =
    Near { queue_bytes: 4_000, busy_queue_bytes: 9_000, queue_unacked: 8, bytes: 40_000, idle_bytes: 20_000 };
/// Few messages of few queues do.
const TIGHT: Near =
    Near { queue_bytes: 600, busy_queue_bytes: 1_000, queue_unacked: 2, bytes: 1_500, idle_bytes: 1_000 };
/// One message of each queue does.
const NONE: Near = Near { queue_bytes: 0, busy_queue_bytes: 0, queue_unacked: 0, bytes: 0, idle_bytes: 0 };
