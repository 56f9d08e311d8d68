//! What a worker says of a delivery that it has, in words that every AMQP client has: it publishes to the default exchange,
//! on the channel of the delivery, with the delivery tag as a header. By the routing key it wants more time
//! (`amq.leveret.lease`), says why the job failed (`amq.leveret.failure`), which may settle the delivery as well, how far it is
//! (`amq.leveret.progress`), or that it has not begun and gives it back (`amq.leveret.return`).
//!
//! A queue of such a name cannot exist, so nothing else is meant by it. Where there is no such delivery (it is settled, or
//! its time was over) the message is unroutable: it comes back if it is mandatory. A request that makes no sense is an
//! error of the channel, as a wrong tag of basic.ack is.

use super::publish::{Routed, return_unroutable};
use crate::command::{Command, Failure, Fault, Now, Outcome, Progress, Report, Said, Settlement};
use crate::connection::{Connection, Effects, Then};
use crate::message::Message;
use amqp::method::basic;
use amqp::{ChannelId, Properties, ReplyCode, Table, Value};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Lease,
    Failure,
    Progress,
    Return,
}

impl Request {
    /// By its routing key.
    pub(super) fn named(routing_key: &str) -> Option<Self> {
        match routing_key.strip_prefix("amq.leveret.")? {
            "lease" => Some(Self::Lease),
            "failure" => Some(Self::Failure),
            "progress" => Some(Self::Progress),
            "return" => Some(Self::Return),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Failure => "failure",
            Self::Progress => "progress",
            Self::Return => "return",
        }
    }
}

/// Whether this begins no message, but something that a worker says.
pub(crate) fn is_request(publish: &basic::Publish<'_>) -> bool {
    publish.exchange.is_empty() && Request::named(publish.routing_key).is_some()
}

/// A request, taken apart.
struct Read {
    tag: u64,
    what: What,
}

enum What {
    /// For so long from now on; `None` = for its timeout once more.
    Extend(Option<u64>),
    /// And then what becomes of the delivery.
    Report(Report, Option<Settlement>),
    /// It was not begun: it goes back as if it had not been delivered.
    Return,
}

impl Connection {
    /// The message, published to such a key, is a request and goes nowhere.
    pub(super) fn take_request(
        &mut self,
        now: Now,
        number: ChannelId,
        request: Request,
        routed: Routed,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let read = read(request, &routed.message, now.unix_ms);
        let Read { tag, what } = read.map_err(|why| {
            let text = format!("invalid {} request: {why}", request.word());
            Fault::new(ReplyCode::PreconditionFailed, text)
        })?;
        let channel = self.open_channel(number);
        channel.tally.get_or_insert_default().pass_over(channel.confirms.is_some(), &channel.counters);
        channel.counters.publish += 1;
        let Some(unacked) = channel.unacked.take(tag) else {
            self.request_answered(number, &routed, &Outcome::Empty, fx);
            return Ok(());
        };
        let (queue, seq, shard) = (unacked.queue.id, unacked.seq, usize::from(unacked.queue.shard.0));
        let call = self.next_call();
        let (command, settlement) = match what {
            What::Return => {
                self.settle_now(number, unacked, Settlement::Unsent, fx);
                self.request_answered(number, &routed, &Outcome::Applied, fx);
                return Ok(());
            }
            What::Extend(ms) => (Command::Extend { call, queue, seq, ms }, None),
            What::Report(report, settlement) => {
                (Command::Report { call, queue, seq, report: Box::new(report) }, settlement)
            }
        };
        fx.shards[shard].push(command);
        match settlement {
            // In the same batch, and so in one step with its reason.
            Some(how) => self.settle_now(number, unacked, how, fx),
            None => self.open_channel(number).unacked.put_back([unacked]),
        }
        self.wait(1, number, basic::Publish::ID, Then::Request(Box::new(routed)));
        Ok(())
    }

    /// The shard knows the message, or does not: that is told as any publish's end is.
    pub(crate) fn request_answered(
        &mut self,
        number: ChannelId,
        request: &Routed,
        outcome: &Outcome,
        fx: &mut Effects,
    ) {
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

/// What the message asks for, or why it makes no sense.
fn read(request: Request, message: &Message, unix_ms: u64) -> Result<Read, String> {
    let properties = Properties::parse(message.properties()).ok();
    let headers = properties.and_then(|properties| properties.headers()).unwrap_or_default();
    let tag = natural(&headers, TAG)?.ok_or_else(|| format!("header '{TAG}' is missing"))?;
    let what = match request {
        Request::Lease => What::Extend(natural(&headers, MS)?),
        Request::Return => What::Return,
        Request::Failure => {
            let reason = match headers.get(REASON) {
                None => return Err(format!("header '{REASON}' is missing")),
                Some(reason) => reason.as_str().ok_or_else(|| format!("header '{REASON}' must be text"))?,
            };
            let settlement = match headers.get(SETTLE) {
                None => None,
                Some(Value::Str(word)) if word == b"retry" => Some(Settlement::Requeue),
                Some(Value::Str(word)) if word == b"dead-letter" => Some(Settlement::Discard),
                Some(_) => return Err(format!("header '{SETTLE}' must be 'retry' or 'dead-letter'")),
            };
            What::Report(Report::Failure(Failure::new(reason, message.body(), unix_ms)), settlement)
        }
        Request::Progress => {
            let said = headers.get(PROGRESS).ok_or_else(|| format!("header '{PROGRESS}' is missing"))?;
            let said =
                said_of(said).ok_or_else(|| format!("header '{PROGRESS}' must be text or a number from 0 to 100"))?;
            What::Report(Report::Progress(Progress { said, at_unix_ms: unix_ms }), None)
        }
    };
    Ok(Read { tag, what })
}

fn said_of(value: &Value) -> Option<Said> {
    if let Some(text) = value.as_str() {
        return Some(Said::Text(text[..text.floor_char_boundary(Progress::TEXT_BYTES)].to_owned()));
    }
    let percent = match *value {
        Value::F32(number) => f64::from(number),
        Value::F64(number) => number,
        ref other => f64::from(i32::try_from(other.as_i64()?).ok()?),
    };
    (0.0..=100.0).contains(&percent).then_some(Said::Percent(percent))
}

fn natural(headers: &Table, name: &str) -> Result<Option<u64>, String> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => match Value::as_i64(value).and_then(|number| u64::try_from(number).ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(format!("header '{name}' must be a positive integer")),
        },
    }
}

const TAG: &str = "x-delivery-tag";
const MS: &str = "x-lease-ms";
const REASON: &str = "x-failure-reason";
const SETTLE: &str = "x-settle";
const PROGRESS: &str = "x-progress";
