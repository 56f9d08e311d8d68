//! The queues, exchange and bindings that a run works on, and the connection that keeps them: declared before, deleted
//! after.
//!
//! Queues that are there already (ones with a backlog, say) are used as they are and left in place.

use amqp::method::{basic, channel, exchange, queue};
use amqp::{Method, MethodId, ReplyCode, Table, Value};
use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use clap::{Args, ValueEnum};

use super::broker_url::BrokerUrl;
use super::connection::{CHANNEL, Connection};
use super::publish_batch::Route;
use super::say;

/// What to declare.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Queues and exchange")]
#[group(skip)]
pub(super) struct Flags {
    /// The queue, or with --queues what their names begin with; one that exists is used as it is and kept [default: one
    /// that is deleted at the end]
    #[arg(long, value_name = "NAME")]
    pub(super) queue: Option<String>,
    /// How many queues; producers and consumers are spread over them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) queues: u32,
    /// Declare durable queues, and a durable exchange
    #[arg(long)]
    pub(super) durable: bool,
    /// An argument of the queues, as x-queue-type=quorum or x-max-length=1000 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) argument: Vec<Argument>,
    /// Messages carry a header `group`, with so many values in turn (for --argument x-group-key=group)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) groups: Option<u32>,
    /// Messages carry a header `x-delay` of up to so many milliseconds, evenly spread, or with --groups all the same
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) delay: Option<u32>,
    /// Publish by an exchange of this type, which all queues are bound to
    #[arg(long, value_name = "TYPE", default_value = "default")]
    pub(super) exchange: ExchangeKind,
    /// How many routing keys; each queue is bound with one of them, so that a message goes to QUEUES / KEYS queues
    /// [default: one a queue]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keys: Option<u32>,
    /// Bindings besides, which no message matches
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(super) bindings: u32,
}

/// By which exchange messages are routed.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExchangeKind {
    /// The default exchange: by the queue's name
    Default,
    /// By the routing key
    Direct,
    /// To every queue
    Fanout,
    /// By patterns: a key bench.7.work and a binding bench.7.* each
    Topic,
    /// By a header, x-match = all
    Headers,
}

/// A queue's argument.
#[derive(Debug, Clone)]
pub(super) struct Argument(String, Value);

impl std::str::FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("an argument is KEY=VALUE")?;
        let value = match value {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => number.parse::<i64>().map_or_else(|_| Value::from(value), Value::from),
        };
        Ok(Self(key.to_owned(), value))
    }
}

impl Default for Flags {
    /// One transient queue.
    fn default() -> Self {
        Self {
            queue: None,
            queues: 1,
            durable: false,
            argument: Vec::new(),
            groups: None,
            delay: None,
            exchange: ExchangeKind::Default,
            keys: None,
            bindings: 0,
        }
    }
}

/// What there is on the broker.
#[derive(Debug)]
pub(super) struct Layout {
    connection: Connection,
    queues: Vec<String>,
    routes: Vec<Route>,
    messages: u64,
    /// To how many queues each message goes.
    fan_out: u64,
    /// What to delete at the end.
    ours: Vec<String>,
    our_exchange: Option<String>,
}

impl Layout {
    /// Declares it.
    pub(super) fn open(url: &BrokerUrl, flags: &Flags) -> Result<Self> {
        let connection = Connection::open(url, "leveret bench")?;
        let base = flags.queue.clone().unwrap_or_else(|| format!("leveret-bench-{}", std::process::id()));
        let queues = match flags.queues {
            1 => vec![base.clone()],
            // As long as each other, so that all messages are.
            count => (0..count).map(|number| format!("{base}-{number:06}")).collect(),
        };
        let mut opened = Self {
            connection,
            queues,
            routes: Vec::new(),
            messages: 0,
            fan_out: 1,
            ours: Vec::new(),
            our_exchange: None,
        };
        let declared = opened.declare(&base, flags);
        match declared {
            Ok(()) => Ok(opened),
            Err(error) => {
                // The first error tells more than that of a clean-up on a connection that may be gone.
                let _left = opened.close();
                Err(error)
            }
        }
    }

    fn declare(&mut self, base: &str, flags: &Flags) -> Result<()> {
        if flags.queue.is_some() {
            let mut missing = Vec::new();
            for queue in &self.queues {
                match find(&mut self.connection, queue)? {
                    Some(messages) => self.messages += u64::from(messages),
                    None => missing.push(queue.clone()),
                }
            }
            self.ours = missing;
        } else {
            self.ours.clone_from(&self.queues);
        }
        let mut arguments = Table::new();
        for Argument(key, value) in &flags.argument {
            arguments.insert(key.clone(), value.clone());
        }
        let declares = self.ours.iter().map(|queue| {
            let arguments = arguments.clone();
            Method::QueueDeclare(queue::Declare { queue, durable: flags.durable, arguments, ..Default::default() })
        });
        call_all(&mut self.connection, declares, queue::DeclareOk::ID).context("a queue was refused")?;
        self.route(base, flags)
    }

