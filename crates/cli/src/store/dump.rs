//! `leveret store dump`: every record of a log as a line for a person.
//!
//! `FILE OFFSET POSITION KIND …`: what is a name or a body is quoted and escaped, so that a line stays a line and a
//! terminal what it was. The position is `-` for what has none: the log's own notes and the pieces of a checkpoint.

use super::progress::bar;
use super::{DEFAULT_DATA_DIR, Failure, Log, logs, server_on};
use amqp::Properties;
use broker::command::{QueueSpec, ShardId};
use broker::message::Message;
use bytes::Bytes;
use clap::Args;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use store::{Link, Lsn, Place, QueueId, Record, Seen, SeqRange, What};

/// What to print.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// A data directory, or one log in it
    #[arg(value_name = "DIR", env = "LEVERET_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    directory: PathBuf,
    /// Only what is about queues of this name
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// How many bytes of each body to print
    #[arg(long, value_name = "N", default_value_t = 32)]
    bodies: usize,
}

pub(super) fn run(flags: &Flags, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let logs = logs(&flags.directory)?;
    if let Some(holder) = server_on(&flags.directory)? {
        // Nobody is left to tell when this fails.
        let _unseen = writeln!(
            io::stderr(),
            "leveret: a server is running on {} ({holder}): its files change while they are read",
            flags.directory.display()
        );
    }
    for log in &logs {
        dump(flags, log, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn dump(flags: &Flags, log: &Log, out: &mut impl Write) -> Result<(), Failure> {
    let shown = log.directory.display().to_string();
    let mut names = Names { shard: ShardId(log.shard), queues: HashMap::new(), wanted: flags.queue.as_deref() };
    let mut inspection = log.inspection();
    // Most names are told late in the log. A log that makes no sense to the end is dumped all the same.
    let _as_far_as_it_goes = inspection.judge(&mut |_, record| names.learn(record), bar(format!("replaying {shown}")));
    let mut failed = None;
    let mut see = |seen: Seen<'_>| {
        if let What::Record(record, _) = seen.what {
            names.learn(record);
        }
        if failed.is_some() || !names.wants(&seen.what) {
            return;
        }
        let line = names.line(&seen, flags.bodies);
        match writeln!(out, "{}/{line}", log.directory.display()) {
            // There is nobody to read the rest of a large store for.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => failed = Some(error),
            Ok(()) => {}
        }
    };
    let walked = inspection.walk(&mut see, bar(format!("reading {shown}")))?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    for problem in walked.problems {
        writeln!(out, "{} {} - damage: {}", problem.file, problem.offset, problem.why)?;
    }
    Ok(())
}

/// The queues, as far as facts tell.
struct Names<'a> {
    shard: ShardId,
    queues: HashMap<QueueId, String>,
    wanted: Option<&'a str>,
}

impl Names<'_> {
    fn learn(&mut self, record: Record<'_>) {
        if let Record::Fact { key, value } = record
            && let Ok(Some(spec)) = QueueSpec::from_fact(self.shard, key, value)
        {
            self.queues.insert(spec.queue.id, spec.name.to_string());
        }
    }

    fn wants(&self, what: &What<'_>) -> bool {
        let Some(wanted) = self.wanted else { return true };
        let is_meant = |queue: &QueueId| self.queues.get(queue).is_some_and(|name| name == wanted);
        match what {
            What::Record(Record::Message { places, moved_from, .. }, _) => {
                places.iter().any(|place| is_meant(&place.queue)) || moved_from.iter().any(|(queue, _)| is_meant(queue))
            }
            What::Record(
                Record::Settled { queue, .. }
                | Record::Returned { queue, .. }
                | Record::Released { queue, .. }
                | Record::Queue { queue, .. }
                | Record::Waiting { queue, .. }
                | Record::Keys { queue, .. },
                _,
            ) => is_meant(queue),
            What::Record(Record::Fact { key, value }, _) => QueueSpec::from_fact(self.shard, key, value)
                .is_ok_and(|spec| spec.is_some_and(|spec| &*spec.name == wanted)),
            _ => false,
        }
    }

    fn line(&self, seen: &Seen<'_>, bodies: usize) -> String {
        let position = match seen.what {
            What::Record(..) if seen.lsn != Lsn::ZERO => seen.lsn.to_string(),
            _ => "-".to_owned(),
        };
        let mut line = format!("{} {} {position} ", seen.file, seen.offset);
        match seen.what {
            What::Record(record, link) => {
                line += &self.record(record, bodies);
                if link == Link::WithNext {
                    line += " (with the next)";
                }
            }
            What::Stale => line += "record of an owner that had lost the log",
            What::Batch { epoch, number, synced } => {
                line += &format!("batch {number} of owner {epoch}, synced up to {synced}");
            }
            What::Claim { epoch } => line += &format!("claim of owner {epoch}"),
            What::Closed => line += "closed",
            What::Footer => line += "footer",
            What::Begin => line += "begin",
            What::End => line += "end",
        }
        line
    }

    fn record(&self, record: Record<'_>, bodies: usize) -> String {
        match record {
            Record::Message { places, moved_from, kept, payload } => {
                let mut line = if kept { "message" } else { "message (not kept)" }.to_owned();
                for Place { queue, seq, expires_at_ms, priority, due_at_ms } in places {
                    line += &format!(" {} seq {}", self.queue(*queue), seq.0);
                    if *expires_at_ms > 0 {
                        line += &format!(" expires {expires_at_ms}");
                    }
                    if *priority > 0 {
                        line += &format!(" priority {priority}");
                    }
                    line += &due(*due_at_ms);
                }
                if let Some((queue, seq)) = moved_from {
                    line += &format!(", from {} seq {}", self.queue(queue), seq.0);
                }
                line + &message(payload, bodies)
            }
            Record::Settled { queue, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(range).collect();
                format!("settled {} seq {}", self.queue(queue), ranges.join(" "))
            }
            Record::Returned { queue: QueueId(0), .. } => "returned: all before may have been delivered".to_owned(),
            Record::Returned { queue, range: seqs, attempts, due_at_ms } => {
                let (queue, seqs, due) = (self.queue(queue), range(&seqs), due(due_at_ms));
                format!("returned {queue} seq {seqs} attempts {attempts}{due}")
            }
            Record::Released { queue, range: seqs, due_at_ms } => {
                format!("released {} seq {}{}", self.queue(queue), range(&seqs), due(due_at_ms))
            }
            Record::Fact { key, value } => format!("fact {} = {}", quoted(key), quoted(value)),
            Record::Forget { key } => format!("forget {}", quoted(key)),
            Record::Queue { queue, next } => format!("queue {} next seq {}", self.queue(queue), next.0),
            Record::Keys { queue, source, most, keys } => {
                let hashes: Vec<_> = keys.iter().map(|key| format!("{:032x} until {}", key.hash, key.until)).collect();
                format!("keys {} of {source}, at most {most}: {}", self.queue(queue), hashes.join(", "))
            }
            Record::Waiting { queue, runs } => {
                let mut line = format!("waiting {}", self.queue(queue));
                for run in runs {
                    line += &format!(" {}x seq {} at {}{}", run.count, run.seq.0, run.lsn, due(run.due_at_ms));
                }
                line
            }
        }
    }

    fn queue(&self, queue: QueueId) -> String {
        match self.queues.get(&queue) {
            Some(name) => quoted(name.as_bytes()),
            None => format!("queue {}", queue.0),
        }
    }
}

