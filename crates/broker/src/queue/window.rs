//! The keys that a queue remembers, in the order in which they came: a ring of entries, and a table to find them by.
//!
//! An entry takes 24 bytes in the ring, and 5 to 11 in the table (numbers of 4 bytes, of which three eighths to three quarters
//! are in use). Hashes are keyed (see [`super::siphash`]), so that their bits spread whatever keys clients choose.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Window {
    ring: VecDeque<Slot>,
    /// The number of the entry at the front; numbers go on and on.
    first: u64,
    /// Labels of entries, made of their numbers, at the places of their hashes (0 = none): open addressing, one place on.
    table: Vec<u32>,
    /// Entries that count: the others were replaced, or forgotten, and are still in the ring.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    /// What the entry says, and below it two bits: the message is kept, and the entry counts.
    until: u64,
}

/// What is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) hash: u128,
    /// Below 2^62.
    pub(crate) until: u64,
    /// It is in the log, too.
    pub(crate) is_kept: bool,
}

impl Slot {
    fn counts(self) -> bool {
        self.until & COUNTS != 0
    }

    fn known(self) -> Known {
        let [low, high] = self.hash;
        let hash = u128::from(low) | u128::from(high) << 64;
        Known { hash, until: self.until >> 2, is_kept: self.until & KEPT != 0 }
    }
}

impl From<Known> for Slot {
    fn from(known: Known) -> Self {
        let Known { hash, until, is_kept } = known;
        let until = until.min(UNTIL_MAX) << 2 | COUNTS | if is_kept { KEPT } else { 0 };
        Self { hash: [hash as u64, (hash >> 64) as u64], until }
    }
}

