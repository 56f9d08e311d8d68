//! What dashboards ask of the metrics: our own, and RabbitMQ's overview (Grafana's 10991).

use super::*;
use std::collections::BTreeSet;

/// The metrics that a dashboard's expressions name.
fn asked(dashboard: &Value, found: &mut BTreeSet<String>) {
    match dashboard {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "expr" || key == "definition" => found.extend(names(text)),
                    other => asked(other, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| asked(value, found)),
        _ => {}
    }
}

fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("rabbitmq_") || word.starts_with("leveret_")).map(str::to_owned)
}

/// The names of a page's samples.
fn told(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_that_a_dashboard_asks_for_is_told() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/work", json!({"durable": true}), 201).await;
    desk.publish("work", "x").await;
    let browser = Browser::at_root(desk.server.board().addresses().metrics[0]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/grafana/leveret.json");
    let ours: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut wanted = BTreeSet::new();
    asked(&ours, &mut wanted);
    assert!(wanted.len() > 30, "{wanted:?}");
    let rabbitmqs = RABBITMQS.split_ascii_whitespace().map(|name| format!("rabbitmq_{name}")).collect();
    // Ours has panels by queue.
    for (path, wanted) in [("/metrics/per-object", wanted), ("/metrics", rabbitmqs)] {
        let told = told(&browser.ask("GET", path, None).await.text);
        let missing: Vec<_> = wanted.difference(&told).collect();
        assert!(missing.is_empty(), "{path}: {missing:?}");
    }
}

const RABBITMQS: &str = "
    identity_info build_info connections channels queues consumers queue_messages_ready queue_messages_unacked
    queue_messages connections_opened_total connections_closed_total channels_opened_total channels_closed_total
    queues_declared_total queues_created_total queues_deleted_total process_open_fds process_max_fds
    process_resident_memory_bytes resident_memory_limit_bytes disk_space_available_bytes
    disk_space_available_limit_bytes erlang_uptime_seconds global_messages_received_total
    global_messages_received_confirm_total global_messages_routed_total global_messages_confirmed_total
    global_messages_unroutable_dropped_total global_messages_unroutable_returned_total global_messages_delivered_total
    global_messages_delivered_consume_manual_ack_total global_messages_delivered_consume_auto_ack_total
    global_messages_delivered_get_manual_ack_total global_messages_delivered_get_auto_ack_total
    global_messages_redelivered_total global_messages_acknowledged_total global_messages_get_empty_total
    global_publishers global_consumers global_messages_dead_lettered_expired_total
    global_messages_dead_lettered_rejected_total global_messages_dead_lettered_maxlen_total
    global_messages_dead_lettered_delivery_limit_total alarms_memory_used_watermark alarms_free_disk_space_watermark";
