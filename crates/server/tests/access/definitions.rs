//! Definitions go out and come in.

use super::*;

/// As RabbitMQ 3.13 exports them, with something of everything.
fn of_rabbitmq() -> Value {
    json!({
        "rabbit_version": "3.13.7", "rabbitmq_version": "3.13.7", "product_name": "RabbitMQ",
        "product_version": "3.13.7", "rabbitmq_definition_format": "cluster", "original_cluster_name": "rabbit@host",
        "explanation": "Definitions of cluster 'rabbit@host'",
        "users": [
            {"name": "app", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
             "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"], "limits": {"max-channels": 9}},
            {"name": "old", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
             "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "management", "limits": []},
        ],
        "vhosts": [
            {"name": "/"},
            {"name": "prod", "limits": [], "metadata": {"description": "Production", "tags": ["x"], "default_queue_type": "quorum"}},
        ],
        "permissions": [{"user": "app", "vhost": "prod", "configure": ".*", "write": ".*", "read": ".*"}],
        "topic_permissions": [{"user": "app", "vhost": "prod", "exchange": "amq.topic", "write": "^a", "read": ".*"}],
        "parameters": [
            {"value": {"max-queues": 50}, "vhost": "prod", "component": "vhost-limits", "name": "limits"},
            {"value": {"pattern": "^t", "definition": {"max-length": 7}, "priority": 1, "apply-to": "queues"},
             "vhost": "prod", "component": "operator_policy", "name": "bound"},
            {"value": {"src-uri": "amqp://", "src-queue": "a"}, "vhost": "prod", "component": "shovel", "name": "sh"},
        ],
        "global_parameters": [
            {"name": "cluster_name", "value": "rabbit@host"},
            {"name": "internal_cluster_id", "value": "rabbitmq-cluster-id-abc"},
        ],
        "policies": [{"vhost": "prod", "name": "ttl", "pattern": "^t", "apply-to": "queues", "definition": {"message-ttl": 60000}, "priority": 0}],
        "queues": [
            {"name": "tasks", "vhost": "prod", "durable": true, "auto_delete": false,
             "arguments": {"x-queue-type": "classic", "x-max-priority": 5, "x-dead-letter-exchange": ""}},
            {"name": "safe", "vhost": "prod", "type": "quorum", "durable": true, "auto_delete": false,
             "arguments": {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3, "x-delivery-limit": 4}},
            {"name": "log", "vhost": "prod", "type": "stream", "durable": true, "auto_delete": false,
             "arguments": {"x-queue-type": "stream", "x-max-age": "7D", "x-stream-max-segment-size-bytes": 1000000}},
            {"name": "plain", "vhost": "prod", "durable": false, "auto_delete": true, "arguments": {}},
        ],
        "exchanges": [
            {"name": "events", "vhost": "prod", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}},
            {"name": "inner", "vhost": "prod", "type": "fanout", "durable": true, "auto_delete": false, "internal": true,
             "arguments": {"alternate-exchange": "events"}},
        ],
        "bindings": [
            {"source": "events", "vhost": "prod", "destination": "tasks", "destination_type": "queue", "routing_key": "#", "arguments": {}},
            {"source": "events", "vhost": "prod", "destination": "inner", "destination_type": "exchange", "routing_key": "k", "arguments": {"a": 1}},
        ],
    })
}

