//! What every store promises, run against each of them.

use bytes::Bytes;
use proptest::prelude::*;
use store::{
    Caretaker, FileDisk, Key, Link, Lsn, LsnRange, MemoryDisk, MemoryStore, OldMessage, Opened, QueueId, Record,
    SegmentLog, Store, StoreEvent, Urgency, Writer,
};
use tempfile::TempDir;

use crate::kept::{self, Kept, Replayed};
use crate::ledger::{self, Ledger};

/// A store with what it needs to work and to come back.
trait Bench: Sized {
    type Store: Store;
    fn new() -> Self;
    fn store(&mut self) -> &mut Self::Store;
    /// Lets everything that was handed over become durable and everything that was asked for be answered.
    fn settle(&mut self) -> Vec<StoreEvent>;
    /// Kills the owner and starts another.
    fn restart(self) -> (Self, Replayed);
    /// Whether everything retained is there.
    fn has_all(&self) -> bool;
}

impl Bench for MemoryStore {
    type Store = MemoryStore;

    fn new() -> MemoryStore {
        MemoryStore::with_segments_of(SEGMENT_BYTES)
    }

    fn store(&mut self) -> &mut MemoryStore {
        self
    }

    fn settle(&mut self) -> Vec<StoreEvent> {
        kept::events(self)
    }

    fn restart(mut self) -> (MemoryStore, Replayed) {
        self.poll(&mut Vec::new());
        let store = MemoryStore::restart(self);
        let mut replayed = Vec::new();
        store.replay(&mut |lsn, record| replayed.push((lsn, Kept::from(record))));
        (store, replayed)
    }

    fn has_all(&self) -> bool {
        self.missing().is_none()
    }
}

struct OnMemory {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
}

impl Bench for OnMemory {
    type Store = SegmentLog;

    fn new() -> OnMemory {
        let disk = MemoryDisk::new();
        let Opened { log, writer, caretaker, .. } = kept::open(disk.clone(), SEGMENT_BYTES).unwrap().0;
        OnMemory { disk, log, writer, caretaker }
    }

    fn store(&mut self) -> &mut SegmentLog {
        &mut self.log
    }

    fn settle(&mut self) -> Vec<StoreEvent> {
        kept::settle(&mut self.log, &mut self.writer, &mut self.caretaker)
    }

    fn restart(self) -> (OnMemory, Replayed) {
        let disk = self.disk;
        disk.crash(&mut |_| 1);
        let (Opened { log, writer, caretaker, .. }, replayed) = kept::open(disk.clone(), SEGMENT_BYTES).unwrap();
        (OnMemory { disk, log, writer, caretaker }, replayed)
    }

    fn has_all(&self) -> bool {
        self.log.check_retained().is_ok()
    }
}

struct OnFiles {
    directory: TempDir,
    log: SegmentLog,
    writer: Writer<FileDisk>,
    caretaker: Caretaker<FileDisk>,
}

impl Bench for OnFiles {
    type Store = SegmentLog;

    fn new() -> OnFiles {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let Opened { log, writer, caretaker, .. } = kept::open(disk, SEGMENT_BYTES).unwrap().0;
        OnFiles { directory, log, writer, caretaker }
    }

    fn store(&mut self) -> &mut SegmentLog {
        &mut self.log
    }

    fn settle(&mut self) -> Vec<StoreEvent> {
        kept::settle(&mut self.log, &mut self.writer, &mut self.caretaker)
    }

    fn restart(self) -> (OnFiles, Replayed) {
        let OnFiles { directory, log, writer, caretaker } = self;
        drop((log, writer, caretaker));
        let disk = FileDisk::open(directory.path()).unwrap();
        let (Opened { log, writer, caretaker, .. }, replayed) = kept::open(disk, SEGMENT_BYTES).unwrap();
        (OnFiles { directory, log, writer, caretaker }, replayed)
    }

    fn has_all(&self) -> bool {
        self.log.check_retained().is_ok()
    }
}

/// Small, so that a short test has several.
const SEGMENT_BYTES: u64 = 1000;

fn durable(events: &[StoreEvent]) -> Option<Lsn> {
    events.iter().rev().find_map(|event| match event {
        StoreEvent::Durable(lsn) => Some(*lsn),
        _ => None,
    })
}

