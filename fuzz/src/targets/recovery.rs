//! Opening a log, and making a shard and a topology of what it holds.
//!
//! An input is a directory's files, one after the other: number (4 bytes, little endian), length (4), bytes. Half of the
//! damage gets a right checksum, so that it is the code behind the checksums that must notice.

use super::Target;
use crate::content::{self, EXCHANGES, KEYS, QUEUES};
use crate::mutation::damage;
use crate::random::Random;
use amqp::{ChannelId, Table, Value};
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{Batch, CallId, Command, ConnectionId, Now, Outbox, Publish, QueueIds, ShardId, ShardInput};
use broker::message::{Message, MessageParts};
use broker::shard::{Shard, ShardSettings};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use store::{
    Link, MemoryDisk, OpenError, Opened, Options, Place, QueueId, Record, SegmentLog, Seq, SeqRange, Store, Urgency,
};

// The disk in memory holds each file twice, and twice again when one is opened a second time; a record of few bytes
// becomes a place in a queue of hundreds.
pub(super) const TARGET: Target = Target { name: "recovery", run, generate, mutate, memory: (4 << 20, 256) };

fn run(input: &[u8]) {
    let disk = disk_of(input);
    let before = files(&disk);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    match open(&disk, &mut |record| first.push(format!("{record:?}"))) {
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            let is_io = matches!(error, OpenError::Io { .. });
            assert!(is_io || files(&disk) == before, "a refusal changes nothing: {error}");
        }
        Ok(opened) => {
            drop(opened);
            let again = open(&disk, &mut |record| second.push(format!("{record:?}")));
            let report = again.unwrap_or_else(|error| panic!("it was opened, and cannot be again: {error}")).report;
            assert_eq!(report.cut, None, "it is cut twice");
            assert_eq!(first, second, "it holds something else the second time");
            drop((first, second));
            start(&disk);
        }
    }
}

