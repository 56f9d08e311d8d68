//! The server's configuration: one typed value, made once from what the flags, the environment and a file say.
//!
//! Each of those is read into [`Settings`], where every key may be absent; [`Config::new`] takes each key from the
//! first that has it, fills in the defaults and checks the ranges. Nothing else in the server reads the environment.

use crate::limits::{self, MemoryLimit};
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What the server runs by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Holds everything that survives the server.
    pub data_dir: PathBuf,
    /// Where it listens for AMQP.
    pub amqp: Listen,
    /// Where it serves the HTTP API.
    pub http: Listen,
    /// Where it serves Prometheus metrics.
    pub metrics: Listen,
    /// The least severe messages that are logged.
    pub log: LogLevel,
    /// How long a delivery may stay unacknowledged, in milliseconds; 0 = for ever.
    pub consumer_timeout_ms: u64,
    /// The largest message body, in bytes.
    pub max_message_bytes: u64,
    /// The heartbeat that clients are offered, in seconds; 0 = none.
    pub heartbeat_s: u16,
    /// The frame size that clients are offered, in bytes.
    pub frame_max: u32,
    /// The highest channel number that clients are offered.
    pub channel_max: u16,
    /// How many shards own the queues, at least.
    pub shards: u16,
    /// How long a client may take to open its connection, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// How much memory the server may take before publishers are blocked, to begin with.
    pub memory_limit: MemoryLimit,
    /// How much of the data directory's disk must be free, or else publishers are blocked, in bytes, to begin with.
    pub disk_free_limit: u64,
    /// Users who can log in from this machine only.
    pub loopback_users: Vec<String>,
    /// A file of definitions that is imported at each start.
    pub load_definitions: Option<PathBuf>,
}

/// Addresses to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The addresses; none = this service is off.
    pub addresses: Vec<SocketAddr>,
    /// Nobody asked for them, so that one whose IP version this machine lacks is only noted.
    pub by_default: bool,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What one source (the flags, the environment, a file) says; `None` = nothing. The keys are [`Config`]'s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in Config, field by field")]
pub struct Settings {
    pub data_dir: Option<PathBuf>,
    #[serde(deserialize_with = "one_or_more", default)]
    pub amqp: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more", default)]
    pub http: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more", default)]
    pub metrics: Option<Vec<SocketAddr>>,
    pub log: Option<LogLevel>,
    pub consumer_timeout_ms: Option<u64>,
    pub max_message_bytes: Option<u64>,
    pub heartbeat_s: Option<u16>,
    pub frame_max: Option<u32>,
    pub channel_max: Option<u16>,
    pub shards: Option<u16>,
    pub handshake_timeout_ms: Option<u64>,
    #[serde(deserialize_with = "limits::memory_from_file", default)]
    pub memory_limit: Option<MemoryLimit>,
    #[serde(deserialize_with = "limits::bytes_from_file", default)]
    pub disk_free_limit: Option<u64>,
    pub loopback_users: Option<Vec<String>>,
    pub load_definitions: Option<PathBuf>,
}

