//! Directories of every format there has been have to open, and today's code has to write today's format to the byte.
//!
//! A new format version gets a new fixture; the old ones are never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{Link, MemoryDisk, Opened, Step, Store, Urgency};

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

/// Writes it again: two owners, of whom only the first closed the log, over three segments.
fn write() -> MemoryDisk {
    let records = records();
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 800).unwrap().0;
    kept::commit(&mut log, &mut writer, &records[..10]);
    log.append(records[10].record(), Link::WithNext);
    log.append(records[11].record(), Link::Alone);
    log.flush(Urgency::Lazy);
    assert_eq!(writer.step(Duration::ZERO), Step::Wrote);
    kept::commit(&mut log, &mut writer, &records[12..13]);
    log.close();
    assert_eq!(writer.step(Duration::ZERO), Step::Closed);
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 800).unwrap().0;
    kept::commit(&mut log, &mut writer, &records[13..]);
    disk
}

#[test]
fn version_1_opens() {
    let disk = MemoryDisk::new();
    for entry in fs::read_dir(fixture("v1")).unwrap() {
        let entry = entry.unwrap();
        disk.put(entry.file_name().to_str().unwrap(), fs::read(entry.path()).unwrap());
    }
    let (report, replayed) = kept::reopen(disk).unwrap();
    assert_eq!(replayed, records());
    assert_eq!((report.clean, report.cut, report.epoch), (false, None, 3));
}

#[test]
fn version_1_is_what_is_written() {
    let disk = write();
    assert_eq!(disk.names().len(), 3);
    for name in disk.names() {
        assert_eq!(disk.file(&name).unwrap(), fs::read(fixture("v1").join(&name)).unwrap(), "{name}");
    }
}
