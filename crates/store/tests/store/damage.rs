//! Bytes that are not as they were written: every bit turned over, every length, zeros, strangers.

use std::time::Duration;

use store::{Fault, Link, MemoryDisk, OpenError, Opened, Step, Store, Urgency};

use crate::kept::{self, Kept};

/// A log of three segments whose records were durable in four steps, and was not closed.
struct Sample {
    files: Vec<(String, Vec<u8>)>,
    records: Vec<Kept>,
    /// How many of them a later batch proves durable.
    proven: usize,
    /// After how many of them no chain is open.
    whole: Vec<usize>,
}

fn sample() -> Sample {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 300).unwrap().0;
    let mut records = kept::one_of_each();
    kept::commit(&mut log, &mut writer, &records[..4]);
    kept::commit(&mut log, &mut writer, &records[4..]);
    kept::commit(&mut log, &mut writer, &[kept::message(1, 1, b"proven")]);
    records.push(kept::message(1, 1, b"proven"));
    let proven = records.len();
    let last = [kept::message(1, 2, b"last"), kept::message(1, 3, b"chained"), kept::settled(1, 2)];
    log.append(last[0].record(), Link::Alone);
    log.append(last[1].record(), Link::WithNext);
    log.append(last[2].record(), Link::Alone);
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    records.extend(last);
    let whole = (0..=records.len()).filter(|count| *count != records.len() - 1).collect();
    let files: Vec<_> = disk.names().into_iter().map(|name| (name.clone(), disk.file(&name).unwrap())).collect();
    assert!(files.len() >= 3, "{} segments", files.len());
    Sample { files, records, proven, whole }
}

impl Sample {
    fn disk_with(&self, index: usize, bytes: Vec<u8>) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for (name, whole) in &self.files {
            disk.put(name, whole.clone());
        }
        disk.put(&self.files[index].0, bytes);
        disk
    }

    /// Where the segment's footer begins, which nothing needs.
    fn footer_at(&self, index: usize) -> usize {
        let whole = &self.files[index].1;
        if self.is_last(index) {
            return whole.len();
        }
        let (_, [l0, l1, l2, l3, ..]) = whole.split_last_chunk::<8>().unwrap();
        whole.len() - u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize
    }

    fn is_last(&self, index: usize) -> bool {
        index + 1 == self.files.len()
    }

    /// Opens a changed log: it is refused, with nothing changed, or cut and reported, with everything kept that is
    /// proven, and then it goes on. Returns whether it was opened.
    fn check(&self, what: &str, disk: &MemoryDisk, may_be_quiet: bool) -> bool {
        let before: Vec<_> = disk.names().iter().map(|name| disk.file(name)).collect();
        let (opened, replayed) = match kept::open(disk.clone(), 300) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.to_string().contains("memory:"), "{what}: {error}");
                assert!(error.to_string().contains("nothing was changed"), "{what}: {error}");
                let after: Vec<_> = disk.names().iter().map(|name| disk.file(name)).collect();
                assert_eq!(before, after, "{what}");
                return false;
            }
        };
        let mut replayed: Vec<_> = replayed.into_iter().map(|(_, kept)| kept).collect();
        assert!(self.records.starts_with(&replayed), "{what}: something else came back");
        assert!(self.whole.contains(&replayed.len()), "{what}: half a chain came back");
        assert!(may_be_quiet || opened.report.cut.is_some(), "{what}: nothing was reported");
        assert!(!opened.report.clean, "{what}");

        let Opened { mut log, mut writer, .. } = opened;
        kept::commit(&mut log, &mut writer, &[kept::message(5, 5, b"after")]);
        replayed.push(kept::message(5, 5, b"after"));
        let (report, again) = kept::reopen(disk.clone()).unwrap();
        assert_eq!(again, replayed, "{what}");
        assert_eq!(report.cut, None, "{what}: it was cut twice");
        true
    }
}

#[test]
fn every_bit_that_turns_over_is_noticed() {
    let sample = sample();
    for (index, (name, whole)) in sample.files.iter().enumerate() {
        for offset in 0..whole.len() {
            for bit in 0..8 {
                let disk = sample.disk_with(index, whole.clone());
                disk.flip(name, offset, bit);
                let is_in_footer = offset >= sample.footer_at(index);
                let is_opened = sample.check(&format!("{name}: bit {bit} of byte {offset}"), &disk, is_in_footer);
                assert!(is_opened || !is_in_footer, "{name}, byte {offset}: nothing needs a footer");
                if is_opened {
                    let (_, replayed) = kept::reopen(disk).unwrap();
                    assert!(replayed.len() > sample.proven, "{name}, byte {offset}: proven records are gone");
                }
            }
        }
    }
}

