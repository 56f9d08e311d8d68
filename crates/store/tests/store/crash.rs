//! Random work, random faults and power cuts, against a model that remembers everything.
//!
//! After each crash three things have to hold: what comes back is what was appended, without a gap, up to some whole
//! chain; that includes everything that was reported durable; and it adds up to exactly what the whole history up to
//! there adds up to, although old segments may be gone by then.

use std::time::Duration;

use proptest::prelude::*;
use store::{Fault, Link, Lsn, MemoryDisk, Opened, QueueId, SegmentLog, Seq, SeqRange, Step, Store, StoreEvent};
use store::{Urgency, Writer};

use crate::kept::{self, Kept};
use crate::ledger::{self, Ledger};

#[derive(Clone, Debug)]
enum Op {
    Publish {
        queues: u64,
        bytes: usize,
    },
    Settle {
        nth: usize,
        and_more: u64,
    },
    Move {
        nth: usize,
    },
    Return {
        nth: usize,
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
    Evacuate,
    Close,
    /// The disk fails in the given way that many operations from now, during work or during the open after a crash.
    Fail {
        after: u64,
        fault: Fault,
    },
    Crash {
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let urgency = prop_oneof![Just(Urgency::Sync), Just(Urgency::Lazy)];
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Short), Just(Fault::ErrorAfter)];
    prop_oneof![
        8 => (1..4u64, 0..400usize).prop_map(|(queues, bytes)| Op::Publish { queues, bytes }),
        6 => (any::<usize>(), 0..6u64).prop_map(|(nth, and_more)| Op::Settle { nth, and_more }),
        2 => any::<usize>().prop_map(|nth| Op::Move { nth }),
        2 => any::<usize>().prop_map(|nth| Op::Return { nth }),
        1 => (0..4u8).prop_map(|key| Op::Declare { key }),
        1 => (0..4u8).prop_map(|key| Op::Forget { key }),
        1 => (2..5usize).prop_map(|records| Op::Chain { records }),
        5 => urgency.prop_map(Op::Flush),
        6 => (0..300u64).prop_map(|ms| Op::Write { ms }),
        2 => Just(Op::Evacuate),
        1 => Just(Op::Close),
        1 => (1..12u64, fault).prop_map(|(after, fault)| Op::Fail { after, fault }),
        2 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
    ]
}

struct World {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
    ledger: Ledger,
    /// Everything ever appended that can still come back.
    history: Vec<(Lsn, Kept, Link)>,
    durable: Lsn,
    now: Duration,
    seq: u64,
    /// How many records are to be appended until the chain ends.
    chain: usize,
    is_over: bool,
}

impl World {
    fn new() -> World {
        let disk = MemoryDisk::new();
        let Opened { log, writer, .. } = kept::open(disk.clone(), SEGMENT_BYTES).unwrap().0;
        World {
            disk,
            log,
            writer,
            ledger: Ledger::default(),
            history: Vec::new(),
            durable: Lsn::ZERO,
            now: Duration::ZERO,
            seq: 0,
            chain: 0,
            is_over: false,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Crash { seed } => self.crash(seed),
            Op::Fail { after, fault } => {
                self.disk.inject(self.disk.operations() + after, fault);
            }
            Op::Write { ms } => self.write(ms),
            _ if self.is_over => {}
            Op::Publish { queues, bytes } => {
                self.seq += 1;
                let places = (0..queues).flat_map(|queue| self.places(queue)).collect();
                self.append(&Kept::Message { places, moved_from: None, payload: vec![self.seq as u8; bytes] });
            }
            Op::Settle { nth, and_more } => {
                if let Some((queue, first)) = self.ledger.nth(nth) {
                    let ranges = vec![SeqRange { first, last: Seq(first.0 + and_more) }];
                    self.append(&Kept::Settled { queue, ranges });
                }
            }
            Op::Move { nth } => {
                self.seq += 1;
                let (places, moved_from) = (self.places(9), self.ledger.nth(nth));
                self.append(&Kept::Message { places, moved_from, payload: b"moved".to_vec() });
            }
            Op::Return { nth } => {
                if let Some((queue, seq)) = self.ledger.nth(nth) {
                    self.append(&Kept::Returned { queue, seq, attempts: nth as u32 % 5 });
                }
            }
            Op::Declare { key } => self.append(&kept::fact(&key.to_string(), "declared")),
            Op::Forget { key } => self.append(&Kept::Forget { key: key.to_string().into() }),
            Op::Chain { records } => self.chain = self.chain.max(records),
            Op::Flush(urgency) => self.log.flush(urgency),
            Op::Evacuate => self.evacuate(),
            Op::Close => {
                if self.chain == 0 {
                    self.log.close();
                    self.is_over = true;
                }
            }
        }
    }

