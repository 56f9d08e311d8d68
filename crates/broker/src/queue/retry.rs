//! How long a message waits that came back, before it is delivered again (`x-delayed-retry-*`).
//!
//! RabbitMQ 4.3 has this for quorum queues, and waits longer each time by the same time (`linear`). Doubling
//! (`exponential`) and jitter are ours.

use crate::route::hash::mix;
use store::{QueueId, Seq};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `x-delayed-retry-min`: the wait after the first failed delivery, in milliseconds.
    pub min_ms: u64,
    /// `x-delayed-retry-max`: no wait is longer, in milliseconds; never less than `min_ms`.
    pub max_ms: u64,
    /// `x-delayed-retry-backoff`: how waits grow.
    pub backoff: Backoff,
    /// `x-delayed-retry-jitter`: by how much of itself a wait can be shorter, in percent, 0 to 100. It spreads messages
    /// that failed together.
    pub jitter_percent: u8,
}

/// `x-delayed-retry-backoff`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backoff {
    /// The so-manieth wait is as many times the first.
    #[default]
    Linear,
    /// Each wait is twice the one before.
    Exponential,
}

impl Retry {
    /// The wait after so many failed deliveries of the message in this place, in milliseconds. The same arguments give
    /// the same wait.
    #[must_use]
    pub fn wait_ms(&self, attempts: u32, queue: QueueId, seq: Seq) -> u64 {
        let attempts = attempts.max(1);
        let factor = match self.backoff {
            Backoff::Linear => u64::from(attempts),
            Backoff::Exponential => 1u64.checked_shl(attempts - 1).unwrap_or(u64::MAX),
        };
        let wait_ms = self.min_ms.saturating_mul(factor).min(self.max_ms);
        if self.jitter_percent == 0 {
            return wait_ms;
        }
        let most = u128::from(wait_ms) * u128::from(self.jitter_percent) / 100;
        let place = queue.0 ^ seq.0.rotate_left(20) ^ u64::from(attempts).rotate_left(52);
        let share = mix(place.wrapping_add(0x9e37_79b9_7f4a_7c15));
        wait_ms - (((most + 1) * u128::from(share)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { min_ms: 1000, max_ms: 10_000, backoff: Backoff::Linear, jitter_percent: 0 };

    fn waits(retry: Retry) -> Vec<u64> {
        [0, 1, 2, 3, 5, 11, 64, 65, u32::MAX].map(|attempts| retry.wait_ms(attempts, QueueId(1), Seq(7))).into()
    }

    #[test]
    fn a_wait_grows_up_to_the_greatest() {
        assert_eq!(waits(RETRY), [1000, 1000, 2000, 3000, 5000, 10_000, 10_000, 10_000, 10_000]);
        let doubling = Retry { backoff: Backoff::Exponential, ..RETRY };
        assert_eq!(waits(doubling), [1000, 1000, 2000, 4000, 10_000, 10_000, 10_000, 10_000, 10_000]);
        let endless = Retry { max_ms: u64::MAX, ..doubling };
        assert_eq!(*waits(endless).last().unwrap(), u64::MAX);
    }

    #[test]
    fn jitter_spreads_over_its_share_and_no_further() {
        let retry = Retry { jitter_percent: 20, ..RETRY };
        let waits: Vec<u64> = (0..10_000).map(|seq| retry.wait_ms(1, QueueId(1), Seq(seq))).collect();
        assert!(waits.iter().all(|ms| (800..=1000).contains(ms)));
        let (low, high) = (waits.iter().filter(|ms| **ms < 820).count(), waits.iter().filter(|ms| **ms > 980).count());
        assert!((700..1300).contains(&low) && (700..1300).contains(&high), "{low} short ones, {high} long ones");
        let any = Retry { jitter_percent: 100, ..RETRY };
        assert!((0..10_000).any(|seq| any.wait_ms(1, QueueId(1), Seq(seq)) < 10));
    }
}
