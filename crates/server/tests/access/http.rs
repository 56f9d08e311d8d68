//! What each tag may see and change over HTTP.

use super::*;

async fn status(browser: &Browser, method: &str, path: &str, document: Value) -> (u16, String) {
    let document = (method != "GET" && method != "DELETE").then_some(document);
    let answer = browser.ask(method, path, document.as_ref()).await;
    let reason = if answer.status < 400 { String::new() } else { answer.json()["reason"].as_str().unwrap().to_owned() };
    (answer.status, reason)
}

#[tokio::test]
async fn each_tag_sees_and_changes_what_is_its_own() {
    let desk = Desk::open().await;
    desk.send("PUT", "/vhosts/v", json!({}), 201).await;
    desk.delete("/permissions/v/guest", 204).await;
    desk.send("PUT", "/queues/v/hidden", json!({"durable": true}), 401).await;
    desk.permit("v", "guest", [".*", ".*", ".*"]).await;
    desk.send("PUT", "/queues/v/hidden", json!({"durable": true}), 201).await;
    desk.send("PUT", "/queues/%2F/seen", json!({"durable": true}), 201).await;
    for tag in ["management", "policymaker", "monitoring"] {
        desk.user(tag, tag, ["^seen$", "", ""]).await;
    }
    let names = |queues: &Value| -> Vec<String> {
        queues.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    for (tag, queues) in [("management", vec!["seen"]), ("monitoring", vec!["seen", "hidden"])] {
        let answer = desk.browser(tag).ask("GET", "/queues", None).await;
        assert_eq!(names(&answer.json()), queues, "{tag}");
    }
    let inside = "User not authorised to access virtual host";
    let policies = "User not authorised to access object";
    for (tag, method, path, expected) in [
        ("management", "GET", "/overview", (200, "")),
        ("management", "GET", "/queues/v", (401, inside)),
        ("management", "GET", "/vhosts/v", (401, inside)),
        ("management", "GET", "/nodes", (401, "Not monitor user")),
        ("management", "GET", "/users", (401, "Not administrator user")),
        ("management", "PUT", "/vhosts/w", (401, "Not administrator user")),
        ("management", "GET", "/policies", (200, "")),
        ("management", "PUT", "/policies/%2F/p", (401, policies)),
        ("management", "PUT", "/queues/%2F/other", (401, "Access refused.")),
        ("management", "PUT", "/queues/%2F/seen", (204, "")),
        ("management", "PUT", "/queues/v/seen", (401, inside)),
        ("management", "DELETE", "/queues/%2F/seen/contents", (401, "Access refused.")),
        ("management", "GET", "/definitions", (401, "Not administrator user")),
        ("policymaker", "GET", "/policies", (200, "")),
        ("policymaker", "PUT", "/policies/%2F/p", (201, "")),
        ("policymaker", "PUT", "/policies/v/p", (401, policies)),
        ("policymaker", "PUT", "/operator-policies/%2F/p", (401, "Not administrator user")),
        ("monitoring", "GET", "/nodes", (200, "")),
        ("monitoring", "GET", "/queues/v", (200, "")),
        ("monitoring", "PUT", "/queues/v/seen", (401, inside)),
        ("monitoring", "GET", "/users", (401, "Not administrator user")),
        ("monitoring", "GET", "/policies", (200, "")),
    ] {
        let document = json!({"durable": true, "pattern": "x", "definition": {"max-length": 1}});
        let got = status(&desk.browser(tag), method, path, document).await;
        assert_eq!((got.0, got.1.as_str()), expected, "{tag}: {method} {path}");
    }
    let vhosts = desk.browser("management").ask("GET", "/vhosts", None).await.json();
    assert_eq!(names(&vhosts), ["/"]);
}

#[tokio::test]
async fn somebody_elses_connections_are_not_to_be_seen() {
    let desk = Desk::open().await;
    desk.user("one", "management", [".*", ".*", ".*"]).await;
    let _one = desk.client("one").await;
    let _guest = desk.connect("guest:guest", "%2f").await.unwrap();
    let all = desk.get("/connections").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let browser = desk.browser("one");
    let own = browser.ask("GET", "/connections", None).await.json();
    assert_eq!(own.as_array().unwrap().len(), 1);
    assert_eq!(own[0]["user"], "one");
    for connection in all.as_array().unwrap() {
        let name = connection["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E");
        let (status, _) = status(&browser, "GET", &format!("/connections/{name}"), Value::Null).await;
        assert_eq!(status, if connection["user"] == "one" { 200 } else { 401 });
    }
}

#[tokio::test]
async fn what_http_does_needs_the_permissions_that_amqp_needs() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    desk.user("app", "management", ["", "^amq\\.topic$", "^q$"]).await;
    let topic = json!({"exchange": "amq.topic", "write": "^a$", "read": ""});
    desk.send("PUT", "/topic-permissions/%2F/app", topic, 201).await;
    let browser = desk.browser("app");
    let message =
        |key: &str| json!({"properties": {}, "routing_key": key, "payload": "", "payload_encoding": "string"});
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let schedule = json!({"every_ms": 3_600_000, "routing_key": "b", "payload": "x", "exchange": "amq.topic"});
    for (method, path, document, expected) in [
        ("POST", "/exchanges/%2F/amq.topic/publish", message("a"), 200),
        ("POST", "/exchanges/%2F/amq.topic/publish", message("b"), 401),
        ("POST", "/exchanges/%2F/amq.default/publish", message("q"), 401),
        ("POST", "/queues/%2F/q/get", get.clone(), 200),
        ("POST", "/queues/%2F/other/get", get, 401),
        ("DELETE", "/queues/%2F/q", Value::Null, 401),
        ("POST", "/bindings/%2F/e/amq.topic/q/q", json!({"routing_key": "k"}), 401),
        ("PUT", "/schedules/%2F/s", schedule, 401),
        ("PUT", "/queues/%2F/q/pause", json!({}), 401),
    ] {
        let (status, reason) = status(&browser, method, path, document).await;
        assert_eq!(status, expected, "{method} {path}: {reason}");
    }
}

