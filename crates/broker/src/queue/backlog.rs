//! The messages of a queue whose bodies are in the log only, by `seq`, at a few bytes each.
//!
//! Messages that follow one another and are alike are one [`Run`]. Runs stand in blocks, packed: each says only in what
//! it differs from the one before it. Two windows hold runs as they are, so that work in one place packs nothing: the
//! *tail*, where new messages join, and the *open* window, one block at the place that was last worked on (the front,
//! when messages leave from there). Everything in the tail is above all else. A block that is packed again joins a
//! neighbour if both are small, so that what is left of many is not many.

use super::block::Block;
use super::run::Run;
use std::collections::{BTreeMap, VecDeque, btree_map};
use store::{Lsn, Seq, SeqRange};

/// See the module. `BLOCK_RUNS` is how many runs a block has, more or less.
#[derive(Debug, Default)]
pub(crate) struct Backlog<const BLOCK_RUNS: usize = 128> {
    /// By the first seq of each.
    packed: BTreeMap<Seq, Block>,
    /// The block that would stand here in `packed`.
    open: Window,
    tail: Window,
    count: usize,
    /// The sum over `packed`.
    packed_bytes: usize,
}

impl<const BLOCK_RUNS: usize> Backlog<BLOCK_RUNS> {
    /// Blocks whose runs are no more than these, taken together, are one.
    const JOINED_RUNS_MAX: usize = BLOCK_RUNS * 3 / 4;
    /// An operation adds two runs at most, and the window still has no more room than for two blocks.
    const OPEN_RUNS_MAX: usize = BLOCK_RUNS * 2 - 2;