    fn places(&self, queue: u64) -> Vec<store::Place> {
        vec![store::Place { queue: QueueId(queue), seq: Seq(self.seq), expires_at_ms: 0, priority: 0 }]
    }

    fn append(&mut self, kept: &Kept) {
        self.chain = self.chain.saturating_sub(1);
        let link = if self.chain > 0 { Link::WithNext } else { Link::Alone };
        self.append_linked(kept, link);
    }

    fn append_linked(&mut self, kept: &Kept, link: Link) {
        let lsn = ledger::record(&mut self.log, &mut self.ledger, kept, link);
        assert!(self.history.last().is_none_or(|(last, ..)| *last < lsn));
        self.history.push((lsn, kept.clone(), link));
    }

    fn evacuate(&mut self) {
        if self.chain > 0 {
            return;
        }
        if let Some(end) = self.log.evacuate(self.ledger.live_bytes()) {
            for (kept, link) in self.ledger.survivors(end) {
                self.append_linked(&kept, link);
            }
        }
    }

    fn write(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let step = self.writer.step(self.now);
        for event in kept::events(&mut self.log) {
            match event {
                StoreEvent::Durable(lsn) => {
                    assert!(lsn > self.durable);
                    self.durable = lsn;
                }
                StoreEvent::Failed(why) => {
                    assert!(why.contains("memory:") && why.contains("stops"), "{why}")
                }
            }
        }
        if matches!(step, Step::Failed | Step::Closed) {
            self.is_over = true;
        }
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
        let (Opened { log, writer, report }, replayed) = loop {
            if choose(3) == 0 {
                self.disk.inject(self.disk.operations() + choose(8) + 1, Fault::Error);
            }
            match kept::open(self.disk.clone(), SEGMENT_BYTES) {
                Ok(opened) => break opened,
                Err(store::OpenError::Io { .. }) => self.disk.crash(&mut choose),
                Err(other) => panic!("a crash looked like damage: {other}"),
            }
        };
        self.disk.heal();

        let last = replayed.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        assert!(last >= self.durable, "durable records are gone");
        if let Some((first, _)) = replayed.first() {
            let start = self.history.iter().position(|(lsn, ..)| lsn == first).unwrap();
            let lived: Vec<_> =
                self.history[start..].iter().map(|(lsn, kept, _)| (*lsn, kept.clone())).take(replayed.len()).collect();
            assert_eq!(replayed, lived, "what comes back is what was appended, without a gap");
        }
        let kept_records = self.history.partition_point(|(lsn, ..)| *lsn <= last);
        self.history.truncate(kept_records);
        assert!(self.history.last().is_none_or(|(.., link)| *link == Link::Alone), "a chain is whole");
        assert_eq!(report.records, replayed.len() as u64);

        let mut expected = Ledger::default();
        self.history.iter().for_each(|(lsn, kept, _)| expected.apply(*lsn, kept, &mut |_| {}));
        self.log = log;
        self.writer = writer;
        self.ledger = Ledger::default();
        for (lsn, kept) in &replayed {
            self.ledger.apply(*lsn, kept, &mut |dead| self.log.release(dead));
        }
        assert_eq!(self.ledger.visible(), expected.visible());
        self.durable = last;
        self.chain = 0;
        self.is_over = false;
    }
}

const SEGMENT_BYTES: u64 = 1500;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_and_nothing_settled_returns(ops in prop::collection::vec(op(), 1..160), seed: u64) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.crash(seed);
        world.crash(seed >> 1);
    }
}
