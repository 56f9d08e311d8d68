//! `leveret bench churn`: how fast a broker opens and closes connections and channels, declares and deletes queues, and
//! binds them. Each client does one thing after another, and waits for each answer.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use amqp::Method;
use amqp::method::{channel, exchange, queue};
use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;

use super::broker::Broker;
use super::connection::Connection;
use super::cost::Meter;
use super::drive::Clock;
use super::figures::{new_histogram, per_second, rate};
use super::interrupt::Interrupt;
use super::open_many::open_many;
use super::outcome::{Outcome, Unit};
use super::say;
use super::tally::{Counts, Over, Tally};
use super::target::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(super) load: Load,
}

/// What is done over and over.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Load")]
#[group(skip)]
pub(super) struct Load {
    /// What to make and unmake
    #[arg(value_name = "WHAT")]
    pub(super) what: What,
    /// How many clients do it at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) clients: u32,
    /// Queues and bindings that no restart brings back, instead of durable ones
    #[arg(long)]
    pub(super) transient: bool,
    /// How long to run
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) seconds: u32,
}

/// What can be churned.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Open a connection with a channel, close it
    Connections,
    /// Open a channel, close it
    Channels,
    /// Declare a queue, delete it
    Queues,
    /// Bind a queue once more, each time with another key
    Bindings,
}

/// Runs the load and prints what came of it.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let Load { what, clients, transient, seconds } = &flags.load;
    let work = json!({
        "what": what.name(),
        "clients": clients,
        "durable": !transient,
        "seconds": seconds,
    });
    let durable = if *transient { "transient" } else { "durable" };
    let title = match what {
        What::Connections | What::Channels => format!("churn of {}, clients: {clients}, {seconds} s", what.name()),
        _ => format!("churn of {durable} {}, clients: {clients}, {seconds} s", what.name()),
    };
    flags.target.run("churn", &title, &work, interrupt, |broker| measure(broker, &flags.load, interrupt))
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Channels => "channels",
            Self::Queues => "queues",
            Self::Bindings => "bindings",
        }
    }
}

/// Runs the load once.
pub(super) fn measure(broker: &Broker, load: &Load, interrupt: &Interrupt) -> Result<Outcome> {
    let name = format!("leveret-bench-{}", std::process::id());
    let mut keeper = Connection::open(&broker.url, "leveret bench")?;
    if load.what == What::Bindings {
        let declare =
            exchange::Declare { exchange: &name, kind: "direct", durable: !load.transient, ..Default::default() };
        keeper.call(&Method::ExchangeDeclare(declare), exchange::DeclareOk::ID)?;
    }
    let measured = churn(broker, load, &name, interrupt);
    if load.what == What::Bindings {
        let delete = exchange::Delete { exchange: &name, ..Default::default() };
        keeper.call(&Method::ExchangeDelete(delete), exchange::DeleteOk::ID).context("the exchange is still there")?;
    }
    let (counted, time, times, cost) = measured?;
    let mut outcome = Outcome::new(keeper.broker());
    keeper.close()?;
    outcome.add("per_s", load.what.name(), rate(counted, time), Unit::PerSecond);
    outcome.add("one_p50_ns", "one, p50", times.value_at_quantile(0.5) as f64, Unit::Ns);
    outcome.add("one_p99_ns", "one, p99", times.value_at_quantile(0.99) as f64, Unit::Ns);
    outcome.add("one_max_ns", "one, max", times.max() as f64, Unit::Ns);
    cost.add_in(Unit::OperationUs, &mut outcome);
    Ok(outcome)
}

type Churned = (u64, Duration, Histogram<u64>, super::cost::Cost);

