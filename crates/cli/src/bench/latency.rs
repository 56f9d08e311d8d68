//! `leveret bench latency`: how long messages take from publisher to consumer at a fixed rate.
//!
//! Each message is timed from the moment it was due, by a timestamp in its body, so that a broker that
//! stalls its publisher pays for all that was due meanwhile (no coordinated omission). Only what the
//! generator itself oversleeps is taken off: what came due during a sleep is timed from its end.

use anyhow::{Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::beside::Beside;
use super::broker::Broker;
use super::figures::per_second;
use super::flow::{self, Flow, Rates};
use super::interrupt::Interrupt;
use super::outcome::{Outcome, Unit};
use super::target::Target;
use super::throughput::parse_rate;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) load: flow::Flags,
    /// Messages per second of each producer, evenly spread
    #[arg(long, help_heading = "Messages", value_name = "PER_SECOND", default_value_t = 5000.0, value_parser = parse_rate)]
    pub(super) rate: f64,
    /// Another load that runs meanwhile: a command of this program, its words divided by commas, as
    /// throughput,--consumers,0
    #[arg(long, value_name = "WORD,...", value_delimiter = ',', allow_hyphen_values = true)]
    pub(super) beside: Vec<String>,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    ensure!(flags.rate > 0.0, "latency at no rate is none: give a --rate above 0");
    let mut work = flags.load.json();
    work["rate_per_producer"] = json!(flags.rate);
    work["beside"] = json!(flags.beside);
    let mut title = format!("{}, {} a producer", flags.load.title(), per_second(flags.rate));
    if !flags.beside.is_empty() {
        title.push_str(&format!(", beside {}", flags.beside.join(" ")));
    }
    flags.target.run("latency", &title, &work, interrupt, |broker| measure(broker, flags, interrupt))
}

/// Runs the load once.
pub(super) fn measure(broker: &Broker, flags: &Flags, interrupt: &Interrupt) -> Result<Outcome> {
    let Flags { load, rate, beside, .. } = flags;
    ensure!(load.producers > 0 && load.consumers > 0, "a latency needs a producer and a consumer");
    let beside = if beside.is_empty() { None } else { Some(Beside::start(beside, &broker.url)?) };
    let flowed = Flow { flags: load, rate: Some(*rate), is_stamped: true }.run(broker, interrupt)?;
    drop(beside);
    let mean = Rates::new(flowed.total, flowed.time);
    let mut outcome = Outcome::new(&flowed.broker);
    for (key, name, share) in SHARES {
        outcome.add(key, name, flowed.latencies.value_at_quantile(share) as f64, Unit::Ns);
    }
    outcome.add("published_per_s", "published", mean.published, Unit::PerSecond);
    outcome.add("consumed_per_s", "consumed", mean.consumed, Unit::PerSecond);
    let overslept = flowed.oversleeps.value_at_quantile(0.99);
    outcome.add("overslept_p99_ns", "generator overslept, p99", overslept as f64, Unit::Ns);
    if flowed.never_came > 0 {
        outcome.add("never_came", "never came", flowed.never_came as f64, Unit::Count);
    }
    flowed.cost.add_to(&mut outcome);
    outcome.detail.insert("timed_messages".to_owned(), flowed.latencies.len().into());
    outcome.detail.insert("distribution_ns".to_owned(), distribution(&flowed.latencies));
    Ok(outcome)
}

/// The histogram as pairs of a share and the latency that it stays below: enough points for a curve.
fn distribution(latencies: &Histogram<u64>) -> Value {
    if latencies.is_empty() {
        return json!([]);
    }
    // Half the way to 1, again and again, and some points between.
    let points = latencies.iter_quantiles(POINTS_PER_HALF).map(|it| json!([it.quantile(), it.value_iterated_to()]));
    points.collect()
}

/// Which percentiles are shown.
const SHARES: [(&str, &str, f64); 5] = [
    ("latency_p50_ns", "latency p50", 0.5),
    ("latency_p90_ns", "latency p90", 0.9),
    ("latency_p99_ns", "latency p99", 0.99),
    ("latency_p99_9_ns", "latency p99.9", 0.999),
    ("latency_max_ns", "latency max", 1.0),
];

const POINTS_PER_HALF: u32 = 4;
