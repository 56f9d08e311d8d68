//! `leveret config`, and a server whose configuration changes.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn leveret(arguments: &[&str]) -> (String, String, Option<i32>) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_leveret")).env_clear().args(arguments).output().unwrap();
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), status.code())
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_right_file_is_right_and_a_wrong_one_says_where_and_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str| leveret(&["config", "check", &write(directory.path(), name, text)]);
    let (out, err, code) = check("a.toml", "heartbeat_s = 20\n");
    assert!(out.ends_with("a.toml is right\n"), "{out}");
    assert_eq!((err.as_str(), code), ("", Some(0)));
    for (name, text, expected) in [
        ("b.toml", "\nheartbeats = 20\n", &["b.toml", "line 2", "unknown field `heartbeats`", "`heartbeat_s`"][..]),
        ("c.toml", "frame_max = 1\n", &["c.toml, line 1: frame_max = 1", "from 4096 to 16777216"]),
        ("d.toml", "log = 'loud'\n", &["line 1", "log = 'loud'", "`off`, `error`"]),
        (
            "e.conf",
            "\nheartbeat = x\nproxy_protocol = 1",
            &["line 2: heartbeat: \"x\"", "line 3: proxy_protocol: \"1\""],
        ),
        ("f.conf", "\nframe_max = 1", &["f.conf, line 2: frame_max = 1 is out of range"]),
        (
            "g.toml",
            "amqps = '127.0.0.1:0'\ntls_certificate = '/nowhere'\ntls_key = '/nowhere'",
            &["/nowhere: it cannot be read"],
        ),
    ] {
        let (out, err, code) = check(name, text);
        assert_eq!((out.as_str(), code), ("", Some(78)), "{err}");
        assert!(expected.iter().all(|part| err.contains(part)), "{err}");
    }
    assert_eq!(leveret(&["config", "check", "/nowhere.toml"]).2, Some(66));
}

#[test]
fn a_rabbitmq_conf_is_read_as_it_is_and_names_what_means_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let text = "heartbeat = 20\ncluster_name = rabbit # ours\nlisteners.tcp.default = 5673\n";
    let path = write(directory.path(), "rabbitmq.conf", text);
    let (out, err, code) = leveret(&["config", "check", &path]);
    assert!(out.ends_with("rabbitmq.conf is right, with 1 warning\n"), "{out}");
    assert!(
        err.ends_with("rabbitmq.conf, line 2: cluster_name is not used: there is one node and no cluster\n"),
        "{err}"
    );
    assert_eq!(code, Some(0));
    let (out, _, code) = leveret(&["config", "show", "--config", &path, "--shards", "2"]);
    let has = |line: &str| out.lines().any(|other| other == line);
    assert!(has(&format!("heartbeat_s = 20 # {path}, line 1")), "{out}");
    assert!(has(&format!("amqp = [\"0.0.0.0:5673\",\"[::]:5673\"] # {path}, line 3")), "{out}");
    assert!(has("shards = 2 # the command line or environment") && has("log = \"info\" # default"), "{out}");
    assert_eq!(code, Some(0));
}

struct Running {
    child: Child,
    directory: tempfile::TempDir,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = write(directory.path(), "leveret.toml", text);
        let ports = ["--amqp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_leveret"))
            .env_clear()
            .args(ports)
            .args(["--config", &config, "--data-dir"])
            .arg(directory.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.contains("is ready"), "{ready}");
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, directory, log }
    }

    fn say(&self, text: &str) {
        write(self.directory.path(), "leveret.toml", text);
    }

    /// The next line of the log that has this.
    fn logs(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the server ended");
            if line.contains(part) {
                return line;
            }
        }
    }

    fn hang_up(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

#[test]
fn a_server_reads_its_file_anew_on_a_hangup_and_when_it_is_told_to() {
    let mut server = Running::start("heartbeat_s = 20\nlog = 'error'\n");
    server.say("heartbeat_s = 30\nlog = 'debug'\nshards = 4\n");
    server.hang_up();
    let line = server.logs("the configuration was read anew");
    assert!(line.contains("changed: heartbeat_s, log"), "{line}");
    server.logs("these keys take a restart: shards");
    server.say("heartbeat = 40\n");
    server.hang_up();
    let line = server.logs("is not reloaded, and nothing is changed");
    assert!(line.contains("leveret.toml"), "{line}");

    let data_dir = server.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    server.say("heartbeat_s = 40\nlog = 'debug'\n");
    let ctl = || leveret(&["ctl", "--data-dir", data_dir, "reload_config"]);
    let (out, err, code) = ctl();
    assert!(out.ends_with(" ...\nChanged: heartbeat_s\n"), "{out}{err}");
    assert_eq!(code, Some(0));
    server.say("heartbeat_s = 'often'\n");
    let (_, err, code) = ctl();
    assert!(err.starts_with("Error:\n") && err.contains("heartbeat_s = 'often'"), "{err}");
    assert_eq!(code, Some(78));
    let (out, ..) = {
        server.say("heartbeat_s = 40\nlog = 'debug'\n");
        ctl()
    };
    assert!(out.ends_with("No key has changed; certificates were read anew\n"), "{out}");
}
