//! How one thread drives many connections: it waits for all their sockets at once, and gives each that can go on a turn.
//!
//! Sockets are watched edge-triggered, so that a connection costs a system call to wait only when it has nothing to do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::connection::TICK;
use super::figures::new_histogram;
use super::link::{Link, reading_room};
use super::tally::{Counts, Over, Tally};

/// A connection's part in a load.
pub(super) trait Client {
    /// Its connection.
    fn link(&mut self) -> &mut Link;

    /// Does what can be done without waiting, or a piece of it.
    fn step(&mut self, turn: &mut Turn<'_>) -> Result<Next>;
}

/// What a client has while it is its turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// To read into.
    pub(super) room: &'a mut [u8],
    /// What all clients of this thread have done.
    pub(super) counts: &'a mut Counts,
    /// How long the messages took that they have received, in ns.
    pub(super) latencies: &'a mut Histogram<u64>,
    /// The time when the turn began, on the run's clock.
    pub(super) now_ns: u64,
    /// When the thread woke up from its last sleep until a client's time.
    pub(super) woke_ns: u64,
    /// The run's clock.
    pub(super) clock: &'a Clock,
}

/// When a client wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// As soon as all others had theirs.
    Again,
    /// When its socket has news.
    News,
    /// At this time, or when its socket has news.
    At(u64),
    /// Never: it has done all it had to do.
    Done,
}

/// A run's clock: nanoseconds since it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time now.
    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// One of its times, for those who measure otherwise.
    pub(super) fn instant(&self, ns: u64) -> Instant {
        self.0 + Duration::from_nanos(ns)
    }
}

/// Clients that share a thread.
pub(super) struct Drive<'a, C> {
    clients: Vec<C>,
    clock: &'a Clock,
    poll: Poll,
    /// Those that can go on now, each once.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    /// When which client wants its turn, the next first.
    times: BinaryHeap<Reverse<(u64, usize)>>,
    /// Which time each client asked for last, so that it is noted once.
    asked_ns: Vec<u64>,
    /// How many are not done.
    left: usize,
    woke_ns: u64,
    times_taken: Times,
}

/// Times that a thread has taken, in ns.
#[derive(Debug)]
pub(super) struct Times {
    /// How long messages took.
    pub(super) latencies: Histogram<u64>,
    /// By how much its sleeps were too long.
    pub(super) oversleeps: Histogram<u64>,
}

