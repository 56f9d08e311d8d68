//! `status`: what the server is and takes, in sections.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::failure::Failure;
use super::formats::{BOLD, Formatter, PLAIN, cell};
use serde_json::{Value, json};
use std::io::IsTerminal as _;

pub(super) fn run(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new("status", options, None)?;
    let overview = api.get("/overview")?.unwrap_or_default();
    let name = overview["node"].as_str().unwrap_or_default();
    let node = api.get(&format!("/nodes/{}", encoded(name)))?.unwrap_or_default();
    let vhosts = api.get("/vhosts?columns=name")?.unwrap_or_default();
    let vhosts = vhosts.as_array().map_or(0, Vec::len);
    if options.formatter.is_for_machines() || options.formatter == Formatter::PrettyTable {
        return screen.line(&document(&overview, &node, vhosts).to_string());
    }
    screen.banner(options, &format!("Status of node {name} ..."))?;
    print_sections(screen, &sections(&overview, &node, vhosts))
}

/// A listener as people read it.
pub(super) fn listener_line(listener: &Value) -> String {
    let protocol = cell(&listener["protocol"]);
    let (interface, port) = (cell(&listener["ip_address"]), cell(&listener["port"]));
    let interface = if interface.contains(':') { format!("[{interface}]") } else { interface };
    format!("Interface: {interface}, port: {port}, protocol: {protocol}, purpose: {}", purpose(&protocol))
}

/// What a protocol is for.
pub(super) fn purpose(protocol: &str) -> &str {
    match protocol {
        "amqp" => "AMQP 0-9-1",
        "amqp/ssl" => "AMQP 0-9-1 over TLS",
        "http" => "HTTP API",
        "https" => "HTTP API over TLS",
        "http/prometheus" | "https/prometheus" => "Prometheus metrics",
        other => other,
    }
}

/// Heads, and lines below each.
pub(super) fn print_sections(screen: &mut Screen, sections: &[(&str, Vec<String>)]) -> Result<(), Failure> {
    for (section, lines) in sections {
        let head =
            if std::io::stdout().is_terminal() { format!("{BOLD}{section}{PLAIN}") } else { (*section).to_owned() };
        screen.line(&format!("{head}\n"))?;
        for line in lines {
            screen.line(line)?;
        }
        screen.line("")?;
    }
    Ok(())
}

fn document(overview: &Value, node: &Value, vhosts: usize) -> Value {
    json!({
        "product_name": overview["product_name"],
        "product_version": overview["product_version"],
        "rabbitmq_version": overview["rabbitmq_version"],
        "node": overview["node"],
        "pid": node["os_pid"].as_str().and_then(|pid| pid.parse::<u32>().ok()),
        "uptime": node["uptime"].as_u64().map(|ms| ms / 1000),
        "alarms": alarms(node).map(|(resource, _)| json!({
            "node": overview["node"],
            "resource": resource,
            "type": "resource_limit",
        })).collect::<Vec<_>>(),
        "active_plugins": [],
        "data_directory": node["db_dir"],
        "disk_free": node["disk_free"],
        "disk_free_limit": node["disk_free_limit"],
        "memory": {"total": {"rss": node["mem_used"]}, "strategy": "rss"},
        "vm_memory_calculation_strategy": "rss",
        "vm_memory_high_watermark_setting": node["vm_memory_high_watermark"],
        "vm_memory_high_watermark_limit": node["mem_limit"],
        "file_descriptors": {"total_used": node["fd_used"], "total_limit": node["fd_total"]},
        "totals": {
            "connection_count": overview["object_totals"]["connections"],
            "queue_count": overview["object_totals"]["queues"],
            "virtual_host_count": vhosts,
        },
        "listeners": overview["listeners"],
    })
}

fn sections(overview: &Value, node: &Value, vhosts: usize) -> Vec<(&'static str, Vec<String>)> {
    let totals = &overview["object_totals"];
    let seconds = node["uptime"].as_u64().map_or_else(String::new, |ms| (ms / 1000).to_string());
    let listeners = overview["listeners"].as_array().map(|all| all.iter().map(listener_line).collect());
    vec![
        (
            "Runtime",
            vec![
                format!("OS PID: {}", cell(&node["os_pid"])),
                format!("Uptime (seconds): {seconds}"),
                format!("{} version: {}", cell(&overview["product_name"]), cell(&overview["product_version"])),
                format!("Node name: {}", cell(&overview["node"])),
            ],
        ),
        ("Data directory", vec![format!("Node data directory: {}", cell(&node["db_dir"]))]),
        ("Alarms", alarm_lines(overview, node)),
        (
            "Memory",
            vec![
                format!("Total memory used: {}", gigabytes(&node["mem_used"])),
                "Calculation strategy: rss".to_owned(),
                memory_limit(node),
            ],
        ),
        ("File Descriptors", vec![format!("Total: {}, limit: {}", cell(&node["fd_used"]), cell(&node["fd_total"]))]),
        (
            "Free Disk Space",
            vec![
                format!("Low free disk space watermark: {}", gigabytes(&node["disk_free_limit"])),
                format!("Free disk space: {}", gigabytes(&node["disk_free"])),
            ],
        ),
        (
            "Totals",
            vec![
                format!("Connection count: {}", cell(&totals["connections"])),
                format!("Queue count: {}", cell(&totals["queues"])),
                format!("Virtual host count: {vhosts}"),
            ],
        ),
        ("Listeners", listeners.unwrap_or_default()),
    ]
}

/// The alarms that are on: their names to machines and to people.
pub(super) fn alarms(node: &Value) -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = [("disk", "Free disk space", "disk_free_alarm"), ("memory", "Memory", "mem_alarm")];
    let on = all.map(|(resource, name, field)| (node[field] == true).then_some((resource, name)));
    on.into_iter().flatten()
}

fn alarm_lines(overview: &Value, node: &Value) -> Vec<String> {
    let lines: Vec<_> =
        alarms(node).map(|(_, name)| format!("{name} alarm on node {}", cell(&overview["node"]))).collect();
    if lines.is_empty() { vec!["(none)".to_owned()] } else { lines }
}

fn memory_limit(node: &Value) -> String {
    let setting = &node["vm_memory_high_watermark"];
    let setting = match &setting["relative"] {
        Value::Null => gigabytes(&setting["absolute"]),
        share => format!("{share} of available memory"),
    };
    format!("Memory high watermark setting: {setting}, computed to: {}", gigabytes(&node["mem_limit"]))
}

fn gigabytes(bytes: &Value) -> String {
    // Four places at most, and one at least, as RabbitMQ rounds.
    bytes.as_f64().map_or_else(|| "unknown".to_owned(), |bytes| format!("{:?} gb", (bytes / 1e5).round() / 1e4))
}
