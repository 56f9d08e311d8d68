//! `leveret publish` against the real server: what each option makes of a message, what is told where something is not taken,
//! and that no job is lost or, where the queue deduplicates, there twice, whoever is killed in the middle.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server with a data directory, and ports that stay the same.
struct Desk {
    server: Child,
    ports: [u16; 3],
    directory: TempDir,
    /// What the server is started with besides.
    extra: Vec<String>,
}

impl Desk {
    fn open() -> Self {
        Self::with(tempfile::tempdir().unwrap(), Vec::new())
    }

    fn with(directory: TempDir, extra: Vec<String>) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = [free(), free(), free()].map(|listener| listener.local_addr().unwrap().port());
        let server = start(&directory, ports, &extra);
        Self { server, ports, directory, extra }
    }

    fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.server = start(&self.directory, self.ports, &self.extra);
    }

    /// A request to the API; the document that comes back.
    fn http(&self, method: &str, path: &str, document: &Value) -> Value {
        let body = document.to_string();
        let mut socket = TcpStream::connect(("127.0.0.1", self.ports[1])).unwrap();
        let head = format!(
            "{method} /api{path} HTTP/1.0\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.0 2") || answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_default()
    }

    fn queue(&self, name: &str, arguments: Value) {
        self.http("PUT", &format!("/queues/%2F/{name}"), &json!({"durable": true, "arguments": arguments}));
    }

    /// All messages of a queue.
    fn messages(&self, queue: &str, state: &str) -> Vec<Value> {
        let (mut messages, mut place) = (Vec::new(), format!("state={state}"));
        loop {
            let page = self.http("GET", &format!("/queues/%2F/{queue}/messages?count=10000&{place}"), &Value::Null);
            messages.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => place = format!("from={next}"),
                None => return messages,
            }
        }
    }

    /// How often each body is in a queue.
    fn bodies(&self, queue: &str) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for message in self.messages(queue, "ready") {
            *counts.entry(message["payload"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }

    fn depth(&self, queue: &str) -> u64 {
        self.http("GET", &format!("/queues/%2F/{queue}"), &Value::Null)["messages_ready"].as_u64().unwrap()
    }

    fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.ports[0])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.env_clear().env("LEVERET_URL", self.url()).arg("publish").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Publishes with this on standard input.
    fn publish(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that has seen enough closes it.
        let _enough = stdin.write_all(input.as_bytes());
        drop(stdin);
        finish(child)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Waits until a queue has so many, or the program has ended.
    fn wait_for(&self, queue: &str, count: u64, child: &mut Child) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.depth(queue) < count && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{count} messages never came");
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ended_already = self.server.kill();
        let _reaped_already = self.server.wait();
    }
}

fn start(directory: &TempDir, [amqp, http, metrics]: [u16; 3], extra: &[String]) -> Child {
    let mut server = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .env_clear()
        .args(["--amqp", &format!("127.0.0.1:{amqp}"), "--http", &format!("127.0.0.1:{http}")])
        .args(["--metrics", &format!("127.0.0.1:{metrics}"), "--log", "off", "--data-dir"])
        .arg(directory.path().join("data"))
        .args(extra)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    server
}

/// How a run ended, and what it told.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    err: String,
}

fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let status: ExitStatus = output.status;
    assert!(output.stdout.is_empty(), "all is told on standard error: {output:?}");
    Ran { code: status.code(), err: String::from_utf8(output.stderr).unwrap() }
}

fn lines(count: u64) -> String {
    (1..=count).map(|number| format!("job {number}\n")).collect()
}

/// Every line once, or at most so many of them twice.
fn assert_all_there(bodies: &HashMap<String, u64>, count: u64, twice_max: u64) {
    for number in 1..=count {
        assert!(bodies.contains_key(&format!("job {number}")), "job {number} is lost");
    }
    let twice: u64 = bodies.values().map(|count| count - 1).sum();
    assert!(twice <= twice_max && bodies.len() as u64 == count, "{twice} are there twice");
}

