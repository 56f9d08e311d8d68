//! The server's configuration: one typed value, made once from what the flags, the environment and a file say.
//!
//! Each of those is read into [`Settings`], where every key may be absent; [`Config::new`] takes each key from the
//! first that has it, fills in the defaults and checks the ranges. Nothing else in the server reads the environment.

mod oauth2;

pub use oauth2::{Alias, OAuth2};

use crate::limits::{self, MemoryLimit};
use crate::rabbitmq_conf;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the server runs by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Holds everything that survives the server.
    pub data_dir: PathBuf,
    /// Where it listens for AMQP.
    pub amqp: Listen,
    /// Where it listens for AMQP over TLS.
    pub amqps: Listen,
    /// Where it serves the HTTP API.
    pub http: Listen,
    /// Where it serves the HTTP API over TLS.
    pub https: Listen,
    /// Where it serves Prometheus metrics.
    pub metrics: Listen,
    /// The least severe messages that are logged.
    pub log: LogLevel,
    /// How they are written.
    pub log_format: LogFormat,
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
    /// How AMQP clients are met over TLS.
    pub tls: TlsConfig,
    /// How HTTP clients are.
    pub https_tls: TlsConfig,
    /// What a client certificate's user is called.
    pub tls_login_from: LoginFrom,
    /// How AMQP clients may log in.
    pub auth_mechanisms: Vec<Mechanism>,
    /// Who is asked who somebody is.
    pub auth_backends: Vec<Backend>,
    /// Whose tokens are believed.
    pub oauth2: Option<OAuth2>,
    /// Pages from these origins may use the HTTP API.
    pub cors_allow_origins: Vec<String>,
    /// How long browsers remember that, in seconds.
    pub cors_max_age_s: u64,
    /// How much the record of changes may take, in bytes; 0 = there is none.
    pub audit_log_bytes: u64,
    /// How much the record of what AMQP clients changed may take, in bytes; 0 = there is none.
    pub audit_clients_bytes: u64,
    /// Every AMQP connection begins with a PROXY header, which says where it really comes from.
    pub proxy_protocol: bool,
    /// What the first start of an empty data directory makes, and what each start loads.
    pub first: FirstStart,
}

impl Config {
    /// Whether the server itself knows users.
    #[must_use]
    pub fn has_internal_users(&self) -> bool {
        self.auth_backends.contains(&Backend::Internal)
    }

    /// Whether this user may log in from this machine only: `guest`, unless the configuration says otherwise.
    #[must_use]
    pub fn is_loopback_user(&self, user: &str) -> bool {
        match &self.first.loopback_users {
            Some(users) => users.iter().any(|only| only == user),
            None => user == "guest",
        }
    }
}

/// A service's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Files of certificates, each with those that lead to its authority behind it. The one whose name a client asks
    /// for is used, else the first.
    pub certificates: Vec<PathBuf>,
    /// Files of their private keys, in the same order.
    pub keys: Vec<PathBuf>,
    /// A file of authorities that clients' certificates may be from.
    pub ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub verify: Verify,
    /// Whether one that has none is refused.
    pub fail_if_no_peer_cert: bool,
    /// The versions spoken.
    pub versions: Vec<TlsVersion>,
}

/// What an empty data directory is filled with (RabbitMQ's `default_*`), and what each start loads (`load_definitions`);
/// `None` = what is usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstStart {
    /// The first user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Its tags.
    pub tags: Option<Vec<String>>,
    /// Its permissions: configure, write, read.
    pub permissions: Option<[String; 3]>,
    /// The first vhost.
    pub vhost: Option<String>,
    /// Who may log in from this machine only.
    pub loopback_users: Option<Vec<String>>,
    /// A file of definitions, loaded at each start.
    pub definitions: Option<PathBuf>,
    /// The type of queues that are declared without one.
    pub queue_type: Option<String>,
}

