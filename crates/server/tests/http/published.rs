//! What was published: to which exchange, by which channel, and how large it was.

use super::*;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

async fn open(desk: &Desk) -> (Connection, Channel) {
    let url = format!("amqp://guest:guest@{}/%2f", desk.server.board().addresses().amqp[0]);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, (exchange, key): (&str, &str), body: &[u8], mandatory: bool) {
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default();
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap().await.unwrap();
}

/// A fanout exchange with two queues.
async fn logs(channel: &Channel) {
    let (options, none) = (ExchangeDeclareOptions::default(), FieldTable::default);
    channel.exchange_declare("logs".into(), ExchangeKind::Fanout, options, none()).await.unwrap();
    for queue in ["one", "two"] {
        channel.queue_declare(queue.into(), QueueDeclareOptions::default(), none()).await.unwrap();
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.into(), "logs".into(), "".into(), options, none()).await.unwrap();
    }
}

#[tokio::test]
async fn exchanges_tell_what_was_published_to_them_and_what_went_to_queues() {
    let desk = Desk::open().await;
    let (connection, channel) = open(&desk).await;
    logs(&channel).await;
    for _ in 0..20 {
        publish(&channel, ("logs", ""), b"x", false).await;
    }
    for _ in 0..3 {
        publish(&channel, ("", "one"), b"x", false).await;
    }
    publish(&channel, ("amq.direct", "nowhere"), b"x", false).await;
    publish(&channel, ("amq.direct", "nowhere"), b"x", true).await;
    desk.publish("one", "over HTTP").await;

    let check = async || {
        let logs = desk.get("/exchanges/%2F/logs").await;
        let stats = &logs["message_stats"];
        assert_eq!((&stats["publish_in"], &stats["publish_out"]), (&json!(20), &json!(40)));
        assert_eq!(stats["publish_in_details"], json!({"rate": 0.0}));
        let default = desk.get("/exchanges/%2F/amq.default").await;
        assert_eq!(default["message_stats"]["publish_in"], 4);
        let unroutable = desk.get("/exchanges/%2F/amq.direct").await;
        let stats = &unroutable["message_stats"];
        assert_eq!((&stats["publish_in"], &stats["publish_out"]), (&json!(2), &Value::Null));
        assert!(desk.get("/exchanges/%2F/amq.topic").await.get("message_stats").is_none(), "an idle one has none");
        let list = desk.get("/exchanges/%2F?columns=name,message_stats.publish_in").await;
        assert!(list.as_array().unwrap().contains(&json!({"name": "logs", "message_stats": {"publish_in": 20}})));
        assert!(
            desk.get("/exchanges?disable_stats=true")
                .await
                .as_array()
                .unwrap()
                .iter()
                .all(|exchange| { exchange.get("message_stats").is_none() })
        );
    };
    check().await;
    let incoming = desk.get("/exchanges/%2F/amq.direct").await["incoming"].clone();
    assert_eq!(incoming.as_array().unwrap().len(), 1);
    let stats = &incoming[0]["stats"];
    let told = ["publish", "confirm", "return_unroutable", "drop_unroutable"].map(|name| &stats[name]);
    assert_eq!(told, [&json!(2), &json!(2), &json!(1), &json!(1)]);
    let name = incoming[0]["channel_details"]["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E");
    let publishes = desk.get(&format!("/channels/{name}")).await["publishes"].clone();
    let of_logs =
        publishes.as_array().unwrap().iter().find(|one| one["exchange"] == json!({"name": "logs", "vhost": "/"}));
    assert_eq!(of_logs.unwrap()["stats"]["publish"], 20);

    connection.close(200, "".into()).await.unwrap();
    while desk.server.board().connections() > 0 {
        tokio::task::yield_now().await;
    }
    check().await;
    assert_eq!(desk.get("/exchanges/%2F/logs").await["incoming"], json!([]), "the channel is gone, what it did is not");

    desk.delete("/exchanges/%2F/logs", 204).await;
    desk.send("PUT", "/exchanges/%2F/logs", json!({"type": "fanout"}), 201).await;
    assert!(desk.get("/exchanges/%2F/logs").await.get("message_stats").is_none(), "it is another one");
}

#[tokio::test]
async fn a_rolled_back_publish_reaches_no_queue() {
    let desk = Desk::open().await;
    let (connection, first) = open(&desk).await;
    logs(&first).await;
    let channel = connection.create_channel().await.unwrap();
    channel.tx_select().await.unwrap();
    for commits in [false, true, true] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("logs".into(), "".into(), options, b"x", properties).await.unwrap();
        match commits {
            true => channel.tx_commit().await.unwrap(),
            false => channel.tx_rollback().await.unwrap(),
        }
    }
    let stats = desk.get("/exchanges/%2F/logs").await["message_stats"].clone();
    assert_eq!((&stats["publish_in"], &stats["publish_out"]), (&json!(3), &json!(4)));
}

#[tokio::test]
async fn metrics_tell_exchanges_and_sizes() {
    let desk = Desk::open().await;
    let (connection, channel) = open(&desk).await;
    logs(&channel).await;
    for bytes in [1, 100, 101, 5_000, 5_000, 5_000, 1] {
        publish(&channel, ("logs", ""), &vec![0; bytes], false).await;
    }
    publish(&channel, ("amq.direct", "nowhere"), b"x", true).await;
    let metrics = Browser::at_root(desk.server.board().addresses().metrics[0]);
    let has = async |path: &str, lines: &[String]| {
        let page = metrics.ask("GET", path, None).await.text;
        for line in lines {
            assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
        }
    };
    let sizes = |le: &str, count: u64| {
        format!("rabbitmq_message_size_bytes_bucket{{protocol=\"amqp091\",le=\"{le}\"}} {count}")
    };
    let sizes = [
        sizes("100", 4),
        sizes("1000", 5),
        sizes("10000", 8),
        sizes("100000000", 8),
        sizes("+Inf", 8),
        "rabbitmq_message_size_bytes_sum{protocol=\"amqp091\"} 15204".to_owned(),
        "rabbitmq_message_size_bytes_count{protocol=\"amqp091\"} 8".to_owned(),
    ];
    has("/metrics", &sizes).await;
    let of_exchange = |name: &str, exchange: &str, count: u64| {
        format!("rabbitmq_detailed_exchange_messages_{name}_total{{vhost=\"/\",exchange=\"{exchange}\"}} {count}")
    };
    let exchanges = [
        of_exchange("published", "logs", 7),
        of_exchange("confirmed", "logs", 7),
        of_exchange("unroutable_returned", "amq.direct", 1),
        of_exchange("unroutable_dropped", "amq.direct", 0),
    ];
    has("/metrics/detailed?family=exchange_metrics", &exchanges).await;
    let name = desk.get("/channels?columns=name").await[0]["name"].as_str().unwrap().to_owned();
    let line = format!(
        "rabbitmq_detailed_channel_messages_published_total{{channel=\"{name}\",vhost=\"/\",exchange=\"logs\"}} 7"
    );
    has("/metrics/detailed?family=channel_exchange_metrics", &[line]).await;
    connection.close(200, "".into()).await.unwrap();
    while desk.server.board().connections() > 0 {
        tokio::task::yield_now().await;
    }
    has("/metrics", &sizes).await;
    has("/metrics/detailed?family=exchange_metrics&family=channel_exchange_metrics", &exchanges).await;
}
