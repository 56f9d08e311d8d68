//! The alarms: the process's memory and the disk's free space are held against their limits, and while one of them is
//! short every connection that publishes is blocked (RabbitMQ's resource alarms).
//!
//! A task looks four times a second, and sooner while something grows so fast that it could be past its limit by then.
//! Each change is logged once, with what an operator can do, and told to all connections in the order in which it
//! happened. Limits that are changed while the server runs hold until it stops.

use crate::config::Config;
use crate::footprint;
use crate::limits::MemoryLimit;
use crate::switchboard::Switchboard;
use broker::command::{ShardId, Shortage};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is limited, and what is short. Changed through [`Switchboard`], which tells the connections.
#[derive(Debug)]
pub struct Alarms {
    data_dir: PathBuf,
    state: Mutex<State>,
}

/// The limits and the alarms at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmsView {
    /// The limit on memory, as an operator set it.
    pub memory_limit: MemoryLimit,
    /// The same in bytes; `None` where nobody knows how much memory there is.
    pub memory_limit_bytes: Option<u64>,
    /// How much of the disk must be free, in bytes.
    pub disk_free_limit: u64,
    /// The alarms that are on.
    pub shortage: Shortage,
}

#[derive(Debug)]
struct State {
    memory_limit: MemoryLimit,
    /// Looked up when the limit is set: a machine keeps its memory.
    memory_limit_bytes: Option<u64>,
    disk_free_limit: u64,
    /// Shards whose log found no room on the disk, whatever the file system says is free.
    full: BTreeSet<ShardId>,
    shortage: Shortage,
    /// The last two readings, the later one first, and the time between them.
    readings: [Reading; 2],
    read_at: Instant,
    apart: Duration,
}

/// What was measured; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    resident_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
}

impl Alarms {
    pub(crate) fn new(config: &Config) -> Self {
        let state = State {
            memory_limit: config.memory_limit,
            memory_limit_bytes: config.memory_limit.bytes_of(footprint::memory_bytes()),
            disk_free_limit: config.disk_free_limit,
            full: BTreeSet::new(),
            shortage: Shortage::default(),
            readings: [Reading::default(); 2],
            read_at: Instant::now(),
            apart: Duration::ZERO,
        };
        Self { data_dir: config.data_dir.clone(), state: Mutex::new(state) }
    }

    /// The limits and the alarms.
    #[must_use]
    pub fn view(&self) -> AlarmsView {
        let state = self.state();
        AlarmsView {
            memory_limit: state.memory_limit,
            memory_limit_bytes: state.memory_limit_bytes,
            disk_free_limit: state.disk_free_limit,
            shortage: state.shortage,
        }
    }

    /// Whether a log finds no room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        !self.state().full.is_empty()
    }

    /// The alarms that are on.
    #[must_use]
    pub fn shortage(&self) -> Shortage {
        self.state().shortage
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, looks, and tells the outcome if it is another than before. The lock is held while it is told,
    /// so that nobody hears of two changes in the wrong order.
    fn change(&self, change: impl FnOnce(&mut State), tell: impl FnOnce(Shortage)) {
        let reading = Reading {
            resident_bytes: footprint::resident_bytes(),
            disk_free_bytes: footprint::disk_free_bytes(&self.data_dir),
        };
        let mut state = self.state();
        let before = state.shortage;
        change(&mut state);
        state.take(reading, Instant::now());
        if state.shortage != before {
            state.log(before);
            tell(state.shortage);
        }
    }
}

impl Switchboard {
    /// Holds memory and disk against their limits, now.
    pub fn check_alarms(&self) {
        self.change_alarms(|_| {});
    }

    /// Limits the memory.
    pub fn set_memory_limit(&self, limit: MemoryLimit) {
        let bytes = limit.bytes_of(footprint::memory_bytes());
        tracing::info!("the memory limit is {limit} from now on, which is {}", size(bytes));
        self.change_alarms(|state| {
            (state.memory_limit, state.memory_limit_bytes) = (limit, bytes);
            state.forget(|shortage| &mut shortage.memory);
        });
    }

    /// Limits the disk: so many bytes must stay free.
    pub fn set_disk_free_limit(&self, bytes: u64) {
        tracing::info!("the limit of free disk space is {} from now on", size(Some(bytes)));
        self.change_alarms(|state| {
            state.disk_free_limit = bytes;
            state.forget(|shortage| &mut shortage.disk);
        });
    }

    /// A shard's log found the disk full, or found room again.
    pub fn set_disk_full(&self, shard: ShardId, is_full: bool) {
        self.change_alarms(|state| {
            if is_full {
                state.full.insert(shard);
            } else {
                state.full.remove(&shard);
            }
        });
    }

