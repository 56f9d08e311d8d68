//! Checkpoints and what they stand for: torn, rotten or lost ones, segments that are missing, footers that are damaged,
//! and reads of what a restart did not look at.

use std::time::Duration;

use store::{Caretaker, Disk, Fault, Lsn, MemoryDisk, OpenError, Opened, SegmentLog, Step, Store, StoreEvent};
use store::{Urgency, Writer};

use crate::kept::{self, Kept};
use crate::ledger::Ledger;

struct Bench {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
    ledger: Ledger,
}

impl Bench {
    fn open(disk: MemoryDisk) -> Bench {
        let (Opened { mut log, writer, caretaker, .. }, replayed) = kept::open(disk.clone(), SEGMENT_BYTES).unwrap();
        let mut ledger = Ledger::default();
        replayed.iter().for_each(|(lsn, kept)| ledger.apply(*lsn, kept, &mut |_, _| {}));
        ledger.retain(&mut log);
        log.check_retained().unwrap();
        Bench { disk, log, writer, caretaker, ledger }
    }

    fn publish(&mut self, from: u64, count: u64) {
        for seq in from..from + count {
            let kept = kept::message(1, seq, &[seq as u8; 90]);
            crate::ledger::record(&mut self.log, &mut self.ledger, &kept, store::Link::Alone);
        }
        self.log.flush(Urgency::Sync);
        self.settle();
    }

    fn acknowledge(&mut self, from: u64, count: u64) {
        for seq in from..from + count {
            crate::ledger::record(&mut self.log, &mut self.ledger, &kept::settled(1, seq), store::Link::Alone);
        }
        self.log.flush(Urgency::Sync);
        self.settle();
    }

    fn settle(&mut self) -> Vec<StoreEvent> {
        kept::settle(&mut self.log, &mut self.writer, &mut self.caretaker)
    }

    fn checkpoint(&mut self) {
        kept::checkpoint(&mut self.log, &self.ledger.pieces());
        self.settle();
    }

    fn read_all(&mut self) -> Vec<StoreEvent> {
        self.log.read(1, &self.ledger.ranges());
        self.settle()
    }

    fn segments(&self) -> Vec<String> {
        self.names(".log")
    }

    fn indexes(&self) -> Vec<String> {
        self.names(".index")
    }

    fn names(&self, suffix: &str) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name.ends_with(suffix)).collect()
    }
}

/// Another disk with the same files.
fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let other = MemoryDisk::new();
    disk.names().iter().for_each(|name| other.put(name, disk.file(name).unwrap()));
    other
}

/// A log of which a checkpoint covers 60 messages, and 5 came after it. The first half of the 60 is settled.
fn sample() -> Bench {
    let mut bench = Bench::open(MemoryDisk::new());
    bench.publish(0, 60);
    bench.acknowledge(0, 30);
    bench.checkpoint();
    bench.publish(60, 5);
    assert!(bench.segments()[0].as_str() > "0000000000000002.log" && bench.indexes().len() == 1);
    bench
}

const SEGMENT_BYTES: u64 = 1000;

#[test]
fn a_restart_finds_all_and_reads_little() {
    let mut operations = Vec::new();
    for messages in [60, 600] {
        let mut bench = Bench::open(MemoryDisk::new());
        bench.publish(0, messages);
        bench.checkpoint();
        let before = bench.disk.operations();
        let mut again = Bench::open(bench.disk.clone());
        operations.push(bench.disk.operations() - before);
        let events = again.read_all();
        assert!(matches!(&events[..], [StoreEvent::Read { messages: all, .. }] if all.len() as u64 == messages));
        again.ledger.visible();
        assert_eq!(again.segments(), bench.segments());
    }
    assert_eq!(operations[0], operations[1], "what lies before the checkpoint is not touched");
}

