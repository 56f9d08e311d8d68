//! `leveret bench delayed`: messages that each have a time of their own, and how late they come.
//!
//! All are published before the first is due, so that what is measured afterwards is only that they come.

use std::time::{Duration, Instant};

use amqp::method::{basic, confirm, queue};
use amqp::{Method, PropertyList, Table, content};
use anyhow::{Result, bail, ensure};
use bytes::BytesMut;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::broker::Broker;
use super::confirm_window::ConfirmWindow;
use super::connection::{CHANNEL, Connection, Wait};
use super::cost::Meter;
use super::delivery::{AckMode, Acks, DeliveryReader};
use super::figures::{new_histogram, rate};
use super::interrupt::Interrupt;
use super::layout::{call_all, consume};
use super::outcome::{Outcome, Unit};
use super::producer::read_confirm;
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(super) load: Load,
}

/// Which messages.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Load")]
#[group(skip)]
pub(super) struct Load {
    /// How many messages
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) messages: u64,
    /// Body size; the first eight octets say when the message is due
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub(super) size: u32,
    /// Over how many seconds their times are spread
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) over: u32,
    /// How many seconds after the first publish the first is due: filling has to take less
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub(super) after: u32,
    /// Which have which time
    #[arg(long, value_name = "ORDER", default_value = "random")]
    pub(super) order: Order,
    /// How many unacknowledged deliveries the consumer may have
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(super) prefetch: u16,
}

/// How times follow one another in the order of publishing.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By chance
    Random,
    /// As the messages do
    Published,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let load = &flags.load;
    let work = json!({
        "messages": load.messages,
        "body_bytes": load.size,
        "over_seconds": load.over,
        "after_seconds": load.after,
        "order": format!("{:?}", load.order).to_lowercase(),
        "prefetch": load.prefetch,
    });
    let order = if load.order == Order::Random { "at random" } else { "in order" };
    let title = format!(
        "{} messages of {} B, due {order} over {} s",
        crate::serve::thousands(load.messages),
        load.size,
        load.over
    );
    flags.target.run("delayed", &title, &work, interrupt, |broker| measure(broker, load, interrupt))
}

/// Publishes all, and receives each when it is due.
pub(super) fn measure(broker: &Broker, load: &Load, interrupt: &Interrupt) -> Result<Outcome> {
    let queue = format!("leveret-bench-{}-delayed", std::process::id());
    let mut connection = Connection::open(&broker.url, "leveret bench delayed")?;
    let declare = queue::Declare { queue: &queue, durable: true, ..Default::default() };
    connection.call(&Method::QueueDeclare(declare), queue::DeclareOk::ID)?;
    let measured = measure_in(broker, load, &queue, &mut connection, interrupt);
    let delete = Method::QueueDelete(queue::Delete { queue: &queue, ..Default::default() });
    call_all(&mut connection, std::iter::once(delete), queue::DeleteOk::ID)?;
    connection.close()?;
    measured
}

fn measure_in(
    broker: &Broker,
    load: &Load,
    queue: &str,
    publisher: &mut Connection,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let resident = || match &broker.processes {
        Some(processes) => processes.footprint().map(|found| Some(found.resident_bytes as f64)),
        None => Ok(None),
    };
    let mut outcome = Outcome::new(publisher.broker());
    let (before, meter, began) = (resident()?, Meter::start(broker.processes.clone())?, Instant::now());
    publish(publisher, load, queue, began, interrupt)?;
    let filled = began.elapsed();
    outcome.add("filled_per_s", "filled", rate(load.messages, filled), Unit::PerSecond);
    outcome.add_known("fill_cpu_us", "broker CPU, fill", meter.read(load.messages)?.broker_cpu_us(), Unit::CpuUs);
    if let Some((before, full)) = before.zip(resident()?) {
        outcome.add("full_bytes", "memory when full", full, Unit::Bytes);
        outcome.add("bytes_each", "memory each", (full - before) / load.messages as f64, Unit::Kilobytes);
    }
    let first_due = Duration::from_secs(load.after.into());
    ensure!(filled < first_due, "filling took {filled:.1?}: give it more time with --after");
    receive(broker, load, queue, began, interrupt, &mut outcome)?;
    Ok(outcome)
}

