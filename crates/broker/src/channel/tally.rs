//! What a channel published, by exchange and by size.
//!
//! Nothing is counted for each message: the channel counts its publishes anyway, and what those have in common that
//! follow one another (exchange, what became of them, the step of sizes) is noted when it changes. Sums are made of the
//! difference then, or when somebody asks.

use crate::inspect::{ChannelCounters, ExchangeCounters, SizeCounters, Tallied};
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    run: Run,
    /// How many publishes the channel had when the run began.
    run_since: u64,
    /// By the exchange's number, in the order in which they were published to.
    exchanges: Vec<(u64, ExchangeCounters)>,
    /// Publishes that may not be confirmed yet, by exchange, in their order.
    unconfirmed: VecDeque<(u64, u64)>,
    /// How many confirms the channel had told when they were last seen to.
    confirmed: u64,
    step: Step,
    /// The same, if all that the channel may repeat is of this run: then what is compared and not parsed is counted by a
    /// look at its size.
    repeated: Step,
    /// How many publishes the channel had when the step began.
    step_since: u64,
    sizes: SizeCounters,
}

/// What publishes that follow one another have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The exchange's number.
    pub(super) exchange: u64,
    /// To how many queues each went.
    pub(super) queues: u32,
    pub(super) fate: Fate,
    /// They are confirmed.
    pub(super) confirm: bool,
}

/// Sizes that are counted together.
#[derive(Clone, Copy, Debug)]
struct Step {
    smallest: u64,
    /// How much larger the largest is.
    span: u64,
}

impl Step {
    /// Of no message.
    const NONE: Self = Self { smallest: u64::MAX, span: 0 };

    fn of(bytes: u64) -> Self {
        let (smallest, largest) = SizeCounters::step(bytes);
        Self { smallest, span: largest - smallest }
    }

    #[inline]
    fn has(self, bytes: u64) -> bool {
        bytes.wrapping_sub(self.smallest) <= self.span
    }
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It went to its queues, or as a reply to a channel.
    Routed,
    /// No queue took it, and it came back.
    Returned,
    /// No queue took it.
    Dropped,
    /// It waits for its transaction's commit.
    Uncommitted,
}

impl Fate {
    /// Of a message that is sent now.
    pub(super) fn of(is_unroutable: bool, mandatory: bool) -> Self {
        match (is_unroutable, mandatory) {
            (false, _) => Self::Routed,
            (true, true) => Self::Returned,
            (true, false) => Self::Dropped,
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            run: Run { exchange: 0, queues: 0, fate: Fate::Routed, confirm: false },
            run_since: 0,
            exchanges: Vec::new(),
            unconfirmed: VecDeque::new(),
            confirmed: 0,
            step: Step::NONE,
            repeated: Step::NONE,
            step_since: 0,
            sizes: SizeCounters::default(),
        }
    }
}

impl Tally {
    /// A publish that was compared and not parsed; false if [`Self::repeat`] is to be told of it.
    #[inline]
    pub(super) fn goes_on(&mut self, body_bytes: u64) -> bool {
        let goes_on = self.repeated.has(body_bytes);
        if goes_on {
            self.sizes.sum_bytes += body_bytes;
        }
        goes_on
    }

    /// A publish that was parsed and is counted as the last one; false if [`Self::publish`] is to be told of it.
    #[inline]
    pub(super) fn is_alike(&mut self, run: Run, body_bytes: u64) -> bool {
        let is_alike = self.run == run && self.step.has(body_bytes);
        if is_alike {
            self.sizes.sum_bytes += body_bytes;
        }
        is_alike
    }

    /// A publish that was compared and not parsed, and does not go on as the last one. `counters` are the channel's
    /// without it.
    pub(super) fn repeat(&mut self, run: Run, body_bytes: u64, counters: &ChannelCounters) {
        self.publish(run, body_bytes, counters);
        self.repeated = self.step;
    }

