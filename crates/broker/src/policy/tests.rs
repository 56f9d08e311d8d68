use super::*;
use crate::command::Overflow;

fn policy(kind: PolicyKind, definition: &[(&str, Value)]) -> Policy {
    Policy {
        kind,
        vhost: VhostId(0),
        name: "p".into(),
        pattern: Pattern::new("^jobs").unwrap(),
        applies_to: AppliesTo::All,
        priority: 0,
        definition: definition.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}

fn settings(arguments: &[(&str, Value)], user: &[(&str, Value)], operator: &[(&str, Value)]) -> QueueSettings {
    let arguments: Table = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let applied =
        |kind, definition: &[(&str, Value)]| (!definition.is_empty()).then(|| Arc::new(policy(kind, definition)));
    let applied = Applied { user: applied(PolicyKind::User, user), operator: applied(PolicyKind::Operator, operator) };
    effective(&arguments, QueueSettings::parse(&arguments, "q").unwrap(), &applied)
}

fn long(number: i64) -> Value {
    Value::I64(number)
}

#[test]
fn of_numbers_the_smallest_holds() {
    for (own, user, operator, expected) in
        [(5, 3, 4, 3), (2, 3, 4, 2), (5, 4, 3, 3), (5, 4, 4, 4), (0, 1, 1, 0), (7, 0, 1, 0)]
    {
        let found =
            settings(&[("x-max-length", long(own))], &[("max-length", long(user))], &[("max-length", long(operator))]);
        assert_eq!(found.length_max, Some(expected), "{own} {user} {operator}");
    }
    let found = settings(
        &[],
        &[("message-ttl", long(10)), ("expires", long(20)), ("max-length-bytes", long(30))],
        &[("message-ttl", long(9))],
    );
    assert_eq!((found.message_ttl_ms, found.expires_ms, found.bytes_max), (Some(9), Some(20), Some(30)));
}

#[test]
fn what_policies_say_of_a_stream_comes_before_its_own() {
    let own =
        [("x-queue-type", Value::from("stream")), ("x-max-length-bytes", long(10)), ("x-max-age", Value::from("1h"))];
    let user = [
        ("max-length-bytes", long(50)),
        ("max-age", Value::from("2D")),
        ("stream-max-segment-size-bytes", long(5)),
        ("max-length", long(1)),
        ("message-ttl", long(1)),
        ("dead-letter-exchange", Value::from("graves")),
    ];
    let found = settings(&own, &user, &[("max-length-bytes", long(40))]);
    let expected = QueueSettings {
        kind: QueueKind::Stream,
        bytes_max: Some(40),
        max_age_ms: Some(2 * 86_400_000),
        segment_bytes: Some(5),
        ..QueueSettings::default()
    };
    assert_eq!(found, expected);
    let found = settings(&own, &[("max-length", long(1))], &[]);
    assert_eq!((found.bytes_max, found.max_age_ms), (Some(10), Some(3_600_000)));
}

#[test]
fn a_negative_delivery_limit_is_none() {
    for (own, user, expected) in [(-1, 5, 5), (5, -1, 5), (-1, -1, -1), (7, 5, 5)] {
        let found = settings(&[("x-delivery-limit", long(own))], &[("delivery-limit", long(user))], &[]);
        assert_eq!(found.delivery_limit, Some(expected), "{own} {user}");
    }
}

#[test]
fn a_timeout_of_0_is_none() {
    for (own, user, expected) in [(0, 5, Some(5)), (5, 0, Some(5)), (5, 7, Some(5)), (0, 0, None)] {
        let found = settings(&[("x-consumer-timeout", long(own))], &[("consumer-timeout", long(user))], &[]);
        assert_eq!(found.consumer_timeout_ms, expected, "{own} {user}");
    }
}

#[test]
fn where_a_queue_says_itself_where_its_dead_letters_go_the_policy_does_not() {
    let user = [("dead-letter-exchange", Value::from("theirs")), ("dead-letter-routing-key", Value::from("key"))];
    let found = settings(&[("x-dead-letter-exchange", Value::from("own"))], &user, &[]);
    assert_eq!(found.dead_letter_exchange.as_deref(), Some("own"));
    let found = settings(&[], &user, &[]);
    assert_eq!(
        (found.dead_letter_exchange.as_deref(), found.dead_letter_key.as_deref()),
        (Some("theirs"), Some("key"))
    );
}

#[test]
fn overflow_is_the_queues_own_affair_unless_it_is_a_quorum_queue() {
    let own = ("x-overflow", Value::from("drop-head"));
    let user = [("overflow", Value::from("reject-publish"))];
    assert_eq!(settings(std::slice::from_ref(&own), &user, &[]).overflow, Overflow::DropHead);
    assert_eq!(settings(&[own, ("x-queue-type", Value::from("quorum"))], &user, &[]).overflow, Overflow::RejectPublish);
    assert_eq!(settings(&[], &user, &[]).overflow, Overflow::RejectPublish);
    let operator = [("overflow", Value::from("reject-publish-dlx"))];
    assert_eq!(settings(&[], &user, &operator).overflow, Overflow::RejectPublishDlx);
}

#[test]
fn two_definitions_become_one_as_their_effects_do() {
    let applied = Applied {
        user: Some(Arc::new(policy(PolicyKind::User, &[("max-length", long(5)), ("delivery-limit", long(3))]))),
        operator: Some(Arc::new(policy(
            PolicyKind::Operator,
            &[("max-length", long(4)), ("delivery-limit", long(-1)), ("expires", long(9))],
        ))),
    };
    let expected: Table = [("max-length", long(4)), ("delivery-limit", long(3)), ("expires", long(9))]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let merged = applied.definition();
    assert_eq!(merged.iter().count(), 3);
    assert!(expected.iter().all(|(key, value)| merged.get(key) == Some(value)), "{merged:?}");
}

#[test]
fn what_no_policy_can_say_is_refused_in_rabbitmqs_words() {
    let refused = |kind, definition: &[(&str, Value)]| policy(kind, definition).check().unwrap_err().text;
    use PolicyKind::{Operator, User};
    assert_eq!(refused(User, &[]), "no policy provided");
    assert_eq!(refused(User, &[("k", long(1))]), "[{<<\"k\">>,1}] are not recognised policy settings");
    assert_eq!(
        refused(User, &[("ha-mode", Value::from("all"))]),
        "[{<<\"ha-mode\">>,<<\"all\">>}] are not recognised policy settings"
    );
    assert_eq!(
        refused(Operator, &[("dead-letter-exchange", Value::from("x"))]),
        "[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings"
    );
    assert_eq!(refused(User, &[("message-ttl", long(-1))]), "-1 is not a valid message TTL");
    assert_eq!(refused(User, &[("expires", long(0))]), "0 is not a valid queue expiry");
    assert_eq!(refused(User, &[("overflow", Value::from("x"))]), "<<\"x\">> is not a valid overflow");
    assert!(
        policy(User, &[("queue-mode", Value::from("lazy")), ("federation-upstream-set", Value::from("all"))])
            .check()
            .is_ok()
    );
}

#[test]
fn patterns_are_searched_for_and_may_look_around() {
    let found = |pattern: &str, name: &str| Pattern::new(pattern).unwrap().is_in(name);
    assert!(found("foo", "barfoo2") && found("", "any") && found("^(?!amq\\.)", "jobs"));
    assert!(!found("^foo", "barfoo2") && !found("^(?!amq\\.)", "amq.gen-1"));
    assert!(Pattern::new("(").unwrap_err().text.starts_with("pattern should be regular expression but is invalid: "));
}

#[test]
fn a_pattern_that_takes_for_ever_is_not_found() {
    let name = "a".repeat(200) + "!";
    assert!(!Pattern::new(r"^(a+)+(?=b)$").unwrap().is_in(&name));
}

#[test]
fn retries_can_come_from_a_policy() {
    let user = [("delayed-retry-type", Value::from("all")), ("delayed-retry-min", long(500))];
    assert_eq!(settings(&[], &user, &[]).delayed_retry.map(|retry| (retry.min_ms, retry.max_ms)), Some((500, 500)));
    let own = [("x-delayed-retry-type", Value::from("disabled"))];
    assert_eq!(settings(&own, &user, &[]).delayed_retry, None);
    let operator = [("delayed-retry-min", long(200))];
    assert_eq!(settings(&[], &user, &operator).delayed_retry.map(|retry| retry.min_ms), Some(200));
}

#[test]
fn the_slowest_rate_and_the_fewest_in_flight_hold() {
    let user = [("rate-limit", Value::from("60/m")), ("max-in-flight", long(5))];
    let found = settings(&[("x-rate-limit", long(2)), ("x-max-in-flight", long(9))], &user, &[]);
    assert_eq!((found.rate, found.in_flight_max), (Rate::parse("60/m"), Some(5)));
    let found = settings(&[("x-rate-limit", Value::from("59/m"))], &user, &[]);
    assert_eq!(found.rate, Rate::parse("59/m"));
    let refused = policy(PolicyKind::User, &[("rate-limit", Value::from("5/d"))]).check().unwrap_err();
    assert_eq!(refused.text, "<<\"5/d\">> is not a valid rate limit");
}

#[test]
fn a_queue_deduplicates_by_its_arguments_or_else_by_a_policy() {
    use crate::command::Span;
    let is_on = ("x-message-deduplication", Value::Bool(true));
    let span =
        |own: &[(&str, Value)], user: &[(&str, Value)]| settings(own, user, &[]).deduplication.map(|rule| rule.span);
    let size = |most| ("x-cache-size", long(most));
    assert_eq!(span(&[], &[size(5)]), None);
    assert_eq!(span(&[], std::slice::from_ref(&is_on)), Some(Span::Present));
    assert_eq!(span(&[], &[is_on.clone(), size(5)]), Some(Span::Window { most: 5, ttl_ms: None }));
    assert_eq!(
        span(std::slice::from_ref(&is_on), &[is_on.clone(), size(5)]),
        Some(Span::Present),
        "its own come first"
    );
    let usual = Span::Window { most: 1_000_000, ttl_ms: Some(7) };
    assert_eq!(span(&[is_on.clone(), ("x-cache-ttl", long(7))], &[]), Some(usual));
    assert_eq!(span(&[("x-message-deduplication", Value::Bool(false)), size(5)], &[]), None);
    let text = |definition: &[(&str, Value)]| policy(PolicyKind::User, definition).check().unwrap_err().text;
    assert_eq!(text(&[size(0)]), "0 is not a valid cache size");
    assert_eq!(text(&[("x-message-deduplication", long(1))]), "1 is not a valid message deduplication flag");
}
