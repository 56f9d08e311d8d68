//! `leveret`: the one binary. Reads the command line and hands over to the command.
//!
//! Under the name `rabbitmqctl` or `leveretctl` (a link to it, say) it is `leveret ctl`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A work-queue server that speaks AMQP 0-9-1
#[derive(Parser, Debug)]
#[command(name = "leveret", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Flags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server (as `leveret` alone does)
    Serve(serve::Flags),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match line.command {
        Some(Command::Serve(flags)) => serve::run(flags),
        None => serve::run(line.serve),
    }
}
