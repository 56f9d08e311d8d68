//! `jobs`: what workers have in hand, how far it is, and what waits to be tried again and why; once or live.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::{pause, queue_path};
use super::failure::Failure;
use super::formats::cell;
use super::top::{CLEAR, age, size};
use serde_json::{Map, Value, json};
use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a look has found.
#[derive(Debug, Default)]
struct Jobs {
    waiting: u64,
    delayed: u64,
    running: u64,
    /// Leases, as the API has them.
    leases: Vec<Value>,
    /// Messages that came back, as the API has them, each with its `queue`.
    failed: Vec<Value>,
}

/// Looks once; with `--watch` again and again, until it is interrupted or has looked as often as asked.
pub(super) fn run(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let seconds = options.number("interval")?.unwrap_or(INTERVAL_S).max(1);
    let mut left = options.number("count")?.or((!options.has("watch")).then_some(1));
    let is_live = options.has("watch") && std::io::stdout().is_terminal() && !options.formatter.is_for_machines();
    let api = Api::new("jobs", options, None)?;
    api.reach()?;
    loop {
        let jobs = look(&api, line)?;
        if options.formatter.is_for_machines() {
            screen.line(&jobs.document().to_string())?;
        } else {
            let (rows, width) = if is_live { size() } else { (usize::MAX, usize::MAX) };
            if is_live {
                screen.line(CLEAR)?;
            }
            for text in jobs.view(rows, now_ms()) {
                screen.line(&text.chars().take(width).collect::<String>())?;
            }
        }
        screen.flush()?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        pause(Duration::from_secs(seconds));
    }
}

fn look(api: &Api, line: &Line) -> Result<Jobs, Failure> {
    let options = &line.options;
    let mut jobs = Jobs::default();
    let (queues, leases) = match line.operands.first() {
        Some(queue) => {
            let path = queue_path(options, queue);
            let queue = api.get(&path)?.ok_or_else(Failure::no_object)?;
            let leases = api.get(&format!("{path}/leases?count={LEASES_MAX}"))?.unwrap_or_default();
            (vec![queue], leases["items"].clone())
        }
        None => {
            let queues = api.get(&format!("/queues?columns={COLUMNS}"))?.unwrap_or_default();
            let leases = api.get(&format!("/leases?count={LEASES_MAX}"))?.unwrap_or_default();
            (queues.as_array().cloned().unwrap_or_default(), leases)
        }
    };
    jobs.leases = leases.as_array().cloned().unwrap_or_default();
    let mut looks = LOOKS_MAX;
    for queue in &queues {
        let count = |key: &str| queue[key].as_u64().unwrap_or_default();
        jobs.waiting += count("messages_ready");
        jobs.running += count("messages_unacknowledged");
        jobs.delayed += count("messages_delayed");
        for (state, key) in [("delayed", "messages_delayed"), ("ready", "messages_ready")] {
            if count(key) == 0 || looks == 0 {
                continue;
            }
            looks -= 1;
            let (vhost, name) = (cell(&queue["vhost"]), cell(&queue["name"]));
            let (vhost, name) = (encoded(&vhost), encoded(&name));
            let path = format!("/queues/{vhost}/{name}/messages?state={state}&count={PEEK_COUNT}&truncate=0");
            // A queue that is gone since has none.
            let page = api.get(&path)?.unwrap_or_default();
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let has_failed = |item: &Value| item["delivery_count"].as_u64() > Some(0) || item["failure"].is_object();
            for mut item in items.into_iter().filter(has_failed) {
                item["queue"] = json!({"vhost": queue["vhost"], "name": queue["name"]});
                jobs.failed.push(item);
            }
        }
    }
    Ok(jobs)
}

impl Jobs {
    fn document(&self) -> Value {
        let part = |item: &Value, keys: &[&str]| -> Value {
            keys.iter().map(|key| ((*key).to_owned(), item[*key].clone())).collect::<Map<_, _>>().into()
        };
        let failed = ["queue", "seq", "state", "due_at", "delivery_count", "failure", "routing_key", "payload_bytes"];
        json!({
            "waiting": self.waiting,
            "delayed": self.delayed,
            "running": self.running,
            "leases": self.leases,
            "failed": self.failed.iter().map(|item| part(item, &failed)).collect::<Vec<_>>(),
        })
    }

