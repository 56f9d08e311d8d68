//! A whole server in this process, and clients that are nothing but sockets: what only the hosts can get wrong.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

#[path = "wire/alarms.rs"]
mod alarms;
#[path = "wire/collector.rs"]
mod collector;
#[path = "wire/consumers.rs"]
mod consumers;
#[path = "wire/corners.rs"]
mod corners;
#[path = "wire/dead_letters.rs"]
mod dead_letters;
#[path = "wire/deduplication.rs"]
mod deduplication;
#[path = "wire/delay.rs"]
mod delay;
#[path = "wire/exchanges.rs"]
mod exchanges;
#[path = "wire/groups.rs"]
mod groups;
#[path = "wire/leases.rs"]
mod leases;
#[path = "wire/limits.rs"]
mod limits;
#[path = "wire/operations.rs"]
mod operations;
#[path = "wire/policies.rs"]
mod policies;
#[path = "wire/rates.rs"]
mod rates;
#[path = "wire/raw_client.rs"]
mod raw_client;
#[path = "wire/real_client.rs"]
mod real_client;
#[path = "wire/recent_history.rs"]
mod recent_history;
#[path = "wire/reports.rs"]
mod reports;
#[path = "wire/retry.rs"]
mod retry;
#[path = "wire/schedules.rs"]
mod schedules;
#[path = "wire/spans.rs"]
mod spans;
#[path = "wire/streams.rs"]
mod streams;
#[path = "wire/trace.rs"]
mod trace;
#[path = "wire/ttl.rs"]
mod ttl;

use amqp::method::{basic, channel, confirm, connection, queue};
use amqp::{ChannelId, Method, ReplyCode, Table};
use broker::command::{CallId, CatalogAsk, Command, DeclareQueue, Fault, Outcome, QueueRef, ShardId, VhostId};
use raw_client::{CHANNEL, RawClient};
use server::config::{Listen, Settings};
use server::{Config, Server};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

fn config(directory: &Path) -> Config {
    let any_port = Listen { addresses: vec![([127, 0, 0, 1], 0).into()], by_default: false };
    let none = Listen { addresses: vec![], by_default: false };
    let defaults = Config::new(&[Settings::default()]).unwrap();
    Config { data_dir: directory.join("data"), amqp: any_port, http: none.clone(), metrics: none, ..defaults }
}

async fn start(directory: &Path) -> (Server, SocketAddr) {
    let server = Server::start(config(directory)).await.unwrap();
    let address = server.board().addresses().amqp[0];
    (server, address)
}

/// Waits for what happens soon after, in another task.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_client_connects_and_closes() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    let views = server.board().inspect_connections().await;
    assert_eq!((views.len(), views[0].state, views[0].user.as_str()), (1, "running", "guest"));
    let close = connection::Close { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 };
    client.send(ChannelId::CONNECTION, &Method::ConnectionClose(close)).await;
    client.expect(|method| matches!(method, Method::ConnectionCloseOk(_)).then_some(())).await;
    assert_eq!(client.rest().await, b"", "the server closes its end, and not by a reset");
    eventually("the connection is forgotten", || server.board().connections() == 0).await;
    assert_eq!((server.board().churn().opened, server.board().churn().closed), (1, 1));
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    let mut client = RawClient::open_socket(address).await;
    client.byte_by_byte = true;
    client.shake_hands().await;
}

#[tokio::test]
async fn what_is_not_amqp_is_told_what_is_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::open_socket(address).await;
    client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.rest().await, b"AMQP\0\0\x09\x01");
    eventually("the connection is forgotten", || server.board().connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { handshake_timeout_ms: 50, ..config(directory.path()) };
    let server = Server::start(config).await.unwrap();
    let mut silent = RawClient::open_socket(server.board().addresses().amqp[0]).await;
    assert_eq!(silent.rest().await, b"");
    eventually("the connection is forgotten", || server.board().connections() == 0).await;
}

