//! The promises of the broker, held against lapin: prints `ok NAME` or `FAIL NAME: why` a test.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::panic::Location;
use std::pin::Pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, BasicRecoverOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeBindOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
type Test = fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Which brokers a test can run on.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Control,
    Leveret,
}

macro_rules! tests {
    ($($name:ident: $needs:ident),* $(,)?) => {
        [$((stringify!($name), Needs::$needs, (|| Box::pin($name())) as Test)),*]
    };
}

const SECONDS: u64 = 60;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, queue] = arguments.as_slice()
        && flag == "--worker"
    {
        return match hold_messages(queue).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let tests = tests![
        round_robin_in_strict_order: Nothing,
        prefetch_one_is_fair: Nothing,
        global_prefetch_is_the_channels: Nothing,
        automatic_acknowledgement_forgets: Nothing,
        redelivery_when_the_channel_closes: Nothing,
        redelivery_when_the_connection_closes: Nothing,
        redelivery_when_the_worker_is_killed: Nothing,
        nack_and_reject: Nothing,
        recover_redelivers: Nothing,
        unknown_delivery_tag_and_another_channel: Nothing,
        acknowledgement_timeout: Leveret,
        redeclaring_differently: Nothing,
        missing_and_locked_queues: Nothing,
        auto_delete_queues: Nothing,
        exchange_types_route: Nothing,
        mandatory_messages_return: Nothing,
        consumers_hear_of_their_queues_end: Nothing,
        get_purge_and_delete_count: Nothing,
        dead_letters_tell_their_death: Nothing,
        length_limits: Nothing,
        priorities: Nothing,
        transactions: Nothing,
        bodies_of_any_size_and_byte: Nothing,
        properties_come_back_whole: Nothing,
        direct_reply_to: Nothing,
        durable_after_a_clean_restart: Control,
        durable_after_a_kill: Control,
        confirmed_messages_survive_a_kill: Control,
    ];
    let mut failed = false;
    for (name, needs, test) in tests {
        let wanted = arguments.is_empty() || arguments.iter().any(|argument| argument == name);
        let possible = match needs {
            Needs::Nothing => true,
            Needs::Control => std::env::var("CONTROL_PORT").is_ok(),
            Needs::Leveret => std::env::var("LEVERET_PID").is_ok(),
        };
        if !wanted || !possible {
            continue;
        }
        let why = match tokio::time::timeout(Duration::from_secs(SECONDS), test()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("not done after {SECONDS} s")),
        };
        failed |= why.is_some();
        match why {
            None => println!("ok {name}"),
            Some(why) => println!("FAIL {name}: {}", why.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

// ---- what the tests say

/// Fails with both values and the test's line when they differ.
#[track_caller]
fn equal<T: PartialEq<U> + Debug, U: Debug>(got: T, wanted: U) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    Err(format!("got {got:?}, expected {wanted:?} (line {})", Location::caller().line()).into())
}

async fn connect() -> lapin::Result<Connection> {
    let place = |name| std::env::var(name).unwrap_or_default();
    let url = format!("amqp://guest:guest@{}:{}/%2f", place("AMQP_HOST"), place("AMQP_PORT"));
    Connection::connect(&url, ConnectionProperties::default()).await
}

/// A channel on a connection of its own.
async fn open() -> lapin::Result<Channel> {
    connect().await?.create_channel().await
}

fn fresh(kind: &str) -> ShortString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{kind}-{started:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in fields {
        table.insert((*key).into(), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// A new queue, which goes by itself some time after the tests are done.
async fn declare(channel: &Channel, durable: bool, arguments: &[(&str, AMQPValue)]) -> lapin::Result<ShortString> {
    let mut arguments = table(arguments);
    arguments.insert("x-expires".into(), AMQPValue::LongInt(120_000));
    let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(fresh("queue"), options, arguments).await?.name().clone())
}

async fn passive(channel: &Channel, queue: &ShortString) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.clone(), options, FieldTable::default()).await?.message_count())
}

/// Asks until the queue has so many ready messages: RabbitMQ answers ahead of what it has yet to do.
async fn becomes_ready(channel: &Channel, queue: &ShortString, wanted: u32) -> lapin::Result<()> {
    while passive(channel, queue).await? != wanted {}
    Ok(())
}

async fn send(
    channel: &Channel,
    queue: &ShortString,
    properties: BasicProperties,
    bodies: &[&str],
) -> lapin::Result<()> {
    for body in bodies {
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), queue.clone(), options, body.as_bytes(), properties.clone()).await?;
    }
    Ok(())
}

