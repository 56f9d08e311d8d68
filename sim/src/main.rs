//! `leveret-sim`: runs the simulation of one seed, or of one after the other for a while.

use leveret_sim::random::Random;
use leveret_sim::trace;
use leveret_sim::world::World;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What to run.
struct Wish {
    seed: Option<u64>,
    steps: u64,
    seconds: u64,
    shows_trace: bool,
}

fn main() -> ExitCode {
    let wish = match wish(env::args().skip(1)) {
        Ok(wish) => wish,
        Err(why) => {
            say(&format!("{why}\nusage: leveret-sim [--seed N] [--steps M] [--seconds S] [--trace]"));
            return ExitCode::from(2);
        }
    };
    if wish.shows_trace {
        trace::show();
    }
    let started = Instant::now();
    let (mut runs, mut copies, mut deliveries, mut crashes) = (0, 0, 0, 0);
    // With a seed and a time, seeds from that one on; with a seed alone, that one.
    let mut seeds = match wish.seed {
        Some(seed) => seed,
        None => Random::new(u64::from(std::process::id())).draw() >> 24,
    };
    let first = seeds;
    let is_single = wish.seed.is_some() && wish.seconds == 0;
    loop {
        let counts = World::run(seeds, wish.steps);
        runs += 1;
        copies += counts.copies;
        deliveries += counts.deliveries;
        crashes += counts.crashes;
        if is_single || started.elapsed() >= Duration::from_secs(wish.seconds.max(1)) {
            break;
        }
        seeds += 1;
    }
    say(&format!(
        "{runs} runs of {} steps, {} steps in all, seeds {first} to {seeds}, in {} s: {copies} messages in queues, \
         {deliveries} deliveries, {crashes} crashes; the last trace is {:016x}",
        wish.steps,
        runs * wish.steps,
        started.elapsed().as_secs(),
        trace::hash()
    ));
    ExitCode::SUCCESS
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut wish = Wish { seed: None, steps: 20_000, seconds: 0, shows_trace: false };
    while let Some(flag) = arguments.next() {
        if flag == "--trace" {
            wish.shows_trace = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} wants a number"))?;
        let number = value.parse().map_err(|_| format!("{flag} wants a number, not {value}"))?;
        match &*flag {
            "--seed" => wish.seed = Some(number),
            "--steps" => wish.steps = number,
            "--seconds" => wish.seconds = number,
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(wish)
}

fn say(text: &str) {
    // Where nobody listens there is nobody to tell.
    let _closed = writeln!(io::stderr(), "{text}");
}
