//! What a load needs of a broker beside AMQP: RabbitMQ's management API, as far as policies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::broker_url::BrokerUrl;

/// A broker's management API.
#[derive(Debug)]
pub(super) struct Management<'a> {
    url: &'a BrokerUrl,
    port: u16,
}

impl<'a> Management<'a> {
    /// On the host that speaks AMQP, at this port; without one, as far above AMQP's as 15672 is above 5672.
    pub(super) fn new(url: &'a BrokerUrl, port: Option<u16>) -> Self {
        Self { url, port: port.unwrap_or_else(|| url.port.saturating_add(PORTS_APART)) }
    }

    /// Sets a policy for all queues whose names begin so.
    pub(super) fn set_policy(&self, name: &str, prefix: &str, definition: &Value) -> Result<()> {
        let policy =
            json!({"pattern": format!("^{prefix}"), "definition": definition, "apply-to": "queues", "priority": 0});
        self.ask("PUT", name, &policy.to_string())
    }

    /// Clears it.
    pub(super) fn clear_policy(&self, name: &str) -> Result<()> {
        self.ask("DELETE", name, "")
    }

    /// HTTP/1.0: the answer ends where the connection does.
    fn ask(&self, method: &str, policy: &str, body: &str) -> Result<()> {
        let Self { url, port } = self;
        let login = STANDARD.encode(format!("{}:{}", url.user, url.password));
        let encoded = |part| utf8_percent_encode(part, NON_ALPHANUMERIC);
        let path = format!("/api/policies/{}/{}", encoded(&url.vhost), encoded(policy));
        let asked = || -> Result<String> {
            let mut stream = TcpStream::connect((url.host.as_str(), *port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                url.host,
                body.len()
            )?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = asked().with_context(|| {
            format!("no answer from the HTTP API at {}:{port}: --http-port says where it is, if not there", url.host)
        })?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("the policy was refused: {}", answer.lines().next().unwrap_or_default());
        }
        Ok(())
    }
}

const PORTS_APART: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);
