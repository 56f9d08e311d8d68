//! Health checks, questions about the node, and what has no meaning here.

use super::*;

/// The node's name.
fn node(desk: &Desk) -> String {
    desk.say("status").out.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn health_checks_say_what_rabbitmq_diagnostics_says() {
    let desk = Desk::open();
    let node = node(&desk);
    let port = |service| desk.address(service).rsplit(':').next().unwrap().to_owned();
    let ports = ["AMQP", "HTTP", "metrics"].map(port).join(", ");
    let amqp = port("AMQP");
    for (line, banner, verdict) in [
        (
            "check_running",
            format!("Checking if RabbitMQ is running on node {node} ..."),
            format!("RabbitMQ on node {node} is fully booted and running"),
        ),
        (
            "check_local_alarms",
            format!("Asking node {node} to report any local resource alarm..."),
            format!("Node {node} reported no local alarms"),
        ),
        (
            "check_alarms",
            format!("Asking node {node} to report any known resource alarms..."),
            format!("Node {node} reported no alarms, local or clusterwide"),
        ),
        (
            "check_virtual_hosts",
            format!("Checking if all vhosts are running on node {node} ..."),
            format!("Node {node} reported all vhosts as running"),
        ),
        (
            "check_port_connectivity",
            format!("Testing TCP connections to all active listeners on node {node} ..."),
            format!("Successfully connected to ports {ports} on node {node}"),
        ),
        (
            &format!("check_port_listener {amqp}"),
            format!("Asking node {node} if there's an active listener on port {amqp} ..."),
            format!("A listener for port {amqp} is running on node {node}."),
        ),
        (
            "check_protocol_listener amqp",
            format!("Asking node {node} if there's an active listener for protocol amqp ..."),
            format!("A listener for protocol amqp is running on node {node}."),
        ),
    ] {
        assert_eq!(desk.say(line), printed(&format!("{banner}\n{verdict}\n")), "{line}");
        assert_eq!(desk.say(&format!("-q {line}")), printed(&format!("{verdict}\n")), "{line}");
        assert_eq!(desk.say(&format!("-s {line}")), printed(""), "{line}");
        let json = format!("{{\"result\":\"ok\",\"message\":\"{verdict}\"}}\n");
        assert_eq!(desk.say(&format!("{line} --formatter json")), printed(&json), "{line}");
    }
}

#[test]
fn health_checks_that_fail_exit_with_69() {
    let desk = Desk::open();
    let node = node(&desk);
    assert_eq!(desk.say("-q set_vm_memory_high_watermark 0.000000001").code, 0);
    let alarm = format!("Error:\nMemory alarm on node {node}\n");
    assert_eq!(desk.say("-q check_local_alarms"), failed(69, "", &alarm));
    assert_eq!(desk.say("-q check_alarms"), failed(69, "", &alarm));
    assert_eq!(desk.say("-q alarms"), printed(&format!("Memory alarm on node {node}\n")));
    let json = format!("{{\"result\":\"error\",\"message\":\"Memory alarm on node {node}\"}}\n");
    assert_eq!(desk.say("check_local_alarms --formatter json"), failed(69, "", &json));
    let none = desk.say("-q check_port_listener 1");
    assert!(
        none.code == 69 && none.err.starts_with(&format!("Error:\nNo listener for port 1 is active on node {node}."))
    );
    let none = desk.say("-q check_protocol_listener mqtt");
    assert!(none.code == 69 && none.err.contains("No listener for protocol mqtt is active"), "{none:?}");
    assert_eq!(desk.say("-q check_port_listener x").code, 64);
    assert_eq!(desk.say("check_certificate_expiration --unit fortnights").code, 69);
    let client = desk.client();
    drop(client);
    let mut client = desk.client();
    client.declare("fleeting", false, false, Table::new());
    let used = "Error:\nDeprecated features in use: transient_nonexcl_queues\n";
    assert_eq!(desk.say("-q check_if_any_deprecated_features_are_used"), failed(69, "", used));
    let listed = printed("name\tdeprecation_phase\ntransient_nonexcl_queues\tpermitted_by_default\n");
    assert_eq!(desk.say("-q list_deprecated_features --used"), listed);
}

#[test]
fn a_server_that_is_not_there_fails_every_check() {
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_leveret"));
    for check in ["check_running", "check_local_alarms", "check_port_connectivity", "check_virtual_hosts", "ping"] {
        let ran = run(program, directory.path(), &["ctl", check]);
        assert!(ran.code == 69 && ran.out.is_empty(), "{check}: {ran:?}");
    }
}

#[test]
fn the_cluster_is_described_and_named() {
    let desk = Desk::open();
    let node = node(&desk);
    assert_eq!(desk.say("set_cluster_name herd"), printed("Setting cluster name to herd ...\n"));
    let status = desk.say("cluster_status").out;
    let begin = format!("Cluster status of node {node} ...\nBasics\n\nCluster name: herd\n");
    assert!(status.starts_with(&begin), "{status}");
    assert!(status.contains(&format!("\nRunning Nodes\n\n{node}\n")), "{status}");
    let json: serde_json::Value = serde_json::from_str(&desk.say("cluster_status --formatter json").out).unwrap();
    assert_eq!((&json["cluster_name"], &json["running_nodes"][0]), (&"herd".into(), &node.as_str().into()));
    assert!(desk.say("-q list_feature_flags").out.contains("quorum_queue\tenabled\n"));
    assert_eq!(desk.say("enable_feature_flag all"), printed("Enabling all feature flags ...\n"));
    assert_eq!(desk.say("enable_feature_flag khepri_db").code, 69);
    assert_eq!(desk.say("await_online_nodes 1"), printed("Waiting for 1 nodes to come online ...\n"));
    assert_eq!(desk.say("await_online_nodes 2").code, 75);
}

#[test]
fn what_the_server_is_and_takes_is_reported() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("jobs", true, false, Table::new());
    let environment = desk.say("-q environment --formatter json");
    let environment: serde_json::Value = serde_json::from_str(&environment.out).unwrap();
    assert_eq!((&environment["log"], &environment["heartbeat_s"]), (&"off".into(), &60.into()));
    let listener =
        format!("port: {}, protocol: amqp, purpose: AMQP 0-9-1\n", desk.address("AMQP").rsplit(':').next().unwrap());
    assert!(desk.say("-q listeners").out.contains(&listener));
    assert!(desk.say("-q memory_breakdown --unit mb").out.contains(" mb ("));
    assert_eq!(desk.say("memory_breakdown --unit stones").code, 64);
    let report = desk.say("report");
    assert_eq!((report.code, report.err.as_str()), (0, ""));
    for part in ["Status of node ", "Cluster status of node ", "Application environment of node ", "\njobs\t0\n"] {
        assert!(report.out.contains(part), "{part} is missing in\n{}", report.out);
    }
    let top = desk.say("top --interval 1 --count 2");
    assert!(top.code == 0 && top.out.contains("\njobs ") && !top.out.contains('\x1b'), "{top:?}");
    assert_eq!(
        desk.say("-q list_queues name late_leases oldest_ready_age_ms"),
        printed("name\tlate_leases\toldest_ready_age_ms\njobs\t0\t\n")
    );
    assert_eq!(desk.say("-q list_unresponsive_queues"), printed(""));
}