    pub(crate) const fn new() -> Self {
        let open = Window { runs: VecDeque::new() };
        Self { packed: BTreeMap::new(), open, tail: Window { runs: VecDeque::new() }, count: 0, packed_bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many runs that are.
    pub(crate) fn runs(&self) -> usize {
        self.open.runs.len() + self.tail.runs.len() + self.packed.values().map(|block| block.runs).sum::<usize>()
    }

    /// About what this takes of the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let windows = (self.open.runs.capacity() + self.tail.runs.capacity()) * size_of::<Run>();
        (windows + self.packed_bytes + self.packed.len() * BLOCK_BYTES) as u64
    }

    /// The run with the lowest message, or as much of it as is there in one piece.
    pub(crate) fn first(&self) -> Option<Run> {
        let packed = self.packed.first_key_value();
        match self.open.runs.front() {
            Some(open) if packed.is_none_or(|(seq, _)| open.seq < *seq) => Some(*open),
            _ => match packed {
                Some((seq, block)) => block.unpacked(*seq, *seq).next(),
                None => self.tail.runs.front().copied(),
            },
        }
    }

    pub(crate) fn first_seq(&self) -> Option<Seq> {
        let packed = self.packed.first_key_value().map(|(seq, _)| *seq);
        packed.into_iter().chain(self.open.first_seq()).min().or_else(|| self.tail.first_seq())
    }

    pub(crate) fn last_seq(&self) -> Option<Seq> {
        let packed = || self.packed.last_key_value().map(|(_, block)| block.last);
        self.tail.last_seq().or_else(|| packed().max(self.open.last_seq()))
    }

    /// Adds messages of which none is here yet; their neighbours may be.
    pub(crate) fn insert(&mut self, run: Run) {
        debug_assert!(run.count > 0, "a run has messages");
        self.count += run.count as usize;
        if self.tail.runs.back_mut().is_some_and(|last| last.absorb(&run)) {
            return;
        }
        if self.tail.runs.len() >= BLOCK_RUNS {
            let mut tail = std::mem::take(&mut self.tail);
            self.pack(&tail);
            tail.runs.clear();
            self.tail = tail;
        }
        if self.last_seq() < Some(run.seq) {
            self.tail.runs.push_back(run);
            return;
        }
        self.window(run.seq).put(run);
        self.keep_small(run.seq);
    }

    /// A message.
    pub(crate) fn get(&self, seq: Seq) -> Option<Run> {
        if self.tail.begins_by(seq) {
            return self.tail.get(seq);
        }
        if let Some(found) = self.open.get(seq) {
            return Some(found);
        }
        let (first, block) = self.packed.range(..=seq).next_back()?;
        if block.last < seq {
            return None;
        }
        block.unpacked(*first, seq).next()?.message(seq)
    }

    /// Takes a message out.
    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Run> {
        let mut found = None;
        let window = self.window(seq);
        window.take(SeqRange { first: seq, last: seq }, &mut |run| found = Some(run));
        let is_empty = window.runs.is_empty();
        self.count -= usize::from(found.is_some());
        self.clear_up(seq, is_empty);
        found
    }

    /// Takes the lowest message out.
    pub(crate) fn pop_first(&mut self) -> Option<Run> {
        let seq = self.first_seq()?;
        let window = self.window(seq);
        let run = window.runs.front_mut()?;
        let first = Run { count: 1, ..*run };
        if run.count > 1 {
            *run = run.split_off(1);
        } else {
            window.runs.pop_front();
        }
        let is_empty = window.runs.is_empty();
        self.count -= 1;
        if is_empty {
            self.clear_up(seq, true);
        }
        Some(first)
    }

    /// Takes out every message in the range, by seq.
    pub(crate) fn take_range(&mut self, range: SeqRange, each: &mut dyn FnMut(Run)) {
        let mut taken = 0;
        let mut each = |run: Run| {
            taken += run.count as usize;
            each(run);
        };
        self.window(range.first).take(range, &mut each);
        while let Some((first, block)) = self.packed.range(range.first..).next()
            && block.last <= range.last
        {
            let first = *first;
            self.unpack(first).runs.into_iter().for_each(&mut each);
        }
        if self.packed.range(range.first..=range.last).next().is_some() {
            self.window(range.last).take(range, &mut each);
        }
        // Nothing is left there if this began there.
        self.tail.take(range, &mut each);
        self.count -= taken;
        self.clear_up(range.first, self.open.runs.is_empty());
    }

    /// Every message from this seq on, as runs, by seq.
    pub(crate) fn range(&self, from: Seq) -> impl Iterator<Item = Run> {
        let open = self.open.first_seq().unwrap_or(Seq(u64::MAX));
        let start = self.packed.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let below = unpacked(self.packed.range(start.min(open)..open), from);
        let above = unpacked(self.packed.range(start.max(open)..), from);
        let all = below.chain(self.open.from(from)).chain(above).chain(self.tail.from(from));
        all.map(move |run| run.not_below(from))
    }

    /// Notes that a message's record is elsewhere now; false if the message is not here.
    pub(crate) fn move_to(&mut self, seq: Seq, lsn: Lsn) -> bool {
        let mut found = None;
        let window = self.window(seq);
        window.take(SeqRange { first: seq, last: seq }, &mut |run| found = Some(run));
        let Some(run) = found else { return false };
        window.put(Run { lsn, ..run });
        self.keep_small(seq);
        true
    }

    /// The window in which a message of this seq stands, or would; its block is opened for that.
    fn window(&mut self, seq: Seq) -> &mut Window {
        if self.tail.begins_by(seq) {
            return &mut self.tail;
        }
        if self.is_open(seq) {
            return &mut self.open;
        }
        self.close();
        let packed = self.packed.range(..=seq).next_back().or_else(|| self.packed.first_key_value());
        let Some(first) = packed.map(|(first, _)| *first) else { return &mut self.tail };
        self.open = self.unpack(first);
        &mut self.open
    }

    /// Whether no packed block is nearer to this seq, which is below the tail, than the open one.
    fn is_open(&self, seq: Seq) -> bool {
        let (Some(first), Some(last)) = (self.open.first_seq(), self.open.last_seq()) else { return false };
        match (first <= seq, seq <= last) {
            (true, true) => true,
            (true, false) => self.packed.range(last..=seq).next().is_none(),
            (false, _) => self.packed.first_key_value().is_none_or(|(lowest, _)| first < *lowest),
        }
    }

    /// Packs the open block, together with its neighbours if they are small.
    fn close(&mut self) {
        let Some(first) = self.open.first_seq() else { return };
        let below = self.packed.range(..first).next_back().map(|(first, block)| (*first, block.runs));
        let above = self.packed.range(first..).next().map(|(first, block)| (*first, block.runs));
        let mut window = std::mem::take(&mut self.open);
        if let Some((first, runs)) = below
            && runs + window.runs.len() <= Self::JOINED_RUNS_MAX
        {
            let mut joined = self.unpack(first);
            joined.extend(window);
            window = joined;
        }
        if let Some((first, runs)) = above
            && runs + window.runs.len() <= Self::JOINED_RUNS_MAX
        {
            let above = self.unpack(first);
            window.extend(above);
        }
        self.pack(&window);
    }

    /// After messages left, at `seq` among others; `emptied` says that their window has none any more.
    fn clear_up(&mut self, seq: Seq, emptied: bool) {
        if self.count == 0 {
            if self.tail.runs.capacity() > KEPT_RUNS || self.open.runs.capacity() > 0 {
                *self = Self::default();
            }
            return;
        }
        self.keep_small(seq);
        if emptied && self.open.runs.is_empty() {
            // The blocks around may be small enough to be one: an open one is joined when it is closed.
            let below = self.packed.range(..seq).next_back();
            if let (Some((first, below)), Some((_, above))) = (below, self.packed.range(seq..).next())
                && below.runs + above.runs <= Self::JOINED_RUNS_MAX
            {
                let first = *first;
                self.open = self.unpack(first);
            }
        }
    }

    /// Keeps the windows within their sizes after work at `seq`.
    fn keep_small(&mut self, seq: Seq) {
        if self.tail.runs.len() > BLOCK_RUNS {
            // It is worked on in its middle.
            self.close();
            self.open = std::mem::take(&mut self.tail);
        }
        if self.open.runs.len() > Self::OPEN_RUNS_MAX {
            let mut above = Window { runs: self.open.runs.split_off(BLOCK_RUNS) };
            if above.begins_by(seq) {
                std::mem::swap(&mut self.open, &mut above);
            }
            self.pack(&above);
        }
    }

    fn pack(&mut self, window: &Window) {
        let Some(first) = window.first_seq() else { return };
        let block = Block::pack(first, window.runs.iter());
        self.packed_bytes += block.bytes.len();
        self.packed.insert(first, block);
    }

    /// Takes a block out.
    fn unpack(&mut self, first: Seq) -> Window {
        let Some(block) = self.packed.remove(&first) else { return Window::default() };
        self.packed_bytes -= block.bytes.len();
        let mut runs = VecDeque::with_capacity(block.runs + SPARE_RUNS);
        runs.extend(block.unpacked(first, first));
        Window { runs }
    }
}

/// Some runs in order, to work on.
#[derive(Debug, Default)]
struct Window {
    runs: VecDeque<Run>,
}

impl Window {
    fn first_seq(&self) -> Option<Seq> {
        self.runs.front().map(|run| run.seq)
    }

