//! Spans: what happens to messages whose publishers have them traced, for OpenTelemetry.
//!
//! Only messages whose `traceparent` says that the trace is recorded are told of, and only while there is somewhere to send
//! spans. Connections note what happens, a task of its own sends it; nobody waits for that.

mod book;
mod exporter;
mod ids;
mod span;
mod waiting;

use crate::clock::unix_ns;
use crate::switchboard::Switchboard;
use book::{Book, Names, Teller, Times};
use broker::command::{QueueId, VhostId};
use broker::connection::Connection;
use broker::span::SpanNote;
use broker::topology::Topology;
pub(crate) use exporter::Collector;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spans {
    /// Where they go; `None` = nowhere.
    collector: RwLock<Option<Arc<Collector>>>,
    book: Mutex<Book>,
    exported: AtomicU64,
    /// By the exporter; what the book had no room for is counted there.
    lost: AtomicU64,
    /// There is something to send, or somewhere else to send it, or the end.
    news: Notify,
    /// There is enough for a request.
    full: Notify,
    is_ending: AtomicBool,
}

impl Spans {
    pub(crate) fn new(collector: Option<Arc<Collector>>) -> Self {
        Self {
            collector: RwLock::new(collector),
            book: Mutex::new(Book::new()),
            exported: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            news: Notify::new(),
            full: Notify::new(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// Whether messages are traced.
    pub(crate) fn is_on(&self) -> bool {
        self.collector().is_some()
    }

    /// How many spans were exported, and how many were not for want of room or of a collector that takes them.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed) + self.book().dropped)
    }

    fn collector(&self) -> Option<Arc<Collector>> {
        self.collector.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends them there from now on.
    fn send_to(&self, collector: Option<Arc<Collector>>) {
        let is_off = collector.is_none();
        *self.collector.write().unwrap_or_else(PoisonError::into_inner) = collector;
        if is_off {
            self.book().clear();
        }
        self.news.notify_one();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down what a connection tells after a step that began then.
    fn note(&self, notes: Vec<SpanNote>, connection: &Connection, topology: &Topology, began_ns: u64) {
        if !self.is_on() {
            return;
        }
        let (vhost, vhost_name) = connection.vhost();
        let teller = Teller {
            connection: connection.id(),
            client: connection.client_name().unwrap_or_default(),
            peer: connection.ends().peer,
            vhost: vhost_name,
        };
        let names = InVhost { topology, vhost };
        let times = Times { began_ns, done_ns: unix_ns() };
        let mut book = self.book();
        let before = book.finished();
        book.note(notes, teller, &names, times);
        let after = book.finished();
        drop(book);
        if before == 0 && after > 0 {
            self.news.notify_one();
        }
        if before < exporter::SPANS_AT_ONCE && after >= exporter::SPANS_AT_ONCE {
            self.full.notify_one();
        }
    }
}

struct InVhost<'a> {
    topology: &'a Topology,
    vhost: VhostId,
}

impl Names for InVhost<'_> {
    fn name(&self, queue: QueueId) -> Option<Arc<str>> {
        self.topology.queue_by_id(queue).map(|queue| Arc::clone(&queue.name))
    }

    fn queue(&self, name: &str) -> Option<QueueId> {
        self.topology.queue(self.vhost, name).map(|queue| queue.queue.id)
    }
}

impl Switchboard {
    /// Takes down what a connection tells after a step that began then.
    pub(crate) fn note_spans(&self, connection: &mut Connection, began_ns: u64) {
        let notes = connection.take_span_notes();
        if !notes.is_empty() {
            self.spans().note(notes, connection, &self.topology(), began_ns);
        }
    }

    /// Messages are traced for this one from now on.
    pub(crate) fn trace_by(&self, collector: Option<Arc<Collector>>) {
        self.spans().send_to(collector);
        self.tell_changed();
    }
}
