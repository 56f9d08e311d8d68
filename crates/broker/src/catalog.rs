//! The sole writer of the topology: declares, deletes, binds and unbinds, one request at a time.
//!
//! A change is visible in the topology at once; its answer waits until the facts that carry it over a restart are
//! fsynced. A queue that a client deletes stays visible until its shard has agreed and made that durable; requests about
//! it wait for that in their order. Every request is answered exactly once, by the catalog or by the shard it asked to.

mod bindings;
mod changed;
mod exchanges;
mod facts;
mod identity;
mod policies;
mod queues;
mod recovery;
mod schedules;

use crate::access::Rights;
use crate::command::{
    CallId, CatalogAsk, CatalogInput, CatalogRequest, CatalogTicket, ChannelKey, ConnectionEvent, ConnectionId,
    DestinationKind, Fault, Now, Outcome, QueueId, ShardId, ShardInput, ShardReport, VhostId,
};
use crate::topology::Topology;
use amqp::ReplyCode;
use bytes::Bytes;
pub use changed::{Changed, LastingChange};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is under way between requests and their answers, and what the topology does not hold.
#[derive(Debug)]
pub struct Catalog {
    /// How many shards there are; new queues are dealt out to them in turn.
    shards: u16,
    next_shard: u16,
    /// The id before that of the next queue.
    last_queue: u64,
    last_ticket: u64,
    /// What waits for each answer of a shard.
    pending: FxHashMap<CatalogTicket, Pending>,
    /// Facts that were changed and are not fsynced yet, by the ticket that says when they are.
    unsynced: FxHashMap<Bytes, CatalogTicket>,
    /// Queues that clients are deleting, with the requests that wait for the outcome.
    deleting: FxHashMap<QueueId, Vec<CatalogRequest>>,
    /// Exclusive queues by owner.
    exclusive: BTreeSet<(ConnectionId, QueueId)>,
    /// Connections that end, until their exclusive queues are gone.
    closing: FxHashMap<ConnectionId, Closing>,
}

/// What a step wants sent. The host sends what is for shards, then lets others read the topology, then sends what is
/// for connections: so nobody can route to a queue before its shard has it, or be told of a change before it is seen.
#[derive(Debug, Default)]
pub struct CatalogOutbox {
    /// For connections, in order.
    pub connections: Vec<(ConnectionId, ConnectionEvent)>,
    /// For shards, in order.
    pub shards: Vec<(ShardId, ShardInput)>,
    /// What lasting changes clients made; `None` where nobody wants to know.
    pub changed: Option<Vec<Changed>>,
}

/// What happens when a shard answers.
#[derive(Debug)]
enum Pending {
    /// Facts, or a new queue, are fsynced.
    Durable { keys: Vec<Bytes>, answers: Vec<Answer> },
    /// A client's queue.delete is decided.
    Deletion { queue: QueueId, connection: ConnectionId, call: CallId, user: Option<Arc<str>> },
    /// An exclusive queue of a connection that ended is gone.
    Closing(ConnectionId),
}

#[derive(Debug)]
struct Closing {
    call: CallId,
    /// Exclusive queues whose shards have not answered.
    queues: usize,
}

#[derive(Debug)]
struct Answer {
    connection: ConnectionId,
    call: CallId,
    outcome: Outcome,
}

/// Who asks, and for which vhost.
#[derive(Clone, Copy, Debug)]
struct Asker {
    connection: ConnectionId,
    call: CallId,
    vhost: VhostId,
}

/// What became of a request that was not refused.
enum Progress {
    /// Answer it so.
    Done(Outcome),
    /// It will be answered later, or by a shard.
    Underway,
}

impl Catalog {
    /// A catalog for a new topology on `shards` shards. `epoch` is that of shard 0's log: greater with each start, so
    /// that no queue id is ever used twice.
    #[must_use]
    pub fn new(shards: u16, epoch: u32) -> Self {
        assert!(shards > 0, "queues must live somewhere");
        Self {
            shards,
            next_shard: 0,
            last_queue: u64::from(epoch) << EPOCH_SHIFT,
            last_ticket: 0,
            pending: FxHashMap::default(),
            unsynced: FxHashMap::default(),
            deleting: FxHashMap::default(),
            exclusive: BTreeSet::new(),
            closing: FxHashMap::default(),
        }
    }

    /// Takes one input in.
    pub fn step(&mut self, _now: Now, input: CatalogInput, topology: &mut Topology, out: &mut CatalogOutbox) {
        let mut step = Step { catalog: self, topology, out, rights: None, user: None };
        match input {
            CatalogInput::Request(request) => step.request(request),
            CatalogInput::Report(ShardReport::Durable { ticket }) => step.durable(ticket),
            CatalogInput::Report(ShardReport::Deleted { ticket, outcome }) => step.deleted(ticket, outcome),
            CatalogInput::Report(ShardReport::QueueGone { queue, then }) => {
                let answer = then.map(|(connection, call, outcome)| Answer { connection, call, outcome });
                step.queue_gone(queue, answer);
            }
        }
    }
}

/// One step at work: the catalog, the topology and what is to be sent.
struct Step<'a> {
    catalog: &'a mut Catalog,
    topology: &'a mut Topology,
    out: &'a mut CatalogOutbox,
    /// What the one who asks may do; `None` = everything.
    rights: Option<Arc<Rights>>,
    /// Who that is, where it is to be told.
    user: Option<Arc<str>>,
}

