//! Messages through a broker: producers and consumers on a few threads, watched each second. What `throughput` and
//! `latency` have in common, and the parts of `suite`.

mod flags;
mod watch;

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use amqp::method::confirm;
use amqp::{Method, PropertyList};
use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::broker::Broker;
use super::connection::Connection;
use super::consumer::Consumer;
use super::cost::{Cost, Meter};
use super::delivery::AckMode;
use super::drive::{Client, Clock, Drive, Times};
use super::figures::{per_second, rate};
use super::interrupt::Interrupt;
use super::layout::{Layout, consume};
use super::link::Link;
use super::open_many::{open_many, raise_open_files};
use super::pace::Pace;
use super::producer::Producer;
use super::publish_batch::{BATCH_BYTES, PublishBatch, STAMP_BYTES};
use super::say;
use super::tally::{Counts, Over, Tally};
pub(super) use flags::Flags;
use watch::Watch;

/// A load that is about to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow<'a> {
    pub(super) flags: &'a Flags,
    /// Messages per second of each producer; without it they publish as fast as they can.
    pub(super) rate: Option<f64>,
    /// Whether messages carry the time when they were due.
    pub(super) is_stamped: bool,
}

impl Flow<'_> {
    /// Declares what it needs, runs, and deletes it again.
    pub(super) fn run(self, broker: &Broker, interrupt: &Interrupt) -> Result<Flowed> {
        let flags = self.flags;
        ensure!(flags.producers > 0 || flags.consumers > 0, "nothing to do: neither producers nor consumers");
        ensure!(
            !self.is_stamped || flags.size as usize >= STAMP_BYTES,
            "a timestamp takes {STAMP_BYTES} bytes of a body: give a --size of {STAMP_BYTES} or more"
        );
        flags.ack.check(flags.prefetch)?;
        let layout = Layout::open(&broker.url, &flags.layout)?;
        let ran = self.on(broker, &layout, interrupt);
        layout.close_or_say();
        ran
    }

    /// Runs on what is declared already.
    pub(super) fn on(self, broker: &Broker, layout: &Layout, interrupt: &Interrupt) -> Result<Flowed> {
        ensure!(
            !self.is_stamped || layout.messages() == 0,
            "the queue holds {} messages of other loads, whose latency cannot be told: purge it, or take another --queue",
            layout.messages()
        );
        raise_open_files();
        let clock = Clock::start();
        let consumers = self.open_consumers(broker, layout)?;
        let producers = self.open_producers(broker)?;
        let meter = Meter::start(broker.processes.clone())?;
        let (from, from_ns) = (Instant::now(), clock.now_ns());
        let measured_from_ns = from_ns + self.flags.warm_up().as_nanos() as u64;
        let consumers = self.consumers(consumers, measured_from_ns);
        let producers = self.producers(producers, layout, from_ns);
        let threads = self.flags.threads();
        let (producers, consumers) = (spread(producers, threads), spread(consumers, threads));
        let tallies: Vec<Tally> = (0..producers.len() + consumers.len()).map(|_| Tally::default()).collect();
        let overs = [Over::default(), Over::default()];
        let (failed, failures) = mpsc::channel();
        let (watched, produced, consumed) = thread::scope(|scope| {
            let [published, consumed] = &overs;
            let (producing_tallies, consuming_tallies) = tallies.split_at(producers.len());
            let clock = &clock;
            let consuming: Vec<_> = consumers
                .into_iter()
                .zip(consuming_tallies)
                .map(|(clients, tally)| {
                    let failed = failed.clone();
                    scope.spawn(move || drive(clients, clock, tally, consumed, &failed))
                })
                .collect();
            let producing: Vec<_> = producers
                .into_iter()
                .zip(producing_tallies)
                .map(|(clients, tally)| {
                    let failed = failed.clone();
                    scope.spawn(move || drive(clients, clock, tally, published, &failed))
                })
                .collect();
            drop(failed);
            let watch = Watch { flow: &self, tallies: &tallies, overs: &overs, failures: &failures, interrupt, layout };
            let watched = watch.run(broker, meter, from, clock);
            overs.iter().for_each(Over::set);
            let produced = producing.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
            (watched, produced, consuming.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>())
        });
        let mut flowed = watched?;
        // It may have failed at the very end.
        if let Ok(failure) = failures.try_recv() {
            return Err(failure);
        }
        for produced in produced {
            let (producers, times) = produced.map_err(|_| anyhow!(DIED))?.context(DIED)?;
            flowed.oversleeps.add(times.oversleeps)?;
            part(producers.into_iter().map(Producer::into_rest).collect());
        }
        for consumed in consumed {
            let (consumers, times) = consumed.map_err(|_| anyhow!(DIED))?.context(DIED)?;
            flowed.latencies.add(times.latencies)?;
            part(consumers.into_iter().map(Consumer::into_rest).collect());
        }
        layout.broker().clone_into(&mut flowed.broker);
        Ok(flowed)
    }

    fn open_consumers(&self, broker: &Broker, layout: &Layout) -> Result<Vec<Connection>> {
        let (flags, queues) = (self.flags, layout.queues());
        open_many(flags.consumers, |number| {
            let mut connection = Connection::open(&broker.url, &format!("leveret bench consumer {}", number + 1))?;
            // More queues than consumers: each has several. Fewer: each queue has several consumers.
            let own = every(queues, number, flags.consumers);
            consume(&mut connection, own, flags.ack == AckMode::Auto, flags.prefetch)?;
            Ok(connection)
        })
    }

    fn open_producers(&self, broker: &Broker) -> Result<Vec<Connection>> {
        open_many(self.flags.producers, |number| {
            let mut connection = Connection::open(&broker.url, &format!("leveret bench producer {}", number + 1))?;
            if self.flags.confirm > 0 {
                let select = Method::ConfirmSelect(confirm::Select { nowait: false });
                connection.call(&select, confirm::SelectOk::ID).context("the broker has no publisher confirms")?;
            }
            // A few connections have what the system gives them. Thousands would hold gigabytes that nobody has read.
            let share = UNREAD_BYTES / self.flags.producers as usize;
            if share < SEND_BUFFER_BYTES {
                connection.limit_unread(share.max(SEND_BUFFER_BYTES_MIN))?;
            }
            Ok(connection)
        })
    }

    fn consumers(&self, connections: Vec<Connection>, measured_from_ns: u64) -> Vec<Consumer> {
        let stamped_from_ns = self.is_stamped.then_some(measured_from_ns);
        let consumer = |connection| Consumer::new(Link::new(connection), self.flags.ack, stamped_from_ns);
        connections.into_iter().map(consumer).collect()
    }

    fn producers(&self, connections: Vec<Connection>, layout: &Layout, from_ns: u64) -> Vec<Producer> {
        let flags = self.flags;
        let producer = |(number, connection): (u32, Connection)| {
            let own: Vec<_> = every(layout.routes(), number, flags.producers).cloned().collect();
            let batch_bytes = BATCH_BYTES.min(BATCHES_BYTES / flags.producers.max(1) as usize);
            let (size, frame_max) = (flags.size as usize, connection.frame_max());
            let list = PropertyList { delivery_mode: flags.persistent.then_some(2), ..Default::default() };
            let batch = PublishBatch::to_routes(&own, size, &list, frame_max, batch_bytes);
            let messages = flags.messages.map_or(u64::MAX, |all| share(all, number.into(), flags.producers.into()));
            // Producers take turns within a period, rather than publish all at once.
            let pace = self.rate.map(|rate| {
                let offset = f64::from(number) / f64::from(flags.producers) / rate;
                Pace::new(rate, from_ns + (offset * 1e9) as u64)
            });
            Producer::new(Link::new(connection), batch, messages, self.is_stamped)
                .with_window(flags.confirm)
                .with_pace(pace)
        };
        (0..).zip(connections).map(producer).collect()
    }
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Flowed {
    /// What the broker says it is.
    pub(super) broker: String,
    /// While it was measured.
    pub(super) total: Counts,
    /// How long it was measured.
    pub(super) time: Duration,
    /// Of each second.
    pub(super) seconds: Vec<Rates>,
    pub(super) cost: Cost,
    /// How long messages took in ns, if they carried a timestamp and were due while it was measured.
    pub(super) latencies: Histogram<u64>,
    /// By how much this program slept too long, in ns.
    pub(super) oversleeps: Histogram<u64>,
    /// How many messages should have come and have not, if that can be told.
    pub(super) never_came: u64,
}

