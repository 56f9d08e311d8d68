//! What a connection does by itself: handshake, frames, heartbeats, and errors that need no shard.

mod acknowledge;
mod blocked;
mod repeated;

use super::*;
use crate::access::Denial;
use crate::command::{Consume, Delivery, Publish, QueueSettings, QueueSpec, Settle, Settlement};
use crate::message::{Message, MessageParts};
use crate::queue::tests::spec;
use crate::topology::{Exchange, ExchangeKind};
use amqp::method::{basic, channel, connection, queue, tx};
use amqp::{PropertyList, Table, Value, content};
use bytes::BytesMut;
use store::Seq;

/// A connection and the world around it.
struct Client {
    machine: Connection,
    topology: Topology,
    fx: Effects,
    now: Now,
    input: BytesMut,
}

/// A frame that the server sent, with its method where it has one.
type Sent = (ChannelId, Vec<u8>);

impl Client {
    fn accepted() -> Self {
        Self::from("127.0.0.1:40000")
    }

    fn from(peer: &str) -> Self {
        let now = Now { ms: 1_000_000, unix_ms: 1_700_000_000_000 };
        let peer = Peer { peer: peer.parse().unwrap(), local: "127.0.0.1:5672".parse().unwrap() };
        let settings = Arc::new(ConnectionSettings::default());
        let machine = Connection::new(ConnectionId(1), settings, peer, 1, [3; 32], now);
        Self { machine, topology: Topology::new(), fx: Effects::new(1), now, input: BytesMut::new() }
    }

    fn running() -> Self {
        let mut client = Self::accepted();
        client.log_in(capabilities(&["consumer_cancel_notify", "authentication_failure_close"]), b"\0guest\0guest");
        client.tune(2047, 131_072, 60);
        client.method(0, &connection::Open { vhost: "/" }.into_method());
        assert!(matches!(decoded(&client.sent()).last(), Some(Method::ConnectionOpenOk(_))));
        client
    }

    fn with_channel() -> Self {
        let mut client = Self::running();
        client.method(1, &Method::ChannelOpen(channel::Open));
        assert_eq!(client.sent().len(), 1);
        client
    }

    fn log_in(&mut self, client_properties: Table, response: &[u8]) {
        self.bytes(&frame::PROTOCOL_HEADER);
        assert!(matches!(decoded(&self.sent())[..], [Method::ConnectionStart(_)]));
        let start_ok = connection::StartOk { client_properties, mechanism: "PLAIN", response, locale: "en_US" };
        self.method(0, &Method::ConnectionStartOk(start_ok));
    }

    fn tune(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        self.method(0, &Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat }));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.machine.receive(self.now, &mut self.input, &self.topology, &mut self.fx);
        while let Some(question) = self.fx.question.take() {
            self.machine.apply(self.now, question.plain_answer(&self.topology), &mut self.fx);
            self.machine.receive(self.now, &mut self.input, &self.topology, &mut self.fx);
        }
    }

    fn method(&mut self, number: u16, method: &Method<'_>) {
        let mut frame = BytesMut::new();
        method.encode(ChannelId(number), &mut frame);
        self.bytes(&frame);
    }

    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.machine.tick(self.now, &mut self.fx);
    }

    fn sent(&mut self) -> Vec<Sent> {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let used = self.fx.out.io_slices(&mut slices);
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        self.fx.out.advance(bytes.len());
        self.machine.written(bytes.len(), &mut self.fx);
        let (mut at, mut frames) = (0, vec![]);
        while let Ok(Some((frame, taken))) = frame::decode(&bytes[at..], 131_072) {
            frames.push((frame.channel, frame.payload.to_vec()));
            at += taken;
        }
        assert_eq!(at, bytes.len(), "only whole frames are sent");
        frames
    }

    /// The connection.close that was sent, as code and text.
    fn closed(&mut self) -> (u16, String) {
        match decoded(&self.sent()).last() {
            Some(Method::ConnectionClose(close)) => (close.reply_code, close.reply_text.to_owned()),
            other => panic!("{other:?}"),
        }
    }
}

trait IntoMethod<'a> {
    fn into_method(self) -> Method<'a>;
}

