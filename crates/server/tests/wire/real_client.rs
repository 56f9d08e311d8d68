//! A client that people use (lapin), and servers that stop, or are killed, and come back.

use super::*;
use broker::policy::{AppliesTo, Pattern, Policy, PolicyKind};
use futures_lite::StreamExt;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};

pub(crate) use lapin::{Channel, Consumer};

/// A channel on a connection of its own.
pub(crate) async fn open(server: &Server) -> Channel {
    let address = server.board().addresses().amqp[0];
    let url = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

/// The same in confirm mode.
pub(crate) async fn open_confirming(server: &Server) -> Channel {
    let channel = open(server).await;
    channel.confirm_select(Default::default()).await.unwrap();
    channel
}

pub(crate) fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in fields {
        table.insert((*key).into(), value.clone());
    }
    table
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(crate) async fn declare(channel: &Channel, queue: &str, arguments: &[(&str, AMQPValue)]) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, table(arguments)).await.unwrap();
}

/// Publishes a persistent message and waits until it is confirmed.
pub(crate) async fn publish(channel: &Channel, (exchange, key): (&str, &str), body: &str, properties: BasicProperties) {
    let properties = properties.with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
    let confirmation = confirm.await.unwrap().await.unwrap();
    assert!(confirmation.is_ack(), "{confirmation:?}");
}

/// Properties of a message that is to be delayed.
pub(crate) fn delayed(delay: AMQPValue) -> BasicProperties {
    BasicProperties::default().with_headers(table(&[("x-delay", delay)]))
}

pub(crate) async fn consume(channel: &Channel, queue: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(Duration::from_secs(20), consumer.next()).await.expect("a delivery");
    delivery.expect("the consumer goes on").unwrap()
}

pub(crate) async fn get(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
}

pub(crate) fn body(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.data).unwrap()
}

/// An integer header.
pub(crate) fn header(properties: &BasicProperties, name: &str) -> Option<i64> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Some(*number),
        other => panic!("{name} is {other:?}"),
    }
}

/// Ready, unacked and delayed messages of a queue.
pub(crate) async fn places(server: &Server, queue: &str) -> (u64, u64, u64) {
    let views = server.board().inspect_queues().await.unwrap();
    let view = views.iter().find(|view| *view.spec.name == *queue).unwrap();
    (view.ready, view.unacked, view.delayed)
}

/// Waits until a queue has so many messages there.
pub(crate) async fn eventually_places(server: &Server, queue: &str, expected: (u64, u64, u64)) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while places(server, queue).await != expected {
        let found = places(server, queue).await;
        assert!(Instant::now() < deadline, "{queue} has {found:?}, and should have {expected:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Dead letters of a queue that nobody has taken yet.
pub(crate) async fn owed(server: &Server, queue: &str) -> u64 {
    let views = server.board().inspect_queues().await.unwrap();
    views.iter().find(|view| *view.spec.name == *queue).unwrap().owed
}

/// Waits until there are so many of them.
pub(crate) async fn eventually_owed(server: &Server, queue: &str, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while owed(server, queue).await != expected {
        assert!(Instant::now() < deadline, "{queue} owes {}", owed(server, queue).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sets a policy for what its pattern finds.
pub(crate) async fn set_policy(
    server: &Server,
    kind: PolicyKind,
    applies_to: AppliesTo,
    (name, pattern): (&str, &str),
    definition: &[(&str, amqp::Value)],
) {
    let policy = Policy {
        kind,
        vhost: VhostId(0),
        name: name.into(),
        pattern: Pattern::new(pattern).unwrap(),
        applies_to,
        priority: 0,
        definition: definition.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    };
    let outcome = server.board().operator().ask(VhostId(0), CatalogAsk::SetPolicy(Box::new(policy))).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
}

/// A server on what a SIGKILL at this moment would have left of this one's data.
pub(crate) async fn start_on_remains_of(directory: &Path) -> (tempfile::TempDir, Server) {
    let remains = tempfile::tempdir().unwrap();
    copy(&directory.join("data"), &remains.path().join("data"));
    let server = Server::start(config(remains.path())).await.unwrap();
    (remains, server)
}

/// The server that is there after a kill now, and the one after a clean stop.
pub(crate) async fn killed_and_stopped(server: Server, directory: &Path) -> (tempfile::TempDir, [Server; 2]) {
    let (remains, killed) = start_on_remains_of(directory).await;
    server.stop().await.unwrap();
    let (stopped, _) = start(directory).await;
    (remains, [killed, stopped])
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
