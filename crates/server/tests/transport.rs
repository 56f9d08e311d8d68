//! The ways to a server beside plain TCP: TLS with every kind of wrong certificate, the PROXY protocol, WebSocket.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

#[path = "transport/authority.rs"]
mod authority;
#[path = "transport/client.rs"]
mod client;
#[path = "wire/collector.rs"]
mod collector;
#[path = "transport/logins.rs"]
mod logins;
#[path = "transport/proxy.rs"]
mod proxy;
#[path = "transport/reload.rs"]
mod reload;
#[path = "transport/spans.rs"]
mod spans;
#[path = "transport/tls.rs"]
mod tls;
#[path = "transport/websocket.rs"]
mod websocket;

use server::config::{Listen, Settings};
use server::{Config, Server};
use std::path::Path;

fn any_port() -> Listen {
    Listen { addresses: vec![([127, 0, 0, 1], 0).into()], by_default: false }
}

/// A server's configuration: what these settings say, and AMQP on a port of its own.
fn config(directory: &Path, settings: Settings) -> Config {
    let none = Listen { addresses: vec![], by_default: false };
    let config = Config::new(&[settings]).unwrap();
    Config { data_dir: directory.join("data"), amqp: any_port(), http: none.clone(), metrics: none, ..config }
}

/// The views of its connections by HTTP, of whoever asks as guest.
async fn connections(server: &Server) -> serde_json::Value {
    let address = server.board().addresses().http[0];
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    client::get(&mut socket, "/api/connections").await
}
