//! `hot-paths` names the hot paths; `hot-paths PATH` runs that one and says how many messages of it were counted, and
//! how often memory was asked for meanwhile; `hot-paths PATH origins` says from where.
//!
//! `cargo xtask instructions` runs it under valgrind, which counts what happens within [`counted`].

mod watch;

use benches::{PATHS, Rounds, work};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: watch::Watched = watch::Watched;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        PATHS.iter().for_each(|path| println!("{}", path.name));
        return ExitCode::SUCCESS;
    };
    let Some(path) = PATHS.iter().find(|path| path.name == name) else {
        eprintln!("hot-paths: there is no path {name}");
        return ExitCode::FAILURE;
    };
    if arguments.get(1).is_some_and(|word| word == "origins") {
        let origins = path.run(|rounds, messages| {
            watch::origins(|| {
                work(rounds, messages);
            })
        });
        origins.iter().for_each(|(share, origin)| println!("{share} % {origin}"));
        return ExitCode::SUCCESS;
    }
    let (messages, allocations) = path.run(|rounds, messages| {
        let before = watch::count();
        (counted(rounds, messages), watch::count() - before)
    });
    println!("{messages} {allocations}");
    ExitCode::SUCCESS
}

/// Its name tells valgrind when to count.
#[inline(never)]
fn counted(rounds: &mut dyn Rounds, messages: u64) -> u64 {
    work(rounds, messages)
}
