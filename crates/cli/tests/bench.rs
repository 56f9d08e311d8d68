//! `leveret bench` against a server: what each load tells, and that it leaves nothing behind.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const EPHEMERAL: &str = "127.0.0.1:0";

/// A server on ports of its own.
struct Server {
    child: Child,
    url: String,
    http: String,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = leveret();
        command.args(["serve", "--amqp", EPHEMERAL, "--http", EPHEMERAL, "--metrics", EPHEMERAL, "--data-dir"]);
        let mut child = command.arg(directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let after = |word| ready.split_once(word).unwrap().1.split([',', ' ']).next().unwrap();
        let (url, http) = (format!("amqp://{}", after("AMQP on ")), after("HTTP on ").to_owned());
        Self { child, url, http, _directory: directory }
    }

    /// Runs a load to its end; its JSON.
    fn bench(&self, line: &str) -> Value {
        let output = self.bench_output(line);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {told}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn bench_output(&self, line: &str) -> Output {
        let pid = self.child.id().to_string();
        let mut command = leveret();
        command.arg("bench").args(line.split(' ')).args(["--url", &self.url, "--pid", &pid, "--json"]);
        command.output().unwrap()
    }

    /// The first broker's figure.
    fn figure(told: &Value, key: &str) -> f64 {
        told["brokers"][0]["figures"][key].as_f64().unwrap_or_else(|| panic!("no {key} in {told}"))
    }

    /// The names of all queues.
    fn queues(&self) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        // guest:guest
        let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=";
        write!(
            stream,
            "GET /api/queues?columns=name HTTP/1.1\r\nHost: localhost\r\n{login}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

fn leveret() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stderr(Stdio::piped());
    command
}

fn run_command(data_dir: &str) -> String {
    let program = env!("CARGO_BIN_EXE_leveret");
    format!("{program} serve --amqp 127.0.0.1:{{port}} --http {EPHEMERAL} --metrics {EPHEMERAL} --data-dir {data_dir}")
}

#[test]
fn every_message_is_counted_whatever_way_it_goes() {
    let server = Server::start();
    for way in [
        "",
        " --producers 3 --consumers 2 --queues 6",
        " --exchange direct --queues 4 --keys 2",
        " --exchange fanout --queues 3",
        " --exchange topic --queues 2 --bindings 10",
        " --exchange headers --queues 2",
        " --confirm 100 --persistent --durable --ack each --prefetch 10",
        " --size 200000 --ack 3",
        " --size 0 --threads 2 --producers 5 --consumers 5",
    ] {
        let told = server.bench(&format!("throughput --messages 600{way}"));
        let messages = &told["brokers"][0]["runs"][0]["messages"];
        let fan_out = if way.contains("fanout") {
            3
        } else if way.contains("--keys") {
            2
        } else {
            1
        };
        assert_eq!(
            (messages["published"].as_u64(), messages["consumed"].as_u64()),
            (Some(600), Some(600 * fan_out)),
            "{way}"
        );
        if way.contains("--confirm") {
            assert_eq!(messages["confirmed"], 600, "{way}");
        }
        assert!(Server::figure(&told, "broker_cpu_us") >= 0.0 && Server::figure(&told, "broker_bytes") > 1e6);
    }
    assert_eq!(server.queues().trim(), "[]");
}

#[test]
fn a_rate_is_kept_and_each_message_timed() {
    let server = Server::start();
    let told = server.bench("latency --rate 500 --producers 2 --messages 1000");
    let run = &told["brokers"][0]["runs"][0];
    assert_eq!(run["timed_messages"], 1000);
    let figure = |key| Server::figure(&told, key);
    assert!(figure("latency_p50_ns") > 0.0 && figure("latency_p50_ns") <= figure("latency_max_ns"));
    // 500 messages of each producer take a second, less the first.
    let rate = figure("published_per_s");
    assert!((300.0..=1010.0).contains(&rate), "{rate}");
}

#[test]
fn churn_backlog_and_idle_connections_are_measured() {
    let server = Server::start();
    for what in ["connections", "channels", "queues --clients 3", "bindings --clients 2", "queues --transient"] {
        let told = server.bench(&format!("churn {what} --seconds 1"));
        assert!(Server::figure(&told, "per_s") > 0.0 && Server::figure(&told, "one_p99_ns") > 0.0, "{what}");
    }
    let told = server.bench("backlog --messages 5000 --ack each --prefetch 100");
    assert!(Server::figure(&told, "fill_per_s") > 0.0 && Server::figure(&told, "drain_per_s") > 0.0);
    let told = server.bench("queues --count 250 --hold 0");
    assert!(Server::figure(&told, "declared_per_s") > 0.0 && Server::figure(&told, "deleted_per_s") > 0.0);
    let told = server.bench("connections --count 50 --hold 0");
    assert!(Server::figure(&told, "opened_per_s") > 0.0);
}

#[test]
fn a_broker_of_its_own_is_killed_and_keeps_what_was_durable() {
    let server = Server::start();
    let mut command = leveret();
    command.args([
        "bench",
        "backlog",
        "--persistent",
        "--messages",
        "3000",
        "--json",
        "--start",
        &run_command("{dir}"),
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(Server::figure(&told, "ready_after_start"), 3000.0);
    assert!(Server::figure(&told, "start_s") > 0.0);
    drop(server);
}

#[test]
fn two_brokers_are_set_against_each_other() {
    let (one, two) = (Server::start(), Server::start());
    let told = one.bench(&format!("throughput --messages 500 --rounds 2 --compare {}", two.url));
    assert_eq!(told["brokers"].as_array().unwrap().len(), 2);
    assert_eq!(told["brokers"][1]["runs"].as_array().unwrap().len(), 2);
    assert!(told["ratios"]["consumed_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_cannot_be_measured_is_said_and_why() {
    let server = Server::start();
    for (line, said) in [
        ("throughput --producers 0 --consumers 0", "nothing to do"),
        ("latency --size 4", "a timestamp takes 8 bytes"),
        ("throughput --ack 50 --prefetch 10", "--ack 50 never comes with --prefetch 10"),
        ("throughput --exchange direct --queues 3 --keys 2", "--queues 3 is no multiple of --keys 2"),
        ("throughput --argument x-queue-type=nonsense", "a queue was refused"),
    ] {
        let output = server.bench_output(line);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(said), "{line}: {told}");
    }
    let mut command = leveret();
    let output = command.args(["bench", "throughput", "--url", "amqp://127.0.0.1:1"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no connection to 127.0.0.1:1"), "{told}");
}

#[test]
fn an_interrupt_tells_what_was_measured_and_leaves_no_queue() {
    let server = Server::start();
    let mut command = leveret();
    command.args(["bench", "throughput", "--seconds", "600", "--warm-up", "0", "--json", "--url", &server.url]);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    progress.read_line(&mut line).unwrap();
    assert!(line.contains("published"), "{line}");
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut told = String::new();
    running.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(running.wait().unwrap().success());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(Server::figure(&told, "consumed_per_s") > 0.0);
    assert_eq!(server.queues().trim(), "[]");
}

#[test]
fn a_quick_suite_writes_a_document_with_data_and_charts() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("result/benchmarks.md");
    let server = Server::start();
    let mut command = leveret();
    command.args(["bench", "suite", "--quick", "--messages", "2000", "--only", "small,backlog,latency,bindings"]);
    command.args(["--note", "A test.", "--broker", &format!("running={}", server.url)]);
    command.args(["--start", &format!("started={}", run_command("{dir}")), "--out"]).arg(&out);
    let output = command.arg("--dir").arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("A test.") && text.contains("Leveret") && !text.contains("failed"), "{text}");
    let data: Value = serde_json::from_slice(&std::fs::read(out.with_extension("json")).unwrap()).unwrap();
    assert_eq!(data["rows"].as_array().unwrap().len(), 4);
    let results = data["rows"][1]["results"].as_array().unwrap();
    assert!(results[0]["median"]["start_s"].as_f64().unwrap() > 0.0, "{results:?}");
    for chart in ["throughput", "cpu", "latency", "topology", "footprint"] {
        let file = out.with_file_name(format!("benchmarks-{chart}.svg"));
        assert!(std::fs::read_to_string(&file).unwrap_or_default().ends_with("</svg>\n"), "{}", file.display());
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "only the result is left");
    draw_again(&out);
}

fn draw_again(out: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = leveret();
    command.args(["bench", "report"]).arg(out.with_extension("json")).arg("--out").arg(folder.path());
    assert!(command.output().unwrap().status.success());
    assert!(folder.path().join("benchmarks-throughput.svg").is_file());
}
