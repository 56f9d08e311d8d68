//! Vhosts, users, what they may do, their limits, and parameters that are kept for tools: what the catalog keeps of them.
//!
//! Passwords are here as hashes only, and nobody here can make or check one: that takes long, so it is the host's.

use crate::command::{Fault, VhostId};
use crate::policy::Pattern;
use amqp::ReplyCode;
use std::fmt;
use std::sync::Arc;

/// A vhost.
#[derive(Clone, Debug, PartialEq)]
pub struct VhostRecord {
    /// Tells it from an earlier one of its name.
    pub id: VhostId,
    /// Its name.
    pub name: Arc<str>,
    /// For people.
    pub description: String,
    /// For people.
    pub tags: Vec<String>,
    /// What type a queue has that is declared without one: `classic`, `quorum` or `stream`; `None` = the server's.
    pub default_queue_type: Option<String>,
    /// It cannot be deleted until that is taken back.
    pub is_protected: bool,
    /// What is limited.
    pub limits: VhostLimits,
}

/// What a vhost's connections and queues are limited to; negative or `None` = not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    /// Connections that are open at once; 0 = nobody may connect.
    pub max_connections: Option<i64>,
    /// Queues.
    pub max_queues: Option<i64>,
}

/// What a user's connections are limited to; negative or `None` = not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Connections that are open at once.
    pub max_connections: Option<i64>,
    /// Channels that are open at once, on all connections together.
    pub max_channels: Option<i64>,
}

/// Someone who may log in.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// Tells them from an earlier user of the name.
    pub id: u64,
    /// The login name.
    pub name: Arc<str>,
    /// What they may do beyond using vhosts: `administrator`, `monitoring`, `policymaker`, `management`, `impersonator`,
    /// or anything that means something to somebody.
    pub tags: Vec<String>,
    /// What their password is checked with; `None` = no password is right.
    pub password: Option<PasswordHash>,
    /// What is limited.
    pub limits: UserLimits,
}

/// What a password is checked with. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// How it was made.
    pub algorithm: HashAlgorithm,
    /// The hash: RabbitMQ's (Base64 of a salt of four bytes and the digest of salt and password), or a PHC string.
    pub text: String,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({})", self.algorithm.name())
    }
}

/// How a password was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// RabbitMQ's default.
    Sha256,
    /// RabbitMQ's other one.
    Sha512,
    /// Of RabbitMQ before 3.6; only ever imported.
    Md5,
    /// What we hash with.
    Argon2id,
}

impl HashAlgorithm {
    const ALL: [(&'static str, Self); 4] = [
        ("rabbit_password_hashing_sha256", Self::Sha256),
        ("rabbit_password_hashing_sha512", Self::Sha512),
        ("rabbit_password_hashing_md5", Self::Md5),
        ("argon2id", Self::Argon2id),
    ];

    /// Its name in the HTTP API and in definitions.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, it)| *it)
    }
}

/// What a user may do in a vhost, by the names of what they do it to.
#[derive(Debug, PartialEq)]
pub struct Permission {
    /// The vhost.
    pub vhost: VhostId,
    /// The user's name.
    pub user: Arc<str>,
    /// What they may declare and delete.
    pub configure: Pattern,
    /// What they may publish to, or bind to something.
    pub write: Pattern,
    /// What they may consume from, or bind something to.
    pub read: Pattern,
}

/// Which keys a user may publish and bind with at a topic exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicPermission {
    /// The vhost.
    pub vhost: VhostId,
    /// The user's name.
    pub user: Arc<str>,
    /// The exchange's name; `amq.default` where the default exchange is meant, which no topic exchange is.
    pub exchange: Arc<str>,
    /// A pattern in which `{username}` and `{vhost}` stand for those names.
    pub write: String,
    /// The same for binding keys.
    pub read: String,
}

/// A value that is kept for tools: a runtime parameter of a component and vhost, or a global one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The vhost, and the component that it is for; `None` for a global one.
    pub scope: Option<(VhostId, Arc<str>)>,
    /// Its name, unique in its scope.
    pub name: Arc<str>,
    /// Its value as JSON.
    pub value: String,
}

