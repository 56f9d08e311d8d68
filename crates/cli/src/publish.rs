//! `leveret publish`: jobs from a command line, from files, or a line each, confirmed by the broker before they count.

pub(crate) mod duration;
mod input;
mod job;
mod progress;
mod run;
mod state;
mod window;

use crate::client::{self, Url};
use amqp::{PropertyList, Table, Value};
use clap::Args;
use duration::Milliseconds;
use input::{Before, Lines, Source};
use job::{DEDUPLICATION, DELAY, Target, Template};
use progress::Display;
use state::StateFile;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong command line.
pub(crate) const USAGE: u8 = 64;
/// A job makes no sense, or nobody is to have it.
const DATA: u8 = 65;
/// A file cannot be read.
const NO_INPUT: u8 = 66;
/// The broker cannot be reached, or refuses.
const UNAVAILABLE: u8 = 69;
/// The state file cannot be written.
const IO: u8 = 74;
/// A queue is full: another time it may do.
const TEMPORARY: u8 = 75;
/// The broker does not let this user in, or do this.
const NO_PERMISSION: u8 = 77;
/// By a signal.
const INTERRUPTED: u8 = 130;

/// What to publish, and where.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Flags {
    /// Jobs: each argument is the body of one. Without any, standard input is
    #[arg(value_name = "BODY")]
    bodies: Vec<OsString>,

    /// The queue that gets them
    #[arg(long, value_name = "NAME", value_parser = short)]
    queue: Option<String>,
    /// Or an exchange …
    #[arg(long, value_name = "NAME", value_parser = short, conflicts_with = "queue")]
    exchange: Option<String>,
    /// … and the routing key there
    #[arg(long, value_name = "KEY", value_parser = short, conflicts_with = "queue")]
    routing_key: Option<String>,

    /// A file that is a job; with --lines or --json-lines one that has many. - is standard input. May be repeated
    #[arg(long, short, value_name = "FILE", conflicts_with = "bodies")]
    file: Vec<PathBuf>,
    /// Each line is a job
    #[arg(long, conflicts_with_all = ["bodies", "json_lines"])]
    lines: bool,
    /// Each line is a JSON object: a job with its properties
    #[arg(long, conflicts_with = "bodies")]
    json_lines: bool,

    /// A header, as NAME=TEXT, or NAME:=JSON for a number, true, false or a list. May be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = job::header)]
    headers: Vec<(String, Value)>,
    /// Hold it back for so long, as 30s, 5m, 2h or 1d
    #[arg(long, value_name = "TIME")]
    delay: Option<Milliseconds>,
    /// How urgent it is, in a queue with x-max-priority
    #[arg(long, value_name = "0-255")]
    priority: Option<u8>,
    /// After so long it is worth nothing any more
    #[arg(long, value_name = "TIME")]
    expiration: Option<Milliseconds>,
    /// A queue that deduplicates takes one job of this key (the header x-deduplication-header)
    #[arg(long, value_name = "KEY", value_parser = short)]
    dedup_key: Option<String>,
    /// The application's id of the job
    #[arg(long, value_name = "ID", value_parser = short)]
    message_id: Option<String>,
    /// What replies are to be recognized by
    #[arg(long, value_name = "ID", value_parser = short)]
    correlation_id: Option<String>,
    /// The queue that gets the reply
    #[arg(long, value_name = "QUEUE", value_parser = short)]
    reply_to: Option<String>,
    /// What kind of job it is
    #[arg(long = "type", value_name = "TYPE", value_parser = short)]
    kind: Option<String>,
    /// The body's MIME type
    #[arg(long, value_name = "TYPE", value_parser = short)]
    content_type: Option<String>,
    /// The body's encoding, such as gzip
    #[arg(long, value_name = "NAME", value_parser = short)]
    content_encoding: Option<String>,
    /// The application that publishes
    #[arg(long, value_name = "NAME", value_parser = short)]
    app_id: Option<String>,
    /// Jobs that need not survive the broker
    #[arg(long)]
    transient: bool,

    /// Remember in this file how far lines are confirmed, and go on from there the next time
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// What ids of lines begin with: ID-1, ID-2, … Jobs are deduplicated by them. With --resume it is made up and kept
    #[arg(long, value_name = "ID", value_parser = input_id)]
    input_id: Option<String>,
    /// How many jobs may wait to be confirmed
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: u32,
    /// Do not wait until the broker has stored anything
    #[arg(long, conflicts_with = "resume")]
    no_confirm: bool,

    /// A broker, as amqp://user:password@host:port/vhost, or amqps://. May be repeated: they are tried in turn. Without it, LEVERET_URL
    #[arg(long, value_name = "URL")]
    url: Vec<Url>,
    /// How long to try to connect before giving up: 60s after a lost connection, and once at the start
    #[arg(long, value_name = "TIME")]
    give_up_after: Option<Milliseconds>,
    /// Tell nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// What a run needs to know.
#[derive(Debug)]
struct Plan {
    urls: Vec<Url>,
    window: usize,
    is_confirmed: bool,
    give_up_after: Option<Duration>,
    /// Jobs are lines.
    has_lines: bool,
    /// There may be more than one.
    is_many: bool,
}

/// Publishes.
pub(crate) fn run(flags: Flags) -> ExitCode {
    match begin(flags) {
        Ok(code) => ExitCode::from(code),
        Err((code, why)) => {
            let _unseen = writeln!(std::io::stderr(), "leveret publish: {why}");
            ExitCode::from(code)
        }
    }
}

