//! The deliveries of a channel that its client has not settled, by delivery tag.
//!
//! Nearly all are settled soon and nearly in order, so the recent ones stand in a window, plain and quick to take. A
//! client may also forget to settle, millions of times: what outlives the window is packed, so that it costs a few
//! bytes each, and next to nothing where one queue's deliveries follow one another.
//!
//! Packed deliveries are [`Run`]s in blocks, and a block is bytes, each run told by its difference from the one before
//! it. A few blocks are open, as plain runs: those where deliveries were taken or added of late.

use crate::command::{QueueRef, Seq};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque, btree_map};

#[cfg(test)]
mod tests;

/// Where an unacked delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unacked {
    pub(crate) tag: u64,
    pub(crate) queue: QueueRef,
    pub(crate) seq: Seq,
    /// By basic.get, and not by a consumer.
    pub(crate) by_get: bool,
}

/// Unacked deliveries in the order of their tags. One that is never settled costs its own size and nothing else,
/// however many come and go after it.
#[derive(Debug, Default)]
pub(crate) struct UnackedList {
    /// The older ones, all below the first of `recent`.
    packed: Packed,
    /// Ascending by tag; `None` where one in the middle was settled. The first and the last are never `None`.
    recent: VecDeque<(u64, Option<Place>)>,
    /// How many of `recent` are `None`.
    holes: usize,
    /// How many of `recent` are by basic.get.
    by_get: usize,
    /// The highest there was.
    last_tag: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    queue: QueueRef,
    seq: Seq,
    by_get: bool,
}

impl UnackedList {
    pub(crate) fn len(&self) -> usize {
        self.packed.len + self.recent.len() - self.holes
    }

    /// How many of them consumers have.
    pub(crate) fn consumed(&self) -> usize {
        self.len() - self.packed.by_get - self.by_get
    }

    /// Adds a delivery; its tag is the highest so far.
    pub(crate) fn push(&mut self, unacked: Unacked) {
        assert!(self.last_tag < unacked.tag, "tags only grow");
        self.last_tag = unacked.tag;
        if self.recent.len() >= RECENT_MAX {
            self.pack_older();
        }
        let Unacked { tag, queue, seq, by_get } = unacked;
        self.recent.push_back((tag, Some(Place { queue, seq, by_get })));
        self.by_get += usize::from(by_get);
    }

    /// Takes the one with this tag, if it is the oldest of those that came of late.
    pub(crate) fn take_first(&mut self, tag: u64) -> Option<Unacked> {
        let taken = self.recent.pop_front_if(|(first, _)| *first == tag).and_then(present)?;
        self.by_get -= usize::from(taken.by_get);
        if self.holes > 0 || self.recent.is_empty() {
            self.trim();
        }
        Some(taken)
    }

    /// Takes the one with this tag.
    pub(crate) fn take(&mut self, tag: u64) -> Option<Unacked> {
        let first = self.recent.front().map(|(first, _)| *first).filter(|first| *first <= tag);
        let taken = match first {
            Some(first) if first == tag => return self.take_first(tag),
            Some(_) => {
                let at = self.position(tag).ok()?;
                let place = self.recent[at].1.take()?;
                self.holes += 1;
                present((tag, Some(place)))?
            }
            None => return self.packed.take(tag),
        };
        self.by_get -= usize::from(taken.by_get);
        if self.holes > 0 || self.recent.is_empty() {
            self.trim();
        }
        Some(taken)
    }

