//! Prometheus metrics: `/metrics` sums up the node, `/metrics/per-object` lists queues, connections and channels, and
//! `/metrics/detailed` those families of their numbers that are asked for.
//!
//! Names and labels are those of RabbitMQ's plugin, so that its dashboards work; names of our own begin with `leveret_`.
//! A number that we do not have is left out. These listeners ask for no login: they are bound to loopback addresses by
//! default.

mod families;
mod page;
mod times;

use super::refusal::Refusal;
use super::samples::{Totals, totals};
use super::{Api, Shared, cluster, overview, published};
use crate::disk_times::SyncTimes;
use crate::footprint;
use crate::logins::Attempts;
use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use broker::command::DeadLetterStrategy;
use broker::connection::COMPATIBLE_VERSION;
use broker::inspect::{ConnectionView, QueueView, SizeCounters, Tallied};
use families::{Family, Metric, seconds};
use page::{IntoNumber, Labels, Page};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
pub(super) use times::Times;

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(aggregated))
        .route("/metrics/per-object", get(per_object))
        .route("/metrics/detailed", get(detailed))
        .route("/metrics/memory-breakdown", get(memory_breakdown))
        .fallback(async || Refusal::no_object())
        .with_state(Arc::clone(api))
}

async fn aggregated(State(api): Shared) -> Result<Page, Refusal> {
    let look = Look::take(&api).await?;
    let mut page = Page::default();
    write_identity(&api, "/metrics", &mut page);
    look.write_node(&api, "rabbitmq_", &mut page);
    look.write_churn("rabbitmq_", &mut page);
    look.write_global(&api, &mut page);
    look.write_sizes(&mut page);
    look.write_totals(&mut page);
    look.write_sums(&mut page);
    look.write_ours(&api, &mut page);
    Ok(page)
}

async fn per_object(State(api): Shared) -> Result<Page, Refusal> {
    let look = Look::take(&api).await?;
    let mut page = Page::default();
    write_identity(&api, "/metrics/per-object", &mut page);
    look.write_node(&api, "rabbitmq_", &mut page);
    look.write_churn("rabbitmq_", &mut page);
    look.write_global(&api, &mut page);
    look.write_sizes(&mut page);
    look.write_exchanges(&api, "rabbitmq_", &|_| true, &|_| true, &mut page);
    look.write_totals(&mut page);
    // Fifteen buckets of each queue are for those who ask for them.
    look.write_objects("rabbitmq_", &|family| family != "leveret_queue_time_metrics", &|_| true, &mut page);
    look.write_ours(&api, &mut page);
    Ok(page)
}

