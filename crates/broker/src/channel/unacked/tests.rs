//! The list against a plain map of the same deliveries, and what it costs in memory.

use super::*;
use crate::command::{QueueId, ShardId};
use proptest::prelude::*;

/// One of several queues, whose seqs are far apart.
fn queue(number: u64) -> QueueRef {
    QueueRef { id: QueueId((number % 3) << 32 | number), shard: ShardId((number % 4) as u16) }
}

fn unacked(tag: u64) -> Unacked {
    Unacked { tag, queue: queue(1), seq: Seq(tag * 10), by_get: tag.is_multiple_of(3) }
}

fn in_order(tag: u64) -> Unacked {
    Unacked { tag, queue: queue(1), seq: Seq(1_000_000_000 + tag), by_get: false }
}

/// As consumers of 1,000 queues are served, one after the other.
fn round_robin(tag: u64) -> Unacked {
    let number = tag % 1000;
    Unacked { tag, queue: queue(number), seq: Seq(number * 7_919_317 + tag / 1000), by_get: false }
}

fn list_of(tags: impl IntoIterator<Item = u64>, delivery: fn(u64) -> Unacked) -> UnackedList {
    let mut list = UnackedList::default();
    tags.into_iter().for_each(|tag| list.push(delivery(tag)));
    list
}

impl Packed {
    /// What it keeps on the heap, from above: a node of the tree may be half full, and an allocation costs 16 bytes.
    fn heap_bytes(&self) -> usize {
        let places = if self.blocks.is_empty() { 0 } else { 11 + self.blocks.len() * 2 };
        places * size_of::<(u64, Block)>()
            + self.blocks.values().map(|block| block.bytes.len() + 16).sum::<usize>()
            + self.open.iter().map(|runs| runs.capacity() * size_of::<Run>() + 16).sum::<usize>()
            + self.open.capacity() * size_of::<VecDeque<Run>>()
            + self.sources.capacity() * size_of::<Source>()
            + self.by_queue.capacity() * 8 / 7 * (size_of::<(QueueRef, u32)>() + 1)
            + self.free.capacity() * size_of::<u32>()
    }
}

impl UnackedList {
    fn heap_bytes(&self) -> usize {
        self.packed.heap_bytes() + self.recent.capacity() * size_of::<(u64, Option<Place>)>()
    }

    fn bytes_each(&self) -> f64 {
        self.heap_bytes() as f64 / self.len() as f64
    }

