//! Acknowledgements that follow one another are compared, not parsed: nobody may notice.

use super::*;
use crate::command::{Command, ConsumerNumber};
use proptest::prelude::*;

/// A consumer on each of two channels, with twelve deliveries each of two queues.
fn consumer(transacts: bool) -> Client {
    let mut client = Client::with_channel();
    client.method(2, &Method::ChannelOpen(channel::Open));
    let queues: Vec<_> = (1..=2)
        .map(|id| Arc::new(QueueSpec { name: format!("q{id}").into(), ..spec(id, QueueSettings::default()) }))
        .collect();
    queues.iter().for_each(|queue| client.topology.add_queue(Arc::clone(queue)));
    for number in 1..=2 {
        let consumers: Vec<ConsumerNumber> = queues.iter().map(|queue| consume(&mut client, number, queue)).collect();
        for seq in 1..=12_u64 {
            // Mostly one queue's, one after the other.
            let at = usize::from(seq % 5 == 0);
            let delivery =
                Delivery { channel: ChannelId(number), ..delivery(consumers[at], &queues[at], seq, b"task") };
            client.machine.apply(client.now, ConnectionEvent::Deliver(delivery), &mut client.fx);
        }
    }
    if transacts {
        client.method(1, &Method::TxSelect(tx::Select));
    }
    client.sent();
    client
}

fn consume(client: &mut Client, number: u16, queue: &QueueSpec) -> ConsumerNumber {
    client.method(number, &Method::BasicConsume(basic::Consume { queue: &queue.name, ..Default::default() }));
    let Some(Command::Consume(consume)) = client.fx.shards[0].pop() else { panic!("{:?}", client.fx.shards) };
    let consuming = ConnectionEvent::Done { call: consume.call, outcome: Outcome::Consuming };
    client.machine.apply(client.now, consuming, &mut client.fx);
    consume.consumer
}

/// The frame with one of its reserved bits set, which means nothing, or not.
fn ack(number: u16, tag: u64, multiple: bool, plain: bool, out: &mut BytesMut) {
    basic::Ack { delivery_tag: tag, multiple }.encode(ChannelId(number), out);
    let flags = out.len() - 2;
    out[flags] |= if plain { 0 } else { 4 };
}

proptest! {
    #[test]
    fn a_run_settles_what_each_of_its_frames_would(
        runs in proptest::collection::vec((1..3_u16, 0..15_u64, 1..9_u64, prop::bool::weighted(0.1)), 1..8),
        transacts in prop::bool::weighted(0.2),
        cut in 1..300_usize,
    ) {
        let (mut compared, mut parsed) = (consumer(transacts), consumer(transacts));
        let (mut plain, mut other) = (BytesMut::new(), BytesMut::new());
        for (number, tag, count, multiple) in runs {
            for tag in tag..tag + count {
                ack(number, tag, multiple, true, &mut plain);
                ack(number, tag, multiple, false, &mut other);
            }
        }
        plain.chunks(cut).for_each(|piece| compared.bytes(piece));
        other.chunks(cut).for_each(|piece| parsed.bytes(piece));
        prop_assert_eq!(format!("{:?}", compared.fx.shards), format!("{:?}", parsed.fx.shards));
        prop_assert_eq!(compared.sent(), parsed.sent());
        let counted = |client: &Client| {
            let view = client.machine.view(&client.fx);
            view.channels.iter().map(|one| (one.unacked, format!("{:?}", one.counters))).collect::<Vec<_>>()
        };
        prop_assert_eq!(counted(&compared), counted(&parsed));
    }
}
