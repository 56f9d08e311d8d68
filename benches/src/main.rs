//! `hot-paths` names the hot paths; `hot-paths NAME` runs that one and says how many messages of it were counted.
//!
//! `cargo xtask instructions` runs it under valgrind, which counts what happens within [`counted`].

use benches::{PATHS, Rounds, work};
use std::process::ExitCode;

/// The server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        PATHS.iter().for_each(|path| println!("{}", path.name));
        return ExitCode::SUCCESS;
    };
    let Some(path) = PATHS.iter().find(|path| path.name == name) else {
        eprintln!("hot-paths: there is no path {name}");
        return ExitCode::FAILURE;
    };
    println!("{}", path.run(counted));
    ExitCode::SUCCESS
}

/// Its name tells valgrind when to count.
#[inline(never)]
fn counted(rounds: &mut dyn Rounds, messages: u64) -> u64 {
    work(rounds, messages)
}