fn read(events: &[StoreEvent], wanted: u64) -> Option<Vec<(Lsn, Bytes)>> {
    events.iter().find_map(|event| match event {
        StoreEvent::Read { ticket, messages } if *ticket == wanted => Some(messages.clone()),
        _ => None,
    })
}

fn old(events: &[StoreEvent]) -> Vec<OldMessage> {
    let old = events.iter().filter_map(|event| match event {
        StoreEvent::Old(old) => Some(old.clone()),
        _ => None,
    });
    old.flatten().collect()
}

/// Appends so many messages of a queue, flushes and settles.
fn publish<B: Bench>(bench: &mut B, queue: u64, count: u64, payload: &[u8]) -> Vec<Lsn> {
    let append = |seq| bench.store().append(kept::message(queue, seq, payload).record(), Link::Alone);
    let lsns = (0..count).map(append).collect();
    bench.store().flush(Urgency::Sync);
    bench.settle();
    lsns
}

fn what_was_flushed_is_replayed_in_order_as_it_was<B: Bench>() {
    let mut bench = B::new();
    let records = [kept::one_of_each(), kept::due_ones(), kept::later_records()].concat();
    let lsns = kept::append_all(bench.store(), &records);
    assert!(lsns.is_sorted_by(|a, b| a < b) && lsns[0] > Lsn::ZERO);
    assert!(lsns.iter().zip(1..).all(|(lsn, more)| *lsn == Lsn::ZERO.plus(more)));
    bench.store().flush(Urgency::Sync);
    assert_eq!(durable(&bench.settle()), lsns.last().copied());
    let (_, replayed) = bench.restart();
    assert_eq!(replayed, lsns.into_iter().zip(records).collect::<Vec<_>>());
}

fn a_lazy_flush_becomes_durable_too<B: Bench>() {
    let mut bench = B::new();
    let lsn = bench.store().append(kept::message(1, 1, b"lazy").record(), Link::Alone);
    bench.store().flush(Urgency::Lazy);
    assert_eq!(durable(&bench.settle()), Some(lsn));
    assert_eq!(durable(&bench.settle()), None, "each is reported once");
}

fn what_was_not_flushed_is_never_durable<B: Bench>() {
    let mut bench = B::new();
    bench.store().append(kept::message(1, 1, b"never flushed").record(), Link::Alone);
    assert_eq!(durable(&bench.settle()), None);
    let (_, replayed) = bench.restart();
    assert_eq!(replayed, []);
}

fn a_chain_takes_effect_whole_or_not_at_all<B: Bench>() {
    let mut bench = B::new();
    let first = bench.store().append(kept::message(1, 1, b"alone").record(), Link::Alone);
    bench.store().append(kept::message(1, 2, b"first").record(), Link::WithNext);
    bench.store().flush(Urgency::Sync);
    assert!(durable(&bench.settle()).is_none_or(|lsn| lsn == first), "an open chain is not durable");
    let last = bench.store().append(kept::settled(1, 1).record(), Link::Alone);
    assert_eq!(durable(&bench.settle()), Some(last), "the flush took effect when the chain ended");
    bench.store().append(kept::message(1, 3, b"never ended").record(), Link::WithNext);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    let (_, replayed) = bench.restart();
    assert_eq!(replayed.len(), 3);
}

fn the_log_goes_on_after_a_restart<B: Bench>() {
    let mut bench = B::new();
    for round in 0..5 {
        let lsn = bench.store().append(kept::message(1, round, b"round").record(), Link::Alone);
        bench.store().flush(Urgency::Sync);
        bench.settle();
        let replayed;
        (bench, replayed) = bench.restart();
        assert_eq!(replayed.len() as u64, round + 1);
        assert_eq!(replayed.last().unwrap().0, lsn);
        bench.store().retain(LsnRange { first: Lsn::ZERO.plus(1), count: round as u32 + 1 }, 5);
        assert!(bench.has_all());
    }
}