#[tokio::test]
async fn messages_and_queues_survive_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.declare("tasks", true).await;
    client.confirm_select().await;
    for number in 1..=3_u64 {
        client.publish("tasks", &number.to_be_bytes(), true).await;
    }
    client.expect_confirms_up_to(3).await;
    let told = tokio::spawn(client.answer_close());
    server.stop().await.unwrap();
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(told.await.unwrap(), (320, text.to_owned()));

    let (server, address) = start(directory.path()).await;
    assert_eq!((server.found().queues, server.found().messages), (1, 3));
    let mut client = RawClient::connect(address).await;
    client.consume("tasks").await;
    for number in 1..=3_u64 {
        assert_eq!(client.expect_delivery().await, number.to_be_bytes());
    }
}

#[tokio::test]
async fn a_server_stops_without_waiting_for_those_who_answer_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let polite = tokio::spawn(RawClient::connect(address).await.answer_close());
    let asked = Instant::now();
    server.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    polite.await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_holds_nobody_up() {
    const MESSAGES: usize = 400;
    const BODY: usize = 64 << 10;
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut producer = RawClient::connect(address).await;
    producer.declare("big", false).await;
    producer.declare("small", false).await;
    let mut sleeper = RawClient::connect(address).await;
    sleeper.consume("big").await;
    for _message in 0..MESSAGES {
        producer.publish("big", &[7; BODY], false).await;
    }

    // Others are served while 26 MB wait for the sleeper, of which the server holds a window's worth for it.
    let mut other = RawClient::connect(address).await;
    other.consume("small").await;
    producer.publish("small", b"hello", false).await;
    assert_eq!(other.expect_delivery().await, b"hello");
    let unsent = |views: Vec<broker::inspect::ConnectionView>| views.iter().map(|view| view.unsent_bytes).max();
    let waiting = unsent(server.board().inspect_connections().await).unwrap();
    assert!(waiting < 4 << 20, "{waiting} bytes wait in the connection");

    // And when it wakes up it gets everything.
    for _message in 0..MESSAGES {
        assert_eq!(sleeper.expect_delivery().await.len(), BODY);
    }
}

#[tokio::test]
async fn what_a_lost_client_held_goes_to_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    let mut producer = RawClient::connect(address).await;
    producer.declare("tasks", false).await;
    let mut first = RawClient::connect(address).await;
    first.consume("tasks").await;
    producer.publish("tasks", b"work", false).await;
    assert_eq!(first.expect_delivery().await, b"work");
    let mut second = RawClient::connect(address).await;
    second.consume("tasks").await;
    drop(first);
    assert_eq!(second.expect_delivery().await, b"work");
}

#[tokio::test]
async fn a_frame_cut_off_by_the_end_of_the_socket_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.write(&[1, 0, 1, 0, 0, 0, 200, 0]).await;
    drop(client);
    eventually("the connection is forgotten", || server.board().connections() == 0).await;
    RawClient::connect(address).await;
}

#[tokio::test]
async fn bodies_of_many_frames_come_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.declare("big", false).await;
    client.consume("big").await;
    for bytes in [0, 1, 131_064, 131_065, 5 << 20] {
        let body: Vec<u8> = (0..bytes).map(|at: usize| at.to_le_bytes()[0]).collect();
        client.publish("big", &body, false).await;
        assert!(client.expect_delivery().await == body, "a body of {bytes} bytes");
    }
}

#[tokio::test]
async fn connections_come_and_go_by_the_hundred() {
    const AT_ONCE: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    for _round in 0..5 {
        let mut clients = Vec::new();
        for number in 0..AT_ONCE {
            // Some leave before their handshake, some after, and some stay for the end of the round.
            match number % 4 {
                0 => drop(RawClient::open_socket(address).await),
                1 => drop(RawClient::connect(address).await),
                _ => clients.push(RawClient::connect(address).await),
            }
        }
        assert!(server.board().connections() >= clients.len());
    }
    eventually("all connections are forgotten", || server.board().connections() == 0).await;
    assert_eq!(server.board().churn().closed, 5 * AT_ONCE as u64);
}

#[tokio::test]
async fn an_operator_closes_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let client = RawClient::connect(address).await;
    let id = server.board().inspect_connections().await[0].id;
    let fault = Fault::new(ReplyCode::ConnectionForced, "Closed via management plugin");
    assert!(server.board().close_connection(id, fault.clone()));
    assert_eq!(client.answer_close().await, (320, "CONNECTION_FORCED - Closed via management plugin".to_owned()));
    eventually("the connection is forgotten", || server.board().connections() == 0).await;
    assert!(!server.board().close_connection(id, fault));
}

