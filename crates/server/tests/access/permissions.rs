//! configure, write and read; topics.

use super::*;

fn refused(right: &str, what: &str) -> (u16, String) {
    (403, format!("ACCESS_REFUSED - {right} access to {what} in vhost '/' refused for user 'app'"))
}

/// What an open channel is worth: each refusal closes it.
async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.unwrap()
}

#[tokio::test]
async fn whoever_declares_and_deletes_needs_to_configure() {
    let desk = Desk::open().await;
    desk.user("app", "", ["^mine", "", ""]).await;
    let app = desk.client("app").await;
    declare(&channel(&app).await, "mine.q").await.unwrap();
    assert_eq!(refusal(declare(&channel(&app).await, "other.q").await), refused("configure", "queue 'other.q'"));
    let server_named = declare(&channel(&app).await, "").await;
    assert_eq!(refusal(server_named).0, 403, "the server's own names are names, too");
    let exchange = async |name: &str| {
        let options = ExchangeDeclareOptions::default();
        channel(&app).await.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await
    };
    exchange("mine.x").await.unwrap();
    assert_eq!(refusal(exchange("other.x").await), refused("configure", "exchange 'other.x'"));
    let delete = async |name: &str| channel(&app).await.queue_delete(name.into(), Default::default()).await;
    assert_eq!(refusal(delete("other.q").await), refused("configure", "queue 'other.q'"));
    delete("mine.q").await.unwrap();
    let delete = async |name: &str| channel(&app).await.exchange_delete(name.into(), Default::default()).await;
    assert_eq!(refusal(delete("other.x").await), refused("configure", "exchange 'other.x'"));
    delete("mine.x").await.unwrap();
}

#[tokio::test]
async fn whoever_publishes_needs_to_write() {
    let desk = Desk::open().await;
    desk.user("app", "", ["", "^(amq\\.topic|amq\\.default)$", ""]).await;
    let app = desk.client("app").await;
    publish(&channel(&app).await, "amq.topic", "k").await.unwrap();
    publish(&channel(&app).await, "", "q").await.unwrap();
    let direct = publish(&channel(&app).await, "amq.direct", "k").await;
    assert_eq!(refusal(direct), refused("write", "exchange 'amq.direct'"));
    desk.permit("%2F", "app", ["", "^amq\\.topic$", ""]).await;
    let default = publish(&channel(&app).await, "", "q").await;
    assert_eq!(refusal(default), refused("write", "exchange 'amq.default'"));
}

#[tokio::test]
async fn whoever_consumes_gets_or_purges_needs_to_read() {
    let desk = Desk::open().await;
    for queue in ["mine", "other"] {
        desk.send("PUT", &format!("/queues/%2F/{queue}"), json!({"durable": true}), 201).await;
    }
    desk.user("app", "", ["", "", "^mine$"]).await;
    let app = desk.client("app").await;
    let consume = async |queue: &str| {
        let options = BasicConsumeOptions::default();
        channel(&app).await.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.map(drop)
    };
    consume("mine").await.unwrap();
    assert_eq!(refusal(consume("other").await), refused("read", "queue 'other'"));
    assert_eq!(refusal(consume("missing").await), refused("read", "queue 'missing'"), "before it is looked for");
    let get = async |queue: &str| channel(&app).await.basic_get(queue.into(), BasicGetOptions::default()).await;
    get("mine").await.unwrap();
    assert_eq!(refusal(get("other").await), refused("read", "queue 'other'"));
    let purge = async |queue: &str| channel(&app).await.queue_purge(queue.into(), Default::default()).await;
    purge("mine").await.unwrap();
    assert_eq!(refusal(purge("other").await), refused("read", "queue 'other'"));
}

#[tokio::test]
async fn whoever_binds_needs_to_write_to_one_end_and_read_from_the_other() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    desk.send("PUT", "/exchanges/%2F/x", json!({"durable": true, "type": "fanout"}), 201).await;
    desk.user("app", "", ["", "^(q|x)$", "^amq\\.fanout$"]).await;
    let app = desk.client("app").await;
    let bind = async |queue: &str, exchange: &str| {
        let options = Default::default();
        channel(&app).await.queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default()).await
    };
    bind("q", "amq.fanout").await.unwrap();
    assert_eq!(refusal(bind("q", "amq.topic").await), refused("read", "exchange 'amq.topic'"));
    desk.permit("%2F", "app", ["", "^x$", ".*"]).await;
    assert_eq!(refusal(bind("q", "amq.topic").await), refused("write", "queue 'q'"));
    let unbind = channel(&app).await;
    let unbind = unbind.queue_unbind("q".into(), "amq.fanout".into(), "".into(), FieldTable::default()).await;
    assert_eq!(refusal(unbind), refused("write", "queue 'q'"));
    let bind = async |to: &str, from: &str| {
        let options = Default::default();
        channel(&app).await.exchange_bind(to.into(), from.into(), "".into(), options, FieldTable::default()).await
    };
    bind("x", "amq.fanout").await.unwrap();
    assert_eq!(refusal(bind("amq.direct", "amq.fanout").await), refused("write", "exchange 'amq.direct'"));
}