    fn last_seq(&self) -> Option<Seq> {
        self.runs.back().map(Run::last_seq)
    }

    /// Has a message at or below `seq`.
    fn begins_by(&self, seq: Seq) -> bool {
        self.runs.front().is_some_and(|first| first.seq <= seq)
    }

    /// The place of the first run that ends at `seq` or later.
    fn position(&self, seq: Seq) -> usize {
        self.runs.partition_point(|run| run.last_seq() < seq)
    }

    fn get(&self, seq: Seq) -> Option<Run> {
        self.runs.get(self.position(seq))?.message(seq)
    }

    /// The runs from that which has `seq`, or the next one.
    fn from(&self, seq: Seq) -> impl Iterator<Item = Run> {
        self.runs.range(self.position(seq)..).copied()
    }

    /// Adds messages in their place.
    fn put(&mut self, run: Run) {
        let mut at = self.position(run.seq);
        debug_assert!(self.runs.get(at).is_none_or(|next| run.last_seq() < next.seq), "no message is here twice");
        if at > 0 && self.runs[at - 1].absorb(&run) {
            at -= 1;
        } else {
            self.runs.insert(at, run);
        }
        if let Some(next) = self.runs.get(at + 1).copied()
            && self.runs[at].absorb(&next)
        {
            self.runs.remove(at + 1);
        }
    }

