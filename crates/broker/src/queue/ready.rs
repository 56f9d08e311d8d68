//! The messages of a queue that wait for a consumer, in the order in which they leave.
//!
//! Each priority has its own level, the highest goes first; a queue without priorities has one level. Within a level
//! the order is that of `seq`; those that had to wait for a time stand beside the others, in the order of that time
//! (`delayed.rs`): of the two that are first, the one of the lower `seq` leaves. A few messages are *near*: their bodies are in memory. The others are *far*: the log has
//! their bodies, and memory a few bytes for each. What is first in line may be far; then it has to be read before it
//! can be delivered. New near messages join at the tail; those that come back, or are read, wait in a small tree.
//!
//! Messages expire where they stand. Mostly they do so in the order in which they leave, and then only heads are looked
//! at; the others are found by an index of their times.

use super::backlog::Backlog;
use super::calendar::Item;
use super::delayed::Lane;
use super::far::Far;
use super::groups::{Group, Rank};
use super::levels::Levels;
use super::parked::Parked;
use super::run::Run;
use super::times::{Span, Times};
use crate::message::Message;
use crate::shard::slots::Slot;
use std::collections::{BTreeMap, VecDeque};
use store::{Lsn, Seq};

/// A message in its place of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) body: Body,
    pub(crate) seq: Seq,
    /// Its record in the log; [`Lsn::ZERO`] for a message that is only in memory.
    pub(crate) lsn: Lsn,
    /// Unix milliseconds; 0 = never.
    pub(crate) expires_at_ms: u64,
    /// Not to be delivered before (unix ms); 0 = it never had to wait.
    pub(crate) due_at_ms: u64,
    /// Failed deliveries so far.
    pub(crate) attempts: u32,
    pub(crate) priority: u8,
    pub(crate) redelivered: bool,
    /// Survives the server.
    pub(crate) is_kept: bool,
}

/// Where the bytes of a message are.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// In memory.
    Here(Message),
    /// In the log only.
    Away {
        /// Of the message as the log has it.
        payload_bytes: u32,
        /// How many of them come before the body.
        header_bytes: u32,
    },
}

impl Body {
    pub(crate) fn payload_bytes(&self) -> u32 {
        match self {
            Self::Here(message) => message.payload_bytes(),
            Self::Away { payload_bytes, .. } => *payload_bytes,
        }
    }

    pub(crate) fn header_bytes(&self) -> u32 {
        match self {
            Self::Here(message) => message.header_bytes(),
            Self::Away { header_bytes, .. } => *header_bytes,
        }
    }
}

impl Entry {
    /// The log has a record of it, which it refers to.
    pub(crate) fn is_logged(&self) -> bool {
        self.lsn != Lsn::ZERO
    }

    pub(crate) fn message(&self) -> Option<&Message> {
        match &self.body {
            Body::Here(message) => Some(message),
            Body::Away { .. } => None,
        }
    }

    /// About what it takes in memory.
    pub(crate) fn near_bytes(&self) -> u64 {
        match &self.body {
            Body::Here(message) => u64::from(message.payload_bytes()) + NEAR_BYTES,
            Body::Away { .. } => NEAR_BYTES,
        }
    }

    /// The same message, in memory.
    pub(crate) fn with(self, message: Message) -> Self {
        Self { body: Body::Here(message), ..self }
    }

    /// Forgets the bytes, which the log has.
    pub(crate) fn send_away(&mut self) {
        debug_assert!(self.is_logged(), "only what the log has is forgotten");
        self.take_message();
    }

    /// Gives the bytes away, and keeps how many there were.
    pub(crate) fn take_message(&mut self) -> Option<Message> {
        let (payload_bytes, header_bytes) = (self.body.payload_bytes(), self.body.header_bytes());
        match std::mem::replace(&mut self.body, Body::Away { payload_bytes, header_bytes }) {
            Body::Here(message) => Some(message),
            Body::Away { .. } => None,
        }
    }

    /// What is to be known of it while its body is away.
    pub(crate) fn run(&self) -> Run {
        Run {
            seq: self.seq,
            count: 1,
            lsn: self.lsn,
            payload_bytes: self.body.payload_bytes(),
            header_bytes: self.body.header_bytes(),
            expires_at_ms: self.expires_at_ms,
            due_at_ms: self.due_at_ms,
            priority: self.priority,
            attempts: self.attempts,
            redelivered: self.redelivered,
            kept: self.is_kept,
            holder: 0,
            since_ms: 0,
        }
    }

    fn has_expired(&self, moment: Moment) -> bool {
        has_expired(self.expires_at_ms, self.redelivered, moment)
    }
}

impl From<Run> for Entry {
    /// The first message of the run.
    fn from(run: Run) -> Self {
        Self {
            body: Body::Away { payload_bytes: run.payload_bytes, header_bytes: run.header_bytes },
            seq: run.seq,
            lsn: run.lsn,
            expires_at_ms: run.expires_at_ms,
            due_at_ms: run.due_at_ms,
            attempts: run.attempts,
            priority: run.priority,
            redelivered: run.redelivered,
            is_kept: run.kept,
        }
    }
}

/// A moment at which messages are looked at. What expires in its very millisecond (unix ms) may still be delivered in a step,
/// once: so a message with a time to live of 0 finds a waiting consumer, and is gone when that gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before deliveries.
    Before(u64),
    /// After them.
    After(u64),
}