async fn consume(channel: &Channel, queue: &ShortString, no_ack: bool) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, Box<dyn Error + Send + Sync>> {
    match tokio::time::timeout(Duration::from_secs(10), consumer.next()).await {
        Ok(Some(delivery)) => Ok(delivery?),
        Ok(None) => Err("the consumer ended".into()),
        Err(_) => Err("no delivery within 10 s".into()),
    }
}

/// The next bodies, those redelivered with a star.
async fn take(consumer: &mut Consumer, count: usize) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let delivery = next(consumer).await?;
        let star = if delivery.redelivered { "*" } else { "" };
        taken.push(String::from_utf8_lossy(&delivery.data).into_owned() + star);
    }
    Ok(taken)
}

/// The body and flag of the message that basic.get gives.
async fn get(channel: &Channel, queue: &ShortString, no_ack: bool) -> lapin::Result<Option<(String, Delivery)>> {
    let got = channel.basic_get(queue.clone(), BasicGetOptions { no_ack }).await?;
    Ok(got.map(|message| (String::from_utf8_lossy(&message.delivery.data).into_owned(), message.delivery)))
}

/// The broker refused with this code and text.
#[track_caller]
fn refused<T>(result: lapin::Result<T>, code: u16, reason: &str) -> Outcome {
    let line = Location::caller().line();
    let clipped = if reason.len() > 255 { format!("{}...", &reason[..252]) } else { reason.to_owned() };
    match result.map_err(|error| error.kind().clone()) {
        Ok(_) => Err(format!("not refused (line {line})").into()),
        Err(ErrorKind::ProtocolError(error)) if error.get_id() == code && error.get_message().as_str() == clipped => {
            Ok(())
        }
        Err(other) => Err(format!("refused with {other:?}, expected {code} {clipped} (line {line})").into()),
    }
}

/// A consumer's stream ends with the refusal of its channel.
async fn ends_with(consumer: &mut Consumer) -> lapin::Result<()> {
    while let Some(delivery) = consumer.next().await {
        delivery?;
    }
    Ok(())
}

/// Restarts the broker, how is "kill" or "term".
async fn restart(how: &'static str) -> Outcome {
    let asking = move || -> std::io::Result<String> {
        let port = std::env::var("CONTROL_PORT").unwrap_or_default();
        let mut control = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        writeln!(control, "restart {how}")?;
        let mut answer = String::new();
        control.read_to_string(&mut answer)?;
        Ok(answer)
    };
    equal(tokio::task::spawn_blocking(asking).await??.trim(), "ok")
}

/// The worker process: prints each body it gets and acknowledges none.
async fn hold_messages(queue: &str) -> lapin::Result<()> {
    let mut deliveries = consume(&open().await?, &queue.into(), false).await?;
    while let Some(delivery) = deliveries.next().await {
        println!("{}", String::from_utf8_lossy(&delivery?.data));
    }
    Ok(())
}

const FIVE: [&str; 5] = ["0", "1", "2", "3", "4"];
const FIVE_AGAIN: [&str; 5] = ["0*", "1*", "2*", "3*", "4*"];

fn plain() -> BasicProperties {
    BasicProperties::default()
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

// ---- dispatch

async fn round_robin_in_strict_order() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(consume(&open().await?, &queue, false).await?);
    }
    for n in 0..30 {
        send(&channel, &queue, plain(), &[&n.to_string()]).await?;
    }
    for n in 0..30 {
        equal(take(&mut workers[n % 3], 1).await?, [n.to_string()])?;
    }
    Ok(())
}