impl<'a> IntoMethod<'a> for connection::Open<'a> {
    fn into_method(self) -> Method<'a> {
        Method::ConnectionOpen(self)
    }
}

fn decoded(frames: &[Sent]) -> Vec<Method<'_>> {
    frames.iter().map(|(_, payload)| Method::decode(payload).unwrap()).collect()
}

fn capabilities(names: &[&str]) -> Table {
    let capabilities: Table = names.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
    [("capabilities".to_owned(), Value::Table(capabilities))].into_iter().collect()
}

#[test]
fn a_wrong_protocol_header_is_answered_with_ours_and_the_socket_closed() {
    for header in [&b"AMQP\x03\x01\0\0"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02", b"AMQP\0\0\x08\0"] {
        let mut client = Client::accepted();
        client.bytes(header);
        assert_eq!(client.fx.out.len(), 8);
        assert_eq!(client.fx.close, Some(CloseSocket::AfterFlush));
        assert!(client.machine.is_finished());
        assert_eq!(client.fx.notices.len(), 1);
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let mut client = Client::accepted();
    for byte in frame::PROTOCOL_HEADER {
        assert!(client.sent().is_empty());
        client.bytes(&[byte]);
    }
    assert!(matches!(decoded(&client.sent())[..], [Method::ConnectionStart(_)]));
}

#[test]
fn a_wrong_password_is_told_to_clients_that_understand_and_others_wait() {
    let mut told = Client::accepted();
    told.log_in(capabilities(&["authentication_failure_close"]), b"\0guest\0wrong");
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker \
                logfile.";
    assert_eq!(told.closed(), (403, text.to_owned()));

    let mut untold = Client::accepted();
    untold.log_in(Table::new(), b"\0guest\0wrong");
    assert!(untold.sent().is_empty());
    assert_eq!(untold.fx.close, None);
    untold.pass(3000);
    assert_eq!(untold.fx.close, Some(CloseSocket::Now));
}

#[test]
fn while_the_host_checks_a_login_nothing_more_is_taken_in() {
    let mut client = Client::accepted();
    client.bytes(&frame::PROTOCOL_HEADER);
    client.sent();
    let response = b"\0guest\0guest";
    let start_ok =
        connection::StartOk { client_properties: Table::new(), mechanism: "PLAIN", response, locale: "en_US" };
    let mut frames = BytesMut::new();
    Method::ConnectionStartOk(start_ok).encode(ChannelId(0), &mut frames);
    let tune_ok = connection::TuneOk { channel_max: 5, frame_max: 131_072, heartbeat: 0 };
    Method::ConnectionTuneOk(tune_ok).encode(ChannelId(0), &mut frames);
    client.machine.receive(client.now, &mut frames, &client.topology, &mut client.fx);
    let Some(HostQuestion::LogIn(login)) = client.fx.question.take() else { panic!("{:?}", client.fx.question) };
    assert!(!client.machine.accepts_input(&client.fx) && !frames.is_empty() && client.sent().is_empty());
    assert!(!format!("{login:?}").contains("[103"), "a password is not shown: {login:?}");
    let refusal = login.refused(Denial::NotLocal);
    client.machine.apply(client.now, ConnectionEvent::LoggedIn(Err(refusal)), &mut client.fx);
    assert!(client.fx.notices.iter().any(|notice| notice.text.contains("localhost")), "{:?}", client.fx.notices);
    // An answer that nobody waits for.
    let user = login.as_guest(&client.topology).unwrap();
    client.machine.apply(client.now, ConnectionEvent::LoggedIn(Ok(user)), &mut client.fx);
    assert!(client.sent().is_empty());
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_dropped() {
    let mut client = Client::accepted();
    assert_eq!(client.machine.deadline(), Some(client.now.ms + 10_000));
    client.pass(9_999);
    assert_eq!(client.fx.close, None);
    client.pass(1);
    assert_eq!(client.fx.close, Some(CloseSocket::Now));
}

#[test]
fn tuning_beyond_what_was_offered_is_refused() {
    for (channel_max, frame_max, text) in [
        (0, 131_072, "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
        (2048, 131_072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
        (10, 1000, "negotiated frame_max = 1000 is lower than the minimum allowed value (4096)"),
        (10, 200_000, "negotiated frame_max = 200000 is higher than the maximum allowed value (131072)"),
    ] {
        let mut client = Client::accepted();
        client.log_in(Table::new(), b"\0guest\0guest");
        client.sent();
        client.tune(channel_max, frame_max, 0);
        assert_eq!(client.closed(), (530, format!("NOT_ALLOWED - {text}")));
    }
}

#[test]
fn an_unknown_vhost_is_refused() {
    let mut client = Client::accepted();
    client.log_in(Table::new(), b"\0guest\0guest");
    client.tune(10, 4096, 0);
    client.method(0, &connection::Open { vhost: "nowhere" }.into_method());
    assert_eq!(client.closed(), (530, "NOT_ALLOWED - vhost nowhere not found".to_owned()));
}

#[test]
fn a_silent_client_is_dropped_after_two_heartbeats_and_a_quiet_server_beats() {
    let mut client = Client::running();
    client.pass(30_000);
    assert!(client.sent().is_empty(), "the handshake was a sign of life");
    for _ in 0..2 {
        client.pass(30_000);
        assert_eq!(client.sent(), [(ChannelId(0), vec![])], "a heartbeat");
        assert_eq!(client.fx.close, None);
    }
    client.pass(30_000);
    assert_eq!(client.fx.close, Some(CloseSocket::Now));

    let mut alive = Client::running();
    for _ in 0..100 {
        alive.pass(30_000);
        alive.bytes(&frame::HEARTBEAT);
        alive.sent();
    }
    assert_eq!(alive.fx.close, None);
}

#[test]
fn frames_out_of_place_close_the_connection_with_their_code() {
    let mut method = BytesMut::new();
    Method::QueueDeclare(queue::Declare { queue: "q", ..Default::default() }).encode(ChannelId(9), &mut method);
    let mut body = frame::header(FrameKind::Body, ChannelId(1), 1).to_vec();
    body.extend([b'x', frame::END]);
    let mut header = BytesMut::new();
    content::encode_header(ChannelId(1), &[0, 0], 3, &mut header);
    let cases: [(&[u8], u16, &str); 6] = [
        (&method, 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (&[8, 0, 1, 0, 0, 0, 0, frame::END], 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
        (&body, 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
        (&header, 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
        (&[1, 0, 1, 0, 0, 0, 0, 0x11], 501, "FRAME_ERROR - "),
        (&[1, 0, 1, 0x7f, 0, 0, 0], 501, "FRAME_ERROR - "),
    ];
    for (bytes, code, text) in cases {
        let mut client = Client::with_channel();
        client.bytes(bytes);
        let closed = client.closed();
        assert_eq!(closed.0, code, "{closed:?}");
        assert!(closed.1.starts_with(text), "{closed:?}");
        client.bytes(b"whatever follows");
        client.method(0, &Method::ConnectionCloseOk(connection::CloseOk));
        assert!(client.fx.close.is_some());
    }
}

#[test]
fn a_second_channel_open_and_a_channel_too_many_are_refused() {
    let mut client = Client::with_channel();
    client.method(1, &Method::ChannelOpen(channel::Open));
    assert_eq!(client.closed(), (504, "CHANNEL_ERROR - second 'channel.open' seen".to_owned()));

    let mut client = Client::running();
    let numbers = (1..2047).chain([65_535]);
    numbers.for_each(|number| client.method(number, &Method::ChannelOpen(channel::Open)));
    assert_eq!(client.sent().len(), 2047, "open channels are counted, whatever their numbers");
    client.method(2047, &Method::ChannelOpen(channel::Open));
    let text = "NOT_ALLOWED - number of channels opened (2047) has reached the negotiated channel_max (2047)";
    let sent = client.sent();
    let Some(Method::ConnectionClose(close)) = decoded(&sent).pop() else { panic!("{sent:?}") };
    assert_eq!((close.reply_code, close.reply_text), (530, text));
    assert_eq!((close.class_id, close.method_id), (0, 0), "RabbitMQ blames no method");
}

#[test]
fn an_error_on_one_channel_leaves_the_others_alone() {
    let mut client = Client::with_channel();
    client.method(2, &Method::ChannelOpen(channel::Open));
    client.sent();
    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 82, multiple: false }));
    let sent = client.sent();
    let [Method::ChannelClose(close)] = &decoded(&sent)[..] else { panic!("{sent:?}") };
    assert_eq!((close.reply_code, close.reply_text), (406, "PRECONDITION_FAILED - unknown delivery tag 82"));
    assert_eq!((close.class_id, close.method_id), (60, 80));

    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 83, multiple: false }));
    client.method(2, &Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 1, global: false }));
    assert!(matches!(decoded(&client.sent())[..], [Method::BasicQosOk(_)]), "what follows on the channel is ignored");

    client.method(1, &Method::ChannelCloseOk(channel::CloseOk));
    client.method(1, &Method::ChannelOpen(channel::Open));
    assert!(matches!(decoded(&client.sent())[..], [Method::ChannelOpenOk(_)]), "the number is free again");
}