/// `?family=F&vhost=V`, both as often as wanted; without a vhost of all of them.
async fn detailed(State(api): Shared, Query(query): Query<Vec<(String, String)>>) -> Result<Page, Refusal> {
    let given = |name: &str| -> Vec<&str> {
        query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let (families, vhosts) = (given("family"), given("vhost"));
    let has = |family: &str| families.contains(&family);
    let shows = |vhost: &str| vhosts.is_empty() || vhosts.contains(&vhost);
    let look = Look::take(&api).await?;
    let mut page = Page::default();
    write_identity(&api, "/metrics/detailed", &mut page);
    look.write_objects("rabbitmq_detailed_", &has, &shows, &mut page);
    look.write_exchanges(&api, "rabbitmq_detailed_", &has, &shows, &mut page);
    if has("connection_churn_metrics") {
        look.write_churn("rabbitmq_detailed_", &mut page);
    }
    if has("node_coarse_metrics") || has("node_metrics") {
        look.write_node(&api, "rabbitmq_detailed_", &mut page);
    }
    if has("auth_attempt_metrics") {
        let counted = api.board.logins().attempts();
        let sum = |of: fn(&Attempts) -> u64| counted.iter().map(|(_, attempts)| of(attempts)).sum::<u64>();
        let (succeeded, failed) = (sum(|attempts| attempts.succeeded), sum(|attempts| attempts.failed));
        for (name, help, number) in [
            ("auth_attempts_total", "Logins that were tried", succeeded + failed),
            ("auth_attempts_succeeded_total", "Logins that succeeded", succeeded),
            ("auth_attempts_failed_total", "Logins that failed", failed),
        ] {
            page.put_one((&format!("rabbitmq_detailed_{name}"), "counter", help), number);
        }
    }
    write_topology(&api, &has, &shows, &mut page);
    Ok(page)
}

async fn memory_breakdown(State(api): Shared) -> Result<Page, Refusal> {
    let mut page = Page::default();
    write_identity(&api, "/metrics/memory-breakdown", &mut page);
    let breakdown = cluster::breakdown(&api).await?;
    for (part, bytes) in breakdown.as_object().into_iter().flatten() {
        if let Some(bytes) = bytes.as_u64() {
            page.put_one((&format!("rabbitmq_memory_{part}_bytes"), "gauge", "Memory by purpose"), bytes);
        }
    }
    Ok(page)
}

fn write_identity(api: &Api, endpoint: &str, page: &mut Page) {
    let cluster = api.cluster_name();
    let identity = Labels::new([
        ("rabbitmq_node", api.node.as_str()),
        ("rabbitmq_cluster", &cluster),
        ("rabbitmq_cluster_permanent_id", &api.node),
        ("rabbitmq_endpoint", endpoint),
    ]);
    let head = ("rabbitmq_identity_info", "untyped", "The node, and the endpoint that is read");
    page.put(head, [(&identity, 1.0)]);
    let build = Labels::new([
        ("rabbitmq_version", COMPATIBLE_VERSION),
        ("prometheus_plugin_version", COMPATIBLE_VERSION),
        ("prometheus_client_version", overview::VERSION),
        ("erlang_version", overview::NO_ERLANG),
        ("product_name", overview::PRODUCT),
        ("product_version", overview::VERSION),
    ]);
    page.put(("rabbitmq_build_info", "untyped", "What runs"), [(&build, 1.0)]);
}

/// What is the same for the whole cluster: vhosts, exchanges and their bindings.
fn write_topology(api: &Api, has: &dyn Fn(&str) -> bool, shows: &dyn Fn(&str) -> bool, page: &mut Page) {
    let topology = api.board.topology();
    if has("vhost_status") {
        let vhosts: Vec<_> = topology.vhosts().map(|(_, name)| &**name).filter(|name| shows(name)).collect();
        let labels: Vec<_> = vhosts.into_iter().map(|name| Labels::new([("vhost", name)])).collect();
        let head = ("rabbitmq_cluster_vhost_status", "gauge", "Whether a given vhost is running");
        page.put(head, labels.iter().map(|labels| (labels, 1.0)));
    }
    if !has("exchange_bindings") && !has("exchange_names") {
        return;
    }
    let mut bound: BTreeMap<_, u64> = BTreeMap::new();
    for binding in topology.bindings() {
        *bound.entry((binding.vhost, binding.source.to_owned())).or_default() += 1;
    }
    let exchanges: Vec<_> = topology
        .exchanges()
        .filter(|exchange| shows(topology.vhost_name(exchange.vhost)))
        .map(|exchange| {
            let vhost = topology.vhost_name(exchange.vhost);
            let labels = [("vhost", &**vhost), ("exchange", &*exchange.name), ("type", exchange.type_name())];
            let count = bound.get(&(exchange.vhost, exchange.name.to_string())).copied().unwrap_or_default();
            (Labels::new(labels), count)
        })
        .collect();
    if has("exchange_bindings") {
        let head = ("rabbitmq_cluster_exchange_bindings", "gauge", "Number of bindings for an exchange");
        page.put(head, exchanges.iter().map(|(labels, count)| (labels, count.number())));
    }
    if has("exchange_names") {
        let head = ("rabbitmq_cluster_exchange_name", "gauge", "Enumerates exchanges without any additional info");
        page.put(head, exchanges.iter().map(|(labels, _)| (labels, 1.0)));
    }
}

/// Everything at one moment.
#[derive(Debug)]
struct Look {
    queues: Vec<QueueView>,
    connections: Vec<ConnectionView>,
    published: Tallied,
    totals: Totals,
}

impl Look {
    async fn take(api: &Api) -> Result<Self, Refusal> {
        let queues = api.board.inspect_queues().await?;
        let (connections, published) = published::look(api).await;
        let totals = totals(api, &queues, &connections);
        Ok(Self { queues, connections, published, totals })
    }

    fn write_node(&self, api: &Api, prefix: &str, page: &mut Page) {
        let config = api.board.config();
        let data_dir = &config.data_dir;
        let alarms = api.board.alarms().view();
        for (name, help, number) in [
            ("erlang_uptime_seconds", "How long the node runs", Some(api.board.clock().uptime_ms() / 1000)),
            ("process_open_fds", "Open file descriptors", footprint::open_files()),
            ("process_max_fds", "Open file descriptors limit", footprint::files_max()),
            ("process_resident_memory_bytes", "Memory used in bytes", footprint::resident_bytes()),
            ("resident_memory_limit_bytes", "Memory high watermark in bytes", alarms.memory_limit_bytes),
            ("disk_space_available_bytes", "Disk space available in bytes", footprint::disk_free_bytes(data_dir)),
            (
                "disk_space_available_limit_bytes",
                "Free disk space low watermark in bytes",
                Some(alarms.disk_free_limit),
            ),
        ] {
            if let Some(number) = number {
                page.put_one((&format!("{prefix}{name}"), "gauge", help), number);
            }
        }
        for (name, help, is_on) in [
            ("memory_used_watermark", "is 1 if VM memory watermark alarm is in effect", alarms.shortage.memory),
            ("free_disk_space_watermark", "is 1 if free disk space watermark alarm is in effect", alarms.shortage.disk),
        ] {
            page.put_one((&format!("{prefix}alarms_{name}"), "untyped", help), is_on);
        }
    }

    fn write_churn(&self, prefix: &str, page: &mut Page) {
        let (totals, churn) = (&self.totals, self.totals.churn);
        for (name, help, number) in [
            ("connections_opened_total", "Connections opened", churn.opened),
            ("connections_closed_total", "Connections closed", churn.closed),
            ("channels_opened_total", "Channels opened", totals.channels_opened),
            ("channels_closed_total", "Channels closed", totals.channels_closed),
            ("queues_declared_total", "Queue declarations", churn.queues_declared),
            ("queues_created_total", "Queues created", churn.queues_created),
            ("queues_deleted_total", "Queues deleted", churn.queues_deleted),
        ] {
            page.put_one((&format!("{prefix}{name}"), "counter", help), number);
        }
    }

    /// Counters of all that ever happened, by protocol.
    fn write_global(&self, api: &Api, page: &mut Page) {
        let protocol = Labels::new([("protocol", "amqp091")]);
        let counted = self.totals.channels;
        let delivered = counted.deliver + counted.deliver_no_ack + counted.get + counted.get_no_ack;
        let unroutable = counted.drop_unroutable + counted.return_unroutable;
        let channels = || self.connections.iter().flat_map(|connection| &connection.channels);
        let to_confirm = channels().map(|channel| channel.unconfirmed).sum::<u64>();
        for (name, help, number) in [
            ("received", "Messages received from clients", counted.publish),
            (
                "received_confirm",
                "Messages received to be confirmed, and confirmed since",
                counted.confirm + to_confirm,
            ),
            ("routed", "Messages that queues took", counted.publish.saturating_sub(unroutable)),
            ("confirmed", "Messages confirmed to publishers", counted.confirm),
            ("unroutable_dropped", "Messages dropped as no queue took them", counted.drop_unroutable),
            ("unroutable_returned", "Messages returned as no queue took them", counted.return_unroutable),
            ("delivered", "Messages delivered to consumers and polled", delivered),
            ("delivered_consume_manual_ack", "Messages delivered, to be acknowledged", counted.deliver),
            ("delivered_consume_auto_ack", "Messages delivered, acknowledged at once", counted.deliver_no_ack),
            ("delivered_get_manual_ack", "Messages polled, to be acknowledged", counted.get),
            ("delivered_get_auto_ack", "Messages polled, acknowledged at once", counted.get_no_ack),
            ("redelivered", "Messages delivered again", counted.redeliver),
            ("acknowledged", "Messages acknowledged", counted.ack),
            ("get_empty", "Polls of an empty queue", counted.get_empty),
        ] {
            let name = format!("rabbitmq_global_messages_{name}_total");
            page.put((&name, "counter", help), [(&protocol, number.number())]);
        }
        let publishers = channels().filter(|channel| channel.counters.publish > 0).count();
        let consumers: usize = self.queues.iter().map(|queue| queue.consumers.len()).sum();
        page.put(("rabbitmq_global_publishers", "gauge", "Channels that publish"), [(&protocol, publishers.number())]);
        page.put(("rabbitmq_global_consumers", "gauge", "Consumers"), [(&protocol, consumers.number())]);
        let dead = api.dead_letters.of(&self.queues);
        for (at, (reason, help)) in DEAD_LETTERS.iter().enumerate() {
            let name = format!("rabbitmq_global_messages_dead_lettered_{reason}_total");
            let counted: Vec<_> = dead.iter().map(|(labels, counted)| (labels, counted[at].number())).collect();
            page.put((&name, "counter", help), counted);
        }
    }

    /// How large published messages were.
    fn write_sizes(&self, page: &mut Page) {
        let protocol = ("protocol", "amqp091");
        let help = "Size of messages received from publishers";
        let Some(mut family) = page.begin("rabbitmq_message_size_bytes", "histogram", help) else { return };
        let sizes = &self.published.sizes;
        let bounds = SizeCounters::BOUNDS.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, more) in bounds.zip(sizes.counts) {
            count += more;
            family.add("_bucket", &Labels::new([protocol, ("le", bound.as_str())]), count);
        }
        family.add("_sum", &Labels::new([protocol]), sizes.sum_bytes);
        family.add("_count", &Labels::new([protocol]), count);
    }

    /// What was published to each exchange, and by each channel to each.
    fn write_exchanges(
        &self,
        api: &Api,
        prefix: &str,
        has: &dyn Fn(&str) -> bool,
        shows: &dyn Fn(&str) -> bool,
        page: &mut Page,
    ) {
        if !has("exchange_metrics") && !has("channel_exchange_metrics") {
            return;
        }
        let names: HashMap<u64, [String; 2]> = {
            let topology = api.board.topology();
            let exchanges = topology.exchanges().map(|exchange| (exchange, topology.vhost_name(exchange.vhost)));
            let shown = exchanges.filter(|(_, vhost)| shows(vhost));
            shown.map(|(exchange, vhost)| (exchange.number(), [vhost.to_string(), exchange.name.to_string()])).collect()
        };
        if has("exchange_metrics") {
            let exchanges: Vec<_> = self
                .published
                .exchanges
                .iter()
                .filter_map(|(number, counted)| {
                    let [vhost, name] = names.get(number)?;
                    Some((Labels::new([("vhost", vhost.as_str()), ("exchange", name)]), counted))
                })
                .collect();
            write_family(prefix, families::EXCHANGES, &exchanges, page);
        }
        if has("channel_exchange_metrics") {
            let channels = self
                .connections
                .iter()
                .flat_map(|connection| connection.channels.iter().map(move |channel| (&connection.name, channel)));
            let published: Vec<_> = channels
                .flat_map(|(connection, channel)| {
                    let name = super::consumers::channel_name(connection, channel.number.0);
                    let labels = |[vhost, exchange]: &[String; 2]| {
                        Labels::new([("channel", name.as_str()), ("vhost", vhost), ("exchange", exchange)])
                    };
                    let named = channel.exchanges.iter().map(|(number, counted)| (names.get(number), counted));
                    named.filter_map(|(names, counted)| Some((labels(names?), counted))).collect::<Vec<_>>()
                })
                .collect();
            write_family(prefix, families::CHANNEL_EXCHANGES, &published, page);
        }
    }

    /// What is told of all objects together, wherever each is told of as well.
    fn write_totals(&self, page: &mut Page) {
        let sum = |of: fn(&QueueView) -> u64| self.queues.iter().map(of).sum::<u64>();
        let channels: usize = self.connections.iter().map(|connection| connection.channels.len()).sum();
        for (name, help, number) in [
            ("connections", "Connections currently open", self.connections.len() as u64),
            ("channels", "Channels currently open", channels as u64),
            ("queues", "Queues", self.queues.len() as u64),
            ("consumers", "Consumers", sum(|queue| queue.consumers.len() as u64)),
        ] {
            page.put_one((&format!("rabbitmq_{name}"), "gauge", help), number);
        }
        let oldest = |of: fn(&QueueView) -> Option<u64>| seconds(self.queues.iter().filter_map(of).max());
        let none = Labels::default();
        let head = ("leveret_oldest_ready_age_seconds", "gauge", "How long ago the oldest ready message of all came");
        page.put(head, [(&none, oldest(|queue| queue.oldest_ready_ms))]);
        let head = ("leveret_oldest_unacked_age_seconds", "gauge", "How long the oldest unacked message is so");
        page.put(head, [(&none, oldest(|queue| queue.oldest_unacked_ms))]);
        let head = ("leveret_late_leases", "gauge", "Deliveries unacked for longer than half their timeout");
        page.put_one(head, sum(|queue| queue.late_leases));
        let paused = self.queues.iter().filter(|queue| queue.is_paused).count();
        page.put_one(("leveret_queues_paused", "gauge", "Queues that an operator paused"), paused);
    }

    /// The sums of what is told of each queue elsewhere, by the same names.
    fn write_sums(&self, page: &mut Page) {
        let sum = |of: fn(&QueueView) -> u64| self.queues.iter().map(of).sum::<u64>();
        for (name, help, number) in [
            ("queue_messages_ready", "Messages ready to be delivered", sum(|queue| queue.ready)),
            ("queue_messages_unacked", "Messages delivered and not acknowledged", sum(|queue| queue.unacked)),
            // Ours: those that wait for their delay, or for their next try.
            ("queue_messages_delayed", "Messages that are not due yet", sum(|queue| queue.delayed)),
            ("queue_messages_dlx", "Dead letters that nobody has taken yet", sum(|queue| queue.owed)),
            ("queue_messages", "Messages ready, unacknowledged, delayed and dead", sum(QueueView::messages)),
            ("queue_messages_persistent", "Persistent messages", sum(|queue| queue.persistent)),
            ("queue_messages_bytes", "Size in bytes of all messages", sum(QueueView::bytes)),
            ("queue_messages_ready_bytes", "Size in bytes of ready messages", sum(|queue| queue.ready_bytes)),
            ("queue_messages_unacked_bytes", "Size in bytes of unacked messages", sum(|queue| queue.unacked_bytes)),
            ("queue_messages_delayed_bytes", "Size in bytes of messages not due yet", sum(|queue| queue.delayed_bytes)),
            ("queue_process_memory_bytes", "Memory in bytes used by queues", sum(|queue| queue.memory)),
        ] {
            page.put_one((&format!("rabbitmq_{name}"), "gauge", help), number);
        }
    }

    /// What RabbitMQ has no name for: the log, and the disk below it.
    fn write_ours(&self, api: &Api, page: &mut Page) {
        let logs: Vec<_> = (0..)
            .zip(api.board.logs())
            .map(|(shard, log): (u16, _)| (Labels::new([("shard", shard.to_string().as_str())]), log.view()))
            .collect();
        let head = ("leveret_log_bytes", "gauge", "Size of a shard's log");
        page.put(head, logs.iter().map(|(labels, (bytes, _))| (labels, bytes.number())));
        let head = ("leveret_log_live_bytes", "gauge", "About how much of a shard's log lives");
        page.put(head, logs.iter().map(|(labels, (_, live))| (labels, live.number())));
        api.times.write(&self.queues, page);
        let (exported, dropped) = api.board.exported_spans();
        for (name, help, number) in [
            ("leveret_trace_spans_exported_total", "Spans of traced messages that a collector took", exported),
            ("leveret_trace_spans_dropped_total", "Spans that had no room, or that no collector took", dropped),
        ] {
            page.put_one((name, "counter", help), number);
        }
        let (cumulated, sum_us) = api.board.sync_times().cumulated();
        let name = "leveret_log_sync_seconds";
        if let Some(mut family) =
            page.begin(name, "histogram", "How long the disk took to make what was written durable")
        {
            let bounds = SyncTimes::BOUNDS_US.iter().map(|us| (us.number() / 1e6).to_string());
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&cumulated) {
                family.add("_bucket", &Labels::new([("le", bound.as_str())]), count);
            }
            family.add("_sum", &Labels::default(), sum_us.number() / 1e6);
            family.add("_count", &Labels::default(), cumulated.last().copied().unwrap_or_default());
        }
    }

    /// The numbers of queues, connections and channels in these vhosts, of these families.
    fn write_objects(&self, prefix: &str, has: &dyn Fn(&str) -> bool, shows: &dyn Fn(&str) -> bool, page: &mut Page) {
        let queues: Vec<_> = self
            .queues
            .iter()
            .filter(|queue| shows(&queue.spec.vhost_name))
            .map(|queue| (Labels::new([("vhost", &*queue.spec.vhost_name), ("queue", &*queue.spec.name)]), queue))
            .collect();
        write_families(prefix, families::QUEUES, has, &queues, page);
        if has("leveret_queue_metrics") {
            write_family("leveret_", families::OUR_QUEUES, &queues, page);
        }
        if has("leveret_queue_time_metrics") {
            times::write_queues(&queues.iter().map(|(_, queue)| *queue).collect::<Vec<_>>(), page);
        }
        let connections = || self.connections.iter().filter(|connection| shows(&connection.vhost));
        let labelled: Vec<_> = connections()
            .map(|one| (Labels::new([("connection", one.name.as_str()), ("vhost", &one.vhost)]), one))
            .collect();
        write_families(prefix, families::CONNECTIONS, has, &labelled, page);
        let channels: Vec<_> = connections()
            .flat_map(|connection| connection.channels.iter().map(move |channel| (connection, channel)))
            .map(|(connection, channel)| {
                let name = super::consumers::channel_name(&connection.name, channel.number.0);
                (Labels::new([("channel", name.as_str()), ("vhost", &connection.vhost)]), channel)
            })
            .collect();
        write_families(prefix, families::CHANNELS, has, &channels, page);
    }
}

