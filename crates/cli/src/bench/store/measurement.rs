//! The measurements: what each does to its server, and which figures come of it.
//!
//! Sizes and targets are those of the promise in `docs/benchmarks-store.md`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use amqp::method::{basic, queue};
use amqp::{Method, PropertyList};
use anyhow::{Result, anyhow};

use super::super::connection::{Connection, Wait};
use super::super::delivery::AckMode;
use super::super::figures::{percentile, rate};
use super::load::{
    PACE, Paced, consumer, declare, fill, fill_with, noticed_by_other, paced_meanwhile, queues, ready, receive,
    receive_with_churn,
};
use super::own_server::{DataDir, OwnServer};
use super::{Figure, Subject};

/// Measures one subject in a new directory below `dir`.
pub(super) fn measure(subject: Subject, dir: &Path, is_full: bool) -> Result<Vec<Figure>> {
    let data = DataDir::new(dir)?;
    match subject {
        Subject::Ready => measure_ready(&data, if is_full { 100 * MILLION } else { 10 * MILLION }),
        Subject::Interleaved => measure_interleaved(&data),
        Subject::Unacked => measure_unacked(&data),
        Subject::Start => measure_start(&data),
        Subject::Expiry => measure_expiry(&data),
        Subject::Backlog => measure_backlog(&data, if is_full { 4 * MILLION } else { MILLION }),
        Subject::Reclaim => measure_reclaim(&data, if is_full { 200 * MILLION } else { 50 * MILLION }),
        Subject::Amplification => measure_amplification(&data, dir),
    }
}

fn measure_ready(data: &DataDir, messages: u64) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let one = queues(1);
    let mut connection = declare(&server.url, &one)?;
    fill(&mut connection, &one, messages, 16)?;
    let memory = server.memory()?;
    let name = format!("{} M ready in one queue", messages / MILLION);
    let mut figures = vec![
        Figure::new(format!("{name}: memory"), memory.resident_mib, "MiB").below(100.0),
        Figure::new(format!("{name}: peak memory"), memory.peak_mib, "MiB"),
    ];
    let queue = one.first().map_or("", String::as_str);
    let purge = Method::QueuePurge(queue::Purge { queue, ..Default::default() });
    let delete = Method::QueueDelete(queue::Delete { queue, ..Default::default() });
    for (what, method, answer) in [("purge", purge, queue::PurgeOk::ID), ("delete", delete, queue::DeleteOk::ID)] {
        let missing = (10 * MILLION).saturating_sub(ready(&mut connection, &one)?);
        fill(&mut connection, &one, missing, 16)?;
        let ((), alone) = noticed_by_other(&server.url, 1, || wait(&mut connection, Duration::from_secs(2)))?;
        let (time, meanwhile) = noticed_by_other(&server.url, 1, || {
            let began = Instant::now();
            connection.call(&method, answer)?;
            let time = began.elapsed();
            // What is done after the answer counts as well.
            wait(&mut connection, Duration::from_secs(2))?;
            Ok(time)
        })?;
        figures.push(Figure::new(format!("{what} of 10 M or more"), milliseconds(time), "ms").below(100.0));
        let worst =
            Figure::new(format!("{what}: another queue's longest confirm"), milliseconds(meanwhile.worst), "ms");
        figures.push(worst.below(100.0));
        figures.push(Figure::new("  the same before", milliseconds(alone.worst), "ms"));
    }
    Ok(figures)
}

fn measure_interleaved(data: &DataDir) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let queues = queues(1000);
    fill(&mut declare(&server.url, &queues)?, &queues, 10 * MILLION, 16)?;
    let memory = server.memory()?;
    Ok(vec![
        Figure::new("10 M over 1,000 interleaved queues: memory", memory.resident_mib, "MiB").below(200.0),
        Figure::new("10 M over 1,000 interleaved queues: peak memory", memory.peak_mib, "MiB"),
    ])
}

fn measure_unacked(data: &DataDir) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let one = queues(1);
    fill(&mut declare(&server.url, &one)?, &one, 10 * MILLION, 16)?;
    let mut consumer = consumer(&server.url, &one[0], false, 0)?;
    let began = Instant::now();
    // Nothing is acknowledged.
    receive(&mut consumer, 10 * MILLION, AckMode::Auto)?;
    let time = began.elapsed();
    let memory = server.memory()?;
    Ok(vec![
        Figure::new("10 M unacknowledged: memory", memory.resident_mib, "MiB").below(400.0),
        Figure::new("10 M unacknowledged: peak memory", memory.peak_mib, "MiB"),
        Figure::new("10 M unacknowledged: delivered", rate(10 * MILLION, time), "/s"),
    ])
}

