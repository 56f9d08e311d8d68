//! The host of one shard: a task that gives a `Shard` its mailbox, its timer and the news of its log's writer.
//!
//! A task and not a thread: on the few cores that most servers have, waking a thread for each handful of commands costs
//! more than a core of its own saves (CPU per message in the prototype, as a task and as a thread: 100 and 132 ns with
//! one queue, 143 and 150 ns with 5,000). The log's writer, which blocks in the kernel, does have its thread.

use crate::disk_times::TimedDisk;
use crate::switchboard::{LIGHT_ROOM, ShardMail, Switchboard, publish_bytes, room_for_bytes};
use broker::command::{Batch, CatalogInput, Command, ConnectionId, Now, Outbox, ShardInput};
use broker::inspect::QueueView;
use broker::operation::Answer;
use broker::shard::Shard;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{Due, FileDisk, SharedWriter, Store};
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
    /// The log's writer, which its thread has as well.
    pub(crate) writer: SharedWriter<TimedDisk<FileDisk>>,
    /// Other workers serve clients while this one waits for the disk.
    pub(crate) syncs_here: bool,
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
    operations: HashMap<u64, oneshot::Sender<Answer>>,
    last_ticket: u64,
    /// Connections whose mail was passed over.
    passed_over: Vec<ConnectionId>,
    /// All that waits is put off.
    holds: bool,
    /// Who sent the last batch, and since when nobody else has.
    last: Option<(ConnectionId, u64)>,
    /// The step told connections something, which they are woken for when this task rests.
    is_heard: bool,
    /// The log was written within this task.
    has_news: bool,
    /// Since when what is ahead of consumers has been put off, and nothing of it let in.
    ahead_since_ms: Option<u64>,
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
            let is_ahead = |batch: &[Command]| self.shard.is_ahead_of_consumers(batch, now);
            desk.open_mail(now.ms, |batch| self.shard.waits_for_disk(batch), is_ahead);
            desk.note_senders(now.ms);
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
            let log = self.shard.store();
            self.board.log(self.shard.id()).note(log.log_bytes(), log.live_bytes());
            desk.is_heard = !desk.out.connections.is_empty();
            self.send(&mut desk);
            if desk.out.closed {
                return;
            }
            desk.has_news = self.write_log(&desk, now);
        }
    }

    /// Sees to it that what the step appended is written; says whether that was done here and now.
    ///
    /// A sync of a fast disk takes no longer than waking the log's thread and being woken by it. So where a client is
    /// alone and waits, it is done here; not for more, since this worker does nothing else meanwhile, and not where it is
    /// the only one.
    fn write_log(&self, desk: &Desk, now: Now) -> bool {
        let is_quick =
            |bytes| bytes <= SYNC_HERE_BYTES && self.syncs_here && self.board.sync_times().recent_us() <= SYNC_HERE_US;
        match self.writer.due() {
            Due::Nothing => return false,
            Due::Sync(bytes) if is_quick(bytes) && desk.is_lone(now.ms) && self.mailbox.is_empty() => {
                if self.writer.try_step(Duration::from_millis(now.ms)).is_some() {
                    return true;
                }
            }
            Due::Sync(_) | Due::Write => {}
        }
        self.writer.wake();
        false
    }

    /// Sleeps until something happened.
    async fn wait(&mut self, desk: &mut Desk) {
        if desk.has_news {
            // Nothing would wake it: it did the writer's work itself.
            return;
        }
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
        for (ticket, answer) in desk.out.answers.drain(..) {
            if let Some(asker) = desk.operations.remove(&ticket) {
                let _gave_up = asker.send(answer);
            }
        }
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
    /// little does not wait for who sends a lot, then the rest, in portions. Nothing overtakes mail of the same connection,
    /// and what comes from the catalog or another shard overtakes nothing.
    ///
    /// What has to wait for the disk is put off until it need not. What is ahead of its queue's consumers is put off for
    /// [`PATIENCE_MS`] at the most, and then a portion of it is let in whatever they do; and not at all where others than
    /// connections would have to wait for it.
    fn open_mail(
        &mut self,
        now_ms: u64,
        waits_for_disk: impl Fn(&[Command]) -> bool,
        is_ahead: impl Fn(&[Command]) -> bool,
    ) {
        let mut mail = std::mem::take(&mut self.mail);
        for piece in mail.drain(..) {
            match piece {
                ShardMail::Batch(batch, room) if batch.commands.iter().all(Command::settles) => {
                    // Paid for by deliveries: where it has to wait it keeps no other's acknowledgements out.
                    if waits_for_disk(&batch.commands) || self.has_waiting(batch.connection) {
                        self.waiting.push_back(ShardMail::Batch(batch, None));
                    } else {
                        self.open(ShardMail::Batch(batch, room));
                    }
                }
                piece => self.waiting.push_back(piece),
            }
        }
        self.mail = mail;
        let is_patient = self.ahead_since_ms.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) < PATIENCE_MS)
            && self.waiting.iter().all(|piece| matches!(piece, ShardMail::Batch(..)));
        let was_ahead = Cell::new(false);
        let is_put_off = |batch: &[Command]| {
            let is_early = is_patient && is_ahead(batch);
            was_ahead.set(was_ahead.get() || is_early);
            is_early || waits_for_disk(batch)
        };
        let light = self.open_waiting(LIGHT_ROOM_AT_ONCE, |batch, room| room > LIGHT_ROOM || is_put_off(batch));
        let left = ROOM_AT_ONCE - light.min(ROOM_AT_ONCE);
        self.holds = self.open_waiting(left, |batch, _| is_put_off(batch)) < left && !self.waiting.is_empty();
        self.ahead_since_ms = was_ahead.get().then(|| self.ahead_since_ms.unwrap_or(now_ms));
    }

    fn note_senders(&mut self, now_ms: u64) {
        for input in &self.inbox {
            if let ShardInput::Batch(batch) = input
                && self.last.is_none_or(|(last, _)| last != batch.connection)
            {
                self.last = Some((batch.connection, now_ms));
            }
        }
    }

    /// Whether nobody would have to wait for this task but the one client who asked last.
    fn is_lone(&self, now_ms: u64) -> bool {
        let is_last = self.last.is_none_or(|(_, since_ms)| now_ms.saturating_sub(since_ms) >= LONE_MS);
        is_last && !self.is_heard && self.waiting.is_empty()
    }

    fn has_waiting(&self, connection: ConnectionId) -> bool {
        self.waiting.iter().any(|piece| matches!(piece, ShardMail::Batch(batch, _) if batch.connection == connection))
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
                ShardMail::Input(_) | ShardMail::Inspect(..) | ShardMail::Operate(..) | ShardMail::Fire(..)
                    if at > 0 =>
                {
                    break;
                }
                ShardMail::Input(_) | ShardMail::Inspect(..) | ShardMail::Operate(..) | ShardMail::Fire(..) => {}
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
            ShardMail::Operate(queue, operation, asker) => {
                self.last_ticket += 1;
                self.operations.insert(self.last_ticket, asker);
                ShardInput::Operate { ticket: self.last_ticket, queue, operation }
            }
            ShardMail::Fire(mut fire, asker) => {
                self.last_ticket += 1;
                self.operations.insert(self.last_ticket, asker);
                fire.ticket = self.last_ticket;
                ShardInput::Fire(fire)
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
        let (mut bytes, mut units) = (0, 0);
        let last = batch.commands.iter().position(|command| {
            bytes += publish_bytes(std::slice::from_ref(command));
            units = room_for_bytes(bytes) as usize;
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

/// How much is written and synced within this task at the most, in bytes. More is better written while the next lot is
/// taken in (CPU aside: with 100 unconfirmed messages of 1 KiB a third of the rate is lost otherwise).
const SYNC_HERE_BYTES: usize = 16 << 10;
/// How long such a sync may take, as the last ones have, in microseconds.
const SYNC_HERE_US: u64 = 500;
/// How long nobody else may have sent anything for that, in milliseconds.
const LONE_MS: u64 = 100;
/// How long mail is put off before it is looked again.
const HOLD_MS: u64 = 1;
/// How long publishers wait for consumers at the most, whatever those do.
const PATIENCE_MS: u64 = 2;
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
            delay: None,
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
        desk.open_mail(1, |_| false, publishes_to(7));
        assert_eq!(from(&mut desk.inbox), [2, 3]);
        assert!(desk.holds, "it has to be looked again");
        desk.open_mail(1, |_| false, |_| false);
        assert_eq!(from(&mut desk.inbox), [1, 1, 1]);
        assert!(!desk.holds);
    }

    #[test]
    fn a_client_is_alone_when_nobody_else_has_sent_anything_for_a_while() {
        let mut desk = Desk::default();
        let mut sends = |connection, now_ms| {
            desk.mail.push(mail(connection, vec![publish(7)]));
            desk.open_mail(now_ms, |_| false, |_| false);
            desk.note_senders(now_ms);
            desk.inbox.clear();
            desk.is_lone(now_ms)
        };
        assert!(!sends(1, 1000));
        assert!(!sends(1, 1000 + LONE_MS - 1));
        assert!(sends(1, 1000 + LONE_MS));
        assert!(!sends(2, 1001 + LONE_MS), "another one is there");
        assert!(!sends(1, 1002 + LONE_MS));
        assert!(sends(1, 1002 + 2 * LONE_MS));
        desk.is_heard = true;
        assert!(!desk.is_lone(5000), "somebody was told something, and has to get it first");
    }

    #[test]
    fn what_the_catalog_asks_comes_after_all_that_was_published_before() {
        let count = || ShardInput::Count { queue: QueueId(7), connection: ConnectionId(1), call: CallId(1) };
        let pieces = || [mail(1, vec![publish(7)]), ShardMail::Input(count()), mail(2, vec![publish(8)])];
        let in_order = |inbox: &[ShardInput]| {
            matches!(inbox, [ShardInput::Batch(_), ShardInput::Count { .. }, ShardInput::Batch(_)])
        };
        let mut desk = Desk::default();
        desk.mail.extend(pieces());
        desk.open_mail(1, publishes_to(7), |_| false);
        assert!(desk.inbox.is_empty(), "while the disk does not follow: {:?}", desk.inbox);
        desk.open_mail(1, |_| false, |_| false);
        assert!(in_order(&desk.inbox), "{:?}", desk.inbox);
        desk.inbox.clear();
        desk.mail.extend(pieces());
        desk.open_mail(1, |_| false, publishes_to(7));
        assert!(in_order(&desk.inbox), "it does not wait for consumers: {:?}", desk.inbox);
    }

    #[test]
    fn a_publisher_waits_for_consumers_some_milliseconds_at_the_most_however_often_they_come() {
        let mut desk = Desk::default();
        let mut let_in = Vec::new();
        for now_ms in 1..=100 {
            desk.mail.push(mail(1, vec![publish(7)]));
            desk.mail.push(mail(2, vec![ack()]));
            desk.open_mail(now_ms, |_| false, publishes_to(7));
            if from(&mut desk.inbox).contains(&1) {
                let_in.push(now_ms);
            }
        }
        assert!(let_in.len() >= 30 && let_in[0] <= 1 + PATIENCE_MS, "{let_in:?}");
    }

    #[test]
    fn while_the_disk_does_not_follow_acknowledgements_are_let_through() {
        let room = Arc::new(Semaphore::new(2));
        let permit = || Some(Arc::clone(&room).try_acquire_owned().unwrap());
        let mut desk = Desk::default();
        let acks = |connection| Batch { connection: ConnectionId(connection), commands: vec![ack()] };
        desk.mail.extend([mail(1, vec![publish(7)]), ShardMail::Batch(acks(1), permit())]);
        desk.mail.push(ShardMail::Batch(acks(2), permit()));
        desk.open_mail(1, publishes_to(7), |_| false);
        assert_eq!(from(&mut desk.inbox), [2], "nothing overtakes mail of its own connection");
        desk.executed.clear();
        assert_eq!(room.available_permits(), 2, "and what waits keeps nobody else's out");
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
        desk.open_mail(1, |_| false, |_| false);
        assert_eq!(from(&mut desk.inbox), [2, 1], "its own first portion as well");
        let mut steps = 1;
        while !desk.waiting.is_empty() {
            desk.executed.clear();
            desk.open_mail(1, |_| false, |_| false);
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
            desk.open_mail(1, |_| false, |_| false);
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