/// Whether clients are asked for a certificate (RabbitMQ's `ssl_options.verify`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// No.
    #[default]
    None,
    /// Yes, and one that no known authority signed is refused.
    Peer,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which part of a client's certificate is its user's name (RabbitMQ's `ssl_cert_login_from`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginFrom {
    /// The whole subject, as RFC 4514 writes it.
    DistinguishedName,
    /// The subject's common name.
    #[default]
    CommonName,
    /// The first alternative name that is a host's.
    SanDns,
    /// The first that is an e-mail address.
    SanEmail,
    /// The first that is a URI.
    SanUri,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mechanism {
    /// Name and password.
    Plain,
    /// The same in a table.
    AmqPlain,
    /// By client certificate.
    External,
}

/// Who knows users (RabbitMQ's `auth_backends`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The server itself.
    Internal,
    /// The issuer of tokens.
    OAuth2,
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "PLAIN" => Ok(Self::Plain),
            "AMQPLAIN" => Ok(Self::AmqPlain),
            "EXTERNAL" => Ok(Self::External),
            _ => Err(format!("{text:?} is none of PLAIN, AMQPLAIN and EXTERNAL")),
        }
    }
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err("must be 1.2 or 1.3".to_owned()),
        }
    }
}

impl FromStr for LoginFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "distinguished_name" => Ok(Self::DistinguishedName),
            "common_name" => Ok(Self::CommonName),
            "san_dns" => Ok(Self::SanDns),
            "san_email" => Ok(Self::SanEmail),
            "san_uri" => Ok(Self::SanUri),
            _ => Err("must be common_name, distinguished_name, san_dns, san_email or san_uri".to_owned()),
        }
    }
}

impl FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "peer" => Ok(Self::Peer),
            _ => Err("must be none or peer".to_owned()),
        }
    }
}

/// What must not be shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps this to itself.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What it is.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        target.serialize_str("<hidden>")
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
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

/// How log messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// What one source (the flags, the environment, a file) says; `None` = nothing. The keys are [`Config`'s](Config).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "documented in Config, field by field")]
pub struct Settings {
    pub data_dir: Option<PathBuf>,
    #[serde(deserialize_with = "one_or_more")]
    pub amqp: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more")]
    pub amqps: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more")]
    pub http: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more")]
    pub https: Option<Vec<SocketAddr>>,
    #[serde(deserialize_with = "one_or_more")]
    pub metrics: Option<Vec<SocketAddr>>,
    pub log: Option<LogLevel>,
    pub log_format: Option<LogFormat>,
    pub consumer_timeout_ms: Option<u64>,
    pub max_message_bytes: Option<u64>,
    pub heartbeat_s: Option<u16>,
    pub frame_max: Option<u32>,
    pub channel_max: Option<u16>,
    pub shards: Option<u16>,
    pub handshake_timeout_ms: Option<u64>,
    #[serde(deserialize_with = "limits::memory_from_file", serialize_with = "limits::memory_to_file")]
    pub memory_limit: Option<MemoryLimit>,
    #[serde(deserialize_with = "limits::bytes_from_file")]
    pub disk_free_limit: Option<u64>,
    #[serde(deserialize_with = "paths")]
    pub tls_certificate: Option<Vec<PathBuf>>,
    #[serde(deserialize_with = "paths")]
    pub tls_key: Option<Vec<PathBuf>>,
    pub tls_ca: Option<PathBuf>,
    pub tls_verify: Option<Verify>,
    pub tls_fail_if_no_peer_cert: Option<bool>,
    pub tls_versions: Option<Vec<TlsVersion>>,
    pub tls_login_from: Option<LoginFrom>,
    #[serde(deserialize_with = "paths")]
    pub https_certificate: Option<Vec<PathBuf>>,
    #[serde(deserialize_with = "paths")]
    pub https_key: Option<Vec<PathBuf>>,
    pub https_ca: Option<PathBuf>,
    pub https_verify: Option<Verify>,
    pub https_fail_if_no_peer_cert: Option<bool>,
    pub auth_mechanisms: Option<Vec<Mechanism>>,
    pub auth_backends: Option<Vec<Backend>>,
    pub cors_allow_origins: Option<Vec<String>>,
    pub cors_max_age_s: Option<u64>,
    #[serde(deserialize_with = "limits::bytes_from_file")]
    pub audit_log_bytes: Option<u64>,
    #[serde(deserialize_with = "limits::bytes_from_file")]
    pub audit_clients_bytes: Option<u64>,
    pub proxy_protocol: Option<bool>,
    pub default_user: Option<String>,
    pub default_pass: Option<Secret>,
    pub default_user_tags: Option<Vec<String>>,
    pub default_permissions: Option<[String; 3]>,
    pub default_vhost: Option<String>,
    pub default_queue_type: Option<String>,
    pub loopback_users: Option<Vec<String>>,
    pub load_definitions: Option<PathBuf>,
    pub oauth2: Option<OAuth2>,
}

