//! Who changed what.

use super::*;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

#[tokio::test]
async fn each_change_is_recorded_with_who_made_it_and_no_secret_and_outlives_the_server() {
    let desk = Desk::open().await;
    desk.user("app", "management", ["", "", ".*"]).await;
    let secret = json!({"password": "hunter2", "tags": "policymaker"});
    desk.send("PUT", "/users/other", secret, 201).await;
    desk.send("PUT", "/parameters/shovel/%2F/s", json!({"value": {"src-uri": "amqp://u:hunter3@h"}}), 201).await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    let app = desk.browser("app");
    assert_eq!(app.ask("DELETE", "/queues/%2F/q", None).await.status, 401);
    assert_eq!(app.ask("GET", "/audit", None).await.status, 401, "not for everybody");
    desk.delete("/queues/%2F/q", 204).await;
    desk.get("/queues").await;
    let entries = desk.get("/audit").await;
    let told: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| [&entry["user"], &entry["what"], &entry["outcome"]].map(|text| text.as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ["guest", "DELETE /api/queues///q", "done"],
            ["app", "DELETE /api/queues///q", "refused: 401 Unauthorized"],
            ["guest", "PUT /api/queues///q", "done"],
            ["guest", "PUT /api/parameters/shovel///s", "done"],
            ["guest", "PUT /api/users/other", "done"],
            ["guest", "PUT /api/permissions///app", "done"],
            ["guest", "PUT /api/users/app", "done"],
        ],
        "the newest first, and who only looks is not there"
    );
    assert_eq!(entries[4]["details"], json!({"tags": "policymaker"}));
    assert_eq!(entries[5]["details"], json!({"configure": "", "write": "", "read": ".*"}));
    assert!(entries[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(entries[0]["time"].as_str().unwrap().ends_with('Z'));
    let desk = desk.again().await;
    assert_eq!(desk.get("/audit").await, entries);
    let page = desk.get("/audit?page=2&page_size=3&user=guest").await;
    assert_eq!((&page["total_count"], &page["page_count"], &page["items"][0]), (&json!(6), &json!(2), &entries[4]));
    let file = std::fs::read_to_string(desk.directory.path().join("data/audit.log")).unwrap();
    assert!(!file.contains("hunter") && !file.contains("pw"), "{file}");
}

/// All entries, once there are so many.
async fn entries_of(desk: &Desk, count: usize) -> Value {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let entries = desk.get("/audit").await;
        if entries.as_array().unwrap().len() >= count {
            return entries;
        }
        assert!(tokio::time::Instant::now() < until, "{count} are awaited: {entries}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn failed_logins_are_recorded_with_where_they_came_from() {
    let desk = Desk::open().await;
    desk.connect("nobody:s3cret", "%2f").await.unwrap_err();
    assert_eq!(desk.browser("stranger").ask("GET", "/overview", None).await.status, 401);
    let entries = entries_of(&desk, 2).await;
    for (entry, user, what) in [(&entries[0], "stranger", "login Basic"), (&entries[1], "nobody", "login PLAIN")] {
        assert_eq!((entry["user"].as_str(), entry["what"].as_str()), (Some(user), Some(what)));
        assert_eq!(entry["peer"], "127.0.0.1");
        assert!(
            entry["outcome"].as_str().unwrap().starts_with(&format!("refused: user '{user}' - invalid credentials"))
        );
    }
    assert!(!entries.to_string().contains("s3cret"));
}

#[tokio::test]
async fn what_clients_change_that_lasts_is_recorded_and_what_comes_and_goes_is_not() {
    let desk = Desk::open().await;
    let connection = desk.connect("guest:guest", "%2f").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (durable, none) = (QueueDeclareOptions { durable: true, ..Default::default() }, FieldTable::default);
    for _ in 0..2 {
        channel.queue_declare("jobs".into(), durable, none()).await.unwrap();
    }
    channel.queue_declare("passing".into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let exclusive = QueueDeclareOptions { exclusive: true, ..durable };
    channel.queue_declare("".into(), exclusive, none()).await.unwrap();
    let kept = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("logs".into(), ExchangeKind::Topic, kept, none()).await.unwrap();
    for _ in 0..2 {
        channel.queue_bind("jobs".into(), "logs".into(), "a.#".into(), Default::default(), none()).await.unwrap();
    }
    channel.queue_bind("passing".into(), "logs".into(), "b".into(), Default::default(), none()).await.unwrap();
    channel.basic_publish("".into(), "jobs".into(), Default::default(), b"x", Default::default()).await.unwrap();
    channel.queue_unbind("jobs".into(), "logs".into(), "a.#".into(), none()).await.unwrap();
    channel.queue_delete("passing".into(), Default::default()).await.unwrap();
    channel.queue_delete("jobs".into(), Default::default()).await.unwrap();
    channel.exchange_delete("logs".into(), Default::default()).await.unwrap();
    desk.send("PUT", "/queues/%2F/by-request", json!({"durable": true}), 201).await;
    let expected = json!([
        ["PUT /api/queues///by-request", {"durable": true}],
        ["exchange.delete logs", {"vhost": "/"}],
        ["queue.delete jobs", {"vhost": "/", "messages": 1}],
        ["queue.unbind jobs", {"vhost": "/", "source": "logs", "routing_key": "a.#", "arguments": {}}],
        ["queue.bind jobs", {"vhost": "/", "source": "logs", "routing_key": "a.#", "arguments": {}}],
        ["exchange.declare logs", {"vhost": "/", "type": "topic", "arguments": {}}],
        ["queue.declare jobs", {"vhost": "/", "arguments": {}}],
    ]);
    let entries = entries_of(&desk, expected.as_array().unwrap().len()).await;
    let told: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| json!([entry["what"], entry["details"]])).collect();
    assert_eq!(json!(told), expected);
    assert_eq!((&entries[1]["user"], &entries[1]["outcome"]), (&json!("guest"), &json!("done")));
    assert!(entries[1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let desk = desk.again().await;
    assert_eq!(desk.get("/audit").await, entries);
    assert_eq!(desk.get("/audit?page=2&page_size=3").await["items"][0], entries[3]);
}
