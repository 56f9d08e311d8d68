//! The listeners: binds addresses, and accepts AMQP clients for as long as the server runs.
//!
//! A failed accept never ends a listener: when the process has no file descriptors left it waits for some.

use crate::connection_host::{ConnectionHost, Socket, Way, canonical};
use crate::open_files::OpenFiles;
use crate::proxy_protocol;
use crate::switchboard::Switchboard;
use crate::tls;
use broker::connection::Peer;
use socket2::SockRef;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// An address that is ours and not yet open: clients are refused until [`Bound::listen`].
#[derive(Debug)]
pub(crate) struct Bound {
    socket: TcpSocket,
    address: SocketAddr,
}

/// Why an address cannot be listened on. Its text is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error(
        "port {} on {} is in use by another program (RabbitMQ, perhaps, or another Leveret); stop that, or choose \
         another address with --{flag} ADDR:PORT",
        address.port(), address.ip()
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {why}; choose another address with --{flag} ADDR:PORT")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, flag: &'static str, why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, flag },
            _ => Self::Refused { address, flag, why },
        }
    }
}

impl Bound {
    /// Takes an address, one of `all`.
    pub(crate) fn bind(address: SocketAddr, all: &[SocketAddr], flag: &'static str) -> Result<Self, ListenError> {
        // `[::]` takes IPv4 clients too, unless 0.0.0.0 does.
        let any_v4 = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if address.is_ipv6() && all.contains(&any_v4) {
                SockRef::from(&socket).set_only_v6(true)?;
            }
            // A server that was just stopped leaves its connections' ends behind; they keep nobody from the port.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|why| ListenError::new(address, flag, why))
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in.
    pub(crate) fn listen(self, flag: &'static str) -> Result<TcpListener, ListenError> {
        self.socket.listen(BACKLOG).map_err(|why| ListenError::new(self.address, flag, why))
    }
}

/// Whether this machine just lacks the address's IP version.
pub(crate) fn is_missing_ip_version(error: &ListenError) -> bool {
    let ListenError::Refused { address, why, .. } = error else { return false };
    // No such address on any interface, or no such address family at all.
    address.is_ipv6()
        && (why.kind() == io::ErrorKind::AddrNotAvailable
            || why.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()))
}

/// Accepts AMQP clients, for ever. Those for whom there are no files wait until others leave; so do those who are not yet
/// connections because TLS or a PROXY header comes first, beyond a fixed number.
pub(crate) async fn accept(listener: TcpListener, board: Arc<Switchboard>, is_tls: bool) {
    let OpenFiles { clients: connections_max, preludes_each, .. } = OpenFiles::of(&board);
    let preludes = Arc::new(Semaphore::new(preludes_each));
    let mut last_complaint: Option<Instant> = None;
    let mut complain = |why: &dyn Display| {
        if last_complaint.is_none_or(|at| at.elapsed() >= COMPLAINT_EVERY) {
            last_complaint = Some(Instant::now());
            tracing::error!("new clients wait: {why}; raise `ulimit -Hn` to serve more");
        }
    };
    loop {
        if board.connections() >= connections_max {
            complain(&format_args!("{connections_max} are connected, and each takes an open file"));
            board.at_most(connections_max - 1).await;
        }
        match listener.accept().await {
            Ok((socket, _)) => {
                // Small frames go out at once; the host writes whole batches anyway.
                let _gone_already = socket.set_nodelay(true);
                if !is_tls && !board.config().proxy_protocol {
                    if let Some(way) = Way::of(&socket) {
                        host(&board, socket, way);
                    }
                    continue;
                }
                let Ok(place) = Arc::clone(&preludes).acquire_owned().await else { return };
                let board = Arc::clone(&board);
                tokio::spawn(async move {
                    let patience = Duration::from_millis(board.config().handshake_timeout_ms);
                    if timeout(patience, begin(&board, socket, is_tls)).await.is_err() {
                        tracing::debug!("a client did not finish TLS or its PROXY header in time");
                    }
                    drop(place);
                });
            }
            // The client went away before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                complain(&format_args!("cannot accept connections: {error}"));
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// Goes through what comes before AMQP, and makes the connection.
async fn begin(board: &Arc<Switchboard>, mut socket: TcpStream, is_tls: bool) {
    let Some(mut way) = Way::of(&socket) else { return };
    let config = board.config();
    if config.proxy_protocol {
        match proxy_protocol::read(&mut socket).await {
            Ok(None) => {}
            Ok(Some((peer, local))) => way.ends = Peer { peer: canonical(peer), local: canonical(local) },
            Err(why) => return tracing::warn!("a client at {} is refused: {why}", way.ends.peer),
        }
    }
    if !is_tls {
        return host(board, socket, way);
    }
    let Some(acceptor) = board.tls().amqps() else { return };
    match acceptor.accept(socket).await {
        Ok(stream) => {
            way.tls = Some(Arc::new(tls::view(stream.get_ref().1, config.tls_login_from)));
            host(board, stream, way);
        }
        // Load balancers and port scans connect and say nothing.
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!("a client at {} left before TLS was agreed on", way.ends.peer);
        }
        Err(why) => tracing::warn!("TLS with a client at {} failed: {why}", way.ends.peer),
    }
}

/// Lets a client in.
pub(crate) fn host(board: &Arc<Switchboard>, socket: impl Socket, way: Way) {
    let (seat, mailbox) = board.connect(way.ends.peer);
    ConnectionHost::new(Arc::clone(board), seat, mailbox, socket, way).map(tokio::spawn);
}

/// Connections that may wait to be accepted. The system caps it (net.core.somaxconn).
const BACKLOG: u32 = 4096;

const COMPLAINT_EVERY: Duration = Duration::from_secs(1);

const BACK_OFF: Duration = Duration::from_millis(100);
