//! Which messages have their time when: an ordered set of times and positions, at a few bytes each.
//!
//! Positions that follow one another and have the same time are one [`Span`]. Spans stand in chunks, in order. Those
//! that were worked on last are open; the others are packed, each span saying only in what it differs from the one
//! before it. So work in a few places (the end, where most join; the front, where they leave) packs nothing. Work in other
//! places waits aside until there is so much of it that each chunk is opened for several pieces.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use store::{Seq, SeqRange};

/// Positions that follow one another, and their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Whatever its owner orders by; unix milliseconds here.
    pub(crate) at_ms: u64,
    /// The first position.
    pub(crate) seq: Seq,
    /// How many; at least one.
    pub(crate) count: u32,
}

/// See the module. `SPANS` is how many a chunk has, more or less.
#[derive(Debug, Default)]
pub(crate) struct Times<const SPANS: usize = 128> {
    /// By the first key of each; none is empty.
    chunks: BTreeMap<Key, Chunk>,
    /// The open ones, that worked on longest ago first.
    open: VecDeque<Key>,
    /// Work that waits, none of it in the first chunk: that is always as it should be.
    aside: BTreeMap<Key, Aside>,
    /// How many positions are in chunks.
    len: u64,
    /// The sum over packed chunks.
    packed_bytes: usize,
}

/// A time, and a position that breaks ties.
type Key = (u64, Seq);

/// What is to be done at a key: positions leave if they are there, and then some come.
#[derive(Clone, Copy, Debug)]
struct Aside {
    count: u32,
    leave: bool,
    come: bool,
}

#[derive(Debug)]
enum Chunk {
    Open(Vec<Span>),
    Packed { bytes: Box<[u8]>, spans: usize },
}

impl Span {
    /// The positions.
    pub(crate) fn range(&self) -> SeqRange {
        SeqRange { first: self.seq, last: Seq(self.end() - 1) }
    }

    fn key(&self) -> Key {
        (self.at_ms, self.seq)
    }

    fn end(&self) -> u64 {
        self.seq.0 + u64::from(self.count)
    }

    /// Takes the next span in if it continues this one.
    fn absorb(&mut self, next: &Self) -> bool {
        match self.count.checked_add(next.count) {
            Some(sum) if self.at_ms == next.at_ms && self.end() == next.seq.0 => {
                self.count = sum;
                true
            }
            _ => false,
        }
    }
}

impl<const SPANS: usize> Times<SPANS> {
    /// Chunks that have no more than this together are one.
    const JOINED_MAX: usize = SPANS * 3 / 4;

