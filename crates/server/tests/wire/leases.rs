//! The acknowledgement timeout as a client sees it: what happens at its end, and how it is put off.

use super::*;
use crate::raw_client::CHANNEL;
use amqp::{PropertyList, Value};
use bytes::BytesMut;
use lapin::types::AMQPValue;

/// A queue whose deliveries are overdue after so long.
async fn declare(client: &mut RawClient, queue: &str, timeout_ms: i64, action: &str) {
    let arguments = [("x-consumer-timeout", Value::from(timeout_ms)), ("x-consumer-timeout-action", action.into())];
    let declare = queue::Declare {
        queue,
        durable: true,
        arguments: arguments.into_iter().collect(),
        ..queue::Declare::default()
    };
    client.send(CHANNEL, &Method::QueueDeclare(declare)).await;
    client.expect(|method| matches!(method, Method::QueueDeclareOk(_)).then_some(())).await;
}

/// Asks for more time, as any client can.
async fn extend(client: &mut RawClient, headers: impl Into<Option<Table>>) {
    let mut frames = BytesMut::new();
    let publish = basic::Publish { exchange: "", routing_key: "amq.leveret.lease", mandatory: true, immediate: false };
    Method::BasicPublish(publish).encode(CHANNEL, &mut frames);
    let mut properties = BytesMut::new();
    PropertyList { headers: headers.into(), ..PropertyList::default() }.encode(&mut properties);
    amqp::content::encode_content(CHANNEL, &properties, b"", 131_072, &mut frames);
    client.write(&frames).await;
}

fn lease(tag: i64, ms: Option<i64>) -> Table {
    let ms = ms.map(|ms| ("x-lease-ms", Value::from(ms)));
    [("x-delivery-tag", Value::from(tag))].into_iter().chain(ms).collect()
}

async fn expect_channel_close(client: &mut RawClient) -> (u16, String) {
    client
        .expect(|method| match method {
            Method::ChannelClose(close) => Some((close.reply_code, close.reply_text.to_owned())),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_channel_is_closed_unless_its_queue_says_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    for (queue, action) in [("a", "close-channel"), ("b", "cancel-consumer")] {
        // This client cannot be told of a cancelled consumer.
        let mut client = RawClient::connect(address).await;
        declare(&mut client, queue, 50, action).await;
        client.consume(queue).await;
        client.publish(queue, b"work", true).await;
        client.expect_delivery().await;
        let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 50 ms. \
                    This timeout value can be configured, see consumers doc guide to learn more";
        assert_eq!(expect_channel_close(&mut client).await, (406, text.to_owned()));
    }
}

#[tokio::test]
async fn a_consumer_that_is_too_slow_is_cancelled_and_its_channel_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    let mut client = RawClient::open_socket(address).await;
    let capabilities: Table = [("consumer_cancel_notify", Value::Bool(true))].into_iter().collect();
    client.properties = [("capabilities", Value::Table(capabilities))].into_iter().collect();
    client.shake_hands().await;
    declare(&mut client, "q", 50, "cancel-consumer").await;
    client.consume("q").await;
    client.publish("q", b"work", true).await;
    client.expect_delivery().await;
    client.expect(|method| matches!(method, Method::BasicCancel(_)).then_some(())).await;
    client.consume("q").await;
    assert_eq!(client.expect_delivery().await, b"work");
}

#[tokio::test]
async fn what_is_overdue_goes_to_another_and_a_late_acknowledgement_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut slow = RawClient::connect(address).await;
    declare(&mut slow, "q", 100, "return").await;
    slow.send(CHANNEL, &Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 1, global: false })).await;
    slow.consume("q").await;
    slow.publish("q", b"work", true).await;
    slow.expect_delivery().await;
    let mut other = RawClient::connect(address).await;
    other.consume("q").await;
    assert_eq!(other.expect_delivery().await, b"work");
    slow.send(CHANNEL, &Method::BasicAck(basic::Ack { delivery_tag: 1, multiple: false })).await;
    // The answer comes after the acknowledgement was taken.
    slow.declare("another", false).await;
    let queue = server.board().topology().queue(VhostId(0), "q").unwrap().queue;
    assert_eq!(server.board().inspect_queue(queue).await.unwrap().unwrap().unacked, 1);
}

