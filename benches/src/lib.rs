//! The hot paths of a message, each one that can be run over and over, for whoever counts something.
//!
//! A path is the real machines with the real log on a disk that is memory, and clients whose bytes are made beforehand:
//! nothing in it depends on time, chance or addresses. `cargo xtask instructions` counts what the processor executes
//! for a message of each, and how often the allocator is asked for memory. What the kernel, the runtime and the
//! other thread cost is not in it; `leveret bench` measures that.
#![forbid(unsafe_code)]

mod backlog;
mod broker;
mod decode;
mod drive;
mod flow;
mod wire;

/// Work that comes in rounds, about a read of the socket each.
pub trait Rounds {
    /// Does some of it, at least one message; says how many messages that was.
    fn round(&mut self) -> u64;
}

/// A hot path.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Its name.
    pub name: &'static str,
    /// Sets everything up.
    pub prepare: fn() -> Box<dyn Rounds>,
    /// How many messages it has to do before everything has its size, and how many are then counted.
    pub messages: (u64, u64),
}

/// Every hot path.
pub const PATHS: [Path; 18] = [
    path("decode", decode::prepare),
    path("publish-16-near", flow::publish_16).counted(2_000, 12_000),
    path("publish-16", flow::publish_16),
    path("publish-1k", flow::publish_1k),
    path("deliver-16", flow::deliver_16),
    path("deliver-16-single", flow::deliver_16_single).counted(1_000, 5_000),
    path("deliver-1k", flow::deliver_1k),
    path("ack-16", flow::ack_16),
    path("ack-1k", flow::ack_1k),
    path("confirm-1k", flow::confirm_1k),
    path("durable-work-1k", flow::durable_work_1k),
    path("backlog-near", backlog::near),
    path("backlog-near-ack", backlog::near_ack),
    path("backlog-far", backlog::far).counted(35_000, 30_000),
    path("backlog-far-ack", backlog::far_ack).counted(35_000, 30_000),
    path("topic-100k", flow::topic_100k),
    path("fanout-100", flow::fanout_100).counted(500, 500),
    path("queues-10k", flow::queues_10k).counted(20_000, 20_000),
];

const fn path(name: &'static str, prepare: fn() -> Box<dyn Rounds>) -> Path {
    Path { name, prepare, messages: (10_000, 20_000) }
}

impl Path {
    const fn counted(self, first: u64, counted: u64) -> Self {
        Self { messages: (first, counted), ..self }
    }

    /// Sets the path up, runs it until everything has its size, and gives the rest to `count`, with the number of
    /// messages that it should do.
    pub fn run<T>(&self, count: impl FnOnce(&mut dyn Rounds, u64) -> T) -> T {
        let mut rounds = (self.prepare)();
        let (first, counted) = self.messages;
        work(&mut *rounds, first);
        count(&mut *rounds, counted)
    }
}

/// Does at least so many messages; says how many.
pub fn work(rounds: &mut dyn Rounds, messages: u64) -> u64 {
    let mut done = 0;
    while done < messages {
        done += rounds.round();
    }
    done
}