async fn prefetch_one_is_fair() -> Outcome {
    let (channel, slow, fast) = (open().await?, open().await?, open().await?);
    let queue = declare(&channel, false, &[]).await?;
    slow.basic_qos(1, BasicQosOptions::default()).await?;
    fast.basic_qos(1, BasicQosOptions::default()).await?;
    let mut slowly = consume(&slow, &queue, false).await?;
    let mut quickly = consume(&fast, &queue, false).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    equal(take(&mut slowly, 1).await?, ["0"])?;
    for body in &FIVE[1..] {
        let delivery = next(&mut quickly).await?;
        equal(&delivery.data, body.as_bytes())?;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn global_prefetch_is_the_channels() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    channel.basic_qos(2, BasicQosOptions { global: true }).await?;
    let mut deliveries = consume(&channel, &queue, false).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    take(&mut deliveries, 2).await?;
    becomes_ready(&channel, &queue, 3).await?;
    channel.basic_qos(4, BasicQosOptions { global: true }).await?;
    take(&mut deliveries, 2).await?;
    becomes_ready(&channel, &queue, 1).await?;
    channel.basic_ack(0, BasicAckOptions { multiple: true }).await?;
    equal(take(&mut deliveries, 1).await?, ["4"])
}

// ---- acknowledgement

async fn automatic_acknowledgement_forgets() -> Outcome {
    let (channel, worker) = (open().await?, open().await?);
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    equal(take(&mut consume(&worker, &queue, true).await?, 5).await?, FIVE)?;
    worker.close(200, "done".into()).await?;
    equal(passive(&channel, &queue).await?, 0)
}

async fn redelivery_when_the_channel_closes() -> Outcome {
    let (channel, holder) = (open().await?, open().await?);
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    equal(take(&mut consume(&holder, &queue, false).await?, 5).await?, FIVE)?;
    let mut waiting = consume(&channel, &queue, false).await?;
    holder.close(200, "done".into()).await?;
    equal(take(&mut waiting, 5).await?, FIVE_AGAIN)
}

async fn redelivery_when_the_connection_closes() -> Outcome {
    let (channel, connection) = (open().await?, connect().await?);
    let holder = connection.create_channel().await?;
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    equal(take(&mut consume(&holder, &queue, false).await?, 5).await?, FIVE)?;
    let mut waiting = consume(&channel, &queue, false).await?;
    connection.close(200, "done".into()).await?;
    equal(take(&mut waiting, 5).await?, FIVE_AGAIN)
}

async fn redelivery_when_the_worker_is_killed() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    let mut program = Command::new(std::env::current_exe()?);
    let mut worker = program.args(["--worker", queue.as_str()]).stdout(Stdio::piped()).spawn()?;
    let output = worker.stdout.take().ok_or("the worker has no output")?;
    let printed = tokio::task::spawn_blocking(|| BufReader::new(output).lines().take(5).collect::<Result<Vec<_>, _>>());
    equal(printed.await??, FIVE)?;
    let mut waiting = consume(&channel, &queue, false).await?;
    worker.kill()?;
    worker.wait()?;
    equal(take(&mut waiting, 5).await?, FIVE_AGAIN)
}

async fn nack_and_reject() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &["a", "b", "c"]).await?;
    let mut got = Vec::new();
    while let Some((_, delivery)) = get(&channel, &queue, false).await? {
        got.push(delivery);
    }
    got[1].nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
    got[0].reject(BasicRejectOptions { requeue: true }).await?;
    got[2].reject(BasicRejectOptions { requeue: false }).await?;
    let mut again = Vec::new();
    while let Some((body, delivery)) = get(&channel, &queue, false).await? {
        again.push((body, delivery.redelivered));
    }
    equal(again, [("a".to_owned(), true), ("b".to_owned(), true)])
}

async fn recover_redelivers() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    send(&channel, &queue, plain(), &FIVE).await?;
    let mut deliveries = consume(&channel, &queue, false).await?;
    take(&mut deliveries, 5).await?;
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    equal(take(&mut deliveries, 5).await?, FIVE_AGAIN)
}

async fn unknown_delivery_tag_and_another_channel() -> Outcome {
    let connection = connect().await?;
    let (owner, other) = (connection.create_channel().await?, connection.create_channel().await?);
    let queue = declare(&owner, false, &[]).await?;
    send(&owner, &queue, plain(), &["a"]).await?;
    let mut deliveries = consume(&owner, &queue, false).await?;
    let delivery = next(&mut deliveries).await?;
    let mut idle = consume(&other, &declare(&other, false, &[]).await?, false).await?;
    other.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
    refused(ends_with(&mut idle).await, 406, "PRECONDITION_FAILED - unknown delivery tag 1")?;
    delivery.ack(BasicAckOptions::default()).await?;
    send(&owner, &queue, plain(), &["b"]).await?;
    equal(take(&mut deliveries, 1).await?, ["b"])
}

