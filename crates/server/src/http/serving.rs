//! The listeners' side of the API: accepts connections, bounds what each may cost, and says where a request came from.
//!
//! A connection whose request's head does not arrive within 30 s, or that lets an answer wait for as long, is dropped;
//! so is one that is idle for that time. No more than a fixed number is open at once; of those on which nobody has logged
//! in, some go when others wait to be accepted.

use super::lazy_router::LazyRouter;
use super::local::LocalSocket;
use crate::connection_host::Way;
use crate::open_files::OpenFiles;
use crate::strangers::{Standing, Strangers};
use crate::switchboard::Switchboard;
use crate::tls;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tower::ServiceExt as _;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The socket in the data directory.
    Local,
    /// Over TCP.
    Tcp(SocketAddr),
}

/// What a request's connection is besides: kept for those that become another.
#[derive(Clone, Debug)]
pub(super) struct Below {
    /// Both ends and TLS.
    pub(super) way: Way,
    /// Set when it is HTTP's no more, whose patience is not AMQP's.
    pub(super) is_other: Arc<AtomicBool>,
    /// Its place at its listener.
    pub(super) standing: Standing,
}

/// Serves a TCP listener for ever.
pub(super) async fn tcp(listener: TcpListener, routes: LazyRouter, board: Arc<Switchboard>, is_tls: bool) {
    let (strangers, places) = (Arc::new(Strangers::new(GRACE)), OpenFiles::of(&board).http_each);
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let place = strangers.enter(peer.ip(), places).await;
                // Answers are small and somebody waits for them.
                let _gone_already = socket.set_nodelay(true);
                let origin = Origin::Tcp(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
                let Some(way) = Way::of(&socket) else { continue };
                let (routes, board) = (routes.clone(), Arc::clone(&board));
                tokio::spawn(async move {
                    let mut place = place;
                    let standing = place.standing().clone();
                    let serving = async {
                        if is_tls {
                            serve_tls(socket, origin, routes, (way, standing), &board).await;
                        } else {
                            serve(socket, origin, routes, Some((way, standing))).await;
                        }
                    };
                    tokio::select! {
                        () = serving => {}
                        () = place.sent_away() => {
                            tracing::debug!("an HTTP client at {peer} has not logged in, and others wait");
                        }
                    }
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Serves the local socket for ever.
pub(super) async fn local(socket: LocalSocket, routes: LazyRouter, places: usize) {
    let places = Arc::new(Semaphore::new(places));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match socket.listener().accept().await {
            Ok((stream, _)) => {
                let connection = serve(stream, Origin::Local, routes.clone(), None);
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// The usual reason is that the process has no file descriptors left; then asking again at once would be a busy loop.
async fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::debug!("cannot accept an HTTP connection: {error}");
        sleep(BACK_OFF).await;
    }
}

async fn serve_tls(
    socket: TcpStream,
    origin: Origin,
    routes: LazyRouter,
    (mut way, standing): (Way, Standing),
    board: &Switchboard,
) {
    let Some(acceptor) = board.tls().https() else { return };
    match timeout(PATIENCE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            way.tls = Some(Arc::new(tls::view(stream.get_ref().1, board.config().tls_login_from)));
            serve(stream, origin, routes, Some((way, standing))).await;
        }
        Ok(Err(why)) => tracing::debug!("TLS with an HTTP client at {} failed: {why}", way.ends.peer),
        Err(_) => tracing::debug!("an HTTP client at {} did not finish TLS in time", way.ends.peer),
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    origin: Origin,
    routes: LazyRouter,
    way: Option<(Way, Standing)>,
) {
    let is_other = Arc::new(AtomicBool::new(false));
    let below = way.map(|(way, standing)| Below { way, is_other: Arc::clone(&is_other), standing });
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(origin);
        if let Some(below) = &below {
            request.extensions_mut().insert(below.clone());
        }
        routes.get().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Impatient::new(socket, is_other)), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("an HTTP connection ended early: {error}");
    }
}

/// A socket on which a write fails when the peer takes nothing for [`PATIENCE`].
#[derive(Debug)]
struct Impatient<S> {
    socket: S,
    /// It is not HTTP's any more, so that nothing is judged.
    is_other: Arc<AtomicBool>,
    /// Set while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(socket: S, is_other: Arc<AtomicBool>) -> Self {
        Self { socket, is_other, until: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.is_other.load(Ordering::Relaxed) {
            self.until = None;
            return written;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + PATIENCE)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// How long a connection may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client has to log in, if others wait: there are few places, so that a short one makes many a second.
const GRACE: Duration = Duration::from_millis(500);

/// What a connection may have unread or unsent in our memory; also bounds a request's head.
const BUFFER_BYTES_MAX: usize = 64 << 10;

const BACK_OFF: Duration = Duration::from_millis(100);