#[test]
fn every_length_is_cut_or_refused() {
    let sample = sample();
    for (index, (name, whole)) in sample.files.iter().enumerate() {
        for length in 0..whole.len() {
            let disk = sample.disk_with(index, whole[..length].to_vec());
            let is_opened = sample.check(&format!("{name}: {length} bytes"), &disk, true);
            let may_open = sample.is_last(index) || length >= sample.footer_at(index);
            assert_eq!(is_opened, may_open, "{name}: {length} bytes");
        }
    }
}

#[test]
fn zeros_and_noise_at_the_end_are_cut() {
    let sample = sample();
    let index = sample.files.len() - 1;
    let whole = &sample.files[index].1;
    for extra in [vec![0; 1], vec![0; 5000], vec![0xff; 5000], b"\n".to_vec(), whole.clone()] {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&extra);
        let disk = sample.disk_with(index, bytes);
        assert!(sample.check(&format!("{} bytes more", extra.len()), &disk, false));
    }
}

#[test]
fn zeros_from_anywhere_in_the_last_segment_are_cut_or_refused() {
    let sample = sample();
    let index = sample.files.len() - 1;
    let (name, whole) = &sample.files[index];
    for from in 0..whole.len() {
        for to in [from + 1, from + 20, whole.len()] {
            let mut bytes = whole.clone();
            let to = to.min(whole.len());
            if bytes[from..to].iter().all(|byte| *byte == 0) {
                continue;
            }
            bytes[from..to].fill(0);
            sample.check(&format!("{name}: zeros in {from}..{to}"), &sample.disk_with(index, bytes), false);
        }
    }
}

#[test]
fn a_log_that_was_closed_proves_all_of_itself() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    kept::append_all(&mut log, &kept::one_of_each());
    log.close();
    assert_eq!(writer.step(Duration::ZERO), Step::Closed);
    let name = &disk.names()[0];
    let whole = disk.file(name).unwrap();
    let closed_at = whole.len() - CLOSING_BYTES;
    for offset in 0..whole.len() {
        disk.put(name, whole.clone());
        disk.flip(name, offset, 3);
        match kept::reopen(disk.clone()) {
            Ok((report, replayed)) => {
                assert!(offset >= closed_at, "byte {offset} was durable");
                assert_eq!(replayed, kept::one_of_each());
                assert!(!report.clean && report.cut.is_some());
            }
            Err(OpenError::Corrupt { .. } | OpenError::NotALog { .. } | OpenError::NewerFormat { .. }) => {
                assert!(offset < closed_at, "byte {offset} proves nothing");
            }
            Err(other) => panic!("byte {offset}: {other}"),
        }
    }
}

/// The last batch record and the note that the log was closed.
const CLOSING_BYTES: usize = 42 + 10;

#[test]
fn a_clean_stop_is_told_from_a_crash() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, report, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    assert!(report.clean, "a new log is");
    assert_eq!((report.epoch, log.epoch()), (1, 1));
    log.close();
    assert_eq!(writer.step(Duration::ZERO), Step::Closed);
    let opened = kept::open(disk.clone(), 1 << 20).unwrap().0;
    assert!(opened.report.clean);
    assert_eq!(opened.log.epoch(), 2);
    drop(opened);
    let (report, _) = kept::reopen(disk).unwrap();
    assert!(!report.clean, "the second owner never closed it");
    assert_eq!(report.epoch, 3);
}

#[test]
fn a_missing_segment_is_damage() {
    let sample = sample();
    for missing in 1..sample.files.len() - 1 {
        let disk = MemoryDisk::new();
        for (index, (name, bytes)) in sample.files.iter().enumerate() {
            if index != missing {
                disk.put(name, bytes.clone());
            }
        }
        let error = kept::reopen(disk).unwrap_err();
        assert!(error.to_string().contains(&sample.files[missing].0), "{error}");
    }
}

#[test]
fn segments_of_two_logs_are_not_mixed() {
    let sample = sample();
    let other = MemoryDisk::new();
    let options = store::Options { salt: 99, ..kept::options(300) };
    let Opened { mut log, mut writer, .. } = store::SegmentLog::open(other.clone(), options, &mut |_, _| {}).unwrap();
    kept::commit(&mut log, &mut writer, &kept::one_of_each());
    let disk = sample.disk_with(1, other.file(&sample.files[1].0).unwrap());
    let error = kept::reopen(disk).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { why, .. } if why.contains("another log")), "{error}");
}