fn begin(flags: Flags) -> Result<u8, (u8, String)> {
    let usage = |why: &str| (USAGE, why.to_owned());
    let target = match (&flags.queue, &flags.exchange, &flags.routing_key) {
        (Some(queue), ..) => Target { exchange: String::new(), routing_key: queue.clone() },
        (None, Some(exchange), key) => {
            Target { exchange: exchange.clone(), routing_key: key.clone().unwrap_or_default() }
        }
        // Lines of JSON may all say it themselves.
        (None, None, None) if flags.json_lines => Target::default(),
        (None, None, _) => return Err(usage("say where: --queue NAME, or --exchange NAME --routing-key KEY")),
    };
    let has_lines = flags.lines || flags.json_lines;
    let is_many = has_lines || flags.bodies.len() > 1 || flags.file.len() > 1;
    if is_many && (flags.dedup_key.is_some() || flags.message_id.is_some()) {
        return Err(usage("--dedup-key and --message-id are for one job; lines of JSON may each have their own"));
    }
    if !has_lines && (flags.resume.is_some() || flags.input_id.is_some()) {
        return Err(usage("--resume and --input-id are for --lines and --json-lines"));
    }
    let urls = client::urls(&flags.url).map_err(|why| (USAGE, why))?;
    let list = properties(&flags).map_err(|why| (USAGE, why))?;
    let source = match (flags.file, flags.bodies) {
        (files, _) if has_lines => {
            let files = if files.is_empty() { vec!["-".into()] } else { files };
            Source::Lines { files, kind: if flags.json_lines { Lines::Json } else { Lines::Plain } }
        }
        (files, bodies) if files.is_empty() && bodies.is_empty() => Source::Files(vec!["-".into()]),
        (files, bodies) if bodies.is_empty() => Source::Files(files),
        (_, bodies) => Source::Bodies(bodies.into_iter().map(OsString::into_vec).collect()),
    };
    let state = flags.resume.as_ref().map(|path| {
        let fresh = flags.input_id.clone().unwrap_or_else(made_up_id);
        StateFile::open(path, &fresh).map_err(|why| (IO, why))
    });
    let state = state.transpose()?;
    if let (Some(state), Some(given)) = (&state, &flags.input_id)
        && state.input() != given
    {
        let why = format!("the state file is of the input {:?}, and --input-id says {given:?}", state.input());
        return Err((USAGE, why));
    }
    let before = state
        .as_ref()
        .map_or_else(Before::default, |state| Before { progress: state.progress(), also: state.also().clone() });
    let input = state.as_ref().map(|state| state.input().to_owned()).or(flags.input_id);
    let display = Display::new(flags.quiet, source.bytes());
    let plan = Plan {
        urls,
        window: flags.window as usize,
        is_confirmed: !flags.no_confirm,
        give_up_after: flags.give_up_after.map(|time| Duration::from_millis(time.0)),
        has_lines,
        is_many,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (IO, format!("cannot start: {error}")))?;
    let items = source.read(Template::new(target, list, input), before);
    Ok(runtime.block_on(run::run(plan, items, state, display)))
}

fn properties(flags: &Flags) -> Result<PropertyList, String> {
    let octets = |text: &Option<String>| text.clone().map(String::into_bytes);
    let mut headers: Table = flags.headers.iter().cloned().collect();
    if let Some(delay) = flags.delay {
        headers.insert(DELAY, job::delay_value(delay)?);
    }
    if let Some(key) = &flags.dedup_key {
        headers.insert(DEDUPLICATION, key.as_str());
    }
    Ok(PropertyList {
        content_type: octets(&flags.content_type),
        content_encoding: octets(&flags.content_encoding),
        headers: (!headers.is_empty()).then_some(headers),
        delivery_mode: Some(if flags.transient { 1 } else { 2 }),
        priority: flags.priority,
        correlation_id: octets(&flags.correlation_id),
        reply_to: octets(&flags.reply_to),
        expiration: flags.expiration.map(|time| time.0.to_string().into_bytes()),
        message_id: octets(&flags.message_id),
        kind: octets(&flags.kind),
        app_id: octets(&flags.app_id),
        ..PropertyList::default()
    })
}

fn made_up_id() -> String {
    format!("{:016x}", getrandom::u64().unwrap_or_default())
}

fn short(text: &str) -> Result<String, String> {
    if text.len() > usize::from(u8::MAX) { Err("at most 255 bytes".to_owned()) } else { Ok(text.to_owned()) }
}

fn input_id(text: &str) -> Result<String, String> {
    let is_sound = (1..=200).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_sound { Ok(text.to_owned()) } else { Err("1 to 200 characters on one line".to_owned()) }
}

const HELP: &str = "\
A job counts when the broker has stored it and confirmed it. Exit codes: 0 all are; 64 wrong command line; 65 no queue
takes a job, or a line makes no sense; 66 a file cannot be read; 69 the broker cannot be reached; 74 the state file cannot be
written; 75 a queue is full; 77 no permission; 130 interrupted.

Examples:
  leveret publish --queue mails '{\"to\": \"ann@example.org\"}'
  leveret publish --queue reports --delay 5m --priority 7 --header tenant=acme --header attempt:=3 --file report.json
  find . -name '*.png' | leveret publish --queue thumbnails --lines
  leveret publish --queue import --lines --file rows.csv --resume rows.state
  echo '{\"routing_key\": \"eu.orders\", \"body\": {\"id\": 7}, \"delay\": \"30s\"}' | leveret publish --exchange shop --json-lines";
