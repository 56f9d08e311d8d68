//! `leveret bench latency`: how long messages take from publisher to consumer at a fixed rate.
//!
//! Each message is timed from the moment it was due, by a timestamp in its body, so that a broker that
//! stalls its publisher pays for all that was due meanwhile (no coordinated omission). Only what the
//! generator itself oversleeps is taken off: what came due during a sleep is timed from its end.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::bench_queue::BenchQueue;
use super::connection::{Connection, Wait, pass_over};
use super::cost::{Cost, Meter};
use super::delivery::{AckMode, Acks, DeliveryReader};
use super::figures::{milliseconds, per_second, percentile, table};
use super::publish_batch::{BATCH_BYTES, PublishBatch, STAMP_BYTES};
use super::say;
use super::tally::{Counts, Over, Tally};
use super::work::{Target, Work};

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    work: Work,
    /// Messages per second, evenly spread
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags) -> Result<()> {
    ensure!(flags.work.size as usize >= STAMP_BYTES, "a timestamp takes {STAMP_BYTES} bytes: --size is less");
    flags.work.ack.check(flags.work.prefetch)?;
    let queue = BenchQueue::open(&flags.target.url, flags.work.queue.as_deref(), flags.work.durable)?;
    let broker = queue.broker().to_owned();
    ensure!(queue.messages() == 0, "{} holds messages of other loads, whose latency cannot be told", queue.name());
    let measured = load(flags, queue.name());
    let closed = queue.close();
    let measured = measured?;
    closed?;
    flags.target.show(&measured.json(flags, &broker), &measured.table(flags, &broker))
}

fn load(flags: &Flags, queue: &str) -> Result<Measured> {
    let url = &flags.target.url;
    let consumer = flags.work.consumer(url, queue, "leveret bench consumer")?;
    let producer = Connection::open(url, "leveret bench producer")?;
    let message = PublishBatch::new(queue, flags.work.size as usize, flags.work.persistent, producer.frame_max());
    let schedule = Schedule::new(flags.rate, flags.work.seconds);
    let meter = Meter::start(flags.target.processes())?;
    let tallies = [Tally::default(), Tally::default()];
    let over = Over::default();
    let (oversleeps, latencies) = thread::scope(|scope| {
        let [published, consumed] = &tallies;
        let (message, schedule, over) = (&message, &schedule, &over);
        // Nothing is ever sent: it closes when both threads have ended.
        let (alive, ended) = mpsc::channel::<()>();
        let also_alive = alive.clone();
        let producer = scope.spawn(move || {
            let _alive = alive;
            let oversleeps = publish(producer, message, schedule, published, over);
            over.set();
            oversleeps
        });
        let consumer = scope.spawn(move || {
            let _alive = also_alive;
            let latencies = consume(consumer, flags.work.ack, schedule, consumed, over);
            over.set();
            latencies
        });
        watch(&ended, &tallies, schedule);
        (producer.join(), consumer.join())
    });
    let died = |_| anyhow!("a thread of the load died");
    let (oversleeps, latencies) = (oversleeps.map_err(died)??, latencies.map_err(died)??);
    let counts = Counts::of(&tallies);
    let cost = meter.read(counts.messages())?;
    Ok(Measured::new(counts, latencies, oversleeps, cost))
}

/// Says each second how it goes, until the run has ended.
fn watch(ended: &Receiver<()>, tallies: &[Tally], schedule: &Schedule) {
    let mut counts = Counts::default();
    for second in 1.. {
        let due = schedule.began + Duration::from_secs(second);
        if ended.recv_timeout(due.saturating_duration_since(Instant::now())) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let now = Counts::of(tallies);
        let done = now.since(counts);
        counts = now;
        let (published, consumed) = (per_second(done.published as f64), per_second(done.consumed as f64));
        say(&format!("{second:>4} s  published {published}  consumed {consumed}"));
    }
}

/// When which message is due. Times are nanoseconds since it began.
#[derive(Debug)]
struct Schedule {
    began: Instant,
    rate: u64,
    messages: u64,
}