    /// Adds what is above all that is here.
    fn extend(&mut self, above: Window) {
        for run in above.runs {
            if !self.runs.back_mut().is_some_and(|last| last.absorb(&run)) {
                self.runs.push_back(run);
            }
        }
    }

    /// Takes every message in the range.
    fn take(&mut self, range: SeqRange, each: &mut dyn FnMut(Run)) {
        let mut from = self.position(range.first);
        if let Some(run) = self.runs.get_mut(from)
            && run.seq < range.first
        {
            let rest = run.split_off((range.first.0 - run.seq.0) as u32);
            from += 1;
            self.runs.insert(from, rest);
        }
        let mut to = from;
        while let Some(run) = self.runs.get_mut(to)
            && run.seq <= range.last
        {
            if run.last_seq() > range.last {
                let rest = run.split_off((range.last.0 - run.seq.0 + 1) as u32);
                each(std::mem::replace(run, rest));
                break;
            }
            each(*run);
            to += 1;
        }
        self.runs.drain(from..to);
    }
}

fn unpacked(blocks: btree_map::Range<'_, Seq, Block>, from: Seq) -> impl Iterator<Item = Run> {
    blocks.flat_map(move |(first, block)| block.unpacked(*first, from))
}

/// About what a block takes beside its bytes: its place in a tree whose nodes are half full, and the allocation.
const BLOCK_BYTES: usize = (size_of::<Seq>() + size_of::<Block>()) * 2 + 16;
/// Room in an opened block, so that the first work there moves nothing.
const SPARE_RUNS: usize = 8;
/// An emptied tail keeps room for so many.
const KEPT_RUNS: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::block::run_before;
    use super::*;
    use proptest::prelude::*;

    /// Small blocks, so that few messages make many.
    type Small = Backlog<4>;

    fn single(seq: u64, lsn: u64) -> Run {
        Run { count: 1, lsn: Lsn::ZERO.plus(lsn), payload_bytes: 30, header_bytes: 14, ..run_before(Seq(seq)) }
    }

    fn each_message(run: Run) -> impl Iterator<Item = (Seq, Run)> {
        run.messages().map(|message| (message.seq, message))
    }