impl Window {
    /// How many keys it remembers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What it takes in memory.
    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.ring.capacity() * size_of::<Slot>() + self.table.capacity() * size_of::<u32>()) as u64
    }

    /// What it knows of this key.
    pub(crate) fn get(&self, hash: u128) -> Option<Known> {
        let place = self.place_of(hash)?;
        Some(self.ring[self.position(self.table[place])].known())
    }

    /// Remembers a key as the newest one, whatever it knew of it; of more than `most`, the oldest ones go.
    pub(crate) fn insert(&mut self, known: Known, most: usize) {
        self.forget(known.hash);
        while self.len >= most.max(1) && self.pop().is_some() {}
        // What does not count must not outgrow what does.
        if self.ring.len() >= RING_MIN && self.ring.len() >= 2 * self.len {
            self.compact();
        }
        if places_for(self.ring.len() + 1) > self.table.len() {
            self.rebuild(self.ring.len() + 1);
        }
        self.ring.push_back(known.into());
        self.link(self.ring.len() - 1);
        self.len += 1;
    }

    /// The oldest key goes.
    fn pop(&mut self) -> Option<Known> {
        while let Some(slot) = self.ring.front().copied() {
            if slot.counts() {
                let known = slot.known();
                self.forget(known.hash);
                self.drop_front();
                return Some(known);
            }
            self.drop_front();
        }
        None
    }

    /// The oldest keys go as long as that is so.
    pub(crate) fn pop_while(&mut self, mut is_over: impl FnMut(Known) -> bool) {
        while let Some(slot) = self.ring.front().copied() {
            if slot.counts() {
                if !is_over(slot.known()) {
                    return;
                }
                self.forget(slot.known().hash);
            }
            self.drop_front();
        }
    }

    /// All go that are not to stay.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(Known) -> bool) {
        for slot in &mut self.ring {
            if slot.counts() && !stays(slot.known()) {
                slot.until &= !COUNTS;
                self.len -= 1;
            }
        }
        self.compact();
    }

    /// From this number on, those that the log has, at most so many, and the number behind them; that is `None` at the end.
    pub(crate) fn kept_from(&self, number: u64, count: usize) -> (Vec<Known>, Option<u64>) {
        let from = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.ring.len());
        let end = from.saturating_add(count).min(self.ring.len());
        let counting = self.ring.range(from..end).filter(|slot| slot.counts());
        let kept = counting.map(|slot| slot.known()).filter(|known| known.is_kept).collect();
        (kept, (end < self.ring.len()).then(|| self.first + end as u64))
    }

    /// It remembers the key no longer.
    fn forget(&mut self, hash: u128) {
        let Some(mut hole) = self.place_of(hash) else { return };
        let position = self.position(self.table[hole]);
        self.ring[position].until &= !COUNTS;
        self.len -= 1;
        // What follows without a gap moves up, unless it stands before its own place by that.
        let mask = self.table.len() - 1;
        let mut next = (hole + 1) & mask;
        while self.table[next] != 0 {
            let home = self.ring[self.position(self.table[next])].hash[0] as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.table[hole] = self.table[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.table[hole] = 0;
    }

    /// The first in the ring, which does not count any more, leaves it.
    fn drop_front(&mut self) {
        self.ring.pop_front();
        self.first += 1;
    }

    /// Where in the table the key is.
    fn place_of(&self, hash: u128) -> Option<usize> {
        let mask = self.table.len().checked_sub(1)?;
        let wanted = [hash as u64, (hash >> 64) as u64];
        let mut place = wanted[0] as usize & mask;
        while self.table[place] != 0 {
            if self.ring[self.position(self.table[place])].hash == wanted {
                return Some(place);
            }
            place = (place + 1) & mask;
        }
        None
    }

    /// Where in the ring the entry of this label is.
    fn position(&self, label: u32) -> usize {
        ((u64::from(label - 1) + LABELS - self.first % LABELS) % LABELS) as usize
    }

    /// Puts an entry of the ring into the table, which has room.
    fn link(&mut self, position: usize) {
        let mask = self.table.len() - 1;
        let mut place = self.ring[position].hash[0] as usize & mask;
        while self.table[place] != 0 {
            place = (place + 1) & mask;
        }
        self.table[place] = ((self.first + position as u64) % LABELS) as u32 + 1;
    }

    fn compact(&mut self) {
        // A walk over it may come to an entry twice, but must miss none: what stays gets no lower number.
        let end = self.first + self.ring.len() as u64;
        self.ring.retain(|slot| slot.counts());
        self.first = end - self.ring.len() as u64;
        self.ring.shrink_to(self.ring.len() * 2);
        self.rebuild(self.ring.len());
    }

    /// A table with room for so many.
    fn rebuild(&mut self, entries: usize) {
        self.table.clear();
        self.table.shrink_to(0);
        self.table.resize(places_for(entries), 0);
        for position in 0..self.ring.len() {
            if self.ring[position].counts() {
                self.link(position);
            }
        }
    }
}

fn places_for(entries: usize) -> usize {
    (entries * 4 / 3 + 1).next_power_of_two().max(16)
}

/// How many labels there are: as many as a place of the table can tell from none.
const LABELS: u64 = u32::MAX as u64;
const COUNTS: u64 = 1;
const KEPT: u64 = 2;
const UNTIL_MAX: u64 = u64::MAX >> 2;
/// A smaller ring is not worth being gone through.
const RING_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(hash: u128) -> Known {
        Known { hash, until: 0, is_kept: true }
    }

    #[test]
    fn an_entry_takes_24_bytes_and_its_place_in_the_table_at_most_11() {
        let mut window = Window::default();
        for hash in 0..100_000 {
            window.insert(known(hash * 0x9e37_79b9_7f4a_7c15), usize::MAX);
        }
        assert_eq!(size_of::<Slot>(), 24);
        assert!(window.heap_bytes() <= 100_000 * (2 * 24 + 11), "{}", window.heap_bytes());
    }

    proptest! {
        /// Against a plain list of what is remembered, the newest last.
        #[test]
        fn it_remembers_what_a_list_would(
            acts in prop::collection::vec((0_u128..40, 0_u8..20, any::<bool>()), 0..400),
            most in 1_usize..50,
        ) {
            let (mut window, mut list) = (Window::default(), Vec::<Known>::new());
            // Next to where numbers wrap.
            window.first = u64::from(u32::MAX) - 100;
            for (key, act, is_kept) in acts {
                // Few places, so that many collide.
                let hash = (key << 64) | (key % 3);
                match act {
                    0 => {
                        window.retain(|known| known.hash >> 64 != key);
                        list.retain(|known| known.hash >> 64 != key);
                    }
                    1 => {
                        window.pop_while(|known| known.hash >> 64 < 10);
                        let stay = list.iter().position(|known| known.hash >> 64 >= 10).unwrap_or(list.len());
                        list.drain(..stay);
                    }
                    _ => {
                        let new = Known { hash, until: u64::from(act), is_kept };
                        window.insert(new, most);
                        list.retain(|known| known.hash != hash);
                        let excess = (list.len() + 1).saturating_sub(most);
                        list.drain(..excess);
                        list.push(new);
                    }
                }
                prop_assert_eq!(window.len(), list.len());
                for key in 0..40 {
                    let hash = (key << 64) | (key % 3);
                    prop_assert_eq!(window.get(hash), list.iter().find(|known| known.hash == hash).copied());
                }
                prop_assert!(window.ring.len() <= (2 * list.len()).max(RING_MIN) + 1);
            }
            let (mut walked, mut next) = (Vec::new(), Some(0));
            while let Some(number) = next {
                let (piece, behind) = window.kept_from(number, 7);
                walked.extend(piece);
                next = behind;
            }
            prop_assert_eq!(walked, list.into_iter().filter(|known| known.is_kept).collect::<Vec<_>>());
        }
    }
}