#[tokio::test]
async fn whoever_leads_messages_elsewhere_needs_to_read_here_and_write_there() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", "", "^readable"]).await;
    let app = desk.client("app").await;
    let declare = async |queue: &str| {
        let mut arguments = FieldTable::default();
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("amq.fanout".into()));
        channel(&app).await.queue_declare(queue.into(), QueueDeclareOptions::default(), arguments).await.map(drop)
    };
    assert_eq!(refusal(declare("q").await), refused("read", "queue 'q'"));
    assert_eq!(refusal(declare("readable").await), refused("write", "exchange 'amq.fanout'"));
    let exchange = async |name: &str| {
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString("amq.fanout".into()));
        let options = ExchangeDeclareOptions::default();
        channel(&app).await.exchange_declare(name.into(), ExchangeKind::Direct, options, arguments).await
    };
    assert_eq!(refusal(exchange("x").await), refused("read", "exchange 'x'"));
    assert_eq!(refusal(exchange("readable").await), refused("write", "exchange 'amq.fanout'"));
    desk.permit("%2F", "app", [".*", "^amq\\.fanout$", "^readable"]).await;
    declare("readable").await.unwrap();
    exchange("readable").await.unwrap();
}

#[tokio::test]
async fn a_passive_declare_needs_any_right() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    desk.user("app", "", ["", "", "^q$"]).await;
    let app = desk.client("app").await;
    let ask = async |name: &str| {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel(&app).await.queue_declare(name.into(), options, FieldTable::default()).await.map(drop)
    };
    ask("q").await.unwrap();
    assert_eq!(refusal(ask("other").await), refused("configure", "queue 'other'"));
}

#[tokio::test]
async fn a_permission_that_is_taken_back_is_gone_for_the_next_publish() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    let app = desk.client("app").await;
    let open = channel(&app).await;
    declare(&open, "q").await.unwrap();
    for _ in 0..5 {
        publish(&open, "", "q").await.unwrap();
    }
    desk.permit("%2F", "app", [".*", "^other$", ".*"]).await;
    assert_eq!(refusal(publish(&open, "", "q").await), refused("write", "exchange 'amq.default'"));
    desk.delete("/permissions/%2F/app", 204).await;
    assert_eq!(refusal(declare(&channel(&app).await, "q").await), refused("configure", "queue 'q'"));
    let again = desk.connect("app:pw", "%2f").await;
    let text = "NOT_ALLOWED - access to vhost '/' refused for user 'app'";
    assert_eq!(refusal(again), (530, text.to_owned()));
}

#[tokio::test]
async fn topic_permissions_bound_the_keys() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    let topic = json!({"exchange": "amq.topic", "write": "^{username}\\.", "read": "^{vhost}\\."});
    desk.send("PUT", "/topic-permissions/%2F/app", topic.clone(), 201).await;
    assert_eq!(desk.get("/topic-permissions/%2F/app").await[0]["write"], "^{username}\\.");
    let app = desk.client("app").await;
    publish(&channel(&app).await, "amq.topic", "app.k").await.unwrap();
    let refused = |right: &str, key: &str| {
        let text = format!(
            "ACCESS_REFUSED - {right} access to topic '{key}' in exchange topic 'amq.topic' in vhost '/' refused for user 'app'"
        );
        (403, text)
    };
    let other = publish(&channel(&app).await, "amq.topic", "appxk").await;
    assert_eq!(refusal(other), refused("write", "appxk"));
    publish(&channel(&app).await, "amq.direct", "appxk").await.unwrap();
    declare(&channel(&app).await, "q").await.unwrap();
    let bind = async |key: &str| {
        let (options, table) = (Default::default(), FieldTable::default());
        channel(&app).await.queue_bind("q".into(), "amq.topic".into(), key.into(), options, table).await
    };
    bind("/.x").await.unwrap();
    assert_eq!(refusal(bind("x").await), refused("read", "x"));
    let copies: FieldTable = {
        let mut table = FieldTable::default();
        let keys = vec![AMQPValue::LongString("secret".into())];
        table.insert("CC".into(), AMQPValue::FieldArray(keys.into()));
        table
    };
    let properties = BasicProperties::default().with_headers(copies);
    let copied = publish_as(&channel(&app).await, "amq.topic", "app.k", properties).await;
    assert_eq!(refusal(copied), refused("write", "secret"));
    desk.delete("/topic-permissions/%2F/app", 204).await;
    publish(&channel(&app).await, "amq.topic", "appxk").await.unwrap();
}

#[tokio::test]
async fn an_empty_pattern_allows_nothing() {
    let desk = Desk::open().await;
    desk.user("app", "", ["", "", ""]).await;
    let app = desk.client("app").await;
    assert_eq!(refusal(declare(&channel(&app).await, "q").await), refused("configure", "queue 'q'"));
}

#[tokio::test]
async fn only_an_impersonator_publishes_in_another_name() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    desk.user("actor", "impersonator", [".*", ".*", ".*"]).await;
    for (user, allowed) in [("app", false), ("actor", true)] {
        let client = desk.client(user).await;
        let properties = BasicProperties::default().with_user_id("guest".into());
        let after = publish_as(&channel(&client).await, "", "q", properties).await;
        assert_eq!(after.is_ok(), allowed, "{user}: {after:?}");
    }
}
