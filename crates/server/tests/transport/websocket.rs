//! AMQP over WebSocket.

use super::client::{Client, Login};
use super::*;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;

/// A browser's WebSocket as a stream of bytes, `piece` of them a message.
async fn socket(server: &Server, path: &str, piece: usize) -> DuplexStream {
    let mut request = format!("ws://{}{path}", server.board().addresses().http[0]).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "amqp".parse().unwrap());
    stream(request, piece).await
}

async fn stream(request: Request, piece: usize) -> DuplexStream {
    let (socket, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "amqp");
    let (mut to_server, mut from_server) = socket.split();
    let (ours, theirs) = duplex(1 << 20);
    let (mut read, mut write) = split(theirs);
    tokio::spawn(async move {
        let mut buffer = vec![0; piece];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            to_server.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await.unwrap();
        }
        let _closed = to_server.close().await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = from_server.next().await {
            if let Message::Binary(bytes) = message {
                write.write_all(&bytes).await.unwrap();
            }
        }
    });
    ours
}

async fn open() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { http: any_port(), ..config(directory.path(), Settings::default()) };
    let server = Server::start(config).await.unwrap();
    (directory, server)
}

#[tokio::test]
async fn a_browser_works_at_any_path_however_it_cuts_its_messages() {
    let (_directory, server) = open().await;
    for (path, piece) in [("/ws/amqp", 4096), ("/", 3), ("/api/overview", 100_000)] {
        let mut client = Client::connect(socket(&server, path, piece).await).await;
        let body = vec![5; if piece < 10 { 1_000 } else { 2_000_000 }];
        assert!(client.round_trip(&body).await == body, "{path}");
        let shown = connections(&server).await;
        assert_eq!((&shown[0]["user"], &shown[0]["peer_host"]), (&"guest".into(), &"127.0.0.1".into()));
        drop(client);
        while server.board().connections() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_page_from_elsewhere_does_not_get_in_as_guest_through_the_browser_on_this_machine() {
    let (_directory, server) = open().await;
    let address = server.board().addresses().http[0];
    for (host, origin, expected) in [
        (address.to_string(), "http://elsewhere.test".to_owned(), false),
        (address.to_string(), format!("http://{address}"), true),
        // Its name leads to this machine.
        ("elsewhere.test".to_owned(), "http://elsewhere.test".to_owned(), false),
    ] {
        let mut request = format!("ws://{address}/ws/amqp").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "amqp".parse().unwrap());
        request.headers_mut().insert("Host", host.parse().unwrap());
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        let mut client = Client::greet(stream(request, 4096).await).await.unwrap();
        assert_eq!(client.log_in("PLAIN", b"\0guest\0guest").await == Login::Accepted, expected, "{host} {origin}");
    }
}

#[tokio::test]
async fn text_is_no_amqp() {
    let (_directory, server) = open().await;
    let url = format!("ws://{}/ws/amqp", server.board().addresses().http[0]);
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.send(Message::Text("AMQP".into())).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_binary());
    }
    while server.board().connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let (_directory, server) = open().await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (headers, status) in [
        (format!("Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}"), "101"),
        (format!("Connection: Upgrade\r\nSec-WebSocket-Version: 8\r\n{key}"), "426"),
        (format!("Connection: keep-alive\r\nSec-WebSocket-Version: 13\r\n{key}"), "400"),
        ("Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n".to_owned(), "400"),
    ] {
        let mut socket = tokio::net::TcpStream::connect(server.board().addresses().http[0]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        socket.read_exact(&mut line).await.unwrap();
        assert_eq!(line[9..], *status.as_bytes(), "{headers}");
    }
}

#[tokio::test]
async fn a_message_that_is_no_amqp_ends_the_connection_before_it_is_whole() {
    let (_directory, server) = open().await;
    let url = format!("ws://{}/ws/amqp", server.board().addresses().http[0]);
    let (mut socket, _) = connect_async(url).await.unwrap();
    // It may be refused before it is sent whole.
    let _refused = socket.send(Message::Binary(vec![0; 3 << 20].into())).await;
    while let Some(Ok(_header_of_amqp)) = socket.next().await {}
    while server.board().connections() > 0 {
        tokio::task::yield_now().await;
    }
}
