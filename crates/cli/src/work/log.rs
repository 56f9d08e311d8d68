//! The runner's log on standard error: a line for each job that ends, and for what else happens.
//!
//! Lines gather until there is nothing else to do, and are written at once.

use super::ending::{Ending, Verdict};
use super::job::Job;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// `2026-11-28T13:42:56.123Z done queue=mails …`
    Text,
    /// An object each
    Json,
}

/// Which jobs have a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Level {
    /// Every one
    All,
    /// Those that failed
    Failures,
    /// None
    None,
}

/// It.
#[derive(Debug)]
pub(super) struct Log {
    format: Format,
    level: Level,
    lines: Vec<u8>,
}

impl Log {
    pub(super) fn new(format: Format, level: Level) -> Self {
        Self { format, level, lines: Vec::new() }
    }

    /// A job has ended.
    pub(super) fn job(&mut self, job: &Job, ending: &Ending) {
        let is_wanted = match self.level {
            Level::All => true,
            Level::Failures => ending.verdict != Verdict::Done,
            Level::None => false,
        };
        if !is_wanted {
            return;
        }
        let mut fields = Map::new();
        fields.insert("queue".to_owned(), json!(&*job.queue));
        if let Some(id) = job.message_id() {
            fields.insert("message_id".to_owned(), json!(id));
        }
        fields.insert("attempt".to_owned(), json!(job.attempt()));
        fields.insert("ms".to_owned(), json!(ending.took.as_micros() as f64 / 1000.0));
        if !ending.why.is_empty() {
            fields.insert("why".to_owned(), json!(ending.why));
        }
        if let Some(line) = ending.last_line() {
            fields.insert("last_line".to_owned(), json!(line));
        }
        self.line(ending.verdict.name(), fields);
    }

    /// Something else has happened.
    pub(super) fn note(&mut self, event: &str, text: &str) {
        self.line(event, Map::from_iter([("message".to_owned(), json!(text))]));
    }

    fn line(&mut self, event: &str, fields: Map<String, Value>) {
        let time = now();
        match self.format {
            Format::Json => {
                let mut line = Map::from_iter([("time".to_owned(), json!(time)), ("event".to_owned(), json!(event))]);
                line.extend(fields);
                self.lines.extend_from_slice(Value::Object(line).to_string().as_bytes());
            }
            Format::Text => {
                self.lines.extend_from_slice(format!("{time} {event}").as_bytes());
                for (name, value) in fields {
                    let text = match &value {
                        Value::String(text) if name == "message" => {
                            self.lines.extend_from_slice(format!(": {}", text.escape_debug()).as_bytes());
                            continue;
                        }
                        Value::String(text) if !text.is_empty() && text.bytes().all(is_plain) => text.clone(),
                        other => other.to_string(),
                    };
                    self.lines.extend_from_slice(format!(" {name}={text}").as_bytes());
                }
            }
        }
        self.lines.push(b'\n');
    }

    /// Writes what has gathered.
    pub(super) fn flush(&mut self) {
        if !self.lines.is_empty() {
            // Whoever does not read the log does not want it.
            let _closed = std::io::stderr().lock().write_all(&self.lines);
            self.lines.clear();
        }
    }
}

/// What stands in a line of text without quotes.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'"' && octet != b'='
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or_default();
    let time = jiff::Timestamp::new(second, 0).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S");
    format!("{time}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_job_is_one_line_in_either_format() {
        let ending = Ending {
            details: b"first\nboom \"x\"\n\n".to_vec(),
            ..Ending::failed(Verdict::Retry, "exit 3", Duration::from_millis(12))
        };
        let line = |format, level| {
            let mut log = Log::new(format, level);
            log.job(&job(amqp::Table::new(), b""), &ending);
            String::from_utf8(std::mem::take(&mut log.lines)).unwrap()
        };
        let text = line(Format::Text, Level::Failures);
        let expected =
            " retry queue=tasks message_id=m-1 attempt=1 ms=12.0 why=\"exit 3\" last_line=\"boom \\\"x\\\"\"\n";
        assert!(text.ends_with(expected) && text.as_bytes()[23] == b'Z', "{text}");
        let json: Value = serde_json::from_str(&line(Format::Json, Level::All)).unwrap();
        assert_eq!((&json["event"], &json["why"], &json["ms"]), (&json!("retry"), &json!("exit 3"), &json!(12.0)));
        assert_eq!(line(Format::Text, Level::None), "");
    }
}
