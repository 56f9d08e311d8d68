//! A disk without room: what waits for it waits, what is confirmed stays, and when there is room all of it goes on.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use store::{Caretaker, Lsn, MemoryDisk, OpenError, Opened, Options, SegmentLog, Step, Store, StoreEvent};
use store::{SharedWriter, Urgency, Writer};

use crate::kept::{self, Kept};

struct Bench {
    disk: MemoryDisk,
    log: SegmentLog,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
}

fn options(reserve_bytes: u64) -> Options {
    Options { reserve_bytes, ..kept::options(1000) }
}

fn bench(reserve_bytes: u64) -> Bench {
    let disk = MemoryDisk::new();
    let Opened { log, writer, caretaker, .. } = kept::open_with(disk.clone(), options(reserve_bytes)).unwrap().0;
    Bench { disk, log, writer, caretaker }
}

impl Bench {
    fn used(&self) -> u64 {
        self.disk.names().iter().map(|name| self.disk.file(name).unwrap().len() as u64).sum()
    }

    fn leave_room(&self, bytes: u64) {
        self.disk.set_capacity(Some(self.used() + bytes));
    }

    fn publish(&mut self, seq: u64, bytes: usize) -> (Lsn, Kept) {
        let kept = kept::message(1, seq, &vec![seq as u8; bytes]);
        let lsn = kept::append_all(&mut self.log, std::slice::from_ref(&kept))[0];
        self.log.flush(Urgency::Sync);
        (lsn, kept)
    }
}

#[test]
fn what_finds_no_room_is_written_when_there_is_some() {
    let mut bench = bench(0);
    let first = bench.publish(1, 50);
    assert_eq!(bench.writer.step(Duration::ZERO), Step::Synced);
    assert_eq!(kept::events(&mut bench.log), [StoreEvent::Durable(first.0)]);
    bench.leave_room(60);
    let second = bench.publish(2, 200);
    assert_eq!(bench.writer.step(Duration::ZERO), Step::Wrote);
    assert_eq!(kept::events(&mut bench.log), [StoreEvent::Full(true)]);
    let third = bench.publish(3, 10);
    let operations = bench.disk.operations();
    assert_eq!(bench.writer.step(Duration::from_millis(99)), Step::Idle);
    assert_eq!(bench.disk.operations(), operations, "it is not tried all the time");
    assert_eq!(bench.writer.step(Duration::from_millis(100)), Step::Idle);
    assert!(kept::events(&mut bench.log).is_empty() && bench.log.unwritten_bytes() > 200);
    bench.disk.set_capacity(None);
    kept::drain(&mut bench.writer);
    assert_eq!(bench.writer.step(Duration::from_millis(200)), Step::Synced);
    let events = kept::events(&mut bench.log);
    assert_eq!(events, [StoreEvent::Durable(second.0), StoreEvent::Full(false)]);
    assert_eq!(bench.writer.step(Duration::from_millis(200)), Step::Synced);
    assert_eq!(kept::events(&mut bench.log), [StoreEvent::Durable(third.0)]);
    bench.disk.crash(&mut |_| 1);
    let (report, replayed) = kept::reopen(bench.disk).unwrap();
    assert_eq!((report.cut, replayed), (None, vec![first.1, second.1, third.1]));
}

#[test]
fn every_write_of_a_log_can_wait() {
    for room in 0..1600 {
        let mut bench = bench(0);
        bench.leave_room(room);
        let mut expected = Vec::new();
        let mut now = Duration::ZERO;
        let mut durable = 0;
        let mut fills = 0;
        for seq in 0..16 {
            expected.push(bench.publish(seq, 70).1);
            now += Duration::from_millis(100);
            bench.writer.step(now);
            for event in kept::events(&mut bench.log) {
                match event {
                    StoreEvent::Durable(_) => durable = expected.len(),
                    StoreEvent::Full(is_full) => {
                        assert!(is_full);
                        fills += 1;
                        durable = durable.min(expected.len() - 1);
                    }
                    other => panic!("{room}: {other:?}"),
                }
            }
        }
        assert_eq!(fills, 1, "{room}");
        if room % 2 == 0 {
            // The power fails before there is room.
            bench.disk.crash(&mut |_| 1);
            let (_, replayed) = kept::reopen(bench.disk).unwrap();
            assert!(replayed.len() >= durable && expected.starts_with(&replayed), "{room}");
            continue;
        }
        bench.disk.set_capacity(None);
        now += Duration::from_millis(100);
        let events = kept::settle_from(now, &mut bench.log, &mut bench.writer, &mut bench.caretaker);
        assert!(events.contains(&StoreEvent::Full(false)), "{room}: {events:?}");
        let lsns: Vec<_> = (1..17).map(|more| kept::one(Lsn::ZERO.plus(more))).collect();
        bench.log.read(1, &lsns);
        let events = kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
        assert!(matches!(&events[..], [StoreEvent::Read { messages, .. }] if messages.len() == 16), "{room}");
        bench.disk.crash(&mut |_| 1);
        let (report, replayed) = kept::reopen(bench.disk).unwrap();
        assert_eq!((report.cut, replayed), (None, expected), "{room}");
    }
}