    /// Takes all up to and including this tag, which must be outstanding itself (`None` otherwise).
    pub(crate) fn take_through(&mut self, tag: u64) -> Option<Taken> {
        if !self.is_recent(tag) {
            return Some(Taken { packed: Some(self.packed.take_through(tag)?), recent: Vec::new().into_iter() });
        }
        let at = self.position(tag).ok()?;
        self.recent[at].1?;
        let recent: Vec<_> = self.recent.drain(..=at).filter_map(present).collect();
        self.holes -= at + 1 - recent.len();
        self.by_get -= recent.iter().filter(|unacked| unacked.by_get).count();
        self.trim();
        Some(Taken { packed: self.packed.take_all(), recent: recent.into_iter() })
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> Taken {
        let recent: Vec<_> = self.recent.drain(..).filter_map(present).collect();
        self.holes = 0;
        self.by_get = 0;
        self.trim();
        Taken { packed: self.packed.take_all(), recent: recent.into_iter() }
    }

    /// Puts back what a transaction that was rolled back had taken.
    pub(crate) fn put_back(&mut self, taken: impl IntoIterator<Item = Unacked>) {
        let mut taken: Vec<_> = taken.into_iter().collect();
        taken.sort_unstable_by_key(|unacked| unacked.tag);
        for unacked in taken {
            if self.recent.len() >= RECENT_MAX {
                self.pack_older();
            }
            if self.is_recent(unacked.tag) || self.packed.len == 0 {
                self.put_back_recent(unacked);
            } else {
                self.packed.insert(unacked);
            }
        }
    }

    fn put_back_recent(&mut self, Unacked { tag, queue, seq, by_get }: Unacked) {
        let entry = (tag, Some(Place { queue, seq, by_get }));
        match self.position(tag) {
            Ok(at) => {
                assert!(self.recent[at].1.is_none(), "it was taken");
                self.recent[at] = entry;
                self.holes -= 1;
            }
            Err(at) => self.recent.insert(at, entry),
        }
        self.by_get += usize::from(by_get);
    }

    fn is_recent(&self, tag: u64) -> bool {
        self.recent.front().is_some_and(|(first, _)| *first <= tag)
    }

    fn position(&self, tag: u64) -> Result<usize, usize> {
        let first = self.recent.front().map_or(0, |(first, _)| *first);
        // Most often no tag is missing.
        match self.recent.get(tag.wrapping_sub(first) as usize) {
            Some((there, _)) if *there == tag => Ok((tag - first) as usize),
            _ => self.recent.binary_search_by_key(&tag, |(tag, _)| *tag),
        }
    }

    fn pack_older(&mut self) {
        let before = self.packed.len;
        let by_get = self.packed.by_get;
        self.packed.append(self.recent.drain(..RECENT_MAX - RECENT_MIN).filter_map(present));
        self.holes -= RECENT_MAX - RECENT_MIN - (self.packed.len - before);
        self.by_get -= self.packed.by_get - by_get;
        self.trim();
    }

    /// Keeps the ends of the window whole, and its holes fewer than the rest.
    fn trim(&mut self) {
        while self.recent.pop_front_if(|(_, place)| place.is_none()).is_some() {
            self.holes -= 1;
        }
        while self.recent.pop_back_if(|(_, place)| place.is_none()).is_some() {
            self.holes -= 1;
        }
        if self.holes * 2 > self.recent.len() + HOLES_MIN {
            self.recent.retain(|(_, place)| place.is_some());
            self.holes = 0;
        }
        if self.recent.is_empty() && self.recent.capacity() > KEEP_CAPACITY {
            self.recent = VecDeque::new();
        }
    }
}

fn present((tag, place): (u64, Option<Place>)) -> Option<Unacked> {
    place.map(|Place { queue, seq, by_get }| Unacked { tag, queue, seq, by_get })
}

/// Deliveries that were taken together, ascending by tag.
#[derive(Debug)]
pub(crate) struct Taken {
    packed: Option<Box<TakenPacked>>,
    recent: std::vec::IntoIter<Unacked>,
}

impl Iterator for Taken {
    type Item = Unacked;

    fn next(&mut self) -> Option<Unacked> {
        if let Some(packed) = &mut self.packed {
            let next = packed.next();
            if next.is_some() {
                return next;
            }
            self.packed = None;
        }
        self.recent.next()
    }
}

/// Packed deliveries that were taken; a block is unpacked when its turn comes.
#[derive(Debug)]
struct TakenPacked {
    /// What is unpacked, the next one first.
    runs: std::vec::IntoIter<Run>,
    blocks: btree_map::IntoIter<u64, Block>,
    /// The first runs of the block that was taken in part, after all of `blocks`.
    part: Vec<Run>,
    sources: Vec<Source>,
}

impl Iterator for TakenPacked {
    type Item = Unacked;

