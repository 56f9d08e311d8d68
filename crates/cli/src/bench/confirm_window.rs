//! Which messages of a publisher wait for their confirm, and how many more may be sent.

use std::collections::VecDeque;

use anyhow::{Result, bail};

/// The unconfirmed messages of one channel. Confirms may come in any order, one at a time or many.
#[derive(Debug)]
pub(super) struct ConfirmWindow {
    /// How many may be unconfirmed.
    width: u64,
    /// The lowest publish number that is unconfirmed.
    first: u64,
    /// From `first` on: whether each message sent has been confirmed.
    sent: VecDeque<bool>,
    confirmed: u64,
}

impl ConfirmWindow {
    /// Nothing sent yet. `width` is at least 1.
    pub(super) fn new(width: u64) -> Self {
        Self { width, first: 1, sent: VecDeque::new(), confirmed: 0 }
    }

    /// How many more may be sent now.
    pub(super) fn free(&self) -> u64 {
        self.width - self.unconfirmed()
    }

    /// How many messages have been confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Notes that `messages` more were sent.
    pub(super) fn send(&mut self, messages: u64) {
        self.sent.extend(std::iter::repeat_n(false, messages as usize));
    }

    /// Notes a confirm: of message `tag`, and if `multiple` of all before it.
    ///
    /// # Errors
    /// A broker that confirms what was not sent, or twice.
    pub(super) fn confirm(&mut self, tag: u64, multiple: bool) -> Result<()> {
        // None: all up to there were confirmed before, as the last of several may be.
        let place = tag.checked_sub(self.first).map(|place| usize::try_from(place).unwrap_or(usize::MAX));
        match place {
            Some(place) if multiple && place < self.sent.len() => {
                self.confirmed += self.sent.drain(..=place).filter(|is_confirmed| !is_confirmed).count() as u64;
                self.first += place as u64 + 1;
            }
            Some(place) if !multiple && self.sent.get(place) == Some(&false) => {
                self.sent[place] = true;
                self.confirmed += 1;
            }
            None if multiple => {}
            _ => bail!("the broker confirmed message {tag}, which did not wait for it"),
        }
        while self.sent.front() == Some(&true) {
            self.sent.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    fn unconfirmed(&self) -> u64 {
        self.first - 1 + self.sent.len() as u64 - self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unconfirmed_takes_room() {
        let mut window = ConfirmWindow::new(3);
        assert_eq!(window.free(), 3);
        window.send(3);
        assert_eq!(window.free(), 0);
        window.confirm(2, true).unwrap();
        assert_eq!((window.free(), window.confirmed()), (2, 2));
        window.send(2);
        window.confirm(3, false).unwrap();
        assert_eq!((window.free(), window.confirmed()), (1, 3));
    }

    #[test]
    fn confirms_come_in_any_order_and_count_once() {
        let mut window = ConfirmWindow::new(10);
        window.send(6);
        for (tag, multiple, confirmed) in
            [(3, false, 1), (5, false, 2), (1, false, 3), (5, true, 5), (4, true, 5), (6, true, 6)]
        {
            window.confirm(tag, multiple).unwrap();
            assert_eq!(window.confirmed(), confirmed, "{tag}");
        }
        assert_eq!(window.free(), 10);
    }

    #[test]
    fn a_confirm_of_what_was_not_sent_or_twice_is_refused() {
        let mut window = ConfirmWindow::new(10);
        window.send(3);
        window.confirm(2, false).unwrap();
        for (tag, multiple) in [(0, false), (2, false), (4, false), (4, true), (u64::MAX, false)] {
            assert!(window.confirm(tag, multiple).is_err(), "{tag}");
        }
        assert_eq!(window.confirmed(), 1);
    }
}
