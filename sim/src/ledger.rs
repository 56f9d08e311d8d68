//! What every message may be and must be by now, from what went into the shards and came out of them.
//!
//! The ledger stands beside the shards' mailboxes and beside the clients. It follows each message in each of its queues
//! (a [`Copy`]) from the publish on, with certainty where there is one and with what is possible where not, and panics
//! when something happens that cannot: a message lost, delivered twice, delivered after its end, overtaken, changed,
//! confirmed without being stored. It knows nothing of how shards work; it does know what is promised.

mod content;
mod copies;
mod history;
mod moves;
mod once;
mod outputs;
mod queues;
mod redrives;
mod restarts;
mod streams;

pub use content::{Confirm, Content, Deaths, Draft, GROUP_KEY, Message, REPLY_TO, Receipt, Sight, Target};

use crate::plan::{Rule, STREAM};
use crate::trace;
use amqp::{ChannelId, Properties};
use broker::command::{CallId, ChannelKey, Command, ConnectionId, QueueId, Seq, Settlement, ShardId, ShardInput};
use broker::message::Message as Stored;
use broker::operation::{Act, Operation, Scan};
use copies::{Copy, Place, State};
use queues::Queue;
use std::collections::{BTreeMap, BTreeSet};
use streams::Stream;

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: Vec<Message>,
    queues: BTreeMap<QueueId, Queue>,
    streams: BTreeMap<QueueId, Stream>,
    /// Of some stream somebody has seen what was not known to be stored.
    is_just_seen: bool,
    /// What shards did, since this was asked last, that counts only as a whole.
    bound: BTreeMap<ShardId, Bound>,
    /// In which one a message is, and at which offset.
    in_streams: BTreeMap<usize, (QueueId, usize)>,
    /// Where delivered messages are held.
    held: BTreeMap<(QueueId, Seq), Place>,
    by_channel: BTreeMap<ChannelKey, BTreeSet<(QueueId, Seq)>>,
    /// Copies that may still show up.
    alive: BTreeSet<Place>,
    /// Publishes with `confirm` since the last mark.
    since_mark: BTreeMap<(ConnectionId, ShardId), Vec<usize>>,
    /// What each mark covers.
    marks: BTreeMap<(ConnectionId, ShardId, u64), Vec<usize>>,
    /// Dead letters between shards that are not known to be stored.
    in_flight: BTreeMap<(ShardId, u64), Place>,
    /// Who has a deduplication key, in which queue.
    once: BTreeMap<(u64, QueueId), once::Holder>,
    /// The last such key.
    last_key: Option<u64>,
    /// Where a routing key leads, of exchanges that send it to one queue.
    sticky: BTreeMap<(&'static str, String), QueueId>,
    /// Exchanges that keep their last messages, by number.
    histories: BTreeMap<u64, history::History>,
    /// What goes from one of them to a queue of another shard, and is not there yet.
    replays: BTreeSet<Place>,
    /// Who gets what is published to one from now on.
    listening: Vec<QueueId>,
    /// Whose address for replies it is.
    addresses: BTreeMap<String, u64>,
    /// The server's wall clock.
    unix_ms: u64,
    step: Step,
    counts: Counts,
}

/// What is known within one step of a shard.
#[derive(Debug, Default)]
struct Step {
    /// Copies that a purge of this queue in this step has dropped, unless they were handed out before.
    purged: BTreeSet<(Place, QueueId)>,
    /// Copies that were handed out and went back in a step with a purge, before or after it.
    perhaps_purged: BTreeSet<Place>,
    /// How far copies that had never been handed out were handed out, by queue and level.
    passed: BTreeMap<(QueueId, u8), u64>,
    /// The same for each receiver alone.
    received: BTreeMap<(ConnectionId, QueueId, u8), u64>,
    /// Whose deliveries go back with the answer to this call.
    releases: BTreeMap<(ConnectionId, CallId), Option<ChannelId>>,
    /// The shard closes, and takes everything back at the end of the step.
    closes: bool,
}

/// Something that a shard does which is there as a whole after a crash, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// A message is rejected: that happens all the time.
    Often,
    /// Anything else.
    Seldom,
}

/// What the run was made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages that reached a queue.
    pub copies: u64,
    /// Messages handed out.
    pub deliveries: u64,
    /// Messages confirmed to clients.
    pub confirms: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Clean stops.
    pub stops: u64,
}

impl Ledger {
    /// Sums of the run so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    // --- from clients ---------------------------------------------------------------------------------------------