impl Moment {
    /// What was never delivered is gone if it expires earlier than this.
    fn end_ms(self) -> u64 {
        match self {
            Self::Before(unix_ms) => unix_ms,
            Self::After(unix_ms) => unix_ms.saturating_add(1),
        }
    }
}

fn has_expired(expires_at_ms: u64, redelivered: bool, moment: Moment) -> bool {
    let is_back = redelivered && moment == Moment::Before(expires_at_ms);
    expires_at_ms != 0 && (expires_at_ms < moment.end_ms() || is_back)
}

/// See the module.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Ready {
    sums: Sums,
    /// What the near ones take in memory.
    near_bytes: u64,
    /// No level above this one has messages.
    top: usize,
    /// By priority.
    levels: Levels<Level>,
}

/// Sums over messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) count: u64,
    pub(crate) body_bytes: u64,
    pub(crate) payload_bytes: u64,
    /// How many survive the server, …
    pub(crate) kept: u64,
    /// … and the sum of their bodies.
    pub(crate) kept_body_bytes: u64,
    /// How many can expire.
    pub(crate) expiring: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, run: &Run) {
        let [count, body_bytes, payload_bytes, kept, expiring] = Self::parts(run);
        self.count += count;
        self.body_bytes += body_bytes;
        self.payload_bytes += payload_bytes;
        self.kept += kept * count;
        self.kept_body_bytes += kept * body_bytes;
        self.expiring += expiring * count;
    }

    pub(crate) fn subtract(&mut self, run: &Run) {
        let [count, body_bytes, payload_bytes, kept, expiring] = Self::parts(run);
        self.count -= count;
        self.body_bytes -= body_bytes;
        self.payload_bytes -= payload_bytes;
        self.kept -= kept * count;
        self.kept_body_bytes -= kept * body_bytes;
        self.expiring -= expiring * count;
    }

    fn parts(run: &Run) -> [u64; 5] {
        let count = u64::from(run.count);
        let payload_bytes = count * u64::from(run.payload_bytes);
        let body_bytes = payload_bytes - count * u64::from(run.header_bytes);
        [count, body_bytes, payload_bytes, u64::from(run.kept), u64::from(run.expires_at_ms != 0)]
    }
}

/// Far messages to be read, as many as there is room for.
struct NextFar {
    runs: Vec<Run>,
    /// Of memory.
    bytes: u64,
    /// How many runs.
    most: usize,
}

impl NextFar {
    /// False if there is no room for more.
    fn take(&mut self, run: Run) -> bool {
        let each = u64::from(run.payload_bytes) + NEAR_BYTES;
        let fit = (self.bytes / each).max(u64::from(self.runs.is_empty()));
        let count = u64::from(run.count).min(fit) as u32;
        if count > 0 {
            self.runs.push(Run { count, ..run });
        }
        self.bytes = self.bytes.saturating_sub(each * u64::from(count));
        count == run.count && self.bytes > 0 && self.runs.len() < self.most
    }
}

/// Messages that expired somewhere, and have left.
#[derive(Debug, Default)]
pub(crate) struct ExpiredWithin {
    pub(crate) near: Vec<Entry>,
    pub(crate) far: Vec<Run>,
}

/// Who leaves next.
#[derive(Debug)]
pub(crate) enum Head<'a> {
    /// A message that can be delivered.
    Near(&'a Entry),
    /// One that has to be read first.
    Far(Run),
}

/// What was at the head of a level and has expired.
#[derive(Debug)]
pub(crate) enum Expired {
    /// A message in memory. It left.
    Near(Entry),
    /// Messages that are not, and whose bodies are of no interest. They left.
    Far(Run),
    /// The next one has to be read first.
    Unread {
        /// Its priority.
        priority: u8,
    },
}

impl Head<'_> {
    /// Where it stands in the queue.
    pub(crate) fn rank(&self) -> Rank {
        match self {
            Head::Near(entry) => Rank::of(entry.priority, entry.seq),
            Head::Far(run) => Rank::of(run.priority, run.seq),
        }
    }

    /// It cannot be delivered at this time.
    pub(crate) fn has_expired(&self, unix_ms: u64) -> bool {
        self.has_expired_at(Moment::Before(unix_ms))
    }

    fn has_expired_at(&self, moment: Moment) -> bool {
        match self {
            Head::Near(entry) => entry.has_expired(moment),
            Head::Far(run) => has_expired(run.expires_at_ms, run.redelivered, moment),
        }
    }
}

// What each message asks for is together, so that a message of another queue each time costs as little of the processor's
// cache as may be.
#[derive(Debug, Default)]
#[repr(C)]
struct Level {
    fresh: VecDeque<Entry>,
    far: Far,
    /// Those that had to wait for a time.
    timed: Option<Box<Lane>>,
    returned: BTreeMap<Seq, Entry>,
    /// Those that expire in another order than they leave in. It is there from the first such message on, until there is
    /// none of any kind.
    expiries: Option<Box<Times>>,
    /// The latest time at which one expires that came in since then.
    last_expiry_ms: u64,
    /// Those that wait for others of their group.
    parked: Option<Box<Parked>>,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.sums.count as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sums.count == 0
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.sums.body_bytes
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    /// What the near ones take in memory.
    pub(crate) fn near_bytes(&self) -> u64 {
        self.near_bytes
    }

