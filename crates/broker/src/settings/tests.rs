//! Which arguments are refused, and in which words.

use super::*;
use crate::command::{ConnectionId, QueueId, QueueRef, ShardId, VhostId};

const TITLE: &str = "queue 'q' in vhost '/'";

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().collect()
}

fn text(text: &str) -> Value {
    text.into()
}

fn refusal(arguments: &Table) -> String {
    let fault = QueueSettings::parse(arguments, TITLE).unwrap_err();
    assert_eq!(fault.code, ReplyCode::PreconditionFailed);
    fault.text
}

#[test]
fn arguments_are_typed_whatever_the_width_of_their_integers() {
    let settings = QueueSettings::parse(
        &table([
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", Value::I8(0)),
            ("x-expires", Value::U32(1)),
            ("x-max-length", Value::I64(7)),
            ("x-max-length-bytes", Value::U16(8)),
            ("x-overflow", text("reject-publish-dlx")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("dead")),
            ("x-max-priority", Value::I16(255)),
            ("x-single-active-consumer", Value::Bool(true)),
            ("x-consumer-timeout", Value::I32(0)),
            ("x-consumer-timeout-action", text("cancel-consumer")),
            ("x-delivery-limit", Value::I32(-1)),
            ("x-group-key", text("tenant")),
            ("x-group-fair", Value::Bool(true)),
            ("x-group-max-in-flight", Value::U8(3)),
            ("x-group-rate-limit", text("10/m")),
            ("x-rate-limit", Value::I32(50)),
            ("x-max-in-flight", Value::I64(9)),
            ("x-of-the-vendor", Value::Void),
        ]),
        TITLE,
    );
    let expected = QueueSettings {
        kind: QueueKind::Quorum,
        message_ttl_ms: Some(0),
        expires_ms: Some(1),
        length_max: Some(7),
        bytes_max: Some(8),
        overflow: Overflow::RejectPublishDlx,
        dead_letter_exchange: Some(String::new()),
        dead_letter_strategy: DeadLetterStrategy::Usual,
        dead_letter_key: Some("dead".to_owned()),
        priority_max: Some(255),
        single_active: true,
        consumer_timeout_ms: Some(0),
        timeout_action: Some(TimeoutAction::CancelConsumer),
        delivery_limit: Some(-1),
        delayed_retry: None,
        group_key: Some("tenant".to_owned()),
        group_fair: true,
        group_in_flight_max: Some(3),
        group_rate: Rate::parse("10/m"),
        rate: Rate::per_second(50),
        in_flight_max: Some(9),
        deduplication: None,
        max_age_ms: None,
        segment_bytes: None,
    };
    assert_eq!(settings.unwrap(), expected);
    assert_eq!(QueueSettings::parse(&Table::new(), TITLE).unwrap(), QueueSettings::default());
}

#[test]
fn retries_wait_as_asked_or_as_usual() {
    let retry = |entries: &[(&str, Value)]| {
        let arguments = entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        QueueSettings::parse(&arguments, TITLE).unwrap().delayed_retry
    };
    let usual = Retry { min_ms: 1000, max_ms: 1000, backoff: Backoff::Linear, jitter_percent: 0 };
    for kind in ["all", "failed", "returned"] {
        assert_eq!(retry(&[("x-delayed-retry-type", text(kind))]), Some(usual));
    }
    let all = [
        ("x-delayed-retry-type", text("all")),
        ("x-delayed-retry-min", Value::I32(50)),
        ("x-delayed-retry-max", Value::I64(400)),
        ("x-delayed-retry-backoff", text("exponential")),
        ("x-delayed-retry-jitter", Value::I8(20)),
    ];
    let asked = Retry { min_ms: 50, max_ms: 400, backoff: Backoff::Exponential, jitter_percent: 20 };
    assert_eq!(retry(&all), Some(asked));
    assert_eq!(retry(&all[1..]), None, "without a type there is no delay");
    assert_eq!(retry(&[("x-delayed-retry-type", text("disabled"))]), None);
}