/// A change of all that.
#[derive(Debug)]
pub enum IdentityAsk {
    /// Makes a vhost, or changes one: what is `None` stays as it is. The user who makes one gets all permissions in it, as in
    /// RabbitMQ. → `Applied`
    PutVhost {
        /// Its name.
        name: String,
        /// See [`VhostRecord`].
        description: Option<String>,
        /// See [`VhostRecord`].
        tags: Option<Vec<String>>,
        /// See [`VhostRecord`]; `Some(None)` = the server's.
        default_queue_type: Option<Option<String>>,
        /// See [`VhostRecord`].
        is_protected: Option<bool>,
    },
    /// Copies what passes in a vhost to its exchange `amq.rabbitmq.trace`, or no more; the host tells the connections. →
    /// `Applied`, or `Missed`
    TraceVhost {
        /// Its name.
        name: String,
        /// Whether it is.
        is_traced: bool,
    },
    /// Limits a vhost in this way. → `Applied`, or `Missed`
    LimitVhost {
        /// Its name.
        name: String,
        /// All its limits.
        limits: VhostLimits,
    },
    /// Deletes a vhost with all that is in it. → `Applied`, or `Missed`
    DeleteVhost {
        /// Its name.
        name: String,
    },
    /// Makes a user, or changes one: what is `None` stays as it is. → `Applied`
    PutUser {
        /// The login name.
        name: String,
        /// `Some(None)` = no password is right.
        password: Option<Option<PasswordHash>>,
        /// See [`UserRecord`].
        tags: Option<Vec<String>>,
        /// All limits.
        limits: Option<UserLimits>,
    },
    /// Deletes a user with their permissions. → `Applied`, or `Missed`
    DeleteUser {
        /// The login name.
        name: String,
    },
    /// The user may do this. → `Applied`, or `Missed` if there is no such user or vhost.
    SetPermission(Box<Permission>),
    /// The user may do nothing in the vhost. → `Applied`, or `Missed`
    ClearPermission {
        /// The vhost.
        vhost: VhostId,
        /// The user.
        user: String,
    },
    /// The same for topics. → `Applied`, or `Missed`
    SetTopicPermission(TopicPermission),
    /// Takes that back, of one exchange or of all. → `Applied`, or `Missed`
    ClearTopicPermission {
        /// The vhost.
        vhost: VhostId,
        /// The user.
        user: String,
        /// The exchange.
        exchange: Option<String>,
    },
    /// Keeps a parameter. → `Applied`
    SetParameter(Parameter),
    /// Forgets it. → `Applied`, or `Missed`
    ClearParameter {
        /// As in [`Parameter`].
        scope: Option<(VhostId, Arc<str>)>,
        /// As in [`Parameter`].
        name: String,
    },
}

impl VhostRecord {
    /// A vhost of which nothing more is said.
    #[must_use]
    pub fn new(id: VhostId, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            description: String::new(),
            tags: Vec::new(),
            default_queue_type: None,
            is_protected: false,
            limits: VhostLimits::default(),
        }
    }

    /// The vhost that every new server has.
    pub(crate) fn first() -> Self {
        Self { description: "Default virtual host".to_owned(), ..Self::new(VhostId(0), "/") }
    }
}

impl UserRecord {
    /// The user that every new server has: `guest` with password `guest`, an administrator. Which everybody knows, so
    /// that its hash need not be costly, nor its salt be anything.
    pub(crate) fn guest() -> Self {
        let text = "bGV2ZRM/dvTcpzFjZbgBURgqSDMnKNLkYxM5h16jmfvNmlGO".to_owned();
        Self {
            id: 0,
            name: GUEST.into(),
            tags: vec!["administrator".to_owned()],
            password: Some(PasswordHash { algorithm: HashAlgorithm::Sha256, text }),
            limits: UserLimits::default(),
        }
    }
}

impl Permission {
    /// Everything.
    pub(crate) fn all(vhost: VhostId, user: &str) -> Self {
        let any = || Pattern::new(".*").expect("it is a regular expression");
        Self { vhost, user: user.into(), configure: any(), write: any(), read: any() }
    }
}

/// A limit that limits.
#[must_use]
pub fn limit(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|limit| u64::try_from(limit).ok())
}

/// Refuses a name that AMQP's short strings have no room for.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let refused = |why| Err(Fault::new(ReplyCode::PreconditionFailed, format!("{what} name {why}")));
    match name.len() {
        0 => refused("cannot be empty"),
        length if length > NAME_BYTES_MAX => refused("is longer than 255 bytes"),
        _ => Ok(()),
    }
}

/// The longest name: what AMQP's short strings hold.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The first user's name and password.
pub(crate) const GUEST: &str = "guest";