/// A source of settings, and what it is called.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A file's name, or something like `the environment`.
    pub name: String,
    /// What it says.
    pub settings: Settings,
    /// In a file, the line of each key.
    lines: BTreeMap<String, usize>,
    /// What it says in vain: one sentence each, with the file and the line.
    pub warnings: Vec<String>,
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
    /// Keys do not go together.
    #[error("{key}: {why}")]
    Contradiction {
        /// The key that is wrong, or missing.
        key: &'static str,
        /// Why, and what would be right.
        why: String,
    },
    /// One of these, in a file.
    #[error("{file}, line {line}: {why}")]
    InFile {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        why: Box<ConfigError>,
    },
}

impl ConfigError {
    /// The key that is wrong, where it is one.
    fn key(&self) -> Option<&'static str> {
        match self {
            Self::OutOfRange { key, .. } | Self::Contradiction { key, .. } => Some(key),
            Self::NoAddress => Some("amqp"),
            Self::Unreadable { .. } | Self::Malformed { .. } | Self::InFile { .. } => None,
        }
    }
}

impl Source {
    /// Settings that were said elsewhere than in a file.
    #[must_use]
    pub fn new(name: &str, settings: Settings) -> Self {
        Self { name: name.to_owned(), settings, ..Self::default() }
    }