impl Schedule {
    /// `rate` messages a second, evenly spread over `seconds`, from now on.
    fn new(rate: u32, seconds: u32) -> Self {
        Self { began: Instant::now(), rate: rate.into(), messages: u64::from(rate) * u64::from(seconds) }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// When the message with this number, from 0, is due.
    fn due(&self, number: u64) -> u64 {
        number / self.rate * NS_PER_S + number % self.rate * NS_PER_S / self.rate
    }

    /// Sleeps until `due`; the time when it woke up.
    #[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, and at most one second")]
    fn sleep_until(&self, due: u64) -> u64 {
        thread::sleep(Duration::from_nanos(due.saturating_sub(self.now())));
        self.now()
    }
}

/// Publishes each message when it is due; by how much each sleep was too long.
fn publish(
    mut connection: Connection,
    message: &PublishBatch,
    schedule: &Schedule,
    tally: &Tally,
    over: &Over,
) -> Result<Vec<u64>> {
    sleep_precisely();
    let (mut number, mut woke) = (0, 0);
    let (mut octets, mut oversleeps) = (Vec::new(), Vec::new());
    while number < schedule.messages && !over.is_set() {
        let due = schedule.due(number);
        let mut now = schedule.now();
        if due > now {
            now = schedule.sleep_until(due);
            woke = now;
            oversleeps.push(now.saturating_sub(due));
        }
        octets.clear();
        while number < schedule.messages && schedule.due(number) <= now && octets.len() < BATCH_BYTES {
            message.append_stamped(schedule.due(number).max(woke), &mut octets);
            number += 1;
        }
        connection.write_all(&octets, || !over.is_set())?;
        tally.set(Counts { published: number, ..Counts::default() });
        if connection.fill(Wait::Not)? {
            while let Some(frame) = connection.next_frame()? {
                pass_over(&frame)?;
            }
        }
    }
    connection.close()?;
    Ok(oversleeps)
}

/// Receives all messages; how long each took. Ends early when no more come.
fn consume(
    mut connection: Connection,
    ack: AckMode,
    schedule: &Schedule,
    tally: &Tally,
    over: &Over,
) -> Result<Vec<u64>> {
    let (mut reader, mut acks) = (DeliveryReader::default(), Acks::new(ack));
    let (mut latencies, mut stamp, mut consumed) = (Vec::new(), 0, 0);
    let mut arrived = Instant::now();
    while consumed < schedule.messages {
        if !connection.fill(Wait::Tick)? {
            if over.is_set() && arrived.elapsed() >= STRAGGLERS {
                break;
            }
            continue;
        }
        arrived = Instant::now();
        let now = schedule.now();
        while let Some(frame) = connection.next_frame()? {
            if reader.awaits_body() {
                stamp = frame.payload.first_chunk().copied().map_or(0, u64::from_be_bytes);
            }
            if let Some(tag) = reader.read(&frame)? {
                latencies.push(now.saturating_sub(stamp));
                consumed += 1;
                acks.settle(tag);
            }
        }
        tally.set(Counts { consumed, ..Counts::default() });
        connection.write_all(acks.octets(), || true)?;
        acks.clear();
    }
    connection.close()?;
    Ok(latencies)
}

/// Asks the system to end sleeps when they should end, and not up to 50 µs later to save wake-ups.
fn sleep_precisely() {
    #[cfg(target_os = "linux")]
    // Refused, it shows in the oversleeps.
    let _refused = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// What came of a run. Times are nanoseconds.
#[derive(Debug)]
struct Measured {
    counts: Counts,
    /// In ascending order.
    latencies: Vec<u64>,
    /// In ascending order.
    oversleeps: Vec<u64>,
    cost: Cost,
}

impl Measured {
    fn new(counts: Counts, mut latencies: Vec<u64>, mut oversleeps: Vec<u64>, cost: Cost) -> Self {
        latencies.sort_unstable();
        oversleeps.sort_unstable();
        Self { counts, latencies, oversleeps, cost }
    }

    fn lost(&self) -> u64 {
        self.counts.published.saturating_sub(self.counts.consumed)
    }

    fn table(&self, flags: &Flags, broker: &str) -> String {
        let mut rows: Vec<_> = SHARES
            .iter()
            .map(|&(name, share)| vec![name.to_owned(), milliseconds(percentile(&self.latencies, share))])
            .collect();
        rows.push(vec!["generator overslept, p99".to_owned(), milliseconds(percentile(&self.oversleeps, 0.99))]);
        if self.lost() > 0 {
            rows.push(vec!["never came".to_owned(), self.lost().to_string()]);
        }
        rows.extend(self.cost.rows());
        let (work, rate) = (&flags.work, per_second(flags.rate.into()));
        format!(
            "{broker} at {}, {} B bodies, {rate} for {} s\n{}",
            flags.target.url,
            work.size,
            work.seconds,
            table(&rows)
        )
    }

    fn json(&self, flags: &Flags, broker: &str) -> Value {
        let latency: serde_json::Map<_, _> =
            SHARES.iter().map(|&(name, share)| (name.to_owned(), percentile(&self.latencies, share).into())).collect();
        json!({
            "load": "latency",
            "broker": broker,
            "url": flags.target.url.to_string(),
            "rate": flags.rate,
            "work": flags.work.json(),
            "published": self.counts.published,
            "consumed": self.counts.consumed,
            "latency_ns": latency,
            "generator_overslept_p99_ns": percentile(&self.oversleeps, 0.99),
            "cost": self.cost.json(),
        })
    }
}

/// Which percentiles are shown.
const SHARES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

const NS_PER_S: u64 = 1_000_000_000;

/// How long messages may stay away after the last that came.
const STRAGGLERS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_without_drift() {
        let schedule = Schedule::new(3, 4);
        assert_eq!(schedule.messages, 12);
        let due: Vec<_> = (0..7).map(|number| schedule.due(number)).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000, 1_333_333_333, 1_666_666_666, 2_000_000_000]);
        assert_eq!(Schedule::new(10_000_000, 1).due(u64::from(u32::MAX)), 429_496_729_500);
    }

    #[test]
    fn a_result_is_sorted_and_tells_what_never_came() {
        let counts = Counts { published: 3, consumed: 2, confirmed: 0 };
        let measured = Measured::new(counts, vec![9, 4], vec![2, 1], Cost::default());
        assert_eq!(
            (measured.latencies.as_slice(), measured.oversleeps.as_slice(), measured.lost()),
            (&[4, 9][..], &[1, 2][..], 1)
        );
    }
}