    fn next(&mut self) -> Option<Unacked> {
        while self.runs.as_slice().is_empty() {
            self.runs = match self.blocks.next() {
                Some((first_tag, block)) => block.unpack(first_tag, &self.sources).into_iter(),
                None if self.part.is_empty() => return None,
                None => std::mem::take(&mut self.part).into_iter(),
            };
        }
        let run = self.runs.as_mut_slice().first_mut()?;
        let first = run.first(&self.sources);
        if run.count > 1 {
            *run = run.split_off(1);
        } else {
            self.runs.next();
        }
        Some(first)
    }
}

/// Deliveries whose tags and seqs follow one another without a gap, and that are alike in all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    tag: u64,
    seq: u64,
    /// Never 0.
    count: u64,
    source: u32,
    by_get: bool,
}

impl Run {
    fn last_tag(&self) -> u64 {
        self.tag + (self.count - 1)
    }

    fn first(&self, sources: &[Source]) -> Unacked {
        let Self { tag, seq, source, by_get, .. } = *self;
        Unacked { tag, queue: sources[source as usize].queue, seq: Seq(seq), by_get }
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        self.tag.wrapping_add(self.count) == next.tag
            && self.seq.wrapping_add(self.count) == next.seq
            && self.source == next.source
            && self.by_get == next.by_get
    }

    /// Keeps its first `count`, and gives the others.
    fn split_off(&mut self, count: u64) -> Self {
        let rest =
            Self { tag: self.tag + count, seq: self.seq.wrapping_add(count), count: self.count - count, ..*self };
        self.count = count;
        rest
    }
}

/// A queue that packed deliveries come from. Runs name it by its position among the list's sources.
#[derive(Clone, Copy, Debug)]
struct Source {
    queue: QueueRef,
    /// A seq near those of its deliveries: that of the first of them. It stays while there are any.
    base: u64,
    /// How many of its deliveries are packed; a source without any is free for another queue.
    len: u64,
}

/// The packed deliveries.
#[derive(Debug, Default)]
struct Packed {
    /// By the tag of their first delivery. Blocks do not overlap.
    blocks: BTreeMap<u64, Block>,
    /// The open blocks, which are not in `blocks`, the last opened last. None is empty or longer than `RUNS_MAX`.
    open: Vec<VecDeque<Run>>,
    sources: Vec<Source>,
    by_queue: FxHashMap<QueueRef, u32>,
    free: Vec<u32>,
    /// The source of the delivery that came last.
    last_source: u32,
    /// How many deliveries, not runs.
    len: usize,
    by_get: usize,
}

/// Some runs, packed.
#[derive(Debug)]
struct Block {
    runs: u32,
    bytes: Box<[u8]>,
}

impl Packed {
    /// Adds deliveries, ascending and above all that are there.
    fn append(&mut self, deliveries: impl Iterator<Item = Unacked>) {
        let mut block = self.open_block(u64::MAX);
        for unacked in deliveries {
            let run = self.run_of(unacked);
            let at = block.unwrap_or_else(|| self.open_new());
            block = Some(at);
            let runs = &mut self.open[at];
            match runs.back_mut() {
                Some(last) if last.is_followed_by(&run) => last.count += 1,
                _ => {
                    if runs.len() == RUNS_MAX {
                        keep(runs, &self.sources, &mut self.blocks);
                    }
                    runs.push_back(run);
                }
            }
        }
    }

    /// Adds one where it belongs.
    fn insert(&mut self, unacked: Unacked) {
        let run = self.run_of(unacked);
        let block = self.open_block(unacked.tag).unwrap_or_else(|| self.open_new());
        let runs = &mut self.open[block];
        let mut at = runs.partition_point(|run| run.tag < unacked.tag);
        runs.insert(at, run);
        if at > 0 && runs[at - 1].is_followed_by(&run) {
            runs.remove(at);
            at -= 1;
            runs[at].count += 1;
        }
        if let Some(next) = runs.get(at + 1).copied()
            && runs[at].is_followed_by(&next)
        {
            runs[at].count += next.count;
            runs.remove(at + 1);
        }
        self.halve_if_long(block);
    }