#[tokio::test]
async fn properties_that_no_frame_holds_are_refused_over_http() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    let message = |length: usize| json!({"properties": {"headers": {"h": "y".repeat(length)}}, "routing_key": "q", "payload": "", "payload_encoding": "string"});
    desk.send("POST", "/exchanges/%2F/amq.default/publish", message(140_000), 400).await;
    desk.send("POST", "/exchanges/%2F/amq.default/publish", message(130_000), 200).await;
    let channel = desk.connect("guest:guest", "%2f").await.unwrap().create_channel().await.unwrap();
    let got = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(got.properties.headers().as_ref().unwrap().inner().len(), 1);
}

#[tokio::test]
async fn the_clusters_name_outlives_the_server() {
    let desk = Desk::open().await;
    desk.send("PUT", "/cluster-name", json!({"name": "jobs@west"}), 204).await;
    let desk = desk.again().await;
    assert_eq!(desk.get("/cluster-name").await["name"], "jobs@west");
    assert_eq!(desk.get("/overview").await["cluster_name"], "jobs@west");
    assert_eq!(desk.get("/global-parameters/cluster_name").await["value"], "jobs@west");
}

#[tokio::test]
async fn pages_from_allowed_places_may_use_the_api() {
    let directory = tempfile::tempdir().unwrap();
    let cors_allow_origins = vec!["https://ops.example".to_owned()];
    let server =
        Server::start(Config { cors_allow_origins, cors_max_age_s: 60, ..config(directory.path()) }).await.unwrap();
    let address = server.board().addresses().http[0];
    let ask = async |head: String| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(format!("{head}Host: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer.to_ascii_lowercase()
    };
    let question = |origin: &str| {
        format!(
            "OPTIONS /api/queues HTTP/1.1\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
                 Access-Control-Request-Headers: authorization\r\n"
        )
    };
    let allowed = ask(question("https://ops.example")).await;
    for header in [
        "http/1.1 204",
        "access-control-allow-origin: https://ops.example\r\n",
        "access-control-max-age: 60\r\n",
        "access-control-allow-headers: authorization\r\n",
        "access-control-allow-credentials: true\r\n",
        "vary: origin",
    ] {
        assert!(allowed.contains(header), "{header}: {allowed}");
    }
    for origin in ["https://ops.example.evil", "null", "https://OPS.example/"] {
        let refused = ask(question(origin)).await;
        assert!(refused.contains("401") && !refused.contains("access-control"), "{origin}: {refused}");
    }
    let get = "GET /api/overview HTTP/1.1\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
    let answered = ask(format!("{get}Origin: https://ops.example\r\n")).await;
    assert!(answered.starts_with("http/1.1 200") && answered.contains("access-control-allow-origin: https://ops"));
    assert!(!ask(get.to_owned()).await.contains("access-control"));
}
