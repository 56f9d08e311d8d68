//! Message groups: which message may go, and to whom, where messages of one key go one after another.
//!
//! A message's key is the value of a header, and only its hash is kept. Messages are looked at in the queue's order; one
//! that may go does, and one whose group is busy is *parked*: it stands beside the others (`parked.rs`), its group knows
//! its [`Rank`], and what is behind it has its turn. A group exists while something of it is parked or in flight, so
//! that a million idle keys take nothing.
//!
//! ```text
//!   Ready: not looked at yet ──► no key, or a group with nothing before it ──────────────► a consumer
//!                │                                                                            ▲
//!                └──► parked ──► the first of its group, which is listed where it waits: ─────┘
//!                                for any consumer (turns), the one that has the group (bound),
//!                                its rate (waiting), or the log (reading)
//! ```
//!
//! The invariant: what is parked of a group and what is in flight of it comes before what is not looked at yet, but for
//! what is of a higher priority. Its messages are in flight at one holder at a time; one that comes back waits for the
//! others in flight, and then goes first. While a message is being read that may go, nothing of a lower priority does. Two
//! keys of one hash are one group, which costs them time and nothing else.

use super::rate::{Bucket, Rate};
use crate::command::QueueSettings;
use crate::message::Message;
use crate::queue::Holder;
use crate::shard::slots::{Slot, Slots};
use amqp::{Properties, Value};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use store::Seq;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_key: FxHashMap<u64, Slot<Group>>,
    all: Slots<Group>,
    /// Groups whose first message may go to any consumer, by whose turn it is.
    turns: BTreeMap<u64, Slot<Group>>,
    /// Groups whose first message may go to the holder that has the group.
    bound: BTreeSet<(Slot<Holder>, u64, Slot<Group>)>,
    /// Groups that wait until a time (ms), or are remembered until then for the sake of their rate.
    waiting: BTreeSet<(u64, Slot<Group>)>,
    /// Groups whose turn it was, and whose first message has to be read.
    unread: Vec<Slot<Group>>,
    /// A read for such groups is under way.
    pub(crate) is_reading: bool,
    /// How many groups wait for a read, by the priority of what they wait for.
    awaited: BTreeMap<u8, u32>,
    /// The group of each message in flight.
    homes: FxHashMap<Seq, Slot<Group>>,
    /// The same for messages that have just been taken from their holder, which may be put back.
    departing: FxHashMap<Seq, Slot<Group>>,
    /// The group of a message that was picked and is being handed over.
    picked: Option<Slot<Group>>,
    /// Groups that may have nothing any more.
    idle: Vec<Slot<Group>>,
    /// The last ticket given out.
    ticket: u64,
    /// Where messages without a key queue up when keys take turns.
    keyless: Option<Slot<Group>>,
}

/// The messages of one key.
#[derive(Debug)]
pub(crate) struct Group {
    key: u64,
    parked: Ranks,
    parked_count: u32,
    in_flight: u32,
    /// Who has it, while something is in flight.
    owner: Slot<Holder>,
    /// Something came back: what else is in flight has to end first.
    is_held: bool,
    /// Its first message, of this priority then, is being read.
    awaits: Option<u8>,
    /// Stands for messages that have no key.
    is_keyless: bool,
    listed: Listed,
    /// Its place in the line, where keys take turns.
    ticket: u64,
    bucket: Bucket,
}

/// Where a group waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Nowhere,
    Turns(u64),
    Bound(u64),
    Waiting(u64),
}

/// What the queue's settings say about its groups, now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    in_flight_max: u32,
    rate: Option<Rate>,
    is_fair: bool,
    now_ms: u64,
}

impl Terms {
    pub(crate) fn new(settings: &QueueSettings, now_ms: u64) -> Self {
        Self {
            in_flight_max: settings.group_in_flight_max.unwrap_or(1),
            rate: settings.group_rate,
            is_fair: settings.group_fair,
            now_ms,
        }
    }
}

/// A message's place in the queue as one number: priority first, then seq. The lowest leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u64);

impl Rank {
    pub(crate) fn of(priority: u8, seq: Seq) -> Self {
        // No queue counts further in its life.
        Self(u64::from(u8::MAX - priority) << SEQ_BITS | seq.0 & SEQ_MASK)
    }

    pub(crate) fn priority(self) -> u8 {
        u8::MAX - (self.0 >> SEQ_BITS) as u8
    }

    pub(crate) fn seq(self) -> Seq {
        Seq(self.0 & SEQ_MASK)
    }
}

