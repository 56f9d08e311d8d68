//! Health checks and questions about the node, as `rabbitmq-diagnostics` has them.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::node;
use super::failure::{self, Failure};
use super::formats::{self, Formatter, cell};
use super::status::listener_line;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// What a command is run with.
type Parts<'a, 'b> = (&'a Line, &'a mut Screen, &'b Api, &'b str);

/// Reaches the server, says what is asked, and asks. `NODE` in the banner stands for the node's name.
fn ask(
    command: &'static str,
    banner: &str,
    line: &Line,
    screen: &mut Screen,
    then: impl FnOnce(Parts<'_, '_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let api = Api::new(command, &line.options, None)?;
    let name = node(&api)?;
    screen.banner(&line.options, &banner.replace("NODE", &name))?;
    then((line, screen, &api, &name))
}

/// A check that succeeded: nothing with `--silent`, as in RabbitMQ.
fn passed(line: &Line, screen: &mut Screen, text: &str) -> Result<(), Failure> {
    match line.options.formatter {
        Formatter::Json | Formatter::JsonStream => screen.line(&json!({"result": "ok", "message": text}).to_string()),
        _ if line.options.silent => Ok(()),
        _ => formats::print_message(screen, &line.options, text),
    }
}

/// One that did not.
fn failed(line: &Line, text: &str) -> Failure {
    match line.options.formatter {
        Formatter::Json | Formatter::JsonStream => {
            let text = json!({"result": "error", "message": text}).to_string();
            Failure { code: failure::UNAVAILABLE, text }
        }
        _ => Failure::error(failure::UNAVAILABLE, text),
    }
}

/// The document of a health check, with whether it succeeded.
fn check(api: &Api, path: &str) -> Result<(bool, Value), Failure> {
    let answer = api.send("GET", &format!("/health/checks/{path}"), &[])?;
    match answer.status {
        200 => Ok((true, answer.json())),
        503 => Ok((false, answer.json())),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

pub(super) fn check_running(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Checking if RabbitMQ is running on node NODE ...";
    ask("check_running", banner, line, screen, |(line, screen, _, name)| {
        passed(line, screen, &format!("RabbitMQ on node {name} is fully booted and running"))
    })
}

pub(super) fn is_running(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE for its status ...";
    ask("is_running", banner, line, screen, |(line, screen, _, name)| match line.options.formatter {
        Formatter::Json => screen.line(&json!(true).to_string()),
        _ => screen.line(&format!("RabbitMQ on node {name} is fully booted and running")),
    })
}

pub(super) fn is_booting(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE for its boot status ...";
    ask("is_booting", banner, line, screen, |(line, screen, _, name)| match line.options.formatter {
        Formatter::Json => screen.line(&json!(false).to_string()),
        _ => screen.line(&format!(
            "RabbitMQ on node {name} is fully booted (check with is_running), stopped or has not started booting yet"
        )),
    })
}

pub(super) fn alarms(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE to report any known resource alarms...";
    ask("alarms", banner, line, screen, |(line, screen, api, name)| {
        let lines = alarm_lines(api, "alarms", name)?;
        match line.options.formatter {
            Formatter::Json => {
                let document = json!({"result": "ok", "local": lines, "global": [], "message": format!("Node {name} reported alarms")});
                screen.line(&document.to_string())
            }
            _ if lines.is_empty() => screen.line(&format!("Node {name} reported no alarms, local or clusterwide")),
            _ => lines.iter().try_for_each(|text| screen.line(text)),
        }
    })
}

pub(super) fn check_alarms(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE to report any known resource alarms...";
    ask("check_alarms", banner, line, screen, |(line, screen, api, name)| {
        let lines = alarm_lines(api, "alarms", name)?;
        match lines.is_empty() {
            true => passed(line, screen, &format!("Node {name} reported no alarms, local or clusterwide")),
            false => Err(failed(line, &lines.join("\n"))),
        }
    })
}

pub(super) fn check_local_alarms(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE to report any local resource alarm...";
    ask("check_local_alarms", banner, line, screen, |(line, screen, api, name)| {
        let lines = alarm_lines(api, "local-alarms", name)?;
        match lines.is_empty() {
            true => passed(line, screen, &format!("Node {name} reported no local alarms")),
            false => Err(failed(line, &lines.join("\n"))),
        }
    })
}

/// A line for each alarm that is on.
fn alarm_lines(api: &Api, path: &str, name: &str) -> Result<Vec<String>, Failure> {
    let (_, document) = check(api, path)?;
    let word = |alarm: &Value| match alarm["resource"].as_str() {
        Some("memory") => format!("Memory alarm on node {name}"),
        _ => format!("Free disk space alarm on node {name}"),
    };
    Ok(document["alarms"].as_array().map(|alarms| alarms.iter().map(word).collect()).unwrap_or_default())
}

pub(super) fn check_virtual_hosts(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Checking if all vhosts are running on node NODE ...";
    ask("check_virtual_hosts", banner, line, screen, |(line, screen, api, name)| match check(api, "virtual-hosts")? {
        (true, _) => passed(line, screen, &format!("Node {name} reported all vhosts as running")),
        (false, document) => Err(failed(line, &cell(&document["reason"]))),
    })
}

pub(super) fn check_port_listener(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let port = line.operands[0].as_str();
    if port.parse::<u16>().is_err() {
        return Err(Failure::error(failure::USAGE, "port must be a number from 0 to 65535"));
    }
    let banner = format!("Asking node NODE if there's an active listener on port {port} ...");
    ask("check_port_listener", &banner, line, screen, |(line, screen, api, name)| {
        match check(api, &format!("port-listener/{port}"))? {
            (true, _) => passed(line, screen, &format!("A listener for port {port} is running on node {name}.")),
            (false, document) => Err(failed(
                line,
                &format!(
                    "No listener for port {port} is active on node {name}. Found listeners that use the following ports: {}",
                    joined(&document["ports"])
                ),
            )),
        }
    })
}

pub(super) fn check_protocol_listener(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let protocol = line.operands[0].as_str();
    let banner = format!("Asking node NODE if there's an active listener for protocol {protocol} ...");
    ask("check_protocol_listener", &banner, line, screen, |(line, screen, api, name)| {
        match check(api, &format!("protocol-listener/{}", encoded(protocol)))? {
            (true, _) => {
                passed(line, screen, &format!("A listener for protocol {protocol} is running on node {name}."))
            }
            (false, document) => Err(failed(
                line,
                &format!(
                    "No listener for protocol {protocol} is active on node {name}. Found listeners for the following \
                     protocols: {}",
                    joined(&document["protocols"])
                ),
            )),
        }
    })
}

fn joined(list: &Value) -> String {
    list.as_array().map(|items| items.iter().map(cell).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

/// Connects to each listener by itself, from here.
pub(super) fn check_port_connectivity(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Testing TCP connections to all active listeners on node NODE ...";
    ask("check_port_connectivity", banner, line, screen, |(line, screen, api, name)| {
        let host = line.options.all("address").last().map(str::to_owned).or_else(|| api.host());
        let listeners = listeners_of(api)?;
        let mut ports: Vec<_> = listeners.iter().map(|listener| cell(&listener["port"])).collect();
        ports.dedup();
        let cannot = |listener: &&Value| !can_connect(listener, host.as_deref());
        let closed: Vec<_> = listeners.iter().filter(cannot).map(listener_line).collect();
        match closed.is_empty() {
            true => {
                let ports = ports.join(", ");
                passed(line, screen, &format!("Successfully connected to ports {ports} on node {name}"))
            }
            false => Err(failed(
                line,
                &format!(
                    "Connection to ports of the following listeners on node {name} failed:\n{}",
                    closed.join("\n")
                ),
            )),
        }
    })
}

/// Whether a listener lets itself be connected to: where it listens, or at this host if it is another machine's.
fn can_connect(listener: &Value, host: Option<&str>) -> bool {
    use std::net::ToSocketAddrs as _;
    let Some(port) = listener["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { return false };
    let own = listener["ip_address"].as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let here = own.map(|address| match address {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    });
    let addresses: Vec<SocketAddr> = match host {
        Some(host) => (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default(),
        None => here.into_iter().map(|address| SocketAddr::new(address, port)).collect(),
    };
    addresses.iter().any(|address| TcpStream::connect_timeout(address, CONNECT_TIME).is_ok())
}

fn listeners_of(api: &Api) -> Result<Vec<Value>, Failure> {
    let overview = api.get("/overview?columns=listeners")?.unwrap_or_default();
    Ok(overview["listeners"].as_array().cloned().unwrap_or_default())
}

pub(super) fn listeners(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE to report its protocol listeners ...";
    ask("listeners", banner, line, screen, |(line, screen, api, name)| {
        let listeners = listeners_of(api)?;
        match line.options.formatter {
            Formatter::Json | Formatter::JsonStream => {
                let described: Vec<_> = listeners
                    .iter()
                    .map(|listener| {
                        json!({
                            "interface": listener["ip_address"],
                            "node": listener["node"],
                            "port": listener["port"],
                            "protocol": listener["protocol"],
                            "purpose": super::status::purpose(&cell(&listener["protocol"])),
                        })
                    })
                    .collect();
                screen.line(&json!({"result": "ok", "node": name, "listeners": described}).to_string())
            }
            Formatter::Csv => {
                let columns = ["node", "interface", "port", "protocol"];
                let row = |listener: &Value| {
                    ["node", "ip_address", "port", "protocol"].iter().map(|field| listener[*field].clone()).collect()
                };
                formats::print_rows(screen, &line.options, &columns, &listeners.iter().map(row).collect::<Vec<_>>())
            }
            _ => listeners.iter().try_for_each(|listener| screen.line(&listener_line(listener))),
        }
    })
}

pub(super) fn memory_breakdown(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let unit = line.options.all("unit").last().unwrap_or("gb").to_ascii_lowercase();
    let factor = match unit.as_str() {
        "bytes" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(Failure::error(failure::USAGE, "unit must be one of bytes, kb, mb, gb, tb")),
    };
    ask("memory_breakdown", "Reporting memory breakdown on node NODE...", line, screen, |(line, screen, api, name)| {
        let document = api.get(&format!("/nodes/{}/memory", encoded(name)))?.unwrap_or_default();
        let memory = &document["memory"];
        let total = memory["total"]["rss"].as_f64().unwrap_or_default().max(1.0);
        let parts = memory.as_object().into_iter().flatten();
        let mut parts: Vec<_> = parts.filter_map(|(part, bytes)| Some((part.as_str(), bytes.as_f64()?))).collect();
        parts.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        let share = |bytes: f64| (bytes / total * 10_000.0).round() / 100.0;
        match line.options.formatter {
            Formatter::Json | Formatter::JsonStream => {
                let described: serde_json::Map<_, _> = parts
                    .iter()
                    .map(|(part, bytes)| ((*part).to_owned(), json!({"bytes": bytes, "percentage": share(*bytes)})))
                    .collect();
                screen.line(&Value::from(described).to_string())
            }
            Formatter::Csv => {
                let rows: Vec<_> =
                    parts.iter().map(|(part, bytes)| vec![json!(part), json!(bytes), json!(share(*bytes))]).collect();
                formats::print_rows(screen, &line.options, &["name", "bytes", "percentage"], &rows)
            }
            _ => parts.iter().try_for_each(|(part, bytes)| {
                let amount = (bytes / factor * 1e4).round() / 1e4;
                screen.line(&format!("{part}: {amount:?} {unit} ({}%)", share(*bytes)))
            }),
        }
    })
}

pub(super) fn check_certificate_expiration(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let within = line.options.number("within")?.unwrap_or(4);
    let unit = line.options.all("unit").last().unwrap_or("weeks").to_owned();
    let banner = format!("Checking certificate expiration on node NODE within {within} {unit} ...");
    ask("check_certificate_expiration", &banner, line, screen, |(line, screen, api, name)| {
        match check(api, &format!("certificate-expiration/{within}/{}", encoded(&unit)))? {
            (true, _) => passed(line, screen, &format!("No certificate of node {name} expires within {within} {unit}")),
            (false, document) => Err(failed(line, &cell(&document["reason"]))),
        }
    })
}

pub(super) fn check_quorum(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Checking if node NODE is critical for quorum of any quorum queues ...";
    ask("check_if_node_is_quorum_critical", banner, line, screen, |(line, screen, api, name)| {
        match check(api, "node-is-quorum-critical")? {
            (true, _) => {
                passed(line, screen, &format!("Node {name} is a single node cluster: it is the only one that counts"))
            }
            (false, document) => Err(failed(line, &cell(&document["reason"]))),
        }
    })
}

pub(super) fn check_deprecated(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Checking if any deprecated features are used ...";
    ask("check_if_any_deprecated_features_are_used", banner, line, screen, |(line, screen, api, _)| {
        let used = api.get("/deprecated-features/used")?.unwrap_or_default();
        let names: Vec<_> = used.as_array().into_iter().flatten().map(|feature| cell(&feature["name"])).collect();
        match names.is_empty() {
            true => passed(line, screen, "Cluster reported no deprecated features in use"),
            false => Err(failed(line, &format!("Deprecated features in use: {}", names.join(", ")))),
        }
    })
}

pub(super) fn node_health_check(_program: &str, _line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    screen.line(
        "This command is DEPRECATED and is a no-op. Use check_running, check_local_alarms, check_port_connectivity and \
         check_virtual_hosts in its place",
    )
}

pub(super) fn server_version(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE for its RabbitMQ version...";
    ask("server_version", banner, line, screen, |(line, screen, api, _)| tell(line, screen, api, "rabbitmq_version"))
}

pub(super) fn erlang_version(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let banner = "Asking node NODE for its Erlang/OTP version...";
    ask("erlang_version", banner, line, screen, |(line, screen, api, _)| tell(line, screen, api, "erlang_version"))
}

/// A field of the overview.
fn tell(line: &Line, screen: &mut Screen, api: &Api, field: &str) -> Result<(), Failure> {
    let overview = api.get(&format!("/overview?columns={field}"))?.unwrap_or_default();
    match line.options.formatter {
        Formatter::Json | Formatter::JsonStream => {
            screen.line(&json!({"result": "ok", "value": overview[field]}).to_string())
        }
        _ => screen.line(&cell(&overview[field])),
    }
}

const CONNECT_TIME: Duration = Duration::from_secs(5);