    /// A client is about to publish.
    pub fn publish(&mut self, draft: Draft, client: u64, channel: u64) -> &Message {
        let number = self.messages.len() as u64;
        let key = draft.once.map(|is_new| self.last_key.filter(|_| !is_new).unwrap_or(number));
        self.last_key = key.or(self.last_key);
        let owed = self.owed(&draft.target);
        self.messages.push(Message::new(number, draft, key, (client, channel)));
        self.message(number).owed = owed;
        self.messages.last().expect("just pushed")
    }

    /// A client was told about its publish.
    pub fn confirmed(&mut self, number: u64, confirm: Confirm) {
        let message = self.message(number);
        if message.told.replace(confirm).is_some() {
            panic!("m{number} is confirmed twice");
        }
        self.counts.confirms += 1;
        match confirm {
            Confirm::Ack => self.check_stored(number),
            Confirm::Nack => {
                if !self.message(number).copies.iter().any(|copy| copy.was_refused) {
                    panic!("m{number} is refused, and no queue did so");
                }
            }
        }
    }

    /// A client was told that its transaction is committed.
    pub fn committed(&mut self, number: u64) {
        self.counts.confirms += 1;
        self.check_stored(number);
    }

    /// A client was told that its transaction never was.
    pub fn rolled_back(&mut self, number: u64) {
        let message = self.message(number);
        message.is_rolled_back = true;
        assert!(message.copies.is_empty(), "m{number} was rolled back, and is in a queue");
    }

    /// A client was told that its acknowledgement is committed.
    pub fn ended_by_commit(&mut self, number: u64, sight: Sight) {
        self.message(number).ended.insert(sight);
    }

    fn check_stored(&mut self, number: u64) {
        let message = &self.messages[index(number)];
        if let Some(copy) = message.copies.iter().find(|copy| !copy.is_answered) {
            panic!("m{number} is confirmed, and its shard has not stored it: {copy:?}");
        }
        assert!(self.is_stored_in_stream(number), "m{number} is confirmed, and its stream has not stored it");
        if let Target::Via { rule, .. } = &message.target {
            let count = message.copies.len();
            let is_there = match rule {
                Rule::One | Rule::Sticky => count == 1,
                Rule::All(most) => count == *most,
                Rule::Once | Rule::Other => true,
                Rule::Listeners => message.owed.iter().all(|owed| message.copies.iter().any(|copy| copy.root == *owed)),
            };
            assert!(is_there, "m{number} is confirmed, and came to {count} queues ({rule:?})");
        }
        if let Target::Queue(name) = &message.target
            && name != STREAM
            && message.copies.is_empty()
            && self.queues.values().any(|queue| queue.is_always_there(name))
        {
            panic!("m{number} is confirmed, and never came to queue {name}");
        }
    }

    /// A client got a message; returns its number, and the story of its deaths.
    pub fn received(&mut self, client: u64, content: &Content) -> (u64, Deaths) {
        let (number, deaths) = content.check(&self.messages);
        let message = self.message(number);
        match &content.receipt {
            Receipt::Return => {
                message.is_returned = true;
                assert!(message.mandatory, "m{number} is returned, and not mandatory");
                // Nobody was bound when it was kept for who will be.
                let is_kept = matches!(message.target, Target::Via { rule: Rule::Listeners, .. });
                assert!(is_kept || message.copies.is_empty(), "m{number} is returned, and is in a queue");
            }
            Receipt::Delivery { queue, .. } if queue == REPLY_TO => {
                let Target::Reply(address) = message.target.clone() else {
                    panic!("m{number} comes as a reply, and is none");
                };
                assert!(message.seen.is_empty(), "reply m{number} comes twice");
                message.seen.insert(Sight { client, queue: queue.clone(), deaths: deaths.clone() });
                let owner = self.addresses.get(&address).copied();
                assert_eq!(owner, Some(client), "reply m{number} is somebody else's");
            }
            Receipt::Delivery { queue, .. } => {
                // Requests tell whose address it is.
                if let Some(address) = content.reply_address() {
                    let publisher = message.client;
                    let owner = *self.addresses.entry(address).or_insert(publisher);
                    assert_eq!(owner, publisher, "two clients have one address");
                }
                // It comes as often as somebody reads it.
                if queue == STREAM {
                    return (number, deaths);
                }
                let message = self.message(number);
                let may_be_twice = deaths.count > 0 && message.copies.iter().any(Copy::may_be_twice)
                    || message.copies.iter().any(|copy| copy.is_loose);
                // What different clients get may have waited on its way.
                let sight = Sight { client, queue: queue.clone(), deaths: deaths.clone() };
                let is_over = message.ended.contains(&sight) && !may_be_twice;
                assert!(!is_over, "m{number} comes again from {queue}, where its acknowledgement was committed");
                let is_second = !message.seen.insert(sight) && !may_be_twice;
                assert!(
                    !is_second || content.redelivered,
                    "m{number} comes again from {queue}, and is not redelivered"
                );
            }
        }
        (number, deaths)
    }

