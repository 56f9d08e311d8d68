//! What lasting changes clients made, for whoever keeps a record of who changed what.
//!
//! Only what outlives the server counts, and only what really changed: a queue that is declared again is no change, nor is
//! what goes by itself.

use super::Step;
use crate::command::{BindingSpec, ConnectionId, VhostId};
use amqp::Table;
use std::sync::Arc;

/// A change.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Whose connection it was.
    pub connection: ConnectionId,
    /// By whose rights.
    pub user: Arc<str>,
    /// Where.
    pub vhost: Arc<str>,
    /// What.
    pub what: LastingChange,
}

/// What was changed.
#[derive(Clone, Debug)]
pub enum LastingChange {
    /// There is a new durable queue.
    QueueDeclared {
        /// Its name.
        name: Arc<str>,
        /// Its arguments.
        arguments: Table,
    },
    /// A durable queue is gone.
    QueueDeleted {
        /// Its name.
        name: Arc<str>,
        /// The ready messages that went with it.
        messages: u64,
    },
    /// There is a new durable exchange.
    ExchangeDeclared {
        /// Its name.
        name: Arc<str>,
        /// Its type.
        kind: String,
        /// Its arguments.
        arguments: Table,
    },
    /// A durable exchange is gone.
    ExchangeDeleted {
        /// Its name.
        name: Arc<str>,
    },
    /// There is a new binding between durable things.
    Bound(Box<BindingSpec>),
    /// Such a binding is gone.
    Unbound(Box<BindingSpec>),
}

impl Step<'_> {
    /// Tells of a change, if anybody wants to know and somebody asked for it.
    pub(super) fn changed(&mut self, connection: ConnectionId, vhost: VhostId, what: impl FnOnce() -> LastingChange) {
        if let (Some(changed), Some(user)) = (&mut self.out.changed, &self.user) {
            let (user, vhost) = (Arc::clone(user), Arc::clone(self.topology.vhost_name(vhost)));
            changed.push(Changed { connection, user, vhost, what: what() });
        }
    }
}
