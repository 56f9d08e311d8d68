//! Deduplication: which messages a queue takes one of only.
//!
//! A queue remembers hashes of keys: of its own, if it is declared so, and of those of each exchange that is and leads to
//! it. Its own are remembered as long as the message is in the queue, or (with a size or a time) as a window over what it
//! took; those of an exchange always as a window. When a message leaves, nothing is done: whether one is still there is
//! asked when its key comes again.

use super::Queue;
use super::owed::Died;
use super::siphash::siphash;
use super::window::{Known, Window};
use crate::command::Sieves;
use crate::message::Message;
use amqp::{Properties, Value};
use store::{QueueId, Seq};

/// What is a duplicate, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deduplication {
    /// Where a message has its key.
    pub key: KeySource,
    /// How long it is remembered.
    pub span: Span,
}

/// Where a message has its key. Strings, integers and booleans are keys; a string is never the same key as a number. What
/// has none is no duplicate of anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this header (`x-deduplication-header`).
    Header(String),
    /// In the property `message_id`.
    MessageId,
}

/// How long a key is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// As long as its message is in the queue.
    Present,
    /// Until so many newer ones have come, or a time is over. A message's `x-cache-ttl` header comes before that time.
    Window {
        /// How many keys (`x-cache-size`), from 1.
        most: u32,
        /// Milliseconds (`x-cache-ttl`); `None` = for ever.
        ttl_ms: Option<u64>,
    },
}

/// The deduplication of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sieve {
    /// Names the exchange for ever: a later one of its name has another.
    pub source: u64,
    /// What is a duplicate. Its span is a window.
    pub rule: Deduplication,
}

/// All keys that a queue remembers.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Its own, …
    own: Window,
    /// … which are [`Span::Present`]: `until` is a seq and a priority, and not a time.
    is_present: bool,
    /// Those of exchanges, by source.
    others: Vec<(u64, Window)>,
}

/// A key that came, and where it is to be remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub(crate) queue: QueueId,
    pub(crate) source: u64,
    /// How many its window may have; 0 = any number.
    pub(crate) most: u32,
    pub(crate) key: store::Key,
}

/// The hash of a message's key, and for how long that is to be remembered if the message says so.
#[derive(Clone, Copy, Debug)]
struct Found {
    hash: u128,
    ttl_ms: Option<u64>,
}

/// What a message is looked up by in one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookup {
    own: Option<Found>,
    /// By each of the exchanges that it comes through.
    through: Vec<Option<Found>>,
}

impl KeySource {
    fn find(&self, message: &Message, secret: [u64; 2]) -> Option<Found> {
        let properties = Properties::parse(message.properties()).ok()?;
        let hash = match self {
            Self::MessageId => hash_of(secret, STRING, properties.message_id()?.as_bytes()),
            Self::Header(name) => match properties.header(name)? {
                Value::Str(octets) | Value::Bytes(octets) => hash_of(secret, STRING, &octets),
                Value::Bool(truth) => hash_of(secret, BOOLEAN, &[u8::from(truth)]),
                value => hash_of(secret, INTEGER, &value.as_i64()?.to_le_bytes()),
            },
        };
        let ttl_ms = properties.header(TTL).and_then(|value| u64::try_from(value.as_i64()?).ok());
        Some(Found { hash, ttl_ms })
    }
}

impl Keys {
    /// A key that a restart found, before its message. Of [`Span::Present`] keys some may go whose messages are not there:
    /// there are so many messages.
    pub(crate) fn recover(
        &mut self,
        (source, most): (u64, u32),
        key: store::Key,
        messages: usize,
        is_there: impl Fn(Seq) -> bool,
    ) {
        let is_present = source == OWN && most == 0;
        if source == OWN && is_present != self.is_present {
            self.own = Window::default();
            self.is_present = is_present;
        }
        if is_present && self.own.len() > 2 * messages + SWEPT_MIN {
            self.own.retain(|known| is_there(place(known.until).1));
        }
        let known = Known { hash: key.hash, until: key.until, is_kept: true };
        self.window(source).insert(known, if most == 0 { usize::MAX } else { most as usize });
    }

    /// What it remembers of exchanges that are gone goes.
    pub(crate) fn keep_sources(&mut self, sources: &[u64]) {
        self.others.retain(|(source, _)| sources.contains(source));
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        let windows = std::iter::once(&self.own).chain(self.others.iter().map(|(_, window)| window));
        windows.map(Window::heap_bytes).sum::<u64>() + size_of::<Self>() as u64
    }

