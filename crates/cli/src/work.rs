//! `leveret work`: any program is a worker. Takes jobs from queues and runs a program, a long-lived program or a web hook for
//! each; what becomes of the job follows from how that ends.

mod child;
mod codes;
mod ending;
mod hook;
mod job;
mod ledger;
mod limits;
mod lines;
mod link;
mod log;
mod metrics;
mod orphans;
mod process;
mod progress;
mod runner;
mod said;
mod settings;
mod slots;
mod stopping;
mod tail;
mod template;
mod waiting;

use crate::client::{self, Tls, Url};
use crate::publish::duration::Milliseconds;
use child::{Judge, Plan};
use clap::{Args, ValueEnum};
use codes::Codes;
use ending::Verdict;
use hook::Hook;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use limits::Limits;
use lines::Pool;
use link::Wanted;
use log::{Format, Level, Log};
use metrics::Metrics;
use runner::{Parts, Runner};
use settings::{Declaration, Mode, QueueShare, REPLY_BYTES_MAX};
use slots::Slots;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use template::Template;

/// Wrong command line.
const USAGE: u8 = 64;
/// The system does not give what is needed.
const OS_ERROR: u8 = 71;

/// What runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The program, started for each job
    Process,
    /// The program, started once and fed jobs as lines of JSON
    Lines,
    /// The web hook at this URL
    Http,
}

/// What becomes of what programs write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// It goes where the runner's own goes
    Pass,
    /// It is dropped
    Drop,
}

/// What becomes of a job whose program ended with another code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Other {
    Retry,
    DeadLetter,
}

/// Which jobs to run, and how.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Flags {
    /// A queue to take jobs from, and its share where others have jobs, too. May be repeated
    #[arg(long, short, value_name = "NAME[=WEIGHT]", required = true)]
    queue: Vec<QueueShare>,
    /// The program and its arguments, in which {}, {message_id}, {header.NAME} and others are filled in; or a URL
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
    /// What runs a job
    #[arg(long, value_enum, default_value_t = Kind::Process)]
    mode: Kind,

    /// How many jobs run at a time, or how many programs of --mode lines. One for each processor unless given
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: Option<u16>,
    /// How many jobs a program of --mode lines has at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pipeline: u16,
    /// How many jobs to have here of each queue, those that run included. As many as can run unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: Option<u16>,

    /// End a job that takes longer, and try it again. A web hook has 30s unless given
    #[arg(long, value_name = "TIME")]
    timeout: Option<Milliseconds>,
    /// How long jobs may run on after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", default_value = "25s")]
    grace: Milliseconds,
    /// How long the broker lets a job be without word from here; it is extended while the job runs
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = lease)]
    lease: Milliseconds,
    /// End when there was nothing to do for so long
    #[arg(long, value_name = "TIME")]
    stop_when_idle: Option<Milliseconds>,

    /// Exit codes that mean: try again
    #[arg(long, value_name = "CODES", default_value = "75")]
    retry_codes: Codes,
    /// Exit codes that mean: never again
    #[arg(long, value_name = "CODES", default_value = "65")]
    dead_codes: Codes,
    /// What any other code means, and a signal
    #[arg(long, value_enum, default_value_t = Other::Retry)]
    other_codes: Other,
    /// Most memory that a job's processes may have each, as 512M (Linux)
    #[arg(long, value_name = "SIZE", value_parser = limits::bytes)]
    memory: Option<u64>,
    /// Most processor time that a job's processes may take each (Linux)
    #[arg(long, value_name = "TIME")]
    cpu_time: Option<Milliseconds>,
    /// What becomes of what programs write
    #[arg(long, value_enum, default_value_t = Output::Pass)]
    output: Output,
    /// So much of it is passed on of each job
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = limits::bytes)]
    output_max: u64,
    /// Send standard output (or the answer) to who is named by the job's reply-to
    #[arg(long)]
    reply: bool,

    /// A header of each request to a web hook. May be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = hook::header, env = "LEVERET_HTTP_HEADER", hide_env_values = true)]
    http_header: Vec<(HeaderName, HeaderValue)>,
    /// Statuses of a web hook that mean: try again. Those that are in neither list do, too
    #[arg(long, value_name = "STATUSES", default_value = "408,425,429,500-599")]
    retry_statuses: Codes,
    /// Statuses of a web hook that mean: never again
    #[arg(long, value_name = "STATUSES", default_value = "400-499")]
    dead_statuses: Codes,
    /// Who may have signed a web hook's certificate, instead of whom the system trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Make queues that are not there: durable, with retries that wait, a limit of tries, and a queue for dead letters
    #[arg(long)]
    declare: bool,
    /// The wait before the second try. It doubles with each …
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "declare")]
    retry_min: Milliseconds,
    /// … up to this
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "declare")]
    retry_max: Milliseconds,
    /// After so many tries that failed a job is a dead letter
    #[arg(long, value_name = "N", default_value_t = 20, requires = "declare")]
    delivery_limit: u32,
    /// The queue for dead letters; empty for none. The queue's name and .dead unless given
    #[arg(long, value_name = "NAME", requires = "declare")]
    dead_letter_queue: Option<String>,

    /// A broker, as amqp://user:password@host:port/vhost, or amqps://. May be repeated: they are tried in turn. Without it, LEVERET_URL
    #[arg(long, value_name = "URL")]
    url: Vec<Url>,
    /// What the broker calls this connection
    #[arg(long, value_name = "NAME", default_value = "leveret work")]
    name: String,
    /// How lines of the log look
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log: Format,
    /// Which jobs have a line in the log
    #[arg(long, value_enum, default_value_t = Level::All)]
    log_jobs: Level,
    /// Serve metrics for Prometheus there
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

