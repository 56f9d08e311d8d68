//! Alarms on a whole server: who waits, who goes on, and that nothing is lost by waiting.

use super::*;
use amqp::Value;
use broker::inspect::ConnectionView;
use server::limits::MemoryLimit;

/// More than any disk has free.
const NEVER: u64 = u64::MAX;

/// A client that is told when it is blocked.
async fn told(address: SocketAddr) -> RawClient {
    let capabilities = [("connection.blocked".to_owned(), Value::Bool(true))].into_iter().collect();
    let mut client = RawClient::open_socket(address).await;
    client.properties = [("capabilities".to_owned(), Value::Table(capabilities))].into_iter().collect();
    client.shake_hands().await;
    client
}

async fn expect_blocked(client: &mut RawClient) -> String {
    client
        .expect(|method| match method {
            Method::ConnectionBlocked(blocked) => Some(blocked.reason.to_owned()),
            _ => None,
        })
        .await
}

async fn expect_unblocked(client: &mut RawClient) {
    client.expect(|method| matches!(method, Method::ConnectionUnblocked(_)).then_some(())).await;
}

async fn view(server: &Server, state: &str) -> ConnectionView {
    let views = server.board().inspect_connections().await;
    views.into_iter().find(|view| view.state == state).unwrap_or_else(|| panic!("no connection is {state}"))
}

#[tokio::test]
async fn publishers_wait_while_consumers_go_on_and_everything_arrives() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut publisher = told(address).await;
    publisher.declare("tasks", true).await;
    publisher.confirm_select().await;
    for number in 1..=3_u64 {
        publisher.publish("tasks", &number.to_be_bytes(), true).await;
    }
    publisher.expect_confirms_up_to(3).await;

    server.board().set_disk_free_limit(NEVER);
    publisher.publish("tasks", &4_u64.to_be_bytes(), true).await;
    assert_eq!(expect_blocked(&mut publisher).await, "low on disk");
    for number in 5..=8_u64 {
        publisher.publish("tasks", &number.to_be_bytes(), true).await;
    }

    let mut consumer = told(address).await;
    consumer.consume("tasks").await;
    for number in 1..=3_u64 {
        assert_eq!(consumer.expect_delivery().await, number.to_be_bytes());
        let ack = basic::Ack { delivery_tag: number, multiple: false };
        consumer.send(raw_client::CHANNEL, &Method::BasicAck(ack)).await;
    }
    assert_eq!(consumer.declare("tasks", true).await, 0, "it is answered, and nothing of the blocked one came");
    let queues = server.board().inspect_queues().await.unwrap();
    assert_eq!((queues[0].counters.ack, queues[0].counters.publish), (3, 3));

    server.board().set_disk_free_limit(0);
    expect_unblocked(&mut publisher).await;
    publisher.expect_confirms_up_to(8).await;
    for number in 4..=8_u64 {
        assert_eq!(consumer.expect_delivery().await, number.to_be_bytes());
    }
}

#[tokio::test]
async fn a_blocked_client_meets_a_wall_and_is_not_buffered() {
    const BODY: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    server.board().set_memory_limit(MemoryLimit::Bytes(0));
    let mut publisher = told(address).await;
    publisher.declare("big", false).await;
    publisher.publish("big", &[7; 10], false).await;
    assert_eq!(expect_blocked(&mut publisher).await, "low on memory");
    let before = view(&server, "blocked").await.received_bytes;
    let all = async {
        for _message in 0..64 {
            publisher.publish("big", &[7; BODY], false).await;
        }
    };
    assert!(timeout(Duration::from_millis(500), all).await.is_err(), "64 MiB are more than two sockets hold");
    assert_eq!(view(&server, "blocked").await.received_bytes, before, "nothing more was read");
    server.board().set_disk_free_limit(NEVER);
    server.board().set_memory_limit(MemoryLimit::DEFAULT);
    assert_eq!(view(&server, "blocked").await.received_bytes, before, "the disk is short still");
    server.board().set_disk_free_limit(0);
    expect_unblocked(&mut publisher).await;
}

#[tokio::test]
async fn a_blocked_connection_ends_as_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    server.board().set_disk_free_limit(NEVER);
    let mut clients = Vec::new();
    for _client in 0..3 {
        let mut client = told(address).await;
        client.declare("tasks", false).await;
        client.publish("tasks", b"first", false).await;
        expect_blocked(&mut client).await;
        client.publish("tasks", b"unread", false).await;
        clients.push(client);
    }

    let reset = clients.pop().unwrap();
    reset.reset();
    eventually("a reset is noticed", || server.board().connections() == 2).await;

    let fault = Fault::new(ReplyCode::ConnectionForced, "enough");
    let by_id = server.board().inspect_connections().await[0].id;
    let closed = clients.remove(0).answer_close();
    assert!(server.board().close_connection(by_id, fault));
    assert_eq!(closed.await, (320, "CONNECTION_FORCED - enough".to_owned()));
    eventually("the closed one is forgotten", || server.board().connections() == 1).await;

    let polite = tokio::spawn(clients.remove(0).answer_close());
    let asked = Instant::now();
    server.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(polite.await.unwrap().0, 320);
}

#[tokio::test]
async fn the_alarm_comes_by_itself_and_names_what_is_short() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { memory_limit: MemoryLimit::Bytes(1), disk_free_limit: NEVER, ..config(directory.path()) };
    let server = Server::start(config).await.unwrap();
    let mut publisher = told(server.board().addresses().amqp[0]).await;
    assert_eq!(view(&server, "blocking").await.channels.len(), 1);
    publisher.declare("tasks", false).await;
    publisher.publish("tasks", b"work", false).await;
    assert_eq!(expect_blocked(&mut publisher).await, "low on disk & memory");
}

#[tokio::test]
async fn a_full_log_is_an_alarm_until_every_shard_has_room() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let board = server.board();
    board.set_disk_full(ShardId(0), true);
    board.set_disk_full(ShardId(1), true);
    let mut publisher = told(address).await;
    publisher.declare("tasks", false).await;
    publisher.publish("tasks", b"work", false).await;
    assert_eq!(expect_blocked(&mut publisher).await, "low on disk");
    board.set_disk_full(ShardId(0), false);
    assert!(board.alarms().shortage().disk);
    board.set_disk_full(ShardId(1), false);
    expect_unblocked(&mut publisher).await;
}