/// Why there is no configuration. Its text is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {file} cannot be read: {why}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The file does not make sense.
    #[error("the configuration file {file} is wrong: {why}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where and why; for an unknown key, it and the known ones.
        why: String,
    },
    /// A value cannot be served.
    #[error("{key} = {value} is out of range: it must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What was asked for.
        value: u64,
        /// What can be had.
        range: &'static str,
    },
    /// A list that must not be empty is.
    #[error("amqp names no address: the server would serve nobody; give it one, such as amqp = \"127.0.0.1:5672\"")]
    NoAddress,
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Malformed`].
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|why| ConfigError::Unreadable { file: file.to_owned(), why })?;
        toml::from_str(&text)
            .map_err(|why| ConfigError::Malformed { file: file.to_owned(), why: why.to_string().trim_end().to_owned() })
    }

    fn or(self, other: &Self) -> Self {
        Self {
            data_dir: self.data_dir.or_else(|| other.data_dir.clone()),
            amqp: self.amqp.or_else(|| other.amqp.clone()),
            http: self.http.or_else(|| other.http.clone()),
            metrics: self.metrics.or_else(|| other.metrics.clone()),
            log: self.log.or(other.log),
            consumer_timeout_ms: self.consumer_timeout_ms.or(other.consumer_timeout_ms),
            max_message_bytes: self.max_message_bytes.or(other.max_message_bytes),
            heartbeat_s: self.heartbeat_s.or(other.heartbeat_s),
            frame_max: self.frame_max.or(other.frame_max),
            channel_max: self.channel_max.or(other.channel_max),
            shards: self.shards.or(other.shards),
            handshake_timeout_ms: self.handshake_timeout_ms.or(other.handshake_timeout_ms),
            memory_limit: self.memory_limit.or(other.memory_limit),
            disk_free_limit: self.disk_free_limit.or(other.disk_free_limit),
            loopback_users: self.loopback_users.or_else(|| other.loopback_users.clone()),
            load_definitions: self.load_definitions.or_else(|| other.load_definitions.clone()),
        }
    }
}

impl Config {
    /// Takes each key from the first of `sources` that has it, else its default.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] and [`ConfigError::NoAddress`].
    pub fn new(sources: &[Settings]) -> Result<Self, ConfigError> {
        let said = sources.iter().fold(Settings::default(), |earlier, later| earlier.or(later));
        let config = Self {
            data_dir: said.data_dir.unwrap_or_else(|| PathBuf::from("./leveret-data")),
            amqp: Listen::or_loopback(said.amqp, 5672),
            http: Listen::or_loopback(said.http, 15672),
            metrics: Listen::or_loopback(said.metrics, 15692),
            log: said.log.unwrap_or(LogLevel::Info),
            consumer_timeout_ms: said.consumer_timeout_ms.unwrap_or(30 * 60 * 1000),
            max_message_bytes: said.max_message_bytes.unwrap_or(128 << 20),
            heartbeat_s: said.heartbeat_s.unwrap_or(60),
            frame_max: said.frame_max.unwrap_or(128 << 10),
            channel_max: said.channel_max.unwrap_or(2047),
            shards: said.shards.unwrap_or(1),
            handshake_timeout_ms: said.handshake_timeout_ms.unwrap_or(10_000),
            memory_limit: said.memory_limit.unwrap_or(MemoryLimit::DEFAULT),
            disk_free_limit: said.disk_free_limit.unwrap_or(DISK_FREE_LIMIT),
            loopback_users: said.loopback_users.unwrap_or_else(|| vec!["guest".to_owned()]),
            load_definitions: said.load_definitions,
        };
        config.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        let out_of_range = |key, value, range| Err(ConfigError::OutOfRange { key, value, range });
        match &self {
            c if c.amqp.addresses.is_empty() => Err(ConfigError::NoAddress),
            c if c.max_message_bytes > MESSAGE_BYTES_CAP => {
                out_of_range("max_message_bytes", c.max_message_bytes, "at most 536870912 (512 MiB)")
            }
            // AMQP's frame-min-size; and a frame is buffered whole, by each connection.
            c if !(4096..=16 << 20).contains(&c.frame_max) => {
                out_of_range("frame_max", c.frame_max.into(), "from 4096 to 16777216 bytes")
            }
            c if c.channel_max == 0 => out_of_range("channel_max", 0, "at least 1"),
            c if !(1..=64).contains(&c.shards) => out_of_range("shards", c.shards.into(), "from 1 to 64"),
            c if c.handshake_timeout_ms == 0 => out_of_range("handshake_timeout_ms", 0, "at least 1"),
            _ => Ok(self),
        }
    }
}

impl Listen {
    fn or_loopback(asked: Option<Vec<SocketAddr>>, port: u16) -> Self {
        match asked {
            Some(addresses) => Self { addresses, by_default: false },
            None => Self {
                addresses: vec![([127, 0, 0, 1], port).into(), ([0, 0, 0, 0, 0, 0, 0, 1], port).into()],
                by_default: true,
            },
        }
    }
}

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        let found = known.into_iter().find(|level| format!("{level:?}").eq_ignore_ascii_case(text));
        found.ok_or_else(|| "must be off, error, warn, info, debug or trace".to_owned())
    }
}

/// Reads `ADDR:PORT`.
///
/// # Errors
/// A sentence with an example.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not ADDR:PORT, such as 127.0.0.1:5672 or [::1]:5672"))
}

/// One address as a string, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Vec<SocketAddr>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected \"ADDR:PORT\" or a list of them")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let texts = match OneOrMore::deserialize(source)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    let addresses: Result<Vec<_>, _> = texts.iter().map(|text| parse_address(text)).collect();
    addresses.map(Some).map_err(serde::de::Error::custom)
}

/// What `max_message_bytes` may be at most: a record of the log has to hold the message.
const MESSAGE_BYTES_CAP: u64 = 512 << 20;

/// RabbitMQ's default, 50 MB.
const DISK_FREE_LIMIT: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leveret.toml");
        std::fs::write(&path, text).unwrap();
        Settings::from_file(&path)
    }

    #[test]
    fn without_sources_the_server_listens_on_both_loopbacks() {
        let config = Config::new(&[]).unwrap();
        assert_eq!(config.data_dir, Path::new("./leveret-data"));
        let shown: Vec<_> = config.amqp.addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:5672", "[::1]:5672"]);
        assert!(config.amqp.by_default);
        assert_eq!((config.consumer_timeout_ms, config.heartbeat_s, config.frame_max), (1_800_000, 60, 131_072));
    }

    #[test]
    fn an_earlier_source_wins_key_by_key() {
        let flags = Settings { heartbeat_s: Some(1), ..Settings::default() };
        let environment = Settings { heartbeat_s: Some(2), shards: Some(2), ..Settings::default() };
        let file = file("heartbeat_s = 3\nshards = 3\nframe_max = 8192\namqp = '127.0.0.1:1'").unwrap();
        let config = Config::new(&[flags, environment, file]).unwrap();
        assert_eq!((config.heartbeat_s, config.shards, config.frame_max), (1, 2, 8192));
        assert_eq!(config.amqp, Listen { addresses: vec![([127, 0, 0, 1], 1).into()], by_default: false });
    }

    #[test]
    fn a_file_may_name_several_addresses_or_none() {
        let read =
            file("amqp = ['0.0.0.0:1', '[::]:1']\nhttp = []\nlog = 'debug'\ndata_dir = '/var/lib/leveret'").unwrap();
        assert_eq!(read.amqp.unwrap().len(), 2);
        assert_eq!(read.http.unwrap(), []);
        assert_eq!(read.log, Some(LogLevel::Debug));
    }

    #[test]
    fn limits_may_be_numbers_or_sizes() {
        for (text, memory, disk) in [
            ("", None, None),
            ("memory_limit = 0.4\ndisk_free_limit = '2GB'", Some("0.4"), Some(2_000_000_000)),
            ("memory_limit = '512MiB'\ndisk_free_limit = 0", Some("536870912"), Some(0)),
            ("memory_limit = 4096\ndisk_free_limit = 1024", Some("4096"), Some(1024)),
        ] {
            let read = file(text).unwrap();
            assert_eq!(read.memory_limit.map(|limit| limit.to_string()).as_deref(), memory, "{text}");
            assert_eq!(read.disk_free_limit, disk, "{text}");
        }
        let config = Config::new(&[]).unwrap();
        assert_eq!((config.memory_limit, config.disk_free_limit), (MemoryLimit::DEFAULT, 50_000_000));
    }

    #[test]
    fn an_unknown_key_is_named_beside_the_known_ones() {
        let text = file("heartbeat = 3").unwrap_err().to_string();
        assert!(text.contains("leveret.toml"), "{text}");
        assert!(text.contains("`heartbeat`") && text.contains("`heartbeat_s`"), "{text}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_would_be_right() {
        let cases = [
            ("amqp = 'localhost'", "\"localhost\" is not ADDR:PORT, such as 127.0.0.1:5672"),
            ("amqp = 5672", "expected \"ADDR:PORT\" or a list of them"),
            ("log = 'loud'", "expected one of `off`, `error`"),
            ("heartbeat_s = -1", "heartbeat_s"),
            ("memory_limit = 1.5", "neither a size"),
            ("memory_limit = true", "expected a number, or a size"),
            ("disk_free_limit = 'some'", "such as 50MB"),
        ];
        for (text, expected) in cases {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let refused = |settings| Config::new(&[settings]).unwrap_err().to_string();
        let none = Settings::default;
        assert_eq!(
            refused(Settings { max_message_bytes: Some(1 << 30), ..none() }),
            "max_message_bytes = 1073741824 is out of range: it must be at most 536870912 (512 MiB)"
        );
        for settings in [
            Settings { frame_max: Some(4095), ..none() },
            Settings { shards: Some(0), ..none() },
            Settings { channel_max: Some(0), ..none() },
            Settings { amqp: Some(vec![]), ..none() },
        ] {
            assert!(!refused(settings).is_empty());
        }
    }

    #[test]
    fn log_levels_are_read_in_any_case() {
        assert_eq!("DEBUG".parse(), Ok(LogLevel::Debug));
        assert!("verbose".parse::<LogLevel>().is_err());
    }
}
