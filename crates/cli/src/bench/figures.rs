//! Numbers out of samples, and numbers as text.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::serve::thousands;

/// The median of `samples`: the mean of the middle two when their number is even, 0 of none.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest sample that at least `share` (0 to 1) of all are no greater than; 0 of none.
/// `sorted` is in ascending order.
pub(super) fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

/// An empty histogram of nanoseconds, to three digits.
pub(super) fn new_histogram() -> Result<Histogram<u64>> {
    // An hour is enough: what is longer counts as that.
    Histogram::new_with_bounds(1, HOUR_NS, 3).context("no histogram")
}

/// `count` per second over `time`, 0 over none.
pub(super) fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// Processor time per message in µs; `None` without messages.
pub(super) fn cpu_us(cpu: Duration, messages: u64) -> Option<f64> {
    (messages > 0).then(|| cpu.as_secs_f64() * 1e6 / messages as f64)
}

/// `578012.3` as `578,012/s`.
pub(super) fn per_second(rate: f64) -> String {
    format!("{}/s", thousands(rate.round() as u64))
}

/// Nanoseconds as `0.093 ms`.
pub(super) fn milliseconds(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

/// Bytes as `12.3 MB`.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Rows of cells as text: the first column to the left, all others to the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn a_percentile_is_a_sample() {
        let sorted: Vec<u64> = (1..=1000).collect();
        let found = [0.0, 0.5, 0.99, 0.999, 1.0].map(|share| percentile(&sorted, share));
        assert_eq!(found, [1, 500, 990, 999, 1000]);
        assert_eq!(percentile(&[7], 0.5), 7);
        assert_eq!(percentile(&[], 0.99), 0);
    }

    #[test]
    fn numbers_are_shown_with_their_units() {
        assert_eq!(per_second(578_012.3), "578,012/s");
        assert_eq!(milliseconds(93_400), "0.093 ms");
        assert_eq!(megabytes(12_345_678), "12.3 MB");
        assert_eq!(cpu_us(Duration::from_secs(1), 1_000_000), Some(1.0));
        assert_eq!(cpu_us(Duration::from_secs(1), 0), None);
        assert_eq!(rate(10, Duration::from_secs(4)), 2.5);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["".into(), "mean".into()], vec!["published".into(), "5/s".into()]];
        assert_eq!(table(&rows), "           mean\npublished   5/s\n");
    }
}