fn a_message_that_is_not_kept_is_not_replayed_and_counts<B: Bench>() {
    let mut bench = B::new();
    let moved = Kept::Message {
        moved_from: Some((store::QueueId(1), store::Seq(1))),
        places: Vec::new(),
        kept: false,
        payload: Vec::new(),
    };
    let records =
        [kept::message(1, 1, b"kept"), kept::fleeting(1, 2, b"not"), moved, kept::message(1, 3, b"kept, too")];
    let lsns = kept::append_all(bench.store(), &records);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().read(7, &[kept::one(lsns[1])]);
    assert_eq!(read(&bench.settle(), 7).unwrap(), [(lsns[1], Bytes::from_static(b"not"))]);
    let (mut bench, replayed) = bench.restart();
    let settled = kept::settled(1, 1);
    assert_eq!(
        replayed,
        [(lsns[0], records[0].clone()), (lsns[2], settled), (lsns[3], records[3].clone())],
        "what it leaves is empty all the same"
    );
    let next = bench.store().append(kept::fact("a", "b").record(), Link::Alone);
    assert_eq!(next, lsns[3].plus(1));
}

fn what_is_read_is_what_was_written_in_the_order_asked_for<B: Bench>() {
    let mut bench = B::new();
    let payload = |seq: u64| vec![seq as u8; (seq % 97) as usize];
    let lsns: Vec<_> = (0..200)
        .map(|seq| {
            let lsn = bench.store().append(kept::message(seq % 3, seq, &payload(seq)).record(), Link::Alone);
            bench.store().append(kept::fact("between", "them").record(), Link::Alone);
            lsn
        })
        .collect();
    bench.store().flush(Urgency::Lazy);
    bench.settle();
    let picks = [150, 3, 4, 199, 0, 77, 150];
    let wanted: Vec<_> = picks.iter().map(|pick| kept::one(lsns[*pick])).collect();
    bench.store().read(1, &wanted);
    bench.store().read(2, &[]);
    let events = bench.settle();
    let expected: Vec<_> = picks.iter().map(|pick| (lsns[*pick], Bytes::from(payload(*pick as u64)))).collect();
    assert_eq!(read(&events, 1).unwrap(), expected);
    assert_eq!(read(&events, 2).unwrap(), []);
    bench.store().read(3, &[LsnRange { first: lsns[0], count: 400 }]);
    let all = read(&bench.settle(), 3).unwrap();
    let expected: Vec<_> = (0..200).map(|seq| (lsns[seq as usize], Bytes::from(payload(seq)))).collect();
    assert_eq!(all, expected, "over many segments, with what is no message left out");
}

fn what_is_not_yet_written_can_be_read<B: Bench>() {
    let mut bench = B::new();
    let first = bench.store().append(kept::message(1, 1, b"first").record(), Link::Alone);
    bench.store().read(1, &[LsnRange { first, count: 2 }]);
    bench.store().append(kept::message(1, 2, b"second").record(), Link::Alone);
    bench.store().flush(Urgency::Lazy);
    let events = bench.settle();
    let expected = [(first, Bytes::from_static(b"first")), (first.plus(1), Bytes::from_static(b"second"))];
    assert_eq!(read(&events, 1).unwrap(), expected);
}

fn what_was_released_may_be_missing_from_a_read<B: Bench>() {
    let mut bench = B::new();
    let lsns = publish(&mut bench, 1, 30, &[3; 100]);
    kept::checkpoint(bench.store(), &[]);
    bench.settle();
    bench.store().release(LsnRange { first: lsns[5], count: 20 }, 100);
    bench.store().read(1, &[LsnRange { first: lsns[0], count: 30 }]);
    bench.settle();
    bench.store().read(2, &[LsnRange { first: lsns[0], count: 30 }]);
    let messages = read(&bench.settle(), 2).unwrap();
    let got: Vec<_> = messages.iter().map(|(lsn, _)| *lsn).collect();
    assert!(lsns[..5].iter().chain(&lsns[25..]).all(|lsn| got.contains(lsn)));
    assert!(got.len() < 30 && messages.iter().all(|(_, payload)| **payload == [3; 100]));
}

