//! Another load on the same broker, so that what it does to those who have nothing to do with it can be measured.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::broker_url::BrokerUrl;

/// A load that runs, in a process of its own. Ended when dropped, as by Ctrl-C, so that it takes its queues with it.
#[derive(Debug)]
pub(super) struct Beside {
    child: Child,
}

impl Beside {
    /// Starts it and waits until it has run for a second. `words` are its command line, without `leveret bench` and the
    /// broker.
    pub(super) fn start(words: &[String], url: &BrokerUrl) -> Result<Self> {
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let mut command = Command::new(program);
        command.arg("bench").args(words).arg("--url").arg(url.in_full());
        // In a group of its own, so that Ctrl-C is not for it before it is for this one.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut beside = Self { child: command.spawn().context("the other load could not be started")? };
        let told = beside.child.stderr.take().context("its standard error is piped")?;
        let mut lines = BufReader::new(told).lines();
        let mut last = "nothing".to_owned();
        for line in &mut lines {
            last = line?;
            if last.trim_start_matches("bench:").trim_start().starts_with("1 s ") {
                // It must not stand still because nobody reads what it says.
                thread::spawn(move || lines.for_each(drop));
                return Ok(beside);
            }
        }
        bail!("the load beside this one ended before its first second, and said last: {last}")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(process) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself.
            let _ended = kill_process(process, Signal::INT);
        }
        let _reaped = self.child.wait();
    }
}
