//! What the machine is that was measured on, as far as Linux tells.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Processor, memory, system, the file system that `dir` is on, and the day.
pub(super) fn describe(dir: &Path) -> Value {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory_kib = after(&read("/proc/meminfo"), "MemTotal").and_then(|it| it.split(' ').next()?.parse::<u64>().ok());
    json!({
        "processor": after(&read("/proc/cpuinfo"), "model name"),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": memory_kib.map(|kib| (kib as f64 / f64::from(1 << 20)).round()),
        "system": format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        "file_system": file_system(&read("/proc/mounts"), dir),
        "day": day(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)),
    })
}

/// The type of the file system that a directory is on: that of the longest mount point above it.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// A day since 1970-01-01 in the Gregorian calendar: 400 years are 146,097 days, and years begin in March, so that a leap
/// day is a year's last.
fn day(since_epoch: u64) -> String {
    let days = since_epoch + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (since_epoch, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_785, "2026-11-28"),
            (47_540, "2100-02-28"),
        ] {
            assert_eq!(day(since_epoch), expected);
        }
    }

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "a / ext4 rw 0 0\nb /proc proc rw 0 0\nc /proc/sys sysfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/proc/sys")).as_deref(), Some("sysfs"));
        assert_eq!(file_system(mounts, Path::new("/no-such-folder")).as_deref(), Some("ext4"));
        assert_eq!(file_system("", Path::new("/")), None);
    }
}