fn open(disk: &MemoryDisk, replay: &mut dyn FnMut(Record<'_>)) -> Result<Opened<MemoryDisk>, OpenError> {
    SegmentLog::open(disk.clone(), Options::default(), &mut |_, record| replay(record))
}

/// Starts the broker on the log, lets it work for a moment and stops it, unless it refuses.
fn start(disk: &MemoryDisk) {
    let now = Now { ms: 1_000_000, unix_ms: 1_700_000_000_000 };
    let mut recovery = Shard::<SegmentLog>::recover(ShardId(0), ShardSettings::default(), now);
    let opened = SegmentLog::open(disk.clone(), Options::default(), &mut |lsn, record| recovery.replay(lsn, record));
    let Opened { log, mut writer, mut caretaker, report, .. } = opened.expect("opened twice before");
    let (mut shard, facts) = match recovery.finish(log, report.clean) {
        Ok(recovered) => recovered,
        Err(error) => return assert!(!error.to_string().is_empty(), "a refusal says why"),
    };
    let facts = facts.into_iter().map(|(key, value)| (ShardId(0), key, value));
    let mut wanted = CatalogOutbox::default();
    let topology = match Catalog::recover(1, report.epoch as u32, facts, &mut wanted) {
        Ok((_, topology)) => topology,
        Err(error) => return assert!(!error.to_string().is_empty(), "a refusal says why"),
    };
    let mut inbox: Vec<_> = wanted.shards.into_iter().map(|(_, input)| input).collect();
    inbox.push(ShardInput::Inspect { ticket: 1, queue: None });
    let connection = ConnectionId(1);
    let queues: QueueIds = topology.queues().map(|queue| queue.queue.id).collect();
    if !queues.is_empty() {
        inbox.push(ShardInput::Batch(Batch { connection, commands: some_work(&queues) }));
    }
    let mut out = Outbox::default();
    for ms in [0, 60_000] {
        let now = Now { ms: now.ms + ms, unix_ms: now.unix_ms + ms };
        shard.step(now, &mut inbox, &topology, &mut out);
        writer.step(Duration::from_millis(ms));
        caretaker.step(Duration::from_millis(ms));
    }
    inbox.push(ShardInput::Close);
    for _ in 0..4 {
        shard.step(now, &mut inbox, &topology, &mut out);
        writer.step(Duration::from_secs(120));
        caretaker.step(Duration::from_secs(120));
    }
    assert_eq!(out.failed, None, "a disk in memory does not fail");
    assert!(out.closed, "the shard can be stopped");
}

/// A message into each queue, and one out of each.
fn some_work(queues: &QueueIds) -> Vec<Command> {
    let parts = MessageParts { exchange: "", routing_key: QUEUES[0], properties: &[0, 0], died_here: false };
    let publish = Publish {
        queues: queues.clone(),
        message: Message::new(parts, b"new"),
        more: Vec::new(),
        persistent: true,
        expiration_ms: None,
        priority: None,
        delay: None,
        confirm: true,
    };
    let mut commands = vec![Command::Publish(publish), Command::Mark { mark: 1 }];
    commands.extend((1..).zip(queues.iter()).map(|(call, queue)| Command::Get {
        call: CallId(call),
        channel: ChannelId(1),
        queue: *queue,
        no_ack: call % 2 == 0,
    }));
    commands
}

fn generate(random: &mut Random) -> Vec<u8> {
    let disk = MemoryDisk::new();
    let (segment_bytes, salt) = (200 + random.below(4000) as u64, random.number() as u32);
    for _ in 0..1 + random.below(3) {
        let options = Options { segment_bytes, salt, reserve_bytes: 0, progress: None };
        let Ok(Opened { mut log, mut writer, .. }) = SegmentLog::open(disk.clone(), options, &mut |_, _| {}) else {
            break;
        };
        for _ in 0..random.below(20) {
            append(&mut log, random);
            if random.one_in(3) {
                log.flush(if random.one_in(2) { Urgency::Sync } else { Urgency::Lazy });
                writer.step(Duration::ZERO);
            }
        }
        if random.one_in(2) {
            disk.crash(&mut |bound| random.number() % bound);
        } else if random.one_in(2) {
            log.append(Record::Forget { key: b"" }, Link::Alone);
            log.close();
            writer.step(Duration::ZERO);
        }
    }
    joined(&files(&disk))
}

fn append(log: &mut SegmentLog, random: &mut Random) {
    let link = if random.one_in(6) { Link::WithNext } else { Link::Alone };
    let queue = QueueId(if random.one_in(10) { random.edge() } else { random.below(3) as u64 });
    let seq = Seq(if random.one_in(10) { random.edge() } else { random.below(30) as u64 });
    let record = match random.below(8) {
        0..=2 => {
            let places: Vec<_> = (0..random.below(4)).map(|at| place(at, random)).collect();
            let moved_from = random.one_in(6).then_some((queue, seq));
            let payload = payload(random);
            let kept = !random.one_in(8);
            log.append(Record::Message { places: &places, moved_from, kept, payload: &payload }, link);
            return;
        }
        3 => {
            let last = Seq(seq.0.saturating_add(random.below(4) as u64));
            let all = SeqRange { first: Seq(0), last: Seq(u64::MAX) };
            let ranges = [if random.one_in(20) { all } else { SeqRange { first: seq, last } }];
            log.append(Record::Settled { queue, ranges: &ranges }, link);
            return;
        }
        4 => {
            let last = Seq(seq.0.saturating_add(random.below(4) as u64));
            Record::Returned {
                queue,
                range: SeqRange { first: seq, last },
                attempts: random.edge() as u32,
                due_at_ms: due(random),
            }
        }
        5 => Record::Forget { key: b"q/1" },
        6 => {
            let last = Seq(seq.0.saturating_add(random.below(4) as u64));
            Record::Released { queue, range: SeqRange { first: seq, last }, due_at_ms: due(random) }
        }
        _ => {
            let (key, value) = fact(random);
            log.append(Record::Fact { key: &key, value: &value }, link);
            return;
        }
    };
    log.append(record, link);
}

fn place(at: usize, random: &mut Random) -> Place {
    let far = random.one_in(12);
    Place {
        queue: QueueId(at as u64),
        seq: Seq(if far { random.edge() } else { random.below(30) as u64 }),
        expires_at_ms: if random.one_in(3) { random.edge() } else { 0 },
        priority: random.below(12) as u8,
        due_at_ms: due(random),
    }
}

/// Never, some time, or about when the broker starts.
fn due(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.edge(),
        1 => 1_700_000_000_000 + random.below(90_000) as u64,
        _ => 0,
    }
}

fn payload(random: &mut Random) -> Bytes {
    let mut properties = BytesMut::new();
    content::properties(random).encode(&mut properties);
    let parts = MessageParts {
        exchange: random.pick(&EXCHANGES),
        routing_key: random.pick(&KEYS),
        properties: &properties,
        died_here: random.one_in(3),
    };
    let body = vec![0; random.below(40)];
    let bytes = Message::new(parts, &body).bytes().clone();
    if !random.one_in(40) {
        return bytes;
    }
    let mut bytes = bytes.to_vec();
    damage(&mut bytes, random);
    bytes.into()
}

