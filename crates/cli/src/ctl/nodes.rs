//! Commands about the node and its cluster of one: what they mean here is done, what they do not is said.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::{self, done, node, pause};
use super::failure::{self, Failure};
use super::formats::{Formatter, cell};
use super::status::{self, alarms, listener_line};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) fn cluster_status(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new("cluster_status", options, None)?;
    let overview = api.get("/overview")?.unwrap_or_default();
    let name = cell(&overview["node"]);
    let node = api.get(&format!("/nodes/{}", encoded(&name)))?.unwrap_or_default();
    let flags = api.get("/feature-flags")?.unwrap_or_default();
    let flags: Vec<_> = flags.as_array().cloned().unwrap_or_default();
    screen.banner(options, &format!("Cluster status of node {name} ..."))?;
    let listeners = overview["listeners"].as_array().cloned().unwrap_or_default();
    if options.formatter.is_for_machines() {
        let of_node = |value: Value| Value::from([(name.clone(), value)].into_iter().collect::<Map<_, _>>());
        let shown = |flag: &Value| json!({"name": flag["name"], "state": flag["state"]});
        let resources: Vec<_> =
            alarms(&node).map(|(resource, _)| json!({"node": name, "resource": resource})).collect();
        let document = json!({
            "cluster_name": overview["cluster_name"],
            "alarms": resources,
            "cpu_cores": of_node(node["processors"].clone()),
            "disk_nodes": [name],
            "ram_nodes": [],
            "running_nodes": [name],
            "partitions": {},
            "maintenance_status": of_node(json!("not under maintenance")),
            "versions": of_node(json!({
                "rabbitmq_name": overview["product_name"],
                "rabbitmq_version": overview["product_version"],
                "erlang_version": overview["erlang_version"],
            })),
            "listeners": of_node(listeners.into()),
            "feature_flags": flags.iter().map(shown).collect::<Vec<_>>(),
        });
        return screen.line(&document.to_string());
    }
    let alarm_lines: Vec<_> = alarms(&node).map(|(_, alarm)| format!("{alarm} alarm on node {name}")).collect();
    let versions = format!("{name}: {} {}", cell(&overview["product_name"]), cell(&overview["product_version"]));
    let cores = cell(&node["processors"]);
    let or_none = |lines: Vec<String>| if lines.is_empty() { vec!["(none)".to_owned()] } else { lines };
    let uncapital = |text: String| text.replacen("Interface", "interface", 1);
    let listener = |listener: &Value| format!("Node: {name}, {}", uncapital(listener_line(listener)));
    let flag = |flag: &Value| format!("Flag: {}, state: {}", cell(&flag["name"]), cell(&flag["state"]));
    let sections = vec![
        (
            "Basics",
            vec![
                format!("Cluster name: {}", cell(&overview["cluster_name"])),
                format!("Total CPU cores available cluster-wide: {cores}"),
            ],
        ),
        ("Disk Nodes", vec![name.clone()]),
        ("Running Nodes", vec![name.clone()]),
        ("Versions", vec![versions]),
        ("CPU Cores", vec![format!("Node: {name}, available CPU cores: {cores}")]),
        ("Maintenance status", vec![format!("Node: {name}, status: not under maintenance")]),
        ("Alarms", or_none(alarm_lines)),
        ("Network Partitions", or_none(Vec::new())),
        ("Listeners", listeners.iter().map(listener).collect()),
        ("Feature flags", flags.iter().map(flag).collect()),
    ];
    status::print_sections(screen, &sections)
}

/// What the server runs by, as far as its API tells.
pub(super) fn environment(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new("environment", options, None)?;
    let name = node(&api)?;
    screen.banner(options, &format!("Application environment of node {name} ..."))?;
    let environment = api.get("/config/effective")?.unwrap_or_default();
    if options.formatter.is_for_machines() {
        return screen.line(&environment.to_string());
    }
    screen.line(&cell(&json!({"leveret": environment})))
}

/// Everything that helps someone who was not there.
pub(super) fn report(program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let api = Api::new("report", &line.options, None)?;
    let name = node(&api)?;
    screen.line(&format!("Reporting server status of node {name} ...\n"))?;
    for command in ["status", "cluster_status", "environment"] {
        commands::run(program, command, &line.like(command, None), screen)?;
        screen.line("")?;
    }
    for command in ["list_connections", "list_channels", "list_vhosts"] {
        commands::run(program, command, &line.like(command, None), screen)?;
        screen.line("")?;
    }
    let vhosts = api.get("/vhosts?columns=name")?.unwrap_or_default();
    for vhost in vhosts.as_array().into_iter().flatten() {
        for command in ["list_queues", "list_exchanges", "list_bindings", "list_policies", "list_consumers"] {
            commands::run(program, command, &line.like(command, vhost["name"].as_str()), screen)?;
            screen.line("")?;
        }
    }
    Ok(())
}