    fn take(&mut self, tag: u64) -> Option<Unacked> {
        let (block, at) = self.find(tag)?;
        let runs = &mut self.open[block];
        let before = tag - runs[at].tag;
        let mut one = if before > 0 { runs[at].split_off(before) } else { runs[at] };
        let rest = (one.count > 1).then(|| one.split_off(1));
        match (before > 0, rest) {
            (false, None) => drop(runs.remove(at)),
            (false, Some(rest)) => runs[at] = rest,
            (true, None) => {}
            (true, Some(rest)) => runs.insert(at + 1, rest),
        }
        if runs.is_empty() {
            self.open.remove(block);
        } else {
            self.halve_if_long(block);
        }
        let taken = one.first(&self.sources);
        self.forget(&one);
        self.rest_if_empty();
        Some(taken)
    }

    fn take_through(&mut self, tag: u64) -> Option<Box<TakenPacked>> {
        let (block, at) = self.find(tag)?;
        let sources = self.sources.clone();
        let mut rest = self.open.remove(block);
        let mut part: Vec<_> = rest.drain(..=at).collect();
        if let Some(last) = part.last_mut()
            && last.last_tag() > tag
        {
            rest.push_front(last.split_off(tag - last.tag + 1));
        }
        for mut runs in self.open.extract_if(.., |runs| runs[0].tag < tag) {
            keep(&mut runs, &sources, &mut self.blocks);
        }
        if !rest.is_empty() {
            self.open.push(rest);
        }
        let later = self.blocks.split_off(&tag);
        let blocks = std::mem::replace(&mut self.blocks, later);
        part.iter().for_each(|run| self.forget(run));
        for (first_tag, block) in &blocks {
            block.unpack(*first_tag, &sources).iter().for_each(|run| self.forget(run));
        }
        self.rest_if_empty();
        Some(Box::new(TakenPacked { runs: Vec::new().into_iter(), blocks: blocks.into_iter(), part, sources }))
    }

    /// `None` when there is nothing.
    fn take_all(&mut self) -> Option<Box<TakenPacked>> {
        if self.len == 0 {
            return None;
        }
        let Self { mut blocks, open, sources, .. } = std::mem::take(self);
        for mut runs in open {
            keep(&mut runs, &sources, &mut blocks);
        }
        let (runs, part) = (Vec::new().into_iter(), Vec::new());
        Some(Box::new(TakenPacked { runs, blocks: blocks.into_iter(), part, sources }))
    }

    /// Opens the block with this tag and says which it is and which of its runs has the tag.
    fn find(&mut self, tag: u64) -> Option<(usize, usize)> {
        let has_it = |runs: &VecDeque<Run>| {
            runs.front().is_some_and(|first| first.tag <= tag) && runs.back().is_some_and(|last| tag <= last.last_tag())
        };
        let block = match self.open.iter().rposition(has_it) {
            Some(block) => block,
            None => self.open_block(tag)?,
        };
        let runs = &self.open[block];
        let at = runs.partition_point(|run| run.last_tag() < tag);
        runs.get(at).is_some_and(|run| run.tag <= tag).then_some((block, at))
    }

    /// Opens the last block that begins at or before the tag, if there is one.
    fn open_block(&mut self, tag: u64) -> Option<usize> {
        let firsts = self.open.iter().enumerate().map(|(at, runs)| (runs[0].tag, at));
        let open = firsts.filter(|(first_tag, _)| *first_tag <= tag).max();
        let packed = self.packed_before(tag);
        if packed < open.map(|(first_tag, _)| first_tag) {
            return open.map(|(_, at)| at);
        }
        packed?;
        // First of all, as a block that is neither open nor packed could be joined across. It may join the one meant.
        let mut runs = self.room();
        let first_tag = self.packed_before(tag)?;
        self.blocks.remove(&first_tag)?.unpack_to(first_tag, &self.sources, &mut runs);
        self.open.push(runs);
        Some(self.open.len() - 1)
    }

    fn packed_before(&self, tag: u64) -> Option<u64> {
        self.blocks.range(..=tag).next_back().map(|(first_tag, _)| *first_tag)
    }

    /// Opens a block that its caller puts a run into: one below or above all others.
    fn open_new(&mut self) -> usize {
        let runs = self.room();
        self.open.push(runs);
        self.open.len() - 1
    }

    /// Room for one more open block; where there are many, the one that was opened first is packed for it.
    fn room(&mut self) -> VecDeque<Run> {
        if self.open.len() < OPEN_MAX {
            return VecDeque::with_capacity(RUNS_MAX + 1);
        }
        let mut runs = self.open.remove(0);
        self.join(&mut runs);
        keep(&mut runs, &self.sources, &mut self.blocks);
        runs
    }