    /// What the server's wall clock shows in the step that follows.
    pub fn tell_time(&mut self, unix_ms: u64) {
        let before_ms = std::mem::replace(&mut self.unix_ms, unix_ms);
        if unix_ms < before_ms {
            // What has been due stays so when the clock is set back.
            for place in self.alive.clone() {
                let copy = self.copy(place);
                if copy.due_ms <= before_ms {
                    copy.due_ms = 0;
                }
            }
        }
    }

    // --- from the mailboxes ---------------------------------------------------------------------------------------

    /// Whether a shard has done something, since this was asked last, which a crash must not leave by halves.
    pub fn has_just_bound(&mut self, shard: ShardId) -> Option<Bound> {
        self.bound.remove(&shard)
    }

    fn bind(&mut self, shard: ShardId, bound: Bound) {
        let known = self.bound.entry(shard).or_insert(bound);
        *known = bound.max(*known);
    }

    /// A shard is about to take this in.
    pub fn input(&mut self, shard: ShardId, input: &ShardInput) {
        match input {
            ShardInput::Operate { operation: Operation::Scan(scan), .. } if scan.act != Act::Show => {
                self.bind(shard, Bound::Seldom);
            }
            ShardInput::Fire(_) => self.bind(shard, Bound::Seldom),
            _ => {}
        }
        match input {
            ShardInput::Batch(batch) => {
                for command in &batch.commands {
                    self.command(shard, batch.connection, command);
                    // The last that it says; what follows is of no interest to anybody.
                    if matches!(command, Command::CloseConnection { .. }) {
                        break;
                    }
                }
            }
            ShardInput::CreateQueue { spec, declarer } => {
                trace::note(format_args!("s{} creates queue {:x} {}", shard.0, spec.queue.id.0, spec.name));
                let former = self.queues.insert(spec.queue.id, Queue::new(spec.clone(), *declarer));
                assert!(former.is_none(), "a queue id is used twice");
            }
            ShardInput::DeleteQueue { queue, ticket, .. } => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.deletions.push(*ticket);
                }
            }
            ShardInput::TransferStored { transfer, .. } | ShardInput::TransferRefused { transfer, .. } => {
                self.in_flight.remove(&(shard, *transfer));
            }
            ShardInput::Transfer { publish, .. } => self.take_replays(publish),
            ShardInput::Recall { exchange, generation, to } => self.recall(shard, *exchange, *generation, to),
            ShardInput::Operate { queue, operation: Operation::Scan(Scan { act: Act::Redrive(_), .. }), .. } => {
                self.may_redrive(*queue);
            }
            // Which of them go is not told to anybody here.
            ShardInput::Operate { queue, operation: Operation::Scan(Scan { act: Act::Delete, .. }), .. } => {
                let may_be_there = self.alive.iter().filter(|place| self.may_be_ready(**place, *queue));
                let doubtful: Vec<Place> = may_be_there.copied().collect();
                doubtful.into_iter().for_each(|place| self.copy(place).can_vanish = true);
            }
            ShardInput::Operate { queue, operation: Operation::Scan(Scan { act: Act::Release, .. }), .. } => {
                let may_be_there = self.alive.iter().filter(|place| self.may_be_ready(**place, *queue));
                for place in may_be_there.copied().collect::<Vec<Place>>() {
                    let copy = self.copy(place);
                    (copy.due_ms, copy.least_due_ms) = (0, 0);
                }
            }
            ShardInput::Operate {
                queue,
                operation: Operation::Scan(Scan { act: Act::Move(_) | Act::Requeue, .. }),
                ..
            } => {
                self.may_move(*queue);
            }
            ShardInput::Fire(fire) => {
                if let Some(publish) = &fire.publish {
                    self.fire(shard, publish);
                }
            }
            ShardInput::Close => {
                self.release_all(shard);
                self.step.closes = true;
            }
            _ => {}
        }
    }

    fn command(&mut self, shard: ShardId, connection: ConnectionId, command: &Command) {
        match command {
            Command::Sift(sifted) => {
                for number in sifted.publish.messages().map(number_of) {
                    if sifted.publish.confirm {
                        self.since_mark.entry((connection, shard)).or_default().push(index(number));
                    }
                    self.arrive(shard, number, &sifted.publish);
                }
            }
            Command::Publish(publish) => {
                for number in publish.messages().map(number_of) {
                    if publish.confirm {
                        self.since_mark.entry((connection, shard)).or_default().push(index(number));
                    }
                    self.arrive(shard, number, publish);
                }
            }
            Command::Keep(recent) => self.keep(shard, recent),
            Command::Mark { mark } => {
                let covered = self.since_mark.remove(&(connection, shard)).unwrap_or_default();
                self.marks.insert((connection, shard, *mark), covered);
            }
            Command::Transaction(commands) => {
                self.bind(shard, Bound::Seldom);
                for command in commands {
                    self.command(shard, connection, command);
                }
            }
            Command::Settle(settle) => {
                if settle.how == Settlement::Discard {
                    self.bind(shard, Bound::Often);
                }
                for key in settle.seqs().map(|seq| (settle.queue, seq)) {
                    if self.holder(key).is_some_and(|holder| holder.connection == connection) {
                        self.settle(key, settle.how);
                    }
                }
            }
            Command::Purge { queue, .. } => {
                let may_be_there = self.alive.iter().filter(|place| self.may_be_ready(**place, *queue));
                let purged: Vec<_> = may_be_there.map(|place| (*place, *queue)).collect();
                self.step.purged.extend(purged);
            }
            Command::CloseChannel { call, channel } => {
                self.step.releases.insert((connection, *call), Some(*channel));
                self.release_on(shard, connection, Some(*channel));
            }
            Command::CloseConnection { call } => {
                self.step.releases.insert((connection, *call), None);
                self.release_on(shard, connection, None);
                self.since_mark.remove(&(connection, shard));
            }
            _ => {}
        }
    }

    /// Everything goes back that a channel, or all channels of a connection, hold of a shard's.
    fn release_on(&mut self, shard: ShardId, connection: ConnectionId, channel: Option<ChannelId>) {
        let first = ChannelKey { connection, channel: channel.unwrap_or(ChannelId(0)) };
        let last = ChannelKey { connection, channel: channel.unwrap_or(ChannelId(u16::MAX)) };
        let held = self.by_channel.range(first..=last).flat_map(|(_, held)| held.iter().copied());
        let here: Vec<_> = held.filter(|(queue, _)| self.queues[queue].spec.queue.shard == shard).collect();
        here.into_iter().for_each(|key| self.settle(key, Settlement::Requeue));
    }

    fn release_all(&mut self, shard: ShardId) {
        let held = self.held.keys().copied();
        let here: Vec<_> = held.filter(|(queue, _)| self.queues[queue].spec.queue.shard == shard).collect();
        here.into_iter().for_each(|key| self.settle(key, Settlement::Requeue));
    }

    fn holder(&self, key: (QueueId, Seq)) -> Option<ChannelKey> {
        let Place { message, copy } = *self.held.get(&key)?;
        match self.messages[message].copies[copy].state {
            State::Held { channel } => Some(channel),
            _ => None,
        }
    }

    /// The copy that a dead letter was.
    fn copy_of_letter(&self, letter: &Stored) -> Option<Place> {
        let first_death = first_death_of(letter)?;
        let message = index(number_of(letter));
        let copies = &self.messages.get(message)?.copies;
        let copy = copies.iter().position(|copy| *self.queues[&copy.root].spec.name == *first_death)?;
        Some(Place { message, copy })
    }

    fn message(&mut self, number: u64) -> &mut Message {
        self.messages.get_mut(index(number)).expect("messages are numbered by the ledger")
    }

    fn copy(&mut self, place: Place) -> &mut Copy {
        &mut self.messages[place.message].copies[place.copy]
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("as many fit in memory")
}

/// The number of a message of ours.
fn number_of(message: &Stored) -> u64 {
    let properties = Properties::parse(message.properties()).expect("the server checks properties");
    content::number_in(&properties, message.body())
}

/// Where a dead letter died first.
fn first_death_of(message: &Stored) -> Option<String> {
    if !message.died_here() {
        return None;
    }
    let headers = Properties::parse(message.properties()).ok()?.headers()?;
    headers.get("x-first-death-queue").and_then(amqp::Value::as_str).map(str::to_owned)
}
