//! Queues paused, looked into and redriven, and leases, through the API.

use super::*;

async fn queue(desk: &Desk, name: &str, arguments: Value) {
    let document = json!({"durable": true, "arguments": arguments});
    desk.send("PUT", &format!("/queues/%2F/{name}"), document, 201).await;
}

/// Refuses a request, and says why.
async fn refuse(desk: &Desk, method: &str, path: &str, document: Value, status: u16, reason: impl Into<Value>) {
    let refused = desk.send(method, &format!("/queues/%2F/{path}"), document, status).await.json();
    assert_eq!(refused["reason"], reason.into(), "{method} {path}");
}

async fn state_of(desk: &Desk, name: &str) -> Value {
    desk.get(&format!("/queues/%2F/{name}")).await
}

#[tokio::test]
async fn a_queue_is_paused_and_listed_as_such() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({})).await;
    desk.send("PUT", "/queues/%2F/q/pause", json!({}), 204).await;
    assert_eq!(state_of(&desk, "q").await["state"], "paused");
    assert_eq!(desk.get("/queues").await[0]["state"], "paused");
    desk.publish("q", "a").await;
    let got = desk
        .send("POST", "/queues/%2F/q/get", json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}), 200)
        .await;
    assert_eq!(got.json(), json!([]));
    desk.send("PUT", "/queues/%2F/q/resume", json!({}), 204).await;
    assert_eq!(state_of(&desk, "q").await["state"], "running");
    refuse(&desk, "PUT", "nope/pause", json!({}), 404, "Not Found").await;
}

#[tokio::test]
async fn messages_are_looked_at_by_place_and_by_what_they_are_like() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({})).await;
    for number in 0..20 {
        let message = json!({
            "properties": {"headers": {"tenant": number % 4}, "message_id": format!("m{number}")},
            "routing_key": "q", "payload": format!("order {number}"), "payload_encoding": "string",
        });
        desk.send("POST", "/exchanges/%2F/amq.default/publish", message, 200).await;
    }
    let seqs = |answer: &Value| -> Vec<u64> {
        answer["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect()
    };
    let all = desk.get("/queues/%2F/q/messages").await;
    assert_eq!((seqs(&all), &all["next"]), ((1..=20).collect(), &Value::Null));
    let first = &all["items"][0];
    assert_eq!(first["payload"], "order 0");
    assert_eq!(first["properties"], json!({"headers": {"tenant": 0}, "message_id": "m0"}));
    assert_eq!(
        (&first["state"], &first["redelivered"], &first["expires_at"]),
        (&json!("ready"), &json!(false), &Value::Null)
    );
    let part = desk.get("/queues/%2F/q/messages?offset=5&count=3").await;
    assert_eq!(seqs(&part), [6, 7, 8]);
    let next = part["next"].as_str().unwrap();
    assert_eq!(seqs(&desk.get(&format!("/queues/%2F/q/messages?count=2&from={next}")).await), [9, 10]);
    assert_eq!(seqs(&desk.get("/queues/%2F/q/messages?header.tenant=3&body=order%201").await), [12, 16, 20]);
    assert_eq!(seqs(&desk.get("/queues/%2F/q/messages?property.message_id=m7&routing_key=q").await), [8]);
    let cut = desk.get("/queues/%2F/q/messages/3?truncate=3&encoding=base64").await;
    assert_eq!((&cut["payload"], &cut["payload_bytes"]), (&json!("b3Jk"), &json!(7)));
    for (path, status, reason) in [
        ("messages/99", 404, json!("Not Found")),
        (
            "messages?nonsense=1",
            400,
            json!("\"nonsense\" is no filter: use exchange, routing_key, body, header.NAME or property.NAME"),
        ),
        (
            "messages?property.nonsense=1",
            400,
            json!("\"property.nonsense\" is no filter: use exchange, routing_key, body, header.NAME or property.NAME"),
        ),
        ("messages?count=x", 400, json!(["not_int", "count"])),
        ("messages?from=there", 400, json!("from must be what an earlier answer gave as next")),
        ("messages?state=gone", 400, json!("state must be ready, delayed, unacked or dlx")),
    ] {
        refuse(&desk, "GET", &format!("q/{path}"), json!({}), status, reason).await;
    }
    // Nobody noticed.
    let queue = state_of(&desk, "q").await;
    assert_eq!((&queue["messages_ready"], &queue["message_stats"]["deliver_get"]), (&json!(20), &json!(0)));
}

