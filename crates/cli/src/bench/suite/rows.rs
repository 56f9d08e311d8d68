//! What the suite measures: each row is a `leveret bench` command line, run against every broker.

/// One row of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// What `--only` calls it.
    pub(super) id: &'static str,
    pub(super) group: Group,
    /// What people call it.
    pub(super) title: &'static str,
    /// The command, without `leveret bench` and the broker. `{messages}` stands for the size of a backlog.
    pub(super) command: &'static str,
    /// The figures to show, the first to compare by.
    pub(super) figures: &'static [&'static str],
    /// What Leveret is to reach, in words.
    pub(super) aim: &'static str,
}

/// Which figure of `leveret bench limit` bounds a row's first figure.
pub(super) fn limit_of(row: &str) -> Option<&'static str> {
    Some(match row {
        "small" => "relay_16_per_s",
        "kib" => "relay_1024_per_s",
        "acked" => "relay_acked_16_per_s",
        "publish" => "publish_16_per_s",
        "drain" | "drain-acked" => "consume_16_per_s",
        "confirm-1" | "bindings" => "synced_asks_per_s",
        "confirm-100" => "sync_100_messages_per_s",
        "confirm-1000" => "sync_1000_messages_per_s",
        "latency" => "latency_p50_ns",
        "beside-publisher" => "beside_p50_ns",
        "connections" => "connects_per_s",
        "channels" => "ask_pairs_per_s",
        "queues" => "synced_ask_pairs_per_s",
        _ => return None,
    })
}

/// Which part of the result a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Messages through one queue.
    Messages,
    /// Durability and backlogs.
    Durable,
    /// How long a message takes.
    Latency,
    /// How long, beside somebody else's load.
    Neighbours,
    /// Connections, channels, queues, bindings.
    Topology,
    /// Whether cost stays flat.
    Scale,
    /// What a queue that does more costs.
    Features,
}

impl Group {
    pub(super) const ALL: [Self; 7] =
        [Self::Messages, Self::Durable, Self::Latency, Self::Neighbours, Self::Topology, Self::Scale, Self::Features];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Messages => "Messages through one queue",
            Self::Durable => "Durable messages and backlogs",
            Self::Latency => "Latency",
            Self::Neighbours => "Latency of 500 messages a second, in a queue of their own, beside another load",
            Self::Topology => "Connections, queues and bindings",
            Self::Scale => "Scale",
            Self::Features => "Features: 16 B, each acked, prefetch 1,000, 1 producer, 1 consumer",
        }
    }
}

const fn row(
    group: Group,
    id: &'static str,
    title: &'static str,
    command: &'static str,
    figures: &'static [&'static str],
    aim: &'static str,
) -> Row {
    Row { id, group, title, command, figures, aim }
}

const DELAYED: &[&str] = &["filled_per_s", "bytes_each", "broker_cpu_us", "late_p50_ns", "late_p99_ns", "late_max_ns"];
const CONSUMED: &[&str] = &["consumed_per_s", "broker_cpu_us"];
const BOTH: &[&str] = &["consumed_per_s", "published_per_s", "broker_cpu_us"];
const PUBLISHED: &[&str] = &["published_per_s", "broker_cpu_us"];
const CONFIRMED: &[&str] = &["confirmed_per_s", "broker_cpu_us"];
const DRAINED: &[&str] = &["drain_per_s", "drain_cpu_us"];
const CHURNED: &[&str] = &["per_s", "one_p99_ns"];
const LATENCY: &[&str] = &["latency_p50_ns", "latency_p99_ns", "latency_p99_9_ns", "latency_max_ns"];
const BACKLOG: &[&str] = &["fill_s", "full_bytes", "start_s", "drain_per_s"];
const IDLE: &[&str] = &["bytes_before", "bytes_after", "bytes_each"];

