//! The HTTP API of a whole server in this process: what tools ask and what they must get.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "a failed unwrap is a failed test; clients are shared")]

#[path = "http/browser.rs"]
mod browser;
#[path = "http/operations.rs"]
mod operations;
#[path = "http/page.rs"]
mod page;
#[path = "http/published.rs"]
mod published;
#[path = "wire/raw_client.rs"]
mod raw_client;
#[path = "http/schedules.rs"]
mod schedules;
#[path = "http/surface.rs"]
mod surface;

use amqp::method::{basic, channel, confirm, connection, queue};
use amqp::{ChannelId, Method, Table};
use browser::{Answer, Browser};
use raw_client::{CHANNEL, RawClient};
use serde_json::{Value, json};
use server::config::{Listen, Settings};
use server::{Config, Server};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server on ports of its own, and someone logged in to its API.
struct Desk {
    server: Server,
    browser: Browser,
    directory: TempDir,
}

impl Desk {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(config(directory.path())).await.unwrap();
        let browser = Browser::logged_in(server.board().addresses().http[0]);
        Self { server, browser, directory }
    }

    async fn client(&self) -> RawClient {
        RawClient::connect(self.server.board().addresses().amqp[0]).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.browser.ask("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    /// Sends a document and expects this status.
    async fn send(&self, method: &str, path: &str, document: Value, status: u16) -> Answer {
        let answer = self.browser.ask(method, path, Some(&document)).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answer
    }

    async fn delete(&self, path: &str, status: u16) -> Answer {
        let answer = self.browser.ask("DELETE", path, None).await;
        assert_eq!(answer.status, status, "DELETE {path}: {}", answer.text);
        answer
    }

    async fn publish(&self, queue: &str, payload: &str) {
        let message = json!({"properties": {}, "routing_key": queue, "payload": payload, "payload_encoding": "string"});
        let answer = self.send("POST", "/exchanges/%2F/amq.default/publish", message, 200).await;
        assert_eq!(answer.json(), json!({"routed": true}));
    }
}

fn config(directory: &Path) -> Config {
    let any_port = || Listen { addresses: vec![([127, 0, 0, 1], 0).into()], by_default: false };
    let defaults = Config::new(&[Settings::default()]).unwrap();
    Config { data_dir: directory.join("data"), amqp: any_port(), http: any_port(), metrics: any_port(), ..defaults }
}

#[tokio::test]
async fn only_those_who_log_in_get_in() {
    let desk = Desk::open().await;
    let address = desk.server.board().addresses().http[0];
    let challenge = Some("Basic realm=\"RabbitMQ Management\"");
    for (login, body) in [
        (None, ""),
        (Some("Basic Z3Vlc3Q6YmFk"), r#"{"error":"not_authorized","reason":"Login failed"}"#),
        (Some("Basic Z3Vlc3Q6"), r#"{"error":"not_authorized","reason":"Login failed"}"#),
        (Some("Basic !!!"), r#"{"error":"not_authorized","reason":"Login failed"}"#),
        (Some("Bearer x"), r#"{"error":"not_authorized","reason":"Login failed"}"#),
    ] {
        for path in ["/whoami", "/queues", "/nowhere"] {
            let answer = Browser::new(address, login).ask("GET", path, None).await;
            assert_eq!((answer.status, answer.text.as_str()), (401, body), "{login:?} {path}");
            assert_eq!(answer.header("www-authenticate"), challenge, "{login:?} {path}");
        }
    }
    assert_eq!(desk.get("/whoami").await, json!({"name": "guest", "tags": ["administrator"]}));
}

#[tokio::test]
async fn whoever_may_open_the_socket_needs_no_password() {
    let desk = Desk::open().await;
    let socket = desk.directory.path().join("data").join(server::SOCKET_NAME);
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /api/whoami HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.ends_with(r#""tags":["administrator"]}"#), "{answer}");
    desk.server.stop().await.unwrap();
    assert!(!socket.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn what_is_not_there_is_404_in_rabbitmqs_words() {
    let desk = Desk::open().await;
    for path in [
        "/nowhere",
        "/queues/nov",
        "/queues/%2F/nope",
        "/exchanges/%2F/nope",
        "/bindings/nov",
        "/connections/nope",
        "/channels/nope%20(1)",
        "/consumers/nov",
        "/vhosts/nov",
        "/nodes/nope",
        "/aliveness-test/nov",
        "/health/checks/nope",
    ] {
        let answer = desk.browser.ask("GET", path, None).await;
        let expected = json!({"error": "Object Not Found", "reason": "Not Found"});
        assert_eq!((answer.status, answer.json()), (404, expected), "{path}");
    }
    for path in ["/exchanges/%2F/nope/bindings/source", "/queues/%2F/nope/bindings"] {
        assert_eq!(desk.get(path).await, json!([]), "what is not there has no bindings, which is no error");
    }
    desk.delete("/queues/%2F/nope", 404).await;
    desk.delete("/queues/%2F/nope/contents", 404).await;
    desk.send("POST", "/queues/%2F/nope", json!({}), 405).await;
}

#[tokio::test]
async fn a_queue_is_declared_described_and_deleted() {
    let desk = Desk::open().await;
    let path = "/queues/%2f/a%2Fb%20%C3%BC";
    let document = json!({
        "durable": "true", "auto_delete": false, "vhost": "/", "node": "any",
        "arguments": {"x-max-length": 10, "x-custom": ["a", {"b": null}]},
    });
    desk.send("PUT", path, document.clone(), 201).await;
    desk.send("PUT", path, document, 204).await;
    let refused = desk.send("PUT", path, json!({}), 400).await.json();
    let reason = "inequivalent arg 'durable' for queue 'a/b ü' in vhost '/': received 'false' but current is 'true'";
    assert_eq!(refused, json!({"error": "bad_request", "reason": reason}));

    let queue = desk.get(path).await;
    assert_eq!(queue["name"], "a/b ü");
    assert_eq!(queue["arguments"], json!({"x-max-length": 10, "x-custom": ["a", {"b": null}]}));
    for (field, value) in [
        ("vhost", json!("/")),
        ("type", json!("classic")),
        ("durable", json!(true)),
        ("auto_delete", json!(false)),
        ("exclusive", json!(false)),
        ("state", json!("running")),
        ("messages", json!(0)),
        ("consumers", json!(0)),
        ("consumer_details", json!([])),
    ] {
        assert_eq!(queue[field], value, "{field}");
    }
    assert_eq!(desk.get("/queues?columns=name,messages").await, json!([{"name": "a/b ü", "messages": 0}]));
    desk.delete(path, 204).await;
    assert_eq!(desk.get("/queues/%2F").await, json!([]));
}

#[tokio::test]
async fn documents_that_make_no_sense_are_refused() {
    let desk = Desk::open().await;
    for (document, reason) in [
        (json!([]), json!("not_json")),
        (json!({"durable": "maybe"}), json!(["not_boolean", "maybe"])),
        (json!({"arguments": 7}), json!(["not_object", "arguments"])),
    ] {
        let answer = desk.send("PUT", "/queues/%2F/q", document.clone(), 400).await;
        assert_eq!(answer.json(), json!({"error": "bad_request", "reason": reason}), "{document}");
    }
    let answer = desk.send("PUT", "/queues/%2F/amq.q", json!({"durable": true}), 401).await.json();
    assert_eq!(answer, json!({"error": "not_authorised", "reason": "Access refused."}));
    let large = "x".repeat(21 << 20);
    let answer = desk.send("PUT", "/queues/%2F/q", json!({"x": large}), 400).await.json();
    assert_eq!(answer["reason"], "Payload size limit exceeded");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let desk = Desk::open().await;
    for name in ["a1", "a2", "b1"] {
        desk.send("PUT", &format!("/queues/%2F/{name}"), json!({}), 201).await;
    }
    // As KEDA asks.
    let page = desk.get("/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Ea&page_size=100").await;
    let names: Vec<_> = page["items"].as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["a1", "a2"]);
    assert_eq!((&page["page_count"], &page["filtered_count"], &page["total_count"]), (&json!(1), &json!(2), &json!(3)));
    assert_eq!(page["items"][0]["message_stats"]["publish_details"]["rate"], 0.0);
    let refused = desk.browser.ask("GET", "/queues?page=9", None).await;
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("page_out_of_range")));
    let cheap = desk.get("/queues?disable_stats=true&enable_queue_totals=true").await;
    assert_eq!((&cheap[0]["messages"], &cheap[0]["message_stats"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn exchanges_and_bindings_come_and_go() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({}), 201).await;
    desk.send("PUT", "/exchanges/%2F/x", json!({"type": "headers", "arguments": {"alternate-exchange": "y"}}), 201)
        .await;
    desk.send("PUT", "/exchanges/%2F/x", json!({"type": "headers", "arguments": {"alternate-exchange": "y"}}), 204)
        .await;
    let reason = desk.send("PUT", "/exchanges/%2F/z", json!({"type": "nope"}), 400).await.json()["reason"].clone();
    assert_eq!(reason, "unknown exchange type 'nope'");
    assert_eq!(desk.get("/exchanges/%2F/amq.default").await["name"], "");
    desk.delete("/exchanges/%2F/amq.default", 401).await;
    desk.delete("/exchanges/%2F/amq.topic", 401).await;

    let plain = desk.send("POST", "/bindings/%2F/e/x/q/q", json!({}), 201).await;
    assert_eq!(plain.header("location"), Some("q/~"));
    let criteria = json!({"routing_key": "a b/é", "arguments": {"x-match": "any", "n": 1}});
    let keyed = desk.send("POST", "/bindings/%2F/e/x/q/q", criteria, 201).await;
    let bindings = desk.get("/bindings/%2F/e/x/q/q").await;
    let expected = json!({
        "source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "",
        "arguments": {}, "properties_key": "~",
    });
    assert_eq!(bindings[0], expected);
    let key = bindings[1]["properties_key"].as_str().unwrap();
    assert!(key.starts_with("a+b%2F%C3%A9~"), "{key}");
    let location = keyed.header("location").unwrap().strip_prefix("q/").unwrap();
    assert_eq!(desk.get(&format!("/bindings/%2F/e/x/q/q/{location}")).await["routing_key"], "a b/é");
    assert_eq!(
        desk.get("/queues/%2F/q/bindings?columns=source").await,
        json!([{"source": ""}, {"source": "x"}, {"source": "x"}])
    );
    assert_eq!(desk.get("/exchanges/%2F/x/bindings/source").await.as_array().unwrap().len(), 2);

    // As in RabbitMQ, what is not there has no bindings.
    for path in ["/queues/%2F/nope/bindings", "/exchanges/%2F/nope/bindings/source", "/bindings/%2F/e/nope/q/nope"] {
        assert_eq!(desk.get(path).await, json!([]), "{path}");
    }

    desk.delete("/exchanges/%2F/x?if-unused=true", 400).await;
    desk.delete(&format!("/bindings/%2F/e/x/q/q/{location}"), 204).await;
    desk.delete("/bindings/%2F/e/x/q/q/~", 204).await;
    desk.delete("/bindings/%2F/e/x/q/q/~", 404).await;
    let missing = desk.send("POST", "/bindings/%2F/e/nope/q/q", json!({}), 404).await.json();
    assert_eq!(missing, json!({"error": "not_found", "reason": "no exchange 'nope' in vhost '/'"}));
    desk.send("POST", "/bindings/%2F/e/amq.fanout/e/x", json!({"routing_key": "k"}), 201).await;
    assert_eq!(desk.get("/exchanges/%2F/x/bindings/destination").await[0]["source"], "amq.fanout");
    desk.delete("/exchanges/%2F/x", 204).await;
}

#[tokio::test]
async fn a_message_is_published_and_got() {
    let desk = Desk::open().await;
    for name in ["q", "copy"] {
        desk.send("PUT", &format!("/queues/%2F/{name}"), json!({"durable": true}), 201).await;
    }
    let properties = json!({
        "delivery_mode": 2, "message_id": "m", "type": "t", "timestamp": 7, "expiration": "60000",
        "headers": {"n": 1, "CC": ["copy"], "BCC": ["nowhere"]},
    });
    let message = json!({"properties": properties, "routing_key": "q", "payload": "hé", "payload_encoding": "string"});
    let routed = desk.send("POST", "/exchanges/%2F/amq.default/publish", message, 200).await.json();
    assert_eq!(routed, json!({"routed": true}));
    let binary = json!({"properties": [], "routing_key": "q", "payload": "//4=", "payload_encoding": "base64"});
    desk.send("POST", "/exchanges/%2F/amq.default/publish", binary, 200).await;

    let get = |ackmode: &str| json!({"count": "5", "ackmode": ackmode, "encoding": "auto", "truncate": 2});
    let first = desk.send("POST", "/queues/%2F/q/get", get("ack_requeue_true"), 200).await.json();
    let expected = json!([
        {
            "payload_bytes": 3, "redelivered": false, "exchange": "", "routing_key": "q", "message_count": 1,
            "properties": {
                "type": "t", "message_id": "m", "expiration": "60000", "timestamp": 7, "delivery_mode": 2,
                "headers": {"n": 1, "CC": ["copy"]},
            },
            "payload": "h", "payload_encoding": "string",
        },
        {
            "payload_bytes": 2, "redelivered": false, "exchange": "", "routing_key": "q", "message_count": 0,
            "properties": {}, "payload": "//4=", "payload_encoding": "base64",
        },
    ]);
    assert_eq!(first, expected);
    let again = desk.send("POST", "/queues/%2F/q/get", get("ack_requeue_false"), 200).await.json();
    assert_eq!((&again[0]["redelivered"], &again[1]["redelivered"]), (&json!(true), &json!(true)));
    let none = desk.send("POST", "/queues/%2F/q/get", get("ack_requeue_false"), 200).await.json();
    assert_eq!(none, json!([]));
    assert_eq!(
        desk.get("/queues/%2F/copy?columns=messages,messages_persistent").await,
        json!({"messages": 1, "messages_persistent": 1})
    );
    // As old clients ask.
    let old = json!({"count": 1, "requeue": false, "encoding": "base64"});
    assert_eq!(desk.send("POST", "/queues/%2F/copy/get", old, 200).await.json()[0]["payload"], "aMOp");
    desk.send("POST", "/queues/%2F/q/get", json!({"count": 1, "encoding": "auto"}), 400).await;
    desk.send("POST", "/queues/%2F/nope/get", get("ack_requeue_true"), 404).await;
}

#[tokio::test]
async fn a_message_that_amqp_would_refuse_is_refused() {
    let desk = Desk::open().await;
    desk.send("PUT", "/exchanges/%2F/inside", json!({"internal": true}), 201).await;
    let publish = async |exchange: &str, properties: Value| {
        let message =
            json!({"properties": properties, "routing_key": "q", "payload": "", "payload_encoding": "string"});
        let path = format!("/exchanges/%2F/{exchange}/publish");
        desk.send("POST", &path, message, 400).await.json()["reason"].clone()
    };
    for (exchange, properties, reason) in [
        ("amq.default", json!({"delivery_mode": "x"}), json!(["not_int", "delivery_mode"])),
        (
            "amq.default",
            json!({"expiration": "x"}),
            json!("406 PRECONDITION_FAILED - invalid expiration 'x': no_integer"),
        ),
        (
            "amq.default",
            json!({"user_id": "x"}),
            json!("406 PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'guest'"),
        ),
        ("inside", json!({}), json!("403 ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/'")),
        ("nope", json!({}), json!("404 NOT_FOUND - no exchange 'nope' in vhost '/'")),
    ] {
        assert_eq!(publish(exchange, properties.clone()).await, reason, "{exchange} {properties}");
    }
    let incomplete =
        desk.send("POST", "/exchanges/%2F/amq.default/publish", json!({"properties": {}}), 400).await.json();
    assert_eq!(
        incomplete["reason"],
        "[{key_missing,payload},{key_missing,payload_encoding},{key_missing,routing_key}]"
    );
}

#[tokio::test]
async fn purging_and_deleting_say_what_stands_in_the_way() {
    let desk = Desk::open().await;
    let mut client = desk.client().await;
    client.declare("q", false).await;
    client.consume("q").await;
    desk.send("PUT", "/queues/%2F/full", json!({}), 201).await;
    desk.publish("full", "m").await;
    desk.publish("full", "m").await;
    let reason = desk.delete("/queues/%2F/q?if-unused=true", 400).await.json()["reason"].clone();
    assert_eq!(reason, "queue 'q' in vhost '/' in use");
    let reason = desk.delete("/queues/%2F/full?if-empty=true", 400).await.json()["reason"].clone();
    assert_eq!(reason, "queue 'full' in vhost '/' not empty");
    desk.delete("/queues/%2F/full/contents", 204).await;
    assert_eq!(desk.get("/queues/%2F/full?columns=messages").await, json!({"messages": 0}));
    desk.publish("full", "m").await;
    assert_eq!(desk.delete("/queues/%2F/full", 204).await.header("x-messages"), Some("1"));
}

#[tokio::test]
async fn connections_channels_and_consumers_are_shown() {
    let desk = Desk::open().await;
    let mut client = desk.client().await;
    client.declare("q", false).await;
    client.consume("q").await;
    client.publish("q", b"12345", false).await;
    client.expect_delivery().await;

    let connections = desk.get("/connections").await;
    let connection = &connections[0];
    let name = connection["name"].as_str().unwrap();
    for (field, value) in [
        ("user", json!("guest")),
        ("vhost", json!("/")),
        ("state", json!("running")),
        ("protocol", json!("AMQP 0-9-1")),
        ("auth_mechanism", json!("PLAIN")),
        ("channels", json!(1)),
        ("client_properties", json!({})),
    ] {
        assert_eq!(connection[field], value, "{field}");
    }
    assert_eq!(desk.get("/vhosts/%2F/connections?columns=name").await, json!([{"name": name}]));
    let encoded = name.replace(' ', "%20").replace('>', "%3E");
    assert_eq!(desk.get(&format!("/connections/{encoded}?columns=name")).await, json!({"name": name}));

    let channels = desk.get(&format!("/connections/{encoded}/channels")).await;
    let channel = &channels[0];
    assert_eq!(channel["name"], format!("{name} (1)"));
    assert_eq!((&channel["messages_unacknowledged"], &channel["consumer_count"]), (&json!(1), &json!(1)));
    assert_eq!(channel["message_stats"]["deliver"], 1);
    assert_eq!(desk.get(&format!("/channels/{encoded}%20(1)?columns=number")).await, json!({"number": 1}));
    assert_eq!(desk.get("/channels?columns=number").await, json!([{"number": 1}]));

    let consumers = desk.get("/consumers/%2F").await;
    let consumer = &consumers[0];
    assert_eq!(consumer["queue"], json!({"name": "q", "vhost": "/"}));
    assert_eq!((&consumer["ack_required"], &consumer["active"]), (&json!(true), &json!(true)));
    assert_eq!(consumer["channel_details"]["connection_name"], name);
    assert_eq!(consumer["consumer_timeout"], 1_800_000);
    let queue = desk.get("/queues/%2F/q").await;
    assert_eq!((&queue["messages_unacknowledged"], &queue["message_bytes"]), (&json!(1), &json!(5)));
    assert_eq!(queue["consumer_details"], consumers);

    let close = desk.browser.ask_with("DELETE", &format!("/connections/{encoded}"), &[("X-Reason", "go home")]).await;
    assert_eq!(close.status, 204);
    assert_eq!(client.answer_close().await, (320, "CONNECTION_FORCED - go home".to_owned()));
}

#[tokio::test]
async fn totals_do_not_fall_when_channels_close() {
    let desk = Desk::open().await;
    let mut client = desk.client().await;
    client.declare("q", false).await;
    client.publish("q", b"m", false).await;
    client.publish("nowhere", b"m", false).await;
    client.declare("q", false).await;
    let close = channel::Close { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
    client.send(CHANNEL, &Method::ChannelClose(close)).await;
    client.expect(|method| matches!(method, Method::ChannelCloseOk(_)).then_some(())).await;
    let check = |overview: Value| {
        let (stats, churn) = (&overview["message_stats"], &overview["churn_rates"]);
        assert_eq!((&stats["publish"], &stats["drop_unroutable"]), (&json!(2), &json!(1)));
        assert_eq!((&churn["channel_created"], &churn["channel_closed"]), (&json!(1), &json!(1)));
        assert_eq!((&churn["queue_declared"], &churn["queue_created"]), (&json!(2), &json!(1)));
    };
    check(desk.get("/overview").await);
    let close = connection::Close { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
    client.send(ChannelId::CONNECTION, &Method::ConnectionClose(close)).await;
    client.rest().await;
    while desk.server.board().connections() > 0 {
        tokio::task::yield_now().await;
    }
    check(desk.get("/overview").await);
}

#[tokio::test]
async fn the_documents_have_what_rabbitmqs_own_client_requires() {
    let desk = Desk::open().await;
    let overview = desk.get("/overview").await;
    for field in [
        "product_version",
        "product_name",
        "rabbitmq_version",
        "cluster_name",
        "erlang_version",
        "erlang_full_version",
        "node",
    ] {
        assert!(overview[field].is_string(), "{field}");
    }
    for field in ["channels", "connections", "consumers", "exchanges", "queues"] {
        assert!(overview["object_totals"][field].is_u64(), "{field}");
    }
    for field in [
        "connection_created",
        "connection_closed",
        "queue_declared",
        "queue_created",
        "queue_deleted",
        "channel_created",
        "channel_closed",
    ] {
        assert!(overview["churn_rates"][field].is_u64(), "{field}");
        assert!(overview["churn_rates"][format!("{field}_details")]["rate"].is_f64(), "{field}");
    }
    assert!(overview["statistics_db_event_queue"].is_u64());
    assert!(overview["queue_totals"]["messages_details"]["rate"].is_f64());
    assert_eq!(overview["listeners"].as_array().unwrap().len(), 3);

    let node = desk.get("/nodes").await[0].clone();
    for field in ["uptime", "run_queue", "processors", "fd_total", "proc_total", "mem_limit", "disk_free_limit"] {
        assert!(node[field].is_u64(), "{field}");
    }
    for field in ["mem_alarm", "disk_free_alarm", "being_drained", "running"] {
        assert!(node[field].is_boolean(), "{field}");
    }
    assert!(node["os_pid"].is_string() && node["rates_mode"].is_string() && node["enabled_plugins"].is_array());
    assert_eq!(
        desk.get(&format!("/nodes/{}?columns=name", node["name"].as_str().unwrap())).await["name"],
        node["name"]
    );

    let vhosts = desk.get("/vhosts").await;
    assert_eq!((&vhosts[0]["name"], &vhosts[0]["messages"]), (&json!("/"), &json!(0)));
}

#[tokio::test]
async fn probes_are_answered() {
    let desk = Desk::open().await;
    let ok = json!({"status": "ok"});
    for check in ["alarms", "local-alarms", "virtual-hosts", "is-in-service", "ready-to-serve-clients"] {
        assert_eq!(desk.get(&format!("/health/checks/{check}")).await, ok, "{check}");
    }
    assert_eq!(desk.get("/health/checks/node-is-quorum-critical").await["status"], "ok");
    let port = desk.server.board().addresses().amqp[0].port();
    assert_eq!(desk.get(&format!("/health/checks/port-listener/{port}")).await["port"], port);
    assert_eq!(desk.get("/health/checks/protocol-listener/amqp091").await["protocol"], "amqp");
    for path in ["/health/checks/port-listener/1", "/health/checks/protocol-listener/mqtt"] {
        let answer = desk.browser.ask("GET", path, None).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!("No active listener")), "{path}");
    }
    assert_eq!(desk.browser.ask("GET", "/health/checks/port-listener/x", None).await.status, 400);
    for _twice in 0..2 {
        assert_eq!(desk.get("/aliveness-test/%2F").await, ok);
    }
}

#[tokio::test]
async fn limits_are_set_and_alarms_are_shown() {
    let desk = Desk::open().await;
    let node = desk.get("/nodes").await[0].clone();
    assert_eq!(node["vm_memory_high_watermark"], json!({"relative": 0.6}));
    assert_eq!((&node["disk_free_limit"], &node["disk_free_alarm"]), (&json!(50_000_000), &json!(false)));
    let (name, path) = (&node["name"], format!("/nodes/{}", node["name"].as_str().unwrap()));
    let limits = format!("{path}/limits");
    let browser = Browser::at_root(desk.server.board().addresses().metrics[0]);

    let both = json!({"vm_memory_high_watermark": {"relative": 0}, "disk_free_limit": {"absolute": "1000000TB"}});
    desk.send("PUT", &limits, both, 204).await;
    let node = desk.get(&path).await;
    assert_eq!((&node["mem_limit"], &node["mem_alarm"]), (&json!(0), &json!(true)));
    assert_eq!(
        (&node["disk_free_limit"], &node["disk_free_alarm"]),
        (&json!(1_000_000_000_000_000_000_u64), &json!(true))
    );
    let alarms = json!([{"node": name, "resource": "disk space"}, {"node": name, "resource": "memory"}]);
    for (check, reason) in [
        ("alarms", "There are alarms in effect in the cluster"),
        ("local-alarms", "There are alarms in effect on the node"),
    ] {
        let answer = desk.browser.ask("GET", &format!("/health/checks/{check}"), None).await;
        let failed = json!({"status": "failed", "reason": reason, "alarms": alarms});
        assert_eq!((answer.status, answer.json()), (503, failed));
    }
    let name = name.as_str().unwrap();
    let reason =
        format!("resource alarm(s) in effect:[{{resource_limit,disk,{name}}},{{resource_limit,memory,{name}}}]");
    assert_eq!(desk.get("/healthchecks/node").await, json!({"status": "failed", "reason": reason}));
    let page = browser.ask("GET", "/metrics", None).await.text;
    for line in [
        "rabbitmq_alarms_memory_used_watermark 1",
        "rabbitmq_alarms_free_disk_space_watermark 1",
        "rabbitmq_resident_memory_limit_bytes 0",
        "rabbitmq_disk_space_available_limit_bytes 1000000000000000000",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
    }

    desk.send("PUT", &limits, json!({"vm_memory_high_watermark": {"absolute": "1TiB"}}), 204).await;
    desk.send("PUT", &limits, json!({"disk_free_limit": {"mem_relative": 0.0}}), 204).await;
    let node = desk.get(&path).await;
    assert_eq!(node["vm_memory_high_watermark"], json!({"absolute": 1_u64 << 40}));
    assert_eq!((&node["mem_alarm"], &node["disk_free_alarm"]), (&json!(false), &json!(false)));
    assert_eq!(desk.get("/health/checks/alarms").await, json!({"status": "ok"}));
    assert!(browser.ask("GET", "/metrics", None).await.text.contains("\nrabbitmq_alarms_memory_used_watermark 0\n"));
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_and_change_nothing() {
    let desk = Desk::open().await;
    let before = desk.get("/nodes?columns=mem_limit,disk_free_limit").await;
    let name = desk.get("/nodes").await[0]["name"].as_str().unwrap().to_owned();
    for document in [
        json!({"vm_memory_high_watermark": 0.4}),
        json!({"vm_memory_high_watermark": {"relative": 1.5}}),
        json!({"vm_memory_high_watermark": {"relative": 0.1, "absolute": 1}}),
        json!({"vm_memory_high_watermark": {"absolute": "much"}}),
        json!({"disk_free_limit": {"mem_relative": -1}}),
        json!({"disk_free_limit": "50MB"}),
        json!({"vm_memory_high_watermark": {"relative": 0.1}, "disk_free_limit": {"absolute": -1}}),
    ] {
        desk.send("PUT", &format!("/nodes/{name}/limits"), document, 400).await;
    }
    desk.send("PUT", "/nodes/other/limits", json!({}), 404).await;
    assert_eq!(desk.get("/nodes?columns=mem_limit,disk_free_limit").await, before);
}

#[tokio::test]
async fn metrics_are_a_page_that_prometheus_can_read() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q%22q", json!({}), 201).await;
    desk.publish("q\"q", "12345").await;
    let browser = Browser::at_root(desk.server.board().addresses().metrics[0]);
    let page = browser.ask("GET", "/metrics", None).await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "rabbitmq_queues 1",
        "rabbitmq_queue_messages_ready 1",
        "rabbitmq_queues_created_total 1",
        "leveret_late_leases 0",
        r#"rabbitmq_global_messages_dead_lettered_expired_total{queue_type="rabbit_classic_queue",dead_letter_strategy="disabled"} 0"#,
    ] {
        assert!(page.text.lines().any(|other| other == line), "{line} is missing in\n{}", page.text);
    }
    let objects = browser.ask("GET", "/metrics/per-object", None).await;
    let line = r#"rabbitmq_queue_messages_bytes{vhost="/",queue="q\"q"} 5"#;
    assert!(objects.text.lines().any(|other| other == line), "{}", objects.text);
    let families =
        "family=queue_metrics&family=queue_consumer_count&family=leveret_queue_metrics&family=exchange_names";
    let detailed =
        browser.ask("GET", &format!("/metrics/detailed?{families}&family=node_metrics&family=nope"), None).await;
    for line in [
        r#"rabbitmq_detailed_queue_messages_bytes{vhost="/",queue="q\"q"} 5"#,
        r#"rabbitmq_detailed_queue_consumers{vhost="/",queue="q\"q"} 0"#,
        r#"leveret_queue_paused{vhost="/",queue="q\"q"} 0"#,
        r#"rabbitmq_cluster_exchange_name{vhost="/",exchange="amq.topic",type="topic"} 1"#,
    ] {
        assert!(detailed.text.lines().any(|other| other == line), "{line} is missing in\n{}", detailed.text);
    }
    assert!(!detailed.text.contains("queue_messages_ready{"), "a family that nobody asked for");
    let elsewhere = browser.ask("GET", &format!("/metrics/detailed?{families}&vhost=elsewhere"), None).await;
    assert!(!elsewhere.text.contains("vhost="), "{}", elsewhere.text);
    let memory = browser.ask("GET", "/metrics/memory-breakdown", None).await;
    assert!(memory.text.contains("\nrabbitmq_memory_queue_procs_bytes "), "{}", memory.text);
    for text in [page.text, objects.text, detailed.text, memory.text] {
        let mut seen = std::collections::HashSet::new();
        let mut name = "";
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                name = head.split(' ').next().unwrap();
                assert!(seen.insert(name), "{name} begins twice");
            } else if !line.starts_with('#') {
                let own = line.split(['{', ' ']).next().unwrap();
                let suffixes = ["_bucket", "_sum", "_count"];
                let of_histogram = suffixes.into_iter().find_map(|suffix| own.strip_suffix(suffix));
                assert!(own == name || of_histogram == Some(name), "{line}: a number stands under its own name");
            }
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let desk = Desk::open().await;
    let long = "x".repeat(1 << 20);
    let answer = desk.browser.ask_with("GET", "/whoami", &[("X-Long", &long)]).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn policies_are_set_shown_and_cleared() {
    let desk = Desk::open().await;
    let unset = json!([null, null, {}]);
    let of =
        |object: &Value| json!([object["policy"], object["operator_policy"], object["effective_policy_definition"]]);
    desk.send("PUT", "/queues/%2F/jobs.1", json!({"durable": true}), 201).await;
    assert_eq!(of(&desk.get("/queues/%2F/jobs.1").await), unset);
    let policy = json!({"pattern": "^jobs", "definition": {"max-length": 2}, "priority": 3, "apply-to": "queues"});
    desk.send("PUT", "/policies/%2F/short", policy.clone(), 201).await;
    desk.send("PUT", "/policies/%2F/short", policy, 204).await;
    let bound = json!({"pattern": "", "definition": {"max-length": 9, "message-ttl": 60_000}});
    desk.send("PUT", "/operator-policies/%2F/bound", bound, 201).await;
    let shown = json!({
        "vhost": "/", "name": "short", "pattern": "^jobs", "apply-to": "queues", "definition": {"max-length": 2}, "priority": 3,
    });
    assert_eq!(desk.get("/policies").await, json!([shown]));
    assert_eq!(desk.get("/policies/%2F").await, json!([shown]));
    assert_eq!(desk.get("/policies/%2F/short").await, shown);
    assert_eq!(desk.get("/operator-policies/%2F/bound").await["apply-to"], "all");
    let effective = json!(["short", "bound", {"max-length": 2, "message-ttl": 60_000}]);
    assert_eq!(of(&desk.get("/queues/%2F/jobs.1").await), effective);
    assert_eq!(of(&desk.get("/queues").await[0]), effective);
    assert_eq!(desk.get("/exchanges/%2F/amq.topic").await["policy"], Value::Null);
    for body in ["a", "b", "c"] {
        desk.publish("jobs.1", body).await;
    }
    assert_eq!(desk.get("/queues/%2F/jobs.1").await["messages"], 2);

    desk.delete("/policies/%2F/short", 204).await;
    desk.delete("/policies/%2F/short", 404).await;
    desk.delete("/operator-policies/%2F/bound", 204).await;
    assert_eq!(of(&desk.get("/queues/%2F/jobs.1").await), unset);
    desk.publish("jobs.1", "d").await;
    assert_eq!(desk.get("/queues/%2F/jobs.1").await["messages"], 3);
    assert_eq!(desk.browser.ask("GET", "/policies/%2F/short", None).await.status, 404);
}

#[tokio::test]
async fn a_stream_is_shown_as_one_and_follows_policies() {
    let desk = Desk::open().await;
    let stream = json!({"durable": true, "arguments": {"x-queue-type": "stream", "x-max-age": "7D"}});
    desk.send("PUT", "/queues/%2F/log", stream, 201).await;
    for body in ["aaaaa", "bbbbb", "ccccc"] {
        desk.publish("log", body).await;
    }
    let log = desk.get("/queues/%2F/log").await;
    let shown = json!([log["type"], log["messages"], log["messages_ready"], log["messages_unacknowledged"]]);
    assert_eq!(shown, json!(["stream", 3, 3, 0]));
    assert_eq!(
        (&log["message_bytes"], &log["consumers"], &log["members"]),
        (&json!(15), &json!(0), &json!([log["node"]]))
    );
    let short = |applies: &str| json!({"pattern": "", "definition": {"max-length-bytes": 10}, "apply-to": applies});
    desk.send("PUT", "/policies/%2F/short", short("classic_queues"), 201).await;
    assert_eq!(desk.get("/queues/%2F/log").await["messages"], 3);
    desk.send("PUT", "/policies/%2F/short", short("streams"), 204).await;
    assert_eq!(desk.get("/queues/%2F/log").await["messages"], 2);
    let refused = desk.browser.ask("DELETE", "/queues/%2F/log/contents", None).await;
    let reason = refused.json()["reason"].to_string();
    assert_eq!(refused.status, 400);
    assert!(reason.contains("queue.purge not supported by stream queues queue 'log' in vhost '/'"), "{reason}");
    let looked = desk.get("/queues/%2F/log/messages").await;
    assert_eq!(looked["items"].as_array().map(Vec::len), Some(2), "an operator may look");
    desk.delete("/queues/%2F/log", 204).await;
}

#[tokio::test]
async fn policies_that_make_no_sense_are_refused_in_rabbitmqs_words() {
    let desk = Desk::open().await;
    for (policy, reason) in [
        (json!({"definition": {}}), "[{key_missing,pattern}]"),
        (json!({"pattern": "", "definition": {}}), "Validation failed\n\nno policy provided\n"),
        (
            json!({"pattern": "", "definition": {"ha-mode": "all"}}),
            "Validation failed\n\n[{<<\"ha-mode\">>,<<\"all\">>}] are not recognised policy settings\n",
        ),
        (
            json!({"pattern": "", "definition": {"message-ttl": "soon"}}),
            "Validation failed\n\n<<\"soon\">> is not a valid message TTL\n",
        ),
        (
            json!({"pattern": "", "definition": {"max-age": "7"}}),
            "Validation failed\n\n<<\"7\">> is not a valid max age\n",
        ),
    ] {
        let answer = desk.send("PUT", "/policies/%2F/p", policy, 400).await;
        assert_eq!(answer.json(), json!({"error": "bad_request", "reason": reason}));
    }
    desk.send("PUT", "/policies/nowhere/p", json!({"pattern": "", "definition": {"expires": 1}}), 404).await;
    assert_eq!(desk.get("/policies").await, json!([]));
}
