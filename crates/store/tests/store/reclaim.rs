//! Emptying segments comes to an end.

use store::{Link, MemoryDisk, Opened, QueueId, Seq, SeqRange, Store, StoreEvent, Urgency};

use crate::kept::{self, Kept};
use crate::ledger::{self, Ledger};

/// Of small messages in small segments that were delivered before, what surrounds them takes more room than they do.
#[test]
fn what_was_copied_is_not_copied_again_while_nothing_dies() {
    let Opened { mut log, mut writer, mut caretaker, .. } = kept::open(MemoryDisk::new(), 600).unwrap().0;
    let mut ledger = Ledger::default();
    for seq in 1..=100 {
        ledger::record(&mut log, &mut ledger, &kept::message(1, seq, b"small"), Link::Alone);
        let range = SeqRange { first: Seq(seq), last: Seq(seq) };
        let returned = Kept::Returned { queue: QueueId(1), range, attempts: 1 };
        ledger::record(&mut log, &mut ledger, &returned, Link::Alone);
        log.flush(Urgency::Sync);
        kept::drain(&mut writer);
    }
    let mut copied = 0;
    for _ in 0..500 {
        log.reclaim();
        for event in kept::settle(&mut log, &mut writer, &mut caretaker) {
            if let StoreEvent::Old(old) = event {
                copied += ledger::move_survivors(&mut log, &mut ledger, &old).len();
            }
        }
        log.flush(Urgency::Lazy);
        if log.wants_checkpoint() {
            kept::checkpoint(&mut log, &ledger.pieces());
        }
    }
    kept::settle(&mut log, &mut writer, &mut caretaker);
    assert!(!log.wants_reclaim(), "{copied} records were copied, and it goes on");
    assert!((1..=400).contains(&copied), "{copied} records were copied, of 100 messages with one more each");
}
