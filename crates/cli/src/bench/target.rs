//! Which brokers a load runs against, and how its result is told.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::broker::Broker;
use super::broker_url::BrokerUrl;
use super::interrupt::Interrupt;
use super::outcome::{Outcome, comparison, ratios};
use super::processes::Processes;
use super::say;

/// Which broker, and how to tell of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Broker and result")]
pub(super) struct Target {
    /// The broker; every part may be left out, and vhost / is written %2f
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    url: BrokerUrl,
    /// The broker's processes, to measure with all their children: processor time and memory (Linux)
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Another broker, to run the same load against in turn (A B A B), as amqp://host:port,pid=12
    #[arg(long, value_name = "URL[,pid=PID+PID]")]
    compare: Option<Broker>,
    /// How often to run the load; medians are told [default: 1, with --compare 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

impl Target {
    /// Runs a load as often as it was asked for, and prints what came of it. `load` is its name, `work` what it consists
    /// of for programs, and `title` the same for people.
    pub(super) fn run(
        &self,
        load: &str,
        title: &str,
        work: &Value,
        interrupt: &Interrupt,
        measure: impl Fn(&Broker) -> Result<Outcome>,
    ) -> Result<()> {
        let first = Broker { url: self.url.clone(), processes: Processes::new(&self.pid) };
        let brokers: Vec<&Broker> = std::iter::once(&first).chain(&self.compare).collect();
        let rounds = self.rounds.unwrap_or(if brokers.len() > 1 { ROUNDS } else { 1 });
        let mut runs = vec![Vec::new(); brokers.len()];
        for round in 1..=rounds {
            for (broker, runs) in brokers.iter().zip(&mut runs) {
                if rounds > 1 || brokers.len() > 1 {
                    say(&format!("round {round} of {rounds}: {}", broker.url));
                }
                if !interrupt.has_come() {
                    runs.push(measure(broker)?);
                }
            }
        }
        ensure!(!runs[0].is_empty(), "interrupted before anything was measured");
        let medians: Vec<_> = runs.iter().map(|runs| Outcome::median(runs)).collect();
        let mut stdout = io::stdout();
        if self.json {
            writeln!(stdout, "{}", tell(load, work, &brokers, &runs, &medians))?;
            return Ok(());
        }
        match (medians.as_slice(), brokers.as_slice()) {
            ([first, second, ..], [a, b, ..]) if !runs[1].is_empty() => {
                writeln!(stdout, "A: {} at {}\nB: {} at {}", first.broker, a.url, second.broker, b.url)?;
                writeln!(stdout, "{title}; medians of {} and {} runs", runs[0].len(), runs[1].len())?;
                stdout.write_all(comparison(first, second).as_bytes())?;
            }
            ([first, ..], [a, ..]) => {
                let of = if runs[0].len() > 1 { format!("; medians of {} runs", runs[0].len()) } else { String::new() };
                let at = first.at.clone().unwrap_or_else(|| a.url.to_string());
                writeln!(stdout, "{} at {at}\n{title}{of}", first.broker)?;
                stdout.write_all(first.table().as_bytes())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The result for programs.
fn tell(load: &str, work: &Value, brokers: &[&Broker], runs: &[Vec<Outcome>], medians: &[Outcome]) -> Value {
    let of_broker = |((broker, runs), median): ((&&Broker, &Vec<Outcome>), &Outcome)| {
        json!({
            "url": broker.url.to_string(),
            "broker": median.broker,
            "figures": median.json()["figures"],
            "units": median.units(),
            "names": median.names(),
            "runs": runs.iter().map(Outcome::json).collect::<Vec<_>>(),
        })
    };
    let told: Vec<_> = brokers.iter().zip(runs).zip(medians).map(of_broker).collect();
    let mut object = json!({"load": load, "work": work, "brokers": told});
    if let [first, second] = medians {
        object["ratios"] = ratios(first, second);
    }
    object
}

/// How often two brokers are compared when nothing else is said.
const ROUNDS: u32 = 3;
