//! A publish like the last one is compared, not parsed: nobody may notice.

use super::*;
use crate::command::{BindingSpec, Command, DestinationKind};
use crate::topology::{Exchange, ExchangeKind};
use proptest::prelude::*;

/// What a publisher does next.
#[derive(Clone, Debug)]
enum Act {
    Publish { channel: u16, exchange: usize, key: usize, properties: usize, mandatory: bool, body: Vec<u8> },
    Confirm { channel: u16 },
    Transact { channel: u16 },
}

fn act() -> impl Strategy<Value = Act> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    // Few of each, so that most are like the last, in all or in all but the key.
    let what = (0..12_usize, 0..2 * KEYS.len(), 0..12_usize);
    let publish = (1..3_u16, what, 0..6_u8, body).prop_map(|(channel, what, flags, body)| {
        let (exchange, key, properties) = (what.0.saturating_sub(10), what.1.saturating_sub(KEYS.len()), what.2);
        Act::Publish { channel, exchange, key, properties: properties.saturating_sub(8), mandatory: flags == 0, body }
    });
    prop_oneof![
        40 => publish,
        1 => (1..3_u16).prop_map(|channel| Act::Confirm { channel }),
        1 => (1..3_u16).prop_map(|channel| Act::Transact { channel }),
    ]
}

const EXCHANGES: [&str; 2] = ["", "topics"];

/// Some lead nowhere, and nobody waits for such a reply.
const KEYS: [&str; 7] = ["one", "two", "nobody", "a.b", "a.c", "amq.leveret.lease", "amq.rabbitmq.reply-to.x"];

fn properties(which: usize) -> Vec<u8> {
    let list = match which {
        0 => PropertyList::default(),
        1 => PropertyList { delivery_mode: Some(2), ..PropertyList::default() },
        2 => PropertyList { priority: Some(3), expiration: Some(b"5000".to_vec()), ..PropertyList::default() },
        _ => {
            let mut headers = Table::new();
            headers.insert("CC", Value::Array(vec![Value::Str(b"two".to_vec())]));
            PropertyList { headers: Some(headers), ..PropertyList::default() }
        }
    };
    let mut bytes = BytesMut::new();
    list.encode(&mut bytes);
    bytes.to_vec()
}

fn frames(act: &Act, bytes: &mut BytesMut) {
    match act {
        Act::Publish { channel, exchange, key, properties: which, mandatory, body } => {
            let (channel, exchange, routing_key) = (ChannelId(*channel), EXCHANGES[*exchange], KEYS[*key]);
            let publish = basic::Publish { exchange, routing_key, mandatory: *mandatory, ..Default::default() };
            publish.encode(channel, bytes);
            content::encode_content(channel, &properties(*which), body, 4096, bytes);
        }
        Act::Confirm { channel } => {
            Method::ConfirmSelect(amqp::method::confirm::Select { nowait: true }).encode(ChannelId(*channel), bytes);
        }
        Act::Transact { channel } => Method::TxSelect(tx::Select).encode(ChannelId(*channel), bytes),
    }
}

fn publisher() -> Client {
    let mut client = Client::with_channel();
    client.method(2, &Method::ChannelOpen(channel::Open));
    for (id, name) in (1..).zip(&KEYS[..2]) {
        let queue = QueueSpec { name: (*name).into(), ..spec(id, QueueSettings::default()) };
        client.topology.add_queue(Arc::new(queue));
    }
    client.topology.add_exchange(Exchange::new(VhostId(0), "topics", ExchangeKind::Topic));
    for (key, queue) in [("*.b", "one"), ("a.#", "two"), ("one", "one")] {
        let binding = BindingSpec {
            source: "topics".to_owned(),
            destination: queue.to_owned(),
            kind: DestinationKind::Queue,
            key: key.to_owned(),
            arguments: Table::new(),
        };
        let ends = client.topology.ends(VhostId(0), &binding).unwrap();
        client.topology.bind(VhostId(0), ends, &binding).unwrap();
    }
    client.sent();
    client
}

/// Every message that was sent on, with all that is said of it, one by one.
fn published(client: &Client) -> Vec<String> {
    let mut all = vec![];
    for command in &client.fx.shards[0] {
        match command {
            Command::Publish(publish) => all.extend(publish.messages().map(|message| {
                let Publish { queues, persistent, expiration_ms, priority, confirm, .. } = publish;
                format!("{queues:?} {message:?} {persistent} {expiration_ms:?} {priority:?} {confirm}")
            })),
            // One for each step: how many there are depends on how the input is cut.
            Command::Mark { .. } => {}
            other => all.push(format!("{other:?}")),
        }
    }
    all
}

