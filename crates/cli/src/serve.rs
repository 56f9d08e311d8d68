//! `leveret serve`: the server as a process. Flags, logs, signals, limits, the line that says it is ready, exit codes.

use crate::log_flood::LogFlood;
use crate::notify;
use crate::otel_environment;
use crate::start_pages::StartPages;
use clap::Args;
use server::Server;
use server::config::{
    Config, ConfigError, LogFormat, LogLevel, LoginFrom, Mechanism, Settings, Source, TlsVersion, Verify, parse_address,
};
use server::limits::{MemoryLimit, parse_bytes};
use server::recent_log::RecentLog;
use server::reload::Reload;
use std::fmt::{Debug, Display};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// What can be said to the server on the command line, and in the environment.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// A TOML file of settings, whose keys are the flags' names, with underscores; or a rabbitmq.conf, by its ending
    #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Holds everything that survives the server [default: ./leveret-data]
    #[arg(long, value_name = "DIR", env = "LEVERET_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for AMQP; may be repeated [default: 127.0.0.1:5672 and [::1]:5672]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_AMQP", value_delimiter = ',', value_parser = parse_address)]
    amqp: Option<Vec<SocketAddr>>,
    /// Where to listen for AMQP over TLS; may be repeated [default: nowhere; the usual port is 5671]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_AMQPS", value_delimiter = ',', value_parser = parse_address)]
    amqps: Option<Vec<SocketAddr>>,
    /// Where to serve the HTTP API over TLS; may be repeated [default: nowhere; the usual port is 15671]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_HTTPS", value_delimiter = ',', value_parser = parse_address)]
    https: Option<Vec<SocketAddr>>,
    /// Where to serve the HTTP API; may be repeated [default: 127.0.0.1:15672 and [::1]:15672]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_HTTP", value_delimiter = ',', value_parser = parse_address)]
    http: Option<Vec<SocketAddr>>,
    /// Where to serve Prometheus metrics; may be repeated [default: 127.0.0.1:15692 and [::1]:15692]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_METRICS", value_delimiter = ',', value_parser = parse_address)]
    metrics: Option<Vec<SocketAddr>>,
    /// What to log to stderr: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LEVERET_LOG")]
    log: Option<LogLevel>,
    /// A PEM file: the certificate to show, and those that lead to its authority; may be repeated, for other names
    #[arg(long, value_name = "FILE", env = "LEVERET_TLS_CERTIFICATE", value_delimiter = ',', help_heading = TLS)]
    tls_certificate: Option<Vec<PathBuf>>,
    /// A PEM file: the certificate's private key; as often as certificates
    #[arg(long, value_name = "FILE", env = "LEVERET_TLS_KEY", value_delimiter = ',', help_heading = TLS)]
    tls_key: Option<Vec<PathBuf>>,
    /// A PEM file: the authorities that clients' certificates may be from
    #[arg(long, value_name = "FILE", env = "LEVERET_TLS_CA", help_heading = TLS)]
    tls_ca: Option<PathBuf>,
    /// Whether to ask clients for a certificate: none or peer [default: none]
    #[arg(long, value_name = "WHOM", env = "LEVERET_TLS_VERIFY", help_heading = TLS)]
    tls_verify: Option<Verify>,
    /// Refuse clients that have no certificate [default: false]
    #[arg(long, value_name = "BOOL", env = "LEVERET_TLS_FAIL_IF_NO_PEER_CERT", help_heading = TLS)]
    tls_fail_if_no_peer_cert: Option<bool>,
    /// The versions spoken: 1.2, 1.3; may be repeated [default: both]
    #[arg(long, value_name = "VERSION", env = "LEVERET_TLS_VERSIONS", value_delimiter = ',', help_heading = TLS)]
    tls_versions: Option<Vec<TlsVersion>>,
    /// What a client certificate's user is called by: common_name, distinguished_name, san_dns, san_email or san_uri
    /// [default: common_name]
    #[arg(long, value_name = "PART", env = "LEVERET_TLS_LOGIN_FROM", help_heading = TLS)]
    tls_login_from: Option<LoginFrom>,
    /// The same for HTTPS [default: that of --tls-certificate]
    #[arg(long, value_name = "FILE", env = "LEVERET_HTTPS_CERTIFICATE", value_delimiter = ',', help_heading = TLS)]
    https_certificate: Option<Vec<PathBuf>>,
    /// The same for HTTPS [default: that of --tls-key]
    #[arg(long, value_name = "FILE", env = "LEVERET_HTTPS_KEY", value_delimiter = ',', help_heading = TLS)]
    https_key: Option<Vec<PathBuf>>,
    /// The same for HTTPS [default: that of --tls-ca]
    #[arg(long, value_name = "FILE", env = "LEVERET_HTTPS_CA", help_heading = TLS)]
    https_ca: Option<PathBuf>,
    /// Whether to ask HTTPS clients for a certificate: none or peer [default: none]
    #[arg(long, value_name = "WHOM", env = "LEVERET_HTTPS_VERIFY", help_heading = TLS)]
    https_verify: Option<Verify>,
    /// Refuse HTTPS clients that have no certificate [default: false]
    #[arg(long, value_name = "BOOL", env = "LEVERET_HTTPS_FAIL_IF_NO_PEER_CERT", help_heading = TLS)]
    https_fail_if_no_peer_cert: Option<bool>,
    /// How clients may log in: PLAIN, AMQPLAIN, EXTERNAL; may be repeated [default: PLAIN and AMQPLAIN]
    #[arg(long, value_name = "NAME", env = "LEVERET_AUTH_MECHANISMS", value_delimiter = ',', help_heading = TLS)]
    auth_mechanisms: Option<Vec<Mechanism>>,
    /// Every AMQP connection begins with a PROXY header, version 1 or 2, from a load balancer [default: false]
    #[arg(long, value_name = "BOOL", env = "LEVERET_PROXY_PROTOCOL", help_heading = TLS)]
    proxy_protocol: Option<bool>,
    /// How to write it: text, or json for an object a line [default: text]
    #[arg(long, value_name = "FORMAT", env = "LEVERET_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// How long a delivery may stay unacknowledged, in ms; 0 = for ever [default: 1800000]
    #[arg(long, value_name = "MS", env = "LEVERET_CONSUMER_TIMEOUT_MS", help_heading = LIMITS)]
    consumer_timeout_ms: Option<u64>,
    /// The largest message body [default: 134217728]
    #[arg(long, value_name = "BYTES", env = "LEVERET_MAX_MESSAGE_BYTES", help_heading = LIMITS)]
    max_message_bytes: Option<u64>,
    /// The heartbeat that clients are offered, in seconds; 0 = none [default: 60]
    #[arg(long, value_name = "S", env = "LEVERET_HEARTBEAT_S", help_heading = LIMITS)]
    heartbeat_s: Option<u16>,
    /// The frame size that clients are offered [default: 131072]
    #[arg(long, value_name = "BYTES", env = "LEVERET_FRAME_MAX", help_heading = LIMITS)]
    frame_max: Option<u32>,
    /// The highest channel number that clients are offered [default: 2047]
    #[arg(long, value_name = "NUMBER", env = "LEVERET_CHANNEL_MAX", help_heading = LIMITS)]
    channel_max: Option<u16>,
    /// How many shards own the queues; a data directory keeps those it has [default: 1]
    #[arg(long, value_name = "COUNT", env = "LEVERET_SHARDS", help_heading = LIMITS)]
    shards: Option<u16>,
    /// How long a client may take to open its connection, in ms [default: 10000]
    #[arg(long, value_name = "MS", env = "LEVERET_HANDSHAKE_TIMEOUT_MS", help_heading = LIMITS)]
    handshake_timeout_ms: Option<u64>,
    /// The memory past which publishers are blocked: a share of what there is, or a size such as 512MiB [default: 0.6]
    #[arg(long, value_name = "LIMIT", env = "LEVERET_MEMORY_LIMIT", help_heading = LIMITS)]
    memory_limit: Option<MemoryLimit>,
    /// The free disk space below which publishers are blocked, such as 2GB [default: 50MB]
    #[arg(long, value_name = "SIZE", env = "LEVERET_DISK_FREE_LIMIT", value_parser = parse_bytes, help_heading = LIMITS)]
    disk_free_limit: Option<u64>,
    /// Users who can log in from this machine only, with commas between; empty = none [default: guest]
    #[arg(long, value_name = "USERS", env = "LEVERET_LOOPBACK_USERS", value_delimiter = ',', help_heading = ACCESS)]
    loopback_users: Option<Vec<String>>,
    /// How much the record of who changed what may take, such as 16MiB; 0 = there is none [default: 16MiB]
    #[arg(long, value_name = "SIZE", env = "LEVERET_AUDIT_LOG_BYTES", value_parser = parse_bytes, help_heading = ACCESS)]
    audit_log_bytes: Option<u64>,
    /// Definitions that are imported at each start, as `leveret ctl export_definitions` or RabbitMQ writes them
    #[arg(long, value_name = "FILE", env = "LEVERET_LOAD_DEFINITIONS", help_heading = ACCESS)]
    load_definitions: Option<PathBuf>,
}

