//! Real directories: who may read them, who holds them, and what is said when they cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use store::{DirectoryLock, FileDisk, LockError};

use crate::kept;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn directories_and_files_are_for_their_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("deep").join("data");
    let options = store::Options { reserve_bytes: 4096, ..kept::options(1 << 20) };
    let (opened, _) = kept::open_with(FileDisk::open(&directory).unwrap(), options).unwrap();
    let _lock = DirectoryLock::acquire(&directory, "now").unwrap();
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(directory.parent().unwrap()), 0o700);
    let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "segment, reserve, lock");
    assert!(files.iter().all(|file| mode(file) == 0o600));
    drop(opened);
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let directory = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(directory.path(), "2026-01-02 03:04:05").unwrap();
    let refusal = DirectoryLock::acquire(directory.path(), "later").unwrap_err();
    assert!(matches!(refusal, LockError::Held { .. }));
    assert_eq!(
        refusal.to_string(),
        format!(
            "{} is in use by process {} (started 2026-01-02 03:04:05); stop it or choose another --data-dir",
            directory.path().display(),
            std::process::id()
        )
    );
    drop(lock);
    DirectoryLock::acquire(directory.path(), "later").unwrap();
}

#[test]
fn a_path_that_is_no_directory_is_refused_with_its_name() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refusal = FileDisk::open(&path).unwrap_err().to_string();
        let expected = format!("cannot use the data directory {}: not a directory", path.display());
        assert!(refusal.starts_with(&expected), "{refusal}");
        let refusal = DirectoryLock::acquire(&path, "now").unwrap_err().to_string();
        assert!(refusal.starts_with(&expected) && refusal.ends_with("choose another --data-dir"), "{refusal}");
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let others =
        ["lock", "notes.log", "1.log", "00000000000000001.log", "0000000000000001.log.bak", "1.index", "x.index"];
    for name in others {
        fs::write(directory.path().join(name), "theirs").unwrap();
    }
    for _ in 0..2 {
        kept::reopen(FileDisk::open(directory.path()).unwrap()).unwrap();
    }
    for name in others {
        assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"theirs");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), others.len() + 1);
}

#[test]
fn nothing_becomes_durable_in_a_file_that_is_gone() {
    let takes_away: [fn(&Path); 3] = [
        |directory| fs::remove_dir_all(directory).unwrap(),
        |directory| fs::rename(directory, directory.with_extension("away")).unwrap(),
        |directory| {
            let file = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
            fs::remove_file(&file).unwrap();
            fs::write(file, "another one").unwrap();
        },
    ];
    for take_away in takes_away {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("data");
        let (mut opened, _) = kept::open(FileDisk::open(&directory).unwrap(), 1 << 20).unwrap();
        let lsn = kept::commit(&mut opened.log, &mut opened.writer, &[kept::message(1, 1, b"before")])[0];
        assert!(kept::events(&mut opened.log).contains(&store::StoreEvent::Durable(lsn)));
        take_away(&directory);
        kept::append_all(&mut opened.log, &[kept::message(1, 2, b"after")]);
        store::Store::flush(&mut opened.log, store::Urgency::Sync);
        assert_eq!(kept::drain(&mut opened.writer), store::Step::Failed);
        let events = kept::events(&mut opened.log);
        let [store::StoreEvent::Failed(why)] = &events[..] else { panic!("{events:?}") };
        assert!(why.starts_with("cannot sync ") && why.contains("put back what was there"), "{why}");
    }
}

#[test]
fn a_log_whose_directory_is_gone_begins_no_segment_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let (mut opened, _) = kept::open(FileDisk::open(&directory).unwrap(), 100).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    for seq in 0..3 {
        kept::append_all(&mut opened.log, &[kept::message(1, seq, &[0; 100])]);
    }
    store::Store::flush(&mut opened.log, store::Urgency::Sync);
    assert_eq!(kept::drain(&mut opened.writer), store::Step::Failed);
    let events = kept::events(&mut opened.log);
    let [store::StoreEvent::Failed(why)] = &events[..] else { panic!("{events:?}") };
    assert!(why.starts_with("cannot ") && why.contains("put back what was there"), "{why}");
}

/// A removed file that is still open keeps its room, and a disk that was full stays full.
#[test]
#[cfg(target_os = "linux")]
fn what_is_removed_is_not_left_open() {
    let directory = tempfile::tempdir().unwrap();
    let (opened, _) = kept::open(FileDisk::open(directory.path()).unwrap(), 1000).unwrap();
    let store::Opened { mut log, mut writer, mut caretaker, .. } = opened;
    let lsns = kept::append_all(&mut log, &(0..100).map(|seq| kept::message(1, seq, &[0; 90])).collect::<Vec<_>>());
    store::Store::flush(&mut log, store::Urgency::Sync);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    let all = store::LsnRange { first: lsns[0], count: 100 };
    store::Store::read(&mut log, 1, &[all]);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    store::Store::release(&mut log, all, 90);
    kept::checkpoint(&mut log, &[]);
    kept::settle(&mut log, &mut writer, &mut caretaker);
    assert!(fs::read_dir(directory.path()).unwrap().count() <= 3, "the segments are removed");
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let left: Vec<_> = open
        .filter(|file| file.starts_with(directory.path()) && file.to_string_lossy().ends_with(" (deleted)"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
