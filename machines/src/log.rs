//! What the machines' shards write to, and what is done for it beside them.

use broker::command::Now;
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;
use store::{
    Caretaker, Disk, Link, Lsn, LsnRange, MemoryStore, Options, Record, SegmentLog, Step, Store, StoreEvent, Urgency,
    Writer,
};

/// The log of one shard.
pub trait Log: Debug {
    /// The part that the shard has.
    type Store: Store + Debug;

    /// Gives out that part, when every record that was kept has been replayed. Called once.
    fn open(&mut self, replay: &mut dyn FnMut(Lsn, Record<'_>)) -> Self::Store;

    /// Does what is to be done after a step of the shard, which had something to do or not; says whether the shard
    /// should look again.
    fn work(&mut self, now: Now, had_work: bool) -> bool;
}

/// The reference store. It outlives the shard that writes it.
#[derive(Debug, Default)]
pub struct MemoryLog(SharedStore);

impl MemoryLog {
    pub(crate) fn restart(self) -> Self {
        Self(SharedStore(Rc::new(RefCell::new(self.0.0.take().restart()))))
    }
}

impl Log for MemoryLog {
    type Store = SharedStore;

    fn open(&mut self, replay: &mut dyn FnMut(Lsn, Record<'_>)) -> SharedStore {
        self.0.0.borrow().replay(replay);
        self.0.clone()
    }

    fn work(&mut self, _now: Now, had_work: bool) -> bool {
        had_work
    }
}

/// The real log on a disk of whatever kind, its writer and its caretaker taking a turn after each step of the shard.
#[derive(Debug)]
pub struct Segments<D> {
    disk: D,
    threads: Option<(Writer<D>, Caretaker<D>)>,
}

impl<D> Segments<D> {
    /// A log on that disk.
    #[must_use]
    pub fn on(disk: D) -> Self {
        Self { disk, threads: None }
    }
}

impl<D: Disk + Debug> Log for Segments<D> {
    type Store = SegmentLog;

    fn open(&mut self, replay: &mut dyn FnMut(Lsn, Record<'_>)) -> SegmentLog {
        let opened = SegmentLog::open(self.disk.clone(), Options::default(), replay).expect("a disk that works");
        self.threads = Some((opened.writer, opened.caretaker));
        opened.log
    }

    fn work(&mut self, now: Now, _had_work: bool) -> bool {
        let now = Duration::from_millis(now.ms);
        let Some((writer, caretaker)) = &mut self.threads else { return false };
        let steps = [writer.step(now), caretaker.step(now)];
        steps.iter().any(|step| *step != Step::Idle)
    }
}

/// A store that outlives the shard that writes it.
#[derive(Clone, Debug, Default)]
pub struct SharedStore(Rc<RefCell<MemoryStore>>);

impl Store for SharedStore {
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn {
        self.0.borrow_mut().append(record, link)
    }

    fn flush(&mut self, urgency: Urgency) {
        self.0.borrow_mut().flush(urgency);
    }

    fn retain(&mut self, messages: LsnRange, payload_bytes: u32) {
        self.0.borrow_mut().retain(messages, payload_bytes);
    }

    fn release(&mut self, messages: LsnRange, payload_bytes: u32) {
        self.0.borrow_mut().release(messages, payload_bytes);
    }

    fn read(&mut self, ticket: u64, wanted: &[LsnRange]) {
        self.0.borrow_mut().read(ticket, wanted);
    }

    fn poll(&mut self, events: &mut Vec<StoreEvent>) {
        self.0.borrow_mut().poll(events);
    }

    fn unwritten_bytes(&self) -> usize {
        self.0.borrow().unwritten_bytes()
    }

    fn log_bytes(&self) -> u64 {
        self.0.borrow().log_bytes()
    }

    fn reclaim(&mut self) -> bool {
        self.0.borrow_mut().reclaim()
    }

    fn wants_reclaim(&self) -> bool {
        self.0.borrow().wants_reclaim()
    }

    fn replay_bytes(&self) -> u64 {
        self.0.borrow().replay_bytes()
    }

    fn wants_checkpoint(&self) -> bool {
        self.0.borrow().wants_checkpoint()
    }

    fn wants_idle_checkpoint(&self) -> bool {
        self.0.borrow().wants_idle_checkpoint()
    }

    fn checkpoint_is_behind(&self) -> bool {
        self.0.borrow().checkpoint_is_behind()
    }

    fn begin_checkpoint(&mut self) {
        self.0.borrow_mut().begin_checkpoint();
    }

    fn checkpoint(&mut self, piece: Record<'_>) {
        self.0.borrow_mut().checkpoint(piece);
    }

    fn end_checkpoint(&mut self) {
        self.0.borrow_mut().end_checkpoint();
    }

    fn close(&mut self) {
        self.0.borrow_mut().close();
    }
}