impl<'a, C: Client> Drive<'a, C> {
    /// Watches the sockets of these clients.
    pub(super) fn new(mut clients: Vec<C>, clock: &'a Clock) -> Result<Self> {
        let poll = Poll::new()?;
        for (number, client) in clients.iter_mut().enumerate() {
            let socket = client.link().connection().socket();
            poll.registry().register(&mut SourceFd(&socket), Token(number), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(Self {
            clock,
            poll,
            ready: (0..clients.len()).collect(),
            is_ready: vec![true; clients.len()],
            times: BinaryHeap::new(),
            asked_ns: vec![NOT_ASKED; clients.len()],
            left: clients.len(),
            woke_ns: 0,
            times_taken: Times { latencies: new_histogram()?, oversleeps: new_histogram()? },
            clients,
        })
    }

    /// Gives turns until the run is over or all are done; the clients, and the times taken.
    pub(super) fn run(mut self, tally: &Tally, over: &Over) -> Result<(Vec<C>, Times)> {
        let (mut room, mut counts, mut events) = (reading_room(), Counts::default(), Events::with_capacity(EVENTS));
        sleep_precisely();
        while self.left > 0 && !over.is_set() {
            self.wait(&mut events)?;
            for _ in 0..self.ready.len() {
                let Some(number) = self.ready.pop_front() else { break };
                self.is_ready[number] = false;
                let now_ns = self.clock.now_ns();
                let mut turn = Turn {
                    room: &mut room,
                    counts: &mut counts,
                    latencies: &mut self.times_taken.latencies,
                    now_ns,
                    woke_ns: self.woke_ns,
                    clock: self.clock,
                };
                match self.clients[number].step(&mut turn)? {
                    Next::Again => self.make_ready(number),
                    Next::News => {}
                    Next::At(ns) if self.asked_ns[number] == ns => {}
                    Next::At(ns) => {
                        self.asked_ns[number] = ns;
                        self.times.push(Reverse((ns, number)));
                    }
                    Next::Done => self.left -= 1,
                }
            }
            tally.set(counts, self.clock.now_ns());
        }
        Ok((self.clients, self.times_taken))
    }

    fn make_ready(&mut self, number: usize) {
        if !std::mem::replace(&mut self.is_ready[number], true) {
            self.ready.push_back(number);
        }
    }

    /// Waits for news of a socket, for a client's time or for a tick, unless somebody is ready already.
    fn wait(&mut self, events: &mut Events) -> Result<()> {
        let timeout = match self.times.peek() {
            _ if !self.ready.is_empty() => Duration::ZERO,
            None => TICK,
            Some(&Reverse((due_ns, _))) => {
                let left = Duration::from_nanos(due_ns.saturating_sub(self.clock.now_ns()));
                // A poll may last until the end of its last millisecond: the rest is slept precisely.
                if left < POLL_MIN {
                    self.sleep_until(due_ns);
                    Duration::ZERO
                } else {
                    (left - POLL_MIN).min(TICK)
                }
            }
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            let number = event.token().0;
            let link = self.clients[number].link();
            link.is_readable |= event.is_readable() || event.is_error() || event.is_read_closed();
            link.is_writable |= event.is_writable();
            self.make_ready(number);
        }
        while let Some(&Reverse((due_ns, number))) = self.times.peek()
            && due_ns <= self.clock.now_ns()
        {
            self.times.pop();
            self.asked_ns[number] = NOT_ASKED;
            self.make_ready(number);
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "nothing is waited for but the time itself, and at most a few ms")]
    fn sleep_until(&mut self, due_ns: u64) {
        let left = due_ns.saturating_sub(self.clock.now_ns());
        if left > 0 {
            thread::sleep(Duration::from_nanos(left));
            self.woke_ns = self.clock.now_ns();
            self.times_taken.oversleeps.saturating_record(self.woke_ns.saturating_sub(due_ns));
        }
    }
}

/// Asks the system to end sleeps when they should end, and not up to 50 µs later to save wake-ups.
fn sleep_precisely() {
    #[cfg(target_os = "linux")]
    // Refused, it shows in the oversleeps.
    let _refused = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// The time of a client that waits for none.
const NOT_ASKED: u64 = u64::MAX;

/// How many sockets' news are taken at once.
const EVENTS: usize = 1024;

/// Polls are at least this long: they are counted in milliseconds.
const POLL_MIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::connection::Connection;
    use std::net::{TcpListener, TcpStream};

    /// Asks for the same time again and again.
    struct Stubborn {
        link: Link,
        turns: u32,
    }

    impl Client for Stubborn {
        fn link(&mut self) -> &mut Link {
            &mut self.link
        }

        fn step(&mut self, turn: &mut Turn<'_>) -> Result<Next> {
            self.turns += 1;
            turn.counts.published += 1;
            Ok(if self.turns < 10 { Next::At(1) } else { Next::Done })
        }
    }

    #[test]
    fn a_time_that_is_over_comes_at_once_as_often_as_it_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = || Stubborn { link: Link::new(Connection::bare(socket()).unwrap()), turns: 0 };
        let (clock, tally) = (Clock::start(), Tally::default());
        let drive = Drive::new(vec![client(), client()], &clock).unwrap();
        drive.run(&tally, &Over::default()).unwrap();
        assert_eq!(Counts::of(&[tally]).published, 20);
    }
}
