//! A publish like the last one is compared, not parsed: nobody may notice.

use super::*;
use crate::command::Command;
use proptest::prelude::*;

/// What a publisher does next.
#[derive(Clone, Debug)]
enum Act {
    Publish { channel: u16, key: usize, properties: usize, mandatory: bool, body: Vec<u8> },
    Confirm { channel: u16 },
    Transact { channel: u16 },
}

fn act() -> impl Strategy<Value = Act> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    // Few of each, so that most are like the last.
    let publish =
        (1..3_u16, 0..8_usize, 0..12_usize, 0..6_u8, body).prop_map(|(channel, key, properties, flags, body)| {
            let (key, properties) = (key.saturating_sub(5), properties.saturating_sub(8));
            Act::Publish { channel, key, properties, mandatory: flags == 0, body }
        });
    prop_oneof![
        40 => publish,
        1 => (1..3_u16).prop_map(|channel| Act::Confirm { channel }),
        1 => (1..3_u16).prop_map(|channel| Act::Transact { channel }),
    ]
}

/// The last one leads nowhere.
const KEYS: [&str; 3] = ["one", "two", "nobody"];

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
        Act::Publish { channel, key, properties: which, mandatory, body } => {
            let (channel, routing_key) = (ChannelId(*channel), KEYS[*key]);
            basic::Publish { routing_key, mandatory: *mandatory, ..Default::default() }.encode(channel, bytes);
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
    let act = Act::Publish { channel: 1, key: 0, properties: 1, mandatory: false, body: b"job".to_vec() };
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
fn a_repeated_publish_that_is_too_large_is_refused() {
    let mut client = publisher();
    client.machine.settings = Arc::new(ConnectionSettings { message_bytes_max: 4, ..ConnectionSettings::default() });
    let publish = |body: &[u8]| {
        let mut bytes = BytesMut::new();
        frames(&Act::Publish { channel: 1, key: 0, properties: 1, mandatory: false, body: body.to_vec() }, &mut bytes);
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
