//! Lengths, what happens at their end, and the expiry of queues, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

/// Publishes a persistent message, and tells whether it was taken.
async fn is_taken(channel: &Channel, queue: &str, body: &str) -> bool {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let confirm = channel.basic_publish("".into(), queue.into(), Default::default(), body.as_bytes(), properties);
    confirm.await.unwrap().await.unwrap().is_ack()
}

async fn bodies(channel: &Channel, queue: &str) -> String {
    let mut bodies = String::new();
    while let Some(message) = get(channel, queue).await {
        bodies.push_str(std::str::from_utf8(&message.data).unwrap());
    }
    bodies
}

#[tokio::test]
async fn each_overflow_does_what_it_says_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    // What is taken of `abc`, what then is in the queue, and what became a dead letter.
    let cases = [
        ("drop-head", [true; 3], "bc", "a"),
        ("reject-publish", [true, true, false], "ab", ""),
        ("reject-publish-dlx", [true, true, false], "ab", "c"),
    ];
    let queues = cases.iter().flat_map(|case| ["x-max-length", "x-max-length-bytes"].map(|limit| (case, limit)));
    let queues: Vec<_> = queues.map(|(case, limit)| (format!("{} {limit}", case.0), case, limit)).collect();
    for (queue, (overflow, taken, kept, dead), limit) in &queues {
        let graves = format!("graves of {queue}");
        declare(&channel, &graves, &[]).await;
        let arguments = [
            (*limit, AMQPValue::LongInt(2)),
            ("x-overflow", text(overflow)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&graves)),
        ];
        declare(&channel, queue, &arguments).await;
        for (body, is_expected) in ["a", "b", "c"].into_iter().zip(taken) {
            assert_eq!(is_taken(&channel, queue, body).await, *is_expected, "{body} in {queue}");
        }
        eventually_places(&server, &graves, (dead.len() as u64, 0, 0)).await;
        if let Some(letter) = get(&channel, &graves).await {
            assert_eq!(letter.data, dead.as_bytes());
            let headers = letter.properties.headers().clone().unwrap();
            assert_eq!(headers.inner().get("x-first-death-reason"), Some(&text("maxlen")));
        }
        assert_eq!(places(&server, queue).await, (kept.len() as u64, 0, 0));
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        for (queue, (overflow, _, kept, _), _) in &queues {
            eventually_places(&server, queue, (2, 0, 0)).await;
            assert_eq!(is_taken(&channel, queue, "d").await, *overflow == "drop-head", "{queue}");
            // A head that is on disk is read first, to become a dead letter; who asks meanwhile still gets it.
            eventually_places(&server, queue, (2, 0, 0)).await;
            let kept = if *overflow == "drop-head" { "cd" } else { kept };
            assert_eq!(bodies(&channel, queue).await, kept, "{queue}");
            assert!(is_taken(&channel, queue, "e").await, "there is room in {queue}");
        }
    }
}

#[tokio::test]
async fn what_is_unacked_counts_for_no_length() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))])
        .await;
    assert!(is_taken(&channel, "tasks", "a").await);
    let _held = channel.basic_get("tasks".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(is_taken(&channel, "tasks", "b").await);
    assert!(!is_taken(&channel, "tasks", "c").await);
    eventually_places(&server, "tasks", (1, 1, 0)).await;
}

#[tokio::test]
async fn a_queue_that_nobody_uses_goes_after_a_stop_and_a_kill_too_and_stays_away() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let expires = [("x-expires", AMQPValue::LongInt(700))];
    for queue in ["unused", "used"] {
        declare(&channel, queue, &expires).await;
        publish(&channel, ("", queue), "work", Default::default()).await;
    }
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    server.stop().await.unwrap();
    let mut killed = Some(killed);
    for is_killed in [true, false] {
        let server = match killed.take() {
            Some(killed) => killed,
            None => start(directory.path()).await.0,
        };
        let _consumer = consume(&open(&server).await, "used").await;
        let has = |queue| server.board().topology().queue(VhostId(0), queue).is_some();
        assert!(has("unused"), "the time begins anew");
        eventually("it expires", || !has("unused")).await;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let asked = open(&server).await.queue_declare("unused".into(), passive, FieldTable::default()).await;
        let refused = asked.unwrap_err().to_string();
        assert!(refused.contains("NOT_FOUND - no queue 'unused' in vhost '/'"), "{refused}");
        assert!(has("used"));
        if !is_killed {
            // The new declaration is answered when what came before is on disk.
            declare(&open(&server).await, "another", &[]).await;
            let (_remains, server) = start_on_remains_of(directory.path()).await;
            assert!(server.board().topology().queue(VhostId(0), "unused").is_none(), "it does not come back");
        }
    }
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_in_rabbitmqs_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let int = AMQPValue::LongInt;
    for (name, value, why) in [
        ("x-max-length", int(-1), "{value_negative,-1}"),
        ("x-max-length-bytes", text("1"), "\"expected integer, got longstr\""),
        ("x-overflow", text("drop-tail"), "invalid_overflow"),
        ("x-expires", int(0), "{value_zero,0}"),
        ("x-message-ttl", int(-1), "{value_negative,-1}"),
        ("x-message-ttl", AMQPValue::LongLongInt(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-max-priority", int(256), "{max_value_exceeded,256}"),
        ("x-single-active-consumer", text("true"), "{unacceptable_type,longstr}"),
        ("x-delivery-limit", text("3"), "\"expected integer, got longstr\""),
        ("x-consumer-timeout", int(-1), "{value_negative,-1}"),
        ("x-dead-letter-strategy", text("never"), "invalid_dlx_strategy"),
        ("x-dead-letter-routing-key", text("graves"), "routing_key_but_no_dlx_defined"),
        ("x-max-in-flight", int(0), "{value_zero,0}"),
        ("x-queue-type", text("fast"), "\"unsupported queue type 'fast'\""),
    ] {
        let channel = open(&server).await;
        let declared = channel.queue_declare("tasks".into(), Default::default(), table(&[(name, value)])).await;
        let refused = declared.unwrap_err().to_string();
        let expected = format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'tasks' in vhost '/': {why}");
        assert!(refused.contains(&expected), "{refused}, and not {expected}");
    }
    let (channel, wrong) = (open(&server).await, table(&[("x-dead-letter-exchange", int(1))]));
    let refused = channel.queue_declare("tasks".into(), Default::default(), wrong).await.unwrap_err().to_string();
    let expected = "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'tasks' in vhost '/'";
    assert!(refused.contains(expected), "{refused}");

    declare(&open(&server).await, "tasks", &[]).await;
    let channel = open(&server).await;
    let (options, wrong) = (BasicConsumeOptions::default(), table(&[("x-priority", text("high"))]));
    let refused = channel.basic_consume("tasks".into(), "".into(), options, wrong).await.unwrap_err().to_string();
    let expected = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'tasks' in vhost '/': \
                    \"expected integer, got longstr\"";
    assert!(refused.contains(expected), "{refused}");
}