    /// How many are far.
    pub(crate) fn far_len(&self) -> usize {
        self.levels.iter().map(Level::far_len).sum()
    }

    /// What the index of the far ones takes.
    pub(crate) fn far_heap_bytes(&self) -> u64 {
        self.levels.iter().map(Level::far_heap_bytes).sum()
    }

    /// Whether any of this priority is far: then new ones are better off there, too.
    pub(crate) fn has_far(&self, priority: u8) -> bool {
        self.levels.get(usize::from(priority)).is_some_and(|level| !level.far.is_empty())
    }

    /// Whether any will expire.
    pub(crate) fn can_expire(&self) -> bool {
        self.sums.expiring > 0
    }

    /// Whether any is far that nobody has looked at.
    pub(crate) fn has_any_far(&self) -> bool {
        self.levels.iter().any(Level::has_far)
    }

    /// Whether any has to wait for others of its group.
    pub(crate) fn has_parked(&self) -> bool {
        self.levels.iter().any(|level| level.parked.as_ref().is_some_and(|parked| !parked.is_empty()))
    }

    /// What those take in memory that do.
    pub(crate) fn parked_near_bytes(&self) -> u64 {
        self.levels.iter().filter_map(|level| level.parked.as_ref()).map(|parked| parked.near_bytes()).sum()
    }

    /// A message that was taken has to wait for others of its group.
    pub(crate) fn park(&mut self, entry: Entry, group: Slot<Group>) {
        self.sums.add(&entry.run());
        if entry.message().is_some() {
            self.near_bytes += entry.near_bytes();
        }
        let level = self.level(entry.priority);
        level.expect_again(&entry.run());
        level.parked.get_or_insert_default().insert(entry, group);
    }

    /// Whether a parked message is in memory.
    pub(crate) fn is_parked_near(&self, rank: Rank) -> bool {
        self.parked(rank).is_some_and(|parked| parked.is_near(rank.seq()))
    }

    /// A parked message, if it is far.
    pub(crate) fn parked_far(&self, rank: Rank) -> Option<Run> {
        let parked = self.parked(rank)?;
        if parked.is_near(rank.seq()) { None } else { parked.find(rank.seq()) }
    }

    /// Whether a parked message expired before this time.
    pub(crate) fn parked_has_expired(&self, rank: Rank, unix_ms: u64) -> bool {
        let found = || self.parked(rank)?.find(rank.seq());
        self.can_expire()
            && found().is_some_and(|run| has_expired(run.expires_at_ms, run.redelivered, Moment::Before(unix_ms)))
    }

    /// Takes a parked message, whose group knows it.
    pub(crate) fn take_parked(&mut self, rank: Rank) -> Option<Entry> {
        let entry = self.levels.get_mut(usize::from(rank.priority()))?.parked.as_mut()?.take(rank.seq())?;
        Some(self.left(entry))
    }

    fn parked(&self, rank: Rank) -> Option<&Parked> {
        self.levels.get(usize::from(rank.priority()))?.parked.as_deref()
    }

    /// Parked messages that have left, and of which their groups are still to be told.
    pub(crate) fn take_gone(&mut self) -> Vec<(Rank, Slot<Group>)> {
        let parked = self.levels.iter_mut().filter_map(|level| level.parked.as_mut());
        parked.flat_map(|parked| parked.take_gone()).collect()
    }

    /// Takes the first of the highest priority that has any, parked or not. One that is far and not parked is taken only
    /// if `takes_far`.
    pub(crate) fn pop_oldest(&mut self, takes_far: bool) -> Option<Entry> {
        let has_any =
            |level: &Level| !level.is_empty() || level.parked.as_ref().is_some_and(|parked| !parked.is_empty());
        let level = self.levels.iter_mut().rev().find(|level| has_any(level))?;
        let entry = match level.parked_before_first() {
            Some(seq) => level.parked.as_mut()?.withdraw(seq)?,
            None if takes_far => level.pop()?,
            None if matches!(level.first(), Some(Head::Far(_))) => return None,
            None if level.pops_timed() => level.timed.as_mut()?.pop(true)?,
            None => level.pop_near()?,
        };
        Some(self.left(entry))
    }