#[test]
fn every_known_argument_is_accepted_on_either_type() {
    for kind in ["classic", "quorum", ""] {
        for (name, value) in [
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-consumer-disconnected-timeout", Value::I32(60_000)),
            ("x-delayed-retry-type", text("failed")),
            ("x-delayed-retry-min", Value::I32(1)),
            ("x-delayed-retry-max", Value::I32(2)),
            ("x-delayed-retry-backoff", text("exponential")),
            ("x-delayed-retry-jitter", Value::I32(100)),
            ("x-queue-leader-locator", text("balanced")),
            ("x-queue-master-locator", text("min-masters")),
            ("x-queue-mode", text("lazy")),
            ("x-queue-version", Value::I32(2)),
            ("x-quorum-initial-group-size", Value::I32(3)),
            ("x-max-in-memory-length", Value::I32(0)),
            ("x-max-in-memory-bytes", Value::I32(0)),
        ] {
            let arguments = table([("x-queue-type", text(kind)), (name, value)]);
            assert!(QueueSettings::parse(&arguments, TITLE).is_ok(), "{name} on '{kind}'");
        }
    }
}

#[test]
fn wrong_types_and_values_are_refused_by_name() {
    for (name, value, why) in [
        ("x-queue-type", text("fast"), "\"unsupported queue type 'fast'\""),
        ("x-queue-type", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-message-ttl", text("10"), "\"expected integer, got longstr\""),
        ("x-message-ttl", Value::I32(-1), "{value_negative,-1}"),
        ("x-message-ttl", Value::I64(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-expires", Value::I32(0), "{value_zero,0}"),
        ("x-expires", Value::F64(1.0), "\"expected integer, got double\""),
        ("x-max-length", Value::I64(-1), "{value_negative,-1}"),
        ("x-max-length-bytes", Value::Bool(true), "\"expected integer, got bool\""),
        ("x-overflow", text("drop-tail"), "invalid_overflow"),
        ("x-dead-letter-strategy", text("never"), "invalid_dlx_strategy"),
        ("x-max-priority", Value::I32(256), "{max_value_exceeded,256}"),
        ("x-max-priority", Value::I32(-1), "{value_negative,-1}"),
        ("x-single-active-consumer", text("true"), "{unacceptable_type,longstr}"),
        ("x-delivery-limit", text("3"), "\"expected integer, got longstr\""),
        ("x-consumer-timeout", Value::I32(-1), "{value_negative,-1}"),
        ("x-queue-mode", text("eager"), "\"unsupported queue mode 'eager'\""),
        ("x-queue-version", Value::I32(3), "\"unsupported queue version '3'\""),
        ("x-queue-leader-locator", Value::Void, "{unacceptable_type,void}"),
        ("x-delayed-retry-type", text("some"), "invalid_delayed_retry_type"),
        ("x-delayed-retry-backoff", text("some"), "invalid_delayed_retry_backoff"),
        ("x-delayed-retry-jitter", Value::I32(101), "{value_too_large,101}"),
        ("x-max-in-memory-length", Value::I32(-5), "{value_negative,-5}"),
    ] {
        assert_eq!(refusal(&table([(name, value)])), format!("invalid arg '{name}' for {TITLE}: {why}"));
    }
}

#[test]
fn a_dead_letter_exchange_is_named_by_text() {
    assert_eq!(
        refusal(&table([("x-dead-letter-exchange", Value::I32(1))])),
        format!("invalid type 'signedint' for arg 'x-dead-letter-exchange' in {TITLE}")
    );
}

#[test]
fn a_dead_letter_key_needs_a_dead_letter_exchange() {
    assert_eq!(
        refusal(&table([("x-dead-letter-routing-key", text("k"))])),
        format!("invalid arg 'x-dead-letter-routing-key' for {TITLE}: routing_key_but_no_dlx_defined")
    );
}

#[test]
fn rates_and_groups_are_refused_by_name() {
    for (name, value, why) in [
        ("x-rate-limit", Value::I32(0), "{value_zero,0}"),
        ("x-rate-limit", Value::I32(-5), "{value_negative,-5}"),
        ("x-rate-limit", Value::I64(2_000_000_000), "{value_too_large,2000000000}"),
        ("x-rate-limit", text("5/d"), "\"expected N, N/s, N/m or N/h, got 5/d\""),
        ("x-rate-limit", Value::Bool(true), "{unacceptable_type,bool}"),
        ("x-max-in-flight", Value::I32(0), "{value_zero,0}"),
        ("x-max-in-flight", text("5"), "\"expected integer, got longstr\""),
        ("x-group-key", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-group-fair", Value::Bool(true), "group_option_but_no_group_key_defined"),
        ("x-group-max-in-flight", Value::I32(2), "group_option_but_no_group_key_defined"),
        ("x-group-rate-limit", text("1/s"), "group_option_but_no_group_key_defined"),
    ] {
        let fault = QueueSettings::parse(&table([(name, value)]), TITLE).unwrap_err();
        assert_eq!(fault.text, format!("invalid arg '{name}' for {TITLE}: {why}"));
    }
}

#[test]
fn arguments_of_streams_are_refused_for_their_type() {
    for (kind, module) in [("classic", "rabbit_classic_queue"), ("quorum", "rabbit_quorum_queue")] {
        let arguments = table([("x-queue-type", text(kind)), ("x-max-age", text("5D"))]);
        assert_eq!(refusal(&arguments), format!("invalid arg 'x-max-age' for {TITLE} of queue type {module}"));
    }
}

#[test]
fn a_stream_has_arguments_of_its_own() {
    let stream = |name: &str, value: Value| table([("x-queue-type", text("stream")), (name, value)]);
    let settings = QueueSettings::parse(
        &table([
            ("x-queue-type", text("stream")),
            ("x-max-length-bytes", Value::I64(1_000_000)),
            ("x-max-age", text("7D")),
            ("x-stream-max-segment-size-bytes", Value::I32(5000)),
            ("x-stream-filter-size-bytes", Value::I32(16)),
            ("x-initial-cluster-size", Value::I32(3)),
            ("x-queue-leader-locator", text("balanced")),
        ]),
        TITLE,
    );
    let expected = QueueSettings {
        kind: QueueKind::Stream,
        bytes_max: Some(1_000_000),
        max_age_ms: Some(7 * 86_400_000),
        segment_bytes: Some(5000),
        ..QueueSettings::default()
    };
    assert_eq!(settings.unwrap(), expected);
    for name in ["x-max-length", "x-message-ttl", "x-single-active-consumer", "x-overflow", "x-group-key"] {
        let arguments = stream(name, Value::I32(1));
        assert_eq!(refusal(&arguments), format!("invalid arg '{name}' for {TITLE} of queue type rabbit_stream_queue"));
    }
    for (name, value, why) in [
        ("x-max-age", text("5"), "invalid_max_age"),
        ("x-max-age", text("D"), "invalid_max_age"),
        ("x-max-age", text("0D"), "invalid_max_age"),
        ("x-max-age", text("+1D"), "invalid_max_age"),
        ("x-max-age", text("1d"), "invalid_max_age"),
        ("x-max-age", text("1é"), "invalid_max_age"),
        ("x-max-age", text("99999999999999999Y"), "invalid_max_age"),
        ("x-max-age", Value::I32(5), "{unacceptable_type,signedint}"),
        ("x-stream-max-segment-size-bytes", text("5"), "\"expected integer, got longstr\""),
        ("x-stream-max-segment-size-bytes", Value::I32(-1), "{value_negative,-1}"),
        ("x-initial-cluster-size", Value::I32(0), "{value_zero,0}"),
    ] {
        assert_eq!(refusal(&stream(name, value)), format!("invalid arg '{name}' for {TITLE}: {why}"));
    }
    let too_large = stream("x-stream-max-segment-size-bytes", Value::I64(3_000_000_001));
    assert_eq!(refusal(&too_large), "Exceeded max value for x-stream-max-segment-size-bytes");
    assert_eq!(
        refusal(&stream("x-stream-filter-size-bytes", Value::I32(256))),
        "Invalid value for  x-stream-filter-size-bytes"
    );
}

fn queue(durable: bool, auto_delete: bool, arguments: Table) -> QueueSpec {
    QueueSpec {
        queue: QueueRef { id: QueueId(1), shard: ShardId(0) },
        vhost: VhostId(0),
        vhost_name: "/".into(),
        name: "q".into(),
        durable,
        auto_delete,
        owner: None::<ConnectionId>,
        settings: QueueSettings::parse(&arguments, TITLE).unwrap(),
        arguments,
        policies: Default::default(),
    }
}

fn redeclared(durable: bool, auto_delete: bool, arguments: Table) -> DeclareQueue {
    DeclareQueue {
        name: "q".to_owned(),
        server_named: false,
        passive: false,
        durable,
        exclusive: false,
        auto_delete,
        arguments,
    }
}

#[test]
fn a_redeclaration_names_the_first_property_that_differs() {
    for (wanted, expected) in [
        (
            redeclared(false, true, Table::new()),
            "durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
        ),
        (
            redeclared(true, true, Table::new()),
            "auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            redeclared(true, false, table([("x-queue-type", text("quorum"))])),
            "x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'",
        ),
    ] {
        let fault = check_equivalent(&queue(true, false, Table::new()), &wanted).unwrap_err();
        assert_eq!(fault, Fault::new(ReplyCode::PreconditionFailed, format!("inequivalent arg '{expected}")));
    }
}

#[test]
fn a_redeclaration_names_the_argument_that_differs_and_how() {
    for (wanted, current, expected) in [
        (Some(Value::I64(10)), None, "received the value '10' of type 'long' but current is none"),
        (None, Some(Value::I64(10)), "received none but current is the value '10' of type 'long'"),
        (Some(Value::I32(10)), Some(Value::I32(20)), "received '10' but current is '20'"),
        (Some(Value::I32(10)), Some(Value::I64(20)), "received '10' but current is '20'"),
    ] {
        let table = |value: Option<Value>| value.map(|value| ("x-message-ttl", value)).into_iter().collect::<Table>();
        let wanted = redeclared(true, false, table(wanted));
        let fault = check_equivalent(&queue(true, false, table(current)), &wanted).unwrap_err();
        assert_eq!(fault.text, format!("inequivalent arg 'x-message-ttl' for {TITLE}: {expected}"));
    }
}

#[test]
fn what_means_the_same_is_the_same() {
    for (wanted, current) in [
        (table([("x-max-length", Value::I8(5))]), table([("x-max-length", Value::I64(5))])),
        (table([("x-queue-type", text("classic"))]), Table::new()),
        (table([("x-queue-type", text(""))]), table([("x-queue-type", text("classic"))])),
        (table([("x-of-the-vendor", Value::I32(1))]), table([("x-other", text("2"))])),
    ] {
        assert_eq!(check_equivalent(&queue(true, false, current), &redeclared(true, false, wanted)), Ok(()));
    }
}

#[test]
fn values_are_worded_as_erlang_words_them() {
    for (value, expected) in [
        (Value::F64(1.0), "1.0"),
        (text("a"), "<<\"a\">>"),
        (Value::Array(vec![Value::I32(1), text("b")]), "[{signedint,1},{longstr,<<\"b\">>}]"),
        (Value::Table(table([("k", Value::Bool(true))])), "[{<<\"k\">>,bool,true}]"),
        (Value::Void, "undefined"),
        (Value::Decimal { scale: 2, value: 5 }, "{2,5}"),
    ] {
        assert_eq!(term(&value), expected);
    }
}