#[test]
fn ack_of_everything_is_fine_when_there_is_nothing() {
    let mut client = Client::with_channel();
    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 0, multiple: true }));
    assert!(client.sent().is_empty());
    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 0, multiple: false }));
    assert!(matches!(decoded(&client.sent())[..], [Method::ChannelClose(_)]));
}

#[test]
fn an_unroutable_mandatory_message_comes_back_before_its_confirm() {
    let mut client = Client::with_channel();
    client.method(1, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: true }));
    let mut bytes = BytesMut::new();
    let publish = basic::Publish { exchange: "", routing_key: "nobody", mandatory: true, immediate: false };
    publish.encode(ChannelId(1), &mut bytes);
    content::encode_content(ChannelId(1), &[0x10, 0, 2], b"body", 4096, &mut bytes);
    client.bytes(&bytes);
    let sent = client.sent();
    assert_eq!(sent.len(), 4, "return, header, body, ack");
    let Ok(Method::BasicReturn(returned)) = Method::decode(&sent[0].1) else { panic!("{sent:?}") };
    assert_eq!((returned.reply_code, returned.reply_text, returned.routing_key), (312, "NO_ROUTE", "nobody"));
    assert_eq!(sent[2].1, b"body");
    let ack = basic::Ack { delivery_tag: 1, multiple: false };
    assert_eq!(Method::decode(&sent[3].1), Ok(Method::BasicAck(ack)));
}

