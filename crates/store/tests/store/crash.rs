//! Random work, random faults, a full disk and power cuts, against a model that remembers everything.
//!
//! After each crash three things have to hold: what comes back is what was appended, without a gap, from the last
//! checkpoint up to some whole chain; that includes everything that was reported durable; and, with the checkpoint, it
//! adds up to exactly what the whole history up to there adds up to, although most of the segments may be gone by then.
//! Every message of that can be read.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use store::{
    Caretaker, Fault, Link, Lsn, MemoryDisk, OpenError, Opened, Options, QueueId, Record, Seen, SegmentLog, Seq,
    SeqRange, Step, Store, StoreEvent, Urgency, What, Writer,
};

use crate::kept::{self, Kept};
use crate::ledger::{self, Ledger};

#[derive(Clone, Debug)]
enum Op {
    Publish {
        queues: u64,
        bytes: usize,
        kept: bool,
    },
    Settle {
        nth: usize,
        and_more: u64,
    },
    Move {
        nth: usize,
        kept: bool,
    },
    Return {
        nth: usize,
        and_more: u64,
    },
    Declare {
        key: u8,
    },
    Forget {
        key: u8,
    },
    /// The next this many records are one chain.
    Chain {
        records: usize,
    },
    Flush(Urgency),
    Write {
        ms: u64,
    },
    Care {
        ms: u64,
    },
    Read {
        nth: usize,
    },
    Reclaim,
    /// Begins a checkpoint, or goes on with one, by so many pieces.
    Checkpoint {
        pieces: usize,
    },
    Close,
    /// The disk fails in the given way that many operations from now, during work or during the open after a crash.
    Fail {
        after: u64,
        fault: Fault,
    },
    /// The disk has so much room and no more.
    Fill {
        room: u64,
    },
    MakeRoom,
    Crash {
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let urgency = prop_oneof![Just(Urgency::Sync), Just(Urgency::Lazy)];
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Short), Just(Fault::ErrorAfter)];
    let kept = || prop::bool::weighted(0.8);
    prop_oneof![
        8 => (1..4u64, 0..400usize, kept()).prop_map(|(queues, bytes, kept)| Op::Publish { queues, bytes, kept }),
        6 => (any::<usize>(), 0..6u64).prop_map(|(nth, and_more)| Op::Settle { nth, and_more }),
        2 => (any::<usize>(), kept()).prop_map(|(nth, kept)| Op::Move { nth, kept }),
        2 => (any::<usize>(), 0..3u64).prop_map(|(nth, and_more)| Op::Return { nth, and_more }),
        1 => (0..4u8).prop_map(|key| Op::Declare { key }),
        1 => (0..4u8).prop_map(|key| Op::Forget { key }),
        1 => (2..5usize).prop_map(|records| Op::Chain { records }),
        5 => urgency.prop_map(Op::Flush),
        6 => (0..300u64).prop_map(|ms| Op::Write { ms }),
        6 => (0..300u64).prop_map(|ms| Op::Care { ms }),
        3 => any::<usize>().prop_map(|nth| Op::Read { nth }),
        3 => Just(Op::Reclaim),
        5 => (0..40usize).prop_map(|pieces| Op::Checkpoint { pieces }),
        1 => Just(Op::Close),
        1 => (1..12u64, fault).prop_map(|(after, fault)| Op::Fail { after, fault }),
        1 => (0..2000u64).prop_map(|room| Op::Fill { room }),
        1 => Just(Op::MakeRoom),
        2 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
    ]
}

struct World {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
    ledger: Ledger,
    /// Everything ever appended that can still come back.
    history: Vec<(Lsn, Kept, Link)>,
    durable: Lsn,
    now: Duration,
    seq: u64,
    /// How many records are to be appended until the chain ends.
    chain: usize,
    /// The last key that a checkpoint had, while one is written.
    checkpoint: Option<Progress>,
    /// Messages that were offered while a chain was open.
    old: Vec<store::OldMessage>,
    is_full: bool,
    is_over: bool,
}