fn segments_go_in_any_order_once_a_checkpoint_covers_them<B: Bench>() {
    let mut bench = B::new();
    let lsns = publish(&mut bench, 1, 100, &[7; 90]);
    let full = bench.store().log_bytes();
    bench.store().release(LsnRange { first: lsns[1], count: 98 }, 90);
    bench.settle();
    assert_eq!(bench.store().log_bytes(), full, "a restart would read them");
    kept::checkpoint(bench.store(), &kept::pieces()[..1]);
    bench.settle();
    bench.settle();
    assert!(bench.store().log_bytes() < full / 3, "{} of {full}", bench.store().log_bytes());
    let (mut bench, replayed) = bench.restart();
    assert_eq!(replayed, [(Lsn::ZERO, kept::pieces()[0].clone())]);
    bench.store().retain(kept::one(lsns[0]), 90);
    bench.store().retain(kept::one(lsns[99]), 90);
    assert!(bench.has_all());
    bench.store().read(1, &[kept::one(lsns[0]), kept::one(lsns[99])]);
    let messages = read(&bench.settle(), 1).unwrap();
    assert_eq!(messages.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [lsns[0], lsns[99]]);
}

fn what_is_retained_and_gone_is_noticed<B: Bench>() {
    let mut bench = B::new();
    let lsns = publish(&mut bench, 1, 100, &[7; 90]);
    bench.store().release(LsnRange { first: lsns[0], count: 100 }, 90);
    kept::checkpoint(bench.store(), &[]);
    bench.settle();
    bench.settle();
    let (mut bench, _) = bench.restart();
    assert!(bench.has_all());
    bench.store().retain(kept::one(lsns[0]), 90);
    assert!(!bench.has_all());
}

fn space_is_kept_until_what_replaced_it_is_durable<B: Bench>() {
    let mut bench = B::new();
    let old = publish(&mut bench, 1, 50, &[7; 90]);
    kept::checkpoint(bench.store(), &[]);
    bench.settle();
    let full = bench.store().log_bytes();
    bench.store().append(kept::message(1, 0, b"again").record(), Link::Alone);
    bench.store().release(LsnRange { first: old[0], count: 50 }, 90);
    bench.settle();
    assert!(bench.store().log_bytes() >= full);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    assert!(bench.store().log_bytes() < full / 2);
    let (_, replayed) = bench.restart();
    assert_eq!(replayed.last().unwrap().1, kept::message(1, 0, b"again"));
}

fn a_message_is_kept_for_each_of_its_places<B: Bench>() {
    let mut bench = B::new();
    let mut places = Vec::new();
    for queue in 0..3 {
        let Kept::Message { places: place, .. } = kept::message(queue, 1, b"") else { unreachable!() };
        places.extend(place);
    }
    let fan_out = Kept::Message { places, moved_from: None, kept: true, payload: b"three places".to_vec() };
    let lsn = bench.store().append(fan_out.record(), Link::Alone);
    for round in 0..3 {
        let filler = bench.store().append(kept::message(9, 9, &[0; 2000]).record(), Link::Alone);
        bench.store().release(kept::one(filler), 2000);
        kept::checkpoint(bench.store(), &[]);
        bench.settle();
        bench.settle();
        bench.store().read(round, &[kept::one(lsn)]);
        assert_eq!(read(&bench.settle(), round).unwrap(), [(lsn, Bytes::from_static(b"three places"))]);
        bench.store().release(kept::one(lsn), 12);
    }
    bench.settle();
    bench.settle();
    bench.store().read(9, &[kept::one(lsn)]);
    assert_eq!(read(&bench.settle(), 9).unwrap(), []);
}

fn checkpoints_replace_what_they_cover<B: Bench>() {
    let mut bench = B::new();
    kept::append_all(bench.store(), &kept::one_of_each());
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().begin_checkpoint();
    bench.store().checkpoint(kept::fact("dropped", "").record());
    bench.store().begin_checkpoint();
    let pieces = kept::pieces();
    for (piece, between) in pieces.iter().zip(0..) {
        bench.store().append(kept::message(3, between, b"meanwhile").record(), Link::Alone);
        bench.store().checkpoint(piece.record());
    }
    bench.store().end_checkpoint();
    bench.settle();
    let later = bench.store().append(kept::message(3, 99, b"later").record(), Link::Alone);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    let (bench, replayed) = bench.restart();
    let replayed: Vec<_> = replayed.into_iter().map(|(lsn, kept)| ((lsn > Lsn::ZERO).then_some(lsn), kept)).collect();
    // An empty list of runs says nothing, and may be left out.
    let pieces = pieces.into_iter().filter(|piece| !matches!(piece, Kept::Waiting { runs, .. } if runs.is_empty()));
    let mut expected: Vec<_> = pieces.map(|piece| (None, piece)).collect();
    for seq in 0..5 {
        expected.push((Some(Lsn::ZERO.plus(11 + seq)), kept::message(3, seq, b"meanwhile")));
    }
    expected.push((Some(later), kept::message(3, 99, b"later")));
    assert_eq!(replayed, expected);
    let (_, again) = bench.restart();
    assert_eq!(again.len(), expected.len());
}

