//! The connections that use this shard, and their channels: what limits deliveries beyond a single queue.

use crate::command::{ConnectionEvent, ConnectionId, ConsumerNumber, Delivery, WINDOW_BYTES};
use crate::queue::{Holder, Queue};
use crate::shard::slots::Slot;
use amqp::ChannelId;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use store::Lsn;

/// A holder and its queue.
pub(crate) type HolderRef = (Slot<Queue>, Slot<Holder>);

/// A connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: ConnectionId,
    /// What it is told at the end of this step.
    pub(crate) events: Vec<ConnectionEvent>,
    /// How many events the last step that had any had for it: about so many come again.
    pub(crate) last_events: usize,
    pub(crate) channels: FxHashMap<ChannelId, Slot<Channel>>,
    pub(crate) consumers: FxHashMap<ConsumerNumber, HolderRef>,
    /// Consumers that wait for the window to open.
    pub(crate) waiting: VecDeque<HolderRef>,
    pub(crate) since_mark: SinceMark,
    undrained_bytes: u64,
    /// Sent a window full, and not yet half of it drained.
    is_over: bool,
}

/// What a connection published since its last `Command::Mark`.
#[derive(Debug)]
pub(crate) struct SinceMark {
    /// Publishes that count.
    pub(crate) confirms: u32,
    /// Which of those were refused.
    pub(crate) refused: Vec<u32>,
    /// What has to be durable.
    pub(crate) logged: Lsn,
}

impl Default for SinceMark {
    fn default() -> Self {
        Self { confirms: 0, refused: Vec::new(), logged: Lsn::ZERO }
    }
}

impl Peer {
    pub(crate) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            events: Vec::new(),
            last_events: 0,
            channels: FxHashMap::default(),
            consumers: FxHashMap::default(),
            waiting: VecDeque::new(),
            since_mark: SinceMark::default(),
            undrained_bytes: 0,
            is_over: false,
        }
    }

    /// Hands it a message for a consumer.
    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        self.undrained_bytes += delivery.window_bytes();
        self.is_over |= self.undrained_bytes >= WINDOW_BYTES;
        if self.events.is_empty() {
            self.events.reserve(self.last_events);
        }
        self.events.push(ConnectionEvent::Deliver(delivery));
    }

    /// `Command::Drained`; true if it may receive.
    pub(crate) fn drain(&mut self, bytes: u64) -> bool {
        self.undrained_bytes = self.undrained_bytes.saturating_sub(bytes);
        self.is_over &= self.undrained_bytes >= WINDOW_BYTES / 2;
        !self.is_over
    }

    /// It has to drain before it is sent more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// A channel, as far as this shard has to know.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) peer: Slot<Peer>,
    /// How many unacked messages its consumers may have together for one of them to get one more; 0 = any number.
    pub(crate) limit: u32,
    /// Those that count towards the limit.
    pub(crate) unacked: u32,
    pub(crate) holders: FxHashSet<HolderRef>,
    /// Who holds what was taken by `basic.get`.
    pub(crate) gets: FxHashMap<Slot<Queue>, Slot<Holder>>,
    /// Consumers that wait for the limit.
    pub(crate) waiting: VecDeque<HolderRef>,
    /// Its connection was told to close it.
    pub(crate) is_timed_out: bool,
}

impl Channel {
    pub(crate) fn new(id: ChannelId, peer: Slot<Peer>) -> Self {
        Self {
            id,
            peer,
            limit: 0,
            unacked: 0,
            holders: FxHashSet::default(),
            gets: FxHashMap::default(),
            waiting: VecDeque::new(),
            is_timed_out: false,
        }
    }

    /// Whether a consumer may get one more. One without acknowledgements waits as well, as in RabbitMQ, but what it
    /// gets takes no room.
    pub(crate) fn has_room(&self) -> bool {
        self.limit == 0 || self.unacked < self.limit
    }
}
