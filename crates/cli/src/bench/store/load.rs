//! What the measurements do to a server: fill queues, drain them, and watch what others notice meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use amqp::method::{basic, confirm, queue};
use amqp::{Method, PropertyList};
use anyhow::{Context, Result, anyhow, ensure};
use bytes::BytesMut;

use super::super::broker_url::BrokerUrl;
use super::super::confirm_window::ConfirmWindow;
use super::super::connection::{CHANNEL, Connection, Wait};
use super::super::delivery::{AckMode, Acks, DeliveryReader};
use super::super::producer::read_confirm;
use super::super::publish_batch::{BATCH_BYTES, PublishBatch};
use super::super::tally::Over;
use super::progress::Progress;

/// Opens a connection and declares durable queues.
pub(super) fn declare(url: &BrokerUrl, queues: &[String]) -> Result<Connection> {
    let mut connection = Connection::open(url, "leveret bench store")?;
    for queue in queues {
        let declare = queue::Declare { queue, durable: true, ..Default::default() };
        connection.call(&Method::QueueDeclare(declare), queue::DeclareOk::ID)?;
    }
    Ok(connection)
}

/// Names of the same length.
pub(super) fn queues(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("q{number:04}")).collect()
}

/// Publishes persistent messages to the queues in turn, whose names have the same length, and waits until all are there.
pub(super) fn fill(connection: &mut Connection, queues: &[String], messages: u64, body_bytes: usize) -> Result<()> {
    fill_with(connection, queues, messages, body_bytes, &PropertyList { delivery_mode: Some(2), ..Default::default() })
}

/// The same with any properties.
pub(super) fn fill_with(
    connection: &mut Connection,
    queues: &[String],
    messages: u64,
    body_bytes: usize,
    list: &PropertyList,
) -> Result<()> {
    let frame_max = connection.frame_max();
    let turn: Vec<u8> = queues
        .iter()
        .flat_map(|queue| PublishBatch::with(queue, body_bytes, list, frame_max).octets(1).to_vec())
        .collect();
    let message_bytes = turn.len() / queues.len();
    let block = turn.repeat((BATCH_BYTES / turn.len()).max(1));
    let block_messages = (block.len() / message_bytes) as u64;
    let mut progress = Progress::new(format!("publishing to {} queues", queues.len()), messages);
    let before = ready(connection, queues)?;
    let mut left = messages;
    while left > 0 {
        let next = left.min(block_messages);
        connection.write_all(&block[..next as usize * message_bytes], || false)?;
        left -= next;
        progress.show(messages - left);
    }
    let now = ready(connection, queues)?;
    ensure!(now - before == messages, "{} of {messages} messages are there", now - before);
    Ok(())
}

/// How many messages wait in queues.
pub(super) fn ready(connection: &mut Connection, queues: &[String]) -> Result<u64> {
    queues.iter().try_fold(0, |sum, queue| {
        let declare = queue::Declare { queue, passive: true, ..Default::default() };
        match connection.call(&Method::QueueDeclare(declare), queue::DeclareOk::ID)? {
            Method::QueueDeclareOk(found) => Ok(sum + u64::from(found.message_count)),
            _ => Err(anyhow!("no queue.declare-ok")),
        }
    })
}

/// Opens a connection that consumes.
pub(super) fn consumer(url: &BrokerUrl, queue: &str, no_ack: bool, prefetch_count: u16) -> Result<Connection> {
    let mut connection = Connection::open(url, "leveret bench store consumer")?;
    connection.widen();
    let qos = basic::Qos { prefetch_size: 0, prefetch_count, global: false };
    connection.call(&Method::BasicQos(qos), basic::QosOk::ID)?;
    let consume = basic::Consume { queue, consumer_tag: "c", no_ack, ..Default::default() };
    connection.call(&Method::BasicConsume(consume), basic::ConsumeOk::ID)?;
    Ok(connection)
}

/// Receives so many messages.
pub(super) fn receive(connection: &mut Connection, messages: u64, ack: AckMode) -> Result<()> {
    let mut acks = Acks::new(ack);
    receive_each(connection, messages, |tag, out| {
        acks.settle(tag);
        out.extend_from_slice(acks.octets());
        acks.clear();
    })
}

/// Receives so many messages, holds up to `held_max` of them and acknowledges others in random order; the rest at last.
pub(super) fn receive_with_churn(connection: &mut Connection, messages: u64, held_max: usize) -> Result<()> {
    let (mut held, mut random) = (Vec::with_capacity(held_max), 0x9E37_79B9_7F4A_7C15_u64);
    receive_each(connection, messages, |tag, out| {
        held.push(tag);
        if held.len() > held_max {
            // xorshift64: any order will do that is the same each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let tag = held.swap_remove((random % held.len() as u64) as usize);
            let mut ack = BytesMut::new();
            basic::Ack { delivery_tag: tag, multiple: false }.encode(CHANNEL, &mut ack);
            out.extend_from_slice(&ack);
        }
    })
}

fn receive_each(connection: &mut Connection, messages: u64, mut settle: impl FnMut(u64, &mut Vec<u8>)) -> Result<()> {
    let (mut reader, mut received, mut answers) = (DeliveryReader::default(), 0, Vec::new());
    let mut progress = Progress::new("consuming", messages);
    let mut heard_at = Instant::now();
    loop {
        while let Some(frame) = connection.next_frame()? {
            if let Some(tag) = reader.read(&frame)? {
                received += 1;
                settle(tag, &mut answers);
            }
        }
        connection.write_all(&answers, || false)?;
        answers.clear();
        progress.show(received);
        if received >= messages {
            return Ok(());
        }
        if connection.fill(Wait::Tick)? {
            heard_at = Instant::now();
        }
        ensure!(heard_at.elapsed() < PATIENCE, "{received} of {messages} messages came, and then none for 30 s");
    }
}

