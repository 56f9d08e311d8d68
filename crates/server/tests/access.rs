//! Who may do what, over a client that people use (lapin) and the HTTP API of one server: every rule from both sides.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "a failed unwrap is a failed test; clients are shared")]

#[path = "access/audit.rs"]
mod audit;
#[path = "http/browser.rs"]
mod browser;
#[path = "access/definitions.rs"]
mod definitions;
#[path = "access/first.rs"]
mod first;
#[path = "access/http.rs"]
mod http;
#[path = "access/issuer.rs"]
mod issuer;
#[path = "access/permissions.rs"]
mod permissions;
#[path = "access/tokens.rs"]
mod tokens;
#[path = "access/users.rs"]
mod users;
#[path = "access/vhosts.rs"]
mod vhosts;
#[path = "access/ways_around.rs"]
mod ways_around;

use base64::Engine as _;
use browser::Browser;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Error, ErrorKind, ExchangeKind};
use serde_json::{Value, json};
use server::config::{FirstStart, Listen, Settings};
use server::{Config, Server};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A server, and its administrator.
pub(crate) struct Desk {
    pub(crate) server: Server,
    pub(crate) admin: Browser,
    pub(crate) directory: TempDir,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::over(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn over(directory: TempDir) -> Self {
        let server = Server::start(config(directory.path())).await.unwrap();
        let admin = Browser::logged_in(server.board().addresses().http[0]);
        Self { server, admin, directory }
    }

    /// Stops the server and starts it again.
    pub(crate) async fn again(self) -> Self {
        self.server.stop().await.unwrap();
        Self::over(self.directory).await
    }

    pub(crate) fn browser(&self, user: &str) -> Browser {
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:pw"));
        Browser::new(self.server.board().addresses().http[0], Some(&format!("Basic {login}")))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.admin.ask("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, document: Value, status: u16) -> Value {
        let answer = self.admin.ask(method, path, Some(&document)).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    }

    pub(crate) async fn delete(&self, path: &str, status: u16) {
        let answer = self.admin.ask("DELETE", path, None).await;
        assert_eq!(answer.status, status, "DELETE {path}: {}", answer.text);
    }

    /// A user with password `pw` and these permissions in `/`: configure, write, read.
    pub(crate) async fn user(&self, name: &str, tags: &str, permissions: [&str; 3]) {
        self.send("PUT", &format!("/users/{name}"), json!({"password": "pw", "tags": tags}), 201).await;
        self.permit("%2F", name, permissions).await;
    }

    pub(crate) async fn permit(&self, vhost: &str, user: &str, [configure, write, read]: [&str; 3]) {
        let answer = self
            .admin
            .ask(
                "PUT",
                &format!("/permissions/{vhost}/{user}"),
                Some(&json!({"configure": configure, "write": write, "read": read})),
            )
            .await;
        assert!(matches!(answer.status, 201 | 204), "{}", answer.text);
    }

    pub(crate) async fn connect(&self, login: &str, vhost: &str) -> Result<Connection, Error> {
        let address = self.server.board().addresses().amqp[0];
        let url = format!("amqp://{login}@{address}/{vhost}");
        Connection::connect(&url, ConnectionProperties::default()).await
    }

    pub(crate) async fn client(&self, user: &str) -> Connection {
        self.connect(&format!("{user}:pw"), "%2f").await.unwrap()
    }
}

pub(crate) fn config(directory: &Path) -> Config {
    let any_port = || Listen { addresses: vec![([127, 0, 0, 1], 0).into()], by_default: false };
    let defaults = Config::new(&[Settings::default()]).unwrap();
    Config { data_dir: directory.join("data"), amqp: any_port(), http: any_port(), metrics: any_port(), ..defaults }
}

/// The code and text with which the server refused.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result.unwrap_err().kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn declare(channel: &Channel, queue: &str) -> Result<(), Error> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.map(drop)
}

/// Publishes, and waits until the server has taken it or refused.
pub(crate) async fn publish(channel: &Channel, exchange: &str, key: &str) -> Result<(), Error> {
    publish_as(channel, exchange, key, BasicProperties::default()).await
}

/// The same with these properties.
pub(crate) async fn publish_as(
    channel: &Channel,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
) -> Result<(), Error> {
    channel.confirm_select(Default::default()).await?;
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), key.into(), options, b"x", properties).await?.await.map(drop)
}
