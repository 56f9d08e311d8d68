//! `leveret serve`: the server as a process. Flags, logs, signals, limits, the line that says it is ready, exit codes.

use clap::Args;
use server::Server;
use server::config::{Config, LogLevel, Settings, parse_address};
use server::limits::{MemoryLimit, parse_bytes};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What can be said to the server on the command line, and in the environment.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// A TOML file of settings; its keys are the flags' names, with underscores
    #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
    config: Option<PathBuf>,
    /// Holds everything that survives the server [default: ./leveret-data]
    #[arg(long, value_name = "DIR", env = "LEVERET_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for AMQP; may be repeated [default: 127.0.0.1:5672 and [::1]:5672]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_AMQP", value_delimiter = ',', value_parser = parse_address)]
    amqp: Option<Vec<SocketAddr>>,
    /// Where to serve the HTTP API; may be repeated [default: 127.0.0.1:15672 and [::1]:15672]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_HTTP", value_delimiter = ',', value_parser = parse_address)]
    http: Option<Vec<SocketAddr>>,
    /// Where to serve Prometheus metrics; may be repeated [default: 127.0.0.1:15692 and [::1]:15692]
    #[arg(long, value_name = "ADDR:PORT", env = "LEVERET_METRICS", value_delimiter = ',', value_parser = parse_address)]
    metrics: Option<Vec<SocketAddr>>,
    /// What to log to stderr: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LEVERET_LOG")]
    log: Option<LogLevel>,
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
    /// Definitions that are imported at each start, as `leveret ctl export_definitions` or RabbitMQ writes them
    #[arg(long, value_name = "FILE", env = "LEVERET_LOAD_DEFINITIONS", help_heading = ACCESS)]
    load_definitions: Option<PathBuf>,
}

/// Runs a server until a signal or a failure ends it.
pub(crate) fn run(flags: Flags) -> ExitCode {
    match configure(flags).and_then(serve) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn configure(flags: Flags) -> anyhow::Result<Config> {
    let file = flags.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
    Ok(Config::new(&[flags.settings(), file])?)
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    log_to_stderr(config.log);
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run_server(config));
    // Whoever did not leave in time is not waited for.
    runtime.shutdown_timeout(Duration::ZERO);
    code
}

async fn run_server(config: Config) -> anyhow::Result<ExitCode> {
    // From the first moment on, so that a signal during a long start does not kill it half-way.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let data_dir = config.data_dir.clone();
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        () = either(&mut terminate, &mut interrupt) => return Ok(ExitCode::SUCCESS),
    };
    writeln!(io::stdout(), "{}", ready_line(&server, &data_dir.display()))?;
    if server.serves_nobody_remote() {
        tracing::warn!(
            "clients on other machines cannot log in: there is only the user guest, who may from this one. Make a user: \
             leveret ctl --data-dir {data} add_user NAME, then leveret ctl --data-dir {data} set_permissions NAME '.*' \
             '.*' '.*'",
            data = data_dir.display()
        );
    }
    tokio::select! {
        failure = server.failure() => {
            complain(&failure);
            Ok(ExitCode::FAILURE)
        }
        () = either(&mut terminate, &mut interrupt) => {
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
    let services = [("AMQP", &addresses.amqp), ("HTTP", &addresses.http), ("metrics", &addresses.metrics)];
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

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // What libraries say below a warning is of no use to an operator.
    let targets =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets([("server", level), ("leveret", level)]);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_filter(targets);
    tracing_subscriber::registry().with(lines).init();
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
            http: self.http,
            metrics: self.metrics,
            log: self.log,
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
        }
    }
}

const LIMITS: &str = "Limits";
const ACCESS: &str = "Users";

const OPEN_FILES_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<_> = [0, 999, 1000, 3_400, 1_002_003].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "999", "1,000", "3,400", "1,002,003"]);
        assert_eq!((count(1, "queue"), count(2, "queue")), ("1 queue".to_owned(), "2 queues".to_owned()));
    }
}
