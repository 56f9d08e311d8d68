//! Schedules through the API.

use super::*;

async fn queue(desk: &Desk, name: &str, arguments: Value) {
    let document = json!({"durable": true, "arguments": arguments});
    desk.send("PUT", &format!("/queues/%2F/{name}"), document, 201).await;
}

/// Asks until it is so.
async fn until(desk: &Desk, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = desk.get(path).await;
        if is_so(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_schedule_publishes_what_it_says_each_time_that_it_is_due() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({})).await;
    let document = json!({
        "every_ms": 50, "routing_key": "q", "payload": "aGk=", "payload_encoding": "base64", "if_missed": "all",
        "properties": {"content_type": "text/plain", "priority": 3, "headers": {"kind": "test"}},
    });
    desk.send("PUT", "/schedules/%2F/beat", document.clone(), 201).await;
    let shown = until(&desk, "/schedules/%2F/beat", |shown| shown["fired"].as_u64() >= Some(3)).await;
    assert_eq!((&shown["state"], &shown["missed"], &shown["last_error"]), (&json!("running"), &json!(0), &Value::Null));
    assert!(shown["next_at"].as_u64().unwrap() > shown["last_at"].as_u64().unwrap() - 50, "{shown}");
    desk.send("PUT", "/schedules/%2F/beat/pause", json!({}), 204).await;
    let paused = desk.get("/schedules/%2F/beat").await;
    assert_eq!(
        (&paused["state"], &paused["next_at"], &paused["enabled"]),
        (&json!("paused"), &Value::Null, &json!(false))
    );
    let messages = desk.get("/queues/%2F/q/messages").await;
    let messages = messages["items"].as_array().unwrap();
    assert!(messages.len() >= 3);
    let mut before = 0;
    for message in messages {
        assert_eq!((&message["payload"], &message["exchange"]), (&json!("hi"), &json!("")));
        let properties = &message["properties"];
        assert_eq!((&properties["content_type"], &properties["priority"]), (&json!("text/plain"), &json!(3)));
        assert_eq!(properties["delivery_mode"], 2, "persistent unless it says otherwise");
        assert_eq!(
            (&properties["headers"]["kind"], &properties["headers"]["x-schedule"]),
            (&json!("test"), &json!("beat"))
        );
        let at = properties["headers"]["x-schedule-time"].as_u64().unwrap();
        assert!(before == 0 || at == before + 50, "{at} after {before}");
        before = at;
    }
    desk.send("PUT", "/schedules/%2F/beat/resume", json!({}), 204).await;
    let count = messages.len() as u64;
    until(&desk, "/schedules/%2F/beat", |shown| shown["fired"].as_u64() > Some(count + 2)).await;
    // What the API tells can be declared again.
    let again = desk.get("/schedules/%2F/beat").await;
    desk.send("PUT", "/schedules/%2F/beat", again, 204).await;
    desk.delete("/schedules/%2F/beat", 204).await;
    desk.delete("/schedules/%2F/beat", 404).await;
    assert_eq!(desk.get("/schedules").await, json!([]));
}