/// All rows.
pub(super) const ROWS: &[Row] = &[
    row(
        Group::Messages,
        "small",
        "16 B, 1 producer, 1 consumer, auto ack",
        "throughput",
        CONSUMED,
        "≥ 1.5 × LavinMQ, ≤ 0.7 µs",
    ),
    row(
        Group::Messages,
        "kib",
        "1 KiB, 1 producer, 1 consumer, auto ack",
        "throughput --size 1024",
        CONSUMED,
        "≥ 1.5 × LavinMQ, ≤ 2 µs",
    ),
    row(
        Group::Messages,
        "acked",
        "16 B, ack of each, prefetch 100",
        "throughput --ack each --prefetch 100",
        BOTH,
        "≥ 3 × LavinMQ consumed, in balance",
    ),
    row(
        Group::Messages,
        "publish",
        "16 B, published only",
        "throughput --consumers 0",
        PUBLISHED,
        "≥ 1.4 × LavinMQ, ≤ 0.6 µs",
    ),
    row(
        Group::Messages,
        "drain",
        "a backlog of 16 B consumed, auto ack",
        "backlog --messages {messages}",
        DRAINED,
        "≥ 1.2 × LavinMQ, ≤ 0.3 µs",
    ),
    row(
        Group::Messages,
        "drain-acked",
        "a backlog of 16 B consumed, each acked, prefetch 100",
        "backlog --messages {messages} --ack each --prefetch 100",
        DRAINED,
        "≥ 1.5 × LavinMQ, ≤ 1 µs",
    ),
    row(
        Group::Durable,
        "confirm-1",
        "1 KiB persistent, confirms, window 1",
        "throughput --size 1024 --persistent --durable --confirm 1",
        CONFIRMED,
        "the disk's own sync rate",
    ),
    row(
        Group::Durable,
        "confirm-100",
        "1 KiB persistent, confirms, window 100",
        "throughput --size 1024 --persistent --durable --confirm 100",
        CONFIRMED,
        "≥ LavinMQ without its fsync",
    ),
    row(
        Group::Durable,
        "confirm-1000",
        "1 KiB persistent, confirms, window 1,000",
        "throughput --size 1024 --persistent --durable --confirm 1000",
        CONFIRMED,
        "≥ LavinMQ without its fsync",
    ),
    row(
        Group::Durable,
        "quorum",
        "1 KiB persistent, window 1,000, quorum queue",
        "throughput --size 1024 --persistent --durable --confirm 1000 --argument x-queue-type=quorum",
        CONFIRMED,
        "",
    ),
    row(
        Group::Durable,
        "backlog",
        "a durable backlog of 16 B: fill, memory, start after SIGKILL",
        "backlog --messages {messages} --persistent",
        BACKLOG,
        "2 M: ≤ 2 s, ≤ 25 MB, ≤ 0.05 s",
    ),
    row(Group::Latency, "latency", "16 B at 5,000/s", "latency --rate 5000", LATENCY, "p50 ≤ 0.09 ms, p99 ≤ 0.5 ms"),
    row(Group::Neighbours, "beside-nothing", "alone", "latency --rate 500", LATENCY, ""),
    row(
        Group::Neighbours,
        "beside-publisher",
        "beside a publisher at full speed to another queue",
        "latency --rate 500 --beside throughput,--consumers,0,--seconds,3600",
        LATENCY,
        "as alone, times a few",
    ),
    row(
        Group::Neighbours,
        "beside-work",
        "beside a publisher and a consumer at full speed, each acked",
        "latency --rate 500 --beside throughput,--ack,each,--prefetch,100,--seconds,3600",
        LATENCY,
        "as alone, times a few",
    ),
    row(
        Group::Neighbours,
        "beside-durable",
        "beside four durable publishers, window 1,000",
        "latency --rate 500 --beside throughput,--producers,4,--consumers,4,--size,1024,--durable,--persistent,--confirm,1000,--seconds,3600",
        LATENCY,
        "as alone, times a few",
    ),
    row(
        Group::Neighbours,
        "beside-backlog",
        "beside a backlog that is filled and drained",
        "latency --rate 500 --beside backlog,--messages,20000000",
        LATENCY,
        "as alone, times a few",
    ),
    row(
        Group::Neighbours,
        "beside-churn",
        "beside 10 clients that declare and delete durable queues",
        "latency --rate 500 --beside churn,queues,--clients,10,--seconds,3600",
        LATENCY,
        "as alone, times a few",
    ),
    row(
        Group::Topology,
        "connections",
        "connections opened and closed, 1 client",
        "churn connections",
        CHURNED,
        "≥ 6,000/s",
    ),
    row(
        Group::Topology,
        "connections-10",
        "connections opened and closed, 10 clients",
        "churn connections --clients 10",
        CHURNED,
        "≥ 6,000/s",
    ),
    row(Group::Topology, "channels", "channels opened and closed, 1 client", "churn channels", CHURNED, "≥ 30,000/s"),
    row(
        Group::Topology,
        "channels-10",
        "channels opened and closed, 10 clients",
        "churn channels --clients 10",
        CHURNED,
        "≥ 30,000/s",
    ),
    row(
        Group::Topology,
        "queues",
        "durable queues declared and deleted, 1 client",
        "churn queues",
        CHURNED,
        "≥ 2,000/s",
    ),
    row(Group::Topology, "bindings", "durable bindings, 1 client", "churn bindings", CHURNED, "≥ 5,000/s"),
    row(
        Group::Topology,
        "queues-100",
        "durable queues, 100 clients",
        "churn queues --clients 100",
        CHURNED,
        "≥ 20,000/s",
    ),
    row(
        Group::Topology,
        "bindings-100",
        "durable bindings, 100 clients",
        "churn bindings --clients 100",
        CHURNED,
        "≥ 50,000/s",
    ),
    row(
        Group::Topology,
        "idle-1000",
        "1,000 idle connections: memory",
        "connections --count 1000",
        IDLE,
        "≤ 10 MB, ≤ 20 MB",
    ),
    row(
        Group::Topology,
        "idle-10000",
        "10,000 idle connections: memory",
        "connections --count 10000",
        IDLE,
        "≤ 100 MB",
    ),
    row(
        Group::Topology,
        "idle-queues",
        "10,000 idle durable queues: memory",
        "queues --count 10000",
        &["bytes_before", "bytes_after", "bytes_each", "declared_per_s"],
        "",
    ),
    row(
        Group::Scale,
        "queues-of-1",
        "1 queue, 4 producers with confirms, 4 consumers",
        "throughput --producers 4 --consumers 4 --confirm 100",
        CONSUMED,
        "",
    ),
    row(
        Group::Scale,
        "queues-of-1000",
        "1,000 queues, the same clients",
        "throughput --producers 4 --consumers 4 --queues 1000 --confirm 100",
        CONSUMED,
        "as 1 queue",
    ),
    row(
        Group::Scale,
        "queues-of-10000",
        "10,000 queues, the same clients",
        "throughput --producers 4 --consumers 4 --queues 10000 --confirm 100",
        CONSUMED,
        "as 1 queue",
    ),
    row(
        Group::Scale,
        "clients-1000",
        "100 queues, 1,000 producers with confirms, 1,000 consumers",
        "throughput --producers 1000 --consumers 1000 --queues 100 --confirm 100",
        CONSUMED,
        "as 8 clients",
    ),
    row(
        Group::Scale,
        "work-8",
        "8 queues, 1 KiB persistent with confirms, each acked, 4 producers, 4 consumers",
        "throughput --producers 4 --consumers 4 --queues 8 --size 1024 --durable --persistent --confirm 500 --ack each \
         --prefetch 500",
        CONSUMED,
        "",
    ),
    row(Group::Scale, "topic", "a topic exchange, 1 binding", "throughput --exchange topic", CONSUMED, ""),
    row(
        Group::Scale,
        "topic-100000",
        "a topic exchange, 100,000 bindings besides",
        "throughput --exchange topic --bindings 100000",
        CONSUMED,
        "as 1 binding",
    ),
    row(Group::Scale, "body-64k", "64 KiB bodies", "throughput --size 65536", CONSUMED, ""),
    row(
        Group::Scale,
        "body-1m",
        "1 MiB bodies, 100 unconfirmed at most",
        "throughput --size 1048576 --confirm 100",
        CONSUMED,
        "",
    ),
    row(
        Group::Scale,
        "body-16m",
        "16 MiB bodies, 4 unconfirmed at most",
        "throughput --size 16777216 --confirm 4",
        CONSUMED,
        "",
    ),
    row(
        Group::Scale,
        "fanout-10",
        "1 KiB to 10 queues each, 1 consumer a queue",
        "throughput --size 1024 --exchange fanout --queues 10 --consumers 10 --confirm 100",
        CONSUMED,
        "",
    ),
    row(
        Group::Scale,
        "fanout-1000",
        "1 KiB to 1,000 queues each, 10 consumers",
        "throughput --size 1024 --exchange fanout --queues 1000 --consumers 10 --confirm 100",
        CONSUMED,
        "as 10 queues",
    ),
    row(Group::Features, "feature-none", "a plain queue", "throughput --ack each --prefetch 1000", BOTH, ""),
    row(
        Group::Features,
        "feature-priority",
        "10 priorities",
        "throughput --ack each --prefetch 1000 --argument x-max-priority=10",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-ttl",
        "a time to live for the queue",
        "throughput --ack each --prefetch 1000 --argument x-message-ttl=3600000",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-length",
        "a length limit",
        "throughput --ack each --prefetch 1000 --argument x-max-length=10000000",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-limit",
        "a delivery limit",
        "throughput --ack each --prefetch 1000 --argument x-delivery-limit=10",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-retry",
        "retries with a pause",
        "throughput --ack each --prefetch 1000 --argument x-delayed-retry-type=all",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-single",
        "a single active consumer",
        "throughput --ack each --prefetch 1000 --argument x-single-active-consumer=true",
        BOTH,
        "as plain",
    ),
    row(
        Group::Features,
        "feature-headers",
        "a plain queue, messages with a header",
        "throughput --ack each --prefetch 1000 --groups 1000",
        BOTH,
        "",
    ),
    row(
        Group::Features,
        "feature-in-flight",
        "the same, at most 10,000 in flight",
        "throughput --ack each --prefetch 1000 --groups 1000 --argument x-max-in-flight=10000",
        BOTH,
        "as with a header",
    ),
    row(
        Group::Features,
        "feature-groups",
        "the same, 1,000 groups",
        "throughput --ack each --prefetch 1000 --groups 1000 --argument x-group-key=group",
        BOTH,
        "as with a header",
    ),
    row(
        Group::Features,
        "feature-groups-100000",
        "100,000 groups",
        "throughput --ack each --prefetch 1000 --groups 100000 --argument x-group-key=group",
        BOTH,
        "as 1,000",
    ),
    row(
        Group::Features,
        "feature-fair",
        "1,000 groups that take turns",
        "throughput --ack each --prefetch 1000 --groups 1000 --argument x-group-key=group --argument x-group-fair=true",
        BOTH,
        "as 1,000",
    ),
    row(
        Group::Features,
        "feature-stream",
        "a stream",
        "throughput --ack each --prefetch 1000 --durable --argument x-queue-type=stream",
        BOTH,
        "",
    ),
    row(
        Group::Features,
        "feature-delayed",
        "a million persistent messages, each delayed by up to 10 s, consumed as they are due",
        "throughput --messages 1000000 --delay 10000 --durable --persistent --confirm 1000",
        BOTH,
        "100 k/s, as they are due",
    ),
    row(
        Group::Features,
        "feature-delayed-random",
        "a million persistent messages, due at random over 10 s, all published before",
        "delayed",
        DELAYED,
        "≤ 5 µs, ≤ 100 ms late",
    ),
    row(
        Group::Features,
        "feature-delayed-published",
        "the same, due in the order of publishing",
        "delayed --order published",
        DELAYED,
        "≤ 5 µs, ≤ 100 ms late",
    ),
    row(
        Group::Features,
        "feature-policies",
        "10,000 durable queues bound to one policy, which is changed and cleared",
        "queues --count 10000 --policy",
        &["declared_per_s", "changed_s", "cleared_s", "bytes_each"],
        "as without a policy",
    ),
];
