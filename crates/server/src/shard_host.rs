//! The host of one shard: a task that gives a `Shard` its mailbox, its timer and the news of its log's writer.
//!
//! A task and not a thread: on the few cores that most servers have, waking a thread for each handful of commands costs
//! more than a core of its own saves (CPU per message in the prototype, as a task and as a thread: 100 and 132 ns with
//! one queue, 143 and 150 ns with 5,000). The log's writer, which blocks in the kernel, does have its thread.

use crate::switchboard::{LIGHT_ROOM, ShardMail, Switchboard, weight};
use broker::command::{Batch, CatalogInput, Command, ConnectionId, Outbox, ShardInput};
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
    /// The room in the mailbox that `inbox` takes: dropped, it is given back.
    executed: Vec<OwnedSemaphorePermit>,
    out: Outbox,
    inspections: HashMap<u64, oneshot::Sender<Vec<QueueView>>>,
    last_ticket: u64,
    /// Connections whose mail was passed over.
    passed_over: Vec<ConnectionId>,
    /// All that waits is put off.
    holds: bool,
    /// [`ShardInput::Close`] came: nothing may follow it.
    is_closing: bool,
}

impl<S: Store> ShardHost<S> {
    /// Runs until the shard is closed and everything durable, or until its store fails.
    pub(crate) async fn run(mut self) {
        let mut desk = Desk::default();
        loop {
            self.wait(&mut desk).await;
            let now = self.board.clock().now();
            desk.open_mail(|commands| self.shard.puts_off(commands, now));
            self.shard.step(now, &mut desk.inbox, &self.board.topology(), &mut desk.out);
            desk.executed.clear();
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
        let held_until_ms = desk.holds.then(|| self.board.clock().uptime_ms() + HOLD_MS);
        let later = deadline.into_iter().chain(held_until_ms).min();
        let later = later.filter(|_| !is_due).map(|ms| self.board.clock().at(ms));
        // What waits for this step is taken with what comes in, unless all of it is put off.
        let is_due = is_due || !desk.waiting.is_empty() && !desk.holds;
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
    /// Turns mail into inputs, as much as one step takes.
    ///
    /// What settles deliveries goes first: it is paid for, and a consumer with few deliveries at a time would otherwise
    /// wait for all that a fast publisher has sent meanwhile, again and again. Then what is small, so that who sends
    /// little does not wait for who sends a lot, then the rest, in portions. Some of it may be put off. Nothing overtakes
    /// mail of the same connection, and what comes from the catalog or another shard overtakes nothing.
    fn open_mail(&mut self, is_put_off: impl Fn(&[Command]) -> bool) {
        let mut mail = std::mem::take(&mut self.mail);
        for piece in mail.drain(..) {
            if self.is_urgent(&piece) {
                self.open(piece);
            } else {
                self.waiting.push_back(piece);
            }
        }
        self.mail = mail;
        let light = self.open_waiting(LIGHT_ROOM_AT_ONCE, |batch, room| room > LIGHT_ROOM || is_put_off(batch));
        let left = ROOM_AT_ONCE - light.min(ROOM_AT_ONCE);
        self.holds = self.open_waiting(left, |batch, _| is_put_off(batch)) < left && !self.waiting.is_empty();
    }

    /// Opens what waits, in order, until it took so much room; how much it took. Batches may be passed over.
    fn open_waiting(&mut self, room: usize, passes_over: impl Fn(&[Command], usize) -> bool) -> usize {
        let (mut at, mut taken) = (0, 0);
        self.passed_over.clear();
        while taken < room
            && let Some(piece) = self.waiting.get(at)
        {
            match piece {
                ShardMail::Batch(batch, _) => {
                    let is_passed_over = self.passed_over.contains(&batch.connection);
                    if is_passed_over || passes_over(&batch.commands, room_of(piece)) {
                        if !is_passed_over {
                            self.passed_over.push(batch.connection);
                        }
                        at += 1;
                        continue;
                    }
                }
                ShardMail::Input(_) | ShardMail::Inspect(..) if at > 0 => break,
                ShardMail::Input(_) | ShardMail::Inspect(..) => {}
            }
            let Some(piece) = self.waiting.remove(at) else { break };
            let (first, rest) = split(piece, room - taken);
            if let Some(rest) = rest {
                self.waiting.insert(at, rest);
            }
            taken += room_of(&first);
            self.open(first);
        }
        taken
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

    /// Makes one piece an input.
    fn open(&mut self, piece: ShardMail) {
        if self.is_closing {
            return;
        }
        let input = match piece {
            ShardMail::Batch(batch, room) => {
                self.executed.extend(room);
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
        };
        self.inbox.push(input);
    }
}

/// How much room a piece takes.
fn room_of(piece: &ShardMail) -> usize {
    match piece {
        ShardMail::Batch(_, Some(room)) => room.num_permits(),
        _ => 0,
    }
}

/// Parts a batch that takes more room than this from what is to follow it.
fn split(piece: ShardMail, room: usize) -> (ShardMail, Option<ShardMail>) {
    let ShardMail::Batch(mut batch, Some(mut taken)) = piece else { return (piece, None) };
    if taken.num_permits() > room {
        let mut units = 0;
        let last = batch.commands.iter().position(|command| {
            units += weight(std::slice::from_ref(command)) as usize;
            units >= room
        });
        if let Some(last) = last
            && last + 1 < batch.commands.len()
            && let Some(part) = taken.split(units.min(taken.num_permits()))
        {
            let commands = batch.commands.drain(..=last).collect();
            let first = Batch { connection: batch.connection, commands };
            return (ShardMail::Batch(first, Some(part)), Some(ShardMail::Batch(batch, Some(taken))));
        }
    }
    (ShardMail::Batch(batch, Some(taken)), None)
}

/// How long mail is put off before it is looked again.
const HOLD_MS: u64 = 1;
/// How much of [`ROOM_AT_ONCE`] is for small batches first: not all, so that large ones are not kept out.
const LIGHT_ROOM_AT_ONCE: usize = 12;
/// How many pieces of mail one step takes at most.
const MAIL_AT_ONCE: usize = 256;
/// How much room the mail that one step takes may have taken, about; what settles is not counted.
const ROOM_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use broker::command::{CallId, Publish, QueueId, Settle, Settlement};
    use broker::message::{Message, MessageParts};
    use store::Seq;
    use tokio::sync::Semaphore;

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

    fn publish(queue: u64) -> Command {
        let parts = MessageParts { exchange: "", routing_key: "work", properties: &[0, 0], died_here: false };
        Command::Publish(Publish {
            queues: [QueueId(queue)].into(),
            message: Message::new(parts, &[0; 3000]),
            more: Vec::new(),
            persistent: false,
            expiration_ms: None,
            priority: None,
            confirm: false,
        })
    }

    fn publishes_to(queue: u64) -> impl Fn(&[Command]) -> bool {
        move |commands| {
            commands.iter().any(|one| matches!(one, Command::Publish(publish) if publish.queues[0].0 == queue))
        }
    }

    #[test]
    fn what_is_put_off_keeps_nobody_else_waiting_and_is_not_overtaken_by_its_own_connection() {
        let mut desk = Desk::default();
        desk.mail.extend([
            mail(1, vec![publish(7)]),
            mail(1, vec![Command::Mark { mark: 1 }]),
            mail(2, vec![publish(8)]),
            mail(1, vec![ack()]),
            mail(3, vec![ack(), Command::Mark { mark: 1 }]),
        ]);
        desk.open_mail(publishes_to(7));
        assert_eq!(from(&mut desk.inbox), [2, 3]);
        assert!(desk.holds, "it has to be looked again");
        desk.open_mail(|_| false);
        assert_eq!(from(&mut desk.inbox), [1, 1, 1]);
        assert!(!desk.holds);
    }

    #[test]
    fn what_the_catalog_asks_comes_after_all_that_was_published_before() {
        let mut desk = Desk::default();
        let count = ShardInput::Count { queue: QueueId(7), connection: ConnectionId(1), call: CallId(1) };
        desk.mail.extend([mail(1, vec![publish(7)]), ShardMail::Input(count), mail(2, vec![publish(8)])]);
        desk.open_mail(publishes_to(7));
        assert!(desk.inbox.is_empty(), "{:?}", desk.inbox);
        desk.open_mail(|_| false);
        assert!(matches!(desk.inbox[..], [ShardInput::Batch(_), ShardInput::Count { .. }, ShardInput::Batch(_)]));
    }

    #[test]
    fn who_sends_little_does_not_wait_for_who_sends_a_lot() {
        let room = Arc::new(Semaphore::new(256));
        let batch = |connection, units, count| {
            let permit = Arc::clone(&room).try_acquire_many_owned(units).unwrap();
            let commands = (0..count).map(publish).collect();
            ShardMail::Batch(Batch { connection: ConnectionId(connection), commands }, Some(permit))
        };
        let mut desk = Desk::default();
        desk.mail.extend([batch(1, 60, 60), batch(1, 60, 60), batch(2, 1, 1), batch(1, 1, 1)]);
        desk.open_mail(|_| false);
        assert_eq!(from(&mut desk.inbox), [2, 1], "its own first portion as well");
        let mut steps = 1;
        while !desk.waiting.is_empty() {
            desk.executed.clear();
            desk.open_mail(|_| false);
            assert!(from(&mut desk.inbox).iter().all(|connection| *connection == 1));
            steps += 1;
        }
        assert!(steps > 5, "a step takes a portion: {steps}");
    }

    #[test]
    fn a_large_batch_is_taken_in_portions_and_in_order() {
        let room = Arc::new(Semaphore::new(256));
        let permit = Arc::clone(&room).try_acquire_many_owned(100).unwrap();
        let commands: Vec<_> = (1..=40).map(publish).collect();
        let mut desk = Desk::default();
        desk.mail.push(ShardMail::Batch(Batch { connection: ConnectionId(1), commands }, Some(permit)));
        let mut queues = Vec::new();
        for step in 0.. {
            desk.open_mail(|_| false);
            if desk.inbox.is_empty() {
                assert!(step > 2, "it was taken in {step} steps");
                break;
            }
            for input in desk.inbox.drain(..) {
                let ShardInput::Batch(batch) = input else { panic!("{input:?}") };
                queues.extend(batch.commands.iter().map(|command| match command {
                    Command::Publish(publish) => publish.queues[0].0,
                    other => panic!("{other:?}"),
                }));
            }
            desk.executed.clear();
        }
        assert_eq!(queues, (1..=40).collect::<Vec<_>>());
        assert_eq!(room.available_permits(), 256, "all room is given back");
    }
}