#[tokio::test]
async fn a_schedule_is_told_as_it_was_declared_and_listed() {
    let desk = Desk::open().await;
    let document = json!({
        "cron": "0 3 * * mon-fri", "time_zone": "America/New_York", "exchange": "amq.topic", "routing_key": "report.daily",
        "start_at": "2096-01-01T00:00:00Z", "end_at": 4_000_000_000_000_u64, "if_missed": "one", "enabled": false,
    });
    desk.send("PUT", "/schedules/%2F/a%2Fb", document, 201).await;
    desk.send("PUT", "/schedules/%2F/c", json!({"cron": "@daily", "routing_key": "c"}), 201).await;
    let shown = desk.get("/schedules/%2F/a%2Fb").await;
    assert_eq!(
        shown,
        json!({
            "vhost": "/", "name": "a/b", "cron": "0 3 * * mon-fri", "time_zone": "America/New_York",
            "exchange": "amq.topic", "routing_key": "report.daily", "properties": {"delivery_mode": 2},
            "payload": "", "payload_encoding": "string", "if_missed": "one", "enabled": false,
            "start_at": 3_976_214_400_000_u64, "end_at": 4_000_000_000_000_u64, "state": "paused",
            "next_at": null, "last_at": null, "fired": 0, "missed": 0, "failed": 0, "last_error": null,
        })
    );
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&desk.get("/schedules").await), ["a/b", "c"]);
    assert_eq!(names(&desk.get("/schedules/%2F").await), ["a/b", "c"]);
    until(&desk, "/schedules/%2F/c", |shown| shown["next_at"].as_u64().is_some_and(|ms| ms % 86_400_000 == 0)).await;
    desk.send("PUT", "/schedules/%2F/a%2Fb/resume", json!({}), 204).await;
    let first = until(&desk, "/schedules/%2F/a%2Fb", |shown| shown["state"] == "running").await;
    // Monday, 2 January 2096, 3 in the morning in New York.
    assert_eq!(first["next_at"], 3_976_329_600_000_u64);
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_told() {
    let desk = Desk::open().await;
    for (document, reason) in [
        (json!({}), "say when: cron or every_ms, one of them"),
        (json!({"cron": "@daily", "every_ms": 1000}), "say when: cron or every_ms, one of them"),
        (json!({"every_ms": 9}), "every_ms must be from 10 to 3155760000000"),
        (json!({"every_ms": 1000, "time_zone": "UTC"}), "time_zone goes with cron, not with every_ms"),
        (json!({"cron": "* * * 13 *"}), "cron: month: \"13\" is no number from 1 to 12, or a name from jan to dec"),
        (
            json!({"cron": "@daily", "time_zone": "Mars/Base"}),
            "time_zone: \"Mars/Base\" is no time zone; one is Europe/Berlin, another UTC",
        ),
        (json!({"every_ms": 1000, "if_missed": "some"}), "if_missed must be skip, one or all"),
        (json!({"every_ms": 1000, "exchange": "nope"}), "there is no exchange \"nope\""),
        (json!({"every_ms": 1000, "exchange": "amq.rabbitmq.trace"}), "exchange \"amq.rabbitmq.trace\" is internal"),
        (
            json!({"every_ms": 1000, "start_at": "tomorrow"}),
            "start_at must be like \"2027-01-31T08:00:00Z\", or in Unix milliseconds",
        ),
        (json!({"every_ms": 1000, "start_at": 2000, "end_at": 1000}), "end_at is before start_at"),
        (json!({"every_ms": 1000, "payload": "x".repeat(300_000)}), "payload is longer than 262144 bytes"),
        (json!({"every_ms": 1000, "payload": "!", "payload_encoding": "base64"}), "payload is not Base64"),
        (json!({"every_ms": 1000, "properties": {"expiration": "soon"}}), "invalid expiration 'soon': no_integer"),
        (
            json!({"every_ms": 1000, "properties": {"headers": {"CC": ["a"]}}}),
            "the headers CC and BCC are not for schedules: bind an exchange to the queues",
        ),
        (
            json!({"every_ms": 1000, "key": "q"}),
            "\"key\" is no key of a schedule; these are: cron, time_zone, every_ms, exchange, routing_key, properties, \
             payload, payload_encoding, if_missed, enabled, start_at, end_at",
        ),
    ] {
        let refused = desk.send("PUT", "/schedules/%2F/s", document, 400).await.json();
        assert_eq!(refused["reason"], reason);
    }
    desk.send("PUT", "/schedules/nov/s", json!({"every_ms": 1000}), 404).await;
    for (method, path) in [("PUT", "s/pause"), ("PUT", "s/resume"), ("POST", "s/fire"), ("GET", "s"), ("DELETE", "s")] {
        let answer = desk.browser.ask(method, &format!("/schedules/%2F/{path}"), Some(&json!({}))).await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn a_message_that_nobody_gets_is_an_error_of_its_schedule() {
    let desk = Desk::open().await;
    desk.send("PUT", "/schedules/%2F/s", json!({"every_ms": 20, "routing_key": "q"}), 201).await;
    let shown = until(&desk, "/schedules/%2F/s", |shown| shown["failed"].as_u64() > Some(1)).await;
    assert_eq!((&shown["last_error"], &shown["fired"]), (&json!("there is no queue \"q\""), &json!(0)));
    let fired = desk.send("POST", "/schedules/%2F/s/fire", json!({}), 200).await;
    assert_eq!(fired.json(), json!({"routed": false, "reason": "there is no queue \"q\""}));
    queue(&desk, "q", json!({"x-max-length": 1, "x-overflow": "reject-publish"})).await;
    let full = "the queues that it is routed to are full, and refuse it";
    let shown = until(&desk, "/schedules/%2F/s", |shown| shown["last_error"] == full).await;
    assert_eq!(shown["fired"], 1);
    desk.send("PUT", "/schedules/%2F/s", json!({"every_ms": 1_000_000, "routing_key": "q"}), 204).await;
    desk.delete("/queues/%2F/q/contents", 204).await;
    let fired = desk.send("POST", "/schedules/%2F/s/fire", json!({}), 200).await;
    assert_eq!(fired.json(), json!({"routed": true, "reason": null}));
    let messages = desk.get("/queues/%2F/q/messages").await;
    assert_eq!(messages["items"][0]["properties"]["headers"], json!({"x-schedule": "s"}));
}