fn durable_queue(name: &str) -> CatalogAsk {
    CatalogAsk::DeclareQueue(DeclareQueue {
        name: name.to_owned(),
        server_named: false,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::default(),
    })
}

#[tokio::test]
async fn an_operator_asks_what_clients_ask() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let board = server.board();
    let mut operator = board.operator();
    let declared = operator.ask(VhostId(0), durable_queue("tasks")).await.unwrap();
    assert!(matches!(declared, Outcome::QueueDeclared { messages: 0, consumers: 0 }), "{declared:?}");
    let queue = board.topology().queue(VhostId(0), "tasks").unwrap().queue;
    let mut client = RawClient::connect(address).await;
    for _message in 0..2 {
        client.publish("tasks", b"work", false).await;
    }
    // The declaration comes after the publishes, whichever way each of them takes.
    assert_eq!(client.declare("tasks", true).await, 2);
    assert_eq!(board.inspect_queue(queue).await.unwrap().unwrap().ready, 2);
    assert_eq!(board.inspect_queues().await.unwrap().len(), 1);

    let get = |call| Command::Get { call, channel: ChannelId(1), queue: queue.id, no_ack: false };
    let got = operator.command(queue.shard, get).await.unwrap();
    assert!(matches!(got, Outcome::Got { left: 1, .. }), "{got:?}");
    // What an operator holds goes back when it is gone.
    drop(operator);
    let mut operator = board.operator();
    let purge = |call| Command::Purge { call, queue: queue.id };
    let purged = operator.command(queue.shard, purge).await.unwrap();
    assert!(matches!(purged, Outcome::Purged { messages: 2 }), "{purged:?}");
    let missing = |call: CallId| Command::Purge { call, queue: store::QueueId(12345) };
    assert!(matches!(operator.command(ShardId(0), missing).await, Ok(Outcome::Missed)));
    let gone = QueueRef { id: store::QueueId(12345), shard: ShardId(0) };
    assert!(board.inspect_queue(gone).await.unwrap().is_none());
}

#[tokio::test]
async fn a_publish_is_counted_by_what_its_client_asks_next() {
    // With two shards and their mailboxes, the catalog's way is another than the publish's.
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config { shards: 2, ..config(directory.path()) }).await.unwrap();
    let mut client = RawClient::connect(server.board().addresses().amqp[0]).await;
    for round in 1..=50 {
        for queue in ["a", "b"] {
            client.declare(queue, false).await;
            client.publish(queue, b"x", false).await;
            assert_eq!(client.declare(queue, false).await, round);
        }
    }
}

#[tokio::test]
async fn a_directory_keeps_its_shards() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config { shards: 3, ..config(directory.path()) }).await.unwrap();
    let mut client = RawClient::connect(server.board().addresses().amqp[0]).await;
    for queue in ["a", "b", "c", "d"] {
        client.declare(queue, true).await;
    }
    drop(client);
    server.stop().await.unwrap();
    let (server, _address) = start(directory.path()).await;
    assert_eq!((server.board().shards(), server.found().queues), (3, 4));
}

#[tokio::test]
async fn a_second_server_is_refused_and_says_who_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, _address) = start(directory.path()).await;
    let refused = Server::start(config(directory.path())).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
    assert!(refused.contains("--data-dir"), "{refused}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let amqp = Listen { addresses: vec![taken.local_addr().unwrap()], by_default: false };
    let refused = Server::start(Config { amqp, ..config(directory.path()) }).await.unwrap_err().to_string();
    let expected = format!("port {} on 127.0.0.1 is in use", taken.local_addr().unwrap().port());
    assert!(refused.starts_with(&expected) && refused.contains("--amqp ADDR:PORT"), "{refused}");
}

#[tokio::test]
async fn a_damaged_log_is_refused_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    client.declare("tasks", true).await;
    client.confirm_select().await;
    for number in 1..=20_u64 {
        client.publish("tasks", &number.to_be_bytes(), true).await;
        client.expect_confirms_up_to(number).await;
    }
    drop(client);
    server.stop().await.unwrap();
    let shard = directory.path().join("data/shard-0");
    let log = std::fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let refused = Server::start(config(directory.path())).await.unwrap_err().to_string();
    assert!(refused.contains(&log.display().to_string()) && refused.contains("at byte"), "{refused}");
}