fn measure_start(data: &DataDir) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let queues = queues(100);
    fill(&mut declare(&server.url, &queues)?, &queues, 10 * MILLION, 16)?;
    server.kill()?;
    let server = OwnServer::start(data)?;
    let after_kill = server.start_time;
    server.stop()?;
    let clean = OwnServer::start(data)?;
    Ok(vec![
        Figure::new("start after SIGKILL, 10 M in 100 queues", after_kill.as_secs_f64(), "s").below(3.0),
        Figure::new("clean start, 10 M in 100 queues", clean.start_time.as_secs_f64(), "s").below(1.0),
        Figure::new("clean start: memory", clean.memory()?.resident_mib, "MiB"),
    ])
}

fn measure_expiry(data: &DataDir) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let two = queues(2);
    let mut connection = declare(&server.url, &two)?;
    // One that does not expire keeps those behind it; of two queues in turn no two messages lie together.
    fill(&mut connection, &two, 2, 16)?;
    let expiring = PropertyList { delivery_mode: Some(2), expiration: Some(b"1".to_vec()), ..Default::default() };
    fill_with(&mut connection, &two, 10 * MILLION, 16, &expiring)?;
    let ((), alone) = noticed_by_other(&server.url, 1, || wait(&mut connection, Duration::from_secs(2)))?;
    let (time, meanwhile) = noticed_by_other(&server.url, 1, || {
        let began = Instant::now();
        for queue in &two {
            let get = basic::Get { queue, no_ack: true };
            connection.call(&Method::BasicGet(get), basic::GetOk::ID)?;
        }
        while ready(&mut connection, &two)? > 0 {
            wait(&mut connection, Duration::from_millis(20))?;
        }
        let time = began.elapsed();
        wait(&mut connection, Duration::from_secs(2))?;
        Ok(time)
    })?;
    let worst = milliseconds(meanwhile.worst);
    Ok(vec![
        Figure::new("10 M that expire at once, all gone after", time.as_secs_f64(), "s"),
        Figure::new("  another queue's longest confirm", worst, "ms").below(100.0),
        Figure::new("  the same before", milliseconds(alone.worst), "ms"),
    ])
}

fn measure_backlog(data: &DataDir, messages: u64) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let one = queues(1);
    let mut connection = declare(&server.url, &one)?;
    fill(&mut connection, &one, messages, 1024)?;
    server.stop()?;
    data.drop_from_cache()?;
    let server = OwnServer::start(data)?;
    let began = Instant::now();
    drain(&server, &one[0], messages)?;
    let time = began.elapsed();
    fill(&mut declare(&server.url, &one)?, &one, messages, 1024)?;
    let mut connection = Connection::open(&server.url, "leveret bench store")?;
    let ((), alone) = noticed_by_other(&server.url, 100, || wait(&mut connection, Duration::from_secs(3)))?;
    let ((), meanwhile) = noticed_by_other(&server.url, 100, || drain(&server, &one[0], messages))?;
    let (alone, meanwhile) = (rate(alone.confirmed, alone.time), rate(meanwhile.confirmed, meanwhile.time));
    fill(&mut declare(&server.url, &one)?, &one, messages, 1024)?;
    let ((), paced_alone) = paced_meanwhile(&server.url, || wait(&mut connection, Duration::from_secs(3)))?;
    let ((), paced) = paced_meanwhile(&server.url, || drain(&server, &one[0], messages))?;
    let kept = rate(paced.confirmed, paced.time) / PACE as f64 * 100.0;
    let p99 = |paced: &Paced| percentile(&paced.latencies, 0.99) as f64 / 1e6;
    let p50 = |paced: &Paced| percentile(&paced.latencies, 0.5) as f64 / 1e6;
    Ok(vec![
        Figure::new("a publisher of 20,000/s to another queue: p50 of its confirms, alone", p50(&paced_alone), "ms"),
        Figure::new("  p99, alone", p99(&paced_alone), "ms"),
        Figure::new("  p50, while a backlog is read", p50(&paced), "ms"),
        Figure::new("  p99, while a backlog is read", p99(&paced), "ms"),
        Figure::new("  that is so many times what it is alone", p99(&paced) / p99(&paced_alone), "×").below(5.0),
        Figure::new("  share of its rate that it keeps", kept, "%").at_least(95.0),
        Figure::new("backlog of 1 KiB messages read back from disk", rate(messages * 1024, time) / 1e6, "MB/s"),
        Figure::new("  messages", rate(messages, time), "/s"),
        Figure::new("another queue's publisher, 100 at once: alone", alone, "/s"),
        Figure::new("  while a backlog is read", meanwhile, "/s"),
        Figure::new("  share of its rate alone", meanwhile / alone * 100.0, "%"),
    ])
}