    /// Checks what must always hold, and gives what is in it.
    fn check(&self) -> Vec<Unacked> {
        let packed = &self.packed;
        let mut blocks: Vec<_> = packed
            .blocks
            .iter()
            .map(|(first_tag, block)| {
                let runs = block.unpack(*first_tag, &packed.sources);
                assert_eq!(runs.len(), block.runs as usize);
                assert_eq!(runs.first().map(|run| run.tag), Some(*first_tag));
                runs
            })
            .chain(packed.open.iter().map(|runs| runs.iter().copied().collect()))
            .collect();
        blocks.sort_by_key(|runs| runs[0].tag);
        assert!(blocks.iter().all(|runs| runs.len() <= RUNS_MAX));
        assert!(blocks.iter().all(|runs| !runs.is_empty()) && packed.open.len() <= OPEN_MAX);
        let runs = blocks.concat();
        assert!(runs.iter().all(|run| run.count > 0));
        assert!(runs.windows(2).all(|pair| pair[0].last_tag() < pair[1].tag));
        assert_eq!(packed.len as u64, runs.iter().map(|run| run.count).sum::<u64>());
        assert_eq!(packed.by_get as u64, runs.iter().filter(|run| run.by_get).map(|run| run.count).sum::<u64>());
        for (at, source) in packed.sources.iter().enumerate() {
            let of_source = runs.iter().filter(|run| run.source as usize == at);
            assert_eq!(source.len, of_source.map(|run| run.count).sum::<u64>());
            assert_eq!(packed.free.contains(&(at as u32)), source.len == 0);
            assert_eq!(packed.by_queue.get(&source.queue) == Some(&(at as u32)), source.len > 0);
        }
        assert!(self.recent.len() <= RECENT_MAX);
        assert_eq!(self.recent.iter().filter(|(_, place)| place.is_none()).count(), self.holes);
        assert!(self.recent.front().is_none_or(|(_, place)| place.is_some()));
        assert!(self.recent.back().is_none_or(|(_, place)| place.is_some()));

        let each = |run: &Run| {
            (0..run.count)
                .map(|at| {
                    let mut run = *run;
                    run.split_off(at).first(&packed.sources)
                })
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = runs.iter().flat_map(each).chain(self.recent.iter().copied().filter_map(present)).collect();
        assert!(all.windows(2).all(|pair| pair[0].tag < pair[1].tag));
        assert_eq!(self.len(), all.len());
        assert_eq!(self.consumed(), all.iter().filter(|unacked| !unacked.by_get).count());
        all
    }
}

#[test]
fn one_that_is_never_settled_costs_only_itself() {
    let mut list = UnackedList::default();
    for tag in 1..=100_000 {
        list.push(unacked(tag));
        assert!(tag == 1 || list.take(tag) == Some(unacked(tag)));
    }
    assert_eq!(list.len(), 1);
    assert!(list.recent.len() < 100, "{}", list.recent.len());
}

#[test]
fn a_hole_is_not_outstanding() {
    let mut list = list_of(1..=3, unacked);
    assert!(list.take(2).is_some());
    assert_eq!(list.take(2), None);
    assert!(list.take_through(2).is_none());
    assert!(list.take_through(4).is_none());
    assert_eq!(list.take_through(3).unwrap().collect::<Vec<_>>(), [unacked(1), unacked(3)]);
    assert_eq!(list.len(), 0);
}

#[test]
fn nor_is_a_packed_hole() {
    let mut list = list_of((1..=20_000).map(|at| at * 2), unacked);
    for tag in [0, 1, 7, 5_001, 9_999, 40_001, u64::MAX] {
        assert_eq!(list.take(tag), None, "{tag}");
        assert!(list.take_through(tag).is_none(), "{tag}");
    }
    assert_eq!(list.take(5_000), Some(unacked(5_000)));
    assert_eq!(list.take(5_000), None);
    assert!(list.take_through(5_000).is_none());
    assert_eq!(list.check().len(), 19_999);
}

#[test]
fn the_deliveries_of_one_queue_cost_next_to_nothing() {
    let mut list = list_of(1..=1_000_000, in_order);
    assert!(list.bytes_each() <= 1.0, "{}", list.bytes_each());
    (1..=1_000_000).step_by(2).for_each(|tag| assert_eq!(list.take(tag), Some(in_order(tag))));
    assert!(list.bytes_each() <= 4.0, "{}", list.bytes_each());
}

#[test]
fn the_deliveries_of_a_thousand_queues_cost_a_few_bytes_each() {
    let mut list = list_of(1..=1_000_000, round_robin);
    assert!(list.bytes_each() <= 10.0, "{}", list.bytes_each());
    (1..=1_000_000).step_by(2).for_each(|tag| assert_eq!(list.take(tag), Some(round_robin(tag))));
    assert!(list.bytes_each() <= 10.0, "{}", list.bytes_each());
}

#[test]
fn what_is_left_of_many_is_joined() {
    let mut list = list_of(1..=1_000_000, round_robin);
    let shuffled = |tag: &u64| tag.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) & 0xffff_ffff;
    let mut tags: Vec<_> = (1..=1_000_000).collect();
    tags.sort_unstable_by_key(shuffled);
    tags[..990_000].iter().for_each(|tag| assert_eq!(list.take(*tag), Some(round_robin(*tag))));
    assert_eq!(list.check().len(), 10_000);
    // The open blocks and the table of queues cost the same for any number.
    let each = (list.packed.heap_bytes() - 64 * 1024) as f64 / list.packed.len as f64;
    assert!(each <= 15.0, "{each}");
    for (at, tag) in tags[990_000..].iter().enumerate() {
        assert_eq!(list.take(*tag), Some(round_robin(*tag)));
        assert!(at % 100 > 0 || list.check().len() == 9_999 - at);
    }
}

#[test]
fn an_empty_list_keeps_no_more_than_a_window() {
    let mut list = list_of(1..=100_000, round_robin);
    (1..=100_000).rev().for_each(|tag| assert_eq!(list.take(tag), Some(round_robin(tag))));
    assert_eq!(list.check(), []);
    assert_eq!(list.heap_bytes(), 0);
    let mut list = list_of(1..=100_000, round_robin);
    assert_eq!(list.take_through(90_000).map(Iterator::count), Some(90_000));
    assert_eq!(list.take_all().count(), 10_000);
    assert_eq!(list.check(), []);
    assert_eq!(list.heap_bytes(), 0);
}

