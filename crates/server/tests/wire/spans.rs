//! Traced messages: their context is carried through, and their spans are exported.

use super::collector::{Collector, Request, answered, attribute, spans_of};
use super::real_client::*;
use super::*;
use amqp::PropertyList;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use server::config::{Secret, Tracing};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const TO_TASKS: (&str, &str) = ("", "tasks");

fn traceparent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
    BasicProperties::default().with_headers(table(headers))
}

fn traced() -> BasicProperties {
    with(&[("traceparent", text(&traceparent()))])
}

fn tracing(collector: &Collector) -> Option<Tracing> {
    Some(Tracing { endpoint: Some(collector.url()), ..Tracing::default() })
}

async fn start_tracing(directory: &Path, collector: &Collector) -> Server {
    Server::start(Config { tracing: tracing(collector), ..config(directory) }).await.unwrap()
}

fn name(span: &Value) -> &str {
    span["name"].as_str().unwrap()
}

fn names(spans: &[Value]) -> Vec<&str> {
    spans.iter().map(name).collect()
}

/// Each span's name and the name of the span above it; that of the publisher is ``.
fn tree(spans: &[Value]) -> Vec<(&str, &str)> {
    let parent_of = |span: &Value| match span["parentSpanId"].as_str().unwrap() {
        PARENT => "",
        id => name(spans.iter().find(|span| span["spanId"] == id).expect("its parent is there")),
    };
    spans.iter().map(|span| (name(span), parent_of(span))).collect()
}

fn ns(span: &Value, key: &str) -> u64 {
    span[key].as_str().unwrap().parse().unwrap()
}

fn outcomes(spans: &[Value]) -> Vec<&str> {
    spans.iter().filter_map(|span| attribute(span, "leveret.outcome").as_str()).collect()
}

#[tokio::test]
async fn trace_context_is_carried_through_delays_redelivery_dead_letters_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))])
        .await;
    declare(&channel, "dead", &[]).await;
    let context = [("traceparent", text(&traceparent())), ("tracestate", text("vendor=opaque,other=1"))];
    let carried = |properties: &BasicProperties| {
        let headers = properties.headers().clone().unwrap();
        context.iter().all(|(name, value)| headers.inner().get(*name) == Some(value))
    };
    let with_delay: Vec<_> = context.iter().cloned().chain([("x-delay", AMQPValue::LongInt(20))]).collect();
    publish(&channel, TO_TASKS, "job", with(&with_delay)).await;
    let mut consumer = consume(&channel, "tasks").await;
    let delivery = next(&mut consumer).await;
    assert!(carried(&delivery.properties), "delayed: {:?}", delivery.properties);
    delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(delivery.redelivered && carried(&delivery.properties), "redelivered: {:?}", delivery.properties);
    delivery.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    eventually_places(&server, "dead", (1, 0, 0)).await;
    server.stop().await.unwrap();
    let (server, _) = start(directory.path()).await;
    let dead = get(&open(&server).await, "dead").await.unwrap();
    assert!(carried(&dead.delivery.properties), "dead, after a restart: {:?}", dead.delivery.properties);
}

