//! What workers say of their jobs, as a client sees it: `amq.leveret.failure` and `amq.leveret.progress`.

use super::real_client::*;
use super::*;
use lapin::options::{BasicNackOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Confirmation};

/// Says something of a delivery; whether the broker took it.
async fn say(channel: &Channel, word: &str, fields: &[(&str, AMQPValue)], details: &[u8]) -> bool {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_headers(table(fields));
    let key = format!("amq.leveret.{word}");
    let confirm = channel.basic_publish("".into(), key.into(), options, details, properties).await.unwrap();
    match confirm.await.unwrap() {
        Confirmation::Ack(returned) => returned.is_none(),
        other => panic!("{other:?}"),
    }
}

fn tag(tag: u64) -> (&'static str, AMQPValue) {
    ("x-delivery-tag", AMQPValue::LongLongInt(tag.try_into().unwrap()))
}

fn header_text(properties: &BasicProperties, name: &str) -> Option<String> {
    let headers = properties.headers().as_ref()?;
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

async fn declare_with_graves(channel: &Channel) {
    let arguments = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("graves")),
        ("x-delivery-limit", AMQPValue::LongInt(2)),
    ];
    declare(channel, "tasks", &arguments).await;
    declare(channel, "graves", &[]).await;
}

#[tokio::test]
async fn a_job_that_is_given_up_is_dead_lettered_with_the_reason_in_one_message() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel).await;
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    for job in ["one", "two"] {
        publish(&channel, ("", "tasks"), job, BasicProperties::default()).await;
    }
    let mut consumer = consume(&channel, "tasks").await;
    let delivery = next(&mut consumer).await;
    let reason = [tag(delivery.delivery_tag), ("x-failure-reason", text("exit 65")), ("x-settle", text("dead-letter"))];
    assert!(say(&channel, "failure", &reason, b"Traceback: no such user").await);
    // It is settled, and so there is room for the next one.
    let second = next(&mut consumer).await;
    assert_eq!(body(&second), "two");
    let dead = next(&mut consume(&open(&server).await, "graves").await).await;
    assert_eq!(body(&dead), "one");
    assert_eq!(header_text(&dead.properties, "x-failure-reason").as_deref(), Some("exit 65"));
    assert_eq!(header_text(&dead.properties, "x-failure-details").as_deref(), Some("Traceback: no such user"));
    assert!(matches!(
        dead.properties.headers().as_ref().unwrap().inner().get("x-failure-time"),
        Some(AMQPValue::Timestamp(seconds)) if *seconds > 1_700_000_000
    ));
    // What is settled is nothing that could be spoken of.
    assert!(!say(&channel, "failure", &reason, b"").await);
    assert!(!say(&channel, "progress", &[tag(1), ("x-progress", text("late"))], b"").await);
    assert!(say(&channel, "progress", &[tag(second.delivery_tag), ("x-progress", AMQPValue::Double(12.5))], b"").await);
}

#[tokio::test]
async fn a_job_that_is_tried_again_counts_it_and_tells_why_when_it_dies_at_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel).await;
    publish(&channel, ("", "tasks"), "job", BasicProperties::default()).await;
    let mut consumer = consume(&channel, "tasks").await;
    for attempt in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(header(&delivery.properties, "x-delivery-count"), (attempt > 0).then_some(attempt));
        let reason = ("x-failure-reason", text(&format!("attempt {attempt}")));
        let mut fields = vec![tag(delivery.delivery_tag), reason];
        // The last one says it, and is given back in the old way.
        if attempt < 2 {
            fields.push(("x-settle", text("retry")));
        }
        assert!(say(&channel, "failure", &fields, &[b'x'; 20_000]).await);
        if attempt == 2 {
            delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        }
    }
    let dead = next(&mut consume(&open(&server).await, "graves").await).await;
    assert_eq!(header_text(&dead.properties, "x-failure-reason").as_deref(), Some("attempt 2"));
    assert_eq!(header_text(&dead.properties, "x-failure-details").unwrap().len(), 8192);
}

#[tokio::test]
async fn a_job_that_was_not_begun_goes_back_as_if_it_had_not_been_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel).await;
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    publish(&channel, ("", "tasks"), "job", BasicProperties::default()).await;
    let mut consumer = consume(&channel, "tasks").await;
    // More often than the limit of failed deliveries.
    for _ in 0..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.redelivered, header(&delivery.properties, "x-delivery-count")), (false, None));
        assert!(say(&channel, "return", &[tag(delivery.delivery_tag)], b"").await);
        assert!(!say(&channel, "return", &[tag(delivery.delivery_tag)], b"").await);
    }
    assert_eq!(body(&next(&mut consumer).await), "job");
}

#[tokio::test]
async fn the_reason_is_on_disk_with_the_return_of_its_message() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel).await;
    publish(&channel, ("", "tasks"), "job", BasicProperties::default()).await;
    let delivery = next(&mut consume(&channel, "tasks").await).await;
    let fields = [tag(delivery.delivery_tag), ("x-failure-reason", text("no route")), ("x-settle", text("retry"))];
    assert!(say(&channel, "failure", &fields, b"").await);
    channel.close(200, "done".into()).await.unwrap();
    // So that what came before is on disk.
    declare(&open(&server).await, "other", &[]).await;
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    let other = open_confirming(&killed).await;
    let delivery = next(&mut consume(&other, "tasks").await).await;
    // Its reason now is the last one that somebody said.
    delivery.acker.reject(Default::default()).await.unwrap();
    let dead = next(&mut consume(&other, "graves").await).await;
    assert_eq!(header_text(&dead.properties, "x-failure-reason").as_deref(), Some("no route"));
}

#[tokio::test]
async fn a_report_that_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let range = "header 'x-progress' must be text or a number from 0 to 100";
    for (word, fields, why) in [
        ("failure", vec![("x-failure-reason", text("why"))], "header 'x-delivery-tag' is missing"),
        ("failure", vec![tag(1)], "header 'x-failure-reason' is missing"),
        (
            "failure",
            vec![tag(1), ("x-failure-reason", AMQPValue::LongInt(1))],
            "header 'x-failure-reason' must be text",
        ),
        (
            "failure",
            vec![tag(1), ("x-failure-reason", text("why")), ("x-settle", text("shrug"))],
            "header 'x-settle' must be 'retry' or 'dead-letter'",
        ),
        ("return", vec![], "header 'x-delivery-tag' is missing"),
        ("progress", vec![tag(1)], "header 'x-progress' is missing"),
        ("progress", vec![tag(1), ("x-progress", AMQPValue::LongInt(101))], range),
        ("progress", vec![tag(1), ("x-progress", AMQPValue::Double(f64::NAN))], range),
    ] {
        let channel = open_confirming(&server).await;
        let properties = BasicProperties::default().with_headers(table(&fields));
        let key = format!("amq.leveret.{word}");
        let sent = channel.basic_publish("".into(), key.into(), Default::default(), b"", properties).await.unwrap();
        let refused = sent.await.unwrap_err().to_string();
        let expected = format!("PRECONDITION_FAILED - invalid {word} request: {why}");
        assert!(refused.contains(&expected), "{refused}");
    }
}