    /// About what this takes of the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let room = |key| match self.chunks.get(key) {
            Some(Chunk::Open(spans)) => spans.capacity() * size_of::<Span>(),
            _ => 0,
        };
        let open: usize = self.open.iter().map(room).sum();
        (open + self.packed_bytes + self.chunks.len() * CHUNK_BYTES + self.aside.len() * ASIDE_BYTES) as u64
    }

    /// The earliest span, or as much of it as is there in one piece.
    pub(crate) fn first(&self) -> Option<Span> {
        self.chunks.first_key_value()?.1.spans().next()
    }

    /// Adds positions of which none is here yet at that time.
    pub(crate) fn insert(&mut self, span: Span) {
        if !self.put_aside(span, false) {
            self.insert_now(span);
        }
        self.keep_up();
    }

    fn insert_now(&mut self, span: Span) {
        self.len += u64::from(span.count);
        let Some(first) = self.find(span.key()) else {
            self.chunks.insert(span.key(), Chunk::Open(vec![span]));
            return self.use_chunk(span.key());
        };
        let spans = self.open(first);
        let at = spans.partition_point(|other| other.key() < span.key());
        if at > 0 && spans[at - 1].absorb(&span) {
            if let Some(next) = spans.get(at).copied()
                && spans[at - 1].absorb(&next)
            {
                spans.remove(at);
            }
        } else if let Some(next) = spans.get(at).copied()
            && let mut joined = span
            && joined.absorb(&next)
        {
            spans[at] = joined;
        } else {
            spans.insert(at, span);
        }
        self.settle(first);
    }

    /// Adds many, in any order, and empties their list.
    pub(crate) fn extend(&mut self, spans: &mut Vec<Span>) {
        self.do_all();
        spans.sort_unstable_by_key(Span::key);
        let mut rest = &spans[..];
        while let [next, others @ ..] = rest {
            let Some(first) = self.find(next.key()) else {
                self.insert_now(*next);
                rest = others;
                continue;
            };
            // All of them that belong into this chunk, as far as it has room.
            let above = self.chunks.range((Bound::Excluded(first.max(next.key())), Bound::Unbounded)).next();
            let end = above.map(|(key, _)| *key);
            let chunk = self.open(first);
            let room = (SPANS * 2).saturating_sub(chunk.len() + 1).max(1);
            let belong = rest.iter().take(room).take_while(|span| end.is_none_or(|end| span.key() < end)).count();
            let (added, left) = rest.split_at(belong.max(1));
            chunk.extend_from_slice(added);
            chunk.sort_unstable_by_key(Span::key);
            chunk.dedup_by(|next, span| span.absorb(next));
            self.len += added.iter().map(|span| u64::from(span.count)).sum::<u64>();
            self.settle(first);
            rest = left;
        }
        *spans = Vec::new();
    }

    /// Takes positions of this time out, as many of them as are here.
    pub(crate) fn remove_range(&mut self, wanted: Span) {
        if !self.put_aside(wanted, true) {
            self.remove_now(wanted);
        }
        self.keep_up();
    }

    fn remove_now(&mut self, wanted: Span) {
        let (at_ms, mut from) = (wanted.at_ms, wanted.seq.0);
        while from < wanted.end() {
            let Some(first) = self.find((at_ms, Seq(from))) else { return };
            let spans = self.open(first);
            let next = spans.partition_point(|span| span.key() <= (at_ms, Seq(from)));
            let at = match next.checked_sub(1).and_then(|before| spans.get(before)) {
                Some(before) if before.at_ms == at_ms && before.end() > from => next - 1,
                _ => next,
            };
            let Some(span) = spans.get(at).copied() else {
                // It is in the next chunk, if anywhere.
                let next = self.chunks.range((at_ms, Seq(from))..).next().map(|(key, _)| *key);
                match next.filter(|(next_ms, seq)| *next_ms == at_ms && seq.0 < wanted.end()) {
                    Some((_, seq)) => from = seq.0,
                    None => return,
                }
                continue;
            };
            if span.at_ms != at_ms || span.seq.0 >= wanted.end() {
                return;
            }
            let (start, end) = (span.seq.0.max(from), span.end().min(wanted.end()));
            let before = Span { count: (start - span.seq.0) as u32, ..span };
            let after = Span { seq: Seq(end), count: (span.end() - end) as u32, ..span };
            spans.splice(at..=at, [before, after].into_iter().filter(|span| span.count > 0));
            self.len -= end - start;
            self.settle(first);
            from = end;
        }
    }

    /// Takes the earliest positions out: up to `count` of one span, and only before this time.
    pub(crate) fn pop_before(&mut self, before_ms: u64, count: u32) -> Option<Span> {
        let first = self.first().filter(|first| first.at_ms < before_ms && count > 0)?;
        let key = self.chunks.first_key_value().map(|(key, _)| *key)?;
        let taken = Span { count: first.count.min(count), ..first };
        let spans = self.open(key);
        if taken.count == first.count {
            spans.remove(0);
        } else {
            spans[0] = Span { seq: Seq(taken.end()), count: first.count - taken.count, ..first };
        }
        self.len -= u64::from(taken.count);
        self.settle(key);
        self.keep_up();
        Some(taken)
    }

    /// Whether this is done later, as no chunk is open for it. What waits for the same positions is done with before.
    fn put_aside(&mut self, span: Span, leave: bool) -> bool {
        let Some(first) = self.find(span.key()) else { return false };
        if let Some(waits) = self.aside.get_mut(&span.key())
            && waits.count == span.count
        {
            waits.come = !leave;
            // What came and leaves again was not there before it came.
            if !(waits.come || waits.leave) {
                self.aside.remove(&span.key());
            }
            return true;
        }
        if self.waits_for(span) {
            self.do_all();
            return false;
        }
        if self.open.contains(&first) || self.is_end(first) {
            return false;
        }
        self.aside.insert(span.key(), Aside { count: span.count, leave, come: !leave });
        true
    }

    /// Whether anything waits that is about some of these positions at this time.
    fn waits_for(&self, span: Span) -> bool {
        let (at_ms, end) = (span.at_ms, span.end());
        let mut before = self.aside.range(..(at_ms, Seq(end))).rev();
        before
            .next()
            .is_some_and(|((other_ms, seq), waits)| *other_ms == at_ms && seq.0 + u64::from(waits.count) > span.seq.0)
    }

    /// Whether this is the first chunk or the last one.
    fn is_end(&self, first: Key) -> bool {
        let ends = [self.chunks.first_key_value(), self.chunks.last_key_value()];
        ends.into_iter().flatten().any(|(key, _)| *key == first)
    }

    /// Does what waits if it is about the first chunk, and all of it if it is a lot.
    fn keep_up(&mut self) {
        if self.aside.len() > ASIDE_MIN.max(self.chunks.len() * ASIDE_A_CHUNK) {
            self.do_all();
        }
        while let Some((key, _)) = self.aside.first_key_value()
            && self.find(*key) == self.chunks.first_key_value().map(|(first, _)| *first)
            && let Some((key, waits)) = self.aside.pop_first()
        {
            self.do_now(key, waits);
        }
    }

    fn do_all(&mut self) {
        for (key, waits) in std::mem::take(&mut self.aside) {
            self.do_now(key, waits);
        }
    }

    fn do_now(&mut self, (at_ms, seq): Key, waits: Aside) {
        let span = Span { at_ms, seq, count: waits.count };
        if waits.leave {
            self.remove_now(span);
        }
        if waits.come {
            self.insert_now(span);
        }
    }

    /// The chunk that this key is in, or would be.
    fn find(&self, key: Key) -> Option<Key> {
        let below = self.chunks.range(..=key).next_back();
        below.or_else(|| self.chunks.first_key_value()).map(|(first, _)| *first)
    }

    /// Opens a chunk that there is.
    fn open(&mut self, first: Key) -> &mut Vec<Span> {
        if let Some(chunk) = self.chunks.get_mut(&first)
            && let Chunk::Packed { bytes, .. } = chunk
        {
            self.packed_bytes -= bytes.len();
            let mut spans = Vec::with_capacity(SPANS * 2);
            spans.extend(chunk.spans());
            *chunk = Chunk::Open(spans);
        }
        self.use_chunk(first);
        match self.chunks.get_mut(&first) {
            Some(Chunk::Open(spans)) => spans,
            _ => unreachable!("it is there, and was opened"),
        }
    }

    /// Notes that this chunk is worked on, and packs the one that was not for longest.
    fn use_chunk(&mut self, first: Key) {
        if self.open.back() == Some(&first) {
            return;
        }
        self.open.retain(|open| *open != first);
        self.open.push_back(first);
        if self.open.len() > OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.pack(oldest);
        }
    }

    /// Packs a chunk, and with it a packed neighbour if both are small.
    fn pack(&mut self, first: Key) {
        let Some(Chunk::Open(mut spans)) = self.chunks.remove(&first) else { return };
        let neighbour = |chunk: (&Key, &Chunk)| match chunk.1 {
            Chunk::Packed { spans: count, .. } if count + spans.len() <= Self::JOINED_MAX => Some(*chunk.0),
            _ => None,
        };
        let below = self.chunks.range(..first).next_back().and_then(neighbour);
        let above = || self.chunks.range(first..).next().and_then(neighbour);
        if let Some(key) = below.or_else(above)
            && let Some(chunk) = self.chunks.remove(&key)
        {
            if let Chunk::Packed { bytes, .. } = &chunk {
                self.packed_bytes -= bytes.len();
            }
            let at = if key < first { 0 } else { spans.len() };
            spans.splice(at..at, chunk.spans());
        }
        let Some(key) = spans.first().map(Span::key) else { return };
        let bytes = packed(&spans);
        self.packed_bytes += bytes.len();
        self.chunks.insert(key, Chunk::Packed { bytes, spans: spans.len() });
    }

    /// After work in an open chunk: it is where its first key says, not empty and not too long.
    fn settle(&mut self, first: Key) {
        let Some(Chunk::Open(spans)) = self.chunks.get_mut(&first) else { return };
        let upper = (spans.len() >= SPANS * 2).then(|| spans.split_off(SPANS));
        let key = spans.first().map(Span::key);
        if key != Some(first) {
            let chunk = self.chunks.remove(&first);
            self.open.retain(|open| *open != first);
            if let (Some(key), Some(chunk)) = (key, chunk) {
                self.chunks.insert(key, chunk);
                self.use_chunk(key);
            }
        }
        if let Some(upper) = upper
            && let Some(key) = upper.first().map(Span::key)
        {
            self.chunks.insert(key, Chunk::Open(upper));
            self.use_chunk(key);
        }
        if self.len == 0 {
            *self = Self { aside: std::mem::take(&mut self.aside), ..Self::default() };
        }
    }
}