#[test]
fn a_commit_to_exchanges_without_end_gives_their_counters_away_as_it_goes() {
    let mut client = Client::with_channel();
    client.method(1, &Method::TxSelect(tx::Select));
    client.sent();
    for number in 0..100 {
        let name = format!("x{number}");
        client.topology.add_exchange(Exchange::new(VhostId(0), &name, ExchangeKind::Topic));
        let mut bytes = BytesMut::new();
        basic::Publish { exchange: &name, ..Default::default() }.encode(ChannelId(1), &mut bytes);
        content::encode_content(ChannelId(1), &[0, 0], b"body", 4096, &mut bytes);
        client.bytes(&bytes);
    }
    client.fx.tallied = None;
    client.method(1, &Method::TxCommit(tx::Commit));
    let mut tallied = client.fx.tallied.take().expect("some were given away");
    assert!(tallied.exchanges.len() >= 64);
    assert!(matches!(decoded(&client.sent())[..], [Method::TxCommitOk(_)]));
    client.method(1, &Method::ChannelClose(channel::Close::default()));
    client.fx.tallied.take().unwrap().exchanges.iter().for_each(|(id, counted)| tallied.add_exchange(*id, counted));
    assert_eq!(tallied.exchanges.values().map(|counted| counted.drop_unroutable).sum::<u64>(), 100);
}

#[test]
fn a_commit_returns_the_message_whose_queue_was_deleted_meanwhile() {
    let mut client = Client::with_channel();
    let queue = Arc::new(spec(1, QueueSettings::default()));
    client.topology.add_queue(Arc::clone(&queue));
    client.method(1, &Method::TxSelect(tx::Select));
    let mut bytes = BytesMut::new();
    let publish = basic::Publish { exchange: "", routing_key: &queue.name, mandatory: true, immediate: false };
    publish.encode(ChannelId(1), &mut bytes);
    content::encode_content(ChannelId(1), &[0, 0], b"body", 4096, &mut bytes);
    client.bytes(&bytes);
    client.topology.remove_queue(&queue);
    client.sent();
    client.method(1, &Method::TxCommit(tx::Commit));
    let sent = client.sent();
    assert_eq!(sent.len(), 4, "return, header, body, commit-ok");
    assert!(matches!(Method::decode(&sent[0].1), Ok(Method::BasicReturn(_))));
    assert!(matches!(Method::decode(&sent[3].1), Ok(Method::TxCommitOk(_))));
}

