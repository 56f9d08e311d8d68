//! What `rabbitmqctl` does not have: messages looked at, deleted, moved and redriven, leases; and that a kill in the
//! middle of a move loses nothing and doubles nothing.

use super::*;

impl Client {
    pub(super) fn publish_persistent(&mut self, queue: &str, body: &[u8]) {
        let mut frames = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        amqp::content::encode_content(CHANNEL, &[0x10, 0, 2], body, FRAME_MAX as usize, &mut frames);
        self.socket.write_all(&frames).unwrap();
    }

    /// Says something of a delivery.
    fn say(&mut self, tag: i64, word: &str, fields: &[(&str, &str)]) {
        let mut frames = BytesMut::new();
        let routing_key = &format!("amq.leveret.{word}");
        let publish = basic::Publish { exchange: "", routing_key, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        let fields = fields.iter().map(|(key, value)| (*key, Value::from(*value)));
        let headers = fields.chain([("x-delivery-tag", Value::from(tag))]).collect();
        let mut properties = BytesMut::new();
        amqp::PropertyList { headers: Some(headers), ..Default::default() }.encode(&mut properties);
        amqp::content::encode_content(CHANNEL, &properties, b"", FRAME_MAX as usize, &mut frames);
        self.socket.write_all(&frames).unwrap();
    }

    fn publish_delayed(&mut self, queue: &str, body: &[u8], delay_ms: i32) {
        let mut frames = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
        let mut properties = BytesMut::new();
        let headers = [("x-delay", Value::from(delay_ms))].into_iter().collect();
        amqp::PropertyList { headers: Some(headers), ..Default::default() }.encode(&mut properties);
        amqp::content::encode_content(CHANNEL, &properties, body, FRAME_MAX as usize, &mut frames);
        self.socket.write_all(&frames).unwrap();
    }
}

#[test]
fn a_queue_is_paused_and_resumed() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("q", true, false, Table::new());
    assert_eq!(desk.say("pause_queue q"), printed("Pausing queue 'q' in vhost '/' ...\n"));
    assert_eq!(desk.say("-q list_queues name state"), printed("name\tstate\nq\tpaused\n"));
    assert_eq!(desk.say("-q resume_queue q"), printed(""));
    assert_eq!(desk.say("-q list_queues name state"), printed("name\tstate\nq\trunning\n"));
    let missing = "Object (queue, stream, exchange, etc) was not found\n";
    assert_eq!(desk.say("-q pause_queue nope"), failed(65, "", missing));
}

#[test]
fn messages_are_shown_deleted_moved_and_requeued() {
    let desk = Desk::open();
    let mut client = desk.client();
    for queue in ["a", "b"] {
        client.declare(queue, true, false, Table::new());
    }
    for body in ["one", "two", "three", "four"] {
        client.publish("a", body.as_bytes());
    }
    client.declare("a", true, false, Table::new());
    let head = "seq\tstate\tredelivered\tdelivery_count\trouting_key\treason\tpayload_bytes\tpayload\n";
    let two = "2\tready\tfalse\t0\ta\t\t3\ttwo\n";
    let three = "3\tready\tfalse\t0\ta\t\t5\tthree\n";
    assert_eq!(desk.say("-q peek_messages a --offset 1 --count 2"), printed(&format!("{head}{two}{three}")));
    assert_eq!(desk.say("-q peek_messages a --where body=ree"), printed(&format!("{head}{three}")));
    assert_eq!(desk.say("-q delete_messages a --seq 2 --seq 9"), printed("1 messages were deleted\n"));
    assert_eq!(desk.say("-q move_messages a --where body=o --to-queue b"), printed("2 messages were moved\n"));
    assert_eq!(desk.say("-q requeue_messages b --all --count 1"), printed("1 messages were requeued\n"));
    assert_eq!(desk.say("-q list_queues"), printed("name\tmessages\na\t1\nb\t2\n"));
    let which = "Error:\nsay which messages: one of --seq, --where, and --all\n";
    assert_eq!(desk.say("-q delete_messages a"), failed(64, "", which));
    let nowhere = desk.say("-q move_messages a --all --to-exchange amq.direct");
    assert_eq!(nowhere, failed(65, "0 messages were moved\n", "Error:\n1 messages have nowhere to go, and stay\n"));
    assert_eq!(desk.say("-q move_messages a --all --to-queue nope").code, 65);
}