#[tokio::test]
async fn messages_are_deleted_moved_and_requeued() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({})).await;
    queue(&desk, "other", json!({})).await;
    for number in 0..10 {
        desk.publish("q", &number.to_string()).await;
    }
    desk.delete("/queues/%2F/q/messages/1", 204).await;
    refuse(&desk, "DELETE", "q/messages/1", json!({}), 404, "Not Found").await;
    let answer = |word: &str, count: u64, passed: u64| json!({word: count, "passed_over": passed, "unroutable": 0, "refused": 0, "next": null});
    let post = async |what: &str, document: Value| {
        desk.send("POST", &format!("/queues/%2F/q/messages/{what}"), document, 200).await.json()
    };
    assert_eq!(post("delete", json!({"seqs": [2, 3, 77]})).await, answer("deleted", 2, 0));
    assert_eq!(post("move", json!({"filter": {"body": "4"}, "to_queue": "other"})).await, answer("moved", 1, 6));
    assert_eq!(post("requeue", json!({"filter": {"body": "3"}})).await, answer("requeued", 1, 5));
    let through = json!({"all": true, "to_exchange": "amq.default", "routing_key": "other", "count": 2});
    assert_eq!(post("move", through).await["moved"], 2);
    let bodies = async |name: &str| -> Vec<String> {
        let list = desk.get(&format!("/queues/%2F/{name}/messages")).await;
        list["items"].as_array().unwrap().iter().map(|item| item["payload"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bodies("q").await, ["7", "8", "9", "3"]);
    assert_eq!(bodies("other").await, ["4", "5", "6"]);
    assert_eq!(post("requeue", json!({"all": true})).await["requeued"], 4, "each once");
    for (what, document, status, reason) in [
        ("delete", json!({}), 400, "say which messages: one of seqs, filter, and all: true"),
        ("delete", json!({"all": true, "seqs": [1]}), 400, "say which messages: one of seqs, filter, and all: true"),
        ("delete", json!({"all": true, "state": "unacked"}), 400, "unacked messages can be requeued only"),
        ("move", json!({"all": true}), 400, "say where to: to_queue, or to_exchange and routing_key"),
        ("move", json!({"all": true, "to_queue": "nope"}), 404, "there is no queue \"nope\" to move to"),
        ("move", json!({"all": true, "to_exchange": "nope"}), 404, "there is no exchange \"nope\" to move to"),
        (
            "move",
            json!({"all": true, "to_queue": "q", "to_exchange": "nope"}),
            400,
            "to_queue and to_exchange exclude each other",
        ),
        (
            "requeue",
            json!({"filter": {"nonsense": "x"}}),
            400,
            "\"nonsense\" is no filter: use exchange, routing_key, body, header.NAME or property.NAME",
        ),
    ] {
        refuse(&desk, "POST", &format!("q/messages/{what}"), document, status, reason).await;
    }
}

#[tokio::test]
async fn a_dead_letter_queue_is_redriven_with_progress() {
    let desk = Desk::open().await;
    let dead = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    queue(&desk, "dead", json!({})).await;
    queue(&desk, "work", dead).await;
    for number in 0..30 {
        desk.publish("work", &number.to_string()).await;
    }
    desk.publish("dead", "of nowhere").await;
    let reject = json!({"count": 30, "ackmode": "reject_requeue_false", "encoding": "auto"});
    desk.send("POST", "/queues/%2F/work/get", reject, 200).await;
    let redrive = async |document: Value| {
        desk.send("POST", "/queues/%2F/dead/redrive", document, 202).await;
        loop {
            let state = desk.get("/queues/%2F/dead/redrive").await;
            if state["state"] != "running" {
                return state;
            }
        }
    };
    desk.browser.ask("GET", "/queues/%2F/dead/redrive", None).await;
    let state = redrive(json!({"filter": {"body": "7"}})).await;
    assert_eq!((&state["state"], &state["moved"], &state["total"]), (&json!("done"), &json!(3), &json!(31)));
    let state = redrive(json!({"rate": 100_000})).await;
    assert_eq!((&state["moved"], &state["unroutable"]), (&json!(27), &json!(1)));
    let back = desk.get("/queues/%2F/work/messages").await;
    assert_eq!(back["items"].as_array().unwrap().len(), 30);
    assert_eq!(back["items"][0]["routing_key"], "work", "as it was published");
    desk.delete("/queues/%2F/dead/redrive", 204).await;

    // One that is slow can be stopped, and begun again.
    desk.send("POST", "/queues/%2F/work/redrive", json!({"to_queue": "dead", "rate": 1}), 202).await;
    let twice = desk.send("POST", "/queues/%2F/work/redrive", json!({"to_queue": "dead"}), 400).await.json();
    assert_eq!(twice["reason"], "the queue is being redriven already");
    desk.delete("/queues/%2F/work/redrive", 204).await;
    loop {
        let state = desk.get("/queues/%2F/work/redrive").await;
        if state["state"] == "stopped" {
            assert!(state["moved"].as_u64().unwrap() < 5, "{state}");
            break;
        }
    }
    for (document, status, reason) in [
        (json!({"rate": 0}), 400, json!("rate must be a number of messages a second")),
        (json!({"origin": "middle"}), 400, json!("origin must be last or first")),
        (json!({"filter": []}), 400, json!(["not_object", "filter"])),
        (json!({"to_queue": "nope"}), 404, json!("there is no queue \"nope\" to move to")),
    ] {
        refuse(&desk, "POST", "work/redrive", document, status, reason).await;
    }
}

#[tokio::test]
async fn a_redrive_waits_for_room() {
    let desk = Desk::open().await;
    queue(&desk, "from", json!({})).await;
    queue(&desk, "to", json!({"x-max-length": 2, "x-overflow": "reject-publish"})).await;
    for number in 0..5 {
        desk.publish("from", &number.to_string()).await;
    }
    desk.send("POST", "/queues/%2F/from/redrive", json!({"to_queue": "to"}), 202).await;
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let get = json!({"count": 5, "ackmode": "ack_requeue_false", "encoding": "auto"});
        let got = desk.send("POST", "/queues/%2F/to/get", get, 200).await.json();
        taken.extend(got.as_array().unwrap().iter().map(|item| item["payload"].as_str().unwrap().to_owned()));
    }
    assert_eq!(taken, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn leases_are_listed_extended_and_taken_back() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({"x-consumer-timeout": 60_000})).await;
    desk.publish("q", "a").await;
    desk.publish("q", "b").await;
    let mut client = desk.client().await;
    client.consume("q").await;
    client.expect_delivery().await;
    client.expect_delivery().await;
    let leases = desk.get("/leases").await;
    let lease = &leases[0];
    assert_eq!(leases.as_array().unwrap().len(), 2);
    assert_eq!((&lease["queue"]["name"], &lease["seq"], &lease["extended"]), (&json!("q"), &json!(1), &json!(false)));
    assert!(lease["consumer_tag"].as_str().unwrap().starts_with("amq.ctag-"), "{lease}");
    assert_eq!(lease["channel_details"]["number"], 1);
    assert!(lease["age_ms"].as_u64().unwrap() + lease["left_ms"].as_u64().unwrap() == 60_000, "{lease}");
    assert!(state_of(&desk, "q").await["oldest_unacked_age_ms"].is_u64());
    desk.send("PUT", "/queues/%2F/q/leases/1", json!({"ms": 600_000}), 204).await;
    let part = desk.get("/queues/%2F/q/leases?count=1").await;
    assert!(part["items"][0]["left_ms"].as_u64().unwrap() > 500_000, "{part}");
    assert_eq!((&part["items"][0]["extended"], &part["next"]), (&json!(true), &json!(2)));
    let shown = desk.get("/queues/%2F/q/messages?state=unacked").await;
    assert_eq!((&shown["items"][1]["payload"], &shown["items"][1]["lease"]["seq"]), (&json!("b"), &json!(2)));
    desk.delete("/queues/%2F/q/leases/1", 204).await;
    assert_eq!(client.expect_delivery().await, b"a");
    refuse(&desk, "DELETE", "q/leases/9", json!({}), 404, "Not Found").await;
    refuse(&desk, "PUT", "q/leases/9", json!({}), 404, "Not Found").await;
    refuse(&desk, "PUT", "q/leases/1", json!({"ms": 0}), 400, "ms must be greater than 0").await;
    let answer = desk
        .send("POST", "/queues/%2F/q/messages/requeue", json!({"all": true, "state": "unacked", "count": 2}), 200)
        .await;
    assert_eq!(answer.json()["requeued"], 2);
}

