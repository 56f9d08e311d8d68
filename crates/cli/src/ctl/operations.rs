//! Commands for a queue's messages that `rabbitmqctl` does not have: pause, look, delete, move, requeue, redrive; and
//! leases.

use super::Screen;
use super::api::{Answer, Api};
use super::arguments::{Line, Options};
use super::commands::{done, pause, queue_path};
use super::failure::{self, Failure};
use super::formats;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

pub(super) fn pause_queue(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    put(line, screen, "pause_queue", "Pausing", "pause")
}

pub(super) fn resume_queue(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    put(line, screen, "resume_queue", "Resuming", "resume")
}

fn put(line: &Line, screen: &mut Screen, command: &str, doing: &str, what: &str) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let api = Api::new(command, options, None)?;
    api.reach()?;
    screen.banner(options, &format!("{doing} queue '{queue}' in vhost '{}' ...", options.vhost()))?;
    succeeded(&api.put(&format!("{}/{what}", queue_path(options, queue)), &json!({}))?)?;
    done(&api, options, screen)
}

pub(super) fn peek_messages(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let api = Api::new("peek_messages", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Messages of queue '{queue}' in vhost '{}' ...", options.vhost()))?;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut wanted = options.number("count")?.unwrap_or(PEEK_COUNT);
    let mut query = String::new();
    for condition in options.all("where") {
        let (key, value) = parted(condition)?;
        query.push_str(&format!("&{}={}", encoded(key), encoded(value)));
    }
    let mut states = ["delayed", "unacked", "dlx"].into_iter().filter(|state| options.has(state));
    let state = states.next();
    if let (Some(one), Some(other)) = (state, states.next()) {
        return Err(Failure::error(failure::USAGE, format!("--{one} and --{other} exclude each other")));
    }
    let mut place = match (state, options.number("offset")?) {
        (Some(state), None) => format!("&state={state}"),
        (None, offset) => format!("&offset={}", offset.unwrap_or(0)),
        (Some(_), Some(_)) => return Err(Failure::error(failure::USAGE, "--offset counts ready messages only")),
    };
    let columns = match state {
        Some("delayed") => &DELAYED_COLUMNS,
        Some("dlx") => &DEAD_COLUMNS,
        _ => &COLUMNS,
    };
    let mut rows = Vec::new();
    while wanted > 0 {
        let path = format!("{}/messages?count={wanted}{place}{query}", queue_path(options, queue));
        let answer = api.send("GET", &path, &[])?;
        succeeded(&answer)?;
        let answer = answer.json();
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        wanted = wanted.saturating_sub(items.len() as u64);
        let value = |item: &Value, column: &str| match column {
            "died_at" => item["dead_letter"]["time"].clone(),
            "to_exchange" => item["dead_letter"]["exchange"].clone(),
            "to_key" => item["dead_letter"]["routing_key"].clone(),
            "reason" if item["dead_letter"].is_object() => item["dead_letter"]["reason"].clone(),
            "reason" => item["failure"]["reason"].clone(),
            column => item[column].clone(),
        };
        rows.extend(items.iter().map(|item| columns.iter().map(|column| value(item, column)).collect::<Vec<_>>()));
        match answer["next"].as_str() {
            Some(next) => place = format!("&from={next}"),
            None => break,
        }
    }
    formats::print_rows(screen, options, columns, &rows)
}

pub(super) fn delete_messages(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    act(line, screen, "delete_messages", "delete", "deleted")
}

pub(super) fn move_messages(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    act(line, screen, "move_messages", "move", "moved")
}

pub(super) fn requeue_messages(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    act(line, screen, "requeue_messages", "requeue", "requeued")
}

pub(super) fn release_messages(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    act(line, screen, "release_messages", "release", "released")
}

/// Does it to the selected messages, in as many requests as it takes.
fn act(line: &Line, screen: &mut Screen, command: &str, what: &str, word: &str) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let mut document = target(options);
    let seqs: Option<Vec<u64>> = options.all("seq").map(|seq| seq.parse().ok()).collect();
    let seqs = seqs.ok_or_else(|| Failure::error(failure::USAGE, "--seq takes the number of a message"))?;
    let filter = filter(options)?;
    match (seqs.is_empty(), filter, options.has("all")) {
        (false, None, false) => drop(document.insert("seqs".into(), seqs.into())),
        (true, Some(filter), false) => drop(document.insert("filter".into(), filter)),
        (true, None, true) => drop(document.insert("all".into(), true.into())),
        _ => return Err(Failure::error(failure::USAGE, "say which messages: one of --seq, --where, and --all")),
    }
    if options.has("delayed") {
        document.insert("state".into(), "delayed".into());
    }
    let mut left = options.number("count")?;
    let api = Api::new(command, options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Messages of queue '{queue}' in vhost '{}' are {word} ...", options.vhost()))?;
    let mut sums = Map::new();
    loop {
        if let Some(left) = left {
            document.insert("count".into(), left.into());
        }
        let path = format!("{}/messages/{what}", queue_path(options, queue));
        let answer = api.post(&path, &document.clone().into())?;
        succeeded(&answer)?;
        let answer = answer.json();
        for key in [word, "unroutable", "refused"] {
            let sum = sums.get(key).and_then(Value::as_u64).unwrap_or(0) + answer[key].as_u64().unwrap_or(0);
            sums.insert(key.to_owned(), sum.into());
        }
        left = left.map(|left| left.saturating_sub(answer[word].as_u64().unwrap_or(0)));
        match answer["next"].as_str() {
            Some(next) if answer["refused"] == 0 && left != Some(0) => {
                document.insert("from".into(), next.into());
            }
            _ => break,
        }
    }
    let number = |key: &str| sums.get(key).and_then(Value::as_u64).unwrap_or(0);
    if options.formatter.is_for_machines() {
        screen.line(&Value::from(sums.clone()).to_string())?;
    } else {
        formats::print_message(screen, options, &format!("{} messages were {word}", number(word)))?;
    }
    match (number("unroutable"), number("refused")) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::error(failure::UNAVAILABLE, "where messages go to is full; those that are left stay")),
        (stay, _) => Err(Failure::error(failure::DATA, format!("{stay} messages have nowhere to go, and stay"))),
    }
}