#[test]
fn delayed_messages_are_shown_by_due_time_released_and_cancelled() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("q", true, false, Table::new());
    for (body, delay_ms) in [("two", 2_000_000), ("one", 1_000_000), ("three", 3_000_000)] {
        client.publish_delayed("q", body.as_bytes(), delay_ms);
    }
    client.declare("q", true, false, Table::new());
    let peeked = desk.say("-s peek_messages q --delayed");
    let bodies: Vec<_> = peeked.out.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    assert_eq!(bodies, ["one", "two", "three"], "{peeked:?}");
    assert!(desk.say("-q peek_messages q --delayed").out.starts_with("seq\tstate\tdue_at\t"));
    assert_eq!(desk.say("-q release_messages q --seq 1 --seq 9"), printed("1 messages were released\n"));
    assert_eq!(desk.say("-q delete_messages q --where body=e"), printed("0 messages were deleted\n"), "ready ones");
    assert_eq!(desk.say("-q delete_messages q --where body=three --delayed"), printed("1 messages were deleted\n"));
    assert_eq!(desk.say("-q release_messages q --all"), printed("1 messages were released\n"));
    assert_eq!(
        desk.say("-q list_queues name messages_ready messages"),
        printed("name\tmessages_ready\tmessages\nq\t2\t2\n")
    );
    let both = "Error:\n--delayed and --unacked exclude each other\n";
    assert_eq!(desk.say("-q peek_messages q --delayed --unacked"), failed(64, "", both));
}

#[test]
fn dead_letters_that_nobody_has_taken_are_shown_with_why_and_where_to() {
    let desk = Desk::open();
    let mut client = desk.client();
    let full: [(&str, Value); 2] = [("x-max-length", 0.into()), ("x-overflow", "reject-publish".into())];
    client.declare("full", true, false, full.into_iter().collect());
    let dying: [(&str, Value); 3] = [
        ("x-message-ttl", 0.into()),
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "full".into()),
    ];
    client.declare("q", true, false, dying.into_iter().collect());
    client.publish("q", b"one");
    client.declare("other", true, false, Table::new());
    let peeked = desk.say("-q peek_messages q --dlx").out;
    let lines: Vec<Vec<&str>> = peeked.lines().map(|line| line.split('\t').collect()).collect();
    let head = ["seq", "state", "died_at", "reason", "to_exchange", "to_key", "payload_bytes", "payload"];
    assert_eq!(lines[0], head);
    assert_eq!((&lines[1][..2], &lines[1][3..]), (&["1", "dlx"][..], &["expired", "", "full", "3", "one"][..]));
    let both = "Error:\n--unacked and --dlx exclude each other\n";
    assert_eq!(desk.say("-q peek_messages q --dlx --unacked"), failed(64, "", both));
}

#[test]
fn a_schedule_is_set_listed_fired_paused_and_deleted() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("q", true, false, Table::new());
    let definition = r#"{"cron":"0 3 * * *","time_zone":"Europe/Berlin","routing_key":"q","payload":"report"}"#;
    assert_eq!(desk.ctl(&["-q", "set_schedule", "nightly", definition]), printed(""));
    let listed = desk.say("-q list_schedules name state cron time_zone fired missed last_error");
    let head = "name\tstate\tcron\ttime_zone\tfired\tmissed\tlast_error\n";
    assert_eq!(listed, printed(&format!("{head}nightly\trunning\t0 3 * * *\tEurope/Berlin\t0\t0\t\n")));
    assert_eq!(desk.say("-q fire_schedule nightly"), printed("1 message was published\n"));
    assert_eq!(desk.say("-q list_queues"), printed("name\tmessages\nq\t1\n"));
    assert_eq!(desk.say("-q pause_schedule nightly"), printed(""));
    assert_eq!(desk.say("-q list_schedules name state"), printed("name\tstate\nnightly\tpaused\n"));
    assert_eq!(desk.say("-q resume_schedule nightly"), printed(""));
    assert_eq!(desk.say("-q delete_schedule nightly"), printed(""));
    let missing = "Error:\nthere is no schedule 'nightly'\n";
    for command in ["delete", "pause", "resume", "fire"] {
        assert_eq!(desk.say(&format!("-q {command}_schedule nightly")), failed(65, "", missing));
    }
    let wrong = desk.ctl(&["-q", "set_schedule", "nightly", r#"{"cron":"61 * * * *"}"#]);
    assert_eq!(wrong, failed(64, "", "Error:\ncron: minute: \"61\" is no number from 0 to 59\n"));
    let wrong = desk.ctl(&["-q", "set_schedule", "nightly", "daily"]);
    assert_eq!(wrong, failed(64, "", "Error:\nthe definition of a schedule is a JSON object\n"));
}

#[test]
fn a_redrive_tells_what_it_did() {
    let desk = Desk::open();
    let mut client = desk.client();
    let arguments = [
        ("x-message-ttl", Value::from(0)),
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "dead".into()),
    ];
    client.declare("work", true, false, arguments.into_iter().collect());
    client.declare("dead", true, false, Table::new());
    client.declare("other", true, false, Table::new());
    client.publish("work", b"x");
    client.publish("dead", b"y");
    client.declare("other", true, false, Table::new());
    let told = desk.say("redrive_queue dead");
    let stay = "Error:\n1 messages stay: they did not die in a queue that is there\n";
    let out = "Redriving queue 'dead' in vhost '/' ...\n1 of 2 messages were moved\n";
    assert_eq!(told, failed(65, out, stay));
    assert_eq!(desk.say("-q redrive_queue dead --to-queue other --rate 1000").code, 0);
    assert_eq!(desk.say("-q redrive_queue dead --stop").code, 0, "it has ended");
    assert_eq!(desk.say("-q redrive_queue nope").code, 65);
    assert_eq!(desk.say("-q redrive_queue dead --rate 0").code, 64);
}

