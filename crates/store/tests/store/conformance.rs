//! What every store promises, run against each of them.

use store::{FileDisk, Link, Lsn, MemoryDisk, MemoryStore, Opened, SegmentLog, Store, StoreEvent, Urgency, Writer};
use tempfile::TempDir;

use crate::kept::{self, Kept, Replayed};

/// A store with what it needs to work and to come back.
trait Bench: Sized {
    type Store: Store;
    fn new() -> Self;
    fn store(&mut self) -> &mut Self::Store;
    /// Lets everything that was handed over become durable.
    fn settle(&mut self);
    /// Kills the owner and starts another.
    fn restart(self) -> (Self, Replayed);
}

impl Bench for MemoryStore {
    type Store = MemoryStore;

    fn new() -> MemoryStore {
        MemoryStore::new()
    }

    fn store(&mut self) -> &mut MemoryStore {
        self
    }

    fn settle(&mut self) {}

    fn restart(mut self) -> (MemoryStore, Replayed) {
        self.poll(&mut Vec::new());
        let store = MemoryStore::restart(self);
        let mut replayed = Vec::new();
        store.replay(&mut |lsn, record| replayed.push((lsn, Kept::from(record))));
        (store, replayed)
    }
}

struct OnMemory {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
}

impl Bench for OnMemory {
    type Store = SegmentLog;

    fn new() -> OnMemory {
        let disk = MemoryDisk::new();
        let Opened { log, writer, .. } = kept::open(disk.clone(), SEGMENT_BYTES).unwrap().0;
        OnMemory { disk, log, writer }
    }

    fn store(&mut self) -> &mut SegmentLog {
        &mut self.log
    }

    fn settle(&mut self) {
        kept::drain(&mut self.writer);
    }

    fn restart(self) -> (OnMemory, Replayed) {
        let disk = self.disk;
        disk.crash(&mut |_| 1);
        let (Opened { log, writer, .. }, replayed) = kept::open(disk.clone(), SEGMENT_BYTES).unwrap();
        (OnMemory { disk, log, writer }, replayed)
    }
}

struct OnFiles {
    directory: TempDir,
    log: SegmentLog,
    writer: Writer<FileDisk>,
}

impl Bench for OnFiles {
    type Store = SegmentLog;

    fn new() -> OnFiles {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let Opened { log, writer, .. } = kept::open(disk, SEGMENT_BYTES).unwrap().0;
        OnFiles { directory, log, writer }
    }

    fn store(&mut self) -> &mut SegmentLog {
        &mut self.log
    }

    fn settle(&mut self) {
        kept::drain(&mut self.writer);
    }

    fn restart(self) -> (OnFiles, Replayed) {
        let OnFiles { directory, log, writer } = self;
        drop((log, writer));
        let disk = FileDisk::open(directory.path()).unwrap();
        let (Opened { log, writer, .. }, replayed) = kept::open(disk, SEGMENT_BYTES).unwrap();
        (OnFiles { directory, log, writer }, replayed)
    }
}

/// Small, so that a short test has several.
const SEGMENT_BYTES: u64 = 1000;

fn durable<S: Store>(store: &mut S) -> Option<Lsn> {
    kept::events(store).into_iter().rev().find_map(|event| match event {
        StoreEvent::Durable(lsn) => Some(lsn),
        StoreEvent::Failed(_) => None,
    })
}

fn what_was_flushed_is_replayed_in_order_as_it_was<B: Bench>() {
    let mut bench = B::new();
    let records = kept::one_of_each();
    let lsns = kept::append_all(bench.store(), &records);
    assert!(lsns.is_sorted_by(|a, b| a < b) && lsns[0] > Lsn::ZERO);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    assert_eq!(durable(bench.store()), lsns.last().copied());
    let (_, replayed) = bench.restart();
    assert_eq!(replayed, lsns.into_iter().zip(records).collect::<Vec<_>>());
}

fn a_lazy_flush_becomes_durable_too<B: Bench>() {
    let mut bench = B::new();
    let lsn = bench.store().append(kept::message(1, 1, b"lazy").record(), Link::Alone);
    bench.store().flush(Urgency::Lazy);
    bench.settle();
    assert_eq!(durable(bench.store()), Some(lsn));
    assert_eq!(durable(bench.store()), None, "each is reported once");
}

fn what_was_not_flushed_is_never_durable<B: Bench>() {
    let mut bench = B::new();
    bench.store().append(kept::message(1, 1, b"never flushed").record(), Link::Alone);
    bench.settle();
    assert_eq!(durable(bench.store()), None);
    let (_, replayed) = bench.restart();
    assert_eq!(replayed, []);
}