async fn acknowledgement_timeout() -> Outcome {
    let (channel, late) = (open().await?, open().await?);
    let queue = declare(&channel, false, &[("x-consumer-timeout", AMQPValue::LongInt(1000))]).await?;
    send(&channel, &queue, plain(), &["a"]).await?;
    let mut deliveries = consume(&late, &queue, false).await?;
    next(&mut deliveries).await?;
    let mut waiting = consume(&channel, &queue, true).await?;
    refused(
        ends_with(&mut deliveries).await,
        406,
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms. This timeout \
         value can be configured, see consumers doc guide to learn more",
    )?;
    equal(take(&mut waiting, 1).await?, ["a*"])
}

// ---- declaring

async fn redeclaring_differently() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, true, &[]).await?;
    refused(
        channel.queue_declare(queue.clone(), QueueDeclareOptions::default(), FieldTable::default()).await,
        406,
        &format!(
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': received 'false' but \
             current is 'true'"
        ),
    )
}

async fn missing_and_locked_queues() -> Outcome {
    let missing = open().await?;
    refused(passive(&missing, &"nope".into()).await, 404, "NOT_FOUND - no queue 'nope' in vhost '/'")?;
    let connection = connect().await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let channel = connection.create_channel().await?;
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?.name().clone();
    equal(queue.as_str().starts_with("amq.gen-"), true)?;
    let locked = open().await?;
    refused(
        passive(&locked, &queue).await,
        405,
        &format!(
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be \
             originally declared on another connection or the exclusive property value does not match that of the \
             original declaration."
        ),
    )?;
    connection.close(200, "done".into()).await?;
    let gone = open().await?;
    refused(passive(&gone, &queue).await, 404, &format!("NOT_FOUND - no queue '{queue}' in vhost '/'"))
}

async fn auto_delete_queues() -> Outcome {
    let channel = open().await?;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(fresh("passing"), options, FieldTable::default()).await?.name().clone();
    let consumer = consume(&channel, &queue, false).await?;
    equal(passive(&channel, &queue).await?, 0)?;
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    refused(passive(&channel, &queue).await, 404, &format!("NOT_FOUND - no queue '{queue}' in vhost '/'"))
}

// ---- publishing

async fn exchange_types_route() -> Outcome {
    let channel = open().await?;
    let (source, target) = (fresh("topic"), fresh("headers"));
    let passing = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    for (name, kind) in [(&source, ExchangeKind::Topic), (&target, ExchangeKind::Headers)] {
        channel.exchange_declare(name.clone(), kind, passing, FieldTable::default()).await?;
    }
    let queue = declare(&channel, false, &[]).await?;
    let binding = ExchangeBindOptions::default();
    channel.exchange_bind(target.clone(), source.clone(), "a.#".into(), binding, FieldTable::default()).await?;
    let all = table(&[("x-match", text("all")), ("k", AMQPValue::LongInt(1))]);
    channel.queue_bind(queue.clone(), target, "".into(), QueueBindOptions::default(), all).await?;
    for (key, number) in [("a.b.c", 1), ("a", 2), ("b", 1), ("a", 1)] {
        let properties = plain().with_headers(table(&[("k", AMQPValue::LongLongInt(number))]));
        let options = BasicPublishOptions::default();
        channel.basic_publish(source.clone(), key.into(), options, key.as_bytes(), properties).await?;
    }
    let mut bodies = Vec::new();
    while let Some((body, _)) = get(&channel, &queue, true).await? {
        bodies.push(body);
    }
    equal(bodies, ["a.b.c", "a"])
}

async fn mandatory_messages_return() -> Outcome {
    let channel = open().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish("amq.direct".into(), "nowhere".into(), mandatory, b"a", plain()).await?.await?;
    equal(confirm.is_ack(), true)?;
    let returned = confirm.take_message().ok_or("nothing was returned")?;
    equal((returned.reply_code, returned.reply_text.as_str(), returned.delivery.data), (312, "NO_ROUTE", b"a".to_vec()))
}

async fn consumers_hear_of_their_queues_end() -> Outcome {
    let (channel, worker) = (open().await?, open().await?);
    let queue = declare(&channel, false, &[]).await?;
    let mut deliveries = consume(&worker, &queue, false).await?;
    channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    equal(tokio::time::timeout(Duration::from_secs(10), deliveries.next()).await?.is_none(), true)
}