fn delivery(consumer: ConsumerNumber, queue: &QueueSpec, seq: u64, body: &[u8]) -> Delivery {
    let parts = MessageParts { exchange: "", routing_key: &queue.name, properties: &[0, 0], died_here: false };
    Delivery {
        channel: ChannelId(1),
        consumer,
        queue: queue.queue,
        seq: Seq(seq),
        redelivered: false,
        attempts: 0,
        place: None,
        no_ack: false,
        message: Message::new(parts, body),
    }
}

#[test]
fn what_was_held_for_a_consumer_that_is_gone_takes_no_room_in_the_window() {
    let mut client = Client::with_channel();
    let queue = Arc::new(spec(1, QueueSettings::default()));
    client.topology.add_queue(Arc::clone(&queue));
    client.method(1, &Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 1, global: true }));
    client.method(1, &Method::BasicConsume(basic::Consume { queue: &queue.name, ..Default::default() }));
    let Some(Command::Consume(consume)) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    client.fx.shards[0].clear();
    for (seq, body) in [(1, vec![0; 10]), (2, vec![0; 600_000])] {
        let delivery = delivery(consume.consumer, &queue, seq, &body);
        client.machine.apply(client.now, ConnectionEvent::Deliver(delivery), &mut client.fx);
    }
    assert!(client.sent().len() < 10, "the channel's limit is one");
    assert!(client.fx.shards[0].is_empty());
    client.machine.apply(client.now, ConnectionEvent::ConsumerGone { consumer: consume.consumer }, &mut client.fx);
    // Whether its queue is gone or it was too slow: the shard passes over what it knows no more.
    let unsent = Settlement::Unsent;
    assert!(
        matches!(
            client.fx.shards[0][..],
            [Command::Settle(Settle { seq: Seq(2), count: 1, how, .. }), Command::Drained { bytes: 600_000.. }]
                if how == unsent
        ),
        "{:?}",
        client.fx.shards
    );
}

/// Channel 1 consumes from a queue as "t", and channel 2 has it deleted, with an answer that is still to be given.
fn deleting_what_it_consumes(client: &mut Client) -> ConnectionEvent {
    client.topology.add_queue(Arc::new(spec(1, QueueSettings::default())));
    client.topology.add_queue(Arc::new(spec(2, QueueSettings::default())));
    let consume = consume_as_t(client, "q1");
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    client.method(2, &Method::ChannelOpen(channel::Open));
    let delete = queue::Delete { queue: "q1", if_unused: false, if_empty: false, nowait: false };
    client.method(2, &Method::QueueDelete(delete));
    let call = client.fx.catalog.pop().unwrap().call;
    client.sent();
    let consumers = vec![(ConnectionId(1), consume.consumer)];
    ConnectionEvent::Done { call, outcome: Outcome::QueueDeleted { messages: 0, consumers } }
}

fn consume_as_t(client: &mut Client, queue: &str) -> Box<Consume> {
    client.method(1, &Method::BasicConsume(basic::Consume { queue, consumer_tag: "t", ..Default::default() }));
    match client.fx.shards[0].pop() {
        Some(Command::Consume(consume)) => consume,
        other => panic!("{other:?}, {:?}", decoded(&client.sent())),
    }
}

#[test]
fn with_the_answer_to_a_deletion_the_tags_of_the_connections_consumers_are_free() {
    let mut client = Client::with_channel();
    let deleted = deleting_what_it_consumes(&mut client);
    client.machine.apply(client.now, deleted, &mut client.fx);
    let sent = client.sent();
    let told = [(ChannelId(2), "delete-ok"), (ChannelId(1), "cancel")];
    let named = sent.iter().map(|(number, payload)| match Method::decode(payload).unwrap() {
        Method::QueueDeleteOk(_) => (*number, "delete-ok"),
        Method::BasicCancel(cancel) if cancel.consumer_tag == "t" && cancel.nowait => (*number, "cancel"),
        other => panic!("{other:?}"),
    });
    assert_eq!(named.collect::<Vec<_>>(), told);
    consume_as_t(&mut client, "q2");
}