fn a_chain_takes_effect_whole_or_not_at_all<B: Bench>() {
    let mut bench = B::new();
    let first = bench.store().append(kept::message(1, 1, b"alone").record(), Link::Alone);
    bench.store().append(kept::message(1, 2, b"first").record(), Link::WithNext);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    assert!(durable(bench.store()).is_none_or(|lsn| lsn == first), "an open chain is not durable");
    let last = bench.store().append(kept::settled(1, 1).record(), Link::Alone);
    bench.settle();
    assert_eq!(durable(bench.store()), Some(last), "the flush took effect when the chain ended");
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
    }
}

fn released_space_comes_back_oldest_first<B: Bench>() {
    let mut bench = B::new();
    let lsns: Vec<_> =
        (0..100).map(|seq| bench.store().append(kept::message(1, seq, &[7; 90]).record(), Link::Alone)).collect();
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().poll(&mut Vec::new());
    let full = bench.store().log_bytes();
    for &lsn in &lsns[1..] {
        bench.store().release(lsn);
    }
    bench.store().poll(&mut Vec::new());
    assert_eq!(bench.store().log_bytes(), full, "the oldest message holds all that came after it");
    bench.store().release(lsns[0]);
    bench.store().poll(&mut Vec::new());
    assert!(bench.store().log_bytes() < full / 4, "{} of {full}", bench.store().log_bytes());
    bench.settle();
    let (_, replayed) = bench.restart();
    assert!(replayed.len() < 25, "{} records came back", replayed.len());
}

fn space_is_kept_until_what_replaced_it_is_durable<B: Bench>() {
    let mut bench = B::new();
    let old: Vec<_> =
        (0..50).map(|seq| bench.store().append(kept::message(1, seq, &[7; 90]).record(), Link::Alone)).collect();
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().poll(&mut Vec::new());
    let full = bench.store().log_bytes();
    bench.store().append(kept::message(1, 0, b"again").record(), Link::Alone);
    for lsn in old {
        bench.store().release(lsn);
    }
    bench.store().poll(&mut Vec::new());
    assert!(bench.store().log_bytes() >= full);
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().poll(&mut Vec::new());
    assert!(bench.store().log_bytes() < full / 2);
    bench.settle();
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
    let fan_out = Kept::Message { places, moved_from: None, payload: b"three places".to_vec() };
    let lsn = bench.store().append(fan_out.record(), Link::Alone);
    for _ in 0..2 {
        bench.store().release(lsn);
        let filler = bench.store().append(kept::message(9, 9, &[0; 2000]).record(), Link::Alone);
        bench.store().release(filler);
        bench.store().flush(Urgency::Sync);
        bench.settle();
        bench.store().poll(&mut Vec::new());
        bench.settle();
    }
    let (_, replayed) = bench.restart();
    assert_eq!(replayed[0], (lsn, fan_out));
}

fn a_bloated_log_asks_for_its_oldest_survivors<B: Bench>() {
    let mut bench = B::new();
    let payload = [7; 400];
    let survivor = bench.store().append(kept::message(1, 0, &payload).record(), Link::Alone);
    let dead: Vec<_> =
        (1..200).map(|seq| bench.store().append(kept::message(1, seq, &payload).record(), Link::Alone)).collect();
    bench.store().flush(Urgency::Sync);
    bench.settle();
    bench.store().poll(&mut Vec::new());
    assert_eq!(bench.store().evacuate(80_000), None, "everything may be alive");
    for lsn in dead {
        bench.store().release(lsn);
    }
    let end = bench.store().evacuate(400).unwrap();
    assert!(survivor < end);
    bench.store().append(kept::message(1, 0, &payload).record(), Link::Alone);
    bench.store().release(survivor);
    assert_eq!(bench.store().evacuate(400), None, "its oldest part is already dead");
    bench.store().flush(Urgency::Lazy);
    bench.settle();
    bench.store().poll(&mut Vec::new());
    bench.settle();
    assert_eq!(bench.store().evacuate(400), None);
    let (_, replayed) = bench.restart();
    assert_eq!(replayed.last().unwrap().1, kept::message(1, 0, &payload));
    assert!(replayed.len() < 5);
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
    bench.store().poll(&mut Vec::new());
    assert_eq!(bench.store().unwritten_bytes(), 0);
}

fn close_makes_everything_durable<B: Bench>() {
    let mut bench = B::new();
    let lsn = bench.store().append(kept::fact("key", "value").record(), Link::Alone);
    bench.store().close();
    bench.settle();
    assert_eq!(durable(bench.store()), Some(lsn));
    let (_, replayed) = bench.restart();
    assert_eq!(replayed.len(), 1);
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
    released_space_comes_back_oldest_first,
    space_is_kept_until_what_replaced_it_is_durable,
    a_message_is_kept_for_each_of_its_places,
    a_bloated_log_asks_for_its_oldest_survivors,
    unwritten_bytes_are_those_that_wait,
    close_makes_everything_durable,
);