/// Says something of the delivery with the first tag.
async fn say(client: &mut RawClient, word: &str, fields: &[(&str, &str)], details: &[u8]) {
    let fields = fields.iter().map(|(key, value)| (*key, amqp::Value::from(*value)));
    let headers = [("x-delivery-tag", amqp::Value::from(1_i64))].into_iter().chain(fields).collect();
    let list = amqp::PropertyList { headers: Some(headers), ..amqp::PropertyList::default() };
    client.publish_with(&format!("amq.leveret.{word}"), &list, details).await;
}

#[tokio::test]
async fn what_workers_say_is_shown_with_their_leases_and_with_messages_that_came_back() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({"x-delayed-retry-type": "all", "x-delayed-retry-min": 60_000})).await;
    desk.publish("q", "job").await;
    let mut client = desk.client().await;
    client.consume("q").await;
    client.expect_delivery().await;
    say(&mut client, "progress", &[("x-progress", "3 of 7 pages")], b"").await;
    // The answer comes when what was said before is known.
    client.declare("other", false).await;
    let lease = desk.get("/queues/%2F/q/leases").await["items"][0].clone();
    assert_eq!(lease["progress"], "3 of 7 pages");
    assert!(lease["progress_at"].as_u64().unwrap() > 1_700_000_000_000, "{lease}");
    assert_eq!(desk.get("/queues/%2F/q/messages?state=unacked").await["items"][0]["failure"], Value::Null);
    say(&mut client, "failure", &[("x-failure-reason", "exit 1"), ("x-settle", "retry")], b"no paper").await;
    client.declare("other", false).await;
    let shown = desk.get("/queues/%2F/q/messages?state=delayed").await;
    let failure = &shown["items"][0]["failure"];
    assert_eq!((&failure["reason"], &failure["details"]), (&json!("exit 1"), &json!("no paper")));
    assert!(failure["time"].as_u64().unwrap() > 1_700_000_000_000, "{failure}");
}