fn churn(broker: &Broker, load: &Load, name: &str, interrupt: &Interrupt) -> Result<Churned> {
    let clients = open_many(load.clients, |number| Client::open(broker, load, name, number))?;
    let tallies: Vec<Tally> = clients.iter().map(|_| Tally::default()).collect();
    let over = Over::default();
    let clock = Clock::start();
    let (failed, failures) = mpsc::channel();
    let meter = Meter::start(broker.processes.clone())?;
    let (began, mut counts) = (Instant::now(), Counts::default());
    thread::scope(|scope| {
        let (over, clock) = (&over, &clock);
        let running: Vec<_> = clients
            .into_iter()
            .zip(&tallies)
            .map(|(client, tally)| {
                let failed: Sender<anyhow::Error> = failed.clone();
                scope.spawn(move || match client.run(tally, clock, over) {
                    Ok(times) => Some(times),
                    Err(error) => {
                        // Somebody else may have failed before, and nobody listens any more.
                        let _unheard = failed.send(error);
                        None
                    }
                })
            })
            .collect();
        drop(failed);
        let mut failure = None;
        let end = began + Duration::from_secs(load.seconds.into());
        let mut second = 1;
        while Instant::now() < end && !interrupt.has_come() && failure.is_none() {
            let due = began + Duration::from_secs(second);
            let left = due.saturating_duration_since(Instant::now());
            match failures.recv_timeout(left.min(LOOK)) {
                Ok(error) => failure = Some(error),
                Err(RecvTimeoutError::Disconnected) => failure = Some(anyhow!("all clients have ended")),
                Err(RecvTimeoutError::Timeout) if Instant::now() < due => {}
                Err(RecvTimeoutError::Timeout) => {
                    let now = Counts::of(&tallies);
                    let done = now.since(counts).published;
                    counts = now;
                    say(&format!("{second:>4} s  {} {}", load.what.name(), per_second(done as f64)));
                    second += 1;
                }
            }
        }
        let (time, counted) = (began.elapsed(), Counts::of(&tallies).published);
        let cost = meter.read(counted);
        over.set();
        let mut all = new_histogram()?;
        for times in running {
            if let Some(times) = times.join().map_err(|_| anyhow!("a thread of the load died"))? {
                all.add(times)?;
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok((counted, time, all, cost?)),
        }
    })
}

/// One client.
struct Client<'a> {
    broker: &'a Broker,
    /// Its connection; a client that churns connections has none between.
    connection: Option<Connection>,
    load: &'a Load,
    /// Of the exchange, and what the names of queues begin with.
    name: &'a str,
    queue: String,
}

impl<'a> Client<'a> {
    fn open(broker: &'a Broker, load: &'a Load, name: &'a str, number: u32) -> Result<Self> {
        let queue = format!("{name}-{number}");
        let mut client = Self { broker, connection: None, load, name, queue };
        if load.what != What::Connections {
            let mut connection = Connection::open(&broker.url, &format!("leveret bench churn {}", number + 1))?;
            if load.what == What::Bindings {
                client.declare(&mut connection)?;
            }
            client.connection = Some(connection);
        }
        Ok(client)
    }

    /// Does it until the run is over, and tidies up; how long each took.
    fn run(mut self, tally: &Tally, clock: &Clock, over: &Over) -> Result<Histogram<u64>> {
        let (mut times, mut counts) = (new_histogram()?, Counts::default());
        while !over.is_set() {
            let began = Instant::now();
            self.once(counts.published)?;
            times.saturating_record(began.elapsed().as_nanos() as u64);
            counts.published += 1;
            tally.set(counts, clock.now_ns());
        }
        if let Some(mut connection) = self.connection.take() {
            if self.load.what == What::Bindings {
                self.delete(&mut connection)?;
            }
            connection.close()?;
        }
        Ok(times)
    }

    fn once(&mut self, number: u64) -> Result<()> {
        let Some(mut connection) = self.connection.take() else {
            return Connection::open(&self.broker.url, "leveret bench churn")?.close();
        };
        match self.load.what {
            What::Connections | What::Channels => {
                let close = channel::Close { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
                connection.call(&Method::ChannelClose(close), channel::CloseOk::ID)?;
                connection.call(&Method::ChannelOpen(channel::Open), channel::OpenOk::ID)?;
            }
            What::Queues => {
                self.declare(&mut connection)?;
                self.delete(&mut connection)?;
            }
            What::Bindings => {
                let routing_key = number.to_string();
                let bind = queue::Bind {
                    queue: &self.queue,
                    exchange: self.name,
                    routing_key: &routing_key,
                    ..Default::default()
                };
                connection.call(&Method::QueueBind(bind), queue::BindOk::ID)?;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn declare(&self, connection: &mut Connection) -> Result<()> {
        let declare = queue::Declare { queue: &self.queue, durable: !self.load.transient, ..Default::default() };
        connection.call(&Method::QueueDeclare(declare), queue::DeclareOk::ID)?;
        Ok(())
    }

    fn delete(&self, connection: &mut Connection) -> Result<()> {
        let delete = queue::Delete { queue: &self.queue, ..Default::default() };
        connection.call(&Method::QueueDelete(delete), queue::DeleteOk::ID)?;
        Ok(())
    }
}

/// How often to look whether a run was interrupted.
const LOOK: Duration = Duration::from_millis(50);
