//! A thread that takes publishes from one socket and writes as many deliveries to another, and does nothing else: the
//! least that any broker has to do with the machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use amqp::method::basic;
use amqp::{ChannelId, content};
use anyhow::{Result, anyhow};
use bytes::BytesMut;
use hdrhistogram::Histogram;
use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};

use super::super::connection::Connection;
use super::super::consumer::Consumer;
use super::super::delivery::AckMode;
use super::super::drive::{Clock, Drive};
use super::super::figures::{cpu_us, new_histogram, rate};
use super::super::interrupt::Interrupt;
use super::super::link::Link;
use super::super::outcome::{Outcome, Unit};
use super::super::pace::Pace;
use super::super::producer::Producer;
use super::super::publish_batch::{BATCH_BYTES, PublishBatch, STAMP_BYTES};
use super::super::tally::{Counts, Over, Tally};

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// From a producer to nobody.
    Publish,
    /// From a producer to a consumer.
    Relay,
    /// The same, and an ack for each comes back.
    RelayAcked,
    /// From nobody to a consumer.
    Consume,
}

impl Path {
    pub(super) const ALL: [Self; 4] = [Self::Relay, Self::RelayAcked, Self::Publish, Self::Consume];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publish => "published to nobody",
            Self::Relay => "relayed",
            Self::RelayAcked => "relayed, each acked",
            Self::Consume => "consumed from nobody",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Relay => "relay",
            Self::RelayAcked => "relay_acked",
            Self::Consume => "consume",
        }
    }

    fn has_producer(self) -> bool {
        self != Self::Consume
    }

    fn has_consumer(self) -> bool {
        self != Self::Publish
    }
}

/// Messages of one size one way, as fast as they go.
pub(super) fn measure(path: Path, size: u32, seconds: u32, interrupt: &Interrupt, outcome: &mut Outcome) -> Result<()> {
    let batch = PublishBatch::new(QUEUE, size as usize, false, FRAME_MAX);
    let relayed = relay(path, batch, None, seconds, interrupt)?;
    let (key, name) = (format!("{}_{size}_per_s", path.key()), format!("{size} B {}", path.name()));
    outcome.add(&key, &name, rate(relayed.messages, relayed.time), Unit::PerSecond);
    let cpu = cpu_us(relayed.cpu, relayed.messages);
    outcome.add_known(&format!("{}_{size}_cpu_us", path.key()), "  CPU of the relay", cpu, Unit::CpuUs);
    Ok(())
}

/// How long messages take at 5,000 a second.
pub(super) fn measure_latency(seconds: u32, interrupt: &Interrupt, outcome: &mut Outcome) -> Result<()> {
    let batch = PublishBatch::new(QUEUE, 16, false, FRAME_MAX);
    let relayed = relay(Path::Relay, batch, Some(RATE), seconds, interrupt)?;
    for (key, name, share) in [("latency_p50_ns", "latency at 5,000/s, p50", 0.5), ("latency_p99_ns", "  p99", 0.99)] {
        outcome.add(key, name, relayed.latencies.value_at_quantile(share) as f64, Unit::Ns);
    }
    Ok(())
}

/// How long messages take at 500 a second while another producer, relay and consumer work at full speed: what of a broker's
/// latency beside other clients is the system's, which lends each thread a processor for a while.
pub(super) fn measure_neighbour(seconds: u32, interrupt: &Interrupt, outcome: &mut Outcome) -> Result<()> {
    let batch = || PublishBatch::new(QUEUE, 16, false, FRAME_MAX);
    let relayed = thread::scope(|scope| {
        let beside = scope.spawn(|| relay(Path::Relay, batch(), None, seconds + 1, interrupt));
        let relayed = relay(Path::Relay, batch(), Some(NEIGHBOUR_RATE), seconds, interrupt)?;
        beside.join().map_err(|_| anyhow!("a thread of the load died"))??;
        anyhow::Ok(relayed)
    })?;
    let name = "latency at 500/s beside a relay at full speed, p50";
    for (key, name, share) in [("beside_p50_ns", name, 0.5), ("beside_p99_ns", "  p99", 0.99)] {
        outcome.add(key, name, relayed.latencies.value_at_quantile(share) as f64, Unit::Ns);
    }
    Ok(())
}

struct Relayed {
    messages: u64,
    time: Duration,
    /// Of the relay alone.
    cpu: Duration,
    latencies: Histogram<u64>,
}

