//! Everything that can happen to a stream, beside a list of what was published.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a reader must get next, at the least, and what it has not settled.
#[derive(Debug)]
struct Reader {
    next: u64,
    prefetch: usize,
    held: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Act {
    Publish(u8),
    Consume { offset: u8, prefetch: u32 },
    Settle { which: u8, count: u8, how: u8 },
    Cancel(u8),
    Pass(u16),
    Delete(u8),
    Restart,
    Crash(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_u8..40).prop_map(Act::Publish),
        3 => (any::<u8>(), 1_u32..20).prop_map(|(offset, prefetch)| Act::Consume { offset, prefetch }),
        8 => (any::<u8>(), 1_u8..20, 0_u8..3).prop_map(|(which, count, how)| Act::Settle { which, count, how }),
        1 => any::<u8>().prop_map(Act::Cancel),
        2 => (0_u16..5000).prop_map(Act::Pass),
        1 => any::<u8>().prop_map(Act::Delete),
        1 => Just(Act::Restart),
        2 => (0_u8..20).prop_map(Act::Crash),
    ]
}

/// Messages by offset with their bodies, and what readers got, beside the shard.
struct Model {
    messages: BTreeMap<u64, String>,
    /// The same, and what was dropped.
    ever: BTreeMap<u64, String>,
    end: u64,
    /// No offset that was delivered is this or higher.
    seen: u64,
    crashes: u32,
    readers: BTreeMap<u32, Reader>,
    last_reader: u32,
}

impl Model {
    fn first(&self) -> u64 {
        self.messages.first_key_value().map_or(self.end, |(offset, _)| *offset)
    }

    /// Takes what was delivered, and checks that nobody missed anything.
    fn check(&mut self, world: &mut World) {
        let kept = world.view(1).ready as usize;
        while self.messages.len() > kept {
            self.messages.pop_first();
        }
        assert_eq!(self.messages.len(), kept);
        for (consumer, offset, body, handle) in reads(world) {
            let reader = self.readers.get_mut(&consumer).expect("it reads");
            assert!(offset >= reader.next, "offset {offset} again");
            assert_eq!(self.ever.get(&offset), Some(&body), "offset {offset}");
            self.seen = self.seen.max(offset + 1);
            assert!(self.messages.range(reader.next..offset).next().is_none(), "passed over before {offset}");
            reader.next = offset + 1;
            reader.held.push(handle);
            assert!(reader.held.len() <= reader.prefetch);
        }
        for (consumer, reader) in &self.readers {
            let is_full = reader.held.len() == reader.prefetch;
            let is_left = self.messages.range(reader.next..).next().is_some();
            assert!(
                is_full || !is_left,
                "consumer {consumer} waits at {} with {:?}",
                reader.next,
                self.messages.keys()
            );
        }
    }

    fn publish(&mut self, world: &mut World, count: u8) {
        // After a crash other messages may have the offsets of those that were lost.
        let body = |offset: u64| format!("{offset} {} {}", self.crashes, "x".repeat(offset as usize % 7));
        let new: Vec<_> = (self.end..self.end + u64::from(count)).map(|offset| (offset, body(offset))).collect();
        world.commands(9, new.iter().map(|(_, body)| publish(&[1], body)).collect());
        self.end += u64::from(count);
        self.ever.extend(new.clone());
        self.messages.extend(new);
    }