#[test]
fn an_unfinished_checkpoint_is_removed() {
    let mut bench = Bench::open(MemoryDisk::new());
    bench.publish(0, 30);
    let mut whole = Bench::open(copy(&bench.disk));
    whole.checkpoint();
    let index = whole.indexes()[0].clone();
    let bytes = whole.disk.file(&index).unwrap();
    for length in 0..bytes.len() {
        // With all segments there, as they are until it is finished.
        let disk = copy(&whole.disk);
        disk.put(&index, bytes[..length].to_vec());
        let again = Bench::open(disk);
        assert_eq!(again.ledger.ranges(), bench.ledger.ranges());
        assert_eq!(again.indexes().len(), 0);
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_unless_the_log_is_all_there() {
    let bench = sample();
    let index = bench.indexes()[0].clone();
    let bytes = bench.disk.file(&index).unwrap();
    let files: Vec<_> = bench.disk.names();
    for offset in 0..bytes.len() {
        for bit in 0..8 {
            let disk = copy(&bench.disk);
            disk.flip(&index, offset, bit);
            let error = kept::reopen(disk.clone()).unwrap_err();
            assert!(error.to_string().contains(&format!("memory:{index}")), "byte {offset}: {error}");
            assert!(matches!(error, OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }), "{error}");
            assert_eq!(disk.names(), files, "nothing was changed");
        }
        let disk = copy(&bench.disk);
        disk.put(&index, bytes[..offset].to_vec());
        assert!(matches!(kept::reopen(disk), Err(OpenError::Corrupt { .. })), "{offset} bytes");
    }
}

#[test]
fn a_lost_checkpoint_is_noticed() {
    let bench = sample();
    let mut disk = copy(&bench.disk);
    disk.remove(&bench.indexes()[0]).unwrap();
    let error = kept::reopen(disk).unwrap_err();
    assert!(error.to_string().contains("0000000000000001.log, at byte 0: the file is missing"), "{error}");
}

#[test]
fn the_checkpoint_before_counts_until_its_successor_is_whole() {
    let mut bench = sample();
    let before = copy(&bench.disk);
    let index = bench.indexes()[0].clone();
    bench.checkpoint();
    let newer = bench.indexes()[0].clone();
    assert!(newer > index);
    let bytes = bench.disk.file(&newer).unwrap();
    for length in [0, 10, 44, 60, bytes.len() - 1, bytes.len()] {
        let disk = copy(&bench.disk);
        for name in before.names() {
            if disk.file(&name).is_none() {
                disk.put(&name, before.file(&name).unwrap());
            }
        }
        disk.put(&newer, bytes[..length].to_vec());
        let mut again = Bench::open(disk);
        assert_eq!(again.indexes(), [if length == bytes.len() { &newer } else { &index }.clone()]);
        assert_eq!(again.ledger.ranges(), bench.ledger.ranges());
        let events = again.read_all();
        assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 35));
    }
}

#[test]
fn a_checkpoint_that_was_never_synced_replaces_nothing() {
    for operation in 1..40 {
        let mut bench = sample();
        kept::checkpoint(&mut bench.log, &bench.ledger.pieces());
        assert_eq!(bench.writer.step(Duration::ZERO), Step::Synced);
        let syncs = bench.disk.syncs();
        // The file, its beginning, its pieces, its end, and the sync that fails.
        bench.disk.inject(bench.disk.operations() + 5, Fault::Error);
        while bench.caretaker.step(Duration::ZERO) != Step::Failed {}
        assert_eq!((bench.disk.syncs(), bench.indexes().len()), (syncs, 2));
        // The process ends and another one begins, then the power fails.
        bench.disk.inject(bench.disk.operations() + operation, Fault::Error);
        let _ = kept::open(bench.disk.clone(), SEGMENT_BYTES);
        bench.disk.crash(&mut |_| 1);
        let mut again = Bench::open(bench.disk.clone());
        assert_eq!(again.ledger.ranges(), bench.ledger.ranges(), "operation {operation}");
        again.read_all();
    }
}

#[test]
fn what_no_checkpoint_knows_is_removed() {
    let mut bench = sample();
    bench.checkpoint();
    let disk = copy(&bench.disk);
    disk.put("0000000000000001.log", b"it was dead, and the power failed before it was gone".to_vec());
    let again = Bench::open(disk);
    assert_eq!(again.segments(), bench.segments());
}

#[test]
fn a_missing_segment_is_noticed_if_anything_is_in_it() {
    let bench = sample();
    for name in bench.segments() {
        let mut disk = copy(&bench.disk);
        disk.remove(&name).unwrap();
        let error = match kept::open(disk, SEGMENT_BYTES) {
            Err(error) => error,
            Ok((Opened { mut log, .. }, replayed)) => {
                let mut ledger = Ledger::default();
                replayed.iter().for_each(|(lsn, kept)| ledger.apply(*lsn, kept, &mut |_, _| {}));
                log.check_retained().unwrap();
                ledger.retain(&mut log);
                log.check_retained().unwrap_err()
            }
        };
        assert!(matches!(error, OpenError::Corrupt { .. }) && error.to_string().contains(&name), "{name}: {error}");
    }
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let mut bench = Bench::open(MemoryDisk::new());
    bench.publish(0, 20);
    bench.log.begin_checkpoint();
    bench.publish(20, 3);
    bench.ledger.pieces().iter().for_each(|piece| bench.log.checkpoint(piece.record()));
    bench.log.end_checkpoint();
    bench.settle();
    let last = bench.segments().pop().unwrap();
    let bytes = kept::written(&bench.disk, &last);
    for length in 0..bytes.len() {
        let disk = copy(&bench.disk);
        disk.put(&last, bytes[..length].to_vec());
        assert!(matches!(kept::reopen(disk), Err(OpenError::Corrupt { .. })), "{length} bytes");
    }
}