fn measure_reclaim(data: &DataDir, messages: u64) -> Result<Vec<Figure>> {
    let server = OwnServer::start(data)?;
    let one = queues(1);
    let mut connection = declare(&server.url, &one)?;
    fill(&mut connection, &one, 1, 16)?;
    let mut forgetful = consumer(&server.url, &one[0], false, 1)?;
    receive(&mut forgetful, 1, AckMode::Auto)?;
    let mut consumer = consumer(&server.url, &one[0], true, 0)?;
    in_parallel(
        || receive(&mut consumer, messages, AckMode::Auto),
        || publish(&mut connection, &one[0], messages, 16),
    )?;
    // One segment that is written, one that is held back, and the rest of the directory.
    let limit_mib = 64.0 + 64.0 + 2.0;
    let began = Instant::now();
    let mut disk_mib = mib(data.disk_bytes()?);
    while disk_mib >= limit_mib && began.elapsed() < RECLAIM_TIME {
        wait(&mut connection, Duration::from_secs(1))?;
        disk_mib = mib(data.disk_bytes()?);
    }
    let name = format!("disk after {} M settled, one forgotten", messages / MILLION);
    Ok(vec![Figure::new(name, disk_mib, "MiB").below(limit_mib)])
}

fn measure_amplification(data: &DataDir, dir: &Path) -> Result<Vec<Figure>> {
    let (messages, one) = (MILLION, queues(1));
    let server = OwnServer::start(data)?;
    let mut connection = declare(&server.url, &one)?;
    let mut at_once = consumer(&server.url, &one[0], false, 1000)?;
    in_parallel(
        || receive(&mut at_once, messages, AckMode::Each),
        || publish(&mut connection, &one[0], messages, 1024),
    )?;
    at_once.close()?;
    wait(&mut connection, SETTLE_TIME)?;
    let acked_at_once = server.written_bytes()? as f64 / (messages * 1024) as f64;
    server.stop()?;

    let data = DataDir::new(dir)?;
    let server = OwnServer::start(&data)?;
    let mut connection = declare(&server.url, &one)?;
    let mut churning = consumer(&server.url, &one[0], false, 0)?;
    in_parallel(
        || receive_with_churn(&mut churning, 2 * messages, messages as usize),
        || publish(&mut connection, &one[0], 2 * messages, 1024),
    )?;
    wait(&mut connection, SETTLE_TIME)?;
    let churned = server.written_bytes()? as f64 / (2 * messages * 1024) as f64;
    let disk_then = data.disk_bytes()?;
    wait(&mut connection, IDLE_TIME)?;
    let churned_and_idle = server.written_bytes()? as f64 / (2 * messages * 1024) as f64;
    Ok(vec![
        Figure::new("written per byte published: 1 KiB, acknowledged at once", acked_at_once, "×"),
        Figure::new("written per byte published: backlog of 1 GB, random acks", churned, "×"),
        Figure::new("  disk taken then", mib(disk_then), "MiB"),
        Figure::new("  disk taken when it was idle for 40 s", mib(data.disk_bytes()?), "MiB"),
        Figure::new("  written per byte published until then", churned_and_idle, "×"),
    ])
}

/// Consumes so many messages, and is gone for the server, too, when it comes back.
fn drain(server: &OwnServer, queue: &str, messages: u64) -> Result<()> {
    let mut consumer = consumer(&server.url, queue, true, 0)?;
    receive(&mut consumer, messages, AckMode::Auto)?;
    consumer.close()
}

/// Publishes without waiting for anything.
fn publish(connection: &mut Connection, queue: &str, messages: u64, body_bytes: usize) -> Result<()> {
    let batch = super::super::publish_batch::PublishBatch::new(queue, body_bytes, true, connection.frame_max());
    let mut left = messages;
    while left > 0 {
        let next = left.min(batch.messages());
        // A broker that holds a fast publisher back is waited for.
        connection.write_all(batch.octets(next), || true)?;
        left -= next;
    }
    Ok(())
}

/// Does one thing in a thread and the other here.
fn in_parallel(one: impl FnOnce() -> Result<()> + Send, other: impl FnOnce() -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        one.join().map_err(|_| anyhow!("a thread of the load died"))?.and(other)
    })
}

/// Lets time pass on a connection that nothing comes on.
fn wait(connection: &mut Connection, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        connection.fill(Wait::Tick)?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const MILLION: u64 = 1_000_000;

/// How long reclaiming may take after the last message is settled.
const RECLAIM_TIME: Duration = Duration::from_secs(60);

/// Long enough for what is left to be done when nobody does anything.
const IDLE_TIME: Duration = Duration::from_secs(40);

/// Long enough for what is written in the background.
const SETTLE_TIME: Duration = Duration::from_secs(5);
