//! The connection to the broker as the runner has it: one channel, a consumer for each queue.

use super::settings::{Declaration, QueueShare};
use crate::client::{Connection, Event, Gone, Url};
use amqp::method::{basic, queue};
use amqp::{ChannelId, Method, MethodId, PropertyList, Table, Value};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::time::Duration;

/// The channel that everything happens on.
pub(super) const CHANNEL: ChannelId = ChannelId(1);

/// What to open.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) queues: Vec<QueueShare>,
    pub(super) declare: Option<Declaration>,
    pub(super) prefetch: u16,
    /// How long a delivery may stay without word, where the broker has that.
    pub(super) lease: Duration,
    /// What the connection is called.
    pub(super) name: String,
}

/// It.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    /// What came while an answer was waited for.
    early: VecDeque<Event>,
    /// It is Leveret, which takes leases, failures and progress.
    pub(super) is_leveret: bool,
}

impl Link {
    /// Logs in, declares what is to be declared, and begins to consume.
    ///
    /// # Errors
    /// [`Gone`], within half a minute.
    pub(super) async fn open(url: &Url, wanted: &Wanted) -> Result<Self, Gone> {
        let connection = Connection::open(url, &wanted.name).await?;
        let is_leveret = connection.broker().contains("Leveret");
        let mut link = Self { connection, early: VecDeque::new(), is_leveret };
        let late = || Gone::Lost(format!("{url} has not answered for {} s", PATIENCE.as_secs()));
        let beginning = tokio::time::timeout(PATIENCE, link.begin(wanted)).await;
        beginning.unwrap_or_else(|_| Err(late()))?;
        Ok(link)
    }

    async fn begin(&mut self, wanted: &Wanted) -> Result<(), Gone> {
        self.connection.open_channel(CHANNEL).await?;
        if let Some(declaration) = &wanted.declare {
            self.declare(declaration, &wanted.queues).await?;
        }
        let qos = basic::Qos { prefetch_size: 0, prefetch_count: wanted.prefetch, global: false };
        self.ask(&Method::BasicQos(qos), basic::QosOk::ID).await?;
        for (number, share) in wanted.queues.iter().enumerate() {
            let mut arguments = Table::new();
            if self.is_leveret {
                arguments.insert("x-consumer-timeout", Value::I64(millis(wanted.lease)));
                arguments.insert("x-consumer-timeout-action", "return");
            }
            let consumer_tag = &number.to_string();
            let consume = basic::Consume { queue: &share.name, consumer_tag, arguments, ..basic::Consume::default() };
            self.ask(&Method::BasicConsume(consume), basic::ConsumeOk::ID).await?;
        }
        Ok(())
    }

    async fn declare(&mut self, declaration: &Declaration, queues: &[QueueShare]) -> Result<(), Gone> {
        for share in queues {
            let dead = declaration.dead_letter_queue(&share.name);
            if let Some(dead) = &dead {
                // Other brokers count failed deliveries in quorum queues only.
                let kind = if self.is_leveret { Table::new() } else { Table::from_iter([("x-queue-type", "quorum")]) };
                self.declare_queue(dead, kind).await?;
            }
            let arguments = declaration.arguments(dead.as_deref(), self.is_leveret);
            self.declare_queue(&share.name, arguments).await?;
        }
        Ok(())
    }

    async fn declare_queue(&mut self, name: &str, arguments: Table) -> Result<(), Gone> {
        let declare = queue::Declare { queue: name, durable: true, arguments, ..queue::Declare::default() };
        self.ask(&Method::QueueDeclare(declare), queue::DeclareOk::ID).await
    }

    /// Asks, and waits for the answer. What else comes is kept: consumers that began before get deliveries.
    async fn ask(&mut self, method: &Method<'_>, answer: MethodId) -> Result<(), Gone> {
        self.connection.send(CHANNEL, method);
        loop {
            while let Some(event) = self.connection.next()? {
                match event {
                    Event::Answer { id, .. } if id == answer => return Ok(()),
                    Event::ChannelClosed { code, text, .. } => return Err(Gone::Refused { code, text }),
                    event => self.early.push_back(event),
                }
            }
            self.connection.turn().await?;
        }
    }

    /// Asks for no more deliveries. Those that are on their way come all the same.
    pub(super) fn cancel_consumers(&mut self, wanted: &Wanted) {
        for number in 0..wanted.queues.len() {
            let cancel = basic::Cancel { consumer_tag: &number.to_string(), nowait: false };
            self.connection.send(CHANNEL, &Method::BasicCancel(cancel));
        }
    }

    /// Frames to be sent.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.connection.out
    }

    /// Gives a delivery back, or drops it (which dead-letters it).
    pub(super) fn reject(&mut self, delivery_tag: u64, requeue: bool) {
        self.connection.send(CHANNEL, &Method::BasicReject(basic::Reject { delivery_tag, requeue }));
    }

    /// A message to the default exchange.
    pub(super) fn publish(&mut self, routing_key: &str, properties: &PropertyList, body: &[u8]) {
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let publish = basic::Publish { routing_key, ..basic::Publish::default() };
        self.connection.publish(CHANNEL, &publish, &encoded, body);
    }

    /// Says something of a delivery, which Leveret understands by the routing key.
    pub(super) fn say(&mut self, about: &str, tag: u64, more: &[(&str, Value)], body: &[u8]) {
        let tag = Value::I64(i64::try_from(tag).unwrap_or(i64::MAX));
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let headers = [("x-delivery-tag".to_owned(), tag)].into_iter().chain(more).collect();
        let properties = PropertyList { headers: Some(headers), ..PropertyList::default() };
        self.publish(about, &properties, body);
    }

    /// Moves octets until something has moved. It can be left off.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn turn(&mut self) -> Result<(), Gone> {
        if self.early.is_empty() { self.connection.turn().await } else { Ok(()) }
    }

    /// The next thing that has come.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Gone> {
        match self.early.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.connection.next(),
        }
    }

    /// Says goodbye, and waits until the broker has done all that was sent before.
    pub(super) async fn close(self) -> Result<(), Gone> {
        self.connection.close().await.map(drop)
    }
}

/// A time in milliseconds, as a header has it.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const PATIENCE: Duration = Duration::from_secs(20);