fn keys_come_back_from_log_and_checkpoint_in_their_order<B: Bench>() {
    let mut bench = B::new();
    let many = (0..40_000).map(|number| Key { hash: number << 100, until: number as u64 }).collect::<Vec<_>>();
    let keys = kept::keys();
    kept::append_all(bench.store(), &keys);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    let (mut bench, replayed) = bench.restart();
    assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), keys);
    bench.store().begin_checkpoint();
    bench.store().checkpoint(Record::Keys { queue: QueueId(1), source: 3, most: 9, keys: &many });
    bench.store().end_checkpoint();
    bench.settle();
    let (_, replayed) = bench.restart();
    let found = replayed.into_iter().flat_map(|(_, kept)| match kept {
        Kept::Keys { queue: QueueId(1), source: 3, most: 9, keys } => keys,
        other => panic!("{other:?}"),
    });
    assert_eq!(found.collect::<Vec<_>>(), many);
}

fn an_unfinished_checkpoint_does_not_count<B: Bench>() {
    let mut bench = B::new();
    let records = kept::one_of_each();
    kept::append_all(bench.store(), &records);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().begin_checkpoint();
    kept::pieces().iter().for_each(|piece| bench.store().checkpoint(piece.record()));
    bench.settle();
    let (_, replayed) = bench.restart();
    assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), records);
}

fn a_checkpoint_is_wanted_when_much_would_be_replayed<B: Bench>() {
    let mut bench = B::new();
    assert!(!bench.store().wants_checkpoint());
    publish(&mut bench, 1, 30, &[7; 100]);
    assert!(bench.store().wants_checkpoint() && bench.store().replay_bytes() > 3000);
    bench.store().begin_checkpoint();
    assert!(!bench.store().wants_checkpoint(), "one is enough");
    bench.store().end_checkpoint();
    bench.settle();
    assert!(!bench.store().wants_checkpoint());
    assert!(bench.store().replay_bytes() < 300);
}

fn a_segment_that_mostly_is_dead_is_offered<B: Bench>() {
    let mut bench = B::new();
    let lsns = publish(&mut bench, 1, 200, &[7; 90]);
    let full = bench.store().log_bytes();
    assert!(!bench.store().wants_reclaim() && !bench.store().reclaim(), "everything may be alive");
    // One in twenty survives.
    for chunk in lsns.chunks(20) {
        bench.store().release(LsnRange { first: chunk[0], count: 19 }, 90);
    }
    bench.settle();
    assert!(!bench.store().wants_reclaim(), "a restart would read them");
    kept::checkpoint(bench.store(), &[]);
    bench.settle();
    let mut survivors: Vec<_> = lsns.chunks(20).map(|chunk| chunk[19]).collect();
    let mut rounds = 0;
    while bench.store().wants_reclaim() {
        assert!(bench.store().reclaim());
        assert!(!bench.store().reclaim() && !bench.store().wants_reclaim(), "one at a time");
        for old in old(&bench.settle()) {
            assert_eq!(*old.payload, [7; 90]);
            if let Some(found) = survivors.iter_mut().find(|lsn| **lsn == old.lsn) {
                assert!(old.kept && old.places.len() == 1);
                let again = kept::message(1, old.places[0].seq.0, &old.payload);
                *found = bench.store().append(again.record(), Link::Alone);
                bench.store().release(kept::one(old.lsn), 90);
            }
        }
        bench.store().flush(Urgency::Lazy);
        bench.settle();
        bench.settle();
        rounds += 1;
        assert!(rounds < 50);
    }
    assert!(rounds > 0 && bench.store().log_bytes() < full / 4, "{} of {full}", bench.store().log_bytes());
    let wanted: Vec<_> = survivors.iter().map(|lsn| kept::one(*lsn)).collect();
    bench.store().read(1, &wanted);
    assert_eq!(read(&bench.settle(), 1).unwrap().len(), 10);
}

