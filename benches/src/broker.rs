//! A broker with one shard, and clients of it.

use crate::drive::Drive;
use crate::wire;
use ::broker::command::ConnectionId;
use bytes::BytesMut;
use machines::{Machines, Segments};

/// The broker.
pub(crate) struct Broker {
    machines: Machines<Segments<Drive>>,
}

/// A client that has a channel open.
#[derive(Clone, Copy)]
pub(crate) struct Client(ConnectionId);

impl Broker {
    pub(crate) fn new() -> Self {
        Self { machines: Machines::on(vec![Segments::on(Drive::default())]) }
    }

    /// A client that has said [`wire::hello`], and then what `more` writes. What it was answered so far is forgotten.
    pub(crate) fn client(&mut self, more: impl FnOnce(&mut BytesMut)) -> Client {
        let id = self.machines.connect();
        let mut bytes = wire::hello();
        more(&mut bytes);
        self.machines.send(id, &bytes);
        assert!(!self.machines.is_closed(id), "{}", String::from_utf8_lossy(&self.machines.received(id)));
        drop(self.machines.received(id));
        self.machines.only_count(id);
        Client(id)
    }

    /// The client says that, and all that follows from it happens.
    pub(crate) fn say(&mut self, client: Client, bytes: &[u8]) {
        self.machines.send(client.0, bytes);
    }

    /// How many bytes the client was sent in all.
    pub(crate) fn heard(&self, client: Client) -> u64 {
        self.machines.received_bytes(client.0)
    }

    /// The client takes so many bytes more, and then none.
    pub(crate) fn take(&mut self, client: Client, bytes: u64) {
        self.machines.take(client.0, bytes);
    }
}
