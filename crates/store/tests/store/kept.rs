//! Records that outlive the call they came with, and short ways to write, open and replay in tests.

use std::time::Duration;

use store::{
    Caretaker, Disk, Key, Link, Lsn, LsnRange, MemoryDisk, OpenError, OpenReport, Opened, Options, Place, QueueId,
    Record, Run, Seq, SeqRange, Step, Store, StoreEvent, Urgency, Writer,
};

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Message { places: Vec<Place>, moved_from: Option<(QueueId, Seq)>, kept: bool, payload: Vec<u8> },
    Settled { queue: QueueId, ranges: Vec<SeqRange> },
    Returned { queue: QueueId, range: SeqRange, attempts: u32, due_at_ms: u64 },
    Released { queue: QueueId, range: SeqRange, due_at_ms: u64 },
    Fact { key: Vec<u8>, value: Vec<u8> },
    Forget { key: Vec<u8> },
    Queue { queue: QueueId, next: Seq },
    Waiting { queue: QueueId, runs: Vec<Run> },
    Keys { queue: QueueId, source: u64, most: u32, keys: Vec<Key> },
}

/// What was written to the file, without the room that was made behind it.
pub(crate) fn written(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    disk.written(name).unwrap()
}

/// What the format has there.
pub(crate) const ROOM: u8 = 0xf6;

impl From<Record<'_>> for Kept {
    fn from(record: Record<'_>) -> Kept {
        match record {
            Record::Message { places, moved_from, kept, payload } => {
                Kept::Message { places: places.to_vec(), moved_from, kept, payload: payload.to_vec() }
            }
            Record::Settled { queue, ranges } => Kept::Settled { queue, ranges: ranges.to_vec() },
            Record::Returned { queue, range, attempts, due_at_ms } => {
                Kept::Returned { queue, range, attempts, due_at_ms }
            }
            Record::Released { queue, range, due_at_ms } => Kept::Released { queue, range, due_at_ms },
            Record::Fact { key, value } => Kept::Fact { key: key.to_vec(), value: value.to_vec() },
            Record::Forget { key } => Kept::Forget { key: key.to_vec() },
            Record::Queue { queue, next } => Kept::Queue { queue, next },
            Record::Waiting { queue, runs } => Kept::Waiting { queue, runs: runs.to_vec() },
            Record::Keys { queue, source, most, keys } => Kept::Keys { queue, source, most, keys: keys.to_vec() },
        }
    }
}

impl Kept {
    pub(crate) fn record(&self) -> Record<'_> {
        match self {
            Kept::Message { places, moved_from, kept, payload } => {
                Record::Message { places, moved_from: *moved_from, kept: *kept, payload }
            }
            Kept::Settled { queue, ranges } => Record::Settled { queue: *queue, ranges },
            Kept::Returned { queue, range, attempts, due_at_ms } => {
                Record::Returned { queue: *queue, range: *range, attempts: *attempts, due_at_ms: *due_at_ms }
            }
            Kept::Released { queue, range, due_at_ms } => {
                Record::Released { queue: *queue, range: *range, due_at_ms: *due_at_ms }
            }
            Kept::Fact { key, value } => Record::Fact { key, value },
            Kept::Forget { key } => Record::Forget { key },
            Kept::Queue { queue, next } => Record::Queue { queue: *queue, next: *next },
            Kept::Waiting { queue, runs } => Record::Waiting { queue: *queue, runs },
            Kept::Keys { queue, source, most, keys } => {
                Record::Keys { queue: *queue, source: *source, most: *most, keys }
            }
        }
    }

    /// What a replay makes of it.
    pub(crate) fn replayed(&self) -> Option<Kept> {
        match self {
            Kept::Message { kept: false, moved_from, .. } => moved_from.map(|(queue, seq)| settled(queue.0, seq.0)),
            kept => Some(kept.clone()),
        }
    }
}

/// A message that waits in one queue.
pub(crate) fn message(queue: u64, seq: u64, payload: &[u8]) -> Kept {
    let place = Place { queue: QueueId(queue), seq: Seq(seq), expires_at_ms: 0, priority: 0, due_at_ms: 0 };
    Kept::Message { places: vec![place], moved_from: None, kept: true, payload: payload.to_vec() }
}

/// The same, but not for after a restart.
pub(crate) fn fleeting(queue: u64, seq: u64, payload: &[u8]) -> Kept {
    match message(queue, seq, payload) {
        Kept::Message { places, moved_from, payload, .. } => Kept::Message { places, moved_from, kept: false, payload },
        other => other,
    }
}

