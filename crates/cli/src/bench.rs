//! `leveret bench`: a load generator for any broker that speaks AMQP 0-9-1.
//!
//! It speaks the wire itself and spends as little as it can on each message, so that the broker is what is measured: a
//! few threads drive all connections, messages are encoded ahead, and no more of a frame is read than must be. Progress
//! goes to stderr, the result to stdout.

mod backlog;
mod beside;
mod broker;
mod broker_url;
mod chart;
mod churn;
mod confirm_window;
mod connection;
mod consumer;
mod cost;
mod delayed;
mod delivery;
mod drive;
mod figures;
mod flow;
mod idle;
mod interrupt;
mod latency;
mod layout;
mod limit;
mod link;
mod management;
mod open_many;
mod outcome;
mod own_broker;
mod pace;
mod processes;
mod producer;
mod publish_batch;
mod queues;
mod report;
mod store;
mod suite;
mod tally;
mod target;
mod throughput;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Which load to run.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Flags {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand, Debug)]
enum Load {
    /// Publish and consume: how many messages a second, and what each costs the broker
    #[command(after_help = THROUGHPUT)]
    Throughput(throughput::Flags),
    /// Publish at a fixed rate and time each message
    #[command(after_help = LATENCY)]
    Latency(Box<latency::Flags>),
    /// Open and close connections and channels, declare and delete queues, bind them: how many a second
    #[command(after_help = CHURN)]
    Churn(churn::Flags),
    /// Fill a queue and drain it; memory, and the start after SIGKILL
    #[command(after_help = BACKLOG)]
    Backlog(backlog::Flags),
    /// Publish messages that are due later, and see how late they come
    #[command(after_help = DELAYED)]
    Delayed(delayed::Flags),
    /// Open connections that stay idle, and see what memory each takes
    #[command(after_help = CONNECTIONS)]
    Connections(idle::Flags),
    /// Declare many queues, some at once, and see what memory each takes
    #[command(after_help = QUEUES)]
    Queues(queues::Flags),
    /// What this machine does with no broker in it: sockets and disk
    #[command(after_help = LIMIT)]
    Limit(limit::Flags),
    /// Run everything against several brokers in turn, and write a document with charts and raw data
    #[command(after_help = SUITE)]
    Suite(suite::Flags),
    /// Draw results as SVG charts
    #[command(after_help = REPORT)]
    Report(report::Flags),
    /// Start servers and measure what Leveret's store promises: memory, start, purge, reading back, disk
    Store(store::Flags),
}

const HELP: &str = "\
Any broker that speaks AMQP 0-9-1 can be measured. Progress goes to stderr, the result to stdout: a table, or with
--json an object. Ctrl-C ends a run early: it tells what was measured so far and deletes what it declared.

Examples:
  leveret bench throughput --url amqp://guest:guest@127.0.0.1:5672/%2f --seconds 10
  leveret bench latency --rate 5000 --pid \"$(pidof leveret)\"
  leveret bench throughput --size 1024 --compare amqp://127.0.0.1:5673";

const THROUGHPUT: &str = "\
Examples:
  One producer, one consumer, nothing acknowledged:
    leveret bench throughput
  A work queue as it should be used, four workers:
    leveret bench throughput --durable --persistent --confirm 100 --consumers 4 --ack each --prefetch 100
  A thousand queues, each message by a topic exchange to ten of them, 20 messages a second of each producer:
    leveret bench throughput --queues 1000 --exchange topic --keys 100 --producers 1000 --consumers 1000 --rate 20
  A million messages and not one more, on a quorum queue:
    leveret bench throughput --messages 1000000 --durable --argument x-queue-type=quorum
  Two brokers in turn, three times each, with their processor time per message:
    leveret bench throughput --pid 4711 --compare amqp://127.0.0.1:5673,pid=4712";

const LATENCY: &str = "\
A message is timed from the moment when it was due, so that a broker that holds up its publisher pays for what was due
meanwhile (coordinated omission is corrected). What this program overslept is taken off, and told.

Examples:
  leveret bench latency --rate 5000 --seconds 30
  leveret bench latency --rate 100 --producers 50 --consumers 50 --queues 50 --persistent --durable --ack each
  leveret bench latency --rate 20000 --compare amqp://127.0.0.1:5673 --json > latency.json
  leveret bench latency --rate 500 --beside throughput,--consumers,0,--seconds,3600";

const CHURN: &str = "\
Each client does one thing after another and waits for each answer. What is declared is durable, unless --transient.

Examples:
  leveret bench churn connections
  leveret bench churn queues --clients 100 --seconds 10
  leveret bench churn bindings --transient --json";

const BACKLOG: &str = "\
Examples:
  leveret bench backlog --messages 2000000
  leveret bench backlog --persistent --confirm 1000 --size 1024 --ack each --prefetch 100 --pid 4711
  With a broker of its own, which is killed and started again between fill and drain:
    leveret bench backlog --persistent --start 'leveret serve --amqp 127.0.0.1:{port} --http 127.0.0.1:{port+1} \
      --metrics 127.0.0.1:{port+2} --data-dir {dir}'";

