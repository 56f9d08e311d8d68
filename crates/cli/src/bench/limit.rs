//! `leveret bench limit`: what this machine could do with no broker in it. A relay moves the same octets between the same
//! producer and consumer, and a file takes the same sizes with a sync after each. Results can be stated as a share of it.

mod ask;
mod disk;
mod relay;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;

use super::interrupt::Interrupt;
use super::outcome::Outcome;
use super::say;

/// What to measure.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Body sizes
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', default_values_t = [16, 1024])]
    size: Vec<u32>,
    /// How long each part runs
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// A directory on the disk to measure [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(super) fn run(flags: &Flags, interrupt: &Interrupt) -> Result<()> {
    let dir = flags.dir.clone().unwrap_or_else(std::env::temp_dir);
    let outcome = measure(&flags.size, flags.seconds, &dir, interrupt)?;
    ensure!(!outcome.figures.is_empty(), "interrupted before anything was measured");
    let mut stdout = io::stdout();
    if flags.json {
        writeln!(
            stdout,
            "{}",
            json!({"load": "limit", "seconds": flags.seconds, "figures": outcome.json()["figures"]})
        )?;
    } else {
        writeln!(stdout, "This machine, without a broker; {} s each", flags.seconds)?;
        stdout.write_all(outcome.table().as_bytes())?;
    }
    Ok(())
}

/// Measures all parts, or those before an interrupt.
pub(super) fn measure(sizes: &[u32], seconds: u32, dir: &Path, interrupt: &Interrupt) -> Result<Outcome> {
    let mut outcome = Outcome::new("no broker");
    for &size in sizes {
        for path in relay::Path::ALL {
            if !interrupt.has_come() {
                say(&format!("{size} B {}", path.name()));
                relay::measure(path, size, seconds, interrupt, &mut outcome)?;
            }
        }
    }
    if !interrupt.has_come() {
        say("latency by a relay");
        relay::measure_latency(seconds, interrupt, &mut outcome)?;
    }
    if !interrupt.has_come() {
        say("latency by a relay beside another one");
        relay::measure_neighbour(seconds, interrupt, &mut outcome)?;
    }
    for talk in ask::Talk::ALL {
        if !interrupt.has_come() {
            say(talk.name());
            ask::measure(talk, dir, seconds, interrupt, &mut outcome)?;
        }
    }
    for at_once in [1, 100, 1000] {
        if !interrupt.has_come() {
            say(&format!("syncs of {at_once} × 1 KiB"));
            disk::measure_syncs(dir, at_once, seconds, &mut outcome)?;
        }
    }
    if !interrupt.has_come() {
        say("disk bandwidth");
        disk::measure_bandwidth(dir, seconds, &mut outcome)?;
    }
    Ok(outcome)
}