    /// What every backlog keeps to.
    fn check<const N: usize>(backlog: &Backlog<N>) {
        let blocks: Vec<(Seq, &Block)> = backlog.packed.iter().map(|(first, block)| (*first, block)).collect();
        for (first, block) in &blocks {
            let runs: Vec<Run> = block.unpacked(*first, *first).collect();
            assert_eq!(runs.len(), block.runs);
            assert_eq!(runs.first().map(|run| run.seq), Some(*first), "no block is empty, and each is found");
            assert_eq!(runs.last().map(Run::last_seq), Some(block.last));
            assert!(block.runs <= N * 2);
        }
        let open = backlog.open.first_seq();
        for pair in blocks.windows(2) {
            let is_between = open.is_some_and(|open| pair[0].0 < open && open < pair[1].0);
            assert!(is_between || pair[0].1.runs + pair[1].1.runs > N * 3 / 4, "two small blocks are one");
        }
        assert!(backlog.open.runs.len() <= N * 2 && backlog.tail.runs.len() <= N);
        assert_eq!(backlog.packed_bytes, blocks.iter().map(|(_, block)| block.bytes.len()).sum::<usize>());
        let runs: Vec<Run> = backlog.range(Seq(0)).collect();
        assert!(runs.iter().all(|run| run.count > 0));
        assert!(runs.windows(2).all(|pair| pair[0].last_seq() < pair[1].seq), "in order, nothing twice");
        assert_eq!(backlog.len(), runs.iter().map(|run| run.count as usize).sum::<usize>());
        assert_eq!(backlog.is_empty(), runs.is_empty());
        assert_eq!(backlog.first(), runs.first().copied());
        assert_eq!(backlog.first_seq(), runs.first().map(|run| run.seq));
        assert_eq!(backlog.last_seq(), runs.last().map(Run::last_seq));
        if runs.is_empty() {
            assert!(backlog.heap_bytes() <= (KEPT_RUNS * size_of::<Run>()) as u64);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// At the back, behind a gap.
        Push {
            gap: u64,
            run: Run,
        },
        /// In a gap that the model finds near this place, and not beyond it.
        Insert {
            place: u64,
            run: Run,
        },
        /// Messages that were taken come back as they were.
        PutBack {
            from: usize,
        },
        Remove(u64),
        PopFirst(usize),
        TakeRange(u64, u64),
        MoveTo {
            seq: u64,
            count: u64,
            lsn: u64,
        },
        Get(u64),
        Range(u64),
    }

    fn run() -> impl Strategy<Value = Run> {
        let number = || prop_oneof![6 => Just(0u64), 2 => 0..3u64, 1 => any::<u64>()];
        let small = || prop_oneof![8 => Just(7u32), 1 => 0..300u32, 1 => any::<u32>()];
        let rare = || (small(), prop_oneof![9 => Just(0u8), 1 => any::<u8>()], small());
        let flags = || (prop_oneof![9 => Just(false), 1 => Just(true)], prop_oneof![9 => Just(true), 1 => Just(false)]);
        let lsn = prop_oneof![6 => Just(None), 2 => (1..5000u64).prop_map(Some), 1 => (1..1u64 << 60).prop_map(Some)];
        (1..6u32, lsn, small(), rare(), flags(), (number(), number()), number(), 0..3u32).prop_map(
            |(
                count,
                lsn,
                payload_bytes,
                (header_bytes, priority, attempts),
                flags,
                (expires_at_ms, due_at_ms),
                since_ms,
                holder,
            )| {
                let (redelivered, kept) = flags;
                // ZERO stands for: as if it followed the first message of all.
                let lsn = lsn.map_or(Lsn::ZERO, |lsn| Lsn::ZERO.plus(lsn));
                let run = Run { count, lsn, payload_bytes, header_bytes, expires_at_ms, ..run_before(Seq(0)) };
                Run { priority, attempts, redelivered, kept, holder, since_ms, due_at_ms, ..run }
            },
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        let seq = || 0..400u64;
        prop_oneof![
            12 => (prop_oneof![3 => Just(0u64), 1 => 0..20u64], run()).prop_map(|(gap, run)| Step::Push { gap, run }),
            8 => (seq(), run()).prop_map(|(place, run)| Step::Insert { place, run }),
            3 => any::<usize>().prop_map(|from| Step::PutBack { from }),
            8 => seq().prop_map(Step::Remove),
            2 => (1..20usize).prop_map(Step::PopFirst),
            2 => (seq(), prop_oneof![0..10u64, 0..100u64]).prop_map(|(first, more)| Step::TakeRange(first, first + more)),
            3 => (seq(), 1..5u64, 1..5000u64).prop_map(|(seq, count, lsn)| Step::MoveTo { seq, count, lsn }),
            2 => seq().prop_map(Step::Get),
            2 => seq().prop_map(Step::Range),
        ]
    }

    /// A backlog, and what it has to be equal to.
    #[derive(Default)]
    struct Pair<const N: usize> {
        backlog: Backlog<N>,
        model: BTreeMap<Seq, Run>,
        taken: BTreeMap<Seq, Run>,
    }

    impl<const N: usize> Pair<N> {
        fn insert(&mut self, run: Run) {
            let run = if run.lsn == Lsn::ZERO { Run { lsn: Lsn::ZERO.plus(1 + run.seq.0), ..run } } else { run };
            self.backlog.insert(run);
            self.model.extend(each_message(run));
            self.taken.retain(|seq, _| !(run.seq..=run.last_seq()).contains(seq));
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Push { gap, run } => {
                    let next = self.model.last_key_value().map_or(0, |(last, _)| last.0 + 1);
                    self.insert(Run { seq: Seq(next + gap), ..run });
                }
                Step::Insert { place, run } => {
                    let Some(free) = (place..).find(|seq| !self.model.contains_key(&Seq(*seq))) else { return };
                    let room = self.model.range(Seq(free)..).next().map_or(u64::MAX, |(next, _)| next.0 - free);
                    self.insert(Run { seq: Seq(free), count: u64::from(run.count).min(room) as u32, ..run });
                }
                Step::PutBack { from } => {
                    let Some(seq) = self.taken.keys().nth(from % self.taken.len().max(1)).copied() else { return };
                    let back: Vec<Run> = self.taken.range(seq..).take(9).map(|(_, run)| *run).collect();
                    back.into_iter().for_each(|run| self.insert(run));
                }
                Step::Remove(seq) => {
                    let removed = self.backlog.remove(Seq(seq));
                    assert_eq!(removed, self.model.remove(&Seq(seq)));
                    self.taken.extend(removed.map(|run| (run.seq, run)));
                }
                Step::PopFirst(count) => {
                    for _ in 0..count {
                        let popped = self.backlog.pop_first();
                        assert_eq!(popped, self.model.pop_first().map(|(_, run)| run));
                        self.taken.extend(popped.map(|run| (run.seq, run)));
                    }
                }
                Step::TakeRange(first, last) => {
                    let mut taken = Vec::new();
                    let range = SeqRange { first: Seq(first), last: Seq(last) };
                    self.backlog.take_range(range, &mut |run| taken.extend(each_message(run)));
                    let expected: Vec<_> = self.model.extract_if(range.first..=range.last, |_, _| true).collect();
                    assert_eq!(taken, expected);
                    self.taken.extend(taken);
                }
                Step::MoveTo { seq, count, lsn } => {
                    for n in 0..count {
                        let (seq, lsn) = (Seq(seq + n), Lsn::ZERO.plus(lsn + n));
                        let found = self.model.get_mut(&seq).map(|run| run.lsn = lsn);
                        assert_eq!(self.backlog.move_to(seq, lsn), found.is_some());
                    }
                }
                Step::Get(seq) => assert_eq!(self.backlog.get(Seq(seq)), self.model.get(&Seq(seq)).copied()),
                Step::Range(from) => {
                    let found = self.backlog.range(Seq(from)).flat_map(each_message);
                    assert!(found.eq(self.model.range(Seq(from)..).map(|(seq, run)| (*seq, *run))));
                }
            }
        }

        fn compare(&self) {
            check(&self.backlog);
            let all = self.backlog.range(Seq(0)).flat_map(each_message);
            assert!(all.eq(self.model.iter().map(|(seq, run)| (*seq, *run))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

        #[test]
        fn a_backlog_is_a_map_of_messages(steps in prop::collection::vec(step(), 1..300)) {
            let mut pair = Pair::<4>::default();
            for step in steps {
                pair.apply(step);
                pair.compare();
            }
            for seq in 0..500 {
                pair.apply(Step::Get(seq));
            }
        }

        #[test]
        fn a_packed_run_is_what_it_was(runs in prop::collection::vec((any::<u32>(), 1..=u32::MAX, run()), 1..50)) {
            let (mut window, mut next) = (Window::default(), 0);
            for (gap, count, run) in runs {
                let seq = Seq(next + u64::from(gap));
                window.runs.push_back(Run { seq, count, ..run });
                next = seq.0 + u64::from(count);
            }
            let first = window.runs[0].seq;
            prop_assert!(Block::pack(first, window.runs.iter()).unpacked(first, first).eq(window.runs));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn blocks_of_the_true_size_do_too(
            runs in prop::collection::vec((0..3u64, run()), 300..900),
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let mut pair = Pair::<128>::default();
            for (gap, run) in runs {
                pair.apply(Step::Push { gap, run });
            }
            for step in steps {
                pair.apply(step);
            }
            pair.compare();
        }
    }

    #[test]
    fn what_goes_on_is_one_run_up_to_the_greatest_count() {
        let mut backlog = Small::default();
        let most = Run { count: u32::MAX, ..single(1, 1) };
        backlog.insert(most);
        let next = u64::from(u32::MAX) + 1;
        backlog.insert(single(next, next));
        assert!(backlog.range(Seq(0)).eq([most, single(next, next)]));
        backlog.remove(Seq(5));
        backlog.insert(single(5, 5));
        assert!(backlog.range(Seq(0)).eq([most, single(next, next)]));
        check(&backlog);
    }

    #[test]
    fn taking_much_leaves_the_ends() {
        let mut backlog = Small::default();
        (0..1000).for_each(|seq| backlog.insert(single(seq * 2, seq * 7 % 100)));
        let mut taken = 0;
        backlog.take_range(SeqRange { first: Seq(3), last: Seq(1995) }, &mut |run| taken += run.count);
        assert_eq!(taken, 996);
        let left: Vec<u64> = backlog.range(Seq(0)).map(|run| run.seq.0).collect();
        assert_eq!(left, [0, 2, 1996, 1998]);
        check(&backlog);
    }

    #[test]
    fn small_blocks_that_become_neighbours_are_one() {
        let mut backlog = Small::default();
        // Three blocks of four, and a tail. The middle block goes last, and at once.
        (0..20).for_each(|seq| backlog.insert(single(seq, seq * 9)));
        for seq in [1, 2, 3, 9, 10, 11, 4, 5, 6, 7] {
            backlog.remove(Seq(seq));
        }
        check(&backlog);
        assert!(backlog.range(Seq(0)).map(|run| run.seq.0).eq([0, 8].into_iter().chain(12..20)));
    }

    #[test]
    fn messages_that_were_moved_together_are_one_run_again() {
        let mut backlog = Small::default();
        backlog.insert(Run { count: 100, ..single(0, 1) });
        (20..60).for_each(|seq| assert!(backlog.move_to(Seq(seq), Lsn::ZERO.plus(1000 + seq))));
        let counts: Vec<u32> = backlog.range(Seq(0)).map(|run| run.count).collect();
        assert_eq!(counts, [20, 40, 40]);
        assert!(!backlog.move_to(Seq(100), Lsn::ZERO.plus(1)));
        check(&backlog);
    }

    fn heap_bytes_of(messages: impl Iterator<Item = Run>) -> u64 {
        let mut backlog = Backlog::<128>::default();
        messages.for_each(|run| backlog.insert(run));
        check(&backlog);
        backlog.heap_bytes()
    }

    #[test]
    fn a_sequence_takes_next_to_nothing() {
        let runs = (0..100).map(|n| Run { count: 1_000_000, ..single(n * 1_000_000, 1 + n * 1_000_000) });
        assert!(heap_bytes_of(runs) <= 1024);
    }

    #[test]
    fn a_message_among_others_takes_four_bytes() {
        const MESSAGES: u64 = 300_000;
        let interleaved = |seq: u64| single(seq, 1 + seq * 1000);
        assert!(heap_bytes_of((0..MESSAGES).map(interleaved)) <= 4 * MESSAGES);
        let expiring = |seq: u64| Run { expires_at_ms: 1_700_000_000_000 + seq / 10, ..interleaved(seq) };
        assert!(heap_bytes_of((0..MESSAGES).map(expiring)) <= 5 * MESSAGES);
        let delivered = |seq: u64| {
            let since_ms = 1_700_000_000_000 + seq / 100 * 500;
            Run { since_ms, holder: 1 + (seq % 10) as u32, ..interleaved(seq) }
        };
        assert!(heap_bytes_of((0..MESSAGES).map(delivered)) <= 6 * MESSAGES);
    }

    #[test]
    fn the_last_hundredth_takes_no_more_than_its_share() {
        let mut backlog = Backlog::<128>::default();
        (0..50_000).for_each(|seq| backlog.insert(single(seq, 1 + seq * 1000)));
        // A stride that is coprime to the count: every message once, in no order.
        let mut order = (0..50_000).map(|n| n * 77_773 % 50_000);
        order.by_ref().take(49_500).for_each(|seq| assert!(backlog.remove(Seq(seq)).is_some()));
        check(&backlog);
        assert!(
            backlog.heap_bytes() <= (500 * 8 + 3 * 128 * size_of::<Run>()) as u64,
            "{} bytes",
            backlog.heap_bytes()
        );
        order.for_each(|seq| assert!(backlog.remove(Seq(seq)).is_some()));
        check(&backlog);
    }
}
