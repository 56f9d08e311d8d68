//! The end of a stream of octets, however long the stream is.

/// It.
#[derive(Debug, Default)]
pub(super) struct Tail {
    octets: Vec<u8>,
}

impl Tail {
    /// How much of the end is kept: what the broker keeps of it.
    pub(super) const BYTES: usize = 8 << 10;

    pub(super) fn push(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(Self::BYTES)..];
        // Moved rarely: once for each time that as much has come as is kept.
        if self.octets.len() + more.len() > 2 * Self::BYTES {
            let excess = (self.octets.len() + more.len() - Self::BYTES).min(self.octets.len());
            self.octets.drain(..excess);
        }
        self.octets.extend_from_slice(more);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.octets[self.octets.len().saturating_sub(Self::BYTES)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_end_and_takes_no_more_memory_than_two_of_it() {
        let (mut tail, mut all) = (Tail::default(), Vec::<u8>::new());
        for step in 0..2_000_usize {
            let piece = vec![step as u8; step * 37 % 20_011];
            tail.push(&piece);
            all.extend(&piece);
            assert_eq!(tail.as_slice(), &all[all.len().saturating_sub(Tail::BYTES)..]);
            assert!(tail.octets.len() <= 2 * Tail::BYTES);
        }
    }
}
