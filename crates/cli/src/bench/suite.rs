//! `leveret bench suite`: everything that this program measures, against several brokers in one session, as a document
//! with charts and the raw data.
//!
//! Brokers take turns within each row, so that what the machine does meanwhile hits all of them. One that the suite
//! starts itself is started anew for each run, on an empty directory, and only one of those runs at a time.

mod document;
mod machine;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser};
use serde_json::{Value, json};

use super::broker::Broker;
use super::interrupt::Interrupt;
use super::outcome::Outcome;
use super::own_broker::OwnBroker;
use super::{Load, backlog, churn, delayed, idle, latency, limit, queues, say, throughput};
use rows::{ROWS, Row};

/// What to measure, and where the result goes.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// A broker that runs (repeatable). What needs a broker of its own is left out
    #[arg(long, value_name = "NAME[@ROW+ROW]=URL[,pid=PID+PID]")]
    broker: Vec<Named<Broker>>,
    /// A broker to start for each run (repeatable): {port} stands for its port, {port+1} to {port+9} for others it needs,
    /// {dir} for an empty data directory; {port+1} is to be that of its HTTP API. The first broker is the one that others are held against. One that is named with
    /// rows or groups is run in those only
    #[arg(long, value_name = "NAME[@ROW+ROW]=COMMAND")]
    start: Vec<Named<String>>,
    /// How often each row is run; medians are told [default: 3, with --quick 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long each run is measured [default: 5, with --quick 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// How many messages a backlog has [default: 2000000, with --quick 50000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// A short run that shows that all works, and no figure that means much; --seconds and others still hold
    #[arg(long)]
    quick: bool,
    /// Measure only these rows, or groups: messages, durable, latency, neighbours, topology, scale, features
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out these rows or groups
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    without: Vec<String>,
    /// The document to write, as Markdown; the raw data and the charts go beside it
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    out: PathBuf,
    /// Where to make data directories: the disk to measure [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What readers should know about the machine or the versions (repeatable)
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
}

/// Something with a name, and the rows that it is for, none standing for all: NAME[@ROW+ROW]=…
#[derive(Debug, Clone)]
pub(super) struct Named<T> {
    name: String,
    rows: Vec<String>,
    it: T,
}

impl<T: FromStr> FromStr for Named<T>
where
    T::Err: std::fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, it) = text.split_once('=').ok_or("a broker is NAME=…")?;
        let (name, rows) = name
            .split_once('@')
            .map_or((name, Vec::new()), |(name, rows)| (name, rows.split('+').map(str::to_owned).collect()));
        if name.is_empty() || name.contains(['/', ':']) {
            return Err(format!("{name:?} is no name for a broker: write NAME=…"));
        }
        Ok(Self { name: name.to_owned(), rows, it: it.parse().map_err(|error| format!("{error}"))? })
    }
}

/// A broker in the suite.
#[derive(Debug, Clone)]
struct Contender {
    name: String,
    /// What it is run in; nothing stands for all.
    rows: Vec<String>,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Running(Broker),
    Started(String),
}

/// A row's command line.
#[derive(Parser, Debug)]
#[command(no_binary_name = true)]
struct CommandLine {
    #[command(subcommand)]
    load: Load,
}

/// Measures all and writes the document.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let started = flags.start.iter().map(|it| (&it.name, &it.rows, Origin::Started(it.it.clone())));
    let running = flags.broker.iter().map(|it| (&it.name, &it.rows, Origin::Running(it.it.clone())));
    let contenders: Vec<_> = started
        .chain(running)
        .map(|(name, rows, origin)| Contender { name: name.clone(), rows: rows.clone(), origin })
        .collect();
    ensure!(!contenders.is_empty(), "no broker to measure: name some with --start NAME=COMMAND or --broker NAME=URL");
    let suite = Suite::new(flags, contenders, interrupt)?;
    let data = suite.measure()?;
    document::write(&flags.out, &data)?;
    say(&format!("written: {}", flags.out.display()));
    Ok(())
}

struct Suite<'a> {
    contenders: Vec<Contender>,
    rows: Vec<&'static Row>,
    rounds: u32,
    seconds: u32,
    messages: u64,
    dir: PathBuf,
    flags: &'a Flags,
    interrupt: &'a Interrupt,
}