#[test]
fn a_client_that_knows_no_cancellation_is_told_of_a_deletion_by_its_answer_only() {
    let mut client = Client::accepted();
    client.log_in(capabilities(&[]), b"\0guest\0guest");
    client.tune(2047, 131_072, 60);
    client.method(0, &connection::Open { vhost: "/" }.into_method());
    client.method(1, &Method::ChannelOpen(channel::Open));
    let deleted = deleting_what_it_consumes(&mut client);
    client.machine.apply(client.now, deleted, &mut client.fx);
    assert!(matches!(decoded(&client.sent())[..], [Method::QueueDeleteOk(_)]));
    consume_as_t(&mut client, "q2");
}

#[test]
fn consumers_end_with_their_queue_though_the_channel_that_deleted_it_was_closed_meanwhile() {
    let mut client = Client::with_channel();
    let deleted = deleting_what_it_consumes(&mut client);
    let slow = ConnectionEvent::AckTimeout { channel: ChannelId(2), timeout_ms: 1 };
    client.machine.apply(client.now, slow, &mut client.fx);
    client.machine.apply(client.now, deleted, &mut client.fx);
    let sent = client.sent();
    assert!(matches!(decoded(&sent)[..], [Method::ChannelClose(_), Method::BasicCancel(_)]), "{:?}", decoded(&sent));
}

#[test]
fn recover_is_answered_at_once_and_returns_what_the_client_was_sent() {
    let mut client = Client::with_channel();
    let queue = Arc::new(spec(1, QueueSettings::default()));
    client.topology.add_queue(Arc::clone(&queue));
    client.method(1, &Method::BasicConsume(basic::Consume { queue: &queue.name, ..Default::default() }));
    let Some(Command::Consume(consume)) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    let first = ConnectionEvent::Deliver(delivery(consume.consumer, &queue, 1, b"first"));
    client.machine.apply(client.now, first, &mut client.fx);
    client.sent();
    client.method(1, &Method::BasicRecover(basic::Recover { requeue: true }));
    // On its way when the client asked: it stays with the channel.
    let second = ConnectionEvent::Deliver(delivery(consume.consumer, &queue, 2, b"second"));
    client.machine.apply(client.now, second, &mut client.fx);
    let sent = client.sent();
    assert!(matches!(Method::decode(&sent[0].1), Ok(Method::BasicRecoverOk(_))));
    assert!(matches!(Method::decode(&sent[1].1), Ok(Method::BasicDeliver(_))));
    let [Command::Settle(settle)] = client.fx.shards[0][..] else { panic!("{:?}", client.fx.shards) };
    assert_eq!((settle.seq, settle.how), (Seq(1), Settlement::Requeue));
    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 2, multiple: false }));
    assert!(matches!(client.fx.shards[0][..], [_, Command::Settle(Settle { how: Settlement::Ack, .. })]));
}

#[test]
fn recover_leaves_what_the_transaction_has_acknowledged() {
    let mut client = Client::with_channel();
    let queue = Arc::new(spec(1, QueueSettings::default()));
    client.topology.add_queue(Arc::clone(&queue));
    client.method(1, &Method::TxSelect(tx::Select));
    for seq in 1..=2 {
        client.method(1, &Method::BasicGet(basic::Get { queue: &queue.name, no_ack: false }));
        let Some(Command::Get { call, .. }) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
        let outcome = Outcome::Got { delivery: delivery(ConsumerNumber::GET, &queue, seq, b"body"), left: 0 };
        client.machine.apply(client.now, ConnectionEvent::Done { call, outcome }, &mut client.fx);
    }
    client.method(1, &Method::BasicAck(basic::Ack { delivery_tag: 1, multiple: false }));
    client.sent();
    client.method(1, &Method::BasicRecover(basic::Recover { requeue: true }));
    assert!(matches!(decoded(&client.sent())[..], [Method::BasicRecoverOk(_)]));
    let [Command::Settle(settle)] = client.fx.shards[0][..] else { panic!("{:?}", client.fx.shards) };
    assert_eq!((settle.seq, settle.how), (Seq(2), Settlement::Requeue));
}