/// What the client is told, but for confirms: those wait for the end of a step.
fn told(client: &mut Client) -> Vec<Sent> {
    let mut sent = client.sent();
    sent.retain(|(_, payload)| !matches!(Method::decode(payload), Ok(Method::BasicAck(_))));
    sent
}

proptest! {
    #[test]
    fn however_the_input_is_cut_the_same_is_published(acts in proptest::collection::vec(act(), 1..60), cut in 1..200_usize) {
        let mut bytes = BytesMut::new();
        acts.iter().for_each(|act| frames(act, &mut bytes));
        // Octet by octet no publish is ever there as a whole.
        let (mut parsed, mut compared) = (publisher(), publisher());
        bytes.chunks(1).for_each(|piece| parsed.bytes(piece));
        bytes.chunks(cut).for_each(|piece| compared.bytes(piece));
        prop_assert_eq!(published(&parsed), published(&compared));
        prop_assert_eq!(told(&mut parsed), told(&mut compared));
        let counted = |client: &Client| client.machine.view(&client.fx).channels.iter().map(|one| (one.unconfirmed, one.uncommitted, format!("{:?}", one.counters))).collect::<Vec<_>>();
        prop_assert_eq!(counted(&parsed), counted(&compared));
    }
}

#[test]
fn a_repeated_publish_goes_where_its_queue_is_now() {
    let mut client = publisher();
    let mut publish = BytesMut::new();
    let act = Act::Publish { channel: 1, exchange: 0, key: 0, properties: 1, mandatory: false, body: b"job".to_vec() };
    frames(&act, &mut publish);
    (0..3).for_each(|_| client.bytes(&publish));
    assert_eq!(published(&client).len(), 3);
    let queue = Arc::clone(client.topology.queue(VhostId(0), "one").unwrap());
    client.topology.remove_queue(&queue);
    (0..3).for_each(|_| client.bytes(&publish));
    assert_eq!(published(&client).len(), 3, "the queue is gone");
    client.topology.add_queue(Arc::new(QueueSpec { name: "one".into(), ..spec(9, QueueSettings::default()) }));
    (0..3).for_each(|_| client.bytes(&publish));
    let all = published(&client);
    assert_eq!(all.len(), 6);
    assert!(all[5].contains("QueueId(9)"), "{}", all[5]);
}

#[test]
fn what_differs_in_its_key_only_goes_by_that_key_and_is_compared_when_it_comes_again() {
    let mut client = publisher();
    let mut bytes = BytesMut::new();
    for key in [0, 1, 0, 1, 1, 1, 0, 2, 0] {
        let body = b"job".to_vec();
        frames(&Act::Publish { channel: 1, exchange: 0, key, properties: 1, mandatory: false, body }, &mut bytes);
    }
    client.bytes(&bytes);
    let all = published(&client);
    let queues: Vec<bool> = all.iter().map(|one| one.contains("QueueId(2)")).collect();
    assert_eq!(queues, [false, true, false, true, true, true, false, false], "{all:?}");
    assert!(all[4].contains("two"), "{}", all[4]);
}

#[test]
fn a_repeated_publish_that_is_too_large_is_refused() {
    let mut client = publisher();
    client.machine.settings = Arc::new(ConnectionSettings { message_bytes_max: 4, ..ConnectionSettings::default() });
    let publish = |body: &[u8]| {
        let mut bytes = BytesMut::new();
        frames(
            &Act::Publish { channel: 1, exchange: 0, key: 0, properties: 1, mandatory: false, body: body.to_vec() },
            &mut bytes,
        );
        bytes
    };
    (0..3).for_each(|_| client.bytes(&publish(b"four")));
    client.bytes(&publish(b"fives"));
    let sent = client.sent();
    let [Method::ChannelClose(close)] = &decoded(&sent)[..] else { panic!("{sent:?}") };
    assert_eq!(close.reply_code, 406);
    let last = published(&client).pop().unwrap();
    assert!(last.starts_with("CloseChannel") && published(&client).len() == 4, "{last}");
}
