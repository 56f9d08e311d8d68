//! Prometheus metrics: `/metrics` sums up the node, `/metrics/per-object` lists queues and connections too.
//!
//! Names and labels are those of RabbitMQ's plugin, so that its dashboards work. A number that we do not have is left
//! out. These listeners ask for no login: they are bound to loopback addresses by default.

use super::refusal::Refusal;
use super::samples::{Totals, totals};
use super::{Api, Shared, overview};
use crate::footprint;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use broker::connection::COMPATIBLE_VERSION;
use broker::inspect::{ConnectionView, QueueView};
use std::fmt::{Display, Write as _};
use std::sync::Arc;

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(aggregated))
        .route("/metrics/per-object", get(per_object))
        .fallback(async || Refusal::no_object())
        .with_state(Arc::clone(api))
}

async fn aggregated(State(api): Shared) -> Result<Response, Refusal> {
    let look = Look::take(&api).await?;
    let mut page = Page::default();
    look.write_node(&api, "/metrics", &mut page);
    look.write_sums(&mut page);
    Ok(page.into_response())
}

async fn per_object(State(api): Shared) -> Result<Response, Refusal> {
    let look = Look::take(&api).await?;
    let mut page = Page::default();
    look.write_node(&api, "/metrics/per-object", &mut page);
    look.write_queues(&mut page);
    look.write_connections(&mut page);
    Ok(page.into_response())
}

/// Everything at one moment.
#[derive(Debug)]
struct Look {
    queues: Vec<QueueView>,
    connections: Vec<ConnectionView>,
    totals: Totals,
}

impl Look {
    async fn take(api: &Api) -> Result<Self, Refusal> {
        let queues = api.board.inspect_queues().await?;
        let connections = api.board.inspect_connections().await;
        let totals = totals(api, &queues, &connections);
        Ok(Self { queues, connections, totals })
    }

