//! `cargo xtask`: the chores of this repository that cargo has no word for.
//!
//! `codegen` writes the AMQP methods from their table, `tidy` checks the rules about crates and
//! files that no compiler checks, `instructions` counts what the hot paths cost, `ci` runs every
//! check that needs no client. None of it ships.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod ci;
mod codegen;
mod instructions;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  codegen          write crates/amqp/src/method/*.rs from crates/amqp/spec/methods.toml
  codegen --check  fail if that would change anything
  tidy             fail on a broken dependency rule or a dead file; list outsized files and functions
  instructions     fail if a hot path takes over 5 % more instructions for a message than agreed (needs valgrind)
  instructions --accept   agree to what they take now
  instructions PATH…      show which functions take them
  ci               all of these, formatting, lints, documentation and every test that needs no client";

#[expect(clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["codegen"] => codegen::write(&root()?),
        ["codegen", "--check"] => codegen::check(&root()?),
        ["tidy"] => tidy::run(&root()?),
        ["instructions"] => instructions::compare(&root()?, false),
        ["instructions", "--accept"] => instructions::compare(&root()?, true),
        ["instructions", paths @ ..] => instructions::profile(&root()?, paths),
        ["ci"] => ci::run(&root()?),
        _ => bail!("{USAGE}"),
    }
}

/// The repository's root: the folder above this crate.
fn root() -> Result<PathBuf> {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(crate_root.parent().context("this crate lies in the repository")?.to_owned())
}