/// What becomes of a message that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go to the holder in question. It counts as picked.
    Go,
    /// It is to be parked; it is the so-many-th of its group.
    Park(Slot<Group>, u32),
}

impl Groups {
    /// The key of a message; `None` = it belongs to no group. A number is the same key as its decimal digits.
    pub(crate) fn key(header: &str, message: &Message) -> Option<u64> {
        let properties = Properties::parse(message.properties()).ok()?;
        let value = properties.header(header)?;
        let mut hasher = DefaultHasher::new();
        match value {
            Value::Str(octets) | Value::Bytes(octets) => hasher.write(&octets),
            Value::Timestamp(_) => return None,
            value => hasher.write(value.as_i64()?.to_string().as_bytes()),
        }
        Some(hasher.finish())
    }

    // --- looking ----------------------------------------------------------------------------------------------------

    /// Judges a message that was not looked at before, for a holder that could take it.
    pub(crate) fn judge(&mut self, key: Option<u64>, for_whom: Option<Slot<Holder>>, terms: Terms) -> Verdict {
        let Some(key) = key else {
            self.picked = None;
            return Verdict::Go;
        };
        let slot = self.group(key);
        let group = &self.all[slot];
        let is_free = group.in_flight == 0 || Some(group.owner) == for_whom;
        let may_go = group.parked.first().is_none()
            && is_free
            && !group.is_held
            && group.in_flight < terms.in_flight_max
            && (terms.rate.is_none() || group.bucket.is_open(terms.now_ms));
        if may_go {
            self.unlist(slot);
            self.picked = Some(slot);
            return Verdict::Go;
        }
        Verdict::Park(slot, group.parked_count)
    }

    /// The group to park a message in where keys take turns, and how many are parked there.
    pub(crate) fn line_up(&mut self, key: Option<u64>) -> (Slot<Group>, u32) {
        let slot = match (key, self.keyless) {
            (Some(key), _) => self.group(key),
            (None, Some(keyless)) => keyless,
            (None, None) => {
                let keyless = self.new_group(0, true);
                self.keyless = Some(keyless);
                keyless
            }
        };
        (slot, self.all[slot].parked_count)
    }

    /// Notes that a message was parked.
    pub(crate) fn park(&mut self, slot: Slot<Group>, rank: Rank, terms: Terms) {
        let group = &mut self.all[slot];
        group.parked.insert(rank.0);
        group.parked_count += 1;
        // Only a new head changes where the group waits.
        if group.parked.first() == Some(rank.0) {
            self.list(slot, terms);
        }
    }

    /// A parked message left in another way than by its turn.
    pub(crate) fn forget(&mut self, slot: Slot<Group>, rank: Rank, terms: Terms) {
        let Some(group) = self.all.get_mut(slot) else { return };
        let was_first = group.parked.first() == Some(rank.0);
        if group.parked.remove(rank.0) {
            group.parked_count -= 1;
            if was_first {
                self.list(slot, terms);
            }
        }
    }

