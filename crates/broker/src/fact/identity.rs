//! Vhosts, users, permissions and parameters as durable facts, all in shard 0's log.
//!
//! ```text
//! a/i                               there are facts about these: without it, a server has what a new one has
//! a/v/NAME                          a vhost
//! a/u/NAME                          a user
//! a/p/ID/USER                       a permission in the vhost with this id
//! a/t/ID/LENGTH/USER/EXCHANGE       a topic permission; LENGTH of USER in bytes
//! a/r/ID/LENGTH/COMPONENT/NAME      a parameter; LENGTH of COMPONENT
//! a/g/NAME                          a global parameter
//! ```

use super::{CorruptFact, Fact, encoded, new_fact};
use crate::command::VhostId;
use crate::identity::{
    HashAlgorithm, Parameter, PasswordHash, Permission, TopicPermission, UserLimits, UserRecord, VhostLimits,
    VhostRecord,
};
use crate::policy::Pattern;
use amqp::{Table, Value};
use bytes::Bytes;

/// A fact of this kind.
#[expect(clippy::large_enum_variant, reason = "each is taken apart as soon as it is read")]
pub(crate) enum IdentityFact {
    Begun,
    Vhost(VhostRecord),
    User(UserRecord),
    Permission(Permission),
    Topic(TopicPermission),
    Parameter(Parameter),
}

pub(crate) fn begun_fact() -> (Bytes, Bytes) {
    (Bytes::from_static(BEGUN.as_bytes()), encoded(&new_fact()))
}

pub(crate) fn vhost_key(name: &str) -> Bytes {
    format!("{VHOST}{name}").into()
}

pub(crate) fn vhost_fact(vhost: &VhostRecord) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    fact.insert("id", vhost.id.0.cast_signed());
    fact.insert("name", &*vhost.name);
    fact.insert("description", vhost.description.as_str());
    fact.insert("tags", texts(&vhost.tags));
    if let Some(queue_type) = &vhost.default_queue_type {
        fact.insert("default_queue_type", queue_type.as_str());
    }
    fact.insert("protected", vhost.is_protected);
    put_limit(&mut fact, "max_connections", vhost.limits.max_connections);
    put_limit(&mut fact, "max_queues", vhost.limits.max_queues);
    (vhost_key(&vhost.name), encoded(&fact))
}

pub(crate) fn user_key(name: &str) -> Bytes {
    format!("{USER}{name}").into()
}

pub(crate) fn user_fact(user: &UserRecord) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    fact.insert("id", user.id.cast_signed());
    fact.insert("name", &*user.name);
    fact.insert("tags", texts(&user.tags));
    if let Some(password) = &user.password {
        fact.insert("algorithm", password.algorithm.name());
        fact.insert("hash", password.text.as_str());
    }
    put_limit(&mut fact, "max_connections", user.limits.max_connections);
    put_limit(&mut fact, "max_channels", user.limits.max_channels);
    (user_key(&user.name), encoded(&fact))
}

pub(crate) fn permission_key(vhost: VhostId, user: &str) -> Bytes {
    format!("{PERMISSION}{}/{user}", vhost.0).into()
}

pub(crate) fn permission_fact(permission: &Permission) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    fact.insert("vhost_id", permission.vhost.0.cast_signed());
    fact.insert("user", &*permission.user);
    for (name, pattern) in
        [("configure", &permission.configure), ("write", &permission.write), ("read", &permission.read)]
    {
        fact.insert(name, pattern.source());
    }
    (permission_key(permission.vhost, &permission.user), encoded(&fact))
}

pub(crate) fn topic_key(topic: &TopicPermission) -> Bytes {
    let TopicPermission { vhost, user, exchange, .. } = topic;
    format!("{TOPIC}{}/{}/{user}/{exchange}", vhost.0, user.len()).into()
}

pub(crate) fn topic_fact(topic: &TopicPermission) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    fact.insert("vhost_id", topic.vhost.0.cast_signed());
    fact.insert("user", &*topic.user);
    fact.insert("exchange", &*topic.exchange);
    fact.insert("write", topic.write.as_str());
    fact.insert("read", topic.read.as_str());
    (topic_key(topic), encoded(&fact))
}

pub(crate) fn parameter_key(parameter: &Parameter) -> Bytes {
    let name = &parameter.name;
    match &parameter.scope {
        Some((vhost, component)) => format!("{SCOPED}{}/{}/{component}/{name}", vhost.0, component.len()).into(),
        None => format!("{GLOBAL}{name}").into(),
    }
}

