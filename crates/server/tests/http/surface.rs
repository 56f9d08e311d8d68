//! What RabbitMQ's API has for clusters and plugins, and the document of all paths.

use super::*;
use std::collections::BTreeMap;

#[tokio::test]
async fn the_clusters_name_can_be_changed() {
    let desk = Desk::open().await;
    let node = desk.get("/overview").await["node"].clone();
    assert_eq!(desk.get("/cluster-name").await["name"], node);
    desk.send("PUT", "/cluster-name", json!({"name": "herd"}), 204).await;
    assert_eq!(desk.get("/cluster-name").await, json!({"name": "herd"}));
    let overview = desk.get("/overview").await;
    assert_eq!((&overview["cluster_name"], &overview["node"]), (&json!("herd"), &node));
    let refused = desk.send("PUT", "/cluster-name", json!({}), 400).await.json();
    assert_eq!(refused, json!({"error": "bad_request", "reason": "[{key_missing,name}]"}));
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_changes_nothing() {
    let desk = Desk::open().await;
    assert_eq!(desk.get("/healthchecks/node/").await["status"], "ok");
    assert_eq!(desk.get("/queues/%2F/?page=1").await["items"], json!([]));
    desk.send("PUT", "/queues/%2F/q/", json!({}), 201).await;
    assert_eq!(desk.get("/queues/%2F/q").await["name"], "q");
    desk.send("GET", "/queues/%2F/q//", json!({}), 404).await;
}

#[tokio::test]
async fn every_health_check_answers() {
    let desk = Desk::open().await;
    let port = desk.server.board().addresses().amqp[0].port();
    for check in [
        "alarms",
        "local-alarms",
        "virtual-hosts",
        "is-in-service",
        "ready-to-serve-clients",
        "node-is-quorum-critical",
        "metadata-store/initialized",
        "metadata-store/initialized/with-data",
        "below-node-connection-limit",
        "reached-target-cluster-size/1",
        "certificate-expiration/2/weeks",
        "quorum-queues-without-elected-leaders/all-vhosts/pattern/.%2A",
        "quorum-queues-without-elected-leaders/vhost/%2F/pattern/.%2A",
        "protocol-listener/amqp",
        &format!("port-listener/{port}"),
    ] {
        assert_eq!(desk.get(&format!("/health/checks/{check}")).await["status"], "ok", "{check}");
    }
    for (check, status) in [
        ("reached-target-cluster-size/3", 503),
        ("reached-target-cluster-size/x", 400),
        ("certificate-expiration/2/fortnights", 400),
        ("certificate-expiration/soon/days", 400),
        ("quorum-queues-without-elected-leaders/vhost/nov/pattern/x", 404),
        ("port-listener/1", 503),
        ("port-listener/x", 400),
        ("protocol-listener/mqtt", 503),
    ] {
        let answer = desk.browser.ask("GET", &format!("/health/checks/{check}"), None).await;
        assert_eq!(answer.status, status, "{check}: {}", answer.text);
        assert!(answer.json()["reason"].is_string(), "{check}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_cluster_of_one_answers_what_clusters_are_asked() {
    let desk = Desk::open().await;
    let node = desk.get("/overview").await["node"].as_str().unwrap().to_owned();
    assert_eq!(desk.get("/extensions").await, json!([]));
    assert_eq!(desk.get("/auth").await, json!({"oauth_enabled": false}));
    desk.send("POST", "/rebalance/queues", json!({}), 204).await;
    desk.delete("/reset", 204).await;
    desk.delete(&format!("/reset/{node}"), 204).await;
    desk.delete("/reset/nobody", 404).await;
    let memory = desk.get(&format!("/nodes/{node}/memory")).await;
    assert_eq!(memory["memory"]["total"]["rss"], memory["memory"]["total"]["allocated"]);
    assert_eq!(memory["memory"].as_object().unwrap().len(), 28);
    assert_eq!(desk.get(&format!("/nodes/{node}/memory/ets")).await, json!({"ets": "not_available"}));
    let flags = desk.get("/feature-flags").await;
    assert!(flags.as_array().unwrap().iter().all(|flag| flag["state"] == "enabled"), "{flags}");
    desk.send("PUT", "/feature-flags/quorum_queue/enable", json!({}), 204).await;
    desk.send("PUT", "/feature-flags/khepri_db/enable", json!({}), 400).await;
    // Without the plugins that serve them RabbitMQ has no such paths either.
    for path in ["/shovels", "/shovels/%2F", "/federation-links", "/federation-links/%2F"] {
        assert_eq!(desk.browser.ask("GET", path, None).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn deprecated_features_are_told_apart_from_used_ones() {
    let desk = Desk::open().await;
    let known = desk.get("/deprecated-features").await;
    assert_eq!(known[0]["deprecation_phase"], "permitted_by_default");
    assert_eq!(desk.get("/deprecated-features/used").await, json!([]));
    desk.send("PUT", "/queues/%2F/fleeting", json!({}), 201).await;
    assert_eq!(desk.get("/deprecated-features/used").await[0]["name"], "transient_nonexcl_queues");
}

#[tokio::test]
async fn logins_over_http_are_counted() {
    let desk = Desk::open().await;
    let node = desk.get("/overview").await["node"].as_str().unwrap().to_owned();
    let path = format!("/auth/attempts/{node}");
    desk.delete(&path, 204).await;
    Browser::new(desk.server.board().addresses().http[0], Some("Basic Z3Vlc3Q6YmFk")).ask("GET", "/whoami", None).await;
    let attempts = desk.get(&path).await;
    let expected =
        json!({"protocol": "http", "auth_attempts": 2, "auth_attempts_failed": 1, "auth_attempts_succeeded": 1});
    assert_eq!(attempts, json!([expected]));
    assert_eq!(desk.get(&format!("{path}/source")).await, json!([]));
}

#[tokio::test]
async fn a_users_connections_are_listed_and_closed_together() {
    let desk = Desk::open().await;
    let (mut one, mut other) = (desk.client().await, desk.client().await);
    assert_eq!(desk.get("/connections/username/guest").await.as_array().unwrap().len(), 2);
    assert_eq!(desk.get("/connections/username/nobody").await, json!([]));
    desk.delete("/connections/username/nobody", 204).await;
    let headers = [("X-Reason", "maintenance")];
    let answer = desk.browser.ask_with("DELETE", "/connections/username/guest", &headers).await;
    assert_eq!(answer.status, 204);
    for client in [&mut one, &mut other] {
        let text = client
            .expect(|method| match method {
                Method::ConnectionClose(close) => Some(close.reply_text.to_owned()),
                _ => None,
            })
            .await;
        assert!(text.ends_with("maintenance"), "{text}");
    }
}

#[tokio::test]
async fn overview_tells_how_counters_stood_when_asked_with_an_age() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({}), 201).await;
    desk.publish("q", "x").await;
    let query = "/overview?msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=5";
    // The first look makes the server take samples.
    let details = timeout(Duration::from_secs(20), async {
        loop {
            let overview = desk.get(query).await;
            if overview["queue_totals"]["messages_details"]["samples"][0]["sample"] == 1 {
                break overview;
            }
            tokio::task::yield_now().await;
        }
    });
    let overview = details.await.unwrap();
    let publish = &overview["message_stats"]["publish_details"];
    assert!(publish["avg_rate"].is_number() && publish["samples"][0]["timestamp"].as_u64() > Some(1_600_000_000_000));
    assert!(desk.get("/overview").await["queue_totals"]["messages_details"]["samples"].is_null());
}

#[tokio::test]
async fn what_the_router_refuses_has_rabbitmqs_form() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({}), 201).await;
    for path in ["/queues/%2F/q/messages/first", "/queues/%2F/q/leases?from=x", "/queues/%2F/%FF"] {
        let answer = desk.browser.ask("GET", path, None).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_request")), "{path}");
    }
    let options = desk.browser.ask("OPTIONS", "/queues/%2F/q", None).await;
    assert_eq!((options.status, options.header("allow")), (200, Some("HEAD, GET, PUT, DELETE, OPTIONS")));
    desk.send("POST", "/queues/%2F/q/actions", json!({"action": "sync"}), 204).await;
    desk.send("POST", "/queues/%2F/q/actions", json!({"action": "dance"}), 400).await;
}

/// Every method of every path in the document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    methods.collect()
}

#[tokio::test]
async fn the_document_says_what_is_served() {
    let desk = Desk::open().await;
    let document = desk.get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut by_path: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        by_path.entry(path.trim_start_matches("/api").to_owned()).or_default().push(method);
    }
    for (path, methods) in by_path {
        let path = path.replace(['{', '}'], "");
        let options = desk.browser.ask("OPTIONS", &path, None).await;
        assert_eq!(options.status, 200, "{path}");
        let allowed: Vec<_> = options.header("allow").unwrap().split(", ").collect();
        assert!(methods.iter().all(|method| allowed.contains(&method.as_str())), "{path}: {allowed:?} {methods:?}");
    }
}

