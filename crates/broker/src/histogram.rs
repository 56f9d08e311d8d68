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
    #[cfg(test)]
    pub(crate) fn note(&mut self, ms: u64, count: u64) {
        self.counts[bucket(ms)] += count;
        self.sum_ms = self.sum_ms.saturating_add(ms.saturating_mul(count));
    }

    fn take(&mut self, tally: Tally) {
        self.counts[usize::from(tally.bucket)] += u64::from(tally.count);
        self.sum_ms = self.sum_ms.saturating_add(tally.sum_ms);
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

/// The last times that were alike, on their way to a histogram, which is elsewhere in memory and so is written to
/// seldom.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    sum_ms: u64,
    count: u32,
    bucket: u8,
}

impl Tally {
    /// So many took that long. `histogram` is where all go that are not of one bucket with these.
    #[inline]
    pub(crate) fn note<'a>(&mut self, ms: u64, count: u64, histogram: impl FnOnce() -> &'a mut Histogram) {
        let bucket = bucket(ms) as u8;
        let total = u64::from(self.count) + count;
        match u32::try_from(total) {
            Ok(total) if self.bucket == bucket && self.count > 0 => self.count = total,
            Ok(_) => {
                histogram().take(*self);
                *self = Self { sum_ms: 0, count: count as u32, bucket };
            }
            Err(_) => {
                let histogram = histogram();
                histogram.take(std::mem::take(self));
                histogram.counts[usize::from(bucket)] += count;
                histogram.sum_ms = histogram.sum_ms.saturating_add(ms.saturating_mul(count));
                return;
            }
        }
        self.sum_ms = self.sum_ms.saturating_add(ms.saturating_mul(count));
    }

    /// The histogram with these in it.
    pub(crate) fn added_to(self, mut histogram: Histogram) -> Histogram {
        histogram.take(self);
        histogram
    }
}

fn bucket(ms: u64) -> usize {
    let bits = u64::BITS - ms.leading_zeros();
    (bits.div_ceil(2) as usize).min(BUCKETS - 1)
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
    fn what_is_tallied_first_is_the_same_histogram() {
        let (mut told, mut kept, mut tally) = (Histogram::default(), Histogram::default(), Tally::default());
        for (ms, count) in
            [(0, 1), (0, 2), (1, 1), (1, u64::from(u32::MAX)), (70, 3), (64, 1), (0, 1 << 40), (u64::MAX, 2)]
        {
            told.note(ms, count);
            tally.note(ms, count, || &mut kept);
            assert_eq!(tally.added_to(kept), told);
        }
    }

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
