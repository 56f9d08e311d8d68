//! The host of one shard: a task that gives a `Shard` its mailbox, its timer and the news of its log's writer.
//!
//! A task and not a thread: on the few cores that most servers have, waking a thread for each handful of commands costs
//! more than a core of its own saves (CPU per message in the prototype, as a task and as a thread: 100 and 132 ns with
//! one queue, 143 and 150 ns with 5,000). The log's writer, which blocks in the kernel, does have its thread.

use crate::switchboard::{ShardMail, Switchboard};
use broker::command::{CatalogInput, Outbox, ShardInput};
use broker::inspect::QueueView;
use broker::shard::Shard;
use std::collections::HashMap;
use std::sync::Arc;
use store::Store;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// A shard and all that its task needs.
#[derive(Debug)]
pub(crate) struct ShardHost<S: Store> {
    pub(crate) shard: Shard<S>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) mailbox: UnboundedReceiver<ShardMail>,
    /// Room in the mailbox, to be given back for each batch that was executed.
    pub(crate) room: Arc<Semaphore>,
    /// The log's writer has news.
    pub(crate) news: Arc<Notify>,
    /// Where to say that the store failed.
    pub(crate) failures: UnboundedSender<String>,
}

/// What is going on besides the shard itself.
#[derive(Default)]
struct Desk {
    mail: Vec<ShardMail>,
    inbox: Vec<ShardInput>,
    out: Outbox,
    inspections: HashMap<u64, oneshot::Sender<Vec<QueueView>>>,
    last_ticket: u64,
    /// [`ShardInput::Close`] came: nothing may follow it.
    is_closing: bool,
}

impl<S: Store> ShardHost<S> {
    /// Runs until the shard is closed and everything durable, or until its store fails.
    pub(crate) async fn run(mut self) {
        let mut desk = Desk::default();
        loop {
            self.wait(&mut desk.mail).await;
            let room = desk.open_mail();
            self.shard.step(self.board.clock().now(), &mut desk.inbox, &self.board.topology(), &mut desk.out);
            self.room.add_permits(room);
            if let Some(sentence) = desk.out.failed.take() {
                // Nothing that this step did may be seen: it may not survive.
                let _stopping = self.failures.send(sentence);
                return;
            }
            if let Some(is_full) = desk.out.full.take() {
                self.board.set_disk_full(self.shard.id(), is_full);
            }
            self.send(&mut desk);
            if desk.out.closed {
                return;
            }
        }
    }

    /// Sleeps until something happened.
    async fn wait(&mut self, mail: &mut Vec<ShardMail>) {
        let deadline = self.shard.deadline();
        let is_due = deadline.is_some_and(|ms| ms <= self.board.clock().uptime_ms());
        let later = deadline.filter(|_| !is_due).map(|ms| self.board.clock().at(ms));
        // While the disk cannot follow, commands wait in the mailbox, and at its end the clients.
        let takes_mail = !self.shard.is_full();
        tokio::select! {
            biased;
            received = self.mailbox.recv_many(mail, MAIL_AT_ONCE), if takes_mail => {
                debug_assert_ne!(received, 0, "the switchboard, which this host holds, has the sending end");
            }
            () = self.news.notified() => {}
            // There is work left from the last step: others first, then on with it.
            () = yield_now(), if is_due => {}
            () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {}
        }
    }

    fn send(&self, desk: &mut Desk) {
        for (shard, input) in desk.out.shards.drain(..) {
            self.board.post(shard, ShardMail::Input(input));
        }
        for report in desk.out.catalog.drain(..) {
            self.board.post_catalog(CatalogInput::Report(report));
        }
        self.board.deliver(desk.out.connections.drain(..));
        for (ticket, views) in desk.out.views.drain(..) {
            if let Some(asker) = desk.inspections.remove(&ticket) {
                let _gave_up = asker.send(views);
            }
        }
    }
}

impl Desk {
    /// Turns the mail into inputs; returns the room that it took.
    fn open_mail(&mut self) -> usize {
        let mut room = 0;
        for mail in self.mail.drain(..) {
            if self.is_closing {
                continue;
            }
            self.inbox.push(match mail {
                ShardMail::Batch(batch, taken) => {
                    room += taken as usize;
                    ShardInput::Batch(batch)
                }
                ShardMail::Input(input) => {
                    self.is_closing = matches!(input, ShardInput::Close);
                    input
                }
                ShardMail::Inspect(queue, asker) => {
                    self.last_ticket += 1;
                    self.inspections.insert(self.last_ticket, asker);
                    ShardInput::Inspect { ticket: self.last_ticket, queue }
                }
            });
        }
        room
    }
}

/// How many pieces of mail one step takes at most.
const MAIL_AT_ONCE: usize = 256;
