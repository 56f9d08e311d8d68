//! Alarms at a connection: from its next publish on, nothing more is read of it until the last alarm is off (RabbitMQ's
//! `connection.blocked`, an extension).
//!
//! Only what comes in is held up. Deliveries, answers, confirms and heartbeats leave as ever, and whoever publishes
//! nothing is not blocked at all: consumers go on acknowledging, which is what ends a shortage.

use super::{Connection, Effects, Phase};
use crate::command::{Now, Shortage};
use amqp::ChannelId;
use amqp::method::connection::{Blocked, Unblocked};

/// How alarms bear on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Blocking {
    /// No alarm is on.
    #[default]
    Free,
    /// Its next publish will block it, for this reason.
    AtPublish(&'static str),
    /// Nothing is read until no alarm is on.
    Blocked,
}

impl Connection {
    /// Whether an alarm keeps this connection's client waiting: its host is to read nothing more from the socket. What
    /// it has read by then is still taken in. A connection that closes is not blocked, since its end is awaited.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocking == Blocking::Blocked && self.phase == Phase::Running
    }

    /// An alarm went on or off.
    pub(super) fn take_shortage(&mut self, now: Now, shortage: Shortage, fx: &mut Effects) {
        match (self.blocking, shortage.reason()) {
            // Told once: which alarm it is may change meanwhile.
            (Blocking::Blocked, Some(_)) => {}
            (_, Some(reason)) => self.blocking = Blocking::AtPublish(reason),
            (Blocking::Blocked, None) => {
                if self.is_blocked() {
                    // It could not be heard until now.
                    self.last_received_ms = now.ms;
                    if self.client.connection_blocked {
                        Unblocked.encode(ChannelId::CONNECTION, fx.out.tail());
                    }
                }
                self.blocking = Blocking::Free;
            }
            (_, None) => self.blocking = Blocking::Free,
        }
    }

    /// A frame of a message was taken in. It is these that block, and not basic.publish, so that a large message that
    /// was begun before the alarm does not come whole during it.
    pub(super) fn block_publisher(&mut self, fx: &mut Effects) {
        let Blocking::AtPublish(reason) = self.blocking else { return };
        if self.phase == Phase::Running {
            self.blocking = Blocking::Blocked;
            if self.client.connection_blocked {
                Blocked { reason }.encode(ChannelId::CONNECTION, fx.out.tail());
            }
        }
    }

    /// What listings say in place of `running`.
    pub(super) fn blocked_state(&self) -> Option<&'static str> {
        match self.blocking {
            _ if self.phase != Phase::Running => None,
            Blocking::Free => None,
            Blocking::AtPublish(_) => Some("blocking"),
            Blocking::Blocked => Some("blocked"),
        }
    }
}