async fn get_purge_and_delete_count() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    equal(get(&channel, &queue, true).await?.is_none(), true)?;
    send(&channel, &queue, plain(), &FIVE).await?;
    let first = channel.basic_get(queue.clone(), BasicGetOptions::default()).await?.ok_or("nothing to get")?;
    equal(first.message_count, 4)?;
    equal(channel.queue_purge(queue.clone(), QueuePurgeOptions::default()).await?, 4)?;
    send(&channel, &queue, plain(), &["a"]).await?;
    equal(channel.queue_delete(queue, QueueDeleteOptions::default()).await?, 1)
}

// ---- limits of queues

async fn dead_letters_tell_their_death() -> Outcome {
    let channel = open().await?;
    let dead = declare(&channel, false, &[]).await?;
    let to_dead = [
        ("x-message-ttl", AMQPValue::LongInt(100)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(dead.as_str())),
    ];
    let queue = declare(&channel, false, &to_dead).await?;
    send(&channel, &queue, plain(), &["a"]).await?;
    let letter = next(&mut consume(&channel, &dead, true).await?).await?;
    let headers = letter.properties.headers().clone().ok_or("no headers")?;
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return Err("no x-death".into());
    };
    let [AMQPValue::FieldTable(death)] = deaths.as_slice() else {
        return Err(format!("x-death is {deaths:?}").into());
    };
    let keys = FieldArray::from(vec![text(queue.as_str())]);
    for (key, value) in [
        ("count", AMQPValue::LongLongInt(1)),
        ("reason", text("expired")),
        ("queue", text(queue.as_str())),
        ("exchange", text("")),
        ("routing-keys", AMQPValue::FieldArray(keys)),
    ] {
        equal(death.inner().get(key), Some(&value))?;
    }
    Ok(())
}

async fn length_limits() -> Outcome {
    let channel = open().await?;
    let dropping = declare(&channel, false, &[("x-max-length", AMQPValue::LongInt(2))]).await?;
    send(&channel, &dropping, plain(), &["a", "b", "c"]).await?;
    equal(get(&channel, &dropping, true).await?.map(|(body, _)| body), Some("b".to_owned()))?;
    let limits = [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))];
    let refusing = declare(&channel, false, &limits).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for accepted in [true, false] {
        let options = BasicPublishOptions::default();
        let confirm = channel.basic_publish("".into(), refusing.clone(), options, b"a", plain()).await?.await?;
        equal((confirm.is_ack(), confirm.is_nack()), (accepted, !accepted))?;
    }
    Ok(())
}

async fn priorities() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[("x-max-priority", AMQPValue::LongInt(5))]).await?;
    for (body, priority) in [("a", 0), ("b", 3), ("c", 9), ("d", 3)] {
        send(&channel, &queue, plain().with_priority(priority), &[body]).await?;
    }
    equal(take(&mut consume(&channel, &queue, true).await?, 4).await?, ["c", "b", "d", "a"])
}

async fn transactions() -> Outcome {
    let (channel, other) = (open().await?, open().await?);
    let queue = declare(&channel, false, &[]).await?;
    channel.tx_select().await?;
    send(&channel, &queue, plain(), &["a", "b"]).await?;
    equal(passive(&other, &queue).await?, 0)?;
    channel.tx_commit().await?;
    equal(passive(&other, &queue).await?, 2)?;
    send(&channel, &queue, plain(), &["c"]).await?;
    channel.tx_rollback().await?;
    equal(passive(&other, &queue).await?, 2)
}

async fn bodies_of_any_size_and_byte() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    let mut deliveries = consume(&channel, &queue, true).await?;
    for size in [0, 1, 256, 1 << 20, 20 << 20] {
        let body: Vec<u8> = (0xce..=u8::MAX).chain(0..0xce).cycle().take(size).collect();
        channel.basic_publish("".into(), queue.clone(), BasicPublishOptions::default(), &body, plain()).await?;
        equal(next(&mut deliveries).await?.data == body, true)?;
    }
    Ok(())
}