impl Step<'_> {
    fn request(&mut self, request: CatalogRequest) {
        let queue = request.ask.queue().and_then(|name| self.topology.queue(request.vhost, name));
        if let Some(waiting) = queue.and_then(|queue| self.catalog.deleting.get_mut(&queue.queue.id)) {
            waiting.push(request);
            return;
        }
        let asker = Asker { connection: request.connection, call: request.call, vhost: request.vhost };
        if request.ask.needs_vhost() && self.topology.vhost_record(request.vhost).is_none() {
            let fault = Fault::new(ReplyCode::NotAllowed, "the vhost is deleted");
            self.answer(asker.answer(Outcome::Fault(fault)));
            return;
        }
        let user = request.user.as_ref().filter(|_| self.out.changed.is_some());
        self.user = user.map(|user| Arc::clone(&user.name));
        self.rights = request.user.map(|user| Arc::new(self.topology.rights_of(&user, request.vhost)));
        let outcome = match self.ask(asker, request.ask) {
            Ok(Progress::Underway) => return,
            Ok(Progress::Done(outcome)) => outcome,
            Err(fault) => Outcome::Fault(fault),
        };
        self.answer(asker.answer(outcome));
    }

    fn ask(&mut self, asker: Asker, ask: CatalogAsk) -> Result<Progress, Fault> {
        match ask {
            CatalogAsk::DeclareExchange { name, passive: true, .. } => self.find_exchange(asker, &name),
            CatalogAsk::DeclareExchange { name, kind, durable, auto_delete, internal, arguments, .. } => {
                let wanted = exchanges::Wanted { name, kind, durable, auto_delete, internal, arguments };
                self.declare_exchange(asker, wanted)
            }
            CatalogAsk::DeleteExchange { name, if_unused } => self.delete_exchange(asker, &name, if_unused),
            CatalogAsk::Bind(spec) => self.bind(asker, spec),
            CatalogAsk::Unbind(spec) => self.unbind(asker, spec),
            CatalogAsk::DeclareQueue(wanted) => self.declare_queue(asker, wanted),
            CatalogAsk::DeleteQueue { name, if_unused, if_empty } => {
                self.delete_queue(asker, &name, queues::Conditions { if_unused, if_empty })
            }
            CatalogAsk::AddReplyConsumer { channel, secret } => {
                let channel = ChannelKey { connection: asker.connection, channel };
                if self.topology.reply_consumers_mut().add(channel, &secret) {
                    Ok(Progress::Done(Outcome::Applied))
                } else {
                    Err(Fault::new(ReplyCode::PreconditionFailed, "reply consumer already set"))
                }
            }
            CatalogAsk::RemoveReplyConsumer { channel } => {
                let channel = ChannelKey { connection: asker.connection, channel };
                self.topology.reply_consumers_mut().remove(channel);
                Ok(Progress::Done(Outcome::Applied))
            }
            CatalogAsk::SetPolicy(policy) => self.set_policy(asker, *policy),
            CatalogAsk::ClearPolicy { kind, name } => Ok(self.clear_policy(asker, kind, &name)),
            CatalogAsk::SetSchedule(schedule) => Ok(self.set_schedule(asker, *schedule)),
            CatalogAsk::DeleteSchedule { name } => Ok(self.delete_schedule(asker, &name)),
            CatalogAsk::Identity(ask) => self.identity(asker, *ask),
            CatalogAsk::CloseConnection => Ok(self.close_connection(asker)),
        }
    }

    fn vhost_name(&self, vhost: VhostId) -> &str {
        self.topology.vhost_name(vhost)
    }

    fn answer(&mut self, answer: Answer) {
        let event = ConnectionEvent::Done { call: answer.call, outcome: answer.outcome };
        self.out.connections.push((answer.connection, event));
    }

    fn send(&mut self, shard: ShardId, input: ShardInput) {
        self.out.shards.push((shard, input));
    }

    /// Notes what is to happen when a shard answers the ticket returned.
    fn expect(&mut self, pending: Pending) -> CatalogTicket {
        let ticket = self.catalog.ticket();
        self.catalog.pending.insert(ticket, pending);
        ticket
    }
}

impl Catalog {
    fn ticket(&mut self) -> CatalogTicket {
        self.last_ticket += 1;
        CatalogTicket(self.last_ticket)
    }
}

impl Asker {
    fn answer(self, outcome: Outcome) -> Answer {
        Answer { connection: self.connection, call: self.call, outcome }
    }
}

impl CatalogAsk {
    /// Whether it means nothing in a vhost that is gone.
    fn needs_vhost(&self) -> bool {
        !matches!(self, Self::Identity(_) | Self::CloseConnection | Self::RemoveReplyConsumer { .. })
    }

    /// The queue that the request is about.
    fn queue(&self) -> Option<&str> {
        match self {
            Self::Bind(spec) | Self::Unbind(spec) if spec.kind == DestinationKind::Queue => Some(&spec.destination),
            Self::DeclareQueue(wanted) => Some(&wanted.name),
            Self::DeleteQueue { name, .. } => Some(name),
            _ => None,
        }
    }
}

fn access_refused(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::AccessRefused, text)
}

fn precondition_failed(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

/// What names of the server's own begin with.
const RESERVED: &str = "amq.";

/// Queue ids are the epoch and a count within it: a trillion queues a run, sixteen million runs.
const EPOCH_SHIFT: u32 = 40;

#[cfg(test)]
mod tests;
