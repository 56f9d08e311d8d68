//! The host of one shard: a task that gives a `Shard` its mailbox, its timer and the news of its log's writer.
//!
//! A task and not a thread: on the few cores that most servers have, waking a thread for each handful of commands costs
//! more than a core of its own saves (CPU per message in the prototype, as a task and as a thread: 100 and 132 ns with
//! one queue, 143 and 150 ns with 5,000). The log's writer, which blocks in the kernel, does have its thread.

use crate::switchboard::{ShardMail, Switchboard};
use broker::command::{CatalogInput, Command, Outbox, ShardInput};
use broker::inspect::QueueView;
use broker::shard::Shard;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use store::Store;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// A shard and all that its task needs.
#[derive(Debug)]
pub(crate) struct ShardHost<S: Store> {
    pub(crate) shard: Shard<S>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) mailbox: UnboundedReceiver<ShardMail>,
    /// The log's writer has news.
    pub(crate) news: Arc<Notify>,
    /// Where to say that the store failed.
    pub(crate) failures: UnboundedSender<String>,
}

/// What is going on besides the shard itself.
#[derive(Default)]
struct Desk {
    mail: Vec<ShardMail>,
    /// Mail that came in and waits for a later step, in order.
    waiting: VecDeque<ShardMail>,
    inbox: Vec<ShardInput>,
    /// The room that `inbox` takes in the mailbox, to be given back when it is executed.
    taken: Vec<OwnedSemaphorePermit>,
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
            self.wait(&mut desk).await;
            desk.open_mail(!self.shard.is_full());
            self.shard.step(self.board.clock().now(), &mut desk.inbox, &self.board.topology(), &mut desk.out);
            desk.taken.clear();
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
    async fn wait(&mut self, desk: &mut Desk) {
        let deadline = self.shard.deadline();
        let is_due = deadline.is_some_and(|ms| ms <= self.board.clock().uptime_ms());
        let later = deadline.filter(|_| !is_due).map(|ms| self.board.clock().at(ms));
        // What waits for this step is taken with what comes in. While the disk cannot follow it waits on, and behind it
        // the clients, in want of room: but for what settles, which is let through.
        let is_due = is_due || !self.shard.is_full() && !desk.waiting.is_empty();
        tokio::select! {
            biased;
            received = self.mailbox.recv_many(&mut desk.mail, MAIL_AT_ONCE) => {
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
    /// Turns mail into inputs, that which waits only if it may.
    ///
    /// What settles deliveries goes first, and what publishes goes in small portions: a consumer with few deliveries
    /// at a time would otherwise wait for all that a fast publisher has sent meanwhile, again and again. Nothing
    /// overtakes mail of the same connection.
    fn open_mail(&mut self, takes_waiting: bool) {
        let mut mail = std::mem::take(&mut self.mail);
        for piece in mail.drain(..) {
            if self.is_urgent(&piece) {
                self.open(piece);
            } else {
                self.waiting.push_back(piece);
            }
        }
        self.mail = mail;
        let mut taken = 0;
        while takes_waiting
            && taken < ROOM_AT_ONCE
            && let Some(piece) = self.waiting.pop_front()
        {
            taken += self.open(piece);
        }
    }

    /// Only settles, and comes from nobody who has mail waiting.
    fn is_urgent(&self, piece: &ShardMail) -> bool {
        let ShardMail::Batch(batch, _) = piece else { return false };
        let is_same = |other: &ShardMail| match other {
            ShardMail::Batch(other, _) => other.connection == batch.connection,
            ShardMail::Input(_) | ShardMail::Inspect(..) => false,
        };
        batch.commands.iter().all(Command::settles) && !self.waiting.iter().any(is_same)
    }

    /// Makes one piece an input; returns how much room it takes.
    fn open(&mut self, piece: ShardMail) -> usize {
        if self.is_closing {
            return 0;
        }
        let (input, room) = match piece {
            ShardMail::Batch(batch, permit) => {
                let room = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                self.taken.extend(permit);
                (ShardInput::Batch(batch), room)
            }
            ShardMail::Input(input) => {
                self.is_closing = matches!(input, ShardInput::Close);
                (input, 0)
            }
            ShardMail::Inspect(queue, asker) => {
                self.last_ticket += 1;
                self.inspections.insert(self.last_ticket, asker);
                (ShardInput::Inspect { ticket: self.last_ticket, queue }, 0)
            }
        };
        self.inbox.push(input);
        room
    }
}

/// How many pieces of mail one step takes at most.
const MAIL_AT_ONCE: usize = 256;
/// How much room the mail that one step takes may have taken, about; what settles is not counted.
const ROOM_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use broker::command::{Batch, ConnectionId, QueueId, Settle, Settlement};
    use store::Seq;

    fn mail(connection: u64, commands: Vec<Command>) -> ShardMail {
        ShardMail::Batch(Batch { connection: ConnectionId(connection), commands }, None)
    }

    fn ack() -> Command {
        Command::Settle(Settle { queue: QueueId(1), seq: Seq(1), count: 1, how: Settlement::Ack })
    }

    fn from(inbox: &mut Vec<ShardInput>) -> Vec<u64> {
        let connection = |input: ShardInput| match input {
            ShardInput::Batch(batch) => Some(batch.connection.0),
            _ => None,
        };
        inbox.drain(..).filter_map(connection).collect()
    }

    #[test]
    fn while_the_disk_does_not_follow_only_what_settles_is_let_through() {
        let mut desk = Desk::default();
        desk.mail.extend([
            mail(1, vec![Command::Mark { mark: 1 }]),
            mail(2, vec![ack()]),
            mail(1, vec![ack()]),
            mail(3, vec![ack(), Command::Mark { mark: 1 }]),
        ]);
        desk.open_mail(false);
        assert_eq!(from(&mut desk.inbox), [2], "nothing overtakes mail of its own connection");
        desk.mail.push(mail(2, vec![ack()]));
        desk.open_mail(true);
        assert_eq!(from(&mut desk.inbox), [2, 1, 1, 3]);
    }
}