/// How far a checkpoint is: pieces are made when they are written, in this order.
#[derive(Clone, Copy, Debug)]
struct Progress {
    queue: QueueId,
    seq: Seq,
}

fn options() -> Options {
    Options { reserve_bytes: 700, ..kept::options(SEGMENT_BYTES) }
}

impl World {
    fn new() -> World {
        let disk = MemoryDisk::new();
        let Opened { log, writer, caretaker, .. } = kept::open_with(disk.clone(), options()).unwrap().0;
        World {
            disk,
            log,
            writer,
            caretaker,
            ledger: Ledger::default(),
            history: Vec::new(),
            durable: Lsn::ZERO,
            now: Duration::ZERO,
            seq: 0,
            chain: 0,
            checkpoint: None,
            old: Vec::new(),
            is_full: false,
            is_over: false,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Crash { seed } => self.crash(seed),
            Op::Fail { after, fault } => {
                self.disk.inject(self.disk.operations() + after, fault);
            }
            Op::Fill { room } => self.disk.set_capacity(Some(self.used() + room)),
            Op::MakeRoom => self.disk.set_capacity(None),
            Op::Write { ms } => self.write(ms),
            Op::Care { ms } => self.care(ms),
            _ if self.is_over => {}
            Op::Publish { queues, bytes, kept } => {
                self.seq += 1;
                let places = (0..queues).flat_map(|queue| self.places(queue)).collect();
                self.append(&Kept::Message { places, moved_from: None, kept, payload: vec![self.seq as u8; bytes] });
            }
            Op::Settle { nth, and_more } => {
                if let Some((queue, first)) = self.ledger.nth(nth) {
                    let ranges = vec![SeqRange { first, last: Seq(first.0 + and_more) }];
                    self.append(&Kept::Settled { queue, ranges });
                }
            }
            Op::Move { nth, kept } => {
                self.seq += 1;
                let (places, moved_from) = (self.places(9), self.ledger.nth(nth));
                self.append(&Kept::Message { places, moved_from, kept, payload: b"moved".to_vec() });
            }
            Op::Return { nth, and_more } => {
                if let Some((queue, first)) = self.ledger.nth(nth) {
                    let range = SeqRange { first, last: Seq(first.0 + and_more) };
                    self.append(&Kept::Returned {
                        queue,
                        range,
                        attempts: nth as u32 % 5,
                        due_at_ms: nth as u64 % 2 * 77,
                    });
                    if nth % 3 == 0 {
                        self.append(&Kept::Released { queue, range, due_at_ms: nth as u64 });
                    }
                }
            }
            Op::Declare { key } => self.append(&kept::fact(&key.to_string(), &self.seq.to_string())),
            Op::Forget { key } => self.append(&Kept::Forget { key: key.to_string().into() }),
            Op::Chain { records } => self.chain = self.chain.max(records),
            Op::Flush(urgency) => self.log.flush(urgency),
            Op::Read { nth } => {
                if let Some(at) = self.ledger.nth(nth) {
                    let range = store::LsnRange { first: self.ledger.lsn(at).unwrap(), count: 1 };
                    self.log.read(0, &[range, range]);
                }
            }
            Op::Reclaim => {
                self.move_survivors();
                if self.old.is_empty() {
                    self.log.reclaim();
                }
            }
            Op::Checkpoint { pieces } => self.checkpoint(pieces),
            Op::Close => {
                if self.chain == 0 {
                    self.log.close();
                    self.is_over = true;
                }
            }
        }
    }

    fn used(&self) -> u64 {
        self.disk.names().iter().map(|name| self.disk.file(name).unwrap().len() as u64).sum()
    }

    fn places(&self, queue: u64) -> Vec<store::Place> {
        let due_at_ms = self.seq % 3 * 1000;
        vec![store::Place { queue: QueueId(queue), seq: Seq(self.seq), expires_at_ms: 0, priority: 0, due_at_ms }]
    }

