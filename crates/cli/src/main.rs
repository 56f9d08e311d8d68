//! `leveret`: the one binary. Reads the command line and hands over to the command.
//!
//! Under the name `rabbitmqctl`, `rabbitmq-diagnostics`, `rabbitmq-queues` or `leveretctl` (a link to it, say) it is
//! `leveret ctl`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]
#![allow(rustdoc::broken_intra_doc_links, reason = "the flags' comments are their help, where [::1] is an address")]

mod bench;
mod client;
mod config;
mod ctl;
mod describe;
mod log_flood;
mod notify;
mod otel_environment;
mod publish;
mod serve;
mod start_pages;
mod store;
mod work;

use clap::{Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Gives memory back when a backlog is gone, at no more CPU per message than the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How the allocator is to be, in its own terms; its environment variable `_RJEM_MALLOC_CONF` says otherwise.
///
/// Pages that nothing uses go back to the system within half a second. By default that takes ten: a server that has got two
/// million messages then keeps 30 MB more of what that took for a moment. Load that goes on uses its pages again before that,
/// and takes no more time. One arena for each processor, instead of four: threads have caches of their own before them.
#[expect(unsafe_code, reason = "a symbol by which the allocator finds this")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 35] = b"dirty_decay_ms:500,narenas_ratio:1\0";

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
    Serve(Box<serve::Flags>),
    /// Run a program for each job of a queue, whatever it is written in
    Work(Box<work::Flags>),
    /// Publish jobs: from arguments, files, or a line each
    Publish(Box<publish::Flags>),
    /// Load any AMQP 0-9-1 broker and measure it
    Bench(Box<bench::Flags>),
    /// Look into a data directory while no server runs on it
    Store(store::Flags),
    /// Check a file of settings, or see what follows from it
    Config(config::Flags),
    /// Ask a running server, or tell it what to do, as rabbitmqctl does (`leveret ctl help`)
    #[command(disable_help_flag = true)]
    Ctl {
        /// A command and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print completions for a shell
    Completions(describe::CompletionsFlags),
    /// Write manual pages
    Man(describe::ManFlags),
}

/// The server alone, as `leveret` and `leveret serve` start it: most of the flags of a command line are other commands'.
#[derive(Parser, Debug)]
#[command(disable_help_flag = true)]
struct ServeLine {
    #[command(flatten)]
    serve: serve::Flags,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if let Some(name) = Path::new(&program).file_stem().and_then(OsStr::to_str)
        && CTL_NAMES.contains(&name)
    {
        return ctl::run(name, arguments.map(text).collect());
    }
    if let Some(flags) = serve_flags() {
        return serve::run(flags);
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _unseen = error.print();
            return match error.exit_code() {
                0 => ExitCode::SUCCESS,
                // Scripts tell by the code whether to try again.
                _ if std::env::args_os().nth(1).is_some_and(|command| command == "publish" || command == "work") => {
                    ExitCode::from(publish::USAGE)
                }
                code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            };
        }
    };
    match line.command {
        Some(Command::Ctl { arguments }) => ctl::run("leveret ctl", arguments.into_iter().map(text).collect()),
        Some(Command::Completions(flags)) => describe::completions::<CommandLine>(&flags),
        Some(Command::Man(flags)) => describe::man::<CommandLine>(&flags),
        Some(Command::Serve(flags)) => serve::run(*flags),
        Some(Command::Work(flags)) => work::run(*flags),
        Some(Command::Publish(flags)) => publish::run(*flags),
        Some(Command::Bench(flags)) => bench::run(&flags),
        Some(Command::Store(flags)) => store::run(&flags),
        Some(Command::Config(flags)) => config::run(&flags),
        None => serve::run(line.serve),
    }
}

/// The flags of a server, if it is one that is wanted, and nothing has to be said about them.
fn serve_flags() -> Option<serve::Flags> {
    let is_serve = |argument: &OsString| argument == "serve";
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1) {
        Some(first) if is_serve(first) => drop(arguments.remove(1)),
        Some(first) if !first.to_string_lossy().starts_with('-') => return None,
        _ => {}
    }
    ServeLine::try_parse_from(arguments).ok().map(|line| line.serve)
}

/// Names that `leveret ctl` has as a program.
const CTL_NAMES: [&str; 4] = ["rabbitmqctl", "leveretctl", "rabbitmq-diagnostics", "rabbitmq-queues"];

/// An argument as text: what is not is no name of anything that could be asked for.
fn text(argument: OsString) -> String {
    argument.to_string_lossy().into_owned()
}
