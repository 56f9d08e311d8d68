//! `leveret-fuzz TARGET [--seconds N] [--seed S]` tries inputs until the time is over or one fails;
//! `leveret-fuzz TARGET --input FILE` tries one again.
#![expect(clippy::print_stdout, reason = "this program's purpose")]

use anyhow::{Context, Result, bail};
use fuzz::{Runner, TARGETS, Target, failures_are_saved_to_disk, target};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() -> Result<()> {
    let Arguments { target, seconds, seed, input } = Arguments::parse(std::env::args().skip(1))?;
    failures_are_saved_to_disk();
    if let Some(path) = input {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let outcome = target.check(target.name, &bytes)?;
        println!("{}: {} bytes of input took {} bytes", target.name, outcome.input_bytes, outcome.peak_bytes);
        return Ok(());
    }
    println!("{} --seed {seed}: {} s", target.name, seconds.as_secs());
    let mut runner = Runner::new(target, seed).context("cannot read the corpus")?;
    let began = Instant::now();
    let (mut peak_bytes, mut said) = (0, Duration::ZERO);
    while began.elapsed() < seconds {
        peak_bytes = peak_bytes.max(runner.step()?.peak_bytes);
        if began.elapsed() > said + Duration::from_secs(30) {
            said = began.elapsed();
            println!("{} s: {} executions", said.as_secs(), runner.executions());
        }
    }
    println!("{}: {} executions, peak memory {peak_bytes} bytes, nothing found", target.name, runner.executions());
    Ok(())
}

struct Arguments {
    target: &'static Target,
    seconds: Duration,
    seed: u64,
    input: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let names = TARGETS.map(|target| target.name).join(", ");
        let name = arguments.next().unwrap_or_default();
        let Some(target) = target(&name) else { bail!("name a target: {names}") };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut parsed = Self { target, seconds: Duration::from_secs(60), seed: since_1970.as_secs(), input: None };
        while let Some(option) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--seconds" => parsed.seconds = Duration::from_secs(value.parse().context("--seconds takes a number")?),
                "--seed" => parsed.seed = value.parse().context("--seed takes a number")?,
                "--input" => parsed.input = Some(value.into()),
                other => bail!("unknown option {other}; there are --seconds, --seed and --input"),
            }
        }
        Ok(parsed)
    }
}