/// What clients send that are wrong, in names, numbers and documents.
const RUBBISH: [&str; 9] =
    ["x", "%2F", "-1", "0", "99999999999999999999", "%00", "%FF%FE", "a%20b%22%27%3C", "%E2%98%83"];

fn rubbish(seed: &mut u64) -> Value {
    // The numbers of a fixed generator: a failure comes again.
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    match *seed >> 60 {
        0 => json!(null),
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1.5e300),
        5 => json!(""),
        6 => json!("\u{0}\u{ffff}"),
        7 => json!("x".repeat(300)),
        8 => json!([]),
        9 => json!([[[{}]]]),
        10 => json!({}),
        11 => json!({"": null, "x": {"y": [1]}}),
        12 => json!("[unclosed("),
        13 => json!(0),
        14 => json!({"x-max-length": "many", "x-message-ttl": -5}),
        _ => json!("q"),
    }
}

#[tokio::test]
async fn whatever_is_sent_to_whichever_operation_is_answered_and_no_fault_of_the_server() {
    const KEYS: [&str; 33] = [
        "durable",
        "auto_delete",
        "arguments",
        "type",
        "internal",
        "routing_key",
        "payload",
        "payload_encoding",
        "properties",
        "count",
        "ackmode",
        "encoding",
        "truncate",
        "pattern",
        "definition",
        "priority",
        "apply-to",
        "cron",
        "every_ms",
        "exchange",
        "name",
        "value",
        "ms",
        "rate",
        "where",
        "seq",
        "all",
        "to",
        "action",
        "vm_memory_high_watermark",
        "disk_free_limit",
        "origin",
        "headers",
    ];
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/x", json!({"durable": true}), 201).await;
    let document = desk.get("/openapi.json").await;
    let operations = operations(&document);
    let mut seed = 7;
    let mut asked = 0;
    // A stream does not end.
    for (path, method, operation) in operations.iter().filter(|(path, ..)| path != "/api/page/events") {
        for (round, word) in RUBBISH.iter().enumerate() {
            let mut target = path.trim_start_matches("/api").to_owned();
            for (at, parameter) in operation["parameters"].as_array().unwrap().iter().enumerate() {
                let name = parameter["name"].as_str().unwrap();
                if parameter["in"] == "path" {
                    // Every other round the vhost exists, so that what comes after it is looked at.
                    let word = if name == "vhost" && round % 2 == 0 { "%2F" } else { word };
                    target = target.replace(&format!("{{{name}}}"), word);
                } else {
                    let separator = if target.contains('?') { '&' } else { '?' };
                    let value = RUBBISH[(at + round) % RUBBISH.len()];
                    target.push_str(&format!("{separator}{name}={value}"));
                }
            }
            let body = match round {
                0 => json!({}),
                1 => rubbish(&mut seed),
                _ => KEYS
                    .iter()
                    .map(|key| ((*key).to_owned(), rubbish(&mut seed)))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            };
            let answer = desk.browser.ask(method, &target, Some(&body)).await;
            // A health check that fails says so with 503.
            let is_check = path.contains("/health/checks/") && answer.status == 503;
            assert!(answer.status < 500 || is_check, "{method} {target} {body}: {} {}", answer.status, answer.text);
            if (400..500).contains(&answer.status) && answer.status != 405 {
                let refusal: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                let is_known = refusal["error"].is_string() && !refusal["reason"].is_null();
                assert!(is_known, "{method} {target}: {} {:?}", answer.status, answer.text);
            }
            asked += 1;
        }
    }
    assert!(asked > 900, "{asked}");
    assert_eq!(desk.get("/health/checks/local-alarms").await["status"], "ok");
}
