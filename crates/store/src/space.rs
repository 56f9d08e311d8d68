//! What the segments of a log still hold: which may go, and which is worth emptying.
//!
//! A few numbers for each segment and nothing for a record, so that a log of a terabyte takes a megabyte of memory.

use crate::{Lsn, LsnRange};

/// What is remembered of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Its first record, and the one after its last.
    pub(crate) first: Lsn,
    pub(crate) end: Lsn,
    pub(crate) bytes: u64,
    /// How many times its messages wait somewhere, and what they take, each time.
    references: u64,
    live_bytes: u64,
    /// What a copy of the live messages would leave out. What surrounds records is not counted: a copy has it again,
    /// and would be worth copying for ever.
    dead_bytes: u64,
    /// The last record before the latest release: it has to be durable before the segment may go.
    released_at: Lsn,
    /// How many references were left when all of it had been offered to the owner.
    offered_at: u64,
    /// It is in the list of those without references, where it may stay although it has some by now.
    is_listed: bool,
}

impl Segment {
    /// A segment that grows.
    pub(crate) fn new(number: u64, first: Lsn, bytes: u64) -> Segment {
        Segment {
            number,
            first,
            end: FOREVER,
            bytes,
            references: 0,
            live_bytes: 0,
            dead_bytes: 0,
            released_at: Lsn::ZERO,
            offered_at: NEVER,
            is_listed: true,
        }
    }

    /// A segment that ends there.
    /// One that was found: nothing lives in it until that is said.
    pub(crate) fn sealed(number: u64, first: Lsn, end: Lsn, bytes: u64) -> Segment {
        Segment { end, dead_bytes: bytes, ..Segment::new(number, first, bytes) }
    }

    pub(crate) fn has_references(&self) -> bool {
        self.references > 0
    }

    pub(crate) fn is_empty(&self, next: Lsn) -> bool {
        self.first == next
    }

    fn share_is_at_most(&self, percent: u64) -> bool {
        self.live_bytes.saturating_mul(100) <= (self.live_bytes + self.dead_bytes).saturating_mul(percent)
    }
}

/// The segments of a log.
#[derive(Debug)]
pub(crate) struct Space {
    /// By number, with gaps; the last one grows. Never empty.
    segments: Vec<Segment>,
    /// The numbers of segments without references: they go as soon as nothing else holds them.
    idle: Vec<u64>,
    log_bytes: u64,
    live_bytes: u64,
    /// A restart reads all segments from this one on.
    replay_from: u64,
    /// What was released since the segments were last looked through for one to empty.
    news_bytes: u64,
    victim: Option<u64>,
}

