//! A server that a measurement starts for itself: this same program, on free loopback ports, with a data directory that
//! is gone when the measurement is. Its memory and its writes are read from Linux's `/proc`.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::Advice;
use rustix::process::{Pid, Signal, kill_process};

use super::super::broker_url::BrokerUrl;

/// A data directory, removed when dropped.
#[derive(Debug)]
pub(super) struct DataDir(PathBuf);

impl DataDir {
    /// A new one below `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self> {
        let path = (0..)
            .map(|number: u32| parent.join(format!("leveret-bench-{}-{number}", std::process::id())))
            .find(|path| !path.exists())
            .context("there is always a free number")?;
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// What its files take of the disk.
    pub(super) fn disk_bytes(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let sizes = self.files()?.into_iter().map(|file| match fs::metadata(file) {
            Ok(file) => Ok(file.blocks() * 512),
            // Removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        });
        sizes.sum()
    }

    /// Makes the next read of any file one of the disk.
    pub(super) fn drop_from_cache(&self) -> Result<()> {
        for file in self.files()?.into_iter().filter(|file| file.extension().is_some()) {
            let Ok(file) = fs::File::open(file) else { continue };
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let (mut files, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() { &mut folders } else { &mut files }.push(entry.path());
            }
        }
        Ok(files)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Left behind at worst, where temporary files are looked for.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub(super) struct OwnServer {
    child: Child,
    /// Where it listens.
    pub(super) url: BrokerUrl,
    /// From its start to the line that says it is ready.
    pub(super) start_time: Duration,
}

/// Resident memory of a server in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Now.
    pub(super) resident_mib: f64,
    /// The most there was.
    pub(super) peak_mib: f64,
}

impl OwnServer {
    /// Starts one and waits until it is ready.
    pub(super) fn start(data: &DataDir) -> Result<Self> {
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--log", "warn", "--consumer-timeout-ms", "0"])
            .args(["--amqp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir"])
            .arg(&data.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the server could not be started")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut started = Self { child, url: default_url()?, start_time: Duration::ZERO };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        started.start_time = began.elapsed();
        let port = line.split_once("AMQP on 127.0.0.1:").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        started.url.port = port.with_context(|| format!("the server did not become ready: {line:?}"))?;
        Ok(started)
    }

    /// As SIGKILL does.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// As SIGTERM does.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server stopped with {status}");
        Ok(())
    }

    /// What it takes of the machine's memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        let status = self.proc_file("status")?;
        let mib = |key| number_after(&status, key).map(|kib| kib as f64 / 1024.0);
        Ok(Memory { resident_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
    }

    /// How many bytes it has caused to be written to the disk so far.
    pub(super) fn written_bytes(&self) -> Result<u64> {
        number_after(&self.proc_file("io")?, "\nwrite_bytes:")
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).context("this needs Linux's /proc")
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It has ended already when it was killed or stopped on purpose.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn default_url() -> Result<BrokerUrl> {
    "amqp://127.0.0.1".parse().map_err(anyhow::Error::msg)
}

fn number_after(text: &str, key: &str) -> Result<u64> {
    let number = text.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("/proc tells no {key}"))
}
