//! What the loads have in common: the broker they run against, and how their messages and consumers look.

use std::io::{self, Write};

use amqp::Method;
use amqp::method::basic;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::broker_url::BrokerUrl;
use super::connection::Connection;
use super::delivery::AckMode;
use super::processes::Processes;

/// Which broker, and how to tell of it.
#[derive(Args, Debug)]
pub(super) struct Target {
    /// The broker; every part may be left out, and vhost / is written %2f
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    pub(super) url: BrokerUrl,
    /// The broker's processes, to measure with all their children: processor time and memory (Linux)
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(super) pid: Vec<u32>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Target {
    /// The broker's processes, if they were named.
    pub(super) fn processes(&self) -> Option<Processes> {
        Processes::new(&self.pid)
    }

    /// Prints a result in the form that was asked for.
    pub(super) fn show(&self, json: &Value, text: &str) -> Result<()> {
        let mut stdout = io::stdout();
        if self.json {
            writeln!(stdout, "{json}")?
        } else {
            stdout.write_all(text.as_bytes())?
        }
        Ok(())
    }
}

/// The messages and how they are consumed.
#[derive(Args, Debug)]
pub(super) struct Work {
    /// Body size
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(..=BODY_BYTES_MAX))]
    pub(super) size: u32,
    /// How consumers acknowledge: auto (not at all), each, or N at once
    #[arg(long, value_name = "auto|each|N", default_value = "auto")]
    pub(super) ack: AckMode,
    /// How many unacknowledged deliveries a consumer may have; 0 = any number
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(super) prefetch: u16,
    /// Publish persistent messages
    #[arg(long)]
    pub(super) persistent: bool,
    /// Declare a durable queue
    #[arg(long)]
    pub(super) durable: bool,
    /// How long to run
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) seconds: u32,
    /// The queue; one that exists is used as it is and kept [default: one that is deleted at the end]
    #[arg(long, value_name = "NAME")]
    pub(super) queue: Option<String>,
}

impl Work {
    /// Opens a connection that consumes from `queue`.
    pub(super) fn consumer(&self, url: &BrokerUrl, queue: &str, name: &str) -> Result<Connection> {
        let mut connection = Connection::open(url, name)?;
        if self.prefetch > 0 {
            let qos = basic::Qos { prefetch_size: 0, prefetch_count: self.prefetch, global: false };
            connection.call(&Method::BasicQos(qos), basic::QosOk::ID)?;
        }
        connection.widen();
        let no_ack = self.ack == AckMode::Auto;
        // A short tag, since it comes with each delivery.
        let consume = basic::Consume { queue, consumer_tag: "c", no_ack, ..Default::default() };
        connection.call(&Method::BasicConsume(consume), basic::ConsumeOk::ID)?;
        Ok(connection)
    }

    /// As an object.
    pub(super) fn json(&self) -> Value {
        json!({
            "body_bytes": self.size,
            "ack": self.ack.to_string(),
            "prefetch": self.prefetch,
            "persistent": self.persistent,
            "durable": self.durable,
            "seconds": self.seconds,
            "queue": self.queue,
        })
    }
}

/// The largest body: what RabbitMQ takes at most by default.
const BODY_BYTES_MAX: i64 = 128 * 1024 * 1024;