impl Space {
    /// `segments` is in order, and its last one is to grow.
    pub(crate) fn new(mut segments: Vec<Segment>, replay_from: u64) -> Space {
        segments.last_mut().expect("a log has the segment that it writes to").end = FOREVER;
        Space {
            idle: segments.iter().map(|segment| segment.number).collect(),
            log_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            live_bytes: 0,
            replay_from,
            news_bytes: u64::MAX,
            victim: None,
        }
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments.last().expect("there is always one that grows")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("there is always one that grows")
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The size of all segments from that one on.
    pub(crate) fn bytes_from(&self, number: u64) -> u64 {
        self.segments.iter().rev().take_while(|segment| segment.number >= number).map(|segment| segment.bytes).sum()
    }

    /// About how much of what a restart reads is dead.
    pub(crate) fn dead_replay_bytes(&self) -> u64 {
        let replayed = self.segments.iter().rev().take_while(|segment| segment.number >= self.replay_from);
        replayed.map(|segment| segment.bytes.saturating_sub(segment.live_bytes)).sum()
    }

    pub(crate) fn replay_bytes(&self) -> u64 {
        self.bytes_from(self.replay_from)
    }

    /// Begins the next segment.
    pub(crate) fn begin(&mut self, first: Lsn, bytes: u64) {
        let active = self.active_mut();
        active.end = first;
        let number = active.number + 1;
        self.segments.push(Segment::new(number, first, bytes));
        self.idle.push(number);
        self.log_bytes += bytes;
    }

    /// A record was appended, with so many references. One with none is dead as soon as no restart reads it, unless it
    /// is bound to the one before it: that would be appended again with it.
    pub(crate) fn grow(&mut self, bytes: u64, references: u64, payload_bytes: usize, is_bound: bool) {
        let live_bytes = references * live_cost(payload_bytes as u64);
        self.log_bytes += bytes;
        self.live_bytes += live_bytes;
        let active = self.active_mut();
        active.bytes += bytes;
        active.references += references;
        active.live_bytes += live_bytes;
        if references == 0 && !is_bound {
            active.dead_bytes += bytes;
        }
    }

    /// Corrects the size of a segment, if it is still there.
    pub(crate) fn resize(&mut self, number: u64, change: i64) {
        if let Ok(at) = self.position(number) {
            let segment = &mut self.segments[at];
            segment.bytes = segment.bytes.saturating_add_signed(change);
            self.log_bytes = self.log_bytes.saturating_add_signed(change);
        }
    }

    fn position(&self, number: u64) -> Result<usize, usize> {
        self.segments.binary_search_by_key(&number, |segment| segment.number)
    }

    /// The index of the segment that has this record, or the first one after it.
    fn at(&self, lsn: Lsn) -> Result<usize, usize> {
        let after = self.segments.partition_point(|segment| segment.first <= lsn);
        match after.checked_sub(1) {
            Some(at) if lsn < self.segments[at].end => Ok(at),
            _ => Err(after),
        }
    }

    /// Splits a range into those of single segments, by their index. What lies in none is left out.
    pub(crate) fn parts(&self, messages: LsnRange) -> impl Iterator<Item = (usize, LsnRange)> + use<'_> {
        let end = messages.first.plus(u64::from(messages.count));
        let mut first = messages.first;
        std::iter::from_fn(move || {
            let at = match self.at(first) {
                Ok(at) => at,
                Err(after) => {
                    first = self.segments.get(after)?.first;
                    after
                }
            };
            let part_end = self.segments[at].end.min(end);
            let count = part_end.0.checked_sub(first.0).filter(|count| *count > 0)? as u32;
            let part = (at, LsnRange { first, count });
            first = part_end;
            Some(part)
        })
    }

    /// Counts one reference to each of these messages.
    ///
    /// # Errors
    /// The first one that is in no segment. Then nothing is counted.
    pub(crate) fn retain(&mut self, messages: LsnRange, payload_bytes: u32) -> Result<(), Lsn> {
        let (mut next, end) = (messages.first, messages.first.plus(u64::from(messages.count)));
        while next < end {
            next = self.at(next).map(|at| self.segments[at].end).map_err(|_| next)?;
        }
        let cost = live_cost(u64::from(payload_bytes));
        let mut first = messages.first;
        while first < end {
            let at = self.at(first).expect("looked for just before");
            let segment = &mut self.segments[at];
            let count = segment.end.min(end).0 - first.0;
            segment.references += count;
            segment.live_bytes += count * cost;
            segment.dead_bytes = segment.dead_bytes.saturating_sub(count * cost);
            self.live_bytes += count * cost;
            first = segment.end.min(end);
        }
        Ok(())
    }

    /// Drops one reference to each of these messages; `last` is the last record there is.
    pub(crate) fn release(&mut self, messages: LsnRange, payload_bytes: u32, last: Lsn) {
        let cost = live_cost(u64::from(payload_bytes));
        let (mut first, end) = (messages.first, messages.first.plus(u64::from(messages.count)));
        while first < end {
            let at = self.at(first).expect("a released record is still kept");
            let segment = &mut self.segments[at];
            let part_end = segment.end.min(end);
            let count = part_end.0 - first.0;
            segment.references =
                segment.references.checked_sub(count).expect("a record is released once for each of its references");
            segment.live_bytes = segment.live_bytes.saturating_sub(count * cost);
            segment.dead_bytes += count * cost;
            segment.released_at = last;
            self.live_bytes = self.live_bytes.saturating_sub(count * cost);
            self.news_bytes = self.news_bytes.saturating_add(count * cost);
            if segment.references == 0 && !segment.is_listed {
                segment.is_listed = true;
                self.idle.push(segment.number);
            }
            first = part_end;
        }
    }