#[tokio::test]
async fn what_rabbitmq_exports_loads_and_lasts() {
    let desk = Desk::open().await;
    desk.send("POST", "/definitions", of_rabbitmq(), 204).await;
    desk.send("POST", "/definitions", of_rabbitmq(), 204).await;
    let desk = desk.again().await;
    let channel = desk.connect("app:test12", "prod").await.unwrap().create_channel().await.unwrap();
    publish(&channel, "events", "k").await.unwrap();
    let types: Vec<_> = ["log", "plain", "safe", "tasks"].to_vec();
    let queues = desk.get("/queues/prod?columns=name,type").await;
    let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(names, [types[0], types[2], types[3]], "what is transient is gone");
    assert_eq!(queues[0]["type"], "stream");
    assert_eq!(desk.get("/queues/prod/tasks").await["policy"], "ttl");
    assert_eq!(desk.get("/queues/prod/tasks").await["operator_policy"], "bound");
    assert_eq!(desk.get("/vhost-limits/prod").await[0]["value"], json!({"max-queues": 50}));
    assert_eq!(desk.get("/user-limits/app").await[0]["value"], json!({"max-channels": 9}));
    assert_eq!(desk.get("/parameters/shovel/prod/sh").await["value"]["src-queue"], "a");
    assert_eq!(desk.get("/global-parameters/cluster_name").await["value"], "rabbit@host");
    assert_eq!(desk.get("/vhosts/prod").await["default_queue_type"], "quorum");
}

/// What there is, in an order of its own.
fn sorted(document: &Value) -> Value {
    let mut document = document.clone();
    for list in document.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
    document
}

#[tokio::test]
async fn what_goes_out_of_one_server_makes_another_alike() {
    let one = Desk::open().await;
    one.send("POST", "/definitions", of_rabbitmq(), 204).await;
    one.permit("prod", "guest", [".*", ".*", ".*"]).await;
    let schedule = json!({"cron": "0 5 * * *", "routing_key": "tasks", "payload": "x", "exchange": ""});
    one.send("PUT", "/schedules/prod/nightly", schedule, 201).await;
    one.send("PUT", "/users/ours", json!({"password": "pw", "tags": "monitoring"}), 201).await;
    let exported = one.get("/definitions").await;
    assert_eq!(exported["rabbitmq_definition_format"], "cluster");
    assert!(exported["exchanges"].as_array().unwrap().iter().all(|x| !x["name"].as_str().unwrap().starts_with("amq.")));
    let other = Desk::open().await;
    other.send("POST", "/definitions", exported.clone(), 204).await;
    assert_eq!(sorted(&other.get("/definitions").await), sorted(&exported));
    other.permit("%2F", "ours", ["", "", ""]).await;
    other.client("ours").await;
}

#[tokio::test]
async fn a_vhost_goes_out_without_its_name_and_into_another() {
    let desk = Desk::open().await;
    desk.send("POST", "/definitions", of_rabbitmq(), 204).await;
    let exported = desk.get("/definitions/prod").await;
    assert_eq!(exported["rabbitmq_definition_format"], "single_virtual_host");
    assert_eq!(exported["queues"][0].get("vhost"), None);
    assert_eq!(exported.get("users"), None);
    desk.send("PUT", "/vhosts/copy", json!({}), 201).await;
    desk.send("POST", "/definitions/copy", exported.clone(), 204).await;
    let copy = desk.get("/definitions/copy").await;
    for key in ["queues", "exchanges", "bindings", "policies", "parameters"] {
        assert_eq!(sorted(&copy)[key], sorted(&exported)[key], "{key}");
    }
    desk.send("POST", "/definitions/nowhere", exported, 404).await;
}

#[tokio::test]
async fn definitions_that_make_no_sense_are_refused_with_what_is_wrong() {
    let desk = Desk::open().await;
    for (document, reason) in [
        (json!({"queues": [{"name": "q", "vhost": "nov"}]}), "vhost 'nov' does not exist"),
        (json!({"queues": 5}), "not_a_list_of_objects"),
        (
            json!({"exchanges": [{"name": "x", "vhost": "/", "type": "warp"}]}),
            "exchange 'x': unknown exchange type 'warp'",
        ),
        (
            json!({"permissions": [{"vhost": "/", "user": "nobody", "configure": "", "write": "", "read": ""}]}),
            "Not Found",
        ),
        (
            json!({"policies": [{"vhost": "/", "name": "p", "pattern": "(", "definition": {"max-length": 1}}]}),
            "policy 'p': ",
        ),
    ] {
        let answer = desk.admin.ask("POST", "/definitions", Some(&document)).await;
        assert!((400..=404).contains(&answer.status), "{}", answer.text);
        assert!(answer.text.contains(reason), "{}: {reason}", answer.text);
    }
}

