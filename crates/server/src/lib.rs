//! The server: gives the broker's machines their sockets, tasks, threads and disk.
//!
//! [`Server::start`] opens the data directory, connects the machines by a [`switchboard::Switchboard`] and lets clients
//! in; [`Server::stop`] ends all of that in order. The hosts move messages and decide nothing: what AMQP means is in
//! the crate `broker`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod alarms;
pub mod client_audit;
mod clock;
pub mod config;
pub mod limits;
pub mod operator;
pub mod recent_log;
pub mod reload;
pub mod switchboard;

mod audit;
mod backup;
mod catalog_host;
mod connection_host;
mod disk_times;
mod first_start;
mod footprint;
mod http;
mod listener;
mod logins;
mod oauth;
mod open_files;
mod outgoing;
mod passwords;
mod proxy_protocol;
mod rabbitmq_conf;
mod redrives;
mod schedules;
mod shard_host;
mod spans;
mod storage;
mod strangers;
mod tls;
mod turns;
mod websocket;

pub use config::Config;
pub use http::values::{table_from_json, table_to_json};
pub use http::{LocalError, SOCKET_NAME};
pub use listener::ListenError;
pub use storage::StorageError;
pub use tls::TlsError;

use amqp::ReplyCode;
use backup::Backup;
use broker::command::Fault;
use broker::connection::ConnectionSettings;
use broker::inspect::QueueView;
use broker::shard::{Near, ShardSettings};
use clock::Clock;
use config::Listen;
use disk_times::SyncTimes;
use http::{Doors, LocalSocket};
use listener::Bound;
use shard_host::ShardHost;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use store::{DirectoryLock, SharedWriter};
use switchboard::{Addresses, Parts, Switchboard};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A running server. Dropping it without [`Server::stop`] is like killing it.
#[derive(Debug)]
pub struct Server {
    board: Arc<Switchboard>,
    found: Found,
    /// Let clients in, and watch for alarms.
    listeners: JoinSet<()>,
    shards: JoinSet<()>,
    /// What works for the logs; each ends when its log is closed.
    log_threads: Vec<thread::JoinHandle<()>>,
    /// Sends spans.
    exporter: JoinSet<()>,
    failures: UnboundedReceiver<String>,
}

/// What the data directory held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Queues.
    pub queues: u64,
    /// Messages in them.
    pub messages: u64,
    /// How long the start took, in milliseconds.
    pub start_ms: u64,
}

/// Why the server does not start. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate, or what belongs to it, cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The local operator's socket cannot be made.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// What the configuration wants in the data directory cannot be made.
    #[error("{0}")]
    First(String),
    /// The queues do not say what they hold.
    #[error(
        "the queues did not answer in {} s, so that redrives that an earlier start began cannot go on: the disk or the \
         processor is far too slow; nothing is lost, start again when there is less to do",
        INSPECTED_S
    )]
    Unanswered,
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}; does a limit on processes apply (ulimit -u)?")]
    Thread(io::Error),
}

/// Why a stop was not clean. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The disk failed meanwhile.
    #[error("{0}")]
    Failed(String),
    /// The disk is full.
    #[error(
        "the disk is full, so that what was still to be written is not; nothing that was confirmed is lost, the next \
         start recovers the log. Make room before it"
    )]
    Full,
    /// The disk did not follow in time.
    #[error("the disk is too slow to wait for; nothing that was confirmed is lost, the next start recovers the log")]
    Slow,
}