const DELAYED: &str = "\
Each message has an x-delay, so that it is due at a moment of its own; all are published before the first is due.

Examples:
  A million, of which a hundred thousand are due each second, in no order:
    leveret bench delayed --pid 4711
  leveret bench delayed --messages 100000 --over 60 --after 5 --order published --json";

const CONNECTIONS: &str = "\
Examples:
  leveret bench connections --count 1000 --pid 4711
  leveret bench connections --count 10000 --hold 10 --compare amqp://127.0.0.1:5673,pid=4712";

const QUEUES: &str = "\
Examples:
  leveret bench queues --count 10000 --pid 4711
  leveret bench queues --count 1000 --transient --compare amqp://127.0.0.1:5673,pid=4712
  All of them with one policy, which is changed when they are there:
    leveret bench queues --count 10000 --policy --http-port 15672";

const LIMIT: &str = "\
Examples:
  leveret bench limit
  leveret bench limit --size 16,1024,65536 --dir /var/lib/leveret --json";

const SUITE: &str = "\
Examples:
  Everything, against brokers that run:
    leveret bench suite --broker leveret=amqp://127.0.0.1:5672,pid=4711 --broker other=amqp://127.0.0.1:5673,pid=4712
  Some of it, against a broker that is started for each run:
    leveret bench suite --only messages,latency --out /tmp/benchmarks.md --start 'leveret=leveret serve \
      --amqp 127.0.0.1:{port} --http 127.0.0.1:{port+1} --metrics 127.0.0.1:{port+2} --data-dir {dir}'
  To see that it works:
    leveret bench suite --quick --only small --broker it=amqp://127.0.0.1:5672 --out /tmp/quick.md";

const REPORT: &str = "\
Examples:
  leveret bench report docs/benchmarks.json
  leveret bench throughput --json > one.json; leveret bench throughput --size 1024 --json > two.json
  leveret bench report one.json two.json --out charts";

/// Runs a load against a broker.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    match interrupt::Interrupt::listen().and_then(|interrupt| run_load(&flags.load, &interrupt)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_load(load: &Load, interrupt: &interrupt::Interrupt) -> anyhow::Result<()> {
    match load {
        Load::Throughput(flags) => throughput::run(flags, interrupt),
        Load::Latency(flags) => latency::run(flags, interrupt),
        Load::Churn(flags) => churn::run(flags, interrupt),
        Load::Backlog(flags) => backlog::run(flags, interrupt),
        Load::Delayed(flags) => delayed::run(flags, interrupt),
        Load::Connections(flags) => idle::run(flags, interrupt),
        Load::Queues(flags) => queues::run(flags, interrupt),
        Load::Limit(flags) => limit::run(flags, interrupt),
        Load::Suite(flags) => suite::run(flags, interrupt),
        Load::Report(flags) => report::run(flags),
        Load::Store(flags) => store::run(flags),
    }
}

/// Tells whoever watches, apart from the result.
fn say(line: &str) {
    // Nobody is left to be told when stderr is gone.
    let _closed = writeln!(io::stderr(), "bench: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct CommandLine {
        #[command(flatten)]
        flags: Flags,
    }

    fn parses(line: &str) -> bool {
        CommandLine::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_command_line_is_checked() {
        for line in [
            "bench throughput",
            "bench throughput --url amqp://127.0.0.1:5800 --producers 2 --consumers 0 --size 1024 --ack each --prefetch 100",
            "bench throughput --ack 50 --persistent --durable --confirm 1000 --seconds 5 --queue work --json --pid 12,34",
            "bench throughput --queues 100 --exchange topic --keys 10 --bindings 1000 --rate 0.5 --messages 1000",
            "bench throughput --compare amqp://host:5673,pid=1+2 --rounds 5 --argument x-queue-type=quorum --threads 4",
            "bench latency",
            "bench latency --rate 5000 --size 64",
            "bench churn queues --clients 100 --transient",
            "bench backlog --messages 1000 --persistent --start leveret",
            "bench delayed --messages 1000 --over 5 --after 2 --order published",
            "bench connections --count 1000 --hold 5",
            "bench queues --count 1000 --transient",
            "bench queues --count 1000 --policy --http-port 15672",
            "bench limit --size 16,1024 --dir /tmp",
            "bench suite --quick --broker one=amqp://host --start two=serve --only small,latency --without scale",
            "bench report one.json two.json --out charts",
            "bench store",
            "bench store --full --only ready,start --dir /var/tmp --json --markdown store.md",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "bench",
            "bench throughput --seconds 0",
            "bench throughput --ack none",
            "bench throughput --url http://host",
            "bench throughput --size 134217729",
            "bench throughput --confirm -1",
            "bench throughput --rate -1",
            "bench throughput --rate fast",
            "bench throughput --messages 0",
            "bench throughput --exchange x-random",
            "bench throughput --compare host",
            "bench churn",
            "bench churn messages",
            "bench delayed --size 7",
            "bench connections --count 0",
            "bench suite --broker amqp://host",
            "bench report",
            "bench store --only everything",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