#[tokio::test]
async fn a_traced_message_has_spans_from_its_publisher_to_its_acknowledgement() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    let before_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let headers = [("traceparent", text(&traceparent())), ("tracestate", text("vendor=opaque"))];
    let properties = with(&headers).with_message_id("job-1".into()).with_correlation_id("order-1".into());
    publish(&channel, TO_TASKS, "work", properties).await;
    let mut consumer = consume(&channel, "tasks").await;
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();

    let request = collector.request().await;
    assert!(request.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", request.head);
    assert!(request.head.contains("content-type: application/json\r\n"), "{}", request.head);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let service = &body["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(*service, json!({"key": "service.name", "value": {"stringValue": "leveret"}}));
    let mut spans = spans_of(&request.body);
    if spans.len() < 3 {
        spans.extend(collector.spans(3 - spans.len()).await);
    }
    assert_eq!(
        tree(&spans),
        [("publish tasks", ""), ("queue tasks", "publish tasks"), ("deliver tasks", "queue tasks")]
    );
    for span in &spans {
        assert_eq!((&span["traceId"], &span["traceState"]), (&json!(TRACE), &json!("vendor=opaque")));
        for (key, value) in [
            ("messaging.system", json!("rabbitmq")),
            ("messaging.destination.name", json!("tasks")),
            ("messaging.rabbitmq.destination.routing_key", json!("tasks")),
            ("messaging.message.id", json!("job-1")),
            ("messaging.message.conversation_id", json!("order-1")),
            ("messaging.message.body.size", json!("4")),
            ("client.address", json!("127.0.0.1")),
            ("leveret.vhost", json!("/")),
        ] {
            assert_eq!(*attribute(span, key), value, "{key} of {}", name(span));
        }
        assert_eq!(span["status"], json!({}), "{}", name(span));
    }
    let [publish, queue, deliver] = &spans[..] else { panic!("{spans:?}") };
    let operation = |span| attribute(span, "messaging.operation.name").as_str().unwrap();
    assert_eq!([publish, queue, deliver].map(operation), ["publish", "queue", "deliver"]);
    assert_eq!([publish, queue, deliver].map(|span| span["kind"].as_u64().unwrap()), [2, 1, 2]);
    assert_eq!([publish, queue, deliver].map(|span| span["flags"].as_u64().unwrap()), [0x301, 0x101, 0x101]);
    assert_eq!(outcomes(&spans), ["confirmed", "acknowledged"]);
    // They follow one another in time.
    assert!(before_ns <= ns(publish, "startTimeUnixNano"));
    assert!(ns(publish, "startTimeUnixNano") <= ns(queue, "startTimeUnixNano"));
    assert_eq!(ns(queue, "endTimeUnixNano"), ns(deliver, "startTimeUnixNano"));
    for span in &spans {
        assert!(ns(span, "startTimeUnixNano") <= ns(span, "endTimeUnixNano"), "{}", name(span));
    }
    eventually("they are counted", || server.board().exported_spans() == (3, 0)).await;
}

#[tokio::test]
async fn each_try_has_its_spans_and_so_has_a_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))])
        .await;
    declare(&channel, "dead", &[]).await;
    publish(&channel, TO_TASKS, "job", traced()).await;
    let mut consumer = consume(&channel, "tasks").await;
    next(&mut consumer).await.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    next(&mut consumer).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    eventually_places(&server, "dead", (1, 0, 0)).await;
    assert!(get(&channel, "dead").await.is_some());
    let spans = collector.spans(7).await;
    let publish = "publish tasks";
    assert_eq!(
        tree(&spans),
        [
            (publish, ""),
            ("queue tasks", publish),
            ("deliver tasks", "queue tasks"),
            ("queue tasks", publish),
            ("deliver tasks", "queue tasks"),
            ("queue dead", publish),
            ("deliver dead", "queue dead"),
        ]
    );
    assert_eq!(outcomes(&spans), ["confirmed", "requeued", "rejected", "sent"]);
    assert_eq!(spans[2]["status"], json!({"code": 2}));
    assert_eq!(*attribute(&spans[2], "error.type"), json!("requeued"));
    let redelivered = |span| attribute(span, "leveret.redelivered").as_bool().unwrap();
    assert_eq!([2, 4, 6].map(|at| redelivered(&spans[at])), [false, true, false]);
    assert_eq!(*attribute(&spans[6], "messaging.destination.name"), json!("dead"));
}

#[tokio::test]
async fn a_message_that_expires_into_another_queue_has_waited_since_its_publish() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    let to_tasks = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("tasks"))];
    let arguments = [&to_tasks[..], &[("x-message-ttl", AMQPValue::LongInt(30))]].concat();
    declare(&channel, "later", &arguments).await;
    declare(&channel, "tasks", &[]).await;
    let mut consumer = consume(&channel, "tasks").await;
    publish(&channel, ("", "later"), "job", traced()).await;
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    let spans = collector.spans(3).await;
    assert_eq!(
        tree(&spans),
        [("publish later", ""), ("queue tasks", "publish later"), ("deliver tasks", "queue tasks")]
    );
    let waited_ns = ns(&spans[1], "endTimeUnixNano") - ns(&spans[1], "startTimeUnixNano");
    assert!(waited_ns >= 29_000_000, "{waited_ns}");
}

