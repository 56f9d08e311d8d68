//! A queue against a plain list, and queues for other tests.

use crate::command::{
    Backoff, DeadLetterStrategy, KeySource, Overflow, QueueId, QueueRef, QueueSettings, QueueSpec, ShardId, Span,
    TimeoutAction, VhostId,
};
use amqp::{Table, Value};

/// A durable queue with this id, called `q1` and so on.
pub(crate) fn spec(id: u64, settings: QueueSettings) -> QueueSpec {
    QueueSpec {
        queue: QueueRef { id: QueueId(id), shard: ShardId(0) },
        vhost: VhostId(0),
        vhost_name: "/".into(),
        name: format!("q{id}").into(),
        durable: true,
        auto_delete: false,
        owner: None,
        arguments: arguments(&settings),
        settings,
        policies: Default::default(),
    }
}

/// What a client declares to get these settings.
fn arguments(settings: &QueueSettings) -> Table {
    let number = |value: Option<u64>| value.map(|value| Value::I64(value.try_into().unwrap()));
    let backoff = |backoff| match backoff {
        Backoff::Linear => "linear".into(),
        Backoff::Exponential => "exponential".into(),
    };
    let strategy = |strategy| match strategy {
        DeadLetterStrategy::Usual => None,
        DeadLetterStrategy::AtMostOnce => Some("at-most-once".into()),
        DeadLetterStrategy::AtLeastOnce => Some("at-least-once".into()),
    };
    let overflow = match settings.overflow {
        Overflow::DropHead => "drop-head",
        Overflow::RejectPublish => "reject-publish",
        Overflow::RejectPublishDlx => "reject-publish-dlx",
    };
    let rule = settings.deduplication.as_ref();
    let window = rule.and_then(|rule| match rule.span {
        Span::Window { most, ttl_ms } => Some((most, ttl_ms)),
        Span::Present => None,
    });
    let all = [
        ("x-queue-type", Some(settings.kind.name().into())),
        ("x-message-ttl", number(settings.message_ttl_ms)),
        ("x-expires", number(settings.expires_ms)),
        ("x-max-length", number(settings.length_max)),
        ("x-max-length-bytes", number(settings.bytes_max)),
        ("x-overflow", Some(overflow.into())),
        ("x-dead-letter-exchange", settings.dead_letter_exchange.clone().map(Value::from)),
        ("x-dead-letter-routing-key", settings.dead_letter_key.clone().map(Value::from)),
        ("x-dead-letter-strategy", strategy(settings.dead_letter_strategy)),
        ("x-max-priority", number(settings.priority_max.map(u64::from))),
        ("x-single-active-consumer", Some(settings.single_active.into())),
        ("x-consumer-timeout", number(settings.consumer_timeout_ms)),
        (
            "x-consumer-timeout-action",
            settings.timeout_action.map(|action| TimeoutAction::NAMES[action as usize].into()),
        ),
        ("x-delivery-limit", settings.delivery_limit.map(Value::I64)),
        ("x-delayed-retry-type", settings.delayed_retry.map(|_| "all".into())),
        ("x-delayed-retry-min", number(settings.delayed_retry.map(|retry| retry.min_ms))),
        ("x-delayed-retry-max", number(settings.delayed_retry.map(|retry| retry.max_ms))),
        ("x-delayed-retry-backoff", settings.delayed_retry.map(|retry| backoff(retry.backoff))),
        ("x-delayed-retry-jitter", number(settings.delayed_retry.map(|retry| retry.jitter_percent.into()))),
        ("x-group-key", settings.group_key.clone().map(Value::from)),
        ("x-group-fair", settings.group_fair.then_some(true.into())),
        ("x-group-max-in-flight", number(settings.group_in_flight_max.map(u64::from))),
        ("x-group-rate-limit", settings.group_rate.map(|rate| format!("{rate:?}").into())),
        ("x-rate-limit", settings.rate.map(|rate| format!("{rate:?}").into())),
        ("x-max-in-flight", number(settings.in_flight_max.map(u64::from))),
        ("x-message-deduplication", rule.map(|_| true.into())),
        ("x-cache-size", window.and_then(|(most, _)| number(Some(u64::from(most))))),
        ("x-cache-ttl", window.and_then(|(_, ttl_ms)| number(ttl_ms))),
        (
            "x-deduplication-key",
            rule.map(|rule| matches!(rule.key, KeySource::MessageId))
                .map(|is_id| if is_id { "message-id" } else { "header" }.into()),
        ),
        ("x-max-age", settings.max_age_ms.map(|ms| format!("{}s", ms / 1000).into())),
        ("x-stream-max-segment-size-bytes", number(settings.segment_bytes)),
    ];
    let is_understood =
        |key: &str| !(settings.is_stream() && ["x-overflow", "x-single-active-consumer"].contains(&key));
    all.into_iter().filter_map(|(key, value)| Some((key, value.filter(|_| is_understood(key))?))).collect()
}

mod model {
    use super::spec;
    use crate::command::{ConnectionId, Now, QueueSettings};
    use crate::message::{Message, MessageParts};
    use crate::queue::lease::TimeoutAction;
    use crate::queue::unacked::HeldList;
    use crate::queue::{ConsumerNumber, Holder, Queue, Turn};
    use crate::shard::Terms;
    use crate::shard::peers::{Channel, Peer};
    use crate::shard::slots::{Slot, Slots};
    use amqp::ChannelId;
    use proptest::prelude::*;
    use std::sync::Arc;
    use store::{Lsn, Seq};