/// When something is due, in unix milliseconds; nothing if it never had to wait.
fn due(due_at_ms: u64) -> String {
    if due_at_ms > 0 { format!(" due {due_at_ms}") } else { String::new() }
}

fn range(range: &SeqRange) -> String {
    match (range.first.0, range.last.0) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn message(payload: &[u8], bodies: usize) -> String {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(payload)) else {
        return format!(", {} bytes that are no message", payload.len());
    };
    let (exchange, key) = (quoted(message.exchange().as_bytes()), quoted(message.routing_key().as_bytes()));
    let mut line = format!(", exchange {exchange} key {key}");
    match Properties::parse(message.properties()) {
        Ok(properties) => line += &shown(&properties),
        Err(_) => line += ", properties that make no sense",
    }
    let body = message.body();
    let _infallible = write!(line, ", body of {} bytes", body.len());
    if bodies > 0 && !body.is_empty() {
        line += " ";
        line += &quoted(&body[..body.len().min(bodies)]);
        if body.len() > bodies {
            line += "...";
        }
    }
    line
}

fn shown(properties: &Properties<'_>) -> String {
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", properties.timestamp()),
    ];
    let numbers = numbers.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={value}")));
    let texts =
        texts.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={}", quoted(value.as_bytes()))));
    let headers = properties.headers().map(|headers| format!(" headers={headers:?}"));
    numbers.chain(texts).chain(headers).collect()
}

/// In quotes, with whatever is not printable escaped.
fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(quoted(b"a\nb\x1b[2J\"c\""), r#""a\nb\u{1b}[2J\"c\"""#);
        assert_eq!(quoted("jöb".as_bytes()), "\"jöb\"");
        assert_eq!(quoted(b"\xff\x00x"), r#""\xff\x00x""#);
    }

    #[test]
    fn ranges_are_short() {
        use store::Seq;
        assert_eq!(range(&SeqRange { first: Seq(3), last: Seq(3) }), "3");
        assert_eq!(range(&SeqRange { first: Seq(3), last: Seq(9) }), "3-9");
    }
}