#[tokio::test]
async fn only_messages_whose_trace_is_recorded_have_spans() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    let mut consumer = consume(&channel, "tasks").await;
    let parent = |value: AMQPValue| with(&[("traceparent", value)]);
    let untraced = [
        BasicProperties::default(),
        with(&[("other", AMQPValue::LongInt(1))]),
        parent(text(&traceparent().replace("-01", "-00"))),
        parent(text("")),
        parent(text("00-xyz")),
        parent(text(&"0".repeat(100_000))),
        parent(AMQPValue::LongInt(7)),
        parent(AMQPValue::ByteArray(traceparent().as_bytes().into())),
        parent(AMQPValue::FieldTable(table(&[("traceparent", text(&traceparent()))]))),
        with(&[("tracestate", text("vendor=1"))]),
    ];
    for properties in untraced {
        publish(&channel, TO_TASKS, "job", properties).await;
        next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    }
    // A state that must not be passed on is left out of spans that are told.
    let headers = [("traceparent", text(&traceparent())), ("tracestate", text(&"x".repeat(513)))];
    publish(&channel, TO_TASKS, "traced", with(&headers)).await;
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    let spans = collector.spans(3).await;
    assert_eq!(names(&spans), ["publish tasks", "queue tasks", "deliver tasks"]);
    assert!(spans.iter().all(|span| span["traceState"] == ""), "{spans:?}");
}

#[tokio::test]
async fn publishes_that_are_alike_to_the_octet_are_each_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    // A connection that has learnt the pattern of its publishes before messages are traced.
    let (server, address) = start(directory.path()).await;
    let place = std::sync::Arc::new(std::sync::Mutex::new(config(directory.path())));
    let read = std::sync::Arc::clone(&place);
    let read = Box::new(move || Ok((read.lock().unwrap().clone(), Vec::new())));
    server.board().on_reload(server::reload::Reload { read, log: Box::new(|_| {}) });
    let mut client = RawClient::connect(address).await;
    client.declare("tasks", false).await;
    let headers = [("traceparent", amqp::Value::from(traceparent().as_str()))].into_iter().collect();
    let list = PropertyList { headers: Some(headers), ..PropertyList::default() };
    for _message in 0..5 {
        client.publish_with("tasks", &list, b"before").await;
    }
    client.declare("tasks", false).await;
    place.lock().unwrap().tracing = tracing(&collector);
    let reloaded = server.board().reload().unwrap();
    assert_eq!(reloaded.changed, ["tracing.endpoint"]);
    // Not before it has heard of that.
    server.board().inspect_connections().await;
    for _message in 0..5 {
        client.publish_with("tasks", &list, b"traced").await;
    }
    assert_eq!(client.declare("tasks", false).await, 10);
    let spans = collector.spans(5).await;
    assert_eq!(names(&spans), ["publish tasks"; 5]);
    assert_eq!(outcomes(&spans), ["routed"; 5]);
    // What came before is delivered without a time in its queue; then what was traced, each with its own.
    client.consume("tasks").await;
    for _message in 0..10 {
        client.expect_delivery().await;
    }
    let ack = basic::Ack { delivery_tag: 0, multiple: true };
    client.send(CHANNEL, &Method::BasicAck(ack)).await;
    client.declare("tasks", false).await;
    let spans = collector.spans(15).await;
    let count = |name: &str| names(&spans).iter().filter(|found| **found == name).count();
    assert_eq!((count("queue tasks"), count("deliver tasks")), (5, 10));
    // And no more.
    place.lock().unwrap().tracing = None;
    server.board().reload().unwrap();
    server.board().inspect_connections().await;
    client.publish_with("tasks", &list, b"after").await;
    client.expect_delivery().await;
    place.lock().unwrap().tracing = tracing(&collector);
    server.board().reload().unwrap();
    server.board().inspect_connections().await;
    client.publish_with("unknown", &list, b"again").await;
    let spans = collector.spans(1).await;
    assert_eq!((names(&spans), outcomes(&spans)), (vec!["publish unknown"], vec!["unroutable"]));
}

#[tokio::test]
async fn a_delivery_ends_when_its_channel_does_and_a_publish_when_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    let full = [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))];
    declare(&channel, "tasks", &full).await;
    publish(&channel, TO_TASKS, "job", traced()).await;
    let options = lapin::options::BasicPublishOptions::default();
    let refused = channel.basic_publish("".into(), "tasks".into(), options, b"too much", traced());
    assert!(!refused.await.unwrap().await.unwrap().is_ack());
    let other = open(&server).await;
    let mut consumer = consume(&other, "tasks").await;
    let _held = next(&mut consumer).await;
    other.close(200, "bye".into()).await.unwrap();
    let spans = collector.spans(4).await;
    assert_eq!(names(&spans), ["publish tasks", "queue tasks", "publish tasks", "deliver tasks"]);
    assert_eq!(outcomes(&spans), ["confirmed", "refused", "abandoned"]);
    assert_eq!(spans[2]["status"], json!({"code": 2}));
}