    /// What the log has from there on, which is a source and a number within its set: of one source, at most so many keys,
    /// and where to go on. `None` if there is nothing more.
    pub(crate) fn kept_from(&self, from: (u64, u64), count: usize) -> Option<(u64, Vec<store::Key>, (u64, u64))> {
        let others = self.others.iter().map(|(source, window)| (*source, window));
        let sets = std::iter::once((OWN, &self.own)).chain(others).filter(|(source, _)| *source >= from.0);
        let (source, window) = sets.min_by_key(|(source, _)| *source)?;
        let (kept, next) = window.kept_from(if source == from.0 { from.1 } else { 0 }, count);
        let keys = kept.into_iter().map(|Known { hash, until, .. }| store::Key { hash, until }).collect();
        Some((source, keys, next.map_or((source + 1, 0), |next| (source, next))))
    }

    /// How many keys a set may have, as the log says it: what comes next will have it no greater than the rule.
    pub(crate) fn most_of(&self, source: u64) -> u32 {
        if source == OWN && self.is_present { 0 } else { u32::MAX }
    }

    fn window(&mut self, source: u64) -> &mut Window {
        if source == OWN {
            return &mut self.own;
        }
        let at = self.others.iter().position(|(other, _)| *other == source).unwrap_or_else(|| {
            self.others.push((source, Window::default()));
            self.others.len() - 1
        });
        &mut self.others[at].1
    }
}

impl Queue {
    /// Has keys, or none, as its settings say. What it remembered for another span is forgotten.
    pub(crate) fn rekey(&mut self) {
        let span = self.spec.settings.deduplication.as_ref().map(|rule| rule.span);
        let Some(span) = span else {
            if let Some(keys) = &mut self.keys {
                keys.own = Window::default();
                if keys.others.is_empty() {
                    self.keys = None;
                }
            }
            return;
        };
        let keys = self.keys.get_or_insert_default();
        if keys.is_present != (span == Span::Present) {
            keys.own = Window::default();
            keys.is_present = span == Span::Present;
        }
    }

    /// What this message is looked up by, that comes through `sieves`.
    pub(crate) fn lookup(&self, message: &Message, sieves: Option<&Sieves>, secret: [u64; 2]) -> Lookup {
        let own = self.spec.settings.deduplication.as_ref();
        Lookup {
            own: own.and_then(|rule| rule.key.find(message, secret)),
            through: sieves
                .into_iter()
                .flat_map(Sieves::iter)
                .map(|sieve| sieve.rule.key.find(message, secret))
                .collect(),
        }
    }

    /// Whether it has taken a message of this key.
    pub(crate) fn is_duplicate(&self, lookup: &Lookup, sieves: Option<&Sieves>, unix_ms: u64) -> bool {
        let Some(keys) = &self.keys else { return false };
        let own = lookup.own.and_then(|found| keys.own.get(found.hash));
        let is_over = |until: u64| until != 0 && until <= unix_ms;
        if own.is_some_and(|known| if keys.is_present { self.has(known.until) } else { !is_over(known.until) }) {
            return true;
        }
        let is_known = |sieve: &Sieve, found: Option<Found>| {
            let window = keys.others.iter().find(|(source, _)| *source == sieve.source);
            let known = window.zip(found).and_then(|((_, window), found)| window.get(found.hash));
            known.is_some_and(|known| !is_over(known.until))
        };
        let Some(sieves) = sieves else { return false };
        let mut found = lookup.through.iter().copied();
        let mut is_closed = !sieves.ways.is_empty();
        for way in &sieves.ways {
            let mut stops = false;
            for sieve in way {
                stops |= is_known(sieve, found.next().flatten());
            }
            is_closed &= stops;
        }
        is_closed
    }

