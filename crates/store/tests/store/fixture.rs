//! Directories of every format there has been have to open, and today's code has to write today's format to the byte.
//!
//! A new format version gets a new fixture; the old ones are never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{Link, Lsn, MemoryDisk, Opened, Options, QueueId, Seq, SeqRange, Step, Store, StoreEvent, Urgency};

use crate::kept::{self, Kept};

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(version)
}

/// What the fixture of version 1 holds, in order.
fn records() -> Vec<Kept> {
    let mut records = kept::one_of_each();
    records.extend([
        kept::message(1, 1, b"a chain"),
        kept::settled(7, 1),
        kept::message(1, 2, &[b'x'; 700]),
        kept::fact("second", "epoch"),
    ]);
    records
}

/// Writes the log of version 3: two owners, of whom only the first closed it. A checkpoint of the first one counts, and
/// nothing lives in the first segments any more.
fn write_version_3() -> MemoryDisk {
    let records = records();
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, mut caretaker, .. } = kept::open(disk.clone(), 800).unwrap().0;
    let first = kept::commit(&mut log, &mut writer, &records[..10]);
    log.release(kept::one(first[1]), 5);
    (0..3).for_each(|_| log.release(kept::one(first[2]), 0));
    kept::commit(&mut log, &mut writer, &[kept::message(5, 1, b"lives on"), kept::message(1, 9, &[b'x'; 700])]);
    log.release(kept::one(first[9].plus(2)), 700);
    kept::checkpoint(&mut log, &pieces());
    kept::settle(&mut log, &mut writer, &mut caretaker);
    log.append(records[10].record(), Link::WithNext);
    log.append(records[11].record(), Link::Alone);
    log.append(kept::fleeting(1, 2, b"gone").record(), Link::Alone);
    log.flush(Urgency::Lazy);
    assert_eq!(writer.step(Duration::ZERO), Step::Wrote);
    kept::commit(&mut log, &mut writer, &records[12..13]);
    log.close();
    kept::settle(&mut log, &mut writer, &mut caretaker);
    let options = Options { reserve_bytes: 100, ..kept::options(800) };
    let Opened { mut log, mut writer, .. } = kept::open_with(disk.clone(), options).unwrap().0;
    kept::commit(&mut log, &mut writer, &records[13..]);
    let range = SeqRange { first: Seq(3), last: Seq(300) };
    let returned = Kept::Returned { queue: QueueId(1), range, attempts: 2, due_at_ms: 0 };
    kept::commit(&mut log, &mut writer, &[returned]);
    kept::commit(&mut log, &mut writer, &kept::due_ones());
    disk
}

/// What its checkpoint has.
fn pieces() -> Vec<Kept> {
    [kept::pieces(), kept::due_pieces()].concat()
}

fn disk_of(version: &str) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for entry in fs::read_dir(fixture(version)).unwrap() {
        let entry = entry.unwrap();
        disk.put(entry.file_name().to_str().unwrap(), fs::read(entry.path()).unwrap());
    }
    disk
}

#[test]
fn version_1_opens() {
    let (report, replayed) = kept::reopen(disk_of("v1")).unwrap();
    assert_eq!(replayed, records());
    assert_eq!((report.clean, report.cut, report.epoch), (false, None, 3));
}

#[test]
fn version_1_goes_on_as_the_version_of_today() {
    let disk = disk_of("v1");
    let before: Vec<_> = disk.names().into_iter().map(|name| (disk.file(&name).unwrap(), name)).collect();
    for round in 0..3 {
        let (Opened { mut log, mut writer, mut caretaker, .. }, replayed) = kept::open(disk.clone(), 800).unwrap();
        let expected = records().into_iter().chain(std::iter::repeat_n(kept::fact("round", ""), round));
        assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let lsns: Vec<_> = (0..).map(|more| Lsn::ZERO.plus(1 + more)).take(records().len()).collect();
        log.read(1, &lsns.into_iter().map(kept::one).collect::<Vec<_>>());
        kept::append_all(&mut log, &[kept::fact("round", "")]);
        log.flush(Urgency::Sync);
        let events = kept::settle(&mut log, &mut writer, &mut caretaker);
        let messages = events.iter().find_map(|event| match event {
            StoreEvent::Read { messages, .. } => Some(messages.len()),
            _ => None,
        });
        assert_eq!(messages, Some(5), "what was written in version 1 can be read");
        for (bytes, name) in &before {
            assert_eq!(disk.file(name).unwrap(), *bytes, "no old file is added to");
        }
        assert_eq!(disk.names().len(), before.len() + 1);
    }
    let newest = disk.names().pop().unwrap();
    assert_eq!(disk.file(&newest).unwrap()[8], 3);

    // With a checkpoint, the old segments go like any others.
    let Opened { mut log, mut writer, mut caretaker, .. } = kept::open(disk.clone(), 800).unwrap().0;
    kept::checkpoint(&mut log, &[]);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    assert!(disk.names().iter().all(|name| *name >= newest), "{:?}", disk.names());
    assert_eq!(kept::reopen(disk).unwrap().1, []);
}

