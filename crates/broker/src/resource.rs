//! How queues and exchanges are called in error texts, and the faults that say no more than such a name.
//!
//! Clients match these texts: they are RabbitMQ's to the letter.

use crate::command::{ConnectionId, DeadLetterStrategy, Fault, QueueSpec};
use amqp::ReplyCode;

/// `queue 'NAME' in vhost 'VHOST'`
#[must_use]
pub fn queue_title(name: &str, vhost: &str) -> String {
    format!("queue '{name}' in vhost '{vhost}'")
}

/// `exchange 'NAME' in vhost 'VHOST'`
#[must_use]
pub fn exchange_title(name: &str, vhost: &str) -> String {
    format!("exchange '{name}' in vhost '{vhost}'")
}

/// 404 for a queue that does not exist.
#[must_use]
pub fn no_queue(name: &str, vhost: &str) -> Fault {
    Fault::new(ReplyCode::NotFound, format!("no {}", queue_title(name, vhost)))
}

/// 404 for an exchange that does not exist.
#[must_use]
pub fn no_exchange(name: &str, vhost: &str) -> Fault {
    Fault::new(ReplyCode::NotFound, format!("no {}", exchange_title(name, vhost)))
}

impl QueueSpec {
    /// `queue 'NAME' in vhost 'VHOST'`
    #[must_use]
    pub fn title(&self) -> String {
        queue_title(&self.name, &self.vhost_name)
    }

    /// Whether messages that die in it go on elsewhere.
    pub(crate) fn mourns(&self) -> bool {
        self.settings.dead_letter_exchange.is_some()
    }

    /// Whether letters that are refused are kept until they are taken.
    pub(crate) fn owes(&self) -> bool {
        self.settings.dead_letter_strategy != DeadLetterStrategy::AtMostOnce
    }

    /// Whether this connection may use the queue: anyone may, unless it is exclusive.
    ///
    /// # Errors
    /// 405 for an exclusive queue of another connection.
    pub fn check_owner(&self, connection: ConnectionId) -> Result<(), Fault> {
        match self.owner {
            Some(owner) if owner != connection => Err(self.locked()),
            _ => Ok(()),
        }
    }

    /// The fault for a queue that belongs to another connection, or is not exclusive although the client says so.
    pub(crate) fn locked(&self) -> Fault {
        let text = format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            self.title()
        );
        Fault::new(ReplyCode::ResourceLocked, text)
    }
}
