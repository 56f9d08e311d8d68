//! `leveret bench connections`: how fast a broker opens connections, and what memory idle ones take of it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};

use super::broker_url::BrokerUrl;
use super::connection::Connection;
use super::figures::{megabytes, milliseconds, per_second, percentile, rate, table};
use super::processes::Processes;
use super::say;
use super::work::Target;

/// What the load looks like.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    target: Target,
    /// How many connections to open
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How long to hold them open before memory is looked at
    #[arg(long, value_name = "S", default_value_t = 1)]
    hold: u32,
}

/// Opens the connections, holds them and prints what they took.
pub(super) fn run(flags: &Flags) -> Result<()> {
    raise_open_files();
    let processes = flags.target.processes();
    let resident = || {
        processes.as_ref().map(Processes::footprint).transpose().map(|found| found.map(|found| found.resident_bytes))
    };
    let before = resident()?;
    let began = Instant::now();
    let (mut connections, opened_ns) = open_all(&flags.target.url, flags.count)?;
    let open_time = began.elapsed();
    say(&format!("{} connections are open", flags.count));
    wait(Duration::from_secs(flags.hold.into()));
    let after = resident()?;
    let broker = connections.first().map(|connection| connection.broker().to_owned()).unwrap_or_default();
    // All at once, so that thousands of goodbyes do not wait for each other.
    for connection in &mut connections {
        connection.say_goodbye().context("an idle connection was lost")?;
    }
    let measured = Measured { count: flags.count, open_time, opened_ns, before, after };
    flags.target.show(&measured.json(flags, &broker), &measured.table(flags, &broker))
}

/// The connections, and how long each took to open in ns, in ascending order.
fn open_all(url: &BrokerUrl, count: u32) -> Result<(Vec<Connection>, Vec<u64>)> {
    let threads = THREADS.min(count);
    let opened = thread::scope(|scope| {
        let open = |thread| {
            let numbers = (1..=count).filter(move |number| number % threads == thread);
            scope.spawn(move || numbers.map(|number| open_one(url, number)).collect::<Result<Vec<_>>>())
        };
        let opening: Vec<_> = (0..threads).map(open).collect();
        opening
            .into_iter()
            .map(|opening| opening.join().map_err(|_| anyhow!("a thread of the load died"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let (connections, mut opened_ns): (Vec<_>, Vec<_>) = opened.into_iter().flatten().unzip();
    opened_ns.sort_unstable();
    Ok((connections, opened_ns))
}

fn open_one(url: &BrokerUrl, number: u32) -> Result<(Connection, u64)> {
    let began = Instant::now();
    let mut connection = Connection::open(url, &format!("leveret bench idle {number}"))
        .with_context(|| format!("connection {number}"))?;
    connection.idle();
    Ok((connection, began.elapsed().as_nanos() as u64))
}

/// Each connection takes a file descriptor, and most systems give a process 1,024 unless it asks for more.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Refused, it shows when no more can be opened.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, which the user chose")]
fn wait(time: Duration) {
    thread::sleep(time);
}

/// What came of a run.
#[derive(Debug)]
struct Measured {
    count: u32,
    open_time: Duration,
    /// How long each took, in ascending order.
    opened_ns: Vec<u64>,
    /// The broker's memory without the connections.
    before: Option<u64>,
    /// And with them.
    after: Option<u64>,
}

impl Measured {
    /// What each connection takes of the broker's memory, in bytes.
    fn bytes_each(&self) -> Option<f64> {
        Some((self.after? as f64 - self.before? as f64) / f64::from(self.count))
    }

    fn table(&self, flags: &Flags, broker: &str) -> String {
        let mut rows = vec![
            vec!["open all".to_owned(), format!("{:.2} s", self.open_time.as_secs_f64())],
            vec!["rate".to_owned(), per_second(rate(self.count.into(), self.open_time))],
            vec!["open one, p50".to_owned(), milliseconds(percentile(&self.opened_ns, 0.5))],
            vec!["open one, p99".to_owned(), milliseconds(percentile(&self.opened_ns, 0.99))],
        ];
        if let (Some(before), Some(after), Some(each)) = (self.before, self.after, self.bytes_each()) {
            rows.push(vec!["memory before".to_owned(), megabytes(before)]);
            rows.push(vec!["memory with them".to_owned(), megabytes(after)]);
            rows.push(vec!["memory each".to_owned(), format!("{:.1} kB", each / 1e3)]);
        }
        format!("{broker} at {}, {} connections with a channel each\n{}", flags.target.url, self.count, table(&rows))
    }

    fn json(&self, flags: &Flags, broker: &str) -> Value {
        json!({
            "load": "connections",
            "broker": broker,
            "url": flags.target.url.to_string(),
            "connections": self.count,
            "open_seconds": self.open_time.as_secs_f64(),
            "per_second": rate(self.count.into(), self.open_time),
            "open_one_ns": {"p50": percentile(&self.opened_ns, 0.5), "p99": percentile(&self.opened_ns, 0.99)},
            "broker_resident_bytes": {"before": self.before, "after": self.after, "each": self.bytes_each()},
        })
    }
}

/// How many connections are opened at the same time.
const THREADS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_among_the_connections() {
        let mut measured = Measured {
            count: 1000,
            open_time: Duration::from_secs(1),
            opened_ns: Vec::new(),
            before: Some(5_000_000),
            after: Some(9_000_000),
        };
        assert_eq!(measured.bytes_each(), Some(4000.0));
        measured.before = None;
        assert_eq!(measured.bytes_each(), None);
    }
}