    /// Adds a message that is newer than all others and in memory.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.sums.add(&entry.run());
        self.near_bytes += entry.near_bytes();
        let level = self.level(entry.priority);
        debug_assert!(level.fresh.back().is_none_or(|last| last.seq < entry.seq), "seq strictly increases");
        level.fresh.push_back(entry);
    }

    /// Adds messages that the log has.
    pub(crate) fn push_far(&mut self, run: Run) {
        self.sums.add(&run);
        self.level(run.priority).far.insert(Run { holder: 0, since_ms: 0, ..run });
    }

    /// A new message that will expire is about to be added: whether the head of its level tells when depends on what is
    /// before it, and on what may come back to there.
    pub(crate) fn note_expiry(&mut self, run: &Run, unacked: Sums) {
        let is_alone = self.sums.count == 0 && unacked.count == 0;
        let all_expire = self.sums.expiring == self.sums.count && unacked.expiring == unacked.count;
        let level = self.level(run.priority);
        if is_alone {
            (level.expiries, level.last_expiry_ms) = (None, 0);
        }
        let is_in_order = all_expire && run.expires_at_ms >= level.last_expiry_ms;
        level.last_expiry_ms = level.last_expiry_ms.max(run.expires_at_ms);
        if !is_in_order {
            level.expiries.get_or_insert_default().insert(expiry_of(run));
        }
    }

    /// The first messages of the lowest priority, as far as they are alike and far.
    pub(crate) fn first_run(&self) -> Option<Run> {
        self.levels[0].far.first()
    }

    /// Takes some of them, `max` at most.
    pub(crate) fn pop_far(&mut self, max: u32) -> Option<Run> {
        let level = &mut self.levels[0];
        let first = level.far.first()?;
        let run = Run { count: first.count.min(max), ..first };
        level.far.take_range(run.range(), &mut |_| {});
        level.expect_no_more(&run);
        self.sums.subtract(&run);
        Some(run)
    }

    /// Adds messages that the log has, and whose time has come.
    pub(crate) fn push_due(&mut self, run: Run) {
        self.sums.add(&run);
        let level = self.level(run.priority);
        level.timed.get_or_insert_default().insert_far(run);
        if run.expires_at_ms != 0 {
            level.expiries.get_or_insert_default().insert(expiry_of(&run));
        }
    }

    /// Adds what is due now.
    pub(crate) fn push_item(&mut self, item: Item) {
        match item {
            Item::Near(entry) => self.put_back(entry),
            Item::Far(run) => self.push_due(run),
        }
    }

    /// Puts messages back that the log has and that were taken.
    pub(crate) fn return_far(&mut self, run: Run) {
        if run.due_at_ms != 0 {
            return self.push_due(run);
        }
        self.level(run.priority).expect_again(&run);
        self.push_far(run);
    }

    /// Takes over far messages of one priority, when there is nothing else.
    pub(crate) fn adopt(&mut self, far: Backlog, priority: u8) {
        let mut expiries = Vec::new();
        for run in far.range(Seq(0)) {
            let level = self.level(priority);
            if run.expires_at_ms != 0 {
                // Like `note_expiry`, but for many at a time.
                let is_in_order = run.expires_at_ms >= level.last_expiry_ms;
                level.last_expiry_ms = level.last_expiry_ms.max(run.expires_at_ms);
                if !is_in_order || self.sums.expiring != self.sums.count {
                    expiries.push(expiry_of(&run));
                }
            }
            self.sums.add(&run);
            if expiries.len() >= SORTED_AT_ONCE {
                self.level(priority).expiries.get_or_insert_default().extend(&mut expiries);
            }
        }
        if !expiries.is_empty() {
            self.level(priority).expiries.get_or_insert_default().extend(&mut expiries);
        }
        self.level(priority).far = far.into();
    }

    /// Puts a message back that was taken.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        if entry.message().is_none() {
            return self.return_far(entry.run());
        }
        self.sums.add(&entry.run());
        self.near_bytes += entry.near_bytes();
        let level = self.level(entry.priority);
        if entry.due_at_ms == 0 {
            level.expect_again(&entry.run());
            level.returned.insert(entry.seq, entry);
        } else {
            if entry.expires_at_ms != 0 {
                level.expiries.get_or_insert_default().insert(expiry_of(&entry.run()));
            }
            level.timed.get_or_insert_default().insert_near(entry);
        }
    }

    fn level(&mut self, priority: u8) -> &mut Level {
        let at = usize::from(priority);
        self.top = self.top.max(at);
        self.levels.at(at)
    }

    #[inline(always)]
    fn left(&mut self, entry: Entry) -> Entry {
        if entry.expires_at_ms != 0 {
            self.levels[usize::from(entry.priority)].expect_no_more(&entry.run());
        }
        self.sums.subtract(&entry.run());
        if entry.message().is_some() {
            self.near_bytes -= entry.near_bytes();
        }
        entry
    }

    /// The message that leaves next.
    pub(crate) fn first(&mut self) -> Option<Head<'_>> {
        self.find_top();
        self.levels.get(self.top)?.first()
    }

    /// The lowest seq that leads a level, which is that of the oldest message unless some had to wait for a time.
    pub(crate) fn oldest_seq(&self) -> Option<Seq> {
        let first = |level: &Level| match level.first()? {
            Head::Near(entry) => Some(entry.seq),
            Head::Far(run) => Some(run.seq),
        };
        self.levels.iter().filter_map(|level| level.parked_before_first().or_else(|| first(level))).min()
    }

    /// Takes the message that leaves next, near or far.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.find_top();
        let entry = self.levels.get_mut(self.top)?.pop()?;
        Some(self.left(entry))
    }

    /// Takes the message that leaves next if it is near.
    #[inline(always)]
    pub(crate) fn pop_near(&mut self) -> Option<Entry> {
        self.find_top();
        let level = self.levels.get_mut(self.top)?;
        if level.timed.is_some() && level.pops_timed() {
            let entry = level.timed.as_mut()?.pop(true)?;
            return Some(self.left(entry));
        }
        if !level.far.is_empty() && matches!(level.first_untimed(), Some(Head::Far(_))) {
            return None;
        }
        let entry = level.pop_near()?;
        Some(self.left(entry))
    }

    /// Takes what has expired and stands at the head of its level. What is far is taken only if its body is
    /// of no interest.
    pub(crate) fn pop_expired(&mut self, moment: Moment, takes_far: bool) -> Option<Expired> {
        if let Some(at) = (0..self.levels.len()).find(|at| self.levels[*at].parked_has_expired(moment)) {
            let parked = self.levels[at].parked.as_mut()?;
            let seq = parked.first()?.seq;
            let entry = parked.withdraw(seq)?;
            return Some(Expired::Near(self.left(entry)));
        }
        let at = self.expired_level(moment)?;
        let level = &mut self.levels[at];
        match level.first_untimed()? {
            Head::Near(_) => {
                let entry = level.pop_near()?;
                Some(Expired::Near(self.left(entry)))
            }
            Head::Far(_) if !takes_far => Some(Expired::Unread { priority: at as u8 }),
            Head::Far(run) => {
                // Those of a run expire together, and nothing is between them.
                level.far.take_range(run.range(), &mut |_| {});
                level.expect_no_more(&run);
                self.sums.subtract(&run);
                Some(Expired::Far(run))
            }
        }
    }

    /// Whether the message that leaves next expired before this time.
    pub(crate) fn first_has_expired(&mut self, unix_ms: u64) -> bool {
        self.can_expire() && self.first().is_some_and(|head| head.has_expired(unix_ms))
    }

    /// Takes what has expired and does not stand at a head: about `max` messages at most, or far runs.
    pub(crate) fn take_expired(&mut self, moment: Moment, max: u32) -> ExpiredWithin {
        let mut found = ExpiredWithin::default();
        for level in self.levels.iter_mut() {
            level.take_expired(moment.end_ms(), max, &mut found);
        }
        for run in found.near.iter().map(Entry::run).chain(found.far.iter().copied()) {
            self.sums.subtract(&run);
        }
        self.near_bytes -= found.near.iter().map(Entry::near_bytes).sum::<u64>();
        found
    }

    /// Whether [`Self::take_expired`] would find something.
    pub(crate) fn has_expired_within(&self, moment: Moment) -> bool {
        self.levels.iter().filter_map(Level::next_expiry_within).any(|at_ms| at_ms < moment.end_ms())
    }

    /// Whether [`Self::pop_expired`] or [`Self::take_expired`] would find something.
    pub(crate) fn has_expired(&self, moment: Moment) -> bool {
        let is_parked = || self.can_expire() && self.levels.iter().any(|level| level.parked_has_expired(moment));
        self.expired_level(moment).is_some() || is_parked() || self.has_expired_within(moment)
    }

    fn expired_level(&self, moment: Moment) -> Option<usize> {
        if self.sums.expiring == 0 {
            return None;
        }
        let has_expired = |at: &usize| self.levels[*at].first_untimed().is_some_and(|head| head.has_expired_at(moment));
        (0..self.levels.len()).rev().find(has_expired)
    }

    /// When the first message expires (unix ms), as far as that is known by now.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if self.sums.expiring == 0 {
            return None;
        }
        let heads = self.levels.iter().filter_map(Level::first_untimed);
        let expiries = heads.map(|head| match head {
            Head::Near(entry) => entry.expires_at_ms,
            Head::Far(run) => run.expires_at_ms,
        });
        let within = self.levels.iter().filter_map(Level::next_expiry_within);
        let parked = self.levels.iter().filter_map(|level| Some(level.parked.as_ref()?.first()?.expires_at_ms));
        expiries.chain(parked).filter(|at| *at != 0).chain(within).min()
    }

    /// The far messages that leave first, of all or of one priority: up to that many bytes of memory, at least one. Of those
    /// that had to wait for a time, which lie here and there in the log, there may be so many more.
    pub(crate) fn next_far(&mut self, priority: Option<u8>, bytes: u64, timed_times: u64) -> Vec<Run> {
        let mut next = NextFar { runs: Vec::new(), bytes, most: READ_RUNS_MAX };
        if priority.is_none()
            && let Some(level) = self.levels.iter_mut().rev().find(|level| level.has_far())
            && level.pops_timed()
            && let Some(lane) = level.timed.as_mut().filter(|lane| lane.has_far())
        {
            next.bytes *= timed_times;
            next.most *= timed_times as usize;
            let most = usize::try_from(next.bytes / NEAR_BYTES).unwrap_or(usize::MAX).min(next.most);
            let _is_full = lane.first_far(most).any(|run| !next.take(run));
            return next.runs;
        }
        let of_priority = |at: usize| priority.is_none_or(|priority| usize::from(priority) == at);
        let levels = (0..self.levels.len()).rev().filter(|at| of_priority(*at)).map(|at| &self.levels[at]);
        let _is_full = levels.flat_map(|level| level.far_in_order(priority.is_some())).any(|run| !next.take(run));
        next.runs
    }

    /// A far message was read; false if it has gone, or has been written elsewhere, meanwhile.
    pub(crate) fn bring_near(&mut self, run: &Run, message: Message) -> bool {
        let (priority, seq, lsn, is_timed) = (run.priority, run.seq, run.lsn, run.due_at_ms != 0);
        let Some(level) = self.levels.get_mut(usize::from(priority)) else { return false };
        if is_timed
            && let Some(lane) = &mut level.timed
            && let Some(bytes) = lane.bring_near(seq, lsn, message.clone())
        {
            self.near_bytes += bytes;
            return true;
        }
        if let Some(parked) = &mut level.parked
            && let Some(bytes) = parked.bring_near(seq, lsn, message.clone())
        {
            self.near_bytes += bytes;
            return true;
        }
        let run = match level.far.first() {
            Some(first) if first.seq == seq => (first.lsn == lsn).then(|| level.far.pop_first()).flatten(),
            _ => match level.far.get(seq) {
                Some(found) if found.lsn == lsn => level.far.remove(seq),
                _ => None,
            },
        };
        let Some(run) = run else { return false };
        let entry = Entry::from(run).with(message);
        self.near_bytes += entry.near_bytes();
        match level.fresh.back() {
            Some(last) if last.seq > seq => {
                level.returned.insert(seq, entry);
            }
            _ => level.fresh.push_back(entry),
        }
        true
    }

    /// Takes all near messages, in no particular order.
    pub(crate) fn take_near(&mut self) -> Vec<Entry> {
        let mut near = Vec::new();
        for level in self.levels.iter_mut() {
            near.extend(std::mem::take(&mut level.returned).into_values());
            near.extend(std::mem::take(&mut level.fresh));
            near.extend(level.timed.iter_mut().flat_map(|lane| lane.take_near()));
            near.extend(level.parked.iter_mut().flat_map(|parked| parked.take_near()));
        }
        for entry in near.iter().filter(|entry| entry.expires_at_ms != 0) {
            self.levels[usize::from(entry.priority)].expect_no_more(&entry.run());
        }
        near.iter().for_each(|entry| self.sums.subtract(&entry.run()));
        self.near_bytes = 0;
        near
    }

    /// Takes all far messages, when the near ones are gone.
    pub(crate) fn take_far(&mut self) -> Vec<Backlog> {
        let mut far = Vec::new();
        for level in self.levels.iter_mut() {
            far.push(std::mem::take(&mut level.far).into_backlog());
            far.extend(level.timed.take().into_iter().flat_map(|lane| lane.into_far()));
            far.extend(level.parked.take().map(|parked| parked.into_far()));
            if let Some(expiries) = &mut level.expiries {
                **expiries = Times::default();
            }
        }
        self.sums = Sums::default();
        far
    }

    /// The lowest and the highest seq.
    pub(crate) fn ends(&self) -> Option<(Seq, Seq)> {
        let near = self.levels.iter().flat_map(|level| {
            let returned = level.returned.first_key_value().into_iter().chain(level.returned.last_key_value());
            let fresh = level.fresh.front().into_iter().chain(level.fresh.back());
            returned.map(|(seq, _)| *seq).chain(fresh.map(|entry| entry.seq))
        });
        let far = self.levels.iter().flat_map(|level| level.far.first_seq().into_iter().chain(level.far.last_seq()));
        let timed = self.levels.iter().filter_map(|level| level.timed.as_ref()?.ends());
        let timed = timed.flat_map(|(first, last)| [first, last]);
        let parked = self.levels.iter().filter_map(|level| level.parked.as_ref()).flat_map(|parked| parked.ends());
        let all: Vec<Seq> = near.chain(far).chain(timed).chain(parked).collect();
        Some((*all.iter().min()?, *all.iter().max()?))
    }

    /// Every message from this seq on, as runs, from several sources that are each in order.
    pub(crate) fn sources(&self, from: Seq) -> impl Iterator<Item = Box<dyn Iterator<Item = Run> + '_>> {
        self.levels.iter().flat_map(move |level| {
            let start = level.fresh.partition_point(|entry| entry.seq < from);
            let returned = level.returned.range(from..).map(|(_, entry)| entry.run());
            let fresh = level.fresh.range(start..).map(Entry::run);
            let untimed: [Box<dyn Iterator<Item = Run>>; 3] =
                [Box::new(returned), Box::new(fresh), Box::new(level.far.range(from))];
            let beside = level.timed.iter().map(move |lane| Box::new(lane.from(from)) as Box<dyn Iterator<Item = Run>>);
            untimed.into_iter().chain(beside).chain(level.parked.iter().flat_map(move |parked| parked.sources(from)))
        })
    }

    /// The highest priority that may have messages.
    pub(crate) fn highest(&self) -> u8 {
        u8::try_from(self.levels.len().saturating_sub(1)).unwrap_or(u8::MAX)
    }

    /// The messages of one priority from this seq on, in the order in which they leave, as runs.
    pub(crate) fn of_priority(&self, priority: u8, from: Seq) -> impl Iterator<Item = Run> + '_ {
        let level = self.levels.get(usize::from(priority));
        let mut sources: Vec<_> = level
            .into_iter()
            .flat_map(|level| {
                let start = level.fresh.partition_point(|entry| entry.seq < from);
                let returned = level.returned.range(from..).map(|(_, entry)| entry.run());
                let fresh = level.fresh.range(start..).map(Entry::run);
                let untimed: [Box<dyn Iterator<Item = Run>>; 3] =
                    [Box::new(returned), Box::new(fresh), Box::new(level.far.range(from))];
                let timed =
                    level.timed.as_deref().map(|lane| Box::new(lane.from(from)) as Box<dyn Iterator<Item = Run>>);
                untimed.into_iter().chain(timed).chain(level.parked.iter().flat_map(move |parked| parked.sources(from)))
            })
            .map(Iterator::peekable)
            .collect();
        std::iter::from_fn(move || {
            let firsts = sources.iter_mut().enumerate().filter_map(|(at, source)| Some((source.peek()?.seq, at)));
            let (_, at) = firsts.min()?;
            sources[at].next()
        })
    }

    /// The bytes of a message that is near.
    pub(crate) fn near(&self, (priority, seq): (u8, Seq)) -> Option<&Message> {
        let level = self.levels.get(usize::from(priority))?;
        let entry = level.returned.get(&seq).or_else(|| {
            let at = level.fresh.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
            level.fresh.get(at)
        });
        let timed = || level.timed.as_ref()?.near(seq);
        entry.or_else(timed).or_else(|| level.parked.as_ref()?.near(seq)).and_then(Entry::message)
    }

    /// What is known of a message of whatever priority.
    pub(crate) fn find_any(&self, seq: Seq) -> Option<Run> {
        (0..=self.highest()).find_map(|priority| self.find((priority, seq)))
    }

    /// Takes the first message of the run, wherever it stands.
    pub(crate) fn take(&mut self, run: &Run) -> Option<Entry> {
        let (priority, seq) = (run.priority, run.seq);
        let level = self.levels.get_mut(usize::from(priority))?;
        let entry = match level.returned.remove(&seq) {
            Some(entry) => entry,
            None => match level.fresh.binary_search_by_key(&seq, |entry| entry.seq) {
                Ok(at) => level.fresh.remove(at)?,
                Err(_) => {
                    let timed = || level.timed.as_mut()?.take(seq, Some(run.due_at_ms));
                    let far = level.far.remove(seq).map(Entry::from).or_else(timed);
                    far.or_else(|| level.parked.as_mut()?.withdraw(seq))?
                }
            },
        };
        Some(self.left(entry))
    }

    /// What is known of a message.
    pub(crate) fn find(&self, (priority, seq): (u8, Seq)) -> Option<Run> {
        self.find_hinted((priority, seq), None)
    }

    /// The same; if it had to wait, then likely for that time.
    pub(crate) fn find_hinted(&self, (priority, seq): (u8, Seq), hint_ms: Option<u64>) -> Option<Run> {
        let level = self.levels.get(usize::from(priority))?;
        if let Some(entry) = level.returned.get(&seq) {
            return Some(entry.run());
        }
        if let Ok(at) = level.fresh.binary_search_by_key(&seq, |entry| entry.seq) {
            return Some(level.fresh[at].run());
        }
        let timed = || level.timed.as_ref()?.find(seq, hint_ms);
        level.far.get(seq).or_else(timed).or_else(|| level.parked.as_ref()?.find(seq))
    }

    /// The message's record is elsewhere now.
    pub(crate) fn relocate(&mut self, run: &Run, lsn: Lsn) {
        let (seq, due_at_ms) = (run.seq, run.due_at_ms);
        let Some(level) = self.levels.get_mut(usize::from(run.priority)) else { return };
        if let Some(entry) = level.returned.get_mut(&seq) {
            entry.lsn = lsn;
        } else if let Ok(at) = level.fresh.binary_search_by_key(&seq, |entry| entry.seq) {
            level.fresh[at].lsn = lsn;
        } else if !level.far.move_to(seq, lsn)
            && !level.timed.as_mut().is_some_and(|lane| lane.relocate(seq, due_at_ms, lsn))
            && let Some(parked) = &mut level.parked
        {
            parked.relocate(seq, lsn);
        }
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.sources(Seq(0)).flatten().collect()
    }

    fn find_top(&mut self) {
        while self.top > 0 && self.levels[self.top].is_empty() {
            self.top -= 1;
        }
    }
}