async fn properties_come_back_whole() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, false, &[]).await?;
    let deep = table(&[("deeper", AMQPValue::FieldTable(table(&[("nothing", AMQPValue::Void)])))]);
    let list = FieldArray::from(vec![AMQPValue::LongInt(1), text("two"), AMQPValue::FieldTable(deep.clone())]);
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("a".into())
        .with_cluster_id("k".into())
        .with_headers(table(&[
            ("bool", AMQPValue::Boolean(true)),
            ("i8", AMQPValue::ShortShortInt(-3)),
            ("u8", AMQPValue::ShortShortUInt(200)),
            ("i16", AMQPValue::ShortInt(-300)),
            ("u16", AMQPValue::ShortUInt(60_000)),
            ("i32", AMQPValue::LongInt(-70_000)),
            ("u32", AMQPValue::LongUInt(4_000_000_000)),
            ("i64", AMQPValue::LongLongInt(-(1 << 40))),
            ("f32", AMQPValue::Float(1.5)),
            ("f64", AMQPValue::Double(2.25)),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("void", AMQPValue::Void),
            ("bytes", AMQPValue::ByteArray((0..=u8::MAX).collect::<Vec<u8>>().into())),
            ("list", AMQPValue::FieldArray(list)),
            ("table", AMQPValue::FieldTable(deep)),
        ]));
    send(&channel, &queue, sent.clone(), &["a"]).await?;
    let (_, delivery) = get(&channel, &queue, true).await?.ok_or("nothing to get")?;
    equal(delivery.properties, sent)
}

async fn direct_reply_to() -> Outcome {
    let (client, server) = (open().await?, open().await?);
    let queue = declare(&server, false, &[]).await?;
    let pseudo: ShortString = "amq.rabbitmq.reply-to".into();
    let mut replies = consume(&client, &pseudo, true).await?;
    send(&client, &queue, plain().with_reply_to(pseudo).with_correlation_id("1".into()), &["ping"]).await?;
    let request = next(&mut consume(&server, &queue, true).await?).await?;
    let address = request.properties.reply_to().clone().ok_or("no reply_to")?;
    send(&server, &address, plain().with_correlation_id("1".into()), &["pong"]).await?;
    equal(take(&mut replies, 1).await?, ["pong"])
}

// ---- durability

async fn durable_after_a_clean_restart() -> Outcome {
    durable("term").await
}

async fn durable_after_a_kill() -> Outcome {
    durable("kill").await
}

async fn durable(how: &'static str) -> Outcome {
    let channel = open().await?;
    let (queue, passing) = (declare(&channel, true, &[]).await?, declare(&channel, false, &[]).await?);
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    send(&channel, &queue, persistent(), &["a", "b", "c"]).await?;
    send(&channel, &queue, plain(), &["transient"]).await?;
    channel.wait_for_confirms().await?;
    restart(how).await?;
    let again = open().await?;
    let mut deliveries = consume(&again, &queue, true).await?;
    let mut bodies = take(&mut deliveries, 3).await?;
    send(&again, &queue, plain(), &["last"]).await?;
    bodies.extend(take(&mut deliveries, 1).await?);
    let bodies: Vec<&str> = bodies.iter().map(|body| body.trim_end_matches('*')).collect();
    equal(bodies, ["a", "b", "c", "last"])?;
    refused(passive(&again, &passing).await, 404, &format!("NOT_FOUND - no queue '{passing}' in vhost '/'"))
}

async fn confirmed_messages_survive_a_kill() -> Outcome {
    let channel = open().await?;
    let queue = declare(&channel, true, &[]).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let kill_at = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos() as usize % 450;
    let mut confirms = Vec::new();
    let mut killing = None;
    for n in 0..500 {
        if n == kill_at {
            killing = Some(tokio::spawn(restart("kill")));
        }
        let options = BasicPublishOptions::default();
        let body = n.to_string();
        match channel.basic_publish("".into(), queue.clone(), options, body.as_bytes(), persistent()).await {
            Ok(confirm) => confirms.push((n, confirm)),
            Err(_) => break,
        }
    }
    let mut confirmed = BTreeSet::new();
    for (n, confirm) in confirms {
        if confirm.await.is_ok_and(|answer| answer.is_ack()) {
            confirmed.insert(n);
        }
    }
    killing.ok_or("the server was not killed")?.await??;
    let again = open().await?;
    let mut here = Vec::new();
    while let Some((body, _)) = get(&again, &queue, true).await? {
        here.push(body.parse::<usize>()?);
    }
    equal(&here, &(0..here.len()).collect::<Vec<_>>())?;
    let missing: Vec<&usize> = confirmed.iter().filter(|n| **n >= here.len()).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("confirmed and missing: {missing:?}").into()) }
}