impl<'a> Suite<'a> {
    fn new(flags: &'a Flags, contenders: Vec<Contender>, interrupt: &'a Interrupt) -> Result<Self> {
        let of_contenders = contenders.iter().flat_map(|contender| &contender.rows);
        for name in flags.only.iter().chain(&flags.without).chain(of_contenders) {
            ensure!(
                ROWS.iter().any(|row| is_named(row, name)),
                "there is no row or group {name:?}; rows are {}",
                ROWS.iter().map(|row| row.id).collect::<Vec<_>>().join(", ")
            );
        }
        let is_wanted = |row: &&Row| {
            (flags.only.is_empty() || flags.only.iter().any(|name| is_named(row, name)))
                && !flags.without.iter().any(|name| is_named(row, name))
        };
        let or = |given: Option<u32>, usual, quick| given.unwrap_or(if flags.quick { quick } else { usual });
        Ok(Self {
            contenders,
            rows: ROWS.iter().filter(is_wanted).collect(),
            rounds: or(flags.rounds, 3, 1),
            seconds: or(flags.seconds, 5, 1),
            messages: flags.messages.unwrap_or(if flags.quick { 50_000 } else { 2_000_000 }),
            dir: flags.dir.clone().unwrap_or_else(std::env::temp_dir),
            flags,
            interrupt,
        })
    }

    /// All results, as the raw data are written.
    fn measure(&self) -> Result<Value> {
        let limit = limit::measure(&[16, 1024], self.seconds, &self.dir, self.interrupt)?;
        let mut data = json!({
            "suite": env!("CARGO_PKG_VERSION"),
            "machine": machine::describe(&self.dir),
            "notes": self.flags.note,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "backlog_messages": self.messages,
            "contenders": self.contenders.iter().map(Contender::json).collect::<Vec<_>>(),
            "limit": limit.json()["figures"],
            "rows": [],
        });
        for (number, row) in self.rows.iter().enumerate() {
            if self.interrupt.has_come() {
                break;
            }
            let measured = self.measure_row(number, row);
            if let Some(rows) = data["rows"].as_array_mut() {
                rows.push(measured);
            }
            // What was measured so far outlives whatever comes.
            document::write(&self.flags.out, &data)?;
        }
        Ok(data)
    }

    fn measure_row(&self, number: usize, row: &Row) -> Value {
        let mut runs: Vec<Vec<Outcome>> = vec![Vec::new(); self.contenders.len()];
        let mut failures: Vec<Option<String>> = vec![None; self.contenders.len()];
        let is_run =
            |contender: &Contender| contender.rows.is_empty() || contender.rows.iter().any(|it| is_named(row, it));
        let command = self.command(row);
        for round in 1..=self.rounds {
            for (contender, (runs, failure)) in self.contenders.iter().zip(runs.iter_mut().zip(&mut failures)) {
                // What has failed once fails again, after the same time.
                if self.interrupt.has_come() || failure.is_some() || !is_run(contender) {
                    continue;
                }
                let (done, all) = (number + 1, self.rows.len());
                say(&format!("[{done}/{all}] {}, round {round} of {}: {}", row.id, self.rounds, contender.name));
                match self.run(contender, &command) {
                    Ok(outcome) => runs.push(outcome),
                    Err(error) => {
                        say(&format!("{} failed: {error:#}", contender.name));
                        *failure = Some(format!("{error:#}"));
                    }
                }
            }
        }
        let results = self.contenders.iter().zip(runs.iter().zip(&failures)).map(|(contender, (runs, failure))| {
            let median = Outcome::median(runs);
            json!({
                "contender": contender.name,
                "broker": median.broker,
                "median": median.json()["figures"],
                "units": median.units(),
                "names": median.names(),
                "runs": runs.iter().map(Outcome::json).collect::<Vec<_>>(),
                "failure": failure,
            })
        });
        json!({
            "id": row.id,
            "group": row.group.title(),
            "title": row.title,
            "command": format!("leveret bench {command}"),
            "aim": row.aim,
            "shown": row.figures,
            "results": results.collect::<Vec<_>>(),
        })
    }

    /// The row's command line, as it is run.
    fn command(&self, row: &Row) -> String {
        let mut command = row.command.replace("{messages}", &self.messages.to_string());
        let of = command.split(' ').next().unwrap_or_default();
        if ["throughput", "latency", "churn"].contains(&of) {
            command.push_str(&format!(" --seconds {}", self.seconds));
        }
        command
    }

    /// One run against one broker.
    fn run(&self, contender: &Contender, command: &str) -> Result<Outcome> {
        let load = CommandLine::try_parse_from(command.split(' ')).map_err(|error| anyhow!("{error}"))?.load;
        match &contender.origin {
            Origin::Running(broker) => self.run_on(broker, &load, None),
            Origin::Started(template) => {
                if let Load::Backlog(flags) = &load
                    && flags.load.persistent
                {
                    return backlog::measure_own(template, &self.dir, &flags.load, self.interrupt);
                }
                let own = OwnBroker::start(template, &self.dir)?;
                let broker = own.broker();
                self.run_on(&broker, &load, Some(broker.url.port + 1))
            }
        }
    }

