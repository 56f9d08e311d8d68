//! Users, permissions and parameters by name, and what somebody may do in a vhost.

use super::{Topology, Vhost};
use crate::access::{Rights, Subject};
use crate::command::VhostId;
use crate::identity::{Parameter, Permission, TopicPermission, UserRecord, VhostRecord};
use std::collections::BTreeMap;
use std::sync::Arc;

type TopicKey = (VhostId, Arc<str>, Arc<str>);
type ParameterKey = (Option<(VhostId, Arc<str>)>, Arc<str>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Identity {
    users: BTreeMap<Arc<str>, Arc<UserRecord>>,
    permissions: BTreeMap<(VhostId, Arc<str>), Arc<Permission>>,
    topics: BTreeMap<TopicKey, Arc<TopicPermission>>,
    parameters: BTreeMap<ParameterKey, Arc<Parameter>>,
    generation: u64,
}

impl Topology {
    /// Grows with every change that can make something allowed or forbidden.
    #[must_use]
    pub const fn access_generation(&self) -> u64 {
        self.identity.generation
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<UserRecord>> {
        self.identity.users.values()
    }

    /// The user of this name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&Arc<UserRecord>> {
        self.identity.users.get(name)
    }

    /// All permissions.
    pub fn permissions(&self) -> impl Iterator<Item = &Arc<Permission>> {
        self.identity.permissions.values()
    }

    /// What a user may do in a vhost.
    #[must_use]
    pub fn permission(&self, vhost: VhostId, user: &str) -> Option<&Arc<Permission>> {
        self.identity.permissions.get(&(vhost, Arc::from(user)))
    }

    /// All topic permissions.
    pub fn topic_permissions(&self) -> impl Iterator<Item = &Arc<TopicPermission>> {
        self.identity.topics.values()
    }

    /// All parameters, global and other.
    pub fn parameters(&self) -> impl Iterator<Item = &Arc<Parameter>> {
        self.identity.parameters.values()
    }

    /// What is said of a vhost.
    #[must_use]
    pub fn vhost_record(&self, id: VhostId) -> Option<&Arc<VhostRecord>> {
        self.vhosts.get(&id).map(|vhost| &vhost.record)
    }

    /// Whether what passes in a vhost is copied to its exchange `amq.rabbitmq.trace`.
    #[must_use]
    pub fn is_traced(&self, id: VhostId) -> bool {
        self.vhosts.get(&id).is_some_and(|vhost| vhost.is_traced)
    }

    pub(crate) fn trace(&mut self, id: VhostId, is_traced: bool) {
        if let Some(vhost) = self.vhosts.get_mut(&id) {
            vhost.is_traced = is_traced;
        }
    }

    /// What a user may do in a vhost, put together; nothing where they have no permission there.
    #[must_use]
    pub fn rights(&self, user: &str, vhost: VhostId) -> Rights {
        let topics = self.identity.topics.values().filter(|topic| topic.vhost == vhost && *topic.user == *user);
        Rights::new(user, self.vhost_name(vhost), self.permission(vhost, user).cloned(), topics)
    }

    /// What somebody may do in a vhost, by what is kept of them or by their token.
    #[must_use]
    pub fn rights_of(&self, subject: &Subject, vhost: VhostId) -> Rights {
        match &subject.grant {
            Some(grant) => Rights::granted(&subject.name, self.vhost_name(vhost), grant),
            None => self.rights(&subject.name, vhost),
        }
    }

    pub(crate) fn queues_in(&self, vhost: VhostId) -> usize {
        self.vhosts.get(&vhost).map_or(0, |vhost| vhost.queues.len())
    }

    pub(crate) fn put_vhost_record(&mut self, record: Arc<VhostRecord>) {
        if let Some(vhost) = self.vhosts.get_mut(&record.id) {
            vhost.record = record;
        }
    }

    /// Removes a vhost that holds nothing any more.
    pub(crate) fn remove_vhost(&mut self, id: VhostId) {
        if let Some(Vhost { record, .. }) = self.vhosts.remove(&id) {
            self.vhost_names.remove(&record.name);
        }
        self.access_changed();
    }

    pub(crate) fn put_user(&mut self, user: Arc<UserRecord>) {
        self.identity.users.insert(Arc::clone(&user.name), user);
        self.access_changed();
    }

    pub(crate) fn remove_user(&mut self, name: &str) -> Option<Arc<UserRecord>> {
        self.access_changed();
        self.identity.users.remove(name)
    }

    pub(crate) fn put_permission(&mut self, permission: Arc<Permission>) {
        self.identity.permissions.insert((permission.vhost, Arc::clone(&permission.user)), permission);
        self.access_changed();
    }

    pub(crate) fn remove_permission(&mut self, vhost: VhostId, user: &str) -> Option<Arc<Permission>> {
        self.access_changed();
        self.identity.permissions.remove(&(vhost, user.into()))
    }

    pub(crate) fn put_topic_permission(&mut self, topic: Arc<TopicPermission>) {
        let key = (topic.vhost, Arc::clone(&topic.user), Arc::clone(&topic.exchange));
        self.identity.topics.insert(key, topic);
        self.access_changed();
    }

    pub(crate) fn remove_topic_permission(&mut self, topic: &TopicPermission) {
        let key = (topic.vhost, Arc::clone(&topic.user), Arc::clone(&topic.exchange));
        self.identity.topics.remove(&key);
        self.access_changed();
    }

    pub(crate) fn put_parameter(&mut self, parameter: Arc<Parameter>) {
        let key = (parameter.scope.clone(), Arc::clone(&parameter.name));
        self.identity.parameters.insert(key, parameter);
    }

    pub(crate) fn remove_parameter(&mut self, parameter: &Parameter) -> Option<Arc<Parameter>> {
        self.identity.parameters.remove(&(parameter.scope.clone(), Arc::clone(&parameter.name)))
    }

    /// What channels found out of before (routes, and that they were allowed to take them) holds no longer.
    fn access_changed(&mut self) {
        self.identity.generation += 1;
        self.generation += 1;
    }
}