#[test]
fn commands_of_other_worlds_say_that_they_have_no_meaning() {
    let desk = Desk::open();
    let eval = failed(69, "", "Error:\neval has no meaning here: the server is not an Erlang program\n");
    assert_eq!(desk.ctl(&["eval", "1 + 1."]), eval);
    for command in ["stop_app", "reset", "join_cluster rabbit@other", "rotate_logs", "suspend_listeners"] {
        let ran = desk.say(command);
        assert!(ran.code == 69 && ran.err.contains("has no meaning here: "), "{command}: {ran:?}");
    }
}

#[test]
fn a_users_connections_are_closed() {
    let desk = Desk::open();
    let mut client = desk.client();
    let said = printed("Closing connections of user guest, reason: bye...\n");
    assert_eq!(desk.say("close_all_user_connections guest bye"), said);
    assert_eq!(client.expect_close(), (320, "CONNECTION_FORCED - bye".to_owned()));
}

#[test]
fn a_server_is_stopped_through_its_socket() {
    let mut desk = Desk::open();
    let stopped = desk.say("shutdown");
    assert_eq!((stopped.code, stopped.err.as_str()), (0, ""));
    assert!(stopped.out.ends_with(" successfully shut down\n"), "{}", stopped.out);
    assert!(desk.server.wait().unwrap().success());
}

#[test]
fn diagnostics_have_their_own_name() {
    let desk = Desk::open();
    let link = desk.directory.path().join("rabbitmq-diagnostics");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_leveret"), &link).unwrap();
    assert_eq!(run(&link, &desk.data_dir(), &["-q", "ping"]), printed("Ping succeeded\n"));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_leveret"));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(program, directory.path(), &["completions", shell]);
        assert_eq!((script.code, script.err.as_str()), (0, ""));
        for word in ["list_queues", "check_port_connectivity", "redrive_queue", "no-table-headers"] {
            assert!(script.out.contains(word), "{word} is missing for {shell}");
        }
    }
    let pages = directory.path().join("man");
    assert_eq!(run(program, directory.path(), &["man", pages.to_str().unwrap()]), printed(""));
    for page in ["leveret.1", "leveret-serve.1", "leveret-ctl.1", "leveret-ctl-list_queues.1"] {
        assert!(std::fs::read_to_string(pages.join(page)).unwrap().contains(".TH"), "{page}");
    }
}