#[tokio::test]
async fn settlements_of_every_kind_end_deliveries() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    for _message in 0..6 {
        publish(&channel, TO_TASKS, "job", traced()).await;
    }
    assert_eq!(collector.spans(6).await.len(), 6);
    let client = open(&server).await;
    client.tx_select().await.unwrap();
    let mut consumer = consume(&client, "tasks").await;
    let mut tags = Vec::new();
    for _message in 0..6 {
        tags.push(next(&mut consumer).await.delivery_tag);
    }
    assert_eq!(names(&collector.spans(6).await), ["queue tasks"; 6]);
    // What a transaction takes back has not happened.
    client.basic_ack(tags[2], BasicAckOptions { multiple: true }).await.unwrap();
    client.tx_rollback().await.unwrap();
    client.basic_ack(tags[1], BasicAckOptions { multiple: true }).await.unwrap();
    client.basic_reject(tags[3], BasicRejectOptions { requeue: false }).await.unwrap();
    client.tx_commit().await.unwrap();
    let spans = collector.spans(3).await;
    assert_eq!(outcomes(&spans), ["acknowledged", "acknowledged", "rejected"]);
    // A worker that has not begun gives one back, by the words of Leveret.
    let back = with(&[("x-delivery-tag", AMQPValue::LongLongInt(tags[2] as i64))]);
    let options = lapin::options::BasicPublishOptions::default();
    client.basic_publish("".into(), "amq.leveret.return".into(), options, b"", back).await.unwrap();
    next(&mut consumer).await;
    let spans = collector.spans(2).await;
    assert_eq!((names(&spans), outcomes(&spans)), (vec!["deliver tasks", "queue tasks"], vec!["returned"]));
    // All that is left goes back: one by one, and then because the client is gone.
    client.basic_recover(lapin::options::BasicRecoverOptions { requeue: true }).await.unwrap();
    for _message in 0..3 {
        next(&mut consumer).await;
    }
    let spans = collector.spans(6).await;
    assert_eq!(outcomes(&spans), ["requeued"; 3]);
    server.stop().await.unwrap();
    assert_eq!(outcomes(&collector.spans(3).await), ["abandoned"; 3]);
}

#[tokio::test]
async fn several_shards_confirm_one_publish() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let config = Config { tracing: tracing(&collector), shards: 4, ..config(directory.path()) };
    let server = Server::start(config).await.unwrap();
    let channel = open_confirming(&server).await;
    for queue in 0..8 {
        let queue = format!("q{queue}");
        declare(&channel, &queue, &[]).await;
        let bind = lapin::options::QueueBindOptions::default();
        channel
            .queue_bind(queue.as_str().into(), "amq.fanout".into(), "".into(), bind, FieldTable::default())
            .await
            .unwrap();
    }
    publish(&channel, ("amq.fanout", "key"), "job", traced()).await;
    for queue in 0..8 {
        assert!(get(&channel, &format!("q{queue}")).await.is_some());
    }
    let spans = collector.spans(17).await;
    assert_eq!(name(&spans[0]), "publish amq.fanout:key");
    assert_eq!(outcomes(&spans)[0], "confirmed");
    assert_eq!(tree(&spans).iter().filter(|(_, parent)| *parent == "publish amq.fanout:key").count(), 8);
    let destination = attribute(&spans[2], "messaging.destination.name").as_str().unwrap();
    assert!(destination.starts_with("amq.fanout:key:q"), "{destination}");
}

#[tokio::test]
async fn after_a_restart_a_delivery_is_below_its_publisher_and_its_time_in_the_queue_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    publish(&channel, TO_TASKS, "job", traced()).await;
    // What has not been sent is sent at the end.
    server.stop().await.unwrap();
    assert_eq!(names(&collector.spans(1).await), ["publish tasks"]);
    let server = start_tracing(directory.path(), &collector).await;
    assert!(get(&open(&server).await, "tasks").await.is_some());
    assert_eq!(tree(&collector.spans(1).await), [("deliver tasks", "")]);
}

/// Publishes, and what is told of it.
async fn tell(channel: &Channel, key: &str) {
    publish(channel, ("", key), "job", traced()).await;
}

