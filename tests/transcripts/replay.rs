//! What real clients said to RabbitMQ, said to the broker's machines: their answers must be RabbitMQ's.
//!
//! Each `*.txt` beside this file is a session that `record.py` wrote down. The client's bytes are fed to the machines at
//! the times at which it sent them, with the names that this server made up in place of RabbitMQ's. Then, connection by
//! connection and channel by channel, three things are compared: everything but deliveries and confirms, in order; the
//! deliveries of each consumer, in order; and which publishes were confirmed how. What may differ is listed in
//! [`ALLOWED`], with the reason.

use amqp::content::ContentHeader;
use amqp::{ChannelId, FrameKind, Method, Properties, PropertyList, Table, Value, frame};
use broker::command::ConnectionId;
use machines::Machines;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A difference that is meant.
struct Allowed {
    /// The session, by its file's name.
    session: &'static str,
    /// Part of what RabbitMQ 3.10 says; empty where it says nothing.
    theirs: &'static str,
    /// Part of what we say instead; empty where we say nothing.
    ours: &'static str,
    /// Why.
    #[expect(dead_code, reason = "for readers")]
    why: &'static str,
}

/// RabbitMQ 3.10 was recorded; where RabbitMQ 4 differs we follow that.
const ALLOWED: &[Allowed] = &[
    Allowed {
        session: "pika-arguments",
        theirs: "received the value 'quorum' of type 'longstr' but current is none",
        ours: "received 'quorum' but current is 'classic'",
        why: "every queue of RabbitMQ 4 has a type",
    },
    Allowed {
        session: "pika-arguments",
        theirs: "no queue 'amq.rabbitmq.reply-to' in vhost '/'",
        ours: "cannot bind or unbind to a volatile (direct reply-to) queue",
        why: "RabbitMQ 4 refuses such bindings by name",
    },
    Allowed {
        session: "pika-expiry",
        theirs: "DeclareOk { queue: \"aging\", message_count: 4",
        ours: "DeclareOk { queue: \"aging\", message_count: 3",
        why: "a message expires on time behind others, too",
    },
    Allowed {
        session: "pika-expiry",
        theirs: "message_count: 3 }) delivery_mode None priority None timestamp None expiration \"60000\" body of 4: long",
        ours: "message_count: 2 }) delivery_mode None priority None timestamp None expiration \"60000\" body of 4: long",
        why: "the same: one less is left behind it",
    },
];

#[test]
fn clients_are_answered_as_rabbitmq_answers_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 12, "only {} transcripts in {}", files.len(), folder.display());
    let mut report = String::new();
    let mut used = BTreeSet::new();
    for path in files {
        let session = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let lines = Line::read_all(&fs::read_to_string(&path).expect("a transcript"));
        for difference in Replay::run(&lines).differences() {
            let meant = ALLOWED.iter().position(|allowed| allowed.session == session && allowed.covers(&difference));
            match meant {
                Some(index) => drop(used.insert(index)),
                None => {
                    let Difference { place, theirs, ours } = difference;
                    let _ = writeln!(report, "{session}, {place}\n  RabbitMQ: {theirs}\n  Leveret:  {ours}");
                }
            }
        }
    }
    assert!(report.is_empty(), "answers differ:\n{report}");
    assert_eq!(used.len(), ALLOWED.len(), "a difference that is allowed is none any more; used: {used:?}");
}

/// One line of a transcript.
struct Line {
    ms: u64,
    connection: u32,
    from_client: bool,
    /// The frame's bytes; `None` for the end of the socket.
    bytes: Option<Vec<u8>>,
}

impl Line {
    fn read_all(text: &str) -> Vec<Self> {
        text.lines().map(|line| Self::read(line).unwrap_or_else(|| panic!("not a line: {line}"))).collect()
    }

    fn read(line: &str) -> Option<Self> {
        let (words, hex) = line.rsplit_once('|')?;
        let mut words = words.split_whitespace();
        let ms = words.next()?.parse().ok()?;
        let label = words.next()?;
        let connection = label[..label.len() - 1].parse().ok()?;
        let ended = words.nth(1)? == "END";
        let bytes = (!ended).then(|| unhex(hex.trim()));
        Some(Self { ms, connection, from_client: label.ends_with('>'), bytes })
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// What one server said to one connection.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// Names that it made up, in the order in which they appeared.
    names: Vec<Vec<u8>>,
}

impl Said {
    fn hear(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        for name in made_up_names(bytes) {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    /// The names of one kind.
    fn names_like(&self, prefix: &[u8]) -> Vec<&Vec<u8>> {
        self.names.iter().filter(|name| name.starts_with(prefix)).collect()
    }
}

/// Names that servers make up: short strings that begin with one of [`MADE_UP`] and go on.
fn made_up_names(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for at in 1..bytes.len() {
        let length = usize::from(bytes[at - 1]);
        let Some(name) = bytes.get(at..at + length) else { continue };
        if MADE_UP.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix)) {
            found.push(name.to_vec());
        }
    }
    found
}

const MADE_UP: [&[u8]; 3] = [b"amq.gen-", b"amq.ctag-", b"amq.rabbitmq.reply-to."];

/// A session, played again.
struct Replay {
    machines: Machines,
    ids: BTreeMap<u32, ConnectionId>,
    theirs: BTreeMap<u32, Said>,
    ours: BTreeMap<u32, Said>,
}

impl Replay {
    fn run(lines: &[Line]) -> Self {
        let mut replay =
            Self { machines: Machines::new(1), ids: BTreeMap::new(), theirs: BTreeMap::new(), ours: BTreeMap::new() };
        let mut ms = 0;
        for line in lines {
            replay.machines.pass(line.ms.saturating_sub(ms));
            ms = line.ms;
            if line.from_client {
                replay.say(line);
            } else if let Some(bytes) = &line.bytes {
                replay.theirs.entry(line.connection).or_default().hear(bytes);
            }
            replay.listen();
        }
        replay
    }