    fn write_node(&self, api: &Api, endpoint: &str, page: &mut Page) {
        let identity = [
            ("rabbitmq_node", api.node.as_str()),
            ("rabbitmq_cluster", &api.node),
            ("rabbitmq_cluster_permanent_id", &api.node),
            ("rabbitmq_endpoint", endpoint),
        ];
        page.family("rabbitmq_identity_info", "untyped", "The node, and the endpoint that is read").add(&identity, 1);
        let build = [
            ("rabbitmq_version", COMPATIBLE_VERSION),
            ("prometheus_plugin_version", COMPATIBLE_VERSION),
            ("prometheus_client_version", overview::VERSION),
            ("erlang_version", overview::NO_ERLANG),
            ("product_name", overview::PRODUCT),
            ("product_version", overview::VERSION),
        ];
        page.family("rabbitmq_build_info", "untyped", "What runs").add(&build, 1);
        let uptime_s = api.board.clock().uptime_ms() / 1000;
        page.gauge("rabbitmq_erlang_uptime_seconds", "How long the node runs").add(&[], uptime_s);
        let config = api.board.config();
        let data_dir = &config.data_dir;
        let alarms = api.board.alarms().view();
        for (name, help, number) in [
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
                page.gauge(&format!("rabbitmq_{name}"), help).add(&[], number);
            }
        }
        for (name, help, is_on) in [
            ("memory_used_watermark", "is 1 if VM memory watermark alarm is in effect", alarms.shortage.memory),
            ("free_disk_space_watermark", "is 1 if free disk space watermark alarm is in effect", alarms.shortage.disk),
        ] {
            page.family(&format!("rabbitmq_alarms_{name}"), "untyped", help).add(&[], u8::from(is_on));
        }
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
            page.counter(&format!("rabbitmq_{name}"), help).add(&[], number);
        }
        self.write_global(page);
    }

    /// Counters of all that ever happened, by protocol.
    fn write_global(&self, page: &mut Page) {
        const PROTOCOL: [(&str, &str); 1] = [("protocol", "amqp091")];
        let counted = self.totals.channels;
        let delivered = counted.deliver + counted.deliver_no_ack + counted.get + counted.get_no_ack;
        for (name, help, number) in [
            ("received", "Messages received from clients", counted.publish),
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
            page.counter(&format!("rabbitmq_global_messages_{name}_total"), help).add(&PROTOCOL, number);
        }
        let unroutable = counted.drop_unroutable + counted.return_unroutable;
        let routed = counted.publish.saturating_sub(unroutable);
        page.counter("rabbitmq_global_messages_routed_total", "Messages that queues took").add(&PROTOCOL, routed);
        let consumers: usize = self.queues.iter().map(|queue| queue.consumers.len()).sum();
        page.gauge("rabbitmq_global_consumers", "Consumers").add(&PROTOCOL, consumers);
    }

    fn write_sums(&self, page: &mut Page) {
        let sum = |of: fn(&QueueView) -> u64| self.queues.iter().map(of).sum::<u64>();
        let channels: usize = self.connections.iter().map(|connection| connection.channels.len()).sum();
        for (name, help, number) in [
            ("connections", "Connections currently open", self.connections.len() as u64),
            ("channels", "Channels currently open", channels as u64),
            ("queues", "Queues", self.queues.len() as u64),
            ("consumers", "Consumers", sum(|queue| queue.consumers.len() as u64)),
            ("queue_messages_ready", "Messages ready to be delivered", sum(|queue| queue.ready)),
            ("queue_messages_unacked", "Messages delivered and not acknowledged", sum(|queue| queue.unacked)),
            // Ours: those that wait for their delay, or for their next try.
            ("queue_messages_delayed", "Messages that are not due yet", sum(|queue| queue.delayed)),
            ("queue_messages", "Messages ready, unacknowledged and delayed", sum(QueueView::messages)),
            ("queue_messages_persistent", "Persistent messages", sum(|queue| queue.persistent)),
            ("queue_messages_bytes", "Size in bytes of all messages", sum(QueueView::bytes)),
            ("queue_messages_ready_bytes", "Size in bytes of ready messages", sum(|queue| queue.ready_bytes)),
            ("queue_messages_unacked_bytes", "Size in bytes of unacked messages", sum(|queue| queue.unacked_bytes)),
            ("queue_messages_delayed_bytes", "Size in bytes of messages not due yet", sum(|queue| queue.delayed_bytes)),
        ] {
            page.gauge(&format!("rabbitmq_{name}"), help).add(&[], number);
        }
    }

    fn write_queues(&self, page: &mut Page) {
        let gauges: [Metric<QueueView>; 11] = [
            ("queue_messages_ready", "Messages ready to be delivered", |queue| queue.ready),
            ("queue_messages_unacked", "Messages delivered and not acknowledged", |queue| queue.unacked),
            ("queue_messages_delayed", "Messages that are not due yet", |queue| queue.delayed),
            ("queue_messages", "Messages ready, unacknowledged and delayed", QueueView::messages),
            ("queue_messages_persistent", "Persistent messages", |queue| queue.persistent),
            ("queue_messages_bytes", "Size in bytes of all messages", QueueView::bytes),
            ("queue_messages_ready_bytes", "Size in bytes of ready messages", |queue| queue.ready_bytes),
            ("queue_messages_unacked_bytes", "Size in bytes of unacked messages", |queue| queue.unacked_bytes),
            ("queue_messages_delayed_bytes", "Size in bytes of messages not due yet", |queue| queue.delayed_bytes),
            ("queue_consumers", "Consumers on a queue", |queue| queue.consumers.len() as u64),
            ("queue_process_memory_bytes", "Memory in bytes used by the queue", |queue| queue.memory),
        ];
        let counters: [Metric<QueueView>; 13] = [
            ("queue_messages_published_total", "Messages published to a queue", |queue| queue.counters.publish),
            ("queue_messages_delivered_ack_total", "Messages delivered, to be acknowledged", |queue| {
                queue.counters.deliver
            }),
            ("queue_messages_delivered_total", "Messages delivered, acknowledged at once", |queue| {
                queue.counters.deliver_no_ack
            }),
            ("queue_get_ack_total", "Messages polled, to be acknowledged", |queue| queue.counters.get),
            ("queue_get_total", "Messages polled, acknowledged at once", |queue| queue.counters.get_no_ack),
            ("queue_get_empty_total", "Polls of an empty queue", |queue| queue.counters.get_empty),
            ("queue_messages_redelivered_total", "Messages delivered again", |queue| queue.counters.redeliver),
            ("queue_messages_acked_total", "Messages acknowledged", |queue| queue.counters.ack),
            // Ours: RabbitMQ counts these for the node only.
            ("queue_messages_expired_total", "Messages that expired", |queue| queue.counters.expired),
            ("queue_messages_rejected_total", "Messages that consumers rejected", |queue| queue.counters.rejected),
            ("queue_messages_maxlen_total", "Messages that a full queue dropped", |queue| queue.counters.maxlen),
            ("queue_messages_delivery_limit_total", "Messages that failed too often", |queue| {
                queue.counters.delivery_limit
            }),
            ("queue_messages_deduplicated_total", "Messages not taken as duplicates", |queue| {
                queue.counters.deduplicated
            }),
        ];
        for (kind, families) in [("gauge", &gauges[..]), ("counter", &counters[..])] {
            for (name, help, of) in families {
                let mut family = page.family(&format!("rabbitmq_{name}"), kind, help);
                for queue in &self.queues {
                    let labels = [("vhost", &*queue.spec.vhost_name), ("queue", &*queue.spec.name)];
                    family.add(&labels, of(queue));
                }
            }
        }
    }

    fn write_connections(&self, page: &mut Page) {
        let gauges: [Metric<ConnectionView>; 2] = [
            ("connection_channels", "Channels of a connection", |connection| connection.channels.len() as u64),
            ("connection_pending_bytes", "Bytes that wait to be sent", |connection| connection.unsent_bytes),
        ];
        let counters: [Metric<ConnectionView>; 2] = [
            ("connection_incoming_bytes_total", "Bytes received", |connection| connection.received_bytes),
            ("connection_outgoing_bytes_total", "Bytes sent", |connection| connection.sent_bytes),
        ];
        for (kind, families) in [("gauge", gauges), ("counter", counters)] {
            for (name, help, of) in families {
                let mut family = page.family(&format!("rabbitmq_{name}"), kind, help);
                for connection in &self.connections {
                    family.add(&[("connection", &*connection.name), ("vhost", &connection.vhost)], of(connection));
                }
            }
        }
    }
}

/// A number of each `T`: its name after `rabbitmq_`, what it says, and how to get it.
type Metric<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A page in Prometheus's text format.
#[derive(Debug, Default)]
struct Page(String);

/// The numbers of one name.
#[derive(Debug)]
struct Family<'a> {
    page: &'a mut String,
    name: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Begins a name, which must be a new one.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        let _infallible = write!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}\n");
        Family { page: &mut self.0, name: name.to_owned() }
    }
}

impl Family<'_> {
    fn add(&mut self, labels: &[(&str, &str)], number: impl Display) {
        self.page.push_str(&self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let open = if at == 0 { '{' } else { ',' };
            let _infallible = write!(self.page, "{open}{name}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.page, "{close} {number}");
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("x", "An x").add(&[("queue", "a\"b\\c\nd"), ("vhost", "/")], 1);
        assert_eq!(page.0, "# TYPE x gauge\n# HELP x An x\nx{queue=\"a\\\"b\\\\c\\nd\",vhost=\"/\"} 1\n");
    }
}