    fn apply(&mut self, act: Act, mut world: World) -> World {
        match act {
            Act::Publish(count) => self.publish(&mut world, count),
            Act::Consume { offset, prefetch } => {
                self.last_reader += 1;
                let (offset, next) = match offset {
                    0..60 => (Value::from("first"), self.first()),
                    60..100 => ("next".into(), self.end),
                    100..120 => ("last".into(), self.messages.last_key_value().map_or(self.end, |(last, _)| *last)),
                    _ => (Value::I64(offset.into()), offset.into()),
                };
                world.consume_as(u64::from(self.last_reader), reading(self.last_reader, prefetch, offset));
                let held = Vec::new();
                self.readers.insert(self.last_reader, Reader { next, prefetch: prefetch as usize, held });
            }
            Act::Settle { which, count, how } => {
                let which = self.readers.keys().nth(usize::from(which) % self.readers.len().max(1)).copied();
                if let Some(consumer) = which {
                    let held = &mut self.readers.get_mut(&consumer).unwrap().held;
                    let count = usize::from(count).min(held.len());
                    let how = [Settlement::Ack, Settlement::Requeue, Settlement::Discard][usize::from(how)];
                    let commands = held.drain(..count).map(|handle| settle(1, handle, how)).collect();
                    world.commands(u64::from(consumer), commands);
                }
            }
            Act::Cancel(which) => {
                let which = self.readers.keys().nth(usize::from(which) % self.readers.len().max(1)).copied();
                if let Some(consumer) = which {
                    self.readers.remove(&consumer);
                    let number = ConsumerNumber(consumer);
                    world.ask(u64::from(consumer), |call| Command::Cancel { call, queue: Q, consumer: number });
                }
            }
            Act::Pass(ms) => world.pass(ms.into()),
            Act::Delete(which) => {
                let which = self.messages.keys().nth(usize::from(which)).copied();
                if let Some(offset) = which {
                    self.messages.remove(&offset);
                    world.delete(offset);
                }
            }
            Act::Restart => {
                world.settle_down();
                let now = world.now;
                self.readers.clear();
                world = world.restart();
                world.now = now;
                world.settle_down();
            }
            Act::Crash(count) => {
                self.publish(&mut world, count);
                for (_, offset, body, _) in taken(&mut world) {
                    assert_eq!(self.ever.get(&offset), Some(&body), "offset {offset}");
                    self.seen = self.seen.max(offset + 1);
                }
                world = self.crash(world);
            }
        }
        self.check(&mut world);
        world
    }

    /// What was not durable yet is gone, as if it never was.
    fn crash(&mut self, world: World) -> World {
        let now = world.now;
        let mut world = world.restart();
        world.now = now;
        self.crashes += 1;
        self.readers.clear();
        self.end = world.shard.queues[world.shard.queue_slots[&Q]].next_seq().0 - 1;
        assert!(self.end >= self.seen, "what was delivered is there, or was dropped");
        self.messages.retain(|offset, _| *offset < self.end);
        self.ever.retain(|offset, _| *offset < self.end);
        world.consume_as(1, reading(u32::MAX, 10_000, "first"));
        let found: BTreeMap<u64, String> = reads(&mut world).into_iter().map(|read| (read.1, read.2)).collect();
        for (offset, body) in &found {
            assert_eq!(self.ever.get(offset), Some(body), "offset {offset} after a crash");
        }
        let lost = self.messages.keys().find(|offset| !found.contains_key(offset));
        // By its age or length.
        assert!(lost.is_none() || found.first_key_value().is_none_or(|(first, _)| lost < Some(first)), "{lost:?}");
        self.messages = found;
        let number = ConsumerNumber(u32::MAX);
        world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: number });
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_reader_misses_anything_that_is_there(
        acts in proptest::collection::vec(act(), 1..60),
        is_short in any::<bool>(),
        bytes_max in proptest::option::of(50_u64..2000),
        max_age_ms in proptest::option::of((1_u64..20).prop_map(|s| s * 1000)),
    ) {
        let mut world = if is_short { World::without_room() } else { World::new() };
        world.durable_queue(1, QueueSettings { bytes_max, max_age_ms, ..stream() });
        world.settle_down();
        let mut model = Model {
            messages: BTreeMap::new(),
            ever: BTreeMap::new(),
            end: 0,
            seen: 0,
            crashes: 0,
            readers: BTreeMap::new(),
            last_reader: 0,
        };
        for act in acts {
            world = model.apply(act, world);
        }
    }
}