/// Messages per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub(super) published: f64,
    pub(super) confirmed: f64,
    pub(super) consumed: f64,
}

impl Rates {
    pub(super) fn new(counts: Counts, time: Duration) -> Self {
        Self {
            published: rate(counts.published, time),
            confirmed: rate(counts.confirmed, time),
            consumed: rate(counts.consumed, time),
        }
    }

    /// As an object.
    pub(super) fn json(self) -> Value {
        json!({"published": self.published, "confirmed": self.confirmed, "consumed": self.consumed})
    }

    fn line(self, flags: &Flags) -> String {
        let mut shown = Vec::new();
        if flags.producers > 0 {
            shown.push(format!("published {}", per_second(self.published)));
        }
        if flags.producers > 0 && flags.confirm > 0 {
            shown.push(format!("confirmed {}", per_second(self.confirmed)));
        }
        if flags.consumers > 0 {
            shown.push(format!("consumed {}", per_second(self.consumed)));
        }
        shown.join("  ")
    }
}

/// One thread's part of the run; why it failed goes to whoever watches.
fn drive<C: Client>(
    clients: Vec<C>,
    clock: &Clock,
    tally: &Tally,
    over: &Over,
    failed: &Sender<anyhow::Error>,
) -> Option<(Vec<C>, Times)> {
    match Drive::new(clients, clock).and_then(|drive| drive.run(tally, over)) {
        Ok(ended) => Some(ended),
        Err(error) => {
            // Somebody else may have failed before, and nobody listens any more.
            let _unheard = failed.send(error);
            None
        }
    }
}