    /// In so many rows.
    fn view(&self, rows: usize, now_ms: u64) -> Vec<String> {
        let Self { waiting, delayed, running, .. } = self;
        let mut lines = vec![format!("{running} running  {waiting} waiting  {delayed} delayed"), String::new()];
        let room = rows.saturating_sub(6);
        let for_leases = room.saturating_sub(self.failed.len().min(room / 2)).max(1);
        if !self.leases.is_empty() {
            let head = ("QUEUE", "SEQ", "AGE", "LEFT", "WORKER", "PROGRESS");
            lines.push(row(head.0, head.1, head.2, head.3, head.4, head.5));
            for lease in self.leases.iter().take(for_leases) {
                let worker = match (&lease["client_name"], &lease["channel_details"]["connection_name"]) {
                    (Value::String(name), _) | (_, Value::String(name)) => name.clone(),
                    _ => "-".to_owned(),
                };
                let tag = lease["consumer_tag"].as_str().map(|tag| format!(" {tag}")).unwrap_or_default();
                let progress = match &lease["progress"] {
                    Value::Null => String::new(),
                    Value::Number(percent) => format!("{percent} %"),
                    other => cell(other),
                };
                let (ages, left) = (age(&lease["age_ms"]), age(&lease["left_ms"]));
                lines.push(row(&name(lease), &cell(&lease["seq"]), &ages, &left, &format!("{worker}{tag}"), &progress));
            }
            lines.push(String::new());
        }
        if !self.failed.is_empty() {
            lines.push(row("QUEUE", "SEQ", "FAILED", "NEXT", "REASON", ""));
            let left = rows.saturating_sub(lines.len() + 1).max(1);
            for item in self.failed.iter().take(left) {
                let next = match item["due_at"].as_u64() {
                    Some(due_at_ms) => age(&json!(due_at_ms.saturating_sub(now_ms))),
                    None => "now".to_owned(),
                };
                // A dead letter begins anew.
                let times = match item["delivery_count"].as_u64() {
                    Some(0) | None => "-".to_owned(),
                    Some(count) => format!("{count} x"),
                };
                let reason = why(&item["failure"]);
                lines.push(row(&name(item), &cell(&item["seq"]), &times, &next, &reason, ""));
            }
        }
        lines
    }
}

/// The reason, and the last line of the details, which mostly says it best.
fn why(failure: &Value) -> String {
    let reason = failure["reason"].as_str().unwrap_or_default();
    let details = failure["details"].as_str().unwrap_or_default();
    match details.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(last) if last != reason => format!("{reason}: {last}"),
        _ => reason.to_owned(),
    }
}

fn row(queue: &str, seq: &str, age: &str, left: &str, who: &str, what: &str) -> String {
    let clean = |text: &str, most: usize| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
    };
    let (queue, who, what) = (clean(queue, 24), clean(who, 256), clean(what, 256));
    format!("{queue:<24} {seq:>8} {age:>7} {left:>7}  {who:<40} {what}").trim_end().to_owned()
}

fn name(item: &Value) -> String {
    let (vhost, name) = (cell(&item["queue"]["vhost"]), cell(&item["queue"]["name"]));
    if vhost == "/" { name } else { format!("{vhost}/{name}") }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const COLUMNS: &str = "vhost,name,messages_ready,messages_unacknowledged,messages_delayed";
const INTERVAL_S: u64 = 2;
/// How many leases are listed.
const LEASES_MAX: usize = 1_000;
/// How many messages are looked at in a queue, the next ones, for those that came back …
const PEEK_COUNT: usize = 100;
/// … and how often at most, of many queues.
const LOOKS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_jobs_and_those_that_failed_are_shown_with_what_was_said_of_them() {
        let queue = json!({"vhost": "/", "name": "mails"});
        let named = json!({
            "queue": queue, "seq": 7, "age_ms": 5_000, "left_ms": 900_000, "consumer_tag": "c1",
            "client_name": "worker a", "progress": 40.5,
        });
        let unnamed = json!({
            "queue": {"vhost": "v", "name": "q"}, "seq": 8, "age_ms": 1_000, "left_ms": null,
            "channel_details": {"connection_name": "127.0.0.1:5 -> 127.0.0.1:6"}, "progress": "page 2\nof 3",
        });
        let failed = json!({
            "queue": queue, "seq": 3, "delivery_count": 2, "due_at": 31_000, "failure": {"reason": "exit 75", "details": "trying\nno route to host\n\n"},
        });
        let jobs = Jobs { waiting: 4, delayed: 1, running: 2, leases: vec![named, unnamed], failed: vec![failed] };
        let lines = jobs.view(100, 1_000);
        assert_eq!(lines[0], "2 running  4 waiting  1 delayed");
        let has = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part));
        assert!(has(&lines[3], &["mails", "7", "5s", "15m", "worker a c1", "40.5 %"]), "{lines:?}");
        assert!(has(&lines[4], &["v/q", "8", "1s", "127.0.0.1:5 -> 127.0.0.1:6", "page 2 of 3"]), "{lines:?}");
        assert!(has(&lines[7], &["mails", "3", "2 x", "30s", "exit 75: no route to host"]), "{lines:?}");
        assert!(jobs.view(9, 0).len() <= 9);
        assert_eq!(Jobs::default().view(100, 0).len(), 2);
        assert_eq!(jobs.document()["failed"][0]["failure"]["reason"], "exit 75");
    }
}