    /// All that was parked is gone.
    pub(crate) fn forget_all(&mut self, terms: Terms) {
        let slots: Vec<_> = self.all.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.unlist(slot);
            let group = &mut self.all[slot];
            (group.parked, group.parked_count) = (Ranks::default(), 0);
            self.list(slot, terms);
        }
    }

    // --- choosing ---------------------------------------------------------------------------------------------------

    /// The group whose first message is next for this holder, and where that stands in the queue's order.
    pub(crate) fn next_for(&self, holder: Option<Slot<Holder>>) -> Option<(Slot<Group>, Rank)> {
        let free = self.turns.first_key_value().map(|(order, slot)| (*order, *slot));
        let bound = holder.and_then(|holder| {
            let mut of_holder = self.bound.range((holder, 0, FIRST_GROUP)..);
            of_holder.next().filter(|(owner, ..)| *owner == holder).map(|(_, order, slot)| (*order, *slot))
        });
        let (_, slot) = free.into_iter().chain(bound).min_by_key(|(order, _)| *order)?;
        Some((slot, self.first_of(slot)?))
    }

    /// Who has a group with a message that could go there: the first of them from this one on.
    pub(crate) fn next_owner(&self, from: Option<Slot<Holder>>) -> Option<Slot<Holder>> {
        let from = from.unwrap_or(Slot::from_index(0));
        self.bound.range((from, 0, FIRST_GROUP)..).next().map(|(owner, ..)| *owner)
    }

    fn first_of(&self, slot: Slot<Group>) -> Option<Rank> {
        self.all[slot].parked.first().map(Rank)
    }

    /// The group's first message is taken, to be handed over.
    pub(crate) fn pick(&mut self, slot: Slot<Group>) {
        self.unlist(slot);
        let group = &mut self.all[slot];
        if let Some(first) = group.parked.first() {
            group.parked.remove(first);
            group.parked_count -= 1;
        }
        self.picked = Some(slot);
    }

    /// The group's first message has to be read first.
    pub(crate) fn await_read(&mut self, slot: Slot<Group>) {
        self.unlist(slot);
        let group = &mut self.all[slot];
        let priority = group.parked.first().map_or(0, |first| Rank(first).priority());
        group.awaits = Some(priority);
        *self.awaited.entry(priority).or_default() += 1;
        self.unread.push(slot);
    }

    /// The highest priority of what waits for a read.
    pub(crate) fn awaited_priority(&self) -> Option<u8> {
        self.awaited.last_key_value().map(|(priority, _)| *priority)
    }

    /// Whether some wait for a read.
    pub(crate) fn wants_read(&self) -> bool {
        self.is_reading || !self.unread.is_empty()
    }

    /// Takes the next of those that wait for a read, with its first so many ranks.
    pub(crate) fn next_unread(&mut self, most: usize) -> Option<(Slot<Group>, Vec<Rank>)> {
        let slot = self.unread.pop()?;
        Some((slot, self.all[slot].parked.iter().take(most).map(Rank).collect()))
    }

    /// The group's first message was read.
    pub(crate) fn note_read(&mut self, slot: Slot<Group>, terms: Terms) {
        let Some(group) = self.all.get_mut(slot) else { return };
        if let Some(priority) = group.awaits.take()
            && let Some(count) = self.awaited.get_mut(&priority)
        {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&priority);
            }
        }
        self.list(slot, terms);
    }

    // --- in flight --------------------------------------------------------------------------------------------------

    /// What was picked goes to this holder; to be settled, or for good.
    pub(crate) fn note_handed_over(&mut self, seq: Seq, to: Slot<Holder>, is_for_good: bool, terms: Terms) {
        let Some(slot) = self.picked.take() else { return };
        self.ticket += 1;
        let group = &mut self.all[slot];
        group.ticket = self.ticket;
        if !group.is_keyless {
            if let Some(rate) = terms.rate {
                group.bucket.take(rate, terms.now_ms);
            }
            if !is_for_good {
                debug_assert!(group.in_flight == 0 || group.owner == to, "a group is at one holder at a time");
                group.in_flight += 1;
                group.owner = to;
                self.homes.insert(seq, slot);
            }
        }
        self.list(slot, terms);
    }

    /// A message left its holder.
    pub(crate) fn note_settled(&mut self, seq: Seq, terms: Terms) {
        let Some(slot) = self.homes.remove(&seq) else { return };
        let group = &mut self.all[slot];
        group.in_flight -= 1;
        group.is_held &= group.in_flight > 0;
        self.departing.insert(seq, slot);
        self.list(slot, terms);
    }

    /// Such a message comes back: the group to park it in.
    pub(crate) fn note_returned(&mut self, seq: Seq) -> Option<Slot<Group>> {
        let slot = self.departing.remove(&seq)?;
        let group = &mut self.all[slot];
        group.is_held = group.in_flight > 0;
        if group.is_held {
            self.unlist(slot);
        }
        Some(slot)
    }

    /// The terms are others than before; of another rate nothing is used yet.
    pub(crate) fn relimit(&mut self, terms: Terms, is_paced_anew: bool) {
        let slots: Vec<Slot<Group>> = self.all.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if is_paced_anew {
                self.all[slot].bucket = Bucket::default();
            }
            self.list(slot, terms);
        }
    }

    // --- time -------------------------------------------------------------------------------------------------------

    /// Lists the groups whose time has come, and forgets those that have nothing.
    pub(crate) fn catch_up(&mut self, terms: Terms) {
        while let Some(&(at_ms, slot)) = self.waiting.first()
            && at_ms <= terms.now_ms
        {
            self.list(slot, terms);
        }
        self.departing.clear();
        for slot in std::mem::take(&mut self.idle) {
            if self.all.get(slot).is_some_and(|group| group.is_idle() && group.listed == Listed::Nowhere) {
                let group = self.all.remove(slot);
                if group.is_keyless {
                    self.keyless = None;
                } else {
                    self.by_key.remove(&group.key);
                }
            }
        }
        let is_empty = self.by_key.is_empty() && self.keyless.is_none() && !self.is_reading;
        if is_empty && self.all.capacity() > KEPT_GROUPS {
            *self = Self { ticket: self.ticket, ..Self::default() };
        }
    }

    /// When [`Self::catch_up`] has something to do (ms).
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.waiting.first().map(|(at_ms, _)| *at_ms)
    }

    /// How many groups there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// About what they take in memory.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let groups = self.by_key.capacity() * 17 + self.all.capacity() * size_of::<Option<Group>>();
        let lists = (self.turns.len() + self.bound.len() + self.waiting.len()) * 24;
        let ranks = self.all.iter().map(|(_, group)| group.parked.heap_bytes()).sum::<usize>();
        (groups + lists + ranks + self.homes.capacity() * 13) as u64
    }

    // --- lists ------------------------------------------------------------------------------------------------------

    fn group(&mut self, key: u64) -> Slot<Group> {
        match self.by_key.get(&key) {
            Some(slot) => *slot,
            None => {
                let slot = self.new_group(key, false);
                self.by_key.insert(key, slot);
                // In case nothing comes of it.
                self.idle.push(slot);
                slot
            }
        }
    }

    fn new_group(&mut self, key: u64, is_keyless: bool) -> Slot<Group> {
        self.ticket += 1;
        self.all.insert(Group {
            key,
            parked: Ranks::default(),
            parked_count: 0,
            in_flight: 0,
            owner: Slot::from_index(0),
            is_held: false,
            awaits: None,
            is_keyless,
            listed: Listed::Nowhere,
            ticket: self.ticket,
            bucket: Bucket::default(),
        })
    }

    fn unlist(&mut self, slot: Slot<Group>) {
        let group = &mut self.all[slot];
        match std::mem::replace(&mut group.listed, Listed::Nowhere) {
            Listed::Nowhere => {}
            Listed::Turns(order) => {
                self.turns.remove(&order);
            }
            Listed::Bound(order) => {
                self.bound.remove(&(group.owner, order, slot));
            }
            Listed::Waiting(at_ms) => {
                self.waiting.remove(&(at_ms, slot));
            }
        }
    }

    /// Puts a group where it has to wait now.
    fn list(&mut self, slot: Slot<Group>, terms: Terms) {
        self.unlist(slot);
        let group = &mut self.all[slot];
        let rate = terms.rate.filter(|_| !group.is_keyless);
        group.listed = match group.parked.first() {
            None if group.is_idle() => match rate {
                Some(_) if group.bucket.is_full_at_ms() > terms.now_ms => Listed::Waiting(group.bucket.is_full_at_ms()),
                _ => {
                    self.idle.push(slot);
                    Listed::Nowhere
                }
            },
            None => Listed::Nowhere,
            Some(_) if group.is_held || group.awaits.is_some() => Listed::Nowhere,
            Some(_) if !group.is_keyless && group.in_flight >= terms.in_flight_max => Listed::Nowhere,
            Some(_) if rate.is_some() && !group.bucket.is_open(terms.now_ms) => {
                Listed::Waiting(group.bucket.opens_at_ms())
            }
            Some(first) => {
                let order = if terms.is_fair { first & !SEQ_MASK | group.ticket & SEQ_MASK } else { first };
                if group.in_flight == 0 { Listed::Turns(order) } else { Listed::Bound(order) }
            }
        };
        match group.listed {
            Listed::Nowhere => {}
            Listed::Turns(order) => {
                let other = self.turns.insert(order, slot);
                debug_assert!(other.is_none(), "no two groups have one place in the line");
            }
            Listed::Bound(order) => {
                self.bound.insert((group.owner, order, slot));
            }
            Listed::Waiting(at_ms) => {
                self.waiting.insert((at_ms, slot));
            }
        }
    }
}

