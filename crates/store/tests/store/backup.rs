//! A copy of a log in use: what was durable is in it, and nothing that it needs goes while it is made.

use std::thread;
use std::time::Duration;

use store::{BackupSource, Caretaker, Disk, Hold, Inspection, Link, Lsn, MemoryDisk, Opened, Store, Urgency};

use crate::kept::{self, Kept};

/// Holds the log while its caretaker is driven by hand.
fn hold(source: &BackupSource, caretaker: &mut Caretaker<MemoryDisk>) -> Option<Hold> {
    let source = source.clone();
    let holder = thread::spawn(move || source.hold());
    while !holder.is_finished() {
        caretaker.step(Duration::ZERO);
        thread::yield_now();
    }
    holder.join().unwrap()
}

fn copy_of(hold: &Hold, cut: store::BackupCut, disk: &MemoryDisk) -> MemoryDisk {
    let mut copy = MemoryDisk::new();
    let mut copied = 0;
    let each = &mut |bytes| {
        copied += bytes;
        Ok(())
    };
    store::copy(hold, cut, &mut disk.clone(), &mut copy, each).unwrap();
    assert_eq!(copied, cut.bytes(&mut disk.clone()).unwrap());
    copy
}

fn messages(disk: &MemoryDisk) -> Vec<Kept> {
    let (_, replayed) = kept::reopen(disk.clone()).unwrap();
    replayed.into_iter().filter(|kept| matches!(kept, Kept::Message { .. })).collect()
}

#[test]
fn a_copy_has_what_was_durable_and_opens() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, mut caretaker, backup, .. } = kept::open(disk.clone(), 1 << 10).unwrap().0;
    let records: Vec<_> = (1..=20).map(|seq| kept::message(1, seq, &[b'x'; 150])).collect();
    kept::commit(&mut log, &mut writer, &records[..10]);
    let hold = hold(&backup, &mut caretaker).unwrap();
    let holds = [hold];
    let cut = store::cut(&holds)[0];
    // The log goes on, into later segments.
    kept::commit(&mut log, &mut writer, &records[10..]);
    let copy = copy_of(&holds[0], cut, &disk);
    assert_eq!(Inspection::new(copy.clone()).walk(&mut |_| {}, None).unwrap().problems, []);
    assert_eq!(messages(&copy), records[..10]);
}

#[test]
fn what_a_copy_needs_stays_until_it_is_made() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, mut caretaker, backup, .. } = kept::open(disk.clone(), 1 << 10).unwrap().0;
    let records: Vec<_> = (1..=10).map(|seq| kept::message(1, seq, &[b'x'; 300])).collect();
    let lsns = kept::commit(&mut log, &mut writer, &records);
    kept::checkpoint(&mut log, &[]);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    let before = disk.names();
    let holds = [hold(&backup, &mut caretaker).unwrap()];
    let cut = store::cut(&holds)[0];
    lsns.iter().for_each(|lsn: &Lsn| log.release(kept::one(*lsn), 300));
    log.append(kept::settled(1, 1).record(), Link::Alone);
    log.flush(Urgency::Sync);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    kept::checkpoint(&mut log, &[]);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    let during = disk.names();
    assert!(before.iter().all(|name| during.contains(name)), "{before:?}, {during:?}");
    let copy = copy_of(&holds[0], cut, &disk);
    assert_eq!(copy.clone().list().unwrap().len(), before.iter().filter(|name| *name != "reserve").count());
    kept::reopen(copy).unwrap();
    drop(holds);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    let after = disk.names();
    assert!(before.iter().any(|name| !after.contains(name)), "{before:?}, {after:?}");
    assert_eq!(after.iter().filter(|name| name.ends_with(".index")).count(), 1, "{after:?}");
}

#[test]
fn a_log_that_is_closed_is_not_copied_and_a_copy_keeps_no_log_open() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, mut caretaker, backup, .. } = kept::open(disk.clone(), 1 << 10).unwrap().0;
    let holds = [hold(&backup, &mut caretaker).unwrap()];
    log.close();
    kept::settle(&mut log, &mut writer, &mut caretaker);
    drop(holds);
    assert!(hold(&backup, &mut caretaker).is_none());
    kept::reopen(disk).unwrap();
}