    fn change_alarms(&self, change: impl FnOnce(&mut State)) {
        self.alarms().change(change, |shortage| self.tell_shortage(shortage));
    }
}

/// Looks again and again, for ever.
pub(crate) async fn watch(board: Arc<Switchboard>) {
    loop {
        let pause = board.alarms().state().pause();
        sleep(pause).await;
        board.check_alarms();
    }
}

impl State {
    fn take(&mut self, reading: Reading, now: Instant) {
        self.readings = [reading, self.readings[0]];
        self.apart = now.duration_since(self.read_at);
        self.read_at = now;
        let memory = reading.resident_bytes.zip(self.memory_limit_bytes);
        self.shortage = Shortage {
            memory: memory.is_some_and(|(taken, limit)| taken > self.memory_wanted(limit)),
            disk: !self.full.is_empty() || reading.disk_free_bytes.is_some_and(|free| free < self.disk_wanted()),
        };
    }

    /// What memory may be taken at most. Less than the limit when the alarm is on: it would come and go otherwise.
    fn memory_wanted(&self, limit: u64) -> u64 {
        if self.shortage.memory { limit - limit / HYSTERESIS } else { limit }
    }

    /// What must be free at least, likewise.
    fn disk_wanted(&self) -> u64 {
        let limit = self.disk_free_limit;
        if self.shortage.disk { limit.saturating_add(limit / HYSTERESIS) } else { limit }
    }

    /// A new limit is to be judged by as if there had been no alarm.
    fn forget(&mut self, alarm: impl FnOnce(&mut Shortage) -> &mut bool) {
        *alarm(&mut self.shortage) = false;
    }

    /// How long until the next look: half the time in which the limit would be reached if all goes on as between the
    /// last two.
    fn pause(&self) -> Duration {
        let [now, before] = self.readings;
        let memory = now.resident_bytes.zip(before.resident_bytes).zip(self.memory_limit_bytes);
        let memory = memory.map(|((now, before), limit)| (now.saturating_sub(before), limit.saturating_sub(now)));
        let disk = now.disk_free_bytes.zip(before.disk_free_bytes);
        let disk = disk.map(|(now, before)| (before.saturating_sub(now), now.saturating_sub(self.disk_free_limit)));
        let is_on = [self.shortage.memory, self.shortage.disk];
        let mut pause = LOOK_EVERY;
        for (change, is_on) in [memory, disk].into_iter().zip(is_on) {
            if let Some((grown, left)) = change.filter(|(grown, _)| *grown > 0 && !is_on) {
                let apart_us = u64::try_from(self.apart.as_micros()).unwrap_or(u64::MAX);
                let until_us = u128::from(apart_us) * u128::from(left) / u128::from(grown) / 2;
                pause = pause.min(Duration::from_micros(u64::try_from(until_us).unwrap_or(u64::MAX)));
            }
        }
        pause.max(LOOK_AT_MOST_EVERY)
    }

    fn log(&self, before: Shortage) {
        let now = self.shortage;
        let Reading { resident_bytes, disk_free_bytes } = self.readings[0];
        let (taken, free) = (size(resident_bytes), size(disk_free_bytes));
        let limit = size(self.memory_limit_bytes);
        match (before.memory, now.memory) {
            (false, true) => tracing::warn!(
                "memory is short: the server takes {taken}, and its limit is {limit}. Clients that publish are blocked \
                 until it takes less than {}. Let consumers work the queues off, purge what nobody needs, or raise the \
                 limit (leveret ctl set_vm_memory_high_watermark, or --memory-limit)",
                size(self.memory_limit_bytes.map(|limit| self.memory_wanted(limit))),
            ),
            (true, false) => tracing::info!(
                "memory is enough again: the server takes {taken}, and its limit is {limit}{}",
                if now.disk { "" } else { GO_ON }
            ),
            _ => {}
        }
        match (before.disk, now.disk) {
            (false, true) if !self.full.is_empty() => tracing::warn!(
                "the disk of the data directory is full: the log cannot grow. Clients that publish are blocked until it can. Let \
                 consumers work the queues off, purge what nobody needs, or make room on the disk"
            ),
            (false, true) => tracing::warn!(
                "disk space is short: {free} are free for the data directory, and the limit is {}. Clients that publish are \
                 blocked until {} are free. Let consumers work the queues off, make room on the disk, or lower the limit \
                 (leveret ctl set_disk_free_limit, or --disk-free-limit)",
                size(Some(self.disk_free_limit)),
                size(Some(self.disk_wanted())),
            ),
            (true, false) => {
                tracing::info!("disk space is enough again: {free} are free{}", if now.memory { "" } else { GO_ON })
            }
            _ => {}
        }
    }
}

