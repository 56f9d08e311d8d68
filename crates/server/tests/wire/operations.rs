//! Operators' doings as clients see them, and over a restart.

use super::*;
use crate::real_client::{
    body, consume, declare, eventually_places, get, killed_and_stopped, next, open, open_confirming, places, publish,
    start_on_remains_of, text,
};
use broker::operation::{Act, Answer, Cursor, Filter, Operation, Origin, Page, Scan, Target, Which};

async fn scan(server: &Server, queue: &str, act: Act) -> Page {
    scan_what(server, queue, Which::Ready { from: Cursor::HEAD, until: None }, act).await
}

async fn scan_what(server: &Server, queue: &str, which: Which, act: Act) -> Page {
    let queue = server.board().topology().queue(VhostId(0), queue).unwrap().queue;
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

#[tokio::test]
async fn a_paused_queue_stays_paused_and_a_resumed_one_goes_on_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for queue in ["paused", "resumed"] {
        declare(&channel, queue, &[]).await;
        publish(&channel, ("", queue), "work", Default::default()).await;
        operate(&server, queue, Operation::Pause).await;
    }
    assert!(get(&channel, "resumed").await.is_none());
    operate(&server, "resumed", Operation::Resume).await;
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    let channel = open(&killed).await;
    assert!(get(&channel, "paused").await.is_none());
    assert_eq!(places(&killed, "paused").await, (1, 0, 0));
    assert_eq!(get(&channel, "resumed").await.unwrap().data, b"work");
}

#[tokio::test]
async fn what_was_deleted_moved_or_requeued_is_so_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for queue in ["tasks", "other"] {
        declare(&channel, queue, &[]).await;
    }
    for body in ["1", "2", "3", "4", "5"] {
        publish(&channel, ("", "tasks"), body, Default::default()).await;
    }
    for (seq, act) in [(1, Act::Requeue), (2, Act::Delete), (3, Act::Move(Target::Queue("other".to_owned())))] {
        let page = scan_what(&server, "tasks", Which::These(vec![store::Seq(seq)]), act).await;
        assert_eq!(page.done, 1, "message {seq}");
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        for (queue, expected) in [("tasks", &["4", "5", "1"][..]), ("other", &["3"])] {
            let mut consumer = consume(&channel, queue).await;
            for expected in expected {
                assert_eq!(body(&next(&mut consumer).await), *expected);
            }
            eventually_places(&server, queue, (0, expected.len() as u64, 0)).await;
        }
    }
}

#[tokio::test]
async fn a_redrive_returns_letters_to_where_they_died_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let to_graves = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("graves"))];
    declare(&channel, "graves", &[]).await;
    for queue in ["mails", "calls"] {
        declare(&channel, queue, &to_graves).await;
        publish(&channel, ("", queue), queue, Default::default()).await;
        let reject = lapin::options::BasicRejectOptions { requeue: false };
        next(&mut consume(&channel, queue).await).await.acker.reject(reject).await.unwrap();
    }
    eventually_places(&server, "graves", (2, 0, 0)).await;
    let which = Which::Ready { from: Cursor::HEAD, until: None };
    assert_eq!(scan_what(&server, "graves", which, Act::Redrive(Origin::Last)).await.done, 2);
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        assert_eq!(places(&server, "graves").await, (0, 0, 0));
        for queue in ["mails", "calls"] {
            assert_eq!(get(&open(&server).await, queue).await.unwrap().data, queue.as_bytes());
        }
    }
}
