//! The writer: one sync for everybody, an age for the others, and silence after a failure.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use store::{
    Due, Fault, FileDisk, LAZY_SYNC_AFTER, Link, Lsn, MemoryDisk, Opened, SegmentLog, SharedWriter, Step, Store,
    StoreEvent, Urgency, Writer,
};

use crate::kept::{self, Kept};

fn open() -> (MemoryDisk, SegmentLog, Writer<MemoryDisk>) {
    let disk = MemoryDisk::new();
    let Opened { log, writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    (disk, log, writer)
}

fn publish(log: &mut SegmentLog, seq: u64, urgency: Urgency) -> Lsn {
    let lsn = log.append(kept::message(1, seq, b"payload of a job").record(), Link::Alone);
    log.flush(urgency);
    lsn
}

fn last_file(disk: &MemoryDisk) -> Vec<u8> {
    disk.file(disk.names().last().unwrap()).unwrap()
}

fn written(disk: &MemoryDisk) -> usize {
    kept::written(disk, disk.names().last().unwrap()).len()
}

#[test]
fn one_write_and_one_sync_serve_every_flush_before_them() {
    let (disk, mut log, mut writer) = open();
    let (syncs, operations) = (disk.syncs(), disk.operations());
    let last = (0..1000).map(|seq| publish(&mut log, seq, Urgency::Sync)).last().unwrap();
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(disk.syncs() - syncs, 1);
    assert_eq!(disk.operations() - operations, 3, "the batch, the room behind it, the sync");
    assert_eq!(kept::events(&mut log), [StoreEvent::Durable(last)]);
    assert_eq!(writer.step(Duration::ZERO), Step::Idle);
}

#[test]
fn what_is_synced_goes_into_room_that_was_made_before() {
    let (disk, mut log, mut writer) = open();
    publish(&mut log, 0, Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    let (first, room) = (last_file(&disk).len(), 4096);
    assert_eq!(first, written(&disk) + room);
    let mut seq = 1;
    while written(&disk) + 200 < first {
        publish(&mut log, seq, Urgency::Sync);
        let operations = disk.operations();
        assert_eq!(writer.step(Duration::ZERO), Step::Synced);
        assert_eq!((disk.operations() - operations, last_file(&disk).len()), (2, first));
        seq += 1;
    }
    for seq in seq..seq + 10 {
        publish(&mut log, seq, Urgency::Sync);
    }
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(last_file(&disk).len(), written(&disk) + room);
}

#[test]
fn no_room_is_made_behind_large_batches_nor_where_nobody_waits_for_a_sync() {
    let (disk, mut log, mut writer) = open();
    publish(&mut log, 0, Urgency::Lazy);
    assert_eq!(writer.step(Duration::ZERO), Step::Wrote);
    assert_eq!(last_file(&disk).len(), written(&disk));
    log.append(kept::message(1, 1, &[1; 40_000]).record(), Link::Alone);
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(last_file(&disk).len(), written(&disk));
}

#[test]
fn room_is_given_back_by_a_close_by_the_next_segment_and_by_an_open() {
    let (disk, mut log, mut writer) = open();
    publish(&mut log, 0, Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    let with_room = last_file(&disk);
    log.close();
    assert_eq!(writer.step(Duration::ZERO), Step::Closed);
    assert_eq!(last_file(&disk).len(), written(&disk));

    let name = disk.names().pop().unwrap();
    disk.put(&name, with_room);
    let (Opened { mut log, mut writer, report, .. }, replayed) = kept::open(disk.clone(), 1 << 20).unwrap();
    assert_eq!((replayed.len(), report.cut, report.clean), (1, None, false));
    assert_eq!(last_file(&disk).len(), written(&disk));

    publish(&mut log, 1, Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert!(last_file(&disk).len() > written(&disk));
    for seq in 2..4 {
        log.append(kept::message(1, seq, &[1; 1 << 20]).record(), Link::Alone);
    }
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert!(disk.names().len() > 1);
    for name in disk.names() {
        assert_eq!(disk.file(&name).unwrap(), kept::written(&disk, &name), "{name}");
    }
}

#[test]
fn records_that_begin_as_room_does_are_read_once() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 4 << 20).unwrap().0;
    // With what stands before it, a payload that makes a body of 246 bytes: the length begins with that byte.
    for seq in 1000..5000 {
        log.append(kept::message(1, seq, &[1; 240]).record(), Link::Alone);
    }
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    let bytes = last_file(&disk);
    assert!(bytes.windows(4).filter(|window| *window == [kept::ROOM, 0, 0, 0]).count() >= 4000);
    let before = disk.operations();
    let (_, replayed) = kept::reopen(disk.clone()).unwrap();
    assert_eq!(replayed.len(), 4000);
    let operations = disk.operations() - before;
    assert!(operations < 40, "{operations} for {} bytes", bytes.len());
}

#[test]
fn a_disk_that_has_no_room_beforehand_takes_what_fits() {
    let (disk, mut log, mut writer) = open();
    let used: usize = disk.names().iter().map(|name| disk.file(name).unwrap().len()).sum();
    disk.set_capacity(Some(used as u64 + 500));
    let last = publish(&mut log, 0, Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(kept::events(&mut log), [StoreEvent::Durable(last)]);
    let last = publish(&mut log, 1, Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(kept::events(&mut log), [StoreEvent::Durable(last)]);
    let (_, replayed) = kept::reopen(disk).unwrap();
    assert_eq!(replayed.len(), 2);
}

#[test]
fn a_small_message_costs_little_more_than_itself() {
    let (disk, mut log, mut writer) = open();
    let before = last_file(&disk).len();
    for seq in 0..1000 {
        publish(&mut log, 1_000_000 + seq, Urgency::Sync);
    }
    writer.step(Duration::ZERO);
    let each = (last_file(&disk).len() - before) / 1000;
    assert!(each <= 16 + 20, "{each} bytes for a body of 16");
    assert_eq!(log.log_bytes(), last_file(&disk).len() as u64);
}

#[test]
fn what_nobody_waits_for_is_written_now_and_synced_in_time() {
    let (disk, mut log, mut writer) = open();
    let syncs = disk.syncs();
    let start = Duration::from_secs(100);
    publish(&mut log, 1, Urgency::Lazy);
    assert_eq!(writer.step(start), Step::Wrote);
    assert!(kept::events(&mut log).is_empty());
    assert_eq!(log.unwritten_bytes(), 0);
    let last = publish(&mut log, 2, Urgency::Lazy);
    let almost = start + LAZY_SYNC_AFTER - Duration::from_millis(1);
    assert_eq!(writer.step(almost), Step::Wrote, "later data does not make the first older");
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(writer.step(start + LAZY_SYNC_AFTER), Step::Synced);
    assert_eq!(kept::events(&mut log), [StoreEvent::Durable(last)]);
    assert_eq!(writer.step(start + 9 * LAZY_SYNC_AFTER), Step::Idle);
}

#[test]
fn a_sync_covers_what_was_flushed_lazily_before() {
    let (_, mut log, mut writer) = open();
    let lsn = publish(&mut log, 1, Urgency::Lazy);
    writer.step(Duration::ZERO);
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(kept::events(&mut log), [StoreEvent::Durable(lsn)]);
}

#[test]
fn a_record_longer_than_a_segment_has_one_of_its_own() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1000).unwrap().0;
    let records: Vec<_> = [10, 5_000_000, 10].map(|bytes| kept::message(1, bytes as u64, &vec![3; bytes])).into();
    kept::commit(&mut log, &mut writer, &records);
    assert_eq!(disk.names().len(), 3);
    assert_eq!(kept::reopen(disk).unwrap().1, records);
}

#[test]
fn a_long_chain_stays_in_one_segment() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1000).unwrap().0;
    for seq in 0..99 {
        log.append(kept::message(1, seq, &[9; 100]).record(), Link::WithNext);
    }
    log.append(kept::message(1, 99, b"end").record(), Link::Alone);
    log.append(kept::message(1, 100, b"next").record(), Link::Alone);
    log.flush(Urgency::Sync);
    kept::drain(&mut writer);
    assert_eq!(disk.names().len(), 2);
    assert_eq!(kept::reopen(disk).unwrap().1.len(), 101);
}

