//! `leveret ctl` beside `rabbitmqctl`: the texts are what RabbitMQ 3.10.8 printed for the same queues, but for its order
//! of queues (a hash table's), its names of processes, and the errors that 4.x words differently.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

#[path = "ctl/identity.rs"]
mod identity;
#[path = "ctl/operations.rs"]
mod operations;
#[path = "ctl/redrives.rs"]
mod redrives;
#[path = "ctl/schedules.rs"]
mod schedules;
#[path = "ctl/surface.rs"]
mod surface;

use amqp::method::{basic, channel, connection, queue};
use amqp::{ChannelId, Method, Table, Value};
use bytes::{Buf, BytesMut};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A server, and a link to the program under RabbitMQ's name.
struct Desk {
    server: Child,
    ready: String,
    directory: TempDir,
}

impl Desk {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        Self::over(directory, &data_dir)
    }

    /// The same with that data directory.
    fn over(directory: TempDir, data_dir: &Path) -> Self {
        let program = env!("CARGO_BIN_EXE_leveret");
        std::os::unix::fs::symlink(program, directory.path().join("rabbitmqctl")).unwrap();
        let mut server = Command::new(program)
            .env_clear()
            .args(["--amqp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log", "off"])
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Self { server, ready, directory }
    }

    fn address(&self, service: &str) -> &str {
        let (_, after) = self.ready.split_once(&format!("{service} on ")).unwrap();
        after.split([',', ' ']).next().unwrap()
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts another server over what the last one left, which has ended.
    fn start_again(&mut self) {
        let data_dir = self.data_dir();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        std::fs::remove_file(directory.path().join("rabbitmqctl")).unwrap();
        *self = Self::over(directory, &data_dir);
    }

    /// Runs `rabbitmqctl` with these arguments.
    fn ctl(&self, arguments: &[&str]) -> Ran {
        run(&self.directory.path().join("rabbitmqctl"), &self.data_dir(), arguments)
    }

    /// The same with arguments that hold no spaces.
    fn say(&self, line: &str) -> Ran {
        self.ctl(&line.split(' ').collect::<Vec<_>>())
    }

    fn client(&self) -> Client {
        Client::connect(self.address("AMQP"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ended_already = self.server.kill();
        let _reaped_already = self.server.wait();
    }
}

/// What a command printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    out: String,
    err: String,
    code: i32,
}

fn run(program: &Path, data_dir: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(program).env_clear().env("LEVERET_DATA_DIR", data_dir).args(arguments).output().unwrap();
    Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

fn printed(out: &str) -> Ran {
    Ran { out: out.to_owned(), err: String::new(), code: 0 }
}

fn failed(code: i32, out: &str, err: &str) -> Ran {
    Ran { out: out.to_owned(), err: err.to_owned(), code }
}

/// An AMQP client: a socket and a buffer.
struct Client {
    socket: TcpStream,
    input: BytesMut,
}

const CHANNEL: ChannelId = ChannelId(1);
const FRAME_MAX: u32 = 131_072;

impl Client {
    fn connect(address: &str) -> Self {
        let mut client = Self { socket: TcpStream::connect(address).unwrap(), input: BytesMut::new() };
        client.socket.write_all(&amqp::frame::PROTOCOL_HEADER).unwrap();
        client.expect(|method| matches!(method, Method::ConnectionStart(_)).then_some(()));
        let start_ok = connection::StartOk {
            client_properties: [("product", Value::from("Golden"))].into_iter().collect(),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        client.send(ChannelId::CONNECTION, &Method::ConnectionStartOk(start_ok));
        client.expect(|method| matches!(method, Method::ConnectionTune(_)).then_some(()));
        let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 0 };
        client.send(ChannelId::CONNECTION, &Method::ConnectionTuneOk(tune_ok));
        client.send(ChannelId::CONNECTION, &Method::ConnectionOpen(connection::Open { vhost: "/" }));
        client.expect(|method| matches!(method, Method::ConnectionOpenOk(_)).then_some(()));
        client.send(CHANNEL, &Method::ChannelOpen(channel::Open));
        client.expect(|method| matches!(method, Method::ChannelOpenOk(_)).then_some(()));
        client
    }

    fn declare(&mut self, name: &str, durable: bool, exclusive: bool, arguments: Table) {
        let declare = queue::Declare {
            queue: name,
            passive: false,
            durable,
            exclusive,
            auto_delete: exclusive,
            nowait: false,
            arguments,
        };
        self.send(CHANNEL, &Method::QueueDeclare(declare));
        self.expect(|method| matches!(method, Method::QueueDeclareOk(_)).then_some(()));
    }

    fn publish(&mut self, queue: &str, body: &[u8]) {
        let mut frames = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        amqp::content::encode_content(CHANNEL, &[0, 0], body, FRAME_MAX as usize, &mut frames);
        self.socket.write_all(&frames).unwrap();
    }

    /// Consumes one message at a time; returns when there is one if `waits`.
    fn consume(&mut self, queue: &str, tag: &str, arguments: Table, waits: bool) {
        let qos = basic::Qos { prefetch_size: 0, prefetch_count: 1, global: false };
        self.send(CHANNEL, &Method::BasicQos(qos));
        self.expect(|method| matches!(method, Method::BasicQosOk(_)).then_some(()));
        let consume = basic::Consume {
            queue,
            consumer_tag: tag,
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments,
        };
        self.send(CHANNEL, &Method::BasicConsume(consume));
        self.expect(|method| matches!(method, Method::BasicConsumeOk(_)).then_some(()));
        if waits {
            self.expect(|method| matches!(method, Method::BasicDeliver(_)).then_some(()));
        }
    }

    /// The server's connection.close: code and text.
    fn expect_close(&mut self) -> (u16, String) {
        self.expect(|method| match method {
            Method::ConnectionClose(close) => Some((close.reply_code, close.reply_text.to_owned())),
            _ => None,
        })
    }

    fn send(&mut self, channel: ChannelId, method: &Method<'_>) {
        let mut frame = BytesMut::new();
        method.encode(channel, &mut frame);
        self.socket.write_all(&frame).unwrap();
    }

    /// Skips frames until a method that `pick` accepts.
    fn expect<T>(&mut self, pick: impl Fn(Method<'_>) -> Option<T>) -> T {
        loop {
            while let Some((frame, length)) = amqp::frame::decode(&self.input, FRAME_MAX as usize).unwrap() {
                let found = match frame.kind {
                    amqp::FrameKind::Method => pick(Method::decode(frame.payload).unwrap()),
                    _ => None,
                };
                self.input.advance(length);
                if let Some(found) = found {
                    return found;
                }
            }
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the server closed its end");
            self.input.extend_from_slice(&buffer[..count]);
        }
    }
}

/// The queues of the recording, in our order.
fn with_queues(desk: &Desk) -> Client {
    let mut client = desk.client();
    client.declare("hello", false, false, Table::new());
    let limits = [
        ("x-max-length", Value::from(10)),
        ("x-dead-letter-exchange", "dlx".into()),
        ("x-overflow", "reject-publish".into()),
    ];
    client.declare("task_queue", true, false, limits.into_iter().collect());
    client.declare("tab\tname", false, false, Table::new());
    client.declare("ünï \"q\" \\ b", false, false, Table::new());
    client.declare("excl", false, true, Table::new());
    for _ in 0..4 {
        client.publish("hello", b"hello");
    }
    for _ in 0..2 {
        client.publish("task_queue", b"12345678");
    }
    let arguments = [("x-priority", Value::from(3)), ("x", "y".into())];
    client.consume("hello", "ctag1", arguments.into_iter().collect(), true);
    client
}

#[test]
fn list_queues_prints_what_rabbitmqctl_prints() {
    let desk = Desk::open();
    let _client = with_queues(&desk);
    let all = "\
name\tmessages
excl\t0
hello\t4
tab\tname\t0
task_queue\t2
ünï \"q\" \\ b\t0
";
    let banners = "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\n";
    assert_eq!(desk.say("list_queues"), printed(&format!("{banners}{all}")));
    let states = "\
name\tmessages_ready\tmessages_unacknowledged
excl\t0\t0
hello\t3\t1
tab\tname\t0\t0
task_queue\t2\t0
ünï \"q\" \\ b\t0\t0
";
    let states = printed(&format!("{banners}{states}"));
    assert_eq!(desk.say("list_queues name messages_ready messages_unacknowledged"), states);
    for quiet in ["-q list_queues", "list_queues --quiet", "list_queues -q -p / -n rabbit@host -l"] {
        assert_eq!(desk.say(quiet), printed(all), "{quiet}");
    }
    let rows = all.split_once('\n').unwrap().1;
    assert_eq!(desk.say("list_queues -s"), printed(rows));
    assert_eq!(desk.say("list_queues --no-table-headers"), printed(&format!("{banners}{rows}")));
    let ten = banners.replace("60.0", "10.0");
    assert_eq!(desk.say("list_queues -t 10"), printed(&format!("{ten}{all}")));
}

#[test]
fn list_queues_has_rabbitmqs_other_formats() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("tab\tname", false, false, Table::new());
    let limits = [("x-max-length", Value::from(10)), ("x-overflow", "reject-publish".into()), ("x-foo", true.into())];
    client.declare("üb \"q\" \\", true, false, limits.into_iter().collect());
    let json = r#"[
{"name":"tab\tname","messages":0}
,{"name":"üb \"q\" \\","messages":0}
]
"#;
    assert_eq!(desk.say("list_queues --formatter json"), printed(json));
    let stream = "{\"name\":\"tab\\tname\"}\n{\"name\":\"üb \\\"q\\\" \\\\\"}\n\n";
    assert_eq!(desk.say("list_queues --formatter json_stream name"), printed(stream));
    let csv = "\"name\",\"messages\"\n\"tab\tname\",\"0\"\n\"üb \"\"q\"\" \\\",\"0\"\n";
    assert_eq!(desk.say("list_queues --formatter csv"), printed(csv));
    let boxes = "\
\x1b(0lqqqqqqqqqqqqqqwqqqqqqqqqqk\x1b(B
\x1b(0x\x1b(B \x1b[1mname\x1b[0m         \x1b(0x\x1b(B \x1b[1mmessages\x1b[0m \x1b(0x\x1b(B
\x1b(0tqqqqqqqqqqqqqqnqqqqqqqqqqu\x1b(B
\x1b(0x\x1b(B tab     name \x1b(0x\x1b(B 0        \x1b(0x\x1b(B
\x1b(0tqqqqqqqqqqqqqqnqqqqqqqqqqu\x1b(B
\x1b(0x\x1b(B üb \"q\" \\     \x1b(0x\x1b(B 0        \x1b(0x\x1b(B
\x1b(0mqqqqqqqqqqqqqqvqqqqqqqqqqj\x1b(B
";
    assert_eq!(desk.say("list_queues --formatter pretty_table -q"), printed(boxes));
    let declared = "\
name\tdurable\tauto_delete\texclusive\targuments\ttype\tstate\tpolicy\towner_pid
tab\tname\tfalse\tfalse\tfalse\t[]\tclassic\trunning\t\t
üb \"q\" \\\ttrue\tfalse\tfalse\t[{\"x-max-length\",10},{\"x-overflow\",\"reject-publish\"},{\"x-foo\",true}]\tclassic\trunning\t\t
";
    let columns = "-q list_queues name durable auto_delete exclusive arguments type state policy owner_pid";
    assert_eq!(desk.say(columns), printed(declared));
    let typed = r#"[
{"arguments":[],"policy":""}
,{"arguments":[["x-max-length","signedint",10],["x-overflow","longstr","reject-publish"],["x-foo","bool",true]],"policy":""}
]
"#;
    assert_eq!(desk.say("list_queues arguments policy --formatter json"), printed(typed));
}

#[test]
fn empty_lists_have_no_header() {
    let desk = Desk::open();
    let banners = "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\n";
    assert_eq!(desk.say("list_queues"), printed(banners));
    assert_eq!(desk.say("list_queues -q"), printed(""));
    assert_eq!(desk.say("list_queues --formatter json"), printed("[\n]\n"));
    assert_eq!(desk.say("list_consumers"), printed("Listing consumers in vhost / ...\n"));
    assert_eq!(desk.say("list_bindings"), printed("Listing bindings for vhost /...\n"));
    assert_eq!(desk.say("list_connections"), printed("Listing connections ...\n"));
    assert_eq!(desk.say("list_channels"), printed("Listing channels ...\n"));
    assert_eq!(desk.say("list_vhosts"), printed("Listing vhosts ...\nname\n/\n"));
}

#[test]
fn purge_queue_prints_what_rabbitmqctl_prints() {
    let desk = Desk::open();
    let _client = with_queues(&desk);
    assert_eq!(desk.say("purge_queue task_queue"), printed("Purging queue 'task_queue' in vhost '/' ...\n"));
    assert_eq!(desk.ctl(&["purge_queue", "-q", "tab\tname"]), printed(""));
    assert_eq!(
        desk.ctl(&["purge_queue", "ünï \"q\" \\ b"]),
        printed("Purging queue 'ünï \"q\" \\ b' in vhost '/' ...\n")
    );
    assert!(desk.say("list_queues -q").out.contains("task_queue\t0\n"));
    let missing = "Object (queue, stream, exchange, etc) was not found\n";
    assert_eq!(desk.say("purge_queue nope"), failed(65, "Purging queue 'nope' in vhost '/' ...\n", missing));
    assert_eq!(desk.say("-q purge_queue nope"), failed(65, "", missing));
    let json = desk.say("purge_queue hello --formatter json");
    assert!(json.out.starts_with("{\"node\":\"leveret@") && json.out.ends_with("\",\"result\":\"ok\"}\n"), "{json:?}");
}

#[test]
fn delete_queue_prints_what_rabbitmqctl_prints() {
    let desk = Desk::open();
    let _client = with_queues(&desk);
    let gone = |messages: u32| format!("Queue was successfully deleted with {messages} ready messages\n");
    let in_use =
        failed(64, "Deleting queue 'hello' on vhost '/' if queue is unused ...\n", "Error:\nThe queue is in use\n");
    assert_eq!(desk.say("delete_queue hello --if-unused"), in_use);
    let both = "Deleting queue 'task_queue' on vhost '/' if queue is empty and if queue is unused ...\n";
    assert_eq!(desk.say("delete_queue task_queue -e -u"), failed(64, both, "Error:\nThe queue is not empty\n"));
    let deleted = format!("Deleting queue 'task_queue' on vhost '/' ...\n{}", gone(2));
    assert_eq!(desk.say("delete_queue task_queue"), printed(&deleted));
    assert_eq!(desk.say("-q delete_queue hello"), printed(&gone(3)));
    let deleted = format!("Deleting queue 'tab\tname' on vhost '/' if queue is empty ...\n{}", gone(0));
    assert_eq!(desk.ctl(&["delete_queue", "tab\tname", "--if-empty"]), printed(&deleted));
    let missing = failed(64, "Deleting queue 'nope' on vhost '/' ...\n", "Error:\nNo such queue was found\n");
    assert_eq!(desk.say("delete_queue nope"), missing);
    let json = "{\"message\":\"Queue was successfully deleted with 0 ready messages\"}\n";
    assert_eq!(desk.ctl(&["delete_queue", "ünï \"q\" \\ b", "--formatter", "json"]), printed(json));
}

#[test]
fn consumers_connections_and_channels_are_listed() {
    let desk = Desk::open();
    let _client = with_queues(&desk);
    let consumers = "\
Listing consumers in vhost / ...
queue_name\tchannel_pid\tconsumer_tag\tack_required\tprefetch_count\tactive\targuments
hello\t<leveret.1.1>\tctag1\ttrue\t1\ttrue\t[{\"x-priority\",3},{\"x\",\"y\"}]
";
    assert_eq!(desk.say("list_consumers"), printed(consumers));
    let connections = "pid\tuser\tpeer_host\tstate\tchannels\tprotocol\tauth_mechanism\tvhost\tclient_properties\n\
        <leveret.1.0>\tguest\t127.0.0.1\trunning\t1\t{0,9,1}\tPLAIN\t/\t[{\"product\",\"Golden\"}]\n";
    let columns =
        "-q list_connections pid user peer_host state channels protocol auth_mechanism vhost client_properties";
    assert_eq!(desk.say(columns), printed(connections));
    let plain = desk.say("list_connections").out;
    assert!(
        plain.starts_with("Listing connections ...\nuser\tpeer_host\tpeer_port\tstate\nguest\t127.0.0.1\t"),
        "{plain}"
    );
    let channels =
        "Listing channels ...\npid\tuser\tconsumer_count\tmessages_unacknowledged\n<leveret.1.1>\tguest\t1\t1\n";
    assert_eq!(desk.say("list_channels"), printed(channels));
    let exchanges = "\
Listing exchanges for vhost / ...
name\ttype
\tdirect
amq.direct\tdirect
amq.fanout\tfanout
amq.headers\theaders
amq.match\theaders
amq.rabbitmq.trace\ttopic
amq.topic\ttopic
";
    assert_eq!(desk.say("list_exchanges"), printed(exchanges));
    let bindings = desk.say("list_bindings").out;
    let first = "\
Listing bindings for vhost /...
source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments
\texchange\texcl\tqueue\texcl\t[]
\texchange\thello\tqueue\thello\t[]
";
    assert!(bindings.starts_with(first), "{bindings}");
}

#[test]
fn connections_are_closed_with_the_reason() {
    let desk = Desk::open();
    let mut one = desk.client();
    let closing = "Closing connection <leveret.1.0>, reason: go home...\n";
    assert_eq!(desk.ctl(&["close_connection", "<leveret.1.0>", "go home"]), printed(closing));
    assert_eq!(one.expect_close(), (320, "CONNECTION_FORCED - go home".to_owned()));
    drop(one);
    while desk.say("-q list_connections") != printed("") {}
    let (mut two, mut three) = (desk.client(), desk.client());
    let closed = "Closing all connections in vhost nov, reason: bye...\nClosed 0 connections\n";
    assert_eq!(desk.say("close_all_connections --vhost nov bye"), printed(closed));
    let closed = "Closing all connections in vhost /, reason: bye...\nClosed 2 connections\n";
    assert_eq!(desk.say("close_all_connections bye"), printed(closed));
    for client in [&mut two, &mut three] {
        assert_eq!(client.expect_close(), (320, "CONNECTION_FORCED - bye".to_owned()));
    }
    assert_eq!(desk.say("close_connection <nobody> bye").code, 65);
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained() {
    let desk = Desk::open();
    let usage = "\n\nUsage\n\nrabbitmqctl [--data-dir <dir>|--url <url>] [--timeout <timeout>] [--quiet] ";
    let queues = "list_queues [--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column>, ...]";
    for (line, reason, command) in [
        ("list_queues name nope other", "Info key(s) nope,other are not supported", queues),
        ("-q list_queues nope", "Info key(s) nope are not supported", queues),
        ("list_queues --badflag", "Invalid options for this command:\n--badflag : ", queues),
        ("list_queues --if-empty", "Invalid options for this command:\n--if-empty : ", queues),
        ("list_queues -t abc", "Invalid options for this command:\n-t : abc", queues),
        ("list_queues --formatter nof", "Invalid options for this command:\n--formatter : nof", queues),
        ("purge_queue", "not enough arguments.", "purge_queue [--vhost <vhost>] <queue>"),
        ("purge_queue a b", "too many arguments.", "purge_queue [--vhost <vhost>] <queue>"),
        ("ping pong", "too many arguments.", "ping"),
    ] {
        let err = format!("Error (argument validation): {reason}\nArguments given:\n\t{line}{usage}{command}\n");
        assert_eq!(desk.say(line), failed(64, "", &err), "{line}");
    }
    let unknown = desk.say("nosuchcommand");
    assert_eq!((unknown.code, unknown.out.as_str()), (64, ""));
    assert!(unknown.err.starts_with("\nCommand 'nosuchcommand' not found. \n"), "{}", unknown.err);
    assert_eq!(desk.ctl(&[]).code, 64);
    for help in ["help", "--help", "help list_queues", "list_queues --help"] {
        let ran = desk.say(help);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{help}");
        assert!(ran.out.contains("Usage"), "{help}");
    }
    let no_vhost = "Virtual host 'nov' does not exist\n";
    assert_eq!(desk.say("-q list_queues -p nov"), failed(65, "", no_vhost));
}

#[test]
fn the_server_says_that_it_is_well() {
    let desk = Desk::open();
    let ping = desk.say("ping");
    assert_eq!((ping.code, ping.err.as_str()), (0, ""));
    assert!(ping.out.starts_with("Will ping leveret@") && ping.out.ends_with("\nPing succeeded\n"), "{}", ping.out);
    assert_eq!(desk.say("-q ping"), printed("Ping succeeded\n"));
    assert_eq!(desk.say("await_startup"), printed(""));
    for version in ["version", "--version"] {
        assert_eq!(desk.say(version), printed(concat!(env!("CARGO_PKG_VERSION"), "\n")));
    }
    let status = desk.say("status");
    let listener = format!("port: {}, protocol: amqp", desk.address("AMQP").rsplit(':').next().unwrap());
    assert!(status.out.contains("OS PID: ") && status.out.contains(&listener), "{}", status.out);
    assert!(desk.say("status --formatter json").out.starts_with('{'));
}

#[test]
fn limits_are_set_and_the_status_shows_them_and_the_alarms() {
    let desk = Desk::open();
    // `Status of node leveret@HOST ...`
    let name = desk.say("status").out.split(' ').nth(3).unwrap().to_owned();
    let section = |head: &str| {
        let status = desk.say("status").out;
        let (_, after) = status.split_once(&format!("\n{head}\n\n")).unwrap();
        after.split("\n\n").next().unwrap().to_owned()
    };
    assert_eq!(section("Alarms"), "(none)");
    assert!(section("Memory").contains("\nCalculation strategy: rss\nMemory high watermark setting: 0.6 of available"));
    assert!(section("Free Disk Space").starts_with("Low free disk space watermark: 0.05 gb\nFree disk space: "));

    let said = |text: &str| printed(&format!("Setting {text} ...\n").replace("NODE", &name));
    let memory = desk.say("set_vm_memory_high_watermark 0.000000001");
    assert_eq!(memory, said("memory threshold on NODE to 0.000000001"));
    assert_eq!(section("Alarms"), format!("Memory alarm on node {name}"));
    assert_eq!(desk.say("set_disk_free_limit 1000000TB"), said("disk free limit on NODE to 1000000TB bytes"));
    let both = format!("Free disk space alarm on node {name}\nMemory alarm on node {name}");
    assert_eq!(section("Alarms"), both);
    let status = desk.say("status --formatter json").out;
    let alarm = format!(r#"{{"node":"{name}","resource":"disk","type":"resource_limit"}}"#);
    assert!(status.contains(&alarm) && status.contains(r#""vm_memory_high_watermark_limit":0"#), "{status}");

    let memory = desk.say("set_vm_memory_high_watermark absolute 8GB");
    assert_eq!(memory, said("memory threshold on NODE to 8GB bytes"));
    assert!(section("Memory").ends_with("Memory high watermark setting: 8.0 gb, computed to: 8.0 gb"));
    let disk = desk.say("set_disk_free_limit mem_relative 0.0");
    assert_eq!(disk, said("disk free limit on NODE to 0.0 times the total RAM"));
    assert_eq!(section("Alarms"), "(none)");
    assert_eq!(desk.say("-q set_disk_free_limit 50MB"), printed(""));
    let refused = desk.say("set_vm_memory_high_watermark 1.4");
    let reason = "Error (argument validation): Bad argument: The threshold should be a fraction between 0.0 and 1.0\n";
    assert_eq!((refused.code, refused.err.starts_with(reason)), (65, true), "{}", refused.err);
}

#[test]
fn policies_are_set_listed_and_cleared_as_by_rabbitmqctl() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("jobs.1", true, false, Table::new());
    let setting = "Setting policy \"p\" for pattern \"^jobs\" to \"{\"max-length\":5}\" with priority \"2\" for vhost \"/\" ...\n";
    assert_eq!(desk.say("set_policy p ^jobs {\"max-length\":5} --priority 2 --apply-to queues"), printed(setting));
    assert_eq!(
        desk.say("list_policies"),
        printed(
            "Listing policies for vhost \"/\" ...\nvhost\tname\tpattern\tapply-to\tdefinition\tpriority\n\
             /\tp\t^jobs\tqueues\t{\"max-length\":5}\t2\n"
        )
    );
    assert_eq!(
        desk.say("-q list_queues name policy operator_policy"),
        printed("name\tpolicy\toperator_policy\njobs.1\tp\t\n")
    );
    assert_eq!(
        desk.say("set_operator_policy o x {\"dead-letter-exchange\":\"y\"} -q"),
        failed(
            69,
            "",
            "Error:\nValidation failed\n\n[{<<\"dead-letter-exchange\">>,<<\"y\">>}] are not recognised policy settings\n"
        )
    );
    assert_eq!(desk.say("list_operator_policies"), printed("Listing operator policy overrides for vhost \"/\" ...\n"));
    assert_eq!(desk.say("clear_policy p"), printed("Clearing policy \"p\" on vhost \"/\" ...\n"));
    let missing = "Error:\nParameter does not exist\n";
    assert_eq!(desk.say("clear_operator_policy p -q"), failed(69, "", missing));
}

#[test]
fn over_tcp_a_login_is_needed() {
    let desk = Desk::open();
    let address = desk.address("HTTP");
    let by = |login: &str| desk.ctl(&["-q", "--url", &format!("http://{login}{address}"), "list_vhosts"]);
    assert_eq!(by("guest:guest@"), printed("name\n/\n"));
    for login in ["", "guest:bad@"] {
        let refused = by(login);
        assert_eq!((refused.code, refused.out.as_str()), (69, ""), "{login}");
        assert!(refused.err.contains("refused the login"), "{}", refused.err);
    }
    assert_eq!(desk.ctl(&["--url", "https://h", "ping"]).code, 64);
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_leveret"));
    for arguments in [&["ctl", "list_queues"][..], &["ctl", "purge_queue", "q"], &["ctl", "ping"]] {
        let ran = run(program, directory.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (69, ""), "{arguments:?}");
        assert!(ran.err.contains("leveret.sock") && ran.err.contains("leveret serve"), "{}", ran.err);
    }
    let closed = run(program, directory.path(), &["ctl", "--url", "http://127.0.0.1:1", "ping"]);
    assert_eq!(closed.code, 69);
    let late = run(program, directory.path(), &["ctl", "await_startup", "-t", "0"]);
    assert_eq!(late.code, 75);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let desk = Desk::open();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .args(["ctl", "help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    child.wait().unwrap();
    assert_eq!(err, "");
    drop(desk);
}

/// `leveret store` on that directory.
fn store(what: &[&str], directory: &Path) -> Ran {
    let output =
        Command::new(env!("CARGO_BIN_EXE_leveret")).env_clear().arg("store").args(what).arg(directory).output();
    let output = output.unwrap();
    Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// Publishes persistent messages and waits until each is confirmed.
fn publish_confirmed(client: &mut Client, queue: &str, bodies: impl Iterator<Item = String>) {
    // Delivery mode 2 alone.
    let properties = [0x10, 0, 2];
    for body in bodies {
        let mut frames = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        amqp::content::encode_content(CHANNEL, &properties, body.as_bytes(), FRAME_MAX as usize, &mut frames);
        client.socket.write_all(&frames).unwrap();
        client.expect(|method| matches!(method, Method::BasicAck(_)).then_some(()));
    }
}

#[test]
fn a_backup_under_load_verifies_and_starts_with_all_that_was_confirmed() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.send(CHANNEL, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: false }));
    client.expect(|method| matches!(method, Method::ConfirmSelectOk(_)).then_some(()));
    client.declare("jobs", true, false, Table::new());
    publish_confirmed(&mut client, "jobs", (0..200).map(|number| format!("job {number}")));
    let stops = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_over = std::sync::Arc::clone(&stops);
    let publisher = std::thread::spawn(move || {
        let mut count = 0;
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            publish_confirmed(&mut client, "jobs", std::iter::once("x".repeat(3000)));
            count += 1;
        }
        count
    });
    let copy = desk.directory.path().join("copy");
    let ran = desk.ctl(&["backup", copy.to_str().unwrap()]);
    assert_eq!((ran.err.as_str(), ran.code), ("", 0), "{ran:?}");
    assert!(ran.out.contains("The backup is in "), "{ran:?}");
    let again = desk.ctl(&["backup", copy.to_str().unwrap()]);
    assert_eq!(again.code, 69, "{again:?}");
    assert!(again.err.contains("is not empty"), "{again:?}");
    stops.store(true, std::sync::atomic::Ordering::Relaxed);
    let later: usize = publisher.join().unwrap();

    let verified = store(&["verify"], &copy);
    assert_eq!((verified.err.as_str(), verified.code), ("", 0), "{verified:?}");
    assert!(verified.out.starts_with("sound: 1 log, "), "{verified:?}");
    let refused = store(&["verify"], &desk.data_dir());
    assert_eq!((refused.out.as_str(), refused.code), ("", 2), "{refused:?}");
    assert!(refused.err.contains("ctl backup"), "{refused:?}");

    let other = Desk::over(tempfile::tempdir().unwrap(), &copy);
    let count = run(&other.directory.path().join("rabbitmqctl"), &copy, &["-q", "list_queues", "messages"]).out;
    let count: usize = count.lines().last().unwrap().parse().unwrap();
    assert!((200..=200 + later).contains(&count), "{count} of 200 and {later} messages");
}

#[test]
fn verify_tells_what_is_damaged_and_what_is_lost() {
    let mut desk = Desk::open();
    let mut client = desk.client();
    client.send(CHANNEL, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: false }));
    client.expect(|method| matches!(method, Method::ConfirmSelectOk(_)).then_some(()));
    client.declare("jobs", true, false, Table::new());
    publish_confirmed(&mut client, "jobs", (0..20).map(|number| format!("job number {number}")));
    desk.server.kill().unwrap();
    desk.server.wait().unwrap();
    let data = desk.data_dir();
    let verified = store(&["verify"], &data);
    assert_eq!((verified.err.as_str(), verified.code), ("", 0), "{verified:?}");
    assert!(verified.out.contains("1 queue, 20 messages"), "{verified:?}");
    assert_eq!(store(&["verify"], &data.join("shard-0")).out, verified.out, "one log of it");

    let dumped = store(&["dump", "--queue", "jobs", "--bodies", "8"], &data);
    assert_eq!((dumped.err.as_str(), dumped.code), ("", 0), "{dumped:?}");
    let line = r#" message "jobs" seq 5, exchange "" key "jobs" delivery_mode=2, body of 12 bytes "job numb"..."#;
    assert_eq!(dumped.out.lines().filter(|dumped| dumped.ends_with(line)).count(), 1, "{}", dumped.out);
    assert_eq!(dumped.out.lines().filter(|line| line.contains(" message ")).count(), 20);
    assert_eq!(store(&["dump", "--queue", "others"], &data), printed(""));
    assert!(store(&["dump"], &data).out.contains("claim of owner 1\n"));

    let segment = data.join("shard-0").join("0000000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(12).position(|window| window == b"job number 3").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let damaged = store(&["verify"], &data);
    assert_eq!(damaged.code, 1, "{damaged:?}");
    assert!(damaged.out.contains("0000000000000001.log, at byte "), "{damaged:?}");
    assert!(damaged.out.contains("does not match its checksum. "), "{damaged:?}");
    assert!(damaged.out.lines().last().unwrap().starts_with("1 problem: "), "{damaged:?}");

    let nothing = store(&["verify"], desk.directory.path());
    assert_eq!((nothing.out.as_str(), nothing.code), ("", 2), "{nothing:?}");
    assert!(nothing.err.contains("holds no data of Leveret"), "{nothing:?}");
}