/// Runs a server until a signal or a failure ends it.
pub(crate) fn run(flags: Flags) -> ExitCode {
    match serve(flags) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// What is said, the first that says something about a key being the one that counts, and what is said in vain.
pub(crate) fn sources(flags: &Flags) -> Result<Vec<Source>, ConfigError> {
    let file = flags.config.as_deref().map(Source::from_file).transpose()?;
    let spoken = Source::new("the command line or environment", flags.clone().settings());
    Ok([spoken].into_iter().chain(file).chain([otel_environment::source()]).collect())
}

fn configure(flags: &Flags) -> Result<(Config, Vec<String>), ConfigError> {
    let sources = sources(flags)?;
    let config = Config::from_sources(&sources)?;
    Ok((config, sources.into_iter().flat_map(|source| source.warnings).collect()))
}

fn serve(flags: Flags) -> anyhow::Result<ExitCode> {
    let start_pages = StartPages::note();
    let (config, warnings) = configure(&flags)?;
    let recent = RecentLog::default();
    let flood = LogFlood::default();
    let log = log_to_stderr(config.log, config.log_format, &recent, &flood);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let reload = Reload { read: Box::new(move || configure(&flags)), log };
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.spawn(flood.tell());
    let code = runtime.block_on(run_server(config, reload, recent, start_pages));
    // Whoever did not leave in time is not waited for.
    runtime.shutdown_timeout(Duration::ZERO);
    code
}

async fn run_server(
    config: Config,
    reload: Reload,
    recent: RecentLog,
    start_pages: StartPages,
) -> anyhow::Result<ExitCode> {
    // From the first moment on, so that a signal during a long start does not kill it half-way.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let data_dir = config.data_dir.clone();
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        () = either(&mut terminate, &mut interrupt) => return Ok(ExitCode::SUCCESS),
    };
    server.board().on_reload(reload);
    server.board().show_log(recent);
    let board = std::sync::Arc::clone(server.board());
    let reloader = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let board = std::sync::Arc::clone(&board);
            // It reads files, and tells the log what came of it.
            let _told = tokio::task::spawn_blocking(move || board.reload()).await;
        }
    });
    writeln!(io::stdout(), "{}", ready_line(&server, &data_dir.display()))?;
    if server.serves_nobody_remote() {
        tracing::warn!(
            "clients on other machines cannot log in: there is only the user guest, who may from this one. Make a user: \
             leveret ctl --data-dir {data} add_user NAME, then leveret ctl --data-dir {data} set_permissions NAME '.*' \
             '.*' '.*'",
            data = data_dir.display()
        );
    }
    notify::tell(notify::READY);
    start_pages.let_go();
    tokio::select! {
        failure = server.failure() => {
            complain(&failure);
            Ok(ExitCode::FAILURE)
        }
        () = either(&mut terminate, &mut interrupt) => {
            reloader.abort();
            notify::tell(notify::STOPPING);
            tracing::info!("stopping: closing connections and making everything durable");
            tokio::select! {
                stopped = server.stop() => {
                    stopped?;
                    Ok(ExitCode::SUCCESS)
                }
                () = either(&mut terminate, &mut interrupt) => {
                    complain(&"a second signal: stopped at once; the next start will recover the log");
                    Ok(ExitCode::FAILURE)
                }
            }
        }
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// `Leveret 0.1.0 is ready: AMQP on …, HTTP on …, metrics on …, data in … (… queues, … messages, … ms)`
fn ready_line(server: &Server, data_dir: &impl Display) -> String {
    let addresses = server.board().addresses();
    let services = [
        ("AMQP", &addresses.amqp),
        ("AMQPS", &addresses.amqps),
        ("HTTP", &addresses.http),
        ("HTTPS", &addresses.https),
        ("metrics", &addresses.metrics),
    ];
    let mut line = format!("Leveret {} is ready: ", env!("CARGO_PKG_VERSION"));
    for (service, addresses) in services.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
        let shown: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        line += &format!("{service} on {}, ", shown.join(" and "));
    }
    let found = server.found();
    let (queues, messages) = (count(found.queues, "queue"), count(found.messages, "message"));
    line + &format!("data in {data_dir} ({queues}, {messages}, {} ms)", thousands(found.start_ms))
}

fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `3400` as `3,400`.
pub(crate) fn thousands(number: u64) -> String {
    match number / 1000 {
        0 => number.to_string(),
        more => format!("{},{:03}", thousands(more), number % 1000),
    }
}

fn complain(sentence: &dyn Display) {
    // Nobody is left to be told when stderr is gone.
    let _closed = writeln!(io::stderr(), "leveret: {sentence}");
}

/// Starts the log, whose latest lines are remembered besides; what is returned changes its level.
fn log_to_stderr(
    level: LogLevel,
    format: LogFormat,
    recent: &RecentLog,
    flood: &LogFlood,
) -> Box<dyn Fn(LogLevel) + Send + Sync> {
    let (filter, handle) = reload::Layer::<_, Registry>::new(targets(level));
    let recent = recent.clone();
    let writer = flood.before(io::stderr.and(move || recent.clone()));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => {
            let fields = debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
                let text = on_one_line(&format!("{value:?}"));
                if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{field}={text}") }
            });
            let lines = lines.fmt_fields(fields.delimited(" "));
            let lines = lines.with_ansi(io::stderr().is_terminal()).with_filter(filter);
            tracing_subscriber::registry().with(lines).init();
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        }
    }
    Box::new(move |level| {
        // It fails when there is no log any more.
        let _gone = handle.reload(targets(level));
    })
}