impl Chunk {
    fn spans(&self) -> impl Iterator<Item = Span> {
        let (open, packed) = match self {
            Self::Open(spans) => (&spans[..], &[][..]),
            Self::Packed { bytes, .. } => (&[][..], &bytes[..]),
        };
        open.iter().copied().chain(Unpacked { rest: packed, before: SpanBefore::default() })
    }
}

/// Of the span before the one that is written or read: its time, and where it ended.
#[derive(Clone, Copy, Debug, Default)]
struct SpanBefore {
    at_ms: u64,
    end: u64,
}

/// ```text
/// (time's distance × 2 + has count) [seq's distance, signed] [count]
/// ```
///
/// Numbers are of variable length, and the distance of a position is from where the span before ended.
fn packed(spans: &[Span]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(spans.len() * SPAN_BYTES);
    let mut before = SpanBefore::default();
    for span in spans {
        let apart = u128::from(span.at_ms - before.at_ms) << 1 | u128::from(span.count > 1);
        put(&mut bytes, apart);
        let distance = span.seq.0.wrapping_sub(before.end) as i64;
        put(&mut bytes, u128::from((distance << 1 ^ distance >> 63) as u64));
        if span.count > 1 {
            put(&mut bytes, u128::from(span.count));
        }
        before = SpanBefore { at_ms: span.at_ms, end: span.end() };
    }
    bytes.as_slice().into()
}

