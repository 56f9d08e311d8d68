//! `top`: queues, rates and leases, live, with nothing but a terminal's own sequences.

use super::Screen;
use super::api::Api;
use super::arguments::Line;
use super::commands::pause;
use super::failure::Failure;
use super::formats::cell;
use serde_json::Value;
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// What a queue's counters were, by its vhost and name.
type Counters = HashMap<(String, String), [u64; 3]>;

/// Looks again and again, until it is interrupted or has looked as often as asked.
pub(super) fn run(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let seconds = options.number("interval")?.unwrap_or(INTERVAL_S).max(1);
    let is_live = std::io::stdout().is_terminal();
    // To a file or a pipe, two looks are enough for rates.
    let mut left = options.number("count")?.or((!is_live).then_some(2));
    let api = Api::new("top", options, None)?;
    api.reach()?;
    let (mut before, mut looked) = (Counters::new(), Instant::now());
    loop {
        let overview = api.get("/overview")?.unwrap_or_default();
        let queues = api.get(&format!("/queues?columns={COLUMNS}"))?.unwrap_or_default();
        let queues = queues.as_array().cloned().unwrap_or_default();
        let apart = looked.elapsed().as_secs_f64().max(0.001);
        looked = Instant::now();
        let counters: Counters = queues.iter().map(|queue| (key(queue), counters(queue))).collect();
        left = left.map(|left| left.saturating_sub(1));
        if is_live || left == Some(0) {
            let (rows, width) = size();
            let lines = view(&overview, &queues, |queue| rates(queue, &before, apart), rows);
            if is_live {
                screen.line(CLEAR)?;
            }
            for line in lines {
                screen.line(&line.chars().take(width).collect::<String>())?;
            }
            screen.flush()?;
        }
        if left == Some(0) {
            return Ok(());
        }
        before = counters;
        pause(Duration::from_secs(seconds));
    }
}

fn key(queue: &Value) -> (String, String) {
    (cell(&queue["vhost"]), cell(&queue["name"]))
}

fn counters(queue: &Value) -> [u64; 3] {
    ["publish", "deliver_get", "ack"].map(|name| queue["message_stats"][name].as_u64().unwrap_or_default())
}

/// Changes a second since the last look; none of a queue that was not there.
fn rates(queue: &Value, before: &Counters, apart: f64) -> [f64; 3] {
    let now = counters(queue);
    let then = before.get(&key(queue)).copied().unwrap_or(now);
    let mut rates = [0.0; 3];
    for (rate, (now, then)) in rates.iter_mut().zip(now.into_iter().zip(then)) {
        *rate = now.saturating_sub(then) as f64 / apart;
    }
    rates
}

fn view(overview: &Value, queues: &[Value], rates: impl Fn(&Value) -> [f64; 3], rows: usize) -> Vec<String> {
    let (objects, totals) = (&overview["object_totals"], &overview["queue_totals"]);
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let all: Vec<_> = queues.iter().map(|queue| (queue, rates(queue))).collect();
    let sum = |at: usize| all.iter().fold(0.0, |sum, (_, rates)| sum + rates[at]);
    let late: u64 = queues.iter().map(|queue| count(&queue["late_leases"])).sum();
    let mut lines = vec![
        format!(
            "{} {}  {} connections  {} channels  {} consumers  {} queues",
            cell(&overview["product_name"]),
            cell(&overview["product_version"]),
            count(&objects["connections"]),
            count(&objects["channels"]),
            count(&objects["consumers"]),
            count(&objects["queues"]),
        ),
        format!(
            "messages {}  ready {}  delayed {}  leases {} ({late} late)  in {:.0}/s  out {:.0}/s  ack {:.0}/s",
            count(&totals["messages"]),
            count(&totals["messages_ready"]),
            count(&totals["messages_delayed"]),
            count(&totals["messages_unacknowledged"]),
            sum(0),
            sum(1),
            sum(2),
        ),
        String::new(),
        format!(
            "{:<32} {:>10} {:>8} {:>6} {:>6} {:>9} {:>9} {:>9} {:>8} {:>8}",
            "QUEUE", "READY", "LEASES", "LATE", "CONS", "IN/S", "OUT/S", "ACK/S", "OLDEST", "LEASED"
        ),
    ];
    let mut all = all;
    let busy = |rates: &[f64; 3]| rates.iter().sum::<f64>();
    all.sort_by(|(one, its), (other, others)| {
        let by_rates = busy(others).total_cmp(&busy(its));
        count(&other["messages"]).cmp(&count(&one["messages"])).then(by_rates).then_with(|| key(one).cmp(&key(other)))
    });
    let room = rows.saturating_sub(lines.len() + 1).max(1);
    for (queue, [publish, deliver, ack]) in all.into_iter().take(room) {
        let (vhost, name) = key(queue);
        let name = if vhost == "/" { name } else { format!("{vhost}/{name}") };
        let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(32).collect();
        lines.push(format!(
            "{name:<32} {:>10} {:>8} {:>6} {:>6} {publish:>9.0} {deliver:>9.0} {ack:>9.0} {:>8} {:>8}",
            count(&queue["messages_ready"]),
            count(&queue["messages_unacknowledged"]),
            count(&queue["late_leases"]),
            count(&queue["consumers"]),
            age(&queue["oldest_ready_age_ms"]),
            age(&queue["oldest_unacked_age_ms"]),
        ));
    }
    lines
}

/// `3s`, `12m`, `5h`, `2d`.
pub(super) fn age(ms: &Value) -> String {
    let Some(ms) = ms.as_u64() else { return "-".to_owned() };
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Rows and columns of the terminal.
pub(super) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (usize::MAX, usize::MAX),
    }
}

const COLUMNS: &str = "vhost,name,messages,messages_ready,messages_unacknowledged,consumers,late_leases,\
                       oldest_ready_age_ms,oldest_unacked_age_ms,message_stats.publish,message_stats.deliver_get,\
                       message_stats.ack";
const INTERVAL_S: u64 = 2;
/// To the upper left, and everything gone from there on.
pub(super) const CLEAR: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_longest_queues_come_first_with_their_rates() {
        let overview = json!({"product_name": "Leveret", "product_version": "1", "object_totals": {"queues": 2}});
        let short =
            json!({"vhost": "/", "name": "short", "messages": 1, "messages_ready": 1, "oldest_ready_age_ms": 5_000});
        let long = json!({"vhost": "v", "name": "long", "messages": 9, "message_stats": {"publish": 30}});
        let before = Counters::from([(("v".to_owned(), "long".to_owned()), [10, 0, 0])]);
        let lines = view(&overview, &[short, long], |queue| rates(queue, &before, 2.0), 100);
        assert!(lines[0].starts_with("Leveret 1 ") && lines[1].contains("in 10/s"), "{lines:?}");
        assert!(lines[4].starts_with("v/long ") && lines[4].contains(" 10 "), "{lines:?}");
        assert!(lines[5].starts_with("short ") && lines[5].contains(" 5s "), "{lines:?}");
        assert_eq!(
            view(&overview, &[json!({}), json!({})], |_| [0.0; 3], 6).len(),
            5,
            "no more than there is room for"
        );
    }

    #[test]
    fn ages_are_short() {
        let shown: Vec<_> = [0, 119_000, 120_000, 7_200_000, 172_800_000].map(|ms| age(&json!(ms))).into();
        assert_eq!(shown, ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!(age(&Value::Null), "-");
    }
}
