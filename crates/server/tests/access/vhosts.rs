//! Vhosts are made, limited and deleted with all that is in them.

use super::*;

#[tokio::test]
async fn what_is_in_a_vhost_is_nobody_elses_and_outlives_the_server() {
    let desk = Desk::open().await;
    let vhost = json!({"description": "Tests", "tags": "a,b", "default_queue_type": "quorum"});
    desk.send("PUT", "/vhosts/tests", vhost, 201).await;
    assert_eq!(desk.get("/vhosts/tests/permissions").await[0]["user"], "guest", "who makes a vhost may use it");
    desk.delete("/permissions/tests/guest", 204).await;
    let text = "NOT_ALLOWED - access to vhost 'tests' refused for user 'guest'";
    assert_eq!(refusal(desk.connect("guest:guest", "tests").await), (530, text.to_owned()));
    assert_eq!(refusal(desk.connect("guest:guest", "nov").await).1, "NOT_ALLOWED - vhost nov not found");
    desk.permit("tests", "guest", [".*", ".*", ".*"]).await;
    let channel = desk.connect("guest:guest", "tests").await.unwrap().create_channel().await.unwrap();
    declare(&channel, "q").await.unwrap();
    publish(&channel, "", "q").await.unwrap();
    let bind =
        channel.queue_bind("q".into(), "amq.topic".into(), "k".into(), Default::default(), FieldTable::default());
    bind.await.unwrap();
    desk.send("PUT", "/policies/tests/p", json!({"pattern": "", "definition": {"max-length": 5}}), 201).await;
    let schedule = json!({"every_ms": 3_600_000, "routing_key": "q", "payload": "x", "exchange": ""});
    desk.send("PUT", "/schedules/tests/s", schedule, 201).await;
    assert_eq!(desk.get("/queues/%2F").await, json!([]));
    let desk = desk.again().await;
    let vhost = desk.get("/vhosts/tests").await;
    assert_eq!((&vhost["description"], &vhost["tags"]), (&json!("Tests"), &json!(["a", "b"])));
    let queue = desk.get("/queues/tests/q").await;
    assert_eq!((&queue["type"], &queue["policy"], &queue["vhost"]), (&json!("quorum"), &json!("p"), &json!("tests")));
    assert_eq!(desk.get("/schedules/tests").await.as_array().unwrap().len(), 1);
    assert_eq!(desk.get("/queues/tests/q/bindings").await.as_array().unwrap().len(), 2);
    let channel = desk.connect("guest:guest", "tests").await.unwrap().create_channel().await.unwrap();
    publish(&channel, "amq.topic", "k").await.unwrap();
    let got = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap();
    assert!(got.is_some());
}

#[tokio::test]
async fn a_deleted_vhost_takes_everything_along() {
    let desk = Desk::open().await;
    desk.send("PUT", "/vhosts/v", json!({}), 201).await;
    let connection = desk.connect("guest:guest", "v").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "q").await.unwrap();
    desk.send("PUT", "/exchanges/v/x", json!({"durable": true, "type": "direct"}), 201).await;
    desk.send("POST", "/bindings/v/e/x/q/q", json!({"routing_key": "k"}), 201).await;
    desk.send("PUT", "/policies/v/p", json!({"pattern": "", "definition": {"max-length": 5}}), 201).await;
    desk.send("PUT", "/parameters/shovel/v/s", json!({"value": {"a": 1}}), 201).await;
    let schedule = json!({"every_ms": 3_600_000, "routing_key": "q", "payload": "x", "exchange": ""});
    desk.send("PUT", "/schedules/v/s", schedule, 201).await;
    desk.delete("/vhosts/v", 204).await;
    let closed = timeout(Duration::from_secs(10), async {
        while connection.status().connected() {
            tokio::task::yield_now().await;
        }
    });
    closed.await.expect("its connections are closed");
    for desk in [desk.again().await] {
        for path in ["/queues", "/policies", "/parameters", "/schedules"] {
            assert_eq!(desk.get(path).await, json!([]), "{path}");
        }
        assert_eq!(desk.get("/permissions").await.as_array().unwrap().len(), 1);
        assert_eq!(desk.get("/exchanges").await.as_array().unwrap().len(), 7);
        desk.delete("/vhosts/v", 404).await;
        // Another of that name begins anew.
        desk.send("PUT", "/vhosts/v", json!({}), 201).await;
        assert_eq!(desk.get("/queues/v").await, json!([]));
        desk.delete("/permissions/v/guest", 204).await;
        assert_eq!(refusal(desk.connect("guest:guest", "v").await).0, 530);
    }
}

