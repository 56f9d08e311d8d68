//! The local operator's way in: a Unix socket in the data directory that only its owner may open.
//!
//! It is made under another name, closed to others, opened, and only then put in place, so that nobody else has a
//! moment to connect; a socket that a killed server left behind is replaced by that. Socket addresses hold about 100
//! bytes and paths are longer, so the directory is named through its file descriptor.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "leveret.sock";

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make the operator's socket {path}: {why}; check the permissions of the data directory, and that its file \
     system has sockets"
)]
pub struct LocalError {
    path: PathBuf,
    why: io::Error,
}

/// The listening socket. Its file goes with it.
#[derive(Debug)]
pub(crate) struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Makes the socket in this directory, which must be locked by this process.
    pub(crate) fn bind(directory: &Path) -> Result<Self, LocalError> {
        let path = directory.join(SOCKET_NAME);
        let listener = listen(directory, &path).map_err(|why| LocalError { path: path.clone(), why })?;
        Ok(Self { listener, path })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next server.
        let _stays = fs::remove_file(&self.path);
    }
}

fn listen(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    let unfinished = path.with_extension("new");
    if let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let opened = File::open(directory)?;
    let short = short_path(&opened, &unfinished);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(short)?)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    fs::rename(&unfinished, path)?;
    UnixListener::from_std(socket.into())
}

/// The file's path by way of its opened directory, where the system has such paths.
fn short_path(directory: &File, file: &Path) -> PathBuf {
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    match (by_descriptor.exists(), file.file_name()) {
        (true, Some(name)) => by_descriptor.join(name),
        _ => file.to_owned(),
    }
}

const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_replaces_a_stale_one() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("d".repeat(200));
        fs::create_dir(&directory).unwrap();
        let path = directory.join(SOCKET_NAME);
        fs::write(&path, "left behind").unwrap();
        let socket = LocalSocket::bind(&directory).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let opened = File::open(&directory).unwrap();
        let client = tokio::net::UnixStream::connect(short_path(&opened, &path));
        let (client, accepted) = tokio::join!(client, socket.listener().accept());
        assert!(client.is_ok() && accepted.is_ok());
        drop(socket);
        assert!(!path.exists());
    }
}