#[test]
fn the_reserve_lets_what_frees_space_be_written() {
    let mut bench = bench(2000);
    bench.publish(1, 50);
    kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    bench.leave_room(10);
    let (lsn, _) = bench.publish(2, 200);
    let events = kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    assert_eq!(events, [StoreEvent::Durable(lsn), StoreEvent::Full(true)]);
    assert!(bench.disk.file("reserve").is_none());
    let (lsn, _) = bench.publish(3, 200);
    let events = kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    assert_eq!(events, [StoreEvent::Durable(lsn)], "and nobody is told twice");
    bench.disk.set_capacity(None);
    assert_eq!(bench.caretaker.step(Duration::from_secs(60)), Step::Wrote);
    assert_eq!(kept::events(&mut bench.log), [StoreEvent::Full(false)]);
    assert_eq!(bench.disk.file("reserve").unwrap(), [0; 2000]);
}

#[test]
fn a_log_is_closed_although_there_is_no_room() {
    let mut bench = bench(0);
    let first = bench.publish(1, 50);
    kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    bench.leave_room(20);
    bench.publish(2, 200);
    kept::checkpoint(&mut bench.log, &[kept::fact("a", "b")]);
    bench.log.close();
    assert_eq!(bench.writer.step(Duration::ZERO), Step::Closed);
    for _ in 0..5 {
        bench.caretaker.step(Duration::ZERO);
    }
    assert_eq!(bench.caretaker.step(Duration::ZERO), Step::Closed);
    bench.disk.set_capacity(None);
    assert_eq!(bench.disk.names().len(), 1);
    let (report, replayed) = kept::reopen(bench.disk).unwrap();
    assert_eq!(replayed, [first.1]);
    assert!(!report.clean);
}

#[test]
fn a_full_disk_can_be_opened_at_the_cost_of_the_reserve() {
    for segment_bytes in [1000, 100] {
        let mut bench = bench(500);
        let first = bench.publish(1, 50);
        kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
        if segment_bytes == 100 {
            bench.log.close();
            kept::drain(&mut bench.writer);
        }
        bench.leave_room(20);
        let room = bench.used() + 20;
        bench.disk.crash(&mut |_| 1);
        bench.disk.set_capacity(Some(room));
        let options = Options { segment_bytes, ..options(500) };
        let (Opened { mut log, .. }, replayed) = kept::open_with(bench.disk.clone(), options).unwrap();
        assert_eq!(replayed.len(), 1);
        assert_eq!(kept::events(&mut log), [StoreEvent::Full(true)]);
        assert!(bench.disk.file("reserve").is_none());
        drop(log);

        // The next one has nothing left to give.
        bench.leave_room(20);
        let room = bench.used() + 20;
        bench.disk.crash(&mut |_| 1);
        bench.disk.set_capacity(Some(room));
        let error = kept::open(bench.disk.clone(), 1000).unwrap_err();
        assert!(matches!(&error, OpenError::Io { .. }), "{error}");
        bench.disk.set_capacity(None);
        assert_eq!(kept::reopen(bench.disk).unwrap().1, [first.1]);
    }
}