fn write_families<T>(
    prefix: &str,
    families: &[Family<T>],
    has: &dyn Fn(&str) -> bool,
    objects: &[(Labels, &T)],
    page: &mut Page,
) {
    for (_, metrics) in families.iter().filter(|(family, _)| has(family)) {
        write_family(prefix, metrics, objects, page);
    }
}

fn write_family<T>(prefix: &str, metrics: &[Metric<T>], objects: &[(Labels, &T)], page: &mut Page) {
    for (name, kind, help, of) in metrics {
        let numbers = objects.iter().map(|(labels, object)| (labels, of(object)));
        page.put((&format!("{prefix}{name}"), kind, help), numbers);
    }
}

/// Why messages die, by RabbitMQ's names.
const DEAD_LETTERS: [(&str, &str); 4] = [
    ("expired", "Messages dropped or dead-lettered because they expired"),
    ("rejected", "Messages dropped or dead-lettered because a consumer rejected them"),
    ("maxlen", "Messages dropped or dead-lettered because the queue was full"),
    ("delivery_limit", "Messages dropped or dead-lettered because they failed too often"),
];

/// Messages that died, as counters that never fall: a queue that is deleted takes its counters with it, but not what
/// was seen of them.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(Mutex<BTreeMap<[&'static str; 2], [Seen; 4]>>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// What the queues' counters were when they were last looked at, together.
    last: u64,
    total: u64,
}