#[test]
fn a_reply_address_is_looked_up_for_each_reply() {
    let mut client = Client::with_channel();
    let requester = ChannelKey { connection: ConnectionId(2), channel: ChannelId(1) };
    let mut bytes = BytesMut::new();
    let routing_key = "amq.rabbitmq.reply-to.secret";
    basic::Publish { routing_key, ..Default::default() }.encode(ChannelId(1), &mut bytes);
    content::encode_content(ChannelId(1), &[0, 0], b"answer", 4096, &mut bytes);
    client.bytes(&bytes);
    assert!(client.fx.shards[0].is_empty());
    client.topology.reply_consumers_mut().add(requester, "secret");
    client.bytes(&bytes);
    assert!(matches!(client.fx.shards[0][..], [Command::Reply { to, .. }] if to == requester));
    client.topology.reply_consumers_mut().remove(requester);
    client.bytes(&bytes);
    assert_eq!(client.fx.shards[0].len(), 1);
}

#[test]
fn a_channel_of_the_same_number_has_another_reply_address() {
    let mut client = Client::running();
    let mut secrets = vec![];
    for _opening in 0..2 {
        client.method(1, &Method::ChannelOpen(channel::Open));
        let consume = basic::Consume { queue: "amq.rabbitmq.reply-to", no_ack: true, ..Default::default() };
        client.method(1, &Method::BasicConsume(consume));
        let CatalogRequest { call, ask: CatalogAsk::AddReplyConsumer { secret, .. }, .. } =
            client.fx.catalog.pop().unwrap()
        else {
            panic!("it asks for an address")
        };
        secrets.push(secret);
        client.machine.apply(client.now, ConnectionEvent::Done { call, outcome: Outcome::Applied }, &mut client.fx);
        client.method(1, &Method::ChannelClose(channel::Close::default()));
        let CatalogRequest { call, .. } = client.fx.catalog.pop().unwrap();
        client.machine.apply(client.now, ConnectionEvent::Done { call, outcome: Outcome::Applied }, &mut client.fx);
    }
    assert_ne!(secrets[0], secrets[1]);
}

#[test]
fn a_message_that_is_too_large_is_refused_before_its_body() {
    let mut client = Client::with_channel();
    let mut bytes = BytesMut::new();
    basic::Publish { routing_key: "q", ..Default::default() }.encode(ChannelId(1), &mut bytes);
    content::encode_header(ChannelId(1), &[0, 0], (128 << 20) + 1, &mut bytes);
    client.bytes(&bytes);
    let sent = client.sent();
    let [Method::ChannelClose(close)] = &decoded(&sent)[..] else { panic!("{sent:?}") };
    let text = "PRECONDITION_FAILED - message size 134217729 is larger than configured max size 134217728";
    assert_eq!((close.reply_code, close.reply_text), (406, text));
}

#[test]
fn closing_waits_for_what_the_connection_holds() {
    let mut client = Client::with_channel();
    client.method(1, &Method::QueueDeclare(queue::Declare { queue: "mine", exclusive: true, ..Default::default() }));
    assert!(!client.machine.accepts_input(&client.fx), "the answer comes first");
    let call = client.fx.catalog[0].call;
    let declared = Outcome::QueueDeclared { messages: 0, consumers: 0 };
    client.machine.apply(client.now, ConnectionEvent::Done { call, outcome: declared }, &mut client.fx);
    assert!(matches!(decoded(&client.sent())[..], [Method::QueueDeclareOk(_)]));

    client.method(0, &Method::ConnectionClose(connection::Close::default()));
    assert!(client.sent().is_empty());
    let request = client.fx.catalog.pop().unwrap();
    assert!(matches!(request.ask, CatalogAsk::CloseConnection));
    let gone = ConnectionEvent::Done { call: request.call, outcome: Outcome::ConnectionClosed };
    client.machine.apply(client.now, gone, &mut client.fx);
    assert!(matches!(decoded(&client.sent())[..], [Method::ConnectionCloseOk(_)]));
    assert!(client.machine.is_finished());
    assert_eq!(client.fx.close, Some(CloseSocket::AfterClient));
}
