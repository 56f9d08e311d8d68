//! A worker asks for more time for a delivery, in words that every AMQP client has: it publishes to the default exchange
//! with the routing key `amq.leveret.lease`, on the channel of the delivery, with the delivery tag as a header.
//!
//! A queue of that name cannot exist, so nothing else is meant by it. Where there is nothing to extend (the delivery is
//! settled, or its time was over) the message is unroutable: it comes back if it is mandatory. A request that makes no
//! sense is an error of the channel, as a wrong tag of basic.ack is.

use super::publish::{Routed, Targets, return_unroutable};
use crate::command::{Command, Fault, Outcome};
use crate::connection::{Connection, Effects, Then};
use crate::message::Message;
use amqp::method::basic;
use amqp::{ChannelId, Properties, ReplyCode, Value};
use bytes::Bytes;
use std::sync::Arc;

/// The routing key.
pub(super) const LEASE: &str = "amq.leveret.lease";
const TAG: &str = "x-delivery-tag";
const MS: &str = "x-lease-ms";

impl Connection {
    /// The message, published to that key, is a request and goes nowhere.
    pub(super) fn extend_lease(
        &mut self,
        number: ChannelId,
        message: Message,
        mandatory: bool,
        original: Option<Bytes>,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let (tag, ms) = read(&message)?;
        let request = Box::new(Routed::nowhere(message, mandatory, original));
        let channel = self.open_channel(number);
        channel.counters.publish += 1;
        let Some(unacked) = channel.unacked.take(tag) else {
            self.lease_answered(number, &request, &Outcome::Empty, fx);
            return Ok(());
        };
        channel.unacked.put_back([unacked]);
        let call = self.next_call();
        let extend = Command::Extend { call, queue: unacked.queue.id, seq: unacked.seq, ms };
        fx.shards[usize::from(unacked.queue.shard.0)].push(extend);
        self.wait(1, number, basic::Publish::ID, Then::Extend(request));
        Ok(())
    }

    /// The shard knows the message, or does not: that is told as any publish's end is.
    pub(crate) fn lease_answered(&mut self, number: ChannelId, request: &Routed, outcome: &Outcome, fx: &mut Effects) {
        let frame_max = self.frame_max as usize;
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if !matches!(outcome, Outcome::Applied) {
            return_unroutable(request, number, channel, frame_max, fx);
        }
        if let Some(confirms) = &mut channel.confirms {
            confirms.published(0);
            self.confirmed.push(number);
        }
    }
}

impl Routed {
    fn nowhere(message: Message, mandatory: bool, original: Option<Bytes>) -> Self {
        Self::to(message, Targets::Queues(Arc::from([])), mandatory, original)
    }
}

/// Which delivery, and for how long from now on; `None` = for its timeout once more.
fn read(message: &Message) -> Result<(u64, Option<u64>), Fault> {
    let properties = Properties::parse(message.properties()).ok();
    let headers = properties.and_then(|properties| properties.headers()).unwrap_or_default();
    let natural = |name: &str| match headers.get(name) {
        None => Ok(None),
        Some(value) => match Value::as_i64(value).and_then(|number| u64::try_from(number).ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(refused(format!("header '{name}' must be a positive integer"))),
        },
    };
    let tag = natural(TAG)?.ok_or_else(|| refused(format!("header '{TAG}' is missing")))?;
    Ok((tag, natural(MS)?))
}

fn refused(why: String) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, format!("invalid lease request: {why}"))
}