#[tokio::test]
async fn a_file_is_loaded_before_anyone_is_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.json");
    std::fs::write(&file, of_rabbitmq().to_string()).unwrap();
    let first = FirstStart { definitions: Some(file.clone()), ..FirstStart::default() };
    let loading = || Config { first: first.clone(), ..config(directory.path()) };
    for _start in 0..2 {
        let server = Server::start(loading()).await.unwrap();
        let address = server.board().addresses().amqp[0];
        let url = format!("amqp://app:test12@{address}/prod");
        Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        server.stop().await.unwrap();
    }
    std::fs::write(&file, r#"{"queues": [{"name": "q", "vhost": "nov"}]}"#).unwrap();
    let error = Server::start(loading()).await.unwrap_err().to_string();
    assert!(error.contains("vhost 'nov' does not exist") && error.contains("definitions.json"), "{error}");
}

#[tokio::test]
async fn definitions_that_were_imported_last_are_skipped_if_asked() {
    let desk = Desk::open().await;
    let queue = |name: &str| json!({"queues": [{"name": name, "vhost": "/", "durable": true, "arguments": {}}]});
    let import = async |document: Value| desk.send("POST", "/definitions?skip_if_unchanged=true", document, 204).await;
    import(queue("q")).await;
    desk.delete("/queues/%2F/q", 204).await;
    import(queue("q")).await;
    assert_eq!(desk.get("/queues").await, json!([]), "nothing was imported");
    desk.send("POST", "/definitions", queue("q"), 204).await;
    assert_eq!(desk.get("/queues").await.as_array().unwrap().len(), 1, "unless nobody says so");
    import(queue("r")).await;
    assert_eq!(desk.get("/queues").await.as_array().unwrap().len(), 2);
    let exported = desk.get("/definitions").await;
    assert_eq!(exported["global_parameters"], json!([]), "what was imported here is nobody else's concern");
}

#[tokio::test]
async fn an_import_that_fails_says_at_what_and_what_it_has_done_by_then() {
    let desk = Desk::open().await;
    let document = |queues: Value| json!({"users": [{"name": "a", "tags": ""}, {"name": "b", "tags": ""}], "vhosts": [{"name": "v"}], "queues": queues});
    let queue = |name: &str, kind: &str| json!({"name": name, "vhost": "v", "type": kind, "durable": true});
    let broken = document(json!([queue("good", "classic"), queue("bad", "odd")]));
    let answer = desk.send("POST", "/definitions", broken, 400).await;
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("queue 'bad': "), "{reason}");
    let done = "(imported before that, and kept: 2 of users, 1 of vhosts, 1 of queues)";
    assert!(reason.ends_with(done), "{reason}");
    assert_eq!(desk.get("/queues/v/good").await["name"], "good");

    desk.delete("/users/a", 204).await;
    desk.send("POST", "/definitions", document(json!({"not": "a list"})), 400).await;
    assert_eq!(desk.admin.ask("GET", "/users/a", None).await.status, 404, "a malformed document changes nothing");
}

#[tokio::test]
async fn a_queue_keeps_its_type_where_its_vhosts_default_is_another() {
    let desk = Desk::open().await;
    let document = json!({
        "vhosts": [{"name": "v", "default_queue_type": "quorum"}],
        "queues": [{"name": "q", "vhost": "v", "type": "classic", "durable": true, "arguments": {}}],
    });
    desk.send("POST", "/definitions", document, 204).await;
    assert_eq!(desk.get("/queues/v/q").await["type"], "classic");
}
