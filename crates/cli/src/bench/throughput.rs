//! `leveret bench throughput`: how many messages a broker moves a second, and what each costs its processors.
//!
//! Every producer and consumer is a thread with a connection. Producers write batches that were encoded
//! ahead; consumers parse no more than they need and write the acks of a read at once.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use amqp::method::{basic, confirm};
use amqp::{Frame, Method};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::bench_queue::BenchQueue;
use super::broker_url::BrokerUrl;
use super::confirm_window::ConfirmWindow;
use super::connection::{Connection, Wait, method_id, pass_over};
use super::cost::{Cost, Meter};
use super::delivery::{AckMode, Acks, DeliveryReader};
use super::figures::{median, per_second, rate, table};
use super::publish_batch::PublishBatch;
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
    /// Connections that publish
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    producers: u16,
    /// Connections that consume
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    consumers: u16,
    /// How many messages a producer may have unconfirmed; 0 = publish without confirms
    #[arg(long, value_name = "WINDOW", default_value_t = 0)]
    confirm: u32,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags) -> Result<()> {
    ensure!(flags.producers > 0 || flags.consumers > 0, "there is nothing to do without producers and consumers");
    flags.work.ack.check(flags.work.prefetch)?;
    let queue = BenchQueue::open(&flags.target.url, flags.work.queue.as_deref(), flags.work.durable)?;
    let broker = queue.broker().to_owned();
    let measured = load(flags, queue.name());
    let closed = queue.close();
    let measured = measured?;
    closed?;
    flags.target.show(&measured.json(flags, &broker), &measured.table(flags, &broker))
}

/// Opens all connections, then lets all threads run until the time is over or one has failed.
fn load(flags: &Flags, queue: &str) -> Result<Measured> {
    let url = &flags.target.url;
    let consumers = (1..=flags.consumers)
        .map(|number| flags.work.consumer(url, queue, &format!("leveret bench consumer {number}")))
        .collect::<Result<Vec<_>>>()?;
    let producers =
        (1..=flags.producers).map(|number| producer(url, number, flags.confirm)).collect::<Result<Vec<_>>>()?;
    let frame_max = producers.first().map_or(0, Connection::frame_max);
    let batch = PublishBatch::new(queue, flags.work.size as usize, flags.work.persistent, frame_max.max(FRAME_MIN));
    let tallies: Vec<Tally> = (0..producers.len() + consumers.len()).map(|_| Tally::default()).collect();
    let over = Over::default();
    let (failed, failures) = mpsc::channel();
    let measured = thread::scope(|scope| {
        let (produced, consumed) = tallies.split_at(producers.len());
        let (batch, over) = (&batch, &over);
        for (connection, tally) in consumers.into_iter().zip(consumed) {
            let failed = failed.clone();
            scope.spawn(move || consume(connection, flags.work.ack, tally, over).map_err(|error| failed.send(error)));
        }
        for (connection, tally) in producers.into_iter().zip(produced) {
            let failed = failed.clone();
            scope.spawn(move || {
                produce(connection, batch, flags.confirm, tally, over).map_err(|error| failed.send(error))
            });
        }
        let measured = watch(&tallies, flags, &failures);
        over.set();
        measured
    });
    match failures.try_recv() {
        Ok(failure) if measured.is_ok() => Err(failure),
        _ => measured,
    }
}

fn producer(url: &BrokerUrl, number: u16, window: u32) -> Result<Connection> {
    let mut connection = Connection::open(url, &format!("leveret bench producer {number}"))?;
    if window > 0 {
        connection.widen();
        connection.call(&Method::ConfirmSelect(confirm::Select { nowait: false }), confirm::SelectOk::ID)?;
    }
    Ok(connection)
}

/// Publishes as fast as the broker reads, or as its confirms allow.
fn produce(mut connection: Connection, batch: &PublishBatch, window: u32, tally: &Tally, over: &Over) -> Result<()> {
    let mut window = (window > 0).then(|| ConfirmWindow::new(window.into()));
    let mut counts = Counts::default();
    while !over.is_set() {
        let free = window.as_ref().map_or(u64::MAX, ConfirmWindow::free);
        let messages = free.min(batch.messages());
        if messages > 0 {
            connection.write_all(batch.octets(messages), || !over.is_set())?;
            counts.published += messages;
        }
        if let Some(window) = &mut window {
            window.send(messages);
        }
        if connection.fill(if messages == free { Wait::Tick } else { Wait::Not })? {
            while let Some(frame) = connection.next_frame()? {
                read_confirm(&frame, window.as_mut())?;
            }
            counts.confirmed = window.as_ref().map_or(0, ConfirmWindow::confirmed);
        }
        tally.set(counts);
    }
    connection.close()
}

/// Takes a publisher's frame: a confirm, or what a broker may say besides. Without a window no confirm is expected.
pub(super) fn read_confirm(frame: &Frame<'_>, window: Option<&mut ConfirmWindow>) -> Result<()> {
    let Some(window) = window else { return pass_over(frame) };
    match method_id(frame) {
        Some(basic::Ack::ID) => {
            let (tag, multiple) =
                frame.payload.get(4..).and_then(<[u8]>::split_first_chunk).context("a basic.ack is too short")?;
            window.confirm(u64::from_be_bytes(*tag), multiple.first().is_some_and(|bits| bits & 1 == 1))
        }
        Some(basic::Nack::ID) => bail!("the broker refused a message (basic.nack)"),
        _ => pass_over(frame),
    }
}