    fn route(&mut self, base: &str, flags: &Flags) -> Result<()> {
        let queues = self.queues.len() as u32;
        let kind = match flags.exchange {
            ExchangeKind::Default => {
                ensure!(flags.keys.is_none() && flags.bindings == 0, "--keys and --bindings need an --exchange");
                let groups = flags.groups.unwrap_or(queues);
                ensure!(groups.is_multiple_of(queues), "--groups {groups} is no multiple of --queues {queues}");
                let delays = if flags.groups.is_none() && flags.delay.is_some() { DELAYS } else { 1 };
                let to_queue = |(queue, number): (&String, u32)| {
                    let mut headers = Table::new();
                    if flags.groups.is_some() {
                        headers.insert("group", header(number));
                    }
                    if let Some(most) = flags.delay {
                        // Next to each other in time are messages far from each other in the queue.
                        let step = i64::from(number / queues) * DELAY_STRIDE % i64::from(delays) + 1;
                        headers.insert("x-delay", i64::from(most) * step / i64::from(delays));
                    }
                    Route { headers: (!headers.is_empty()).then_some(headers), ..Route::to_queue(queue) }
                };
                self.routes = self.queues.iter().cycle().zip(0..groups * delays).map(to_queue).collect();
                return Ok(());
            }
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
        };
        ensure!(flags.groups.is_none() && flags.delay.is_none(), "--groups and --delay need the default exchange");
        let is_fanout = flags.exchange == ExchangeKind::Fanout;
        let keys = flags.keys.unwrap_or(if is_fanout { 1 } else { queues });
        ensure!(keys <= queues, "--keys {keys} with --queues {queues}: some messages would reach no queue");
        ensure!(queues.is_multiple_of(keys), "--queues {queues} is no multiple of --keys {keys}");
        self.fan_out = u64::from(if is_fanout { queues } else { queues / keys });
        let exchange = format!("{base}-exchange");
        let declare = exchange::Declare { exchange: &exchange, kind, durable: flags.durable, ..Default::default() };
        self.connection
            .call(&Method::ExchangeDeclare(declare), exchange::DeclareOk::ID)
            .with_context(|| format!("the exchange {exchange} was refused"))?;
        self.our_exchange = Some(exchange.clone());
        let binding = |queue: &str, number: u32, routing_key: &str| {
            let mut arguments = Table::new();
            if flags.exchange == ExchangeKind::Headers {
                arguments.insert("x-match", "all");
                arguments.insert("bench", header(number));
            }
            let (queue, exchange, routing_key) = (queue.to_owned(), exchange.clone(), routing_key.to_owned());
            (queue, exchange, routing_key, arguments)
        };
        let wanted = self.queues.iter().enumerate().map(|(at, queue)| {
            let number = at as u32 % keys;
            let key = format!("bench.{number:06}");
            binding(queue, number, &if flags.exchange == ExchangeKind::Topic { format!("{key}.*") } else { key })
        });
        let besides = (0..flags.bindings).map(|number| {
            let queue = &self.queues[number as usize % self.queues.len()];
            let key = format!("other.{number:06}");
            binding(
                queue,
                OTHER + number,
                &if flags.exchange == ExchangeKind::Topic { format!("{key}.*") } else { key },
            )
        });
        ensure!(!is_fanout || flags.bindings == 0, "every binding of a fanout exchange matches: --bindings has no use");
        let all: Vec<_> = wanted.chain(besides).collect();
        let binds = all.iter().map(|(queue, exchange, routing_key, arguments)| {
            let arguments = arguments.clone();
            Method::QueueBind(queue::Bind { queue, exchange, routing_key, nowait: false, arguments })
        });
        call_all(&mut self.connection, binds, queue::BindOk::ID).context("a binding was refused")?;
        self.routes = (0..keys)
            .map(|number| {
                let headers = (flags.exchange == ExchangeKind::Headers).then(|| {
                    let mut headers = Table::new();
                    headers.insert("bench", header(number));
                    headers
                });
                Route { exchange: exchange.clone(), routing_key: format!("bench.{number:06}.work"), headers }
            })
            .map(|route| match flags.exchange {
                ExchangeKind::Topic => route,
                _ => Route { routing_key: route.routing_key.trim_end_matches(".work").to_owned(), ..route },
            })
            .collect();
        Ok(())
    }

    /// The queues' names.
    pub(super) fn queues(&self) -> &[String] {
        &self.queues
    }

    /// What to publish to; a message to each reaches every queue once.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// To how many queues each message goes.
    pub(super) fn fan_out(&self) -> u64 {
        self.fan_out
    }

