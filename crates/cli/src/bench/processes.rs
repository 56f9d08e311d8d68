//! What the broker's processes take of the machine, from `/proc`: processor time and resident memory.
//!
//! A process counts with all its descendants, as RabbitMQ's is spread over several. Linux only.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The processes that a broker consists of, with all that they start.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    roots: Vec<u32>,
}

/// What processes take of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Processor time since they began, user and system, to the clock tick (10 ms on most systems).
    pub(super) cpu: Duration,
    /// Resident memory. The system counts to a few hundred KiB.
    pub(super) resident_bytes: u64,
}

/// How long a broker is left alone before its memory is looked at: what it needed for a moment, as at its start, may be
/// given back.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

impl Processes {
    /// These and their descendants; `None` when there are none to watch.
    pub(super) fn new(roots: &[u32]) -> Option<Self> {
        (!roots.is_empty()).then(|| Self { roots: roots.to_vec() })
    }

    /// What they take now.
    ///
    /// # Errors
    /// When one of them is not there, or there is no `/proc`.
    pub(super) fn footprint(&self) -> Result<Footprint> {
        let stats = all_stats().context("--pid needs Linux's /proc")?;
        for root in &self.roots {
            ensure!(stats.contains_key(root), "there is no process {root}");
        }
        let (mut cpu_ticks, mut resident_pages) = (0, 0);
        for (_, stat) in stats.iter().filter(|(pid, _)| self.includes(**pid, &stats)) {
            cpu_ticks += stat.cpu_ticks;
            resident_pages += stat.resident_pages;
        }
        let cpu = Duration::from_secs_f64(cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(Footprint { cpu, resident_bytes: resident_pages * rustix::param::page_size() as u64 })
    }

    fn includes(&self, mut pid: u32, stats: &HashMap<u32, Stat>) -> bool {
        loop {
            if self.roots.contains(&pid) {
                return true;
            }
            match stats.get(&pid) {
                Some(stat) if stat.parent != 0 => pid = stat.parent,
                _ => return false,
            }
        }
    }
}

/// A line of `/proc/PID/stat`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time, with that of children that have ended.
    cpu_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads the fields after the name, which may contain anything, parentheses too. See proc(5).
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let times = [number(11)?, number(12)?, number(13)?, number(14)?];
        Some(Self { parent: fields.get(1)?.parse().ok()?, cpu_ticks: times.iter().sum(), resident_pages: number(21)? })
    }
}

fn all_stats() -> Result<HashMap<u32, Stat>> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end at any moment.
        let Ok(line) = fs::read(entry.path().join("stat")) else { continue };
        let stat = Stat::parse(&String::from_utf8_lossy(&line)).context("/proc/PID/stat has another form")?;
        stats.insert(pid, stat);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_any_name() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 900 80 0 0 130 20 3 4 20 0 5 0 777 1000000 512 18446744073709551615 1 1";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 7, cpu_ticks: 157, resident_pages: 512 }));
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn descendants_count() {
        let stat = |parent| Stat { parent, cpu_ticks: 1, resident_pages: 1 };
        let stats = HashMap::from([(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(1)), (5, stat(99))]);
        let processes = Processes::new(&[2]).unwrap();
        let mut included: Vec<_> = stats.keys().copied().filter(|&pid| processes.includes(pid, &stats)).collect();
        included.sort_unstable();
        assert_eq!(included, [2, 3]);
        assert!(Processes::new(&[]).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_takes_memory() {
        assert!(Processes::new(&[std::process::id()]).unwrap().footprint().unwrap().resident_bytes > 100_000);
    }
}