pub(crate) fn settled(queue: u64, seq: u64) -> Kept {
    Kept::Settled { queue: QueueId(queue), ranges: vec![SeqRange { first: Seq(seq), last: Seq(seq) }] }
}

pub(crate) fn fact(key: &str, value: &str) -> Kept {
    Kept::Fact { key: key.into(), value: value.into() }
}

/// One of each kind, with the values that are hard to encode.
pub(crate) fn one_of_each() -> Vec<Kept> {
    let place = |queue, seq, expires_at_ms, priority| Place {
        queue: QueueId(queue),
        seq: Seq(seq),
        expires_at_ms,
        priority,
        due_at_ms: 0,
    };
    let message = |places, moved_from, payload| Kept::Message { places, moved_from, kept: true, payload };
    let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
    vec![
        fact("queue/7", "durable"),
        self::message(7, 1, b"hello"),
        message(
            vec![place(7, 2, 0, 0), place(u64::MAX, u64::MAX, u64::MAX, 255), place(0, 127, 128, 9)],
            Some((QueueId(300), Seq(16384))),
            Vec::new(),
        ),
        message(Vec::new(), Some((QueueId(1), Seq(1))), vec![0; 300]),
        Kept::Settled { queue: QueueId(7), ranges: vec![range(5, 9), range(0, u64::MAX)] },
        Kept::Settled { queue: QueueId(0), ranges: Vec::new() },
        Kept::Returned { queue: QueueId(7), range: range(2, 2), attempts: u32::MAX, due_at_ms: 0 },
        fact("", ""),
        Kept::Forget { key: b"queue/7".to_vec() },
        Kept::Forget { key: Vec::new() },
    ]
}

/// What version 3 can say and those before it could not: that something is due at a time.
pub(crate) fn due_ones() -> Vec<Kept> {
    let place = |queue, seq, due_at_ms| Place {
        queue: QueueId(queue),
        seq: Seq(seq),
        expires_at_ms: 0,
        priority: 1,
        due_at_ms,
    };
    let range = SeqRange { first: Seq(2), last: Seq(4) };
    vec![
        Kept::Message {
            places: vec![place(7, 1, 0), place(7, 2, u64::MAX), place(8, 3, 1_700_000_000_000)],
            moved_from: Some((QueueId(300), Seq(16384))),
            kept: true,
            payload: b"later".to_vec(),
        },
        Kept::Returned { queue: QueueId(7), range, attempts: 3, due_at_ms: u64::MAX },
        Kept::Returned { queue: QueueId(8), range, attempts: 0, due_at_ms: 1 },
    ]
}

/// Records of kinds that came after the fixtures of version 3.
pub(crate) fn later_records() -> Vec<Kept> {
    let range = SeqRange { first: Seq(2), last: Seq(4) };
    let released = |due_at_ms| Kept::Released { queue: QueueId(9), range, due_at_ms };
    vec![released(0), released(1_700_000_000_000), released(u64::MAX)]
}

/// The same for pieces of a checkpoint.
pub(crate) fn due_pieces() -> Vec<Kept> {
    let run = |seq, count, due_at_ms| Run {
        seq: Seq(seq),
        count,
        lsn: Lsn::ZERO.plus(seq),
        payload_bytes: 5,
        header_bytes: 0,
        expires_at_ms: 9,
        priority: 0,
        attempts: 0,
        redelivered: false,
        due_at_ms,
    };
    vec![Kept::Waiting { queue: QueueId(7), runs: vec![run(1, 2, u64::MAX), run(3, 1, 0), run(9, 1, 1 << 40)] }]
}

/// One of each kind that stands in checkpoints only, and a fact.
pub(crate) fn pieces() -> Vec<Kept> {
    let run = |seq, count, lsn: u64| Run {
        seq: Seq(seq),
        count,
        lsn: Lsn::ZERO.plus(lsn),
        payload_bytes: 5,
        header_bytes: 0,
        expires_at_ms: 0,
        priority: 0,
        attempts: 0,
        redelivered: false,
        due_at_ms: 0,
    };
    let odd = Run {
        payload_bytes: u32::MAX,
        header_bytes: u32::MAX,
        expires_at_ms: u64::MAX,
        priority: 255,
        attempts: u32::MAX,
        redelivered: true,
        ..run(u64::MAX - 1, 1, u64::MAX - 1)
    };
    vec![
        fact("queue/7", "durable"),
        Kept::Queue { queue: QueueId(7), next: Seq(99) },
        Kept::Waiting { queue: QueueId(7), runs: vec![run(1, 1, 2), run(2, 1, 3), odd, run(3, u32::MAX, 9)] },
        Kept::Waiting { queue: QueueId(8), runs: Vec::new() },
        Kept::Queue { queue: QueueId(u64::MAX), next: Seq(u64::MAX) },
    ]
}

