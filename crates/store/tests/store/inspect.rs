//! Looking into a log: all of it is seen, nothing is touched, and each kind of damage is told.

use std::fs;
use std::path::Path;
use std::time::Duration;

use store::{Inspection, Link, MemoryDisk, OpenError, Opened, Record, Store, Urgency, Verdict, Walked, What};

use crate::kept;

fn disk_of(version: &str) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(version);
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        disk.put(&entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    disk
}

fn with(disk: &MemoryDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for name in disk.names() {
        copy.put(&name, disk.file(&name).unwrap());
    }
    let mut bytes = disk.file(name).unwrap();
    change(&mut bytes);
    copy.put(name, bytes);
    copy
}

fn walk(disk: &MemoryDisk) -> Walked {
    Inspection::new(disk.clone()).walk(&mut |_| {}, None).unwrap()
}

fn judge(disk: &MemoryDisk) -> Result<Verdict, OpenError> {
    Inspection::new(disk.clone()).judge(&mut |_, _| {}, None)
}

/// A log of several segments, the last one with two batches, that was not closed.
fn sample() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 10).unwrap().0;
    for seq in 1..=12 {
        kept::commit(&mut log, &mut writer, &[kept::message(1, seq, &[b'x'; 200])]);
    }
    disk
}

#[test]
fn all_of_every_format_is_seen_and_sound() {
    for (version, facts) in [("v1", 2), ("v2", 2), ("v3", 2)] {
        let disk = disk_of(version);
        let before: Vec<_> = disk.names().into_iter().map(|name| disk.file(&name)).collect();
        let mut offsets = Vec::new();
        let (mut messages, mut keys) = (0, std::collections::BTreeSet::new());
        let walked = Inspection::new(disk.clone()).walk(
            &mut |seen| {
                offsets.push((seen.file.to_owned(), seen.offset, seen.bytes));
                match seen.what {
                    What::Record(Record::Message { .. }, _) => messages += 1,
                    What::Record(Record::Fact { key, .. }, _) => drop(keys.insert(key.to_vec())),
                    _ => {}
                }
            },
            None,
        );
        let walked = walked.unwrap();
        assert_eq!(walked.problems, [], "{version}");
        assert!(messages >= 3 && keys.len() >= facts, "{version}: {messages} messages, {} facts", keys.len());
        for pair in offsets.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert_eq!(pair[0].1 + pair[0].2, pair[1].1, "{version}: nothing is left out of {}", pair[0].0);
        }
        judge(&disk).unwrap();
        let after: Vec<_> = disk.names().into_iter().map(|name| disk.file(&name)).collect();
        assert_eq!(before, after, "{version} was changed");
    }
}

#[test]
fn the_judgement_replays_what_an_open_replays() {
    for version in ["v1", "v2", "v3"] {
        let disk = disk_of(version);
        let mut judged = Vec::new();
        let verdict = Inspection::new(disk.clone())
            .judge(&mut |lsn, record| judged.push((lsn, format!("{record:?}"))), None)
            .unwrap();
        let mut opened = Vec::new();
        let report = store::SegmentLog::open(disk, kept::options(800), &mut |lsn, record| {
            opened.push((lsn, format!("{record:?}")));
        });
        assert_eq!(judged, opened, "{version}");
        assert_eq!(verdict.clean, report.unwrap().report.clean, "{version}");
    }
}

#[test]
fn every_bit_that_turns_over_before_the_last_batch_is_told() {
    let disk = sample();
    let names = disk.names();
    let (last, sealed) = names.split_last().unwrap();
    for name in sealed.iter().filter(|name| name.ends_with(".log")) {
        for at in 0..disk.file(name).unwrap().len() {
            let damaged = with(&disk, name, |bytes| bytes[at] ^= 1 << (at % 8));
            match Inspection::new(damaged).walk(&mut |_| {}, None) {
                Ok(walked) => assert!(!walked.problems.is_empty(), "{name}, byte {at}"),
                Err(error) => assert!(matches!(error, OpenError::NewerFormat { .. }), "{name}, byte {at}: {error}"),
            }
        }
    }
    assert!(last.ends_with(".log") || last == "reserve");
}

#[test]
fn behind_damage_the_walk_goes_on() {
    let disk = sample();
    let name = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let count = |disk: &MemoryDisk| {
        let mut messages = 0;
        let see = &mut |seen: store::Seen<'_>| {
            messages += u32::from(matches!(seen.what, What::Record(Record::Message { .. }, _)));
        };
        let walked = Inspection::new(disk.clone()).walk(see, None).unwrap();
        (messages, walked.problems.len())
    };
    assert_eq!(count(&disk), (12, 0));
    let damaged = with(&disk, &name, |bytes| bytes[200] ^= 1);
    let (messages, problems) = count(&damaged);
    assert!(problems >= 1);
    assert!((10..12).contains(&messages), "{messages} messages are left");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let disk = sample();
    let last = disk.names().into_iter().rfind(|name| name.ends_with(".log")).unwrap();
    let whole = kept::written(&disk, &last).len();
    let torn = with(&disk, &last, |bytes| bytes.truncate(whole - 3));
    assert!(judge(&torn).unwrap().cut.is_some());
    assert_eq!(walk(&torn).problems, []);
}

#[test]
fn a_missing_segment_is_told_and_the_others_are_read() {
    let disk = sample();
    let second = disk.names().into_iter().filter(|name| name.ends_with(".log")).nth(1).unwrap();
    let copy = MemoryDisk::new();
    for name in disk.names().into_iter().filter(|name| *name != second) {
        copy.put(&name, disk.file(&name).unwrap());
    }
    assert!(matches!(judge(&copy), Err(OpenError::Corrupt { .. })));
    let walked = walk(&copy);
    assert!(walked.problems.iter().any(|problem| problem.file.ends_with(&second)), "{:?}", walked.problems);
    assert!(walked.segments >= 2);
}

#[test]
fn a_damaged_footer_loses_nothing() {
    let disk = sample();
    let name = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let end = disk.file(&name).unwrap().len();
    let problems = walk(&with(&disk, &name, |bytes| bytes[end - 1] ^= 1)).problems;
    assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.loses), "{problems:?}");
}

#[test]
fn a_log_that_is_being_written_can_be_looked_into() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 10).unwrap().0;
    log.append(kept::message(1, 1, b"first").record(), Link::Alone);
    log.flush(Urgency::Sync);
    writer.step(Duration::ZERO);
    assert_eq!(walk(&disk).problems, []);
}