impl Group {
    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.awaits.is_none() && self.parked.first().is_none()
    }
}

/// Numbers in order, of which most groups have none or one.
#[derive(Debug, Default)]
enum Ranks {
    #[default]
    None,
    One(u64),
    #[expect(clippy::box_collection, reason = "most groups have none, and a deque in place would be twice as large")]
    Many(Box<VecDeque<Stretch>>),
}

/// Numbers that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u64,
    count: u32,
}

impl Stretch {
    fn one(rank: u64) -> Self {
        Self { first: rank, count: 1 }
    }

    /// The number after its last.
    fn end(self) -> u64 {
        self.first + u64::from(self.count)
    }
}

impl Ranks {
    fn first(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::One(rank) => Some(*rank),
            Self::Many(many) => many.front().map(|stretch| stretch.first),
        }
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(rank) => (Some(*rank), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten().flat_map(|stretch| stretch.first..stretch.end()))
    }

    /// Adds a number that is not here.
    fn insert(&mut self, rank: u64) {
        match self {
            Self::None => *self = Self::One(rank),
            Self::One(other) => {
                let many = VecDeque::from([Stretch::one(*other)]);
                *self = Self::Many(Box::new(many));
                self.insert(rank);
            }
            Self::Many(many) => {
                let at = match many.back() {
                    Some(last) if last.end() <= rank => many.len(),
                    _ => many.partition_point(|stretch| stretch.end() <= rank),
                };
                let joins_before = at > 0 && many[at - 1].end() == rank && many[at - 1].count < u32::MAX;
                let joins_after = many.get(at).is_some_and(|next| next.first == rank + 1 && next.count < u32::MAX);
                match (joins_before, joins_after) {
                    (true, _) => many[at - 1].count += 1,
                    (false, true) => many[at] = Stretch { first: rank, count: many[at].count + 1 },
                    (false, false) => many.insert(at, Stretch::one(rank)),
                }
            }
        }
    }

    /// Takes a number out; false if it is not here.
    fn remove(&mut self, rank: u64) -> bool {
        match self {
            Self::One(only) if *only == rank => {
                *self = Self::None;
                true
            }
            Self::None | Self::One(_) => false,
            Self::Many(many) => {
                let at = many.partition_point(|stretch| stretch.end() <= rank);
                let Some(stretch) = many.get(at).copied().filter(|stretch| stretch.first <= rank) else { return false };
                let before = Stretch { first: stretch.first, count: (rank - stretch.first) as u32 };
                let after = Stretch { first: rank + 1, count: (stretch.end() - rank - 1) as u32 };
                match (before.count > 0, after.count > 0) {
                    (false, false) => drop(many.remove(at)),
                    (true, false) => many[at] = before,
                    (false, true) => many[at] = after,
                    (true, true) => {
                        many[at] = before;
                        many.insert(at + 1, after);
                    }
                }
                if many.is_empty() {
                    *self = Self::None;
                } else if many.len() * 4 < many.capacity() && many.capacity() > KEPT_STRETCHES {
                    many.shrink_to(many.len() * 2);
                }
                true
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Many(many) => size_of::<VecDeque<Stretch>>() + many.capacity() * size_of::<Stretch>(),
        }
    }
}

