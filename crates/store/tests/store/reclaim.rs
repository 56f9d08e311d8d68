//! Emptying segments comes to an end.

use store::{Link, MemoryDisk, Opened, QueueId, Seq, SeqRange, Store, StoreEvent, Urgency};

use crate::kept::{self, Kept};
use crate::ledger::{self, Ledger};

/// Of small messages in small segments that were delivered before, what surrounds them takes more room than they do.
#[test]
fn what_was_copied_is_not_copied_again_while_nothing_dies() {
    let Opened { mut log, mut writer, mut caretaker, .. } = kept::open(MemoryDisk::new(), 600).unwrap().0;
    let mut ledger = Ledger::default();
    for seq in 1..=MESSAGES {
        ledger::record(&mut log, &mut ledger, &kept::message(QUEUE, seq, b""), Link::Alone);
        let range = SeqRange { first: Seq(seq), last: Seq(seq) };
        let returned = Kept::Returned { queue: QueueId(QUEUE), range, attempts: 1, due_at_ms: 5 };
        ledger::record(&mut log, &mut ledger, &returned, Link::Alone);
        log.flush(Urgency::Sync);
        kept::drain(&mut writer);
    }
    let mut copied = 0;
    for _ in 0..ROUNDS {
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
    // Each has a record that says how often it was delivered.
    assert!((1..=4 * MESSAGES).contains(&(copied as u64)), "{copied} records were copied, of {MESSAGES} messages");
}

/// An id that takes some bytes.
const QUEUE: u64 = 1 << 40;
const MESSAGES: u64 = 400;
/// More than there are segments, several times over.
const ROUNDS: u64 = 600;
