//! The deliveries of one channel, and which of them are acknowledged: told in as few frames as there can be.
//!
//! Delivery tags count from 1 on. What is acknowledged and has nothing before it that is not settled is one frame with
//! `multiple`; the rest is a frame each.

use amqp::ChannelId;
use amqp::method::basic;
use bytes::BytesMut;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    /// And not told yet.
    Acked,
    Settled,
}

/// They.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Of the tag `first` and those after it.
    states: VecDeque<State>,
    first: u64,
    /// Acknowledged and not told yet.
    fresh: Vec<u64>,
}

impl Ledger {
    /// A delivery has come.
    pub(super) fn delivered(&mut self, tag: u64) {
        if self.states.is_empty() {
            self.first = tag;
        }
        // A tag that does not follow the last one, which no broker gives, would be acknowledged on its own.
        let at = usize::try_from(tag.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if at == self.states.len() {
            self.states.push_back(State::Held);
        }
    }

    /// It is to be acknowledged.
    pub(super) fn ack(&mut self, tag: u64) {
        self.set(tag, State::Acked);
        self.fresh.push(tag);
    }

    /// It was settled otherwise.
    pub(super) fn settled(&mut self, tag: u64) {
        self.set(tag, State::Settled);
    }

    fn set(&mut self, tag: u64, state: State) {
        let at = tag.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(known) = at.and_then(|at| self.states.get_mut(at)) {
            *known = state;
        }
    }

    /// Tells what is not told yet.
    pub(super) fn flush(&mut self, channel: ChannelId, out: &mut BytesMut) {
        if self.fresh.is_empty() && self.states.front() != Some(&State::Settled) {
            return;
        }
        let (mut last, mut count) = (None, 0);
        while let Some(State::Acked | State::Settled) = self.states.front() {
            if self.states.pop_front() == Some(State::Acked) {
                last = Some(self.first);
                count += 1;
            }
            self.first += 1;
        }
        if let Some(delivery_tag) = last {
            basic::Ack { delivery_tag, multiple: count > 1 }.encode(channel, out);
        }
        for delivery_tag in std::mem::take(&mut self.fresh) {
            if last.is_none_or(|last| delivery_tag > last) {
                basic::Ack { delivery_tag, multiple: false }.encode(channel, out);
                self.set(delivery_tag, State::Settled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amqp::{Method, frame};

    fn told(ledger: &mut Ledger) -> Vec<(u64, bool)> {
        let mut out = BytesMut::new();
        ledger.flush(ChannelId(1), &mut out);
        let mut told = Vec::new();
        while let Some((frame, taken)) = frame::decode(&out, 4096).unwrap() {
            match Method::decode(frame.payload).unwrap() {
                Method::BasicAck(ack) => told.push((ack.delivery_tag, ack.multiple)),
                other => panic!("{other:?}"),
            }
            let _told = out.split_to(taken);
        }
        told
    }

    #[test]
    fn what_is_done_from_the_first_on_is_told_at_once_and_the_rest_one_by_one() {
        let mut ledger = Ledger::default();
        (1..=9).for_each(|tag| ledger.delivered(tag));
        [2, 4].into_iter().for_each(|tag| ledger.ack(tag));
        assert_eq!(told(&mut ledger), [(2, false), (4, false)]);
        assert_eq!(told(&mut ledger), []);
        [1, 6].into_iter().for_each(|tag| ledger.ack(tag));
        ledger.settled(3);
        assert_eq!(told(&mut ledger), [(1, false), (6, false)]);
        [5, 7, 9].into_iter().for_each(|tag| ledger.ack(tag));
        assert_eq!(told(&mut ledger), [(7, true), (9, false)]);
        ledger.settled(8);
        assert_eq!(told(&mut ledger), []);
        assert!(ledger.states.is_empty());
        ledger.delivered(10);
        ledger.ack(10);
        assert_eq!(told(&mut ledger), [(10, false)]);
    }

    #[test]
    fn nothing_is_acknowledged_that_is_held() {
        let mut ledger = Ledger::default();
        let mut seed = 7_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        let (mut held, mut acked, mut settled, mut next) = (Vec::new(), Vec::new(), Vec::new(), 1);
        for _ in 0..20_000 {
            match random() % 4 {
                0 | 1 => {
                    ledger.delivered(next);
                    held.push(next);
                    next += 1;
                }
                2 if !held.is_empty() => {
                    let tag = held.swap_remove(random() as usize % held.len());
                    if random().is_multiple_of(5) {
                        ledger.settled(tag);
                        settled.push(tag);
                    } else {
                        ledger.ack(tag);
                        acked.push(tag);
                    }
                }
                _ => {
                    for (tag, multiple) in told(&mut ledger) {
                        let told: Vec<u64> = match multiple {
                            true => acked.extract_if(.., |other| *other <= tag).collect(),
                            false => acked.extract_if(.., |other| *other == tag).collect(),
                        };
                        assert!(told.contains(&tag), "{tag}");
                        assert!(!multiple || held.iter().all(|other| *other > tag), "{tag} takes held ones with it");
                    }
                    assert_eq!(acked, [] as [u64; 0]);
                }
            }
        }
        assert!(settled.len() > 100);
    }
}