    fn append(&mut self, kept: &Kept) {
        self.chain = self.chain.saturating_sub(1);
        let link = if self.chain > 0 { Link::WithNext } else { Link::Alone };
        let lsn = ledger::record(&mut self.log, &mut self.ledger, kept, link);
        self.remember(lsn, kept.clone(), link);
    }

    fn remember(&mut self, lsn: Lsn, kept: Kept, link: Link) {
        assert!(self.history.last().is_none_or(|(last, ..)| *last < lsn));
        self.history.push((lsn, kept, link));
    }

    /// Whether the last record wants a next one. The count alone does not tell: a chain may have been asked for that
    /// nothing was appended to.
    fn is_in_chain(&self) -> bool {
        self.history.last().is_some_and(|(.., link)| *link == Link::WithNext)
    }

    fn move_survivors(&mut self) {
        if self.is_in_chain() || self.is_over {
            return;
        }
        let old = std::mem::take(&mut self.old);
        for (lsn, kept, link) in ledger::move_survivors(&mut self.log, &mut self.ledger, &old) {
            self.remember(lsn, kept, link);
        }
    }

    /// Facts first, all at once; then the places, by queue and seq, some at a time, as they are by then.
    fn checkpoint(&mut self, pieces: usize) {
        if self.is_in_chain() {
            return;
        }
        let mut progress = match self.checkpoint.take() {
            Some(progress) => progress,
            None => {
                self.log.begin_checkpoint();
                for piece in self.ledger.pieces().iter().filter(|piece| matches!(piece, Kept::Fact { .. })) {
                    self.log.checkpoint(piece.record());
                }
                Progress { queue: QueueId(0), seq: Seq(0) }
            }
        };
        for _ in 0..pieces {
            match self.ledger.next_from((progress.queue, progress.seq)) {
                Some(((queue, seq), piece)) => {
                    piece.iter().for_each(|piece| self.log.checkpoint(piece.record()));
                    progress = Progress { queue, seq: Seq(seq.0 + 1) };
                }
                None => return self.log.end_checkpoint(),
            }
        }
        self.checkpoint = Some(progress);
    }

    fn write(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let step = self.writer.step(self.now);
        self.hear();
        if matches!(step, Step::Failed | Step::Closed) {
            self.is_over = true;
        }
    }

    fn care(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        if self.caretaker.step(self.now) == Step::Failed {
            self.is_over = true;
        }
        self.hear();
    }

    fn hear(&mut self) {
        for event in kept::events(&mut self.log) {
            match event {
                StoreEvent::Durable(lsn) => {
                    assert!(lsn > self.durable);
                    self.durable = lsn;
                }
                StoreEvent::Failed(why) => {
                    assert!(why.contains("memory:") && why.contains("stops"), "{why}")
                }
                StoreEvent::Full(is_full) => {
                    assert!(is_full != self.is_full, "each is said once");
                    self.is_full = is_full;
                }
                StoreEvent::Read { messages, .. } => self.ledger.hear_read(&messages),
                StoreEvent::Old(old) => self.old = old,
            }
        }
        self.move_survivors();
    }

    /// What a crash left is no damage to who looks into it, either.
    fn inspect(&self) {
        let copy = MemoryDisk::new();
        self.disk.names().iter().for_each(|name| copy.put(name, self.disk.file(name).unwrap()));
        let walked = store::Inspection::new(copy).walk(&mut |_| {}, None).unwrap();
        assert_eq!(walked.problems, [], "a crash looked like damage");
    }

