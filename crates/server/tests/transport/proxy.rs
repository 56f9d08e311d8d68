//! Clients behind a load balancer.

use super::client::{Client, Login};
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn open() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { proxy_protocol: Some(true), ..Settings::default() };
    let config = Config { http: any_port(), ..config(directory.path(), settings) };
    let server = Server::start(config).await.unwrap();
    (directory, server)
}

#[tokio::test]
async fn a_client_is_where_its_load_balancer_says() {
    let (_directory, server) = open().await;
    let mut socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    socket.write_all(b"PROXY TCP4 127.0.0.9 127.0.0.8 5000 5672\r\n").await.unwrap();
    let mut client = Client::connect(socket).await;
    assert_eq!(client.round_trip(b"x").await, b"x");
    let shown = connections(&server).await;
    assert_eq!(shown[0]["name"], "127.0.0.9:5000 -> 127.0.0.8:5672");
    assert_eq!((&shown[0]["peer_host"], &shown[0]["port"]), (&"127.0.0.9".into(), &5672.into()));
}

#[tokio::test]
async fn guest_is_judged_by_where_it_really_is() {
    let (_directory, server) = open().await;
    let mut socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    socket.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 5672\r\n").await.unwrap();
    let mut client = Client::greet(socket).await.unwrap();
    let Login::Refused(403, _) = client.log_in("PLAIN", b"\0guest\0guest").await else { panic!("it is let in") };
}

#[tokio::test]
async fn who_says_nothing_of_the_kind_is_dropped() {
    let (_directory, server) = open().await;
    let socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    assert!(Client::greet(socket).await.is_err());
    let mut socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    socket.write_all(b"PROXY TCP4 nowhere 192.0.2.8 5000 5672\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _reset_or_not = socket.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    assert_eq!(server.board().churn().opened, 0);
}