fn who_does_not_move_is_not_asked_again<B: Bench>() {
    let mut bench = B::new();
    let lsns = publish(&mut bench, 1, 100, &[7; 90]);
    bench.store().release(LsnRange { first: lsns[1], count: 99 }, 90);
    kept::checkpoint(bench.store(), &[]);
    bench.settle();
    bench.settle();
    let mut rounds = 0;
    while bench.store().reclaim() {
        assert!(!old(&bench.settle()).is_empty());
        bench.settle();
        rounds += 1;
        assert!(rounds < 50);
    }
    assert!(rounds > 0);
    for _ in 0..5 {
        bench.settle();
        assert!(!bench.store().wants_reclaim() && !bench.store().reclaim());
    }
}

fn unwritten_bytes_are_those_that_wait<B: Bench>() {
    let mut bench = B::new();
    assert_eq!(bench.store().unwritten_bytes(), 0);
    bench.store().append(kept::message(1, 1, &[1; 500]).record(), Link::Alone);
    assert!(bench.store().unwritten_bytes() >= 500);
    bench.store().flush(Urgency::Lazy);
    bench.store().append(kept::message(1, 2, &[1; 500]).record(), Link::Alone);
    bench.store().flush(Urgency::Lazy);
    assert!(bench.store().unwritten_bytes() >= 1000);
    bench.settle();
    assert_eq!(bench.store().unwritten_bytes(), 0);
}

fn close_makes_everything_durable<B: Bench>() {
    let mut bench = B::new();
    let lsn = bench.store().append(kept::fact("key", "value").record(), Link::Alone);
    kept::checkpoint(bench.store(), &[kept::fact("key", "value")]);
    bench.store().close();
    assert_eq!(durable(&bench.settle()), Some(lsn));
    let (_, replayed) = bench.restart();
    assert_eq!(replayed, [(Lsn::ZERO, kept::fact("key", "value"))], "and a checkpoint that ended before it counts");
}

/// Makes each promise a test of each store.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod memory_store {
            $(#[test] fn $promise() { super::$promise::<super::MemoryStore>(); })*
        }
        mod segment_log_in_memory {
            $(#[test] fn $promise() { super::$promise::<super::OnMemory>(); })*
        }
        mod segment_log_on_files {
            $(#[test] fn $promise() { super::$promise::<super::OnFiles>(); })*
        }
    };
}

promises!(
    what_was_flushed_is_replayed_in_order_as_it_was,
    a_lazy_flush_becomes_durable_too,
    what_was_not_flushed_is_never_durable,
    a_chain_takes_effect_whole_or_not_at_all,
    the_log_goes_on_after_a_restart,
    a_message_that_is_not_kept_is_not_replayed_and_counts,
    what_is_read_is_what_was_written_in_the_order_asked_for,
    what_is_not_yet_written_can_be_read,
    what_was_released_may_be_missing_from_a_read,
    segments_go_in_any_order_once_a_checkpoint_covers_them,
    what_is_retained_and_gone_is_noticed,
    space_is_kept_until_what_replaced_it_is_durable,
    a_message_is_kept_for_each_of_its_places,
    checkpoints_replace_what_they_cover,
    keys_come_back_from_log_and_checkpoint_in_their_order,
    an_unfinished_checkpoint_does_not_count,
    a_checkpoint_is_wanted_when_much_would_be_replayed,
    a_segment_that_mostly_is_dead_is_offered,
    who_does_not_move_is_not_asked_again,
    unwritten_bytes_are_those_that_wait,
    close_makes_everything_durable,
);