    /// A publish that was parsed. `counters` are the channel's without it.
    pub(super) fn publish(&mut self, run: Run, body_bytes: u64, counters: &ChannelCounters) {
        if self.run != run {
            self.settle_run(counters);
            self.run = run;
            // What is compared next may be of another run.
            self.repeated = Step::NONE;
        }
        if !self.step.has(body_bytes) {
            self.settle_step(counters);
            self.step = Step::of(body_bytes);
        }
        self.sizes.sum_bytes += body_bytes;
    }

    /// What is published from now on is confirmed.
    pub(super) fn confirm(&mut self, counters: &ChannelCounters) {
        self.settle_run(counters);
        self.run.confirm = true;
    }

    /// The next publish is one of a channel's counters, and no message; whether it is confirmed. `counters` are the
    /// channel's without it.
    pub(super) fn pass_over(&mut self, confirm: bool, counters: &ChannelCounters) {
        self.settle_run(counters);
        self.settle_step(counters);
        self.run_since += 1;
        self.step_since += 1;
        if confirm {
            self.await_confirms(NO_EXCHANGE, 1);
        }
    }

    /// A message of a transaction went to so many queues.
    pub(super) fn commit(&mut self, exchange: u64, queues: u32, fate: Fate) {
        self.count(Run { exchange, queues, fate, confirm: false }, 1);
    }

    /// There are so many exchanges that they are to be kept elsewhere.
    pub(super) fn is_full(&self) -> bool {
        self.exchanges.len() > EXCHANGES_MAX
    }

    /// Takes out all that was counted.
    pub(super) fn take(&mut self, counters: &ChannelCounters, into: &mut Tallied) {
        self.settle(counters);
        self.exchanges.drain(..).for_each(|(exchange, counted)| into.add_exchange(exchange, &counted));
        into.sizes.add(&std::mem::take(&mut self.sizes));
    }

    /// What was counted, by exchange and by size.
    pub(super) fn view(&self, counters: &ChannelCounters) -> (Vec<(u64, ExchangeCounters)>, SizeCounters) {
        let mut settled = self.clone();
        settled.settle(counters);
        (settled.exchanges, settled.sizes)
    }

    fn settle(&mut self, counters: &ChannelCounters) {
        self.settle_run(counters);
        self.settle_step(counters);
    }

    fn settle_step(&mut self, counters: &ChannelCounters) {
        let publishes = counters.publish - self.step_since;
        self.step_since = counters.publish;
        if publishes > 0 {
            self.sizes.count(self.step.smallest, publishes);
        }
        self.repeated = Step::NONE;
    }

    fn settle_run(&mut self, counters: &ChannelCounters) {
        let publishes = counters.publish - self.run_since;
        self.run_since = counters.publish;
        if publishes > 0 {
            let of_exchange = self.exchange(self.run.exchange);
            of_exchange.publish += publishes;
            self.count(self.run, publishes);
            if self.run.confirm {
                self.await_confirms(self.run.exchange, publishes);
            }
        }
        self.settle_confirms(counters.confirm);
    }

    fn count(&mut self, run: Run, publishes: u64) {
        let counted = self.exchange(run.exchange);
        match run.fate {
            Fate::Routed => counted.publish_out += publishes * u64::from(run.queues),
            Fate::Returned => counted.return_unroutable += publishes,
            Fate::Dropped => counted.drop_unroutable += publishes,
            Fate::Uncommitted => {}
        }
    }

    fn await_confirms(&mut self, exchange: u64, publishes: u64) {
        let is_full = self.unconfirmed.len() >= UNCONFIRMED_MAX;
        match self.unconfirmed.back_mut() {
            // Of more runs than anybody keeps apart, some confirms are told of another exchange.
            Some((last, count)) if *last == exchange || is_full => *count += publishes,
            _ => self.unconfirmed.push_back((exchange, publishes)),
        }
    }