async fn delay(desk: &Desk, name: &str, payload: &str, ms: u64) {
    let message = json!({
        "properties": {"headers": {"x-delay": ms}, "delivery_mode": 2}, "routing_key": name, "payload": payload,
        "payload_encoding": "string",
    });
    desk.send("POST", "/exchanges/%2F/amq.default/publish", message, 200).await;
}

#[tokio::test]
async fn dead_letters_that_nobody_has_taken_are_listed_with_why_and_where_to() {
    let desk = Desk::open().await;
    queue(&desk, "full", json!({"x-max-length": 0, "x-overflow": "reject-publish"})).await;
    let arguments = |key: Option<&str>| match key {
        Some(key) => {
            json!({"x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": key})
        }
        None => {
            json!({"x-message-ttl": 0, "x-dead-letter-exchange": "amq.direct", "x-dead-letter-strategy": "at-least-once"})
        }
    };
    queue(&desk, "q", arguments(Some("full"))).await;
    queue(&desk, "lost", arguments(None)).await;
    for payload in ["a", "b", "c"] {
        desk.publish("q", payload).await;
        desk.publish("lost", payload).await;
    }
    let look = async |queue: &str, query: &str| desk.get(&format!("/queues/%2F/{queue}/messages?{query}")).await;
    let page = look("q", "state=dlx&count=2").await;
    let items = page["items"].as_array().unwrap();
    let told: Vec<_> = items.iter().map(|item| (&item["payload"], &item["state"], &item["seq"])).collect();
    let dlx = json!("dlx");
    assert_eq!(told, [(&json!("a"), &dlx, &json!(1)), (&json!("b"), &dlx, &json!(2))], "{page}");
    let letter = &items[0]["dead_letter"];
    assert_eq!(
        (&letter["reason"], &letter["exchange"], &letter["routing_key"]),
        (&json!("expired"), &json!(""), &json!("full"))
    );
    assert!(letter["time"].as_u64().unwrap() > 1_700_000_000_000, "{letter}");
    let rest = look("q", &format!("from={}", page["next"].as_str().unwrap())).await;
    assert_eq!(
        (rest["items"].as_array().unwrap().len(), &rest["items"][0]["payload"], &rest["next"]),
        (1, &json!("c"), &Value::Null)
    );
    assert_eq!(look("q", "state=dlx&body=b").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(look("q", "state=ready").await["items"], json!([]));
    let one = desk.get("/queues/%2F/q/messages/2").await;
    assert_eq!((&one["payload"], &one["state"]), (&json!("b"), &dlx));
    let letter = look("lost", "state=dlx").await["items"][0]["dead_letter"].clone();
    assert_eq!((&letter["exchange"], &letter["routing_key"]), (&json!("amq.direct"), &json!("lost")), "its own key");

    for document in [json!({"all": true, "state": "dlx"}), json!({"all": true, "from": "dlx.0"})] {
        let refused = desk.send("POST", "/queues/%2F/q/messages/delete", document, 400).await.json();
        assert_eq!(refused["reason"], "dead letters that nobody has taken yet can be looked at only");
    }
    assert_eq!(desk.get("/queues/%2F/q").await["messages_dlx"], 3);
}

#[tokio::test]
async fn delayed_messages_are_listed_by_due_time_cancelled_and_released() {
    let desk = Desk::open().await;
    queue(&desk, "q", json!({})).await;
    queue(&desk, "other", json!({})).await;
    for (payload, ms) in [("c", 3_000_000), ("a", 1_000_000), ("d", 4_000_000), ("b", 2_000_000), ("e", 5_000_000)] {
        delay(&desk, "q", payload, ms).await;
    }
    desk.publish("q", "ready").await;
    let payloads = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["payload"].as_str().unwrap().to_owned()).collect()
    };
    let page = desk.get("/queues/%2F/q/messages?state=delayed&count=3").await;
    assert_eq!(payloads(&page), ["a", "b", "c"]);
    assert!(page["items"].as_array().unwrap().iter().all(|item| item["state"] == "delayed"), "{page}");
    let due: Vec<u64> = page["items"].as_array().unwrap().iter().map(|item| item["due_at"].as_u64().unwrap()).collect();
    assert!(due[0] + 900_000 < due[1] && due[1] + 900_000 < due[2], "{due:?}");
    let next = page["next"].as_str().unwrap();
    assert_eq!(payloads(&desk.get(&format!("/queues/%2F/q/messages?from={next}")).await), ["d", "e"]);
    assert_eq!(payloads(&desk.get("/queues/%2F/q/messages?state=delayed&body=d").await), ["d"]);
    assert_eq!(payloads(&desk.get("/queues/%2F/q/messages").await), ["ready"], "what is delayed is not ready");
    let one = desk.get("/queues/%2F/q/messages/2").await;
    assert_eq!((&one["payload"], &one["state"]), (&json!("a"), &json!("delayed")));

    let post = async |what: &str, document: Value| {
        desk.send("POST", &format!("/queues/%2F/q/messages/{what}"), document, 200).await.json()
    };
    assert_eq!(post("delete", json!({"seqs": [1]})).await["deleted"], 1);
    assert_eq!(post("release", json!({"filter": {"body": "d"}})).await["released"], 1);
    assert_eq!(post("release", json!({"seqs": [3, 6, 99]})).await["released"], 0, "they are not delayed");
    assert_eq!(
        post("move", json!({"filter": {"body": "e"}, "state": "delayed", "to_queue": "other"})).await["moved"],
        1
    );
    let moved = desk.get("/queues/%2F/other/messages?state=delayed").await;
    assert_eq!(payloads(&moved), ["e"], "it waits there as well");
    let due_at = moved["items"][0]["due_at"].as_u64().unwrap();
    assert!(due_at.abs_diff(due[0] + 4_000_000) < 900_000, "{due_at}, {due:?}");
    assert_eq!(post("requeue", json!({"seqs": [4]})).await["requeued"], 1);
    // What never had a delay and what has become due leave in the order of whichever came first.
    let mut ready = payloads(&desk.get("/queues/%2F/q/messages").await);
    ready.sort();
    assert_eq!(ready, ["b", "d", "ready"]);
    assert_eq!(post("release", json!({"all": true})).await["released"], 1);
    let state = state_of(&desk, "q").await;
    assert_eq!((&state["messages_ready"], &state["messages_delayed"]), (&json!(4), &json!(0)));
    let refused =
        desk.send("POST", "/queues/%2F/q/messages/release", json!({"all": true, "state": "ready"}), 400).await;
    assert_eq!(refused.json()["reason"], "only delayed messages can be released");
    let refused = desk.send("POST", "/queues/%2F/q/messages/delete", json!({"all": true, "state": "late"}), 400).await;
    assert_eq!(refused.json()["reason"], "state must be ready, delayed, unacked or dlx");
}
