//! Ways around a permission that are closed.

use super::*;

async fn status(browser: &Browser, method: &str, path: &str, document: Value) -> u16 {
    browser.ask(method, path, Some(&document)).await.status
}

#[tokio::test]
async fn who_declares_a_queue_anew_needs_the_right_to_send_its_dead_letters_where_they_go() {
    let desk = Desk::open().await;
    let update = json!({"pattern": "^q$", "definition": {"redeclare": "update"}});
    desk.send("PUT", "/policies/%2F/update", update, 201).await;
    desk.user("app", "management", ["^q$", "^amq\\.topic$", "^q$"]).await;
    let browser = desk.browser("app");
    let queue = |exchange: &str| json!({"durable": true, "arguments": {"x-dead-letter-exchange": exchange}});
    assert_eq!(status(&browser, "PUT", "/queues/%2F/q", json!({"durable": true})).await, 201);
    assert_eq!(status(&browser, "PUT", "/queues/%2F/q", queue("amq.topic")).await, 204);
    for exchange in ["amq.fanout", ""] {
        assert_eq!(status(&browser, "PUT", "/queues/%2F/q", queue(exchange)).await, 401, "{exchange:?}");
    }
    assert_eq!(desk.get("/queues/%2F/q").await["arguments"]["x-dead-letter-exchange"], "amq.topic");
}

#[tokio::test]
async fn a_redrive_to_wherever_messages_say_they_died_needs_the_right_to_put_messages_into_any_queue() {
    let desk = Desk::open().await;
    desk.user("app", "management", ["^q$", "", "^q$"]).await;
    desk.user("all", "management", ["^q$", "^amq\\.default$", "^q$"]).await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    let redrive = "/queues/%2F/q/redrive";
    assert_eq!(status(&desk.browser("app"), "POST", redrive, json!({})).await, 401);
    assert_eq!(status(&desk.browser("all"), "POST", redrive, json!({})).await, 202);
}

#[tokio::test]
async fn leases_of_other_vhosts_are_not_to_be_seen() {
    let desk = Desk::open().await;
    desk.send("PUT", "/vhosts/v", json!({}), 201).await;
    desk.user("app", "management", [".*", ".*", ".*"]).await;
    let mut clients = Vec::new();
    for vhost in ["%2f", "v"] {
        let client = desk.connect("guest:guest", vhost).await.unwrap();
        let channel = client.create_channel().await.unwrap();
        declare(&channel, "q").await.unwrap();
        publish(&channel, "", "q").await.unwrap();
        channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
        clients.push((client, channel));
    }
    let vhosts = |leases: Value| -> Vec<Value> {
        leases.as_array().unwrap().iter().map(|lease| lease["queue"]["vhost"].clone()).collect()
    };
    assert_eq!(vhosts(desk.get("/leases").await), ["/", "v"]);
    assert_eq!(vhosts(desk.browser("app").ask("GET", "/leases", None).await.json()), ["/"]);
}

#[tokio::test]
async fn further_keys_of_a_message_need_the_right_to_their_topic_over_http_too() {
    let desk = Desk::open().await;
    desk.user("app", "management", ["", "^amq\\.topic$", ""]).await;
    let topic = json!({"exchange": "amq.topic", "write": "^a$", "read": ""});
    desk.send("PUT", "/topic-permissions/%2F/app", topic, 201).await;
    let message = |header: &str, key: &str| json!({"properties": {"headers": {header: [key]}}, "routing_key": "a", "payload": "", "payload_encoding": "string"});
    for (header, key, expected) in [("CC", "a", 200), ("CC", "b", 401), ("BCC", "b", 401)] {
        let got = status(&desk.browser("app"), "POST", "/exchanges/%2F/amq.topic/publish", message(header, key)).await;
        assert_eq!(got, expected, "{header} {key}");
    }
}

#[tokio::test]
async fn what_a_policymaker_may_not_set_cannot_be_laid_by_as_a_parameter_for_an_import() {
    let desk = Desk::open().await;
    desk.user("maker", "policymaker", [".*", ".*", ".*"]).await;
    let policy = json!({"value": {"pattern": "", "definition": {"max-length": 0}}});
    for (component, expected) in [("operator_policy", 400), ("policy", 400), ("vhost-limits", 401), ("shovel", 201)] {
        let path = format!("/parameters/{component}/%2F/x");
        assert_eq!(status(&desk.browser("maker"), "PUT", &path, policy.clone()).await, expected, "{component}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing_with_its_readers_login() {
    let desk = Desk::open().await;
    for (site, expected) in [("cross-site", 401), ("same-site", 401), ("same-origin", 200), ("none", 200)] {
        let headers = [("Sec-Fetch-Site", site)];
        let answer = desk.admin.ask_with("POST", "/rebalance/queues", &headers).await;
        assert_eq!(answer.status < 300, expected == 200, "{site}: {} {}", answer.status, answer.text);
        assert_eq!(desk.admin.ask_with("GET", "/overview", &headers).await.status, 200, "{site}");
    }
}
