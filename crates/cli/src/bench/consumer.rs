//! A connection that consumes: it receives, settles, and times messages that carry a timestamp.

use anyhow::Result;

use super::delivery::{AckMode, Acks, DeliveryReader};
use super::drive::{Client, Next, Turn};
use super::link::Link;

/// A consumer, and what it has seen.
#[derive(Debug)]
pub(super) struct Consumer {
    link: Link,
    reader: DeliveryReader,
    acks: Acks,
    /// How many octets of the acks have been sent.
    acks_sent: usize,
    /// From when on messages are timed, if they carry the time when they were due.
    stamped_from_ns: Option<u64>,
}

impl Consumer {
    /// A consumer on a connection that has begun to consume. It times messages that are stamped with this time or a later
    /// one, if there is one.
    pub(super) fn new(link: Link, ack: AckMode, stamped_from_ns: Option<u64>) -> Self {
        Self { link, reader: DeliveryReader::default(), acks: Acks::new(ack), acks_sent: 0, stamped_from_ns }
    }

    /// Its connection, and the octets of acks that were not sent.
    pub(super) fn into_rest(self) -> (Link, Vec<u8>) {
        (self.link, self.acks.octets()[self.acks_sent..].to_vec())
    }
}

impl Client for Consumer {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    #[inline]
    fn step(&mut self, turn: &mut Turn<'_>) -> Result<Next> {
        if self.link.is_readable {
            let Self { link, reader, acks, stamped_from_ns, .. } = self;
            let mut consumed = 0;
            match stamped_from_ns {
                None => link.read(turn.room, |octets, frame_max| {
                    reader.take(
                        octets,
                        frame_max,
                        |_| {},
                        |tag| {
                            consumed += 1;
                            acks.settle(tag);
                        },
                    )
                })?,
                Some(from_ns) => {
                    // All that one read brings has arrived by its end.
                    let mut read_ns = None;
                    let mut time = |body: &[u8]| {
                        let stamp_ns = body.first_chunk().copied().map_or(0, u64::from_be_bytes);
                        let now_ns = *read_ns.get_or_insert_with(|| turn.clock.now_ns());
                        if stamp_ns >= *from_ns {
                            turn.latencies.saturating_record(now_ns.saturating_sub(stamp_ns));
                        }
                    };
                    link.read(turn.room, |octets, frame_max| {
                        reader.take(octets, frame_max, &mut time, |tag| {
                            consumed += 1;
                            acks.settle(tag);
                        })
                    })?;
                }
            }
            turn.counts.consumed += consumed;
        }
        let unsent = &self.acks.octets()[self.acks_sent..];
        if !unsent.is_empty() && self.link.is_writable {
            self.acks_sent += self.link.send(unsent)?;
            if self.acks_sent == self.acks.octets().len() {
                self.acks.clear();
                self.acks_sent = 0;
            }
        }
        Ok(if self.link.is_readable { Next::Again } else { Next::News })
    }
}
