//! The files on the disks, against what the server's state needs of them.

use super::World;
use broker::command::{Now, QueueId, ShardId};
use broker::shard::{Recovery, Shard, ShardSettings};
use std::collections::BTreeSet;
use store::{Inspection, MemoryDisk, Record, Seen, SegmentLog, What};

impl World {
    /// Every record of every log is whole, each message that lives has one, and no file is there for nothing. Only at
    /// rest, and of disks that have room.
    pub(super) fn check_files(&mut self) {
        for at in 0..self.disks.len() {
            // A segment that is being emptied goes when what was in it is on disk elsewhere.
            let is_right = (0..PATIENCE).any(|_| {
                let is_right = self.unneeded(at).is_empty();
                if !is_right {
                    self.come_to_rest();
                }
                is_right
            });
            let unneeded = self.unneeded(at);
            assert!(is_right, "s{at} keeps {unneeded:?} of {:?} for nothing", self.disks[at].names());
        }
    }

    fn unneeded(&mut self, at: usize) -> Vec<String> {
        if self.disks[at].is_limited() {
            return Vec::new();
        }
        let busy = self.all_views().into_iter().filter(|view| view.ready + view.unacked > 0);
        let busy = busy.map(|view| view.spec.queue.id).collect();
        unneeded(ShardId(u16::try_from(at).expect("few")), &self.disks[at], &busy)
    }
}

/// Files that nothing needs, if only these queues have messages.
fn unneeded(id: ShardId, disk: &MemoryDisk, busy: &BTreeSet<QueueId>) -> Vec<String> {
    let mut recovery: Recovery = Shard::<SegmentLog>::recover(id, ShardSettings::default(), Now { ms: 0, unix_ms: 0 });
    let mut inspection = Inspection::new(disk.clone());
    let judged = inspection.judge(&mut |lsn, record| recovery.replay(lsn, record), None);
    judged.unwrap_or_else(|error| panic!("the log of {id:?} is damaged: {error}"));
    let mut roll = recovery.roll().unwrap_or_else(|error| panic!("the log of {id:?} cannot be understood: {error}"));
    let mut live = BTreeSet::new();
    let mut see = |seen: Seen<'_>| {
        let What::Record(Record::Message { places, payload, kept, .. }, _) = seen.what else { return };
        // Of those that no restart brings back, the log does not say which live.
        let may_live = !kept && places.iter().any(|place| busy.contains(&place.queue));
        if roll.tick(seen.lsn, places, payload) > 0 || may_live {
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