    fn say(&mut self, line: &Line) {
        let id = *self.ids.entry(line.connection).or_insert_with(|| self.machines.connect());
        match &line.bytes {
            Some(bytes) => {
                let bytes = self.with_our_names(bytes);
                self.machines.send(id, &bytes);
            }
            None => {
                self.listen();
                self.machines.disconnect(id);
            }
        }
    }

    fn listen(&mut self) {
        for (connection, id) in &self.ids {
            let bytes = self.machines.received(*id);
            self.ours.entry(*connection).or_default().hear(&bytes);
        }
    }

    /// Each name made up by RabbitMQ with what we made up at the same occasion.
    fn names(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        for (connection, theirs) in &self.theirs {
            let Some(ours) = self.ours.get(connection) else { continue };
            for prefix in MADE_UP {
                let both = theirs.names_like(prefix).into_iter().zip(ours.names_like(prefix));
                pairs.extend(both.map(|(theirs, ours)| (theirs.clone(), ours.clone())));
            }
        }
        pairs
    }

    fn with_our_names(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for (theirs, ours) in self.names() {
            let wanted = [&[theirs.len() as u8], &theirs[..]].concat();
            while let Some(at) = frame.windows(wanted.len()).position(|window| window == wanted) {
                frame.splice(at..at + wanted.len(), [&[ours.len() as u8], &ours[..]].concat());
            }
        }
        if frame.len() > frame::HEADER_BYTES && !frame.starts_with(b"AMQP") {
            let length = (frame.len() - frame::OVERHEAD_BYTES) as u32;
            frame[3..frame::HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        frame
    }

    fn differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let names: Vec<_> = self.names();
        let theirs_named = |text: &str| {
            names.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(&*lossy(theirs), &lossy(ours)))
        };
        for (connection, theirs) in &self.theirs {
            let theirs = heard(&theirs.bytes);
            let theirs: BTreeMap<_, _> = theirs.into_iter().map(|(place, list)| (theirs_named(&place), list)).collect();
            let ours = self.ours.get(connection).map(|said| heard(&said.bytes)).unwrap_or_default();
            let places: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
            for place in places {
                let theirs = theirs.get(place).map(Vec::as_slice).unwrap_or_default();
                let theirs: Vec<_> = theirs.iter().map(|item| theirs_named(item)).collect();
                let ours = ours.get(place).map(Vec::as_slice).unwrap_or_default();
                let place = format!("connection {connection}, {place}");
                compare(&place, &theirs, ours, &mut found);
            }
        }
        found
    }
}

/// What differs, and where.
struct Difference {
    place: String,
    theirs: String,
    ours: String,
}

impl Allowed {
    fn covers(&self, difference: &Difference) -> bool {
        let fits = |part: &str, whole: &str| if part.is_empty() { whole == NOTHING } else { whole.contains(part) };
        fits(self.theirs, &difference.theirs) && fits(self.ours, &difference.ours)
    }
}

const NOTHING: &str = "(nothing)";

/// Compares two lists; where one has more, the missing items are found by the longest common subsequence.
fn compare(place: &str, theirs: &[String], ours: &[String], found: &mut Vec<Difference>) {
    let mut note = |theirs: Option<&String>, ours: Option<&String>| {
        let words = |item: Option<&String>| item.cloned().unwrap_or_else(|| NOTHING.to_owned());
        found.push(Difference { place: place.to_owned(), theirs: words(theirs), ours: words(ours) });
    };
    if theirs.len() == ours.len() {
        for (theirs, ours) in theirs.iter().zip(ours).filter(|(theirs, ours)| theirs != ours) {
            note(Some(theirs), Some(ours));
        }
        return;
    }
    let mut common = vec![vec![0; ours.len() + 1]; theirs.len() + 1];
    for (row, their) in theirs.iter().enumerate().rev() {
        for (column, our) in ours.iter().enumerate().rev() {
            common[row][column] = if their == our {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < theirs.len() || column < ours.len() {
        if row < theirs.len() && column < ours.len() && theirs[row] == ours[column] {
            (row, column) = (row + 1, column + 1);
        } else if column == ours.len() || (row < theirs.len() && common[row + 1][column] >= common[row][column + 1]) {
            note(Some(&theirs[row]), None);
            row += 1;
        } else {
            note(None, Some(&ours[column]));
            column += 1;
        }
    }
}

/// Everything that a server said on a connection, in words, by channel and what is compared in order.
fn heard(bytes: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut contents: BTreeMap<ChannelId, Content> = BTreeMap::new();
    let mut confirms: BTreeMap<ChannelId, BTreeMap<u64, &'static str>> = BTreeMap::new();
    let mut rest = bytes;
    while let Ok(Some((frame, taken))) = frame::decode(rest, FRAME_MAX) {
        rest = &rest[taken..];
        let channel = frame.channel;
        match frame.kind {
            FrameKind::Heartbeat => {}
            FrameKind::Method => match Method::decode(frame.payload).expect("a method") {
                Method::BasicAck(ack) => {
                    confirm(confirms.entry(channel).or_default(), ack.delivery_tag, ack.multiple, "ack")
                }
                Method::BasicNack(nack) => {
                    confirm(confirms.entry(channel).or_default(), nack.delivery_tag, nack.multiple, "nack");
                }
                Method::BasicDeliver(ref deliver) => {
                    let list = format!("deliveries to {} on channel {channel}", deliver.consumer_tag);
                    contents.insert(channel, Content::new(list, format!("{deliver:?}")));
                }
                method @ (Method::BasicGetOk(_) | Method::BasicReturn(_)) => {
                    contents.insert(channel, Content::new(replies(channel), words(&method)));
                }
                method => lists.entry(replies(channel)).or_default().push(words(&method)),
            },
            FrameKind::Header => {
                let content = contents.get_mut(&channel).expect("a method before its header");
                let header = ContentHeader::decode(frame.payload).expect("a header");
                content.left = header.body_bytes;
                content.words += &properties(header.properties);
            }
            FrameKind::Body => {
                let content = contents.get_mut(&channel).expect("a method before its body");
                content.left -= frame.payload.len() as u64;
                let _ = write!(content.words, " body of {}: {}", frame.payload.len(), lossy(frame.payload));
            }
        }
        let is_whole = |content: &Content| frame.kind != FrameKind::Method && content.left == 0;
        if contents.get(&channel).is_some_and(is_whole)
            && let Some(content) = contents.remove(&channel)
        {
            lists.entry(content.list).or_default().push(content.words);
        }
    }
    for (channel, answers) in confirms {
        let words = answers.iter().map(|(tag, how)| format!("{tag} {how}")).collect();
        lists.insert(format!("confirms on channel {channel}"), words);
    }
    lists
}

struct Content {
    list: String,
    words: String,
    left: u64,
}

impl Content {
    fn new(list: String, words: String) -> Self {
        Self { list, words, left: 0 }
    }
}

fn replies(channel: ChannelId) -> String {
    format!("replies on channel {channel}")
}

fn confirm(answers: &mut BTreeMap<u64, &'static str>, tag: u64, multiple: bool, how: &'static str) {
    let first = if multiple { 1 } else { tag };
    for tag in first..=tag {
        answers.entry(tag).or_insert(how);
    }
}

/// A method in words; only what all servers have in common of connection.start.
fn words(method: &Method<'_>) -> String {
    match method {
        Method::ConnectionStart(start) => {
            let (mechanisms, locales) = (lossy(start.mechanisms), lossy(start.locales));
            format!("connection.start {}-{} {mechanisms} {locales}", start.version_major, start.version_minor)
        }
        method => format!("{method:?}"),
    }
}

fn properties(raw: &[u8]) -> String {
    let properties = Properties::parse(raw).expect("properties");
    let PropertyList { headers, delivery_mode, priority, timestamp, .. } = PropertyList::from(&properties);
    let mut words = format!(" delivery_mode {delivery_mode:?} priority {priority:?} timestamp {timestamp:?}");
    for (name, text) in [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ] {
        if let Some(text) = text {
            let _ = write!(words, " {name} {text:?}");
        }
    }
    if let Some(headers) = headers {
        let _ = write!(words, " headers {}", table(&headers));
    }
    words
}

/// A table in words. What tells of deaths is told in RabbitMQ 4's order and with its `x-last-death-*`, which these
/// transcripts of RabbitMQ 3.10 lack; and the time of a death differs with the clock.
fn table(table: &Table) -> String {
    let entry = |(name, value): (&str, &Value)| match value {
        Value::Timestamp(_) if name == "time" => "time=now".to_owned(),
        value => format!("{name}={}", self::value(value)),
    };
    let is_death = table.contains_key("x-death") || table.contains_key("reason");
    let told = table.iter().filter(|(name, _)| !name.starts_with("x-last-death-"));
    let mut entries: Vec<_> = told.map(entry).collect();
    if is_death {
        entries.sort();
    }
    format!("{{{}}}", entries.join(", "))
}

fn value(value: &Value) -> String {
    match value {
        Value::Str(octets) => format!("{:?}", lossy(octets)),
        Value::Table(inner) => table(inner),
        Value::Array(values) => format!("[{}]", values.iter().map(self::value).collect::<Vec<_>>().join(", ")),
        value => format!("{value:?}"),
    }
}

fn lossy(octets: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(octets)
}

const FRAME_MAX: usize = 131_072;
