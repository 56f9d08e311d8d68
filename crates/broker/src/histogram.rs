//! Times by how long they are, for metrics: each bound is four times the one before, so that noting one takes a shift.

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_ms: u64,
}

impl Histogram {
    /// What is below each bucket but the last, in milliseconds: from one to 19 hours.
    pub const BOUNDS_MS: [u64; BUCKETS - 1] = bounds();

    /// So many took that long.
    pub(crate) fn note(&mut self, ms: u64, count: u64) {
        let bits = u64::BITS - ms.leading_zeros();
        let bucket = (bits.div_ceil(2) as usize).min(BUCKETS - 1);
        self.counts[bucket] += count;
        self.sum_ms = self.sum_ms.saturating_add(ms.saturating_mul(count));
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }

    /// How many are in each bucket.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// All together, in milliseconds.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }
}

/// How long messages took in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// From their publish, or from the time that they were due at, to their first delivery to a consumer.
    pub in_queue: Histogram,
    /// From a delivery to its acknowledgement.
    pub to_ack: Histogram,
}

/// How many buckets there are.
pub const BUCKETS: usize = 15;

const fn bounds() -> [u64; BUCKETS - 1] {
    let mut bounds = [1; BUCKETS - 1];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 4;
        at += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_below_its_buckets_bound_and_not_below_the_one_before() {
        for ms in [0, 1, 3, 4, 15, 16, 63, 64, 999, 1_000, 1_023, 1_024, 67_108_863, 67_108_864, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.note(ms, 3);
            let expected = Histogram::BOUNDS_MS.partition_point(|bound| *bound <= ms);
            assert_eq!(histogram.counts[expected], 3, "{ms}");
            assert_eq!(histogram.sum_ms(), ms.saturating_mul(3));
        }
    }
}