#[test]
fn every_failure_is_said_once_and_nothing_is_written_after_it() {
    for fault in [Fault::Error, Fault::ErrorAfter] {
        for operation in 1..20 {
            let disk = MemoryDisk::new();
            let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 300).unwrap().0;
            disk.inject(disk.operations() + operation, fault);
            let mut lsns = Vec::new();
            let mut durable = Lsn::ZERO;
            let mut failures = Vec::new();
            for seq in 0..12 {
                let lsn = log.append(kept::message(1, seq, &[1; 100]).record(), Link::Alone);
                log.release(kept::one(lsn), 100);
                lsns.push(lsn);
                log.flush(Urgency::Sync);
                let step = writer.step(Duration::ZERO);
                assert!(step != Step::Failed || !failures.is_empty() || log.unwritten_bytes() > 0);
                for event in kept::events(&mut log) {
                    match event {
                        StoreEvent::Durable(lsn) => {
                            assert!(failures.is_empty(), "nothing is durable after a failure");
                            durable = lsn;
                        }
                        StoreEvent::Failed(why) => failures.push(why),
                        other => panic!("nobody asked for {other:?}"),
                    }
                }
            }
            assert_eq!(failures.len(), 1, "operation {operation}");
            let why = &failures[0];
            assert!(
                why.starts_with("cannot ") && why.contains("memory:0") && why.contains("restart recovers"),
                "{why}"
            );
            let operations = disk.operations();
            assert_eq!(writer.step(Duration::from_secs(1)), Step::Failed);
            log.close();
            assert_eq!(writer.step(Duration::from_secs(2)), Step::Failed);
            assert_eq!(disk.operations(), operations, "it touched the disk again");
            disk.crash(&mut |_| 1);
            let (_, replayed) = kept::open(disk, 300).unwrap();
            assert!(replayed.last().is_none_or(|(lsn, _)| *lsn >= durable));
        }
    }
}