/// Runs jobs until it is told to end.
pub(crate) fn run(flags: Flags) -> ExitCode {
    match begin(flags) {
        Ok(code) => ExitCode::from(code),
        Err((code, why)) => {
            let _unseen = writeln!(std::io::stderr(), "leveret work: {why}");
            ExitCode::from(code)
        }
    }
}

fn begin(flags: Flags) -> Result<u8, (u8, String)> {
    let urls = client::urls(&flags.url).map_err(|why| (USAGE, why))?;
    let mode = mode(&flags).map_err(|why| (USAGE, why))?;
    let concurrency = flags.concurrency.map_or_else(processors, usize::from);
    let pipeline = if flags.mode == Kind::Lines { usize::from(flags.pipeline) } else { 1 };
    let prefetch = flags.prefetch.unwrap_or_else(|| u16::try_from(concurrency * pipeline).unwrap_or(u16::MAX));
    let declaration = Declaration {
        retry_min: time(flags.retry_min),
        retry_max: time(flags.retry_max),
        delivery_limit: flags.delivery_limit,
        dead_letter_queue: flags.dead_letter_queue,
    };
    let wanted = Wanted {
        queues: flags.queue,
        declare: flags.declare.then_some(declaration),
        prefetch,
        lease: time(flags.lease),
        name: flags.name,
    };
    let metrics = Metrics::new(wanted.queues.iter().map(|share| share.name.to_string()));
    let metrics = Arc::new(Mutex::new(metrics));
    let os = |error: std::io::Error| (OS_ERROR, error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(os)?;
    let ended = runtime.block_on(async {
        let mut log = Log::new(flags.log, flags.log_jobs);
        if let Some(address) = flags.metrics {
            let bound = metrics::serve(address, Arc::clone(&metrics)).await;
            let bound = bound.map_err(|error| (OS_ERROR, format!("metrics cannot be served on {address}: {error}")))?;
            log.note("metrics", &format!("on http://{bound}/metrics"));
        }
        let (sender, reports) = tokio::sync::mpsc::unbounded_channel();
        let (stop, stopping) = stopping::pair().map_err(os)?;
        let (feeds, programs, are_up) = match &mode {
            Mode::Process(plan) => {
                (process::start(plan, concurrency, &stopping, &sender).map_err(os)?, Vec::new(), true)
            }
            Mode::Lines(pool) => {
                let (feeds, programs) = lines::start(pool, concurrency, &stopping, &sender);
                (feeds, programs, false)
            }
            Mode::Http(hook) => (hook::start(hook, concurrency, &stopping, &sender), Vec::new(), true),
        };
        let parts = Parts {
            urls,
            wanted,
            slots: Slots::new(feeds, pipeline, are_up),
            reports,
            programs,
            stop,
            log,
            metrics,
            grace: time(flags.grace),
            idle: flags.stop_when_idle.map(time),
            replies: flags.reply,
        };
        Runner::new(parts).run().await
    });
    // Whatever still waits for a file or a name is not waited for.
    runtime.shutdown_background();
    ended
}

fn mode(flags: &Flags) -> Result<Mode, String> {
    let limits = Limits { memory_bytes: flags.memory, cpu_seconds: flags.cpu_time.map(|time| time.0.div_ceil(1000)) };
    if !Limits::SUPPORTED && (limits.memory_bytes.is_some() || limits.cpu_seconds.is_some()) {
        return Err("--memory and --cpu-time need Linux".to_owned());
    }
    let timeout = flags.timeout.map(time);
    if flags.mode == Kind::Http {
        let [url] = &flags.command[..] else {
            return Err("--mode http takes one URL and nothing else".to_owned());
        };
        if flags.memory.is_some() || flags.cpu_time.is_some() {
            return Err("--memory and --cpu-time are limits of programs, and a web hook is none".to_owned());
        }
        let headers: HeaderMap = flags.http_header.iter().cloned().collect();
        return Ok(Mode::Http(Arc::new(Hook {
            address: url.to_string_lossy().parse()?,
            headers,
            timeout: timeout.unwrap_or(HOOK_TIMEOUT),
            retry: flags.retry_statuses.clone(),
            dead: flags.dead_statuses.clone(),
            reply_bytes_max: flags.reply.then_some(REPLY_BYTES_MAX),
            tls: Tls { authorities: flags.ca_file.clone(), ..Tls::default() },
        })));
    }
    let template = Template::new(&flags.command).map_err(|error| error.to_string())?;
    if flags.mode == Kind::Lines {
        if limits.cpu_seconds.is_some() {
            return Err("--cpu-time is a limit of one job, and a program of --mode lines has many".to_owned());
        }
        return Ok(Mode::Lines(Arc::new(Pool {
            template,
            timeout,
            limits,
            passes: flags.output == Output::Pass,
            wants_replies: flags.reply,
        })));
    }
    let others = if flags.other_codes == Other::Retry { Verdict::Retry } else { Verdict::Dead };
    Ok(Mode::Process(Arc::new(Plan {
        template,
        timeout,
        limits,
        judge: Judge { retry: flags.retry_codes.clone(), dead: flags.dead_codes.clone(), others },
        pass_bytes_max: (flags.output == Output::Pass).then_some(flags.output_max),
        reply_bytes_max: flags.reply.then_some(REPLY_BYTES_MAX),
    })))
}

fn time(time: Milliseconds) -> Duration {
    Duration::from_millis(time.0)
}

/// A time that leaves room to extend it in time.
fn lease(text: &str) -> Result<Milliseconds, String> {
    let lease: Milliseconds = text.parse()?;
    if lease.0 < 2_000 { Err("a lease of less than 2s cannot be extended in time".to_owned()) } else { Ok(lease) }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

const HELP: &str = "\
The body is on standard input, or where {} stands. Exit code 0 acknowledges the job, 65 makes it a dead letter, any other
code, a signal and --timeout have it tried again after the queue's pause. What a job wrote last to standard error stays with
it. A line `::progress 40 resizing` there says how far it is.

SIGTERM and SIGINT end the runner when its jobs have ended, after --grace at the latest; a second one at once. Exit codes: 0
all jobs have ended; 75 some were ended and went back; 64 wrong command line; 69 no such queue; 77 not let in; 130 and 143 by
a second signal.

Examples:
  leveret work --queue mails --declare -- ./send-mail
  leveret work --queue urgent=3 --queue bulk --concurrency 8 --timeout 5m -- convert - '{header.name}.png'
  leveret work --queue events --mode lines --concurrency 2 --pipeline 100 -- python3 worker.py
  leveret work --queue hooks --mode http --concurrency 50 -- https://example.org/jobs";
