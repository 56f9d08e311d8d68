//! When which message of a producer is due, at a fixed rate. Times are nanoseconds on the run's clock.

/// An even schedule without drift: how late a message goes out changes nothing for those after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    began_ns: u64,
    per_second: f64,
    /// How many messages have been taken.
    taken: u64,
}

impl Pace {
    /// `per_second` messages (more than 0), the first at `began_ns`.
    pub(super) fn new(per_second: f64, began_ns: u64) -> Self {
        Self { began_ns, per_second, taken: 0 }
    }

    /// When the message with this number, from 0, is due.
    fn due_ns(&self, number: u64) -> u64 {
        self.began_ns + (number as f64 * NS_PER_S / self.per_second) as u64
    }

    /// When the next message is due.
    pub(super) fn next_due_ns(&self) -> u64 {
        self.due_ns(self.taken)
    }

    /// Whether the next message is due; its time if so, and then the one after it is the next.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns();
        (due_ns <= now_ns).then(|| {
            self.taken += 1;
            due_ns
        })
    }

    /// How many messages are due and not taken, `most` at most.
    pub(super) fn due(&self, now_ns: u64, most: u64) -> u64 {
        let Some(since_ns) = now_ns.checked_sub(self.began_ns) else { return 0 };
        let due = (since_ns as f64 * self.per_second / NS_PER_S) as u64 + 1;
        // The last may be too many or missing by rounding: it is taken when it is asked for by itself.
        due.saturating_sub(self.taken).min(most)
    }

    /// Takes so many at once.
    pub(super) fn take_many(&mut self, messages: u64) {
        self.taken += messages;
    }
}

const NS_PER_S: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_without_drift() {
        let mut pace = Pace::new(3.0, 500);
        let mut due = Vec::new();
        while let Some(due_ns) = pace.take(2_000_000_500) {
            due.push(due_ns);
        }
        assert_eq!(due, [500, 333_333_833, 666_667_166, 1_000_000_500, 1_333_333_833, 1_666_667_166, 2_000_000_500]);
        assert_eq!(pace.next_due_ns(), 2_333_333_833);
    }

    #[test]
    fn what_is_due_can_be_taken_at_once() {
        let mut pace = Pace::new(1000.0, 1_000_000);
        assert_eq!((pace.due(0, 10), pace.due(1_000_000, 10), pace.due(5_500_000, 10)), (0, 1, 5));
        pace.take_many(4);
        assert_eq!((pace.due(5_500_000, 10), pace.due(1_000_000_000, 10)), (1, 10));
    }
}
