//! What changes while a server runs.

use super::authority::{Authority, connect};
use super::client::Client;
use super::*;
use server::config::{ConfigError, LogLevel};
use server::limits::MemoryLimit;
use server::reload::{Reload, Reloaded};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

/// A server whose configuration is what the returned place says.
async fn open(directory: &Path, settings: Settings, change: impl FnOnce(&mut Config)) -> (Server, Arc<Mutex<Config>>) {
    let mut config = config(directory, settings);
    change(&mut config);
    let server = Server::start(config.clone()).await.unwrap();
    let place = Arc::new(Mutex::new(config));
    let read = Arc::clone(&place);
    let read = move || match read.lock().unwrap().clone() {
        config if config.shards == 0 => Err(ConfigError::NoAddress),
        config => Ok((config, vec!["a warning".to_owned()])),
    };
    server.board().on_reload(Reload { read: Box::new(read), log: Box::new(|_| {}) });
    (server, place)
}

#[tokio::test]
async fn what_can_change_does_and_the_rest_is_named_until_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (server, place) = open(directory.path(), Settings::default(), |_| {}).await;
    let board = server.board();
    {
        let mut config = place.lock().unwrap();
        config.heartbeat_s = 7;
        config.memory_limit = MemoryLimit::Bytes(1 << 40);
        config.log = LogLevel::Warn;
        config.shards = 9;
    }
    let expected = Reloaded {
        changed: vec!["heartbeat_s".into(), "log".into(), "memory_limit".into()],
        restart: vec!["shards".into()],
        warnings: vec!["a warning".into()],
    };
    assert_eq!(board.reload().unwrap(), expected);
    assert_eq!(board.alarms().view().memory_limit, MemoryLimit::Bytes(1 << 40));
    assert_eq!((board.config().heartbeat_s, board.config().shards), (7, 1));
    board.set_memory_limit(MemoryLimit::Bytes(1 << 41));
    assert_eq!(board.reload().unwrap(), Reloaded { changed: vec![], ..expected });
    assert_eq!(board.alarms().view().memory_limit, MemoryLimit::Bytes(1 << 41), "an operator's is kept");
    // What is wrong changes nothing.
    place.lock().unwrap().heartbeat_s = 8;
    place.lock().unwrap().shards = 0;
    assert!(board.reload().is_err());
    assert_eq!(board.config().heartbeat_s, 7);
    let mut client = Client::connect(TcpStream::connect(board.addresses().amqp[0]).await.unwrap()).await;
    assert_eq!(client.round_trip(b"x").await, b"x");
}

#[tokio::test]
async fn new_clients_see_a_new_certificate_after_a_reload_or_when_its_files_change() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new, newest) = (Authority::new("Old"), Authority::new("New"), Authority::new("Newest"));
    let (certificate, key) = old.sign("broker", "broker.test", 2999).store(directory.path(), "server");
    let settings =
        Settings { tls_certificate: Some(vec![certificate.clone()]), tls_key: Some(vec![key]), ..Settings::default() };
    let (server, _place) = open(directory.path(), settings, |config| config.amqps = any_port()).await;
    let board = server.board();
    let amqps = board.addresses().amqps[0];
    let mut client = Client::connect(connect(amqps, &old, None, "broker.test").await.unwrap()).await;

    new.sign("broker", "broker.test", 2999).store(directory.path(), "server");
    board.reload().unwrap();
    assert!(connect(amqps, &new, None, "broker.test").await.is_ok());
    assert!(connect(amqps, &old, None, "broker.test").await.is_err());
    assert_eq!(client.round_trip(b"x").await, b"x", "who is connected is left alone");

    std::fs::write(&certificate, "half a").unwrap();
    assert!(board.reload().unwrap_err().to_string().contains("server.pem: there is no certificate in it"));
    assert!(connect(amqps, &new, None, "broker.test").await.is_ok(), "a wrong file changes nothing");

    newest.sign("broker", "broker.test", 2999).store(directory.path(), "server");
    let deadline = Instant::now() + Duration::from_secs(20);
    while connect(amqps, &newest, None, "broker.test").await.is_err() {
        assert!(Instant::now() < deadline, "nobody looks at the files");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_new_consumer_timeout_holds_for_new_consumers() {
    let directory = tempfile::tempdir().unwrap();
    let (server, place) = open(directory.path(), Settings::default(), |_| {}).await;
    place.lock().unwrap().consumer_timeout_ms = 1234;
    assert_eq!(server.board().reload().unwrap().changed, ["consumer_timeout_ms"]);
    let mut client = Client::connect(TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap()).await;
    client.consume().await;
    let views = server.board().inspect_queues().await.unwrap();
    assert_eq!(views[0].consumers[0].timeout_ms, 1234);
}