impl Seen {
    fn see(&mut self, now: u64) -> u64 {
        self.total += now.saturating_sub(self.last);
        self.last = now;
        self.total
    }
}

impl DeadLetters {
    /// By type of queue and strategy: how many died of each of [`DEAD_LETTERS`].
    fn of(&self, queues: &[QueueView]) -> Vec<(Labels, [u64; 4])> {
        let mut now: BTreeMap<_, [u64; 4]> = BTreeMap::new();
        for queue in queues {
            let settings = &queue.spec.settings;
            let queue_type = settings.kind.module();
            let strategy = match settings.dead_letter_strategy {
                _ if settings.dead_letter_exchange.is_none() => "disabled",
                DeadLetterStrategy::AtMostOnce => "at_most_once",
                DeadLetterStrategy::Usual | DeadLetterStrategy::AtLeastOnce => "at_least_once",
            };
            let counters = &queue.counters;
            let counted = [counters.expired, counters.rejected, counters.maxlen, counters.delivery_limit];
            let sums = now.entry([queue_type, strategy]).or_default();
            sums.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in now.keys() {
            seen.entry(*key).or_default();
        }
        let seen = seen.iter_mut().map(|(key, seen)| {
            let now = now.get(key).copied().unwrap_or_default();
            let mut totals = [0; 4];
            for (total, (seen, now)) in totals.iter_mut().zip(seen.iter_mut().zip(now)) {
                *total = seen.see(now);
            }
            let [queue_type, strategy] = *key;
            (Labels::new([("queue_type", queue_type), ("dead_letter_strategy", strategy)]), totals)
        });
        seen.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_fall_when_a_queue_goes() {
        let mut seen = Seen::default();
        assert_eq!([5, 7, 2, 3].map(|now| seen.see(now)), [5, 7, 7, 8]);
    }
}