#[test]
fn a_lost_segment_of_version_1_is_noticed() {
    let mut disk = disk_of("v1");
    kept::reopen(disk.clone()).unwrap();
    let first = disk.names()[0].clone();
    store::Disk::remove(&mut disk, &first).unwrap();
    let error = kept::reopen(disk).unwrap_err();
    assert!(error.to_string().contains(&first), "{error}");
}

#[test]
fn version_2_opens() {
    let (Opened { mut log, report, .. }, replayed) = kept::open(disk_of("v2"), 800).unwrap();
    let records = records();
    let range = SeqRange { first: Seq(3), last: Seq(300) };
    let returned = Kept::Returned { queue: QueueId(1), range, attempts: 2, due_at_ms: 0 };
    let mut expected = kept::pieces();
    expected.retain(|piece| !matches!(piece, Kept::Waiting { runs, .. } if runs.is_empty()));
    expected.extend(records[10..].iter().cloned().chain([returned]));
    assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), expected);
    assert_eq!((report.clean, report.cut, report.epoch), (false, None, 3));
    log.retain(kept::one(Lsn::ZERO.plus(11)), 8);
    log.check_retained().unwrap();
    log.retain(kept::one(Lsn::ZERO.plus(12)), 700);
    assert!(log.check_retained().unwrap_err().to_string().contains("0000000000000002.log"));
}

/// Version 2 had nothing that is due at a time.
#[test]
fn version_2_goes_on_as_the_version_of_today() {
    let disk = disk_of("v2");
    let names = disk.names().into_iter().filter(|name| name != "reserve");
    let before: Vec<_> = names.map(|name| (disk.file(&name).unwrap(), name)).collect();
    let (Opened { mut log, mut writer, .. }, was) = kept::open(disk.clone(), 800).unwrap();
    kept::commit(&mut log, &mut writer, &kept::due_ones());
    for (bytes, name) in &before {
        assert_eq!(disk.file(name).unwrap(), *bytes, "no old file is added to");
    }
    assert_eq!(disk.file(disk.names().iter().rfind(|name| name.ends_with(".log")).unwrap()).unwrap()[8], 3);
    let (_, replayed) = kept::open(disk, 800).unwrap();
    let expected: Vec<_> = was.into_iter().map(|(_, kept)| kept).chain(kept::due_ones()).collect();
    assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), expected);
}

#[test]
fn version_3_opens() {
    let (Opened { report, .. }, replayed) = kept::open(disk_of("v3"), 800).unwrap();
    let records = records();
    let range = SeqRange { first: Seq(3), last: Seq(300) };
    let returned = Kept::Returned { queue: QueueId(1), range, attempts: 2, due_at_ms: 0 };
    let mut expected = pieces();
    expected.retain(|piece| !matches!(piece, Kept::Waiting { runs, .. } if runs.is_empty()));
    expected.extend(records[10..].iter().cloned().chain([returned]).chain(kept::due_ones()));
    assert_eq!(replayed.into_iter().map(|(_, kept)| kept).collect::<Vec<_>>(), expected);
    assert_eq!((report.clean, report.cut, report.epoch), (false, None, 3));
}

#[test]
fn version_3_is_what_is_written() {
    let disk = write_version_3();
    assert_eq!(disk.names().len(), fs::read_dir(fixture("v3")).unwrap().count());
    for name in disk.names() {
        assert_eq!(kept::written(&disk, &name), fs::read(fixture("v3").join(&name)).unwrap(), "{name}");
    }
}