/// One step of a long run. Places are in 1/256 of all the tags there were.
#[derive(Clone, Debug)]
enum Step {
    Push { count: u16, queues: u64, gap: u64, gets: bool },
    Take { from: u8, count: u16, step: usize },
    TakeThrough { at: u8 },
    TakeAll,
    PutBack { every: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push =
        (1..2500u16, prop_oneof![Just(1u64), 2..6u64, Just(150)], prop_oneof![Just(1u64), 1..5u64, Just(1 << 33)])
            .prop_flat_map(|(count, queues, gap)| {
                any::<bool>().prop_map(move |gets| Step::Push { count, queues, gap, gets })
            });
    let take = (any::<u8>(), 1..1500u16, prop_oneof![Just(1usize), 2..4usize, Just(50)])
        .prop_map(|(from, count, step)| Step::Take { from, count, step });
    let step = prop_oneof![
        8 => push,
        8 => take,
        2 => any::<u8>().prop_map(|at| Step::TakeThrough { at }),
        1 => Just(Step::TakeAll),
        3 => (1..4usize).prop_map(|every| Step::PutBack { every }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_behaves_as_a_map_by_tag(steps in steps()) {
        let mut list = UnackedList::default();
        let mut model = BTreeMap::new();
        let mut taken: Vec<Unacked> = Vec::new();
        let mut last = 0;
        let mut seqs = [0u64; 150];
        for step in steps {
            match step {
                Step::Push { count, queues, gap, gets } => for at in 0..u64::from(count) {
                    last += if at % 7 == 0 { gap } else { 1 };
                    let number = (at * 31 + at / 9) % queues;
                    // Now and then a message that was given back comes again.
                    let seq = &mut seqs[number as usize];
                    *seq = if at % 97 == 96 { seq.saturating_sub(50) } else { *seq + 1 };
                    let by_get = gets && at % 5 == 0;
                    let unacked = Unacked { tag: last, queue: queue(number), seq: Seq(*seq), by_get };
                    list.push(unacked);
                    model.insert(last, unacked);
                },
                Step::Take { from, count, step } => {
                    let from = last / 256 * u64::from(from);
                    let some: Vec<_> = model.range(from..).step_by(step).take(count.into()).map(|(tag, _)| *tag).collect();
                    for tag in some {
                        let expected = model.remove(&tag);
                        prop_assert_eq!(list.take(tag), expected);
                        prop_assert_eq!(list.take(tag), None);
                        taken.extend(expected);
                    }
                }
                Step::TakeThrough { at } => {
                    let tag = last / 256 * u64::from(at);
                    let tag = model.range(tag..).next().map_or(tag, |(tag, _)| *tag);
                    let expected = model.contains_key(&tag).then(|| {
                        let rest = model.split_off(&(tag + 1));
                        std::mem::replace(&mut model, rest).into_values().collect::<Vec<_>>()
                    });
                    prop_assert_eq!(&list.take_through(tag).map(Iterator::collect::<Vec<_>>), &expected);
                    prop_assert!(list.take_through(tag).is_none());
                    taken.extend(expected.into_iter().flatten());
                }
                Step::TakeAll => {
                    let expected: Vec<_> = std::mem::take(&mut model).into_values().collect();
                    prop_assert_eq!(&list.take_all().collect::<Vec<_>>(), &expected);
                    taken.extend(expected);
                }
                Step::PutBack { every } => {
                    let back: Vec<_> = std::mem::take(&mut taken).into_iter().rev().step_by(every).collect();
                    model.extend(back.iter().map(|unacked| (unacked.tag, *unacked)));
                    list.put_back(back);
                }
            }
            prop_assert_eq!(list.check(), model.values().copied().collect::<Vec<_>>());
        }
        prop_assert_eq!(list.take_all().collect::<Vec<_>>(), model.into_values().collect::<Vec<_>>());
        prop_assert_eq!(list.check(), vec![]);
    }

    #[test]
    fn a_block_gives_back_its_runs(parts in proptest::collection::vec((gap(), gap(), 0..40u32, any::<u64>(), any::<bool>()), 1..64)) {
        let sources: Vec<_> = (0..40).map(|at| Source { queue: queue(at), base: at << 40, len: 0 }).collect();
        let mut tag = 0u64;
        let runs: Vec<_> = parts.into_iter().map(|(gap, count, source, seq, by_get)| {
            let run = Run { tag: tag + gap, seq, count: count + 1, source, by_get };
            tag = run.tag + run.count;
            run
        }).collect();
        prop_assert_eq!(Block::pack(&runs.iter().copied().collect(), &sources).unpack(runs[0].tag, &sources), runs);
    }
}

/// Small, or large.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), 0..5u64, 0..1u64 << 50]
}