pub(super) fn redrive_queue(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let api = Api::new("redrive_queue", options, None)?;
    api.reach()?;
    let path = format!("{}/redrive", queue_path(options, queue));
    if options.has("stop") {
        screen.banner(options, &format!("Stopping the redrive of queue '{queue}' ..."))?;
        succeeded(&api.send("DELETE", &path, &[])?)?;
        return done(&api, options, screen);
    }
    if options.has("follow") {
        return follow(&api, &path, queue, options, screen);
    }
    let mut document = target(options);
    if let Some(filter) = filter(options)? {
        document.insert("filter".into(), filter);
    }
    if let Some(rate) = options.number("rate")? {
        document.insert("rate".into(), rate.into());
    }
    if let Some(origin) = options.all("origin").last() {
        document.insert("origin".into(), origin.into());
    }
    screen.banner(options, &format!("Redriving queue '{queue}' in vhost '{}' ...", options.vhost()))?;
    succeeded(&api.post(&path, &document.into())?)?;
    follow(&api, &path, queue, options, screen)
}

/// Waits for the end of a redrive, and shows how far it is.
fn follow(api: &Api, path: &str, queue: &str, options: &Options, screen: &mut Screen) -> Result<(), Failure> {
    let shows = io::stderr().is_terminal() && !options.quiet && !options.silent;
    loop {
        let Some(state) = api.get(path)? else {
            let text = format!("no redrive of queue '{queue}' is known: begin one without --follow");
            return Err(Failure::error(failure::UNAVAILABLE, text));
        };
        let word = state["state"].as_str().unwrap_or_default();
        if shows {
            let end = if matches!(word, "running" | "waiting" | "stopping") { "\x1b[K" } else { "\x1b[K\r" };
            // Whoever closed it does not look.
            let _unseen = write!(io::stderr(), "\r{}{end}", progress(&state));
        }
        match word {
            "running" | "waiting" | "stopping" => pause(POLL),
            "done" => return tell_end(&state, options, screen),
            "stopped" => {
                return Err(Failure::error(failure::UNAVAILABLE, format!("it was stopped: {}", progress(&state))));
            }
            _ => {
                let reason = state["reason"].as_str().unwrap_or("the server does not say why");
                return Err(Failure::error(failure::UNAVAILABLE, reason));
            }
        }
    }
}

