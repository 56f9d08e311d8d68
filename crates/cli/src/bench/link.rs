//! A connection that shares its thread with others: nothing blocks, and between two turns only a piece of a frame is kept.

use anyhow::Result;

use super::connection::Connection;

/// A connection, and what is known of its socket.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    /// The beginning of a frame whose rest is to come.
    piece: Vec<u8>,
    /// Whether there may be something to read.
    pub(super) is_readable: bool,
    /// Whether there may be room to write.
    pub(super) is_writable: bool,
}

/// What a thread reads into, for all its connections: more than two of the largest frames.
pub(super) fn reading_room() -> Vec<u8> {
    vec![0; ROOM_BYTES]
}

impl Link {
    /// What an open connection becomes.
    pub(super) fn new(mut connection: Connection) -> Self {
        let piece = connection.take_unread();
        Self { connection, piece, is_readable: true, is_writable: true }
    }

    /// A connection again, that waits for its answers.
    pub(super) fn into_connection(mut self) -> Connection {
        self.connection.give_unread(self.piece);
        self.connection
    }

    /// The connection, to look at.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes what the socket takes; how much that was.
    #[inline]
    pub(super) fn send(&mut self, octets: &[u8]) -> Result<usize> {
        let sent = self.connection.send_now(octets)?;
        self.is_writable = sent == octets.len();
        Ok(sent)
    }

    /// Reads once and gives what is there to `take`, again and again, which says how much of it was whole and taken.
    #[inline]
    pub(super) fn read(
        &mut self,
        room: &mut [u8],
        mut take: impl FnMut(&[u8], usize) -> Result<Option<usize>>,
    ) -> Result<()> {
        let kept = self.piece.len();
        room[..kept].copy_from_slice(&self.piece);
        let received = self.connection.receive_now(&mut room[kept..])?;
        // A read that leaves room has read everything.
        self.is_readable = received == room.len() - kept;
        let (mut rest, frame_max) = (&room[..kept + received], self.connection.frame_max());
        while let Some(taken) = take(rest, frame_max)? {
            rest = &rest[taken..];
        }
        self.piece.clear();
        self.piece.extend_from_slice(rest);
        Ok(())
    }
}

/// Large reads are cheap ones, as long as they stay in the processor's cache.
const ROOM_BYTES: usize = 512 * 1024;
