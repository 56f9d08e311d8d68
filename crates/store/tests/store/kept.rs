//! Records that outlive the call they came with, and short ways to write, open and replay in tests.

use std::time::Duration;

use store::{
    Disk, Link, Lsn, OpenError, OpenReport, Opened, Options, Place, QueueId, Record, Seq, SeqRange, Step, Store,
    StoreEvent, Urgency, Writer,
};

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Message { places: Vec<Place>, moved_from: Option<(QueueId, Seq)>, payload: Vec<u8> },
    Settled { queue: QueueId, ranges: Vec<SeqRange> },
    Returned { queue: QueueId, seq: Seq, attempts: u32 },
    Fact { key: Vec<u8>, value: Vec<u8> },
    Forget { key: Vec<u8> },
}

impl From<Record<'_>> for Kept {
    fn from(record: Record<'_>) -> Kept {
        match record {
            Record::Message { places, moved_from, payload } => {
                Kept::Message { places: places.to_vec(), moved_from, payload: payload.to_vec() }
            }
            Record::Settled { queue, ranges } => Kept::Settled { queue, ranges: ranges.to_vec() },
            Record::Returned { queue, seq, attempts } => Kept::Returned { queue, seq, attempts },
            Record::Fact { key, value } => Kept::Fact { key: key.to_vec(), value: value.to_vec() },
            Record::Forget { key } => Kept::Forget { key: key.to_vec() },
        }
    }
}

impl Kept {
    pub(crate) fn record(&self) -> Record<'_> {
        match self {
            Kept::Message { places, moved_from, payload } => {
                Record::Message { places, moved_from: *moved_from, payload }
            }
            Kept::Settled { queue, ranges } => Record::Settled { queue: *queue, ranges },
            Kept::Returned { queue, seq, attempts } => {
                Record::Returned { queue: *queue, seq: *seq, attempts: *attempts }
            }
            Kept::Fact { key, value } => Record::Fact { key, value },
            Kept::Forget { key } => Record::Forget { key },
        }
    }
}

/// A message that waits in one queue.
pub(crate) fn message(queue: u64, seq: u64, payload: &[u8]) -> Kept {
    let place = Place { queue: QueueId(queue), seq: Seq(seq), expires_at_ms: 0, priority: 0 };
    Kept::Message { places: vec![place], moved_from: None, payload: payload.to_vec() }
}

pub(crate) fn settled(queue: u64, seq: u64) -> Kept {
    Kept::Settled { queue: QueueId(queue), ranges: vec![SeqRange { first: Seq(seq), last: Seq(seq) }] }
}

pub(crate) fn fact(key: &str, value: &str) -> Kept {
    Kept::Fact { key: key.into(), value: value.into() }
}

/// One of each kind, with the values that are hard to encode.
pub(crate) fn one_of_each() -> Vec<Kept> {
    let place =
        |queue, seq, expires_at_ms, priority| Place { queue: QueueId(queue), seq: Seq(seq), expires_at_ms, priority };
    vec![
        fact("queue/7", "durable"),
        message(7, 1, b"hello"),
        Kept::Message {
            places: vec![place(7, 2, 0, 0), place(u64::MAX, u64::MAX, u64::MAX, 255), place(0, 127, 128, 9)],
            moved_from: Some((QueueId(300), Seq(16384))),
            payload: Vec::new(),
        },
        Kept::Message { places: Vec::new(), moved_from: Some((QueueId(1), Seq(1))), payload: vec![0; 300] },
        Kept::Settled {
            queue: QueueId(7),
            ranges: vec![SeqRange { first: Seq(5), last: Seq(9) }, SeqRange { first: Seq(0), last: Seq(u64::MAX) }],
        },
        Kept::Settled { queue: QueueId(0), ranges: Vec::new() },
        Kept::Returned { queue: QueueId(7), seq: Seq(2), attempts: u32::MAX },
        fact("", ""),
        Kept::Forget { key: b"queue/7".to_vec() },
        Kept::Forget { key: Vec::new() },
    ]
}

pub(crate) fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, salt: 0x5eed, progress: None }
}

/// What a replay gave.
pub(crate) type Replayed = Vec<(Lsn, Kept)>;

pub(crate) fn open<D: Disk>(disk: D, segment_bytes: u64) -> Result<(Opened<D>, Replayed), OpenError> {
    let mut replayed = Vec::new();
    let opened = store::SegmentLog::open(disk, options(segment_bytes), &mut |lsn, record| {
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

pub(crate) fn events<S: Store>(store: &mut S) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    store.poll(&mut events);
    events
}