impl Level {
    fn is_empty(&self) -> bool {
        let is_untimed = self.timed.as_ref().is_none_or(|lane| lane.is_empty());
        self.fresh.is_empty() && self.returned.is_empty() && self.far.is_empty() && is_untimed
    }

    fn far_len(&self) -> usize {
        let parked = self.parked.as_ref().map_or(0, |parked| parked.far_len());
        self.far.len() + self.timed.as_ref().map_or(0, |lane| lane.far_len()) + parked
    }

    fn has_far(&self) -> bool {
        !self.far.is_empty() || self.timed.as_ref().is_some_and(|lane| lane.has_far())
    }

    fn far_heap_bytes(&self) -> u64 {
        let timed = self.timed.as_ref().map_or(0, |lane| lane.heap_bytes());
        let parked = self.parked.as_ref().map_or(0, |parked| parked.heap_bytes());
        self.far.heap_bytes() + timed + parked + self.expiries.as_ref().map_or(0, |expiries| expiries.heap_bytes())
    }

    /// A message that expires is back: if the heads alone do not tell, it has to be found.
    fn expect_again(&mut self, run: &Run) {
        if run.expires_at_ms != 0
            && let Some(expiries) = &mut self.expiries
        {
            expiries.insert(expiry_of(run));
        }
    }