pub(crate) fn parameter_fact(parameter: &Parameter) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    if let Some((vhost, component)) = &parameter.scope {
        fact.insert("vhost_id", vhost.0.cast_signed());
        fact.insert("component", &**component);
    }
    fact.insert("name", &*parameter.name);
    fact.insert("value", parameter.value.as_str());
    (parameter_key(parameter), encoded(&fact))
}

impl IdentityFact {
    /// Reads one; `None` if it is another kind of fact.
    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Option<Self>, CorruptFact> {
        if !key.starts_with(PREFIX.as_bytes()) {
            return Ok(None);
        }
        let fact = Fact::read(key, value)?;
        let is = |prefix: &str| key.starts_with(prefix.as_bytes());
        Ok(Some(if key == BEGUN.as_bytes() {
            Self::Begun
        } else if is(VHOST) {
            Self::Vhost(VhostRecord {
                id: VhostId(fact.number("id")?),
                name: fact.text("name")?.into(),
                description: fact.text("description")?.to_owned(),
                tags: fact.texts("tags")?,
                default_queue_type: fact.optional_text("default_queue_type"),
                is_protected: fact.flag("protected")?,
                limits: VhostLimits {
                    max_connections: fact.integer("max_connections"),
                    max_queues: fact.integer("max_queues"),
                },
            })
        } else if is(USER) {
            Self::User(UserRecord {
                id: fact.number("id")?,
                name: fact.text("name")?.into(),
                tags: fact.texts("tags")?,
                password: fact.password()?,
                limits: UserLimits {
                    max_connections: fact.integer("max_connections"),
                    max_channels: fact.integer("max_channels"),
                },
            })
        } else if is(PERMISSION) {
            let pattern =
                |name| Pattern::new(fact.text(name)?).map_err(|fault| fact.corrupt(&format!("{name}: {}", fault.text)));
            Self::Permission(Permission {
                vhost: VhostId(fact.number("vhost_id")?),
                user: fact.text("user")?.into(),
                configure: pattern("configure")?,
                write: pattern("write")?,
                read: pattern("read")?,
            })
        } else if is(TOPIC) {
            Self::Topic(TopicPermission {
                vhost: VhostId(fact.number("vhost_id")?),
                user: fact.text("user")?.into(),
                exchange: fact.text("exchange")?.into(),
                write: fact.text("write")?.to_owned(),
                read: fact.text("read")?.to_owned(),
            })
        } else if is(SCOPED) || is(GLOBAL) {
            let scope = match is(SCOPED) {
                true => Some((VhostId(fact.number("vhost_id")?), fact.text("component")?.into())),
                false => None,
            };
            Self::Parameter(Parameter { scope, name: fact.text("name")?.into(), value: fact.text("value")?.to_owned() })
        } else {
            return Err(fact.corrupt("this version does not know facts of this kind; start the version that wrote it"));
        }))
    }
}

impl Fact<'_> {
    fn number(&self, name: &str) -> Result<u64, CorruptFact> {
        self.integer(name).map(i64::cast_unsigned).ok_or_else(|| self.lacks(name))
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.table.get(name).and_then(Value::as_i64)
    }

    fn optional_text(&self, name: &str) -> Option<String> {
        self.table.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, CorruptFact> {
        match self.table.get(name) {
            Some(Value::Array(list)) => {
                list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(|| self.lacks(name))).collect()
            }
            _ => Err(self.lacks(name)),
        }
    }

    fn password(&self) -> Result<Option<PasswordHash>, CorruptFact> {
        let Some(algorithm) = self.optional_text("algorithm") else { return Ok(None) };
        let algorithm = HashAlgorithm::named(&algorithm)
            .ok_or_else(|| self.corrupt("its password is hashed in a way that this version does not know"))?;
        Ok(Some(PasswordHash { algorithm, text: self.text("hash")?.to_owned() }))
    }
}

fn texts(list: &[String]) -> Value {
    Value::Array(list.iter().map(|text| Value::Str(text.as_bytes().to_vec())).collect())
}

fn put_limit(fact: &mut Table, name: &str, limit: Option<i64>) {
    if let Some(limit) = limit {
        fact.insert(name, limit);
    }
}

const PREFIX: &str = "a/";
const BEGUN: &str = "a/i";
const VHOST: &str = "a/v/";
const USER: &str = "a/u/";
const PERMISSION: &str = "a/p/";
const TOPIC: &str = "a/t/";
const SCOPED: &str = "a/r/";
const GLOBAL: &str = "a/g/";
