//! Alarms at a connection: from its next publish on, nothing more is taken in of it until the last alarm is off
//! (RabbitMQ's `connection.blocked`, an extension).
//!
//! Only what comes in is held up, and that publish itself is the first that waits. Deliveries, answers, confirms and
//! heartbeats leave as ever, and whoever publishes nothing is not blocked at all: consumers go on acknowledging, which
//! is what ends a shortage. What a worker says of its deliveries looks like a publish and is none.

use super::{Connection, Effects, Phase};
use crate::channel::is_request;
use crate::command::{Now, Shortage};
use amqp::method::connection::{Blocked, Unblocked};
use amqp::{ChannelId, Frame, FrameKind, Method};

/// How alarms bear on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Blocking {
    /// No alarm is on.
    #[default]
    Free,
    /// Its next publish will block it, for this reason.
    AtPublish(&'static str),
    /// Nothing is taken in until no alarm is on.
    Blocked,
}

impl Connection {
    /// Whether an alarm keeps this connection's client waiting. A connection that closes is not blocked, since its end
    /// is awaited.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocking == Blocking::Blocked && self.phase == Phase::Running
    }

    /// Whether its next publish will block it: what a host reads of it now may have to be kept for long.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        matches!(self.blocking, Blocking::AtPublish(_))
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

    /// Whether this frame may not be taken in: an alarm is on, and it begins a message or brings more of one. So a large
    /// message that was begun before the alarm does not come whole during it.
    pub(super) fn must_wait(&self, frame: &Frame<'_>) -> bool {
        self.is_blocking()
            && self.phase == Phase::Running
            && self.is_open(frame.channel)
            && match frame.kind {
                FrameKind::Method => {
                    let method = Method::decode(frame.payload);
                    matches!(method, Ok(Method::BasicPublish(publish)) if !is_request(&publish))
                }
                FrameKind::Header | FrameKind::Body => !self.takes_request(frame.channel),
                FrameKind::Heartbeat => false,
            }
    }

    /// Takes nothing more in.
    pub(super) fn block(&mut self, fx: &mut Effects) {
        if let Blocking::AtPublish(reason) = std::mem::replace(&mut self.blocking, Blocking::Blocked)
            && self.client.connection_blocked
        {
            Blocked { reason }.encode(ChannelId::CONNECTION, fx.out.tail());
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