fn relay(path: Path, batch: PublishBatch, pace: Option<f64>, seconds: u32, interrupt: &Interrupt) -> Result<Relayed> {
    let message_bytes = batch.message_bytes();
    let size = batch.body_bytes();
    let (clock, over) = (Clock::start(), Over::default());
    let tallies = [Tally::default(), Tally::default()];
    let pair = || -> Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        far.set_nodelay(true)?;
        Ok((near, far))
    };
    let (producer_near, producer_far) = pair()?;
    let (consumer_near, consumer_far) = pair()?;
    let producer = Producer::new(Link::new(Connection::bare(producer_near)?), batch, u64::MAX, pace.is_some())
        .with_pace(pace.map(|rate| Pace::new(rate, clock.now_ns())));
    let ack = if path == Path::RelayAcked { AckMode::Each } else { AckMode::Auto };
    let from_ns = pace.map(|_| clock.now_ns());
    let consumer = Consumer::new(Link::new(Connection::bare(consumer_near)?), ack, from_ns);
    let died = |_| anyhow!("a thread of the load died");
    thread::scope(|scope| {
        let (clock, over, [published, consumed]) = (&clock, &over, &tallies);
        let producing = path
            .has_producer()
            .then(|| scope.spawn(move || Drive::new(vec![producer], clock)?.run(published, over).map(|_| ())));
        let consuming =
            path.has_consumer().then(|| scope.spawn(move || Drive::new(vec![consumer], clock)?.run(consumed, over)));
        let way = Way { path, message_bytes, size, is_stamped: pace.is_some() };
        let relaying = scope.spawn(move || way.run(producer_far, consumer_far, over));
        let (began, counts) = (Instant::now(), Counts::of(&tallies));
        // The run has no other end.
        let end = Duration::from_secs(seconds.into());
        while began.elapsed() < end && !interrupt.has_come() {
            wait(end.saturating_sub(began.elapsed()).min(LOOK));
        }
        let (time, counts) = (began.elapsed(), Counts::of(&tallies).since(counts));
        over.set();
        let relayed = relaying.join().map_err(died)?;
        if let Some(producing) = producing {
            producing.join().map_err(died)??;
        }
        let mut latencies = new_histogram()?;
        if let Some(consuming) = consuming {
            let (_, times) = consuming.join().map_err(died)??;
            latencies.add(times.latencies)?;
        }
        // Until here its sockets were open, so that neither client lost its peer.
        let (cpu, _sockets) = relayed?;
        let messages = if path.has_consumer() { counts.consumed } else { counts.published };
        Ok(Relayed { messages, time, cpu, latencies })
    })
}

/// What the relay knows of messages.
#[derive(Debug, Clone, Copy)]
struct Way {
    path: Path,
    /// What a publish takes.
    message_bytes: usize,
    /// What a body takes.
    size: usize,
    /// Whether the beginning of each body is to be kept.
    is_stamped: bool,
}

impl Way {
    /// Relays until the run is over; the processor time that took, and the sockets.
    fn run(self, mut from: TcpStream, mut to: TcpStream, over: &Over) -> Result<(Duration, [TcpStream; 2])> {
        from.set_read_timeout(Some(LOOK))?;
        to.set_write_timeout(Some(LOOK))?;
        let delivery = self.delivery();
        let deliveries = delivery.repeat((BATCH_BYTES / delivery.len()).max(1));
        let (mut room, mut kept, mut acks) = (vec![0; ROOM_BYTES], 0, vec![0; BATCH_BYTES]);
        let mut stamped = Vec::new();
        while !over.is_set() {
            let messages = if self.path.has_producer() {
                let read = match from.read(&mut room[kept..]) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if has_timed_out(&error) => continue,
                    Err(error) => return Err(error.into()),
                };
                let (messages, rest) = ((kept + read) / self.message_bytes, (kept + read) % self.message_bytes);
                if self.is_stamped {
                    stamped.clear();
                    for publish in room[..messages * self.message_bytes].chunks_exact(self.message_bytes) {
                        self.append_stamped(&delivery, publish, &mut stamped);
                    }
                }
                kept = rest;
                if self.is_stamped {
                    room.copy_within(messages * self.message_bytes..messages * self.message_bytes + rest, 0);
                }
                messages
            } else {
                deliveries.len() / delivery.len()
            };
            if self.path.has_consumer() {
                let mut octets = messages * delivery.len();
                while octets > 0 && !over.is_set() {
                    let piece = if self.is_stamped { &stamped } else { &deliveries[..octets.min(deliveries.len())] };
                    write_all(&mut to, piece, over)?;
                    octets -= piece.len();
                }
            }
            if self.path == Path::RelayAcked {
                while recv(&to, acks.as_mut_slice(), RecvFlags::DONTWAIT).is_ok_and(|(read, _)| read == acks.len()) {}
            }
        }
        let cpu = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        Ok((cpu, [from, to]))
    }

    fn delivery(self) -> BytesMut {
        let mut delivery = BytesMut::new();
        let deliver =
            basic::Deliver { consumer_tag: "c", delivery_tag: 1, redelivered: false, exchange: "", routing_key: QUEUE };
        deliver.encode(ChannelId(1), &mut delivery);
        content::encode_content(ChannelId(1), &[0, 0], &vec![0; self.size], FRAME_MAX, &mut delivery);
        delivery
    }

    fn append_stamped(self, delivery: &[u8], publish: &[u8], out: &mut Vec<u8>) {
        // The body and the octet after it end both, and bodies this small are one frame.
        let stamp_at = |message: &[u8]| message.len() - 1 - self.size;
        let at = out.len() + stamp_at(delivery);
        out.extend_from_slice(delivery);
        out[at..at + STAMP_BYTES].copy_from_slice(&publish[stamp_at(publish)..][..STAMP_BYTES]);
    }
}

fn write_all(to: &mut TcpStream, mut octets: &[u8], over: &Over) -> Result<()> {
    while !octets.is_empty() && !over.is_set() {
        match to.write(octets) {
            Ok(written) => octets = &octets[written..],
            Err(error) if has_timed_out(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn has_timed_out(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, which the user chose")]
fn wait(time: Duration) {
    thread::sleep(time);
}

/// As long as the names that a run gives its queues.
const QUEUE: &str = "leveret-bench-12345";

const FRAME_MAX: usize = 131_072;

const ROOM_BYTES: usize = 512 * 1024;

/// Messages per second of the latency.
const RATE: f64 = 5000.0;
const NEIGHBOUR_RATE: f64 = 500.0;

const LOOK: Duration = Duration::from_millis(20);