/// Ends connections: all say goodbye before any waits for its answer. What was measured stands, whatever comes of it.
fn part(links: Vec<(Link, Vec<u8>)>) {
    let deadline = Instant::now() + PARTING;
    let (mut parting, mut left) = (Vec::new(), Vec::new());
    for (link, rest) in links {
        let mut connection = link.into_connection();
        // A broker that reads nothing is not waited for by one connection after the other.
        let said = match Instant::now() < deadline {
            true => connection.write_all(&rest, || false).and_then(|()| connection.say_goodbye()),
            false => Err(anyhow!("the broker reads nothing")),
        };
        match said {
            Ok(()) => parting.push(connection),
            Err(error) => left.push(error),
        }
    }
    left.extend(parting.into_iter().filter_map(|connection| connection.await_close(deadline).err()));
    if let Some(first) = left.first() {
        say(&format!("{} connections did not close cleanly, the first since: {first:#}", left.len()));
    }
}

/// Clients dealt out to `threads` threads, or fewer if there are not so many.
fn spread<C>(clients: Vec<C>, threads: usize) -> Vec<Vec<C>> {
    let threads = threads.min(clients.len());
    let mut spread: Vec<Vec<C>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, client) in clients.into_iter().enumerate() {
        spread[number % threads].push(client);
    }
    spread
}

/// What number `number` of `count` takes when things are dealt out: several things each, or several to one thing.
fn every<T>(things: &[T], number: u32, count: u32) -> impl Iterator<Item = &T> {
    let (number, count, things_count) = (number as usize, count as usize, things.len().max(1));
    things.iter().skip(number % things_count).step_by(count.min(things_count).max(1))
}

/// The share of number `number` of `count` in `all`.
fn share(all: u64, number: u64, count: u64) -> u64 {
    all / count + u64::from(number < all % count)
}

const DIED: &str = "a thread of the load died";

/// How long connections may take to close, all together.
const PARTING: Duration = Duration::from_secs(10);

/// What the messages encoded ahead may take of the memory, of all producers.
const BATCHES_BYTES: usize = 64 << 20;

/// How much all producers may have written that is not read yet.
const UNREAD_BYTES: usize = 64 << 20;

/// What the system lets one have.
const SEND_BUFFER_BYTES: usize = 4 << 20;

const SEND_BUFFER_BYTES_MIN: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_dealt_out_so_that_none_is_left() {
        let dealt = |things: &[u32], count| {
            (0..count).map(|n| every(things, n, count).copied().collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(dealt(&[1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(dealt(&[1, 2], 5), [vec![1], vec![2], vec![1], vec![2], vec![1]]);
        assert_eq!((0..3).map(|n| share(11, n, 3)).collect::<Vec<_>>(), [4, 4, 3]);
        assert_eq!(spread(vec![1, 2, 3], 2), [vec![1, 3], vec![2]]);
        assert_eq!(spread(vec![1], 2), [vec![1]]);
    }
}
