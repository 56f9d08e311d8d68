//! Corners in which clients can tell one broker from another: answers compared with RabbitMQ's.

use super::real_client::*;
use super::*;
use lapin::options::{
    BasicPublishOptions, BasicRejectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

/// What the server said when it closed the channel.
fn refusal<T: std::fmt::Debug>(result: lapin::Result<T>) -> String {
    match result.unwrap_err().kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        other => panic!("{other:?}"),
    }
}

async fn declare_again(server: &Server, queue: &str, arguments: &[(&str, AMQPValue)]) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    open(server).await.queue_declare(queue.into(), options, table(arguments)).await.map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
}

#[tokio::test]
async fn line_ends_are_no_part_of_a_name_that_is_declared_bound_or_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let channel = open_confirming(&server).await;
    declare(&channel, "jo\nbs", &[]).await;
    let (direct, options) = (ExchangeKind::Direct, ExchangeDeclareOptions::default());
    channel.exchange_declare("e\nvents".into(), direct, options, FieldTable::default()).await.unwrap();
    bind(&channel, "jobs\r\n", "even\nts", "k").await.unwrap();
    publish(&channel, ("events", "k"), "bound", BasicProperties::default()).await;
    assert_eq!(get(&channel, "jobs").await.unwrap().delivery.data, b"bound");
    let unbind = channel.queue_unbind("j\nobs".into(), "events\n".into(), "k".into(), FieldTable::default());
    unbind.await.unwrap();
    channel.exchange_delete("\nevents".into(), Default::default()).await.unwrap();
    assert_eq!(refusal(bind(&channel, "jobs", "events", "k").await), "NOT_FOUND - no exchange 'events' in vhost '/'");
    let channel = open(&server).await;
    channel.queue_delete("jobs\n".into(), Default::default()).await.unwrap();
    assert_eq!(refusal(bind(&channel, "jobs", "amq.direct", "k").await), "NOT_FOUND - no queue 'jobs' in vhost '/'");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_passive_declaration_without_a_name_means_no_queue() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let channel = open(&server).await;
    declare(&channel, "jobs", &[]).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare("".into(), options, FieldTable::default()).await;
    assert_eq!(refusal(found), "NOT_FOUND - no queue '' in vhost '/'");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn anyone_may_unbind_an_exclusive_queue_from_where_it_is_not_bound() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let (owner, other) = (open(&server).await, open(&server).await);
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    owner.queue_declare("mine".into(), options, FieldTable::default()).await.unwrap();
    let unbind = |key: &str| other.queue_unbind("mine".into(), "amq.direct".into(), key.into(), FieldTable::default());
    bind(&owner, "mine", "amq.direct", "k").await.unwrap();
    unbind("other").await.unwrap();
    assert!(refusal(unbind("k").await).starts_with("RESOURCE_LOCKED - "));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn arguments_of_other_types_differ_as_they_do_to_rabbitmq() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let channel = open(&server).await;
    let declared = || [("x-message-ttl", AMQPValue::LongInt(5)), ("x-dead-letter-exchange", text("x"))];
    declare(&channel, "jobs", &declared()).await;
    for same in [AMQPValue::Timestamp(5), AMQPValue::LongLongInt(5)] {
        declare_again(&server, "jobs", &[("x-message-ttl", same), declared()[1].clone()]).await.unwrap();
    }
    let octets = AMQPValue::ByteArray(b"x".as_slice().into());
    declare_again(&server, "jobs", &[declared()[0].clone(), ("x-dead-letter-exchange", octets)]).await.unwrap();
    let told = async |arguments: &[(&str, AMQPValue)]| {
        let told = refusal(declare_again(&server, "jobs", arguments).await);
        told.strip_prefix("PRECONDITION_FAILED - inequivalent arg ")
            .unwrap()
            .replace(" for queue 'jobs' in vhost '/'", "")
    };
    let void = [("x-message-ttl", AMQPValue::Void)];
    assert_eq!(told(&void).await, "'x-message-ttl': received none but current is '5'");
    let number = [("x-queue-type", AMQPValue::LongInt(1))];
    assert_eq!(told(&number).await, "'x-queue-type': received '1' but current is 'classic'");
    let two = [declared()[0].clone(), ("x-max-length", AMQPValue::LongInt(1)), ("x-dead-letter-exchange", text("y"))];
    assert_eq!(told(&two).await, "'x-dead-letter-exchange': received 'y' but current is 'x'", "the first in its order");
    let wrong = [("x-max-priority", text("high")), ("x-dead-letter-routing-key", text("k"))];
    let told = refusal(declare_again(&server, "new", &wrong).await);
    assert!(told.contains("invalid arg 'x-dead-letter-routing-key'"), "{told}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn copies_have_no_part_in_a_dead_letter_that_its_queues_own_key_addressed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let channel = open_confirming(&server).await;
    let to_default = ("x-dead-letter-exchange", text(""));
    declare(&channel, "work", &[to_default.clone(), ("x-dead-letter-routing-key", text("parked"))]).await;
    // What dies here goes by the key that it came with.
    declare(&channel, "parked", &[("x-dead-letter-exchange", text("amq.fanout"))]).await;
    declare(&channel, "again", &[to_default]).await;
    for queue in ["last", "copy"] {
        declare(&channel, queue, &[]).await;
    }
    bind(&channel, "again", "amq.fanout", "").await.unwrap();
    let copies = AMQPValue::FieldArray(vec![text("copy")].into());
    let headers = table(&[("CC", copies)]);
    publish(&channel, ("", "work"), "m", BasicProperties::default().with_headers(headers)).await;
    assert!(get(&channel, "copy").await.is_some(), "the publish had copies");
    for queue in ["work", "parked"] {
        let mut consumer = consume(&channel, queue).await;
        next(&mut consumer).await.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    }
    let mut consumer = consume(&channel, "again").await;
    let delivery = next(&mut consumer).await;
    let headers = delivery.properties.headers().clone().unwrap();
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("{headers:?}") };
    let keys = deaths.as_slice().iter().map(|death| match death {
        AMQPValue::FieldTable(death) => death.inner().get("routing-keys").cloned(),
        _ => None,
    });
    let keys: Vec<_> = keys.collect();
    let only = |keys: &[&str]| Some(AMQPValue::FieldArray(keys.iter().map(|key| text(key)).collect::<Vec<_>>().into()));
    assert_eq!(keys, [only(&["parked"]), only(&["work", "copy"])]);
    delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let mut parked = consume(&channel, "parked").await;
    drop(next(&mut parked).await);
    assert!(get(&channel, "copy").await.is_none(), "it went by one key");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_returned_message_has_no_bcc_header() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).await.unwrap();
    let channel = open_confirming(&server).await;
    let nowhere = || AMQPValue::FieldArray(vec![text("nowhere")].into());
    let headers = table(&[("BCC", nowhere()), ("CC", nowhere()), ("n", AMQPValue::LongInt(1))]);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_headers(headers);
    let published = channel.basic_publish("".into(), "gone".into(), options, b"m", properties).await.unwrap();
    let returned = published.await.unwrap().take_message().unwrap();
    let expected = table(&[("CC", nowhere()), ("n", AMQPValue::LongInt(1))]);
    assert_eq!(*returned.delivery.properties.headers(), Some(expected));
    server.stop().await.unwrap();
}