/// A fact as `broker::fact` describes them, or nearly.
fn fact(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let mut arguments = BytesMut::new();
    let mut value: Table = [("v", Value::I64(1))].map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let text = |text: &str| Value::Str(text.as_bytes().to_vec());
    value.insert("vhost", text("/"));
    value.insert("auto_delete", Value::Bool(random.one_in(4)));
    let key = match random.below(3) {
        0 => {
            content::queue_arguments(random).encode(&mut arguments);
            value.insert("name", text(random.pick(&QUEUES)));
            format!("q/{}", random.below(4))
        }
        1 => {
            content::arguments(random).encode(&mut arguments);
            let name = random.pick(&EXCHANGES[1..4]);
            value.insert("name", text(name));
            value.insert("type", text(random.pick(&["direct", "fanout", "topic", "headers"])));
            value.insert("internal", Value::Bool(false));
            format!("x/1///{name}")
        }
        _ => {
            content::arguments(random).encode(&mut arguments);
            value.insert("source", text(random.pick(&EXCHANGES)));
            value.insert("destination", text(random.pick(&["q0", "q1", "x0", "x1"])));
            value.insert("kind", text(random.pick(&["queue", "exchange"])));
            value.insert("key", text(random.pick(&KEYS)));
            value.insert("queue", Value::I64(random.below(4) as i64));
            format!("b/{}", random.below(5))
        }
    };
    value.insert("arguments", Value::Bytes(arguments.to_vec()));
    if random.one_in(10) {
        value.insert(random.pick(&["v", "vhost", "name", "type", "arguments", "queue"]), content::value(random, 1));
    }
    let mut bytes = BytesMut::new();
    value.encode(&mut bytes);
    (key.into_bytes(), bytes.to_vec())
}

fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    let mut files = split(input);
    if files.is_empty() || random.one_in(16) {
        return damage(input, random);
    }
    let at = random.below(files.len());
    match random.below(12) {
        0 => drop(files.remove(at)),
        1 => files[at].0 = files[at].0.wrapping_add(1),
        2..=6 => damage(&mut files[at].1, random),
        _ => damage_below_checksum(&mut files[at].1, random),
    }
    *input = joined(&files);
}

/// Damages the header or one record, and makes its checksum right again.
fn damage_below_checksum(file: &mut Vec<u8>, random: &mut Random) {
    if file.len() < SEGMENT_HEADER {
        return damage(file, random);
    }
    let salt = number(&file[28..32]);
    if random.one_in(8) {
        let at = 8 + random.below(32);
        file[at] = random.edge() as u8;
        let crc = crc32c::crc32c(&file[..40]);
        file[40..SEGMENT_HEADER].copy_from_slice(&crc.to_le_bytes());
        return;
    }
    let mut records = Vec::new();
    let mut at = SEGMENT_HEADER;
    while let Some(head) = file.get(at..at + RECORD_HEAD) {
        let end = at + RECORD_HEAD + number(&head[..4]) as usize;
        if end > file.len() {
            break;
        }
        if head[8] == FOOTER {
            // Where it says that records are is believed for its checksum, and would be wrong now: without it the file is
            // read through.
            file.truncate(at);
            break;
        }
        records.push(at..end);
        at = end;
    }
    if records.is_empty() {
        return;
    }
    let range = records.swap_remove(random.below(records.len()));
    let mut kind_and_flags = [file[range.start + 8], file[range.start + 9]];
    let mut body = file[range.start + RECORD_HEAD..range.end].to_vec();
    match random.below(6) {
        0 => kind_and_flags[0] = [1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 25][random.below(11)],
        1 => kind_and_flags[1] ^= 1 << random.below(4),
        _ => damage(&mut body, random),
    }
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    let mut crc = crc32c::crc32c_append(salt, &record);
    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &kind_and_flags), &body);
    record.extend(crc.to_le_bytes());
    record.extend(kind_and_flags);
    record.extend(body);
    file.splice(range, record);
}

/// Octets before a segment's first record, and before a record's body (`docs/storage-format.md`).
const SEGMENT_HEADER: usize = 44;
const RECORD_HEAD: usize = 10;
/// The kind of the note that ends a segment.
const FOOTER: u8 = 4;

fn files(disk: &MemoryDisk) -> Vec<(u32, Vec<u8>)> {
    let number = |name: &str| name.trim_end_matches(".log").parse().unwrap_or(0);
    disk.names().iter().map(|name| (number(name), disk.file(name).unwrap_or_default())).collect()
}

fn joined(files: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, file) in files {
        bytes.extend(number.to_le_bytes());
        bytes.extend((file.len() as u32).to_le_bytes());
        bytes.extend(file);
    }
    bytes
}

fn split(mut input: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut files = Vec::new();
    while let Some((head, rest)) = input.split_at_checked(8) {
        let length = (number(&head[4..]) as usize).min(rest.len());
        files.push((number(&head[..4]), rest[..length].to_vec()));
        input = &rest[length..];
    }
    files
}

fn disk_of(input: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (number, bytes) in split(input) {
        disk.put(&format!("{number:016}.log"), bytes);
    }
    disk
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
