//! Operators' doings as clients see them, and over a restart.

use super::*;
use broker::operation::{Act, Answer, Cursor, Filter, Operation, Page, Scan, Target, Which};

async fn scan(server: &Server, queue: &str, act: Act) -> Page {
    let queue = server.board().topology().queue(VhostId(0), queue).unwrap().queue;
    let which = Which::Ready { from: Cursor::HEAD, until: None };
    let scan = Scan { which, filter: Filter::default(), count: 100, act };
    match server.board().operate(queue, Operation::Scan(scan)).await.unwrap() {
        Answer::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

async fn operate(server: &Server, queue: &str, operation: Operation) {
    let queue = server.board().topology().queue(VhostId(0), queue).unwrap().queue;
    let answer = server.board().operate(queue, operation).await.unwrap();
    assert!(matches!(answer, Answer::Done), "{answer:?}");
}

#[tokio::test]
async fn a_paused_queue_stays_paused_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.declare("q", true).await;
    operate(&server, "q", Operation::Pause).await;
    client.confirm_select().await;
    client.publish("q", b"work", true).await;
    client.expect_confirms_up_to(1).await;
    client.consume("q").await;
    let told = tokio::spawn(client.answer_close());
    server.stop().await.unwrap();
    told.await.unwrap();

    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.consume("q").await;
    let get = basic::Get { queue: "q", no_ack: true };
    client.send(raw_client::CHANNEL, &Method::BasicGet(get)).await;
    // A delivery would have come before.
    client
        .expect(|method| match method {
            Method::BasicDeliver(_) | Method::BasicGetOk(_) => panic!("it is paused"),
            Method::BasicGetEmpty(_) => Some(()),
            _ => None,
        })
        .await;
    operate(&server, "q", Operation::Resume).await;
    assert_eq!(client.expect_delivery().await, b"work");
}

#[tokio::test]
async fn messages_move_between_shards() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config { shards: 2, ..config(directory.path()) }).await.unwrap();
    let mut client = RawClient::connect(server.board().addresses().amqp[0]).await;
    client.declare("a", true).await;
    client.declare("b", true).await;
    let shards = ["a", "b"].map(|name| server.board().topology().queue(VhostId(0), name).unwrap().queue.shard);
    assert_ne!(shards[0], shards[1]);
    client.confirm_select().await;
    for number in 1..=10_u64 {
        client.publish("a", &number.to_be_bytes(), true).await;
    }
    client.expect_confirms_up_to(10).await;
    assert_eq!(scan(&server, "a", Act::Move(Target::Queue("b".to_owned()))).await.done, 10);
    let told = tokio::spawn(client.answer_close());
    server.stop().await.unwrap();
    told.await.unwrap();
    let (server, address) = start(directory.path()).await;
    assert_eq!(server.found().messages, 10);
    let mut client = RawClient::connect(address).await;
    client.consume("b").await;
    for number in 1..=10_u64 {
        assert_eq!(client.expect_delivery().await, number.to_be_bytes());
    }
}