/// The rest of a [`Rank`] is the priority.
const SEQ_BITS: u32 = 56;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
/// Below all groups.
const FIRST_GROUP: Slot<Group> = Slot::from_index(0);
/// With no group left, room for so many is kept.
const KEPT_GROUPS: usize = 1024;
/// Room that an emptied list keeps.
const KEPT_STRETCHES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageParts;
    use amqp::{PropertyList, Table};
    use bytes::BytesMut;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_are_a_set(steps in prop::collection::vec((any::<bool>(), 0..40u64), 1..200)) {
            let (mut ranks, mut model) = (Ranks::default(), BTreeSet::new());
            for (adds, rank) in steps {
                if !adds {
                    prop_assert_eq!(ranks.remove(rank), model.remove(&rank));
                } else if model.insert(rank) {
                    ranks.insert(rank);
                }
                prop_assert_eq!(ranks.first(), model.first().copied());
                prop_assert!(ranks.iter().eq(model.iter().copied()));
            }
        }
    }

    fn key_of(value: Value) -> Option<u64> {
        let mut headers = Table::new();
        headers.insert("other", "x");
        headers.insert("tenant", value);
        let mut properties = BytesMut::new();
        PropertyList { headers: Some(headers), ..PropertyList::default() }.encode(&mut properties);
        let parts = MessageParts { exchange: "", routing_key: "", properties: &properties, died_here: false };
        Groups::key("tenant", &Message::new(parts, b""))
    }

    #[test]
    fn strings_and_integers_are_keys_and_the_same_digits_are_the_same_key() {
        assert_eq!(key_of("42".into()), key_of(Value::I64(42)));
        assert_eq!(key_of(Value::U8(42)), key_of(Value::I32(42)));
        assert_ne!(key_of("42".into()), key_of("43".into()));
        assert!(key_of("".into()).is_some());
        for other in [Value::Void, Value::Bool(true), Value::F64(1.0), Value::Timestamp(1), Value::Array(vec![])] {
            assert_eq!(key_of(other), None);
        }
    }

    #[test]
    fn a_rank_is_a_priority_and_a_seq() {
        let rank = Rank::of(7, Seq(1 << 50));
        assert_eq!((rank.priority(), rank.seq()), (7, Seq(1 << 50)));
        assert!(Rank::of(7, Seq(9)) < Rank::of(6, Seq(1)) && Rank::of(7, Seq(9)) < Rank::of(7, Seq(10)));
    }
}
