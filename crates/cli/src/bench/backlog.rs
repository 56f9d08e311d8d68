//! `leveret bench backlog`: fills a queue, looks at the broker's memory, kills and starts a broker of its own, and drains
//! the queue again.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use super::broker::Broker;
use super::cost::Meter;
use super::delivery::AckMode;
use super::figures::rate;
use super::flow::{self, Flow};
use super::interrupt::Interrupt;
use super::layout::{self, Layout};
use super::outcome::{Outcome, Unit};
use super::own_broker::OwnBroker;
use super::processes::SETTLE;
use super::say;
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(super) load: Load,
    /// Start a broker for this by a command line, instead of --url: {port} stands for its port, {port+1} to {port+9} for
    /// others it needs, {dir} for a data directory. It is killed with SIGKILL and started again between fill and drain
    #[arg(long, help_heading = "Load", value_name = "COMMAND")]
    start: Option<String>,
    /// Where to make the data directory [default: the system's temporary directory]
    #[arg(long, help_heading = "Load", value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What is filled and drained.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Load")]
#[group(skip)]
pub(super) struct Load {
    /// How many messages
    #[arg(long, value_name = "COUNT", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) messages: u64,
    /// Body size
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    pub(super) size: u32,
    /// How the drain acknowledges: auto (not at all), each, or N at once
    #[arg(long, value_name = "auto|each|N", default_value = "auto")]
    pub(super) ack: AckMode,
    /// How many unacknowledged deliveries the drain may have; 0 = any number
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(super) prefetch: u16,
    /// How many messages may be unconfirmed while it is filled; 0 = publish without confirms
    #[arg(long, value_name = "WINDOW", default_value_t = 0)]
    pub(super) confirm: u32,
    /// Publish persistent messages to a durable queue
    #[arg(long)]
    pub(super) persistent: bool,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let load = &flags.load;
    let work = json!({
        "messages": load.messages,
        "body_bytes": load.size,
        "ack": load.ack.to_string(),
        "prefetch": load.prefetch,
        "confirm": load.confirm,
        "persistent": load.persistent,
        "start": flags.start,
    });
    let title = format!(
        "{} messages of {} B{}, drained with ack {} and prefetch {}",
        crate::serve::thousands(load.messages),
        load.size,
        if load.persistent { ", persistent" } else { "" },
        load.ack,
        load.prefetch
    );
    let dir = flags.dir.clone().unwrap_or_else(std::env::temp_dir);
    flags.target.run("backlog", &title, &work, interrupt, |broker| match &flags.start {
        Some(command) => measure_own(command, &dir, load, interrupt),
        None => measure(broker, load, interrupt),
    })
}

/// Fills and drains once.
pub(super) fn measure(broker: &Broker, load: &Load, interrupt: &Interrupt) -> Result<Outcome> {
    let mut layout = Layout::open(&broker.url, &load.layout())?;
    let measured = fill(broker, &mut layout, load, interrupt).and_then(|mut outcome| {
        drain(broker, &mut layout, load, interrupt, &mut outcome)?;
        Ok(outcome)
    });
    layout.close_or_say();
    measured
}

/// Starts a broker, fills, kills, starts again, and drains what is left.
pub(super) fn measure_own(command: &str, dir: &Path, load: &Load, interrupt: &Interrupt) -> Result<Outcome> {
    let mut own = OwnBroker::start(command, dir)?;
    let broker = own.broker();
    let layout_flags = load.layout();
    let mut outcome = fill(&broker, &mut Layout::open(&broker.url, &layout_flags)?, load, interrupt)?;
    outcome.at = Some("a port of its own".to_owned());
    say("kill, and start again");
    own.kill_and_start()?;
    outcome.add("start_s", "start after SIGKILL", own.start_time().as_secs_f64(), Unit::Seconds);
    let broker = own.broker();
    let mut layout = Layout::open(&broker.url, &layout_flags)?;
    let ready = layout.count()?;
    outcome.add("ready_after_start", "messages after that", ready as f64, Unit::Count);
    if ready > 0 {
        drain(&broker, &mut layout, load, interrupt, &mut outcome)?;
    }
    Ok(outcome)
}

impl Load {
    /// One queue by name, so that it is found again after a restart.
    fn layout(&self) -> layout::Flags {
        let queue = Some(format!("leveret-bench-{}-backlog", std::process::id()));
        layout::Flags { queue, durable: self.persistent, ..layout::Flags::default() }
    }

    fn flow(&self) -> flow::Flags {
        flow::Flags {
            size: self.size,
            ack: self.ack,
            prefetch: self.prefetch,
            confirm: self.confirm,
            persistent: self.persistent,
            messages: Some(self.messages),
            ..flow::Flags::default()
        }
    }
}

/// Publishes all, and waits until they are there.
fn fill(broker: &Broker, layout: &mut Layout, load: &Load, interrupt: &Interrupt) -> Result<Outcome> {
    let flags = flow::Flags { consumers: 0, ..load.flow() };
    let meter = Meter::start(broker.processes.clone())?;
    let began = Instant::now();
    Flow { flags: &flags, rate: None, is_stamped: false }.on(broker, layout, interrupt)?;
    let mut counted_at = Instant::now();
    while layout.count()? < load.messages && !interrupt.has_come() {
        ensure!(
            counted_at.elapsed() < PATIENCE,
            "only {} of {} messages are in the queue: the broker may have dropped some, as a length limit or an alarm makes it",
            layout.messages(),
            load.messages
        );
        wait(LOOK);
    }
    let time = began.elapsed();
    counted_at = Instant::now();
    let cost = meter.read(load.messages)?;
    let mut outcome = Outcome::new(layout.broker());
    outcome.add("fill_s", "fill", time.as_secs_f64(), Unit::Seconds);
    outcome.add("fill_per_s", "filled", rate(layout.messages(), time), Unit::PerSecond);
    outcome.add_known("fill_cpu_us", "broker CPU, fill", cost.broker_cpu_us(), Unit::CpuUs);
    if let Some(processes) = &broker.processes {
        // Memory that the fill needed for a moment may be given back after it.
        wait(SETTLE.saturating_sub(counted_at.elapsed()));
        outcome.add("full_bytes", "memory when full", processes.footprint()?.resident_bytes as f64, Unit::Bytes);
    }
    Ok(outcome)
}

/// Consumes all.
fn drain(
    broker: &Broker,
    layout: &mut Layout,
    load: &Load,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> Result<()> {
    layout.count()?;
    let flags = flow::Flags { producers: 0, ..load.flow() };
    let drained =
        Flow { flags: &flags, rate: None, is_stamped: false }.on(broker, layout, interrupt).context("the drain")?;
    outcome.add("drain_s", "drain", drained.time.as_secs_f64(), Unit::Seconds);
    outcome.add("drain_per_s", "drained", rate(drained.total.consumed, drained.time), Unit::PerSecond);
    outcome.add_known("drain_cpu_us", "broker CPU, drain", drained.cost.broker_cpu_us(), Unit::CpuUs);
    outcome.add_known("generator_cpu_us", "generator CPU, drain", drained.cost.own_cpu_us(), Unit::CpuUs);
    if drained.never_came > 0 {
        outcome.add("never_came", "never came", drained.never_came as f64, Unit::Count);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the broker's count is asked for again after a while: it does not call")]
fn wait(time: Duration) {
    thread::sleep(time);
}

const LOOK: Duration = Duration::from_millis(5);

/// How long a broker may take to count what it was sent.
const PATIENCE: Duration = Duration::from_secs(120);