/// What an owner may do.
#[derive(Clone, Debug)]
enum Work {
    Publish { queues: u64, bytes: usize, kept: bool },
    Settle { nth: usize },
    Return { nth: usize },
    Declare { key: u8 },
    Forget { key: u8 },
    Checkpoint,
    Reclaim,
    Restart,
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        8 => (1..4u64, 0..300usize, prop::bool::weighted(0.8))
            .prop_map(|(queues, bytes, kept)| Work::Publish { queues, bytes, kept }),
        6 => any::<usize>().prop_map(|nth| Work::Settle { nth }),
        2 => any::<usize>().prop_map(|nth| Work::Return { nth }),
        1 => (0..4u8).prop_map(|key| Work::Declare { key }),
        1 => (0..4u8).prop_map(|key| Work::Forget { key }),
        1 => Just(Work::Checkpoint),
        2 => Just(Work::Reclaim),
        1 => Just(Work::Restart),
    ]
}

/// An owner that settles after each piece of work.
struct Owner<B> {
    bench: Option<B>,
    ledger: Ledger,
    seq: u64,
}

impl<B: Bench> Owner<B> {
    fn new() -> Owner<B> {
        Owner { bench: Some(B::new()), ledger: Ledger::default(), seq: 0 }
    }

    fn append(&mut self, kept: &Kept) {
        ledger::record(self.bench.as_mut().unwrap().store(), &mut self.ledger, kept, Link::Alone);
    }

    fn do_work(&mut self, work: &Work) {
        match *work {
            Work::Publish { queues, bytes, kept } => {
                self.seq += 1;
                let place = |queue| store::Place {
                    queue: store::QueueId(queue),
                    seq: store::Seq(self.seq),
                    expires_at_ms: 0,
                    priority: 0,
                    due_at_ms: self.seq % 3 * 1000,
                };
                let places = (0..queues).map(place).collect();
                self.append(&Kept::Message { places, moved_from: None, kept, payload: vec![self.seq as u8; bytes] });
            }
            Work::Settle { nth } => {
                if let Some((queue, seq)) = self.ledger.nth(nth) {
                    self.append(&kept::settled(queue.0, seq.0));
                }
            }
            Work::Return { nth } => {
                if let Some((queue, seq)) = self.ledger.nth(nth) {
                    let range = store::SeqRange { first: seq, last: store::Seq(seq.0 + 2) };
                    self.append(&Kept::Returned {
                        queue,
                        range,
                        attempts: nth as u32 % 5,
                        due_at_ms: nth as u64 % 2 * 77,
                    });
                    if nth % 3 == 0 {
                        self.append(&Kept::Released { queue, range, due_at_ms: nth as u64 });
                    }
                }
            }
            Work::Declare { key } => self.append(&kept::fact(&key.to_string(), &self.seq.to_string())),
            Work::Forget { key } => self.append(&Kept::Forget { key: key.to_string().into() }),
            Work::Checkpoint => kept::checkpoint(self.bench.as_mut().unwrap().store(), &self.ledger.pieces()),
            Work::Reclaim => {
                self.bench.as_mut().unwrap().store().reclaim();
            }
            Work::Restart => self.restart(),
        }
        self.settle();
    }

    fn settle(&mut self) {
        let bench = self.bench.as_mut().unwrap();
        bench.store().flush(Urgency::Sync);
        for event in bench.settle() {
            if let StoreEvent::Old(old) = event {
                ledger::move_survivors(bench.store(), &mut self.ledger, &old);
            }
        }
        bench.store().flush(Urgency::Sync);
        bench.settle();
    }

    fn restart(&mut self) {
        let (mut bench, replayed) = self.bench.take().unwrap().restart();
        self.ledger = Ledger::default();
        replayed.iter().for_each(|(lsn, kept)| self.ledger.apply(*lsn, kept, &mut |_, _| {}));
        self.ledger.retain(bench.store());
        assert!(bench.has_all());
        bench.store().read(1, &self.ledger.ranges());
        let events = bench.settle();
        self.ledger.hear_read(&read(&events, 1).unwrap());
        self.bench = Some(bench);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_as_the_reference_does(works in prop::collection::vec(work(), 1..120)) {
        let mut log = Owner::<OnMemory>::new();
        let mut reference = Owner::<MemoryStore>::new();
        for work in works.iter().chain([&Work::Restart]) {
            log.do_work(work);
            reference.do_work(work);
            prop_assert_eq!(log.ledger.visible(), reference.ledger.visible());
        }
    }
}
