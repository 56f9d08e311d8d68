//! `leveret bench connections`: how fast a broker opens connections, and what memory idle ones take of it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::broker::Broker;
use super::connection::Connection;
use super::figures::{new_histogram, rate};
use super::interrupt::Interrupt;
use super::open_many::{open_many, raise_open_files};
use super::outcome::{Outcome, Unit};
use super::processes::SETTLE;
use super::say;
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    /// How many connections to open
    #[arg(long, help_heading = "Load", value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: u32,
    /// How long to hold them open before memory is looked at
    #[arg(long, help_heading = "Load", value_name = "S", default_value_t = 1)]
    pub(super) hold: u32,
}

/// Opens the connections, holds them and prints what they took.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let work = json!({"connections": flags.count, "hold_seconds": flags.hold});
    let title = format!("{} connections with a channel each", crate::serve::thousands(flags.count.into()));
    flags.target.run("connections", &title, &work, interrupt, |broker| measure(broker, flags.count, flags.hold))
}

/// Opens the connections once.
pub(super) fn measure(broker: &Broker, count: u32, hold: u32) -> Result<Outcome> {
    raise_open_files();
    let resident = || match &broker.processes {
        Some(processes) => processes.footprint().map(|found| Some(found.resident_bytes as f64)),
        None => Ok(None),
    };
    wait(SETTLE);
    let before = resident()?;
    let began = Instant::now();
    let opened = open_many(count, |number| {
        let began = Instant::now();
        let mut connection = Connection::open(&broker.url, &format!("leveret bench idle {}", number + 1))
            .with_context(|| format!("connection {} of {count}", number + 1))?;
        connection.idle();
        Ok((connection, began.elapsed()))
    })?;
    let open_time = began.elapsed();
    say(&format!("{count} connections are open"));
    wait(Duration::from_secs(hold.into()));
    let after = resident()?;
    let mut opened_ns = new_histogram()?;
    let mut outcome = Outcome::default();
    let mut connections = Vec::new();
    for (mut connection, time) in opened {
        opened_ns.saturating_record(time.as_nanos() as u64);
        connection.broker().clone_into(&mut outcome.broker);
        // All at once, so that thousands of goodbyes do not wait for each other.
        connection.say_goodbye().context("an idle connection was lost")?;
        connections.push(connection);
    }
    let deadline = Instant::now() + PARTING;
    for connection in connections {
        connection.await_close(deadline)?;
    }
    outcome.add("opened_per_s", "opened", rate(count.into(), open_time), Unit::PerSecond);
    outcome.add("open_p50_ns", "open one, p50", opened_ns.value_at_quantile(0.5) as f64, Unit::Ns);
    outcome.add("open_p99_ns", "open one, p99", opened_ns.value_at_quantile(0.99) as f64, Unit::Ns);
    if let (Some(before), Some(after)) = (before, after) {
        outcome.add("bytes_before", "memory before", before, Unit::Bytes);
        outcome.add("bytes_after", "memory with them", after, Unit::Bytes);
        outcome.add("bytes_each", "memory each", (after - before) / f64::from(count), Unit::Kilobytes);
    }
    Ok(outcome)
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, which the user chose")]
fn wait(time: Duration) {
    thread::sleep(time);
}

/// How long all connections together may take to close.
const PARTING: Duration = Duration::from_secs(60);