    /// Remembers the key of a message that it takes, which has this place; what is to be logged of it is added to `fresh`.
    pub(crate) fn remember(
        &mut self,
        lookup: &Lookup,
        sieves: Option<&Sieves>,
        (priority, seq, is_kept): (u8, Seq, bool),
        unix_ms: u64,
        fresh: &mut Vec<Fresh>,
    ) {
        let Some(mut keys) = self.keys.take() else { return };
        let queue = self.spec.queue.id;
        let mut note = |source, most, known: Known| {
            if is_kept {
                fresh.push(Fresh { queue, source, most, key: store::Key { hash: known.hash, until: known.until } });
            }
        };
        if let Some((rule, Found { hash, ttl_ms })) = self.spec.settings.deduplication.as_ref().zip(lookup.own) {
            match rule.span {
                Span::Present => {
                    let known = Known { hash, until: seq.0 << 8 | u64::from(priority), is_kept };
                    // A look among what is delayed is long, and the first may stay for years.
                    if self.delayed_sums().count == 0 {
                        keys.own.pop_while(|known| !self.has(known.until));
                    }
                    if keys.own.len() as u64 > 2 * self.depth + SWEPT_MIN as u64 {
                        self.sweep(&mut keys.own);
                    }
                    keys.own.insert(known, usize::MAX);
                    note(OWN, 0, known);
                }
                Span::Window { most, ttl_ms: default_ms } => {
                    if let Some(known) = keep(&mut keys.own, hash, most, ttl_ms.or(default_ms), is_kept, unix_ms) {
                        note(OWN, most, known);
                    }
                }
            }
        }
        let through = sieves.into_iter().flat_map(Sieves::iter).zip(&lookup.through).enumerate();
        for (at, (sieve, found)) in through {
            let is_again = sieves.is_some_and(|all| all.iter().take(at).any(|other| other.source == sieve.source));
            let Span::Window { most, ttl_ms: default_ms } = sieve.rule.span else { continue };
            let Some(Found { hash, ttl_ms }) = found.filter(|_| !is_again) else { continue };
            let window = keys.window(sieve.source);
            if let Some(known) = keep(window, hash, most, ttl_ms.or(default_ms), is_kept, unix_ms) {
                note(sieve.source, most, known);
            }
        }
        self.keys = Some(keys);
    }

    /// Forgets the [`Span::Present`] keys whose messages are not there. What is delayed is gone through once, beside the keys,
    /// which mostly are in the same order: a look for each would be long.
    fn sweep(&self, keys: &mut Window) {
        let mut delayed = self.delayed.iter().flat_map(|delayed| delayed.from(Seq(0))).peekable();
        let mut passed = Seq(0);
        keys.retain(|known| {
            let (priority, seq) = place(known.until);
            if seq < passed {
                return self.has(known.until);
            }
            passed = seq;
            while delayed.next_if(|run| run.last_seq() < seq).is_some() {}
            let is_delayed = delayed.peek().is_some_and(|run| run.seq <= seq);
            is_delayed || self.ready.find((priority, seq)).is_some() || self.unacked.find(seq).is_some()
        });
    }

    /// Whether the message of such a [`Span::Present`] key is there.
    fn has(&self, until: u64) -> bool {
        let (priority, seq) = place(until);
        // One that died is not, though nobody may have taken its letter yet.
        self.find(priority, seq).is_some_and(|run| Died::of(run.due_at_ms).is_none())
    }
}

/// Puts a key into a window; nothing if it is to be remembered for no time at all.
fn keep(window: &mut Window, hash: u128, most: u32, ttl_ms: Option<u64>, is_kept: bool, unix_ms: u64) -> Option<Known> {
    if ttl_ms == Some(0) {
        return None;
    }
    let until = ttl_ms.map_or(0, |ttl_ms| unix_ms.saturating_add(ttl_ms).min(UNTIL_MAX));
    let known = Known { hash, until, is_kept };
    window.pop_while(|known| known.until != 0 && known.until <= unix_ms);
    window.insert(known, most as usize);
    Some(known)
}

fn hash_of(secret: [u64; 2], kind: u8, octets: &[u8]) -> u128 {
    // The kind, behind all the rest: no two keys are the same octets.
    siphash(secret, &[octets, &[kind]].concat())
}

/// The place that a [`Span::Present`] key says.
fn place(until: u64) -> (u8, Seq) {
    (until as u8, Seq(until >> 8))
}

/// The source of a queue's own keys.
pub(crate) const OWN: u64 = 0;
/// The header that a message has its key in where nothing else is said; RabbitMQ's plugin knows no other.
pub(crate) const HEADER: &str = "x-deduplication-header";
/// The header by which a message says for how long its key is to be remembered, in milliseconds.
const TTL: &str = "x-cache-ttl";
/// More than any time, and as much as an entry can say.
const UNTIL_MAX: u64 = u64::MAX >> 2;
/// So many keys of messages that are gone are not looked for.
const SWEPT_MIN: usize = 64;
const STRING: u8 = 0;
const INTEGER: u8 = 1;
const BOOLEAN: u8 = 2;
