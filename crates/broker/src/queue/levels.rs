//! The levels of a queue's ready messages, by priority. The first, which is the only one of most queues, is in the queue
//! itself and not elsewhere in memory.

use std::iter;
use std::ops::{Index, IndexMut};

/// See the module. There are as many as were ever needed, and one at least.
#[derive(Debug, Default)]
pub(super) struct Levels<T> {
    first: T,
    others: Vec<T>,
}

impl<T: Default> Levels<T> {
    pub(super) fn len(&self) -> usize {
        1 + self.others.len()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        match at.checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.others.get(at),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        match at.checked_sub(1) {
            None => Some(&mut self.first),
            Some(at) => self.others.get_mut(at),
        }
    }

    /// The level at this place, which is made if it is missing.
    #[inline]
    pub(super) fn at(&mut self, at: usize) -> &mut T {
        let Some(at) = at.checked_sub(1) else { return &mut self.first };
        if at >= self.others.len() {
            self.others.resize_with(at + 1, T::default);
        }
        &mut self.others[at]
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        iter::once(&mut self.first).chain(&mut self.others)
    }
}

impl<T: Default> Index<usize> for Levels<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        self.get(at).expect("it was needed before")
    }
}

impl<T: Default> IndexMut<usize> for Levels<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.get_mut(at).expect("it was needed before")
    }
}
