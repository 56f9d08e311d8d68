//! Bytes on their way to a client: small pieces are joined, large bodies are shared with the message they belong to.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// What a connection has to send, in order. The host writes from the front.
#[derive(Debug, Default)]
pub struct OutBuffer {
    /// Before everything in `tail`.
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    tail: BytesMut,
}

impl OutBuffer {
    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes to send.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Fills `slices` from the front and says how many it used.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]]);
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Forgets the first `bytes` bytes: they are written. At most [`Self::len`].
    pub fn advance(&mut self, mut bytes: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if bytes < chunk.len() {
                chunk.advance(bytes);
                self.chunk_bytes -= bytes;
                return;
            }
            bytes -= chunk.len();
            self.chunk_bytes -= chunk.len();
            self.chunks.pop_front();
        }
        if bytes < self.tail.len() {
            self.tail.advance(bytes);
        } else {
            assert!(bytes == self.tail.len(), "no more can be written than there was");
            self.tail.clear();
        }
    }

    /// Gives the room back that an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Where to encode what comes next.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a piece without copying it.
    pub(crate) fn push_shared(&mut self, piece: Bytes) {
        if !self.tail.is_empty() {
            let joined = self.tail.split().freeze();
            self.chunk_bytes += joined.len();
            self.chunks.push_back(joined);
        }
        self.chunk_bytes += piece.len();
        self.chunks.push_back(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(out: &OutBuffer) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let used = out.io_slices(&mut slices);
        slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn pieces_leave_in_the_order_they_came_however_they_are_cut() {
        let whole = b"head-SHARED-middle-OTHER-tail".to_vec();
        for cut in 0..=whole.len() {
            let mut out = OutBuffer::default();
            out.tail().extend_from_slice(b"head-");
            out.push_shared(Bytes::from_static(b"SHARED"));
            out.tail().extend_from_slice(b"-middle-");
            out.push_shared(Bytes::from_static(b"OTHER"));
            out.tail().extend_from_slice(b"-tail");
            assert_eq!(contents(&out), whole);
            out.advance(cut);
            assert_eq!(contents(&out), whole[cut..]);
            assert_eq!(out.len(), whole.len() - cut);
            out.advance(out.len());
            assert!(out.is_empty());
        }
    }
}
