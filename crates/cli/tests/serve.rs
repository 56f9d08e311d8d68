//! `leveret serve` as a process: what it prints, what it exits with, how it stops.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

const EPHEMERAL: &str = "127.0.0.1:0";

/// A server on ports of its own.
fn leveret(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.env_clear().args(["--amqp", EPHEMERAL, "--http", EPHEMERAL, "--metrics", EPHEMERAL, "--data-dir"]);
    command.arg(data_dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        Self { child, stdout, ready }
    }

    fn amqp(&self) -> SocketAddr {
        let (_, after) = self.ready.split_once("AMQP on ").unwrap();
        after.split([',', ' ']).next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it printed after the first line, and how it ended.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

fn refused(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!((status.code(), stdout.as_slice()), (Some(1), &b""[..]));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn it_says_when_it_is_ready_and_stops_on_either_signal() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(leveret(&directory.path().join("data")));
        let expected = format!("Leveret {} is ready: AMQP on 127.0.0.1:", env!("CARGO_PKG_VERSION"));
        assert!(running.ready.starts_with(&expected), "{}", running.ready);
        assert!(running.ready.contains(" (0 queues, 0 messages, "), "{}", running.ready);
        TcpStream::connect(running.amqp()).unwrap();
        running.signal(signal);
        let (rest, code) = running.end();
        assert_eq!((rest.as_str(), code), ("", Some(0)));
    }
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let mut command = leveret(&directory.path().join("data"));
    command.env("NOTIFY_SOCKET", &socket);
    let running = Running::start(command);
    let told = || {
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(running.end().1, Some(0));
}

#[test]
fn a_second_server_on_the_same_directory_is_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(leveret(directory.path()));
    let refused = refused(leveret(directory.path()));
    assert!(refused.contains(&format!("in use by process {} (started ", running.child.id())), "{refused}");
    assert_eq!(refused.trim_end().lines().count(), 1, "{refused}");
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(leveret(directory.path()));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    Running::start(leveret(directory.path()));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(EPHEMERAL).unwrap();
    let mut command = leveret(directory.path());
    command.args(["--amqp", &taken.local_addr().unwrap().to_string()]);
    let refused = refused(command);
    let expected = format!("leveret: port {} on 127.0.0.1 is in use", taken.local_addr().unwrap().port());
    assert!(refused.starts_with(&expected) && refused.contains("--amqp ADDR:PORT"), "{refused}");
}

#[test]
fn it_listens_on_both_ip_versions_at_one_port() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // a machine without IPv6
    }
    let directory = tempfile::tempdir().unwrap();
    let free = TcpListener::bind(EPHEMERAL).unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.env_clear().env("LEVERET_AMQP", format!("0.0.0.0:{free},[::]:{free}"));
    command.args(["--http", EPHEMERAL, "--metrics", EPHEMERAL, "--data-dir"]).arg(directory.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(command);
    assert!(running.ready.contains(&format!("AMQP on 0.0.0.0:{free} and [::]:{free}, ")), "{}", running.ready);
    TcpStream::connect(("127.0.0.1", free)).unwrap();
    TcpStream::connect(("::1", free)).unwrap();
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leveret.toml");
    let data_dir = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(&file, format!("data_dir = '{}'\namqp = '{EPHEMERAL}'\nhttp = []\nmetrics = []", data_dir("file")))
        .unwrap();
    let ready = |flag: Option<&str>, environment: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.env_clear().arg("serve").arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(environment.map(|name| ("LEVERET_DATA_DIR", data_dir(name))));
        command.args(flag.map(|name| format!("--data-dir={}", data_dir(name))));
        Running::start(command).ready.clone()
    };
    let cases =
        [(Some("flag"), Some("environment"), "flag"), (None, Some("environment"), "environment"), (None, None, "file")];
    for (flag, environment, winner) in cases {
        let line = ready(flag, environment);
        assert!(line.contains(&format!("data in {} (", data_dir(winner))), "{line}");
        assert!(!line.contains("HTTP"), "{line}");
    }
}

#[test]
fn a_wrong_key_or_value_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leveret.toml");
    std::fs::write(&file, "heartbeat = 5").unwrap();
    let data_dir = directory.path().join("data");
    let mut command = leveret(&data_dir);
    command.arg("--config").arg(&file);
    let refused = refused(command);
    assert!(refused.contains("leveret.toml") && refused.contains("`heartbeat_s`"), "{refused}");
    let mut command = leveret(&data_dir);
    let Output { status, stderr, .. } = command.args(["--http", "nowhere"]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("\"nowhere\" is not ADDR:PORT"), "{stderr}");
    assert!(!data_dir.exists());
}

#[test]
fn a_client_that_is_connected_at_the_stop_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(leveret(directory.path()));
    let mut client = TcpStream::connect(running.amqp()).unwrap();
    client.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let mut first = [0];
    client.read_exact(&mut first).unwrap();
    running.signal(rustix::process::Signal::TERM);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(running.end().1, Some(0));
}

#[test]
fn logs_are_objects_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = leveret(directory.path());
    command.args(["--log", "info", "--log-format", "json"]);
    let mut running = Running::start(command);
    let mut stderr = running.child.stderr.take().unwrap();
    running.signal(rustix::process::Signal::TERM);
    let mut lines = String::new();
    stderr.read_to_string(&mut lines).unwrap();
    assert_eq!(running.end().1, Some(0));
    let logged: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stopping = logged.last().unwrap();
    assert_eq!(stopping["level"], "INFO", "{lines}");
    assert!(stopping["message"].as_str().unwrap().starts_with("stopping: ") && stopping["timestamp"].is_string());
}