    /// How many messages waited in queues that were there before, or when they were counted last.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Counts anew how many messages are ready in the queues.
    pub(super) fn count(&mut self) -> Result<u64> {
        self.messages = 0;
        for queue in &self.queues {
            self.messages += find(&mut self.connection, queue)?.map_or(0, u64::from);
        }
        Ok(self.messages)
    }

    /// What the broker says it is.
    pub(super) fn broker(&self) -> &str {
        self.connection.broker()
    }

    /// Deletes what is ours, with all that is in it.
    pub(super) fn close(mut self) -> Result<()> {
        if let Some(exchange) = &self.our_exchange {
            let delete = exchange::Delete { exchange, ..Default::default() };
            self.connection.call(&Method::ExchangeDelete(delete), exchange::DeleteOk::ID)?;
        }
        let deletes = self.ours.iter().map(|queue| Method::QueueDelete(queue::Delete { queue, ..Default::default() }));
        call_all(&mut self.connection, deletes, queue::DeleteOk::ID).context("a queue of the run is still there")?;
        self.connection.close()
    }

    /// The same, and says what went wrong: what was measured before stands.
    pub(super) fn close_or_say(self) {
        if let Err(error) = self.close() {
            say(&format!("queues of the run may be left behind: {error:#}"));
        }
    }
}

/// A header's value: as long as any other.
fn header(number: u32) -> String {
    format!("{number:06}")
}

/// Asks many things, some at once, and waits for each answer.
pub(super) fn call_all<'a>(
    connection: &mut Connection,
    methods: impl Iterator<Item = Method<'a>>,
    answer: MethodId,
) -> Result<()> {
    let (mut octets, mut asked) = (BytesMut::new(), 0);
    let mut methods = methods.peekable();
    while let Some(method) = methods.next() {
        method.encode(CHANNEL, &mut octets);
        asked += 1;
        if asked == AT_ONCE || methods.peek().is_none() {
            connection.write_all(&octets, || false)?;
            octets.clear();
            for _ in 0..asked {
                connection.expect(answer)?;
            }
            asked = 0;
        }
    }
    Ok(())
}

/// How many messages wait in a queue; `None` if there is no such queue.
pub(super) fn find(connection: &mut Connection, name: &str) -> Result<Option<u32>> {
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

/// Begins to consume from queues on one connection.
pub(super) fn consume<'a>(
    connection: &mut Connection,
    queues: impl Iterator<Item = &'a String>,
    no_ack: bool,
    prefetch: u16,
) -> Result<()> {
    if prefetch > 0 {
        let qos = basic::Qos { prefetch_size: 0, prefetch_count: prefetch, global: false };
        connection.call(&Method::BasicQos(qos), basic::QosOk::ID)?;
    }
    let queues: Vec<_> = queues.enumerate().map(|(number, queue)| (queue, format!("c{number}"))).collect();
    // Deliveries come between the answers, so that these cannot be waited for: the reader of deliveries counts them.
    let [(queue, _)] = queues.as_slice() else {
        let mut octets = BytesMut::new();
        for (queue, consumer_tag) in &queues {
            let consume = basic::Consume { queue, consumer_tag, no_ack, ..Default::default() };
            Method::BasicConsume(consume).encode(CHANNEL, &mut octets);
        }
        return connection.write_all(&octets, || false);
    };
    // A short tag, since it comes with each delivery.
    let consume = basic::Consume { queue, consumer_tag: "c", no_ack, ..Default::default() };
    connection.call(&Method::BasicConsume(consume), basic::ConsumeOk::ID)?;
    Ok(())
}

/// How many methods are asked before their answers are read.
const AT_ONCE: u32 = 100;

/// From here on header values are matched by no message.
const OTHER: u32 = 500_000;

/// How many delays there are.
const DELAYS: u32 = 1_000;

/// How far apart in those are messages that follow one another; it has no divisor in common with them.
const DELAY_STRIDE: i64 = 617;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_type_that_they_look_like() {
        let parsed = |text: &str| text.parse::<Argument>().map(|Argument(key, value)| (key, value));
        assert_eq!(parsed("x-queue-type=quorum"), Ok(("x-queue-type".to_owned(), Value::from("quorum"))));
        assert_eq!(parsed("x-max-length=10"), Ok(("x-max-length".to_owned(), Value::from(10_i64))));
        assert_eq!(parsed("x-lazy=true"), Ok(("x-lazy".to_owned(), Value::Bool(true))));
        assert!(parsed("x-queue-type").is_err());
    }

    #[test]
    fn a_header_is_as_long_as_any_other() {
        assert_eq!([0, 7, OTHER + 99_999].map(|number| header(number).len()), [6, 6, 6]);
    }
}