pub(crate) fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, salt: 0x5eed, reserve_bytes: 0, progress: None }
}

/// What a replay gave.
pub(crate) type Replayed = Vec<(Lsn, Kept)>;

pub(crate) fn open<D: Disk>(disk: D, segment_bytes: u64) -> Result<(Opened<D>, Replayed), OpenError> {
    open_with(disk, options(segment_bytes))
}

pub(crate) fn open_with<D: Disk>(disk: D, options: Options) -> Result<(Opened<D>, Replayed), OpenError> {
    let mut replayed = Vec::new();
    let opened = store::SegmentLog::open(disk, options, &mut |lsn, record| {
        replayed.push((lsn, Kept::from(record)));
    })?;
    Ok((opened, replayed))
}

/// What the log on that disk holds and how it was found.
pub(crate) fn reopen<D: Disk>(disk: D) -> Result<(OpenReport, Vec<Kept>), OpenError> {
    let (opened, replayed) = open(disk, 1 << 20)?;
    Ok((opened.report, replayed.into_iter().map(|(_, kept)| kept).collect()))
}

/// Rounds until there is nothing to do; unsynced data is old enough after the first.
pub(crate) fn drain<D: Disk>(writer: &mut Writer<D>) -> Step {
    let mut now = Duration::ZERO;
    loop {
        match writer.step(now) {
            Step::Idle => return Step::Idle,
            Step::Wrote | Step::Synced => now += store::LAZY_SYNC_AFTER,
            over => return over,
        }
    }
}

/// Rounds of both parts, with a poll after each, until there is nothing to do.
pub(crate) fn settle<S: Store, D: Disk>(
    log: &mut S,
    writer: &mut Writer<D>,
    caretaker: &mut Caretaker<D>,
) -> Vec<StoreEvent> {
    settle_from(Duration::ZERO, log, writer, caretaker)
}

pub(crate) fn settle_from<S: Store, D: Disk>(
    mut now: Duration,
    log: &mut S,
    writer: &mut Writer<D>,
    caretaker: &mut Caretaker<D>,
) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    loop {
        let steps = [writer.step(now), caretaker.step(now)];
        let before = events.len();
        log.poll(&mut events);
        let is_busy = |step: &Step| matches!(step, Step::Wrote | Step::Synced);
        if !steps.iter().any(is_busy) && events.len() == before {
            return events;
        }
        now += store::LAZY_SYNC_AFTER;
    }
}

pub(crate) fn append_all<S: Store>(store: &mut S, records: &[Kept]) -> Vec<Lsn> {
    records.iter().map(|kept| store.append(kept.record(), Link::Alone)).collect()
}

/// Appends, and writes and syncs it all in one batch.
pub(crate) fn commit<S: Store, D: Disk>(log: &mut S, writer: &mut Writer<D>, records: &[Kept]) -> Vec<Lsn> {
    let lsns = append_all(log, records);
    log.flush(Urgency::Sync);
    assert_eq!(writer.step(Duration::ZERO), Step::Synced);
    lsns
}

/// Writes a whole checkpoint; it counts once the store is settled.
pub(crate) fn checkpoint<S: Store>(store: &mut S, pieces: &[Kept]) {
    store.begin_checkpoint();
    pieces.iter().for_each(|piece| store.checkpoint(piece.record()));
    store.end_checkpoint();
}

pub(crate) fn one(lsn: Lsn) -> LsnRange {
    LsnRange { first: lsn, count: 1 }
}

pub(crate) fn events<S: Store>(store: &mut S) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    store.poll(&mut events);
    events
}

/// Keys that queues remember.
pub(crate) fn keys() -> Vec<Kept> {
    vec![
        Kept::Keys { queue: QueueId(7), source: 0, most: 0, keys: vec![Key { hash: 1 << 127, until: u64::MAX }] },
        Kept::Keys {
            queue: QueueId(u64::MAX),
            source: u64::MAX,
            most: u32::MAX,
            keys: vec![Key { hash: u128::MAX, until: 0 }, Key { hash: 0, until: 300 }],
        },
    ]
}
