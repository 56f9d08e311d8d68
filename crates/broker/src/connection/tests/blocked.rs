//! Alarms: who is blocked, what is still done, and how it ends.

use super::*;
use crate::command::Shortage;

const MEMORY: Shortage = Shortage { memory: true, disk: false };
const DISK: Shortage = Shortage { memory: false, disk: true };
const BOTH: Shortage = Shortage { memory: true, disk: true };
const NONE: Shortage = Shortage { memory: false, disk: false };

impl Client {
    /// A client with a channel that is to be told when it is blocked, and a queue.
    fn publisher() -> Self {
        let mut client = Self::accepted();
        client.log_in(capabilities(&["connection.blocked"]), b"\0guest\0guest");
        client.set_up();
        client
    }

    fn set_up(&mut self) {
        self.tune(2047, 131_072, 60);
        self.method(0, &connection::Open { vhost: "/" }.into_method());
        self.method(1, &Method::ChannelOpen(channel::Open));
        assert!(matches!(decoded(&self.sent()).last(), Some(Method::ChannelOpenOk(_))));
        self.topology.add_queue(Arc::new(spec(1, QueueSettings::default())));
    }

    fn shortage(&mut self, shortage: Shortage) {
        self.machine.apply(self.now, ConnectionEvent::Shortage(shortage), &mut self.fx);
    }

    fn publish(&mut self, times: usize) {
        let frames = publish_frames(&spec(1, QueueSettings::default()).name);
        self.bytes(&frames.repeat(times));
    }

    /// Publishes that went to the shard.
    fn published(&self) -> usize {
        let messages = |command: &Command| match command {
            Command::Publish(publish) => publish.messages().count(),
            _ => 0,
        };
        self.fx.shards[0].iter().map(messages).sum()
    }

    /// The reason of the connection.blocked that was sent, and nothing else was.
    fn blocked(&mut self) -> String {
        let sent = self.sent();
        match decoded(&sent)[..] {
            [Method::ConnectionBlocked(blocked)] => blocked.reason.to_owned(),
            _ => panic!("{sent:?}"),
        }
    }

    fn state(&self) -> &'static str {
        self.machine.view(&self.fx).state
    }
}

fn publish_frames(queue: &str) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    basic::Publish { routing_key: queue, ..Default::default() }.encode(ChannelId(1), &mut bytes);
    content::encode_content(ChannelId(1), &[0, 0], b"task", 4096, &mut bytes);
    bytes.to_vec()
}

#[test]
fn a_publisher_is_blocked_by_its_next_publish_and_unblocked_with_the_last_alarm() {
    for (shortage, reason) in [(MEMORY, "low on memory"), (DISK, "low on disk"), (BOTH, "low on disk & memory")] {
        let mut client = Client::publisher();
        client.publish(1);
        assert_eq!((client.state(), client.sent()), ("running", vec![]));
        client.shortage(shortage);
        assert_eq!((client.state(), client.sent()), ("blocking", vec![]), "until it publishes");
        assert!(!client.machine.is_blocked());
        client.publish(1);
        assert_eq!(client.blocked(), reason);
        assert_eq!((client.state(), client.machine.is_blocked()), ("blocked", true));
        assert_eq!(client.published(), 1, "this one waits");

        client.shortage(BOTH);
        client.shortage(MEMORY);
        assert_eq!(client.sent(), [], "told once");
        client.shortage(NONE);
        assert!(matches!(decoded(&client.sent())[..], [Method::ConnectionUnblocked(_)]));
        assert_eq!((client.state(), client.machine.is_blocked()), ("running", false));
        client.publish(1);
        assert_eq!((client.published(), client.sent()), (3, vec![]), "both in their order");
    }
}

