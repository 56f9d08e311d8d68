//! Looks at a load while it runs, and ends it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::broker::Broker;
use super::super::cost::Meter;
use super::super::drive::Clock;
use super::super::figures::new_histogram;
use super::super::interrupt::Interrupt;
use super::super::layout::Layout;
use super::super::say;
use super::super::tally::{Counts, Over, Tally, last_change_ns};
use super::{DIED, Flow, Flowed, Rates};

/// Looks at a load while it runs.
pub(super) struct Watch<'a> {
    pub(super) flow: &'a Flow<'a>,
    pub(super) tallies: &'a [Tally],
    /// Of the producers, and of the consumers.
    pub(super) overs: &'a [Over; 2],
    pub(super) failures: &'a Receiver<anyhow::Error>,
    pub(super) interrupt: &'a Interrupt,
    pub(super) layout: &'a Layout,
}

impl Watch<'_> {
    /// Samples the tallies each second and says how it goes, until the time is over or all is done.
    /// All threads have begun at `from`, and the meter.
    pub(super) fn run(&self, broker: &Broker, mut meter: Meter, from: Instant, clock: &Clock) -> Result<Flowed> {
        let flags = self.flow.flags;
        let (mut began, mut counts_before) = (from, Counts::default());
        if !flags.warm_up().is_zero() {
            self.until(from + flags.warm_up())?;
            meter = Meter::start(broker.processes.clone())?;
            (began, counts_before) = (Instant::now(), Counts::of(self.tallies));
        }
        let (mut sampled, mut counts, mut seconds) = (began, counts_before, Vec::new());
        for second in 1..=flags.seconds() {
            let has_ended = self.until(began + Duration::from_secs(second.into()))?;
            let (now, counts_now) = (Instant::now(), Counts::of(self.tallies));
            let rates = Rates::new(counts_now.since(counts), now - sampled);
            (sampled, counts) = (now, counts_now);
            // A piece of a second says little, unless it is all there is.
            if !has_ended || seconds.is_empty() {
                say(&format!("{second:>4} s  {}", rates.line(flags)));
                seconds.push(rates);
            }
            if has_ended {
                break;
            }
        }
        let total = counts.since(counts_before);
        let cost = meter.read(total.messages())?;
        let mut time = sampled - began;
        if flags.messages.is_some() && self.is_all_done(counts) {
            // The end is when the last came, not when that was seen.
            let end = clock.instant(last_change_ns(self.tallies));
            time = end.saturating_duration_since(began).max(Duration::from_nanos(1));
        }
        let never_came = self.stragglers()?;
        let (latencies, oversleeps) = (new_histogram()?, new_histogram()?);
        Ok(Flowed { broker: String::new(), total, time, seconds, cost, latencies, oversleeps, never_came })
    }

    /// Waits until `deadline`; true if the run has ended before.
    fn until(&self, deadline: Instant) -> Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.failures.recv_timeout(left.min(LOOK)) {
                Ok(failure) => return Err(failure),
                // All producers are done, and there is no consumer.
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) if self.interrupt.has_come() => return Ok(true),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_all_done(Counts::of(self.tallies)) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Whether a load of so many messages is done.
    fn is_all_done(&self, counts: Counts) -> bool {
        let flags = self.flow.flags;
        let Some(messages) = flags.messages else { return false };
        let messages = if flags.producers == 0 { 0 } else { messages };
        counts.published >= messages
            && (flags.confirm == 0 || counts.confirmed >= messages)
            && (flags.consumers == 0 || counts.consumed >= self.to_come(messages))
    }

    /// How many deliveries so many publishes make.
    fn to_come(&self, published: u64) -> u64 {
        published * self.layout.fan_out() + self.layout.messages()
    }

    /// Lets the producers end, and waits for what is still on its way if that matters; how many never came.
    fn stragglers(&self) -> Result<u64> {
        let [producers, _] = self.overs;
        producers.set();
        let flags = self.flow.flags;
        let is_each_awaited = self.flow.is_stamped || flags.messages.is_some();
        if flags.consumers == 0 || !is_each_awaited || self.interrupt.has_come() {
            return Ok(0);
        }
        let (mut counts, mut changed_at) = (Counts::of(self.tallies), Instant::now());
        loop {
            let missing = self.to_come(counts.published).saturating_sub(counts.consumed);
            if missing == 0 || changed_at.elapsed() >= STRAGGLERS || self.interrupt.has_come() {
                return Ok(missing);
            }
            match self.failures.recv_timeout(LOOK) {
                Ok(failure) => return Err(failure),
                Err(RecvTimeoutError::Disconnected) => bail!(DIED),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Counts::of(self.tallies);
            if now != counts {
                (counts, changed_at) = (now, Instant::now());
            }
        }
    }
}

/// How often to look whether a run has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How long messages may stay away after the last that came.
const STRAGGLERS: Duration = Duration::from_secs(5);