    /// Makes a short block one with a neighbour that is packed.
    fn join(&mut self, runs: &mut VecDeque<Run>) {
        let Some(tag) = runs.front().map(|first| first.tag).filter(|_| runs.len() < RUNS_MIN) else { return };
        let is_next_to = |(first_tag, block): (&u64, &Block)| {
            let between = tag.min(*first_tag)..tag.max(*first_tag);
            let has_room = block.runs as usize + runs.len() <= JOINED_MAX;
            (has_room && !self.open.iter().any(|open| between.contains(&open[0].tag))).then_some(*first_tag)
        };
        let next = self.blocks.range(tag..).next().and_then(is_next_to);
        let neighbour = next.or_else(|| self.blocks.range(..tag).next_back().and_then(is_next_to));
        if let Some(first_tag) = neighbour
            && let Some(block) = self.blocks.remove(&first_tag)
        {
            block.unpack_to(first_tag, &self.sources, runs);
            runs.make_contiguous().sort_unstable_by_key(|run| run.tag);
        }
    }

    fn halve_if_long(&mut self, block: usize) {
        if self.open[block].len() > RUNS_MAX {
            let mut upper = self.open[block].split_off(RUNS_MAX / 2);
            keep(&mut upper, &self.sources, &mut self.blocks);
        }
    }

    /// Counts one more delivery.
    fn run_of(&mut self, Unacked { tag, queue, seq: Seq(seq), by_get }: Unacked) -> Run {
        self.len += 1;
        self.by_get += usize::from(by_get);
        let known = match self.sources.get(self.last_source as usize) {
            Some(last) if last.queue == queue && last.len > 0 => Some(self.last_source),
            _ => self.by_queue.get(&queue).copied(),
        };
        let source = known.unwrap_or_else(|| self.add_source(Source { queue, base: seq, len: 0 }));
        self.sources[source as usize].len += 1;
        self.last_source = source;
        Run { tag, seq, count: 1, source, by_get }
    }

    fn add_source(&mut self, source: Source) -> u32 {
        let at = match self.free.pop() {
            Some(at) => {
                self.sources[at as usize] = source;
                at
            }
            None => {
                self.sources.push(source);
                (self.sources.len() - 1) as u32
            }
        };
        self.by_queue.insert(source.queue, at);
        at
    }

    /// Counts what was taken.
    fn forget(&mut self, run: &Run) {
        let count = run.count as usize;
        self.len -= count;
        self.by_get -= if run.by_get { count } else { 0 };
        let source = &mut self.sources[run.source as usize];
        source.len -= run.count;
        if source.len == 0 {
            self.by_queue.remove(&source.queue);
            self.free.push(run.source);
        }
    }

    fn rest_if_empty(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }
}

/// Packs the runs and clears them.
fn keep(runs: &mut VecDeque<Run>, sources: &[Source], blocks: &mut BTreeMap<u64, Block>) {
    if let Some(first) = runs.front() {
        blocks.insert(first.tag, Block::pack(runs, sources));
    }
    runs.clear();
}

// --- a block's bytes ----------------------------------------------------------------------------------------------

/// What reading or writing a block has come to.
struct Cursor<'a> {
    sources: &'a [Source],
    /// The tag after the last run's.
    tag: u64,
    /// The last run's.
    source: u32,
    /// Sources of late, each with the seq after its last one. A source has one place where it can be.
    seqs: [(u32, u64); SEQS],
}

impl<'a> Cursor<'a> {
    fn new(first_tag: u64, sources: &'a [Source]) -> Self {
        Self { sources, tag: first_tag, source: 0, seqs: [(u32::MAX, 0); SEQS] }
    }

    /// The seq that the source's next run most likely has.
    fn expected_seq(&self, source: u32) -> u64 {
        match self.seqs[source as usize % SEQS] {
            (known, seq) if known == source => seq,
            _ => self.sources[source as usize].base,
        }
    }

    fn pass(&mut self, run: &Run) {
        self.tag = run.tag.wrapping_add(run.count);
        self.source = run.source;
        self.seqs[run.source as usize % SEQS] = (run.source, run.seq.wrapping_add(run.count));
    }
}

