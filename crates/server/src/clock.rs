//! The clock of the hosts: the one place that reads the time for the machines.

use broker::command::Now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Reads the time as machines want it. Cloning it copies its origin, so that all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    started_unix_ms: u64,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), started_unix_ms: unix_ms() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { ms: self.uptime_ms(), unix_ms: unix_ms() }
    }

    /// Milliseconds since the clock was started.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the clock was started, in milliseconds since 1970.
    #[must_use]
    pub fn started_unix_ms(&self) -> u64 {
        self.started_unix_ms
    }

    /// When [`Now::ms`] will be `ms`; at most [`FAR`] ahead, since timers of centuries overflow. A waker looks at the
    /// time again anyway.
    pub(crate) fn at(&self, ms: u64) -> Instant {
        let ahead = Duration::from_millis(ms.saturating_sub(self.uptime_ms())).min(FAR);
        // A whole millisecond later than the floor of the division, so that the time has come when the timer fires.
        Instant::now() + ahead + Duration::from_millis(1)
    }
}

/// Nanoseconds since 1970 by the wall clock: what others' spans are told in.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The farthest a timer is set.
pub(crate) const FAR: Duration = Duration::from_secs(24 * 3600);
