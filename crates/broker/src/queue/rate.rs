//! How many messages may leave in a time: a rate, and what has been used of it.
//!
//! A [`Bucket`] is one number: the time by which all that left would have left at an even pace. It may run ahead of the
//! clock by [`BURST_MS`], which makes up for timers that are late, and is all the burst there is.

use std::cmp::Ordering;
use std::fmt;

/// So many deliveries in such a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Unit,
}

/// The time that a rate is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    fn nanoseconds(self) -> u64 {
        match self {
            Self::Second => SECOND_NS,
            Self::Minute => 60 * SECOND_NS,
            Self::Hour => 3_600 * SECOND_NS,
        }
    }
}

impl Rate {
    /// So many in a second, from 1 to [`Rate::COUNT_MAX`].
    #[must_use]
    pub fn per_second(count: u64) -> Option<Self> {
        Self::new(count, Unit::Second)
    }

    /// `N/s`, `N/m` or `N/h`, and `N` alone for seconds; N from 1 to [`Rate::COUNT_MAX`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = match text.split_once('/') {
            None => (text, Unit::Second),
            Some((count, "s")) => (count, Unit::Second),
            Some((count, "m")) => (count, Unit::Minute),
            Some((count, "h")) => (count, Unit::Hour),
            Some(_) => return None,
        };
        // `parse` alone would take a sign.
        let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
        Self::new(count.parse().ok().filter(|_| is_number)?, unit)
    }

    /// Which of two lets less through.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let scaled = |one: &Self, by: &Self| u128::from(one.count) * u128::from(by.unit.nanoseconds());
        scaled(self, other).cmp(&scaled(other, self))
    }

    fn new(count: u64, unit: Unit) -> Option<Self> {
        let count = u32::try_from(count).ok().filter(|count| (1..=Self::COUNT_MAX).contains(count))?;
        Some(Self { count, unit })
    }

    /// No rate allows more at a time than a billion.
    pub const COUNT_MAX: u32 = 1_000_000_000;

    /// The time that one delivery takes at an even pace.
    fn interval_ns(self) -> u64 {
        self.unit.nanoseconds() / u64::from(self.count)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => 's',
            Unit::Minute => 'm',
            Unit::Hour => 'h',
        };
        write!(out, "{}/{unit}", self.count)
    }
}

/// What has been used of a rate. The rate may be another one each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// When all that left would have left, in nanoseconds of the shard's clock.
    paid_until_ns: u64,
}

impl Bucket {
    /// When the next one may leave (ms); a time that is over means at once.
    pub(crate) fn opens_at_ms(self) -> u64 {
        self.paid_until_ns.div_ceil(MS_NS).saturating_sub(BURST_MS)
    }

    pub(crate) fn is_open(self, now_ms: u64) -> bool {
        self.opens_at_ms() <= now_ms
    }

    /// When it is as if nothing had ever left (ms).
    pub(crate) fn is_full_at_ms(self) -> u64 {
        self.paid_until_ns.div_ceil(MS_NS)
    }

    /// One leaves.
    pub(crate) fn take(&mut self, rate: Rate, now_ms: u64) {
        let from_ns = self.paid_until_ns.max(now_ms.saturating_mul(MS_NS));
        self.paid_until_ns = from_ns.saturating_add(rate.interval_ns());
    }
}

const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;
/// How far what leaves may be ahead of an even pace: 5 % of a second's worth, and more than a timer is late by.
const BURST_MS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many leave in that time, when somebody looks each so many milliseconds.
    fn left(rate: Rate, for_ms: u64, each_ms: u64) -> u64 {
        let mut bucket = Bucket::default();
        let mut count = 0;
        for now_ms in (1_000_000..=1_000_000 + for_ms).step_by(each_ms as usize) {
            while bucket.is_open(now_ms) {
                bucket.take(rate, now_ms);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_rate_is_kept_whoever_looks_how_often() {
        for (per_second, each_ms) in [(10, 1), (10, 7), (1_000, 1), (1_000, 23), (50_000, 1), (50_000, 40), (7, 3)] {
            let rate = Rate::per_second(per_second).unwrap();
            let (found, exact) = (left(rate, 10_000, each_ms), per_second * 10);
            assert!(found.abs_diff(exact) <= exact / 100 + 2, "{found} of {exact}, each {each_ms} ms");
        }
    }

    #[test]
    fn after_a_pause_no_more_than_a_small_burst_leaves() {
        let rate = Rate::per_second(1_000).unwrap();
        let mut bucket = Bucket::default();
        bucket.take(rate, 1);
        let mut burst = 0;
        while bucket.is_open(3_600_000) {
            bucket.take(rate, 3_600_000);
            burst += 1;
        }
        assert_eq!(burst, BURST_MS + 1);
    }

    #[test]
    fn slow_rates_are_slow_from_the_first_on() {
        assert_eq!(left(Rate::parse("1/h").unwrap(), 3_500_000, 1_000), 1);
        assert_eq!(left(Rate::parse("6/m").unwrap(), 59_000, 100), 6);
    }

    #[test]
    fn rates_are_read_from_what_people_write() {
        for (text, read) in [("10", "10/s"), ("10/s", "10/s"), ("600/m", "600/m"), ("1/h", "1/h")] {
            assert_eq!(format!("{:?}", Rate::parse(text).unwrap()), read);
        }
        for wrong in ["", "/s", "0", "0/m", "-1", "+1", "1.5/s", "1/d", "1/s/s", " 1", "1000000001", "1 /s"] {
            assert_eq!(Rate::parse(wrong), None, "{wrong:?}");
        }
    }
}