#[tokio::test]
async fn the_first_vhost_can_be_deleted_and_stays_so() {
    let desk = Desk::open().await;
    desk.send("POST", "/vhosts/%2F/deletion/protection", json!({}), 204).await;
    let answer = desk.admin.ask("DELETE", "/vhosts/%2F", None).await;
    assert_eq!(answer.status, 412, "{}", answer.text);
    desk.delete("/vhosts/%2F/deletion/protection", 204).await;
    desk.send("PUT", "/queues/%2F/q", json!({"durable": true}), 201).await;
    desk.delete("/vhosts/%2F", 204).await;
    let desk = desk.again().await;
    assert_eq!(desk.get("/vhosts").await, json!([]));
    assert_eq!(refusal(desk.connect("guest:guest", "%2f").await).1, "NOT_ALLOWED - vhost / not found");
    desk.send("PUT", "/vhosts/%2F", json!({}), 201).await;
    let channel = desk.connect("guest:guest", "%2f").await.unwrap().create_channel().await.unwrap();
    declare(&channel, "q").await.unwrap();
}

#[tokio::test]
async fn a_vhost_has_no_more_connections_and_queues_than_it_may() {
    let desk = Desk::open().await;
    desk.send("PUT", "/vhost-limits/%2F/max-connections", json!({"value": 1}), 204).await;
    desk.send("PUT", "/vhost-limits/%2F/max-queues", json!({"value": 1}), 204).await;
    let connection = desk.connect("guest:guest", "%2f").await.unwrap();
    let text = "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) is reached";
    assert_eq!(refusal(desk.connect("guest:guest", "%2f").await), (530, text.to_owned()));
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "one").await.unwrap();
    declare(&channel, "one").await.unwrap();
    let text = "PRECONDITION_FAILED - cannot declare queue 'two': queue limit in vhost '/' (1) is reached";
    assert_eq!(refusal(declare(&channel, "two").await), (406, text.to_owned()));
    connection.close(200, "bye".into()).await.unwrap();
    let desk = desk.again().await;
    let limits = json!([{"vhost": "/", "value": {"max-connections": 1, "max-queues": 1}}]);
    assert_eq!(desk.get("/vhost-limits").await, limits);
    let path = "/parameters/vhost-limits/%2F/limits";
    assert_eq!(desk.get(path).await["value"], limits[0]["value"], "as RabbitMQ has it");
    assert_eq!(desk.get("/parameters").await, json!([desk.get(path).await]));
    desk.delete(path, 204).await;
    assert_eq!(desk.get("/vhost-limits").await, json!([]));
    desk.delete(path, 404).await;
    desk.send("PUT", path, json!({"value": limits[0]["value"]}), 201).await;
    desk.send("PUT", path, json!({"value": limits[0]["value"]}), 204).await;
    desk.send("PUT", "/parameters/vhost-limits/%2F/other", json!({"value": {}}), 400).await;
    assert_eq!(desk.get("/vhost-limits").await, limits);
    desk.delete("/vhost-limits/%2F/max-connections", 204).await;
    let (_one, two) =
        (desk.connect("guest:guest", "%2f").await.unwrap(), desk.connect("guest:guest", "%2f").await.unwrap());
    desk.send("PUT", "/vhost-limits/%2F/max-queues", json!({"value": -1}), 204).await;
    declare(&two.create_channel().await.unwrap(), "two").await.unwrap();
}
