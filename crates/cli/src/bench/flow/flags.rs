//! What a load of messages looks like on the command line.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::super::delivery::AckMode;
use super::super::layout;

/// The messages, who publishes and consumes them, and for how long.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Messages")]
#[group(skip)]
pub(in super::super) struct Flags {
    /// Connections that publish
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(in super::super) producers: u32,
    /// Connections that consume
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(in super::super) consumers: u32,
    /// Body size
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(..=BODY_BYTES_MAX))]
    pub(in super::super) size: u32,
    /// How consumers acknowledge: auto (not at all), each, or N at once
    #[arg(long, value_name = "auto|each|N", default_value = "auto")]
    pub(in super::super) ack: AckMode,
    /// How many unacknowledged deliveries a consumer may have; 0 = any number
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(in super::super) prefetch: u16,
    /// How many messages a producer may have unconfirmed; 0 = publish without confirms
    #[arg(long, value_name = "WINDOW", default_value_t = 0)]
    pub(in super::super) confirm: u32,
    /// Publish persistent messages
    #[arg(long)]
    pub(in super::super) persistent: bool,
    /// How long to measure [default: 10, or with --messages as long as it takes]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in super::super) seconds: Option<u32>,
    /// How long to run before it is measured
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(in super::super) warm_up: u32,
    /// End after so many messages of all producers, received by all queues' consumers; there is no warm-up then
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in super::super) messages: Option<u64>,
    /// Threads for producers, and as many for consumers [default: half the processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(in super::super) threads: Option<u32>,
    #[command(flatten)]
    pub(in super::super) layout: layout::Flags,
}

impl Default for Flags {
    /// As the command line has them.
    fn default() -> Self {
        Self {
            producers: 1,
            consumers: 1,
            size: 16,
            ack: AckMode::Auto,
            prefetch: 0,
            confirm: 0,
            persistent: false,
            seconds: None,
            warm_up: 1,
            messages: None,
            threads: None,
            layout: layout::Flags::default(),
        }
    }
}

impl Flags {
    /// As an object.
    pub(in super::super) fn json(&self) -> Value {
        json!({
            "producers": self.producers,
            "consumers": self.consumers,
            "body_bytes": self.size,
            "ack": self.ack.to_string(),
            "prefetch": self.prefetch,
            "confirm": self.confirm,
            "persistent": self.persistent,
            "durable": self.layout.durable,
            "seconds": self.seconds,
            "warm_up": self.warm_up,
            "messages": self.messages,
            "queue": self.layout.queue,
            "queues": self.layout.queues,
            "exchange": format!("{:?}", self.layout.exchange).to_lowercase(),
            "keys": self.layout.keys,
            "bindings": self.layout.bindings,
        })
    }

    /// In a few words.
    pub(in super::super) fn title(&self) -> String {
        let count = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (producers, consumers) = (count(self.producers, "producer"), count(self.consumers, "consumer"));
        let mut title = format!("{} B bodies, {producers}, {consumers}", self.size);
        if self.layout.queues > 1 {
            title.push_str(&format!(", {} queues", self.layout.queues));
        }
        if self.persistent {
            title.push_str(", persistent");
        }
        if self.confirm > 0 {
            title.push_str(&format!(", confirms of {}", self.confirm));
        }
        if self.ack != AckMode::Auto {
            title.push_str(&format!(", ack {}", self.ack));
        }
        if self.prefetch > 0 {
            title.push_str(&format!(", prefetch {}", self.prefetch));
        }
        match self.messages {
            Some(messages) => title.push_str(&format!(", {} messages", crate::serve::thousands(messages))),
            None => title.push_str(&format!(", {} s", self.seconds())),
        }
        title
    }

    /// How long to measure at most.
    pub(in super::super) fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.messages.is_some() { u32::MAX } else { SECONDS })
    }

    pub(super) fn threads(&self) -> usize {
        let half = || thread::available_parallelism().map_or(1, |processors| processors.get() / 2);
        self.threads.map_or_else(half, |threads| threads as usize).max(1)
    }

    pub(super) fn warm_up(&self) -> Duration {
        Duration::from_secs(if self.messages.is_some() { 0 } else { self.warm_up.into() })
    }
}

/// How long to measure when nothing else is said.
const SECONDS: u32 = 10;

/// The largest body: what RabbitMQ takes at most by default.
const BODY_BYTES_MAX: i64 = 128 * 1024 * 1024;
