//! The queue that a run works on, and the connection that keeps it: declared before, deleted after.
//!
//! A queue that is there already (a quorum queue, say, or one with a backlog) is used as it is and left in place.

use amqp::method::{channel, queue};
use amqp::{Method, ReplyCode};
use anyhow::{Context, Result, bail};

use super::broker_url::BrokerUrl;
use super::connection::Connection;

/// A queue on the broker under load.
#[derive(Debug)]
pub(super) struct BenchQueue {
    connection: Connection,
    name: String,
    messages: u32,
    is_ours: bool,
}

impl BenchQueue {
    /// Declares a queue, durable if `is_durable`; without a name it gets one of its own.
    pub(super) fn open(url: &BrokerUrl, name: Option<&str>, is_durable: bool) -> Result<Self> {
        let mut connection = Connection::open(url, "leveret bench")?;
        if let Some(name) = name
            && let Some(messages) = find(&mut connection, name)?
        {
            return Ok(Self { connection, name: name.to_owned(), messages, is_ours: false });
        }
        let name = name.map_or_else(|| format!("leveret-bench-{}", std::process::id()), str::to_owned);
        let declare = queue::Declare { queue: &name, durable: is_durable, ..Default::default() };
        connection.call(&Method::QueueDeclare(declare), queue::DeclareOk::ID).context("the queue was refused")?;
        Ok(Self { connection, name, messages: 0, is_ours: true })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many messages waited in it when it was opened.
    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// What the broker says it is.
    pub(super) fn broker(&self) -> &str {
        self.connection.broker()
    }

    /// Deletes it, with all that is in it, unless it was there before.
    pub(super) fn close(mut self) -> Result<()> {
        if self.is_ours {
            let delete = queue::Delete { queue: &self.name, ..Default::default() };
            self.connection
                .call(&Method::QueueDelete(delete), queue::DeleteOk::ID)
                .context("the queue is still there")?;
        }
        self.connection.close()
    }
}

/// How many messages wait in a queue; `None` if there is no such queue.
fn find(connection: &mut Connection, name: &str) -> Result<Option<u32>> {
    let declare = queue::Declare { queue: name, passive: true, ..Default::default() };
    connection.send(&Method::QueueDeclare(declare))?;
    match connection.expect_any(&[queue::DeclareOk::ID, channel::Close::ID])? {
        Method::QueueDeclareOk(found) => return Ok(Some(found.message_count)),
        Method::ChannelClose(close) if close.reply_code != ReplyCode::NotFound.code() => {
            bail!("{} {}", close.reply_code, close.reply_text)
        }
        _ => {}
    }
    connection.send(&Method::ChannelCloseOk(channel::CloseOk))?;
    connection.call(&Method::ChannelOpen(channel::Open), channel::OpenOk::ID)?;
    Ok(None)
}