fn put(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Unpacked<'a> {
    rest: &'a [u8],
    before: SpanBefore,
}

impl Unpacked<'_> {
    fn number(&mut self) -> Option<u128> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u128::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

impl Iterator for Unpacked<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let apart = self.number()?;
        let zigzag = self.number()? as u64;
        let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let count = if apart & 1 == 1 { self.number()? as u32 } else { 1 };
        let at_ms = self.before.at_ms.wrapping_add((apart >> 1) as u64);
        let span = Span { at_ms, seq: Seq(self.before.end.wrapping_add_signed(distance)), count };
        self.before = SpanBefore { at_ms, end: span.end() };
        Some(span)
    }
}

/// How many chunks are open: the end, the front, and some in between.
const OPEN_MAX: usize = 4;
/// About what a chunk takes beside its spans: its place in a tree whose nodes are half full, and the allocation.
const CHUNK_BYTES: usize = (size_of::<Key>() + size_of::<Chunk>()) * 2 + 16;
/// So much work waits for each chunk, on average, before all is done; …
const ASIDE_A_CHUNK: usize = 6;
/// … and so much in all where there are few chunks.
const ASIDE_MIN: usize = 16;
/// About what waits takes: a place in a tree whose nodes are two thirds full.
const ASIDE_BYTES: usize = (size_of::<Key>() + size_of::<Aside>()) * 3 / 2;
/// More than most spans take when they are packed.
const SPAN_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn span(at_ms: u64, seq: u64, count: u32) -> Span {
        Span { at_ms, seq: Seq(seq), count }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { at_ms: u64, seq: u64, count: u32 },
        Remove { at_ms: u64, seq: u64 },
        RemoveRange { at_ms: u64, seq: u64, count: u32 },
        Pop { before_ms: u64, count: u32 },
        Extend(Vec<(u64, u64)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = prop_oneof![4 => 0..20u64, 1 => Just(u64::MAX)];
        prop_oneof![
            6 => (at.clone(), 0..200u64, 1..4u32).prop_map(|(at_ms, seq, count)| Step::Insert { at_ms, seq, count }),
            2 => (at.clone(), 0..200u64).prop_map(|(at_ms, seq)| Step::Remove { at_ms, seq }),
            1 => (at, 0..200u64, 1..9u32).prop_map(|(at_ms, seq, count)| Step::RemoveRange { at_ms, seq, count }),
            1 => prop::collection::vec((0..20u64, 0..200u64), 0..40).prop_map(Step::Extend),
            2 => (0..25u64, 0..5u32).prop_map(|(before_ms, count)| Step::Pop { before_ms, count }),
        ]
    }

    fn apply<const N: usize>(times: &mut Times<N>, model: &mut BTreeSet<(u64, u64)>, step: Step) {
        match step {
            Step::Insert { at_ms, seq, count } => {
                if (seq..seq + u64::from(count)).all(|seq| !model.contains(&(at_ms, seq))) {
                    model.extend((seq..seq + u64::from(count)).map(|seq| (at_ms, seq)));
                    times.insert(span(at_ms, seq, count));
                }
            }
            Step::Remove { at_ms, seq } => {
                times.remove_range(span(at_ms, seq, 1));
                model.remove(&(at_ms, seq));
            }
            Step::RemoveRange { at_ms, seq, count } => {
                let is_left = |(at, taken): &(u64, u64)| *at != at_ms || !(seq..seq + u64::from(count)).contains(taken);
                model.retain(is_left);
                times.remove_range(span(at_ms, seq, count));
            }
            Step::Extend(pairs) => {
                let new: Vec<_> = pairs.into_iter().filter(|pair| model.insert(*pair)).collect();
                times.extend(&mut new.into_iter().map(|(at_ms, seq)| span(at_ms, seq, 1)).collect());
            }
            Step::Pop { before_ms, count } => {
                let popped = times.pop_before(before_ms, count);
                let first = model.first().filter(|(at_ms, _)| *at_ms < before_ms && count > 0);
                assert_eq!(popped.map(|span| (span.at_ms, span.seq.0)), first.copied());
                let popped = popped.into_iter().flat_map(|span| (0..span.count).map(move |more| (span, more)));
                for (span, more) in popped {
                    assert!(more < count && model.remove(&(span.at_ms, span.seq.0 + u64::from(more))));
                }
            }
        }
    }

    fn check<const N: usize>(times: &Times<N>, model: &BTreeSet<(u64, u64)>) {
        let spans = times.chunks.values().flat_map(|chunk| chunk.spans());
        let all = spans.flat_map(|span| (0..span.count).map(move |more| (span.at_ms, span.seq.0 + u64::from(more))));
        let mut all: BTreeSet<(u64, u64)> = all.collect();
        assert_eq!(times.len, all.len() as u64);
        for ((at_ms, seq), waits) in &times.aside {
            for pair in (0..u64::from(waits.count)).map(|more| (*at_ms, seq.0 + more)) {
                if waits.leave {
                    all.remove(&pair);
                }
                assert!(!waits.come || all.insert(pair));
            }
        }
        assert!(all.iter().eq(model));
        assert_eq!(times.first().map(|first| (first.at_ms, first.seq.0)), model.first().copied());
        let open: Vec<_> = times.chunks.iter().filter(|(_, chunk)| matches!(chunk, Chunk::Open(_))).collect();
        assert!(open.len() <= OPEN_MAX && open.iter().all(|(key, _)| times.open.contains(key)));
        assert_eq!(open.len(), times.open.len());
        let packed = times.chunks.values().map(|chunk| match chunk {
            Chunk::Packed { bytes, .. } => bytes.len(),
            Chunk::Open(_) => 0,
        });
        assert_eq!(times.packed_bytes, packed.sum::<usize>());
        for (key, chunk) in &times.chunks {
            assert_eq!(chunk.spans().next().map(|span| span.key()), Some(*key));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

        #[test]
        fn times_are_a_set_of_pairs(steps in prop::collection::vec(step(), 1..400)) {
            let (mut times, mut model) = (Times::<4>::default(), BTreeSet::new());
            for step in steps {
                apply(&mut times, &mut model, step);
                check(&times, &model);
            }
        }
    }

    #[test]
    fn a_time_takes_few_bytes() {
        const MESSAGES: u64 = 200_000;
        let mut same = Times::<128>::default();
        (0..MESSAGES).for_each(|seq| same.insert(span(1_700_000_000_000 + seq / 1000, seq, 1)));
        assert!(same.heap_bytes() < 50_000, "a thousand at a time are one: {} bytes", same.heap_bytes());
        let mut one_by_one = Times::<128>::default();
        (0..MESSAGES).for_each(|seq| one_by_one.insert(span(1_700_000_000_000 + seq, seq * 3, 1)));
        assert!(one_by_one.heap_bytes() < MESSAGES * 4, "{} bytes", one_by_one.heap_bytes());
        let mut any = Times::<128>::default();
        // A stride that is coprime to the count: every time once, in no order.
        (0..MESSAGES).for_each(|seq| any.insert(span(1_700_000_000_000 + seq * 77_773 % MESSAGES * 86, seq, 1)));
        assert!(any.heap_bytes() < MESSAGES * 9, "{} bytes", any.heap_bytes());
    }

    #[test]
    fn an_emptied_one_takes_nothing() {
        let mut times = Times::<4>::default();
        (0..1000).for_each(|seq| times.insert(span(seq * 7 % 100, seq, 1)));
        (0..1000).for_each(|seq| times.remove_range(span(seq * 7 % 100, seq, 1)));
        assert_eq!(times.heap_bytes(), 0);
        assert_eq!(times.first(), None);
    }
}