    /// Messages that expire have left.
    fn expect_no_more(&mut self, run: &Run) {
        if let Some(expiries) = &mut self.expiries {
            expiries.remove_range(expiry_of(run));
        }
    }

    /// When the first expires of those that are found by their time.
    fn next_expiry_within(&self) -> Option<u64> {
        self.expiries.as_ref()?.first().map(|first| first.at_ms)
    }

    /// See [`Ready::take_expired`].
    fn take_expired(&mut self, unix_ms: u64, max: u32, found: &mut ExpiredWithin) {
        let mut left = max.saturating_sub((found.near.len() + found.far.len()) as u32);
        let mut in_fresh: Vec<Span> = Vec::new();
        while let Some(span) = self.expiries.as_mut().and_then(|expiries| expiries.pop_before(unix_ms, left)) {
            left = left.saturating_sub(span.count);
            let mut missing = span.count;
            self.far.take_range(span.range(), &mut |run| {
                missing -= run.count;
                found.far.push(run);
            });
            for seq in (span.seq.0..).map(Seq).take(span.count as usize) {
                if missing == 0 {
                    break;
                }
                let timed = self.timed.as_mut().and_then(|lane| lane.take(seq, None));
                let elsewhere = || self.parked.as_mut()?.withdraw(seq);
                let Some(entry) = timed.or_else(|| self.returned.remove(&seq)).or_else(elsewhere) else { continue };
                missing -= 1;
                match entry.message() {
                    Some(_) => found.near.push(entry),
                    None => found.far.push(entry.run()),
                }
            }
            if missing > 0 {
                in_fresh.push(span);
            }
        }
        if in_fresh.is_empty() {
            return;
        }
        // One pass, however many there are.
        in_fresh.sort_unstable_by_key(|span| span.seq);
        let is_taken = |entry: &Entry| {
            let at = in_fresh.partition_point(|span| span.seq <= entry.seq);
            let span = at.checked_sub(1).map(|before| in_fresh[before]);
            span.is_some_and(|span| entry.seq <= span.range().last && entry.expires_at_ms == span.at_ms)
        };
        self.fresh.retain(|entry| {
            let is_taken = is_taken(entry);
            if is_taken {
                found.near.push(entry.clone());
            }
            !is_taken
        });
    }