/// A run is a head byte and then what the head says, as varints, in this order:
///
/// ```text
/// bit 7..6  seq     0 the expected one, 1 past it by as much as the tag, 2 the difference (zigzag)
/// bit 5..4  source  0 the last run's, 1 the one after it, 2 the difference (zigzag)
/// bit 3..2  tag     past the expected one by 0, 1, 2, or 3 and more
/// bit 1     count   0 one, 1 two and more
/// bit 0     by_get
/// ```
impl Block {
    fn pack(runs: &VecDeque<Run>, sources: &[Source]) -> Self {
        let mut bytes = Vec::with_capacity(runs.len() * 4);
        let mut cursor = Cursor::new(runs.front().map_or(0, |first| first.tag), sources);
        for run in runs {
            let gap = run.tag - cursor.tag;
            let source = i64::from(run.source) - i64::from(cursor.source);
            let seq = run.seq.wrapping_sub(cursor.expected_seq(run.source));
            let short_gap = gap.min(3);
            let short_source = if let 0 | 1 = source { source as u8 } else { 2 };
            let short_seq = if seq == 0 { 0 } else { 2 - u8::from(seq == gap) };
            let many = u8::from(run.count > 1);
            bytes.push(short_seq << 6 | short_source << 4 | (short_gap as u8) << 2 | many << 1 | u8::from(run.by_get));
            if short_gap == 3 {
                put_varint(&mut bytes, gap - 3);
            }
            if short_source == 2 {
                put_varint(&mut bytes, zigzag(source));
            }
            if short_seq == 2 {
                put_varint(&mut bytes, zigzag(seq as i64));
            }
            if run.count > 1 {
                put_varint(&mut bytes, run.count - 2);
            }
            cursor.pass(run);
        }
        Self { runs: runs.len() as u32, bytes: bytes.into_boxed_slice() }
    }

    fn unpack(&self, first_tag: u64, sources: &[Source]) -> Vec<Run> {
        let mut runs = Vec::with_capacity(self.runs as usize);
        self.unpack_to(first_tag, sources, &mut runs);
        runs
    }

    fn unpack_to(&self, first_tag: u64, sources: &[Source], runs: &mut impl Extend<Run>) {
        let mut cursor = Cursor::new(first_tag, sources);
        let mut rest = self.bytes.iter();
        runs.extend(std::iter::from_fn(|| {
            let head = rest.next()?;
            let gap = match head >> 2 & 3 {
                3 => 3 + varint(&mut rest),
                short => u64::from(short),
            };
            let source = match head >> 4 & 3 {
                2 => (i64::from(cursor.source) + unzigzag(varint(&mut rest))) as u32,
                short => cursor.source + u32::from(short),
            };
            let seq = match head >> 6 {
                0 => 0,
                1 => gap,
                _ => unzigzag(varint(&mut rest)) as u64,
            };
            let seq = cursor.expected_seq(source).wrapping_add(seq);
            let count = if head & 2 == 0 { 1 } else { 2 + varint(&mut rest) };
            let run = Run { tag: cursor.tag + gap, seq, count, source, by_get: head & 1 == 1 };
            cursor.pass(&run);
            Some(run)
        }));
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn varint(bytes: &mut std::slice::Iter<'_, u8>) -> u64 {
    let mut number = 0;
    for (at, byte) in bytes.enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// Makes numbers near 0 small, those below it too.
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// So many of the window, holes included, are packed at once (`RECENT_MAX` - `RECENT_MIN`) when it is full.
const RECENT_MAX: usize = 2048;
const RECENT_MIN: usize = 1024;
/// Below this many, closing the holes is not worth the move.
const HOLES_MIN: usize = 32;
/// An empty window keeps room for this many and gives more back.
const KEEP_CAPACITY: usize = 1024;
/// Runs in a block: a block costs some 80 bytes besides them, and taking one delivery may pack them all anew.
const RUNS_MAX: usize = 64;
/// A block with fewer is joined with a neighbour, if the two are not more than `JOINED_MAX`.
const RUNS_MIN: usize = 16;
const JOINED_MAX: usize = 48;
/// Blocks that are open at most: what is settled together, out of order, is seldom in more.
const OPEN_MAX: usize = 16;
/// How many sources a block's reader remembers the seq of.
const SEQS: usize = 32;
