//! Storage with typed positions: things are found by an index instead of a hash, and positions are used again.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Where a `T` is kept. Whoever may outlive the thing has to check that it is still the one meant.
pub(crate) struct Slot<T> {
    at: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Slot<T> {
    /// The slot as a number.
    pub(crate) fn index(self) -> u32 {
        self.at
    }

    /// The slot with that number, which came from [`Self::index`].
    pub(crate) const fn from_index(at: u32) -> Self {
        Self { at, kind: PhantomData }
    }
}

/// Things of one kind, each in its slot.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// Takes a slot for the thing.
    pub(crate) fn insert(&mut self, thing: T) -> Slot<T> {
        let at = if let Some(at) = self.free.pop() {
            self.all[at as usize] = Some(thing);
            at
        } else {
            self.all.push(Some(thing));
            u32::try_from(self.all.len() - 1).expect("memory ends before four billion things")
        };
        Slot { at, kind: PhantomData }
    }

    /// Empties the slot.
    pub(crate) fn remove(&mut self, slot: Slot<T>) -> T {
        let thing = self.all[slot.at as usize].take().expect("an occupied slot is removed");
        self.free.push(slot.at);
        thing
    }

    /// What the slot holds, if anything.
    pub(crate) fn get(&self, slot: Slot<T>) -> Option<&T> {
        self.all.get(slot.at as usize)?.as_ref()
    }

    /// What the slot holds, if anything.
    pub(crate) fn get_mut(&mut self, slot: Slot<T>) -> Option<&mut T> {
        self.all.get_mut(slot.at as usize)?.as_mut()
    }

    /// How many there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.all.capacity()
    }

    /// Everything, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot<T>, &T)> {
        let slot = |at| Slot { at, kind: PhantomData };
        (0..).zip(&self.all).filter_map(move |(at, thing)| Some((slot(at), thing.as_ref()?)))
    }

    /// Everything, by slot, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot<T>, &mut T)> {
        let slot = |at| Slot { at, kind: PhantomData };
        (0..).zip(&mut self.all).filter_map(move |(at, thing)| Some((slot(at), thing.as_mut()?)))
    }

    /// The first occupied slot from this position on, and the position to go on from.
    pub(crate) fn next_from(&self, position: u32) -> Option<(Slot<T>, u32)> {
        let offset = self.all.get(position as usize..)?.iter().position(Option::is_some)?;
        let at = position + u32::try_from(offset).ok()?;
        Some((Slot { at, kind: PhantomData }, at + 1))
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: Vec::new() }
    }
}

impl<T> Index<Slot<T>> for Slots<T> {
    type Output = T;

    fn index(&self, slot: Slot<T>) -> &T {
        self.get(slot).expect("the slot is occupied")
    }
}

impl<T> IndexMut<Slot<T>> for Slots<T> {
    fn index_mut(&mut self, slot: Slot<T>) -> &mut T {
        self.get_mut(slot).expect("the slot is occupied")
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

impl<T> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Slot<T> {}

impl<T> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Slot<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<T> Hash for Slot<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.at.hash(state);
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.at)
    }
}