#[test]
fn a_newer_format_is_refused_with_a_sentence() {
    let sample = sample();
    for index in [0, sample.files.len() - 1] {
        let mut bytes = sample.files[index].1.clone();
        bytes[8] = 4;
        let error = kept::reopen(sample.disk_with(index, bytes)).unwrap_err();
        assert!(error.to_string().contains("newer version of Leveret (storage format 4;"), "{error}");
    }
}

#[test]
fn a_strangers_file_is_left_alone() {
    let disk = MemoryDisk::new();
    disk.put("0000000000000001.log", b"127.0.0.1 GET /".to_vec());
    disk.put("notes.txt", b"mine".to_vec());
    let error = kept::reopen(disk.clone()).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
    disk.put("0000000000000001.log", Vec::new());
    let (report, replayed) = kept::reopen(disk.clone()).unwrap();
    assert!(replayed.is_empty() && report.cut.is_none(), "an empty file is a log that was never begun");
    assert_eq!(disk.file("notes.txt").unwrap(), b"mine");
}

#[test]
fn a_deposed_owners_batch_is_ignored() {
    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    let mine = kept::message(1, 1, b"mine");
    kept::commit(&mut log, &mut writer, std::slice::from_ref(&mine));
    let name = disk.names()[0].clone();
    let before = kept::written(&disk, &name);
    kept::commit(&mut log, &mut writer, &[kept::message(1, 2, b"too late")]);
    let late = kept::written(&disk, &name)[before.len()..].to_vec();

    disk.put(&name, before);
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    let theirs = kept::message(1, 2, b"theirs");
    kept::commit(&mut log, &mut writer, std::slice::from_ref(&theirs));
    let mut bytes = kept::written(&disk, &name);
    bytes.extend_from_slice(&late);
    disk.put(&name, bytes);

    let (report, replayed) = kept::reopen(disk.clone()).unwrap();
    assert_eq!(replayed, [mine.clone(), theirs.clone()]);
    assert_eq!(report.cut, None);
    let (_, replayed) = kept::reopen(disk).unwrap();
    assert_eq!(replayed, [mine, theirs]);
}

#[test]
fn a_proof_that_somebody_forged_inside_a_message_is_none() {
    let other = MemoryDisk::new();
    let options = store::Options { salt: 99, ..kept::options(1 << 20) };
    let Opened { mut log, mut writer, .. } = store::SegmentLog::open(other.clone(), options, &mut |_, _| {}).unwrap();
    kept::commit(&mut log, &mut writer, &vec![kept::message(1, 1, b""); 50]);
    log.close();
    assert_eq!(writer.step(Duration::ZERO), Step::Closed);
    let forged = other.file(&other.names()[0]).unwrap();

    let disk = MemoryDisk::new();
    let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
    kept::commit(&mut log, &mut writer, &[kept::message(1, 1, b"first")]);
    let name = &disk.names()[0];
    let torn_at = kept::written(&disk, name).len();
    kept::commit(&mut log, &mut writer, &[kept::message(1, 2, &forged)]);
    disk.flip(name, torn_at + 60, 0);
    let (report, replayed) = kept::reopen(disk).unwrap();
    assert_eq!(replayed, [kept::message(1, 1, b"first")]);
    assert!(report.cut.is_some());
}

#[test]
fn an_open_that_failed_proves_nothing_about_what_it_read() {
    for operation in 1..12 {
        let disk = MemoryDisk::new();
        let Opened { mut log, mut writer, .. } = kept::open(disk.clone(), 1 << 20).unwrap().0;
        log.append(kept::message(1, 1, b"written, never synced").record(), Link::Alone);
        log.flush(Urgency::Lazy);
        assert_eq!(writer.step(Duration::ZERO), Step::Wrote);
        drop((log, writer));

        disk.inject(disk.operations() + operation, Fault::Error);
        let first_open = kept::reopen(disk.clone()).is_ok();
        let mut writes = 0;
        disk.crash(&mut |_| {
            writes += 1;
            u64::from(writes == 1)
        });
        let (_, replayed) = kept::reopen(disk).unwrap();
        assert!(!first_open || replayed.len() == 1, "what an open replays is durable");
    }
}