fn told(request: &Request) -> Vec<String> {
    names(&spans_of(&request.body)).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_collector_that_has_no_time_or_answers_rubbish_is_asked_again_and_one_that_refuses_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let channel = open_confirming(&server).await;
    for queue in ["a", "b", "c", "d"] {
        declare(&channel, queue, &[]).await;
    }
    collector.answer(answered("429 Too Many Requests\r\nRetry-After: 0", ""));
    collector.answer(answered("503 Service Unavailable\r\nRetry-After: 0", "busy"));
    collector.answer("SSH-2.0-OpenSSH\r\n");
    collector.answer(answered("200 OK", "{}"));
    tell(&channel, "a").await;
    for _try in 0..4 {
        assert_eq!(told(&collector.request().await), ["publish a"]);
    }
    eventually("it is exported", || server.board().exported_spans() == (1, 0)).await;
    for (status, key) in [("500 Internal Server Error", "b"), ("400 Bad Request", "c"), ("302 Found", "d")] {
        collector.answer(answered(status, "no"));
        tell(&channel, key).await;
        assert_eq!(told(&collector.request().await), [format!("publish {key}")]);
    }
    eventually("the refused are counted", || server.board().exported_spans() == (1, 3)).await;
    collector.answer(answered("200 OK", r#"{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}"#));
    tell(&channel, "a").await;
    assert_eq!(told(&collector.request().await), ["publish a"]);
    eventually("the rejected are counted", || server.board().exported_spans() == (1, 4)).await;
    // An answer that never ends, or is longer than anything that is said in one, is none.
    collector.answer(answered("200 OK", &"x".repeat(1 << 20)));
    tell(&channel, "b").await;
    for _try in 0..2 {
        assert_eq!(told(&collector.request().await), ["publish b"]);
    }
    eventually("it is exported", || server.board().exported_spans() == (2, 4)).await;
}

#[tokio::test]
async fn messages_go_on_while_the_collector_is_silent_and_a_stop_does_not_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let server = start_tracing(directory.path(), &collector).await;
    let url = format!("amqp://guest:guest@{}/%2f", server.board().addresses().amqp[0]);
    let connection = lapin::Connection::connect(&url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    declare(&channel, "tasks", &[]).await;
    collector.answer("");
    tell(&channel, "tasks").await;
    collector.request().await;
    let mut consumer = consume(&channel, "tasks").await;
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    for _message in 0..100 {
        tell(&channel, "tasks").await;
        next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    }
    // Clients are waited for; it is the collector that is not.
    connection.close(200, "done".into()).await.unwrap();
    let asked = Instant::now();
    server.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_collector_that_comes_later_gets_what_there_was_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let place = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let tracing = Some(Tracing { endpoint: Some(format!("http://{address}/")), ..Tracing::default() });
    let server = Server::start(Config { tracing, ..config(directory.path()) }).await.unwrap();
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    tell(&channel, "tasks").await;
    // The second gets in line behind the first.
    tell(&channel, "tasks").await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut collector = Collector::listen(listener, super::collector::Plain);
    assert_eq!(names(&collector.spans(2).await), ["publish tasks"; 2]);
    eventually("both are exported", || server.board().exported_spans() == (2, 0)).await;
}

#[tokio::test]
async fn headers_for_the_collector_are_sent_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().await;
    let headers = [("Authorization".to_owned(), Secret::new("Bearer sesame"))].into_iter().collect();
    let tracing = Tracing {
        traces_endpoint: Some(format!("{}/otlp?key=sesame", collector.url())),
        headers: Some(headers),
        service_name: Some("orders".to_owned()),
        ..Tracing::default()
    };
    let config = Config { tracing: Some(tracing), ..config(directory.path()) };
    let shown = format!("{:?}", config.tracing);
    assert!(!shown.contains("sesame"), "{shown}");
    let server = Server::start(config).await.unwrap();
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    tell(&channel, "tasks").await;
    let request = collector.request().await;
    assert!(request.head.starts_with("post /otlp?key=sesame http/1.1\r\n"), "{}", request.head);
    assert!(request.head.contains("\r\nauthorization: bearer sesame\r\n"), "{}", request.head);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let service = &body["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(*service, json!({"key": "service.name", "value": {"stringValue": "orders"}}));
    assert!(!format!("{:?}", server.board()).contains("sesame"), "the switchboard names no secret");
}