/// `1.5 GiB`, in words for people.
fn size(bytes: Option<u64>) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some(bytes) = bytes else { return "unknown".to_owned() };
    match UNITS.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(factor);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

const GO_ON: &str = "; publishers go on";

/// An alarm goes off when there is a twentieth of the limit, 5 %, more than that.
const HYSTERESIS: u64 = 20;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looking costs some microseconds.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A state with limits of 100 MiB of memory and 50 MiB of disk, and the moment of its last reading.
    fn state() -> State {
        State {
            memory_limit: MemoryLimit::Bytes(100 * MIB),
            memory_limit_bytes: Some(100 * MIB),
            disk_free_limit: 50 * MIB,
            full: BTreeSet::new(),
            shortage: Shortage::default(),
            readings: [Reading::default(); 2],
            read_at: Instant::now(),
            apart: Duration::ZERO,
        }
    }

    impl State {
        /// Reads so many MiB, 100 ms after the last time.
        fn reads(&mut self, resident: u64, free: u64) -> (bool, bool) {
            let reading = Reading { resident_bytes: Some(resident * MIB), disk_free_bytes: Some(free * MIB) };
            self.take(reading, self.read_at + Duration::from_millis(100));
            (self.shortage.memory, self.shortage.disk)
        }
    }

    #[test]
    fn alarms_go_on_past_the_limit_and_off_with_some_distance() {
        let mut state = state();
        assert_eq!(state.reads(100, 50), (false, false));
        assert_eq!(state.reads(101, 49), (true, true));
        assert_eq!(state.reads(96, 52), (true, true), "5 % are missing");
        assert_eq!(state.reads(95, 53), (false, false));
        assert_eq!(state.reads(100, 50), (false, false));
    }

    #[test]
    fn a_new_limit_is_judged_at_once() {
        let mut state = state();
        assert_eq!(state.reads(101, 49), (true, true));
        state.memory_limit_bytes = Some(102 * MIB);
        state.disk_free_limit = 49 * MIB;
        state.forget(|shortage| &mut shortage.memory);
        assert_eq!(state.reads(101, 49), (false, true));
        state.forget(|shortage| &mut shortage.disk);
        assert_eq!(state.reads(101, 49), (false, false));
    }

    #[test]
    fn a_limit_of_nothing_is_always_exceeded_and_one_that_nobody_knows_never() {
        let mut state = state();
        (state.memory_limit_bytes, state.disk_free_limit) = (Some(0), u64::MAX);
        assert_eq!(state.reads(1, 1000), (true, true));
        assert_eq!(state.reads(1, 1000), (true, true));
        (state.memory_limit_bytes, state.disk_free_limit) = (None, 0);
        assert_eq!(state.reads(1000, 0), (false, false));
        state.take(Reading::default(), state.read_at);
        assert_eq!(state.shortage, Shortage::default(), "nothing can be measured");
    }

    #[test]
    fn a_log_that_found_the_disk_full_is_believed() {
        let mut state = state();
        state.full.extend([ShardId(0), ShardId(1)]);
        assert_eq!(state.reads(1, 1000), (false, true));
        state.full.remove(&ShardId(0));
        assert_eq!(state.reads(1, 1000), (false, true));
        state.full.remove(&ShardId(1));
        assert_eq!(state.reads(1, 1000), (false, false));
    }

    #[test]
    fn what_grows_fast_is_looked_at_sooner() {
        let mut state = state();
        state.reads(10, 1000);
        state.reads(10, 1000);
        assert_eq!(state.pause(), LOOK_EVERY);
        state.reads(20, 1000);
        assert_eq!(state.pause(), LOOK_EVERY, "80 MiB are left and 10 came in 100 ms");
        state.reads(60, 1000);
        assert_eq!(state.pause(), Duration::from_millis(50));
        state.reads(60, 150);
        assert_eq!(state.pause(), LOOK_AT_MOST_EVERY, "850 MiB of disk went in 100 ms, and 100 are left");
        state.reads(150, 40);
        assert_eq!(state.pause(), LOOK_EVERY, "both alarms are on");
    }

    #[test]
    fn sizes_are_for_people() {
        let shown = [Some(0), Some(1536), Some(53_477_376), Some(5 << 30), None].map(size);
        assert_eq!(shown, ["0 bytes", "1.5 KiB", "51.0 MiB", "5.0 GiB", "unknown"]);
    }
}