    /// Reads a file: RabbitMQ's format if its name ends in `.conf`, else TOML.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Malformed`].
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        if file.extension().is_some_and(|extension| extension == "conf") {
            let text = read(file)?;
            let conf = rabbitmq_conf::parse(&text);
            let sentence = |(line, what): &(usize, String)| format!("{name}, line {line}: {what}");
            if !conf.errors.is_empty() {
                let lines: Vec<_> = conf.errors.iter().map(|(line, what)| format!("line {line}: {what}")).collect();
                return Err(ConfigError::Malformed { file: file.to_owned(), why: lines.join("\n  ") });
            }
            let lines = conf.lines.into_iter().map(|(key, line)| (key.to_owned(), line)).collect();
            let warnings = conf.warnings.iter().map(sentence).collect();
            return Ok(Self { name, settings: conf.settings, lines, warnings });
        }
        let settings = Settings::from_file(file)?;
        let mut lines = BTreeMap::new();
        let mut table = String::new();
        for (number, line) in (1..).zip(read(file)?.lines()) {
            if let Some((header, _)) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                table = format!("{header}.");
            } else if let Some((key, _)) = line.split_once('=') {
                let key = key.trim().trim_matches('"');
                lines.entry(format!("{table}{key}")).or_insert(number);
            }
        }
        Ok(Self { name, settings, lines, warnings: Vec::new() })
    }

    /// Where it says this key: `leveret.toml, line 3`.
    #[must_use]
    pub fn place_of(&self, key: &str) -> String {
        match self.lines.get(key) {
            Some(line) => format!("{}, line {line}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What is wrong with a TOML file. The line is shown, and goes to the log and over HTTP, unless it may hold a secret.
fn without_secrets(text: &str, why: &toml::de::Error) -> String {
    let before = why.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..before].iter().filter(|octet| **octet == b'\n').count();
    let shown = text.lines().nth(line).unwrap_or_default();
    if ["pass", "secret"].iter().any(|word| shown.contains(word)) {
        let number = line + 1;
        return format!(
            "line {number} cannot be read, and is not shown because of its secret: it must be KEY = \"TEXT\""
        );
    }
    why.to_string().trim_end().to_owned()
}

fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|why| ConfigError::Unreadable { file: file.to_owned(), why })
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Malformed`].
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file)?;
        toml::from_str(&text)
            .map_err(|why| ConfigError::Malformed { file: file.to_owned(), why: without_secrets(&text, &why) })
    }

    fn or(self, other: &Self) -> Self {
        macro_rules! each_or {
            ($($key:ident)*) => { Self { $($key: self.$key.or_else(|| other.$key.clone()),)* } };
        }
        each_or! {
            data_dir amqp amqps http https metrics log log_format consumer_timeout_ms max_message_bytes heartbeat_s frame_max
            channel_max shards handshake_timeout_ms memory_limit disk_free_limit tls_certificate tls_key tls_ca
            tls_verify tls_fail_if_no_peer_cert tls_versions tls_login_from https_certificate https_key https_ca
            https_verify https_fail_if_no_peer_cert auth_mechanisms auth_backends audit_log_bytes audit_clients_bytes proxy_protocol cors_allow_origins cors_max_age_s default_user default_pass
            default_user_tags default_permissions default_vhost default_queue_type loopback_users load_definitions
            oauth2
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
        let tls = TlsConfig {
            certificates: said.tls_certificate.unwrap_or_default(),
            keys: said.tls_key.unwrap_or_default(),
            ca: said.tls_ca,
            verify: said.tls_verify.unwrap_or_default(),
            fail_if_no_peer_cert: said.tls_fail_if_no_peer_cert.unwrap_or(false),
            versions: said.tls_versions.unwrap_or_else(|| vec![TlsVersion::Tls12, TlsVersion::Tls13]),
        };
        // A browser is not asked for a certificate because AMQP clients are.
        let https_tls = TlsConfig {
            certificates: said.https_certificate.unwrap_or_else(|| tls.certificates.clone()),
            keys: said.https_key.unwrap_or_else(|| tls.keys.clone()),
            ca: said.https_ca.or_else(|| tls.ca.clone()),
            verify: said.https_verify.unwrap_or_default(),
            fail_if_no_peer_cert: said.https_fail_if_no_peer_cert.unwrap_or(false),
            versions: tls.versions.clone(),
        };
        let config = Self {
            tls,
            https_tls,
            tls_login_from: said.tls_login_from.unwrap_or_default(),
            auth_mechanisms: said.auth_mechanisms.unwrap_or_else(|| vec![Mechanism::Plain, Mechanism::AmqPlain]),
            // Whoever says whose tokens are believed wants them to be.
            auth_backends: said.auth_backends.unwrap_or_else(|| {
                let tokens = said.oauth2.is_some().then_some(Backend::OAuth2);
                [Backend::Internal].into_iter().chain(tokens).collect()
            }),
            oauth2: said.oauth2,
            cors_allow_origins: said.cors_allow_origins.unwrap_or_default(),
            cors_max_age_s: said.cors_max_age_s.unwrap_or(1_728_000),
            audit_log_bytes: said.audit_log_bytes.unwrap_or(16 << 20),
            audit_clients_bytes: said.audit_clients_bytes.unwrap_or(4 << 20),
            proxy_protocol: said.proxy_protocol.unwrap_or(false),
            first: FirstStart {
                user: said.default_user,
                password: said.default_pass,
                tags: said.default_user_tags,
                permissions: said.default_permissions,
                vhost: said.default_vhost,
                loopback_users: said.loopback_users,
                definitions: said.load_definitions,
                queue_type: said.default_queue_type,
            },
            amqps: Listen { addresses: said.amqps.unwrap_or_default(), by_default: false },
            https: Listen { addresses: said.https.unwrap_or_default(), by_default: false },
            data_dir: said.data_dir.unwrap_or_else(|| PathBuf::from("./leveret-data")),
            amqp: Listen::or_loopback(said.amqp, 5672),
            http: Listen::or_loopback(said.http, 15672),
            metrics: Listen::or_loopback(said.metrics, 15692),
            log: said.log.unwrap_or(LogLevel::Info),
            log_format: said.log_format.unwrap_or_default(),
            consumer_timeout_ms: said.consumer_timeout_ms.unwrap_or(30 * 60 * 1000),
            max_message_bytes: said.max_message_bytes.unwrap_or(128 << 20),
            heartbeat_s: said.heartbeat_s.unwrap_or(60),
            frame_max: said.frame_max.unwrap_or(128 << 10),
            channel_max: said.channel_max.unwrap_or(2047),
            shards: said.shards.unwrap_or(1),
            handshake_timeout_ms: said.handshake_timeout_ms.unwrap_or(10_000),
            memory_limit: said.memory_limit.unwrap_or(MemoryLimit::DEFAULT),
            disk_free_limit: said.disk_free_limit.unwrap_or(DISK_FREE_LIMIT),
        };
        config.check()
    }

    /// The same of sources that can say where they say what.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] and the like, in [`ConfigError::InFile`] where it is in one.
    pub fn from_sources(sources: &[Source]) -> Result<Self, ConfigError> {
        let settings: Vec<_> = sources.iter().map(|source| source.settings.clone()).collect();
        Self::new(&settings).map_err(|error| {
            let found = error.key().and_then(|key| {
                let source = sources.iter().find(|source| said_by(source).iter().any(|(said, _)| said == key))?;
                source.lines.get(key).map(|line| (source.name.clone(), *line))
            });
            match found {
                Some((file, line)) => ConfigError::InFile { file, line, why: Box::new(error) },
                None => error,
            }
        })
    }

    /// Each key with its value as TOML and where that is from, in the order in which keys are documented. Keys that have
    /// no value are left out, and secrets hidden.
    #[must_use]
    pub fn explain(&self, sources: &[Source]) -> Vec<(String, String, String)> {
        let effective = Source::new("default", self.settings());
        let place = |key: &str| {
            let source = sources.iter().find(|source| said_by(source).iter().any(|(said, _)| said == key));
            source.map_or_else(|| "default".to_owned(), |source| source.place_of(key))
        };
        said_by(&effective)
            .into_iter()
            .map(|(key, value)| (place(&key), key, value))
            .map(|(p, k, v)| (k, v, p))
            .collect()
    }

    /// How clients may log in, as AMQP lists it.
    pub(crate) fn mechanisms(&self) -> String {
        let names = self.auth_mechanisms.iter().map(|mechanism| match mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::AmqPlain => "AMQPLAIN",
            Mechanism::External => "EXTERNAL",
        });
        names.collect::<Vec<_>>().join(" ")
    }

    /// What would have to be said for this.
    fn settings(&self) -> Settings {
        let config = self.clone();
        let (tls, https, first) = (config.tls, config.https_tls, config.first);
        Settings {
            data_dir: Some(config.data_dir),
            amqp: Some(config.amqp.addresses),
            amqps: Some(config.amqps.addresses),
            http: Some(config.http.addresses),
            https: Some(config.https.addresses),
            metrics: Some(config.metrics.addresses),
            log: Some(config.log),
            log_format: Some(config.log_format),
            consumer_timeout_ms: Some(config.consumer_timeout_ms),
            max_message_bytes: Some(config.max_message_bytes),
            heartbeat_s: Some(config.heartbeat_s),
            frame_max: Some(config.frame_max),
            channel_max: Some(config.channel_max),
            shards: Some(config.shards),
            handshake_timeout_ms: Some(config.handshake_timeout_ms),
            memory_limit: Some(config.memory_limit),
            disk_free_limit: Some(config.disk_free_limit),
            tls_certificate: Some(tls.certificates),
            tls_key: Some(tls.keys),
            tls_ca: tls.ca,
            tls_verify: Some(tls.verify),
            tls_fail_if_no_peer_cert: Some(tls.fail_if_no_peer_cert),
            tls_versions: Some(tls.versions),
            tls_login_from: Some(config.tls_login_from),
            https_certificate: Some(https.certificates),
            https_key: Some(https.keys),
            https_ca: https.ca,
            https_verify: Some(https.verify),
            https_fail_if_no_peer_cert: Some(https.fail_if_no_peer_cert),
            auth_mechanisms: Some(config.auth_mechanisms),
            auth_backends: Some(config.auth_backends),
            oauth2: config.oauth2,
            cors_allow_origins: Some(config.cors_allow_origins),
            cors_max_age_s: Some(config.cors_max_age_s),
            audit_log_bytes: Some(config.audit_log_bytes),
            audit_clients_bytes: Some(config.audit_clients_bytes),
            proxy_protocol: Some(config.proxy_protocol),
            default_user: first.user,
            default_pass: first.password,
            default_user_tags: first.tags,
            default_permissions: first.permissions,
            default_vhost: first.vhost,
            default_queue_type: first.queue_type,
            loopback_users: first.loopback_users,
            load_definitions: first.definitions,
        }
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
            c if c.auth_mechanisms.is_empty() => {
                Err(contradiction("auth_mechanisms", "nobody could log in; name PLAIN, AMQPLAIN or EXTERNAL"))
            }
            c if c.auth_backends.is_empty() => {
                Err(contradiction("auth_backends", "nobody could log in; name internal or oauth2"))
            }
            c if c.auth_backends.contains(&Backend::OAuth2) && c.oauth2.is_none() => Err(contradiction(
                "auth_backends",
                "oauth2 needs to know whose tokens to believe: oauth2.resource_server_id and oauth2.issuer",
            )),
            c => {
                c.oauth2.as_ref().map_or(Ok(()), OAuth2::check)?;
                c.tls.check(!c.amqps.addresses.is_empty(), ["amqps", "tls_certificate", "tls_key", "tls_ca"])?;
                c.https_tls
                    .check(!c.https.addresses.is_empty(), ["https", "https_certificate", "https_key", "https_ca"])?;
                Ok(self)
            }
        }
    }
}

impl TlsConfig {
    /// `keys` name the listener, its certificate, its key and its authorities.
    fn check(&self, is_used: bool, keys: [&'static str; 4]) -> Result<(), ConfigError> {
        let [listener, certificate, key, ca] = keys;
        if self.certificates.len() != self.keys.len() {
            let (certificates, keys) = (self.certificates.len(), self.keys.len());
            return Err(contradiction(
                key,
                &format!("{certificates} certificates need as many keys, in the same order, and there are {keys}"),
            ));
        }
        if is_used && self.certificates.is_empty() {
            return Err(contradiction(
                listener,
                &format!("TLS needs a certificate and its key: {certificate} = \"FILE\" and {key} = \"FILE\""),
            ));
        }
        if is_used && self.versions.is_empty() {
            return Err(contradiction("tls_versions", "no version is left: name \"1.2\" or \"1.3\""));
        }
        if is_used && self.verify == Verify::Peer && self.ca.is_none() {
            return Err(contradiction(
                ca,
                "to verify clients' certificates takes a file of authorities that they may be from",
            ));
        }
        Ok(())
    }
}

fn contradiction(key: &'static str, why: &str) -> ConfigError {
    ConfigError::Contradiction { key, why: why.to_owned() }
}

/// The keys that a source says, with their values as TOML, in order. (JSON's scalars and lists are TOML's.)
fn said_by(source: &Source) -> Vec<(String, String)> {
    let said = serde_json::to_value(&source.settings).unwrap_or_default();
    let mut keys = Vec::new();
    flatten("", &said, &mut keys);
    keys
}

/// A table's keys stand behind its own and a dot.
fn flatten(path: &str, table: &serde_json::Value, keys: &mut Vec<(String, String)>) {
    for (key, value) in table.as_object().into_iter().flatten() {
        let is_bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') && !key.is_empty();
        let key = if is_bare { key.clone() } else { serde_json::Value::from(key.as_str()).to_string() };
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Object(_) => flatten(&format!("{path}{key}."), value, keys),
            value => keys.push((format!("{path}{key}"), value.to_string())),
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

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Text, Self::Json];
        let found = known.into_iter().find(|format| format!("{format:?}").eq_ignore_ascii_case(text));
        found.ok_or_else(|| "must be text or json".to_owned())
    }
}

/// Reads `ADDR:PORT`.
///
/// # Errors
/// A sentence with an example.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not ADDR:PORT, such as 127.0.0.1:5672 or [::1]:5672"))
}

/// A file's name, or a list of them.
fn paths<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected \"FILE\" or a list of them")]
    enum OneOrMore {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(Some(match OneOrMore::deserialize(source)? {
        OneOrMore::One(path) => vec![path],
        OneOrMore::More(paths) => paths,
    }))
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
    fn a_line_that_holds_a_secret_is_not_shown_when_it_is_wrong() {
        for line in
            ["default_pass = sesame", "default_pass = 'sesame", "default_pass = ['sesame']", "default_pass 'sesame'"]
        {
            let error = file(&format!("shards = 1\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && !error.contains("sesame"), "{error}");
        }
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
    fn tls_needs_a_certificate_and_what_is_wrong_is_found_in_its_file() {
        let check = |text: &str| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("leveret.toml");
            std::fs::write(&path, text).unwrap();
            let error = Config::from_sources(&[Source::from_file(&path).unwrap()]).unwrap_err().to_string();
            error.split_once("leveret.toml, ").map_or(error.clone(), |(_, rest)| rest.to_owned())
        };
        assert_eq!(
            check("\namqps = '127.0.0.1:5671'"),
            "line 2: amqps: TLS needs a certificate and its key: tls_certificate = \"FILE\" and tls_key = \"FILE\""
        );
        assert_eq!(
            check("tls_certificate = ['a', 'b']\ntls_key = 'a'"),
            "line 2: tls_key: 2 certificates need as many keys, in the same order, and there are 1"
        );
        assert_eq!(
            check("frame_max = 5"),
            "line 1: frame_max = 5 is out of range: it must be from 4096 to 16777216 bytes"
        );
        assert!(check("amqps='[::1]:1'\ntls_certificate='a'\ntls_key='a'\ntls_verify='peer'").starts_with("tls_ca: "));
        assert!(check("auth_mechanisms = []").starts_with("line 1: auth_mechanisms: nobody could log in"));
    }

    #[test]
    fn each_value_is_shown_with_where_it_is_from_and_secrets_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leveret.toml");
        std::fs::write(&path, "heartbeat_s = 3\ndefault_pass = 'sesame'\ntls_key = []").unwrap();
        let flags = Settings { shards: Some(2), ..Settings::default() };
        let sources = [Source::new("the command line", flags), Source::from_file(&path).unwrap()];
        let config = Config::from_sources(&sources).unwrap();
        let shown = config.explain(&sources);
        let of = |key: &str| {
            let (_, value, place) = shown.iter().find(|(name, ..)| name == key).unwrap();
            (value.as_str(), place.rsplit('/').next().unwrap())
        };
        assert_eq!(of("heartbeat_s"), ("3", "leveret.toml, line 1"));
        assert_eq!(of("shards"), ("2", "the command line"));
        assert_eq!(of("frame_max"), ("131072", "default"));
        assert_eq!(of("amqp"), ("[\"127.0.0.1:5672\",\"[::1]:5672\"]", "default"));
        assert_eq!(of("default_pass"), ("\"<hidden>\"", "leveret.toml, line 2"));
        assert!(!format!("{config:?}{shown:?}{sources:?}").contains("sesame"));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let config = Config::new(&[]).unwrap();
        let text: String =
            config.explain(&[]).into_iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
        let again = Config::new(&[file(&text).unwrap()]).unwrap();
        assert_eq!(again.settings(), config.settings());
    }

    #[test]
    fn oauth_2_needs_to_know_whom_to_believe_and_a_table_is_shown_key_by_key() {
        let check = |text: &str| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("leveret.toml");
            std::fs::write(&path, text).unwrap();
            let source = Source::from_file(&path).map_err(|why| why.to_string())?;
            let config = Config::from_sources(std::slice::from_ref(&source)).map_err(|why| why.to_string())?;
            Ok::<_, String>((config.clone(), config.explain(&[source])))
        };
        let text = "shards = 1\n[oauth2]\nresource_server_id = 'rabbitmq'\nissuer = 'https://sso.example'\n\
                    [oauth2.scope_aliases]\n'a b' = 'rabbitmq.read:*/*'\n";
        let (config, shown) = check(text).unwrap();
        assert_eq!(config.auth_backends, [Backend::Internal, Backend::OAuth2]);
        let of =
            |key: &str| shown.iter().find(|(name, ..)| name == key).map(|(_, value, place)| (value.as_str(), place));
        assert_eq!(of("oauth2.issuer").unwrap().0, "\"https://sso.example\"");
        assert!(of("oauth2.issuer").unwrap().1.ends_with("leveret.toml, line 4"));
        assert_eq!(of("oauth2.scope_aliases.\"a b\"").unwrap().0, "\"rabbitmq.read:*/*\"");
        let again: String = shown.iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
        assert_eq!(check(&again).unwrap().0.oauth2, config.oauth2, "what is shown can be read again");
        for (text, why) in [
            ("auth_backends = ['oauth2']", "auth_backends: oauth2 needs to know whose tokens to believe"),
            ("auth_backends = []", "auth_backends: nobody could log in"),
            ("[oauth2]\nissuer = 'https://sso.example'", "oauth2.resource_server_id: "),
            ("[oauth2]\nresource_server_id = 'r'", "oauth2.issuer: nobody's tokens could be checked"),
            ("[oauth2]\nresource_server_id = 'r'\nissuer = 'http://sso.example'", "line 3: oauth2.issuer: "),
            ("[oauth2]\nresource_server_id = 'r'\njwks_file = 'k'\nalgorithms = ['none']", "\"none\" is none of"),
            ("[oauth2]\nresource_server = 'r'", "unknown field `resource_server`"),
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn log_levels_are_read_in_any_case() {
        assert_eq!("DEBUG".parse(), Ok(LogLevel::Debug));
        assert!("verbose".parse::<LogLevel>().is_err());
        assert_eq!("JSON".parse(), Ok(LogFormat::Json));
        assert_eq!(file("log_format = 'json'").unwrap().log_format, Some(LogFormat::Json));
    }
}
