//! Recent history exchanges: a fanout that says of each message that it is to be kept for those who bind later. The messages
//! themselves are a shard's ([`crate::shard`]), in memory.

use super::{ExchangeId, Reuse, Routable, Routes, fanout};
use crate::command::Fault;
use crate::settings::term;
use amqp::{ReplyCode, Table, Value};

#[derive(Debug)]
pub(crate) struct RecentHistory {
    pub(super) exchange: ExchangeId,
    pub(super) fanout: fanout::Fanout,
}

impl Default for RecentHistory {
    fn default() -> Self {
        Self { exchange: ExchangeId(0), fanout: fanout::Fanout::default() }
    }
}

impl RecentHistory {
    pub(super) fn route(&self, message: &mut Routable<'_>, into: &mut Routes) {
        into.reuse = Reuse::Never;
        if message.headers().get(NO_STORE).and_then(Value::as_bool) != Some(true) {
            into.keepers.push(self.exchange);
        }
        self.fanout.route(into);
    }
}

/// How many messages such an exchange keeps.
///
/// # Errors
/// 406 in the words of RabbitMQ's plugin, which takes signed integers only.
pub(crate) fn length(arguments: &Table) -> Result<u32, Fault> {
    let Some(value) = arguments.get(LENGTH) else { return Ok(LENGTH_USUAL) };
    let number = match value {
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) => value.as_i64().filter(|length| *length > 0),
        _ => None,
    };
    number.map(|length| u32::try_from(length).unwrap_or(u32::MAX)).ok_or_else(|| {
        let text = format!("Invalid argument {}, '{LENGTH}' must be a positive integer", term(value));
        Fault::new(ReplyCode::PreconditionFailed, text)
    })
}

const LENGTH: &str = "x-recent-history-length";
const NO_STORE: &str = "x-recent-history-no-store";
const LENGTH_USUAL: u32 = 20;