pub(super) fn set_cluster_name(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    let api = Api::new("set_cluster_name", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Setting cluster name to {name} ..."))?;
    let answer = api.put("/cluster-name", &json!({"name": name}))?;
    match answer.status {
        204 => done(&api, options, screen),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

pub(super) fn enable_feature_flag(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    let api = Api::new("enable_feature_flag", options, None)?;
    api.reach()?;
    let banner = match name.as_str() {
        "all" => "Enabling all feature flags ...".to_owned(),
        name => format!("Enabling feature flag \"{name}\" ..."),
    };
    screen.banner(options, &banner)?;
    let answer = api.put(&format!("/feature-flags/{}/enable", encoded(name)), &json!({}))?;
    match answer.status {
        204 => done(&api, options, screen),
        400 => {
            let text = format!("Error:\nfeature flag \"{name}\" is not supported by this version");
            Err(Failure { code: failure::UNAVAILABLE, text })
        }
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

/// Waits until so many nodes run: there is one.
pub(super) fn await_online_nodes(program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let Ok(count) = line.operands[0].parse::<u64>() else {
        return Err(Failure::error(failure::USAGE, "the number of nodes must be a number"));
    };
    screen.banner(&line.options, &format!("Waiting for {count} nodes to come online ..."))?;
    if count > 1 {
        let ms = line.options.timeout.unwrap_or_default().as_millis();
        let text =
            format!("Error: operation await_online_nodes timed out: there is one node. Timeout value used: {ms}");
        return Err(Failure { code: failure::TIMEOUT, text });
    }
    commands::await_startup(program, line, screen)
}

/// Waits until the process of a file runs and its server answers.
pub(super) fn wait(program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let file = line.operands.first().map(Path::new);
    let given = line.options.number("pid")?;
    let read = |file: &Path| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let Some(pid) = given.or_else(|| file.and_then(read)) else {
        return Err(Failure::error(failure::DATA, "there is no file with a process id, and no --pid"));
    };
    screen.banner(&line.options, &format!("Waiting for pid {pid} to start ..."))?;
    commands::await_startup(program, line, screen)
}

/// Ends the server as a signal does, and waits until it is gone.
pub(super) fn stop(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new("stop", options, None)?;
    let name = node(&api)?;
    let document = api.get(&format!("/nodes/{}?columns=os_pid", encoded(&name)))?.unwrap_or_default();
    let pid = document["os_pid"].as_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|_| api.host().is_none()) else {
        let text = "only a server on this machine can be stopped, through the socket in its data directory";
        return Err(Failure::error(failure::UNAVAILABLE, text));
    };
    let shown = pid.as_raw_nonzero();
    screen.banner(options, &format!("Stopping and halting node {name} ..."))?;
    screen.banner(options, &format!("Shutting down Leveret node {name} running at PID {shown}"))?;
    kill_process(pid, Signal::TERM)
        .map_err(|error| Failure::error(failure::UNAVAILABLE, format!("cannot signal process {shown}: {error}")))?;
    screen.banner(options, &format!("Waiting for PID {shown} to terminate"))?;
    let deadline = Instant::now() + options.timeout.unwrap_or(STOP_TIME);
    while api.is_there() && test_kill_process(pid).is_ok() {
        if Instant::now() >= deadline {
            let text = format!("Error: process {shown} still runs");
            return Err(Failure { code: failure::TIMEOUT, text });
        }
        pause(STOP_POLL);
    }
    match options.formatter {
        Formatter::Json => screen.line(&json!({"node": name, "result": "ok"}).to_string()),
        _ => screen.banner(options, &format!("Leveret node {name} running at PID {shown} successfully shut down")),
    }
}

/// What other nodes, plugins or Erlang would be needed for.
pub(super) fn no_meaning(_program: &str, line: &Line, _screen: &mut Screen) -> Result<(), Failure> {
    let command = line.command.as_deref().unwrap_or_default();
    let why = match command {
        "eval" | "eval_file" | "remote_shell" | "observer" => "the server is not an Erlang program",
        "start_app" | "stop_app" => "the server has no application to start and stop in it; see `stop`",
        "reset" | "force_reset" => "to begin anew, stop the server and remove its data directory",
        "rotate_logs" => "the server logs to standard error, and whoever reads that rotates it",
        "cipher_suites" | "tls_versions" => "the server has no list of its own",
        "suspend_listeners" | "resume_listeners" => "listeners cannot be suspended",
        _ => "there is one node, and it has no others to join, leave or share queues with",
    };
    Err(Failure::error(failure::UNAVAILABLE, format!("{command} has no meaning here: {why}")))
}

const STOP_TIME: Duration = Duration::from_secs(30);
const STOP_POLL: Duration = Duration::from_millis(50);
