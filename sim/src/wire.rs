//! The link between a client and the server: two streams of bytes, each with its buffer, either of which can end or
//! break at any byte.

use bytes::{Buf, BytesMut};

/// See the module.
#[derive(Debug)]
pub struct Wire {
    /// Sent by the client, not read by the server.
    pub to_server: BytesMut,
    /// Sent by the server, not read by the client.
    pub to_client: BytesMut,
    /// The client sends no more.
    pub client_ended: bool,
    /// The server sends no more.
    pub server_ended: bool,
    /// Nothing gets through, and both find out.
    pub is_broken: bool,
    /// How much the network and both sockets hold for the client before the server's writes have to wait.
    capacity: usize,
}

impl Wire {
    /// A link that holds so many bytes for the client.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            client_ended: false,
            server_ended: false,
            is_broken: false,
            capacity,
        }
    }

    /// How many bytes the server can write now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.to_client.len())
    }

    /// Breaks: what is on its way is lost.
    pub fn cut(&mut self) {
        self.is_broken = true;
        self.to_server.clear();
        self.to_client.clear();
    }

    /// Takes `bytes` of what the client sent.
    pub fn read_by_server(&mut self, bytes: usize, into: &mut BytesMut) {
        into.extend_from_slice(&self.to_server[..bytes]);
        self.to_server.advance(bytes);
    }
}