#[test]
fn a_checkpoint_that_finds_no_room_is_tried_again() {
    let mut bench = bench(0);
    for seq in 0..40 {
        bench.publish(seq, 70);
    }
    kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    assert!(bench.log.wants_checkpoint());
    bench.log.begin_checkpoint();
    bench.log.flush(Urgency::Sync);
    kept::drain(&mut bench.writer);
    bench.leave_room(600);
    let large = "x".repeat(1000);
    bench.log.checkpoint(kept::fact("a", &large).record());
    bench.log.end_checkpoint();
    kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    assert!(bench.disk.names().iter().all(|name| !name.ends_with(".index")), "{:?}", bench.disk.names());
    let segments = bench.disk.names();
    for seconds in 1..5 {
        bench.caretaker.step(Duration::from_secs(100 * seconds));
        kept::events(&mut bench.log);
        assert!(bench.log.wants_checkpoint());
        kept::checkpoint(&mut bench.log, &[kept::fact("a", &large)]);
        kept::settle_from(Duration::from_secs(100 * seconds), &mut bench.log, &mut bench.writer, &mut bench.caretaker);
        assert!(!bench.log.wants_checkpoint(), "there is no room");
    }
    assert_eq!(bench.disk.names(), segments, "an attempt without room begins no new segment");
    bench.disk.set_capacity(None);
    bench.caretaker.step(Duration::from_secs(1000));
    kept::events(&mut bench.log);
    assert!(bench.log.wants_checkpoint());
    kept::checkpoint(&mut bench.log, &[kept::fact("a", &large)]);
    kept::settle(&mut bench.log, &mut bench.writer, &mut bench.caretaker);
    assert!(bench.disk.names().iter().any(|name| name.ends_with(".index")));
    assert!(!bench.log.wants_checkpoint());
}

#[test]
fn threads_wait_for_room_and_go_on() {
    let Bench { disk, mut log, writer, caretaker } = bench(500);
    let (news, heard) = mpsc::channel();
    let start = Instant::now();
    let other = news.clone();
    let notify = move |news: &mpsc::Sender<()>| {
        let _ = news.send(());
    };
    let shared = SharedWriter::new(writer);
    shared.attend();
    let rounds = shared.clone();
    let threads = [
        thread::spawn(move || rounds.run(move || start.elapsed(), move || notify(&news))),
        thread::spawn(move || caretaker.run(move || start.elapsed(), move || notify(&other))),
    ];
    let used: usize = disk.names().iter().map(|name| disk.file(name).unwrap().len()).sum();
    disk.set_capacity(Some(used as u64));
    let last = kept::append_all(&mut log, &vec![kept::message(1, 1, &[1; 90]); 20])[19];
    log.flush(Urgency::Sync);
    assert_ne!(shared.try_step(start.elapsed()), Some(Step::Synced), "whoever finds it full, the thread goes on");
    let mut events = Vec::new();
    log.poll(&mut events);
    let mut wait_for = |wanted: StoreEvent, log: &mut SegmentLog| {
        while !events.contains(&wanted) {
            heard.recv_timeout(Duration::from_secs(30)).unwrap();
            log.poll(&mut events);
        }
    };
    wait_for(StoreEvent::Full(true), &mut log);
    disk.set_capacity(None);
    wait_for(StoreEvent::Durable(last), &mut log);
    wait_for(StoreEvent::Full(false), &mut log);
    assert_eq!(disk.file("reserve").unwrap().len(), 500);
    log.read(7, &[kept::one(last)]);
    let answer = StoreEvent::Read { ticket: 7, messages: vec![(last, vec![1; 90].into())] };
    wait_for(answer, &mut log);
    log.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(kept::reopen(disk).unwrap().0.clean);
}

#[test]
fn what_finds_no_room_behind_what_was_synced_is_tried_again_by_the_thread() {
    let mut bench = bench(0);
    bench.publish(1, 50);
    assert_eq!(bench.writer.step(Duration::ZERO), Step::Synced);
    // For what goes into this segment, but not for its footer.
    bench.leave_room(690);
    let Bench { disk, mut log, writer, caretaker: _caretaker } = bench;
    let (news, heard) = mpsc::channel();
    let (asked, asks) = mpsc::channel();
    let start = Instant::now();
    let shared = SharedWriter::new(writer);
    shared.attend();
    let rounds = shared.clone();
    let clock = move || {
        let _ = asked.send(());
        start.elapsed()
    };
    let notify = move || {
        let _ = news.send(());
    };
    let thread = thread::spawn(move || rounds.run(clock, notify));
    // Once for an idle round, and once while it lies down: it lets nobody flush until it sleeps.
    (0..2).for_each(|_| asks.recv_timeout(Duration::from_secs(30)).unwrap());
    let last = kept::append_all(&mut log, &vec![kept::message(1, 2, &[1; 90]); 20])[19];
    log.flush(Urgency::Sync);
    assert_eq!(shared.try_step(start.elapsed()), Some(Step::Synced));
    assert!(kept::events(&mut log).contains(&StoreEvent::Full(true)));
    disk.set_capacity(None);
    while !kept::events(&mut log).contains(&StoreEvent::Durable(last)) {
        heard.recv_timeout(Duration::from_secs(30)).unwrap();
    }
    log.close();
    thread.join().unwrap();
}