    /// A restart reads the log from this segment on.
    pub(crate) fn replay_from(&mut self, number: u64) {
        self.replay_from = number;
        self.news_bytes = u64::MAX;
    }

    /// Takes out the segments that nobody needs any more: nothing refers to their messages, what replaced these is
    /// durable, and no restart reads them.
    pub(crate) fn take_dead(&mut self, durable: Lsn) -> Vec<u64> {
        let Space { segments, idle, replay_from, .. } = self;
        let mut dead = Vec::new();
        // Most calls find that nothing is idle but what a restart would have to read.
        idle.retain(|number| {
            let Ok(at) = segments.binary_search_by_key(number, |segment| segment.number) else { return false };
            let segment = &mut segments[at];
            if segment.references > 0 {
                segment.is_listed = false;
                return false;
            }
            if *number < *replay_from && segment.released_at <= durable {
                dead.push(*number);
                return false;
            }
            true
        });
        if dead.is_empty() {
            return dead;
        }
        dead.sort_unstable();
        let is_dead = |segment: &Segment| dead.binary_search(&segment.number).is_ok();
        self.log_bytes -= segments.iter().filter(|segment| is_dead(segment)).map(|segment| segment.bytes).sum::<u64>();
        segments.retain(|segment| !is_dead(segment));
        self.news_bytes = u64::MAX;
        dead
    }

    /// Looks for a segment to empty, if enough has changed. `segment_bytes` is the size that segments usually have.
    pub(crate) fn look_for_victim(&mut self, segment_bytes: u64) {
        if self.news_bytes >= segment_bytes / NEWS_SHARE {
            self.news_bytes = 0;
            self.victim = self.find_victim(segment_bytes).map(|victim| victim.number);
        }
    }

    /// The segment that is most worth emptying, if any is.
    pub(crate) fn victim(&self) -> Option<&Segment> {
        self.segment(self.victim?).filter(|victim| victim.references > 0 && victim.references != victim.offered_at)
    }

    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        self.position(number).ok().map(|at| &self.segments[at])
    }

    fn find_victim(&self, segment_bytes: u64) -> Option<&Segment> {
        let allowed = (self.live_bytes + self.live_bytes / BLOAT_PART).saturating_add(2 * segment_bytes);
        let percent = if self.log_bytes > allowed { SHARE_IF_BLOATED } else { SHARE };
        let is_open = |segment: &&Segment| {
            segment.number < self.replay_from
                && segment.references > 0
                && segment.references != segment.offered_at
                && segment.share_is_at_most(percent)
        };
        // Exact thousandths are enough to compare by.
        let share = |segment: &&Segment| {
            segment.live_bytes.saturating_mul(1000) / (segment.live_bytes + segment.dead_bytes).max(1)
        };
        self.segments.iter().filter(is_open).min_by_key(share)
    }

    /// All of the segment was offered to the owner. Who still lives there is not moved before something changes.
    pub(crate) fn was_offered(&mut self, number: u64) {
        if let Ok(at) = self.position(number) {
            self.segments[at].offered_at = self.segments[at].references;
        }
        self.news_bytes = u64::MAX;
    }
}

fn live_cost(payload_bytes: u64) -> u64 {
    payload_bytes + REFERENCE_BYTES
}

/// About what a message takes in the log besides its payload.
const REFERENCE_BYTES: u64 = 24;
/// A segment that lives for less than that is emptied in any case, …
const SHARE: u64 = 25;
/// … and for less than that if the log has more than what lives and this part of it again.
const SHARE_IF_BLOATED: u64 = 75;
const BLOAT_PART: u64 = 3;
/// The segments are looked through when that part of a segment was released.
const NEWS_SHARE: u64 = 16;
const FOREVER: Lsn = Lsn(u64::MAX);
const NEVER: u64 = u64::MAX;