#[test]
fn short_writes_are_carried_on() {
    let (disk, mut log, mut writer) = open();
    for operation in 1..5 {
        disk.inject(disk.operations() + operation, Fault::Short);
    }
    let records = kept::one_of_each();
    kept::commit(&mut log, &mut writer, &records);
    disk.crash(&mut |_| 1);
    assert_eq!(kept::reopen(disk).unwrap().1, records);
}

/// Starts the writer on a thread; the receiver hears of each round with news.
fn spawn<D: store::Disk + Send + 'static>(writer: SharedWriter<D>) -> (thread::JoinHandle<()>, mpsc::Receiver<()>) {
    let (news, heard) = mpsc::channel();
    let start = Instant::now();
    let thread = thread::spawn(move || {
        writer.run(
            move || start.elapsed(),
            move || {
                let _ = news.send(());
            },
        );
    });
    (thread, heard)
}

/// Waits for the news that everything up to `lsn` is durable.
fn wait_for(log: &mut SegmentLog, heard: &mpsc::Receiver<()>, lsn: Lsn) {
    while !kept::events(log).contains(&StoreEvent::Durable(lsn)) {
        heard.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

#[test]
fn the_owner_does_a_round_itself_or_wakes_the_thread() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { mut log, writer, .. } = kept::open(FileDisk::open(directory.path()).unwrap(), 4000).unwrap().0;
    let writer = SharedWriter::new(writer);
    writer.attend();
    assert_eq!(writer.due(), Due::Nothing);
    let lsn = publish(&mut log, 1, Urgency::Lazy);
    assert_eq!(writer.due(), Due::Write);
    log.flush(Urgency::Sync);
    assert!(matches!(writer.due(), Due::Sync(bytes) if bytes > 0));
    assert_eq!(writer.try_step(Duration::ZERO), Some(Step::Synced));
    assert_eq!(writer.due(), Due::Nothing);
    assert!(kept::events(&mut log).contains(&StoreEvent::Durable(lsn)));

    let (thread, heard) = spawn(writer.clone());
    for seq in 2..200 {
        let lsn = publish(&mut log, seq, Urgency::Sync);
        if seq % 3 == 0 || writer.try_step(Duration::ZERO).is_none() {
            writer.wake();
        }
        wait_for(&mut log, &heard, lsn);
    }
    log.close();
    thread.join().unwrap();
    assert_eq!(writer.try_step(Duration::ZERO), Some(Step::Closed), "and does nothing more");
    let (report, replayed) = kept::reopen(FileDisk::open(directory.path()).unwrap()).unwrap();
    assert!(report.clean);
    assert_eq!(replayed.len(), 199);
}

#[test]
fn a_thread_writes_syncs_and_ends_with_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { mut log, writer, .. } = kept::open(FileDisk::open(directory.path()).unwrap(), 4000).unwrap().0;
    let (thread, heard) = spawn(SharedWriter::new(writer));
    for seq in 0..200 {
        let lsn = publish(&mut log, seq, if seq % 3 == 0 { Urgency::Sync } else { Urgency::Lazy });
        if seq % 50 == 0 {
            log.flush(Urgency::Sync);
            wait_for(&mut log, &heard, lsn);
        }
    }
    log.close();
    thread.join().unwrap();
    let Opened { mut log, writer, report, .. } = kept::open(FileDisk::open(directory.path()).unwrap(), 4000).unwrap().0;
    assert!(report.clean);
    assert_eq!(report.records, 200);

    let (thread, heard) = spawn(SharedWriter::new(writer));
    let lazy = publish(&mut log, 200, Urgency::Lazy);
    wait_for(&mut log, &heard, lazy);
    publish(&mut log, 201, Urgency::Lazy);
    drop(log);
    thread.join().unwrap();
    let (report, replayed) = kept::reopen(FileDisk::open(directory.path()).unwrap()).unwrap();
    assert!(!report.clean, "it was dropped, not closed");
    assert_eq!(replayed.len(), 202);
}

#[test]
fn a_thread_ends_after_a_failure() {
    let (disk, mut log, writer) = open();
    disk.inject(disk.operations() + 2, Fault::ErrorAfter);
    let (thread, heard) = spawn(SharedWriter::new(writer));
    publish(&mut log, 1, Urgency::Sync);
    thread.join().unwrap();
    heard.recv_timeout(Duration::from_secs(30)).unwrap();
    let events = kept::events(&mut log);
    assert!(events.iter().any(|event| matches!(event, StoreEvent::Failed(_))), "{events:?}");
}

#[test]
fn progress_is_told_to_the_end() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1000).unwrap().0;
    kept::commit(&mut log, &mut writer, &vec![kept::message(1, 1, &[0; 500]); 10]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let progress = move |progress: store::Progress| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert!(progress.read_bytes <= progress.total_bytes && progress.total_bytes > 5000);
    };
    let options = store::Options { progress: Some(Box::new(progress)), ..kept::options(1000) };
    let mut records: Vec<Kept> = Vec::new();
    store::SegmentLog::open(disk.clone(), options, &mut |_, record| records.push(record.into())).unwrap();
    assert_eq!(records.len(), 10);
    assert_eq!(calls.load(Ordering::Relaxed), disk.names().len());
}
