//! Tells a service manager how the server is (systemd's `sd_notify`), if there is one that asked by `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;

/// The server serves.
pub(crate) const READY: &str = "READY=1";
/// It makes everything durable and ends.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Tells it. Whoever does not listen is none of the server's business.
pub(crate) fn tell(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(why) = send(&socket, state)
    {
        tracing::warn!("the service manager cannot be told {state}: {why}");
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(abstract_name)?;
            socket.send_to_addr(state.as_bytes(), &address)?;
        }
        _ => {
            socket.send_to(state.as_bytes(), name)?;
        }
    }
    Ok(())
}
