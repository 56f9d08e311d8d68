//! Ids of spans: random, so that nobody else has the same ones.

/// Draws ids from the system's random source, many at a time.
#[derive(Debug)]
pub(super) struct Ids {
    drawn: [u8; 8 * DRAWN],
    used: usize,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { drawn: [0; 8 * DRAWN], used: DRAWN }
    }

    /// An id; never 0.
    pub(super) fn next(&mut self) -> u64 {
        loop {
            if self.used == DRAWN {
                self.used = 0;
                // Without it ids would be those of before: traces would look odd, and nothing else would be wrong.
                let _odd_traces = getrandom::fill(&mut self.drawn);
            }
            let (ids, _) = self.drawn.as_chunks::<8>();
            let id = u64::from_ne_bytes(ids[self.used]);
            self.used += 1;
            if id != 0 {
                return id;
            }
            if self.used == DRAWN && self.drawn == [0; 8 * DRAWN] {
                return 1;
            }
        }
    }
}

const DRAWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_are_the_same() {
        let mut ids = Ids::new();
        let drawn: HashSet<_> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(drawn.len(), 10_000);
    }
}
