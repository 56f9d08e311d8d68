//! Vhosts, users, permissions, limits and parameters change.

use super::facts::Change;
use super::{Asker, Catalog, CatalogOutbox, Progress, Step};
use crate::access::{Resource, Right};
use crate::command::{Fault, Outcome, ShardId, ShardInput, VhostId};
use crate::fact::{
    IdentityFact, begun_fact, firing_key, parameter_fact, parameter_key, permission_fact, permission_key, policy_key,
    schedule_key, topic_fact, topic_key, user_fact, user_key, vhost_fact, vhost_key,
};
use crate::identity::{
    IdentityAsk, Parameter, PasswordHash, Permission, TopicPermission, UserLimits, UserRecord, VhostLimits,
    VhostRecord, check_name,
};
use crate::policy::PolicyKind;
use crate::topology::Topology;
use amqp::ReplyCode;
use bytes::Bytes;
use std::sync::Arc;

impl Step<'_> {
    /// Refuses what the asker has no right to.
    pub(super) fn check(&self, right: Right, to: Resource<'_>) -> Result<(), Fault> {
        self.rights.as_ref().map_or(Ok(()), |rights| rights.check(right, to))
    }

    pub(super) fn identity(&mut self, asker: Asker, ask: IdentityAsk) -> Result<Progress, Fault> {
        let changes = match ask {
            IdentityAsk::PutVhost { name, description, tags, default_queue_type, is_protected } => {
                let is_new = self.topology.vhost(&name).is_none();
                let mut record = self.vhost_to_put(&name)?;
                let changed = Arc::make_mut(&mut record);
                changed.description = description.unwrap_or_else(|| changed.description.clone());
                changed.tags = tags.unwrap_or_else(|| changed.tags.clone());
                changed.default_queue_type = default_queue_type.unwrap_or_else(|| changed.default_queue_type.clone());
                changed.is_protected = is_protected.unwrap_or(changed.is_protected);
                let id = record.id;
                let mut changes = vec![self.put_vhost(record)];
                // Who makes a vhost over HTTP or by definitions may use it at once, as in RabbitMQ.
                let maker = self.rights.as_ref().map(|rights| Arc::clone(rights.user())).filter(|_| is_new);
                changes
                    .extend(maker.and_then(|user| self.set_permission(Permission::all(id, &user))).unwrap_or_default());
                Some(changes)
            }
            IdentityAsk::TraceVhost { name, is_traced } => {
                let Some(id) = self.topology.vhost(&name) else { return Ok(Progress::Done(Outcome::Missed)) };
                self.topology.trace(id, is_traced);
                return Ok(Progress::Done(Outcome::Applied));
            }
            IdentityAsk::LimitVhost { name, limits } => self.limit_vhost(&name, limits),
            IdentityAsk::DeleteVhost { name } => self.delete_vhost(&name)?,
            IdentityAsk::PutUser { name, password, tags, limits } => {
                Some(self.put_user(&name, password, tags, limits)?)
            }
            IdentityAsk::DeleteUser { name } => self.delete_user(&name),
            IdentityAsk::SetPermission(permission) => self.set_permission(*permission),
            IdentityAsk::ClearPermission { vhost, user } => {
                let removed = self.topology.remove_permission(vhost, &user);
                removed.map(|_| vec![Change::Forget(permission_key(vhost, &user))])
            }
            IdentityAsk::SetTopicPermission(topic) => self.set_topic_permission(topic),
            IdentityAsk::ClearTopicPermission { vhost, user, exchange } => {
                let is_meant = |topic: &TopicPermission| {
                    topic.vhost == vhost
                        && *topic.user == *user
                        && exchange.as_ref().is_none_or(|exchange| *topic.exchange == **exchange)
                };
                Some(self.drop_topic_permissions(is_meant)).filter(|changes| !changes.is_empty())
            }
            IdentityAsk::SetParameter(parameter) => {
                let (key, value) = parameter_fact(&parameter);
                self.topology.put_parameter(Arc::new(parameter));
                Some(vec![Change::Put(key, value)])
            }
            IdentityAsk::ClearParameter { scope, name } => {
                let wanted = Parameter { scope, name: name.into(), value: String::new() };
                let removed = self.topology.remove_parameter(&wanted);
                removed.map(|_| vec![Change::Forget(parameter_key(&wanted))])
            }
        };
        let Some(changes) = changes else { return Ok(Progress::Done(Outcome::Missed)) };
        self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        Ok(Progress::Underway)
    }

    /// The vhost of this name, as it is or as a new one begins.
    fn vhost_to_put(&mut self, name: &str) -> Result<Arc<VhostRecord>, Fault> {
        if let Some(record) = self.topology.vhost(name).and_then(|id| self.topology.vhost_record(id)) {
            return Ok(Arc::clone(record));
        }
        check_name("vhost", name)?;
        Ok(Arc::new(VhostRecord::new(VhostId(self.catalog.next_id()), name)))
    }

    fn put_vhost(&mut self, record: Arc<VhostRecord>) -> Change {
        let (key, value) = vhost_fact(&record);
        if self.topology.vhost_record(record.id).is_some() {
            self.topology.put_vhost_record(record);
        } else {
            self.topology.add_vhost(Arc::unwrap_or_clone(record));
        }
        Change::Put(key, value)
    }

    fn limit_vhost(&mut self, name: &str, limits: VhostLimits) -> Option<Vec<Change>> {
        let record = self.topology.vhost_record(self.topology.vhost(name)?)?;
        let record = VhostRecord { limits, ..VhostRecord::clone(record) };
        Some(vec![self.put_vhost(Arc::new(record))])
    }

    /// All in one step, so that nobody sees a part of it. Its connections are the host's to close.
    fn delete_vhost(&mut self, name: &str) -> Result<Option<Vec<Change>>, Fault> {
        let Some(id) = self.topology.vhost(name) else { return Ok(None) };
        if self.topology.vhost_record(id).is_some_and(|record| record.is_protected) {
            let text = format!(
                "Cannot delete vhost '{name}': it is protected from deletion. Disable deletion protection and try again"
            );
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        }
        let mut changes = Vec::new();
        let queues: Vec<_> =
            self.topology.queues().filter(|queue| queue.vhost == id).map(|queue| queue.queue).collect();
        for queue in queues {
            self.drop_queue(queue.id, &mut changes);
            let ticket = self.catalog.ticket();
            let delete = ShardInput::DeleteQueue { queue: queue.id, if_unused: false, if_empty: false, ticket };
            self.send(queue.shard, delete);
        }
        let exchanges = self.topology.exchanges().filter(|exchange| exchange.vhost == id).map(|exchange| exchange.id);
        self.drop_exchanges(exchanges.collect(), &mut changes);
        for kind in [PolicyKind::User, PolicyKind::Operator] {
            let policies = self.topology.policies(kind).filter(|policy| policy.vhost == id);
            let names: Vec<_> = policies.map(|policy| Arc::clone(&policy.name)).collect();
            for policy in names {
                self.topology.remove_policy(kind, id, &policy);
                changes.push(Change::Forget(policy_key(name, kind, &policy)));
            }
        }
        let schedules: Vec<_> = self.topology.schedules().filter(|schedule| schedule.vhost == id).cloned().collect();
        for schedule in schedules {
            self.topology.remove_schedule(id, &schedule.name);
            changes.push(Change::Forget(schedule_key(name, &schedule.name)));
            for shard in 0..self.catalog.shards {
                self.send(ShardId(shard), ShardInput::ForgetFact { key: firing_key(schedule.id), ticket: None });
            }
        }
        let permissions = self.topology.permissions().filter(|permission| permission.vhost == id);
        let users: Vec<_> = permissions.map(|permission| Arc::clone(&permission.user)).collect();
        for user in users {
            self.topology.remove_permission(id, &user);
            changes.push(Change::Forget(permission_key(id, &user)));
        }
        changes.extend(self.drop_topic_permissions(|topic| topic.vhost == id));
        let is_its = |parameter: &&Arc<Parameter>| parameter.scope.as_ref().is_some_and(|(vhost, _)| *vhost == id);
        let parameters: Vec<_> = self.topology.parameters().filter(is_its).cloned().collect();
        for parameter in parameters {
            self.topology.remove_parameter(&parameter);
            changes.push(Change::Forget(parameter_key(&parameter)));
        }
        self.topology.remove_vhost(id);
        changes.push(Change::Forget(vhost_key(name)));
        Ok(Some(changes))
    }

    fn put_user(
        &mut self,
        name: &str,
        password: Option<Option<PasswordHash>>,
        tags: Option<Vec<String>>,
        limits: Option<UserLimits>,
    ) -> Result<Vec<Change>, Fault> {
        let mut user = match self.topology.user(name) {
            Some(user) => UserRecord::clone(user),
            None => {
                check_name("user", name)?;
                UserRecord {
                    id: self.catalog.next_id(),
                    name: name.into(),
                    tags: Vec::new(),
                    password: None,
                    limits: UserLimits::default(),
                }
            }
        };
        user.password = password.unwrap_or(user.password);
        user.tags = tags.unwrap_or(user.tags);
        user.limits = limits.unwrap_or(user.limits);
        let (key, value) = user_fact(&user);
        self.topology.put_user(Arc::new(user));
        Ok(vec![Change::Put(key, value)])
    }

    /// Their connections are the host's to close.
    fn delete_user(&mut self, name: &str) -> Option<Vec<Change>> {
        self.topology.remove_user(name)?;
        let mut changes = vec![Change::Forget(user_key(name))];
        let permissions = self.topology.permissions().filter(|permission| *permission.user == *name);
        let vhosts: Vec<_> = permissions.map(|permission| permission.vhost).collect();
        for vhost in vhosts {
            self.topology.remove_permission(vhost, name);
            changes.push(Change::Forget(permission_key(vhost, name)));
        }
        changes.extend(self.drop_topic_permissions(|topic| *topic.user == *name));
        Some(changes)
    }

    fn set_permission(&mut self, permission: Permission) -> Option<Vec<Change>> {
        self.topology.vhost_record(permission.vhost)?;
        self.topology.user(&permission.user)?;
        let (key, value) = permission_fact(&permission);
        self.topology.put_permission(Arc::new(permission));
        Some(vec![Change::Put(key, value)])
    }

    fn set_topic_permission(&mut self, topic: TopicPermission) -> Option<Vec<Change>> {
        self.topology.vhost_record(topic.vhost)?;
        self.topology.user(&topic.user)?;
        let (key, value) = topic_fact(&topic);
        self.topology.put_topic_permission(Arc::new(topic));
        Some(vec![Change::Put(key, value)])
    }

    fn drop_topic_permissions(&mut self, is_meant: impl Fn(&TopicPermission) -> bool) -> Vec<Change> {
        let doomed: Vec<_> = self.topology.topic_permissions().filter(|topic| is_meant(topic)).cloned().collect();
        let forget = |topic: Arc<TopicPermission>| {
            self.topology.remove_topic_permission(&topic);
            Change::Forget(topic_key(&topic))
        };
        doomed.into_iter().map(forget).collect()
    }
}