fn tell_end(state: &Value, options: &Options, screen: &mut Screen) -> Result<(), Failure> {
    if options.formatter.is_for_machines() {
        screen.line(&state.to_string())?;
    } else {
        formats::print_message(screen, options, &progress(state))?;
    }
    match state["unroutable"].as_u64() {
        None | Some(0) => Ok(()),
        Some(stay) => {
            let text = format!("{stay} messages stay: they did not die in a queue that is there");
            Err(Failure::error(failure::DATA, text))
        }
    }
}

fn progress(state: &Value) -> String {
    let waits = if state["state"] == "waiting" { ", waiting for room" } else { "" };
    format!("{} of {} messages were moved{waits}", state["moved"], state["total"])
}

pub(super) fn extend_lease(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let document = match line.operands.get(2) {
        None => json!({}),
        Some(seconds) => match seconds.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000)) {
            Some(ms) => json!({"ms": ms}),
            None => return Err(Failure::error(failure::USAGE, "a lease is extended by a number of seconds")),
        },
    };
    lease(line, screen, "extend_lease", |api, path| api.put(path, &document))
}

pub(super) fn return_lease(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    lease(line, screen, "return_lease", |api, path| api.send("DELETE", path, &[]))
}

fn lease(
    line: &Line,
    screen: &mut Screen,
    command: &str,
    ask: impl FnOnce(&Api, &str) -> Result<Answer, Failure>,
) -> Result<(), Failure> {
    let (options, queue, seq) = (&line.options, &line.operands[0], &line.operands[1]);
    let seq: u64 = seq.parse().map_err(|_| Failure::error(failure::USAGE, "a lease is named by its seq"))?;
    let api = Api::new(command, options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Message {seq} of queue '{queue}' in vhost '{}' ...", options.vhost()))?;
    let answer = ask(&api, &format!("{}/leases/{seq}", queue_path(options, queue)))?;
    if answer.status == 404 {
        return Err(Failure::error(failure::DATA, format!("nobody holds message {seq} of queue '{queue}'")));
    }
    succeeded(&answer)?;
    done(&api, options, screen)
}

fn succeeded(answer: &Answer) -> Result<(), Failure> {
    match answer.status {
        200..=299 => Ok(()),
        404 if answer.reason() == "Not Found" => Err(Failure::no_object()),
        404 => Err(Failure::error(failure::DATA, answer.reason())),
        400 => Err(Failure::error(failure::USAGE, answer.reason())),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

/// Where messages are to go.
fn target(options: &Options) -> Map<String, Value> {
    let names = [("to-queue", "to_queue"), ("to-exchange", "to_exchange"), ("routing-key", "routing_key")];
    let given = names.iter().filter_map(|(option, key)| Some(((*key).to_owned(), options.all(option).last()?.into())));
    given.collect()
}

fn filter(options: &Options) -> Result<Option<Value>, Failure> {
    let mut filter = Map::new();
    for condition in options.all("where") {
        let (key, value) = parted(condition)?;
        filter.insert(key.to_owned(), value.into());
    }
    Ok((!filter.is_empty()).then_some(filter.into()))
}

fn parted(condition: &str) -> Result<(&str, &str), Failure> {
    condition.split_once('=').ok_or_else(|| {
        let text = "--where takes KEY=VALUE, the key being exchange, routing_key, body, header.NAME or property.NAME";
        Failure::error(failure::USAGE, text)
    })
}

/// What is shown of each message.
const COLUMNS: [&str; 8] =
    ["seq", "state", "redelivered", "delivery_count", "routing_key", "reason", "payload_bytes", "payload"];
/// The same of those that wait for a time.
const DELAYED_COLUMNS: [&str; 8] =
    ["seq", "state", "due_at", "delivery_count", "routing_key", "reason", "payload_bytes", "payload"];
/// The same of those that are dead letters which nobody has taken yet, and where they are to go.
const DEAD_COLUMNS: [&str; 8] =
    ["seq", "state", "died_at", "reason", "to_exchange", "to_key", "payload_bytes", "payload"];
const PEEK_COUNT: u64 = 10;
const POLL: Duration = Duration::from_millis(100);
