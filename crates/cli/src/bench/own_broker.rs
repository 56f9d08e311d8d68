//! A broker that a measurement starts for itself by a command line, with a data directory that is gone when the
//! measurement is.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::broker::Broker;
use super::broker_url::BrokerUrl;
use super::connection::Connection;
use super::processes::Processes;

/// A broker that runs, and all that it started. Killed when dropped, and its data removed.
#[derive(Debug)]
pub(super) struct OwnBroker {
    command: String,
    child: Child,
    dir: PathBuf,
    url: BrokerUrl,
    /// From its start until a client was let in.
    start_time: Duration,
}

impl OwnBroker {
    /// Starts a broker with a new data directory below `parent`.
    ///
    /// In its command line `{dir}` stands for the directory, `{port}` for a free port to speak AMQP on at 127.0.0.1, and
    /// `{port+1}` to `{port+9}` for others.
    pub(super) fn start(template: &str, parent: &Path) -> Result<Self> {
        let dir = (0..)
            .map(|number: u32| parent.join(format!("leveret-bench-{}-{number}", std::process::id())))
            .find(|path| !path.exists())
            .context("there is always a free number")?;
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let port = free_ports()?;
        let mut command = template.replace("{port}", &port.to_string()).replace("{dir}", &dir.display().to_string());
        for number in 1..PORTS {
            command = command.replace(&format!("{{port+{number}}}"), &(port + number).to_string());
        }
        let url = BrokerUrl { port, ..default_url()? };
        let child = spawn(&command, &dir)?;
        let mut started = Self { command, child, dir, url, start_time: Duration::ZERO };
        started.await_ready()?;
        Ok(started)
    }

    /// As load runs against it.
    pub(super) fn broker(&self) -> Broker {
        Broker { url: self.url.clone(), processes: Processes::new(&[self.child.id()]) }
    }

    /// From its start until a client was let in.
    pub(super) fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Kills it as SIGKILL does, and starts it again on the same directory.
    pub(super) fn kill_and_start(&mut self) -> Result<()> {
        self.kill();
        self.child = spawn(&self.command, &self.dir)?;
        self.await_ready()
    }

    fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself.
            let _ended = kill_process_group(group, Signal::KILL);
        }
        let _reaped = self.child.wait();
    }

    /// Waits until a client is let in.
    #[expect(clippy::disallowed_methods, reason = "nobody tells when another's socket begins to listen")]
    fn await_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            match Connection::open(&self.url, "leveret bench start") {
                Ok(connection) => {
                    self.start_time = began.elapsed();
                    return connection.close();
                }
                Err(error) if began.elapsed() > START_MAX => {
                    return Err(error.context(format!(
                        "the broker let nobody in for {} s, and said last: {}\nIt was started as: {}",
                        START_MAX.as_secs(),
                        self.said(),
                        self.command
                    )));
                }
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the broker ended with {status}, and said last: {}\nIt was started as: {}",
                    self.said(),
                    self.command
                );
            }
            thread::sleep(AGAIN);
        }
    }

    /// The last line that it printed.
    fn said(&self) -> String {
        let said = fs::read(self.dir.join(OUTPUT)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SAID_BYTES)..]).into_owned();
        said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned()
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.kill();
        // Left behind at worst, where temporary files are looked for.
        let _left = fs::remove_dir_all(&self.dir);
    }
}

fn spawn(command: &str, dir: &Path) -> Result<Child> {
    let output = fs::File::create(dir.join(OUTPUT))?;
    let mut shell = Command::new("sh");
    // A group of its own, so that it can be ended with all that it starts, and Ctrl-C is not for it.
    shell.arg("-c").arg(format!("exec {command}")).stdin(Stdio::null()).process_group(0);
    shell.stdout(output.try_clone()?).stderr(output);
    shell.spawn().context("no shell (sh) to start a broker with")
}

/// The first of some ports in a row that nobody uses.
///
/// They are not asked of the system: it gives those that clients get too, and after a churn of connections many of them are
/// taken for a minute.
fn free_ports() -> Result<u16> {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Whoever else looks at the same time begins elsewhere.
    let begin = std::process::id() as u16 % PORT_ROWS;
    let mut firsts = (0..PORT_ROWS).map(|row| FIRST_PORT + (begin + row) % PORT_ROWS * PORTS);
    firsts
        .find(|&first| (first..first + PORTS).all(is_free))
        .with_context(|| format!("no {PORTS} free ports in a row on 127.0.0.1, from {FIRST_PORT} on"))
}

fn default_url() -> Result<BrokerUrl> {
    "amqp://127.0.0.1".parse().map_err(anyhow::Error::msg)
}

/// Where a broker's output goes, in its directory.
const OUTPUT: &str = "output-of-bench";

const PORTS: u16 = 10;

/// Below the ports that Linux gives to clients, as are all that follow.
const FIRST_PORT: u16 = 23_500;

const PORT_ROWS: u16 = 800;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(180);

/// How long after a try to connect comes the next.
const AGAIN: Duration = Duration::from_millis(1);

const SAID_BYTES: usize = 2000;
