//! `cargo xtask ci`: every check that needs no client programs, in the order in which they fail fastest.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What runs besides this program's own checks.
const STEPS: [&[&str]; 4] = [
    &["fmt", "--all", "--check"],
    &["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"],
    &["doc", "-q", "--workspace", "--no-deps"],
    &["test", "-q", "--workspace"],
];

/// Runs all checks from the repository's root; the first that fails ends it.
#[expect(clippy::print_stderr, reason = "long work shows progress")]
pub(crate) fn run(root: &Path) -> Result<()> {
    crate::codegen::check(root)?;
    crate::tidy::run(root)?;
    for step in STEPS {
        let began = Instant::now();
        eprintln!("--- cargo {}", step.join(" "));
        let status = Command::new(env!("CARGO"))
            .args(step)
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root)
            .status()
            .context("cargo could not be started")?;
        if !status.success() {
            bail!("cargo {} failed", step.join(" "));
        }
        eprintln!("--- done in {:.0} s", began.elapsed().as_secs_f64());
    }
    if !crate::instructions::is_possible() {
        eprintln!("--- NOT CHECKED: the instructions of the hot paths, because valgrind is not installed");
        return Ok(());
    }
    let began = Instant::now();
    eprintln!("--- cargo xtask instructions");
    crate::instructions::compare(root, false)?;
    eprintln!("--- done in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
