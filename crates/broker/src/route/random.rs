//! Random exchanges: chance decides which one of the bindings' ends gets a message.

use super::{Destination, Destinations, Link, Reuse, Routes};
use crate::command::Fault;
use amqp::ReplyCode;

#[derive(Debug, Default)]
pub(crate) struct Random {
    ends: Destinations,
}

impl Random {
    pub(crate) fn add(&mut self, destination: Destination) {
        self.ends.add(destination);
    }

    pub(crate) fn remove(&mut self, destination: Destination) {
        self.ends.remove(destination);
    }

    /// Bindings that lead to the same end are as many chances for it.
    pub(crate) fn route(&self, into: &mut Routes) {
        let ends = self.ends.queues.len() + self.ends.exchanges.len();
        if ends < 2 {
            return self.ends.emit(into);
        }
        into.reuse = Reuse::Never;
        let at = into.draw(ends);
        match self.ends.queues.get(at) {
            Some(queue) => into.queues.push(*queue),
            None => into.pending.push(self.ends.exchanges[at - self.ends.queues.len()]),
        }
    }
}

/// What RabbitMQ refuses as a binding of a local random exchange; there, only classic queues are let through.
///
/// # Errors
/// 406, in RabbitMQ's words.
pub(crate) fn check_local(link: &Link<'_>) -> Result<(), Fault> {
    let refused = |text: String| Err(Fault::new(ReplyCode::PreconditionFailed, text));
    match link.destination {
        _ if !link.key.is_empty() => refused(format!("Non empty binding '{}' key not permitted", link.key)),
        Destination::Exchange(_) => refused("Destination not found".to_owned()),
        Destination::Queue(_) => Ok(()),
    }
}
