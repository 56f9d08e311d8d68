//! The files on the disks, against what the server's state needs of them.

use super::World;
use broker::command::{Now, ShardId};
use broker::shard::{Recovery, Shard, ShardSettings};
use std::collections::BTreeSet;
use store::{Inspection, MemoryDisk, Record, Seen, SegmentLog, What};

impl World {
    /// Every record of every log is whole, each message that lives has one, and no file is there for nothing. Only at
    /// rest, and of disks that have room.
    pub(super) fn check_files(&mut self) {
        for at in 0..self.disks.len() {
            let disk = self.disks[at].clone();
            let id = ShardId(u16::try_from(at).expect("few"));
            // A segment that is being emptied goes when what was in it is on disk elsewhere.
            for _ in 0..PATIENCE {
                if disk.is_limited() || unneeded(id, &disk).is_empty() {
                    break;
                }
                self.come_to_rest();
            }
            let unneeded = unneeded(id, &disk);
            let is_right = disk.is_limited() || unneeded.is_empty();
            assert!(is_right, "s{at} keeps {unneeded:?} of {:?} for nothing", disk.names());
        }
    }
}

/// Files that nothing needs.
fn unneeded(id: ShardId, disk: &MemoryDisk) -> Vec<String> {
    let mut recovery: Recovery = Shard::<SegmentLog>::recover(id, ShardSettings::default(), Now { ms: 0, unix_ms: 0 });
    let mut inspection = Inspection::new(disk.clone());
    let judged = inspection.judge(&mut |lsn, record| recovery.replay(lsn, record), None);
    judged.unwrap_or_else(|error| panic!("the log of {id:?} is damaged: {error}"));
    let mut roll = recovery.roll().unwrap_or_else(|error| panic!("the log of {id:?} cannot be understood: {error}"));
    let mut live = BTreeSet::new();
    let mut see = |seen: Seen<'_>| {
        if let What::Record(Record::Message { places, payload, .. }, _) = seen.what
            && roll.tick(seen.lsn, places, payload) > 0
        {
            live.insert(seen.file.to_owned());
        }
    };
    let walked = inspection.walk(&mut see, None).unwrap_or_else(|error| panic!("{id:?}: {error}"));
    assert_eq!(walked.problems, [], "the log of {id:?}");
    roll.missing(&mut |missing| panic!("the log of {id:?} has no record of {missing:?}"));
    inspection.unneeded(&live).unwrap_or_else(|error| panic!("{id:?}: {error}"))
}

/// Rests until everything is where it stays.
const PATIENCE: usize = 40;