/// Publishes all with confirms; the times count from `began`.
fn publish(connection: &mut Connection, load: &Load, queue: &str, began: Instant, interrupt: &Interrupt) -> Result<()> {
    connection.call(&Method::ConfirmSelect(confirm::Select { nowait: false }), confirm::SelectOk::ID)?;
    let (first_us, over_us) = (u64::from(load.after) * 1_000_000, u64::from(load.over) * 1_000_000);
    let frame_max = connection.frame_max();
    let (mut window, mut random) = (ConfirmWindow::new(WINDOW), 0x9E37_79B9_7F4A_7C15_u64);
    let (mut octets, mut body) = (BytesMut::new(), vec![0; load.size as usize]);
    let mut sent = 0;
    while sent < load.messages || window.confirmed() < load.messages {
        if interrupt.has_come() {
            bail!("interrupted");
        }
        let now_us = began.elapsed().as_micros() as u64;
        let count = window.free().min(load.messages - sent).min(AT_ONCE);
        for number in sent..sent + count {
            // xorshift64: any order will do that is the same each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let after_us = match load.order {
                Order::Random => random % over_us,
                Order::Published => over_us * number / load.messages,
            };
            let delay_ms = (first_us + after_us).saturating_sub(now_us).div_ceil(1000);
            let mut headers = Table::new();
            headers.insert("x-delay", delay_ms as i64);
            let mut properties = BytesMut::new();
            PropertyList { delivery_mode: Some(2), headers: Some(headers), ..Default::default() }
                .encode(&mut properties);
            body[..8].copy_from_slice(&(now_us + delay_ms * 1000).to_be_bytes());
            basic::Publish { exchange: "", routing_key: queue, ..Default::default() }.encode(CHANNEL, &mut octets);
            content::encode_content(CHANNEL, &properties, &body, frame_max, &mut octets);
        }
        connection.write_all(&octets, || false)?;
        octets.clear();
        window.send(count);
        sent += count;
        connection.fill(if window.free() < AT_ONCE || sent == load.messages { Wait::Tick } else { Wait::Not })?;
        while let Some(frame) = connection.next_frame()? {
            read_confirm(&frame, Some(&mut window))?;
        }
    }
    Ok(())
}

/// Receives all, and acknowledges each.
fn receive(
    broker: &Broker,
    load: &Load,
    queue: &str,
    began: Instant,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut connection = Connection::open(&broker.url, "leveret bench delayed consumer")?;
    connection.widen();
    consume(&mut connection, std::iter::once(&queue.to_owned()), false, load.prefetch)?;
    let meter = Meter::start(broker.processes.clone())?;
    let (mut reader, mut acks, mut lateness) = (DeliveryReader::default(), Acks::new(AckMode::Each), new_histogram()?);
    let (mut received, mut early, mut heard_at) = (0, 0, Instant::now());
    while received < load.messages && !interrupt.has_come() {
        if connection.fill(Wait::Tick)? {
            heard_at = Instant::now();
        }
        let now_us = began.elapsed().as_micros() as u64;
        while let Some(frame) = connection.next_frame()? {
            if reader.awaits_body() {
                let due_us = frame.payload.first_chunk().copied().map_or(0, u64::from_be_bytes);
                early += u64::from(due_us > now_us + CLOCK_US);
                lateness.saturating_record(now_us.saturating_sub(due_us) * 1000);
            }
            if let Some(tag) = reader.read(&frame)? {
                received += 1;
                acks.settle(tag);
            }
        }
        connection.write_all(acks.octets(), || false)?;
        acks.clear();
        let is_due = began.elapsed() > Duration::from_secs(load.after.into());
        ensure!(!is_due || heard_at.elapsed() < PATIENCE, "{received} messages came, and then none for 30 s");
    }
    let time = began.elapsed().saturating_sub(Duration::from_secs(load.after.into()));
    let cost = meter.read(received)?;
    connection.close()?;
    outcome.add("consumed_per_s", "consumed", rate(received, time), Unit::PerSecond);
    outcome.add_known("broker_cpu_us", "broker CPU, from the first due on", cost.broker_cpu_us(), Unit::CpuUs);
    for (key, name, share) in [("late_p50_ns", "late p50", 0.5), ("late_p99_ns", "late p99", 0.99)] {
        outcome.add(key, name, lateness.value_at_quantile(share) as f64, Unit::Ns);
    }
    outcome.add("late_max_ns", "late max", lateness.max() as f64, Unit::Ns);
    outcome.add("early", "early", early as f64, Unit::Count);
    Ok(())
}

/// How many messages may be unconfirmed.
const WINDOW: u64 = 2000;
/// How many are written at once.
const AT_ONCE: u64 = 200;
/// The broker counts milliseconds, and from its own clock's.
const CLOCK_US: u64 = 1000;
/// How long the broker may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
