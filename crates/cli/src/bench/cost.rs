//! What a run cost: processor time per message of the broker and of the load generator, and the broker's memory.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use super::figures::cpu_us;
use super::outcome::{Outcome, Unit};
use super::processes::{Footprint, Processes};

/// Measures from its start to its reading.
#[derive(Debug)]
pub(super) struct Meter {
    broker: Option<(Processes, Footprint)>,
    own_cpu: Duration,
}

/// What a run cost. `None` is what was not measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// The broker's processor time per message in µs, user and system.
    broker_cpu_us: Option<f64>,
    /// The load generator's own.
    own_cpu_us: Option<f64>,
    /// The broker's memory at the end.
    resident_bytes: Option<u64>,
}

impl Meter {
    /// Starts to measure the broker's processes, if they are known, and this one.
    ///
    /// # Errors
    /// When one of the broker's processes is not there.
    pub(super) fn start(broker: Option<Processes>) -> Result<Self> {
        let broker = broker.map(|broker| broker.footprint().map(|before| (broker, before))).transpose()?;
        Ok(Self { broker, own_cpu: own_cpu() })
    }

    /// What it cost since then, divided by `messages`.
    pub(super) fn read(&self, messages: u64) -> Result<Cost> {
        let mut cost = Cost { own_cpu_us: cpu_us(own_cpu().saturating_sub(self.own_cpu), messages), ..Cost::default() };
        if let Some((broker, before)) = &self.broker {
            let after = broker.footprint()?;
            cost.broker_cpu_us = cpu_us(after.cpu.saturating_sub(before.cpu), messages);
            cost.resident_bytes = Some(after.resident_bytes);
        }
        Ok(cost)
    }
}

/// The processor time that this process has taken so far.
fn own_cpu() -> Duration {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(taken).unwrap_or_default()
}

impl Cost {
    /// The broker's processor time per message in µs, if its processes are known.
    pub(super) fn broker_cpu_us(&self) -> Option<f64> {
        self.broker_cpu_us
    }

    /// The load generator's own.
    pub(super) fn own_cpu_us(&self) -> Option<f64> {
        self.own_cpu_us
    }

    /// Adds what was measured per message.
    pub(super) fn add_to(&self, outcome: &mut Outcome) {
        self.add_in(Unit::CpuUs, outcome);
    }

    /// Adds what was measured, where processor time has this unit.
    pub(super) fn add_in(&self, unit: Unit, outcome: &mut Outcome) {
        outcome.add_known("broker_cpu_us", "broker CPU", self.broker_cpu_us, unit);
        outcome.add_known("generator_cpu_us", "generator CPU", self.own_cpu_us, unit);
        outcome.add_known("broker_bytes", "broker memory", self.resident_bytes.map(|bytes| bytes as f64), Unit::Bytes);
    }
}