impl Server {
    /// Starts a server and lets clients in.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let clock = Clock::start();
        // Before the data directory is touched: a port that is taken is the likeliest refusal.
        let amqp = bind_all(&config.amqp, "amqp")?;
        let amqps = bind_all(&config.amqps, "amqps")?;
        let http = bind_all(&config.http, "http")?;
        let https = bind_all(&config.https, "https")?;
        let metrics = bind_all(&config.metrics, "metrics")?;
        let tls = tls::Loaded::read(&config)?;
        let issuer = oauth::Issuer::of(&config)?;
        let collector = spans::Collector::of(&config)?;
        let memory_bytes = config.memory_limit.bytes_of(footprint::memory_bytes()).unwrap_or(MEMORY_BYTES_ASSUMED);
        let settings = ShardSettings {
            consumer_timeout_ms: config.consumer_timeout_ms,
            near: Near { bytes: memory_bytes / NEAR_SHARE, ..Near::default() },
            ..ShardSettings::default()
        };
        let sync_times = Arc::new(SyncTimes::default());
        let times = Arc::clone(&sync_times);
        let (data_dir, shards_min) = (config.data_dir.clone(), config.shards);
        let opened =
            tokio::task::spawn_blocking(move || storage::open(&data_dir, shards_min, &settings, clock, &times));
        let opened = opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let local = LocalSocket::bind(&config.data_dir)?;
        let sources = opened.shards.iter().map(|shard| shard.backup.clone()).collect();
        let backup = Backup::new(config.data_dir.clone(), sources);
        let addresses_of = |bound: &[Bound]| bound.iter().map(Bound::address).collect();
        let addresses = Addresses {
            amqp: addresses_of(&amqp),
            amqps: addresses_of(&amqps),
            http: addresses_of(&http),
            https: addresses_of(&https),
            metrics: addresses_of(&metrics),
        };
        let is_new = opened.topology.is_new();
        let (board, mailboxes) = Switchboard::new(Parts {
            settings: connection_settings(&config),
            config,
            tls,
            issuer,
            collector,
            clock,
            topology: opened.topology,
            shards: u16::try_from(opened.shards.len()).expect("as many as a u16 counted"),
            addresses,
            sync_times,
        });
        for (shard, input) in opened.first.shards {
            board.post(shard, switchboard::ShardMail::Input(input));
        }
        tokio::spawn(catalog_host::run(opened.catalog, Arc::clone(&board), mailboxes.catalog));
        let (failure, failures) = unbounded_channel();
        let lock = Arc::new(opened.lock);
        let syncs_here = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        let (mut shards, mut log_threads) = (JoinSet::new(), Vec::new());
        for (opened, mailbox) in opened.shards.into_iter().zip(mailboxes.shards) {
            let news = Arc::new(Notify::new());
            let uptime = move || Duration::from_millis(clock.uptime_ms());
            let (writer, caretaker) = (SharedWriter::new(opened.writer), opened.caretaker);
            writer.attend();
            let (rounds, notify) = (writer.clone(), notifier(&news));
            log_threads.push(spawn("log-writer", &lock, move || rounds.run(uptime, notify))?);
            let notify = notifier(&news);
            log_threads.push(spawn("log-caretaker", &lock, move || caretaker.run(uptime, notify))?);
            let (shard, board, failures) = (opened.shard, Arc::clone(&board), failure.clone());
            let host = ShardHost { shard, board, mailbox, news, writer, syncs_here, failures };
            shards.spawn(host.run());
        }
        let mut exporter = JoinSet::new();
        exporter.spawn(Arc::clone(board.spans()).export());
        // Before anyone is let in: whoever comes while there is a shortage is told so.
        board.check_alarms();
        let views = inspected(&board).await?;
        redrives::go_on(&board, &views);
        let mut listeners = JoinSet::new();
        let doors = Doors {
            http: listen_all(http, "http")?,
            https: listen_all(https, "https")?,
            metrics: listen_all(metrics, "metrics")?,
            local,
        };
        let api = http::api(&board, backup);
        first_start::fill(&api, is_new).await.map_err(StartError::First)?;
        http::serve(api, doors, &mut listeners);
        listeners.spawn(alarms::watch(Arc::clone(&board)));
        listeners.spawn(schedules::run(Arc::clone(&board)));
        for listener in listen_all(amqp, "amqp")? {
            listeners.spawn(listener::accept(listener, Arc::clone(&board), false));
        }
        for listener in listen_all(amqps, "amqps")? {
            listeners.spawn(listener::accept(listener, Arc::clone(&board), true));
        }
        if !(board.addresses().amqps.is_empty() && board.addresses().https.is_empty()) {
            listeners.spawn(reload::watch_certificates(Arc::clone(&board)));
        }
        let found = Found {
            queues: views.len() as u64,
            messages: views.iter().map(|view| view.ready + view.delayed + view.owed).sum(),
            start_ms: clock.uptime_ms(),
        };
        Ok(Self { board, found, listeners, shards, log_threads, exporter, failures })
    }

    /// The way to everything inside.
    #[must_use]
    pub fn board(&self) -> &Arc<Switchboard> {
        &self.board
    }

    /// What the data directory held.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// Whether it listens to other machines, and no user may log in from one.
    #[must_use]
    pub fn serves_nobody_remote(&self) -> bool {
        let addresses = self.board.addresses();
        let is_remote = addresses.amqp.iter().chain(&addresses.amqps).any(|address| !address.ip().is_loopback());
        let config = self.board.config();
        is_remote && self.board.topology().users().all(|user| config.is_loopback_user(&user.name))
    }

    /// Waits until the server cannot go on, because its disk failed. The process must end then, at once, without
    /// [`Self::stop`]. Returns a sentence for the operator.
    pub async fn failure(&mut self) -> String {
        match self.failures.recv().await {
            Some(sentence) => sentence,
            // All shards are closed.
            None => std::future::pending().await,
        }
    }

    /// Lets no more clients in, closes every connection with 320, makes everything durable and lets go of the data
    /// directory. Takes at most 9 seconds.
    ///
    /// # Errors
    /// [`StopError`]; the server is stopped then, too.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.listeners.shutdown().await;
        let fault = Fault::new(ReplyCode::ConnectionForced, "broker forced connection closure with reason 'shutdown'");
        self.board.close_all(&fault);
        if timeout(CLIENTS_LEAVE, self.board.at_most(0)).await.is_err() {
            tracing::warn!("{} clients did not close their connections in time", self.board.connections());
        }
        self.board.close_shards();
        self.board.spans().end();
        let durable = timeout(SHARDS_CLOSE, async {
            while self.shards.join_next().await.is_some() {}
            let threads = std::mem::take(&mut self.log_threads);
            let _join =
                tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        });
        let audit = Arc::clone(self.board.client_audit());
        let recorded = timeout(SHARDS_CLOSE, tokio::task::spawn_blocking(move || while audit.write() {}));
        // Spans go out meanwhile, and are not waited for longer.
        let exported = timeout(SHARDS_CLOSE, self.exporter.join_next());
        if tokio::join!(durable, exported, recorded).0.is_err() {
            let is_full = self.board.alarms().is_disk_full();
            return Err(if is_full { StopError::Full } else { StopError::Slow });
        }
        self.failures.try_recv().map_or(Ok(()), |sentence| Err(StopError::Failed(sentence)))
    }
}