#[test]
fn a_damaged_footer_is_done_without() {
    let bench = sample();
    let name = &bench.segments()[1];
    let bytes = bench.disk.file(name).unwrap();
    let (_, [l0, l1, ..]) = bytes.split_last_chunk::<8>().unwrap();
    let footer_at = bytes.len() - usize::from(u16::from_le_bytes([*l0, *l1]));
    for offset in footer_at..bytes.len() {
        let disk = copy(&bench.disk);
        disk.flip(name, offset, (offset % 8) as u8);
        let events = Bench::open(disk).read_all();
        assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 35), "{events:?}");
        let disk = copy(&bench.disk);
        disk.put(name, bytes[..offset].to_vec());
        let events = Bench::open(disk).read_all();
        assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 35), "{events:?}");
    }
    for offset in 0..footer_at {
        let disk = copy(&bench.disk);
        disk.flip(name, offset, (offset % 8) as u8);
        let mut again = Bench::open(disk);
        for event in again.read_all() {
            match event {
                // What is damaged may lie before the first message that is wanted.
                StoreEvent::Read { messages, .. } => again.ledger.hear_read(&messages),
                StoreEvent::Failed(why) => {
                    assert!(why.contains(&format!("cannot read memory:{name}: at byte ")), "{why}");
                    assert!(why.contains("leveret store verify"), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_read_that_fails_is_tried_once_more() {
    for failures in [1, 2] {
        let mut bench = Bench::open(sample().disk);
        for failure in 1..=failures {
            bench.disk.inject(bench.disk.operations() + failure, Fault::Error);
        }
        let events = bench.read_all();
        match failures {
            1 => assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 35)),
            _ => assert!(matches!(&events[..], [StoreEvent::Failed(_)]), "{events:?}"),
        }
    }
    let mut bench = Bench::open(sample().disk);
    for short in 1..20 {
        bench.disk.inject(bench.disk.operations() + short, Fault::Short);
    }
    let events = bench.read_all();
    assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 35), "{events:?}");
}

#[test]
fn every_failure_of_the_caretaker_stops_the_log() {
    let mut is_over = false;
    for operation in 1.. {
        let bench = sample();
        let Bench { disk, mut log, mut writer, mut caretaker, mut ledger } = bench;
        let mut last = Lsn::ZERO;
        for seq in 40..60 {
            last = crate::ledger::record(&mut log, &mut ledger, &kept::settled(1, seq), store::Link::Alone);
        }
        kept::checkpoint(&mut log, &ledger.pieces());
        assert_eq!(writer.step(Duration::ZERO), Step::Synced);
        assert_eq!(kept::events(&mut log), [StoreEvent::Durable(last)]);
        let before = disk.operations();
        disk.inject(before + operation, Fault::Error);
        let mut has_failed = false;
        for _ in 0..20 {
            has_failed |= caretaker.step(Duration::ZERO) == Step::Failed;
            for event in kept::events(&mut log) {
                assert!(matches!(event, StoreEvent::Failed(_)));
            }
        }
        if disk.operations() < before + operation {
            is_over = true;
            break;
        }
        assert!(has_failed, "operation {operation}");
        assert_eq!(writer.step(Duration::ZERO), Step::Failed);
        disk.crash(&mut |_| 1);
        let again = Bench::open(disk);
        assert_eq!(again.ledger.ranges(), ledger.ranges(), "operation {operation}");
    }
    assert!(is_over);
}

#[test]
fn chunks_of_many_messages_are_split_into_records() {
    let run = match &kept::pieces()[2] {
        Kept::Waiting { runs, .. } => runs[0],
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::open(MemoryDisk::new());
    let runs: Vec<_> = (0..100_000u64)
        .map(|nth| store::Run { seq: store::Seq(nth), lsn: Lsn::ZERO.plus(1 + nth * 1000), ..run })
        .collect();
    kept::checkpoint(&mut bench.log, &[Kept::Waiting { queue: store::QueueId(1), runs: runs.clone() }]);
    bench.settle();
    let index = bench.disk.file(&bench.indexes()[0]).unwrap();
    assert!(index.len() < 6 * runs.len(), "{} bytes", index.len());
    let (_, replayed) = kept::reopen(bench.disk).unwrap();
    let replayed: Vec<_> = replayed
        .into_iter()
        .flat_map(|kept| match kept {
            Kept::Waiting { runs, .. } => runs,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(replayed, runs);
}

#[test]
fn pieces_wait_for_those_before_them_to_be_written() {
    let (mut log, mut writer, mut caretaker) = {
        let Opened { log, writer, caretaker, .. } = kept::open(MemoryDisk::new(), 6400).unwrap().0;
        (log, writer, caretaker)
    };
    log.begin_checkpoint();
    let mut pieces = 0;
    while !log.checkpoint_is_behind() {
        log.checkpoint(kept::fact(&format!("{pieces}"), "value").record());
        pieces += 1;
    }
    assert!((10..100).contains(&pieces), "{pieces}");
    kept::settle(&mut log, &mut writer, &mut caretaker);
    assert!(!log.checkpoint_is_behind());
    log.end_checkpoint();
    kept::settle(&mut log, &mut writer, &mut caretaker);
    assert!(!log.checkpoint_is_behind() && log.replay_bytes() < 6400);
}