/// What another client noticed, one that publishes to a queue of its own with confirms.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// Its confirms.
    pub(super) confirmed: u64,
    /// The longest time between a write and a read that had all its confirms.
    pub(super) worst: Duration,
    /// How long it watched.
    pub(super) time: Duration,
}

/// Does `work` while another client publishes `at_once` small persistent messages to the queue `other` and waits for their
/// confirms, again and again.
pub(super) fn noticed_by_other<T>(
    url: &BrokerUrl,
    at_once: u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Noticed)> {
    let mut connection = declare(url, &["other".to_owned()])?;
    connection.call(&Method::ConfirmSelect(confirm::Select { nowait: false }), confirm::SelectOk::ID)?;
    let over = Over::default();
    thread::scope(|scope| {
        let watch = scope.spawn(|| round_trips(connection, at_once, &over));
        let done = work();
        over.set();
        let noticed = watch.join().map_err(|_| anyhow!("a thread of the load died"))?;
        Ok((done?, noticed.context("the other client failed")?))
    })
}

fn round_trips(mut connection: Connection, at_once: u64, over: &Over) -> Result<Noticed> {
    let batch = PublishBatch::new("other", 16, true, connection.frame_max());
    let mut window = ConfirmWindow::new(at_once);
    let (began, mut noticed) = (Instant::now(), Noticed::default());
    while !over.is_set() {
        let wrote_at = Instant::now();
        connection.write_all(batch.octets(at_once), || false)?;
        window.send(at_once);
        while window.free() < at_once {
            connection.fill(Wait::Tick)?;
            while let Some(frame) = connection.next_frame()? {
                read_confirm(&frame, Some(&mut window))?;
            }
            ensure!(wrote_at.elapsed() < PATIENCE, "no confirm came for 30 s");
        }
        noticed.worst = noticed.worst.max(wrote_at.elapsed());
    }
    connection.close()?;
    Ok(Noticed { confirmed: window.confirmed(), time: began.elapsed(), ..noticed })
}

/// How long confirms took of a client that publishes at a fixed rate.
#[derive(Debug, Default)]
pub(super) struct Paced {
    /// Its confirms.
    pub(super) confirmed: u64,
    /// From when each message was due to when its confirm was read, in nanoseconds, in ascending order.
    pub(super) latencies: Vec<u64>,
    /// How long it published.
    pub(super) time: Duration,
}

/// Does `work` while another client publishes [`PACE`] small persistent messages a second to the queue `other`, with
/// confirms, and never waits for them.
pub(super) fn paced_meanwhile<T>(url: &BrokerUrl, work: impl FnOnce() -> Result<T>) -> Result<(T, Paced)> {
    let mut connection = declare(url, &["other".to_owned()])?;
    connection.call(&Method::ConfirmSelect(confirm::Select { nowait: false }), confirm::SelectOk::ID)?;
    let over = Over::default();
    thread::scope(|scope| {
        let paced = scope.spawn(|| publish_paced(connection, &over));
        let done = work();
        over.set();
        let paced = paced.join().map_err(|_| anyhow!("a thread of the load died"))?;
        Ok((done?, paced.context("the other client failed")?))
    })
}

fn publish_paced(mut connection: Connection, over: &Over) -> Result<Paced> {
    let batch = PublishBatch::new("other", 16, true, connection.frame_max());
    let mut window = ConfirmWindow::new(u64::MAX);
    let (began, mut paced, mut sent, mut heard_at) = (Instant::now(), Paced::default(), 0, Instant::now());
    let due = |number: u64| Duration::from_nanos(number * 1_000_000_000 / PACE);
    while !over.is_set() || window.confirmed() < sent {
        let now = began.elapsed();
        let wanted = if over.is_set() { sent } else { now.as_nanos() as u64 * PACE / 1_000_000_000 };
        let next = (wanted - sent).min(batch.messages());
        connection.write_all(batch.octets(next), || false)?;
        window.send(next);
        sent += next;
        if connection.fill(Wait::Not)? {
            heard_at = Instant::now();
        }
        while let Some(frame) = connection.next_frame()? {
            read_confirm(&frame, Some(&mut window))?;
        }
        // Confirms come in order.
        let now = began.elapsed();
        for number in paced.confirmed..window.confirmed() {
            paced.latencies.push(now.saturating_sub(due(number)).as_nanos() as u64);
        }
        paced.confirmed = window.confirmed();
        ensure!(heard_at.elapsed() < PATIENCE, "no confirm came for 30 s");
        pause();
    }
    paced.time = began.elapsed();
    paced.latencies.sort_unstable();
    connection.close()?;
    Ok(paced)
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself")]
fn pause() {
    thread::sleep(Duration::from_micros(200));
}

/// How many messages a second [`paced_meanwhile`] publishes: much for one client that waits for its confirms, and far
/// from all that the server can do.
pub(super) const PACE: u64 = 20_000;

/// How long a server may take over a step before a measurement gives up.
const PATIENCE: Duration = Duration::from_secs(30);