/// Takes all addresses of a service; of the default ones, those whose IP version this machine has.
fn bind_all(listen: &Listen, flag: &'static str) -> Result<Vec<Bound>, ListenError> {
    let mut bound = Vec::new();
    for &address in &listen.addresses {
        match Bound::bind(address, &listen.addresses, flag) {
            Ok(one) => bound.push(one),
            // Whoever asks for all addresses of either version asks for those that there are.
            Err(error)
                if listener::is_missing_ip_version(&error)
                    && (listen.by_default || listen.addresses.contains(&([0, 0, 0, 0], address.port()).into())) =>
            {
                tracing::info!("this machine has no IPv6: not listening on {address}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bound)
}

fn listen_all(bound: Vec<Bound>, flag: &'static str) -> Result<Vec<TcpListener>, ListenError> {
    bound.into_iter().map(|bound| bound.listen(flag)).collect()
}

/// Reads the files of certificates and keys that a configuration names.
///
/// # Errors
/// The first that is wrong.
pub fn check_certificates(config: &Config) -> Result<(), TlsError> {
    tls::Loaded::read(config)?;
    oauth::Issuer::of(config)?;
    spans::Collector::of(config).map(drop)
}

/// All queues, once they answer: after a crash the first answer may take long.
async fn inspected(board: &Switchboard) -> Result<Vec<QueueView>, StartError> {
    for _ in 0..INSPECT_TRIES {
        match board.inspect_queues().await {
            Ok(views) => return Ok(views),
            Err(unanswered) => tracing::warn!("waiting for the queues before anyone is let in: {unanswered}"),
        }
    }
    Err(StartError::Unanswered)
}

fn connection_settings(config: &Config) -> ConnectionSettings {
    ConnectionSettings {
        heartbeat_s: config.heartbeat_s,
        frame_max: config.frame_max,
        first_frame_max: if config.auth_backends.contains(&config::Backend::OAuth2) {
            oauth::LOGIN_FRAME_MAX
        } else {
            ConnectionSettings::default().first_frame_max
        },
        channel_max: config.channel_max,
        message_bytes_max: config.max_message_bytes,
        handshake_timeout: Duration::from_millis(config.handshake_timeout_ms),
        mechanisms: config.mechanisms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: footprint::node_name(),
    }
}

/// Tells a shard's host that its log has news.
fn notifier(news: &Arc<Notify>) -> impl Fn() + use<> {
    let news = Arc::clone(news);
    move || news.notify_one()
}

/// Starts a thread that works in the data directory.
fn spawn(
    name: &str,
    lock: &Arc<DirectoryLock>,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, StartError> {
    let lock = Arc::clone(lock);
    let run = move || {
        work();
        // The directory is ours for as long as anything may be written to it.
        drop(lock);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

/// Of the memory limit, messages may take this part; the rest is for connections and their buffers, and the index.
const NEAR_SHARE: u64 = 4;

/// How often queues are asked what they hold before the start fails.
const INSPECT_TRIES: u32 = 12;
/// How long that takes.
const INSPECTED_S: u64 = INSPECT_TRIES as u64 * switchboard::INSPECT_QUEUES.as_secs();

/// The limit where the system does not say how much memory there is.
const MEMORY_BYTES_ASSUMED: u64 = 1 << 30;

/// How long clients may take to answer that their connection closes.
const CLIENTS_LEAVE: Duration = Duration::from_secs(5);

/// How long the disk may take to make everything durable after that.
const SHARDS_CLOSE: Duration = Duration::from_secs(4);