impl Catalog {
    /// What a server that starts has of vhosts and users: what the facts say, and what a new one has where there are
    /// none. What belongs to nothing any more is forgotten.
    pub(super) fn recover_identity(facts: Vec<(Bytes, IdentityFact)>, out: &mut CatalogOutbox) -> Topology {
        let mut send = |input| out.shards.push((super::facts::FACTS, input));
        if !facts.iter().any(|(_, fact)| matches!(fact, IdentityFact::Begun)) {
            let topology = Topology::new();
            let vhosts =
                topology.vhosts().filter_map(|(id, _)| topology.vhost_record(id)).map(|vhost| vhost_fact(vhost));
            let users = topology.users().map(|user| user_fact(user));
            let permissions = topology.permissions().map(|permission| permission_fact(permission));
            for (key, value) in vhosts.chain(users).chain(permissions).chain([begun_fact()]) {
                send(ShardInput::PutFact { key, value, ticket: None });
            }
            return topology;
        }
        let mut topology = Topology::empty();
        let mut of_these = Vec::new();
        for (key, fact) in facts {
            match fact {
                IdentityFact::Vhost(vhost)
                    if topology.vhost_record(vhost.id).is_none() && topology.vhost(&vhost.name).is_none() =>
                {
                    topology.add_vhost(vhost);
                }
                IdentityFact::User(user) => topology.put_user(Arc::new(user)),
                fact => of_these.push((key, fact)),
            }
        }
        for (key, fact) in of_these {
            let is_there = |vhost, user: &str| topology.vhost_record(vhost).is_some() && topology.user(user).is_some();
            match fact {
                IdentityFact::Begun => {}
                IdentityFact::Permission(permission) if is_there(permission.vhost, &permission.user) => {
                    topology.put_permission(Arc::new(permission));
                }
                IdentityFact::Topic(topic) if is_there(topic.vhost, &topic.user) => {
                    topology.put_topic_permission(Arc::new(topic));
                }
                IdentityFact::Parameter(parameter)
                    if parameter.scope.as_ref().is_none_or(|(id, _)| topology.vhost_record(*id).is_some()) =>
                {
                    topology.put_parameter(Arc::new(parameter));
                }
                _ => send(ShardInput::ForgetFact { key, ticket: None }),
            }
        }
        topology
    }
}
