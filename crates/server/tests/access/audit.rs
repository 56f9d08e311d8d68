//! Who changed what.

use super::*;

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

#[tokio::test]
async fn failed_logins_are_recorded_with_where_they_came_from() {
    let desk = Desk::open().await;
    desk.connect("nobody:s3cret", "%2f").await.unwrap_err();
    assert_eq!(desk.browser("stranger").ask("GET", "/overview", None).await.status, 401);
    let entries = loop {
        let entries = desk.get("/audit").await;
        if entries.as_array().unwrap().len() == 2 {
            break entries;
        }
        tokio::task::yield_now().await;
    };
    for (entry, user, what) in [(&entries[0], "stranger", "login Basic"), (&entries[1], "nobody", "login PLAIN")] {
        assert_eq!((entry["user"].as_str(), entry["what"].as_str()), (Some(user), Some(what)));
        assert_eq!(entry["peer"], "127.0.0.1");
        assert!(
            entry["outcome"].as_str().unwrap().starts_with(&format!("refused: user '{user}' - invalid credentials"))
        );
    }
    assert!(!entries.to_string().contains("s3cret"));
}