    /// Confirms are told in the order of the publishes.
    fn settle_confirms(&mut self, confirmed: u64) {
        let mut more = confirmed - self.confirmed;
        while more > 0 {
            let Some((exchange, waiting)) = self.unconfirmed.front_mut() else { break };
            let now = more.min(*waiting);
            let exchange = *exchange;
            *waiting -= now;
            if *waiting == 0 {
                self.unconfirmed.pop_front();
            }
            more -= now;
            if exchange != NO_EXCHANGE {
                self.exchange(exchange).confirm += now;
            }
        }
        self.confirmed = confirmed;
    }

    fn exchange(&mut self, number: u64) -> &mut ExchangeCounters {
        let at = self.exchanges.iter().rposition(|(known, _)| *known == number).unwrap_or_else(|| {
            self.exchanges.push((number, ExchangeCounters::default()));
            self.exchanges.len() - 1
        });
        &mut self.exchanges[at].1
    }
}

/// Where a worker's request goes, by number.
const NO_EXCHANGE: u64 = u64::MAX;

/// How many exchanges a channel counts for by itself.
const EXCHANGES_MAX: usize = 32;

/// How many runs of publishes that wait for their confirms are kept apart.
const UNCONFIRMED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exchange: u64, queues: u32) -> Run {
        Run { exchange, queues, fate: Fate::Routed, confirm: true }
    }

    /// A channel with its tally.
    #[derive(Default)]
    struct Fake {
        tally: Tally,
        counters: ChannelCounters,
    }

    impl Fake {
        fn publish(&mut self, run: Run, body_bytes: u64) {
            self.tally.publish(run, body_bytes, &self.counters);
            self.counters.publish += 1;
        }

        /// One that is like the last one with this run.
        fn repeat(&mut self, run: Run, body_bytes: u64) {
            if !self.tally.goes_on(body_bytes) {
                self.tally.repeat(run, body_bytes, &self.counters);
            }
            self.counters.publish += 1;
        }

        fn exchange(&self, number: u64) -> ExchangeCounters {
            let (exchanges, _) = self.tally.view(&self.counters);
            exchanges.into_iter().find(|(known, _)| *known == number).map(|(_, counted)| counted).unwrap_or_default()
        }

        fn sizes(&self) -> SizeCounters {
            self.tally.view(&self.counters).1
        }
    }

    #[test]
    fn publishes_are_counted_by_exchange_with_the_queues_they_went_to() {
        let mut fake = Fake::default();
        (0..5).for_each(|_| fake.publish(run(1, 1), 10));
        (0..3).for_each(|_| fake.publish(run(2, 4), 10));
        (0..7).for_each(|_| fake.publish(run(1, 2), 10));
        assert_eq!((fake.exchange(1).publish, fake.exchange(1).publish_out), (12, 19));
        assert_eq!((fake.exchange(2).publish, fake.exchange(2).publish_out), (3, 12));
        assert_eq!(fake.exchange(3), ExchangeCounters::default());
    }

    #[test]
    fn what_repeats_an_earlier_publish_counts_for_that_ones_exchange() {
        let mut fake = Fake::default();
        fake.publish(run(1, 1), 10);
        fake.repeat(run(1, 1), 20);
        fake.publish(run(2, 1), 10);
        fake.publish(run(2, 1), 10);
        fake.repeat(run(1, 1), 10);
        fake.repeat(run(1, 1), 10);
        fake.publish(run(2, 1), 1_000);
        fake.publish(run(2, 1), 10);
        fake.repeat(run(1, 1), 10);
        assert_eq!((fake.exchange(1).publish, fake.exchange(2).publish), (5, 4));
    }

    #[test]
    fn what_no_queue_took_is_counted_apart() {
        let mut fake = Fake::default();
        fake.publish(Run { fate: Fate::of(true, false), ..run(1, 0) }, 0);
        fake.publish(Run { fate: Fate::of(true, true), ..run(1, 0) }, 0);
        fake.publish(Run { fate: Fate::of(true, true), ..run(1, 0) }, 0);
        let counted = fake.exchange(1);
        assert_eq!((counted.publish, counted.drop_unroutable, counted.return_unroutable), (3, 1, 2));
        assert_eq!(counted.publish_out, 0);
    }

    #[test]
    fn confirms_are_counted_in_the_order_of_the_publishes() {
        let mut fake = Fake::default();
        (0..4).for_each(|_| fake.publish(run(1, 1), 10));
        (0..4).for_each(|_| fake.publish(run(2, 1), 10));
        fake.counters.confirm = 3;
        assert_eq!((fake.exchange(1).confirm, fake.exchange(2).confirm), (3, 0));
        fake.counters.confirm = 6;
        assert_eq!((fake.exchange(1).confirm, fake.exchange(2).confirm), (4, 2));
    }

    #[test]
    fn publishes_before_confirm_mode_are_not_confirmed() {
        let mut fake = Fake::default();
        fake.publish(Run { confirm: false, ..run(1, 1) }, 10);
        fake.tally.confirm(&fake.counters);
        fake.repeat(run(1, 1), 10);
        fake.counters.confirm = 1;
        assert_eq!((fake.exchange(1).publish, fake.exchange(1).confirm), (2, 1));
    }

    #[test]
    fn a_request_of_a_worker_counts_for_no_exchange_and_has_no_size() {
        let mut fake = Fake::default();
        fake.publish(run(1, 1), 10);
        fake.tally.pass_over(true, &fake.counters);
        fake.counters.publish += 1;
        fake.publish(run(1, 1), 10);
        assert_eq!(fake.exchange(1).publish, 2);
        for (told, counted) in [(1, 1), (2, 1), (3, 2)] {
            fake.counters.confirm = told;
            assert_eq!(fake.exchange(1).confirm, counted);
        }
        assert_eq!(fake.tally.view(&fake.counters).0.len(), 1);
        assert_eq!((fake.sizes().counts[0], fake.sizes().sum_bytes), (2, 20));
    }

    #[test]
    fn sizes_are_counted_in_their_steps() {
        let mut fake = Fake::default();
        for bytes in [0, 100, 101, 1_000, 1_001, 5, 100_000_000, 100_000_001] {
            fake.publish(run(1, 1), bytes);
            fake.repeat(run(1, 1), bytes);
        }
        assert_eq!(fake.sizes().counts, [6, 4, 2, 0, 0, 0, 2, 2]);
        assert_eq!(fake.sizes().sum_bytes, 2 * (100 + 101 + 1_000 + 1_001 + 5 + 100_000_000 + 100_000_001));
    }

    #[test]
    fn what_is_taken_is_counted_once_and_exchanges_without_end_are_given_away() {
        let mut fake = Fake::default();
        let mut taken = Tallied::default();
        for exchange in 0..1_000 {
            fake.publish(run(exchange, 1), 10);
            if fake.tally.is_full() {
                fake.tally.take(&fake.counters, &mut taken);
            }
            assert!(fake.tally.exchanges.len() <= EXCHANGES_MAX + 1);
            assert!(fake.tally.unconfirmed.len() <= UNCONFIRMED_MAX);
        }
        fake.counters.confirm = 1_000;
        fake.tally.take(&fake.counters, &mut taken);
        assert_eq!(fake.tally.exchanges.len(), 0);
        assert_eq!(taken.exchanges.len(), 1_000);
        assert!(taken.exchanges.values().all(|counted| counted.publish == 1));
        assert_eq!(taken.exchanges.values().map(|counted| counted.confirm).sum::<u64>(), 1_000);
        assert_eq!(taken.sizes.counts[0], 1_000);
    }

    #[test]
    fn a_transactions_messages_are_routed_at_the_commit() {
        let mut fake = Fake::default();
        fake.publish(Run { fate: Fate::Uncommitted, ..run(1, 0) }, 10);
        assert_eq!((fake.exchange(1).publish, fake.exchange(1).publish_out), (1, 0));
        fake.tally.commit(1, 3, Fate::Routed);
        assert_eq!((fake.exchange(1).publish, fake.exchange(1).publish_out), (1, 3));
    }
}