    /// The far ones, first what leaves first, about.
    fn far_in_order(&self, untimed_only: bool) -> Box<dyn Iterator<Item = Run> + '_> {
        let untimed = self.far.range(Seq(0));
        match &self.timed {
            Some(lane) if !untimed_only && lane.has_far() => {
                if self.is_timed_first(lane) {
                    Box::new(lane.far_in_order().chain(untimed))
                } else {
                    Box::new(untimed.chain(lane.far_in_order()))
                }
            }
            _ => Box::new(untimed),
        }
    }

    /// Whether the next to leave is one that had to wait.
    fn pops_timed(&self) -> bool {
        self.timed.as_ref().is_some_and(|lane| self.is_timed_first(lane))
    }

    /// The same, `lane` being the level's own.
    fn is_timed_first(&self, lane: &Lane) -> bool {
        let Some(timed) = lane.first_seq() else { return false };
        let untimed = match self.first_untimed() {
            None => return true,
            Some(Head::Near(entry)) => entry.seq,
            Some(Head::Far(run)) => run.seq,
        };
        timed < untimed
    }

    /// The first parked message if it comes before all others.
    fn parked_before_first(&self) -> Option<Seq> {
        let parked = self.parked.as_ref()?.first()?.seq;
        let is_first = self.first().is_none_or(|head| match head {
            Head::Near(entry) => parked < entry.seq,
            Head::Far(run) => parked < run.seq,
        });
        is_first.then_some(parked)
    }

    fn parked_has_expired(&self, moment: Moment) -> bool {
        let first = self.parked.as_ref().and_then(|parked| parked.first());
        first.is_some_and(|run| has_expired(run.expires_at_ms, run.redelivered, moment))
    }

    fn first_near(&self) -> Option<&Entry> {
        if self.returned.is_empty() {
            return self.fresh.front();
        }
        let returned = self.returned.values().next()?;
        self.fresh.front().filter(|fresh| fresh.seq < returned.seq).or(Some(returned))
    }

    fn first(&self) -> Option<Head<'_>> {
        match &self.timed {
            Some(lane) if self.is_timed_first(lane) => lane.first(),
            _ => self.first_untimed(),
        }
    }

    fn first_untimed(&self) -> Option<Head<'_>> {
        if self.far.is_empty() {
            return self.first_near().map(Head::Near);
        }
        let far = self.far.first()?;
        match self.first_near() {
            Some(near) if near.seq < far.seq => Some(Head::Near(near)),
            _ => Some(Head::Far(far)),
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        if self.timed.is_some() && self.pops_timed() {
            return self.timed.as_mut()?.pop(false);
        }
        match self.first_untimed()? {
            Head::Far(_) => self.far.pop_first().map(Entry::from),
            Head::Near(_) => self.pop_near(),
        }
    }

    #[inline(always)]
    fn pop_near(&mut self) -> Option<Entry> {
        if !self.returned.is_empty() {
            let first = self.returned.first_entry()?;
            if self.fresh.front().is_none_or(|fresh| *first.key() < fresh.seq) {
                return Some(first.remove());
            }
        }
        let entry = self.fresh.pop_front();
        if self.fresh.is_empty() {
            if self.fresh.capacity() > KEPT_CAPACITY {
                self.fresh = VecDeque::new();
            }
            // From the front again, where the processor's cache has it.
            self.fresh.clear();
        }
        entry
    }
}

/// When messages expire that have the same time to live.
fn expiry_of(run: &Run) -> Span {
    Span { at_ms: run.expires_at_ms, seq: run.seq, count: run.count }
}

/// So many times are sorted at once when they come in another order: twelve megabytes, for the moment of a start.
const SORTED_AT_ONCE: usize = 512 << 10;
/// An emptied level keeps room for this many messages.
const KEPT_CAPACITY: usize = 1024;
/// About what a near message takes beside its bytes: its place, and its own allocation.
pub(crate) const NEAR_BYTES: u64 = 160;
/// How many runs one read asks for at most.
const READ_RUNS_MAX: usize = 4096;