    fn terms(priority: u8) -> Terms {
        Terms {
            is_new: true,
            stays: false,
            persistent: false,
            expiration_ms: None,
            priority: Some(priority),
            delay: None,
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Publish(u8),
        /// Leaves a gap in the numbers, as messages of other fates do.
        Skip(u64),
        Take(usize),
        Settle(usize),
        PutBack(usize),
        PutAllBack(usize),
        Purge,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0u8..4).prop_map(Act::Publish),
            1 => (1u64..2_000).prop_map(Act::Skip),
            8 => (0usize..3).prop_map(Act::Take),
            5 => any::<usize>().prop_map(Act::Settle),
            3 => any::<usize>().prop_map(Act::PutBack),
            1 => (0usize..3).prop_map(Act::PutAllBack),
            1 => Just(Act::Purge),
        ]
    }

    fn holder(channel: Slot<Channel>) -> Holder {
        Holder {
            channel,
            channel_id: ChannelId(1),
            number: ConsumerNumber(1),
            no_ack: false,
            prefetch: 0,
            priority: 0,
            turn: Turn::Never,
            held: HeldList::default(),
            timeout_ms: 0,
            timer_ms: 0,
            timeout_action: TimeoutAction::default(),
            consumer: None,
        }
    }

    /// Checks the places of all messages against two plain lists.
    fn check(queue: &Queue, ready: &[(u8, u64)], held: &[(usize, u64)], holders: &[Slot<Holder>]) {
        queue.check();
        let runs = queue.ready.runs();
        let singles = runs.iter().flat_map(|run| run.messages());
        let mut found: Vec<_> = singles.map(|run| (3 - run.priority, run.seq.0)).collect();
        found.sort_unstable();
        assert_eq!(found, ready);
        for (at, slot) in holders.iter().enumerate() {
            let oldest = held.iter().find(|(holder, _)| *holder == at);
            let list = &queue.holders[*slot].held;
            assert_eq!(list.first_near(), oldest.map(|(_, seq)| Seq(*seq)));
            assert_eq!(list.len() as usize, held.iter().filter(|(holder, _)| *holder == at).count());
        }
        assert_eq!(queue.unacked.len(), held.len());
        for (holder, seq) in held {
            assert_eq!(queue.unacked.holder_of(Seq(*seq)), Some(holders[*holder]));
        }
    }

    proptest! {
        #[test]
        fn a_queue_keeps_the_order_and_the_owners_of_a_plain_list(acts in prop::collection::vec(act(), 1..400)) {
            let settings = QueueSettings { priority_max: Some(3), ..QueueSettings::default() };
            let mut queue = Queue::new(Arc::new(spec(1, settings)), Now::default());
            let parts = MessageParts { exchange: "", routing_key: "", properties: &[0, 0], died_here: false };
            let message = Message::new(parts, b"body");
            let peer = Slots::default().insert(Peer::new(ConnectionId(1)));
            let channel = Slots::default().insert(Channel::new(ChannelId(1), peer));
            let holders: Vec<_> = (0..3).map(|_| queue.holders.insert(holder(channel))).collect();
            // Highest priority first, then by seq; deliveries in their order, with their holder.
            let mut ready: Vec<(u8, u64)> = Vec::new();
            let mut held: Vec<(usize, u64)> = Vec::new();
            let mut priorities = std::collections::BTreeMap::new();
            for act in acts {
                match act {
                    Act::Publish(priority) => {
                        let stamp = queue.stamp(&terms(priority), Now::default());
                        queue.push(message.clone(), stamp, Lsn::ZERO, false);
                        ready.push((3 - priority, stamp.seq.0));
                        priorities.insert(stamp.seq.0, priority);
                    }
                    Act::Skip(count) => queue.pass(Seq(queue.next_seq().0 + count)),
                    Act::Take(by) => {
                        let entry = queue.ready.pop();
                        let expected = (!ready.is_empty()).then(|| ready.remove(0));
                        prop_assert_eq!(entry.as_ref().map(|entry| entry.seq.0), expected.map(|(_, seq)| seq));
                        if let Some(entry) = entry {
                            held.push((by, entry.seq.0));
                            queue.hold(entry, holders[by], 0);
                        }
                    }
                    Act::Settle(which) | Act::PutBack(which) if !held.is_empty() => {
                        let (_, seq) = held.remove(which % held.len());
                        let taken = queue.take_unacked(Seq(seq), 0).unwrap();
                        if matches!(act, Act::Settle(_)) {
                            queue.leave(1);
                        } else {
                            ready.push((3 - priorities[&seq], seq));
                            queue.ready.put_back(taken.entry);
                        }
                    }
                    Act::Settle(_) | Act::PutBack(_) => {}
                    Act::PutAllBack(of) => {
                        while let Some(seq) = queue.holders[holders[of]].held.first_near() {
                            let taken = queue.take_unacked(seq, 0).unwrap();
                            queue.ready.put_back(taken.entry);
                            ready.push((3 - priorities[&seq.0], seq.0));
                        }
                        held.retain(|(holder, _)| *holder != of);
                    }
                    Act::Purge => {
                        while queue.ready.pop().is_some() {
                            queue.leave(1);
                        }
                        ready.clear();
                    }
                }
                ready.sort_unstable();
                check(&queue, &ready, &held, &holders);
            }
        }
    }
}
