//! The firehose, as clients see it.

use super::real_client::*;
use super::*;
use broker::command::{CatalogAsk, Outcome};
use broker::identity::IdentityAsk;
use lapin::message::BasicGetMessage;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};

async fn trace(server: &Server, is_traced: bool) {
    let ask = CatalogAsk::Identity(Box::new(IdentityAsk::TraceVhost { name: "/".to_owned(), is_traced }));
    let outcome = server.board().operator().ask(VhostId(0), ask).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
}

async fn bind(channel: &Channel, exchange: &str, key: &str) {
    let options = lapin::options::QueueBindOptions::default();
    let bound = channel.queue_bind("firehose".into(), exchange.into(), key.into(), options, FieldTable::default());
    bound.await.unwrap();
}

fn copied(message: &BasicGetMessage, name: &str) -> AMQPValue {
    let headers = message.delivery.properties.headers().as_ref().unwrap();
    headers.inner().get(name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[tokio::test]
async fn while_a_vhost_is_traced_what_passes_is_copied_and_copies_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    declare(&channel, "firehose", &[]).await;
    bind(&channel, "amq.rabbitmq.trace", "#").await;
    let typed = || BasicProperties::default().with_content_type("text/plain".into()).with_priority(3);
    for (is_traced, bodies) in [(false, ["1", "2"]), (true, ["3", "4"]), (false, ["5", "6"])] {
        trace(&server, is_traced).await;
        for body in bodies {
            publish(&channel, ("", "tasks"), body, typed()).await;
            assert_eq!(get(&channel, "tasks").await.unwrap().delivery.data, body.as_bytes());
        }
    }
    for body in ["3", "4"] {
        let published = get(&channel, "firehose").await.unwrap();
        assert_eq!(published.delivery.routing_key.as_str(), "publish.");
        assert_eq!(published.delivery.data, body.as_bytes());
        let queues = AMQPValue::FieldArray(vec![AMQPValue::LongString("tasks".into())].into());
        assert_eq!(copied(&published, "routed_queues"), queues);
        assert_eq!(copied(&published, "routing_keys"), queues);
        assert_eq!(copied(&published, "exchange_name"), AMQPValue::LongString("".into()));
        assert_eq!(copied(&published, "user"), AMQPValue::LongString("guest".into()));
        let AMQPValue::FieldTable(properties) = copied(&published, "properties") else { panic!("no table") };
        assert_eq!(properties.inner()["content_type"], AMQPValue::LongString("text/plain".into()));
        assert_eq!(properties.inner()["priority"], AMQPValue::LongInt(3));
        let delivered = get(&channel, "firehose").await.unwrap();
        assert_eq!(delivered.delivery.routing_key.as_str(), "deliver.tasks");
        assert_eq!(delivered.delivery.data, body.as_bytes());
        assert_eq!(copied(&delivered, "redelivered"), AMQPValue::LongInt(0));
        assert_eq!(copied(&delivered, "channel"), AMQPValue::LongInt(1));
    }
    assert!(get(&channel, "firehose").await.is_none(), "copies are not copied, nor what passed before and after");
}

#[tokio::test]
async fn connections_that_are_opened_later_and_consumers_are_traced_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    trace(&server, true).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    declare(&channel, "firehose", &[]).await;
    bind(&channel, "amq.rabbitmq.trace", "deliver.tasks").await;
    let other = open(&server).await;
    let mut tasks = consume(&other, "tasks").await;
    publish(&channel, ("", "tasks"), "1", BasicProperties::default()).await;
    next(&mut tasks).await;
    let mut copies = consume(&other, "firehose").await;
    assert_eq!(next(&mut copies).await.data, b"1");
}