/// Receives, and settles what it has received.
fn consume(mut connection: Connection, ack: AckMode, tally: &Tally, over: &Over) -> Result<()> {
    let mut counts = Counts::default();
    let (mut reader, mut acks) = (DeliveryReader::default(), Acks::new(ack));
    // The first deliveries may have come with the last answer.
    let mut has_news = true;
    while !over.is_set() {
        if !std::mem::take(&mut has_news) && !connection.fill(Wait::Tick)? {
            continue;
        }
        while let Some(frame) = connection.next_frame()? {
            if let Some(tag) = reader.read(&frame)? {
                counts.consumed += 1;
                acks.settle(tag);
            }
        }
        tally.set(counts);
        connection.write_all(acks.octets(), || !over.is_set())?;
        acks.clear();
    }
    connection.close()
}

/// Samples the tallies each second and says how it goes.
fn watch(tallies: &[Tally], flags: &Flags, failures: &Receiver<anyhow::Error>) -> Result<Measured> {
    let meter = Meter::start(flags.target.processes())?;
    let (began, counts_before) = (Instant::now(), Counts::of(tallies));
    let (mut sampled, mut counts) = (began, counts_before);
    let mut seconds = Vec::new();
    for second in 1..=flags.work.seconds {
        let due = began + Duration::from_secs(second.into());
        match failures.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(failure) => return Err(failure),
            Err(RecvTimeoutError::Disconnected) => bail!("all threads have ended"),
        }
        let (now, counts_now) = (Instant::now(), Counts::of(tallies));
        let rates = Rates::new(counts_now.since(counts), now - sampled);
        (sampled, counts) = (now, counts_now);
        say(&format!("{second:>4} s  {}", rates.line(flags)));
        seconds.push(rates);
    }
    let total = counts.since(counts_before);
    let cost = meter.read(total.messages())?;
    Ok(Measured { total, mean: Rates::new(total, sampled - began), seconds, cost })
}

/// Messages per second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rates {
    published: f64,
    confirmed: f64,
    consumed: f64,
}

impl Rates {
    fn new(counts: Counts, time: Duration) -> Self {
        Self {
            published: rate(counts.published, time),
            confirmed: rate(counts.confirmed, time),
            consumed: rate(counts.consumed, time),
        }
    }

    fn of(seconds: &[Self], figure: impl Fn(&[f64]) -> f64) -> Self {
        let over = |rate: fn(&Self) -> f64| figure(&seconds.iter().map(rate).collect::<Vec<_>>());
        Self {
            published: over(|rates| rates.published),
            confirmed: over(|rates| rates.confirmed),
            consumed: over(|rates| rates.consumed),
        }
    }

    /// Those that the load has, by name.
    fn named(self, flags: &Flags) -> Vec<(&'static str, f64)> {
        let mut named = Vec::new();
        if flags.producers > 0 {
            named.push(("published", self.published));
        }
        if flags.producers > 0 && flags.confirm > 0 {
            named.push(("confirmed", self.confirmed));
        }
        if flags.consumers > 0 {
            named.push(("consumed", self.consumed));
        }
        named
    }

    fn line(self, flags: &Flags) -> String {
        let shown: Vec<_> =
            self.named(flags).into_iter().map(|(name, rate)| format!("{name} {}", per_second(rate))).collect();
        shown.join("  ")
    }
}

/// What came of a run.
#[derive(Debug)]
struct Measured {
    total: Counts,
    /// Over the whole run.
    mean: Rates,
    /// Of each second.
    seconds: Vec<Rates>,
    cost: Cost,
}

impl Measured {
    fn table(&self, flags: &Flags, broker: &str) -> String {
        let medians = Rates::of(&self.seconds, median).named(flags);
        let mut rows = vec![["", "median", "mean"].map(str::to_owned).to_vec()];
        for ((name, median), (_, mean)) in medians.into_iter().zip(self.mean.named(flags)) {
            rows.push(vec![name.to_owned(), per_second(median), per_second(mean)]);
        }
        rows.extend(self.cost.rows());
        format!(
            "{broker} at {}, {} B bodies, {} s\n{}",
            flags.target.url,
            flags.work.size,
            flags.work.seconds,
            table(&rows)
        )
    }

    fn json(&self, flags: &Flags, broker: &str) -> Value {
        let rates = |rates: Rates| json!({"published": rates.published, "confirmed": rates.confirmed, "consumed": rates.consumed});
        json!({
            "load": "throughput",
            "broker": broker,
            "url": flags.target.url.to_string(),
            "producers": flags.producers,
            "consumers": flags.consumers,
            "confirm": flags.confirm,
            "work": flags.work.json(),
            "published": self.total.published,
            "confirmed": self.total.confirmed,
            "consumed": self.total.consumed,
            "mean_per_second": rates(self.mean),
            "median_per_second": rates(Rates::of(&self.seconds, median)),
            "seconds": self.seconds.iter().map(|&second| rates(second)).collect::<Vec<_>>(),
            "cost": self.cost.json(),
        })
    }
}

/// A body frame's size when there is nobody to agree on one with.
const FRAME_MIN: usize = 4096;