#[tokio::test]
async fn a_worker_keeps_its_message_for_as_long_as_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = start(directory.path()).await;
    let mut client = RawClient::connect(address).await;
    declare(&mut client, "q", 400, "return").await;
    client.confirm_select().await;
    client.publish("q", b"work", true).await;
    client.consume("q").await;
    client.expect_delivery().await;
    client.expect_confirms_up_to(1).await;
    extend(&mut client, lease(1, Some(600_000))).await;
    client.expect_confirms_up_to(2).await;
    let queue = server.board().topology().queue(VhostId(0), "q").unwrap().queue;
    let deadline = Instant::now() + Duration::from_millis(600);
    while Instant::now() < deadline {
        assert_eq!(server.board().inspect_queue(queue).await.unwrap().unwrap().unacked, 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let leases = broker::operation::Operation::Leases { from: store::Seq(0), count: 10 };
    let broker::operation::Answer::Leases { leases, .. } = server.board().operate(queue, leases).await.unwrap() else {
        panic!()
    };
    assert!(leases[0].is_extended && leases[0].left_ms.unwrap() > 500_000, "{leases:?}");
    client.send(CHANNEL, &Method::BasicAck(basic::Ack { delivery_tag: 1, multiple: false })).await;

    // What is settled cannot be extended: a mandatory request comes back, and is confirmed all the same.
    extend(&mut client, lease(1, None)).await;
    let (code, text, key) = client
        .expect(|method| match method {
            Method::BasicReturn(back) => {
                Some((back.reply_code, back.reply_text.to_owned(), back.routing_key.to_owned()))
            }
            _ => None,
        })
        .await;
    assert_eq!((code, text.as_str(), key.as_str()), (312, "NO_ROUTE", "amq.leveret.lease"));
    client.expect_confirms_up_to(3).await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = start(directory.path()).await;
    let with = |key: &str, value: Value| -> Table { [(key, value)].into_iter().collect() };
    for (headers, why) in [
        (Some(with("x-lease-ms", Value::from(5))), "header 'x-delivery-tag' is missing"),
        (None, "header 'x-delivery-tag' is missing"),
        (Some(with("x-delivery-tag", "1".into())), "header 'x-delivery-tag' must be a positive integer"),
        (Some(lease(-1, None)), "header 'x-delivery-tag' must be a positive integer"),
        (Some(lease(1, Some(0))), "header 'x-lease-ms' must be a positive integer"),
    ] {
        let mut client = RawClient::connect(address).await;
        extend(&mut client, headers).await;
        let expected = (406, format!("PRECONDITION_FAILED - invalid lease request: {why}"));
        assert_eq!(expect_channel_close(&mut client).await, expected);
    }
    let mut client = RawClient::connect(address).await;
    let arguments = [("x-consumer-timeout-action", Value::from("shrug"))];
    let declare =
        queue::Declare { queue: "q", arguments: arguments.into_iter().collect(), ..queue::Declare::default() };
    client.send(CHANNEL, &Method::QueueDeclare(declare)).await;
    let text = "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout-action' for queue 'q' in vhost '/': \
                invalid_consumer_timeout_action";
    assert_eq!(expect_channel_close(&mut client).await, (406, text.to_owned()));
}

#[tokio::test]
async fn a_lease_ends_with_its_server_and_what_is_taken_then_has_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = real_client::open_confirming(&server).await;
    let arguments =
        [("x-consumer-timeout", AMQPValue::LongInt(600)), ("x-consumer-timeout-action", real_client::text("return"))];
    real_client::declare(&channel, "q", &arguments).await;
    real_client::publish(&channel, ("", "q"), "work", Default::default()).await;
    let held = real_client::next(&mut real_client::consume(&channel, "q").await).await;
    let headers = [
        ("x-delivery-tag", AMQPValue::LongLongInt(i64::try_from(held.delivery_tag).unwrap())),
        ("x-lease-ms", AMQPValue::LongInt(600_000)),
    ];
    let properties = lapin::BasicProperties::default().with_headers(real_client::table(&headers));
    real_client::publish(&channel, ("", "amq.leveret.lease"), "", properties).await;
    let (_remains, killed) = real_client::start_on_remains_of(directory.path()).await;
    server.stop().await.unwrap();
    let (stopped, _) = start(directory.path()).await;
    for server in [killed, stopped] {
        let mut consumer = real_client::consume(&real_client::open(&server).await, "q").await;
        for _ in 0..2 {
            let delivery = real_client::next(&mut consumer).await;
            assert_eq!((real_client::body(&delivery), delivery.redelivered), ("work", true));
        }
    }
}
