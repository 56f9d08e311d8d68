//! How long to wait before the next try: longer each time, and by chance, so that many clients do not come at once.

use std::time::Duration;

/// Tries in a row that failed.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failed: u32,
}

impl Backoff {
    /// One more failed: how long to wait now. `chance` is random.
    pub(crate) fn next(&mut self, chance: u64) -> Duration {
        let most = LEAST.saturating_mul(1 << self.failed.min(16)).min(MOST);
        self.failed = self.failed.saturating_add(1);
        // Between half of it and all.
        let half_ms = most.as_millis() as u64 / 2;
        Duration::from_millis(half_ms + chance % (half_ms + 1))
    }
}

const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_up_to_ten_seconds_and_less_by_chance() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert!(
            waits
                .iter()
                .zip([100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000])
                .all(|(wait, most)| { (most / 2..=most).contains(wait) }),
            "{waits:?}"
        );
    }
}
