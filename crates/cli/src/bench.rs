//! `leveret bench`: a load generator for any broker that speaks AMQP 0-9-1.
//!
//! It speaks the wire itself with blocking sockets and threads, and spends as little as it can on each
//! message, so that the broker is what is measured. Progress goes to stderr, the result to stdout.

mod broker;
mod broker_url;
mod confirm_window;
mod connection;
mod consumer;
mod cost;
mod delivery;
mod drive;
mod figures;
mod flow;
mod idle;
mod interrupt;
mod latency;
mod layout;
mod link;
mod open_many;
mod outcome;
mod pace;
mod processes;
mod producer;
mod publish_batch;
mod store;
mod tally;
mod target;
mod throughput;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Which load to run.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand, Debug)]
enum Load {
    /// Publish and consume as fast as the broker goes
    Throughput(throughput::Flags),
    /// Publish at a fixed rate and time each message
    Latency(latency::Flags),
    /// Open connections that stay idle
    Connections(idle::Flags),
    /// Start servers and measure what the store promises: memory, start, purge, reading back, disk
    Store(store::Flags),
}

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
        Load::Connections(flags) => idle::run(flags, interrupt),
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
            "bench latency --rate 5000 --size 64",
            "bench connections --count 1000 --hold 5",
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
            "bench latency",
            "bench latency --rate 0",
            "bench connections",
            "bench connections --count 0",
            "bench store --only everything",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