#[test]
fn leases_are_listed_extended_and_taken_back() {
    let desk = Desk::open();
    let mut client = desk.client();
    client.declare("q", true, false, Table::new());
    client.publish("q", b"x");
    client.consume("q", "worker", Table::new(), true);
    let listed = desk.say("-q list_leases queue_name seq consumer_tag channel extended");
    let head = "queue_name\tseq\tconsumer_tag\tchannel\textended\n";
    assert_eq!(listed, printed(&format!("{head}q\t1\tworker\t1\tfalse\n")));
    assert_eq!(desk.say("-q extend_lease q 1 3600"), printed(""));
    assert!(desk.say("-q list_leases extended").out.contains("true"));
    assert_eq!(desk.say("-q return_lease q 1"), printed(""));
    client.expect(|method| matches!(method, Method::BasicDeliver(deliver) if deliver.redelivered).then_some(()));
    assert_eq!(desk.say("-q return_lease q 7"), failed(65, "", "Error:\nnobody holds message 7 of queue 'q'\n"));
}

#[test]
fn jobs_are_shown_with_what_their_workers_say_of_them() {
    let desk = Desk::open();
    let mut client = desk.client();
    let arguments: [(&str, Value); 2] =
        [("x-delayed-retry-type", "all".into()), ("x-delayed-retry-min", 630_000.into())];
    client.declare("q", true, false, arguments.into_iter().collect());
    client.publish("q", b"one");
    client.publish("q", b"two");
    client.consume("q", "worker", Table::new(), true);
    client.say(1, "failure", &[("x-failure-reason", "exit 75"), ("x-settle", "retry")]);
    client.expect(|method| matches!(method, Method::BasicDeliver(_)).then_some(()));
    client.say(2, "progress", &[("x-progress", "page 3 of 7")]);
    client.declare("other", true, false, Table::new());
    let jobs = desk.say("jobs");
    assert!(jobs.out.starts_with("1 running  0 waiting  1 delayed\n") && jobs.code == 0, "{jobs:?}");
    let has = |words: &str| jobs.out.lines().any(|line| words.split(' ').all(|word| line.contains(word)));
    assert!(has("q 2 worker page of 7") && has("q 1 x 10m exit 75"), "{jobs:?}");
    let peeked = desk.say("-s peek_messages q --delayed").out;
    assert!(peeked.ends_with("\tq\texit 75\t3\tone\n"), "{peeked}");
    let json = desk.say("jobs q --formatter json --watch --count 2 --interval 1").out;
    assert_eq!(json.lines().count(), 2, "{json}");
    assert!(json.contains("\"reason\":\"exit 75\"") && json.contains("\"progress\":\"page 3 of 7\""), "{json}");
    assert_eq!(desk.say("-q jobs nope").code, 65);
}

#[test]
fn a_kill_in_the_middle_of_a_move_loses_nothing_and_doubles_nothing() {
    const MESSAGES: u64 = 5_000;
    let mut desk = Desk::open();
    let mut client = desk.client();
    client.declare("a", true, false, Table::new());
    client.declare("b", true, false, Table::new());
    client.send(CHANNEL, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: false }));
    client.expect(|method| matches!(method, Method::ConfirmSelectOk(_)).then_some(()));
    for number in 0..MESSAGES {
        client.publish_persistent("a", number.to_string().as_bytes());
    }
    let mut confirmed = 0;
    while confirmed < MESSAGES {
        confirmed = client.expect(|method| match method {
            Method::BasicAck(ack) => Some(ack.delivery_tag),
            _ => None,
        });
    }
    let counts = |desk: &Desk| -> Vec<u64> {
        let listed = desk.say("-s list_queues messages");
        listed.out.lines().map(|line| line.parse().unwrap()).collect()
    };
    let mut moved_before = 0;
    for round in 0..5 {
        let path = desk.directory.path().join("rabbitmqctl");
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let mut mover = Command::new(path)
            .env_clear()
            .env("LEVERET_DATA_DIR", desk.data_dir())
            .args(["-q", "move_messages", from, "--all", "--to-queue", to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let at = if to == "b" { 1 } else { 0 };
        loop {
            let there = counts(&desk)[at];
            if there != moved_before && there > 0 || mover.try_wait().unwrap().is_some() {
                break;
            }
        }
        desk.server.kill().unwrap();
        desk.server.wait().unwrap();
        mover.wait().unwrap();
        desk.start_again();
        let found = counts(&desk);
        assert_eq!(found.iter().sum::<u64>(), MESSAGES, "round {round}: {found:?}");
        moved_before = found[1 - at];
    }
    let mut bodies: Vec<u64> = Vec::new();
    for queue in ["a", "b"] {
        let peeked = desk.say(&format!("-s peek_messages {queue} --count 6000"));
        bodies.extend(peeked.out.lines().map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()));
    }
    bodies.sort_unstable();
    assert!(bodies.into_iter().eq(0..MESSAGES), "each is there, and once");
}
