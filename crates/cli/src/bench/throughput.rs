//! `leveret bench throughput`: how many messages a second pass a broker, and what each costs it.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::broker::Broker;
use super::figures::median;
use super::flow::{self, Flow, Rates};
use super::interrupt::Interrupt;
use super::outcome::{Outcome, Unit};
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) load: flow::Flags,
    /// Messages per second of each producer, evenly spread; 0 = as fast as the broker takes them
    #[arg(long, help_heading = "Messages", value_name = "PER_SECOND", default_value_t = 0.0, value_parser = parse_rate)]
    rate: f64,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let rate = (flags.rate > 0.0).then_some(flags.rate);
    let mut work = flags.load.json();
    work["rate_per_producer"] = json!(rate);
    let title = title(&flags.load, rate);
    flags.target.run("throughput", &title, &work, interrupt, |broker| measure(broker, &flags.load, rate, interrupt))
}

/// Runs the load once.
pub(super) fn measure(
    broker: &Broker,
    load: &flow::Flags,
    rate: Option<f64>,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let flowed = Flow { flags: load, rate, is_stamped: false }.run(broker, interrupt)?;
    let mean = Rates::new(flowed.total, flowed.time);
    let mut outcome = Outcome::new(&flowed.broker);
    let rates = [
        ("published", "published_per_s", load.producers > 0, mean.published),
        ("confirmed", "confirmed_per_s", load.producers > 0 && load.confirm > 0, mean.confirmed),
        ("consumed", "consumed_per_s", load.consumers > 0, mean.consumed),
    ];
    for (name, key, _, rate) in rates.into_iter().filter(|&(_, _, is_part, _)| is_part) {
        outcome.add(key, name, rate, Unit::PerSecond);
    }
    if load.messages.is_some() {
        outcome.add("seconds", "time", flowed.time.as_secs_f64(), Unit::Seconds);
        if flowed.never_came > 0 {
            outcome.add("never_came", "never came", flowed.never_came as f64, Unit::Count);
        }
    }
    flowed.cost.add_to(&mut outcome);
    let medians = |rate: fn(&Rates) -> f64| median(&flowed.seconds.iter().map(rate).collect::<Vec<_>>());
    let counts = json!({
        "published": flowed.total.published,
        "confirmed": flowed.total.confirmed,
        "consumed": flowed.total.consumed,
    });
    let median = Rates {
        published: medians(|rates| rates.published),
        confirmed: medians(|rates| rates.confirmed),
        consumed: medians(|rates| rates.consumed),
    };
    outcome.detail.insert("messages".to_owned(), counts);
    outcome.detail.insert("median_of_seconds".to_owned(), median.json());
    let seconds: Value = flowed.seconds.iter().map(|&rates| rates.json()).collect();
    outcome.detail.insert("seconds".to_owned(), seconds);
    Ok(outcome)
}

fn title(load: &flow::Flags, rate: Option<f64>) -> String {
    let mut title = load.title();
    if let Some(rate) = rate {
        title.push_str(&format!(", {} a producer", super::figures::per_second(rate)));
    }
    title
}

/// A rate that is a number.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e8).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number of messages per second, 0 to 100000000".to_owned()),
    }
}