/// Strangers' names are in the log, and must not look like lines of its own.
fn on_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // What libraries say below a warning is of no use to an operator.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets([("server", level), ("leveret", level)])
}

/// Each client takes a file descriptor, and most systems give a process 1,024 unless it asks for more.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let open_files = if raised.is_ok() { limit.maximum } else { limit.current };
    if let Some(open_files) = open_files.filter(|&count| count < OPEN_FILES_MIN) {
        tracing::warn!("this process may open only {open_files} files, and so serve fewer clients: raise `ulimit -Hn`");
    }
}

impl Flags {
    fn settings(self) -> Settings {
        Settings {
            data_dir: self.data_dir,
            amqp: self.amqp,
            amqps: self.amqps,
            http: self.http,
            https: self.https,
            metrics: self.metrics,
            log: self.log,
            log_format: self.log_format,
            consumer_timeout_ms: self.consumer_timeout_ms,
            max_message_bytes: self.max_message_bytes,
            heartbeat_s: self.heartbeat_s,
            frame_max: self.frame_max,
            channel_max: self.channel_max,
            shards: self.shards,
            handshake_timeout_ms: self.handshake_timeout_ms,
            memory_limit: self.memory_limit,
            disk_free_limit: self.disk_free_limit,
            loopback_users: self
                .loopback_users
                .map(|users| users.into_iter().filter(|user| !user.is_empty()).collect()),
            load_definitions: self.load_definitions,
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            tls_ca: self.tls_ca,
            tls_verify: self.tls_verify,
            tls_fail_if_no_peer_cert: self.tls_fail_if_no_peer_cert,
            tls_versions: self.tls_versions,
            tls_login_from: self.tls_login_from,
            https_certificate: self.https_certificate,
            https_key: self.https_key,
            https_ca: self.https_ca,
            https_verify: self.https_verify,
            https_fail_if_no_peer_cert: self.https_fail_if_no_peer_cert,
            audit_log_bytes: self.audit_log_bytes,
            auth_mechanisms: self.auth_mechanisms,
            proxy_protocol: self.proxy_protocol,
            ..Settings::default()
        }
    }
}

const LIMITS: &str = "Limits";
const ACCESS: &str = "Users";
const TLS: &str = "TLS and login";

const OPEN_FILES_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_call_themselves_makes_no_line_of_the_log() {
        assert_eq!(on_one_line("user 'é\n2026 INFO x\r\u{1b}[31m'"), "user 'é\\n2026 INFO x\\r\\u{1b}[31m'");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<_> = [0, 999, 1000, 3_400, 1_002_003].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "999", "1,000", "3,400", "1,002,003"]);
        assert_eq!((count(1, "queue"), count(2, "queue")), ("1 queue".to_owned(), "2 queues".to_owned()));
    }
}
