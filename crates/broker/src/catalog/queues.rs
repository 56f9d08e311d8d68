//! queue.declare and queue.delete, queues that go by themselves, and the exclusive queues of connections that end.

use super::facts::Change;
use super::{
    Answer, Asker, Catalog, Closing, LastingChange, Pending, Progress, RESERVED, Step, access_refused,
    precondition_failed,
};
use crate::access::{Resource, Right};
use crate::command::{
    ConnectionEvent, ConnectionId, DeclareQueue, Fault, Outcome, QueueId, QueueKind, QueueRef, QueueSettings,
    QueueSpec, ShardId, ShardInput,
};
use crate::identity::{check_name, limit};
use crate::policy::{self, Applied};
use crate::resource::{no_queue, queue_title};
use crate::route::Destination;
use crate::settings::{DEAD_LETTER_EXCHANGE, QUEUE_TYPE, check_equivalent, queue_kind, redeclared};
use crate::topology::{REPLY_TO, is_reply_address};
use amqp::{Table, Value};
use std::sync::Arc;

/// When queue.delete is to be refused.
pub(super) struct Conditions {
    pub(super) if_unused: bool,
    pub(super) if_empty: bool,
}

impl Step<'_> {
    pub(super) fn declare_queue(&mut self, asker: Asker, mut wanted: DeclareQueue) -> Result<Progress, Fault> {
        if is_reply_address(&wanted.name) {
            return self.find_reply_address(asker, &wanted.name);
        }
        self.check_declare(asker, &wanted)?;
        self.default_type(asker, &mut wanted);
        let kind = queue_kind(&wanted.arguments);
        if wanted.server_named && kind != QueueKind::Classic {
            let module = kind.module();
            return Err(precondition_failed(format!("Cannot declare a server-named queue for type {module}")));
        }
        let Some(queue) = self.topology.queue(asker.vhost, &wanted.name) else {
            if wanted.passive {
                return Err(no_queue(&wanted.name, self.vhost_name(asker.vhost)));
            }
            return self.create_queue(asker, wanted);
        };
        if wanted.passive {
            queue.check_owner(asker.connection)?;
        } else {
            if queue.owner != wanted.exclusive.then_some(asker.connection) {
                return Err(queue.locked());
            }
            if queue.policies.lets_redeclare() {
                if let Some(settings) = redeclared(queue, &wanted)? {
                    let queue = Arc::clone(queue);
                    self.check_dead_letters(&wanted)?;
                    self.redeclare_queue(&queue, wanted.arguments, settings);
                    return Ok(self.count_queue(asker, queue.queue));
                }
            } else {
                check_equivalent(queue, &wanted)?;
            }
        }
        let queue = queue.queue;
        Ok(self.count_queue(asker, queue))
    }

    /// Gives a queue that is there other arguments. What is counted next is so no sooner than they are durable.
    fn redeclare_queue(&mut self, queue: &QueueSpec, arguments: Table, own: QueueSettings) {
        let settings = policy::effective(&arguments, own, &queue.policies);
        let spec = Arc::new(QueueSpec { arguments, settings, ..queue.clone() });
        self.topology.replace_queue(&spec);
        self.send(spec.queue.shard, ShardInput::RedeclareQueue { spec });
    }

    fn count_queue(&mut self, asker: Asker, queue: QueueRef) -> Progress {
        let QueueRef { id: queue, shard } = queue;
        let (connection, call) = (asker.connection, asker.call);
        self.send(shard, ShardInput::Count { queue, connection, call });
        Progress::Underway
    }

    /// Whoever may do anything with a queue may ask whether it is there. A name that nobody can have is refused as such.
    fn check_declare(&self, asker: Asker, wanted: &DeclareQueue) -> Result<(), Fault> {
        let Some(rights) = &self.rights else { return Ok(()) };
        let queue = Resource::Queue(&wanted.name);
        if wanted.passive && (rights.has(Right::Read, queue) || rights.has(Right::Write, queue)) {
            return Ok(());
        }
        let is_there = || self.topology.queue(asker.vhost, &wanted.name).is_some();
        if wanted.name.starts_with(RESERVED) && !wanted.server_named && !is_there() {
            return Ok(());
        }
        rights.check(Right::Configure, queue)
    }

    /// Whoever says where a queue's messages go when they die takes them there.
    fn check_dead_letters(&self, wanted: &DeclareQueue) -> Result<(), Fault> {
        let Some(exchange) = wanted.arguments.get(DEAD_LETTER_EXCHANGE).and_then(Value::as_str) else { return Ok(()) };
        self.check(Right::Read, Resource::Queue(&wanted.name))?;
        self.check(Right::Write, Resource::Exchange(exchange))
    }

    /// A queue declared without a type has its vhost's default, if that can be declared so (RabbitMQ).
    fn default_type(&self, asker: Asker, wanted: &mut DeclareQueue) {
        let is_apt = wanted.durable && !wanted.exclusive && !wanted.auto_delete && !wanted.passive;
        if !is_apt || wanted.arguments.contains_key(QUEUE_TYPE) {
            return;
        }
        let record = self.topology.vhost_record(asker.vhost);
        if let Some(queue_type) = record.and_then(|record| record.default_queue_type.as_deref())
            && queue_type != "classic"
        {
            wanted.arguments.insert(QUEUE_TYPE, queue_type);
        }
    }

    fn check_queue_limit(&self, asker: Asker, name: &str) -> Result<(), Fault> {
        let record = self.topology.vhost_record(asker.vhost);
        let Some(most) = record.and_then(|record| limit(record.limits.max_queues)) else { return Ok(()) };
        if (self.topology.queues_in(asker.vhost) as u64) < most {
            return Ok(());
        }
        let vhost = self.vhost_name(asker.vhost);
        let text = format!("cannot declare queue '{name}': queue limit in vhost '{vhost}' ({most}) is reached");
        Err(precondition_failed(text))
    }

    fn create_queue(&mut self, asker: Asker, wanted: DeclareQueue) -> Result<Progress, Fault> {
        let vhost_name = Arc::clone(self.topology.vhost_name(asker.vhost));
        let title = queue_title(&wanted.name, &vhost_name);
        if wanted.name.starts_with(RESERVED) && !wanted.server_named {
            let name = &wanted.name;
            return Err(access_refused(format!("queue name '{name}' contains reserved prefix 'amq.*'")));
        }
        // Over HTTP and in definitions a name may be anything.
        check_name("queue", &wanted.name)?;
        self.check_dead_letters(&wanted)?;
        self.check_queue_limit(asker, &wanted.name)?;
        let settings = QueueSettings::parse(&wanted.arguments, &title)?;
        if settings.keeps_all() {
            check_lasting(&wanted, &title)?;
        }
        let mut spec = QueueSpec {
            queue: self.next_queue(),
            vhost: asker.vhost,
            vhost_name,
            name: wanted.name.into(),
            // An exclusive queue cannot outlive its connection, so it need not outlive the server.
            durable: wanted.durable && !wanted.exclusive,
            auto_delete: wanted.auto_delete,
            owner: wanted.exclusive.then_some(asker.connection),
            arguments: wanted.arguments,
            settings,
            policies: Applied::default(),
        };
        let applied = self.topology.policies_of_queue(&spec);
        policy::apply(&mut spec, applied);
        let spec = Arc::new(spec);
        if let Some(owner) = spec.owner {
            self.catalog.exclusive.insert((owner, spec.queue.id));
        }
        self.topology.add_queue(Arc::clone(&spec));
        let (shard, durable) = (spec.queue.shard, spec.durable);
        let declarer = durable.then_some((asker.connection, asker.call));
        if durable {
            self.changed(asker.connection, asker.vhost, || {
                let (name, arguments) = (Arc::clone(&spec.name), spec.arguments.clone());
                LastingChange::QueueDeclared { name, arguments }
            });
        }
        self.send(shard, ShardInput::CreateQueue { spec, declarer });
        if durable {
            return Ok(Progress::Underway);
        }
        Ok(Progress::Done(Outcome::QueueDeclared { messages: 0, consumers: 0 }))
    }

    pub(super) fn delete_queue(&mut self, asker: Asker, name: &str, when: Conditions) -> Result<Progress, Fault> {
        self.check(Right::Configure, Resource::Queue(name))?;
        let Some(queue) = self.topology.queue(asker.vhost, name) else {
            return Ok(Progress::Done(Outcome::QueueDeleted { messages: 0, consumers: Vec::new() }));
        };
        queue.check_owner(asker.connection)?;
        let QueueRef { id: queue, shard } = queue.queue;
        let Conditions { if_unused, if_empty } = when;
        let Asker { connection, call, .. } = asker;
        let user = self.user.clone();
        let ticket = self.expect(Pending::Deletion { queue, connection, call, user });
        self.catalog.deleting.insert(queue, Vec::new());
        self.send(shard, ShardInput::DeleteQueue { queue, if_unused, if_empty, ticket });
        Ok(Progress::Underway)
    }

    /// The shard has answered a client's queue.delete.
    pub(super) fn deletion_decided(&mut self, queue: QueueId, mut answer: Answer) {
        if matches!(answer.outcome, Outcome::Fault(_)) {
            self.answer(answer);
        } else {
            // Missed: it went by itself a moment before, which is as good.
            if matches!(answer.outcome, Outcome::Missed) {
                answer.outcome = Outcome::QueueDeleted { messages: 0, consumers: Vec::new() };
            }
            self.tell_deleted(queue, &answer);
            self.tell_consumers(&mut answer);
            self.queue_gone(queue, Some(answer));
        }
        for request in self.catalog.deleting.remove(&queue).unwrap_or_default() {
            self.request(request);
        }
    }

    /// Those of other connections learn that they are gone before anybody declares the queue again and consumes from it
    /// with the same tag; the answer, which tells the connection that asked of its own, may have to wait for the log.
    fn tell_consumers(&mut self, answer: &mut Answer) {
        let Outcome::QueueDeleted { consumers, .. } = &mut answer.outcome else { return };
        let others = consumers.extract_if(.., |(connection, _)| *connection != answer.connection);
        let events = others.map(|(connection, consumer)| (connection, ConnectionEvent::ConsumerGone { consumer }));
        self.out.connections.extend(events);
    }

    fn tell_deleted(&mut self, queue: QueueId, answer: &Answer) {
        let spec = self.topology.queue_by_id(queue).filter(|spec| spec.durable);
        if let Some((spec, Outcome::QueueDeleted { messages, .. })) = spec.cloned().zip(Some(&answer.outcome)) {
            let (name, messages) = (Arc::clone(&spec.name), *messages);
            self.changed(answer.connection, spec.vhost, || LastingChange::QueueDeleted { name, messages });
        }
    }

    /// Its shard no longer has the queue: removes what is left of it, if anything is, and then answers.
    pub(super) fn queue_gone(&mut self, id: QueueId, answer: Option<Answer>) {
        let mut changes = Vec::new();
        self.drop_queue(id, &mut changes);
        self.answer_after(changes, answer);
    }

    /// Removes a queue from the topology with its bindings, if it is there.
    pub(super) fn drop_queue(&mut self, id: QueueId, changes: &mut Vec<Change>) {
        if let Some(queue) = self.topology.queue_by_id(id).cloned() {
            self.drop_bindings(self.topology.bindings_to(Destination::Queue(queue.queue)), changes);
            self.topology.remove_queue(&queue);
            if let Some(owner) = queue.owner {
                self.catalog.exclusive.remove(&(owner, id));
            }
        }
    }

    pub(super) fn close_connection(&mut self, asker: Asker) -> Progress {
        let connection = asker.connection;
        self.topology.reply_consumers_mut().remove_all(connection);
        self.abandon_requests(connection);
        let owned = (connection, QueueId(0))..=(connection, QueueId(u64::MAX));
        let owned: Vec<QueueId> = self.catalog.exclusive.range(owned).map(|(_, queue)| *queue).collect();
        if owned.is_empty() {
            return Progress::Done(Outcome::ConnectionClosed);
        }
        self.catalog.closing.insert(connection, Closing { call: asker.call, queues: owned.len() });
        for queue in owned {
            let spec = self.topology.queue_by_id(queue).expect("what is owned is in the topology");
            let shard = spec.queue.shard;
            // Nobody else may use it, so that its name is free at once.
            self.queue_gone(queue, None);
            let ticket = self.expect(Pending::Closing(connection));
            self.send(shard, ShardInput::DeleteQueue { queue, if_unused: false, if_empty: false, ticket });
        }
        Progress::Underway
    }

    /// Requests of a connection that ends must not run later: they could leave it an exclusive queue.
    fn abandon_requests(&mut self, connection: ConnectionId) {
        let mut abandoned = Vec::new();
        for waiting in self.catalog.deleting.values_mut() {
            abandoned.extend(waiting.extract_if(.., |request| request.connection == connection));
        }
        for request in abandoned {
            self.answer(Answer { connection, call: request.call, outcome: Outcome::Missed });
        }
    }

    pub(super) fn exclusive_queue_gone(&mut self, connection: ConnectionId) {
        let Some(closing) = self.catalog.closing.get_mut(&connection) else { return };
        closing.queues -= 1;
        if closing.queues == 0 {
            let call = closing.call;
            self.catalog.closing.remove(&connection);
            self.answer(Answer { connection, call, outcome: Outcome::ConnectionClosed });
        }
    }

    /// What a client learns who declares a reply address, which nobody can: whether it is there.
    fn find_reply_address(&self, asker: Asker, name: &str) -> Result<Progress, Fault> {
        if name == REPLY_TO || self.topology.reply_consumer(name).is_some() {
            return Ok(Progress::Done(Outcome::QueueDeclared { messages: 0, consumers: 1 }));
        }
        Err(no_queue(name, self.vhost_name(asker.vhost)))
    }

    fn next_queue(&mut self) -> QueueRef {
        let catalog = &mut *self.catalog;
        let shard = ShardId(catalog.next_shard);
        catalog.next_shard = (catalog.next_shard + 1) % catalog.shards;
        QueueRef { id: QueueId(catalog.next_id()), shard }
    }
}

impl Catalog {
    /// A number that no queue has or had, nor any exchange that deduplicates.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_queue += 1;
        self.last_queue
    }
}

/// Quorum queues and streams are for what must last.
fn check_lasting(wanted: &DeclareQueue, title: &str) -> Result<(), Fault> {
    let flaws =
        [("auto-delete", wanted.auto_delete), ("exclusive-owner", wanted.exclusive), ("non-durable", !wanted.durable)];
    match flaws.iter().find(|(_, is_so)| *is_so) {
        Some((property, _)) => Err(precondition_failed(format!("invalid property '{property}' for {title}"))),
        None => Ok(()),
    }
}