#[test]
fn what_was_asked_before_the_publish_is_done_and_what_follows_it_waits() {
    let mut client = Client::publisher();
    let queue = spec(1, QueueSettings::default());
    client.shortage(DISK);
    let mut purge = BytesMut::new();
    Method::QueuePurge(queue::Purge { queue: &queue.name, nowait: false }).encode(ChannelId(1), &mut purge);
    let mut ack = BytesMut::new();
    Method::BasicAck(basic::Ack { delivery_tag: 0, multiple: true }).encode(ChannelId(1), &mut ack);
    let waits = [&publish_frames(&queue.name)[..], &ack].concat();
    client.bytes(&[&ack[..], &purge, &waits].concat());
    assert!(!client.machine.is_blocked());
    let purge = client.fx.shards[0].iter().find_map(|command| match command {
        Command::Purge { call, .. } => Some(*call),
        _ => None,
    });
    let purged = ConnectionEvent::Done { call: purge.unwrap(), outcome: Outcome::Purged { messages: 0 } };
    client.machine.apply(client.now, purged, &mut client.fx);
    assert!(matches!(decoded(&client.sent())[..], [Method::QueuePurgeOk(_)]));
    client.bytes(&[]);
    assert_eq!(client.blocked(), "low on disk");
    assert!(!client.machine.accepts_input(&client.fx));
    client.bytes(&[]);
    assert_eq!((client.published(), client.input.to_vec(), client.sent()), (0, waits, vec![]));
    client.shortage(NONE);
    client.bytes(&[]);
    assert_eq!((client.published(), client.input.len()), (1, 0));
}

#[test]
fn a_message_that_the_alarm_finds_half_way_blocks_with_its_next_frame() {
    let mut frames = BytesMut::new();
    basic::Publish { routing_key: "q", ..Default::default() }.encode(ChannelId(1), &mut frames);
    let method_bytes = frames.len();
    content::encode_content(ChannelId(1), &[0, 0], &[7; 10_000], 4096, &mut frames);
    for cut in [method_bytes, method_bytes + 10, 5000] {
        let mut client = Client::publisher();
        client.topology.add_queue(Arc::new(QueueSpec { name: "q".into(), ..spec(2, QueueSettings::default()) }));
        client.bytes(&frames[..cut]);
        client.shortage(MEMORY);
        client.bytes(&frames[cut..]);
        assert_eq!((client.blocked(), client.published()), ("low on memory".to_owned(), 0), "cut at {cut}");
        client.shortage(NONE);
        client.bytes(&[]);
        assert_eq!(client.published(), 1, "cut at {cut}");
    }
}

#[test]
fn who_only_consumes_and_acknowledges_is_not_blocked() {
    let mut client = Client::publisher();
    client.shortage(BOTH);
    let queue = spec(1, QueueSettings::default());
    client.method(1, &Method::BasicConsume(basic::Consume { queue: &queue.name, ..Default::default() }));
    let Some(Command::Consume(consume)) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    for seq in 1..=3 {
        let delivery = delivery(consume.consumer, &queue, seq, b"task");
        client.machine.apply(client.now, ConnectionEvent::Deliver(delivery), &mut client.fx);
        client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: seq, multiple: false }));
    }
    assert_eq!((client.state(), client.machine.is_blocked()), ("blocking", false));
    let [Command::Settle(settle)] = client.fx.shards[0][..] else { panic!("{:?}", client.fx.shards) };
    assert_eq!(
        settle.seqs().collect::<Vec<_>>(),
        [Seq(1), Seq(2), Seq(3)],
        "in one command, as they follow one another"
    );
}

#[test]
fn what_a_worker_says_of_its_deliveries_does_not_block_it() {
    let mut client = Client::publisher();
    client.shortage(BOTH);
    let mut bytes = BytesMut::new();
    for word in ["lease", "progress", "failure", "return"] {
        let routing_key = &format!("amq.leveret.{word}");
        basic::Publish { routing_key, ..Default::default() }.encode(ChannelId(1), &mut bytes);
        let headers = [("x-delivery-tag", 9), ("x-progress", 40)].into_iter().collect::<Table>();
        let mut list = amqp::PropertyList { headers: Some(headers), ..Default::default() };
        list.headers.get_or_insert_default().insert("x-failure-reason", "why");
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        content::encode_content(ChannelId(1), &properties, b"at length", 4096, &mut bytes);
    }
    client.bytes(&bytes);
    assert_eq!((client.state(), client.machine.is_blocked(), client.published()), ("blocking", false, 0));
    assert!(client.sent().is_empty());
    client.publish(1);
    assert_eq!(client.blocked(), "low on disk & memory");
}