#[test]
fn every_option_is_a_property_or_a_header() {
    let desk = Desk::open();
    desk.queue("q", json!({"x-max-priority": 9}));
    let options = [
        "--queue",
        "q",
        "--header",
        "a=b",
        "--header",
        "n:=3",
        "--header",
        "yes:=true",
        "--priority",
        "7",
        "--expiration",
        "1h",
        "--dedup-key",
        "key",
        "--message-id",
        "m",
        "--correlation-id",
        "c",
        "--reply-to",
        "r",
        "--type",
        "t",
        "--content-type",
        "text/plain",
        "--content-encoding",
        "identity",
        "--app-id",
        "test",
        "hello",
    ];
    let ran = desk.publish(&options, "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let message = &desk.messages("q", "ready")[0];
    assert_eq!(message["payload"], "hello");
    let expected = json!({
        "headers": {"a": "b", "n": 3, "yes": true, "x-deduplication-header": "key"},
        "priority": 7, "expiration": "3600000", "message_id": "m", "correlation_id": "c", "reply_to": "r", "type": "t",
        "content_type": "text/plain", "content_encoding": "identity", "app_id": "test", "delivery_mode": 2,
    });
    assert_eq!(message["properties"], expected);

    assert_eq!(desk.publish(&["--queue", "q", "--delay", "1h", "--transient"], "later").code, Some(0));
    let delayed = &desk.messages("q", "delayed")[0];
    assert_eq!((&delayed["payload"], &delayed["properties"]["delivery_mode"]), (&json!("later"), &json!(1)));
    assert_eq!(delayed["properties"]["headers"]["x-delay"], -3_600_000);
}

#[test]
fn jobs_come_from_arguments_files_lines_and_objects() {
    let desk = Desk::open();
    desk.queue("q", json!({}));
    desk.http("POST", "/bindings/%2F/e/amq.direct/q/q", &json!({"routing_key": "q"}));
    let (one, two) = (desk.file("one", "a file\nof two lines\n"), desk.file("two", "x\n\ny"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let bodies = |ran: Ran| {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let bodies: Vec<_> = desk.messages("q", "ready").into_iter().map(|item| item["payload"].clone()).collect();
        desk.http("DELETE", "/queues/%2F/q/contents", &Value::Null);
        bodies
    };
    assert_eq!(bodies(desk.publish(&["--queue", "q", "a", "b"], "")), ["a", "b"]);
    assert_eq!(bodies(desk.publish(&["--queue", "q"], "whole\ninput\n")), ["whole\ninput\n"]);
    assert_eq!(bodies(desk.publish(&["--queue", "q", "--file", one], "")), ["a file\nof two lines\n"]);
    assert_eq!(
        bodies(desk.publish(&["--queue", "q", "--lines", "-f", one, "-f", two], "")),
        ["a file", "of two lines", "x", "y"]
    );
    assert_eq!(bodies(desk.publish(&["--queue", "q", "--lines", "--file", "-"], "1\n2\n")), ["1", "2"]);
    let objects = "{\"queue\": \"q\", \"body\": \"direct\"}\n{\"exchange\": \"amq.direct\", \"routing_key\": \"q\", \"body\": [1]}\n";
    assert_eq!(bodies(desk.publish(&["--json-lines"], objects)), ["direct", "[1]"]);
    assert_eq!(
        bodies(desk.publish(&["--exchange", "amq.direct", "--routing-key", "q", "--no-confirm", "x"], "")),
        ["x"]
    );
}

#[test]
fn what_is_not_taken_is_told_with_the_reason_and_a_code() {
    let desk = Desk::open();
    desk.queue("q", json!({}));
    desk.queue("full", json!({"x-max-length": 3, "x-overflow": "reject-publish"}));
    let nobody = "amqp://127.0.0.1:1";
    let wrong = format!("amqp://guest:wrong@127.0.0.1:{}", desk.ports[0]);
    for (arguments, input, code, words) in [
        (&["--queue", "nope", "x"][..], "", 65, "there is no queue \"nope\" (312 NO_ROUTE)"),
        (&["--exchange", "nope", "x"], "", 65, "404 NOT_FOUND - no exchange 'nope' in vhost '/'"),
        (
            &["--exchange", "amq.direct", "--routing-key", "k", "x"],
            "",
            65,
            "leads to no queue with the routing key \"k\"",
        ),
        (&["--queue", "nope", "--no-confirm", "x"], "", 65, "1 came back: there is no queue \"nope\""),
        (
            &["--queue", "full", "--lines"],
            "1\n2\n3\n4\n5\n",
            75,
            "line 4: the queue \"full\" is full and refuses more\n",
        ),
        (&["--queue", "q", "--json-lines"], "{\"body\": 1}\n\nnope\n", 65, "line 3: it is no JSON"),
        (&["--queue", "q", "--file", "/nope"], "", 66, "/nope: No such file"),
        (&["--queue", "q", "--url", nobody, "x"], "", 69, "no connection to amqp://127.0.0.1:1: Connection refused"),
        (&["--queue", "q", "--url", &wrong, "x"], "", 77, "403 ACCESS_REFUSED"),
        (&["x"], "", 64, "say where: --queue NAME"),
        (&["--queue", "q", "--delay", "soon", "x"], "", 64, "\"soon\" is no length of time"),
        (&["--queue", "q", "--lines", "--message-id", "m"], "", 64, "--dedup-key and --message-id are for one job"),
        (&["--queue", "q", "--resume", "f", "x"], "", 64, "--resume and --input-id are for --lines"),
    ] {
        let ran = desk.publish(arguments, input);
        assert!(ran.code == Some(code) && ran.err.contains(words), "{arguments:?}: {ran:?}");
    }
    assert_eq!((desk.depth("full"), desk.depth("q")), (3, 1), "what came before is there");
}

#[test]
fn the_next_url_is_tried_where_one_does_not_answer() {
    let desk = Desk::open();
    desk.queue("q", json!({}));
    let url = desk.url();
    assert_eq!(desk.publish(&["--url", "amqp://127.0.0.1:1", "--url", &url, "--queue", "q", "x"], "").code, Some(0));
    assert_eq!(desk.depth("q"), 1);
}

#[test]
fn a_broker_behind_tls_is_published_to_if_its_certificate_is_to_be_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let [certificate, key] = [certificate, key].map(|path| path.to_str().unwrap().to_owned());
    let extra =
        [("--amqps", format!("127.0.0.1:{port}")), ("--tls-certificate", certificate.clone()), ("--tls-key", key)];
    let extra = extra.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let desk = Desk::with(directory, extra);
    desk.queue("q", json!({}));
    let trusted = format!("amqps://localhost:{port}?cacertfile={certificate}");
    let ran = desk.publish(&["--queue", "q", "--url", &trusted, "--lines"], &lines(20_000));
    assert_eq!((ran.code, desk.depth("q")), (Some(0), 20_000), "{ran:?}");
    let other = format!("amqps://127.0.0.1:{port}?cacertfile={certificate}");
    let ran = desk.publish(&["--queue", "q", "--url", &other, "x"], "");
    assert!(ran.code == Some(69) && ran.err.contains("the certificate of 127.0.0.1 is not to be trusted"), "{ran:?}");
}

#[test]
fn very_many_lines_go_at_speed_and_none_is_missing() {
    const LINES: u64 = 1_000_000;
    let desk = Desk::open();
    desk.queue("q", json!({}));
    let began = Instant::now();
    let ran = desk.publish(&["--queue", "q", "--lines", "--window", "10000"], &lines(LINES));
    assert!(ran.code == Some(0) && ran.err.contains("1000000 confirmed in "), "{ran:?}");
    assert_eq!(desk.depth("q"), LINES);
    // Unoptimised programs take a twentieth of that where nobody else works.
    assert!(began.elapsed() < Duration::from_secs(400), "{:?}", began.elapsed());
}

#[test]
fn lines_that_trickle_in_are_not_held_back() {
    let desk = Desk::open();
    desk.queue("q", json!({}));
    let mut child = desk.command(&["--queue", "q", "--lines", "--quiet"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for count in 1..=3 {
        stdin.write_all(b"line\n").unwrap();
        desk.wait_for("q", count, &mut child);
    }
    drop(stdin);
    let ran = finish(child);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_broker_that_is_killed_and_comes_back_is_published_to_in_the_same_run() {
    const LINES: u64 = 60_000;
    let mut desk = Desk::open();
    desk.queue("plain", json!({}));
    desk.queue("unique", json!({"x-message-deduplication": true, "x-cache-size": LINES}));
    for (queue, twice_max) in [("plain", 1000), ("unique", 0)] {
        let file = desk.file("lines", &lines(LINES));
        let arguments = ["--queue", queue, "--input-id", "in", "--lines", "--file", file.to_str().unwrap()];
        let mut child = desk.command(&arguments).spawn().unwrap();
        desk.wait_for(queue, 2_000, &mut child);
        desk.kill();
        desk.start_again();
        let ran = finish(child);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("jobs were not confirmed yet, and are sent again"), "{ran:?}");
        assert_all_there(&desk.bodies(queue), LINES, twice_max);
    }
}

#[test]
fn another_run_goes_on_where_one_ended_with_its_broker() {
    const LINES: u64 = 60_000;
    let mut desk = Desk::open();
    desk.queue("plain", json!({}));
    desk.queue("unique", json!({"x-message-deduplication": true, "x-cache-size": LINES}));
    let file = desk.file("lines", &lines(LINES));
    for (queue, twice_max) in [("plain", 100), ("unique", 0)] {
        let state = desk.directory.path().join(format!("{queue}.state"));
        let arguments = [
            "--queue",
            queue,
            "--lines",
            "--file",
            file.to_str().unwrap(),
            "--window",
            "100",
            "--give-up-after",
            "0",
            "--resume",
            state.to_str().unwrap(),
        ];
        let mut child = desk.command(&arguments).spawn().unwrap();
        desk.wait_for(queue, 2_000, &mut child);
        desk.kill();
        let ran = finish(child);
        assert!(ran.code == Some(69) && ran.err.contains("another run with the same --resume goes on"), "{ran:?}");
        desk.start_again();
        // And one where the publisher is killed.
        let mut child = desk.command(&arguments).spawn().unwrap();
        let there = desk.depth(queue);
        desk.wait_for(queue, there + 2_000, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        let ran = desk.publish(&arguments, "");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_all_there(&desk.bodies(queue), LINES, 2 * twice_max);
        let depth = desk.depth(queue);
        let again = desk.publish(&arguments, "");
        assert!(again.err.contains("nothing to do: all 60000 lines were confirmed before"), "{again:?}");
        assert_eq!(desk.depth(queue), depth);
    }
}

#[test]
fn a_run_that_ends_at_a_full_queue_goes_on_without_doubles_when_there_is_room() {
    let desk = Desk::open();
    desk.queue("q", json!({"x-max-length": 100, "x-overflow": "reject-publish"}));
    let state = desk.directory.path().join("state");
    let arguments = ["--queue", "q", "--lines", "--resume", state.to_str().unwrap()];
    let first = desk.publish(&arguments, &lines(150));
    assert!(first.code == Some(75) && first.err.contains("line 101: "), "{first:?}");
    let bodies = desk.bodies("q");
    desk.http("DELETE", "/queues/%2F/q/contents", &Value::Null);
    let second = desk.publish(&arguments, &lines(150));
    assert_eq!(second.code, Some(0), "{second:?}");
    let more = desk.bodies("q");
    assert!(bodies.len() == 100 && more.len() == 50 && more.keys().all(|body| !bodies.contains_key(body)));
    let other = desk.publish(&arguments, &lines(150).replace("job 7\n", "job seven\n"));
    assert!(other.code == Some(65) && other.err.contains("this is not the input that was begun with"), "{other:?}");
}

#[test]
fn an_interrupted_run_waits_for_what_it_has_sent() {
    let desk = Desk::open();
    desk.queue("q", json!({}));
    let mut child = desk.command(&["--queue", "q", "--lines"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    desk.wait_for("q", 2, &mut child);
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = finish(child);
    assert!(ran.code == Some(130) && ran.err.contains("interrupted; 2 confirmed"), "{ran:?}");
    drop(stdin);
}