    fn run_on(&self, broker: &Broker, load: &Load, http_port: Option<u16>) -> Result<Outcome> {
        match load {
            Load::Throughput(flags) => throughput::measure(broker, &flags.load, None, self.interrupt),
            Load::Latency(flags) => latency::measure(broker, flags, self.interrupt),
            Load::Churn(flags) => churn::measure(broker, &flags.load, self.interrupt),
            Load::Backlog(flags) => backlog::measure(broker, &flags.load, self.interrupt),
            Load::Connections(flags) => {
                let count = if self.flags.quick { flags.count.min(QUICK_CONNECTIONS) } else { flags.count };
                idle::measure(broker, count, flags.hold)
            }
            Load::Queues(flags) => {
                let count = if self.flags.quick { flags.load.count.min(QUICK_CONNECTIONS) } else { flags.load.count };
                queues::measure(broker, &queues::Load { count, http_port, ..flags.load.clone() })
            }
            Load::Delayed(flags) => {
                let flags = &flags.load;
                let (messages, after) = match self.flags.quick {
                    true => (flags.messages.min(QUICK_MESSAGES), QUICK_AFTER),
                    false => (flags.messages, flags.after),
                };
                delayed::measure(broker, &delayed::Load { messages, after, ..flags.clone() }, self.interrupt)
            }
            _ => bail!("this is no row of the suite"),
        }
    }
}

impl Contender {
    fn json(&self) -> Value {
        match &self.origin {
            Origin::Running(broker) => json!({"name": self.name, "url": broker.url.to_string()}),
            Origin::Started(command) => json!({"name": self.name, "start": command}),
        }
    }
}

fn is_named(row: &Row, name: &str) -> bool {
    row.id == name || format!("{:?}", row.group).eq_ignore_ascii_case(name)
}

/// Writes data for programs.
fn write(file: &Path, data: &Value) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let text = serde_json::to_string_pretty(data)?;
    fs::write(file, text + "\n").with_context(|| format!("the raw data could not be written to {}", file.display()))
}

/// How many delayed messages a quick run has at most, …
const QUICK_MESSAGES: u64 = 20_000;
/// … and after how many seconds the first is due.
const QUICK_AFTER: u32 = 2;
/// How many connections or queues a quick run has at most.
const QUICK_CONNECTIONS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::rows::Group;
    use super::*;

    #[test]
    fn every_row_is_a_command_line_with_a_name_of_its_own() {
        let flags = Flags {
            broker: Vec::new(),
            start: Vec::new(),
            rounds: None,
            seconds: None,
            messages: None,
            quick: true,
            only: Vec::new(),
            without: Vec::new(),
            out: PathBuf::new(),
            dir: None,
            note: Vec::new(),
        };
        let interrupt = Interrupt::default();
        let suite = Suite::new(&flags, Vec::new(), &interrupt).unwrap();
        assert_eq!(suite.rows.len(), ROWS.len());
        for (number, row) in ROWS.iter().enumerate() {
            let parsed = CommandLine::try_parse_from(suite.command(row).split(' '));
            assert!(parsed.is_ok(), "{}: {}", row.id, parsed.unwrap_err());
            assert!(ROWS[..number].iter().all(|other| other.id != row.id), "{} is there twice", row.id);
            assert!(Group::ALL.contains(&row.group) && !row.figures.is_empty());
        }
    }

    #[test]
    fn a_broker_has_a_name() {
        let named: Named<Broker> = "one=amqp://127.0.0.1:5800,pid=7".parse().unwrap();
        assert_eq!((named.name.as_str(), named.it.url.port), ("one", 5800));
        let started: Named<String> = "two=serve --port={port}".parse().unwrap();
        assert_eq!((started.name.as_str(), started.it.as_str()), ("two", "serve --port={port}"));
        assert!(started.rows.is_empty());
        let some: Named<String> = "three@durable+kib=serve --at=me@here".parse().unwrap();
        assert_eq!((some.name.as_str(), some.it.as_str()), ("three", "serve --at=me@here"));
        assert_eq!(some.rows, ["durable", "kib"]);
        for text in ["amqp://127.0.0.1", "=amqp://127.0.0.1", "one=http://host"] {
            assert!(text.parse::<Named<Broker>>().is_err(), "{text}");
        }
    }
}