#[test]
fn a_blocked_connection_still_gets_its_deliveries_and_confirms() {
    let mut client = Client::publisher();
    let queue = spec(1, QueueSettings::default());
    client.method(1, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: true }));
    client.method(1, &Method::BasicConsume(basic::Consume { queue: &queue.name, ..Default::default() }));
    let Some(Command::Consume(consume)) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    client.sent();
    client.publish(1);
    client.shortage(MEMORY);
    client.publish(1);
    assert_eq!(client.blocked(), "low on memory");
    let Some(Command::Mark { mark }) = client.fx.shards[0].last() else { panic!("{:?}", client.fx.shards) };
    let stored = ConnectionEvent::Stored { shard: ShardId(0), mark: *mark, refused: vec![] };
    client.machine.apply(client.now, stored, &mut client.fx);
    let delivery = delivery(consume.consumer, &queue, 1, b"task");
    client.machine.apply(client.now, ConnectionEvent::Deliver(delivery), &mut client.fx);
    let sent = client.sent();
    assert!(matches!(Method::decode(&sent[0].1), Ok(Method::BasicAck(_))), "{sent:?}");
    assert!(matches!(Method::decode(&sent[1].1), Ok(Method::BasicDeliver(_))), "{sent:?}");
}

#[test]
fn a_client_that_does_not_know_of_blocking_is_blocked_without_a_word() {
    let mut client = Client::accepted();
    client.log_in(capabilities(&[]), b"\0guest\0guest");
    client.set_up();
    client.shortage(MEMORY);
    client.publish(1);
    assert!(client.machine.is_blocked());
    client.shortage(NONE);
    assert!(!client.machine.is_blocked());
    assert_eq!(client.sent(), []);
}

#[test]
fn an_alarm_before_the_login_blocks_the_first_publish() {
    let mut client = Client::accepted();
    client.shortage(DISK);
    client.log_in(capabilities(&["connection.blocked"]), b"\0guest\0guest");
    client.set_up();
    client.publish(1);
    assert_eq!(client.blocked(), "low on disk");
}

#[test]
fn an_alarm_that_ends_before_a_publish_leaves_no_trace() {
    let mut client = Client::publisher();
    client.shortage(DISK);
    client.shortage(NONE);
    client.publish(1);
    assert_eq!((client.sent(), client.state()), (vec![], "running"));
}

#[test]
fn a_blocked_client_is_sent_heartbeats_and_its_own_are_not_missed() {
    let mut client = Client::publisher();
    client.shortage(MEMORY);
    client.publish(1);
    client.blocked();
    client.pass(30_000);
    client.sent();
    for _ in 0..100 {
        client.pass(30_000);
        assert_eq!(client.sent(), [(ChannelId(0), vec![])], "a heartbeat");
    }
    assert_eq!(client.fx.close, None);

    client.shortage(NONE);
    client.sent();
    for _ in 0..3 {
        assert_eq!(client.fx.close, None, "it has its whole time to be heard again");
        client.pass(30_000);
    }
    client.pass(30_000);
    assert_eq!(client.fx.close, Some(CloseSocket::Now));
}

#[test]
fn a_blocked_connection_can_be_closed() {
    let mut client = Client::publisher();
    client.shortage(MEMORY);
    client.publish(1);
    client.blocked();
    let fault = Fault::new(ReplyCode::ConnectionForced, "enough");
    client.machine.apply(client.now, ConnectionEvent::Close(fault), &mut client.fx);
    assert_eq!(client.closed(), (320, "CONNECTION_FORCED - enough".to_owned()));
    assert!(client.machine.accepts_input(&client.fx), "the answer is to be read");
    client.publish(1);
    client.shortage(NONE);
    assert_eq!((client.sent(), client.published(), client.input.len()), (vec![], 0, 0));
    client.method(0, &Method::ConnectionCloseOk(connection::CloseOk));
    assert!(client.machine.is_finished());

    let mut lost = Client::publisher();
    lost.shortage(MEMORY);
    lost.publish(1);
    lost.machine.lost(&mut lost.fx);
    assert!(lost.machine.is_finished() && !lost.machine.is_blocked());
}
