//! `leveret bench queues`: how fast a broker declares many queues, and what memory idle ones take of it.

use std::thread;
use std::time::{Duration, Instant};

use amqp::Method;
use amqp::method::queue;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::broker::Broker;
use super::connection::Connection;
use super::figures::rate;
use super::interrupt::Interrupt;
use super::layout::call_all;
use super::management::Management;
use super::outcome::{Outcome, Unit};
use super::processes::SETTLE;
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(super) load: Load,
}

/// Which queues.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Load")]
#[group(skip)]
pub(super) struct Load {
    /// How many queues to declare
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) count: u32,
    /// Queues that no restart brings back, instead of durable ones
    #[arg(long)]
    pub(super) transient: bool,
    /// How long to keep them before memory is looked at
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(super) hold: u32,
    /// Bind all of them to one policy before they are declared, and change it when they are there
    #[arg(long)]
    pub(super) policy: bool,
    /// Where the broker's management API is, on the same host [default: AMQP's port + 10000]
    #[arg(long, value_name = "PORT")]
    pub(super) http_port: Option<u16>,
}

/// Declares the queues, keeps them a while and prints what they took.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let Load { count, transient, hold, policy, .. } = flags.load;
    let work = json!({"queues": count, "durable": !transient, "hold_seconds": hold, "policy": policy});
    let kind = if transient { "transient" } else { "durable" };
    let title = format!("{} {kind} queues", crate::serve::thousands(count.into()));
    flags.target.run("queues", &title, &work, interrupt, |broker| measure(broker, &flags.load))
}

/// Declares and deletes the queues once.
pub(super) fn measure(broker: &Broker, load: &Load) -> Result<Outcome> {
    let resident = || match &broker.processes {
        Some(processes) => processes.footprint().map(|found| Some(found.resident_bytes as f64)),
        None => Ok(None),
    };
    let mut connection = Connection::open(&broker.url, "leveret bench queues")?;
    let names: Vec<_> =
        (0..load.count).map(|number| format!("leveret-bench-{}-{number:06}", std::process::id())).collect();
    let prefix = format!("leveret-bench-{}-", std::process::id());
    let management = load.policy.then(|| Management::new(&broker.url, load.http_port));
    if let Some(management) = &management {
        management.set_policy(POLICY, &prefix, &json!({"max-length": 1_000_000}))?;
    }
    wait(SETTLE);
    let before = resident()?;
    let declares = names
        .iter()
        .map(|queue| Method::QueueDeclare(queue::Declare { queue, durable: !load.transient, ..Default::default() }));
    let began = Instant::now();
    call_all(&mut connection, declares, queue::DeclareOk::ID).context("a queue was refused")?;
    let declare_time = began.elapsed();
    wait(Duration::from_secs(load.hold.into()));
    let after = resident()?;
    let mut change_times = Vec::new();
    if let Some(management) = &management {
        let began = Instant::now();
        management.set_policy(POLICY, &prefix, &json!({"max-length": 2_000_000}))?;
        change_times.push(("changed_s", "policy changed for all", began.elapsed()));
        let began = Instant::now();
        management.clear_policy(POLICY)?;
        change_times.push(("cleared_s", "policy cleared for all", began.elapsed()));
    }
    let deletes = names.iter().map(|queue| Method::QueueDelete(queue::Delete { queue, ..Default::default() }));
    let began = Instant::now();
    call_all(&mut connection, deletes, queue::DeleteOk::ID).context("queues are still there")?;
    let delete_time = began.elapsed();
    let mut outcome = Outcome::new(connection.broker());
    connection.close()?;
    outcome.add("declared_per_s", "declared", rate(load.count.into(), declare_time), Unit::PerSecond);
    outcome.add("deleted_per_s", "deleted", rate(load.count.into(), delete_time), Unit::PerSecond);
    for (key, name, time) in change_times {
        outcome.add(key, name, time.as_secs_f64(), Unit::Seconds);
    }
    if let (Some(before), Some(after)) = (before, after) {
        outcome.add("bytes_before", "memory before", before, Unit::Bytes);
        outcome.add("bytes_after", "memory with them", after, Unit::Bytes);
        outcome.add("bytes_each", "memory each", (after - before) / f64::from(load.count), Unit::Kilobytes);
    }
    Ok(outcome)
}

/// The policy's name.
const POLICY: &str = "leveret-bench";

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, which the user chose")]
fn wait(time: Duration) {
    thread::sleep(time);
}