    /// Ends the process, mostly with a power cut, and cuts the power after each open that fails.
    fn crash(&mut self, seed: u64) {
        let mut random = seed | 1;
        let mut choose = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        if choose(4) > 0 {
            self.disk.crash(&mut choose);
        }
        self.inspect();
        let (Opened { log, writer, caretaker, report, .. }, replayed) = loop {
            if choose(3) == 0 {
                self.disk.inject(self.disk.operations() + choose(30) + 1, Fault::Error);
            }
            match kept::open_with(self.disk.clone(), options()) {
                Ok(opened) => break opened,
                Err(OpenError::Io { .. }) => self.disk.crash(&mut choose),
                Err(other) => panic!("a crash looked like damage: {other}"),
            }
        };
        self.disk.heal();
        self.disk.set_capacity(None);

        let last = report.last;
        assert!(last >= self.durable, "durable records are gone");
        let logged: Vec<_> = replayed.iter().filter(|(lsn, _)| *lsn > Lsn::ZERO).cloned().collect();
        if let Some((first, _)) = logged.first() {
            let lived = self.history.iter().filter(|(lsn, ..)| (*first..=last).contains(lsn));
            let lived: Vec<_> = lived.filter_map(|(lsn, kept, _)| Some((*lsn, kept.replayed()?))).collect();
            assert_eq!(logged, lived, "what comes back is what was appended, without a gap");
        }
        let kept_records = self.history.partition_point(|(lsn, ..)| *lsn <= last);
        self.history.truncate(kept_records);
        assert!(self.history.last().is_none_or(|(.., link)| *link == Link::Alone), "a chain is whole");

        let mut expected = Ledger::default();
        self.history.iter().for_each(|(lsn, kept, _)| expected.apply(*lsn, kept, &mut |_, _| {}));
        self.log = log;
        self.writer = writer;
        self.caretaker = caretaker;
        self.ledger = Ledger::default();
        for (lsn, kept) in &replayed {
            self.ledger.apply(*lsn, kept, &mut |_, _| {});
        }
        self.ledger.retain(&mut self.log);
        self.log.check_retained().unwrap();
        self.is_full = false;
        self.durable = last;
        self.chain = 0;
        self.checkpoint = None;
        self.old.clear();
        self.is_over = false;
        self.log.read(1, &self.ledger.ranges());
        self.care(1000);
        assert!(!self.is_over);
        assert_eq!(self.ledger.visible(), expected.visible());
    }

    /// Lets everything come to rest, and looks at what is on disk.
    fn rest(&mut self) {
        self.chain = 1;
        self.append(&kept::fact("rest", ""));
        self.log.begin_checkpoint();
        self.ledger.pieces().iter().for_each(|piece| self.log.checkpoint(piece.record()));
        self.log.end_checkpoint();
        self.checkpoint = None;
        for _ in 0..60 {
            self.write(300);
            self.care(300);
        }
        assert!(!self.is_over && !self.is_full);
        let (mut live, mut count) = (BTreeSet::new(), 0);
        let mut inspection = store::Inspection::new(self.disk.clone());
        let mut see = |seen: Seen<'_>| {
            if let What::Record(Record::Message { places, .. }, _) = seen.what {
                let lives = places.iter().filter(|place| self.ledger.lsn((place.queue, place.seq)) == Some(seen.lsn));
                count += lives.map(|_| live.insert(seen.file.to_owned())).count();
            }
        };
        assert_eq!(inspection.walk(&mut see, None).unwrap().problems, []);
        assert_eq!(count, self.ledger.ranges().len(), "each message that lives is in the log, once");
        assert_eq!(
            inspection.unneeded(&live).unwrap(),
            [""; 0],
            "of {:?}, where messages are in {live:?}",
            self.disk.names()
        );
        let others = self.disk.names().into_iter().filter(|name| !name.ends_with(".log"));
        let others: Vec<_> = others.map(|name| name.rsplit('.').next().unwrap().to_owned()).collect();
        assert_eq!(others, ["index", "reserve"]);
    }
}

const SEGMENT_BYTES: u64 = 1500;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_and_nothing_settled_returns(ops in prop::collection::vec(op(), 1..200), seed: u64) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.crash(seed);
        world.rest();
        world.crash(seed >> 1);
    }
}
